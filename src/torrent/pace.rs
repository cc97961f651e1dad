//! Whether a torrent that has a turn makes use of it: one that hardly moves for long is slow, and others get a turn beside it.
//!
//! It is looked at in ticks, which are there only while there are peers, and once more when the time is up: who sleeps costs nothing.

use std::time::Duration;

use crate::base::time::Time;
use crate::torrent::torrent::Torrent;

/// A torrent that moves fewer bytes a second
pub const SLOW_RATE_BYTES: u64 = 4 * 1024;
/// for so long is slow,
pub const SLOW_AFTER: Duration = Duration::from_mins(1);
/// until it moves so many bytes a second, twice as many so that nobody comes and goes around one rate,
pub const BUSY_RATE_BYTES: u64 = 2 * SLOW_RATE_BYTES;
/// for so long.
pub const BUSY_AFTER: Duration = Duration::from_secs(10);

/// The pace of one torrent.
#[derive(Debug)]
pub(crate) struct Pace {
    slow: bool,
    /// When it becomes the other, if its rate stays as it is.
    at: Time,
}

impl Default for Pace {
    fn default() -> Self {
        Self { slow: false, at: Time::NEVER }
    }
}

impl Pace {
    /// It begins with something: it has its time.
    fn begin(&mut self, now: Time) {
        *self = Self { slow: false, at: now + SLOW_AFTER };
    }

    /// It moves at this rate; true if it is slow now and was not, or the other way round.
    fn look(&mut self, now: Time, rate_bytes: u64) -> bool {
        match (self.slow, rate_bytes) {
            (false, SLOW_RATE_BYTES..) => self.at = now + SLOW_AFTER,
            (true, ..BUSY_RATE_BYTES) => self.at = Time::NEVER,
            (true, _) if self.at.is_never() => self.at = now + BUSY_AFTER,
            _ if now >= self.at => {
                self.slow = !self.slow;
                self.at = if self.slow { Time::NEVER } else { now + SLOW_AFTER };
                return true;
            }
            _ => {}
        }
        false
    }

    /// When to look though nothing moves. Who is slow and moves has peers, and ticks.
    pub(crate) fn poll_timeout(&self) -> Time {
        if self.slow { Time::NEVER } else { self.at }
    }
}

impl Torrent {
    /// True if it has a turn and hardly makes use of it.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.pace.slow
    }

    /// It begins to download, or to seed.
    pub(crate) fn begin_pace(&mut self, now: Time) {
        self.pace.begin(now);
    }

    /// It stops.
    pub(crate) fn end_pace(&mut self) {
        self.pace = Pace::default();
    }

    /// Looks at how much moves, in the direction that it is here for.
    pub(crate) fn consider_pace(&mut self, now: Time) {
        let meter = if self.is_finished() { &self.up } else { &self.down };
        if self.running && self.pace.look(now, meter.rate_bytes(now)) {
            self.turn_changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_slow_after_a_minute_of_next_to_nothing_and_no_more_after_ten_seconds_of_something() {
        let mut pace = Pace::default();
        pace.begin(Time::ZERO);
        let mut flips = Vec::new();
        for second in 1..400 {
            let rate = match second {
                0..30 | 200..205 | 215..300 => BUSY_RATE_BYTES,
                // Between the two rates everything stays as it is.
                300..360 => SLOW_RATE_BYTES,
                205..210 => SLOW_RATE_BYTES,
                _ => 100,
            };
            if pace.look(Time::from_secs(second), rate) {
                flips.push((second, pace.slow));
            }
        }
        assert_eq!(flips, [(89, true), (225, false)]);
        assert_eq!(pace.poll_timeout(), Time::from_secs(359) + SLOW_AFTER);
    }

    #[test]
    fn who_is_slow_wakes_nobody() {
        let mut pace = Pace::default();
        pace.begin(Time::ZERO);
        assert_eq!(pace.poll_timeout(), Time::ZERO + SLOW_AFTER);
        assert!(pace.look(Time::ZERO + SLOW_AFTER, 0));
        assert!(pace.poll_timeout().is_never());
    }
}
