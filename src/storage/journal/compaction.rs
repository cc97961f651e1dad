//! Rewrites a file without its outdated entries, in slices between which appends continue.
//!
//! The entries that were current at the start are copied first, then those that were appended since. When few of them
//! are left, the last slice copies these, syncs the file and renames it; all other data has been written back by then,
//! so no call takes long.

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
use crate::storage::journal::{GROW_LEN, Journal, STALE_MIN, Step, begin_new, reserve};
use crate::storage::writeback::Patience;
use crate::storage::{errno_of, fault, writeback};

/// The approximate number of bytes that one slice copies.
const COPY_LEN: usize = 256 << 10;
/// The maximum number of bytes that the last slice may have to copy and sync.
const LAST_LEN_MAX: u64 = 64 << 10;

/// The state of a file that is being rewritten. A step is one call that may wait for the disk. After a fault the old
/// file stays in use.
#[derive(Debug, Default)]
pub(in crate::storage) enum Compaction {
    #[default]
    Begin,
    /// Entries are being copied.
    Copy(Box<Copy>),
    /// The kernel is writing the copied bytes to the disk.
    Write(Box<Copy>),
    /// The new file has its final name; the directory is to be synced.
    SyncDir,
}

/// The new file, and the entries that are still to be copied.
#[derive(Debug)]
pub(in crate::storage) struct Copy {
    file: File,
    path: PathBuf,
    key: Key,
    end: u64,
    allocated: u64,
    live: BTreeMap<String, Range<u64>>,
    /// The ranges of the entries that were current at the start and were not copied yet, in reverse order.
    left: Vec<Range<u64>>,
    /// The number of entries appended since the start that were copied.
    caught_up: usize,
    /// The entry of which a part was copied.
    entry: Option<Entry>,
    patience: Patience,
}

/// An entry that is being copied.
#[derive(Debug)]
struct Entry {
    name: String,
    value_len: usize,
    value_check: u64,
    /// The range of the entry in the old file.
    from: Range<u64>,
    /// The offset of the first byte in the old file that was not copied yet.
    next: u64,
    /// The offset of the entry in the new file.
    to: u64,
    old_check: ValueCheck,
    new_check: ValueCheck,
}

impl Compaction {
    /// Carries out one step. Returns [`Step::Done`] once the new file has replaced the old one.
    pub(in crate::storage) fn step(&mut self, journal: &mut Journal) -> Result<Step, Fault> {
        let result = self.try_step(journal);
        if result.is_err() {
            journal.since = None;
            // If the file cannot be removed, it does no harm.
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
    /// Cuts off the rest of an entry that was discarded, and reserves free space.
    fn allocate(&mut self) -> io::Result<()> {
        self.file.set_len(self.end)?;
        self.allocated = reserve(&self.file, self.end, (self.end + LAST_LEN_MAX).next_multiple_of(GROW_LEN));
        Ok(())
    }

    /// Makes the new file, which has the old one's name by now, replace the old one in `journal`.
    fn replace(self, journal: &mut Journal) {
        journal.file = self.file;
        journal.key = self.key;
        journal.end = self.end;
        journal.allocated = self.allocated.max(self.end);
        journal.live_bytes = self.live.values().map(|range| range.end - range.start).sum();
        journal.live = self.live;
        journal.since = None;
        // The next entry is durable only when the directory names this file.
        (journal.is_torn, journal.is_nameless) = (false, true);
    }

    /// Returns the number of bytes that were appended since the start and not copied yet.
    fn behind(&self, journal: &Journal) -> u64 {
        let since = journal.since.as_deref().unwrap_or_default();
        let ranges = since[self.caught_up..].iter().filter_map(|(_, range)| range.as_ref());
        ranges.map(|range| range.end - range.start).sum()
    }

    /// Copies about `len` bytes. Returns true once nothing is left to copy.
    fn slice(&mut self, journal: &Journal, len: usize) -> io::Result<bool> {
        // `out` holds the bytes that are to be written at `start`.
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

    /// Begins to copy the next current entry. Returns false if none is left. An entry that removes a name is copied at
    /// once.
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
            // An entry that was replaced since the start is not needed and not reported.
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

    /// Copies a part of the entry's value to `out`, which begins at offset `start` of the new file, and the entry's
    /// header once all of the value was copied.
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
        let entry = self.entry.take().expect("entry was present above");
        let is_intact = entry.old_check.finish() == entry.value_check;
        if !is_intact || journal.live.get(&entry.name) != Some(&entry.from) {
            if !is_intact {
                report(journal, &entry.name, &entry.from);
            }
            // The next entry overwrites this one: in the next slice if an earlier slice has written a part of it.
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

/// Reports a current entry that was found to be damaged, and keeps the rest of it.
fn report(journal: &Journal, name: &str, range: &Range<u64>) {
    let where_to = keep(&journal.dir, journal.name, &journal.file, range);
    let (path, len) = (journal.path(), range.end - range.start);
    log::error!("{}: the entry of {name:?}, {len} bytes, is damaged and lost; {where_to}", path.display());
}
