//! One connection to a peer, as a machine over bytes (BEP 3, 6, 10, 21, 54). It knows no torrent and no socket.
//!
//! [`Peer::handle_input`] steps through received bytes; its events borrow them, never the machine. Verbs queue messages in
//! the [`Outbuf`], in the order of the calls. What a stranger may break and what follows is in [`PeerError`].

mod client;
mod extensions;
mod queue;
mod receive;
mod requests;
mod tail;
mod uploads;

use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::{Block, Piece, Span};
use crate::base::hash::InfoHash;
use crate::base::ids::StoreId;
use crate::base::rate::Meter;
use crate::base::time::Time;
use crate::codec::extension::{ExtensionHandshake, ExtensionKind};
use crate::codec::wire::{Handshake, Message, Reserved, WireError};
use crate::protocol::outbuf::{ENCODED_MAX, Outbuf};

use self::extensions::Extensions;
use self::receive::Incoming;
use self::requests::Requests;
use self::uploads::Uploads;

pub use self::receive::Event;
pub use self::tail::Tail;
pub use self::uploads::{ALLOWED_FAST_LEN, ALLOWED_FAST_MAX, UPLOADS_MAX, allowed_fast_set};

/// How long a peer may take to introduce itself, from the connection's start.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// After so long without a byte a peer is gone (BEP 3: two minutes, and some).
pub const SILENCE_MAX: Duration = Duration::from_secs(150);
/// After so long without anything to say we say a keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(100);
/// After so long a peer that takes nothing of what we have for it is gone.
const STALL_MAX: Duration = Duration::from_secs(150);
/// Bytes of a `have`.
const HAVE_LEN: usize = 9;

/// How we introduce ourselves.
#[derive(Debug, Clone, Copy)]
pub struct Hello {
    /// Which torrent it is about.
    pub info_hash: InfoHash,
    /// Who we are.
    pub peer_id: [u8; 20],
    /// We run a DHT node (BEP 5).
    pub dht: bool,
}

impl Hello {
    fn handshake(&self) -> Handshake {
        Handshake { reserved: Reserved::new(true, true, self.dht), info_hash: self.info_hash, peer_id: self.peer_id }
    }
}

/// What a peer did that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerError {
    /// Bytes that are no message.
    Wire(WireError),
    /// A bitfield with a bit for a piece that the torrent does not have.
    SpareBits,
    /// A message of the fast extension, which was not agreed on.
    NotFast,
    /// A piece that the torrent does not have.
    NoSuchPiece,
    /// A request of no bytes, or of too many.
    AbsurdRequest,
    /// Too many blocks or rejections that were not asked for.
    Unasked,
    /// Too many requests in a row that had to be refused, too many refusals in a row, or too many changes of mind.
    Flood,
    /// It did not introduce itself in time.
    NoHandshake,
    /// It said nothing for [`SILENCE_MAX`].
    Silent,
    /// It took nothing for 150 s.
    Stalled,
}

/// One connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the protocol's own four, and what was agreed on")]
pub struct Peer {
    outbuf: Outbuf,
    requests: Requests,
    uploads: Uploads,
    extensions: Extensions,
    /// Its pieces that we may ask for although it chokes us; at most [`ALLOWED_FAST_MAX`].
    allowed: Vec<Piece>,
    /// How many pieces the torrent has, once it is known which one it is.
    pieces: Option<u32>,
    peer_id: [u8; 20],
    introduced: bool,
    fast: bool,
    extended: bool,
    am_choking: bool,
    am_interested: bool,
    peer_choking: bool,
    peer_interested: bool,
    incoming: Option<Incoming>,
    /// Bytes of a message that means nothing to us, still to come.
    skip: u32,
    /// Blocks and rejections that came unasked, less the blocks that came as asked since.
    unasked: u32,
    /// Requests that we refused since we last sent a block or gave a slot.
    refused: u32,
    /// Rejections that came since its last block or since it gave us a slot.
    rejected: u32,
    /// Changes of mind since `changes_at`, by weight.
    changes: u32,
    changes_at: Time,
    opened_at: Time,
    heard_at: Time,
    /// Bytes since then.
    heard: usize,
    said_at: Time,
    down: Meter,
    up: Meter,
}

impl Peer {
    /// A peer that connected to us: it speaks first, then [`Peer::greet`].
    #[must_use]
    pub fn accepted(now: Time) -> Self {
        Self {
            outbuf: Outbuf::default(),
            requests: Requests::new(now),
            uploads: Uploads::default(),
            extensions: Extensions::default(),
            allowed: Vec::new(),
            pieces: None,
            peer_id: [0; 20],
            introduced: false,
            fast: false,
            extended: false,
            am_choking: true,
            am_interested: false,
            peer_choking: true,
            peer_interested: false,
            incoming: None,
            skip: 0,
            unasked: 0,
            refused: 0,
            rejected: 0,
            changes: 0,
            changes_at: now,
            opened_at: now,
            heard_at: now,
            heard: 0,
            said_at: now,
            down: Meter::default(),
            up: Meter::default(),
        }
    }

    /// A peer that we connected to: we speak first.
    #[must_use]
    pub fn dialled(now: Time, hello: Hello) -> Self {
        let mut peer = Self::accepted(now);
        peer.greet(now, hello);
        peer
    }

    /// Sends our handshake.
    pub fn greet(&mut self, now: Time, hello: Hello) {
        self.outbuf.push_bytes(&hello.handshake().to_bytes());
        self.said_at = now;
    }

    /// Says how many pieces the torrent has: from now on lengths and indexes are judged by it.
    pub fn set_pieces(&mut self, pieces: u32) {
        self.pieces = Some(pieces);
        self.allowed.retain(|piece| piece.0 < pieces);
    }

    /// Throws away what is still to come of the block whose head came last. It may be asked for again at once.
    pub fn refuse_block(&mut self) {
        if let Some(incoming) = &mut self.incoming
            && !std::mem::replace(&mut incoming.refused, true)
        {
            self.requests.take(incoming.block);
        }
    }

    /// What is still to come of the block whose payload is coming in: where in the block, and how many bytes. `None` if none is, or
    /// it is thrown away.
    #[must_use]
    pub fn payload_to_come(&self) -> Option<(Block, u32)> {
        let incoming = self.incoming.filter(|incoming| !incoming.refused)?;
        Some((incoming.block, incoming.got))
    }

    /// The block that is coming in and is not thrown away.
    fn landing(&self) -> Option<Block> {
        self.incoming.filter(|incoming| !incoming.refused).map(|incoming| incoming.block)
    }

    fn say(&mut self, message: &Message<'_>) {
        self.outbuf.push_with(|out| message.write(out));
    }

    /// Takes away the peer's slot; what it had asked for is forgotten (and rejected, with the fast extension).
    pub fn choke(&mut self) {
        if !std::mem::replace(&mut self.am_choking, true) {
            self.say(&Message::Choke);
            for block in self.uploads.choke() {
                self.say_reject(block);
            }
        }
    }

    /// Gives the peer a slot.
    pub fn unchoke(&mut self) {
        if std::mem::replace(&mut self.am_choking, false) {
            self.refused = 0;
            self.say(&Message::Unchoke);
        }
    }

    /// Says that we want something.
    pub fn interest(&mut self) {
        if !std::mem::replace(&mut self.am_interested, true) {
            self.say(&Message::Interested);
        }
    }

    /// Says that we want nothing any more.
    pub fn uninterest(&mut self) {
        if std::mem::replace(&mut self.am_interested, false) {
            self.say(&Message::NotInterested);
        }
    }

    /// Says that we have a piece.
    pub fn have(&mut self, piece: Piece) {
        self.say(&Message::Have(piece));
    }

    /// Proposes a piece (BEP 6).
    ///
    /// # Panics
    /// If the fast extension was not agreed on.
    pub fn suggest(&mut self, piece: Piece) {
        assert!(self.fast, "nothing is proposed without the fast extension");
        self.say(&Message::Suggest(piece));
    }

    /// Says what we have: right after the handshakes.
    pub fn send_field(&mut self, field: &Bitfield) {
        match field.count() {
            0 if self.fast => self.say(&Message::HaveNone),
            0 => {}
            _ if self.fast && field.is_full() => self.say(&Message::HaveAll),
            _ => self.say(&Message::Bitfield(field.as_bytes())),
        }
    }

    /// Lets the peer have a piece of so many blocks, once, although it is choked; with the fast extension.
    pub fn allow_fast(&mut self, piece: Piece, blocks: u32) {
        if self.fast && self.uploads.allow(piece, blocks) {
            self.say(&Message::AllowedFast(piece));
        }
    }

    /// It may have blocks of ours although we choke it.
    #[must_use]
    pub fn has_allowance(&self) -> bool {
        self.am_choking && self.uploads.has_allowance()
    }

    /// Says where our DHT node is (BEP 5): to a peer that has one, too.
    pub fn send_dht_port(&mut self, port: u16) {
        self.say(&Message::Port(port));
    }

    /// Says what we can, by BEP 10.
    pub fn send_extension_handshake(&mut self, ours: &ExtensionHandshake<'_>) {
        let mut payload = Vec::new();
        ours.write(&mut payload);
        self.say(&Message::Extended { id: 0, payload: &payload });
    }

    /// Sends a message of an extension that the peer announced; false if it did not.
    pub fn send_extended(&mut self, kind: ExtensionKind, payload: &[u8]) -> bool {
        let id = self.extensions.id(kind);
        if let Some(id) = id {
            self.say(&Message::Extended { id, payload });
        }
        id.is_some()
    }

    /// Asks for a block.
    pub fn request(&mut self, now: Time, block: Block) {
        if self.requests.ask(now, block) {
            self.say(&Message::Request(block));
        }
    }

    /// Asks for a block no more. What comes of it after all is waste, even if some of it has come.
    pub fn cancel(&mut self, now: Time, block: Block) {
        if self.landing() == Some(block) {
            self.refuse_block(); // its end is on the way already
        } else if self.requests.give_up(now, block) {
            self.say(&Message::Cancel(block));
        }
    }

    /// Forgets everything that was asked, and tells the peer so if `say`; what comes after all is waste.
    pub fn take_requests(&mut self, now: Time, say: bool) {
        let landing = self.landing();
        let taken = self.requests.give_up_where(now, |_| true);
        if let Some(block) = landing {
            self.refuse_block();
            self.requests.forgive(block); // its end is on the way, and nothing more
        }
        for block in taken.into_iter().filter(|block| say && Some(*block) != landing) {
            self.say(&Message::Cancel(block));
        }
    }

    /// Forgets what was asked of `piece`, which the peer has no more; which blocks those were.
    pub fn take_requests_of(&mut self, now: Time, piece: Piece) -> Vec<Block> {
        let landing = self.landing();
        let taken = self.requests.give_up_where(now, |of| of == piece);
        if landing.is_some_and(|block| block.piece == piece) {
            self.refuse_block();
        }
        taken
    }

    /// Queues a block that the peer asked for; refuses it if [`UPLOADS_MAX`] wait.
    pub fn queue_upload(&mut self, block: Block) {
        if !self.uploads.push(block) {
            self.reject(block);
        }
    }

    /// Refuses a request that is not queued. Too many in a row end the connection, at its next request.
    pub fn reject(&mut self, block: Block) {
        self.refused += 1;
        self.say_reject(block);
    }

    /// Says that a block will not come, if the peer knows the word.
    fn say_reject(&mut self, block: Block) {
        if self.fast {
            self.say(&Message::Reject(block));
        }
    }

    /// The next block that the peer waits for.
    #[must_use]
    pub fn next_upload(&self) -> Option<Block> {
        self.uploads.next()
    }

    /// Sends a block that it waits for, from `span` of `store`.
    pub fn send_block(&mut self, block: Block, store: StoreId, span: Span) {
        self.uploads.remove(block);
        self.refused = 0;
        self.say(&Message::PieceHead(block));
        self.outbuf.push_content(store, span);
    }

    /// So many bytes of the output were sent; returns how many of them were payload.
    pub fn advance(&mut self, now: Time, count: usize) -> u64 {
        self.said_at = now;
        let payload = self.outbuf.advance(count);
        self.up.add(now, payload);
        payload
    }

    /// Deadlines: introduction, silence, a stalled output. Says a keep-alive where nothing was said for long.
    ///
    /// # Errors
    /// The deadline that has passed.
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), PeerError> {
        if !self.introduced && now.since(self.opened_at) >= HANDSHAKE_MAX {
            return Err(PeerError::NoHandshake);
        }
        if now.since(self.heard_at) >= SILENCE_MAX {
            return Err(PeerError::Silent);
        }
        if self.outbuf.is_empty() {
            if now.since(self.said_at) >= KEEP_ALIVE {
                self.say(&Message::KeepAlive);
            } else if self.requests.outstanding() == 0 && self.uploads.next().is_none() {
                self.outbuf.release();
                self.requests.release(now);
                self.uploads.release();
            }
        } else if now.since(self.said_at) >= STALL_MAX {
            return Err(PeerError::Stalled);
        }
        Ok(())
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        assert!(self.uploads.len() <= UPLOADS_MAX, "blocks that a peer asked us");
        assert!(self.requests.outstanding() <= requests::REQUESTS_MAX, "blocks that we asked a peer");
        assert!(self.allowed.len() <= ALLOWED_FAST_MAX, "pieces that a peer allows us");
        let Some(pieces) = self.pieces else { return };
        // Pieces that we get meanwhile are told however slowly a peer reads: so much more may wait.
        let told = (pieces as usize + 64) * HAVE_LEN;
        assert!(
            self.outbuf.encoded_len() <= ENCODED_MAX + ENCODED_MAX / 2 + told,
            "encoded bytes that wait for a peer"
        );
    }

    /// What is to be sent.
    #[must_use]
    pub fn outbuf(&self) -> &Outbuf {
        &self.outbuf
    }

    /// True if we wait for this block.
    #[must_use]
    pub fn awaits(&self, block: Block) -> bool {
        self.requests.is_awaited(block)
    }

    /// How many more blocks to ask for now; none while it would send none, or while too much waits for it to read.
    #[must_use]
    pub fn wanted(&self, now: Time) -> usize {
        let cannot = self.peer_choking && self.allowed.is_empty() || self.outbuf.is_full();
        if cannot { 0 } else { self.requests.wanted(now) }
    }

    /// How many blocks were asked for and have not come.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.requests.outstanding()
    }

    /// It lets us wait although it could send.
    #[must_use]
    pub fn is_snubbed(&self, now: Time) -> bool {
        self.requests.is_snubbed(now)
    }

    /// We may ask for this piece now.
    #[must_use]
    pub fn may_ask(&self, piece: Piece) -> bool {
        !self.peer_choking || self.allowed.contains(&piece)
    }

    /// The pieces that are all we may ask for, while the peer chokes us; none if it does not.
    #[must_use]
    pub fn allowed_only(&self) -> Option<&[Piece]> {
        self.peer_choking.then_some(self.allowed.as_slice())
    }

    /// The fast extension was agreed on (BEP 6).
    #[must_use]
    pub const fn is_fast(&self) -> bool {
        self.fast
    }

    /// The extension protocol was agreed on (BEP 10).
    #[must_use]
    pub const fn is_extended(&self) -> bool {
        self.extended
    }

    /// It has no slot.
    #[must_use]
    pub const fn am_choking(&self) -> bool {
        self.am_choking
    }

    /// We want something of it.
    #[must_use]
    pub const fn am_interested(&self) -> bool {
        self.am_interested
    }

    /// We have no slot at it.
    #[must_use]
    pub const fn peer_choking(&self) -> bool {
        self.peer_choking
    }

    /// It wants something of us.
    #[must_use]
    pub const fn peer_interested(&self) -> bool {
        self.peer_interested
    }

    /// Payload that it sent and that was not waste.
    #[must_use]
    pub const fn down(&self) -> &Meter {
        &self.down
    }

    /// Payload that it was sent.
    #[must_use]
    pub const fn up(&self) -> &Meter {
        &self.up
    }

    /// What it says of itself.
    #[must_use]
    pub const fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Which program it is: as it says, else as its id says. Fit to be shown, fit for nothing else.
    #[must_use]
    pub fn client(&self) -> String {
        self.extensions.client.as_deref().map_or_else(|| client::client_of(&self.peer_id), str::to_owned)
    }
}

#[cfg(test)]
mod tests;
