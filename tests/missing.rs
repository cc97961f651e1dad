//! Content that is not at its place: a disk that is not mounted, a renamed directory, a file that is missing, too
//! short, or replaced by another.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

mod common;

use common::{Daemon, in_mounts_of_its_own, make, mount_memory, noise, tree, wait};
use swarmtorrent::base::hash::Sha1Hash;

const CONFIG: &str = "[limits]\nmin_free_space = \"0\"\n[storage]\nallocate = \"sparse\"\n";
const FILES: usize = 12;
const FILE_LEN: usize = 500_000;
const LEN: u64 = (FILES * FILE_LEN) as u64;

/// Writes the content below `dir`.
fn write(dir: &Path) {
    std::fs::create_dir_all(dir.join("content/deep")).unwrap();
    for number in 0..FILES {
        std::fs::write(dir.join(name(number)), noise(number as u64, FILE_LEN)).unwrap();
    }
}

fn name(number: usize) -> String {
    format!("content/{}{number:02}", if number.is_multiple_of(2) { "deep/" } else { "" })
}

fn is_whole(dir: &Path) -> bool {
    (0..FILES).all(|number| std::fs::read(dir.join(name(number))).is_ok_and(|it| it == noise(number as u64, FILE_LEN)))
}

/// Writes the content to `temp/source` and returns the path of its torrent.
fn torrent(temp: &Path) -> PathBuf {
    write(&temp.join("source"));
    make(&temp.join("source/content"), temp, &["--piece-length", "32768"]).0
}

/// Starts a daemon that seeds the content from `dir`.
fn seeder(temp: &Path, dir: &Path, st: &Path) -> Daemon {
    let daemon = Daemon::start(&temp.join("seeder"), CONFIG);
    daemon.add(st, &format!("dir={}", dir.display()));
    daemon.wait_state("seeding", 30);
    daemon
}

fn counter(daemon: &Daemon, name: &str) -> u64 {
    daemon.json("stats").iter().find(|row| row["name"] == name).unwrap()["value"].as_u64().unwrap()
}

fn have(daemon: &Daemon) -> u64 {
    daemon.torrent()["have_bytes"].as_u64().unwrap()
}

/// Waits until the torrent has an error that reports `path` as missing.
#[track_caller]
fn wait_missing(daemon: &Daemon, path: &Path) {
    daemon.ask("show all"); // a hibernated torrent looks at its files on a request
    daemon.wait_state("error", 20);
    let error = daemon.torrent()["error"].as_str().unwrap().to_owned();
    assert!(error.starts_with(&format!("missing: {}", path.display())), "{error}");
    assert!(error.contains("`verify`"), "{error}");
    let why = daemon.ask("why all").join(" ");
    assert!(why.contains("missing: ") && why.contains("tried again every 10 s"), "{why}");
}

fn command(program: &str, args: &[&str], path: &Path) {
    assert!(Command::new(program).args(args).arg(path).status().unwrap().success());
}

#[test]
fn disk_that_is_not_mounted_at_the_start_keeps_its_torrents_as_they_were() {
    in_mounts_of_its_own("disk_that_is_not_mounted_at_the_start_keeps_its_torrents_as_they_were", || {
        let temp = tempfile::tempdir().unwrap();
        let (real, disk) = (temp.path().join("real"), temp.path().join("disk"));
        mount_memory(&real, "32M");
        std::fs::create_dir_all(&disk).unwrap();
        let mount = || command("mount", &["--bind", real.to_str().unwrap()], &disk);
        mount();
        let st = torrent(temp.path());
        write(&disk);
        let mut daemon = seeder(temp.path(), &disk, &st);
        let dir = daemon.dir.clone();
        wait("the torrent is saved", 10, || {
            daemon.ask("set all label x");
            counter(&daemon, "pieces.checked") > 0
        });
        for is_killed in [false, true, true] {
            if is_killed {
                daemon.kill()
            } else {
                assert_eq!(daemon.terminate(), 0)
            }
            command("umount", &[], &disk);
            for _ in 0..2 {
                let without = Daemon::start(&dir, CONFIG);
                wait_missing(&without, &disk);
                assert_eq!(have(&without), LEN, "verified pieces are kept");
                assert_eq!(tree(&disk), (Vec::new(), 0), "the empty mount point stays empty");
                without.kill();
            }
            daemon = Daemon::start(&dir, CONFIG);
            wait_missing(&daemon, &disk);
            mount();
            wait("the torrent continues", 40, || daemon.torrent()["state"] == "seeding");
            assert_eq!(have(&daemon), LEN);
            assert_eq!(counter(&daemon, "pieces.checked"), 0, "no piece is hashed");
        }
    });
}

#[test]
fn disk_that_is_unmounted_in_mid_download_is_not_replaced_by_a_directory() {
    in_mounts_of_its_own("disk_that_is_unmounted_in_mid_download_is_not_replaced_by_a_directory", || {
        let temp = tempfile::tempdir().unwrap();
        let (real, disk) = (temp.path().join("real"), temp.path().join("disk"));
        mount_memory(&real, "32M");
        std::fs::create_dir_all(&disk).unwrap();
        let mount = || command("mount", &["--bind", real.to_str().unwrap()], &disk);
        let st = torrent(temp.path());
        let seeder = seeder(temp.path(), &temp.path().join("source"), &st);
        seeder.ask("limit up 1M");
        let leecher = Daemon::start(&temp.path().join("leecher"), CONFIG);
        mount();
        leecher.add(&st, &format!("dir={} sequential=yes", disk.display()));
        leecher.ask(&format!("connect all {}", seeder.listen));
        wait("a part is downloaded", 20, || have(&leecher) > 1_200_000);
        command("umount", &["-l"], &disk);
        wait_missing(&leecher, &disk);
        assert_eq!(tree(&disk), (Vec::new(), 0), "the empty mount point stays empty");
        let before = have(&leecher);
        assert!(before > 500_000, "{before}");
        mount();
        wait("the torrent continues", 40, || leecher.torrent()["state"] == "downloading");
        seeder.ask("limit up 0");
        leecher.ask(&format!("connect all {}", seeder.listen));
        leecher.wait_state("seeding", 40);
        assert!(is_whole(&disk));
        assert_eq!(counter(&leecher, "pieces.checked"), 0, "no piece is hashed again");
        assert_eq!(leecher.log().matches("content: missing").count(), 1, "one line");
        let downloaded = leecher.torrent()["downloaded"].as_u64().unwrap();
        assert!(downloaded < LEN + 600_000, "{downloaded} bytes came for {LEN}");
    });
}

#[test]
fn parent_that_is_renamed_in_mid_download_is_missing_until_it_has_its_name_again() {
    let temp = tempfile::tempdir().unwrap();
    let st = torrent(temp.path());
    let seeder = seeder(temp.path(), &temp.path().join("source"), &st);
    seeder.ask("limit up 1M");
    let leecher = Daemon::start(&temp.path().join("leecher"), CONFIG);
    let (parent, other) = (temp.path().join("parent"), temp.path().join("other"));
    let dir = parent.join("in/here");
    leecher.add(&st, &format!("dir={} sequential=yes", dir.display()));
    leecher.ask(&format!("connect all {}", seeder.listen));
    wait("a part is downloaded", 20, || have(&leecher) > 1_200_000);
    std::fs::rename(&parent, &other).unwrap();
    wait_missing(&leecher, &dir);
    assert!(!parent.exists(), "the directory is not made again");
    std::fs::rename(&other, &parent).unwrap();
    wait("the torrent continues", 40, || leecher.torrent()["state"] == "downloading");
    seeder.ask("limit up 0");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 40);
    assert!(is_whole(&dir));
    assert_eq!(counter(&leecher, "pieces.checked"), 0);
}

#[test]
fn one_file_that_is_gone_or_too_short_stops_the_torrent_until_it_is_back_or_verified() {
    let temp = tempfile::tempdir().unwrap();
    let st = torrent(temp.path());
    let source = temp.path().join("source");
    let other = Daemon::start(&temp.path().join("other"), CONFIG);
    other.add(&st, &format!("dir={}", source.display()));
    other.wait_state("seeding", 30);
    let content = temp.path().join("content");
    write(&content);
    let mut daemon = seeder(temp.path(), &content, &st);
    let dir = daemon.dir.clone();
    let (file, aside) = (content.join(name(5)), temp.path().join("aside"));
    for is_clean in [true, false] {
        if is_clean {
            assert_eq!(daemon.terminate(), 0)
        } else {
            daemon.kill()
        }
        std::fs::rename(&file, &aside).unwrap();
        daemon = Daemon::start(&dir, CONFIG);
        wait_missing(&daemon, &file);
        daemon.ask(&format!("connect all {}", other.listen));
        assert!(!file.exists() && have(&daemon) == LEN);
        std::fs::rename(&aside, &file).unwrap();
        wait("the torrent continues", 40, || daemon.torrent()["state"] == "seeding");
        assert_eq!(counter(&daemon, "pieces.checked"), 0);
    }
    // The file is shorter, and then complete again; it is another file now and is hashed.
    daemon.terminate();
    std::fs::write(&file, noise(5, FILE_LEN / 2)).unwrap();
    let daemon = Daemon::start(&dir, CONFIG);
    wait_missing(&daemon, &file);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), FILE_LEN as u64 / 2, "the file is not changed");
    assert!(daemon.torrent()["error"].as_str().unwrap().contains("shorter"));
    std::fs::write(&file, noise(5, FILE_LEN)).unwrap();
    wait("the torrent continues", 40, || daemon.torrent()["state"] == "seeding");
    assert!(counter(&daemon, "pieces.checked") > 0, "the replaced file is hashed");
    assert_eq!(daemon.torrent()["downloaded"], 0);
    // A recheck by the user downloads the file again.
    daemon.terminate();
    std::fs::remove_file(&file).unwrap();
    let daemon = Daemon::start(&dir, CONFIG);
    wait_missing(&daemon, &file);
    daemon.ask("verify all");
    wait("the file is wanted", 20, || daemon.torrent()["state"] == "downloading");
    daemon.ask(&format!("connect all {}", other.listen));
    daemon.wait_state("seeding", 30);
    assert!(is_whole(&content));
    assert!(daemon.torrent()["downloaded"].as_u64().unwrap() < 2 * FILE_LEN as u64);
}

#[test]
fn directory_that_is_a_file_or_a_link_now_stops_the_torrent_and_costs_no_claim() {
    let temp = tempfile::tempdir().unwrap();
    let st = torrent(temp.path());
    let content = temp.path().join("content");
    write(&content);
    let mut daemon = seeder(temp.path(), &content, &st);
    let dir = daemon.dir.clone();
    let (top, aside) = (content.join("content"), temp.path().join("aside"));
    for is_link in [false, true] {
        daemon.terminate();
        std::fs::rename(&top, &aside).unwrap();
        if is_link {
            std::os::unix::fs::symlink(&aside, &top).unwrap();
        } else {
            std::fs::write(&top, "a file").unwrap();
        }
        daemon = Daemon::start(&dir, CONFIG);
        daemon.ask("show all");
        daemon.wait_state("error", 20);
        let error = daemon.torrent()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(if is_link { "symbolic link" } else { "missing: " }), "{error}");
        assert_eq!(have(&daemon), LEN);
        std::fs::remove_file(&top).unwrap();
        std::fs::rename(&aside, &top).unwrap();
        wait("the torrent continues", 40, || daemon.torrent()["state"] == "seeding");
        assert_eq!(counter(&daemon, "pieces.checked"), 0);
    }
}

#[test]
fn hibernated_torrent_whose_content_goes_is_missing_when_it_is_needed() {
    let temp = tempfile::tempdir().unwrap();
    let st = torrent(temp.path());
    let content = temp.path().join("content");
    write(&content);
    let daemon = seeder(temp.path(), &content, &st);
    let dir = daemon.dir.clone();
    daemon.terminate();
    let daemon = Daemon::start(&dir, CONFIG); // the torrent starts hibernated
    daemon.wait_state("seeding", 20);
    let (top, aside) = (content.join("content"), temp.path().join("aside"));
    std::fs::rename(&top, &aside).unwrap();
    wait_missing(&daemon, &top);
    assert_eq!(tree(&content), (Vec::new(), 0));
    daemon.kill();
    let daemon = Daemon::start(&dir, CONFIG);
    wait_missing(&daemon, &top);
    std::fs::rename(&aside, &top).unwrap();
    wait("the torrent continues", 40, || daemon.torrent()["state"] == "seeding");
    assert_eq!((have(&daemon), counter(&daemon, "pieces.checked")), (LEN, 0));
}

#[test]
fn link_whose_content_goes_is_not_downloaded_again() {
    let temp = tempfile::tempdir().unwrap();
    let st = torrent(temp.path());
    let seeder = seeder(temp.path(), &temp.path().join("source"), &st);
    let link = seeder.ask("magnet all").remove(0);
    let leecher = Daemon::start(&temp.path().join("leecher"), CONFIG);
    let reply = leecher.ask(&format!("add {}", link.trim()));
    assert!(reply.last().unwrap().starts_with("OK "), "{reply:?}");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 40);
    let dir = leecher.dir.clone();
    leecher.terminate();
    let (here, aside) = (dir.join("downloads"), temp.path().join("aside"));
    std::fs::rename(&here, &aside).unwrap();
    let leecher = Daemon::start(&dir, CONFIG);
    wait_missing(&leecher, &here);
    leecher.ask(&format!("connect all {}", seeder.listen));
    assert!(tree(&here).0.is_empty());
    assert_eq!(have(&leecher), LEN);
    leecher.ask("verify all");
    wait("the file is wanted", 20, || leecher.torrent()["state"] == "downloading");
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 40);
    assert!(is_whole(&here));
}

#[test]
fn torrent_without_verified_pieces_makes_its_files_in_a_missing_directory() {
    let temp = tempfile::tempdir().unwrap();
    let st = torrent(temp.path());
    let seeder = seeder(temp.path(), &temp.path().join("source"), &st);
    let leecher = Daemon::start(&temp.path().join("leecher"), CONFIG);
    leecher.add(&st, "");
    leecher.wait_state("downloading", 20);
    let dir = leecher.dir.clone();
    leecher.terminate();
    drop(std::fs::remove_dir_all(dir.join("downloads")));
    let leecher = Daemon::start(&dir, CONFIG);
    leecher.wait_state("downloading", 20);
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 40);
    assert!(is_whole(&dir.join("downloads")));
}

/// `SWARMTORRENT_MISSING` sets the number of torrents.
#[test]
#[expect(clippy::disallowed_methods, reason = "tests are outside the daemon: a rate is measured")]
fn thousands_of_torrents_on_a_missing_disk_cost_few_looks_and_a_line_each() {
    let count: usize = std::env::var("SWARMTORRENT_MISSING").map_or(1000, |count| count.parse().unwrap());
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = temp.path().join("daemon");
    let (downloads, aside) = (dir.join("downloads"), temp.path().join("aside"));
    std::fs::create_dir_all(&downloads).unwrap();
    let daemon = Daemon::start(&dir, CONFIG);
    for number in 0..count {
        let (name, bytes) = (format!("file-{number:05}"), noise(number as u64, 20));
        std::fs::write(downloads.join(&name), &bytes).unwrap();
        let mut torrent = b"d4:infod6:lengthi20e4:name10:".to_vec();
        torrent.extend(name.as_bytes());
        torrent.extend(b"12:piece lengthi16384e6:pieces20:");
        torrent.extend(Sha1Hash::of(&bytes).0);
        torrent.extend(b"ee");
        let path = temp.path().join("one.torrent");
        std::fs::write(&path, torrent).unwrap();
        daemon.add(&path, "");
    }
    let with = |daemon: &Daemon, state: &str| daemon.json("list").iter().filter(|row| row["state"] == state).count();
    wait("all are seeded", 60, || with(&daemon, "seeding") == count);
    assert_eq!(daemon.terminate(), 0);
    std::fs::rename(&downloads, &aside).unwrap();
    let daemon = Daemon::start(&dir, CONFIG);
    let ids: Vec<String> = daemon.json("list").iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    ids.iter().for_each(|id| drop(daemon.ask(&format!("files {id}"))));
    assert_eq!(with(&daemon, "error"), count);
    let (start, before) = (Instant::now(), counter(&daemon, "disk.probes"));
    wait("the disk is probed", 60, || counter(&daemon, "disk.probes") >= before + 1000);
    let secs = start.elapsed().as_secs();
    let probes = counter(&daemon, "disk.probes") - before;
    assert!(probes <= 200 * (secs + 2), "{probes} probes in {secs} s");
    assert_eq!(daemon.log().matches(": missing: ").count(), count, "one line each");
    assert!(!downloads.exists() || tree(&downloads) == (Vec::new(), 0));
    drop(std::fs::remove_dir(&downloads));
    std::fs::rename(&aside, &downloads).unwrap();
    wait("all continue", 60 + count as u64 / 100, || with(&daemon, "seeding") == count);
    assert_eq!(counter(&daemon, "pieces.checked"), 0);
}
