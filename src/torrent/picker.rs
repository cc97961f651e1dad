//! Which piece to start next: the most wanted first, of those the rarest, of those any one.
//!
//! It keeps the pieces that are wanted, missing and not in progress in buckets by priority and by how many peers have
//! them (seeders aside: they have all). A change moves a piece between two buckets. The first pieces of a download are
//! picked at random, so that there is soon something to give; sequential mode takes the first one instead.

use std::collections::BTreeMap;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Piece;
use crate::base::rng::Rng;
use crate::torrent::layout::Layout;
use crate::torrent::snapshot::Priority;

/// So many pieces are picked at random before the rarest go first (BEP 3 implementations' custom).
const RANDOM_FIRST: u32 = 4;
/// How often chance is tried for one of them.
const RANDOM_TRIES: u32 = 16;
/// `slots`: not in any bucket.
const NOWHERE: u32 = u32::MAX;

/// The order of buckets: the most wanted first, then the rarest.
type Rank = (std::cmp::Reverse<Priority>, u16);

/// The pieces one may start. Invariant: a piece is in the bucket of its rank exactly while `slots` says where.
#[derive(Debug)]
pub struct Picker {
    buckets: BTreeMap<Rank, Vec<u32>>,
    /// By piece: its index in its bucket, or `NOWHERE`.
    slots: Vec<u32>,
    /// By piece: how many peers that are no seeders have it. Stops at 65,535.
    counts: Vec<u16>,
    priorities: Vec<Priority>,
    seeds: u32,
    finished: u32,
    sequential: bool,
    rng: Rng,
}

impl Picker {
    /// All pieces that `layout` wants and `have` lacks; nobody has any yet.
    #[must_use]
    pub fn new(layout: &Layout, have: &Bitfield, sequential: bool, rng: Rng) -> Self {
        let pieces = have.len() as usize;
        let mut picker = Self {
            buckets: BTreeMap::new(),
            slots: vec![NOWHERE; pieces],
            counts: vec![0; pieces],
            priorities: vec![Priority::Off; pieces],
            seeds: 0,
            finished: have.count(),
            sequential,
            rng,
        };
        picker.set_layout(layout, have, |_| false);
        picker
    }

    /// What is wanted has changed. `is_started` names the pieces that are in progress.
    pub fn set_layout(&mut self, layout: &Layout, have: &Bitfield, is_started: impl Fn(Piece) -> bool) {
        for index in 0..have.len() {
            let piece = Piece(index);
            self.take(index);
            self.priorities[piece.index()] = layout.piece_priority(piece);
            if layout.is_wanted(piece) && !have.get(index) && !is_started(piece) {
                self.put(index);
            }
        }
    }

    /// Pieces in the order of the content, or the rarest first.
    pub fn set_sequential(&mut self, sequential: bool) {
        self.sequential = sequential;
    }

    /// A peer has these pieces. An empty field is none.
    pub fn add_field(&mut self, field: &Bitfield) {
        if !field.is_empty() && field.is_full() {
            self.seeds += 1;
        } else {
            field.ones().for_each(|piece| self.add_piece(Piece(piece)));
        }
    }

    /// A peer that had just these pieces is gone.
    pub fn remove_field(&mut self, field: &Bitfield) {
        if !field.is_empty() && field.is_full() {
            self.seeds -= 1;
        } else {
            field.ones().for_each(|piece| self.remove_piece(Piece(piece)));
        }
    }

    /// A peer that is no seeder got this piece.
    pub fn add_piece(&mut self, piece: Piece) {
        self.recount(piece, self.counts[piece.index()].saturating_add(1));
    }

    /// A peer that is no seeder lost this piece.
    pub fn remove_piece(&mut self, piece: Piece) {
        self.recount(piece, self.counts[piece.index()].saturating_sub(1));
    }

    fn recount(&mut self, piece: Piece, count: u16) {
        let was_there = self.take(piece.0);
        self.counts[piece.index()] = count;
        if was_there {
            self.put(piece.0);
        }
    }

    /// How many connected peers have `piece`.
    #[must_use]
    pub fn availability(&self, piece: Piece) -> u32 {
        self.seeds + u32::from(self.counts[piece.index()])
    }

    /// No piece is left to start.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The piece to start for a peer that has `field`, among those that `may_ask` allows.
    pub fn pick(&mut self, field: &Bitfield, may_ask: impl Fn(Piece) -> bool) -> Option<Piece> {
        let suits = |&piece: &u32| field.get(piece) && may_ask(Piece(piece));
        if self.sequential {
            let is_in_bucket = |piece: &u32| self.slots[*piece as usize] != NOWHERE;
            let candidates = field.ones().filter(is_in_bucket).filter(suits);
            return candidates.min_by_key(|&piece| (self.rank(piece).0, piece)).map(Piece);
        }
        if self.finished < RANDOM_FIRST
            && let Some((&(top, _), _)) = self.buckets.first_key_value()
        {
            for _ in 0..RANDOM_TRIES {
                let piece = u32::try_from(self.rng.index(self.slots.len())).expect("an index of a piece");
                if self.slots[piece as usize] != NOWHERE && self.rank(piece).0 == top && suits(&piece) {
                    return Some(Piece(piece));
                }
            }
        }
        self.buckets.values().flatten().copied().find(suits).map(Piece)
    }

    /// `piece` is in progress now.
    pub fn started(&mut self, piece: Piece) {
        self.take(piece.0);
    }

    /// `piece` is no longer in progress and still missing.
    pub fn returned(&mut self, piece: Piece) {
        self.take(piece.0);
        if self.priorities[piece.index()] != Priority::Off {
            self.put(piece.0);
        }
    }

    /// `piece` is here.
    pub fn finished(&mut self, piece: Piece) {
        self.take(piece.0);
        self.finished += 1;
    }

    fn rank(&self, piece: u32) -> Rank {
        (std::cmp::Reverse(self.priorities[piece as usize]), self.counts[piece as usize])
    }

    /// Puts a piece into its bucket, at a random place.
    fn put(&mut self, piece: u32) {
        let rank = self.rank(piece);
        let bucket = self.buckets.entry(rank).or_default();
        bucket.push(piece);
        let (last, place) = (bucket.len() - 1, self.rng.index(bucket.len()));
        bucket.swap(last, place);
        for at in [last, place] {
            self.slots[bucket[at] as usize] = u32::try_from(at).expect("an index of a piece");
        }
    }

    /// Takes a piece out of its bucket; false if it was in none.
    fn take(&mut self, piece: u32) -> bool {
        let slot = std::mem::replace(&mut self.slots[piece as usize], NOWHERE);
        if slot == NOWHERE {
            return false;
        }
        let rank = self.rank(piece);
        let bucket = self.buckets.get_mut(&rank).expect("a piece with a slot has a bucket");
        bucket.swap_remove(slot as usize);
        if let Some(&moved) = bucket.get(slot as usize) {
            self.slots[moved as usize] = slot;
        } else if bucket.is_empty() {
            self.buckets.remove(&rank);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::base::files::FileList;
    use crate::base::geometry::Geometry;

    const PIECES: u32 = 24;

    fn layout() -> Layout {
        let files = FileList::new([("a".into(), 120, false), ("b".into(), 120, false)]);
        Layout::new(Arc::new(files), Geometry::new(240, 10).expect("small"))
    }

    fn picker(layout: &Layout) -> Picker {
        let mut picker = Picker::new(layout, &Bitfield::new(PIECES), false, Rng::from_number(3));
        picker.finished = RANDOM_FIRST;
        picker
    }

    fn field(ones: &[u32]) -> Bitfield {
        let mut field = Bitfield::new(PIECES);
        for &one in ones {
            field.set(one);
        }
        field
    }

    #[test]
    fn the_rarest_piece_that_a_peer_has_goes_first() {
        let mut picker = picker(&layout());
        picker.add_field(&field(&[0, 1, 2, 3]));
        picker.add_field(&field(&[0, 1, 2]));
        picker.add_field(&field(&[0, 2]));
        picker.add_field(&Bitfield::full(PIECES));
        assert_eq!(picker.pick(&field(&[0, 1, 2]), |_| true), Some(Piece(1)));
        assert_eq!(picker.pick(&field(&[0, 2, 3]), |_| true), Some(Piece(3)));
        assert_eq!(picker.pick(&field(&[0, 2, 3]), |piece| piece != Piece(3)).map(|piece| piece.0 % 2), Some(0));
        assert_eq!(picker.availability(Piece(0)), 4);
        picker.started(Piece(3));
        assert_eq!(picker.pick(&field(&[3]), |_| true), None);
        picker.returned(Piece(3));
        assert_eq!(picker.pick(&field(&[3]), |_| true), Some(Piece(3)));
    }

    #[test]
    fn a_more_wanted_piece_goes_before_a_rarer_one_and_an_unwanted_one_never() {
        let mut layout = layout();
        layout.set_priorities([(0, Priority::Off), (1, Priority::High)]);
        let mut picker = picker(&layout);
        picker.add_field(&field(&[20]));
        assert_eq!(picker.pick(&field(&[1, 20]), |_| true), Some(Piece(20)));
        assert_eq!(picker.pick(&field(&[1, 2]), |_| true), None);
    }

    #[test]
    fn sequential_mode_takes_the_first() {
        let mut picker = picker(&layout());
        picker.set_sequential(true);
        picker.add_field(&field(&[5]));
        assert_eq!(picker.pick(&field(&[9, 5, 7]), |_| true), Some(Piece(5)));
        picker.finished(Piece(5));
        assert_eq!(picker.pick(&field(&[9, 5, 7]), |_| true), Some(Piece(7)));
    }

    #[test]
    fn the_first_pieces_are_random() {
        let starts = |seed| {
            let mut picker = Picker::new(&layout(), &Bitfield::new(PIECES), false, Rng::from_number(seed));
            picker.add_field(&field(&[0]));
            picker.pick(&Bitfield::full(PIECES), |_| true).expect("all are there")
        };
        let different: std::collections::BTreeSet<_> = (0..20).map(starts).collect();
        assert!(different.len() > 5, "{different:?}");
    }

    proptest! {
        /// After any changes the pick is one of the rarest that a plain model allows.
        #[test]
        fn picks_agree_with_a_plain_model(steps in proptest::collection::vec((0..4_u8, 0..PIECES), 0..200)) {
            let mut picker = picker(&layout());
            let mut counts = [0_u32; PIECES as usize];
            let mut free = [true; PIECES as usize];
            for (what, piece) in steps {
                let index = piece as usize;
                match what {
                    0 => { picker.add_piece(Piece(piece)); counts[index] += 1; }
                    1 if counts[index] > 0 => { picker.remove_piece(Piece(piece)); counts[index] -= 1; }
                    2 => { picker.started(Piece(piece)); free[index] = false; }
                    3 => { picker.returned(Piece(piece)); free[index] = true; }
                    _ => {}
                }
                let rarest = (0..PIECES as usize).filter(|&at| free[at]).map(|at| counts[at]).min();
                let picked = picker.pick(&Bitfield::full(PIECES), |_| true);
                prop_assert_eq!(picked.map(|piece| counts[piece.index()]), rarest);
                prop_assert!(picked.is_none_or(|piece| free[piece.index()]));
            }
        }
    }
}
