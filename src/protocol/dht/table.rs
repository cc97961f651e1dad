//! The routing table of one family (BEP 5): nodes that have answered us, the more of them the nearer they are to us.
//!
//! A bucket holds those that share just so many first bits with us; the last one holds all the rest, and is split when it is
//! full. What finds no room in its bucket waits beside it and takes the place of the first one there that falls silent. On the
//! public network an address has one place (a stranger must not fill the table from one machine).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::krpc::{Node, NodeId};
use crate::protocol::dht::id::{distance, is_allowed, is_local, random_at, shared_bits};

/// Nodes of a bucket (BEP 5: K).
pub(super) const BUCKET_LEN: usize = 8;
/// Nodes that wait for a place in a bucket; an older one gives way.
const SPARES_MAX: usize = 8;
/// So long a node is good after it was heard of, and a bucket after one of its nodes answered (BEP 5).
pub(super) const FRESH: Duration = Duration::from_mins(15);
/// After so many queries without an answer in a row a node is bad.
const FAILURES_MAX: u8 = 2;
/// Of one /24 (or /48) of the public network a bucket holds no more.
const NEIGHBOURS_MAX: usize = 2;
/// Buckets; there are no more different counts of shared bits.
const BUCKETS_MAX: usize = 160;

#[derive(Debug, Clone)]
struct Entry {
    node: Node,
    /// When it last answered or asked.
    heard: Time,
    /// Queries in a row that it did not answer.
    failures: u8,
    /// It is being asked whether it is still there.
    is_probed: bool,
}

impl Entry {
    fn is_good(&self, now: Time) -> bool {
        self.failures == 0 && !self.heard.is_never() && now.since(self.heard) < FRESH
    }

    fn is_bad(&self) -> bool {
        self.failures >= FAILURES_MAX
    }
}

#[derive(Debug, Default)]
struct Bucket {
    entries: Vec<Entry>,
    /// The latest last.
    spares: Vec<Entry>,
    /// When to look for nodes that belong into it, unless something happens in it before.
    refresh_at: Time,
}

/// The network that an address is a part of: what one party probably holds all of.
pub(super) fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) & 0xffff_ff00).to_be_bytes()),
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) & !(u128::MAX >> 48)).to_be_bytes()),
    }
}

impl Bucket {
    fn has_room_for(&self, node: Node) -> bool {
        let of = neighbourhood(node.addr.ip());
        let neighbours = self.entries.iter().filter(|entry| neighbourhood(entry.node.addr.ip()) == of).count();
        is_local(node.addr.ip()) || neighbours < NEIGHBOURS_MAX
    }
}

/// The table. Invariant: `places` names the address of every entry and spare, once.
#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    buckets: Vec<Bucket>,
    places: BTreeMap<SocketAddr, NodeId>,
}

impl Table {
    pub(super) fn new(own: NodeId) -> Self {
        Self { own, buckets: vec![Bucket::default()], places: BTreeMap::new() }
    }

    pub(super) fn own(&self) -> NodeId {
        self.own
    }

    /// How many nodes have a place.
    pub(super) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.entries.len()).sum()
    }

    /// How many of them are good.
    pub(super) fn good(&self, now: Time) -> usize {
        self.entries().filter(|entry| entry.is_good(now)).count()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.buckets.iter().flat_map(|bucket| &bucket.entries)
    }

    /// Those that have a place, in no order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> {
        self.entries().filter(|entry| !entry.is_bad()).map(|entry| entry.node)
    }

    /// Those that no longer answer, and whose place nobody wants: who hears of no other may try them again.
    pub(super) fn lost(&self) -> impl Iterator<Item = SocketAddr> {
        self.entries().filter(|entry| entry.is_bad()).map(|entry| entry.node.addr)
    }

    fn bucket_of(&self, id: NodeId) -> usize {
        shared_bits(self.own, id).min(self.buckets.len() - 1)
    }

    fn entry(&mut self, node: Node) -> Option<&mut Entry> {
        let bucket = self.bucket_of(node.id);
        let Bucket { entries, spares, .. } = &mut self.buckets[bucket];
        entries.iter_mut().chain(spares).find(|entry| entry.node == node)
    }

    /// A node asked us something. True if it should be asked whether it is there: it is not known and there would be a place for
    /// it, or it is not what we took it for.
    pub(super) fn handle_query(&mut self, now: Time, node: Node) -> bool {
        if let Some(entry) = self.entry(node) {
            entry.heard = now;
            return entry.is_bad(); // it is there again
        }
        if self.places.contains_key(&node.addr) {
            return true; // it calls itself otherwise now
        }
        let bucket = self.bucket_of(node.id);
        let is_last = bucket + 1 == self.buckets.len();
        let Bucket { entries, spares, .. } = &self.buckets[bucket];
        let has_place = is_last || entries.len() < BUCKET_LEN || entries.iter().any(|entry| !entry.is_good(now));
        has_place && spares.len() < SPARES_MAX && !self.is_taken(node)
    }

    /// Another node has this address, or on the public network another port of it.
    fn is_taken(&self, node: Node) -> bool {
        let ip = node.addr.ip();
        let (from, to) = if is_local(ip) { (node.addr.port(), node.addr.port()) } else { (0, u16::MAX) };
        self.places.range(SocketAddr::new(ip, from)..=SocketAddr::new(ip, to)).next().is_some()
    }

    /// A node has answered a query of ours: it gets a place, or waits for one.
    pub(super) fn handle_answer(&mut self, now: Time, node: Node) {
        let bucket = self.bucket_of(node.id);
        if let Some(entry) = self.entry(node) {
            *entry = Entry { node, heard: now, failures: 0, is_probed: false };
            self.buckets[bucket].refresh_at = now + FRESH;
            return;
        }
        match self.places.get(&node.addr) {
            // It calls itself otherwise now.
            Some(&old) => self.remove(Node { id: old, addr: node.addr }),
            None if self.is_taken(node) => return,
            None => {}
        }
        if node.id != self.own && self.buckets[self.bucket_of(node.id)].entries.iter().all(|of| of.node.id != node.id) {
            self.insert(now, Entry { node, heard: now, failures: 0, is_probed: false });
        }
    }

    /// A node that an earlier run knew. It is good once it has answered.
    pub(super) fn restore(&mut self, node: Node) {
        let is_known = self.places.contains_key(&node.addr);
        if !is_known && self.handle_query(Time::ZERO, node) && node.id != self.own {
            self.insert(Time::ZERO, Entry { node, heard: Time::NEVER, failures: 0, is_probed: false });
        }
    }

    fn insert(&mut self, now: Time, entry: Entry) {
        loop {
            let index = self.bucket_of(entry.node.id);
            let count = self.buckets.len();
            let bucket = &mut self.buckets[index];
            let bad = bucket.entries.iter().position(Entry::is_bad);
            if !bucket.has_room_for(entry.node) {
                return;
            }
            if bucket.entries.len() < BUCKET_LEN {
                self.places.insert(entry.node.addr, entry.node.id);
                bucket.entries.push(entry);
            } else if let Some(bad) = bad {
                bucket.refresh_at = now + FRESH;
                self.places.insert(entry.node.addr, entry.node.id);
                let gone = std::mem::replace(&mut bucket.entries[bad], entry);
                self.places.remove(&gone.node.addr);
            } else if index + 1 == count && count < BUCKETS_MAX {
                self.split();
                continue;
            } else {
                if bucket.spares.len() >= SPARES_MAX {
                    let gone = bucket.spares.remove(0);
                    self.places.remove(&gone.node.addr);
                }
                self.places.insert(entry.node.addr, entry.node.id);
                bucket.spares.push(entry);
            }
            return;
        }
    }

    /// Divides the last bucket, the one that we would be in, between itself and a new last one.
    fn split(&mut self) {
        let bits = self.buckets.len() - 1;
        let own = self.own;
        let last = self.buckets.last_mut().expect("there is always one");
        let is_nearer = |entry: &Entry| shared_bits(own, entry.node.id) > bits;
        let (nearer, farther) = std::mem::take(&mut last.entries).into_iter().partition(is_nearer);
        let (near_spares, far_spares) = std::mem::take(&mut last.spares).into_iter().partition(is_nearer);
        (last.entries, last.spares) = (farther, far_spares);
        let refresh_at = last.refresh_at;
        self.buckets.push(Bucket { entries: nearer, spares: near_spares, refresh_at });
    }

    /// A node did not answer a query of ours.
    pub(super) fn handle_silence(&mut self, node: Node) {
        let Some(entry) = self.entry(node) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.is_probed = false;
        if entry.is_bad() {
            let bucket = self.bucket_of(node.id);
            let Bucket { entries, spares, .. } = &mut self.buckets[bucket];
            spares.retain(|spare| spare.node != node);
            let place = entries.iter().position(|entry| entry.node == node);
            let Some(place) = place else {
                self.places.remove(&node.addr);
                return;
            };
            if let Some(spare) = spares.pop() {
                entries[place] = spare;
                self.places.remove(&node.addr);
            }
        }
    }

    fn remove(&mut self, node: Node) {
        let bucket = self.bucket_of(node.id);
        let Bucket { entries, spares, .. } = &mut self.buckets[bucket];
        entries.retain(|entry| entry.node != node);
        spares.retain(|spare| spare.node != node);
        if entries.len() < BUCKET_LEN {
            entries.extend(spares.pop());
        }
        self.places.remove(&node.addr);
    }

    /// Up to `count` of the nodes that are nearest to `target`, the nearest first; no bad ones.
    pub(super) fn nearest(&self, target: NodeId, count: usize) -> Vec<Node> {
        self.nearest_where(target, count, |_| true)
    }

    /// Up to [`BUCKET_LEN`] nodes near `target` to name to others: half of them the nearest of all, and the nearest with numbers that
    /// their addresses allow. Whoever chooses his number to sit near a target (BEP 42) cannot crowd out all others.
    pub(super) fn named(&self, target: NodeId) -> Vec<Node> {
        let is_proper = |node: &Node| is_allowed(node.id, node.addr.ip());
        let mut named = self.nearest(target, BUCKET_LEN);
        if named.len() == BUCKET_LEN && !named.iter().all(is_proper) {
            let rest = named.split_off(BUCKET_LEN / 2);
            let others = self.nearest_where(target, BUCKET_LEN, is_proper).into_iter().chain(rest);
            let others: Vec<Node> = others.filter(|node| !named.contains(node)).collect();
            named.extend(others);
            named.truncate(BUCKET_LEN);
        }
        named
    }

    /// Nodes to begin a search with: the nearest of all, and the nearest with numbers that their addresses allow.
    pub(super) fn beginning(&self, target: NodeId) -> Vec<Node> {
        let mut nodes = self.nearest(target, 2 * BUCKET_LEN);
        let mut proper = self.nearest_where(target, BUCKET_LEN, |node| is_allowed(node.id, node.addr.ip()));
        proper.retain(|node| !nodes.contains(node));
        nodes.extend(proper);
        nodes
    }

    fn nearest_where(&self, target: NodeId, count: usize, is_meant: impl Fn(&Node) -> bool) -> Vec<Node> {
        let at = self.bucket_of(target);
        let mut found: Vec<([u8; 20], Node)> = Vec::with_capacity(count + BUCKET_LEN);
        let mut take = |buckets: &[Bucket]| {
            let entries = buckets.iter().flat_map(|bucket| &bucket.entries);
            let entries = entries.filter(|entry| !entry.is_bad() && is_meant(&entry.node));
            let from = found.len();
            found.extend(entries.map(|entry| (distance(entry.node.id, target), entry.node)));
            found[from..].sort_unstable();
            found.len() >= count
        };
        // Those in the target's bucket share more bits with it than those nearer to us, and these more than those farther away.
        let _ = take(&self.buckets[at..=at])
            || take(&self.buckets[at + 1..])
            || (0..at).rev().any(|bucket| take(&self.buckets[bucket..=bucket]));
        found.truncate(count);
        found.into_iter().map(|(_, node)| node).collect()
    }

    /// A node to ask whether it is still there, because others wait for its place; each once until it answers or not.
    pub(super) fn next_probe(&mut self, now: Time) -> Option<Node> {
        let waited_for = self.buckets.iter_mut().filter(|bucket| !bucket.spares.is_empty());
        let doubtful =
            waited_for.flat_map(|bucket| &mut bucket.entries).filter(|entry| !entry.is_probed && !entry.is_good(now));
        let entry = doubtful.min_by_key(|entry| entry.heard)?;
        entry.is_probed = true;
        Some(entry.node)
    }

    /// A number to look for, so that a bucket in which nothing has happened for long is filled with what is there now.
    pub(super) fn next_refresh(&mut self, now: Time, rng: &mut Rng) -> Option<NodeId> {
        let index = self.buckets.iter().position(|bucket| bucket.refresh_at <= now)?;
        self.buckets[index].refresh_at = now + FRESH;
        Some(random_at(self.own, index, rng))
    }

    /// When [`Table::next_refresh`] has something.
    pub(super) fn refresh_at(&self) -> Time {
        self.buckets.iter().map(|bucket| bucket.refresh_at).min().expect("there is always a bucket")
    }

    /// We have just come: what has room is looked for anew.
    pub(super) fn refresh_sparse(&mut self, now: Time) {
        let sparse = self.buckets.iter_mut().filter(|bucket| bucket.entries.len() < BUCKET_LEN);
        sparse.for_each(|bucket| bucket.refresh_at = now);
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn check(&self) {
        let all = self.buckets.iter().flat_map(|bucket| bucket.entries.iter().chain(&bucket.spares));
        let places: BTreeMap<_, _> = all.clone().map(|entry| (entry.node.addr, entry.node.id)).collect();
        assert_eq!(all.count(), places.len(), "no address twice");
        assert_eq!(places, self.places);
        for (index, bucket) in self.buckets.iter().enumerate() {
            assert!(bucket.entries.len() <= BUCKET_LEN && bucket.spares.len() <= SPARES_MAX);
            for entry in bucket.entries.iter().chain(&bucket.spares) {
                assert_eq!(self.bucket_of(entry.node.id), index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::hash::Sha1Hash;
    use crate::base::rng::Rng;
    use crate::protocol::dht::id::draw;

    fn node(number: u32) -> Node {
        let id = Sha1Hash::of(&number.to_be_bytes());
        Node { id, addr: SocketAddr::new(IpAddr::from(number.to_be_bytes().map(|byte| byte | 1)), 6881) }
    }

    /// On the public network, each in a network of its own.
    fn nodes(count: u32) -> Vec<Node> {
        let addr = |number: u32| SocketAddr::new(IpAddr::from((0x0b00_0001 + (number << 8)).to_be_bytes()), 6881);
        (0..count).map(|number| Node { addr: addr(number), ..node(number) }).collect()
    }

    fn table() -> Table {
        Table::new(Sha1Hash([0x5a; 20]))
    }

    const NOW: Time = Time::from_secs(1000);

    #[test]
    fn the_nearest_are_found_as_by_looking_at_all() {
        let mut table = table();
        nodes(3000).into_iter().for_each(|node| table.handle_answer(NOW, node));
        table.check();
        assert!(table.buckets.len() > 8 && table.len() > 60, "{} in {}", table.len(), table.buckets.len());
        for number in 0..200_u32 {
            let mut target = Sha1Hash::of(&[b"t", &number.to_be_bytes()[..]].concat());
            if number % 2 == 0 {
                target = random_at(table.own, number as usize / 8, &mut Rng::from_number(number.into()));
            }
            let mut all: Vec<Node> = table.nodes().collect();
            all.sort_by_key(|node| distance(node.id, target));
            all.truncate(8);
            assert_eq!(table.nearest(target, 8), all);
        }
    }

    #[test]
    fn who_falls_silent_gives_its_place_to_who_waits_for_it() {
        let mut table = table();
        let far: Vec<Node> = nodes(200).into_iter().filter(|node| shared_bits(table.own, node.id) == 0).collect();
        let near: Vec<Node> = nodes(200).into_iter().filter(|node| shared_bits(table.own, node.id) > 0).collect();
        near.into_iter().chain(far.iter().copied()).for_each(|node| table.handle_answer(NOW, node));
        table.check();
        assert_eq!((table.buckets[0].entries.len(), table.buckets[0].spares.len()), (BUCKET_LEN, SPARES_MAX));
        assert_eq!(table.next_probe(NOW), None, "all are good");
        let later = NOW + FRESH;
        table.handle_query(later, far[1]);
        let probed = table.next_probe(later).unwrap();
        assert!(probed != far[1]);
        table.handle_silence(probed);
        assert!(table.nodes().any(|node| node == probed), "once is no reason");
        table.handle_silence(probed);
        assert!(table.nodes().all(|node| node != probed));
        assert_eq!((table.buckets[0].entries.len(), table.buckets[0].spares.len()), (BUCKET_LEN, SPARES_MAX - 1));
        table.check();
    }

    #[test]
    fn who_fell_silent_or_calls_itself_otherwise_is_asked_when_it_asks() {
        let mut table = table();
        let known = nodes(1)[0];
        table.handle_answer(NOW, known);
        assert!(!table.handle_query(NOW, known), "it is known to be there");
        (0..FAILURES_MAX).for_each(|_| table.handle_silence(known));
        assert_eq!(table.nodes().count(), 0);
        assert!(table.handle_query(NOW, known), "it may be there again");
        table.handle_answer(NOW, known);
        assert_eq!(table.nodes().collect::<Vec<_>>(), [known]);
        let renamed = Node { id: node(77).id, ..known };
        assert!(table.handle_query(NOW, renamed));
        table.handle_answer(NOW, renamed);
        assert_eq!(table.nodes().collect::<Vec<_>>(), [renamed]);
        table.check();
    }

    #[test]
    fn nodes_that_chose_their_numbers_do_not_crowd_out_others() {
        let (mut table, mut rng) = (table(), Rng::from_number(3));
        let target = Sha1Hash([0x33; 20]);
        let honest: Vec<Node> =
            nodes(40).into_iter().map(|node| Node { id: draw(node.addr.ip(), &mut rng), ..node }).collect();
        let near = |number: u8| {
            let mut id = target;
            id.0[19] ^= number;
            Node { id, addr: SocketAddr::from(([12, 0, number, 1], 1)) }
        };
        (1..20).for_each(|number| table.handle_answer(NOW, near(number)));
        honest.iter().for_each(|node| table.handle_answer(NOW, *node));
        let nearest = table.nearest(target, BUCKET_LEN);
        assert!(nearest.iter().all(|node| !honest.contains(node)), "they are nearer than anybody");
        let named = table.named(target);
        assert_eq!(named.len(), BUCKET_LEN);
        let best = table.nearest_where(target, BUCKET_LEN / 2, |node| honest.contains(node));
        assert!(nearest[..BUCKET_LEN / 2].iter().chain(&best).all(|node| named.contains(node)));
        assert!(best.iter().all(|node| table.beginning(target).contains(node)));
    }

    #[test]
    fn one_machine_of_the_public_network_has_one_place_and_a_network_two_in_a_bucket() {
        let mut table = table();
        let at = |number: u32, addr: &str| Node { addr: addr.parse().unwrap(), ..node(number) };
        (0..50).for_each(|number| table.handle_answer(NOW, at(number, &format!("1.2.3.4:{}", number + 1))));
        assert_eq!(table.len(), 1);
        (50..100).for_each(|number| table.handle_answer(NOW, at(number, &format!("5.6.7.{number}:1"))));
        assert!(table.buckets.iter().all(|bucket| bucket.entries.len() <= 3));
        (100..130).for_each(|number| table.handle_answer(NOW, at(number, &format!("127.0.0.1:{number}"))));
        assert!(table.len() > 10, "many nodes may be behind a local address");
        assert!(!table.handle_query(NOW, at(0, "1.2.3.4:99")));
        table.check();
    }

    #[test]
    fn a_bucket_in_which_nothing_happens_is_refreshed() {
        let mut table = table();
        nodes(100).into_iter().for_each(|node| table.handle_answer(NOW, node));
        let mut rng = Rng::from_number(1);
        while table.next_refresh(NOW, &mut rng).is_some() {}
        assert_eq!(table.refresh_at(), NOW + FRESH);
        let target = table.next_refresh(NOW + FRESH, &mut rng).unwrap();
        assert_eq!(shared_bits(table.own, target), 0);
        assert_eq!(shared_bits(table.own, table.next_refresh(NOW + FRESH, &mut rng).unwrap()), 1);
    }

    proptest! {
        #[test]
        fn whatever_happens_the_table_stays_whole(steps in proptest::collection::vec((0..4, 0..400_u32, 0..60_u16), 0..400)) {
            let mut table = table();
            for (at, (what, number, port)) in steps.into_iter().enumerate() {
                let now = NOW + Duration::from_secs(at as u64 * 20);
                let mut node = node(number);
                node.addr.set_port(port + 1);
                if number % 3 == 0 {
                    node.addr.set_ip([127, 0, 0, 1].into());
                }
                match what {
                    0 => drop(table.handle_query(now, node)),
                    1 => table.handle_silence(node),
                    2 => table.restore(node),
                    _ => table.handle_answer(now, node),
                }
                table.check();
            }
        }
    }
}
