//! Blocks in the order in which they were asked for, each of them once: the queue of what a peer asks us, and those of what we ask it.
//!
//! A queue holds some hundred blocks, and a peer can make us look for each of them many times. So a block is found by itself, not by a
//! pass over the queue.

use std::collections::VecDeque;

use crate::base::geometry::Block;
use crate::base::steps;

/// Entries of blocks that were taken out may make up half of `order`, and so many more.
const HOLES_MAX: usize = 64;

/// A queue of blocks, with something noted for each. It allocates nothing once it has been as long as it gets.
///
/// Invariants: `order` and `places` hold the same blocks; `order` begins and ends with a block, if it is not empty.
#[derive(Debug)]
pub(super) struct BlockQueue<T> {
    /// `None` where a block was taken out.
    order: VecDeque<Option<(Block, T)>>,
    /// The number of the first entry of `order`.
    first: u64,
    /// The number of each block's entry, by block.
    places: Vec<(Block, u64)>,
}

impl<T> Default for BlockQueue<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), first: 0, places: Vec::new() }
    }
}

impl<T> BlockQueue<T> {
    /// How many blocks are queued.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// True if no block is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where `block` is in `places`, or would be.
    fn find(&self, block: Block) -> Result<usize, usize> {
        self.places.binary_search_by_key(&block, |(block, _)| *block)
    }

    /// The index in `order` of the entry with this number.
    fn index(&self, place: u64) -> usize {
        usize::try_from(place - self.first).expect("an index of an entry")
    }

    /// True if `block` is queued.
    pub(super) fn contains(&self, block: Block) -> bool {
        steps::add(1);
        self.find(block).is_ok()
    }

    /// What was noted for `block`, if it is queued.
    pub(super) fn get(&self, block: Block) -> Option<&T> {
        steps::add(1);
        let (_, place) = self.places[self.find(block).ok()?];
        self.order[self.index(place)].as_ref().map(|(_, noted)| noted)
    }

    /// Queues `block` at the end; false if it is queued already.
    pub(super) fn push(&mut self, block: Block, noted: T) -> bool {
        let Err(at) = self.find(block) else { return false };
        steps::add_bytes((self.places.len() - at) * size_of::<(Block, u64)>());
        self.places.insert(at, (block, self.first + self.order.len() as u64));
        self.order.push_back(Some((block, noted)));
        true
    }

    /// The first block, and what was noted for it.
    pub(super) fn first(&self) -> Option<(Block, &T)> {
        self.order.front()?.as_ref().map(|(block, noted)| (*block, noted))
    }

    /// Takes the first block out.
    pub(super) fn pop_first(&mut self) {
        if let Some((block, _)) = self.first() {
            self.remove(block);
        }
    }

    /// Takes `block` out; false if it is not queued.
    pub(super) fn remove(&mut self, block: Block) -> bool {
        let Ok(at) = self.find(block) else { return false };
        steps::add_bytes((self.places.len() - at) * size_of::<(Block, u64)>());
        let (_, place) = self.places.remove(at);
        let index = self.index(place);
        self.order[index] = None;
        self.tidy();
        true
    }

    /// Takes those out that are `meant`, and returns them in order.
    pub(super) fn take_where(&mut self, mut meant: impl FnMut(Block, &T) -> bool) -> Vec<Block> {
        steps::add(2 * self.order.len());
        let mut taken = Vec::new();
        for entry in &mut self.order {
            if let Some((block, _)) = entry.take_if(|(block, noted)| meant(*block, noted)) {
                taken.push(block);
            }
        }
        let (order, first) = (&self.order, self.first);
        self.places.retain(|(_, place)| order[usize::try_from(place - first).expect("an index of an entry")].is_some());
        self.tidy();
        taken
    }

    /// Gives its memory back, if no block is queued.
    pub(super) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// Takes out the entries of blocks that are gone: those at both ends, and all if there are many.
    fn tidy(&mut self) {
        while self.order.pop_front_if(|entry| entry.is_none()).is_some() {
            self.first += 1;
        }
        while self.order.pop_back_if(|entry| entry.is_none()).is_some() {}
        if self.order.len() > 2 * self.places.len() + HOLES_MAX {
            steps::add(2 * self.order.len());
            self.order.retain(Option::is_some);
            for (entry, place) in self.order.iter().zip(self.first..) {
                let (block, _) = entry.as_ref().expect("those without a block were taken out");
                let at = self.find(*block).expect("both hold the same blocks");
                self.places[at].1 = place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::geometry::Piece;

    fn block(piece: u32) -> Block {
        Block { piece: Piece(piece), offset: 0, len: 16_384 }
    }

    #[test]
    fn queue_keeps_the_order_and_each_block_once() {
        let mut queue = BlockQueue::default();
        assert!(queue.push(block(3), 'a') && queue.push(block(1), 'b') && queue.push(block(2), 'c'));
        assert!(!queue.push(block(1), 'd'));
        assert_eq!((queue.len(), queue.first(), queue.get(block(1))), (3, Some((block(3), &'a')), Some(&'b')));
        assert!(queue.remove(block(3)) && !queue.remove(block(3)) && !queue.contains(block(3)));
        assert_eq!(queue.take_where(|_, noted| *noted != 'b'), [block(2)]);
        queue.pop_first();
        assert!(queue.is_empty() && !queue.contains(block(1)) && queue.first().is_none());
    }

    #[test]
    fn blocks_are_found_without_a_pass_over_the_queue() {
        let mut queue = BlockQueue::default();
        assert!((0..2000).all(|piece| queue.push(block(piece), ())));
        steps::take();
        assert!((0..2000).rev().all(|piece| queue.remove(block(piece))));
        assert!(queue.is_empty() && steps::take() <= 2000 * 4);
    }
}
