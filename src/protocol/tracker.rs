//! Asking trackers: announces under way, over UDP (BEP 15) and HTTP (BEP 3), for all torrents of the process.
//!
//! It opens nothing: it says which name it needs, which stream, which datagram should go. One announce is tried at each address
//! of its tracker in turn, IPv4 first. Redirects are followed a few times, to http and https only, never from TLS to
//! plain. A loopback or link-local address that a *redirect* leads to is refused: no stranger makes us talk to our own machine.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use crate::base::addr::canonical_addr;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::http::{HttpError, Response as HttpResponse, get_request};
use crate::codec::http_tracker::{AnnounceAnswer, Failure, announce_path, parse_announce};
use crate::codec::udp_tracker::{Announce, Request, Response};
use crate::codec::url::{Scheme, TrackerUrl, UrlError};
use crate::protocol::dns::{DnsError, Found};
use crate::protocol::http::{ExchangeError, HttpExchange};
use crate::protocol::tls::{Tls, TlsError};

/// Announces under way at once; more wait in the order they came.
pub const ACTIVE_MAX: usize = 64;
/// Announces that wait; more fail as busy.
pub const WAITING_MAX: usize = 100_000;
/// Redirects of one announce.
pub const REDIRECTS_MAX: u8 = 5;
/// Bytes of an answer's body.
pub const BODY_MAX: usize = 1 << 20;
/// Addresses of one tracker that are tried.
const ADDRESSES_MAX: usize = 4;
/// A UDP connection id is good for so long (BEP 15).
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// UDP connection ids that are kept; beyond it the oldest goes.
const CONNECTIONS_MAX: usize = 256;
/// Tries at one UDP address within the patience: at 1, 3 and 7 fifteenths of it.
const UDP_TRIES: u32 = 4;

/// An announce, as its owner names it.
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
            Self::Failure(failure) => write!(f, "it refused: {}", failure.reason),
            Self::Busy => f.write_str("too many announces are waiting"),
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

#[derive(Debug)]
struct Ask {
    url: TrackerUrl,
    announce: Announce,
    tracker_id: Option<Vec<u8>>,
    /// Still to be tried.
    addresses: VecDeque<IpAddr>,
    redirects: u8,
    stage: Stage,
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

#[derive(Debug)]
struct Udp {
    to: SocketAddr,
    transaction: u32,
    /// The announce itself was asked, not the connection id.
    announcing: bool,
    tries: u32,
    /// When to send next.
    due: Time,
    send: bool,
}

/// The client. Every ask gets exactly one outcome.
#[derive(Debug)]
pub struct TrackerClient {
    asks: BTreeMap<AskId, Ask>,
    waiting: VecDeque<AskId>,
    active: usize,
    exchanges: BTreeMap<ExchangeId, AskId>,
    next_exchange: u64,
    connections: BTreeMap<SocketAddr, (u64, Time)>,
    trust: Option<Arc<ClientConfig>>,
    needs: VecDeque<Need>,
    outcomes: VecDeque<(AskId, Outcome)>,
    patience: Duration,
    rng: Rng,
}

impl TrackerClient {
    /// A client that gives each address `patience` to answer.
    #[must_use]
    pub fn new(patience: Duration, rng: Rng) -> Self {
        Self {
            asks: BTreeMap::new(),
            waiting: VecDeque::new(),
            active: 0,
            exchanges: BTreeMap::new(),
            next_exchange: 0,
            connections: BTreeMap::new(),
            trust: None,
            needs: VecDeque::new(),
            outcomes: VecDeque::new(),
            patience,
            rng,
        }
    }

    /// Announces to `url`; the outcome comes under `id`.
    pub fn start(&mut self, now: Time, id: AskId, url: &str, announce: Announce, tracker_id: Option<Vec<u8>>) {
        let url = match TrackerUrl::parse(url) {
            Ok(url) => url,
            Err(error) => return self.outcomes.push_back((id, Err(TrackerError::Url(error)))),
        };
        if self.waiting.len() >= WAITING_MAX {
            return self.outcomes.push_back((id, Err(TrackerError::Busy)));
        }
        let ask = Ask { url, announce, tracker_id, addresses: VecDeque::new(), redirects: 0, stage: Stage::Waiting };
        self.asks.insert(id, ask);
        self.waiting.push_back(id);
        self.admit(now);
    }

    fn admit(&mut self, now: Time) {
        while self.active < ACTIVE_MAX
            && let Some(id) = self.waiting.pop_front()
        {
            self.active += 1;
            self.locate(now, id);
        }
    }

    /// Finds the addresses of an ask's tracker.
    fn locate(&mut self, now: Time, id: AskId) {
        let ask = self.asks.get_mut(&id).expect("an admitted ask is there");
        match ask.url.ip {
            Some(ip) => {
                ask.addresses = VecDeque::from([ip]);
                self.try_next(now, id, TrackerError::Unreachable);
            }
            None => {
                ask.stage = Stage::Resolving;
                self.needs.push_back(Need::Resolve(ask.url.host.clone()));
            }
        }
    }

    /// A name was looked up.
    pub fn handle_resolved(&mut self, now: Time, name: &str, found: &Found) {
        let is_waiting = |ask: &Ask| matches!(ask.stage, Stage::Resolving) && ask.url.host.eq_ignore_ascii_case(name);
        let ids: Vec<AskId> = self.asks.iter().filter(|(_, ask)| is_waiting(ask)).map(|(&id, _)| id).collect();
        for id in ids {
            match found {
                Ok(ips) => {
                    let ask = self.asks.get_mut(&id).expect("it was just listed");
                    ask.addresses = ips
                        .iter()
                        .copied()
                        .filter(|ip| ask.redirects == 0 || !is_local(*ip))
                        .take(ADDRESSES_MAX)
                        .collect();
                    self.try_next(now, id, TrackerError::Unreachable);
                }
                Err(error) => self.end(now, id, Err(TrackerError::Name(*error))),
            }
        }
    }

    /// Tries the next address of an ask; if there is none, it ends with `error`.
    fn try_next(&mut self, now: Time, id: AskId, error: TrackerError) {
        let ask = self.asks.get_mut(&id).expect("only asks that are there are tried");
        let Some(ip) = ask.addresses.pop_front() else { return self.end(now, id, Err(error)) };
        let to = SocketAddr::new(ip, ask.url.port);
        if ask.url.scheme == Scheme::Udp {
            let known = self.connections.get(&to).is_some_and(|(_, expires)| *expires > now);
            let transaction = self.rng.u32();
            ask.stage = Stage::Udp(Udp { to, transaction, announcing: known, tries: 0, due: now, send: true });
        } else if ask.url.scheme == Scheme::Https && self.trust.is_none() {
            ask.addresses.push_front(ip);
            ask.stage = Stage::Trusting;
            self.needs.push_back(Need::Trust);
        } else {
            let exchange = ExchangeId(self.next_exchange);
            self.next_exchange += 1;
            self.exchanges.insert(exchange, id);
            ask.stage = Stage::Connecting { exchange, deadline: now + self.patience };
            self.needs.push_back(Need::Connect(exchange, to));
        }
    }

    /// The trusted certificates are here.
    pub fn handle_trust(&mut self, now: Time, trust: Arc<ClientConfig>) {
        self.trust = Some(trust);
        let waiting = self.asks.iter().filter(|(_, ask)| matches!(ask.stage, Stage::Trusting));
        let ids: Vec<AskId> = waiting.map(|(&id, _)| id).collect();
        for id in ids {
            self.try_next(now, id, TrackerError::Unreachable);
        }
    }

    /// The stream of an exchange stands: the request goes out.
    pub fn handle_connected(&mut self, now: Time, exchange: ExchangeId) {
        let Some(&id) = self.exchanges.get(&exchange) else { return };
        let ask = self.asks.get_mut(&id).expect("an exchange has its ask");
        let path = announce_path(&ask.url, &ask.announce, ask.tracker_id.as_deref());
        let request = get_request(&path, &ask.url.authority());
        let tls = match (ask.url.scheme, &self.trust) {
            (Scheme::Https, Some(trust)) => match Tls::new(trust, &ask.url.host) {
                Ok(tls) => Some(tls),
                Err(_) => return self.fail(now, id, exchange, TrackerError::Tls),
            },
            _ => None,
        };
        let http = HttpExchange::new(now, &request, tls, BODY_MAX, self.patience);
        ask.stage = Stage::Http { exchange, http: Box::new(http) };
        self.needs.push_back(Need::Wake(exchange));
    }

    /// The stream of an exchange could not be had, or ended.
    pub fn handle_closed(&mut self, now: Time, exchange: ExchangeId) {
        let Some(id) = self.exchanges.remove(&exchange) else { return };
        let ask = self.asks.get_mut(&id).expect("an exchange has its ask");
        match &mut ask.stage {
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
        let ask = self.asks.get_mut(&id).expect("an exchange has its ask");
        let Stage::Http { http, .. } = &mut ask.stage else { return };
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
        let ask = self.exchanges.get(&exchange).and_then(|id| self.asks.get(id));
        match ask.map(|ask| &ask.stage) {
            Some(Stage::Http { http, .. }) => http.outgoing(),
            _ => &[],
        }
    }

    /// So many of those bytes were sent.
    pub fn advance(&mut self, exchange: ExchangeId, count: usize) {
        let ask = self.exchanges.get(&exchange).and_then(|id| self.asks.get_mut(id));
        if let Some(Stage::Http { http, .. }) = ask.map(|ask| &mut ask.stage) {
            http.advance(count);
        }
    }

    fn fail(&mut self, now: Time, id: AskId, exchange: ExchangeId, error: TrackerError) {
        self.exchanges.remove(&exchange);
        self.needs.push_back(Need::Close(exchange));
        self.try_next(now, id, error);
    }

    /// A whole HTTP answer.
    fn judge(&mut self, now: Time, id: AskId, response: HttpResponse) {
        match response.status {
            200 => {
                let outcome = match parse_announce(&response.body) {
                    Some(Ok(answer)) => Ok(answer),
                    Some(Err(failure)) => Err(TrackerError::Failure(failure)),
                    None => Err(TrackerError::NoTracker),
                };
                self.end(now, id, outcome);
            }
            301 | 302 | 303 | 307 | 308 => self.redirect(now, id, response.location.as_deref()),
            // Some trackers say in the body why, whatever the status.
            status => match parse_announce(&response.body) {
                Some(Err(failure)) => self.end(now, id, Err(TrackerError::Failure(failure))),
                _ => self.end(now, id, Err(TrackerError::Status(status))),
            },
        }
    }

    fn redirect(&mut self, now: Time, id: AskId, location: Option<&str>) {
        let ask = self.asks.get_mut(&id).expect("a judged ask is there");
        ask.redirects += 1;
        let target = location.and_then(|location| ask.url.redirected(location).ok());
        let target = target.filter(|target| {
            let was_local = ask.url.ip.is_some_and(is_local);
            ask.redirects <= REDIRECTS_MAX
                && !(ask.url.scheme == Scheme::Https && target.scheme == Scheme::Http)
                && (was_local || !target.ip.is_some_and(is_local))
        });
        match target {
            None => self.end(now, id, Err(TrackerError::Redirect)),
            Some(mut url) => {
                // The query of the announce is added anew; what the answer repeats of it must not stand twice.
                if let Some(at) = url.path.find("info_hash=") {
                    url.path.truncate(at);
                    let kept = url.path.trim_end_matches(['?', '&']).len();
                    url.path.truncate(kept);
                }
                ask.url = url;
                self.locate(now, id);
            }
        }
    }

    fn end(&mut self, now: Time, id: AskId, outcome: Outcome) {
        if self.asks.remove(&id).is_some() {
            self.active -= 1;
            self.outcomes.push_back((id, outcome));
            self.admit(now);
        }
    }

    /// A datagram came that may be a tracker's; true if it was.
    pub fn handle_packet(&mut self, now: Time, from: SocketAddr, packet: &[u8]) -> bool {
        let from = canonical_addr(from);
        let Some(response) = Response::parse(packet, from.is_ipv6()) else { return false };
        let told = match &response {
            Response::Connect { transaction, .. }
            | Response::Announce { transaction, .. }
            | Response::Scrape { transaction, .. }
            | Response::Error { transaction, .. } => *transaction,
        };
        let found = self.asks.iter_mut().find_map(|(&id, ask)| match &mut ask.stage {
            Stage::Udp(udp) if udp.transaction == told && canonical_addr(udp.to) == from => Some((id, udp)),
            _ => None,
        });
        let Some((id, udp)) = found else { return false };
        match response {
            Response::Connect { connection, .. } if !udp.announcing => {
                let to = udp.to;
                (udp.announcing, udp.tries, udp.due, udp.send) = (true, 0, now, true);
                udp.transaction = self.rng.u32();
                if self.connections.len() >= CONNECTIONS_MAX {
                    let oldest = self.connections.iter().min_by_key(|(_, (_, expires))| *expires).map(|(&to, _)| to);
                    self.connections.remove(&oldest.expect("it is full"));
                }
                self.connections.insert(to, (connection, now + CONNECTION_LIFE));
            }
            Response::Announce { interval, leechers, seeders, peers, .. } if udp.announcing => {
                let answer = AnnounceAnswer {
                    interval,
                    seeders: Some(seeders),
                    leechers: Some(leechers),
                    peers,
                    ..AnnounceAnswer::default()
                };
                self.end(now, id, Ok(answer));
            }
            Response::Error { message, .. } => {
                let to = udp.to;
                self.connections.remove(&to);
                let failure = Failure { reason: message, retry_in: None };
                self.end(now, id, Err(TrackerError::Failure(failure)));
            }
            _ => return false,
        }
        true
    }

    /// The next datagram to send; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, now: Time, packet: &mut Vec<u8>) -> Option<SocketAddr> {
        for ask in self.asks.values_mut() {
            let Stage::Udp(udp) = &mut ask.stage else { continue };
            if !std::mem::take(&mut udp.send) {
                continue;
            }
            udp.tries += 1;
            udp.due = now + self.patience / 15 * (1 << udp.tries.min(UDP_TRIES)) / 2;
            let transaction = udp.transaction;
            let known = self.connections.get(&udp.to).filter(|(_, expires)| *expires > now);
            match known {
                Some(&(connection, _)) if udp.announcing => {
                    let announce = Announce { path: udp_path(&ask.url), ..ask.announce.clone() };
                    Request::Announce { connection, transaction, announce }.write(packet);
                }
                _ => {
                    udp.announcing = false;
                    Request::Connect { transaction }.write(packet);
                }
            }
            return Some(udp.to);
        }
        None
    }

    /// What took too long is tried again or given up.
    pub fn handle_timeout(&mut self, now: Time) {
        let late = |ask: &Ask| match &ask.stage {
            Stage::Udp(udp) => udp.due <= now && !udp.send,
            Stage::Connecting { deadline, .. } => *deadline <= now,
            Stage::Http { http, .. } => http.poll_timeout() <= now,
            Stage::Waiting | Stage::Resolving | Stage::Trusting => false,
        };
        let ids: Vec<AskId> = self.asks.iter().filter(|(_, ask)| late(ask)).map(|(&id, _)| id).collect();
        for id in ids {
            let ask = self.asks.get_mut(&id).expect("it was just listed");
            match &mut ask.stage {
                Stage::Udp(udp) if udp.tries < UDP_TRIES => udp.send = true,
                Stage::Connecting { exchange, .. } | Stage::Http { exchange, .. } => {
                    let exchange = *exchange;
                    self.fail(now, id, exchange, TrackerError::Timeout);
                }
                _ => self.try_next(now, id, TrackerError::Timeout),
            }
        }
    }

    /// The next thing it wants from outside.
    pub fn poll_need(&mut self) -> Option<Need> {
        self.needs.pop_front()
    }

    /// The next announce that has ended.
    pub fn poll_event(&mut self) -> Option<(AskId, Outcome)> {
        self.outcomes.pop_front()
    }

    /// No announce is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.asks.is_empty() && self.outcomes.is_empty()
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let deadline = |ask: &Ask| match &ask.stage {
            // What waits to be sent waits for `poll_transmit`, not for the time.
            Stage::Udp(udp) if udp.send => Time::NEVER,
            Stage::Udp(udp) => udp.due,
            Stage::Connecting { deadline, .. } => *deadline,
            Stage::Http { http, .. } => http.poll_timeout(),
            Stage::Waiting | Stage::Resolving | Stage::Trusting => Time::NEVER,
        };
        self.asks.values().map(deadline).min().unwrap_or(Time::NEVER)
    }
}

/// BEP 41: what stands in the address beyond host and port; nothing where nothing was meant.
fn udp_path(url: &TrackerUrl) -> String {
    if matches!(url.path.as_str(), "/" | "/announce") { String::new() } else { url.path.clone() }
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
