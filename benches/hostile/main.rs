//! Hostile peers against the daemon: how long one round of its loop takes, and what CPU and memory each attack costs.
//!
//! `cargo bench --bench hostile -- [MESSAGE]… [GEOMETRY]… [PEERS]…` runs the cells that match: any of the names and numbers that
//! the table prints, all if none of their kind is given. Each cell starts a daemon that has one torrent (or several seeds that
//! are hibernated, or a magnet link), lets 1, 40 or 200 scripted peers send one kind of message, and prints:
//!
//! - the longest round of the loop while the attack ran (`loop_round_max_us`; where an earlier round was longer, the power of two
//!   below which all rounds of the attack were),
//! - CPU seconds of the daemon, and the growth of its peak memory over the idle daemon,
//! - what the strangers sent, their messages that the daemon read, and how often they connected.
//!
//! A cell that misses a goal (20 ms a round, the default `memory` of `[limits]`) is marked with `!`. The rounds include what else
//! runs on the machine: on a busy one, repeat a suspicious cell. A daemon that does not answer within ten seconds of the end of
//! the attack is killed, and shown as `> 10 s`.
//!
//! `SWARMTORRENT_BENCH_DIR` sets where the state lies (`/dev/shm`), `SWARMTORRENT_BENCH_SECS` how long an attack lasts (1.5). The
//! content is sparse or missing: nothing is downloaded. The bench runs in a network namespace of its own, where it may make one.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench is outside the daemon: it waits, looks at the clock, and ends at the first trouble"
)]

mod attack;
mod daemon;
mod geometry;
mod strangers;

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../whole/machine.rs"]
#[allow(dead_code, reason = "this bench needs less of the machine than `whole`")]
mod machine;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use attack::{Attack, Role};
use common::noise;
use daemon::{Base, Daemon};
use geometry::Geometry;
use machine::Cpu;

/// How many peers attack at once.
const PEERS: [usize; 3] = [1, 40, 200];
/// Longest round on an otherwise idle machine.
const ROUND_GOAL: Duration = Duration::from_millis(20);
/// Growth of the peak memory: the default of `memory` in `[limits]`.
const MEMORY_GOAL_KIB: u64 = 256 << 10;
/// When a daemon that does not answer is killed, counted from the end of the attack.
const HELD: Duration = Duration::from_secs(10);
/// How long a daemon may take until it rests after the attack.
const REST: Duration = Duration::from_secs(2);

fn main() {
    machine::enter_namespace();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_name = |arg: &String| {
        Attack::ALL.iter().any(|attack| attack.name() == arg)
            || Geometry::ALL.iter().any(|geometry| geometry.name() == arg)
            || PEERS.iter().any(|peers| peers.to_string() == *arg)
    };
    if let Some(unknown) = wanted.iter().find(|arg| !is_name(arg)) {
        let names = |names: Vec<&str>| names.join(" ");
        println!("no such message, geometry or number of peers: {unknown}");
        println!("messages: {}", names(Attack::ALL.iter().map(|attack| attack.name()).collect()));
        println!("geometries: {}", names(Geometry::ALL.iter().map(|geometry| geometry.name()).collect()));
        println!("peers: {PEERS:?}");
        std::process::exit(2);
    }
    // A name of one kind does not restrict the other kinds.
    let chosen = |of_kind: &dyn Fn(&str) -> bool, name: &str| {
        !wanted.iter().any(|arg| of_kind(arg)) || wanted.iter().any(|arg| arg == name)
    };
    let is_attack = |arg: &str| Attack::ALL.iter().any(|attack| attack.name() == arg);
    let is_geometry = |arg: &str| Geometry::ALL.iter().any(|geometry| geometry.name() == arg);
    let is_peers = |arg: &str| PEERS.iter().any(|peers| peers.to_string() == arg);
    let secs = std::env::var("SWARMTORRENT_BENCH_SECS").map_or(1.5, |text| text.parse().expect("seconds"));
    let dir = std::env::var_os("SWARMTORRENT_BENCH_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let temp =
        tempfile::Builder::new().prefix("swarmtorrent-hostile").tempdir_in(dir).expect("a directory to bench in");
    println!(
        "{}, attacks of {secs} s; `!`: more than {ROUND_GOAL:?} a round, or {} MiB",
        machine::cpu_name(),
        MEMORY_GOAL_KIB >> 10
    );
    let mut missed = 0;
    for geometry in Geometry::ALL.into_iter().filter(|geometry| chosen(&is_geometry, geometry.name())) {
        println!("\n{}: {}", geometry.name(), geometry.about());
        println!(
            "  {:<20} {:>5} {:>12} {:>8} {:>10} {:>10} {:>10} {:>9}",
            "message", "peers", "round ms", "CPU s", "memory MiB", "sent MiB", "messages", "connects"
        );
        let mut bases: BTreeMap<Role, Base> = BTreeMap::new();
        for attack in Attack::ALL.into_iter().filter(|attack| chosen(&is_attack, attack.name())) {
            if !attack.fits(geometry) {
                continue;
            }
            for peers in PEERS.into_iter().filter(|peers| chosen(&is_peers, &peers.to_string())) {
                let role = attack.role();
                let base = bases.entry(role).or_insert_with(|| Base::make(temp.path(), geometry, role));
                let cell = cell(base, attack, peers, Duration::from_secs_f64(secs));
                missed += usize::from(cell.print(attack, peers));
            }
        }
        // The state of a geometry is tens of megabytes of memory.
        bases.into_values().for_each(Base::remove);
    }
    println!("\n{missed} cells miss a goal");
}

/// What a cell shows.
struct Cell {
    /// None if the daemon was killed.
    seen: Option<Seen>,
    sent: u64,
    connects: u64,
    cpu: f64,
    memory_kib: u64,
}

struct Seen {
    round: Duration,
    /// It is a bound, not the figure itself.
    is_bound: bool,
    messages: u64,
}

fn cell(base: &Base, attack: Attack, peers: usize, lasts: Duration) -> Cell {
    let daemon = Daemon::start(base);
    let before = daemon.stats(Duration::from_secs(60)).expect("an idle daemon answers");
    let idle_kib = daemon.forget_peak();
    let (cpu, start) = (Cpu::of(daemon.pid()), Instant::now());
    let result = strangers::attack(daemon.listen(), base, attack, peers, lasts);
    // What it has not read yet is part of the attack: it has to come to rest.
    let (mut after, mut spent) = (None, cpu.spent());
    while let Some(left) = (lasts + HELD).checked_sub(start.elapsed()) {
        let stats = daemon.stats(left);
        let answered = stats.is_some();
        after = stats;
        std::thread::sleep(Duration::from_millis(50));
        let now = cpu.spent();
        if !answered || now - spent < 0.01 || start.elapsed() > lasts + REST {
            break;
        }
        spent = now;
    }
    let seen = after.map(|after| {
        let (round, is_bound) = after.longest_since(&before);
        Seen { round, is_bound, messages: after.messages - before.messages }
    });
    let memory_kib = daemon.peak_kib().saturating_sub(idle_kib);
    Cell { seen, sent: result.sent, connects: result.connects, cpu: cpu.spent(), memory_kib }
}

impl Cell {
    /// Prints the row. True if the cell misses a goal.
    fn print(&self, attack: Attack, peers: usize) -> bool {
        let mark = |is_missed: bool| if is_missed { "!" } else { " " };
        let slow = self.seen.as_ref().is_none_or(|seen| seen.round > ROUND_GOAL && !seen.is_bound);
        let large = self.memory_kib > MEMORY_GOAL_KIB;
        let round = match &self.seen {
            None => "> 10 s".to_owned(),
            Some(seen) => {
                format!("{}{:.1}", if seen.is_bound { "< " } else { "" }, seen.round.as_secs_f64() * 1000.0)
            }
        };
        println!(
            "  {:<20} {peers:>5} {round:>11}{} {:>8.2} {:>9.1}{} {:>10.1} {:>10} {:>9}",
            attack.name(),
            mark(slow),
            self.cpu,
            self.memory_kib as f64 / 1024.0,
            mark(large),
            self.sent as f64 / f64::from(1 << 20),
            self.seen.as_ref().map_or_else(|| "-".to_owned(), |seen| seen.messages.to_string()),
            self.connects,
        );
        slow || large
    }
}
