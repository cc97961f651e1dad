//! What survives: which pieces are known to be on the disk, and the record that says so.
//!
//! A piece is recorded only after a sync that began when it was already verified (so nothing false is ever claimed, not
//! even after a power cut); the blocks of pieces in progress are recorded as they are, because their piece is hashed
//! before it counts. A second after something changed a sync begins, then the record is saved; one of each at a time.

use std::path::Path;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Piece;
use crate::base::sabotage::{self, Sabotage};
use crate::base::storage::{Fault, Stamp};
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

/// How far saving is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Idle,
    Syncing,
    Saving,
}

/// What is on the disk for certain, and what must still be said.
#[derive(Debug)]
pub(crate) struct Persistence {
    stage: Stage,
    /// When to save next; never if nothing changed.
    due: Time,
    /// Pieces were written since the last sync began.
    unsynced: bool,
    /// `have` as it was when the sync under way began.
    syncing: Option<Bitfield>,
    /// `have` as it was at the last good sync; none if it equals `have`.
    durable: Option<Bitfield>,
    /// Whole files have room.
    pub(crate) allocated: bool,
    /// What describes it could not be saved.
    metainfo_unsaved: bool,
    /// The next record is the last one of this run.
    closing: bool,
    /// The last record of this run is saved.
    closed: bool,
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            stage: Stage::Idle,
            due: Time::NEVER,
            unsynced: false,
            syncing: None,
            durable: None,
            allocated: false,
            metainfo_unsaved: false,
            closing: false,
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
        if self.stage == Stage::Idle { self.due } else { Time::NEVER }
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
        self.persistence.durable = Some(Bitfield::new(self.have.len()));
    }

    pub(crate) fn persist(&mut self) {
        if self.persistence.stage != Stage::Idle {
            return;
        }
        self.persistence.due = Time::NEVER;
        if self.is_peek() {
            return;
        }
        if std::mem::take(&mut self.persistence.unsynced) {
            self.persistence.stage = Stage::Syncing;
            self.persistence.syncing = Some(self.have.clone());
            self.asks.push_back(Ask::Sync);
        } else {
            self.save();
        }
    }

    fn save(&mut self) {
        self.persistence.stage = Stage::Saving;
        self.note_saving_move();
        self.note_saving_rename();
        self.asks.push_back(Ask::Save);
    }

    /// What was written before the sync began is on the disk, or the disk lost it.
    pub fn handle_synced(&mut self, now: Time, result: Result<(), Fault>) {
        let synced = self.persistence.syncing.take();
        self.persistence.stage = Stage::Idle;
        match result {
            Ok(()) => {
                self.persistence.durable = synced.filter(|synced| *synced != self.have);
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
        self.persistence.stage = Stage::Idle;
        if !saved {
            self.persistence.due = self.persistence.due.min(now + SAVE_AGAIN);
            self.persistence.closed |= self.persistence.closing;
        } else if self.persistence.closing && self.persistence.due.is_never() {
            self.persistence.closed = true;
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
    pub fn take_metainfo_unsaved(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.persistence.metainfo_unsaved).then(|| self.metainfo_bytes())
    }

    /// Nothing is to be saved or being saved.
    pub(crate) fn is_at_rest(&self) -> bool {
        let Persistence { stage, due, unsynced, metainfo_unsaved, .. } = &self.persistence;
        *stage == Stage::Idle && due.is_never() && !unsynced && !metainfo_unsaved && self.is_stamped()
    }

    /// Stops everything and saves for the last time.
    pub fn shut_down(&mut self, now: Time) {
        self.queued = true;
        self.reconsider(now);
        self.persistence.closing = true;
        self.persistence.due = now;
        self.persist();
    }

    /// Nothing is left to save in this run.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.persistence.closed || self.is_peek()
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
        let have = durable.unwrap_or(&self.have);
        Record {
            info_hash: self.info_hash(),
            head: (!self.is_link()).then(|| self.head.clone()),
            trackers: self.announces.urls(),
            have: have.clone(),
            partials: partials.into_iter().map(|(piece, blocks)| PartialPiece { piece, blocks }).collect(),
            stamps: self.stamps(),
            priorities: self.layout.priorities().iter().map(|&priority| priority as u8).collect(),
            dir: self.dir.clone(),
            label: self.settings.label.clone(),
            added: self.added,
            finished: self.finished,
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
            clean: self.claim.map_or(self.persistence.closing, |claim| claim.exact),
            queue: self.rank,
            super_seed: self.settings.super_seed,
            checking: self.check.is_some() || self.recheck,
            move_to: self.relocation.recorded_to().map(Path::to_owned),
            move_from: self.relocation.recorded_from().map(Path::to_owned),
            names: self.renaming.names.clone(),
            next_names: self.renaming.next.clone(),
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
        self.restore_move(record.move_to.clone(), record.move_from.clone());
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
