//! One connection to a peer, as a machine over bytes (BEP 3, 6, 10, 21, 54). It knows no torrent and no socket.
//!
//! [`Peer::handle_input`] steps through received bytes; its events borrow them, never the machine. The head of a `piece` is an event
//! of its own, so that the owner may refuse the payload before any of it is taken. Verbs queue messages in the [`Outbuf`].
//! What a stranger may break and what follows is in [`PeerError`].

mod client;
mod extensions;
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
use crate::codec::extension::{ExtensionHandshake, ExtensionKind, parse_dont_have};
use crate::codec::wire::{
    BLOCK_LEN_MAX, Front, Handshake, Message, Reserved, WireError, parse_handshake, parse_message,
};
use crate::protocol::outbuf::Outbuf;

use self::extensions::Extensions;
use self::requests::{Claim, Requests};
use self::uploads::Uploads;

pub use self::tail::Tail;
pub use self::uploads::{ALLOWED_FAST_LEN, ALLOWED_FAST_MAX, UPLOADS_MAX, allowed_fast_set};

/// How long a peer may take to introduce itself, from the connection's start.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// After so long without a byte a peer is gone (BEP 3: two minutes, and some).
pub const SILENCE_MAX: Duration = Duration::from_secs(150);
/// After so long without anything to say we say a keep-alive.
const KEEP_ALIVE: Duration = Duration::from_secs(100);
/// After so long a peer that takes nothing of what we have for it is gone.
const STALL_MAX: Duration = Duration::from_secs(300);
/// Blocks, or rejections, that were never asked for; one more ends the connection.
const UNASKED_MAX: u32 = 32;

/// How we introduce ourselves.
#[derive(Debug, Clone, Copy)]
pub struct Hello {
    /// Which torrent it is about.
    pub info_hash: InfoHash,
    /// Who we are.
    pub peer_id: [u8; 20],
}

impl Hello {
    fn handshake(&self) -> Handshake {
        Handshake { reserved: Reserved::new(true, true, false), info_hash: self.info_hash, peer_id: self.peer_id }
    }
}

/// What a peer did that ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerError {
    /// Bytes that are no message.
    Wire(WireError),
    /// A message of the fast extension, which was not agreed on.
    NotFast,
    /// A piece that the torrent does not have.
    NoSuchPiece,
    /// A request of no bytes, or of too many.
    AbsurdRequest,
    /// More than [`UNASKED_MAX`] blocks or rejections that were not asked for.
    Unasked,
    /// It did not introduce itself in time.
    NoHandshake,
    /// It said nothing for [`SILENCE_MAX`].
    Silent,
    /// It took nothing for [`STALL_MAX`].
    Stalled,
}

/// Something a peer said.
#[derive(Debug, Clone, Copy)]
pub enum Event<'b> {
    /// The first of all events.
    Handshake(Handshake),
    /// It does not serve us any more.
    Choke,
    /// It serves us.
    Unchoke,
    /// It wants something.
    Interested,
    /// It wants nothing.
    NotInterested,
    /// It has a piece.
    Have(Piece),
    /// It has a piece no more (BEP 54).
    DontHave(Piece),
    /// What it has, a bit a piece; of the right length.
    Bitfield(&'b [u8]),
    /// It has everything.
    HaveAll,
    /// It has nothing.
    HaveNone,
    /// It proposes a piece.
    Suggest(Piece),
    /// It serves this piece even when it chokes us.
    AllowedFast(Piece),
    /// It will not send this block, which we had asked for.
    Reject(Block),
    /// It asks for a block, which we may serve; answer with `queue_upload` or `reject`.
    Request(Block),
    /// It does not want this block any more; it was taken from the queue.
    Cancel(Block),
    /// Its DHT port.
    Port(u16),
    /// What it says of its extensions.
    ExtensionHandshake(ExtensionHandshake<'b>),
    /// A message of an extension that we announced.
    Extended {
        /// Which extension.
        kind: ExtensionKind,
        /// Its payload.
        payload: &'b [u8],
    },
    /// A block that we had asked for begins; `refuse_block` throws its payload away.
    BlockHead(Block),
    /// Payload of the block whose head came last.
    BlockBytes {
        /// Which block.
        block: Block,
        /// Where in the block.
        offset: u32,
        /// What.
        bytes: &'b [u8],
        /// The block ends here.
        last: bool,
    },
    /// So many bytes of payload that nobody wanted.
    Waste(u32),
}

/// A block whose payload is coming in.
#[derive(Debug, Clone, Copy)]
struct Incoming {
    block: Block,
    got: u32,
    refused: bool,
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
    unasked: u32,
    opened_at: Time,
    heard_at: Time,
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
            opened_at: now,
            heard_at: now,
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
    }

    /// Steps through `input` and takes what it understands from its front; none when more bytes are needed.
    ///
    /// # Errors
    /// See [`PeerError`]; the connection is of no more use then.
    pub fn handle_input<'b>(&mut self, now: Time, input: &mut &'b [u8]) -> Result<Option<Event<'b>>, PeerError> {
        if !input.is_empty() {
            self.heard_at = now;
        }
        if !self.introduced {
            return self.introduce(input);
        }
        loop {
            if self.skip > 0 {
                let skipped = input.len().min(self.skip as usize);
                *input = &input[skipped..];
                self.skip -= u32::try_from(skipped).expect("no more than there was to skip");
                if self.skip > 0 {
                    return Ok(None);
                }
            }
            if let Some(incoming) = self.incoming {
                return Ok(self.take_payload(now, incoming, input));
            }
            let message = match parse_message(input, self.pieces).map_err(PeerError::Wire)? {
                Front::Missing(_) => return Ok(None),
                Front::Whole(message, len) => {
                    *input = &input[len..];
                    message
                }
            };
            if let Some(event) = self.handle_message(now, message)? {
                return Ok(Some(event));
            }
        }
    }

    fn introduce<'b>(&mut self, input: &mut &'b [u8]) -> Result<Option<Event<'b>>, PeerError> {
        match parse_handshake(input).map_err(PeerError::Wire)? {
            Front::Missing(_) => Ok(None),
            Front::Whole(handshake, len) => {
                *input = &input[len..];
                self.introduced = true;
                self.peer_id = handshake.peer_id;
                self.fast = handshake.reserved.fast();
                self.extended = handshake.reserved.extension();
                Ok(Some(Event::Handshake(handshake)))
            }
        }
    }

    fn take_payload<'b>(&mut self, now: Time, incoming: Incoming, input: &mut &'b [u8]) -> Option<Event<'b>> {
        let Incoming { block, got, refused } = incoming;
        let (bytes, rest) = input.split_at(input.len().min((block.len - got) as usize));
        if bytes.is_empty() {
            return None;
        }
        *input = rest;
        let len = u32::try_from(bytes.len()).expect("no more than a block");
        let last = got + len == block.len;
        self.incoming = (!last).then_some(Incoming { block, got: got + len, refused });
        self.down.add(now, u64::from(len));
        self.requests.received(now, u64::from(len));
        if last {
            self.requests.landed(block);
        }
        Some(if refused { Event::Waste(len) } else { Event::BlockBytes { block, offset: got, bytes, last } })
    }

    fn handle_message<'b>(&mut self, now: Time, message: Message<'b>) -> Result<Option<Event<'b>>, PeerError> {
        let is_fast = matches!(
            message,
            Message::HaveAll | Message::HaveNone | Message::Suggest(_) | Message::Reject(_) | Message::AllowedFast(_)
        );
        if is_fast && !self.fast {
            return Err(PeerError::NotFast);
        }
        let event = match message {
            Message::KeepAlive => return Ok(None),
            Message::Choke => {
                self.peer_choking = true;
                Event::Choke
            }
            Message::Unchoke => {
                if std::mem::replace(&mut self.peer_choking, false) {
                    self.requests.restart(now);
                }
                Event::Unchoke
            }
            Message::Interested => {
                self.peer_interested = true;
                Event::Interested
            }
            Message::NotInterested => {
                self.peer_interested = false;
                Event::NotInterested
            }
            Message::Have(piece) => Event::Have(self.known(piece)?),
            Message::Bitfield(bytes) => Event::Bitfield(bytes),
            Message::HaveAll => Event::HaveAll,
            Message::HaveNone => Event::HaveNone,
            Message::Suggest(piece) => Event::Suggest(self.known(piece)?),
            Message::AllowedFast(piece) => {
                let piece = self.known(piece)?;
                if self.allowed.len() >= ALLOWED_FAST_MAX || self.allowed.contains(&piece) {
                    return Ok(None);
                }
                self.allowed.push(piece);
                Event::AllowedFast(piece)
            }
            Message::Reject(block) => {
                if self.requests.take(block) {
                    Event::Reject(block)
                } else {
                    if !self.requests.forgive(block) {
                        self.strike()?;
                    }
                    return Ok(None);
                }
            }
            Message::Request(block) => return self.handle_request(block),
            Message::Cancel(block) => {
                if !self.uploads.remove(block) {
                    return Ok(None);
                }
                if self.fast {
                    self.say(&Message::Reject(block));
                }
                Event::Cancel(block)
            }
            Message::Port(port) => Event::Port(port),
            Message::PieceHead(block) => return self.handle_head(now, block),
            Message::Extended { id: 0, payload } => {
                let Some(said) = ExtensionHandshake::parse(payload) else { return Ok(None) };
                if let Some(reqq) = said.reqq {
                    self.requests.set_most(reqq);
                }
                self.extensions.merge(&said);
                Event::ExtensionHandshake(said)
            }
            Message::Extended { id, payload } => match ExtensionKind::from_id(id) {
                None => return Ok(None),
                Some(ExtensionKind::DontHave) => match parse_dont_have(payload) {
                    Some(piece) => Event::DontHave(self.known(piece)?),
                    None => return Ok(None),
                },
                Some(kind) => Event::Extended { kind, payload },
            },
            Message::Unknown { len, .. } => {
                self.skip = len;
                return Ok(None);
            }
        };
        Ok(Some(event))
    }

    fn known(&self, piece: Piece) -> Result<Piece, PeerError> {
        if self.pieces.is_some_and(|pieces| piece.0 >= pieces) { Err(PeerError::NoSuchPiece) } else { Ok(piece) }
    }

    fn strike(&mut self) -> Result<(), PeerError> {
        self.unasked += 1;
        if self.unasked > UNASKED_MAX { Err(PeerError::Unasked) } else { Ok(()) }
    }

    fn handle_request<'b>(&mut self, block: Block) -> Result<Option<Event<'b>>, PeerError> {
        if block.len == 0 || block.len > BLOCK_LEN_MAX {
            return Err(PeerError::AbsurdRequest);
        }
        self.known(block.piece)?;
        if self.am_choking && !self.uploads.is_allowed(block.piece) {
            self.reject(block);
            return Ok(None);
        }
        Ok(Some(Event::Request(block)))
    }

    fn handle_head<'b>(&mut self, now: Time, block: Block) -> Result<Option<Event<'b>>, PeerError> {
        let claim = self.requests.claim(now, block);
        self.incoming = Some(Incoming { block, got: 0, refused: claim != Claim::Awaited });
        match claim {
            Claim::Awaited => Ok(Some(Event::BlockHead(block))),
            Claim::Late => self.no_event(),
            Claim::Unasked => {
                self.strike()?;
                self.no_event()
            }
        }
    }

    /// The head of a block that nobody wants tells nothing; its payload comes as waste.
    fn no_event<'b>(&self) -> Result<Option<Event<'b>>, PeerError> {
        Ok(Some(Event::Waste(0)))
    }

    /// Throws away the payload of the block whose head came last.
    pub fn refuse_block(&mut self) {
        if let Some(incoming) = &mut self.incoming {
            incoming.refused = true;
        }
    }

    fn say(&mut self, message: &Message<'_>) {
        self.outbuf.push_with(|out| message.write(out));
    }

    /// Takes away the peer's slot; what it had asked for is forgotten (and rejected, with the fast extension).
    pub fn choke(&mut self) {
        if !std::mem::replace(&mut self.am_choking, true) {
            self.say(&Message::Choke);
            for block in self.uploads.choke() {
                self.reject(block);
            }
        }
    }

    /// Gives the peer a slot.
    pub fn unchoke(&mut self) {
        if std::mem::replace(&mut self.am_choking, false) {
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

    /// Says what we have: right after the handshakes.
    pub fn send_field(&mut self, field: &Bitfield) {
        match field.count() {
            0 if self.fast => self.say(&Message::HaveNone),
            0 => {}
            _ if self.fast && field.is_full() => self.say(&Message::HaveAll),
            _ => self.say(&Message::Bitfield(field.as_bytes())),
        }
    }

    /// Lets the peer have a piece although it is choked, with the fast extension.
    pub fn allow_fast(&mut self, piece: Piece) {
        if self.fast && self.uploads.allow(piece) {
            self.say(&Message::AllowedFast(piece));
        }
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

    /// Asks for a block no more.
    pub fn cancel(&mut self, now: Time, block: Block) {
        if self.requests.give_up(now, block) {
            self.say(&Message::Cancel(block));
        }
    }

    /// Forgets everything that was asked, and tells the peer so if `say`; what comes after all is waste.
    pub fn take_requests(&mut self, now: Time, say: bool) {
        for block in self.requests.give_up_where(now, |_| true) {
            if say {
                self.say(&Message::Cancel(block));
            }
        }
    }

    /// Queues a block that the peer asked for; refuses it if [`UPLOADS_MAX`] wait.
    pub fn queue_upload(&mut self, block: Block) {
        if !self.uploads.push(block) {
            self.reject(block);
        }
    }

    /// Refuses a request, where there is a way to say so.
    pub fn reject(&mut self, block: Block) {
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

    /// What is to be sent.
    #[must_use]
    pub fn outbuf(&self) -> &Outbuf {
        &self.outbuf
    }

    /// How many more blocks to ask for now.
    #[must_use]
    pub fn wanted(&self, now: Time) -> usize {
        if self.peer_choking && self.allowed.is_empty() { 0 } else { self.requests.wanted(now) }
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

    /// Payload that it sent, waste included.
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
