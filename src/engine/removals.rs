//! Torrents that go together with their content: first that is recorded, then the files are deleted, then the record goes.
//!
//! So whenever we end, the next run either has the whole torrent or finishes what was begun.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::hash::InfoHash;
use crate::base::ids::{JobId, StoreId};
use crate::base::storage::{Content, Fault, Job, Storage};
use crate::base::time::Time;
use crate::codec::metainfo::Metainfo;
use crate::codec::resume::Record;
use crate::engine::asks::{Purpose, metainfo_name, record_name};
use crate::engine::{Engine, Timer};
use crate::torrent::torrent::Torrent;

/// How soon what could not be recorded is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// One of them.
#[derive(Debug)]
struct Removal {
    store: StoreId,
    content: Content,
    /// The place of the content's directory.
    place: PathBuf,
    /// What is still to be recorded.
    record: Vec<u8>,
    /// When it is tried again.
    again_at: Time,
}

/// All of them. There are no more than there were torrents.
#[derive(Debug, Default)]
pub(super) struct Removals(BTreeMap<InfoHash, Removal>);

impl Removals {
    /// True while the content of a torrent is being deleted.
    pub(super) fn contains(&self, info_hash: InfoHash) -> bool {
        self.0.contains_key(&info_hash)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the contents being deleted that may have files at `root`, a file or directory, or below it, with the places
    /// of their directories.
    pub(super) fn near(&self, root: &Path) -> Vec<(PathBuf, Content)> {
        let is_near = |removal: &&Removal| {
            let top = removal.content.files.first().and_then(|entry| entry.path.components().next());
            let other = top.map_or_else(|| removal.place.clone(), |top| removal.place.join(top));
            root.starts_with(&other) || other.starts_with(root)
        };
        let near = self.0.values().filter(is_near);
        near.map(|removal| (removal.place.clone(), removal.content.clone())).collect()
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.0.values().map(|removal| removal.again_at).min().unwrap_or(Time::NEVER)
    }
}

impl<S: Storage> Engine<S> {
    /// A torrent that was just taken out goes with its content. The job that records that.
    pub(super) fn remove_content(&mut self, now: Time, torrent: &Torrent, store: StoreId) -> JobId {
        let info_hash = torrent.info_hash();
        let record = torrent.last_record(now);
        let content = torrent.content();
        let place = self.storage.place(&content.dir);
        let removal = Removal { store, content, place, record, again_at: Time::NEVER };
        self.removals.0.insert(info_hash, removal);
        self.record_removal(info_hash)
    }

    /// An earlier run has recorded that a torrent goes: it is done once all others are known.
    pub(super) fn restore_removal(&mut self, info_hash: InfoHash, meta: &Metainfo, record: &Record) {
        let files = record.names.apply(&meta.files);
        let content =
            Content { dir: record.dir.clone(), also: None, wanted: vec![true; files.len()], files, read_only: false };
        let store = self.storage.open(content.clone());
        let place = self.storage.place(&content.dir);
        let removal = Removal { store, content, place, record: Vec::new(), again_at: Time::NEVER };
        self.removals.0.insert(info_hash, removal);
    }

    /// Goes on with what earlier runs have recorded.
    pub(super) fn resume_removals(&mut self, now: Time) {
        let hashes: Vec<InfoHash> = self.removals.0.keys().copied().collect();
        hashes.into_iter().for_each(|info_hash| self.delete_content(now, info_hash));
    }

    fn record_removal(&mut self, info_hash: InfoHash) -> JobId {
        let removal = self.removals.0.get_mut(&info_hash).expect("removal is listed");
        removal.again_at = Time::NEVER;
        let bytes = removal.record.clone();
        self.start_job(Job::Record { name: record_name(info_hash), value: Some(bytes) }, Purpose::Removal(info_hash))
    }

    /// It is recorded, or will be tried again.
    pub(super) fn handle_removal_recorded(&mut self, now: Time, info_hash: InfoHash, result: &Result<(), Fault>) {
        if result.is_ok() {
            self.delete_content(now, info_hash);
        } else if let Some(removal) = self.removals.0.get_mut(&info_hash) {
            removal.again_at = now + AGAIN;
        }
    }

    /// It is time to try again.
    pub(super) fn handle_removals_timeout(&mut self, now: Time) {
        let due = self.removals.0.iter().filter(|(_, removal)| removal.again_at <= now);
        let due: Vec<InfoHash> = due.map(|(info_hash, _)| *info_hash).collect();
        for info_hash in due {
            self.record_removal(info_hash);
        }
        self.forget_again(now);
    }

    fn delete_content(&mut self, now: Time, info_hash: InfoHash) {
        let Some(removal) = self.removals.0.get(&info_hash) else { return };
        let (store, content) = (removal.store, removal.content.clone());
        let keep = self.used_by_others(now, &content);
        self.start_job(Job::Delete { store, keep }, Purpose::Delete(info_hash));
    }

    /// The content is gone, as far as it may: so goes what is kept of the torrent. What describes it goes first, for without that
    /// a record means nothing.
    pub(super) fn handle_deleted(&mut self, now: Time, info_hash: InfoHash) {
        if let Some(removal) = self.removals.0.remove(&info_hash) {
            self.storage.close(removal.store);
            self.forget_saved(info_hash);
            self.describe_waiting(now);
        }
    }

    /// Erases what is kept of a torrent. The last of the jobs for that.
    pub(super) fn forget_saved(&mut self, info_hash: InfoHash) -> JobId {
        self.start_job(Job::Erase { name: metainfo_name(info_hash) }, Purpose::Forget(info_hash));
        self.start_job(Job::Record { name: record_name(info_hash), value: None }, Purpose::Forget(info_hash))
    }

    pub(super) fn set_removals_timer(&mut self) {
        let due = self.removals.poll_timeout().min(self.durability.poll_timeout());
        let at = if self.exiting { Time::NEVER } else { due };
        self.timers.set(Timer::Removals, at);
    }
}
