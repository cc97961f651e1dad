//! Together with real clients, both ways, on loopback: transmission, aria2, libtorrent; and opentracker.
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
}

const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
torrent, save, port = sys.argv[1], sys.argv[2], sys.argv[3]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'allow_multiple_connections_per_ip': True})
p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
h = s.add_torrent(p); h.resume()
time.sleep(120)
";

impl Client {
    fn is_here(self) -> bool {
        let (program, argument) = match self {
            Self::Transmission => ("transmission-daemon", "--version"),
            Self::Aria2 => ("aria2c", "--version"),
            Self::Libtorrent => {
                return python(&["-c", "import libtorrent"]).is_ok_and(|mut child| child.wait().unwrap().success());
            }
        };
        Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Starts it with the torrent; it seeds what lies in `dir`, or downloads to there.
    fn start(self, torrent: &Path, dir: &Path, port: u16) -> Running {
        let home = dir.join(".home");
        std::fs::create_dir_all(&home).unwrap();
        let (port, dir_text) = (port.to_string(), dir.to_str().unwrap());
        let mut command = match self {
            Self::Transmission => {
                std::fs::create_dir_all(home.join("watch")).unwrap();
                std::fs::copy(torrent, home.join("watch/made.torrent")).unwrap();
                let rpc = free_port();
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
            Self::Libtorrent => {
                let mut command = Command::new("python3");
                command.args(["-c", LIBTORRENT]).arg(torrent).args([dir_text, &port]);
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

/// A directory of content: files of odd lengths, an empty one, one below another directory.
fn lay(dir: &Path) -> PathBuf {
    let root = dir.join("set");
    std::fs::create_dir_all(root.join("deep/er")).unwrap();
    for (name, len) in [("a.bin", 12_345_677), ("empty", 0), ("deep/er/b.bin", 8_765_431), ("deep/c", 5)] {
        std::fs::write(root.join(name), noise(len as u64, len)).unwrap();
    }
    root
}

fn is_laid(dir: &Path) -> bool {
    [("a.bin", 12_345_677), ("empty", 0), ("deep/er/b.bin", 8_765_431), ("deep/c", 5)].iter().all(|&(name, len)| {
        std::fs::read(dir.join("set").join(name)).is_ok_and(|bytes| bytes == noise(len as u64, len))
    })
}

/// The daemon gets from the client, then another daemon gives to another one of the kind.
fn both_ways(client: Client) {
    if !client.is_here() {
        eprintln!("left out: {client:?} is not installed");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (theirs, given) = (temp.path().join("theirs"), temp.path().join("given"));
    std::fs::create_dir_all(&given).unwrap();
    let (st, torrent, _) = make(&lay(&theirs), temp.path(), &["--piece-length", "131072"]);

    let port = free_port();
    let seeding = client.start(&torrent, &theirs, port);
    let ours = Daemon::start(&temp.path().join("ours"), "");
    ours.add(&st, "");
    wait("the client gives us everything", 60, || {
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        ours.torrent()["state"] == "seeding"
    });
    assert!(is_laid(&temp.path().join("ours/downloads")), "from {client:?}");
    assert_eq!(ours.torrent()["downloaded"], ours.torrent()["size"], "nothing came twice from {client:?}");
    drop(seeding);

    let port = free_port();
    let leeching = client.start(&torrent, &given, port);
    wait("the client gets everything from us", 90, || {
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        if client == Client::Transmission {
            // It makes no file of no bytes.
            let _ = std::fs::write(given.join("set/empty"), "");
        }
        is_laid(&given)
    });
    drop(leeching);
    assert_eq!(ours.terminate(), 0);
}

#[test]
fn transmission_gives_and_gets() {
    both_ways(Client::Transmission);
}

#[test]
fn aria2_gives_and_gets() {
    both_ways(Client::Aria2);
}

#[test]
fn libtorrent_gives_and_gets() {
    both_ways(Client::Libtorrent);
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
    let (st, _, hash) = make(&lay(&home.join("downloads")), temp.path(), &["--tracker", &url]);
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
    assert!(is_laid(&temp.path().join("leecher/downloads")));
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
