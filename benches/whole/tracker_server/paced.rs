//! Announces over UDP at a given pace, and how long each answer takes.
#![allow(clippy::cast_possible_truncation, reason = "a rate and a share of a length fit")]

use std::time::{Duration, Instant};

use swarmtorrent::base::hash::InfoHash;

use super::announcer::{FEW, port_of, sources};
use super::udp::{Kind, To};
use super::{STRIDE, peer};
use crate::batch::{BATCH, Batch};

/// How long answers took, in microseconds.
#[derive(Debug)]
pub struct Paced {
    pub p50: f64,
    pub p99: f64,
    pub longest: f64,
    pub lost: f64,
}

/// Announces `rate` times a second for a while, whatever is answered. A bare loop's answers are the requests.
pub fn paced(to: To, hashes: &[InfoHash], rate: f64, asked: Duration) -> Paced {
    let (To::Tracker(addr) | To::Bare(addr)) = to;
    let is_bare = matches!(to, To::Bare(_));
    let (mut sources, mut batch) = (sources(addr, !is_bare, FEW), Batch::new());
    let (mut sent_at, mut took): (Vec<Instant>, Vec<f64>) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for turn in 0.. {
        let now = start.elapsed();
        if now > asked + Duration::from_millis(500) {
            break;
        }
        let due = (now.min(asked).as_secs_f64() * rate) as usize;
        let (at, room) = (turn % FEW, due.saturating_sub(sent_at.len()).min(BATCH));
        let source = &mut sources[at];
        if !is_bare {
            source.renew();
        }
        for place in 0..room {
            let number = sent_at.len();
            let hash = &hashes[number.wrapping_mul(STRIDE) % hashes.len()];
            source.set(&mut batch, place, Kind::Announce, peer::low(number), hash, port_of(at));
            sent_at.push(Instant::now());
        }
        if room > 0 {
            batch.send(&source.socket, room);
        }
        for source in &mut sources {
            let came = batch.receive(&source.socket);
            let now = Instant::now();
            for packet in (0..came).map(|number| batch.get(number)) {
                let transaction = packet.get(if is_bare { 12..16 } else { 4..8 });
                if let Some(transaction) = transaction
                    && (is_bare || source.is_announced(packet, 0, false))
                {
                    let number = u32::from_be_bytes(transaction.try_into().unwrap());
                    took.push((now - sent_at[number as usize]).as_secs_f64() * 1e6);
                }
            }
        }
    }
    took.sort_by(f64::total_cmp);
    let part = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let lost = 1.0 - took.len() as f64 / sent_at.len() as f64;
    Paced { p50: part(0.5), p99: part(0.99), longest: part(1.0), lost }
}
