//! Rates: measuring them (`Meter`), limiting them (`Bucket`), and what one turn may move (`Budget`).

use std::time::Duration;

use crate::base::time::Time;

/// How long a meter looks back.
const METER_WINDOW: Duration = Duration::from_secs(5);

/// Bytes a second, exponentially weighted over about five seconds, and the total ever counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter {
    total_bytes: u64,
    /// Bytes a second at `at`.
    rate_bytes: f64,
    at: Time,
    /// Counted since `at`.
    fresh_bytes: u64,
}

/// Counts are folded into the rate at most this often, so that counting is an addition.
const METER_STEP: Duration = Duration::from_millis(250);

impl Meter {
    /// Counts `bytes`.
    pub fn add(&mut self, now: Time, bytes: u64) {
        self.total_bytes += bytes;
        self.fresh_bytes += bytes;
        if now.since(self.at) >= METER_STEP {
            self.fold(now);
        }
    }

    fn fold(&mut self, now: Time) {
        self.rate_bytes = self.rate_at(now);
        self.fresh_bytes = 0;
        self.at = now;
    }

    fn rate_at(&self, now: Time) -> f64 {
        let elapsed = now.since(self.at).as_secs_f64();
        if elapsed <= 0.0 {
            return self.rate_bytes;
        }
        let keep = (-elapsed / METER_WINDOW.as_secs_f64()).exp();
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
        let fresh_rate = self.fresh_bytes as f64 / elapsed;
        self.rate_bytes * keep + fresh_rate * (1.0 - keep)
    }

    /// Bytes a second lately.
    #[must_use]
    pub fn rate_bytes(&self, now: Time) -> u64 {
        // Shortly after a fold there is too little to divide by: the folded value is the better one.
        let rate = if now.since(self.at) < METER_STEP { self.rate_bytes } else { self.rate_at(now) };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is positive and below 2^53"
        )]
        let rate = rate as u64;
        rate
    }

    /// Bytes ever counted.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

/// A rate limit: fills steadily, holds at most a quarter of a second's worth (16 KiB at least). No limit at all if it
/// has no rate. What was used beyond its contents is owed and paid back first, so that rates are exact over time.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// Bytes a second; none is no limit.
    rate_bytes: Option<u64>,
    /// May be negative: owed.
    level_bytes: i64,
    filled_at: Time,
    /// Nanosecond-bytes not yet worth a byte, so that frequent fills lose nothing.
    remainder: u64,
}

const NANOS: u64 = 1_000_000_000;
/// A bucket holds at least one block with its head.
const BUCKET_MIN_BYTES: u64 = 17 * 1024;
/// A bucket's contents: its rate divided by this.
const BUCKET_FRACTION: u64 = 10;

impl Bucket {
    /// A limit of `rate_bytes` a second; 0 is no limit. Starts empty.
    #[must_use]
    pub fn new(now: Time, rate_bytes: u64) -> Self {
        let rate_bytes = (rate_bytes > 0).then_some(rate_bytes);
        Self { rate_bytes, level_bytes: 0, filled_at: now, remainder: 0 }
    }

    /// Changes the rate; 0 is no limit.
    pub fn set_rate(&mut self, now: Time, rate_bytes: u64) {
        self.fill(now);
        self.rate_bytes = (rate_bytes > 0).then_some(rate_bytes);
        self.level_bytes = self.level_bytes.min(self.capacity());
        self.filled_at = now;
    }

    /// Bytes a second; 0 is no limit.
    #[must_use]
    pub fn rate_bytes(&self) -> u64 {
        self.rate_bytes.unwrap_or(0)
    }

    fn capacity(&self) -> i64 {
        let rate = self.rate_bytes.unwrap_or(0);
        i64::try_from((rate / BUCKET_FRACTION).max(BUCKET_MIN_BYTES)).unwrap_or(i64::MAX)
    }

    fn fill(&mut self, now: Time) {
        let Some(rate) = self.rate_bytes else { return };
        let elapsed = u128::from(now.as_nanos().saturating_sub(self.filled_at.as_nanos()));
        let earned = elapsed * u128::from(rate) + u128::from(self.remainder);
        self.filled_at = now;
        self.remainder = u64::try_from(earned % u128::from(NANOS)).expect("below a second");
        let whole = i64::try_from(earned / u128::from(NANOS)).unwrap_or(i64::MAX);
        self.level_bytes = self.level_bytes.saturating_add(whole).min(self.capacity());
    }

    /// How many bytes may move now; `u64::MAX` without a limit.
    pub fn available(&mut self, now: Time) -> u64 {
        if self.rate_bytes.is_none() {
            return u64::MAX;
        }
        self.fill(now);
        u64::try_from(self.level_bytes).unwrap_or(0)
    }

    /// Takes what moved, even if it is more than was there.
    pub fn take(&mut self, bytes: u64) {
        if self.rate_bytes.is_some() {
            self.level_bytes = self.level_bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// When `bytes` (at most what the bucket holds) will be available; `now` if they are.
    pub fn available_at(&mut self, now: Time, bytes: u64) -> Time {
        let Some(rate) = self.rate_bytes else { return now };
        self.fill(now);
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX).min(self.capacity());
        let missing = u128::try_from(wanted.saturating_sub(self.level_bytes)).unwrap_or(0);
        let nanos = (missing * u128::from(NANOS)).div_ceil(u128::from(rate));
        now + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What one turn of one connection may still move in one direction, in bytes. Counts only; time never ends a turn.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    left_bytes: usize,
}

impl Budget {
    /// A budget of `bytes`.
    #[must_use]
    pub const fn new(bytes: usize) -> Self {
        Self { left_bytes: bytes }
    }

    /// What may still be moved.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left_bytes
    }

    /// Takes what was moved; more than was left leaves nothing.
    pub const fn spend(&mut self, bytes: usize) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
    }

    /// True when the turn is over.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.left_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_follows_a_steady_rate_and_forgets() {
        let mut meter = Meter::default();
        for tick in 1..=400 {
            meter.add(Time::from_millis(tick * 100), 10_000);
        }
        let rate = meter.rate_bytes(Time::from_secs(40));
        assert!((95_000..=105_000).contains(&rate), "{rate}");
        assert_eq!(meter.total_bytes(), 4_000_000);
        assert!(meter.rate_bytes(Time::from_secs(80)) < 1000);
    }

    #[test]
    fn a_bucket_gives_exactly_its_rate_however_it_is_asked() {
        let mut bucket = Bucket::new(Time::ZERO, 1_000_000);
        let mut moved = 0;
        for step in 0..100_000_u64 {
            let now = Time::from_nanos(step * 100_000);
            let some = bucket.available(now).min(16_384);
            if some > 1000 {
                bucket.take(some + 13); // more than there was: owed
                moved += some + 13;
            }
        }
        assert!((9_900_000..=10_020_000).contains(&moved), "{moved} in ten seconds");
    }

    #[test]
    fn a_bucket_says_when_to_come_back() {
        let mut bucket = Bucket::new(Time::ZERO, 1000);
        assert_eq!(bucket.available_at(Time::ZERO, 500), Time::from_millis(500));
        bucket.take(500);
        assert_eq!(bucket.available_at(Time::ZERO, 500), Time::from_millis(1000));
        assert_eq!(Bucket::new(Time::ZERO, 0).available(Time::ZERO), u64::MAX);
    }
}
