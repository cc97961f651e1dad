//! Peers tell us of others, and are told of others.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::{NOW, PIECES, accepted, addr, conn, dialled, sent, tell, torrent, torrent_with};
use crate::base::config::Config;
use crate::base::time::Time;
use crate::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind};
use crate::codec::pex::{Contact, Flags, PexMessage};
use crate::codec::wire::{Front, Message, parse_message};
use crate::torrent::candidates::{CANDIDATES_MAX, Origin};
use crate::torrent::create::Notes;
use crate::torrent::peers::Unwelcome;
use crate::torrent::torrent::Torrent;

/// By which number the peers here want to be told.
const THEIR_ID: u8 = 9;

fn secs(secs: u64) -> Time {
    Time::from_secs(secs)
}

/// A peer says that it wants to hear of others, or no more, and where it listens.
fn introduce(torrent: &mut Torrent, number: u8, pex: u8, port: Option<u16>) {
    let mut ids = ExtensionIds::default();
    ids.set(ExtensionKind::Pex, pex);
    let mut payload = Vec::new();
    ExtensionHandshake { ids, port, ..ExtensionHandshake::default() }.write(&mut payload);
    tell(torrent, number.into(), &[Message::Extended { id: 0, payload: &payload }]);
}

/// The payloads of extension messages that were sent to a peer since the last time, by their numbers.
fn extended(torrent: &mut Torrent, number: u8) -> Vec<(u8, Vec<u8>)> {
    let bytes = sent(torrent, number.into());
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    while let Front::Whole(message, len) = parse_message(rest, Some(PIECES)).unwrap() {
        if let Message::Extended { id, payload } = message {
            found.push((id, payload.to_vec()));
        }
        rest = &rest[len..];
    }
    found
}

/// Contacts that came, each with its flags, and contacts that left.
type Told = (BTreeSet<(SocketAddr, u8)>, BTreeSet<SocketAddr>);

/// What a peer was told since the last time.
fn told(torrent: &mut Torrent, number: u8) -> Vec<Told> {
    let messages = extended(torrent, number).into_iter().filter(|(id, _)| *id == THEIR_ID);
    let read = messages.map(|(_, payload)| PexMessage::parse(&payload, usize::MAX).unwrap());
    read.map(|message| {
        let added = message.added.iter().map(|contact| (contact.addr, contact.flags.0)).collect();
        (added, message.dropped.into_iter().collect())
    })
    .collect()
}

/// A peer tells us of those who came to it.
fn hear(torrent: &mut Torrent, now: Time, number: u8, added: &[(SocketAddr, Flags)]) -> Result<(), Unwelcome> {
    let added = added.iter().map(|&(addr, flags)| Contact { addr, flags }).collect();
    let mut payload = Vec::new();
    PexMessage { added, dropped: Vec::new() }.write(&mut payload);
    torrent.handle_pex(now, conn(number.into()), &payload)
}

/// Everybody whom we would dial now.
fn dialable(torrent: &mut Torrent, now: Time) -> BTreeSet<SocketAddr> {
    std::iter::from_fn(|| torrent.candidates.next(now)).collect()
}

#[test]
fn peers_that_want_to_hear_are_told_of_those_whose_address_is_known_and_of_nobody_twice() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    for number in [1, 2, 3] {
        dialled(&mut torrent, number);
    }
    for number in [4, 5] {
        accepted(&mut torrent, number);
    }
    tell(&mut torrent, 2, &[Message::HaveAll]);
    for (number, port) in [(1, None), (2, None), (4, None), (5, Some(7000))] {
        introduce(&mut torrent, number, THEIR_ID, port);
        assert_eq!(extended(&mut torrent, number).len(), 1, "our handshake");
    }
    let fifth = SocketAddr::new(addr(5).ip(), 7000);
    let contacts = [(addr(1), 0x10), (addr(2), 0x12), (addr(3), 0x10), (fifth, 0)];
    let others = |own: SocketAddr| contacts.into_iter().filter(|(addr, _)| *addr != own).collect::<BTreeSet<_>>();
    torrent.tick_exchange(NOW); // who wants to hear is remembered from now on
    torrent.tick_exchange(secs(4));
    assert_eq!(told(&mut torrent, 1), [], "who comes first may meet more in a moment");
    torrent.tick_exchange(secs(5));
    for (number, own) in [(1, addr(1)), (2, addr(2)), (4, addr(4)), (5, fifth)] {
        assert_eq!(told(&mut torrent, number), [(others(own), BTreeSet::new())], "{number}");
    }
    assert_eq!(told(&mut torrent, 3), [], "it does not know what that is");

    torrent.handle_peer_closed(secs(10), conn(2));
    torrent.tick_exchange(secs(64));
    assert_eq!(told(&mut torrent, 1), [], "a minute is not over");
    introduce(&mut torrent, 4, 0, None);
    for second in 65..300 {
        torrent.tick_exchange(secs(second));
    }
    assert_eq!(told(&mut torrent, 1), [(BTreeSet::new(), BTreeSet::from([addr(2)]))]);
    assert_eq!(told(&mut torrent, 4), [], "it wants to hear no more");
    torrent.exchange.check(torrent.peers.values());
}

#[test]
fn a_private_torrent_and_one_without_exchange_say_and_hear_nothing_of_others() {
    for (private, pex) in [(true, true), (false, false), (false, true)] {
        let notes = Notes { name: b"x".to_vec(), private, ..Notes::default() };
        let mut torrent = torrent_with(0..PIECES, &Config { pex, ..Config::default() }, notes);
        for number in [1, 2] {
            dialled(&mut torrent, number);
            introduce(&mut torrent, number, THEIR_ID, None);
        }
        assert_eq!(torrent.dht.may(), !private);
        let may = pex && !private;
        let (_, handshake) = extended(&mut torrent, 1).remove(0);
        let id = ExtensionHandshake::parse(&handshake).unwrap().ids.get(ExtensionKind::Pex);
        assert_eq!(id, may.then_some(ExtensionKind::Pex.id()));
        for second in 0..300 {
            torrent.tick_exchange(secs(second));
        }
        assert_eq!(extended(&mut torrent, 1).len(), usize::from(may));
        hear(&mut torrent, secs(300), 1, &[(addr(77), Flags::default())]).unwrap();
        assert_eq!(dialable(&mut torrent, secs(300)), may.then_some(addr(77)).into_iter().collect());
        torrent.exchange.check(torrent.peers.values());
    }
}

#[test]
fn what_peers_say_becomes_candidates_where_it_makes_sense() {
    let ours: SocketAddr = "10.0.0.99:6881".parse().unwrap();
    let mut torrent = torrent(0..PIECES, &Config { listen: vec![ours], ..Config::default() });
    dialled(&mut torrent, 1);
    let addrs = [
        "10.0.0.7:0",
        "0.0.0.0:1",
        "224.0.0.1:1",
        "127.0.0.1:80",
        "[::1]:80",
        "10.0.0.8:1",
        "1.2.3.4:5",
        "[2001:db8::1]:5",
    ];
    let mut said: Vec<SocketAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    let sense: BTreeSet<SocketAddr> = said[5..].iter().copied().collect();
    said.extend([ours, addr(1)]);
    let said: Vec<_> = said.into_iter().map(|addr| (addr, Flags::default())).collect();
    hear(&mut torrent, NOW, 1, &said).unwrap();
    assert_eq!(dialable(&mut torrent, NOW), sense);
    for (number, &addr) in (50..).zip(&sense) {
        torrent.dialling += 1;
        torrent.handle_dialled(NOW, conn(number), addr, false).unwrap();
        assert_eq!(torrent.peers[&conn(number)].origin.word(), "pex");
    }
}

#[test]
fn who_is_far_away_knows_nobody_on_our_own_network() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    let far: SocketAddr = "1.2.3.4:5".parse().unwrap();
    torrent.candidates.add(NOW, far, Origin::Tracker);
    assert_eq!(torrent.next_candidate(NOW), Some(far));
    torrent.handle_dialled(NOW, conn(1), far, false).unwrap();
    let said = ["10.0.0.8:1", "192.168.1.1:80", "127.0.0.1:80", "5.6.7.8:9"];
    let said = said.map(|addr| (addr.parse().unwrap(), Flags::default()));
    hear(&mut torrent, NOW, 1, &said).unwrap();
    assert_eq!(dialable(&mut torrent, NOW), BTreeSet::from([said[3].0]));
}

#[test]
fn a_seeder_dials_no_seeder_that_it_hears_of_until_it_wants_something() {
    let mut torrent = torrent(0..0, &Config::default());
    accepted(&mut torrent, 1);
    torrent.candidates.add(NOW, addr(3), Origin::Tracker);
    let said = [(addr(2), Flags::SEED), (addr(3), Flags::SEED), (addr(4), Flags::default())];
    hear(&mut torrent, NOW, 1, &said).unwrap();
    let expected = BTreeSet::from([addr(3), addr(4)]);
    assert_eq!(dialable(&mut torrent, NOW), expected, "what a tracker said stands");
    torrent.candidates.want(NOW);
    assert_eq!(dialable(&mut torrent, NOW), BTreeSet::from([addr(2)]));
}

#[test]
fn a_flood_ends_the_connection_and_what_came_too_early_is_passed_over() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    dialled(&mut torrent, 1);
    let mut heard = 0;
    let end = (1..=100).find_map(|number| {
        let said = [(addr(100 + number), Flags::default())];
        let result = hear(&mut torrent, NOW, 1, &said);
        heard += usize::from(result.is_ok());
        result.err()
    });
    assert_eq!((end, torrent.peer_count()), (Some(Unwelcome::Flood), 0));
    assert_eq!(dialable(&mut torrent, NOW).len(), 2, "of {heard} messages");
}

#[test]
fn a_message_of_wrong_lengths_or_of_noise_adds_only_what_is_whole() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    dialled(&mut torrent, 1);
    let whole = b"d5:added11:\x0a\0\0\x08\x1a\xe1\x0a\0\0\x09\x1a7:added.f9:\x02\x02\x02\x02\x02\x02\x02\x02\x026:added617:12345678901234567e";
    for (minute, payload) in
        (0..).zip([&b""[..], b"d", b"i7e", b"d5:addedi1ee", b"d5:added6:abce", whole, &[0xff; 60_000]])
    {
        torrent.handle_pex(secs(60 * minute), conn(1), payload).unwrap();
    }
    assert_eq!(dialable(&mut torrent, secs(600)), BTreeSet::from([addr(8)]));
    assert_eq!(torrent.peer_count(), 1);
}

#[test]
fn a_hundred_liars_fill_half_of_the_candidates_and_displace_nobody_else() {
    let config = Config { connections_per_torrent_max: 200, ..Config::default() };
    let mut torrent = torrent(0..PIECES, &config);
    torrent.peer_id = [0; 20]; // none of theirs
    let honest: Vec<SocketAddr> = (0..100).map(|number| SocketAddr::from(([12, 0, number, 1], 6881))).collect();
    let public = |number: u32| IpAddr::from((0x1400_0000 + 97 * number).to_be_bytes());
    for number in 1..=100 {
        accepted(&mut torrent, number);
    }
    honest[..50].iter().for_each(|&addr| _ = torrent.candidates.add(NOW, addr, Origin::Tracker));
    let mut fresh = 0..;
    for minute in 0..30 {
        for number in 1..=100 {
            let lies: Vec<_> = fresh
                .by_ref()
                .take(50)
                .map(|number| (SocketAddr::new(public(number), 6881), Flags::default()))
                .collect();
            hear(&mut torrent, secs(60 * minute), number, &lies).unwrap();
            assert!(torrent.candidates.len() <= CANDIDATES_MAX / 2 + 50);
        }
    }
    assert_eq!(torrent.candidates.len(), CANDIDATES_MAX / 2 + 50);
    honest[50..].iter().for_each(|&addr| assert!(torrent.candidates.add(NOW, addr, Origin::Tracker)));
    let dialled = dialable(&mut torrent, secs(1800));
    assert!(honest.iter().all(|addr| dialled.contains(addr)));
}

#[test]
fn a_hundred_liars_have_us_dial_a_victim_ten_times_a_minute_at_most() {
    let mut torrent = torrent(0..PIECES, &Config { connections_per_torrent_max: 200, ..Config::default() });
    torrent.peer_id = [0; 20]; // none of theirs
    for number in 1..=100 {
        accepted(&mut torrent, number);
    }
    let mut fresh = (1..=u16::MAX).map(|number| {
        let [port, ip] = number.to_be_bytes();
        (SocketAddr::from(([203, 0, 113, ip], 1000 + u16::from(port))), Flags::default())
    });
    for minute in 0..10 {
        for number in 1..=100 {
            let lies: Vec<_> = fresh.by_ref().take(50).collect();
            hear(&mut torrent, secs(60 * minute), number, &lies).unwrap();
        }
        assert!(torrent.candidates.len() <= 256, "a victim has one port");
        let dialled: usize = (0..60).map(|second| dialable(&mut torrent, secs(60 * minute + second)).len()).sum();
        assert!(dialled <= 10, "{dialled} in minute {minute}");
    }
}

#[test]
fn a_torrent_that_stops_leaves_nothing_behind() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    torrent.peer_id = [0; 20]; // none of theirs
    for number in 1..=100 {
        dialled(&mut torrent, number);
        introduce(&mut torrent, number, THEIR_ID, None);
    }
    for second in 0..200 {
        torrent.tick_exchange(secs(second));
    }
    let counts: Vec<usize> =
        told(&mut torrent, 1).iter().map(|(added, dropped)| added.len() + 1000 * dropped.len()).collect();
    assert_eq!(counts, [50, 49]);
    torrent.pause(secs(200));
    assert_eq!(torrent.peer_count(), 0);
    torrent.exchange.check(std::iter::empty());
    assert!(torrent.exchange.is_empty());
}
