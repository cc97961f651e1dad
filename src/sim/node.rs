//! One simulated machine: what runs on it, its streams and the turns they are given, its disk's state, its clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::hash::InfoHash;
use crate::base::ids::{ConnId, JobId, ListenerId, StoreId};
use crate::base::rate::Budget;
use crate::base::rng::Rng;
use crate::base::steps;
use crate::base::storage::{Fault, FaultKind, Job};
use crate::base::time::Time;
use crate::engine::{Effect, Engine, Progress};
use crate::sim::crowd::Crowd;
use crate::sim::hostile::{Act, Hostile};
use crate::sim::liar::Liar;
use crate::sim::network::{Line, Nat};
use crate::sim::redis::Store;
use crate::sim::secrets::{Said, told};
use crate::sim::storage::MemoryStorage;
use crate::sim::stream::{Bytes, Flow, PACKET, SEND_BUFFER, SimStream};
use crate::sim::tracker::Tracker;

/// Bytes a turn and direction.
const TURN_BYTES: usize = 256 * 1024;
/// What a job of the disk takes; a sync takes it twice.
const JOB: Duration = Duration::from_millis(5);
/// Rounds that a node may need until it rests, besides one for each piece that a check hashes; beyond it it spins.
const ROUNDS_MAX: u32 = 20_000;
/// Timeouts of a node in one second; beyond it it spins.
const TIMEOUTS_MAX: u32 = 20_000;

/// What the calls of a node's engines cost, in steps.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// The most expensive call so far: its steps, and its name.
    pub(crate) most: (u64, &'static str),
    /// The first call that took more than [`steps::TURN_MAX`] since somebody asked.
    over: Option<(u64, &'static str)>,
}

impl Cost {
    /// Makes a call of the engine and counts its steps.
    pub(crate) fn of<T>(&mut self, call: &'static str, run: impl FnOnce() -> T) -> T {
        steps::take(); // those of scripts and checks on this thread
        let result = run();
        let taken = steps::take();
        if taken > self.most.0 {
            self.most = (taken, call);
        }
        if taken > steps::TURN_MAX {
            self.over.get_or_insert((taken, call));
        }
        result
    }

    /// The rule that was broken, if one was.
    pub(crate) fn breach(&mut self) -> Option<String> {
        let (taken, call) = self.over.take()?;
        Some(format!("{call} took {taken} steps, more than {}", steps::TURN_MAX))
    }
}

/// What runs on a machine.
#[derive(Debug)]
pub(crate) enum Body {
    /// The node itself: the code that ships.
    Engine(Box<Engine<MemoryStorage>>),
    /// A tracker.
    Tracker(Tracker),
    /// Somebody who means harm.
    Hostile(Hostile),
    /// And means it in the DHT.
    Liar(Liar),
    /// Many who only announce.
    Crowd(Crowd),
    /// What trackers share.
    Store(Store),
    /// Nothing; its disk is left.
    Down(Box<MemoryStorage>),
}

/// A machine's clocks against the world's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    /// When its program started, in the world's time.
    pub(crate) started: Time,
    /// Millionths that it runs too fast.
    pub(crate) ppm: i32,
    /// What it jumped ahead.
    pub(crate) ahead: Duration,
}

impl Clock {
    /// The program's time when it is `now` in the world.
    pub(crate) fn local(&self, now: Time) -> Time {
        let elapsed = i128::from(now.as_nanos().saturating_sub(self.started.as_nanos()));
        let drifted = elapsed + elapsed * i128::from(self.ppm) / 1_000_000;
        Time::from_nanos(u64::try_from(drifted).unwrap_or(0)) + self.ahead
    }

    /// The first moment of the world when the program's time is `local`.
    pub(crate) fn world(&self, local: Time) -> Time {
        if local.is_never() {
            return local;
        }
        let drifted = i128::from((local - self.ahead).as_nanos());
        // Both directions round: begin a little too soon.
        let elapsed = drifted * 1_000_000 / (1_000_000 + i128::from(self.ppm)) - 2;
        let mut world = Time::from_nanos(u64::try_from(elapsed).unwrap_or(0) + self.started.as_nanos());
        while self.local(world) < local {
            world += Duration::from_nanos(1);
        }
        world
    }
}

/// One end of a stream: who it belongs to, in which of that machine's lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) conn: ConnId,
}

/// A stream with what the driver knows about it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) stream: SimStream,
    /// The other end, once both stand.
    pub(crate) other: Option<End>,
    pub(crate) flow: Flow,
    /// What was said on it, for the checks.
    pub(crate) said: Said,
    readable: bool,
    writable: bool,
    /// It is in the queue of turns.
    is_ready: bool,
    /// It waits for the uplink.
    pub(crate) queued: bool,
    /// The program closed it; what it had written still goes out.
    pub(crate) closing: bool,
    /// Nothing moves until then.
    pub(crate) stalled_until: Time,
    /// Delivered, and how much of that was acknowledged.
    delivered: u64,
    acknowledged: u64,
}

impl Link {
    fn is_drained(&self) -> bool {
        self.stream.out.is_empty()
    }
}

/// What a machine wants from the network after its turns.
#[derive(Debug)]
pub(crate) enum Output {
    Connect { conn: ConnId, to: SocketAddr },
    Ended { other: End, after: Time },
    Acknowledged { other: End, bytes: usize },
    Packet { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Job { job: JobId, takes: Duration, after: After, result: Result<(), Fault> },
}

/// What counts once a job is done, and is lost if the machine stops before.
#[derive(Debug)]
pub(crate) enum After {
    Nothing,
    Saved(PathBuf, Vec<u8>),
    Synced(StoreId),
}

/// A machine.
#[derive(Debug)]
pub struct Node {
    /// Its name in reports.
    pub name: String,
    /// Where it listens, as it sees itself.
    pub addr: SocketAddr,
    /// Where others see it.
    pub public: IpAddr,
    pub(crate) body: Body,
    pub(crate) life: u32,
    pub(crate) clock: Clock,
    pub(crate) nat: Option<Nat>,
    pub(crate) links: BTreeMap<ConnId, Link>,
    ready: VecDeque<ConnId>,
    /// Links whose buffers may have changed since the world looked.
    touched: Vec<ConnId>,
    /// Links that have something for the uplink.
    pub(crate) ring: VecDeque<ConnId>,
    pub(crate) uplink: Line,
    pub(crate) downlink: Line,
    /// The uplink's next moment is in the queue of events.
    pub(crate) uplink_scheduled: bool,
    /// The timeout that is in the queue of events.
    pub(crate) timer_at: Time,
    /// The machine is suspended until then.
    pub(crate) frozen_until: Time,
    /// It has no power: nobody is left to refuse anything.
    pub(crate) is_silent: bool,
    /// Only those on the same side of a cut reach it.
    pub(crate) side: u32,
    /// How much farther it is from everybody.
    pub(crate) extra: Duration,
    /// State that was saved, by name.
    pub saved: BTreeMap<PathBuf, Vec<u8>>,
    /// True once the engine asked to end.
    pub exited: bool,
    /// What the checks have seen claimed, by torrent.
    pub(crate) claimed: BTreeMap<InfoHash, Bitfield>,
    /// Pieces that were wrong, when it was last looked at.
    pub(crate) failures: u64,
    /// Timeouts of the present second.
    wakes: (u64, u32),
    next_conn: u64,
    /// Content that came in this life.
    pub(crate) content_in: u64,
    /// Torrents of which nobody may hear but their trackers and their peers.
    pub(crate) private: Arc<BTreeSet<InfoHash>>,
    /// Something it did that nobody should; told once.
    pub(crate) breach: Option<String>,
    /// What its engines' calls cost, in all of its lives.
    pub(crate) cost: Cost,
}

impl Node {
    pub(crate) fn new(name: String, addr: SocketAddr, body: Body) -> Self {
        Self {
            name,
            addr,
            public: addr.ip(),
            body,
            life: 0,
            clock: Clock::default(),
            nat: None,
            links: BTreeMap::new(),
            ready: VecDeque::new(),
            touched: Vec::new(),
            ring: VecDeque::new(),
            uplink: Line::default(),
            downlink: Line::default(),
            uplink_scheduled: false,
            timer_at: Time::NEVER,
            frozen_until: Time::ZERO,
            is_silent: false,
            side: 0,
            extra: Duration::ZERO,
            saved: BTreeMap::new(),
            exited: false,
            claimed: BTreeMap::new(),
            failures: 0,
            wakes: (0, 0),
            next_conn: 1,
            content_in: 0,
            private: Arc::default(),
            breach: None,
            cost: Cost::default(),
        }
    }

    /// The engine that runs on it, if one does.
    pub fn engine(&mut self) -> Option<&mut Engine<MemoryStorage>> {
        match &mut self.body {
            Body::Engine(engine) => Some(engine),
            _ => None,
        }
    }

    /// The tracker that runs on it, if one does.
    pub fn tracker(&mut self) -> Option<&mut Tracker> {
        match &mut self.body {
            Body::Tracker(tracker) => Some(tracker),
            _ => None,
        }
    }

    /// Its disk, if it has one.
    pub fn storage(&mut self) -> Option<&mut MemoryStorage> {
        match &mut self.body {
            Body::Engine(engine) => Some(engine.storage()),
            Body::Down(storage) => Some(storage),
            Body::Tracker(_) | Body::Hostile(_) | Body::Liar(_) | Body::Crowd(_) | Body::Store(_) => None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        match &self.body {
            Body::Down(_) => false,
            Body::Store(store) => !store.is_down(),
            _ => true,
        }
    }

    /// When it wants to be called, in the world's time.
    pub(crate) fn poll_timeout(&self) -> Time {
        match &self.body {
            Body::Engine(engine) => self.clock.world(engine.poll_timeout()),
            Body::Hostile(hostile) => hostile.poll_timeout(),
            Body::Liar(liar) => liar.poll_timeout(),
            Body::Crowd(crowd) => crowd.poll_timeout(),
            Body::Tracker(_) | Body::Store(_) | Body::Down(_) => Time::NEVER,
        }
    }

    /// Pieces of all its torrents.
    fn pieces(&self) -> u32 {
        if let Body::Engine(engine) = &self.body { engine.views().map(|view| view.have.len()).sum() } else { 0 }
    }

    /// Gives turns, work and effects their due until the machine rests; what it wants from the network goes to `outputs`.
    pub(crate) fn settle(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let local = self.clock.local(now);
        for round in 0.. {
            let moved = match &self.body {
                Body::Engine(_) => self.engine_round(local, outputs),
                Body::Hostile(_) | Body::Store(_) => self.script_round(now, outputs),
                Body::Liar(_) | Body::Crowd(_) => self.packet_round(now, outputs),
                Body::Tracker(_) | Body::Down(_) => false,
            };
            if !moved {
                break;
            }
            if round >= ROUNDS_MAX && round >= ROUNDS_MAX + self.pieces() {
                self.breach = Some("it never rests".into());
                break;
            }
        }
        self.collect(outputs);
    }

    fn engine_round(&mut self, now: Time, outputs: &mut Vec<Output>) -> bool {
        self.engine().expect("an engine's round").storage().now = now;
        let mut moved = self.drain_effects(outputs);
        moved |= self.turns(now);
        let Body::Engine(engine) = &mut self.body else { unreachable!("an engine's round") };
        moved |= self.cost.of("work", || engine.work(now));
        if engine.poll_timeout() <= now {
            self.cost.of("handle_timeout", || engine.handle_timeout(now));
            self.wakes =
                if self.wakes.0 == now.as_secs() { (self.wakes.0, self.wakes.1 + 1) } else { (now.as_secs(), 1) };
            if self.wakes.1 > TIMEOUTS_MAX {
                self.breach = Some(format!("{TIMEOUTS_MAX} timeouts came in one second"));
            }
            moved = true;
        }
        self.drain_packets(now, outputs);
        moved
    }

    fn drain_effects(&mut self, outputs: &mut Vec<Output>) -> bool {
        let mut moved = false;
        loop {
            let Body::Engine(engine) = &mut self.body else { unreachable!("an engine's effects") };
            let Some(effect) = self.cost.of("poll_effect", || engine.poll_effect()) else { break };
            moved = true;
            match effect {
                Effect::Connect { conn, to } => {
                    self.links.insert(conn, Link::default());
                    outputs.push(Output::Connect { conn, to });
                }
                Effect::Close(conn) => self.close(conn),
                Effect::Wake(conn) => self.wake(conn),
                Effect::Job(job, what) => {
                    let (takes, after, result) = self.carry_out(what);
                    outputs.push(Output::Job { job, takes, after, result });
                }
                Effect::Rebind(_) | Effect::Trust => {}
                Effect::Exit => self.exited = true,
            }
        }
        moved
    }

    fn wake(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            (link.readable, link.writable) = (true, true);
            self.make_ready(conn);
        }
    }

    fn make_ready(&mut self, conn: ConnId) {
        let link = self.links.get_mut(&conn).expect("it was just there");
        if !std::mem::replace(&mut link.is_ready, true) {
            self.ready.push_back(conn);
        }
    }

    fn touch(&mut self, conn: ConnId) {
        if self.touched.last() != Some(&conn) {
            self.touched.push(conn);
        }
    }

    /// The program closes a stream. What it has written goes out; what comes is nobody's.
    fn close(&mut self, conn: ConnId) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.closing = true;
            if link.other.is_none() {
                self.links.remove(&conn);
            } else {
                self.touch(conn);
            }
        }
        if let Some(storage) = self.storage() {
            storage.forget_writer(conn);
        }
    }

    /// Begins a job: how long it takes, what counts only when it is done, and how it ends.
    fn carry_out(&mut self, job: Job) -> (Duration, After, Result<(), Fault>) {
        let storage = self.storage().expect("only an engine has jobs");
        match job {
            Job::Record { name, value: Some(bytes) } => (JOB, After::Saved(name.into(), bytes), Ok(())),
            Job::Record { name, value: None } => {
                self.saved.remove(Path::new(&name));
                (JOB, After::Nothing, Ok(()))
            }
            Job::Save { name, bytes } => (JOB, After::Saved(name, bytes.to_vec()), Ok(())),
            Job::Erase { name } => {
                storage.saved.remove(&name);
                self.saved.remove(&name);
                (JOB, After::Nothing, Ok(()))
            }
            Job::Sync { store, finish } => {
                storage.finish(store, &finish);
                storage.begin_sync(store);
                (JOB * 2, After::Synced(store), Ok(()))
            }
            Job::Allocate { store } => (JOB, After::Nothing, storage.allocate(store)),
            Job::Scout { .. } | Job::Clear { .. } => (JOB, After::Nothing, Ok(())),
            Job::Move { undo: true, .. } => {
                let message = "the move was called off; everything is where it was".to_owned();
                (JOB, After::Nothing, Err(Fault { kind: FaultKind::Io, message }))
            }
            Job::Move { store, dir, .. } => {
                storage.relocate(store, dir);
                (JOB, After::Nothing, Ok(()))
            }
            Job::Delete { store, .. } => {
                storage.delete(store);
                (JOB, After::Nothing, Ok(()))
            }
        }
    }

    /// A job is done.
    pub(crate) fn finish_job(&mut self, now: Time, job: JobId, after: After, result: Result<(), Fault>) {
        let local = self.clock.local(now);
        match after {
            After::Nothing => {}
            After::Saved(name, bytes) => {
                // What describes a torrent is read again by the engine, everything else by the next run.
                if name.extension().is_some_and(|ending| ending == "meta") {
                    let storage = self.storage().expect("only an engine has jobs");
                    storage.saved.insert(name.clone(), bytes.clone());
                }
                self.saved.insert(name, bytes);
            }
            After::Synced(store) => self.storage().expect("only an engine has jobs").end_sync(store),
        }
        if let Body::Engine(engine) = &mut self.body {
            self.cost.of("handle_job", || engine.handle_job(local, job, result));
        }
    }

    fn turns(&mut self, now: Time) -> bool {
        let count = self.ready.len();
        for _ in 0..count {
            let conn = self.ready.pop_front().expect("as many as there were");
            let Some(link) = self.links.get_mut(&conn) else { continue };
            link.is_ready = false;
            if link.closing {
                continue;
            }
            let Body::Engine(engine) = &mut self.body else { unreachable!("only an engine has turns") };
            engine.storage().turn = Some(conn);
            if std::mem::take(&mut link.writable) {
                let mut budget = Budget::new(TURN_BYTES);
                let stream = &mut link.stream;
                let progress =
                    self.cost.of("handle_writable", || engine.handle_writable(now, conn, stream, &mut budget));
                link.writable = progress == Progress::Spent;
            }
            if std::mem::take(&mut link.readable) {
                let mut budget = Budget::new(TURN_BYTES);
                let stream = &mut link.stream;
                let progress =
                    self.cost.of("handle_readable", || engine.handle_readable(now, conn, stream, &mut budget));
                link.readable = progress == Progress::Spent;
            }
            engine.storage().turn = None;
            self.check_served();
            if self.links.get(&conn).is_some_and(|link| link.readable || link.writable) {
                self.make_ready(conn);
            }
            self.touch(conn);
        }
        count > 0
    }

    /// What was just handed to a stream must be held, as the engine itself knows.
    fn check_served(&mut self) {
        let Body::Engine(engine) = &mut self.body else { return };
        for (store, span) in std::mem::take(&mut engine.storage().served) {
            if !engine.holds(store, span) {
                self.breach = Some(format!("it serves {} bytes at {} unverified", span.len, span.offset));
            }
        }
    }

    fn drain_packets(&mut self, now: Time, outputs: &mut Vec<Output>) {
        let Body::Engine(engine) = &mut self.body else { unreachable!("an engine's packets") };
        let mut packet = Vec::new();
        while let Some(transmit) = self.cost.of("poll_transmit", || engine.poll_transmit(now, &mut packet)) {
            if !self.private.is_empty() {
                self.breach = self.breach.take().or_else(|| told(&packet, &self.private));
            }
            let Some(from) = engine.config().addr_of(transmit.socket) else { continue };
            outputs.push(Output::Packet { from, to: transmit.to, bytes: std::mem::take(&mut packet) });
        }
    }

    /// The next thing that a script with streams does.
    fn poll_act(&mut self, now: Time) -> Option<Act> {
        match &mut self.body {
            Body::Hostile(hostile) => hostile.poll_act(),
            Body::Store(store) => store.poll_act(now),
            _ => None,
        }
    }

    fn script_round(&mut self, now: Time, outputs: &mut Vec<Output>) -> bool {
        if let Body::Hostile(hostile) = &mut self.body
            && hostile.poll_timeout() <= now
        {
            hostile.handle_timeout(now);
        }
        let is_store = matches!(self.body, Body::Store(_));
        let mut moved = false;
        while let Some(act) = self.poll_act(now) {
            moved = true;
            match act {
                Act::Dial(to) => {
                    let conn = self.new_conn();
                    self.links.insert(conn, Link::default());
                    self.hostile().expect("it acts").handle_dialling(conn);
                    outputs.push(Output::Connect { conn, to });
                }
                Act::Send(conn, bytes) => {
                    if let Some(link) = self.links.get_mut(&conn)
                        && (is_store || link.stream.room() > 0)
                    {
                        link.stream.out.push(&bytes);
                        self.touch(conn);
                    }
                }
                Act::Close(conn) => self.close(conn),
                Act::Packet(to, bytes) => outputs.push(Output::Packet { from: self.addr, to, bytes }),
            }
        }
        moved
    }

    /// A script that knows only datagrams.
    fn packet_round(&mut self, now: Time, outputs: &mut Vec<Output>) -> bool {
        let own = self.addr;
        match &mut self.body {
            Body::Liar(liar) => {
                liar.handle_timeout(now);
                let packets = std::iter::from_fn(|| liar.poll_packet());
                outputs.extend(packets.map(|(to, bytes)| Output::Packet { from: own, to, bytes }));
            }
            Body::Crowd(crowd) => {
                crowd.handle_timeout(now);
                let packets = std::iter::from_fn(|| crowd.poll_packet());
                outputs.extend(packets.map(|(from, to, bytes)| Output::Packet { from, to, bytes }));
            }
            _ => {}
        }
        false
    }

    fn hostile(&mut self) -> Option<&mut Hostile> {
        match &mut self.body {
            Body::Hostile(hostile) => Some(hostile),
            _ => None,
        }
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId::from_bits(self.next_conn)
    }

    /// Passes on what the links that were touched have for the network.
    fn collect(&mut self, outputs: &mut Vec<Output>) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        for conn in touched {
            let Some(link) = self.links.get_mut(&conn) else { continue };
            if let Some(other) = link.other {
                let read = link.delivered - link.stream.incoming.len() as u64 - link.acknowledged;
                // What is less than a packet is acknowledged with what follows.
                if read >= PACKET as u64 {
                    link.acknowledged += read;
                    let bytes = usize::try_from(read).expect("no more than a window");
                    outputs.push(Output::Acknowledged { other, bytes });
                }
                if link.closing && link.is_drained() {
                    outputs.push(Output::Ended { other, after: link.flow.last_arrival });
                    self.links.remove(&conn);
                    continue;
                }
            }
            self.offer(conn);
        }
    }

    /// A link that has something to send waits for the uplink.
    pub(crate) fn offer(&mut self, conn: ConnId) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        if !link.queued && link.other.is_some() && !link.is_drained() && link.flow.room() > 0 {
            link.queued = true;
            self.ring.push_back(conn);
        }
    }

    /// Something of a link went on the line. True if the program, which had more, may write again.
    pub(crate) fn sent(&mut self, conn: ConnId) -> bool {
        self.touch(conn);
        let Some(link) = self.links.get_mut(&conn) else { return false };
        if link.closing || !link.stream.is_short || link.stream.out.len() > SEND_BUFFER / 2 {
            return link.closing;
        }
        link.stream.is_short = false;
        link.writable = true;
        self.make_ready(conn);
        true
    }

    /// Its address of the family of `other`.
    pub(crate) fn addr_towards(&mut self, other: SocketAddr) -> SocketAddr {
        let own = self.addr;
        let listen = self.engine().map(|engine| engine.config().listen.clone()).unwrap_or_default();
        listen.into_iter().find(|addr| addr.is_ipv4() == other.is_ipv4()).unwrap_or(own)
    }

    /// A stranger's stream begins; none if nobody wants it.
    pub(crate) fn accept(&mut self, now: Time, to: SocketAddr, from: SocketAddr) -> Option<ConnId> {
        let local = self.clock.local(now);
        let conn = match &mut self.body {
            Body::Engine(engine) => {
                let config = engine.config();
                let at = |addrs: &[SocketAddr]| addrs.iter().position(|addr| addr.port() == to.port());
                let index = |at: usize| u16::try_from(at).expect("few addresses");
                let server = at(&config.tracker.http).map(|at| ListenerId::Tracker(index(at)));
                let listener = server.or_else(|| at(&config.listen).map(|at| ListenerId::Peers(index(at))))?;
                self.cost.of("handle_accept", || engine.handle_accept(local, listener, from))?
            }
            Body::Hostile(_) => {
                let conn = self.new_conn();
                self.hostile().expect("it is one").handle_accepted(conn);
                conn
            }
            Body::Store(store) if store.is_down() => return None,
            Body::Store(_) => {
                let conn = self.new_conn();
                if let Body::Store(store) = &mut self.body {
                    store.handle_accepted(conn);
                }
                conn
            }
            Body::Tracker(_) | Body::Liar(_) | Body::Crowd(_) | Body::Down(_) => return None,
        };
        Some(conn)
    }

    pub(crate) fn accepted(&mut self, conn: ConnId, other: End) {
        self.links.insert(conn, Link { other: Some(other), ..Link::default() });
        self.wake(conn);
    }

    /// A stream that it dialled stands; false if it does not want it any more.
    pub(crate) fn connected(&mut self, now: Time, conn: ConnId, other: End) -> bool {
        let Some(link) = self.links.get_mut(&conn) else { return false };
        link.other = Some(other);
        let (local, addr) = (self.clock.local(now), self.addr);
        match &mut self.body {
            Body::Engine(engine) => {
                self.cost.of("handle_connected", || engine.handle_connected(local, conn, addr));
            }
            Body::Hostile(hostile) => hostile.handle_connected(conn),
            Body::Tracker(_) | Body::Liar(_) | Body::Crowd(_) | Body::Store(_) | Body::Down(_) => {}
        }
        self.wake(conn);
        true
    }

    pub(crate) fn refused(&mut self, now: Time, conn: ConnId) {
        if self.links.remove(&conn).is_some() {
            let local = self.clock.local(now);
            match &mut self.body {
                Body::Engine(engine) => self.cost.of("handle_closed", || engine.handle_closed(local, conn)),
                Body::Hostile(hostile) => hostile.handle_closed(conn),
                Body::Store(store) => store.handle_closed(conn),
                Body::Tracker(_) | Body::Liar(_) | Body::Crowd(_) | Body::Down(_) => {}
            }
        }
    }

    /// True if bytes that come on a stream are read: the node has not closed it.
    pub(crate) fn takes(&self, conn: ConnId) -> bool {
        self.links.get(&conn).is_some_and(|link| !link.closing)
    }

    /// Bytes came; false if there is nobody for them.
    pub(crate) fn delivered(&mut self, conn: ConnId, bytes: Bytes) -> bool {
        let Some(link) = self.links.get_mut(&conn).filter(|link| !link.closing) else { return false };
        let content = bytes.content_len() as u64;
        self.content_in += content;
        link.delivered += bytes.len() as u64;
        link.stream.incoming.append(bytes);
        if matches!(self.body, Body::Hostile(_) | Body::Store(_)) {
            let mut came = vec![0; link.stream.incoming.len()];
            let read = link.stream.incoming.read(&mut came).expect("memory reads");
            match &mut self.body {
                Body::Hostile(hostile) => hostile.handle_bytes(conn, &came[..read]),
                Body::Store(store) => store.handle_bytes(conn, &came[..read]),
                _ => {}
            }
            self.touch(conn);
            return true;
        }
        link.readable = true;
        self.make_ready(conn);
        true
    }

    pub(crate) fn acknowledged(&mut self, conn: ConnId, bytes: usize) {
        if let Some(link) = self.links.get_mut(&conn) {
            link.flow.acknowledged(bytes);
            self.offer(conn);
        }
    }

    /// The other end has closed, or the stream broke.
    pub(crate) fn ended(&mut self, now: Time, conn: ConnId, broken: bool) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        link.other = None;
        (link.stream.ended, link.stream.broken) = (true, broken);
        if link.closing {
            self.links.remove(&conn);
            return;
        }
        if matches!(self.body, Body::Hostile(_) | Body::Store(_)) {
            return self.refused(now, conn);
        }
        link.readable = true;
        self.make_ready(conn);
    }

    /// The program is gone, and all its streams with it. Returns their other ends.
    pub(crate) fn die(&mut self) -> Vec<End> {
        self.life += 1;
        (self.timer_at, self.exited, self.content_in) = (Time::NEVER, false, 0);
        self.ready.clear();
        self.touched.clear();
        self.ring.clear();
        self.claimed.clear();
        std::mem::take(&mut self.links).into_values().filter_map(|link| link.other).collect()
    }

    /// Stops the engine at once and keeps its disk; `power` is whether the machine itself stopped.
    pub(crate) fn crash(&mut self, power: bool, rng: &mut Rng) -> Vec<End> {
        let body = std::mem::replace(&mut self.body, Body::Down(Box::default()));
        if let Body::Engine(engine) = body {
            let mut storage = engine.into_storage();
            if power {
                storage.crash(rng);
            } else {
                storage.close_all();
            }
            self.body = Body::Down(Box::new(storage));
            self.is_silent = power;
        } else {
            self.body = body;
            if let Body::Store(store) = &mut self.body {
                store.stop();
                self.is_silent = power;
            }
        }
        self.die()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_and_jumps_can_be_read_backwards() {
        for ppm in [-500, 0, 37, 100_000] {
            let clock = Clock { started: Time::from_secs(5), ppm, ahead: Duration::from_secs(3) };
            for nanos in [0, 1, 999_999_999, 123_456_789_012] {
                let world = Time::from_secs(5) + Duration::from_nanos(nanos);
                let local = clock.local(world);
                let back = clock.world(local);
                assert!(back <= world && clock.local(back) >= local, "{ppm} {nanos}");
            }
            assert!(clock.world(Time::NEVER).is_never());
        }
    }
}
