//! Who sent the corrupt block: found by comparing a failed piece with the good one that follows it.
//!
//! A failed piece with one sender has a guilty one at once. Otherwise the sender and a checksum of every block are kept, the
//! piece is fetched again from one peer alone (from none of the senders, if another has it), and whoever sent a block that
//! differs from the good one is guilty. Nobody else is.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::base::geometry::Piece;
use crate::torrent::partial::BlockSource;

/// Failed pieces that are remembered; the oldest is forgotten beyond it.
pub const FAILURES_MAX: usize = 64;

/// Blocks of all failed pieces that are remembered; beyond it the oldest piece is forgotten (one is always kept).
const FAILED_BLOCKS_MAX: usize = 64 * 1024;

/// Failed pieces whose senders are not yet told apart.
#[derive(Debug, Default)]
pub struct Blame {
    failures: VecDeque<Failure>,
}

#[derive(Debug)]
struct Failure {
    piece: Piece,
    blocks: Vec<BlockSource>,
    /// Everybody who sent one of the blocks, once; none for what was on the disk.
    senders: Vec<Option<SocketAddr>>,
}

impl Blame {
    /// True if `piece` has failed with more than one sender: ask one peer for all of it.
    #[must_use]
    pub fn is_suspect(&self, piece: Piece) -> bool {
        self.failures.iter().any(|failure| failure.piece == piece)
    }

    /// True if `piece` has failed and `addr` sent a part of it.
    #[must_use]
    pub fn is_suspected(&self, piece: Piece, addr: SocketAddr) -> bool {
        self.suspected(addr).any(|failed| failed == piece)
    }

    /// The failed pieces of which `addr` sent a part: better asked of somebody else.
    pub fn suspected(&self, addr: SocketAddr) -> impl Iterator<Item = Piece> + '_ {
        self.failures.iter().filter(move |failure| failure.senders.contains(&Some(addr))).map(|failure| failure.piece)
    }

    /// `piece` did not match its hash. Returns who is guilty beyond doubt.
    pub fn handle_failed(&mut self, piece: Piece, blocks: Vec<BlockSource>) -> Option<SocketAddr> {
        let mut senders: Vec<Option<SocketAddr>> = blocks.iter().map(|block| block.from).collect();
        senders.sort_unstable();
        senders.dedup();
        if let [only] = senders[..] {
            return only; // none if it all came from the disk
        }
        self.failures.push_back(Failure { piece, blocks, senders });
        let blocks = |failures: &VecDeque<Failure>| failures.iter().map(|failure| failure.blocks.len()).sum::<usize>();
        while self.failures.len() > FAILURES_MAX
            || self.failures.len() > 1 && blocks(&self.failures) > FAILED_BLOCKS_MAX
        {
            self.failures.pop_front();
        }
        None
    }

    /// `piece` matched its hash. Returns everybody who sent another block than the good one before.
    pub fn handle_passed(&mut self, piece: Piece, blocks: &[BlockSource]) -> Vec<SocketAddr> {
        let mut guilty = Vec::new();
        for failure in self.failures.iter().filter(|failure| failure.piece == piece) {
            let differs = |(old, good): &(&BlockSource, &BlockSource)| good.from.is_some() && old.crc != good.crc;
            guilty.extend(failure.blocks.iter().zip(blocks).filter(differs).filter_map(|(old, _)| old.from));
        }
        self.failures.retain(|failure| failure.piece != piece);
        guilty.sort_unstable();
        guilty.dedup();
        guilty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 1))
    }

    fn blocks(of: &[(u8, u32)]) -> Vec<BlockSource> {
        of.iter().map(|&(from, crc)| BlockSource { from: (from > 0).then(|| addr(from)), crc }).collect()
    }

    #[test]
    fn the_only_sender_of_a_corrupt_piece_is_guilty_at_once() {
        let mut blame = Blame::default();
        assert_eq!(blame.handle_failed(Piece(1), blocks(&[(3, 1), (3, 2)])), Some(addr(3)));
        assert!(!blame.is_suspect(Piece(1)));
    }

    #[test]
    fn of_several_senders_the_one_whose_block_differs_is_guilty() {
        let mut blame = Blame::default();
        assert_eq!(blame.handle_failed(Piece(1), blocks(&[(1, 10), (2, 66), (3, 30), (0, 5)])), None);
        assert!(blame.is_suspect(Piece(1)));
        assert!([1, 2, 3].iter().all(|&number| blame.suspected(addr(number)).eq([Piece(1)])));
        assert_eq!(blame.suspected(addr(4)).count(), 0);
        assert_eq!(blame.handle_passed(Piece(1), &blocks(&[(4, 10), (4, 20), (4, 30), (4, 40)])), [addr(2)]);
        assert!(!blame.is_suspect(Piece(1)));
        assert_eq!(blame.handle_passed(Piece(1), &blocks(&[(4, 11), (4, 21), (4, 31), (4, 41)])), []);
    }

    #[test]
    fn what_was_on_the_disk_blames_nobody() {
        let mut blame = Blame::default();
        assert_eq!(blame.handle_failed(Piece(0), blocks(&[(0, 1), (0, 2)])), None);
        assert_eq!(blame.handle_failed(Piece(0), blocks(&[(0, 1), (2, 2)])), None);
        assert_eq!(blame.handle_passed(Piece(0), &blocks(&[(3, 9), (3, 2)])), []);
    }

    #[test]
    fn failures_are_forgotten_beyond_their_bound() {
        let mut blame = Blame::default();
        for piece in 0..1000 {
            blame.handle_failed(Piece(piece), blocks(&[(1, 0), (2, 0)]));
        }
        assert_eq!(blame.failures.len(), FAILURES_MAX);
        assert!(!blame.is_suspect(Piece(0)) && blame.is_suspect(Piece(999)));
        let long = [(1, 0), (2, 0)].repeat(FAILED_BLOCKS_MAX / 4);
        (0..5).for_each(|piece| _ = blame.handle_failed(Piece(piece), blocks(&long)));
        assert!(blame.failures.len() == 2 && blame.is_suspect(Piece(4)));
    }
}
