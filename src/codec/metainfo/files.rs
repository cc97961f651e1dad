//! The files of an `info` (BEP 3, 47): their paths, made safe, and what else is said of them.
//!
//! A component may be any bytes that are a name and nothing else; what could lead elsewhere is refused, never rewritten.
//! Controls and backslashes are part of a name on disk: escape it before showing it. Pad files and symbolic links are
//! entries that nobody stores, so a link is never made.

use std::ops::Range;

use super::parser::{InfoFields, Value};
use super::{COMPONENT_LEN_MAX, COMPONENTS_MAX, MetainfoError, PathProblem, key, text};
use crate::base::bytes::Bytes;

/// Bytes of `md5sum` and of `attr`; a longer one is ignored.
const EXTRA_LEN_MAX: usize = 64;

/// What a file entry may say beyond its path and length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileExtra {
    /// `md5sum`, as it stands there.
    pub md5sum: Option<String>,
    /// `attr` (BEP 47): `p` pad, `x` executable, `h` hidden, `l` symbolic link.
    pub attr: String,
}

/// `md5sum` and `attr` of the files that have one, as positions in `info`: a million of them take as little time to drop as one.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// By file, in order.
    files: Vec<(u32, ExtraFields)>,
    /// Where `info` begins in what the positions count from.
    start: usize,
    info: Bytes,
}

impl Extras {
    pub(super) const fn new(files: Vec<(u32, ExtraFields)>, start: usize, info: Bytes) -> Self {
        Self { files, start, info }
    }

    /// What is said of the file at `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> FileExtra {
        let found =
            u32::try_from(index).ok().and_then(|index| self.files.binary_search_by_key(&index, |(file, _)| *file).ok());
        found.map_or_else(FileExtra::default, |found| self.at(found))
    }

    fn at(&self, found: usize) -> FileExtra {
        let of =
            |range: &Range<u32>| text(&self.info[range.start as usize - self.start..range.end as usize - self.start]);
        let fields = &self.files[found].1;
        FileExtra { md5sum: fields.md5sum.as_ref().map(of), attr: fields.attr.as_ref().map(of).unwrap_or_default() }
    }
}

impl PartialEq for Extras {
    fn eq(&self, other: &Self) -> bool {
        self.files.len() == other.files.len()
            && (0..self.files.len()).all(|at| self.files[at].0 == other.files[at].0 && self.at(at) == other.at(at))
    }
}

impl Eq for Extras {}

/// Positions of what is said of one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ExtraFields {
    md5sum: Option<Range<u32>>,
    attr: Option<Range<u32>>,
}

impl ExtraFields {
    pub(super) fn is_empty(&self) -> bool {
        self.md5sum.is_none() && self.attr.as_ref().is_none_or(Range::is_empty)
    }

    pub(super) fn note(&mut self, key: &[u8], value: &Value) {
        let field = match key {
            b"md5sum" => &mut self.md5sum,
            b"attr" => &mut self.attr,
            _ => return,
        };
        let position = |at| u32::try_from(at).expect("documents are shorter than 4 GiB");
        let range = value.bytes().filter(|range| range.len() <= EXTRA_LEN_MAX);
        *field = range.map(|range| position(range.start)..position(range.end));
    }

    pub(super) fn attr<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        self.attr.as_ref().map_or(&[], |range| &bytes[range.start as usize..range.end as usize])
    }
}

/// What is read of one file.
#[derive(Debug, Default)]
pub(super) struct FileFields {
    pub(super) length: Option<Value>,
    path: Option<Paths>,
    path_utf8: Option<Paths>,
    pub(super) extra: ExtraFields,
}

/// A list that is a path: its components, as far as they may count.
#[derive(Debug)]
pub(super) struct Paths {
    start: usize,
    components: Vec<Range<usize>>,
    count: usize,
    has_other: bool,
    is_utf8: bool,
}

impl Paths {
    pub(super) const fn begin(start: usize) -> Self {
        Self { start, components: Vec::new(), count: 0, has_other: false, is_utf8: true }
    }

    pub(super) fn push(&mut self, bytes: &[u8], component: Range<usize>) {
        self.count += 1;
        if self.components.len() < COMPONENTS_MAX {
            // What is too long is refused in any encoding.
            let is_long = component.len() > COMPONENT_LEN_MAX;
            self.is_utf8 &= is_long || std::str::from_utf8(&bytes[component.clone()]).is_ok();
            self.components.push(component);
        }
    }

    pub(super) fn push_other(&mut self) {
        self.count += 1;
        self.has_other = true;
    }
}

impl FileFields {
    pub(super) fn note(&mut self, key: &[u8], value: Value) {
        if key == b"length" {
            self.length = Some(value);
        } else {
            self.extra.note(key, &value);
        }
    }

    /// A value that is a list has ended.
    pub(super) fn note_list(&mut self, key: &[u8], path: Option<Paths>) {
        match key {
            b"path" => self.path = path,
            b"path.utf-8" => self.path_utf8 = path,
            b"length" => self.length = path.map(|path| Value::List(path.start..path.start)),
            _ => {}
        }
    }

    /// The components of the path below the torrent's directory. Empty ones, which some programs write, are left out of the
    /// path of a `.torrent`; a `.st` must not have any.
    pub(super) fn path(&self, bytes: &[u8], is_st: bool, index: usize) -> Result<Vec<Range<usize>>, MetainfoError> {
        let error = |problem| MetainfoError::Path { file: Some(index), problem };
        let utf8 = self.path_utf8.as_ref().filter(|path| path.is_utf8 && !path.has_other);
        let path = utf8.or(self.path.as_ref()).ok_or(error(PathProblem::Missing))?;
        if path.count > COMPONENTS_MAX {
            return Err(error(PathProblem::Deep(path.count)));
        }
        if path.has_other {
            return Err(error(PathProblem::NotStrings));
        }
        let mut whole = Vec::with_capacity(path.components.len());
        for part in &path.components {
            if is_st || !part.is_empty() {
                safe(component(bytes, part)).map_err(error)?;
                whole.push(part.clone());
            }
        }
        if whole.is_empty() { Err(error(PathProblem::Empty)) } else { Ok(whole) }
    }
}

pub(super) fn component<'b>(bytes: &'b [u8], range: &Range<usize>) -> &'b [u8] {
    &bytes[range.clone()]
}

/// The advisory name, by preference in UTF-8.
pub(super) fn name_of(bytes: &[u8], info: &InfoFields) -> Result<Range<usize>, MetainfoError> {
    let is_utf8 =
        |name: &&Range<usize>| name.len() > COMPONENT_LEN_MAX || std::str::from_utf8(component(bytes, name)).is_ok();
    let utf8 = info.name_utf8.as_ref().filter(is_utf8);
    utf8.or(info.name.as_ref()).cloned().ok_or(key("name", "a string"))
}

/// A component that can be nothing but a name in its directory.
pub(super) fn safe(component: &[u8]) -> Result<&[u8], PathProblem> {
    match component {
        b"" => Err(PathProblem::Empty),
        b"." | b".." => Err(PathProblem::Dots),
        _ if component.len() > COMPONENT_LEN_MAX => Err(PathProblem::Long(component.len())),
        _ if component.contains(&b'/') || component.contains(&0) => Err(PathProblem::Slash),
        _ => Ok(component),
    }
}
