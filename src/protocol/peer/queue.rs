//! Blocks in the order in which they were asked for, each of them once: the queue of what a peer asks us, and those of what we ask it.
//!
//! A queue holds some hundred blocks, and a peer can make us look for each of them many times. So a block is found by itself, not by a
//! pass over the queue.

use std::collections::BTreeMap;

use crate::base::geometry::Block;
use crate::base::steps;

/// A queue of blocks, with something noted for each. Invariant: `order` and `places` hold the same blocks.
#[derive(Debug)]
pub(super) struct BlockQueue<T> {
    order: BTreeMap<u64, (Block, T)>,
    places: BTreeMap<Block, u64>,
    next: u64,
}

impl<T> Default for BlockQueue<T> {
    fn default() -> Self {
        Self { order: BTreeMap::new(), places: BTreeMap::new(), next: 0 }
    }
}

impl<T> BlockQueue<T> {
    /// How many blocks are queued.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// True if no block is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// True if `block` is queued.
    pub(super) fn contains(&self, block: Block) -> bool {
        steps::add(1);
        self.places.contains_key(&block)
    }

    /// What was noted for `block`, if it is queued.
    pub(super) fn get(&self, block: Block) -> Option<&T> {
        steps::add(1);
        let place = self.places.get(&block)?;
        self.order.get(place).map(|(_, noted)| noted)
    }

    /// Queues `block` at the end; false if it is queued already.
    pub(super) fn push(&mut self, block: Block, noted: T) -> bool {
        if self.contains(block) {
            return false;
        }
        steps::add(2);
        self.places.insert(block, self.next);
        self.order.insert(self.next, (block, noted));
        self.next += 1;
        true
    }

    /// The first block, and what was noted for it.
    pub(super) fn first(&self) -> Option<(Block, &T)> {
        self.order.first_key_value().map(|(_, (block, noted))| (*block, noted))
    }

    /// Takes the first block out.
    pub(super) fn pop_first(&mut self) {
        if let Some((_, (block, _))) = self.order.pop_first() {
            self.places.remove(&block);
        }
    }

    /// Takes `block` out; false if it is not queued.
    pub(super) fn remove(&mut self, block: Block) -> bool {
        steps::add(2);
        let Some(place) = self.places.remove(&block) else { return false };
        self.order.remove(&place).is_some()
    }

    /// Takes those out that are `meant`, and returns them in order.
    pub(super) fn take_where(&mut self, mut meant: impl FnMut(Block, &T) -> bool) -> Vec<Block> {
        steps::add(self.len());
        let taken: Vec<Block> =
            self.order.extract_if(.., |_, (block, noted)| meant(*block, noted)).map(|(_, (block, _))| block).collect();
        for block in &taken {
            self.places.remove(block);
        }
        taken
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
