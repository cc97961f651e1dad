use std::time::Duration;

use super::*;
use crate::base::config::TrackerConfig;
use crate::base::hash::InfoHash;
use crate::base::rng::Rng;
use crate::codec::udp_tracker::{AnnounceEvent, Response};
use crate::service::tracker::Allowed;

const SOCKET: SocketId = SocketId::Tracker(0);

fn tracker() -> Tracker {
    Tracker::new(Time::ZERO, &TrackerConfig::default(), Rng::from_number(1))
}

fn announce(port: u16, left: u64) -> Announce {
    Announce {
        info_hash: InfoHash::of(b"x"),
        peer_id: [7; 20],
        downloaded: 0,
        left,
        uploaded: 0,
        event: AnnounceEvent::Started,
        key: 0,
        num_want: -1,
        port,
    }
}

/// The answer to a datagram, as bytes.
fn answer_bytes(tracker: &mut Tracker, now: Time, from: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
    tracker.handle_packet(now, SOCKET, from, packet);
    let mut out = Vec::new();
    let transmit = tracker.poll_transmit(&mut out);
    assert!(transmit.is_none_or(|transmit| transmit == (SOCKET, from)));
    assert_eq!(tracker.poll_transmit(&mut Vec::new()), None, "one at most");
    transmit.map(|_| out)
}

fn ask(tracker: &mut Tracker, now: Time, from: SocketAddr, request: &Request<'_>) -> Option<Response> {
    let mut packet = Vec::new();
    request.write(&mut packet);
    let answer = answer_bytes(tracker, now, from, &packet)?;
    Some(Response::parse(&answer, from.is_ipv6()).expect("an answer"))
}

fn connect(tracker: &mut Tracker, now: Time, from: SocketAddr) -> u64 {
    match ask(tracker, now, from, &Request::Connect { transaction: 5 }) {
        Some(Response::Connect { transaction: 5, connection }) => connection,
        other => panic!("{other:?}"),
    }
}

/// Connects and announces.
fn tell(tracker: &mut Tracker, now: Time, from: SocketAddr, announce: Announce) -> Response {
    let connection = connect(tracker, now, from);
    let path = b""[..].into();
    let request = Request::Announce { connection, transaction: 9, announce, path };
    ask(tracker, now, from, &request).expect("an answer")
}

fn addr(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

fn peers(response: Response) -> Vec<SocketAddr> {
    match response {
        Response::Announce { transaction: 9, interval: 1800, mut peers, .. } => {
            peers.sort_unstable();
            peers
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn peers_find_one_another_by_the_address_they_ask_from_and_the_port_they_name() {
    let mut tracker = tracker();
    assert_eq!(peers(tell(&mut tracker, Time::ZERO, addr(1, 1000), announce(6881, 0))), []);
    assert_eq!(peers(tell(&mut tracker, Time::ZERO, addr(2, 1000), announce(6882, 5))), [addr(1, 6881)]);
    let told = tell(&mut tracker, Time::ZERO, addr(3, 1000), announce(6883, 5));
    assert!(matches!(told, Response::Announce { leechers: 2, seeders: 1, .. }));
    assert_eq!(peers(told), [addr(1, 6881), addr(2, 6882)]);
    let again = tell(&mut tracker, Time::ZERO, addr(1, 1001), announce(6881, 0));
    assert_eq!(peers(again), [addr(2, 6882), addr(3, 6883)], "a seeder is told of no seeder, and not of itself");
    let leaves = Announce { event: AnnounceEvent::Stopped, ..announce(6882, 5) };
    assert_eq!(peers(tell(&mut tracker, Time::ZERO, addr(2, 1000), leaves)), []);
    assert_eq!(peers(tell(&mut tracker, Time::ZERO, addr(1, 1001), announce(6881, 0))), [addr(3, 6883)]);
    let v6: SocketAddr = "[2001:db8::1]:1000".parse().unwrap();
    assert_eq!(peers(tell(&mut tracker, Time::ZERO, v6, announce(6881, 5))), [], "the families are kept apart");
}

#[test]
fn a_scrape_counts_those_of_the_askers_family() {
    let mut tracker = tracker();
    tell(&mut tracker, Time::ZERO, addr(1, 1), announce(1, 0));
    tell(&mut tracker, Time::ZERO, addr(2, 1), announce(1, 5));
    tell(&mut tracker, Time::ZERO, addr(2, 1), Announce { event: AnnounceEvent::Completed, ..announce(1, 0) });
    tell(&mut tracker, Time::ZERO, addr(3, 1), Announce { event: AnnounceEvent::Paused, ..announce(1, 5) });
    let connection = connect(&mut tracker, Time::ZERO, addr(9, 1));
    let hashes = [InfoHash::of(b"x").0, [0; 20]];
    let scrape = Request::Scrape { connection, transaction: 3, info_hashes: &hashes };
    let swarms = vec![SwarmCounts { seeders: 2, completed: 1, leechers: 1 }, SwarmCounts::default()];
    assert_eq!(ask(&mut tracker, Time::ZERO, addr(9, 1), &scrape), Some(Response::Scrape { transaction: 3, swarms }));
}

#[test]
fn the_silent_are_forgotten_after_two_intervals() {
    let mut tracker = tracker();
    tell(&mut tracker, Time::ZERO, addr(1, 1), announce(1, 0));
    let mut now = Time::ZERO;
    while now < Time::from_secs(3600) {
        now = tracker.poll_timeout();
        tracker.handle_timeout(now);
    }
    assert_eq!(tracker.state(now).peers, 1);
    while now < Time::from_secs(3600 + 3600 / 8 + 10) {
        now = tracker.poll_timeout();
        tracker.handle_timeout(now);
    }
    assert_eq!((tracker.state(now).peers, tracker.state(now).swarms), (0, 0));
}

#[test]
fn an_answer_to_an_unverified_address_is_no_longer_than_its_request() {
    let mut tracker = tracker();
    for host in 0..200 {
        tell(&mut tracker, Time::ZERO, addr(host, 1), announce(1, 5));
    }
    let mut rng = Rng::from_number(3);
    let hashes = [[7; 20]; 74];
    let mut packet = Vec::new();
    for round in 0..20_000 {
        match round % 4 {
            0 => Request::Connect { transaction: 1 }.write(&mut packet),
            1 => {
                let connection = rng.u64();
                let path = b"/announce"[..].into();
                Request::Announce { connection, transaction: 1, announce: announce(1, 5), path }.write(&mut packet);
            }
            2 => {
                let info_hashes = &hashes[..1 + round % 74];
                Request::Scrape { connection: rng.u64(), transaction: 1, info_hashes }.write(&mut packet);
            }
            _ => {
                packet.resize(rng.index(200), 0);
                rng.fill(&mut packet);
            }
        }
        if let Some(answer) = answer_bytes(&mut tracker, Time::ZERO, addr(250, 1), &packet) {
            assert!(answer.len() <= packet.len(), "{} bytes for {}", answer.len(), packet.len());
        }
    }
    let state = tracker.state(Time::ZERO);
    assert_eq!(state.peers, 200, "nobody was registered");
    assert!(state.errors.contains(&("connection_id", 10_000)), "{:?}", state.errors);
}

#[test]
fn whoever_has_a_good_id_is_told_what_is_wrong() {
    let mut tracker = tracker();
    let mut errors = Vec::new();
    let connection = connect(&mut tracker, Time::ZERO, addr(1, 1));
    let mut packet = Vec::new();
    let path = b""[..].into();
    Request::Announce { connection, transaction: 9, announce: announce(1, 5), path }.write(&mut packet);
    packet.truncate(97);
    errors.push(answer_bytes(&mut tracker, Time::ZERO, addr(1, 1), &packet).unwrap());
    packet.truncate(16);
    packet[8..12].copy_from_slice(&2_u32.to_be_bytes());
    errors.push(answer_bytes(&mut tracker, Time::ZERO, addr(1, 1), &packet).unwrap());
    for bytes in errors {
        let Some(Response::Error { transaction: 9, message }) = Response::parse(&bytes, false) else { panic!() };
        assert!("the request cannot be read".starts_with(&message), "{message}");
    }
    let told = tell(&mut tracker, Time::ZERO, addr(1, 1), announce(0, 5));
    assert!(matches!(told, Response::Error { message, .. } if message.contains("nobody could dial")));
}

#[test]
fn numbers_that_cannot_be_are_answered_within_the_bounds() {
    let mut tracker = tracker();
    for host in 0..=255 {
        tell(&mut tracker, Time::ZERO, addr(host, 1), announce(1, 5));
        let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, host.into(), 0, 0, 0, 1], 1));
        tell(&mut tracker, Time::ZERO, v6, announce(1, 5));
    }
    let asker = SocketAddr::from(([198, 51, 100, 1], 1));
    let v6 = SocketAddr::from(([0x2001, 0xdb8, 9, 9, 0, 0, 0, 1], 1));
    for (num_want, expected) in [(i32::MIN, 50), (-1, 50), (0, 0), (1, 1), (i32::MAX, 200)] {
        let wants = Announce { num_want, ..announce(1, 5) };
        assert_eq!(peers(tell(&mut tracker, Time::ZERO, asker, wants)).len(), expected);
        assert_eq!(peers(tell(&mut tracker, Time::ZERO, v6, wants)).len(), expected.min(74));
    }
}

#[test]
fn a_closed_tracker_serves_what_it_was_told_and_asks_for_keys() {
    let config = TrackerConfig { open: false, ..TrackerConfig::default() };
    let mut tracker = Tracker::new(Time::ZERO, &config, Rng::from_number(1));
    let refused = |tracker: &mut Tracker, path: &[u8], what: &str| {
        let connection = connect(tracker, Time::ZERO, addr(1, 1));
        let request = Request::Announce { connection, transaction: 9, announce: announce(1, 5), path: path.into() };
        match ask(tracker, Time::ZERO, addr(1, 1), &request) {
            Some(Response::Error { message, .. }) => assert!(message.contains(what), "{message}"),
            answer => assert!(what.is_empty() && matches!(answer, Some(Response::Announce { .. })), "{answer:?}"),
        }
    };
    refused(&mut tracker, b"", "does not track this torrent");
    tracker.allow(Allowed { hashes: Some(vec![InfoHash::of(b"x")]), keys: None });
    refused(&mut tracker, b"", "");
    tracker.allow(Allowed { hashes: None, keys: Some(vec!["k".into()]) });
    refused(&mut tracker, b"/announce", "pass key");
    refused(&mut tracker, b"/k/announce", "");
    assert_eq!(tracker.state(Time::ZERO).allowed, None);
}

#[test]
fn a_thousand_answers_of_a_round_leave_in_order() {
    let mut tracker = tracker();
    let mut packet = Vec::new();
    for number in 0..1000_u32 {
        Request::Connect { transaction: number }.write(&mut packet);
        tracker.handle_packet(Time::from_secs(1) + Duration::ZERO, SOCKET, addr(1, 1), &packet);
    }
    let mut out = Vec::new();
    for number in 0..1000_u32 {
        assert_eq!(tracker.poll_transmit(&mut out), Some((SOCKET, addr(1, 1))));
        assert!(
            matches!(Response::parse(&out, false), Some(Response::Connect { transaction, .. }) if transaction == number)
        );
    }
    assert_eq!(tracker.poll_transmit(&mut out), None);
}
