use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::codec::bencode::{VALUES_MAX, parse_canonical};
use crate::codec::compact::write_addr;
use crate::codec::http_tracker::{Failure, announce_path, parse_announce, parse_scrape, percent, scrape_path};
use crate::codec::url::TrackerUrl;

const HASH: &str = "info_hash=aaaaaaaaaaaaaaaaaaaa";
const PEER: &str = "peer_id=-XX0000-bbbbbbbbbbbb";

fn query_of(path: &str) -> &str {
    path.split_once('?').unwrap().1
}

/// A short announce with `more` at its end.
fn with(more: &str) -> Result<Announce, QueryError> {
    parse_announce_query(&format!("{HASH}&{PEER}&port=6881{more}")).map(|query| query.announce)
}

fn written(compact: bool, peers: &[SocketAddr]) -> Vec<u8> {
    let mut raw = Vec::new();
    peers.iter().for_each(|peer| write_addr(&mut raw, *peer));
    let v6 = peers.first().is_some_and(SocketAddr::is_ipv6);
    let external_ip = if v6 { "2001:db8::9".parse().unwrap() } else { "9.8.7.6".parse().unwrap() };
    let mut out = Vec::new();
    let answer = AnnounceWritten {
        counts: SwarmCounts { seeders: 1, completed: 2, leechers: 3 },
        interval: 1800,
        min_interval: 60,
        external_ip,
        peers: &raw,
        v6,
        compact,
    };
    write_announce(&mut out, &answer);
    parse_canonical(&out, VALUES_MAX).expect("canonical");
    let read = parse_announce(&out).unwrap().unwrap();
    assert_eq!(read.peers, peers);
    assert_eq!((read.seeders, read.downloaded, read.leechers), (Some(1), Some(2), Some(3)));
    assert_eq!((read.interval, read.min_interval), (1800, Some(60)));
    assert_eq!(read.external_ip, Some(external_ip));
    out
}

#[test]
fn announces_are_read_as_other_clients_send_them() {
    // Each in its own order and with its own idea of what is to be escaped. Written by hand after their manner, not recorded.
    let transmission = "info_hash=%11%F6%AD%8E%C5%2A%29%84%AB%AA%FD%7C%3BQe%03x%5C%20r&peer_id=-TR4060-abcdefghijkl&port=51413&uploaded=0&downloaded=16384&left=1048576&numwant=80&key=7A3C0F19&compact=1&supportcrypto=1&event=started";
    let libtorrent = "info_hash=%11%f6%ad%8e%c5%2a%29%84%ab%aa%fd%7c%3bQe%03x%5c%20r&peer_id=-LT20B0-abcdefghijkl&port=6881&uploaded=0&downloaded=16384&left=1048576&corrupt=0&key=7A3C0F19&event=started&numwant=80&compact=1&no_peer_id=1&supportcrypto=1&redundant=0";
    let aria2 = "info_hash=%11%F6%AD%8E%C5%2A%29%84%AB%AA%FD%7C%3BQe%03x%5C%20r&peer_id=A2-1-37-0-%AB%01%02abcdefg&uploaded=0&downloaded=16384&left=1048576&compact=1&key=Zq%C3x&numwant=80&no_peer_id=1&port=6881&event=started&supportcrypto=1";
    let rtorrent = "info_hash=%11%F6%AD%8E%C5%2A%29%84%AB%AA%FD%7C%3BQe%03x%5C%20r&peer_id=-lt0D80-abcdefghijkl&key=7a3c0f19&numwant=80&compact=1&port=6881&uploaded=0&downloaded=16384&left=1048576&event=started";
    for query in [transmission, libtorrent, aria2, rtorrent] {
        let read = parse_announce_query(query).unwrap();
        let Announce { info_hash, uploaded, downloaded, left, event, num_want, .. } = read.announce;
        assert_eq!((info_hash, event), (InfoHash::of(b"x"), AnnounceEvent::Started), "{query}");
        assert_eq!((uploaded, downloaded, left, num_want), (0, 16384, 1_048_576, 80));
        assert_eq!((read.wanted, read.compact, read.ip), (Some(80), true, None));
        assert_eq!(read.announce.key == 0x7a3c_0f19, query != aria2);
    }
    assert_eq!(parse_announce_query(aria2).unwrap().announce.peer_id, *b"A2-1-37-0-\xab\x01\x02abcdefg");
    assert_eq!(parse_announce_query(transmission).unwrap().announce.port, 51413);
}

#[test]
fn a_query_is_refused_with_what_is_wrong_in_it() {
    let refused = |query: &str| parse_announce_query(query).unwrap_err().to_string();
    assert_eq!(refused(""), "info_hash is missing");
    for hash in ["", "aaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaa%4", "aaaaaaaaaaaaaaaaaaa%zz"]
    {
        assert_eq!(refused(&format!("info_hash={hash}&{PEER}&port=1")), "info_hash is not 20 bytes", "{hash}");
    }
    assert_eq!(refused(HASH), "peer_id is missing");
    assert_eq!(refused(&format!("{HASH}&peer_id=short&port=1")), "peer_id is not 20 bytes");
    assert_eq!(refused(&format!("{HASH}&{PEER}")), "port is missing");
    for port in ["0", "65536", "-1", "x", ""] {
        let text = refused(&format!("{HASH}&{PEER}&port={port}"));
        assert_eq!(text, "port is not a number from 1 to 65535");
    }
    for key in ["uploaded", "downloaded", "left"] {
        for number in ["-1", "18446744073709551616", "x", "1.5", ""] {
            let error = with(&format!("&{key}={number}")).unwrap_err();
            assert_eq!(error.to_string(), format!("{key} is not a number of bytes"), "{number}");
        }
    }
    assert_eq!(with(&format!("&{HASH}")), Err(QueryError::SecondInfoHash));
}

#[test]
fn what_is_left_out_of_a_query_has_a_meaning() {
    let announce = with("").unwrap();
    assert_eq!((announce.uploaded, announce.downloaded, announce.left), (0, 0, u64::MAX));
    assert_eq!((announce.event, announce.key, announce.num_want), (AnnounceEvent::Regular, 0, -1));
    assert_eq!(with("&left=1&left=2&port=x").unwrap().left, 1, "the first one counts");
    assert_eq!(with("&&=&left&").unwrap_err(), QueryError::BadLeft);
    assert_eq!(with("&&=&unknown&trackerid=x&").unwrap(), announce);
    for (event, expected) in [
        ("started", AnnounceEvent::Started),
        ("stopped", AnnounceEvent::Stopped),
        ("completed", AnnounceEvent::Completed),
        ("paused", AnnounceEvent::Paused),
        ("empty", AnnounceEvent::Regular),
        ("", AnnounceEvent::Regular),
        ("dancing", AnnounceEvent::Regular),
    ] {
        assert_eq!(with(&format!("&event={event}")).unwrap().event, expected);
    }
    assert!(parse_announce_query(&format!("{HASH}&{PEER}&port=0&event=stopped")).is_ok());
    let plus = parse_announce_query("info_hash=++++++++++++++++++++&peer_id=%2b+++++++++++++++++++&port=1").unwrap();
    assert_eq!((plus.announce.info_hash.0, plus.announce.peer_id), ([b'+'; 20], [b'+'; 20]));
}

#[test]
fn wishes_are_taken_as_far_as_they_are_numbers() {
    for (wanted, expected, num_want) in [
        ("50", Some(50), 50),
        ("0", Some(0), 0),
        ("-1", None, -1),
        ("many", None, -1),
        ("", None, -1),
        ("4000000000", Some(4_000_000_000), i32::MAX),
        ("99999999999", Some(u32::MAX), i32::MAX),
        ("99999999999999999999", None, -1),
    ] {
        let query = format!("{HASH}&{PEER}&port=1&numwant={wanted}&compact=0&no_peer_id=1&ip=%3A%3A1");
        let read = parse_announce_query(&query).unwrap();
        assert_eq!((read.wanted, read.announce.num_want), (expected, num_want), "{wanted}");
        assert!(!read.compact && read.ip == Some("::1".parse().unwrap()));
    }
    let ip = |text: &str| parse_announce_query(&format!("{HASH}&{PEER}&port=1&ip={text}")).unwrap().ip;
    assert_eq!((ip("192.0.2.1"), ip("2001:db8::%31")), ("192.0.2.1".parse().ok(), "2001:db8::1".parse().ok()));
    assert_eq!([ip("host"), ip(""), ip("%zz"), ip(&"1".repeat(90))], [None; 4]);
    let key = |text: &str| with(&format!("&key={text}")).unwrap().key;
    assert_eq!((key("ff"), key("7A3C0F19"), key("fFgGhHiI")), (0xff, 0x7a3c_0f19, 0));
}

#[test]
fn a_scrape_names_its_swarms() {
    let hash = |byte: u8| Sha1Hash([byte; 20]);
    let query = |byte: u8| format!("info_hash={}", percent(&hash(byte).0));
    let hashes = parse_scrape_query(&format!("{}&x=y&{}&{}", query(200), query(7), query(200))).unwrap();
    assert_eq!(*hashes, [hash(200), hash(7), hash(200)]);
    let many = |count: usize| vec![query(1); count].join("&");
    assert_eq!(parse_scrape_query(&many(SCRAPES_MAX)).unwrap().len(), SCRAPES_MAX);
    let refused = |query: &str| parse_scrape_query(query).unwrap_err().to_string();
    assert_eq!(refused(&many(SCRAPES_MAX + 1)), "a scrape is of 74 swarms at most");
    assert_eq!(refused(""), "a full scrape is not offered; name the swarms with info_hash");
    assert_eq!(refused("info_hash=x"), "info_hash is not 20 bytes");
}

#[test]
fn an_answer_has_its_peers_in_the_form_that_was_asked_for() {
    let (v4, v6): (SocketAddr, SocketAddr) = ("1.2.3.4:6881".parse().unwrap(), "[2001:db8::1]:80".parse().unwrap());
    assert_eq!(
        written(true, &[v4]),
        b"d8:completei1e10:downloadedi2e11:external ip4:\x09\x08\x07\x0610:incompletei3e8:intervali1800e12:min intervali60e5:peers6:\x01\x02\x03\x04\x1a\xe1e"
    );
    let listed = written(false, &[v4, "255.255.255.255:65535".parse().unwrap()]);
    assert!(listed.windows(26).any(|part| part == b"5:peersld2:ip7:1.2.3.44:po"));
    let compact = written(true, &[v6, v6]);
    assert!(compact.windows(19).any(|part| part == b"5:peers0:6:peers636"));
    let listed = written(
        false,
        &[v6, "[1:2:3:4:5:6:1.2.3.4]:1".parse().unwrap(), "[::ffff:255.255.255.255]:1".parse().unwrap()],
    );
    assert!(listed.windows(24).any(|part| part == b"d2:ip11:2001:db8::14:por"));
    written(true, &[]);
    written(false, &[]);
}

#[test]
fn a_refusal_is_read_as_it_was_written() {
    for retry_in in [None, Some(RetryIn::Never), Some(RetryIn::Minutes(7)), Some(RetryIn::Minutes(u32::MAX))] {
        let mut out = Vec::new();
        write_failure(&mut out, "not here", retry_in);
        parse_canonical(&out, VALUES_MAX).unwrap();
        assert_eq!(parse_announce(&out), Some(Err(Failure { reason: "not here".into(), retry_in })));
    }
}

#[test]
fn a_scrape_is_answered_in_the_order_of_hashes_and_each_once() {
    let hash = |byte: u8| Sha1Hash([byte; 20]);
    let mut asked = Vec::new();
    let mut out = Vec::new();
    let swarm = |hash: &InfoHash| {
        asked.push(hash.0[0]);
        let seeders = u32::from(hash.0[0]);
        SwarmWritten { counts: SwarmCounts { seeders, completed: 5, leechers: 6 }, downloaders: 4 }
    };
    write_scrape(&mut out, &[hash(9), hash(200), hash(7), hash(9)], swarm);
    assert_eq!(asked, [7, 9, 200]);
    let document = parse_canonical(&out, VALUES_MAX).unwrap();
    let files = document.as_dict().unwrap().dict(b"files").unwrap();
    assert_eq!(files.entries().len(), 3);
    assert_eq!(files.dict(&[7; 20]).unwrap().int(b"downloaders"), Some(4));
    for byte in [7, 9, 200] {
        let read = parse_scrape(&out, &hash(byte)).unwrap().unwrap();
        assert_eq!((read.seeders, read.downloaded, read.leechers), (Some(u32::from(byte)), Some(5), Some(6)));
    }
    out.clear();
    write_scrape(&mut out, &[hash(1); SCRAPES_MAX + 1], |_| SwarmWritten::default());
    assert_eq!(parse_scrape(&out, &hash(1)).unwrap().unwrap().min_interval, None);
}

fn announces() -> impl Strategy<Value = Announce> {
    let event = proptest::sample::select(vec![
        AnnounceEvent::Regular,
        AnnounceEvent::Completed,
        AnnounceEvent::Started,
        AnnounceEvent::Stopped,
        AnnounceEvent::Paused,
    ]);
    (any::<[u8; 20]>(), any::<[u8; 20]>(), any::<[u64; 3]>(), event, any::<u32>(), -1..i32::MAX, 1..u16::MAX).prop_map(
        |(info_hash, peer_id, [downloaded, left, uploaded], event, key, num_want, port)| Announce {
            info_hash: Sha1Hash(info_hash),
            peer_id,
            downloaded,
            left,
            uploaded,
            event,
            key,
            num_want,
            port,
        },
    )
}

proptest! {
    #[test]
    fn queries_are_read_as_our_own_client_writes_them(announce in announces(), id: Option<[u8; 9]>) {
        let url = TrackerUrl::parse("http://t/announce?pass=1").unwrap();
        let path = announce_path(&url, &announce, id.as_ref().map(|id| &id[..]));
        let read = parse_announce_query(query_of(&path)).unwrap();
        prop_assert_eq!(read.wanted, u32::try_from(announce.num_want).ok());
        prop_assert!(read.compact);
        let scrape = scrape_path(&url, &announce.info_hash);
        prop_assert_eq!(&*parse_scrape_query(query_of(&scrape)).unwrap(), &[announce.info_hash]);
        prop_assert_eq!(read.announce, announce);
    }

    #[test]
    fn a_mangled_query_is_read_or_refused(announce in announces(), at: usize, len in 0..9_usize, text in "[%&=+0-9a-z\u{80}-\u{fff}]{0,9}") {
        let url = TrackerUrl::parse("http://t/announce").unwrap();
        let path = announce_path(&url, &announce, None);
        let mut query = query_of(&path).to_owned();
        let at = at % query.len();
        query.replace_range(at..(at + len).min(query.len()), &text);
        if let Ok(read) = parse_announce_query(&query) {
            prop_assert!(read.announce.port != 0 || read.announce.event == AnnounceEvent::Stopped);
        }
        if let Ok(hashes) = parse_scrape_query(&query) {
            prop_assert!(!hashes.is_empty());
        }
        let _ = (parse_announce_query(&text), parse_scrape_query(&text));
    }
}
