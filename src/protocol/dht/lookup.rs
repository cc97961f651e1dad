//! One search (BEP 5): it asks the nearest nodes that it knows of for nearer ones, a few at a time, until the nearest that
//! answer know of none.
//!
//! Whoever wants a swarm not to be found puts nodes near its hash that lie. On the public network a number follows from the address
//! (BEP 42), and who keeps to that cannot choose how near he is; but many honest nodes do not. So a search ends at the nearest
//! of all and at the nearest with proper numbers, and whoever names only nodes that are not there is believed no more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::Duration;

use crate::base::addr::is_dialable;
use crate::base::time::Time;
use crate::codec::krpc::{Node, NodeId};
use crate::protocol::dht::id::{distance, is_allowed, is_local};
use crate::protocol::dht::table::BUCKET_LEN;

/// So many queries are under way at once, those that are slow aside.
const PARALLEL: usize = 4;
/// A query without an answer for so long is slow: another one is sent beside it.
const SLOW: Duration = Duration::from_secs(1);
/// Nodes that a search has heard of and not asked, the nearest of all; of more the farthest is forgotten.
const FRESH_MAX: usize = 128;
/// Queries of one search; it ends with what it has where somebody always names one more node that is nearer.
const QUERIES_MAX: usize = 400;
/// Who has named so many nodes that are not there, and none that is, is not believed: what else he named is forgotten.
const LIES_MAX: u8 = 3;
/// So often a node is asked: with one packet in five lost, one try in three fails, and a search that gives up the nodes near its
/// target ends beside it.
const TRIES: u8 = 2;
/// And an address to begin with: where nothing else is known, a search that gives it up has reached nobody.
const NAMELESS_TRIES: u8 = 4;
/// Nodes that one answer may add; further ones are passed over.
const LEARNT_MAX: usize = 2 * BUCKET_LEN;

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Fresh,
    Asked(Time),
    /// With what it gave us to announce or put.
    Answered(Option<Box<[u8]>>),
    Silent,
}

#[derive(Debug)]
struct Candidate {
    node: Node,
    state: State,
    /// How often it was asked without an answer.
    failures: u8,
    /// Its number is one that its address allows.
    is_proper: bool,
    /// Who named it; nobody for those that the search began with.
    source: Option<SocketAddr>,
}

/// An address whose number is not known.
#[derive(Debug)]
struct Nameless {
    addr: SocketAddr,
    state: State,
    failures: u8,
}

/// What became of those whom somebody named.
#[derive(Debug, Default)]
struct Source {
    silent: u8,
    answered: bool,
}

impl Source {
    fn is_liar(&self) -> bool {
        !self.answered && self.silent >= LIES_MAX
    }
}

/// One search.
#[derive(Debug)]
pub(super) struct Lookup {
    target: NodeId,
    own: NodeId,
    /// By distance.
    candidates: BTreeMap<[u8; 20], Candidate>,
    /// Addresses of nodes whose numbers are not known: where to begin without a table.
    nameless: Vec<Nameless>,
    /// Which candidate is at an address.
    addresses: BTreeMap<SocketAddr, [u8; 20]>,
    sources: BTreeMap<SocketAddr, Source>,
    /// Candidates that were not asked.
    fresh: usize,
    /// The nameless are asked whatever else is known.
    pub(super) is_thorough: bool,
    /// Answers that came.
    pub(super) answers: usize,
    /// Queries that were sent.
    pub(super) queries: usize,
}

impl Lookup {
    /// A search for `target` by the node `own`, that begins with these.
    pub(super) fn new(
        target: NodeId,
        own: NodeId,
        nodes: impl IntoIterator<Item = Node>,
        nameless: impl IntoIterator<Item = SocketAddr>,
    ) -> Self {
        let nameless = nameless.into_iter().map(|addr| Nameless { addr, state: State::Fresh, failures: 0 }).collect();
        let mut lookup = Self {
            target,
            own,
            candidates: BTreeMap::new(),
            nameless,
            addresses: BTreeMap::new(),
            sources: BTreeMap::new(),
            fresh: 0,
            is_thorough: false,
            answers: 0,
            queries: 0,
        };
        nodes.into_iter().for_each(|node| lookup.learn(node, None));
        lookup
    }

    pub(super) fn target(&self) -> NodeId {
        self.target
    }

    fn learn(&mut self, node: Node, source: Option<SocketAddr>) {
        let key = distance(node.id, self.target);
        let is_lie = source.and_then(|source| self.sources.get(&source)).is_some_and(Source::is_liar);
        if node.id == self.own || is_lie || !is_dialable(node.addr) || self.candidates.contains_key(&key) {
            return;
        }
        let is_proper = is_allowed(node.id, node.addr.ip());
        // An address is asked once, whatever numbers are said of it; of these one that it allows is more likely.
        if let Some(&known) = self.addresses.get(&node.addr) {
            let is_worse = |of: &Candidate| is_proper && !of.is_proper && of.state == State::Fresh;
            if !self.candidates.get(&known).is_some_and(is_worse) {
                return;
            }
            self.forget(known);
        }
        if self.fresh >= FRESH_MAX && !self.forget_beyond(key) {
            return;
        }
        self.addresses.insert(node.addr, key);
        self.fresh += 1;
        self.candidates.insert(key, Candidate { node, state: State::Fresh, failures: 0, is_proper, source });
    }

    /// Forgets the farthest of those that were not asked; false if none is beyond `key`.
    fn forget_beyond(&mut self, key: [u8; 20]) -> bool {
        let beyond = self.candidates.range((Bound::Excluded(key), Bound::Unbounded));
        let farthest = beyond.rev().find(|(_, candidate)| candidate.state == State::Fresh).map(|(key, _)| *key);
        farthest.is_some_and(|farthest| self.forget(farthest))
    }

    /// Forgets a candidate that was not asked, which may be named again.
    fn forget(&mut self, key: [u8; 20]) -> bool {
        let gone = self.candidates.remove(&key);
        gone.is_some_and(|gone| {
            self.fresh -= 1;
            self.addresses.remove(&gone.node.addr).is_some()
        })
    }

    /// One that `source` named answers, or does not.
    fn judge(&mut self, source: Option<SocketAddr>, answers: bool) {
        let Some(source) = source else { return };
        let judged = self.sources.entry(source).or_default();
        judged.answered |= answers;
        judged.silent = judged.silent.saturating_add(u8::from(!answers));
        if judged.is_liar() {
            // He may have been the first to name somebody who is there.
            let is_his = |of: &Candidate| of.source == Some(source) && of.state == State::Fresh && !of.is_proper;
            let his: Vec<_> = self.candidates.iter().filter(|(_, of)| is_his(of)).map(|(key, _)| *key).collect();
            for key in his {
                self.forget(key);
            }
        }
    }

    /// Those where the search may end, of the proper ones alone or of all: the nearest that are not known to be silent.
    fn nearest_alive(&self, proper: bool) -> impl Iterator<Item = (&[u8; 20], &Candidate)> {
        let is_meant = move |of: &Candidate| of.state != State::Silent && (of.is_proper || !proper);
        self.candidates.iter().filter(move |(_, of)| is_meant(of)).take(BUCKET_LEN)
    }

    /// Whom to ask now: where it is, and its number if that is known. None while enough are being asked, or at the end.
    pub(super) fn next_query(&mut self, now: Time) -> Option<(SocketAddr, Option<NodeId>)> {
        let is_quick = |state: &State| matches!(state, State::Asked(since) if now.since(*since) < SLOW);
        if self.queries >= QUERIES_MAX || self.states().filter(|state| is_quick(state)).count() >= PARALLEL {
            return None;
        }
        let is_fresh = |(_, candidate): &(_, &Candidate)| candidate.state == State::Fresh;
        let fresh = self.nearest_alive(true).find(is_fresh).or_else(|| self.nearest_alive(false).find(is_fresh));
        let key = fresh.map(|(key, _)| *key);
        let (addr, id, state) = match key.and_then(|key| self.candidates.get_mut(&key)) {
            Some(candidate) => {
                self.fresh -= 1;
                (candidate.node.addr, Some(candidate.node.id), &mut candidate.state)
            }
            None => {
                let nameless = self.nameless.iter_mut().find(|nameless| nameless.state == State::Fresh)?;
                (nameless.addr, None, &mut nameless.state)
            }
        };
        *state = State::Asked(now);
        self.queries += 1;
        Some((addr, id))
    }

    fn states(&self) -> impl Iterator<Item = &State> {
        let known = self.candidates.values().map(|candidate| &candidate.state);
        known.chain(self.nameless.iter().map(|nameless| &nameless.state))
    }

    fn state_of(&mut self, addr: SocketAddr, id: Option<NodeId>) -> Option<&mut State> {
        match id {
            Some(id) => {
                let candidate = self.candidates.get_mut(&distance(id, self.target))?;
                (candidate.node.addr == addr).then_some(&mut candidate.state)
            }
            None => self.nameless.iter_mut().find(|of| of.addr == addr).map(|of| &mut of.state),
        }
    }

    /// A node that was asked at `addr` as `asked_as` has answered, as `node`, with these nodes and a token.
    pub(super) fn handle_answer(
        &mut self,
        addr: SocketAddr,
        asked_as: Option<NodeId>,
        node: Node,
        nodes: impl Iterator<Item = Node>,
        token: Option<&[u8]>,
    ) {
        self.answers += 1;
        let key = distance(node.id, self.target);
        let answered = State::Answered(token.map(Into::into));
        match asked_as {
            Some(id) if id == node.id => {
                if let Some(state) = self.state_of(addr, asked_as) {
                    *state = answered;
                }
                let source = self.candidates.get(&key).and_then(|candidate| candidate.source);
                self.judge(source, true);
            }
            Some(_) => {
                // One that is not who it was said to be is as good as silent, but for what it knows.
                if let Some(state) = self.state_of(addr, asked_as) {
                    *state = State::Silent;
                }
                // On the public network it cannot have chosen a number that its address allows: it has changed it, or was
                // belied by who named it.
                if !is_local(addr.ip()) && is_allowed(node.id, addr.ip()) && node.id != self.own {
                    let candidate = Candidate { node, state: answered, failures: 0, is_proper: true, source: None };
                    self.candidates.entry(key).or_insert(candidate);
                }
            }
            None => {
                if let Some(state) = self.state_of(addr, None) {
                    *state = State::Answered(None);
                }
                self.learn(node, None);
                if let Some(candidate) = self.candidates.get_mut(&key).filter(|of| of.node.addr == node.addr) {
                    self.fresh -= usize::from(candidate.state == State::Fresh);
                    candidate.state = answered;
                }
            }
        }
        nodes.take(LEARNT_MAX).for_each(|node| self.learn(node, Some(addr)));
    }

    /// A node that was asked does not answer.
    pub(super) fn handle_silence(&mut self, addr: SocketAddr, asked_as: Option<NodeId>) {
        let candidate = asked_as.and_then(|id| self.candidates.get_mut(&distance(id, self.target)));
        if let Some(candidate) = candidate.filter(|candidate| candidate.node.addr == addr) {
            candidate.failures += 1;
            if candidate.failures < TRIES {
                candidate.state = State::Fresh;
                self.fresh += 1;
                return;
            }
            candidate.state = State::Silent;
            let source = candidate.source;
            self.judge(source, false);
        } else if let Some(nameless) = self.nameless.iter_mut().find(|of| asked_as.is_none() && of.addr == addr) {
            nameless.failures += 1;
            nameless.state = if nameless.failures < NAMELESS_TRIES { State::Fresh } else { State::Silent };
        }
    }

    /// Nothing that could still come would be nearer.
    pub(super) fn is_done(&self) -> bool {
        if self.queries >= QUERIES_MAX {
            return !self.states().any(|state| matches!(state, State::Asked(_)));
        }
        let has_answered = |(_, candidate): (_, &Candidate)| matches!(candidate.state, State::Answered(_));
        let nameless_wait = self.nameless.iter().any(|of| matches!(of.state, State::Fresh | State::Asked(_)));
        self.nearest_alive(false).all(has_answered)
            && self.nearest_alive(true).all(has_answered)
            && (!nameless_wait || (!self.is_thorough && self.nearest().count() >= BUCKET_LEN))
    }

    /// The nearest that have answered, with their tokens: at most [`BUCKET_LEN`] of all, and as many with proper numbers.
    pub(super) fn nearest(&self) -> impl Iterator<Item = (Node, Option<&[u8]>)> {
        let (mut all, mut proper) = (0, 0);
        self.candidates.values().filter_map(move |candidate| {
            let State::Answered(token) = &candidate.state else { return None };
            let is_meant = all < BUCKET_LEN || (candidate.is_proper && proper < BUCKET_LEN);
            all += 1;
            proper += usize::from(candidate.is_proper);
            is_meant.then_some((candidate.node, token.as_deref()))
        })
    }

    pub(super) fn check(&self) {
        assert!(self.fresh <= FRESH_MAX && self.candidates.len() <= FRESH_MAX + self.queries, "nodes of a search");
        assert_eq!(self.addresses.len(), self.candidates.len(), "an address a node");
    }

    /// When a query of this search becomes slow.
    pub(super) fn poll_timeout(&self, now: Time) -> Time {
        let asked = self.states().filter_map(|state| match state {
            State::Asked(since) => Some(*since + SLOW),
            _ => None,
        });
        asked.filter(|at| *at > now).min().unwrap_or(Time::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::Sha1Hash;
    use crate::base::rng::Rng;
    use crate::protocol::dht::id::draw;

    const TARGET: NodeId = Sha1Hash([0; 20]);
    const OWN: NodeId = Sha1Hash([0xff; 20]);

    /// The nearer, the less its number.
    fn node(number: u16) -> Node {
        let mut id = [0; 20];
        id[..2].copy_from_slice(&number.to_be_bytes());
        Node { id: Sha1Hash(id), addr: SocketAddr::from(([10, 0, 0, 1], number)) }
    }

    /// Asks until nothing is left to ask; nodes know the ten below them, every `silent`-th says nothing. Who was asked.
    fn run(lookup: &mut Lookup, silent: u16) -> Vec<u16> {
        let mut asked = Vec::new();
        let mut now = Time::ZERO;
        while !lookup.is_done() {
            let mut round = Vec::new();
            while let Some(query) = lookup.next_query(now) {
                round.push(query);
            }
            assert!(!round.is_empty() && round.len() <= PARALLEL, "{round:?}");
            for (addr, id) in round {
                let number = addr.port();
                asked.push(number);
                if number.is_multiple_of(silent) {
                    lookup.handle_silence(addr, id);
                } else {
                    let known = (number.saturating_sub(10).max(1)..number).map(node);
                    lookup.handle_answer(addr, id, node(number), known, Some(&number.to_be_bytes()));
                }
            }
            now += Duration::from_millis(100);
        }
        asked
    }

    #[test]
    fn it_ends_at_the_nearest_that_answer() {
        let mut lookup = Lookup::new(TARGET, OWN, [node(500), node(501)], []);
        let asked = run(&mut lookup, 3);
        let nearest: Vec<u16> = lookup.nearest().map(|(node, _)| node.addr.port()).collect();
        assert_eq!(nearest, [1, 2, 4, 5, 7, 8, 10, 11]);
        assert!(lookup.nearest().all(|(node, token)| token == Some(&node.addr.port().to_be_bytes())));
        assert!(asked.len() < 400, "{} of 500", asked.len());
    }

    #[test]
    fn it_begins_with_addresses_when_it_knows_no_node() {
        let mut lookup = Lookup::new(TARGET, OWN, [], [node(100).addr, node(90).addr]);
        run(&mut lookup, 1000);
        assert_eq!(lookup.nearest().next().unwrap().0, node(1));
        assert!(Lookup::new(TARGET, OWN, [], []).is_done());
    }

    #[test]
    fn who_is_not_who_it_should_be_gives_no_token_and_nobody_is_asked_twice() {
        let mut lookup = Lookup::new(TARGET, OWN, [node(5), node(6)], []);
        let (addr, id) = lookup.next_query(Time::ZERO).unwrap();
        let liar = Node { id: Sha1Hash([1; 20]), addr };
        let said = [node(6), Node { id: Sha1Hash([9; 20]), ..node(5) }];
        lookup.handle_answer(addr, id, liar, said.into_iter(), Some(b"x"));
        assert_eq!(lookup.next_query(Time::ZERO), Some((node(6).addr, Some(node(6).id))));
        assert_eq!(lookup.next_query(Time::ZERO), None);
        lookup.handle_answer(node(6).addr, Some(node(6).id), node(6), [Node { id: OWN, ..node(7) }].into_iter(), None);
        assert!(lookup.is_done());
        assert_eq!(lookup.nearest().collect::<Vec<_>>(), [(node(6), None)]);
    }

    /// On the public network, each in a network of its own, with a number that its address allows.
    fn honest(number: u16, rng: &mut Rng) -> Node {
        let [a, b] = number.to_be_bytes();
        let addr = SocketAddr::from(([11, a, b, 1], 6881));
        Node { id: draw(addr.ip(), rng), addr }
    }

    fn near(number: u32) -> NodeId {
        let mut id = TARGET;
        id.0[16..].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn nodes_that_are_not_there_hide_nobody_who_is() {
        let mut rng = Rng::from_number(5);
        let mut there: Vec<Node> = (0..300).map(|number| honest(number, &mut rng)).collect();
        there.sort_by_key(|node| distance(node.id, TARGET));
        let liar = |number: u8| {
            let id = near(0x0100_0000 + u32::from(number));
            Node { id, addr: SocketAddr::from(([12, 0, number, 1], 1)) }
        };
        let liars: Vec<Node> = (0..20).map(liar).collect();
        let mut lookup = Lookup::new(TARGET, OWN, there[280..].iter().chain(&liars).copied(), []);
        let (mut invented, mut now) = (0_u32, Time::ZERO);
        while !lookup.is_done() {
            let mut round = Vec::new();
            while let Some(query) = lookup.next_query(now) {
                round.push(query);
            }
            for (addr, id) in round {
                if let Some(at) = there.iter().position(|node| node.addr == addr) {
                    let known = there[at.saturating_sub(30)..at].iter().rev().step_by(4).chain(&liars).copied();
                    lookup.handle_answer(addr, id, there[at], known, Some(b"token"));
                } else if let Some(liar) = liars.iter().find(|liar| liar.addr == addr) {
                    let mut invent = || {
                        invented += 1;
                        let [a, b, c, d] = (0x2000_0000 + (invented << 8)).to_be_bytes();
                        Node { id: near(invented), addr: SocketAddr::from(([a, b, c, d | 1], 1)) }
                    };
                    let named: Vec<Node> = (0..LEARNT_MAX).map(|_| invent()).collect();
                    lookup.handle_answer(addr, id, *liar, named.into_iter(), Some(b"lie"));
                } else {
                    lookup.handle_silence(addr, id);
                }
            }
            now += Duration::from_millis(100);
        }
        assert!(invented >= 100, "{invented}");
        let nearest: Vec<Node> = lookup.nearest().map(|(node, _)| node).collect();
        assert!(there[..BUCKET_LEN].iter().all(|node| nearest.contains(node)), "{nearest:?}");
        assert!(lookup.queries < 300, "{}", lookup.queries);
        assert!(lookup.fresh <= FRESH_MAX && lookup.candidates.len() <= FRESH_MAX + lookup.queries);
    }

    #[test]
    fn it_ends_though_somebody_always_names_one_that_is_nearer() {
        let at = |number: u32| {
            let [a, b, c, d] = (0x2000_0000 + (number << 8)).to_be_bytes();
            Node { id: near(u32::MAX - number), addr: SocketAddr::from(([a, b, c, d | 1], 1)) }
        };
        let mut lookup = Lookup::new(TARGET, OWN, [at(0)], []);
        let mut last = 0;
        while !lookup.is_done() {
            let Some((addr, id)) = lookup.next_query(Time::ZERO) else { panic!("nothing is asked") };
            let asked = (0..=last).map(at).find(|node| node.addr == addr).unwrap();
            let named: Vec<Node> = (last + 1..last + 9).map(at).collect();
            last += 8;
            lookup.handle_answer(addr, id, asked, named.into_iter(), None);
        }
        assert_eq!(lookup.queries, QUERIES_MAX);
        assert_eq!(lookup.nearest().count(), BUCKET_LEN);
    }

    #[test]
    fn who_is_belied_is_found_under_the_number_that_its_address_allows() {
        let mut rng = Rng::from_number(6);
        let (first, belied) = (honest(1, &mut rng), honest(2, &mut rng));
        let mut lookup = Lookup::new(TARGET, OWN, [first], []);
        let (addr, id) = lookup.next_query(Time::ZERO).unwrap();
        lookup.handle_answer(addr, id, first, [Node { id: near(1), ..belied }].into_iter(), Some(b"a"));
        let (addr, id) = lookup.next_query(Time::ZERO).unwrap();
        assert_eq!((addr, id), (belied.addr, Some(near(1))));
        lookup.handle_answer(addr, id, belied, [].into_iter(), Some(b"b"));
        let found: BTreeMap<_, _> = lookup.nearest().collect();
        assert_eq!(found, BTreeMap::from([(first, Some(&b"a"[..])), (belied, Some(&b"b"[..]))]));
    }

    #[test]
    fn slow_queries_make_room_for_others() {
        let mut lookup = Lookup::new(TARGET, OWN, (1..20).map(node), []);
        let asked = |lookup: &mut Lookup, now| std::iter::from_fn(|| lookup.next_query(now)).count();
        assert_eq!(asked(&mut lookup, Time::ZERO), PARALLEL);
        assert_eq!(lookup.poll_timeout(Time::ZERO), Time::ZERO + SLOW);
        assert_eq!(asked(&mut lookup, Time::ZERO + SLOW), PARALLEL);
    }
}
