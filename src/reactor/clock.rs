//! The clock: the one place of the programs that reads it.
//!
//! Everything below is handed a [`Time`]. Calendar time is read once, at the start; what needs it later adds the two, so that a
//! clock set back while we run moves nothing. Only schedules go by what calendars say now: `calendar`.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::base::time::Time;

/// Counts from the moment it was made.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    unix_nanos: u64,
}

impl Clock {
    /// A clock that shows [`Time::ZERO`] now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the driver's clock")]
    pub fn start() -> Self {
        // A machine that believes to live before 1970 starts at its epoch; only what people are shown suffers.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), unix_nanos: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// The time since the start. Never goes back; stands still while the machine sleeps.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the driver's clock")]
    pub fn now(&self) -> Time {
        Time::ZERO + Instant::now().duration_since(self.start)
    }

    /// What calendars said at the start: nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_nanos(&self) -> u64 {
        self.unix_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_near_zero_and_never_goes_back() {
        let clock = Clock::start();
        let (first, second) = (clock.now(), clock.now());
        assert!(first <= second);
        assert!(second < Time::from_secs(60), "{second:?}");
        assert!(clock.unix_nanos() > 1_700_000_000_000_000_000, "after 2023");
    }
}
