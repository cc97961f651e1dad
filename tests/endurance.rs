//! Whatever its surroundings do, the daemon goes on: clients of the control socket that send rubbish or never read, a log that nobody
//! reads, clocks that are set, a stop that lasts, hardly any memory.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic, and looks at the clock")]

mod common;

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Daemon, free_port, make, noise, wait};
use rustix::process::{Pid, Signal, kill_process};

const MIB: usize = 1 << 20;

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.dir.join("control")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Adds so many links, which wait.
fn add_links(daemon: &Daemon, count: usize) {
    let mut stream = connect(daemon);
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for numbers in (0..count).collect::<Vec<_>>().chunks(50) {
        let mut asked = String::new();
        for number in numbers {
            writeln!(asked, "add magnet:?xt=urn:btih:{number:040x}&dn=number-{number} paused=yes").unwrap();
        }
        stream.write_all(asked.as_bytes()).unwrap();
        for _ in numbers {
            let line = lines.next().unwrap().unwrap();
            assert!(line.starts_with("OK "), "{line}");
        }
    }
}

fn stat(daemon: &Daemon, name: &str) -> u64 {
    let rows = daemon.ask("stats");
    let row = rows.iter().find_map(|row| row.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {rows:?}"));
    row.trim().parse().unwrap()
}

/// Hundredths of a second of the processor's time.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn signal(daemon: &Daemon, signal: Signal) {
    kill_process(Pid::from_raw(daemon.pid().try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Half, and all but one of a hundred, took no longer.
fn percentiles(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

#[test]
fn whatever_clients_do_another_is_answered() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    add_links(&daemon, 1000);
    let list_len = daemon.ask("json list").iter().map(|line| line.len() + 1).sum::<usize>();
    let before = daemon.memory_kib();

    // More than there is room for, and all silent: each that comes late takes the place of one that has been silent for longest.
    let mut silent: Vec<UnixStream> = (0..500).map(|_| connect(&daemon)).collect();
    assert!(daemon.ask("version")[0].starts_with("program:"));
    let mut told = String::new();
    silent[0].read_to_string(&mut told).unwrap();
    assert_eq!(told, "ERR busy another client needed the place; connect again\n");
    assert!(stat(&daemon, "control_clients") <= 64);
    assert!(stat(&daemon, "control_shed") >= 436);
    let done = AtomicBool::new(false);
    let mut most = 0;
    let mut took = Vec::new();
    thread::scope(|scope| {
        let floods = [
            scope.spawn(|| {
                let mut stream = connect(&daemon);
                let part = vec![b'x'; MIB];
                for _ in 0..128 {
                    stream.write_all(&part).unwrap();
                }
                stream.write_all(b"\nversion\n").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut told = String::new();
                stream.read_to_string(&mut told).unwrap();
                assert!(told.starts_with("ERR usage a request has at most ") && told.ends_with("OK\n"), "{told}");
            }),
            // Binary, none of it read: ended once too much waits.
            scope.spawn(|| {
                let mut stream = connect(&daemon);
                let part = noise(1, MIB);
                let ended = (0..400).any(|_| stream.write_all(&part).is_err());
                assert!(ended, "somebody that reads nothing is disconnected");
            }),
            scope.spawn(|| {
                let mut stream = connect(&daemon);
                while !done.load(Ordering::Relaxed) {
                    for byte in b"version\n" {
                        stream.write_all(&[*byte]).unwrap();
                    }
                    let mut told = [0; 8];
                    stream.read_exact(&mut told).unwrap();
                    assert_eq!(&told, b"program:");
                    let mut rest = vec![0; 4096];
                    while !rest.ends_with(b"OK\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        rest.push(byte[0]);
                    }
                }
            }),
            scope.spawn(|| {
                for half in ["vers", "add ", "json li", "set x", "\"", "json \"", "part", "watch ev"] {
                    let mut stream = connect(&daemon);
                    stream.write_all(half.as_bytes()).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut told = String::new();
                    stream.read_to_string(&mut told).unwrap();
                    assert!(told.contains("ERR ") || told.contains("\"ok\":false"), "{half}: {told}");
                }
            }),
        ];
        // Each asks for far more than may wait, and reads none of it.
        let asked = "json list\n".repeat(16 * MIB / list_len);
        let mut owing: Vec<UnixStream> = (0..12)
            .map(|_| {
                let mut stream = connect(&daemon);
                stream.write_all(asked.as_bytes()).unwrap();
                stream
            })
            .collect();
        while !floods[0].is_finished() || took.len() < 200 {
            let start = Instant::now();
            assert!(daemon.ask("version")[0].starts_with("program:"));
            took.push(start.elapsed());
            most = most.max(daemon.memory_kib());
        }
        wait("all that read nothing are disconnected", 20, || {
            most = most.max(daemon.memory_kib());
            stat(&daemon, "control_overrun") >= 13
        });
        for stream in &mut owing {
            let len = stream.read_to_end(&mut Vec::new()).unwrap_or_default();
            assert!(len < 9 * MIB + 2 * list_len, "{len} bytes");
        }
        done.store(true, Ordering::Relaxed);
    });
    let count = took.len();
    let (half, nearly_all) = percentiles(took);
    println!("{count} answers meanwhile: half within {half:?}, 99 of 100 within {nearly_all:?}");
    assert!(half < Duration::from_millis(100) && nearly_all < Duration::from_millis(500), "{half:?}, {nearly_all:?}");
    println!("memory: {before} KiB before, {most} at most");
    // 64 MiB of answers wait at most, in strings that have grown to twice as much.
    assert!(most < before + 140 * 1024, "{before} KiB before, {most} at most");
    wait("memory is given back", 10, || daemon.memory_kib() < before + 16 * 1024);
    // Clients that are silent cost nothing.
    silent.truncate(0);
    let silent: Vec<UnixStream> = (0..100).map(|_| connect(&daemon)).collect();
    daemon.ask("version");
    wait("they cost nothing", 10, || {
        let spent = ticks(daemon.pid());
        thread::sleep(Duration::from_secs(1));
        let spent = ticks(daemon.pid()) - spent;
        println!("a second of silence of {} clients: {spent} hundredths of the processor", silent.len());
        spent <= 5
    });
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let pipe = temp.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut reader = fs::File::options().read(true).custom_flags(nonblock).open(&pipe).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>\"$0/pipe\""]).arg(temp.path()).arg(env!("CARGO_BIN_EXE_swarmtorrentd"));
    let daemon = Daemon::launch_by(command, temp.path(), SocketAddr::from(([127, 0, 0, 1], free_port())), "", "");
    // Each is told in a line; a pipe takes 64 KiB, and 256 KiB wait.
    let count = 2500;
    for number in 0..count {
        fs::write(temp.path().join(format!("watch/{number:0>200}.torrent")), "no torrent").unwrap();
    }
    let mut took = Vec::new();
    wait("all are looked at", 20, || {
        let asked = Instant::now();
        daemon.ask("version");
        took.push(asked.elapsed());
        let names = fs::read_dir(temp.path().join("watch")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.as_encoded_bytes().ends_with(b".torrent")).count() == 0
    });
    let (half, nearly_all) = percentiles(took);
    println!("with a log that nobody reads: half within {half:?}, 99 of 100 within {nearly_all:?}");
    assert!(half < Duration::from_millis(100) && nearly_all < Duration::from_millis(500), "{half:?}, {nearly_all:?}");
    let spent = ticks(daemon.pid());
    thread::sleep(Duration::from_millis(500));
    assert!(ticks(daemon.pid()) - spent <= 10, "it waits for the reader, and does not ask all the time");

    let mut read = Vec::new();
    let mut later = 0;
    wait("what was dropped is told", 10, || {
        if reader.read_to_end(&mut read).is_ok() {
            panic!("the daemon has ended");
        }
        later += 1;
        fs::write(temp.path().join(format!("watch/later-{later}.torrent")), "no torrent").unwrap();
        String::from_utf8_lossy(&read).contains(" lines of the log were dropped: its reader is too slow\n")
    });
    let read = String::from_utf8(read).unwrap();
    let told =
        read.lines().find_map(|line| line.strip_suffix(" lines of the log were dropped: its reader is too slow"));
    let dropped: usize = told.unwrap().parse().unwrap();
    let here = read.lines().filter(|line| line.contains(".torrent") && !line.contains("later-")).count();
    println!("{here} lines were read, {dropped} were dropped");
    assert!(here >= 500 && here + dropped >= count, "{here} were read and {dropped} dropped of {count}");
    assert_eq!(daemon.terminate(), 0);
}

/// The library that lies about the time of day to whoever loads it, if it is installed.
fn liar() -> Option<PathBuf> {
    let dirs = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = dirs.map(|dir| dir.join("faketime/libfaketime.so.1")).find(|path| path.exists());
    if found.is_none() {
        eprintln!("left out: libfaketime is not installed");
    }
    found
}

#[test]
fn a_clock_that_is_set_changes_dates_and_nothing_else() {
    let Some(liar) = liar() else { return };
    let temp = tempfile::tempdir().unwrap();
    let offset = temp.path().join("offset");
    // A machine that does not know the year yet.
    let unix_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    fs::write(&offset, format!("-{}", unix_secs - 1000)).unwrap();
    let one = Path::new("1");
    let env = [
        ("LD_PRELOAD", &*liar),
        ("FAKETIME_TIMESTAMP_FILE", &offset),
        ("FAKETIME_NO_CACHE", one),
        ("FAKETIME_DONT_FAKE_MONOTONIC", one),
        ("NO_FAKE_STAT", one),
    ];
    let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let rule = "[[rule]]\nadded_max = \"2d\"\nup = \"7K\"\n";
    let daemon = Daemon::launch_with(temp.path(), listen, "", rule, &env);
    let mut number = 0;
    let mut added = || {
        number += 1;
        let reply = daemon.ask(&format!("add magnet:?xt=urn:btih:{number:040x} paused=yes"));
        assert!(reply[0].starts_with("OK "), "{reply:?}");
        daemon.json(&format!("show {number:040x}"))[0]["added"].as_u64().unwrap()
    };
    let about = |secs: u64, wanted: u64| secs.abs_diff(wanted) < 100;
    let first = added();
    assert!(about(first, 1000), "{first}");
    // It is young, and the rule is about it.
    let held = || daemon.ask(&format!("get {:040x}", 1)).join("\n");
    assert!(held().contains("7168 (rule 1)"), "{}", held());
    let start = Instant::now();
    let spent = ticks(daemon.pid());
    for (ahead, told) in [(0, "ahead"), (-5 * 3600, "back"), (7 * 3600, "ahead")] {
        let log_len = daemon.log().len();
        // The file is replaced whole: it is read at any moment.
        let next = temp.path().join("next");
        fs::write(&next, format!("{ahead:+}")).unwrap();
        fs::rename(&next, &offset).unwrap();
        wait("the clock is looked at", 5, || {
            daemon.ask("version");
            daemon.log()[log_len..].contains(&format!("the clock on the wall went {told} by "))
        });
        let secs = added();
        assert!(about(secs, unix_secs.checked_add_signed(ahead).unwrap()), "{secs}, {ahead} s from {unix_secs}");
    }
    assert!(!held().contains("7168 (rule 1)"), "it is half a century old by now: {}", held());
    let uptime = daemon.json("status")[0]["uptime"].as_u64().unwrap();
    assert!(uptime <= start.elapsed().as_secs() + 10, "it is not up longer for it: {uptime}");
    thread::sleep(Duration::from_millis(500));
    assert!(ticks(daemon.pid()) - spent < 100, "no timer is late for it");
    assert_eq!(daemon.terminate(), 0);
}

#[test]
fn a_stop_that_lasts_is_gone_on_after() {
    let temp = tempfile::tempdir().unwrap();
    let content = temp.path().join("content");
    fs::write(&content, noise(2, 12 * MIB)).unwrap();
    let (_, torrent, _) = make(&content, temp.path(), &[]);
    let seeder = Daemon::start(&temp.path().join("a"), "[limits]\nup = \"3M\"\n");
    seeder.add(&torrent, &format!("dir={}", temp.path().display()));
    seeder.wait_state("seeding", 20);
    let leecher = Daemon::start(&temp.path().join("b"), "");
    leecher.add(&torrent, "");
    leecher.ask(&format!("connect all {}", seeder.listen));
    let have = |daemon: &Daemon| daemon.torrent()["have_bytes"].as_u64().unwrap();
    wait("it has begun", 20, || have(&leecher) > 0);
    signal(&seeder, Signal::STOP);
    thread::sleep(Duration::from_millis(500));
    signal(&leecher, Signal::STOP);
    let mut asked = connect(&leecher);
    asked.write_all(b"status\nversion\n").unwrap();
    asked.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_secs(5));
    signal(&leecher, Signal::CONT);
    let mut told = String::new();
    asked.read_to_string(&mut told).unwrap();
    assert!(told.contains("protocol: 1"), "{told}");
    let stopped = have(&leecher);
    signal(&seeder, Signal::CONT);
    leecher.wait_state("seeding", 30);
    assert!(stopped < 12 * MIB as u64, "it was stopped meanwhile");
    let row = leecher.torrent();
    assert_eq!(row["downloaded"].as_u64(), Some(12 * MIB as u64), "nothing twice: {row}");
    for daemon in [&seeder, &leecher] {
        wait("it is quiet again", 10, || {
            let spent = ticks(daemon.pid());
            thread::sleep(Duration::from_millis(500));
            ticks(daemon.pid()) - spent <= 5
        });
        let peers = daemon.json("peers all").len();
        assert!(peers <= 1, "{peers} peers");
    }
}

#[test]
fn little_address_space_is_enough() {
    let temp = tempfile::tempdir().unwrap();
    let content = temp.path().join("content");
    fs::write(&content, noise(3, 16 * MIB)).unwrap();
    let (_, torrent, _) = make(&content, temp.path(), &[]);
    for backend in ["pread", "mmap"] {
        let dir = temp.path().join(backend);
        // Little more than the program with nothing to do; less than the content and the program are long.
        let start = |name: &str| {
            let mut command = Command::new("prlimit");
            command.arg("--as=41943040").arg(env!("CARGO_BIN_EXE_swarmtorrentd"));
            let listen = SocketAddr::from(([127, 0, 0, 1], free_port()));
            Daemon::launch_by(command, &dir.join(name), listen, "", &format!("[storage]\nbackend = \"{backend}\"\n"))
        };
        let seeder = start("seeder");
        seeder.add(&torrent, &format!("dir={}", temp.path().display()));
        seeder.wait_state("seeding", 30);
        let leechers: Vec<Daemon> = ["a", "b", "c"].map(start).into();
        for leecher in &leechers {
            leecher.add(&torrent, "");
            leecher.ask(&format!("connect all {}", seeder.listen));
        }
        for leecher in &leechers {
            leecher.wait_state("seeding", 60);
            assert_eq!(leecher.torrent()["have_bytes"].as_u64(), Some(16 * MIB as u64));
        }
        for daemon in leechers.into_iter().chain([seeder]) {
            let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
            let peak = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap().to_owned();
            println!("{backend}: {peak}");
            assert_eq!(daemon.terminate(), 0);
        }
    }
}
