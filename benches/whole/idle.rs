//! What a program costs that has nothing to do: connections that are silent, torrents that nobody wants, its start.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::free_port;
use crate::machine::{self, Cpu};
use crate::peers::{self, Job, Peer};
use crate::reader::{self, Pieces};
use crate::tracker::Tracker;
use crate::{Bench, PATIENCE};

/// How long a program is given to do what it does at first.
const SETTLE: Duration = Duration::from_secs(5);
/// How long its CPU time is looked at.
const WATCHED: Duration = Duration::from_secs(30);
const SMALL_LEN: usize = 16 * 1024;
/// Starts of the daemon.
const STARTS: usize = 9;

/// Anonymous memory of each of `count` connections that said hello and nothing since.
pub fn connections(bench: &Bench, count: usize) {
    println!("\n{count} idle connections: anonymous memory of each");
    let tracker = Tracker::start(None);
    let torrent = bench.torrent(1 << 20, &tracker);
    let pieces = Pieces::of(&torrent, 1 << 20, bench.len, Peer::Ours.pipeline());
    for &peer in bench.peers.iter().filter(|peer| **peer != Peer::OursMmap) {
        let (home, port) = (bench.home(peer), free_port());
        let torrents = std::slice::from_ref(&torrent);
        let client = peer.start(&Job { torrents, save: &bench.dir, home: &home, port, connections: count });
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        if reader::wait_for_seed(to, &pieces, PATIENCE).is_none() {
            println!("  {:<18}  does not seed", peer.name());
            continue;
        }
        std::thread::sleep(SETTLE);
        let before = machine::memory_kib(client.pid(), "RssAnon:");
        let mut streams: Vec<TcpStream> = (0..count).filter_map(|number| greet(number, to, &pieces).ok()).collect();
        std::thread::sleep(SETTLE);
        let after = machine::memory_kib(client.pid(), "RssAnon:");
        let kept = streams.iter_mut().filter_map(|stream| is_open(stream).then_some(())).count();
        let each = (after as f64 - before as f64) / kept.max(1) as f64;
        println!(
            "  {:<18} {each:>7.2} KiB{}",
            peer.name(),
            if kept < count { format!(", kept {kept}") } else { String::new() }
        );
    }
}

/// A connection over which hellos went both ways.
fn greet(number: usize, to: SocketAddr, pieces: &Pieces) -> std::io::Result<TcpStream> {
    let mut stream = reader::connect_from(number, to)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&pieces.greeting(&[]))?;
    stream.read_exact(&mut [0; 68])?;
    Ok(stream)
}

/// Whether nobody hung up; what came meanwhile is thrown away.
fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Memory and CPU of `count` torrents that are seeded to nobody, and how long it takes until all of them are announced by who did not
/// know them, and until all of them seed in who did.
pub fn torrents(bench: &Bench, count: usize) {
    println!(
        "\n{count} idle torrents: resident memory, CPU over {WATCHED:?}, begin to all announced; start to all seeding"
    );
    let patience = PATIENCE + Duration::from_millis(100) * u32::try_from(count).expect("as many as fit a directory");
    let tracker = Tracker::start(None);
    let save = bench.dir.join("many");
    std::fs::create_dir_all(&save).unwrap();
    let torrents: Vec<PathBuf> = (0..count).map(|number| small(bench, &save, number, &tracker)).collect();
    for &peer in bench.peers.iter().filter(|peer| **peer != Peer::OursMmap) {
        let (home, port) = (bench.home(peer), free_port());
        let job = Job { torrents: &torrents, save: &save, home: &home, port, connections: 100 };
        tracker.forget();
        let begin = Instant::now();
        let mut client = peer.start(&job);
        let Some(at) = tracker.wait_for_many(count, patience, |said| said.left == Some(0)) else {
            println!("  {:<18}  does not seed all of them within {patience:?}", peer.name());
            continue;
        };
        let mut started = format!(", {:.1} s", at.duration_since(begin).as_secs_f64());
        if peer.is_ours() {
            // Again, now that it knows them: as after a reboot.
            client.end();
            let start = Instant::now();
            client = peer.start(&Job { torrents: &[], ..job });
            while peers::ask(&home, "list").iter().filter(|line| line.contains("seeding")).count() < count {
                assert!(start.elapsed() < PATIENCE, "not all are seeding");
                std::thread::sleep(Duration::from_millis(5));
            }
            started += &format!("; {:.3} s", start.elapsed().as_secs_f64());
        } else if peer == Peer::Transmission {
            client.end();
            tracker.forget();
            let start = Instant::now();
            client = peer.start(&Job { torrents: &[], ..job });
            if let Some(at) = tracker.wait_for_many(count, patience, |said| said.left == Some(0)) {
                started += &format!("; all announced {:.1} s", at.duration_since(start).as_secs_f64());
            }
        }
        std::thread::sleep(SETTLE);
        let cpu = Cpu::of(client.pid());
        std::thread::sleep(WATCHED);
        let share = cpu.spent() / WATCHED.as_secs_f64();
        let resident = machine::memory_kib(client.pid(), "VmRSS:") as f64 / 1024.0;
        println!("  {:<18} {resident:>7.1} MiB, {:.3} %{started}", peer.name(), 100.0 * share);
        if peer.is_ours() {
            asked(&home);
        }
    }
}

/// How long the daemon takes to answer with all of its torrents, and with those that changed since: the least of five.
fn asked(home: &Path) {
    let took = |line: &str| {
        let once = || {
            let start = Instant::now();
            (peers::reply(home, line), start.elapsed())
        };
        (0..5).map(|_| once()).min_by_key(|(_, took)| *took).expect("five of them")
    };
    let millis = |took: Duration| took.as_secs_f64() * 1000.0;
    let (list, json) = (took("list").1, took("json list").1);
    let (reply, _) = took("json list since=0");
    let closing = reply.last().expect("a closing line");
    let since = closing.split("\"since\":").nth(1).and_then(|rest| rest.split(['}', ',']).next()).expect("a number");
    let (_, changes) = took(&format!("json list since={since}"));
    println!(
        "  {:<18} `list` {:.1} ms, `json list` {:.1} ms, `json list since=N` {:.2} ms",
        "",
        millis(list),
        millis(json),
        millis(changes)
    );
}

fn small(bench: &Bench, save: &Path, number: usize, tracker: &Tracker) -> PathBuf {
    let content = save.join(format!("small-{number}.bin"));
    std::fs::write(&content, crate::noise(number as u64, SMALL_LEN)).unwrap();
    bench.create(&content, "v1", SMALL_LEN as u64, tracker)
}

/// The size of the daemon's program without symbols, and how long it takes until it answers.
pub fn start(bench: &Bench) {
    println!("\nprogram and start");
    let (program, stripped) = (env!("CARGO_BIN_EXE_swarmtorrentd"), bench.dir.join("stripped"));
    let strip = std::process::Command::new("strip").arg("-o").arg(&stripped).arg(program).status();
    match strip.and_then(|_| stripped.metadata()) {
        Ok(metadata) => println!("  stripped {:.2} MiB", metadata.len() as f64 / f64::from(1 << 20)),
        Err(error) => println!("  strip: {error}"),
    }
    let mut took: Vec<Duration> = (0..STARTS)
        .map(|_| {
            let home = bench.home(Peer::Ours);
            let job = Job { torrents: &[], save: &bench.dir, home: &home, port: free_port(), connections: 1 };
            let start = Instant::now();
            let _client = Peer::Ours.start(&job);
            start.elapsed()
        })
        .collect();
    took.sort();
    println!("  start to ready {:.1} ms, median of {STARTS}", took[STARTS / 2].as_secs_f64() * 1000.0);
}
