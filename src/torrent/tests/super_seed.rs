//! What a seed shows of itself, peer by peer.

use super::*;
use crate::torrent::settings::Change;

fn super_seed() -> Torrent {
    let mut torrent = torrent(0..0, &Config::default());
    torrent.set(NOW, &Change::parse("super-seed", "yes").unwrap());
    torrent
}

/// The pieces that a peer was told of since the last time; nothing else may be said of what we have.
fn shown(torrent: &mut Torrent, number: u64) -> Vec<u32> {
    let said = said(torrent, number);
    let tells_all = |message: &&String| {
        ["HaveAll", "Bitfield", "Suggest", "AllowedFast"].iter().any(|word| message.starts_with(word))
    };
    assert_eq!(said.iter().find(tells_all), None);
    let piece = |message: &String| message.strip_prefix("Have(Piece(")?.strip_suffix("))")?.parse().ok();
    said.iter().filter_map(piece).collect()
}

fn tick(torrent: &mut Torrent, secs: u64) {
    torrent.tick_super_seeding(Time::from_secs(secs));
}

#[test]
fn the_next_piece_is_shown_when_the_last_one_was_seen_at_somebody_else() {
    let mut torrent = super_seed();
    for number in [1, 2] {
        accepted(&mut torrent, number);
        tell(&mut torrent, number.into(), &[Message::HaveNone, Message::Interested]);
    }
    let (first, second) = (shown(&mut torrent, 1), shown(&mut torrent, 2));
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?} {second:?}");
    let piece = Piece(first[0]);
    tell(&mut torrent, 1, &[Message::Have(piece)]);
    tick(&mut torrent, 1);
    assert!(shown(&mut torrent, 1).is_empty(), "nobody else has it");
    tell(&mut torrent, 2, &[Message::Have(piece)]);
    assert_eq!(shown(&mut torrent, 1).len(), 1);
    assert!(shown(&mut torrent, 2).is_empty(), "it has not got its own");
}

#[test]
fn a_peer_gets_what_it_was_shown_and_no_other_piece() {
    let mut torrent = super_seed();
    accepted(&mut torrent, 1);
    let piece = Piece(shown(&mut torrent, 1)[0]);
    let other = Piece((piece.0 + 1) % PIECES);
    torrent.machine(conn(1)).unwrap().unchoke();
    let block = torrent.geometry().block(other, 0);
    tell(&mut torrent, 1, &[Message::Request(block)]);
    assert!(said(&mut torrent, 1).contains(&format!("{:?}", Message::Reject(block))));
    let block = torrent.geometry().block(piece, 0);
    tell(&mut torrent, 1, &[Message::Request(block)]);
    assert_eq!(torrent.machine(conn(1)).unwrap().next_upload(), Some(block));
}

#[test]
fn who_is_alone_and_who_never_says_what_it_has_is_shown_more_all_the_same() {
    let mut torrent = super_seed();
    accepted(&mut torrent, 1);
    let piece = Piece(shown(&mut torrent, 1)[0]);
    tell(&mut torrent, 1, &[Message::Have(piece)]);
    let next = shown(&mut torrent, 1);
    assert_eq!(next.len(), 1, "there is nobody else to see it at");
    accepted(&mut torrent, 2);
    for index in 0..2 {
        let block = torrent.geometry().block(Piece(next[0]), index);
        torrent.handle_shown_sent(NOW, conn(1), block);
    }
    tick(&mut torrent, 29);
    assert!(shown(&mut torrent, 1).is_empty());
    tick(&mut torrent, 30);
    assert_eq!(shown(&mut torrent, 1).len(), 1, "it was sent all of it");
}

#[test]
fn it_ends_when_the_swarm_has_everything_and_the_rest_is_told_then() {
    let mut torrent = super_seed();
    for number in [1, 2] {
        accepted(&mut torrent, number);
    }
    let mut told = shown(&mut torrent, 1);
    let half = |from: u32| (from..from + PIECES / 2).map(|piece| Message::Have(Piece(piece))).collect::<Vec<_>>();
    tell(&mut torrent, 1, &half(0));
    tell(&mut torrent, 2, &half(PIECES / 2));
    told.extend(shown(&mut torrent, 1));
    tick(&mut torrent, 1);
    assert!(!torrent.settings.super_seed, "it is not begun again at the next start");
    told.extend(shown(&mut torrent, 1));
    told.sort_unstable();
    assert_eq!(told, (0..PIECES).collect::<Vec<_>>());
    assert!(torrent.peers[&conn(1)].shown.is_none());
    accepted(&mut torrent, 3);
    assert!(said(&mut torrent, 3).contains(&"HaveAll".to_owned()));
}

#[test]
fn it_is_not_for_whoever_is_not_the_only_seed_nor_for_whoever_lacks_something() {
    let mut torrent = super_seed();
    accepted(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveAll]);
    assert!(!torrent.settings.super_seed, "another seed is there");
    let mut partial = super_seed();
    partial.have.clear(3);
    accepted(&mut partial, 1);
    assert!(said(&mut partial, 1).iter().any(|message| message.starts_with("Bitfield")));
}

#[test]
fn whoever_does_not_speak_the_fast_extension_is_told_nothing_at_first() {
    let mut torrent = super_seed();
    let plain = Handshake { reserved: Reserved::new(false, false, false), ..handshake(&torrent, 1) };
    let mut machine = Box::new(Peer::accepted(NOW));
    machine.handle_input(NOW, &mut &plain.to_bytes()[..]).unwrap();
    torrent.handle_incoming(NOW, conn(1), machine, addr(1), &plain).unwrap();
    let said = said(&mut torrent, 1);
    assert!(said.len() == 1 && said[0].starts_with("Have("), "{said:?}");
}
