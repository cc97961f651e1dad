//! The daemon of a cell, and the state that it starts from.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::attack::Role;
use crate::common::{Running, free_port, wait};
use crate::geometry::{Geometry, Torrent};
use crate::machine;

/// How long a daemon may take to load the largest torrent and to write its state.
const LOAD_SECS: u64 = 60;
/// Bytes of a file in a line of the control socket.
const PART_LEN: usize = 48 * 1000;

/// A state directory in which the torrents of a geometry are known.
#[derive(Debug)]
pub struct Base {
    dir: PathBuf,
    pub role: Role,
    pub torrents: Vec<Torrent>,
}

impl Base {
    /// Adds the torrents, and stops the daemon.
    pub fn make(dir: &Path, geometry: Geometry, role: Role) -> Self {
        let dir = dir.join(format!("{}-{role:?}", geometry.name()));
        std::fs::create_dir_all(dir.join("base")).unwrap();
        let count = if role == Role::Hibernated { geometry.hibernated() } else { 1 };
        let torrents: Vec<Torrent> = (0..count).map(|number| geometry.torrent(number, role.has_content())).collect();
        let base = Self { dir, role, torrents };
        if role != Role::Link {
            let content = base.content();
            std::fs::create_dir_all(&content).unwrap();
            let daemon = Daemon::launch(&base, &base.dir.join("base"));
            for torrent in &base.torrents {
                if role.has_content() {
                    fill(&content, torrent);
                    daemon.add_parts(&torrent.import());
                } else {
                    let path = base.dir.join("added.torrent");
                    std::fs::write(&path, torrent.metainfo()).unwrap();
                    daemon.ask(&format!("add {}", path.display()));
                }
            }
            daemon.wait_for_state(role.state(), base.torrents.len());
            daemon.terminate();
        }
        base
    }

    fn content(&self) -> PathBuf {
        self.dir.join("content")
    }

    pub fn remove(self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// Makes the content: a hole, of which the daemon is told that it is verified, or zeros where there are too many files for that.
fn fill(content: &Path, torrent: &Torrent) {
    for path in torrent.paths() {
        let path = content.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if torrent.files > 1 {
            std::fs::write(path, vec![0; usize::try_from(torrent.file_len).unwrap()]).unwrap();
        } else {
            std::fs::File::create(path).unwrap().set_len(torrent.file_len).unwrap();
        }
    }
}

/// Figures of `stats`.
#[derive(Debug)]
pub struct Figures {
    max: Duration,
    /// How many rounds were shorter than a power of two of microseconds, and how many there were at all.
    below: Vec<(u64, u64)>,
    rounds: u64,
    pub messages: u64,
}

impl Figures {
    /// The longest round since `before`; true with it if it is only a bound.
    pub fn longest_since(&self, before: &Self) -> (Duration, bool) {
        if self.max > before.max {
            return (self.max, false);
        }
        let new = self.rounds - before.rounds;
        let bound = self.below.iter().zip(&before.below).find(|(after, before)| after.1 - before.1 >= new);
        (bound.map_or(self.max, |(after, _)| Duration::from_micros(after.0).min(self.max)), true)
    }
}

/// A daemon that runs.
#[derive(Debug)]
pub struct Daemon {
    running: Running,
    home: PathBuf,
    listen: SocketAddr,
}

impl Daemon {
    /// Starts one from a copy of `base`, and waits until its torrents are what they should be.
    pub fn start(base: &Base) -> Self {
        let home = base.dir.join("cell");
        let _ = std::fs::remove_dir_all(&home);
        let copied = Command::new("cp").arg("-r").arg(base.dir.join("base")).arg(&home).status();
        assert!(copied.unwrap().success());
        let daemon = Self::launch(base, &home);
        if base.role == Role::Link {
            let links = base.torrents.iter().map(|torrent| format!("add magnet:?xt=urn:btih:{}", torrent.hex()));
            links.for_each(|link| daemon.ask(&link));
        }
        daemon.wait_for_state(base.role.state(), base.torrents.len());
        daemon
    }

    fn launch(base: &Base, home: &Path) -> Self {
        let listen = SocketAddr::from((machine::address(), free_port()));
        let config = format!(
            "[paths]\nstate = \"{home}/state\"\ndownloads = \"{content}\"\n[control]\nsocket = \"{home}/control\"\n\
             [peers]\nlisten = [\"{listen}\"]\nmax_per_torrent = 250\nlsd = false\n[limits]\nmin_free_space = \"0\"\n\
             [storage]\nallocate = \"sparse\"\n[http]\nlisten = []\n[dht]\nenabled = false\n",
            home = home.display(),
            content = base.content().display(),
        );
        std::fs::write(home.join("config.toml"), config).unwrap();
        let log = std::fs::File::create(home.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrentd"));
        command.arg("-c").arg(home.join("config.toml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = Self { running: Running(command.spawn().unwrap()), home: home.to_owned(), listen };
        // What else runs on the machine is not to be part of its rounds. Only root may.
        let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
        let _unless_forbidden = rustix::process::setpriority_process(pid, -20);
        wait("the daemon answers", LOAD_SECS, || UnixStream::connect(home.join("control")).is_ok());
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The reply to a line; none if there is none in time.
    fn reply(&self, line: &str, patience: Duration) -> Option<Vec<String>> {
        let end = Instant::now() + patience;
        let mut stream = UnixStream::connect(self.home.join("control")).ok()?;
        writeln!(stream, "{line}").ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left)).unwrap();
        BufReader::new(stream).lines().collect::<Result<_, _>>().ok()
    }

    #[track_caller]
    fn ask(&self, line: &str) {
        let reply = self.reply(line, Duration::from_secs(LOAD_SECS)).unwrap_or_default();
        assert!(reply.last().is_some_and(|line| line.starts_with("OK")), "{line}: {reply:?}");
    }

    /// Adds what is too long for a line.
    fn add_parts(&self, bytes: &[u8]) {
        let mut stream = UnixStream::connect(self.home.join("control")).unwrap();
        let mut replies = BufReader::new(stream.try_clone().unwrap());
        let parts = bytes.chunks(PART_LEN).map(|part| format!("part {}", STANDARD.encode(part)));
        for line in parts.chain(["add parts:".to_owned()]) {
            writeln!(stream, "{line}").unwrap();
            let mut reply = String::new();
            replies.read_line(&mut reply).unwrap();
            assert!(reply.starts_with("OK"), "{reply}");
        }
    }

    fn wait_for_state(&self, state: &str, count: usize) {
        let pattern = format!("\"state\":\"{state}\"");
        let list = || self.reply("json list", Duration::from_secs(LOAD_SECS)).unwrap_or_default();
        let deadline = Instant::now() + Duration::from_secs(LOAD_SECS);
        while list().iter().filter(|line| line.contains(&pattern)).count() < count {
            assert!(Instant::now() < deadline, "not {state}: {:?}", list());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn stats(&self, patience: Duration) -> Option<Figures> {
        let reply = self.reply("stats", patience)?;
        let number = |name: &str| {
            let line = reply.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in {reply:?}")).trim().parse::<u64>().unwrap()
        };
        let below = |octave: u32| (1 << octave, number(&format!("loop_rounds_below_{}_us", 1_u64 << octave)));
        Some(Figures {
            max: Duration::from_micros(number("loop_round_max_us")),
            below: (6..=16).map(below).collect(),
            rounds: number("loop_rounds"),
            messages: number("peers.messages_in"),
        })
    }

    /// Lets the kernel count its peak memory from now on; what it has now, KiB.
    pub fn forget_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
        machine::memory_kib(self.pid(), "VmRSS:")
    }

    pub fn peak_kib(&self) -> u64 {
        machine::memory_kib(self.pid(), "VmHWM:")
    }

    fn terminate(mut self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.running.0.wait().unwrap();
    }
}
