//! The programs that are compared, and how each is started.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Running, free_port};

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Ours,
    OursMmap,
    Libtorrent,
    Transmission,
    Aria2,
    Rtorrent,
    Qbittorrent,
    Rqbit,
}

/// All of them, in the order of the table.
pub const PEERS: [Peer; 8] = [
    Peer::Ours,
    Peer::OursMmap,
    Peer::Libtorrent,
    Peer::Transmission,
    Peer::Aria2,
    Peer::Rtorrent,
    Peer::Qbittorrent,
    Peer::Rqbit,
];

/// What a program is to do: seed what lies in `save`, or download to there.
#[derive(Debug, Clone, Copy)]
pub struct Job<'j> {
    pub torrents: &'j [PathBuf],
    pub save: &'j Path,
    /// For what it keeps.
    pub home: &'j Path,
    /// Where it listens.
    pub port: u16,
    /// Peers that are to be served at once.
    pub connections: usize,
}

/// As many as our config takes.
const SLOTS_MAX: usize = 1000;

impl Job<'_> {
    /// Connections that are allowed.
    fn limit(&self) -> usize {
        2000.max(self.connections + 1000)
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Client(Running);

impl Client {
    pub fn pid(&self) -> u32 {
        self.0.0.id()
    }

    /// Asks it to end, and waits until it has.
    pub fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.0.wait().unwrap();
    }
}

const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
save, port, limit = sys.argv[1:4]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'allow_multiple_connections_per_ip': True,
    'unchoke_slots_limit': -1, 'connections_limit': int(limit), 'out_enc_policy': 2, 'in_enc_policy': 2,
    'active_limit': -1, 'active_seeds': -1, 'active_tracker_limit': -1, 'active_checking': 4,
    'max_allowed_in_request_queue': 2000, 'ssrf_mitigation': False, 'announce_ip': '127.0.0.1'})
for torrent in sys.argv[4:]:
    p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
    p.max_connections = int(limit); p.max_uploads = -1
    s.add_torrent(p).resume()
time.sleep(3600)
";

impl Peer {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "swarmtorrentd",
            Self::OursMmap => "  backend=mmap",
            Self::Libtorrent => "libtorrent",
            Self::Transmission => "transmission",
            Self::Aria2 => "aria2",
            Self::Rtorrent => "rtorrent",
            Self::Qbittorrent => "qbittorrent",
            Self::Rqbit => "rqbit",
        }
    }

    /// Blocks that a reader asks of it at once. Transmission looks at what it is asked every 0.4 s.
    pub fn pipeline(self) -> u64 {
        if self == Self::Transmission { 512 } else { 64 }
    }

    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursMmap)
    }

    pub fn is_here(self) -> bool {
        let (program, args): (&str, &[&str]) = match self {
            Self::Ours | Self::OursMmap => return true,
            Self::Libtorrent => ("python3", &["-c", "import libtorrent"]),
            Self::Transmission => ("transmission-daemon", &["--version"]),
            Self::Aria2 => ("aria2c", &["--version"]),
            Self::Rtorrent => ("rtorrent", &["-h"]),
            Self::Qbittorrent => ("qbittorrent-nox", &["--version"]),
            Self::Rqbit => ("rqbit", &["--version"]),
        };
        let result = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        result.is_ok_and(|status| self != Self::Libtorrent || status.success())
    }

    pub fn start(self, job: &Job<'_>) -> Client {
        let (home, save) = (job.home.display(), job.save.to_str().unwrap());
        let (port, limit) = (job.port, job.limit());
        let mut command = match self {
            Self::Ours | Self::OursMmap => ours(self, job),
            Self::Libtorrent => {
                let mut command = Command::new("python3");
                command.args(["-c", LIBTORRENT, save, &port.to_string(), &limit.to_string()]).args(job.torrents);
                command
            }
            Self::Transmission => transmission(job),
            Self::Aria2 => {
                let mut command = Command::new("aria2c");
                command.args([
                    "--enable-dht=false",
                    "--enable-dht6=false",
                    "--bt-enable-lpd=false",
                    "--seed-ratio=0.0",
                ]);
                command.args(["--check-integrity=true", "--allow-overwrite=true", "--file-allocation=falloc"]);
                command.args(["--bt-max-peers=0", "--enable-color=false", "--quiet=true", "-j2000"]);
                command.arg(format!("--listen-port={port}")).arg(format!("--dir={save}")).args(job.torrents);
                command
            }
            Self::Rtorrent => {
                std::fs::create_dir_all(job.home.join("session")).unwrap();
                let load: String = (0..)
                    .zip(job.torrents)
                    .map(|(n, torrent)| format!("schedule2 = load{n}, 0, 0, \"load.start={}\"\n", torrent.display()))
                    .collect();
                let config = format!(
                    "directory.default.set = {save}\nsession.path.set = {home}/session\nsystem.daemon.set = true\n\
                     network.port_range.set = {port}-{port}\nnetwork.port_random.set = no\ndht.mode.set = disable\n\
                     protocol.pex.set = no\ntrackers.use_udp.set = no\nthrottle.max_uploads.set = {limit}\n\
                     throttle.max_uploads.global.set = {limit}\nthrottle.max_peers.seed.set = {limit}\n\
                     throttle.max_peers.normal.set = {limit}\npieces.memory.max.set = 8000M\n\
                     {load}"
                );
                std::fs::write(job.home.join("rc"), config).unwrap();
                let mut command = Command::new("rtorrent");
                command.args(["-n", "-o"]).arg(format!("import={home}/rc"));
                command
            }
            Self::Qbittorrent => qbittorrent(job),
            Self::Rqbit => {
                let mut command = Command::new("rqbit");
                command.args(["--disable-dht", "--disable-upnp-port-forward", "--disable-lsd"]);
                command.arg("--listen-port").arg(port.to_string());
                command.arg("--http-api-listen-addr").arg(format!("127.0.0.1:{}", free_port()));
                command.args(["download", "-o", save, "--overwrite"]).args(job.torrents);
                command
            }
        };
        let log = std::fs::File::create(job.home.join("log")).unwrap();
        command.env("HOME", job.home).env("TERM", "dumb").stdin(Stdio::null());
        let running = Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        if self.is_ours() {
            wait_for_ours(job.home);
            job.torrents.iter().for_each(|torrent| add(job.home, torrent, ""));
        }
        Client(running)
    }
}

fn ours(peer: Peer, job: &Job<'_>) -> Command {
    let (home, save, port) = (job.home.display(), job.save.display(), job.port);
    let backend = if peer == Peer::OursMmap { "mmap" } else { "pread" };
    let config = format!(
        "[paths]\nstate = \"{home}/state\"\ndownloads = \"{save}\"\n[control]\nsocket = \"{home}/control\"\n\
         [peers]\nlisten = [\"127.0.0.1:{port}\"]\nmax_connections = {limit}\nmax_per_torrent = {limit}\nupload_slots = {slots}\n\
         [storage]\nbackend = \"{backend}\"\n[http]\nlisten = []\n[dht]\nenabled = false\n",
        limit = job.limit(),
        slots = job.limit().min(SLOTS_MAX),
    );
    std::fs::write(job.home.join("config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrentd"));
    command.arg("-c").arg(job.home.join("config.toml"));
    command
}

/// Waits until the daemon answers. It is asked often, for its start is measured, too.
fn wait_for_ours(home: &Path) {
    let start = Instant::now();
    while UnixStream::connect(home.join("control")).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the daemon does not answer");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// All that the daemon at home in `home` replies to a line.
pub fn reply(home: &Path, line: &str) -> Vec<String> {
    let mut stream = UnixStream::connect(home.join("control")).unwrap();
    writeln!(stream, "{line}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    BufReader::new(stream).lines().map(Result::unwrap).collect()
}

/// What the daemon at home in `home` replies, but for the last line.
pub fn ask(home: &Path, line: &str) -> Vec<String> {
    let mut stream = UnixStream::connect(home.join("control")).unwrap();
    writeln!(stream, "{line}").unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut failed = None;
    let reply = lines.take_while(|line| {
        failed = line.starts_with("ERR").then(|| line.clone());
        !(line.starts_with("ERR") || line == "OK" || line.starts_with("OK "))
    });
    let reply = reply.collect();
    assert_eq!(failed, None, "{line}");
    reply
}

/// Adds a torrent file to the daemon at home in `home`.
pub fn add(home: &Path, torrent: &Path, options: &str) {
    ask(home, &format!("add {} {options}", torrent.display()));
}

fn transmission(job: &Job<'_>) -> Command {
    let watch = job.home.join("watch");
    std::fs::create_dir_all(&watch).unwrap();
    for torrent in job.torrents {
        std::fs::copy(torrent, watch.join(torrent.file_name().unwrap())).unwrap();
    }
    let settings = serde_json::json!({
        "download-dir": job.save, "watch-dir": watch, "watch-dir-enabled": true, "peer-port": job.port,
        "rpc-port": free_port(), "rpc-whitelist-enabled": false, "dht-enabled": false, "lpd-enabled": false,
        "utp-enabled": false, "pex-enabled": false, "port-forwarding-enabled": false, "encryption": 0,
        "cache-size-mb": 64, "upload-slots-per-torrent": job.limit(),
        "peer-limit-global": job.limit(), "peer-limit-per-torrent": job.limit(),
    });
    std::fs::write(job.home.join("settings.json"), settings.to_string()).unwrap();
    let mut command = Command::new("transmission-daemon");
    command.args(["-f", "-g"]).arg(job.home);
    command
}

fn qbittorrent(job: &Job<'_>) -> Command {
    let (save, port, web) = (job.save.display(), job.port, free_port());
    let dir = job.home.join("qBittorrent/config");
    std::fs::create_dir_all(&dir).unwrap();
    let config = format!(
        "[LegalNotice]\nAccepted=true\n[BitTorrent]\nSession\\DHTEnabled=false\nSession\\LSDEnabled=false\n\
         Session\\PeXEnabled=false\nSession\\Port={port}\nSession\\BTProtocol=TCP\nSession\\DefaultSavePath={save}\n\
         Session\\MaxUploads=-1\nSession\\MaxUploadsPerTorrent=-1\nSession\\MaxConnections=-1\n\
         Session\\MaxConnectionsPerTorrent=-1\nSession\\MultiConnectionsPerIp=true\nSession\\SSRFMitigation=false\n\
         Session\\QueueingSystemEnabled=false\n[Preferences]\nWebUI\\Port={web}\n"
    );
    std::fs::write(dir.join("qBittorrent.conf"), config).unwrap();
    let mut command = Command::new("qbittorrent-nox");
    command.arg(format!("--profile={}", job.home.display())).arg(format!("--save-path={save}")).args(job.torrents);
    command
}
