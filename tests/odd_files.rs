//! The tool refuses what is not a regular file where it reads one, and never waits for it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Command, Stdio};

/// How the tool ends that must end by itself: whether it succeeded, and what it says on its standard error.
#[track_caller]
fn end(args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmtorrent"));
    let mut child =
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed().as_secs() >= 10 {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{args:?} did not end in 10 s");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn tool_refuses_what_is_not_a_regular_file() {
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
            // Of a directory, `--allow-file` takes the torrent files in it.
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
