//! The tool rejects any path that is not a regular file where it reads a regular file, and never waits for such a path.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Running, wait};

/// Waits for the tool to end by itself. Returns whether it succeeded, and its standard error.
#[track_caller]
fn end(args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrent"));
    let child = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = Running(child.unwrap());
    wait(&format!("{args:?} ends"), 10, || child.0.try_wait().unwrap().is_some());
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.0.wait().unwrap().success(), said)
}

#[test]
fn tool_rejects_a_path_that_is_not_a_regular_file() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (fifo, dir, out) = (path("fifo"), path("dir"), path("out.torrent"));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    std::fs::create_dir(&dir).unwrap();
    for odd in [&*fifo, "/dev/zero", &*dir] {
        for args in [
            &["show", odd][..],
            &["show", "--json", odd],
            &["check", odd, &dir],
            &["convert", odd, "-o", &out],
            &["get", "--no-dht", odd],
            &["simulate", odd],
            &["tracker", "--udp", "127.0.0.1:0", "--allow-file", odd],
        ] {
            // A directory is a valid value of `--allow-file`: the tool reads the torrent files in it.
            if args[0] == "tracker" && odd == dir {
                continue;
            }
            let (success, said) = end(args);
            assert!(!success, "{args:?}");
            assert!(said.contains(odd) && said.contains("not a regular file"), "{args:?}: {said}");
            assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {said}");
        }
        if odd != dir {
            for args in [&["seed", odd][..], &["create", odd, "-o", &out]] {
                let (success, said) = end(args);
                assert!(!success && said.contains(odd), "{args:?}: {said}");
                assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {said}");
            }
        }
    }
    assert!(!Path::new(&out).exists());
}
