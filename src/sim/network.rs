//! Between the nodes: how long things take, what is lost on the way, who can reach whom.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Time;

/// The network that all nodes share.
#[derive(Debug, Clone)]
pub struct Network {
    /// From any node to any other.
    pub delay: Duration,
    /// And up to so much more, drawn for each packet.
    pub jitter: Duration,
    /// The share of packets that is lost.
    pub loss: f64,
    /// The share of datagrams that comes twice.
    pub duplicated: f64,
    /// The share of datagrams that is overtaken by later ones.
    pub reordered: f64,
    /// How much may wait before a node's downlink until its senders are told to slow down.
    pub queue: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicated: 0.0,
            reordered: 0.0,
            queue: Duration::from_millis(100),
        }
    }
}

impl Network {
    /// How long a packet is on its way between nodes that are `extra` away from the rest.
    pub(crate) fn trip(&self, rng: &mut Rng, extra: Duration) -> Duration {
        self.delay + extra + jitter(rng, self.jitter)
    }

    /// True if one of so many packets is lost.
    pub(crate) fn loses(&self, rng: &mut Rng, packets: usize) -> bool {
        self.loss > 0.0 && !chance(rng, (1.0 - self.loss).powi(i32::try_from(packets).unwrap_or(i32::MAX)))
    }
}

/// A random time up to `most`.
pub(crate) fn jitter(rng: &mut Rng, most: Duration) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 { Duration::ZERO } else { Duration::from_nanos(rng.below(nanos)) }
}

/// True with this probability.
#[expect(clippy::cast_precision_loss, reason = "a probability")]
pub(crate) fn chance(rng: &mut Rng, probability: f64) -> bool {
    probability > 0.0 && ((rng.u64() >> 11) as f64) < probability * (1_u64 << 53) as f64
}

/// One direction of a node's access to the network.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    /// Bytes a second; 0 is no limit.
    pub(crate) rate_bytes: u64,
    pub(crate) free_at: Time,
}

impl Line {
    /// Puts `bytes` on the line; when it will have passed them.
    pub(crate) fn pass(&mut self, now: Time, bytes: u64) -> Time {
        let takes = bytes.saturating_mul(1_000_000_000).checked_div(self.rate_bytes).unwrap_or(0);
        self.free_at = self.free_at.max(now) + Duration::from_nanos(takes);
        self.free_at
    }
}

/// What kind of address translation a node is behind. None of them lets a stranger's connection in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NatKind {
    /// One outer port for an inner one, open to everybody.
    FullCone,
    /// Open to every port of addresses that were written to.
    Restricted,
    /// Open to addresses and ports that were written to.
    PortRestricted,
    /// One outer port for each destination, open to it alone.
    Symmetric,
}

/// An address translator and what it remembers.
#[derive(Debug)]
pub(crate) struct Nat {
    kind: NatKind,
    public: IpAddr,
    /// Inner address, and destination where that matters, to the outer port.
    ports: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    inner: BTreeMap<u16, SocketAddr>,
    allowed: BTreeSet<(u16, SocketAddr)>,
    next_port: u16,
}

impl Nat {
    pub(crate) fn new(kind: NatKind, public: IpAddr) -> Self {
        Self {
            kind,
            public,
            ports: BTreeMap::new(),
            inner: BTreeMap::new(),
            allowed: BTreeSet::new(),
            next_port: 30_000,
        }
    }

    /// Where a datagram from `inner` to `to` seems to come from.
    pub(crate) fn outward(&mut self, inner: SocketAddr, to: SocketAddr) -> SocketAddr {
        let key = (inner, (self.kind == NatKind::Symmetric).then_some(to));
        let next = self.next_port;
        let port = *self.ports.entry(key).or_insert(next);
        if port == next {
            self.next_port = self.next_port.wrapping_add(1).max(30_000);
            self.inner.insert(port, inner);
        }
        self.allowed.insert((port, self.seen(to)));
        SocketAddr::new(self.public, port)
    }

    /// Who gets a datagram that `from` sent to our outer `port`; nobody if it is not let in.
    pub(crate) fn inward(&self, from: SocketAddr, port: u16) -> Option<SocketAddr> {
        let inner = self.inner.get(&port).copied()?;
        (self.kind == NatKind::FullCone || self.allowed.contains(&(port, self.seen(from)))).then_some(inner)
    }

    /// What of an outer address matters.
    fn seen(&self, addr: SocketAddr) -> SocketAddr {
        let port = if self.kind == NatKind::Restricted { 0 } else { addr.port() };
        SocketAddr::new(addr.ip(), port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_kind_of_translation_lets_in_whom_it_should() {
        let (inner, known) = (addr("192.168.0.2:6881"), addr("10.0.0.1:1"));
        let (other_port, stranger) = (addr("10.0.0.1:2"), addr("10.0.0.9:1"));
        for (kind, lets_other_port, lets_stranger) in [
            (NatKind::FullCone, true, true),
            (NatKind::Restricted, true, false),
            (NatKind::PortRestricted, false, false),
            (NatKind::Symmetric, false, false),
        ] {
            let mut nat = Nat::new(kind, "100.64.0.1".parse().unwrap());
            assert_eq!(nat.inward(known, 30_000), None);
            let outer = nat.outward(inner, known);
            assert_eq!(nat.outward(inner, known), outer);
            assert_eq!(nat.inward(known, outer.port()), Some(inner), "{kind:?}");
            assert_eq!(nat.inward(other_port, outer.port()).is_some(), lets_other_port, "{kind:?}");
            assert_eq!(nat.inward(stranger, outer.port()).is_some(), lets_stranger, "{kind:?}");
            assert_eq!(nat.outward(inner, stranger) == outer, kind != NatKind::Symmetric, "{kind:?}");
        }
    }

    #[test]
    fn a_line_passes_its_rate_and_no_more() {
        let mut line = Line { rate_bytes: 1000, free_at: Time::ZERO };
        assert_eq!(line.pass(Time::from_secs(1), 500), Time::from_millis(1500));
        assert_eq!(line.pass(Time::from_secs(1), 500), Time::from_secs(2));
        assert_eq!(Line::default().pass(Time::from_secs(3), u64::MAX), Time::from_secs(3));
    }
}
