//! A range of bytes that share one allocation.
//!
//! The `info` of a torrent and its piece hashes are ranges of the document that they were read from. A copy of them would
//! need up to 32 MiB more, and takes several milliseconds.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A range of shared bytes. Cloning it and taking a part of it copies nothing.
#[derive(Clone, Default)]
pub struct Bytes {
    whole: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Bytes {
    /// The part of `range`, counted from the first byte of this one.
    ///
    /// # Panics
    /// If the range ends beyond this one.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "range is within the bytes");
        let start = self.range.start;
        Self { whole: Arc::clone(&self.whole), range: start + range.start..start + range.end }
    }

    /// How many bytes the allocation has, of which this is a part.
    #[must_use]
    pub fn allocated(&self) -> usize {
        self.whole.len()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.whole[self.range.clone()]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { whole: Arc::new(bytes), range }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self::from(bytes.to_vec())
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} of {})", self.len(), self.whole.len())
    }
}

/// Bytes in parts, one after another: a long value that is not copied to be put together.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rope(Vec<Bytes>);

impl Rope {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|part| part.is_empty())
    }

    /// The parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Bytes] {
        &self.0
    }

    /// A copy in one piece.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.iter().flat_map(|part| part.iter().copied()).collect()
    }
}

impl From<Bytes> for Rope {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

impl From<Vec<u8>> for Rope {
    fn from(bytes: Vec<u8>) -> Self {
        Self(vec![bytes.into()])
    }
}

impl<const N: usize> From<[Bytes; N]> for Rope {
    fn from(parts: [Bytes; N]) -> Self {
        Self(parts.into())
    }
}

impl fmt::Debug for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rope({} in {} parts)", self.len(), self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_the_allocation_and_compare_by_content() {
        let bytes = Bytes::from(b"0123456789".to_vec());
        let part = bytes.slice(2..8);
        assert_eq!(&*part, b"234567");
        assert_eq!(part.slice(1..3), Bytes::from(&b"34"[..]));
        assert_eq!((part.allocated(), part.len()), (10, 6));
        assert!(Arc::ptr_eq(&part.whole, &bytes.whole));
        let rope = Rope::from([part, Bytes::from(&b"x"[..])]);
        assert_eq!((rope.len(), rope.to_vec()), (7, b"234567x".to_vec()));
    }
}
