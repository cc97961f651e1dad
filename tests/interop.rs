//! Together with real clients, both ways, on loopback: transmission, aria2, libtorrent, rtorrent; and opentracker.
//!
//! The daemon has the `.st`, the others the `.torrent` that it converts to. A client that is not installed is left out, and the
//! test says so. The daemon dials the others, for some of them take no loopback address from anybody else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Daemon, Running, free_port, make, noise, wait};

/// A real client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Transmission,
    Aria2,
    Libtorrent,
    /// Which takes and begins ciphered connections only.
    LibtorrentRc4,
    Rtorrent,
}

const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
torrent, save, port = sys.argv[1], sys.argv[2], sys.argv[3]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'allow_multiple_connections_per_ip': True, **eval(sys.argv[4])})
p = lt.parse_magnet_uri(torrent) if torrent.startswith('magnet:') else lt.add_torrent_params()
if not torrent.startswith('magnet:'): p.ti = lt.torrent_info(torrent)
p.save_path = save
h = s.add_torrent(p); h.resume()
time.sleep(240)
";

impl Client {
    fn is_here(self) -> bool {
        let (program, argument) = match self {
            Self::Transmission => ("transmission-daemon", "--version"),
            Self::Aria2 => ("aria2c", "--version"),
            Self::Rtorrent => ("rtorrent", "-h"),
            Self::Libtorrent | Self::LibtorrentRc4 => {
                return python(&["-c", "import libtorrent"]).is_ok_and(|mut child| child.wait().unwrap().success());
            }
        };
        Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Starts it with the torrent, a file or a link; it seeds what lies in `dir`, or downloads to there.
    fn start(self, torrent: &Path, dir: &Path, port: u16) -> Running {
        let home = dir.join(".home");
        std::fs::create_dir_all(&home).unwrap();
        let (port, dir_text) = (port.to_string(), dir.to_str().unwrap());
        let mut command = match self {
            Self::Transmission => {
                std::fs::create_dir_all(home.join("watch")).unwrap();
                let rpc = free_port();
                if torrent.to_str().is_some_and(|text| text.starts_with("magnet:")) {
                    std::fs::write(home.join("rpc"), rpc.to_string()).unwrap();
                } else {
                    std::fs::copy(torrent, home.join("watch/made.torrent")).unwrap();
                }
                let settings = format!(
                    "{{\"download-dir\":\"{dir_text}\",\"watch-dir\":\"{0}/watch\",\"watch-dir-enabled\":true,\"peer-port\":{port},\
                     \"rpc-port\":{rpc},\"rpc-whitelist-enabled\":false,\"dht-enabled\":false,\"lpd-enabled\":false,\"utp-enabled\":false,\
                     \"pex-enabled\":false,\"port-forwarding-enabled\":false,\"bind-address-ipv4\":\"127.0.0.1\"}}",
                    home.display()
                );
                std::fs::write(home.join("settings.json"), settings).unwrap();
                let mut command = Command::new("transmission-daemon");
                command.args(["-f", "-g"]).arg(&home);
                command
            }
            Self::Aria2 => {
                let mut command = Command::new("aria2c");
                command.args([
                    "--enable-dht=false",
                    "--enable-dht6=false",
                    "--bt-enable-lpd=false",
                    "--seed-ratio=0.0",
                ]);
                command.args(["--check-integrity=true", "--allow-overwrite=true", "--file-allocation=none"]);
                command.arg(format!("--listen-port={port}")).arg(format!("--dir={dir_text}")).arg(torrent);
                command
            }
            Self::Rtorrent => {
                std::fs::create_dir_all(home.join("session")).unwrap();
                let (home, torrent) = (home.display(), torrent.display());
                let config = format!(
                    "directory.default.set = {dir_text}\nsession.path.set = {home}/session\nsystem.daemon.set = true\n\
                     network.port_range.set = {port}-{port}\nnetwork.port_random.set = no\ndht.mode.set = disable\n\
                     protocol.pex.set = no\ntrackers.use_udp.set = no\n\
                     schedule2 = load, 0, 0, \"load.start={torrent}\"\n"
                );
                std::fs::write(format!("{home}/rc"), config).unwrap();
                let mut command = Command::new("rtorrent");
                command.args(["-n", "-o"]).arg(format!("import={home}/rc"));
                command
            }
            Self::Libtorrent | Self::LibtorrentRc4 => {
                let ciphered = "{'in_enc_policy': 0, 'out_enc_policy': 0, 'allowed_enc_level': 2}";
                let settings = if self == Self::LibtorrentRc4 { ciphered } else { "{}" };
                let mut command = Command::new("python3");
                command.args(["-c", LIBTORRENT]).arg(torrent).args([dir_text, &port, settings]);
                command
            }
        };
        let log = std::fs::File::create(home.join("log")).unwrap();
        command
            .env("HOME", &home)
            .env("TERM", "dumb")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Running(command.spawn().unwrap())
    }
}

fn python(args: &[&str]) -> std::io::Result<Child> {
    Command::new("python3").args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Content: paths and lengths; in a directory if there is more than one file.
type Files = Vec<(&'static str, usize)>;

/// Files of odd lengths, an empty one, one below another directory. `SWARMTORRENT_INTEROP_MIB` makes the first one longer.
fn set() -> Files {
    let mib: usize = std::env::var("SWARMTORRENT_INTEROP_MIB").map_or(11, |text| text.parse().unwrap());
    vec![("set/a.bin", (mib << 20) + 812_345), ("set/empty", 0), ("set/deep/er/b.bin", 8_765_431), ("set/deep/c", 5)]
}

/// Writes the content below `dir`; the path to make a torrent of.
fn lay(dir: &Path, files: &Files) -> PathBuf {
    for &(name, len) in files {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.join(name), noise(len as u64, len)).unwrap();
    }
    dir.join(files[0].0.split('/').next().unwrap())
}

/// True once all of it is there, byte for byte. The lengths are looked at first.
fn is_laid(dir: &Path, files: &Files) -> bool {
    let is_long = |&(name, len): &(&str, usize)| {
        std::fs::metadata(dir.join(name)).is_ok_and(|metadata| metadata.len() == len as u64)
    };
    let is_right =
        |&(name, len): &(&str, usize)| std::fs::read(dir.join(name)).is_ok_and(|bytes| bytes == noise(len as u64, len));
    files.iter().all(is_long) && files.iter().rev().all(is_right)
}

/// The daemon gets from the client, then another daemon gives to another one of the kind.
fn both_ways(client: Client, files: &Files) {
    if !client.is_here() {
        eprintln!("left out: {client:?} is not installed");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (theirs, given) = (temp.path().join("theirs"), temp.path().join("given"));
    std::fs::create_dir_all(&given).unwrap();
    // Without DHT rtorrent refuses a torrent that has no tracker; nobody listens at this one.
    let tracker = format!("http://127.0.0.1:{}/announce", free_port());
    let (st, torrent, _) =
        make(&lay(&theirs, files), temp.path(), &["--piece-length", "131072", "--tracker", &tracker]);

    let port = free_port();
    let seeding = client.start(&torrent, &theirs, port);
    let ours = Daemon::start(&temp.path().join("ours"), "");
    ours.add(&st, "");
    wait("the client gives us everything", 120, || {
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        ours.torrent()["state"] == "seeding"
    });
    assert!(is_laid(&temp.path().join("ours/downloads"), files), "from {client:?}");
    assert_eq!(ours.torrent()["downloaded"], ours.torrent()["size"], "nothing came twice from {client:?}");
    drop(seeding);

    let port = free_port();
    let leeching = client.start(&torrent, &given, port);
    wait("the client gets everything from us", 120, || {
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        if client == Client::Transmission {
            // It makes no file of no bytes.
            let _ = std::fs::write(given.join("set/empty"), "");
        }
        is_laid(&given, files)
    });
    drop(leeching);
    assert_eq!(ours.terminate(), 0);
}

/// The daemon gets from the client what it knows by a link alone, then another of the kind gets it so from the daemon.
fn both_ways_by_link(client: Client) {
    if !client.is_here() {
        eprintln!("left out: {client:?} is not installed");
        return;
    }
    let files = set();
    let temp = tempfile::tempdir().unwrap();
    let (theirs, given) = (temp.path().join("theirs"), temp.path().join("given"));
    std::fs::create_dir_all(&given).unwrap();
    // Hashes enough that the description takes more than one message.
    let (_, torrent, hash) = make(&lay(&theirs, &files), temp.path(), &["--piece-length", "16384"]);
    let link = format!("magnet:?xt=urn:btih:{hash}&dn=set");

    let port = free_port();
    let seeding = client.start(&torrent, &theirs, port);
    let ours = Daemon::start(&temp.path().join("ours"), "");
    ours.ask(&format!("add \"{link}&x.pe=127.0.0.1:{port}\""));
    wait("the client gives us everything", 120, || {
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        ours.torrent()["state"] == "seeding"
    });
    assert!(is_laid(&temp.path().join("ours/downloads"), &files), "from {client:?}");
    drop(seeding);

    let port = free_port();
    let leeching = client.start(Path::new(&link), &given, port);
    wait("the client gets everything from us", 120, || {
        if let Ok(rpc) = std::fs::read_to_string(given.join(".home/rpc")) {
            // It takes no link but by this; again is no harm.
            let remote = Command::new("transmission-remote").args([&rpc, "-a", &link]).stdout(Stdio::null()).status();
            assert!(remote.is_ok(), "transmission-remote comes with transmission-cli");
        }
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        if client == Client::Transmission && given.join("set").is_dir() {
            // It makes no file of no bytes.
            let _ = std::fs::write(given.join("set/empty"), "");
        }
        is_laid(&given, &files)
    });
    drop(leeching);
    assert_eq!(ours.terminate(), 0);
}

#[test]
fn transmission_gives_and_gets_by_a_link() {
    both_ways_by_link(Client::Transmission);
}

#[test]
fn aria2_gives_and_gets_by_a_link() {
    both_ways_by_link(Client::Aria2);
}

#[test]
fn libtorrent_gives_and_gets_by_a_link() {
    both_ways_by_link(Client::Libtorrent);
}

#[test]
fn transmission_gives_and_gets() {
    both_ways(Client::Transmission, &set());
}

#[test]
fn aria2_gives_and_gets() {
    both_ways(Client::Aria2, &set());
}

#[test]
fn libtorrent_gives_and_gets() {
    both_ways(Client::Libtorrent, &set());
}

#[test]
fn rtorrent_gives_and_gets() {
    both_ways(Client::Rtorrent, &set());
}

#[test]
fn libtorrent_gives_and_gets_ciphered() {
    both_ways(Client::LibtorrentRc4, &set());
}

#[test]
fn libtorrent_gives_and_gets_a_single_file() {
    both_ways(Client::Libtorrent, &vec![("one.bin", 20 * 1024 * 1024 + 1)]);
}

/// Two daemons find one another by opentracker, over HTTP or UDP.
fn by_opentracker(scheme: &str) {
    let here = Command::new("opentracker").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !here {
        eprintln!("left out: opentracker is not installed");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let url =
        if scheme == "udp" { format!("udp://127.0.0.1:{port}") } else { format!("http://127.0.0.1:{port}/announce") };
    let home = temp.path().join("seeder");
    let (st, _, hash) = make(&lay(&home.join("downloads"), &set()), temp.path(), &["--tracker", &url]);
    let (list, config) = (temp.path().join("list"), temp.path().join("opentracker.conf"));
    std::fs::write(&list, format!("{hash}\n")).unwrap();
    std::fs::write(&config, format!("listen.tcp_udp 127.0.0.1:{port}\naccess.whitelist {}\n", list.display())).unwrap();
    let tracker =
        Command::new("opentracker").arg("-f").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _tracker = Running(tracker.unwrap());
    let seeder = Daemon::start(&home, "");
    seeder.add(&st, "");
    wait("the tracker knows the seeder", 30, || seeder.json("trackers all")[0]["state"] == "working");
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    leecher.wait_state("seeding", 40);
    assert!(is_laid(&temp.path().join("leecher/downloads"), &set()));
    assert_eq!(leecher.terminate(), 0);
}

#[test]
fn peers_meet_by_opentracker_over_http() {
    by_opentracker("http");
}

#[test]
fn peers_meet_by_opentracker_over_udp() {
    by_opentracker("udp");
}
