//! The daemon: starts everything in order, then turns the loop until it is asked to end.
//!
//! What the reactor says about our own descriptors goes to the control socket, the watch directories and the signals;
//! what those want goes to the engine as commands. Nothing is decided here but the order.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mio::Interest;
use mio::unix::SourceFd;

use crate::base::config::{Config, TrackerConfig};
use crate::base::hash::InfoHash;
use crate::base::ids::LoadId;
use crate::base::time::Time;
use crate::daemon::allow::AllowList;
use crate::daemon::args::Args;
use crate::daemon::clients::{BindError, Clients, Work};
use crate::daemon::commands;
use crate::daemon::config::Settings;
use crate::daemon::hooks::Hooks;
use crate::daemon::notify::Notifier;
use crate::daemon::schedule::Schedule;
use crate::daemon::share::Sharer;
use crate::daemon::watch::{Found, Watcher};
use crate::daemon::{block, load, log as journal};
use crate::engine::{Engine, RECORD_PREFIX, record_name};
use crate::reactor::clock::Clock;
use crate::reactor::outside::{OutsideEvent, OutsideId};
use crate::reactor::signals::{Signal, Signals};
use crate::reactor::{Reactor, descriptors, entropy, names};
use crate::service::control::Request;
use crate::storage::FileStorage;
use crate::storage::state::{StateDir, StateError};
use crate::torrent::command::{Answer, Command, Refusal, RefusalKind, Which};
use crate::torrent::event::Event;
use crate::torrent::listing::Listing;

/// How long we may take to end; less than the service manager waits. The engine ends sooner.
const END_MAX: Duration = Duration::from_secs(28);
/// How soon a slow reader of the log is tried again.
const LOG_RETRY: Duration = Duration::from_millis(100);
/// Files of watch directories looked at in a round; the rest waits for the next.
const FOUND_MAX: usize = 4;

/// Ended as asked.
const ENDED: u8 = 0;
/// Failed while running.
const FAILED: u8 = 1;
/// Bad arguments or config.
const USAGE: u8 = 2;
/// Another daemon holds the state directory or the socket.
const TAKEN: u8 = 3;

/// Why the daemon ends otherwise than asked: the exit status, and one sentence for the log.
type Failure = (u8, String);

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let settings = match load::settings(args.config.as_deref(), |name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("swarmtorrentd: {why}");
            return ExitCode::from(USAGE);
        }
    };
    if args.print_config {
        print!("{}", settings.print());
    }
    if args.check {
        println!("ok");
    }
    if args.check || args.print_config {
        return ExitCode::from(ENDED);
    }
    journal::start(settings.log.level).expect("nobody else has taken the log");
    let end = Daemon::start(args, settings).and_then(Daemon::run);
    let status = match end {
        Ok(()) => ENDED,
        Err((status, why)) => {
            log::error!("{why}");
            status
        }
    };
    journal::pump();
    ExitCode::from(status)
}

/// What waits for metainfo that is being read.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A client's request, to be carried out again if its reply does not come with what was read.
    Client {
        /// Which client.
        client: OutsideId,
        /// Whether the reply waits for the disk.
        is_durable: bool,
        /// The request.
        again: Option<Request>,
    },
    /// A file of a watch directory.
    Found(PathBuf, usize),
}

/// The running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) args: Args,
    pub(super) settings: Settings,
    pub(super) reactor: Reactor,
    pub(super) engine: Engine<FileStorage>,
    pub(super) notifier: Notifier,
    /// The figures for the service manager, while they are collected.
    pub(super) status: Option<Listing>,
    pub(super) hooks: Hooks,
    pub(super) clients: Clients,
    watcher: Watcher,
    watch_id: OutsideId,
    sharer: Sharer,
    share_id: OutsideId,
    /// What the tracker server is for.
    pub(super) allow: AllowList,
    signals: Signals,
    signals_id: OutsideId,
    /// Which rate limits hold.
    pub(super) schedule: Schedule,
    schedule_id: OutsideId,
    /// What waits for metainfo that is being read.
    pub(super) waiting: BTreeMap<LoadId, Waiter>,
    /// When to end whoever still waits; [`Time::NEVER`] until the end is asked for.
    end_at: Time,
}

impl Daemon {
    /// Takes hold of everything, in the order in which another daemon would be noticed.
    fn start(args: Args, settings: Settings) -> Result<Self, Failure> {
        let failed = |what: &str, error: io::Error| (FAILED, format!("{what}: {error}"));
        for key in settings.unsupported() {
            log::warn!("{key} is set, and not in this version: it does nothing");
        }
        let (state, records) = StateDir::open(&settings.paths.state).map_err(|error| match error {
            StateError::Held(_) => (TAKEN, error.to_string()),
            StateError::Io(..) => (FAILED, error.to_string()),
        })?;
        let saved = state.torrents();
        let proxy = settings.proxy_among(&names::hosts()).map_err(|why| (USAGE, why))?;
        // Behind a proxy nobody is let in: what came directly would go around it.
        let listen = if proxy.is_some() { &[][..] } else { &settings.peers.listen[..] };
        let clock = Clock::start();
        let interface = Some(settings.peers.interface.as_str()).filter(|name| !name.is_empty());
        let mut reactor = Reactor::new(clock, listen, interface).map_err(|error| (FAILED, error.to_string()))?;
        if settings.dht.enabled && proxy.is_none() {
            reactor.bind_dht(&settings.dht.listen).map_err(|error| (FAILED, format!("[dht] listen: {error}")))?;
        }
        let tracker = &settings.tracker;
        let tracker_failed = |error| (FAILED, format!("[tracker]: {error}"));
        reactor.bind_tracker(&tracker.udp, &tracker.http).map_err(tracker_failed)?;
        let [udp, http] = reactor.bound_tracker().map(<[_]>::to_vec);
        let tracker = TrackerConfig { udp, http, ..tracker.config() };
        let mut signals = Signals::new().map_err(|error| failed("signals", error))?;
        let signals_id =
            reactor.register(&mut signals, Interest::READABLE).map_err(|error| failed("signals", error))?;
        let schedule = Schedule::new().map_err(|error| failed("schedule of limits", error))?;
        let schedule_id = reactor
            .register(&mut SourceFd(&schedule.as_raw_fd()), Interest::READABLE)
            .map_err(|error| failed("schedule of limits", error))?;
        let clients = Clients::bind(&settings.control, &mut reactor).map_err(|error| match error {
            BindError::Taken(why) => (TAKEN, why),
            BindError::Failed(why) => (FAILED, why),
        })?;
        let (watcher, watch_id) = watch(&settings, &mut reactor).map_err(|error| failed("watch directories", error))?;
        let mut config = Config {
            listen: reactor.bound().to_vec(),
            dht_listen: reactor.bound_dht().to_vec(),
            name_servers: names::name_servers(),
            hosts: names::hosts(),
            tracker,
            ..settings.engine()
        }
        .within(descriptors::make_room);
        if let Some(proxy) = proxy {
            config = config.through(proxy);
        }
        let rng = entropy::seeded_rng().map_err(|error| failed("the kernel gives no random numbers", error))?;
        let storage = FileStorage::new(settings.storage(config.connections_max), Some(state));
        let mut engine = Engine::new(config, clock.unix_nanos(), rng, storage);
        if let Some(bytes) = records.get(crate::engine::DHT_STATE) {
            engine.restore_dht(reactor.now(), bytes);
        }
        for &info_hash in &saved {
            if let Err(refusal) = engine.restore(reactor.now(), info_hash, records.get(&record_name(info_hash))) {
                log::error!("a saved torrent is left out: {}", refusal.message);
            }
        }
        for (name, record) in records.with_prefix(RECORD_PREFIX) {
            let info_hash = InfoHash::from_hex(&name[RECORD_PREFIX.len()..]);
            if let Some(info_hash) = info_hash.filter(|hash| saved.binary_search(hash).is_err()) {
                engine.restore_nameless(info_hash, record);
            }
        }
        if let Some(bytes) = records.get(crate::engine::FOLLOWED_STATE) {
            engine.restore_followed(reactor.now(), bytes);
        }
        engine.handle_restored(reactor.now());
        if let Some(trouble) = reactor.trouble() {
            engine.handle_network(reactor.now(), Some(trouble));
        }
        let hooks = Hooks::new(settings.hook.clone());
        engine.watch(hooks.is_wanted());
        let (sharer, share_id) =
            share(&settings, &mut reactor, &mut engine).map_err(|error| failed("share directories", error))?;
        let blocked = block::load(&settings.peers.block).map_err(|why| (USAGE, format!("[peers] {why}")))?;
        if !blocked.is_empty() {
            log::info!("{} ranges of addresses are blocked", blocked.len());
        }
        engine.block(reactor.now(), blocked);
        let mut allow = settings.tracker.allow_list();
        engine.allow(allow.load(reactor.now()).map_err(|why| (USAGE, format!("[tracker] {why}")))?);
        let notifier = Notifier::new(reactor.now());
        let now = reactor.now();
        let mut daemon = Self {
            args,
            settings,
            reactor,
            engine,
            notifier,
            status: None,
            hooks,
            clients,
            watcher,
            watch_id,
            sharer,
            share_id,
            allow,
            signals,
            signals_id,
            schedule,
            schedule_id,
            waiting: BTreeMap::new(),
            end_at: Time::NEVER,
        };
        daemon.heed_schedule(now);
        daemon.greet();
        daemon.notifier.ready();
        Ok(daemon)
    }

    /// Says where everything is; the first run needs no manual.
    fn greet(&self) {
        let settings = &self.settings;
        let listen: Vec<_> = self.reactor.bound().iter().map(ToString::to_string).collect();
        match self.settings.proxy() {
            None => log::info!("swarmtorrentd {} listens at {}", env!("CARGO_PKG_VERSION"), listen.join(", ")),
            Some(proxy) => {
                log::info!("swarmtorrentd {} goes through {proxy}, and listens nowhere", env!("CARGO_PKG_VERSION"))
            }
        }
        for addr in &self.engine.config().tracker.udp {
            log::info!("the tracker listens at udp://{addr}");
        }
        for addr in &self.engine.config().tracker.http {
            log::info!("the tracker listens at http://{addr}/announce");
        }
        for watch in &settings.watch {
            log::info!("drop .torrent, .st or .magnet files into {}", watch.path.display());
        }
        log::info!("downloads go to {}", settings.paths.downloads.display());
        log::info!("state is kept in {}", settings.paths.state.display());
        log::info!("to control it: swarmtorrent ctl --socket {} help", settings.control.socket.display());
    }

    /// Turns the loop until the end.
    fn run(mut self) -> Result<(), Failure> {
        let mut outside: Vec<OutsideEvent> = Vec::new();
        self.reactor.set_deadline(Time::ZERO); // the first turn does not wait: nobody has said until when
        loop {
            let turn = self.reactor.turn(&mut self.engine, &mut outside);
            let turn = turn.map_err(|error| (FAILED, format!("the kernel no longer lets us wait: {error}")))?;
            let now = self.reactor.now();
            if turn.exit {
                self.answer(now); // replies that waited for the disk
                return self.end_status();
            }
            if now >= self.end_at {
                return self.end_status();
            }
            for event in &outside {
                if event.id == self.watch_id {
                    self.watcher.handle_readable();
                } else if event.id == self.share_id {
                    self.sharer.handle_readable(now);
                } else if event.id == self.schedule_id {
                    self.heed_schedule(now);
                } else if event.id == self.signals_id {
                    if self.heed_signals(now) {
                        return self.end_status();
                    }
                } else if !self.hooks.handle_readable(event.id, &mut self.reactor) {
                    self.clients.handle_event(*event);
                }
            }
            let mut has_more = self.take_found(now);
            has_more |= self.answer(now);
            has_more |= self.take_shared(now);
            self.hooks.handle_timeout(now);
            has_more |= self.hooks.work(now, &mut self.reactor);
            self.heed_allowed(now);
            has_more |= self.tell_status(now);
            let log_at = if journal::pump() { now + LOG_RETRY } else { Time::NEVER };
            let next = self.notifier.poll_timeout().min(self.clients.poll_timeout()).min(self.end_at).min(log_at);
            let next =
                next.min(self.hooks.poll_timeout()).min(self.sharer.poll_timeout()).min(self.allow.poll_timeout());
            let next = next.min(self.watcher.poll_timeout());
            self.reactor.set_deadline(if has_more { Time::ZERO } else { next });
        }
    }

    /// Reads the lists of the tracker server again where they have changed.
    fn heed_allowed(&mut self, now: Time) {
        match self.allow.handle_timeout(now) {
            Ok(Some(allowed)) => {
                if let Some(hashes) = &allowed.hashes {
                    log::info!("the tracker is for {} torrents now", hashes.len());
                }
                if let Some(keys) = &allowed.keys {
                    log::info!("the tracker has {} pass keys now", keys.len());
                }
                self.engine.allow(allowed);
            }
            Ok(None) => {}
            Err(why) => log::error!("[tracker] {why}; what was allowed before still is"),
        }
    }

    /// Has the rate limits hold that should now.
    pub(super) fn heed_schedule(&mut self, now: Time) {
        match self.schedule.look(self.settings.limits.alternative.as_ref()) {
            Ok(alternative) => {
                let before = self.engine.is_alternative();
                self.engine.set_alternative(now, alternative);
                if self.engine.is_alternative() != before {
                    log::info!("limits: {}", self.schedule.words(!before));
                }
            }
            Err(error) => log::error!("the schedule of limits: {error}; those that hold stay"),
        }
    }

    /// True if it should end at once.
    fn heed_signals(&mut self, now: Time) -> bool {
        let pending: Vec<Signal> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                Signal::Terminate if !self.end_at.is_never() => {
                    log::warn!("asked twice: ended at once");
                    return true;
                }
                Signal::Terminate => self.begin_end(now),
                Signal::Reload => match self.reload(now) {
                    Ok(changes) => changes.iter().for_each(|change| log::info!("reload: {change}")),
                    Err(refusal) => log::error!("reload: {}", refusal.message),
                },
                Signal::Dump => commands::dump(&mut self.engine, &self.reactor, now),
            }
        }
        false
    }

    /// How the daemon ends: with a failure if something could not be saved. Each such torrent is named in the log.
    fn end_status(&self) -> Result<(), Failure> {
        let mut count = 0;
        for (name, info_hash) in self.engine.unsaved() {
            count += 1;
            log::error!("{info_hash} {name}: its latest changes are not saved");
        }
        if count == 0 {
            log::info!("everything is saved");
            return Ok(());
        }
        Err((
            FAILED,
            format!(
                "shutdown with unsaved changes of {count} torrents, which the log names; check the state directory"
            ),
        ))
    }

    /// Begins the end; the engine says when it is over.
    pub(super) fn begin_end(&mut self, now: Time) {
        if self.end_at.is_never() {
            log::info!("ending: saving, and saying goodbye to trackers");
            self.notifier.stopping();
            self.end_at = now + END_MAX;
            if let Err(refusal) = self.engine.handle_command(now, Command::Shutdown) {
                log::error!("the end is refused: {}", refusal.message);
            }
        }
    }

    /// Adds what was dropped into watch directories. True if more waits.
    fn take_found(&mut self, now: Time) -> bool {
        for _ in 0..FOUND_MAX {
            let Some(looked) = self.watcher.poll_found(now) else { return false };
            let Some(Found { path, source, options, rule }) = looked else { continue };
            match self.engine.handle_command(now, Command::Add { source, options }) {
                Ok(Answer::Later(load)) => drop(self.waiting.insert(load, Waiter::Found(path, rule))),
                reply => self.found(now, path, rule, reply.map(drop)),
            }
        }
        true
    }

    /// A file of a watch directory was added, or refused.
    pub(super) fn found(&mut self, now: Time, path: PathBuf, rule: usize, reply: Result<(), Refusal>) {
        match reply {
            Ok(()) => {
                log::info!("{}: added", path.display());
                self.watcher.accepted(path, self.engine.acknowledge());
            }
            // It may have been added a moment ago and not be on the disk yet.
            Err(refusal) if refusal.kind == RefusalKind::Exists => {
                self.watcher.accepted(path, self.engine.acknowledge());
            }
            // It is found again by the next run.
            Err(_) if !self.end_at.is_never() => {}
            Err(refusal) if refusal.kind == RefusalKind::Busy => self.watcher.put_off(now, path, rule),
            Err(refusal) => self.watcher.refused(&path, &refusal.message),
        }
    }

    /// Looks through share directories for a step, and tells the engine what was found. True if more waits.
    fn take_shared(&mut self, now: Time) -> bool {
        let has_more = now >= self.sharer.poll_timeout() && self.sharer.step(now);
        while let Some(command) = self.sharer.poll_command() {
            let path = if let Command::Share(share) = &command { Some(share.path()) } else { None };
            match (self.engine.handle_command(now, command), path) {
                (Err(refusal), Some(path)) if refusal.kind == RefusalKind::Busy => self.sharer.put_off(now, &path),
                (Err(refusal), _) => log::warn!("share directories: {}", refusal.message),
                (Ok(_), _) => {}
            }
        }
        has_more
    }

    /// Passes on that changes are on the disk: to the clients and watch directories that they came from.
    fn take_acks(&mut self, now: Time) {
        while let Some((ack, result)) = self.engine.poll_ack() {
            if !self.watcher.handle_ack(ack, result.is_ok()) {
                self.clients.handle_ack(now, ack, &result);
            }
        }
    }

    /// A round of the control socket. True if more waits.
    fn answer(&mut self, now: Time) -> bool {
        self.take_loaded(now);
        self.clients.begin_round(now, &mut self.reactor);
        while let Some((client, work)) = self.clients.poll_work(now) {
            let request = match work {
                Work::Request(request) => request,
                Work::Rows => {
                    self.add_rows(now, client);
                    continue;
                }
            };
            self.serve(now, client, request);
        }
        self.take_acks(now);
        while let Some(event) = self.engine.poll_event(now) {
            self.clients.tell(now, &event);
            self.hook(now, &event);
        }
        self.engine.watch(self.clients.is_watched() || self.hooks.is_wanted());
        self.clients.end_round(now, &mut self.reactor)
    }

    /// Runs the user's programs for what has happened.
    fn hook(&mut self, now: Time, event: &Event) {
        let Some((info_hash, what)) = self.hooks.wants(event) else { return };
        let show = Command::Show(Which::Prefix(info_hash.to_string()));
        if let Ok(Answer::Show(torrent)) = self.engine.handle_command(now, show) {
            self.hooks.handle_event(what, &torrent);
        }
    }

    /// Shares other directories from now on.
    pub(super) fn share_anew(&mut self) -> io::Result<()> {
        let (sharer, id) = share(&self.settings, &mut self.reactor, &mut self.engine)?;
        let fd: RawFd = self.sharer.as_raw_fd();
        self.reactor.deregister(self.share_id, &mut SourceFd(&fd))?;
        (self.sharer, self.share_id) = (sharer, id);
        Ok(())
    }

    /// Watches other directories from now on.
    pub(super) fn watch_anew(&mut self) -> io::Result<()> {
        let (watcher, id) = watch(&self.settings, &mut self.reactor)?;
        let fd: RawFd = self.watcher.as_raw_fd();
        self.reactor.deregister(self.watch_id, &mut SourceFd(&fd))?;
        (self.watcher, self.watch_id) = (watcher, id);
        Ok(())
    }
}

fn share(
    settings: &Settings,
    reactor: &mut Reactor,
    engine: &mut Engine<FileStorage>,
) -> io::Result<(Sharer, OutsideId)> {
    let known = match engine.handle_command(reactor.now(), Command::Shares) {
        Ok(Answer::Shares(paths)) => paths,
        other => unreachable!("asked for shares, it answers with them, not {other:?}"),
    };
    let sharer = Sharer::new(reactor.now(), &settings.share, known)?;
    let fd: RawFd = sharer.as_raw_fd();
    let id = reactor.register(&mut SourceFd(&fd), Interest::READABLE)?;
    Ok((sharer, id))
}

fn watch(settings: &Settings, reactor: &mut Reactor) -> io::Result<(Watcher, OutsideId)> {
    let watcher = Watcher::new(&settings.watch)?;
    let fd: RawFd = watcher.as_raw_fd();
    let id = reactor.register(&mut SourceFd(&fd), Interest::READABLE)?;
    Ok((watcher, id))
}
