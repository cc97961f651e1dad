//! The journal of the state directory: one file to whose end everything is written that is to survive, and that is written anew without
//! what is out of date once that is more than what is not.
//!
//! An entry counts when it is synced; entries that come together are written and synced together, so that ten thousand torrents that are
//! paused cost a few syncs. After a crash the torn end is cut off; damage in the middle (a disk's fault) costs the entries it touches, and
//! is told. Nothing is ever written over: neither an entry, nor the journal itself, which a newer one replaces whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::base::storage::Fault;
use crate::codec::journal::{self, HEAD};
use crate::storage::{errno_of, fault, writeback};

/// The name of the file.
const NAME: &str = "journal";
/// What it is called while it is written anew; what a crash leaves of it is nothing.
const NEW_NAME: &str = "journal.new";
/// So many bytes out of date are always borne; beyond, as many as are not.
const STALE_MIN: u64 = 4 << 20;
/// Bytes that are copied in one slice.
const COPY_LEN: usize = 256 << 10;

/// The newest entry of each name, as the journal had them when it was opened.
#[derive(Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    values: BTreeMap<String, Range<usize>>,
}

impl Records {
    /// What is said of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values.get(name).map(|range| &self.bytes[range.clone()])
    }

    /// All names that begin with `prefix`, in order, and what is said of them.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let from = self.values.range(prefix.to_owned()..);
        from.take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, range)| (name.as_str(), &self.bytes[range.clone()]))
    }
}

/// The open journal. Invariant: what lies before `end` is synced, and `live` says where in it the newest entry of each name is.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    file: File,
    end: u64,
    /// Something of a failed write may lie behind `end`; it is cut off before anything else is written there.
    is_torn: bool,
    /// The directory may still name another file than this one.
    is_nameless: bool,
    /// Writing it anew failed; it is tried again when it has grown to this.
    compact_from: u64,
    live: BTreeMap<String, Range<u64>>,
    live_bytes: u64,
}

/// Entries on their way to the disk.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Their names, and where they lie in `bytes`; false if the entry takes its name out.
    entries: Vec<(String, Range<usize>, bool)>,
    is_written: bool,
}

impl Batch {
    pub(super) fn push(&mut self, name: String, value: Option<&[u8]>) {
        let from = self.bytes.len();
        journal::write(&mut self.bytes, &name, value);
        self.entries.push((name, from..self.bytes.len(), value.is_some()));
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Journal {
    /// Opens the journal of the state directory `dir`, or begins one.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Records)> {
        // What is half written is worth nothing; that there is none is the rule.
        drop(std::fs::remove_file(dir.join(NEW_NAME)));
        let path = dir.join(NAME);
        // Not through a link, and not into a pipe that somebody put there.
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(&path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is no file", path.display())));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if bytes.len() < HEAD.len() && HEAD.starts_with(&bytes) {
            file.write_all_at(HEAD, 0)?;
            file.sync_data()?;
            bytes = HEAD.to_vec();
        }
        // Whether it was just made, or took an older one's place right before a crash.
        File::open(dir)?.sync_all()?;
        if !bytes.starts_with(HEAD) {
            let message = format!("{} is no journal of this version; move it away to begin anew", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let (records, live, end) = read(bytes, &path);
        let live_bytes = live.values().map(|range| range.end - range.start).sum();
        file.set_len(end)?;
        Ok((
            Self {
                dir: dir.to_owned(),
                file,
                end,
                is_torn: false,
                is_nameless: false,
                compact_from: 0,
                live,
                live_bytes,
            },
            records,
        ))
    }

    /// One step towards the disk; true once all of `batch` is there. After a fault nothing of it is.
    pub(super) fn append(&mut self, batch: &mut Batch) -> Result<bool, Fault> {
        let result = self.try_append(batch);
        if result.is_err() {
            self.is_torn = true;
        }
        let done = result.map_err(|error| self.told(&error))?;
        if done {
            for (name, range, has_value) in std::mem::take(&mut batch.entries) {
                let range = self.end + range.start as u64..self.end + range.end as u64;
                self.place(name, has_value.then_some(range));
            }
            self.end += batch.bytes.len() as u64;
        }
        Ok(done)
    }

    fn try_append(&mut self, batch: &mut Batch) -> io::Result<bool> {
        if batch.is_written {
            self.file.sync_data()?;
            self.take_name()?;
            return Ok(true);
        }
        if self.is_torn {
            self.file.set_len(self.end)?;
            self.is_torn = false;
        }
        self.file.write_all_at(&batch.bytes, self.end)?;
        writeback::begin(self.file.as_fd());
        batch.is_written = true;
        Ok(false)
    }

    /// Has the directory say that this is the journal.
    fn take_name(&mut self) -> io::Result<()> {
        if self.is_nameless {
            File::open(&self.dir)?.sync_all()?;
            self.is_nameless = false;
        }
        Ok(())
    }

    fn place(&mut self, name: String, range: Option<Range<u64>>) {
        let len = |range: &Range<u64>| range.end - range.start;
        self.live_bytes += range.as_ref().map_or(0, len);
        let before = match range {
            Some(range) => self.live.insert(name, range),
            None => self.live.remove(&name),
        };
        self.live_bytes -= before.as_ref().map_or(0, len);
    }

    /// More is out of date than is not.
    pub(super) fn is_stale(&self) -> bool {
        self.end - self.live_bytes > self.live_bytes.max(STALE_MIN) && self.end >= self.compact_from
    }

    fn told(&self, error: &io::Error) -> Fault {
        fault(errno_of(error), &self.dir.join(NAME), "written")
    }
}

/// Finds the newest entry of each name, and where the last whole one ends.
fn read(bytes: Vec<u8>, path: &Path) -> (Records, BTreeMap<String, Range<u64>>, u64) {
    let (mut values, mut live) = (BTreeMap::new(), BTreeMap::new());
    let mut at = HEAD.len();
    while at < bytes.len() {
        let Some(entry) = journal::parse(&bytes[at..]) else {
            let Some(next) = journal::find(&bytes, at + 1) else {
                log::warn!("{}: the last {} bytes were never finished; cut off", path.display(), bytes.len() - at);
                break;
            };
            let lost = next - at;
            log::error!("{}: {lost} bytes are damaged; what they said is not known any more", path.display());
            at = next;
            continue;
        };
        let end = at + entry.len;
        if let Some(value) = entry.value {
            values.insert(entry.name.to_owned(), end - value.len()..end);
            live.insert(entry.name.to_owned(), at as u64..end as u64);
        } else {
            values.remove(entry.name);
            live.remove(entry.name);
        }
        at = end;
    }
    (Records { bytes, values }, live, at as u64)
}

/// The journal being written anew, with nothing but the newest entry of each name. A step is one call that may wait for the disk.
/// Nothing is appended meanwhile.
#[derive(Debug, Default)]
pub(super) struct Compaction {
    stage: Stage,
    file: Option<File>,
    live: BTreeMap<String, Range<u64>>,
    end: u64,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Begin,
    /// What is still to be copied, the last one first.
    Copy(Vec<(String, Range<u64>)>),
    Sync,
    Rename,
    SyncDir,
}

impl Compaction {
    /// One step; true once the new journal has taken the old one's place. After a fault the old one goes on.
    pub(super) fn step(&mut self, journal: &mut Journal) -> Result<bool, Fault> {
        let result = self.try_step(journal);
        if result.is_err() {
            // Whether it can be removed or not, it is in nobody's way.
            drop(std::fs::remove_file(journal.dir.join(NEW_NAME)));
            journal.compact_from = journal.end + STALE_MIN;
        }
        result.map_err(|error| journal.told(&error))
    }

    fn try_step(&mut self, journal: &mut Journal) -> io::Result<bool> {
        let path = journal.dir.join(NEW_NAME);
        let file = self.file.as_ref();
        let file = || file.expect("it was made in the first step");
        match &mut self.stage {
            Stage::Begin => {
                let flags = OFlags::NOFOLLOW.bits().cast_signed();
                let mut options = File::options();
                let new = options.read(true).write(true).create_new(true).custom_flags(flags).open(&path)?;
                new.write_all_at(HEAD, 0)?;
                (self.file, self.end) = (Some(new), HEAD.len() as u64);
                // In the order they lie in, which is how they are read best.
                let mut left: Vec<_> = journal.live.iter().map(|(name, range)| (name.clone(), range.clone())).collect();
                left.sort_unstable_by_key(|(_, range)| std::cmp::Reverse(range.start));
                self.stage = Stage::Copy(left);
            }
            Stage::Copy(left) => {
                let mut bytes = Vec::with_capacity(COPY_LEN);
                while let Some((name, range)) = left.pop_if(|_| bytes.len() < COPY_LEN) {
                    let from = bytes.len();
                    bytes.resize(from + usize::try_from(range.end - range.start).map_err(io::Error::other)?, 0);
                    journal.file.read_exact_at(&mut bytes[from..], range.start)?;
                    self.live.insert(name, self.end + from as u64..self.end + bytes.len() as u64);
                }
                let is_last = left.is_empty();
                file().write_all_at(&bytes, self.end)?;
                writeback::begin(file().as_fd());
                self.end += bytes.len() as u64;
                if is_last {
                    self.stage = Stage::Sync;
                }
            }
            Stage::Sync => {
                file().sync_all()?;
                self.stage = Stage::Rename;
            }
            Stage::Rename => {
                std::fs::rename(&path, journal.dir.join(NAME))?;
                // From here on this is the journal. The next entry counts when the directory says so, too.
                journal.file = self.file.take().expect("it was made in the first step");
                journal.live = std::mem::take(&mut self.live);
                (journal.end, journal.is_torn, journal.is_nameless) = (self.end, false, true);
                self.stage = Stage::SyncDir;
            }
            Stage::SyncDir => {
                journal.take_name()?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(journal: &mut Journal, entries: &[(&str, Option<&[u8]>)]) {
        let mut batch = Batch::default();
        entries.iter().for_each(|(name, value)| batch.push((*name).to_owned(), *value));
        while !journal.append(&mut batch).unwrap() {}
    }

    fn all(records: &Records) -> Vec<(String, Vec<u8>)> {
        records.with_prefix("").map(|(name, value)| (name.to_owned(), value.to_vec())).collect()
    }

    #[test]
    fn the_last_word_counts_before_and_after_it_is_written_anew() {
        let temp = tempfile::tempdir().unwrap();
        let (mut journal, records) = Journal::open(temp.path()).unwrap();
        assert!(all(&records).is_empty());
        say(&mut journal, &[("a", Some(b"1")), ("b", Some(b"2")), ("a", Some(b"3"))]);
        say(&mut journal, &[("b", None), ("c", Some(b""))]);
        let expected = [("a".to_owned(), b"3".to_vec()), ("c".to_owned(), vec![])];
        drop(journal);
        let (mut journal, records) = Journal::open(temp.path()).unwrap();
        assert_eq!(all(&records), expected);
        assert!(!journal.is_stale());
        let before = journal.end;
        let mut compaction = Compaction::default();
        while !compaction.step(&mut journal).unwrap() {}
        assert!(journal.end < before);
        say(&mut journal, &[("d", Some(b"4"))]);
        drop(journal);
        let (journal, records) = Journal::open(temp.path()).unwrap();
        assert_eq!(all(&records), [&expected[..], &[("d".to_owned(), b"4".to_vec())]].concat());
        assert_eq!(journal.live_bytes, journal.end - HEAD.len() as u64);
    }

    #[test]
    fn it_is_stale_when_more_is_out_of_date_than_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(temp.path()).unwrap();
        let large = vec![7; 3 << 20];
        for _ in 0..2 {
            say(&mut journal, &[("a", Some(&large))]);
            assert!(!journal.is_stale());
        }
        say(&mut journal, &[("a", Some(&large))]);
        assert!(journal.is_stale());
    }

    #[test]
    fn cut_anywhere_it_holds_what_was_whole_and_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(temp.path()).unwrap();
        let mut ends = vec![journal.end];
        for value in [b"1", b"2", b"3"] {
            say(&mut journal, &[("a", Some(value))]);
            ends.push(journal.end);
        }
        let path = temp.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let (mut journal, records) = Journal::open(temp.path()).unwrap();
            let count = ends.iter().filter(|&&end| end <= len as u64).count().max(1);
            assert_eq!(records.get("a"), [None, Some(&b"1"[..]), Some(b"2"), Some(b"3")][count - 1], "cut at {len}");
            say(&mut journal, &[("b", Some(b"after"))]);
            let (_, records) = Journal::open(temp.path()).unwrap();
            assert_eq!(records.get("b"), Some(&b"after"[..]), "cut at {len}");
        }
    }

    #[test]
    fn damage_in_the_middle_costs_no_other_entry() {
        let temp = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(temp.path()).unwrap();
        say(&mut journal, &[("a", Some(b"1")), ("b", Some(b"2"))]);
        let path = temp.path().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEAD.len() + 15] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let (_, records) = Journal::open(temp.path()).unwrap();
        assert_eq!(all(&records), [("b".to_owned(), b"2".to_vec())]);
    }

    #[test]
    fn what_is_no_journal_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(NAME), "something of the user's").unwrap();
        assert!(Journal::open(temp.path()).unwrap_err().to_string().contains("move it away"));
        assert_eq!(std::fs::read(temp.path().join(NAME)).unwrap(), b"something of the user's");
    }

    #[test]
    fn after_a_full_disk_nothing_half_written_is_read() {
        let temp = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(temp.path()).unwrap();
        say(&mut journal, &[("a", Some(b"1"))]);
        // A disk without room, as far as this file is concerned.
        let path = temp.path().join(NAME);
        let writable = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        let mut batch = Batch::default();
        batch.push("a".to_owned(), Some(b"2"));
        assert!(journal.append(&mut batch).is_err());
        // Half of it was written all the same, and an entry behind it that nobody was told of.
        let mut late = b"half".to_vec();
        journal::write(&mut late, "a", Some(b"never said"));
        writable.write_all_at(&late, journal.end).unwrap();
        journal.file = writable;
        say(&mut journal, &[("b", Some(b"3"))]);
        let (_, records) = Journal::open(temp.path()).unwrap();
        assert_eq!((records.get("a"), records.get("b")), (Some(&b"1"[..]), Some(&b"3"[..])));
    }
}
