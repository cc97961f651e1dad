//! What the real daemon keeps between runs: its journal, what describes torrents, and what it believes of either.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and measures real time")]

mod common;

use std::path::{Path, PathBuf};

use common::{Daemon, make, noise, wait};

const LEN: usize = 3_000_000;
const PIECE_LEN: usize = 65_536;

/// A daemon that seeded one file and was ended, in `dir/home`: the hash of the torrent and its `.st`.
fn ended(dir: &Path) -> (String, PathBuf) {
    let home = dir.join("home");
    std::fs::create_dir_all(home.join("downloads")).unwrap();
    std::fs::write(home.join("downloads/content"), noise(7, LEN)).unwrap();
    let (st, _, hash) = make(&home.join("downloads/content"), dir, &["--piece-length", "65536"]);
    let daemon = Daemon::start(&home, "");
    daemon.add(&st, "label=mine");
    daemon.wait_state("seeding", 20);
    assert_eq!(daemon.terminate(), 0);
    (hash, st)
}

fn count(daemon: &Daemon, name: &str) -> u64 {
    let rows = daemon.ask("stats");
    rows.iter()
        .find_map(|row| row.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("{name}: {rows:?}"))
}

fn pieces_hashed(daemon: &Daemon) -> u64 {
    count(daemon, "pieces.checked")
}

#[test]
fn a_start_hashes_nothing_and_looks_at_no_file_until_somebody_comes() {
    let temp = tempfile::tempdir().unwrap();
    let (_, st) = ended(temp.path());
    let home = temp.path().join("home");
    let daemon = Daemon::start(&home, "");
    let torrent = daemon.torrent();
    assert_eq!(
        (&torrent["state"], &torrent["label"], &torrent["have_bytes"]),
        (&"seeding".into(), &"mine".into(), &LEN.into())
    );
    assert!(!open_files(&daemon).iter().any(|path| path.ends_with("content")));
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    assert!(leecher.ask(&format!("connect all {}", daemon.listen)).last().unwrap().starts_with("OK"));
    leecher.wait_state("seeding", 20);
    assert_eq!(pieces_hashed(&daemon), 0);
    assert_eq!(daemon.ask("files all").len(), 3, "a header, a file, and OK");
    drop(leecher);
    assert_eq!(daemon.terminate(), 0);
    // What it gave while it was awake is counted, and so is the time that it only slept.
    let daemon = Daemon::start(&home, "");
    assert!(daemon.torrent()["uploaded"].as_u64().unwrap() >= LEN as u64);
    assert_eq!(daemon.terminate(), 0);
    let daemon = Daemon::start(&home, "");
    assert!(daemon.torrent()["uploaded"].as_u64().unwrap() >= LEN as u64);
}

fn open_files(daemon: &Daemon) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect()
}

#[test]
fn what_was_changed_meanwhile_is_hashed_before_anybody_gets_it() {
    let temp = tempfile::tempdir().unwrap();
    let (_, st) = ended(temp.path());
    let home = temp.path().join("home");
    let mut content = noise(7, LEN);
    content[PIECE_LEN * 3 + 5] ^= 1;
    std::fs::write(home.join("downloads/content"), &content).unwrap();
    let daemon = Daemon::start(&home, "");
    assert_eq!(daemon.torrent()["state"], "seeding", "nobody has looked");
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    leecher.add(&st, "");
    let connect = format!("connect all {}", daemon.listen);
    wait("it has all that is right", 20, || {
        leecher.ask(&connect);
        leecher.torrent()["have_bytes"] == (LEN - PIECE_LEN)
    });
    assert_eq!(daemon.torrent()["have_bytes"], LEN - PIECE_LEN);
    assert_eq!(count(&leecher, "pieces.failed"), 0, "nothing wrong was sent");
}

#[test]
fn a_record_that_is_saved_before_anybody_looked_claims_no_more_than_the_last() {
    let temp = tempfile::tempdir().unwrap();
    ended(temp.path());
    let home = temp.path().join("home");
    // Changed in place: as long as it was, and the same file.
    let mut content = noise(7, LEN);
    content[PIECE_LEN * 3 + 5] ^= 1;
    std::fs::write(home.join("downloads/content"), &content).unwrap();
    let daemon = Daemon::start(&home, "");
    daemon.ask("set all label other");
    let journal = || std::fs::read(home.join("state/journal")).unwrap();
    wait("that is saved", 10, || journal().windows(12).any(|part| part == b"5:label5:oth"));
    daemon.kill();
    let daemon = Daemon::start(&home, "");
    daemon.ask("files all");
    wait("every piece was hashed", 20, || pieces_hashed(&daemon) == LEN.div_ceil(PIECE_LEN) as u64);
    assert_eq!(daemon.torrent()["have_bytes"], LEN - PIECE_LEN);
}

#[test]
fn what_is_left_of_a_torrent_that_was_taken_out_is_none() {
    let temp = tempfile::tempdir().unwrap();
    let (hash, _) = ended(temp.path());
    let home = temp.path().join("home");
    // A crash between the two steps of a removal: what describes it is gone, its record is not.
    let meta = home.join(format!("state/torrents/{hash}.meta"));
    let kept = std::fs::read(&meta).unwrap();
    std::fs::remove_file(&meta).unwrap();
    let daemon = Daemon::start(&home, "");
    assert_eq!(daemon.json("list").len(), 0);
    assert!(daemon.log().contains("is left out"));
    drop(daemon);
    // Or somebody had taken it away: nothing is lost.
    std::fs::write(&meta, kept).unwrap();
    let daemon = Daemon::start(&home, "");
    assert_eq!((&daemon.torrent()["state"], &daemon.torrent()["label"]), (&"seeding".into(), &"mine".into()));
    assert!(daemon.ask("remove all").last().unwrap().starts_with("OK"));
    wait("it is forgotten", 10, || !meta.exists());
}

#[test]
fn without_its_description_a_torrent_says_so_and_comes_back_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let (hash, _) = ended(temp.path());
    let home = temp.path().join("home");
    let meta = home.join(format!("state/torrents/{hash}.meta"));
    let kept = std::fs::read(&meta).unwrap();
    let daemon = Daemon::start(&home, "");
    std::fs::write(&meta, "nonsense").unwrap();
    let reply = daemon.ask("files all");
    assert!(reply[0].starts_with("ERR io ") && reply[0].contains("remove the torrent"), "{reply:?}");
    assert_eq!(daemon.torrent()["state"], "error");
    assert!(daemon.torrent()["error"].as_str().unwrap().contains("is damaged"));
    assert!(daemon.ask("why all")[0].contains("is damaged"));
    assert!(daemon.ask("show all").last().unwrap().starts_with("OK"));
    std::fs::write(&meta, kept).unwrap();
    assert_eq!(daemon.ask("files all").len(), 3);
    assert_eq!(daemon.torrent()["state"], "seeding");
    assert_eq!(pieces_hashed(&daemon), 0);
}

#[test]
fn a_damaged_or_missing_journal_costs_a_check_and_no_torrent() {
    let temp = tempfile::tempdir().unwrap();
    ended(temp.path());
    let home = temp.path().join("home");
    let journal = home.join("state/journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    // Every record of the torrent is damaged.
    let starts: Vec<usize> = (0..bytes.len() - 8).filter(|&at| bytes[at..].starts_with(b"torrent ")).collect();
    assert!(!starts.is_empty());
    starts.iter().for_each(|&at| bytes[at + 60] ^= 1);
    std::fs::write(&journal, &bytes).unwrap();
    let daemon = Daemon::start(&home, "");
    daemon.wait_state("seeding", 20);
    assert_eq!(pieces_hashed(&daemon), LEN.div_ceil(PIECE_LEN) as u64);
    assert_eq!(daemon.torrent()["label"], "", "that was in the record");
    drop(daemon);
    std::fs::remove_file(&journal).unwrap();
    let daemon = Daemon::start(&home, "");
    daemon.wait_state("seeding", 20);
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn all_are_verified_though_they_sleep() {
    let temp = tempfile::tempdir().unwrap();
    ended(temp.path());
    let daemon = Daemon::start(&temp.path().join("home"), "");
    assert!(daemon.ask("verify all").last().unwrap().starts_with("OK"));
    wait("every piece was hashed", 20, || pieces_hashed(&daemon) == LEN.div_ceil(PIECE_LEN) as u64);
    daemon.wait_state("seeding", 20);
}
