//! The reactor: drives an [`Engine`] on real sockets, files and time.
//!
//! One thread, and nothing in it waits but [`Reactor::turn`]. A turn does what the engine wants done, waits for the kernel, and gives
//! everybody who is ready a bounded share. The daemon's own descriptors come back as values. It knows no protocol.

pub(crate) mod batch;
pub mod calendar;
pub mod clock;
pub mod datagrams;
pub mod descriptors;
pub mod entropy;
mod guard;
pub(crate) mod interfaces;
pub(crate) mod lag;
pub mod listeners;
pub mod moves;
pub(crate) mod multicast;
pub mod names;
pub(crate) mod options;
pub mod outside;
pub(crate) mod ready;
pub mod signals;
pub mod sockets;
pub(crate) mod tokens;
pub mod trust;

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use mio::event::Source;
use mio::{Events, Interest, Poll};

use crate::base::ids::{ConnId, ListenerId, SocketId};
use crate::base::rate::Budget;
use crate::base::steps;
use crate::base::time::Time;
use crate::engine::{Effect, Engine};
use crate::protocol::tls;
use crate::reactor::batch::{BATCH, Inbox};
use crate::reactor::clock::{Clock, unix_nanos};
use crate::reactor::datagrams::{Datagrams, Received};
use crate::reactor::guard::Guard;
use crate::reactor::lag::Histogram;
use crate::reactor::listeners::{Accepted, BindError, Bound, Listeners};
use crate::reactor::multicast::Multicast;
use crate::reactor::outside::{OutsideEvent, OutsideId, Outsiders};
use crate::reactor::ready::{ROUND_BYTES, ReadyQueue, STEP_BYTES, TURN_BYTES, TURN_LEAST_BYTES};
use crate::reactor::sockets::{Connecting, Sockets};
use crate::reactor::tokens::Whose;
use crate::storage::{FileStorage, LOOK_AGAIN, Work};

/// Events taken from the kernel at once; the rest comes in the next round.
const EVENTS_MAX: usize = 1024;
/// Connections accepted at a listener in a round; the rest waits in the kernel.
const ACCEPTS_MAX: usize = 16;
/// Batches of datagrams received at a socket in a round: 128 datagrams. The rest waits in the kernel, which drops what its buffer does
/// not hold.
const BATCHES_MAX: usize = 128 / BATCH;
/// How long background work may keep the loop from asking the kernel, while nobody is ready.
const WORK_MAX: Duration = Duration::from_millis(1);
/// And while somebody is: enough that a long job ends some day, too little to be felt.
const WORK_SHARE: Duration = Duration::from_micros(500);
/// No wait is longer, so that no arithmetic of the kernel's is ever near its end.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How often calendars are looked at while the loop turns: somebody may have set them, or the machine has slept.
const CALENDAR_EVERY: Duration = Duration::from_millis(100);
/// Rounds in a row that neither waited nor did anything but call a timer; beyond it each round waits for [`IDLE_WAIT`].
const IDLE_ROUNDS_MAX: u32 = 256;
const IDLE_WAIT: Duration = Duration::from_millis(1);
/// Rounds are counted below each of these powers of two of microseconds: 64 us to 65 ms.
const BOUNDS: [u32; 11] = [6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Turn {
    /// The engine says that everything is saved: end.
    pub exit: bool,
    /// The moment given to [`Reactor::set_deadline`] has come. Once.
    pub deadline: bool,
}

/// The driver of an engine. Owns every socket; the engine and its storage are lent to each turn.
pub struct Reactor {
    poll: Poll,
    events: Events,
    clock: Clock,
    /// When the present round began.
    now: Time,
    sockets: Sockets,
    ready: ReadyQueue,
    listeners: Listeners,
    datagrams: Datagrams,
    multicast: Multicast,
    outsiders: Outsiders,
    bound: Vec<SocketAddr>,
    bound_dht: Vec<SocketAddr>,
    bound_tracker: [Vec<SocketAddr>; 2],
    /// Of the interface that everything must go through; none if any will do.
    guard: Option<Guard>,
    /// Could not even begin. Told in the next round, so that the drain ends whatever the engine answers.
    stillborn: Vec<ConnId>,
    deadline: Time,
    /// Background work waits.
    work_waits: bool,
    /// When jobs that wait for the disk are looked at again.
    look_at: Time,
    /// When calendars are looked at again, should the loop turn then; nobody wakes for it.
    calendar_at: Time,
    /// What datagrams are received into, and what one to send is written into.
    inbox: Inbox,
    transmit: Vec<u8>,
    /// From the end of one wait to the begin of the next, the daemon's own doings included.
    lag: Histogram,
    has_waited: bool,
    idle_rounds: u32,
    accepted: u64,
    /// How often nobody could be accepted.
    starved: u64,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("now", &self.now)
            .field("bound", &self.bound)
            .field("sockets", &self.sockets.len())
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

impl Reactor {
    /// A reactor that listens at each of `listen` with TCP and UDP (port 0 is any free one); at none is fine. With an `interface`,
    /// its sockets speak through that alone,
    /// and it waits while that is not there.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn new(clock: Clock, listen: &[SocketAddr], interface: Option<&str>) -> Result<Self, BindError> {
        let at = listen.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let unwatched = |error| BindError { addr: at, error };
        let poll = Poll::new().map_err(unwatched)?;
        let mut reactor = Self {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            clock,
            now: clock.now(),
            sockets: Sockets::default(),
            ready: ReadyQueue::default(),
            listeners: Listeners::default(),
            datagrams: Datagrams::default(),
            multicast: Multicast::default(),
            outsiders: Outsiders::default(),
            bound: Vec::new(),
            bound_dht: Vec::new(),
            bound_tracker: [Vec::new(), Vec::new()],
            guard: interface.map(Guard::new).transpose().map_err(unwatched)?,
            stillborn: Vec::new(),
            deadline: Time::NEVER,
            work_waits: false,
            look_at: Time::NEVER,
            calendar_at: Time::ZERO,
            inbox: Inbox::new(),
            transmit: Vec::new(),
            lag: Histogram::default(),
            has_waited: false,
            idle_rounds: 0,
            accepted: 0,
            starved: 0,
        };
        reactor.begin_guard();
        let bound = match reactor.may_speak().then(|| listeners::bind_all(listen, interface)) {
            Some(Err(error)) if !reactor.put_off(&error) => return Err(error),
            Some(Ok(bound)) => bound,
            _ => {
                reactor.bound = listeners::choose_ports(listen);
                Vec::new()
            }
        };
        for bound in bound {
            reactor.watch(bound).map_err(unwatched)?;
        }
        Ok(reactor)
    }

    fn watch(&mut self, bound: Bound) -> io::Result<()> {
        let index = u16::try_from(self.bound.len()).map_err(|_| ErrorKind::InvalidInput)?;
        self.listeners.add(self.poll.registry(), ListenerId::Peers(index), bound.listener)?;
        self.datagrams.add(self.poll.registry(), SocketId::Peers(index), bound.datagrams)?;
        self.bound.push(bound.addr);
        Ok(())
    }

    /// The addresses listened at, in the order of [`ListenerId`]: for `Config::listen`.
    #[must_use]
    pub fn bound(&self) -> &[SocketAddr] {
        &self.bound
    }

    /// Binds datagram sockets for the DHT alone (port 0 is any free one); none is fine.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind_dht(&mut self, addrs: &[SocketAddr]) -> Result<(), BindError> {
        let bound = match self.may_speak().then(|| listeners::bind_all_datagrams(addrs, self.interface())) {
            Some(Ok(bound)) => bound,
            Some(Err(error)) if !self.put_off(&error) => return Err(error),
            _ => {
                self.bound_dht = listeners::choose_ports(addrs);
                return Ok(());
            }
        };
        for bound in bound {
            let failed = |error| BindError { addr: bound.addr, error };
            let index = u16::try_from(self.bound_dht.len()).map_err(|_| failed(ErrorKind::InvalidInput.into()))?;
            self.datagrams.add(self.poll.registry(), SocketId::Dht(index), bound.socket).map_err(failed)?;
            self.bound_dht.push(bound.addr);
        }
        Ok(())
    }

    /// The addresses that the DHT alone speaks from: for `Config::dht_listen`.
    #[must_use]
    pub fn bound_dht(&self) -> &[SocketAddr] {
        &self.bound_dht
    }

    /// Binds sockets for the tracker server: for datagrams at `udp`, for HTTP at `http` (port 0 is any free one); none is fine.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind_tracker(&mut self, udp: &[SocketAddr], http: &[SocketAddr]) -> Result<(), BindError> {
        let bind = || {
            let datagrams = listeners::bind_all_datagrams(udp, self.interface())?;
            Ok((datagrams, listeners::bind_all_served(http, self.interface())?))
        };
        let (datagrams, served) = match self.may_speak().then(bind) {
            Some(Ok(bound)) => bound,
            Some(Err(error)) if !self.put_off(&error) => return Err(error),
            _ => {
                self.bound_tracker = [udp, http].map(listeners::choose_ports);
                return Ok(());
            }
        };
        for (index, bound) in (0..).zip(datagrams) {
            let failed = |error| BindError { addr: bound.addr, error };
            self.datagrams.add(self.poll.registry(), SocketId::Tracker(index), bound.socket).map_err(failed)?;
            self.bound_tracker[0].push(bound.addr);
        }
        for (index, (addr, listener)) in (0..).zip(served) {
            let failed = |error| BindError { addr, error };
            self.listeners.add(self.poll.registry(), ListenerId::Tracker(index), listener).map_err(failed)?;
            self.bound_tracker[1].push(addr);
        }
        Ok(())
    }

    /// The addresses of the tracker server, for datagrams and for HTTP: for `TrackerConfig`.
    #[must_use]
    pub fn bound_tracker(&self) -> [&[SocketAddr]; 2] {
        [&self.bound_tracker[0], &self.bound_tracker[1]]
    }

    /// When the present round began; what to tell the engine between turns.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Watches a descriptor of somebody else's. Its readiness comes back from [`Reactor::turn`], as edges.
    ///
    /// # Errors
    /// What the kernel says; the descriptor may be one that cannot be watched.
    pub fn register(&mut self, source: &mut impl Source, interests: Interest) -> io::Result<OutsideId> {
        self.outsiders.register(self.poll.registry(), source, interests)
    }

    /// Stops watching. Events that the kernel has already reported find nobody.
    ///
    /// # Errors
    /// If it was not watched.
    pub fn deregister(&mut self, id: OutsideId, source: &mut impl Source) -> io::Result<()> {
        self.outsiders.deregister(self.poll.registry(), id, source)
    }

    /// Asks for a turn to end at `at`, at the latest. There is one such moment; [`Time::NEVER`] takes it back.
    pub const fn set_deadline(&mut self, at: Time) {
        self.deadline = at;
    }

    /// Figures of the loop, for `stats`: names and values.
    #[must_use]
    pub fn stats(&self) -> Vec<(String, u64)> {
        let micros = |length: Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        let (datagrams, multicast) = (self.datagrams.counts(), self.multicast.counts());
        let rounds_below =
            BOUNDS.map(|octave| (format!("loop_rounds_below_{}_us", 1 << octave), self.lag.below(octave)));
        [
            ("loop_rounds", self.lag.total()),
            ("loop_round_p50_us", micros(self.lag.percentile(50))),
            ("loop_round_p99_us", micros(self.lag.percentile(99))),
            ("loop_round_max_us", micros(self.lag.max())),
            ("sockets_open", self.sockets.len() as u64),
            ("sockets_accepted", self.accepted),
            ("sockets_starved", self.starved),
            ("datagrams_received", datagrams.received),
            ("datagrams_sent", datagrams.sent),
            ("datagrams_dropped", datagrams.dropped),
            ("datagrams_failed", datagrams.failed),
            ("multicast_sockets", self.multicast.len() as u64),
            ("multicast_received", multicast.received),
            ("multicast_sent", multicast.sent),
            ("multicast_failed", multicast.failed),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(rounds_below)
        .collect()
    }

    /// One round: does what the engine wants, waits until something happens, and gives everybody who is ready a share. What
    /// happened to descriptors of others replaces what is in `outside`. Call it until the engine wants to exit.
    ///
    /// # Errors
    /// Only if the kernel no longer lets us wait: nothing can go on after that.
    pub fn turn(&mut self, engine: &mut Engine<FileStorage>, outside: &mut Vec<OutsideEvent>) -> io::Result<Turn> {
        outside.clear();
        let mut turn = Turn::default();
        // Once for what this round's predecessor and the daemon's commands led to, so that work knows who is ready; and once for
        // what the work led to.
        self.drain(engine, &mut turn);
        let worked = self.work(engine) | self.tell_jobs(engine);
        self.drain(engine, &mut turn);
        let waited = self.wait(engine, &turn)?;
        self.now = self.clock.now();
        if self.now >= self.calendar_at {
            self.calendar_at = self.now + CALENDAR_EVERY;
            let unix = unix_nanos();
            // Where we had to wait for the processor in between, the two do not belong together.
            if self.clock.now().since(self.now) < CALENDAR_EVERY {
                engine.handle_calendar(self.now, unix);
            }
        }

        let mut happened = self.note(engine, outside);
        happened |= self.heed_interface(engine);
        happened |= self.tell_stillborn(engine);
        happened |= self.give_turns(engine);
        happened |= self.accept(engine);
        happened |= self.receive(engine);
        happened |= self.tell_jobs(engine);
        if engine.poll_timeout() <= self.now {
            engine.handle_timeout(self.now);
        }
        if self.deadline <= self.now {
            self.deadline = Time::NEVER;
            turn.deadline = true;
        }
        let idle = !waited && !worked && !happened && turn == Turn::default();
        self.idle_rounds = if idle { self.idle_rounds.saturating_add(1) } else { 0 };
        Ok(turn)
    }

    /// Does all that the engine wants. It ends because nothing in it tells the engine anything but of jobs' starts.
    fn drain(&mut self, engine: &mut Engine<FileStorage>, turn: &mut Turn) {
        loop {
            let mut idle = true;
            while let Some(effect) = engine.poll_effect() {
                idle = false;
                self.act(engine, effect, turn);
            }
            while let Some(transmit) = engine.poll_transmit(self.now, &mut self.transmit) {
                idle = false;
                if !self.may_reach(transmit.to.ip()) {
                    continue; // as if it were lost
                }
                match transmit.socket {
                    SocketId::Lsd4 | SocketId::Lsd6 => self.multicast.send(transmit, &self.transmit),
                    _ => self.datagrams.send(self.poll.registry(), transmit, &self.transmit),
                }
            }
            if idle {
                self.datagrams.flush(self.poll.registry());
                return;
            }
        }
    }

    fn act(&mut self, engine: &mut Engine<FileStorage>, effect: Effect, turn: &mut Turn) {
        match effect {
            Effect::Connect { conn, to } => {
                if !self.may_reach(to.ip()) {
                    self.stillborn.push(conn);
                    return;
                }
                let through = self.guard.as_ref().map(|guard| (guard.name(), guard.local(to.ip())));
                if let Err(error) = self.sockets.connect(self.poll.registry(), conn, to, through) {
                    log::debug!("{to}: cannot connect: {error}");
                    self.stillborn.push(conn);
                }
            }
            Effect::Close(conn) => self.close(conn),
            Effect::Wake(conn) => self.ready.wake(conn),
            Effect::Job(id, job) => {
                engine.storage().start(id, job);
                self.work_waits = true;
                self.look_at = Time::NEVER;
            }
            Effect::Rebind(_) if !self.may_speak() => {}
            Effect::Rebind(id @ (SocketId::Lsd4 | SocketId::Lsd6)) => {
                self.multicast.rebind(self.poll.registry(), id, &self.bound, self.guard.as_ref().map(Guard::name));
            }
            Effect::Rebind(id) => {
                if let Err(error) =
                    self.datagrams.rebind(self.poll.registry(), id, self.guard.as_ref().map(Guard::name))
                {
                    log::debug!("{id:?}: cannot bind: {error}");
                }
            }
            Effect::Trust => engine.handle_trust(self.now, tls::config(trust::tls_roots())),
            Effect::Exit => turn.exit = true,
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.ready.remove(conn);
        if self.sockets.close(conn) {
            self.listeners.handle_room();
        }
        self.stillborn.retain(|other| *other != conn);
    }

    /// Waits for the kernel, or for the next moment, or not at all if there is something to do. False if it did not wait.
    fn wait(&mut self, engine: &Engine<FileStorage>, turn: &Turn) -> io::Result<bool> {
        let busy = turn.exit
            || self.work_waits
            || engine.has_news()
            || !self.stillborn.is_empty()
            || !self.ready.is_empty()
            || self.datagrams.is_ready()
            || self.multicast.is_ready();
        let until = if busy {
            Time::ZERO
        } else {
            let guard = self.guard.as_ref().map_or(Time::NEVER, Guard::poll_timeout);
            engine.poll_timeout().min(self.deadline).min(self.listeners.next_accept()).min(self.look_at).min(guard)
        };
        let before = self.clock.now();
        if self.has_waited {
            self.lag.add(before.since(self.now));
        }
        self.has_waited = true;
        let mut timeout = until.since(before).min(WAIT_MAX);
        if self.idle_rounds >= IDLE_ROUNDS_MAX {
            if self.idle_rounds == IDLE_ROUNDS_MAX {
                log::error!(
                    "a timer is always due ({until:?}, {self:?}); this is a bug, and the loop slows down for it"
                );
            }
            timeout = timeout.max(IDLE_WAIT);
        }
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        Ok(!until.since(before).is_zero())
    }

    /// Notes what the kernel said. True if it said anything.
    fn note(&mut self, engine: &mut Engine<FileStorage>, outside: &mut Vec<OutsideEvent>) -> bool {
        for event in &self.events {
            // An error or a hang-up is met by the next read or write: a turn is all it needs.
            let failed = event.is_error() || event.is_write_closed();
            let readable = event.is_readable() || event.is_read_closed() || failed;
            let writable = event.is_writable() || failed;
            match Whose::of(event.token()) {
                Some(Whose::Conn(conn)) => {
                    if self.sockets.is_connecting(conn) {
                        match self.sockets.check_connecting(conn) {
                            Connecting::Waiting => continue,
                            Connecting::Stands(local) => {
                                self.ready.add(conn);
                                engine.handle_connected(self.now, conn, local);
                            }
                            Connecting::Failed(error) => {
                                log::debug!("{conn:?}: cannot connect: {error}");
                                self.stillborn.push(conn);
                                continue;
                            }
                        }
                    }
                    self.ready.edge(conn, readable, writable);
                }
                Some(Whose::Listener(index)) => self.listeners.edge(index),
                Some(Whose::Datagrams(index, generation)) => {
                    self.datagrams.edge(self.poll.registry(), index, generation, readable, writable);
                }
                Some(Whose::Multicast(number)) => self.multicast.edge(number),
                Some(Whose::Outside(id)) => outside.extend(self.outsiders.event(id, event)),
                None => log::debug!("an event for nobody: {event:?}"),
            }
        }
        !self.events.is_empty()
    }

    /// Tells the engine of connections that could not be had. The socket goes first: the engine forgets the id.
    fn tell_stillborn(&mut self, engine: &mut Engine<FileStorage>) -> bool {
        let stillborn = std::mem::take(&mut self.stillborn);
        for conn in &stillborn {
            self.close(*conn);
            engine.handle_closed(self.now, *conn);
        }
        !stillborn.is_empty()
    }

    /// A turn for each connection that is ready now, as far as the round goes; who becomes ready meanwhile comes later.
    fn give_turns(&mut self, engine: &mut Engine<FileStorage>) -> bool {
        let places = self.ready.len();
        let mut round = Budget::new(ROUND_BYTES);
        for _ in 0..places {
            if round.is_spent() {
                break;
            }
            let Some(turn) = self.ready.pop() else { continue };
            let stream = self.sockets.stream(turn.conn).expect("who is in the queue has a socket");
            let (mut out, mut into) = (Budget::new(TURN_BYTES), Budget::new(TURN_BYTES));
            steps::take();
            let write = turn.write.then(|| engine.handle_writable(self.now, turn.conn, stream, &mut out));
            let read = turn.read.then(|| engine.handle_readable(self.now, turn.conn, stream, &mut into));
            self.ready.finish(turn.conn, write, read);
            if engine.has_connection(turn.conn)
                && let Err(error) = self.sockets.watch(self.poll.registry(), turn.conn)
            {
                log::debug!("{:?}: cannot be watched: {error}", turn.conn);
                self.stillborn.push(turn.conn);
            }
            let work = usize::try_from(steps::take()).unwrap_or(usize::MAX).saturating_mul(STEP_BYTES);
            round.spend((2 * TURN_BYTES - out.left() - into.left()).max(TURN_LEAST_BYTES).max(work));
        }
        places > 0
    }

    fn accept(&mut self, engine: &mut Engine<FileStorage>) -> bool {
        let mut happened = false;
        for index in 0..self.listeners.len() {
            let listener = self.listeners.id(index);
            for _ in 0..ACCEPTS_MAX {
                match self.listeners.accept(self.now, index) {
                    Accepted::Stream(stream, from) => {
                        self.accepted += 1;
                        // A stream that is not wanted is closed by being dropped.
                        if let Some(conn) = engine.handle_accept(self.now, listener, from) {
                            self.sockets.accept(conn, stream, matches!(listener, ListenerId::Tracker(_)));
                            self.ready.add(conn);
                            self.ready.edge(conn, true, true);
                        }
                    }
                    Accepted::Lost => {}
                    Accepted::Starved => {
                        self.starved += 1;
                        engine.handle_starved(self.now);
                        break;
                    }
                    Accepted::Nothing => break,
                }
                happened = true;
            }
        }
        happened
    }

    fn receive(&mut self, engine: &mut Engine<FileStorage>) -> bool {
        let mut happened = false;
        let ports = self.datagrams.len();
        for index in 0..ports + self.multicast.len() {
            for _ in 0..BATCHES_MAX {
                let received = match index.checked_sub(ports) {
                    None => self.datagrams.receive(index, &mut self.inbox),
                    Some(index) => self.multicast.receive(index, &mut self.inbox),
                };
                match received {
                    (Some(socket), Received::Packets(count)) => {
                        for at in 0..count {
                            if let Some((from, packet)) = self.inbox.get(at) {
                                engine.handle_packet(self.now, socket, from, packet);
                            }
                        }
                    }
                    (_, Received::Error) => {}
                    _ => break,
                }
                happened = true;
            }
        }
        happened
    }

    /// Tells the engine what jobs have come to. True if there was any; it may have work then.
    fn tell_jobs(&mut self, engine: &mut Engine<FileStorage>) -> bool {
        let mut happened = false;
        while let Some((id, result)) = engine.storage().poll_job() {
            engine.handle_job(self.now, id, result);
            happened = true;
        }
        self.work_waits |= happened;
        happened
    }

    /// Background work: a slice, and more of it, above all while nobody is ready. True if there was any.
    fn work(&mut self, engine: &mut Engine<FileStorage>) -> bool {
        let begin = self.clock.now();
        let mut worked = self.work_waits;
        loop {
            let hashing = engine.work(self.now);
            let mut jobs = Work::Later;
            if self.look_at.is_never() || self.look_at <= self.now {
                jobs = engine.storage().work();
                self.look_at = if jobs == Work::Later { self.now + LOOK_AGAIN } else { Time::NEVER };
            }
            self.work_waits = hashing || jobs == Work::More;
            worked |= self.work_waits;
            let most = if self.ready.is_empty() { WORK_MAX } else { WORK_SHARE };
            if !self.work_waits || self.clock.now().since(begin) >= most {
                return worked;
            }
        }
    }
}

#[cfg(test)]
mod tests;
