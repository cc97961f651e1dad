//! The settings of a node, as plain values. `daemon/config` reads them from TOML; its page says what each key means.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::base::ids::SocketId;
use crate::base::net::Net;
use crate::base::rules::Defaults;

/// Whether MSE encryption of peer connections is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// Neither offered nor taken.
    Off,
    /// Taken when a peer begins so.
    Allow,
    /// The handshake is tried first, plain connections are taken too; what follows is plain where both ends take that.
    #[default]
    Prefer,
    /// Everything is ciphered; nobody else is spoken with.
    Require,
}

/// How many peers of a torrent are unchoked at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UploadSlots {
    /// As many as the measured upload rate feeds.
    #[default]
    Auto,
    /// Just so many.
    Fixed(u32),
}

/// A text that has a password in it, and tells nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A SOCKS5 proxy that everything goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub addr: SocketAddr,
    /// Who we are to it: user and password.
    pub login: Option<(Secret, Secret)>,
}

/// The tracker server; it is off while it has nowhere to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerConfig {
    /// Addresses for UDP, as bound.
    pub udp: Vec<SocketAddr>,
    /// Addresses for HTTP, as bound.
    pub http: Vec<SocketAddr>,
    /// What clients are told to wait between announces; a peer that is silent for twice as long is forgotten.
    pub interval: Duration,
    /// For any torrent; else only for those that it is told of.
    pub open: bool,
    /// Every announce must have a pass key in its path.
    pub needs_key: bool,
    /// Proxies in front of us, whose word about an address counts.
    pub proxies: Vec<Net>,
    /// The address of a store that it shares its swarms in, with other trackers; none for its own memory.
    pub store: Option<Secret>,
    /// HTTP connections; for one more the one that is silent for longest is closed.
    pub connections_max: usize,
    /// Swarms; one more takes the place of one with hardly anybody in it, or is refused.
    pub swarms_max: usize,
    /// Peers of all swarms together; one more is told of others, and not remembered.
    pub peers_max: usize,
}

impl TrackerConfig {
    /// True if there is a tracker.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.udp.is_empty() || !self.http.is_empty()
    }
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            http: Vec::new(),
            interval: Duration::from_secs(30 * 60),
            open: true,
            needs_key: false,
            proxies: Vec::new(),
            store: None,
            connections_max: 4096,
            swarms_max: 1_000_000,
            peers_max: 4_000_000,
        }
    }
}

/// DHT nodes that anybody may begin with.
pub const DHT_BOOTSTRAP: [(&str, u16); 2] = [("dht.libtorrent.org", 25_401), ("dht.transmissionbt.com", 6881)];

/// What the engine needs to know. What only the programs need (paths of state, watch directories, the log) is not here.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "one switch a key of the config file")]
pub struct Config {
    /// Where content goes unless an `add` says otherwise.
    pub downloads: PathBuf,
    /// Addresses to listen at, as bound (so no port is 0 once the driver has bound them).
    pub listen: Vec<SocketAddr>,
    /// Bytes of unfinished and unsent messages, and of long fields of pieces, that all connections hold; beyond it those that hold most are closed.
    pub memory_max: usize,
    /// Connections of all kinds together.
    pub connections_max: usize,
    /// Connections of one torrent.
    pub connections_per_torrent_max: usize,
    /// Connections that are being made.
    pub half_open_max: usize,
    /// Upload slots of a torrent.
    pub upload_slots: UploadSlots,
    /// MSE.
    pub encryption: Encryption,
    /// uTP on.
    pub utp: bool,
    /// PEX on.
    pub pex: bool,
    /// LSD on.
    pub lsd: bool,
    /// Whoever asks is told what lies in our share directories.
    pub catalog: bool,
    /// DHT on.
    pub dht: bool,
    /// Where the DHT speaks, as bound; at `listen` if empty.
    pub dht_listen: Vec<SocketAddr>,
    /// DHT nodes to begin with: host and port.
    pub dht_bootstrap: Vec<(String, u16)>,
    /// The DHT node answers nobody (BEP 43).
    pub dht_read_only: bool,
    /// Bytes a second that may come in; 0 is no limit.
    pub down_rate_bytes: u64,
    /// Bytes a second that may go out; 0 is no limit.
    pub up_rate_bytes: u64,
    /// Torrents that may download at once; 0 is all.
    pub active_downloads_max: usize,
    /// Torrents that may seed at once; 0 is all.
    pub active_seeds_max: usize,
    /// What holds for torrents whose user has said nothing else.
    pub defaults: Arc<Defaults>,
    /// Hash content that is there when a torrent is added.
    pub verify_on_add: bool,
    /// Allocate whole files before the first byte.
    pub allocate_full: bool,
    /// Announce to every tracker of every tier, not to the first that answers.
    pub announce_to_all: bool,
    /// How long a tracker may take to answer.
    pub tracker_timeout: Duration,
    /// The tracker server.
    pub tracker: TrackerConfig,
    /// Others are told as little of us as can be.
    pub anonymous: bool,
    /// Everything goes through it, or nowhere.
    pub proxy: Option<Proxy>,
    /// DNS servers to ask, in order.
    pub name_servers: Vec<SocketAddr>,
    /// Names that need no server, from the hosts file.
    pub hosts: Vec<(String, std::net::IpAddr)>,
}

impl Config {
    /// The same with as many connections, with peers and to the tracker server, as `room` allows.
    #[must_use]
    pub fn within(mut self, room: impl FnOnce(&Self) -> (usize, usize)) -> Self {
        (self.connections_max, self.tracker.connections_max) = room(&self);
        self
    }

    /// The same for a node all of whose traffic goes through `proxy`: it listens nowhere, asks no name server, is silent in the local
    /// network, and answers nobody in the DHT, where it speaks through the proxy in IPv4.
    #[must_use]
    pub fn through(self, proxy: Proxy) -> Self {
        Self {
            listen: Vec::new(),
            lsd: false,
            dht_listen: vec![SocketAddr::from(([0, 0, 0, 0], 0))],
            dht_read_only: true,
            tracker: TrackerConfig::default(),
            name_servers: Vec::new(),
            hosts: Vec::new(),
            proxy: Some(proxy),
            ..self
        }
    }

    /// The port that trackers are told. Where nobody is let in, or told of, it is one that is nobody's: trackers refuse 0.
    #[must_use]
    pub fn announced_port(&self) -> u16 {
        match self.listen.first() {
            Some(addr) if !self.anonymous => addr.port(),
            _ if self.anonymous || self.proxy.is_some() => 1,
            _ => 0,
        }
    }

    /// The sockets that the DHT speaks through, by the addresses that they are bound to.
    pub fn dht_sockets(&self) -> impl Iterator<Item = (SocketId, SocketAddr)> {
        let (addrs, id): (_, fn(u16) -> SocketId) = match &self.dht_listen[..] {
            [] => (&self.listen[..], SocketId::Peers),
            own => (own, SocketId::Dht),
        };
        (0..=u16::MAX).map(id).zip(addrs.iter().copied())
    }

    /// The port that the DHT speaks from, in IPv4 and IPv6; none where it does not.
    #[must_use]
    pub fn dht_ports(&self) -> [Option<u16>; 2] {
        let port = |v6| self.dht_sockets().find(|(_, addr)| addr.is_ipv6() == v6).map(|(_, addr)| addr.port());
        [port(false), port(true)].map(|port| port.filter(|port| self.dht && !self.anonymous && *port != 0))
    }

    /// What a socket of the driver's is bound to; none for the resolver's and those of the local network's groups.
    #[must_use]
    pub fn addr_of(&self, socket: SocketId) -> Option<SocketAddr> {
        match socket {
            SocketId::Peers(index) => self.listen.get(usize::from(index)).copied(),
            SocketId::Dht(index) => self.dht_listen.get(usize::from(index)).copied(),
            SocketId::Tracker(index) => self.tracker.udp.get(usize::from(index)).copied(),
            SocketId::Resolver4 | SocketId::Resolver6 | SocketId::Relay4 | SocketId::Relay6 => None,
            SocketId::Lsd4 | SocketId::Lsd6 => None,
        }
    }

    /// The datagram socket that is bound to an address.
    #[must_use]
    pub fn socket_at(&self, addr: SocketAddr) -> Option<SocketId> {
        let at =
            |addrs: &[SocketAddr]| addrs.iter().position(|other| *other == addr).and_then(|at| u16::try_from(at).ok());
        let own = at(&self.listen).map(SocketId::Peers).or_else(|| at(&self.dht_listen).map(SocketId::Dht));
        own.or_else(|| at(&self.tracker.udp).map(SocketId::Tracker))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            downloads: PathBuf::from("/downloads"),
            listen: Vec::new(),
            memory_max: 64 << 20,
            connections_max: 1000,
            connections_per_torrent_max: 100,
            half_open_max: 50,
            upload_slots: UploadSlots::Auto,
            encryption: Encryption::Prefer,
            utp: true,
            pex: true,
            lsd: true,
            catalog: true,
            dht: true,
            dht_listen: Vec::new(),
            dht_bootstrap: DHT_BOOTSTRAP.map(|(host, port)| (host.to_owned(), port)).to_vec(),
            dht_read_only: false,
            down_rate_bytes: 0,
            up_rate_bytes: 0,
            active_downloads_max: 8,
            active_seeds_max: 0,
            defaults: Arc::default(),
            verify_on_add: true,
            allocate_full: true,
            announce_to_all: false,
            tracker_timeout: Duration::from_secs(15),
            tracker: TrackerConfig::default(),
            anonymous: false,
            proxy: None,
            name_servers: Vec::new(),
            hosts: Vec::new(),
        }
    }
}
