//! The torrent's files as others see them: room for them, trouble with them, how they looked when we last wrote to them, whether
//! they are still there.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use crate::base::geometry::{Piece, Span};
use crate::base::ids::{ConnId, StoreId};
use crate::base::storage::{Fault, FaultKind, Stamp};
use crate::base::time::Time;
use crate::torrent::torrent::{Ask, FAULT_RETRY, LOOK, Phase, Torrent};

/// Files that one look looks at; more are looked at in turns.
const LOOK_FILES_MAX: usize = 256;
/// How soon the next of a torrent's files are looked at.
const LOOK_NEXT: Duration = Duration::from_secs(1);

/// What is known of the files.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// By file, as it looked after our last write to it. Saved for the next run, which finds out what others did meanwhile.
    stamps: Vec<Stamp>,
    /// Files that were written since; all of them while `stamps` is empty.
    doubtful: BTreeSet<usize>,
    /// Where the next look begins.
    look_from: usize,
}

impl Disk {
    /// Everything may look different now.
    pub(crate) fn doubt_all(&mut self) {
        self.stamps.clear();
        self.doubtful.clear();
    }
}

impl Torrent {
    /// Something was, or will be, written to `span`.
    pub(crate) fn doubt(&mut self, span: Span) {
        self.disk.doubtful.extend(self.body.get().files.parts(span).map(|(file, _, _)| file));
    }

    /// Up to `most` of the files whose stamps must be taken anew before [`Torrent::record`].
    pub fn doubtful_files(&mut self, most: usize) -> Vec<usize> {
        if self.disk.stamps.is_empty() {
            let count = self.file_count();
            self.disk.stamps.resize(count, Stamp::default());
            self.disk.doubtful.extend(0..count);
        }
        self.disk.doubtful.iter().copied().take(most).collect()
    }

    /// A file looks like this; no file like nothing.
    pub fn note_stamp(&mut self, file: usize, stamp: Option<Stamp>) {
        let count = self.file_count();
        self.disk.stamps.resize(count, Stamp::default());
        self.disk.stamps[file] = stamp.unwrap_or_default();
        self.disk.doubtful.remove(&file);
    }

    /// Its files looked so when an earlier run wrote to them last.
    pub(crate) fn stamped(&mut self, stamps: &[Stamp]) {
        self.disk.stamps = stamps.to_vec();
    }

    /// How every file looks is known.
    pub(crate) fn is_stamped(&self) -> bool {
        self.disk.doubtful.is_empty()
            && self.disk.stamps.len() == self.head.files
            && !self.relocation.is_under_way()
            && self.renaming.next.is_none()
    }

    /// Whether one of its files may have one of these inode numbers: one that was not looked at since it was written may.
    #[must_use]
    pub fn may_have_inode(&self, inodes: &BTreeSet<u64>) -> bool {
        !self.is_asleep() && !self.is_stamped() || self.disk.stamps.iter().any(|stamp| inodes.contains(&stamp.inode))
    }

    /// How its files looked after our last write to them, or when they were described.
    #[must_use]
    pub fn stamps(&self) -> Vec<Stamp> {
        self.disk.stamps.clone()
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

    /// The files are still there, or somebody has taken one away.
    pub fn handle_looked(&mut self, now: Time, result: Result<(), Fault>) {
        if let Err(fault) = result
            && self.running
        {
            self.fail(now, fault);
        }
    }

    /// How long the file at index `file` must be to hold what we have of it, bytes.
    #[must_use]
    pub fn held_until(&self, file: usize) -> u64 {
        let Some(span) = self.file_span(file) else { return 0 };
        let held = self.geometry().pieces_of(span).rev().find(|&piece| self.have.get(piece));
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
    /// served on.
    pub fn fail(&mut self, now: Time, fault: Fault) {
        log::warn!("{}: {fault}", self.display_name());
        let is_full = fault.kind == FaultKind::Full && self.check.is_none();
        self.recheck |= !is_full;
        self.fault = Some(fault);
        self.retry_at = now + FAULT_RETRY;
        self.check = None;
        if is_full {
            self.pause_download(now);
        } else if !self.relocation.holds_writes() {
            self.asks.push_back(Ask::Reopen);
        }
        self.turn_changed = true;
        self.reconsider(now);
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
            self.consider_interest(now, conn);
        }
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

    /// The files are as they should be, or still are not.
    pub fn handle_probed(&mut self, now: Time, result: Result<(), Fault>) {
        if self.fault.take().is_none() {
            return;
        }
        match result {
            Err(fault) => {
                self.recheck |= fault.kind != FaultKind::Full;
                self.fault = Some(fault);
                self.retry_at = now + FAULT_RETRY;
            }
            Ok(()) => {
                log::info!("{}: goes on", self.display_name());
                self.retry_at = Time::NEVER;
                self.turn_changed = true;
                if std::mem::take(&mut self.recheck) {
                    self.verify(now);
                } else {
                    self.resume_download(now);
                    self.reconsider(now);
                }
            }
        }
    }
}
