//! The state directory: who holds it, the journal of all that changes, and a file for what describes each torrent, which is replaced
//! whole or not at all.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::base::hash::InfoHash;
use crate::base::storage::Fault;
use crate::storage::journal::{Batch, Compaction, Journal};
use crate::storage::{errno_of, fault, writeback};

pub use crate::storage::journal::Records;

/// Bytes of a saved file; a longer one is not ours and is left alone.
const SAVED_LEN_MAX: u64 = 80 << 20;

/// A state directory that is ours as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    journal: Journal,
    /// Locked.
    _lock: File,
}

/// Why a state directory cannot be had.
#[derive(Debug)]
pub enum StateError {
    /// Another daemon holds it.
    Held(PathBuf),
    /// It cannot be made or opened.
    Io(PathBuf, io::Error),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(dir) => {
                write!(f, "another daemon holds {}; stop it, or give this one another `[paths] state`", dir.display())
            }
            Self::Io(dir, error) => write!(f, "{} cannot be used for state: {error}", dir.display()),
        }
    }
}

impl std::error::Error for StateError {}

impl StateDir {
    /// Takes the directory, making it where it is missing; and what its journal says.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn open(dir: &Path) -> Result<(Self, Records), StateError> {
        let told = |error| StateError::Io(dir.to_owned(), error);
        std::fs::create_dir_all(dir.join("torrents")).map_err(told)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(told)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StateError::Held(dir.to_owned())),
            Err(errno) => return Err(told(errno.into())),
        }
        let (journal, records) = Journal::open(dir).map_err(told)?;
        Ok((Self { dir: dir.to_owned(), journal, _lock: lock }, records))
    }

    /// The file `name`; none if it is not there, or it cannot be read, which is told in the log.
    #[must_use]
    pub(in crate::storage) fn read(&self, name: &Path) -> Option<Vec<u8>> {
        assert!(is_below(name), "{} is not below the state directory", name.display());
        let path = self.dir.join(name);
        let told = |error: &io::Error| log::error!("{} cannot be read: {error}", path.display());
        read_bounded(&path).inspect_err(told).ok()
    }

    /// One step of writing records; true once all are on the disk. After a fault none is.
    pub(super) fn append(&mut self, batch: &mut Batch) -> Result<bool, Fault> {
        self.journal.append(batch)
    }

    /// The journal should be written anew.
    pub(super) fn is_stale(&self) -> bool {
        self.journal.is_stale()
    }

    /// One step of writing the journal anew; true once it is.
    pub(super) fn compact(&mut self, compaction: &mut Compaction) -> Result<bool, Fault> {
        compaction.step(&mut self.journal)
    }

    /// The torrents that are described there, in order. Only the names of files are read.
    ///
    /// # Errors
    /// The directory itself cannot be read.
    pub fn torrents(&self) -> io::Result<Vec<InfoHash>> {
        let names = std::fs::read_dir(self.dir.join("torrents"))?.filter_map(|entry| Some(entry.ok()?.file_name()));
        let mut hashes: Vec<_> =
            names.filter_map(|name| InfoHash::from_hex(name.to_str()?.strip_suffix(".meta")?)).collect();
        hashes.sort_unstable();
        Ok(hashes)
    }

    /// Removes the file `name`; gone already is fine.
    ///
    /// # Errors
    /// What the disk says.
    pub fn erase(&self, name: &Path) -> Result<(), Fault> {
        assert!(is_below(name), "{} is not below the state directory", name.display());
        let path = self.dir.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault(errno_of(&error), &path, "removed")),
            _ => Ok(()),
        }
    }
}

/// A file of the state directory being replaced, so that after any crash it is the old one or the new one, whole. A step is
/// one call that may wait for the disk.
#[derive(Debug)]
pub(super) struct Saving {
    name: PathBuf,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Write(Vec<u8>),
    Sync(File),
    Rename,
    SyncDir,
}

impl Saving {
    pub(super) fn new(name: PathBuf, bytes: Vec<u8>) -> Self {
        assert!(is_below(&name), "{} is not below the state directory", name.display());
        Self { name, stage: Stage::Write(bytes) }
    }

    /// One step; true once the file is replaced. On a fault the old one is still there.
    pub(super) fn step(&mut self, state: &StateDir) -> Result<bool, Fault> {
        let path = state.dir.join(&self.name);
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let told = |error: io::Error| fault(errno_of(&error), &path, "written");
        let parent = path.parent().expect("a name below a directory");
        self.stage = match &mut self.stage {
            Stage::Write(bytes) => {
                std::fs::create_dir_all(parent).map_err(told)?;
                // Not through a link, and not into a pipe that somebody put there: opening that would wait for its reader.
                let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
                let mut options = File::options();
                options.write(true).create(true).truncate(true).custom_flags(flags.bits().cast_signed());
                let mut file = options.open(&temporary).map_err(told)?;
                file.write_all(bytes).map_err(told)?;
                writeback::begin(file.as_fd());
                Stage::Sync(file)
            }
            Stage::Sync(file) => {
                file.sync_all().map_err(told)?;
                Stage::Rename
            }
            Stage::Rename => {
                std::fs::rename(&temporary, &path).map_err(told)?;
                Stage::SyncDir
            }
            Stage::SyncDir => {
                File::open(parent).and_then(|dir| dir.sync_all()).map_err(told)?;
                return Ok(true);
            }
        };
        Ok(false)
    }
}

fn is_below(name: &Path) -> bool {
    name.components().all(|component| matches!(component, Component::Normal(_)))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path)?;
    let len = metadata.len();
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file"));
    }
    if len > SAVED_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {len} bytes, which none of ours has")));
    }
    std::fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let temp = tempfile::tempdir().unwrap();
        let first = StateDir::open(temp.path()).unwrap();
        assert!(matches!(StateDir::open(temp.path()), Err(StateError::Held(_))));
        drop(first);
        assert!(StateDir::open(temp.path()).is_ok());
    }

    #[test]
    fn what_was_saved_is_loaded_and_what_was_erased_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = StateDir::open(temp.path()).unwrap();
        let [a, b] = [InfoHash::of(b"a"), InfoHash::of(b"b")];
        let name = |hash: InfoHash| format!("{hash}.meta");
        for (name, bytes) in [(name(a), "one"), (name(b), "two"), (name(b), "three"), ("other.meta".into(), "x")] {
            let mut saving = Saving::new(Path::new("torrents").join(name), bytes.into());
            while !saving.step(&state).unwrap() {}
        }
        let [a_name, b_name] = [a, b].map(|hash| Path::new("torrents").join(name(hash)));
        state.erase(&a_name).unwrap();
        state.erase(&a_name).unwrap();
        assert_eq!(state.torrents().unwrap(), [b]);
        assert_eq!((state.read(&a_name), state.read(&b_name)), (None, Some(b"three".to_vec())));
    }
}
