//! Asking a Redis or Valkey server, or a cluster of them: commands with a token each, and their replies.
//!
//! It opens nothing: it says which name it needs, which stream, and what should go on it. All that was asked before a stream can
//! be written leaves together, and replies come in the order of their server. It comes back by itself, later and later; while it
//! is away whatever is asked fails at once, so that nobody waits for it. In a cluster each key's master is asked, and slots that move are
//! followed. It speaks RESP2 without TLS, asks no replica, and sends nothing twice that may have been done.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::resp::{Value, key_slot, write_command};
use crate::protocol::dns::{DnsError, Found};

use self::node::{Ask, CONNECT_PATIENCE, Expected, Node, RESOLVE_PATIENCE, Stage, Talk};
use self::slots::{Kept, Slots};
use self::url::{RedisUrl, Server};

mod cluster;
mod node;
pub mod reader;
mod replies;
mod slots;
pub mod url;

/// What was asked and has no answer; more fails as busy.
pub const ASKS_MAX: usize = 16_384;
/// Bytes of commands that have no answer, and bytes that wait to be sent to one server; more fails as busy.
pub const OUT_MAX: usize = 4 << 20;
/// Servers of a cluster; slots of more have no keeper, and what is asked of them fails as away.
pub const NODES_MAX: usize = 64;
/// How often one command is sent to another server; beyond it it fails as away.
pub const REDIRECTS_MAX: u8 = 5;
/// How long a server may be silent while it is asked something. Then its stream is closed.
pub const REPLY_PATIENCE: Duration = Duration::from_secs(2);
/// Room for replies of one turn that is kept; more goes back at once.
const REPLIES_KEPT: usize = 1024;
/// Addresses of one name that are tried; more are left out.
const ADDRESSES_MAX: usize = 4;
/// The first wait before it is tried again, at most; the shortest is half of it.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A cluster's map that was of use for so long is looked up at once when it is wrong.
const MAP_CALM: Duration = Duration::from_secs(30);

/// A stream to a server. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What it wants from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Look this name up and call `handle_resolved`.
    Resolve(String),
    /// Open a stream and call `handle_connected` or `handle_closed`.
    Connect(LinkId, SocketAddr),
    /// Close this stream.
    Close(LinkId),
    /// There are bytes to send on this stream.
    Wake(LinkId),
}

/// Why something that was asked has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// The server that keeps it is not there, or not now. It may have been done.
    Away,
    /// Too much has been asked already. It was not done.
    Busy,
    /// No reply came in time. It may have been done.
    Timeout,
    /// The server answered with this error.
    Refused(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Away => f.write_str("the Redis server is away"),
            Self::Busy => f.write_str("too much waits for the Redis server"),
            Self::Timeout => f.write_str("the Redis server did not answer in time"),
            Self::Refused(text) => write!(f, "the Redis server refused: {text}"),
        }
    }
}

/// What it has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What came of an ask, by its token: exactly one for each.
    Reply(u64, Result<Value, Failed>),
    /// It may be asked.
    Up,
    /// It may not be asked any more, or still not, for this reason, which holds no secret. It comes after the replies to what was under way, and
    /// is told again only when the reason is another one.
    Down(String),
}

/// What has happened so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commands asked.
    pub asked: u64,
    /// Those that a server answered, not with an error.
    pub answered: u64,
    /// Those that failed.
    pub failed: u64,
    /// How often a command was sent to another server of the cluster.
    pub redirected: u64,
    /// How often it became usable again after it had been away.
    pub reconnects: u64,
    /// Streams that were closed for what came on them.
    pub broken: u64,
}

/// Why a server is lost.
#[derive(Debug)]
enum Why {
    Unreachable,
    Closed,
    Timeout,
    Broken,
    Name(DnsError),
    Said(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("it cannot be reached"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Timeout => f.write_str("it did not answer in time"),
            Self::Broken => f.write_str("what it sent is no reply of a Redis server, or a far too long one"),
            Self::Name(error) => write!(f, "{error}"),
            Self::Said(text) => f.write_str(text),
        }
    }
}

/// What a seed turned out to be.
#[derive(Debug)]
enum Seed {
    Unknown,
    /// Whether it might be one of a cluster that it may not tell us about.
    Single(bool),
    Cluster(Vec<Kept>),
}

#[derive(Debug)]
enum State {
    /// Not started, or stopped.
    Idle,
    /// Nobody is there; all are tried again then.
    Away { retry: Time },
    /// The first node is tried, and the `left` ones after it.
    Seeking { left: VecDeque<Server>, seed: Seed },
    /// The keepers of the slots are known and being reached.
    Joining,
    /// It may be asked, since then.
    Up { since: Time },
}

/// The client. Every ask gets exactly one reply. A node is there while it keeps slots, is being tried, or has just been of use; each of
/// `links` leads to the node that has it. In `Idle` and `Away` there are no nodes, in `Seeking` there is one.
#[derive(Debug)]
pub struct Redis {
    url: RedisUrl,
    state: State,
    nodes: [Option<Node>; NODES_MAX],
    slots: Slots,
    /// Servers may send us elsewhere: commands are kept until they are answered.
    moves: bool,
    /// Keepers of slots when it was last up, to be tried after the seeds.
    known: Vec<Server>,
    links: BTreeMap<LinkId, usize>,
    next_link: u64,
    /// Tries in a row of all seeds that failed.
    fails: u32,
    /// Why the last server was lost.
    reason: String,
    /// The last reason that was told, while it is not up.
    told: Option<String>,
    /// When the map of the slots is to be looked up again.
    refresh: Time,
    /// When it may be at the earliest.
    refresh_from: Time,
    refreshes: u32,
    /// Asks that have no answer, and the bytes of their commands.
    asks: usize,
    ask_bytes: usize,
    needs: VecDeque<Need>,
    events: VecDeque<Event>,
    counters: Counters,
    /// Reused.
    command: Vec<u8>,
    replies: Vec<Value>,
    rng: Rng,
}

impl Redis {
    /// A client of what is at `url`. It does nothing before it is started.
    #[must_use]
    pub fn new(url: RedisUrl, rng: Rng) -> Self {
        Self {
            url,
            state: State::Idle,
            nodes: [const { None }; NODES_MAX],
            slots: Slots::new(),
            moves: false,
            known: Vec::new(),
            links: BTreeMap::new(),
            next_link: 0,
            fails: 0,
            reason: String::new(),
            told: None,
            refresh: Time::NEVER,
            refresh_from: Time::ZERO,
            refreshes: 0,
            asks: 0,
            ask_bytes: 0,
            needs: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            command: Vec::new(),
            replies: Vec::new(),
            rng,
        }
    }

    /// Begins to connect; nothing if it has begun.
    pub fn start(&mut self, now: Time) {
        if matches!(self.state, State::Idle) {
            self.seek(now);
        }
    }

    /// Closes all streams; what is under way fails as away, and nothing more is told than that.
    pub fn stop(&mut self) {
        self.leave();
        self.state = State::Idle;
    }

    /// Asks the server that keeps `key` for `command`, its words. What comes of it comes under `token`.
    ///
    /// A command that changes something may have been done though it failed: it should be one that may be done twice.
    pub fn ask(&mut self, now: Time, token: u64, key: &[u8], command: &[&[u8]]) {
        self.counters.asked += 1;
        let mut bytes = std::mem::take(&mut self.command);
        bytes.clear();
        write_command(command, &mut bytes);
        let ask = Ask { token, asked: now, len: bytes.len(), command: Vec::new(), redirects: 0, is_early: false };
        let is_busy = self.asks >= ASKS_MAX || self.ask_bytes + ask.len > OUT_MAX;
        self.asks += 1;
        self.ask_bytes += ask.len;
        if !self.is_up() {
            self.finish(&ask, Err(Failed::Away));
        } else if is_busy {
            self.finish(&ask, Err(Failed::Busy));
        } else if let Some(keeper) = self.slots.keeper(key_slot(key)) {
            self.send(now, keeper, ask, &bytes);
        } else {
            self.want_map(now);
            self.finish(&ask, Err(Failed::Away));
        }
        self.command = bytes;
    }

    /// A name was looked up.
    pub fn handle_resolved(&mut self, now: Time, name: &str, found: &Found) {
        for index in 0..NODES_MAX {
            let Some(node) = &mut self.nodes[index] else { continue };
            if !matches!(node.stage, Stage::Resolving { .. }) || !node.server.host.eq_ignore_ascii_case(name) {
                continue;
            }
            match found {
                Ok(ips) => {
                    node.addresses = ips.iter().copied().take(ADDRESSES_MAX).collect();
                    self.dial(now, index, Why::Unreachable);
                }
                Err(error) => self.lose(now, index, &Why::Name(*error)),
            }
        }
    }

    /// A stream stands.
    pub fn handle_connected(&mut self, now: Time, link: LinkId) {
        let Some(&index) = self.links.get(&link) else { return };
        let seeks = matches!(self.state, State::Seeking { .. });
        let talk = Talk::new(now, link, &self.url, seeks);
        self.node(index).stage = Stage::Open(Box::new(talk));
        self.needs.push_back(Need::Wake(link));
    }

    /// A stream could not be had, or ended.
    pub fn handle_closed(&mut self, now: Time, link: LinkId) {
        let Some(index) = self.links.remove(&link) else { return };
        match self.node(index).stage {
            Stage::Connecting { .. } => self.dial(now, index, Why::Unreachable),
            _ => self.lose(now, index, &Why::Closed),
        }
    }

    /// Bytes came on a stream.
    pub fn handle_input(&mut self, now: Time, link: LinkId, bytes: &[u8]) {
        let Some(&index) = self.links.get(&link) else { return };
        let mut replies = std::mem::take(&mut self.replies);
        let read = match &mut self.node(index).stage {
            Stage::Open(talk) => talk.reader.read(bytes, &mut replies),
            _ => Ok(()),
        };
        for reply in replies.drain(..) {
            // One reply may be the end of its stream.
            if self.links.contains_key(&link) {
                self.handle_reply(now, index, reply);
            }
        }
        replies.shrink_to(REPLIES_KEPT);
        self.replies = replies;
        if read.is_err() && self.links.contains_key(&link) {
            self.lose(now, index, &Why::Broken);
        }
    }

    /// What should be sent on a stream.
    #[must_use]
    pub fn outgoing(&self, link: LinkId) -> &[u8] {
        let node = self.links.get(&link).and_then(|&index| self.nodes[index].as_ref());
        match node.map(|node| &node.stage) {
            Some(Stage::Open(talk)) => talk.outgoing(),
            _ => &[],
        }
    }

    /// So many of those bytes were sent.
    pub fn advance(&mut self, link: LinkId, count: usize) {
        let node = self.links.get(&link).and_then(|&index| self.nodes[index].as_mut());
        if let Some(Stage::Open(talk)) = node.map(|node| &mut node.stage) {
            talk.advance(count);
        }
    }

    /// Who is silent for too long is given up, who was lost is tried again.
    pub fn handle_timeout(&mut self, now: Time) {
        if matches!(self.state, State::Away { retry } if retry <= now) {
            self.seek(now);
        }
        for index in 0..NODES_MAX {
            self.handle_node_timeout(now, index);
        }
        if self.refresh <= now {
            self.refresh_map(now);
        }
    }

    fn handle_node_timeout(&mut self, now: Time, index: usize) {
        if self.nodes[index].as_ref().is_none_or(|node| node.deadline() > now) {
            return;
        }
        while let Some(ask) = self.node(index).waiting.pop_front_if(|ask| ask.asked + REPLY_PATIENCE <= now) {
            self.finish(&ask, Err(Failed::Timeout));
        }
        match &self.node(index).stage {
            Stage::Away { retry } if *retry <= now => self.reach(now, index),
            Stage::Resolving { deadline } if *deadline <= now => {
                self.lose(now, index, &Why::Name(DnsError::NoAnswer));
            }
            Stage::Connecting { link, deadline } if *deadline <= now => {
                let link = *link;
                self.close(link);
                self.dial(now, index, Why::Timeout);
            }
            Stage::Open(talk) if talk.deadline() <= now && !talk.is_idle() => self.lose(now, index, &Why::Timeout),
            Stage::Open(talk) if talk.deadline() <= now => {
                if self.slots.keeps_any(index) {
                    self.say(now, index, &[b"PING"], Expected::Ping);
                } else {
                    // It was a seed, or was asked for a slot that was on its way.
                    self.drop_node(index, &Failed::Away);
                }
            }
            _ => {}
        }
    }

    /// The next thing it wants from outside.
    pub fn poll_need(&mut self) -> Option<Need> {
        self.needs.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let nodes = self.nodes.iter().flatten().map(Node::deadline).min().unwrap_or(Time::NEVER);
        match self.state {
            State::Away { retry } => retry,
            _ => nodes.min(self.refresh),
        }
    }

    /// True while it may be asked; otherwise whatever is asked fails at once.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// How much was asked and has no answer.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.asks
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Ends an ask that was counted.
    fn finish(&mut self, ask: &Ask, outcome: Result<Value, Failed>) {
        self.asks -= 1;
        self.ask_bytes -= ask.len;
        *(if outcome.is_ok() { &mut self.counters.answered } else { &mut self.counters.failed }) += 1;
        self.events.push_back(Event::Reply(ask.token, outcome));
    }

    fn node(&mut self, index: usize) -> &mut Node {
        self.nodes[index].as_mut().expect("a node that is spoken of is there")
    }

    /// The node of a server; none if there are too many.
    fn node_of(&mut self, now: Time, server: &Server) -> Option<usize> {
        let is_it = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.server == *server);
        if let Some(index) = self.nodes.iter().position(is_it) {
            return Some(index);
        }
        let index = self.nodes.iter().position(Option::is_none)?;
        self.nodes[index] = Some(Node::new(now, server.clone()));
        self.reach(now, index);
        Some(index)
    }

    fn reach(&mut self, now: Time, index: usize) {
        let node = self.node(index);
        match node.server.ip() {
            Some(ip) => {
                node.addresses = VecDeque::from([ip]);
                self.dial(now, index, Why::Unreachable);
            }
            None => {
                node.stage = Stage::Resolving { deadline: now + RESOLVE_PATIENCE };
                let name = node.server.host.clone();
                self.needs.push_back(Need::Resolve(name));
            }
        }
    }

    /// Tries the next address; if there is none, the server is lost for `why`.
    fn dial(&mut self, now: Time, index: usize, why: Why) {
        let link = LinkId(self.next_link);
        let node = self.node(index);
        let Some(ip) = node.addresses.pop_front() else { return self.lose(now, index, &why) };
        let to = SocketAddr::new(IpAddr::to_canonical(&ip), node.server.port);
        node.stage = Stage::Connecting { link, deadline: now + CONNECT_PATIENCE };
        self.next_link += 1;
        self.links.insert(link, index);
        self.needs.push_back(Need::Connect(link, to));
    }

    fn close(&mut self, link: LinkId) {
        if self.links.remove(&link).is_some() {
            self.needs.push_back(Need::Close(link));
        }
    }

    /// Takes a node away; what was asked of it fails.
    fn drop_node(&mut self, index: usize, failed: &Failed) -> Option<Node> {
        let mut node = self.nodes[index].take()?;
        if let Some(link) = node.link() {
            self.close(link);
        }
        if let Stage::Open(talk) = std::mem::replace(&mut node.stage, Stage::Away { retry: Time::NEVER }) {
            talk.into_asks().for_each(|ask| self.finish(&ask, Err(failed.clone())));
        }
        std::mem::take(&mut node.waiting).iter().for_each(|ask| self.finish(ask, Err(failed.clone())));
        Some(node)
    }

    /// A server is lost.
    fn lose(&mut self, now: Time, index: usize, why: &Why) {
        self.counters.broken += u64::from(matches!(why, Why::Broken));
        let failed = if matches!(why, Why::Timeout) { Failed::Timeout } else { Failed::Away };
        let mut node = self.drop_node(index, &failed).expect("a node that is lost is there");
        self.reason = format!("{}: {why}", node.server);
        if let State::Seeking { .. } = self.state {
            return self.seek_next(now);
        }
        node.stage = Stage::Away { retry: now + self.backoff(node.fails) };
        node.fails = node.fails.saturating_add(1);
        self.nodes[index] = Some(node);
        self.want_map(now);
        self.settle(now);
    }
}

#[cfg(test)]
mod tests;
