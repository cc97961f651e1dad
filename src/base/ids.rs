//! The names of things that several layers speak of. Each is a key with a generation, or a small number.

use crate::base::arena::Id;

/// Marks the keys of connections.
#[derive(Debug)]
pub enum ConnKey {}
/// Marks the keys of torrents.
#[derive(Debug)]
pub enum TorrentKey {}
/// Marks the keys of opened content.
#[derive(Debug)]
pub enum StoreKey {}

/// A stream connection, given by the engine; the driver keeps its socket under the same id.
pub type ConnId = Id<ConnKey>;
/// A torrent in the engine.
pub type TorrentId = Id<TorrentKey>;
/// Content opened in a `Storage`, given by the storage.
pub type StoreId = Id<StoreKey>;

/// A job that the driver carries out for the engine. Counted up, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// The acknowledgement of a command whose changes are on their way to the disk. Counted up, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AckId(pub u64);

/// Metainfo that is being read for a command, which is answered later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// A listening stream socket of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerId {
    /// Bound to the `n`-th address of `[peers] listen`.
    Peers(u16),
    /// Bound to the `n`-th address of `[tracker] http`.
    Tracker(u16),
}

/// A datagram socket of the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketId {
    /// Bound to the `n`-th address of `[peers] listen`: UDP trackers, uTP, and the DHT where it has no sockets of its own.
    Peers(u16),
    /// Bound to the `n`-th address of `[dht] listen`: the DHT alone.
    Dht(u16),
    /// Bound to the `n`-th address of `[tracker] udp`: the tracker server alone.
    Tracker(u16),
    /// The DNS resolver's IPv4 socket, on a random port of its own.
    Resolver4,
    /// The DNS resolver's IPv6 socket, on a random port of its own.
    Resolver6,
    /// The socket whose datagrams a proxy of an IPv4 address passes on, on a random port of its own.
    Relay4,
    /// The same for a proxy of an IPv6 address.
    Relay6,
    /// All that are members of the IPv4 group of local service discovery, one on each interface.
    Lsd4,
    /// The same of IPv6.
    Lsd6,
}
