//! What trackers are told of a torrent, and what becomes of their answers; `announces` says when.

use std::net::SocketAddr;

use crate::base::geometry::BLOCK_LEN;
use crate::base::time::Time;
use crate::codec::udp_tracker::{Announce, AnnounceEvent};
use crate::protocol::tracker::{Outcome, ScrapeOutcome};
use crate::torrent::candidates::Origin;
use crate::torrent::scrapes::ScrapeAsk;
use crate::torrent::torrent::{AnnounceRequest, Torrent};

impl Torrent {
    /// The user wants its trackers asked now; they are, as soon as their least intervals allow.
    pub fn announce(&mut self, now: Time) {
        self.announces.hurry(now);
        self.dht.hurry(now);
        self.join_lsd();
    }

    /// Nobody waits for it: trackers and the DHT hear of it at `at`.
    pub fn announce_at(&mut self, at: Time) {
        self.announces.begin_at(at);
        self.dht.begin_at(at);
    }

    /// Nothing could be sent for a while, nobody is connected, and it can again.
    pub fn handle_network(&mut self, now: Time) {
        if self.running {
            self.candidates.reset(now);
            self.announce(now);
            self.tick_at = self.tick_at.min(now);
        }
    }

    /// The next announce to make.
    pub fn poll_announce(&mut self) -> Option<AnnounceRequest> {
        let ask = self.announces.poll_ask()?;
        let announce = Announce {
            info_hash: self.info_hash(),
            peer_id: self.peer_id,
            downloaded: self.down.total_bytes(),
            left: self.left_bytes(),
            uploaded: self.up.total_bytes(),
            event: match ask.event {
                AnnounceEvent::Regular | AnnounceEvent::Completed if self.is_partial_seed() => AnnounceEvent::Paused,
                event => event,
            },
            key: self.key,
            num_want: ask.num_want,
            port: self.announced_port,
        };
        Some(AnnounceRequest { tracker: ask.tracker, url: ask.url, announce, tracker_id: ask.tracker_id })
    }

    /// The next scrape to make.
    pub fn poll_scrape(&mut self) -> Option<ScrapeAsk> {
        self.announces.poll_scrape()
    }

    /// A scrape has ended.
    pub fn handle_scraped(&mut self, now: Time, tracker: usize, outcome: &ScrapeOutcome) {
        self.announces.handle_scraped(now, tracker, outcome);
    }

    /// A tracker that is still being asked has named peers.
    pub fn handle_found(&mut self, now: Time, peers: &[SocketAddr]) {
        if self.running {
            self.add_candidates(now, peers, Origin::Tracker);
        }
    }

    /// An announce has ended.
    pub fn handle_announced(&mut self, now: Time, tracker: usize, outcome: Outcome) {
        let peers = self.announces.handle_outcome(now, tracker, outcome);
        self.add_candidates(now, &peers, Origin::Tracker);
    }

    /// It has everything that is wanted, and not everything (BEP 21).
    pub(crate) fn is_partial_seed(&self) -> bool {
        self.is_finished() && !self.have.is_full()
    }

    /// Wanted bytes that are still missing, as trackers are told. While nobody knows how many, some, and of a partial seed all that
    /// it lacks: who says none is taken for a seed.
    pub(crate) fn left_bytes(&self) -> u64 {
        if self.description.is_some() {
            return u64::from(BLOCK_LEN);
        }
        if self.is_partial_seed() {
            return self.geometry().total_len() - self.layout.have_bytes_total(&self.have);
        }
        self.layout.wanted_bytes().saturating_sub(self.layout.have_wanted_bytes(&self.have))
    }
}
