//! What the tracker server tells of itself: plain values.

use std::net::SocketAddr;
use std::time::Duration;

/// Figures of the tracker server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrackerState {
    /// Where it listens for datagrams, as bound.
    pub udp: Vec<SocketAddr>,
    /// Where it listens for HTTP, as bound.
    pub http: Vec<SocketAddr>,
    /// What clients are told to wait.
    pub interval: Duration,
    /// How many torrents it is for; none if for all.
    pub allowed: Option<usize>,
    /// Swarms that it knows.
    pub swarms: usize,
    /// Peers of all of them.
    pub peers: usize,
    /// Announces a second, lately.
    pub announce_rate: u64,
    /// Scrapes a second, lately.
    pub scrape_rate: u64,
    /// Announces since the start.
    pub announces: u64,
    /// Scrapes since the start.
    pub scrapes: u64,
    /// Requests refused since the start, by the reason's name.
    pub errors: Vec<(&'static str, u64)>,
}
