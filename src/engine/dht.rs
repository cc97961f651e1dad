//! The DHT node among the rest: through which sockets it speaks, where it begins, who looks for peers, and what is kept of it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::config::Config;
use crate::base::ids::{SocketId, TorrentId};
use crate::base::rng::Rng;
use crate::base::storage::{Job, Storage};
use crate::base::time::Time;
use crate::codec::dht_state;
use crate::engine::asks::Purpose;
use crate::engine::questions::Questions;
use crate::engine::{Engine, Transmit};
use crate::protocol::dht::{Announcement, Dht, Event, Settings, Summary};
use crate::protocol::dns::Found;

/// Where it is kept, below the state directory.
pub const DHT_STATE: &str = "dht";
/// How often.
const SAVE_EVERY: Duration = Duration::from_mins(10);
/// How soon names that could not be looked up are tried again; doubles each time.
const NAMES_AGAIN: Duration = Duration::from_mins(1);
/// The longest wait between two tries.
const NAMES_AGAIN_MAX: Duration = Duration::from_hours(1);
/// Names to begin with; further ones are passed over.
const NAMES_MAX: usize = 64;

/// The node and what the engine knows of it.
#[derive(Debug)]
pub(super) struct DhtNode {
    pub(super) dht: Dht,
    /// By family, IPv4 first: through which socket it speaks, and where that is bound.
    sockets: [Option<(SocketId, SocketAddr)>; 2],
    /// Its sockets are its own.
    pub(super) is_apart: bool,
    pub(super) is_read_only: bool,
    pub(super) questions: Questions,
    /// Nodes to begin with, by name, that are not yet known by address.
    pub(super) names: Vec<(String, u16)>,
    names_at: Time,
    names_again: Duration,
    save_at: Time,
}

impl DhtNode {
    /// The node that the config wants.
    pub(super) fn new(config: &Config, rng: Rng) -> Option<Self> {
        let socket = |v6: bool| config.dht_sockets().find(|(_, addr)| addr.is_ipv6() == v6);
        let sockets = [socket(false), socket(true)];
        if !config.dht || sockets == [None; 2] {
            return None;
        }
        let settings = Settings { read_only: config.dht_read_only };
        let mut node = Self {
            dht: Dht::new(settings, sockets.map(|socket| socket.is_some()), rng),
            sockets,
            is_apart: !config.dht_listen.is_empty(),
            is_read_only: config.dht_read_only,
            questions: Questions::default(),
            names: Vec::new(),
            names_at: Time::NEVER,
            names_again: NAMES_AGAIN,
            save_at: Time::ZERO + SAVE_EVERY,
        };
        config.dht_bootstrap.iter().for_each(|(host, port)| node.begin_with(Time::ZERO, host, *port));
        Some(node)
    }

    /// A node to begin with, wherever it is.
    pub(super) fn begin_with(&mut self, now: Time, host: &str, port: u16) {
        match host.parse::<IpAddr>() {
            Ok(ip) => self.dht.add_node(now, SocketAddr::new(ip, port), true),
            Err(_) if self.names.len() < NAMES_MAX => {
                let name = (host.to_ascii_lowercase(), port);
                if !self.names.contains(&name) {
                    self.names.push(name);
                }
                self.names_at = self.names_at.min(now);
            }
            Err(_) => {}
        }
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.dht.poll_timeout().min(self.names_at).min(self.save_at)
    }

    /// Where the next datagram goes, and through which socket.
    pub(super) fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<Transmit> {
        let to = self.dht.poll_transmit(packet)?;
        let (socket, _) = self.sockets[usize::from(to.is_ipv6())].expect("it speaks only where it has a socket");
        Some(Transmit { socket, to })
    }

    /// Where its sockets are bound; IPv4 first.
    pub(super) fn listen(&self) -> [Option<SocketAddr>; 2] {
        self.sockets.map(|socket| socket.map(|(_, addr)| addr))
    }

    /// A name was looked up.
    pub(super) fn handle_resolved(&mut self, now: Time, name: &str, found: &Found) {
        let Ok(ips) = found else { return };
        let dht = &mut self.dht;
        self.names.retain(|(host, port)| {
            let is_it = host == name;
            if is_it {
                ips.iter().for_each(|ip| dht.add_node(now, SocketAddr::new(*ip, *port), true));
            }
            !is_it
        });
        if self.names.is_empty() {
            self.names_at = Time::NEVER;
        }
    }

    /// What the next run should know.
    fn state(&self) -> Vec<u8> {
        dht_state::write(&[false, true].map(|v6| self.dht.state(v6)))
    }
}

impl<S: Storage> Engine<S> {
    /// Takes over what an earlier run knew of the DHT; damaged bytes are as good as none.
    pub fn restore_dht(&mut self, now: Time, bytes: &[u8]) {
        let Some(node) = &mut self.dht else { return };
        match dht_state::parse(bytes) {
            Some(families) => {
                for (v6, (id, nodes)) in [false, true].into_iter().zip(&families) {
                    node.dht.restore(now, v6, *id, nodes);
                }
            }
            None => log::warn!("what was kept of the DHT is damaged; it begins anew"),
        }
    }

    /// What it counts, for `stats`.
    pub(super) fn dht_rows(&self) -> Vec<(String, u64)> {
        let Some(DhtNode { dht, .. }) = &self.dht else { return Vec::new() };
        let ((swarms, peers, items), (answered, refused)) = (dht.stored(), dht.counts());
        let stored = [("dht.swarms", swarms), ("dht.peers", peers), ("dht.items", items)];
        let counts = [("dht.queries_answered", answered), ("dht.queries_refused", refused)];
        let rows = stored.map(|(name, count)| (name, count as u64)).into_iter().chain(counts);
        rows.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Nodes that answered lately, of both families; none without a DHT.
    pub(super) fn dht_nodes(&self, now: Time) -> Option<usize> {
        self.dht.as_ref().map(|node| node.dht.view(now).iter().flatten().map(|family| family.good).sum())
    }

    /// Where the DHT speaks, as bound.
    pub(super) fn dht_listen(&self) -> Vec<SocketAddr> {
        self.dht.iter().flat_map(|node| node.listen().into_iter().flatten()).collect()
    }

    /// A timer of the DHT has come.
    pub(super) fn handle_dht_timeout(&mut self, now: Time) {
        let Some(node) = &mut self.dht else { return };
        node.dht.handle_timeout(now);
        if node.save_at <= now {
            node.save_at = now + SAVE_EVERY;
            self.save_dht(now);
        }
        let Some(node) = &mut self.dht else { return };
        if node.names_at <= now {
            node.names_at = now + node.names_again;
            node.names_again = (node.names_again * 2).min(NAMES_AGAIN_MAX);
            let names: Vec<String> = node.names.iter().map(|(host, _)| host.clone()).collect();
            names.iter().for_each(|name| self.resolve(now, name));
        }
    }

    /// Keeps what the next run should know. While nobody answers, what is kept is better than what is known.
    pub(super) fn save_dht(&mut self, now: Time) {
        let answers = self.dht_nodes(now) > Some(0);
        if let Some(node) = self.dht.as_ref().filter(|_| answers) {
            let bytes = node.state();
            self.start_job(Job::Save { name: PathBuf::from(DHT_STATE), bytes }, Purpose::Other);
        }
    }

    /// A torrent looks for peers, if it is time and there is a DHT.
    pub(super) fn search_dht(&mut self, now: Time, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(id).filter(|torrent| torrent.wants_dht(now)) else { return };
        let Some(node) = &mut self.dht else { return torrent.handle_dht_began(now, 0) };
        let port = |v6: bool| {
            let listen = self.config.listen.iter().find(|listen| listen.is_ipv6() == v6);
            listen.map_or(0, SocketAddr::port)
        };
        let announcement = Announcement { ports: [port(false), port(true)], seed: torrent.is_finished() };
        let announcement = Some(announcement).filter(|_| !torrent.is_peek());
        let searches = node.dht.find_peers(now, torrent.info_hash(), announcement);
        torrent.handle_dht_began(now, searches);
        self.stats.dht_searches += 1;
    }

    /// Tells torrents what came of their searches.
    pub(super) fn act_on_dht(&mut self, now: Time) {
        while let Some(event) = self.dht.as_mut().and_then(|node| node.dht.poll_event()) {
            if let Some(node) = &mut self.dht {
                node.questions.handle_event(now, &event);
            }
            let (Event::Peers(info_hash, _) | Event::Searched(info_hash, _)) = &event else { continue };
            let Some(&id) = self.by_hash.get(info_hash) else { continue };
            let torrent = self.torrents.get_mut(id).expect("by_hash names torrents that are there");
            match event {
                Event::Peers(_, peers) => torrent.handle_dht_peers(now, &peers),
                Event::Searched(_, Summary { announces, announced, .. }) if announces != torrent.is_peek() => {
                    torrent.handle_dht_searched(now, announced);
                }
                _ => continue, // a user's search
            }
            self.touched.push(id);
        }
    }
}
