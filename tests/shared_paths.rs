//! Ownership of files: two torrents of one daemon with a file in common never both write it.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

mod common;

use common::{Daemon, in_mounts_of_its_own, make, noise, wait};
use serde_json::Value;

const ANY_SPACE: &str = "[limits]\nmin_free_space = \"0\"\n";

/// A piece length that makes another torrent of the same files.
const OTHER_PIECES: &[&str] = &["--piece-length", "1048576"];

/// Writes `files` below `dir`; the bytes are noise of the given seed and length.
fn write(dir: &Path, files: &[(&str, u64, usize)]) {
    for (name, seed, len) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, noise(*seed, *len)).unwrap();
    }
}

/// Makes a torrent of the content at `path`. Returns the path of the metainfo file.
fn torrent(path: &Path, out: &Path, extra: &[&str]) -> PathBuf {
    std::fs::create_dir_all(out).unwrap();
    make(path, out, extra).0
}

/// Adds a torrent. Returns its id.
#[track_caller]
fn add(daemon: &Daemon, torrent: &Path, options: &str) -> String {
    let reply = daemon.ask(&format!("add {} {options}", torrent.display())).pop().unwrap();
    reply.strip_prefix("OK ").unwrap_or_else(|| panic!("{reply}")).to_owned()
}

fn show(daemon: &Daemon, id: &str) -> Value {
    daemon.json(&format!("show {id}")).remove(0)
}

fn state(daemon: &Daemon, id: &str) -> String {
    show(daemon, id)["state"].as_str().unwrap().to_owned()
}

#[track_caller]
fn wait_state(daemon: &Daemon, id: &str, wanted: &str) {
    let mut last = Value::Null;
    wait(&format!("{id} is {wanted}; the state was {}\n{}", state(daemon, id), daemon.log()), 30, || {
        last = show(daemon, id);
        last["state"] == wanted
    });
}

fn why(daemon: &Daemon, id: &str) -> String {
    daemon.ask(&format!("why {id}")).join("\n")
}

fn error(daemon: &Daemon, id: &str) -> String {
    show(daemon, id)["error"].as_str().unwrap_or_default().to_owned()
}

/// Returns the bytes of every file below `dir`.
fn bytes_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (files, _) = common::tree(dir);
    files.into_iter().map(|file| (file.clone(), std::fs::read(dir.join(&file)).unwrap())).collect()
}

/// Waits until a second torrent is refused, and checks that its error names the owner and the file and advises `dir=`.
#[track_caller]
fn assert_refused(daemon: &Daemon, id: &str, owner: &str, file: &str) {
    wait_state(daemon, id, "error");
    let error = error(daemon, id);
    for part in [&owner[..8], file, "dir="] {
        assert!(error.contains(part), "no {part} in: {error}");
    }
    assert!(why(daemon, id).contains("dir="), "{}", why(daemon, id));
}

#[track_caller]
fn assert_waits(daemon: &Daemon, id: &str, owner: &str) {
    wait_state(daemon, id, "queued");
    let why = why(daemon, id);
    assert!(why.contains("waits for") && why.contains(&owner[..8]), "{why}");
}

/// A temporary directory with content in `source/content` and files of the same names with other bytes in
/// `other/content`.
struct Scene {
    temp: tempfile::TempDir,
}

const FILES: &[(&str, u64, usize)] = &[("content/a", 1, 3_000_001), ("content/deep/b", 2, 700_000)];
const OTHER_BYTES: &[(&str, u64, usize)] = &[("content/a", 11, 3_000_001), ("content/deep/b", 12, 700_000)];

impl Scene {
    fn new() -> Self {
        let scene = Self { temp: tempfile::tempdir().unwrap() };
        write(&scene.at("source"), FILES);
        write(&scene.at("other"), OTHER_BYTES);
        scene
    }

    fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn daemon(&self) -> Daemon {
        Daemon::start(&self.at("daemon"), ANY_SPACE)
    }

    /// Returns the torrent of the content, and another one of the same bytes.
    fn same(&self) -> (PathBuf, PathBuf) {
        let path = self.at("source/content");
        (torrent(&path, &self.at("out/a"), &[]), torrent(&path, &self.at("out/b"), OTHER_PIECES))
    }

    /// Returns the torrent of files of the same names with other bytes.
    fn different(&self) -> PathBuf {
        torrent(&self.at("other/content"), &self.at("out/d"), &[])
    }

    /// Starts a daemon that seeds a torrent from a directory of its own.
    fn seeder(&self, name: &str, torrent: &Path, dir: &Path) -> Daemon {
        let seeder = Daemon::start(&self.at(name), ANY_SPACE);
        seeder.add(torrent, &format!("dir={}", dir.display()));
        seeder.wait_state("seeding", 30);
        seeder
    }

    /// Writes the content to the directory `name`, in which the daemon finds it.
    fn lay(&self, name: &str) -> PathBuf {
        write(&self.at(name), FILES);
        self.at(name)
    }
}

fn dir(path: &Path) -> String {
    format!("dir={}", path.display())
}

fn connect(daemon: &Daemon, id: &str, other: &Daemon) {
    daemon.ask(&format!("connect {id} {}", other.listen));
}

#[test]
fn same_bytes_are_seeded_by_both_and_written_by_neither() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let before = std::fs::metadata(home.join("content/a")).unwrap().modified().unwrap();
    let second = add(&daemon, &b, &format!("{} verify=no", dir(&home)));
    wait_state(&daemon, &second, "seeding");
    assert_eq!(show(&daemon, &second)["progress"], 1.0, "{}", show(&daemon, &second));
    assert_eq!(std::fs::metadata(home.join("content/a")).unwrap().modified().unwrap(), before);
    // Both torrents upload their pieces.
    let leecher = Daemon::start(&scene.at("leecher"), ANY_SPACE);
    let id = add(&leecher, &b, "");
    connect(&leecher, &id, &daemon);
    wait_state(&leecher, &id, "seeding");
}

#[test]
fn different_bytes_stop_the_second_before_it_writes() {
    let scene = Scene::new();
    let (a, _) = scene.same();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let before = bytes_below(&home);
    let d = scene.different();
    let seeder = scene.seeder("seeder", &d, &scene.at("other"));
    let second = add(&daemon, &d, &format!("{} verify=no", dir(&home)));
    connect(&daemon, &second, &seeder);
    assert_refused(&daemon, &second, &first, "content/a");
    assert!(error(&daemon, &second).contains("content (")); // the owner's name
    assert!(bytes_below(&home) == before, "nothing was written");
    assert_eq!(state(&daemon, &first), "seeding");
    // None of the commands that could start a write causes one.
    for line in [format!("resume {second}"), format!("verify {second}"), format!("priority {second} 0 high")] {
        daemon.ask(&line);
        connect(&daemon, &second, &seeder);
    }
    assert_refused(&daemon, &second, &first, "content/a");
    assert!(bytes_below(&home) == before, "nothing was written");
    // The torrent is added again with another directory, as its error advises.
    daemon.ask(&format!("remove {second}"));
    let elsewhere = add(&daemon, &d, &dir(&scene.at("elsewhere")));
    connect(&daemon, &elsewhere, &seeder);
    wait_state(&daemon, &elsewhere, "seeding");
    assert!(bytes_below(&home) == before);
}

#[test]
fn different_length_is_refused_at_once_and_empty_files_do_not_conflict() {
    let scene = Scene::new();
    let (a, _) = scene.same();
    write(&scene.at("longer"), &[("content/a", 1, 3_000_002), ("content/c", 5, 10), ("content/none", 1, 0)]);
    let longer = torrent(&scene.at("longer/content"), &scene.at("out/l"), &[]);
    let daemon = scene.daemon();
    let home = scene.at("home");
    // The first torrent has no piece, and no peer to download from.
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "downloading");
    let second = add(&daemon, &longer, &dir(&home));
    assert_eq!(state(&daemon, &second), "error");
    assert_refused(&daemon, &second, &first, "content/a");
    assert!(error(&daemon, &second).contains("length"), "{}", error(&daemon, &second));
    // Two torrents have an empty file in common, and nothing else.
    for (out, seed) in [("e1", 21), ("e2", 22)] {
        write(&scene.at(out), &[("empty/none", 1, 0), (&format!("empty/{out}"), seed, 100_000)]);
        let made = torrent(&scene.at(out).join("empty"), &scene.at("out").join(out), &[]);
        let seeder = scene.seeder(&format!("seeder-{out}"), &made, &scene.at(out));
        let id = add(&daemon, &made, &dir(&scene.at("both")));
        connect(&daemon, &id, &seeder);
        wait_state(&daemon, &id, "seeding");
    }
}

#[test]
fn second_waits_until_the_first_is_finished_and_then_seeds() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let home = scene.at("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "downloading");
    let second = add(&daemon, &b, &dir(&home));
    assert_waits(&daemon, &second, &first);
    let of_second = scene.seeder("of-second", &b, &scene.at("source"));
    connect(&daemon, &second, &of_second);
    daemon.ask(&format!("pause {first}"));
    wait_state(&daemon, &first, "paused");
    assert_waits(&daemon, &second, &first);
    assert!(why(&daemon, &second).contains("paused"), "{}", why(&daemon, &second));
    assert!(bytes_below(&home).values().flatten().all(|byte| *byte == 0), "the second writes nothing");
    daemon.ask(&format!("resume {first}"));
    let of_first = scene.seeder("of-first", &a, &scene.at("source"));
    connect(&daemon, &first, &of_first);
    wait_state(&daemon, &first, "seeding");
    wait_state(&daemon, &second, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
    assert_eq!(show(&daemon, &second)["downloaded"], 0);
    // The first torrent repairs its damaged pieces; the second is examined again after that.
    let mut damaged = noise(1, 3_000_001);
    damaged[2_000_000] ^= 1;
    std::fs::write(home.join("content/a"), &damaged).unwrap();
    of_first.terminate();
    daemon.ask(&format!("verify {first}"));
    wait_state(&daemon, &first, "downloading");
    assert_waits(&daemon, &second, &first);
    let of_first = scene.seeder("of-first-again", &a, &scene.at("source"));
    connect(&daemon, &first, &of_first);
    wait_state(&daemon, &first, "seeding");
    wait_state(&daemon, &second, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}

#[test]
fn second_waits_and_reports_it_while_the_first_has_an_error() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    std::fs::rename(home.join("content"), home.join("taken")).unwrap();
    let leecher = Daemon::start(&scene.at("leecher"), ANY_SPACE);
    let id = add(&leecher, &a, "");
    connect(&leecher, &id, &daemon);
    wait_state(&daemon, &first, "error");
    let second = add(&daemon, &b, &dir(&home));
    assert_waits(&daemon, &second, &first);
    assert!(why(&daemon, &second).contains("error"), "{}", why(&daemon, &second));
    std::fs::rename(home.join("taken"), home.join("content")).unwrap();
    wait_state(&daemon, &first, "seeding");
    wait_state(&daemon, &second, "seeding");
}

#[test]
fn albums_with_different_covers_do_not_overwrite_one_another() {
    let scene = Scene::new();
    write(&scene.at("one"), &[("album/song", 1, 900_000), ("album/cover", 2, 100_000)]);
    write(&scene.at("two"), &[("album/song", 1, 900_000), ("album/cover", 3, 100_000)]);
    write(&scene.at("three"), &[("album/song", 1, 900_000)]);
    write(&scene.at("four"), &[("album/song", 1, 900_000), ("album/bonus", 4, 100_000)]);
    let [one, two, three, four] = ["one", "two", "three", "four"]
        .map(|name| torrent(&scene.at(name).join("album"), &scene.at("out").join(name), &[]));
    let home = scene.at("home");
    write(&home, &[("album/song", 1, 900_000), ("album/cover", 2, 100_000)]);
    let daemon = scene.daemon();
    let first = add(&daemon, &one, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let before = bytes_below(&home);
    let [second, third, fourth] = [&two, &three, &four].map(|torrent| add(&daemon, torrent, &dir(&home)));
    for (id, torrent, name) in [(&second, &two, "two"), (&fourth, &four, "four")] {
        let seeder = scene.seeder(&format!("seeder-{name}"), torrent, &scene.at(name));
        connect(&daemon, id, &seeder);
    }
    assert_refused(&daemon, &second, &first, "album/cover");
    // The third torrent is complete; the fourth wants one more file, which it may not write.
    wait_state(&daemon, &third, "seeding");
    assert_refused(&daemon, &fourth, &first, "album/bonus");
    assert!(bytes_below(&home) == before);
}

#[test]
fn magnet_link_is_compared_when_its_names_are_known() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let before = bytes_below(&home);
    let of_same = scene.seeder("of-same", &b, &scene.at("source"));
    let of_different = scene.seeder("of-different", &d, &scene.at("other"));
    let [same, different] = [&of_same, &of_different].map(|seeder| {
        let link = format!("magnet:?xt=urn:btih:{}&x.pe={}", seeder.torrent()["id"].as_str().unwrap(), seeder.listen);
        add(&daemon, Path::new(&link), &format!("{} verify=no", dir(&home)))
    });
    wait_state(&daemon, &same, "seeding");
    assert_refused(&daemon, &different, &first, "content/a");
    assert!(bytes_below(&home) == before);
}

#[test]
fn magnet_link_that_is_first_owns_its_files() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    let home = scene.at("home");
    let daemon = scene.daemon();
    let seeder = scene.seeder("of-first", &a, &scene.at("source"));
    let of_different = scene.seeder("of-different", &d, &scene.at("other"));
    let link = format!("magnet:?xt=urn:btih:{}&x.pe={}", seeder.torrent()["id"].as_str().unwrap(), seeder.listen);
    let first = add(&daemon, Path::new(&link), &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let before = bytes_below(&home);
    assert!(before == bytes_below(&scene.at("source")));
    let different = add(&daemon, &d, &format!("{} verify=no", dir(&home)));
    connect(&daemon, &different, &of_different);
    assert_refused(&daemon, &different, &first, "content/a");
    let same = add(&daemon, &b, &dir(&home));
    wait_state(&daemon, &same, "seeding");
    for second in [&different, &same] {
        daemon.ask(&format!("remove {second} data=yes"));
        wait("its content is deleted as far as allowed", 20, || {
            let reply = daemon.ask(&format!("add {} paused=yes", if second == &same { &b } else { &d }.display()));
            reply[0].starts_with("OK")
        });
        assert!(bytes_below(&home) == before, "the files of the first are kept");
    }
    assert_eq!(state(&daemon, &first), "seeding");
}

#[test]
fn files_of_another_torrent_are_neither_moved_nor_renamed_nor_moved_onto() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    let (home, away) = (scene.lay("home"), scene.at("away"));
    write(&away, OTHER_BYTES);
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    let alone = add(&daemon, &d, &dir(&away));
    wait_state(&daemon, &first, "seeding");
    wait_state(&daemon, &alone, "seeding");
    let second = add(&daemon, &b, &dir(&home));
    wait_state(&daemon, &second, "seeding");
    let before = (bytes_below(&home), bytes_below(&away));
    let refused = |line: String, owner: &str| {
        let reply = daemon.ask(&line).pop().unwrap();
        assert!(reply.starts_with("ERR denied ") && reply.contains(&owner[..8]), "{line}: {reply}");
    };
    refused(format!("move {first} {}", scene.at("new").display()), &second);
    refused(format!("move {second} {}", scene.at("new").display()), &first);
    refused(format!("move {alone} {}", home.display()), &first);
    refused(format!("rename {second} . other"), &first);
    refused(format!("rename {first} 0 other"), &second);
    // The new name belongs to a file that another torrent has not created yet.
    write(&scene.at("late"), &[("content/late", 9, 50_000)]);
    let late = torrent(&scene.at("late/content"), &scene.at("out/late"), &[]);
    let waiting = add(&daemon, &late, &format!("{} paused=yes", dir(&away)));
    refused(format!("rename {alone} 0 late"), &waiting);
    assert!((bytes_below(&home), bytes_below(&away)) == before);
    // A torrent without shared files can be moved, and no other torrent can be moved to its new place.
    let new = scene.at("new");
    assert_eq!(daemon.ask(&format!("move {alone} {}", new.display())), ["OK"]);
    wait("it is moved", 20, || show(&daemon, &alone)["dir"] == new.to_str().unwrap() && new.join("content/a").exists());
    wait("its old files are gone", 20, || !away.join("content").exists());
    daemon.ask(&format!("remove {second}"));
    refused(format!("move {first} {}", new.display()), &alone);
    assert_eq!(daemon.ask(&format!("move {first} {}", away.display())), ["OK"]);
    wait("it is moved", 20, || show(&daemon, &first)["dir"] == away.to_str().unwrap());
}

#[test]
fn second_is_found_behind_a_symbolic_link() {
    let scene = Scene::new();
    let (a, _) = scene.same();
    let d = scene.different();
    let home = scene.at("real/home");
    std::fs::create_dir_all(scene.at("real")).unwrap();
    std::os::unix::fs::symlink("real", scene.at("link")).unwrap();
    let daemon = scene.daemon();
    // No file exists yet, and the directory does not exist either.
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "downloading");
    let second = add(&daemon, &d, &dir(&scene.at("link/home")));
    assert_waits(&daemon, &second, &first);
    // The directory of one torrent is above that of the other.
    write(&scene.at("nested"), &[("b", 31, 700_000)]);
    let nested = torrent(&scene.at("nested/b"), &scene.at("out/n"), &[]);
    let third = add(&daemon, &nested, &dir(&scene.at("link/home/content/deep")));
    assert_waits(&daemon, &third, &first);
    let seeder = scene.seeder("seeder", &a, &scene.at("source"));
    connect(&daemon, &first, &seeder);
    wait_state(&daemon, &first, "seeding");
    assert_refused(&daemon, &second, &first, "content/a");
    assert_refused(&daemon, &third, &first, "deep/b");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}

#[test]
fn second_is_found_behind_a_bind_mount() {
    in_mounts_of_its_own("second_is_found_behind_a_bind_mount", || {
        let scene = Scene::new();
        let (a, _) = scene.same();
        let d = scene.different();
        let (home, bound) = (scene.at("home"), scene.at("bound"));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::create_dir_all(&bound).unwrap();
        let mount = || {
            let status = Command::new("mount").arg("--bind").args([&home, &bound]).status();
            assert!(status.unwrap().success());
        };
        mount();
        let daemon = scene.daemon();
        let first = add(&daemon, &a, &dir(&home));
        wait_state(&daemon, &first, "downloading");
        let second = add(&daemon, &d, &dir(&bound));
        assert_waits(&daemon, &second, &first);
        daemon.ask(&format!("remove {second}"));
        // The bind mount is nested, and made while the daemon runs.
        let deep = scene.at("deep");
        std::fs::create_dir_all(home.join("content/deep")).unwrap();
        std::fs::create_dir_all(&deep).unwrap();
        assert!(
            Command::new("mount").arg("--bind").args([&home.join("content/deep"), &deep]).status().unwrap().success()
        );
        write(&scene.at("nested"), &[("b", 31, 700_000)]);
        let nested = torrent(&scene.at("nested/b"), &scene.at("out/n"), &[]);
        let third = add(&daemon, &nested, &dir(&deep));
        assert_waits(&daemon, &third, &first);
    });
}

#[test]
fn second_is_found_behind_a_hard_link() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let before = bytes_below(&home);
    for name in ["same", "different"] {
        std::fs::create_dir_all(scene.at(name).join("content/deep")).unwrap();
        for (file, _, _) in FILES {
            std::fs::hard_link(home.join(file), scene.at(name).join(file)).unwrap();
        }
    }
    let same = add(&daemon, &b, &dir(&scene.at("same")));
    let different = add(&daemon, &d, &format!("{} verify=no", dir(&scene.at("different"))));
    let seeder = scene.seeder("seeder", &d, &scene.at("other"));
    connect(&daemon, &different, &seeder);
    wait_state(&daemon, &same, "seeding");
    assert_refused(&daemon, &different, &first, "content/a");
    // The state persists over a restart, and the hard link is found again.
    assert_eq!(daemon.terminate(), 0);
    let daemon = scene.daemon();
    wait_state(&daemon, &same, "seeding");
    assert_refused(&daemon, &different, &first, "content/a");
    connect(&daemon, &different, &seeder);
    assert!(bytes_below(&home) == before);
    // The names of the removed torrent are deleted, those of the other are kept.
    daemon.ask(&format!("remove {same} data=yes"));
    wait("its files are gone", 20, || common::tree(&scene.at("same")).0.is_empty());
    assert!(bytes_below(&home) == before);
}

#[test]
fn watched_directory_adds_a_second_that_writes_nothing() {
    let scene = Scene::new();
    let (a, _) = scene.same();
    let d = scene.different();
    let daemon = scene.daemon();
    let home = daemon.dir.join("downloads");
    write(&home, FILES);
    let first = add(&daemon, &a, "");
    wait_state(&daemon, &first, "seeding");
    std::fs::create_dir_all(daemon.dir.join("watch")).unwrap();
    std::fs::copy(&d, daemon.dir.join("watch/new.tmp")).unwrap();
    std::fs::rename(daemon.dir.join("watch/new.tmp"), daemon.dir.join("watch/new.st")).unwrap();
    wait("the torrent is added", 20, || daemon.json("list").len() == 2);
    let rows = daemon.json("list");
    let second = rows.iter().map(|row| row["id"].as_str().unwrap()).find(|id| *id != first).unwrap();
    assert_refused(&daemon, second, &first, "content/a");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}

#[test]
fn torrent_in_a_share_directory_writes_nothing() {
    let scene = Scene::new();
    let d = scene.different();
    let home = scene.lay("home");
    let share = format!("{ANY_SPACE}[[share]]\npath = \"{}\"\n", home.display());
    let daemon = Daemon::start(&scene.at("daemon"), &share);
    wait("the content is shared", 30, || !daemon.json("list seeding").is_empty());
    let first = daemon.torrent()["id"].as_str().unwrap().to_owned();
    let seeder = scene.seeder("seeder", &d, &scene.at("other"));
    let second = add(&daemon, &d, &format!("{} verify=no", dir(&home)));
    connect(&daemon, &second, &seeder);
    assert_refused(&daemon, &second, &first, "content/a");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}

#[test]
fn second_goes_on_by_itself_when_the_first_is_removed() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    let home = scene.at("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "downloading");
    let second = add(&daemon, &b, &dir(&home));
    assert_waits(&daemon, &second, &first);
    daemon.ask(&format!("remove {first}"));
    let seeder = scene.seeder("of-second", &b, &scene.at("source"));
    wait_state(&daemon, &second, "downloading");
    connect(&daemon, &second, &seeder);
    wait_state(&daemon, &second, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
    // Of three torrents the next one becomes the owner, and the last one waits for it.
    let third = add(&daemon, &a, &dir(&home));
    let fourth = add(&daemon, &d, &dir(&home));
    wait_state(&daemon, &third, "seeding");
    assert_refused(&daemon, &fourth, &second, "content/a");
    daemon.ask(&format!("remove {second} data=yes"));
    wait("the third owns them now", 20, || error(&daemon, &fourth).contains(&third[..8]));
    wait_state(&daemon, &third, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")), "files that other torrents use are kept");
    daemon.ask(&format!("remove {third}"));
    let of_fourth = scene.seeder("of-fourth", &d, &scene.at("other"));
    wait_state(&daemon, &fourth, "paused");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")), "kept files are not overwritten without a command");
    assert!(daemon.ask(&format!("resume {fourth}"))[0].starts_with("OK"));
    wait_state(&daemon, &fourth, "downloading");
    connect(&daemon, &fourth, &of_fourth);
    wait_state(&daemon, &fourth, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("other")));
}

/// Sends several commands in one write. Returns the closing line of each reply.
fn ask_at_once(daemon: &Daemon, commands: &[String]) -> Vec<String> {
    let mut stream = UnixStream::connect(daemon.dir.join("control")).unwrap();
    stream.write_all((commands.join("\n") + "\n").as_bytes()).unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.filter(|line| line.starts_with("OK") || line.starts_with("ERR ")).take(commands.len()).collect()
}

#[test]
fn refused_torrent_spares_the_data_of_an_owner_that_is_removed_during_a_check() {
    let scene = Scene::new();
    let (a, _) = scene.same();
    let d = scene.different();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let seeder = scene.seeder("of-different", &d, &scene.at("other"));
    let mut first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let assert_spared = |second: &str| {
        wait_state(&daemon, second, "paused");
        connect(&daemon, second, &seeder);
        assert!(daemon.log().contains("would overwrite data that the removed torrent left"), "{}", daemon.log());
        assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
    };
    // The owner is removed while it is rechecked.
    let second = add(&daemon, &d, &dir(&home));
    assert_refused(&daemon, &second, &first, "content/a");
    let replies = ask_at_once(&daemon, &[format!("verify {first}"), format!("remove {first}")]);
    assert!(replies.iter().all(|reply| reply.starts_with("OK")), "{replies:?}");
    assert_spared(&second);
    daemon.ask(&format!("remove {second}"));
    // The owner is removed while the second is checked.
    first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let commands = [format!("add {} {} verify=no", d.display(), dir(&home)), format!("remove {first}")];
    let replies = ask_at_once(&daemon, &commands);
    assert!(replies.iter().all(|reply| reply.starts_with("OK")), "{replies:?}");
    assert_spared(&second);
    // `resume` allows the download.
    daemon.ask(&format!("resume {second}"));
    wait_state(&daemon, &second, "downloading");
    connect(&daemon, &second, &seeder);
    wait_state(&daemon, &second, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("other")));
}

#[test]
fn second_creates_nothing_where_its_files_are_missing_when_the_first_is_removed() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let second = add(&daemon, &b, &dir(&home));
    wait_state(&daemon, &second, "seeding");
    std::fs::rename(home.join("content"), scene.at("taken")).unwrap();
    let leecher = Daemon::start(&scene.at("leecher"), ANY_SPACE);
    let id = add(&leecher, &a, "");
    connect(&leecher, &id, &daemon);
    wait_state(&daemon, &first, "error");
    daemon.ask(&format!("remove {first}"));
    let seeder = scene.seeder("of-second", &b, &scene.at("source"));
    connect(&daemon, &second, &seeder);
    wait("the second reports its missing files", 30, || error(&daemon, &second).contains("missing: "));
    assert!(!home.join("content").exists(), "nothing is created");
    std::fs::rename(scene.at("taken"), home.join("content")).unwrap();
    wait_state(&daemon, &second, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}

#[test]
fn files_that_are_still_being_deleted_are_not_given_to_another_torrent() {
    let scene = Scene::new();
    let names: Vec<String> = (0..3000).map(|file| format!("many/{file}")).collect();
    let files: Vec<(&str, u64, usize)> = names.iter().map(|name| (&**name, 1, 100)).collect();
    let home = scene.at("home");
    write(&scene.at("many-source"), &files);
    let source = scene.at("many-source/many");
    let [a, b, c] = [&["--piece-length", "16384"][..], &["--piece-length", "32768"], &["--piece-length", "65536"]]
        .map(|extra| torrent(&source, &scene.at("out").join(extra[1]), extra));
    let daemon = scene.daemon();
    let of_b = scene.seeder("of-b", &b, &scene.at("many-source"));
    let away = scene.at("away");
    write(&away, &files);
    let moved = add(&daemon, &c, &dir(&away));
    wait_state(&daemon, &moved, "seeding");
    for by_link in [false, true] {
        write(&home, &files);
        let first = add(&daemon, &a, &dir(&home));
        wait_state(&daemon, &first, "seeding");
        if by_link {
            let id = of_b.torrent()["id"].as_str().unwrap().to_owned();
            add(&daemon, Path::new(&format!("magnet:?xt=urn:btih:{id}")), &dir(&home));
        }
        let add_second = format!("add {} {}", b.display(), dir(&home));
        let commands =
            [format!("remove {first} data=yes"), add_second.clone(), format!("move {moved} {}", home.display())];
        let replies = ask_at_once(&daemon, &commands);
        assert!(replies[0].starts_with("OK"), "{replies:?}");
        let is_busy = |reply: &str| reply.starts_with("ERR busy ") && reply.contains("still being deleted");
        assert!(is_busy(&replies[2]), "{replies:?}");
        let second = if by_link {
            replies[1].strip_prefix("OK ").unwrap().to_owned()
        } else {
            assert!(is_busy(&replies[1]) && replies[1].contains("many/"), "{replies:?}");
            let mut reply = String::new();
            wait("the files are deleted", 30, || {
                reply = daemon.ask(&add_second).pop().unwrap();
                reply.starts_with("OK ")
            });
            reply["OK ".len()..].to_owned()
        };
        wait_state(&daemon, &second, "downloading");
        assert_eq!(show(&daemon, &second)["progress"], 0.0);
        connect(&daemon, &second, &of_b);
        wait_state(&daemon, &second, "seeding");
        assert!(bytes_below(&home) == bytes_below(&scene.at("many-source")));
        daemon.ask(&format!("remove {second} data=yes"));
        wait("the files are deleted", 30, || common::tree(&home).0.is_empty());
    }
}

#[test]
fn torrent_that_seeds_the_files_is_next_before_one_that_was_refused() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    write(&scene.at("longer"), &[("content/a", 1, 3_000_002)]);
    let longer = torrent(&scene.at("longer/content"), &scene.at("out/l"), &[]);
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let wrong = [&d, &longer].map(|torrent| add(&daemon, torrent, &dir(&home)));
    wrong.iter().for_each(|id| assert_refused(&daemon, id, &first, "content/a"));
    let same = add(&daemon, &b, &dir(&home));
    wait_state(&daemon, &same, "seeding");
    // A recheck of one torrent ends without an effect on the others.
    for id in [&same, &wrong[0], &first] {
        let checks = daemon.log().matches(": checked, ").count();
        daemon.ask(&format!("verify {id}"));
        wait("the torrent is rechecked", 20, || daemon.log().matches(": checked, ").count() > checks);
        wait_state(&daemon, &first, "seeding");
        wait_state(&daemon, &same, "seeding");
        wrong.iter().for_each(|id| assert_refused(&daemon, id, &first, "content/a"));
    }
    daemon.ask(&format!("remove {first}"));
    for id in &wrong {
        wait("the torrent is second to the next owner", 20, || error(&daemon, id).contains(&same[..8]));
    }
    wait_state(&daemon, &same, "seeding");
    wrong.iter().for_each(|id| assert_refused(&daemon, id, &same, "content/a"));
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}

#[test]
fn restart_changes_neither_the_owner_nor_the_state_of_the_second() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    let (same, different) = (add(&daemon, &b, &dir(&home)), add(&daemon, &d, &dir(&home)));
    wait_state(&daemon, &same, "seeding");
    assert_refused(&daemon, &different, &first, "content/a");
    let seeder = scene.seeder("seeder", &d, &scene.at("other"));
    let mut daemon = Some(daemon);
    for round in 0..4 {
        let checks = daemon.as_ref().unwrap().log().matches(": checked, ").count();
        // The daemon ends by a clean shutdown and by a kill in turn.
        if round % 2 == 0 {
            assert_eq!(daemon.take().unwrap().terminate(), 0)
        } else {
            daemon.take().unwrap().kill()
        }
        let started = daemon.insert(scene.daemon());
        wait_state(started, &first, "seeding");
        wait_state(started, &same, "seeding");
        assert_refused(started, &different, &first, "content/a");
        connect(started, &different, &seeder);
        if round == 0 {
            assert_eq!(
                started.log().matches(": checked, ").count(),
                checks,
                "nothing is hashed again after a clean end"
            );
        }
        assert!(bytes_below(&home) == bytes_below(&scene.at("source")), "round {round}");
    }
    let daemon = daemon.unwrap();
    assert_eq!(daemon.ask(&format!("verify {first}")).pop().unwrap(), "OK");
    wait_state(&daemon, &first, "seeding");
    wait_state(&daemon, &same, "seeding");
    assert_refused(&daemon, &different, &first, "content/a");
}

#[test]
fn kill_while_the_first_downloads_leaves_the_second_waiting() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let home = scene.at("home");
    let of_first = scene.seeder("of-first", &a, &scene.at("source"));
    let of_second = scene.seeder("of-second", &b, &scene.at("source"));
    let mut daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    let second = add(&daemon, &b, &dir(&home));
    daemon.ask(&format!("set {first} down-limit 400K"));
    let have = |daemon: &Daemon| show(daemon, &first)["downloaded"].as_u64().unwrap();
    for round in 1..4 {
        connect(&daemon, &first, &of_first);
        connect(&daemon, &second, &of_second);
        wait("the download progresses", 30, || have(&daemon) >= round * 600_000);
        assert_waits(&daemon, &second, &first);
        daemon.kill();
        daemon = scene.daemon();
        assert_waits(&daemon, &second, &first);
        assert_eq!(show(&daemon, &second)["downloaded"], 0);
    }
    daemon.ask(&format!("set {first} down-limit default"));
    connect(&daemon, &first, &of_first);
    wait_state(&daemon, &first, "seeding");
    wait_state(&daemon, &second, "seeding");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}

#[expect(clippy::disallowed_methods, reason = "tests are outside the daemon")]
fn unix_secs() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Two directories become one while the daemon is down: its records look like those of a version that allowed two
/// torrents to be complete in one directory.
#[test]
fn two_that_claim_one_path_are_both_checked_at_the_next_start() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    for (other, source) in [(&b, "source"), (&d, "other")] {
        let _ = std::fs::remove_dir_all(scene.at("daemon"));
        for name in ["one", "two"] {
            let _ = std::fs::remove_dir_all(scene.at(name));
            let _ = std::fs::remove_file(scene.at(name));
        }
        write(&scene.at("one"), FILES);
        write(&scene.at("two"), if source == "source" { FILES } else { OTHER_BYTES });
        let daemon = scene.daemon();
        let first = add(&daemon, &a, &dir(&scene.at("one")));
        wait_state(&daemon, &first, "seeding");
        let added = show(&daemon, &first)["added"].as_u64().unwrap();
        wait("another second has begun", 5, || unix_secs() > added);
        let second = add(&daemon, other, &dir(&scene.at("two")));
        wait_state(&daemon, &second, "seeding");
        assert_eq!(daemon.terminate(), 0);
        // The second torrent wrote last.
        std::fs::remove_dir_all(scene.at("one")).unwrap();
        std::fs::rename(scene.at("two"), scene.at("one")).unwrap();
        std::os::unix::fs::symlink("one", scene.at("two")).unwrap();
        let seeder = scene.seeder(&format!("seeder-{source}"), &a, &scene.at("source"));
        let daemon = scene.daemon();
        if source == "other" {
            wait_state(&daemon, &first, "downloading");
            assert_waits(&daemon, &second, &first);
            connect(&daemon, &first, &seeder);
            wait_state(&daemon, &first, "seeding");
            assert_refused(&daemon, &second, &first, "content/a");
        } else {
            wait("both are checked", 30, || daemon.log().matches(": checked, ").count() >= 4);
            wait_state(&daemon, &first, "seeding");
            wait_state(&daemon, &second, "seeding");
        }
        assert!(bytes_below(&scene.at("one")) == bytes_below(&scene.at("source")));
    }
}

#[test]
fn hibernated_owner_is_opened_when_another_torrent_comes_to_its_path() {
    let scene = Scene::new();
    let (a, b) = scene.same();
    let d = scene.different();
    let home = scene.lay("home");
    let daemon = scene.daemon();
    let first = add(&daemon, &a, &dir(&home));
    wait_state(&daemon, &first, "seeding");
    assert_eq!(daemon.terminate(), 0);
    let daemon = scene.daemon(); // the torrent starts hibernated
    let (same, different) = (add(&daemon, &b, &dir(&home)), add(&daemon, &d, &dir(&home)));
    wait_state(&daemon, &same, "seeding");
    assert_refused(&daemon, &different, &first, "content/a");
    // The new torrent has a hard link to a file of a hibernated torrent.
    assert_eq!(daemon.terminate(), 0);
    let daemon = scene.daemon();
    daemon.ask(&format!("remove {different}"));
    std::fs::create_dir_all(scene.at("linked/content")).unwrap();
    std::fs::hard_link(home.join("content/a"), scene.at("linked/content/a")).unwrap();
    let linked = add(&daemon, &d, &format!("{} verify=no", dir(&scene.at("linked"))));
    assert_refused(&daemon, &linked, &first, "content/a");
    assert!(bytes_below(&home) == bytes_below(&scene.at("source")));
}
