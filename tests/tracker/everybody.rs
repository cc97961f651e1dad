//! Swarms of everybody's clients that nobody but the tracker introduces: torrents are private, and DHT, PEX and LSD are off. Nobody asks
//! twice meanwhile: who comes later learns of who was there.
//!
//! Each client has an address of its own, by which it also calls the tracker, and so asks from it. Each gets what our daemon
//! seeds, and seeds something else that another daemon of ours gets.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use swarmtorrent::base::hash::InfoHash;
use swarmtorrent::codec::http_tracker::parse_scrape;
use swarmtorrent::codec::udp_tracker::Response;

use crate::common::{Daemon, Running, in_a_network_of_its_own, make, noise, wait};
use crate::{Asker, Web, announce, percent};

const TRACKER: Ipv4Addr = ip(11);
const OURS: Ipv4Addr = ip(16);
const GET: Ipv4Addr = ip(17);
const TRACKER_PORT: u16 = 6969;
const PEER_PORT: u16 = 6881;
/// Bytes of each torrent's only file.
const LEN: usize = 300_000;

const fn ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// A real client of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Transmission = 12,
    Libtorrent = 13,
    Aria2 = 14,
    Rtorrent = 15,
}

const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
save, listen, *torrents = sys.argv[1:]
s = lt.session({'listen_interfaces': listen, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False})
for torrent in torrents:
    p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
    s.add_torrent(p).resume()
time.sleep(240)
";

impl Client {
    const ALL: [Self; 4] = [Self::Transmission, Self::Libtorrent, Self::Aria2, Self::Rtorrent];

    const fn ip(self) -> Ipv4Addr {
        ip(self as u8)
    }

    /// Starts it with torrents: it seeds what lies in `dir`, and downloads the rest to there. None if it is not installed.
    fn start(self, dir: &Path, torrents: &[PathBuf]) -> Option<Running> {
        let (home, ip) = (dir.join(".home"), self.ip());
        std::fs::create_dir_all(home.join("watch")).unwrap();
        let mut command = match self {
            Self::Transmission => {
                for torrent in torrents {
                    std::fs::copy(torrent, home.join("watch").join(torrent.file_name().unwrap())).unwrap();
                }
                let settings = serde_json::json!({
                    "download-dir": dir, "watch-dir": home.join("watch"), "watch-dir-enabled": true, "peer-port": PEER_PORT,
                    "rpc-enabled": false, "dht-enabled": false, "lpd-enabled": false, "utp-enabled": false, "pex-enabled": false,
                    "port-forwarding-enabled": false, "bind-address-ipv4": ip.to_string(),
                });
                std::fs::write(home.join("settings.json"), settings.to_string()).unwrap();
                let mut command = Command::new("transmission-daemon");
                command.args(["-f", "-g"]).arg(&home);
                command
            }
            Self::Libtorrent => {
                if !crate::common::has_libtorrent() {
                    return None;
                }
                let mut command = Command::new("python3");
                command.args(["-c", LIBTORRENT]).arg(dir).arg(format!("{ip}:{PEER_PORT}")).args(torrents);
                command
            }
            Self::Aria2 => {
                let mut command = Command::new("aria2c");
                // It asks no tracker by UDP without the DHT, in which a private torrent takes no part.
                command.args(["--enable-dht=true", "--enable-dht6=false", "--bt-enable-lpd=false", "--seed-ratio=0.0"]);
                command.arg(format!("--dht-file-path={}", home.join("dht.dat").display()));
                command.args(["--enable-peer-exchange=false", "--check-integrity=true", "--allow-overwrite=true"]);
                command.arg("--file-allocation=none").arg(format!("--interface={ip}"));
                command.args(["listen", "dht-listen"].map(|what| format!("--{what}-port={PEER_PORT}")));
                command.arg(format!("--dir={}", dir.display())).args(torrents);
                command
            }
            Self::Rtorrent => {
                std::fs::create_dir_all(home.join("session")).unwrap();
                let load = |(number, torrent): (usize, &PathBuf)| {
                    format!("schedule2 = load{number}, 0, 0, \"load.start={}\"\n", torrent.display())
                };
                let loads: String = torrents.iter().enumerate().map(load).collect();
                let config = format!(
                    "directory.default.set = {}\nsession.path.set = {}/session\nsystem.daemon.set = true\n\
                     network.port_range.set = {PEER_PORT}-{PEER_PORT}\nnetwork.port_random.set = no\ndht.mode.set = disable\n\
                     protocol.pex.set = no\ntrackers.use_udp.set = yes\npieces.hash.on_completion.set = no\nnetwork.bind_address.set = {ip}\n{loads}",
                    dir.display(),
                    home.display()
                );
                std::fs::write(home.join("rc"), config).unwrap();
                let mut command = Command::new("rtorrent");
                command.args(["-n", "-o"]).arg(format!("import={}", home.join("rc").display()));
                command
            }
        };
        let log = File::create(home.join("log")).unwrap();
        command.env("HOME", &home).env("TERM", "dumb").stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        if child.is_err() {
            eprintln!("left out: {self:?} is not installed");
        }
        child.ok().map(Running)
    }
}

/// A private torrent of one file.
struct Torrent {
    name: String,
    bytes: Vec<u8>,
    hash: InfoHash,
    seed: u64,
}

impl Torrent {
    /// Lays the content in `dir`.
    fn new(dir: &Path, name: &str, seed: u64, scheme: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let path = dir.join(name);
        std::fs::write(&path, noise(seed, LEN)).unwrap();
        let url = format!("{scheme}://{TRACKER}:{TRACKER_PORT}/announce");
        let (_, torrent, hash) = make(&path, dir, &["--private", "--piece-length", "16384", "--tracker", &url]);
        let hash = InfoHash::from_hex(&hash).unwrap();
        Self { name: name.to_owned(), bytes: std::fs::read(torrent).unwrap(), hash, seed }
    }

    /// The `.torrent` for whoever is at `ip`: the tracker is at the same address.
    fn for_ip(&self, dir: &Path, ip: Ipv4Addr) -> PathBuf {
        let (old, new) = (TRACKER.to_string(), ip.to_string());
        assert_eq!(old.len(), new.len(), "so that it stays bencode");
        let mut bytes = self.bytes.clone();
        let at = bytes.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
        let path = dir.join(format!("{}-{new}.torrent", self.name));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// True once all of it is there, byte for byte.
    fn is_laid(&self, dir: &Path) -> bool {
        std::fs::read(dir.join(&self.name)).is_ok_and(|bytes| bytes == noise(self.seed, LEN))
    }
}

/// Seeders, completed, leechers, by UDP and HTTP, which must agree.
fn scraped(hash: InfoHash) -> (u32, u32, u32) {
    let to = SocketAddr::from((TRACKER, TRACKER_PORT));
    let by_udp = Asker::connect(TRACKER, to).scrape(&[hash])[0];
    let body = Web::connect(TRACKER, to).get(&format!("/scrape?info_hash={}", percent(&hash.0))).body;
    let by_http = parse_scrape(&body, &hash).unwrap().unwrap();
    let by_udp = (by_udp.seeders, by_udp.completed, by_udp.leechers);
    let by_http = (by_http.seeders.unwrap(), by_http.downloaded.unwrap(), by_http.leechers.unwrap());
    // They were not asked at the same time.
    if by_udp == by_http { by_udp } else { (u32::MAX, by_udp.1, by_http.1) }
}

fn wait_scraped(torrent: &Torrent, seeders: u32, completed: u32) {
    let mut last = None;
    let is_so = || {
        last = Some(scraped(torrent.hash));
        last == Some((seeders, completed, 0))
    };
    let what = format!("{}: {seeders} seeders, {completed} completed, no leecher", torrent.name);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait(&what, 60, is_so)));
    assert!(result.is_ok(), "it is {last:?}; those who download: {:?}", downloading(torrent.hash));
}

/// Whom the tracker tells a seeder of.
fn downloading(hash: InfoHash) -> Response {
    Asker::connect(TRACKER, (TRACKER, TRACKER_PORT).into()).announce(&announce(hash, 1, 0), "")
}

/// Both of the tracker's languages are spoken at every address.
fn listening() -> Vec<String> {
    let mut all = vec![TRACKER, OURS, GET];
    all.extend(Client::ALL.map(Client::ip));
    all.iter().map(|ip| format!("{ip}:{TRACKER_PORT}")).collect()
}

/// A tracker and nothing else, with the log at the path.
fn tracker_alone(log: &Path) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrent"));
    command.args(["tracker"]);
    for addr in listening() {
        command.args(["--udp", &addr, "--http", &addr]);
    }
    let log = File::create(log).unwrap();
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
    wait("it listens", 10, || TcpStream::connect((TRACKER, TRACKER_PORT)).is_ok());
    Running(child.unwrap())
}

fn daemon(dir: &Path, ip: Ipv4Addr, extra: &str) -> Daemon {
    Daemon::launch(dir, (ip, PEER_PORT).into(), "pex = false\n", extra)
}

fn everybody(scheme: &str, is_alone: bool) {
    let temp = tempfile::tempdir().unwrap();
    let dir = |name: &str| temp.path().join(name);
    let log = dir("tracker.log");
    let mut alone = is_alone.then(|| tracker_alone(&log));
    // The daemon that seeds is the tracker, too, unless that is one of its own.
    let here = listening();
    let extra = format!("[tracker]\nudp = {here:?}\nhttp = {here:?}\n");
    let seed = daemon(&dir("seed"), TRACKER, if is_alone { "" } else { &extra });
    let given = Torrent::new(&dir("given"), "given.bin", 1, scheme);
    seed.add(&given.for_ip(temp.path(), TRACKER), &format!("dir={}", dir("given").display()));
    wait_scraped(&given, 1, 0);

    let mut others = Vec::new();
    for client in Client::ALL {
        let home = dir(&format!("{client:?}"));
        let own = Torrent::new(&home, &format!("{client:?}.bin"), client as u64, scheme);
        let torrents = [given.for_ip(temp.path(), client.ip()), own.for_ip(temp.path(), client.ip())];
        if let Some(running) = client.start(&home, &torrents) {
            others.push((client, home, own, running));
        }
    }
    for (client, home, ..) in &others {
        wait(&format!("{client:?} has it by {scheme}"), 60, || given.is_laid(home));
    }
    for (_, _, own, _) in &others {
        wait_scraped(own, 1, 0);
    }
    let ours = daemon(&dir("ours"), OURS, "");
    for (_, _, own, _) in &others {
        ours.add(&own.for_ip(temp.path(), OURS), "");
    }
    let mut get = Command::new(env!("CARGO_BIN_EXE_swarmtorrent"));
    get.args(["get", "--no-dht", "-o"]).arg(dir("got")).arg(given.for_ip(temp.path(), GET));
    let got = get.stdout(Stdio::null()).status().unwrap();
    assert!(got.success() && given.is_laid(&dir("got")));
    for (client, _, own, _) in &others {
        wait(&format!("we have what {client:?} seeds by {scheme}"), 60, || own.is_laid(&dir("ours/downloads")));
        wait_scraped(own, 2, 1);
    }
    // Who came for a while has completed and is gone.
    wait_scraped(&given, 1 + others.len() as u32, 1 + others.len() as u32);
    assert_eq!(ours.terminate(), 0);
    others.iter().for_each(|(_, _, own, _)| wait_scraped(own, 1, 1));
    if let Some(mut tracker) = alone.take() {
        let pid = rustix::process::Pid::from_raw(i32::try_from(tracker.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert!(tracker.0.wait().unwrap().success());
        let told = std::fs::read_to_string(&log).unwrap();
        let swarms = format!("{} swarms, {} peers, ", others.len() + 1, 2 * others.len() + 1);
        assert!(told.lines().last().unwrap().starts_with(&swarms), "{told}");
    }
}

#[test]
fn all_meet_by_udp_at_a_tracker_that_is_nothing_else() {
    let name = "everybody::all_meet_by_udp_at_a_tracker_that_is_nothing_else";
    let mut addrs = vec![TRACKER, OURS, GET];
    addrs.extend(Client::ALL.map(Client::ip));
    in_a_network_of_its_own(name, &addrs, || everybody("udp", true));
}

#[test]
fn all_meet_by_http_at_a_daemon_that_seeds() {
    let mut addrs = vec![TRACKER, OURS, GET];
    addrs.extend(Client::ALL.map(Client::ip));
    let name = "everybody::all_meet_by_http_at_a_daemon_that_seeds";
    in_a_network_of_its_own(name, &addrs, || everybody("http", false));
}
