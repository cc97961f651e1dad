//! What a peer asked us for and has not got yet, and the pieces it may have although we choke it (BEP 6).
//!
//! Nothing is read here: the torrent looks at the front of the queue when there is room to send.

use std::net::Ipv4Addr;

use crate::base::geometry::{Block, Piece};
use crate::base::hash::{InfoHash, Sha1Hash};
use crate::protocol::peer::queue::BlockQueue;

/// Blocks that a peer may have asked us and not got. One more is refused; we say so as `reqq` (BEP 10). Transmission asks once
/// a second, so 512 of them would be 8 MiB/s and no more.
pub const UPLOADS_MAX: usize = 2048;
/// Pieces of an allowed-fast set, in either direction. Those beyond are neither announced nor heeded.
pub const ALLOWED_FAST_MAX: usize = 16;
/// How many pieces of the set we allow (BEP 6 has 10, but what they are given comes on top of what the slots give).
pub const ALLOWED_FAST_LEN: usize = 4;

/// The first `len` pieces that a peer at `ip` may have although it is choked: BEP 6's canonical set, the same from every
/// peer of the swarm. Fewer if the torrent has fewer pieces.
#[must_use]
pub fn allowed_fast_set(ip: Ipv4Addr, info_hash: InfoHash, pieces: u32, len: usize) -> Vec<Piece> {
    let len = len.min(pieces as usize).min(ALLOWED_FAST_MAX);
    let [a, b, c, _] = ip.octets();
    let mut set = Vec::with_capacity(len);
    let mut x = Sha1Hash::of(&[&[a, b, c, 0][..], &info_hash.0].concat());
    while set.len() < len {
        for word in x.0.as_chunks::<4>().0 {
            let piece = Piece(u32::from_be_bytes(*word) % pieces);
            if set.len() < len && !set.contains(&piece) {
                set.push(piece);
            }
        }
        x = Sha1Hash::of(&x.0);
    }
    set
}

/// The queue of one connection. No block twice.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// None for an idle peer, which there may be ten thousand of.
    waiting: Option<Box<BlockQueue<()>>>,
    /// What we allowed it; at most [`ALLOWED_FAST_MAX`].
    allowed: Vec<Piece>,
    /// Blocks that it may still have while it is choked: each of those pieces once.
    allowed_blocks: u32,
}

impl Uploads {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.len())
    }

    /// True if `block` waits already.
    pub(super) fn contains(&self, block: Block) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.contains(block))
    }

    /// True if no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= UPLOADS_MAX
    }

    /// Queues `block`; false if the queue is full. One that waits already is not queued twice.
    pub(super) fn push(&mut self, block: Block) -> bool {
        if self.contains(block) {
            return true;
        }
        let room = !self.is_full();
        if room {
            self.waiting.get_or_insert_default().push(block, ());
        }
        room
    }

    pub(super) fn next(&self) -> Option<Block> {
        self.waiting.as_ref()?.first().map(|(block, ())| block)
    }

    /// Takes `block` out; false if it is not there.
    pub(super) fn remove(&mut self, block: Block) -> bool {
        self.waiting.as_mut().is_some_and(|waiting| waiting.remove(block))
    }

    /// Takes out what a choked peer does not get, in order.
    pub(super) fn choke(&mut self) -> Vec<Block> {
        let Some(waiting) = &mut self.waiting else { return Vec::new() };
        let allowed = &self.allowed;
        waiting.take_where(|block, ()| !allowed.contains(&block.piece))
    }

    /// Notes that the peer may have `piece`, of so many blocks; false if it may already, or may have no more.
    pub(super) fn allow(&mut self, piece: Piece, blocks: u32) -> bool {
        let new = self.allowed.len() < ALLOWED_FAST_MAX && !self.is_allowed(piece);
        if new {
            self.allowed.push(piece);
            self.allowed_blocks = self.allowed_blocks.saturating_add(blocks);
        }
        new
    }

    pub(super) fn is_allowed(&self, piece: Piece) -> bool {
        self.allowed.contains(&piece)
    }

    /// It may have blocks although it is choked.
    pub(super) fn has_allowance(&self) -> bool {
        self.allowed_blocks > 0
    }

    /// Uses up one of the blocks that a choked peer may have; false if `piece` is none of them, or it had them all.
    pub(super) fn spend_allowed(&mut self, piece: Piece) -> bool {
        let may = self.allowed_blocks > 0 && self.is_allowed(piece);
        self.allowed_blocks -= u32::from(may);
        may
    }

    /// Gives back what an idle peer does not need.
    pub(super) fn release(&mut self) {
        if self.len() == 0 {
            self.waiting = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_fast_sets_are_those_of_bep_6() {
        let set = |len| {
            allowed_fast_set(Ipv4Addr::new(80, 4, 4, 200), Sha1Hash([0xaa; 20]), 1313, len)
                .iter()
                .map(|piece| piece.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(set(7), [1059, 431, 808, 1217, 287, 376, 1188]);
        assert_eq!(set(9), [1059, 431, 808, 1217, 287, 376, 1188, 353, 508]);
    }

    #[test]
    fn a_small_torrent_allows_all_it_has() {
        let mut set = allowed_fast_set(Ipv4Addr::LOCALHOST, Sha1Hash([1; 20]), 3, 10);
        set.sort();
        assert_eq!(set, [Piece(0), Piece(1), Piece(2)]);
        assert!(allowed_fast_set(Ipv4Addr::LOCALHOST, Sha1Hash([1; 20]), 0, 10).is_empty());
    }

    #[test]
    fn choking_keeps_what_is_allowed_fast() {
        let mut uploads = Uploads::default();
        let block = |piece, offset| Block { piece: Piece(piece), offset, len: 16_384 };
        assert!(uploads.allow(Piece(2), 2) && !uploads.allow(Piece(2), 2));
        for asked in [block(1, 0), block(2, 0), block(1, 16_384), block(1, 0)] {
            assert!(uploads.push(asked));
        }
        assert!(uploads.spend_allowed(Piece(2)) && !uploads.spend_allowed(Piece(1)));
        assert!(uploads.spend_allowed(Piece(2)) && !uploads.spend_allowed(Piece(2)), "the piece once");
        assert_eq!(uploads.choke(), [block(1, 0), block(1, 16_384)]);
        assert_eq!((uploads.next(), uploads.len()), (Some(block(2, 0)), 1));
        assert!(!uploads.contains(block(1, 0)) && uploads.contains(block(2, 0)));
        assert!(!uploads.remove(block(1, 0)) && uploads.remove(block(2, 0)) && uploads.next().is_none());
    }
}
