//! One torrent: its parts, and what it wants from outside.
//!
//! It decides and reports. What it wants comes out of [`Torrent::poll_ask`]; what happens outside is told to it by the methods in its
//! rooms: `run` (it starts and stops), `sleep`, `announcing`, `peers` (they come and go), `metadata` (while only a link is known), `download`, `upload`, `check`,
//! `persist`, `disk`, `relocation`, `settings`, `lsd`, `report`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::config::Config;
use crate::base::files::FileEntry;
use crate::base::geometry::{Geometry, Piece, Span};
use crate::base::hash::{InfoHash, StId};
use crate::base::ids::{ConnId, StoreId};
use crate::base::rate::{Bucket, Meter};
use crate::base::rng::Rng;
use crate::base::rules::Defaults;
use crate::base::sabotage::{self, Sabotage};
use crate::base::storage::{Content, Fault};
use crate::base::time::Time;
use crate::codec::metainfo::Metainfo;
use crate::codec::resume::{Head, Record};
use crate::codec::udp_tracker::Announce;
use crate::torrent::announces::Announces;
use crate::torrent::candidates::Candidates;
use crate::torrent::check::Check;
use crate::torrent::choker::Choker;
use crate::torrent::command::{AddOptions, Refusal, RefusalKind};
use crate::torrent::dht_announces::DhtAnnounces;
use crate::torrent::disk::Disk;
use crate::torrent::download::Download;
use crate::torrent::event::What;
use crate::torrent::exchange::Exchange;
use crate::torrent::layout::Layout;
use crate::torrent::metadata::Description;
use crate::torrent::pace::Pace;
use crate::torrent::path_conflict::PathConflict;
use crate::torrent::peers::TorrentPeer;
use crate::torrent::persist::Persistence;
use crate::torrent::policy::Policy;
use crate::torrent::relocation::{MoveStep, Relocation};
use crate::torrent::renaming::Renaming;
use crate::torrent::settings::Settings;
use crate::torrent::sleep::{Body, Claim};
use crate::torrent::snapshot::Priority;
use crate::torrent::super_seed::Spread;

/// How often a torrent with peers looks at all of them.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How long after trouble with the disk it is tried again.
pub const FAULT_RETRY: Duration = Duration::from_secs(10);

/// How often a torrent looks whether its files are still there; sooner when a peer comes.
pub(crate) const LOOK: Duration = Duration::from_secs(60);
/// How soon after a peer came.
pub(crate) const LOOK_SOON: Duration = Duration::from_secs(2);

/// What a torrent wants from outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Give this connection a turn: it may have something to send.
    Wake(ConnId),
    /// Close this connection; the torrent has forgotten it.
    Drop(ConnId),
    /// There are addresses to dial: call [`Torrent::next_candidate`] when a connection may be made.
    Dial,
    /// A peer says that a DHT node is here.
    Node(SocketAddr),
    /// Announce it to the local network soon, and from time to time until [`Ask::LeaveLsd`].
    JoinLsd,
    /// Announce it no longer.
    LeaveLsd,
    /// Look for it in the DHT no more, and announce it to nobody there.
    LeaveDht,
    /// Make room for this piece, call [`Torrent::note_prepared`] for each part of it, then [`Torrent::handle_prepared`].
    Prepare(Piece, ConnId),
    /// This will be sent soon.
    Expect(Span),
    /// There is content to hash: call the methods of `check` in slices.
    Work,
    /// Make room for all that is wanted, then call [`Torrent::handle_allocated`].
    Allocate,
    /// Look whether the trouble with the files is over, then call [`Torrent::handle_examined`] or [`Torrent::handle_probed`].
    Probe,
    /// The files in which this piece lies hold something verified now: tell the storage.
    Hold(Piece),
    /// Find anew which files hold something verified, and tell the storage.
    HoldAll,
    /// Look whether the files are still there, then call [`Torrent::handle_looked`].
    Look,
    /// Compare its paths with those of the other torrents, before it writes for the first time in this run.
    ComparePaths,
    /// A whole `info` is here: read [`Torrent::metadata_parser`], then call [`Torrent::handle_metadata_judged`].
    Judge,
    /// Its files are known now: save its metainfo, open its content, then call [`Torrent::handle_described`].
    Describe,
    /// Close the content and open it anew: what is open may not be what lies there.
    Reopen,
    /// Begin this job of a move; its end is for `handle_scouted`, `handle_moved` or `handle_cleared`.
    Move(MoveStep),
    /// Look how far the move is, then call `handle_move_progress`.
    MoveProgress,
    /// Do [`Torrent::next_rename`] on the disk, then call `handle_renamed`.
    Rename,
    /// Tell the storage which files are wanted, and whether they may be written.
    Want,
    /// Make durable what was written, then call `handle_synced`.
    Sync,
    /// Save [`Torrent::record`], then call `handle_saved`.
    Save,
    /// Wake it, when there is time.
    Rouse,
    /// Close its content and call [`Torrent::fall_asleep`], if what describes it can be read again.
    Sleep,
    /// Take it out, as a user would.
    Remove {
        /// Delete its content too.
        data: bool,
    },
}

/// An announce to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// Which of the torrent's trackers, for `handle_announced`.
    pub tracker: usize,
    /// Its address.
    pub url: String,
    /// What it is told.
    pub announce: Announce,
    /// What it gave us to repeat.
    pub tracker_id: Option<Vec<u8>>,
}

/// How a torrent begins.
#[derive(Debug, Clone)]
pub struct Begin {
    /// The directory that holds its content.
    pub dir: PathBuf,
    /// Hash what is there first.
    pub verify: bool,
    /// When it was added, Unix seconds.
    pub added: u64,
    /// What the user asked for.
    pub options: AddOptions,
}

/// What a torrent is busy with before peers matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Hashing what is on disk.
    Checking,
    /// Making room.
    Allocating,
    /// Everything else.
    Ready,
}

/// One torrent. Invariants: a piece in `have` was hashed and matched; `download` is there exactly while a wanted piece is
/// missing; a peer is in `peers` from its handshake (dialled: from its connection) until [`Ask::Drop`] or
/// `handle_peer_closed`.
#[derive(Debug)]
pub struct Torrent {
    pub(crate) head: Head,
    pub(crate) body: Body,
    /// Why its description could not be read, since it was tried last.
    pub(crate) lost: Option<String>,
    /// When it falls asleep if it is left alone.
    pub(crate) sleep_at: Time,
    /// What an earlier run said of its files, until they are looked at.
    pub(crate) claim: Option<Claim>,
    /// They were looked at in this run.
    pub(crate) looked: bool,
    /// There while only a link is known of it; `body` holds what the link says then.
    pub(crate) description: Option<Box<Description>>,
    pub(crate) dir: PathBuf,
    pub(crate) added: u64,
    pub(crate) finished: Option<u64>,
    /// Its rank in the queue, which the engine keeps.
    pub(crate) rank: Option<i64>,
    pub(crate) pace: Pace,
    /// When it was last finished it lacked something that was not wanted.
    pub(crate) partial_seed: bool,
    /// What happened since it was last asked.
    pub(crate) news: Vec<What>,
    pub(crate) settings: Settings,
    pub(crate) layout: Layout,
    pub(crate) have: Bitfield,
    pub(crate) peers: BTreeMap<ConnId, TorrentPeer>,
    pub(crate) candidates: Candidates,
    pub(crate) announces: Announces,
    pub(crate) dht: DhtAnnounces,
    pub(crate) exchange: Exchange,
    /// It may be announced to the local network.
    pub(crate) lsd: bool,
    pub(crate) choker: Choker,
    pub(crate) download: Option<Box<Download>>,
    pub(crate) check: Option<Box<Check>>,
    pub(crate) persistence: Persistence,
    pub(crate) disk: Disk,
    pub(crate) relocation: Relocation,
    pub(crate) renaming: Renaming,
    pub(crate) path_conflict: PathConflict,
    pub(crate) store: Option<StoreId>,
    pub(crate) phase: Phase,
    pub(crate) fault: Option<Fault>,
    /// What is on the disk must be hashed before it goes on.
    pub(crate) recheck: bool,
    /// Pieces that were verified before a recheck that nobody asked for began, until it is over: if a file of theirs is gone it is
    /// missing.
    pub(crate) expected: Option<Bitfield>,
    /// It was complete once: that is told once in its life.
    pub(crate) told_finished: bool,
    /// The user stopped it.
    pub(crate) paused: bool,
    /// It is not its turn.
    pub(crate) queued: bool,
    /// It talks to peers and trackers.
    pub(crate) running: bool,
    pub(crate) allocate_full: bool,
    pub(crate) connections_max: usize,
    /// So many are they unless the user has said otherwise.
    pub(crate) default_peers: usize,
    /// What holds for torrents.
    pub(crate) defaults: Arc<Defaults>,
    /// What holds for this one.
    pub(crate) policy: Policy,
    /// When other rules may match.
    pub(crate) policy_at: Time,
    /// It has seeded enough, and sends no more than this any more, bytes a second.
    pub(crate) throttle: Option<u64>,
    /// Dialled, not yet connected.
    pub(crate) dialling: usize,
    pub(crate) peer_id: [u8; 20],
    /// At which port trackers are told that we let peers in.
    pub(crate) announced_port: u16,
    /// Others are told as little as can be.
    pub(crate) anonymous: bool,
    pub(crate) listen: Vec<SocketAddr>,
    /// The DHT's ports in IPv4 and IPv6.
    pub(crate) dht_ports: [Option<u16>; 2],
    pub(crate) down: Meter,
    pub(crate) up: Meter,
    /// Totals of earlier runs.
    pub(crate) downloaded_before: u64,
    pub(crate) uploaded_before: u64,
    pub(crate) wasted: u64,
    /// Seconds between the Unix epoch and [`Time::ZERO`].
    pub(crate) epoch_secs: u64,
    pub(crate) down_bucket: Bucket,
    pub(crate) up_bucket: Bucket,
    pub(crate) rng: Rng,
    /// Pieces in progress as the last run left them, until a download takes them over.
    pub(crate) restored: Vec<(Piece, Bitfield)>,
    pub(crate) key: u32,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// Pieces that checks hashed.
    pub(crate) checked: u64,
    /// Whether it may run, or counts as a download or a seed, is not what it was.
    pub(crate) turn_changed: bool,
    pub(crate) tick_at: Time,
    /// When slots that came free are given away; never if none did.
    pub(crate) slots_at: Time,
    pub(crate) retry_at: Time,
    pub(crate) look_at: Time,
    pub(crate) seeding_since: Time,
    /// How long it had seeded before.
    pub(crate) seeded_before: Duration,
    /// When a peer took something last; not before it began to seed.
    pub(crate) taken_at: Time,
    /// It has asked to be taken out.
    pub(crate) leaves: bool,
    /// Whether the user removed it, with its data if true; it goes once what is under way has ended.
    pub(crate) removal: Option<bool>,
    /// What peers have between them, while it is super-seeding.
    pub(crate) spread: Spread,
    /// When a goal of seeding may be reached.
    pub(crate) goal_at: Time,
    /// Peers that are to be looked at again before the turn ends (`interest`); each once.
    pub(crate) due_peers: VecDeque<ConnId>,
    /// All peers are.
    pub(crate) all_peers_due: bool,
    pub(crate) asks: VecDeque<Ask>,
}

impl Torrent {
    /// A torrent that has nothing yet.
    ///
    /// # Errors
    /// Refuses what `begin.options` cannot mean for these files.
    pub fn new(
        now: Time,
        meta: Arc<Metainfo>,
        begin: Begin,
        config: &Config,
        rng: Rng,
        peer_id: [u8; 20],
    ) -> Result<Self, Refusal> {
        let mut layout = Layout::new(Arc::clone(&meta.files), meta.geometry);
        if !begin.options.only.is_empty() {
            select_only(&mut layout, &begin.options.only)?;
        }
        let verify = begin.verify;
        let mut torrent = Self::with_head(now, Head::of(&meta), &meta.trackers, begin, config, rng, peer_id);
        (torrent.layout, torrent.body) = (layout, Body(Some(meta)));
        torrent.find_policy(now);
        if verify {
            torrent.begin_check();
        }
        Ok(torrent)
    }

    /// A torrent of an earlier run, asleep.
    #[must_use]
    pub fn asleep(
        now: Time,
        record: &Record,
        head: Head,
        begin: Begin,
        config: &Config,
        rng: Rng,
        peer_id: [u8; 20],
    ) -> Self {
        let mut torrent = Self::with_head(now, head, &record.trackers, begin, config, rng, peer_id);
        torrent.restore(now, record);
        torrent.believe(record);
        torrent.rest();
        torrent
    }

    fn with_head(
        now: Time,
        head: Head,
        trackers: &[Vec<String>],
        begin: Begin,
        config: &Config,
        mut rng: Rng,
        mut peer_id: [u8; 20],
    ) -> Self {
        if config.anonymous {
            // Nobody sees that who is here is who is there.
            rng.fork("peer id").fill(&mut peer_id);
        }
        let announces = Announces::new(now, trackers, config.announce_to_all, rng.fork("announces"));
        let settings = Settings {
            label: begin.options.label.clone(),
            shared: begin.options.shared,
            peek: begin.options.peek,
            sequential: begin.options.sequential,
            ..Settings::default()
        };
        Self {
            dir: begin.dir,
            added: begin.added,
            finished: None,
            rank: None,
            pace: Pace::default(),
            partial_seed: false,
            news: Vec::new(),
            settings,
            have: Bitfield::new(head.geometry.pieces()),
            layout: Layout::asleep(head.geometry),
            peers: BTreeMap::new(),
            candidates: Candidates::new(rng.fork("candidates")),
            announces,
            dht: DhtAnnounces::new(config.dht && (!head.private || sabotage::is_broken(Sabotage::PrivateTold))),
            exchange: Exchange::new(config, head.private),
            lsd: config.lsd && !head.private,
            choker: Choker::new(config.upload_slots, head.geometry.piece_len(), rng.fork("choker")),
            download: None,
            check: None,
            persistence: Persistence::default(),
            disk: Disk::default(),
            relocation: Relocation::default(),
            renaming: Renaming::default(),
            path_conflict: PathConflict::default(),
            store: None,
            phase: Phase::Ready,
            fault: None,
            recheck: false,
            expected: None,
            told_finished: false,
            paused: begin.options.paused,
            queued: true,
            running: false,
            allocate_full: config.allocate_full,
            connections_max: config.connections_per_torrent_max,
            default_peers: config.connections_per_torrent_max,
            defaults: Arc::clone(&config.defaults),
            policy: Policy::default(),
            policy_at: Time::NEVER,
            throttle: None,
            dialling: 0,
            peer_id,
            announced_port: config.announced_port(),
            anonymous: config.anonymous,
            listen: config.listen.clone(),
            dht_ports: config.dht_ports(),
            down: Meter::default(),
            up: Meter::default(),
            downloaded_before: 0,
            uploaded_before: 0,
            wasted: 0,
            epoch_secs: begin.added.saturating_sub(now.as_secs()),
            down_bucket: Bucket::new(now, 0),
            up_bucket: Bucket::new(now, 0),
            key: rng.u32(),
            rng,
            restored: Vec::new(),
            passed: 0,
            failed: 0,
            checked: 0,
            turn_changed: true,
            tick_at: Time::NEVER,
            slots_at: Time::NEVER,
            retry_at: Time::NEVER,
            look_at: Time::NEVER,
            seeding_since: Time::NEVER,
            seeded_before: Duration::ZERO,
            taken_at: Time::ZERO,
            leaves: false,
            removal: None,
            spread: Spread::default(),
            goal_at: Time::NEVER,
            due_peers: VecDeque::new(),
            all_peers_due: false,
            asks: VecDeque::new(),
            description: None,
            body: Body::default(),
            lost: None,
            looked: false,
            sleep_at: Time::NEVER,
            claim: None,
            head,
        }
    }

    /// What the storage needs to know of it.
    #[must_use]
    pub fn content(&self) -> Content {
        Content {
            dir: self.dir.clone(),
            also: self.relocation.recorded_to().map(Path::to_owned),
            files: self.layout.shared_files(),
            wanted: self.layout.wanted_files(),
            read_only: !self.may_write(),
        }
    }

    /// The directory that its content is in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One of its files.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn file(&self, index: usize) -> FileEntry<'_> {
        self.layout.files().entry(index)
    }

    /// The storage has its content under `store`.
    pub fn handle_opened(&mut self, now: Time, store: StoreId) {
        self.store = Some(store);
        self.look_for_owner();
        if self.recheck && self.fault.is_none() {
            self.recheck(now);
        }
        if self.check.is_some() {
            self.asks.push_back(Ask::Work);
        }
        self.reconsider(now);
    }

    /// The wire hash.
    #[must_use]
    pub fn info_hash(&self) -> InfoHash {
        self.head.info_hash
    }

    /// The `st-id`, of a `.st`.
    #[must_use]
    pub fn st_id(&self) -> Option<StId> {
        self.head.st_id
    }

    /// It is there only until its description is: nobody sees it, and nothing of it is saved.
    #[must_use]
    pub fn is_peek(&self) -> bool {
        self.settings.peek
    }

    /// Its advisory name; escape it before showing it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.head.name
    }

    /// Bytes of all its content.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.geometry().total_len()
    }

    /// True if it lies in a share directory.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.settings.shared
    }

    /// Where it lies, if that is a share directory.
    #[must_use]
    pub fn shared_at(&self) -> Option<PathBuf> {
        self.settings.shared.then(|| self.top())
    }

    /// The file or directory that holds all of it.
    #[must_use]
    pub fn top(&self) -> PathBuf {
        self.dir.join(self.renaming.names.top.as_ref().map_or(self.head.top.as_path(), Path::new))
    }

    /// The user's label, or empty.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.settings.label
    }

    /// Its content in the storage.
    #[must_use]
    pub fn store(&self) -> Option<StoreId> {
        self.store
    }

    pub(crate) fn geometry(&self) -> Geometry {
        self.head.geometry
    }

    pub(crate) fn all_pieces(&self) -> std::ops::Range<u32> {
        0..self.geometry().pieces()
    }

    /// True when everything wanted is here.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.description.is_none() && self.layout.is_finished(&self.have)
    }

    /// When it was added, Unix seconds.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Its rank in the queue; none of one that was saved by a version that knew of none.
    #[must_use]
    pub fn rank(&self) -> Option<i64> {
        self.rank
    }

    /// It has this rank in the queue now.
    pub fn set_rank(&mut self, now: Time, rank: i64) {
        self.rank = Some(rank);
        self.persistence.touch(now);
    }

    /// The next thing it wants.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// What happened since the last time: no more than one round brings.
    pub fn take_news(&mut self) -> Vec<What> {
        std::mem::take(&mut self.news)
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.fault.as_ref().map(|fault| fault.message.as_str()).or(self.broken()).map(str::to_owned)
    }

    /// Its name for the log: short, and safe to print.
    pub(crate) fn display_name(&self) -> String {
        crate::codec::control::escape(&self.head.name).into_owned()
    }
}

pub(crate) fn select_only(layout: &mut Layout, only: &[(usize, usize)]) -> Result<(), Refusal> {
    let files = layout.files().len();
    if let Some(&(_, last)) = only.iter().find(|&&(first, last)| first > last || last >= files) {
        let message = format!("there is no file {last}; this torrent has files 0 to {}", files.saturating_sub(1));
        return Err(Refusal::new(RefusalKind::Invalid, message));
    }
    let is_meant = |file: &usize| only.iter().any(|(first, last)| (first..=last).contains(&file));
    layout.set_priorities((0..files).filter(|file| !is_meant(file)).map(|file| (file, Priority::Off)));
    Ok(())
}
