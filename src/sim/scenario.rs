//! A scenario: what there is to share, who takes part, over which network, what befalls them, what is expected.
//!
//! Read from TOML; every key is in swarmtorrent-scenario(5). Times are in the world's time from its beginning.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::codec::units;
use crate::sim::faults::FaultSpec;
use crate::sim::hostile::Harm;
use crate::sim::network::NatKind;

/// Nodes of a scenario, all groups together.
const NODES_MAX: usize = 20_000;
/// Clients of all crowds.
const CROWD_MAX: usize = 200_000;
/// Bytes of content of one torrent.
const CONTENT_MAX: u64 = 4 << 30;

/// All of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// What it shows.
    #[serde(default)]
    pub about: String,
    /// The seed unless another one is given.
    #[serde(default = "first_seed")]
    pub seed: u64,
    /// It has failed if it is not over by then.
    #[serde(deserialize_with = "duration", default = "an_hour")]
    pub ends: Duration,
    /// It goes on for so long after everybody has finished.
    #[serde(deserialize_with = "duration", default)]
    pub afterwards: Duration,
    /// What there is to share: at least one torrent.
    pub content: Vec<ContentSpec>,
    /// The network.
    #[serde(default)]
    pub network: NetworkSpec,
    /// The DHT; there is none if it is not said.
    #[serde(default)]
    pub dht: Option<DhtSpec>,
    /// The trackers; all torrents name all of them, but for those that name none.
    #[serde(default)]
    pub tracker: Vec<TrackerSpec>,
    /// What trackers may share.
    #[serde(default)]
    pub store: Vec<StoreSpec>,
    /// The nodes, by group.
    pub node: Vec<GroupSpec>,
    /// Those who only announce.
    #[serde(default)]
    pub crowd: Vec<CrowdSpec>,
    /// Those who mean harm.
    #[serde(default)]
    pub hostile: Vec<HostileSpec>,
    /// What befalls them.
    #[serde(default)]
    pub fault: Vec<FaultSpec>,
    /// What must come of it, beside that no rule is ever broken.
    #[serde(default)]
    pub expect: Expect,
}

/// A torrent.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ContentSpec {
    /// Its name.
    #[serde(default = "content_name")]
    pub name: String,
    /// Bytes.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// Bytes of a piece; if it is not said, what `create` would choose.
    #[serde(deserialize_with = "some_size", default)]
    pub piece_length: Option<u64>,
    /// Files that it falls into, of about the same length.
    #[serde(default = "one")]
    pub files: usize,
    /// BEP 27.
    #[serde(default)]
    pub private: bool,
    /// It names the trackers, if there are any.
    #[serde(default = "yes")]
    pub tracked: bool,
    /// Hash with SHA-256, as a `.st` does.
    #[serde(default)]
    pub sha256: bool,
    /// Another torrent of the files of this content, which stands before it: the same bytes at the same paths.
    #[serde(default)]
    pub same_files: Option<String>,
}

/// The network between the nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NetworkSpec {
    /// One way.
    #[serde(deserialize_with = "duration")]
    pub delay: Duration,
    /// And up to so much more.
    #[serde(deserialize_with = "duration")]
    pub jitter: Duration,
    /// Share of packets lost.
    pub loss: f64,
    /// Share of datagrams that come twice.
    pub duplicated: f64,
    /// Share of datagrams that are overtaken.
    pub reordered: f64,
    /// What may wait before a downlink.
    #[serde(deserialize_with = "duration")]
    pub queue: Duration,
}

impl Default for NetworkSpec {
    fn default() -> Self {
        let network = crate::sim::network::Network::default();
        Self {
            delay: network.delay,
            jitter: network.jitter,
            loss: network.loss,
            duplicated: network.duplicated,
            reordered: network.reordered,
            queue: network.queue,
        }
    }
}

/// The DHT between the nodes. Their addresses are then of the public network, whose rules are stricter.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DhtSpec {
    /// The group whose nodes all others begin with.
    pub begin: String,
}

/// A tracker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TrackerSpec {
    /// Between two announces of one peer.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// Peers in an answer, at most; a server has its own bound.
    pub answers: usize,
    /// What faults and nodes call it; its number among the trackers if none.
    pub name: Option<String>,
    /// What it is.
    pub kind: TrackerKind,
    /// A server's store; its own memory if none.
    pub store: Option<String>,
    /// Announces come by HTTP, and not by UDP.
    pub http: bool,
}

/// What a tracker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum TrackerKind {
    /// A simple one, that can be made to lie.
    #[default]
    Model,
    /// The daemon's own.
    Server,
}

/// A store that trackers share.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreSpec {
    /// What trackers and faults call it.
    pub name: String,
    /// It loses everything when its program ends.
    #[serde(default = "yes")]
    pub forgets: bool,
    /// How much farther than others it is.
    #[serde(deserialize_with = "duration", default)]
    pub delay: Duration,
}

/// Many clients that only announce, by UDP, to a server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CrowdSpec {
    /// How many there are.
    pub count: usize,
    /// Swarms that they are spread over.
    #[serde(default = "one")]
    pub swarms: usize,
    /// The torrent that is the first of these; none of those that there are if none.
    #[serde(default)]
    pub content: Option<String>,
    /// The tracker that they know; they are spread over all servers if none.
    #[serde(default)]
    pub tracker: Option<String>,
    /// Every so manieth seeds; nobody if 0.
    #[serde(default)]
    pub seeds: usize,
    /// The first comes then.
    #[serde(deserialize_with = "duration", default)]
    pub arrives: Duration,
    /// The others follow at random within so long.
    #[serde(deserialize_with = "duration", default)]
    pub within: Duration,
    /// They leave so long after they came; never if none.
    #[serde(deserialize_with = "some_duration", default)]
    pub stays: Option<Duration>,
    /// And up to so much later.
    #[serde(deserialize_with = "duration", default)]
    pub longer: Duration,
    /// They leave without a word.
    #[serde(default)]
    pub vanishes: bool,
}

impl Default for TrackerSpec {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(120),
            answers: 50,
            name: None,
            kind: TrackerKind::Model,
            store: None,
            http: false,
        }
    }
}

/// What a group of nodes does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Has nothing, wants everything.
    #[default]
    Leech,
    /// Has everything.
    Seed,
    /// Wants everything and gives nothing.
    FreeRider,
    /// Has and wants nothing: it is a node of the DHT.
    DhtNode,
}

/// Nodes that are alike.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GroupSpec {
    /// Its name, by which faults name it.
    pub name: String,
    /// How many there are.
    #[serde(default = "one")]
    pub count: usize,
    /// What they do.
    #[serde(default)]
    pub role: Role,
    /// Which torrents they have or want; all if empty.
    #[serde(default)]
    pub content: Vec<String>,
    /// What their access carries to the network, bytes a second; 0 is no limit.
    #[serde(deserialize_with = "rate", default)]
    pub up: u64,
    /// And from it.
    #[serde(deserialize_with = "rate", default)]
    pub down: u64,
    /// How much farther than others they are.
    #[serde(deserialize_with = "duration", default)]
    pub delay: Duration,
    /// The first one comes then.
    #[serde(deserialize_with = "duration", default)]
    pub arrives: Duration,
    /// The others follow at random within so long.
    #[serde(deserialize_with = "duration", default)]
    pub within: Duration,
    /// They leave so long after they have finished (a seeder: after it came); never if none.
    #[serde(deserialize_with = "some_duration", default)]
    pub stays: Option<Duration>,
    /// They leave when they have given so many times the content.
    pub leaves_at: Option<f64>,
    /// They leave without a word.
    #[serde(default)]
    pub vanishes: bool,
    /// They need not finish.
    #[serde(default)]
    pub may_fail: bool,
    /// `[limits]` of their config: bytes a second out and in; 0 is none.
    #[serde(deserialize_with = "rate", default)]
    pub up_limit: u64,
    /// See `up_limit`.
    #[serde(deserialize_with = "rate", default)]
    pub down_limit: u64,
    /// Upload slots; automatic if none.
    pub slots: Option<u32>,
    /// Connections of a torrent.
    pub peers: Option<usize>,
    /// They are nodes of the DHT, if there is one.
    #[serde(default = "yes")]
    pub dht: bool,
    /// They use message stream encryption, and nothing else.
    #[serde(default)]
    pub encrypted: bool,
    /// The address translation they are behind.
    pub nat: Option<NatKind>,
    /// They are given a link instead of the torrent, and get its description from others (BEP 9).
    #[serde(default)]
    pub link: bool,
    /// The trackers that their torrents name; all if empty.
    #[serde(default)]
    pub trackers: Vec<String>,
    /// The group whose first node they are told of by hand when they come; nobody if none.
    pub knows: Option<String>,
    /// Share of blocks that they send with a wrong byte.
    #[serde(default)]
    pub lies: f64,
    /// Bytes that their disks hold; no limit if none.
    #[serde(deserialize_with = "some_size", default)]
    pub disk: Option<u64>,
    /// Millionths that their clocks are off at most, either way.
    #[serde(default)]
    pub skew: u32,
}

/// Peers that mean harm.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostileSpec {
    /// What harm.
    pub harm: Harm,
    /// How many do it.
    #[serde(default = "one")]
    pub count: usize,
    /// From when on.
    #[serde(deserialize_with = "duration", default)]
    pub arrives: Duration,
    /// Which torrent they are about; the first if none.
    pub content: Option<String>,
    /// In the DHT, their numbers are such as their addresses allow (BEP 42).
    #[serde(default)]
    pub obeys: bool,
}

/// What must come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Expect {
    /// Everybody finishes who may not fail.
    pub finished: bool,
    /// Everybody who stays and may not fail has at least this share in the end.
    pub share: Option<f64>,
    /// By then.
    #[serde(deserialize_with = "some_duration")]
    pub within: Option<Duration>,
    /// The last one needs at most so many times the fluid limit.
    pub over_limit: Option<f64>,
    /// Jain's fairness of what the leechers get a second is at least this.
    pub fairness: Option<f64>,
    /// No free rider finishes before the last contributor.
    pub riders_last: bool,
    /// At most this share of what came was in vain.
    pub wasted: Option<f64>,
    /// Of the searches in the DHT that had somebody to find at least this share found somebody.
    pub lookups: Option<f64>,
    /// 99 of a hundred of these had found somebody within so long.
    #[serde(deserialize_with = "some_duration")]
    pub lookup_within: Option<Duration>,
    /// The figures of every server were looked at in the calm, and right.
    pub figures: bool,
    /// Everybody in a crowd was answered.
    pub answered: bool,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            finished: true,
            share: None,
            within: None,
            over_limit: None,
            fairness: None,
            riders_last: false,
            wasted: None,
            lookups: None,
            lookup_within: None,
            figures: false,
            answered: false,
        }
    }
}

impl Scenario {
    /// The scenario that `text` describes.
    ///
    /// # Errors
    /// One sentence that says what is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        if self.content.is_empty() {
            return Err("there is no [[content]]; say what there is to share".into());
        }
        for content in &self.content {
            let is_good = content.size > 0 && content.size <= CONTENT_MAX && content.files > 0;
            if !is_good || content.files as u64 > content.size {
                return Err(format!("content {}: its size is from 1 byte to 4G, a byte a file", content.name));
            }
            let is_good = |len: u64| (16..=16 << 20).contains(&len) && len.is_power_of_two();
            if !content.piece_length.is_none_or(is_good) {
                return Err(format!("content {}: a piece-length is a power of two from 16 to 16M", content.name));
            }
            if let Some(name) = &content.same_files {
                let before = self.content.iter().take_while(|other| other.name != content.name);
                let same = before.into_iter().find(|other| other.name == *name && other.same_files.is_none());
                if same.is_none_or(|other| (other.size, other.files) != (content.size, content.files)) {
                    return Err(format!(
                        "content {}: same-files names one before it, of the same size and files",
                        content.name
                    ));
                }
            }
            if self.content.iter().filter(|other| other.name == content.name).count() > 1 {
                return Err(format!("there are two contents {}; give each its own name", content.name));
            }
        }
        let count: usize = self.node.iter().map(|group| group.count).sum();
        if count == 0 || count > NODES_MAX {
            return Err(format!("there are {count} nodes; there must be from 1 to {NODES_MAX}"));
        }
        for group in &self.node {
            let unknown = |name: &&String| self.content.iter().all(|content| content.name != **name);
            if let Some(name) = group.content.iter().find(unknown) {
                return Err(format!("group {} wants {name}, and there is no [[content]] of that name", group.name));
            }
        }
        let is_known = |name: &String| self.node.iter().any(|group| group.name == *name);
        for group in &self.node {
            if let Some(name) = group.knows.as_ref().filter(|name| !is_known(name)) {
                return Err(format!("group {} knows {name}, and there is no [[node]] group of that name", group.name));
            }
        }
        self.check_servers()?;
        for fault in &self.fault {
            let is_server = |name: &String| self.server_names().any(|server| server == *name);
            if let Some(name) = fault.nodes.iter().find(|name| !is_known(name) && !is_server(name)) {
                return Err(format!("a fault befalls {name}, and there is no [[node]] group or server of that name"));
            }
        }
        self.check_dht()?;
        let shares = [self.network.loss, self.network.duplicated, self.network.reordered];
        if shares.iter().chain(self.node.iter().map(|group| &group.lies)).any(|share| !(0.0..=0.95).contains(share)) {
            return Err("a share (loss, duplicated, reordered, lies) is from 0 to 0.95".into());
        }
        Ok(())
    }

    /// What a tracker is called.
    #[must_use]
    pub fn tracker_name(&self, index: usize) -> String {
        self.tracker[index].name.clone().unwrap_or_else(|| format!("tracker {index}"))
    }

    fn tracker_names(&self) -> impl Iterator<Item = String> {
        (0..self.tracker.len()).map(|index| self.tracker_name(index))
    }

    /// The trackers that are the daemon's own, and the stores.
    fn server_names(&self) -> impl Iterator<Item = String> {
        let is_server = |index: &usize| self.tracker[*index].kind == TrackerKind::Server;
        let trackers = (0..self.tracker.len()).filter(is_server).map(|index| self.tracker_name(index));
        trackers.chain(self.store.iter().map(|store| store.name.clone()))
    }

    fn check_servers(&self) -> Result<(), String> {
        for tracker in &self.tracker {
            let is_server = tracker.kind == TrackerKind::Server;
            if !is_server && (tracker.store.is_some() || tracker.http) {
                return Err("only a tracker with kind = \"server\" has a store or speaks HTTP".into());
            }
            let is_it = |name: &&String| self.store.iter().all(|store| store.name != **name);
            if let Some(name) = tracker.store.as_ref().filter(is_it) {
                return Err(format!("a tracker has the store {name}, and there is no [[store]] of that name"));
            }
            if is_server && (tracker.interval.as_secs() < 10 || tracker.interval.as_secs() > 86_400) {
                return Err("the interval of a server is from 10s to 24h".into());
            }
        }
        let is_tracker = |name: &String| self.tracker_names().any(|tracker| tracker == *name);
        let named = self.node.iter().flat_map(|group| &group.trackers);
        let mut named = named.chain(self.crowd.iter().filter_map(|crowd| crowd.tracker.as_ref()));
        if let Some(name) = named.find(|name| !is_tracker(name)) {
            return Err(format!("somebody knows the tracker {name}, and there is no [[tracker]] of that name"));
        }
        let count: usize = self.crowd.iter().map(|crowd| crowd.count).sum();
        if count > CROWD_MAX || self.crowd.iter().any(|crowd| crowd.swarms == 0) {
            return Err(format!("a crowd is of up to {CROWD_MAX} clients in one swarm or more"));
        }
        let is_there = self.tracker.iter().any(|tracker| tracker.kind == TrackerKind::Server);
        if count > 0 && !is_there {
            return Err("a crowd announces to servers; write a [[tracker]] with kind = \"server\"".into());
        }
        let unknown = |name: &&String| self.content.iter().all(|content| content.name != **name);
        match self.crowd.iter().filter_map(|crowd| crowd.content.as_ref()).find(unknown) {
            Some(name) => Err(format!("a crowd wants {name}, and there is no [[content]] of that name")),
            None => Ok(()),
        }
    }

    fn check_dht(&self) -> Result<(), String> {
        for hostile in &self.hostile {
            let unknown = |name: &&String| self.content.iter().all(|content| content.name != **name);
            if let Some(name) = hostile.content.as_ref().filter(unknown) {
                return Err(format!("somebody means harm to {name}, and there is no [[content]] of that name"));
            }
        }
        let Some(dht) = &self.dht else {
            if self.hostile.iter().any(|hostile| hostile.harm.is_in_dht()) {
                return Err("somebody means harm in the DHT, and there is none; write [dht]".into());
            }
            if let Some(group) = self.node.iter().find(|group| group.role == Role::DhtNode) {
                return Err(format!("group {} is nodes of the DHT, and there is none; write [dht]", group.name));
            }
            return Ok(());
        };
        let begins = |group: &GroupSpec| group.name == dht.begin && group.dht && group.nat.is_none();
        if !self.node.iter().any(begins) {
            let name = &dht.begin;
            return Err(format!(
                "the DHT begins with {name}, and no [[node]] group of that name is in it and reachable"
            ));
        }
        Ok(())
    }
}

fn first_seed() -> u64 {
    1
}

/// How many there are where a scenario does not say it.
pub(crate) fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn an_hour() -> Duration {
    Duration::from_secs(3600)
}

fn content_name() -> String {
    "content".into()
}

/// `20ms`, or what [`units::parse_duration`] takes.
pub(crate) fn parse_time(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(count) => count.parse().ok().map(Duration::from_millis),
        None => units::parse_duration(text),
    }
}

/// `10Mbit`, or bytes a second as [`units::parse_size`] takes them.
fn parse_rate(text: &str) -> Option<u64> {
    for (unit, factor) in [("Kbit", 1000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000)] {
        if let Some(count) = text.strip_suffix(unit) {
            return count.parse::<u64>().ok()?.checked_mul(factor).map(|bits| bits / 8);
        }
    }
    units::parse_size(text)
}

pub(crate) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || D::Error::custom(format!("{text:?} is no time; write \"20ms\", \"90s\", \"15m\" or \"12h\""));
    parse_time(&text).ok_or_else(wrong)
}

pub(crate) fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// A word, or a list of them.
pub(crate) fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a name, or a list of names")]
    enum Names {
        One(String),
        More(Vec<String>),
    }
    Names::deserialize(from).map(|names| match names {
        Names::One(name) => vec![name],
        Names::More(names) => names,
    })
}

fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || D::Error::custom(format!("{text:?} is no rate; write \"10Mbit\", or bytes as in \"512K\""));
    parse_rate(&text).ok_or_else(wrong)
}

fn size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || D::Error::custom(format!("{text:?} is no size; write {}", units::SIZE_FORM));
    units::parse_size(&text).ok_or_else(wrong)
}

fn some_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    size(from).map(Some)
}
