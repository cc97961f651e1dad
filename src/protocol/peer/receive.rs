//! Bytes from a peer become events.
//!
//! The head of a `piece` is an event of its own, so that the owner may refuse the payload before any of it is taken;
//! payload comes as it arrives and is never kept. Most abuse is bounded here: what costs a stranger a few bytes and us
//! much more may happen only so often.

use std::time::Duration;

use crate::base::geometry::{Block, Piece};
use crate::base::time::Time;
use crate::codec::extension::{ExtensionHandshake, ExtensionKind, parse_dont_have};
use crate::codec::wire::{BLOCK_LEN_MAX, Front, Handshake, Message, parse_handshake, parse_message};
use crate::protocol::peer::requests::Claim;
use crate::protocol::peer::uploads::ALLOWED_FAST_MAX;
use crate::protocol::peer::{Peer, PeerError};

/// Bytes of a payload that count as something heard; who sends fewer in [`super::SILENCE_MAX`] is silent.
const HEARD_LEAST: usize = 512;
/// Blocks, or rejections, that were never asked for, less the blocks that came as asked since; one more ends the connection.
pub(super) const UNASKED_MAX: u32 = 32;
/// Requests in a row that we had to refuse, with no block sent and no slot given in between; one more ends the connection.
/// Twice a full queue, for a peer that has not yet read that we choke it.
pub(super) const REFUSED_MAX: u32 = 1024;
/// Rejections in a row from a peer that does not choke us, with no block in between; one more ends the connection.
pub(super) const REJECTED_MAX: u32 = 512;
/// How much a peer may change its mind in [`CHANGES_TIME`]: slots, interest and lost pieces weigh 1, a whole field
/// [`FIELD_WEIGHT`]. Each makes us look at pieces or peers anew. More ends the connection.
pub(super) const CHANGES_MAX: u32 = 512;
/// BEP 6 has one field a connection, some clients send more; each is work for every piece.
const FIELD_WEIGHT: u32 = 64;
/// See [`CHANGES_MAX`].
const CHANGES_TIME: Duration = Duration::from_secs(10);

/// Something a peer said.
#[derive(Debug, Clone, Copy)]
pub enum Event<'b> {
    /// The first of all events.
    Handshake(Handshake),
    /// It does not serve us any more. Without the fast extension what was asked is lost: [`Peer::take_requests`].
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
    /// What it has, a bit a piece; of the right length and without spare bits, if the number of pieces is known.
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
    /// It asks for a block that does not wait already, and there is room for it; answer with `queue_upload` or `reject`.
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
pub(super) struct Incoming {
    pub(super) block: Block,
    /// Bytes of it that are behind us.
    pub(super) got: u32,
    /// What is still to come is waste.
    pub(super) refused: bool,
}

impl Peer {
    /// Steps through `input` and takes what it understands from its front; none when more bytes are needed.
    ///
    /// # Errors
    /// See [`PeerError`]; the connection is of no more use then.
    pub fn handle_input<'b>(&mut self, now: Time, input: &mut &'b [u8]) -> Result<Option<Event<'b>>, PeerError> {
        let before = input.len();
        let result = self.take_in(now, input);
        self.heard += before - input.len();
        // A message is as good as silence until it is whole, or some of its payload is here.
        if self.heard > 0 && self.incoming.is_none() && self.skip == 0 || self.heard >= HEARD_LEAST {
            (self.heard, self.heard_at) = (0, now);
        }
        result
    }

    fn take_in<'b>(&mut self, now: Time, input: &mut &'b [u8]) -> Result<Option<Event<'b>>, PeerError> {
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
        if refused {
            return Some(Event::Waste(len));
        }
        self.down.add(now, u64::from(len));
        self.requests.received(now, u64::from(len));
        if last {
            self.requests.landed(block);
            self.unasked = self.unasked.saturating_sub(1);
            self.rejected = 0;
        }
        Some(Event::BlockBytes { block, offset: got, bytes, last })
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
            Message::Choke if self.peer_choking => return Ok(None),
            Message::Unchoke if !self.peer_choking => return Ok(None),
            Message::Interested if self.peer_interested => return Ok(None),
            Message::NotInterested if !self.peer_interested => return Ok(None),
            Message::Choke => {
                self.change(now, 1)?;
                self.peer_choking = true;
                Event::Choke
            }
            Message::Unchoke => {
                self.change(now, 1)?;
                self.peer_choking = false;
                self.rejected = 0;
                self.requests.restart(now);
                Event::Unchoke
            }
            Message::Interested => {
                self.change(now, 1)?;
                self.peer_interested = true;
                Event::Interested
            }
            Message::NotInterested => {
                self.change(now, 1)?;
                self.peer_interested = false;
                Event::NotInterested
            }
            Message::Have(piece) => Event::Have(self.known(piece)?),
            Message::Bitfield(bytes) => {
                self.change(now, FIELD_WEIGHT)?;
                let spare = self.pieces.map_or(0, |pieces| (8 - pieces % 8) % 8);
                if bytes.last().is_some_and(|last| last.trailing_zeros() < spare) {
                    return Err(PeerError::SpareBits);
                }
                Event::Bitfield(bytes)
            }
            Message::HaveAll => {
                self.change(now, FIELD_WEIGHT)?;
                Event::HaveAll
            }
            Message::HaveNone => {
                self.change(now, FIELD_WEIGHT)?;
                Event::HaveNone
            }
            Message::Suggest(piece) => Event::Suggest(self.known(piece)?),
            Message::AllowedFast(piece) => {
                let piece = self.known(piece)?;
                if self.allowed.len() >= ALLOWED_FAST_MAX || self.allowed.contains(&piece) {
                    return Ok(None);
                }
                self.allowed.push(piece);
                Event::AllowedFast(piece)
            }
            Message::Reject(block) => return self.handle_reject(block),
            Message::Request(block) => return self.handle_request(block),
            Message::Cancel(block) => {
                if !self.uploads.remove(block) {
                    return Ok(None);
                }
                self.say_reject(block);
                Event::Cancel(block)
            }
            Message::Port(port) => {
                self.change(now, 1)?;
                Event::Port(port)
            }
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
                    Some(piece) => {
                        self.change(now, 1)?;
                        Event::DontHave(self.known(piece)?)
                    }
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

    /// Counts a change of mind.
    fn change(&mut self, now: Time, weight: u32) -> Result<(), PeerError> {
        if now.since(self.changes_at) >= CHANGES_TIME {
            self.changes = 0;
            self.changes_at = now;
        }
        self.changes += weight;
        if self.changes > CHANGES_MAX { Err(PeerError::Flood) } else { Ok(()) }
    }

    fn handle_reject<'b>(&mut self, block: Block) -> Result<Option<Event<'b>>, PeerError> {
        if !self.requests.take(block) {
            if !self.requests.forgive(block) {
                self.strike()?;
            }
            return Ok(None);
        }
        if self.peer_choking {
            // BEP 6 lets it think better of what it allowed; asking again would go round in circles.
            self.allowed.retain(|piece| *piece != block.piece);
        } else {
            self.rejected += 1;
            if self.rejected > REJECTED_MAX {
                return Err(PeerError::Flood);
            }
        }
        Ok(Some(Event::Reject(block)))
    }

    fn handle_request<'b>(&mut self, block: Block) -> Result<Option<Event<'b>>, PeerError> {
        if block.len == 0 || block.len > BLOCK_LEN_MAX {
            return Err(PeerError::AbsurdRequest);
        }
        self.known(block.piece)?;
        if self.uploads.contains(block) {
            return Ok(None);
        }
        if !self.uploads.is_full() && (!self.am_choking || self.uploads.spend_allowed(block.piece)) {
            return if self.refused > REFUSED_MAX { Err(PeerError::Flood) } else { Ok(Some(Event::Request(block))) };
        }
        self.reject(block);
        if self.refused > REFUSED_MAX { Err(PeerError::Flood) } else { Ok(None) }
    }

    /// The head of a block: one that nobody wants tells nothing, and its payload comes as waste.
    fn handle_head<'b>(&mut self, now: Time, block: Block) -> Result<Option<Event<'b>>, PeerError> {
        let claim = self.requests.claim(now, block);
        if claim == Claim::Unasked {
            self.strike()?;
        }
        let wanted = claim == Claim::Awaited;
        self.incoming = Some(Incoming { block, got: 0, refused: !wanted });
        Ok(wanted.then_some(Event::BlockHead(block)))
    }
}
