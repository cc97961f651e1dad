//! The peers of one swarm and family, in as few bytes as they need: 8 for an IPv4 peer, 20 for one of IPv6, and 2 to 5 to find it.
//!
//! They stand in one array: first those that only upload (seeds and partial seeds, BEP 21), then those that download. So an answer
//! to a seeder is drawn from the end of it. Where there are more than a few, a table of positions finds the peers of a host.

use std::net::{IpAddr, SocketAddr};

use crate::codec::compact::{V4_LEN, V6_LEN};
use crate::service::tracker::keyed::Mix;

/// Peers of one family in a swarm; one more takes the place of any other, by chance.
pub const PEERS_MAX: usize = 65_000;
/// Peers of one host (an IPv4 address, a /64 of IPv6) in a swarm; one more takes the place of the one of that host that was
/// silent for longest.
pub const HOST_PEERS_MAX: usize = 64;
/// So many are looked through one by one; more have a table.
const SCANNED_MAX: usize = 32;

/// What a peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It has everything.
    Seed,
    /// It has all that it wants, and not everything (BEP 21).
    PartialSeed,
    /// It wants more.
    Downloader,
}

/// An address of either family as answers carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    V4([u8; V4_LEN]),
    V6([u8; V6_LEN]),
}

impl Member {
    pub(super) fn of(peer: SocketAddr) -> Self {
        let port = peer.port().to_be_bytes();
        match peer.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, d] = ip.octets();
                Self::V4([a, b, c, d, port[0], port[1]])
            }
            IpAddr::V6(ip) => {
                let mut addr = [0; V6_LEN];
                addr[..16].copy_from_slice(&ip.octets());
                addr[16..].copy_from_slice(&port);
                Self::V6(addr)
            }
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self::V4).or_else(|_| bytes.try_into().map(Self::V6)).ok()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::V4(addr) => addr,
            Self::V6(addr) => addr,
        }
    }

    pub(super) const fn is_v6(&self) -> bool {
        matches!(self, Self::V6(_))
    }
}

/// When a peer was last heard of, in ticks of the tracker's clock, which wraps; and whether it is a partial seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u16);

const PARTIAL: u16 = 1 << 15;
/// Ticks are counted modulo this.
pub(super) const TICKS: u16 = 1 << 14;

impl Mark {
    fn new(tick: u16, role: Role) -> Self {
        Self((tick % TICKS) | if role == Role::PartialSeed { PARTIAL } else { 0 })
    }

    fn is_partial(self) -> bool {
        self.0 & PARTIAL != 0
    }

    /// Ticks since then.
    fn age(self, tick: u16) -> u16 {
        tick.wrapping_sub(self.0) % TICKS
    }
}

/// One peer: its address as answers carry it.
#[derive(Debug, Clone, Copy)]
struct Peer<const N: usize> {
    addr: [u8; N],
    mark: Mark,
}

/// What an announce changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The peer is new.
    Joined,
    /// It was known; true if it did not have everything before, and has now.
    Stayed {
        /// It became a seed.
        completed: bool,
    },
    /// It is new, and another one is gone for it.
    Displaced,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Complete peers.
    pub seeds: u32,
    /// Those that have all they want and not everything.
    pub partial_seeds: u32,
    /// Those that want more.
    pub downloaders: u32,
}

impl Counts {
    /// Peers that do not have everything, as trackers tell them (BEP 21, 48).
    #[must_use]
    pub const fn incomplete(&self) -> u32 {
        self.partial_seeds + self.downloaders
    }

    /// All of them.
    #[must_use]
    pub const fn all(&self) -> u32 {
        self.seeds + self.incomplete()
    }
}

/// Invariants: the first `uploaders` are seeds and partial seeds, `partials` of them the latter; no address stands twice; the
/// table, if there is one, has the position of each.
#[derive(Debug, Default)]
pub(super) struct Peers<const N: usize> {
    all: Vec<Peer<N>>,
    uploaders: u32,
    partials: u32,
    /// Positions plus one, by host, in the next free place; 0 is free. Empty while there are few peers.
    table: Box<[u16]>,
}

/// What a search for an address found.
struct Found {
    at: Option<usize>,
    /// Of the same host: how many, and which was silent for longest.
    of_host: usize,
    oldest: Option<usize>,
}

impl<const N: usize> Peers<N> {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            seeds: self.uploaders - self.partials,
            partial_seeds: self.partials,
            downloaders: u32::try_from(self.all.len()).expect("PEERS_MAX at most") - self.uploaders,
        }
    }

    pub(super) fn contains(&self, mix: Mix, addr: &[u8; N]) -> bool {
        self.find(mix, addr, 0).at.is_some()
    }

    /// A peer was heard of. `chance` names who goes where there is no room.
    pub(super) fn announce(&mut self, mix: Mix, addr: [u8; N], role: Role, tick: u16, chance: u64) -> Change {
        let found = self.find(mix, &addr, tick);
        let mark = Mark::new(tick, role);
        if let Some(at) = found.at {
            let was = self.role_at(at);
            if was == role {
                self.all[at].mark = mark;
            } else {
                self.remove_at(mix, at);
                self.insert(mix, Peer { addr, mark }, role);
            }
            return Change::Stayed { completed: role == Role::Seed && was != Role::Seed };
        }
        let displaced = match found.oldest {
            Some(oldest) if found.of_host >= HOST_PEERS_MAX => Some(oldest),
            _ if self.all.len() >= PEERS_MAX => Some(scaled(chance, self.all.len())),
            _ => None,
        };
        if let Some(at) = displaced {
            self.remove_at(mix, at);
        }
        self.insert(mix, Peer { addr, mark }, role);
        if displaced.is_some() { Change::Displaced } else { Change::Joined }
    }

    /// Another tracker heard of a peer `age` ticks ago; none if it left then. What we heard later counts.
    pub(super) fn hear(&mut self, mix: Mix, addr: [u8; N], role: Option<Role>, tick: u16, age: u16, chance: u64) {
        let found = self.find(mix, &addr, tick);
        if found.at.is_some_and(|at| self.all[at].mark.age(tick) < age) {
            return;
        }
        match role {
            Some(role) => _ = self.announce(mix, addr, role, tick.wrapping_sub(age), chance),
            None => _ = self.remove(mix, &addr),
        }
    }

    /// A peer left; what it was, if it was there.
    pub(super) fn remove(&mut self, mix: Mix, addr: &[u8; N]) -> Option<Role> {
        let at = self.find(mix, addr, 0).at?;
        let role = self.role_at(at);
        self.remove_at(mix, at);
        self.shrink();
        Some(role)
    }

    /// Forgets those that were silent for more than `life` ticks, so `many` at most. How many they were.
    pub(super) fn expire(&mut self, mix: Mix, tick: u16, life: u16, many: usize) -> usize {
        let before = self.all.len();
        // From the end: whoever takes an empty place was looked at already, or is an uploader that is looked at later.
        for at in (0..before).rev() {
            if before - self.all.len() >= many {
                break;
            }
            if self.all[at].mark.age(tick) > life {
                self.remove_at(mix, at);
            }
        }
        let gone = before - self.all.len();
        if gone > 0 {
            self.shrink();
        }
        gone
    }

    /// Appends the addresses of up to `wanted` peers to `out`, each as likely as any other, and never `asker`: whoever only
    /// uploads is told of those that download. How many they are.
    pub(super) fn pick(&self, asker: &[u8; N], role: Role, wanted: usize, mut chance: u64, out: &mut Vec<u8>) -> usize {
        let from = if role == Role::Downloader { &self.all[..] } else { &self.all[self.uploaders as usize..] };
        let mut picked = 0;
        // One more than wanted, since one may be the asker.
        if from.len() <= wanted + 1 {
            for peer in from {
                if picked < wanted && peer.addr != *asker {
                    out.extend_from_slice(&peer.addr);
                    picked += 1;
                }
            }
            return picked;
        }
        // One out of each of equal parts, which begin anywhere: nobody twice, and nobody less likely than another.
        let parts = wanted + 1;
        let start = scaled(chance, from.len());
        for part in 0..parts {
            let (begin, end) = (part * from.len() / parts, (part + 1) * from.len() / parts);
            chance = next_chance(chance);
            let mut at = start + begin + scaled(chance, end - begin);
            if at >= from.len() {
                at -= from.len();
            }
            if picked < wanted && from[at].addr != *asker {
                out.extend_from_slice(&from[at].addr);
                picked += 1;
            }
        }
        picked
    }

    /// Every peer: its address, what it does, and ticks since it was heard of.
    pub(super) fn iter(&self, tick: u16) -> impl Iterator<Item = ([u8; N], Role, u16)> {
        (0..self.all.len()).map(move |at| (self.all[at].addr, self.role_at(at), self.all[at].mark.age(tick)))
    }

    /// Memory beside the struct itself.
    pub(super) fn bytes(&self) -> usize {
        self.all.capacity() * size_of::<Peer<N>>() + size_of_val(&*self.table)
    }

    /// What must hold of it.
    pub(super) fn check(&self, mix: Mix) {
        assert!(self.all.len() <= PEERS_MAX, "peers of a swarm");
        let (uploaders, rest) = self.all.split_at(self.uploaders as usize);
        let partials = uploaders.iter().filter(|peer| peer.mark.is_partial()).count();
        assert_eq!(partials, self.partials as usize, "partial seeds");
        assert!(rest.iter().all(|peer| !peer.mark.is_partial()), "no partial seed downloads");
        for (at, peer) in self.all.iter().enumerate() {
            assert_eq!(self.find(mix, &peer.addr, 0).at, Some(at), "each address is found, where it is");
        }
    }

    fn role_at(&self, at: usize) -> Role {
        match (at < self.uploaders as usize, self.all[at].mark.is_partial()) {
            (true, false) => Role::Seed,
            (true, true) => Role::PartialSeed,
            (false, _) => Role::Downloader,
        }
    }

    fn find(&self, mix: Mix, addr: &[u8; N], tick: u16) -> Found {
        let mut found = Found { at: None, of_host: 0, oldest: None };
        let host = host(addr);
        if self.table.is_empty() {
            for at in 0..self.all.len() {
                self.compare(at, addr, host, tick, &mut found);
            }
        } else {
            let mask = self.table.len() - 1;
            let mut slot = mix.slot(host, mask);
            while self.table[slot] != 0 && found.at.is_none() {
                self.compare(usize::from(self.table[slot]) - 1, addr, host, tick, &mut found);
                slot = (slot + 1) & mask;
            }
        }
        found
    }

    fn compare(&self, at: usize, addr: &[u8; N], host: u64, tick: u16, found: &mut Found) {
        let peer = &self.all[at];
        if peer.addr == *addr {
            found.at = Some(at);
        } else if self::host(&peer.addr) == host {
            found.of_host += 1;
            let is_older = |other: usize| self.all[other].mark.age(tick) < peer.mark.age(tick);
            if found.oldest.is_none_or(is_older) {
                found.oldest = Some(at);
            }
        }
    }

    fn insert(&mut self, mix: Mix, peer: Peer<N>, role: Role) {
        self.make_room(mix);
        let at = self.all.len();
        self.all.push(peer);
        self.enter(mix, at);
        if role != Role::Downloader {
            self.swap(mix, at, self.uploaders as usize);
            self.uploaders += 1;
            self.partials += u32::from(role == Role::PartialSeed);
        }
    }

    fn remove_at(&mut self, mix: Mix, mut at: usize) {
        let uploaders = self.uploaders as usize;
        if at < uploaders {
            self.partials -= u32::from(self.all[at].mark.is_partial());
            self.swap(mix, at, uploaders - 1);
            self.uploaders -= 1;
            at = uploaders - 1;
        }
        let last = self.all.len() - 1;
        self.swap(mix, at, last);
        self.leave(mix, last);
        self.all.pop();
    }

    /// Two peers change places.
    fn swap(&mut self, mix: Mix, a: usize, b: usize) {
        if a == b {
            return;
        }
        self.all.swap(a, b);
        if !self.table.is_empty() {
            // Each slot holds what the other one should, now; they are found by where they were.
            let (slot_a, slot_b) = (self.slot_of(mix, b, a), self.slot_of(mix, a, b));
            self.table.swap(slot_a, slot_b);
        }
    }

    /// Where the table has `position` for the peer that stands at `at`.
    fn slot_of(&self, mix: Mix, at: usize, position: usize) -> usize {
        let mask = self.table.len() - 1;
        let mut slot = mix.slot(host(&self.all[at].addr), mask);
        while usize::from(self.table[slot]) != position + 1 {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Enters the peer at a position into the table, if there is one.
    fn enter(&mut self, mix: Mix, at: usize) {
        if self.table.is_empty() {
            return;
        }
        let mask = self.table.len() - 1;
        let mut slot = mix.slot(host(&self.all[at].addr), mask);
        while self.table[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.table[slot] = u16::try_from(at + 1).expect("PEERS_MAX at most");
    }

    /// Takes the peer at a position out of the table, if there is one; those behind it move up.
    fn leave(&mut self, mix: Mix, at: usize) {
        if self.table.is_empty() {
            return;
        }
        let mask = self.table.len() - 1;
        let mut free = self.slot_of(mix, at, at);
        let mut slot = free;
        loop {
            slot = (slot + 1) & mask;
            let Some(other) = usize::from(self.table[slot]).checked_sub(1) else { break };
            let home = mix.slot(host(&self.all[other].addr), mask);
            // It may move if its home is not behind the free slot.
            if (slot.wrapping_sub(home) & mask) >= (slot.wrapping_sub(free) & mask) {
                self.table[free] = self.table[slot];
                free = slot;
            }
        }
        self.table[free] = 0;
    }

    /// Makes room for one more.
    fn make_room(&mut self, mix: Mix) {
        if self.all.len() == self.all.capacity() {
            // An eighth more at least: doubling would leave a quarter of the memory idle.
            self.all.reserve_exact(self.all.len() / 8 + 2);
        }
        let wanted = self.all.len() + 1;
        let room = self.table.len() / 8 * 7;
        if wanted > SCANNED_MAX && wanted > room {
            self.rebuild(mix, (wanted * 8 / 7 + 1).next_power_of_two());
        }
    }

    fn rebuild(&mut self, mix: Mix, slots: usize) {
        self.table = vec![0; slots].into_boxed_slice();
        for at in 0..self.all.len() {
            self.enter(mix, at);
        }
    }

    /// Gives memory back when most of it is idle.
    fn shrink(&mut self) {
        if self.all.len() <= SCANNED_MAX / 2 && !self.table.is_empty() {
            self.table = Box::default();
        }
        if self.all.capacity() > 8 && self.all.len() < self.all.capacity() / 2 {
            self.all.shrink_to(self.all.len() + self.all.len() / 8 + 2);
        }
    }
}

/// What counts as one host: an IPv4 address, or the 64 bits of an IPv6 address that a network gives to one customer.
fn host<const N: usize>(addr: &[u8; N]) -> u64 {
    if N == 6 {
        u64::from(u32::from_ne_bytes([addr[0], addr[1], addr[2], addr[3]]))
    } else {
        u64::from_ne_bytes([addr[0], addr[1], addr[2], addr[3], addr[4], addr[5], addr[6], addr[7]])
    }
}

/// A number below `bound` (32 bits) from the high bits of `chance`.
fn scaled(chance: u64, bound: usize) -> usize {
    usize::try_from(((chance >> 32) * bound as u64) >> 32).expect("below a usize")
}

/// The next draw (`SplitMix64`): fast, and only ever seeded from the node's own generator.
fn next_chance(chance: u64) -> u64 {
    let mut next = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    next ^ (next >> 31)
}

#[cfg(test)]
mod tests;
