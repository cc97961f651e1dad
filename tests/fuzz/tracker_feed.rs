//! Turns any bytes into a life of a tracker server: datagrams and requests of strangers (raw, or well made), time, and a store that
//! says whatever it likes. Used by the fuzz target and by the tests.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "it fails where it stands")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use swarmtorrent::base::config::{Secret, TrackerConfig};
use swarmtorrent::base::hash::{InfoHash, Sha1Hash};
use swarmtorrent::base::ids::{ConnId, SocketId};
use swarmtorrent::base::net::Net;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::resp::Value;
use swarmtorrent::codec::udp_tracker::{Announce, AnnounceEvent, Request, Response};
use swarmtorrent::protocol::http::HttpServer;
use swarmtorrent::protocol::redis::{LinkId, Need};
use swarmtorrent::service::tracker::{Allowed, Tracker};

/// Who sends, in both families; the last one is a proxy of ours.
const SOURCES: [&str; 6] =
    ["11.0.0.1:6881", "11.0.0.1:6882", "200.1.2.3:1", "[2001:db8::1]:6881", "[2001:db8::1:1]:1", "10.0.0.1:80"];
/// Steps of one life.
const STEPS_MAX: usize = 400;
/// Connections of one life.
const CONNS: usize = 4;
const SWARMS_MAX: usize = 6;
const PEERS_MAX: usize = 12;
const SOCKET: SocketId = SocketId::Tracker(0);

/// The bytes of the script, one after another; zeroes after their end.
struct Script<'s>(&'s [u8]);

impl<'s> Script<'s> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'s [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn source(&mut self) -> SocketAddr {
        SOURCES[usize::from(self.byte()) % SOURCES.len()].parse().unwrap()
    }

    fn hash(&mut self) -> InfoHash {
        Sha1Hash::of(&[self.byte() % 16])
    }

    fn announce(&mut self) -> Announce {
        let event = [
            AnnounceEvent::Regular,
            AnnounceEvent::Completed,
            AnnounceEvent::Started,
            AnnounceEvent::Stopped,
            AnnounceEvent::Paused,
        ][usize::from(self.byte() % 5)];
        Announce {
            info_hash: self.hash(),
            peer_id: [7; 20],
            downloaded: 0,
            left: u64::from(self.byte() % 3),
            uploaded: 0,
            event,
            key: 0,
            num_want: i32::from(self.byte()) - 100,
            port: u16::from(self.byte() % 8),
        }
    }

    /// What a store may say.
    fn reply(&mut self) -> Vec<u8> {
        let member = |byte: u8| Value::Bulk(vec![byte; if byte.is_multiple_of(2) { 6 } else { 18 }]);
        let value = match self.byte() % 9 {
            0 | 1 => Value::Simple(b"PONG".to_vec()),
            2 => Value::Error(b"ERR This instance has cluster support disabled".to_vec()),
            3 => Value::Integer(i64::from(self.byte())),
            4 => Value::Array(vec![Value::Bulk(b"7".to_vec()), Value::Null]),
            5 => Value::Null,
            6 => Value::Error(self.bytes().iter().filter(|byte| byte.is_ascii_alphanumeric()).copied().collect()),
            7 => return self.bytes().to_vec(),
            _ => {
                let pairs = (0..self.byte() % 20).flat_map(|number| {
                    let score = u64::from(number) << (number % 50);
                    [member(number), Value::Bulk(score.to_string().into_bytes())]
                });
                Value::Array(pairs.collect())
            }
        };
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        bytes
    }
}

/// The tracker, and what strangers learnt from it.
struct Life {
    now: Time,
    tracker: Tracker,
    /// Connection ids that it gave, by address.
    ids: BTreeMap<IpAddr, Vec<u64>>,
    conns: Vec<(SocketAddr, HttpServer, Vec<u8>)>,
    links: Vec<LinkId>,
    /// Datagrams that came and were not answered.
    unanswered: usize,
}

/// Lives through the script. It panics if the tracker does, or goes beyond a bound.
pub fn feed(script: &[u8]) {
    let mut script = Script(script);
    let rules = script.byte();
    let config = TrackerConfig {
        udp: vec!["0.0.0.0:1".parse().unwrap()],
        interval: Duration::from_secs(1 << (rules % 12)),
        open: !rules.is_multiple_of(5),
        needs_key: rules.is_multiple_of(7),
        proxies: vec![Net::parse("10.0.0.0/8").unwrap()],
        store: rules.is_multiple_of(2).then(|| Secret("redis://192.0.2.1".into())),
        swarms_max: SWARMS_MAX,
        peers_max: PEERS_MAX,
        ..TrackerConfig::default()
    };
    let mut tracker = Tracker::new(Time::ZERO, &config, 1_700_000_000_000_000_000, Rng::from_number(1));
    tracker.allow(Allowed {
        hashes: (!config.open).then(|| (0..8).map(|number| Sha1Hash::of(&[number])).collect()),
        keys: config.needs_key.then(|| vec!["key".to_owned()]),
    });
    let server = |number: usize| {
        let from: SocketAddr = SOURCES[number % SOURCES.len()].parse().unwrap();
        (from, HttpServer::accepted(Time::ZERO), Vec::new())
    };
    let mut life = Life {
        now: Time::ZERO,
        tracker,
        ids: BTreeMap::new(),
        conns: (2..2 + CONNS).map(server).collect(),
        links: Vec::new(),
        unanswered: 0,
    };
    for _ in 0..STEPS_MAX {
        if script.0.is_empty() {
            break;
        }
        life.step(&mut script);
    }
}

impl Life {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0 => {
                let from = script.source();
                self.packet(from, script.bytes());
            }
            1 => self.request(script.source(), &Request::Connect { transaction: 1 }),
            2 | 3 => {
                let (from, announce) = (script.source(), script.announce());
                let connection = self.id(from, script.byte());
                let path: &[u8] = [&b""[..], b"/announce", b"/key/announce"][usize::from(script.byte() % 3)];
                self.request(from, &Request::Announce { connection, transaction: 1, announce, path: path.into() });
            }
            4 => {
                let from = script.source();
                let hashes: Vec<[u8; 20]> = (0..1 + script.byte() % 74).map(|_| script.hash().0).collect();
                let connection = self.id(from, script.byte());
                self.request(from, &Request::Scrape { connection, transaction: 1, info_hashes: &hashes });
            }
            5 => {
                let (number, bytes) = (usize::from(script.byte()) % CONNS, script.bytes());
                self.conns[number].2.extend_from_slice(bytes);
                self.serve(number);
            }
            6 => {
                let how = script.byte();
                self.store(how, script);
            }
            _ => self.pass(Duration::from_millis(1 << (script.byte() % 24))),
        }
        self.settle();
    }

    /// One that was given to the address, or none.
    fn id(&self, from: SocketAddr, which: u8) -> u64 {
        let ids = self.ids.get(&from.ip()).map_or(&[][..], Vec::as_slice);
        ids.get(usize::from(which)).or(ids.last()).copied().unwrap_or(u64::from(which))
    }

    fn request(&mut self, from: SocketAddr, request: &Request<'_>) {
        let mut packet = Vec::new();
        request.write(&mut packet);
        self.packet(from, &packet);
    }

    fn packet(&mut self, from: SocketAddr, packet: &[u8]) {
        let is_verified = packet
            .first_chunk()
            .is_some_and(|id| self.ids.get(&from.ip()).is_some_and(|ids| ids.contains(&u64::from_be_bytes(*id))));
        self.tracker.handle_packet(self.now, SOCKET, from, packet);
        self.unanswered += 1;
        let (answers, mut answer) = (self.unanswered, Vec::new());
        while let Some((socket, to)) = self.tracker.poll_transmit(&mut answer) {
            assert!(socket == SOCKET && to == from, "nobody else has asked just now");
            assert!(is_verified || answer.len() <= packet.len(), "{} bytes for {}", answer.len(), packet.len());
            self.hear(to, &answer);
        }
        assert!(self.unanswered + 1 >= answers, "one answer at most");
    }

    fn hear(&mut self, to: SocketAddr, answer: &[u8]) {
        self.unanswered = self.unanswered.checked_sub(1).expect("there are no more answers than requests");
        assert!(answer.len() <= 1400, "it passes every network");
        match Response::parse(answer, to.is_ipv6()).expect("it can be read") {
            Response::Connect { connection, .. } => self.ids.entry(to.ip()).or_default().push(connection),
            Response::Announce { peers, .. } => assert!(peers.len() <= PEERS_MAX),
            Response::Scrape { .. } | Response::Error { .. } => {}
        }
    }

    /// Lets a connection's machine step through what came.
    fn serve(&mut self, number: usize) {
        let (from, server, kept) = &mut self.conns[number];
        let (bytes, mut body) = (std::mem::take(kept), Vec::new());
        let mut input = &bytes[..];
        while let Some(request) = server.handle_input(self.now, &mut input) {
            let conn = ConnId::from_bits(number as u64);
            if let Some(answered) = self.tracker.answer(self.now, conn, *from, &request, &mut body) {
                server.respond(self.now, answered.status, answered.kind, &body);
            }
        }
        *kept = input.to_vec();
        let len = server.outgoing().len();
        server.advance(self.now, len);
        if server.is_over() {
            *kept = Vec::new();
            *server = HttpServer::accepted(self.now);
        }
    }

    fn store(&mut self, how: u8, script: &mut Script<'_>) {
        let now = self.now;
        let Some(store) = self.tracker.store() else { return };
        let Some(&link) = self.links.first() else { return };
        match how % 6 {
            0 => store.handle_closed(now, link),
            1 => store.handle_connected(now, link),
            _ => {
                let len = store.outgoing(link).len();
                store.advance(link, len);
                for _ in 0..1 + script.byte() % 8 {
                    let reply = script.reply();
                    store.handle_input(now, link, &reply);
                }
            }
        }
    }

    /// Time goes by, and is told of.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..200 {
            let next = self.tracker.poll_timeout();
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            self.tracker.handle_timeout(self.now);
            assert!(self.tracker.poll_timeout() > self.now, "it spins");
            self.settle();
        }
        self.now = end;
        for number in 0..CONNS {
            let (_, server, kept) = &mut self.conns[number];
            // One whose answer is being looked for has all the time of the world.
            if server.poll_timeout() <= end && server.handle_timeout(end) {
                *kept = Vec::new();
                *server = HttpServer::accepted(end);
            }
        }
    }

    /// Does what the tracker wants, and looks at its bounds.
    fn settle(&mut self) {
        self.tracker.handle_store(self.now);
        while let Some(need) = self.tracker.store().and_then(swarmtorrent::protocol::redis::Redis::poll_need) {
            match need {
                Need::Connect(link, _) => self.links.push(link),
                Need::Close(link) => self.links.retain(|other| *other != link),
                Need::Wake(_) => {}
                Need::Resolve(name) => panic!("{name} is an address"),
            }
            assert!(self.links.len() <= 70, "as many as a cluster may have");
        }
        let mut answer = Vec::new();
        while let Some((_, to)) = self.tracker.poll_transmit(&mut answer) {
            self.hear(to, &answer);
        }
        while let Some((conn, answered, body)) = self.tracker.poll_answer() {
            let number = usize::try_from(conn.to_bits()).unwrap();
            let server = &mut self.conns[number].1;
            if server.is_asked() {
                server.respond(self.now, answered.status, answered.kind, &body);
                self.serve(number);
            }
        }
        let state = self.tracker.state(self.now);
        assert!(state.swarms <= SWARMS_MAX && state.peers <= PEERS_MAX, "{state:?}");
    }
}
