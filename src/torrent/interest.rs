//! What we want of each peer: whether anything, and which blocks.
//!
//! Most of what a peer says may change the answer, and a peer may say a great deal at once. So a message only notes that its
//! peer is to be looked at again ([`Torrent::reconsider_peer`]), and every peer that was noted is looked at once, at the end of the
//! turn. If there are too many for one turn, the others follow in later ones.

use crate::base::geometry::Piece;
use crate::base::ids::ConnId;
use crate::base::steps;
use crate::base::time::Time;
use crate::torrent::peers::TorrentPeer;
use crate::torrent::torrent::{Ask, Phase, Torrent};

/// What is known of the pieces that a peer has and we want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Offer {
    /// It must be looked up.
    #[default]
    Unknown,
    /// This is one of them, unless we got it since or the peer lost it.
    Piece(Piece),
    /// There is none, until the peer gets a piece or something more is wanted.
    Nothing,
}

impl Torrent {
    /// Whether we want anything of a peer, and what it can be asked for, is looked at before the end of the turn.
    pub(crate) fn reconsider_peer(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.get_mut(&conn)
            && !std::mem::replace(&mut peer.is_due, true)
        {
            self.due_peers.push_back(conn);
        }
    }

    /// All peers are looked at.
    pub(crate) fn reconsider_peers(&mut self) {
        self.all_peers_due = true;
    }

    /// Something is wanted that was not.
    pub(crate) fn forget_offers(&mut self) {
        for peer in self.peers.values_mut() {
            peer.offer = Offer::Unknown;
        }
    }

    /// Looks at the next peer that was noted; false if there is none.
    pub fn handle_due_peer(&mut self, now: Time) -> bool {
        if std::mem::take(&mut self.all_peers_due) {
            steps::add(self.peers.len());
            let noted = |(conn, peer): (&ConnId, &mut TorrentPeer)| {
                (!std::mem::replace(&mut peer.is_due, true)).then_some(*conn)
            };
            self.due_peers.extend(self.peers.iter_mut().filter_map(noted));
        }
        let Some(conn) = self.due_peers.pop_front() else { return false };
        steps::add(1);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.is_due = false;
            self.consider_interest(now, conn);
            self.propose(conn);
        }
        true
    }

    /// True if a peer waits to be looked at.
    #[must_use]
    pub fn has_due_peers(&self) -> bool {
        self.all_peers_due || !self.due_peers.is_empty()
    }

    /// True if a peer has a piece that we want.
    fn is_useful(&mut self, conn: ConnId) -> bool {
        let Some(peer) = self.peers.get_mut(&conn) else { return false };
        if self.download.is_none() || peer.field.is_empty() {
            return false;
        }
        let from = match peer.offer {
            Offer::Piece(piece) => piece,
            Offer::Nothing => return false,
            Offer::Unknown => Piece(0),
        };
        let found = self.layout.first_wanted(&peer.field, &self.have, from);
        let found = found.or_else(|| self.layout.first_wanted(&peer.field, &self.have, Piece(0)));
        peer.offer = found.map_or(Offer::Nothing, Offer::Piece);
        found.is_some()
    }

    /// Says whether we want anything of a peer, and asks for it; parts with peers that can give nothing and want nothing.
    fn consider_interest(&mut self, now: Time, conn: ConnId) {
        let wants = self.is_useful(conn);
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if wants != peer.machine.am_interested() {
            if wants {
                peer.machine.interest();
            } else {
                peer.machine.uninterest();
            }
            self.asks.push_back(Ask::Wake(conn));
        }
        if wants {
            self.fill_requests(now, conn);
        } else if peer.is_seed() && self.is_finished() && self.running && self.phase == Phase::Ready {
            self.end_super_seeding(now, "there is another seed");
            self.drop_peer(now, conn); // two seeders have nothing to say to one another
        }
    }
}
