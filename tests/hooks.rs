//! The user's own programs, run by the real daemon: good ones, bad ones, and many at once.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::path::{Path, PathBuf};

mod common;

use common::{Daemon, make, noise, wait};
use swarmtorrent::base::hash::Sha1Hash;

/// A torrent whose content lies in `dir/downloads`.
fn content(dir: &Path, name: &str) -> PathBuf {
    std::fs::create_dir_all(dir.join("downloads")).unwrap();
    std::fs::write(dir.join("downloads").join(name), noise(1, 50_000)).unwrap();
    make(&dir.join("downloads").join(name), dir, &[]).0
}

fn hook(on: &str, script: &str, more: &str) -> String {
    format!("[[hook]]\non = [{on}]\ncommand = [\"/bin/sh\", \"-c\", '''{script}''']\n{more}\n")
}

fn counter(daemon: &Daemon, name: &str) -> u64 {
    let rows = daemon.json("stats");
    rows.iter().find(|row| row["name"] == name).unwrap()["value"].as_u64().unwrap()
}

/// Processes that the daemon has begun and not reaped.
fn children(daemon: &Daemon) -> usize {
    let pid = daemon.pid();
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().split_whitespace().count()
}

fn last(daemon: &Daemon) -> String {
    daemon.json("show all")[0]["hook"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_hook_is_told_what_happened_and_inherits_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("daemon");
    let st = content(&dir, "a b'c\"$(touch x)");
    let out = temp.path().join("out");
    let script = format!(
        "{{ echo $SWARMTORRENT_EVENT; echo \"$SWARMTORRENT_NAME\"; echo $SWARMTORRENT_HASH; echo $SWARMTORRENT_DIR; echo \
         $SWARMTORRENT_SIZE; echo $SWARMTORRENT_LABEL; ls -l /proc/self/fd; grep SigBlk /proc/self/status; echo $NOTIFY_SOCKET; \
         ps -o pgid= -p $$ | tr -d ' '; echo $$; }} > {}; echo said; exit 3",
        out.display()
    );
    let hooks = hook("\"finished\"", &script, "label = \"mine\"") + &hook("\"added\"", "exit 9", "label = \"others\"");
    // What was found complete was not finished: it is fetched from another one.
    let seeder = Daemon::start(&temp.path().join("seeder"), "");
    std::fs::rename(dir.join("downloads"), seeder.dir.join("downloads")).unwrap();
    seeder.add(&st, "");
    seeder.wait_state("seeding", 20);
    let daemon = Daemon::start(&dir, &hooks);
    daemon.add(&st, "label=mine");
    daemon.ask(&format!("connect all {}", seeder.listen));
    wait("it has ended", 20, || last(&daemon) == "finished: /bin/sh: exit status 3");
    let torrent = daemon.torrent();
    let said = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["finished", "a b'c\"$(touch x)"]);
    assert_eq!(lines[2], torrent["id"]);
    assert_eq!(lines[3..6], [torrent["dir"].as_str().unwrap(), "50000", "mine"]);
    let fds: Vec<&str> = lines[6..].iter().copied().filter(|line| line.contains(" -> ")).collect();
    assert!(fds.len() >= 3 && !fds.iter().any(|fd| fd.contains("socket:") || fd.contains("anon_inode")), "{said}");
    assert!(!fds.iter().any(|fd| fd.contains("/state/")), "{said}");
    let lines = &lines[lines.iter().position(|line| line.starts_with("SigBlk")).unwrap() - 7..];
    assert_eq!(lines[7].trim_start_matches("SigBlk:").trim().trim_start_matches('0'), "", "{said}");
    assert_eq!(lines[8], "");
    assert_eq!(lines[9], lines[10], "it leads a group of its own");
    assert!(daemon.log().contains("/bin/sh: said"));
    assert_eq!((counter(&daemon, "hooks_started"), counter(&daemon, "hooks_failed")), (1, 1));
    assert_eq!(children(&daemon), 0, "no zombie is left");
    // Trouble is told once, and its end and a new trouble again.
    let file = dir.join("downloads").join("a b'c\"$(touch x)");
    std::fs::write(
        dir.join("config.toml"),
        std::fs::read_to_string(dir.join("config.toml")).unwrap()
            + &hook("\"error\"", &format!("echo \"$SWARMTORRENT_ERROR\" >> {}", out.display()), ""),
    )
    .unwrap();
    assert!(daemon.ask("reload").join(" ").contains("[[hook]] is as in the file now"));
    std::fs::write(&out, "").unwrap();
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    daemon.ask("verify all");
    wait("trouble is told", 30, || !std::fs::read(&out).unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 1);
}

#[test]
fn hooks_that_hang_shout_or_are_missing_harm_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("daemon");
    let (st, pids) = (content(&dir, "content"), temp.path().join("pids"));
    let hanging = format!("trap '' TERM; (trap '' TERM; sleep 600) & echo $$ $! > {}; wait; sleep 600", pids.display());
    let hooks = hook("\"added\"", &hanging, "timeout = \"1s\"")
        + &hook("\"added\"", "head -c 1073741824 /dev/zero", "")
        + "[[hook]]\non = [\"added\"]\ncommand = [\"/no/such/program\"]\n";
    let daemon = Daemon::start(&dir, &hooks);
    let before = daemon.memory_kib();
    daemon.add(&st, "");
    wait("the missing one is told", 20, || daemon.log().contains("/no/such/program cannot be run"));
    wait("all have begun", 20, || counter(&daemon, "hooks_started") == 2 && pids.exists());
    wait("all have ended", 60, || counter(&daemon, "hooks_running") == 0);
    assert!(daemon.memory_kib() < before + 4096, "{} KiB, {before} before", daemon.memory_kib());
    assert_eq!(last(&daemon), "added: /bin/sh: was ended after 1 s");
    assert_eq!((counter(&daemon, "hooks_failed"), counter(&daemon, "hooks_timed_out")), (1, 1));
    assert_eq!(children(&daemon), 0);
    for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
        wait("its whole group is gone", 10, || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        });
    }
    assert!(daemon.log().len() < 200_000);
    assert_eq!(daemon.threads(), 1);
}

/// A torrent of two files that `seeder` has, and of which nothing is in `leecher`.
fn two_files(temp: &Path) -> (Daemon, PathBuf) {
    let source = temp.join("source/content");
    std::fs::create_dir_all(&source).unwrap();
    std::fs::write(source.join("a"), noise(1, 131_072)).unwrap();
    std::fs::write(source.join("b"), noise(2, 131_072)).unwrap();
    let st = make(&source, temp, &["--piece-length", "65536"]).0;
    let seeder = Daemon::start(&temp.join("seeder"), "");
    seeder.add(&st, &format!("dir={}", temp.join("source").display()));
    seeder.wait_state("seeding", 20);
    (seeder, st)
}

#[test]
fn finished_hook_runs_once_in_the_life_of_a_torrent() {
    let temp = tempfile::tempdir().unwrap();
    let (seeder, st) = two_files(temp.path());
    let (dir, out) = (temp.path().join("leecher"), temp.path().join("out"));
    let hooks = hook("\"finished\"", &format!("echo x >> {}", out.display()), "");
    let lines = || std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    let fetch = |daemon: &Daemon| {
        wait("it is fetched", 30, || {
            if daemon.torrent()["state"] == "downloading" {
                daemon.ask(&format!("connect all {}", seeder.listen));
            }
            daemon.torrent()["state"] == "seeding"
        });
        wait("no hook runs", 20, || counter(daemon, "hooks_running") == 0);
    };
    let leecher = Daemon::start(&dir, &hooks);
    leecher.add(&st, "only=0");
    fetch(&leecher);
    wait("it is told", 20, || lines() == 1);
    let finished = leecher.torrent()["finished"].clone();
    assert!(finished.is_u64());
    // A verify, and one that finds something wrong, which is fetched again.
    leecher.ask("verify all");
    fetch(&leecher);
    assert_eq!(leecher.torrent()["finished"], finished, "a verify leaves it as it is");
    let file = dir.join("downloads/content/a");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    leecher.ask("verify all");
    wait("something is wrong", 20, || leecher.torrent()["state"] == "downloading");
    assert_eq!(leecher.torrent()["finished"], finished);
    fetch(&leecher);
    // More is wanted.
    leecher.ask("priority all 1 normal");
    wait("more is wanted", 20, || {
        leecher.torrent()["have_bytes"] == 262_144 || leecher.torrent()["state"] == "downloading"
    });
    fetch(&leecher);
    wait("all is here", 20, || leecher.torrent()["have_bytes"] == 262_144);
    // Other runs.
    leecher.kill();
    let leecher = Daemon::start(&dir, &hooks);
    leecher.ask("verify all");
    fetch(&leecher);
    assert_eq!((lines(), counter(&leecher, "hooks_started")), (1, 0));
}

#[test]
fn finished_hook_does_not_run_for_content_that_was_found() {
    let temp = tempfile::tempdir().unwrap();
    let (_seeder, st) = two_files(temp.path());
    let hooks = hook("\"finished\"", "exit 0", "");
    let daemon = Daemon::start(&temp.path().join("other"), &hooks);
    daemon.add(&st, &format!("dir={}", temp.path().join("source").display()));
    daemon.wait_state("seeding", 20);
    daemon.ask("verify all");
    daemon.wait_state("seeding", 20);
    assert_eq!(counter(&daemon, "hooks_started"), 0);
    assert!(daemon.torrent()["finished"].is_u64());
}

#[test]
fn a_thousand_torrents_are_added_at_once() {
    let temp = tempfile::tempdir_in("/dev/shm").unwrap();
    let dir = temp.path().join("daemon");
    std::fs::create_dir_all(dir.join("downloads")).unwrap();
    let out = temp.path().join("out");
    let daemon = Daemon::start(&dir, &hook("\"added\"", &format!("echo x >> {}", out.display()), ""));
    for number in 0..1000 {
        let (name, bytes) = (format!("file-{number:04}"), noise(number, 20));
        std::fs::write(dir.join("downloads").join(&name), &bytes).unwrap();
        let mut torrent = b"d4:infod6:lengthi20e4:name9:".to_vec();
        torrent.extend(name.as_bytes());
        torrent.extend(b"12:piece lengthi16384e6:pieces20:");
        torrent.extend(Sha1Hash::of(&bytes).0);
        torrent.extend(b"ee");
        let path = temp.path().join("one.torrent");
        std::fs::write(&path, torrent).unwrap();
        daemon.add(&path, "");
    }
    let done = || counter(&daemon, "hooks_started") + counter(&daemon, "hooks_dropped");
    wait("all have had their turn", 120, || done() >= 1000 && counter(&daemon, "hooks_running") == 0);
    assert_eq!(counter(&daemon, "hooks_dropped"), 0);
    assert_eq!(std::fs::read_to_string(&out).unwrap().lines().count(), 1000);
    assert_eq!((done(), children(&daemon), daemon.threads()), (1000, 0, 1));
    let rounds = daemon.json("stats");
    let longest = rounds.iter().find(|row| row["name"] == "loop_round_max_us").unwrap();
    assert!(longest["value"].as_u64().unwrap() < 1_000_000, "{longest}");
    assert_eq!(daemon.terminate(), 0);
    // The next run does not add them again, and what was found complete was never finished.
    let again = Daemon::start(&dir, &hook("\"added\", \"finished\"", &format!("echo x >> {}", out.display()), ""));
    wait("all are there", 20, || again.json("list").iter().filter(|row| row["state"] == "seeding").count() == 1000);
    assert_eq!(counter(&again, "hooks_started"), 0);
}
