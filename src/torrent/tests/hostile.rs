//! What peers may cost that mean harm: the steps of each turn, at the largest geometries.

use std::sync::Arc;

use super::*;
use crate::base::bitfield::Bitfield;
use crate::base::files::FileList;
use crate::base::geometry::{BLOCK_LEN, Geometry};
use crate::base::hash::PieceHashes;
use crate::base::steps;
use crate::codec::extension::ExtensionIds;
use crate::codec::metainfo::PIECE_LEN_MAX;
use crate::codec::pex::{Contact, Flags, PexMessage};
use crate::torrent::partial::BLOCKS_MAX;

const MOST_PIECES: u32 = 1_600_000;

/// A torrent of so many pieces of `piece_len` bytes, of which it has none, or all.
fn large(pieces: u32, piece_len: u32, has_all: bool) -> Torrent {
    let mut creator =
        Creator::new(Profile::V1, 16_384, vec![(vec![], 16_384)], Notes { name: b"x".to_vec(), ..Notes::default() });
    creator.update(&[7; 16_384]);
    let mut meta = creator.finish().unwrap().0;
    let len = u64::from(pieces) * u64::from(piece_len);
    meta.geometry = Geometry::new(len, piece_len).unwrap();
    meta.files = Arc::new(FileList::new([("x".into(), len, false)]));
    meta.pieces = PieceHashes::Sha1(vec![0; pieces as usize * 20].into());
    let config = Config { allocate_full: false, connections_per_torrent_max: 500, ..Config::default() };
    let begin = Begin { dir: "/d".into(), verify: false, added: 0, options: AddOptions::default() };
    let mut torrent = Torrent::new(NOW, Arc::new(meta), begin, &config, Rng::from_number(1), [99; 20]).unwrap();
    if has_all {
        torrent.have = Bitfield::full(pieces);
    }
    torrent.handle_opened(NOW, Id::from_bits(1));
    torrent.set_queued(NOW, false);
    assert!(torrent.running);
    asks(&mut torrent);
    torrent
}

/// A peer says this, in as many turns as the engine would take; what follows from it is done as the engine does it. The steps of the
/// longest turn.
fn turn(torrent: &mut Torrent, number: u64, messages: &[Message<'_>]) -> u64 {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.write(&mut bytes));
    let (mut input, mut longest) = (bytes.as_slice(), 0);
    while !input.is_empty() {
        steps::take();
        while steps::so_far() < steps::TURN_MAX / 2 {
            let machine = torrent.machine(conn(number)).expect("nobody is dropped here");
            let Some(event) = machine.handle_input(NOW, &mut input).expect("what is said is allowed") else { break };
            steps::add(4);
            torrent.handle_peer_event(NOW, conn(number), event).unwrap();
        }
        longest = longest.max(finish_turn(torrent));
    }
    longest
}

/// The end of a turn, and what it left for later turns. The steps of the longest.
fn finish_turn(torrent: &mut Torrent) -> u64 {
    let mut longest = 0;
    let mut before = steps::so_far();
    loop {
        while let Some(ask) = torrent.poll_ask() {
            if let Ask::Prepare(piece, conn) = ask {
                torrent.handle_prepared(NOW, piece, conn, Ok(()));
            }
        }
        if !torrent.has_due_peers() {
            return longest.max(steps::take());
        }
        if steps::so_far() - before >= steps::TURN_MAX / 4 {
            longest = longest.max(steps::take());
            before = 0;
        }
        torrent.handle_due_peer(NOW);
    }
}

fn assert_bounded(what: &str, steps: u64) {
    assert!(steps <= steps::TURN_MAX, "{what}: {steps} steps");
}

#[test]
fn thousands_of_haves_after_an_unchoke_cost_little_in_each_turn() {
    for (pieces, piece_len) in [(MOST_PIECES, BLOCK_LEN), (100_000, 256 << 10), (1_000, PIECE_LEN_MAX)] {
        let mut torrent = large(pieces, piece_len, false);
        for number in 1..=4_u8 {
            dialled(&mut torrent, number);
            assert_bounded("unchoke", turn(&mut torrent, number.into(), &[Message::HaveNone, Message::Unchoke]));
            for from in (0..pieces.min(40_000)).step_by(4_000) {
                let haves: Vec<_> = (from..pieces.min(from + 4_000)).map(|piece| Message::Have(Piece(piece))).collect();
                assert_bounded("haves", turn(&mut torrent, number.into(), &haves));
            }
        }
        let partials = &torrent.download.as_ref().unwrap().partials;
        partials.check();
        let asked: usize = (1..=4).map(|number| torrent.peers[&conn(number)].machine.outstanding()).sum();
        assert!(asked > 0 && partials.len() <= asked + 4, "{} pieces in progress for {asked} requests", partials.len());
    }
}

#[test]
fn fields_of_many_peers_cost_little_in_each_turn_and_when_they_go() {
    let mut torrent = large(MOST_PIECES, BLOCK_LEN, false);
    let half = Bitfield::from_bytes(&vec![0x55; MOST_PIECES as usize / 8], MOST_PIECES).unwrap();
    let mut few = Bitfield::new(MOST_PIECES);
    (0..MOST_PIECES).step_by(1_001).for_each(|piece| _ = few.set(piece));
    for number in 1..=30_u8 {
        accepted(&mut torrent, number);
        let field = match number % 3 {
            0 => Message::HaveAll,
            1 => Message::Bitfield(half.as_bytes()),
            _ => Message::Bitfield(few.as_bytes()),
        };
        assert_bounded("field", turn(&mut torrent, number.into(), &[field, Message::Unchoke]));
    }
    steps::take();
    torrent.handle_timeout(Time::from_secs(1));
    assert_bounded("a tick", finish_turn(&mut torrent));
    for number in 1..=30_u8 {
        torrent.handle_peer_closed(NOW, conn(number.into()));
        assert_bounded("leaving", finish_turn(&mut torrent));
    }
    torrent.download.as_ref().unwrap().picker.check();
}

#[test]
fn choked_peers_that_allow_pieces_cost_little_in_each_turn() {
    let mut torrent = large(MOST_PIECES, BLOCK_LEN, false);
    for number in 1..=40_u8 {
        dialled(&mut torrent, number);
        let allowed = (0..100).map(|piece| Message::AllowedFast(Piece(piece * 16_000 + u32::from(number))));
        let messages: Vec<_> = [Message::HaveAll].into_iter().chain(allowed).collect();
        assert_bounded("allowed fast", turn(&mut torrent, number.into(), &messages));
    }
    steps::take();
    torrent.handle_timeout(Time::from_secs(1));
    assert_bounded("a tick", finish_turn(&mut torrent));
    assert!(torrent.peers.values().all(|peer| peer.machine.outstanding() > 0), "they are asked for what they allow");
}

#[test]
fn rejects_and_choke_flaps_with_long_pieces_cost_little_in_each_turn() {
    let mut torrent = large(64, PIECE_LEN_MAX, false);
    for number in 1..=60_u8 {
        dialled(&mut torrent, number);
        assert_bounded("unchoke", turn(&mut torrent, number.into(), &[Message::HaveAll, Message::Unchoke]));
    }
    for number in 1..=60_u8 {
        let asked: Vec<_> = torrent.download.as_ref().unwrap().partials.asked().collect();
        let of = asked.iter().filter(|(of, _)| *of == conn(number.into())).map(|(_, block)| *block);
        let mut messages: Vec<_> = of.map(Message::Reject).collect();
        messages.extend((0..100).flat_map(|_| [Message::Choke, Message::Unchoke]));
        assert_bounded("rejects and flaps", turn(&mut torrent, number.into(), &messages));
        torrent.download.as_ref().unwrap().partials.check();
    }
}

#[test]
fn contacts_that_are_seeds_cost_little_while_only_some_files_are_wanted() {
    let mut torrent = large(MOST_PIECES, BLOCK_LEN, true);
    let half = u64::from(MOST_PIECES) / 2 * u64::from(BLOCK_LEN);
    let files = FileList::new([("x/a".into(), half, false), ("x/b".into(), half, false)]);
    torrent.layout.set_files(Arc::new(files));
    torrent.layout.set_priorities([(1, Priority::Off)]);
    assert!(torrent.is_finished());
    let ids = ExtensionIds::of(&[ExtensionKind::Pex]);
    let mut hello = Vec::new();
    ExtensionHandshake { ids, ..ExtensionHandshake::default() }.write(&mut hello);
    for number in 1..=20_u8 {
        accepted(&mut torrent, number);
        let contact = |of: u8| Contact { addr: SocketAddr::from(([20, number, 0, of], 6881)), flags: Flags::SEED };
        let mut payload = Vec::new();
        PexMessage { added: (1..=100).map(contact).collect(), dropped: Vec::new() }.write(&mut payload);
        let pex = Message::Extended { id: ExtensionKind::Pex.id(), payload: &payload };
        let hello = Message::Extended { id: 0, payload: &hello };
        assert_bounded("contacts", turn(&mut torrent, number.into(), &[Message::HaveNone, hello, pex]));
    }
}

#[test]
fn interest_flaps_and_haves_at_a_seed_cost_little_in_each_turn() {
    let mut torrent = large(MOST_PIECES, BLOCK_LEN, true);
    for number in 1..=50_u8 {
        accepted(&mut torrent, number);
        assert_bounded("field", turn(&mut torrent, number.into(), &[Message::HaveNone]));
    }
    for number in 1..=50_u8 {
        let flaps: Vec<_> = (0..200).flat_map(|_| [Message::Interested, Message::NotInterested]).collect();
        assert_bounded("flaps", turn(&mut torrent, number.into(), &flaps));
        turn(&mut torrent, number.into(), &[Message::Interested]);
        let haves: Vec<_> = (0..8_000).map(|piece| Message::Have(Piece(piece * 199))).collect();
        assert_bounded("haves", turn(&mut torrent, number.into(), &haves));
    }
}

#[test]
fn no_more_is_in_progress_than_the_bound_whatever_the_length_of_pieces() {
    let mut torrent = large(100, PIECE_LEN_MAX, false);
    for number in (1..=200).filter(|number| *number != 99) {
        dialled(&mut torrent, number);
        let piece = Piece(u32::from(number) % 100);
        turn(&mut torrent, number.into(), &[Message::Unchoke, Message::Have(piece)]);
    }
    let partials = &torrent.download.as_ref().unwrap().partials;
    let of_piece = (PIECE_LEN_MAX / BLOCK_LEN) as usize;
    let blocks = partials.len() * of_piece;
    assert!((BLOCKS_MAX / 2..=BLOCKS_MAX + of_piece).contains(&blocks), "{blocks} blocks");
}

#[test]
fn peers_that_take_up_pieces_and_drop_them_leave_room_for_others() {
    let mut torrent = large(20_000, BLOCK_LEN, false);
    dialled(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveNone, Message::Unchoke]);
    for piece in 0..19_000 {
        turn(&mut torrent, 1, &[Message::Have(Piece(piece))]);
        let machine = torrent.machine(conn(1)).unwrap();
        machine.take_requests_of(NOW, Piece(piece)).into_iter().for_each(|block| {
            torrent.handle_peer_event(NOW, conn(1), Event::Reject(block)).unwrap();
        });
        torrent.handle_peer_event(NOW, conn(1), Event::DontHave(Piece(piece))).unwrap();
        sent(&mut torrent, 1);
    }
    assert!(torrent.download.as_ref().unwrap().partials.len() > 10_000, "they are in progress");
    dialled(&mut torrent, 2);
    let haves: Vec<_> = (19_500..19_600).map(|piece| Message::Have(Piece(piece))).collect();
    turn(&mut torrent, 2, &[&[Message::Unchoke][..], &haves].concat());
    assert!(torrent.peers[&conn(2)].machine.outstanding() > 0);
}
