//! Who waits for something, each once, in the order they came.

use std::collections::BTreeMap;

/// A queue of distinct things. Whatever is done to it takes logarithmic time, also to take one out of the middle.
#[derive(Debug)]
pub struct Queue<T> {
    order: BTreeMap<u64, T>,
    places: BTreeMap<T, u64>,
    next: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), places: BTreeMap::new(), next: 0 }
    }
}

impl<T: Ord + Copy> Queue<T> {
    /// Puts `item` at the end, unless it waits already.
    pub fn push(&mut self, item: T) {
        if let std::collections::btree_map::Entry::Vacant(place) = self.places.entry(item) {
            place.insert(self.next);
            self.order.insert(self.next, item);
            self.next += 1;
        }
    }

    /// Takes the one out that came first.
    pub fn pop(&mut self) -> Option<T> {
        let (_, item) = self.order.pop_first()?;
        self.places.remove(&item);
        Some(item)
    }

    /// Takes `item` out, wherever it is.
    pub fn remove(&mut self, item: T) {
        if let Some(place) = self.places.remove(&item) {
            self.order.remove(&place);
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// True if nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_and_is_served_in_the_order_they_came() {
        let mut queue = Queue::default();
        [3, 1, 2, 3, 4].into_iter().for_each(|item| queue.push(item));
        queue.remove(2);
        queue.remove(9);
        assert_eq!((queue.pop(), queue.len()), (Some(3), 2));
        queue.push(3);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [1, 4, 3]);
        assert!(queue.is_empty());
    }
}
