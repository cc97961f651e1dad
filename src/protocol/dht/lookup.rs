//! One search (BEP 5): it asks the nearest nodes that it knows of for nearer ones, a few at a time, until the nearest that
//! answer know of none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::addr::is_dialable;
use crate::base::time::Time;
use crate::codec::krpc::{Node, NodeId};
use crate::protocol::dht::id::distance;
use crate::protocol::dht::table::BUCKET_LEN;

/// So many queries are under way at once, those that are slow aside.
const PARALLEL: usize = 4;
/// A query without an answer for so long is slow: another one is sent beside it.
const SLOW: Duration = Duration::from_secs(1);
/// Nodes that a search keeps in mind, the nearest of all that it heard of.
const CANDIDATES_MAX: usize = 128;
/// So often a node is asked: with one packet in five lost, one try in three fails, and a search that gives up the nodes near its
/// target ends beside it.
const TRIES: u8 = 2;
/// Nodes that one answer may add.
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
}

/// One search.
#[derive(Debug)]
pub(super) struct Lookup {
    target: NodeId,
    own: NodeId,
    /// By distance.
    candidates: BTreeMap<[u8; 20], Candidate>,
    /// Addresses of nodes whose numbers are not known: where to begin without a table.
    nameless: Vec<(SocketAddr, State)>,
    addresses: BTreeSet<SocketAddr>,
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
        let nameless = nameless.into_iter().map(|addr| (addr, State::Fresh)).collect();
        let (candidates, addresses) = (BTreeMap::new(), BTreeSet::new());
        let mut lookup = Self { target, own, candidates, nameless, addresses, answers: 0, queries: 0 };
        nodes.into_iter().for_each(|node| lookup.learn(node));
        lookup
    }

    pub(super) fn target(&self) -> NodeId {
        self.target
    }

    fn learn(&mut self, node: Node) {
        let key = distance(node.id, self.target);
        let is_far = self.candidates.len() >= CANDIDATES_MAX
            && self.candidates.last_key_value().is_some_and(|(farthest, _)| *farthest < key);
        if node.id == self.own || is_far || !is_dialable(node.addr) || self.candidates.contains_key(&key) {
            return;
        }
        // An address is asked once, whatever numbers are said of it.
        if self.addresses.insert(node.addr) {
            self.candidates.insert(key, Candidate { node, state: State::Fresh, failures: 0 });
            if self.candidates.len() > CANDIDATES_MAX {
                let (_, gone) = self.candidates.pop_last().expect("there are more than enough");
                self.addresses.remove(&gone.node.addr);
            }
        }
    }

    /// Whom to ask now: where it is, and its number if that is known. None while enough are being asked, or at the end.
    pub(super) fn next_query(&mut self, now: Time) -> Option<(SocketAddr, Option<NodeId>)> {
        let is_quick = |state: &State| matches!(state, State::Asked(since) if now.since(*since) < SLOW);
        let states = self.candidates.values().map(|candidate| &candidate.state);
        let quick = states.chain(self.nameless.iter().map(|(_, state)| state)).filter(|state| is_quick(state)).count();
        if quick >= PARALLEL {
            return None;
        }
        let alive = self.candidates.values_mut().filter(|candidate| candidate.state != State::Silent);
        let fresh = alive.take(BUCKET_LEN).find(|candidate| candidate.state == State::Fresh);
        let (addr, id, state) = match fresh {
            Some(candidate) => (candidate.node.addr, Some(candidate.node.id), &mut candidate.state),
            None => {
                let (addr, state) = self.nameless.iter_mut().find(|(_, state)| *state == State::Fresh)?;
                (*addr, None, state)
            }
        };
        *state = State::Asked(now);
        self.queries += 1;
        Some((addr, id))
    }

    fn state_of(&mut self, addr: SocketAddr, id: Option<NodeId>) -> Option<&mut State> {
        match id {
            Some(id) => {
                let candidate = self.candidates.get_mut(&distance(id, self.target))?;
                (candidate.node.addr == addr).then_some(&mut candidate.state)
            }
            None => self.nameless.iter_mut().find(|(of, _)| *of == addr).map(|(_, state)| state),
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
        let has_its_number = asked_as == Some(node.id);
        if let Some(state) = self.state_of(addr, asked_as) {
            // One that is not who it was said to be is as good as silent, but for what it knows.
            let is_kept = has_its_number || asked_as.is_none();
            *state = if is_kept { State::Answered(token.map(Into::into)) } else { State::Silent };
            self.answers += 1;
        }
        if asked_as.is_none() {
            self.learn(node);
            if let Some(state) = self.state_of(node.addr, Some(node.id)) {
                *state = State::Answered(token.map(Into::into));
            }
        }
        nodes.take(LEARNT_MAX).for_each(|node| self.learn(node));
    }

    /// A node that was asked does not answer.
    pub(super) fn handle_silence(&mut self, addr: SocketAddr, asked_as: Option<NodeId>) {
        let candidate = asked_as.and_then(|id| self.candidates.get_mut(&distance(id, self.target)));
        if let Some(candidate) = candidate.filter(|candidate| candidate.node.addr == addr) {
            candidate.failures += 1;
            let gives_up = candidate.failures >= TRIES;
            candidate.state = if gives_up { State::Silent } else { State::Fresh };
        } else if let Some(state) = self.state_of(addr, asked_as) {
            *state = State::Silent;
        }
    }

    /// Nothing that could still come would be nearer.
    pub(super) fn is_done(&self) -> bool {
        let mut nearest =
            self.candidates.values().filter(|candidate| candidate.state != State::Silent).take(BUCKET_LEN);
        let nameless_wait = self.nameless.iter().any(|(_, state)| matches!(state, State::Fresh | State::Asked(_)));
        nearest.all(|candidate| matches!(candidate.state, State::Answered(_)))
            && (!nameless_wait || self.nearest().count() >= BUCKET_LEN)
    }

    /// The nearest that have answered, with their tokens; at most [`BUCKET_LEN`].
    pub(super) fn nearest(&self) -> impl Iterator<Item = (Node, Option<&[u8]>)> {
        let answered = self.candidates.values().filter_map(|candidate| match &candidate.state {
            State::Answered(token) => Some((candidate.node, token.as_deref())),
            _ => None,
        });
        answered.take(BUCKET_LEN)
    }

    pub(super) fn check(&self) {
        assert!(self.candidates.len() <= CANDIDATES_MAX, "nodes of a search");
        assert_eq!(self.addresses.len(), self.candidates.len(), "an address a node");
    }

    /// When a query of this search becomes slow.
    pub(super) fn poll_timeout(&self, now: Time) -> Time {
        let states = self.candidates.values().map(|candidate| &candidate.state);
        let asked = states.chain(self.nameless.iter().map(|(_, state)| state)).filter_map(|state| match state {
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

    #[test]
    fn slow_queries_make_room_for_others() {
        let mut lookup = Lookup::new(TARGET, OWN, (1..20).map(node), []);
        let asked = |lookup: &mut Lookup, now| std::iter::from_fn(|| lookup.next_query(now)).count();
        assert_eq!(asked(&mut lookup, Time::ZERO), PARALLEL);
        assert_eq!(lookup.poll_timeout(Time::ZERO), Time::ZERO + SLOW);
        assert_eq!(asked(&mut lookup, Time::ZERO + SLOW), PARALLEL);
    }
}
