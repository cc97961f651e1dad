//! A crowd that only announces: thousands of clients as BEP 15 describes them, without anything to share. They connect, announce,
//! ask again when nobody answers, come back after the interval, and say goodbye or not. One of them may be curious: it takes part in
//! no swarm, and scrapes all of them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::udp_tracker::{Announce, AnnounceEvent, Request, Response, SCRAPES_MAX};

/// A connection id may be used for so long (BEP 15).
const ID_LIFE: Duration = Duration::from_mins(1);
/// The first wait for an answer; each next one is twice as long (BEP 15).
const PATIENCE: Duration = Duration::from_secs(15);
/// Doublings of it.
const DOUBLINGS_MAX: u32 = 8;
/// How often the curious one scrapes.
const CURIOUS_EVERY: Duration = Duration::from_secs(10);

/// What one of them is there for.
#[derive(Debug, Clone)]
pub(crate) enum Aim {
    /// To be in a swarm, from `arrives` until `leaves`.
    Announce { info_hash: InfoHash, left: u64, arrives: Time, leaves: Time, says_goodbye: bool },
    /// To know all of these.
    Scrape(Vec<InfoHash>),
}

/// One of them.
#[derive(Debug)]
struct Client {
    addr: SocketAddr,
    tracker: SocketAddr,
    aim: Aim,
    /// The tracker's connection id, and when it came.
    id: Option<(u64, Time)>,
    transaction: u32,
    /// Since when it wants an answer; never if it wants none.
    asks_since: Time,
    tries: u32,
    announced: u32,
    has_left: bool,
    wake: Time,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CrowdReport {
    /// How many there are.
    pub count: usize,
    /// Those whose first announce was answered.
    pub answered: usize,
    /// How long the longest first announce took from its first datagram to its answer.
    pub worst: Duration,
    /// Announces that were answered.
    pub announces: u64,
    /// Those who said goodbye and were answered.
    pub left: usize,
}

impl CrowdReport {
    /// The account in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { count, answered, worst, announces, left } = *self;
        let worst = worst.as_secs_f64();
        format!(
            "{answered} of a crowd of {count} were answered, {worst:.3} seconds at the longest, {announces} announces, {left} goodbyes"
        )
    }
}

/// All of them, on one machine with as many addresses.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<Client>,
    by_ip: BTreeMap<IpAddr, usize>,
    wakes: BinaryHeap<Reverse<(Time, usize)>>,
    packets: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    pub(crate) report: CrowdReport,
    rng: Rng,
}

impl Crowd {
    /// Each is at an address of its own, knows one tracker and has an aim.
    pub(crate) fn new(clients: Vec<(SocketAddr, SocketAddr, Aim)>, rng: Rng) -> Self {
        let clients = clients.into_iter().map(|(addr, tracker, aim)| {
            let wake = if let Aim::Announce { arrives, .. } = &aim { *arrives } else { Time::ZERO + CURIOUS_EVERY };
            let (asks_since, transaction) = (Time::NEVER, 0);
            Client {
                addr,
                tracker,
                aim,
                id: None,
                transaction,
                asks_since,
                tries: 0,
                announced: 0,
                has_left: false,
                wake,
            }
        });
        let clients: Vec<Client> = clients.collect();
        let wakes = clients.iter().enumerate().map(|(index, client)| Reverse((client.wake, index))).collect();
        let by_ip = clients.iter().enumerate().map(|(index, client)| (client.addr.ip(), index)).collect();
        let count = clients.iter().filter(|client| matches!(client.aim, Aim::Announce { .. })).count();
        let report = CrowdReport { count, ..CrowdReport::default() };
        Self { clients, by_ip, wakes, packets: VecDeque::new(), report, rng }
    }

    /// Where they are.
    pub(crate) fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        self.by_ip.keys().copied()
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        self.wakes.peek().map_or(Time::NEVER, |Reverse((at, _))| *at)
    }

    /// The next datagram: from where, where to, its bytes.
    pub(crate) fn poll_packet(&mut self) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        self.packets.pop_front()
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        while let Some(&Reverse((at, index))) = self.wakes.peek()
            && at <= now
        {
            self.wakes.pop();
            let client = &mut self.clients[index];
            if client.wake != at {
                continue; // it had other plans meanwhile
            }
            if client.asks_since.is_never() {
                client.asks_since = now;
            } else {
                client.tries = (client.tries + 1).min(DOUBLINGS_MAX);
            }
            self.ask(now, index);
        }
    }

    fn sleep(&mut self, index: usize, until: Time) {
        self.clients[index].wake = until;
        if !until.is_never() {
            self.wakes.push(Reverse((until, index)));
        }
    }

    /// Sends what is to be sent next: an announce if there is an id for it.
    fn ask(&mut self, now: Time, index: usize) {
        let transaction = self.rng.u32();
        let client = &mut self.clients[index];
        client.transaction = transaction;
        let mut packet = Vec::new();
        match (client.id.filter(|(_, came)| now.since(*came) < ID_LIFE), &client.aim) {
            (None, _) => Request::Connect { transaction }.write(&mut packet),
            (Some((connection, _)), Aim::Scrape(hashes)) => {
                let hashes: Vec<[u8; 20]> = hashes.iter().take(SCRAPES_MAX).map(|hash| hash.0).collect();
                Request::Scrape { connection, transaction, info_hashes: &hashes }.write(&mut packet);
            }
            (Some((connection, _)), Aim::Announce { info_hash, left, leaves, says_goodbye, .. }) => {
                let event = match client.announced {
                    _ if now >= *leaves && *says_goodbye => AnnounceEvent::Stopped,
                    0 => AnnounceEvent::Started,
                    _ => AnnounceEvent::Regular,
                };
                let mut peer_id = *b"-CR0001-000000000000";
                peer_id[16..].copy_from_slice(&u32::try_from(index).expect("few clients").to_be_bytes());
                let (key, port) = (u32::from_be_bytes([peer_id[16], 1, 2, 3]), client.addr.port());
                let (downloaded, uploaded, num_want, info_hash, left) = (0, 0, -1, *info_hash, *left);
                let announce = Announce { info_hash, peer_id, downloaded, left, uploaded, event, key, num_want, port };
                Request::Announce { connection, transaction, announce, path: b"/announce"[..].into() }
                    .write(&mut packet);
                client.has_left = event == AnnounceEvent::Stopped;
            }
        }
        self.packets.push_back((client.addr, client.tracker, packet));
        let patience = PATIENCE * 2_u32.pow(client.tries);
        self.sleep(index, now + patience);
    }

    pub(crate) fn handle_packet(&mut self, now: Time, from: SocketAddr, to: SocketAddr, packet: &[u8]) {
        let Some(&index) = self.by_ip.get(&to.ip()) else { return };
        let client = &mut self.clients[index];
        if from != client.tracker || client.asks_since.is_never() {
            return;
        }
        match Response::parse(packet, false) {
            Some(Response::Connect { transaction, connection }) if transaction == client.transaction => {
                client.id = Some((connection, now));
                self.ask(now, index);
            }
            Some(Response::Error { transaction, .. }) if transaction == client.transaction => {
                client.id = None;
                self.ask(now, index);
            }
            Some(Response::Announce { transaction, interval, .. }) if transaction == client.transaction => {
                self.answered(now, index, interval);
            }
            Some(Response::Scrape { transaction, .. }) if transaction == client.transaction => {
                (client.asks_since, client.tries) = (Time::NEVER, 0);
                self.sleep(index, now + CURIOUS_EVERY);
            }
            _ => {}
        }
    }

    fn answered(&mut self, now: Time, index: usize, interval: u32) {
        let client = &mut self.clients[index];
        self.report.announces += 1;
        if client.announced == 0 {
            self.report.answered += 1;
            self.report.worst = self.report.worst.max(now.since(client.asks_since));
        }
        client.announced += 1;
        (client.asks_since, client.tries) = (Time::NEVER, 0);
        let Aim::Announce { leaves, says_goodbye, .. } = client.aim else { return };
        let again = now + Duration::from_secs(u64::from(interval));
        let next = match (client.has_left, again < leaves, says_goodbye) {
            (true, _, _) => {
                self.report.left += 1;
                Time::NEVER
            }
            (false, true, _) => again,
            (false, false, true) => leaves.max(now),
            (false, false, false) => Time::NEVER,
        };
        self.sleep(index, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_them_asks_again_comes_back_and_says_goodbye() {
        let (addr, tracker) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.9:9".parse().unwrap());
        let (arrives, leaves) = (Time::from_secs(1), Time::from_secs(100));
        let aim = Aim::Announce { info_hash: InfoHash::of(b"x"), left: 1, arrives, leaves, says_goodbye: true };
        let mut crowd = Crowd::new(vec![(addr, tracker, aim)], Rng::from_number(1));
        let mut said = Vec::new();
        for step in 0..20 {
            let now = crowd.poll_timeout();
            if now.is_never() {
                break;
            }
            crowd.handle_timeout(now);
            while let Some((_, _, packet)) = crowd.poll_packet() {
                let (answer, word) = match Request::parse(&packet).unwrap() {
                    Request::Connect { transaction } => (Response::Connect { transaction, connection: 7 }, "connect"),
                    Request::Announce { transaction, announce, connection, .. } => {
                        assert_eq!(connection, 7);
                        let peers = Vec::new();
                        let answer = Response::Announce { transaction, interval: 50, leechers: 1, seeders: 0, peers };
                        let words = ["regular", "completed", "started", "stopped", "paused"];
                        (answer, words[announce.event as usize])
                    }
                    other @ Request::Scrape { .. } => panic!("{other:?}"),
                };
                said.push((now.as_secs(), word));
                let mut bytes = Vec::new();
                answer.write(&mut bytes);
                if step > 0 {
                    crowd.handle_packet(now, tracker, addr, &bytes);
                }
            }
        }
        let expected =
            [(1, "connect"), (16, "connect"), (16, "started"), (66, "regular"), (100, "connect"), (100, "stopped")];
        assert_eq!(said, expected);
        let report = crowd.report;
        assert_eq!((report.answered, report.left, report.announces), (1, 1, 3));
        assert_eq!(report.worst, Duration::from_secs(15));
    }
}
