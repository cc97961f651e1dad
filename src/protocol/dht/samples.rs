//! Asking others which swarms they know (BEP 51): a walk through the network that ends when it has heard of enough of them, or
//! asked enough nodes.
//!
//! A walk is a chain of ordinary searches, the first for our neighbours and the others for random targets, whose queries ask for
//! samples as well. Nobody is asked for more before the time is over that it asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::time::Time;
use crate::codec::krpc::Samples;
use crate::protocol::dht::searches::Goal;
use crate::protocol::dht::{Dht, Event, Summary};

/// Swarms that one walk may look for; more are not.
pub const SAMPLES_MAX: usize = 2000;
/// Swarms that are taken from one node; an honest answer that fits into a packet has fewer.
const OF_NODE_MAX: usize = 100;
/// Searches of one walk. Each asks some twenty nodes.
const ROUNDS_MAX: usize = 12;
/// How long a node is let alone at least, and at most (BEP 51: six hours), once it was asked for swarms.
const INTERVAL: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(6));
/// Nodes that are kept in mind for it; while there are so many, no other is asked for swarms.
const ASKED_MAX: usize = 4096;

/// How far a walk has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Walk {
    hashes: BTreeSet<Sha1Hash>,
    wanted: usize,
    rounds: usize,
    queries: usize,
    answers: usize,
}

impl Walk {
    fn new(wanted: usize) -> Self {
        let wanted = wanted.min(SAMPLES_MAX);
        Self { hashes: BTreeSet::new(), wanted, rounds: 0, queries: 0, answers: 0 }
    }

    /// It has heard of as many as it should.
    pub(super) fn is_full(&self) -> bool {
        self.hashes.len() >= self.wanted
    }

    pub(super) fn check(&self, most: usize) {
        assert!(self.hashes.len() <= self.wanted && self.wanted <= most, "swarms of a walk");
    }

    /// Takes what a node says; those that are new.
    pub(super) fn take(&mut self, samples: &Samples<'_>) -> Vec<InfoHash> {
        let room = self.wanted.saturating_sub(self.hashes.len());
        let told = samples.hashes.iter().take(OF_NODE_MAX).map(|hash| Sha1Hash(*hash));
        let new: BTreeSet<InfoHash> = told.filter(|hash| !self.hashes.contains(hash)).take(room).collect();
        self.hashes.extend(&new);
        new.into_iter().collect()
    }
}

/// When each node may be asked for swarms again.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    again: BTreeMap<SocketAddr, Time>,
}

impl Sampled {
    /// True if a node may be asked now; it counts as asked then.
    pub(super) fn may_ask(&mut self, now: Time, node: SocketAddr) -> bool {
        if self.again.len() >= ASKED_MAX {
            self.again.retain(|_, again| *again > now);
        }
        let may = match self.again.get(&node) {
            Some(again) => *again <= now,
            None => self.again.len() < ASKED_MAX,
        };
        if may {
            self.again.insert(node, now + INTERVAL.0);
        }
        may
    }

    /// A node that was asked says when it may be asked again.
    pub(super) fn handle_answer(&mut self, now: Time, node: SocketAddr, samples: &Samples<'_>) {
        if let Some(again) = self.again.get_mut(&node) {
            let interval = Duration::from_secs(samples.interval_secs.into());
            *again = now + interval.clamp(INTERVAL.0, INTERVAL.1);
        }
    }

    /// Who was asked, and until when each is let alone.
    #[cfg(test)]
    pub(super) fn asked(&self) -> &BTreeMap<SocketAddr, Time> {
        &self.again
    }

    pub(super) fn check(&self) {
        assert!(self.again.len() <= ASKED_MAX, "nodes that were asked for swarms");
    }
}

impl Dht {
    /// Asks nodes which swarms they know, those near to us first, until `wanted` of them are known, [`SAMPLES_MAX`] at most, or
    /// enough nodes were asked. How many searches that is: one a family.
    pub fn sample(&mut self, now: Time, wanted: usize) -> usize {
        self.look_near(now, |own| own, &Goal::Sample(Walk::new(wanted)))
    }

    /// A search of a walk has ended.
    pub(super) fn walk_on(&mut self, now: Time, v6: bool, mut walk: Walk, queries: usize, answers: usize) {
        walk.rounds += 1;
        (walk.queries, walk.answers) = (walk.queries + queries, walk.answers + answers);
        if walk.is_full() || walk.rounds >= ROUNDS_MAX || answers == 0 {
            let Walk { queries, answers, .. } = walk;
            let peers = walk.hashes.len();
            let summary = Summary { v6, queries, answers, peers, announces: false, announced: 0, swarm: None };
            self.events.push_back(Event::Sampled(summary));
            return self.start_waiting(now);
        }
        let target = Sha1Hash(self.rng.bytes());
        self.search(now, v6, target, Goal::Sample(walk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(hashes: &[[u8; 20]], interval_secs: u32) -> Samples<'_> {
        Samples { hashes, known: 1000, interval_secs }
    }

    #[test]
    fn a_walk_takes_what_is_new_and_little_of_each() {
        let mut walk = Walk::new(120);
        let hashes: Vec<[u8; 20]> = (0..1000_u32).map(|number| Sha1Hash::of(&number.to_be_bytes()).0).collect();
        assert_eq!(walk.take(&samples(&hashes, 0)).len(), OF_NODE_MAX);
        assert!(!walk.is_full());
        assert_eq!(walk.take(&samples(&hashes, 0)), [], "they are known");
        assert_eq!(walk.take(&samples(&hashes[90..], 0)).len(), 20, "no more than are wanted");
        assert!(walk.is_full());
        assert_eq!(Walk::new(usize::MAX).wanted, SAMPLES_MAX);
    }

    #[test]
    fn a_node_is_let_alone_as_long_as_it_wants() {
        let mut sampled = Sampled::default();
        let node = SocketAddr::from(([10, 0, 0, 1], 1));
        for (interval, secs) in [(0, 60), (600, 600), (u32::MAX, 6 * 3600)] {
            let start = Time::from_secs(100_000 + u64::from(interval));
            assert!(sampled.may_ask(start, node) && !sampled.may_ask(start, node));
            sampled.handle_answer(start, node, &samples(&[], interval));
            assert!(!sampled.may_ask(start + Duration::from_secs(secs - 1), node), "{interval}");
            assert!(sampled.may_ask(start + Duration::from_secs(secs), node), "{interval}");
            sampled = Sampled::default();
        }
    }

    #[test]
    fn nodes_that_were_asked_are_bounded() {
        let mut sampled = Sampled::default();
        let node = |number: usize| SocketAddr::from(([10, 0, 0, 1], u16::try_from(number + 1).unwrap()));
        assert!((0..ASKED_MAX).all(|number| sampled.may_ask(Time::ZERO, node(number))));
        assert!(!sampled.may_ask(Time::ZERO, node(ASKED_MAX)));
        sampled.check();
        assert!(sampled.may_ask(Time::ZERO + INTERVAL.0, node(ASKED_MAX)), "the others may be asked again by now");
    }
}
