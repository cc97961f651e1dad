//! Addresses that could be dialled: where they came from, how often they failed, when they may be tried again.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::{Reach, canonical_addr, is_dialable, priority, reach};
use crate::base::rng::Rng;
use crate::base::steps;
use crate::base::time::Time;

use self::table::Table;

/// Addresses of one torrent; a new one takes the place of one that failed (the user's word: of any other), or is dropped.
pub const CANDIDATES_MAX: usize = 3000;
/// And those of them that strangers told us of in one way; further ones take the place of one of the same origin that failed, or
/// are dropped.
const HEARSAY_MAX: usize = CANDIDATES_MAX / 2;
/// And those that were heard of in the local network, where anybody can speak in anybody's name; beyond it the same.
const LSD_MAX: usize = 256;
/// Banned addresses of one torrent; the oldest is forgotten beyond it.
pub const BANNED_MAX: usize = 1024;
/// After so many failures in a row an address is forgotten, unless the user named it.
const FAILURES_MAX: u8 = 3;
/// Wait after the first failure; doubles with each.
const BACKOFF: Duration = Duration::from_secs(30);
/// Wait after a connection that was made and ended. Doubles with each in a row that was short, up to [`SHORT_DOUBLINGS`]
/// times: who has no room for us, or nothing to say to us, is asked about once an hour.
const AGAIN: Duration = Duration::from_secs(60);
/// A connection that ended within so long of being dialled was short.
const SHORT: Duration = Duration::from_secs(60);
/// See [`AGAIN`].
const SHORT_DOUBLINGS: u8 = 6;
/// Wait between two tries of an address that the user named.
const USER_AGAIN: Duration = Duration::from_secs(5);
/// Addresses of one network (IPv4 /24, IPv6 /64) dialled within [`NETWORK_WINDOW`]; more have to wait, so that a liar
/// cannot point us all at one victim. Loopback and private networks are not counted.
const DIALS_PER_NETWORK_MAX: u32 = 10;
/// See [`DIALS_PER_NETWORK_MAX`].
const NETWORK_WINDOW: Duration = Duration::from_secs(60);
/// Networks that are counted; beyond it the counts begin anew.
const NETWORKS_MAX: usize = 1024;

/// How an address became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The user said so.
    User,
    /// A tracker.
    Tracker,
    /// The DHT.
    Dht,
    /// A magnet link.
    Link,
    /// It is in our local network (BEP 14).
    Lsd,
    /// It connected to us.
    Incoming,
    /// Another peer (BEP 11).
    Pex,
    /// It was saved by an earlier run.
    Resume,
}

impl Origin {
    /// How many kinds there are.
    const COUNT: usize = 8;
    /// All of them, in their order.
    const ALL: [Self; Self::COUNT] =
        [Self::User, Self::Tracker, Self::Dht, Self::Link, Self::Lsd, Self::Incoming, Self::Pex, Self::Resume];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Tracker => "tracker",
            Self::Dht => "dht",
            Self::Link => "link",
            Self::Lsd => "lsd",
            Self::Incoming => "incoming",
            Self::Pex => "pex",
            Self::Resume => "resume",
        }
    }

    /// How many addresses may be of this origin: not all, where anybody can tell us as many as he likes.
    const fn share_max(self) -> usize {
        match self {
            Self::Dht | Self::Incoming | Self::Pex => HEARSAY_MAX,
            Self::Lsd => LSD_MAX,
            Self::User | Self::Tracker | Self::Link | Self::Resume => CANDIDATES_MAX,
        }
    }

    /// True if an address of this origin takes the place of one of the `other` in a full table: the user's word that of all
    /// others, and what was asked for that of what peers say unasked.
    fn outranks(self, other: Self) -> bool {
        match self {
            Self::User => other != Self::User,
            Self::Tracker | Self::Dht => matches!(other, Self::Incoming | Self::Pex | Self::Lsd),
            Self::Incoming | Self::Pex | Self::Lsd | Self::Link | Self::Resume => false,
        }
    }
}

/// What goes on with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Idle,
    Dialling,
    Connected,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    origin: Origin,
    failures: u8,
    /// Short connections in a row.
    short: u8,
    /// Not before.
    next_try: Time,
    dialled_at: Time,
    usage: Use,
    /// It hung up on a ciphered handshake: the next one is plain.
    plain: bool,
    /// It had everything when we had, too: not dialled until [`Candidates::want`].
    complete: bool,
    /// Among equals, the order in which they are tried.
    rank: u32,
    /// Which index of the table it is in.
    is_ready: bool,
}

impl Candidate {
    fn is_idle(&self) -> bool {
        self.usage == Use::Idle
    }

    /// Its place among those that others may replace.
    fn replaceable(&self, addr: SocketAddr) -> (Origin, bool, u8, SocketAddr) {
        (self.origin, self.failures > 0 || self.complete, self.failures, addr)
    }

    /// Its place in the order in which addresses are tried: the user's first, then those that failed least, then by rank.
    fn order(&self, addr: SocketAddr) -> (bool, u8, u32, SocketAddr) {
        (self.origin == Origin::User, u8::MAX - self.failures, self.rank, addr)
    }
}

/// All addresses of one torrent.
#[derive(Debug)]
pub struct Candidates {
    known: Table,
    /// Banned addresses by when they were banned, and the other way round.
    banned: BTreeMap<u64, Banned>,
    bans_of: BTreeMap<Banned, u64>,
    bans: u64,
    ourselves: BTreeSet<SocketAddr>,
    /// Our end of a connection, once there was one: BEP 40 needs it.
    local: Option<SocketAddr>,
    networks: BTreeMap<IpAddr, u32>,
    networks_since: Time,
    rng: Rng,
}

/// A banned address. Loopback peers share one address and differ by port.
type Banned = (IpAddr, Option<u16>);

fn ban_key(addr: SocketAddr) -> Banned {
    let addr = canonical_addr(addr);
    (addr.ip(), addr.ip().is_loopback().then_some(addr.port()))
}

impl Candidates {
    /// None yet.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            known: Table::default(),
            banned: BTreeMap::new(),
            bans_of: BTreeMap::new(),
            bans: 0,
            ourselves: BTreeSet::new(),
            local: None,
            networks: BTreeMap::new(),
            networks_since: Time::ZERO,
            rng,
        }
    }

    /// Nothing is drawn for a while.
    pub(crate) fn rest(&mut self) {
        self.rng.rest();
    }

    /// How many addresses are known; at most [`CANDIDATES_MAX`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// True if no address is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// An address is told; what nobody can have, is banned, or is ourselves is ignored. The user's word counts anew. True if
    /// it was not known.
    pub fn add(&mut self, now: Time, addr: SocketAddr, origin: Origin) -> bool {
        let addr = canonical_addr(addr);
        if !is_dialable(addr) || self.ourselves.contains(&addr) || self.is_banned(addr) {
            return false;
        }
        if self.known.get(addr).is_some() {
            if origin == Origin::User {
                self.known.change(addr, |known| {
                    known.origin = origin;
                    known.failures = 0;
                    known.short = 0;
                    known.next_try = now;
                });
            }
            return false;
        }
        if origin == Origin::Pex && self.is_crowded(addr) || !self.make_room(origin) {
            return false;
        }
        let rank = match self.local {
            Some(local) => priority(local, addr),
            None => self.rng.u32(),
        };
        self.known.insert(
            addr,
            Candidate {
                origin,
                failures: 0,
                short: 0,
                next_try: now,
                dialled_at: now,
                usage: Use::Idle,
                plain: false,
                complete: false,
                rank,
                is_ready: false,
            },
        );
        true
    }

    /// Peers told us of another port of this address: whoever wants a victim dialled says so (BEP 11). On local networks
    /// nobody counts.
    fn is_crowded(&self, addr: SocketAddr) -> bool {
        let [first, last] = [0, u16::MAX].map(|port| SocketAddr::new(addr.ip(), port));
        let is_told = |known: &Candidate| known.origin == Origin::Pex;
        reach(addr.ip()) == Reach::World && self.known.range(first, last).any(is_told)
    }

    /// Makes room for one more address of `origin`; false if it must be dropped.
    fn make_room(&mut self, origin: Origin) -> bool {
        let is_full = self.known.len() >= CANDIDATES_MAX;
        let has_its_share = origin.share_max() < CANDIDATES_MAX && self.known.count(origin) >= origin.share_max();
        if !is_full && !has_its_share {
            return true;
        }
        let of = |other: Origin| self.known.to_replace(other, origin.outranks(other));
        let others = Origin::ALL.into_iter().filter(|other| !has_its_share || *other == origin);
        let Some((_, worst)) = others.filter_map(of).max() else { return false };
        self.known.remove(worst)
    }

    /// Our end of a connection.
    pub fn set_local(&mut self, local: SocketAddr) {
        self.local = Some(canonical_addr(local));
    }

    /// All that became known so.
    pub(crate) fn named_by(&self, origin: Origin) -> Vec<SocketAddr> {
        self.known.iter().filter(|(_, candidate)| candidate.origin == origin).map(|(addr, _)| addr).collect()
    }

    /// Our end of the latest connection that we made.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        self.local.map(|local| local.ip())
    }

    /// The next address to dial: the user's first, then by BEP 40's priority. It is busy from now on.
    pub fn next(&mut self, now: Time) -> Option<SocketAddr> {
        if now.since(self.networks_since) >= NETWORK_WINDOW || self.networks.len() > NETWORKS_MAX {
            self.networks.clear();
            self.networks_since = now;
        }
        let may_dial = |addr: &SocketAddr| {
            network(*addr)
                .is_none_or(|network| self.networks.get(&network).is_none_or(|&dials| dials < DIALS_PER_NETWORK_MAX))
        };
        let addr = self.known.ready(now).find(may_dial)?;
        if let Some(network) = network(addr) {
            *self.networks.entry(network).or_default() += 1;
        }
        self.known.change(addr, |known| (known.usage, known.dialled_at) = (Use::Dialling, now));
        Some(addr)
    }

    /// True if [`Candidates::next`] has something.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.known.next_time() <= now
    }

    /// When the next address may be dialled; never if there is none.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.known.next_time()
    }

    /// A dialled address answered; how it was known.
    pub fn handle_connected(&mut self, addr: SocketAddr) -> Origin {
        let connected = self.known.change(canonical_addr(addr), |known| {
            known.usage = Use::Connected;
            known.origin
        });
        connected.unwrap_or(Origin::User)
    }

    /// Whoever listens at `addr` has connected to us: nobody dials it until `handle_closed`. False if it is not known, or in
    /// use already.
    pub fn mark_connected(&mut self, now: Time, addr: SocketAddr) -> bool {
        let addr = canonical_addr(addr);
        let is_idle = self.known.get(addr).is_some_and(Candidate::is_idle);
        if is_idle {
            self.known.change(addr, |known| (known.usage, known.dialled_at) = (Use::Connected, now));
        }
        is_idle
    }

    /// Whether `addr` may be dialled with a ciphered handshake.
    #[must_use]
    pub fn takes_cipher(&self, addr: SocketAddr) -> bool {
        self.known.get(canonical_addr(addr)).is_none_or(|known| !known.plain)
    }

    /// A dialled address answered and hung up on our ciphered handshake: it is dialled again at once, plainly. False if that is
    /// nothing new.
    pub fn handle_no_cipher(&mut self, now: Time, addr: SocketAddr) -> bool {
        let addr = canonical_addr(addr);
        let is_new = self.known.get(addr).is_some_and(|known| !known.plain);
        if is_new {
            self.known.change(addr, |known| {
                known.plain = true;
                known.usage = Use::Idle;
                known.next_try = now;
            });
        }
        is_new
    }

    /// True if it did not answer, or parted with us before it introduced itself, when it was tried last.
    #[must_use]
    pub fn has_failed(&self, addr: SocketAddr) -> bool {
        self.known.get(canonical_addr(addr)).is_some_and(|known| known.failures > 0)
    }

    /// A dialled address did not answer.
    pub fn handle_failed(&mut self, now: Time, addr: SocketAddr) {
        let addr = canonical_addr(addr);
        let is_over = self.known.change(addr, |known| {
            known.usage = Use::Idle;
            known.plain = false;
            known.failures = known.failures.saturating_add(1);
            if known.origin == Origin::User {
                known.next_try = now + USER_AGAIN * u32::from(known.failures).min(12);
            } else if known.failures < FAILURES_MAX {
                known.next_try = now + BACKOFF * (1 << (known.failures - 1));
            }
            known.origin != Origin::User && known.failures >= FAILURES_MAX
        });
        if is_over == Some(true) {
            self.known.remove(addr);
        }
    }

    /// The connection to a dialled address ended; `was_good` if it was a peer of ours meanwhile.
    pub fn handle_closed(&mut self, now: Time, addr: SocketAddr, was_good: bool) {
        if !was_good {
            return self.handle_failed(now, addr);
        }
        self.known.change(canonical_addr(addr), |known| {
            known.usage = Use::Idle;
            known.failures = 0;
            let was_short = now.since(known.dialled_at) < SHORT;
            known.short = if was_short { known.short.saturating_add(1) } else { 0 };
            known.next_try = now
                + if known.origin == Origin::User {
                    USER_AGAIN * u32::from(known.short).clamp(1, 12)
                } else {
                    AGAIN * (1 << known.short.saturating_sub(1).min(SHORT_DOUBLINGS))
                };
        });
    }

    /// The connection to `addr` has ended, and neither had anything for the other: it is not dialled again before
    /// [`Candidates::want`]. Should it want something of us it knows where we are.
    pub fn mark_complete(&mut self, addr: SocketAddr) {
        let addr = canonical_addr(addr);
        if self.known.get(addr).is_some_and(|known| known.origin != Origin::User) {
            self.known.change(addr, |known| (known.complete, known.next_try) = (true, Time::NEVER));
        }
    }

    /// Forgets addresses that became known in a way that is not trusted any more.
    pub fn forget(&mut self, is_meant: impl Fn(Origin) -> bool) {
        self.known.retain(|_, known| !known.is_idle() || !is_meant(known.origin));
    }

    /// Something is wanted now: who has everything is worth a call again.
    pub fn want(&mut self, now: Time) {
        self.known.change_all(|known| {
            if std::mem::take(&mut known.complete) {
                known.next_try = now;
            }
        });
    }

    /// Everything may be dialled at once: the torrent starts anew and nobody is connected to it. What is still being
    /// dialled will be told of.
    pub fn reset(&mut self, now: Time) {
        self.known.change_all(|known| {
            known.next_try = now;
            known.short = 0;
            known.complete = false;
            if known.usage == Use::Connected {
                known.usage = Use::Idle;
            }
        });
    }

    /// This address is ourselves: never again.
    pub fn mark_ourselves(&mut self, addr: SocketAddr) {
        let addr = canonical_addr(addr);
        self.known.remove(addr);
        if self.ourselves.len() < BANNED_MAX {
            self.ourselves.insert(addr);
        }
    }

    /// It sent corrupt data: it is not dialled, and not taken when it comes.
    pub fn ban(&mut self, addr: SocketAddr) {
        let who = ban_key(addr);
        self.known.retain(|addr, _| ban_key(addr) != who);
        self.bans += 1;
        if let Some(before) = self.bans_of.insert(who, self.bans) {
            self.banned.remove(&before);
        }
        self.banned.insert(self.bans, who);
        if self.banned.len() > BANNED_MAX
            && let Some((_, oldest)) = self.banned.pop_first()
        {
            self.bans_of.remove(&oldest);
        }
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn check(&self) {
        assert!(self.known.len() <= CANDIDATES_MAX, "candidates of a torrent");
        self.known.check();
    }

    /// True if it was banned.
    #[must_use]
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        steps::add(1);
        self.bans_of.contains_key(&ban_key(addr))
    }
}

/// The network an address is counted under; none for loopback and private ones.
fn network(addr: SocketAddr) -> Option<IpAddr> {
    match addr.ip() {
        ip if reach(ip) < Reach::World => None,
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            Some(IpAddr::from([a, b, c, 0]))
        }
        IpAddr::V6(ip) => {
            let mut octets = ip.octets();
            octets[8..].fill(0);
            Some(IpAddr::from(octets))
        }
    }
}

#[cfg(test)]
mod tests;
