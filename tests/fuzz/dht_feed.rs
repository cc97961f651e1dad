//! Turns any bytes into a life of a DHT node: datagrams of strangers (raw, well made, or answers to what it asked), time, and what
//! its user wants. Used by the fuzz target and by the tests.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "it fails where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::krpc::{Body, Item, Message, Node, PACKET_MAX, Query, Response, Samples, Want};
use swarmtorrent::protocol::dht::items::OwnedItem;
use swarmtorrent::protocol::dht::{Announcement, Dht, Settings};

/// Who sends: on the public network and on local ones, in both families.
const SOURCES: [&str; 8] = [
    "11.0.0.1:6881",
    "11.0.0.2:6881",
    "11.0.0.2:6882",
    "200.1.2.3:1",
    "127.0.0.1:7",
    "192.168.1.2:6881",
    "[2001:db8::1]:6881",
    "[::1]:6881",
];
/// Steps of one life.
const STEPS_MAX: usize = 400;
/// Things its user wants in one life.
const WISHES_MAX: usize = 24;

/// The bytes of the script, one after another; zeroes after their end.
struct Script<'s>(&'s [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, most: usize) -> &[u8] {
        let len = usize::from(self.byte()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn source(&mut self) -> SocketAddr {
        SOURCES[usize::from(self.byte()) % SOURCES.len()].parse().unwrap()
    }

    fn hash(&mut self) -> Sha1Hash {
        Sha1Hash::of(&[self.byte() % 16])
    }
}

/// The node, and what strangers learnt from it.
struct Life {
    now: Time,
    dht: Dht,
    /// What it asked: of whom, and with which transaction.
    asked: Vec<(SocketAddr, Vec<u8>)>,
    /// Tokens that it gave, by address; each was good for a while.
    tokens: BTreeMap<IpAddr, BTreeSet<Vec<u8>>>,
    wishes: usize,
}

/// Lives through the script. It panics if the node does, or goes beyond a bound.
pub fn feed(script: &[u8]) {
    let mut script = Script(script);
    let settings = Settings { read_only: script.byte() == 255, ..Settings::default() };
    let mut life = Life {
        now: Time::ZERO,
        dht: Dht::new(settings, [true, true], Rng::from_number(1)),
        asked: Vec::new(),
        tokens: BTreeMap::new(),
        wishes: 0,
    };
    for step in 0..STEPS_MAX {
        if script.0.is_empty() {
            break;
        }
        life.step(&mut script);
        if step % 32 == 0 {
            life.dht.check();
        }
    }
    // Left alone it forgets, and rests or waits for a moment that lies ahead.
    for _ in 0..100 {
        life.pass(Duration::from_secs(60));
    }
    life.dht.check();
}

impl Life {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 8 {
            0 => {
                let from = script.source();
                let packet = script.bytes(255).to_vec();
                self.receive(from, &packet);
            }
            1 | 2 => self.query(script),
            3 | 4 => self.answer(script),
            5 => {
                let millis = u64::from(script.byte()) * u64::from(script.byte()) * 7;
                self.pass(Duration::from_millis(millis));
            }
            6 => self.wish(script),
            _ => {
                let (from, byte) = (script.source(), script.byte());
                (0..64).for_each(|_| self.receive(from, &[byte]));
            }
        }
    }

    /// A datagram comes; whatever leaves is looked at.
    fn receive(&mut self, from: SocketAddr, packet: &[u8]) {
        let stored = self.dht.stored();
        let good = self.is_licensed(from, packet);
        self.dht.handle_packet(self.now, from, packet);
        if !good {
            assert!(self.dht.stored() == stored, "it keeps what nobody had a token for");
        }
        self.drain();
    }

    /// True unless it is an announce or a put with a token that was never given to this address.
    fn is_licensed(&self, from: SocketAddr, packet: &[u8]) -> bool {
        let Some(Message { body: Body::Query { query, .. }, .. }) = Message::parse(packet) else { return true };
        let (Query::AnnouncePeer { token, .. } | Query::Put { token, .. }) = query else { return true };
        self.tokens.get(&from.ip()).is_some_and(|given| given.contains(token))
    }

    fn drain(&mut self) {
        let mut packet = Vec::new();
        while let Some(to) = self.dht.poll_transmit(&mut packet) {
            assert!(packet.len() <= PACKET_MAX, "{} bytes", packet.len());
            let message = Message::parse(&packet).expect("it sends messages only");
            match message.body {
                Body::Query { .. } => self.asked.push((to, message.transaction.to_vec())),
                Body::Response { response, .. } => {
                    let token = response.token.map(<[u8]>::to_vec);
                    self.tokens.entry(to.ip()).or_default().extend(token);
                }
                Body::Error { .. } => {}
            }
        }
        let keep = self.asked.len().saturating_sub(64);
        self.asked.drain(..keep);
        while self.dht.poll_event().is_some() {}
    }

    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.dht.poll_timeout() <= until {
            self.now = self.now.max(self.dht.poll_timeout());
            self.dht.handle_timeout(self.now);
            assert!(self.dht.poll_timeout() > self.now, "it spins");
            self.drain();
        }
        self.now = until;
    }

    /// Says a message, perhaps damaged.
    fn say(&mut self, script: &mut Script<'_>, from: SocketAddr, message: &Message<'_>) {
        let mut packet = Vec::new();
        message.write(&mut packet);
        let damage = script.byte();
        if damage >= 192 {
            let at = usize::from(script.byte()) * packet.len() / 256;
            packet[at] ^= script.byte();
        } else if damage >= 160 {
            packet.truncate(usize::from(script.byte()) * packet.len() / 256);
        }
        self.receive(from, &packet);
    }

    fn query(&mut self, script: &mut Script<'_>) {
        let (from, id, target) = (script.source(), script.hash(), script.hash());
        // A token that was given to somebody, perhaps to another one.
        let whose = script.source().ip();
        let token = self.tokens.get(&whose).and_then(|given| given.last()).cloned().unwrap_or_default();
        let flags = script.byte();
        let want = Want { v4: flags & 1 != 0, v6: flags & 2 != 0 };
        let value = format!("{}:{}", flags, "x".repeat(flags.into()));
        let query = match script.byte() % 7 {
            0 => Query::Ping,
            1 => Query::FindNode { target, want },
            2 => Query::GetPeers { info_hash: target, want, no_seeds: flags & 4 != 0, scrape: flags & 8 != 0 },
            3 => {
                let port = Some(u16::from(flags)).filter(|port| *port != 0);
                Query::AnnouncePeer { info_hash: target, port, seed: flags & 4 != 0, token: &token }
            }
            4 => Query::Sample { target, want },
            5 => Query::Get { target: Sha1Hash::of(value.as_bytes()), want, newer_than: None },
            _ => {
                let item = Item { value: value.as_bytes(), author: None };
                Query::Put { token: &token, item, replaces: None }
            }
        };
        let body = Body::Query { id, read_only: flags & 16 != 0, query };
        self.say(script, from, &Message { transaction: b"tt", seen_as: None, version: None, body });
    }

    /// Answers something that it asked, with nodes, peers and samples that are whatever they are.
    fn answer(&mut self, script: &mut Script<'_>) {
        let which = usize::from(script.byte());
        let Some((to, transaction)) = self.asked.iter().rev().nth(which % self.asked.len().max(1)).cloned() else {
            return;
        };
        // Now and then somebody else answers.
        let from = if script.byte() < 16 { script.source() } else { to };
        let (id, count) = (script.hash(), usize::from(script.byte()) % 40);
        let nodes: Vec<Node> = (0..count).map(|_| Node { id: script.hash(), addr: script.source() }).collect();
        let (v6, v4): (Vec<Node>, Vec<Node>) = nodes.iter().partition(|node| node.addr.is_ipv6());
        let hashes: Vec<[u8; 20]> = nodes.iter().map(|node| node.id.0).collect();
        let samples = Samples { hashes: &hashes, known: 9, interval_secs: u32::from(script.byte()) };
        let token = script.bytes(64).to_vec();
        let seen_as = Some(script.source()).filter(|_| count % 2 == 0);
        let response = Response {
            token: Some(&token).filter(|token| !token.is_empty()).map(|token| &token[..]),
            nodes: Some(v4),
            nodes6: Some(v6),
            peers: nodes.iter().map(|node| node.addr).collect(),
            samples: Some(samples),
            value: Some(b"5:hello"),
            ..Response::default()
        };
        let body = Body::Response { id, response: Box::new(response) };
        self.say(script, from, &Message { transaction: &transaction, seen_as, version: None, body });
    }

    fn wish(&mut self, script: &mut Script<'_>) {
        self.wishes += 1;
        if self.wishes > WISHES_MAX {
            return;
        }
        let (now, hash) = (self.now, script.hash());
        let dht = &mut self.dht;
        match script.byte() % 6 {
            0 => dht.add_node(now, script.source(), true),
            1 => dht.add_node(now, script.source(), false),
            2 => drop(dht.find_peers(now, hash, Some(Announcement { ports: [6881, 0], seed: false }))),
            3 => drop(dht.sample(now, usize::from(script.byte()))),
            4 => drop(dht.find_item(now, hash, b"")),
            _ => drop(dht.put_item(now, OwnedItem { value: b"5:hello".to_vec(), author: None }, None)),
        }
        self.drain();
    }
}
