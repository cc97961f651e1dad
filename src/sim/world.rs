//! The world: nodes, the network between them, and one queue of what will happen.

use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use slab::Slab;

use crate::base::ids::{ConnId, JobId, SocketId};
use crate::base::rng::Rng;
use crate::base::storage::Fault;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::sim::checks::Breach;
use crate::sim::ledger::Ledger;
use crate::sim::lookups::Lookups;
use crate::sim::network::{Line, Network, chance, jitter};
use crate::sim::node::{After, Body, End, Node, Output};
use crate::sim::report::Tally;
use crate::sim::storage::MemoryStorage;
use crate::sim::stream::{Bytes, PACKET};
use crate::sim::trace::{Trace, What};
use crate::sim::tracker::Tracker;

/// What goes on a line at once: a block and its head, so that streams take turns.
const SEGMENT: usize = 16 * 1024 + 13;
/// The same of a hostile peer: as much as a node reads in one turn, so that its turns are as expensive as they can be.
const HOSTILE_SEGMENT: usize = 256 * 1024;

/// Everything there is.
#[derive(Debug)]
pub struct World {
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    /// The machines, by index.
    pub nodes: Vec<Node>,
    routes: BTreeMap<IpAddr, usize>,
    /// What lies between them.
    pub network: Network,
    /// What will happen, the earliest first; `happenings` says what it is, so that the heap moves little.
    events: BinaryHeap<Scheduled>,
    happenings: Slab<Event>,
    counter: u64,
    /// What a cut keeps from its receiver, in order, until no cut does.
    held: Vec<Scheduled>,
    /// What happened on suspended machines, in order, until they go on.
    frozen: BTreeMap<usize, Vec<Scheduled>>,
    /// Nodes that something happened to, until they are settled.
    stirred: Vec<usize>,
    pub(crate) trace: Trace,
    pub(crate) tally: Tally,
    /// Searches in the DHT, where there is one.
    pub(crate) lookups: Lookups,
    pub(crate) has_dht: bool,
    /// What trackers were told, where they are engines.
    pub(crate) ledger: Ledger,
    /// Nodes that claim more than before, or whose program has ended, since somebody looked.
    pub(crate) news: Vec<usize>,
    /// The first rule that was broken; nothing happens after it.
    pub(crate) breach: Option<Breach>,
}

#[derive(Debug, Clone, Copy)]
struct Scheduled {
    at: Time,
    number: u64,
    /// Which of the happenings.
    event: usize,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What will happen.
#[derive(Debug)]
enum Event {
    /// A node's uplink is free.
    Uplink(usize),
    /// Bytes have crossed the network and are at the receiver's downlink.
    Arrived {
        from: End,
        to: End,
        bytes: Bytes,
    },
    /// They have passed it.
    Delivered {
        from: End,
        to: End,
        bytes: Bytes,
    },
    Acknowledged {
        to: End,
        bytes: usize,
    },
    Dialled {
        from: End,
        seen: SocketAddr,
        to: SocketAddr,
    },
    Connected {
        to: End,
        other: End,
    },
    Refused {
        to: End,
    },
    /// `queued`: it waits behind what is before the downlink.
    Ended {
        from: usize,
        to: End,
        broken: bool,
        queued: bool,
    },
    Packet {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Timer(usize),
    Job {
        node: usize,
        life: u32,
        job: JobId,
        after: Box<After>,
        result: Result<(), Fault>,
    },
    /// For whoever tells the story.
    Story(usize),
}

impl Event {
    /// Whose machine it happens on.
    fn node(&self) -> Option<usize> {
        match self {
            Self::Uplink(node) | Self::Timer(node) | Self::Job { node, .. } => Some(*node),
            Self::Delivered { to, .. }
            | Self::Acknowledged { to, .. }
            | Self::Connected { to, .. }
            | Self::Refused { to }
            | Self::Ended { to, .. } => Some(to.node),
            Self::Arrived { .. } | Self::Dialled { .. } | Self::Packet { .. } | Self::Story(_) => None,
        }
    }

    /// Who it comes from and goes to, if it is part of a stream that a cut holds up.
    fn way(&self) -> Option<(usize, usize)> {
        match self {
            Self::Arrived { from, to, .. } => Some((from.node, to.node)),
            Self::Ended { from, to, .. } => Some((*from, to.node)),
            _ => None,
        }
    }
}

impl World {
    /// An empty world. Chance in the network is drawn from `rng`; the trace is kept for printing from `prints_from` on.
    #[must_use]
    pub fn new(network: Network, rng: Rng, prints_from: Time) -> Self {
        Self {
            now: Time::ZERO,
            rng,
            nodes: Vec::new(),
            routes: BTreeMap::new(),
            network,
            events: BinaryHeap::new(),
            happenings: Slab::new(),
            counter: 0,
            held: Vec::new(),
            frozen: BTreeMap::new(),
            stirred: Vec::new(),
            trace: Trace::new(prints_from),
            tally: Tally::default(),
            lookups: Lookups::default(),
            has_dht: false,
            ledger: Ledger::default(),
            news: Vec::new(),
            breach: None,
        }
    }

    /// The time it is.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// A hash of everything that happened so far, and when. Equal seeds give equal hashes.
    #[must_use]
    pub fn trace_hash(&self) -> [u8; 32] {
        self.trace.hash()
    }

    /// How many events have happened or will.
    pub(crate) const fn events(&self) -> u64 {
        self.counter
    }

    /// Adds a machine that runs `engine`, and listens at the engine's first address; where it is among the nodes.
    pub fn add_engine(&mut self, name: &str, engine: Engine<MemoryStorage>) -> usize {
        let listen = engine.config().listen.clone();
        let index = self.add(Node::new(name.to_owned(), listen[0], Body::Engine(Box::new(engine))));
        self.routes.extend(listen.into_iter().map(|addr| (addr.ip(), index)));
        index
    }

    /// Adds a machine that runs `tracker`.
    pub fn add_tracker(&mut self, name: &str, tracker: Tracker) -> usize {
        let addrs = tracker.addrs.clone();
        let index = self.add(Node::new(name.to_owned(), addrs[0], Body::Tracker(tracker)));
        self.routes.extend(addrs.into_iter().map(|addr| (addr.ip(), index)));
        index
    }

    pub(crate) fn add(&mut self, node: Node) -> usize {
        let index = self.nodes.len();
        self.routes.insert(node.public, index);
        if let Body::Crowd(crowd) = &node.body {
            self.routes.extend(crowd.addrs().map(|ip| (ip, index)));
        }
        self.nodes.push(node);
        self.tally.add_node();
        self.stir(index);
        index
    }

    /// What a node's access to the network carries, bytes a second each way; 0 is no limit.
    pub fn set_rates(&mut self, node: usize, up_bytes: u64, down_bytes: u64) {
        self.nodes[node].uplink = Line { rate_bytes: up_bytes, free_at: self.now };
        self.nodes[node].downlink = Line { rate_bytes: down_bytes, free_at: self.now };
    }

    /// Something was done to a node from outside: it is settled before anything else happens.
    pub fn stir(&mut self, node: usize) {
        if self.stirred.last() != Some(&node) {
            self.stirred.push(node);
        }
    }

    /// Number `what` of the story is told at `at`.
    pub(crate) fn plan(&mut self, at: Time, what: usize) {
        self.schedule(at, Event::Story(what));
    }

    /// Runs until `done` or `until`, whichever comes first; true if it was `done`.
    ///
    /// # Panics
    /// If a rule is broken.
    pub fn run(&mut self, until: Time, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            let told = self.step(until);
            if let Some(breach) = &self.breach {
                panic!("{breach}\n{}", self.trace.latest(&breach.nodes).join("\n"));
            }
            if done(self) {
                return true;
            }
            if told == Step::Over {
                return false;
            }
        }
    }

    /// Lets one thing happen; nothing more does before `until` if it is [`Step::Over`].
    pub(crate) fn step(&mut self, until: Time) -> Step {
        self.settle_all();
        if self.events.peek().is_none_or(|next| next.at > until) || self.breach.is_some() {
            self.now = if self.breach.is_some() { self.now } else { self.now.max(until) };
            return Step::Over;
        }
        let next = self.events.pop().expect("it was just there");
        self.now = next.at;
        let event = &self.happenings[next.event];
        if let Some(node) = event.node()
            && self.nodes[node].frozen_until > self.now
        {
            self.frozen.entry(node).or_default().push(next);
        } else if let Some((from, to)) = event.way()
            && self.is_cut(from, to)
        {
            self.held.push(next);
        } else {
            match self.happenings.remove(next.event) {
                Event::Story(what) => return Step::Story(what),
                event => self.happen(event),
            }
        }
        self.settle_all();
        Step::More
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.counter += 1;
        let event = self.happenings.insert(event);
        self.events.push(Scheduled { at, number: self.counter, event });
    }

    /// What was kept back happens now, in the order of its numbers: nothing that came later overtakes it.
    fn let_happen(&mut self, kept: Vec<Scheduled>) {
        let at = self.now;
        self.events.extend(kept.into_iter().map(|scheduled| Scheduled { at, ..scheduled }));
    }

    fn settle_all(&mut self) {
        while let Some(node) = self.stirred.pop() {
            self.settle(node);
        }
    }

    fn settle(&mut self, index: usize) {
        let now = self.now;
        let mut outputs = Vec::new();
        if self.nodes[index].frozen_until > now {
            return;
        }
        self.nodes[index].settle(now, &mut outputs);
        let life = self.nodes[index].life;
        for output in outputs {
            match output {
                Output::Connect { conn, to } => self.dial(End { node: index, life, conn }, to),
                Output::Ended { other, after } => {
                    let at = (now + self.trip(index, other.node)).max(after);
                    self.schedule(at, Event::Ended { from: index, to: other, broken: false, queued: false });
                }
                Output::Acknowledged { other, bytes } => {
                    let at = now + self.trip(index, other.node);
                    self.schedule(at, Event::Acknowledged { to: other, bytes });
                }
                Output::Packet { from, to, bytes } => self.send_packet(index, from, to, bytes),
                Output::Job { job, takes, after, result } => {
                    let after = Box::new(after);
                    self.schedule(now + takes, Event::Job { node: index, life, job, after, result });
                }
            }
        }
        self.feed_uplink(index);
        let wants = self.nodes[index].poll_timeout();
        if wants < self.nodes[index].timer_at {
            self.nodes[index].timer_at = wants;
            self.schedule(wants.max(now), Event::Timer(index));
        }
        if self.nodes[index].exited {
            self.news.push(index);
        }
        if self.breach.is_none() {
            self.check(index);
        }
    }

    /// How long something takes from one node to another.
    fn trip(&mut self, from: usize, to: usize) -> Duration {
        let extra = self.nodes[from].extra + self.nodes[to].extra;
        self.network.trip(&mut self.rng, extra)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.nodes[from].side != self.nodes[to].side
    }

    fn dial(&mut self, from: End, to: SocketAddr) {
        self.trace.note(self.now, from.node, What::Dials(to), &[]);
        self.tally.dials += 1;
        let Some(&other) = self.routes.get(&to.ip()) else { return };
        let node = &mut self.nodes[from.node];
        let seen = if node.nat.is_some() { node.public } else { node.addr_towards(to).ip() };
        let port = 50_000 + u16::try_from(self.counter % 10_000).expect("below ten thousand");
        let at = self.now + self.trip(from.node, other);
        self.schedule(at, Event::Dialled { from, seen: SocketAddr::new(seen, port), to });
    }

    fn send_packet(&mut self, index: usize, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let is_engine = matches!(self.nodes[index].body, Body::Engine(_));
        if is_engine && self.has_dht {
            self.note_query(index, to, &bytes);
        }
        self.check_answer(index, from, to, &bytes);
        let Some(&other) = self.routes.get(&to.ip()) else { return };
        let source = self.nodes[index].nat.as_mut().map_or(from, |nat| nat.outward(from, to));
        self.tally.packets += 1;
        if self.is_cut(index, other) || chance(&mut self.rng, self.network.loss) {
            return;
        }
        let copies = if chance(&mut self.rng, self.network.duplicated) { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = self.now + self.trip(index, other);
            if chance(&mut self.rng, self.network.reordered) {
                at += jitter(&mut self.rng, self.network.delay * 2);
            }
            self.schedule(at, Event::Packet { from: source, to, bytes: bytes.clone() });
        }
    }

    /// Puts the next moment of a node's uplink into the queue if somebody waits for it.
    fn feed_uplink(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if !node.uplink_scheduled && !node.ring.is_empty() {
            node.uplink_scheduled = true;
            let at = node.uplink.free_at.max(self.now);
            self.schedule(at, Event::Uplink(index));
        }
    }

    /// The next stream of a node that may puts a segment on its uplink.
    fn use_uplink(&mut self, index: usize) {
        let now = self.now;
        self.nodes[index].uplink_scheduled = false;
        let is_hostile = matches!(self.nodes[index].body, Body::Hostile(_));
        let mut used = 0;
        // Small messages go together; each has its own moment on the line.
        while used < PACKET
            && let Some(conn) = self.nodes[index].ring.pop_front()
        {
            let life = self.nodes[index].life;
            let Some(link) = self.nodes[index].links.get_mut(&conn) else { continue };
            link.queued = false;
            let Some(other) = link.other else { continue };
            let segment = if is_hostile { HOSTILE_SEGMENT } else { SEGMENT };
            let count = link.flow.room().min(segment).min(link.stream.out.len());
            if count == 0 || link.stalled_until > now || self.is_cut(index, other.node) {
                continue;
            }
            let trip = self.trip(index, other.node);
            let is_lost = self.network.loses(&mut self.rng, count.div_ceil(PACKET));
            let node = &mut self.nodes[index];
            let sent = node.uplink.pass(now, count as u64);
            let link = node.links.get_mut(&conn).expect("it was just there");
            let bytes = link.stream.out.cut(count);
            if !node.private.is_empty() && matches!(node.body, Body::Engine(_)) {
                let heard = bytes.runs().find_map(|run| link.said.hear(run, &node.private));
                node.breach = node.breach.take().or(heard);
            }
            if !self.ledger.is_empty() {
                let end = End { node: index, life, conn };
                let wrong = self.ledger.say_stream(now, end, bytes.runs());
                self.nodes[index].breach = self.nodes[index].breach.take().or(wrong);
            }
            let node = &mut self.nodes[index];
            let link = node.links.get_mut(&conn).expect("it was just there");
            link.flow.sent(count);
            let mut at = sent + trip;
            if is_lost {
                at += link.flow.lost(now, trip * 2);
                self.tally.segments_lost += 1;
            }
            at = at.max(link.flow.last_arrival);
            link.flow.last_arrival = at;
            self.tally.segments += 1;
            self.schedule(at, Event::Arrived { from: End { node: index, life, conn }, to: other, bytes });
            let node = &mut self.nodes[index];
            node.offer(conn);
            if node.sent(conn) {
                self.stir(index);
            }
            used += count;
        }
        self.feed_uplink(index);
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Uplink(node) => self.use_uplink(node),
            Event::Arrived { from, to, bytes } => self.arrive(from, to, bytes),
            Event::Delivered { from, to, bytes } => self.deliver(from, to, bytes),
            Event::Acknowledged { to, bytes } => {
                if self.is_alive(to) {
                    self.nodes[to.node].acknowledged(to.conn, bytes);
                    self.feed_uplink(to.node);
                }
            }
            Event::Dialled { from, seen, to } => self.take_call(from, seen, to),
            Event::Connected { to, other } => {
                self.trace.note(now, to.node, What::Connected(other.node), &[]);
                if self.is_alive(to) && self.nodes[to.node].connected(now, to.conn, other) {
                    self.stir(to.node);
                } else {
                    let at = now + self.trip(to.node, other.node);
                    self.schedule(at, Event::Ended { from: to.node, to: other, broken: true, queued: false });
                }
            }
            Event::Refused { to } => {
                self.trace.note(now, to.node, What::Refused, &[]);
                if self.is_alive(to) {
                    self.nodes[to.node].refused(now, to.conn);
                    self.stir(to.node);
                }
            }
            Event::Ended { from, to, broken, queued } => {
                let free_at = self.nodes[to.node].downlink.free_at;
                if !queued && !broken && free_at > now {
                    self.schedule(free_at, Event::Ended { from, to, broken, queued: true });
                } else if self.is_alive(to) {
                    self.trace.note(now, to.node, What::Ended(from), &[]);
                    self.ledger.ended(to);
                    self.nodes[to.node].ended(now, to.conn, broken);
                    self.stir(to.node);
                }
            }
            Event::Packet { from, to, bytes } => self.take_packet(from, to, bytes),
            Event::Timer(node) => {
                if self.nodes[node].timer_at <= now {
                    self.nodes[node].timer_at = Time::NEVER;
                    self.stir(node);
                }
            }
            Event::Job { node, life, job, after, result } => {
                if self.nodes[node].life == life && self.nodes[node].is_up() {
                    self.trace.note(now, node, What::Job, &job.0.to_be_bytes());
                    self.nodes[node].finish_job(now, job, *after, result);
                    self.stir(node);
                }
            }
            Event::Story(_) => unreachable!("it is told, and does not happen"),
        }
    }

    fn is_alive(&self, end: End) -> bool {
        let node = &self.nodes[end.node];
        node.life == end.life && node.is_up()
    }

    fn arrive(&mut self, from: End, to: End, bytes: Bytes) {
        let now = self.now;
        let queued = self.nodes[to.node].downlink.free_at.since(now);
        if queued > self.network.queue && self.is_alive(from) {
            let round_trip = (self.network.delay + self.nodes[from.node].extra + self.nodes[to.node].extra) * 2;
            if let Some(link) = self.nodes[from.node].links.get_mut(&from.conn) {
                link.flow.lost(now, round_trip + queued);
            }
        }
        let at = self.nodes[to.node].downlink.pass(now, bytes.len() as u64);
        if at > now {
            self.schedule(at, Event::Delivered { from, to, bytes });
        } else {
            self.deliver(from, to, bytes);
        }
    }

    fn deliver(&mut self, from: End, to: End, bytes: Bytes) {
        let now = self.now;
        let (len, content) = (bytes.len(), bytes.content_len());
        self.trace.note_bytes(now, to.node, from.node, &bytes);
        if self.nodes[to.node].is_silent {
            return; // nobody answers
        }
        // A tracker hears nothing on a stream that it has closed itself.
        if self.is_alive(to) && !self.ledger.is_empty() && self.nodes[to.node].takes(to.conn) {
            self.ledger.hear_stream(now, to, bytes.runs());
        }
        if self.is_alive(to) && self.nodes[to.node].delivered(to.conn, bytes) {
            self.tally.delivered(from.node, to.node, len, content);
            self.stir(to.node);
        } else {
            let at = now + self.trip(to.node, from.node);
            self.schedule(at, Event::Ended { from: to.node, to: from, broken: true, queued: false });
        }
    }

    fn take_call(&mut self, from: End, seen: SocketAddr, to: SocketAddr) {
        let now = self.now;
        let other = self.routes[&to.ip()];
        if self.is_cut(from.node, other) {
            return; // nobody answers
        }
        let node = &self.nodes[other];
        let is_deaf = node.nat.is_some() || node.is_silent;
        let back = now + self.trip(other, from.node);
        if is_deaf || !self.is_alive(from) {
            return;
        }
        if let Some(conn) = self.nodes[other].accept(now, to, seen) {
            let end = End { node: other, life: self.nodes[other].life, conn };
            self.trace.note(now, other, What::Connected(from.node), &[]);
            self.ledger.accepted(end, to, seen);
            self.nodes[other].accepted(conn, from);
            self.schedule(back, Event::Connected { to: from, other: end });
        } else {
            self.schedule(back, Event::Refused { to: from });
        }
        self.stir(other);
    }

    fn take_packet(&mut self, from: SocketAddr, to: SocketAddr, mut bytes: Vec<u8>) {
        let now = self.now;
        let index = self.routes[&to.ip()];
        let node = &mut self.nodes[index];
        let inner = match &node.nat {
            Some(nat) => nat.inward(from, to.port()),
            None => Some(to),
        };
        let Some(to) = inner else { return };
        if node.frozen_until > now {
            return;
        }
        self.trace.note(now, index, What::Packet { from, len: bytes.len() }, &bytes);
        let local = node.clock.local(now);
        match &mut node.body {
            Body::Engine(engine) => {
                let Some(socket) = engine.config().socket_at(to) else { return };
                if self.has_dht {
                    self.note_answer(index, from, &bytes);
                }
                if matches!(socket, SocketId::Tracker(_)) {
                    self.ledger.hear(now, index, self.nodes[index].life, from, &bytes);
                    self.check_told(index, from, &bytes);
                }
                let node = &mut self.nodes[index];
                let Body::Engine(engine) = &mut node.body else { return };
                node.cost.of("handle_packet", || engine.handle_packet(local, socket, from, &mut bytes));
                self.stir(index);
            }
            Body::Tracker(tracker) => {
                let answers = tracker.handle_packet(from, &bytes);
                self.check_told(index, from, &bytes);
                for answer in answers {
                    self.send_packet(index, to, from, answer);
                }
            }
            Body::Liar(liar) => {
                liar.handle_packet(from, &bytes);
                self.stir(index);
            }
            Body::Crowd(crowd) => {
                crowd.handle_packet(now, from, to, &bytes);
                self.stir(index);
            }
            Body::Hostile(_) | Body::Store(_) | Body::Down(_) => {}
        }
    }

    /// Both ends of every stream of a node that stopped lose it: at once if somebody is left to say so.
    pub(crate) fn crash(&mut self, index: usize, power: bool) {
        let others = self.nodes[index].crash(power, &mut self.rng);
        if !power {
            for other in others {
                let at = self.now + self.trip(index, other.node);
                self.schedule(at, Event::Ended { from: index, to: other, broken: true, queued: false });
            }
        }
    }

    /// A random stream of a node breaks.
    pub(crate) fn reset_stream(&mut self, index: usize) {
        let conns: Vec<ConnId> = self.nodes[index].links.keys().copied().collect();
        let Some(&conn) = self.rng.choose(&conns) else { return };
        let life = self.nodes[index].life;
        let other = self.nodes[index].links[&conn].other;
        self.schedule(
            self.now,
            Event::Ended { from: index, to: End { node: index, life, conn }, broken: true, queued: false },
        );
        if let Some(other) = other {
            self.schedule(self.now, Event::Ended { from: index, to: other, broken: true, queued: false });
        }
    }

    /// A random stream of a node does not move until `until`.
    pub(crate) fn stall_stream(&mut self, index: usize, until: Time) {
        let conns: Vec<ConnId> = self.nodes[index].links.keys().copied().collect();
        if let Some(conn) = self.rng.choose(&conns) {
            self.nodes[index].links.get_mut(conn).expect("it was just there").stalled_until = until;
        }
    }

    /// A cut has come or is healed, or a stall is over: what nothing keeps back any more goes on.
    pub(crate) fn let_go_on(&mut self) {
        let (still, free): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|held| self.happenings[held.event].way().is_some_and(|(from, to)| self.is_cut(from, to)));
        self.held = still;
        self.let_happen(free);
        for index in 0..self.nodes.len() {
            let conns: Vec<ConnId> = self.nodes[index].links.keys().copied().collect();
            conns.into_iter().for_each(|conn| self.nodes[index].offer(conn));
            self.feed_uplink(index);
        }
    }

    /// Suspends a node for so long. It goes on when [`World::wake`] is called after that.
    pub fn suspend(&mut self, node: usize, lasts: Duration) {
        self.nodes[node].frozen_until = self.nodes[node].frozen_until.max(self.now + lasts);
    }

    /// Lets a node go on whose suspension is over.
    pub fn wake(&mut self, node: usize) {
        self.thaw(node);
        self.stir(node);
    }

    /// A suspended machine goes on if nothing else suspends it: what happened meanwhile happens now.
    pub(crate) fn thaw(&mut self, node: usize) {
        if self.nodes[node].frozen_until <= self.now {
            let kept = self.frozen.remove(&node).unwrap_or_default();
            self.let_happen(kept);
        }
    }

    /// Which node is at an address.
    pub(crate) fn node_at(&self, ip: IpAddr) -> Option<usize> {
        self.routes.get(&ip).copied()
    }
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something happened.
    More,
    /// A moment of the story has come.
    Story(usize),
    /// Nothing more happens until then.
    Over,
}
