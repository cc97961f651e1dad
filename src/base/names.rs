//! Names that the user gave to files of a torrent, instead of those in its description.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::files::FileList;

/// Bytes of one name.
const NAME_LEN_MAX: usize = 255;

/// What was renamed: the last component of files, by index, and the first of all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// The file or directory that holds everything.
    pub top: Option<OsString>,
    /// Files by index.
    pub files: BTreeMap<usize, OsString>,
}

impl Names {
    /// True if nothing was renamed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.top.is_none() && self.files.is_empty()
    }

    /// The files of a description under their new names.
    #[must_use]
    pub fn apply(&self, files: &Arc<FileList>) -> Arc<FileList> {
        if self.is_empty() {
            return Arc::clone(files);
        }
        Arc::new(FileList::new(files.entries().enumerate().map(|(index, entry)| {
            let mut path = entry.path.to_owned();
            if let Some(name) = self.files.get(&index) {
                path.set_file_name(name);
            }
            if let Some(top) = &self.top {
                path = with_top(&path, top);
            }
            (path, entry.span.len, entry.pad)
        })))
    }
}

/// `path` with another first component.
fn with_top(path: &Path, top: &OsStr) -> PathBuf {
    let mut components = path.components();
    components.next();
    Path::new(top).join(components.as_path()).components().collect()
}

/// True if `name` can be nothing but a name in its directory: what descriptions must keep to, too.
#[must_use]
pub fn is_safe(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !matches!(bytes, b"" | b"." | b"..") && !bytes.contains(&b'/') && !bytes.contains(&0) && bytes.len() <= NAME_LEN_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_what_holds_them_get_other_names() {
        let list = Arc::new(FileList::new([("t/a".into(), 1, false), ("t/d/b".into(), 2, false)]));
        assert!(Arc::ptr_eq(&Names::default().apply(&list), &list), "nothing is copied for nothing");
        let names = Names { top: Some("new".into()), files: BTreeMap::from([(1, "c".into())]) };
        let paths: Vec<_> = names.apply(&list).entries().map(|entry| entry.path.to_owned()).collect();
        assert_eq!(paths, [PathBuf::from("new/a"), PathBuf::from("new/d/c")]);
        let single = Arc::new(FileList::new([("t".into(), 1, false)]));
        let names = Names { top: Some("x".into()), ..Names::default() };
        assert_eq!(names.apply(&single).entry(0).path, PathBuf::from("x"));
        assert!(is_safe(OsStr::new("a b")) && !is_safe(OsStr::new("..")) && !is_safe(OsStr::new("a/b")));
    }
}
