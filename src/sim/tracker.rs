//! A UDP tracker (BEP 15) as simple as can be, that can be made to stall or to lie.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::rng::Rng;
use crate::codec::udp_tracker::{AnnounceEvent, Request, Response, SwarmCounts};

/// What it does with questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Answers them.
    #[default]
    Honest,
    /// Does not.
    Silent,
    /// Answers what is not so, or what nobody asked.
    Lies,
}

/// The tracker.
#[derive(Debug)]
pub struct Tracker {
    /// Where it is.
    pub addrs: Vec<SocketAddr>,
    /// How it answers now.
    pub mood: Mood,
    /// Peers in an answer, at most.
    pub answers_max: usize,
    /// Seconds between two announces of one peer.
    pub interval_secs: u32,
    swarms: BTreeMap<InfoHash, BTreeSet<SocketAddr>>,
    /// How often each event was told.
    pub events: [u32; 5],
    /// How often it was scraped.
    pub scrapes: u32,
    rng: Rng,
}

impl Tracker {
    /// A tracker at `addrs`.
    #[must_use]
    pub fn new(addrs: &[SocketAddr], rng: Rng) -> Self {
        Self {
            addrs: addrs.to_vec(),
            mood: Mood::Honest,
            answers_max: 50,
            interval_secs: 120,
            swarms: BTreeMap::new(),
            events: [0; 5],
            scrapes: 0,
            rng,
        }
    }

    /// The answers to a datagram.
    pub fn handle_packet(&mut self, from: SocketAddr, packet: &[u8]) -> Vec<Vec<u8>> {
        let Some(request) = Request::parse(packet) else { return Vec::new() };
        match self.mood {
            Mood::Silent => Vec::new(),
            Mood::Honest => vec![written(&self.answer(from, request))],
            Mood::Lies => self.lie(from, request),
        }
    }

    fn answer(&mut self, from: SocketAddr, request: Request<'_>) -> Response {
        match request {
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
                let mut peers: Vec<SocketAddr> = swarm.iter().copied().filter(is_told).collect();
                if peers.len() > self.answers_max {
                    self.rng.shuffle(&mut peers);
                    peers.truncate(self.answers_max);
                }
                Response::Announce { transaction, interval: self.interval_secs, leechers: 0, seeders: 0, peers }
            }
            Request::Scrape { transaction, info_hashes, .. } => {
                self.scrapes += 1;
                let count = |hash: &[u8; 20]| self.swarms.get(&Sha1Hash(*hash)).map_or(0, BTreeSet::len);
                let counts = |hash: &[u8; 20]| SwarmCounts {
                    leechers: u32::try_from(count(hash)).expect("few peers"),
                    ..SwarmCounts::default()
                };
                Response::Scrape { transaction, swarms: info_hashes.iter().map(counts).collect() }
            }
        }
    }

    /// Peers that do not exist, numbers that cannot be, answers to other questions, noise.
    fn lie(&mut self, from: SocketAddr, request: Request<'_>) -> Vec<Vec<u8>> {
        let mut noise = vec![0; self.rng.index(200)];
        self.rng.fill(&mut noise);
        let answer = match (self.answer(from, request), self.rng.below(4)) {
            (Response::Announce { transaction, .. }, 0) => Response::Announce {
                transaction,
                interval: u32::MAX,
                leechers: u32::MAX,
                seeders: u32::MAX,
                peers: (0..200).map(|_| nobody(&mut self.rng)).collect(),
            },
            (Response::Announce { transaction, .. }, 1) => {
                Response::Announce { transaction, interval: 0, leechers: 0, seeders: 0, peers: vec![from; 100] }
            }
            (Response::Announce { transaction, interval, leechers, seeders, peers }, 2) => {
                let transaction = transaction ^ 1;
                Response::Announce { transaction, interval, leechers, seeders, peers }
            }
            (Response::Connect { transaction, .. }, _) => Response::Connect { transaction, connection: self.rng.u64() },
            (answer, _) => answer,
        };
        vec![noise, written(&answer)]
    }
}

fn written(answer: &Response) -> Vec<u8> {
    let mut out = Vec::new();
    answer.write(&mut out);
    out
}

/// An address where nobody is.
fn nobody(rng: &mut Rng) -> SocketAddr {
    let [a, b, c] = rng.bytes::<3>();
    SocketAddr::from(([172, 16 + a % 16, b, c], 1 + u16::from(c)))
}
