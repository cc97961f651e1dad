//! Which piece to start next: the most wanted first, of those the rarest, of those any one.
//!
//! It keeps the pieces that are wanted, missing and not in progress in buckets by priority and by how many peers have
//! them (seeders aside: they have all). A change moves a piece between two buckets; a change of very many is only counted,
//! and the buckets are filled anew at the next pick. A pick looks into a bucket from a random place on. The first pieces of a
//! download are picked at random, so that there is soon something to give; sequential mode takes the first one instead.

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
/// So many pieces are looked at in the order of the buckets; beyond it the pieces of the peer are, which may be few.
const SCAN_MAX: u32 = 256;
/// A field with more than one in so many of the pieces that may be started is counted at once.
const BULK_SHARE: u32 = 4;
/// `slots`: not in any bucket.
const NOWHERE: u32 = u32::MAX;

/// The order of buckets: the most wanted first, then the rarest.
type Rank = (std::cmp::Reverse<Priority>, u16);

/// The pieces one may start. Invariants: a piece may be started exactly while `slots` says something else than `NOWHERE`,
/// and unless the buckets are stale it is then in the bucket of its rank, there. A piece has as many owners as `counts` says
/// of it and `seeds` of all; a peer that has all may be counted in either, because it may have got there piece by piece.
#[derive(Debug)]
pub struct Picker {
    buckets: BTreeMap<Rank, Vec<u32>>,
    /// The buckets are to be filled anew from `slots` before they are looked at.
    stale: bool,
    /// By piece: its index in its bucket, or `NOWHERE`.
    slots: Vec<u32>,
    /// How many pieces may be started.
    free: u32,
    /// By piece: how many peers have it, those in `seeds` aside. Stops at 65,535.
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
            stale: true,
            slots: vec![NOWHERE; pieces],
            free: 0,
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
            self.expect_many(field.count());
            field.ones().for_each(|piece| self.add_piece(Piece(piece)));
        }
    }

    /// A peer that had just these pieces is gone, wherever it had them from.
    pub fn remove_field(&mut self, field: &Bitfield) {
        if self.seeds > 0 && !field.is_empty() && field.is_full() {
            self.seeds -= 1;
        } else {
            self.expect_many(field.count());
            field.ones().for_each(|piece| self.remove_piece(Piece(piece)));
        }
    }

    /// A peer got this piece.
    pub fn add_piece(&mut self, piece: Piece) {
        self.recount(piece, self.counts[piece.index()].saturating_add(1));
    }

    /// A peer lost this piece.
    pub fn remove_piece(&mut self, piece: Piece) {
        if self.counts[piece.index()] == 0 && self.seeds > 0 {
            // It was counted among the seeders; from now on it is counted piece by piece.
            self.seeds -= 1;
            self.stale = true;
            self.counts.iter_mut().for_each(|count| *count = count.saturating_add(1));
        }
        self.recount(piece, self.counts[piece.index()].saturating_sub(1));
    }

    fn recount(&mut self, piece: Piece, count: u16) {
        let is_placed = !self.stale && self.take(piece.0);
        self.counts[piece.index()] = count;
        if is_placed {
            self.put(piece.0);
        }
    }

    /// So many pieces are about to be recounted: where that is much of all, the buckets wait for the end of it.
    fn expect_many(&mut self, count: u32) {
        self.stale |= count > self.free / BULK_SHARE;
    }

    /// How many connected peers have `piece`.
    #[must_use]
    pub fn availability(&self, piece: Piece) -> u32 {
        self.seeds + u32::from(self.counts[piece.index()])
    }

    /// No piece is left to start.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.free == 0
    }

    /// The piece to start for a peer that has `field`, among those that `may_ask` allows; one of those that it suggests if
    /// none of the others is more wanted. Sequential mode heeds no suggestion.
    pub fn pick(&mut self, field: &Bitfield, suggested: &[Piece], may_ask: impl Fn(Piece) -> bool) -> Option<Piece> {
        let best = self.pick_best(field, &may_ask)?;
        let is_as_wanted = |piece: &Piece| {
            self.slots[piece.index()] != NOWHERE
                && self.priorities[piece.index()] == self.priorities[best.index()]
                && field.get(piece.0)
                && may_ask(*piece)
        };
        let heeded = suggested.iter().copied().filter(|_| !self.sequential).find(is_as_wanted);
        Some(heeded.unwrap_or(best))
    }

    fn pick_best(&mut self, field: &Bitfield, may_ask: impl Fn(Piece) -> bool) -> Option<Piece> {
        self.refresh();
        let (&(top, _), _) = self.buckets.first_key_value()?;
        let suits = |&piece: &u32| field.get(piece) && may_ask(Piece(piece));
        let mut theirs = field.ones().filter(|&piece| self.slots[piece as usize] != NOWHERE).filter(suits);
        if self.sequential {
            let first = theirs.next()?;
            let is_better = |best: u32, piece: u32| self.priorities[piece as usize] > self.priorities[best as usize];
            let mut best = first;
            while self.rank(best).0 != top
                && let Some(piece) = theirs.next()
            {
                best = if is_better(best, piece) { piece } else { best };
            }
            return Some(Piece(best));
        }
        if self.finished < RANDOM_FIRST {
            for _ in 0..RANDOM_TRIES {
                let piece = u32::try_from(self.rng.index(self.slots.len())).expect("an index of a piece");
                if self.slots[piece as usize] != NOWHERE && self.rank(piece).0 == top && suits(&piece) {
                    return Some(Piece(piece));
                }
            }
        }
        let chance = self.rng.u32();
        // A peer with few of the pieces is asked for them; the buckets would be searched in vain for most of the time.
        if self.free <= field.count().saturating_mul(SCAN_MAX) {
            let nobody_has = |rank: &Rank| rank.1 == 0 && self.seeds == 0;
            let in_order = self.buckets.iter().filter(|(rank, _)| !nobody_has(rank)).flat_map(|(_, bucket)| {
                let (before, from) = bucket.split_at((chance as usize * bucket.len()) >> 32);
                from.iter().chain(before).copied()
            });
            if let Some(piece) = in_order.take(SCAN_MAX as usize).find(suits) {
                return Some(Piece(piece));
            }
            if self.free <= SCAN_MAX {
                return None;
            }
        }
        theirs.min_by_key(|&piece| (self.rank(piece), piece.wrapping_mul(chance | 1))).map(Piece)
    }

    /// The order in which pieces of one priority go: by how few have them, or in sequential mode by their place.
    #[must_use]
    pub fn rarity(&self, piece: Piece) -> u32 {
        if self.sequential { piece.0 } else { u32::from(self.counts[piece.index()]) }
    }

    /// True if `piece` should be begun before another one is gone on with: it is more wanted, or as much and fewer have it.
    #[must_use]
    pub fn is_more_urgent(&self, piece: Piece, other: Piece) -> bool {
        !self.sequential && self.rank(piece.0) < self.rank(other.0)
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

    /// A piece may be started.
    fn put(&mut self, piece: u32) {
        self.free += 1;
        if self.stale {
            self.slots[piece as usize] = 0;
        } else {
            self.place(piece);
        }
    }

    /// Puts a piece into its bucket.
    fn place(&mut self, piece: u32) {
        let rank = self.rank(piece);
        let bucket = self.buckets.entry(rank).or_default();
        self.slots[piece as usize] = u32::try_from(bucket.len()).expect("an index of a piece");
        bucket.push(piece);
    }

    /// A piece may not be started (any more); false if that is nothing new.
    fn take(&mut self, piece: u32) -> bool {
        let slot = std::mem::replace(&mut self.slots[piece as usize], NOWHERE);
        if slot == NOWHERE {
            return false;
        }
        self.free -= 1;
        if self.stale {
            return true;
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

    /// Fills the buckets anew if they are stale.
    fn refresh(&mut self) {
        if std::mem::take(&mut self.stale) {
            self.buckets.clear();
            for piece in 0..u32::try_from(self.slots.len()).expect("as many as there are pieces") {
                if self.slots[piece as usize] != NOWHERE {
                    self.place(piece);
                }
            }
        }
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        let free = self.slots.iter().filter(|&&slot| slot != NOWHERE).count();
        assert_eq!(free, self.free as usize, "pieces that may be started");
        if self.stale {
            return;
        }
        for (&rank, bucket) in &self.buckets {
            assert!(!bucket.is_empty(), "an empty bucket is taken away");
            for (&piece, slot) in bucket.iter().zip(0..) {
                assert_eq!((self.rank(piece), self.slots[piece as usize]), (rank, slot), "place of piece {piece}");
            }
        }
        assert_eq!(self.buckets.values().map(Vec::len).sum::<usize>(), free);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};

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
        assert_eq!(picker.pick(&field(&[0, 1, 2]), &[], |_| true), Some(Piece(1)));
        assert_eq!(picker.pick(&field(&[0, 2, 3]), &[], |_| true), Some(Piece(3)));
        assert_eq!(picker.pick(&field(&[0, 2, 3]), &[], |piece| piece != Piece(3)).map(|piece| piece.0 % 2), Some(0));
        assert_eq!(picker.availability(Piece(0)), 4);
        picker.started(Piece(3));
        assert_eq!(picker.pick(&field(&[3]), &[], |_| true), None);
        picker.returned(Piece(3));
        assert_eq!(picker.pick(&field(&[3]), &[], |_| true), Some(Piece(3)));
    }

    #[test]
    fn a_more_wanted_piece_goes_before_a_rarer_one_and_an_unwanted_one_never() {
        let mut layout = layout();
        layout.set_priorities([(0, Priority::Off), (1, Priority::High)]);
        let mut picker = picker(&layout);
        picker.add_field(&field(&[20]));
        assert_eq!(picker.pick(&field(&[1, 20]), &[], |_| true), Some(Piece(20)));
        assert_eq!(picker.pick(&field(&[1, 2]), &[], |_| true), None);
    }

    #[test]
    fn a_suggested_piece_goes_before_a_rarer_one_but_not_before_a_more_wanted_one() {
        let mut layout = layout();
        layout.set_priorities([(1, Priority::High)]);
        let mut picker = picker(&layout);
        picker.add_field(&field(&[0, 1, 20, 21]));
        picker.add_field(&field(&[0, 20]));
        let suggested = [Piece(0), Piece(20)].as_slice();
        let all = field(&[0, 1, 20, 21]);
        assert_eq!(picker.pick(&all, suggested, |_| true), Some(Piece(20)));
        assert_eq!(picker.pick(&all, suggested, |piece| piece != Piece(20)), Some(Piece(21)), "0 is less wanted");
        assert_eq!(picker.pick(&field(&[1]), suggested, |_| true), Some(Piece(1)), "it has none of them");
        picker.started(Piece(20));
        assert_eq!(picker.pick(&all, suggested, |_| true), Some(Piece(21)));
        picker.started(Piece(21));
        assert_eq!(picker.pick(&all, suggested, |_| true), Some(Piece(0)));
        picker.set_sequential(true);
        assert_eq!(picker.pick(&all, &[Piece(1)], |_| true), Some(Piece(0)));
    }

    #[test]
    fn sequential_mode_takes_the_first() {
        let mut picker = picker(&layout());
        picker.set_sequential(true);
        picker.add_field(&field(&[5]));
        assert_eq!(picker.pick(&field(&[9, 5, 7]), &[], |_| true), Some(Piece(5)));
        picker.finished(Piece(5));
        assert_eq!(picker.pick(&field(&[9, 5, 7]), &[], |_| true), Some(Piece(7)));
    }

    #[test]
    fn the_first_pieces_are_random() {
        let starts = |seed| {
            let mut picker = Picker::new(&layout(), &Bitfield::new(PIECES), false, Rng::from_number(seed));
            picker.add_field(&field(&[0]));
            picker.pick(&Bitfield::full(PIECES), &[], |_| true).expect("all are there")
        };
        let different: std::collections::BTreeSet<_> = (0..20).map(starts).collect();
        assert!(different.len() > 5, "{different:?}");
    }

    #[test]
    fn a_peer_that_became_a_seeder_piece_by_piece_leaves_as_it_came() {
        let mut picker = picker(&layout());
        let mut theirs = Bitfield::new(PIECES);
        for piece in 0..PIECES {
            theirs.set(piece);
            picker.add_piece(Piece(piece));
        }
        picker.remove_field(&theirs);
        assert!((0..PIECES).all(|piece| picker.availability(Piece(piece)) == 0));
    }

    #[test]
    fn a_seeder_that_loses_a_piece_counts_for_the_others_until_it_leaves() {
        let mut picker = picker(&layout());
        let mut theirs = Bitfield::full(PIECES);
        picker.add_field(&theirs);
        theirs.clear(3);
        picker.remove_piece(Piece(3));
        assert_eq!((picker.availability(Piece(3)), picker.availability(Piece(4))), (0, 1));
        picker.remove_field(&theirs);
        assert_eq!((picker.availability(Piece(3)), picker.availability(Piece(4))), (0, 0));
    }

    #[test]
    fn a_piece_that_hardly_anybody_has_is_found_among_very_many() {
        let pieces = 5000;
        let files = FileList::new([("a".into(), u64::from(pieces) * 10, false)]);
        let layout = Layout::new(Arc::new(files), Geometry::new(u64::from(pieces) * 10, 10).expect("small"));
        let mut picker = Picker::new(&layout, &Bitfield::new(pieces), false, Rng::from_number(3));
        picker.finished = RANDOM_FIRST;
        let (mut common, mut theirs) = (Bitfield::new(pieces), Bitfield::new(pieces));
        for piece in [4000, 4001, 4002] {
            common.set(piece);
            theirs.set(piece);
        }
        picker.add_field(&common);
        common.clear(4001);
        picker.add_field(&common);
        assert_eq!(
            picker.pick(&theirs, &[], |_| true),
            Some(Piece(4001)),
            "all the others are rarer, and it has none of them"
        );
        picker.check();
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(usize, Vec<u32>),
        JoinFull(usize),
        Have(usize, u32),
        DontHave(usize, u32),
        Start(u32),
        Return(u32),
        Pick(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let (peer, piece) = (0..4_usize, 0..PIECES);
        prop_oneof![
            (peer.clone(), proptest::collection::vec(0..PIECES, 0..PIECES as usize))
                .prop_map(|(p, f)| Step::Join(p, f)),
            peer.clone().prop_map(Step::JoinFull),
            (peer.clone(), piece.clone()).prop_map(|(p, piece)| Step::Have(p, piece)),
            (peer.clone(), piece.clone()).prop_map(|(p, piece)| Step::DontHave(p, piece)),
            piece.clone().prop_map(Step::Start),
            piece.prop_map(Step::Return),
            peer.prop_map(Step::Pick),
        ]
    }

    proptest! {
        /// After any changes the pick is one of the rarest that a plain model allows, and the owners are right.
        #[test]
        fn picks_agree_with_a_plain_model(steps in proptest::collection::vec(step(), 0..200)) {
            let mut picker = picker(&layout());
            let mut fields = vec![Bitfield::new(PIECES); 4];
            let mut free = [true; PIECES as usize];
            for step in steps {
                let owners = |fields: &[Bitfield], piece| fields.iter().filter(|field| field.get(piece)).count();
                match step {
                    Step::Join(peer, ones) => {
                        picker.remove_field(&fields[peer]);
                        fields[peer] = field(&ones);
                        picker.add_field(&fields[peer]);
                    }
                    Step::JoinFull(peer) => {
                        picker.remove_field(&fields[peer]);
                        fields[peer] = Bitfield::full(PIECES);
                        picker.add_field(&fields[peer]);
                    }
                    Step::Have(peer, piece) if fields[peer].set(piece) => picker.add_piece(Piece(piece)),
                    Step::DontHave(peer, piece) if fields[peer].clear(piece) => picker.remove_piece(Piece(piece)),
                    Step::Start(piece) => { picker.started(Piece(piece)); free[piece as usize] = false; }
                    Step::Return(piece) => { picker.returned(Piece(piece)); free[piece as usize] = true; }
                    Step::Pick(peer) => {
                        let theirs = fields[peer].ones().filter(|&piece| free[piece as usize]);
                        let rarest = theirs.map(|piece| owners(&fields, piece)).min();
                        let picked = picker.pick(&fields[peer], &[], |_| true);
                        prop_assert_eq!(picked.map(|piece| owners(&fields, piece.0)), rarest);
                        prop_assert!(picked.is_none_or(|piece| free[piece.index()] && fields[peer].get(piece.0)));
                    }
                    Step::Have(..) | Step::DontHave(..) => {}
                }
                picker.check();
                prop_assert_eq!(picker.is_exhausted(), !free.contains(&true));
                for piece in 0..PIECES {
                    prop_assert_eq!(picker.availability(Piece(piece)) as usize, owners(&fields, piece));
                }
            }
        }
    }
}
