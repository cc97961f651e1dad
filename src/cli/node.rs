//! A whole node inside the tool, for as long as one command: what `get` and `seed` share.
//!
//! It keeps no state between runs: what is on disk is hashed again at the start, which is the only record that cannot be wrong. It
//! ends cleanly, telling trackers, but waits for nobody longer than [`GOODBYE_MAX`].

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::Interest;

use crate::base::config::{Config, TrackerConfig};
use crate::base::hash::InfoHash;
use crate::base::time::Time;
use crate::codec::catalog::Entry;
use crate::codec::url::host_and_port;
use crate::engine::Engine;
use crate::reactor::clock::Clock;
use crate::reactor::outside::OutsideEvent;
use crate::reactor::signals::{Signal, Signals};
use crate::reactor::{Reactor, Turn, descriptors, entropy, names};
use crate::service::tracker::Allowed;
use crate::storage::FileStorage;
use crate::torrent::command::{AddOptions, Answer, Command, Refusal, Source, Which};
use crate::torrent::dht_command::{DhtAnswer, DhtCommand, Swarm};
use crate::torrent::snapshot::Summary;
use crate::torrent::tracker_state::TrackerState;

/// How often the screen changes.
const TICK: Duration = Duration::from_millis(250);
/// How long trackers may take to hear that we leave.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// Why a node went back to its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Time to look, and to draw.
    Tick,
    /// The user wants it to end.
    Stop,
}

/// An engine, its driver and the signals of this process.
#[derive(Debug)]
pub(crate) struct Node {
    reactor: Reactor,
    engine: Engine<FileStorage>,
    signals: Signals,
    outside: Vec<OutsideEvent>,
    /// What was added last: a link to the newest version of something may become more than one torrent.
    added: Option<InfoHash>,
}

impl Node {
    /// Starts a node that listens at `port` of every address, 0 being any free one. `config` needs no addresses nor name servers.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn start(config: Config, port: u16) -> Result<Self, String> {
        let everywhere = vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
        Self::listening(Config { listen: everywhere, ..config })
    }

    /// Starts a node that listens where `config` says, at peers' addresses and at the tracker's.
    ///
    /// # Errors
    /// A sentence for the user.
    pub(crate) fn listening(config: Config) -> Result<Self, String> {
        let clock = Clock::start();
        let mut reactor = Reactor::new(clock, &config.listen, None).map_err(|error| error.to_string())?;
        let tracker = &config.tracker;
        reactor.bind_tracker(&tracker.udp, &tracker.http).map_err(|error| error.to_string())?;
        let [udp, http] = reactor.bound_tracker().map(<[_]>::to_vec);
        let config = Config {
            listen: reactor.bound().to_vec(),
            tracker: TrackerConfig { udp, http, ..config.tracker },
            name_servers: names::name_servers(),
            hosts: names::hosts(),
            ..config
        }
        .within(descriptors::make_room);
        let rng = entropy::seeded_rng().map_err(|error| format!("the kernel gives no random numbers: {error}"))?;
        let engine = Engine::new(config, clock.unix_nanos(), rng, FileStorage::without_state());
        let signals = Signals::new().map_err(|error| format!("signals cannot be taken: {error}"))?;
        let mut node = Self { reactor, engine, signals, outside: Vec::new(), added: None };
        node.reactor.register(&mut node.signals, Interest::READABLE).map_err(|error| broken(&error))?;
        node.reactor.set_deadline(Time::ZERO);
        Ok(node)
    }

    /// Adds a torrent; content that is there already is hashed first.
    ///
    /// # Errors
    /// What the engine says against it.
    pub(crate) fn add(&mut self, source: Source, options: AddOptions) -> Result<InfoHash, String> {
        let options = AddOptions { verify: Some(true), ..options };
        match self.command(Command::Add { source, options })? {
            Answer::Added(hash) => {
                self.added = Some(hash);
                Ok(hash)
            }
            other => unreachable!("adding answers with a hash, not {other:?}"),
        }
    }

    /// Dials a peer for the one torrent.
    ///
    /// # Errors
    /// What the engine says against it.
    pub(crate) fn connect(&mut self, addr: SocketAddr) -> Result<(), String> {
        let (host, port) = (addr.ip().to_string(), addr.port());
        self.command(Command::Connect { which: Which::All, host, port }).map(drop)
    }

    /// What was added, at a glance.
    ///
    /// # Errors
    /// What the engine says against it, or that it has gone.
    pub(crate) fn summary(&mut self) -> Result<Summary, String> {
        let which = self.added.map_or(Which::All, |hash| Which::Prefix(hash.to_string()));
        match self.command(Command::Show(which))? {
            Answer::Show(summary) => Ok(*summary),
            other => unreachable!("a torrent is shown, not {other:?}"),
        }
    }

    /// What the node at an address shares; none while it is still being asked.
    ///
    /// # Errors
    /// That it does not answer, or has no list.
    pub(crate) fn catalog(&mut self, host: &str, port: u16) -> Result<Option<Vec<Entry>>, String> {
        match self.command(Command::Catalog { host: host.to_owned(), port })? {
            Answer::Catalog { entries, is_whole } => Ok(is_whole.then_some(entries)),
            other => unreachable!("a list is answered with one, not {other:?}"),
        }
    }

    /// Nodes of the DHT that answered lately.
    ///
    /// # Errors
    /// What the engine says against it.
    pub(crate) fn dht_nodes(&mut self) -> Result<usize, String> {
        match self.command(Command::Status)? {
            Answer::Status(status) => Ok(status.dht_nodes.unwrap_or(0)),
            other => unreachable!("asked for its status it answers with that, not {other:?}"),
        }
    }

    /// Swarms that nodes of the DHT know, as far as they are known; true while there may be more.
    ///
    /// # Errors
    /// What the engine says against it.
    pub(crate) fn sample(&mut self, count: usize) -> Result<(Vec<Swarm>, bool), String> {
        match self.command(Command::Dht(DhtCommand::Sample(count)))? {
            Answer::Dht(DhtAnswer::Swarms(swarms, progress)) => Ok((swarms, progress.searches)),
            other => unreachable!("a sample is answered with swarms, not {other:?}"),
        }
    }

    /// The one torrent's magnet link.
    ///
    /// # Errors
    /// What the engine says against it.
    pub(crate) fn magnet(&mut self) -> Result<String, String> {
        match self.command(Command::Magnet(Which::All))? {
            Answer::Link(link) => Ok(link),
            other => unreachable!("a magnet link is answered with one, not {other:?}"),
        }
    }

    /// The tracker server's figures.
    ///
    /// # Errors
    /// That there is no tracker server.
    pub(crate) fn tracker(&mut self) -> Result<TrackerState, String> {
        match self.command(Command::Tracker)? {
            Answer::Tracker(state) => Ok(*state),
            other => unreachable!("a tracker answers with its figures, not {other:?}"),
        }
    }

    /// The tracker server serves these from now on.
    pub(crate) fn allow(&mut self, allowed: Allowed) {
        self.engine.allow(allowed);
    }

    /// The time, for what is drawn.
    pub(crate) const fn now(&self) -> Time {
        self.reactor.now()
    }

    /// Where peers find us.
    pub(crate) fn bound(&self) -> &[SocketAddr] {
        self.reactor.bound()
    }

    /// Lets the node do its work until there is something for the command to do.
    ///
    /// # Errors
    /// Only if this machine no longer lets us wait.
    pub(crate) fn run(&mut self) -> Result<Wake, String> {
        loop {
            let turn = self.turn()?;
            if self.asked_to_end() {
                return Ok(Wake::Stop);
            }
            if turn.deadline {
                self.reactor.set_deadline(self.reactor.now() + TICK);
                return Ok(Wake::Tick);
            }
        }
    }

    /// Ends: saves, tells trackers, closes. Asked to end while it does, it is gone at once.
    ///
    /// # Errors
    /// Only if this machine no longer lets us wait.
    pub(crate) fn stop(mut self) -> Result<(), String> {
        self.command(Command::Shutdown)?;
        self.reactor.set_deadline(self.reactor.now() + GOODBYE_MAX);
        loop {
            let turn = self.turn()?;
            if turn.exit || turn.deadline || self.asked_to_end() {
                return Ok(());
            }
        }
    }

    fn turn(&mut self) -> Result<Turn, String> {
        self.reactor.turn(&mut self.engine, &mut self.outside).map_err(|error| broken(&error))
    }

    /// A terminal that closes (SIGHUP) ends a tool, too.
    fn asked_to_end(&mut self) -> bool {
        // Nothing else is registered, so an event is a signal's.
        !self.outside.is_empty() && self.signals.pending().any(|signal| signal != Signal::Dump)
    }

    /// Carries out a command; if metainfo has to be read first, the node works until that is done.
    fn command(&mut self, command: Command) -> Result<Answer, String> {
        let is_add = matches!(command, Command::Add { .. });
        let again = (!is_add).then(|| command.clone());
        let said = |Refusal { message, .. }| message;
        let answer = self.engine.handle_command(self.reactor.now(), command).map_err(said)?;
        if !matches!(answer, Answer::Later(_)) {
            return Ok(answer);
        }
        loop {
            match (self.engine.poll_loaded(), &again) {
                (Some((_, Some(reply))), _) => return reply.map_err(said),
                (Some((_, None)), Some(command)) => {
                    return self.engine.handle_command(self.reactor.now(), command.clone()).map_err(said);
                }
                (Some((_, None)), None) | (None, _) => {}
            }
            self.engine.work(self.reactor.now());
        }
    }
}

/// Where a node is, as an argument says it.
pub(crate) fn node(text: &str) -> Result<(String, u16), &'static str> {
    host_and_port(text).ok_or("it is not HOST:PORT, such as 192.0.2.7:6881 or [2001:db8::7]:6881")
}

fn broken(error: &io::Error) -> String {
    format!("this machine does not let us wait for events: {error}")
}
