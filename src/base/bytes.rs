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
    }
}
