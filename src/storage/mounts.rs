//! Finds the place, a path on a particular file system, to which a path leads through symbolic links and bind mounts.
//!
//! Two different paths may lead to one directory. Symbolic links are resolved by the kernel; bind mounts are not links,
//! so the mount table (`/proc/self/mountinfo`, proc_pid_mountinfo(5)) is read to find the part of a file system that
//! each mount shows. The place of a path that does not exist yet is that of its nearest existing ancestor, followed by
//! the remaining components. Union file systems (overlayfs, mergerfs) are separate file systems, and the directories
//! below them are not resolved.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of the mount table.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// The mount point.
    point: PathBuf,
    /// The device of the file system, `/MAJOR:MINOR`, and below it the directory that is mounted.
    shows: PathBuf,
}

/// The mount table as of the last read.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    text: Vec<u8>,
    mounts: Vec<Mount>,
    /// The number of times that the table was found changed.
    version: u64,
}

impl Mounts {
    /// Reads the mount table. Returns a number that changes when the table does.
    pub(super) fn refresh(&mut self) -> u64 {
        // Without a table bind mounts are not detected, and everything else works.
        let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        if text != self.text {
            self.mounts = parse(&text);
            self.text = text;
            self.version += 1;
        }
        self.version
    }

    /// Returns the place of `dir` (see [`crate::base::storage::Storage::place`]).
    pub(super) fn place(&mut self, dir: &Path) -> PathBuf {
        if self.version == 0 {
            self.refresh();
        }
        let mut existing = dir;
        let canonical = loop {
            match std::fs::canonicalize(existing) {
                Ok(canonical) => break canonical.join(dir.strip_prefix(existing).unwrap_or(Path::new(""))),
                Err(_) => match existing.parent() {
                    Some(parent) => existing = parent,
                    None => break dir.to_owned(),
                },
            }
        };
        self.place_of_canonical(&canonical)
    }

    fn place_of_canonical(&self, path: &Path) -> PathBuf {
        // Of several mounts at one point the last one is on top.
        let mounts = self.mounts.iter().filter_map(|mount| Some((mount, path.strip_prefix(&mount.point).ok()?)));
        let nearest = mounts.max_by_key(|(mount, _)| mount.point.components().count());
        nearest.map_or_else(|| path.to_owned(), |(mount, rest)| mount.shows.join(rest).components().collect())
    }
}

/// Returns the mounts in the text of a mount table; lines that cannot be parsed are skipped.
fn parse(text: &[u8]) -> Vec<Mount> {
    let mount = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        let root = unescape(root);
        let shows = Path::new("/").join(unescape(device)).join(root.strip_prefix("/").ok()?);
        Some(Mount { point: unescape(point), shows })
    };
    text.split(|&byte| byte == b'\n').filter_map(mount).collect()
}

/// Decodes a field, in which space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = (byte == b'\\').then(|| after.get(..3)).flatten();
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /data rw - ext4 /dev/sdb1 rw
31 22 8:2 /films/new /home/u/my\\040films rw - ext4 /dev/sdb1 rw
32 30 0:40 / /data/memory rw - tmpfs tmpfs rw
damaged line
";

    #[test]
    fn bind_mount_has_the_place_of_what_it_shows() {
        let mounts = Mounts { mounts: parse(TABLE), version: 1, ..Mounts::default() };
        for (path, place) in [
            ("/home/u", "/8:1/home/u"),
            ("/data/films/new/x", "/8:2/films/new/x"),
            ("/home/u/my films/x", "/8:2/films/new/x"),
            ("/data", "/8:2"),
            ("/data/memory/films", "/0:40/films"),
            ("/database", "/8:1/database"),
        ] {
            assert_eq!(mounts.place_of_canonical(Path::new(path)), Path::new(place), "{path}");
        }
        assert_eq!(Mounts::default().place_of_canonical(Path::new("/a")), Path::new("/a"), "no table");
    }

    #[test]
    fn symbolic_link_has_the_place_of_its_target() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("b")).unwrap();
        let mut mounts = Mounts::default();
        let [a, b] = ["a/not/yet", "b/not/yet"].map(|path| mounts.place(&temp.path().join(path)));
        assert_eq!(a, b);
        assert!(a.ends_with("a/not/yet") && a.starts_with(mounts.place(temp.path())));
    }
}
