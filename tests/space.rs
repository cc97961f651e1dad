//! Disks that fill up and empty, by other programs, under a daemon with torrents on several of them.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::{Path, PathBuf};

mod common;

use common::{Daemon, in_mounts_of_its_own, make, mount_memory, noise, wait};

const LEN: usize = 16_000_000;

/// A torrent of `LEN` bytes that a daemon seeds.
fn seed(seeder: &Daemon, temp: &Path, name: &str, seed: u64) -> PathBuf {
    let path = temp.join(name);
    std::fs::write(&path, noise(seed, LEN)).unwrap();
    let out = temp.join(format!("of-{name}"));
    std::fs::create_dir_all(&out).unwrap();
    let st = make(&path, &out, &[]).0;
    seeder.add(&st, &format!("dir={}", temp.display()));
    st
}

fn state_of(daemon: &Daemon, name: &str) -> String {
    let rows = daemon.json("list");
    rows.iter().find(|row| row["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
}

fn field_of(daemon: &Daemon, name: &str, field: &str) -> u64 {
    daemon.json("list").iter().find(|row| row["name"] == name).unwrap()[field].as_u64().unwrap()
}

#[test]
fn a_disk_that_others_fill_stops_what_writes_to_it_and_nothing_else() {
    in_mounts_of_its_own("a_disk_that_others_fill_stops_what_writes_to_it_and_nothing_else", || {
        let temp = tempfile::tempdir().unwrap();
        let (one, two) = (temp.path().join("one"), temp.path().join("two"));
        mount_memory(&one, "48M");
        mount_memory(&two, "48M");
        let seeder = Daemon::start(&temp.path().join("seeder"), "");
        let first = seed(&seeder, temp.path(), "first", 1);
        let second = seed(&seeder, temp.path(), "second", 2);
        wait("both are seeded", 30, || seeder.json("list").iter().all(|row| row["state"] == "seeding"));
        seeder.ask("limit up 2M");
        let config = "[limits]\nmin_free_space = \"16M\"\n[storage]\nallocate = \"sparse\"\n";
        let leecher = Daemon::start(&temp.path().join("leecher"), config);
        leecher.add(&first, &format!("dir={}", one.display()));
        let id = leecher.torrent()["id"].as_str().unwrap().to_owned();
        leecher.ask(&format!("connect {id} {}", seeder.listen));
        wait("some of it is here", 30, || field_of(&leecher, "first", "have_bytes") > 2_000_000);
        // Another program leaves less than must stay free.
        std::fs::write(one.join("ballast"), vec![1; 26_000_000]).unwrap();
        wait("there is no space", 40, || state_of(&leecher, "first") == "nospace");
        let why = leecher.ask(&format!("why {id}")).join(" ");
        assert!(why.contains(&format!("file system at {}", one.display())) && why.contains("16 MiB"), "{why}");
        assert!(why.contains("MiB are free") && why.contains("goes on when"), "{why}");
        // What is on the other disk goes on, and so does what is here of the first.
        leecher.add(&second, &format!("dir={}", two.display()));
        let other = leecher.json("list").iter().find(|row| row["name"] == "second").unwrap()["id"].clone();
        leecher.ask(&format!("connect {} {}", other.as_str().unwrap(), seeder.listen));
        let third = Daemon::start(&temp.path().join("third"), "");
        third.add(&first, "");
        third.ask(&format!("connect all {}", leecher.listen));
        wait("it is served all the same", 30, || third.torrent()["have_bytes"].as_u64().unwrap() > 1_000_000);
        assert_eq!(state_of(&leecher, "first"), "nospace");
        seeder.ask("limit up 0");
        wait("the second is here", 40, || state_of(&leecher, "second") == "seeding");
        assert_eq!(state_of(&leecher, "first"), "nospace");
        let status = leecher.json("status").remove(0);
        for disk in [&one, &two] {
            let disks = status["disks"].as_array().unwrap();
            assert!(disks.iter().any(|row| row["path"] == disk.to_str().unwrap()), "{status}");
        }
        // A little more than must stay free is not enough to go on: else it would stop again soon.
        let file = std::fs::File::options().write(true).open(one.join("ballast")).unwrap();
        let free = |bytes: u64| {
            let stat = rustix::fs::statvfs(&one).unwrap();
            let excess = bytes.saturating_sub(stat.f_bavail * stat.f_frsize);
            file.set_len(file.metadata().unwrap().len() - excess).unwrap();
        };
        free((16 << 20) + (1 << 20));
        let probes = || leecher.log().matches("first: goes on").count();
        assert_eq!(probes(), 0);
        drop(file);
        std::fs::remove_file(one.join("ballast")).unwrap();
        wait("it goes on by itself", 30, || state_of(&leecher, "first") != "nospace");
        leecher.ask(&format!("connect {id} {}", seeder.listen));
        wait("the first is here", 40, || state_of(&leecher, "first") == "seeding");
        assert!(std::fs::read(one.join("first")).unwrap() == noise(1, LEN));
        assert_eq!((probes(), leecher.log().matches("first: no space").count()), (1, 1), "it does not flap");
    });
}

#[test]
fn what_cannot_be_saved_for_want_of_room_is_saved_later() {
    in_mounts_of_its_own("what_cannot_be_saved_for_want_of_room_is_saved_later", || {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("daemon");
        let state = dir.join("state");
        mount_memory(&state, "1M");
        let daemon = Daemon::start(&dir, "");
        let st = seed(&daemon, temp.path(), "first", 1);
        daemon.wait_state("seeding", 30);
        let id = daemon.torrent()["id"].as_str().unwrap().to_owned();
        // Not a byte is left, and a record needs some.
        let fill = || drop(std::fs::write(state.join("ballast"), vec![1; 1 << 20]));
        wait("nothing is left", 10, || {
            fill();
            rustix::fs::statvfs(&state).unwrap().f_bavail == 0
        });
        let mut number = 0;
        wait("it is told", 20, || {
            number += 1;
            daemon.ask(&format!("set {id} label {}", "x".repeat(40 + number % 60)));
            daemon.log().contains("no space")
        });
        let reply = daemon.ask(&format!("set {id} label last")).pop().unwrap();
        assert!(reply.starts_with("ERR io done, but not saved yet: no space"), "{reply}");
        assert_eq!(daemon.torrent()["state"], "seeding", "content is not touched by that");
        std::fs::remove_file(state.join("ballast")).unwrap();
        let saved = || {
            let files = common::tree(&state).0;
            files.iter().any(|file| {
                let bytes = std::fs::read(state.join(file)).unwrap_or_default();
                bytes.windows(13).any(|bytes| bytes == b"5:label4:last")
            })
        };
        wait("it is tried again", 30, saved);
        daemon.kill();
        let again = Daemon::start(&dir, "");
        again.wait_state("seeding", 20);
        assert_eq!(again.torrent()["label"], "last");
        assert!(again.log().matches(": checked, ").count() == 1 && st.exists(), "nothing is hashed again");
        // A shutdown that cannot save everything says so.
        wait("nothing is left", 10, || {
            fill();
            rustix::fs::statvfs(&state).unwrap().f_bavail == 0
        });
        wait("no record fits any more", 20, || {
            number += 1;
            let reply = again.ask(&format!("set {id} label {}", "x".repeat(40 + number % 60))).pop().unwrap();
            reply.starts_with("ERR io ")
        });
        let log = again.dir.join("log");
        assert_eq!(again.terminate(), 1);
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains(&format!("{id} first: its latest changes are not saved")), "{log}");
    });
}
