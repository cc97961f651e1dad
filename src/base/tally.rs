//! How many of each there are.

use std::collections::BTreeMap;

/// Counts by key; who is counted no more takes no room.
#[derive(Debug)]
pub struct Tally<K> {
    counts: BTreeMap<K, u32>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { counts: BTreeMap::new() }
    }
}

impl<K: Ord> Tally<K> {
    /// How many of `key` there are.
    #[must_use]
    pub fn get(&self, key: &K) -> u32 {
        self.counts.get(key).copied().unwrap_or_default()
    }

    /// One more.
    pub fn add(&mut self, key: K) {
        *self.counts.entry(key).or_default() += 1;
    }

    /// One less.
    ///
    /// # Panics
    /// If there is none.
    pub fn remove(&mut self, key: &K) {
        let count = self.counts.get_mut(key).expect("who leaves has come");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(key);
        }
    }

    /// How many keys there is anything of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// True if there is nothing of any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_away_takes_no_room() {
        let mut tally = Tally::default();
        ["a", "b", "a"].into_iter().for_each(|key| tally.add(key));
        assert_eq!((tally.get(&"a"), tally.get(&"c"), tally.len()), (2, 0, 2));
        tally.remove(&"a");
        tally.remove(&"b");
        assert_eq!((tally.get(&"a"), tally.len()), (1, 1));
        tally.remove(&"a");
        assert!(tally.is_empty());
    }
}
