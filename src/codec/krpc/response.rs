//! What is answered.

use std::net::SocketAddr;

use super::{FILTER_LEN, Node, NodeId, TOKEN_MAX, VALUE_MAX, array, compact_nodes, write_nodes};
use crate::codec::bencode::{Dict, DictWriter, Value, write_bytes};
use crate::codec::compact::{V4_LEN, V6_LEN, parse_addr, write_addr};

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

impl<'b> Response<'b> {
    pub(super) fn parse(values: &Dict<'b>) -> Self {
        let small = |key: &[u8]| values.int(key).and_then(|int| u32::try_from(int).ok());
        let samples = values.bytes(b"samples").map(|bytes| bytes.as_chunks().0).map(|hashes| Samples {
            hashes,
            known: small(b"num").unwrap_or_default(),
            interval_secs: small(b"interval").unwrap_or_default(),
        });
        let peers = values.list(b"values").unwrap_or_default();
        Self {
            token: values.bytes(b"token").filter(|token| token.len() <= TOKEN_MAX),
            nodes: values.bytes(b"nodes").and_then(|bytes| compact_nodes(bytes, V4_LEN)),
            nodes6: values.bytes(b"nodes6").and_then(|bytes| compact_nodes(bytes, V6_LEN)),
            peers: peers
                .iter()
                .filter_map(Value::as_bytes)
                .filter_map(parse_addr)
                .filter(|peer| peer.port() != 0)
                .collect(),
            filters: array(values, b"BFsd").zip(array(values, b"BFpe")).map(|(seeds, peers)| [seeds, peers]),
            value: values.get(b"v").map(|value| value.raw).filter(|value| value.len() <= VALUE_MAX),
            version: values.int(b"seq"),
            signed: array(values, b"k").zip(array(values, b"sig")),
            samples,
        }
    }

    pub(super) fn write(&self, id: NodeId, mut values: DictWriter<'_>) {
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
