//! Other rate limits at times: by the clock of the daemon's time zone, by a command, by a reload.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and looks at the clock")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Daemon, free_port};

/// A schedule of the two hours around now, in UTC, and of no other.
fn around_now() -> String {
    let minute = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 60 % 1440;
    let [from, to] = [minute + 1380, minute + 60].map(|minute| format!("{:02}:{:02}", minute / 60 % 24, minute % 60));
    format!(
        "[limits]\ndown = \"5M\"\n[limits.alternative]\ndown = \"1M\"\nup = \"100K\"\nfrom = \"{from}\"\nto = \"{to}\"\n"
    )
}

fn start(dir: &Path, extra: &str, zone: &str) -> Daemon {
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    Daemon::launch_with(dir, listen, "", extra, &[("TZ", Path::new(zone))])
}

/// The limits that hold, and by whose word.
fn limits(daemon: &Daemon) -> (u64, u64, String) {
    let status = daemon.json("status").remove(0);
    let rate = |key: &str| status[key].as_u64().unwrap();
    (rate("down_limit"), rate("up_limit"), status["limits"].as_str().unwrap().to_owned())
}

#[test]
fn the_clock_decides_until_somebody_does() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = start(temp.path(), &around_now(), "UTC0");
    let usual = |down: u64, words: &str| (down << 20, 0, words.to_owned());
    let alternative = |words: &str| (1 << 20, 100 << 10, words.to_owned());
    assert_eq!(limits(&daemon), alternative("alternative, by the clock"));
    assert_eq!(daemon.ask("limit alternative off"), ["OK"]);
    assert_eq!(limits(&daemon), usual(5, "usual, until `limit alternative auto`"));
    assert_eq!(daemon.ask("limit alternative on"), ["OK"]);
    assert_eq!(daemon.ask("limit down 7M"), ["OK"]);
    assert_eq!(limits(&daemon), alternative("alternative, until `limit alternative auto`"));
    assert_eq!(daemon.ask("limit alternative auto"), ["OK"]);
    assert_eq!(limits(&daemon), alternative("alternative, by the clock"));
    let path = temp.path().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let (before, after) = config.split_once("[limits.alternative]").unwrap();
    let rest = after.split_once("[dht]").unwrap().1;
    std::fs::write(&path, format!("{before}[dht]{rest}")).unwrap();
    let told = ["limits that hold: usual", "limits.alternative is as in the file now", "OK"];
    assert_eq!(daemon.ask("reload"), told);
    assert_eq!(limits(&daemon), usual(7, "usual"));
    assert!(daemon.ask("limit alternative on")[0].starts_with("ERR not-found there are no alternative limits"));
    assert_eq!(daemon.threads(), 1);
}

#[test]
fn the_clock_is_that_of_the_time_zone() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = start(temp.path(), &around_now(), "XYZ-12");
    assert_eq!(limits(&daemon).2, "usual", "it is twelve hours later there");
}
