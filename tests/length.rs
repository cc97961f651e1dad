//! Files that are longer than the length in their torrent, and empty files.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::{Path, PathBuf};
use std::process::Command;

mod common;

use common::{Daemon, make, noise, wait};

const FILES: [(&str, usize); 5] =
    [("a", 300_000), ("empty", 0), ("deep/b", 70_001), ("deep/er/none", 0), ("z", 100_000)];

/// Writes the content `name` of [`FILES`] below `dir`, each file that is not empty with `more` additional bytes, and
/// the empty files only if `with_empty`.
fn write(dir: &Path, name: &str, more: usize, with_empty: bool) {
    for (number, (file, len)) in FILES.iter().enumerate().filter(|(_, (_, len))| with_empty || *len > 0) {
        let path = dir.join(name).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = noise(number as u64, *len);
        bytes.resize(len + if *len > 0 { more } else { 0 }, 7);
        std::fs::write(path, bytes).unwrap();
    }
}

/// Whether every file exists and has exactly the expected bytes.
fn is_exact(dir: &Path) -> bool {
    FILES
        .iter()
        .enumerate()
        .all(|(number, (file, len))| std::fs::read(dir.join(file)).is_ok_and(|it| it == noise(number as u64, *len)))
}

fn torrent(temp: &Path) -> PathBuf {
    write(&temp.join("source"), "content", 0, true);
    make(&temp.join("source/content"), temp, &["--piece-length", "32768"]).1
}

fn seeder(temp: &Path, torrent: &Path) -> Daemon {
    let daemon = Daemon::start(&temp.join("seeder"), "");
    daemon.add(torrent, &format!("dir={}", temp.join("source").display()));
    daemon.wait_state("seeding", 30);
    daemon
}

/// Runs `check`. Returns whether it succeeded, and its output.
fn check(torrent: &Path, dir: &Path) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_swarmtorrent")).arg("check").args([torrent, dir]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[test]
fn longer_file_of_the_same_name_is_cut_when_its_download_completes() {
    let temp = tempfile::tempdir().unwrap();
    let torrent = torrent(temp.path());
    let seeder = seeder(temp.path(), &torrent);
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    let downloads = leecher.dir.join("downloads");
    // The older files have other bytes and are longer.
    for (file, len) in FILES.iter().filter(|(_, len)| *len > 0) {
        let path = downloads.join("content").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, noise(99, len + 1_000_000)).unwrap();
    }
    leecher.add(&torrent, "");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 40);
    wait("all files have the expected length", 20, || is_exact(&downloads.join("content")));
    assert!(check(&torrent, &downloads).0);
    assert!(!leecher.ask("why all").join(" ").contains("too long"));
}

#[test]
fn longer_file_that_was_found_is_left_alone_and_named() {
    let temp = tempfile::tempdir().unwrap();
    let torrent = torrent(temp.path());
    let dir = temp.path().join("daemon");
    let downloads = dir.join("downloads");
    write(&downloads, "content", 1234, true);
    let daemon = Daemon::start(&dir, "");
    daemon.add(&torrent, "");
    daemon.wait_state("seeding", 30);
    let why = daemon.ask("why all").join(" ");
    assert!(why.contains("content/a is 1234 bytes too long") && why.contains("content/z is 1234"), "{why}");
    let (is_well, said) = check(&torrent, &downloads);
    assert!(!is_well && said.contains("content/a: 1234 bytes too long"), "{said}");
    assert!(said.contains("pieces are good"), "{said}");
    daemon.ask("verify all");
    daemon.wait_state("seeding", 30);
    assert_eq!(daemon.terminate(), 0);
    for (file, len) in FILES.iter().filter(|(_, len)| *len > 0) {
        assert_eq!(std::fs::metadata(downloads.join("content").join(file)).unwrap().len(), *len as u64 + 1234);
    }
}

#[test]
fn only_files_that_were_downloaded_are_cut() {
    let temp = tempfile::tempdir().unwrap();
    let torrent = torrent(temp.path());
    let seeder = seeder(temp.path(), &torrent);
    let leecher = Daemon::start(&temp.path().join("leecher"), "");
    let downloads = leecher.dir.join("downloads");
    write(&downloads, "content", 500, false);
    // One piece in the middle of the first file is wrong.
    let first = downloads.join("content/a");
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    // A file that should be empty has bytes.
    std::fs::write(downloads.join("content/empty"), "mine").unwrap();
    leecher.add(&torrent, "");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 40);
    wait("the downloaded file is cut", 20, || std::fs::read(&first).unwrap() == noise(0, FILES[0].1));
    wait("empty files are made", 20, || downloads.join("content/deep/er/none").exists());
    assert_eq!(std::fs::metadata(downloads.join("content/z")).unwrap().len(), 100_500, "the file is unchanged");
    assert_eq!(std::fs::read(downloads.join("content/empty")).unwrap(), b"mine");
}

#[test]
fn files_in_a_share_directory_are_not_changed() {
    let temp = tempfile::tempdir().unwrap();
    let shares = temp.path().join("shares");
    write(&shares, "content", 0, true);
    let daemon = Daemon::start(&temp.path().join("daemon"), &format!("[[share]]\npath = \"{}\"\n", shares.display()));
    wait("the content is shared", 30, || daemon.json("list").first().is_some_and(|row| row["state"] == "seeding"));
    let id = daemon.torrent()["id"].clone();
    write(&shares, "content", 77, true);
    wait("the changed content is shared", 40, || {
        let rows = daemon.json("list");
        rows.len() == 1 && rows[0]["id"] != id && rows[0]["state"] == "seeding"
    });
    daemon.ask("verify all");
    daemon.wait_state("seeding", 20);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(std::fs::metadata(shares.join("content/a")).unwrap().len(), 300_077);
}

#[test]
fn empty_files_are_made_when_a_torrent_is_complete() {
    let temp = tempfile::tempdir().unwrap();
    let torrent = torrent(temp.path());
    let dir = temp.path().join("daemon");
    let downloads = dir.join("downloads");
    write(&downloads, "content", 0, false);
    let daemon = Daemon::start(&dir, "[limits]\nactive_downloads = 0\n");
    daemon.add(&torrent, "");
    daemon.wait_state("seeding", 30);
    wait("empty files of existing content are made", 20, || is_exact(&downloads.join("content")));
    assert!(check(&torrent, &downloads).0);
    // The files are created again after a recheck.
    std::fs::remove_file(downloads.join("content/empty")).unwrap();
    daemon.ask("verify all");
    wait("the empty file is made again", 20, || is_exact(&downloads.join("content")));
    // The torrent has only empty files.
    let none = temp.path().join("none.torrent");
    let info =
        "d5:filesld6:lengthi0e4:pathl1:aeed6:lengthi0e4:pathl1:s1:beee4:name2:ee12:piece lengthi16384e6:pieces0:e";
    std::fs::write(&none, format!("d4:info{info}e")).unwrap();
    for options in ["", "verify=no"] {
        drop(std::fs::remove_dir_all(downloads.join("ee")));
        daemon.add(&none, options);
        wait("its files are made", 20, || downloads.join("ee/a").exists() && downloads.join("ee/s/b").exists());
        let rows = daemon.json("list");
        let id = rows.iter().find(|row| row["name"] == "ee").unwrap()["id"].as_str().unwrap().to_owned();
        daemon.ask(&format!("remove {id}"));
    }
    // A leecher that does not allocate files before it downloads.
    let leecher = Daemon::start(&temp.path().join("leecher"), "[storage]\nallocate = \"sparse\"\n");
    leecher.add(&torrent, "");
    leecher.ask(&format!("connect all {}", daemon.listen));
    leecher.wait_state("seeding", 40);
    wait("empty files of a download are made", 20, || is_exact(&leecher.dir.join("downloads/content")));
}

#[test]
fn download_that_is_killed_near_its_end_is_cut() {
    let temp = tempfile::tempdir().unwrap();
    let torrent = torrent(temp.path());
    let seeder = seeder(temp.path(), &torrent);
    for round in 0..8_u64 {
        let dir = temp.path().join(format!("leecher{round}"));
        let downloads = dir.join("downloads");
        write(&downloads, "content", 0, true);
        for (file, len) in FILES.iter().filter(|(_, len)| *len > 0) {
            std::fs::write(downloads.join("content").join(file), noise(99, len + 50_000)).unwrap();
        }
        let leecher = Daemon::start(&dir, "");
        leecher.add(&torrent, "");
        leecher.ask(&format!("connect all {}", seeder.listen));
        wait("nearly complete", 30, || leecher.torrent()["have_bytes"].as_u64().unwrap() + 100_000 > 470_001);
        (0..round * 20).for_each(|_| drop(leecher.ask("version")));
        leecher.kill();
        let again = Daemon::start(&dir, "");
        again.ask("show all");
        if round % 2 == 1 {
            again.ask("verify all");
        }
        wait("the download is complete", 40, || {
            if again.torrent()["state"] == "downloading" {
                again.ask(&format!("connect all {}", seeder.listen));
            }
            again.torrent()["state"] == "seeding"
        });
        wait(&format!("all files have the expected length in round {round}"), 20, || {
            is_exact(&downloads.join("content"))
        });
    }
}
