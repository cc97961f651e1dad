//! What is kept of the DHT over restarts: our numbers and the nodes that we knew, as a bencoded dictionary.
//!
//! Where we are several nodes (BEP 45) the first has its keys at the top, and each of the others a dictionary in `others`.

use crate::base::hash::Sha1Hash;
use crate::codec::bencode::{self, Dict, DictWriter};
use crate::codec::compact::{V4_LEN, V6_LEN};
use crate::codec::krpc::{Node, NodeId, compact_nodes, write_nodes};

/// Values of the document: nine for each node at most. One of more is none of ours.
const VALUES_MAX: usize = 256;

/// Our number and the nodes of one family.
pub type Known = (NodeId, Vec<Node>);
/// What one node of ours knows; IPv4 first.
pub type Families = [Known; 2];

/// The document of all our nodes, in order.
#[must_use]
pub fn write(nodes: &[Families]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut dict = DictWriter::begin(&mut out);
    if let Some((first, others)) = nodes.split_first() {
        write_families(&mut dict, first);
        if !others.is_empty() {
            let list = dict.key("others");
            list.push(b'l');
            for other in others {
                let mut dict = DictWriter::begin(list);
                write_families(&mut dict, other);
                dict.end();
            }
            list.push(b'e');
        }
    }
    dict.end();
    out
}

fn write_families(dict: &mut DictWriter<'_>, families: &Families) {
    for ((id, _), key) in families.iter().zip(["id", "id6"]) {
        dict.bytes(key, &id.0);
    }
    for ((_, nodes), key) in families.iter().zip(["nodes", "nodes6"]) {
        let mut bytes = Vec::new();
        write_nodes(&mut bytes, nodes);
        dict.bytes(key, &bytes);
    }
}

/// What the document says of each of our nodes; none if it is damaged: the DHT is then begun anew.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Vec<Families>> {
    let document = bencode::parse_canonical(bytes, VALUES_MAX).ok()?;
    let first = document.as_dict()?;
    let others = first.list(b"others").unwrap_or_default();
    let others = others.iter().map(|other| read_families(other.as_dict()?));
    std::iter::once(read_families(first)).chain(others).collect()
}

fn read_families(dict: &Dict<'_>) -> Option<Families> {
    let family = |id: &[u8], nodes: &[u8], addr_len| {
        let id = Sha1Hash(dict.bytes(id)?.try_into().ok()?);
        Some((id, compact_nodes(dict.bytes(nodes)?, addr_len)?))
    };
    Some([family(b"id", b"nodes", V4_LEN)?, family(b"id6", b"nodes6", V6_LEN)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_damage_is_nothing() {
        let node = |addr: &str| Node { id: Sha1Hash::of(addr.as_bytes()), addr: addr.parse().unwrap() };
        let known = [
            (Sha1Hash([1; 20]), vec![node("1.2.3.4:5"), node("6.7.8.9:10")]),
            (Sha1Hash([2; 20]), vec![node("[2001:db8::1]:2")]),
        ];
        let other = [(Sha1Hash([3; 20]), vec![node("9.9.9.9:9")]), (Sha1Hash([4; 20]), vec![])];
        for nodes in [vec![known.clone()], vec![known, other.clone(), other]] {
            let bytes = write(&nodes);
            assert_eq!(parse(&bytes), Some(nodes));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), None);
            }
        }
    }
}
