//! Hashes of pieces and of `info` dictionaries, and the running hash of a piece that is still coming in.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::base::bytes::Bytes;

/// A SHA-1 value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha1Hash(pub [u8; 20]);

/// A SHA-256 value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Hash(pub [u8; 32]);

/// The 20 bytes that name a swarm on the wire, at trackers and in the DHT.
pub type InfoHash = Sha1Hash;
/// SHA-256 of the `info` of a `.st` file.
pub type StId = Sha256Hash;

impl Sha1Hash {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha1::digest(bytes).into())
    }

    /// Forty hex digits of either case.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    /// The lowest hash that begins with these hex digits; none if they are too many, or no digits.
    #[must_use]
    pub fn first_with(prefix: &str) -> Option<Self> {
        Self::from_hex(&format!("{prefix:0<40}"))
    }
}

impl Sha256Hash {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Sixty-four hex digits of either case.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }

    /// The lowest hash that begins with these hex digits; none if they are too many, or no digits.
    #[must_use]
    pub fn first_with(prefix: &str) -> Option<Self> {
        Self::from_hex(&format!("{prefix:0<64}"))
    }

    /// The first twenty bytes: the wire hash of a pure `.st`.
    #[must_use]
    pub fn truncated(&self) -> Sha1Hash {
        let mut short = [0; 20];
        short.copy_from_slice(&self.0[..20]);
        Sha1Hash(short)
    }
}

impl fmt::Display for Sha1Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}
impl fmt::Debug for Sha1Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}
impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}
impl fmt::Debug for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Bytes in hex, two digits a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `2 N` hex digits as `N` bytes; none if `text` is anything else.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(bytes)
}

/// What pieces are hashed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKind {
    /// BEP 3.
    Sha1,
    /// `.st`.
    Sha256,
}

impl HashKind {
    /// A running hash that has taken nothing.
    #[must_use]
    pub fn hasher(self) -> PieceHasher {
        match self {
            Self::Sha1 => PieceHasher::Sha1(Sha1::new()),
            Self::Sha256 => PieceHasher::Sha256(Sha256::new()),
        }
    }
}

/// What a piece must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceHash {
    /// A BEP 3 piece.
    Sha1(Sha1Hash),
    /// A fragment of a `.st` file.
    Sha256(Sha256Hash),
}

impl PieceHash {
    /// A running hash of the kind that can be compared with this one.
    #[must_use]
    pub fn hasher(&self) -> PieceHasher {
        match self {
            Self::Sha1(_) => HashKind::Sha1.hasher(),
            Self::Sha256(_) => HashKind::Sha256.hasher(),
        }
    }
}

impl AsRef<[u8]> for PieceHash {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Sha1(hash) => &hash.0,
            Self::Sha256(hash) => &hash.0,
        }
    }
}

/// The expected hashes of all pieces, as the metainfo holds them: 20 or 32 bytes a piece, shared with `info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PieceHashes {
    /// `pieces` of a `.torrent`: 20 bytes each.
    Sha1(Bytes),
    /// `fragments` of a `.st`: 32 bytes each.
    Sha256(Bytes),
}

impl PieceHashes {
    /// What the pieces are hashed with.
    #[must_use]
    pub fn kind(&self) -> HashKind {
        match self {
            Self::Sha1(_) => HashKind::Sha1,
            Self::Sha256(_) => HashKind::Sha256,
        }
    }

    /// How many pieces have a hash.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Sha1(bytes) => bytes.len() / 20,
            Self::Sha256(bytes) => bytes.len() / 32,
        }
    }

    /// True if there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the piece at `index` must hash to; none beyond the last.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<PieceHash> {
        match self {
            Self::Sha1(bytes) => bytes.as_chunks::<20>().0.get(index).map(|chunk| PieceHash::Sha1(Sha1Hash(*chunk))),
            Self::Sha256(bytes) => {
                bytes.as_chunks::<32>().0.get(index).map(|chunk| PieceHash::Sha256(Sha256Hash(*chunk)))
            }
        }
    }
}

/// The running hash of a piece.
#[derive(Clone)]
pub enum PieceHasher {
    /// See [`PieceHash::Sha1`].
    Sha1(Sha1),
    /// See [`PieceHash::Sha256`].
    Sha256(Sha256),
}

impl fmt::Debug for PieceHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PieceHasher(..)")
    }
}

impl PieceHasher {
    /// Takes the next bytes of the piece.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    /// The hash of all that was taken.
    #[must_use]
    pub fn finish(self) -> PieceHash {
        match self {
            Self::Sha1(hasher) => PieceHash::Sha1(Sha1Hash(hasher.finalize().into())),
            Self::Sha256(hasher) => PieceHash::Sha256(Sha256Hash(hasher.finalize().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_hash_of_a_prefix_is_padded_with_zeros() {
        let first = Sha1Hash::first_with("0a1").unwrap();
        assert_eq!(first.to_string(), format!("0a1{}", "0".repeat(37)));
        assert_eq!(StId::first_with("ff").unwrap().to_string(), format!("ff{}", "0".repeat(62)));
        assert_eq!(Sha1Hash::first_with(&"0".repeat(41)), None);
        assert_eq!(Sha1Hash::first_with("xyz"), None);
    }

    #[test]
    fn hashes_print_and_read_as_hex() {
        let hash = Sha1Hash::of(b"abc");
        assert_eq!(hash.to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(Sha1Hash::from_hex("A9993E364706816ABA3E25717850C26C9CD0D89D"), Some(hash));
        assert_eq!(Sha1Hash::from_hex("a9993e"), None);
        assert_eq!(Sha1Hash::from_hex("g9993e364706816aba3e25717850c26c9cd0d89d"), None);
        assert_eq!(Sha256Hash::of(b"abc").truncated().to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a3");
    }

    #[test]
    fn a_running_hash_equals_the_hash_of_the_whole() {
        for expected in
            [PieceHash::Sha1(Sha1Hash::of(b"hello world")), PieceHash::Sha256(Sha256Hash::of(b"hello world"))]
        {
            let mut hasher = expected.hasher();
            hasher.update(b"hello ");
            hasher.update(b"world");
            assert_eq!(hasher.finish(), expected);
        }
    }
}
