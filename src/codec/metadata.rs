//! The messages of the metadata extension (`ut_metadata`, BEP 9): a dictionary, and behind it, in a `data` message, a piece
//! of `info`.
//!
//! Parsing is tolerant of unknown keys and of what stands behind a request; what is no message at all is none.

use crate::codec::bencode::{self, DictWriter};

/// Bytes of every piece of `info` but perhaps the last (BEP 9).
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;
/// Values in the dictionary of a message; one with more is as good as garbage.
const VALUES_MAX: usize = 64;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataMessage<'b> {
    /// The sender wants this piece.
    Request(u32),
    /// A piece.
    Data {
        /// Which.
        piece: u32,
        /// Bytes of the whole `info`, as the sender has it.
        total_size: u32,
        /// What.
        bytes: &'b [u8],
    },
    /// The sender will not give this piece.
    Reject(u32),
}

impl<'b> MetadataMessage<'b> {
    /// The message in `payload`; none if it is none, or of a kind that BEP 9 does not have.
    #[must_use]
    pub fn parse(payload: &'b [u8]) -> Option<Self> {
        let (document, bytes) = bencode::parse_front(payload, VALUES_MAX).ok()?;
        let dict = document.as_dict()?;
        let number = |key: &[u8]| dict.int(key).and_then(|number| u32::try_from(number).ok());
        let piece = number(b"piece")?;
        match dict.int(b"msg_type")? {
            0 => Some(Self::Request(piece)),
            1 => Some(Self::Data { piece, total_size: number(b"total_size")?, bytes }),
            2 => Some(Self::Reject(piece)),
            _ => None,
        }
    }

    /// Appends the message to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (kind, piece) = match self {
            Self::Request(piece) => (0, piece),
            Self::Data { piece, .. } => (1, piece),
            Self::Reject(piece) => (2, piece),
        };
        let mut dict = DictWriter::begin(out);
        dict.int("msg_type", kind);
        dict.int("piece", i64::from(*piece));
        if let Self::Data { total_size, .. } = self {
            dict.int("total_size", i64::from(*total_size));
        }
        dict.end();
        if let Self::Data { bytes, .. } = self {
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(message: &MetadataMessage<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        message.write(&mut out);
        out
    }

    #[test]
    fn the_examples_of_bep_9_are_what_is_written_and_read() {
        let data = MetadataMessage::Data { piece: 0, total_size: 3425, bytes: b"xxxxxxxx" };
        for (message, bytes) in [
            (MetadataMessage::Request(0), &b"d8:msg_typei0e5:piecei0ee"[..]),
            (data, b"d8:msg_typei1e5:piecei0e10:total_sizei3425eexxxxxxxx"),
            (MetadataMessage::Reject(0), b"d8:msg_typei2e5:piecei0ee"),
        ] {
            assert_eq!(bytes_of(&message), bytes);
            assert_eq!(MetadataMessage::parse(bytes), Some(message));
        }
    }

    #[test]
    fn what_is_no_message_is_none() {
        let deep = [b"d1:x".to_vec(), b"l".repeat(60_000)].concat();
        for bad in [
            &b""[..],
            b"i1e",
            b"d8:msg_typei3e5:piecei0ee",
            b"d8:msg_typei0ee",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei1e5:piecei0ee",
            b"d8:msg_typei1e5:piecei4294967296e10:total_sizei5eex",
            &deep,
        ] {
            assert_eq!(MetadataMessage::parse(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_mangled_bytes_are_read_or_refused(
            piece: u32, total_size: u32, bytes in proptest::collection::vec(any::<u8>(), 0..64), at: usize, flip: u8, cut: usize,
        ) {
            let message = MetadataMessage::Data { piece, total_size, bytes: &bytes };
            let mut written = bytes_of(&message);
            prop_assert_eq!(MetadataMessage::parse(&written), Some(message));
            let len = written.len();
            let _ = MetadataMessage::parse(&written[..cut % len]);
            written[at % len] ^= flip;
            let _ = MetadataMessage::parse(&written);
        }
    }
}
