//! Files that the tool writes: whole or not at all, and never over another one. Files that it reads: regular ones only.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::codec::control::escape;
use crate::daemon::load::read_unnamed;

/// A path, harmless on a terminal.
pub(crate) fn shown(path: &Path) -> String {
    escape(&path.to_string_lossy()).into_owned()
}

/// All of a regular file of at most `max` bytes. A FIFO, a device or a directory is refused at once.
///
/// # Errors
/// `<path>: <cause>`, harmless on a terminal.
pub(crate) fn read_regular(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    read_unnamed(path, max).map_err(|why| format!("{}: {why}", shown(path)))
}

/// Says so if something is at `path` already: better before the work than after it.
pub(crate) fn refuse_existing(path: &Path) -> Result<(), String> {
    if fs::symlink_metadata(path).is_ok() { Err(told(path, &io::ErrorKind::AlreadyExists.into())) } else { Ok(()) }
}

/// Prints text that is whole lines. Nobody being there to read it is no reason to fail.
pub(crate) fn say_raw(text: &str) {
    let _unread = io::stdout().lock().write_all(text.as_bytes());
}

/// Writes a new file. It appears under its name when all of it is on the disk.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let unfinished = path.with_file_name(format!(".swarmtorrent-{}.part", std::process::id()));
    let mut file =
        File::options().write(true).create_new(true).open(&unfinished).map_err(|error| told(path, &error))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| name(&unfinished, path));
    written.map_err(|error| {
        let _gone = fs::remove_file(&unfinished);
        told(path, &error)
    })
}

fn name(unfinished: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, unfinished, CWD, path, RenameFlags::NOREPLACE) {
        // Some file systems cannot; a second name for the file replaces nothing either.
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(unfinished, path).and_then(|()| fs::remove_file(unfinished)),
        result => Ok(result?),
    }
}

fn told(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} is there already; remove it or give another -o", shown(path)),
        _ => format!("{} cannot be written: {error}", shown(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.st");
        assert_eq!(refuse_existing(&path), Ok(()));
        write_new(&path, b"one").unwrap();
        assert!(refuse_existing(&path).is_err());
        assert!(write_new(&path, b"two").unwrap_err().contains("there already"));
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing unfinished is left");
        std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
        assert!(write_new(&dir.path().join("link"), b"x").is_err());
    }

    #[test]
    fn where_nothing_can_be_written_the_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let error = write_new(&dir.path().join("no/such/x.st"), b"x").unwrap_err();
        assert!(error.contains("cannot be written"), "{error}");
    }
}
