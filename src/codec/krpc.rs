//! The messages of the DHT (BEP 5), with what BEPs 32 (IPv6), 33 (scrapes), 42 (`ip`), 43 (read-only nodes), 44 (items) and
//! 51 (samples) add to them.
//!
//! Parsing forgives what does no harm: unknown keys are passed over, and an optional value of the wrong type is as good as
//! absent. A query whose needed arguments are missing is [`Query::Bad`], which is answered by an error (BEP 5: 203).

mod query;
mod response;

use std::net::SocketAddr;

use crate::base::hash::Sha1Hash;
use crate::codec::bencode::{self, Dict, DictWriter, Value, write_bytes};
use crate::codec::compact::{parse_addr, write_addr};

pub use self::query::{Author, ErrorKind, Item, Query, Want};
pub use self::response::{Response, Samples};

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

fn array<'b, const N: usize>(dict: &Dict<'b>, key: &[u8]) -> Option<&'b [u8; N]> {
    dict.bytes(key)?.try_into().ok()
}

fn hash(dict: &Dict<'_>, key: &[u8]) -> Option<Sha1Hash> {
    array(dict, key).copied().map(Sha1Hash)
}

fn is_set(dict: &Dict<'_>, key: &[u8]) -> bool {
    dict.int(key).is_some_and(|int| int != 0)
}

/// The nodes that stand one after another, with addresses of `addr_len` bytes; those at port 0 are left out.
#[must_use]
pub fn compact_nodes(bytes: &[u8], addr_len: usize) -> Option<Vec<Node>> {
    let len = 20 + addr_len;
    let node = |bytes: &[u8]| {
        let (id, addr) = bytes.split_first_chunk()?;
        let addr = parse_addr(addr).filter(|addr| addr.port() != 0)?;
        Some(Node { id: Sha1Hash(*id), addr })
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
        Some(Self { transaction, seen_as: dict.bytes(b"ip").and_then(parse_addr), version: dict.bytes(b"v"), body })
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

#[cfg(test)]
mod tests;
