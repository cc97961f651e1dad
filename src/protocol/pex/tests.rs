//! What two ends tell one another, minute by minute.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::codec::pex::{Contact, Flags};

fn contact(number: u32) -> Contact {
    let [_, a, b, c] = number.to_be_bytes();
    Contact { addr: SocketAddr::from(([11, a, b, c], 6881)), flags: Flags::REACHABLE }
}

fn enter(contacts: &mut Contacts, numbers: std::ops::Range<u32>) -> Vec<Place> {
    let places = numbers.filter_map(|number| contacts.enter(contact(number))).collect();
    contacts.check();
    places
}

fn secs(secs: u64) -> Time {
    Time::from_secs(secs)
}

fn told(pex: &mut Pex, now: u64, contacts: &mut Contacts) -> Option<(usize, usize)> {
    let message = pex.poll_transmit(secs(now), contacts, None, Reach::World)?;
    contacts.check();
    Some((message.added.len(), message.dropped.len()))
}

#[test]
fn the_first_message_comes_soon_and_then_one_a_minute_with_what_is_new() {
    let (mut contacts, mut pex) = (Contacts::default(), Pex::new(Time::ZERO));
    let places = enter(&mut contacts, 0..3);
    assert_eq!(told(&mut pex, 4, &mut contacts), None);
    assert_eq!(told(&mut pex, 5, &mut contacts), Some((3, 0)));
    contacts.leave(places[1]);
    enter(&mut contacts, 3..5);
    assert_eq!(told(&mut pex, 64, &mut contacts), None, "not more often than once a minute");
    assert_eq!(told(&mut pex, 65, &mut contacts), Some((2, 1)));
    assert_eq!(told(&mut pex, 1000, &mut contacts), None, "nothing has changed");
    enter(&mut contacts, 5..6);
    assert_eq!(told(&mut pex, 1001, &mut contacts), Some((1, 0)));
}

#[test]
fn many_changes_are_told_fifty_at_a_time() {
    let (mut contacts, mut pex) = (Contacts::default(), Pex::new(Time::ZERO));
    let places = enter(&mut contacts, 0..120);
    let added: Vec<_> = (1..=4).map(|minute| told(&mut pex, 60 * minute, &mut contacts)).collect();
    assert_eq!(added, [Some((50, 0)), Some((50, 0)), Some((20, 0)), None]);
    places.iter().for_each(|&place| contacts.leave(place));
    enter(&mut contacts, 200..260);
    let rest: Vec<_> = (5..=8).map(|minute| told(&mut pex, 60 * minute, &mut contacts)).collect();
    assert_eq!(rest, [Some((50, 50)), Some((10, 50)), Some((0, 20)), None]);
}

#[test]
fn a_peer_is_not_told_of_itself_nor_of_who_is_nearer_to_us_than_itself() {
    let mut contacts = Contacts::default();
    let addrs = ["127.0.0.1:1", "192.168.0.1:1", "1.2.3.4:1", "[2001:db8::1]:1", "[::1]:1"];
    let entered = addrs.map(|addr| contacts.enter(Contact { addr: addr.parse().unwrap(), flags: Flags::default() }));
    assert!(entered.iter().all(Option::is_some));
    for (reach, expected) in [
        (Reach::Machine, &["127.0.0.1:1", "192.168.0.1:1", "[2001:db8::1]:1", "[::1]:1"][..]),
        (Reach::Network, &["192.168.0.1:1", "[2001:db8::1]:1"]),
        (Reach::World, &["[2001:db8::1]:1"]),
    ] {
        let message = Pex::new(Time::ZERO).poll_transmit(secs(60), &mut contacts, entered[2], reach).unwrap();
        let added: BTreeSet<SocketAddr> = message.added.iter().map(|contact| contact.addr).collect();
        assert_eq!(added, expected.iter().map(|addr| addr.parse().unwrap()).collect(), "{reach:?}");
    }
}

#[test]
fn who_is_back_before_it_was_missed_is_neither_added_nor_dropped() {
    let (mut contacts, mut pex) = (Contacts::default(), Pex::new(Time::ZERO));
    let places = enter(&mut contacts, 0..2);
    assert_eq!(told(&mut pex, 60, &mut contacts), Some((2, 0)));
    contacts.leave(places[0]);
    assert_eq!(contacts.enter(contact(0)), Some(places[0]));
    assert_eq!(contacts.enter(contact(0)), None, "nobody is here twice");
    assert_eq!(told(&mut pex, 200, &mut contacts), None);
}

#[test]
fn a_place_is_given_anew_once_everybody_knows_that_its_contact_left() {
    let mut contacts = Contacts::default();
    let (mut slow, mut gone) = (Pex::new(Time::ZERO), Pex::new(Time::ZERO));
    let places = enter(&mut contacts, 0..1);
    for pex in [&mut slow, &mut gone] {
        assert_eq!(told(pex, 60, &mut contacts), Some((1, 0)));
    }
    contacts.leave(places[0]);
    assert_ne!(enter(&mut contacts, 1..2), places);
    gone.forget(&mut contacts);
    assert_ne!(enter(&mut contacts, 2..3), places);
    assert_eq!(told(&mut slow, 120, &mut contacts), Some((2, 1)));
    assert_eq!(enter(&mut contacts, 3..4), places);
}

#[test]
fn the_table_is_bounded_and_who_found_no_place_gets_one_later() {
    let (mut contacts, mut pex) = (Contacts::default(), Pex::new(Time::ZERO));
    let places = enter(&mut contacts, 0..10_000);
    assert_eq!(places.len(), CONTACTS_MAX);
    assert_eq!(told(&mut pex, 60, &mut contacts), Some((50, 0)));
    contacts.leave(places[255]);
    assert_eq!(enter(&mut contacts, 500..501), [places[255]], "nobody was told of it");
    contacts.leave(places[0]);
    assert_eq!(enter(&mut contacts, 501..502), [], "somebody was told of it");
    assert_eq!(told(&mut pex, 120, &mut contacts), Some((50, 1)));
    assert_eq!(enter(&mut contacts, 501..502), [places[0]]);
}

#[test]
fn who_tells_us_too_often_is_passed_over_and_who_floods_us_is_not_wanted() {
    // Every so many seconds, how many of a thousand messages are heard, if no flood ended it.
    for (every, expected) in [(60, Some(1000)), (50, Some(1000)), (25, Some(501)), (5, Some(101)), (2, None)] {
        let mut pex = Pex::new(Time::ZERO);
        let heard: Result<Vec<_>, Flood> = (0..1000).map(|number| pex.handle_message(secs(number * every))).collect();
        let count = heard.as_ref().ok().map(|heard| heard.iter().flatten().count());
        assert_eq!(count, expected, "every {every} s");
        if let Ok(heard) = heard {
            assert_eq!((heard[0], heard.iter().skip(1).flatten().max()), (Some(ADDED_FIRST_MAX), Some(&ADDED_MAX)));
        }
    }
    let mut pex = Pex::new(Time::ZERO);
    let at_once = (0..100).take_while(|_| pex.handle_message(Time::ZERO).is_ok()).count();
    assert_eq!(at_once, 2 + usize::from(EARLY_MAX));
}

#[test]
fn what_a_connection_remembers_is_small() {
    assert!(size_of::<Pex>() <= 64, "{}", size_of::<Pex>());
}

/// A minute of a swarm's life.
#[derive(Debug, Clone)]
enum Deed {
    Comes(u32),
    Leaves(u32),
    Hears(usize),
    Parts(usize),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..400_u32).prop_map(Deed::Comes),
        3 => (0..400_u32).prop_map(Deed::Leaves),
        2 => (0..4_usize).prop_map(Deed::Hears),
        1 => (0..4_usize).prop_map(Deed::Parts),
    ]
}

proptest! {
    /// Whoever keeps to what it is told knows just those who are here, once nothing happens any more.
    #[test]
    fn what_peers_were_told_becomes_what_is_so(start in 0..300_u32, deeds in proptest::collection::vec(deed(), 0..400)) {
        let mut contacts = Contacts::default();
        let mut here: Vec<(u32, Place)> = Vec::new();
        let mut peers: Vec<(Pex, BTreeSet<SocketAddr>)> =
            (0..4).map(|_| (Pex::new(Time::ZERO), BTreeSet::new())).collect();
        let mut now = Time::ZERO;
        let hear = |contacts: &mut Contacts, (pex, knows): &mut (Pex, BTreeSet<SocketAddr>), now| {
            let Some(message) = pex.poll_transmit(now, contacts, None, Reach::World) else { return false };
            assert!(message.added.len() <= ADDED_MAX && message.dropped.len() <= DROPPED_MAX);
            assert!(message.dropped.iter().all(|addr| knows.remove(addr)), "only who was added is dropped");
            assert!(message.added.iter().all(|contact| knows.insert(contact.addr)), "nobody is added twice");
            assert!(message.added.iter().all(|contact| !message.dropped.contains(&contact.addr)));
            true
        };
        let full = usize::try_from(start).unwrap();
        here.extend((0..start).zip(enter(&mut contacts, 0..start)));
        prop_assert_eq!(here.len(), full.min(CONTACTS_MAX));
        for (at, deed) in deeds.into_iter().enumerate() {
            now += TELL_EVERY;
            match deed {
                Deed::Comes(number) => here.extend(contacts.enter(contact(number)).map(|place| (number, place))),
                Deed::Leaves(number) => {
                    if let Some(at) = here.iter().position(|(of, _)| *of == number) {
                        contacts.leave(here.swap_remove(at).1);
                    }
                }
                Deed::Hears(peer) => _ = hear(&mut contacts, &mut peers[peer], now),
                Deed::Parts(peer) => {
                    peers[peer].0.forget(&mut contacts);
                    peers[peer] = (Pex::new(now), BTreeSet::new());
                }
            }
            if at % 16 == 0 {
                contacts.check();
            }
        }
        let expected: BTreeSet<SocketAddr> = here.iter().map(|(number, _)| contact(*number).addr).collect();
        for peer in &mut peers {
            for _ in 0..=CONTACTS_MAX / ADDED_MAX {
                now += TELL_EVERY;
                hear(&mut contacts, peer, now);
            }
            prop_assert!(!hear(&mut contacts, peer, now + TELL_EVERY));
            prop_assert_eq!(&peer.1, &expected);
        }
        here.iter().for_each(|(_, place)| contacts.leave(*place));
        for (pex, _) in &mut peers {
            pex.forget(&mut contacts);
        }
        contacts.check();
        prop_assert_eq!(enter(&mut contacts, 1000..2000).len(), CONTACTS_MAX, "every place is free in the end");
    }
}
