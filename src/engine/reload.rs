//! Settings that change while the node runs.
//!
//! The driver has bound other addresses already when it says so here. Peers that are connected stay, unless there are more of them
//! than there may be, or they are plain and must not be.

use crate::base::config::{Config, Encryption, TrackerConfig};
use crate::base::ids::{ConnId, TorrentId};
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::connections::Role;
use crate::engine::lane::Lane;
use crate::engine::lsd;

impl<S: Storage> Engine<S> {
    /// What `new` says holds from now on, as far as it can while the node runs: what else it says is passed over.
    pub fn reconfigure(&mut self, now: Time, new: Config) {
        let old = self.config.clone();
        self.config = merged(&old, new);
        if let Some(server) = &mut self.tracker {
            server.reconfigure(&self.config.tracker);
        }
        self.exchanges.trackers.set_patience(self.config.tracker_timeout);
        if old.listen != self.config.listen {
            self.exchanges.trackers.set_listen(&self.config.listen);
            if let Some(nodes) = &mut self.dht {
                nodes.set_sockets(&self.config);
            }
        }
        if let Some(nodes) = &mut self.dht {
            let known = &old.dht_bootstrap;
            let others = self.config.dht_bootstrap.iter().filter(|node| !known.contains(node));
            others.for_each(|(host, port)| nodes.begin_with(now, host, *port));
        }
        self.renew_lsd();
        let ids: Vec<TorrentId> = self.torrents.ids().collect();
        for id in ids {
            let torrent = self.torrents.get_mut(id).expect("it was just listed");
            torrent.reconfigure(now, &self.config);
            self.touched.push(id);
        }
        if self.config.encryption == Encryption::Require && old.encryption != Encryption::Require {
            self.close_plain(now);
        }
        self.fit(now);
        self.settle(now);
    }

    /// Has the part in local service discovery that the config wants.
    fn renew_lsd(&mut self) {
        let ports = lsd::ports(&self.config);
        match &mut self.lsd {
            _ if !self.config.lsd || ports == [None; 2] => self.lsd = None,
            Some(lsd) => lsd.set_ports(ports),
            None => self.lsd = lsd::new(&self.config, &mut self.rng),
        }
    }

    /// Closes connections with peers that are plain, or may become so.
    fn close_plain(&mut self, now: Time) {
        let is_plain = |conn: &ConnId| {
            self.connections.get(*conn).is_some_and(|connection| {
                matches!(connection.role, Role::Peer(_) | Role::Greeting(_) | Role::Waiting(_))
                    && matches!(connection.lane, Lane::Plain | Lane::Shaking(_))
            })
        };
        let plain: Vec<ConnId> = self.connections.ids().filter(is_plain).collect();
        plain.into_iter().for_each(|conn| self.close(now, conn));
    }

    /// Closes connections until there are no more than there may be: of clients of the tracker server those that are silent for
    /// longest; of peers first those that have not introduced themselves, then those that are being dialled, those that neither give
    /// nor want anything, and at last those that came last.
    fn fit(&mut self, now: Time) {
        while self.served.count() > self.config.tracker.connections_max && self.shed_served(now) {}
        let dialling = |engine: &Self| {
            let is_dialling = |conn: &ConnId| {
                engine.connections.get(*conn).is_some_and(|connection| matches!(connection.role, Role::Dialling(_)))
            };
            engine.connections.ids().filter(is_dialling).collect::<Vec<_>>()
        };
        let surplus = self.half_open.saturating_sub(self.config.half_open_max);
        dialling(self).into_iter().take(surplus).for_each(|conn| self.close(now, conn));
        let beyond = |engine: &Self| {
            (engine.connections.len() - engine.served.count()).saturating_sub(engine.config.connections_max)
        };
        while beyond(self) > 0 && self.shed_newcomer(now) {}
        let surplus = beyond(self);
        dialling(self).into_iter().take(surplus).for_each(|conn| self.close(now, conn));
        let surplus = beyond(self);
        if surplus == 0 {
            return;
        }
        let mut peers: Vec<_> = self.torrents.values().flat_map(|torrent| torrent.least_needed(now)).collect();
        peers.sort_unstable();
        peers.into_iter().take(surplus).for_each(|(_, conn)| self.close(now, conn));
    }
}

/// `new` where that may change while a node runs, and `old` for the rest. Rates, turns and rules have functions of their own.
fn merged(old: &Config, new: Config) -> Config {
    // Each key is named: a new one is to be thought about.
    let Config {
        downloads,
        listen,
        memory_max,
        connections_max,
        connections_per_torrent_max,
        half_open_max,
        upload_slots,
        encryption,
        utp: _,
        pex,
        lsd,
        catalog,
        dht: _,
        dht_listen: _,
        dht_bootstrap,
        dht_read_only: _,
        down_rate_bytes: _,
        up_rate_bytes: _,
        active_downloads_max: _,
        active_seeds_max: _,
        defaults: _,
        verify_on_add,
        allocate_full,
        announce_to_all,
        tracker_timeout,
        tracker,
        anonymous: _,
        proxy: _,
        name_servers: _,
        hosts: _,
    } = new;
    let TrackerConfig { connections_max: served_max, swarms_max, peers_max, proxies, .. } = tracker;
    Config {
        downloads,
        listen,
        memory_max,
        connections_max,
        connections_per_torrent_max,
        half_open_max,
        upload_slots,
        encryption,
        pex,
        lsd,
        catalog,
        dht_bootstrap,
        verify_on_add,
        allocate_full,
        announce_to_all,
        tracker_timeout,
        tracker: TrackerConfig { connections_max: served_max, swarms_max, peers_max, proxies, ..old.tracker.clone() },
        ..old.clone()
    }
}
