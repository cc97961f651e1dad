//! How many queries of strangers are answered: from one address, and from all together, so that nobody can have us flood somebody
//! else in his name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::tally::Tally;
use crate::base::time::Time;
use crate::protocol::dht::id::is_local;

/// Answers that an address may get at once, and in each [`REFILL`].
const BURST: u32 = 64;
/// Answers that all strangers get in each [`REFILL`].
const BURST_OF_ALL: u32 = 4096;
const REFILL: Duration = Duration::from_secs(2);
/// Bytes that are sent in each [`SECOND`] to one address that has not proved itself (see `proof`); what does not fit is
/// dropped.
const UNPROVEN_BYTES_MAX: usize = 8192;
/// How long bytes are counted together.
const SECOND: Duration = Duration::from_secs(1);
/// Addresses that are counted. As each takes one of [`BURST_OF_ALL`] there are no more.
const SOURCES_MAX: usize = 4096;

/// Counts answers of the time since the last refill. Addresses of a local network are not counted: nobody is flooded there but
/// by their own.
#[derive(Debug, Default)]
pub(super) struct Guard {
    since: Time,
    all: u32,
    by_ip: Tally<IpAddr>,
    /// When the count of bytes began.
    bytes_since: Time,
    /// Bytes sent since then to addresses that have not proved themselves.
    bytes_by_ip: BTreeMap<IpAddr, usize>,
}

impl Guard {
    /// True if a query from `ip` may be answered now.
    pub(super) fn admits(&mut self, now: Time, ip: IpAddr) -> bool {
        if is_local(ip) {
            return true;
        }
        if now.since(self.since) >= REFILL {
            (self.since, self.all) = (now, 0);
            self.by_ip.clear();
        }
        let count = self.by_ip.get(&ip);
        let may = self.all < BURST_OF_ALL && count < BURST;
        if may && (count > 0 || self.by_ip.len() < SOURCES_MAX) {
            self.by_ip.add(ip);
        }
        self.all += u32::from(may);
        may
    }

    /// Whether `bytes` may be sent now to `ip`, which has not proved itself; if so they are counted.
    pub(super) fn charge(&mut self, now: Time, ip: IpAddr, bytes: usize) -> bool {
        if now.since(self.bytes_since) >= SECOND {
            self.bytes_since = now;
            self.bytes_by_ip.clear();
        }
        let sent = self.bytes_by_ip.get(&ip).copied();
        let sum = sent.unwrap_or_default() + bytes;
        let may = sum <= UNPROVEN_BYTES_MAX && (sent.is_some() || self.bytes_by_ip.len() < SOURCES_MAX);
        if may {
            self.bytes_by_ip.insert(ip, sum);
        }
        may
    }

    pub(super) fn check(&self) {
        assert!(self.all <= BURST_OF_ALL && self.by_ip.len() <= SOURCES_MAX, "answers");
        let is_within = self.bytes_by_ip.values().all(|bytes| *bytes <= UNPROVEN_BYTES_MAX);
        assert!(
            is_within && self.bytes_by_ip.len() <= SOURCES_MAX,
            "bytes to addresses that have not proved themselves"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_share_and_all_get_theirs() {
        let mut guard = Guard::default();
        let ip = |number: u32| IpAddr::from((0x0b00_0000 + number).to_be_bytes());
        let admitted = |guard: &mut Guard, now, ip| (0..10_000).filter(|_| guard.admits(now, ip)).count();
        assert_eq!(admitted(&mut guard, Time::from_secs(5), ip(1)), BURST as usize);
        assert!(guard.admits(Time::from_secs(7), ip(1)));
        let all = (0..10_000).filter(|&number| guard.admits(Time::from_secs(10), ip(number))).count();
        assert_eq!(all, BURST_OF_ALL as usize);
        assert_eq!(admitted(&mut guard, Time::from_secs(10), [127, 0, 0, 1].into()), 10_000);
    }

    #[test]
    fn bytes_are_counted_for_each_of_a_bounded_number_of_addresses() {
        let mut guard = Guard::default();
        let ip = |number: u32| IpAddr::from((0x0b00_0000 + number).to_be_bytes());
        let now = Time::from_secs(5);
        assert!(guard.charge(now, ip(1), UNPROVEN_BYTES_MAX) && !guard.charge(now, ip(1), 1));
        assert!(guard.charge(now, ip(2), 1) && guard.charge(now + SECOND, ip(1), 1));
        let charged = (0..10_000).filter(|&number| guard.charge(now + SECOND, ip(number), 100)).count();
        assert_eq!(charged, SOURCES_MAX);
        guard.check();
    }
}
