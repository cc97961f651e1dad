//! The files of a torrent as every layer sees them: safe relative paths, lengths, and where each lies in the content.
//!
//! A list of a million files must neither take long to build, one slice at a time, nor to drop: all paths are in one
//! buffer, and a file takes 12 bytes beside its path.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::geometry::Span;

/// Total length of all paths of one list, bytes. [`FileListBuilder::push`] refuses the file that would exceed it.
pub const PATHS_LEN_MAX: usize = 128 << 20;

/// Files that one call touches at most, opening, writing or mapping each: 10 to 40 µs a file.
pub const TOUCHED_MAX: usize = 16;

/// Steps that touching a file counts as.
pub const TOUCH_STEPS: usize = 1000;

/// The bit of an element of `path_ends` that marks a pad file.
const PAD: u32 = 1 << 31;

/// One file of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Where it goes, below the torrent's own directory. Relative, non-empty, only normal components; made safe by
    /// whoever built the list.
    pub path: &'a Path,
    /// Which bytes of the content it holds. May be empty.
    pub span: Span,
    /// A BEP 47 pad file: zeros that are hashed and sent, and never stored.
    pub pad: bool,
}

/// All files of one torrent, in the order of the content, without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileList {
    /// All paths, one after another.
    paths: Vec<u8>,
    /// By file: where its path ends in `paths`, with [`PAD`] for a pad file.
    path_ends: Vec<u32>,
    /// By file: where it ends in the content.
    ends: Vec<u64>,
    /// There is a file of no bytes that is not a pad file.
    has_empty: bool,
}

/// A list that is built file by file.
#[derive(Debug, Default)]
pub struct FileListBuilder {
    list: FileList,
}

/// The paths of a list would exceed [`PATHS_LEN_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathsTooLong;

impl FileListBuilder {
    /// Appends a file. The path is given in parts that are joined by slashes.
    ///
    /// # Errors
    /// If all paths together become longer than [`PATHS_LEN_MAX`]; the file is not in the list then.
    pub fn push<'p>(
        &mut self,
        path: impl IntoIterator<Item = &'p [u8]>,
        len: u64,
        pad: bool,
    ) -> Result<(), PathsTooLong> {
        let start = self.list.paths.len();
        for (index, part) in path.into_iter().enumerate() {
            if index > 0 {
                self.list.paths.push(b'/');
            }
            self.list.paths.extend_from_slice(part);
        }
        if self.list.paths.len() > PATHS_LEN_MAX {
            self.list.paths.truncate(start);
            return Err(PathsTooLong);
        }
        self.end_file(len, pad);
        Ok(())
    }

    /// The file whose path was just appended has this length.
    fn end_file(&mut self, len: u64, pad: bool) {
        let end = u32::try_from(self.list.paths.len()).ok().filter(|end| *end < PAD).expect("paths are below 2 GiB");
        self.list.path_ends.push(if pad { end | PAD } else { end });
        self.list.ends.push(self.list.total_len() + len);
        self.list.has_empty |= len == 0 && !pad;
    }

    /// The finished list.
    #[must_use]
    pub fn finish(self) -> FileList {
        self.list
    }
}

impl FileList {
    /// The list of `(path, length, pad)`, laid one after another. [`PATHS_LEN_MAX`] does not hold here: the user's names may be longer
    /// than those of the metainfo, by 255 bytes a file.
    ///
    /// # Panics
    /// If all paths together are 2 GiB long: more than as many files as are allowed can have.
    #[must_use]
    pub fn new(files: impl IntoIterator<Item = (PathBuf, u64, bool)>) -> Self {
        let mut builder = FileListBuilder::default();
        for (path, len, pad) in files {
            builder.list.paths.extend_from_slice(path.as_os_str().as_bytes());
            builder.end_file(len, pad);
        }
        builder.finish()
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// True if there is a file of no bytes that is not a pad file.
    #[must_use]
    pub const fn has_empty(&self) -> bool {
        self.has_empty
    }

    /// The file at `index`.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn entry(&self, index: usize) -> FileEntry<'_> {
        let (start, offset) = match index.checked_sub(1) {
            Some(before) => ((self.path_ends[before] & !PAD) as usize, self.ends[before]),
            None => (0, 0),
        };
        let end = self.path_ends[index];
        let path = &self.paths[start..(end & !PAD) as usize];
        FileEntry {
            path: Path::new(OsStr::from_bytes(path)),
            span: Span { offset, len: self.ends[index] - offset },
            pad: end & PAD != 0,
        }
    }

    /// The file at `index`. `None` if there is no such file.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<FileEntry<'_>> {
        (index < self.len()).then(|| self.entry(index))
    }

    /// The first file. `None` if there is no file.
    #[must_use]
    pub fn first(&self) -> Option<FileEntry<'_>> {
        self.get(0)
    }

    /// The files, in order.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = FileEntry<'_>> + DoubleEndedIterator + Clone {
        (0..self.len()).map(|index| self.entry(index))
    }

    /// How many files there are, pad files among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if there is no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The parts of `span`, file by file: index of the file, offset within it, and the part's place in the content.
    /// Files of no bytes are left out, and cost nothing however many there are.
    pub fn parts(&self, span: Span) -> Parts<&Self> {
        Parts::new(self, span)
    }

    /// The start of `span` that touches at most `most` files of some bytes.
    #[must_use]
    pub fn start_of(&self, span: Span, most: usize) -> Span {
        if self.len() <= most {
            return span;
        }
        let end = self.parts(span).nth(most).map_or(span.end(), |(_, _, part)| part.offset);
        Span { len: end - span.offset, ..span }
    }
}

/// The parts of a span, file by file. See [`FileList::parts`].
#[derive(Debug, Clone)]
pub struct Parts<L> {
    files: L,
    /// No file before it holds anything of `rest`.
    next: usize,
    /// What is still to come.
    rest: Span,
}

impl<L: Borrow<FileList>> Parts<L> {
    /// The parts of `span` in `files`.
    pub fn new(files: L, span: Span) -> Self {
        let next = files.borrow().ends.partition_point(|&end| end <= span.offset);
        Self { files, next, rest: span }
    }
}

impl<L: Borrow<FileList>> Iterator for Parts<L> {
    type Item = (usize, u64, Span);

    fn next(&mut self) -> Option<Self::Item> {
        let files = self.files.borrow();
        if self.rest.len == 0 {
            return None;
        }
        let mut index = self.next;
        if *files.ends.get(index)? <= self.rest.offset {
            index += files.ends[index..].partition_point(|&end| end <= self.rest.offset);
        }
        let file = files.get(index)?.span;
        let part = Span { offset: self.rest.offset, len: self.rest.len.min(file.end() - self.rest.offset) };
        self.next = index + 1;
        self.rest = Span { offset: part.end(), len: self.rest.len - part.len };
        Some((index, part.offset - file.offset, part))
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
        assert_eq!(list.parts(Span { offset: 0, len: 0 }).count(), 0);
        assert_eq!(list.parts(Span { offset: 30, len: 100 }).count(), 1, "what lies beyond the end is no part");
    }

    #[test]
    fn start_of_a_span_touches_no_more_files_than_it_may() {
        let lens = [10, 0, 0, 5, 0, 20, 1, 0];
        let list = FileList::new(lens.iter().enumerate().map(|(file, len)| (format!("{file}").into(), *len, false)));
        let span = Span { offset: 8, len: 28 };
        let len_of = |most| list.start_of(span, most).len;
        assert_eq!([1, 2, 3, 4, 8].map(len_of), [2, 7, 27, 28, 28]);
    }

    #[test]
    fn entries_have_their_own_path_span_and_kind() {
        let list = FileList::new([("t/a".into(), 10, false), ("t/b/c".into(), 0, true), ("t/d".into(), 3, false)]);
        let entries: Vec<_> = list.entries().map(|entry| (entry.path.to_str(), entry.span.len, entry.pad)).collect();
        assert_eq!(entries, [(Some("t/a"), 10, false), (Some("t/b/c"), 0, true), (Some("t/d"), 3, false)]);
        assert_eq!(list.entry(2).span.offset, 10);
        assert!(list.get(3).is_none() && !list.has_empty(), "an empty pad file is not made");
        assert!(FileList::new([("a".into(), 0, false)]).has_empty());
    }

    #[test]
    fn list_refuses_paths_beyond_its_limit() {
        let mut builder = FileListBuilder::default();
        let long = vec![b'x'; PATHS_LEN_MAX - 2];
        builder.push([&long[..]], 1, false).unwrap();
        builder.push([&b"a"[..]], 1, false).unwrap();
        assert_eq!(builder.push([&b"b"[..], b"c"], 1, false), Err(PathsTooLong));
        let list = builder.finish();
        assert_eq!((list.len(), list.paths.len()), (2, PATHS_LEN_MAX - 1));
        let longer =
            FileList::new(list.entries().map(|entry| (Path::new("new").join(entry.path), entry.span.len, false)));
        assert_eq!((longer.len(), longer.paths.len()), (2, PATHS_LEN_MAX + 7), "a user may rename what is allowed");
    }
}
