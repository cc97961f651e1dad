//! One connection over which a peer lists what it shares (`st_catalog`): either end of it. It knows no torrent and no socket.
//!
//! It is an ordinary connection of peers whose handshake names no torrent but [`hash`], and that says nothing but the
//! messages of one extension. Whoever dialled asks for page after page.

use std::time::Duration;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::time::Time;
use crate::codec::catalog::{CatalogMessage, Entry, PAGES_MAX};
use crate::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind};
use crate::codec::wire::Handshake;
use crate::protocol::outbuf::Outbuf;
use crate::protocol::peer::{Event, Hello, Peer, PeerError};

/// How long a list may take, from the first byte.
pub const CATALOG_MAX: Duration = Duration::from_secs(60);
/// Pages that one connection may ask us for; then it is closed, as it is if it asks for more while it has not read what it
/// got.
const ASKED_MAX: u32 = 2 * PAGES_MAX;

/// What the handshake names instead of a torrent.
#[must_use]
pub fn hash() -> InfoHash {
    Sha1Hash::of(b"st_catalog")
}

/// What comes of what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The other end wants this page: answer with [`Catalog::give`].
    Wanted(u32),
    /// These are shared there; more come unless it `is_last`.
    Found {
        /// What is on this page.
        items: Vec<Entry>,
        /// There is no further page.
        is_last: bool,
    },
}

/// One end.
#[derive(Debug)]
pub struct Catalog {
    peer: Peer,
    dialled: bool,
    /// The page that was asked for last.
    page: u32,
    asked: u32,
}

fn hello(peer_id: [u8; 20]) -> Hello {
    Hello { info_hash: hash(), peer_id, dht: false }
}

impl Catalog {
    /// The end that dialled.
    #[must_use]
    pub fn dialled(now: Time, peer_id: [u8; 20]) -> Self {
        Self { peer: Peer::dialled(now, hello(peer_id)), dialled: true, page: 0, asked: 0 }
    }

    /// The end that was dialled: `peer` has read the other's handshake and not answered it.
    #[must_use]
    pub fn accepted(now: Time, mut peer: Peer, peer_id: [u8; 20]) -> Self {
        peer.greet(now, hello(peer_id));
        let mut catalog = Self { peer, dialled: false, page: 0, asked: 0 };
        catalog.introduce();
        catalog
    }

    fn introduce(&mut self) {
        self.peer.set_pieces(0);
        self.peer.send_extension_handshake(&ExtensionHandshake {
            ids: ExtensionIds::of(&[ExtensionKind::Catalog]),
            client: Some(concat!("SwarmTorrent ", env!("CARGO_PKG_VERSION")).as_bytes()),
            ..ExtensionHandshake::default()
        });
    }

    /// Steps through `input` until something comes of it; none when more bytes are needed.
    ///
    /// # Errors
    /// The other end broke the protocol, has no catalog, or asks too much.
    pub fn handle_input(&mut self, now: Time, input: &mut &[u8]) -> Result<Option<News>, PeerError> {
        while let Some(event) = self.peer.handle_input(now, input)? {
            match event {
                Event::Handshake(Handshake { info_hash, .. }) if info_hash != hash() => return Err(PeerError::Unasked),
                Event::Handshake(_) => self.introduce(),
                Event::ExtensionHandshake(_) if self.dialled && self.asked == 0 => self.ask()?,
                Event::Extended { kind: ExtensionKind::Catalog, payload } => {
                    if let Some(news) = self.handle_message(payload)? {
                        return Ok(Some(news));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn handle_message(&mut self, payload: &[u8]) -> Result<Option<News>, PeerError> {
        match CatalogMessage::parse(payload) {
            Some(CatalogMessage::Request(page)) if !self.dialled => {
                self.asked += 1;
                // Who lists reads a page before asking for the next: nobody needs to have us keep more for him.
                let is_flood = self.asked > ASKED_MAX || self.peer.outbuf().is_full();
                if is_flood { Err(PeerError::Flood) } else { Ok(Some(News::Wanted(page))) }
            }
            Some(CatalogMessage::Page { page, pages, items }) if self.dialled && page == self.page => {
                self.page += 1;
                let is_last = self.page >= pages || items.is_empty();
                if !is_last {
                    self.ask()?;
                }
                Ok(Some(News::Found { items, is_last }))
            }
            _ => Ok(None),
        }
    }

    fn ask(&mut self) -> Result<(), PeerError> {
        self.asked += 1;
        let mut payload = Vec::new();
        CatalogMessage::Request(self.page).write(&mut payload);
        if self.peer.send_extended(ExtensionKind::Catalog, &payload) { Ok(()) } else { Err(PeerError::Unasked) }
    }

    /// A page that the other end wanted.
    pub fn give(&mut self, page: &CatalogMessage) {
        let mut payload = Vec::new();
        page.write(&mut payload);
        self.peer.send_extended(ExtensionKind::Catalog, &payload);
    }

    /// What is to be sent.
    #[must_use]
    pub fn outbuf(&self) -> &Outbuf {
        self.peer.outbuf()
    }

    /// So many bytes of it were sent.
    pub fn advance(&mut self, now: Time, count: usize) {
        self.peer.advance(now, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::storage::Chunk;

    const NOW: Time = Time::ZERO;

    /// Everything that one end has to say.
    fn output(catalog: &mut Catalog) -> Vec<u8> {
        let mut chunks = Vec::new();
        catalog.outbuf().chunks(100, usize::MAX, &mut chunks);
        let bytes: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| if let Chunk::Bytes(bytes) = chunk { bytes.to_vec() } else { Vec::new() })
            .collect();
        catalog.advance(NOW, bytes.len());
        bytes
    }

    fn entry(number: usize) -> Entry {
        Entry { info_hash: Sha1Hash::of(&number.to_be_bytes()), st_id: None, name: number.to_string(), size: 1 }
    }

    #[test]
    fn a_list_is_read_page_after_page() {
        for count in [0, 1, 3, 5] {
            let mut asking = Catalog::dialled(NOW, [1; 20]);
            let mut input = output(&mut asking);
            let mut peer = Peer::accepted(NOW);
            assert!(matches!(peer.handle_input(NOW, &mut &input[..]), Ok(Some(Event::Handshake(_)))));
            let mut giving = Catalog::accepted(NOW, peer, [2; 20]);
            let mut found = Vec::new();
            let mut is_over = false;
            for _ in 0..20 {
                input = output(&mut giving);
                let mut rest = &input[..];
                while let Some(News::Found { items, is_last }) = asking.handle_input(NOW, &mut rest).unwrap() {
                    found.extend(items);
                    is_over |= is_last;
                }
                input = output(&mut asking);
                rest = &input;
                while let Some(News::Wanted(page)) = giving.handle_input(NOW, &mut rest).unwrap() {
                    let items = (0..count).map(entry).skip(page as usize * 2).take(2).collect();
                    let pages = count.div_ceil(2) as u32;
                    giving.give(&CatalogMessage::Page { page, pages, items });
                }
            }
            assert!(is_over && found == (0..count).map(entry).collect::<Vec<_>>(), "{count}: {found:?}");
        }
    }

    #[test]
    fn who_has_no_catalog_is_not_waited_for() {
        let mut asking = Catalog::dialled(NOW, [1; 20]);
        let mut other = Peer::dialled(NOW, Hello { info_hash: hash(), peer_id: [2; 20], dht: false });
        other.send_extension_handshake(&ExtensionHandshake::default());
        let mut chunks = Vec::new();
        other.outbuf().chunks(100, usize::MAX, &mut chunks);
        let bytes: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| if let Chunk::Bytes(bytes) = chunk { *bytes } else { &[] })
            .copied()
            .collect();
        assert_eq!(asking.handle_input(NOW, &mut &bytes[..]), Err(PeerError::Unasked));
    }
}
