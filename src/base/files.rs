//! The files of a torrent as every layer sees them: safe relative paths, lengths, and where each lies in the content.

use std::ops::Range;
use std::path::PathBuf;

use crate::base::geometry::Span;

/// One file of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it goes, below the torrent's own directory. Relative, non-empty, only normal components; made safe by
    /// whoever built the list.
    pub path: PathBuf,
    /// Which bytes of the content it holds. May be empty.
    pub span: Span,
    /// A BEP 47 pad file: zeros that are hashed and sent, and never stored.
    pub pad: bool,
}

/// All files of one torrent, in the order of the content, without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileList {
    files: Box<[FileEntry]>,
}

impl FileList {
    /// The list of `(path, length, pad)`, laid one after another.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = (PathBuf, u64, bool)>) -> Self {
        let mut offset = 0;
        let files = files.into_iter().map(|(path, len, pad)| {
            let span = Span { offset, len };
            offset += len;
            FileEntry { path, span, pad }
        });
        Self { files: files.collect() }
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.files.last().map_or(0, |last| last.span.end())
    }

    /// The files, in order.
    #[must_use]
    pub fn entries(&self) -> &[FileEntry] {
        &self.files
    }

    /// How many files there are, pad files among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// True if there is no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The parts of `span`, file by file: index of the file, offset within it, and the part's place in the content.
    /// Files of no bytes are left out.
    pub fn parts(&self, span: Span) -> impl Iterator<Item = (usize, u64, Span)> + '_ {
        self.indexes(span).filter_map(move |index| {
            let (offset, part) = self.part(index, span)?;
            Some((index, offset, part))
        })
    }

    /// The indexes of the files that `span` touches, and of those of no bytes between them.
    #[must_use]
    pub fn indexes(&self, span: Span) -> Range<usize> {
        let first = self.files.partition_point(|file| file.span.end() <= span.offset);
        first..self.files.partition_point(|file| file.span.offset < span.end()).max(first)
    }

    /// The part of `span` in the file at `index`: offset within the file, and the part's place in the content; none if there is none.
    #[must_use]
    pub fn part(&self, index: usize, span: Span) -> Option<(u64, Span)> {
        let file = &self.files[index];
        let part = file.span.intersection(span)?;
        Some((part.offset - file.span.offset, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_falls_into_parts_and_empty_files_have_none() {
        let list = FileList::new([
            ("a".into(), 10, false),
            ("b".into(), 0, false),
            ("c".into(), 5, true),
            ("d".into(), 20, false),
        ]);
        let parts: Vec<_> = list.parts(Span { offset: 8, len: 10 }).collect();
        assert_eq!(
            parts,
            [
                (0, 8, Span { offset: 8, len: 2 }),
                (2, 0, Span { offset: 10, len: 5 }),
                (3, 0, Span { offset: 15, len: 3 }),
            ]
        );
        assert_eq!(list.total_len(), 35);
        assert_eq!(list.parts(Span { offset: 35, len: 1 }).count(), 0);
    }
}
