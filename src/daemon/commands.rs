//! Requests of the control socket carried out: what the engine does goes there, what only a program can do is done here.

use std::io::ErrorKind;
use std::path::Path;

use crate::base::hash::InfoHash;
use crate::base::time::Time;
use crate::codec::units::{human_size, size};
use crate::daemon::block;
use crate::daemon::config::Settings;
use crate::daemon::load::{self, METAINFO_MAX, read_regular, write_new};
use crate::daemon::log as journal;
use crate::daemon::main::Daemon;
use crate::engine::Engine;
use crate::reactor::Reactor;
use crate::service::control::{Alternatively, Host, Report, Request, Verdict};
use crate::service::tracker::Allowed;
use crate::storage::FileStorage;
use crate::storage::space::disks;
use crate::torrent::command::{Answer, Command, Direction, Refusal, RefusalKind, Source, Status, Which};
use crate::torrent::event::Filter;
use crate::torrent::snapshot::State;

/// Directories of content that `status` looks at; of file systems that only others are on it says nothing.
const DIRS_MAX: usize = 1000;

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

    fn node(&mut self, now: Time, command: Command) -> Verdict {
        match self.engine.handle_command(now, command)? {
            Answer::Status(status) => Ok(Report::Status(status, self.host())),
            Answer::Stats(mut rows) => {
                rows.extend(self.reactor.stats());
                rows.extend(self.hooks.stats());
                rows.extend(self.clients.stats());
                Ok(Answer::Stats(rows).into())
            }
            Answer::Show(mut row) => {
                row.hook = self.hooks.last_end(row.info_hash).map(str::to_owned);
                Ok(Answer::Show(row).into())
            }
            answer => Ok(answer.into()),
        }
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

    fn host(&self) -> Host {
        let process = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let figure = |name: &str| {
            let line = process.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        let downloads = self.settings.paths.downloads.clone();
        let dirs = self.engine.content_dirs().into_iter().take(DIRS_MAX).chain([downloads.as_path()]);
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

    /// Reads the config again and applies what can be applied while running; says what changed and what must wait.
    pub(super) fn reload(&mut self, now: Time) -> Result<Vec<String>, Refusal> {
        let Some(file) = self.args.config.as_deref() else {
            let message = "the daemon was started without a config file, so there is nothing to read again";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        };
        let new = load::settings(Some(file), |_| None).map_err(|why| Refusal::new(RefusalKind::Invalid, why))?;
        self.notifier.reloading();
        let old = self.settings.clone();
        let mut lines = self.apply(now, &old, &new);
        lines.extend(need_restart(&old, &new).into_iter().map(|key| format!("[{key}] has changed: restart to apply")));
        if lines.is_empty() {
            lines.push("nothing has changed".to_owned());
        }
        self.notifier.ready();
        Ok(lines)
    }

    fn apply(&mut self, now: Time, old: &Settings, new: &Settings) -> Vec<String> {
        let mut lines = Vec::new();
        let limits = [
            (Direction::Down, "limits.down", old.limits.down, new.limits.down),
            (Direction::Up, "limits.up", old.limits.up, new.limits.up),
        ];
        for (direction, key, before, rate_bytes) in limits {
            if before == rate_bytes {
                continue;
            }
            match self.engine.handle_command(now, Command::Limit { direction, rate_bytes }) {
                Ok(_) => lines.push(format!("{key} is {} now", size(rate_bytes))),
                Err(refusal) => lines.push(format!("{key}: {}", refusal.message)),
            }
        }
        // What waits for a restart stays as it was: `status` tells of what is in effect.
        (self.settings.limits.down, self.settings.limits.up) = (new.limits.down, new.limits.up);
        if old.log != new.log {
            self.settings.log = new.log.clone();
            journal::set(new.log.level, None);
            lines.push(format!("log.level is {} now", new.log.level.as_str().to_lowercase()));
        }
        let turns = |settings: &Settings| (settings.limits.active_downloads, settings.limits.active_seeds);
        if turns(old) != turns(new) {
            let (downloads, seeds) = turns(new);
            self.engine.set_turns(now, downloads, seeds);
            lines.push(format!("{} download and {} seed at once now", number(downloads), number(seeds)));
        }
        if old.defaults() != new.defaults() {
            self.engine.set_defaults(now, new.defaults());
            lines.push(format!("rules and goals of seeding are those of the config now, {} rules", new.rule.len()));
        }
        self.settings.take_policy(new);
        if old.limits.alternative != new.limits.alternative {
            self.heed_schedule(now);
            let words = self.schedule.words(self.engine.is_alternative());
            lines.push(format!("alternative limits are those of the config now; those that hold are: {words}"));
        }
        match block::load(&new.peers.block) {
            Ok(list) if self.engine.blocklist() != &list => {
                lines.push(format!("{} ranges of addresses are blocked now", list.len()));
                self.engine.block(now, list);
            }
            Ok(_) => {}
            Err(why) => lines.push(format!("[peers] {why}; what was blocked still is")),
        }
        self.settings.peers.block.clone_from(&new.peers.block);
        let tracker = old.tracker.with_lists_of(&new.tracker);
        self.allow.hurry(now);
        if tracker != old.tracker {
            self.allow = tracker.allow_list();
            if self.allow.is_empty() {
                self.engine.allow(Allowed::default());
            } // else what was allowed stays so until the lists are read
            self.settings.tracker = tracker;
            lines.push("the tracker's lists are those of the config now".to_owned());
        }
        if old.watch != new.watch {
            self.settings.watch.clone_from(&new.watch);
            lines.push(match self.watch_anew() {
                Ok(()) => "watch directories are those of the config now".to_owned(),
                Err(error) => format!("watch directories: {error}"),
            });
        }
        if old.hook != new.hook {
            self.settings.hook.clone_from(&new.hook);
            self.hooks.set(new.hook.clone());
            lines.push("hooks are those of the config now".to_owned());
        }
        if old.share != new.share {
            self.settings.share.clone_from(&new.share);
            lines.push(match self.share_anew() {
                Ok(()) => "share directories are those of the config now".to_owned(),
                Err(error) => format!("share directories: {error}"),
            });
        }
        lines
    }
}

/// A number of torrents, of which 0 is any.
fn number(count: usize) -> String {
    if count == 0 { "all".to_owned() } else { count.to_string() }
}

/// Sections that differ in something that is read at the start only.
fn need_restart(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let mut applied = new.clone();
    applied.take_policy(old);
    let mut limits = applied.limits;
    (limits.down, limits.up) = (old.limits.down, old.limits.up);
    let mut peers = new.peers.clone();
    peers.block.clone_from(&old.peers.block);
    [
        ("paths", old.paths != new.paths),
        ("control", old.control != new.control),
        ("peers", old.peers != peers),
        ("limits", old.limits != limits),
        ("storage", old.storage != new.storage),
        ("trackers", old.trackers != new.trackers),
        ("dht", old.dht != new.dht),
        ("nat", old.nat != new.nat),
        ("http", old.http != new.http),
        ("tracker", old.tracker != new.tracker.with_lists_of(&old.tracker)),
    ]
    .into_iter()
    .filter_map(|(section, differs)| differs.then_some(section))
    .collect()
}

/// Bytes free where `dir` is or will be.
fn disk_free(dir: &Path) -> Option<u64> {
    let stats = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    stats.f_bavail.checked_mul(stats.f_frsize)
}

/// The line that `systemctl status` shows.
pub(super) fn status_line(engine: &mut Engine<FileStorage>, now: Time) -> String {
    let Ok(Answer::Status(status)) = engine.handle_command(now, Command::Status) else {
        return String::new();
    };
    line_of(&status)
}

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
    log::info!("state: {}", status_line(engine, now));
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
    fn only_sections_that_are_read_at_the_start_need_one() {
        let old = Settings::default();
        let mut new = old.clone();
        new.limits.down = 5;
        new.log.level = log::LevelFilter::Debug;
        new.watch.clear();
        assert!(need_restart(&old, &new).is_empty());
        new.limits.active_seeds = 5;
        new.limits.ratio = 5.0;
        assert!(need_restart(&old, &new).is_empty());
        new.limits.memory = 5;
        new.peers.listen.clear();
        assert_eq!(need_restart(&old, &new), ["peers", "limits"]);
    }

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
