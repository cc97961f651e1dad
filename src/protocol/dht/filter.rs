//! Sets of addresses that can be joined and counted, but not listed (BEP 33).

use std::net::IpAddr;

use crate::base::addr::canonical;
use crate::base::hash::Sha1Hash;
use crate::codec::krpc::FILTER_LEN;

/// Bits of a filter.
const BITS: usize = FILTER_LEN * 8;

/// A filter of addresses: each sets two bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter(pub [u8; FILTER_LEN]);

impl Default for Filter {
    fn default() -> Self {
        Self([0; FILTER_LEN])
    }
}

impl Filter {
    /// Puts an address in.
    pub fn insert(&mut self, ip: IpAddr) {
        let hash = match canonical(ip) {
            IpAddr::V4(ip) => Sha1Hash::of(&ip.octets()),
            IpAddr::V6(ip) => Sha1Hash::of(&ip.octets()),
        };
        for at in [0, 2] {
            let bit = usize::from(u16::from_le_bytes([hash.0[at], hash.0[at + 1]])) % BITS;
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// Puts in what is in the other.
    pub fn add_all(&mut self, other: &[u8; FILTER_LEN]) {
        self.0.iter_mut().zip(other).for_each(|(mine, other)| *mine |= other);
    }

    /// About how many addresses are in it; beyond some thousands it is too full to tell.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some thousands, and none below nought"
    )]
    pub fn count(&self) -> u32 {
        self.estimate().round() as u32
    }

    fn estimate(&self) -> f64 {
        let zeros: u32 = self.0.iter().map(|byte| byte.count_zeros()).sum();
        let bits = BITS as f64;
        let zeros = f64::from(zeros).clamp(1.0, bits - 1.0);
        if self.0 == [0; FILTER_LEN] { 0.0 } else { (zeros / bits).ln() / (2.0 * (1.0 - 1.0 / bits).ln()) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn the_filter_is_that_of_bep_33() {
        let mut filter = Filter::default();
        assert!(filter.estimate() < 0.5);
        (0..=255).for_each(|last| filter.insert(Ipv4Addr::new(192, 0, 2, last).into()));
        (0..=0x3e7).for_each(|last| filter.insert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()));
        let hex: String = filter.0.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(hex.starts_with("F6C3F5EAA07FFD91BDE89F777F26FB2BFF37BDB8FB2BBAA2FD3DDDE7BACFFF75EE7CCBAE"));
        assert!(hex.ends_with("62ABE8FF237279BFEFBFEEF5FFC5FEBFDFE5ADFFADFEE1FB737FFFFBFD9F6AEFFEEE76B6FD8F72EF"));
        assert!((filter.estimate() - 1224.9308).abs() < 0.0001, "{}", filter.estimate());
    }
}
