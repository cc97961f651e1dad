//! Connection ids of UDP clients (BEP 15) without memory: a keyed hash of the address and the time.
//!
//! Whoever sends one back has received it, so its address is its own; until then no answer is longer than its request.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use crate::base::rng::Rng;
use crate::base::time::Time;

/// An id is made for a window of so many seconds and good until the next one ends. BEP 15 wants two minutes at least from the last
/// moment that a client may use it, which is one after it came.
const WINDOW_SECS: u64 = 120;

/// Makes and knows them.
#[derive(Debug)]
pub(super) struct ConnectionIds(SipHasher24);

impl ConnectionIds {
    pub(super) fn new(rng: &mut Rng) -> Self {
        Self(SipHasher24::new_with_key(&rng.bytes()))
    }

    /// The id for an address now.
    pub(super) fn of(&self, now: Time, ip: IpAddr) -> u64 {
        self.at(now.as_secs() / WINDOW_SECS, ip)
    }

    /// True for one that was given to this address lately. It takes as long for any that is wrong.
    pub(super) fn is_good(&self, now: Time, ip: IpAddr, id: u64) -> bool {
        let window = now.as_secs() / WINDOW_SECS;
        // Two words are compared as wholes, in one instruction each.
        self.at(window, ip) == id || window > 0 && self.at(window - 1, ip) == id
    }

    fn at(&self, window: u64, ip: IpAddr) -> u64 {
        let mut hasher = self.0;
        hasher.write_u64(window);
        match ip {
            IpAddr::V4(ip) => hasher.write_u32(ip.to_bits()),
            IpAddr::V6(ip) => hasher.write_u128(ip.to_bits()),
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_good_for_its_address_and_a_while() {
        let ids = ConnectionIds::new(&mut Rng::from_number(1));
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let given = Time::from_secs(1000);
        let id = ids.of(given, ip);
        assert!([1000, 1060, 1120].iter().all(|&at| ids.is_good(Time::from_secs(at), ip, id)));
        assert!(!ids.is_good(Time::from_secs(1000 + 2 * WINDOW_SECS), ip, id));
        assert!(!ids.is_good(given, "192.0.2.2".parse().unwrap(), id));
        assert!(!ids.is_good(given, ip, id ^ 1));
        let others = ConnectionIds::new(&mut Rng::from_number(2));
        assert!(!others.is_good(given, ip, id), "the key is another one in each run");
    }
}
