//! What a transfer costs: a seeder and a leech, two daemons on loopback, next to what this machine needs for the bare
//! parts of the same work.
//!
//! `cargo bench --bench transfer`. `SWARMTORRENT_BENCH_MIB` sets the content's size (1024), `SWARMTORRENT_BENCH_DIR` where it
//! lies (the temporary directory). Figures are CPU seconds a GiB, user and system together, of each side; the ratio is to
//! the bare loop that does the least a BitTorrent program must. Compare rows of one run, not runs.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench is outside the daemon: it waits, looks at the clock, and ends at the first trouble"
)]

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::time::{ClockId, clock_gettime};
use sha1::{Digest, Sha1};

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Daemon, free_port, make, noise};

const GIB: f64 = (1_u64 << 30) as f64;
/// Bytes of one read or write of a bare loop.
const BUF_LEN: usize = 256 * 1024;
/// A block of BEP 3 and the head of its message.
const BLOCK_LEN: usize = 16 * 1024;
const HEAD_LEN: usize = 13;
/// Every row is measured so often, in turns, so that a noisy minute spoils none alone.
const ROUNDS: usize = 3;

/// CPU seconds a GiB of one side, and seconds of the whole.
struct Row {
    name: String,
    sender: Option<f64>,
    receiver: Option<f64>,
    secs: f64,
}

fn main() {
    let mib: u64 = std::env::var("SWARMTORRENT_BENCH_MIB").map_or(1024, |text| text.parse().expect("a number of MiB"));
    let base = std::env::var_os("SWARMTORRENT_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let temp =
        tempfile::Builder::new().prefix("swarmtorrent-bench").tempdir_in(base).expect("a directory for the bench");
    let content = temp.path().join("content.bin");
    fill(&content, mib);
    println!("{mib} MiB in {}; CPU seconds a GiB, medians of {ROUNDS} rounds", temp.path().display());
    let len = mib << 20;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push([
            copy_loop(len),
            hash_pass(len),
            least_loop(&content, &temp.path().join("bare.bin"), len),
            pread_loop(&content, len),
            transfer(temp.path(), &content, "mmap", "prefer", len),
            transfer(temp.path(), &content, "pread", "prefer", len),
            transfer(temp.path(), &content, "mmap", "require", len),
        ]);
    }
    println!("{:<44} {:>8} {:>8} {:>8}", "", "sender", "receiver", "seconds");
    let rows: Vec<Row> = (0..rounds[0].len()).map(|at| median(rounds.iter().map(|round| &round[at]))).collect();
    let [_, _, least, pread, ..] = rows.as_slice() else { unreachable!("seven rows") };
    for row in &rows {
        println!("{:<44} {:>8} {:>8} {:>8.2}", row.name, figure(row.sender), figure(row.receiver), row.secs);
    }
    for (row, sender) in [(&rows[4], least.sender), (&rows[5], pread.sender), (&rows[6], pread.sender)] {
        let name = format!("{}: times the bare loop", row.name);
        let times = |ours: Option<f64>, bare: Option<f64>| ours.unwrap() / bare.unwrap();
        println!("{name:<44} {:>8.2} {:>8.2}", times(row.sender, sender), times(row.receiver, least.receiver));
    }
}

/// The middle of each figure.
fn median<'r>(rows: impl Iterator<Item = &'r Row>) -> Row {
    let rows: Vec<&Row> = rows.collect();
    let middle = |of: fn(&Row) -> Option<f64>| {
        let mut values: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Row {
        name: rows[0].name.clone(),
        sender: middle(|row| row.sender),
        receiver: middle(|row| row.receiver),
        secs: middle(|row| Some(row.secs)).unwrap(),
    }
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.3}"))
}

fn fill(path: &Path, mib: u64) {
    let mut file = File::create(path).unwrap();
    for number in 0..mib {
        file.write_all(&noise(number, 1 << 20)).unwrap();
    }
    file.sync_all().unwrap();
}

/// CPU time of this thread, seconds.
fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap()).as_secs_f64()
}

/// CPU time of another process, seconds.
fn process_cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

/// Runs both ends of a loopback connection; each returns when it has moved `len` bytes.
fn pair(name: &str, len: u64, send: impl FnOnce(TcpStream) + Send, receive: impl FnOnce(TcpStream) + Send) -> Row {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let start = Instant::now();
    let (sender, receiver) = std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let stream = listener.accept().unwrap().0;
            let before = thread_cpu();
            send(stream);
            thread_cpu() - before
        });
        let receiver = scope.spawn(move || {
            let stream = TcpStream::connect(addr).unwrap();
            let before = thread_cpu();
            receive(stream);
            thread_cpu() - before
        });
        (sender.join().unwrap(), receiver.join().unwrap())
    });
    let gib = len as f64 / GIB;
    Row {
        name: name.into(),
        sender: Some(sender / gib),
        receiver: Some(receiver / gib),
        secs: start.elapsed().as_secs_f64(),
    }
}

/// Bytes from one end to the other, and nothing else.
fn copy_loop(len: u64) -> Row {
    pair(
        "bare loopback copy",
        len,
        move |stream| send_buf(stream, len),
        move |mut stream| {
            let mut buf = vec![0; BUF_LEN];
            while stream.read(&mut buf).unwrap() > 0 {}
        },
    )
}

fn send_buf(mut stream: TcpStream, len: u64) {
    let buf = noise(1, BUF_LEN);
    for _ in 0..len / BUF_LEN as u64 {
        stream.write_all(&buf).unwrap();
    }
}

fn hash_pass(len: u64) -> Row {
    let buf = noise(2, BUF_LEN);
    let start = Instant::now();
    let before = thread_cpu();
    let mut hasher = Sha1::new();
    for _ in 0..len / BUF_LEN as u64 {
        hasher.update(&buf);
    }
    std::hint::black_box(hasher.finalize());
    let cpu = (thread_cpu() - before) / (len as f64 / GIB);
    Row {
        name: "bare SHA-1 pass over memory".into(),
        sender: None,
        receiver: Some(cpu),
        secs: start.elapsed().as_secs_f64(),
    }
}

/// The least that BitTorrent needs: message heads and content out of a map in vectored writes; received, hashed, and written
/// to a file that has its room.
fn least_loop(from: &Path, to: &Path, len: u64) -> Row {
    let file = File::open(from).unwrap();
    // SAFETY: nobody changes the file while the bench runs.
    #[allow(unsafe_code, reason = "what a map costs is what is measured")]
    let map = unsafe { memmap2::Mmap::map(&file).unwrap() };
    let target = File::options().create(true).truncate(true).read(true).write(true).open(to).unwrap();
    let head = [0_u8; HEAD_LEN];
    let send = |mut stream: TcpStream| {
        for blocks in map.chunks(BUF_LEN) {
            let mut slices = Vec::new();
            for block in blocks.chunks(BLOCK_LEN) {
                slices.push(IoSlice::new(&head));
                slices.push(IoSlice::new(block));
            }
            let mut rest = slices.as_mut_slice();
            while !rest.is_empty() {
                let sent = stream.write_vectored(rest).unwrap();
                IoSlice::advance_slices(&mut rest, sent);
            }
        }
    };
    let receive = |mut stream: TcpStream| {
        fallocate(&target, FallocateFlags::empty(), 0, len).unwrap();
        let mut buf = vec![0; BUF_LEN];
        let mut hasher = Sha1::new();
        let mut at = 0;
        loop {
            let read = stream.read(&mut buf).unwrap();
            if read == 0 {
                break;
            }
            hasher.update(&buf[..read]);
            // The heads are written too: 13 bytes in 16,397.
            let now = read.min(usize::try_from(len - at).unwrap());
            target.write_all_at(&buf[..now], at).unwrap();
            at += now as u64;
        }
        std::hint::black_box(hasher.finalize());
    };
    let row = pair("bare map + writev / recv + SHA-1 + pwrite", len, send, receive);
    std::fs::remove_file(to).unwrap();
    row
}

/// What the `pread` backend does for sending.
fn pread_loop(from: &Path, len: u64) -> Row {
    let file = File::open(from).unwrap();
    let send = |mut stream: TcpStream| {
        let mut buf = vec![0; BUF_LEN];
        for at in (0..len).step_by(BUF_LEN) {
            file.read_exact_at(&mut buf, at).unwrap();
            stream.write_all(&buf).unwrap();
        }
    };
    pair("bare pread + write / recv", len, send, |mut stream| {
        let mut buf = vec![0; BUF_LEN];
        while stream.read(&mut buf).unwrap() > 0 {}
    })
}

/// Two daemons.
fn transfer(temp: &Path, content: &Path, backend: &str, encryption: &str, len: u64) -> Row {
    let (here, there) = (temp.join(format!("seed-{backend}")), temp.join(format!("leech-{backend}")));
    std::fs::create_dir_all(here.join("downloads")).unwrap();
    let out = temp.join(format!("made-{backend}"));
    std::fs::create_dir_all(&out).unwrap();
    let (_, torrent, hash) = make(content, &out, &[]);
    std::fs::hard_link(content, here.join("downloads/content.bin")).unwrap();
    let settings = format!("[storage]\nbackend = \"{backend}\"\n");
    let keys = format!("encryption = \"{encryption}\"\n");
    let start = |dir| Daemon::launch(dir, SocketAddr::from(([127, 0, 0, 1], free_port())), &keys, &settings);
    let seed = start(&here);
    seed.add(&torrent, "");
    seed.wait_state("seeding", 600);
    let leech = start(&there);
    let (before_seed, before_leech) = (process_cpu(seed.pid()), process_cpu(leech.pid()));
    let began = Instant::now();
    leech.add(&torrent, "");
    leech.ask(&format!("connect {hash} {}", seed.listen));
    leech.wait_state("seeding", 600);
    let secs = began.elapsed().as_secs_f64();
    let gib = len as f64 / GIB;
    let row = Row {
        name: format!("two daemons, {backend}{}", if encryption == "require" { ", ciphered" } else { "" }),
        sender: Some((process_cpu(seed.pid()) - before_seed) / gib),
        receiver: Some((process_cpu(leech.pid()) - before_leech) / gib),
        secs,
    };
    drop((seed, leech));
    for used in [here, there, out] {
        std::fs::remove_dir_all(used).unwrap();
    }
    row
}
