//! Measures the addition of many torrents over one control connection to a daemon whose state is on an ext4 file
//! system, where every durable change costs a flush: once while the daemon is otherwise idle, and once while it
//! downloads to the same file system.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use swarmtorrent::torrent::create::Profile;

use crate::common::changes::Subject;
use crate::common::loop_disk::LoopDisk;
use crate::common::pipeline::Pipeline;
use crate::common::{free_port, wait};
use crate::machine::Cpu;
use crate::peers::{self, Job, Peer};
use crate::reader::{self, Pieces};
use crate::tracker::Tracker;
use crate::{Bench, PATIENCE};

const TORRENTS: usize = 10_000;
const PIECE_LEN: u64 = 1 << 20;

/// Prints the cost of the additions for an idle daemon and for one that downloads. The file system is in the temporary
/// directory, on a disk.
pub fn row(bench: &Bench) {
    let disk = tempfile::Builder::new().prefix("swarmtorrent-bench").tempdir().unwrap();
    println!("\n{TORRENTS} torrents added over one control connection, state on ext4 in {}", disk.path().display());
    let mut requests = String::new();
    let files = bench.dir.join("small");
    std::fs::create_dir_all(&files).unwrap();
    for number in 0..TORRENTS {
        let subject = Subject::new(Profile::V1, &format!("torrent{number}"), &[100], 16_384);
        let path = files.join(format!("{number}.torrent"));
        std::fs::write(&path, subject.metainfo.unwrap()).unwrap();
        requests.push_str(&format!("add {} paused=yes\n", path.display()));
    }
    for is_downloading in [false, true] {
        let mib = 4096 + if is_downloading { bench.len >> 20 } else { 0 };
        let image = disk.path().join("image");
        let Some(ext4) = LoopDisk::make("ext4", &image, mib, &disk.path().join("ext4")) else { return };
        let dir = disk.path().join("ext4/home");
        std::fs::create_dir(&dir).unwrap();
        let tracker = Tracker::start(None);
        let torrent = [bench.torrent(PIECE_LEN, &tracker)];
        let seeder = is_downloading.then(|| seed(bench, &torrent));
        let job = Job { torrents: &[], save: &dir.join("save"), home: &dir, port: free_port(), connections: 10 };
        std::fs::create_dir(job.save).unwrap();
        let client = Peer::Ours.start(&job);
        if let Some((_, port)) = &seeder {
            peers::add(&dir, &torrent[0], "");
            peers::ask(&dir, &format!("connect all 127.0.0.1:{port}"));
            wait("the download has begun", 30, || downloaded(&dir) > 0);
        }
        let (cpu, flushes, got) = (Cpu::of(client.pid()), ext4.flushes(), downloaded(&dir));
        let (mut pipeline, start) = (Pipeline::connect(&dir), Instant::now());
        pipeline.send_last(requests.clone());
        let (mut last, mut longest) = (start, Duration::ZERO);
        for number in 0..TORRENTS {
            let reply = pipeline.reply(start + 10 * PATIENCE).unwrap_or_else(|| panic!("no reply to request {number}"));
            assert!(reply[0].starts_with("OK "), "{reply:?}");
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        let (took, spent, flushes) = (start.elapsed(), cpu.spent(), ext4.flushes() - flushes);
        let got = downloaded(&dir) - got;
        let stats = peers::ask(&dir, "stats");
        let figure = |name: &str| {
            let of = stats.iter().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            of.expect("the daemon has this figure") / 1000.0
        };
        drop(client); // by a kill
        let client = Peer::Ours.start(&job);
        let kept = peers::ask(&dir, "list").iter().filter(|line| line.contains("torrent")).count();
        println!(
            "  {}: {:.2} s, {spent:.2} CPU seconds, {flushes} flushes, loop iterations p99 {:.1} ms and at most \
             {:.1} ms, at most {:.0} ms between replies; {kept} are kept after a kill",
            if is_downloading { "downloading" } else { "idle" },
            took.as_secs_f64(),
            figure("loop_round_p99_us"),
            figure("loop_round_max_us"),
            longest.as_secs_f64() * 1000.0,
        );
        if is_downloading {
            let mib = got as f64 / f64::from(1 << 20);
            println!(
                "  downloaded meanwhile: {mib:.0} of {} MiB, {:.0} MiB/s",
                bench.len >> 20,
                mib / took.as_secs_f64()
            );
        }
        drop(client);
        ext4.unmount();
    }
}

/// Starts another daemon that seeds the content. Returns the daemon and its port.
fn seed(bench: &Bench, torrents: &[std::path::PathBuf; 1]) -> (peers::Client, u16) {
    let (home, port) = (bench.dir.join("seeder"), free_port());
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).unwrap();
    let client = Peer::Ours.start(&Job { torrents, save: &bench.dir, home: &home, port, connections: 10 });
    let pieces = Pieces::of(&torrents[0], PIECE_LEN, bench.len, Peer::Ours.pipeline());
    reader::wait_for_seed(SocketAddr::from(([127, 0, 0, 1], port)), &pieces, PATIENCE).expect("seeder is ready");
    (client, port)
}

/// Returns the bytes of content that the daemon in `home` has ever received.
fn downloaded(home: &Path) -> u64 {
    let reply = peers::reply(home, "json status");
    let status: serde_json::Value = serde_json::from_str(&reply[0]).expect("a line of JSON");
    status["downloaded"].as_u64().expect("a number")
}
