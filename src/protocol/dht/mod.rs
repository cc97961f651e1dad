//! A node of the DHT (BEP 5) over IPv4 and IPv6 (BEP 32), as a state machine of datagrams.
//!
//! It finds peers of swarms and announces us to the nodes that should know (`searches`, `lookup`), keeps nodes that answer (`table`),
//! and answers others (`answers`): with nodes, with who announced itself to us (`peers`) and with what we keep for them (`items`).
//! A family is an overlay of its own, with its own table; both share the rest. Its number follows its address on the public
//! network (`id`, BEP 42), which others tell us.
//! Answers to an address that has not proved itself (`proof`) are small and few (`guard`).
//!
//! Methods: `handle_packet`, `handle_timeout`; `add_node`, `find_peers`, `sample`, `find_item`, `put_item`; `poll_transmit`,
//! `poll_event`, `poll_timeout`; `check` (`audit`) says what must hold.

mod answers;
mod audit;
pub mod filter;
mod guard;
mod id;
pub mod items;
mod lookup;
mod peers;
mod proof;
mod samples;
mod searches;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::{canonical_addr, is_dialable};
use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::base::timers::Timers;
use crate::codec::krpc::{Body, Message, Node, NodeId, Query, Response};
use crate::protocol::dht::guard::Guard;
use crate::protocol::dht::items::{ItemStore, OwnedItem};
use crate::protocol::dht::peers::{PeerStore, Tokens};
use crate::protocol::dht::proof::Proven;
use crate::protocol::dht::samples::Sampled;
use crate::protocol::dht::searches::{Goal, OWN_SEARCHES_MAX, SEARCHES_MAX, Search};
use crate::protocol::dht::table::{BUCKET_LEN, Table, neighbourhood};

pub(crate) use crate::protocol::dht::id::draw as draw_id;
pub use crate::protocol::dht::samples::SAMPLES_MAX;

/// A query has no answer after so long.
const SILENCE: Duration = Duration::from_secs(4);
/// Queries under way; no more are sent.
const PENDING_MAX: usize = 2048;
/// Of these, questions to strangers whether they are there.
const PINGS_MAX: usize = 128;
/// Datagrams that wait to leave; an answer that finds no place is dropped.
const OUTGOING_MAX: usize = 1024;
/// How long until we look for our neighbours again: at first, and at most, for it doubles each time. Where many come at once the
/// first search of each finds nobody, for the others are not known yet.
const NEIGHBOURS_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));
/// With fewer good nodes than this we look for more each minute.
const GOOD_FEW: usize = BUCKET_LEN / 2;
/// How often what is old is forgotten, a part at a time, and doubtful nodes are asked.
const TICK: Duration = Duration::from_secs(1);
/// So many nodes of different networks must agree on our address before we believe them.
const VOTES_MIN: usize = 6;
/// Votes that are counted; then the count begins anew.
const VOTES_MAX: usize = 64;
/// What we say that we run (BEP 20).
const VERSION: &[u8; 4] = b"SW\x00\x01";
/// Addresses to begin with that are kept for one family.
const BEGINNINGS_MAX: usize = 64;

/// How the node behaves.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// It answers nobody, and says so (BEP 43).
    pub read_only: bool,
    /// It does not say which program it is. One that answers does.
    pub anonymous: bool,
}

/// How we announce ourselves to a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// Where we listen, in IPv4 and IPv6; 0 where we do not: we are not announced there.
    pub ports: [u16; 2],
    /// We have everything (BEP 33).
    pub seed: bool,
}

/// What came of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Peers of a swarm, as they are found.
    Peers(InfoHash, Vec<SocketAddr>),
    /// A search in one family has ended.
    Searched(InfoHash, Summary),
    /// Swarms that others know, as they are told of.
    Samples(Vec<InfoHash>),
    /// A walk for swarms in one family has ended; `peers` counts the swarms.
    Sampled(Summary),
    /// A search for an item has ended: its newest version that was found in one family.
    /// So many nodes answered.
    Item(Sha1Hash, Option<OwnedItem>, usize),
    /// So many nodes of one family were asked to keep an item, of so many that answered.
    Put(Sha1Hash, usize, usize),
}

/// How a search went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// True for IPv6.
    pub v6: bool,
    /// Queries that were sent.
    pub queries: usize,
    /// Nodes that answered.
    pub answers: usize,
    /// Peers that were found.
    pub peers: usize,
    /// It was to announce us, not only to find others.
    pub announces: bool,
    /// Nodes that we are announced to.
    pub announced: usize,
    /// About how many seed, and how many do not (BEP 33), as far as nodes told: of a search that announces nobody.
    pub swarm: Option<(u32, u32)>,
}

/// What is known of one family, for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyView {
    /// Our number there.
    pub id: NodeId,
    /// Where others see us, once enough of them agree; none on a local network.
    pub seen_as: Option<IpAddr>,
    /// Nodes that have a place in the table.
    pub nodes: usize,
    /// Those that answered lately.
    pub good: usize,
}

/// Why a query was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// To know whether the node is there.
    Ping,
    Search(u64),
    /// What a search was for.
    Tell,
}

#[derive(Debug)]
struct Pending {
    to: SocketAddr,
    /// Its number, if it was known.
    id: Option<NodeId>,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Query(u16),
    /// A query of this search is slow.
    Search(u64),
    Tick,
}

/// One of the two overlays.
#[derive(Debug)]
struct Family {
    /// There is a socket for it.
    is_on: bool,
    table: Table,
    /// Where to begin.
    beginnings: BTreeSet<SocketAddr>,
    /// When we look for our neighbours.
    neighbours_at: Time,
    neighbours_again: Duration,
    /// Which networks say that we are where, on the public network.
    votes: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// What they agreed on last.
    seen_as: Option<IpAddr>,
}

/// The node.
#[derive(Debug)]
pub struct Dht {
    settings: Settings,
    rng: Rng,
    /// IPv4, IPv6.
    families: [Family; 2],
    tokens: Tokens,
    peers: PeerStore,
    items: ItemStore,
    guard: Guard,
    proven: Proven,
    /// Whom we asked for swarms.
    sampled: Sampled,
    pending: BTreeMap<u16, Pending>,
    pings: usize,
    searches: BTreeMap<u64, Search>,
    next_search: u64,
    /// Searches that wait until there are fewer: ours all, for each torrent one a family.
    waiting: VecDeque<(bool, NodeId, Goal)>,
    timers: Timers<Timer>,
    /// There is something to tick for.
    is_ticking: bool,
    outgoing: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
    queries_answered: u64,
    queries_refused: u64,
}

impl Dht {
    /// A node that knows nobody, with sockets for IPv4 and IPv6 or not.
    #[must_use]
    pub fn new(settings: Settings, has: [bool; 2], mut rng: Rng) -> Self {
        let families = has.map(|is_on| Family {
            is_on,
            table: Table::new(Sha1Hash(rng.bytes())),
            beginnings: BTreeSet::new(),
            neighbours_at: Time::ZERO,
            neighbours_again: NEIGHBOURS_AGAIN.0,
            votes: BTreeMap::new(),
            seen_as: None,
        });
        Self {
            settings,
            families,
            tokens: Tokens::new(rng.fork("tokens")),
            peers: PeerStore::default(),
            items: ItemStore::default(),
            guard: Guard::default(),
            proven: Proven::default(),
            sampled: Sampled::default(),
            pending: BTreeMap::new(),
            pings: 0,
            searches: BTreeMap::new(),
            next_search: 0,
            waiting: VecDeque::new(),
            timers: Timers::default(),
            is_ticking: false,
            outgoing: VecDeque::new(),
            events: VecDeque::new(),
            queries_answered: 0,
            queries_refused: 0,
            rng,
        }
    }

    fn family(&mut self, v6: bool) -> &mut Family {
        &mut self.families[usize::from(v6)]
    }

    /// Takes over the number and the nodes of an earlier run, in one family.
    pub fn restore(&mut self, now: Time, v6: bool, id: NodeId, nodes: &[Node]) {
        let family = self.family(v6);
        family.table = Table::new(id);
        nodes.iter().filter(|node| node.addr.is_ipv6() == v6).for_each(|node| family.table.restore(*node));
        self.start_ticking(now);
    }

    /// Our number in a family, and the nodes that the next run should begin with.
    #[must_use]
    pub fn state(&self, v6: bool) -> (NodeId, Vec<Node>) {
        let table = &self.families[usize::from(v6)].table;
        (table.own(), table.nodes().collect())
    }

    /// A node may be here: it is asked, and remembered for when the table is empty if `is_beginning`.
    pub fn add_node(&mut self, now: Time, addr: SocketAddr, is_beginning: bool) {
        let addr = canonical_addr(addr);
        if !is_dialable(addr) {
            return;
        }
        let family = self.family(addr.is_ipv6());
        if is_beginning && family.beginnings.len() < BEGINNINGS_MAX && family.beginnings.insert(addr) {
            family.neighbours_at = now;
        } else if !is_beginning {
            self.ping(now, addr, None);
        }
        self.start_ticking(now);
    }

    fn start_ticking(&mut self, now: Time) {
        if !std::mem::replace(&mut self.is_ticking, true) {
            self.timers.set(Timer::Tick, now);
        }
    }

    /// What is known of IPv4 and IPv6; none where there is no socket.
    #[must_use]
    pub fn view(&self, now: Time) -> [Option<FamilyView>; 2] {
        [0, 1].map(|at| {
            let Family { is_on, table, seen_as, .. } = &self.families[at];
            let view = || FamilyView { id: table.own(), seen_as: *seen_as, nodes: table.len(), good: table.good(now) };
            is_on.then(view)
        })
    }

    /// Swarms and peers that were announced to us, and items that we keep.
    #[must_use]
    pub fn stored(&self) -> (usize, usize, usize) {
        (self.peers.swarms(), self.peers.peers(), self.items.len())
    }

    /// Queries that were answered, and those that were not.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.queries_answered, self.queries_refused)
    }

    /// A datagram came; false if it is no message of the DHT.
    pub fn handle_packet(&mut self, now: Time, from: SocketAddr, packet: &[u8]) -> bool {
        let from = canonical_addr(from);
        let Some(message) = Message::parse(packet) else { return false };
        if !self.families[usize::from(from.is_ipv6())].is_on || from.port() == 0 {
            return true;
        }
        match &message.body {
            Body::Query { id, read_only, query } => {
                self.handle_query(now, from, message.transaction, *id, *read_only, query);
            }
            Body::Response { id, response } => {
                // What nobody asked for is not listened to.
                if let Some(pending) = self.take_pending(now, from, message.transaction) {
                    self.handle_response(now, &pending, Node { id: *id, addr: from }, response);
                    if let Some(seen_as) = message.seen_as {
                        self.vote(now, from.ip(), seen_as.ip());
                    }
                }
            }
            Body::Error { code, .. } => {
                // It is there, but is of no use to whoever asked.
                if let Some(pending) = self.take_pending(now, from, message.transaction) {
                    log::debug!("DHT node {from}: error {code}");
                    self.useless(now, &pending);
                }
            }
        }
        self.start_ticking(now);
        true
    }

    fn send(&mut self, to: SocketAddr, packet: Vec<u8>) {
        if self.outgoing.len() < OUTGOING_MAX {
            self.outgoing.push_back((to, packet));
        }
    }

    /// Sends a query; false if too many are under way.
    fn ask(&mut self, now: Time, to: SocketAddr, id: Option<NodeId>, why: Why, query: Query<'_>) -> bool {
        if self.pending.len() >= PENDING_MAX {
            return false;
        }
        let transaction = loop {
            let drawn = u16::from_be_bytes(self.rng.bytes());
            if !self.pending.contains_key(&drawn) {
                break drawn;
            }
        };
        let own = self.family(to.is_ipv6()).table.own();
        let body = Body::Query { id: own, read_only: self.settings.read_only, query };
        let mut packet = Vec::with_capacity(128);
        let bytes = transaction.to_be_bytes();
        let version = Some(&VERSION[..]).filter(|_| !self.settings.anonymous);
        Message { transaction: &bytes, seen_as: None, version, body }.write(&mut packet);
        self.pings += usize::from(why == Why::Ping);
        self.pending.insert(transaction, Pending { to, id, why });
        self.timers.set(Timer::Query(transaction), now + SILENCE);
        self.send(to, packet);
        true
    }

    fn ping(&mut self, now: Time, to: SocketAddr, id: Option<NodeId>) {
        if self.family(to.is_ipv6()).is_on && self.pings < PINGS_MAX {
            self.ask(now, to, id, Why::Ping, Query::Ping);
        }
    }

    /// The query that this answers, if there is one to this address: the address is proven then.
    fn take_pending(&mut self, now: Time, from: SocketAddr, transaction: &[u8]) -> Option<Pending> {
        let transaction = u16::from_be_bytes(transaction.try_into().ok()?);
        if self.pending.get(&transaction)?.to != from {
            return None;
        }
        self.timers.remove(Timer::Query(transaction));
        let pending = self.pending.remove(&transaction)?;
        self.proven.add(now, from.ip());
        self.pings -= usize::from(pending.why == Why::Ping);
        Some(pending)
    }

    fn handle_response(&mut self, now: Time, pending: &Pending, node: Node, response: &Response<'_>) {
        let table = &mut self.family(node.addr.is_ipv6()).table;
        if let Some(id) = pending.id.filter(|id| *id != node.id) {
            // Whoever answers there is another one now.
            table.handle_silence(Node { id, addr: node.addr });
        }
        table.handle_answer(now, node);
        if let Why::Search(number) = pending.why {
            self.handle_search_answer(now, number, pending, node, response);
        }
    }

    /// A query got no answer.
    fn silent(&mut self, now: Time, pending: &Pending) {
        if let Some(id) = pending.id {
            self.family(pending.to.is_ipv6()).table.handle_silence(Node { id, addr: pending.to });
        }
        self.useless(now, pending);
    }

    /// A query got nothing that helps.
    fn useless(&mut self, now: Time, pending: &Pending) {
        if let Why::Search(number) = pending.why {
            if let Some(search) = self.searches.get_mut(&number) {
                search.lookup.handle_silence(pending.to, pending.id);
            }
            self.advance(now, number);
        }
    }

    /// A node says where it sees us. Once enough of them agree, our number is one that we may have there (BEP 42).
    fn vote(&mut self, now: Time, from: IpAddr, seen_as: IpAddr) {
        let v6 = from.is_ipv6();
        if id::is_local(from) || id::is_local(seen_as) || seen_as.is_ipv6() != v6 {
            return;
        }
        let Family { table, votes, neighbours_at, neighbours_again, seen_as: agreed, .. } = self.family(v6);
        if votes.values().map(BTreeSet::len).sum::<usize>() >= VOTES_MAX {
            votes.clear();
        }
        let voters = votes.entry(seen_as).or_default();
        voters.insert(neighbourhood(from));
        if voters.len() < VOTES_MIN {
            return;
        }
        *agreed = Some(seen_as);
        if id::is_allowed(table.own(), seen_as) {
            return;
        }
        votes.clear();
        (*neighbours_at, *neighbours_again) = (now, NEIGHBOURS_AGAIN.0);
        let nodes: Vec<Node> = table.nodes().collect();
        let own = id::draw(seen_as, &mut self.rng);
        log::info!("DHT: others see us at {seen_as}; our number is {own} now");
        self.restore(now, v6, own, &nodes);
    }

    /// [`Dht::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Query(transaction) => {
                    if let Some(pending) = self.pending.remove(&transaction) {
                        self.pings -= usize::from(pending.why == Why::Ping);
                        self.silent(now, &pending);
                    }
                }
                Timer::Search(number) => self.advance(now, number),
                Timer::Tick => self.tick(now),
            }
        }
    }

    fn tick(&mut self, now: Time) {
        let knows_somebody = |family: &Family| family.table.len() > 0 || !family.beginnings.is_empty();
        self.is_ticking = self.families.iter().any(knows_somebody) || self.stored() != (0, 0, 0);
        self.timers.set(Timer::Tick, if self.is_ticking { now + TICK } else { Time::NEVER });
        self.peers.sweep(now);
        self.items.sweep(now);
        for v6 in [false, true] {
            if !self.family(v6).is_on {
                continue;
            }
            if let Some(node) = self.family(v6).table.next_probe(now) {
                self.ping(now, node.addr, Some(node.id));
            }
            let family = &mut self.families[usize::from(v6)];
            let has_room = self.searches.len() < SEARCHES_MAX + OWN_SEARCHES_MAX;
            let is_time = now >= family.neighbours_at && knows_somebody(family) && has_room;
            let Family { table, neighbours_at, neighbours_again, .. } = family;
            if is_time {
                *neighbours_at = now + *neighbours_again;
                *neighbours_again = (*neighbours_again * 2).min(NEIGHBOURS_AGAIN.1);
                let own = table.own();
                self.search(now, v6, own, Goal::Nodes);
            } else if self.searches.len() < SEARCHES_MAX
                && table.refresh_at() <= now
                && let Some(target) = table.next_refresh(now, &mut self.rng)
            {
                self.search(now, v6, target, Goal::Nodes);
            }
        }
    }

    /// Where the next datagram goes; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<SocketAddr> {
        let (to, bytes) = self.outgoing.pop_front()?;
        packet.clear();
        packet.extend_from_slice(&bytes);
        Some(to)
    }

    /// What came of searches.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Dht::handle_timeout`] wants to be called, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.timers.next()
    }
}
