//! The torrent's files as others see them: room for them, trouble with them, how they looked when we last wrote to them, whether
//! they are still there, and their move to another directory.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::geometry::{Piece, Span};
use crate::base::ids::StoreId;
use crate::base::storage::{Fault, FaultKind, Stamp};
use crate::base::time::Time;
use crate::torrent::command::{Refusal, RefusalKind};
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
    /// The content is being moved; nothing reads or writes it.
    pub(crate) moving: bool,
    /// The user asked for a check meanwhile.
    check_after_move: bool,
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
        self.disk.doubtful.is_empty() && self.disk.stamps.len() == self.head.files && !self.disk.moving
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

    /// Stops, because the content is about to be moved.
    ///
    /// # Errors
    /// Something else is being done with it.
    pub fn begin_move(&mut self, now: Time) -> Result<(), Refusal> {
        let busy = |message| Err(Refusal::new(RefusalKind::Busy, message));
        if self.disk.moving {
            return busy("its content is being moved; wait until `show` says where it is");
        }
        if self.check.is_some() {
            return busy("its content is being hashed; move it when that is done");
        }
        if self.phase == Phase::Allocating {
            return busy("room is being made for it; move it when that is done");
        }
        self.disk.moving = true;
        self.turn_changed = true;
        self.reconsider(now);
        Ok(())
    }

    /// The content is elsewhere now, or still where it was.
    pub fn handle_moved(&mut self, now: Time, dir: PathBuf, result: Result<(), Fault>) {
        self.disk.moving = false;
        self.disk.doubt_all();
        self.turn_changed = true;
        if result.is_ok() {
            self.dir = dir;
        }
        self.persistence.touch(now);
        if self.fault.is_some() {
            self.retry_at = now;
        }
        if std::mem::take(&mut self.disk.check_after_move) {
            self.verify(now);
        }
        self.reconsider(now);
    }

    /// A check has to wait for a move: true if one is under way.
    pub(crate) fn postpone_check(&mut self) -> bool {
        self.disk.check_after_move |= self.disk.moving;
        self.disk.moving
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
                if self.running && self.download.is_none() && !self.is_finished() {
                    self.go_on(now);
                }
                self.reconsider(now);
            }
            Err(fault) => self.fail(now, fault),
        }
    }

    /// The disk's fault: this torrent stops, and looks again every while.
    pub fn fail(&mut self, now: Time, fault: Fault) {
        log::warn!("{}: {fault}", self.display_name());
        self.recheck |= fault.kind != FaultKind::Full || self.check.is_some();
        self.fault = Some(fault);
        self.retry_at = now + FAULT_RETRY;
        self.check = None;
        self.asks.push_back(Ask::Reopen);
        self.turn_changed = true;
        self.reconsider(now);
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
                    self.reconsider(now);
                }
            }
        }
    }
}
