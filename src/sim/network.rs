//! The world: nodes, the lines between them, and one queue of what will happen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::base::ids::{ConnId, SocketId};
use crate::base::time::Time;
use crate::sim::node::{Node, Output};
use crate::sim::tracker::Tracker;

/// Everything there is.
#[derive(Debug)]
pub struct World {
    now: Time,
    /// The nodes, by index.
    pub nodes: Vec<Node>,
    /// The one tracker, where there is one.
    pub tracker: Option<Tracker>,
    /// How long anything takes from node to node.
    delay: Duration,
    /// Bytes a second of each direction of each stream.
    rate_bytes: u64,
    events: BTreeMap<(Time, u64), Event>,
    counter: u64,
    trace: Sha256,
}

#[derive(Debug)]
enum Event {
    Dialled { from: (usize, ConnId), to: SocketAddr },
    Connected { node: usize, conn: ConnId, other: (usize, ConnId) },
    Refused { node: usize, conn: ConnId },
    Bytes { to: (usize, ConnId), from: (usize, ConnId), bytes: Vec<u8> },
    Ended { to: (usize, ConnId) },
    Packet { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
}

impl World {
    /// An empty world in which everything takes `delay` and a stream moves `rate_bytes` a second.
    #[must_use]
    pub fn new(delay: Duration, rate_bytes: u64) -> Self {
        Self {
            now: Time::ZERO,
            nodes: Vec::new(),
            tracker: None,
            delay,
            rate_bytes,
            events: BTreeMap::new(),
            counter: 0,
            trace: Sha256::new(),
        }
    }

    /// The time it is.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// A hash of everything that was delivered so far, and when. Equal seeds give equal hashes.
    #[must_use]
    pub fn trace_hash(&self) -> [u8; 32] {
        self.trace.clone().finalize().into()
    }

    /// Runs until `done` or `until`, whichever comes first; true if it was `done`.
    pub fn run(&mut self, until: Time, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        for node in 0..self.nodes.len() {
            self.settle(node);
        }
        while !done(self) {
            let event_at = self.events.keys().next().map_or(Time::NEVER, |&(at, _)| at);
            let timeout = self.nodes.iter().map(|node| node.engine.poll_timeout()).min().unwrap_or(Time::NEVER);
            let at = event_at.min(timeout).max(self.now);
            if at > until {
                return false;
            }
            self.now = at;
            if event_at <= at {
                let (_, event) = self.events.pop_first().expect("it has a time");
                self.happen(event);
            } else {
                for node in 0..self.nodes.len() {
                    if self.nodes[node].engine.poll_timeout() <= at {
                        self.nodes[node].engine.handle_timeout(at);
                        self.settle(node);
                    }
                }
            }
        }
        true
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.counter += 1;
        self.events.insert((at, self.counter), event);
    }

    fn record(&mut self, what: &str, node: usize, bytes: &[u8]) {
        self.trace.update(self.now.as_nanos().to_be_bytes());
        self.trace.update(what);
        self.trace.update((node as u64).to_be_bytes());
        self.trace.update((bytes.len() as u64).to_be_bytes());
        self.trace.update(bytes);
    }

    fn settle(&mut self, index: usize) {
        let (now, arrival) = (self.now, self.now + self.delay);
        let mut outputs = Vec::new();
        self.nodes[index].settle(now, &mut outputs);
        for output in outputs {
            match output {
                Output::Connect { conn, to } => self.schedule(arrival, Event::Dialled { from: (index, conn), to }),
                Output::Close { other } => {
                    let free_at = self.free_at(other);
                    self.schedule(arrival.max(free_at + self.delay), Event::Ended { to: other });
                }
                Output::Bytes { conn, other, bytes } => {
                    let takes = Duration::from_nanos(bytes.len() as u64 * 1_000_000_000 / self.rate_bytes);
                    let begin = self.free_at(other).max(now);
                    if let Some(link) = self.nodes[other.0].links.get_mut(&other.1) {
                        link.free_at = begin + takes;
                    }
                    let at = begin + takes + self.delay;
                    self.schedule(at, Event::Bytes { to: other, from: (index, conn), bytes });
                }
                Output::Packet { from, to, bytes } => self.schedule(arrival, Event::Packet { from, to, bytes }),
            }
        }
    }

    /// When the line that leads to `to` is free.
    fn free_at(&self, to: (usize, ConnId)) -> Time {
        self.nodes[to.0].links.get(&to.1).map_or(Time::ZERO, |link| link.free_at)
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Dialled { from, to } => {
                self.record("dialled", from.0, to.to_string().as_bytes());
                let back = now + self.delay;
                let from_addr = self.nodes[from.0].addr_towards(to);
                let accepted = self.nodes.iter().position(|node| node.is_at(to)).and_then(|index| {
                    let node = &mut self.nodes[index];
                    let dialler = SocketAddr::new(from_addr.ip(), 50_000 + (self.counter % 10_000) as u16);
                    let conn = node.engine.handle_accept(now, crate::base::ids::ListenerId(0), dialler)?;
                    node.accepted(conn, from);
                    Some((index, conn))
                });
                let (node, conn) = from;
                match accepted {
                    Some(other) => {
                        self.schedule(back, Event::Connected { node, conn, other });
                        self.settle(other.0);
                    }
                    None => self.schedule(back, Event::Refused { node, conn }),
                }
            }
            Event::Connected { node, conn, other } => {
                self.record("connected", node, &[]);
                self.nodes[node].connected(now, conn, other);
                self.settle(node);
            }
            Event::Refused { node, conn } => {
                self.record("refused", node, &[]);
                self.nodes[node].refused(now, conn);
                self.settle(node);
            }
            Event::Bytes { to, from, bytes } => {
                self.record("bytes", to.0, &bytes);
                self.nodes[to.0].delivered(to.1, &bytes);
                self.settle(to.0);
                self.nodes[from.0].acknowledged(from.1, bytes.len());
                self.settle(from.0);
            }
            Event::Ended { to } => {
                self.record("ended", to.0, &[]);
                self.nodes[to.0].ended(to.1);
                self.settle(to.0);
            }
            Event::Packet { from, to, mut bytes } => {
                if let Some(tracker) = self.tracker.as_mut().filter(|tracker| tracker.addrs.contains(&to)) {
                    if let Some(answer) = tracker.handle_packet(from, &bytes) {
                        self.schedule(now + self.delay, Event::Packet { from: to, to: from, bytes: answer });
                    }
                } else if let Some(index) = self.nodes.iter().position(|node| node.is_at(to)) {
                    self.record("packet", index, &bytes);
                    let engine = &mut self.nodes[index].engine;
                    let socket = engine.config().listen.iter().position(|addr| *addr == to).expect("it is there");
                    let socket = SocketId::Peers(u16::try_from(socket).expect("few addresses"));
                    engine.handle_packet(now, socket, from, &mut bytes);
                    self.settle(index);
                }
            }
        }
    }
}
