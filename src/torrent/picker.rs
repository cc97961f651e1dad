//! Which piece to start next: the most wanted first, of those the rarest, of those any one.
//!
//! It keeps the pieces that are wanted, missing and not in progress in buckets by priority and by how many peers have
//! them (seeders aside: they have all). A change moves a piece between two buckets. After a change of very many the buckets are
//! emptied and filled again, `REFILL_MAX` pieces with each pick; until all pieces are in them, a pick takes the rarest of
//! `LOOKS_MAX` pieces from a random place on. So neither a pick nor a peer that joins costs much, however many pieces there are.
//!
//! The first pieces of a download are picked at random, so that there is soon something to give; sequential mode takes the
//! first one instead.

use std::collections::BTreeMap;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Piece;
use crate::base::rng::Rng;
use crate::base::steps;
use crate::torrent::layout::Layout;
use crate::torrent::snapshot::Priority;

/// So many pieces are picked at random before the rarest go first (BEP 3 implementations' custom).
const RANDOM_FIRST: u32 = 4;
/// How often a random piece is tried for one of them.
const RANDOM_TRIES: u32 = 16;
/// So many pieces are looked at in the order of the buckets; beyond it the pieces of the peer are, which may be few.
const SCAN_MAX: u32 = 256;
/// So many pieces of a peer are looked at for the rarest of them.
const LOOKS_MAX: u32 = 4096;
/// So many pieces are put into the buckets with each pick, after they were emptied.
const REFILL_MAX: u32 = 8192;
/// A field with more ones than this is counted without moving pieces between buckets, which are filled again afterwards.
const MOVES_MAX: u32 = 2048;
/// The same holds for a field with more than one in so many of the pieces that may be started.
const BULK_SHARE: u32 = 4;
/// Steps of moving a piece between two buckets.
const MOVE_STEPS: usize = 8;

/// By byte: its bits, the highest first, as they change counts.
const BITS: [[u16; 8]; 256] = {
    let mut bits = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            bits[byte][bit] = if byte >> (7 - bit) & 1 == 1 { 1 } else { 0 };
            bit += 1;
        }
        byte += 1;
    }
    bits
};

/// The order of buckets: the most wanted first, then the rarest.
type Rank = (std::cmp::Reverse<Priority>, u16);

/// The pieces one may start. Invariants: a piece may be started exactly while it is in the field of its priority in `free`; if
/// it is below `placed_to` as well, it is in the bucket of its rank, at its index in `slots`. A piece has as many owners as `counts`
/// says of it and `seeds` of all; a peer that has all may be counted in either, because it may have got there piece by piece.
#[derive(Debug)]
pub struct Picker {
    buckets: BTreeMap<Rank, Vec<u32>>,
    /// Pieces below this one are in the buckets if they may be started.
    placed_to: u32,
    /// By piece: its index in its bucket, if it is in one.
    slots: Vec<u32>,
    /// The pieces that may be started, by priority; [`Priority::Off`] is not among them.
    free: BTreeMap<std::cmp::Reverse<Priority>, Bitfield>,
    /// How many these are.
    free_count: u32,
    /// By piece: how many peers have it, those in `seeds` aside. Stops at 65,535.
    counts: Vec<u16>,
    /// By piece; empty while all have the priority `Normal`.
    priorities: Vec<Priority>,
    seeds: u32,
    finished: u32,
    sequential: bool,
    rng: Rng,
}

impl Picker {
    /// All pieces that `layout` wants and `have` lacks; no peer has any of them yet.
    #[must_use]
    pub fn new(layout: &Layout, have: &Bitfield, sequential: bool, rng: Rng) -> Self {
        let pieces = have.len() as usize;
        let mut picker = Self {
            buckets: BTreeMap::new(),
            placed_to: 0,
            slots: vec![0; pieces],
            free: BTreeMap::new(),
            free_count: 0,
            counts: vec![0; pieces],
            priorities: Vec::new(),
            seeds: 0,
            finished: have.count(),
            sequential,
            rng,
        };
        picker.set_layout(layout, have, []);
        picker
    }

    /// What is wanted has changed. `started` are the pieces that are in progress.
    pub fn set_layout(&mut self, layout: &Layout, have: &Bitfield, started: impl IntoIterator<Item = Piece>) {
        self.empty_buckets();
        self.free.clear();
        self.free_count = 0;
        if layout.wants_all_alike() {
            steps::add_bytes(have.as_bytes().len());
            let missing = have.complement();
            self.free_count = missing.count();
            self.priorities = Vec::new();
            self.free.insert(std::cmp::Reverse(Priority::Normal), missing);
        } else {
            self.priorities = (0..have.len()).map(|piece| layout.piece_priority(Piece(piece))).collect();
            steps::add(self.priorities.len());
            for piece in (0..have.len()).filter(|&piece| !have.get(piece)) {
                self.put(piece);
            }
        }
        for piece in started {
            self.take(piece.0);
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
        } else if self.is_bulk(field.count()) {
            self.count_all(field, u16::saturating_add);
        } else {
            field.ones().for_each(|piece| self.add_piece(Piece(piece)));
        }
    }

    /// A peer that had just these pieces is gone, wherever it had them from.
    pub fn remove_field(&mut self, field: &Bitfield) {
        if self.seeds > 0 && !field.is_empty() && field.is_full() {
            self.seeds -= 1;
            return;
        }
        if self.is_bulk(field.count()) {
            if self.seeds > 0 && self.lacks_a_count(field) {
                self.count_a_seed_by_piece();
            }
            self.count_all(field, u16::saturating_sub);
        } else {
            field.ones().for_each(|piece| self.remove_piece(Piece(piece)));
        }
    }

    /// A peer that had the pieces in `old` has those in `new` instead: one pass where both are many.
    pub fn replace_field(&mut self, old: &Bitfield, new: &Bitfield) {
        let is_counted = |field: &Bitfield| self.is_bulk(field.count()) && !field.is_full();
        if !is_counted(old) || !is_counted(new) || self.seeds > 0 && self.lacks_a_count(old) {
            self.remove_field(old);
            return self.add_field(new);
        }
        steps::add_bytes(self.counts.len());
        self.empty_buckets();
        let fields = old.as_bytes().iter().zip(new.as_bytes());
        for (counts, (old, new)) in self.counts.chunks_mut(8).zip(fields) {
            let bits = BITS[usize::from(*old)].into_iter().zip(BITS[usize::from(*new)]);
            for (count, (old, new)) in counts.iter_mut().zip(bits) {
                *count = count.saturating_sub(old).saturating_add(new);
            }
        }
    }

    /// A peer got this piece.
    pub fn add_piece(&mut self, piece: Piece) {
        self.recount(piece, self.counts[piece.index()].saturating_add(1));
    }

    /// A peer lost this piece.
    pub fn remove_piece(&mut self, piece: Piece) {
        if self.counts[piece.index()] == 0 && self.seeds > 0 {
            self.count_a_seed_by_piece();
        }
        self.recount(piece, self.counts[piece.index()].saturating_sub(1));
    }

    /// A peer that was counted among the seeders is counted piece by piece from now on.
    fn count_a_seed_by_piece(&mut self) {
        steps::add_bytes(self.counts.len());
        self.seeds -= 1;
        self.empty_buckets();
        self.counts.iter_mut().for_each(|count| *count = count.saturating_add(1));
    }

    /// Changes the counts of all pieces in `field` by one: eight at a time, because there may be a million.
    fn count_all(&mut self, field: &Bitfield, change: impl Fn(u16, u16) -> u16) {
        steps::add_bytes(self.counts.len());
        self.empty_buckets();
        let (eights, rest) = self.counts.as_chunks_mut::<8>();
        for (counts, byte) in eights.iter_mut().zip(field.as_bytes()) {
            for (count, bit) in counts.iter_mut().zip(BITS[usize::from(*byte)]) {
                *count = change(*count, bit);
            }
        }
        let last = field.as_bytes().last().copied().unwrap_or_default();
        for (count, bit) in rest.iter_mut().zip(BITS[usize::from(last)]) {
            *count = change(*count, bit);
        }
    }

    /// True if a piece in `field` is counted for nobody but seeders.
    fn lacks_a_count(&self, field: &Bitfield) -> bool {
        steps::add_bytes(self.counts.len());
        let mut lacks = 0;
        for (counts, byte) in self.counts.chunks(8).zip(field.as_bytes()) {
            for (count, bit) in counts.iter().zip(BITS[usize::from(*byte)]) {
                lacks |= u16::from(*count == 0) & bit;
            }
        }
        lacks != 0
    }

    fn recount(&mut self, piece: Piece, count: u16) {
        let is_free = self.take(piece.0);
        self.counts[piece.index()] = count;
        if is_free {
            self.put(piece.0);
        }
    }

    /// So many pieces are too many to move between buckets.
    fn is_bulk(&self, count: u32) -> bool {
        count > MOVES_MAX || count > self.free_count / BULK_SHARE
    }

    /// How many connected peers have `piece`.
    #[must_use]
    pub fn availability(&self, piece: Piece) -> u32 {
        self.seeds + u32::from(self.counts[piece.index()])
    }

    /// No piece is left to start.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.free_count == 0
    }

    /// The piece to start for a peer that has `field`, among those that `may_ask` allows; one of those that it suggests if
    /// none of the others is more wanted. Sequential mode heeds no suggestion.
    pub fn pick(&mut self, field: &Bitfield, suggested: &[Piece], may_ask: impl Fn(Piece) -> bool) -> Option<Piece> {
        let best = self.pick_best(field, &may_ask)?;
        let is_as_wanted = |piece: &Piece| {
            self.is_free(piece.0)
                && self.priority(piece.0) == self.priority(best.0)
                && field.get(piece.0)
                && may_ask(*piece)
        };
        let heeded = suggested.iter().copied().filter(|_| !self.sequential).find(is_as_wanted);
        Some(heeded.unwrap_or(best))
    }

    /// Like [`Picker::pick`], of these pieces alone: for a peer that chokes us and allows a few.
    #[must_use]
    pub fn pick_of(&self, pieces: &[Piece], may_ask: impl Fn(Piece) -> bool) -> Option<Piece> {
        steps::add(pieces.len());
        let suitable = pieces.iter().copied().filter(|piece| self.is_free(piece.0) && may_ask(*piece));
        suitable.min_by_key(|piece| (self.priority_order(piece.0), self.rarity(*piece)))
    }

    fn pick_best(&mut self, field: &Bitfield, may_ask: impl Fn(Piece) -> bool) -> Option<Piece> {
        self.refill();
        if self.is_exhausted() || field.count() == 0 {
            return None;
        }
        if self.sequential {
            return self.search(field, 0, 1, 0, may_ask);
        }
        let suits = |&piece: &u32| field.get(piece) && may_ask(Piece(piece));
        let most_wanted = self.free.iter().find(|(_, free)| free.count() > 0).map(|(priority, _)| *priority)?;
        if self.finished < RANDOM_FIRST {
            for _ in 0..RANDOM_TRIES {
                let piece = u32::try_from(self.rng.index(self.counts.len())).expect("an index of a piece");
                if self.is_free(piece) && self.priority_order(piece) == most_wanted && suits(&piece) {
                    return Some(Piece(piece));
                }
            }
        }
        let chance = self.rng.u32();
        // A peer with few of the pieces is asked for them; the buckets would be searched in vain for most of the time.
        if self.is_placed() && self.free_count <= field.count().saturating_mul(SCAN_MAX) {
            let nobody_has = |rank: &Rank| rank.1 == 0 && self.seeds == 0;
            let in_order = self.buckets.iter().filter(|(rank, _)| !nobody_has(rank)).flat_map(|(_, bucket)| {
                let (before, from) = bucket.split_at((chance as usize * bucket.len()) >> 32);
                from.iter().chain(before).copied()
            });
            steps::add(SCAN_MAX as usize);
            if let Some(piece) = in_order.take(SCAN_MAX as usize).find(suits) {
                return Some(Piece(piece));
            }
            if self.free_count <= SCAN_MAX {
                return None;
            }
        }
        let from = (u64::from(chance) * self.counts.len() as u64) >> 32;
        self.search(field, u32::try_from(from).expect("an index of a piece"), LOOKS_MAX, chance, may_ask)
    }

    /// Of the most wanted pieces that a peer has, the rarest of the first `looks` from `from` on, and around the end; `chance`
    /// chooses among equals.
    fn search(
        &self,
        field: &Bitfield,
        from: u32,
        looks: u32,
        chance: u32,
        may_ask: impl Fn(Piece) -> bool,
    ) -> Option<Piece> {
        for free in self.free.values().filter(|free| free.count() > 0) {
            steps::add_bytes(free.as_bytes().len());
            let before = field.ones_in_both(free, 0).take_while(|&piece| piece < from);
            let in_order = field.ones_in_both(free, from).chain(before).filter(|&piece| may_ask(Piece(piece)));
            let mut looked = 0;
            let best = in_order.take(looks as usize).inspect(|_| looked += 1);
            let best = best.min_by_key(|&piece| (self.counts[piece as usize], piece.wrapping_mul(chance | 1)));
            steps::add(looked);
            if best.is_some() {
                return best.map(Piece);
            }
        }
        None
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
        self.put(piece.0);
    }

    /// `piece` is here.
    pub fn finished(&mut self, piece: Piece) {
        self.take(piece.0);
        self.finished += 1;
    }

    fn priority(&self, piece: u32) -> Priority {
        self.priorities.get(piece as usize).copied().unwrap_or(Priority::Normal)
    }

    fn priority_order(&self, piece: u32) -> std::cmp::Reverse<Priority> {
        std::cmp::Reverse(self.priority(piece))
    }

    fn rank(&self, piece: u32) -> Rank {
        (self.priority_order(piece), self.counts[piece as usize])
    }

    /// True if a piece may be started.
    fn is_free(&self, piece: u32) -> bool {
        self.free.get(&self.priority_order(piece)).is_some_and(|free| free.get(piece))
    }

    /// A piece may be started, if it is wanted.
    fn put(&mut self, piece: u32) {
        if self.priority(piece) == Priority::Off {
            return;
        }
        let pieces = self.counts.len();
        let priority = self.priority_order(piece);
        let free = self.free.entry(priority).or_insert_with(|| Bitfield::new(u32::try_from(pieces).expect("pieces")));
        self.free_count += u32::from(free.set(piece));
        if piece < self.placed_to {
            self.place(piece);
        }
    }

    /// Puts a piece into its bucket.
    fn place(&mut self, piece: u32) {
        let bucket = self.buckets.entry(self.rank(piece)).or_default();
        self.slots[piece as usize] = u32::try_from(bucket.len()).expect("an index of a piece");
        bucket.push(piece);
        steps::add(MOVE_STEPS / 2);
    }

    /// A piece may not be started (any more); false if that is nothing new.
    fn take(&mut self, piece: u32) -> bool {
        let priority = self.priority_order(piece);
        if !self.free.get_mut(&priority).is_some_and(|free| free.clear(piece)) {
            return false;
        }
        self.free_count -= 1;
        if piece < self.placed_to {
            let rank = self.rank(piece);
            let bucket = self.buckets.get_mut(&rank).expect("a piece with a slot has a bucket");
            let slot = self.slots[piece as usize];
            bucket.swap_remove(slot as usize);
            if let Some(&moved) = bucket.get(slot as usize) {
                self.slots[moved as usize] = slot;
            } else if bucket.is_empty() {
                self.buckets.remove(&rank);
            }
        }
        steps::add(MOVE_STEPS / 2);
        true
    }

    /// Takes all pieces out of the buckets; `refill` puts them back.
    fn empty_buckets(&mut self) {
        self.buckets.clear();
        self.placed_to = 0;
    }

    /// All pieces are in the buckets.
    fn is_placed(&self) -> bool {
        self.placed_to as usize == self.counts.len()
    }

    /// Puts the next `REFILL_MAX` pieces into the buckets, where not all are.
    fn refill(&mut self) {
        let end = (self.placed_to.saturating_add(REFILL_MAX)).min(u32::try_from(self.counts.len()).expect("pieces"));
        for piece in std::mem::replace(&mut self.placed_to, end)..end {
            if self.is_free(piece) {
                self.place(piece);
            }
        }
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
    pub fn check(&self) {
        let free: u32 = self.free.values().map(Bitfield::count).sum();
        assert_eq!(free, self.free_count, "pieces that may be started");
        let placed = (0..self.placed_to).filter(|&piece| self.is_free(piece)).count();
        for (&rank, bucket) in &self.buckets {
            assert!(!bucket.is_empty(), "an empty bucket is taken away");
            for (&piece, slot) in bucket.iter().zip(0..) {
                assert_eq!((self.rank(piece), self.slots[piece as usize]), (rank, slot), "place of piece {piece}");
            }
        }
        assert_eq!(self.buckets.values().map(Vec::len).sum::<usize>(), placed);
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
    fn replaced_field_counts_as_one_removed_and_one_added() {
        let layout = layout();
        let (mut one, mut other) = (picker(&layout), picker(&layout));
        let mut rng = Rng::from_number(5);
        let mut draw = || match rng.below(5) {
            0 => Bitfield::full(PIECES),
            1 => Bitfield::new(PIECES),
            _ => field(&(0..PIECES).filter(|_| rng.below(2) == 0).collect::<Vec<_>>()),
        };
        let mut fields = vec![Bitfield::new(PIECES); 4];
        for round in 0..200 {
            let old = std::mem::replace(&mut fields[round % 4], draw());
            one.replace_field(&old, &fields[round % 4]);
            other.remove_field(&old);
            other.add_field(&fields[round % 4]);
            one.check();
            let counts =
                |picker: &Picker| (0..PIECES).map(|piece| picker.availability(Piece(piece))).collect::<Vec<_>>();
            assert_eq!(counts(&one), counts(&other), "round {round}");
        }
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
