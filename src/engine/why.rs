//! Why a torrent does not move: what is known of the node, then what the torrent says itself (`torrent/why.rs`), then the link that it
//! follows.

use crate::base::ids::TorrentId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::torrent::snapshot::State;
use crate::torrent::torrent::Torrent;
use crate::torrent::why::{Around, Reason};

impl<S: Storage> Engine<S> {
    /// Why a torrent does not move, and what would help.
    pub(super) fn why(&self, now: Time, id: TorrentId) -> Vec<Reason> {
        let Some(torrent) = self.torrents.get(id) else { return Vec::new() };
        let mut reasons = self.why_of_machine(torrent);
        let waits = self.why_of_owner(id).filter(|_| torrent.state() != State::Paused);
        if let Some(waits) = waits {
            reasons.push(waits);
        } else if !torrent.awaits_item() {
            reasons.extend(torrent.why(now, &self.around(now, id)));
        }
        reasons.extend(self.why_of_followed(now, id));
        reasons
    }

    /// What of this machine holds every torrent up, or those like this one: its interface, its proxy, its disks. One `if` and one
    /// reason each, the gravest first.
    fn why_of_machine(&self, torrent: &Torrent) -> Vec<Reason> {
        let network = self.why_of_network(torrent.state()).map(|sentence| Reason::new("network", sentence));
        network.into_iter().collect()
    }

    fn around(&self, now: Time, id: TorrentId) -> Around {
        Around {
            waits_behind: self.turns.waits_behind(id),
            dht_nodes: self.dht_nodes(now),
            limits: (self.down.rate_bytes(), self.up.rate_bytes()),
            rates: (self.down_meter.rate_bytes(now), self.up_meter.rate_bytes(now)),
            is_alternative: self.is_alternative(),
            has_visitors: self.stats.peers_accepted > 0,
            is_full: self.is_full(),
        }
    }
}
