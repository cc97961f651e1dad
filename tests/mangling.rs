//! What trackers, name servers and neighbours send: read as it was written, and harmless however it is mangled.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::codec::lsd::{self, Search};
use swarmtorrent::codec::udp_tracker::{
    Announce, AnnounceEvent, PEERS_MAX, Request, Response, SCRAPES_MAX, SwarmCounts,
};
use swarmtorrent::codec::url::TrackerUrl;
use swarmtorrent::codec::{dns, http_tracker};

mod common;

use common::mangled;

fn damage() -> impl Strategy<Value = (Vec<(usize, u8)>, usize)> {
    let flips = proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4);
    (flips, prop_oneof![3 => Just(0_usize), 1 => any::<usize>()])
}

fn announce() -> impl Strategy<Value = Announce> {
    let event = proptest::sample::select(vec![
        AnnounceEvent::Regular,
        AnnounceEvent::Completed,
        AnnounceEvent::Started,
        AnnounceEvent::Stopped,
        AnnounceEvent::Paused,
    ]);
    let numbers = (any::<[u8; 20]>(), any::<[u8; 20]>(), any::<[u64; 3]>(), any::<u32>(), any::<i32>(), any::<u16>());
    (numbers, event).prop_map(|((info_hash, peer_id, [downloaded, left, uploaded], key, num_want, port), event)| {
        Announce { info_hash: Sha1Hash(info_hash), peer_id, downloaded, left, uploaded, event, key, num_want, port }
    })
}

fn request() -> impl Strategy<Value = Request<'static>> {
    // What a request lends from is dropped with the process: these are few, and small.
    let hashes = proptest::collection::vec(any::<[u8; 20]>(), 1..SCRAPES_MAX).prop_map(|hashes| &*hashes.leak());
    let path = "(/[a-z]{1,300}(\\?[a-z=&]{0,300})?)?".prop_map(|path| path.into_bytes().into());
    prop_oneof![
        any::<u32>().prop_map(|transaction| Request::Connect { transaction }),
        (any::<u64>(), any::<u32>(), announce(), path).prop_map(|(connection, transaction, announce, path)| {
            Request::Announce { connection, transaction, announce, path }
        }),
        (any::<u64>(), any::<u32>(), hashes).prop_map(|(connection, transaction, info_hashes)| Request::Scrape {
            connection,
            transaction,
            info_hashes
        }),
    ]
}

fn response(v6: bool) -> impl Strategy<Value = Response> {
    let ip = if v6 {
        any::<[u8; 16]>().prop_map(IpAddr::from).boxed()
    } else {
        any::<[u8; 4]>().prop_map(IpAddr::from).boxed()
    };
    let peers = proptest::collection::vec((ip, 1..=u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port)), 0..50);
    let swarm =
        any::<[u32; 3]>().prop_map(|[seeders, completed, leechers]| SwarmCounts { seeders, completed, leechers });
    prop_oneof![
        (any::<u32>(), any::<u64>())
            .prop_map(|(transaction, connection)| Response::Connect { transaction, connection }),
        (any::<[u32; 4]>(), peers).prop_map(|([transaction, interval, leechers, seeders], peers)| Response::Announce {
            transaction,
            interval,
            leechers,
            seeders,
            peers
        }),
        (any::<u32>(), proptest::collection::vec(swarm, 0..SCRAPES_MAX))
            .prop_map(|(transaction, swarms)| Response::Scrape { transaction, swarms }),
        (any::<u32>(), "[a-z ]{0,40}").prop_map(|(transaction, message)| Response::Error { transaction, message }),
    ]
}

proptest! {
    #[test]
    fn what_clients_send_by_udp_is_read_as_it_was_written(request in request(), (flips, cut) in damage()) {
        let mut bytes = Vec::new();
        request.write(&mut bytes);
        prop_assert_eq!(Request::parse(&bytes), Some(request));
        let mangled = mangled(&bytes, &flips, cut);
        if let Some(Request::Scrape { info_hashes, .. }) = Request::parse(&mangled) {
            prop_assert!(info_hashes.len() <= SCRAPES_MAX);
        }
    }

    #[test]
    fn what_trackers_send_by_udp_is_read_as_it_was_written(
        (v6, response) in any::<bool>().prop_flat_map(|v6| (Just(v6), response(v6))),
        (flips, cut) in damage(),
    ) {
        let mut bytes = Vec::new();
        response.write(&mut bytes);
        let read = Response::parse(&bytes, v6);
        // Peers that nobody can dial are left out.
        if let (Some(Response::Announce { peers: read, .. }), Response::Announce { peers, .. }) = (&read, &response) {
            prop_assert!(read.iter().all(|peer| peers.contains(peer)) && read.len() <= peers.len());
        } else {
            prop_assert_eq!(read, Some(response));
        }
        if let Some(Response::Announce { peers, .. }) = Response::parse(&mangled(&bytes, &flips, cut), !v6) {
            prop_assert!(peers.len() <= PEERS_MAX);
        }
    }

    #[test]
    fn a_mangled_http_answer_is_refused_or_bounded(
        compact in proptest::collection::vec(any::<u8>(), 0..200), (flips, cut) in damage(), reason in "[ -~]{0,40}",
    ) {
        let answer = [
            b"d8:completei3e10:incompletei4e8:intervali1800e5:peers".as_slice(),
            format!("{}:", compact.len()).as_bytes(),
            &compact,
            format!("15:warning message{}:{reason}e", reason.len()).as_bytes(),
        ].concat();
        let Some(Ok(whole)) = http_tracker::parse_announce(&answer) else { panic!("it is an answer") };
        prop_assert!(whole.peers.len() <= compact.len() / 6 && whole.interval == 1800);
        let damaged = mangled(&answer, &flips, cut);
        if let Some(Ok(answer)) = http_tracker::parse_announce(&damaged) {
            prop_assert!(answer.peers.len() <= damaged.len());
        }
        let _ = http_tracker::parse_scrape(&damaged, &Sha1Hash([7; 20]));
    }

    #[test]
    fn a_mangled_name_answer_is_refused_or_bounded(id: u16, v6: bool, (flips, cut) in damage(), ttl: u32) {
        let mut bytes = dns::query(id, "tracker.example.org", v6).unwrap();
        prop_assert!(dns::parse(&bytes, id, "tracker.example.org", v6).is_none(), "a question is no answer");
        bytes[2] |= 0x80; // an answer
        bytes[7] = 1; // with one record: a pointer to the name, its type, IN, seconds, its address
        bytes.extend([0xc0, 12, 0, if v6 { 28 } else { 1 }, 0, 1]);
        bytes.extend(ttl.to_be_bytes());
        let ip = if v6 { vec![0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] } else { vec![192, 0, 2, 1] };
        bytes.extend([0, u8::try_from(ip.len()).unwrap()]);
        bytes.extend(&ip);
        let Some(dns::Answer::Addresses(ips, _)) = dns::parse(&bytes, id, "tracker.example.org", v6) else {
            panic!("it is an answer")
        };
        prop_assert_eq!(ips.len(), 1);
        prop_assert!(dns::parse(&bytes, id ^ 1, "tracker.example.org", v6).is_none());
        prop_assert!(dns::parse(&bytes, id, "other.example.org", v6).is_none());
        let damaged = dns::parse(&mangled(&bytes, &flips, cut), id, "tracker.example.org", v6);
        if let Some(dns::Answer::Addresses(ips, _) | dns::Answer::Truncated(ips, _)) = damaged {
            prop_assert!(ips.len() <= dns::ADDRESSES_MAX);
        }
    }

    #[test]
    fn what_neighbours_say_is_read_as_it_was_written(
        hashes in proptest::collection::vec(any::<[u8; 20]>(), 1..=lsd::HASHES_MAX), port in 1..=u16::MAX, v6: bool,
        cookie in proptest::option::of("[!-~]{1,16}"), (flips, cut) in damage(),
    ) {
        let info_hashes = hashes.into_iter().map(Sha1Hash).collect();
        let search = Search { port, info_hashes, cookie: cookie.as_ref().map(String::as_bytes) };
        let mut bytes = Vec::new();
        search.write(v6, &mut bytes);
        prop_assert!(bytes.len() <= lsd::DATAGRAM_MAX);
        let read = Search::parse(&bytes);
        prop_assert_eq!(read.as_ref(), Some(&search));
        // What is cut within its head is no datagram; a changed byte may spoil a line, and never makes a hash more.
        let damaged = mangled(&bytes, &flips, cut);
        if let Some(read) = Search::parse(&damaged) {
            prop_assert!((1..=search.info_hashes.len()).contains(&read.info_hashes.len()) && read.port != 0);
        }
        prop_assert!((0..bytes.len() - 2).all(|end| Search::parse(&bytes[..end]).is_none()));
    }

    #[test]
    fn any_text_is_an_address_or_an_error(text in ".{0,80}", like in "(udp|https?)://[a-z0-9.:\\[\\]-]{0,30}(/[ -~]{0,30})?") {
        for text in [text, like] {
            if let Ok(url) = TrackerUrl::parse(&text) {
                prop_assert_eq!(TrackerUrl::parse(&url.to_string()), Ok(url.clone()), "{}", text);
                prop_assert!(!url.host.is_empty());
                let _ = url.redirected(&text);
            }
        }
    }
}
