//! A stub resolver: names to addresses over UDP, on the loop; over TCP what does not fit a datagram (RFC 7766).
//!
//! Servers are asked in turn with a short patience each, for both families at once; ids are random, and an answer must come from
//! the server that was asked, with that id and that question. The hosts table is asked first, answers are kept as long as they say.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::addr::canonical_addr;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::dns::{Answer, parse, query};

use self::stream::NameStream;

mod stream;

/// Names that are looked up at once; more fail as busy.
pub const LOOKUPS_MAX: usize = 256;
/// Names that are remembered; beyond it the one that expires first goes.
pub const CACHE_MAX: usize = 1024;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take over a stream, which has to be made first.
const STREAM_PATIENCE: Duration = Duration::from_secs(4);
/// Streams to servers at once; beyond it an answer that was cut short is taken as it is, or the next server is asked.
pub const STREAMS_MAX: usize = 16;
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// An answer is kept at least and at most so long.
const TTL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));
/// How long it is remembered that a name could not be found.
const NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// Why a name has no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DnsError {
    /// There is no such name, or it has no address.
    NoName,
    /// No server answered.
    NoAnswer,
    /// There is no server to ask.
    NoServers,
    /// Too many names are being looked up.
    Busy,
}

impl std::fmt::Display for DnsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoName => "its name has no address",
            Self::NoAnswer => "no name server answered",
            Self::NoServers => "no name server is configured; see /etc/resolv.conf",
            Self::Busy => "too many names are being looked up",
        })
    }
}

/// A stream for one question. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameStreamId(pub u64);

/// What the resolver wants from outside, besides datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameNeed {
    /// Open a stream; what is to be sent on it is there already. Call `handle_closed` if it cannot be had.
    Connect(NameStreamId, SocketAddr),
    /// Close this stream.
    Close(NameStreamId),
}

/// What a lookup found.
pub type Found = Result<Vec<IpAddr>, DnsError>;

#[derive(Debug)]
struct Lookup {
    /// By family, IPv4 first: the id that was sent, or what came.
    questions: [Question; 2],
    tries: usize,
    deadline: Time,
}

#[derive(Debug, Clone)]
enum Question {
    Asked {
        id: u16,
        sent: bool,
    },
    /// Its answer did not fit a datagram; this much of it did.
    Streamed {
        stream: NameStreamId,
        id: u16,
        cut: Option<(Vec<IpAddr>, u32)>,
    },
    Answered(Vec<IpAddr>, u32),
}

/// The resolver.
#[derive(Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    hosts: BTreeMap<String, Vec<IpAddr>>,
    lookups: BTreeMap<String, Lookup>,
    cache: BTreeMap<String, (Time, Found)>,
    events: VecDeque<(String, Found)>,
    /// With the name and the family that is asked for.
    streams: BTreeMap<NameStreamId, (String, bool, NameStream)>,
    next_stream: u64,
    needs: VecDeque<NameNeed>,
    rng: Rng,
}

impl Resolver {
    /// A resolver that asks `servers`, after `hosts`.
    #[must_use]
    pub fn new(servers: &[SocketAddr], hosts: &[(String, IpAddr)], rng: Rng) -> Self {
        let mut table: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (name, ip) in hosts {
            table.entry(name.to_ascii_lowercase()).or_default().push(*ip);
        }
        Self {
            servers: servers.to_vec(),
            hosts: table,
            lookups: BTreeMap::new(),
            cache: BTreeMap::new(),
            events: VecDeque::new(),
            streams: BTreeMap::new(),
            next_stream: 0,
            needs: VecDeque::new(),
            rng,
        }
    }

    /// Looks a name up; what is found comes from [`Resolver::poll_event`], under this name.
    pub fn resolve(&mut self, now: Time, name: &str) {
        let name = name.to_ascii_lowercase();
        let known = if let Some(ips) = self.hosts.get(&name) {
            Some(Ok(ips.clone()))
        } else if let Some((_, found)) = self.cache.get(&name).filter(|(expires, _)| *expires > now) {
            Some(found.clone())
        } else if self.servers.is_empty() {
            Some(Err(DnsError::NoServers))
        } else if self.lookups.len() >= LOOKUPS_MAX {
            Some(Err(DnsError::Busy))
        } else if query(0, &name, false).is_none() {
            Some(Err(DnsError::NoName))
        } else {
            None
        };
        match known {
            Some(found) => self.events.push_back((name, found)),
            None if self.lookups.contains_key(&name) => {}
            None => {
                let questions = self.questions();
                self.lookups.insert(name, Lookup { questions, tries: 0, deadline: now + PATIENCE });
            }
        }
    }

    fn questions(&mut self) -> [Question; 2] {
        [(); 2].map(|()| Question::Asked { id: u16::from_be_bytes(self.rng.bytes()), sent: false })
    }

    /// A datagram came to the resolver's socket.
    pub fn handle_packet(&mut self, now: Time, from: SocketAddr, packet: &[u8]) {
        let from = canonical_addr(from);
        let servers = &self.servers;
        let mut cut_short = None;
        let answered = self.lookups.iter_mut().find_map(|(name, lookup)| {
            let server = servers[lookup.tries % servers.len()];
            let open = lookup.questions.iter_mut().zip([false, true]).filter_map(|(question, v6)| match *question {
                Question::Asked { id, sent: true } => Some((question, id, v6)),
                _ => None,
            });
            for (question, id, v6) in open {
                if from == canonical_addr(server)
                    && let Some(answer) = parse(packet, id, name, v6)
                {
                    match answer {
                        Answer::Addresses(ips, ttl) => *question = Question::Answered(ips, ttl),
                        Answer::NoName => *question = Question::Answered(Vec::new(), 60),
                        Answer::Failed => lookup.deadline = now, // the next server, at once
                        Answer::Truncated(ips, ttl) => {
                            cut_short = Some((server, v6, Some((ips, ttl)).filter(|(ips, _)| !ips.is_empty())));
                        }
                    }
                    return Some(name.clone());
                }
            }
            None
        });
        if let Some(name) = answered {
            if let Some((server, v6, cut)) = cut_short {
                self.ask_by_stream(now, &name, v6, server, cut);
            }
            self.conclude(now, &name);
        }
    }

    /// Asks the server whose answer was cut short again.
    fn ask_by_stream(&mut self, now: Time, name: &str, v6: bool, server: SocketAddr, cut: Option<(Vec<IpAddr>, u32)>) {
        let stream = NameStreamId(self.next_stream);
        let id = u16::from_be_bytes(self.rng.bytes());
        let lookup = self.lookups.get_mut(name).expect("it was just asked");
        lookup.questions[usize::from(v6)] = Question::Streamed { stream, id, cut };
        if self.streams.len() >= STREAMS_MAX {
            return self.do_without(now, name, v6);
        }
        self.next_stream += 1;
        lookup.deadline = now + STREAM_PATIENCE;
        let question = query(id, name, v6).expect("it was tried when the name was taken");
        self.streams.insert(stream, (name.to_owned(), v6, NameStream::new(&question)));
        self.needs.push_back(NameNeed::Connect(stream, server));
    }

    /// A question gets no answer by stream: what was cut short must do, or the next server is asked.
    fn do_without(&mut self, now: Time, name: &str, v6: bool) {
        let lookup = self.lookups.get_mut(name).expect("a stream has its lookup");
        let question = &mut lookup.questions[usize::from(v6)];
        let Question::Streamed { id, cut, .. } = question else { unreachable!("it was asked by stream") };
        match cut.take() {
            Some((ips, ttl)) => {
                *question = Question::Answered(ips, ttl);
                self.conclude(now, name);
            }
            None => {
                *question = Question::Asked { id: *id, sent: true };
                lookup.deadline = now;
            }
        }
    }

    /// Bytes came on a stream.
    pub fn handle_input(&mut self, now: Time, stream: NameStreamId, bytes: &[u8]) {
        let Some((name, v6, machine)) = self.streams.get_mut(&stream) else { return };
        let Some(message) = machine.handle_input(bytes) else { return };
        let lookup = self.lookups.get_mut(name).expect("a stream has its lookup");
        let question = &mut lookup.questions[usize::from(*v6)];
        let Question::Streamed { id, .. } = *question else { unreachable!("it was asked by stream") };
        let answer = parse(message, id, name, *v6);
        let (name, v6, _) = self.streams.remove(&stream).expect("it is there");
        self.needs.push_back(NameNeed::Close(stream));
        match answer {
            Some(Answer::Addresses(ips, ttl)) => *question = Question::Answered(ips, ttl),
            Some(Answer::NoName) => *question = Question::Answered(Vec::new(), 60),
            Some(Answer::Failed | Answer::Truncated(..)) | None => return self.do_without(now, &name, v6),
        }
        self.conclude(now, &name);
    }

    /// A stream could not be had, or ended.
    pub fn handle_closed(&mut self, now: Time, stream: NameStreamId) {
        if let Some((name, v6, _)) = self.streams.remove(&stream) {
            self.do_without(now, &name, v6);
        }
    }

    /// What should be sent on a stream.
    #[must_use]
    pub fn outgoing(&self, stream: NameStreamId) -> &[u8] {
        self.streams.get(&stream).map_or(&[], |(_, _, machine)| machine.outgoing())
    }

    /// So many of those bytes were sent.
    pub fn advance(&mut self, stream: NameStreamId, count: usize) {
        if let Some((_, _, machine)) = self.streams.get_mut(&stream) {
            machine.advance(count);
        }
    }

    /// The next stream to open or to close.
    pub fn poll_need(&mut self) -> Option<NameNeed> {
        self.needs.pop_front()
    }

    /// Ends a lookup whose two questions are answered.
    fn conclude(&mut self, now: Time, name: &str) {
        let Some(lookup) = self.lookups.get(name) else { return };
        let [Question::Answered(v4, ttl4), Question::Answered(v6, ttl6)] = &lookup.questions else { return };
        let ips: Vec<IpAddr> = v4.iter().chain(v6).copied().collect();
        let ttl = Duration::from_secs(u64::from(*ttl4.min(ttl6))).clamp(TTL.0, TTL.1);
        self.lookups.remove(name);
        if ips.is_empty() {
            self.end(now, name, NEGATIVE_TTL, Err(DnsError::NoName));
        } else {
            self.end(now, name, ttl, Ok(ips));
        }
    }

    fn end(&mut self, now: Time, name: &str, ttl: Duration, found: Found) {
        if self.cache.len() >= CACHE_MAX
            && let Some(first) =
                self.cache.iter().min_by_key(|(_, (expires, _))| *expires).map(|(name, _)| name.clone())
        {
            self.cache.remove(&first);
        }
        self.cache.insert(name.to_owned(), (now + ttl, found.clone()));
        self.events.push_back((name.to_owned(), found));
    }

    /// Servers that did not answer in time are passed over.
    pub fn handle_timeout(&mut self, now: Time) {
        let late: Vec<String> =
            self.lookups.iter().filter(|(_, lookup)| lookup.deadline <= now).map(|(name, _)| name.clone()).collect();
        for name in late {
            let fresh = self.questions();
            let lookup = self.lookups.get_mut(&name).expect("it was just listed");
            lookup.tries += 1;
            lookup.deadline = now + PATIENCE;
            for (question, fresh) in lookup.questions.iter_mut().zip(fresh) {
                match question {
                    Question::Asked { .. } => *question = fresh,
                    Question::Streamed { stream, cut, .. } => {
                        self.streams.remove(stream);
                        self.needs.push_back(NameNeed::Close(*stream));
                        *question = cut.take().map_or(fresh, |(ips, ttl)| Question::Answered(ips, ttl));
                    }
                    Question::Answered(..) => {}
                }
            }
            if lookup.tries < self.servers.len() * ROUNDS {
                self.conclude(now, &name);
                continue;
            }
            // One family may have been answered: that is enough.
            let lookup = self.lookups.remove(&name).expect("it was just listed");
            let answered = lookup.questions.into_iter().filter_map(|question| match question {
                Question::Answered(ips, _) => Some(ips),
                Question::Asked { .. } | Question::Streamed { .. } => None,
            });
            let ips: Vec<IpAddr> = answered.flatten().collect();
            let found = if ips.is_empty() { Err(DnsError::NoAnswer) } else { Ok(ips) };
            self.end(now, &name, TTL.0, found);
        }
    }

    /// The next datagram to send: where to; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<SocketAddr> {
        for (name, lookup) in &mut self.lookups {
            let server = self.servers[lookup.tries % self.servers.len()];
            for (question, v6) in lookup.questions.iter_mut().zip([false, true]) {
                if let Question::Asked { id, sent } = question
                    && !std::mem::replace(sent, true)
                {
                    *packet = query(*id, name, v6).expect("it was tried when the name was taken");
                    return Some(server);
                }
            }
        }
        None
    }

    /// The next name that is looked up, and what was found.
    pub fn poll_event(&mut self) -> Option<(String, Found)> {
        self.events.pop_front()
    }

    /// No name is being looked up: a good moment for another port.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lookups.is_empty()
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.lookups.values().map(|lookup| lookup.deadline).min().unwrap_or(Time::NEVER)
    }
}

#[cfg(test)]
mod tests;
