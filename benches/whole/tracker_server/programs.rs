//! The trackers: where each is found, how it is started, and how it is told to serve everybody.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use swarmtorrent::base::hash::InfoHash;

use super::{PEERS, SHORT_SECS, http, udp};
use crate::common::{Running, free_port, wait};
use crate::machine;

/// A program that can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Ours,
    Opentracker,
    AquaticUdp,
    AquaticHttp,
}

/// How it is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Listens at `::1`.
    pub is_v6: bool,
    /// Peers are forgotten after seconds, where that can be had.
    pub is_brief: bool,
    /// Closes each connection, where that is a setting.
    pub closes: bool,
}

/// One that runs.
pub struct Program {
    pub which: Which,
    pub how: How,
    pub addr: SocketAddr,
    running: Running,
}

impl Which {
    pub const ALL: [Self; 4] = [Self::Ours, Self::Opentracker, Self::AquaticUdp, Self::AquaticHttp];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "swarmtorrent",
            Self::Opentracker => "opentracker",
            Self::AquaticUdp => "aquatic_udp",
            Self::AquaticHttp => "aquatic_http",
        }
    }

    pub fn has_udp(self) -> bool {
        self != Self::AquaticHttp
    }

    pub fn has_http(self) -> bool {
        self != Self::AquaticUdp
    }

    /// Whether it answers a second request of a connection.
    pub fn keeps_alive(self) -> bool {
        matches!(self, Self::Ours | Self::AquaticHttp)
    }

    /// Debian's opentracker knows one family.
    pub fn has_v6(self) -> bool {
        self != Self::Opentracker
    }

    /// Where it is; none if it is not installed.
    pub fn path(self) -> Option<PathBuf> {
        if self == Self::Ours {
            let path = env!("CARGO_BIN_EXE_swarmtorrent");
            let help =
                Command::new(path).args(["tracker", "--help"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
            return help.is_ok_and(|status| status.success()).then(|| path.into());
        }
        let aquatic = std::env::var_os("SWARMTORRENT_AQUATIC").map(|root| Path::new(&root).join("bin"));
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        let dirs = aquatic.into_iter().chain(std::env::split_paths(&dirs));
        dirs.map(|dir| dir.join(self.name())).find(|path| path.is_file())
    }

    fn command(self, path: &Path, addr: SocketAddr, how: How, home: &Path, hashes: &[InfoHash]) -> Command {
        let mut command = Command::new(path);
        let config = home.join("config");
        let age = if how.is_brief { SHORT_SECS } else { 1800 };
        let text = match self {
            Self::Ours => {
                let (addr, interval) = (addr.to_string(), format!("{age}s"));
                command.args(["tracker", "--udp", &addr, "--http", &addr, "--interval", &interval]);
                if let Ok(store) = std::env::var("SWARMTORRENT_BENCH_STORE") {
                    command.args(["--store", &store]);
                }
                return command;
            }
            Self::Opentracker => {
                // Debian's build serves those that are listed.
                let list: String = hashes.iter().map(|hash| format!("{hash}\n")).collect();
                std::fs::write(home.join("list"), list).unwrap();
                format!("listen.tcp_udp {addr}\naccess.whitelist {}/list\n", home.display())
            }
            Self::AquaticUdp => format!(
                "socket_workers = 1\n[network]\naddress = \"{addr}\"\n[statistics]\ninterval = 0\n[cleaning]\n\
                 torrent_cleaning_interval = {}\nmax_peer_age = {age}\n",
                if how.is_brief { 1 } else { 120 }
            ),
            Self::AquaticHttp => format!(
                "socket_workers = 1\nswarm_workers = 1\n[network]\naddress = \"{addr}\"\nkeep_alive = {}\n[cleaning]\n\
                 max_peer_age = {age}\n",
                !how.closes
            ),
        };
        std::fs::write(&config, text).unwrap();
        command.arg(if self == Self::Opentracker { "-f" } else { "-c" }).arg(&config);
        command
    }
}

impl Program {
    /// Starts one, if it comes up, and tells of [`PEERS`] peers; prints what they take.
    pub fn start(which: Which, how: How, dir: &Path, hashes: &[InfoHash]) -> Option<Self> {
        let home = dir.join(which.name());
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        let ip = if how.is_v6 { "[::1]" } else { "127.0.0.1" };
        let addr: SocketAddr = format!("{ip}:{}", free_port()).parse().unwrap();
        let log = File::create(home.join("log")).unwrap();
        let mut command = which.command(&which.path()?, addr, how, &home, hashes);
        command.current_dir(&home).env("HOME", &home).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut program = Self { which, how, addr, running: Running(command.spawn().unwrap()) };
        if which.has_http() {
            let mut ended = false;
            wait("it listens or ends", 10, || {
                ended = program.running.0.try_wait().unwrap().is_some();
                ended || TcpStream::connect(addr).is_ok()
            });
            if ended {
                println!(
                    "  {:<18} did not start: {}",
                    which.name(),
                    std::fs::read_to_string(home.join("log")).unwrap()
                );
                return None;
            }
        }
        program.fill(hashes);
        Some(program)
    }

    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    fn fill(&self, hashes: &[InfoHash]) {
        if self.which.has_udp() {
            // It answers once before its memory is looked at.
            udp::fill(self.addr, hashes, 1);
        }
        let before = machine::memory_kib(self.pid(), "RssAnon:");
        if self.which.has_udp() {
            udp::fill(self.addr, hashes, PEERS);
        } else {
            http::fill(http::To { addr: self.addr, keep_alive: !self.how.closes, is_read: true }, hashes, PEERS);
        }
        let after = machine::memory_kib(self.pid(), "RssAnon:");
        let each = (after as f64 - before as f64) * 1024.0 / PEERS as f64;
        let family = if self.how.is_v6 { "IPv6" } else { "IPv4" };
        println!(
            "  {:<18} {family}: {before} to {after} KiB of anonymous memory, {each:.1} bytes a peer",
            self.which.name()
        );
    }
}
