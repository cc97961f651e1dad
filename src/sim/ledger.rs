//! What tracker servers were told, and whether what they tell is so.
//!
//! The ledger reads every request that reaches a tracker that is an engine, by datagram or stream, and every answer that leaves it. So it
//! knows who said last that he is in which swarm, as what, and since when he is gone; trackers with one store are one in this. What must
//! always hold: nobody is told of an address that did not announce itself in that swarm, of one that has been silent for longer than
//! a life and a sweep, or of himself; no answer to an address that has not shown that it is its own is longer than its question. What
//! must hold in the calm, when nothing has befallen trackers and stores for a while: whoever left is soon told to nobody, seeders are not
//! told of seeders, figures are as they should be, everything is answered.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::time::Time;
use crate::codec::http_request::parse_head;
use crate::codec::http_tracker::server::{parse_announce_query, parse_scrape_query};
use crate::codec::http_tracker::{parse_announce, parse_scrape};
use crate::codec::udp_tracker::{Announce, AnnounceEvent, Request, Response, claim};
use crate::service::tracker::{FLUSH_EVERY, FRESH, WAIT_MAX};
use crate::sim::node::End;

/// A connection id is good for so long at most: until the end of the next window of two minutes.
const ID_LIFE: Duration = Duration::from_mins(4);
/// A clock's ticks, seconds that are rounded, and datagrams under way.
const SLACK: Duration = Duration::from_secs(2);
/// How long trackers and store need after a fault to be as they were: the longest wait before the store is tried again, and that it
/// is caught up with.
const SETTLE: Duration = Duration::from_secs(90);
/// How much longer than for its store a tracker lets anybody wait.
const LATE: Duration = Duration::from_millis(1);
/// A request that waits for longer has no answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How a peer was when it was last heard of.
#[derive(Debug, Clone, Copy)]
struct Known {
    heard: Time,
    is_seed: bool,
    /// Since when it is what it is.
    since: Time,
    left: Option<Time>,
}

/// One state: that of a tracker, or of all that have one store.
#[derive(Debug, Default)]
struct Domain {
    swarms: BTreeMap<InfoHash, BTreeMap<SocketAddr, Known>>,
    completed: BTreeMap<InfoHash, u32>,
    has_store: bool,
    /// Until then it need not be as it should.
    trouble_until: Time,
    /// What its clocks have jumped.
    jumped: Duration,
}

/// A tracker that is watched.
#[derive(Debug)]
struct Watched {
    udp: SocketAddr,
    http: SocketAddr,
    /// How long a silent peer is told of.
    life: Duration,
    domain: usize,
    /// What was asked until then may be answered late: it was stopped, or cut off.
    upset_until: Time,
    /// Figures that were looked at in the calm.
    figures: u64,
}

/// A question that waits for its answer.
#[derive(Debug, Clone)]
struct Asked {
    at: Time,
    what: What,
    len: usize,
    /// Its sender has shown that its address is its own.
    is_verified: bool,
    /// How often it came.
    count: u32,
}

#[derive(Debug, Clone)]
enum What {
    Connect,
    Announce { hash: InfoHash, peer: SocketAddr, is_seed: bool },
    Scrape(Vec<InfoHash>),
    Other,
}

/// A stream to a tracker.
#[derive(Debug)]
struct Stream {
    from: SocketAddr,
    heard: Vec<u8>,
    said: Vec<u8>,
    asked: VecDeque<Asked>,
}

/// The account of what trackers did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrackerReport {
    /// Announces that were answered.
    pub announces: u64,
    /// Of these, by HTTP.
    pub by_http: u64,
    /// Peers that were told of.
    pub told: u64,
    /// Scrapes that were answered.
    pub scrapes: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Figures of a swarm that were compared with the truth in the calm.
    pub figures: u64,
    /// The longest that an answer took.
    pub worst: Duration,
    /// The most peers that one tracker knew, and bytes of memory that it had for these.
    pub largest: (usize, usize),
    /// The most requests that waited for the store at once, and the most that waited to be written.
    pub waiting: (usize, usize),
}

impl TrackerReport {
    /// The account in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { announces, by_http, told, scrapes, refused, figures, worst, largest: (peers, bytes), waiting } =
            *self;
        format!(
            "trackers answered {announces} announces ({by_http} by HTTP) and {scrapes} scrapes within {:.3} seconds, refused {refused}, \
             told of {told} peers; {figures} figures were right; at most {peers} peers in {bytes} bytes ({} each), {} requests and \
             {} writes waiting",
            worst.as_secs_f64(),
            bytes / peers.max(1),
            waiting.0,
            waiting.1
        )
    }
}

/// Everything that is known of trackers.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    trackers: BTreeMap<usize, Watched>,
    /// Which state is in which store.
    stores: BTreeMap<usize, usize>,
    domains: Vec<Domain>,
    /// Connection ids that were given, by whom to whom.
    given: BTreeMap<(usize, u32, IpAddr), Vec<(u64, Time)>>,
    asked: BTreeMap<(usize, u32, SocketAddr, u32), Asked>,
    streams: BTreeMap<End, Stream>,
    pub(crate) report: TrackerReport,
}

impl Ledger {
    pub(crate) fn is_empty(&self) -> bool {
        self.trackers.is_empty()
    }

    /// A state that trackers may share, in the store at `store` if there is one.
    pub(crate) fn add_domain(&mut self, store: Option<usize>) -> usize {
        let domain = self.domains.len();
        self.domains.push(Domain {
            has_store: store.is_some(),
            trouble_until: Time::ZERO + SETTLE,
            ..Domain::default()
        });
        self.stores.extend(store.map(|store| (store, domain)));
        domain
    }

    /// The state that is in a store.
    pub(crate) fn domain_of_store(&self, store: usize) -> usize {
        self.stores[&store]
    }

    pub(crate) fn add_tracker(
        &mut self,
        node: usize,
        udp: SocketAddr,
        http: SocketAddr,
        life: Duration,
        domain: usize,
    ) {
        self.trackers.insert(node, Watched { udp, http, life, domain, upset_until: Time::ZERO, figures: 0 });
    }

    /// True if it is a tracker's address for datagrams.
    pub(crate) fn is_udp(&self, node: usize, addr: SocketAddr) -> bool {
        self.trackers.get(&node).is_some_and(|tracker| tracker.udp == addr)
    }

    /// True if each tracker's figures were looked at in the calm.
    pub(crate) fn has_figures_of_all(&self) -> bool {
        !self.trackers.is_empty() && self.trackers.values().all(|tracker| tracker.figures > 0)
    }

    /// Something befalls a tracker or a store until then, and perhaps sets its clock ahead.
    pub(crate) fn befalls(&mut self, node: usize, until: Time, ahead: Duration) {
        let mut domain = self.stores.get(&node).copied();
        if let Some(tracker) = self.trackers.get_mut(&node) {
            tracker.upset_until = tracker.upset_until.max(until);
            domain = Some(tracker.domain);
        }
        if let Some(domain) = domain {
            let domain = &mut self.domains[domain];
            domain.trouble_until = domain.trouble_until.max(until + SETTLE);
            domain.jumped += ahead;
        }
    }

    /// Streams are slow until then: nobody need hear of a store in time.
    pub(crate) fn befalls_streams(&mut self, until: Time) {
        for domain in self.domains.iter_mut().filter(|domain| domain.has_store) {
            domain.trouble_until = domain.trouble_until.max(until + SETTLE);
        }
    }

    /// Some tracker knows so many peers, in so many bytes; so many requests wait for its store, and so much waits to be written.
    pub(crate) fn note_size(&mut self, size: (usize, usize), waiting: (usize, usize)) {
        let report = &mut self.report;
        report.largest = report.largest.max(size);
        report.waiting = (report.waiting.0.max(waiting.0), report.waiting.1.max(waiting.1));
    }

    /// A datagram comes to a tracker.
    pub(crate) fn hear(&mut self, now: Time, node: usize, life: u32, from: SocketAddr, packet: &[u8]) {
        let Some((connection, transaction)) = claim(packet) else { return };
        let given = self.given.get(&(node, life, from.ip()));
        let is_fresh = |(id, at): &(u64, Time)| *id == connection && now.since(*at) <= ID_LIFE;
        let is_verified = given.is_some_and(|given| given.iter().any(is_fresh));
        let what = match Request::parse(packet) {
            Some(Request::Connect { .. }) => What::Connect,
            Some(Request::Announce { announce, .. }) if is_verified => self.announced(now, node, from.ip(), &announce),
            Some(Request::Scrape { info_hashes, .. }) if is_verified => {
                What::Scrape(info_hashes.iter().map(|hash| Sha1Hash(*hash)).collect())
            }
            _ => What::Other,
        };
        let asked = Asked { at: now, what, len: packet.len(), is_verified, count: 0 };
        self.asked.entry((node, life, from, transaction)).or_insert(asked).count += 1;
    }

    /// A datagram leaves a tracker; what is wrong with it.
    pub(crate) fn say(&mut self, now: Time, node: usize, life: u32, to: SocketAddr, packet: &[u8]) -> Option<String> {
        let response = Response::parse(packet, to.is_ipv6())?;
        let (Response::Connect { transaction, .. }
        | Response::Announce { transaction, .. }
        | Response::Scrape { transaction, .. }
        | Response::Error { transaction, .. }) = &response;
        let key = (node, life, to, *transaction);
        let Some(asked) = self.asked.get_mut(&key) else { return Some(format!("it answers {to}, who asked nothing")) };
        asked.count -= 1;
        let asked = if asked.count == 0 { self.asked.remove(&key)? } else { asked.clone() };
        if !asked.is_verified && packet.len() > asked.len {
            let (said, heard) = (packet.len(), asked.len);
            return Some(format!(
                "it sends {said} bytes to {to}, which may not have sent the {heard} bytes that it answers"
            ));
        }
        let took = now.since(asked.at);
        self.report.worst = self.report.worst.max(took);
        if took > WAIT_MAX + LATE && asked.at >= self.trackers[&node].upset_until {
            return Some(format!("it lets {to} wait for {took:?}"));
        }
        match (&asked.what, response) {
            (_, Response::Error { .. }) => {
                self.report.refused += 1;
                None
            }
            (What::Connect, Response::Connect { connection, .. }) => {
                let given = self.given.entry((node, life, to.ip())).or_default();
                given.retain(|(_, at)| now.since(*at) <= ID_LIFE);
                given.push((connection, now));
                None
            }
            (What::Announce { hash, peer, is_seed }, Response::Announce { seeders, leechers, peers, .. }) => self
                .told(now, node, *hash, *peer, *is_seed, &peers)
                .or_else(|| self.figures(now, node, hash, seeders, leechers, None)),
            (What::Scrape(hashes), Response::Scrape { swarms, .. }) => {
                self.report.scrapes += 1;
                let counts = hashes.iter().zip(swarms);
                let mut wrong = counts.filter_map(|(hash, counts)| {
                    self.figures(now, node, hash, counts.seeders, counts.leechers, Some(counts.completed))
                });
                wrong.next().or_else(|| self.overdue(now, node, life))
            }
            (what, response) => Some(format!("it answers {what:?} with {response:?}")),
        }
    }

    /// Somebody's stream to a tracker stands.
    pub(crate) fn accepted(&mut self, end: End, to: SocketAddr, from: SocketAddr) {
        if self.trackers.get(&end.node).is_some_and(|tracker| tracker.http == to) {
            self.streams.insert(end, Stream { from, heard: Vec::new(), said: Vec::new(), asked: VecDeque::new() });
        }
    }

    pub(crate) fn ended(&mut self, end: End) {
        self.streams.remove(&end);
    }

    /// Bytes come to a tracker on a stream.
    pub(crate) fn hear_stream<'b>(&mut self, now: Time, end: End, bytes: impl Iterator<Item = &'b [u8]>) {
        let Some(stream) = self.streams.get_mut(&end) else { return };
        bytes.for_each(|bytes| stream.heard.extend_from_slice(bytes));
        let (heard, ip) = (std::mem::take(&mut stream.heard), stream.from.ip());
        let (mut at, mut all) = (0, Vec::new());
        while let Ok(Some(head)) = parse_head(&heard[at..]) {
            at += head.len;
            let request = head.request;
            let what = match (request.path, parse_announce_query(request.query), parse_scrape_query(request.query)) {
                ("/announce", Ok(query), _) => self.announced(now, end.node, ip, &query.announce),
                ("/scrape", _, Ok(hashes)) => What::Scrape(hashes.to_vec()),
                _ => What::Other,
            };
            all.push(Asked { at: now, what, len: head.len, is_verified: true, count: 1 });
        }
        let stream = self.streams.get_mut(&end).expect("it was just there");
        stream.heard = heard[at..].to_vec();
        stream.asked.extend(all);
    }

    /// Bytes leave a tracker on a stream; what is wrong with them.
    pub(crate) fn say_stream<'b>(
        &mut self,
        now: Time,
        end: End,
        bytes: impl Iterator<Item = &'b [u8]>,
    ) -> Option<String> {
        let stream = self.streams.get_mut(&end)?;
        bytes.for_each(|bytes| stream.said.extend_from_slice(bytes));
        let said = std::mem::take(&mut stream.said);
        let mut at = 0;
        let mut wrong = None;
        while let Some(body) = body(&said[at..]) {
            let body = at + body.start..at + body.end;
            at = body.end;
            let Some(asked) = self.streams.get_mut(&end)?.asked.pop_front() else {
                return Some("it answers what nobody asked on a stream".into());
            };
            // It may have waited for the stream since it was made.
            let domain = &self.domains[self.trackers[&end.node].domain];
            let soonest = if domain.has_store { WAIT_MAX + SLACK } else { Duration::ZERO };
            let made = now.min(asked.at + soonest);
            wrong = wrong.or_else(|| self.said_body(made, now > made, end.node, &asked.what, &said[body]));
        }
        self.streams.get_mut(&end)?.said = said[at..].to_vec();
        wrong
    }

    /// The body of an answer that was made at `now`, and perhaps sent later.
    fn said_body(&mut self, now: Time, is_late: bool, node: usize, what: &What, body: &[u8]) -> Option<String> {
        match what {
            What::Announce { hash, peer, is_seed } => {
                let Some(Ok(answer)) = parse_announce(body) else {
                    self.report.refused += 1;
                    return None;
                };
                self.report.by_http += 1;
                let (seeders, leechers) = (answer.seeders.unwrap_or(0), answer.leechers.unwrap_or(0));
                let wrong = self.told(now, node, *hash, *peer, *is_seed, &answer.peers);
                if wrong.is_some() || is_late {
                    return wrong;
                }
                self.figures(now, node, hash, seeders, leechers, None)
            }
            What::Scrape(_) if is_late => None,
            What::Scrape(hashes) => {
                self.report.scrapes += 1;
                let mut wrong = hashes.iter().filter_map(|hash| {
                    let answer = parse_scrape(body, hash)?.ok()?;
                    let (seeders, leechers) = (answer.seeders.unwrap_or(0), answer.leechers.unwrap_or(0));
                    self.figures(now, node, hash, seeders, leechers, answer.downloaded)
                });
                wrong.next()
            }
            What::Connect | What::Other => {
                self.report.refused += 1;
                None
            }
        }
    }

    /// A peer says something of itself.
    fn announced(&mut self, now: Time, node: usize, ip: IpAddr, announce: &Announce) -> What {
        let domain = &mut self.domains[self.trackers[&node].domain];
        let (hash, peer) = (announce.info_hash, SocketAddr::new(ip.to_canonical(), announce.port));
        let completes = announce.event == AnnounceEvent::Completed;
        let is_seed = announce.left == 0 || completes && announce.left == u64::MAX;
        let swarm = domain.swarms.entry(hash).or_default();
        let is_new = swarm.get(&peer).is_none_or(|known| known.left.is_some() || known.is_seed != is_seed);
        // More may be counted, never fewer: each tracker that hears of it may be the first, for all it knows.
        *domain.completed.entry(hash).or_default() += u32::from(completes || is_seed && is_new);
        if announce.event == AnnounceEvent::Stopped {
            if let Some(known) = swarm.get_mut(&peer) {
                known.left.get_or_insert(now);
            }
        } else {
            let since = swarm.get(&peer).filter(|_| !is_new).map_or(now, |known| known.since);
            swarm.insert(peer, Known { heard: now, is_seed, since, left: None });
        }
        What::Announce { hash, peer, is_seed }
    }

    /// How long what is not so any more may still be told where nothing is wrong.
    fn lag(domain: &Domain) -> Duration {
        if domain.has_store { FRESH + FLUSH_EVERY + WAIT_MAX + SLACK } else { Duration::ZERO }
    }

    /// How long a peer is told of after it was heard of.
    fn longest(tracker: &Watched, domain: &Domain) -> Duration {
        tracker.life + tracker.life / 8 + SLACK + domain.jumped
    }

    /// A peer is told of others; what is wrong with that.
    fn told(
        &mut self,
        now: Time,
        node: usize,
        hash: InfoHash,
        asker: SocketAddr,
        is_seed: bool,
        peers: &[SocketAddr],
    ) -> Option<String> {
        self.report.announces += 1;
        self.report.told += peers.len() as u64;
        let tracker = &self.trackers[&node];
        let domain = &self.domains[tracker.domain];
        let lag = Self::lag(domain);
        // What was said in trouble may be lost, and then is known to some for as long as silence is borne.
        let is_late = |at: Time| at >= domain.trouble_until && now > at + lag;
        // Requests that arrive at the same moment, or while the tracker is stopped, are answered one after the other in any order.
        let is_known = |at: Time| is_late(at) || !domain.has_store && at.max(tracker.upset_until) < now;
        let swarm = domain.swarms.get(&hash);
        peers.iter().find_map(|peer| {
            let Some(known) = swarm.and_then(|swarm| swarm.get(peer)) else {
                return Some(format!("it tells {asker} of {peer}, who never announced himself"));
            };
            if *peer == asker {
                return Some(format!("it tells {asker} of himself"));
            }
            if now.since(known.heard) > Self::longest(tracker, domain) {
                return Some(format!("it tells {asker} of {peer}, who is silent since {:?}", known.heard));
            }
            if known.left.is_some_and(is_known) {
                return Some(format!("it tells {asker} of {peer}, who left at {:?}", known.left.unwrap_or_default()));
            }
            if is_seed && known.is_seed && is_known(known.since) {
                return Some(format!("it tells {asker}, who seeds, of {peer}, who seeds since {:?}", known.since));
            }
            None
        })
    }

    /// So many seeders and others are said to be in a swarm; what is wrong with that.
    fn figures(
        &mut self,
        now: Time,
        node: usize,
        hash: &InfoHash,
        seeders: u32,
        leechers: u32,
        completed: Option<u32>,
    ) -> Option<String> {
        let tracker = self.trackers.get_mut(&node).expect("a tracker says it");
        let domain = &self.domains[tracker.domain];
        let (lag, longest) = (Self::lag(domain), Self::longest(tracker, domain));
        // A tracker that forgets what it knew hears of everybody again within a life.
        let calm = domain.trouble_until + longest;
        let mut bounds = [(0, 0); 2];
        for known in domain.swarms.get(hash).into_iter().flat_map(BTreeMap::values) {
            let (silent, lately) = (now.since(known.heard), now.since(known.since) <= lag);
            let is_there = known.left.is_none() && silent + SLACK < tracker.life;
            let is_sure = is_there && !(domain.has_store && lately);
            let may_be = silent <= longest && known.left.is_none_or(|left| domain.has_store && now.since(left) <= lag);
            let own = usize::from(!known.is_seed);
            bounds[own].0 += u32::from(is_sure);
            bounds[own].1 += u32::from(may_be);
            // It was, perhaps, the other thing a moment ago.
            bounds[1 - own].1 += u32::from(may_be && domain.has_store && lately);
        }
        if now < calm {
            return None;
        }
        tracker.figures += 1;
        self.report.figures += 1;
        for (said, (least, most), word) in [(seeders, bounds[0], "seeders"), (leechers, bounds[1], "leechers")] {
            if said < least || said > most {
                return Some(format!("it says that there are {said} {word} of {hash}; there are {least} to {most}"));
            }
        }
        let most = domain.completed.get(hash).copied().unwrap_or(0);
        let completed = completed.filter(|completed| *completed > most)?;
        Some(format!("it says that {hash} was completed {completed} times; it was {most} times at most"))
    }

    /// In the calm everything is answered.
    fn overdue(&self, now: Time, node: usize, life: u32) -> Option<String> {
        if now < self.domains[self.trackers[&node].domain].trouble_until {
            return None;
        }
        let of_it = self.asked.iter().filter(|((of, in_life, ..), _)| (*of, *in_life) == (node, life));
        let is_kept = |asked: &Asked| !matches!(asked.what, What::Other) && now.since(asked.at) > ANSWER_MAX;
        let late = of_it.into_iter().find(|(_, asked)| is_kept(asked));
        late.map(|((_, _, from, _), asked)| format!("{from} asked it something at {:?} and has no answer", asked.at))
    }
}

/// Where the body of the answer is that `bytes` begins with; none if it is not whole.
fn body(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let head_len = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_len]).ok()?;
    let len: usize = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.parse().ok()?;
    (bytes.len() >= head_len + len).then_some(head_len..head_len + len)
}
