//! When a torrent looks for peers in the DHT and announces itself there (BEP 5). A private one never does (BEP 27).
//!
//! Where we are several nodes each has its turn, at even distances, so that no stranger is asked by all at once (BEP 45).

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::time::Time;
use crate::torrent::candidates::Origin;
use crate::torrent::torrent::Torrent;

/// Between two searches of one node that reached somebody. Nodes forget us after thirty minutes.
const INTERVAL: Duration = Duration::from_mins(15);
/// After a search that reached nobody; doubles each time, up to [`INTERVAL`].
const AGAIN: Duration = Duration::from_secs(5);

/// The clock of one torrent.
#[derive(Debug)]
pub(crate) struct DhtAnnounces {
    /// Never while the torrent does not run, or must not.
    due: Time,
    begin_at: Time,
    may: bool,
    /// Searches under way, one a family.
    under_way: usize,
    announced: usize,
    again: Duration,
    /// Counts searches: which of our nodes makes the next.
    turn: usize,
}

impl DhtAnnounces {
    /// A clock that never strikes unless it `may`.
    pub(crate) fn new(may: bool) -> Self {
        Self { due: Time::NEVER, begin_at: Time::ZERO, may, under_way: 0, announced: 0, again: AGAIN, turn: 0 }
    }

    /// The torrent may have to do with the DHT.
    pub(crate) fn may(&self) -> bool {
        self.may
    }

    /// Not before `at` it is looked for the first time.
    pub(crate) fn begin_at(&mut self, at: Time) {
        self.begin_at = at;
    }

    pub(crate) fn start(&mut self, now: Time) {
        self.due = if self.may { now.max(self.begin_at) } else { Time::NEVER };
    }

    pub(crate) fn stop(&mut self) {
        self.due = Time::NEVER;
    }

    /// The user wants it now.
    pub(crate) fn hurry(&mut self, now: Time) {
        if !self.due.is_never() && self.under_way == 0 {
            self.due = now;
        }
    }

    /// True when it is time for a search; [`DhtAnnounces::began`] follows.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.due <= now && self.under_way == 0
    }

    /// Whose turn it is of our nodes, counted on for ever.
    pub(crate) fn turn(&self) -> usize {
        self.turn
    }

    /// So many searches began, by one of `nodes` that take turns; none if there is no DHT, which is not asked for again.
    pub(crate) fn began(&mut self, now: Time, searches: usize, nodes: u32) {
        (self.under_way, self.announced) = (searches, 0);
        self.turn = self.turn.wrapping_add(1);
        self.due = if searches > 0 { now + INTERVAL / nodes.max(1) } else { Time::NEVER };
    }

    /// One of them has ended, and so many nodes know of us by it.
    pub(crate) fn handle_searched(&mut self, now: Time, announced: usize) {
        self.announced += announced;
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way > 0 || self.due.is_never() {
            return;
        }
        if self.announced > 0 {
            self.again = AGAIN;
        } else {
            self.due = self.due.min(now + self.again);
            self.again = (self.again * 2).min(INTERVAL);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        if self.under_way == 0 { self.due } else { Time::NEVER }
    }
}

impl Torrent {
    /// DHT nodes that its metainfo names (BEP 5); none if it is private.
    #[must_use]
    pub fn dht_nodes(&self) -> &[(String, u16)] {
        if self.dht.may() { self.body.0.as_deref().map_or(&[], |meta| &meta.nodes) } else { &[] }
    }

    /// It is time to look for peers in the DHT: call [`Torrent::handle_dht_began`] once it is being done.
    #[must_use]
    pub fn wants_dht(&self, now: Time) -> bool {
        self.dht.is_due(now)
    }

    /// So many searches in the DHT began, one a family, by one of `nodes` that take turns.
    pub fn handle_dht_began(&mut self, now: Time, searches: usize, nodes: u32) {
        self.dht.began(now, searches, nodes);
    }

    /// The DHT has named peers.
    pub fn handle_dht_peers(&mut self, now: Time, peers: &[SocketAddr]) {
        if self.running {
            self.add_candidates(now, peers, Origin::Dht);
        }
    }

    /// A search in the DHT has ended; so many of its nodes know of us now.
    pub fn handle_dht_searched(&mut self, now: Time, announced: usize) {
        self.dht.handle_searched(now, announced);
    }

    /// Which of our nodes in the DHT makes its next search: this number, counted round.
    #[must_use]
    pub fn dht_turn(&self) -> usize {
        self.dht.turn()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_reached_nobody_is_made_again_soon_and_then_later() {
        let mut clock = DhtAnnounces::new(true);
        assert!(!clock.is_due(Time::from_secs(9)));
        clock.start(Time::ZERO);
        let (mut now, mut waits) = (Time::ZERO, Vec::new());
        for _ in 0..12 {
            assert!(clock.is_due(now));
            clock.began(now, 2, 1);
            assert!(!clock.is_due(now) && clock.poll_timeout().is_never());
            clock.handle_searched(now, 0);
            clock.handle_searched(now, 0);
            waits.push(clock.poll_timeout().since(now).as_secs());
            now = clock.poll_timeout();
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900, 900]);
        clock.began(now, 2, 1);
        clock.handle_searched(now, 8);
        clock.handle_searched(now, 0);
        assert_eq!(clock.poll_timeout(), now + INTERVAL);
        assert_eq!(clock.turn(), 13);
        clock.hurry(now);
        clock.began(now, 1, 3);
        clock.handle_searched(now, 8);
        assert_eq!(clock.poll_timeout(), now + INTERVAL / 3, "each of three nodes has its turn in an interval");
        clock.hurry(now);
        assert!(clock.is_due(now));
        clock.stop();
        assert!(clock.poll_timeout().is_never());
        clock.handle_searched(now, 0);
        assert!(clock.poll_timeout().is_never());
    }

    #[test]
    fn who_must_not_never_does() {
        let mut clock = DhtAnnounces::new(false);
        clock.start(Time::ZERO);
        clock.hurry(Time::ZERO);
        assert!(!clock.is_due(Time::from_secs(99)) && clock.poll_timeout().is_never());
    }
}
