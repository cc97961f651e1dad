//! What a seeder proposes (BEP 6, `suggest piece`): to each peer that has a slot pieces that nobody else has yet, each to one
//! peer, so that the swarm gets all content from the seeder once before anything twice. Whoever does not heed it loses
//! nothing.

use crate::base::bitfield::Bitfield;
use crate::base::geometry::Piece;
use crate::base::ids::ConnId;
use crate::torrent::torrent::{Ask, Torrent};

/// Proposals to one peer that it has not yet taken: one to go on with, and one for when that is asked for.
const PROPOSED_MAX: usize = 2;

impl Torrent {
    /// The pieces that some connected peer has.
    pub(crate) fn spread(&self) -> Bitfield {
        let mut spread = Bitfield::new(self.geometry().pieces());
        for peer in self.peers.values().filter(|peer| !peer.field.is_empty()) {
            spread.add_all(&peer.field);
        }
        spread
    }

    /// Proposes pieces that no connected peer has to one that has a slot, while there are such.
    pub(crate) fn propose(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let may_ask = !peer.machine.am_choking() && peer.machine.peer_interested() && peer.machine.is_fast();
        if self.download.is_some() || peer.shown.is_some() || !may_ask || peer.proposed.len() >= PROPOSED_MAX {
            return;
        }
        let mut taken = self.spread();
        for other in self.peers.values() {
            for piece in &other.proposed {
                taken.set(piece.0);
            }
        }
        let mut free: Vec<u32> = taken.zeros().filter(|&piece| self.have.get(piece)).collect();
        let peer = self.peers.get_mut(&conn).expect("it was just there");
        while peer.proposed.len() < PROPOSED_MAX && !free.is_empty() {
            let piece = Piece(free.swap_remove(self.rng.index(free.len())));
            peer.machine.suggest(piece);
            peer.proposed.push(piece);
            self.asks.push_back(Ask::Wake(conn));
        }
    }

    /// A peer got a piece: if it was proposed to it, another one is.
    pub(crate) fn handle_taken(&mut self, conn: ConnId, piece: Piece) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let before = peer.proposed.len();
        peer.proposed.retain(|proposed| *proposed != piece);
        if peer.proposed.len() < before {
            self.propose(conn);
        }
    }
}
