//! Addresses of peers: which ones make sense to dial, which are near, and BEP 40's order of preference.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// True for an address that a peer, tracker or node may really have: a port, not unspecified, multicast or broadcast.
/// Loopback and private addresses are dialable.
#[must_use]
pub fn is_dialable(addr: SocketAddr) -> bool {
    let ip = canonical(addr.ip());
    addr.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && !matches!(ip, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0)
}

/// An IPv4 address that came mapped into IPv6 as what it is; anything else unchanged.
#[must_use]
pub fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// [`canonical`] with its port; a link-local one keeps its interface, without which nobody could dial it.
#[must_use]
pub fn canonical_addr(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        _ => SocketAddr::new(canonical(addr.ip()), addr.port()),
    }
}

/// True for an address of a local network or of this machine: private, link-local, unique-local, loopback.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    reach(ip) != Reach::World
}

/// From where an address can be reached, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// From this machine.
    Machine,
    /// From its own network: private and link-local addresses.
    Network,
    /// From everywhere.
    World,
}

/// From where `ip` can be reached.
#[must_use]
pub fn reach(ip: IpAddr) -> Reach {
    let (is_loopback, is_local) = match canonical(ip) {
        IpAddr::V4(ip) => (ip.is_loopback(), ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => (ip.is_loopback(), ip.is_unique_local() || ip.is_unicast_link_local()),
    };
    match (is_loopback, is_local) {
        (true, _) => Reach::Machine,
        (_, true) => Reach::Network,
        _ => Reach::World,
    }
}

/// The priority of a connection between two addresses (BEP 40): the same at both ends, higher is better.
/// Addresses of different families have the priority 0.
#[must_use]
pub fn priority(ours: SocketAddr, theirs: SocketAddr) -> u32 {
    match (canonical(ours.ip()), canonical(theirs.ip())) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a == b => port_priority(ours.port(), theirs.port()),
        (IpAddr::V6(a), IpAddr::V6(b)) if a == b => port_priority(ours.port(), theirs.port()),
        (IpAddr::V4(a), IpAddr::V4(b)) => v4_priority(a, b),
        (IpAddr::V6(a), IpAddr::V6(b)) => v6_priority(a, b),
        _ => 0,
    }
}

fn port_priority(a: u16, b: u16) -> u32 {
    ordered_crc(&a.to_be_bytes(), &b.to_be_bytes())
}

fn v4_priority(a: Ipv4Addr, b: Ipv4Addr) -> u32 {
    let (a, b) = (a.octets(), b.octets());
    let mask = if a[..3] == b[..3] {
        [0xff; 4]
    } else if a[..2] == b[..2] {
        [0xff, 0xff, 0xff, 0x55]
    } else {
        [0xff, 0xff, 0x55, 0x55]
    };
    ordered_crc(&masked(a, mask), &masked(b, mask))
}

/// The mask starts at FFFF:FFFF:FFFF:5555… and grows by a byte for each byte more that the two share beyond the /48.
fn v6_priority(a: Ipv6Addr, b: Ipv6Addr) -> u32 {
    let (a, b) = (a.octets(), b.octets());
    let shared = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let kept = if shared < 6 { 6 } else { shared + 1 };
    let mut mask = [0x55; 16];
    mask[..kept.min(16)].fill(0xff);
    ordered_crc(&masked(a, mask), &masked(b, mask))
}

fn masked<const N: usize>(mut bytes: [u8; N], mask: [u8; N]) -> [u8; N] {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
    bytes
}

fn ordered_crc(a: &[u8], b: &[u8]) -> u32 {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    crc32c::crc32c_append(crc32c::crc32c(low), high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn priorities_are_those_of_bep_40() {
        assert_eq!(priority(addr("123.213.32.10:0"), addr("98.76.54.32:0")), 0xec2d_7224);
        assert_eq!(priority(addr("123.213.32.10:0"), addr("123.213.32.234:0")), 0x9956_8189);
        assert_eq!(priority(addr("98.76.54.32:1"), addr("123.213.32.10:2")), 0xec2d_7224, "the same at both ends");
    }

    #[test]
    fn addresses_reach_as_far_as_they_do() {
        for (text, expected) in [
            ("127.9.9.9:1", Reach::Machine),
            ("[::1]:1", Reach::Machine),
            ("[::ffff:127.0.0.1]:1", Reach::Machine),
            ("192.168.1.1:1", Reach::Network),
            ("169.254.1.1:1", Reach::Network),
            ("[fe80::1]:1", Reach::Network),
            ("[fd00::1]:1", Reach::Network),
            ("[::ffff:10.0.0.1]:1", Reach::Network),
            ("1.2.3.4:1", Reach::World),
            ("[2001:db8::1]:1", Reach::World),
        ] {
            assert_eq!(reach(addr(text).ip()), expected, "{text}");
        }
        assert!(Reach::Machine < Reach::Network && Reach::Network < Reach::World);
    }

    #[test]
    fn addresses_that_nobody_can_have_are_not_dialled() {
        for bad in [
            "1.2.3.4:0",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "[::]:1",
            "[ff02::1]:1",
            "[::ffff:0.0.0.0]:1",
        ] {
            assert!(!is_dialable(addr(bad)), "{bad}");
        }
        for good in ["1.2.3.4:1", "127.0.0.1:6881", "10.0.0.1:6881", "[::1]:1", "[2001:db8::1]:1"] {
            assert!(is_dialable(addr(good)), "{good}");
        }
    }

    #[test]
    fn a_link_local_address_keeps_its_interface_and_others_have_none() {
        assert_eq!(canonical_addr(addr("[fe80::1%3]:1")), addr("[fe80::1%3]:1"));
        assert_eq!(canonical_addr(addr("[2001:db8::1%3]:1")), addr("[2001:db8::1]:1"));
        assert_eq!(canonical_addr(addr("[::ffff:10.0.0.1]:1")), addr("10.0.0.1:1"));
    }

    #[test]
    fn local_networks_are_told_from_the_rest() {
        for ip in ["10.1.2.3", "172.31.0.1", "192.168.0.1", "169.254.1.1", "127.0.0.1", "fe80::1", "fd00::1", "::1"] {
            assert!(is_local(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["1.2.3.4", "172.32.0.1", "100.64.0.1", "0.0.0.0", "239.192.152.143", "2001:db8::1", "::"] {
            assert!(!is_local(ip.parse().unwrap()), "{ip}");
        }
        assert!(is_local("::ffff:10.0.0.1".parse().unwrap()));
    }
}
