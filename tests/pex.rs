//! Peer exchange with a real client on loopback: somebody is known to one of two only, and the other one meets him, both ways.
//!
//! The third one is a daemon that has no exchange itself: whoever meets it was told of it by the one in the middle.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Daemon, Running, free_port, make, noise, wait};

/// Too much to be exchanged at [`SLOW`] while the test lasts: nobody leaves because there is nothing more to be had.
const LEN: usize = 20 << 20;
const SLOW: &str = "30K";

/// It finds peers by exchange only, and dials those that it is given.
const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
torrent, save, port = sys.argv[1:4]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'allow_multiple_connections_per_ip': True})
p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
h = s.add_torrent(p); h.resume()
while True:
    for other in sys.argv[4:]:
        h.connect_peer(('127.0.0.1', int(other)))
    time.sleep(1)
";

fn is_here() -> bool {
    let status = Command::new("python3").args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    let is_here = status.is_ok_and(|status| status.success());
    if !is_here {
        eprintln!("left out: libtorrent is not installed");
    }
    is_here
}

fn libtorrent(torrent: &Path, dir: &Path, port: u16, others: &[u16]) -> Running {
    std::fs::create_dir_all(dir).unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", LIBTORRENT]).arg(torrent).arg(dir).arg(port.to_string());
    command.args(others.iter().map(u16::to_string));
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
}

/// Content in a directory of its own, its `.st`, and its `.torrent`.
fn content(temp: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let dir = temp.join("given");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("content.bin"), noise(3, LEN)).unwrap();
    let (st, torrent, _) = make(&dir.join("content.bin"), temp, &[]);
    (dir, st, torrent)
}

/// Whether `daemon` has a peer at `port` that it knows from `source`; of any port if none is given.
fn has_peer(daemon: &Daemon, port: Option<u16>, client: &str, source: &str) -> bool {
    let is_meant = |row: &serde_json::Value| {
        let at = row["addr"].as_str().unwrap();
        port.is_none_or(|port| at == format!("127.0.0.1:{port}"))
            && row["client"].as_str().unwrap().to_lowercase().contains(client)
            && row["source"] == source
    };
    daemon.json("peers all").iter().any(is_meant)
}

#[test]
fn libtorrent_meets_by_us_whom_nobody_else_told_it_of() {
    if !is_here() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, st, torrent) = content(temp.path());
    let middle = Daemon::start(&temp.path().join("middle"), &format!("[limits]\nup = \"{SLOW}\"\n"));
    middle.add(&st, &format!("dir={}", dir.display()));
    middle.wait_state("seeding", 30);
    let third = Daemon::start_with_peers(&temp.path().join("third"), "pex = false\n");
    third.add(&st, "");
    let port = free_port();
    let _theirs = libtorrent(&torrent, &temp.path().join("theirs"), port, &[]);
    for port in [third.listen.port(), port] {
        wait("the one in the middle has met both", 30, || {
            middle.ask(&format!("connect all 127.0.0.1:{port}"));
            has_peer(&middle, Some(port), "", "user")
        });
    }
    wait("libtorrent dials whom we told it of", 60, || has_peer(&third, None, "libtorrent", "incoming"));
    assert_eq!(third.terminate(), 0);
    assert_eq!(middle.terminate(), 0);
}

#[test]
fn we_meet_by_libtorrent_whom_nobody_else_told_us_of() {
    if !is_here() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (dir, st, torrent) = content(temp.path());
    let slow = format!("[limits]\ndown = \"{SLOW}\"\n");
    let third = Daemon::launch(
        &temp.path().join("third"),
        std::net::SocketAddr::from(([127, 0, 0, 1], free_port())),
        "pex = false\n",
        &slow,
    );
    let ours = Daemon::start(&temp.path().join("ours"), &slow);
    for daemon in [&third, &ours] {
        daemon.add(&st, "");
    }
    let port = free_port();
    let _middle = libtorrent(&torrent, &dir, port, &[third.listen.port()]);
    wait("the one in the middle has met the third", 60, || has_peer(&third, None, "libtorrent", "incoming"));
    wait("we have met the one in the middle", 30, || {
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        has_peer(&ours, Some(port), "libtorrent", "user")
    });
    wait("we dial whom libtorrent told us of", 150, || {
        has_peer(&ours, Some(third.listen.port()), "swarmtorrent", "pex")
    });
    assert_eq!(ours.terminate(), 0);
    assert_eq!(third.terminate(), 0);
}
