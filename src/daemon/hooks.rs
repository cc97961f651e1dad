//! The user's own programs, run when something happens to a torrent (`[[hook]]`).
//!
//! Nobody waits for them: their ends and what they say come as events of the loop. Each is a process group of its own with no
//! descriptor of ours but a pipe for what it says, is told what happened by its environment, and is ended once its time is over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use mio::Interest;
use mio::unix::SourceFd;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::base::hash::InfoHash;
use crate::base::time::Time;
use crate::codec::control::escape;
use crate::daemon::config::{Hook, HookEvent};
use crate::reactor::Reactor;
use crate::reactor::outside::OutsideId;
use crate::torrent::event::{Event, What};
use crate::torrent::snapshot::{State, Summary};

/// Hooks that run at once; others wait.
const RUNNING_MAX: usize = 4;
/// Hooks that wait; more are dropped, and counted.
const WAITING_MAX: usize = 1024;
/// Hooks begun in a round; others wait for the next.
const BEGUN_MAX: usize = 1;
/// Bytes of what a hook says that come into the log; the rest is read and forgotten.
const OUTPUT_MAX: usize = 4096;
/// Bytes read of a hook in a round; the rest waits for the next.
const READ_MAX: usize = 256 * 1024;
/// Torrents of which it is known how their last hook ended; beyond it some are forgotten.
const ENDS_MAX: usize = 10_000;
/// How long a hook may go on after SIGTERM.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// What the service manager tells us is for us alone.
const NOT_INHERITED: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// A hook that waits for its turn.
#[derive(Debug)]
struct Waiting {
    command: Vec<String>,
    timeout: Duration,
    event: HookEvent,
    info_hash: InfoHash,
    environment: Vec<(&'static str, OsString)>,
}

/// A hook that runs.
#[derive(Debug)]
struct Running {
    event: HookEvent,
    program: String,
    info_hash: InfoHash,
    child: Child,
    /// Becomes readable when the process has ended.
    pidfd: OwnedFd,
    pidfd_id: OutsideId,
    /// What it says; none once it says no more.
    output: Option<(io::PipeReader, OutsideId)>,
    /// The start of that.
    said: Vec<u8>,
    /// There may be more to read.
    has_more: bool,
    /// When it is told to end, or made to if it was told.
    end_at: Time,
    is_told: bool,
    timeout: Duration,
}

/// How many came to what.
#[derive(Debug, Default)]
struct Counts {
    started: u64,
    failed: u64,
    timed_out: u64,
    dropped: u64,
}

/// All hooks.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    rules: Vec<Hook>,
    waiting: VecDeque<Waiting>,
    running: Vec<Running>,
    /// Torrents that are in trouble: whose trouble only sounds different is not told again.
    in_trouble: BTreeSet<InfoHash>,
    /// How the last hook of a torrent ended.
    ends: BTreeMap<InfoHash, String>,
    counts: Counts,
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Added => "added",
            Self::Metadata => "metadata",
            Self::Finished => "finished",
            Self::Error => "error",
        })
    }
}

impl Hooks {
    pub(super) fn new(rules: Vec<Hook>) -> Self {
        let mut hooks = Self::default();
        hooks.set(rules);
        hooks
    }

    /// Other hooks from now on; those that wait or run are not touched.
    pub(super) fn set(&mut self, rules: Vec<Hook>) {
        self.rules = rules;
    }

    /// There is something to listen for.
    pub(super) const fn is_wanted(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Which of the user's events it is, if it is one that a hook waits for.
    pub(super) fn wants(&mut self, event: &Event) -> Option<(InfoHash, HookEvent)> {
        let info_hash = event.info_hash?;
        let wanted = match &event.what {
            What::Added => HookEvent::Added,
            What::Metadata => HookEvent::Metadata,
            What::Finished => HookEvent::Finished,
            What::Error(_) if self.in_trouble.insert(info_hash) => HookEvent::Error,
            What::State(state) if !matches!(state, State::Error | State::NoSpace) => {
                self.in_trouble.remove(&info_hash);
                return None;
            }
            What::Removed => {
                self.in_trouble.remove(&info_hash);
                self.ends.remove(&info_hash);
                return None;
            }
            _ => return None,
        };
        self.rules.iter().any(|rule| rule.on.contains(&wanted)).then_some((info_hash, wanted))
    }

    /// Something has happened to a torrent: its hooks get in line.
    pub(super) fn handle_event(&mut self, event: HookEvent, torrent: &Summary) {
        let is_meant =
            |rule: &&Hook| rule.on.contains(&event) && (rule.label.is_empty() || rule.label == torrent.label);
        for rule in self.rules.iter().filter(is_meant) {
            if self.waiting.len() >= WAITING_MAX {
                if self.counts.dropped == 0 {
                    log::warn!("more than {WAITING_MAX} hooks wait: the others are not run (see `hooks_dropped`)");
                }
                self.counts.dropped += 1;
                continue;
            }
            self.waiting.push_back(Waiting {
                command: rule.command.clone(),
                timeout: rule.timeout,
                event,
                info_hash: torrent.info_hash,
                environment: environment(event, torrent),
            });
        }
    }

    /// Begins those whose turn it is, and reads on. True if it wants to be called again at once.
    pub(super) fn work(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        for index in 0..self.running.len() {
            if self.running[index].has_more {
                self.running[index].read(reactor);
            }
        }
        for _ in 0..BEGUN_MAX {
            if self.running.len() >= RUNNING_MAX {
                break;
            }
            let Some(waiting) = self.waiting.pop_front() else { break };
            let (info_hash, event, program) = (waiting.info_hash, waiting.event, waiting.command[0].clone());
            match Running::begin(now, waiting, reactor) {
                Ok(running) => {
                    self.counts.started += 1;
                    self.running.push(running);
                }
                Err(error) => {
                    self.counts.failed += 1;
                    log::warn!("hook {event}: {program} cannot be run: {error}");
                    self.note_end(info_hash, format!("{event}: {program} cannot be run: {error}"));
                }
            }
        }
        self.running.iter().any(|running| running.has_more)
            || (!self.waiting.is_empty() && self.running.len() < RUNNING_MAX)
    }

    /// Something has happened to a descriptor: false if it is none of ours.
    pub(super) fn handle_readable(&mut self, id: OutsideId, reactor: &mut Reactor) -> bool {
        let is_its = |running: &Running| {
            running.pidfd_id == id || running.output.as_ref().is_some_and(|(_, output_id)| *output_id == id)
        };
        let Some(index) = self.running.iter().position(is_its) else { return false };
        let running = &mut self.running[index];
        running.read(reactor);
        if running.pidfd_id != id {
            return true;
        }
        if running.is_told {
            // While it is not reaped its group cannot be another's.
            running.signal(Signal::KILL);
        }
        match running.child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => self.end(index, Some(status), reactor),
            Err(error) => {
                log::error!("hook: {}: its end cannot be known: {error}", running.program);
                self.end(index, None, reactor);
            }
        }
        true
    }

    /// Ends those whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Time) {
        for running in self.running.iter_mut().filter(|running| running.end_at <= now) {
            if running.is_told {
                running.signal(Signal::KILL);
                running.end_at = now + KILL_AFTER;
            } else {
                log::warn!("hook {}: {} takes too long and is ended", running.event, running.program);
                self.counts.timed_out += 1;
                running.is_told = true;
                running.signal(Signal::TERM);
                running.end_at = now + KILL_AFTER;
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.running.iter().map(|running| running.end_at).min().unwrap_or(Time::NEVER)
    }

    /// How the last hook of a torrent ended.
    pub(super) fn last_end(&self, info_hash: InfoHash) -> Option<&str> {
        self.ends.get(&info_hash).map(String::as_str)
    }

    /// Figures, for `stats`.
    pub(super) fn stats(&self) -> Vec<(String, u64)> {
        [
            ("hooks_started", self.counts.started),
            ("hooks_failed", self.counts.failed),
            ("hooks_timed_out", self.counts.timed_out),
            ("hooks_dropped", self.counts.dropped),
            ("hooks_running", self.running.len() as u64),
            ("hooks_waiting", self.waiting.len() as u64),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn end(&mut self, index: usize, status: Option<ExitStatus>, reactor: &mut Reactor) {
        let running = self.running.swap_remove(index);
        let said = String::from_utf8_lossy(&running.said).into_owned();
        for line in said.lines().filter(|line| !line.is_empty()) {
            log::info!("hook {}: {}: {}", running.event, running.program, escape(line));
        }
        let how = match status {
            _ if running.is_told => format!("was ended after {} s", running.timeout.as_secs()),
            Some(status) => match (status.code(), status.signal()) {
                (Some(0), _) => "done".to_owned(),
                (Some(code), _) => format!("exit status {code}"),
                (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
            },
            None => "ended, nobody knows how".to_owned(),
        };
        if !running.is_told && status.is_none_or(|status| !status.success()) {
            self.counts.failed += 1;
            log::warn!("hook {}: {}: {how}", running.event, running.program);
        }
        self.note_end(running.info_hash, format!("{}: {}: {how}", running.event, running.program));
        running.close(reactor);
    }

    fn note_end(&mut self, info_hash: InfoHash, how: String) {
        if self.ends.len() >= ENDS_MAX && !self.ends.contains_key(&info_hash) {
            self.ends.pop_first();
        }
        self.ends.insert(info_hash, how);
    }
}

impl Drop for Hooks {
    /// Whoever ends the daemon ends what it began.
    fn drop(&mut self) {
        self.running.iter().for_each(|running| running.signal(Signal::TERM));
    }
}

impl Running {
    fn begin(now: Time, waiting: Waiting, reactor: &mut Reactor) -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        // Without a closure to run in the child this is `posix_spawn`: no page is copied, however large we are. All of our
        // descriptors close on `exec`, and it leaves no signal blocked.
        let mut command = Command::new(&waiting.command[0]);
        command.args(&waiting.command[1..]).envs(waiting.environment).process_group(0);
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        drop(command); // and with it our ends for writing
        let watched = pid_of(&child).ok_or_else(|| ErrorKind::InvalidInput.into()).and_then(|pid| {
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            let pidfd_id = reactor.register(&mut SourceFd(&pidfd.as_raw_fd()), Interest::READABLE)?;
            Ok((pidfd, pidfd_id))
        });
        let (pidfd, pidfd_id) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                // Nobody would hear of its end.
                drop(child.kill());
                drop(child.wait());
                return Err(error);
            }
        };
        let output = reactor.register(&mut SourceFd(&reader.as_raw_fd()), Interest::READABLE);
        Ok(Self {
            event: waiting.event,
            program: waiting.command[0].clone(),
            info_hash: waiting.info_hash,
            child,
            pidfd,
            pidfd_id,
            output: output.ok().map(|id| (reader, id)),
            said: Vec::new(),
            has_more: true,
            end_at: now + waiting.timeout,
            is_told: false,
            timeout: waiting.timeout,
        })
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = pid_of(&self.child) {
            // Gone already is fine.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Reads some of what it says, and keeps the start.
    fn read(&mut self, reactor: &mut Reactor) {
        self.has_more = false;
        let Some((reader, _)) = &mut self.output else { return };
        let mut buf = [0; 64 * 1024];
        let mut left = READ_MAX;
        let is_over = loop {
            match reader.read(&mut buf) {
                Ok(0) => break true,
                Ok(len) => {
                    let room = OUTPUT_MAX - self.said.len();
                    self.said.extend_from_slice(&buf[..len.min(room)]);
                    left = left.saturating_sub(len);
                    if left == 0 {
                        self.has_more = true;
                        break false;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        if is_over {
            self.close_output(reactor);
        }
    }

    fn close_output(&mut self, reactor: &mut Reactor) {
        if let Some((reader, id)) = self.output.take() {
            forget(reactor, id, reader.as_raw_fd());
        }
    }

    fn close(mut self, reactor: &mut Reactor) {
        self.close_output(reactor);
        forget(reactor, self.pidfd_id, self.pidfd.as_raw_fd());
    }
}

fn forget(reactor: &mut Reactor, id: OutsideId, fd: RawFd) {
    if let Err(error) = reactor.deregister(id, &mut SourceFd(&fd)) {
        log::debug!("hook: a descriptor was not watched: {error}");
    }
}

fn pid_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// What a hook is told. Of names, which are strangers', zero bytes are left out: no environment can hold them.
fn environment(event: HookEvent, torrent: &Summary) -> Vec<(&'static str, OsString)> {
    let text = |text: &str| OsString::from(text.replace('\0', ""));
    vec![
        ("SWARMTORRENT_EVENT", text(&event.to_string())),
        ("SWARMTORRENT_HASH", text(&torrent.info_hash.to_string())),
        ("SWARMTORRENT_ST_ID", text(&torrent.st_id.map_or_else(String::new, |id| id.to_string()))),
        ("SWARMTORRENT_NAME", text(&torrent.name)),
        ("SWARMTORRENT_DIR", torrent.dir.clone().into_os_string()),
        ("SWARMTORRENT_SIZE", text(&torrent.size.to_string())),
        ("SWARMTORRENT_LABEL", text(&torrent.label)),
        ("SWARMTORRENT_STATE", text(torrent.state.word())),
        ("SWARMTORRENT_ERROR", text(torrent.error.as_deref().unwrap_or_default())),
        ("SWARMTORRENT_DOWNLOADED", text(&torrent.downloaded.to_string())),
        ("SWARMTORRENT_UPLOADED", text(&torrent.uploaded.to_string())),
    ]
}
