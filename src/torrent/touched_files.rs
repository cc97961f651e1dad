//! How many files one call of the storage touches: blocks, pieces and slices of many small files are handled in parts.

use std::sync::Arc;

use crate::base::files::{FileList, TOUCHED_MAX};
use crate::base::geometry::{Block, Span};
use crate::base::storage::Chunk;
use crate::torrent::torrent::Torrent;

impl Torrent {
    /// The start of `span` that one call may touch: it lies in at most [`TOUCHED_MAX`] files.
    #[must_use]
    pub fn start_of(&self, span: Span) -> Span {
        self.layout.files().start_of(span, TOUCHED_MAX)
    }

    /// In how many files beyond the first `span` lies, which one call may touch.
    #[must_use]
    pub fn more_files_in(&self, span: Span) -> usize {
        let files = self.layout.files();
        if files.len() == 1 { 0 } else { files.parts(span).count().saturating_sub(1) }
    }

    /// How many bytes of a block's payload may come at once, from the offset `from` in the block on, so that one call may write
    /// them.
    #[must_use]
    pub fn payload_at_once(&self, block: Block, from: u32) -> usize {
        let Some(span) = self.geometry().span_of_block(block) else { return usize::MAX };
        let rest = Span { offset: span.offset + u64::from(from), len: span.len - u64::from(from) };
        let start = self.start_of(rest);
        if start == rest { usize::MAX } else { usize::try_from(start.len).expect("no more than a block") }
    }

    /// Its files, shared with the storage.
    #[must_use]
    pub fn shared_files(&self) -> Arc<FileList> {
        self.layout.shared_files()
    }
}

/// Cuts `chunks` so that they lie in few of `files`. Returns in how many beyond the first of each chunk.
pub fn cut_to_few_files(files: &FileList, chunks: &mut Vec<Chunk<'_>>) -> usize {
    let mut more = 0;
    if files.len() == 1 {
        return more;
    }
    for index in 0..chunks.len() {
        let Chunk::Content(store, span) = chunks[index] else { continue };
        let start = files.start_of(span, TOUCHED_MAX - more);
        more += files.parts(start).count().saturating_sub(1);
        if start != span || more >= TOUCHED_MAX - 1 {
            chunks[index] = Chunk::Content(store, start);
            chunks.truncate(index + 1);
            break;
        }
    }
    more
}

#[cfg(test)]
mod tests {
    use crate::base::geometry::Piece;
    use crate::base::ids::StoreId;
    use crate::torrent::tests::torrent_of_files;

    use super::*;

    #[test]
    fn what_lies_in_many_files_is_cut() {
        // Files of one byte, two pieces of 32 KiB of them.
        let torrent = torrent_of_files(&vec![1; 65_536]);
        let store = StoreId::from_bits(0);
        let block = |offset| Chunk::Content(store, Span { offset, len: 16_384 });
        let mut chunks = vec![Chunk::Bytes(b"head"), block(0), Chunk::Bytes(b"head"), block(16_384)];
        assert_eq!(cut_to_few_files(torrent.layout.files(), &mut chunks), TOUCHED_MAX - 1);
        assert!(matches!(chunks[..], [Chunk::Bytes(_), Chunk::Content(_, Span { offset: 0, len: 16 })]), "{chunks:?}");
        let block = torrent.geometry().block(Piece(1), 1);
        assert_eq!([0, 100, 16_376].map(|from| torrent.payload_at_once(block, from)), [16, 16, usize::MAX]);
    }
}
