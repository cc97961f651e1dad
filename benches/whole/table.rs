//! Rows of the table: medians, next to the bare loop's, libtorrent's and the best peer's of the same run.

use std::time::{Duration, Instant};

use crate::machine::GIB;
use crate::peers::Peer;

/// What takes longer is done once only.
const SLOW: Duration = Duration::from_secs(20);

/// One measurement: CPU seconds a GiB, and MiB a second.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub cpu: f64,
    pub speed: f64,
    /// What the slowest of several connections had when half of everything was sent, as a share of the mean.
    pub slowest: Option<f64>,
}

impl Cost {
    pub fn new(cpu: f64, took: Duration, len: u64) -> Self {
        let gib = len as f64 / GIB;
        Self { cpu: cpu / gib, speed: 1024.0 * gib / took.as_secs_f64(), slowest: None }
    }
}

/// Takes each figure in turns, so that a noisy minute spoils none alone, and prints their medians and ratios.
pub fn row(title: &str, rounds: usize, peers: &[Peer], bare: impl Fn() -> Cost, of: impl Fn(Peer) -> Option<Cost>) {
    println!("\n{title}");
    let mut bares = Vec::new();
    let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); peers.len()];
    let mut too_slow = Vec::new();
    for _ in 0..rounds {
        bares.push(bare());
        for (peer, costs) in peers.iter().zip(&mut costs) {
            if too_slow.contains(peer) {
                continue;
            }
            let start = Instant::now();
            costs.extend(of(*peer));
            if start.elapsed() > SLOW {
                too_slow.push(*peer);
            }
        }
    }
    let least = median(&bares).expect("there was a round");
    let costs: Vec<Option<Cost>> = costs.iter().map(|costs| median(costs)).collect();
    let others =
        || peers.iter().zip(&costs).filter(|(peer, _)| !peer.is_ours()).filter_map(|(p, c)| c.map(|c| (p, c.cpu)));
    let libtorrent = others().find(|(peer, _)| **peer == Peer::Libtorrent).map(|(_, cpu)| cpu);
    let best = others().map(|(_, cpu)| cpu).min_by(f64::total_cmp);
    println!("  {:<18} {:>7.3} {:>8}", "bare loop", least.cpu, format!("({:.0})", least.speed));
    for (peer, cost) in peers.iter().zip(&costs) {
        let Some(cost) = cost else {
            println!("  {:<18}  did not do it", peer.name());
            continue;
        };
        let speed = format!("({:.0})", cost.speed);
        print!("  {:<18} {:>7.3} {speed:>8}   {:>5.2} x bare", peer.name(), cost.cpu, cost.cpu / least.cpu);
        if let (true, Some(best)) = (peer.is_ours(), best) {
            print!(", {:.2} x the best peer", cost.cpu / best);
            libtorrent.inspect(|cpu| print!(", {:.2} x libtorrent", cost.cpu / cpu));
        }
        cost.slowest.inspect(|share| print!(", the slowest at {share:.2} x the mean"));
        println!();
    }
}

fn median(costs: &[Cost]) -> Option<Cost> {
    let mut costs = costs.to_vec();
    costs.sort_by(|a, b| a.cpu.total_cmp(&b.cpu));
    costs.get(costs.len() / 2).copied()
}
