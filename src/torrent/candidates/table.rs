//! The addresses themselves, and indexes of them: strangers name thousands of addresses, and each is found, replaced or dialled without a
//! pass over the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::base::steps;
use crate::base::time::Time;
use crate::torrent::candidates::{Candidate, Origin};

/// All addresses. Invariant: every idle address is in `replaceable`, and in `ready` if `is_ready`, in `waiting` if not; others are in
/// none of the three.
#[derive(Debug, Default)]
pub(super) struct Table {
    map: BTreeMap<SocketAddr, Candidate>,
    /// Addresses by origin, as `Origin` orders them.
    counts: [usize; Origin::COUNT],
    /// By origin: addresses that failed or are complete last, and of these those that failed most often.
    replaceable: BTreeSet<(Origin, bool, u8, SocketAddr)>,
    /// By the time before which they are not tried.
    waiting: BTreeSet<(Time, SocketAddr)>,
    /// Those whose time has come, in the order in which they are tried, the first of them last.
    ready: BTreeSet<(bool, u8, u32, SocketAddr)>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    #[cfg(test)]
    pub(super) fn contains_key(&self, addr: &SocketAddr) -> bool {
        self.map.contains_key(addr)
    }

    pub(super) fn get(&self, addr: SocketAddr) -> Option<&Candidate> {
        self.map.get(&addr)
    }

    /// Known addresses from `first` to `last`.
    pub(super) fn range(&self, first: SocketAddr, last: SocketAddr) -> impl Iterator<Item = &Candidate> {
        self.map.range(first..=last).map(|(_, known)| known)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Candidate)> {
        steps::add(self.map.len());
        self.map.iter().map(|(addr, known)| (*addr, known))
    }

    /// How many addresses became known so.
    pub(super) fn count(&self, origin: Origin) -> usize {
        self.counts[origin as usize]
    }

    pub(super) fn insert(&mut self, addr: SocketAddr, candidate: Candidate) {
        self.remove(addr);
        self.counts[candidate.origin as usize] += 1;
        self.map.insert(addr, candidate);
        self.index(addr);
    }

    pub(super) fn remove(&mut self, addr: SocketAddr) -> bool {
        self.unindex(addr);
        let removed = self.map.remove(&addr);
        if let Some(known) = &removed {
            self.counts[known.origin as usize] -= 1;
        }
        removed.is_some()
    }

    /// Changes what is known of `addr`, if it is known; what `change` returns.
    pub(super) fn change<T>(&mut self, addr: SocketAddr, change: impl FnOnce(&mut Candidate) -> T) -> Option<T> {
        self.unindex(addr);
        let known = self.map.get_mut(&addr)?;
        self.counts[known.origin as usize] -= 1;
        let result = change(known);
        self.counts[known.origin as usize] += 1;
        self.index(addr);
        Some(result)
    }

    /// Changes what is known of each address.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut Candidate)) {
        let addrs: Vec<SocketAddr> = self.map.keys().copied().collect();
        for addr in addrs {
            self.change(addr, &mut change);
        }
    }

    /// Forgets the addresses that are not to stay.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(SocketAddr, &Candidate) -> bool) {
        let gone: Vec<SocketAddr> =
            self.iter().filter(|(addr, known)| !stays(*addr, known)).map(|(addr, _)| addr).collect();
        for addr in gone {
            self.remove(addr);
        }
    }

    fn index(&mut self, addr: SocketAddr) {
        steps::add(4);
        let Some(known) = self.map.get_mut(&addr).filter(|known| known.is_idle()) else { return };
        known.is_ready = false;
        self.replaceable.insert(known.replaceable(addr));
        self.waiting.insert((known.next_try, addr));
    }

    fn unindex(&mut self, addr: SocketAddr) {
        steps::add(4);
        let Some(known) = self.map.get(&addr).filter(|known| known.is_idle()) else { return };
        self.replaceable.remove(&known.replaceable(addr));
        if known.is_ready {
            self.ready.remove(&known.order(addr));
        } else {
            self.waiting.remove(&(known.next_try, addr));
        }
    }

    /// The idle address of `origin` that is replaced first, and how often it failed; none unless one failed or is complete, or
    /// `any` will do.
    pub(super) fn to_replace(&self, origin: Origin, any: bool) -> Option<(u8, SocketAddr)> {
        steps::add(2);
        let [first, last] = [lowest(), highest()];
        let range = self.replaceable.range((origin, false, 0, first)..=(origin, true, u8::MAX, last));
        let (_, is_bad, failures, addr) = range.last()?;
        (any || *is_bad).then_some((*failures, *addr))
    }

    /// When the next address may be tried; never if there is none.
    pub(super) fn next_time(&self) -> Time {
        let ready = self.ready.last().map(|(.., addr)| self.map[addr].next_try);
        ready.or_else(|| self.waiting.first().map(|(at, _)| *at)).unwrap_or(Time::NEVER)
    }

    /// The addresses that may be tried now, best first.
    pub(super) fn ready(&mut self, now: Time) -> impl Iterator<Item = SocketAddr> {
        while let Some(&(at, addr)) = self.waiting.first()
            && at <= now
        {
            steps::add(4);
            self.waiting.pop_first();
            let known = self.map.get_mut(&addr).expect("what waits is known");
            known.is_ready = true;
            self.ready.insert(known.order(addr));
        }
        self.ready.iter().rev().inspect(|_| steps::add(1)).map(|(.., addr)| *addr)
    }

    /// Panics if an index is not what it should be.
    pub(super) fn check(&self) {
        let idle = self.map.values().filter(|known| known.is_idle()).count();
        assert_eq!(self.replaceable.len(), idle, "idle addresses");
        assert_eq!(self.waiting.len() + self.ready.len(), idle, "idle addresses wait or are ready");
        assert_eq!(self.counts.iter().sum::<usize>(), self.map.len(), "addresses by origin");
    }
}

fn lowest() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn highest() -> SocketAddr {
    SocketAddr::from(([u16::MAX; 8], u16::MAX))
}
