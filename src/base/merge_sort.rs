//! A merge sort in slices, for lists that are too long to be sorted in one call of the engine.

use std::cmp::Ordering;
use std::ops::Range;

use crate::base::steps::Allowance;

/// Items that are sorted at once, before anything is merged.
const RUN: usize = 32;

/// A list of indexes that is being sorted. Equal items keep the order of their indexes.
#[derive(Debug)]
pub struct MergeSort {
    items: Vec<u32>,
    /// What is still to come into `items`, while the first runs are made.
    rest: Range<u32>,
    /// Where runs are merged to; as long as what is merged of the current pass.
    merged: Vec<u32>,
    /// Length of the runs of `items`; 0 while the first runs are made, up to `start`.
    width: usize,
    /// The first item of the pair of runs that is being merged.
    start: usize,
    /// The next items of the two runs.
    next: (usize, usize),
}

impl MergeSort {
    /// Begins to sort `items`.
    #[must_use]
    pub const fn new(items: Vec<u32>) -> Self {
        Self { items, rest: 0..0, merged: Vec::new(), width: 0, start: 0, next: (0, 0) }
    }

    /// Begins to sort all numbers of a range.
    #[must_use]
    pub const fn of_range(rest: Range<u32>) -> Self {
        Self { items: Vec::new(), rest, merged: Vec::new(), width: 0, start: 0, next: (0, 0) }
    }

    /// Goes on until all is sorted (then returns true) or the allowance is spent. `compare` spends what a comparison costs.
    pub fn step(
        &mut self,
        allowance: &mut Allowance,
        mut compare: impl FnMut(&mut Allowance, u32, u32) -> Ordering,
    ) -> bool {
        while self.width == 0 {
            if allowance.is_spent() {
                return false;
            }
            if self.items.is_empty() {
                self.items.reserve_exact(self.rest.len());
            }
            if self.items.len() == self.start {
                self.items.extend(self.rest.by_ref().take(RUN));
            }
            let end = self.items.len().min(self.start + RUN);
            allowance.spend(end - self.start);
            self.items[self.start..end]
                .sort_unstable_by(|one, other| compare(allowance, *one, *other).then(one.cmp(other)));
            self.start = end;
            if end == self.items.len() && self.rest.is_empty() {
                self.width = RUN;
                self.begin_pass();
            }
        }
        let len = self.items.len();
        while self.width < len {
            let middle = len.min(self.start + self.width);
            let end = len.min(middle + self.width);
            while self.next.0 < middle || self.next.1 < end {
                if allowance.is_spent() {
                    return false;
                }
                allowance.spend(1);
                let takes_first = self.next.1 == end
                    || (self.next.0 < middle
                        && compare(allowance, self.items[self.next.0], self.items[self.next.1]) != Ordering::Greater);
                let from = if takes_first { &mut self.next.0 } else { &mut self.next.1 };
                self.merged.push(self.items[*from]);
                *from += 1;
            }
            self.start = end;
            if end == len {
                std::mem::swap(&mut self.items, &mut self.merged);
                self.width *= 2;
                self.begin_pass();
            } else {
                self.begin_pair();
            }
        }
        true
    }

    /// The items: sorted once [`MergeSort::step`] has returned true.
    #[must_use]
    pub fn items(&self) -> &[u32] {
        &self.items
    }

    /// The items, once they are sorted.
    #[must_use]
    pub fn into_items(self) -> Vec<u32> {
        self.items
    }

    fn begin_pass(&mut self) {
        self.merged.clear();
        self.merged.reserve_exact(self.items.len());
        self.start = 0;
        self.begin_pair();
    }

    fn begin_pair(&mut self) {
        self.next = (self.start, self.items.len().min(self.start + self.width));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(keys: &[u8], budget: u64) -> (Vec<u32>, usize) {
        let count = u32::try_from(keys.len()).unwrap();
        let mut sort =
            if budget.is_multiple_of(2) { MergeSort::new((0..count).collect()) } else { MergeSort::of_range(0..count) };
        let mut slices = 1;
        let compare = |allowance: &mut Allowance, one: u32, other: u32| {
            allowance.spend(1);
            keys[one as usize].cmp(&keys[other as usize])
        };
        while !sort.step(&mut Allowance::new(budget), compare) {
            slices += 1;
        }
        (sort.items().to_vec(), slices)
    }

    proptest! {
        #[test]
        fn sliced_sort_equals_a_stable_sort(keys in proptest::collection::vec(0..20_u8, 0..500), budget in 1..500_u64) {
            let mut expected: Vec<u32> = (0..u32::try_from(keys.len()).unwrap()).collect();
            expected.sort_by_key(|&index| keys[index as usize]);
            prop_assert_eq!(sorted(&keys, budget).0, expected);
        }
    }

    #[test]
    fn sort_is_sliced_by_its_allowance() {
        let keys: Vec<u8> = (0..10_000_u32).map(|number| u8::try_from(number * 7919 % 251).unwrap()).collect();
        assert_eq!(sorted(&keys, u64::MAX).1, 1);
        assert!(sorted(&keys, 1000).1 > 50);
    }
}
