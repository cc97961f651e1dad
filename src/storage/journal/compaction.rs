//! Rewriting a file without its outdated entries, in slices between which appends go on.
//!
//! First the entries that were current at the beginning are copied, then those that were appended meanwhile. When few of them are left, the last
//! slice copies these, syncs and renames; everything else has been written back by then, so no call takes long.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::base::storage::Fault;
use crate::codec::journal::{self, HEAD_LEN, HEADER_LEN_MAX, Header, Key, ValueCheck};
use crate::storage::journal::open::keep;
use crate::storage::journal::{GROW_LEN, Journal, STALE_MIN, Step, begin_new};
use crate::storage::writeback::Patience;
use crate::storage::{errno_of, fault, writeback};

/// Bytes that are copied in one slice, about.
const COPY_LEN: usize = 256 << 10;
/// Bytes that the last slice may have to copy and sync, at most.
const LAST_LEN_MAX: u64 = 64 << 10;

/// A file being rewritten. A step is one call that may wait for the disk. After a fault the old file goes on.
#[derive(Debug, Default)]
pub(in crate::storage) enum Compaction {
    #[default]
    Begin,
    /// Entries are copied.
    Copy(Box<Copy>),
    /// The kernel writes what was copied.
    Write(Box<Copy>),
    /// The new file has the name; the directory is to be synced.
    SyncDir,
}

/// The new file, and what is still to be copied.
#[derive(Debug)]
pub(in crate::storage) struct Copy {
    file: File,
    path: PathBuf,
    key: Key,
    end: u64,
    allocated: u64,
    live: BTreeMap<String, Range<u64>>,
    /// Where the entries lie that were current at the beginning and were not copied yet, the first one last.
    left: Vec<Range<u64>>,
    /// How many of those that were appended meanwhile were copied.
    caught_up: usize,
    /// An entry of which some was copied.
    entry: Option<Entry>,
    patience: Patience,
}

/// An entry on its way.
#[derive(Debug)]
struct Entry {
    name: String,
    value_len: usize,
    value_check: u64,
    /// Where it lies in the old file, and the first byte that was not copied yet.
    from: Range<u64>,
    next: u64,
    /// Where it will lie in the new file.
    to: u64,
    old_check: ValueCheck,
    new_check: ValueCheck,
}

impl Compaction {
    /// One step; [`Step::Done`] once the new file has taken the old one's place.
    pub(in crate::storage) fn step(&mut self, journal: &mut Journal) -> Result<Step, Fault> {
        let result = self.try_step(journal);
        if result.is_err() {
            journal.since = None;
            // Whether it can be removed or not, it is in nobody's way.
            drop(std::fs::remove_file(journal.dir.join(format!("{}.new", journal.name))));
            journal.compact_from = journal.end + STALE_MIN;
        }
        result.map_err(|error| fault(errno_of(&error), &journal.path(), "rewritten"))
    }

    fn try_step(&mut self, journal: &mut Journal) -> io::Result<Step> {
        let (next, step) = match std::mem::take(self) {
            Self::Begin => {
                let (file, key, path) = begin_new(&journal.dir, journal.name)?;
                let mut left: Vec<_> = journal.live.values().cloned().collect();
                left.sort_unstable_by_key(|range| std::cmp::Reverse(range.start));
                journal.since = Some(Vec::new());
                let copy = Copy {
                    file,
                    path,
                    key,
                    end: HEAD_LEN,
                    allocated: HEAD_LEN,
                    live: BTreeMap::new(),
                    left,
                    caught_up: 0,
                    entry: None,
                    patience: Patience::default(),
                };
                (Self::Copy(Box::new(copy)), Step::More)
            }
            Self::Copy(mut copy) => {
                let is_all = copy.slice(journal, COPY_LEN)?;
                if is_all {
                    copy.allocate()?;
                }
                writeback::begin(copy.file.as_fd());
                (if is_all { Self::Write(copy) } else { Self::Copy(copy) }, Step::More)
            }
            Self::Write(mut copy) => {
                if copy.behind(journal) > LAST_LEN_MAX {
                    (Self::Copy(copy), Step::More)
                } else if journal.is_in_flight || copy.patience.waits(copy.file.as_fd(), LAST_LEN_MAX) {
                    (Self::Write(copy), Step::Later)
                } else {
                    while !copy.slice(journal, COPY_LEN)? {}
                    copy.file.sync_all()?;
                    std::fs::rename(&copy.path, journal.path())?;
                    copy.replace(journal);
                    (Self::SyncDir, Step::More)
                }
            }
            Self::SyncDir => {
                journal.take_name()?;
                (Self::SyncDir, Step::Done)
            }
        };
        *self = next;
        Ok(step)
    }
}

impl Copy {
    /// Cuts off what is left of an entry that does not count, and reserves free space.
    fn allocate(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.allocated = (self.end + LAST_LEN_MAX).next_multiple_of(GROW_LEN);
        let zeros = vec![0; usize::try_from(self.allocated - self.end).map_err(io::Error::other)?];
        self.file.write_all_at(&zeros, self.end)
    }

    /// Has the new file, which has the old one's name by now, take its place.
    fn replace(self, journal: &mut Journal) {
        journal.file = self.file;
        journal.key = self.key;
        journal.end = self.end;
        journal.allocated = self.allocated.max(self.end);
        journal.live_bytes = self.live.values().map(|range| range.end - range.start).sum();
        journal.live = self.live;
        journal.since = None;
        // The next entry counts when the directory names this file.
        (journal.is_torn, journal.is_nameless) = (false, true);
    }

    /// Bytes that were appended meanwhile and not copied yet.
    fn behind(&self, journal: &Journal) -> u64 {
        let since = journal.since.as_deref().unwrap_or_default();
        let ranges = since[self.caught_up..].iter().filter_map(|(_, range)| range.as_ref());
        ranges.map(|range| range.end - range.start).sum()
    }

    /// Copies about `len` bytes; true once nothing is left.
    fn slice(&mut self, journal: &Journal, len: usize) -> io::Result<bool> {
        // What is to be written at `start`.
        let (mut out, start) = (Vec::with_capacity(len), self.end);
        let is_all = loop {
            if out.len() >= len {
                break false;
            }
            if self.entry.is_none() && !self.next_entry(journal, &mut out)? {
                break true;
            }
            if self.entry.is_some() {
                self.copy_some(journal, &mut out, start, len)?;
            }
            if self.end < start {
                break false;
            }
        };
        self.file.write_all_at(&out, start)?;
        Ok(is_all)
    }

    /// Begins with the next entry that counts; false if there is none. An entry that removes a name is copied at once.
    fn next_entry(&mut self, journal: &Journal, out: &mut Vec<u8>) -> io::Result<bool> {
        let range = loop {
            if let Some(range) = self.left.pop() {
                break range;
            }
            let since = journal.since.as_deref().unwrap_or_default();
            let Some((name, range)) = since.get(self.caught_up) else { return Ok(false) };
            self.caught_up += 1;
            match range {
                Some(range) => break range.clone(),
                None if self.live.remove(name).is_some() => {
                    let from = out.len();
                    journal::write(out, &self.key, self.end, name, None);
                    self.end += (out.len() - from) as u64;
                    return Ok(true);
                }
                None => {}
            }
        };
        let mut header =
            vec![0; HEADER_LEN_MAX.min(usize::try_from(range.end - range.start).map_err(io::Error::other)?)];
        journal.file.read_exact_at(&mut header, range.start)?;
        let Some(header) = journal::parse_header(&journal.key, range.start, &header) else {
            let name = journal.live.iter().find(|(_, other)| **other == range).map(|(name, _)| name.clone());
            // One that was replaced meanwhile is missed by nobody.
            name.into_iter().for_each(|name| report(journal, &name, &range));
            return Ok(true);
        };
        if journal.live.get(header.name) != Some(&range) {
            return Ok(true);
        }
        // The header is written once the value's check in the new file is known.
        out.resize(out.len() + header.header_len(), 0);
        self.entry = Some(Entry {
            name: header.name.to_owned(),
            value_len: header.value_len.unwrap_or(0),
            value_check: header.value_check,
            next: range.start + header.header_len() as u64,
            from: range,
            to: self.end,
            old_check: ValueCheck::new(&journal.key),
            new_check: ValueCheck::new(&self.key),
        });
        Ok(true)
    }

    /// Copies some of the entry's value to `out`, which begins at `start` of the new file, and its header once all of it was.
    fn copy_some(&mut self, journal: &Journal, out: &mut Vec<u8>, start: u64, len: usize) -> io::Result<()> {
        let Some(entry) = &mut self.entry else { return Ok(()) };
        let from = out.len();
        let some = usize::try_from(entry.from.end - entry.next).map_err(io::Error::other)?.min(len);
        out.resize(from + some, 0);
        journal.file.read_exact_at(&mut out[from..], entry.next)?;
        entry.old_check.write(&out[from..]);
        entry.new_check.write(&out[from..]);
        entry.next += some as u64;
        if entry.next < entry.from.end {
            self.end = start + out.len() as u64;
            return Ok(());
        }
        let entry = self.entry.take().expect("it was just there");
        let is_intact = entry.old_check.finish() == entry.value_check;
        if !is_intact || journal.live.get(&entry.name) != Some(&entry.from) {
            if !is_intact {
                report(journal, &entry.name, &entry.from);
            }
            // The next entry takes its place, in the next slice if an earlier one has written some of this one.
            out.truncate(usize::try_from(entry.to.saturating_sub(start)).map_err(io::Error::other)?);
            self.end = entry.to;
            return Ok(());
        }
        self.end = start + out.len() as u64;
        let mut bytes = Vec::new();
        let (value_len, value_check) = (Some(entry.value_len), entry.new_check.finish());
        Header { name: &entry.name, value_len, value_check }.write(&mut bytes, &self.key, entry.to);
        match usize::try_from(entry.to.wrapping_sub(start)).ok().filter(|_| entry.to >= start) {
            Some(at) => out[at..at + bytes.len()].copy_from_slice(&bytes),
            None => self.file.write_all_at(&bytes, entry.to)?,
        }
        self.live.insert(entry.name, entry.to..self.end);
        Ok(())
    }
}

/// Reports a current entry that turned out to be damaged, and keeps what is left of it.
fn report(journal: &Journal, name: &str, range: &Range<u64>) {
    let where_to = keep(&journal.dir, journal.name, &journal.file, range);
    let (path, len) = (journal.path(), range.end - range.start);
    log::error!("{}: the entry of {name:?}, {len} bytes, is damaged and lost; {where_to}", path.display());
}
