//! Addresses that are not spoken with: ranges of both families, found in a few steps however many there are.

use std::net::IpAddr;

use crate::base::addr::canonical;

/// From the first to the last address, both of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: IpAddr,
    /// The last, which is not below it.
    pub last: IpAddr,
}

/// Ranges by their first address. Invariant: sorted, and none touches another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blocklist {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Blocklist {
    /// The list of all these ranges, in any order, whether they overlap or not. One whose ends are of two families, or stand the
    /// wrong way round, is nothing.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut list = Self::default();
        for range in ranges {
            match (range.first, range.last) {
                (IpAddr::V4(first), IpAddr::V4(last)) => list.v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => list.v6.push((first.to_bits(), last.to_bits())),
                _ => {}
            }
        }
        merge(&mut list.v4, |last| last.checked_add(1));
        merge(&mut list.v6, |last| last.checked_add(1));
        list
    }

    /// True if an address lies in one of them.
    #[must_use]
    pub fn blocks(&self, ip: IpAddr) -> bool {
        match canonical(ip) {
            IpAddr::V4(ip) => contains(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => contains(&self.v6, ip.to_bits()),
        }
    }

    /// How many ranges there are, once those that touch are one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// True if nobody is blocked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>, next: impl Fn(T) -> Option<T>) {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    ranges.dedup_by(|later, earlier| {
        let touches = next(earlier.1).is_none_or(|next| later.0 <= next);
        if touches {
            earlier.1 = earlier.1.max(later.1);
        }
        touches
    });
    ranges.shrink_to_fit();
}

fn contains<T: Ord + Copy>(ranges: &[(T, T)], ip: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= ip);
    after > 0 && ip <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(first: &str, last: &str) -> Range {
        Range { first: first.parse().unwrap(), last: last.parse().unwrap() }
    }

    #[test]
    fn ranges_that_touch_are_one_and_both_ends_belong_to_them() {
        let list = Blocklist::new([
            range("10.0.0.5", "10.0.0.9"),
            range("10.0.0.0", "10.0.0.4"),
            range("10.0.0.7", "10.0.0.20"),
            range("255.255.255.0", "255.255.255.255"),
            range("10.0.0.30", "10.0.0.29"),
            range("2001:db8::", "2001:db8::ff"),
        ]);
        assert_eq!(list.len(), 3);
        for blocked in ["10.0.0.0", "10.0.0.20", "255.255.255.255", "2001:db8::ff", "::ffff:10.0.0.7"] {
            assert!(list.blocks(blocked.parse().unwrap()), "{blocked}");
        }
        for free in ["9.255.255.255", "10.0.0.21", "10.0.0.29", "2001:db8::100", "::"] {
            assert!(!list.blocks(free.parse().unwrap()), "{free}");
        }
        assert!(Blocklist::default().is_empty() && !Blocklist::default().blocks("10.0.0.1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn it_blocks_what_a_plain_look_at_all_ranges_finds(
            ranges in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..20),
            ip in any::<u8>(),
        ) {
            let addr = |last: u8| IpAddr::from([255, 255, 255, last]);
            let list = Blocklist::new(ranges.iter().map(|(first, last)| Range { first: addr(*first), last: addr(*last) }));
            let is_in = ranges.iter().any(|(first, last)| (first..=last).contains(&&ip));
            prop_assert_eq!(list.blocks(addr(ip)), is_in);
        }
    }
}
