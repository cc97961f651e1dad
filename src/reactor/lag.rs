//! How long rounds take: the loop's own pulse, and the first thing to look at when something stutters.

use std::time::Duration;

/// Buckets an octave; so a figure is at most a quarter too high.
const STEPS: u32 = 4;
/// Octaves of microseconds: the last bucket takes all above a minute.
const OCTAVES: u32 = 26;

/// A histogram of durations with buckets that grow by a factor.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: [u64; (STEPS * OCTAVES) as usize],
    total: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; (STEPS * OCTAVES) as usize], total: 0, max: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&mut self, length: Duration) {
        self.total += 1;
        self.max = self.max.max(length);
        let last = self.counts.len() - 1;
        self.counts[bucket(length).min(last)] += 1;
    }

    /// How many were counted.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    /// The longest.
    pub(crate) const fn max(&self) -> Duration {
        self.max
    }

    /// How many were shorter than 2 to the `octave` microseconds.
    pub(crate) fn below(&self, octave: u32) -> u64 {
        self.counts[..(octave.min(OCTAVES) * STEPS) as usize].iter().sum()
    }

    /// A bound below which `percent` of all lie; zero if there are none.
    pub(crate) fn percentile(&self, percent: u64) -> Duration {
        let rank = (u128::from(self.total) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= rank && *count > 0 && index + 1 < self.counts.len() {
                return upper_bound(index).min(self.max);
            }
        }
        self.max
    }
}

/// The bucket of a length: its octave of microseconds, and which quarter of it.
fn bucket(length: Duration) -> usize {
    let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    // The two bits below the leading one.
    let quarter = if octave >= 2 { (micros >> (octave - 2)) & 3 } else { (micros << (2 - octave)) & 3 };
    (octave * STEPS) as usize + usize::try_from(quarter).expect("two bits")
}

/// The length at which the next bucket begins.
fn upper_bound(index: usize) -> Duration {
    let (octave, quarter) = (index / STEPS as usize, index % STEPS as usize);
    Duration::from_nanos(((quarter as u64 + 5) * 1000) << octave >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_close_from_above() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(99), Duration::ZERO);
        (1..=1000).for_each(|micros| histogram.add(Duration::from_micros(micros)));
        let (half, most) = (histogram.percentile(50), histogram.percentile(99));
        assert!((500..=625).contains(&half.as_micros()), "{half:?}");
        assert!((990..=1000).contains(&most.as_micros()), "{most:?}");
        assert_eq!((histogram.max(), histogram.total()), (Duration::from_millis(1), 1000));
        assert_eq!([0, 1, 6, 10].map(|octave| histogram.below(octave)), [0, 1, 63, 1000]);
    }

    #[test]
    fn any_length_has_a_bucket() {
        let mut histogram = Histogram::default();
        histogram.add(Duration::ZERO);
        histogram.add(Duration::MAX);
        assert_eq!(histogram.percentile(100), Duration::MAX);
        assert_eq!(histogram.total(), 2);
    }
}
