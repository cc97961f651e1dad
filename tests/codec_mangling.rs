//! Every codec takes any bytes: it parses them or refuses them, and parses what it writes to the same value.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::Path;

use proptest::prelude::*;

#[path = "fuzz/codecs_feed.rs"]
mod codecs_feed;
mod common;

use codecs_feed::{CODECS, feed};
use common::{mangled, tree};

/// The number of a codec for the first byte of a script.
fn number(name: &str) -> u8 {
    u8::try_from(CODECS.iter().position(|(codec, _)| *codec == name).unwrap()).unwrap()
}

#[test]
fn table_of_codecs_names_every_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/codec");
    let files = tree(&root).0;
    let mut files: Vec<String> = files
        .iter()
        .filter_map(|path| path.to_str().unwrap().strip_suffix(".rs").map(str::to_owned))
        .filter(|name| name != "mod" && !name.ends_with("tests"))
        .collect();
    files.sort();
    let named: Vec<_> = CODECS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named, files);
}

/// Each input is in the directory that is named after its codec, without the byte that chooses the codec.
#[test]
fn inputs_that_once_failed_are_harmless() {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found/codecs");
    for input in tree(&found).0 {
        let codec = number(input.parent().unwrap().to_str().unwrap());
        feed(&[&[codec], &std::fs::read(found.join(&input)).unwrap()[..]].concat());
    }
}

/// Inputs that a codec accepts, for mangling.
fn good() -> impl Strategy<Value = Vec<u8>> {
    let of = |name: &str, input: &[u8]| [&[number(name)], input].concat();
    let id = "5:iiiii".replace('5', "20").replace("iiiii", &"i".repeat(20));
    prop::sample::select(vec![
        of("bencode", b"d1:ai1e1:bl1:x2:yzee"),
        of("bencode_scan", b"d1:ai1e1:cl1:x2:yze1:bi2ee"),
        of("blocklist", b"a name:1.2.3.4-1.2.3.9\n10.0.0.0/8\n1.2.3.4 - 2.0.0.0 , 100 , x\n2001:db8::/32"),
        of("catalog", format!("d5:itemsld4:hash{id}4:name1:x4:sizei5eee8:msg_typei1e4:pagei0e5:pagesi1ee").as_bytes()),
        of("control", br#"add 'a file' label="x \" y" dir=/a\ b"#),
        of("dht_state", format!("d2:id{id}3:id6{id}5:nodes0:6:nodes60:e").as_bytes()),
        of("dns", &[0x80, 0, 0, 0, 0, 1, 0, 0, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]),
        of("extension", b"d1:ei1e1:md6:ut_pexi1e11:ut_metadatai2ee13:metadata_sizei9e1:pi80e1:v1:x6:yourip4:abcde"),
        of("followed", format!("ld3:dir2:/d4:link1:x7:torrent{id}ee").as_bytes()),
        of("http", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        of("http", b"3\r\nabc\r\n0\r\n\r\n"),
        of("http_request", b"GET /announce?a=b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"),
        of("http_tracker", b"d8:completei3e8:intervali9e5:peers6:abcdefe"),
        of("http_tracker/server", b"info_hash=aaaaaaaaaaaaaaaaaaa%20&peer_id=aaaaaaaaaaaaaaaaaaaa&port=1&left=0"),
        of("journal", b"\x03abcdef"),
        of("krpc", format!("d1:ad2:id{id}9:info_hash{id}e1:q9:get_peers1:t2:aa1:y1:qe").as_bytes()),
        of("krpc", format!("d1:rd2:id{id}5:token1:x6:valuesl6:abcdefee1:t2:aa1:y1:re").as_bytes()),
        of("lsd", format!("BT-SEARCH * HTTP/1.1\r\nPort: 6881\r\nInfohash: {}\r\n\r\n\r\n", "a".repeat(40)).as_bytes()),
        of("magnet", b"dn=a%20b&tr=udp://x:1&so=1,3-5&x.pe=1.2.3.4:5"),
        of("metadata", b"d8:msg_typei1e5:piecei0e10:total_sizei3eeabc"),
        of("metainfo", b"8:announce9:udp://x:113:announce-listll9:udp://x:1e1:ye7:comment1:c5:nodesll1:xi1eee"),
        of("metainfo/parser", b"d4:infod5:filesld6:lengthi1e4:pathl1:aeed6:lengthi2e4:pathl1:beee4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee"),
        of("pex", b"d5:added6:abcdef7:added.f1:\x108:dropped6:abcdefe"),
        of("resp", b"$3\r\nabc\r\n"),
        of("socks", b"\x05\x00\x00\x01abcdef"),
        of("socks", b"user:pass%20word@proxy.example:1080"),
        of("st", b"\x00\x01\x00\x00\x50\x01x\x02/a\x01\x00\x04\x00\x50\x04abcd\x00"),
        of("units", b"12M"),
        of("url", b"tracker.example:80/announce?x"),
        of("wire", &[0, 0, 0, 5, 4, 0, 0, 0, 7]),
        of("wire", &[0, 0, 0, 13, 6, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 64, 0]),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_input_is_parsed_or_refused(codec: u8, input in proptest::collection::vec(any::<u8>(), 0..300)) {
        feed(&[&[codec], &input[..]].concat());
    }

    #[test]
    fn mangled_input_is_parsed_or_refused(
        input in good(), flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4), cut in any::<usize>(),
    ) {
        feed(&input);
        let mut mangled = mangled(&input, &flips, cut);
        if let Some(codec) = mangled.first_mut() {
            *codec = input[0];
        }
        feed(&mangled);
    }
}
