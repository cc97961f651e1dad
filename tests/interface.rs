//! `[peers] interface`: whatever happens to it, nothing leaves by another way.
//!
//! Two machines, made of namespaces, and two cables between them: `tun`, which the daemon must use, and `eth`, by which everything could
//! be reached as well. What passes on either is captured at its far end. It needs root and `ip`; where they cannot be had the tests say so.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

mod common;

use common::{CAPTURE, Daemon, Running, ip, make, noise, wait};

const LEN: usize = 6_000_000;

/// Two machines, 0 ours and 1 the others', and the cable `eth` between them; `tun` comes and goes.
struct Network {
    name: String,
    v6: bool,
    captures: Vec<Running>,
    dir: PathBuf,
}

impl Network {
    fn new(v6: bool, dir: &Path) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("guard-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let network = Self { name, v6, captures: Vec::new(), dir: dir.to_owned() };
        let (a, b) = (network.end(0), network.end(1));
        if ![format!("netns add {a}"), format!("netns add {b}")].iter().all(|line| ip(line)) {
            eprintln!("left out: no network can be made here");
            return None;
        }
        // Name servers are asked over there.
        let etc = network.etc();
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(etc.join("resolv.conf"), format!("nameserver {}\n", network.addr("tun", 1))).unwrap();
        for end in [&a, &b] {
            assert!(ip(&format!("-n {end} link set lo up")));
        }
        network.lay("eth");
        let gateway = network.addr("eth", 1);
        assert!(ip(&format!("-n {a} route add default via {gateway}")));
        Some(network)
    }

    fn etc(&self) -> PathBuf {
        PathBuf::from(format!("/etc/netns/{}", self.end(0)))
    }

    fn end(&self, end: usize) -> String {
        format!("{}-{end}", self.name)
    }

    fn addr(&self, cable: &str, end: usize) -> String {
        let net = if cable == "tun" { 8 } else { 9 };
        if self.v6 { format!("fd9{net}::{}", end + 1) } else { format!("10.9{net}.0.{}", end + 1) }
    }

    /// Lays a cable, with addresses.
    fn lay(&self, cable: &str) {
        let (a, b) = (self.end(0), self.end(1));
        assert!(ip(&format!("link add {cable} netns {a} type veth peer name {cable} netns {b}")));
        for end in 0..2 {
            assert!(ip(&format!("-n {} link set {cable} up", self.end(end))));
            self.address(cable, end);
        }
    }

    fn address(&self, cable: &str, end: usize) {
        let (name, addr) = (self.end(end), self.addr(cable, end));
        let (len, how) = if self.v6 { (64, " nodad") } else { (24, "") };
        // What it still has is fine.
        let _ = ip(&format!("-n {name} addr add {addr}/{len} dev {cable}{how}"));
    }

    /// Watches what comes out of `cable` on the other side.
    fn capture(&mut self, cable: &str) {
        let file = self.dir.join(cable);
        let mut command = self.command(1, "python3");
        // It ends with the cable.
        command.args(["-c", CAPTURE, cable]).arg(&file).stdin(Stdio::null()).stderr(Stdio::null());
        self.captures.push(Running(command.spawn().unwrap()));
        let lines = self.captured(cable).len();
        wait("it is captured", 20, || {
            std::fs::read_to_string(&file).is_ok_and(|text| text.lines().filter(|line| *line == "ready").count() > 0)
                && self.captured(cable).len() >= lines
        });
    }

    /// Protocol, address and port of each packet.
    fn captured(&self, cable: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join(cable)).unwrap_or_default();
        text.lines().filter(|line| *line != "ready").map(str::to_owned).collect()
    }

    fn command(&self, end: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.end(end), program]);
        command
    }

    fn daemon(&self, end: usize, dir: &Path, keys: &str, extra: &str) -> Daemon {
        let listen: SocketAddr = if self.v6 { "[::]:6881" } else { "0.0.0.0:6881" }.parse().unwrap();
        Daemon::launch_by(self.command(end, env!("CARGO_BIN_EXE_swarmtorrentd")), dir, listen, keys, extra)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.captures.clear();
        for end in 0..2 {
            let _ = ip(&format!("netns del {}", self.end(end)));
        }
        let _ = std::fs::remove_dir_all(self.etc());
    }
}

fn host(addr: &str) -> String {
    if addr.contains(':') { format!("[{addr}]") } else { addr.to_owned() }
}

fn stands_still(daemon: &Daemon, what: &str) {
    wait(what, 10, || daemon.json("status")[0]["trouble"].as_str().is_some_and(|trouble| trouble.contains(what)));
    let why = daemon.ask("why all");
    assert!(why[0].contains(what) && why[0].contains("`interface`"), "{why:?}");
    assert_eq!(daemon.json("status")[0]["connections"], 0);
}

/// What could make it speak, for as long as something might be on its way.
#[expect(clippy::disallowed_methods, reason = "that nothing happens takes its time")]
fn provoke(network: &Network, daemon: &Daemon) {
    let have = daemon.torrent()["have_bytes"].clone();
    for _ in 0..3 {
        daemon.ask("announce all");
        for cable in ["tun", "eth"] {
            daemon.ask(&format!("connect all {}:6881", host(&network.addr(cable, 1))));
        }
        daemon.ask("connect all somebody.example:6881");
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(daemon.torrent()["have_bytes"], have);
    assert_eq!(network.captured("eth"), [""; 0]);
}

fn nothing_leaves_by_another_way(v6: bool) {
    let temp = tempfile::tempdir().unwrap();
    let Some(mut network) = Network::new(v6, temp.path()) else { return };
    network.capture("eth");
    let tracker = host(&network.addr("tun", 1));
    let content = temp.path().join("seed/downloads/content");
    std::fs::create_dir_all(content.parent().unwrap()).unwrap();
    std::fs::write(&content, noise(3, LEN)).unwrap();
    let trackers = [
        format!("http://{tracker}:6969/announce"),
        format!("udp://{tracker}:6969/announce"),
        "http://tracker.example/announce".to_owned(),
    ];
    let trackers: Vec<&str> = trackers.iter().flat_map(|url| ["--tracker", url.as_str()]).collect();
    let (st, _, _) = make(&content, temp.path(), &trackers);

    // Nothing is there yet.
    let everything =
        format!("[trackers]\nannounce_to_all = true\n[dht]\nbootstrap = [\"{tracker}:6881\", \"node.example:1\"]\n");
    let keys = "interface = \"tun\"\nlsd = true\n";
    let ours = network.daemon(0, &temp.path().join("ours"), keys, &everything);
    ours.add(&st, "");
    ours.ask("limit down 500K");
    stands_still(&ours, "tun is not there");
    provoke(&network, &ours);
    assert_eq!(ours.log().matches("tun is not there").count(), 1, "it is said once");

    let listen = if v6 { "[::]:6969" } else { "0.0.0.0:6969" };
    let server =
        format!("[tracker]\nudp = [\"{listen}\"]\nhttp = [\"{listen}\"]\n[dht]\nenabled = true\nbootstrap = []\n");
    network.lay("tun");
    network.capture("tun");
    let seed = network.daemon(1, &temp.path().join("seed"), "lsd = true\n", &server);
    seed.add(&st, "");
    let goes_on = |ours: &Daemon| {
        let have = ours.torrent()["have_bytes"].as_u64().unwrap();
        wait("it goes on", 60, || ours.torrent()["have_bytes"].as_u64().unwrap() > have);
        assert_eq!(ours.json("status")[0]["trouble"], serde_json::Value::Null);
    };
    goes_on(&ours);

    // Down, in the middle of a download.
    let a = network.end(0);
    assert!(ip(&format!("-n {a} link set tun down")));
    stands_still(&ours, "tun is down");
    provoke(&network, &ours);
    assert!(ip(&format!("-n {a} link set tun up")));
    network.address("tun", 0);
    goes_on(&ours);

    // Renamed: the same cable, with the same addresses, is another one.
    assert!(ip(&format!("-n {a} link set tun down")) && ip(&format!("-n {a} link set tun name other up")));
    network.address("other", 0);
    stands_still(&ours, "tun is not there");
    let before = network.captured("tun").len();
    provoke(&network, &ours);
    assert_eq!(network.captured("tun").len(), before);
    assert!(ip(&format!("-n {a} link set other down")) && ip(&format!("-n {a} link set other name tun up")));
    network.address("tun", 0);
    goes_on(&ours);

    // Gone, and made anew under another number; the address comes later than the cable.
    assert!(ip(&format!("-n {a} link del tun")));
    stands_still(&ours, "tun is not there");
    provoke(&network, &ours);
    ours.ask("limit down 0");
    network.lay("tun");
    network.capture("tun");
    ours.wait_state("seeding", 60);
    assert_eq!(std::fs::read(temp.path().join("ours/downloads/content")).unwrap(), noise(3, LEN));

    // All of it went where it should: peers, trackers, the DHT, names and the local network.
    let told = network.captured("tun");
    let addr = network.addr("tun", 1);
    let group = if v6 { "ff15::efc0:988f" } else { "239.192.152.143" };
    for line in [
        format!("6 {addr} 6881"),
        format!("6 {addr} 6969"),
        format!("17 {addr} 6969"),
        format!("17 {addr} 6881"),
        format!("17 {addr} 53"),
        format!("17 {group} 6771"),
    ] {
        assert!(told.contains(&line), "{line} was not seen");
    }
    assert_eq!(network.captured("eth"), [""; 0]);
    assert_eq!(ours.terminate(), 0);
    // What would have leaked would have been seen.
    let send = "import socket,sys; socket.socket(10 if ':' in sys.argv[1] else 2, 2).sendto(b'x', (sys.argv[1], 9))";
    let mut command = network.command(0, "python3");
    assert!(command.args(["-c", send, &network.addr("eth", 1)]).status().unwrap().success());
    wait("a stranger's packet is seen", 10, || network.captured("eth").len() == 1);
}

#[test]
fn nothing_leaves_by_another_way_in_ipv4() {
    nothing_leaves_by_another_way(false);
}

#[test]
fn nothing_leaves_by_another_way_in_ipv6() {
    nothing_leaves_by_another_way(true);
}
