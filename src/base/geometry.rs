//! How content is divided: pieces, the blocks of a piece, spans of bytes.
//!
//! Content is the files of a torrent one after another (BEP 3). A piece is what is hashed; a block is what is asked
//! for, 16 KiB but for the last of a piece.

/// Bytes in a block but for the last one of a piece (BEP 3: all current implementations use 2¹⁴).
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The index of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Piece(pub u32);

impl Piece {
    /// As an index into a table with an entry a piece.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A range of one piece, as `request`, `piece`, `cancel` and `reject` name it. Not necessarily a multiple of anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Of which piece.
    pub piece: Piece,
    /// First byte, counted from the start of the piece.
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// A range of the content, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Span {
    /// The byte after the last one.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.offset + self.len
    }

    /// True if `other` lies in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }

    /// What `self` and `other` share; none if that is nothing.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let offset = self.offset.max(other.offset);
        let end = self.end().min(other.end());
        (offset < end).then(|| Self { offset, len: end - offset })
    }
}

/// The division of one torrent's content. At least one byte, at most 2³² − 1 pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    total_len: u64,
    piece_len: u32,
    pieces: u32,
}

impl Geometry {
    /// That of no content: no pieces.
    pub const EMPTY: Self = Self { total_len: 0, piece_len: BLOCK_LEN, pieces: 0 };

    /// The division of `total_len` bytes into pieces of `piece_len` bytes, the last one shorter where it must be.
    /// None if `piece_len` is zero or there would be 2³² pieces or more. Content of no bytes has no pieces.
    #[must_use]
    pub fn new(total_len: u64, piece_len: u32) -> Option<Self> {
        if piece_len == 0 {
            return None;
        }
        let pieces = u32::try_from(total_len.div_ceil(u64::from(piece_len))).ok()?;
        Some(Self { total_len, piece_len, pieces })
    }

    /// Bytes of content.
    #[must_use]
    pub const fn total_len(&self) -> u64 {
        self.total_len
    }

    /// Bytes of every piece but perhaps the last.
    #[must_use]
    pub const fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// How many pieces there are.
    #[must_use]
    pub const fn pieces(&self) -> u32 {
        self.pieces
    }

    /// True if `piece` is one of ours.
    #[must_use]
    pub const fn contains(&self, piece: Piece) -> bool {
        piece.0 < self.pieces
    }

    /// Bytes of `piece`, which must be one of ours.
    ///
    /// # Panics
    /// If it is not.
    #[must_use]
    pub fn len_of(&self, piece: Piece) -> u32 {
        let span = self.span_of(piece);
        u32::try_from(span.len).expect("a piece is no longer than piece_len")
    }

    /// Where `piece` lies in the content.
    ///
    /// # Panics
    /// If it is not one of ours.
    #[must_use]
    pub fn span_of(&self, piece: Piece) -> Span {
        assert!(self.contains(piece), "piece {} of {}", piece.0, self.pieces);
        let offset = u64::from(piece.0) * u64::from(self.piece_len);
        Span { offset, len: u64::from(self.piece_len).min(self.total_len - offset) }
    }

    /// How many 16 KiB blocks `piece` has, the last perhaps shorter.
    #[must_use]
    pub fn blocks_of(&self, piece: Piece) -> u32 {
        self.len_of(piece).div_ceil(BLOCK_LEN)
    }

    /// The `index`-th 16 KiB block of `piece`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn block(&self, piece: Piece, index: u32) -> Block {
        let len = self.len_of(piece);
        let offset = index * BLOCK_LEN;
        assert!(offset < len, "block {index} of piece {}", piece.0);
        Block { piece, offset, len: BLOCK_LEN.min(len - offset) }
    }

    /// Which 16 KiB block of its piece `block` is; none if it is not exactly one, or not ours.
    #[must_use]
    pub fn index_of(&self, block: Block) -> Option<u32> {
        if !self.contains(block.piece)
            || !block.offset.is_multiple_of(BLOCK_LEN)
            || block.offset >= self.len_of(block.piece)
        {
            return None;
        }
        let index = block.offset / BLOCK_LEN;
        (self.block(block.piece, index) == block).then_some(index)
    }

    /// Where `block` lies in the content; none if it is empty or leaves its piece.
    #[must_use]
    pub fn span_of_block(&self, block: Block) -> Option<Span> {
        if !self.contains(block.piece) || block.len == 0 {
            return None;
        }
        let piece = self.span_of(block.piece);
        let end = u64::from(block.offset) + u64::from(block.len);
        (end <= piece.len).then(|| Span { offset: piece.offset + u64::from(block.offset), len: u64::from(block.len) })
    }

    /// The pieces that `span` touches, as a half-open range of indexes.
    #[must_use]
    pub fn pieces_of(&self, span: Span) -> std::ops::Range<u32> {
        if span.len == 0 || span.offset >= self.total_len {
            return 0..0;
        }
        let piece_len = u64::from(self.piece_len);
        let first = span.offset / piece_len;
        let after = span.end().min(self.total_len).div_ceil(piece_len);
        u32::try_from(first).expect("below pieces")..u32::try_from(after).expect("at most pieces")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_piece_and_its_last_block_may_be_short() {
        let geometry = Geometry::new(100_000, 32_768).unwrap();
        assert_eq!(geometry.pieces(), 4);
        assert_eq!(geometry.len_of(Piece(3)), 1696);
        assert_eq!(geometry.blocks_of(Piece(0)), 2);
        assert_eq!(geometry.block(Piece(3), 0), Block { piece: Piece(3), offset: 0, len: 1696 });
        assert_eq!(geometry.index_of(Block { piece: Piece(0), offset: 16_384, len: 16_384 }), Some(1));
        assert_eq!(geometry.index_of(Block { piece: Piece(0), offset: 16_384, len: 16_383 }), None);
        assert_eq!(geometry.pieces_of(Span { offset: 32_767, len: 2 }), 0..2);
        assert_eq!(geometry.pieces_of(Span { offset: 99_999, len: 50 }), 3..4);
    }

    #[test]
    fn a_block_that_leaves_its_piece_has_no_place() {
        let geometry = Geometry::new(100_000, 32_768).unwrap();
        assert!(geometry.span_of_block(Block { piece: Piece(0), offset: 32_767, len: 2 }).is_none());
        assert!(geometry.span_of_block(Block { piece: Piece(0), offset: u32::MAX, len: u32::MAX }).is_none());
        assert!(geometry.span_of_block(Block { piece: Piece(4), offset: 0, len: 1 }).is_none());
        assert_eq!(
            geometry.span_of_block(Block { piece: Piece(1), offset: 8, len: 8 }),
            Some(Span { offset: 32_776, len: 8 })
        );
    }

    #[test]
    fn absurd_divisions_are_refused() {
        assert!(Geometry::new(1, 0).is_none());
        assert!(Geometry::new(u64::MAX, 1).is_none());
        assert_eq!(Geometry::new(0, 16_384).unwrap().pieces(), 0);
    }
}
