//! The files of an `info` (BEP 3, 47): their paths, made safe, and their lengths.
//!
//! A component may be any bytes that are a name and nothing else; what could lead elsewhere is refused, never rewritten.
//! Controls and backslashes are part of a name on disk: escape it before showing it. Pad files and symbolic links are
//! entries that nobody stores, so a link is never made.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{COMPONENT_LEN_MAX, COMPONENTS_MAX, FILES_MAX, MetainfoError, TOTAL_LEN_MAX, key, text};
use crate::base::files::FileList;
use crate::codec::bencode::{Dict, Value};

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

/// The advisory name, by preference in UTF-8.
pub(super) fn name_of<'a>(info: &Dict<'a>) -> Result<&'a [u8], MetainfoError> {
    let utf8 = info.bytes(b"name.utf-8").filter(|name| std::str::from_utf8(name).is_ok());
    utf8.or_else(|| info.bytes(b"name")).ok_or(key("name", "a string"))
}

/// The files of an `info`, what else it says of each, and whether it is a single one. `is_st`: by the stricter rules.
pub(super) fn read(info: &Dict<'_>, is_st: bool) -> Result<(FileList, Vec<FileExtra>, bool), MetainfoError> {
    let name = safe(name_of(info)?).map_err(|problem| MetainfoError::Path { file: None, problem })?;
    let root = PathBuf::from(OsStr::from_bytes(name));
    let mut entries = Vec::new();
    let mut extras = Vec::new();
    let is_single = match (info.get(b"length"), info.get(b"files")) {
        (Some(length), None) => {
            entries.push((root, length_of(length)?, false));
            extras.push(extra_of(info));
            true
        }
        (None, Some(files)) => {
            let files = files.as_list().ok_or(key("files", "a list"))?;
            if files.is_empty() || files.len() > FILES_MAX {
                return Err(key("files", "a list of 1 to 100000 files"));
            }
            for (index, file) in files.iter().enumerate() {
                let file = file.as_dict().ok_or(key("files", "a list of dictionaries"))?;
                let extra = extra_of(file);
                let is_link = extra.attr.contains('l');
                // A link has no content, whatever it says of its length; libtorrent sees it the same way.
                let len = match file.get(b"length") {
                    _ if is_link => 0,
                    Some(length) => length_of(length)?,
                    None => return Err(key("length", "there for every file")),
                };
                let is_pad = is_link || extra.attr.contains('p');
                let path = match path_of(file, is_st) {
                    Ok(path) => root.join(path),
                    Err(_) if extra.attr.contains('p') && !is_st => root.join(".pad"),
                    Err(problem) => return Err(MetainfoError::Path { file: Some(index), problem }),
                };
                entries.push((path, len, is_pad));
                extras.push(extra);
            }
            false
        }
        _ => return Err(key("length", "there, or else `files`, and not both")),
    };
    let total = entries.iter().try_fold(0_u64, |sum, (_, len, _)| sum.checked_add(*len));
    if total.is_none_or(|total| total > TOTAL_LEN_MAX) {
        return Err(key("length", "less than 2^53 bytes in all"));
    }
    refuse_collisions(&entries)?;
    if extras.iter().all(|extra| *extra == FileExtra::default()) {
        extras = Vec::new();
    }
    Ok((FileList::new(entries), extras, is_single))
}

fn length_of(value: &Value<'_>) -> Result<u64, MetainfoError> {
    value.as_int().and_then(|len| u64::try_from(len).ok()).ok_or(key("length", "a number of bytes"))
}

fn extra_of(file: &Dict<'_>) -> FileExtra {
    let short = |bytes: &&[u8]| bytes.len() <= EXTRA_LEN_MAX;
    FileExtra {
        md5sum: file.bytes(b"md5sum").filter(short).map(text),
        attr: file.bytes(b"attr").filter(short).map(text).unwrap_or_default(),
    }
}

/// The path of a file below the torrent's directory. Empty components, which some programs write, are left out of the
/// path of a `.torrent`; a `.st` must not have any.
fn path_of(file: &Dict<'_>, is_st: bool) -> Result<PathBuf, &'static str> {
    let is_utf8 = |path: &&[Value<'_>]| {
        path.iter().all(|part| part.as_bytes().is_some_and(|bytes| std::str::from_utf8(bytes).is_ok()))
    };
    let path = file.list(b"path.utf-8").filter(is_utf8).or_else(|| file.list(b"path")).ok_or("is missing")?;
    if path.len() > COMPONENTS_MAX {
        return Err("has more than 64 components");
    }
    let mut whole = PathBuf::new();
    for part in path {
        let part = part.as_bytes().ok_or("is not a list of strings")?;
        if is_st || !part.is_empty() {
            whole.push(OsStr::from_bytes(safe(part)?));
        }
    }
    if whole.as_os_str().is_empty() { Err("is empty") } else { Ok(whole) }
}

/// A component that can be nothing but a name in its directory.
fn safe(component: &[u8]) -> Result<&[u8], &'static str> {
    match component {
        b"" => Err("is empty"),
        b"." | b".." => Err("contains `.` or `..`, which could leave its directory"),
        _ if component.contains(&b'/') || component.contains(&0) => Err("contains a slash or a zero byte"),
        _ if component.len() > COMPONENT_LEN_MAX => Err("has a component of more than 255 bytes"),
        _ => Ok(component),
    }
}

/// No two files of one path, and no file where another one needs a directory.
fn refuse_collisions(entries: &[(PathBuf, u64, bool)]) -> Result<(), MetainfoError> {
    let mut sorted: Vec<(usize, &PathBuf)> =
        entries.iter().enumerate().filter(|(_, (_, _, pad))| !pad).map(|(index, (path, _, _))| (index, path)).collect();
    sorted.sort_by_key(|&(_, path)| path);
    match sorted.windows(2).find(|pair| pair[1].1.starts_with(pair[0].1)) {
        Some(pair) => Err(MetainfoError::Path { file: Some(pair[1].0), problem: "is taken by another file" }),
        None => Ok(()),
    }
}
