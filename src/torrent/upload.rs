//! Giving pieces: whose requests are served, and how the choker's decisions reach the peers.

use crate::base::geometry::{Block, Span};
use crate::base::ids::{ConnId, StoreId};
use crate::base::sabotage::{self, Sabotage};
use crate::base::steps;
use crate::base::time::Time;
use crate::torrent::choker::{Change, Standing};
use crate::torrent::peers::TorrentPeer;
use crate::torrent::torrent::{Ask, Torrent};

/// So many peers that have a slot should always wait for us: with fewer, somebody more gets one.
const WAITING_MIN: usize = 2;
/// Requests for blocks that lie one behind the other are told to the disk together, up to about so many bytes.
const EXPECT_MAX: u64 = 1 << 20;

impl Torrent {
    /// A peer asks for a block: what we do not have, or does not exist, is rejected; the rest will be sent soon.
    pub(crate) fn handle_request(&mut self, conn: ConnId, block: Block) {
        let may_have = self.may_have(conn, block.piece);
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        match self.head.geometry.span_of_block(block) {
            Some(span)
                if may_have && self.have.get(block.piece.0) || sabotage::is_broken(Sabotage::UnverifiedServed) =>
            {
                peer.machine.queue_upload(block);
                if self.expect_more(conn, span) {
                    return;
                }
                self.asks.push_back(Ask::Expect(span));
            }
            _ => peer.machine.reject(block),
        }
        self.asks.push_back(Ask::Wake(conn));
    }

    /// Blocks are asked for one after another: the disk is told once of those that lie so. False if `span` does not go on where
    /// the peer's last request ended.
    fn expect_more(&mut self, conn: ConnId, span: Span) -> bool {
        let mut newest = self.asks.iter_mut().rev();
        match (newest.next(), newest.next()) {
            (Some(Ask::Wake(of)), Some(Ask::Expect(last)))
                if *of == conn && last.end() == span.offset && last.len < EXPECT_MAX =>
            {
                last.len += span.len;
                true
            }
            _ => false,
        }
    }

    /// The next block to send to a peer, while less than `budget_bytes` are queued for it; its place in the content.
    pub fn next_upload(&mut self, conn: ConnId, budget_bytes: usize) -> Option<(Block, Span)> {
        let peer = self.peers.get(&conn)?;
        if peer.machine.outbuf().content_len() >= budget_bytes as u64 || peer.machine.outbuf().is_full() {
            return None;
        }
        let block = peer.machine.next_upload()?;
        let span = self.head.geometry.span_of_block(block).expect("it was checked when it was asked for");
        Some((block, span))
    }

    /// The block that `next_upload` gave goes out.
    pub fn send_block(&mut self, now: Time, conn: ConnId, block: Block, store: StoreId, span: Span) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.machine.send_block(block, store, span);
            self.handle_shown_sent(now, conn, block);
        }
    }

    /// `sent` bytes of a peer's output left; returns how many of them were payload.
    pub fn handle_sent(&mut self, now: Time, conn: ConnId, sent: usize) -> u64 {
        let Some(peer) = self.peers.get_mut(&conn) else { return 0 };
        let payload = peer.machine.advance(now, sent);
        self.up.add(now, payload);
        if payload > 0 {
            self.taken_at = now;
        }
        payload
    }

    /// A peer wants something of us, or no more.
    pub(crate) fn handle_interest(&mut self, now: Time, conn: ConnId) {
        let standing = self.peers.get(&conn).map(|peer| standing(now, conn, peer));
        if let Some(standing) = standing {
            let mut changes = Vec::new();
            self.choker.handle_interest(now, &standing, &mut changes);
            self.apply(now, &changes);
            if self.choker.is_due(now) {
                self.slots_at = self.slots_at.min(now); // once for all that this peer says in a turn
            }
        }
    }

    /// Once a second: where too few who have a slot wait for us, our uplink idles, and somebody more gets one.
    pub(crate) fn consider_slots(&mut self) {
        steps::add(2 * self.peers.len());
        let interested = || self.peers.values().filter(|peer| peer.machine.peer_interested() && !peer.is_seed());
        let waits = |peer: &TorrentPeer| peer.machine.next_upload().is_some() || !peer.machine.outbuf().is_empty();
        let waiting = interested().filter(|peer| !peer.machine.am_choking() && waits(peer)).count();
        if interested().any(|peer| peer.machine.am_choking()) && waiting < WAITING_MIN {
            self.choker.handle_idle();
        }
    }

    /// A round of the choker, where one is due.
    pub(crate) fn tick_choker(&mut self, now: Time) {
        self.slots_at = Time::NEVER;
        if !self.choker.is_due(now) {
            return;
        }
        steps::add(4 * self.peers.len()); // a look at each, and to sort them
        let standings: Vec<Standing> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.established)
            .map(|(&conn, peer)| standing(now, conn, peer))
            .collect();
        let mut changes = Vec::new();
        let up_rate = self.up.rate_bytes(now);
        self.choker.round(now, self.download.is_none(), up_rate, &standings, &mut changes);
        self.apply(now, &changes);
    }

    fn apply(&mut self, _now: Time, changes: &[Change]) {
        for change in changes {
            let (conn, choke) = match *change {
                Change::Choke(conn) => (conn, true),
                Change::Unchoke(conn) => (conn, false),
            };
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            if choke {
                peer.machine.choke();
            } else {
                peer.machine.unchoke();
            }
            self.asks.push_back(Ask::Wake(conn));
            self.propose(conn);
        }
    }
}

fn standing(now: Time, conn: ConnId, peer: &TorrentPeer) -> Standing {
    Standing {
        conn,
        interested: peer.machine.peer_interested() && !peer.is_seed(),
        unchoked: !peer.machine.am_choking(),
        snubbed: peer.machine.is_snubbed(now),
        down_rate: peer.machine.down().rate_bytes(now),
        up_rate: peer.machine.up().rate_bytes(now),
        uploaded: peer.machine.up().total_bytes(),
        downloaded: peer.machine.down().total_bytes(),
        pieces: peer.field.count(),
        connected_at: peer.connected_at,
    }
}
