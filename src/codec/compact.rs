//! Addresses in six or eighteen bytes (BEP 5, 7, 23, 32), as trackers, the DHT and peers send them.

use std::net::{IpAddr, SocketAddr};

use crate::base::steps;

/// Bytes of an address of IPv4 with its port.
pub const V4_LEN: usize = 6;
/// Bytes of an address of IPv6 with its port.
pub const V6_LEN: usize = 18;

/// The address in six or eighteen bytes; none if they are of another length.
#[must_use]
pub fn parse_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// Up to `most` addresses that stand one after another. A rest that is none is left out.
#[must_use]
pub fn parse_addrs(bytes: &[u8], v6: bool, most: usize) -> Vec<SocketAddr> {
    steps::add(most.min(bytes.len() / if v6 { V6_LEN } else { V4_LEN }));
    bytes.chunks_exact(if v6 { V6_LEN } else { V4_LEN }).take(most).filter_map(parse_addr).collect()
}

/// Appends an address.
pub fn write_addr(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rest_is_no_address() {
        let addrs = |bytes: &[u8], v6| parse_addrs(bytes, v6, 2);
        assert_eq!(addrs(&[1, 2, 3, 4, 0x1a, 0xe1, 9], false), ["1.2.3.4:6881".parse().unwrap()]);
        assert_eq!(addrs(&[0; 17], true), []);
        assert_eq!(addrs(&[7; 60], false).len(), 2, "no more than were asked for");
        assert_eq!((parse_addr(&[]), parse_addr(&[1; 7])), (None, None));
    }

    proptest! {
        #[test]
        fn addresses_are_read_as_they_were_written(ip: IpAddr, port: u16) {
            let (mut out, addr) = (Vec::new(), SocketAddr::new(ip, port));
            write_addr(&mut out, addr);
            prop_assert_eq!(out.len(), if addr.is_ipv4() { V4_LEN } else { V6_LEN });
            prop_assert_eq!(parse_addr(&out), Some(addr));
        }
    }
}
