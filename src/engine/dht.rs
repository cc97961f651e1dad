//! Our nodes in the DHT among the rest: through which sockets they speak, where they begin, who looks for peers, and what is kept.
//!
//! Each address is a node of its own (BEP 45). Torrents are announced by each of them in turn; what is looked for or put just once
//! goes through the one that knows most nodes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::canonical_addr;
use crate::base::config::Config;
use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::ids::{SocketId, TorrentId};
use crate::base::rng::Rng;
use crate::base::storage::{Job, Storage};
use crate::base::time::Time;
use crate::codec::dht_state;
use crate::engine::asks::Purpose;
use crate::engine::proxy::is_stand_in;
use crate::engine::questions::Questions;
use crate::engine::{Engine, Transmit};
use crate::protocol::dht::items::OwnedItem;
use crate::protocol::dht::{Announcement, Dht, Event, Settings, Summary};
use crate::protocol::dns::Found;

/// Where it is kept, below the state directory.
pub const DHT_STATE: &str = "dht";
/// How often.
const SAVE_EVERY: Duration = Duration::from_mins(10);
/// How soon names that could not be looked up are tried again; doubles each time.
const NAMES_AGAIN: Duration = Duration::from_mins(1);
/// The longest wait between two tries.
const NAMES_AGAIN_MAX: Duration = Duration::from_hours(1);
/// Nodes of ours, one for each address of a family (BEP 45); at a further address nothing is said and nobody answered.
const NODES_MAX: usize = 8;
/// Names to begin with; further ones are passed over.
const NAMES_MAX: usize = 64;

/// One node of ours: an address of each family at most, and what is known there. It has nothing in common with the others but
/// that it looks for the same, so that to strangers they are different nodes (BEP 45).
#[derive(Debug)]
pub(super) struct DhtNode {
    pub(super) dht: Dht,
    /// By family, IPv4 first: through which socket it speaks, and where that is bound.
    sockets: [Option<(SocketId, SocketAddr)>; 2],
}

impl DhtNode {
    /// Where its sockets are bound; IPv4 first.
    pub(super) fn listen(&self) -> [Option<SocketAddr>; 2] {
        self.sockets.map(|socket| socket.map(|(_, addr)| addr))
    }

    fn has(&self, socket: SocketId) -> bool {
        self.sockets.iter().flatten().any(|(own, _)| *own == socket)
    }

    fn good(&self, now: Time) -> usize {
        self.dht.view(now).iter().flatten().map(|family| family.good).sum()
    }
}

/// All our nodes and what the engine knows of them. There is at least one.
#[derive(Debug)]
pub(super) struct DhtNodes {
    pub(super) nodes: Vec<DhtNode>,
    /// Their sockets are their own.
    pub(super) is_apart: bool,
    pub(super) is_read_only: bool,
    pub(super) questions: Questions,
    /// Nodes to begin with, by name, that are not yet known by address.
    pub(super) names: Vec<(String, u16)>,
    names_at: Time,
    names_again: Duration,
    save_at: Time,
}

impl DhtNodes {
    /// The nodes that the config wants: the first has the first address of each family, the second the second.
    pub(super) fn new(config: &Config, mut rng: Rng) -> Option<Self> {
        let of_family = |v6: bool| config.dht_sockets().filter(move |(_, addr)| addr.is_ipv6() == v6);
        let count = of_family(false).count().max(of_family(true).count());
        if !config.dht || count == 0 {
            return None;
        }
        if count > NODES_MAX {
            log::warn!("the DHT speaks at {NODES_MAX} addresses of a family at most; it is silent at the others");
        }
        let node = |at: usize| {
            let sockets = [false, true].map(|v6| of_family(v6).nth(at));
            let settings = Settings { read_only: config.dht_read_only, anonymous: config.anonymous };
            DhtNode { dht: Dht::new(settings, sockets.map(|socket| socket.is_some()), rng.fork("node")), sockets }
        };
        let mut nodes = Self {
            nodes: (0..count.min(NODES_MAX)).map(node).collect(),
            is_apart: !config.dht_listen.is_empty(),
            is_read_only: config.dht_read_only,
            questions: Questions::default(),
            names: Vec::new(),
            names_at: Time::NEVER,
            names_again: NAMES_AGAIN,
            save_at: Time::ZERO + SAVE_EVERY,
        };
        config.dht_bootstrap.iter().for_each(|(host, port)| nodes.begin_with(Time::ZERO, host, *port));
        Some(nodes)
    }

    /// The sockets of the config are others, of the same families as before.
    pub(super) fn set_sockets(&mut self, config: &Config) {
        let of_family = |v6: bool| config.dht_sockets().filter(move |(_, addr)| addr.is_ipv6() == v6);
        for (at, node) in self.nodes.iter_mut().enumerate() {
            for (own, v6) in node.sockets.iter_mut().zip([false, true]) {
                if let Some(own) = own {
                    *own = of_family(v6).nth(at).unwrap_or(*own);
                }
            }
        }
    }

    /// Which of our nodes should look for something that one is enough for: the one that knows most nodes.
    pub(super) fn best(&self, now: Time) -> usize {
        (0..self.nodes.len()).rev().max_by_key(|at| self.nodes[*at].good(now)).unwrap_or(0)
    }

    /// Looks for an item; how many searches that is.
    pub(super) fn find_item(&mut self, now: Time, target: Sha1Hash, salt: &[u8]) -> usize {
        let best = self.best(now);
        self.nodes[best].dht.find_item(now, target, salt)
    }

    /// Has an item kept by others; how many searches that is.
    pub(super) fn put_item(&mut self, now: Time, item: OwnedItem) -> usize {
        let best = self.best(now);
        self.nodes[best].dht.put_item(now, item, None)
    }

    /// Nobody of us has to do with a swarm any more.
    pub(super) fn leave(&mut self, now: Time, info_hash: InfoHash) {
        self.nodes.iter_mut().for_each(|node| node.dht.leave(now, info_hash));
    }

    /// Somebody says that a node is here: whoever of us knows fewest asks it, not all at once.
    pub(super) fn hear_of(&mut self, now: Time, addr: SocketAddr) {
        let v6 = usize::from(canonical_addr(addr).is_ipv6());
        let speaking = self.nodes.iter_mut().filter(|node| node.sockets[v6].is_some());
        if let Some(node) = speaking.min_by_key(|node| node.good(now)) {
            node.dht.add_node(now, addr, false);
        }
    }

    /// A datagram came to one of our sockets: its node answers, from there. False if it is none of the DHT.
    pub(super) fn handle_packet(&mut self, now: Time, socket: SocketId, from: SocketAddr, packet: &[u8]) -> bool {
        let node = self.nodes.iter_mut().find(|node| node.has(socket));
        node.is_some_and(|node| node.dht.handle_packet(now, from, packet))
    }

    /// A node to begin with, wherever it is.
    pub(super) fn begin_with(&mut self, now: Time, host: &str, port: u16) {
        match host.parse::<IpAddr>() {
            Ok(ip) => {
                let addr = SocketAddr::new(ip, port);
                self.nodes.iter_mut().for_each(|node| node.dht.add_node(now, addr, true));
            }
            Err(_) if self.names.len() < NAMES_MAX => {
                let name = (host.to_ascii_lowercase(), port);
                if !self.names.contains(&name) {
                    self.names.push(name);
                }
                self.names_at = self.names_at.min(now);
            }
            Err(_) => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Time {
        let nodes = self.nodes.iter().map(|node| node.dht.poll_timeout()).min().unwrap_or(Time::NEVER);
        nodes.min(self.names_at).min(self.save_at)
    }

    /// Where the next datagram goes, and through which socket.
    pub(super) fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<Transmit> {
        self.nodes.iter_mut().find_map(|DhtNode { dht, sockets }| {
            let to = dht.poll_transmit(packet)?;
            let (socket, _) = sockets[usize::from(to.is_ipv6())].expect("it speaks only where it has a socket");
            Some(Transmit { socket, to })
        })
    }

    /// The next thing that came of a search of any of our nodes.
    fn poll_event(&mut self) -> Option<Event> {
        self.nodes.iter_mut().find_map(|node| node.dht.poll_event())
    }

    /// Swarms, peers and items that are kept for others.
    pub(super) fn stored(&self) -> (usize, usize, usize) {
        let all = self.nodes.iter().map(|node| node.dht.stored());
        all.fold((0, 0, 0), |sum, stored| (sum.0 + stored.0, sum.1 + stored.1, sum.2 + stored.2))
    }

    /// Queries that were answered, and those that were not.
    pub(super) fn counts(&self) -> (u64, u64) {
        let all = self.nodes.iter().map(|node| node.dht.counts());
        all.fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1))
    }

    /// A name was looked up.
    pub(super) fn handle_resolved(&mut self, now: Time, name: &str, found: &Found) {
        let Ok(ips) = found else { return };
        let nodes = &mut self.nodes;
        self.names.retain(|(host, port)| {
            let is_it = host == name;
            for addr in ips.iter().map(|ip| SocketAddr::new(*ip, *port)).filter(|_| is_it) {
                nodes.iter_mut().for_each(|node| node.dht.add_node(now, addr, true));
            }
            !is_it
        });
        if self.names.is_empty() {
            self.names_at = Time::NEVER;
        }
    }

    /// What the next run should know.
    fn state(&self) -> Vec<u8> {
        let all: Vec<_> = self.nodes.iter().map(|node| [false, true].map(|v6| node.dht.state(v6))).collect();
        dht_state::write(&all)
    }
}

/// The port at which peers are let in where a node of ours has `addr`: of the same address, or of all; 0 if nobody is let in
/// there, for whoever hears of us takes the address that we speak from.
fn port_at(listen: &[SocketAddr], addr: SocketAddr) -> u16 {
    let is_there = |listen: &&SocketAddr| {
        let is_any = listen.ip().is_unspecified() || addr.ip().is_unspecified();
        listen.is_ipv6() == addr.is_ipv6() && (listen.ip() == addr.ip() || is_any)
    };
    listen.iter().find(is_there).map_or(0, SocketAddr::port)
}

impl<S: Storage> Engine<S> {
    /// Takes over what an earlier run knew of the DHT; damaged bytes are as good as none.
    pub fn restore_dht(&mut self, now: Time, bytes: &[u8]) {
        let Some(nodes) = &mut self.dht else { return };
        match dht_state::parse(bytes) {
            Some(kept) => {
                for (node, families) in nodes.nodes.iter_mut().zip(&kept) {
                    for (v6, (id, known)) in [false, true].into_iter().zip(families) {
                        let known: Vec<_> = known.iter().filter(|node| !is_stand_in(node.addr.ip())).copied().collect();
                        node.dht.restore(now, v6, *id, &known);
                    }
                }
            }
            None => log::warn!("what was kept of the DHT is damaged; it begins anew"),
        }
    }

    /// What it counts, for `stats`.
    pub(super) fn dht_rows(&self) -> Vec<(String, u64)> {
        let Some(nodes) = &self.dht else { return Vec::new() };
        let ((swarms, peers, items), (answered, refused)) = (nodes.stored(), nodes.counts());
        let stored = [("dht.swarms", swarms), ("dht.peers", peers), ("dht.items", items)];
        let counts = [("dht.queries_answered", answered), ("dht.queries_refused", refused)];
        let rows = stored.map(|(name, count)| (name, count as u64)).into_iter().chain(counts);
        rows.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Nodes that answered lately, of both families; none without a DHT.
    pub(super) fn dht_nodes(&self, now: Time) -> Option<usize> {
        self.dht.as_ref().map(|nodes| nodes.nodes.iter().map(|node| node.good(now)).sum())
    }

    /// Where the DHT speaks, as bound.
    pub(super) fn dht_listen(&self) -> Vec<SocketAddr> {
        self.dht.iter().flat_map(|nodes| &nodes.nodes).flat_map(|node| node.listen().into_iter().flatten()).collect()
    }

    /// A timer of the DHT has come.
    pub(super) fn handle_dht_timeout(&mut self, now: Time) {
        let Some(node) = &mut self.dht else { return };
        node.nodes.iter_mut().for_each(|node| node.dht.handle_timeout(now));
        if node.save_at <= now {
            node.save_at = now + SAVE_EVERY;
            self.save_dht(now);
        }
        let Some(node) = &mut self.dht else { return };
        if node.names_at <= now {
            node.names_at = now + node.names_again;
            node.names_again = (node.names_again * 2).min(NAMES_AGAIN_MAX);
            let names: Vec<String> = node.names.iter().map(|(host, _)| host.clone()).collect();
            names.iter().for_each(|name| self.resolve(now, name));
        }
    }

    /// Keeps what the next run should know. While nobody answers, what is kept is better than what is known.
    pub(super) fn save_dht(&mut self, now: Time) {
        let answers = self.dht_nodes(now) > Some(0);
        if let Some(node) = self.dht.as_ref().filter(|_| answers) {
            let bytes = node.state();
            self.start_job(Job::Record { name: DHT_STATE.to_owned(), value: Some(bytes) }, Purpose::Other);
        }
    }

    /// A torrent looks for peers, if it is time and there is a DHT.
    pub(super) fn search_dht(&mut self, now: Time, id: TorrentId) {
        let speaks = self.sends_datagrams();
        let Some(torrent) = self.torrents.get_mut(id).filter(|torrent| torrent.wants_dht(now)) else { return };
        let Some(nodes) = self.dht.as_mut().filter(|_| speaks) else { return torrent.handle_dht_began(now, 0, 1) };
        let count = nodes.nodes.len();
        let node = &mut nodes.nodes[torrent.dht_turn() % count];
        let ports = node.listen().map(|addr| addr.map_or(0, |addr| port_at(&self.config.listen, addr)));
        let ports = if self.config.anonymous { [0; 2] } else { ports };
        let announcement = Announcement { ports, seed: torrent.is_finished() };
        let announcement = Some(announcement).filter(|_| !torrent.is_peek());
        let searches = node.dht.find_peers(now, torrent.info_hash(), announcement);
        torrent.handle_dht_began(now, searches, u32::try_from(count).expect("a few"));
        self.stats.dht_searches += 1;
    }

    /// Tells torrents what came of their searches.
    pub(super) fn act_on_dht(&mut self, now: Time) {
        while let Some(event) = self.dht.as_mut().and_then(DhtNodes::poll_event) {
            if let Some(nodes) = &mut self.dht {
                nodes.questions.handle_event(now, &event);
            }
            if let Event::Put(target, kept_by, _) = event {
                self.shares.handle_put(now, target, kept_by);
                continue;
            }
            if let Event::Item(target, item, _) = event {
                self.handle_version(now, target, item);
                continue;
            }
            let (Event::Peers(info_hash, _) | Event::Searched(info_hash, _)) = &event else { continue };
            let Some(&id) = self.by_hash.get(info_hash) else { continue };
            let torrent = self.torrents.get_mut(id).expect("by_hash names torrents that are there");
            match event {
                Event::Peers(_, peers) => torrent.handle_dht_peers(now, &peers),
                Event::Searched(_, Summary { announces, announced, .. }) if announces != torrent.is_peek() => {
                    torrent.handle_dht_searched(now, announced);
                }
                _ => continue, // a user's search
            }
            self.touched.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::codec::krpc::{Body, Message, NodeId, Query};

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nodes(listen: &[&str]) -> DhtNodes {
        let listen = listen.iter().map(|text| addr(text)).collect();
        let bootstrap = vec![("11.0.0.9".to_owned(), 1)];
        let config = Config { listen, dht_bootstrap: bootstrap, ..Config::default() };
        DhtNodes::new(&config, Rng::from_number(1)).unwrap()
    }

    /// What leaves now: through which socket, where to, and by whose number.
    fn said(nodes: &mut DhtNodes) -> Vec<(SocketId, SocketAddr, NodeId)> {
        let mut packet = Vec::new();
        std::iter::from_fn(|| {
            let Transmit { socket, to } = nodes.poll_transmit(&mut packet)?;
            let (Body::Query { id, .. } | Body::Response { id, .. }) = Message::parse(&packet)?.body else { panic!() };
            Some((socket, to, id))
        })
        .collect()
    }

    #[test]
    fn each_address_is_a_node_of_its_own_that_answers_from_there() {
        let mut nodes = nodes(&["11.0.0.1:1", "[2001:db8::1]:2", "11.0.0.2:3"]);
        nodes.nodes.iter_mut().for_each(|node| node.dht.handle_timeout(Time::ZERO));
        let begun = said(&mut nodes);
        let sockets: Vec<_> = begun.iter().map(|(socket, to, _)| (*socket, *to)).collect();
        let begin = addr("11.0.0.9:1");
        assert_eq!(sockets, [(SocketId::Peers(0), begin), (SocketId::Peers(2), begin)]);

        let body = Body::Query { id: Sha1Hash([7; 20]), read_only: true, query: Query::Ping };
        let mut ping = Vec::new();
        Message { transaction: b"aa", seen_as: None, version: None, body }.write(&mut ping);
        let mut ids = BTreeSet::new();
        for (socket, from) in [(0, "11.0.0.8:5"), (1, "[2001:db8::8]:5"), (2, "11.0.0.8:5")] {
            assert!(nodes.handle_packet(Time::ZERO, SocketId::Peers(socket), addr(from), &ping));
            let answers = said(&mut nodes);
            assert_eq!(
                answers.iter().map(|answer| (answer.0, answer.1)).collect::<Vec<_>>(),
                [(SocketId::Peers(socket), addr(from))]
            );
            ids.insert(answers[0].2);
        }
        assert_eq!(ids.len(), 3, "each has a number of its own");
        assert!(!nodes.handle_packet(Time::ZERO, SocketId::Peers(3), addr("11.0.0.8:5"), &ping), "nobody is there");
    }

    #[test]
    fn more_addresses_than_there_may_be_are_silent() {
        let listen: Vec<String> = (1..20).map(|last| format!("11.0.0.{last}:1")).collect();
        let mut nodes = nodes(&listen.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(nodes.nodes.len(), NODES_MAX);
        let socket = SocketId::Peers(u16::try_from(NODES_MAX).unwrap());
        assert!(!nodes.handle_packet(Time::ZERO, socket, addr("11.0.0.99:1"), b"d1:y1:qe"));
    }

    #[test]
    fn one_of_us_asks_whoever_was_heard_of_and_all_of_us_where_to_begin() {
        let mut nodes = nodes(&["11.0.0.1:1", "11.0.0.2:3"]);
        nodes.hear_of(Time::ZERO, addr("11.0.0.7:7"));
        assert_eq!(said(&mut nodes).len(), 1);
        nodes.begin_with(Time::ZERO, "11.0.0.6", 6);
        nodes.nodes.iter_mut().for_each(|node| node.dht.handle_timeout(Time::ZERO));
        let asked: Vec<_> = said(&mut nodes).into_iter().filter(|(_, to, _)| *to == addr("11.0.0.6:6")).collect();
        assert_eq!(asked.len(), 2);
    }

    #[test]
    fn peers_are_sent_to_where_they_are_let_in() {
        let listen = [addr("11.0.0.1:1"), addr("11.0.0.2:2"), addr("[::]:3")];
        assert_eq!(port_at(&listen, addr("11.0.0.2:9")), 2);
        assert_eq!(port_at(&listen, addr("11.0.0.3:9")), 0);
        assert_eq!(port_at(&listen, addr("0.0.0.0:9")), 1);
        assert_eq!(port_at(&listen, addr("[2001:db8::1]:9")), 3);
    }
}
