//! What a tracker tells of itself.

use crate::base::rate::Meter;
use crate::base::time::Time;
use crate::service::tracker::{Error, Tracker};
use crate::torrent::tracker_state::TrackerState;

/// Counted since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connects: u64,
    pub(super) announces: Meter,
    pub(super) scrapes: Meter,
    errors: [u64; Error::ALL.len()],
    /// Datagrams that were nothing at all, and not answered.
    pub(super) ignored: u64,
    pub(super) peers_expired: u64,
    pub(super) peers_displaced: u64,
    pub(super) peers_left_out: u64,
}

impl Counters {
    pub(super) fn fail(&mut self, error: Error) {
        self.errors[error as usize] += 1;
    }
}

impl Tracker {
    /// Its figures.
    #[must_use]
    pub fn state(&self, now: Time) -> TrackerState {
        let counters = &self.counters;
        TrackerState {
            udp: self.config.udp.clone(),
            http: self.config.http.clone(),
            interval: self.config.interval,
            allowed: self.access.hashes(),
            swarms: self.swarms.len(),
            peers: self.swarms.peers(),
            announce_rate: counters.announces.rate_bytes(now),
            scrape_rate: counters.scrapes.rate_bytes(now),
            announces: counters.announces.total_bytes(),
            scrapes: counters.scrapes.total_bytes(),
            errors: Error::ALL.iter().map(|&error| (error.name(), counters.errors[error as usize])).collect(),
        }
    }

    /// Every counter with its name, for `stats`.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, u64)> {
        let counters = &self.counters;
        let rows = [
            ("tracker.swarms", self.swarms.len() as u64),
            ("tracker.peers", self.swarms.peers() as u64),
            ("tracker.connects", counters.connects),
            ("tracker.announces", counters.announces.total_bytes()),
            ("tracker.scrapes", counters.scrapes.total_bytes()),
            ("tracker.packets_ignored", counters.ignored),
            ("tracker.peers_expired", counters.peers_expired),
            ("tracker.peers_displaced", counters.peers_displaced),
            ("tracker.peers_left_out", counters.peers_left_out),
        ];
        let rows = rows.map(|(name, value)| (name.to_owned(), value));
        let errors =
            Error::ALL.map(|error| (format!("tracker.errors.{}", error.name()), counters.errors[error as usize]));
        rows.into_iter().chain(errors).collect()
    }
}
