//! The torrent's files as others see them: room for them, trouble with them, how they looked when we last wrote to them, whether
//! they are still there.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::files::FileEntry;
use crate::base::geometry::{BLOCK_LEN, Piece, Span};
use crate::base::ids::{ConnId, StoreId};
use crate::base::steps;
use crate::base::storage::{Fault, FaultKind, Stamp};
use crate::base::time::Time;
use crate::codec::stamps::PackedStamps;
use crate::torrent::sleep::Claim;
use crate::torrent::snapshot::Priority;
use crate::torrent::torrent::{Ask, FAULT_RETRY, LOOK, Phase, Torrent};

/// Files that one look looks at; more are looked at in turns.
const LOOK_FILES_MAX: usize = 256;
/// How soon the next of a torrent's files are looked at.
const LOOK_NEXT: Duration = Duration::from_secs(1);
/// Pieces that were verified and not synced when their files went missing, and that are read back one by one when those are there again;
/// beyond it everything is hashed again.
const UNSYNCED_MAX: usize = 1024;

/// What is known of the files.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// By file, as it looked after our last write to it. Saved for the next run, which finds out what others did meanwhile.
    stamps: Vec<Stamp>,
    /// Files that were written since, or were not looked at yet.
    doubtful: Doubtful,
    /// Where the next look begins.
    look_from: usize,
    /// The file that was missing when it was looked last.
    missing: Option<usize>,
    /// A look at all files that is under way.
    examination: Option<Examination>,
    /// Files that this torrent has written to and that were not given their length since they were complete. Saved for the next run.
    written: BTreeSet<usize>,
    /// Those of them that the sync under way gives theirs.
    finishing: Vec<usize>,
    /// Files of no bytes were made, or are being made, since everything wanted is here.
    empty_made: bool,
}

/// Files whose stamps are to be taken.
#[derive(Debug, Default)]
struct Doubtful {
    /// This file and all after it were not looked at yet.
    from: usize,
    /// Of those before it the ones that were written since.
    written: BTreeSet<usize>,
}

impl Doubtful {
    fn contains(&self, file: usize) -> bool {
        file >= self.from || self.written.contains(&file)
    }

    /// Whether none of `count` files is doubtful.
    fn is_empty(&self, count: usize) -> bool {
        self.written.is_empty() && self.from >= count
    }

    fn insert(&mut self, file: usize) {
        if file < self.from {
            self.written.insert(file);
        }
    }

    /// The stamp of a file was taken.
    fn remove(&mut self, file: usize) {
        if file == self.from {
            self.from += 1;
        } else {
            self.written.remove(&file);
        }
    }
}

/// A look at all files, a slice at a time.
#[derive(Debug, Default)]
struct Examination {
    /// How files look, as far as they were looked at; those that are not there like nothing.
    stamps: Vec<Stamp>,
    /// One of them was changed by others.
    is_changed: bool,
}

/// How a file looks beside what is claimed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileLook {
    /// As it was left.
    Same,
    /// Others have changed it.
    Other,
    /// It holds verified pieces, and is not there or too short for them.
    Missing,
}

/// What a look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are as they were left.
    Same,
    /// Nothing is missing, and others have changed something.
    Changed,
    /// The file at this index is missing or cannot be read, and why.
    Missing(usize, Fault),
}

impl Disk {
    /// Everything may look different now.
    pub(crate) fn doubt_all(&mut self) {
        self.stamps = Vec::new();
        self.doubtful = Doubtful::default();
    }
}

impl Torrent {
    /// Something was, or will be, written to `span`.
    pub(crate) fn doubt(&mut self, span: Span) {
        let meta = self.body.0.as_ref().expect("whoever needs its body wakes it first");
        for (file, _, _) in meta.files.parts(span) {
            self.disk.doubtful.insert(file);
        }
    }

    /// Up to `most` of the files whose stamps must be taken anew before [`Torrent::record`].
    pub fn doubtful_files(&mut self, most: usize) -> Vec<usize> {
        if self.claim.is_some() {
            return Vec::new(); // what is claimed of missing files stays as it was
        }
        let doubtful = &self.disk.doubtful;
        doubtful.written.iter().copied().chain(doubtful.from..self.file_count()).take(most).collect()
    }

    /// A file looks like this; no file like nothing.
    pub fn note_stamp(&mut self, file: usize, stamp: Option<Stamp>) {
        if self.disk.stamps.len() <= file {
            self.disk.stamps.resize(file + 1, Stamp::default());
        }
        self.disk.stamps[file] = stamp.unwrap_or_default();
        self.disk.doubtful.remove(file);
    }

    /// Its files looked so when an earlier run wrote to them last.
    pub(crate) fn stamped(&mut self, stamps: &PackedStamps) {
        self.disk.stamps = stamps.unpack();
        self.disk.doubtful = Doubtful { from: stamps.len(), written: BTreeSet::new() };
    }

    /// How every file looks is known.
    pub(crate) fn is_stamped(&self) -> bool {
        self.disk.doubtful.is_empty(self.head.files)
            && self.disk.stamps.len() == self.head.files
            && !self.relocation.is_under_way()
            && self.renaming.next.is_none()
    }

    /// Whether one of its files may have one of these inode numbers: one that was not looked at since it was written may.
    #[must_use]
    pub fn may_have_inode(&self, inodes: &BTreeSet<u64>) -> bool {
        !self.is_asleep() && !self.is_stamped() || self.disk.stamps.iter().any(|stamp| inodes.contains(&stamp.inode))
    }

    /// How its files looked after our last write to them, or when they were described: of all files, or of none.
    #[must_use]
    pub fn stamps(&self) -> Vec<Stamp> {
        let mut stamps = self.disk.stamps.clone();
        if !stamps.is_empty() {
            stamps.resize(self.head.files, Stamp::default());
        }
        stamps
    }

    /// [`Torrent::stamps`], packed.
    pub(crate) fn packed_stamps(&self) -> PackedStamps {
        let stamps = &self.disk.stamps;
        let count = if stamps.is_empty() { 0 } else { self.head.files };
        steps::add(count / 4);
        stamps.iter().copied().chain(std::iter::repeat(Stamp::default())).take(count).collect()
    }

    /// How a file looked after our last write to it; like nothing if it was not looked at.
    #[must_use]
    pub fn stamp_of(&self, file: usize) -> Stamp {
        self.disk.stamps.get(file).copied().unwrap_or_default()
    }

    /// The files to look at now.
    pub fn next_look(&mut self, now: Time) -> Range<usize> {
        let count = self.file_count();
        let from = self.disk.look_from.min(count);
        let to = count.min(from + LOOK_FILES_MAX);
        let is_round = to == count;
        self.disk.look_from = if is_round { 0 } else { to };
        if !self.look_at.is_never() {
            self.look_at = now + if is_round { LOOK } else { LOOK_NEXT };
        }
        from..to
    }

    /// What a look found. A file that is missing stops the torrent; files that others changed are hashed again.
    pub fn handle_looked(&mut self, now: Time, verdict: Verdict) {
        match verdict {
            Verdict::Missing(file, fault) if self.running => {
                self.disk.missing = Some(file);
                self.stop_for(now, fault, true);
            }
            Verdict::Changed if self.running => {
                log::warn!("{}: its files are not as they were left; they are hashed again", self.display_name());
                self.recheck(now);
            }
            _ => {}
        }
    }

    /// How long the file at index `file` must be to hold what was verified of it, bytes; what was verified before a recheck that is not
    /// over counts.
    #[must_use]
    pub fn held_until(&self, file: usize) -> u64 {
        let Some(span) = self.file_span(file).filter(|_| !self.file(file).pad) else { return 0 };
        let is_held = |piece| self.have.get(piece) || self.expected.as_ref().is_some_and(|have| have.get(piece));
        let held = self.geometry().pieces_of(span).rev().find(|&piece| is_held(piece));
        held.map_or(0, |piece| self.piece_span(Piece(piece)).end().min(span.end()) - span.offset)
    }

    /// Begins to make room for all that is wanted, where that is to be done first; true if so.
    pub(crate) fn make_room(&mut self) -> bool {
        let is_due = self.allocate_full && !self.persistence.allocated;
        if is_due {
            self.phase = Phase::Allocating;
            self.asks.push_back(Ask::Allocate);
        }
        is_due
    }

    /// Everything wanted has room, or it has not.
    pub fn handle_allocated(&mut self, now: Time, result: Result<(), Fault>) {
        if self.phase == Phase::Allocating {
            self.phase = Phase::Ready;
        }
        match result {
            Ok(()) => {
                self.disk.doubt_all();
                self.persistence.allocated = true;
                self.resume_download(now);
                self.reconsider(now);
            }
            Err(fault) => self.fail(now, fault),
        }
    }

    /// The disk's fault: this torrent stops, and looks again every while. A full disk stops only what writes to it: what is here is
    /// served on. Of files that are missing, or cannot be got at, everything stays claimed as it was: they may be back as they were.
    pub fn fail(&mut self, now: Time, fault: Fault) {
        let is_away = fault.kind == FaultKind::Gone;
        self.stop_for(now, fault, is_away);
    }

    /// It stops for a fault; if so, that is that its files `are_away`.
    fn stop_for(&mut self, now: Time, fault: Fault, are_away: bool) {
        // A fault that lasts is logged once.
        if self.fault.as_ref() != Some(&fault) {
            log::warn!("{}: {fault}", self.display_name());
        }
        let is_checking = self.check.take().is_some();
        let is_full = fault.kind == FaultKind::Full && !is_checking;
        let is_away = are_away && !is_checking;
        self.fault = Some(fault);
        self.retry_at = now + FAULT_RETRY;
        self.disk.examination = None;
        let unsynced = if is_away { self.keep_claim() } else { Vec::new() };
        self.recheck |= !is_full && !is_away;
        if is_full {
            self.pause_download(now);
        } else if !self.relocation.holds_writes() && self.store.is_some() {
            self.asks.push_back(Ask::Reopen);
        }
        self.turn_changed = true;
        self.reconsider(now);
        self.restored.extend(unsynced);
        self.persistence.touch(now);
    }

    /// The files are missing: what is claimed of them is what was made durable, until they are looked at again. Returns the pieces that
    /// were verified and not yet synced, all of their blocks written: they are read back before they count.
    fn keep_claim(&mut self) -> Vec<(Piece, Bitfield)> {
        let is_exact = self.claim.is_none_or(|claim| claim.exact);
        if self.is_asleep() {
            return Vec::new();
        }
        let count = self.file_count();
        if self.disk.stamps.len() != count {
            self.disk.stamps.resize(count, Stamp::default());
        }
        self.claim = Some(Claim { exact: is_exact });
        let unsynced = self.forget_unsynced();
        if unsynced.len() > UNSYNCED_MAX || (self.settings.shared && !unsynced.is_empty()) {
            self.recheck = true;
            return Vec::new();
        }
        let whole = |piece: u32| {
            let piece = Piece(piece);
            (piece, Bitfield::full(self.geometry().len_of(piece).div_ceil(BLOCK_LEN)))
        };
        unsynced.into_iter().map(whole).collect()
    }

    /// What is claimed of the files looks as it did to whoever reads the record: nothing was written since the stamps were taken.
    pub(crate) fn is_claim_exact(&self, claim: Claim) -> bool {
        claim.exact && self.disk.doubtful.is_empty(self.head.files)
    }

    /// Compares a file with what is claimed of it. `stamp` is how it looks now.
    #[must_use]
    pub fn compare(&self, file: usize, stamp: Option<Stamp>, claim: Option<Claim>) -> FileLook {
        let needed = self.held_until(file);
        let is_long_enough = stamp.is_some_and(|stamp| stamp.len >= needed);
        if needed > 0 && !is_long_enough {
            return FileLook::Missing;
        }
        let was = self.disk.stamps.get(file).copied().unwrap_or_default();
        let is_same = match claim {
            None => true,
            // Nobody has touched the file since we last wrote to it.
            Some(claim) if claim.exact && !self.disk.doubtful.contains(file) => stamp.unwrap_or_default() == was,
            Some(_) => needed == 0 || stamp.is_some_and(|stamp| stamp.inode == was.inode),
        };
        if is_same { FileLook::Same } else { FileLook::Other }
    }

    /// Files that were missing, or could not be read, may be back: they are looked at in slices. True if a look is under way already.
    pub fn begin_examination(&mut self) -> bool {
        let is_under_way = self.disk.examination.is_some();
        self.disk.examination.get_or_insert_default();
        is_under_way
    }

    /// The files to examine next, and what is claimed of them; `None` if no examination is under way.
    #[must_use]
    pub fn next_examined(&self) -> Option<(Range<usize>, Option<Claim>)> {
        let next = self.disk.examination.as_ref()?.stamps.len();
        Some((next..self.file_count().min(next + LOOK_FILES_MAX), self.claim))
    }

    /// Takes note of how the next files look; true if those were the last.
    pub fn note_examined(&mut self, stamps: Vec<Option<Stamp>>, is_changed: bool) -> bool {
        let count = self.file_count();
        let Some(examination) = &mut self.disk.examination else { return true };
        examination.stamps.extend(stamps.into_iter().map(Option::unwrap_or_default));
        examination.is_changed |= is_changed;
        examination.stamps.len() >= count
    }

    /// The examination is over, and nothing is missing.
    pub fn end_examination(&mut self) -> Verdict {
        let Some(examination) = self.disk.examination.take() else { return Verdict::Same };
        if examination.is_changed {
            return Verdict::Changed;
        }
        self.disk.doubtful = Doubtful { from: examination.stamps.len(), written: BTreeSet::new() };
        self.disk.stamps = examination.stamps;
        Verdict::Same
    }

    /// The file that was missing when it was looked last: the first to look at again.
    #[must_use]
    pub fn missing_file(&self) -> Option<usize> {
        self.disk.missing
    }

    /// All files were looked at, at the start, when it woke, or after they were missing. `room` is whether there is room for more.
    pub fn handle_examined(&mut self, now: Time, verdict: Verdict, room: Result<(), Fault>) {
        self.disk.examination = None;
        match verdict {
            Verdict::Missing(file, fault) => {
                self.disk.missing = Some(file);
                self.stop_for(now, fault, true);
            }
            Verdict::Changed => {
                log::warn!("{}: its files are not as they were left; they are hashed again", self.display_name());
                self.forget_fault();
                self.recheck(now);
            }
            Verdict::Same => {
                self.claim = None;
                self.disk.missing = None;
                self.handle_probed(now, room);
            }
        }
    }

    /// What kind of trouble with the disk it has; `None` if none.
    #[must_use]
    pub fn fault_kind(&self) -> Option<FaultKind> {
        self.fault.as_ref().map(|fault| fault.kind)
    }

    /// What is missing is missing still.
    pub fn handle_still_missing(&mut self, now: Time) {
        self.retry_at = now + FAULT_RETRY;
    }

    /// The trouble is over, or does not matter any more.
    pub(crate) fn forget_fault(&mut self) {
        self.claim = None;
        self.disk.missing = None;
        self.disk.examination = None;
        if self.fault.take().is_some() {
            self.retry_at = Time::NEVER;
            self.turn_changed = true;
        }
    }

    /// Files of this torrent that hold verified pieces, by index (see [`crate::base::storage::Storage::set_held`]); empty if none do.
    #[must_use]
    pub fn held_files(&self) -> Vec<bool> {
        if self.is_asleep() || (self.have.count() == 0 && self.expected.is_none()) {
            return Vec::new();
        }
        let files = self.layout.files();
        steps::add(if self.have.is_full() { files.len() / 8 } else { files.len() });
        if self.have.is_full() {
            return files.entries().map(|entry| !entry.pad && entry.span.len > 0).collect();
        }
        (0..files.len()).map(|file| self.held_until(file) > 0).collect()
    }

    /// The files in which `span` lies.
    #[must_use]
    pub fn files_of(&self, span: Span) -> Vec<usize> {
        self.body.get().files.parts(span).map(|(file, _, _)| file).collect()
    }

    /// This torrent writes to the files of `span`: what they have beyond their length goes once they are complete. True if one of them is
    /// longer than it should be, as it looked last, and was not written to before: that should be on record before it is complete.
    pub(crate) fn note_written(&mut self, span: Span) -> bool {
        let mut is_longer = false;
        for file in self.files_of(span) {
            let len = self.disk.stamps.get(file).map_or(0, |stamp| stamp.len);
            is_longer |= self.disk.written.insert(file) && len > self.file(file).span.len;
        }
        is_longer
    }

    /// Files that this torrent has written to and that have not got their length yet, by index.
    pub(crate) fn written_files(&self) -> Vec<usize> {
        self.disk.written.iter().copied().collect()
    }

    /// An earlier run wrote to these files.
    pub(crate) fn restore_written(&mut self, files: &[usize]) {
        self.disk.written.extend(files.iter().filter(|&&file| file < self.head.files));
    }

    /// Complete files that are to get their length with the next sync, and those of no bytes that are to be made: see
    /// [`crate::base::storage::Job::Sync`]. What lies in a share directory is its owner's.
    pub fn files_to_finish(&mut self) -> Vec<usize> {
        if self.settings.shared || self.is_asleep() || self.is_link() || self.fault.is_some() {
            return Vec::new();
        }
        if !self.has_files_to_finish() || self.awaits_comparison() || !self.may_write() {
            return Vec::new();
        }
        let written = self.disk.written.iter().copied();
        let mut finish: Vec<usize> = written.filter(|&file| self.is_file_whole(file)).collect();
        self.disk.finishing.clone_from(&finish);
        if self.lacks_empty_files() {
            self.disk.empty_made = true;
            finish.extend(self.empty_files());
        }
        finish
    }

    fn has_files_to_finish(&self) -> bool {
        self.lacks_empty_files() || self.disk.written.iter().any(|&file| self.is_file_whole(file))
    }

    /// It may write now: files that could not be finished before are finished with the next sync.
    pub(crate) fn finish_files_later(&mut self, now: Time) {
        if !self.is_asleep() && !self.is_link() && self.has_files_to_finish() {
            self.content_changed(now);
        }
    }

    /// What was to be finished with a sync is finished.
    pub(crate) fn handle_finished_files(&mut self, is_done: bool) {
        for file in std::mem::take(&mut self.disk.finishing) {
            if is_done {
                self.disk.written.remove(&file);
                self.disk.doubtful.insert(file);
            }
        }
    }

    fn empty_files(&self) -> impl Iterator<Item = usize> {
        let files = self.layout.files();
        let entries = files.entries().enumerate().take(if files.has_empty() { files.len() } else { 0 });
        let is_empty = |file: usize, entry: &FileEntry<'_>| {
            !entry.pad && entry.span.len == 0 && self.layout.priority(file) != Priority::Off
        };
        entries.filter(move |(file, entry)| is_empty(*file, entry)).map(|(file, _)| file)
    }

    /// Everything wanted is here, and it was not yet made sure that files of no bytes are.
    pub(crate) fn lacks_empty_files(&self) -> bool {
        !self.disk.empty_made
            && !self.settings.shared
            && !self.is_second()
            && !self.is_asleep()
            && self.is_finished()
            && self.empty_files().next().is_some()
    }

    /// Files of no bytes are made with the next sync, if everything wanted is here and that was not done yet.
    pub(crate) fn make_empty_files(&mut self, now: Time) {
        if self.lacks_empty_files() {
            self.content_changed(now);
        }
    }

    /// It was made sure of files of no bytes for other files than are wanted now, or before somebody may have deleted them.
    pub(crate) fn forget_empty_files(&mut self) {
        self.disk.empty_made = false;
    }

    /// Complete files that are longer than they should be and are left so, with how many bytes they have too many, as they looked last.
    pub(crate) fn excesses(&self) -> impl Iterator<Item = (FileEntry<'_>, u64)> {
        let entries = self.layout.files().entries().enumerate().zip(&self.disk.stamps);
        entries.filter_map(|((file, entry), stamp)| {
            let excess = stamp.len.saturating_sub(entry.span.len);
            let is_left = !entry.pad && excess > 0 && self.is_file_whole(file) && !self.disk.written.contains(&file);
            is_left.then_some((entry, excess))
        })
    }

    /// The file at index `file` is complete, and this torrent has written to it: it is not to be longer than it should be.
    #[must_use]
    pub fn is_file_to_cut(&self, file: usize) -> bool {
        self.may_write() && self.disk.written.contains(&file) && self.is_file_whole(file)
    }

    /// True if everything of the file at index `file` is verified.
    fn is_file_whole(&self, file: usize) -> bool {
        let span = self.file_span(file);
        span.is_some_and(|span| self.have.is_full_in(self.geometry().pieces_of(span)))
    }

    /// A full disk keeps it from going on.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.kind == FaultKind::Full) && !self.recheck
    }

    /// True unless nothing may be written to the content for now.
    #[must_use]
    pub fn may_download(&self) -> bool {
        self.fault.is_none() && !self.relocation.holds_writes() && self.path_conflict.may_write()
    }

    /// It is running, and only gives: it has everything, or may write nothing for now.
    #[must_use]
    pub fn only_seeds(&self) -> bool {
        self.is_finished() || (self.description.is_none() && !self.may_download())
    }

    /// Nothing is to be written to the content: peers are asked for no more, and are served on.
    pub(crate) fn pause_download(&mut self, now: Time) {
        self.suspend_download();
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.machine.take_requests(now, true);
            }
        }
        self.reconsider_peers();
    }

    /// Something may be written again: what is missing is asked for.
    pub(crate) fn resume_download(&mut self, now: Time) {
        if self.running && self.download.is_none() && !self.is_finished() && self.description.is_none() {
            self.go_on(now);
        }
    }

    /// The storage has its content under another name.
    pub fn handle_reopened(&mut self, store: StoreId) {
        self.store = Some(store);
    }

    /// The files are as they should be, or there still is no room for more.
    pub fn handle_probed(&mut self, now: Time, result: Result<(), Fault>) {
        let Some(before) = self.fault.take() else { return };
        match result {
            Err(fault) => {
                if fault != before {
                    log::warn!("{}: {fault}", self.display_name());
                }
                let is_away = fault.kind == FaultKind::Gone;
                self.recheck |= fault.kind != FaultKind::Full && !is_away;
                self.fault = Some(fault);
                self.retry_at = now + FAULT_RETRY;
                if is_away {
                    let unsynced = self.keep_claim();
                    self.restored.extend(unsynced);
                }
            }
            Ok(()) => {
                log::info!("{}: goes on", self.display_name());
                self.retry_at = Time::NEVER;
                self.turn_changed = true;
                if std::mem::take(&mut self.recheck) {
                    self.recheck(now);
                } else {
                    self.resume_download(now);
                    self.reconsider(now);
                }
            }
        }
    }
}
