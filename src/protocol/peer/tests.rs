use proptest::prelude::*;

use super::receive::{CHANGES_MAX, REFUSED_MAX, REJECTED_MAX, UNASKED_MAX};
use super::*;
use crate::base::arena::Id;
use crate::base::storage::Chunk;

const PIECES: u32 = 20;

fn hello(id: u8) -> Hello {
    Hello { info_hash: InfoHash::of(b"x"), peer_id: [id; 20], dht: false }
}

fn block(piece: u32, index: u32) -> Block {
    Block { piece: Piece(piece), offset: index * 16_384, len: 16_384 }
}

/// Everything that `peer` has to send; content as bytes of 7.
fn output(peer: &mut Peer) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !peer.outbuf().is_empty() {
        let mut chunks = Vec::new();
        peer.outbuf().chunks(3, 10_000, &mut chunks);
        for chunk in &chunks {
            match chunk {
                Chunk::Bytes(chunk) => bytes.extend_from_slice(chunk),
                Chunk::Content(_, span) => bytes.extend(vec![7; usize::try_from(span.len).unwrap()]),
            }
        }
        let len = chunks
            .iter()
            .map(|chunk| match chunk {
                Chunk::Bytes(bytes) => bytes.len(),
                Chunk::Content(_, span) => usize::try_from(span.len).unwrap(),
            })
            .sum();
        drop(chunks);
        peer.advance(Time::ZERO, len);
    }
    bytes
}

/// Events as text, adjacent payload joined, so that splits of a stream can be compared.
fn events(peer: &mut Peer, input: &mut &[u8]) -> Result<Vec<String>, PeerError> {
    let mut seen = Vec::new();
    while let Some(event) = peer.handle_input(Time::ZERO, input)? {
        match event {
            Event::BlockBytes { block, last, .. } if last => seen.push(format!("whole {block:?}")),
            Event::BlockBytes { .. } | Event::Waste(_) => {}
            event => seen.push(format!("{event:?}")),
        }
    }
    Ok(seen)
}

/// Two peers that have introduced themselves to one another.
fn pair() -> (Peer, Peer) {
    let (mut a, mut b) = (Peer::dialled(Time::ZERO, hello(1)), Peer::accepted(Time::ZERO));
    assert_eq!(deliver(&mut a, &mut b).unwrap().len(), 1);
    b.greet(Time::ZERO, hello(2));
    assert_eq!(deliver(&mut b, &mut a).unwrap().len(), 1);
    a.set_pieces(PIECES);
    b.set_pieces(PIECES);
    (a, b)
}

fn deliver(from: &mut Peer, to: &mut Peer) -> Result<Vec<String>, PeerError> {
    let bytes = output(from);
    let mut input = bytes.as_slice();
    let seen = events(to, &mut input)?;
    assert!(input.is_empty());
    Ok(seen)
}

fn error(input: &[u8]) -> PeerError {
    let (mut a, _) = pair();
    let mut input = input;
    events(&mut a, &mut input).unwrap_err()
}

#[test]
fn a_block_is_asked_for_served_and_counted() {
    let (mut a, mut b) = pair();
    b.send_field(&Bitfield::full(PIECES));
    a.interest();
    assert_eq!(deliver(&mut b, &mut a).unwrap(), ["HaveAll"]);
    assert_eq!(deliver(&mut a, &mut b).unwrap(), ["Interested"]);
    assert_eq!(a.wanted(Time::ZERO), 0, "it chokes us");
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    assert!(a.wanted(Time::ZERO) >= 2 && b.peer_interested());
    a.request(Time::ZERO, block(3, 1));
    deliver(&mut a, &mut b).unwrap();
    b.queue_upload(block(3, 1));
    assert_eq!(b.next_upload(), Some(block(3, 1)));
    b.send_block(block(3, 1), Id::from_bits(1), Span { offset: 0, len: 16_384 });
    assert_eq!(b.next_upload(), None);
    let seen = deliver(&mut b, &mut a).unwrap();
    assert_eq!(seen, [format!("BlockHead({:?})", block(3, 1)), format!("whole {:?}", block(3, 1))]);
    assert_eq!((a.outstanding(), a.down().total_bytes(), b.up().total_bytes()), (0, 16_384, 16_384));
}

#[test]
fn choking_rejects_what_was_asked_and_a_choked_request_is_rejected() {
    let (mut a, mut b) = pair();
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    a.request(Time::ZERO, block(0, 0));
    deliver(&mut a, &mut b).unwrap();
    b.queue_upload(block(0, 0));
    b.choke();
    assert_eq!(deliver(&mut b, &mut a).unwrap(), ["Choke".into(), format!("Reject({:?})", block(0, 0))]);
    a.request(Time::ZERO, block(0, 1));
    assert!(deliver(&mut a, &mut b).unwrap().is_empty());
    assert_eq!(deliver(&mut b, &mut a).unwrap(), [format!("Reject({:?})", block(0, 1))]);
    b.allow_fast(Piece(5), 100);
    deliver(&mut b, &mut a).unwrap();
    assert!(a.may_ask(Piece(5)) && !a.may_ask(Piece(4)));
    a.request(Time::ZERO, block(5, 0));
    assert_eq!(deliver(&mut a, &mut b).unwrap(), [format!("Request({:?})", block(5, 0))]);
}

#[test]
fn a_cancelled_block_that_comes_after_all_is_waste_and_nobodys_fault() {
    let (mut a, mut b) = pair();
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    for _ in 0..100 {
        a.request(Time::ZERO, block(0, 0));
        deliver(&mut a, &mut b).unwrap();
        b.queue_upload(block(0, 0));
        b.send_block(block(0, 0), Id::from_bits(1), Span { offset: 0, len: 16_384 });
        a.cancel(Time::ZERO, block(0, 0));
        assert!(deliver(&mut b, &mut a).unwrap().is_empty());
        deliver(&mut a, &mut b).unwrap();
    }
}

#[test]
fn blocks_that_nobody_asked_for_end_it() {
    let mut input = Vec::new();
    for _ in 0..=UNASKED_MAX {
        Message::PieceHead(block(0, 0)).write(&mut input);
        input.extend([0; 16_384]);
    }
    assert_eq!(error(&input), PeerError::Unasked);
}

#[test]
fn lengths_beyond_sense_end_it_at_their_prefix() {
    assert_eq!(error(&[0xff; 4]), PeerError::Wire(WireError::TooLong));
    assert_eq!(error(&[0, 0, 0, 5, 5, 0, 0, 0, 0]), PeerError::Wire(WireError::WrongLength));
    assert_eq!(error(&[0, 0, 0, 4, 5, 0xff, 0xff, 0xf1]), PeerError::SpareBits);
    assert_eq!(error(&[0, 0, 0, 5, 4, 0, 0, 0, 20]), PeerError::NoSuchPiece);
    assert_eq!(error(&[0, 0, 0, 13, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]), PeerError::AbsurdRequest);
    let mut stranger = Peer::accepted(Time::ZERO);
    assert_eq!(events(&mut stranger, &mut &b"GET / HTTP/1.1\r\n"[..]), Err(PeerError::Wire(WireError::NotBitTorrent)));
}

#[test]
fn who_does_not_introduce_itself_or_falls_silent_is_dropped() {
    let mut slow = Peer::accepted(Time::ZERO);
    for second in 1..10 {
        slow.handle_input(Time::from_secs(second), &mut &b"\x13"[..]).unwrap();
        assert_eq!(slow.handle_timeout(Time::from_secs(second)), Ok(()));
    }
    assert_eq!(slow.handle_timeout(Time::from_secs(10)), Err(PeerError::NoHandshake));
    let (mut a, mut b) = pair();
    assert_eq!(a.handle_timeout(Time::from_secs(100)), Ok(()));
    assert_eq!(output(&mut a), [0; 4], "a keep-alive");
    assert_eq!(b.handle_timeout(Time::from_secs(150)), Err(PeerError::Silent));
}

#[test]
fn a_message_that_never_ends_is_as_good_as_silence() {
    let (mut slow, mut steady) = (pair().0, pair().0);
    let unfinished = [0, 0, 0, 13, 6];
    for second in 1..150 {
        // What is not whole is lent again, as it is kept with the connection.
        slow.handle_input(Time::from_secs(second), &mut &unfinished[..]).unwrap();
        steady.handle_input(Time::from_secs(second), &mut &[0; 4][..]).unwrap();
        assert_eq!(slow.handle_timeout(Time::from_secs(second)), Ok(()));
    }
    assert_eq!(slow.handle_timeout(Time::from_secs(150)), Err(PeerError::Silent));
    assert_eq!(steady.handle_timeout(Time::from_secs(150)), Ok(()));
}

#[test]
fn a_flood_of_requests_is_bounded() {
    let (_, mut b) = pair();
    b.unchoke();
    output(&mut b);
    let mut input = Vec::new();
    for index in 0..2 * u32::try_from(UPLOADS_MAX).unwrap() {
        Message::Request(Block { piece: Piece(0), offset: index, len: 1 }).write(&mut input);
    }
    let mut input = input.as_slice();
    let mut told = 0;
    let error = loop {
        match b.handle_input(Time::ZERO, &mut input) {
            Ok(Some(Event::Request(block))) => b.queue_upload(block),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        told += 1;
    };
    assert_eq!((told, error), (UPLOADS_MAX, PeerError::Flood));
    assert!(b.uploads.is_full());
    assert_eq!(output(&mut b).len(), 17 * (REFUSED_MAX as usize + 1), "the rest is rejected");
}

#[test]
fn a_request_that_waits_already_is_told_once() {
    let (mut a, mut b) = pair();
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    let mut input = Vec::new();
    for _ in 0..5000 {
        Message::Request(block(1, 0)).write(&mut input);
    }
    let mut input = input.as_slice();
    assert!(matches!(b.handle_input(Time::ZERO, &mut input), Ok(Some(Event::Request(_)))));
    b.queue_upload(block(1, 0));
    assert!(matches!(b.handle_input(Time::ZERO, &mut input), Ok(None)));
    assert!(b.outbuf().is_empty());
}

#[test]
fn a_piece_allowed_fast_and_then_rejected_is_not_asked_for_again() {
    let (mut a, mut b) = pair();
    b.allow_fast(Piece(5), 100);
    deliver(&mut b, &mut a).unwrap();
    a.request(Time::ZERO, block(5, 0));
    deliver(&mut a, &mut b).unwrap();
    b.reject(block(5, 0));
    assert_eq!(deliver(&mut b, &mut a).unwrap(), [format!("Reject({:?})", block(5, 0))]);
    assert!(!a.may_ask(Piece(5)) && a.wanted(Time::ZERO) == 0);
}

#[test]
fn a_peer_that_gives_a_slot_and_rejects_everything_is_dropped() {
    let (mut a, mut b) = pair();
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    for round in 0..=REJECTED_MAX {
        a.request(Time::ZERO, block(0, 0));
        b.reject(block(0, 0));
        assert_eq!(deliver(&mut b, &mut a).is_err(), round == REJECTED_MAX, "{round}");
        b.refused = 0;
    }
}

#[test]
fn a_peer_may_change_its_mind_only_so_often() {
    let (mut a, _) = pair();
    let mut wire = Vec::new();
    Message::Interested.write(&mut wire);
    Message::NotInterested.write(&mut wire);
    for second in 0..10_000 {
        let mut input = wire.as_slice();
        for _ in 0..2 {
            assert!(matches!(a.handle_input(Time::from_secs(second), &mut input), Ok(Some(_))));
        }
    }
    assert_eq!(error(&wire.repeat(CHANGES_MAX as usize)), PeerError::Flood);
    let mut fields = Vec::new();
    Message::HaveAll.write(&mut fields);
    Message::HaveNone.write(&mut fields);
    assert_eq!(error(&fields.repeat(5)), PeerError::Flood, "each is work for every piece");
}

/// A peer that waits for two blocks, of which the first has begun to come.
fn landing() -> Peer {
    let (mut a, mut b) = pair();
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    a.request(Time::ZERO, block(0, 0));
    a.request(Time::ZERO, block(0, 1));
    output(&mut a);
    let mut wire = Vec::new();
    Message::PieceHead(block(0, 0)).write(&mut wire);
    wire.extend([5; 100]);
    assert_eq!(events(&mut a, &mut wire.as_slice()).unwrap(), [format!("BlockHead({:?})", block(0, 0))]);
    a
}

/// The rest of the block that [`landing`] began.
fn rest_is_waste(peer: &mut Peer) {
    let rest = [5; 16_284];
    let mut input = &rest[..];
    assert!(matches!(peer.handle_input(Time::ZERO, &mut input), Ok(Some(Event::Waste(16_284)))));
    assert!(matches!(peer.handle_input(Time::ZERO, &mut input), Ok(None)));
    assert_eq!(peer.down().total_bytes(), 100, "waste is no payload");
}

#[test]
fn a_block_cancelled_while_it_comes_is_waste_from_there_and_the_peer_is_not_told() {
    let mut a = landing();
    a.cancel(Time::ZERO, block(0, 0));
    assert!(a.outbuf().is_empty());
    rest_is_waste(&mut a);
    assert_eq!(a.outstanding(), 1);
}

#[test]
fn requests_taken_back_while_a_block_comes_leave_nothing_to_wait_for() {
    let mut a = landing();
    a.take_requests(Time::ZERO, true);
    assert_eq!(output(&mut a).len(), 17, "one cancel, for the block that has not begun");
    assert_eq!(a.outstanding(), 0);
    rest_is_waste(&mut a);
    assert!(!a.requests.forgive(block(0, 0)) && a.requests.forgive(block(0, 1)));
}

#[test]
fn a_refused_block_may_be_asked_for_again_at_once() {
    let mut a = landing();
    a.refuse_block();
    assert_eq!(a.outstanding(), 1);
    a.request(Time::ZERO, block(0, 0));
    assert_eq!(output(&mut a).len(), 17);
    rest_is_waste(&mut a);
    let mut wire = Vec::new();
    Message::PieceHead(block(0, 0)).write(&mut wire);
    assert_eq!(events(&mut a, &mut wire.as_slice()).unwrap(), [format!("BlockHead({:?})", block(0, 0))]);
}

#[test]
fn a_stalled_block_counts_as_snubbing_and_one_request_shows_when_the_peer_wakes() {
    let mut a = landing();
    let late = Time::from_secs(60);
    assert!(a.is_snubbed(late));
    a.take_requests(late, true);
    assert!(a.is_snubbed(late));
    assert_eq!(a.wanted(late), 1);
}

#[test]
fn a_block_of_another_length_than_asked_was_not_asked_for() {
    let mut a = landing();
    rest_is_taken(&mut a);
    let mut wire = Vec::new();
    Message::PieceHead(Block { len: 16_383, ..block(0, 1) }).write(&mut wire);
    wire.push(5);
    let mut input = wire.as_slice();
    assert!(matches!(a.handle_input(Time::ZERO, &mut input), Ok(Some(Event::Waste(1)))));
    assert_eq!((a.unasked, a.outstanding()), (1, 1));
}

fn rest_is_taken(peer: &mut Peer) {
    let rest = [5; 16_284];
    let mut input = &rest[..];
    let Ok(Some(Event::BlockBytes { offset: 100, bytes, last: true, .. })) = peer.handle_input(Time::ZERO, &mut input)
    else {
        panic!("the block goes on where it was cut");
    };
    assert_eq!(bytes.len(), 16_284);
}

#[test]
fn nothing_more_is_asked_of_a_peer_that_does_not_read() {
    let (mut a, mut b) = pair();
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    a.requests.set_most(512);
    for index in 0..4000 {
        a.have(Piece(index % PIECES));
        assert!(a.outbuf().encoded_len() < 64 * 1024);
    }
    assert!(a.wanted(Time::ZERO) > 0);
    for _ in 0..4000 {
        a.have(Piece(0));
    }
    assert_eq!(a.wanted(Time::ZERO), 0);
    assert_eq!(a.handle_timeout(Time::from_secs(149)), Ok(()));
    a.heard_at = Time::from_secs(149);
    assert_eq!(a.handle_timeout(Time::from_secs(150)), Err(PeerError::Stalled));
}

#[test]
fn messages_of_the_fast_extension_need_an_agreement() {
    let plain = Handshake { reserved: Reserved::new(false, true, false), ..hello(1).handshake() }.to_bytes();
    for message in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Suggest(Piece(0)),
        Message::Reject(block(0, 0)),
        Message::AllowedFast(Piece(0)),
    ] {
        let mut stranger = Peer::accepted(Time::ZERO);
        let mut wire = plain.to_vec();
        message.write(&mut wire);
        assert_eq!(events(&mut stranger, &mut wire.as_slice()), Err(PeerError::NotFast), "{message:?}");
    }
}

#[test]
fn messages_arrive_in_the_order_in_which_they_were_said() {
    let (mut a, mut b) = pair();
    b.unchoke();
    deliver(&mut b, &mut a).unwrap();
    let blocks: Vec<Block> = (0..4).map(|index| block(index, 0)).collect();
    blocks.iter().for_each(|block| a.request(Time::ZERO, *block));
    let asked = deliver(&mut a, &mut b).unwrap();
    assert_eq!(asked, blocks.iter().map(|block| format!("Request({block:?})")).collect::<Vec<_>>());
    let mut expected = Vec::new();
    for block in blocks {
        b.queue_upload(block);
        b.send_block(block, Id::from_bits(1), Span { offset: 0, len: 16_384 });
        b.have(block.piece);
        expected.extend([
            format!("BlockHead({block:?})"),
            format!("whole {block:?}"),
            format!("Have({:?})", block.piece),
        ]);
    }
    assert_eq!(deliver(&mut b, &mut a).unwrap(), expected);
}

#[test]
fn extension_handshakes_are_told_and_kept() {
    let (mut a, mut b) = pair();
    a.send_extension_handshake(&ExtensionHandshake {
        client: Some(b"Me 1"),
        reqq: Some(7),
        ..ExtensionHandshake::default()
    });
    assert_eq!(deliver(&mut a, &mut b).unwrap().len(), 1);
    assert_eq!(b.client(), "Me 1");
    assert!(!b.send_extended(ExtensionKind::Pex, b"x"), "it did not announce that");
}

/// A stream with one of everything.
fn stream() -> Vec<u8> {
    let mut out = hello(1).handshake().to_bytes().to_vec();
    let messages = [
        Message::HaveNone,
        Message::Unchoke,
        Message::KeepAlive,
        Message::Have(Piece(3)),
        Message::Unknown { id: 99, len: 3 },
        Message::Interested,
        Message::PieceHead(block(3, 0)),
    ];
    for message in messages {
        match message {
            Message::Unknown { .. } => out.extend([0, 0, 0, 4, 99, 1, 2, 3]),
            message => message.write(&mut out),
        }
    }
    out.extend(vec![5; 16_384]);
    Message::Port(6881).write(&mut out);
    Message::NotInterested.write(&mut out);
    out
}

proptest! {
    #[test]
    fn every_split_of_a_stream_gives_the_same_events(mut cuts in proptest::collection::vec(0..stream().len(), 0..12)) {
        let bytes = stream();
        let run = |cuts: &[usize]| {
            let mut peer = Peer::accepted(Time::ZERO);
            peer.requests.ask(Time::ZERO, block(3, 0));
            let (mut seen, mut kept) = (Vec::new(), Vec::new());
            for pair in cuts.windows(2) {
                kept.extend_from_slice(&bytes[pair[0]..pair[1]]);
                let mut input = kept.as_slice();
                seen.extend(events(&mut peer, &mut input).unwrap());
                kept = input.to_vec();
                assert!(kept.len() < 100, "only unfinished messages are kept");
            }
            seen
        };
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(run(&cuts), run(&[0, bytes.len()]));
        prop_assert_eq!(run(&cuts).len(), 9);
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0..stream().len(), byte: u8) {
        let mut bytes = stream();
        bytes[at] = byte;
        let mut peer = Peer::accepted(Time::ZERO);
        peer.set_pieces(PIECES);
        let _ = events(&mut peer, &mut bytes.as_slice());
    }

    #[test]
    fn whatever_comes_what_is_held_and_said_stays_bounded(
        pieces in proptest::collection::vec((0u8..22, proptest::collection::vec(0u8..20, 0..13), any::<bool>()), 0..200),
    ) {
        let (mut a, _) = pair();
        a.unchoke();
        a.request(Time::ZERO, block(0, 0));
        let mut wire = Vec::new();
        for (id, mut body, padded) in pieces {
            if padded {
                body.splice(0..0, [0; 3]);
            }
            wire.extend((u32::try_from(body.len()).unwrap() + 1).to_be_bytes());
            wire.push(id);
            wire.extend(body);
        }
        let before = a.outbuf().encoded_len();
        let _ = events(&mut a, &mut wire.as_slice());
        prop_assert!(a.outbuf().encoded_len() <= before + 17 * wire.len() / 5);
        prop_assert!(a.allowed.len() <= ALLOWED_FAST_MAX);
    }
}
