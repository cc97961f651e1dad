//! Super-seeding (BEP 16): the first seed of a torrent looks like somebody who has nothing, and shows each peer one piece at a time, so
//! that the swarm gets all content from it about once.
//!
//! The next piece is shown to a peer when the one before it was seen at somebody else. Some clients never say what they have got: after a
//! while the next one is shown all the same, and at once where nobody else could take it. It ends by itself when the connected peers
//! have everything between them, or another seed is there; the rest is told then, little by little. Who does not have everything shows
//! what it has.

use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::geometry::{Block, Piece};
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::time::Time;
use crate::torrent::peers::TorrentPeer;
use crate::torrent::torrent::{Ask, Torrent};

/// How long a piece that a peer has got may take to be seen at another one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pieces that are told a peer in one tick when super-seeding is over: a million of them in some minutes.
const TOLD_MAX: usize = 4096;
/// Seeds that a tracker knows besides us, from which on there is no need for it.
const OTHERS_MIN: u32 = 2;

/// What a peer was shown of what we have.
#[derive(Debug)]
pub(crate) struct Shown {
    pieces: Bitfield,
    last: Option<Last>,
}

/// The piece that it was shown last.
#[derive(Debug)]
struct Last {
    piece: Piece,
    sent_bytes: u64,
    /// When it had got it, as it says or by what was sent.
    got_at: Time,
}

impl Torrent {
    /// True if it shows its peers one piece at a time.
    pub(crate) fn is_super_seeding(&self) -> bool {
        self.settings.super_seed && self.running && !self.is_link() && self.have.is_full() && !self.have.is_empty()
    }

    /// Says what we have to a peer that has just introduced itself.
    pub(crate) fn introduce(&mut self, conn: ConnId) {
        let is_super = self.is_super_seeding();
        let pieces = self.geometry().pieces();
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if is_super {
            let nothing = Bitfield::new(pieces);
            peer.machine.send_field(&nothing);
            peer.shown = Some(Box::new(Shown { pieces: nothing, last: None }));
            self.show_next(conn);
        } else {
            peer.machine.send_field(&self.have);
        }
    }

    /// True if a peer may have a piece of ours: it was told of it.
    pub(crate) fn may_have(&self, conn: ConnId, piece: Piece) -> bool {
        let shown = self.peers.get(&conn).and_then(|peer| peer.shown.as_ref());
        shown.is_none_or(|shown| shown.pieces.get(piece.0))
    }

    /// Shows a peer the piece that it lacks and fewest have or were shown lately; any one of those.
    fn show_next(&mut self, conn: ConnId) {
        if self.spread_counts.is_empty() {
            self.spread_counts = self.count_spread();
        }
        let counts = &mut self.spread_counts;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(shown) = &mut peer.shown else { return };
        steps::add(counts.len());
        let open: Vec<u32> = shown.pieces.zeros().filter(|&piece| !peer.field.get(piece)).collect();
        let Some(rarest) = open.iter().map(|&piece| counts[piece as usize]).min() else { return };
        let rarest: Vec<u32> = open.into_iter().filter(|&piece| counts[piece as usize] == rarest).collect();
        let piece = Piece(rarest[self.rng.index(rarest.len())]);
        shown.pieces.set(piece.0);
        counts[piece.index()] += 1;
        shown.last = Some(Last { piece, sent_bytes: 0, got_at: Time::NEVER });
        peer.machine.have(piece);
        self.asks.push_back(Ask::Wake(conn));
    }

    /// Returns for each piece how many peers have it or were shown it last. It is counted once per tick and updated with the
    /// pieces that are shown and received meanwhile, so that a peer that reports each piece as soon as it is shown does
    /// not cause a full count each time.
    fn count_spread(&self) -> Vec<u32> {
        let mut counts = vec![0_u32; self.geometry().pieces() as usize];
        for peer in self.peers.values().filter(|peer| peer.established) {
            steps::add(peer.field.count() as usize);
            peer.field.ones().for_each(|piece| counts[piece as usize] += 1);
            if let Some(last) = peer.shown.as_ref().and_then(|shown| shown.last.as_ref()) {
                counts[last.piece.index()] += u32::from(!peer.field.get(last.piece.0));
            }
        }
        counts
    }

    /// A peer has got a piece: whoever else was shown it last is shown another one.
    pub(crate) fn handle_seen(&mut self, now: Time, conn: ConnId, piece: Piece) {
        if !self.is_super_seeding() {
            return;
        }
        let was_shown = |peer: &TorrentPeer| {
            peer.shown.as_ref().and_then(|shown| shown.last.as_ref()).is_some_and(|last| last.piece == piece)
        };
        if let Some(count) = self.spread_counts.get_mut(piece.index())
            && !self.peers.get(&conn).is_some_and(was_shown)
        {
            *count += 1;
        }
        steps::add(self.peers.len());
        let mut spread = Vec::new();
        for (&other, peer) in &mut self.peers {
            let last = peer.shown.as_mut().and_then(|shown| shown.last.as_mut());
            match last.filter(|last| last.piece == piece) {
                Some(last) if other == conn => last.got_at = last.got_at.min(now),
                Some(last) if !last.got_at.is_never() => spread.push(other),
                _ => {}
            }
        }
        spread.into_iter().for_each(|other| self.show_next(other));
        self.consider_shown(now, conn);
    }

    /// A peer has said what it has: that may be what it was shown, or others were.
    pub(crate) fn handle_field_seen(&mut self, now: Time, conn: ConnId) {
        if !self.is_super_seeding() {
            return;
        }
        let Some(field) = self.peers.get(&conn).map(|peer| peer.field.clone()) else { return };
        steps::add(self.peers.len());
        let last_of = |peer: &TorrentPeer| peer.shown.as_ref()?.last.as_ref().map(|last| last.piece);
        let mut seen: Vec<Piece> = self.peers.values().filter_map(last_of).filter(|piece| field.get(piece.0)).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.into_iter().for_each(|piece| self.handle_seen(now, conn, piece));
    }

    /// A block goes out: what a peer has got whole it has, whatever it says.
    pub(crate) fn handle_shown_sent(&mut self, now: Time, conn: ConnId, block: Block) {
        let len = u64::from(self.geometry().len_of(block.piece));
        let last = self.peers.get_mut(&conn).and_then(|peer| peer.shown.as_mut()?.last.as_mut());
        if let Some(last) = last.filter(|last| last.piece == block.piece) {
            last.sent_bytes += u64::from(block.len);
            if last.sent_bytes >= len {
                last.got_at = last.got_at.min(now);
            }
        }
    }

    /// Whether a peer is to be shown another piece: the last one was seen elsewhere, nobody else could take it, or that takes too long.
    fn consider_shown(&mut self, now: Time, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let Some(last) = peer.shown.as_ref().and_then(|shown| shown.last.as_ref()) else { return };
        if last.got_at.is_never() {
            return;
        }
        steps::add(self.peers.len());
        let mut others = self.peers.iter().filter(|(other, peer)| **other != conn && peer.established);
        let has = |(_, peer): (&ConnId, &TorrentPeer)| peer.field.get(last.piece.0);
        let says = peer.field.get(last.piece.0);
        let is_spread = others.clone().any(has);
        if is_spread || says && others.next().is_none() || now.since(last.got_at) >= PATIENCE {
            self.show_next(conn);
        }
    }

    /// Once a second: goes on with peers that wait, ends when it is no more needed, tells the rest after that.
    pub(crate) fn tick_super_seeding(&mut self, now: Time) {
        self.spread_counts = Vec::new();
        if self.is_super_seeding() {
            let known = self.announces.seeders().unwrap_or(0);
            if self.spread().is_full() {
                self.end_super_seeding(now, "the connected peers have everything between them");
            } else if self.peers.values().any(|peer| peer.is_seed()) || known >= OTHERS_MIN {
                self.end_super_seeding(now, "there is another seed");
            }
        }
        let is_super = self.is_super_seeding();
        let conns: Vec<ConnId> =
            self.peers.iter().filter(|(_, peer)| peer.shown.is_some()).map(|(&conn, _)| conn).collect();
        for conn in conns {
            if is_super { self.consider_shown(now, conn) } else { self.tell_rest(conn) }
        }
    }

    /// It is no first seed any more.
    pub(crate) fn end_super_seeding(&mut self, now: Time, why: &str) {
        if std::mem::take(&mut self.settings.super_seed) {
            log::info!("{}: super-seeding ends, {why}", self.display_name());
            self.persistence.touch(now);
            let conns: Vec<ConnId> = self.peers.keys().copied().collect();
            conns.into_iter().for_each(|conn| self.say_extensions(conn));
        }
    }

    /// Tells a peer some more of what we have and it was not shown.
    fn tell_rest(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(shown) = &mut peer.shown else { return };
        let rest: Vec<u32> = shown.pieces.zeros().filter(|&piece| self.have.get(piece)).take(TOLD_MAX).collect();
        for &piece in &rest {
            shown.pieces.set(piece);
            peer.machine.have(Piece(piece));
        }
        if rest.len() < TOLD_MAX {
            peer.shown = None;
        }
        self.asks.push_back(Ask::Wake(conn));
    }
}
