//! Settings of the node that change while a torrent runs.

use crate::base::config::{Config, Encryption};
use crate::base::time::Time;
use crate::torrent::torrent::Torrent;

impl Torrent {
    /// What `config` says holds from now on. What the user has set for this torrent goes before it.
    pub fn reconfigure(&mut self, now: Time, config: &Config) {
        if self.is_peek() {
            return; // it has bounds of its own, and is soon over
        }
        if self.default_peers != config.connections_per_torrent_max {
            self.set_default_peers(now, config.connections_per_torrent_max);
        }
        self.allocate_full = config.allocate_full;
        self.choker.set_slots(config.upload_slots);
        self.announces.set_to_all(now, config.announce_to_all);
        self.set_lsd(config.lsd);
        self.set_exchange(config);
        self.set_listen(now, config);
        if self.running {
            self.look_for_peers(now);
        }
    }

    fn set_lsd(&mut self, on: bool) {
        let may = on && !self.head.private;
        if self.lsd && !may {
            self.leave_lsd();
        }
        if !std::mem::replace(&mut self.lsd, may) && may {
            self.join_lsd();
        }
    }

    fn set_exchange(&mut self, config: &Config) {
        let ciphers = matches!(config.encryption, Encryption::Prefer | Encryption::Require);
        let begins = self.exchange.set(config.pex && !self.head.private, ciphers, &mut self.peers);
        if begins {
            self.say_extensions_to_all();
        }
    }

    /// Trackers, the DHT and the local network are told of another port as soon as they allow; peers that we dialled at once.
    fn set_listen(&mut self, now: Time, config: &Config) {
        if self.listen == config.listen {
            return;
        }
        self.listen.clone_from(&config.listen);
        self.announced_port = config.announced_port();
        self.dht_ports = config.dht_ports();
        self.announces.hurry(now);
        self.dht.hurry(now);
        self.join_lsd();
        self.say_extensions_to_all();
    }

    fn say_extensions_to_all(&mut self) {
        let conns: Vec<_> = self.peers.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.say_extensions(conn));
    }
}
