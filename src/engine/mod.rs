//! A whole BitTorrent node without sockets, files, threads or a clock.
//!
//! It composes and routes: `connections` (who is connected), `pump` (bytes between streams, machines and storage),
//! `exchanges` (trackers and names), `dht`, `followed` (links to the newest version), `lsd`, `commands` (users), `asks` (what torrents
//! want), `shares`, `catalogs`, `peeks`, `work`
//! (hashing in slices), `path_owners` (torrents
//! with files in common), `limits`, `network` and `proxy` (while nothing can be sent, and what everything goes through), `shedding` (who
//! goes when there is no room).
//! It holds no protocol and no policy.
//!
//! **Drain contract**: after any round of `handle_*`, the driver drains [`Engine::poll_effect`] and
//! [`Engine::poll_transmit`] before it waits, and waits no longer than [`Engine::poll_timeout`].

mod asks;
mod audit;
mod blocks;
mod calendar;
mod catalogs;
mod changes;
mod commands;
mod connections;
mod dht;
mod durability;
mod events;
mod exchanges;
mod followed;
mod held;
mod lane;
mod limits;
mod listings;
mod loading;
mod lsd;
mod network;
mod path_compare;
mod path_index;
mod path_owners;
mod peeks;
mod piece_files;
mod proxy;
mod pump;
mod questions;
mod reload;
mod removals;
mod restore;
mod served;
mod shares;
mod shedding;
mod sleep;
mod stats;
mod store;
mod tracker;
mod turns;
mod why;
mod work;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::arena::Arena;
use crate::base::blocklist::Blocklist;
use crate::base::buffer::Buffer;
use crate::base::config::Config;
use crate::base::hash::{InfoHash, Sha1Hash, StId};
use crate::base::ids::{ConnId, ConnKey, JobId, SocketId, TorrentId, TorrentKey};
use crate::base::queue::Queue;
use crate::base::rate::Meter;
use crate::base::rng::Rng;
use crate::base::steps;
use crate::base::storage::{Job, Storage};
use crate::base::tally::Tally;
use crate::base::time::Time;
use crate::base::timers::Timers;
use crate::protocol::catalog;
use crate::protocol::lsd::Lsd;
use crate::protocol::mse::obfuscated;
use crate::service::tracker::Tracker;
use crate::torrent::torrent::Torrent;

use self::asks::Purpose;
use self::catalogs::Catalogs;
use self::changes::Changes;
use self::connections::Connection;
use self::dht::DhtNodes;
use self::durability::Durability;
use self::events::Events;
use self::exchanges::Exchanges;
use self::followed::Followed;
use self::held::Held;
use self::lane::Shakes;
use self::limits::Limit;
use self::loading::Loading;
use self::path_owners::PathOwners;
use self::peeks::Peeks;
use self::piece_files::PieceFiles;
use self::proxy::Proxy;
use self::removals::Removals;
use self::served::Served;
use self::shares::Shares;
use self::shedding::Newcomers;
use self::stats::Stats;
use self::turns::Turns;

pub use self::asks::{RECORD_PREFIX, record_name};
pub use self::audit::View;
pub use self::commands::TORRENTS_MAX;
pub use self::dht::DHT_STATE;
pub use self::followed::{FOLLOWED_MAX, FOLLOWED_STATE};

/// How long a shutdown waits for trackers.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// Timers of one round; what is due beyond comes in the next.
const TIMERS_MAX: usize = 1024;

/// The receive buffer of the whole process, bytes.
const RECEIVE_LEN: usize = 512 * 1024;

/// How a turn of a connection ended, in the direction it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The kernel has no more (reading), takes no more, or there is nothing to send: wait for its edge, or for a wake.
    Drained,
    /// The budget is used up: give it another turn, after the others.
    Spent,
    /// It waits for something else than the kernel (a rate limit, the disk, our own queue): wait for a [`Effect::Wake`].
    Parked,
}

/// What the driver should do.
#[derive(Debug)]
pub enum Effect {
    /// Begin a TCP connection; answer with `handle_connected` or `handle_closed`.
    Connect {
        /// What it will be called.
        conn: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// Close the connection's socket; the engine has forgotten it. No `handle_closed` follows.
    Close(ConnId),
    /// Give the connection a writing and a reading turn: it may have something to send, or may read again.
    Wake(ConnId),
    /// Carry out a job; answer with `handle_job`.
    Job(JobId, Job),
    /// Bind this socket anew, at a random port (the resolver's), or on the interfaces that there are now (those of local
    /// service discovery); open it if it is not.
    Rebind(SocketId),
    /// Load the certificates that this machine trusts and call `handle_trust`.
    Trust,
    /// Everything is saved: end.
    Exit,
}

/// A datagram to send; its bytes are in the buffer that was passed to `poll_transmit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// From which socket.
    pub socket: SocketId,
    /// Where to.
    pub to: SocketAddr,
}

/// What a deadline is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Torrent(TorrentId),
    /// An accepted connection that has not introduced itself.
    Greeting(ConnId),
    /// A connection whose content is being read from the disk.
    Disk(ConnId),
    Down,
    Up,
    Exchanges,
    Dht,
    Followed,
    Lsd,
    Peeks,
    Probes,
    Proxy,
    Removals,
    Shares,
    Served,
    Tracker,
    Shutdown,
}

/// The node. Invariants: every connection of a torrent is one of its peers or is being dialled for it; every torrent that
/// was touched is settled before a `handle_*` returns.
#[derive(Debug)]
pub struct Engine<S: Storage> {
    storage: S,
    config: Config,
    rng: Rng,
    /// What calendars say at [`Time::ZERO`], as far as is known now; `calendar` changes it.
    unix_nanos: u64,
    peer_id: [u8; 20],
    connections: Arena<ConnKey, Connection>,
    blocklist: Blocklist,
    /// How many connections there are with each address.
    with_ip: Tally<IpAddr>,
    newcomers: Newcomers,
    held: Held,
    half_open: usize,
    torrents: Arena<TorrentKey, Torrent>,
    by_hash: BTreeMap<InfoHash, TorrentId>,
    by_st_id: BTreeMap<StId, TorrentId>,
    /// What stands for each torrent's hash in ciphered handshakes.
    by_obfuscated: BTreeMap<Sha1Hash, InfoHash>,
    shakes: Shakes,
    timers: Timers<Timer>,
    /// Torrents that were touched and not yet settled.
    touched: Vec<TorrentId>,
    /// Torrents that have somebody to dial.
    dialling: Queue<TorrentId>,
    /// Torrents that have something to hash.
    hashing: Queue<TorrentId>,
    /// Torrents that have more peers to look at again than one turn allows.
    due: Queue<TorrentId>,
    /// Torrents in trouble with the disk that are to be looked at, and when the next of them are.
    probing: Queue<TorrentId>,
    probe_at: Time,
    /// Torrents whose trouble may be over: all of their files are looked at.
    examining: Queue<TorrentId>,
    /// Torrents that are to wake.
    waking: Queue<TorrentId>,
    /// Torrents that sleep and are to go with their content.
    leaving: Queue<TorrentId>,
    /// Torrents whose files are looked at before their records are saved.
    stamping: Queue<TorrentId>,
    shares: Shares,
    catalogs: Catalogs,
    peeks: Peeks,
    loading: Loading,
    piece_files: PieceFiles,
    /// While a peer's turn to be read goes on: the count of steps when it began.
    turn_began: Option<u64>,
    paths: PathOwners,
    removals: Removals,
    durability: Durability,
    turns: Turns,
    jobs: BTreeMap<JobId, Purpose>,
    next_job: u64,
    effects: VecDeque<Effect>,
    exchanges: Exchanges,
    /// None if it is off, or there is no socket for it.
    dht: Option<DhtNodes>,
    followed: Followed,
    /// Why nothing can be sent, while it cannot.
    cut_off: Option<String>,
    /// None if everything goes directly.
    proxy: Option<Proxy>,
    /// None if it is off, or nobody could call back.
    lsd: Option<Lsd>,
    /// The tracker server; none if it is off.
    tracker: Option<Tracker>,
    served: Served,
    /// The usual limits, bytes a second: down and up.
    usual: (u64, u64),
    /// These hold instead.
    alternative: Option<(u64, u64)>,
    down: Limit,
    up: Limit,
    down_meter: Meter,
    up_meter: Meter,
    stats: Stats,
    events: Events,
    changes: Changes,
    /// Lent to one turn at a time.
    receive: Buffer,
    exiting: bool,
    /// Trackers had their time to answer our goodbye.
    hurries: bool,
    exited: bool,
}

impl<S: Storage> Engine<S> {
    /// A node with no torrents. `unix_nanos` is the wall clock's time at [`Time::ZERO`], since the Unix epoch.
    #[must_use]
    pub fn new(config: Config, unix_nanos: u64, mut rng: Rng, storage: S) -> Self {
        let mut peer_id = *b"-SW0100-............";
        let named = if config.anonymous { 0 } else { 8 };
        rng.fork("peer id").fill(&mut peer_id[named..]);
        Self {
            storage,
            exchanges: Exchanges::new(&config, rng.fork("exchanges")),
            dht: DhtNodes::new(&config, rng.fork("dht")),
            followed: Followed::default(),
            shares: Shares::default(),
            catalogs: Catalogs::default(),
            peeks: Peeks::default(),
            loading: Loading::default(),
            piece_files: PieceFiles::default(),
            turn_began: None,
            paths: PathOwners::default(),
            cut_off: None,
            proxy: config.proxy.as_ref().map(Proxy::new),
            removals: Removals::default(),
            durability: Durability::default(),
            lsd: lsd::new(&config, &mut rng),
            tracker: tracker::new(&config, unix_nanos, &mut rng),
            served: Served::default(),
            turns: Turns::new(&config),
            usual: (config.down_rate_bytes, config.up_rate_bytes),
            alternative: None,
            down: Limit::new(Time::ZERO, config.down_rate_bytes),
            up: Limit::new(Time::ZERO, config.up_rate_bytes),
            config,
            rng,
            unix_nanos,
            peer_id,
            connections: Arena::default(),
            blocklist: Blocklist::default(),
            with_ip: Tally::default(),
            newcomers: Newcomers::default(),
            held: Held::default(),
            half_open: 0,
            torrents: Arena::default(),
            by_hash: BTreeMap::new(),
            by_st_id: BTreeMap::new(),
            by_obfuscated: BTreeMap::from([(obfuscated(catalog::hash()), catalog::hash())]),
            shakes: Shakes::default(),
            timers: Timers::default(),
            touched: Vec::new(),
            dialling: Queue::default(),
            hashing: Queue::default(),
            due: Queue::default(),
            probing: Queue::default(),
            probe_at: Time::ZERO,
            examining: Queue::default(),
            waking: Queue::default(),
            leaving: Queue::default(),
            stamping: Queue::default(),
            jobs: BTreeMap::new(),
            next_job: 0,
            effects: VecDeque::new(),
            down_meter: Meter::default(),
            up_meter: Meter::default(),
            stats: Stats::default(),
            events: Events::default(),
            changes: Changes::new(unix_nanos),
            receive: Buffer::new(RECEIVE_LEN),
            exiting: false,
            hurries: false,
            exited: false,
        }
    }

    /// The storage, for the driver that has jobs to do with it.
    pub fn storage(&mut self) -> &mut S {
        &mut self.storage
    }

    /// The settings it runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// [`Engine::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        let steps_before = steps::so_far();
        for _ in 0..TIMERS_MAX {
            if steps::so_far() - steps_before > steps::TURN_MAX / 2 {
                return; // the driver comes back at once: they are due
            }
            let Some(timer) = self.timers.pop(now) else { return };
            match timer {
                Timer::Torrent(id) => {
                    if let Some(torrent) = self.torrents.get_mut(id) {
                        torrent.handle_timeout(now);
                        self.touched.push(id);
                    }
                }
                Timer::Greeting(conn) => self.close(now, conn),
                Timer::Disk(conn) => self.effects.push_back(Effect::Wake(conn)),
                Timer::Down => self.wake_limited(now, Timer::Down),
                Timer::Up => self.wake_limited(now, Timer::Up),
                Timer::Exchanges => self.exchanges.handle_timeout(now),
                Timer::Dht => self.handle_dht_timeout(now),
                Timer::Followed => self.handle_followed_timeout(now),
                Timer::Lsd => self.handle_lsd_timeout(now),
                Timer::Proxy => self.handle_proxy_timeout(now),
                Timer::Probes => self.handle_probe_timeout(now),
                Timer::Removals => self.handle_removals_timeout(now),
                Timer::Shares => self.put_shares(now),
                Timer::Served => self.handle_served_timeout(now),
                Timer::Tracker => self.handle_tracker_timeout(now),
                Timer::Peeks => {} // whatever is over is seen when all is settled
                Timer::Shutdown => {
                    // Whoever waits for a tracker waits no longer; for the disk it does.
                    self.hurries = true;
                    if !self.exchanges.is_idle() {
                        log::warn!("not every tracker has answered our goodbye");
                    }
                }
            }
            self.settle(now);
        }
    }

    /// The next thing the driver should do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When `handle_timeout` wants to be called, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.timers.next()
    }

    /// Acts on whatever was said since, until nothing more is: the end of every `handle_*`.
    fn settle(&mut self, now: Time) {
        loop {
            while let Some(id) = self.touched.pop() {
                self.act_on_asks(now, id);
            }
            self.act_on_store(now);
            self.act_on_exchanges(now);
            self.act_on_dht(now);
            self.act_on_lsd(now);
            self.act_on_peeks(now);
            self.give_turns(now);
            self.dial(now);
            if self.touched.is_empty() {
                break;
            }
        }
        self.save_new(now);
        self.timers.set(Timer::Down, self.down.poll_timeout());
        self.timers.set(Timer::Up, self.up.poll_timeout());
        self.timers.set(Timer::Exchanges, self.exchanges.poll_timeout());
        self.timers.set(Timer::Shares, self.shares.poll_timeout());
        self.set_removals_timer();
        self.timers.set(Timer::Probes, self.next_probes());
        self.timers.set(Timer::Peeks, self.peeks.poll_timeout());
        self.timers.set(Timer::Served, self.served.poll_timeout());
        self.timers.set(Timer::Tracker, self.tracker.as_ref().map_or(Time::NEVER, Tracker::poll_timeout));
        self.timers.set(Timer::Proxy, self.proxy.as_ref().map_or(Time::NEVER, Proxy::poll_timeout));
        let speaks = self.sends_datagrams();
        let dht = self.dht.as_ref().filter(|_| speaks);
        self.timers.set(Timer::Dht, dht.map_or(Time::NEVER, DhtNodes::poll_timeout));
        let asks = self.dht.is_some() && !self.exiting && speaks;
        self.timers.set(Timer::Followed, if asks { self.followed.poll_timeout() } else { Time::NEVER });
        let lsd = self.lsd.as_ref().filter(|_| speaks);
        self.timers.set(Timer::Lsd, lsd.map_or(Time::NEVER, Lsd::poll_timeout));
        if self.exiting && self.is_quiet() {
            self.exit();
        }
    }

    /// Says goodbye to trackers and saves everything; [`Effect::Exit`] follows: trackers have [`SHUTDOWN_MAX`] to
    /// answer, the disk as long as it takes.
    fn shut_down(&mut self, now: Time) {
        if self.exiting {
            return;
        }
        self.exiting = true;
        self.exchanges.hurry(now);
        self.stop_loading();
        self.save_dht(now);
        self.timers.set(Timer::Shutdown, now + SHUTDOWN_MAX);
        let ids: Vec<TorrentId> = self.torrents.ids().collect();
        for id in ids {
            let torrent = self.torrents.get_mut(id).expect("it was just listed");
            torrent.shut_down(now);
            if let Some(store) = torrent.store() {
                self.storage.stop_move(store, false);
            }
            self.touched.push(id);
        }
    }

    /// Nothing that a shutdown waits for is under way.
    fn is_quiet(&self) -> bool {
        let is_closed = self.jobs.is_empty() && self.torrents.values().all(Torrent::is_closed);
        is_closed && self.durability.is_settled() && (self.hurries || self.exchanges.is_idle())
    }

    /// Torrents whose last record is not on the disk yet, by name and hash: what the shutdown could not save.
    pub fn unsaved(&self) -> impl Iterator<Item = (String, InfoHash)> {
        let unsaved = self.torrents.values().filter(|torrent| !torrent.is_saved());
        let unsaved = unsaved.map(|torrent| (torrent.display_name().to_string(), torrent.info_hash()));
        unsaved.chain(self.durability.unforgotten().map(|info_hash| ("(removed)".to_owned(), info_hash)))
    }

    fn exit(&mut self) {
        if !std::mem::replace(&mut self.exited, true) {
            self.effects.push_back(Effect::Exit);
        }
    }
}
