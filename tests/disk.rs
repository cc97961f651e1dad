//! Content on real disks: what becomes of it while it is moved, and while others change it.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::Path;

mod common;

use common::{Daemon, make, noise, wait};

const LEN: usize = 40_000_001;

/// A daemon that seeds `LEN` bytes, at most `limit` a second, and the torrent.
fn seeder(temp: &Path, limit: &str) -> (Daemon, std::path::PathBuf) {
    let dir = temp.join("seeder");
    std::fs::create_dir_all(dir.join("downloads")).unwrap();
    std::fs::write(dir.join("downloads/content"), noise(7, LEN)).unwrap();
    let (st, _, _) = make(&dir.join("downloads/content"), temp, &[]);
    let daemon = Daemon::start(&dir, "");
    daemon.add(&st, "");
    daemon.wait_state("seeding", 20);
    daemon.ask(&format!("limit up {limit}"));
    (daemon, st)
}

#[test]
fn content_that_is_moved_in_mid_download_loses_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (seeder, st) = seeder(temp.path(), "10M");
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    leecher.ask(&format!("connect all {}", seeder.listen));
    let got = || leecher.torrent()["have_bytes"].as_u64().unwrap();
    let mut dir = leecher.dir.join("downloads");
    for (number, target) in [temp.path().join("renamed"), memory.path().join("copied")].into_iter().enumerate() {
        let before = LEN as u64 / 5 * (number as u64 + 1);
        wait("some of it is here", 20, || got() > before);
        let reply = leecher.ask(&format!("move all {}", target.display()));
        assert!(reply.last().unwrap().starts_with("OK"), "{reply:?}");
        wait("it is there", 20, || leecher.torrent()["state"] == "downloading");
        assert!(target.join("content").exists() && !dir.join("content").exists());
        assert!(got() > before, "nothing is forgotten");
        dir = target;
    }
    seeder.ask("limit up 0");
    leecher.wait_state("seeding", 40);
    assert!(std::fs::read(dir.join("content")).unwrap() == noise(7, LEN));
    let torrent = leecher.torrent();
    let downloaded = torrent["downloaded"].as_u64().unwrap();
    assert!(downloaded < LEN as u64 + LEN as u64 / 5, "{downloaded} bytes came for {LEN}");
}

#[test]
fn what_others_change_while_it_runs_is_found_by_the_next_run() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, _) = seeder(temp.path(), "0");
    let file = temp.path().join("seeder/downloads/content");
    let mut changed = noise(7, LEN);
    changed[LEN / 2] ^= 1;
    std::fs::write(&file, changed).unwrap();
    seeder.ask("set all label changed"); // saves the record anew
    let dir = seeder.dir.clone();
    assert_eq!(seeder.terminate(), 0);
    let again = Daemon::start(&dir, "");
    again.ask("show all"); // whoever wants something of it, or the next look at all that sleep, finds out
    again.wait_state("downloading", 20);
    let have = again.torrent()["have_bytes"].as_u64().unwrap();
    assert!(have < LEN as u64 && have > LEN as u64 / 2, "one piece is missing: {have} of {LEN}");
}
