//! When a tracker is asked for the counts of a swarm without an announce (BEP 48; the scrape of BEP 15).
//!
//! It is the clock of one tracker: counts that came with an announce put the next scrape off, failures do so more and more. Whether
//! one is wanted at all is the announces' to say.

use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::http_tracker::{Failure, RetryIn};
use crate::codec::url::TrackerUrl;
use crate::protocol::tracker::{ScrapeOutcome, TrackerError};

/// Between two scrapes of one tracker: at least, and at most after failures or by the tracker's wish.
const INTERVAL: (Duration, Duration) = (Duration::from_secs(30 * 60), Duration::from_secs(24 * 3600));
/// The first one comes so soon at least, and at most: torrents that are restored together do not ask together.
const FIRST_SECS: (u64, u64) = (60, 600);

/// A scrape that should be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrapeAsk {
    /// Which tracker, as `Announces::handle_scraped` is told.
    pub tracker: usize,
    /// Its address for scrapes.
    pub url: String,
}

/// The clock of one tracker.
#[derive(Debug)]
pub(super) struct ScrapeClock {
    /// Never, if its address has no scrape.
    due: Time,
    busy: bool,
    failures: u32,
}

impl ScrapeClock {
    pub(super) fn new(now: Time, url: &str, rng: &mut Rng) -> Self {
        let first = Duration::from_secs(FIRST_SECS.0 + rng.below(FIRST_SECS.1 - FIRST_SECS.0));
        let due = if scrape_url(url).is_some() { now + first } else { Time::NEVER };
        Self { due, busy: false, failures: 0 }
    }

    /// When one may be made; never while one is under way.
    pub(super) fn due(&self) -> Time {
        if self.busy { Time::NEVER } else { self.due }
    }

    /// One is made of the tracker at `url`: where.
    pub(super) fn begin(&mut self, url: &str) -> String {
        self.busy = true;
        scrape_url(url).expect("only what has a scrape is ever due")
    }

    /// Fresh counts came with an announce.
    pub(super) fn refreshed(&mut self, now: Time) {
        self.put_off(now + INTERVAL.0);
    }

    /// The tracker wants to hear nothing before `until`.
    pub(super) fn put_off(&mut self, until: Time) {
        self.due = self.due.max(until);
    }

    /// One has ended.
    pub(super) fn handle_outcome(&mut self, now: Time, outcome: &ScrapeOutcome) {
        self.busy = false;
        let wait = match outcome {
            Ok(answer) => {
                self.failures = 0;
                Duration::from_secs(u64::from(answer.min_interval.unwrap_or(0)))
            }
            Err(error) => {
                self.failures += 1;
                let longer = INTERVAL.0 * 2_u32.saturating_pow(self.failures.min(10));
                match error {
                    TrackerError::Failure(Failure { retry_in: Some(RetryIn::Never), .. }) => {
                        self.due = Time::NEVER;
                        return;
                    }
                    TrackerError::Failure(Failure { retry_in: Some(RetryIn::Minutes(minutes)), .. }) => {
                        longer.max(Duration::from_secs(u64::from(*minutes) * 60))
                    }
                    _ => longer,
                }
            }
        };
        self.due = now + wait.clamp(INTERVAL.0, INTERVAL.1);
    }
}

fn scrape_url(url: &str) -> Option<String> {
    Some(TrackerUrl::parse(url).ok()?.scrape()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::http_tracker::ScrapeAnswer;

    fn clock(url: &str) -> ScrapeClock {
        ScrapeClock::new(Time::ZERO, url, &mut Rng::from_number(1))
    }

    fn refusal(retry_in: RetryIn) -> TrackerError {
        TrackerError::Failure(Failure { reason: String::new(), retry_in: Some(retry_in) })
    }

    #[test]
    fn an_address_without_a_scrape_is_never_due() {
        for url in ["http://t/a", "http://t/", "nonsense"] {
            assert!(clock(url).due().is_never(), "{url}");
        }
        for (url, scrape) in [
            ("http://t/p/announce?k=1", "http://t:80/p/scrape?k=1"),
            ("udp://t:6969/announce", "udp://t:6969/announce"),
        ] {
            let mut clock = clock(url);
            assert!((Time::from_secs(60)..Time::from_secs(600)).contains(&clock.due()), "{:?}", clock.due());
            assert_eq!(clock.begin(url), scrape);
            assert!(clock.due().is_never(), "one is under way");
        }
    }

    #[test]
    fn two_scrapes_are_never_closer_than_the_bound_nor_further_apart_than_the_other() {
        let mut clock = clock("udp://t:1");
        let outcomes = [
            (Ok(ScrapeAnswer::default()), 1800),
            (Ok(ScrapeAnswer { min_interval: Some(5), ..ScrapeAnswer::default() }), 1800),
            (Ok(ScrapeAnswer { min_interval: Some(7200), ..ScrapeAnswer::default() }), 7200),
            (Ok(ScrapeAnswer { min_interval: Some(u32::MAX), ..ScrapeAnswer::default() }), 24 * 3600),
            (Err(TrackerError::Timeout), 3600),
            (Err(TrackerError::Timeout), 7200),
            (Err(TrackerError::Timeout), 14400),
            (Err(refusal(RetryIn::Minutes(600))), 36000),
            (Err(refusal(RetryIn::Minutes(1))), 57600),
        ];
        for (outcome, secs) in outcomes {
            clock.begin("udp://t:1");
            clock.handle_outcome(Time::ZERO, &outcome);
            assert_eq!(clock.due(), Time::from_secs(secs), "{outcome:?}");
        }
        for _ in 0..40 {
            clock.handle_outcome(Time::ZERO, &Err(TrackerError::Timeout));
        }
        assert_eq!(clock.due(), Time::from_secs(24 * 3600));
        clock.handle_outcome(Time::ZERO, &Err(refusal(RetryIn::Never)));
        clock.refreshed(Time::ZERO);
        assert!(clock.due().is_never());
    }
}
