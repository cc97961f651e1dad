//! Addresses that could be dialled: where they came from, how often they failed, when they may be tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::{Reach, canonical_addr, is_dialable, priority, reach};
use crate::base::rng::Rng;
use crate::base::time::Time;

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
}

impl Candidate {
    fn is_idle(&self) -> bool {
        self.usage == Use::Idle
    }
}

/// All addresses of one torrent.
#[derive(Debug)]
pub struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
    banned: BTreeSet<Ban>,
    bans: u64,
    ourselves: BTreeSet<SocketAddr>,
    /// Our end of a connection, once there was one: BEP 40 needs it.
    local: Option<SocketAddr>,
    networks: BTreeMap<IpAddr, u32>,
    networks_since: Time,
    rng: Rng,
}

/// A banned address and when it was, for the order of forgetting. Loopback peers share one address and differ by port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ban {
    when: u64,
    who: (IpAddr, Option<u16>),
}

fn ban_key(addr: SocketAddr) -> (IpAddr, Option<u16>) {
    let addr = canonical_addr(addr);
    (addr.ip(), addr.ip().is_loopback().then_some(addr.port()))
}

impl Candidates {
    /// None yet.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self {
            known: BTreeMap::new(),
            banned: BTreeSet::new(),
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
        if let Some(known) = self.known.get_mut(&addr) {
            if origin == Origin::User {
                known.origin = origin;
                known.failures = 0;
                known.short = 0;
                known.next_try = now;
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
            },
        );
        true
    }

    /// Peers told us of another port of this address: whoever wants a victim dialled says so (BEP 11). On local networks
    /// nobody counts.
    fn is_crowded(&self, addr: SocketAddr) -> bool {
        let [first, last] = [0, u16::MAX].map(|port| SocketAddr::new(addr.ip(), port));
        let is_told = |known: &Candidate| known.origin == Origin::Pex;
        reach(addr.ip()) == Reach::World && self.known.range(first..=last).any(|(_, known)| is_told(known))
    }

    /// Makes room for one more address of `origin`; false if it must be dropped.
    fn make_room(&mut self, origin: Origin) -> bool {
        let is_full = self.known.len() >= CANDIDATES_MAX;
        let of_origin = || self.known.values().filter(|known| known.origin == origin).count();
        let has_its_share = origin.share_max() < CANDIDATES_MAX && of_origin() >= origin.share_max();
        if !is_full && !has_its_share {
            return true;
        }
        let may_go = |known: &Candidate| {
            known.is_idle()
                && (!has_its_share || known.origin == origin)
                && (known.failures > 0 || known.complete || origin.outranks(known.origin))
        };
        let worst = self.known.iter().filter(|(_, known)| may_go(known)).max_by_key(|(_, known)| known.failures);
        let Some(worst) = worst.map(|(&addr, _)| addr) else { return false };
        self.known.remove(&worst);
        true
    }

    /// Our end of a connection.
    pub fn set_local(&mut self, local: SocketAddr) {
        self.local = Some(canonical_addr(local));
    }

    /// All that became known so.
    pub(crate) fn named_by(&self, origin: Origin) -> Vec<SocketAddr> {
        self.known.iter().filter(|(_, candidate)| candidate.origin == origin).map(|(addr, _)| *addr).collect()
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
        let ready = self.known.iter().filter(|(_, known)| known.is_idle() && known.next_try <= now);
        let allowed = ready.filter(|(addr, _)| {
            network(**addr)
                .is_none_or(|network| self.networks.get(&network).is_none_or(|&dials| dials < DIALS_PER_NETWORK_MAX))
        });
        let best =
            allowed.max_by_key(|(_, known)| (known.origin == Origin::User, u8::MAX - known.failures, known.rank));
        let addr = *best?.0;
        if let Some(network) = network(addr) {
            *self.networks.entry(network).or_default() += 1;
        }
        let known = self.known.get_mut(&addr).expect("it was just found");
        known.usage = Use::Dialling;
        known.dialled_at = now;
        Some(addr)
    }

    /// True if [`Candidates::next`] has something.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.known.values().any(|known| known.is_idle() && known.next_try <= now)
    }

    /// When the next address may be dialled; never if there is none.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let waiting = self.known.values().filter(|known| known.is_idle());
        waiting.map(|known| known.next_try).min().unwrap_or(Time::NEVER)
    }

    /// A dialled address answered; how it was known.
    pub fn handle_connected(&mut self, addr: SocketAddr) -> Origin {
        let Some(known) = self.known.get_mut(&canonical_addr(addr)) else { return Origin::User };
        known.usage = Use::Connected;
        known.origin
    }

    /// Whoever listens at `addr` has connected to us: nobody dials it until `handle_closed`. False if it is not known, or in
    /// use already.
    pub fn mark_connected(&mut self, now: Time, addr: SocketAddr) -> bool {
        let known = self.known.get_mut(&canonical_addr(addr)).filter(|known| known.is_idle());
        if let Some(known) = known {
            known.usage = Use::Connected;
            known.dialled_at = now;
            return true;
        }
        false
    }

    /// Whether `addr` may be dialled with a ciphered handshake.
    #[must_use]
    pub fn takes_cipher(&self, addr: SocketAddr) -> bool {
        self.known.get(&canonical_addr(addr)).is_none_or(|known| !known.plain)
    }

    /// A dialled address answered and hung up on our ciphered handshake: it is dialled again at once, plainly. False if that is
    /// nothing new.
    pub fn handle_no_cipher(&mut self, now: Time, addr: SocketAddr) -> bool {
        let Some(known) = self.known.get_mut(&canonical_addr(addr)).filter(|known| !known.plain) else { return false };
        known.plain = true;
        known.usage = Use::Idle;
        known.next_try = now;
        true
    }

    /// True if it did not answer, or parted with us before it introduced itself, when it was tried last.
    #[must_use]
    pub fn has_failed(&self, addr: SocketAddr) -> bool {
        self.known.get(&canonical_addr(addr)).is_some_and(|known| known.failures > 0)
    }

    /// A dialled address did not answer.
    pub fn handle_failed(&mut self, now: Time, addr: SocketAddr) {
        let addr = canonical_addr(addr);
        let Some(known) = self.known.get_mut(&addr) else { return };
        known.usage = Use::Idle;
        known.plain = false;
        known.failures = known.failures.saturating_add(1);
        if known.origin == Origin::User {
            known.next_try = now + USER_AGAIN * u32::from(known.failures).min(12);
        } else if known.failures >= FAILURES_MAX {
            self.known.remove(&addr);
        } else {
            known.next_try = now + BACKOFF * (1 << (known.failures - 1));
        }
    }

    /// The connection to a dialled address ended; `was_good` if it was a peer of ours meanwhile.
    pub fn handle_closed(&mut self, now: Time, addr: SocketAddr, was_good: bool) {
        if !was_good {
            return self.handle_failed(now, addr);
        }
        if let Some(known) = self.known.get_mut(&canonical_addr(addr)) {
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
        }
    }

    /// The connection to `addr` has ended, and neither had anything for the other: it is not dialled again before
    /// [`Candidates::want`]. Should it want something of us it knows where we are.
    pub fn mark_complete(&mut self, addr: SocketAddr) {
        let known = self.known.get_mut(&canonical_addr(addr)).filter(|known| known.origin != Origin::User);
        if let Some(known) = known {
            known.complete = true;
            known.next_try = Time::NEVER;
        }
    }

    /// Forgets addresses that became known in a way that is not trusted any more.
    pub fn forget(&mut self, is_meant: impl Fn(Origin) -> bool) {
        self.known.retain(|_, known| !known.is_idle() || !is_meant(known.origin));
    }

    /// Something is wanted now: who has everything is worth a call again.
    pub fn want(&mut self, now: Time) {
        for known in self.known.values_mut().filter(|known| known.complete) {
            known.complete = false;
            known.next_try = now;
        }
    }

    /// Everything may be dialled at once: the torrent starts anew and nobody is connected to it. What is still being
    /// dialled will be told of.
    pub fn reset(&mut self, now: Time) {
        for known in self.known.values_mut() {
            known.next_try = now;
            known.short = 0;
            known.complete = false;
            if known.usage == Use::Connected {
                known.usage = Use::Idle;
            }
        }
    }

    /// This address is ourselves: never again.
    pub fn mark_ourselves(&mut self, addr: SocketAddr) {
        let addr = canonical_addr(addr);
        self.known.remove(&addr);
        if self.ourselves.len() < BANNED_MAX {
            self.ourselves.insert(addr);
        }
    }

    /// It sent corrupt data: it is not dialled, and not taken when it comes.
    pub fn ban(&mut self, addr: SocketAddr) {
        let who = ban_key(addr);
        self.known.retain(|&addr, _| ban_key(addr) != who);
        self.bans += 1;
        self.banned.insert(Ban { when: self.bans, who });
        if self.banned.len() > BANNED_MAX {
            self.banned.pop_first();
        }
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn check(&self) {
        assert!(self.known.len() <= CANDIDATES_MAX, "candidates of a torrent");
    }

    /// True if it was banned.
    #[must_use]
    pub fn is_banned(&self, addr: SocketAddr) -> bool {
        let who = ban_key(addr);
        self.banned.iter().any(|ban| ban.who == who)
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
