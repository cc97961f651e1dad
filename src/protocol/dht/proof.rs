//! Addresses that have proved that they receive datagrams: they answered a query of this node, or returned the token
//! that was sent to them (BEP 5). Any other address may be a forged sender address of a query, so a response to an
//! address without proof is kept small.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Time;

/// The maximum number of addresses that are remembered; beyond it the address with the oldest proof is forgotten.
const PROVEN_MAX: usize = 8192;
/// The time after which a proof is forgotten.
const LIFETIME: Duration = Duration::from_hours(1);

/// The addresses that have proved that they receive datagrams.
#[derive(Debug, Default)]
pub(super) struct Proven {
    proved_at: BTreeMap<IpAddr, Time>,
    /// The same addresses, ordered by the time of their proof.
    order: BTreeSet<(Time, IpAddr)>,
}

impl Proven {
    /// Notes a proof of `ip`.
    pub(super) fn add(&mut self, now: Time, ip: IpAddr) {
        if let Some(before) = self.proved_at.insert(ip, now) {
            self.order.remove(&(before, ip));
        }
        self.order.insert((now, ip));
        while let Some(&(at, oldest)) = self.order.first()
            && (self.order.len() > PROVEN_MAX || now.since(at) >= LIFETIME)
        {
            self.order.pop_first();
            self.proved_at.remove(&oldest);
        }
    }

    /// Whether `ip` has given a proof within [`LIFETIME`].
    pub(super) fn contains(&self, now: Time, ip: IpAddr) -> bool {
        self.proved_at.get(&ip).is_some_and(|at| now.since(*at) < LIFETIME)
    }

    /// Checks the invariant: both collections have the same size, which is at most [`PROVEN_MAX`].
    ///
    /// # Panics
    /// Panics if the invariant does not hold.
    pub(super) fn check(&self) {
        assert!(self.order.len() <= PROVEN_MAX && self.proved_at.len() == self.order.len(), "proven addresses");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_bounded_and_forgotten() {
        let mut proven = Proven::default();
        let ip = |number: u32| IpAddr::from((0x0b00_0000 + number).to_be_bytes());
        for number in 0..10_000 {
            proven.add(Time::from_secs(u64::from(number) / 10), ip(number));
            proven.check();
        }
        let now = Time::from_secs(1000);
        assert!(proven.contains(now, ip(9999)) && !proven.contains(now, ip(0)), "the oldest are forgotten");
        proven.add(now, ip(5000));
        assert!(!proven.contains(now + LIFETIME, ip(5000)));
        proven.add(now + LIFETIME, ip(1));
        proven.check();
        assert_eq!(proven.order.len(), 1);
    }
}
