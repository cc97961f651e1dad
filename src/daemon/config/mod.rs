//! The config file: TOML text ⇄ [`Settings`], every key of it, with the defaults of a service install.
//!
//! An unknown key, a wrong type or a value out of range is an [`Error`] that names file, line, key and what is allowed.
//! `conf/swarmtorrentd.toml` shows every key with its default; a test holds the two together.

mod alternative;
mod fields;
mod report;
mod rules;

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::config::{Config, DHT_BOOTSTRAP, Encryption as Mse, Proxy, Secret, TrackerConfig, UploadSlots};
use crate::base::net::Net;
use crate::base::rules::Defaults;
use crate::codec::socks::ProxyUrl;
use crate::codec::url::host_and_port;
use crate::daemon::allow::AllowList;
use crate::service::control::place;

pub use self::alternative::{Alternative, Day};
pub use self::rules::{QueueEnd, Rule};

/// Bytes of a config file; a longer one is refused.
pub const FILE_MAX: u64 = 1024 * 1024;
/// One part of so many of `memory` is for what connections hold: 64 MiB of the 256 that are the default, which is 64 KiB for each of
/// a thousand.
const HELD_SHARE: u64 = 4;

/// Everything that can be set. Sections and keys are those of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where things lie.
    pub paths: Paths,
    /// Directories to drop torrents into.
    pub watch: Vec<Watch>,
    /// Directories whose content is seeded.
    pub share: Vec<Share>,
    /// The user's programs.
    pub hook: Vec<Hook>,
    /// The control socket.
    pub control: Control,
    /// Connections with peers.
    pub peers: Peers,
    /// How much of everything.
    pub limits: Limits,
    /// What holds for some torrents.
    pub rule: Vec<Rule>,
    /// How content is kept.
    pub storage: Storage,
    /// Announcing.
    pub trackers: Trackers,
    /// The DHT.
    pub dht: Dht,
    /// Ports at the gateway.
    pub nat: Nat,
    /// The HTTP server.
    pub http: Http,
    /// The tracker server.
    pub tracker: Tracker,
    /// The log.
    pub log: Log,
}

/// `[paths]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// What the daemon keeps between runs.
    #[serde(with = "fields::path")]
    pub state: PathBuf,
    /// Where content goes.
    #[serde(with = "fields::path")]
    pub downloads: PathBuf,
}

/// `[[watch]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The directory.
    #[serde(with = "fields::path")]
    pub path: PathBuf,
    /// Where the content of what is found goes; `[paths] downloads` if none.
    #[serde(default, with = "fields::path_option", skip_serializing_if = "Option::is_none")]
    pub downloads: Option<PathBuf>,
    /// The label of what is found.
    #[serde(default)]
    pub label: String,
    /// Do not start what is found.
    #[serde(default)]
    pub paused: bool,
    /// Look into directories below, too.
    #[serde(default)]
    pub recursive: bool,
}

/// `[[share]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The directory.
    #[serde(with = "fields::path")]
    pub path: PathBuf,
    /// The kind of metainfo to make.
    #[serde(default)]
    pub format: ShareFormat,
    /// Announce there.
    #[serde(default)]
    pub trackers: Vec<String>,
}

/// What metainfo is made for shared content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShareFormat {
    /// A `.st` file.
    #[default]
    St,
    /// A `.torrent` file.
    Torrent,
}

/// `[[hook]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// When it is run.
    pub on: Vec<HookEvent>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Only for torrents with this label; for all if empty.
    #[serde(default)]
    pub label: String,
    /// How long it may take.
    #[serde(default = "ten_minutes", with = "fields::wait")]
    pub timeout: Duration,
}

/// What a hook waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HookEvent {
    /// A torrent was added.
    Added,
    /// The description of a torrent that came as a link is here.
    Metadata,
    /// Everything wanted is here.
    Finished,
    /// It stopped for a reason.
    Error,
}

const fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// The socket's path.
    #[serde(with = "fields::path")]
    pub socket: PathBuf,
    /// Its permissions.
    #[serde(with = "fields::mode")]
    pub mode: u32,
    /// Its group; the daemon's if empty.
    pub group: String,
}

/// `[peers]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Addresses to listen at; port 0 is any free one.
    #[serde(with = "fields::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Connections together.
    #[serde(deserialize_with = "fields::count")]
    pub max_connections: usize,
    /// Connections of a torrent.
    #[serde(deserialize_with = "fields::count")]
    pub max_per_torrent: usize,
    /// Connections being made.
    #[serde(deserialize_with = "fields::count")]
    pub max_half_open: usize,
    /// Peers of a torrent that are sent to at once.
    #[serde(with = "fields::slots")]
    pub upload_slots: UploadSlots,
    /// MSE.
    pub encryption: Encryption,
    /// uTP.
    pub utp: bool,
    /// Peer exchange.
    pub pex: bool,
    /// Local service discovery.
    pub lsd: bool,
    /// Tell whoever asks what lies in share directories.
    pub catalog: bool,
    /// The network interface to bind to; any if empty.
    pub interface: String,
    /// Tell others as little as can be.
    pub anonymous: bool,
    /// A SOCKS5 proxy that everything goes through; none if empty.
    #[serde(deserialize_with = "fields::proxy")]
    pub proxy: String,
    /// Networks that are not spoken with, and files of such.
    pub block: Vec<String>,
}

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// Never.
    Off,
    /// If the peer begins so.
    Allow,
    /// Connections begin so, and go on plainly if both may.
    #[default]
    Prefer,
    /// Everything, always.
    Require,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes a second that come in; 0 is no limit.
    #[serde(with = "fields::size")]
    pub down: u64,
    /// Bytes a second that go out; 0 is no limit.
    #[serde(with = "fields::size")]
    pub up: u64,
    /// Bytes of what connections hold (a quarter of it) and of files that are mapped at once (the rest).
    #[serde(with = "fields::size")]
    pub memory: u64,
    /// Torrents that download at once; 0 is all.
    #[serde(deserialize_with = "fields::count_or_zero")]
    pub active_downloads: usize,
    /// Torrents that seed at once; 0 is all.
    #[serde(deserialize_with = "fields::count_or_zero")]
    pub active_seeds: usize,
    /// Bytes that stay free on the disk.
    #[serde(with = "fields::size")]
    pub min_free_space: u64,
    /// Stop seeding there; 0 is never.
    #[serde(deserialize_with = "fields::ratio")]
    pub ratio: f64,
    /// Stop seeding after so long; zero is never.
    #[serde(with = "fields::duration")]
    pub seed_time: Duration,
    /// Stop seeding when nobody took anything for so long; zero is never.
    #[serde(with = "fields::duration")]
    pub idle_time: Duration,
    /// Other limits, at times. The last key, for it is a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alternative: Option<Alternative>,
}

/// `[storage]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// When room on the disk is taken.
    pub allocate: Allocate,
    /// How content is read to be sent.
    pub backend: Backend,
    /// Hash what is there when a torrent is added.
    pub verify_on_add: bool,
}

/// When room on the disk is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allocate {
    /// Before the first byte.
    #[default]
    Full,
    /// As bytes come.
    Sparse,
}

/// How content is read to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Straight from mapped files.
    Mmap,
    /// Through a buffer.
    #[default]
    Pread,
}

/// `[trackers]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trackers {
    /// To every tracker, not to the first that answers.
    pub announce_to_all: bool,
    /// How long one may take to answer.
    #[serde(with = "fields::wait")]
    pub timeout: Duration,
    /// The same as that of `[peers]`: there is one way for everything.
    #[serde(deserialize_with = "fields::proxy")]
    pub proxy: String,
}

/// `[dht]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dht {
    /// On.
    pub enabled: bool,
    /// Addresses; the UDP ports of `peers.listen` if empty.
    #[serde(with = "fields::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Nodes to begin with.
    #[serde(deserialize_with = "fields::hosts_and_ports")]
    pub bootstrap: Vec<String>,
    /// Ask and do not answer (BEP 43).
    pub read_only: bool,
}

/// `[nat]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Nat {
    /// UPnP.
    pub upnp: bool,
    /// NAT-PMP and PCP.
    pub natpmp: bool,
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Addresses; off if empty.
    #[serde(with = "fields::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Who may log in.
    pub username: String,
    /// The file that holds the password.
    pub password_file: String,
    /// Names that a browser may call it by.
    pub allow_hosts: Vec<String>,
    /// Serve content.
    pub web_seed: bool,
}

/// `[tracker]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracker {
    /// Addresses for UDP.
    #[serde(with = "fields::addresses")]
    pub udp: Vec<SocketAddr>,
    /// Addresses for HTTP.
    #[serde(with = "fields::addresses")]
    pub http: Vec<SocketAddr>,
    /// What clients are told to wait.
    #[serde(with = "fields::wait")]
    pub interval: Duration,
    /// Any hash, or only those of `allow_file`.
    pub open: bool,
    /// The hashes.
    pub allow_file: String,
    /// The pass keys of which an announce must have one; none are asked for if it is empty.
    pub keys_file: String,
    /// Proxies in front of it, whose word about an address counts.
    #[serde(with = "fields::nets")]
    pub proxies: Vec<Net>,
    /// HTTP connections.
    #[serde(deserialize_with = "fields::count")]
    pub max_connections: usize,
    /// Swarms.
    #[serde(deserialize_with = "fields::many")]
    pub max_swarms: usize,
    /// Peers of all swarms.
    #[serde(deserialize_with = "fields::many")]
    pub max_peers: usize,
    /// Where swarms are kept: `memory`, or the address of a store that is shared with other trackers.
    #[serde(deserialize_with = "fields::store")]
    pub store: String,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// What is logged.
    #[serde(with = "fields::level")]
    pub level: log::LevelFilter,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: Paths::default(),
            watch: vec![Watch::at("/var/lib/swarmtorrentd/watch")],
            share: Vec::new(),
            hook: Vec::new(),
            control: Control::default(),
            peers: Peers::default(),
            limits: Limits::default(),
            rule: Vec::new(),
            storage: Storage::default(),
            trackers: Trackers::default(),
            dht: Dht::default(),
            nat: Nat::default(),
            http: Http::default(),
            tracker: Tracker::default(),
            log: Log::default(),
        }
    }
}

impl Default for Paths {
    fn default() -> Self {
        Self { state: "/var/lib/swarmtorrentd".into(), downloads: "/var/lib/swarmtorrentd/downloads".into() }
    }
}

impl Watch {
    /// A directory with the usual options.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), downloads: None, label: String::new(), paused: false, recursive: false }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: place::SYSTEM_SOCKET.into(), mode: 0o660, group: String::new() }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            listen: vec![([0, 0, 0, 0], 6881).into(), ([0u16; 8], 6881).into()],
            max_connections: 1000,
            max_per_torrent: 100,
            max_half_open: 50,
            upload_slots: UploadSlots::Auto,
            encryption: Encryption::Prefer,
            utp: true,
            pex: true,
            lsd: true,
            catalog: true,
            interface: String::new(),
            anonymous: false,
            proxy: String::new(),
            block: Vec::new(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            down: 0,
            up: 0,
            memory: 256 << 20,
            active_downloads: 8,
            active_seeds: 0,
            min_free_space: 1 << 30,
            ratio: 0.0,
            seed_time: Duration::ZERO,
            idle_time: Duration::ZERO,
            alternative: None,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { allocate: Allocate::Full, backend: Backend::Pread, verify_on_add: true }
    }
}

impl Default for Trackers {
    fn default() -> Self {
        Self { announce_to_all: false, timeout: Duration::from_secs(15), proxy: String::new() }
    }
}

impl Default for Dht {
    fn default() -> Self {
        let bootstrap = DHT_BOOTSTRAP.map(|(host, port)| format!("{host}:{port}")).to_vec();
        Self { enabled: true, listen: Vec::new(), bootstrap, read_only: false }
    }
}

impl Default for Nat {
    fn default() -> Self {
        Self { upnp: true, natpmp: true }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: vec![([127, 0, 0, 1], 9091).into()],
            username: String::new(),
            password_file: String::new(),
            allow_hosts: Vec::new(),
            web_seed: false,
        }
    }
}

impl Default for Tracker {
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            http: Vec::new(),
            interval: Duration::from_secs(30 * 60),
            open: true,
            allow_file: String::new(),
            keys_file: String::new(),
            proxies: Vec::new(),
            max_connections: 4096,
            max_swarms: 1_000_000,
            max_peers: 4_000_000,
            store: "memory".to_owned(),
        }
    }
}

impl Tracker {
    /// The same with the lists of torrents and pass keys of another one: those may change while it runs.
    #[must_use]
    pub fn with_lists_of(&self, other: &Self) -> Self {
        let (allow_file, keys_file) = (other.allow_file.clone(), other.keys_file.clone());
        Self { open: other.open, allow_file, keys_file, ..self.clone() }
    }

    /// The keeper of its lists.
    #[must_use]
    pub fn allow_list(&self) -> AllowList {
        let is_on = !self.udp.is_empty() || !self.http.is_empty();
        let path = |is_used, file: &String| (is_on && is_used).then(|| PathBuf::from(file));
        AllowList::new(path(!self.open, &self.allow_file), path(!self.keys_file.is_empty(), &self.keys_file))
    }

    /// What the engine is to know of it; the driver replaces the addresses by those that are bound.
    #[must_use]
    pub fn config(&self) -> TrackerConfig {
        TrackerConfig {
            udp: self.udp.clone(),
            http: self.http.clone(),
            interval: self.interval,
            open: self.open,
            needs_key: !self.keys_file.is_empty(),
            proxies: self.proxies.clone(),
            store: (self.store != "memory").then(|| Secret(self.store.clone())),
            connections_max: self.max_connections,
            swarms_max: self.max_swarms,
            peers_max: self.max_peers,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: log::LevelFilter::Info }
    }
}

/// Why there are no settings: one sentence, with file, line and key where there are such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Settings {
    /// The defaults of somebody who runs the daemon without a file. `env` gives environment variables.
    pub fn of_user(env: impl Fn(&str) -> Option<OsString>) -> Self {
        let home = place::home(&env);
        Self {
            paths: Paths {
                state: place::user_state(&env),
                downloads: place::directory(&env, "XDG_DOWNLOAD_DIR").unwrap_or_else(|| home.join("Downloads")),
            },
            watch: vec![Watch::at(home.join("Torrents"))],
            control: Control { socket: place::user_socket(&env), ..Control::default() },
            ..Self::default()
        }
    }

    /// The settings that `text` says; `file` is its name for messages.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, Error> {
        let settings: Self = toml::from_str(text).map_err(|error| Error(report::sentence(text, file, &error)))?;
        for (index, watch) in settings.watch.iter().enumerate() {
            if settings.watch[..index].iter().any(|other| other.path == watch.path) {
                return Err(Error(format!("{}: two [[watch]] have the path {}", file.display(), watch.path.display())));
            }
        }
        if let Some(fault) = settings.limits.alternative.as_ref().and_then(Alternative::fault) {
            return Err(Error(format!("{}: {fault}", file.display())));
        }
        if let Some(fault) = rules::fault(&settings.rule) {
            return Err(Error(format!("{}: {fault}", file.display())));
        }
        for hook in &settings.hook {
            if hook.on.is_empty() || hook.command.first().is_none_or(String::is_empty) {
                let what =
                    "a [[hook]] needs `on`, such as [\"finished\"], and `command`, such as [\"/usr/local/bin/x\"]";
                return Err(Error(format!("{}: {what}", file.display())));
            }
        }
        if !settings.tracker.open && settings.tracker.allow_file.is_empty() {
            let what = "[tracker] open = false needs an allow_file that lists the torrents it is for";
            return Err(Error(format!("{}: {what}", file.display())));
        }
        let proxies = [&settings.peers.proxy, &settings.trackers.proxy];
        if proxies.iter().all(|proxy| !proxy.is_empty()) && proxies[0] != proxies[1] {
            let what = "[peers] proxy and [trackers] proxy are two: everything goes through one, so set one of them";
            return Err(Error(format!("{}: {what}", file.display())));
        }
        Ok(settings)
    }

    /// What cannot go together, said so that it can be mended; none if all can.
    #[must_use]
    pub fn conflict(&self) -> Option<&'static str> {
        let serves = !self.tracker.udp.is_empty() || !self.tracker.http.is_empty();
        let what = "a tracker ([tracker]) is reached directly, which goes around the proxy: leave one of them out";
        (serves && self.proxy().is_some()).then_some(what)
    }

    /// The proxy that everything goes through.
    #[must_use]
    pub fn proxy(&self) -> Option<ProxyUrl> {
        [&self.peers.proxy, &self.trackers.proxy].into_iter().find_map(|proxy| ProxyUrl::parse(proxy))
    }

    /// The proxy as the engine is to know it. Its own name is looked up in `hosts` alone: a name server would be asked directly.
    ///
    /// # Errors
    /// It is not there: what to do.
    pub fn proxy_among(&self, hosts: &[(String, IpAddr)]) -> Result<Option<Proxy>, String> {
        let Some(url) = self.proxy() else { return Ok(None) };
        let known = || hosts.iter().find(|(name, _)| name.eq_ignore_ascii_case(&url.host)).map(|(_, ip)| *ip);
        let ip = url.host.parse().ok().or_else(known).ok_or_else(|| {
            format!(
                "proxy: {} is no address, and not in /etc/hosts; to ask a name server for it would go around the proxy",
                url.host
            )
        })?;
        let login = url.login.map(|login| (Secret(login.user), Secret(login.password)));
        Ok(Some(Proxy { addr: SocketAddr::new(ip, url.port), login }))
    }

    /// The settings as a config file that [`Settings::parse`] reads back.
    ///
    /// # Panics
    /// Never: each setting has a TOML form.
    #[must_use]
    pub fn print(&self) -> String {
        toml::to_string(self).expect("each setting has a TOML form")
    }

    /// How content is kept. Descriptors that connections do not need may hold files.
    #[must_use]
    pub fn storage(&self, connections_max: usize) -> crate::storage::Settings {
        crate::storage::Settings {
            backend: match self.storage.backend {
                Backend::Mmap => crate::storage::Backend::Mmap,
                Backend::Pread => crate::storage::Backend::Pread,
            },
            min_free_bytes: self.limits.min_free_space,
            // The rest is for what connections hold.
            mapped_max_bytes: self.limits.memory - self.limits.memory / HELD_SHARE,
            files_max: (connections_max / 4).clamp(32, 1024),
        }
    }

    /// What holds for torrents whose user has said nothing else.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        Defaults {
            ratio: self.limits.ratio,
            seed_time: self.limits.seed_time,
            idle_time: self.limits.idle_time,
            rules: self.rule.iter().map(Rule::meant).collect(),
        }
    }

    /// What the engine is to know; the driver adds addresses as bound, name servers and hosts.
    #[must_use]
    pub fn engine(&self) -> Config {
        Config {
            downloads: self.paths.downloads.clone(),
            listen: self.peers.listen.clone(),
            memory_max: usize::try_from(self.limits.memory / HELD_SHARE).unwrap_or(usize::MAX),
            connections_max: self.peers.max_connections,
            connections_per_torrent_max: self.peers.max_per_torrent,
            half_open_max: self.peers.max_half_open,
            upload_slots: self.peers.upload_slots,
            encryption: match self.peers.encryption {
                Encryption::Off => Mse::Off,
                Encryption::Allow => Mse::Allow,
                Encryption::Prefer => Mse::Prefer,
                Encryption::Require => Mse::Require,
            },
            utp: self.peers.utp,
            pex: self.peers.pex,
            lsd: self.peers.lsd && !self.peers.anonymous,
            catalog: self.peers.catalog && !self.peers.anonymous,
            dht: self.dht.enabled,
            dht_listen: self.dht.listen.clone(),
            dht_bootstrap: self.dht.bootstrap.iter().filter_map(|text| host_and_port(text)).collect(),
            dht_read_only: self.dht.read_only || self.peers.anonymous,
            down_rate_bytes: self.limits.down,
            up_rate_bytes: self.limits.up,
            active_downloads_max: self.limits.active_downloads,
            active_seeds_max: self.limits.active_seeds,
            defaults: self.defaults().into(),
            verify_on_add: self.storage.verify_on_add,
            allocate_full: self.storage.allocate == Allocate::Full,
            announce_to_all: self.trackers.announce_to_all,
            tracker_timeout: self.trackers.timeout,
            tracker: self.tracker.config(),
            anonymous: self.peers.anonymous,
            proxy: None,
            name_servers: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// Keys that ask for what this version does not do. Defaults ask for nothing: what is missing there is only missing.
    #[must_use]
    pub fn unsupported(&self) -> Vec<&'static str> {
        let default = Self::default();
        [
            ("http.listen", !self.http.listen.is_empty() && self.http.listen != default.http.listen),
            ("http.web_seed", self.http.web_seed),
        ]
        .into_iter()
        .filter_map(|(key, asks)| asks.then_some(key))
        .collect()
    }
}

#[cfg(test)]
mod tests;
