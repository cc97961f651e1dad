use std::fs;

use super::*;
use crate::codec::import::Evidence;

/// Two files of 40,000 and 20,000 bytes in pieces of 16 KiB, four of them; a tracker.
fn metainfo() -> Vec<u8> {
    let mut bytes = b"d8:announce8:http://a4:infod5:filesld6:lengthi40000e4:pathl1:aeed6:lengthi20000e4:pathl1:beee\
4:name1:n12:piece lengthi16384e6:pieces80:"
        .to_vec();
    bytes.extend([b'x'; 80]);
    bytes.extend(b"ee");
    bytes
}

fn taken(found: Result<Found, String>) -> (Found, Vec<u8>, Import) {
    let mut found = found.unwrap();
    match std::mem::replace(&mut found.what, What::Link(String::new())) {
        What::Torrent(metainfo, import) => (found, metainfo, *import),
        What::Link(link) => panic!("{link}"),
    }
}

fn only(mut all: Vec<Read>) -> Result<Found, String> {
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).1
}

/// What transmission makes of this resume file.
fn transmission(resume: &[u8]) -> Result<Found, String> {
    let dir = tempfile::tempdir().unwrap();
    for (below, bytes) in [("torrents/x.torrent", &metainfo()[..]), ("resume/x.resume", resume)] {
        fs::create_dir_all(dir.path().join(below).parent().unwrap()).unwrap();
        fs::write(dir.path().join(below), bytes).unwrap();
    }
    only(transmission::read(dir.path()).unwrap())
}

#[test]
fn what_transmission_4_has_checked_is_claimed() {
    let resume = b"d11:destination2:/d3:dndli1ei0ee6:labelsl3:isoe8:priorityli0ei1ee\
8:progressd6:blocks1:\xf06:mtimesli5ei0ee6:pieces1:\xe0e11:ratio-limitd11:ratio-limit8:1.50000010:ratio-modei1eee";
    let (found, _, import) = taken(transmission(resume));
    assert_eq!((found.dir, found.label.as_str(), found.paused), (Some("/d".into()), "iso", false));
    assert_eq!((import.evidence, import.times), (Evidence::ChangedAt, vec![Some(5), None]));
    assert_eq!(import.have, [0xe0], "the fourth is there and was not checked");
    assert_eq!((import.priorities, import.ratio_millis), (vec![0, 3], 1500));
}

#[test]
fn what_transmission_3_has_checked_is_claimed() {
    // The first file: pieces 0 and 1 checked at 104 and 110, piece 2 never; the second one at 90.
    let resume = b"d11:destination2:/d6:pausedi1e8:progressd6:blocks3:all12:time-checkedlli100ei4ei10ei0eei90eeee";
    let (found, _, import) = taken(transmission(resume));
    assert!(found.paused);
    assert_eq!((import.evidence, import.times), (Evidence::HeldAt, vec![Some(104), Some(90)]));
    assert_eq!(import.have, [0b1101_0000]);
    let (_, _, import) = taken(transmission(b"d11:destination2:/de"));
    assert!(import.have.is_empty() && import.times.is_empty(), "no progress is no claim");
}

#[test]
fn what_has_other_names_is_refused() {
    assert!(transmission(b"d11:destination2:/d4:name1:me").unwrap_err().contains("renamed"));
    assert!(transmission(b"d11:destination2:/d5:filesl3:n/a3:n/cee").unwrap_err().contains("renamed"));
    assert!(transmission(b"d11:destination2:/d5:filesl3:n/a3:n/bee").is_ok());
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("n")).unwrap();
    fs::write(dir.path().join("n/a.part"), b"x").unwrap();
    let path = dir.path().to_str().unwrap();
    let resume = format!("d11:destination{}:{path}e", path.len());
    assert!(transmission(resume.as_bytes()).unwrap_err().contains("unfinished"));
    let why = libtorrent(b"12:mapped_filesl3:n/a3:n/ce").unwrap_err();
    assert!(why.contains("is called n/c there"), "{why}");
    let why = rtorrent("/d/other", b"").unwrap_err();
    assert!(why.contains("does not have its name"), "{why}");
}

/// What rtorrent makes of a session where this is in the resume file.
fn rtorrent(directory: &str, resume: &[u8]) -> Result<Found, String> {
    let dir = tempfile::tempdir().unwrap();
    let session =
        format!("d7:custom15:a%20b9:directory{}:{directory}5:statei0e17:timestamp.startedi7ee", directory.len());
    fs::write(dir.path().join("X.torrent"), metainfo()).unwrap();
    fs::write(dir.path().join("X.torrent.rtorrent"), session).unwrap();
    fs::write(dir.path().join("X.torrent.libtorrent_resume"), [&b"d"[..], resume, b"e"].concat()).unwrap();
    only(rtorrent::read(dir.path()).unwrap())
}

#[test]
fn what_rtorrent_is_certain_of_is_claimed() {
    let resume = b"8:bitfieldi4e5:filesld9:completedi3e5:mtimei9e8:priorityi0eed5:mtimei-1e8:priorityi2eee\
16:uncertain_pieces4:\0\0\0\x02";
    let (found, _, import) = taken(rtorrent("/d/n", resume));
    assert_eq!((found.dir, found.label.as_str(), found.paused), (Some("/d".into()), "a b", true));
    assert_eq!((import.have, import.added), (vec![0b1101_0000], 7));
    assert_eq!((import.times, import.priorities), (vec![Some(9), None], vec![0, 3]));
    assert_eq!(taken(rtorrent("/d/n", b"8:bitfield1:\xa0")).2.have, [0xa0]);
    for nothing in [&b"8:bitfieldi0e"[..], b"8:bitfieldi5e", b"8:bitfield2:\xff\xff", b""] {
        assert_eq!(taken(rtorrent("/d/n", nothing)).2.have, [0]);
    }
}

#[test]
fn trackers_that_the_user_changed_are_those_that_are_asked() {
    let resume = b"8:trackersd7:dht://xd7:enabledi1e13:extra_trackeri1ee8:http://ad7:enabledi0ee8:http://bd7:enabledi1e13:extra_trackeri1eee";
    let (_, bytes, _) = taken(rtorrent("/d/n", resume));
    let (before, after) = (Metainfo::parse(&metainfo()).unwrap(), Metainfo::parse(&bytes).unwrap());
    assert_eq!(after.trackers, [["http://b"]]);
    assert_eq!(after.info_hash, before.info_hash);
    let (_, bytes, _) = taken(rtorrent("/d/n", b""));
    assert_eq!(bytes, metainfo(), "as it was");
}

/// What libtorrent makes of a resume file with these keys after `file-format`.
fn libtorrent(keys: &[u8]) -> Result<Found, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.torrent"), metainfo()).unwrap();
    let resume = [&b"d11:file-format22:libtorrent resume file"[..], keys, b"9:save_path2:/de"].concat();
    fs::write(dir.path().join("x.fastresume"), resume).unwrap();
    only(libtorrent::read(dir.path(), true).unwrap())
}

#[test]
fn libtorrents_pieces_are_bytes_or_bits() {
    let have = |keys: &[u8]| taken(libtorrent(keys)).2.have;
    assert_eq!(have(b"12:file-versioni1e6:pieces4:\x01\x03\x00\x01"), [0b1101_0000]);
    assert_eq!(have(b"12:file-versioni2e6:pieces1:\xd0"), [0b1101_0000]);
    for odd in [&b"12:file-versioni1e6:pieces1:\xf0"[..], b"12:file-versioni2e6:pieces4:\x01\x01\x01\x01", b""] {
        assert_eq!(have(odd), [0], "{odd:?}");
    }
    assert!(have(b"12:file-versioni1e6:pieces4:\x01\x01\x01\x019:seed_modei1e").is_empty());
    let (found, _, import) = taken(libtorrent(b"13:file_priorityli0ei7ee12:qBt-category3:iso14:qBt-ratioLimiti-2000e"));
    assert_eq!((import.priorities, import.ratio_millis, found.label.as_str()), (vec![0, 3], 0, "iso"));
    assert!(import.times.iter().all(Option::is_some) && import.times.len() == 2);
}

#[test]
fn what_was_a_link_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let hash = "x".repeat(20);
    let resume =
        format!("d11:file-format22:libtorrent resume file9:info-hash20:{hash}4:name1:n8:trackersll8:http://aeee");
    fs::write(dir.path().join("x.resume"), resume).unwrap();
    let found = only(libtorrent::read(dir.path(), false).unwrap()).unwrap();
    assert!(matches!(found.what, What::Link(link) if link.contains(&"78".repeat(20)) && link.contains("tr=")));
}
