//! A range of addresses that begin alike: `10.0.0.0/8`, `2001:db8::/32`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::addr::canonical;
use crate::base::blocklist::Range;

/// Addresses of one family whose first `bits` are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    ip: IpAddr,
    bits: u32,
}

impl Net {
    /// Reads `ADDRESS` (that one alone) or `ADDRESS/BITS`; none if it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { ip, bits })
    }

    /// From the first of them to the last.
    #[must_use]
    pub fn range(&self) -> Range {
        match self.ip {
            IpAddr::V4(ip) => {
                let rest = u32::MAX.checked_shr(self.bits).unwrap_or(0);
                Range { first: (ip & Ipv4Addr::from_bits(!rest)).into(), last: (ip | Ipv4Addr::from_bits(rest)).into() }
            }
            IpAddr::V6(ip) => {
                let rest = u128::MAX.checked_shr(self.bits).unwrap_or(0);
                Range { first: (ip & Ipv6Addr::from_bits(!rest)).into(), last: (ip | Ipv6Addr::from_bits(rest)).into() }
            }
        }
    }

    /// True if an address is one of them.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, canonical(ip)) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => (net.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits,
            (IpAddr::V6(net), IpAddr::V6(ip)) => (net.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits,
            _ => false,
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_has_what_begins_like_it() {
        let net = Net::parse("10.1.0.0/15").unwrap();
        assert!(net.contains("10.0.255.1".parse().unwrap()) && net.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!net.contains("10.2.0.0".parse().unwrap()) && !net.contains("::1".parse().unwrap()));
        let one = Net::parse("2001:db8::7").unwrap();
        assert!(one.contains("2001:db8::7".parse().unwrap()) && !one.contains("2001:db8::8".parse().unwrap()));
        assert!(Net::parse("0.0.0.0/0").unwrap().contains("255.1.2.3".parse().unwrap()));
        for bad in ["", "10.0.0.0/33", "10.0.0.0/x", "host", "::/129", "10.0.0.0/-1"] {
            assert_eq!(Net::parse(bad), None, "{bad}");
        }
    }
}
