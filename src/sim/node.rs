//! One simulated node: an engine, its streams, and the turns they are given.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use crate::base::ids::{ConnId, JobId, SocketId};
use crate::base::rate::Budget;
use crate::base::storage::Job;
use crate::base::time::Time;
use crate::engine::{Effect, Engine, Progress};
use crate::sim::storage::MemoryStorage;

/// Bytes that may be on their way in one direction of a stream.
const WINDOW_BYTES: usize = 256 * 1024;
/// Bytes a turn and direction.
const TURN_BYTES: usize = 64 * 1024;

/// One end of a simulated stream.
#[derive(Debug, Default)]
pub struct SimStream {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    /// Sent and not yet delivered.
    in_flight: usize,
    /// The other end has closed.
    ended: bool,
}

impl Read for SimStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.incoming.read(buf)
    }
}

impl Write for SimStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = WINDOW_BYTES.saturating_sub(self.in_flight + self.outgoing.len());
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = room.min(bytes.len());
        self.outgoing.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream with what the driver knows about it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    stream: SimStream,
    /// The other end, once both stand: the node's index and its name there.
    pub(crate) other: Option<(usize, ConnId)>,
    readable: bool,
    writable: bool,
    /// When the line is free for the next bytes.
    pub(crate) free_at: Time,
}

/// An engine and what is around it.
#[derive(Debug)]
pub struct Node {
    /// The node itself.
    pub engine: Engine<MemoryStorage>,
    /// Where it listens: the first address of its config, which may have one of the other family.
    pub addr: SocketAddr,
    pub(crate) links: BTreeMap<ConnId, Link>,
    /// State that was saved, by name.
    pub saved: BTreeMap<std::path::PathBuf, Vec<u8>>,
    /// True once the engine asked to end.
    pub exited: bool,
}

/// What a node wants from the network after its turns.
#[derive(Debug)]
pub(crate) enum Output {
    Connect { conn: ConnId, to: SocketAddr },
    Close { other: (usize, ConnId) },
    Bytes { conn: ConnId, other: (usize, ConnId), bytes: Vec<u8> },
    Packet { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
}

impl Node {
    /// A node at `addr`.
    #[must_use]
    pub fn new(engine: Engine<MemoryStorage>, addr: SocketAddr) -> Self {
        Self { engine, addr, links: BTreeMap::new(), saved: BTreeMap::new(), exited: false }
    }

    /// Gives turns, work and effects their due until the node rests; what it wants from the network goes to `outputs`.
    pub(crate) fn settle(&mut self, now: Time, outputs: &mut Vec<Output>) {
        loop {
            let mut moved = self.drain_effects(now, outputs);
            moved |= self.turns(now);
            moved |= self.engine.work(now);
            self.collect(now, outputs);
            if self.engine.poll_timeout() <= now {
                self.engine.handle_timeout(now);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn drain_effects(&mut self, now: Time, outputs: &mut Vec<Output>) -> bool {
        let mut moved = false;
        while let Some(effect) = self.engine.poll_effect() {
            moved = true;
            match effect {
                Effect::Connect { conn, to } => {
                    self.links.insert(conn, Link::default());
                    outputs.push(Output::Connect { conn, to });
                }
                Effect::Close(conn) => {
                    self.flush(conn, outputs);
                    if let Some(other) = self.links.remove(&conn).and_then(|link| link.other) {
                        outputs.push(Output::Close { other });
                    }
                }
                Effect::Wake(conn) => {
                    if let Some(link) = self.links.get_mut(&conn) {
                        link.readable = true;
                        link.writable = true;
                    }
                }
                Effect::Job(id, job) => self.carry_out(now, id, job),
                Effect::Rebind(_) | Effect::Trust => {}
                Effect::Exit => self.exited = true,
            }
        }
        moved
    }

    fn carry_out(&mut self, now: Time, id: JobId, job: Job) {
        match job {
            Job::Save { name, bytes } => drop(self.saved.insert(name, bytes)),
            Job::Erase { name } => drop(self.saved.remove(&name)),
            Job::Sync { .. } | Job::Allocate { .. } | Job::Move { .. } | Job::Delete { .. } => {}
        }
        self.engine.handle_job(now, id, Ok(()));
    }

    fn turns(&mut self, now: Time) -> bool {
        let ready: Vec<ConnId> =
            self.links.iter().filter(|(_, link)| link.readable || link.writable).map(|(&conn, _)| conn).collect();
        for &conn in &ready {
            let link = self.links.get_mut(&conn).expect("it was just there");
            if link.writable {
                let mut budget = Budget::new(TURN_BYTES);
                let progress = self.engine.handle_writable(now, conn, &mut link.stream, &mut budget);
                link.writable = progress == Progress::Spent;
            }
            if link.readable {
                let mut budget = Budget::new(TURN_BYTES);
                let progress = self.engine.handle_readable(now, conn, &mut link.stream, &mut budget);
                link.readable = progress == Progress::Spent;
            }
        }
        !ready.is_empty()
    }

    fn flush(&mut self, conn: ConnId, outputs: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(other) = link.other else { return };
        if !link.stream.outgoing.is_empty() {
            let bytes = std::mem::take(&mut link.stream.outgoing);
            link.stream.in_flight += bytes.len();
            outputs.push(Output::Bytes { conn, other, bytes });
        }
    }

    fn collect(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let conns: Vec<ConnId> = self.links.keys().copied().collect();
        for conn in conns {
            self.flush(conn, outputs);
        }
        let mut packet = Vec::new();
        while let Some(transmit) = self.engine.poll_transmit(now, &mut packet) {
            let SocketId::Peers(index) = transmit.socket else { continue };
            let from = self.engine.config().listen[usize::from(index)];
            outputs.push(Output::Packet { from, to: transmit.to, bytes: packet.clone() });
        }
    }

    /// Its address of the family of `other`.
    pub(crate) fn addr_towards(&self, other: SocketAddr) -> SocketAddr {
        let listen = &self.engine.config().listen;
        listen.iter().copied().find(|addr| addr.is_ipv4() == other.is_ipv4()).unwrap_or(self.addr)
    }

    /// It listens there.
    pub(crate) fn is_at(&self, addr: SocketAddr) -> bool {
        self.engine.config().listen.contains(&addr)
    }

    pub(crate) fn connected(&mut self, now: Time, conn: ConnId, other: (usize, ConnId)) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.other = Some(other);
            (link.readable, link.writable) = (true, true);
            self.engine.handle_connected(now, conn, self.addr);
        }
    }

    pub(crate) fn accepted(&mut self, conn: ConnId, other: (usize, ConnId)) {
        self.links.insert(conn, Link { other: Some(other), readable: true, writable: true, ..Link::default() });
    }

    pub(crate) fn refused(&mut self, now: Time, conn: ConnId) {
        if self.links.remove(&conn).is_some() {
            self.engine.handle_closed(now, conn);
        }
    }

    pub(crate) fn delivered(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.stream.incoming.extend(bytes);
            link.readable = true;
        }
    }

    pub(crate) fn acknowledged(&mut self, conn: ConnId, len: usize) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.stream.in_flight -= len;
            link.writable = true;
        }
    }

    pub(crate) fn ended(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.stream.ended = true;
            link.readable = true;
            link.other = None;
        }
    }
}
