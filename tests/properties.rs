//! What holds for any input: what is written is read as it was, and what is mangled never panics and is never believed.

use std::collections::BTreeMap;
use std::path::Component;

use proptest::prelude::*;
use swarmtorrent::base::hash::{Sha1Hash, Sha256Hash};
use swarmtorrent::codec::bencode::{self, DEPTH_MAX, DictWriter, Kind, Value};
use swarmtorrent::codec::followed::Publisher;
use swarmtorrent::codec::magnet::Magnet;
use swarmtorrent::codec::metainfo::{ADDRESSES_MAX, COMPONENT_LEN_MAX, Metainfo};
use swarmtorrent::codec::st;
use swarmtorrent::torrent::create::{Creator, Notes, Profile};

mod common;

use common::mangled;

/// A value that owns its parts.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Dict(BTreeMap<Vec<u8>, Tree>),
}

impl Tree {
    fn of(value: &Value<'_>) -> Self {
        match &value.kind {
            Kind::Int(int) => Self::Int(*int),
            Kind::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Kind::List(items) => Self::List(items.iter().map(Self::of).collect()),
            Kind::Dict(dict) => {
                Self::Dict(dict.entries().iter().map(|(key, value)| (key.to_vec(), Self::of(value))).collect())
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(int) => bencode::write_int(out, *int),
            Self::Bytes(bytes) => bencode::write_bytes(out, bytes),
            Self::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.write(out));
                out.push(b'e');
            }
            Self::Dict(entries) => {
                let mut dict = DictWriter::begin(out);
                entries.iter().for_each(|(key, value)| value.write(dict.key(key)));
                dict.end();
            }
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..12);
    let leaf = prop_oneof![any::<i64>().prop_map(Tree::Int), bytes().prop_map(Tree::Bytes)];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..8).prop_map(Tree::List),
            proptest::collection::btree_map(bytes(), inner, 0..8).prop_map(Tree::Dict),
        ]
    })
}

/// Every value's own bytes are in its parent's, and read alone they are the same value.
fn raw_bytes_are_right(value: &Value<'_>) {
    assert_eq!(&bencode::parse(value.raw, bencode::VALUES_MAX).expect("it was read before"), value);
    let inner: Vec<&Value<'_>> = match &value.kind {
        Kind::List(items) => items.iter().collect(),
        Kind::Dict(dict) => dict.entries().iter().map(|(_, value)| value).collect(),
        _ => Vec::new(),
    };
    for item in inner {
        assert!(value.raw.as_ptr_range().contains(&item.raw.as_ptr()) && item.raw.len() < value.raw.len());
        raw_bytes_are_right(item);
    }
}

fn flips() -> impl Strategy<Value = Vec<(usize, u8)>> {
    // The bytes that mean something in bencode come often.
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(&b"dlie:-0123456789/.\0"[..])];
    proptest::collection::vec((any::<usize>(), byte), 0..4)
}

fn cut() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 1 => any::<usize>()]
}

fn url() -> impl Strategy<Value = String> {
    prop_oneof![
        "udp://[a-z]{1,8}\\.example:[1-9][0-9]{1,3}",
        "https?://[a-z]{1,8}\\.example(:[1-9][0-9]{1,3})?/[a-z]{0,6}",
        "http://10\\.0\\.[0-9]\\.[0-9]/announce\\?key=[a-z]{1,4}",
        "udp://[a-z]{1,8}\\.example:[1-9][0-9]{1,3}/[a-z]{1,6}",
        "https?://\\[::[1-9a-f]{1,4}\\]:[1-9][0-9]{1,3}/[a-z]{0,6}",
    ]
}

/// A torrent of a few files with all that may be said of it.
fn made() -> impl Strategy<Value = (Metainfo, Vec<u8>)> {
    let name = || "[a-zA-Z0-9 ä\\\\\u{7}]{1,12}".prop_map(String::into_bytes);
    let profile = prop_oneof![Just(Profile::Compatible), Just(Profile::Pure), Just(Profile::V1)];
    let lens = proptest::collection::vec(0_u64..40_000, 1..6);
    let urls = || proptest::collection::vec(url(), 0..4);
    (profile, name(), lens, urls(), urls(), any::<bool>(), proptest::option::of(".{0,20}")).prop_map(
        |(profile, name, lens, trackers, web_seeds, private, comment)| {
            let total: u64 = lens.iter().sum();
            let files = lens.iter().zip(0_u32..).map(|(len, index)| (vec![vec![b'f'], index.to_string().into()], *len));
            let notes = Notes { name, trackers, web_seeds, private, comment, ..Notes::default() };
            let mut creator = Creator::new(profile, 16_384, files.collect(), notes);
            creator.update(&vec![7; usize::try_from(total).expect("small")]);
            creator.finish().expect("allowed")
        },
    )
}

proptest! {
    #[test]
    fn bencode_is_read_as_it_was_written(tree in tree()) {
        let mut bytes = Vec::new();
        tree.write(&mut bytes);
        let value = bencode::parse_canonical(&bytes, bencode::VALUES_MAX).expect("canonical");
        prop_assert_eq!(Tree::of(&value), tree);
        prop_assert_eq!(value.raw, bytes.as_slice());
        raw_bytes_are_right(&value);
        let followed = [&bytes[..], b"rest"].concat();
        prop_assert_eq!(bencode::parse_front(&followed, bencode::VALUES_MAX), Ok((value, &b"rest"[..])));
        prop_assert_eq!(bencode::parse(&followed, bencode::VALUES_MAX).expect_err("something follows").offset, bytes.len());
    }

    #[test]
    fn canonical_bencode_has_one_form(tree in tree(), flips in flips(), cut in cut()) {
        let mut bytes = Vec::new();
        tree.write(&mut bytes);
        let bytes = mangled(&bytes, &flips, cut);
        match bencode::parse_canonical(&bytes, bencode::VALUES_MAX) {
            Ok(value) => {
                let mut again = Vec::new();
                Tree::of(&value).write(&mut again);
                prop_assert_eq!(again, bytes);
            }
            Err(error) => prop_assert!(error.offset <= bytes.len()),
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error_with_its_place(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Err(error) = bencode::parse(&bytes, bencode::VALUES_MAX) {
            prop_assert!(error.offset <= bytes.len());
        }
        if let Ok((value, rest)) = bencode::parse_front(&bytes, bencode::VALUES_MAX) {
            prop_assert_eq!(value.raw.len() + rest.len(), bytes.len());
        }
    }

    #[test]
    fn no_nesting_is_too_deep_to_refuse(depth in 0..4 * DEPTH_MAX, in_dicts: bool) {
        let open = if in_dicts { &b"d0:"[..] } else { b"l" };
        let bytes = [open.repeat(depth), b"i1e".to_vec(), b"e".repeat(depth)].concat();
        prop_assert_eq!(bencode::parse(&bytes, bencode::VALUES_MAX).is_ok(), depth <= DEPTH_MAX);
    }

    #[test]
    fn a_metainfo_file_is_read_as_it_was_made((meta, bytes) in made()) {
        let read = Metainfo::parse(&bytes).expect("ours");
        prop_assert_eq!((read.info_hash, read.st_id, &read.info), (meta.info_hash, meta.st_id, &meta.info));
        prop_assert_eq!((&read.files, &read.web_seeds, &read.comment), (&meta.files, &meta.web_seeds, &meta.comment));
        // Trackers that the table has no form for come last; none is lost, and a second reading changes nothing.
        let distinct = |meta: &Metainfo| meta.trackers.iter().flatten().count();
        prop_assert!(distinct(&read) <= distinct(&meta));
        let again = Metainfo::parse(&read.to_bytes(false)).expect("ours");
        prop_assert_eq!(&again, &read);
        prop_assert_eq!(&Metainfo::from_info(&read.info).expect("ours").files, &read.files);
        if !read.is_pure {
            let torrent = Metainfo::parse(&read.to_bytes(true)).expect("a torrent");
            prop_assert_eq!((torrent.info_hash, distinct(&torrent)), (read.info_hash, distinct(&read)));
        }
    }

    #[test]
    fn a_mangled_metainfo_file_is_refused_or_harmless((_, bytes) in made(), flips in flips(), cut in cut()) {
        let bytes = mangled(&bytes, &flips, cut);
        if let Ok(meta) = Metainfo::parse(&bytes) {
            prop_assert_eq!(meta.pieces.len(), meta.geometry.pieces() as usize);
            prop_assert_eq!(meta.files.total_len(), meta.geometry.total_len());
            for entry in meta.files.entries() {
                let parts: Vec<_> = entry.path.components().collect();
                prop_assert!(!parts.is_empty());
                let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_));
                prop_assert!(parts.iter().all(|part| is_name(part) && part.as_os_str().len() <= COMPONENT_LEN_MAX));
            }
            prop_assert!(bytes.windows(meta.info.len()).any(|window| window == &*meta.info));
        }
    }

    #[test]
    fn a_tracker_table_is_read_as_it_was_written(tiers in proptest::collection::vec(proptest::collection::vec(url(), 0..4), 0..6)) {
        let table = st::write_trackers(&tiers);
        let trackers = st::parse_trackers(&table).expect("ours");
        let mut urls: Vec<Vec<String>> = vec![Vec::new(); tiers.len()];
        trackers.iter().for_each(|tracker| urls[usize::from(tracker.tier)].push(tracker.url()));
        prop_assert_eq!(st::write_trackers(&urls), table);
        let tabled = |url: &&String| !(url.starts_with("udp") && url.matches('/').count() > 2);
        prop_assert_eq!(trackers.len(), tiers.iter().flatten().filter(tabled).count());
    }

    #[test]
    fn a_mangled_table_is_refused_or_bounded(url in url(), copies in 1..5_usize, flips in flips(), cut in cut()) {
        let table = st::write_trackers(&[vec![url]]).repeat(copies);
        if table.is_empty() {
            return Ok(()); // an address that has no form in the table
        }
        if let Ok(trackers) = st::parse_trackers(&mangled(&table, &flips, cut)) {
            prop_assert!(trackers.len() <= ADDRESSES_MAX);
            prop_assert!(trackers.is_sorted_by_key(|tracker| tracker.tier));
            prop_assert!(trackers.iter().all(|tracker| tracker.port != 0 && !tracker.host.is_empty()));
        }
    }

    #[test]
    fn a_link_is_read_as_it_was_written(
        info_hash in proptest::option::of(any::<[u8; 20]>()),
        st_id: [u8; 32],
        name in proptest::option::of(".{0,20}"),
        trackers in proptest::collection::vec(url(), 0..4),
        publisher in proptest::option::of((any::<[u8; 32]>(), proptest::collection::vec(any::<u8>(), 0..=64))),
        peers in proptest::collection::vec("10\\.0\\.0\\.[0-9]:[1-9][0-9]{1,3}", 0..3),
        select in proptest::collection::vec((0..50_usize, 0..50_usize).prop_map(|(a, b)| (a.min(b), a.max(b))), 0..4),
    ) {
        let magnet = Magnet {
            info_hash: info_hash.map(Sha1Hash),
            st_id: Some(Sha256Hash(st_id)),
            publisher: publisher.map(|(key, salt)| Publisher { key, salt }),
            name,
            web_seeds: trackers.clone(),
            trackers,
            peers,
            select,
        };
        prop_assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
    }

    #[test]
    fn any_text_is_a_link_or_an_error(text in ".{0,80}", query in "[a-z.0-9%&=:+,-]{0,80}") {
        let _refused_or_not = Magnet::parse(&text);
        if let Ok(magnet) = Magnet::parse(&format!("magnet:?xt=urn:btih:{}&{query}", "0f".repeat(20))) {
            prop_assert!(magnet.select.iter().all(|(first, last)| first <= last));
            prop_assert_eq!(Magnet::parse(&magnet.to_string()), Ok(magnet));
        }
    }
}
