//! What is kept of the DHT over restarts: our numbers and the nodes that we knew, as a bencoded dictionary.

use crate::base::hash::Sha1Hash;
use crate::codec::bencode::{self, DictWriter};
use crate::codec::compact::{V4_LEN, V6_LEN};
use crate::codec::krpc::{Node, NodeId, compact_nodes, write_nodes};

/// Values of the document; it has four.
const VALUES_MAX: usize = 16;

/// Our number and the nodes of one family.
pub type Known = (NodeId, Vec<Node>);

/// The document; IPv4 first.
#[must_use]
pub fn write(families: &[Known; 2]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut dict = DictWriter::begin(&mut out);
    for ((id, _), key) in families.iter().zip(["id", "id6"]) {
        dict.bytes(key, &id.0);
    }
    for ((_, nodes), key) in families.iter().zip(["nodes", "nodes6"]) {
        let mut bytes = Vec::new();
        write_nodes(&mut bytes, nodes);
        dict.bytes(key, &bytes);
    }
    dict.end();
    out
}

/// What the document says; none if it is damaged: the DHT is then begun anew.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<[Known; 2]> {
    let document = bencode::parse_canonical(bytes, VALUES_MAX).ok()?;
    let dict = document.as_dict()?;
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
        let bytes = write(&known);
        assert_eq!(parse(&bytes), Some(known));
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), None);
        }
    }
}
