//! The tracker server: who is in which swarm (BEP 3, 7, 15, 21, 23, 24, 31, 41, 48).
//!
//! A state machine: requests come by datagram or as whole HTTP requests, answers are values. Only the address that a request came
//! from is ever registered. It keeps no peer ids: what is kept of a peer is its address, when it was heard of, and whether it
//! downloads. `swarms` and `peers` are the table, `udp` and `http` the two languages, `access` who may ask.

mod access;
mod asked;
mod audit;
mod http;
mod ids;
mod keyed;
mod peers;
mod shared;
mod state;
mod swarms;
mod udp;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::is_dialable;
use crate::base::config::TrackerConfig;
use crate::base::ids::ConnId;
use crate::base::rng::Rng;
use crate::base::sabotage::{self, Sabotage};
use crate::base::time::Time;
use crate::codec::http_tracker::RetryIn;
use crate::codec::udp_tracker::{Announce, AnnounceEvent};
use crate::protocol::redis::Redis;
use crate::protocol::redis::url::RedisUrl;

use self::access::Access;
use self::ids::ConnectionIds;
use self::peers::Role;
use self::shared::Shared;
use self::state::Counters;
use self::swarms::{Saying, Swarms};
use self::udp::Replies;

pub use self::access::{Allowed, KEY_MAX};
pub use self::audit::View;
pub use self::http::Answered;
pub use self::peers::{Counts, HOST_PEERS_MAX, PEERS_MAX};
pub use self::shared::{FLUSH_EVERY, FRESH, WAIT_MAX};
pub use self::swarms::Tallies;

/// Peers of an answer where the asker does not say how many.
const WANTED: usize = 50;
/// Peers of an answer, whatever the asker says: 1,220 bytes in IPv4, one datagram.
const WANTED_MAX: usize = 200;
/// And in IPv6: 1,352 bytes.
const WANTED6_MAX: usize = 74;
/// A peer is forgotten after so many intervals of silence.
const INTERVALS: u32 = 2;
/// Its silence is measured in such parts of that.
const LIFE_TICKS: u16 = 4096;
/// The whole table is swept so often in the life of a peer.
const SWEEPS: u32 = 8;
/// How soon whoever is refused for now may come back.
const RETRY_MINUTES: u32 = 60;
/// Peers that are looked at in one step of a sweep.
const SWEPT_MAX: usize = 512;

/// Why a request is refused. Each is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// It cannot be read.
    Malformed,
    /// Its connection id is not the one that its address was given lately.
    ConnectionId,
    /// The swarm is not one of those that this tracker is for.
    NotAllowed,
    /// Its pass key is missing or unknown.
    Key,
    /// Nobody could dial the address and port that it would register.
    Address,
    /// There are too many swarms for a new one.
    Full,
}

impl Error {
    const ALL: [Self; 6] =
        [Self::Malformed, Self::ConnectionId, Self::NotAllowed, Self::Key, Self::Address, Self::Full];

    /// Its name in `stats`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ConnectionId => "connection_id",
            Self::NotAllowed => "not_allowed",
            Self::Key => "key",
            Self::Address => "address",
            Self::Full => "full",
        }
    }

    /// When a client may come back (BEP 31).
    const fn retry(self) -> Option<RetryIn> {
        match self {
            // It may be allowed some day; clients should not ask all the time until then.
            Self::NotAllowed | Self::Full => Some(RetryIn::Minutes(RETRY_MINUTES)),
            Self::Key => Some(RetryIn::Never),
            Self::Malformed | Self::ConnectionId | Self::Address => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the request cannot be read",
            Self::ConnectionId => "connect again",
            Self::NotAllowed => "this tracker does not track this torrent",
            Self::Key => "the pass key in the announce address is missing or unknown",
            Self::Address => "nobody could dial this address and port",
            Self::Full => "this tracker is full; try again later, or another one",
        })
    }
}

/// The tracker.
#[derive(Debug)]
pub struct Tracker {
    config: TrackerConfig,
    swarms: Swarms,
    ids: ConnectionIds,
    access: Access,
    counters: Counters,
    rng: Rng,
    ticks: Ticks,
    sweep_at: Time,
    replies: Replies,
    /// Lent to one answer at a time.
    picked: Vec<u8>,
    /// Of requests by HTTP that had to wait.
    answers: VecDeque<(ConnId, Answered, Vec<u8>)>,
    /// None if nobody shares its state.
    shared: Option<Box<Shared>>,
}

/// The clock of a table: how long a tick is, and which one it is.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    nanos: u64,
}

impl Ticks {
    /// Such that `life` has [`LIFE_TICKS`].
    fn of(life: Duration) -> Self {
        Self { nanos: u64::try_from(life.as_nanos() / u128::from(LIFE_TICKS)).unwrap_or(u64::MAX).max(1) }
    }

    fn at(self, now: Time) -> u16 {
        u16::try_from(now.as_nanos() / self.nanos % u64::from(peers::TICKS)).expect("below TICKS")
    }
}

impl Tracker {
    /// A tracker that knows nobody. `unix_nanos` is the wall clock's time at [`Time::ZERO`].
    #[must_use]
    pub fn new(now: Time, config: &TrackerConfig, unix_nanos: u64, mut rng: Rng) -> Self {
        let life = config.interval.saturating_mul(INTERVALS);
        let shared = config.store.as_ref().map(|store| {
            let url = RedisUrl::parse(&store.0).expect("whoever reads a config refuses an address that is none");
            Box::new(Shared::new(now, url, unix_nanos, life, &mut rng))
        });
        let mut tracker = Self {
            swarms: Swarms::new(&mut rng, config.swarms_max, config.peers_max),
            ids: ConnectionIds::new(&mut rng),
            access: Access::new(&mut rng, &config.proxies),
            counters: Counters::default(),
            rng,
            ticks: Ticks::of(life),
            sweep_at: now,
            replies: Replies::default(),
            picked: Vec::new(),
            answers: VecDeque::new(),
            shared,
            config: config.clone(),
        };
        // Until the files are read that say otherwise, a closed tracker is for nobody.
        let hashes = (!config.open).then(Vec::new);
        let keys = config.needs_key.then(Vec::new);
        tracker.allow(Allowed { hashes, keys });
        tracker
    }

    /// The clock on the wall was set: by what it says now it said so at [`Time::ZERO`], nanoseconds. Only what is shared with other
    /// trackers goes by it.
    pub fn set_calendar(&mut self, unix_nanos: u64) {
        if let Some(shared) = &mut self.shared {
            shared.set_calendar(unix_nanos);
        }
    }

    /// True for a proxy of ours: many strangers come from its address.
    #[must_use]
    pub fn is_proxy(&self, ip: IpAddr) -> bool {
        self.access.is_proxy(ip)
    }

    /// So many swarms, and peers of them all, there may be from now on, and these proxies are believed; what is known beyond goes as it
    /// falls silent.
    pub fn reconfigure(&mut self, config: &TrackerConfig) {
        (self.config.swarms_max, self.config.peers_max) = (config.swarms_max, config.peers_max);
        self.swarms.set_bounds(config.swarms_max, config.peers_max);
        self.access.set_proxies(&config.proxies);
    }

    /// Other swarms and keys are allowed from now on. Peers of swarms that no longer are stay known until they are silent.
    pub fn allow(&mut self, allowed: Allowed) {
        self.access.set(allowed);
    }

    /// [`Tracker::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        if let Some(shared) = &mut self.shared {
            let mut waited = Vec::new();
            shared.handle_timeout(now, &self.swarms, self.ticks, &mut waited);
            waited.into_iter().for_each(|asked| self.resume(now, asked));
        }
        if now < self.sweep_at {
            return;
        }
        let tick = self.ticks.at(now);
        self.counters.peers_expired += self.swarms.sweep(tick, LIFE_TICKS, SWEPT_MAX) as u64;
        // All are looked at once in this time, however many there are.
        let all = self.config.interval.saturating_mul(INTERVALS) / SWEEPS;
        let steps = (self.swarms.peers() + self.swarms.len()) / SWEPT_MAX + 1;
        let pause = all / u32::try_from(steps).unwrap_or(u32::MAX);
        self.sweep_at = now + pause.max(Duration::from_millis(1));
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.sweep_at.min(self.shared.as_ref().map_or(Time::NEVER, |shared| shared.poll_timeout()))
    }

    /// True if its state is shared.
    #[must_use]
    pub fn has_store(&self) -> bool {
        self.shared.is_some()
    }

    /// The client of the store, for whoever has its streams; none if there is no store.
    pub fn store(&mut self) -> Option<&mut Redis> {
        self.shared.as_mut().map(|shared| &mut shared.redis)
    }

    /// Takes in what the store has told, to be called after each thing that happened to its client.
    pub fn handle_store(&mut self, now: Time) {
        if let Some(shared) = &mut self.shared {
            let mut waited = Vec::new();
            shared.act(now, &mut self.swarms, self.ticks, &mut waited);
            waited.into_iter().for_each(|asked| self.resume(now, asked));
        }
    }

    /// What an announce from `ip` says, if it may say it.
    fn saying(&self, ip: IpAddr, announce: &Announce, path: &[u8]) -> Result<Saying, Error> {
        self.access.check_path(path)?;
        let stray = u16::from(sabotage::is_broken(Sabotage::StrangerTold));
        let peer = SocketAddr::new(ip, announce.port ^ stray);
        let role = match announce.event {
            AnnounceEvent::Stopped => None,
            _ if announce.left == 0 => Some(Role::Seed),
            // Whoever completes and does not say how much is left has everything.
            AnnounceEvent::Completed if announce.left == u64::MAX => Some(Role::Seed),
            AnnounceEvent::Paused => Some(Role::PartialSeed),
            _ => Some(Role::Downloader),
        };
        if role.is_some() && !is_dialable(peer) {
            return Err(Error::Address);
        }
        if !self.access.allows(&announce.info_hash) {
            return Err(Error::NotAllowed);
        }
        Ok(Saying { peer, role, completed: announce.event == AnnounceEvent::Completed })
    }

    /// Seconds between announces that clients are told.
    fn interval_secs(&self) -> u32 {
        u32::try_from(self.config.interval.as_secs()).unwrap_or(u32::MAX)
    }
}

/// How many peers an answer holds at most: what the asker wants, within bounds.
fn wanted(asked: Option<u32>, v6: bool) -> usize {
    let most = if v6 { WANTED6_MAX } else { WANTED_MAX };
    asked.map_or(WANTED, |asked| usize::try_from(asked).unwrap_or(most)).min(most)
}
