//! What survives: which pieces are known to be on the disk, and the record that says so.
//!
//! A piece is recorded only after a sync that began when it was already verified (so nothing false is ever claimed, not
//! even after a power cut); the blocks of pieces in progress are recorded as they are, because their piece is hashed
//! before it counts. A second after something changed a sync begins, then the record is saved; one of each at a time.

use std::path::Path;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::bytes::Rope;
use crate::base::geometry::Piece;
use crate::base::sabotage::{self, Sabotage};
use crate::base::storage::{Fault, FaultKind, Stamp};
use crate::base::time::Time;
use crate::codec::resume::{PartialPiece, Record};
use crate::torrent::path_conflict::PathConflict;
use crate::torrent::settings::PEERS_MAX;
use crate::torrent::snapshot::Priority;
use crate::torrent::torrent::{Ask, Torrent};

/// How long a change waits to be saved, so that many are saved at once.
const SAVE_DELAY: Duration = Duration::from_millis(500);

/// How soon what could not be saved is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(10);

/// The same while the node shuts down.
const SAVE_AGAIN_CLOSING: Duration = Duration::from_secs(1);

/// Attempts to save the last record of a run. After that the shutdown goes on without it, and says so.
const CLOSING_TRIES_MAX: u32 = 4;

/// What is on the disk for certain, and what must still be said.
#[derive(Debug)]
pub(crate) struct Persistence {
    /// Whether a record is on its way to the disk. There is one at a time.
    saving: bool,
    /// When to save next; never if nothing changed.
    due: Time,
    /// Pieces were written since the last sync began.
    unsynced: bool,
    /// `have` as it was when the sync under way began; `None` if there is none. Records may be saved meanwhile.
    syncing: Option<Bitfield>,
    /// `have` as it was at the last good sync; none if it equals `have`.
    durable: Option<Bitfield>,
    /// Whether what a check found is not secured by a sync yet: a record that says nothing of it says that it was being checked.
    is_check_unsynced: bool,
    /// Whether the sync under way secures all that the last check found.
    is_securing_check: bool,
    /// Whole files have room.
    pub(crate) allocated: bool,
    /// What describes it could not be saved.
    metainfo_unsaved: bool,
    /// The next record is the last one of this run.
    closing: bool,
    /// Attempts to save the last record that have failed.
    closing_failures: u32,
    /// The last record of this run is saved, or given up.
    closed: bool,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            saving: false,
            due: Time::NEVER,
            unsynced: false,
            syncing: None,
            durable: None,
            is_check_unsynced: false,
            is_securing_check: false,
            allocated: false,
            metainfo_unsaved: false,
            closing: false,
            closing_failures: 0,
            closed: false,
        }
    }
}

impl Persistence {
    /// Something that the record holds has changed.
    pub(crate) fn touch(&mut self, now: Time) {
        self.due = self.due.min(now + SAVE_DELAY);
    }

    /// The same, and it is to be saved at once.
    pub(crate) const fn hurry(&mut self, now: Time) {
        self.due = now;
    }

    /// The next record is the last one of this run.
    pub(crate) const fn is_closing(&self) -> bool {
        self.closing
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        if self.is_busy() { Time::NEVER } else { self.due }
    }

    /// Whether a sync or a record is on its way to the disk.
    const fn is_busy(&self) -> bool {
        self.saving || self.syncing.is_some()
    }

    /// Whether nothing has changed since the last record was taken.
    fn is_unchanged(&self) -> bool {
        self.due.is_never() && !self.unsynced && self.syncing.is_none()
    }
}

/// A ratio in thousandths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float is cut to what fits")]
fn millis(ratio: f64) -> u64 {
    (ratio * 1000.0) as u64
}

impl Torrent {
    /// Content was written, or is about to count: `have` may not be claimed beyond what it is now, until the next sync.
    pub(crate) fn content_changed(&mut self, now: Time) {
        self.persistence.unsynced = true;
        if self.persistence.durable.is_none() {
            self.persistence.durable = Some(self.have.clone());
        }
        self.persistence.touch(now);
    }

    /// Nothing is claimed until it was hashed, and synced after that: what a cache shows may not be on the disk.
    pub(crate) fn claim_nothing(&mut self) {
        self.persistence.unsynced = true;
        self.persistence.is_check_unsynced = true;
        self.persistence.is_securing_check = false;
        self.persistence.durable = Some(Bitfield::new(self.have.len()));
        // Nor is what a sync that is under way makes durable: it may be hashed for a reason.
        self.persistence.syncing.iter_mut().for_each(Bitfield::clear_all);
    }

    /// All but one of the pieces are on the disk for certain.
    #[cfg(test)]
    pub(crate) fn make_all_durable_but(&mut self, piece: u32) {
        let mut durable = self.have.clone();
        durable.clear(piece);
        self.persistence.durable = Some(durable);
    }

    /// Pieces that are certain to be on the disk.
    pub(crate) fn durable(&self) -> Bitfield {
        self.persistence.durable.as_ref().unwrap_or(&self.have).clone()
    }

    /// Pieces that were verified and may not have come to the disk are not claimed any more; which they are.
    pub(crate) fn forget_unsynced(&mut self) -> Vec<u32> {
        let Some(durable) = self.persistence.durable.take() else { return Vec::new() };
        let unsynced: Vec<u32> = self.have.ones().filter(|&piece| !durable.get(piece)).collect();
        for &piece in &unsynced {
            self.have.clear(piece);
            self.persistence.syncing.iter_mut().for_each(|syncing| _ = syncing.clear(piece));
        }
        unsynced
    }

    pub(crate) fn persist(&mut self) {
        if self.persistence.is_busy() {
            return;
        }
        self.persistence.due = Time::NEVER;
        if self.is_peek() {
            return;
        }
        if std::mem::take(&mut self.persistence.unsynced) {
            self.persistence.syncing = Some(self.have.clone());
            self.persistence.is_securing_check = self.check.is_none();
            self.asks.push_back(Ask::Sync);
        } else {
            self.save();
        }
    }

    fn save(&mut self) {
        if self.begin_save() {
            self.asks.push_back(Ask::Save);
        } else {
            self.persistence.due = Time::ZERO; // right after the one that is under way
        }
    }

    /// Begins to save a record of what is so now, without a sync of the content: the record claims no more of that than the last
    /// sync has secured. False if another record is on its way; the caller tries again when that one is saved.
    #[must_use]
    pub fn begin_save(&mut self) -> bool {
        if std::mem::replace(&mut self.persistence.saving, true) {
            return false;
        }
        if !self.persistence.unsynced && self.persistence.syncing.is_none() {
            self.persistence.due = Time::NEVER;
        }
        self.note_saving_move();
        self.note_saving_rename();
        true
    }

    /// Whether something may have changed that no record on the disk says.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        !self.is_peek() && (self.persistence.saving || !self.persistence.is_unchanged())
    }

    /// What was written before the sync began is on the disk, or the disk lost it.
    pub fn handle_synced(&mut self, now: Time, result: Result<(), Fault>) {
        let synced = self.persistence.syncing.take();
        self.handle_finished_files(result.is_ok());
        match result {
            Ok(()) => {
                self.persistence.is_check_unsynced &= !self.persistence.is_securing_check;
                self.persistence.durable = synced.filter(|synced| *synced != self.have);
                self.save();
            }
            Err(fault) if fault.kind == FaultKind::Gone => {
                self.fail(now, fault);
                self.save();
            }
            Err(fault) => {
                // What was written since the last good sync may be lost, whatever the cache still shows.
                if let Some(durable) = self.persistence.durable.take() {
                    self.have = durable;
                }
                self.finished = None;
                self.fail(now, fault);
                self.save();
            }
        }
    }

    /// The record is saved, or will be tried again.
    pub fn handle_saved(&mut self, now: Time, saved: bool) {
        self.persistence.saving = false;
        let Persistence { closing, .. } = self.persistence;
        if !saved {
            self.persistence.closing_failures += u32::from(closing);
            self.persistence.closed |= self.persistence.closing_failures >= CLOSING_TRIES_MAX;
            let again = if closing { SAVE_AGAIN_CLOSING } else { SAVE_AGAIN };
            self.persistence.due = self.persistence.due.min(now + again);
        } else if closing && self.persistence.is_unchanged() {
            self.persistence.closed = true;
            self.persistence.closing_failures = 0;
        }
        self.handle_move_recorded(now, saved);
        self.handle_rename_recorded(saved);
    }

    /// What describes it could not be saved: it will be tried again.
    pub fn handle_metainfo_unsaved(&mut self, now: Time) {
        self.persistence.metainfo_unsaved = true;
        if !self.persistence.closing {
            self.persistence.due = self.persistence.due.min(now + SAVE_AGAIN);
        }
    }

    /// The bytes that describe it, where they are still to be saved.
    pub fn take_metainfo_unsaved(&mut self) -> Option<Rope> {
        std::mem::take(&mut self.persistence.metainfo_unsaved).then(|| self.metainfo_bytes())
    }

    /// Nothing is to be saved or being saved.
    pub(crate) fn is_at_rest(&self) -> bool {
        let Persistence { saving, metainfo_unsaved, .. } = &self.persistence;
        !saving && self.persistence.is_unchanged() && !metainfo_unsaved && self.is_stamped()
    }

    /// Stops everything and saves for the last time.
    pub fn shut_down(&mut self, now: Time) {
        self.queued = true;
        self.reconsider(now);
        self.persistence.closing = true;
        self.persistence.due = now;
        self.persist();
    }

    /// Whether the shutdown has to wait for nothing of this torrent any more: its last record is saved, or was given up.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.persistence.closed || self.is_peek()
    }

    /// Whether the last record of this run, and what describes the torrent, are on the disk.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        let Persistence { closed, closing_failures, metainfo_unsaved, .. } = self.persistence;
        self.is_peek() || (closed && closing_failures == 0 && !metainfo_unsaved)
    }

    /// Everything that the next run must know. The stamps of [`Torrent::doubtful_files`] were noted.
    #[must_use]
    pub fn record(&self, now: Time) -> Vec<u8> {
        self.describe_state(now).to_bytes()
    }

    /// The record that says that it goes, with its content.
    #[must_use]
    pub fn last_record(&self, now: Time) -> Vec<u8> {
        Record { removing: true, ..self.describe_state(now) }.to_bytes()
    }

    fn describe_state(&self, now: Time) -> Record {
        let partials = match &self.download {
            Some(download) => download.partials.stored_blocks(),
            None => self.restored.clone(),
        };
        let durable = self.persistence.durable.as_ref().filter(|_| !sabotage::is_broken(Sabotage::UnsyncedRecord));
        let mut have = durable.unwrap_or(&self.have).clone();
        if let Some(expected) = &self.expected {
            // It begins with a check, which nothing is served before, and knows by this which files are missing.
            have.add_all(expected);
        } else if self.persistence.is_check_unsynced && self.check.is_none() {
            // The same holds of what a check has found and no sync has secured yet.
            have.add_all(&self.have);
        }
        Record {
            info_hash: self.info_hash(),
            head: (!self.is_link()).then(|| self.head.clone()),
            trackers: self.announces.urls(),
            have,
            partials: partials.into_iter().map(|(piece, blocks)| PartialPiece { piece, blocks }).collect(),
            stamps: self.packed_stamps(),
            priorities: self.layout.priorities().iter().map(|&priority| priority as u8).collect(),
            dir: self.dir.clone(),
            label: self.settings.label.clone(),
            added: self.added,
            finished: self.finished,
            told_finished: self.told_finished,
            written: self.written_files(),
            downloaded: self.downloaded(),
            uploaded: self.uploaded(),
            paused: self.paused,
            shared: self.settings.shared,
            sequential: self.settings.sequential,
            down_limit: self.settings.down_limit,
            up_limit: self.settings.up_limit,
            max_peers: self.settings.max_peers.map(|count| count as u64),
            ratio_millis: self.settings.ratio.map(millis),
            seed_time: self.settings.seed_time.map(|time| time.as_secs()),
            idle_time: self.settings.idle_time.map(|time| time.as_secs()),
            explicit: true,
            seeded: Some(self.seeded(now).as_secs()),
            seeded_enough: self.settings.seeded_enough,
            idle_enough: self.settings.idle_enough,
            seeds_on: self.settings.seeds_on,
            allocated: self.persistence.allocated,
            // Of files that nobody has looked at in this run it stays true what was.
            clean: self.claim.map_or(self.persistence.closing, |claim| self.is_claim_exact(claim)),
            queue: self.rank,
            super_seed: self.settings.super_seed,
            checking: self.check.is_some()
                || self.recheck
                || self.persistence.is_check_unsynced
                || self.relocation.is_check_due(),
            move_to: self.relocation.recorded_to().map(Path::to_owned),
            move_from: self.relocation.recorded_from().map(Path::to_owned),
            names: self.renaming.names.clone(),
            next_names: self.renaming.next.clone(),
            move_wanted: self.relocation.wanted_to().map(Path::to_owned),
            move_undo: self.relocation.is_undone(),
            remove_after: self.removal,
            removing: false,
            second: self.path_conflict.recorded(),
        }
    }

    /// Takes over what an earlier run recorded. Called before the content is opened.
    pub fn restore(&mut self, now: Time, record: &Record) {
        let priority = |byte: u8| match byte {
            0 => Priority::Off,
            1 => Priority::Low,
            3 => Priority::High,
            _ => Priority::Normal,
        };
        if !record.priorities.is_empty() {
            let priorities = record.priorities.iter().enumerate().take(self.head.files);
            self.layout.set_priorities(priorities.map(|(file, &byte)| (file, priority(byte))));
        }
        self.have = record.have.clone();
        self.restored = record.partials.iter().map(|partial| (partial.piece, partial.blocks.clone())).collect();
        self.finished = record.finished;
        // A version that did not record it told of each torrent that it had seen complete.
        self.told_finished = record.told_finished || record.finished.is_some();
        self.restore_written(&record.written);
        self.rank = record.queue;
        self.downloaded_before = record.downloaded;
        self.uploaded_before = record.uploaded;
        self.paused = record.paused;
        self.persistence.allocated = record.allocated;
        self.path_conflict = PathConflict::restored(record.second);
        self.settings.label.clone_from(&record.label);
        self.settings.shared = record.shared;
        self.settings.sequential = record.sequential;
        self.settings.ratio = record.ratio_millis.map(|millis| millis as f64 / 1000.0);
        self.settings.seed_time = record.seed_time.map(Duration::from_secs);
        self.settings.idle_time = record.idle_time.map(Duration::from_secs);
        self.settings.seeded_enough = record.seeded_enough;
        self.settings.idle_enough = record.idle_enough;
        self.settings.seeds_on = record.seeds_on;
        self.settings.super_seed = record.super_seed;
        self.settings.max_peers =
            record.max_peers.map(|count| usize::try_from(count).unwrap_or(usize::MAX).clamp(1, PEERS_MAX));
        (self.settings.down_limit, self.settings.up_limit) = (record.down_limit, record.up_limit);
        // Of one that was paused before the time was counted it is what was asked for.
        let seeded = record.seeded.or(record.seed_time.filter(|_| record.seeded_enough));
        self.seeded_before = Duration::from_secs(seeded.unwrap_or(0));
        if !record.explicit {
            self.forget_copies();
        }
        self.apply_max_peers(now);
        self.renaming.next.clone_from(&record.next_names);
        if self.is_asleep() || self.is_link() {
            self.renaming.names.clone_from(&record.names);
        } else {
            self.take_names(record.names.clone());
        }
        self.removal = record.remove_after;
        self.restore_move(record);
        self.find_policy(now);
    }

    /// What an older version kept as the user's may be what it had copied from the config: what is the same there now counts as not
    /// set, and so does no limit. An upgrade changes nothing that way until the config does.
    fn forget_copies(&mut self) {
        let settings = &mut self.settings;
        settings.ratio = settings.ratio.filter(|ratio| millis(*ratio) != millis(self.defaults.ratio));
        settings.seed_time = settings.seed_time.filter(|time| *time != self.defaults.seed_time);
        settings.max_peers = settings.max_peers.filter(|count| *count != self.default_peers);
        settings.down_limit = settings.down_limit.filter(|rate| *rate > 0);
        settings.up_limit = settings.up_limit.filter(|rate| *rate > 0);
    }

    /// All of its content was just read and hashed; its files looked like `stamps` before and after.
    pub fn claim_all(&mut self, now: Time, stamps: &[Option<Stamp>]) {
        self.have = Bitfield::full(self.geometry().pieces());
        self.claim_nothing();
        self.finished = Some(self.epoch_secs + now.as_secs());
        self.told_finished = true;
        stamps.iter().enumerate().for_each(|(file, stamp)| self.note_stamp(file, *stamp));
        self.content_changed(now);
        self.apply_policy(now);
        self.turn_changed = true;
    }

    /// How many files there are, pad files among them.
    #[must_use]
    pub fn file_count(&self) -> usize {
        self.head.files
    }

    /// A piece's place in the content.
    #[must_use]
    pub fn piece_span(&self, piece: Piece) -> crate::base::geometry::Span {
        self.geometry().span_of(piece)
    }

    /// A wanted piece that is missing.
    #[must_use]
    pub fn first_missing(&self) -> Option<Piece> {
        self.all_pieces().map(Piece).find(|&piece| self.layout.is_wanted(piece) && !self.have.get(piece.0))
    }
}
