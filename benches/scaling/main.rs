//! What a MiB, a tick and an announce cost as one thing grows: torrents, peers, pieces, files.
//!
//! `cargo bench --bench scaling`. One thread drives the engine with scripted peers and a disk that keeps nothing, so that
//! neither kernel nor memory hides what grows; files are written and read by the real storage besides. Figures are CPU
//! microseconds. The curves are drawn into `SWARMTORRENT_BENCH_SVG` (`swarmtorrent-scaling.svg` in the temporary directory).
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a bench is outside the daemon: it ends at the first trouble"
)]

mod node;
mod picture;
mod sizes;

use std::path::PathBuf;

use rustix::time::{ClockId, clock_gettime};

/// What is measured, why it grows where it must, and CPU microseconds.
pub type Cost = (&'static str, &'static str, f64);

/// One cost against one size.
#[derive(Debug)]
pub struct Curve {
    pub title: &'static str,
    pub why: &'static str,
    /// Size, microseconds.
    pub points: Vec<(usize, f64)>,
}

/// All that is said of one thing that grows.
#[derive(Debug)]
pub struct Dimension {
    pub name: &'static str,
    pub curves: Vec<Curve>,
}

fn main() {
    let started = cpu_secs();
    let dimensions = [
        measured("torrents", [1, 10, 100, 1_000, 10_000], sizes::torrents),
        measured("peers", [1, 10, 100, 1_000], sizes::peers),
        measured("pieces", [100, 1_000, 10_000, 100_000, 1_000_000], sizes::pieces),
        measured("files", [1, 10, 100, 1_000, 10_000, 100_000], sizes::files),
    ];
    let path = std::env::var_os("SWARMTORRENT_BENCH_SVG")
        .map_or_else(|| std::env::temp_dir().join("swarmtorrent-scaling.svg"), PathBuf::from);
    std::fs::write(&path, picture::svg(&dimensions)).unwrap();
    println!("\ndrawn in {}; {:.0} s of CPU", path.display(), cpu_secs() - started);
}

/// Measures every size, and prints what comes of it as a table.
fn measured<const N: usize>(name: &'static str, sizes: [usize; N], measure: fn(usize) -> Vec<Cost>) -> Dimension {
    measure(sizes[0]); // the first run of anything pays for cold caches
    let rows: Vec<_> = sizes.iter().map(|&size| measure(size)).collect();
    println!("\n{:<44}{}", format!("{name}: CPU microseconds"), sizes.map(|size| format!("{size:>11}")).concat());
    let curves = rows[0].iter().enumerate().map(|(at, &(title, why, _))| {
        let points: Vec<(usize, f64)> = sizes.iter().zip(&rows).map(|(&size, row)| (size, row[at].2)).collect();
        let figures: String = points.iter().map(|(_, micros)| format!("{micros:>11.2}")).collect();
        println!("  {title:<42}{figures}{}{why}", if why.is_empty() { "" } else { "  " });
        Curve { title, why, points }
    });
    Dimension { name, curves: curves.collect() }
}

/// CPU seconds of this thread.
fn cpu_secs() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
