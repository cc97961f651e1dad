//! The tracker server as strangers meet it: the real program, asked over real sockets by us and by other people's clients.
//!
//! `everybody` has whole swarms that only the tracker introduces, `node` the clients of npm's `bittorrent-tracker`, `hostile` those who
//! mean no good, `lists` who is let in. What is here is shared by these, and what the tracker tells of itself.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests fail where they stand; their numbers are small"
)]

mod common;

#[path = "tracker/everybody.rs"]
mod everybody;
#[path = "tracker/hostile.rs"]
mod hostile;
#[path = "tracker/lists.rs"]
mod lists;
#[path = "tracker/node.rs"]
mod node;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use swarmtorrent::base::hash::InfoHash;
use swarmtorrent::codec::udp_tracker::{Announce, AnnounceEvent, Request, Response, SwarmCounts};

use crate::common::Daemon;

/// How long anybody waits for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon that is a tracker on loopback, at ports that were free.
struct Served {
    daemon: Daemon,
    udp: SocketAddr,
    http: SocketAddr,
}

impl Served {
    /// Starts it in `dir`, with more keys of `[tracker]`.
    fn start(dir: &Path, keys: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_swarmtorrentd")), dir, keys)
    }

    /// The same by a `command` that becomes the daemon.
    fn start_by(command: Command, dir: &Path, keys: &str) -> Self {
        Self::launch(command, dir, "http = [\"127.0.0.1:0\"]\n", keys)
    }

    /// The same with the line `http` of the config.
    fn start_at(dir: &Path, http: &str) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_swarmtorrentd")), dir, http, "")
    }

    fn launch(command: Command, dir: &Path, http: &str, keys: &str) -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], common::free_port()));
        let extra = format!("[tracker]\nudp = [\"127.0.0.1:0\"]\n{http}\n{keys}");
        let daemon = Daemon::launch_by(command, dir, listen, "", &extra);
        let state = daemon.json("tracker").remove(0);
        let addr = |key: &str| state[key][0].as_str().unwrap().parse().unwrap();
        Self { udp: addr("udp"), http: addr("http"), daemon }
    }

    fn state(&self) -> Value {
        self.daemon.json("tracker").remove(0)
    }

    /// A row of `stats`.
    #[track_caller]
    fn row(&self, name: &str) -> u64 {
        let rows = self.daemon.ask("stats");
        let row = rows.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        row.unwrap_or_else(|| panic!("no row {name}: {rows:?}")).parse().unwrap()
    }
}

/// An address of loopback that is like no other of `number`.
fn loopback(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, 7, high, low)
}

fn announce(hash: InfoHash, port: u16, left: u64) -> Announce {
    Announce {
        info_hash: hash,
        peer_id: *b"-SW0100-abcdefghijkl",
        downloaded: 0,
        left,
        uploaded: 0,
        event: AnnounceEvent::Started,
        key: 7,
        num_want: -1,
        port,
    }
}

/// Somebody who asks by UDP.
struct Asker {
    socket: UdpSocket,
    transaction: u32,
    connection: u64,
}

impl Asker {
    /// From an address, not yet connected.
    fn stranger(from: impl Into<IpAddr>, to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from.into(), 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, transaction: 100, connection: 0 }
    }

    /// From an address, with a connection id.
    #[track_caller]
    fn connect(from: impl Into<IpAddr>, to: SocketAddr) -> Self {
        let mut asker = Self::stranger(from, to);
        asker.transaction += 1;
        let transaction = asker.transaction;
        let Response::Connect { connection, .. } = asker.ask(&Request::Connect { transaction }) else {
            panic!("no connection id")
        };
        asker.connection = connection;
        asker
    }

    #[track_caller]
    fn ask(&self, request: &Request<'_>) -> Response {
        let mut packet = Vec::new();
        request.write(&mut packet);
        self.socket.send(&packet).unwrap();
        let response = Response::parse(&self.hear(), self.socket.peer_addr().unwrap().is_ipv6()).unwrap();
        let (Response::Connect { transaction, .. }
        | Response::Announce { transaction, .. }
        | Response::Scrape { transaction, .. }
        | Response::Error { transaction, .. }) = response;
        assert_eq!(transaction, self.transaction, "{response:?}");
        response
    }

    /// The next datagram.
    #[track_caller]
    fn hear(&self) -> Vec<u8> {
        let mut packet = vec![0; 65_536];
        let len = self.socket.recv(&mut packet).unwrap();
        packet.truncate(len);
        packet
    }

    /// The answer to an announce of a path, which may be refused.
    #[track_caller]
    fn announce(&mut self, announce: &Announce, path: &str) -> Response {
        self.transaction += 1;
        let (connection, transaction) = (self.connection, self.transaction);
        self.ask(&Request::Announce { connection, transaction, announce: *announce, path: path.as_bytes().into() })
    }

    #[track_caller]
    fn scrape(&mut self, hashes: &[InfoHash]) -> Vec<SwarmCounts> {
        self.transaction += 1;
        let (connection, transaction) = (self.connection, self.transaction);
        let info_hashes: Vec<[u8; 20]> = hashes.iter().map(|hash| hash.0).collect();
        match self.ask(&Request::Scrape { connection, transaction, info_hashes: &info_hashes }) {
            Response::Scrape { swarms, .. } => swarms,
            other => panic!("{other:?}"),
        }
    }
}

/// Every byte as `%XX`.
fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// The target of an announce, with what else is said.
fn target(hash: InfoHash, port: u16, rest: &str) -> String {
    format!("/announce?info_hash={}&peer_id=-SW0100-abcdefghijkl&port={port}&{rest}", percent(&hash.0))
}

/// An answer by HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// A connection by HTTP; what comes is waited for.
struct Web(BufReader<TcpStream>);

impl Web {
    #[track_caller]
    fn connect(from: impl Into<IpAddr>, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// The next answer, to a request that was not for a head alone.
    #[track_caller]
    fn answer(&mut self) -> Answer {
        let (status, head) = self.head();
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).unwrap();
        Answer { status, head, body }
    }

    /// Status and lines of the next answer.
    #[track_caller]
    fn head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = self.0.read_line(&mut head).unwrap();
            assert!(read > 0, "it ended after {head:?}");
        }
        (head.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap(), head)
    }

    /// Asks for a target on this connection, which stays.
    #[track_caller]
    fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: tracker\r\n\r\n"));
        self.answer()
    }

    /// Nothing more comes: the other end has closed.
    #[track_caller]
    fn assert_ended(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }
}

/// What `body` refuses with.
#[track_caller]
fn failure(body: &[u8]) -> String {
    swarmtorrent::codec::http_tracker::parse_announce(body).unwrap().unwrap_err().reason
}

#[test]
fn what_it_tells_of_itself_is_what_was_done() {
    let temp = tempfile::tempdir().unwrap();
    let served = Served::start(temp.path(), "interval = \"7m\"\n");
    let (one, two) = (InfoHash::of(b"one"), InfoHash::of(b"two"));
    let mut udp = Asker::connect(loopback(1), served.udp);
    let Response::Announce { interval, .. } = udp.announce(&announce(one, 6881, 0), "") else { panic!("refused") };
    assert_eq!(interval, 420);
    udp.announce(&announce(two, 6881, 9), "");
    udp.scrape(&[one, two]);
    udp.socket.send(b"hello").unwrap();
    let mut web = Web::connect(loopback(2), served.http);
    assert_eq!(web.get(&target(one, 6881, "left=5")).status, 200);
    let scrape = format!("/scrape?info_hash={}", percent(&one.0));
    assert_eq!(web.get(&scrape).status, 200);
    assert_eq!(web.get("/announce?info_hash=short").status, 200);
    assert!(matches!(udp.announce(&Announce { port: 0, ..announce(one, 1, 0) }, ""), Response::Error { .. }));
    udp.connection ^= 1;
    assert!(matches!(udp.announce(&announce(one, 1, 0), ""), Response::Error { .. }));

    let state = served.state();
    let expected = serde_json::json!({
        "udp": [served.udp.to_string()], "http": [served.http.to_string()], "interval": 420, "allowed": null,
        "swarms": 2, "peers": 3, "announces": 3, "scrapes": 2, "store": null,
        "announce_rate": state["announce_rate"], "scrape_rate": state["scrape_rate"],
        "errors": { "malformed": 1, "connection_id": 1, "not_allowed": 0, "key": 0, "address": 1, "full": 0 },
    });
    assert_eq!(state, expected);
    let text = served.daemon.ask("tracker");
    for line in
        [&format!("udp {}", served.udp), "interval 7m", "allowed torrents all", "peers 3", "errors connection id 1"]
    {
        let mut words = text.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        assert!(words.any(|told| told.replace(':', "") == line.replace(':', "")), "{line}: {text:?}");
    }
    for (row, value) in [
        ("tracker.swarms", 2),
        ("tracker.peers", 3),
        ("tracker.connects", 1),
        ("tracker.announces", 3),
        ("tracker.scrapes", 2),
        ("tracker.packets_ignored", 1),
        ("tracker.errors.connection_id", 1),
        ("tracker.errors.address", 1),
        ("tracker.errors.malformed", 1),
        ("http.accepted", 1),
        ("http.refused", 0),
        ("http.shed", 0),
    ] {
        assert_eq!(served.row(row), value, "{row}");
    }
    assert_eq!(served.daemon.terminate(), 0);
}

#[test]
fn a_daemon_that_is_no_tracker_says_how_to_make_it_one() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    for line in ["tracker", "json tracker"] {
        let reply = daemon.ask(line);
        assert!(
            reply.last().unwrap().contains("unsupported") && reply.last().unwrap().contains("[tracker]"),
            "{reply:?}"
        );
    }
    assert!(daemon.ask("tracker").last().unwrap().starts_with("ERR unsupported "));
    assert!(!daemon.ask("stats").iter().any(|row| row.starts_with("tracker.")));
}
