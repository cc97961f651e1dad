//! The messages of the DHT (BEP 5), with what BEPs 32 (IPv6), 33 (scrapes), 42 (`ip`), 43 (read-only nodes), 44 (items) and
//! 51 (samples) add to them.
//!
//! Parsing forgives what does no harm: unknown keys are passed over, and an optional value of the wrong type is as good as
//! absent. A query whose needed arguments are missing is [`Query::Bad`], which is answered by an error (BEP 5: 203).

use std::net::{IpAddr, SocketAddr};

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::codec::bencode::{self, Dict, DictWriter, Value, write_bytes};

/// Bytes of the longest message that is written (BEP 32).
pub const PACKET_MAX: usize = 1024;
/// Values in a message; one with more is garbage. A full list of peers is some 150.
const VALUES_MAX: usize = 1024;
/// Longest transaction that is answered, bytes; those in use have 2 to 8.
const TRANSACTION_MAX: usize = 32;
/// Longest token that is kept and given back, bytes.
pub const TOKEN_MAX: usize = 64;
/// Longest value of an item, bencoded, in bytes (BEP 44).
pub const VALUE_MAX: usize = 1000;
/// Longest salt of a mutable item, bytes (BEP 44).
pub const SALT_MAX: usize = 64;
/// Bytes of a filter of addresses (BEP 33).
pub const FILTER_LEN: usize = 256;

/// The number of a node, or of what is looked for: both live in one space.
pub type NodeId = Sha1Hash;

/// A node: its number, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// What it calls itself.
    pub id: NodeId,
    /// Where it answers.
    pub addr: SocketAddr,
}

/// Of which families a query wants nodes (BEP 32). Neither: of the family that it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Want {
    /// `n4`.
    pub v4: bool,
    /// `n6`.
    pub v6: bool,
}

/// A message and who said it.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'b> {
    /// `t`: chosen by who asks, echoed by who answers.
    pub transaction: &'b [u8],
    /// `ip`: where the answering node sees the asking one (BEP 42).
    pub seen_as: Option<SocketAddr>,
    /// `v`: what the sender runs.
    pub version: Option<&'b [u8]>,
    /// What is said.
    pub body: Body<'b>,
}

/// The three kinds of messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'b> {
    /// `q`.
    Query {
        /// Who asks.
        id: NodeId,
        /// It answers nobody and is to be left out of tables (BEP 43).
        read_only: bool,
        /// What it asks.
        query: Query<'b>,
    },
    /// `r`.
    Response {
        /// Who answers.
        id: NodeId,
        /// What it says.
        response: Box<Response<'b>>,
    },
    /// `e`.
    Error {
        /// What kind of error, as in BEP 5 and 44.
        code: i64,
        /// What happened, in words.
        text: &'b [u8],
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query<'b> {
    /// Whether the node is there.
    Ping,
    /// Nodes near `target`.
    FindNode {
        /// What they should be near to.
        target: NodeId,
        /// Of which families.
        want: Want,
    },
    /// Peers of a swarm, and nodes nearer to it.
    GetPeers {
        /// Which swarm.
        info_hash: InfoHash,
        /// Of which families nodes are wanted.
        want: Want,
        /// Seeders are of no use (BEP 33).
        no_seeds: bool,
        /// The counts of the swarm are wanted, as filters (BEP 33).
        scrape: bool,
    },
    /// The sender is a peer of a swarm.
    AnnouncePeer {
        /// Which swarm.
        info_hash: InfoHash,
        /// Where it listens; none: at the port that this came from.
        port: Option<u16>,
        /// It has everything (BEP 33).
        seed: bool,
        /// From an answer to `GetPeers`.
        token: &'b [u8],
    },
    /// An item (BEP 44), and nodes nearer to it.
    Get {
        /// Which.
        target: Sha1Hash,
        /// Of which families nodes are wanted.
        want: Want,
        /// Only one with a greater number is wanted.
        newer_than: Option<i64>,
    },
    /// An item to keep (BEP 44).
    Put {
        /// From an answer to `Get`.
        token: &'b [u8],
        /// What to keep.
        item: Item<'b>,
        /// It should replace the item with this number and no other.
        replaces: Option<i64>,
    },
    /// Some of the swarms that the node knows (BEP 51), and nodes near `target`.
    Sample {
        /// What the nodes should be near to.
        target: NodeId,
        /// Of which families.
        want: Want,
    },
    /// It is not known, but says what it looks for: it is answered like [`Query::FindNode`].
    Unknown {
        /// What the nodes should be near to.
        target: NodeId,
        /// Of which families.
        want: Want,
    },
    /// It cannot be answered, but by this error.
    Bad(ErrorKind),
}

/// Why a query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// An argument is missing or has no sense, or a value is not bencoded canonically.
    Malformed,
    /// The token is not one that we gave this address lately.
    BadToken,
    /// Nobody knows this query.
    UnknownMethod,
    /// The node keeps no more.
    Full,
    /// The value is longer than [`VALUE_MAX`].
    ValueTooLong,
    /// The signature is none of this item.
    BadSignature,
    /// The salt is longer than [`SALT_MAX`].
    SaltTooLong,
    /// The item that should be replaced is not the one that is here.
    Replaced,
    /// A newer item is here.
    OlderItem,
}

impl ErrorKind {
    /// Its number and words (BEP 5, 44).
    #[must_use]
    pub const fn describe(self) -> (i64, &'static str) {
        match self {
            Self::Full => (202, "Server Error"),
            Self::Malformed => (203, "Protocol Error"),
            Self::BadToken => (203, "Protocol Error, bad token"),
            Self::UnknownMethod => (204, "Method Unknown"),
            Self::ValueTooLong => (205, "message (v field) too big"),
            Self::BadSignature => (206, "invalid signature"),
            Self::SaltTooLong => (207, "salt (salt field) too big"),
            Self::Replaced => (301, "the CAS hash mismatched, re-read value and try again"),
            Self::OlderItem => (302, "sequence number less than current"),
        }
    }
}

/// Something to keep (BEP 44).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<'b> {
    /// What it is, bencoded.
    pub value: &'b [u8],
    /// Who may change it; none: nobody, and its target is the hash of its value.
    pub author: Option<Author<'b>>,
}

/// Who wrote a mutable item, and which version this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author<'b> {
    /// The public key (ed25519).
    pub key: &'b [u8; 32],
    /// Tells apart the items of one key; empty in answers.
    pub salt: &'b [u8],
    /// Grows with each version.
    pub version: i64,
    /// Of salt, version and value.
    pub signature: &'b [u8; 64],
}

/// What is answered; most of it belongs to one query or another.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Response<'b> {
    /// What allows to announce, or put.
    pub token: Option<&'b [u8]>,
    /// Nodes near to what was looked for; none where nothing is said of them.
    pub nodes: Option<Vec<Node>>,
    /// The same, of IPv6.
    pub nodes6: Option<Vec<Node>>,
    /// Peers of the swarm.
    pub peers: Vec<SocketAddr>,
    /// Who seeds, and who does not (BEP 33).
    pub filters: Option<[&'b [u8; FILTER_LEN]; 2]>,
    /// The value of an item, bencoded.
    pub value: Option<&'b [u8]>,
    /// The number of the item's version, also where the value is left out.
    pub version: Option<i64>,
    /// Key and signature of the item.
    pub signed: Option<(&'b [u8; 32], &'b [u8; 64])>,
    /// Swarms (BEP 51): 20 bytes each.
    pub samples: Option<Samples<'b>>,
}

/// Some of the swarms that a node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples<'b> {
    /// Their hashes.
    pub hashes: &'b [[u8; 20]],
    /// How many there are.
    pub known: u32,
    /// After so many seconds there may be others.
    pub interval_secs: u32,
}

fn array<'b, const N: usize>(dict: &Dict<'b>, key: &[u8]) -> Option<&'b [u8; N]> {
    dict.bytes(key)?.try_into().ok()
}

fn hash(dict: &Dict<'_>, key: &[u8]) -> Option<Sha1Hash> {
    array(dict, key).copied().map(Sha1Hash)
}

fn is_set(dict: &Dict<'_>, key: &[u8]) -> bool {
    dict.int(key).is_some_and(|int| int != 0)
}

/// The address in six or eighteen bytes (BEP 5, 32); none if they are of another length, or its port is 0.
#[must_use]
pub fn compact_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    let port = u16::from_be_bytes(*port);
    (port != 0).then_some(SocketAddr::new(ip, port))
}

/// Appends an address in six or eighteen bytes.
pub fn write_addr(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

/// The nodes that stand one after another, with addresses of `addr_len` bytes; those at port 0 are left out.
#[must_use]
pub fn compact_nodes(bytes: &[u8], addr_len: usize) -> Option<Vec<Node>> {
    let len = 20 + addr_len;
    let node = |bytes: &[u8]| {
        let (id, addr) = bytes.split_first_chunk()?;
        Some(Node { id: Sha1Hash(*id), addr: compact_addr(addr)? })
    };
    bytes.len().is_multiple_of(len).then(|| bytes.chunks_exact(len).filter_map(node).collect())
}

/// Appends nodes, one after another.
pub fn write_nodes(out: &mut Vec<u8>, nodes: &[Node]) {
    for node in nodes {
        out.extend_from_slice(&node.id.0);
        write_addr(out, node.addr);
    }
}

impl Want {
    fn parse(args: &Dict<'_>) -> Self {
        let list = args.list(b"want").unwrap_or_default();
        let has = |family: &[u8]| list.iter().any(|value| value.as_bytes() == Some(family));
        Self { v4: has(b"n4"), v6: has(b"n6") }
    }

    fn write(self, dict: &mut DictWriter<'_>) {
        if self != Self::default() {
            let out = dict.key("want");
            out.push(b'l');
            for (wanted, family) in [(self.v4, b"n4"), (self.v6, b"n6")] {
                if wanted {
                    write_bytes(out, family);
                }
            }
            out.push(b'e');
        }
    }
}

impl<'b> Message<'b> {
    /// Reads a datagram; none if it is no message to which anything can be said.
    #[must_use]
    pub fn parse(packet: &'b [u8]) -> Option<Self> {
        let (document, unsorted) = bencode::parse_noting(packet, VALUES_MAX).ok()?;
        let dict = document.as_dict()?;
        let transaction = dict.bytes(b"t").filter(|bytes| bytes.len() <= TRANSACTION_MAX)?;
        let body = match dict.bytes(b"y")? {
            b"q" => {
                let args = dict.dict(b"a")?;
                let id = hash(args, b"id")?;
                let query = Query::parse(dict.bytes(b"q")?, args, unsorted.is_none());
                Body::Query {
                    id,
                    read_only: is_set(dict, b"ro"),
                    query: query.unwrap_or(Query::Bad(ErrorKind::Malformed)),
                }
            }
            b"r" => {
                let values = dict.dict(b"r")?;
                Body::Response { id: hash(values, b"id")?, response: Box::new(Response::parse(values)) }
            }
            b"e" => {
                let list = dict.list(b"e")?;
                let text = list.get(1).and_then(Value::as_bytes).unwrap_or_default();
                Body::Error { code: list.first()?.as_int()?, text }
            }
            _ => return None,
        };
        Some(Self { transaction, seen_as: dict.bytes(b"ip").and_then(compact_addr), version: dict.bytes(b"v"), body })
    }

    /// Replaces what is in `out` by the message.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let mut dict = DictWriter::begin(out);
        match &self.body {
            Body::Query { id, query, .. } => query.write_args(*id, DictWriter::begin(dict.key("a"))),
            Body::Error { code, text } => {
                let list = dict.key("e");
                list.push(b'l');
                bencode::write_int(list, *code);
                write_bytes(list, text);
                list.push(b'e');
            }
            Body::Response { .. } => {}
        }
        if let Some(addr) = self.seen_as {
            let mut bytes = Vec::with_capacity(18);
            write_addr(&mut bytes, addr);
            dict.bytes("ip", &bytes);
        }
        let kind = match &self.body {
            Body::Query { query, .. } => {
                dict.bytes("q", query.method());
                b"q"
            }
            Body::Response { id, response } => {
                response.write(*id, DictWriter::begin(dict.key("r")));
                b"r"
            }
            Body::Error { .. } => b"e",
        };
        if matches!(self.body, Body::Query { read_only: true, .. }) {
            dict.int("ro", 1);
        }
        dict.bytes("t", self.transaction);
        if let Some(version) = self.version {
            dict.bytes("v", version);
        }
        dict.bytes("y", kind);
        dict.end();
    }
}

impl<'b> Query<'b> {
    /// The query that `method` is with these arguments; none if one of them is missing or has no sense.
    fn parse(method: &[u8], args: &Dict<'b>, is_sorted: bool) -> Option<Self> {
        let want = Want::parse(args);
        let token = || args.bytes(b"token").filter(|token| token.len() <= TOKEN_MAX);
        Some(match method {
            b"ping" => Self::Ping,
            b"find_node" => Self::FindNode { target: hash(args, b"target")?, want },
            b"get_peers" => Self::GetPeers {
                info_hash: hash(args, b"info_hash")?,
                want,
                no_seeds: is_set(args, b"noseed"),
                scrape: is_set(args, b"scrape"),
            },
            b"announce_peer" => {
                let port = args.int(b"port").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
                let port = if is_set(args, b"implied_port") { None } else { Some(port?) };
                let (info_hash, seed) = (hash(args, b"info_hash")?, is_set(args, b"seed"));
                Self::AnnouncePeer { info_hash, port, seed, token: token()? }
            }
            b"get" => Self::Get { target: hash(args, b"target")?, want, newer_than: args.int(b"seq") },
            b"put" => match Item::parse(args, is_sorted) {
                Ok(item) => Self::Put { token: token()?, item, replaces: args.int(b"cas") },
                Err(error) => Self::Bad(error),
            },
            b"sample_infohashes" => Self::Sample { target: hash(args, b"target")?, want },
            _ => match hash(args, b"target").or_else(|| hash(args, b"info_hash")) {
                Some(target) => Self::Unknown { target, want },
                None => Self::Bad(ErrorKind::UnknownMethod),
            },
        })
    }

    /// What it is called.
    #[must_use]
    pub const fn method(&self) -> &'static [u8] {
        match self {
            Self::Ping => b"ping",
            Self::FindNode { .. } => b"find_node",
            Self::GetPeers { .. } => b"get_peers",
            Self::AnnouncePeer { .. } => b"announce_peer",
            Self::Get { .. } => b"get",
            Self::Put { .. } => b"put",
            Self::Sample { .. } => b"sample_infohashes",
            Self::Unknown { .. } | Self::Bad(_) => b"unknown",
        }
    }

    fn write_args(&self, id: NodeId, mut args: DictWriter<'_>) {
        if let Self::Put { replaces: Some(version), .. } = self {
            args.int("cas", *version);
        }
        args.bytes("id", &id.0);
        match self {
            Self::Ping | Self::Bad(_) => {}
            Self::FindNode { target, want } | Self::Sample { target, want } | Self::Unknown { target, want } => {
                args.bytes("target", &target.0);
                want.write(&mut args);
            }
            Self::GetPeers { info_hash, want, no_seeds, scrape } => {
                args.bytes("info_hash", &info_hash.0);
                if *no_seeds {
                    args.int("noseed", 1);
                }
                if *scrape {
                    args.int("scrape", 1);
                }
                want.write(&mut args);
            }
            Self::AnnouncePeer { info_hash, port, seed, token } => {
                if port.is_none() {
                    args.int("implied_port", 1);
                }
                args.bytes("info_hash", &info_hash.0);
                args.int("port", port.map_or(1, i64::from));
                if *seed {
                    args.int("seed", 1);
                }
                args.bytes("token", token);
            }
            Self::Get { target, want, newer_than } => {
                if let Some(version) = newer_than {
                    args.int("seq", *version);
                }
                args.bytes("target", &target.0);
                want.write(&mut args);
            }
            Self::Put { token, item, .. } => {
                if let Some(author) = &item.author {
                    args.bytes("k", author.key);
                    if !author.salt.is_empty() {
                        args.bytes("salt", author.salt);
                    }
                    args.int("seq", author.version);
                    args.bytes("sig", author.signature);
                }
                args.bytes("token", token);
                args.key("v").extend_from_slice(item.value);
            }
        }
        args.end();
    }
}

impl<'b> Item<'b> {
    fn parse(args: &Dict<'b>, is_sorted: bool) -> Result<Self, ErrorKind> {
        let value = args.get(b"v").ok_or(ErrorKind::Malformed)?.raw;
        let salt = args.bytes(b"salt").unwrap_or_default();
        if value.len() > VALUE_MAX {
            return Err(ErrorKind::ValueTooLong);
        }
        if salt.len() > SALT_MAX {
            return Err(ErrorKind::SaltTooLong);
        }
        if !is_sorted && bencode::parse_canonical(value, VALUES_MAX).is_err() {
            return Err(ErrorKind::Malformed);
        }
        let author = match args.get(b"k") {
            None => None,
            Some(_) => {
                let needed = (array(args, b"k"), array(args, b"sig"), args.int(b"seq"));
                let (Some(key), Some(signature), Some(version)) = needed else { return Err(ErrorKind::Malformed) };
                Some(Author { key, salt, version, signature })
            }
        };
        Ok(Self { value, author })
    }
}

impl<'b> Response<'b> {
    fn parse(values: &Dict<'b>) -> Self {
        let small = |key: &[u8]| values.int(key).and_then(|int| u32::try_from(int).ok());
        let samples = values.bytes(b"samples").map(|bytes| bytes.as_chunks().0).map(|hashes| Samples {
            hashes,
            known: small(b"num").unwrap_or_default(),
            interval_secs: small(b"interval").unwrap_or_default(),
        });
        let peers = values.list(b"values").unwrap_or_default();
        Self {
            token: values.bytes(b"token").filter(|token| token.len() <= TOKEN_MAX),
            nodes: values.bytes(b"nodes").and_then(|bytes| compact_nodes(bytes, 6)),
            nodes6: values.bytes(b"nodes6").and_then(|bytes| compact_nodes(bytes, 18)),
            peers: peers.iter().filter_map(Value::as_bytes).filter_map(compact_addr).collect(),
            filters: array(values, b"BFsd").zip(array(values, b"BFpe")).map(|(seeds, peers)| [seeds, peers]),
            value: values.get(b"v").map(|value| value.raw).filter(|value| value.len() <= VALUE_MAX),
            version: values.int(b"seq"),
            signed: array(values, b"k").zip(array(values, b"sig")),
            samples,
        }
    }

    fn write(&self, id: NodeId, mut values: DictWriter<'_>) {
        if let Some([seeds, peers]) = self.filters {
            values.bytes("BFpe", peers);
            values.bytes("BFsd", seeds);
        }
        values.bytes("id", &id.0);
        if let Some(samples) = &self.samples {
            values.int("interval", samples.interval_secs.into());
        }
        if let Some((key, _)) = self.signed {
            values.bytes("k", key);
        }
        for (key, nodes) in [("nodes", &self.nodes), ("nodes6", &self.nodes6)] {
            if let Some(nodes) = nodes {
                let mut bytes = Vec::with_capacity(nodes.len() * 38);
                write_nodes(&mut bytes, nodes);
                values.bytes(key, &bytes);
            }
        }
        if let Some(samples) = &self.samples {
            values.int("num", samples.known.into());
            values.bytes("samples", samples.hashes.as_flattened());
        }
        if let Some(version) = self.version {
            values.int("seq", version);
        }
        if let Some((_, signature)) = self.signed {
            values.bytes("sig", signature);
        }
        if let Some(token) = self.token {
            values.bytes("token", token);
        }
        if let Some(value) = self.value {
            values.key("v").extend_from_slice(value);
        }
        if !self.peers.is_empty() {
            let list = values.key("values");
            list.push(b'l');
            let mut bytes = Vec::with_capacity(18);
            for &peer in &self.peers {
                bytes.clear();
                write_addr(&mut bytes, peer);
                write_bytes(list, &bytes);
            }
            list.push(b'e');
        }
        values.end();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash_of(text: &[u8; 20]) -> Sha1Hash {
        Sha1Hash(*text)
    }

    fn query(query: Query<'_>) -> Message<'_> {
        let id = hash_of(b"abcdefghij0123456789");
        Message { transaction: b"aa", seen_as: None, version: None, body: Body::Query { id, read_only: false, query } }
    }

    fn response(response: Response<'_>) -> Message<'_> {
        let body = Body::Response { id: hash_of(b"0123456789abcdefghij"), response: Box::new(response) };
        Message { transaction: b"aa", seen_as: None, version: None, body }
    }

    #[track_caller]
    fn is_written(message: &Message<'_>, bytes: &[u8]) {
        let mut out = vec![1, 2, 3];
        message.write(&mut out);
        assert_eq!(out.escape_ascii().to_string(), bytes.escape_ascii().to_string());
        assert_eq!(Message::parse(bytes).as_ref(), Some(message));
    }

    #[test]
    fn the_examples_of_bep_5_are_written_and_read() {
        let target = hash_of(b"mnopqrstuvwxyz123456");
        let want = Want::default();
        is_written(&query(Query::Ping), b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe");
        is_written(
            &query(Query::FindNode { target, want }),
            b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe",
        );
        is_written(
            &query(Query::GetPeers { info_hash: target, want, no_seeds: false, scrape: false }),
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe",
        );
        is_written(
            &query(Query::AnnouncePeer { info_hash: target, port: Some(6881), seed: false, token: b"aoeusnth" }),
            b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe\
              1:q13:announce_peer1:t2:aa1:y1:qe",
        );
        is_written(&response(Response::default()), b"d1:rd2:id20:0123456789abcdefghije1:t2:aa1:y1:re");
        let peers = vec!["97.120.106.101:11893".parse().unwrap(), "105.100.104.116:28269".parse().unwrap()];
        is_written(
            &response(Response { token: Some(b"aoeusnth"), peers, ..Response::default() }),
            b"d1:rd2:id20:0123456789abcdefghij5:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re",
        );
        let body = Body::Error { code: 201, text: b"A Generic Error Ocurred" };
        is_written(
            &Message { transaction: b"aa", seen_as: None, version: None, body },
            b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee",
        );
    }

    #[test]
    fn what_lacks_an_argument_is_bad_and_an_unknown_query_with_a_target_is_answered() {
        let parsed = |bytes: &[u8]| match Message::parse(bytes).unwrap().body {
            Body::Query { query: Query::Bad(error), .. } => Err(error),
            Body::Query { query: Query::Unknown { target, .. }, .. } => Ok(target),
            other => panic!("{other:?}"),
        };
        let bad = b"d1:ad2:id20:abcdefghij0123456789e1:q9:find_node1:t2:aa1:y1:qe";
        assert_eq!(parsed(bad), Err(ErrorKind::Malformed));
        let unknown = b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe";
        assert_eq!(parsed(unknown), Err(ErrorKind::UnknownMethod));
        let near = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q4:vote1:t2:aa1:y1:qe";
        assert_eq!(parsed(near), Ok(hash_of(b"mnopqrstuvwxyz123456")));
        let port_0 = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti0e5:token1:xe\
                       1:q13:announce_peer1:t2:aa1:y1:qe";
        assert_eq!(parsed(port_0), Err(ErrorKind::Malformed));
    }

    #[test]
    fn nodes_of_half_a_length_are_none_and_peers_at_port_0_are_left_out() {
        fn parsed(bytes: &[u8]) -> Response<'_> {
            match Message::parse(bytes).unwrap().body {
                Body::Response { response, .. } => *response,
                other => panic!("{other:?}"),
            }
        }
        let half = b"d1:rd2:id20:0123456789abcdefghij5:nodes9:def456...e1:t2:aa1:y1:re";
        assert_eq!(parsed(half), Response::default());
        let port_0 = b"d1:rd2:id20:0123456789abcdefghij6:valuesl6:axje\x00\x006:idhtnm3:abcee1:t2:aa1:y1:re";
        assert_eq!(parsed(port_0).peers, ["105.100.104.116:28269".parse().unwrap()]);
    }

    #[test]
    fn items_are_bounded_and_canonical() {
        let put = |v: &str, salt: &str| {
            let k = "k".repeat(32);
            let sig = "s".repeat(64);
            let salt = format!("{}:{salt}", salt.len());
            let text = format!(
                "d1:ad2:id20:abcdefghij01234567891:k32:{k}4:salt{salt}3:seqi1e3:sig64:{sig}5:token1:x1:v{v}e\
                 1:q3:put1:t2:aa1:y1:qe"
            );
            match Message::parse(text.as_bytes()).unwrap().body {
                Body::Query { query: Query::Put { item, .. }, .. } => Ok(item.value.len()),
                Body::Query { query: Query::Bad(error), .. } => Err(error),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(put("12:Hello World!", "foobar"), Ok(15));
        assert_eq!(put(&format!("996:{}", "x".repeat(996)), ""), Ok(1000));
        assert_eq!(put(&format!("997:{}", "x".repeat(997)), ""), Err(ErrorKind::ValueTooLong));
        assert_eq!(put("1:x", &"s".repeat(65)), Err(ErrorKind::SaltTooLong));
        assert_eq!(put("d1:bi1e1:ai1ee", ""), Err(ErrorKind::Malformed));
    }

    fn addr() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), 1..u16::MAX).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    fn nodes(v4: bool) -> impl Strategy<Value = Option<Vec<Node>>> {
        let node = (any::<[u8; 20]>(), addr()).prop_map(|(id, addr)| Node { id: Sha1Hash(id), addr });
        let list = proptest::collection::vec(node, 0..9);
        proptest::option::of(list.prop_map(move |mut list| {
            list.retain(|node| node.addr.is_ipv4() == v4);
            list
        }))
    }

    proptest! {
        #[test]
        fn responses_are_read_as_they_were_written(
            nodes4 in nodes(true),
            nodes6 in nodes(false),
            peers in proptest::collection::vec(addr(), 0..20),
            token in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..TOKEN_MAX)),
            version in proptest::option::of(any::<i64>()),
            samples in proptest::option::of((proptest::collection::vec(any::<[u8; 20]>(), 0..5), any::<u32>(), any::<u32>())),
            signed in proptest::option::of((any::<[u8; 32]>(), any::<[u8; 32]>())),
            seen_as in proptest::option::of(addr()),
        ) {
            let signature = signed.map(|(_, half)| <[u8; 64]>::try_from([half, half].concat()).unwrap());
            let mut message = response(Response {
                token: token.as_deref(),
                nodes: nodes4,
                nodes6,
                peers,
                filters: Some([&[1; FILTER_LEN], &[2; FILTER_LEN]]).filter(|_| version.is_some()),
                value: Some(b"l1:ai3ee").filter(|_| version.is_some()).map(|value| &value[..]),
                version,
                signed: signed.as_ref().map(|(key, _)| key).zip(signature.as_ref()),
                samples: samples.as_ref().map(|(hashes, known, interval)| Samples {
                    hashes, known: *known, interval_secs: *interval,
                }),
            });
            message.seen_as = seen_as;
            let mut out = Vec::new();
            message.write(&mut out);
            prop_assert_eq!(Message::parse(&out), Some(message));
        }

        #[test]
        fn queries_are_read_as_they_were_written(
            hash: [u8; 20], v4: bool, v6: bool, flag: bool, port: u16, version: Option<i64>, read_only: bool,
            token in proptest::collection::vec(any::<u8>(), 0..TOKEN_MAX),
        ) {
            let (hash, want) = (Sha1Hash(hash), Want { v4, v6 });
            let author = Author { key: &[7; 32], salt: &token, version: 5, signature: &[8; 64] };
            let all = [
                Query::FindNode { target: hash, want },
                Query::Sample { target: hash, want },
                Query::GetPeers { info_hash: hash, want, no_seeds: flag, scrape: !flag },
                Query::AnnouncePeer { info_hash: hash, port: Some(port).filter(|port| *port != 0), seed: flag, token: &token },
                Query::Get { target: hash, want, newer_than: version },
                Query::Put { token: &token, item: Item { value: b"i5e", author: None }, replaces: version },
                Query::Put { token: &token, item: Item { value: b"d1:a0:e", author: Some(author) }, replaces: version },
            ];
            for one in all {
                let mut message = query(one);
                message.version = Some(b"SW01");
                if let Body::Query { read_only: ro, .. } = &mut message.body {
                    *ro = read_only;
                }
                let mut out = Vec::new();
                message.write(&mut out);
                prop_assert_eq!(Message::parse(&out), Some(message));
            }
        }

        #[test]
        fn garbage_is_never_more_than_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200), at: usize, flip: u8) {
            drop(Message::parse(&bytes));
            let mut out = Vec::new();
            query(Query::AnnouncePeer { info_hash: Sha1Hash([1; 20]), port: None, seed: true, token: b"tok" }).write(&mut out);
            let at = at % out.len();
            out[at] ^= flip;
            drop(Message::parse(&out));
            drop(Message::parse(&out[..at]));
        }
    }
}
