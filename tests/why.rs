//! What the real daemon says of a torrent that does not move.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::Path;

use common::{Daemon, free_port, make, noise, wait};

/// A torrent of two files of which half of the pieces lie in `dir`, announced to `tracker`.
fn half(dir: &Path, tracker: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let content = dir.join("content");
    std::fs::create_dir_all(&content).unwrap();
    std::fs::write(content.join("first"), noise(1, 1 << 20)).unwrap();
    std::fs::write(content.join("second"), noise(2, 1 << 20)).unwrap();
    let mut extra = vec!["--piece-length", "65536"];
    if !tracker.is_empty() {
        extra.extend(["--tracker", tracker]);
    }
    let made = make(&content, dir, &extra).1;
    (made, content)
}

#[track_caller]
fn wait_why(daemon: &Daemon, topic: &str, text: &str) {
    let mut said = Vec::new();
    wait(&format!("it says {topic}: {text}"), 20, || {
        said = daemon.json("why all");
        said.iter().any(|row| row["topic"] == topic && row["message"].as_str().unwrap().contains(text))
    });
}

#[test]
fn nobody_is_found_and_it_says_where_it_looked() {
    let temp = tempfile::tempdir().unwrap();
    let (torrent, _) = half(temp.path(), &format!("http://127.0.0.1:{}/announce", free_port()));
    let daemon = Daemon::start(&temp.path().join("d"), "");
    daemon.add(&torrent, "");
    wait_why(&daemon, "tracker", "failed: it cannot be reached; it is asked again in");
    wait_why(&daemon, "dht", "the DHT is off");
    wait_why(&daemon, "peers", "no peers are known");
    daemon.ask(&format!("connect all 127.0.0.1:{}", free_port()));
    wait_why(&daemon, "peers", "none is connected");
    daemon.ask("pause all");
    assert_eq!(daemon.ask("why all"), ["it is paused; `resume` starts it", "OK"]);
}

#[test]
fn a_swarm_that_lacks_something_a_queue_and_a_limit_say_so() {
    let temp = tempfile::tempdir().unwrap();
    let (torrent, content) = half(temp.path(), "");
    // Whoever seeds here has only one of the files.
    let (here, there) = (temp.path().join("partial"), temp.path().join("leecher"));
    std::fs::create_dir_all(here.join("downloads/content")).unwrap();
    std::fs::copy(content.join("first"), here.join("downloads/content/first")).unwrap();
    let partial = Daemon::start(&here, "");
    partial.add(&torrent, "");
    wait("half of it is checked", 20, || partial.torrent()["have_bytes"] == 1 << 20);
    let leecher = Daemon::start(&there, "[limits]\ndown = \"32K\"\nactive_downloads = 1\n");
    leecher.add(&torrent, "");
    leecher.ask(&format!("connect all {}", partial.listen));
    wait_why(&leecher, "limit", "the node's limit of 32.0K/s for all torrents is used up; `limit down` changes it");
    wait_why(&leecher, "swarm", "16 missing pieces are at no connected peer, of content/second; somebody who has them");
    leecher.ask("limit down 0");
    wait("it has what there is", 20, || leecher.torrent()["have_bytes"] == 1 << 20);
    wait_why(&leecher, "interest", "none of one connected peer has a piece that is missing here");
    let other = temp.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("x"), noise(3, 100_000)).unwrap();
    let (_, second, hash) = make(&other.join("x"), &other, &[]);
    leecher.add(&second, "");
    let said = leecher.ask(&format!("why {hash}"));
    assert!(said[0].starts_with("it waits for its turn: 1 may download at once (`active_downloads`"), "{said:?}");
}
