//! Odd files. The tool rejects any path that is not a regular file where it reads a regular file, and never waits for such a path. The
//! daemon downloads tens of thousands of files of a few bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Daemon, Running, free_port, make, noise, wait};

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

/// A block lies in thousands of files, some of no bytes among them: it is written, read back, hashed and sent a few at a time.
fn files_of_a_few_bytes_are_downloaded(keys: &str) {
    const FILES: usize = 20_000;
    const EXTRA: &str = "[limits]\nmin_free_space = \"0\"\n[storage]\nallocate = \"sparse\"\n";
    let temp = tempfile::tempdir().unwrap();
    let source = temp.path().join("source/content");
    let name = |file: usize| format!("{}/{file}", file / 1000);
    let bytes = |file: usize| noise(file as u64, file % 7);
    for file in 0..FILES {
        std::fs::create_dir_all(source.join((file / 1000).to_string())).unwrap();
        std::fs::write(source.join(name(file)), bytes(file)).unwrap();
    }
    let (st, ..) = make(&source, temp.path(), &["--piece-length", "32768"]);
    let daemon = |name: &str| {
        let home = temp.path().join(name);
        Daemon::launch(&home, SocketAddr::from(([127, 0, 0, 1], free_port())), keys, EXTRA)
    };
    let (seeder, leecher) = (daemon("seeder"), daemon("leecher"));
    seeder.add(&st, &format!("dir={}", temp.path().join("source").display()));
    seeder.wait_state("seeding", 60);
    let target = temp.path().join("target");
    leecher.add(&st, &format!("dir={}", target.display()));
    leecher.ask(&format!("connect all {}", seeder.listen));
    leecher.wait_state("seeding", 60);
    // Those of no bytes are made with the next sync, the first one last.
    wait("the last of them is made", 30, || target.join("content").join(name(0)).exists());
    for file in 0..FILES {
        assert_eq!(std::fs::read(target.join("content").join(name(file))).ok(), Some(bytes(file)), "file {file}");
    }
    assert_eq!(leecher.torrent()["failed"].as_u64().unwrap_or(0), 0);
    assert_eq!((seeder.terminate(), leecher.terminate()), (0, 0));
}

#[test]
fn files_of_a_few_bytes_are_downloaded_in_plain() {
    files_of_a_few_bytes_are_downloaded("encryption = \"off\"\n");
}

#[test]
fn files_of_a_few_bytes_are_downloaded_enciphered() {
    files_of_a_few_bytes_are_downloaded("encryption = \"require\"\n");
}
