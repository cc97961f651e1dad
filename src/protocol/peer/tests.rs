use proptest::prelude::*;

use super::*;
use crate::base::arena::Id;
use crate::base::storage::Chunk;

const PIECES: u32 = 20;

fn hello(id: u8) -> Hello {
    Hello { info_hash: InfoHash::of(b"x"), peer_id: [id; 20] }
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
        let mut count = 0;
        for chunk in &chunks {
            match chunk {
                Chunk::Bytes(chunk) => bytes.extend_from_slice(chunk),
                Chunk::Content(_, span) => bytes.extend(vec![7; span.len as usize]),
            }
            count = count.max(1);
        }
        let len = chunks
            .iter()
            .map(|chunk| match chunk {
                Chunk::Bytes(bytes) => bytes.len(),
                Chunk::Content(_, span) => span.len as usize,
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
    b.allow_fast(Piece(5));
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
fn a_flood_of_requests_is_bounded() {
    let (mut a, mut b) = pair();
    b.unchoke();
    output(&mut b);
    let mut input = Vec::new();
    for index in 0..2000 {
        Message::Request(Block { piece: Piece(0), offset: index, len: 1 }).write(&mut input);
    }
    let mut input = input.as_slice();
    while let Some(event) = b.handle_input(Time::ZERO, &mut input).unwrap() {
        let Event::Request(block) = event else { panic!("{event:?}") };
        b.queue_upload(block);
    }
    assert_eq!(b.uploads.len(), UPLOADS_MAX);
    a.requests.set_most(512);
    assert!(b.outbuf().encoded_len() > 17 * 1400, "the rest is rejected");
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
}
