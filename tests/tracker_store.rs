//! Trackers that share one state in a real Redis server: what one is told the others tell, whatever becomes of the server.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use swarmtorrent::base::hash::InfoHash;
use swarmtorrent::codec::http_tracker::{
    AnnounceAnswer, ScrapeAnswer, announce_path, parse_announce, parse_scrape, scrape_path,
};
use swarmtorrent::codec::udp_tracker::{Announce, AnnounceEvent};
use swarmtorrent::codec::url::TrackerUrl;

mod common;

use common::redis::{cli, is_left_out, serve, serve_cluster};
use common::{Running, free_port, wait};

/// Longer than anybody is kept waiting for the store, by far.
const PROMPT: Duration = Duration::from_secs(1);

/// `swarmtorrent tracker` with a store.
struct Tracker {
    _running: Running,
    addr: SocketAddr,
}

impl Tracker {
    fn start(store: &str) -> Self {
        Self::start_with(store, &[])
    }

    fn start_with(store: &str, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrent"));
        command.args(["tracker", "--http", "127.0.0.1:0", "--store", store]).args(args).stdout(Stdio::piped());
        let mut running = Running(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).unwrap().parse().unwrap();
        Self { _running: running, addr }
    }

    /// The answer to a request from an address of this machine, and how long it took.
    #[expect(clippy::disallowed_methods, reason = "how long an answer takes is what is tested")]
    fn get(&self, from: Ipv4Addr, path: &str) -> (Vec<u8>, Duration) {
        let start = Instant::now();
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&self.addr.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
        (answer.split_off(head + 4), start.elapsed())
    }

    fn url(&self) -> TrackerUrl {
        TrackerUrl::parse(&format!("http://{}/announce", self.addr)).unwrap()
    }

    /// So many peers announce through a proxy at 127.0.0.1, many on one connection.
    fn crowd(&self, swarm: u32, count: usize) {
        /// Fewer than a connection may have.
        const TOGETHER: usize = 900;
        let numbers: Vec<usize> = (0..count).collect();
        for part in numbers.chunks(TOGETHER) {
            let mut requests = Vec::new();
            for number in part {
                let peer = announce(swarm, 7, 1, AnnounceEvent::Started);
                let path = announce_path(&self.url(), &Announce { num_want: 0, ..peer }, None);
                let ip = format!("11.0.{}.{}", number / 250, number % 250);
                write!(requests, "GET {path}&ip={ip} HTTP/1.1\r\n\r\n").unwrap();
            }
            let mut stream = TcpStream::connect(self.addr).unwrap();
            let mut other = stream.try_clone().unwrap();
            // It reads no further while its answers are not taken.
            let sending = std::thread::Builder::new().spawn(move || other.write_all(&requests).unwrap()).unwrap();
            let (mut answered, mut heard) = (0, Vec::new());
            while answered < part.len() {
                let mut bytes = [0; 65_536];
                let len = stream.read(&mut bytes).unwrap();
                assert!(len > 0, "{answered} answers");
                heard.extend_from_slice(&bytes[..len]);
                answered = heard.windows(8).filter(|part| part == b"HTTP/1.1").count();
            }
            sending.join().unwrap();
        }
    }

    /// A peer at 127.1.0.`host` says something; what it is told, in good time.
    #[track_caller]
    fn announce(&self, host: u8, swarm: u32, left: u64, event: AnnounceEvent) -> AnnounceAnswer {
        let announce = announce(swarm, host, left, event);
        let (body, took) = self.get(ip(host), &announce_path(&self.url(), &announce, None));
        assert!(took < PROMPT, "{took:?}");
        parse_announce(&body).unwrap().unwrap()
    }

    /// The hosts that a peer is told of when it asks again.
    #[track_caller]
    fn others(&self, host: u8, swarm: u32) -> Vec<u8> {
        let answer = self.announce(host, swarm, 1, AnnounceEvent::Regular);
        let mut hosts: Vec<u8> = answer
            .peers
            .iter()
            .map(|peer| match peer.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(ip) => panic!("{ip}"),
            })
            .collect();
        hosts.sort_unstable();
        hosts
    }

    fn scrape(&self, swarm: u32) -> ScrapeAnswer {
        let path = scrape_path(&self.url().scrape().unwrap(), &hash(swarm));
        parse_scrape(&self.get(ip(250), &path).0, &hash(swarm)).unwrap().unwrap()
    }
}

fn announce(swarm: u32, host: u8, left: u64, event: AnnounceEvent) -> Announce {
    Announce {
        info_hash: hash(swarm),
        peer_id: [host; 20],
        downloaded: 0,
        left,
        uploaded: 0,
        event,
        key: 0,
        num_want: 200,
        port: 6881,
    }
}

fn hash(swarm: u32) -> InfoHash {
    InfoHash::of(&swarm.to_be_bytes())
}

const fn ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, 0, host)
}

const fn counts(answer: &ScrapeAnswer) -> (Option<u32>, Option<u32>, Option<u32>) {
    (answer.seeders, answer.leechers, answer.downloaded)
}

#[test]
fn what_one_tracker_is_told_the_other_tells() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = serve(temp.path(), port, &["--requirepass", "secret"]);
    let store = format!("redis://:secret@localhost:{port}/2");
    let [a, b] = [(); 2].map(|()| Tracker::start(&store));
    a.announce(1, 1, 0, AnnounceEvent::Started);
    a.announce(2, 1, 5, AnnounceEvent::Started);
    // Nobody has asked the other one for this swarm: it reads it before it answers, once both are connected and it is written.
    wait("the other has heard", 5, || b.others(9, 1) == [1, 2]);
    assert_eq!(b.announce(3, 2, 5, AnnounceEvent::Started).peers, [], "another swarm");
    a.announce(2, 1, 0, AnnounceEvent::Completed);
    a.announce(4, 1, 5, AnnounceEvent::Started);
    a.announce(4, 1, 5, AnnounceEvent::Stopped);
    b.announce(9, 1, 0, AnnounceEvent::Completed);
    // What was read counts for ten seconds.
    for tracker in [&a, &b] {
        wait("both count the same", 15, || counts(&tracker.scrape(1)) == (Some(3), Some(0), Some(2)));
    }
    // One that starts later knows all of it, and has no state of its own.
    let c = Tracker::start(&store);
    wait("the third tells it, too", 15, || counts(&c.scrape(1)) == (Some(3), Some(0), Some(2)));
    assert_eq!(c.others(8, 1), [1, 2, 9]);
}

#[test]
fn while_the_store_is_away_everybody_is_answered_and_afterwards_it_is_told() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = serve(temp.path(), port, &[]);
    let store = format!("redis://127.0.0.1:{port}");
    let [a, b] = [(); 2].map(|()| Tracker::start(&store));
    a.announce(1, 1, 0, AnnounceEvent::Started);
    wait("the other has heard", 5, || b.others(2, 1) == [1]);
    drop(server);
    a.announce(3, 1, 5, AnnounceEvent::Started);
    b.announce(4, 1, 5, AnnounceEvent::Started);
    a.announce(5, 2, 5, AnnounceEvent::Started);
    assert!(a.others(6, 1).contains(&3) && !a.others(6, 1).contains(&4), "each knows what it was told");
    // It comes back, and has forgotten everything.
    let _server = serve(temp.path(), port, &[]);
    wait("both know everybody", 20, || {
        [&a, &b].iter().all(|tracker| tracker.others(7, 1) == [1, 2, 3, 4, 6]) && b.others(7, 2) == [5]
    });
    assert!(cli(port, &["dbsize"]).parse::<u32>().unwrap() >= 2);
}

#[test]
fn a_store_that_stands_still_keeps_nobody_waiting() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let server = serve(temp.path(), port, &[]);
    let pid = Pid::from_child(&server.0);
    let store = format!("redis://127.0.0.1:{port}");
    let [a, b] = [(); 2].map(|()| Tracker::start(&store));
    a.announce(1, 1, 0, AnnounceEvent::Started);
    wait("the other has heard", 5, || b.others(2, 1) == [1]);
    kill_process(pid, Signal::STOP).unwrap();
    for swarm in 10..40 {
        a.announce(3, swarm, 0, AnnounceEvent::Started); // which says how long that may take
    }
    assert_eq!(a.others(4, 20), [3]);
    kill_process(pid, Signal::CONT).unwrap();
    wait("the other hears of all that", 20, || (10..40).all(|swarm| b.others(5, swarm).contains(&3)));
}

#[test]
fn a_swarm_of_thousands_that_came_at_once_is_read_as_a_whole() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let port = free_port();
    let _server = serve(temp.path(), port, &[]);
    let store = format!("redis://127.0.0.1:{port}");
    let a = Tracker::start_with(&store, &["--proxy", "127.0.0.1"]);
    a.crowd(1, 9000);
    let b = Tracker::start(&store);
    wait("the other counts them all", 20, || counts(&b.scrape(1)) == (Some(0), Some(9000), Some(0)));
}

#[test]
fn a_cluster_is_a_store_for_many_swarms() {
    if is_left_out() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (ports, _servers) = serve_cluster(temp.path());
    let store = format!("redis://127.0.0.1:{},127.0.0.1:{}", ports[1], ports[2]);
    let [a, b] = [(); 2].map(|()| Tracker::start(&store));
    for swarm in 0..60 {
        a.announce(1, swarm, 0, AnnounceEvent::Started);
    }
    wait("the other has heard of all", 10, || (0..60).all(|swarm| b.others(2, swarm) == [1]));
    let held = ports.map(|port| cli(port, &["dbsize"]).parse::<u32>().unwrap());
    assert!(held.iter().all(|count| *count > 5), "all three keep some: {held:?}");
}
