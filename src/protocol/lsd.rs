//! Local Service Discovery (BEP 14): tells the local network which swarms we are in, and hears who else is.
//!
//! A swarm is announced soon after it is joined and every five minutes from then on, many in one datagram. What neighbours say
//! about our swarms comes out as events. It has no sockets, and does not know which interfaces there are: a datagram is for a whole group.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::{canonical_addr, is_local};
use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::tally::Tally;
use crate::base::time::Time;
use crate::codec::lsd::{GROUPS, HASHES_MAX, Search};

/// Between two announces of a swarm (BEP 14), and up to [`DELAY`] more.
const INTERVAL: Duration = Duration::from_mins(5);
/// No swarm is announced twice within so long, whoever wants it (BEP 14).
const INTERVAL_LEAST: Duration = Duration::from_mins(1);
/// A swarm that is joined is announced within so long: those that start together go together, and neighbours that were started by
/// the same cause do not all speak at once.
const DELAY: Duration = Duration::from_secs(2);
/// Swarms whose turn comes so soon go with those whose turn it is. So a node of 25 swarms or fewer sends, after its start, no more
/// than a datagram a minute and group.
const EARLY: Duration = Duration::from_mins(1);
/// Between two datagrams to a group, however many swarms there are; 2,500 of them have their turn in time.
const SPACING: Duration = Duration::from_secs(3);
/// Datagrams that are read of those that come in a minute. Further ones are dropped unread.
const HEARD_MAX: u32 = 1000;
/// And of those from one address.
const HEARD_FROM_ONE_MAX: u32 = 100;
const MINUTE: Duration = Duration::from_mins(1);

/// A peer of one of our swarms is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The swarm.
    pub info_hash: InfoHash,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// What it did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Announces: datagrams, one a group.
    pub announces: u64,
    /// Datagrams of others that were read and are as they should be.
    pub heard: u64,
    /// Those that are not, come from elsewhere, or were too many.
    pub refused: u64,
    /// Peers of our swarms that were named, each time.
    pub peers: u64,
}

#[derive(Debug, Clone, Copy)]
struct Swarm {
    /// When it is announced next; of one that was left, when it is forgotten.
    due: Time,
    announced: Option<Time>,
    /// False once it was left: it is kept for [`INTERVAL_LEAST`], should it be joined again.
    joined: bool,
}

impl Swarm {
    /// Not announced before.
    fn earliest(&self) -> Time {
        self.announced.map_or(Time::ZERO, |at| at + INTERVAL_LEAST)
    }
}

/// One node's part in it. Invariant: `order` holds the `due` of each of `swarms`.
#[derive(Debug)]
pub struct Lsd {
    /// Where we listen for peers, by family, IPv4 first.
    ports: [Option<u16>; 2],
    cookie: String,
    /// Those of the user's torrents, and those that were left within the last minute.
    swarms: BTreeMap<InfoHash, Swarm>,
    order: BTreeSet<(Time, InfoHash)>,
    /// No datagram is sent before.
    rests_until: Time,
    /// What is being announced, no more than [`HASHES_MAX`], and to which groups it still goes.
    round: Vec<InfoHash>,
    unsent: [bool; 2],
    /// No more than one datagram names, for they are taken after each.
    events: VecDeque<Event>,
    heard_since: Time,
    heard: u32,
    /// No more addresses than [`HEARD_MAX`].
    heard_from: Tally<IpAddr>,
    counts: Counts,
    rng: Rng,
}

impl Lsd {
    /// A node in no swarm, that listens at `ports`: one a family, IPv4 first; none is not told to that family's group.
    #[must_use]
    pub fn new(ports: [Option<u16>; 2], mut rng: Rng) -> Self {
        Self {
            ports,
            cookie: format!("{:08x}", rng.u32()),
            swarms: BTreeMap::new(),
            order: BTreeSet::new(),
            rests_until: Time::ZERO,
            round: Vec::new(),
            unsent: [false; 2],
            events: VecDeque::new(),
            heard_since: Time::ZERO,
            heard: 0,
            heard_from: Tally::default(),
            counts: Counts::default(),
            rng,
        }
    }

    /// We listen elsewhere now. Whoever is in a swarm joins it again, so that it is announced as soon as it may be.
    pub fn set_ports(&mut self, ports: [Option<u16>; 2]) {
        self.ports = ports;
        for (unsent, port) in self.unsent.iter_mut().zip(ports) {
            *unsent &= port.is_some();
        }
    }

    /// A datagram came to one of the groups. Only neighbours are heard, and only what they say about our swarms.
    pub fn handle_packet(&mut self, now: Time, from: SocketAddr, packet: &[u8]) {
        let mut addr = canonical_addr(from);
        let admitted = is_local(addr.ip()) && self.admits(now, addr.ip());
        let Some(search) = admitted.then(|| Search::parse(packet)).flatten() else {
            self.counts.refused += 1;
            return;
        };
        if search.cookie == Some(self.cookie.as_bytes()) {
            return;
        }
        self.counts.heard += 1;
        addr.set_port(search.port);
        for info_hash in search.info_hashes {
            if self.swarms.get(&info_hash).is_some_and(|swarm| swarm.joined) {
                self.counts.peers += 1;
                self.events.push_back(Event { info_hash, addr });
            }
        }
    }

    /// [`Lsd::poll_timeout`] has come: announces are made, for [`Lsd::poll_transmit`].
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(due, info_hash)) = self.order.first()
            && due <= now
            && !self.swarms[&info_hash].joined
        {
            self.order.pop_first();
            self.swarms.remove(&info_hash);
        }
        if now < self.poll_timeout() {
            return;
        }
        let soon = self.order.iter().take_while(|(due, _)| *due <= now + EARLY);
        let may_go = |info_hash: &InfoHash| {
            let swarm = self.swarms[info_hash];
            swarm.joined && swarm.earliest() <= now
        };
        self.round = soon.map(|&(_, info_hash)| info_hash).filter(may_go).take(HASHES_MAX).collect();
        if self.round.is_empty() {
            return;
        }
        // Some clients read but the first hash of a datagram: each is the first one some day.
        self.rng.shuffle(&mut self.round);
        for info_hash in self.round.clone() {
            let due = now + INTERVAL + self.delay();
            self.set(info_hash, Swarm { due, announced: Some(now), joined: true });
        }
        self.unsent = self.ports.map(|port| port.is_some());
        self.rests_until = now + SPACING;
    }

    /// We are in a swarm now: it is announced soon, and from time to time until [`Lsd::leave`]. If we are already, soon again.
    pub fn join(&mut self, now: Time, info_hash: InfoHash) {
        let known = self.swarms.get(&info_hash).copied();
        let swarm = known.unwrap_or(Swarm { due: Time::NEVER, announced: None, joined: false });
        let soon = swarm.earliest().max(now + self.delay());
        let due = if swarm.joined { soon.min(swarm.due) } else { soon };
        self.set(info_hash, Swarm { due, joined: true, ..swarm });
    }

    /// We are no longer in a swarm.
    pub fn leave(&mut self, info_hash: InfoHash) {
        if let Some(&swarm) = self.swarms.get(&info_hash) {
            self.set(info_hash, Swarm { due: swarm.earliest(), joined: false, ..swarm });
        }
        self.round.retain(|other| *other != info_hash);
    }

    /// The next datagram to send, and the group that it goes to; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<SocketAddr> {
        let index = self.unsent.iter().position(|unsent| *unsent)?;
        self.unsent[index] = false;
        let port = self.ports[index].expect("it is sent only to who can call back");
        if self.round.is_empty() {
            return None; // they were left meanwhile
        }
        let info_hashes = self.round.clone();
        Search { port, info_hashes, cookie: Some(self.cookie.as_bytes()) }.write(index == 1, packet);
        self.counts.announces += 1;
        Some(GROUPS[index])
    }

    /// The next thing that was heard.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Lsd::handle_timeout`] wants to be called, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.order.first().map_or(Time::NEVER, |&(due, _)| due.max(self.rests_until))
    }

    /// What it did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn set(&mut self, info_hash: InfoHash, swarm: Swarm) {
        if let Some(before) = self.swarms.insert(info_hash, swarm) {
            self.order.remove(&(before.due, info_hash));
        }
        self.order.insert((swarm.due, info_hash));
    }

    fn delay(&mut self) -> Duration {
        Duration::from_nanos(self.rng.below(DELAY.as_secs() * 1_000_000_000))
    }

    /// True if a datagram from `ip` is read.
    fn admits(&mut self, now: Time, ip: IpAddr) -> bool {
        if now.since(self.heard_since) >= MINUTE {
            (self.heard_since, self.heard) = (now, 0);
            self.heard_from.clear();
        }
        let may = self.heard < HEARD_MAX && self.heard_from.get(&ip) < HEARD_FROM_ONE_MAX;
        if may {
            self.heard += 1;
            self.heard_from.add(ip);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u32) -> InfoHash {
        InfoHash::of(&number.to_be_bytes())
    }

    fn lsd() -> Lsd {
        Lsd::new([Some(6881), Some(6882)], Rng::from_number(1))
    }

    /// Lives until `end`; when which hashes were announced to IPv4's group.
    fn live(lsd: &mut Lsd, end: Time) -> Vec<(Time, Vec<InfoHash>)> {
        let mut said = Vec::new();
        let mut packet = Vec::new();
        while lsd.poll_timeout() <= end {
            let now = lsd.poll_timeout();
            lsd.handle_timeout(now);
            assert!(lsd.poll_timeout() > now, "nobody spins");
            while let Some(to) = lsd.poll_transmit(&mut packet) {
                let search = Search::parse(&packet).expect("it is written as it is read");
                assert_eq!(search.port, if to.is_ipv4() { 6881 } else { 6882 });
                if to.is_ipv4() {
                    said.push((now, search.info_hashes));
                }
            }
        }
        said
    }

    fn said_by(port: u16, hashes: &[u32]) -> Vec<u8> {
        let mut packet = Vec::new();
        let info_hashes = hashes.iter().map(|number| hash(*number)).collect();
        Search { port, info_hashes, cookie: Some(b"other") }.write(false, &mut packet);
        packet
    }

    fn heard(lsd: &mut Lsd, now: Time, from: &str, packet: &[u8]) -> Vec<Event> {
        lsd.handle_packet(now, from.parse().unwrap(), packet);
        std::iter::from_fn(|| lsd.poll_event()).collect()
    }

    #[test]
    fn a_swarm_is_announced_soon_and_then_every_five_minutes() {
        let mut lsd = lsd();
        assert!(lsd.poll_timeout().is_never());
        lsd.join(Time::from_secs(10), hash(1));
        let said = live(&mut lsd, Time::from_secs(3600));
        assert!(said[0].0 <= Time::from_secs(12) && said.iter().all(|(_, hashes)| hashes == &[hash(1)]));
        for pair in said.windows(2) {
            assert!((300..=302).contains(&pair[1].0.since(pair[0].0).as_secs()), "{pair:?}");
        }
        assert_eq!(said.len(), 12);
        assert_eq!(lsd.counts().announces, 24, "to both groups");
    }

    #[test]
    fn no_swarm_is_announced_twice_in_a_minute_whoever_wants_it() {
        let mut lsd = lsd();
        let mut said = Vec::new();
        for second in 0..600 {
            let now = Time::from_secs(second);
            if second % 7 == 0 {
                lsd.leave(hash(1));
            }
            lsd.join(now, hash(1));
            lsd.join(now, hash(2));
            said.extend(live(&mut lsd, now));
        }
        for swarm in [hash(1), hash(2)] {
            let times: Vec<Time> = said.iter().filter(|(_, all)| all.contains(&swarm)).map(|(at, _)| *at).collect();
            assert!(times.len() >= 9, "{times:?}");
            assert!(times.windows(2).all(|pair| pair[1].since(pair[0]) >= INTERVAL_LEAST), "{times:?}");
        }
    }

    #[test]
    fn many_swarms_share_datagrams_and_each_has_its_turn() {
        let mut lsd = lsd();
        (0..1000).for_each(|number| lsd.join(Time::ZERO, hash(number)));
        let said = live(&mut lsd, Time::from_secs(899));
        assert!(said.iter().all(|(_, hashes)| hashes.len() <= HASHES_MAX));
        assert!(said.windows(2).all(|pair| pair[1].0.since(pair[0].0) >= SPACING));
        for number in 0..1000 {
            let times = said.iter().filter(|(_, hashes)| hashes.contains(&hash(number))).count();
            assert!((3..=4).contains(&times), "{times}");
        }
        assert!(said.len() <= 150, "{} datagrams", said.len());
        assert!(said.iter().flat_map(|(_, hashes)| hashes.first()).collect::<BTreeSet<_>>().len() > 90);
    }

    #[test]
    fn a_few_swarms_are_a_datagram_a_minute_at_most() {
        let mut lsd = lsd();
        let mut said = Vec::new();
        for number in 0..25 {
            let now = Time::from_secs(u64::from(number) * 10);
            lsd.join(now, hash(number));
            said.extend(live(&mut lsd, now));
        }
        let later = live(&mut lsd, Time::from_secs(7200));
        let later: Vec<Time> = later.iter().map(|(at, _)| *at).filter(|at| *at > Time::from_secs(330)).collect();
        assert!(later.windows(2).all(|pair| pair[1].since(pair[0]) >= MINUTE), "{later:?}");
    }

    #[test]
    fn a_swarm_that_was_left_is_not_announced_and_soon_forgotten() {
        let mut lsd = lsd();
        lsd.join(Time::ZERO, hash(1));
        lsd.leave(hash(1));
        assert_eq!(live(&mut lsd, Time::from_secs(900)), []);
        lsd.join(Time::from_secs(900), hash(1));
        let now = lsd.poll_timeout();
        lsd.handle_timeout(now);
        lsd.leave(hash(1));
        assert_eq!(lsd.poll_transmit(&mut Vec::new()), None, "it was to be sent");
        assert_eq!(live(&mut lsd, now + INTERVAL_LEAST), []);
        assert!(lsd.swarms.is_empty() && lsd.order.is_empty() && lsd.poll_timeout().is_never());
    }

    #[test]
    fn a_neighbour_is_heard_about_our_swarms_alone() {
        let mut lsd = lsd();
        let packet = said_by(51413, &[1, 2, 3]);
        assert_eq!(heard(&mut lsd, Time::ZERO, "192.168.1.7:6771", &packet), []);
        lsd.join(Time::ZERO, hash(1));
        lsd.join(Time::ZERO, hash(3));
        lsd.join(Time::ZERO, hash(2));
        lsd.leave(hash(2));
        for (from, peer) in [
            ("192.168.1.7:6771", "192.168.1.7:51413"),
            ("[fe80::7%4]:6771", "[fe80::7%4]:51413"),
            ("[fd00::7]:1024", "[fd00::7]:51413"),
            ("127.0.0.1:6771", "127.0.0.1:51413"),
        ] {
            let event = |number| Event { info_hash: hash(number), addr: peer.parse().unwrap() };
            assert_eq!(heard(&mut lsd, Time::ZERO, from, &packet), [event(1), event(3)]);
        }
        for from in ["8.8.8.8:6771", "[2001:db8::7]:6771", "0.0.0.0:6771"] {
            assert_eq!(heard(&mut lsd, Time::ZERO, from, &packet), [], "{from} is not near");
        }
        assert_eq!(heard(&mut lsd, Time::ZERO, "192.168.1.7:6771", b"M-SEARCH * HTTP/1.1\r\n\r\n"), []);
        assert_eq!(lsd.counts(), Counts { announces: 0, heard: 5, refused: 4, peers: 8 });
    }

    #[test]
    fn what_we_said_ourselves_is_not_heard() {
        let (mut ours, mut other) = (lsd(), Lsd::new([Some(6881), None], Rng::from_number(2)));
        for lsd in [&mut ours, &mut other] {
            lsd.join(Time::ZERO, hash(1));
        }
        let now = ours.poll_timeout();
        ours.handle_timeout(now);
        let mut packet = Vec::new();
        while let Some(to) = ours.poll_transmit(&mut packet) {
            let from = if to.is_ipv4() { "10.0.0.1:6771" } else { "[fe80::1%2]:6771" };
            assert_eq!(heard(&mut ours, now, from, &packet), []);
            assert_eq!(heard(&mut other, now, from, &packet).len(), 1);
        }
        assert_eq!((ours.counts().heard, ours.counts().refused), (0, 0));
    }

    #[test]
    fn a_flood_is_dropped_unread() {
        let mut lsd = lsd();
        lsd.join(Time::ZERO, hash(1));
        let packet = said_by(1, &[1]);
        let events = |lsd: &mut Lsd, now, ip: u32| {
            let from = SocketAddr::from((std::net::Ipv4Addr::from(0x0a00_0000 + ip), 6771)).to_string();
            heard(lsd, now, &from, &packet).len()
        };
        let from_one: usize = (0..500).map(|_| events(&mut lsd, Time::from_secs(70), 1)).sum();
        assert_eq!(from_one, HEARD_FROM_ONE_MAX as usize);
        let from_all: usize = (0..5000).map(|ip| events(&mut lsd, Time::from_secs(80), 2 + ip)).sum();
        assert_eq!(from_all, (HEARD_MAX - HEARD_FROM_ONE_MAX) as usize);
        assert!(lsd.heard_from.len() <= HEARD_MAX as usize);
        assert_eq!(events(&mut lsd, Time::from_secs(131), 1), 1, "a minute later");
    }
}
