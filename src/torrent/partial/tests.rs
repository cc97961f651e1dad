use proptest::prelude::*;

use super::*;
use crate::base::arena::Id;
use crate::base::hash::Sha1Hash;

const BLOCK: u32 = BLOCK_LEN;

fn content() -> Vec<u8> {
    (0..2 * 3 * BLOCK + 100).map(|at| (at % 251) as u8).collect()
}

fn geometry() -> Geometry {
    Geometry::new(u64::from(2 * 3 * BLOCK + 100), 3 * BLOCK).unwrap()
}

fn hash(piece: Piece) -> PieceHash {
    let span = geometry().span_of(piece);
    PieceHash::Sha1(Sha1Hash::of(&content()[span.offset as usize..span.end() as usize]))
}

fn conn(number: u64) -> ConnId {
    Id::from_bits(number)
}

fn addr(number: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number as u8], 6881))
}

fn bytes_of(block: Block) -> Vec<u8> {
    let span = geometry().span_of_block(block).unwrap();
    (span.offset..span.end()).map(|at| (at % 251) as u8).collect()
}

fn started(pieces: &[u32]) -> Partials {
    let mut partials = Partials::new(geometry());
    for &piece in pieces {
        partials.start(Piece(piece), hash(Piece(piece)), Priority::Normal, false);
    }
    partials
}

fn ask(partials: &mut Partials, who: u64, count: usize) -> Vec<Block> {
    let mut chosen = Vec::new();
    while chosen.len() < count
        && let Some(&piece) = partials.open_for(conn(who), None, |_| true, |_| 0).first()
    {
        partials.ask(conn(who), piece, count - chosen.len(), &mut chosen);
    }
    partials.check();
    chosen
}

fn deliver(partials: &mut Partials, who: u64, block: Block) -> Vec<ConnId> {
    assert!(partials.land(Time::ZERO, block, conn(who), addr(who)));
    assert!(partials.landed(Time::ZERO, block, conn(who), 0, &bytes_of(block)));
    let mut others = Vec::new();
    assert!(partials.stored(block, conn(who), &mut others));
    partials.check();
    others
}

#[test]
fn a_piece_that_comes_in_order_is_hashed_on_arrival() {
    let mut partials = started(&[0]);
    for block in ask(&mut partials, 1, 3) {
        assert!(partials.hash(Piece(0)).is_none());
        deliver(&mut partials, 1, block);
    }
    assert_eq!(partials.hash(Piece(0)), Some(hash(Piece(0))));
    let sources = partials.take(Piece(0)).unwrap();
    assert!(sources.iter().all(|source| source.from == Some(addr(1))));
    assert!(!partials.contains(Piece(0)));
}

#[test]
fn hash_of_a_piece_begins_again_when_several_of_its_hashed_blocks_are_lost() {
    let mut partials = started(&[0]);
    let blocks = ask(&mut partials, 1, 3);
    for &block in &blocks[..2] {
        assert!(partials.land(Time::ZERO, block, conn(1), addr(1)));
        assert!(partials.landed(Time::ZERO, block, conn(1), 0, &vec![0xbd; block.len as usize]));
    }
    assert!(partials.lost(conn(1)));
    partials.check();
    for block in ask(&mut partials, 2, 3) {
        deliver(&mut partials, 2, block);
    }
    assert!(partials.is_full(Piece(0)));
    assert_eq!(partials.hash(Piece(0)), Some(hash(Piece(0))));
}

#[test]
fn what_came_out_of_order_is_read_back() {
    let mut partials = started(&[0]);
    let blocks = ask(&mut partials, 1, 3);
    for at in [0, 2, 1] {
        deliver(&mut partials, 1, blocks[at]);
    }
    // The first two blocks were hashed as they came: only the third is read.
    assert_eq!(partials.next_unread(10_000), Some((Piece(0), 2 * BLOCK, 10_000)));
    partials.handle_read(Piece(0), &bytes_of(blocks[2])[..10_000]);
    assert_eq!(partials.next_unread(10_000), Some((Piece(0), 2 * BLOCK + 10_000, BLOCK - 10_000)));
    partials.handle_read(Piece(0), &bytes_of(blocks[2])[10_000..]);
    assert_eq!(partials.hash(Piece(0)), Some(hash(Piece(0))));
}

#[test]
fn what_is_read_back_otherwise_than_it_came_is_the_disks_fault() {
    for spoil in [None, Some(0), Some(BLOCK as usize - 1)] {
        let mut partials = started(&[0]);
        let blocks = ask(&mut partials, 1, 3);
        for at in [0, 2, 1] {
            deliver(&mut partials, 1, blocks[at]);
        }
        let mut read = bytes_of(blocks[2]);
        if let Some(at) = spoil {
            read[at] ^= 1;
        }
        partials.handle_read(Piece(0), &read[..10_000]);
        partials.handle_read(Piece(0), &read[10_000..]);
        assert_eq!(partials.is_spoilt(Piece(0)), spoil.is_some(), "{spoil:?}");
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_has_stalled() {
    let mut partials = started(&[0]);
    let block = ask(&mut partials, 1, 3)[0];
    let mut again = Vec::new();
    partials.ask_again(conn(2), 1, |_| true, &mut again);
    assert_eq!(again, [block]);
    assert!(partials.land(Time::ZERO, block, conn(1), addr(1)));
    assert!(partials.landed(Time::ZERO, block, conn(1), 0, &bytes_of(block)[..100]));
    assert!(!partials.land(Time::from_secs(9), block, conn(2), addr(2)));
    let late = Time::from_secs(10);
    assert!(partials.land(late, block, conn(2), addr(2)));
    assert!(
        !partials.landed(late, block, conn(1), 100, &bytes_of(block)[100..]),
        "the first writer has lost its right"
    );
    assert!(partials.landed(late, block, conn(2), 0, &bytes_of(block)));
    let mut others = Vec::new();
    assert!(!partials.stored(block, conn(1), &mut others));
    assert!(partials.stored(block, conn(2), &mut others));
    assert_eq!(others, [conn(1)], "the first one is told to stop");
    assert!(!partials.land(late, block, conn(1), addr(1)), "a stored block has no writer");
    partials.check();
}

#[test]
fn a_block_refused_of_one_peer_is_asked_again_when_the_one_that_was_landing_it_is_lost() {
    let mut partials = started(&[0]);
    let blocks = ask(&mut partials, 1, 3);
    partials.ask_again(conn(2), 1, |_| true, &mut Vec::new());
    assert!(partials.land(Time::ZERO, blocks[0], conn(1), addr(1)));
    assert!(!partials.land(Time::ZERO, blocks[0], conn(2), addr(2)), "it comes from another one already");
    partials.refused(blocks[0], conn(2));
    assert_eq!(ask(&mut partials, 2, 9), []);
    partials.lost(conn(1));
    assert_eq!(ask(&mut partials, 2, 9), blocks);
}

#[test]
fn half_a_block_of_a_lost_peer_leaves_no_trace_in_the_hash() {
    let mut partials = started(&[0]);
    let blocks = ask(&mut partials, 1, 3);
    deliver(&mut partials, 1, blocks[0]);
    assert!(partials.land(Time::ZERO, blocks[1], conn(1), addr(1)));
    assert!(partials.landed(Time::ZERO, blocks[1], conn(1), 0, &[7; 5000]));
    partials.lost(conn(1));
    partials.check();
    assert_eq!(ask(&mut partials, 2, 9), blocks[1..]);
    deliver(&mut partials, 2, blocks[1]);
    deliver(&mut partials, 2, blocks[2]);
    assert_eq!(partials.hash(Piece(0)), Some(hash(Piece(0))));
}

#[test]
fn a_peer_finishes_its_piece_before_it_helps_with_another() {
    let mut partials = started(&[0, 1]);
    assert_eq!(ask(&mut partials, 1, 1)[0].piece, Piece(0));
    assert_eq!(ask(&mut partials, 2, 1)[0].piece, Piece(0), "the piece that is nearest to being full");
    partials.last.insert(conn(3), Piece(1));
    assert_eq!(ask(&mut partials, 3, 1)[0].piece, Piece(1));
    let rest: Vec<_> = ask(&mut partials, 1, 9).iter().map(|block| block.piece.0).collect();
    assert_eq!(rest, [0, 1, 1]);
}

#[test]
fn a_more_wanted_piece_is_asked_first_and_an_unwanted_one_never() {
    let mut partials = started(&[0, 1, 2]);
    assert_eq!(ask(&mut partials, 1, 1)[0].piece, Piece(2), "it has but one block");
    assert_eq!(ask(&mut partials, 1, 1)[0].piece, Piece(0));
    let wanted = [Priority::Normal, Priority::High, Priority::Off];
    partials.set_priorities(|piece| wanted[piece.index()]);
    partials.check();
    let order = |blocks: Vec<Block>| blocks.iter().map(|block| block.piece.0).collect::<Vec<_>>();
    assert_eq!(order(ask(&mut partials, 1, 4)), [1, 1, 1, 0], "before the piece it was asked for last");
    partials.lost(conn(1));
    partials.set_priorities(|piece| if piece == Piece(0) { Priority::Low } else { Priority::Off });
    assert_eq!(order(ask(&mut partials, 2, 9)), [0, 0, 0]);
    let mut again = Vec::new();
    partials.ask_again(conn(3), 9, |_| true, &mut again);
    assert_eq!(order(again), [0, 0, 0]);
    partials.set_priorities(|_| Priority::Normal);
    assert_eq!(order(ask(&mut partials, 2, 9)), [2, 1, 1, 1]);
}

#[test]
fn every_open_piece_is_found_however_many_others_come_before_it() {
    let pieces = u32::try_from(3 * OPEN_LOOKS_MAX).unwrap();
    let len = u64::from(pieces) * 2 * u64::from(BLOCK);
    let mut partials = Partials::new(Geometry::new(len, 2 * BLOCK).unwrap());
    (0..pieces).for_each(|piece| partials.start(Piece(piece), hash(Piece(0)), Priority::Normal, false));
    for theirs in [0, pieces - 1, pieces / 2] {
        let mut calls = std::iter::repeat_with(|| partials.open_for(conn(1), None, |piece| piece.0 == theirs, |_| 0));
        assert!(calls.by_ref().take(5).any(|found| found == [Piece(theirs)]), "{theirs}");
    }
}

#[test]
fn piece_that_was_taken_up_and_dropped_makes_room() {
    let mut partials = started(&[0, 1]);
    let blocks = ask(&mut partials, 1, 6);
    assert_eq!(partials.take_untouched(), None);
    deliver(&mut partials, 1, blocks[4]);
    assert!(partials.lost(conn(1)));
    assert_eq!(partials.take_untouched(), Some(Piece(0)));
    assert_eq!(partials.take_untouched(), None, "a block of piece 1 is here");
    partials.check();
}

#[test]
fn unwanted_pieces_leave_room_for_wanted_ones() {
    let pieces = u32::try_from(BLOCKS_MAX.div_ceil(1 + PIECE_WEIGHT)).unwrap() + 1;
    let mut partials = Partials::new(Geometry::new(u64::from(pieces) * u64::from(BLOCK), BLOCK).unwrap());
    let hash = hash(Piece(0));
    for piece in 0..pieces {
        assert_eq!(partials.is_crowded(), piece == pieces - 1);
        partials.start(Piece(piece), hash, Priority::Normal, false);
    }
    partials.set_priorities(|piece| if piece.0 < 2 { Priority::Off } else { Priority::Normal });
    assert!(!partials.is_crowded());
    partials.take(Piece(0));
    partials.check();
}

#[test]
fn a_piece_on_parole_is_asked_of_one_peer_alone() {
    let mut partials = Partials::new(geometry());
    partials.start(Piece(0), hash(Piece(0)), Priority::Normal, true);
    assert_eq!(ask(&mut partials, 1, 1).len(), 1);
    assert_eq!(ask(&mut partials, 2, 9).len(), 0);
    partials.lost(conn(1));
    assert_eq!(ask(&mut partials, 2, 9).len(), 3);
}

#[test]
fn restored_blocks_are_not_asked_again_and_blame_nobody() {
    let mut partials = Partials::new(geometry());
    let mut field = Bitfield::new(3);
    field.set(1);
    partials.restore(Piece(0), hash(Piece(0)), Priority::Normal, &field);
    let asked: Vec<_> = ask(&mut partials, 1, 9).iter().map(|block| block.offset / BLOCK).collect();
    assert_eq!(asked, [0, 2]);
    assert_eq!(partials.stored_blocks(), [(Piece(0), field)]);
    assert_eq!(partials.take(Piece(0)).unwrap()[1].from, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever peers do, the counts hold, a stored block stays stored, and a full piece hashes right.
    #[test]
    fn invariants_hold_under_any_order(steps in proptest::collection::vec((0..7_u8, 1..4_u64, 0..6_u32, 0..3_u32), 0..300)) {
        let mut partials = started(&[0, 1, 2]);
        let mut now = Time::ZERO;
        let blocks: Vec<Block> = (0..3).flat_map(|piece| {
            (0..geometry().blocks_of(Piece(piece))).map(move |index| geometry().block(Piece(piece), index))
        }).collect();
        let mut stored = BTreeSet::new();
        for (what, who, which, part) in steps {
            now += Duration::from_secs(1);
            let block = blocks[which as usize % blocks.len()];
            let bytes = bytes_of(block);
            match what {
                0 => drop(ask(&mut partials, who, 2)),
                1 => {
                    let taken = partials.land(now, block, conn(who), addr(who));
                    prop_assert!(!(taken && stored.contains(&block)));
                }
                2 => {
                    let from = (bytes.len() * part as usize / 3).min(bytes.len());
                    let to = (bytes.len() * (part as usize + 1) / 3).min(bytes.len());
                    partials.landed(now, block, conn(who), from as u32, &bytes[from..to]);
                }
                3 => {
                    if partials.stored(block, conn(who), &mut Vec::new()) {
                        prop_assert!(stored.insert(block));
                    }
                }
                4 => _ = partials.lost(conn(who)),
                5 => {
                    let priorities = [Priority::Off, Priority::Low, Priority::Normal, Priority::High];
                    partials.set_priorities(|piece| priorities[(piece.0 + which + part) as usize % 4]);
                }
                _ => partials.rejected(block, conn(who)),
            }
            partials.check();
        }
        for (piece, field) in partials.stored_blocks() {
            let expected = stored.iter().filter(|block| block.piece == piece).count();
            prop_assert_eq!(field.count() as usize, expected);
            if partials.is_full(piece) {
                while let Some((piece, offset, len)) = partials.next_unread(9999).filter(|&(_, _, len)| len > 0) {
                    let start = (geometry().span_of(piece).offset + u64::from(offset)) as usize;
                    partials.handle_read(piece, &content()[start..start + len as usize]);
                    if partials.hash(piece).is_some() {
                        prop_assert_eq!(partials.hash(piece), Some(hash(piece)));
                        partials.take(piece);
                    }
                }
                if partials.contains(piece) {
                    prop_assert_eq!(partials.hash(piece), Some(hash(piece)));
                }
            }
        }
    }
}
