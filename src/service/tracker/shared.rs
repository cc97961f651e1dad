//! Several trackers, one state: the swarms kept in a Redis-compatible server beside the table of each tracker.
//!
//! A swarm is a sorted set: its members are compact addresses, the score of each says when it was last heard of and what it was then
//! (milliseconds × 4 + role, 3 for one that left). Scores only ever grow (`ZADD GT`), so that it does not matter who writes first, or
//! twice. Writes are gathered for [`FLUSH_EVERY`]; what was read of a swarm counts for [`FRESH`], and whoever asks for one that is not
//! fresh waits for it, but never longer than [`WAIT_MAX`]. While the store is away everybody is answered from what is known, and when it
//! is back all that is known is written again, a few thousand peers at a time. The clocks of all trackers agree to some seconds.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::resp::Value;
use crate::protocol::redis::url::RedisUrl;
use crate::protocol::redis::{ASKS_MAX, Event, Failed, Redis};
use crate::service::tracker::Ticks;
use crate::service::tracker::asked::Asked;
use crate::service::tracker::peers::{Member, Role};
use crate::service::tracker::swarms::{Heard, Place, Swarms};

/// How long what was read of a swarm counts.
pub const FRESH: Duration = Duration::from_secs(10);
/// How long writes are gathered.
pub const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// How long the rest waits that did not go with them.
const FLUSH_MORE: Duration = Duration::from_millis(20);
/// How long a request waits for a swarm to be read.
pub const WAIT_MAX: Duration = Duration::from_millis(250);
/// Requests that wait; one more is answered from what is known.
const WAITING_MAX: usize = 16_384;
/// Peers that wait to be written; of more nothing is kept but that all are to be written again.
const WRITES_MAX: usize = 65_536;
/// Swarms written in one flush; the rest follows in the next.
const FLUSHED_MAX: usize = 4096;
/// Peers in one command.
const COMMAND_PEERS: usize = 256;
/// Nothing is written while so many commands have no answer.
const UNDER_WAY_MAX: usize = 8192;
/// Peers that are read of a swarm at once, the newest first,
const READ_MAX: usize = 4096;
/// and how often: two full families.
const PAGES_MAX: usize = 32;
/// What is read again of the time before the last reading: clocks differ, and writes are gathered.
const OVERLAP: Duration = Duration::from_secs(20);
/// After the store was away, swarms are read as wholes for so long: others write what they know.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Peers that are written again in one flush,
const RESYNC_PEERS: usize = 4096;
/// and how long it is left alone after all were.
const RESYNC_PAUSE: Duration = Duration::from_secs(30);

/// The token of everything that is written.
const WRITE: u64 = 0;

/// What is to be written of one swarm.
#[derive(Debug, Default)]
struct Write {
    peers: Vec<(Member, u64)>,
    completed: [u32; 2],
}

/// A swarm that is being read.
#[derive(Debug)]
struct Reading {
    hash: InfoHash,
    /// Downloads ever completed, as they were read.
    completed: [u32; 2],
    /// What is older is not asked for.
    since: u64,
    /// How many have been asked for.
    pages: usize,
    waiting: Vec<Asked>,
    /// Nobody waits for it any longer.
    gave_up: bool,
}

/// Counted since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StoreCounters {
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) failed: u64,
    pub(super) waited_too_long: u64,
}

/// The store, as this tracker sees it.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) redis: Redis,
    name: String,
    /// Unix time at [`Time::ZERO`], nanoseconds.
    unix_nanos: u64,
    life: Duration,
    up_since: Option<Time>,
    /// Why it is away, or what it said last.
    trouble: Option<String>,
    writes: BTreeMap<InfoHash, Write>,
    write_count: usize,
    flush_at: Time,
    /// By token; those that were begun first come first.
    readings: BTreeMap<u64, Reading>,
    by_hash: BTreeMap<InfoHash, u64>,
    /// When each reading's patience ends.
    patience: VecDeque<(Time, u64)>,
    waiting: usize,
    next_token: u64,
    /// Something was not written that is known.
    is_behind: bool,
    /// Where all that is known is being written again.
    resync: Option<Place>,
    /// When that may begin the next time.
    resync_from: Time,
    pub(super) counters: StoreCounters,
}

impl Shared {
    pub(super) fn new(now: Time, url: RedisUrl, unix_nanos: u64, life: Duration, rng: &mut Rng) -> Self {
        let name = url.to_string();
        let mut redis = Redis::new(url, rng.fork("store"));
        redis.start(now);
        Self {
            redis,
            name,
            unix_nanos,
            life,
            up_since: None,
            trouble: Some("it is being connected to".to_owned()),
            writes: BTreeMap::new(),
            write_count: 0,
            flush_at: Time::NEVER,
            readings: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            patience: VecDeque::new(),
            waiting: 0,
            next_token: 1,
            is_behind: false,
            resync: None,
            resync_from: Time::ZERO,
            counters: StoreCounters::default(),
        }
    }

    /// Requests that wait, and peers that wait to be written.
    pub(super) const fn held(&self) -> (usize, usize) {
        (self.waiting, self.write_count)
    }

    /// What must hold of it.
    pub(super) fn check(&self) {
        let waiting: usize = self.readings.values().map(|reading| reading.waiting.len()).sum();
        assert!(waiting == self.waiting && waiting <= WAITING_MAX, "requests that wait");
        let writes: usize = self.writes.values().map(|write| write.peers.len()).sum();
        assert!(writes == self.write_count && writes <= WRITES_MAX, "peers that wait to be written");
        assert!(self.redis.under_way() <= ASKS_MAX, "commands under way");
        assert_eq!(self.by_hash.len(), self.readings.len(), "a swarm is read once at a time");
        assert!(self.readings.len() <= ASKS_MAX && self.patience.len() >= self.readings_in_time(), "readings");
    }

    /// Readings that somebody may wait for.
    fn readings_in_time(&self) -> usize {
        self.readings.values().filter(|reading| !reading.gave_up).count()
    }

    /// Where it is and how it is, for people.
    pub(super) fn state(&self) -> String {
        match (&self.up_since, &self.trouble) {
            (Some(_), None) => format!("{}: up", self.name),
            (Some(_), Some(trouble)) => format!("{}: up; {trouble}", self.name),
            (None, trouble) => format!("{}: away: {}", self.name, trouble.as_deref().unwrap_or("not yet connected")),
        }
    }

    /// Unix time at [`Time::ZERO`] is another one than it seemed. What was written by the old one lives longer or shorter for once.
    pub(super) const fn set_calendar(&mut self, unix_nanos: u64) {
        self.unix_nanos = unix_nanos;
    }

    fn unix_millis(&self, now: Time) -> u64 {
        (self.unix_nanos + now.as_nanos()) / 1_000_000
    }

    /// The lowest score of what was said since so long.
    fn score_since(&self, now: Time, since: Duration) -> u64 {
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.unix_millis(now).saturating_sub(millis) * 4
    }

    /// The reading that a request has to wait for, if it wants the swarm of `hash`, which was last read at `read`.
    pub(super) fn wait_for(&mut self, now: Time, hash: &InfoHash, read: Option<Time>) -> Option<u64> {
        let up_since = self.up_since?;
        if read.is_some_and(|read| read >= up_since && now.since(read) < FRESH) || self.waiting >= WAITING_MAX {
            return None;
        }
        let token = match self.by_hash.get(hash) {
            Some(token) => *token,
            None => self.read(now, hash, read.filter(|read| *read >= up_since + CATCH_UP)),
        };
        (!self.readings[&token].gave_up).then_some(token)
    }

    /// The reading of a swarm that is under way, if a request may wait for it.
    pub(super) fn reading(&self, hash: &InfoHash) -> Option<u64> {
        let token = self.by_hash.get(hash).filter(|token| !self.readings[token].gave_up)?;
        (self.waiting < WAITING_MAX).then_some(*token)
    }

    /// The reading that would be begun next.
    pub(super) const fn next_reading(&self) -> u64 {
        self.next_token
    }

    /// Keeps a request until its reading has ended.
    pub(super) fn keep(&mut self, token: u64, asked: Asked) {
        let reading = self.readings.get_mut(&token).expect("it was just told to wait for it");
        reading.waiting.push(asked);
        self.waiting += 1;
    }

    /// Begins to read a swarm: what came since `last`, or all of it.
    fn read(&mut self, now: Time, hash: &InfoHash, last: Option<Time>) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.counters.reads += 1;
        self.by_hash.insert(*hash, token);
        self.patience.push_back((now + WAIT_MAX, token));
        let oldest = self.score_since(now, self.life);
        let since = last.map_or(oldest, |last| self.score_since(now, now.since(last) + OVERLAP)).max(oldest);
        let (peers, completed) = keys(hash);
        let reading = Reading { hash: *hash, completed: [0; 2], since, pages: 0, waiting: Vec::new(), gave_up: false };
        self.readings.insert(token, reading);
        // Two tokens: that of the counts is even, that of the peers, which ends it, is odd.
        self.redis.ask(now, token * 2, &completed, &[b"HMGET", &completed, b"4", b"6"]);
        if last.is_none() {
            let gone = format!("({oldest}");
            self.redis.ask(now, WRITE, &peers, &[b"ZREMRANGEBYSCORE", &peers, b"-inf", gone.as_bytes()]);
        }
        self.ask_page(now, token, "+inf");
        token
    }

    /// Asks for the newest peers of a reading that are not newer than a score.
    fn ask_page(&mut self, now: Time, token: u64, newest: &str) {
        let reading = self.readings.get_mut(&token).expect("it is under way");
        reading.pages += 1;
        let (peers, since, most) = (keys(&reading.hash).0, reading.since.to_string(), READ_MAX.to_string());
        let (newest, since, most) = (newest.as_bytes(), since.as_bytes(), most.as_bytes());
        let range: [&[u8]; 10] =
            [b"ZRANGE", &peers, newest, since, b"BYSCORE", b"REV", b"LIMIT", b"0", most, b"WITHSCORES"];
        self.redis.ask(now, token * 2 + 1, &peers, &range);
    }

    /// A peer said something of itself: it will be written.
    pub(super) fn note(&mut self, now: Time, hash: &InfoHash, peer: SocketAddr, role: Option<Role>, completed: bool) {
        let score = self.unix_millis(now) * 4 + number_of(role);
        self.write(now, hash, Member::of(peer), score, completed);
    }

    fn write(&mut self, now: Time, hash: &InfoHash, member: Member, score: u64, completed: bool) {
        if self.write_count >= WRITES_MAX {
            // What is lost here is in our table: all of that is written once there is room.
            self.is_behind = true;
            return;
        }
        let write = self.writes.entry(*hash).or_default();
        write.completed[usize::from(member.is_v6())] += u32::from(completed);
        write.peers.push((member, score));
        self.write_count += 1;
        if self.flush_at.is_never() {
            self.flush_at = now + FLUSH_EVERY;
        }
    }

    /// When `handle_timeout` wants to be called.
    pub(super) fn poll_timeout(&self) -> Time {
        let patience = self.patience.front().map_or(Time::NEVER, |(at, _)| *at);
        self.redis.poll_timeout().min(self.flush_at).min(patience)
    }

    /// It has come. Those whose patience has ended are to be answered now.
    pub(super) fn handle_timeout(&mut self, now: Time, swarms: &Swarms, ticks: Ticks, answer: &mut Vec<Asked>) {
        self.redis.handle_timeout(now);
        while let Some(&(at, token)) = self.patience.front()
            && at <= now
        {
            self.patience.pop_front();
            if let Some(reading) = self.readings.get_mut(&token) {
                reading.gave_up = true;
                self.counters.waited_too_long += reading.waiting.len() as u64;
                self.waiting -= reading.waiting.len();
                answer.append(&mut reading.waiting);
            }
        }
        if self.flush_at <= now {
            self.flush(now);
            self.resync(now, swarms, ticks);
            self.flush_at = if self.up_since.is_none() {
                Time::NEVER // that it is back brings the next one
            } else if !self.writes.is_empty() {
                now + FLUSH_MORE
            } else if self.resync.is_some() {
                now + FLUSH_EVERY
            } else if self.is_behind {
                self.resync_from.max(now + FLUSH_EVERY)
            } else {
                Time::NEVER
            };
        }
    }

    /// Writes what was gathered, if it can be.
    fn flush(&mut self, now: Time) {
        if self.up_since.is_none() {
            return;
        }
        let expires = (self.life.as_secs() + 60).to_string();
        for _ in 0..FLUSHED_MAX {
            if self.redis.under_way() >= UNDER_WAY_MAX {
                return;
            }
            let Some((hash, write)) = self.writes.pop_first() else { return };
            self.write_count -= write.peers.len();
            let (peers, completed) = keys(&hash);
            for part in write.peers.chunks(COMMAND_PEERS) {
                let scores: Vec<String> = part.iter().map(|(_, score)| score.to_string()).collect();
                let mut command: Vec<&[u8]> = vec![b"ZADD", &peers, b"GT"];
                for ((member, _), score) in part.iter().zip(&scores) {
                    command.extend([score.as_bytes(), member.bytes()]);
                }
                self.redis.ask(now, WRITE, &peers, &command);
                self.counters.writes += part.len() as u64;
            }
            self.redis.ask(now, WRITE, &peers, &[b"EXPIRE", &peers, expires.as_bytes()]);
            for (family, count) in [b"4", b"6"].into_iter().zip(write.completed) {
                if count > 0 {
                    let count = count.to_string();
                    self.redis.ask(now, WRITE, &completed, &[b"HINCRBY", &completed, family, count.as_bytes()]);
                }
            }
        }
    }

    /// Writes some of what is known again, where the store was away.
    fn resync(&mut self, now: Time, swarms: &Swarms, ticks: Ticks) {
        if self.up_since.is_none() || self.write_count > WRITES_MAX / 2 {
            return;
        }
        if self.resync.is_none() && self.is_behind && now >= self.resync_from {
            (self.resync, self.is_behind) = (Some(Place::default()), false);
        }
        let Some(place) = self.resync else { return };
        let millis = self.unix_millis(now);
        let mut known = Vec::new();
        self.resync = swarms.known_from(place, RESYNC_PEERS, ticks.at(now), &mut known);
        if self.resync.is_none() {
            self.resync_from = now + RESYNC_PAUSE;
        }
        for (hash, member, role, age) in known {
            let at = millis.saturating_sub(u64::from(age) * ticks.nanos / 1_000_000);
            self.write(now, &hash, member, at * 4 + number_of(Some(role)), false);
        }
    }

    /// Takes in what the store has told. Those who waited for it are to be answered now.
    pub(super) fn act(&mut self, now: Time, swarms: &mut Swarms, ticks: Ticks, answer: &mut Vec<Asked>) {
        while let Some(event) = self.redis.poll_event() {
            match event {
                Event::Up => {
                    log::info!("the tracker's store {} is there", self.name);
                    (self.up_since, self.trouble, self.is_behind) = (Some(now), None, true);
                    (self.resync, self.resync_from) = (None, now);
                    self.flush_at = self.flush_at.min(now + FLUSH_EVERY);
                }
                Event::Down(reason) => {
                    log::warn!("the tracker's store {} is away: {reason}; answers come from what is known", self.name);
                    (self.up_since, self.trouble) = (None, Some(reason));
                }
                Event::Reply(token, reply) => self.handle_reply(now, token, reply, swarms, ticks, answer),
            }
        }
    }

    fn handle_reply(
        &mut self,
        now: Time,
        token: u64,
        reply: Result<Value, Failed>,
        swarms: &mut Swarms,
        ticks: Ticks,
        answer: &mut Vec<Asked>,
    ) {
        if let Err(failed) = &reply {
            self.counters.failed += 1;
            match failed {
                Failed::Refused(text) if self.trouble.as_ref() != Some(text) => {
                    log::warn!("the tracker's store {} refused: {text}", self.name);
                    self.trouble = Some(text.clone());
                }
                Failed::Refused(_) => {}
                Failed::Away | Failed::Busy | Failed::Timeout => self.is_behind = true,
            }
        }
        if token == WRITE {
            return;
        }
        let number = token / 2;
        let Some(reading) = self.readings.get_mut(&number) else { return };
        if token.is_multiple_of(2) {
            let counts = reply.ok();
            let counts = counts.as_ref().and_then(Value::array).unwrap_or_default();
            for (known, count) in reading.completed.iter_mut().zip(counts) {
                *known = count.integer().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
            }
            return;
        }
        let (hash, completed) = (reading.hash, reading.completed);
        let waiting = std::mem::take(&mut reading.waiting);
        self.waiting -= waiting.len();
        let mut more = None;
        if let Ok(value) = reply {
            let millis = self.unix_millis(now);
            let is_wanted = waiting.iter().any(Asked::is_announce);
            let pairs = value.array().unwrap_or_default().as_chunks::<2>().0;
            let heard = pairs.iter().filter_map(|pair| heard(pair, millis, ticks));
            swarms.hear(&hash, heard, completed, ticks.at(now), now, is_wanted);
            // Those of the last score come twice: they may not have been all.
            let [first, last] = [pairs.first(), pairs.last()].map(|pair| pair.and_then(|pair| pair[1].integer()));
            more = last.filter(|_| pairs.len() >= READ_MAX && last < first);
        }
        match more {
            Some(newest) if self.readings[&number].pages < PAGES_MAX => {
                self.ask_page(now, number, &newest.to_string());
            }
            _ => {
                self.readings.remove(&number);
                self.by_hash.remove(&hash);
            }
        }
        // Nobody waits for older ones.
        answer.extend(waiting);
    }
}

/// A peer as the store has it; none for what is not of ours.
fn heard([member, score]: &[Value; 2], millis: u64, ticks: Ticks) -> Option<Heard> {
    let member = Member::from_bytes(member.bytes()?)?;
    let score = u64::try_from(score.integer()?).ok()?;
    let role = match score % 4 {
        0 => Some(Role::Downloader),
        1 => Some(Role::PartialSeed),
        2 => Some(Role::Seed),
        _ => None,
    };
    // What is from a clock ahead of ours is from now.
    let age_nanos = millis.saturating_sub(score / 4).saturating_mul(1_000_000);
    Some(Heard { member, role, age: age_nanos / ticks.nanos })
}

const fn number_of(role: Option<Role>) -> u64 {
    match role {
        Some(Role::Downloader) => 0,
        Some(Role::PartialSeed) => 1,
        Some(Role::Seed) => 2,
        None => 3,
    }
}

/// The keys of a swarm: of its peers, and of how often it was completed. The braces keep both at one server of a cluster.
fn keys(hash: &InfoHash) -> (Vec<u8>, Vec<u8>) {
    (format!("swarmtorrent:{{{hash}}}:peers").into_bytes(), format!("swarmtorrent:{{{hash}}}:completed").into_bytes())
}
