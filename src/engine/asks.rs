//! What torrents want from outside, done: room, durability, connections, saved state; and the answers to jobs.

use std::path::PathBuf;

use crate::base::bytes::Rope;
use crate::base::hash::InfoHash;
use crate::base::ids::{JobId, StoreId, TorrentId};
use crate::base::rules::End;
use crate::base::steps;
use crate::base::storage::{Fault, Job, Storage};
use crate::base::time::Time;
use crate::engine::peeks::Title;
use crate::engine::piece_files;
use crate::engine::{Effect, Engine, Timer};
use crate::protocol::mse::obfuscated;
use crate::torrent::command::{Answer, Refusal, RefusalKind, Reply};
use crate::torrent::relocation::MoveStep;
use crate::torrent::settings::Spot;
use crate::torrent::torrent::{Ask, Torrent};

/// Files that are looked at in one slice before a record is saved.
const STAMPS_MAX: usize = 256;
/// Spans that the storage is asked to read ahead after one turn; each is a system call. Those beyond are read when they are sent.
const EXPECTED_MAX: usize = 64;
/// What such a call costs.
const EXPECT_STEPS: usize = 100;

/// Steps after which the other peers of a torrent that are to be looked at again wait for a later turn.
const DUE_STEPS_MAX: u64 = steps::TURN_MAX / 4;

/// What a job was for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    Allocate(TorrentId),
    Sync(TorrentId),
    Record(TorrentId),
    /// What describes it.
    Metainfo(TorrentId),
    Scout(TorrentId),
    Move(TorrentId),
    Clear(TorrentId),
    /// It is recorded that the torrent goes with its content.
    Removal(InfoHash),
    /// That is recorded; its content goes.
    Delete(InfoHash),
    /// What is kept of a removed torrent goes.
    Forget(InfoHash),
    /// Nobody waits for it.
    Other,
}

/// Where the metainfo of a torrent is kept, or the link while only that is known, below the state directory.
#[must_use]
pub(super) fn metainfo_name(info_hash: InfoHash) -> PathBuf {
    PathBuf::from(format!("torrents/{info_hash}.meta"))
}

/// What the names of resume records begin with in the journal.
pub const RECORD_PREFIX: &str = "torrent ";

/// What the journal calls the resume record of a torrent.
#[must_use]
pub fn record_name(info_hash: InfoHash) -> String {
    format!("{RECORD_PREFIX}{info_hash}")
}

impl<S: Storage> Engine<S> {
    /// Takes a torrent in; saves it if it is new. `store` is its content, if that is open.
    pub(super) fn insert_torrent(
        &mut self,
        now: Time,
        mut torrent: Torrent,
        metainfo: Option<Rope>,
        store: Option<StoreId>,
    ) -> TorrentId {
        let info_hash = torrent.info_hash();
        torrent.begin_policy(now, self.unix_nanos / 1_000_000_000);
        let (is_awake, st_id) = (!torrent.is_asleep(), torrent.st_id());
        if let Some(node) = &mut self.dht {
            torrent.dht_nodes().iter().for_each(|(host, port)| node.begin_with(now, host, *port));
        }
        let id = self.torrents.insert(torrent);
        let torrent = self.torrents.get_mut(id).expect("it was just inserted");
        match torrent.rank() {
            Some(rank) => self.turns.take_rank(id, rank),
            // One without a rank that was saved gets it with all those like it, in their order.
            None if metainfo.is_some() => {
                let ranks = self.turns.put(id, spot_of(torrent).unwrap_or(Spot::Bottom));
                match ranks[..] {
                    [(_, rank)] => torrent.rank = Some(rank), // it is about to be saved
                    _ => self.take_ranks(now, ranks),
                }
            }
            None => {}
        }
        if let Some(metainfo) = metainfo {
            self.durability.note_new(id, metainfo);
        }
        self.by_hash.insert(info_hash, id);
        self.by_st_id.extend(st_id.map(|st_id| (st_id, id)));
        let shared_at = self.torrents.get(id).and_then(Torrent::shared_at);
        if let Some(path) = shared_at {
            self.shares.enter(now, path, id);
        }
        self.by_obfuscated.insert(obfuscated(info_hash), info_hash);
        if let Some(store) = store
            .or_else(|| is_awake.then(|| open_content(&mut self.storage, self.torrents.get(id).expect("it is there"))))
        {
            self.torrents.get_mut(id).expect("it was just inserted").handle_opened(now, store);
        }
        self.index_paths(id);
        self.touched.push(id);
        id
    }

    /// Takes a torrent out, and its content with it.
    ///
    /// # Errors
    /// Nobody knows which files are its content: its description cannot be read. It stays.
    pub(super) fn remove_with_data(&mut self, now: Time, id: TorrentId) -> Result<(), Refusal> {
        let opened = self.open_eyes(now, id);
        let Some(torrent) = self.torrents.get_mut(id) else { return Ok(()) };
        if let Some(why) = torrent.lost() {
            return Err(Refusal::new(RefusalKind::Io, why));
        }
        // How its files look does not matter any more.
        opened.into_iter().for_each(|store| torrent.handle_reopened(store));
        self.remove_torrent(now, id, true);
        Ok(())
    }

    /// Takes a torrent out, and its content with it if `data` and it is awake.
    pub(super) fn remove_torrent(&mut self, now: Time, id: TorrentId, data: bool) {
        let Some(torrent) = self.torrents.get_mut(id) else { return };
        if torrent.postpones_removal() {
            let store = torrent.store().expect("torrent whose files are moved or renamed is loaded");
            torrent.note_removal(now, data);
            self.touched.push(id);
            return self.storage.stop_move(store, true);
        }
        let info_hash = torrent.info_hash();
        torrent.shut_down(now);
        self.act_on_asks(now, id);
        if !self.torrents.contains(id) {
            return; // it had asked for its removal already, once a move or rename was over
        }
        self.tell_removed(now, id);
        self.changes.removed(id, info_hash);
        let torrent = self.torrents.remove(id).expect("it was just there");
        self.stats.pieces_passed += torrent.passed;
        self.stats.pieces_failed += torrent.failed;
        self.stats.pieces_checked += torrent.checked;
        self.by_hash.remove(&info_hash);
        self.forget_followed(id);
        if let Some(st_id) = torrent.st_id() {
            self.by_st_id.remove(&st_id);
        }
        if let Some(path) = torrent.shared_at() {
            self.shares.leave(&path);
        }
        self.by_obfuscated.remove(&obfuscated(info_hash));
        self.timers.remove(Timer::Torrent(id));
        self.turns.forget(id);
        if torrent.was_finished() {
            self.note_removed_owner(now, id);
        }
        self.paths.forget(id);
        self.note_stale_paths(1);
        match torrent.store().filter(|_| data && !torrent.is_link() && !torrent.is_peek()) {
            Some(store) => {
                let job = self.remove_content(now, &torrent, store);
                self.durability.remove(id, job);
            }
            None => {
                if !torrent.is_peek() {
                    let job = self.forget_saved(info_hash);
                    self.durability.remove(id, job);
                }
                torrent.store().into_iter().for_each(|store| self.storage.close(store));
            }
        }
    }

    /// Begins to move a torrent's content, or takes that back.
    pub(super) fn move_content(&mut self, now: Time, id: TorrentId, dir: PathBuf) -> Reply {
        let torrent = self.awake(now, id)?;
        if torrent.calls_move_off(&dir) {
            let store = torrent.store().expect("who is awake is open");
            torrent.undo_move(now);
            self.storage.stop_move(store, true);
        } else {
            self.may_move(now, id, &dir)?;
            self.torrents.get_mut(id).expect("it was just woken").begin_move(now, dir)?;
            self.index_paths(id);
        }
        self.touched.push(id);
        Ok(Answer::Done)
    }

    pub(super) fn start_job(&mut self, job: Job, purpose: Purpose) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.stats.jobs_started += 1;
        self.jobs.insert(id, purpose);
        if matches!(job, Job::Record { .. } | Job::Save { .. } | Job::Erase { .. }) {
            self.durability.note_job(id);
        }
        self.effects.push_back(Effect::Job(id, job));
        id
    }

    /// A job is done.
    pub fn handle_job(&mut self, now: Time, job: JobId, result: Result<(), Fault>) {
        let Some(purpose) = self.jobs.remove(&job) else { return };
        if let Err(fault) = &result {
            self.stats.jobs_failed += 1;
            log::warn!("{fault}");
        }
        self.durability.handle_job(job, &result);
        match purpose {
            Purpose::Allocate(id) => self.tell(id, |torrent| torrent.handle_allocated(now, result)),
            Purpose::Sync(id) => self.tell(id, |torrent| torrent.handle_synced(now, result)),
            // An id is never used again: this torrent was removed meanwhile.
            Purpose::Record(id) | Purpose::Metainfo(id) if !self.torrents.contains(id) => {}
            Purpose::Record(id) => {
                self.tell(id, |torrent| torrent.handle_saved(now, result.is_ok()));
                self.durability.handle_saved(id);
            }
            Purpose::Metainfo(id) if result.is_err() => self.tell(id, |torrent| torrent.handle_metainfo_unsaved(now)),
            Purpose::Scout(id) => self.tell(id, |torrent| torrent.handle_scouted(now, result)),
            Purpose::Move(id) => {
                self.tell(id, |torrent| torrent.handle_moved(now, result));
                self.paths_changed(id);
            }
            Purpose::Clear(id) => {
                self.tell(id, |torrent| torrent.handle_cleared(now, result));
                self.paths_changed(id);
            }
            Purpose::Removal(info_hash) => self.handle_removal_recorded(now, info_hash, &result),
            Purpose::Delete(info_hash) => self.handle_deleted(now, info_hash),
            Purpose::Forget(info_hash) if result.is_err() => self.durability.note_unforgotten(now, info_hash),
            Purpose::Metainfo(_) | Purpose::Forget(_) | Purpose::Other => {}
        }
        self.settle(now);
    }

    pub(super) fn tell(&mut self, id: TorrentId, what: impl FnOnce(&mut Torrent)) {
        if let Some(torrent) = self.torrents.get_mut(id) {
            what(torrent);
            self.touched.push(id);
        }
    }

    /// Does what a torrent asks, until it asks no more.
    pub(super) fn act_on_asks(&mut self, now: Time, id: TorrentId) {
        let (mut expected, steps_before) = (0, self.turn_began.unwrap_or_else(steps::so_far));
        while let Some(torrent) = self.torrents.get_mut(id) {
            if let Some(ask) = torrent.poll_ask() {
                steps::add(1);
                if let Ask::Expect(_) = ask {
                    expected += 1;
                    if expected > EXPECTED_MAX {
                        continue;
                    }
                    steps::add(EXPECT_STEPS);
                }
                self.act(now, id, ask);
            } else if torrent.has_due_peers() && steps::so_far() - steps_before < DUE_STEPS_MAX {
                torrent.handle_due_peer(now);
            } else if let Some(ask) = torrent.poll_announce() {
                if let Some(error) = self.not_asked(&ask.url) {
                    self.torrents.get_mut(id).expect("it was just asked").handle_announced(
                        now,
                        ask.tracker,
                        Err(error),
                    );
                    continue;
                }
                self.stats.announces_started += 1;
                self.exchanges.start(now, id, ask);
            } else if let Some(ask) = torrent.poll_scrape() {
                let info_hash = torrent.info_hash();
                if let Some(error) = self.not_asked(&ask.url) {
                    self.torrents.get_mut(id).expect("it was just asked").handle_scraped(now, ask.tracker, &Err(error));
                    continue;
                }
                self.stats.scrapes_started += 1;
                self.exchanges.scrape(now, id, info_hash, &ask);
            } else {
                torrent.add_exchange_counts(&mut self.stats.pex);
                if torrent.has_due_peers() {
                    self.due.push(id);
                }
                if torrent.turn_changed() {
                    self.turns.changed(id);
                }
                self.search_dht(now, id);
                self.tell_news(now, id);
                self.changes.changed(id);
                self.look_at_seconds(now, id);
                let torrent = self.torrents.get_mut(id).expect("it is still there");
                torrent.consider_sleep(now);
                if torrent.is_unsaved() {
                    self.durability.note_torrent(id);
                }
                self.timers.set(Timer::Torrent(id), torrent.poll_timeout());
                return;
            }
        }
    }

    fn act(&mut self, now: Time, id: TorrentId, ask: Ask) {
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        let store = torrent.store();
        let open = || store.expect("who asks for this is awake");
        match ask {
            Ask::Wake(conn) => self.effects.push_back(Effect::Wake(conn)),
            Ask::Drop(conn) => {
                self.forget(conn);
                self.effects.push_back(Effect::Close(conn));
            }
            Ask::Dial => self.dialling.push(id),
            Ask::Node(addr) => {
                if let Some(nodes) = &mut self.dht {
                    nodes.hear_of(now, addr);
                }
            }
            Ask::JoinLsd => {
                if let Some(lsd) = &mut self.lsd {
                    lsd.join(now, torrent.info_hash());
                }
            }
            Ask::LeaveLsd => {
                if let Some(lsd) = &mut self.lsd {
                    lsd.leave(torrent.info_hash());
                }
            }
            Ask::LeaveDht => {
                if let Some(nodes) = &mut self.dht {
                    nodes.leave(now, torrent.info_hash());
                }
            }
            Ask::Prepare(piece, conn) => self.touch_files(now, id, piece, piece_files::Purpose::Prepare(conn)),
            Ask::Expect(span) => self.storage.expect(open(), span),
            Ask::Work => self.hashing.push(id),
            Ask::Allocate => {
                self.start_job(Job::Allocate { store: open() }, Purpose::Allocate(id));
            }
            Ask::Probe => self.probing.push(id),
            Ask::Hold(piece) => self.touch_files(now, id, piece, piece_files::Purpose::Hold),
            Ask::HoldAll => self.storage.set_held(open(), &torrent.held_files()),
            Ask::Look => self.look(now, id),
            Ask::ComparePaths => self.paths.compare(id),
            Ask::Rouse => self.waking.push(id),
            Ask::Sleep => self.lay_down(now, id),
            Ask::Judge => self.load_metadata(now, id),
            Ask::Describe => self.describe(now, id),
            Ask::Reopen => {
                self.storage.close(open());
                let store = open_content(&mut self.storage, torrent);
                torrent.handle_reopened(store);
            }
            Ask::Move(step) => {
                let (store, info_hash) = (open(), torrent.info_hash());
                let (job, purpose) = match step {
                    MoveStep::Scout(dir) => (Job::Scout { store, dir }, Purpose::Scout(id)),
                    MoveStep::Go { dir, again, undo } => {
                        (Job::Move { store, dir, info_hash, again, undo }, Purpose::Move(id))
                    }
                    MoveStep::Clear(from) => (Job::Clear { store, from }, Purpose::Clear(id)),
                };
                self.start_job(job, purpose);
            }
            Ask::MoveProgress => torrent.handle_move_progress(self.storage.move_progress(open())),
            Ask::Rename => {
                rename(&mut self.storage, now, torrent);
                self.paths_changed(id);
            }
            Ask::Want => {
                let content = torrent.content();
                self.storage.set_wanted(open(), &content.wanted);
                self.storage.set_read_only(open(), content.read_only);
            }
            Ask::Sync => {
                let finish = torrent.files_to_finish();
                self.start_job(Job::Sync { store: open(), finish }, Purpose::Sync(id));
            }
            Ask::Save => {
                if !self.save_record(now, id) {
                    self.stamping.push(id);
                }
            }
            Ask::Remove { data } => {
                if data {
                    self.leaving.push(id); // its files may have to be read first
                } else {
                    self.remove_torrent(now, id, false);
                }
            }
        }
    }

    /// A torrent's files are known now.
    pub(super) fn describe(&mut self, now: Time, id: TorrentId) {
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        if torrent.is_peek() {
            let title = Title { name: torrent.name().to_owned(), size: torrent.size() };
            let info_hash = torrent.info_hash();
            return self.end_peek(now, info_hash, Some(title));
        }
        if self.waits_for_deletion(id) {
            return;
        }
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        self.by_st_id.extend(torrent.st_id().map(|st_id| (st_id, id)));
        self.compare_described(now, id);
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        if let Some(node) = &mut self.dht {
            torrent.dht_nodes().iter().for_each(|(host, port)| node.begin_with(now, host, *port));
        }
        let content = torrent.content();
        if let Some(store) = torrent.store() {
            self.storage.close(store);
        }
        let store = self.storage.open(content);
        let files = torrent.file_count();
        // Of many files some may be there of which the first are not: all is hashed.
        let is_new = files <= STAMPS_MAX && (0..files).all(|file| self.storage.stamp(store, file).is_none());
        torrent.handle_described(now, store, is_new);
        self.index_paths(id);
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        let before = spot_of(torrent);
        torrent.apply_policy(now);
        let spot = spot_of(torrent).filter(|_| before.is_none());
        let metainfo = torrent.metainfo_bytes();
        self.durability.note_new(id, metainfo);
        if let Some(spot) = spot {
            // A rule is about what is known only now.
            self.put_in_queue(now, id, spot);
        }
    }

    /// Takes stamps of some files that need one; saves the record once all have theirs. False if some have not.
    pub(super) fn save_record(&mut self, now: Time, id: TorrentId) -> bool {
        let Some(torrent) = self.torrents.get_mut(id) else { return true };
        // A record that says that the content is being checked claims nothing of any file. The check takes the stamps itself, right
        // before it reads.
        let is_whole = torrent.check_progress().is_some() || take_stamps(&mut self.storage, torrent);
        if is_whole {
            let (info_hash, record) = (torrent.info_hash(), torrent.record(now));
            let metainfo = torrent.take_metainfo_unsaved();
            let job = Job::Record { name: record_name(info_hash), value: Some(record) };
            let job = self.start_job(job, Purpose::Record(id));
            self.durability.note_record(id, job);
            if let Some(bytes) = metainfo {
                self.start_job(Job::Save { name: metainfo_name(info_hash), bytes }, Purpose::Metainfo(id));
            }
        }
        is_whole
    }
}

/// Opens a torrent's content.
pub(super) fn open_content<S: Storage>(storage: &mut S, torrent: &Torrent) -> StoreId {
    let store = storage.open(torrent.content());
    let held = torrent.held_files();
    if !held.is_empty() {
        storage.set_held(store, &held);
    }
    store
}

/// Where in the queue a rule puts a torrent that is new.
fn spot_of(torrent: &Torrent) -> Option<Spot> {
    torrent.queue_end().map(|end| match end {
        End::Top => Spot::Top,
        End::Bottom => Spot::Bottom,
    })
}

/// Takes stamps of some files that need one; true once all have theirs.
pub(super) fn take_stamps<S: Storage>(storage: &mut S, torrent: &mut Torrent) -> bool {
    let files = torrent.doubtful_files(STAMPS_MAX + 1);
    let Some(store) = torrent.store() else {
        assert!(files.is_empty(), "who sleeps knows how its files look");
        return true;
    };
    for &file in files.iter().take(STAMPS_MAX) {
        torrent.note_stamp(file, storage.stamp(store, file));
    }
    files.len() <= STAMPS_MAX
}

/// Does what is on record of a rename.
pub(super) fn rename<S: Storage>(storage: &mut S, now: Time, torrent: &mut Torrent) {
    let Some(store) = torrent.store() else { return };
    let result = torrent.next_rename().map_or(Ok(()), |step| storage.rename(store, &step.from, &step.to, step.files));
    torrent.handle_renamed(now, result);
}
