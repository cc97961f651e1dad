//! The state directory: who holds it, the journal of everything that changes, and the pack of what describes each torrent.
//!
//! | name | contents |
//! |---|---|
//! | `lock` | empty; locked while a daemon runs |
//! | `journal` | resume records, the DHT's state, followed keys; read whole at the start |
//! | `metainfo` | the metainfo or magnet link of each torrent; values are read when they are needed |
//! | `journal.damaged`, `metainfo.damaged` | what was cut off of them because it was damaged |
//! | `torrents/` | where a user may put back the metainfo of a torrent that lost it, as `INFOHASH.meta`; version 0.1.0 kept all there |

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::base::bytes::Rope;
use crate::base::hash::InfoHash;
use crate::base::ids::JobId;
use crate::base::storage::{Fault, Job};
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::Metainfo;
use crate::storage::journal::{BATCH_LEN_MAX, Batch, Compaction, Journal, Step, Values};
use crate::storage::{errno_of, fault, private};

pub use crate::storage::journal::Records;

/// The directory of metainfo files, and what the names in the pack begin with.
const TORRENTS: &str = "torrents";
/// Length limit of a metainfo file, bytes; a longer one is not taken in.
const META_LEN_MAX: u64 = crate::codec::journal::VALUE_LEN_MAX as u64;
/// Names that one batch erases, at most; further ones wait for the next.
const ERASED_MAX: usize = 512;

/// A state directory that is ours as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    journal: Journal,
    pack: Journal,
    /// Metainfo files that could not be taken into the pack at the start, by the pack's name for them.
    left: Vec<String>,
    /// Locked.
    _lock: File,
}

/// Which file is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Which {
    /// The journal.
    Journal,
    /// The pack of metainfo.
    Pack,
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
        let failed = |error| StateError::Io(dir.to_owned(), error);
        let cannot = |doing: &'static str, path: PathBuf| {
            move |error: io::Error| StateError::Io(dir.to_owned(), private::told(&path, doing, &error))
        };
        private::make_state_dir(dir).map_err(cannot("make", dir.to_owned()))?;
        let lock = dir.join("lock");
        let mut options = private::options();
        options.create(true).truncate(false).write(true);
        let lock = private::open(&options, &lock).map_err(cannot("open", lock))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StateError::Held(dir.to_owned())),
            Err(errno) => return Err(failed(errno.into())),
        }
        private::make_dir(&dir.join(TORRENTS)).map_err(cannot("make", dir.join(TORRENTS)))?;
        for name in ["journal.damaged", "metainfo.damaged"] {
            // Opening makes it private; usually it is not there.
            drop(private::open(private::options().read(true), &dir.join(name)));
        }
        let (journal, records) = Journal::open(dir, "journal", Values::Hold).map_err(failed)?;
        let (pack, _) = Journal::open(dir, "metainfo", Values::Leave).map_err(failed)?;
        let mut state = Self { dir: dir.to_owned(), journal, pack, left: Vec::new(), _lock: lock };
        state.take_in().map_err(cannot("read", dir.join(TORRENTS)))?;
        Ok((state, records))
    }

    /// Takes the files of `torrents/` into the pack, and removes each once the pack holds it for certain.
    fn take_in(&mut self) -> io::Result<()> {
        let (mut batch, mut paths) = (Batch::default(), Vec::new());
        let mut taken = 0;
        let dir = self.dir.join(TORRENTS);
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.strip_suffix(".meta.tmp").and_then(InfoHash::from_hex).is_some() {
                // What version 0.1.0 had not finished writing.
                drop(std::fs::remove_file(&path));
                continue;
            }
            let Some(info_hash) = name.strip_suffix(".meta").and_then(InfoHash::from_hex) else { continue };
            let name = format!("{TORRENTS}/{name}");
            let bytes = match read_meta(&path, info_hash) {
                Ok(bytes) => bytes,
                Err(error) => {
                    log::error!("{} is not taken in: {error}", path.display());
                    continue;
                }
            };
            taken += 1;
            batch.push(name, Some(bytes.into()));
            paths.push(path);
            if batch.len() >= BATCH_LEN_MAX {
                self.take_in_batch(&mut batch, &mut paths);
            }
        }
        self.take_in_batch(&mut batch, &mut paths);
        if taken > 0 {
            log::info!("{}: {taken} files were read", dir.display());
            // A file must not come back after the pack has a newer value.
            File::open(&dir)?.sync_all()?;
        }
        Ok(())
    }

    fn take_in_batch(&mut self, batch: &mut Batch, paths: &mut Vec<PathBuf>) {
        let (mut batch, paths) = (std::mem::take(batch), std::mem::take(paths));
        let names: Vec<String> = batch.names().map(str::to_owned).collect();
        let result = loop {
            match self.pack.append(&mut batch) {
                Ok(Step::Done) => break Ok(()),
                Ok(_) => {}
                Err(fault) => break Err(fault),
            }
        };
        match result {
            Ok(()) => paths.iter().for_each(|path| {
                if let Err(error) = std::fs::remove_file(path) {
                    log::error!("{}", private::told(path, "remove", &error));
                }
            }),
            // They are read where they are.
            Err(fault) => {
                log::error!("{fault}");
                self.left.extend(names);
            }
        }
    }

    /// What was saved under `name`. `None` if there is nothing, or it cannot be read, which is logged. What the pack does not have intact is
    /// looked for in a file of that name, which a user may have put there.
    #[must_use]
    pub(in crate::storage) fn read(&self, name: &Path) -> Option<Vec<u8>> {
        match self.pack.read(key(name)) {
            Ok(Some(bytes)) => return Some(bytes),
            Ok(None) => {}
            Err(error) => log::error!("{} in {}: {error}", name.display(), self.dir.join("metainfo").display()),
        }
        match read_bounded(&self.dir.join(name)) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::error!("{}", private::told(&self.dir.join(name), "read", &error));
                None
            }
        }
    }

    /// Reads on what was saved under `name`: see [`crate::base::storage::Storage::saved_part`].
    pub(in crate::storage) fn read_part(&mut self, name: &Path, bytes: &mut Vec<u8>, most: usize) -> Option<bool> {
        match self.pack.read_part(key(name), bytes, most) {
            Ok(Some(is_whole)) => return Some(is_whole),
            Ok(None) => {}
            Err(error) => log::error!("{} in {}: {error}", name.display(), self.dir.join("metainfo").display()),
        }
        // What a user may have put there is a file that is read at once.
        *bytes = self.read(name)?;
        Some(true)
    }

    /// One step towards the disk for `changes`; [`Step::Done`] once all are there. Jobs whose part is done are given to `done` before.
    /// After a fault neither the part that failed nor any behind it counts.
    pub(super) fn apply(&mut self, changes: &mut Changes, done: &mut impl Extend<JobId>) -> Result<Step, Fault> {
        let Some(part) = changes.parts.iter_mut().find(|part| !part.batch.is_empty()) else { return Ok(Step::Done) };
        if part.kind == PartKind::Erase && !part.is_begun {
            self.remove_files(&part.batch)?;
            part.is_begun = true;
        }
        let journal = if part.kind == PartKind::Record { &mut self.journal } else { &mut self.pack };
        let step = journal.append(&mut part.batch)?;
        if step != Step::Done {
            return Ok(step);
        }
        done.extend(std::mem::take(&mut part.ids));
        Ok(if changes.parts.iter().all(|part| part.batch.is_empty()) { Step::Done } else { Step::More })
    }

    /// Removes the files of that name that a user or version 0.1.0 may have left, so that the next start does not take them in.
    fn remove_files(&self, batch: &Batch) -> Result<(), Fault> {
        let mut has_removed = false;
        for name in batch.names() {
            let path = self.dir.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => has_removed = true,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(fault(errno_of(&error), &path, "removed")),
            }
        }
        let dir = self.dir.join(TORRENTS);
        let sync = || File::open(&dir)?.sync_all();
        if has_removed { sync().map_err(|error| fault(errno_of(&error), &dir, "synced")) } else { Ok(()) }
    }

    /// The files that should be compacted.
    pub(super) fn stale(&self) -> impl Iterator<Item = Which> {
        let journal = self.journal.is_stale().then_some(Which::Journal);
        journal.into_iter().chain(self.pack.is_stale().then_some(Which::Pack))
    }

    /// One step of compacting a file; [`Step::Done`] once it is.
    pub(super) fn compact(&mut self, which: Which, compaction: &mut Compaction) -> Result<Step, Fault> {
        match which {
            Which::Journal => compaction.step(&mut self.journal),
            Which::Pack => compaction.step(&mut self.pack),
        }
    }

    /// The torrents whose metainfo or link is there, in order.
    #[must_use]
    pub fn torrents(&self) -> Vec<InfoHash> {
        let names = self.pack.names().chain(self.left.iter().map(String::as_str));
        let hash =
            |name: &str| InfoHash::from_hex(name.strip_prefix(TORRENTS)?.strip_prefix('/')?.strip_suffix(".meta")?);
        let mut hashes: Vec<_> = names.filter_map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }
}

/// Changes that wait together. They come to the disk in three parts, one after the other:
///
/// 1. what is erased of the pack: a record without metainfo is ignored at the next start, whereas metainfo without its record would be restored
///    as a torrent nobody knows anything of;
/// 2. records;
/// 3. what is saved in the pack: it counts only with the record that says where its content is.
///
/// So that no name gets an older value than it should, and no record comes to the disk before what was saved ahead of it under its torrent, some
/// jobs wait for the next changes: see [`Changes::push`].
#[derive(Debug, Default)]
pub(super) struct Changes {
    parts: [Part; 3],
    /// Names that have a value in the second part, and in the third.
    recorded: BTreeSet<String>,
    saved: BTreeSet<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum PartKind {
    Erase,
    #[default]
    Record,
    Save,
}

/// A batch for one file, and the jobs that are done with it.
#[derive(Debug, Default)]
struct Part {
    kind: PartKind,
    ids: Vec<JobId>,
    batch: Batch,
    is_begun: bool,
}

impl Changes {
    /// Takes in a job; gives it back if it has to wait for the next changes: there is no room, what it erases is saved in these, or it
    /// is a second record of the same name, and something was saved between the two.
    pub(super) fn push(&mut self, id: JobId, job: Job) -> Result<(), Job> {
        let [erase, record, save] = &mut self.parts;
        (erase.kind, save.kind) = (PartKind::Erase, PartKind::Save);
        let len = erase.batch.len() + record.batch.len() + save.batch.len();
        if len >= BATCH_LEN_MAX {
            return Err(job);
        }
        let (part, name, value) = match job {
            Job::Record { name, value } if !self.saved.is_empty() && self.recorded.contains(&name) => {
                return Err(Job::Record { name, value });
            }
            Job::Record { name, value } => {
                self.recorded.insert(name.clone());
                (record, name, value.map(Rope::from))
            }
            Job::Save { name, bytes } => {
                let name = key(&name).to_owned();
                self.saved.insert(name.clone());
                (save, name, Some(bytes))
            }
            Job::Erase { name } if erase.ids.len() >= ERASED_MAX || self.saved.contains(key(&name)) => {
                return Err(Job::Erase { name });
            }
            Job::Erase { name } => (erase, key(&name).to_owned(), None),
            other => return Err(other),
        };
        part.batch.push(name, value);
        part.ids.push(id);
        Ok(())
    }

    /// The jobs that are not done.
    pub(super) fn into_ids(self) -> impl Iterator<Item = JobId> {
        self.parts.into_iter().flat_map(|part| part.ids)
    }
}

/// The pack's name for a file of the state directory.
///
/// # Panics
/// If it is not below the state directory.
fn key(name: &Path) -> &str {
    let is_below = name.components().all(|component| matches!(component, Component::Normal(_)));
    assert!(is_below, "{} is not below the state directory", name.display());
    name.to_str().expect("the engine's names are ASCII")
}

/// The contents of a metainfo file, if they describe `info_hash`.
fn read_meta(path: &Path, info_hash: InfoHash) -> io::Result<Vec<u8>> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let bytes = read_bounded(path)?;
    let described = if bytes.starts_with(b"magnet:") {
        let link = std::str::from_utf8(&bytes).map_err(|error| invalid(error.to_string()))?;
        Magnet::parse(link).map_err(|error| invalid(error.to_string()))?.info_hash
    } else {
        Some(Metainfo::parse(&bytes).map_err(|error| invalid(error.to_string()))?.info_hash)
    };
    match described {
        Some(other) if other != info_hash => Err(invalid(format!("it describes {other}"))),
        // A link by another key does not say.
        _ => Ok(bytes),
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = private::options().read(true).open(path)?;
    let metadata = file.metadata()?;
    let len = metadata.len();
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    if len > META_LEN_MAX {
        let message = format!("it has {len} bytes; {META_LEN_MAX} are the limit");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(META_LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
