//! Requests of the control socket carried out: what the engine does goes there, what only a program can do is done here.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::base::hash::InfoHash;
use crate::base::time::Time;
use crate::codec::units::human_size;
use crate::daemon::load::{METAINFO_MAX, read_regular, write_new};
use crate::daemon::log as journal;
use crate::daemon::main::{Daemon, Waiter};
use crate::engine::Engine;
use crate::reactor::Reactor;
use crate::reactor::outside::OutsideId;
use crate::service::control::{Alternatively, Host, Report, Request, Verdict};
use crate::storage::FileStorage;
use crate::storage::space::disks;
use crate::torrent::command::{Answer, Command, Refusal, RefusalKind, Source, Status, Which};
use crate::torrent::event::Filter;
use crate::torrent::listing::{Listing, Slice};
use crate::torrent::snapshot::State;

impl Daemon {
    /// Carries out one request.
    pub(super) fn carry_out(&mut self, now: Time, request: Request) -> Verdict {
        match request {
            Request::Node(Command::Shutdown) => {
                self.begin_end(now);
                Ok(Answer::Done.into())
            }
            Request::Node(command) => self.node(now, command),
            Request::AddFile { path, options } => {
                let bytes = read_regular(&path, METAINFO_MAX).map_err(|why| Refusal::new(RefusalKind::Io, why))?;
                self.node(now, Command::Add { source: Source::Metainfo(bytes), options })
            }
            Request::AddUrl { url, .. } => {
                let message = format!("this version fetches nothing from {url}; download the file and add that");
                Err(Refusal::new(RefusalKind::Unsupported, message))
            }
            Request::Export { command, needs_st, path } => self.export(now, command, needs_st, &path),
            Request::Log { level, target } => {
                journal::set(level, target.as_deref());
                Ok(Answer::Done.into())
            }
            Request::Watch { which, kinds } => {
                let info_hash = which.map(|which| self.hash_of(now, which)).transpose()?;
                self.engine.watch(true);
                Ok(Report::Watching(Filter { info_hash, kinds }))
            }
            Request::Alternative(mode) => {
                if self.settings.limits.alternative.is_none() && mode == Alternatively::On {
                    let message = "there are no alternative limits; write [limits.alternative] into the config";
                    return Err(Refusal::new(RefusalKind::NotFound, message));
                }
                self.schedule.set_mode(mode);
                self.heed_schedule(now);
                Ok(Answer::Done.into())
            }
            Request::Reload => self.reload(now).map(Report::Lines),
        }
    }

    /// Which torrent is meant.
    fn hash_of(&mut self, now: Time, which: Which) -> Result<InfoHash, Refusal> {
        match self.engine.handle_command(now, Command::Show(which))? {
            Answer::Show(summary) => Ok(summary.info_hash),
            other => unreachable!("a torrent is shown, not {other:?}"),
        }
    }

    /// Carries out a client's request. Its reply comes later if metainfo has to be read for it first.
    pub(super) fn serve(&mut self, now: Time, client: OutsideId, request: Request) {
        let is_durable = request.is_durable();
        // What is added is answered when it was read, everything else is carried out again then.
        let is_add = matches!(request, Request::Node(Command::Add { .. }) | Request::AddFile { .. });
        let again = (!is_add).then(|| request.clone());
        match self.carry_out(now, request) {
            Ok(Report::Node(Answer::Later(load))) => {
                self.waiting.insert(load, Waiter::Client { client, is_durable, again });
            }
            verdict => self.reply(now, client, verdict, is_durable),
        }
    }

    fn reply(&mut self, now: Time, client: OutsideId, verdict: Verdict, is_durable: bool) {
        let ack = if is_durable { self.engine.acknowledge() } else { None };
        self.clients.reply(now, client, verdict, ack);
    }

    /// Goes on with what waited for metainfo that was read.
    pub(super) fn take_loaded(&mut self, now: Time) {
        while let Some((load, reply)) = self.engine.poll_loaded() {
            match (self.waiting.remove(&load), reply) {
                (Some(Waiter::Client { client, is_durable, .. }), Some(reply)) => {
                    self.reply(now, client, reply.map(Report::from), is_durable);
                }
                (Some(Waiter::Client { client, again: Some(request), .. }), None) => self.serve(now, client, request),
                (Some(Waiter::Found(path, rule)), Some(reply)) => self.found(now, path, rule, reply.map(drop)),
                (Some(_) | None, _) => {}
            }
        }
    }

    fn node(&mut self, now: Time, command: Command) -> Verdict {
        if let Some(listing) = self.engine.begin_listing(now, &command)? {
            return Ok(Report::Long(listing));
        }
        match self.engine.handle_command(now, command)? {
            Answer::Show(mut row) => {
                row.hook = self.hooks.last_end(row.info_hash).map(str::to_owned);
                Ok(Answer::Show(row).into())
            }
            answer => Ok(answer.into()),
        }
    }

    /// Collects the figures for the service manager; true if there is more to collect.
    pub(super) fn tell_status(&mut self, now: Time) -> bool {
        if now >= self.notifier.poll_timeout() && self.notifier.handle_timeout(now) {
            self.status = self.engine.begin_listing(now, &Command::Status).ok().flatten();
        }
        let Some(mut listing) = self.status.take() else { return false };
        match self.engine.collect(now, &mut listing) {
            Ok(Slice { rows: Answer::Status(status), .. }) => {
                self.notifier.tell_status(&line_of(&status));
                false
            }
            _ => {
                self.status = Some(listing);
                true
            }
        }
    }

    /// Collects the next rows of a client's long answer.
    pub(super) fn add_rows(&mut self, now: Time, client: OutsideId) {
        let Some(listing) = self.clients.listing(client) else { return };
        let slice = self.engine.collect(now, listing);
        let dirs = match (listing, &slice) {
            (Listing::Status(totals), Ok(slice)) if slice.is_last => std::mem::take(&mut totals.dirs),
            _ => BTreeSet::new(),
        };
        let rows = slice.map(|Slice { rows, is_last }| {
            let report = match rows {
                Answer::Status(status) => Report::Status(status, self.host(&dirs)),
                Answer::Stats(mut rows) => {
                    rows.extend(self.reactor.stats());
                    rows.extend(self.hooks.stats());
                    rows.extend(self.clients.stats());
                    Answer::Stats(rows).into()
                }
                rows => rows.into(),
            };
            (report, is_last)
        });
        self.clients.handle_rows(now, client, rows);
    }

    fn export(&mut self, now: Time, command: Command, needs_st: bool, path: &Path) -> Verdict {
        if let (true, Command::Export { which, .. }) = (needs_st, &command)
            && let Answer::Show(summary) = self.engine.handle_command(now, Command::Show(which.clone()))?
            && summary.st_id.is_none()
        {
            let message = "it came as a .torrent; `swarmtorrent create` makes a .st from its content";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        }
        let answer = self.engine.handle_command(now, command)?;
        if let Answer::Metainfo(bytes) = &answer {
            write_new(path, bytes).map_err(|(kind, why)| {
                let kind = match kind {
                    ErrorKind::AlreadyExists => RefusalKind::Exists,
                    ErrorKind::PermissionDenied => RefusalKind::Denied,
                    _ => RefusalKind::Io,
                };
                Refusal::new(kind, why)
            })?;
        }
        Ok(answer.into())
    }

    /// What `status` reports of the machine; `dirs` hold content.
    fn host(&self, dirs: &BTreeSet<PathBuf>) -> Host {
        let process = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let figure = |name: &str| {
            let line = process.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let downloads = self.settings.paths.downloads.clone();
        let dirs = dirs.iter().map(PathBuf::as_path).chain([downloads.as_path()]);
        let disks = disks(dirs).into_iter().map(|disk| (disk.path, disk.free_bytes, disk.total_bytes)).collect();
        Host {
            disks,
            state_dir: self.settings.paths.state.clone(),
            disk_free: disk_free(&downloads),
            downloads,
            memory: figure("RssAnon").unwrap_or(0) * 1024,
            limits: self.schedule.words(self.engine.is_alternative()),
            threads: figure("Threads").and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        }
    }
}

/// Bytes free where `dir` is or will be.
fn disk_free(dir: &Path) -> Option<u64> {
    let stats = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    stats.f_bavail.checked_mul(stats.f_frsize)
}

/// The figures of the whole node, all at once.
fn status(engine: &mut Engine<FileStorage>, now: Time) -> Status {
    match engine.handle_command(now, Command::Status) {
        Ok(Answer::Status(status)) => *status,
        other => unreachable!("the answer to Status is the status, not {other:?}"),
    }
}

/// The line that `systemctl status` shows.
fn line_of(status: &Status) -> String {
    let of = |state| State::ALL.iter().zip(status.torrents).find(|(other, _)| **other == state).map_or(0, |(_, n)| n);
    format!(
        "{} torrents, {} downloading, {} seeding, {} peers, down {}/s, up {}/s",
        status.torrents.iter().sum::<usize>(),
        of(State::Downloading),
        of(State::Seeding),
        status.peers,
        human_size(status.down_rate),
        human_size(status.up_rate)
    )
}

/// Writes the state of everything to the log.
pub(super) fn dump(engine: &mut Engine<FileStorage>, reactor: &Reactor, now: Time) {
    log::info!("state: {}", line_of(&status(engine, now)));
    if let Ok(Answer::List(rows)) = engine.handle_command(now, Command::List { states: Vec::new(), label: None }) {
        for row in rows {
            let (state, done) = (row.state.word(), row.progress() * 100.0);
            log::info!(
                "state: {} {state} {done:.1}% down {}/s up {}/s {} peers, {}{}",
                row.info_hash,
                human_size(row.down_rate),
                human_size(row.up_rate),
                row.peers,
                row.name,
                row.error.map(|error| format!(": {error}")).unwrap_or_default()
            );
        }
    }
    let engine_rows = match engine.handle_command(now, Command::Stats) {
        Ok(Answer::Stats(rows)) => rows,
        _ => Vec::new(),
    };
    for (name, value) in engine_rows.into_iter().chain(reactor.stats()) {
        log::info!("state: {name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_what_moves() {
        let mut status = Status { down_rate: 2048, peers: 3, ..Status::default() };
        status.torrents[2] = 2;
        assert_eq!(line_of(&status), "2 torrents, 2 downloading, 0 seeding, 3 peers, down 2.0K/s, up 0/s");
    }

    #[test]
    fn room_is_counted_where_a_directory_will_be() {
        assert!(disk_free(Path::new("/tmp/not/yet/there")).is_some_and(|bytes| bytes > 0));
    }
}
