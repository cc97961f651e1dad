//! Content that is moved, or deleted, by a daemon that may be killed at any moment: real disks, two file systems.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::{Path, PathBuf};

mod common;

use common::{Daemon, in_mounts_of_its_own, make, mount_memory, noise, tree, wait};
use swarmtorrent::base::rng::Rng;

/// The disks here are small.
const ANY_SPACE: &str = "[limits]\nmin_free_space = \"0\"\n";

const FILES: [(&str, usize); 5] =
    [("one", 5_000_001), ("deep/er/two", 4_000_000), ("deep/three", 3), ("deep/none", 0), ("z", 2_000_000)];

/// Writes the content below `dir/content`; the torrent of it.
fn content(dir: &Path, out: &Path) -> PathBuf {
    write(dir);
    make(&dir.join("content"), out, &[]).0
}

fn write(dir: &Path) {
    for (number, (name, len)) in FILES.iter().enumerate() {
        let path = dir.join("content").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, noise(number as u64, *len)).unwrap();
    }
}

fn is_whole(dir: &Path) -> bool {
    let is_same = |(number, (name, len)): (usize, &(&str, usize))| {
        std::fs::read(dir.join("content").join(name)).is_ok_and(|bytes| bytes == noise(number as u64, *len))
    };
    tree(dir).0.len() == FILES.len() && FILES.iter().enumerate().all(is_same)
}

/// Asks until it was asked `times` times: for a while that is different each time.
fn linger(daemon: &Daemon, times: u64) {
    for _ in 0..times {
        daemon.ask("version");
    }
}

fn dir_of(daemon: &Daemon) -> PathBuf {
    PathBuf::from(daemon.torrent()["dir"].as_str().unwrap())
}

fn wait_moved(daemon: &Daemon) {
    wait("the move is over", 20, || daemon.torrent()["moving_to"].is_null());
}

#[test]
fn a_move_that_is_killed_anywhere_leaves_all_here_or_all_there() {
    in_mounts_of_its_own("a_move_that_is_killed_anywhere_leaves_all_here_or_all_there", || {
        let temp = tempfile::tempdir().unwrap();
        let disks = [temp.path().join("disk"), temp.path().join("memory"), temp.path().join("disk2")];
        mount_memory(&disks[1], "64M");
        disks.iter().for_each(|disk| std::fs::create_dir_all(disk).unwrap());
        let st = content(&disks[0], temp.path());
        let mut seeder = Daemon::start(&temp.path().join("seeder"), ANY_SPACE);
        let listen = seeder.listen;
        seeder.add(&st, &format!("dir={}", disks[0].display()));
        seeder.wait_state("seeding", 20);
        // The first move is not cut short, so that all is on record.
        seeder.ask(&format!("move all {}", disks[2].display()));
        wait("it is there", 20, || dir_of(&seeder) == disks[2]);
        wait_moved(&seeder);
        seeder.ask("limit up 1M");
        let leecher = Daemon::start(&temp.path().join("leecher"), "");
        leecher.add(&st, "");
        let checks = |daemon: &Daemon| daemon.log().matches(": checked, ").count();
        let (mut rng, mut cut_short) = (Rng::from_number(4711), 0);
        for round in 0..16 {
            let from = dir_of(&seeder);
            let to = loop {
                let to = &disks[usize::try_from(rng.below(3)).unwrap()];
                if *to != from {
                    break to;
                }
            };
            leecher.ask(&format!("connect all {listen}"));
            let reply = seeder.ask(&format!("move all {}", to.display()));
            assert!(reply.last().unwrap().starts_with("OK"), "{reply:?}");
            if round % 2 == 0 {
                linger(&seeder, rng.below(60));
            } else {
                // Until something is there, and then for as long as it takes to look a few times.
                let mut looks = 0;
                while looks < 5000 && tree(to).0.is_empty() {
                    looks += 1;
                }
                (0..rng.below(12)).for_each(|_| drop(tree(to)));
            }
            let dir = seeder.dir.clone();
            seeder.kill();
            cut_short += usize::from(!is_whole(to) || !tree(&from).0.is_empty());
            for (number, (name, len)) in FILES.iter().enumerate() {
                let at = |disk: &Path| std::fs::read(disk.join("content").join(name)).unwrap_or_default();
                let bytes = noise(number as u64, *len);
                assert!(at(&from) == bytes || at(to) == bytes, "round {round}: {name} is nowhere");
            }
            seeder = Daemon::start_at(&dir, listen, "[limits]\nup = \"1M\"\nmin_free_space = \"0\"\n");
            wait_moved(&seeder);
            assert_eq!(checks(&seeder), 1, "round {round}: nothing is hashed again; {}", seeder.log());
            wait("it seeds", 10, || {
                let torrent = seeder.torrent();
                assert_ne!(torrent["state"], "error", "round {round}: {torrent} {}", seeder.log());
                torrent["state"] == "seeding"
            });
            let at = dir_of(&seeder);
            assert!(at == from || at == *to, "round {round}: {}", at.display());
            assert!(is_whole(&at), "round {round}: {:?}", tree(&at));
            for disk in disks.iter().filter(|disk| **disk != at) {
                assert_eq!(tree(disk), (vec![], 0), "round {round}: nothing is left in {}", disk.display());
            }
            assert_eq!(checks(&seeder), 1, "round {round}: nothing is hashed again");
        }
        assert!(cut_short >= 4, "only {cut_short} of 16 moves were cut short");
        seeder.ask("limit up 0");
        leecher.ask(&format!("connect all {listen}"));
        leecher.wait_state("seeding", 40);
        assert!(is_whole(&leecher.dir.join("downloads")));
        let wasted = leecher.torrent()["wasted"].as_u64().unwrap();
        assert!(wasted < 2_000_000, "{wasted} bytes in vain: nothing wrong was ever sent");
    });
}

#[test]
fn peers_are_served_while_content_is_on_its_way() {
    in_mounts_of_its_own("peers_are_served_while_content_is_on_its_way", || {
        let temp = tempfile::tempdir().unwrap();
        let memory = temp.path().join("memory");
        mount_memory(&memory, "512M");
        let seeds = temp.path().join("seeds");
        std::fs::create_dir_all(&seeds).unwrap();
        std::fs::write(seeds.join("big"), noise(1, 100_000_000)).unwrap();
        let (st, _, _) = make(&seeds.join("big"), temp.path(), &[]);
        let seeder = Daemon::start(&temp.path().join("seeder"), ANY_SPACE);
        seeder.add(&st, &format!("dir={}", seeds.display()));
        seeder.wait_state("seeding", 60);
        let leecher = Daemon::start(&temp.path().join("leecher"), "");
        leecher.add(&st, "");
        leecher.ask(&format!("connect all {}", seeder.listen));
        wait("it flows", 20, || leecher.torrent()["have_bytes"].as_u64().unwrap() > 0);
        seeder.ask(&format!("move all {}", memory.display()));
        let before = seeder.torrent()["uploaded"].as_u64().unwrap();
        let (mut during, mut states) = (before, std::collections::BTreeSet::new());
        wait("the move is over", 60, || {
            let torrent = seeder.torrent();
            if torrent["moving_to"].is_null() {
                return true;
            }
            during = torrent["uploaded"].as_u64().unwrap();
            states.insert(torrent["state"].as_str().unwrap().to_owned());
            false
        });
        assert!(during > before, "peers got something meanwhile: {before} {during} {states:?} {}", seeder.log());
        assert_eq!(states.into_iter().collect::<Vec<_>>(), ["seeding"]);
        leecher.wait_state("seeding", 60);
        assert!(std::fs::read(memory.join("big")).unwrap() == noise(1, 100_000_000) && !seeds.join("big").exists());
        assert_eq!(leecher.torrent()["wasted"], 0);
    });
}

#[test]
fn a_move_that_cannot_be_leaves_everything_where_it_was() {
    in_mounts_of_its_own("a_move_that_cannot_be_leaves_everything_where_it_was", || {
        let temp = tempfile::tempdir().unwrap();
        let (home, small, tight) = (temp.path().join("home"), temp.path().join("small"), temp.path().join("tight"));
        mount_memory(&small, "8M");
        mount_memory(&tight, "64M");
        let st = content(&home, temp.path());
        let daemon = Daemon::start(&temp.path().join("daemon"), ANY_SPACE);
        daemon.add(&st, &format!("dir={}", home.display()));
        daemon.wait_state("seeding", 20);
        let fails = |to: &Path, why: &str| {
            daemon.ask(&format!("move all {}", to.display()));
            wait("it is told", 20, || daemon.torrent()["move_error"].as_str().is_some_and(|told| told.contains(why)));
            wait_moved(&daemon);
            assert_eq!(daemon.torrent()["dir"], home.to_str().unwrap());
            daemon.wait_state("seeding", 5);
            assert!(is_whole(&home), "{why}");
        };
        fails(&small.join("a/b"), "no space");
        assert_eq!(tree(&small), (vec![], 0));
        std::fs::write(tight.join("mine"), "x").unwrap();
        std::fs::create_dir_all(tight.join("content/deep/er")).unwrap();
        std::fs::write(tight.join("content/deep/er/two"), "mine").unwrap();
        fails(&tight, "already");
        assert_eq!(tree(&tight).0, [PathBuf::from("content/deep/er/two"), PathBuf::from("mine")]);
        fails(Path::new("/proc/nothing"), "");
        // And what is possible is done after all that.
        std::fs::remove_dir_all(tight.join("content")).unwrap();
        daemon.ask(&format!("move all {}", tight.display()));
        wait("it is there", 20, || daemon.torrent()["dir"] == tight.to_str().unwrap());
        wait_moved(&daemon);
        assert!(daemon.torrent()["move_error"].is_null());
        std::fs::remove_file(tight.join("mine")).unwrap();
        assert!(is_whole(&tight));
        assert_eq!(tree(&home), (vec![], 0));
    });
}

#[test]
fn a_torrent_that_is_removed_in_mid_move_leaves_no_strays() {
    in_mounts_of_its_own("a_torrent_that_is_removed_in_mid_move_leaves_no_strays", || {
        let temp = tempfile::tempdir().unwrap();
        let (home, memory) = (temp.path().join("home"), temp.path().join("memory"));
        mount_memory(&memory, "64M");
        let st = content(&home, temp.path());
        let daemon = Daemon::start(&temp.path().join("daemon"), ANY_SPACE);
        for data in ["no", "yes"] {
            daemon.add(&st, &format!("dir={}", home.display()));
            daemon.wait_state("seeding", 20);
            daemon.ask(&format!("move all {}", memory.display()));
            linger(&daemon, 10);
            daemon.ask(&format!("remove all data={data}"));
            wait("it is gone", 20, || daemon.json("list").is_empty());
            wait("its state is gone", 20, || common::saved_metainfo(&daemon.dir.join("state")).is_empty());
            let dir = if is_whole(&home) { &memory } else { &home };
            assert_eq!(tree(dir), (vec![], 0));
            if data == "yes" {
                assert_eq!((tree(&home).0, tree(&memory).0), (vec![], vec![]));
            } else if is_whole(&memory) {
                std::fs::remove_dir_all(memory.join("content")).unwrap();
                write(&home);
            }
        }
    });
}

#[test]
fn a_removal_that_is_killed_anywhere_is_finished_or_did_not_begin() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    let (mut rng, mut resumed) = (Rng::from_number(99), 0);
    let many: Vec<String> = (0..400).map(|number| format!("m/{}/{number}", number % 7)).collect();
    let write = || {
        for name in &many {
            let path = home.join("content").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, noise(1, 1000)).unwrap();
        }
    };
    write();
    std::fs::write(temp.path().join("mine"), "x").unwrap();
    let st = make(&home.join("content"), temp.path(), &[]).0;
    let mut daemon = Daemon::start(&temp.path().join("daemon"), ANY_SPACE);
    for round in 0..16 {
        write();
        std::fs::create_dir_all(home.join("content/m/3/dir")).unwrap();
        std::fs::write(home.join("content/m/3/dir/mine"), "x").unwrap();
        daemon.add(&st, &format!("dir={}", home.display()));
        daemon.wait_state("seeding", 20);
        daemon.ask("remove all data=yes");
        linger(&daemon, rng.below(25));
        let dir = daemon.dir.clone();
        daemon.kill();
        let left = tree(&home).0.len();
        daemon = Daemon::start(&dir, "");
        wait("it is there or gone", 20, || {
            let is_there = !daemon.json("list").is_empty();
            let (files, _) = tree(&home);
            let is_saved = !common::saved_metainfo(&dir.join("state")).is_empty();
            if is_there {
                assert_eq!(files.len(), many.len() + 1, "round {round}: it is all there");
            }
            is_there || (files == [PathBuf::from("content/m/3/dir/mine")] && !is_saved)
        });
        if daemon.json("list").is_empty() {
            resumed += usize::from(left > 1);
            assert_eq!(tree(&home).1, 4, "round {round}: only what leads to what is not the torrent's");
        } else {
            daemon.wait_state("seeding", 20);
            daemon.ask("remove all data=yes");
            wait("it is gone", 20, || {
                tree(&home).0.len() == 1 && common::saved_metainfo(&dir.join("state")).is_empty()
            });
        }
    }
    assert!(resumed >= 2, "only {resumed} removals were cut short");
}

#[test]
fn what_another_torrent_uses_is_not_deleted() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    let st = content(&home, temp.path());
    let out = temp.path().join("other");
    std::fs::create_dir_all(&out).unwrap();
    // The same files as another torrent: its pieces are of another length.
    let other = make(&home.join("content"), &out, &["--piece-length", "1048576"]).0;
    let one_file = temp.path().join("one-file");
    std::fs::create_dir_all(&one_file).unwrap();
    let third = make(&home.join("content/deep/three"), &one_file, &[]).0;
    let daemon = Daemon::start(&temp.path().join("daemon"), ANY_SPACE);
    let add = |path: &Path, dir: &Path| {
        let reply = daemon.ask(&format!("add {} dir={}", path.display(), dir.display()));
        reply.last().unwrap().strip_prefix("OK ").unwrap().to_owned()
    };
    let ids = [add(&st, &home), add(&other, &home), add(&third, &home.join("content/deep"))];
    wait("all seed", 20, || daemon.json("list").iter().all(|row| row["state"] == "seeding"));
    let remove = |id: &str, files: usize| {
        daemon.ask(&format!("remove {id} data=yes"));
        wait("its state is gone", 20, || {
            let saved = common::saved_metainfo(&daemon.dir.join("state"));
            !saved.iter().any(|name| name.contains(id))
        });
        assert_eq!(tree(&home).0.len(), files);
    };
    remove(&ids[0], FILES.len());
    remove(&ids[1], 1);
    remove(&ids[2], 0);
}

#[test]
fn files_get_other_names_and_keep_them_whatever_happens() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    let st = content(&home, temp.path());
    let mut daemon = Daemon::start(&temp.path().join("daemon"), ANY_SPACE);
    daemon.add(&st, &format!("dir={}", home.display()));
    daemon.wait_state("seeding", 20);
    // What the check found is secured by a sync: from here on a kill costs no check.
    assert_eq!(daemon.terminate(), 0);
    daemon = Daemon::start(&temp.path().join("daemon"), ANY_SPACE);
    let id = daemon.torrent()["id"].as_str().unwrap().to_owned();
    let rename =
        |daemon: &Daemon, file: &str, name: &str| daemon.ask(&format!("rename {id} '{file}' '{name}'")).pop().unwrap();
    let paths = |daemon: &Daemon| -> Vec<String> {
        daemon.json(&format!("files {id}")).iter().map(|row| row["path"].as_str().unwrap().to_owned()).collect()
    };
    let index = |daemon: &Daemon, path: &str| {
        let rows = daemon.json(&format!("files {id}"));
        rows.iter().find(|row| row["path"] == path).unwrap()["index"].to_string()
    };
    std::fs::write(home.join("content/mine"), "x").unwrap();
    for (file, name, code) in [
        ("*/one", "a/b", "invalid"),
        ("*/one", "..", "invalid"),
        ("*/one", "z", "exists"),
        ("*/one", "deep", "exists"),
        ("*/one", "one", "exists"),
        ("*/one", "mine", "exists"),
        ("*", "x", "not-found"),
        ("nothing", "x", "not-found"),
    ] {
        let reply = rename(&daemon, file, name);
        assert!(reply.starts_with(&format!("ERR {code} ")), "{file} to {name}: {reply}");
    }
    std::fs::remove_file(home.join("content/mine")).unwrap();
    // A file, then the directory of all, then a file in there, each killed at another moment.
    let renames = [("content/one", "two ones", "content/two ones"), (".", "other", ""), ("other/z", "y", "other/y")];
    for (round, (file, name, path)) in renames.iter().enumerate() {
        let by = if *file == "." { ".".to_owned() } else { index(&daemon, file) };
        assert_eq!(rename(&daemon, &by, name), "OK");
        if round != 1 {
            wait("it has its name", 10, || paths(&daemon).iter().any(|found| found == path) || path.is_empty());
        }
        let dir = daemon.dir.clone();
        daemon.kill();
        daemon = Daemon::start(&dir, ANY_SPACE);
        daemon.wait_state("seeding", 20);
        let is_renamed = paths(&daemon).iter().all(|found| home.join(found).exists());
        assert!(is_renamed, "{:?} {:?}", paths(&daemon), tree(&home));
        if *file == "." && home.join("content").exists() {
            assert_eq!(rename(&daemon, ".", name), "OK"); // it was killed before it was recorded
            wait("it has its name", 10, || home.join(name).exists());
        }
    }
    assert_eq!(
        tree(&home).0.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
        ["other/deep/er/two", "other/deep/none", "other/deep/three", "other/two ones", "other/y"]
    );
    assert_eq!(daemon.log().matches(": checked, ").count(), 1, "nothing is hashed again");
    // It is served as before, and a check finds it all.
    daemon.ask(&format!("verify {id}"));
    wait("it is checked", 20, || daemon.log().matches(": checked, ").count() == 2);
    daemon.wait_state("seeding", 20);
    let leecher = Daemon::start(&temp.path().join("leecher"), ANY_SPACE);
    leecher.add(&st, "");
    leecher.ask(&format!("connect all {}", daemon.listen));
    leecher.wait_state("seeding", 30);
    assert!(is_whole(&leecher.dir.join("downloads")), "others have the names of the description");
    daemon.ask(&format!("remove {id} data=yes"));
    wait("it is gone", 20, || tree(&home) == (vec![], 0));
}
