use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::base::geometry::Span;
use crate::base::steps::{self, Allowance};

/// A torrent of these files; `inner` is put after `name`.
fn torrent(files: &[(&str, u64)], inner: &str) -> Vec<u8> {
    let total: u64 = files.iter().map(|(_, len)| len).sum();
    let entries: String = files
        .iter()
        .map(|(path, len)| {
            let parts: String = path.split('|').map(|part| format!("{}:{part}", part.len())).collect();
            format!("d6:lengthi{len}e4:pathl{parts}ee")
        })
        .collect();
    let pieces = "x".repeat(20 * total.div_ceil(16384) as usize);
    format!("d4:infod5:filesl{entries}e4:name4:root{inner}12:piece lengthi16384e6:pieces{}:{pieces}ee", pieces.len())
        .into_bytes()
}

fn problem(files: &[(&str, u64)]) -> String {
    Metainfo::parse(&torrent(files, "")).unwrap_err().to_string()
}

#[test]
fn the_worked_example_of_the_st_format_is_read_and_written_byte_for_byte() {
    let mut bytes = b"d8:announce20:udp://127.0.0.1:69694:infod15:fragment lengthi16384e9:fragments32:".to_vec();
    bytes.extend(
        crate::base::hash::unhex::<32>("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03").unwrap(),
    );
    bytes.extend(b"6:lengthi6e4:name9:hello.txt10:st versioni1ee8:trackers11:");
    bytes.extend(crate::base::hash::unhex::<11>("000004 1b39047f00000100".replace(' ', "").as_str()).unwrap());
    bytes.extend(b"e");
    let meta = Metainfo::parse(&bytes).unwrap();
    assert_eq!(meta.st_id.unwrap().to_string(), "d1ffad513fd9bb94abd949898d78ff902750460916bb7b43a1c290753c72861d");
    assert_eq!(meta.info_hash.to_string(), "d1ffad513fd9bb94abd949898d78ff9027504609");
    assert!(meta.is_pure && meta.is_single);
    assert_eq!(meta.trackers, [["udp://127.0.0.1:6969"]]);
    assert_eq!(meta.to_bytes(false), bytes);
}

#[test]
fn files_are_laid_one_after_another_below_the_name() {
    let meta = Metainfo::parse(&torrent(&[("a|b.txt", 20_000), ("empty", 0), ("c", 1)], "7:privatei1e")).unwrap();
    let entries: Vec<_> = meta.files.entries().collect();
    assert_eq!(entries[0].path, PathBuf::from("root/a/b.txt"));
    assert_eq!(entries[2].span, Span { offset: 20_000, len: 1 });
    assert_eq!((meta.geometry.pieces(), meta.pieces.len(), meta.name.as_str()), (2, 2, "root"));
    assert!(meta.private);
}

#[test]
fn paths_that_could_leave_their_directory_are_refused() {
    for bad in ["..", ".", "a|..|b", "a/b", "/etc|passwd", "a\0b", "", "|"] {
        let message = problem(&[(bad, 1)]);
        assert!(message.contains("path of file 0"), "{bad:?}: {message}");
    }
    let long = "x".repeat(256);
    assert!(problem(&[(&long, 1)]).contains("255"));
    let deep = ["d"; 65].join("|");
    assert!(problem(&[(&deep, 1)]).contains("64"));
    let ok = ["d"; 64].join("|");
    assert!(Metainfo::parse(&torrent(&[(&ok, 1)], "")).is_ok());
}

#[test]
fn two_files_of_one_path_are_refused_and_so_is_a_file_in_a_files_place() {
    assert!(problem(&[("a", 1), ("b", 1), ("a", 2)]).contains("taken"));
    assert!(problem(&[("a|b", 1), ("a!", 1), ("a", 2)]).contains("taken"));
    assert!(Metainfo::parse(&torrent(&[("a", 1), ("ab", 1), ("b|a", 1)], "")).is_ok());
}

#[test]
fn lengths_beyond_sense_are_refused() {
    for bad in [
        "d4:infod6:lengthi-1e4:name1:x12:piece lengthi16384e6:pieces0:ee",
        "d4:infod6:lengthi9007199254740992e4:name1:x12:piece lengthi16384e6:pieces0:ee",
        "d4:infod6:lengthi1e4:name1:x12:piece lengthi0e6:pieces20:aaaaaaaaaaaaaaaaaaaaee",
        "d4:infod6:lengthi1e4:name1:x12:piece lengthi4294967297e6:pieces20:aaaaaaaaaaaaaaaaaaaaee",
        "d4:infod6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces19:aaaaaaaaaaaaaaaaaaaee",
        "d4:infod6:lengthi20000e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee",
        "d4:infod5:filesle6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee",
        "de",
        "i1e",
        "d4:infoi1ee",
    ] {
        assert!(Metainfo::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let v2 = b"d4:infod9:file treede12:meta versioni2e4:name1:x12:piece lengthi16384eee";
    assert_eq!(Metainfo::parse(v2), Err(MetainfoError::OnlyV2));
    assert!(Metainfo::parse(&torrent(&[("a", 1 << 62), ("b", 1 << 62)][..0], "")).is_err(), "no files at all");
}

#[test]
fn pad_files_and_symbolic_links_are_never_stored() {
    let bytes = b"d4:infod5:filesld6:lengthi5e4:pathl1:aeed4:attr1:p6:lengthi16379e4:pathl4:.pad5:16379eed4:attr1:l6:lengthi0e4:pathl4:linke12:symlink pathl1:aeee4:name1:r12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    let meta = Metainfo::parse(bytes).unwrap();
    let pads: Vec<_> = meta.files.entries().map(|entry| entry.pad).collect();
    assert_eq!(pads, [false, true, true]);
    assert_eq!(meta.extras.get(2).attr, "l");
}

#[test]
fn every_key_that_people_write_is_read_and_written_again() {
    let mut bytes = b"d8:announce8:udp://a/13:announce-listll8:udp://a/e1:xe7:comment2:hi10:created by2:me13:creation datei5e8:encoding5:UTF-89:httpseedsl9:http://h/e4:info".to_vec();
    let info = b"d6:lengthi1e6:md5sum32:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa4:name1:n12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
    bytes.extend_from_slice(info);
    bytes.extend_from_slice(b"5:nodesll1:hi6881eee8:url-listl9:http://w/ee");
    let meta = Metainfo::parse(&bytes).unwrap();
    assert_eq!(meta.trackers, [["udp://a/"]]);
    assert_eq!(
        (meta.comment.as_deref(), meta.created_by.as_deref(), meta.creation_date),
        (Some("hi"), Some("me"), Some(5))
    );
    assert_eq!((meta.web_seeds.len(), meta.http_seeds.len(), meta.nodes[0].1), (1, 1, 6881));
    assert!(meta.extras.get(0).md5sum.is_some());
    assert_eq!(Metainfo::parse(&meta.to_bytes(false)).unwrap(), meta);
    assert_eq!(&*meta.info, info);
}

/// A small `.st` of the pure profile with these files; `outer` stands before `info`, `inner` at its end.
fn st_of(files: &str, outer: &str, inner: &str) -> Vec<u8> {
    let hash = "x".repeat(32);
    format!("d{outer}4:infod5:filesl{files}e15:fragment lengthi16384e9:fragments32:{hash}4:name4:root{inner}10:st versioni1eee")
        .into_bytes()
}

#[test]
fn a_st_is_canonical_and_its_paths_have_no_empty_component() {
    let good = st_of("d6:lengthi1e4:pathl1:aee", "", "");
    assert!(Metainfo::parse(&good).unwrap().is_pure);
    let info = |bytes: &[u8]| bytes["d4:info".len()..bytes.len() - 1].to_vec();
    assert_eq!(Metainfo::from_info(&info(&good)).unwrap(), Metainfo::parse(&good).unwrap());
    let unsorted = st_of("d4:pathl1:ae6:lengthi1ee", "", "");
    for refused in [Metainfo::parse(&unsorted), Metainfo::from_info(&info(&unsorted))] {
        let Err(MetainfoError::Bencode(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.problem, crate::codec::bencode::Problem::UnsortedKey);
    }
    for (file, problem) in [
        ("d6:lengthi1e4:pathl1:a0:1:bee", "is empty"),
        ("d4:attr1:p6:lengthi1e4:pathl2:..1:bee", "could leave"),
        ("d6:lengthi1e4:pathlee", "is empty"),
    ] {
        let message = Metainfo::parse(&st_of(file, "", "")).unwrap_err().to_string();
        assert!(message.contains(problem), "{file}: {message}");
    }
}

#[test]
fn another_version_is_refused_before_anything_else_is_judged() {
    let bytes = b"d4:infod4:name2:..10:st versioni2eee";
    assert_eq!(Metainfo::parse(bytes), Err(MetainfoError::Version(2)));
    assert_eq!(Metainfo::parse(b"d4:infod10:st version1:1ee"), Err(MetainfoError::Version(0)));
}

#[test]
fn a_tracker_that_is_named_in_the_table_and_beside_it_is_asked_once() {
    let mut meta = Metainfo::parse(&st_of("d6:lengthi1e4:pathl1:aee", "", "")).unwrap();
    meta.trackers = vec![
        vec!["http://a.example/announce".into(), "udp://b.example:1".into()],
        vec!["udp://c.example:1/passkey".into(), "https://d.example/x".into()],
    ];
    let read = Metainfo::parse(&meta.to_bytes(false)).unwrap();
    let expected = [
        vec!["http://a.example/announce", "udp://b.example:1"],
        vec!["https://d.example/x"],
        vec!["udp://c.example:1/passkey"],
    ];
    assert_eq!(read.trackers, expected, "the table first, then what it has no form for");
    assert_eq!(Metainfo::parse(&read.to_bytes(false)).unwrap(), read);
    let spelled = st_of(
        "d6:lengthi1e4:pathl1:aee",
        "13:announce-listll30:HTTP://A.example:0080/announceel25:http://a.example/announceee",
        "",
    );
    assert_eq!(Metainfo::parse(&spelled).unwrap().trackers, [["HTTP://A.example:0080/announce"]]);
}

#[test]
fn keys_that_we_do_not_know_are_written_again_as_they_came() {
    let mut bytes = st_of("d6:lengthi1e4:pathl1:aee", "1:ad1:xlee", "");
    assert_eq!(bytes.pop(), Some(b'e'));
    bytes.extend_from_slice(b"9:publisherl4:someee");
    let meta = Metainfo::parse(&bytes).unwrap();
    assert_eq!(meta.others.len(), 2);
    assert_eq!(meta.to_bytes(false), bytes);
    let mut long = b"d4:info".to_vec();
    long.extend_from_slice(&meta.info);
    long.extend_from_slice(format!("1:y{}:{}e", OTHERS_LEN_MAX, "y".repeat(OTHERS_LEN_MAX)).as_bytes());
    assert!(Metainfo::parse(&long).unwrap().others.is_empty());
}

#[test]
fn a_link_has_no_content_whatever_its_entry_says() {
    for length in ["", "6:lengthi7e"] {
        let link = format!("d4:attr1:l{length}4:pathl1:le12:symlink pathl1:aee");
        let meta = Metainfo::parse(&st_of(&format!("d6:lengthi5e4:pathl1:aee{link}"), "", "")).unwrap();
        assert_eq!(meta.geometry.total_len(), 5);
        assert!(meta.files.entry(1).pad);
    }
    for (attr, accepted) in [("l", false), ("p", true)] {
        let bytes = format!(
            "d4:infod5:filesld6:lengthi1e4:pathl1:aeed4:attr1:{attr}6:lengthi0eee4:name1:r12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee"
        );
        assert_eq!(Metainfo::parse(bytes.as_bytes()).is_ok(), accepted, "without a path: {attr}");
    }
}

#[test]
fn any_private_but_nought_is_private() {
    for (inner, private) in [("", false), ("7:privatei0e", false), ("7:privatei1e", true), ("7:privatei2e", true)] {
        assert_eq!(Metainfo::parse(&torrent(&[("a", 1)], inner)).unwrap().private, private, "{inner}");
    }
}

#[test]
fn a_hybrid_is_its_v1_part() {
    let meta = Metainfo::parse(&torrent(&[("a", 1)], "")).unwrap();
    let hybrid = b"d4:infod9:file treede6:lengthi1e12:meta versioni2e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
    let hybrid = Metainfo::parse(hybrid).unwrap();
    assert_eq!((hybrid.geometry, hybrid.st_id), (Geometry::new(1, 16384).unwrap(), None));
    assert_ne!(hybrid.info_hash, meta.info_hash);
}

#[test]
fn fragments_and_pieces_must_agree() {
    let hash = "x".repeat(32);
    let st = |fragment_len: u32, rest: &str| {
        format!(
            "d4:infod15:fragment lengthi{fragment_len}e9:fragments32:{hash}6:lengthi1e4:name1:x{rest}10:st versioni1eee"
        )
    };
    let pieces = "6:pieces20:aaaaaaaaaaaaaaaaaaaa";
    assert!(!Metainfo::parse(st(16384, &format!("12:piece lengthi16384e{pieces}")).as_bytes()).unwrap().is_pure);
    for (fragment_len, rest) in [
        (16384, format!("12:piece lengthi32768e{pieces}")),
        (16384, pieces.to_owned()),
        (16384, "12:piece lengthi16384e".to_owned()),
        (16384, "12:piece lengthi16384e6:pieces0:".to_owned()),
        (8192, String::new()),
        (16385, String::new()),
        (134_217_728, String::new()),
    ] {
        assert!(Metainfo::parse(st(fragment_len, &rest).as_bytes()).is_err(), "{fragment_len} {rest}");
    }
}

proptest! {
    #[test]
    fn flipped_and_cut_files_never_panic(at in 0..400_usize, byte: u8, cut in 0..500_usize) {
        let mut bytes = torrent(&[("a|b", 20_000), ("c", 5)], "7:privatei1e");
        let len = bytes.len();
        bytes[at % len] = byte;
        bytes.truncate(cut.max(1));
        let _ = Metainfo::parse(&bytes);
    }
}

/// Parses in slices of `slice` steps; the most steps that one slice took, too.
fn parse_sliced(mut parser: Parser, slice: u64) -> (Result<Metainfo, MetainfoError>, u64) {
    let mut most = 0;
    loop {
        steps::take();
        let result = parser.step(&mut Allowance::new(slice));
        most = most.max(steps::take());
        if let Some(result) = result {
            return (result, most);
        }
    }
}

#[test]
fn slices_give_the_same_as_one_run() {
    let mut unsorted = torrent(&[("b|c", 20_000), ("a", 5), ("b|a", 0)], "");
    unsorted.splice(1..1, *b"8:url-listl9:http://w/e7:comment2:hi");
    let long_outer = [&b"d7:comment1200000:"[..], &vec![b'x'; 1_200_000], &torrent(&[("a", 1)], "")[1..]].concat();
    let samples = [
        torrent(&[("a|b.txt", 20_000), ("empty", 0), ("c", 1)], "7:privatei1e"),
        torrent(&[("a", 1), ("b", 1), ("a", 2)], ""),
        st_of("d6:lengthi1e4:pathl1:aee", "1:ad1:xlee", ""),
        st_of("d4:pathl1:ae6:lengthi1ee", "", ""),
        unsorted,
        long_outer,
        b"d4:infod6:lengthi1e".to_vec(),
    ];
    for bytes in samples {
        let whole = Metainfo::parse(&bytes);
        for slice in [1, 7, 1000] {
            assert_eq!(parse_sliced(Parser::file(&bytes[..]), slice).0, whole);
        }
    }
    let copied =
        Metainfo::parse(&[&b"d7:comment1200000:"[..], &vec![b'x'; 1_200_000], &torrent(&[("a", 1)], "")[1..]].concat());
    assert!(copied.unwrap().info.allocated() < 1000, "a long document is not kept for its `info`");
}

/// An `info` of `files`, each given by its components, in pieces of 256 KiB.
fn info_of(files: &[Vec<String>]) -> Vec<u8> {
    let mut info = b"d5:filesl".to_vec();
    for path in files {
        info.extend_from_slice(b"d6:lengthi0e4:pathl");
        path.iter().for_each(|part| info.extend_from_slice(format!("{}:{part}", part.len()).as_bytes()));
        info.extend_from_slice(b"ee");
    }
    info.extend_from_slice(b"e4:name1:n12:piece lengthi262144e6:pieces0:e");
    info
}

/// Names that differ only in case: those of the bits of a number.
fn by_case(number: usize, letters: usize) -> String {
    (0..letters).map(|bit| if number >> bit & 1 == 0 { 'a' } else { 'A' }).collect()
}

/// The hardest metainfo that the parser accepts, by what is hard about it.
fn hardest() -> Vec<(&'static str, Vec<u8>)> {
    let pieces = INFO_LEN_MAX / 20 - 10;
    let mut many_pieces =
        format!("d6:lengthi{}e4:name1:n12:piece lengthi1e6:pieces{}:", pieces, pieces * 20).into_bytes();
    many_pieces.resize(many_pieces.len() + pieces * 20, b'x');
    many_pieces.push(b'e');
    let mut reversed = b"d".to_vec();
    for number in (0..1_500_000).rev() {
        reversed.extend_from_slice(format!("7:{number:07}i0e").as_bytes());
    }
    reversed.extend_from_slice(b"6:lengthi0e4:name1:n12:piece lengthi1e6:pieces0:e");
    let one_letter: Vec<String> = vec!["a".to_owned(); COMPONENTS_MAX - 1];
    let deep = |number: usize| [&one_letter[..], &[format!("{:07}", number * 7919 % 1_000_003)]].concat();
    let wide = |number: usize| {
        vec!["x".repeat(255); 60].into_iter().chain([format!("{:07}", number * 7919 % 1_000_003)]).collect()
    };
    vec![
        ("most pieces", many_pieces),
        (
            "most files",
            info_of(
                &(0..FILES_MAX).map(|number| vec![by_case(number * 7919 % (1 << 20), 20)]).collect::<Vec<_>>()
                    [..600_000],
            ),
        ),
        ("deepest paths", info_of(&(0..140_000).map(deep).collect::<Vec<_>>())),
        ("longest paths", info_of(&(0..2000).map(wide).collect::<Vec<_>>())),
        ("keys out of order", reversed),
    ]
}

#[test]
fn no_slice_of_the_hardest_metainfo_takes_a_turn() {
    let mut samples = hardest();
    let short = (0..FILES_MAX).map(|number| vec![format!("{:x}", number * 7919 % 1_000_003)]).collect::<Vec<_>>();
    samples.push(("as many files as are allowed", info_of(&short)));
    for (what, info) in samples {
        assert!(info.len() <= INFO_LEN_MAX, "{what}: {} bytes", info.len());
        let (result, most) = parse_sliced(Parser::info(info), 20_000);
        println!("{what}: at most {most} steps a slice");
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(most <= steps::TURN_MAX, "{what}: {most} steps");
    }
}

#[test]
fn limit_is_named_with_its_number_and_what_exceeds_it() {
    let said = |bytes: &[u8]| Metainfo::parse(bytes).unwrap_err().to_string();
    let with_pieces =
        |len: u64| format!("d4:infod6:lengthi1e4:name1:x12:piece lengthi{len}e6:pieces20:aaaaaaaaaaaaaaaaaaaaee");
    assert_eq!(Metainfo::parse(with_pieces(256 << 20).as_bytes()).map(|meta| meta.geometry.pieces()), Ok(1));
    assert_eq!(
        said(with_pieces(512 << 20).as_bytes()),
        "the torrent has pieces of 512 MiB; at most 256 MiB are allowed"
    );
    let just = said(with_pieces((256 << 20) + 1).as_bytes());
    assert_eq!(just, "the torrent has pieces of 268,435,457 bytes; at most 256 MiB are allowed");
    assert!(said(with_pieces(1 << 40).as_bytes()).contains("1,048,576 MiB"));
    let files = [&b"d4:infod5:filesl"[..], &b"de".repeat(1_200_000), b"e4:name1:nee"].concat();
    assert_eq!(said(&files), "the torrent has 1,200,000 files; at most 1,000,000 are allowed");
    let long = |len: usize| [&format!("d4:info{len}:").into_bytes()[..], &vec![0; len], b"e"].concat();
    assert_eq!(said(&long((33 << 20) - 9)), "the torrent has metadata (`info`) of 33 MiB; at most 32 MiB are allowed");
    assert_eq!(said(&vec![b'x'; 65 << 20]), "the torrent file has 65 MiB; at most 64 MiB are allowed");
    let whole = b"d4:infod6:lengthi9007199254740992e4:name1:x12:piece lengthi16384e6:pieces0:ee";
    assert_eq!(said(whole), "the torrent has more than 9,007,199,254,740,991 bytes of content");
    assert!(problem(&[(&["d"; 65].join("|"), 1)]).contains("has 65 components; at most 64 are allowed"));
    assert!(problem(&[(&"x".repeat(300), 1)]).contains("has a component of 300 bytes; at most 255 are allowed"));
    let name = "n".repeat(255);
    let mut paths = b"d4:infod5:filesl".to_vec();
    (0..600_000).for_each(|number| paths.extend_from_slice(format!("d6:lengthi0e4:pathl6:{number:06}ee").as_bytes()));
    paths.extend_from_slice(format!("e4:name255:{name}12:piece lengthi1e6:pieces0:ee").as_bytes());
    assert_eq!(said(&paths), "the torrent's paths, each with its name, have more than 128 MiB");
    let hash = "x".repeat(32);
    let fragments = |len: u64| {
        format!("d4:infod15:fragment lengthi{len}e9:fragments32:{hash}6:lengthi1e4:name1:x10:st versioni1eee")
    };
    assert!(Metainfo::parse(fragments(64 << 20).as_bytes()).is_ok());
    assert!(said(fragments(128 << 20).as_bytes()).contains("fragments of 128 MiB; at most 64 MiB"));
    let table = format!("8:trackers{}:{}", 300 << 10, "x".repeat(300 << 10));
    let bytes = st_of("d6:lengthi1e4:pathl1:aee", "", "");
    let bytes = [&bytes[..bytes.len() - 1], table.as_bytes(), b"e"].concat();
    assert!(said(&bytes).contains("the tracker table has 307,200 bytes; at most 262,144 bytes"), "{}", said(&bytes));
}

#[test]
fn lists_of_any_length_beside_info_are_read_up_to_their_bounds() {
    let info = torrent(&[("a", 1)], "");
    let with = |outer: String| [b"d", outer.as_bytes(), &info[1..]].concat();
    let urls: String = (0..100_000).map(|number| format!("16:http://t/{number:07}")).collect();
    let meta = Metainfo::parse(&with(format!("13:announce-listll{urls}ee"))).unwrap();
    assert_eq!(meta.trackers.iter().flatten().count(), ADDRESSES_MAX);
    let meta = Metainfo::parse(&with(format!("13:announce-listl{}e", "le".repeat(100_000)))).unwrap();
    assert!(meta.trackers.is_empty());
    let keys: String = (0..5000).map(|number| format!("5:A{number:04}0:")).collect();
    assert_eq!(Metainfo::parse(&with(keys)).unwrap().others.len(), OTHERS_MAX);
}
