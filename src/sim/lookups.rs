//! What is seen on the wire of searches for peers in the DHT (BEP 5): how many there were, how many found somebody who was there to
//! be found, in how many steps and messages. It looks at datagrams alone, and so believes no node what it says of itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::hash::InfoHash;
use crate::base::time::Time;
use crate::codec::krpc::{Body, Message, Query};
use crate::sim::World;

/// A search that has asked nobody for so long has ended: an answer is waited for four seconds, and the next search of a torrent
/// begins five seconds after the last at the soonest.
const QUIET: Duration = Duration::from_millis(4500);
/// Who announced itself is known for so long (`protocol/dht/peers`).
const KNOWN: Duration = Duration::from_mins(30);

/// A query that was sent: to whom, and how many steps away from the asking one's own table that is.
#[derive(Debug)]
struct Asked {
    to: SocketAddr,
    info_hash: InfoHash,
    steps: u32,
    announces: bool,
}

/// A search under way.
#[derive(Debug)]
struct Search {
    /// Which of the node's lives it is in.
    life: u32,
    began: Time,
    last: Time,
    messages: u32,
    /// Whom it was told of, so many steps away.
    steps: BTreeMap<SocketAddr, u32>,
    /// Who was there to be found when it began.
    there: Vec<usize>,
    found: Option<(Time, u32)>,
}

/// One that has ended, and that had somebody to find.
#[derive(Debug, Clone, Copy)]
struct Ended {
    took: Duration,
    steps: u32,
    messages: u32,
    found: bool,
}

/// Every search so far.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    asked: BTreeMap<(usize, Vec<u8>), Asked>,
    open: BTreeMap<(usize, InfoHash), Search>,
    /// Who announced itself as a peer of what, and when somebody took that last.
    announced: BTreeMap<(InfoHash, usize), Time>,
    ended: Vec<Ended>,
    /// Searches that had nobody to find.
    vain: usize,
}

/// Half of them are not above the first, 99 of a hundred not above the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread<T> {
    /// The median.
    pub median: T,
    /// The 99th percentile.
    pub most: T,
}

/// The account of the searches of a run, those alone that had somebody to find.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookupReport {
    /// How many there were.
    pub count: usize,
    /// How many of them found somebody who was there.
    pub found: usize,
    /// Searches when nobody was there to be found; not counted above.
    pub vain: usize,
    /// Until the first peer was found: from node to node, the first one being of the own table.
    pub steps: Spread<u32>,
    /// Until the first peer was found.
    pub took: Spread<Duration>,
    /// Queries and announces that were sent, and answers that came, in all of a search.
    pub messages: Spread<u32>,
}

impl LookupReport {
    /// The share that succeeded; all where there were none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn share(&self) -> f64 {
        if self.count == 0 { 1.0 } else { self.found as f64 / self.count as f64 }
    }
}

impl LookupReport {
    /// The account in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { count, found, vain, steps, took, messages } = self;
        let secs = |time: Duration| time.as_secs_f64();
        format!(
            "{found} of {count} lookups found somebody ({vain} more had nobody to find), median and 99th percentile: {} and {} steps, \
             {:.2} and {:.2} seconds, {} and {} messages",
            steps.median,
            steps.most,
            secs(took.median),
            secs(took.most),
            messages.median,
            messages.most
        )
    }
}

impl<T: Copy + Ord + Default> Spread<T> {
    fn of(mut all: Vec<T>) -> Self {
        all.sort_unstable();
        let at = |hundredths: usize| all.get((all.len() * hundredths / 100).min(all.len().saturating_sub(1))).copied();
        Self { median: at(50).unwrap_or_default(), most: at(99).unwrap_or_default() }
    }
}

impl Lookups {
    /// The account.
    pub(crate) fn report(&self) -> LookupReport {
        let found = || self.ended.iter().filter(|ended| ended.found);
        LookupReport {
            count: self.ended.len(),
            found: found().count(),
            vain: self.vain,
            steps: Spread::of(found().map(|ended| ended.steps).collect()),
            took: Spread::of(found().map(|ended| ended.took).collect()),
            messages: Spread::of(self.ended.iter().map(|ended| ended.messages).collect()),
        }
    }

    fn end(&mut self, search: &Search, is_there: bool) {
        let Some((at, steps)) = search.found else {
            if is_there {
                let (messages, took) = (search.messages, Duration::ZERO);
                self.ended.push(Ended { took, steps: 0, messages, found: false });
            } else {
                self.vain += 1;
            }
            return;
        };
        let (messages, took) = (search.messages, at.since(search.began));
        self.ended.push(Ended { took, steps, messages, found: true });
    }
}

impl World {
    /// Somebody whom `node` could find in the swarm, and reach.
    fn is_there(&self, node: usize, other: usize) -> bool {
        other != node && self.nodes[other].is_up() && self.nodes[other].side == self.nodes[node].side
    }

    fn who_is_there(&self, node: usize, info_hash: InfoHash) -> Vec<usize> {
        let announced = self.lookups.announced.range((info_hash, 0)..=(info_hash, usize::MAX));
        let lately = announced.filter(|(_, at)| self.now.since(**at) < KNOWN).map(|(&(_, other), _)| other);
        lately.filter(|&other| self.is_there(node, other)).collect()
    }

    /// An engine sends a datagram, perhaps one of a search.
    pub(crate) fn note_query(&mut self, node: usize, to: SocketAddr, packet: &[u8]) {
        let Some(Message { transaction, body: Body::Query { query, .. }, .. }) = Message::parse(packet) else { return };
        let (info_hash, announces) = match query {
            Query::GetPeers { info_hash, .. } => (info_hash, false),
            Query::AnnouncePeer { info_hash, .. } => (info_hash, true),
            _ => return,
        };
        let (now, key, life) = (self.now, (node, info_hash), self.nodes[node].life);
        let is_over = |search: &Search| now.since(search.last) >= QUIET || search.life != life;
        if self.lookups.open.get(&key).is_some_and(is_over) {
            self.end_search(key);
        }
        if !self.lookups.open.contains_key(&key) && !announces {
            let there = self.who_is_there(node, info_hash);
            let (steps, found) = (BTreeMap::new(), None);
            let search = Search { life, began: now, last: now, messages: 0, steps, there, found };
            self.lookups.open.insert(key, search);
        }
        let Some(search) = self.lookups.open.get_mut(&key) else { return };
        search.last = now;
        search.messages += 1;
        let steps = *search.steps.entry(to).or_insert(1);
        self.lookups.asked.insert((node, transaction.to_vec()), Asked { to, info_hash, steps, announces });
    }

    /// A datagram came to an engine, perhaps an answer to one of a search.
    pub(crate) fn note_answer(&mut self, node: usize, from: SocketAddr, packet: &[u8]) {
        let Some(Message { transaction, body: Body::Response { response, .. }, .. }) = Message::parse(packet) else {
            return;
        };
        let key = (node, transaction.to_vec());
        if self.lookups.asked.get(&key).is_none_or(|asked| asked.to != from) {
            return;
        }
        let Some(asked) = self.lookups.asked.remove(&key) else { return };
        if asked.announces {
            self.lookups.announced.insert((asked.info_hash, node), self.now);
        }
        let peers: Vec<IpAddr> = response.peers.iter().map(SocketAddr::ip).collect();
        let is_peer = |ip: &IpAddr| {
            let other = self.node_at(*ip).filter(|&other| self.is_there(node, other));
            other.is_some_and(|other| self.lookups.announced.contains_key(&(asked.info_hash, other)))
        };
        let has_peer = peers.iter().any(is_peer);
        let Some(search) = self.lookups.open.get_mut(&(node, asked.info_hash)) else { return };
        search.messages += 1;
        for node in response.nodes.iter().chain(&response.nodes6).flatten() {
            search.steps.entry(node.addr).or_insert(asked.steps + 1);
        }
        if has_peer {
            search.found.get_or_insert((self.now, asked.steps));
        }
    }

    /// A search is over. One whose node is gone meanwhile is not spoken of.
    fn end_search(&mut self, key: (usize, InfoHash)) {
        let Some(search) = self.lookups.open.remove(&key) else { return };
        let (node, is_there) = (key.0, search.there.iter().any(|&other| self.is_there(key.0, other)));
        if self.nodes[node].is_up() && self.nodes[node].life == search.life {
            self.lookups.end(&search, is_there);
        }
    }

    /// Ends the searches that have asked nobody lately.
    pub(crate) fn end_searches(&mut self) {
        let (now, open) = (self.now, &self.lookups.open);
        let quiet = open.iter().filter(|(_, search)| now.since(search.last) >= QUIET);
        let quiet: Vec<_> = quiet.map(|(key, _)| *key).collect();
        quiet.into_iter().for_each(|key| self.end_search(key));
        // What was never answered is kept no longer than the search that asked it.
        let Lookups { asked, open, .. } = &mut self.lookups;
        asked.retain(|(node, _), asked| open.contains_key(&(*node, asked.info_hash)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_are_not_above_the_median_and_one_of_a_hundred_above_the_most() {
        assert_eq!(Spread::of((1..=1000).rev().collect::<Vec<u32>>()), Spread { median: 501, most: 991 });
        assert_eq!(Spread::of(vec![7_u32]), Spread { median: 7, most: 7 });
        assert_eq!(Spread::<u32>::of(Vec::new()), Spread::default());
    }
}
