//! Who wants to be called when: one deadline a key, the earliest first.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::time::Time;

/// Deadlines by key. Setting one again moves it; [`Time::NEVER`] removes it.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    order: BTreeSet<(Time, K)>,
    deadlines: BTreeMap<K, Time>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self { order: BTreeSet::new(), deadlines: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Sets the deadline of `key`, whatever it was before.
    pub fn set(&mut self, key: K, at: Time) {
        if self.deadlines.get(&key) == Some(&at) {
            return;
        }
        self.remove(key);
        if !at.is_never() {
            self.deadlines.insert(key, at);
            self.order.insert((at, key));
        }
    }

    /// Forgets `key`.
    pub fn remove(&mut self, key: K) {
        if let Some(at) = self.deadlines.remove(&key) {
            self.order.remove(&(at, key));
        }
    }

    /// Takes the earliest key whose deadline has come; none if all are still ahead of `now`.
    pub fn pop(&mut self, now: Time) -> Option<K> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.remove(key);
        Some(key)
    }

    /// The earliest deadline; [`Time::NEVER`] if there is none.
    #[must_use]
    pub fn next(&self) -> Time {
        self.order.first().map_or(Time::NEVER, |&(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_the_order_of_their_latest_deadline() {
        let mut timers = Timers::default();
        timers.set('a', Time::from_secs(3));
        timers.set('b', Time::from_secs(2));
        timers.set('a', Time::from_secs(1));
        timers.set('c', Time::from_secs(9));
        timers.set('c', Time::NEVER);
        assert_eq!(timers.next(), Time::from_secs(1));
        assert_eq!(timers.pop(Time::ZERO), None);
        assert_eq!(timers.pop(Time::from_secs(5)), Some('a'));
        assert_eq!(timers.pop(Time::from_secs(5)), Some('b'));
        assert_eq!(timers.pop(Time::from_secs(99)), None);
        assert!(timers.next().is_never());
    }
}
