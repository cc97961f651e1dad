//! When a torrent announces to which of its trackers (BEP 3, 12, 31).
//!
//! Tiers are shuffled once; within a tier the one that answered moves to the front, and only one of a tier is asked at a time
//! unless the user wants all. `started` comes first, `completed` once and only for what was downloaded, `stopped` only where
//! `started` was heard. A failure is followed by longer and longer waits. Where announces bring no counts, are rare (seeding) or
//! are not made at all (stopped), the tracker whose turn it is gets a scrape every while.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::http_tracker::RetryIn;
use crate::codec::st::identity;
use crate::codec::udp_tracker::AnnounceEvent;
use crate::protocol::tracker::{Outcome, ScrapeOutcome, TrackerError};
use crate::torrent::scrapes::{ScrapeAsk, ScrapeClock};
use crate::torrent::snapshot::TrackerRow;

/// Between two announces, whatever a tracker says: at least and at most.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
/// While something is missing: at most, unless the tracker names a least interval that is longer.
const INTERVAL_MISSING: Duration = Duration::from_secs(3600);
/// Where a tracker says nothing.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30 * 60);
/// A user may ask for an announce so often, where the tracker names no least interval.
const HURRY_MIN: Duration = Duration::from_secs(30);
/// Wait after the first failure; doubles with each.
const BACKOFF: Duration = Duration::from_secs(15);
/// The longest wait after failures.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// Peers to ask for.
const NUM_WANT: i32 = 100;

/// One announce that should be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceAsk {
    /// Which tracker, as [`Announces::handle_outcome`] is told.
    pub tracker: usize,
    /// Its address.
    pub url: String,
    /// Why.
    pub event: AnnounceEvent,
    /// How many peers are wanted.
    pub num_want: i32,
    /// What it gave us to repeat.
    pub tracker_id: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Tracker {
    tier: usize,
    url: String,
    /// It has heard `started` and not `stopped`.
    started: bool,
    /// An announce is under way, with this event.
    busy: Option<AnnounceEvent>,
    next: Time,
    /// Not before, not even in a hurry.
    not_before: Time,
    failures: u32,
    /// It wants to be asked no more (BEP 31).
    never: bool,
    tracker_id: Option<Vec<u8>>,
    seeders: Option<u32>,
    leechers: Option<u32>,
    downloaded: Option<u32>,
    peers: u32,
    message: Option<String>,
    scrape: ScrapeClock,
    /// Its last answer did not say how many seeders and leechers there are.
    uncounted: bool,
}

/// The announces of one torrent.
#[derive(Debug)]
pub struct Announces {
    trackers: Vec<Tracker>,
    /// By tier: its trackers in the order they are tried.
    tiers: Vec<Vec<usize>>,
    to_all: bool,
    running: bool,
    /// `completed` is still to be said, by tracker.
    completed: Vec<usize>,
    finished: bool,
    /// The first announce of this run waits until then, unless the user wants it sooner.
    begin_at: Time,
    asks: VecDeque<AnnounceAsk>,
    scrapes: VecDeque<ScrapeAsk>,
    rng: Rng,
}

impl Announces {
    /// The trackers of `tiers`; `to_all` asks every one of them.
    #[must_use]
    pub fn new(now: Time, tiers: &[Vec<String>], to_all: bool, rng: Rng) -> Self {
        let mut announces = Self {
            trackers: Vec::new(),
            tiers: Vec::new(),
            to_all,
            running: false,
            completed: Vec::new(),
            finished: false,
            begin_at: Time::ZERO,
            asks: VecDeque::new(),
            scrapes: VecDeque::new(),
            rng,
        };
        announces.add(now, tiers);
        announces
    }

    /// Nothing is drawn for a while.
    pub(crate) fn rest(&mut self) {
        self.rng.rest();
    }

    /// There are more trackers, in tiers behind those that there are; who is known already is passed over.
    pub fn add(&mut self, now: Time, tiers: &[Vec<String>]) {
        let known: BTreeSet<Vec<u8>> = self.trackers.iter().map(|tracker| identity(&tracker.url)).collect();
        for urls in tiers {
            let urls: Vec<&String> = urls.iter().filter(|url| !known.contains(&identity(url))).collect();
            if urls.is_empty() {
                continue;
            }
            let mut indexes: Vec<usize> = (self.trackers.len()..self.trackers.len() + urls.len()).collect();
            self.rng.shuffle(&mut indexes);
            let tier = self.tiers.len();
            self.tiers.push(indexes);
            for url in urls {
                self.trackers.push(Tracker {
                    tier,
                    url: url.clone(),
                    started: false,
                    busy: None,
                    next: if self.running { now } else { Time::NEVER },
                    not_before: Time::ZERO,
                    failures: 0,
                    never: false,
                    tracker_id: None,
                    seeders: None,
                    leechers: None,
                    downloaded: None,
                    peers: 0,
                    message: None,
                    scrape: ScrapeClock::new(now, url, &mut self.rng),
                    uncounted: false,
                });
            }
        }
        self.ask_due(now);
    }

    /// Not before `at` it announces itself for the first time.
    pub(crate) fn begin_at(&mut self, at: Time) {
        self.begin_at = at;
    }

    /// The torrent runs; `finished` if everything wanted is here already.
    pub fn start(&mut self, now: Time, finished: bool) {
        self.running = true;
        self.finished = finished;
        for tracker in &mut self.trackers {
            tracker.next = now.max(tracker.not_before).max(self.begin_at);
            tracker.failures = 0;
        }
        self.ask_due(now);
    }

    /// The torrent stops: those who heard `started` hear `stopped`.
    pub fn stop(&mut self, _now: Time) {
        self.running = false;
        self.completed.clear();
        self.asks.clear();
        for index in 0..self.trackers.len() {
            self.trackers[index].next = Time::NEVER;
            // One that is being asked is told when it has answered.
            if self.trackers[index].busy.is_none() && std::mem::take(&mut self.trackers[index].started) {
                self.ask(index, AnnounceEvent::Stopped);
            }
        }
    }

    /// Everything wanted was downloaded: those who heard `started` hear `completed`, once.
    pub fn completed(&mut self, now: Time) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.completed = (0..self.trackers.len()).filter(|&index| self.trackers[index].started).collect();
        for &index in &self.completed {
            self.trackers[index].next = now;
        }
        self.ask_due(now);
    }

    /// Whether every tracker is asked, from now on.
    pub fn set_to_all(&mut self, now: Time, to_all: bool) {
        if std::mem::replace(&mut self.to_all, to_all) != to_all {
            self.ask_due(now);
        }
    }

    /// The user is in a hurry: all are asked as soon as they allow.
    pub fn hurry(&mut self, now: Time) {
        if self.running {
            for tracker in self.trackers.iter_mut().filter(|tracker| tracker.busy.is_none() && !tracker.never) {
                tracker.next = tracker.next.min(tracker.not_before.max(now));
            }
            self.ask_due(now);
        }
    }

    fn ask(&mut self, index: usize, event: AnnounceEvent) {
        let tracker = &mut self.trackers[index];
        tracker.busy = Some(event);
        let num_want = if event == AnnounceEvent::Stopped { 0 } else { NUM_WANT };
        let (url, tracker_id) = (tracker.url.clone(), tracker.tracker_id.clone());
        self.asks.push_back(AnnounceAsk { tracker: index, url, event, num_want, tracker_id });
    }

    /// Asks whoever is due: of each tier the first that does not fail, or everybody.
    fn ask_due(&mut self, now: Time) {
        if !self.running {
            return;
        }
        let completed = std::mem::take(&mut self.completed);
        for index in 0..self.trackers.len() {
            let tracker = &self.trackers[index];
            if tracker.busy.is_some() || tracker.next > now || tracker.never {
                if completed.contains(&index) {
                    self.completed.push(index);
                }
                continue;
            }
            if !self.is_turn_of(index) {
                continue;
            }
            let event = match (tracker.started, completed.contains(&index)) {
                (false, _) => AnnounceEvent::Started,
                (true, true) => AnnounceEvent::Completed,
                (true, false) => AnnounceEvent::Regular,
            };
            self.ask(index, event);
        }
    }

    /// Scrapes whoever should be, as far as it may.
    fn scrape_due(&mut self, now: Time) {
        for index in 0..self.trackers.len() {
            if self.is_scraped(index) && self.trackers[index].scrape.due() <= now {
                let tracker = &mut self.trackers[index];
                let url = tracker.scrape.begin(&tracker.url);
                self.scrapes.push_back(ScrapeAsk { tracker: index, url });
            }
        }
    }

    /// True if no announce tells, soon enough, how many peers this tracker knows.
    fn is_scraped(&self, index: usize) -> bool {
        let tracker = &self.trackers[index];
        let announces_tell = self.running && !(tracker.started && (tracker.uncounted || self.finished));
        tracker.busy.is_none() && !tracker.never && !announces_tell && self.is_turn_of(index)
    }

    /// True if nobody before it in its tier, and in the tiers before, answers.
    fn is_turn_of(&self, index: usize) -> bool {
        if self.to_all || self.trackers[index].started {
            return true;
        }
        let answers = |&other: &usize| {
            let tracker = &self.trackers[other];
            other != index && !tracker.never && (tracker.started || tracker.busy.is_some() || tracker.failures == 0)
        };
        let tier = self.trackers[index].tier;
        let before = self.tiers[tier].iter().take_while(|&&other| other != index);
        !self.tiers[..tier].iter().flatten().chain(before).any(answers)
    }

    /// An announce has ended. Returns the peers it brought.
    pub fn handle_outcome(&mut self, now: Time, index: usize, outcome: Outcome) -> Vec<std::net::SocketAddr> {
        let jitter = self.rng.below(1000);
        let Some(tracker) = self.trackers.get_mut(index) else { return Vec::new() };
        let event = tracker.busy.take().unwrap_or_default();
        let mut peers = Vec::new();
        match outcome {
            Ok(answer) => {
                let interval = Duration::from_secs(u64::from(answer.interval));
                let interval = if interval.is_zero() { INTERVAL_DEFAULT } else { interval };
                let least = answer.min_interval.map(|secs| Duration::from_secs(u64::from(secs)).min(INTERVAL.1));
                tracker.not_before = now + least.unwrap_or(HURRY_MIN);
                let most = if self.finished { INTERVAL.1 } else { INTERVAL_MISSING };
                tracker.next = now + interval.clamp(INTERVAL.0, most).max(least.unwrap_or_default());
                tracker.failures = 0;
                tracker.started = event != AnnounceEvent::Stopped;
                tracker.message = answer.warning.map(|text| shown(&text));
                tracker.tracker_id = answer.tracker_id.or_else(|| tracker.tracker_id.take());
                tracker.seeders = answer.seeders.or(tracker.seeders);
                tracker.leechers = answer.leechers.or(tracker.leechers);
                tracker.downloaded = answer.downloaded.or(tracker.downloaded);
                tracker.uncounted = answer.seeders.is_none() || answer.leechers.is_none();
                if !tracker.uncounted {
                    tracker.scrape.refreshed(now);
                }
                tracker.peers = u32::try_from(answer.peers.len()).unwrap_or(u32::MAX);
                let tier = &mut self.tiers[tracker.tier];
                let place = tier.iter().position(|&other| other == index).expect("every tracker is in its tier");
                tier[..=place].rotate_right(1);
                if self.running {
                    peers = answer.peers;
                }
            }
            Err(error) => {
                tracker.failures += 1;
                let wait = (BACKOFF * 2_u32.saturating_pow(tracker.failures.min(10) - 1)).min(BACKOFF_MAX);
                let wait = wait + wait * u32::try_from(jitter).expect("below 1000") / 4000;
                tracker.next = now + wait;
                if let TrackerError::Failure(failure) = &error {
                    match failure.retry_in {
                        // Not even a goodbye.
                        Some(RetryIn::Never) => (tracker.never, tracker.started) = (true, false),
                        Some(RetryIn::Minutes(minutes)) => {
                            tracker.next =
                                now + Duration::from_secs(u64::from(minutes) * 60).clamp(INTERVAL.0, INTERVAL.1);
                            tracker.not_before = tracker.next;
                            tracker.scrape.put_off(tracker.next);
                        }
                        None => {}
                    }
                }
                tracker.message = Some(shown(&error.to_string()));
                if event == AnnounceEvent::Completed {
                    self.completed.push(index);
                }
            }
        }
        if !self.running {
            let tracker = &mut self.trackers[index];
            tracker.next = Time::NEVER;
            // It was being asked when the torrent stopped.
            if std::mem::take(&mut tracker.started) {
                self.ask(index, AnnounceEvent::Stopped);
            }
        } else if event == AnnounceEvent::Stopped {
            self.trackers[index].next = now;
        }
        self.ask_due(now);
        peers
    }

    /// A scrape has ended.
    pub fn handle_scraped(&mut self, now: Time, index: usize, outcome: &ScrapeOutcome) {
        let Some(tracker) = self.trackers.get_mut(index) else { return };
        tracker.scrape.handle_outcome(now, outcome);
        if let Ok(answer) = outcome {
            tracker.seeders = answer.seeders.or(tracker.seeders);
            tracker.leechers = answer.leechers.or(tracker.leechers);
            tracker.downloaded = answer.downloaded.or(tracker.downloaded);
        }
    }

    /// Asks whoever is due.
    pub fn handle_timeout(&mut self, now: Time) {
        self.ask_due(now);
        self.scrape_due(now);
    }

    /// The next scrape to make.
    pub fn poll_scrape(&mut self) -> Option<ScrapeAsk> {
        self.scrapes.pop_front()
    }

    /// The next announce to make.
    pub fn poll_ask(&mut self) -> Option<AnnounceAsk> {
        self.asks.pop_front()
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        let waits = |&index: &usize| {
            let tracker = &self.trackers[index];
            tracker.busy.is_none() && !tracker.never && self.is_turn_of(index)
        };
        let next = (0..self.trackers.len()).filter(waits).map(|index| self.trackers[index].next).min();
        let scrapes = (0..self.trackers.len()).filter(|&index| self.is_scraped(index));
        let scrape = scrapes.map(|index| self.trackers[index].scrape.due()).min().unwrap_or(Time::NEVER);
        next.filter(|_| self.running).unwrap_or(Time::NEVER).min(scrape)
    }

    /// The trackers' addresses by tier, in the order they are tried.
    #[must_use]
    pub fn urls(&self) -> Vec<Vec<String>> {
        let urls = |tier: &Vec<usize>| tier.iter().map(|&tracker| self.trackers[tracker].url.clone()).collect();
        self.tiers.iter().map(urls).collect()
    }

    /// It has a tracker at all.
    pub(crate) fn has_trackers(&self) -> bool {
        !self.trackers.is_empty()
    }

    /// The most complete peers that a tracker knows.
    #[must_use]
    pub fn seeders(&self) -> Option<u32> {
        self.trackers.iter().filter_map(|tracker| tracker.seeders).max()
    }

    /// What the user sees.
    #[must_use]
    pub fn rows(&self, now: Time) -> Vec<TrackerRow> {
        let row = |tracker: &Tracker| TrackerRow {
            tier: tracker.tier,
            url: shown(&tracker.url),
            state: match tracker {
                _ if tracker.busy.is_some() => "announcing",
                _ if tracker.failures > 0 || tracker.never => "failed",
                _ if tracker.started => "working",
                _ => "idle",
            },
            next: (self.running && !tracker.next.is_never() && !tracker.never)
                .then(|| tracker.next.since(now).as_secs()),
            seeders: tracker.seeders,
            leechers: tracker.leechers,
            downloaded: tracker.downloaded,
            peers: tracker.peers,
            message: tracker.message.clone(),
        };
        self.trackers.iter().map(row).collect()
    }

    /// An announce is under way or should be made.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.asks.is_empty() || self.trackers.iter().any(|tracker| tracker.busy.is_some())
    }
}

/// A stranger's text, short and without control bytes.
fn shown(text: &str) -> String {
    let text = text.trim_end_matches(|c: char| c.is_control() || c.is_whitespace());
    text.chars().take(256).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
