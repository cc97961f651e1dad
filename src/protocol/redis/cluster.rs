//! Which servers there are: seeds are tried in turn, a cluster's map is learnt, and all of it is given up when nobody is left.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::time::Time;
use crate::codec::resp::SLOTS;
use crate::protocol::redis::node::{Expected, Node, Stage};
use crate::protocol::redis::slots::Kept;
use crate::protocol::redis::url::Server;
use crate::protocol::redis::{BACKOFF_FIRST, BACKOFF_MAX, Event, Failed, MAP_CALM, NODES_MAX, Redis, Seed, State, Why};

impl Redis {
    /// Tries the seeds, and the keepers that were known.
    pub(super) fn seek(&mut self, now: Time) {
        let mut left: VecDeque<Server> = self.url.servers.iter().cloned().collect();
        left.extend(self.known.iter().filter(|server| !self.url.servers.contains(server)).cloned());
        self.state = State::Seeking { left, seed: Seed::Unknown };
        self.seek_next(now);
    }

    pub(super) fn seek_next(&mut self, now: Time) {
        let State::Seeking { left, seed } = &mut self.state else { unreachable!("only a seeker tries seeds") };
        let Some(server) = left.pop_front() else { return self.go_away(now) };
        *seed = Seed::Unknown;
        self.nodes[0] = Some(Node::new(now, server));
        self.reach(now, 0);
    }

    /// A seed has said all that was to be heard of it.
    pub(super) fn adopt(&mut self, now: Time, index: usize, seed: Seed) {
        match seed {
            Seed::Unknown => self.lose(now, index, &Why::Broken),
            Seed::Single(_) if self.url.servers.len() > 1 => {
                let text = "it is not part of a cluster: name it alone, not beside others";
                self.lose(now, index, &Why::Said(text.into()));
            }
            Seed::Single(moves) => {
                self.moves = moves;
                self.slots.clear();
                self.slots.give(0..=SLOTS - 1, index);
                self.state = State::Joining;
                self.settle(now);
            }
            Seed::Cluster(kept) => {
                self.moves = true;
                self.state = State::Joining;
                self.apply_map(now, kept);
            }
        }
    }

    /// Sees whether it may be asked now, or any more.
    pub(super) fn settle(&mut self, now: Time) {
        let (mut ready, mut fresh) = (false, false);
        for index in 0..NODES_MAX {
            let Some(node) = &self.nodes[index] else { continue };
            if self.slots.keeps_any(index) {
                ready |= node.is_ready();
                fresh |= node.is_fresh();
            } else if matches!(node.stage, Stage::Away { .. }) {
                self.nodes[index] = None;
            }
        }
        match self.state {
            State::Joining if ready && !fresh => {
                self.state = State::Up { since: now };
                self.counters.reconnects += u64::from(self.told.take().is_some());
                self.events.push_back(Event::Up);
            }
            State::Joining | State::Up { .. } if !ready && !fresh => self.go_away(now),
            _ => {}
        }
    }

    /// Nobody is there: all is tried again later.
    fn go_away(&mut self, now: Time) {
        match self.state {
            State::Up { since } if now.since(since) >= BACKOFF_MAX => self.fails = 0,
            _ => {}
        }
        self.leave();
        self.state = State::Away { retry: now + self.backoff(self.fails) };
        self.fails = self.fails.saturating_add(1);
        if self.told.as_ref() != Some(&self.reason) {
            self.told = Some(self.reason.clone());
            self.events.push_back(Event::Down(self.reason.clone()));
        }
    }

    pub(super) fn leave(&mut self) {
        let keepers = (0..NODES_MAX).filter(|index| self.slots.keeps_any(*index));
        let keepers: Vec<Server> =
            keepers.filter_map(|index| self.nodes[index].as_ref()).map(|node| node.server.clone()).collect();
        if !keepers.is_empty() {
            self.known = keepers;
        }
        for index in 0..NODES_MAX {
            self.drop_node(index, &Failed::Away);
        }
        self.slots.clear();
        self.refresh = Time::NEVER;
    }

    /// From half a second on, twice as long each time, and up to half less by chance.
    pub(super) fn backoff(&mut self, fails: u32) -> Duration {
        let half = (BACKOFF_FIRST * (1 << fails.min(8))).min(BACKOFF_MAX) / 2;
        half + Duration::from_nanos(self.rng.below(u64::try_from(half.as_nanos()).expect("seconds")))
    }

    pub(super) fn apply_map(&mut self, now: Time, kept: Vec<Kept>) {
        self.slots.clear();
        for (range, server) in kept {
            if let Some(index) = self.node_of(now, &server) {
                self.slots.give(range, index);
            }
        }
        if (0..NODES_MAX).all(|index| !self.slots.keeps_any(index)) {
            self.reason = "no server of the cluster keeps any slots".into();
        }
        self.settle(now);
    }

    /// The map is wrong: it is to be looked up, but not all the time.
    pub(super) fn want_map(&mut self, now: Time) {
        if self.moves && self.is_up() {
            if now.since(self.refresh_from) >= MAP_CALM {
                self.refreshes = 0;
            }
            self.refresh = self.refresh.min(now.max(self.refresh_from));
        }
    }

    pub(super) fn refresh_map(&mut self, now: Time) {
        self.refresh = Time::NEVER;
        self.refresh_from = now + self.backoff(self.refreshes);
        self.refreshes = self.refreshes.saturating_add(1);
        let is_ready = |index: &usize| self.nodes[*index].as_ref().is_some_and(Node::is_ready);
        let ready: Vec<usize> = (0..NODES_MAX).filter(is_ready).collect();
        match self.rng.choose(&ready) {
            Some(&index) => self.say(now, index, &[b"CLUSTER", b"SLOTS"], Expected::Slots),
            None => self.want_map(now),
        }
    }
}
