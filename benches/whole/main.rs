//! Whole programs side by side: what a GiB costs this daemon, other peers, and the least loop that could do the job.
//!
//! `cargo bench --bench whole -- [seeding] [downloading] [checking] [creating] [connections] [torrents] [turns] [start] [adds] [dht] [tracker]`,
//! all if none is named. `SWARMTORRENT_BENCH_MIB` sets the
//! content's size (1024), `SWARMTORRENT_BENCH_DIR` where it lies (`/dev/shm`), `SWARMTORRENT_BENCH_ROUNDS` how often each figure
//! is taken (3; the median is shown), `SWARMTORRENT_BENCH_TORRENTS` how many torrents idle (1000), `SWARMTORRENT_BENCH_PEERS` a
//! comma-separated choice of peers. It runs in a network and a mount namespace
//! of its own, with `reno`, for what a host's congestion control does to loopback is not what is measured.
//!
//! Figures are CPU seconds a GiB, user and system, of all threads of the program; compare rows of one run, not runs.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench is outside the daemon: it waits, looks at the clock, and ends at the first trouble"
)]

mod adds;
mod bare;
mod batch;
mod dht;
mod idle;
mod machine;
mod peers;
mod reader;
mod source;
mod table;
mod tracker;
mod tracker_server;
mod turns;

#[path = "../../tests/common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{free_port, noise, tool, wait};
use machine::Cpu;
use peers::{Job, PEERS, Peer};
use table::Cost;
use tracker::Tracker;
use tracker_server::Part;

/// Piece lengths and connections of the seeding rows.
const SEEDING: [(u64, usize); 6] =
    [(1 << 20, 1), (1 << 20, 20), (1 << 20, 100), (256 << 10, 20), (4 << 20, 20), (1 << 20, 1000)];
const IDLE_CONNECTIONS: [usize; 2] = [500, 10_000];
const IDLE_TORRENTS: usize = 1000;
/// How often it is looked whether a download is complete.
const LOOK: Duration = Duration::from_millis(500);
/// Nothing takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the rows are taken on.
struct Bench {
    dir: PathBuf,
    content: PathBuf,
    len: u64,
    rounds: usize,
    peers: Vec<Peer>,
}

fn main() {
    machine::enter_namespace();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
    };
    let base = std::env::var_os("SWARMTORRENT_BENCH_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let temp = tempfile::Builder::new().prefix("swarmtorrent-bench").tempdir_in(base).expect("a directory to bench in");
    let chosen = std::env::var("SWARMTORRENT_BENCH_PEERS").ok();
    let is_chosen = |peer: &Peer| chosen.as_ref().is_none_or(|names| names.split(',').any(|name| name == peer.name()));
    let (peers, missing): (Vec<Peer>, Vec<Peer>) = PEERS.into_iter().filter(is_chosen).partition(|peer| peer.is_here());
    let bench = Bench {
        content: temp.path().join("content.bin"),
        dir: temp.path().to_owned(),
        len: number("SWARMTORRENT_BENCH_MIB", 1024) << 20,
        rounds: usize::try_from(number("SWARMTORRENT_BENCH_ROUNDS", 3)).expect("a few rounds"),
        peers,
    };
    machine::fill(&bench.content, bench.len);
    println!(
        "{} MiB in {}, {}, congestion control {}; CPU s/GiB (MiB/s), medians of {} rounds",
        bench.len >> 20,
        bench.dir.display(),
        machine::cpu_name(),
        machine::congestion_control(),
        bench.rounds
    );
    for peer in missing {
        println!("left out: {} is not installed", peer.name());
    }
    let is_wanted = |row: &str| wanted.is_empty() || wanted.iter().any(|name| name == row);
    if is_wanted("seeding") {
        for (piece_len, connections) in SEEDING {
            bench.seeding(piece_len, connections);
        }
    }
    if is_wanted("downloading") {
        bench.downloading();
    }
    let hash_sha1 = || bare::checking::<sha1::Sha1>(&bench.content, 1 << 20);
    let hash_sha256 = || bare::checking::<sha2::Sha256>(&bench.content, 1 << 20);
    if is_wanted("checking") {
        bench.checking("v1", "SHA-1", hash_sha1);
        bench.checking("pure", "SHA-256", hash_sha256);
    }
    if is_wanted("creating") {
        bench.creating("v1", "SHA-1", hash_sha1);
        bench.creating("pure", "SHA-256", hash_sha256);
    }
    if is_wanted("connections") {
        IDLE_CONNECTIONS.into_iter().for_each(|count| idle::connections(&bench, count));
    }
    if is_wanted("torrents") {
        let count = number("SWARMTORRENT_BENCH_TORRENTS", IDLE_TORRENTS as u64);
        idle::torrents(&bench, usize::try_from(count).expect("as many as fit a directory"));
    }
    if is_wanted("turns") {
        turns::row(&bench);
    }
    if is_wanted("start") {
        idle::start(&bench);
    }
    if is_wanted("adds") {
        adds::row(&bench);
    }
    if is_wanted("dht") {
        dht::row(&bench);
    }
    let parts: Vec<Part> =
        Part::ALL.into_iter().filter(|part| is_wanted("tracker") || is_wanted(part.name())).collect();
    tracker_server::rows(&bench, &parts);
}

impl Bench {
    fn row(&self, title: &str, bare: impl Fn() -> Cost, of: impl Fn(Peer) -> Option<Cost>) {
        table::row(title, self.rounds, &self.peers, bare, of);
    }

    /// A torrent of the content that announces to `tracker`.
    fn torrent(&self, piece_len: u64, tracker: &Tracker) -> PathBuf {
        self.create(&self.content, "v1", piece_len, tracker)
    }

    /// A torrent of a file.
    fn create(&self, content: &Path, profile: &str, piece_len: u64, tracker: &Tracker) -> PathBuf {
        let kind = if profile == "v1" { "torrent" } else { "st" };
        let name = content.file_stem().unwrap().to_str().unwrap();
        let path = self.dir.join(format!("{name}-{piece_len}-{}.{kind}", tracker.port()));
        let (content, out) = (content.to_str().unwrap(), path.to_str().unwrap());
        let (piece_len, url) = (piece_len.to_string(), tracker.url());
        tool(&[
            "create",
            content,
            "-o",
            out,
            "--profile",
            profile,
            "--private",
            "--piece-length",
            &piece_len,
            "--tracker",
            &url,
        ]);
        path
    }

    fn home(&self, peer: Peer) -> PathBuf {
        let home = self.dir.join(peer.name());
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        home
    }

    fn seeding(&self, piece_len: u64, connections: usize) {
        let tracker = Tracker::start(None);
        let torrents = [self.torrent(piece_len, &tracker)];
        let title = format!("seeding to {connections} light readers, pieces of {} KiB", piece_len >> 10);
        let bare = || bare::seeding(&self.content, connections);
        self.row(&title, bare, |peer| {
            let (home, port) = (self.home(peer), free_port());
            let client = peer.start(&Job { torrents: &torrents, save: &self.dir, home: &home, port, connections });
            let to = SocketAddr::from(([127, 0, 0, 1], port));
            let pieces = reader::Pieces::of(&torrents[0], piece_len, self.len, peer.pipeline());
            reader::wait_for_seed(to, &pieces, PATIENCE)?;
            let (cpu, start) = (Cpu::of(client.pid()), Instant::now());
            let got = reader::read_all(to, &pieces, connections, PATIENCE)?;
            let cost = Cost::new(cpu.spent(), start.elapsed(), got.bytes);
            Some(Cost { slowest: (connections > 1).then_some(got.slowest), ..cost })
        });
    }

    fn downloading(&self) {
        let source = source::Source::start(&self.content, 1 << 20);
        let tracker = Tracker::start(Some(source.port()));
        let torrents = [self.torrent(1 << 20, &tracker)];
        source.set_torrent(&torrents[0]);
        let bare = || bare::downloading(&self.content, &self.dir.join("bare.bin"));
        // A virtual machine gives memory that it never gave before at several times the cost.
        machine::fill(&self.dir.join("warm.bin"), 3 * self.len);
        std::fs::remove_file(self.dir.join("warm.bin")).unwrap();
        self.row("downloading from a light source, pieces of 1024 KiB", bare, |peer| {
            let (home, port) = (self.home(peer), free_port());
            let save = home.join("save");
            std::fs::create_dir_all(&save).unwrap();
            let job = Job { torrents: &torrents, save: &save, home: &home, port, connections: 1 };
            tracker.forget();
            let client = peer.start(&job);
            let Some(began) = source.wait_for_request(PATIENCE) else {
                println!("  {} asked for nothing in {PATIENCE:?}", peer.name());
                return None;
            };
            let cpu = Cpu::of(client.pid());
            let (to, pieces) = (
                SocketAddr::from(([127, 0, 0, 1], port)),
                reader::Pieces::of(&torrents[0], 1 << 20, self.len, peer.pipeline()),
            );
            let ended = loop {
                // Some announce that they are complete late or never, but say so to whoever connects.
                if let Some(at) = tracker.wait_for(LOOK, |said| said.is_completed()) {
                    break at;
                }
                if reader::says_all(to, &pieces) {
                    break Instant::now();
                }
                if began.elapsed() > PATIENCE {
                    println!("  {} is not complete after {PATIENCE:?}", peer.name());
                    return None;
                }
            };
            let cost = Cost::new(cpu.spent(), ended - began, self.len);
            assert!(is_same(&self.content, &save.join("content.bin")), "{}: the content is wrong", peer.name());
            Some(cost)
        });
    }

    fn checking(&self, profile: &str, title: &str, bare: impl Fn() -> Cost) {
        let tracker = Tracker::start(None);
        let torrents = [self.create(&self.content, profile, 1 << 20, &tracker)];
        self.row(&format!("checking, {title}, pieces of 1024 KiB"), bare, |peer| {
            if profile != "v1" && !peer.is_ours() {
                return None; // nobody else reads `.st`
            }
            let (home, port) = (self.home(peer), free_port());
            let job = Job { torrents: &torrents, save: &self.dir, home: &home, port, connections: 1 };
            tracker.forget();
            let start = Instant::now();
            let client = peer.start(&job);
            let cpu = Cpu::of(client.pid());
            let ended = tracker.wait_for(PATIENCE, |said| said.left == Some(0))?;
            Some(Cost::new(cpu.spent(), ended - start, self.len))
        });
    }

    fn creating(&self, profile: &str, title: &str, bare: impl Fn() -> Cost) {
        let tracker = Tracker::start(None);
        table::row(&format!("creating, {title}, pieces of 1024 KiB"), self.rounds, &[Peer::Ours], bare, |_| {
            let (cpu, start) = (machine::cpu_of_children(), Instant::now());
            let made = self.create(&self.content, profile, 1 << 20, &tracker);
            let cost = Cost::new(machine::cpu_of_children() - cpu, start.elapsed(), self.len);
            std::fs::remove_file(made).unwrap();
            Some(cost)
        });
    }
}

/// Whether two files hold the same bytes, once the program has written all that it has.
fn is_same(a: &Path, b: &Path) -> bool {
    let same = || std::fs::read(b).is_ok_and(|bytes| bytes == std::fs::read(a).unwrap());
    wait("the content is written", 10, same);
    true
}
