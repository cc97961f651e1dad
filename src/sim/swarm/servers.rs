//! The servers of a scenario: trackers that are the daemon's own, the stores that they share, and the crowds that come to them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::config::{Config, Secret, TrackerConfig};
use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::sim::crowd::{Aim, Crowd, CrowdReport};
use crate::sim::faults::Fault;
use crate::sim::network::jitter;
use crate::sim::node::{Body, Clock, Node};
use crate::sim::redis::{PASSWORD, Store};
use crate::sim::scenario::{CrowdSpec, TrackerKind, TrackerSpec};
use crate::sim::swarm::{EPOCH_NANOS, PORT, Swarm, tracker_addr};
use crate::sim::trace::What;

/// The port of stores.
const STORE_PORT: u16 = 6379;
/// The first address of those who only announce.
const CROWD: u32 = 0x0ac0_0001;
/// A reading of the store that takes longer comes too late for who waits for it, or nearly so.
const TRIP_MAX: Duration = Duration::from_millis(200);
/// A peer that is silent for so many intervals is forgotten.
const INTERVALS: u32 = 2;

/// A server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    /// Which of the world's nodes.
    pub(super) node: usize,
    /// A tracker's; none for a store.
    config: Option<Box<Config>>,
    rng: Rng,
}

/// A tracker's address as a torrent names it.
pub(super) fn url(index: usize, spec: &TrackerSpec) -> String {
    let addr = tracker_addr(index);
    if spec.http { format!("http://{addr}/announce") } else { format!("udp://{addr}") }
}

impl Swarm<'_> {
    pub(super) fn add_stores(&mut self, rng: &mut Rng) {
        let network = &self.scenario.network;
        for (index, spec) in self.scenario.store.iter().enumerate() {
            let ip = IpAddr::from([10, 253, 0, 1 + u8::try_from(index % 200).expect("below 200")]);
            let body = Body::Store(Store::new(spec.forgets));
            let mut node = Node::new(spec.name.clone(), SocketAddr::new(ip, STORE_PORT), body);
            node.extra = spec.delay;
            let node = self.world.add(node);
            self.world.ledger.add_domain(Some(node));
            self.servers.push(Server { name: spec.name.clone(), node, config: None, rng: rng.fork("store") });
            let trip = (network.delay + network.jitter + spec.delay) * 2;
            if network.loss > 0.0 || trip > TRIP_MAX {
                self.world.ledger.befalls_streams(Time::NEVER);
            }
        }
    }

    pub(super) fn add_server(&mut self, index: usize, spec: &TrackerSpec, rng: &mut Rng) {
        let addr = tracker_addr(index);
        let name = self.scenario.tracker_name(index);
        let store = spec.store.as_ref().map(|store| {
            let store = self.servers.iter().find(|server| server.name == *store).expect("checked by the scenario");
            (store.node, self.world.nodes[store.node].addr)
        });
        let domain = match store {
            Some((node, _)) => self.world.ledger.domain_of_store(node),
            None => self.world.ledger.add_domain(None),
        };
        let tracker = TrackerConfig {
            udp: vec![addr],
            http: vec![addr],
            interval: spec.interval,
            store: store.map(|(_, addr)| Secret(format!("redis://:{PASSWORD}@{addr}/1"))),
            ..TrackerConfig::default()
        };
        let listen = vec![SocketAddr::new(addr.ip(), PORT)];
        let config = Config { listen, tracker, dht: false, lsd: false, downloads: PathBuf::new(), ..Config::default() };
        let node = Node::new(name.clone(), addr, Body::Down(Box::default()));
        let node = self.world.add(node);
        self.world.ledger.add_tracker(node, addr, addr, spec.interval * INTERVALS, domain);
        self.servers.push(Server { name, node, config: Some(Box::new(config)), rng: rng.fork("tracker") });
        self.start_server(node);
    }

    /// Runs the program of a server, if `node` is one.
    pub(super) fn start_server(&mut self, node: usize) {
        let Some(server) = self.servers.iter_mut().find(|server| server.node == node) else { return };
        if self.world.nodes[node].is_up() {
            return;
        }
        let now = self.world.now;
        self.world.trace.note(now, node, What::Fate("starts"), &[]);
        let machine = &mut self.world.nodes[node];
        machine.is_silent = false;
        match (&mut machine.body, &server.config) {
            (Body::Store(store), _) => store.start(),
            (Body::Down(storage), Some(config)) => {
                let storage = std::mem::take(&mut **storage);
                machine.clock = Clock { started: now, ahead: Duration::ZERO, ppm: machine.clock.ppm };
                let unix_nanos = EPOCH_NANOS + now.as_nanos();
                let config = Config::clone(config);
                let mut engine = Engine::new(config, unix_nanos, server.rng.fork("engine"), storage);
                engine.handle_restored(Time::ZERO);
                machine.body = Body::Engine(Box::new(engine));
            }
            _ => unreachable!("a server is a store or a tracker"),
        }
        self.world.stir(node);
    }

    /// Servers that a fault may befall, if it names them.
    pub(super) fn servers_of<'a>(&'a self, names: &'a [String]) -> impl Iterator<Item = usize> + 'a {
        let named = self.servers.iter().filter(|server| names.contains(&server.name));
        named.map(|server| server.node).filter(|node| self.world.nodes[*node].is_up())
    }

    /// Programs that a fault has ended run again.
    pub(super) fn start_again(&mut self, fault: Fault) {
        for node in fault.nodes {
            match self.parts.iter().position(|part| part.node == node) {
                Some(part) => self.start(part),
                None => self.start_server(node),
            }
        }
    }

    /// Those who only announce, and one for each server who only looks.
    pub(super) fn add_crowds(&mut self, rng: &mut Rng) {
        let trackers: Vec<(SocketAddr, String)> = (self.scenario.tracker.iter().enumerate())
            .filter(|(_, spec)| spec.kind == TrackerKind::Server)
            .map(|(index, _)| (tracker_addr(index), self.scenario.tracker_name(index)))
            .collect();
        if trackers.is_empty() {
            return;
        }
        let mut hashes: Vec<InfoHash> = self.made.iter().map(|made| made.info_hash).collect();
        let mut clients = Vec::new();
        for (number, spec) in self.scenario.crowd.iter().enumerate() {
            let swarms = self.swarms_of(number, spec);
            hashes.extend(swarms.iter().copied().filter(|hash| !hashes.contains(hash)).collect::<Vec<_>>());
            let is_known = |(_, name): &&(SocketAddr, String)| spec.tracker.as_ref().is_none_or(|known| known == name);
            let known: Vec<SocketAddr> = trackers.iter().filter(is_known).map(|(addr, _)| *addr).collect();
            for index in 0..spec.count {
                let later = if index == 0 { Duration::ZERO } else { jitter(rng, spec.within) };
                let arrives = Time::ZERO + spec.arrives + later;
                let leaves = spec.stays.map_or(Time::NEVER, |stays| arrives + stays + jitter(rng, spec.longer));
                let round = index / swarms.len();
                let is_seed = spec.seeds > 0 && round.is_multiple_of(spec.seeds);
                let aim = Aim::Announce {
                    info_hash: swarms[index % swarms.len()],
                    left: u64::from(!is_seed),
                    arrives,
                    leaves,
                    says_goodbye: !spec.vanishes,
                };
                let tracker = known.get(index % known.len().max(1)).copied();
                clients.push((crowd_addr(clients.len()), tracker.unwrap_or(trackers[0].0), aim));
            }
        }
        for (tracker, _) in &trackers {
            clients.push((crowd_addr(clients.len()), *tracker, Aim::Scrape(hashes.clone())));
        }
        let addr = clients[0].0;
        let crowd = Body::Crowd(Crowd::new(clients, rng.fork("crowd")));
        self.world.add(Node::new("crowd".into(), addr, crowd));
    }

    fn swarms_of(&self, number: usize, spec: &CrowdSpec) -> Vec<InfoHash> {
        let made_up = |swarm: usize| InfoHash::of(format!("swarm {swarm} of crowd {number}").as_bytes());
        let first = |name: &String| self.made.iter().find(|made| made.name == *name).map(|made| made.info_hash);
        let first = spec.content.as_ref().and_then(first);
        (0..spec.swarms).map(|swarm| first.filter(|_| swarm == 0).unwrap_or_else(|| made_up(swarm))).collect()
    }

    /// How large the trackers are.
    pub(super) fn look_at_servers(&mut self) {
        for server in self.servers.iter().filter(|server| server.config.is_some()) {
            let Body::Engine(engine) = &self.world.nodes[server.node].body else { continue };
            let Some(view) = engine.tracker_view() else { continue };
            self.world.ledger.note_size((view.peers, view.bytes), (view.waiting, view.to_write));
        }
    }

    pub(super) fn crowd_report(&self) -> Option<CrowdReport> {
        let crowds = self.world.nodes.iter().filter_map(|node| match &node.body {
            Body::Crowd(crowd) => Some(crowd.report),
            _ => None,
        });
        crowds.into_iter().find(|report| report.count > 0)
    }

    /// What was expected of servers and did not come.
    pub(super) fn servers_disappoint(&self) -> Option<String> {
        let expect = &self.scenario.expect;
        if expect.figures && !self.world.ledger.has_figures_of_all() {
            return Some("not every tracker's figures were looked at in the calm".into());
        }
        let crowd = self.crowd_report().filter(|crowd| expect.answered && crowd.answered < crowd.count)?;
        Some(crowd.line())
    }
}

fn crowd_addr(number: usize) -> SocketAddr {
    let ip = Ipv4Addr::from(CROWD + u32::try_from(number).expect("checked by the scenario"));
    SocketAddr::new(ip.into(), PORT)
}
