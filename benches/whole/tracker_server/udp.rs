//! Announces over UDP as fast as they are answered, and those that fill the swarms.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use swarmtorrent::base::hash::InfoHash;
use swarmtorrent::codec::udp_tracker::AnnounceEvent;

use super::announcer::{Source, is_readable, port_of, source_ip, sources};
use super::{ANSWERED, STRIDE, Told, peer};
use crate::PATIENCE;
use crate::batch::{BATCH, Batch};

/// Requests under way of all; fewer than the kernel keeps for a socket with its default buffer.
pub const WINDOW: usize = 256;
/// Of so many answers one is read as a whole; of the others, the length and the action are looked at.
const READ_EVERY: u64 = 64;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Connect,
    Announce,
}

/// Who answers, and whether its answers are read.
#[derive(Debug, Clone, Copy)]
pub enum To {
    Tracker(SocketAddr),
    Bare(SocketAddr),
}

/// Asks from so many addresses for a while with all of [`WINDOW`] under way.
pub fn run(to: To, kind: Kind, count: usize, hashes: &[InfoHash], asked: Duration) -> Told {
    let (To::Tracker(addr) | To::Bare(addr)) = to;
    let is_read = matches!(to, To::Tracker(_));
    let mut sources = sources(addr, is_read, count);
    let (mut batch, mut told, mut number) = (Batch::new(), Told::default(), 0_usize);
    let start = Instant::now();
    while start.elapsed() < asked {
        let mut is_idle = true;
        for (at, source) in sources.iter_mut().enumerate() {
            let came = batch.receive(&source.socket);
            for packet in (0..came).map(|number| batch.get(number)) {
                let is_answer = !is_read
                    || source.is_announced(packet, ANSWERED, told.answers.is_multiple_of(READ_EVERY))
                        == (kind == Kind::Announce);
                if is_answer {
                    (told.answers, told.answer_len) = (told.answers + 1, packet.len());
                    source.under_way = source.under_way.saturating_sub(1);
                }
            }
            if is_read && kind == Kind::Announce {
                source.renew();
            }
            let room = (WINDOW / count - source.under_way).min(BATCH);
            for place in 0..room {
                let hash = &hashes[number.wrapping_mul(STRIDE) % hashes.len()];
                source.set(&mut batch, place, kind, peer::low(number), hash, port_of(at));
                number += 1;
            }
            source.under_way += if room > 0 { batch.send(&source.socket, room) } else { 0 };
            is_idle &= came == 0 && room == 0;
        }
        if is_idle && !is_readable(&sources) {
            sources.iter_mut().for_each(|source| told.lost += std::mem::take(&mut source.under_way) as u64);
        }
    }
    told.took = start.elapsed();
    assert!(told.answers > 0, "{addr} answers nothing");
    told
}

/// Announces `count` peers, as many for each swarm, again until each has its answer.
pub fn fill(to: SocketAddr, hashes: &[InfoHash], count: usize) {
    let new = |number| Source::new(source_ip(81, number, to.is_ipv6()), to, AnnounceEvent::Started, true);
    let mut sources: Vec<Source> = (0..peer::SOURCES).map(new).collect();
    let (mut batch, start) = (Batch::new(), Instant::now());
    let mut left: Vec<Vec<usize>> = vec![Vec::new(); peer::SOURCES];
    (0..count).rev().for_each(|number| left[peer::source(number, hashes.len())].push(number));
    let mut asked: Vec<Vec<usize>> = vec![Vec::new(); peer::SOURCES];
    while left.iter().chain(&asked).any(|numbers| !numbers.is_empty()) {
        assert!(start.elapsed() < 2 * PATIENCE, "{to} does not take {count} peers");
        let mut is_idle = true;
        for (source, (left, asked)) in sources.iter_mut().zip(left.iter_mut().zip(&mut asked)) {
            let came = batch.receive(&source.socket);
            for packet in (0..came).map(|number| batch.get(number)) {
                if source.is_announced(packet, 0, true) {
                    let transaction = u32::from_be_bytes(*packet[4..].first_chunk().expect("it was read"));
                    asked.retain(|number| peer::low(*number) != transaction);
                }
            }
            source.renew();
            let room = (WINDOW / peer::SOURCES - asked.len()).min(left.len());
            let now = left.split_off(left.len() - room);
            for (place, number) in now.iter().enumerate() {
                let (swarm, port) = peer::of(*number, hashes.len());
                source.set(&mut batch, place, Kind::Announce, peer::low(*number), &hashes[swarm], port);
            }
            let sent = if room > 0 { batch.send(&source.socket, room) } else { 0 };
            asked.extend(&now[..sent]);
            left.extend(&now[sent..]);
            is_idle &= came == 0 && room == 0;
        }
        if is_idle && !is_readable(&sources) {
            left.iter_mut().zip(&mut asked).for_each(|(left, asked)| left.append(asked));
        }
    }
}
