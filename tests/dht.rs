//! The DHT with real clients on loopback: who knows nothing but one node finds content by its hash, both ways.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{Daemon, Running, free_port, make, noise, wait};

/// It knows one node to begin with, and finds peers nowhere else.
const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
torrent, save, port, node = sys.argv[1:5]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': True, 'dht_bootstrap_nodes': '127.0.0.1:' + node,
    'dht_restrict_routing_ips': False, 'dht_restrict_search_ips': False, 'dht_enforce_node_id': False, 'dht_ignore_dark_internet': False,
    'enable_lsd': False, 'enable_upnp': False, 'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False,
    'allow_multiple_connections_per_ip': True, 'dht_announce_interval': 5, 'min_announce_interval': 5})
p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
h = s.add_torrent(p); h.resume()
while True:
    time.sleep(5)
    h.force_dht_announce()
";

fn libtorrent(torrent: &Path, dir: &Path, node: u16) -> Option<Running> {
    let has = Command::new("python3").args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("left out: libtorrent is not installed");
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-c", LIBTORRENT]).arg(torrent).arg(dir).args([free_port().to_string(), node.to_string()]);
    Some(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()))
}

fn daemon(dir: &Path, port: u16, node: u16) -> Daemon {
    let listen = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    Daemon::start_at(dir, listen, &format!("[dht]\nenabled = true\nbootstrap = [\"127.0.0.1:{node}\"]\n"))
}

#[test]
fn daemons_that_know_one_node_find_each_other() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("content.bin");
    std::fs::write(&path, noise(1, 3_000_000)).unwrap();
    let (st, _, _) = make(&path, temp.path(), &[]);
    let (first, second, third) = (free_port(), free_port(), free_port());
    // A node without torrents is enough to begin with.
    let begin = daemon(&temp.path().join("begin"), first, third);
    let seed = daemon(&temp.path().join("seed"), second, first);
    seed.add(&st, &format!("dir={}", temp.path().display()));
    seed.wait_state("seeding", 20);
    let leech = daemon(&temp.path().join("leech"), third, first);
    leech.add(&st, "");
    leech.wait_state("seeding", 60);
    assert_eq!(std::fs::read(temp.path().join("leech/downloads/content.bin")).unwrap(), noise(1, 3_000_000));
    let status = begin.json("status").remove(0);
    assert!(status["dht_nodes"].as_u64().unwrap() >= 2, "{status}");
    assert_eq!(leech.terminate(), 0);
    // What the first run knew is enough for the next.
    begin.kill();
    let leech = daemon(&temp.path().join("leech"), third, free_port());
    wait("it knows the seed's node", 20, || leech.json("status")[0]["dht_nodes"].as_u64().unwrap() >= 1);
}

#[test]
fn libtorrent_and_the_daemon_find_each_other() {
    let temp = tempfile::tempdir().unwrap();
    let (theirs, given) = (temp.path().join("theirs"), temp.path().join("given"));
    for dir in [&theirs, &given] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let path = theirs.join("content.bin");
    std::fs::write(&path, noise(2, 3_000_000)).unwrap();
    let (st, torrent, _) = make(&path, temp.path(), &[]);
    let first = free_port();
    let _begin = daemon(&temp.path().join("begin"), first, first);
    let Some(seeding) = libtorrent(&torrent, &theirs, first) else { return };
    let ours = daemon(&temp.path().join("ours"), free_port(), first);
    ours.add(&st, "");
    ours.wait_state("seeding", 90);
    drop(seeding);
    let _leeching = libtorrent(&torrent, &given, first).unwrap();
    let got = given.join("content.bin");
    wait("libtorrent has found us", 90, || std::fs::read(&got).is_ok_and(|bytes| bytes == noise(2, 3_000_000)));
}
