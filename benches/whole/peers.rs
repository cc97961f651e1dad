//! The programs that are compared, and how each is started.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Running, free_port, wait};

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
    pub torrent: &'j Path,
    pub save: &'j Path,
    /// For what it keeps.
    pub home: &'j Path,
    /// Where it listens.
    pub port: u16,
    /// Peers that are to be served at once.
    pub connections: usize,
}

/// A program that runs.
#[derive(Debug)]
pub struct Client(Running);

impl Client {
    pub fn pid(&self) -> u32 {
        self.0.0.id()
    }
}

const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
torrent, save, port, slots = sys.argv[1:5]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'allow_multiple_connections_per_ip': True,
    'unchoke_slots_limit': -1, 'connections_limit': 2000, 'out_enc_policy': 2, 'in_enc_policy': 2,
    'max_allowed_in_request_queue': 2000, 'ssrf_mitigation': False, 'announce_ip': '127.0.0.1'})
p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save; p.max_connections = 2000; p.max_uploads = -1
h = s.add_torrent(p); h.resume()
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
        let (port, torrent) = (job.port, job.torrent.display());
        let mut command = match self {
            Self::Ours | Self::OursMmap => ours(self, job),
            Self::Libtorrent => {
                let mut command = Command::new("python3");
                let (port, slots) = (port.to_string(), job.connections.to_string());
                command.args(["-c", LIBTORRENT]).arg(job.torrent).args([save, &port, &slots]);
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
                command.args(["--bt-max-peers=0", "--enable-color=false", "--quiet=true"]);
                command.arg(format!("--listen-port={port}")).arg(format!("--dir={save}")).arg(job.torrent);
                command
            }
            Self::Rtorrent => {
                std::fs::create_dir_all(job.home.join("session")).unwrap();
                let config = format!(
                    "directory.default.set = {save}\nsession.path.set = {home}/session\nsystem.daemon.set = true\n\
                     network.port_range.set = {port}-{port}\nnetwork.port_random.set = no\ndht.mode.set = disable\n\
                     protocol.pex.set = no\ntrackers.use_udp.set = no\nthrottle.max_uploads.set = 2000\n\
                     throttle.max_uploads.global.set = 2000\nthrottle.max_peers.seed.set = 2000\n\
                     throttle.max_peers.normal.set = 2000\npieces.memory.max.set = 8000M\n\
                     schedule2 = load, 0, 0, \"load.start={torrent}\"\n"
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
                command.args(["download", "-o", save, "--overwrite"]).arg(job.torrent);
                command
            }
        };
        let log = std::fs::File::create(job.home.join("log")).unwrap();
        command.env("HOME", job.home).env("TERM", "dumb").stdin(Stdio::null());
        let running = Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        if matches!(self, Self::Ours | Self::OursMmap) {
            add_to_ours(job);
        }
        Client(running)
    }
}

fn ours(peer: Peer, job: &Job<'_>) -> Command {
    let (home, save, port) = (job.home.display(), job.save.display(), job.port);
    let backend = if peer == Peer::OursMmap { "mmap" } else { "pread" };
    let config = format!(
        "[paths]\nstate = \"{home}/state\"\ndownloads = \"{save}\"\n[control]\nsocket = \"{home}/control\"\n\
         [peers]\nlisten = [\"127.0.0.1:{port}\"]\nmax_connections = 2000\nmax_per_torrent = 2000\nupload_slots = {}\n\
         [storage]\nbackend = \"{backend}\"\n[http]\nlisten = []\n[dht]\nenabled = false\n",
        job.connections + 10
    );
    std::fs::write(job.home.join("config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrentd"));
    command.arg("-c").arg(job.home.join("config.toml"));
    command
}

fn add_to_ours(job: &Job<'_>) {
    wait("the daemon answers", 10, || UnixStream::connect(job.home.join("control")).is_ok());
    let mut stream = UnixStream::connect(job.home.join("control")).unwrap();
    writeln!(stream, "add {}", job.torrent.display()).unwrap();
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).unwrap();
    assert!(reply.starts_with("OK"), "{reply}");
}

fn transmission(job: &Job<'_>) -> Command {
    let watch = job.home.join("watch");
    std::fs::create_dir_all(&watch).unwrap();
    std::fs::copy(job.torrent, watch.join("made.torrent")).unwrap();
    let settings = serde_json::json!({
        "download-dir": job.save, "watch-dir": watch, "watch-dir-enabled": true, "peer-port": job.port,
        "rpc-port": free_port(), "rpc-whitelist-enabled": false, "dht-enabled": false, "lpd-enabled": false,
        "utp-enabled": false, "pex-enabled": false, "port-forwarding-enabled": false, "encryption": 0,
        "bind-address-ipv4": "127.0.0.1", "cache-size-mb": 64, "upload-slots-per-torrent": job.connections + 10,
        "peer-limit-global": 2000, "peer-limit-per-torrent": 2000,
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
    command.arg(format!("--profile={}", job.home.display())).arg(format!("--save-path={save}")).arg(job.torrent);
    command
}
