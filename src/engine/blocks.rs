//! Who is not spoken with: addresses in the user's blocklist are neither accepted nor dialled, and no nodes of the DHT to us.
//!
//! Trackers, name servers and whoever comes to our own tracker server are not judged by it.

use std::net::IpAddr;

use crate::base::blocklist::Blocklist;
use crate::base::ids::ConnId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::connections::Role;

impl<S: Storage> Engine<S> {
    /// These addresses are not spoken with from now on, and no others; connections with them end.
    pub fn block(&mut self, now: Time, list: Blocklist) {
        self.blocklist = list;
        let is_peer = |role: &Role| match role {
            Role::Dialling(_) | Role::Greeting(_) | Role::Waiting(_) | Role::Peer(_) | Role::Catalog(_) => true,
            Role::Exchange(_) | Role::Served(_) | Role::Proxy => false,
        };
        let blocked: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, connection)| is_peer(&connection.role) && self.blocklist.blocks(connection.addr.ip()))
            .map(|(conn, _)| conn)
            .collect();
        for conn in blocked {
            self.stats.peers_blocked += 1;
            self.close(now, conn);
        }
        self.settle(now);
    }

    /// Who is not spoken with.
    #[must_use]
    pub const fn blocklist(&self) -> &Blocklist {
        &self.blocklist
    }

    /// True if a stranger is not to be spoken with, which is counted.
    pub(super) fn is_blocked(&mut self, ip: IpAddr) -> bool {
        let blocked = self.blocklist.blocks(ip);
        self.stats.peers_blocked += u64::from(blocked);
        blocked
    }
}
