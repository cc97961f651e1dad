//! What must hold whatever strangers send: every bound, and what is counted.

use crate::protocol::dht::samples::SAMPLES_MAX;
use crate::protocol::dht::searches::{FOUND_MAX, Goal, OWN_SEARCHES_MAX, SEARCHES_MAX};
use crate::protocol::dht::{BEGINNINGS_MAX, Dht, OUTGOING_MAX, PENDING_MAX, PINGS_MAX, VOTES_MAX, Why};

impl Dht {
    /// What must hold at any time. It looks at everything that is stored.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        assert!(self.outgoing.len() <= OUTGOING_MAX, "datagrams that wait to leave");
        assert!(self.pending.len() <= PENDING_MAX, "queries under way");
        let pings = self.pending.values().filter(|pending| pending.why == Why::Ping).count();
        assert!(pings == self.pings && pings <= PINGS_MAX, "{pings} strangers are asked whether they are there");
        assert!(self.searches.len() <= SEARCHES_MAX + OWN_SEARCHES_MAX, "searches");
        for search in self.searches.values() {
            search.lookup.check();
            assert!(search.found.len() <= FOUND_MAX, "peers that a search has found");
            if let Goal::Sample(walk) = &search.goal {
                walk.check(SAMPLES_MAX);
            }
        }
        for family in &self.families {
            family.table.check();
            assert!(family.beginnings.len() <= BEGINNINGS_MAX, "nodes to begin with");
            let votes: usize = family.votes.values().map(std::collections::BTreeSet::len).sum();
            assert!(votes <= VOTES_MAX, "votes");
        }
        self.peers.check();
        self.items.check();
        self.guard.check();
        self.proven.check();
        self.sampled.check();
    }
}
