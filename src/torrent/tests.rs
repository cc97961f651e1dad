//! A torrent and its peers, message by message.

mod goals;
mod metadata;

use std::net::SocketAddr;

use crate::base::arena::Id;
use crate::base::config::Config;
use crate::base::geometry::{Piece, Span};
use crate::base::ids::ConnId;
use crate::base::rng::Rng;
use crate::base::storage::{Chunk, Fault, FaultKind};
use crate::base::time::Time;
use crate::codec::extension::{ExtensionHandshake, ExtensionKind, dont_have};
use crate::codec::http_tracker::AnnounceAnswer;
use crate::codec::resume::Record;
use crate::codec::udp_tracker::AnnounceEvent;
use crate::codec::wire::{Front, Handshake, Message, Reserved, parse_handshake, parse_message};
use crate::protocol::peer::{Event, Peer};
use crate::torrent::candidates::Origin;
use crate::torrent::command::AddOptions;
use crate::torrent::create::{Creator, Notes, Profile};
use crate::torrent::disk::Verdict;
use crate::torrent::event::What;
use crate::torrent::partial::BlockSource;
use crate::torrent::peers::Unwelcome;
use crate::torrent::snapshot::{Priority, State};
use crate::torrent::torrent::{Ask, Begin, Phase, Torrent};
use crate::torrent::why::Around;

mod exchange;
mod hostile;
mod reload;
mod super_seed;
mod why;

const PIECES: u32 = 40;
const NOW: Time = Time::ZERO;

/// A running torrent of forty pieces of two blocks each, which has all of them but for `missing`.
fn torrent(missing: std::ops::Range<u32>, config: &Config) -> Torrent {
    torrent_with(missing, config, Notes { name: b"x".to_vec(), ..Notes::default() })
}

fn torrent_with(missing: std::ops::Range<u32>, config: &Config, notes: Notes) -> Torrent {
    let len = u64::from(PIECES) * 32_768;
    torrent_of(vec![(vec![], len)], missing, config, notes)
}

/// A torrent of files of these lengths that has nothing of them.
pub(super) fn torrent_of_files(lens: &[u64]) -> Torrent {
    let path = |file: usize| vec![format!("{file}").into_bytes()];
    let files = lens.iter().enumerate().map(|(file, len)| (path(file), *len)).collect();
    torrent_of(files, 0..PIECES, &Config::default(), Notes { name: b"x".to_vec(), ..Notes::default() })
}

fn torrent_of(
    files: Vec<(Vec<Vec<u8>>, u64)>,
    missing: std::ops::Range<u32>,
    config: &Config,
    notes: Notes,
) -> Torrent {
    let len: u64 = files.iter().map(|(_, len)| len).sum();
    let mut creator = Creator::new(Profile::V1, 32_768, files, notes);
    creator.update(&vec![7; usize::try_from(len).unwrap()]);
    let meta = std::sync::Arc::new(creator.finish().unwrap().0);
    let config = Config { allocate_full: false, ..config.clone() };
    let begin = Begin { dir: "/d".into(), verify: false, added: 0, options: AddOptions::default() };
    let mut torrent = Torrent::new(NOW, meta, begin, &config, Rng::from_number(1), [99; 20]).unwrap();
    for piece in (0..torrent.have.len()).filter(|piece| !missing.contains(piece)) {
        torrent.have.set(piece);
    }
    torrent.handle_opened(NOW, Id::from_bits(1));
    torrent.set_queued(NOW, false);
    assert!(torrent.running);
    torrent
}

fn conn(number: u64) -> ConnId {
    Id::from_bits(number)
}

fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 6881))
}

fn handshake(torrent: &Torrent, id: u8) -> Handshake {
    Handshake { reserved: Reserved::new(true, true, false), info_hash: torrent.info_hash(), peer_id: [id; 20] }
}

/// Bytes that a peer sends.
fn hear(torrent: &mut Torrent, number: u64, bytes: &[u8]) -> Result<(), Unwelcome> {
    let mut input = bytes;
    while let Some(machine) = torrent.machine(conn(number)) {
        let Some(event) = machine.handle_input(NOW, &mut input).unwrap() else { break };
        torrent.handle_peer_event(NOW, conn(number), event)?;
    }
    look_at_peers(torrent);
    Ok(())
}

/// What the engine does at the end of a turn.
fn look_at_peers(torrent: &mut Torrent) {
    while torrent.handle_due_peer(NOW) {}
}

fn tell(torrent: &mut Torrent, number: u64, messages: &[Message<'_>]) {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.write(&mut bytes));
    hear(torrent, number, &bytes).unwrap();
}

/// The bytes that we sent to a peer since the last time, our handshake aside.
fn sent(torrent: &mut Torrent, number: u64) -> Vec<u8> {
    let machine = torrent.machine(conn(number)).unwrap();
    let mut chunks = Vec::new();
    machine.outbuf().chunks(1000, usize::MAX, &mut chunks);
    let bytes: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| match chunk {
            Chunk::Bytes(bytes) => bytes.to_vec(),
            Chunk::Content(..) => panic!("no content is asked for here"),
        })
        .collect();
    machine.advance(NOW, bytes.len());
    match parse_handshake(&bytes) {
        Ok(Front::Whole(_, len)) => bytes[len..].to_vec(),
        _ => bytes,
    }
}

/// What we said to a peer since the last time, our handshake aside.
fn said(torrent: &mut Torrent, number: u64) -> Vec<String> {
    look_at_peers(torrent);
    let bytes = sent(torrent, number);
    let mut rest = bytes.as_slice();
    let mut messages = Vec::new();
    while let Front::Whole(message, len) = parse_message(rest, Some(PIECES)).unwrap() {
        messages.push(format!("{message:?}"));
        rest = &rest[len..];
    }
    messages
}

/// A peer at `addr(number)` that we dialled and that has introduced itself.
fn dialled(torrent: &mut Torrent, number: u8) {
    torrent.candidates.add(NOW, addr(number), Origin::Tracker);
    assert_eq!(torrent.next_candidate(NOW), Some(addr(number)));
    torrent.handle_dialled(NOW, conn(number.into()), addr(number), false).unwrap();
    let handshake = handshake(torrent, number).to_bytes();
    hear(torrent, number.into(), &handshake).unwrap();
}

/// A peer with the id of `number` that came to us from some port of `addr(number)`.
fn accepted(torrent: &mut Torrent, number: u8) {
    let handshake = handshake(torrent, number);
    let mut machine = Box::new(Peer::accepted(NOW));
    assert!(matches!(machine.handle_input(NOW, &mut &handshake.to_bytes()[..]), Ok(Some(Event::Handshake(_)))));
    let from = SocketAddr::new(addr(number).ip(), 50_000);
    torrent.handle_incoming(NOW, conn(number.into()), machine, from, &handshake).unwrap();
}

/// The piece that is about to be begun.
fn begun(torrent: &mut Torrent) -> Piece {
    look_at_peers(torrent);
    let mut asks = std::iter::from_fn(|| torrent.poll_ask());
    asks.find_map(|ask| if let Ask::Prepare(piece, _) = ask { Some(piece) } else { None }).expect("a piece is begun")
}

/// Why it does not move, where the node has nothing to do with that.
fn why(torrent: &Torrent) -> Vec<String> {
    let around = Around { dht_nodes: Some(1), has_visitors: true, ..Around::default() };
    torrent.why(NOW, &around).into_iter().map(|reason| reason.sentence).collect()
}

#[test]
fn what_was_changed_in_a_share_directory_is_not_written_over() {
    let mut torrent = torrent(0..0, &Config::default());
    torrent.settings.shared = true;
    torrent.verify(NOW);
    torrent.have.set_all();
    torrent.have.clear(5);
    torrent.check = None;
    torrent.phase = Phase::Ready;
    torrent.reconsider(NOW);
    assert!(!torrent.running && torrent.download.is_none() && !torrent.wants_to_run());
    assert_eq!(torrent.state(), State::Error);
    assert!(why(&torrent)[0].contains("not what was shared"), "{:?}", why(&torrent));
}

#[test]
fn an_address_that_answers_and_is_refused_may_be_dialled_again() {
    let mut torrent = torrent(0..PIECES, &Config { connections_per_torrent_max: 1, ..Config::default() });
    for number in [1, 2] {
        torrent.candidates.add(NOW, addr(number), Origin::Tracker);
    }
    let first = torrent.next_candidate(NOW).unwrap();
    accepted(&mut torrent, 9);
    assert_eq!(torrent.handle_dialled(NOW, conn(1), first, false), Err(Unwelcome::Full));
    torrent.handle_peer_closed(NOW, conn(9));
    let later = Time::from_secs(100);
    let mut next: Vec<_> = (0..2).filter_map(|_| torrent.candidates.next(later)).collect();
    next.sort_unstable();
    assert_eq!(next, [addr(1), addr(2)]);
}

#[test]
fn nobody_dials_a_peer_that_came_and_told_where_it_listens() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    accepted(&mut torrent, 1);
    let mut payload = Vec::new();
    ExtensionHandshake { port: Some(6881), ..ExtensionHandshake::default() }.write(&mut payload);
    tell(&mut torrent, 1, &[Message::Extended { id: 0, payload: &payload }]);
    torrent.candidates.add(NOW, addr(1), Origin::Tracker);
    assert_eq!(torrent.candidates.next(Time::from_secs(10_000)), None);
    torrent.handle_peer_closed(Time::from_secs(100), conn(1));
    assert_eq!(torrent.candidates.next(Time::from_secs(160)), Some(addr(1)));
}

#[test]
fn a_peer_that_came_and_was_dialled_all_the_same_is_not_dialled_again_while_it_stays() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    accepted(&mut torrent, 1);
    torrent.candidates.add(NOW, addr(1), Origin::Tracker);
    assert_eq!(torrent.next_candidate(NOW), Some(addr(1)));
    torrent.handle_dialled(NOW, conn(2), addr(1), false).unwrap();
    let handshake = handshake(&torrent, 1).to_bytes();
    torrent.peer_id = [0; 20]; // the smaller id: of two connections of one moment the one that we were dialled with stays
    assert_eq!(hear(&mut torrent, 2, &handshake), Err(Unwelcome::Twice));
    assert_eq!(torrent.candidates.next(Time::from_secs(10_000)), None);
    torrent.handle_peer_closed(Time::from_secs(20_000), conn(1));
    assert_eq!(torrent.candidates.next(Time::from_secs(20_060)), Some(addr(1)));
}

#[test]
fn what_a_peer_has_lost_is_asked_of_another() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    for number in [1, 2] {
        dialled(&mut torrent, number);
        tell(&mut torrent, number.into(), &[Message::HaveAll]);
    }
    tell(&mut torrent, 1, &[Message::Unchoke]);
    let piece = begun(&mut torrent);
    torrent.handle_prepared(NOW, piece, conn(1), Ok(()));
    look_at_peers(&mut torrent);
    let request = format!("{:?}", Message::Request(torrent.geometry().block(piece, 0)));
    assert!(said(&mut torrent, 1).contains(&request));
    tell(&mut torrent, 2, &[Message::Unchoke]);
    assert!(!said(&mut torrent, 2).contains(&request), "another peer was asked");
    tell(&mut torrent, 1, &[Message::Extended { id: ExtensionKind::DontHave.id(), payload: &dont_have(piece) }]);
    assert!(said(&mut torrent, 2).contains(&request));
    assert!(!said(&mut torrent, 1).contains(&request));
    assert_eq!(torrent.machine(conn(1)).unwrap().outstanding(), 0);
}

#[test]
fn whoever_was_told_of_pieces_is_gone_before_they_are_looked_at_again() {
    let mut torrent = torrent(0..0, &Config::default());
    accepted(&mut torrent, 1);
    assert!(said(&mut torrent, 1).contains(&"HaveAll".to_owned()));
    torrent.verify(NOW);
    assert_eq!(torrent.peer_count(), 0);
    assert!(std::iter::from_fn(|| torrent.poll_ask()).any(|ask| ask == Ask::Drop(conn(1))));
    let handshake = handshake(&torrent, 1);
    let machine = Box::new(Peer::accepted(NOW));
    assert_eq!(torrent.handle_incoming(NOW, conn(2), machine, addr(1), &handshake), Err(Unwelcome::Stopped));
}

#[test]
fn what_a_peer_suggests_is_asked_of_it_first_and_remembered_within_bounds() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    dialled(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveAll]);
    let suggestions: Vec<_> = (0..30).chain([29]).map(|piece| Message::Suggest(Piece(piece))).collect();
    tell(&mut torrent, 1, &suggestions);
    let expected: Vec<Piece> = (14..30).map(Piece).collect();
    assert_eq!(torrent.peers[&conn(1)].suggested, expected);
    tell(&mut torrent, 1, &[Message::Unchoke]);
    assert_eq!(begun(&mut torrent), Piece(14));
}

#[test]
fn a_piece_that_failed_is_asked_of_no_suspect_while_another_peer_can_be_asked() {
    let block = |torrent: &Torrent, index| format!("{:?}", Message::Request(torrent.geometry().block(Piece(3), index)));
    for (helper, asked) in [(true, 3), (false, 1)] {
        let mut torrent = torrent(3..4, &Config::default());
        let blame = &mut torrent.download.as_mut().unwrap().blame;
        let failed = [1, 2].map(|number| BlockSource { from: Some(addr(number)), crc: 0 });
        assert_eq!(blame.handle_failed(Piece(3), failed.to_vec()), None);
        for number in [1, 2, 3] {
            dialled(&mut torrent, number);
            tell(&mut torrent, number.into(), &[Message::HaveAll]);
        }
        let order = if helper { [3, 1, 2] } else { [1, 2, 3] };
        order[..2].iter().for_each(|&number| tell(&mut torrent, number, &[Message::Unchoke]));
        assert_eq!(begun(&mut torrent), Piece(3));
        torrent.handle_prepared(NOW, Piece(3), conn(1), Ok(()));
        look_at_peers(&mut torrent);
        tell(&mut torrent, order[2], &[Message::Unchoke]);
        torrent.reconsider_peers();
        look_at_peers(&mut torrent);
        for number in [1, 2, 3] {
            let said = said(&mut torrent, number);
            for index in [0, 1] {
                assert_eq!(said.contains(&block(&torrent, index)), number == asked, "{helper} {number} {said:?}");
            }
        }
    }
}

#[test]
fn a_piece_that_the_disk_spoils_stops_the_torrent_and_blames_nobody() {
    let mut torrent = torrent(3..4, &Config::default());
    dialled(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveAll, Message::Unchoke]);
    assert_eq!(begun(&mut torrent), Piece(3));
    torrent.handle_prepared(NOW, Piece(3), conn(1), Ok(()));
    look_at_peers(&mut torrent);
    for index in [1, 0] {
        let block = torrent.geometry().block(Piece(3), index);
        let mut wire = Vec::new();
        Message::PieceHead(block).write(&mut wire);
        wire.extend(vec![7; 16_384]);
        hear(&mut torrent, 1, &wire).unwrap();
        torrent.handle_landed(NOW, conn(1), block);
    }
    let partials = &mut torrent.download.as_mut().unwrap().partials;
    assert_eq!(partials.next_unread(u32::MAX), Some((Piece(3), 16_384, 16_384)), "the second block came first");
    partials.handle_read(Piece(3), &[8; 16_384]);
    let hash = partials.hash(Piece(3)).unwrap();
    torrent.judge(NOW, Piece(3), hash);
    let fault = torrent.fault.as_ref().unwrap();
    assert!(fault.message.contains("read back otherwise than it was written"), "{fault}");
    assert!(!torrent.running && !torrent.candidates.is_banned(addr(1)));
}

fn asks(torrent: &mut Torrent) -> Vec<Ask> {
    look_at_peers(torrent);
    std::iter::from_fn(|| torrent.poll_ask()).collect()
}

fn trouble(kind: FaultKind) -> Fault {
    Fault { kind, message: "trouble".into() }
}

/// What the next run would be told is here.
fn recorded(torrent: &mut Torrent) -> u32 {
    for file in torrent.doubtful_files(usize::MAX) {
        torrent.note_stamp(file, None);
    }
    Record::parse(&torrent.record(NOW)).unwrap().have.count()
}

/// Lets half a second pass, in which a record is due.
fn persist(torrent: &mut Torrent) -> Vec<Ask> {
    asks(torrent);
    torrent.handle_timeout(Time::from_secs(1));
    let asks = asks(torrent);
    asks.into_iter().filter(|ask| matches!(ask, Ask::Sync | Ask::Save)).collect()
}

#[test]
fn what_a_check_finds_is_recorded_only_after_a_sync_that_began_when_it_was_found() {
    let mut torrent = torrent(0..0, &Config::default());
    torrent.content_changed(NOW);
    torrent.verify(NOW);
    assert!(asks(&mut torrent).contains(&Ask::Reopen), "what is open may not be what lies there");
    assert_eq!(recorded(&mut torrent), 0);
    torrent.content_changed(NOW);
    torrent.have.set(0);
    assert_eq!(recorded(&mut torrent), 0);
    assert_eq!(persist(&mut torrent), [Ask::Sync]);
    torrent.content_changed(NOW);
    torrent.have.set(1);
    assert_eq!(recorded(&mut torrent), 0, "the sync is under way");
    torrent.handle_synced(NOW, Ok(()));
    assert_eq!((recorded(&mut torrent), torrent.have.count()), (1, 2), "the second one came too late for it");
}

#[test]
fn a_block_that_came_twice_is_asked_again_of_the_second_if_the_first_never_finishes_it() {
    let mut torrent = torrent(3..4, &Config::default());
    for number in [1, 2] {
        dialled(&mut torrent, number);
        tell(&mut torrent, number.into(), &[Message::HaveAll]);
    }
    tell(&mut torrent, 1, &[Message::Unchoke]);
    assert_eq!(begun(&mut torrent), Piece(3));
    torrent.handle_prepared(NOW, Piece(3), conn(1), Ok(()));
    look_at_peers(&mut torrent);
    tell(&mut torrent, 2, &[Message::Unchoke]);
    let block = torrent.geometry().block(Piece(3), 0);
    let request = format!("{:?}", Message::Request(block));
    assert!(said(&mut torrent, 1).contains(&request) && said(&mut torrent, 2).contains(&request), "the end game");
    let mut wire = Vec::new();
    Message::PieceHead(block).write(&mut wire);
    wire.extend(vec![7; 100]);
    hear(&mut torrent, 1, &wire).unwrap();
    wire.extend(vec![7; 16_384 - 100]);
    hear(&mut torrent, 2, &wire).unwrap();
    torrent.handle_peer_closed(NOW, conn(1));
    torrent.reconsider_peers();
    look_at_peers(&mut torrent);
    assert!(said(&mut torrent, 2).contains(&request));
}

#[test]
fn what_is_read_back_is_recorded_only_after_a_sync() {
    let mut torrent = torrent(3..4, &Config::default());
    dialled(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveAll, Message::Unchoke]);
    assert_eq!(begun(&mut torrent), Piece(3));
    torrent.handle_prepared(NOW, Piece(3), conn(1), Ok(()));
    look_at_peers(&mut torrent);
    for index in [1, 0] {
        let block = torrent.geometry().block(Piece(3), index);
        let mut wire = Vec::new();
        Message::PieceHead(block).write(&mut wire);
        wire.extend(vec![7; 16_384]);
        hear(&mut torrent, 1, &wire).unwrap();
        torrent.handle_landed(NOW, conn(1), block);
    }
    // Nothing that comes in between makes the record claim it.
    assert_eq!(persist(&mut torrent), [Ask::Sync]);
    let partials = &mut torrent.download.as_mut().unwrap().partials;
    partials.handle_read(Piece(3), &[7; 16_384]);
    let hash = partials.hash(Piece(3)).unwrap();
    torrent.judge(NOW, Piece(3), hash);
    torrent.handle_synced(NOW, Ok(()));
    assert_eq!((torrent.have.count(), recorded(&mut torrent)), (PIECES, PIECES - 1));
}

#[test]
fn a_check_that_a_fault_ended_is_made_up_for_whatever_the_next_fault_is() {
    for kind in [FaultKind::Io, FaultKind::Full] {
        let mut torrent = torrent(0..0, &Config::default());
        torrent.verify(NOW);
        torrent.fail(NOW, trouble(kind));
        assert!(torrent.check_progress().is_none());
        torrent.handle_probed(NOW, Err(trouble(FaultKind::Full)));
        torrent.handle_probed(NOW, Ok(()));
        assert!(torrent.check_progress().is_some(), "{kind:?}");
    }
}

#[test]
fn a_torrent_in_trouble_looks_at_what_lies_there_now() {
    let mut torrent = torrent(0..0, &Config::default());
    torrent.fail(NOW, trouble(FaultKind::Gone));
    assert!(asks(&mut torrent).contains(&Ask::Reopen), "what is open is not used on");
    torrent.handle_timeout(Time::from_secs(60));
    assert!(asks(&mut torrent).contains(&Ask::Probe));
}

#[test]
fn missing_files_leave_what_was_synced_claimed_and_the_rest_to_be_read_back() {
    let mut torrent = torrent(0..0, &Config::default());
    torrent.make_all_durable_but(7);
    torrent.fail(NOW, trouble(FaultKind::Gone));
    assert_eq!((torrent.state(), torrent.have.count(), torrent.recheck), (State::Error, PIECES - 1, false));
    let record = Record::parse(&torrent.record(NOW)).unwrap();
    assert_eq!((record.have.count(), record.checking, record.clean), (PIECES - 1, false, false));
    assert_eq!((record.partials.len(), record.partials[0].piece, record.partials[0].blocks.count()), (1, Piece(7), 2));
    assert_eq!(torrent.doubtful_files(9), [0; 0], "its stamps are not taken while it is missing");
}

#[test]
fn a_check_nobody_asked_for_claims_in_the_record_what_was_claimed_before() {
    let mut torrent = torrent(0..3, &Config::default());
    torrent.handle_looked(NOW, Verdict::Changed);
    let claims = |torrent: &Torrent| {
        let record = Record::parse(&torrent.record(NOW)).unwrap();
        (torrent.have.count(), record.have.count(), record.checking)
    };
    assert_eq!(claims(&torrent), (0, PIECES - 3, true));
    torrent.verify(NOW);
    assert_eq!(claims(&torrent), (0, 0, true), "the user's word ends the claim");
}

#[test]
fn an_explicit_check_ends_the_trouble_with_missing_files() {
    let mut torrent = torrent(0..0, &Config::default());
    torrent.fail(NOW, trouble(FaultKind::Gone));
    torrent.verify(NOW);
    assert_eq!((torrent.state(), torrent.have.count(), torrent.expected.is_none()), (State::Checking, 0, true));
    assert!(!torrent.held_files().contains(&true), "everything may be made anew");
}

#[test]
fn a_torrent_is_told_to_be_finished_once_in_its_life() {
    let finished = |torrent: &mut Torrent| torrent.take_news().contains(&What::Finished);
    let mut fetched = torrent(0..PIECES, &Config::default());
    fetched.have.set_all();
    fetched.finish_download(NOW);
    assert!(finished(&mut fetched));
    fetched.have.clear(1);
    fetched.have.set(1);
    fetched.finish_download(NOW);
    assert!(!finished(&mut fetched));
    let record = Record::parse(&fetched.record(NOW)).unwrap();
    assert!(record.told_finished);
    let mut again = torrent(0..PIECES, &Config::default());
    again.restore(NOW, &Record { told_finished: false, finished: Some(5), ..record });
    assert!(again.told_finished, "an older record that is finished was told");
    let mut found = torrent(0..0, &Config::default());
    assert!(found.note_complete(), "found complete");
    found.finish_download(NOW);
    assert!(!finished(&mut found));
}

#[test]
fn of_two_connections_of_one_moment_the_one_that_the_larger_id_dialled_stays() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    accepted(&mut torrent, 1);
    torrent.candidates.add(NOW, addr(1), Origin::Tracker);
    assert_eq!(torrent.next_candidate(NOW), Some(addr(1)));
    torrent.handle_dialled(NOW, conn(2), addr(1), false).unwrap();
    asks(&mut torrent);
    let handshake = handshake(&torrent, 1).to_bytes(); // its id is smaller than ours
    hear(&mut torrent, 2, &handshake).unwrap();
    assert!(asks(&mut torrent).contains(&Ask::Drop(conn(1))));
    assert_eq!(torrent.peers.keys().copied().collect::<Vec<_>>(), [conn(2)]);
}

#[test]
fn a_seeder_proposes_to_each_peer_what_nobody_else_has() {
    let config = Config { upload_slots: crate::base::config::UploadSlots::Fixed(8), ..Config::default() };
    let mut torrent = torrent(0..0, &config);
    for number in [1, 2, 3] {
        accepted(&mut torrent, number);
    }
    // The first one has all but four pieces; the others have none and want something.
    for piece in 0..PIECES - 4 {
        tell(&mut torrent, 1, &[Message::Have(Piece(piece))]);
    }
    let mut proposed = Vec::new();
    for number in [2, 3] {
        tell(&mut torrent, number, &[Message::Interested]);
        proposed.extend(torrent.peers[&conn(number)].proposed.clone());
    }
    proposed.sort_unstable();
    assert_eq!(proposed, (PIECES - 4..PIECES).map(Piece).collect::<Vec<_>>(), "each to one of them");
    let first = torrent.peers[&conn(2)].proposed[0];
    assert!(said(&mut torrent, 2).contains(&format!("{:?}", Message::Suggest(first))));
    tell(&mut torrent, 2, &[Message::Have(first)]);
    assert_eq!(torrent.peers[&conn(2)].proposed.len(), 1, "nothing else is left that nobody has");
}

#[test]
fn requests_for_blocks_that_lie_together_are_told_to_the_disk_together() {
    let mut torrent = torrent(0..0, &Config::default());
    accepted(&mut torrent, 1);
    accepted(&mut torrent, 2);
    asks(&mut torrent);
    for (number, piece, index) in [(1, 3, 0), (1, 3, 1), (1, 4, 0), (2, 4, 1), (1, 9, 0)] {
        let block = torrent.geometry().block(Piece(piece), index);
        torrent.handle_request(conn(number), block);
    }
    let span = |blocks: u64, first: u64| Span { offset: first * 16_384, len: blocks * 16_384 };
    let expected = [
        Ask::Expect(span(3, 6)),
        Ask::Wake(conn(1)),
        Ask::Expect(span(1, 9)),
        Ask::Wake(conn(2)),
        Ask::Expect(span(1, 18)),
        Ask::Wake(conn(1)),
    ];
    assert_eq!(asks(&mut torrent), expected);
}

#[test]
fn a_torrent_is_announced_to_the_local_network_while_it_runs_unless_it_is_private() {
    let said = |torrent: &mut Torrent| -> Vec<Ask> {
        let asks = std::iter::from_fn(|| torrent.poll_ask());
        asks.filter(|ask| matches!(ask, Ask::JoinLsd | Ask::LeaveLsd | Ask::Dial)).collect()
    };
    let on = Config::default();
    let mut open = torrent(0..1, &on);
    assert_eq!(said(&mut open), [Ask::JoinLsd]);
    open.announce(NOW);
    open.handle_lsd_peer(NOW, addr(7));
    assert_eq!(said(&mut open), [Ask::JoinLsd, Ask::Dial]);
    assert_eq!((open.next_candidate(NOW), open.candidates.handle_connected(addr(7))), (Some(addr(7)), Origin::Lsd));
    open.pause(NOW);
    open.announce(NOW);
    open.handle_lsd_peer(NOW, addr(8));
    assert_eq!(said(&mut open), [Ask::LeaveLsd]);

    let notes = Notes { name: b"x".to_vec(), private: true, ..Notes::default() };
    let off = Config { lsd: false, ..on.clone() };
    for mut silent in [torrent_with(0..1, &on, notes), torrent(0..1, &off)] {
        silent.announce(NOW);
        silent.handle_lsd_peer(NOW, addr(7));
        silent.pause(NOW);
        assert_eq!(said(&mut silent), []);
        assert!(silent.candidates.is_empty());
    }
}

#[test]
fn who_has_what_is_wanted_and_not_everything_is_a_partial_seed_for_trackers() {
    let notes = Notes { name: b"x".to_vec(), trackers: vec!["udp://a:1".into()], ..Notes::default() };
    let len = u64::from(PIECES) * 16_384;
    let files = vec![(vec![b"a".to_vec()], len), (vec![b"b".to_vec()], len)];
    let mut creator = Creator::new(Profile::V1, 32_768, files, notes);
    creator.update(&vec![7; usize::try_from(2 * len).unwrap()]);
    let meta = std::sync::Arc::new(creator.finish().unwrap().0);
    let options = AddOptions { only: vec![(0, 0)], ..AddOptions::default() };
    let begin = Begin { dir: "/d".into(), verify: false, added: 0, options };
    let config = Config { allocate_full: false, ..Config::default() };
    let mut torrent = Torrent::new(NOW, meta, begin, &config, Rng::from_number(1), [99; 20]).unwrap();
    torrent.handle_opened(NOW, Id::from_bits(1));
    torrent.set_queued(NOW, false);
    let told = |torrent: &mut Torrent, at: Time| {
        let request = torrent.poll_announce()?;
        torrent.handle_announced(at, request.tracker, Ok(AnnounceAnswer::default()));
        Some((request.announce.event, request.announce.left))
    };
    assert_eq!(told(&mut torrent, NOW), Some((AnnounceEvent::Started, len)));
    (0..PIECES / 2).for_each(|piece| _ = torrent.have.set(piece));
    torrent.finish_download(NOW);
    let later = Time::from_secs(7200);
    torrent.handle_timeout(later);
    assert_eq!(told(&mut torrent, later), Some((AnnounceEvent::Paused, len)));
    // What was not wanted is, after all.
    torrent.layout.set_priorities([(1, Priority::Normal)]);
    assert!(!torrent.is_finished());
    (PIECES / 2..PIECES).for_each(|piece| _ = torrent.have.set(piece));
    torrent.finish_download(later);
    let latest = Time::from_secs(14_400);
    torrent.handle_timeout(latest);
    assert_eq!(told(&mut torrent, latest), Some((AnnounceEvent::Completed, 0)));
    torrent.finish_download(latest);
    torrent.handle_timeout(Time::from_secs(30_000));
    assert_eq!(told(&mut torrent, Time::from_secs(30_000)), Some((AnnounceEvent::Regular, 0)), "once");
}
