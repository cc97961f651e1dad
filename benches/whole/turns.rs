//! How long the loop's rounds are while everything happens at once: readers, a check, and a file that is not cached.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::free_port;
use crate::peers::{self, Job, Peer};
use crate::reader::{self, Pieces};
use crate::tracker::Tracker;
use crate::{Bench, PATIENCE, machine};

const READERS: usize = 20;
const PIECE_LEN: u64 = 1 << 20;
/// Sent from the cold file, and checked, bytes.
const COLD_LEN: u64 = 256 << 20;

/// Prints the daemon's own histogram. What is cold and what is checked lie in the temporary directory, on a disk.
pub fn row(bench: &Bench) {
    let disk = tempfile::Builder::new().prefix("swarmtorrent-bench").tempdir().unwrap();
    println!("\nrounds of the loop: {READERS} readers, one of a cold file, and a check, in {}", disk.path().display());
    let tracker = Tracker::start(None);
    let [cold, checked] = ["cold.bin", "checked.bin"].map(|name| disk.path().join(name));
    for path in [&cold, &checked] {
        machine::fill(path, COLD_LEN);
    }
    let hot = bench.torrent(PIECE_LEN, &tracker);
    let [cold_torrent, checked_torrent] = [&cold, &checked].map(|path| bench.create(path, "v1", PIECE_LEN, &tracker));
    let (home, port) = (bench.home(Peer::Ours), free_port());
    let torrents = [hot.clone()];
    let _client = Peer::Ours.start(&Job { torrents: &torrents, save: &bench.dir, home: &home, port, connections: 40 });
    for torrent in [&cold_torrent, &checked_torrent] {
        peers::add(&home, torrent, &format!("dir={}", disk.path().display()));
    }
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let of = |torrent, len| Pieces::of(torrent, PIECE_LEN, len, Peer::Ours.pipeline());
    let (hot, slow) = (of(&hot, bench.len), of(&cold_torrent, COLD_LEN));
    for pieces in [&hot, &slow, &of(&checked_torrent, COLD_LEN)] {
        reader::wait_for_seed(to, pieces, PATIENCE).expect("it seeds");
    }
    for path in [&cold, &checked] {
        machine::forget(path);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| reader::read_all(to, &hot, READERS, PATIENCE));
        scope.spawn(|| reader::read_all(to, &slow, 1, PATIENCE));
        std::thread::sleep(Duration::from_millis(20));
        let hash: String = reader::info_hash(&checked_torrent).iter().map(|byte| format!("{byte:02x}")).collect();
        peers::ask(&home, &format!("verify {hash}"));
    });
    for line in peers::ask(&home, "stats").iter().filter(|line| line.contains("loop_round")) {
        println!("  {line}");
    }
}
