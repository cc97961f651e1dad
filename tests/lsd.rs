//! Local service discovery with real programs: who knows nobody and has no tracker finds who is in the same network.
//!
//! The network is made here: two namespaces and two cables between them, which needs root and `ip`. Where they cannot be had the test
//! says so. What happens on one machine is tried on loopback.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

mod common;

use common::{Daemon, Running, free_port, make, noise, wait};
use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::codec::lsd::{GROUPS, Search};

const LEN: usize = 3_000_000;
const ON: &str = "lsd = true\n";
/// The interfaces of a machine, each a cable's end.
const CABLES: [&str; 2] = ["lan", "spare"];

/// Two machines and two cables between them.
struct Network(String);

impl Network {
    /// One with IPv4 addresses, or one where nobody has more than the link-local IPv6 addresses that come by themselves.
    fn new(v6: bool) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let network = Self(format!("lsd-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
        let (a, b) = (network.name(0), network.name(1));
        let cables = CABLES.map(|cable| format!("link add {cable} netns {a} type veth peer name {cable} netns {b}"));
        let machines = [format!("netns add {a}"), format!("netns add {b}")];
        if !machines.iter().chain(&cables).all(|line| ip(line)) {
            eprintln!("left out: no network can be made here");
            return None;
        }
        for end in 0..2 {
            let name = network.name(end);
            assert!(ip(&format!("-n {name} link set lo up")));
            for (net, cable) in CABLES.iter().enumerate() {
                assert!(ip(&format!("-n {name} link set {cable} up")));
                if !v6 {
                    assert!(ip(&format!("-n {name} addr add 10.99.{net}.{}/24 dev {cable}", end + 1)));
                }
            }
            // Some clients leave it to the routes where they are heard.
            assert!(v6 || ip(&format!("-n {name} route add default dev {}", CABLES[0])));
        }
        let is_good = |end| {
            let args = ["-n", &network.name(end), "-6", "addr", "show"];
            let told = String::from_utf8(Command::new("ip").args(args).output().unwrap().stdout).unwrap();
            !told.contains("tentative") && (!v6 || told.matches("fe80").count() == CABLES.len())
        };
        wait("the addresses are good", 20, || is_good(0) && is_good(1));
        Some(network)
    }

    fn name(&self, end: usize) -> String {
        format!("{}-{end}", self.0)
    }

    /// A program on one of the machines.
    fn command(&self, end: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(end), program]);
        command
    }

    /// A daemon there, that listens at every address of one family.
    fn daemon(&self, end: usize, dir: &Path, v6: bool) -> Daemon {
        let listen: SocketAddr = if v6 { "[::]:6881" } else { "0.0.0.0:6881" }.parse().unwrap();
        Daemon::launch_by(self.command(end, env!("CARGO_BIN_EXE_swarmtorrentd")), dir, listen, ON, "")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for end in 0..2 {
            let _ = ip(&format!("netns del {}", self.name(end)));
        }
    }
}

fn ip(line: &str) -> bool {
    let status = Command::new("ip").args(line.split(' ')).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn stat(daemon: &Daemon, name: &str) -> Option<u64> {
    let lines = daemon.ask("stats");
    lines.iter().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// A torrent of `dir/name`, without trackers.
fn made(dir: &Path, name: &str, seed: u64, extra: &[&str]) -> std::path::PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join(name), noise(seed, LEN)).unwrap();
    let out = dir.join(format!("{name}-made"));
    std::fs::create_dir_all(&out).unwrap();
    make(&dir.join(name), &out, extra).1
}

fn is_given(path: &Path, seed: u64) -> bool {
    std::fs::metadata(path).is_ok_and(|file| file.len() == LEN as u64)
        && std::fs::read(path).is_ok_and(|bytes| bytes == noise(seed, LEN))
}

/// Two daemons with nothing but the cables between them.
fn neighbours_find_one_another(v6: bool) {
    let Some(network) = Network::new(v6) else { return };
    let temp = tempfile::tempdir().unwrap();
    let content = temp.path().join("content");
    let secret = made(&content, "secret", 1, &["--private"]);
    let open = made(&content, "open", 2, &[]);
    let seeder = network.daemon(0, &temp.path().join("seeder"), v6);
    let leecher = network.daemon(1, &temp.path().join("leecher"), v6);
    // The private one first: were it told of, it would be in the same datagram.
    for torrent in [&secret, &open] {
        seeder.add(torrent, &format!("dir={}", content.display()));
    }
    wait("it seeds both", 30, || seeder.json("list seeding").len() == 2);
    for torrent in [&secret, &open] {
        leecher.add(torrent, "");
    }
    wait("the open one is given", 60, || is_given(&temp.path().join("leecher/downloads/open"), 2));
    wait("it knows that it has it", 20, || leecher.json("list seeding").len() == 1);
    let waiting = leecher.json("list downloading");
    assert_eq!(
        (&waiting[0]["name"], &waiting[0]["have_bytes"], &waiting[0]["peers"]),
        (&"secret".into(), &0.into(), &0.into())
    );
    assert!(stat(&seeder, "lsd.peers").unwrap() + stat(&leecher, "lsd.peers").unwrap() >= 1);
    for daemon in [&seeder, &leecher] {
        assert!(stat(daemon, "lsd.announces").unwrap() >= 1);
        assert_eq!(stat(daemon, "multicast_sockets"), Some(CABLES.len() as u64), "on the cables, not on loopback");
        assert_eq!(stat(daemon, "multicast_failed"), Some(0));
        // Its own came back, and the neighbour's: no more came than both have sent.
        let [sent, others] = [&seeder, &leecher].map(|daemon| stat(daemon, "multicast_sent").unwrap());
        assert!(stat(daemon, "multicast_received").unwrap() <= sent + others);
    }
    assert_eq!((leecher.terminate(), seeder.terminate()), (0, 0));
}

#[test]
fn neighbours_find_one_another_by_ipv4() {
    neighbours_find_one_another(false);
}

#[test]
fn neighbours_find_one_another_by_link_local_ipv6() {
    neighbours_find_one_another(true);
}

/// Everybody on loopback has one address, and what is heard from one address is bounded: who floods must be alone there.
static LOOPBACK: Mutex<()> = Mutex::new(());

#[test]
fn daemons_of_one_machine_find_one_another_unless_they_must_not() {
    let _alone = LOOPBACK.lock();
    let temp = tempfile::tempdir().unwrap();
    let content = temp.path().join("content");
    let torrent = made(&content, "open", 3, &[]);
    let seeder = Daemon::start_with_peers(&temp.path().join("seeder"), ON);
    let leecher = Daemon::start_with_peers(&temp.path().join("leecher"), ON);
    let silent = Daemon::start_with_peers(&temp.path().join("silent"), "lsd = false\n");
    seeder.add(&torrent, &format!("dir={}", content.display()));
    silent.add(&torrent, "");
    leecher.add(&torrent, "");
    leecher.wait_state("seeding", 60);
    assert!(is_given(&temp.path().join("leecher/downloads/open"), 3));
    assert_eq!((silent.torrent()["peers"].as_u64(), stat(&silent, "multicast_sockets")), (Some(0), Some(0)));
    assert_eq!((stat(&silent, "lsd.announces"), stat(&silent, "peers.accepted")), (None, Some(0)));
}

#[test]
fn a_neighbour_who_floods_is_heard_a_little() {
    let _alone = LOOPBACK.lock();
    let temp = tempfile::tempdir().unwrap();
    let torrent = made(&temp.path().join("content"), "open", 4, &[]);
    let daemon = Daemon::start_with_peers(temp.path(), ON);
    daemon.add(&torrent, "");
    wait("it listens", 20, || stat(&daemon, "multicast_sockets") == Some(1));
    let hash = daemon.torrent()["id"].as_str().unwrap().to_owned();
    let info_hashes = vec![Sha1Hash::from_hex(&hash).unwrap()];
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket2::SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    let mut packet = Vec::new();
    // Nobody listens at these ports; some of them are dialled.
    let mut ports = (1..=u16::MAX).cycle();
    wait("they are dropped", 20, || {
        for port in ports.by_ref().take(100) {
            Search { port, info_hashes: info_hashes.clone(), cookie: None }.write(false, &mut packet);
            socket.send_to(&packet, GROUPS[0]).unwrap();
            socket.send_to(&packet[..packet.len() / 2], GROUPS[0]).unwrap();
        }
        stat(&daemon, "lsd.refused") > Some(1000)
    });
    let heard = stat(&daemon, "lsd.heard").unwrap();
    assert!((1..=100).contains(&heard), "{heard} were heard");
    assert_eq!(stat(&daemon, "lsd.peers"), Some(heard));
    assert_eq!(daemon.terminate(), 0);
}

/// It finds peers by the local network and by nothing else.
const LIBTORRENT: &str = "
import libtorrent as lt, sys, time
torrent, save, port = sys.argv[1:4]
s = lt.session({'listen_interfaces': '0.0.0.0:' + port + ',[::]:' + port, 'enable_lsd': True, 'enable_dht': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'alert_mask': 0})
p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
h = s.add_torrent(p); h.resume()
time.sleep(240)
";

fn libtorrent(network: &Network, torrent: &Path, dir: &Path, port: u16) -> Option<Running> {
    let has = Command::new("python3").args(["-c", "import libtorrent"]).stderr(Stdio::null()).status();
    if !has.is_ok_and(|status| status.success()) {
        eprintln!("left out: libtorrent is not installed");
        return None;
    }
    let mut command = network.command(1, "python3");
    command.args(["-c", LIBTORRENT]).arg(torrent).arg(dir).arg(port.to_string());
    Some(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()))
}

fn transmission(network: &Network, torrent: &Path, dir: &Path, port: u16) -> Option<Running> {
    if Command::new("transmission-daemon").arg("--version").stderr(Stdio::null()).status().is_err() {
        eprintln!("left out: transmission-daemon is not installed");
        return None;
    }
    let home = dir.join(".home");
    std::fs::create_dir_all(home.join("watch")).unwrap();
    std::fs::copy(torrent, home.join("watch/made.torrent")).unwrap();
    let settings = format!(
        "{{\"download-dir\":\"{}\",\"watch-dir\":\"{}/watch\",\"watch-dir-enabled\":true,\"peer-port\":{port},\"rpc-port\":{},\
         \"lpd-enabled\":true,\"dht-enabled\":false,\"utp-enabled\":false,\"pex-enabled\":false,\"port-forwarding-enabled\":false}}",
        dir.display(),
        home.display(),
        free_port()
    );
    std::fs::write(home.join("settings.json"), settings).unwrap();
    let mut command = network.command(1, "transmission-daemon");
    command.args(["-f", "-g"]).arg(&home).env("HOME", &home);
    Some(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()))
}

/// The daemon, which comes later, gets from the client; another client, which comes later, gets from the daemon. It listens at
/// another port: who had everything at the first one is not called again.
fn both_ways(v6: bool, start: impl Fn(&Network, &Path, &Path, u16) -> Option<Running>) {
    let Some(network) = Network::new(v6) else { return };
    let temp = tempfile::tempdir().unwrap();
    let (theirs, given) = (temp.path().join("theirs"), temp.path().join("given"));
    std::fs::create_dir_all(&given).unwrap();
    let torrent = made(&theirs, "open", 5, &[]);
    let Some(seeding) = start(&network, &torrent, &theirs, 6882) else { return };
    let ours = network.daemon(0, &temp.path().join("ours"), v6);
    ours.add(&torrent, "");
    ours.wait_state("seeding", 90);
    assert!(is_given(&temp.path().join("ours/downloads/open"), 5));
    drop(seeding);
    let peers = stat(&ours, "lsd.peers").unwrap();
    let _leeching = start(&network, &torrent, &given, 6883).unwrap();
    wait("the client gets everything from us", 90, || is_given(&given.join("open"), 5));
    wait("it was heard", 90, || stat(&ours, "lsd.peers").unwrap() > peers);
    assert_eq!(ours.terminate(), 0);
}

#[test]
fn libtorrent_and_the_daemon_find_each_other_by_ipv4() {
    both_ways(false, libtorrent);
}

#[test]
fn libtorrent_and_the_daemon_find_each_other_by_link_local_ipv6() {
    both_ways(true, libtorrent);
}

#[test]
fn transmission_and_the_daemon_find_each_other() {
    both_ways(false, transmission);
}
