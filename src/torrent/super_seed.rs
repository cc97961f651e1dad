//! Super-seeding (BEP 16): the first seed of a torrent looks like somebody who has nothing, and shows each peer one piece at a time, so
//! that the swarm gets all content from it about once.
//!
//! The next piece is shown to a peer when the one before it was seen at somebody else. Some clients never say what they have got: after a
//! while the next one is shown all the same, and at once where nobody else could take it. It ends by itself when the connected peers
//! have everything between them, or another seed is there; the rest is told then, little by little. Who does not have everything shows
//! what it has.

use std::collections::BTreeSet;
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
/// Peers, of all the pieces that are looked at, that are looked at for the piece to show next.
const SHOW_STEPS: usize = 8192;
/// So many pieces are looked at all the same where there are very many peers.
const SHOW_LOOKS_MIN: usize = 16;
/// Steps of one tick after which the other peers wait for the next one.
const SPREAD_STEPS: u64 = steps::TURN_MAX / 4;
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

/// What the peers have between them, counted little by little.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// As the latest count found it, and what was said since. Empty until it is needed.
    seen: Bitfield,
    /// The count under way, and whose pieces are still to be added; both empty if none is.
    next: Bitfield,
    rest: Vec<ConnId>,
    /// The peer that had the last turn in a tick.
    ticked_to: Option<ConnId>,
}

/// The piece that a peer was shown last.
fn last_shown(peer: &TorrentPeer) -> Option<Piece> {
    peer.shown.as_ref()?.last.as_ref().map(|last| last.piece)
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

    /// Shows a peer a piece that it lacks and that nobody has or was shown last. If there is none, the one that fewest have, of those
    /// that are looked at from a random place on.
    fn show_next(&mut self, conn: ConnId) {
        if self.spread.seen.is_empty() {
            self.renew_spread();
        }
        let Some(piece) = self.next_shown(conn) else { return };
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let Some(shown) = &mut peer.shown else { return };
        shown.pieces.set(piece.0);
        shown.last = Some(Last { piece, sent_bytes: 0, got_at: Time::NEVER });
        peer.machine.have(piece);
        self.asks.push_back(Ask::Wake(conn));
    }

    /// The piece that [`Torrent::show_next`] shows.
    fn next_shown(&mut self, conn: ConnId) -> Option<Piece> {
        let pieces = self.have.len();
        let from = u32::try_from(self.rng.index(pieces as usize)).expect("an index of a piece");
        let peer = self.peers.get(&conn)?;
        let shown = peer.shown.as_ref()?;
        let nothing = Bitfield::new(pieces);
        let field = if peer.field.is_empty() { &nothing } else { &peer.field };
        let lasts: BTreeSet<Piece> = self.peers.values().filter_map(last_shown).collect();
        steps::add_bytes(8 * field.as_bytes().len());
        steps::add(2 * self.peers.len());
        let unseen = |from| Bitfield::zeros_in_all([&shown.pieces, field, &self.spread.seen], from).map(Piece);
        let mut fresh = unseen(from).chain(unseen(0).take_while(|piece| piece.0 < from));
        fresh.find(|piece| !lasts.contains(piece)).or_else(|| {
            let looks = (SHOW_STEPS / self.peers.len()).max(SHOW_LOOKS_MIN);
            let open = |from| Bitfield::zeros_in_all([&shown.pieces, field], from).map(Piece);
            let in_order = open(from).chain(open(0).take_while(|piece| piece.0 < from));
            let owners = |piece: &Piece| {
                let has = |peer: &&TorrentPeer| peer.field.get(piece.0) || last_shown(peer) == Some(*piece);
                self.peers.values().filter(has).count()
            };
            let mut looked = 0;
            let rarest = in_order.take(looks).inspect(|_| looked += 1).min_by_key(owners);
            steps::add(looked * self.peers.len());
            rarest
        })
    }

    /// Goes on with the count of what the peers have between them, a few peers at a time if there are many pieces; true if it is
    /// complete, which is when the next one begins.
    fn renew_spread(&mut self) -> bool {
        let pieces = self.have.len();
        let Spread { seen, next, rest, .. } = &mut self.spread;
        if next.is_empty() {
            *next = Bitfield::new(pieces);
            rest.extend(self.peers.keys());
        }
        let steps_before = steps::so_far();
        while let Some(conn) = rest.pop() {
            if let Some(peer) = self.peers.get(&conn).filter(|peer| !peer.field.is_empty()) {
                next.add_all(&peer.field);
                steps::add_bytes(4 * peer.field.as_bytes().len());
            }
            if steps::so_far() - steps_before > SPREAD_STEPS {
                break;
            }
        }
        let is_whole = rest.is_empty();
        if is_whole {
            *seen = std::mem::take(next);
        } else if seen.is_empty() {
            *seen = next.clone();
        }
        is_whole
    }

    /// A peer has got a piece: whoever else was shown it last is shown another one.
    pub(crate) fn handle_seen(&mut self, now: Time, conn: ConnId, piece: Piece) {
        if !self.is_super_seeding() {
            return;
        }
        for field in [&mut self.spread.seen, &mut self.spread.next] {
            if !field.is_empty() {
                field.set(piece.0);
            }
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
        // Those that are left out here are shown something in the next tick.
        let steps_before = steps::so_far();
        for other in spread {
            if steps::so_far() - steps_before > SPREAD_STEPS {
                break;
            }
            self.show_next(other);
        }
        self.consider_shown(now, conn);
    }

    /// A peer has said what it has: that may be what it was shown, or others were.
    pub(crate) fn handle_field_seen(&mut self, now: Time, conn: ConnId) {
        if !self.is_super_seeding() {
            return;
        }
        let Some(field) = self.peers.get(&conn).map(|peer| &peer.field) else { return };
        steps::add(self.peers.len());
        for spread in [&mut self.spread.seen, &mut self.spread.next] {
            if !spread.is_empty() && !field.is_empty() {
                spread.add_all(field);
            }
        }
        let lasts = self.peers.values().filter_map(last_shown);
        let mut seen: Vec<Piece> = lasts.filter(|piece| field.get(piece.0)).collect();
        seen.sort_unstable();
        seen.dedup();
        let steps_before = steps::so_far();
        for piece in seen {
            if steps::so_far() - steps_before > SPREAD_STEPS {
                break;
            }
            self.handle_seen(now, conn, piece);
        }
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
        if self.is_super_seeding() {
            let known = self.announces.seeders().unwrap_or(0);
            if self.renew_spread() && self.spread.seen.is_full() {
                self.end_super_seeding(now, "the connected peers have everything between them");
            } else if self.peers.values().any(|peer| peer.is_seed()) || known >= OTHERS_MIN {
                self.end_super_seeding(now, "there is another seed");
            }
        }
        let is_super = self.is_super_seeding();
        let conns: Vec<ConnId> =
            self.peers.iter().filter(|(_, peer)| peer.shown.is_some()).map(|(&conn, _)| conn).collect();
        // Those that have no turn in this tick come first in the next one.
        let start = conns.partition_point(|conn| Some(*conn) <= self.spread.ticked_to);
        let steps_before = steps::so_far();
        for &conn in conns[start..].iter().chain(&conns[..start]) {
            if steps::so_far() - steps_before > SPREAD_STEPS {
                break;
            }
            self.spread.ticked_to = Some(conn);
            if is_super { self.consider_shown(now, conn) } else { self.tell_rest(conn) }
        }
        if !is_super {
            self.spread = Spread { ticked_to: self.spread.ticked_to, ..Spread::default() };
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
        let untold = Bitfield::zeros_in_all([&shown.pieces], 0);
        let rest: Vec<u32> = untold.filter(|&piece| self.have.get(piece)).take(TOLD_MAX).collect();
        steps::add_bytes(shown.pieces.as_bytes().len());
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
