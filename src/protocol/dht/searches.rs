//! What is looked for: each search goes its way, tells what it finds, and at its end tells the nodes that it ended at.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::addr::is_dialable;
use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::time::Time;
use crate::codec::krpc::{Node, NodeId, Query, Response, Want};
use crate::protocol::dht::filter::Filter;
use crate::protocol::dht::id::is_local;
use crate::protocol::dht::items::{self, OwnedAuthor, OwnedItem};
use crate::protocol::dht::lookup::Lookup;
use crate::protocol::dht::samples::Walk;
use crate::protocol::dht::table::BUCKET_LEN;
use crate::protocol::dht::{
    Announcement, Dht, Event, Family, GOOD_FEW, NEIGHBOURS_AGAIN, Pending, Summary, Timer, Why,
};

/// Searches at once; further ones wait.
pub(super) const SEARCHES_MAX: usize = 32;
/// Searches for our neighbours that go on beside those, so that a busy node is not forgotten by them; one more waits for the next
/// time.
pub(super) const OWN_SEARCHES_MAX: usize = 4;
/// Addresses that a search begins with where hardly any node is known.
const NAMELESS_MAX: usize = 32;
/// Peers that one search finds; more are passed over.
pub(super) const FOUND_MAX: usize = 2000;

/// What a search is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// Nodes near its target.
    Nodes,
    Peers(Option<Announcement>),
    /// Swarms that others know, wherever the walk comes by.
    Sample(Walk),
    /// An item with this salt; the newest version that was found.
    Get(Vec<u8>, Option<OwnedItem>),
    /// Nodes to keep an item, in the place of that version.
    Put(OwnedItem, Option<i64>),
}

#[derive(Debug)]
pub(super) struct Search {
    pub(super) v6: bool,
    pub(super) goal: Goal,
    pub(super) lookup: Lookup,
    pub(super) found: BTreeSet<SocketAddr>,
    /// Who seeds, and who does not, as nodes tell that were asked for it (BEP 33).
    pub(super) scraped: Option<Box<[Filter; 2]>>,
}

/// The item that an answer holds, if it is the one that was asked for.
fn found_item(target: Sha1Hash, salt: &[u8], response: &Response<'_>) -> Option<OwnedItem> {
    let author = match (response.signed, response.version) {
        (Some((key, signature)), Some(version)) => {
            Some(OwnedAuthor { key: *key, salt: salt.to_vec(), version, signature: *signature })
        }
        _ => None,
    };
    let item = OwnedItem { value: response.value?.to_vec(), author };
    let is_it = items::target_of(&item.as_item()) == target && items::is_genuine(&item.as_item());
    is_it.then_some(item)
}

fn version_of(item: &OwnedItem) -> Option<i64> {
    item.author.as_ref().map(|author| author.version)
}

impl Dht {
    /// Looks for peers of a swarm, and announces us where others will look if `announcement` says so.
    /// How many searches that is: one a family.
    pub fn find_peers(&mut self, now: Time, info_hash: InfoHash, announcement: Option<Announcement>) -> usize {
        self.look_for(now, info_hash, &Goal::Peers(announcement))
    }

    /// We have no more to do with a swarm: searches that would announce us to it end now, also those that wait, and tell nobody.
    pub fn leave(&mut self, now: Time, info_hash: InfoHash) {
        let announces = |target: NodeId, goal: &Goal| target == info_hash && matches!(goal, Goal::Peers(Some(_)));
        let events = &mut self.events;
        self.waiting.retain(|(v6, target, goal)| {
            let leaves = announces(*target, goal);
            if leaves {
                events.push_back(Event::Searched(*target, Summary { v6: *v6, announces: true, ..Summary::default() }));
            }
            !leaves
        });
        let under_way = self.searches.iter_mut().filter(|(_, search)| announces(search.lookup.target(), &search.goal));
        let mut numbers = Vec::new();
        for (number, search) in under_way {
            if let Goal::Peers(Some(announcement)) = &mut search.goal {
                announcement.ports = [0; 2];
            }
            numbers.push(*number);
        }
        numbers.into_iter().for_each(|number| self.conclude(now, number));
    }

    /// Looks for an item; the salt is that of a mutable one, or empty. How many searches that is: one a family.
    pub fn find_item(&mut self, now: Time, target: Sha1Hash, salt: &[u8]) -> usize {
        self.look_for(now, target, &Goal::Get(salt.to_vec(), None))
    }

    /// Has an item kept by the nodes nearest to it; if it `replaces` a version, by those alone that hold that one or none.
    /// How many searches that is: one a family.
    pub fn put_item(&mut self, now: Time, item: OwnedItem, replaces: Option<i64>) -> usize {
        let target = items::target_of(&item.as_item());
        self.look_for(now, target, &Goal::Put(item, replaces))
    }

    fn look_for(&mut self, now: Time, target: NodeId, goal: &Goal) -> usize {
        self.look_near(now, |_| target, goal)
    }

    /// Looks for something in each family, near to what `target` makes of our own number there.
    pub(super) fn look_near(&mut self, now: Time, target: impl Fn(NodeId) -> NodeId, goal: &Goal) -> usize {
        let families = [false, true].into_iter().zip(&self.families).filter(|(_, family)| family.is_on);
        let before = self.waiting.len();
        self.waiting.extend(families.map(|(v6, family)| (v6, target(family.table.own()), goal.clone())));
        let searches = self.waiting.len() - before;
        self.start_waiting(now);
        searches
    }

    /// Searches under way and waiting.
    #[must_use]
    pub fn searches(&self) -> usize {
        self.searches.len() + self.waiting.len()
    }

    /// A node that a search has asked answers.
    pub(super) fn handle_search_answer(
        &mut self,
        now: Time,
        number: u64,
        pending: &Pending,
        node: Node,
        response: &Response<'_>,
    ) {
        let (from, v6) = (node.addr, node.addr.is_ipv6());
        let Some(search) = self.searches.get_mut(&number) else { return };
        let nodes = if v6 { &response.nodes6 } else { &response.nodes };
        // A stranger must not send us into the networks behind our own door.
        let may_name = |addr: SocketAddr| is_local(from.ip()) || !is_local(addr.ip());
        let nodes = nodes.iter().flatten().copied().filter(|node| may_name(node.addr));
        search.lookup.handle_answer(from, pending.id, node, nodes, response.token);
        if let Goal::Get(salt, newest) = &mut search.goal
            && let Some(item) = found_item(search.lookup.target(), salt, response)
            && newest.as_ref().is_none_or(|newest| version_of(newest) < version_of(&item))
        {
            *newest = Some(item);
        }
        if let Goal::Sample(walk) = &mut search.goal
            && let Some(samples) = &response.samples
        {
            self.sampled.handle_answer(now, from, samples);
            let new = walk.take(samples);
            if !new.is_empty() {
                self.events.push_back(Event::Samples(new));
            }
        }
        if matches!(search.goal, Goal::Peers(_)) {
            let is_sane = |peer: &SocketAddr| peer.is_ipv6() == v6 && is_dialable(*peer) && may_name(*peer);
            let new = response.peers.iter().copied().filter(is_sane);
            let room = FOUND_MAX.saturating_sub(search.found.len());
            let new: Vec<SocketAddr> = new.filter(|peer| !search.found.contains(peer)).take(room).collect();
            search.found.extend(&new);
            if let Some(filters) = response.filters {
                let scraped = search.scraped.get_or_insert_default();
                scraped.iter_mut().zip(filters).for_each(|(mine, theirs)| mine.add_all(theirs));
            }
            if !new.is_empty() {
                self.events.push_back(Event::Peers(search.lookup.target(), new));
            }
        }
        self.advance(now, number);
    }

    pub(super) fn start_waiting(&mut self, now: Time) {
        while self.searches.len() < SEARCHES_MAX
            && let Some((v6, target, goal)) = self.waiting.pop_front()
        {
            self.search(now, v6, target, goal);
        }
    }

    pub(super) fn search(&mut self, now: Time, v6: bool, target: NodeId, goal: Goal) {
        let Family { table, beginnings, .. } = &self.families[usize::from(v6)];
        let nodes = table.beginning(target);
        let mut nameless: Vec<SocketAddr> = beginnings.iter().copied().chain(table.lost()).collect();
        // A network that was cut in two stays so if each half asks those alone that answer: our neighbours are looked for through
        // one that was there once, too.
        let is_thorough = target == table.own() && nodes.len() >= BUCKET_LEN;
        if is_thorough {
            nameless = self.rng.choose(&nameless).copied().into_iter().collect();
        }
        let most = if nodes.len() < BUCKET_LEN || is_thorough { NAMELESS_MAX } else { 0 };
        nameless.truncate(most);
        let mut lookup = Lookup::new(target, table.own(), nodes, nameless);
        lookup.is_thorough = is_thorough;
        let number = self.next_search;
        self.next_search += 1;
        self.searches.insert(number, Search { v6, goal, lookup, found: BTreeSet::new(), scraped: None });
        self.advance(now, number);
    }

    /// Goes on with a search: asks whom it wants to ask, or ends it.
    pub(super) fn advance(&mut self, now: Time, number: u64) {
        while let Some(search) = self.searches.get_mut(&number) {
            if search.lookup.is_done() || matches!(&search.goal, Goal::Sample(walk) if walk.is_full()) {
                return self.conclude(now, number);
            }
            let Some((to, id)) = search.lookup.next_query(now) else {
                let slow_at = search.lookup.poll_timeout(now);
                self.timers.set(Timer::Search(number), slow_at);
                return;
            };
            let (target, want) = (search.lookup.target(), Want::default());
            let query = match search.goal {
                // Who was asked lately knows no others yet, but still who is nearer.
                Goal::Sample(_) if self.sampled.may_ask(now, to) => Query::Sample { target, want },
                Goal::Nodes | Goal::Sample(_) => Query::FindNode { target, want },
                Goal::Get(..) | Goal::Put(..) => Query::Get { target, want, newer_than: None },
                // A swarm's size is for the user: who announces himself has no use for it, and answers are longer by it.
                Goal::Peers(announcement) => {
                    Query::GetPeers { info_hash: target, want, no_seeds: false, scrape: announcement.is_none() }
                }
            };
            if !self.ask(now, to, id, Why::Search(number), query) {
                let search = self.searches.get_mut(&number).expect("it was just there");
                search.lookup.handle_silence(to, id);
            }
        }
    }

    fn conclude(&mut self, now: Time, number: u64) {
        let Some(search) = self.searches.remove(&number) else { return };
        self.timers.remove(Timer::Search(number));
        let target = search.lookup.target();
        let (queries, answers) = (search.lookup.queries, search.lookup.answers);
        let event = match &search.goal {
            Goal::Nodes => {
                let Family { table, neighbours_again, .. } = self.family(search.v6);
                if target == table.own() && *neighbours_again < NEIGHBOURS_AGAIN.1 {
                    table.refresh_sparse(now);
                }
                if table.good(now) < GOOD_FEW {
                    *neighbours_again = (*neighbours_again).min(Duration::from_mins(1));
                }
                None
            }
            Goal::Get(_, newest) => Some(Event::Item(target, newest.clone(), answers)),
            Goal::Put(item, replaces) => {
                let put = |token| Query::Put { token, item: item.as_item(), replaces: *replaces };
                Some(Event::Put(target, self.tell_nearest(now, &search.lookup, put), answers))
            }
            Goal::Peers(announcement) => {
                let port = announcement.map(|announcement| announcement.ports[usize::from(search.v6)]);
                let announced = match (announcement, port.filter(|port| *port != 0)) {
                    (Some(Announcement { seed, .. }), Some(port)) => {
                        let (port, seed) = (Some(port), *seed);
                        let announce = |token| Query::AnnouncePeer { info_hash: target, port, seed, token };
                        self.tell_nearest(now, &search.lookup, announce)
                    }
                    _ => 0,
                };
                let (v6, announces, peers) = (search.v6, announcement.is_some(), search.found.len());
                let swarm = search.scraped.map(|filters| filters.map(|filter| filter.count()).into());
                Some(Event::Searched(target, Summary { v6, queries, answers, peers, announces, announced, swarm }))
            }
            Goal::Sample(walk) => {
                let walk = walk.clone();
                return self.walk_on(now, search.v6, walk, queries, answers);
            }
        };
        self.events.extend(event);
        self.start_waiting(now);
    }

    /// Tells something to the nodes that a search has ended at, those that gave a token for it. How many.
    fn tell_nearest<'q>(&mut self, now: Time, lookup: &'q Lookup, say: impl Fn(&'q [u8]) -> Query<'q>) -> usize {
        let nearest = lookup.nearest().filter_map(|(node, token)| Some((node, token?)));
        nearest.filter(|(node, token)| self.ask(now, node.addr, Some(node.id), Why::Tell, say(token))).count()
    }
}
