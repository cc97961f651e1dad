//! A DHT node among strangers who send whatever they like: it never panics, spins, or goes beyond a bound.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::net::SocketAddr;

use proptest::prelude::*;
use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::krpc::{Body, Message, Query, Response, Want};
use swarmtorrent::protocol::dht::{Dht, Settings};

mod common;
#[path = "fuzz/dht_feed.rs"]
mod dht_feed;

use common::mangled;

const STRANGER: &str = "11.0.0.1:6881";

fn node() -> Dht {
    Dht::new(Settings::default(), [true, true], Rng::from_number(1))
}

fn stranger() -> SocketAddr {
    STRANGER.parse().unwrap()
}

/// What it says now, to whom.
fn said(dht: &mut Dht) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut packet = Vec::new();
    std::iter::from_fn(|| dht.poll_transmit(&mut packet).map(|to| (to, packet.clone()))).collect()
}

/// Real messages, both ways.
fn messages() -> Vec<Vec<u8>> {
    let (hash, want) = (Sha1Hash([7; 20]), Want { v4: true, v6: true });
    let queries = [
        Query::Ping,
        Query::FindNode { target: hash, want },
        Query::GetPeers { info_hash: hash, want, no_seeds: true, scrape: true },
        Query::AnnouncePeer { info_hash: hash, port: Some(7), seed: true, token: b"tokenxyz" },
        Query::Get { target: hash, want, newer_than: Some(3) },
        Query::Sample { target: hash, want },
    ];
    let bodies = queries.map(|query| Body::Query { id: Sha1Hash([9; 20]), read_only: false, query });
    let answer = Body::Response { id: Sha1Hash([9; 20]), response: Box::new(Response::default()) };
    let error = Body::Error { code: 201, text: b"x" };
    let written = |body| {
        let mut packet = Vec::new();
        Message { transaction: b"tt", seen_as: Some(stranger()), version: Some(b"XX01"), body }.write(&mut packet);
        packet
    };
    bodies.into_iter().chain([answer, error]).map(written).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_strangers_send_the_node_stays_within_its_bounds(script in proptest::collection::vec(any::<u8>(), 0..3000)) {
        dht_feed::feed(&script);
    }

    #[test]
    fn damaged_messages_get_one_short_answer_or_none(
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..5), cut in prop_oneof![Just(0_usize), any::<usize>()],
    ) {
        let mut dht = node();
        for message in messages() {
            let damaged = mangled(&message, &flips, cut);
            dht.handle_packet(Time::ZERO, stranger(), &damaged);
            let answers = said(&mut dht).into_iter().filter(|(_, packet)| packet.ends_with(b"1:y1:re") || packet.ends_with(b"1:y1:ee"));
            prop_assert!(answers.count() <= 1);
        }
        prop_assert_eq!(dht.stored(), (0, 0, 0));
        dht.check();
    }
}

#[test]
fn bombs_of_bencode_are_no_messages() {
    let mut dht = node();
    let nested =
        |open: &str, close: &str, depth: usize| [open.repeat(depth), close.repeat(depth)].concat().into_bytes();
    let bombs = [
        vec![b'l'; 60_000],
        vec![b'd'; 60_000],
        nested("l", "e", 30_000),
        nested("d1:a", "e", 12_000),
        format!("d1:ad2:id20:{}e1:q4:ping1:t99999999999:aa1:y1:qe", "x".repeat(20)).into_bytes(),
        format!("d1:ad2:id20:{}e1:q4:ping1:ti{}e1:y1:qe", "x".repeat(20), "9".repeat(60_000)).into_bytes(),
        format!("d1:ad2:id20:{}4:wantl{}ee1:q4:ping1:t2:aa1:y1:qe", "x".repeat(20), "2:n4".repeat(10_000)).into_bytes(),
    ];
    for bomb in bombs {
        assert!(!dht.handle_packet(Time::ZERO, stranger(), &bomb), "{:?}…", &bomb[..20]);
    }
    assert_eq!(said(&mut dht), []);
    dht.check();
}

#[test]
fn lists_of_half_a_length_teach_nothing_and_cost_nothing() {
    for (key, bytes) in [("nodes", 25), ("nodes", 27), ("nodes6", 37), ("nodes6", 39), ("values", 5), ("samples", 19)] {
        let mut dht = node();
        dht.add_node(Time::ZERO, stranger(), true);
        dht.find_peers(Time::ZERO, Sha1Hash([1; 20]), None);
        let (_, asked) = said(&mut dht).remove(0);
        let transaction = Message::parse(&asked).unwrap().transaction.to_vec();
        let list = "\u{1}".repeat(bytes);
        let value = if key == "values" { format!("l{bytes}:{list}e") } else { format!("{bytes}:{list}") };
        let mut answer = format!("d1:rd2:id20:{}{}:{key}{value}e1:t2:", "i".repeat(20), key.len()).into_bytes();
        answer.extend(transaction);
        answer.extend(b"1:y1:re");
        assert!(dht.handle_packet(Time::ZERO, stranger(), &answer), "{key}");
        assert!(said(&mut dht).iter().all(|(to, _)| *to == stranger()), "{key}");
        while let Some(event) = dht.poll_event() {
            assert!(!matches!(event, swarmtorrent::protocol::dht::Event::Peers(..)), "{key}");
        }
        dht.check();
    }
}

#[test]
fn a_flood_of_single_bytes_is_nothing() {
    let mut dht = node();
    for byte in 0..=u8::MAX {
        (0..100).for_each(|_| assert!(!dht.handle_packet(Time::ZERO, stranger(), &[byte])));
    }
    assert!(!dht.handle_packet(Time::ZERO, stranger(), &[]));
    assert_eq!((said(&mut dht), dht.counts()), (vec![], (0, 0)));
    assert!(dht.poll_timeout() > Time::from_secs(3600), "there is nothing to wake for");
}

/// Found by fuzzing or by thought; each is a script of [`dht_feed::feed`].
#[test]
fn scripts_that_once_were_trouble_are_none() {
    for script in [&[][..], &[255; 3000], &[1; 3000], &[3; 3000], &[6; 3000], &[7; 400], &[5; 3000]] {
        dht_feed::feed(script);
    }
}
