//! A UDP tracker (BEP 15) as simple as can be: it knows who announced, and tells everybody of everybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::base::hash::InfoHash;
use crate::codec::udp_tracker::{AnnounceEvent, Request, Response, SwarmCounts};

/// The tracker.
#[derive(Debug)]
pub struct Tracker {
    /// Where it is.
    pub addrs: Vec<SocketAddr>,
    swarms: BTreeMap<InfoHash, BTreeSet<SocketAddr>>,
    /// How often each event was told.
    pub events: [u32; 4],
    /// How often it was scraped.
    pub scrapes: u32,
}

impl Tracker {
    /// A tracker at `addrs`.
    #[must_use]
    pub fn new(addrs: &[SocketAddr]) -> Self {
        Self { addrs: addrs.to_vec(), swarms: BTreeMap::new(), events: [0; 4], scrapes: 0 }
    }

    /// The answer to a datagram.
    pub fn handle_packet(&mut self, from: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
        let response = match Request::parse(packet)? {
            Request::Connect { transaction } => Response::Connect { transaction, connection: 1 },
            Request::Announce { transaction, announce, .. } => {
                self.events[announce.event as usize] += 1;
                let swarm = self.swarms.entry(announce.info_hash).or_default();
                let peer = SocketAddr::new(from.ip(), announce.port);
                if announce.event == AnnounceEvent::Stopped {
                    swarm.remove(&peer);
                } else {
                    swarm.insert(peer);
                }
                let is_told = |other: &SocketAddr| *other != peer && other.is_ipv4() == peer.is_ipv4();
                let peers: Vec<SocketAddr> = swarm.iter().copied().filter(is_told).collect();
                Response::Announce { transaction, interval: 120, leechers: 0, seeders: 0, peers }
            }
            Request::Scrape { transaction, info_hashes, .. } => {
                self.scrapes += 1;
                let count = |hash| self.swarms.get(hash).map_or(0, BTreeSet::len);
                let counts = |hash| SwarmCounts {
                    leechers: u32::try_from(count(hash)).expect("few peers"),
                    ..SwarmCounts::default()
                };
                Response::Scrape { transaction, swarms: info_hashes.iter().map(counts).collect() }
            }
        };
        let mut out = Vec::new();
        response.write(&mut out);
        Some(out)
    }
}
