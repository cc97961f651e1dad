//! Crowds at the door: connections that say nothing, that never finish a word, and too few descriptors for them. An honest peer gets in.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail where they stand")]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

mod common;

use common::{Daemon, make, noise, wait};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

const CROWD: usize = 10_000;
const LEN: usize = 5_000_000;

/// Connections to one address from many, which are dropped as the other end drops them.
struct Crowd {
    to: SocketAddr,
    open: VecDeque<Socket>,
    made: u32,
}

impl Crowd {
    fn new(to: SocketAddr) -> Self {
        Self { to, open: VecDeque::new(), made: 0 }
    }

    /// So many more come, fifty from each address.
    fn come(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.made / 50;
            let from = Ipv4Addr::from(0x7f01_0000 + (number / 200 % 200) * 0x10000 + (number % 200) * 256 + 1);
            let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
            socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
            let _ = socket.connect(&self.to.into()); // it is under way
            self.open.push_back(socket);
            self.made += 1;
        }
        while self.open.len() > CROWD {
            self.open.pop_front();
        }
    }
}

/// The test holds both a crowd and the ends that are not accepted yet.
fn has_descriptors() -> bool {
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = CROWD as u64 + 1000;
    let may = hard.is_none_or(|hard| hard >= wanted)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: hard }).is_ok();
    if !may {
        eprintln!("left out: only {hard:?} descriptors are allowed");
    }
    may
}

fn stat(daemon: &Daemon, name: &str) -> u64 {
    daemon.json("stats").iter().find(|row| row["name"] == name).unwrap()["value"].as_u64().unwrap()
}

/// CPU time of another process, seconds.
fn cpu_secs(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// Content where a seed finds it, and its `.st`.
fn content(seed: &Path) -> PathBuf {
    let content = seed.join("downloads/content");
    std::fs::create_dir_all(content.parent().unwrap()).unwrap();
    std::fs::write(&content, noise(11, LEN)).unwrap();
    make(&content, seed, &[]).0
}

/// An honest peer comes, and gets everything while `meanwhile` goes on.
fn gets_in(temp: &Path, seed: &Daemon, st: &Path, mut meanwhile: impl FnMut()) {
    let leech = Daemon::start(&temp.join("leech"), "");
    leech.add(st, "");
    leech.ask(&format!("connect all {}", seed.listen));
    wait("it has everything", 60, || {
        meanwhile();
        leech.torrent()["state"] == "seeding"
    });
    assert_eq!(leech.terminate(), 0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it is measured how long it takes")]
fn ten_thousand_who_say_nothing_keep_nobody_out() {
    if !has_descriptors() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let st = content(&temp.path().join("seed"));
    let seed = Daemon::start(&temp.path().join("seed"), "");
    seed.add(&st, "");
    seed.wait_state("seeding", 20);
    let (memory, cpu, start) = (seed.memory_kib(), cpu_secs(seed.pid()), Instant::now());
    let mut crowd = Crowd::new(seed.listen);
    while crowd.made < u32::try_from(CROWD).unwrap() {
        crowd.come(500);
        wait("they are accepted", 20, || stat(&seed, "peers.accepted") + 1024 >= u64::from(crowd.made));
    }
    wait("all are accepted", 20, || stat(&seed, "peers.accepted") >= u64::from(crowd.made));
    let open = seed.json("status")[0]["connections"].as_u64().unwrap();
    assert!((1..=250).contains(&open), "{open} are no quarter of all places");
    gets_in(temp.path(), &seed, &st, || crowd.come(200));
    let grown = seed.memory_kib().saturating_sub(memory);
    let (spent, took) = (cpu_secs(seed.pid()) - cpu, start.elapsed().as_secs_f64());
    eprintln!("{} came in {took:.1} s: {spent:.2} s of CPU, {grown} KiB more memory", crowd.made);
    assert!(grown < 16 * 1024, "{grown} KiB");
    assert!(spent < f64::from(crowd.made) * 0.001, "{spent} s of CPU for {}", crowd.made);
    assert!(stat(&seed, "peers.shed_silent") > CROWD as u64 / 2);
    let log = seed.log();
    let said = log.matches("were closed for others").count();
    assert!((1..=2).contains(&said), "it is said once in a minute, not {said} times");
    drop(crowd);
    wait("all are gone", 30, || seed.json("status")[0]["connections"] == 0);
    assert_eq!(seed.terminate(), 0);
}

#[test]
fn with_few_descriptors_it_goes_on_and_says_who_had_to_go() {
    let temp = tempfile::tempdir().unwrap();
    let st = content(&temp.path().join("seed"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_swarmtorrentd")]);
    let listen = SocketAddr::from(([127, 0, 0, 1], common::free_port()));
    let seed = Daemon::launch_by(command, &temp.path().join("seed"), listen, "", "");
    seed.add(&st, "");
    seed.wait_state("seeding", 20);
    assert!(seed.log().contains("only 64 descriptors are allowed"), "{}", seed.log());
    let mut crowd = Crowd::new(seed.listen);
    crowd.come(200);
    wait("some had to go", 20, || stat(&seed, "peers.shed_silent") > 100);
    gets_in(temp.path(), &seed, &st, || crowd.come(2));
    assert!(seed.log().contains("were closed for others"));
    assert_eq!(seed.torrent()["state"], "seeding");
    let cpu = cpu_secs(seed.pid());
    wait("all had their time", 30, || seed.json("status")[0]["connections"] == 0);
    assert!(cpu_secs(seed.pid()) - cpu < 3.0);
    assert_eq!(seed.terminate(), 0);
}

/// Descriptors that run out although nobody is above a limit: somebody who says nothing goes for who waits.
#[test]
fn who_is_starved_of_descriptors_closes_who_says_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let st = content(&temp.path().join("seed"));
    let seed = Daemon::start(&temp.path().join("seed"), "");
    seed.add(&st, "");
    seed.wait_state("seeding", 20);
    let open = std::fs::read_dir(format!("/proc/{}/fd", seed.pid())).unwrap().count() as u64;
    let pid = rustix::process::Pid::from_raw(i32::try_from(seed.pid()).unwrap());
    let limit = Rlimit { current: Some(open + 8), maximum: Some(open + 8) };
    rustix::process::prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut crowd = Crowd::new(seed.listen);
    crowd.come(100);
    wait("some had to go", 20, || seed.log().contains("were closed for others"));
    gets_in(temp.path(), &seed, &st, || ());
    assert!(stat(&seed, "peers.shed_starved") > 0 && stat(&seed, "sockets_starved") > 0);
    assert_eq!(seed.terminate(), 0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it is measured how long they may dribble")]
fn who_dribbles_its_handshake_is_closed_in_its_time() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    let start = Instant::now();
    let mut dribblers: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(daemon.listen).unwrap()).collect();
    let handshake = [&b"\x13BitTorrent protocol"[..], &[0; 48]].concat();
    let mut at = 0;
    wait("all are closed", 30, || {
        dribblers.retain_mut(|stream| {
            stream.set_nonblocking(true).unwrap();
            let is_open = !matches!(stream.read(&mut [0]), Ok(0)) && stream.write(&handshake[at..=at]).is_ok();
            assert!(is_open || start.elapsed() > Duration::from_secs(9), "closed before its time");
            is_open
        });
        at = (at + 1).min(60); // the last bytes never come
        std::thread::sleep(Duration::from_millis(180));
        dribblers.is_empty()
    });
    assert_eq!(daemon.terminate(), 0);
}

/// Unfinished messages of many, which would be too much together: those that hold most go, and an honest peer gets in.
#[test]
fn who_makes_it_hold_much_goes_when_all_hold_too_much() {
    let temp = tempfile::tempdir().unwrap();
    let st = content(&temp.path().join("seed"));
    let seed = Daemon::start(&temp.path().join("seed"), "[limits]\nmemory = \"2M\"\n");
    seed.add(&st, "");
    seed.wait_state("seeding", 20);
    let hash: String = seed.torrent()["id"].as_str().unwrap().to_owned();
    let hash: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&hash[at * 2..at * 2 + 2], 16).unwrap()).collect();
    let before = seed.memory_kib();
    let mut greedy: Vec<TcpStream> = Vec::new();
    for number in 0..40_u32 {
        let mut stream = TcpStream::connect(seed.listen).unwrap();
        let mut said = b"\x13BitTorrent protocol\0\0\0\0\0\x10\0\0".to_vec();
        said.extend(&hash);
        said.extend(format!("-XX0001-{number:012}").bytes());
        // An extended message of 60,000 bytes, of which the last never comes.
        said.extend(60_000_u32.to_be_bytes());
        said.push(20);
        said.resize(said.len() + 55_000, b'x');
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        drop(stream.write_all(&said)); // it may be closed before all of it is sent
        greedy.push(stream);
    }
    wait("some had to go", 20, || stat(&seed, "peers.shed_heavy") >= 30);
    assert!(seed.memory_kib() < before + 8 * 1024, "{} KiB before, {} now", before, seed.memory_kib());
    assert!(seed.log().contains("those that hold most are closed"));
    gets_in(temp.path(), &seed, &st, || ());
    assert_eq!(seed.terminate(), 0);
}
