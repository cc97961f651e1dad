//! Asking trackers: announces and scrapes under way, over UDP (BEP 15) and HTTP (BEP 3, 48), for all torrents of the process.
//!
//! It opens nothing: it says which name it needs, which stream, which datagram should go. One announce is made over both address
//! families, where the tracker and we have them (BEP 7): one exchange each, tried at each address in turn, and one outcome of
//! both. A scrape is made in one family. Redirects are followed a few times, to http and https only, never from TLS to
//! plain. A loopback or link-local address that a *redirect* leads to is refused: no stranger makes us talk to our own machine.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::http::{HttpError, Response as HttpResponse, anonymous_request, get_request};
use crate::codec::http_tracker::{
    AnnounceAnswer, Failure, RetryIn, ScrapeAnswer, announce_path, parse_announce, parse_scrape, scrape_path,
};
use crate::codec::udp_tracker::Announce;
use crate::codec::url::{Scheme, TrackerUrl, UrlError};
use crate::protocol::dns::{DnsError, Found};
use crate::protocol::http::{ExchangeError, HttpExchange};
use crate::protocol::tls::{Tls, TlsError};

use self::families::{Families, Family, merge};
use self::udp::{UDP_TRIES, Udp};

mod families;
mod udp;

/// Announces and scrapes under way at once, each with an exchange a family; more wait in the order they came.
pub const ACTIVE_MAX: usize = 64;
/// Announces and scrapes that wait; more fail as busy.
pub const WAITING_MAX: usize = 100_000;
/// Redirects of one announce.
pub const REDIRECTS_MAX: u8 = 5;
/// Bytes of an answer's body.
pub const BODY_MAX: usize = 1 << 20;
/// Addresses of one tracker and family that are tried.
const ADDRESSES_MAX: usize = 4;
/// An announce or a scrape, as its owner names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// A stream for one request. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExchangeId(pub u64);

/// Why a tracker gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackerError {
    /// Its address.
    Url(UrlError),
    /// Its name.
    Name(DnsError),
    /// It could not be reached.
    Unreachable,
    /// It did not answer in time.
    Timeout,
    /// It answered with this status.
    Status(u16),
    /// Its answer is broken.
    Http(HttpError),
    /// Its certificate is not to be trusted, or TLS failed.
    Tls,
    /// Its answer is no tracker's.
    NoTracker,
    /// Too many redirects, or one to where none may lead.
    Redirect,
    /// It refused.
    Failure(Failure),
    /// Too many announces are waiting.
    Busy,
    /// Nothing can be sent to anybody now, for this reason.
    NotAsked(String),
}

impl std::fmt::Display for TrackerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(error) => write!(f, "{error}"),
            Self::Name(error) => write!(f, "{error}"),
            Self::Unreachable => f.write_str("it cannot be reached"),
            Self::Timeout => f.write_str("it did not answer in time"),
            Self::Status(status) => write!(f, "it answered with HTTP status {status}"),
            Self::Http(error) => write!(f, "{error}"),
            Self::Tls => f.write_str("its certificate is not to be trusted, or it does not speak TLS"),
            Self::NoTracker => f.write_str("its answer is not that of a tracker"),
            Self::Redirect => f.write_str("it redirects too often, or to where a tracker may not"),
            Self::Failure(failure) if failure.retry_in == Some(RetryIn::Never) => {
                write!(f, "it refused for good: {}", failure.reason)
            }
            Self::Failure(failure) => write!(f, "it refused: {}", failure.reason),
            Self::Busy => f.write_str("too many announces are waiting"),
            Self::NotAsked(why) => write!(f, "it was not asked: {why}"),
        }
    }
}

/// What the client wants from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// Look this name up and call `handle_resolved`.
    Resolve(String),
    /// Open a stream and call `handle_connected` or `handle_closed`.
    Connect(ExchangeId, SocketAddr),
    /// Close this stream.
    Close(ExchangeId),
    /// There are bytes to send on this stream.
    Wake(ExchangeId),
    /// Load the trusted certificates and call `handle_trust`.
    Trust,
}

/// An announce's end.
pub type Outcome = Result<AnnounceAnswer, TrackerError>;

/// A scrape's end.
pub type ScrapeOutcome = Result<ScrapeAnswer, TrackerError>;

/// What the client has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Peers that one family brought while the other is still asked; they stand in the outcome, too.
    Found(AskId, Vec<SocketAddr>),
    /// An announce has ended.
    Announced(AskId, Outcome),
    /// A scrape has ended.
    Scraped(AskId, ScrapeOutcome),
}

/// What is asked.
#[derive(Debug, Clone)]
enum Question {
    Announce(Announce, Option<Vec<u8>>),
    Scrape(InfoHash),
}

/// How a leg ended.
#[derive(Debug)]
enum Ended {
    Announce(Outcome),
    Scrape(ScrapeOutcome),
}

impl Question {
    fn path(&self, url: &TrackerUrl) -> String {
        match self {
            Self::Announce(announce, tracker_id) => announce_path(url, announce, tracker_id.as_deref()),
            Self::Scrape(info_hash) => scrape_path(url, info_hash),
        }
    }

    /// The answer that stands in the body of a response; none if none does.
    fn answer(&self, body: &[u8]) -> Option<Result<Ended, Failure>> {
        match self {
            Self::Announce(..) => parse_announce(body).map(|parsed| parsed.map(|answer| Ended::Announce(Ok(answer)))),
            Self::Scrape(hash) => parse_scrape(body, hash).map(|parsed| parsed.map(|answer| Ended::Scrape(Ok(answer)))),
        }
    }

    fn failed(&self, error: TrackerError) -> Ended {
        match self {
            Self::Announce(..) => Ended::Announce(Err(error)),
            Self::Scrape(_) => Ended::Scrape(Err(error)),
        }
    }
}

/// One exchange of an ask: the only one, or that of IPv4; or that of IPv6 beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LegId {
    ask: AskId,
    second: bool,
}

#[derive(Debug)]
struct Leg {
    url: TrackerUrl,
    question: Question,
    /// The family it is bound to, where it is one of two.
    family: Option<Family>,
    /// Still to be tried.
    addresses: VecDeque<IpAddr>,
    redirects: u8,
    stage: Stage,
}

/// What two legs have in common.
#[derive(Debug)]
struct Pair {
    host: String,
    /// The one that has ended.
    ended: Option<(Family, Outcome)>,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Resolving,
    /// For the trusted certificates.
    Trusting,
    Udp(Udp),
    Connecting {
        exchange: ExchangeId,
        deadline: Time,
    },
    Http {
        exchange: ExchangeId,
        http: Box<HttpExchange>,
    },
}

/// The client. Every ask gets exactly one outcome.
#[derive(Debug)]
pub struct TrackerClient {
    families: Families,
    /// Those under way: no more than [`ACTIVE_MAX`] asks', so they may be looked through.
    legs: BTreeMap<LegId, Leg>,
    /// Asks of two legs.
    pairs: BTreeMap<AskId, Pair>,
    /// Asks that have not begun, and those among them that somebody waits for: announces of who lacks something.
    waiting: VecDeque<(LegId, Leg)>,
    urgent: VecDeque<(LegId, Leg)>,
    active: usize,
    exchanges: BTreeMap<ExchangeId, LegId>,
    next_exchange: u64,
    connections: BTreeMap<SocketAddr, (u64, Time)>,
    trust: Option<Arc<ClientConfig>>,
    needs: VecDeque<Need>,
    events: VecDeque<Event>,
    patience: Duration,
    is_anonymous: bool,
    rng: Rng,
}

impl TrackerClient {
    /// A client that gives each address `patience` to answer, of a node that listens at `listen`.
    #[must_use]
    pub fn new(patience: Duration, listen: &[SocketAddr], rng: Rng) -> Self {
        Self {
            families: Families::new(listen),
            legs: BTreeMap::new(),
            pairs: BTreeMap::new(),
            waiting: VecDeque::new(),
            urgent: VecDeque::new(),
            active: 0,
            exchanges: BTreeMap::new(),
            next_exchange: 0,
            connections: BTreeMap::new(),
            trust: None,
            needs: VecDeque::new(),
            events: VecDeque::new(),
            patience,
            is_anonymous: false,
            rng,
        }
    }

    /// Each address has so long to answer, from the next one on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The node listens elsewhere now.
    pub fn set_listen(&mut self, listen: &[SocketAddr]) {
        self.families.set_listen(listen);
    }

    /// No tracker is told which program asks.
    #[must_use]
    pub fn anonymous(self) -> Self {
        Self { is_anonymous: true, ..self }
    }

    /// Announces to `url`; the outcome comes under `id`.
    pub fn start(&mut self, now: Time, id: AskId, url: &str, announce: Announce, tracker_id: Option<Vec<u8>>) {
        self.ask(now, id, url, Question::Announce(announce, tracker_id));
    }

    /// Asks for the counts of a swarm at `url`, which is a scrape address; the outcome comes under `id`.
    pub fn scrape(&mut self, now: Time, id: AskId, url: &str, info_hash: InfoHash) {
        self.ask(now, id, url, Question::Scrape(info_hash));
    }

    fn ask(&mut self, now: Time, id: AskId, url: &str, question: Question) {
        let url = match TrackerUrl::parse(url) {
            Ok(url) => url,
            Err(error) => return self.tell(id, question.failed(TrackerError::Url(error))),
        };
        if self.waiting.len() + self.urgent.len() >= WAITING_MAX {
            return self.tell(id, question.failed(TrackerError::Busy));
        }
        let is_urgent = matches!(&question, Question::Announce(announce, _) if announce.left > 0);
        let (addresses, stage) = (VecDeque::new(), Stage::Waiting);
        let leg = Leg { url, question, family: None, addresses, redirects: 0, stage };
        let id = LegId { ask: id, second: false };
        if is_urgent { &mut self.urgent } else { &mut self.waiting }.push_back((id, leg));
        self.admit(now);
    }

    fn admit(&mut self, now: Time) {
        while self.active < ACTIVE_MAX
            && let Some((id, leg)) = self.urgent.pop_front().or_else(|| self.waiting.pop_front())
        {
            self.active += 1;
            self.legs.insert(id, leg);
            self.locate(now, id);
        }
    }

    /// Finds the addresses of a leg's tracker.
    fn locate(&mut self, now: Time, id: LegId) {
        let leg = self.legs.get_mut(&id).expect("an admitted leg is there");
        match leg.url.ip {
            Some(ip) => self.locate_at(now, id, &[ip]),
            None => {
                leg.stage = Stage::Resolving;
                self.needs.push_back(Need::Resolve(leg.url.host.clone()));
            }
        }
    }

    /// A name was looked up.
    pub fn handle_resolved(&mut self, now: Time, name: &str, found: &Found) {
        let is_waiting = |leg: &Leg| matches!(leg.stage, Stage::Resolving) && leg.url.host.eq_ignore_ascii_case(name);
        let ids: Vec<LegId> = self.legs.iter().filter(|(_, leg)| is_waiting(leg)).map(|(&id, _)| id).collect();
        for id in ids {
            match found {
                Ok(ips) => {
                    let redirected = self.legs[&id].redirects > 0;
                    let ips: Vec<IpAddr> = ips.iter().copied().filter(|ip| !redirected || !is_local(*ip)).collect();
                    self.locate_at(now, id, &ips);
                }
                Err(error) => self.give_up(now, id, TrackerError::Name(*error)),
            }
        }
    }

    /// The addresses of a leg's tracker are known: it becomes two where there are two families to ask.
    fn locate_at(&mut self, now: Time, id: LegId, ips: &[IpAddr]) {
        let leg = self.legs.get_mut(&id).expect("a located leg is there");
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = ips.iter().partition(|ip| Family::of(**ip) == Family::V4);
        let of = |ips: Vec<IpAddr>| ips.into_iter().take(ADDRESSES_MAX).collect::<VecDeque<_>>();
        let (mut v4, mut v6) = (of(v4), of(v6));
        let is_asked = |family| self.families.is_asked(now, &leg.url.host, family);
        let is_scrape = matches!(leg.question, Question::Scrape(_));
        match leg.family {
            Some(Family::V4) => leg.addresses = v4,
            Some(Family::V6) => leg.addresses = v6,
            // A family that is not asked is tried where the other one fails.
            None if v4.is_empty() || v6.is_empty() || is_scrape || !is_asked(Family::V4) || !is_asked(Family::V6) => {
                if is_asked(Family::V4) {
                    v4.append(&mut v6);
                    leg.addresses = v4;
                } else {
                    v6.append(&mut v4);
                    leg.addresses = v6;
                }
            }
            None => {
                (leg.addresses, leg.family) = (v4, Some(Family::V4));
                let second = Leg {
                    url: leg.url.clone(),
                    question: leg.question.clone(),
                    family: Some(Family::V6),
                    addresses: v6,
                    redirects: leg.redirects,
                    stage: Stage::Waiting,
                };
                self.pairs.insert(id.ask, Pair { host: leg.url.host.clone(), ended: None });
                let other = LegId { second: true, ..id };
                self.legs.insert(other, second);
                self.try_next(now, id, TrackerError::Unreachable);
                return self.try_next(now, other, TrackerError::Unreachable);
            }
        }
        self.try_next(now, id, TrackerError::Unreachable);
    }

    /// Tries the next address of a leg; if there is none, it ends with `error`.
    fn try_next(&mut self, now: Time, id: LegId, error: TrackerError) {
        let leg = self.legs.get_mut(&id).expect("only legs that are there are tried");
        let Some(ip) = leg.addresses.pop_front() else { return self.give_up(now, id, error) };
        let to = SocketAddr::new(ip.to_canonical(), leg.url.port);
        if leg.url.scheme == Scheme::Udp {
            let known = self.connections.get(&to).is_some_and(|(_, expires)| *expires > now);
            let transaction = self.rng.u32();
            leg.stage = Stage::Udp(Udp { to, transaction, asking: known, tries: 0, due: now, send: true });
        } else if leg.url.scheme == Scheme::Https && self.trust.is_none() {
            leg.addresses.push_front(ip);
            leg.stage = Stage::Trusting;
            self.needs.push_back(Need::Trust);
        } else {
            let exchange = ExchangeId(self.next_exchange);
            self.next_exchange += 1;
            self.exchanges.insert(exchange, id);
            leg.stage = Stage::Connecting { exchange, deadline: now + self.patience };
            self.needs.push_back(Need::Connect(exchange, to));
        }
    }

    /// The trusted certificates are here.
    pub fn handle_trust(&mut self, now: Time, trust: Arc<ClientConfig>) {
        self.trust = Some(trust);
        let waiting = self.legs.iter().filter(|(_, leg)| matches!(leg.stage, Stage::Trusting));
        let ids: Vec<LegId> = waiting.map(|(&id, _)| id).collect();
        for id in ids {
            self.try_next(now, id, TrackerError::Unreachable);
        }
    }

    /// The stream of an exchange stands: the request goes out.
    pub fn handle_connected(&mut self, now: Time, exchange: ExchangeId) {
        let Some(&id) = self.exchanges.get(&exchange) else { return };
        let leg = self.legs.get_mut(&id).expect("an exchange has its leg");
        let request = if self.is_anonymous { anonymous_request } else { get_request };
        let request = request(&leg.question.path(&leg.url), &leg.url.authority());
        let tls = match (leg.url.scheme, &self.trust) {
            (Scheme::Https, Some(trust)) => match Tls::new(trust, &leg.url.host) {
                Ok(tls) => Some(tls),
                Err(_) => return self.fail(now, id, exchange, TrackerError::Tls),
            },
            _ => None,
        };
        let http = HttpExchange::new(now, &request, tls, BODY_MAX, self.patience);
        leg.stage = Stage::Http { exchange, http: Box::new(http) };
        self.needs.push_back(Need::Wake(exchange));
    }

    /// The stream of an exchange could not be had, or ended.
    pub fn handle_closed(&mut self, now: Time, exchange: ExchangeId) {
        let Some(id) = self.exchanges.remove(&exchange) else { return };
        let leg = self.legs.get_mut(&id).expect("an exchange has its leg");
        match &mut leg.stage {
            Stage::Http { http, .. } => match http.handle_end() {
                Ok(response) => self.judge(now, id, response),
                Err(error) => self.try_next(now, id, of_exchange(error)),
            },
            _ => self.try_next(now, id, TrackerError::Unreachable),
        }
    }

    /// Bytes came on the stream of an exchange.
    pub fn handle_input(&mut self, now: Time, exchange: ExchangeId, bytes: &[u8]) {
        let Some(&id) = self.exchanges.get(&exchange) else { return };
        let leg = self.legs.get_mut(&id).expect("an exchange has its leg");
        let Stage::Http { http, .. } = &mut leg.stage else { return };
        match http.handle_input(bytes) {
            Ok(None) => {
                if !http.outgoing().is_empty() {
                    self.needs.push_back(Need::Wake(exchange));
                }
            }
            Ok(Some(response)) => {
                self.exchanges.remove(&exchange);
                self.needs.push_back(Need::Close(exchange));
                self.judge(now, id, response);
            }
            Err(error) => self.fail(now, id, exchange, of_exchange(error)),
        }
    }

    /// What should be sent on the stream of an exchange.
    #[must_use]
    pub fn outgoing(&self, exchange: ExchangeId) -> &[u8] {
        let leg = self.exchanges.get(&exchange).and_then(|id| self.legs.get(id));
        match leg.map(|leg| &leg.stage) {
            Some(Stage::Http { http, .. }) => http.outgoing(),
            _ => &[],
        }
    }

    /// So many of those bytes were sent.
    pub fn advance(&mut self, exchange: ExchangeId, count: usize) {
        let leg = self.exchanges.get(&exchange).and_then(|id| self.legs.get_mut(id));
        if let Some(Stage::Http { http, .. }) = leg.map(|leg| &mut leg.stage) {
            http.advance(count);
        }
    }

    fn fail(&mut self, now: Time, id: LegId, exchange: ExchangeId, error: TrackerError) {
        self.exchanges.remove(&exchange);
        self.needs.push_back(Need::Close(exchange));
        self.try_next(now, id, error);
    }

    /// A whole HTTP answer.
    fn judge(&mut self, now: Time, id: LegId, response: HttpResponse) {
        if matches!(response.status, 301 | 302 | 303 | 307 | 308) {
            return self.redirect(now, id, response.location.as_deref());
        }
        let leg = self.legs.get(&id).expect("a judged leg is there");
        match (response.status, leg.question.answer(&response.body)) {
            (200, Some(Ok(ended))) => self.end(now, id, ended),
            // Some trackers say in the body why, whatever the status.
            (_, Some(Err(failure))) => self.give_up(now, id, TrackerError::Failure(failure)),
            (200, None) => self.give_up(now, id, TrackerError::NoTracker),
            (status, _) => self.give_up(now, id, TrackerError::Status(status)),
        }
    }

    fn redirect(&mut self, now: Time, id: LegId, location: Option<&str>) {
        let leg = self.legs.get_mut(&id).expect("a judged leg is there");
        leg.redirects += 1;
        let target = location.and_then(|location| leg.url.redirected(location).ok());
        let target = target.filter(|target| {
            let was_local = leg.url.ip.is_some_and(is_local);
            leg.redirects <= REDIRECTS_MAX
                && !(leg.url.scheme == Scheme::Https && target.scheme == Scheme::Http)
                && (was_local || !target.ip.is_some_and(is_local))
        });
        match target {
            None => self.give_up(now, id, TrackerError::Redirect),
            Some(mut url) => {
                // The query of the announce is added anew; what the answer repeats of it must not stand twice.
                if let Some(at) = url.path.find("info_hash=") {
                    url.path.truncate(at);
                    let kept = url.path.trim_end_matches(['?', '&']).len();
                    url.path.truncate(kept);
                }
                leg.url = url;
                self.locate(now, id);
            }
        }
    }

    fn give_up(&mut self, now: Time, id: LegId, error: TrackerError) {
        let ended = self.legs.get(&id).expect("only legs that are there are given up").question.failed(error);
        self.end(now, id, ended);
    }

    fn end(&mut self, now: Time, id: LegId, ended: Ended) {
        let Some(leg) = self.legs.remove(&id) else { return };
        let ended = match ended {
            Ended::Announce(outcome) => match self.join(now, id.ask, leg.family, outcome) {
                Some(outcome) => Ended::Announce(outcome),
                None => return,
            },
            Ended::Scrape(_) => ended,
        };
        self.active -= 1;
        self.tell(id.ask, ended);
        self.admit(now);
    }

    fn tell(&mut self, id: AskId, ended: Ended) {
        self.events.push_back(match ended {
            Ended::Announce(outcome) => Event::Announced(id, outcome),
            Ended::Scrape(outcome) => Event::Scraped(id, outcome),
        });
    }

    /// The outcome of an ask one leg of which has ended; none if the other one has not.
    fn join(&mut self, now: Time, id: AskId, family: Option<Family>, outcome: Outcome) -> Option<Outcome> {
        match (self.pairs.remove(&id), family) {
            (Some(Pair { host, ended: None }), Some(family)) => {
                if let Ok(answer) = &outcome {
                    self.events.push_back(Event::Found(id, answer.peers.clone()));
                }
                self.pairs.insert(id, Pair { host, ended: Some((family, outcome)) });
                None
            }
            (Some(Pair { host, ended: Some(first) }), Some(family)) => {
                let second = (family, outcome);
                self.families.judge(now, &host, &first, &second);
                Some(merge(first, second))
            }
            _ => Some(outcome),
        }
    }

    /// What took too long is tried again or given up.
    pub fn handle_timeout(&mut self, now: Time) {
        let late = |leg: &Leg| match &leg.stage {
            Stage::Udp(udp) => udp.due <= now && !udp.send,
            Stage::Connecting { deadline, .. } => *deadline <= now,
            Stage::Http { http, .. } => http.poll_timeout() <= now,
            Stage::Waiting | Stage::Resolving | Stage::Trusting => false,
        };
        let ids: Vec<LegId> = self.legs.iter().filter(|(_, leg)| late(leg)).map(|(&id, _)| id).collect();
        for id in ids {
            let leg = self.legs.get_mut(&id).expect("it was just listed");
            match &mut leg.stage {
                Stage::Udp(udp) if udp.tries < UDP_TRIES => udp.send = true,
                Stage::Connecting { exchange, .. } | Stage::Http { exchange, .. } => {
                    let exchange = *exchange;
                    self.fail(now, id, exchange, TrackerError::Timeout);
                }
                _ => self.try_next(now, id, TrackerError::Timeout),
            }
        }
    }

    /// Nobody has time: an announce that was answered in one family does not wait for the other one.
    pub fn hurry(&mut self, now: Time) {
        let is_answered = |id: &&LegId| self.is_answered(**id);
        let ids: Vec<LegId> = self.legs.keys().filter(is_answered).copied().collect();
        for id in ids {
            if let Stage::Connecting { exchange, .. } | Stage::Http { exchange, .. } = self.legs[&id].stage {
                self.exchanges.remove(&exchange);
                self.needs.push_back(Need::Close(exchange));
            }
            self.give_up(now, id, TrackerError::Timeout);
        }
    }

    /// The other leg of its ask brought an answer.
    fn is_answered(&self, id: LegId) -> bool {
        matches!(self.pairs.get(&id.ask), Some(Pair { ended: Some((_, Ok(_))), .. }))
    }

    /// The next thing it wants from outside.
    pub fn poll_need(&mut self) -> Option<Need> {
        self.needs.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// No tracker has still to hear something: one that has answered in one family knows, and a scrape tells nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_told = |(id, leg): (&LegId, &Leg)| matches!(leg.question, Question::Scrape(_)) || self.is_answered(*id);
        let waiting = self.urgent.iter().chain(&self.waiting).map(|(id, leg)| (id, leg));
        self.legs.iter().chain(waiting).all(is_told) && self.events.is_empty()
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let deadline = |leg: &Leg| match &leg.stage {
            // What waits to be sent waits for `poll_transmit`, not for the time.
            Stage::Udp(udp) if udp.send => Time::NEVER,
            Stage::Udp(udp) => udp.due,
            Stage::Connecting { deadline, .. } => *deadline,
            Stage::Http { http, .. } => http.poll_timeout(),
            Stage::Waiting | Stage::Resolving | Stage::Trusting => Time::NEVER,
        };
        self.legs.values().map(deadline).min().unwrap_or(Time::NEVER)
    }
}

fn of_exchange(error: ExchangeError) -> TrackerError {
    match error {
        ExchangeError::Http(error) => TrackerError::Http(error),
        ExchangeError::Tls(TlsError::Name | TlsError::Refused) => TrackerError::Tls,
        ExchangeError::Timeout => TrackerError::Timeout,
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests;
