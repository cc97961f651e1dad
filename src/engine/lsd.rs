//! Local service discovery among the rest: who takes part, through which sockets it speaks, and who is told what was heard.

use std::net::SocketAddr;

use crate::base::config::Config;
use crate::base::ids::SocketId;
use crate::base::rng::Rng;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::{Effect, Engine, Transmit};
use crate::protocol::lsd::Lsd;

/// The sockets of each group, IPv4 first.
const SOCKETS: [SocketId; 2] = [SocketId::Lsd4, SocketId::Lsd6];

/// Where neighbours reach us, by family, IPv4 first.
pub(super) fn ports(config: &Config) -> [Option<u16>; 2] {
    let port = |v6: bool| config.listen.iter().find(|listen| listen.is_ipv6() == v6).map(SocketAddr::port);
    [port(false), port(true)]
}

/// The part in it that the config wants. Only what is needed draws from `rng`.
pub(super) fn new(config: &Config, rng: &mut Rng) -> Option<Lsd> {
    let ports = ports(config);
    (config.lsd && ports != [None; 2]).then(|| Lsd::new(ports, rng.fork("lsd")))
}

/// The next datagram for one of the groups.
pub(super) fn poll_transmit(lsd: &mut Lsd, packet: &mut Vec<u8>) -> Option<Transmit> {
    let to = lsd.poll_transmit(packet)?;
    Some(Transmit { socket: SOCKETS[usize::from(to.is_ipv6())], to })
}

impl<S: Storage> Engine<S> {
    /// It is time to announce, or to forget. Interfaces come and go: before anything is said the driver looks for them.
    pub(super) fn handle_lsd_timeout(&mut self, now: Time) {
        let Some(lsd) = &mut self.lsd else { return };
        lsd.handle_timeout(now);
        let families = self.config.listen.iter().map(|listen| usize::from(listen.is_ipv6()));
        let mut sockets: Vec<SocketId> = families.map(|family| SOCKETS[family]).collect();
        sockets.sort_unstable();
        sockets.dedup();
        self.effects.extend(sockets.into_iter().map(Effect::Rebind));
    }

    /// Tells torrents who is near.
    pub(super) fn act_on_lsd(&mut self, now: Time) {
        while let Some(event) = self.lsd.as_mut().and_then(Lsd::poll_event) {
            let Some(&id) = self.by_hash.get(&event.info_hash) else { continue };
            let torrent = self.torrents.get_mut(id).expect("by_hash names torrents that are there");
            torrent.handle_lsd_peer(now, event.addr);
            self.touched.push(id);
        }
    }

    /// What it counts, for `stats`.
    pub(super) fn lsd_rows(&self) -> Vec<(String, u64)> {
        let Some(counts) = self.lsd.as_ref().map(Lsd::counts) else { return Vec::new() };
        [
            ("lsd.announces", counts.announces),
            ("lsd.heard", counts.heard),
            ("lsd.refused", counts.refused),
            ("lsd.peers", counts.peers),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}
