//! Files that users name: the config, metainfo to add, metainfo to export. Opened so that nothing can make us wait.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::daemon::config::{FILE_MAX, Settings};

/// Bytes of a metainfo file; a longer one is refused before it is read.
pub const METAINFO_MAX: u64 = 64 * 1024 * 1024;

/// The settings of the config file, or a user's defaults without one. `env` gives environment variables.
///
/// # Errors
/// One sentence for the user.
pub fn settings(file: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Result<Settings, String> {
    let Some(file) = file else {
        return Ok(Settings::of_user(env));
    };
    let bytes = read_regular(file, FILE_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8 text", file.display()))?;
    let settings = Settings::parse(&text, file).map_err(|error| error.to_string())?;
    match settings.conflict() {
        Some(what) => Err(format!("{}: {what}", file.display())),
        None => Ok(settings),
    }
}

/// All of a regular file of at most `max` bytes. A FIFO or a device is refused without waiting for anybody; a symbolic link
/// is followed.
///
/// # Errors
/// One sentence for the user.
pub fn read_regular(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    read_unnamed(path, max).map_err(|why| format!("{}: {why}", path.display()))
}

/// The same; the error does not name the path, so that the caller writes it as its own output requires.
pub(crate) fn read_unnamed(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let file = open_at_once(path).map_err(|error| error.to_string())?;
    read_open(&file, max)
}

/// Opens a file for reading. A FIFO without a writer, or a device, does not make this wait.
pub(crate) fn open_at_once(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(flags(OFlags::NONBLOCK | OFlags::NOCTTY)).open(path)
}

/// All of an open file, if it is a regular one of at most `max` bytes.
pub(crate) fn read_open(file: &File, max: u64) -> Result<Vec<u8>, String> {
    let meta = file.metadata().map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that grows.
    if meta.len() <= max {
        file.take(max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    }
    if meta.len() > max || bytes.len() as u64 > max {
        return Err(format!("larger than {} MiB, which is the most that is read", max >> 20));
    }
    Ok(bytes)
}

/// Writes `bytes` to a new file: what is there already stays.
///
/// # Errors
/// What kind of trouble it is, and one sentence for the user.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), (ErrorKind, String)> {
    let say = |error: std::io::Error| (error.kind(), format!("{}: {error}", path.display()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(say)?;
    file.write_all(bytes).map_err(|error| {
        // Half a file is worse than none; that it cannot be removed either adds nothing to the message.
        drop(std::fs::remove_file(path));
        say(error)
    })
}

/// Flags as the standard library takes them.
pub(crate) fn flags(flags: OFlags) -> i32 {
    i32::from_ne_bytes(flags.bits().to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_sane_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read_regular(&path, 3), Ok(b"abc".to_vec()));
        assert!(read_regular(&path, 2).unwrap_err().contains("larger than"));
        assert!(read_regular(dir.path(), 9).unwrap_err().contains("not a regular file"));
        assert!(read_regular(Path::new("/dev/zero"), 9).unwrap_err().contains("not a regular file"));
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(read_regular(&fifo, 9).unwrap_err().contains("not a regular file"));
        assert!(read_regular(&dir.path().join("none"), 9).unwrap_err().contains("none"));
    }

    #[test]
    fn an_export_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert_eq!(write_new(&path, b"abc"), Ok(()));
        assert_eq!(write_new(&path, b"def").unwrap_err().0, ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"abc");
    }
}
