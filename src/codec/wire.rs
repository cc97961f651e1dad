//! The peer wire protocol as bytes: the handshake and the messages (BEP 3, 5, 6, 10).
//!
//! Parsing is of a stream that may be cut anywhere. The length of a message is judged as soon as its prefix is here,
//! before anything is kept or allocated. Of a `piece`, and of what we do not understand, only the head is parsed: what
//! follows may be consumed as it comes. Whether a message makes sense at this moment is for `protocol::peer` to say.

use nom::bytes::streaming::{tag, take};
use nom::error::{ErrorKind, ParseError};
use nom::number::streaming::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use crate::base::geometry::{Block, Piece};
use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::steps;

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;
/// Longest block that we serve or take, in bytes. A longer `piece` ends the connection.
pub const BLOCK_LEN_MAX: u32 = 128 * 1024;
/// Longest `bitfield` while the number of pieces is not known (two million of them). A longer one ends the connection.
pub const BITFIELD_LEN_MAX: u32 = 256 * 1024;
/// Longest extended message (BEP 10) that is taken whole; metadata and peer exchange need a quarter. A longer one is
/// skipped as it comes.
pub const EXTENDED_KEPT_MAX: u32 = 64 * 1024;
/// Longest message that is skipped as unknown. A longer one ends the connection at its prefix.
pub const MESSAGE_LEN_MAX: u32 = 1024 * 1024;

/// What the handshake begins with (BEP 3).
/// What every plain connection begins with.
pub const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const PORT: u8 = 9;
const SUGGEST: u8 = 13;
const HAVE_ALL: u8 = 14;
const HAVE_NONE: u8 = 15;
const REJECT: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;

/// What the stranger did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// It does not speak BitTorrent.
    NotBitTorrent,
    /// A message longer than any of its kind.
    TooLong,
    /// A message whose length is not that of its kind.
    WrongLength,
}

/// The eight bytes of the handshake that say what a peer can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// The bits of what is named here, and no others.
    #[must_use]
    pub const fn new(fast: bool, extension: bool, dht: bool) -> Self {
        let mut bytes = [0; 8];
        if extension {
            bytes[5] |= 0x10;
        }
        if fast {
            bytes[7] |= 0x04;
        }
        if dht {
            bytes[7] |= 0x01;
        }
        Self(bytes)
    }

    /// The fast extension (BEP 6).
    #[must_use]
    pub const fn fast(self) -> bool {
        self.0[7] & 0x04 != 0
    }

    /// The extension protocol (BEP 10).
    #[must_use]
    pub const fn extension(self) -> bool {
        self.0[5] & 0x10 != 0
    }

    /// It runs a DHT node, whose port it sends in a `port` message (BEP 5).
    #[must_use]
    pub const fn dht(self) -> bool {
        self.0[7] & 0x01 != 0
    }
}

/// The first 68 bytes in each direction (BEP 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handshake {
    /// What the sender can.
    pub reserved: Reserved,
    /// Which swarm it means.
    pub info_hash: InfoHash,
    /// What it calls itself.
    pub peer_id: [u8; 20],
}

impl Handshake {
    /// The bytes of it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved.0);
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..].copy_from_slice(&self.peer_id);
        bytes
    }
}

/// One message. Of [`Message::PieceHead`] and [`Message::Unknown`] it is the head alone, and the payload follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'b> {
    /// No bytes at all, so that the connection is not taken for dead.
    KeepAlive,
    /// The sender will not answer requests.
    Choke,
    /// The sender will answer requests.
    Unchoke,
    /// The sender would ask if it were not choked.
    Interested,
    /// The sender would ask for nothing.
    NotInterested,
    /// The sender has this piece.
    Have(Piece),
    /// The sender has these pieces.
    Bitfield(&'b [u8]),
    /// The sender asks for this block.
    Request(Block),
    /// `len` bytes of payload of this block follow.
    PieceHead(Block),
    /// The sender does not need this block any more.
    Cancel(Block),
    /// The sender's DHT node listens at this UDP port (BEP 5).
    Port(u16),
    /// This piece would suit the sender (BEP 6).
    Suggest(Piece),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// The sender will not send this block (BEP 6).
    Reject(Block),
    /// This piece is served even to the choked (BEP 6).
    AllowedFast(Piece),
    /// A message of an extension (BEP 10); id 0 is the extension handshake.
    Extended {
        /// What the receiver said the extension's number is.
        id: u8,
        /// What the extension makes of it.
        payload: &'b [u8],
    },
    /// `len` bytes follow that mean nothing to us.
    Unknown {
        /// The kind of message.
        id: u8,
        /// Bytes to skip.
        len: u32,
    },
}

/// What the front of a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front<T> {
    /// Something complete, and how many bytes it took.
    Whole(T, usize),
    /// Too little: nothing more can be said before there are so many bytes in all.
    Missing(usize),
}

/// The handshake at the front of `input`.
///
/// # Errors
/// [`WireError::NotBitTorrent`] at the first byte that is not of the protocol's name.
pub fn parse_handshake(input: &[u8]) -> Result<Front<Handshake>, WireError> {
    front(input, handshake(input))
}

/// The message at the front of `input`. `pieces` is how many pieces the torrent has, once that is known.
///
/// # Errors
/// [`WireError::TooLong`] and [`WireError::WrongLength`], as soon as prefix and id are here.
pub fn parse_message(input: &[u8], pieces: Option<u32>) -> Result<Front<Message<'_>>, WireError> {
    steps::add(1);
    front(input, message(input, pieces))
}

impl ParseError<&[u8]> for WireError {
    /// Only the protocol's name can fail to match; everything else here is a number or a length.
    fn from_error_kind(_: &[u8], _: ErrorKind) -> Self {
        Self::NotBitTorrent
    }

    fn append(_: &[u8], _: ErrorKind, other: Self) -> Self {
        other
    }
}

type Parsed<'b, T> = IResult<&'b [u8], T, WireError>;

fn front<'b, T>(input: &'b [u8], parsed: Parsed<'b, T>) -> Result<Front<T>, WireError> {
    match parsed {
        Ok((rest, value)) => Ok(Front::Whole(value, input.len() - rest.len())),
        Err(nom::Err::Incomplete(nom::Needed::Size(more))) => Ok(Front::Missing(input.len() + more.get())),
        Err(nom::Err::Incomplete(nom::Needed::Unknown)) => Ok(Front::Missing(input.len() + 1)),
        Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(error),
    }
}

fn handshake(input: &[u8]) -> Parsed<'_, Handshake> {
    let (input, _) = tag(&PROTOCOL[..])(input)?;
    let (input, reserved) = array(input)?;
    let (input, info_hash) = array(input)?;
    let (input, peer_id) = array(input)?;
    Ok((input, Handshake { reserved: Reserved(reserved), info_hash: Sha1Hash(info_hash), peer_id }))
}

fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    let (input, bytes) = take(N)(input)?;
    Ok((input, *bytes.first_chunk().expect("just as many bytes were taken")))
}

fn message(input: &[u8], pieces: Option<u32>) -> Parsed<'_, Message<'_>> {
    let (input, len) = be_u32(input)?;
    if len == 0 {
        return Ok((input, Message::KeepAlive));
    }
    let field_len = pieces.map(|pieces| pieces.div_ceil(8));
    if len > MESSAGE_LEN_MAX.max(field_len.unwrap_or(0) + 1) {
        return Err(nom::Err::Failure(WireError::TooLong));
    }
    let (input, id) = be_u8(input)?;
    let len = len - 1;
    check_len(id, len, field_len).map_err(nom::Err::Failure)?;
    match id {
        CHOKE => Ok((input, Message::Choke)),
        UNCHOKE => Ok((input, Message::Unchoke)),
        INTERESTED => Ok((input, Message::Interested)),
        NOT_INTERESTED => Ok((input, Message::NotInterested)),
        HAVE => be_u32.map(|piece| Message::Have(Piece(piece))).parse(input),
        BITFIELD => take(len).map(Message::Bitfield).parse(input),
        REQUEST => block.map(Message::Request).parse(input),
        PIECE => {
            let (input, (piece, offset)) = (be_u32, be_u32).parse(input)?;
            Ok((input, Message::PieceHead(Block { piece: Piece(piece), offset, len: len - 8 })))
        }
        CANCEL => block.map(Message::Cancel).parse(input),
        PORT => be_u16.map(Message::Port).parse(input),
        SUGGEST => be_u32.map(|piece| Message::Suggest(Piece(piece))).parse(input),
        HAVE_ALL => Ok((input, Message::HaveAll)),
        HAVE_NONE => Ok((input, Message::HaveNone)),
        REJECT => block.map(Message::Reject).parse(input),
        ALLOWED_FAST => be_u32.map(|piece| Message::AllowedFast(Piece(piece))).parse(input),
        EXTENDED if len <= EXTENDED_KEPT_MAX => {
            let (input, (id, payload)) = (be_u8, take(len - 1)).parse(input)?;
            Ok((input, Message::Extended { id, payload }))
        }
        _ => Ok((input, Message::Unknown { id, len })),
    }
}

fn block(input: &[u8]) -> Parsed<'_, Block> {
    (be_u32, be_u32, be_u32).map(|(piece, offset, len)| Block { piece: Piece(piece), offset, len }).parse(input)
}

/// Judges the length of the body (what follows the id) of a message of the kind `id`.
fn check_len(id: u8, len: u32, field_len: Option<u32>) -> Result<(), WireError> {
    let (least, most) = match id {
        CHOKE | UNCHOKE | INTERESTED | NOT_INTERESTED | HAVE_ALL | HAVE_NONE => (0, 0),
        HAVE | SUGGEST | ALLOWED_FAST => (4, 4),
        REQUEST | CANCEL | REJECT => (12, 12),
        PORT => (2, 2),
        PIECE => (9, 8 + BLOCK_LEN_MAX),
        BITFIELD => field_len.map_or((0, BITFIELD_LEN_MAX), |len| (len, len)),
        EXTENDED => (1, MESSAGE_LEN_MAX),
        _ => (0, MESSAGE_LEN_MAX),
    };
    match len {
        _ if len < least => Err(WireError::WrongLength),
        _ if len > most && least == most => Err(WireError::WrongLength),
        _ if len > most => Err(WireError::TooLong),
        _ => Ok(()),
    }
}

impl Message<'_> {
    /// Appends its bytes to `out`.
    ///
    /// # Panics
    /// If a payload is longer than its limit above.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::KeepAlive => out.extend([0; 4]),
            Self::Choke => head(out, CHOKE, 0),
            Self::Unchoke => head(out, UNCHOKE, 0),
            Self::Interested => head(out, INTERESTED, 0),
            Self::NotInterested => head(out, NOT_INTERESTED, 0),
            Self::Have(piece) => write_piece(out, HAVE, piece),
            Self::Bitfield(bytes) => {
                head(out, BITFIELD, u32::try_from(bytes.len()).expect("at most 2^29 bytes for 2^32 pieces"));
                out.extend_from_slice(bytes);
            }
            Self::Request(block) => write_block(out, REQUEST, block),
            Self::PieceHead(block) => {
                assert!(block.len <= BLOCK_LEN_MAX, "a block of {} bytes", block.len);
                head(out, PIECE, 8 + block.len);
                out.extend(block.piece.0.to_be_bytes());
                out.extend(block.offset.to_be_bytes());
            }
            Self::Cancel(block) => write_block(out, CANCEL, block),
            Self::Port(port) => {
                head(out, PORT, 2);
                out.extend(port.to_be_bytes());
            }
            Self::Suggest(piece) => write_piece(out, SUGGEST, piece),
            Self::HaveAll => head(out, HAVE_ALL, 0),
            Self::HaveNone => head(out, HAVE_NONE, 0),
            Self::Reject(block) => write_block(out, REJECT, block),
            Self::AllowedFast(piece) => write_piece(out, ALLOWED_FAST, piece),
            Self::Extended { id, payload } => {
                let len = u32::try_from(payload.len()).expect("an extended message is short");
                assert!(len < MESSAGE_LEN_MAX, "an extended message of {len} bytes");
                head(out, EXTENDED, 1 + len);
                out.push(id);
                out.extend_from_slice(payload);
            }
            Self::Unknown { id, len } => head(out, id, len),
        }
    }
}

fn head(out: &mut Vec<u8>, id: u8, len: u32) {
    out.extend((1 + len).to_be_bytes());
    out.push(id);
}

fn write_piece(out: &mut Vec<u8>, id: u8, piece: Piece) {
    head(out, id, 4);
    out.extend(piece.0.to_be_bytes());
}

fn write_block(out: &mut Vec<u8>, id: u8, block: Block) {
    head(out, id, 12);
    out.extend(block.piece.0.to_be_bytes());
    out.extend(block.offset.to_be_bytes());
    out.extend(block.len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: Block = Block { piece: Piece(1), offset: 2, len: 3 };

    fn bytes_of(message: Message<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.write(&mut bytes);
        bytes
    }

    fn messages() -> Vec<Message<'static>> {
        vec![
            Message::KeepAlive,
            Message::Choke,
            Message::Unchoke,
            Message::Interested,
            Message::NotInterested,
            Message::Have(Piece(7)),
            Message::Bitfield(&[0xff, 0x80]),
            Message::Request(BLOCK),
            Message::PieceHead(BLOCK),
            Message::Cancel(BLOCK),
            Message::Port(6881),
            Message::Suggest(Piece(8)),
            Message::HaveAll,
            Message::HaveNone,
            Message::Reject(BLOCK),
            Message::AllowedFast(Piece(9)),
            Message::Extended { id: 3, payload: b"de" },
            Message::Unknown { id: 21, len: 5 },
        ]
    }

    #[test]
    fn the_handshake_is_the_one_of_bep_3() {
        let ours = Handshake {
            reserved: Reserved::new(true, true, true),
            info_hash: Sha1Hash([7; 20]),
            peer_id: *b"-ST0010-123456789012",
        };
        let bytes = ours.to_bytes();
        assert_eq!(&bytes[..28], b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\x05");
        assert_eq!(parse_handshake(&bytes), Ok(Front::Whole(ours, 68)));
        for cut in 0..68 {
            assert!(matches!(parse_handshake(&bytes[..cut]), Ok(Front::Missing(n)) if n > cut && n <= 68), "{cut}");
        }
        assert_eq!(parse_handshake(b"GET"), Err(WireError::NotBitTorrent));
        assert_eq!(parse_handshake(b"\x13BitTorrent p2p"), Err(WireError::NotBitTorrent));
    }

    #[test]
    fn what_is_written_is_parsed_again_and_a_cut_one_says_how_much_it_lacks() {
        for message in messages() {
            let bytes = bytes_of(message);
            assert_eq!(parse_message(&bytes, None), Ok(Front::Whole(message, bytes.len())));
            for cut in 0..bytes.len() {
                let Ok(Front::Missing(needed)) = parse_message(&bytes[..cut], None) else {
                    panic!("{message:?} cut at {cut}");
                };
                assert!(needed > cut && needed <= bytes.len(), "{message:?} cut at {cut} needs {needed}");
            }
        }
    }

    #[test]
    fn bytes_are_those_of_the_field() {
        assert_eq!(bytes_of(Message::Interested), [0, 0, 0, 1, 2]);
        assert_eq!(bytes_of(Message::Have(Piece(258))), [0, 0, 0, 5, 4, 0, 0, 1, 2]);
        assert_eq!(bytes_of(Message::Request(BLOCK)), [0, 0, 0, 13, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]);
        assert_eq!(bytes_of(Message::PieceHead(BLOCK)), [0, 0, 0, 12, 7, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(bytes_of(Message::Port(6881)), [0, 0, 0, 3, 9, 0x1a, 0xe1]);
    }

    #[test]
    fn absurd_lengths_are_refused_at_the_prefix() {
        assert_eq!(parse_message(&[0xff; 4], None), Err(WireError::TooLong));
        assert_eq!(parse_message(&[0, 0x10, 0, 1], Some(8)), Err(WireError::TooLong));
        let piece = |len: u32| [&len.to_be_bytes()[..], &[PIECE]].concat();
        assert_eq!(parse_message(&piece(9 + BLOCK_LEN_MAX), None), Ok(Front::Missing(9)));
        assert_eq!(parse_message(&piece(10 + BLOCK_LEN_MAX), None), Err(WireError::TooLong));
        assert_eq!(parse_message(&piece(9), None), Err(WireError::WrongLength), "a block of nothing");
        assert_eq!(parse_message(&[0, 0, 0, 2, CHOKE], None), Err(WireError::WrongLength));
        assert_eq!(parse_message(&[0, 0, 0, 4, HAVE], None), Err(WireError::WrongLength));
    }

    #[test]
    fn a_bitfield_has_just_the_length_that_the_pieces_give() {
        assert_eq!(parse_message(&[0, 0, 0, 3, BITFIELD], Some(8)), Err(WireError::WrongLength));
        assert_eq!(parse_message(&[0, 0, 0, 3, BITFIELD], Some(9)), Ok(Front::Missing(7)));
        assert_eq!(parse_message(&[0, 4, 0, 2, BITFIELD], None), Err(WireError::TooLong));
        assert_eq!(parse_message(&[0, 0x20, 0, 1, BITFIELD], Some(1 << 24)), Ok(Front::Missing(5 + (1 << 21))));
    }

    #[test]
    fn a_long_extended_message_is_to_be_skipped() {
        let bytes = [0, 2, 0, 0, EXTENDED];
        assert_eq!(parse_message(&bytes, None), Ok(Front::Whole(Message::Unknown { id: 20, len: 0x1_ffff }, 5)));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_an_error_or_too_little(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            pieces in proptest::option::of(any::<u32>()),
        ) {
            if let Ok(Front::Whole(message, taken)) = parse_message(&bytes, pieces) {
                prop_assert_eq!(bytes_of(message), &bytes[..taken]);
            }
        }
    }
}
