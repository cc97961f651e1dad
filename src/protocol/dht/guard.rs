//! How many queries of strangers are answered: from one address, and from all together, so that nobody can have us flood somebody
//! else in his name.

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
/// Addresses that are counted; further ones share what is left of [`BURST_OF_ALL`].
const SOURCES_MAX: usize = 4096;

/// Counts answers of the time since the last refill. Addresses of a local network are not counted: nobody is flooded there but
/// by their own.
#[derive(Debug, Default)]
pub(super) struct Guard {
    since: Time,
    all: u32,
    by_ip: Tally<IpAddr>,
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

    pub(super) fn check(&self) {
        assert!(self.all <= BURST_OF_ALL && self.by_ip.len() <= SOURCES_MAX, "answers");
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
}
