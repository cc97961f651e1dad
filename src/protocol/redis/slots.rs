//! Which server of a cluster keeps which slot, and what servers say of it: `CLUSTER SLOTS`, `MOVED`, `ASK`.

use std::fmt;
use std::ops::RangeInclusive;

use crate::codec::resp::{SLOTS, Value};
use crate::protocol::redis::NODES_MAX;
use crate::protocol::redis::url::Server;

/// Says that nobody keeps a slot.
const NOBODY: u8 = u8::MAX;
const _: () = assert!(NODES_MAX < NOBODY as usize, "a node fits a byte");

/// Who keeps which slot: an index below [`NODES_MAX`] for each. `counts` says of each node how many name it.
pub(super) struct Slots {
    keepers: Box<[u8]>,
    counts: [u16; NODES_MAX],
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slots({} kept)", self.counts.iter().sum::<u16>())
    }
}

impl Slots {
    pub(super) fn new() -> Self {
        Self { keepers: vec![NOBODY; usize::from(SLOTS)].into_boxed_slice(), counts: [0; NODES_MAX] }
    }

    /// The node that keeps a slot.
    pub(super) fn keeper(&self, slot: u16) -> Option<usize> {
        Some(usize::from(self.keepers[usize::from(slot)])).filter(|node| *node < NODES_MAX)
    }

    /// True if a node keeps any slot.
    pub(super) fn keeps_any(&self, node: usize) -> bool {
        self.counts[node] > 0
    }

    /// Gives slots to a node.
    pub(super) fn give(&mut self, slots: RangeInclusive<u16>, node: usize) {
        let keeper = u8::try_from(node).expect("an index below NODES_MAX");
        for slot in slots {
            let before = std::mem::replace(&mut self.keepers[usize::from(slot)], keeper);
            if let Some(count) = self.counts.get_mut(usize::from(before)) {
                *count -= 1;
            }
            self.counts[node] += 1;
        }
    }

    /// Nobody keeps anything.
    pub(super) fn clear(&mut self) {
        self.keepers.fill(NOBODY);
        self.counts.fill(0);
    }
}

/// Slots and the master that keeps them.
pub(super) type Kept = (RangeInclusive<u16>, Server);

/// Reads the answer to `CLUSTER SLOTS` of the server `asked`: none if it is none. A master without a host is where we asked, one
/// whose host is not known is left out.
pub(super) fn parse_slots(value: &Value, asked: &Server) -> Option<Vec<Kept>> {
    let mut kept = Vec::new();
    for range in value.array()? {
        let [first, last, master, ..] = range.array()? else { return None };
        let slot =
            |value: &Value| value.integer().and_then(|slot| u16::try_from(slot).ok()).filter(|slot| *slot < SLOTS);
        let (first, last) = (slot(first)?, slot(last)?);
        let [host, port, ..] = master.array()? else { return None };
        let port = u16::try_from(port.integer()?).ok()?;
        let host = match host {
            Value::Null => "",
            host => std::str::from_utf8(host.bytes()?).ok()?,
        };
        if let Some(server) = server_of(host, port, asked) {
            kept.push((first..=last, server));
        }
    }
    Some(kept)
}

fn server_of(host: &str, port: u16, asked: &Server) -> Option<Server> {
    Server::new(if host.is_empty() { &asked.host } else { host }, port)
}

/// A server says that another one should be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Redirect {
    /// From now on, for this slot.
    Moved(u16, Server),
    /// This once.
    Ask(Server),
}

/// Reads `MOVED 3999 127.0.0.1:6381` or `ASK …`, an error of the server `asked`.
pub(super) fn parse_redirect(error: &str, asked: &Server) -> Option<Redirect> {
    let mut words = error.split(' ');
    let (code, slot, to) = (words.next()?, words.next()?, words.next()?);
    let slot = slot.parse().ok().filter(|slot| *slot < SLOTS)?;
    let (host, port) = to.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let server = server_of(host, port.parse().ok()?, asked)?;
    match code {
        "MOVED" => Some(Redirect::Moved(slot, server)),
        "ASK" => Some(Redirect::Ask(server)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(host: &str, port: u16) -> Server {
        Server::new(host, port).unwrap()
    }

    #[test]
    fn slots_are_given_and_counted() {
        let mut slots = Slots::new();
        assert_eq!(slots.keeper(5), None);
        slots.give(0..=10, 3);
        slots.give(5..=20, 4);
        assert_eq!((slots.keeper(4), slots.keeper(5), slots.keeper(21)), (Some(3), Some(4), None));
        assert_eq!((slots.counts[3], slots.counts[4]), (5, 16));
        slots.give(0..=4, 4);
        assert!(!slots.keeps_any(3) && slots.keeps_any(4));
        slots.clear();
        assert!(!slots.keeps_any(4) && slots.keeper(5).is_none());
    }

    #[test]
    fn the_map_and_redirects_are_read() {
        let asked = server("seed", 7000);
        let range = |first, last, host: Value, port| {
            let master = Value::Array(vec![host, Value::Integer(port), Value::Bulk(b"id".to_vec())]);
            Value::Array(vec![Value::Integer(first), Value::Integer(last), master.clone(), master])
        };
        let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
        let map = Value::Array(vec![
            range(0, 10, bulk("10.0.0.1"), 7001),
            range(11, 20, bulk(""), 7002),
            range(21, 30, Value::Null, 7003),
            range(31, 40, bulk("?"), 7004),
        ]);
        let wanted =
            vec![(0..=10, server("10.0.0.1", 7001)), (11..=20, server("seed", 7002)), (21..=30, server("seed", 7003))];
        assert_eq!(parse_slots(&map, &asked), Some(wanted));
        assert_eq!(parse_slots(&Value::Array(vec![range(0, 16_384, bulk("a"), 1)]), &asked), None);
        assert_eq!(parse_slots(&Value::Integer(1), &asked), None);
        let redirect = |text| parse_redirect(text, &asked);
        assert_eq!(redirect("MOVED 3999 127.0.0.1:6381"), Some(Redirect::Moved(3999, server("127.0.0.1", 6381))));
        assert_eq!(redirect("MOVED 1 :6381"), Some(Redirect::Moved(1, server("seed", 6381))));
        assert_eq!(redirect("ASK 1 ::1:6381"), Some(Redirect::Ask(server("::1", 6381))));
        for bad in ["MOVED", "MOVED 16384 a:1", "MOVED 1 a:0", "MOVED 1 a:b", "ASK 1 a b:1", "ERR 1 a:1"] {
            assert_eq!(redirect(bad), None, "{bad}");
        }
    }
}
