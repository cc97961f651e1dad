//! The DHT with real clients on loopback: who knows nothing but one node finds content by its hash, both ways.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use common::{Daemon, LIBTORRENT_DHT, Running, free_port, has_libtorrent, in_a_network_of_its_own, make, noise, wait};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::Value;
use swarmtorrent::protocol::dht::items::{mutable_target, signed_bytes};

fn libtorrent(torrent: &Path, dir: &Path, node: u16) -> Option<Running> {
    libtorrent_at(torrent, dir, free_port(), node)
}

fn libtorrent_at(torrent: &Path, dir: &Path, port: u16, node: u16) -> Option<Running> {
    if !has_libtorrent() {
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-c", LIBTORRENT_DHT]).arg(torrent).arg(dir).args([port.to_string(), node.to_string()]);
    Some(Running(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()))
}

fn daemon(dir: &Path, port: u16, node: u16) -> Daemon {
    daemon_at(dir, Ipv4Addr::LOCALHOST, port, node)
}

fn daemon_at(dir: &Path, ip: Ipv4Addr, port: u16, node: u16) -> Daemon {
    Daemon::start_at(dir, (ip, port).into(), &format!("[dht]\nenabled = true\nbootstrap = [\"{ip}:{node}\"]\n"))
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

/// Asks until the search is done; all rows of the last reply.
#[track_caller]
fn ask_until_done(daemon: &Daemon, line: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    wait(line, 60, || {
        rows = daemon.ask(&format!("json {line}")).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let closing: Value = rows.pop().unwrap();
        assert_eq!(closing["ok"], true, "{line}: {closing}");
        closing["state"] == "done"
    });
    rows
}

/// A node to begin with, and others that know it alone; all of them know some of the others.
fn network(dir: &Path, count: usize) -> Vec<Daemon> {
    network_at(dir, Ipv4Addr::LOCALHOST, count)
}

fn network_at(dir: &Path, ip: Ipv4Addr, count: usize) -> Vec<Daemon> {
    let first = free_port();
    let node = |number: usize| {
        let port = if number == 0 { first } else { free_port() };
        daemon_at(&dir.join(format!("node{number}")), ip, port, first)
    };
    let nodes: Vec<Daemon> = (0..count).map(node).collect();
    for node in &nodes {
        wait("it knows others", 30, || node.json("dht")[0]["families"][0]["good"].as_u64() >= Some(1));
    }
    nodes
}

#[test]
fn users_ask_the_dht_and_get_what_is_known_by_now() {
    let temp = tempfile::tempdir().unwrap();
    let nodes = network(temp.path(), 4);
    let path = temp.path().join("content.bin");
    std::fs::write(&path, noise(3, 100_000)).unwrap();
    let (st, _, hash) = make(&path, temp.path(), &[]);
    nodes[1].add(&st, &format!("dir={}", temp.path().display()));
    nodes[1].wait_state("seeding", 20);

    let state = nodes[1].json("dht").remove(0);
    assert_eq!(state["families"][0]["listen"], nodes[1].listen.to_string());
    assert!(state["families"].as_array().unwrap().len() == 1 && state["read_only"] == false, "{state}");
    let text = nodes[1].ask("dht");
    assert!(text.iter().any(|line| line.starts_with("ipv4 good: ")) && text.last().unwrap() == "OK", "{text:?}");

    // The first answer comes before anybody has said anything.
    let first = nodes[2].ask(&format!("dht find {hash}"));
    assert!(first.last().unwrap() == "OK searching", "{first:?}");
    let seeder = serde_json::json!({ "addr": nodes[1].listen.to_string() });
    wait("the seeder is announced", 30, || nodes.iter().any(|node| node.json("dht")[0]["swarms"].as_u64() >= Some(1)));
    assert_eq!(ask_until_done(&nodes[3], &format!("dht find {hash}")), [seeder]);
    let closing = nodes[3].ask(&format!("dht find {hash}")).pop();
    assert_eq!(closing.as_deref(), Some("OK done, about 1 seeds and 0 others"));
    let unknown = format!("dht find {}", "0".repeat(40));
    assert_eq!(ask_until_done(&nodes[3], &unknown), [] as [Value; 0]);

    // Names are known where the torrent is, and others ask for them.
    for (node, ask) in [(3, "dht sample"), (1, "dht sample 5")] {
        let rows = ask_until_done(&nodes[node], ask);
        assert_eq!(rows, [serde_json::json!({ "hash": hash, "name": "content.bin", "size": 100_000 })]);
    }

    let put = "dht put 'Hello World!'";
    assert_eq!(ask_until_done(&nodes[0], put)[0]["target"], "e5f96f6f38320f0f33959cb4d3d656452117aadb");
    let got = ask_until_done(&nodes[2], "dht get e5f96f6f38320f0f33959cb4d3d656452117aadb");
    assert_eq!(got[0]["text"], "Hello World!");

    let off = Daemon::start(&temp.path().join("off"), "");
    assert!(off.ask("dht").last().unwrap().starts_with("ERR unsupported "));
}

#[test]
fn the_dht_may_have_sockets_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let (own, peers) = (udp_port(), free_port());
    let config = |listen: u16, node: u16| {
        format!("[dht]\nlisten = [\"127.0.0.1:{listen}\"]\nbootstrap = [\"127.0.0.1:{node}\"]\n")
    };
    let begin = Daemon::start_at(&temp.path().join("begin"), ([127, 0, 0, 1], peers).into(), &config(own, own));
    let status = begin.json("status").remove(0);
    assert_eq!(status["dht_listen"], serde_json::json!([format!("127.0.0.1:{own}")]));
    assert_eq!(status["listen"], serde_json::json!([format!("127.0.0.1:{peers}")]));
    assert_eq!(begin.json("dht")[0]["families"][0]["listen"], format!("127.0.0.1:{own}"));
    // The port of the peers is no node's.
    let query = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:roi1e1:t2:aa1:y1:qe";
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut answer = [0; 512];
    socket.send_to(query, ("127.0.0.1", peers)).unwrap();
    socket.send_to(query, ("127.0.0.1", own)).unwrap();
    let (_, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from.port(), own);
    assert!(socket.recv_from(&mut answer).is_err(), "nothing came from the other port");

    let path = temp.path().join("content.bin");
    std::fs::write(&path, noise(4, 500_000)).unwrap();
    let (st, _, hash) = make(&path, temp.path(), &[]);
    let seeder = Daemon::start(&temp.path().join("seed"), &config(udp_port(), own));
    seeder.add(&st, &format!("dir={}", temp.path().display()));
    seeder.wait_state("seeding", 20);
    let leecher = Daemon::start(&temp.path().join("leech"), &config(udp_port(), own));
    leecher.add(&st, "");
    leecher.wait_state("seeding", 60);
    // Who connects is told of the node, not of the port that it connected to.
    let mut wire = TcpStream::connect(seeder.listen).unwrap();
    wire.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let bytes: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap()).collect();
    let reserved = [0, 0, 0, 0, 0, 0, 0, 1];
    wire.write_all(&[&b"\x13BitTorrent protocol"[..], &reserved, &bytes, b"-XX0000-abcdefghijkl"].concat()).unwrap();
    let mut heard = vec![0; 68];
    wire.read_exact(&mut heard).unwrap();
    let said_port = loop {
        let mut len = [0; 4];
        wire.read_exact(&mut len).unwrap();
        let mut message = vec![0; u32::from_be_bytes(len) as usize];
        wire.read_exact(&mut message).unwrap();
        if let [9, high, low] = message[..] {
            break u16::from_be_bytes([high, low]);
        }
    };
    let listen = seeder.json("status")[0]["dht_listen"][0].as_str().unwrap().to_owned();
    assert!(listen.ends_with(&format!(":{said_port}")), "{listen} {said_port}");
}

/// A UDP port that was free a moment ago.
fn udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Puts and gets items in the DHT of the node at a port: lines of `put TEXT`, `get TARGET`, `mput SALT TEXT`, `mget KEY SALT`, each
/// answered by a line.
const ITEMS: &str = "
import hashlib, libtorrent as lt, sys, time
port, node, public = sys.argv[1:4]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': True, 'dht_bootstrap_nodes': '127.0.0.1:' + node,
    'dht_restrict_routing_ips': False, 'dht_restrict_search_ips': False, 'dht_enforce_node_id': False, 'dht_ignore_dark_internet': False,
    'enable_lsd': False, 'enable_upnp': False, 'enable_natpmp': False,
    'alert_mask': lt.alert.category_t.dht_notification | lt.alert.category_t.dht_operation_notification})
public = bytes.fromhex(public)
# It wants the expanded key, as ed25519 makes it from the seed.
secret = bytearray(hashlib.sha512(bytes([7] * 32)).digest()); secret[0] &= 248; secret[31] = secret[31] & 63 | 64
secret = bytes(secret)
def wait(kind):
    end = time.time() + 30
    while time.time() < end:
        s.wait_for_alert(200)
        for a in s.pop_alerts():
            if type(a).__name__ == kind: return a
    return None
while s.status().dht_nodes == 0: time.sleep(0.1)
print('ready', flush=True)
for line in sys.stdin:
    word, *rest = line.rstrip('\\n').split(' ')
    if word == 'put':
        target = s.dht_put_immutable_item(rest[0]); a = wait('dht_put_alert')
        print(target, a is not None and a.num_success, flush=True)
    elif word == 'get':
        s.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(rest[0]))); a = wait('dht_immutable_item_alert')
        print(a and a.item, flush=True)
    elif word == 'mput':
        s.dht_put_mutable_item(secret, public, rest[1].encode(), rest[0].encode()); a = wait('dht_put_alert')
        print(public.hex(), a is not None and a.num_success, flush=True)
    elif word == 'mget':
        s.dht_get_mutable_item(bytes.fromhex(rest[0]), rest[1].encode()); a = wait('dht_mutable_item_alert')
        print(a and a.item, flush=True)
";

/// A libtorrent that is talked with line by line.
struct Talker {
    _child: Running,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Talker {
    fn start(node: u16) -> Option<Self> {
        if !has_libtorrent() {
            return None;
        }
        let mut command = Command::new("python3");
        command.args(["-c", ITEMS]).args([
            free_port().to_string(),
            node.to_string(),
            hex(key_pair(7).public_key().as_ref()),
        ]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut talker = Self { _child: Running(child), to, from };
        assert_eq!(talker.hear(), "ready");
        Some(talker)
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn say(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}").unwrap();
        self.hear()
    }
}

#[test]
fn libtorrent_tells_how_large_a_swarm_is() {
    let temp = tempfile::tempdir().unwrap();
    let theirs = temp.path().join("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(temp.path().join("ours.bin"), noise(5, 300_000)).unwrap();
    std::fs::write(theirs.join("theirs.bin"), noise(6, 300_000)).unwrap();
    let (st, _, hash) = make(&temp.path().join("ours.bin"), temp.path(), &[]);
    let (_, torrent, _) = make(&theirs.join("theirs.bin"), &theirs, &[]);
    let (port, seed_port) = (free_port(), free_port());
    let Some(_theirs) = libtorrent_at(&torrent, &theirs, port, seed_port) else { return };
    let seed = daemon(&temp.path().join("seed"), seed_port, port);
    seed.add(&st, &format!("dir={}", temp.path().display()));
    seed.wait_state("seeding", 20);
    // There is no other node that could tell.
    let found = "OK done, about 1 seeds and 0 others";
    wait("libtorrent has told", 60, || seed.ask(&format!("dht find {hash}")).pop().is_some_and(|line| line == found));
}

/// The key that so many equal bytes make.
fn key_pair(byte: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[byte; 32]).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn items_go_to_libtorrent_and_come_from_it() {
    let temp = tempfile::tempdir().unwrap();
    let nodes = network(temp.path(), 3);
    let Some(mut theirs) = Talker::start(nodes[0].listen.port()) else { return };

    let put = theirs.say("put fromlibtorrent");
    let (target, kept_by) = put.split_once(' ').unwrap();
    assert!(kept_by.parse::<u32>().unwrap() >= 1, "{put}");
    assert_eq!(ask_until_done(&nodes[1], &format!("dht get {target}"))[0]["text"], "fromlibtorrent");
    let ours = ask_until_done(&nodes[1], "dht put fromus").remove(0);
    assert!(ours["nodes"].as_u64() >= Some(1), "{ours}");
    let got = theirs.say(&format!("get {}", ours["target"].as_str().unwrap()));
    assert!(got.contains("fromus"), "{got}");

    let put = theirs.say("mput salty first");
    let (key, kept_by) = put.split_once(' ').unwrap();
    assert!(kept_by.parse::<u32>().unwrap() >= 1, "{put}");
    let key_bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap()).collect();
    let target = mutable_target(&key_bytes.try_into().unwrap(), b"salty");
    let got = ask_until_done(&nodes[2], &format!("dht get {target} salt=salty")).remove(0);
    assert_eq!((&got["text"], &got["key"]), (&"first".into(), &key.into()), "{got}");

    // The user signs; the daemon sees no secret.
    let pair = key_pair(9);
    let key = hex(pair.public_key().as_ref());
    let sig = hex(pair.sign(&signed_bytes(b"ours", 5, b"6:second")).as_ref());
    let put = format!("dht put second key={key} seq=5 sig={sig} salt=ours");
    assert!(ask_until_done(&nodes[1], &put)[0]["nodes"].as_u64() >= Some(1));
    let got = theirs.say(&format!("mget {key} ours"));
    assert!(got.contains("second"), "{got}");
    let forged = put.replace("seq=5", "seq=6");
    assert!(nodes[1].ask(&forged).last().unwrap().starts_with("ERR invalid "));
}

/// Where clients are that talk with no node on 127.0.0.0/8.
const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Somebody else's client with the DHT on and nothing else to find peers by.
#[derive(Debug, Clone, Copy)]
enum Other {
    Transmission,
    Aria2,
}

impl Other {
    fn start(self, torrent: &Path, dir: &Path, ip: Ipv4Addr, node: u16) -> Option<Running> {
        let (home, port, dir_text) = (dir.join(".home"), free_port(), dir.to_str().unwrap());
        std::fs::create_dir_all(home.join("watch")).unwrap();
        let mut command = match self {
            Self::Transmission => {
                std::fs::copy(torrent, home.join("watch/made.torrent")).unwrap();
                let settings = serde_json::json!({
                    "download-dir": dir, "watch-dir": home.join("watch"), "watch-dir-enabled": true, "peer-port": port,
                    "rpc-port": free_port(), "rpc-whitelist-enabled": false, "dht-enabled": true, "lpd-enabled": false,
                    "utp-enabled": false, "pex-enabled": false, "port-forwarding-enabled": false,
                    "bind-address-ipv4": ip.to_string(),
                });
                std::fs::write(home.join("settings.json"), settings.to_string()).unwrap();
                // Where it begins besides its own nodes.
                std::fs::write(home.join("dht.bootstrap"), format!("{ip} {node}\n")).unwrap();
                let mut command = Command::new("transmission-daemon");
                command.args(["-f", "-g"]).arg(&home);
                command
            }
            Self::Aria2 => {
                let mut command = Command::new("aria2c");
                command.args(["--enable-dht=true", "--enable-dht6=false", "--bt-enable-lpd=false", "--seed-ratio=0.0"]);
                command.args(["--enable-peer-exchange=false", "--check-integrity=true", "--allow-overwrite=true"]);
                command.args(["--file-allocation=none", "--bt-exclude-tracker=*"]);
                command.arg(format!("--dht-entry-point={ip}:{node}"));
                command.arg(format!("--dht-file-path={}", home.join("dht.dat").display()));
                command.arg(format!("--listen-port={port}")).arg(format!("--dht-listen-port={}", udp_port()));
                command.arg(format!("--dir={dir_text}")).arg(torrent);
                command
            }
        };
        let log = std::fs::File::create(home.join("log")).unwrap();
        command.env("HOME", &home).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        match command.spawn() {
            Ok(child) => Some(Running(child)),
            Err(_) => {
                eprintln!("left out: {self:?} is not installed");
                None
            }
        }
    }
}

/// The daemon finds what the other seeds; then another one of the kind finds the daemon. Transmission 3.00 asks its nodes too
/// rarely for a test to wait for that.
fn find_each_other(other: Other, ip: Ipv4Addr, count: usize) {
    let temp = tempfile::tempdir().unwrap();
    let theirs = temp.path().join("theirs");
    std::fs::create_dir_all(&theirs).unwrap();
    let path = theirs.join("content.bin");
    std::fs::write(&path, noise(5, 2_000_000)).unwrap();
    let (st, torrent, hash) = make(&path, temp.path(), &[]);
    let nodes = network_at(temp.path(), ip, count);
    let Some(seeding) = other.start(&torrent, &theirs, ip, nodes[0].listen.port()) else { return };
    wait("it announced itself to one of us", 120, || {
        nodes.iter().any(|node| node.json("dht")[0]["peers"].as_u64() >= Some(1))
    });
    assert_eq!(ask_until_done(&nodes[1], &format!("dht find {hash}")).len(), 1);
    nodes[2].add(&st, "");
    nodes[2].wait_state("seeding", 120);
    assert_eq!(nodes[2].json("list")[0]["downloaded"], 2_000_000);
    drop(seeding);
    if matches!(other, Other::Transmission) {
        return;
    }
    let given = temp.path().join("given");
    std::fs::create_dir_all(&given).unwrap();
    let _leeching = other.start(&torrent, &given, ip, nodes[0].listen.port());
    wait("it finds the daemon", 180, || {
        std::fs::read(given.join("content.bin")).is_ok_and(|bytes| bytes == noise(5, 2_000_000))
    });
}

/// It announces nothing while it knows less than nine nodes.
#[test]
fn transmission_is_found_by_its_hash() {
    in_a_network_of_its_own("transmission_is_found_by_its_hash", &[NETWORK], || {
        find_each_other(Other::Transmission, NETWORK, 12)
    });
}

#[test]
fn aria2_and_the_daemon_find_each_other() {
    in_a_network_of_its_own("aria2_and_the_daemon_find_each_other", &[NETWORK], || {
        find_each_other(Other::Aria2, NETWORK, 3)
    });
}

/// A real client that knows no node at all learns of ours from the PORT message of a peer.
#[test]
fn libtorrent_learns_of_our_node_by_a_port_message() {
    let temp = tempfile::tempdir().unwrap();
    let (theirs, first) = (temp.path().join("theirs"), free_port());
    std::fs::create_dir_all(&theirs).unwrap();
    let path = temp.path().join("content.bin");
    std::fs::write(&path, noise(6, 1_000_000)).unwrap();
    let (st, torrent, _) = make(&path, temp.path(), &[]);
    let ours = daemon(&temp.path().join("ours"), first, first);
    ours.add(&st, &format!("dir={}", temp.path().display()));
    ours.wait_state("seeding", 20);
    assert_eq!(ours.json("dht")[0]["families"][0]["nodes"], 0);
    // It begins with a port where nobody is.
    let (port, nobody) = (free_port(), udp_port());
    let Some(_theirs) = libtorrent_at(&torrent, &theirs, port, nobody) else { return };
    wait("they have it all", 60, || {
        ours.ask(&format!("connect all 127.0.0.1:{port}"));
        std::fs::read(theirs.join("content.bin")).is_ok_and(|bytes| bytes == noise(6, 1_000_000))
    });
    wait("our nodes know one another", 60, || ours.json("dht")[0]["families"][0]["good"].as_u64() >= Some(1));
}

/// Several addresses of one family are several nodes (BEP 45): a stranger sees nothing that they have in common.
#[test]
fn each_address_is_a_node_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let (begin, port) = (udp_port(), udp_port());
    let _begin = Daemon::start(
        &temp.path().join("begin"),
        &format!("[dht]\nlisten = [\"127.0.0.1:{begin}\"]\nbootstrap = [\"127.0.0.1:{begin}\"]\n"),
    );
    let listen = ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(|ip| format!("{ip}:{port}"));
    let config = format!("[dht]\nlisten = {listen:?}\nbootstrap = [\"127.0.0.1:{begin}\"]\n");
    let ours = Daemon::start(&temp.path().join("ours"), &config);
    let nodes = || ours.json("dht")[0]["families"].as_array().unwrap().clone();
    wait("each of them knows the first", 30, || nodes().iter().all(|node| node["good"].as_u64() >= Some(1)));
    assert_eq!(nodes().iter().map(|node| node["listen"].as_str().unwrap()).collect::<Vec<_>>(), listen);

    let query = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:roi1e1:t2:aa1:y1:qe";
    let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for node in nodes() {
        let mut answer = [0; 512];
        let at = node["listen"].as_str().unwrap();
        socket.send_to(query, at).unwrap();
        let (len, from) = socket.recv_from(&mut answer).unwrap();
        let id: Vec<u8> =
            (0..20).map(|at| u8::from_str_radix(&node["id"].as_str().unwrap()[2 * at..][..2], 16).unwrap()).collect();
        assert_eq!(from.to_string(), at, "the answer comes from where was asked");
        assert!(answer[..len].windows(20).any(|window| window == id), "{node}");
    }
    let mut ids: Vec<_> = nodes().iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ours.terminate(), 0);
    // Each keeps its number.
    let ours = Daemon::start(&temp.path().join("ours"), &config);
    let again = ours.json("dht")[0]["families"].as_array().unwrap().clone();
    assert_eq!(again.iter().map(|node| node["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    ids.dedup();
    assert_eq!(ids.len(), 3);
}
