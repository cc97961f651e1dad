//! The clock: the one place of the programs that reads it.
//!
//! Everything below is handed a [`Time`], and waits and lasts by that alone. What calendars say is read beside it, so that the engine
//! can be told when somebody has set them, or when the machine has slept; only dates and ages go by that. Schedules go by what
//! calendars say where people live: `calendar`.

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
        Self { start: Instant::now(), unix_nanos: unix_nanos() }
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

/// What calendars say now: nanoseconds since the Unix epoch.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the driver's clock")]
pub fn unix_nanos() -> u64 {
    // A machine that believes to live before 1970 lives at its epoch; only what people are shown suffers.
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX)
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
