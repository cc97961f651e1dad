//! What a tracker's announces cost: over UDP and HTTP, the memory of its peers, and how long an answer takes.
//!
//! Each program keeps [`PEERS`] peers of [`SWARMS`] swarms, announced from [`peer::SOURCES`] addresses. Then others announce
//! themselves anywhere, as fast as they are answered, and want [`ANSWERED`] peers. All addresses are on loopback, where none
//! of them limits anybody. The bare loop sends as many bytes back and looks at none: over UDP in batches.
//!
//! `tracker` is all of it; `tracker-udp`, `tracker-http`, `tracker-memory` and `tracker-latency` are its parts, and
//! `SWARMTORRENT_BENCH_PEERS` chooses programs by name.
//!
//! With `SWARMTORRENT_BENCH_STORE=redis://HOST:PORT` this daemon keeps its swarms there.
//!
//! `aquatic_udp` and `aquatic_http` are looked for in `$SWARMTORRENT_AQUATIC/bin` and on `PATH` (`cargo install` has them),
//! and have one worker of each kind. What a thread of the kernel does for them (`io_uring`) is theirs.

mod announcer;
mod bare;
mod cost;
mod http;
mod paced;
mod peer;
mod programs;
mod udp;

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use swarmtorrent::base::hash::{InfoHash, Sha1Hash};

use self::announcer::{ANSWER_LEN, FEW, MANY};
use self::bare::Bare;
use self::cost::{Cost, Told, table, title};
use self::programs::{How, Program, Which};
use self::udp::Kind;
use crate::Bench;
use crate::machine;

const SWARMS: usize = 10_000;
const PEERS: usize = 1_000_000;
/// Peers of each answer.
const ANSWERED: usize = 30;
/// From one swarm to the next that is announced to, so that none is near the one before.
const STRIDE: usize = 7919;
/// How long is asked in each round, before the first one, and at half speed.
const ASKED: Duration = Duration::from_secs(3);
const PACED: Duration = Duration::from_secs(20);
/// Peers are forgotten after about so long where answers are timed.
const SHORT_SECS: u32 = 10;
/// What can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Udp,
    Http,
    Memory,
    Latency,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Udp, Self::Http, Self::Memory, Self::Latency];

    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "tracker-udp",
            Self::Http => "tracker-http",
            Self::Memory => "tracker-memory",
            Self::Latency => "tracker-latency",
        }
    }
}

/// The rows that are wanted.
pub fn rows(bench: &Bench, parts: &[Part]) {
    if parts.is_empty() {
        return;
    }
    println!("\ntracker: {PEERS} peers of {SWARMS} swarms, {ANSWERED} in each answer");
    let chosen = std::env::var("SWARMTORRENT_BENCH_PEERS").ok();
    let is_chosen =
        |which: &Which| chosen.as_ref().is_none_or(|names| names.split(',').any(|name| name == which.name()));
    let (here, missing): (Vec<Which>, Vec<Which>) =
        Which::ALL.into_iter().filter(is_chosen).partition(|which| which.path().is_some());
    missing.iter().for_each(|which| println!("  left out: {} is not installed", which.name()));
    let hashes: Vec<InfoHash> = (0..SWARMS as u64).map(|number| Sha1Hash::of(&number.to_be_bytes())).collect();
    let start = |which: Which, how: How| Program::start(which, how, &bench.dir, &hashes);
    let has = |part: Part| parts.contains(&part);
    let is_udp = has(Part::Udp) || has(Part::Latency);
    let is_used =
        |which: &&Which| has(Part::Memory) || (which.has_udp() && is_udp) || (which.has_http() && has(Part::Http));
    let programs: Vec<Program> =
        here.iter().filter(is_used).filter_map(|which| start(*which, How::default())).collect();
    if is_udp {
        let speeds = udp_rows(bench, &programs, &hashes);
        if has(Part::Latency) {
            println!("  UDP, half as fast while peers are forgotten: ms of half the answers, of 99 %, of all");
            // What of it is the machine's, and the load's, and not the program's.
            let fastest = speeds.iter().map(|(_, speed)| *speed).fold(0.0, f64::max) / 2.0;
            for rate in [fastest, fastest / 2.0] {
                let bare = Bare::udp(ANSWER_LEN);
                tell_latency("bare loop", rate, &paced::paced(udp::To::Bare(bare.addr), &hashes, rate, PACED));
                bare.end();
            }
            for (which, speed) in speeds {
                latency(which, speed / 2.0, start, &hashes);
                if which == Which::Ours {
                    latency(which, speed / 4.0, start, &hashes);
                }
            }
        }
    }
    if has(Part::Http) {
        http_rows(bench, &programs, true, &hashes);
        let closing = How { closes: true, ..How::default() };
        let aquatic = here.contains(&Which::AquaticHttp).then(|| start(Which::AquaticHttp, closing)).flatten();
        let closing = programs.into_iter().filter(|program| program.which != Which::AquaticHttp).chain(aquatic);
        http_rows(bench, &closing.collect::<Vec<_>>(), false, &hashes);
    }
    if has(Part::Memory) && add_v6() {
        let how = How { is_v6: true, ..How::default() };
        here.into_iter().filter(|which| which.has_udp() && which.has_v6()).for_each(|which| drop(start(which, how)));
    }
}

/// Addresses to fill from; false where they may not be had.
fn add_v6() -> bool {
    if machine::address() == Ipv4Addr::LOCALHOST {
        return false;
    }
    (0..peer::SOURCES).all(|number| {
        let addr = format!("{}/128", announcer::source_ip(81, number, true));
        let add =
            Command::new("ip").args(["-6", "addr", "add", &addr, "dev", "lo", "nodad"]).stderr(Stdio::null()).status();
        add.is_ok_and(|status| status.success())
    })
}

/// Announces and connects over UDP; how many announces a second each program answers.
fn udp_rows(bench: &Bench, programs: &[Program], hashes: &[InfoHash]) -> Vec<(Which, f64)> {
    let programs: Vec<&Program> = programs.iter().filter(|program| program.which.has_udp()).collect();
    let mut speeds = Vec::new();
    for (kind, name, count) in
        [(Kind::Announce, "announces", FEW), (Kind::Announce, "announces", MANY), (Kind::Connect, "connects", FEW)]
    {
        title(&format!("UDP {name}, {} under way from {count} addresses", udp::WINDOW / count * count));
        let ask = |program: &Program| udp::run(udp::To::Tracker(program.addr), kind, count, hashes, ASKED);
        let bare = |len| {
            let bare = Bare::udp(len);
            let to = udp::To::Bare(bare.addr);
            Cost::of_bare(bare, || udp::run(to, kind, count, hashes, ASKED))
        };
        let costs = table(bench.rounds, &programs, ask, bare);
        if kind == Kind::Announce && count == FEW {
            speeds = programs.iter().zip(&costs).map(|(program, cost)| (program.which, cost.speed)).collect();
        }
    }
    speeds
}

fn http_rows(bench: &Bench, programs: &[Program], keep_alive: bool, hashes: &[InfoHash]) {
    let programs: Vec<&Program> = programs
        .iter()
        .filter(|program| program.which.has_http() && (!keep_alive || program.which.keeps_alive()))
        .collect();
    let how = if keep_alive { "connections that are kept" } else { "a connection each" };
    title(&format!("HTTP announces, {how}, {} under way", http::WINDOW));
    let ask = |program: &Program| http::run(http::To { addr: program.addr, keep_alive, is_read: true }, hashes, ASKED);
    let bare = |len| {
        let bare = Bare::http(len, keep_alive);
        let to = http::To { addr: bare.addr, keep_alive, is_read: false };
        Cost::of_bare(bare, || http::run(to, hashes, ASKED))
    };
    table(bench.rounds, &programs, ask, bare);
}

/// Of a program of its own, for its peers go.
fn latency(which: Which, rate: f64, start: impl Fn(Which, How) -> Option<Program>, hashes: &[InfoHash]) {
    let Some(program) = start(which, How { is_brief: true, ..How::default() }) else { return };
    tell_latency(which.name(), rate, &paced::paced(udp::To::Tracker(program.addr), hashes, rate, PACED));
}

fn tell_latency(name: &str, rate: f64, took: &paced::Paced) {
    let ms = [took.p50, took.p99, took.longest].map(|micros| micros / 1000.0);
    println!(
        "    {name:<16} {:>7.3} {:>7.3} {:>7.1}   at {rate:.0}/s, {:.2} % not answered",
        ms[0],
        ms[1],
        ms[2],
        100.0 * took.lost
    );
}
