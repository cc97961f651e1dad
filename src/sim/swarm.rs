//! A scenario, made and lived through: nodes come, finish and leave, faults befall them, and what came of it is told.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::config::{Config, Encryption, UploadSlots};
use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::krpc::Node as DhtNode;
use crate::engine::{DHT_STATE, Engine, record_name};
use crate::sim::World;
use crate::sim::faults::{Fault, FaultKind};
use crate::sim::hostile::Hostile;
use crate::sim::liar::{Liar, number};
use crate::sim::network::{Nat, Network, jitter};
use crate::sim::node::{Body, Clock, Node};
use crate::sim::report::{CallCost, NodeReport, Report, Sample, Samples};
use crate::sim::scenario::{GroupSpec, HostileSpec, Role, Scenario, TrackerKind};
use crate::sim::storage::MemoryStorage;
use crate::sim::trace::What;
use crate::sim::tracker::Tracker;
use crate::sim::world::Step;
use crate::torrent::command::{AddOptions, Answer, Command, Which};

mod made;
mod servers;

use self::made::{Made, make, source, urls};

/// The wall clock when a world begins, nanoseconds since the Unix epoch.
const EPOCH_NANOS: u64 = 1_800_000_000 * 1_000_000_000;
/// The port that nodes listen at.
const PORT: u16 = 6881;
/// And trackers.
const TRACKER_PORT: u16 = 6969;
/// The first address of nodes: of a local network, where there is no DHT.
const NODES: u32 = 0x0a00_0101;
/// And of the public network, where there is one.
const DHT_NODES: u32 = 0x0b00_0101;
/// The first address of those who mean harm in it.
const DHT_LIARS: u32 = 0x7800_0101;
/// How long a node that finished is looked at whether it still has everything.
const LOOK_BACK: Duration = Duration::from_secs(2);

/// A run that broke a rule, or did not bring what was expected.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The scenario's name.
    pub name: String,
    /// The seed that brings it about again.
    pub seed: u64,
    /// What happened, and when.
    pub message: String,
    /// The latest of what happened to the nodes involved.
    pub latest: Vec<String>,
    /// The account until then, where nothing was broken.
    pub report: Option<Box<Report>>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, seed {}: {}", self.name, self.seed, self.message)?;
        self.latest.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// What happens at a moment of the story.
#[derive(Debug, Clone)]
enum Moment {
    /// A node comes, or comes back.
    Start(usize),
    /// A node leaves.
    Leave(usize),
    /// A fault of the scenario comes.
    Begin(usize),
    /// It ends.
    Heal(Fault),
    /// How things stand is written down.
    Sample,
}

/// A node as the scenario wants it.
#[derive(Debug)]
struct Part {
    /// Which of the world's nodes.
    node: usize,
    group: usize,
    /// Which contents it has or wants.
    contents: Vec<usize>,
    rng: Rng,
    has_left: bool,
}

/// A scenario as it is lived through.
#[derive(Debug)]
pub struct Swarm<'s> {
    scenario: &'s Scenario,
    seed: u64,
    world: World,
    made: Vec<Made>,
    parts: Vec<Part>,
    servers: Vec<servers::Server>,
    story: Vec<Moment>,
    /// What DHT nodes begin with.
    begin: Vec<(String, u16)>,
    rng: Rng,
    samples: Samples,
    faults: u32,
    /// Faults that have not healed, and nodes that have not come.
    pending: usize,
    over_at: Option<Time>,
    messages: u64,
}

/// Lives through `scenario` with `seed`. What happens from `prints_from` on is given to `print`, line by line.
///
/// # Errors
/// A rule was broken, or something that was expected did not come.
pub fn run(scenario: &Scenario, seed: u64, prints_from: Time, print: &mut dyn FnMut(&str)) -> Result<Report, Failure> {
    let mut swarm = Swarm::new(scenario, seed, prints_from);
    let lived = catch_unwind(AssertUnwindSafe(|| swarm.live(print)));
    let broken = match lived {
        Ok(result) => result.err(),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            let message = format!("at {:?}, an assertion failed: {}", swarm.world.now, said.unwrap_or_default());
            let nodes: Vec<usize> = (0..swarm.world.nodes.len()).collect();
            Some((message, swarm.world.trace.latest(&nodes[..nodes.len().min(8)])))
        }
    };
    if let Some((message, latest)) = broken {
        return Err(Failure { name: scenario.name.clone(), seed, message, latest, report: None });
    }
    let report = swarm.report();
    match swarm.disappointment(&report) {
        Some(message) => {
            let (name, report) = (scenario.name.clone(), Some(Box::new(report)));
            Err(Failure { name, seed, message, latest: Vec::new(), report })
        }
        None => Ok(report),
    }
}

impl<'s> Swarm<'s> {
    fn new(scenario: &'s Scenario, seed: u64, prints_from: Time) -> Self {
        let mut rng = Rng::from_number(seed);
        let spec = &scenario.network;
        let network = Network {
            delay: spec.delay,
            jitter: spec.jitter,
            loss: spec.loss,
            duplicated: spec.duplicated,
            reordered: spec.reordered,
            queue: spec.queue,
        };
        let mut world = World::new(network, rng.fork("network"), prints_from);
        world.tally.is_exact = scenario.node.iter().all(|group| group.lies == 0.0 && !group.encrypted);
        world.tally.is_exact &= scenario.hostile.is_empty();
        // After these a node may serve what is not the content, until it notices.
        let harmless =
            |kind: FaultKind| !matches!(kind, FaultKind::BitFlip | FaultKind::FilesGone | FaultKind::DiskAway);
        world.tally.is_exact &= scenario.fault.iter().all(|fault| harmless(fault.kind));
        let urls = urls(scenario, &[]);
        let mut made = Vec::new();
        for content in &scenario.content {
            let next = make(content, &made, &urls, &mut rng.fork("content"));
            made.push(next);
        }
        let mut swarm = Self {
            scenario,
            seed,
            world,
            made,
            parts: Vec::new(),
            servers: Vec::new(),
            story: Vec::new(),
            begin: Vec::new(),
            rng: rng.fork("story"),
            samples: Samples::default(),
            faults: 0,
            pending: 0,
            over_at: None,
            messages: 0,
        };
        swarm.add_trackers(&mut rng);
        swarm.world.has_dht = scenario.dht.is_some();
        swarm.add_nodes(&mut rng);
        swarm.set_beginning();
        swarm.add_hostile(&mut rng);
        swarm.add_liars(&mut rng);
        swarm.add_crowds(&mut rng);
        swarm.plan_faults();
        swarm.plan(Time::ZERO, Moment::Sample);
        swarm
    }

    fn plan(&mut self, at: Time, moment: Moment) {
        self.pending += usize::from(!matches!(moment, Moment::Sample | Moment::Leave(_)));
        self.story.push(moment);
        self.world.plan(at, self.story.len() - 1);
    }

    fn add_trackers(&mut self, rng: &mut Rng) {
        self.add_stores(rng);
        for (index, spec) in self.scenario.tracker.iter().enumerate() {
            if spec.kind == TrackerKind::Server {
                self.add_server(index, spec, rng);
                continue;
            }
            let mut tracker = Tracker::new(&[tracker_addr(index)], rng.fork("tracker"));
            tracker.answers_max = spec.answers;
            tracker.interval_secs = u32::try_from(spec.interval.as_secs()).unwrap_or(u32::MAX);
            self.world.add_tracker(&self.scenario.tracker_name(index), tracker);
        }
    }

    fn add_nodes(&mut self, rng: &mut Rng) {
        let secrets = self.made.iter().filter(|made| made.is_private).map(|made| made.info_hash);
        let secrets = Arc::new(secrets.collect::<BTreeSet<InfoHash>>());
        let mut number = 0_u32;
        for (group, spec) in self.scenario.node.iter().enumerate() {
            for index in 0..spec.count {
                let name = if spec.count == 1 { spec.name.clone() } else { format!("{} {}", spec.name, index + 1) };
                let public = public_ip(if self.scenario.dht.is_some() { DHT_NODES } else { NODES }, number);
                let mut own = rng.fork("node");
                let mut storage = MemoryStorage::default();
                storage.capacity = spec.disk;
                if spec.lies > 0.0 {
                    storage.lie(spec.lies, own.fork("lies"));
                }
                let addr = match spec.nat {
                    Some(_) => SocketAddr::new(IpAddr::from([192, 168, 1, 2]), PORT),
                    None => SocketAddr::new(public, PORT),
                };
                let mut node = Node::new(name, addr, Body::Down(Box::new(storage)));
                node.public = public;
                node.nat = spec.nat.map(|kind| Nat::new(kind, public));
                node.is_silent = true;
                node.private = Arc::clone(&secrets);
                node.extra = spec.delay;
                if spec.skew > 0 {
                    let most = i64::from(spec.skew);
                    let drawn = own.below(2 * u64::from(spec.skew) + 1);
                    node.clock.ppm = i32::try_from(i64::try_from(drawn).unwrap_or(0) - most).unwrap_or(0);
                }
                let node = self.world.add(node);
                self.world.set_rates(node, spec.up, spec.down);
                let is_named = |made: &Made| spec.content.is_empty() || spec.content.contains(&made.name);
                let is_meant = |made: &Made| spec.role != Role::DhtNode && is_named(made);
                let contents = (0..self.made.len()).filter(|&at| is_meant(&self.made[at])).collect();
                let later = if index == 0 { Duration::ZERO } else { jitter(&mut own, spec.within) };
                self.parts.push(Part { node, group, contents, rng: own, has_left: false });
                let part = self.parts.len() - 1;
                self.plan(Time::ZERO + spec.arrives + later, Moment::Start(part));
                number += 1;
            }
        }
    }

    fn add_hostile(&mut self, rng: &mut Rng) {
        let mut number = 0;
        for spec in self.scenario.hostile.iter().filter(|spec| !spec.harm.is_in_dht()) {
            for _ in 0..spec.count {
                let made = self.meant(spec);
                let begins = Time::ZERO + spec.arrives;
                let mut hostile = Hostile::new(spec.harm, made.info_hash, made.geometry, begins, rng.fork("hostile"));
                let addr = SocketAddr::from((hostile_ip(number), PORT));
                let open = self.parts.iter().map(|part| &self.world.nodes[part.node]);
                let victims = open.filter(|node| node.nat.is_none()).map(|node| node.addr).collect();
                let tracker = (!self.scenario.tracker.is_empty()).then(|| tracker_addr(0));
                hostile.set_victims(victims, tracker, PORT);
                let name = format!("hostile {}", number + 1);
                self.world.add(Node::new(name, addr, Body::Hostile(hostile)));
                number += 1;
            }
        }
    }

    /// The torrent that those who mean harm are about.
    fn meant(&self, spec: &HostileSpec) -> &Made {
        let is_it = |made: &&Made| spec.content.as_ref().is_some_and(|name| made.name == *name);
        self.made.iter().find(is_it).unwrap_or(&self.made[0])
    }

    fn set_beginning(&mut self) {
        let Some(dht) = &self.scenario.dht else { return };
        let begins = self.parts.iter().filter(|part| self.scenario.node[part.group].name == dht.begin);
        let addrs = begins.map(|part| self.world.nodes[part.node].addr);
        self.begin = addrs.map(|addr| (addr.ip().to_string(), addr.port())).collect();
    }

    /// Those who mean harm in the DHT: all know all.
    fn add_liars(&mut self, rng: &mut Rng) {
        let mut liars: Vec<Liar> = Vec::new();
        for spec in &self.scenario.hostile {
            let Some(lie) = spec.harm.lie() else { continue };
            for _ in 0..spec.count {
                let target = self.meant(spec).info_hash;
                let ip = public_ip(DHT_LIARS, u32::try_from(liars.len()).expect("few liars"));
                let (addr, mut own) = (SocketAddr::new(ip, PORT), rng.fork("liar"));
                let node = DhtNode { id: number(addr, target, spec.obeys, &mut own), addr };
                liars.push(Liar::new(lie, node, target, Time::ZERO + spec.arrives, own));
            }
        }
        let fellows: Vec<DhtNode> = liars.iter().map(Liar::node).collect();
        let open = self.parts.iter().map(|part| &self.world.nodes[part.node]).filter(|node| node.nat.is_none());
        let victims: Vec<SocketAddr> = open.map(|node| node.addr).collect();
        for (index, mut liar) in liars.into_iter().enumerate() {
            liar.meet(&fellows, &victims);
            let node = Node::new(format!("liar {}", index + 1), liar.node().addr, Body::Liar(liar));
            self.world.add(node);
        }
    }

    fn plan_faults(&mut self) {
        for (index, fault) in self.scenario.fault.iter().enumerate() {
            for moment in fault.moments() {
                self.plan(Time::ZERO + moment, Moment::Begin(index));
            }
        }
    }

    /// Lives through it.
    fn live(&mut self, print: &mut dyn FnMut(&str)) -> Result<(), (String, Vec<String>)> {
        let ends = Time::ZERO + self.scenario.ends;
        loop {
            let until = self.over_at.unwrap_or(ends);
            let step = self.world.step(until);
            for line in std::mem::take(&mut self.world.trace.printed) {
                print(&line);
            }
            if let Some(breach) = &self.world.breach {
                return Err((breach.to_string(), self.world.trace.latest(&breach.nodes)));
            }
            match step {
                Step::Story(moment) => self.tell(moment),
                Step::More if self.world.news.is_empty() => continue,
                Step::More => {}
                Step::Over => return Ok(()),
            }
            while let Some(node) = self.world.news.pop() {
                self.notice(node);
            }
            if self.over_at.is_none() && self.is_over() {
                let after = self.scenario.afterwards.max(LOOK_BACK);
                self.over_at = Some((self.world.now + after).min(ends));
            }
        }
    }

    fn tell(&mut self, moment: usize) {
        let now = self.world.now;
        let moment = self.story[moment].clone();
        self.pending -= usize::from(!matches!(moment, Moment::Sample | Moment::Leave(_)));
        match moment {
            Moment::Start(part) => self.start(part),
            Moment::Leave(part) => self.leave(part),
            Moment::Begin(index) => self.begin_fault(index),
            Moment::Heal(fault) => {
                self.world.heal(&fault);
                if matches!(fault.kind, FaultKind::Crash | FaultKind::PowerCut) {
                    self.start_again(fault);
                }
            }
            Moment::Sample => {
                self.let_leave();
                self.look_at_servers();
                self.world.end_searches();
                let sample = self.sample();
                self.samples.add(sample);
                self.plan(now + self.samples.every, Moment::Sample);
            }
        }
    }

    /// Runs a node's program: with what it saved, or for the first time.
    fn start(&mut self, part: usize) {
        let now = self.world.now;
        let Part { node: index, group, has_left, .. } = self.parts[part];
        let spec = &self.scenario.node[group];
        if self.world.nodes[index].is_up() || has_left {
            return;
        }
        self.world.trace.note(now, index, What::Fate("starts"), &[]);
        let known = spec.knows.as_ref().map(|known| {
            let first = self.parts.iter().find(|part| self.scenario.node[part.group].name == *known);
            self.world.nodes[first.expect("checked by the scenario").node].addr
        });
        let node = &mut self.world.nodes[index];
        let mut config = config(spec, node.addr);
        (config.dht, config.dht_bootstrap) = (self.scenario.dht.is_some() && spec.dht, self.begin.clone());
        // Nobody hears what is said to the local network; it is looked through for what it must not say.
        config.lsd = self.scenario.dht.is_some();
        let body = std::mem::replace(&mut node.body, Body::Down(Box::default()));
        let Body::Down(mut storage) = body else { unreachable!("only what is down is started") };
        storage.now = Time::ZERO;
        for &content in &self.parts[part].contents {
            if node.saved.is_empty() && self.world.tally.node(index).came.is_none() {
                storage.know(&self.made[content].truth);
            }
        }
        let engine_rng = self.parts[part].rng.fork("engine");
        node.clock = Clock { started: now, ahead: Duration::ZERO, ppm: node.clock.ppm };
        let mut engine = Engine::new(config, EPOCH_NANOS + now.as_nanos(), engine_rng, *storage);
        if let Some(bytes) = node.saved.get(Path::new(DHT_STATE)) {
            engine.restore_dht(Time::ZERO, bytes);
        }
        for &content in &self.parts[part].contents {
            let made = &self.made[content];
            let saved = |name: &str| node.saved.get(Path::new(name)).map(Vec::as_slice);
            if saved(&format!("torrents/{}.meta", made.info_hash)).is_some() {
                let record = saved(&record_name(made.info_hash));
                let restored = || engine.restore(Time::ZERO, made.info_hash, record);
                node.cost.of("restore", restored).expect("what was saved is good");
                continue;
            }
            let is_seed = spec.role == Role::Seed;
            // A node that was killed before it could save its torrent is given it again, and looks what is there.
            let verify = Some(is_seed || self.world.tally.node(index).came.is_some());
            let options = AddOptions { verify, ..AddOptions::default() };
            let source = source(self.scenario, spec, made, content);
            let add = || engine.handle_command(Time::ZERO, Command::Add { source, options });
            if let Answer::Later(_) = node.cost.of("the command add", add).expect("a good torrent") {
                while engine.poll_loaded().is_none() {
                    node.cost.of("work", || engine.work(Time::ZERO));
                }
            }
            if is_seed && self.world.tally.node(index).came.is_none() {
                let store = engine.views().find(|view| view.info_hash == made.info_hash).and_then(|view| view.store);
                engine.storage().fill(store.expect("it was just added"));
            }
        }
        node.cost.of("handle_restored", || engine.handle_restored(Time::ZERO));
        if let Some(known) = known {
            for &content in &self.parts[part].contents {
                let which = Which::Prefix(self.made[content].info_hash.to_string());
                let connect = Command::Connect { which, host: known.ip().to_string(), port: known.port() };
                let connect = || engine.handle_command(Time::ZERO, connect);
                node.cost.of("the command connect", connect).expect("a torrent that was just added");
            }
        }
        node.body = Body::Engine(Box::new(engine));
        node.is_silent = false;
        let is_first = self.world.tally.node(index).came.is_none();
        self.world.tally.node(index).came.get_or_insert(now);
        self.world.tally.node(index).is_complete |= matches!(spec.role, Role::Seed | Role::DhtNode);
        self.world.stir(index);
        if let Some(stays) = spec.stays
            && spec.role == Role::Seed
            && is_first
        {
            self.plan(now + stays, Moment::Leave(part));
        }
    }

    fn leave(&mut self, part: usize) {
        let index = self.parts[part].node;
        if std::mem::replace(&mut self.parts[part].has_left, true) {
            return;
        }
        self.world.trace.note(self.world.now, index, What::Fate("leaves"), &[]);
        let local = self.world.nodes[index].clock.local(self.world.now);
        if self.scenario.node[self.parts[part].group].vanishes {
            self.world.crash(index, true);
        } else if let Node { body: Body::Engine(engine), cost, .. } = &mut self.world.nodes[index] {
            let shutdown = || engine.handle_command(local, Command::Shutdown);
            cost.of("the command shutdown", shutdown).expect("it may always end");
        }
        self.world.stir(index);
    }

    fn begin_fault(&mut self, index: usize) {
        let spec = &self.scenario.fault[index];
        let is_meant = |part: &&Part| {
            let is_up = self.world.nodes[part.node].is_up();
            let group = &self.scenario.node[part.group].name;
            (spec.nodes.is_empty() || spec.nodes.contains(group)) && is_up && !part.has_left
        };
        let meant = self.parts.iter().filter(is_meant).map(|part| part.node);
        let mut nodes: Vec<usize> = meant.chain(self.servers_of(&spec.nodes)).collect();
        self.rng.shuffle(&mut nodes);
        nodes.truncate(if spec.kind.is_everywhere() { 0 } else { spec.count });
        nodes.sort_unstable();
        self.faults += 1;
        let fault = Fault { kind: spec.kind, nodes, lasts: spec.lasts, share: spec.share, number: self.faults };
        if matches!(fault.kind, FaultKind::Crash | FaultKind::PowerCut) {
            fault.nodes.iter().for_each(|&node| self.count_waste(node));
        }
        self.world.begin(&fault);
        if let Some(lasts) = spec.lasts {
            self.plan(self.world.now + lasts, Moment::Heal(fault));
        }
    }

    /// What a program counted is taken over before it ends.
    fn count_waste(&mut self, node: usize) {
        if let Some(engine) = self.world.nodes[node].engine() {
            let wasted: u64 = engine.views().map(|view| view.wasted).sum();
            let messages = engine.messages_in();
            self.world.tally.node(node).wasted += wasted;
            self.messages += messages;
        }
    }

    /// Something is new about a node: its program has ended, or claims more than before.
    fn notice(&mut self, index: usize) {
        let now = self.world.now;
        if self.world.nodes[index].exited {
            self.count_waste(index);
            self.world.crash(index, false);
        }
        let Some(engine) = self.world.nodes[index].engine() else { return };
        let is_done = engine.views().all(|view| view.is_finished);
        if is_done && !std::mem::replace(&mut self.world.tally.node(index).is_complete, true) {
            self.world.tally.node(index).finished = Some(now);
            let part = self.parts.iter().position(|part| part.node == index).expect("an engine's node is a part's");
            if let Some(stays) = self.scenario.node[self.parts[part].group].stays {
                self.plan(now + stays, Moment::Leave(part));
            }
        }
    }

    /// Those leave that have given enough.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn let_leave(&mut self) {
        for part in 0..self.parts.len() {
            let Some(ratio) = self.scenario.node[self.parts[part].group].leaves_at else { continue };
            let Some(engine) = self.world.nodes[self.parts[part].node].engine() else { continue };
            let uploaded: u64 = engine.views().map(|view| view.uploaded).sum();
            let contents = self.parts[part].contents.iter();
            let content: u64 = contents.map(|&at| self.made[at].geometry.total_len()).sum();
            if uploaded as f64 >= ratio * content as f64 {
                self.leave(part);
            }
        }
    }

    /// True once everybody has what they want, and nothing more is to come.
    fn is_over(&mut self) -> bool {
        self.pending == 0
            && self.parts.iter().all(|part| {
                let may_fail = self.scenario.node[part.group].may_fail || part.has_left;
                may_fail || self.world.tally.node(part.node).is_complete
            })
    }

    #[expect(clippy::cast_precision_loss, reason = "shares for people")]
    fn sample(&mut self) -> Sample {
        let pieces = self.made[0].geometry.pieces();
        let mut copies = vec![0_u32; pieces as usize];
        let mut progress = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let Some(engine) = self.world.nodes[part.node].engine() else {
                progress.push(if self.world.tally.node(part.node).is_complete { 1.0 } else { 0.0 });
                continue;
            };
            let (mut have, mut all) = (0, 0);
            for view in engine.views() {
                have += view.have.count();
                all += view.have.len();
                if view.info_hash == self.made[0].info_hash {
                    view.have.ones().for_each(|piece| copies[piece as usize] += 1);
                }
            }
            progress.push(have as f32 / all.max(1) as f32);
        }
        let sum: u32 = copies.iter().sum();
        Sample {
            at: self.world.now,
            progress,
            copies_least: copies.iter().copied().min().unwrap_or(0),
            copies_mean: sum as f32 / pieces.max(1) as f32,
        }
    }

    fn report(&mut self) -> Report {
        for part in 0..self.parts.len() {
            self.count_waste(self.parts[part].node);
        }
        let wants = |part: &Part| part.contents.iter().map(|&at| self.made[at].geometry.total_len()).sum();
        let nodes = self.parts.iter().map(|part| {
            let (spec, node) = (&self.scenario.node[part.group], &self.world.nodes[part.node]);
            NodeReport {
                name: node.name.clone(),
                group: spec.name.clone(),
                is_seed: spec.role == Role::Seed,
                is_node: spec.role == Role::DhtNode,
                is_rider: spec.role == Role::FreeRider,
                came: Time::ZERO,
                finished: None,
                gave: 0,
                from_seeds: 0,
                from_peers: 0,
                bytes_in: 0,
                wasted: 0,
                wants: wants(part),
                up: node.uplink.rate_bytes,
                down: node.downlink.rate_bytes,
            }
        });
        let mut report = Report {
            name: self.scenario.name.clone(),
            seed: self.seed,
            ended: self.world.now,
            trace: self.world.trace_hash(),
            nodes: nodes.collect(),
            content: self.made[0].geometry.total_len(),
            gifts: Vec::new(),
            samples: std::mem::take(&mut self.samples.taken),
            events: self.world.events(),
            dials: 0,
            packets: 0,
            segments: (0, 0),
            messages: self.messages,
            lookups: self.scenario.dht.as_ref().map(|_| self.world.lookups.report()),
            trackers: (!self.world.ledger.is_empty()).then_some(self.world.ledger.report),
            crowd: self.crowd_report(),
            costliest: self.costliest(),
        };
        let indexes: Vec<usize> = self.parts.iter().map(|part| part.node).collect();
        report.take_nodes(&self.world.tally, &indexes);
        report
    }

    fn costliest(&self) -> CallCost {
        let Some(node) = self.world.nodes.iter().max_by_key(|node| node.cost.most.0) else {
            return CallCost::default();
        };
        let (steps, call) = node.cost.most;
        CallCost { steps, call, node: node.name.clone() }
    }

    /// What was expected and did not come.
    fn disappointment(&mut self, report: &Report) -> Option<String> {
        let expect = &self.scenario.expect;
        for (part, node) in self.parts.iter().zip(&report.nodes) {
            let spec = &self.scenario.node[part.group];
            let must = expect.finished && !spec.may_fail && !node.is_seed && !node.is_node;
            if must && node.finished.is_none() {
                let state = state(&mut self.world, part.node);
                return Some(format!("{} has not finished by {:?}: {state}", node.name, report.ended));
            }
            if let (Some(within), Some(finished)) = (expect.within, node.finished)
                && finished > Time::ZERO + within
            {
                return Some(format!("{} has finished at {finished:?}, expected was {within:?}", node.name));
            }
        }
        let last = self.sample().progress;
        for (part, has) in self.parts.iter().zip(last) {
            let stays = !part.has_left && !self.scenario.node[part.group].may_fail;
            if let Some(least) = expect.share.filter(|least| stays && f64::from(has) < *least) {
                let name = &self.world.nodes[part.node].name;
                return Some(format!("{name} has {has:.4} of what it wants, expected was {least}"));
            }
        }
        for part in &self.parts {
            let Some(engine) = self.world.nodes[part.node].engine() else { continue };
            let finished: Vec<_> = engine.views().filter(|view| view.is_finished).map(|view| view.store).collect();
            for store in finished.into_iter().flatten() {
                let len = engine.storage().len(store);
                if !engine.storage().is_true(store, crate::base::geometry::Span { offset: 0, len }) {
                    return Some(format!(
                        "{} says that it has everything, which is not so",
                        self.world.nodes[part.node].name
                    ));
                }
            }
        }
        if let (Some(most), Some(last), Some(limit)) = (expect.over_limit, report.last(), report.fluid_limit()) {
            let over = last.as_secs_f64() / limit.as_secs_f64();
            if over > most {
                return Some(format!("the last finish is {over:.3} times the fluid limit, expected was {most}"));
            }
        }
        if let Some(least) = expect.fairness
            && report.fairness() < least
        {
            return Some(format!("fairness is {:.3}, expected was {least}", report.fairness()));
        }
        if let Some(most) = expect.wasted
            && report.wasted() > most
        {
            return Some(format!("{:.4} of what came was in vain, expected was {most}", report.wasted()));
        }
        if let Some(lookups) = &report.lookups {
            if let Some(least) = expect.lookups.filter(|least| lookups.share() < *least || lookups.count == 0) {
                return Some(format!("{}, expected was a share of {least}", lookups.line()));
            }
            if let Some(within) = expect.lookup_within.filter(|within| lookups.took.most > *within) {
                return Some(format!("{}, expected was to find within {within:?}", lookups.line()));
            }
        }
        if let Some(message) = self.servers_disappoint() {
            return Some(message);
        }
        let contributors = report.leechers().filter(|node| !node.is_rider).filter_map(NodeReport::took).max();
        let riders = report.leechers().filter(|node| node.is_rider).filter_map(NodeReport::took).min();
        if let (true, Some(contributors), Some(riders)) = (expect.riders_last, contributors, riders)
            && riders <= contributors
        {
            return Some(format!("a free rider took {riders:?}, the slowest contributor {contributors:?}"));
        }
        None
    }
}

/// What a node's torrents are doing, for a message.
fn state(world: &mut World, node: usize) -> String {
    let local = world.nodes[node].clock.local(world.now);
    let Some(engine) = world.nodes[node].engine() else { return "it is down".into() };
    let all = Command::List { states: Vec::new(), label: None };
    let Ok(Answer::List(rows)) = engine.handle_command(local, all) else { return String::new() };
    let row = |row: &crate::torrent::snapshot::Summary| {
        let (all, have) = row.pieces;
        let error = row.error.as_deref().unwrap_or("no error");
        format!("{}, {have} of {all} pieces, {} peers, {error}", row.state.word(), row.peers)
    };
    rows.iter().map(row).collect::<Vec<_>>().join("; ")
}

fn tracker_addr(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 255, 0, 1 + u8::try_from(index % 200).expect("below 200")], TRACKER_PORT))
}

/// An address in a network of its own: some rules look at networks.
fn public_ip(first: u32, number: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(first + number * 0x0100 + number % 200))
}

fn hostile_ip(number: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(0x0afe_0001 + number))
}

fn config(spec: &GroupSpec, addr: SocketAddr) -> Config {
    let slots = if spec.role == Role::FreeRider { Some(0) } else { spec.slots };
    Config {
        listen: vec![addr],
        up_rate_bytes: spec.up_limit,
        down_rate_bytes: spec.down_limit,
        upload_slots: slots.map_or(UploadSlots::Auto, UploadSlots::Fixed),
        encryption: if spec.encrypted { Encryption::Require } else { Encryption::Allow },
        lsd: false,
        connections_per_torrent_max: spec.peers.unwrap_or(Config::default().connections_per_torrent_max),
        ..Config::default()
    }
}
