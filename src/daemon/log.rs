//! The log: standard error, with journal priorities under systemd and time stamps elsewhere, levels changeable while running.
//!
//! Nothing here waits for whoever reads it. Standard error may be shared with a terminal, so its flags are left alone;
//! instead each write asks `poll` first and moves no more than `PORTION`, which a pipe, a socket or a terminal that says it is
//! writable takes at once. What is not taken waits, up to [`WAITING_MAX`]; beyond that lines are dropped, counted, and told.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::linux::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use env_logger::{Builder, Logger, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::codec::control::escape;
use crate::codec::units::moment;

/// Bytes that may wait for a slow reader. Lines beyond are dropped with a count.
pub const WAITING_MAX: usize = 256 * 1024;
/// Bytes of one write: what POSIX lets a writable pipe take without waiting (`PIPE_BUF` on Linux).
const PORTION: usize = 4096;
/// The part of a record's target that all of ours share.
const CRATE: &str = "swarmtorrent";

// The `log` crate wants a logger that any thread may use. There is one thread here; the two locks are never waited for.
static WAITING: Mutex<Waiting> = Mutex::new(Waiting::new());
static SWITCH: Switch = Switch { inner: RwLock::new(None) };

/// Starts logging at `level`.
///
/// # Errors
/// If somebody else has taken the log.
pub fn start(level: LevelFilter) -> Result<(), log::SetLoggerError> {
    let levels = Levels { all: level, targets: Vec::new() };
    log::set_logger(&SWITCH)?;
    SWITCH.change(levels, is_journal());
    Ok(())
}

/// Logs at `level` from now on: everything, or what comes from `target` (`engine`, `daemon::watch`, …) and below.
pub fn set(level: LevelFilter, target: Option<&str>) {
    let Some((mut levels, is_journal)) = SWITCH.levels() else { return };
    match target {
        None => levels = Levels { all: level, targets: Vec::new() },
        Some(target) => {
            levels.targets.retain(|(other, _)| other != target);
            levels.targets.push((target.to_owned(), level));
            // Beyond it, what was set first is forgotten.
            if levels.targets.len() > TARGETS_MAX {
                levels.targets.remove(0);
            }
        }
    }
    SWITCH.change(levels, is_journal);
}

/// Targets with a level of their own; beyond it the oldest is forgotten.
const TARGETS_MAX: usize = 64;

/// Writes what waits, as far as it is taken now. True if something still waits: call again soon.
pub fn pump() -> bool {
    let mut waiting = waiting();
    waiting.write(write_portion);
    !waiting.bytes.is_empty()
}

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone)]
struct Levels {
    all: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

/// The logger, exchanged whole when levels change.
struct Switch {
    inner: RwLock<Option<(Levels, bool, Logger)>>,
}

impl Switch {
    fn levels(&self) -> Option<(Levels, bool)> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.as_ref().map(|(levels, is_journal, _)| (levels.clone(), *is_journal))
    }

    fn change(&self, levels: Levels, is_journal: bool) {
        let mut builder = Builder::new();
        // Libraries have nothing to say to a user but trouble.
        builder.filter_level(levels.all.min(LevelFilter::Warn)).filter_module(CRATE, levels.all);
        for (target, level) in &levels.targets {
            builder.filter_module(&format!("{CRATE}::{target}"), *level);
        }
        let logger = builder
            .target(Target::Pipe(Box::new(Line)))
            .format(move |out, record| writeln!(out, "{}", line(record, is_journal)))
            .build();
        log::set_max_level(logger.filter());
        *self.inner.write().unwrap_or_else(PoisonError::into_inner) = Some((levels, is_journal, logger));
    }
}

impl Log for Switch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.as_ref().is_some_and(|(_, _, logger)| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, logger)) = inner.as_ref() {
            logger.log(record);
        }
    }

    fn flush(&self) {}
}

/// One line, without its end: strangers' control characters never reach a terminal.
fn line(record: &Record<'_>, is_journal: bool) -> String {
    let target = record.target();
    let target = target.strip_prefix(CRATE).and_then(|rest| rest.strip_prefix("::")).unwrap_or(target);
    let message = record.args().to_string();
    let message = escape(&message);
    if is_journal {
        return format!("<{}>{target}: {message}", priority(record.level()));
    }
    format!("{} {:<5} {target}: {message}", moment(unix_secs()), record.level())
}

const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[expect(clippy::disallowed_methods, reason = "people read calendar time in a log; nothing decides by it")]
fn unix_secs() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// True if standard error is the journal: `JOURNAL_STREAM` names its device and inode.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    // Through /proc the standard library can look at a descriptor that it does not own.
    let Ok(meta) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream == format!("{}:{}", meta.st_dev(), meta.st_ino())
}

/// Where `env_logger` puts each line; a call is a whole one.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = waiting();
        waiting.push(line);
        waiting.write(write_portion);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What has not been taken yet. Invariant: at most [`WAITING_MAX`] bytes and the line that tells of dropped ones.
struct Waiting {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Waiting {
    const fn new() -> Self {
        Self { bytes: VecDeque::new(), dropped: 0 }
    }

    fn push(&mut self, line: &[u8]) {
        if self.bytes.len() + line.len() > WAITING_MAX {
            self.dropped += 1;
            return;
        }
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.bytes.extend(format!("{dropped} lines of the log were dropped: its reader is too slow\n").as_bytes());
        }
        self.bytes.extend(line);
    }

    /// Writes while the other end takes something. A reader that is gone has lost what waits.
    /// `take` says how many of the bytes it took.
    fn write(&mut self, mut take: impl FnMut(&[u8]) -> io::Result<usize>) {
        while !self.bytes.is_empty() {
            let (front, _) = self.bytes.as_slices();
            match take(&front[..front.len().min(PORTION)]) {
                Ok(0) => return,
                Ok(len) => drop(self.bytes.drain(..len)),
                Err(_) => self.bytes.clear(),
            }
        }
    }
}

/// Writes some of `portion`, of at most `PORTION` bytes, to standard error; 0 if nothing is taken now.
fn write_portion(portion: &[u8]) -> io::Result<usize> {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&at_once)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(0),
        _ => {}
    }
    match io::stderr().write(portion) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: Level, target: &str, text: &str, is_journal: bool) -> String {
        line(&Record::builder().level(level).target(target).args(format_args!("{text}")).build(), is_journal)
    }

    #[test]
    fn a_line_has_a_priority_or_a_time_and_never_a_control_character() {
        assert_eq!(record(Level::Warn, "swarmtorrent::engine::pump", "a\nb\x1b", true), r"<4>engine::pump: a\nb\x1b");
        assert_eq!(record(Level::Info, "rustls", "x", true), "<6>rustls: x");
        let plain = record(Level::Info, "swarmtorrent::daemon", "x", false);
        assert!(plain.starts_with("20") && plain.ends_with(" UTC INFO  daemon: x"), "{plain}");
    }

    #[test]
    fn a_slow_reader_costs_lines_and_is_told_how_many() {
        let mut waiting = Waiting::new();
        for _ in 0..10_000 {
            waiting.push(&[b'x'; 100]);
            waiting.write(|_| Ok(0));
            assert!(waiting.bytes.len() <= WAITING_MAX);
        }
        assert_eq!(waiting.dropped, 10_000 - (WAITING_MAX / 100) as u64);
        let mut read = Vec::new();
        let mut portions = 0;
        let mut take = |portion: &[u8]| {
            assert!(portion.len() <= PORTION);
            portions += 1;
            let len = if portions < 100 { portion.len().div_ceil(2) } else { 0 };
            read.extend_from_slice(&portion[..len]);
            Ok(len)
        };
        waiting.write(&mut take);
        waiting.push(b"end\n");
        waiting.write(|portion| {
            read.extend_from_slice(portion);
            Ok(portion.len())
        });
        assert!(waiting.bytes.is_empty());
        let told =
            format!("{} lines of the log were dropped: its reader is too slow\nend\n", 10_000 - WAITING_MAX / 100);
        assert!(read.ends_with(told.as_bytes()));
    }

    #[test]
    fn a_reader_that_is_gone_costs_nothing_but_its_lines() {
        let mut waiting = Waiting::new();
        waiting.push(b"x\n");
        waiting.write(|_| Err(io::ErrorKind::BrokenPipe.into()));
        assert!(waiting.bytes.is_empty());
    }
}
