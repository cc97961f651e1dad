//! What the service manager and the journal get to hear.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

mod common;

use common::{Daemon, Running, wait};

fn hear(manager: &UnixDatagram) -> Option<String> {
    let mut buf = [0; 4096];
    let len = manager.recv(&mut buf).ok()?;
    Some(String::from_utf8(buf[..len].to_vec()).unwrap())
}

#[test]
fn the_manager_hears_that_it_is_ready_alive_and_stopping() {
    let temp = tempfile::tempdir().unwrap();
    assert_eq!(Daemon::start(temp.path(), "").terminate(), 0); // leaves its config
    let path = temp.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let log = std::fs::File::create(temp.path().join("journal")).unwrap();
    let metadata = log.metadata().unwrap();
    let daemon = Command::new(env!("CARGO_BIN_EXE_swarmtorrentd"))
        .arg("-c")
        .arg(temp.path().join("config.toml"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "1000000")
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))
        .stdin(Stdio::null())
        .stderr(log)
        .spawn();
    let mut daemon = Running(daemon.unwrap());
    assert_eq!(hear(&manager).as_deref(), Some("READY=1\n"));
    // Nobody speaks to it, and still it says that it is alive.
    for _ in 0..4 {
        assert_eq!(hear(&manager).as_deref(), Some("WATCHDOG=1\n"));
    }
    let told = std::fs::read_to_string(temp.path().join("journal")).unwrap();
    assert!(told.lines().count() > 2 && told.lines().all(|line| line.starts_with('<')), "journal priorities: {told}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let mut reloaded = Vec::new();
    wait("it reloads", 5, || {
        reloaded.extend(hear(&manager));
        reloaded.last().is_some_and(|told| told == "READY=1\n")
    });
    assert!(reloaded.iter().any(|told| told.starts_with("RELOADING=1\nMONOTONIC_USEC=")), "{reloaded:?}");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(std::iter::from_fn(|| hear(&manager)).any(|told| told == "STOPPING=1\n"));
    assert_eq!(daemon.0.wait().unwrap().code(), Some(0));
}
