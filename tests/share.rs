//! Share directories and links with real daemons on loopback: what lies in one is listed and got by who knows an address or a link.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Daemon, make, noise, tool, wait};

fn sharing(dir: &Path, share: &Path) -> Daemon {
    Daemon::start(dir, &format!("[[share]]\npath = \"{}\"\n", share.display()))
}

/// Names and hashes of what it seeds.
fn seeds(daemon: &Daemon) -> Vec<(String, String)> {
    let rows = daemon.json("list seeding sort=name");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(&row["name"]), text(&row["id"]))).collect()
}

fn names(daemon: &Daemon) -> Vec<String> {
    seeds(daemon).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn what_lies_in_a_share_directory_is_seeded_listed_and_got_by_its_hash() {
    let temp = tempfile::tempdir().unwrap();
    let share = temp.path().join("share");
    std::fs::create_dir_all(share.join("set/deep")).unwrap();
    let files = [("one.bin", 3_000_000), ("set/a", 700_001), ("set/deep/b", 5)];
    for (seed, (name, len)) in (0..).zip(files) {
        std::fs::write(share.join(name), noise(seed, len)).unwrap();
    }
    let home = temp.path().join("home");
    let ours = sharing(&home, &share);
    wait("both are seeded", 20, || names(&ours) == ["one.bin", "set"]);
    let before = seeds(&ours);

    // A stranger lists it by the tool, and by a daemon.
    let at = ours.listen.to_string();
    let listed = tool(&["ls", &at]);
    for (name, hash) in &before {
        assert!(listed.lines().any(|line| line.contains(name) && line.contains(hash)), "{listed}");
    }
    let other = Daemon::start(&temp.path().join("other"), "");
    let mut rows = Vec::new();
    wait("the list is whole", 20, || {
        let mut reply = other.ask(&format!("json catalog {at}"));
        let closing = reply.pop().unwrap();
        rows = reply;
        closing.contains("\"done\"")
    });
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().any(|row| row.contains("\"name\":\"set\"") && row.contains("700006")), "{rows:?}");
    // And gets it by nothing but the hash.
    let set = &before[1].1;
    other.ask(&format!("add \"magnet:?xt=urn:btih:{set}&x.pe={at}\""));
    other.wait_state("seeding", 30);
    assert_eq!(std::fs::read(temp.path().join("other/downloads/set/a")).unwrap(), noise(1, 700_001));

    // Who is added is shared, who is changed is described anew, who is taken away is gone.
    std::fs::write(share.join("two.bin"), noise(9, 100_000)).unwrap();
    std::fs::write(share.join("one.bin"), noise(8, 3_000_000)).unwrap();
    wait("a new file and a changed one", 20, || {
        let now = seeds(&ours);
        now.len() == 3 && now[0] != before[0] && now[1] == before[1] && now[2].0 == "two.bin"
    });
    std::fs::remove_dir_all(share.join("set")).unwrap();
    wait("what was taken away is gone", 20, || names(&ours) == ["one.bin", "two.bin"]);

    // After a restart all is as it was, and nothing is hashed again.
    let kept = seeds(&ours);
    assert_eq!(ours.terminate(), 0);
    let hashed = |log: &str| log.matches("is shared as").count();
    let before = hashed(&std::fs::read_to_string(home.join("log")).unwrap());
    let ours = sharing(&home, &share);
    wait("it seeds at once", 10, || seeds(&ours) == kept);
    std::fs::write(share.join("three.bin"), noise(7, 100_000)).unwrap();
    wait("the directory was looked through", 20, || names(&ours).len() == 3);
    assert_eq!(hashed(&ours.log()), before + 1);
    assert_eq!(ours.terminate(), 0);

    // What is no share directory any more is shared no more.
    let ours = Daemon::start(&home, "");
    wait("nothing is shared", 10, || ours.json("list").is_empty());
    assert!(share.join("one.bin").exists());
}

#[test]
fn who_shares_nothing_or_is_not_there_is_said_so() {
    let temp = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", common::free_port());
    let output = Command::new(env!("CARGO_BIN_EXE_swarmtorrent")).args(["ls", &nobody]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("could not be reached"), "{said}");
    let silent = Daemon::start_with_peers(&temp.path().join("silent"), "catalog = false\n");
    let output =
        Command::new(env!("CARGO_BIN_EXE_swarmtorrent")).args(["ls", &silent.listen.to_string()]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("gave no list"), "{said}");
}

#[test]
fn a_link_outlives_a_restart_and_its_torrent_too() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("set");
    std::fs::create_dir_all(&path).unwrap();
    for (seed, name) in ["a", "b", "c"].into_iter().enumerate() {
        std::fs::write(path.join(name), noise(seed as u64, 200_000)).unwrap();
    }
    let (st, _, hash) = make(&path, temp.path(), &["--piece-length", "16384"]);
    let port = common::free_port();
    let home = temp.path().join("home");
    let ours = Daemon::start(&home, "");
    let other = temp.path().join("elsewhere");
    let link = format!("magnet:?xt=urn:btih:{hash}&dn=a%20name&x.pe=127.0.0.1:{port}");
    ours.ask(&format!("add \"{link}\" only=0,2 label=mine dir={}", other.display()));
    assert_eq!(ours.torrent()["state"], "metadata");
    assert_eq!(ours.torrent()["progress"], 0.0);
    wait("it is saved", 10, || !common::saved_metainfo(&home.join("state")).is_empty());
    ours.kill();
    let ours = Daemon::start(&home, "");
    let torrent = ours.torrent();
    assert_eq!((torrent["name"].as_str(), torrent["label"].as_str()), (Some("a name"), Some("mine")));
    let giving = Daemon::start_at(&temp.path().join("giving"), ([127, 0, 0, 1], port).into(), "");
    giving.add(&st, &format!("dir={}", temp.path().display()));
    ours.wait_state("seeding", 60);
    assert_eq!(std::fs::read(other.join("set/c")).unwrap(), noise(2, 200_000));
    assert_eq!(ours.torrent()["wanted"], 400_000);
    ours.kill();
    let ours = Daemon::start(&home, "");
    ours.wait_state("seeding", 20);
    assert_eq!(ours.torrent()["name"], "set");
    // A link to what is there already changes nothing.
    let reply = ours.ask(&format!("add \"{link}\""));
    assert!(reply[0].starts_with("ERR exists"), "{reply:?}");
}

#[test]
fn the_tool_gets_by_a_link() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("content.bin");
    std::fs::write(&path, noise(3, 1_000_000)).unwrap();
    let (st, _, hash) = make(&path, temp.path(), &[]);
    let giving = Daemon::start(&temp.path().join("giving"), "");
    giving.add(&st, &format!("dir={}", temp.path().display()));
    giving.wait_state("seeding", 20);
    let out = temp.path().join("out");
    let peer = giving.listen.to_string();
    let told = tool(&["get", &hash, "-o", out.to_str().unwrap(), "--no-dht", "--peer", &peer]);
    assert!(told.contains("verified"), "{told}");
    assert_eq!(std::fs::read(out.join("content.bin")).unwrap(), noise(3, 1_000_000));
}

/// Of a private network a newcomer knows one node, which has no torrents itself.
#[test]
fn a_newcomer_who_knows_one_node_lists_everything_that_is_shared_and_gets_a_file() {
    let temp = tempfile::tempdir().unwrap();
    let first = common::free_port();
    let dht = format!("[dht]\nenabled = true\nbootstrap = [\"127.0.0.1:{first}\"]\n");
    let _begin = Daemon::start_at(&temp.path().join("begin"), ([127, 0, 0, 1], first).into(), &dht);
    let sharing: Vec<Daemon> = (0..3_u64)
        .map(|number| {
            let share = temp.path().join(format!("share{number}"));
            std::fs::create_dir_all(share.join(format!("set{number}"))).unwrap();
            std::fs::write(share.join(format!("file{number}")), noise(number, 500_000)).unwrap();
            std::fs::write(share.join(format!("set{number}/a")), noise(10 + number, 300_000)).unwrap();
            let extra = format!("[[share]]\npath = \"{}\"\n{dht}", share.display());
            Daemon::start(&temp.path().join(format!("home{number}")), &extra)
        })
        .collect();
    sharing.iter().for_each(|daemon| wait("both are seeded", 20, || names(daemon).len() == 2));

    let begin = format!("127.0.0.1:{first}");
    let mut rows: Vec<serde_json::Value> = Vec::new();
    wait("everything is listed with its name", 120, || {
        let listed = tool(&["ls", "--dht", "--json", "--begin", &begin]);
        rows = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rows.iter().filter(|row| row["name"].is_string()).count() == 6
    });
    let mut found: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, ["file0", "file1", "file2", "set0", "set1", "set2"]);
    let file = rows.iter().find(|row| row["name"] == "file1").unwrap();
    assert_eq!(file["size"], 500_000);

    let newcomer = Daemon::start(&temp.path().join("newcomer"), &dht);
    // Its own sample has names too, and shows no torrent that the user has not added.
    wait("the daemon knows the names", 60, || {
        let rows = newcomer.json("dht sample");
        rows.len() == 6 && rows.iter().all(|row| row["name"].is_string())
    });
    assert!(newcomer.json("list").is_empty());
    newcomer.ask(&format!("add {}", file["id"].as_str().unwrap()));
    newcomer.wait_state("seeding", 60);
    let stats = newcomer.json("stats");
    let passed = stats.iter().find(|row| row["name"] == "pieces.passed").unwrap();
    assert_eq!(passed["value"], newcomer.torrent()["pieces"], "{passed}");
    assert_eq!(std::fs::read(temp.path().join("newcomer/downloads/file1")).unwrap(), noise(1, 500_000));

    // What is shared is kept by others as an item, too.
    let row = sharing[0].json("list").into_iter().find(|row| row["name"] == "file0").unwrap();
    let target = row["dht_item"].as_str().unwrap();
    wait("the item is found", 60, || {
        let reply = newcomer.ask(&format!("dht get {target}")).join("\n");
        reply.contains("4:name5:file04:sizei500000e")
    });
    assert_eq!(newcomer.terminate(), 0);
}

#[test]
fn what_was_shared_a_moment_before_a_power_cut_is_shared_again() {
    let temp = tempfile::tempdir().unwrap();
    let share = temp.path().join("share");
    std::fs::create_dir_all(&share).unwrap();
    std::fs::write(share.join("one.bin"), noise(1, 1_000_000)).unwrap();
    let home = temp.path().join("home");
    let ours = sharing(&home, &share);
    wait("what describes it is saved", 20, || !common::saved_metainfo(&home.join("state")).is_empty());
    ours.kill();
    let ours = sharing(&home, &share);
    wait("it is shared", 20, || names(&ours) == ["one.bin"]);
    assert_eq!(ours.torrent()["dir"], share.to_str().unwrap());
    assert!(!home.join("downloads/one.bin").exists());
}

/// Makes 100 directories with paths that are longer than the kernel takes: nothing can open them, not even root.
fn make_unreadable(root: &Path) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, root, flags, Mode::empty()).unwrap();
    let (name, mut len) = ("n".repeat(200), root.as_os_str().len());
    while len < 3850 {
        mkdirat(&dir, &name, Mode::RWXU).unwrap();
        dir = openat(&dir, &name, flags, Mode::empty()).unwrap();
        len += name.len() + 1;
    }
    for number in 0..100 {
        mkdirat(&dir, format!("{number:0250}"), Mode::RWXU).unwrap();
    }
}

#[test]
fn many_unreadable_and_odd_entries_are_logged_once_for_each_cause() {
    let temp = tempfile::tempdir().unwrap();
    let share = temp.path().join("share");
    for top in ["one", "two"] {
        std::fs::create_dir_all(share.join(top)).unwrap();
        std::fs::write(share.join(top).join("a"), noise(1, 1000)).unwrap();
        make_unreadable(&share.join(top));
    }
    for number in 0..100 {
        let fifo = share.join(format!("one/fifo{number}"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::os::unix::fs::symlink("nowhere", share.join(format!("two/link{number}"))).unwrap();
    }
    let ours = sharing(&temp.path().join("home"), &share);
    wait("what can be read is seeded", 20, || names(&ours) == ["one", "two"]);
    let log = ours.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("share directory")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("File name too long"), "{warnings:#?}");
    drop(ours);
    // The tree has paths that `remove_dir_all` cannot name.
    assert!(Command::new("rm").args(["-r", "--"]).arg(&share).status().unwrap().success());
}
