//! A request, understood and allowed: what is asked, and who is to be answered how. It is answered at once, or kept until the store has
//! told of the swarm.

use std::net::{IpAddr, SocketAddr};

use crate::base::hash::InfoHash;
use crate::base::ids::{ConnId, SocketId};
use crate::base::time::Time;
use crate::codec::http_tracker::server::{AnnounceWritten, SwarmWritten};
use crate::codec::udp_tracker::SwarmCounts;
use crate::codec::{http_tracker, udp_tracker};
use crate::service::tracker::http::Answered;
use crate::service::tracker::swarms::{Saying, Tallies};
use crate::service::tracker::{Error, Tracker};

/// Who asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asker {
    /// By a datagram of `len` bytes.
    Udp { socket: SocketId, from: SocketAddr, transaction: u32, len: usize },
    /// By a request on this connection, for this address.
    Http { conn: ConnId, ip: IpAddr, compact: bool },
}

/// What was asked.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// To be taken in, and to be told of so many others.
    Announce { hash: InfoHash, saying: Saying, wanted: usize },
    /// Figures of swarms.
    Scrape { v6: bool, hashes: Vec<InfoHash>, waited: Waited },
}

/// How far a scrape has waited for the store: all its readings are begun at once, so that many take no longer than one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waited {
    /// So many of its swarms need not be waited for any more.
    swarms: usize,
    /// Readings from this one on were begun later, and not for it; 0 until its own are.
    end: u64,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) who: Asker,
    pub(super) what: What,
}

impl Asked {
    pub(super) const fn is_announce(&self) -> bool {
        matches!(self.what, What::Announce { .. })
    }
}

impl Tracker {
    /// Answers a request: by a datagram, or in `body`. Not yet, if it has to wait for the store.
    pub(super) fn ask(&mut self, now: Time, mut asked: Asked, body: &mut Vec<u8>) -> Option<Answered> {
        match self.must_wait(now, &mut asked) {
            Some(token) => {
                self.shared.as_mut().expect("there is something to wait for").keep(token, asked);
                None
            }
            None => Some(self.fulfil(now, &asked, body)),
        }
    }

    /// The reading that a request has to wait for.
    fn must_wait(&mut self, now: Time, asked: &mut Asked) -> Option<u64> {
        let shared = self.shared.as_mut()?;
        match &mut asked.what {
            What::Announce { hash, .. } => shared.wait_for(now, hash, self.swarms.read_at(hash)),
            What::Scrape { hashes, waited, .. } => {
                if waited.end == 0 {
                    hashes.iter().for_each(|hash| _ = shared.wait_for(now, hash, self.swarms.read_at(hash)));
                    waited.end = shared.next_reading();
                }
                while let Some(hash) = hashes.get(waited.swarms) {
                    waited.swarms += 1;
                    let token = shared.reading(hash).filter(|token| *token < waited.end);
                    if token.is_some() {
                        return token;
                    }
                }
                None
            }
        }
    }

    /// Answers a request that has waited for the store; a scrape may have to wait for its next swarm.
    pub(super) fn resume(&mut self, now: Time, asked: Asked) {
        let (who, mut body) = (asked.who, Vec::new());
        let answered = match asked.what {
            What::Announce { .. } => Some(self.fulfil(now, &asked, &mut body)),
            What::Scrape { .. } => self.ask(now, asked, &mut body),
        };
        if let (Asker::Http { conn, .. }, Some(answered)) = (who, answered) {
            self.answers.push_back((conn, answered, body));
        }
    }

    fn fulfil(&mut self, now: Time, asked: &Asked, body: &mut Vec<u8>) -> Answered {
        match &asked.what {
            What::Announce { hash, saying, wanted } => self.announce(now, asked.who, hash, saying, *wanted, body),
            What::Scrape { v6, hashes, .. } => {
                self.counters.scrapes.add(now, 1);
                self.scrape(asked.who, *v6, hashes, body);
                Answered::OK
            }
        }
    }

    /// Takes in what a peer says, and tells it of others.
    fn announce(
        &mut self,
        now: Time,
        who: Asker,
        hash: &InfoHash,
        saying: &Saying,
        wanted: usize,
        body: &mut Vec<u8>,
    ) -> Answered {
        let tick = self.ticks.at(now);
        let chance = self.rng.u64();
        let interval = self.interval_secs();
        self.counters.announces.add(now, 1);
        let Some(told) = self.swarms.announce(hash, saying, tick, chance) else {
            return self.refuse(who, Error::Full, None, body);
        };
        self.counters.peers_displaced += u64::from(told.displaced);
        self.counters.peers_left_out += u64::from(told.left_out);
        let completed = told.completed;
        match who {
            Asker::Udp { socket, from, transaction, .. } => {
                let counts = told.tallies.counts;
                self.replies.write(socket, from, |out| {
                    udp_tracker::write_announce(out, transaction, interval, counts.incomplete(), counts.seeds);
                    told.pick(saying, wanted, chance, out);
                });
            }
            Asker::Http { ip, compact, .. } => {
                self.picked.clear();
                told.pick(saying, wanted, chance, &mut self.picked);
                let answer = AnnounceWritten {
                    counts: counts(told.tallies),
                    interval,
                    // Whoever needs peers may ask sooner.
                    min_interval: interval / 2,
                    external_ip: ip,
                    peers: &self.picked,
                    v6: ip.is_ipv6(),
                    compact,
                };
                http_tracker::server::write_announce(body, &answer);
            }
        }
        if let Some(shared) = &mut self.shared {
            shared.note(now, hash, saying.peer, saying.role, completed);
        }
        Answered::OK
    }

    fn scrape(&mut self, who: Asker, v6: bool, hashes: &[InfoHash], body: &mut Vec<u8>) {
        let swarms = &self.swarms;
        match who {
            Asker::Udp { socket, from, transaction, .. } => self.replies.write(socket, from, |out| {
                let counts = hashes.iter().map(|hash| counts(swarms.tallies(hash, v6)));
                udp_tracker::write_scrape(out, transaction, counts);
            }),
            Asker::Http { .. } => {
                let swarm = |hash: &_| {
                    let tallies = swarms.tallies(hash, v6);
                    SwarmWritten { counts: counts(tallies), downloaders: tallies.counts.downloaders }
                };
                http_tracker::server::write_scrape(body, hashes, swarm);
            }
        }
    }

    /// Says why a request is refused, with `reason` where that says more than the error.
    pub(super) fn refuse(&mut self, who: Asker, error: Error, reason: Option<String>, body: &mut Vec<u8>) -> Answered {
        self.counters.fail(error);
        let reason = reason.unwrap_or_else(|| error.to_string());
        match who {
            // No more bytes than the request had: it may not be from where it seems to be.
            Asker::Udp { socket, from, transaction, len } => self.replies.write(socket, from, |out| {
                let room = len.saturating_sub(udp_tracker::ERROR_HEAD_LEN);
                udp_tracker::write_error(out, transaction, &reason[..reason.len().min(room)]);
            }),
            Asker::Http { .. } => {
                body.clear();
                http_tracker::server::write_failure(body, &reason, error.retry());
            }
        }
        Answered::OK
    }
}

fn counts(tallies: Tallies) -> SwarmCounts {
    SwarmCounts { seeders: tallies.counts.seeds, completed: tallies.completed, leechers: tallies.counts.incomplete() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::{Secret, TrackerConfig};
    use crate::base::rng::Rng;
    use crate::codec::udp_tracker::{Request, Response};
    use crate::protocol::redis::{LinkId, Need};
    use crate::service::tracker::WAIT_MAX;

    const SOCKET: SocketId = SocketId::Tracker(0);

    fn ask(tracker: &mut Tracker, now: Time, request: &Request<'_>) -> Option<Response> {
        let mut packet = Vec::new();
        request.write(&mut packet);
        tracker.handle_packet(now, SOCKET, "192.0.2.1:1".parse().unwrap(), &packet);
        answer(tracker)
    }

    fn answer(tracker: &mut Tracker) -> Option<Response> {
        let mut packet = Vec::new();
        tracker.poll_transmit(&mut packet)?;
        Response::parse(&packet, false)
    }

    /// A tracker whose store is there, and says nothing more.
    fn tracker() -> (Tracker, LinkId) {
        let store = Some(Secret("redis://192.0.2.9:6379".into()));
        let config = TrackerConfig { store, ..TrackerConfig::default() };
        let mut tracker = Tracker::new(Time::ZERO, &config, 0, Rng::from_number(1));
        let store = tracker.store().unwrap();
        let Some(Need::Connect(link, _)) = store.poll_need() else { panic!("it is to be connected to") };
        store.handle_connected(Time::ZERO, link);
        let greeted = b"-ERR This instance has cluster support disabled\r\n+PONG\r\n";
        store.handle_input(Time::ZERO, link, greeted);
        let len = store.outgoing(link).len();
        store.advance(link, len);
        tracker.handle_store(Time::ZERO);
        (tracker, link)
    }

    fn scrape(tracker: &mut Tracker, count: u8) -> (Time, Option<Response>) {
        let now = Time::from_secs(2);
        let connect = Request::Connect { transaction: 1 };
        let Some(Response::Connect { connection, .. }) = ask(tracker, now, &connect) else { panic!("it connects") };
        let hashes: Vec<[u8; 20]> = (0..count).map(|number| [number; 20]).collect();
        (now, ask(tracker, now, &Request::Scrape { connection, transaction: 2, info_hashes: &hashes }))
    }

    #[test]
    fn a_scrape_of_many_swarms_waits_for_the_store_no_longer_than_one_of_one() {
        for count in [1, 74] {
            let (mut tracker, _) = tracker();
            let (asked, nothing) = scrape(&mut tracker, count);
            assert_eq!(nothing, None);
            let mut waited = 0;
            let swarms = loop {
                let now = tracker.poll_timeout();
                tracker.handle_timeout(now);
                tracker.handle_store(now);
                waited = waited.max(now.since(asked).as_millis());
                if let Some(Response::Scrape { swarms, .. }) = answer(&mut tracker) {
                    break swarms;
                }
            };
            assert_eq!((swarms.len(), waited), (usize::from(count), WAIT_MAX.as_millis()));
        }
    }

    #[test]
    fn a_scrape_reads_each_swarm_once_though_nobody_is_in_it() {
        let (mut tracker, link) = tracker();
        let (now, nothing) = scrape(&mut tracker, 3);
        assert_eq!(nothing, None);
        let store = tracker.store().unwrap();
        let len = store.outgoing(link).len();
        store.advance(link, len);
        // What each of the three was read with: its counts, what is silent taken away, its peers.
        store.handle_input(now, link, &b"*2\r\n$-1\r\n$-1\r\n:0\r\n*0\r\n".repeat(3));
        tracker.handle_store(now);
        assert!(matches!(answer(&mut tracker), Some(Response::Scrape { swarms, .. }) if swarms.len() == 3));
        assert_eq!(tracker.store().unwrap().under_way(), 0);
    }
}
