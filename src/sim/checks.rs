//! What must hold after every event, whatever befalls the swarm.
//!
//! Every piece that a node claims is on its disk as it should be; nothing is served unverified (`node`); a block has one writer
//! (`storage`), and a file one torrent that may write to it; limits and bounds are kept; trackers are told what the streams carried, and tell what is so (`ledger`); nobody spins,
//! and no call of an engine takes more steps than [`crate::base::steps::TURN_MAX`] (`node`).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Span;
use crate::base::ids::StoreId;
use crate::base::time::Time;
use crate::codec::udp_tracker::Request;
use crate::sim::World;
use crate::sim::node::Body;
use crate::sim::trace::What;

/// How far a rate may exceed its limit at once: what a bucket holds, and what a kernel took before.
const RATE_SLACK_BYTES: u64 = 256 * 1024;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    /// When.
    pub at: Time,
    /// By whom, and who else matters.
    pub nodes: Vec<usize>,
    /// What happened.
    pub message: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.nodes.first().copied().unwrap_or_default();
        write!(f, "at {:?}, node {node}: {}", self.at, self.message)
    }
}

/// What was sent since a limit began to be watched.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Watch {
    second: u64,
    life: u32,
    since: Time,
    up_before: u64,
    down_before: u64,
}

impl World {
    /// Looks at a node that rests.
    pub(crate) fn check(&mut self, index: usize) {
        if let Some(message) = self.broken_rule(index) {
            self.breach = Some(Breach { at: self.now, nodes: vec![index], message });
        }
    }

    fn broken_rule(&mut self, index: usize) -> Option<String> {
        if let Some(message) = self.nodes[index].breach.take().or_else(|| self.nodes[index].cost.breach()) {
            return Some(message);
        }
        let Body::Engine(engine) = &mut self.nodes[index].body else { return None };
        if let Some(message) = engine.storage().breaches.pop() {
            return Some(message);
        }
        if let Some(path) = engine.two_writers() {
            return Some(format!("two torrents may write to {}", path.display()));
        }
        self.claims(index).or_else(|| self.each_second(index))
    }

    /// Pieces that are claimed and were not before must be there.
    fn claims(&mut self, index: usize) -> Option<String> {
        let node = &mut self.nodes[index];
        let Body::Engine(engine) = &mut node.body else { return None };
        let mut new: Vec<(StoreId, u32, Span)> = Vec::new();
        let (mut finished, mut changed) = (false, Vec::new());
        let (mut failures, mut failed) = (0, Vec::new());
        for view in engine.views() {
            failures += view.failed;
            failed.extend(view.store);
            let claimed = node.claimed.entry(view.info_hash).or_insert_with(|| Bitfield::new(view.have.len()));
            if claimed == view.have {
                continue;
            }
            if claimed.len() != view.have.len() {
                *claimed = Bitfield::new(view.have.len()); // it came as a link, and its pieces are known now
            }
            // Who sleeps claims what an earlier run did; that is looked at when it wakes, before anything is served.
            let Some(store) = view.store else { continue };
            new.extend(
                view.have
                    .ones()
                    .filter(|&piece| !claimed.get(piece))
                    .map(|piece| (store, piece, view.piece_span(piece))),
            );
            *claimed = view.have.clone();
            changed.push((store, view.have.clone()));
            finished |= view.is_finished;
        }
        let storage = engine.storage();
        if std::mem::replace(&mut node.failures, failures) != failures {
            failed.iter().for_each(|&store| storage.note_failure(store));
        }
        changed.iter().for_each(|(store, have)| storage.note_claims(*store, have));
        let &(_, last, _) = new.last()?;
        let count = u32::try_from(new.len()).expect("no more than there are pieces");
        let wrong = new.iter().find(|(store, _, span)| !storage.is_true(*store, *span)).map(|(_, piece, _)| *piece);
        self.trace.note(self.now, index, What::Claims(count, last), &[]);
        if finished {
            self.news.push(index);
            self.trace.note(self.now, index, What::Finished, &[]);
        }
        wrong.map(|piece| format!("it claims piece {piece}, which is not on its disk as it should be"))
    }

    /// What need not be looked at after every event.
    fn each_second(&mut self, index: usize) -> Option<String> {
        let (now, life) = (self.now, self.nodes[index].life);
        let watch = self.tally.watch(index);
        if watch.second == now.as_secs() && watch.life == life {
            return None;
        }
        let Body::Engine(engine) = &mut self.nodes[index].body else { return None };
        engine.check();
        let uploaded: u64 = engine.views().map(|view| view.uploaded).sum();
        let downloaded: u64 = engine.views().map(|view| view.downloaded).sum();
        let limits = (engine.config().up_rate_bytes, engine.config().down_rate_bytes);
        let served = engine.storage().served_bytes;
        if watch.life != life || watch.since == Time::ZERO {
            (watch.life, watch.since) = (life, now);
            (watch.up_before, watch.down_before) = (uploaded, downloaded);
        }
        watch.second = now.as_secs();
        if self.tally.is_exact && uploaded != served {
            return Some(format!("it counts {uploaded} bytes sent, and its streams took {served}"));
        }
        if self.tally.is_exact && downloaded > self.nodes[index].content_in {
            let came = self.nodes[index].content_in;
            return Some(format!("it counts {downloaded} bytes received, and {came} came"));
        }
        let watch = self.tally.watch(index);
        let elapsed = now.since(watch.since) + Duration::from_secs(1);
        for (limit, moved, way) in
            [(limits.0, uploaded - watch.up_before, "out"), (limits.1, downloaded - watch.down_before, "in")]
        {
            let most = u128::from(limit) * elapsed.as_millis() / 1000 + u128::from(RATE_SLACK_BYTES);
            if limit > 0 && u128::from(moved) > most {
                return Some(format!("{moved} bytes went {way} in {elapsed:?}, with a limit of {limit} a second"));
            }
        }
        None
    }

    /// A datagram leaves a node, perhaps a tracker's answer: that must be right.
    pub(crate) fn check_answer(&mut self, index: usize, from: SocketAddr, to: SocketAddr, packet: &[u8]) {
        if self.ledger.is_udp(index, from) {
            let wrong = self.ledger.say(self.now, index, self.nodes[index].life, to, packet);
            self.nodes[index].breach = self.nodes[index].breach.take().or(wrong);
        }
    }

    /// A tracker was told something: it must be what the teller's streams carried.
    pub(crate) fn check_told(&mut self, tracker: usize, from: SocketAddr, packet: &[u8]) {
        let Some(Request::Announce { announce, .. }) = Request::parse(packet) else { return };
        let Some(index) = self.node_at(from.ip()) else { return };
        let Body::Engine(engine) = &mut self.nodes[index].body else { return };
        let Some(view) = engine.views().find(|view| view.info_hash == announce.info_hash) else { return };
        let is_so = announce.uploaded <= view.uploaded && announce.downloaded <= view.downloaded;
        // An announce on its way when its teller crashed tells of the run before.
        if self.nodes[index].clock.started + Duration::from_secs(30) < self.now && !is_so {
            let (up, down) = (announce.uploaded, announce.downloaded);
            let message = format!("it tells a tracker that it sent {up} and received {down} bytes, which is not so");
            self.breach = Some(Breach { at: self.now, nodes: vec![index, tracker], message });
        }
    }
}
