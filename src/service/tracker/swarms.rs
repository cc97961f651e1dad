//! All swarms: who is in which, found by info hash, forgotten a few at a time.
//!
//! The table is cut into shards, so that none of them is ever long to grow. The two families of a swarm know nothing of one
//! another: whoever asks by IPv4 is told of IPv4 peers, and counts them.

use std::net::SocketAddr;

use indexmap::IndexMap;

use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::sabotage::{self, Sabotage};
use crate::base::time::Time;
use crate::codec::compact::{V4_LEN, V6_LEN};
use crate::service::tracker::LIFE_TICKS;
use crate::service::tracker::keyed::{Keyed, Mix};
use crate::service::tracker::peers::{Change, Counts, Member, Peers, Role};

/// Parts of the table of swarms.
const SHARDS: usize = 64;
/// Swarms that are looked at when there is no room for another; that of them with the fewest peers goes, if it has no more than
/// [`EVICTED_PEERS_MAX`].
const LOOKED_AT: usize = 8;
/// A swarm of more peers is not given up for a new one.
const EVICTED_PEERS_MAX: usize = 1;

/// One swarm.
#[derive(Debug, Default)]
struct Swarm {
    v4: Peers<V4_LEN>,
    v6: Option<Box<Peers<V6_LEN>>>,
    /// Downloads ever completed, in IPv4 and IPv6.
    completed: [u32; 2],
    /// Seconds at which it was last read from a store, and one; 0 is never.
    read_secs: u32,
}

/// A place in the table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    shard: usize,
    index: usize,
    /// So many of the swarm's peers are done.
    peer: usize,
}

/// What another tracker heard of a peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) member: Member,
    /// None if it left.
    pub(super) role: Option<Role>,
    /// Ticks since then.
    pub(super) age: u64,
}

impl Swarm {
    fn len(&self) -> usize {
        self.v4.len() + self.v6.as_ref().map_or(0, |peers| peers.len())
    }

    fn counts(&self, v6: bool) -> Counts {
        if v6 { self.v6.as_ref().map(|peers| peers.counts()).unwrap_or_default() } else { self.v4.counts() }
    }

    fn tallies(&self, v6: bool) -> Tallies {
        Tallies { counts: self.counts(v6), completed: self.completed[usize::from(v6)] }
    }
}

/// What is told of one family of a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tallies {
    /// Who is there.
    pub counts: Counts,
    /// Downloads ever completed.
    pub completed: u32,
}

/// What a peer says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saying {
    pub(super) peer: SocketAddr,
    /// None if it leaves.
    pub(super) role: Option<Role>,
    /// It says that it has just become complete.
    pub(super) completed: bool,
}

/// An announce that was taken: the swarm as it is now.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) tallies: Tallies,
    /// It is one more that has completed its download.
    pub(super) completed: bool,
    /// Another peer made room for it.
    pub(super) displaced: bool,
    /// It could not be taken in, as there are too many peers in all; it may be told of others.
    pub(super) left_out: bool,
    swarm: Option<&'a Swarm>,
}

impl Told<'_> {
    /// Appends up to `wanted` peers of the asker's family. How many they are.
    pub(super) fn pick(&self, saying: &Saying, wanted: usize, chance: u64, out: &mut Vec<u8>) -> usize {
        let (Some(swarm), Some(role)) = (self.swarm, saying.role) else { return 0 };
        match Member::of(saying.peer) {
            Member::V4(addr) => swarm.v4.pick(&addr, role, wanted, chance, out),
            Member::V6(addr) => swarm.v6.as_ref().map_or(0, |peers| peers.pick(&addr, role, wanted, chance, out)),
        }
    }
}

/// The table. Invariant: `peers` are those of all swarms together.
#[derive(Debug)]
pub(super) struct Swarms {
    shards: Vec<IndexMap<InfoHash, Swarm, Keyed>>,
    mix: Mix,
    swarms_max: usize,
    peers_max: usize,
    swarms: usize,
    peers: usize,
    /// Where the sweep goes on.
    swept: Place,
}

impl Swarms {
    pub(super) fn new(rng: &mut Rng, swarms_max: usize, peers_max: usize) -> Self {
        let keyed = Keyed::new(rng);
        Self {
            shards: (0..SHARDS).map(|_| IndexMap::with_hasher(keyed.clone())).collect(),
            mix: Mix::new(rng),
            swarms_max,
            peers_max,
            swarms: 0,
            peers: 0,
            swept: Place::default(),
        }
    }

    /// So many there may be from now on.
    pub(super) fn set_bounds(&mut self, swarms_max: usize, peers_max: usize) {
        (self.swarms_max, self.peers_max) = (swarms_max, peers_max);
    }

    pub(super) fn len(&self) -> usize {
        self.swarms
    }

    pub(super) fn peers(&self) -> usize {
        self.peers
    }

    pub(super) fn tallies(&self, hash: &InfoHash, v6: bool) -> Tallies {
        self.shards[shard_of(hash)].get(hash).map(|swarm| swarm.tallies(v6)).unwrap_or_default()
    }

    /// A peer says something of itself at `tick`; none if there are too many swarms for a new one.
    pub(super) fn announce(&mut self, hash: &InfoHash, saying: &Saying, tick: u16, chance: u64) -> Option<Told<'_>> {
        let at = shard_of(hash);
        let index = match self.shards[at].get_index_of(hash) {
            Some(index) => index,
            None if saying.role.is_none() || self.peers >= self.peers_max => {
                let left_out = saying.role.is_some();
                let tallies = Tallies::default();
                return Some(Told { tallies, completed: false, displaced: false, left_out, swarm: None });
            }
            None => self.begin(hash, chance)?,
        };
        let mix = self.mix;
        let (_, swarm) = self.shards[at].get_index_mut(index).expect("it was just found");
        let before = swarm.len();
        let has_room = self.peers < self.peers_max;
        let change = match Member::of(saying.peer) {
            Member::V4(addr) => change(&mut swarm.v4, mix, addr, saying.role, tick, chance, has_room),
            Member::V6(addr) => {
                change(swarm.v6.get_or_insert_default(), mix, addr, saying.role, tick, chance, has_room)
            }
        };
        self.peers = self.peers + swarm.len() - before;
        let v6 = saying.peer.is_ipv6();
        // A peer that was not known may complete, too; one that has everything completes no more.
        let completed = match change {
            Some(Change::Stayed { completed }) => completed,
            Some(Change::Joined | Change::Displaced) => saying.completed,
            None => false,
        };
        let count = &mut swarm.completed[usize::from(v6)];
        *count = count.saturating_add(u32::from(completed));
        Some(Told {
            tallies: swarm.tallies(v6),
            completed,
            displaced: change == Some(Change::Displaced),
            left_out: change.is_none() && saying.role.is_some(),
            swarm: Some(swarm),
        })
    }

    /// Memory for all of it, bytes, without what the allocator keeps to itself.
    pub(super) fn bytes(&self) -> usize {
        let entry = size_of::<(u64, InfoHash, Swarm)>() + size_of::<usize>();
        let swarms = self.shards.iter().flat_map(|shard| shard.values());
        let v6 = |peers: &Peers<V6_LEN>| size_of::<Peers<V6_LEN>>() + peers.bytes();
        let peers = swarms.map(|swarm| swarm.v4.bytes() + swarm.v6.as_ref().map_or(0, |peers| v6(peers)));
        self.shards.iter().map(|shard| shard.capacity() * entry).sum::<usize>() + peers.sum::<usize>()
    }

    /// What must hold of it.
    pub(super) fn check(&self) {
        let swarms = || self.shards.iter().flat_map(|shard| shard.values());
        assert_eq!(swarms().map(Swarm::len).sum::<usize>(), self.peers, "peers of all swarms");
        assert_eq!(swarms().count(), self.swarms, "swarms of all shards");
        assert!(self.swarms <= self.swarms_max && self.peers <= self.peers_max, "no more than there may be");
        for swarm in swarms() {
            swarm.v4.check(self.mix);
            if let Some(peers) = &swarm.v6 {
                peers.check(self.mix);
            }
        }
    }

    /// When the swarm was last read from a store that is shared.
    pub(super) fn read_at(&self, hash: &InfoHash) -> Option<Time> {
        let secs = self.shards[shard_of(hash)].get(hash)?.read_secs;
        secs.checked_sub(1).map(|secs| Time::from_secs(u64::from(secs)))
    }

    /// What other trackers heard of a swarm, as it was read at `now`, which is `tick`. A swarm that we do not know is taken in if
    /// anybody is there, or if it `is_wanted`.
    pub(super) fn hear(
        &mut self,
        hash: &InfoHash,
        heard: impl Iterator<Item = Heard>,
        completed: [u32; 2],
        tick: u16,
        now: Time,
        is_wanted: bool,
    ) {
        let mut heard = heard.filter(|heard| heard.age <= u64::from(LIFE_TICKS)).peekable();
        let at = shard_of(hash);
        if !self.shards[at].contains_key(hash) {
            let is_there = is_wanted || heard.peek().is_some();
            if !is_there || self.begin(hash, now.as_nanos()).is_none() {
                return;
            }
        }
        let mix = self.mix;
        let room = self.peers_max.saturating_sub(self.peers);
        let swarm = self.shards[at].get_mut(hash).expect("it was there, or was just put there");
        let before = swarm.len();
        for (number, Heard { member, role, age }) in heard.enumerate() {
            if role.is_some() && swarm.len() >= before + room {
                continue;
            }
            let age = u16::try_from(age).expect("LIFE_TICKS at most");
            let chance = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            match member {
                Member::V4(addr) => swarm.v4.hear(mix, addr, role, tick, age, chance),
                Member::V6(addr) => swarm.v6.get_or_insert_default().hear(mix, addr, role, tick, age, chance),
            }
        }
        for (known, completed) in swarm.completed.iter_mut().zip(completed) {
            *known = (*known).max(completed);
        }
        swarm.read_secs = u32::try_from(now.as_secs() + 1).unwrap_or(u32::MAX);
        self.peers = self.peers + swarm.len() - before;
    }

    /// Appends peers from a place on, with what each does and the ticks since it was heard of, until there are `most`; where to go on,
    /// if there is more. Who comes or goes between two calls may be left out, or stand there twice.
    pub(super) fn known_from(
        &self,
        mut place: Place,
        most: usize,
        tick: u16,
        known: &mut Vec<(InfoHash, Member, Role, u16)>,
    ) -> Option<Place> {
        while known.len() < most {
            let Some((hash, swarm)) = self.shards.get(place.shard)?.get_index(place.index) else {
                place = Place { shard: place.shard + 1, ..Place::default() };
                continue;
            };
            let v4 = swarm.v4.iter(tick).map(|(addr, role, age)| (*hash, Member::V4(addr), role, age));
            let v6 = swarm.v6.iter().flat_map(|peers| peers.iter(tick));
            let all = v4.chain(v6.map(|(addr, role, age)| (*hash, Member::V6(addr), role, age)));
            let before = known.len();
            known.extend(all.skip(place.peer).take(most - before));
            place.peer += known.len() - before;
            if place.peer >= swarm.len() {
                place = Place { index: place.index + 1, peer: 0, ..place };
            }
        }
        Some(place)
    }

    /// A new swarm's place in its shard; none if there is no room for one.
    fn begin(&mut self, hash: &InfoHash, chance: u64) -> Option<usize> {
        if self.swarms >= self.swarms_max && !self.make_room(chance) {
            return None;
        }
        self.swarms += 1;
        Some(self.shards[shard_of(hash)].insert_full(*hash, Swarm::default()).0)
    }

    /// Gives up a swarm with hardly anybody in it; false if none was found.
    fn make_room(&mut self, chance: u64) -> bool {
        let mut rng = Rng::from_number(chance);
        let mut emptiest: Option<(usize, usize, usize)> = None;
        for _ in 0..LOOKED_AT {
            let shard = rng.index(SHARDS);
            if self.shards[shard].is_empty() {
                continue;
            }
            let index = rng.index(self.shards[shard].len());
            let len = self.shards[shard][index].len();
            if emptiest.is_none_or(|(least, ..)| len < least) {
                emptiest = Some((len, shard, index));
            }
        }
        match emptiest {
            Some((len, shard, index)) if len <= EVICTED_PEERS_MAX => {
                self.shards[shard].swap_remove_index(index);
                self.swarms -= 1;
                self.peers -= len;
                true
            }
            _ => false,
        }
    }

    /// Forgets peers that were silent for more than `life` ticks, and swarms without any, going on where it stopped: so many
    /// peers and swarms are looked at, of which one swarm may be more, and no more of one family of it go. How many peers went.
    pub(super) fn sweep(&mut self, tick: u16, life: u16, budget: usize) -> usize {
        let (mut looked_at, mut gone) = (0, 0);
        while looked_at < budget {
            let shard = &mut self.shards[self.swept.shard];
            let Some((_, swarm)) = shard.get_index_mut(self.swept.index) else {
                if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                    shard.shrink_to(shard.len() * 2);
                }
                self.swept.index = 0;
                self.swept.shard = (self.swept.shard + 1) % SHARDS;
                if self.swept.shard == 0 {
                    break;
                }
                continue;
            };
            looked_at += 1 + swarm.len();
            let before = gone;
            gone += swarm.v4.expire(self.mix, tick, life, budget);
            if let Some(peers) = &mut swarm.v6 {
                gone += peers.expire(self.mix, tick, life, budget);
                if peers.len() == 0 {
                    swarm.v6 = None;
                }
            }
            if gone - before >= budget && swarm.len() > 0 {
                break; // the same one goes on with the next step
            } else if swarm.len() == 0 {
                shard.swap_remove_index(self.swept.index);
                self.swarms -= 1;
            } else {
                self.swept.index += 1;
            }
        }
        self.peers -= gone;
        gone
    }
}

/// What `role` changes in a family of a swarm; none if nothing was, or could be, taken in.
fn change<const N: usize>(
    peers: &mut Peers<N>,
    mix: Mix,
    addr: [u8; N],
    role: Option<Role>,
    tick: u16,
    chance: u64,
    has_room: bool,
) -> Option<Change> {
    match role {
        Some(role) if has_room || peers.contains(mix, &addr) => Some(peers.announce(mix, addr, role, tick, chance)),
        Some(_) => None,
        None => {
            if !sabotage::is_broken(Sabotage::StoppedKept) {
                peers.remove(mix, &addr);
            }
            None
        }
    }
}

fn shard_of(hash: &InfoHash) -> usize {
    usize::from(hash.0[19]) % SHARDS
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn saying(host: u32, role: Option<Role>) -> Saying {
        Saying { peer: SocketAddr::new(IpAddr::V4(host.into()), 6881), role, completed: false }
    }

    fn swarms(swarms_max: usize, peers_max: usize) -> Swarms {
        Swarms::new(&mut Rng::from_number(1), swarms_max, peers_max)
    }

    fn hash(number: u32) -> InfoHash {
        InfoHash::of(&number.to_be_bytes())
    }

    #[test]
    fn the_families_of_a_swarm_are_kept_apart() {
        let mut swarms = swarms(10, 10);
        let v6 = Saying { peer: "[2001:db8::1]:5".parse().unwrap(), role: Some(Role::Seed), completed: true };
        swarms.announce(&hash(1), &v6, 0, 0).unwrap();
        let asker = saying(1, Some(Role::Downloader));
        let told = swarms.announce(&hash(1), &asker, 0, 0).unwrap();
        assert_eq!(told.tallies.counts, Counts { seeds: 0, partial_seeds: 0, downloaders: 1 });
        let mut out = Vec::new();
        assert_eq!(told.pick(&asker, 50, 0, &mut out), 0);
        assert_eq!(swarms.tallies(&hash(1), true).completed, 1);
        assert_eq!((swarms.len(), swarms.peers()), (1, 2));
    }

    #[test]
    fn a_download_completes_once() {
        let mut swarms = swarms(10, 10);
        let completed = |swarms: &mut Swarms, host, role, completed| {
            let saying = Saying { completed, ..saying(host, Some(role)) };
            swarms.announce(&hash(1), &saying, 0, 0).unwrap().tallies.completed
        };
        assert_eq!(completed(&mut swarms, 1, Role::Downloader, false), 0);
        assert_eq!(completed(&mut swarms, 1, Role::Seed, true), 1);
        assert_eq!(completed(&mut swarms, 1, Role::Seed, true), 1);
        assert_eq!(completed(&mut swarms, 2, Role::Seed, false), 1, "it had everything when it came");
        assert_eq!(completed(&mut swarms, 3, Role::Seed, true), 2, "it was forgotten while it downloaded");
    }

    #[test]
    fn a_swarm_with_nobody_is_forgotten_by_the_sweep() {
        let mut swarms = swarms(1000, 10_000);
        for number in 0..500 {
            swarms.announce(&hash(number), &saying(number, Some(Role::Seed)), (number % 2 * 10) as u16, 0).unwrap();
        }
        swarms.announce(&hash(1), &saying(1, None), 10, 0).unwrap();
        assert_eq!((swarms.len(), swarms.peers()), (500, 499));
        let mut steps = 0;
        let mut gone = 0;
        while swarms.len() > 249 {
            gone += swarms.sweep(12, 5, 20);
            steps += 1;
            assert!(steps < 100);
        }
        assert!(steps > 10, "a few at a time");
        assert_eq!((gone, swarms.peers()), (250, 249));
    }

    #[test]
    fn a_crowd_that_went_silent_and_what_is_known_of_one_are_gone_through_in_portions() {
        let mut swarms = swarms(10, 10_000);
        for host in 0..3000 {
            swarms.announce(&hash(1), &saying(host, Some(Role::Seed)), 0, 0).unwrap();
        }
        let (mut place, mut known, mut calls) = (Some(Place::default()), Vec::new(), 0);
        while let Some(from) = place {
            let mut some = Vec::new();
            place = swarms.known_from(from, 400, 0, &mut some);
            assert!(some.len() <= 400);
            known.extend(some.into_iter().map(|(_, member, ..)| member.bytes().to_vec()));
            calls += 1;
        }
        known.sort_unstable();
        known.dedup();
        assert_eq!((known.len(), calls), (3000, 8), "each once");
        let mut steps = 0;
        while swarms.peers() > 0 {
            assert!(swarms.sweep(100, 5, 400) <= 400);
            steps += 1;
        }
        assert_eq!((steps, swarms.len()), (8, 0));
    }

    #[test]
    fn a_new_swarm_takes_the_place_of_an_empty_one_and_of_no_other() {
        let mut swarms = swarms(4, 100);
        for number in 0..4 {
            for host in 0..2 {
                swarms.announce(&hash(number), &saying(host, Some(Role::Seed)), 0, 0).unwrap();
            }
        }
        let new = saying(9, Some(Role::Seed));
        assert!(swarms.announce(&hash(9), &new, 0, 1).is_none());
        (0..4).for_each(|number| _ = swarms.announce(&hash(number), &saying(0, None), 0, 0));
        let taken = (0..50).any(|chance| swarms.announce(&hash(9), &new, 0, chance).is_some());
        assert!(taken && swarms.len() == 4 && swarms.peers() == 4, "{} {}", swarms.len(), swarms.peers());
    }

    #[test]
    fn with_too_many_peers_in_all_a_new_one_is_told_of_others_and_not_taken_in() {
        let mut swarms = swarms(10, 2);
        for host in 0..2 {
            swarms.announce(&hash(1), &saying(host, Some(Role::Seed)), 0, 0).unwrap();
        }
        let asker = saying(9, Some(Role::Downloader));
        let told = swarms.announce(&hash(1), &asker, 0, 0).unwrap();
        let mut out = Vec::new();
        assert!(told.left_out && told.pick(&asker, 9, 0, &mut out) == 2);
        assert!(!swarms.announce(&hash(1), &saying(1, Some(Role::Seed)), 0, 0).unwrap().left_out);
        assert_eq!(swarms.peers(), 2);
    }
}
