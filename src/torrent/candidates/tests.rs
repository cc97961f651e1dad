//! Addresses that could be dialled: their order, their bounds, and what becomes of those that fail.

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn candidates() -> Candidates {
    Candidates::new(Rng::from_number(1))
}

#[test]
fn who_speaks_for_a_whole_local_network_has_a_small_part_of_the_table() {
    let mut candidates = candidates();
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        candidates.add(Time::ZERO, SocketAddr::from(([10, 0, high, low], 1)), Origin::Lsd);
    }
    assert_eq!(candidates.known.len(), LSD_MAX);
    let failed = candidates.next(Time::ZERO).unwrap();
    candidates.handle_failed(Time::ZERO, failed);
    candidates.add(Time::ZERO, addr("10.1.0.1:1"), Origin::Tracker);
    candidates.add(Time::ZERO, addr("10.2.0.1:1"), Origin::Lsd);
    candidates.add(Time::ZERO, addr("10.3.0.1:1"), Origin::Lsd);
    assert_eq!(candidates.known.len(), LSD_MAX + 1);
    let has = |text| candidates.known.contains_key(&addr(text));
    assert!(has("10.1.0.1:1") && has("10.2.0.1:1") && !has("10.3.0.1:1"), "in the place of one that failed");
}

#[test]
fn the_users_word_goes_first_and_is_tried_again_soon() {
    let mut candidates = candidates();
    candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Tracker);
    candidates.add(Time::ZERO, addr("10.0.0.2:1"), Origin::User);
    assert_eq!(candidates.next(Time::ZERO), Some(addr("10.0.0.2:1")));
    assert_eq!(candidates.next(Time::ZERO), Some(addr("10.0.0.1:1")));
    assert_eq!(candidates.next(Time::ZERO), None);
    candidates.handle_failed(Time::ZERO, addr("10.0.0.2:1"));
    candidates.handle_failed(Time::ZERO, addr("10.0.0.1:1"));
    assert_eq!(candidates.poll_timeout(), Time::from_secs(5));
    assert_eq!(candidates.next(Time::from_secs(5)), Some(addr("10.0.0.2:1")));
    assert_eq!(candidates.next(Time::from_secs(29)), None);
    assert_eq!(candidates.next(Time::from_secs(30)), Some(addr("10.0.0.1:1")));
}

#[test]
fn an_address_that_keeps_failing_is_forgotten() {
    let mut candidates = candidates();
    candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Tracker);
    let mut now = Time::ZERO;
    for _ in 0..FAILURES_MAX {
        now = candidates.poll_timeout().max(now);
        assert!(candidates.next(now).is_some());
        candidates.handle_failed(now, addr("10.0.0.1:1"));
    }
    assert!(candidates.is_empty());
}

#[test]
fn nonsense_ourselves_and_the_banned_are_never_dialled() {
    let mut candidates = candidates();
    candidates.ban(addr("10.0.0.9:5"));
    candidates.mark_ourselves(addr("10.0.0.8:1"));
    candidates.ban(addr("127.0.0.1:7"));
    for bad in
        ["0.0.0.0:1", "10.0.0.1:0", "224.0.0.1:1", "10.0.0.9:1", "10.0.0.8:1", "127.0.0.1:7", "[::ffff:10.0.0.9]:3"]
    {
        candidates.add(Time::ZERO, addr(bad), Origin::Tracker);
    }
    assert!(candidates.is_empty(), "{candidates:?}");
    assert!(!candidates.is_banned(addr("127.0.0.1:8")), "loopback peers are told apart by their port");
}

#[test]
fn one_network_is_not_flooded_and_the_table_is_bounded() {
    let mut candidates = candidates();
    for port in 1..=5000 {
        candidates.add(Time::ZERO, SocketAddr::from(([203, 0, 113, 7], port)), Origin::Tracker);
    }
    assert_eq!(candidates.known.len(), CANDIDATES_MAX);
    let dialled = std::iter::from_fn(|| candidates.next(Time::from_secs(1))).count();
    assert_eq!(dialled, DIALS_PER_NETWORK_MAX as usize);
    assert!(candidates.next(Time::from_secs(61)).is_some());
}

#[test]
fn a_good_peer_that_left_is_tried_again_after_a_while() {
    let mut candidates = candidates();
    candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Tracker);
    candidates.next(Time::ZERO);
    assert_eq!(candidates.handle_connected(addr("10.0.0.1:1")), Origin::Tracker);
    candidates.handle_closed(Time::from_secs(10), addr("10.0.0.1:1"), true);
    assert_eq!(candidates.next(Time::from_secs(69)), None);
    assert!(candidates.next(Time::from_secs(70)).is_some());
}

#[test]
fn the_users_word_finds_room_in_a_full_table() {
    let mut candidates = candidates();
    for number in 0..CANDIDATES_MAX {
        let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
        candidates.add(Time::ZERO, SocketAddr::from(([10, 1, high, low], 1)), Origin::Tracker);
    }
    candidates.add(Time::ZERO, addr("10.0.0.2:1"), Origin::User);
    assert_eq!(candidates.known.len(), CANDIDATES_MAX);
    assert_eq!(candidates.next(Time::ZERO), Some(addr("10.0.0.2:1")));
}

#[test]
fn strangers_who_connect_cannot_fill_the_table() {
    let mut candidates = candidates();
    for port in 1..=60_000 {
        candidates.add(Time::ZERO, SocketAddr::from(([10, 0, 0, 7], port)), Origin::Incoming);
    }
    candidates.add(Time::ZERO, addr("10.0.0.2:1"), Origin::Tracker);
    assert_eq!(candidates.known.len(), CANDIDATES_MAX / 2 + 1);
}

#[test]
fn no_kind_of_hearsay_fills_more_than_half_and_who_failed_makes_room_for_its_like() {
    for origin in [Origin::Dht, Origin::Pex] {
        let mut candidates = candidates();
        let told = |number: u32| SocketAddr::from(((0x0b00_0000 + number).to_be_bytes(), 6881));
        let added = (0..5000).filter(|&number| candidates.add(Time::ZERO, told(number), origin)).count();
        assert_eq!(added, HEARSAY_MAX);
        let dialled = candidates.next(Time::ZERO).unwrap();
        candidates.handle_failed(Time::ZERO, dialled);
        assert!(candidates.add(Time::ZERO, told(6000), origin) && !candidates.known.contains_key(&dialled));
        assert!(!candidates.add(Time::ZERO, told(6001), origin));
        assert!(candidates.add(Time::ZERO, told(6001), Origin::Tracker));
    }
}

#[test]
fn what_was_asked_for_finds_room_among_what_peers_say_unasked() {
    let mut candidates = candidates();
    for port in 1..=5000 {
        candidates.add(Time::ZERO, SocketAddr::from(([10, 0, 0, 7], port)), Origin::Incoming);
        candidates.add(Time::ZERO, SocketAddr::from(([10, 0, 0, 8], port)), Origin::Pex);
    }
    assert_eq!(candidates.known.len(), CANDIDATES_MAX);
    assert!(!candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Pex));
    assert!(candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Tracker));
    assert!(candidates.add(Time::ZERO, addr("10.0.0.2:1"), Origin::Dht));
    assert_eq!(candidates.known.len(), CANDIDATES_MAX);
}

#[test]
fn many_ports_of_one_victim_are_one_candidate() {
    let mut candidates = candidates();
    for port in 1..=100 {
        candidates.add(Time::ZERO, SocketAddr::from(([203, 0, 113, 7], port)), Origin::Pex);
    }
    assert_eq!(candidates.known.len(), 1);
    assert!(candidates.add(Time::ZERO, addr("203.0.113.7:500"), Origin::Tracker), "who was asked may say more");
    assert!(candidates.add(Time::ZERO, addr("203.0.113.8:500"), Origin::Pex));
    assert!(candidates.add(Time::ZERO, addr("192.168.0.8:1"), Origin::Pex));
    assert!(candidates.add(Time::ZERO, addr("192.168.0.8:2"), Origin::Pex));
}

#[test]
fn a_peer_that_parts_with_us_at_once_is_tried_less_and_less_often() {
    let mut candidates = candidates();
    candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Tracker);
    let mut dials = 0;
    for second in 0..24 * 3600 {
        let now = Time::from_secs(second);
        if candidates.next(now).is_some() {
            candidates.handle_connected(addr("10.0.0.1:1"));
            candidates.handle_closed(now + Duration::from_secs(1), addr("10.0.0.1:1"), true);
            dials += 1;
        }
    }
    assert!((12..40).contains(&dials), "{dials}");
}

#[test]
fn who_has_everything_as_we_do_is_dialled_when_something_is_wanted() {
    let mut candidates = candidates();
    for (addr, origin) in [(addr("10.0.0.1:1"), Origin::Tracker), (addr("10.0.0.2:1"), Origin::User)] {
        candidates.add(Time::ZERO, addr, origin);
        candidates.next(Time::ZERO);
        candidates.handle_closed(Time::ZERO, addr, true);
        candidates.mark_complete(addr);
    }
    let later = Time::from_secs(1_000_000);
    assert_eq!(candidates.next(later), Some(addr("10.0.0.2:1")), "the user's word stands");
    assert!(candidates.next(later).is_none() && candidates.poll_timeout().is_never());
    candidates.want(later);
    assert_eq!(candidates.next(later), Some(addr("10.0.0.1:1")));
}

#[test]
fn who_hangs_up_on_a_ciphered_handshake_is_dialled_plainly_at_once() {
    let mut candidates = candidates();
    candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Tracker);
    assert!(candidates.next(Time::ZERO).is_some() && candidates.takes_cipher(addr("10.0.0.1:1")));
    candidates.handle_connected(addr("10.0.0.1:1"));
    assert!(candidates.handle_no_cipher(Time::ZERO, addr("10.0.0.1:1")));
    assert!(candidates.next(Time::ZERO).is_some() && !candidates.takes_cipher(addr("10.0.0.1:1")));
    candidates.handle_connected(addr("10.0.0.1:1"));
    assert!(!candidates.handle_no_cipher(Time::ZERO, addr("10.0.0.1:1")), "it was plain");
    candidates.handle_closed(Time::ZERO, addr("10.0.0.1:1"), false);
    assert!(candidates.next(Time::ZERO).is_none() && candidates.takes_cipher(addr("10.0.0.1:1")));
}

#[test]
fn whoever_connected_to_us_is_dialled_only_after_it_has_left() {
    let mut candidates = candidates();
    candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Incoming);
    assert!(candidates.mark_connected(Time::ZERO, addr("10.0.0.1:1")));
    assert!(!candidates.mark_connected(Time::ZERO, addr("10.0.0.1:1")), "once");
    assert_eq!(candidates.next(Time::ZERO), None);
    candidates.handle_closed(Time::from_secs(100), addr("10.0.0.1:1"), true);
    assert_eq!(candidates.next(Time::from_secs(160)), Some(addr("10.0.0.1:1")));
}

#[test]
fn an_address_that_was_being_dialled_when_the_torrent_stopped_is_dialled_when_it_starts() {
    let mut candidates = candidates();
    candidates.add(Time::ZERO, addr("10.0.0.1:1"), Origin::Tracker);
    assert!(candidates.next(Time::ZERO).is_some());
    candidates.handle_connected(addr("10.0.0.1:1")); // refused: the torrent was stopped meanwhile
    candidates.reset(Time::from_secs(5));
    assert_eq!(candidates.next(Time::from_secs(5)), Some(addr("10.0.0.1:1")));
}
