//! Bytes from the BEPs and from real programs, read and written.
//!
//! The files in `vectors/` were made by the programs that they are named after (libtorrent 2.1.1, Transmission 3.00) of
//! one small directory; the hashes here are those that these programs print. `compatible.st` is ours: libtorrent 2.1.1
//! loads it as a torrent with the hash that stands here, and with both trackers.

use std::path::Path;

use swarmtorrent::base::geometry::Piece;
use swarmtorrent::base::hash::{Sha1Hash, Sha256Hash};
use swarmtorrent::codec::bencode::{self, Kind};
use swarmtorrent::codec::magnet::{Magnet, MagnetError};
use swarmtorrent::codec::metainfo::{Metainfo, MetainfoError};
use swarmtorrent::codec::st;
use swarmtorrent::torrent::create::{Creator, Notes, Profile};

const LIBTORRENT_V1: &[u8] = include_bytes!("vectors/libtorrent-v1.torrent");
const LIBTORRENT_HYBRID: &[u8] = include_bytes!("vectors/libtorrent-hybrid.torrent");
const LIBTORRENT_V2: &[u8] = include_bytes!("vectors/libtorrent-v2.torrent");
const TRANSMISSION: &[u8] = include_bytes!("vectors/transmission.torrent");
const COMPATIBLE: &[u8] = include_bytes!("vectors/compatible.st");

/// Path, length and whether it is never stored, file by file.
fn files(meta: &Metainfo) -> Vec<(&str, u64, bool)> {
    let entry = |entry: swarmtorrent::base::files::FileEntry<'_>| (entry.span.len, entry.pad);
    let paths = meta.files.entries().map(|entry| entry.path.to_str().expect("the vectors' paths are text"));
    paths.zip(meta.files.entries().map(entry)).map(|(path, (len, pad))| (path, len, pad)).collect()
}

#[test]
fn the_examples_of_bep_3_are_read() {
    let kind = |bytes: &'static [u8]| bencode::parse_canonical(bytes, bencode::VALUES_MAX).expect("an example").kind;
    assert_eq!(kind(b"4:spam"), Kind::Bytes(b"spam"));
    assert_eq!(kind(b"i3e"), Kind::Int(3));
    assert_eq!(kind(b"i-3e"), Kind::Int(-3));
    assert_eq!(kind(b"i0e"), Kind::Int(0));
    let list = bencode::parse_canonical(b"l4:spam4:eggse", bencode::VALUES_MAX).expect("an example");
    let items: Vec<_> = list.as_list().expect("a list").iter().map(|item| item.as_bytes().expect("a string")).collect();
    assert_eq!(items, [b"spam", b"eggs"]);
    let dict = bencode::parse_canonical(b"d3:cow3:moo4:spam4:eggse", bencode::VALUES_MAX).expect("an example");
    assert_eq!(dict.as_dict().expect("a dictionary").bytes(b"cow"), Some(&b"moo"[..]));
    let nested = bencode::parse_canonical(b"d4:spaml1:a1:bee", bencode::VALUES_MAX).expect("an example");
    assert_eq!(nested.as_dict().expect("a dictionary").list(b"spam").map(<[_]>::len), Some(2));
    for invalid in [&b"i-0e"[..], b"i03e"] {
        assert!(bencode::parse(invalid, bencode::VALUES_MAX).is_err());
    }
}

#[test]
fn a_torrent_of_libtorrent_has_the_hash_that_libtorrent_says() {
    let meta = Metainfo::parse(LIBTORRENT_V1).expect("a good file");
    assert_eq!(meta.info_hash.to_string(), "26ce17a4c1201b2bff6716664b3456f06968ffd2");
    assert_eq!(files(&meta), [("n/link", 0, true), ("n/sub/b", 20_000, false), ("n/a.txt", 500, false)]);
    assert_eq!(meta.extras.get(1).attr, "x");
    assert_eq!((meta.geometry.pieces(), meta.geometry.len_of(Piece(1))), (2, 4116));
    assert_eq!(meta.trackers, [["udp://tracker.example:6969"], ["http://tracker.example/announce"]]);
    assert_eq!(meta.nodes, [("router.example".to_owned(), 6881)]);
    assert_eq!(meta.web_seeds, ["http://seed.example/"]);
    assert_eq!((meta.creation_date, meta.comment.as_deref()), (Some(1_700_000_000), Some("made elsewhere")));
    assert_eq!(Metainfo::parse(&meta.to_bytes(false)).expect("ours"), meta);
}

#[test]
fn a_hybrid_of_libtorrent_is_loaded_as_its_v1_part() {
    let meta = Metainfo::parse(LIBTORRENT_HYBRID).expect("a good file");
    assert_eq!(meta.info_hash.to_string(), "669afc40e9ebc0d5bb6c1e7043a2305d0a26fbc2");
    let expected = [
        ("n/a.txt", 500, false),
        ("n/.pad/15884", 15_884, true),
        ("n/link", 0, true),
        ("n/sub/b", 20_000, false),
        ("n/.pad/12768", 12_768, true),
    ];
    assert_eq!(files(&meta), expected);
    assert_eq!(meta.others[0].0, b"piece layers", "kept for those who understand it");
}

#[test]
fn a_torrent_that_is_v2_alone_is_refused_by_name() {
    let error = Metainfo::parse(LIBTORRENT_V2).expect_err("it has no v1 part");
    assert_eq!(error, MetainfoError::OnlyV2);
    assert!(error.to_string().contains("v2"));
}

#[test]
fn a_torrent_of_transmission_has_the_hash_that_transmission_says() {
    let meta = Metainfo::parse(TRANSMISSION).expect("a good file");
    assert_eq!(meta.info_hash.to_string(), "82d78d6cd91c63a8b0c2cc38888526fc51e1964e");
    assert!(meta.private);
    assert_eq!(meta.comment.as_deref(), Some("für alle"));
    assert_eq!(meta.to_bytes(false), TRANSMISSION, "it is canonical and has no key that we would write otherwise");
}

#[test]
fn a_compatible_st_is_the_torrent_that_other_clients_see() {
    let meta = Metainfo::parse(COMPATIBLE).expect("ours");
    assert_eq!(meta.info_hash.to_string(), "63be7cfe0e591338f538f342ef65daeedf395ff2");
    let st_id = "e02ba22b4749a88911b704abc9f270c56f7afa009b37b1ef542dda27f374f8f1";
    assert_eq!(meta.st_id, Sha256Hash::from_hex(st_id));
    let notes = Notes {
        name: b"hello.txt".to_vec(),
        trackers: vec!["udp://127.0.0.1:6969".into(), "http://t.example/announce".into()],
        ..Notes::default()
    };
    let mut creator = Creator::new(Profile::Compatible, 16_384, vec![(vec![], 6)], notes);
    creator.update(b"hello\n");
    let (made, bytes) = creator.finish().expect("allowed");
    assert_eq!((made, bytes.as_slice()), (meta, COMPATIBLE));
}

#[test]
fn converting_leaves_out_the_table_and_nothing_else() {
    let meta = Metainfo::parse(COMPATIBLE).expect("ours");
    let torrent = meta.to_bytes(true);
    let table = b"8:trackers27:";
    let at = COMPATIBLE.windows(table.len()).position(|window| window == table).expect("it has a table");
    let expected = [&COMPATIBLE[..at], &COMPATIBLE[at + table.len() + 27..]].concat();
    assert_eq!(torrent, expected);
    assert_eq!(Metainfo::parse(&torrent).expect("a torrent").info_hash, meta.info_hash);
}

#[test]
fn the_table_of_the_format_is_read_as_it_says() {
    let udp = [0, 0, 4, 0x1b, 0x39, 4, 127, 0, 0, 1, 0];
    let https = [&[1, 2, 0, 0x01, 0xbb, 9][..], b"t.example", &[2], b"/x"].concat();
    let v6 = [&[1, 1, 6, 0, 80, 16][..], &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &[0]].concat();
    let table = [&udp[..], &https, &v6].concat();
    let trackers = st::parse_trackers(&table).expect("a good table");
    let urls: Vec<_> = trackers.iter().map(|tracker| (tracker.tier, tracker.url())).collect();
    let expected =
        [(0, "udp://127.0.0.1:6969"), (1, "https://t.example/x"), (1, "http://[2001:db8::1]/announce")].map(owned);
    assert_eq!(urls, expected);
    let tiers = [vec![expected[0].1.clone()], vec![expected[1].1.clone(), expected[2].1.clone()]];
    assert_eq!(st::write_trackers(&tiers), table);
}

fn owned((tier, url): (u8, &str)) -> (u8, String) {
    (tier, url.to_owned())
}

#[test]
fn links_as_clients_write_them_are_read() {
    let qbittorrent = "magnet:?xt=urn:btih:82d78d6cd91c63a8b0c2cc38888526fc51e1964e&dn=f%C3%BCr%20alle\
        &tr=http%3a%2f%2ft.example%2fannounce&tr=udp%3a%2f%2fu.example%3a1&ws=http%3A%2F%2Fw.example%2F";
    let magnet = Magnet::parse(qbittorrent).expect("a good link");
    assert_eq!(magnet.info_hash, Sha1Hash::from_hex("82d78d6cd91c63a8b0c2cc38888526fc51e1964e"));
    assert_eq!(magnet.name.as_deref(), Some("für alle"));
    assert_eq!(magnet.trackers, ["http://t.example/announce", "udp://u.example:1"]);
    assert_eq!(magnet.web_seeds, ["http://w.example/"]);
    let bep_53 = "magnet:?xt=urn:btih:82d78d6cd91c63a8b0c2cc38888526fc51e1964e&so=0,2,4,6-8&x.pe=10.0.0.1:6881";
    let magnet = Magnet::parse(bep_53).expect("a good link");
    assert_eq!(magnet.select, [(0, 0), (2, 2), (4, 4), (6, 8)]);
    assert_eq!(magnet.peers, ["10.0.0.1:6881"]);
    let hybrid = "magnet:?xt=urn:btih:669afc40e9ebc0d5bb6c1e7043a2305d0a26fbc2\
        &xt=urn:btmh:1220caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";
    assert!(Magnet::parse(hybrid).expect("it has a v1 hash").info_hash.is_some());
    let v2 = "magnet:?xt=urn:btmh:1220caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";
    assert_eq!(Magnet::parse(v2), Err(MagnetError::OnlyV2));
}

#[test]
fn no_vector_names_a_file_outside() {
    for bytes in [LIBTORRENT_V1, LIBTORRENT_HYBRID, TRANSMISSION, COMPATIBLE] {
        let meta = Metainfo::parse(bytes).expect("a good file");
        for entry in meta.files.entries() {
            assert!(entry.path.is_relative() && entry.path.starts_with(Path::new(&meta.name)));
        }
    }
}
