//! Addresses that have proved that datagrams sent to them arrive: they answered a query of ours, or brought the token
//! that was sent to them (BEP 5). Anyone can write any other address as the sender of a query, so an answer to an
//! address without proof is kept small.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Time;

/// Addresses that are remembered; beyond this the one that proved itself longest ago is forgotten.
const PROVEN_MAX: usize = 8192;
/// A proof is forgotten after this time.
const LIFETIME: Duration = Duration::from_hours(1);

/// The addresses that have proved themselves.
#[derive(Debug, Default)]
pub(super) struct Proven {
    proved_at: BTreeMap<IpAddr, Time>,
    /// The same, ordered by time.
    order: BTreeSet<(Time, IpAddr)>,
}

impl Proven {
    /// `ip` has proved itself.
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

    /// Whether `ip` has proved itself within [`LIFETIME`].
    pub(super) fn contains(&self, now: Time, ip: IpAddr) -> bool {
        self.proved_at.get(&ip).is_some_and(|at| now.since(*at) < LIFETIME)
    }

    /// What must hold at any time.
    ///
    /// # Panics
    /// If it does not.
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
