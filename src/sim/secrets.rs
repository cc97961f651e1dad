//! What must not be said of a private torrent (BEP 27): its peers come from its trackers alone, and nobody else hears of it.
//!
//! It looks at every datagram and every stream that leaves a node: the DHT (BEP 5), local service discovery (BEP 14) and peer
//! exchange (BEP 11). Datagrams to trackers, and the handshake of a stream, may name a torrent. What is ciphered is not seen.

use std::collections::BTreeSet;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::codec::bencode;
use crate::codec::krpc::{Body, Message, Query};
use crate::codec::wire::HANDSHAKE_LEN;

/// What every message of local service discovery begins with.
const LSD_HEAD: &[u8] = b"BT-SEARCH";
/// What a plain handshake begins with.
const PLAIN_HEAD: &[u8] = b"\x13BitTorrent protocol";
/// The number of extended messages among those of peers (BEP 10).
const EXTENDED: u8 = 20;
/// The keys that only a message of peer exchange has.
const PEX_KEYS: [&str; 4] = ["5:added", "6:added6", "7:dropped", "8:dropped6"];
/// Bytes of an extended message that are looked at; what stands beyond them goes unseen. No exchange of peers is as long.
const EXTENDED_MAX: usize = 64 * 1024;

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What a datagram says of a torrent in `private` that it must not.
pub(crate) fn told(packet: &[u8], private: &BTreeSet<InfoHash>) -> Option<String> {
    if packet.starts_with(LSD_HEAD) {
        let shown = packet.to_ascii_lowercase();
        let named = private.iter().find(|hash| contains(&shown, hash.to_string().as_bytes()))?;
        return Some(format!("it tells its neighbours of the private torrent {named}"));
    }
    let named = private.iter().find(|hash| contains(packet, &hash.0))?;
    // A message of the DHT is a dictionary. That to a tracker begins with any number, and may name it.
    bencode::parse(packet, bencode::VALUES_MAX).ok()?;
    let how = match Message::parse(packet).map(|message| message.body) {
        Some(Body::Query { query: Query::GetPeers { .. }, .. }) => "asks the DHT for peers of",
        Some(Body::Query { query: Query::AnnouncePeer { .. }, .. }) => "announces itself in the DHT as a peer of",
        _ => "tells the DHT of",
    };
    Some(format!("it {how} the private torrent {named}"))
}

/// What an extended message says of peer exchange. A number of 0 says that it is off (BEP 10).
fn exchanged(message: &[u8]) -> Option<&'static str> {
    if contains(message, b"6:ut_pexi") && !contains(message, b"6:ut_pexi0e") {
        return Some("6:ut_pex");
    }
    PEX_KEYS.into_iter().find(|key| contains(message, key.as_bytes()))
}

/// One direction of a stream, as far as it was heard.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The handshake or message at the front, until it is understood.
    kept: Vec<u8>,
    /// Bytes to be passed over.
    skip: usize,
    is_greeted: bool,
    /// It is ciphered, or for a torrent that is not private: nothing of it matters.
    is_done: bool,
}

impl Said {
    /// `bytes` leave on the stream. What they say that they must not, if it is one for a torrent in `private`.
    pub(crate) fn hear(&mut self, mut bytes: &[u8], private: &BTreeSet<InfoHash>) -> Option<String> {
        while !self.is_done {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let missing = self.wanted().saturating_sub(self.kept.len());
            if missing > 0 && bytes.is_empty() {
                return None;
            }
            if missing > 0 {
                let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
                self.kept.extend_from_slice(taken);
                bytes = rest;
            } else if !self.is_greeted {
                self.is_greeted = true;
                self.is_done =
                    !self.kept.starts_with(PLAIN_HEAD) || self.info_hash().is_none_or(|hash| !private.contains(&hash));
                self.kept.clear();
            } else if let Some(word) = self.end_of_message() {
                return Some(format!("it says {word} to a peer of a private torrent"));
            }
        }
        None
    }

    fn info_hash(&self) -> Option<InfoHash> {
        self.kept.get(28..48)?.try_into().ok().map(Sha1Hash)
    }

    fn message_len(&self) -> Option<usize> {
        self.kept.first_chunk().map(|len| u32::from_be_bytes(*len) as usize)
    }

    /// How many bytes must be there until something can be made of them: of an extended message all, of others the head.
    fn wanted(&self) -> usize {
        match (self.message_len(), self.kept.get(4)) {
            _ if !self.is_greeted => HANDSHAKE_LEN,
            (None, _) => 4,
            (Some(len), Some(&EXTENDED)) => 4 + len.min(EXTENDED_MAX),
            (Some(len), _) => 4 + len.min(1),
        }
    }

    /// What is wanted of a message is there. The word in it that must not be.
    fn end_of_message(&mut self) -> Option<&'static str> {
        let word = if self.kept.get(4) == Some(&EXTENDED) { exchanged(&self.kept[5..]) } else { None };
        let len = self.message_len().unwrap_or_default();
        self.skip = (4 + len).saturating_sub(self.kept.len());
        self.kept.clear();
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::krpc::Want;

    const SECRET: InfoHash = Sha1Hash([0xab; 20]);
    const OPEN: InfoHash = Sha1Hash([0xcd; 20]);

    fn private() -> BTreeSet<InfoHash> {
        BTreeSet::from([SECRET])
    }

    fn query(query: Query<'_>) -> Vec<u8> {
        let mut packet = Vec::new();
        let body = Body::Query { id: Sha1Hash([1; 20]), read_only: false, query };
        Message { transaction: b"tt", seen_as: None, version: None, body }.write(&mut packet);
        packet
    }

    #[test]
    fn a_datagram_that_names_a_private_torrent_is_noticed() {
        let told = |packet: &[u8]| told(packet, &private());
        let get =
            |info_hash| query(Query::GetPeers { info_hash, want: Want::default(), no_seeds: false, scrape: false });
        let announce =
            |info_hash| query(Query::AnnouncePeer { info_hash, port: Some(1), seed: false, token: b"token" });
        assert!(told(&get(SECRET)).unwrap().contains("asks the DHT"));
        assert!(told(&announce(SECRET)).unwrap().contains("announces itself in the DHT"));
        let find = query(Query::FindNode { target: SECRET, want: Want::default() });
        assert!(told(&find).unwrap().contains("tells the DHT"));
        assert_eq!((told(&get(OPEN)), told(&announce(OPEN))), (None, None));
        let lsd = |hash: &str| {
            format!("BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\nInfohash: {hash}\r\n\r\n\r\n")
        };
        let hex = SECRET.to_string();
        assert!(told(lsd(&hex).as_bytes()).unwrap().contains("neighbours"));
        assert!(told(lsd(&hex.to_uppercase()).as_bytes()).unwrap().contains("neighbours"));
        assert_eq!(told(lsd(&OPEN.to_string()).as_bytes()), None);
        for connection in [[0, 0, 4, 0x17], *b"d1:a"] {
            let to_tracker = [&connection[..], &[0; 12], &SECRET.0].concat();
            assert_eq!(told(&to_tracker), None, "a tracker must know");
        }
    }

    fn stream(info_hash: InfoHash, messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = [PLAIN_HEAD, &[0; 8], &info_hash.0, &[b'p'; 20]].concat();
        for message in messages {
            bytes.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(message);
        }
        bytes
    }

    /// What is noticed, however the stream is cut into pieces.
    fn heard(bytes: &[u8]) -> Option<String> {
        let whole = Said::default().hear(bytes, &private());
        for len in [1, 3, 7, 100] {
            let mut said = Said::default();
            assert_eq!(bytes.chunks(len).find_map(|chunk| said.hear(chunk, &private())), whole, "by {len}");
        }
        whole
    }

    #[test]
    fn peer_exchange_in_the_stream_of_a_private_torrent_is_noticed() {
        let offer = b"\x14\0d1:md11:ut_metadatai2e6:ut_pexi1eee";
        let refusal = b"\x14\0d1:md11:ut_metadatai2e6:ut_pexi0eee";
        let peers = b"\x14\x01d5:added6:abcdef7:added.f1:\0e";
        // Content may hold any bytes.
        let block = [b"\x07\0\0\0\0\0\0\0\0".as_slice(), offer, peers].concat();
        let honest: [&[u8]; 5] = [b"", refusal, &block, b"\x02", &[b'x'; 300]];
        assert_eq!(heard(&stream(SECRET, &honest)), None);
        assert!(heard(&stream(SECRET, &[&honest[..], &[offer]].concat())).unwrap().contains("6:ut_pex"));
        assert!(heard(&stream(SECRET, &[&honest[..], &[peers]].concat())).unwrap().contains("5:added"));
        assert_eq!(heard(&stream(OPEN, &[offer, peers])), None, "whoever is not private may");
        assert_eq!(heard(&[0x55; 500]), None, "what is ciphered says nothing");
    }
}
