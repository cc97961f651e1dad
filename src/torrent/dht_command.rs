//! What a user can ask of the DHT, and what it answers: plain values.
//!
//! A search takes seconds and an answer is given at once: it says what is known by now, and whether the search goes on. Whoever
//! asks the same again is told more.

use std::net::{IpAddr, SocketAddr};

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::codec::krpc::NodeId;
use crate::protocol::dht::items::OwnedItem;

/// One thing a user asks of the DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhtCommand {
    /// How it is.
    State,
    /// Peers of a swarm.
    Find(InfoHash),
    /// So many of the swarms that other nodes know (BEP 51).
    Sample(usize),
    /// An item (BEP 44).
    Get {
        /// Where it is found.
        target: Sha1Hash,
        /// Tells apart the items of one key; empty for one that nobody may change.
        salt: Vec<u8>,
    },
    /// An item to be kept by others (BEP 44). Its author has signed it: no secret comes here.
    Put(OwnedItem),
}

/// How far a search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// It goes on: there may be more soon.
    pub searches: bool,
    /// Nodes that answered, in what of it has ended.
    pub answers: usize,
}

impl Progress {
    /// The word for it on the control socket.
    #[must_use]
    pub const fn word(self) -> &'static str {
        if self.searches { "searching" } else { "done" }
    }
}

/// One node of ours: one address, in the overlay of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRow {
    /// Our number there.
    pub id: NodeId,
    /// The socket that it speaks through, as bound.
    pub listen: SocketAddr,
    /// Where others see it, once enough of them agree.
    pub seen_as: Option<IpAddr>,
    /// Nodes in its table.
    pub nodes: usize,
    /// Those of them that answered lately.
    pub good: usize,
}

/// A swarm that others know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swarm {
    /// The wire hash.
    pub info_hash: InfoHash,
    /// Its name, where some peer has told it (BEP 9): a stranger's, to be escaped before it is shown.
    pub name: Option<String>,
    /// Bytes of its content.
    pub size: Option<u64>,
}

/// Figures of the DHT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DhtState {
    /// Of the first addresses of both families, IPv4 before IPv6, then of the second ones.
    pub nodes: Vec<NodeRow>,
    /// It answers nobody (BEP 43).
    pub read_only: bool,
    /// Searches under way and waiting.
    pub searches: usize,
    /// Swarms, peers and items that are kept for others.
    pub stored: (usize, usize, usize),
    /// Queries that were answered, and those that were not.
    pub queries: (u64, u64),
    /// Nodes to begin with whose names are not looked up yet: host and port.
    pub names: Vec<(String, u16)>,
}

/// The answer to a command that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DhtAnswer {
    /// To `State`.
    State(Box<DhtState>),
    /// To `Find`: peers, in order.
    /// And about how many seed, and do not, where nodes tell it (BEP 33).
    Peers(Vec<SocketAddr>, Option<(u32, u32)>, Progress),
    /// To `Sample`: swarms in order of their hashes.
    Swarms(Vec<Swarm>, Progress),
    /// To `Get`: the newest version that was found.
    Item(Option<OwnedItem>, Progress),
    /// To `Put`: where it is found, and by how many nodes it is kept.
    Put(Sha1Hash, usize, Progress),
}
