//! What a seeder proposes (BEP 6, `suggest piece`): to each peer that has a slot pieces that no connected peer has yet, each to one
//! peer, so that the swarm gets most content from the seeder once before anything twice. A peer that does not heed it loses nothing.
//! Only some pieces are tried for a proposal; when few are left that no peer has, they may not be among them.

use crate::base::geometry::Piece;
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::torrent::torrent::{Ask, Torrent};

/// Proposals to one peer that it has not yet taken: one to go on with, and one for when that is asked for.
const PROPOSED_MAX: usize = 2;
/// So many peers together, of all the pieces that are tried, are looked at to find one proposal.
const PROPOSAL_STEPS: usize = 4096;
/// So many pieces are tried all the same where there are very many peers.
const PROPOSAL_TRIES_MIN: usize = 16;

impl Torrent {
    /// True if a connected peer has `piece`.
    pub(crate) fn is_spread(&self, piece: Piece) -> bool {
        steps::add(self.peers.len());
        self.peers.values().any(|peer| peer.field.get(piece.0))
    }

    /// Proposes pieces that no connected peer has to one that has a slot, if some are found.
    pub(crate) fn propose(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let may_ask = !peer.machine.am_choking() && peer.machine.peer_interested() && peer.machine.is_fast();
        if self.is_link()
            || self.download.is_some()
            || peer.shown.is_some()
            || !may_ask
            || peer.proposed.len() >= PROPOSED_MAX
        {
            return;
        }
        for _ in peer.proposed.len()..PROPOSED_MAX {
            let Some(piece) = self.next_proposal() else { return };
            let peer = self.peers.get_mut(&conn).expect("it was just there");
            peer.machine.suggest(piece);
            peer.proposed.push(piece);
            self.asks.push_back(Ask::Wake(conn));
        }
    }

    /// A piece that we have, no connected peer has, and nobody was proposed: the first of those that are tried from a random place on.
    fn next_proposal(&mut self) -> Option<Piece> {
        let pieces = self.geometry().pieces();
        if pieces == 0 {
            return None;
        }
        let from = u32::try_from(self.rng.index(pieces as usize)).expect("an index of a piece");
        let tries = (PROPOSAL_STEPS / self.peers.len().max(1)).max(PROPOSAL_TRIES_MIN);
        let in_order = (from..pieces).chain(0..from).map(Piece).take(tries);
        let mut tried = 0;
        let found = in_order.inspect(|_| tried += 1).find(|&piece| {
            let is_proposed = || self.peers.values().any(|peer| peer.proposed.contains(&piece));
            self.have.get(piece.0) && !self.is_spread(piece) && !is_proposed()
        });
        steps::add(tried);
        found
    }

    /// A peer got a piece: if it was proposed to it, another one is.
    pub(crate) fn handle_taken(&mut self, conn: ConnId, piece: Piece) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let before = peer.proposed.len();
        peer.proposed.retain(|proposed| *proposed != piece);
        if peer.proposed.len() < before {
            self.reconsider_peer(conn);
        }
    }
}
