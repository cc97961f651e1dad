//! The network interfaces of this machine, as `/proc/net` tells of them: no netlink socket is needed, which a sandbox may forbid.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};

/// Bytes that are read of a file: thousands of routes or addresses. The rest is left out.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// The scope of addresses that do not leave this machine, as `if_inet6` has it.
const SCOPE_HOST: &str = "10";

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interface {
    /// The kernel's number for it, never used twice.
    pub(crate) index: u32,
    pub(crate) name: String,
}

/// Those that are up and have an IPv4 network of their own, by number; not loopback.
pub(crate) fn with_v4() -> Vec<Interface> {
    let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, None) else { return Vec::new() };
    let named = parse_routes(&read("/proc/net/route")).into_iter();
    sorted(named.filter_map(|name| Some(Interface { index: name_to_index(&socket, &name).ok()?, name })).collect())
}

/// Those that have IPv6 addresses, by number; not loopback.
pub(crate) fn with_v6() -> Vec<Interface> {
    sorted(parse_addresses(&read("/proc/net/if_inet6")).into_iter().map(|(_, interface)| interface).collect())
}

/// The one that has this IPv6 address.
pub(crate) fn of_v6(ip: Ipv6Addr) -> Option<Interface> {
    let addresses = parse_addresses(&read("/proc/net/if_inet6"));
    addresses.into_iter().find(|(other, _)| *other == ip).map(|(_, interface)| interface)
}

/// The IPv6 addresses of the one with this name.
pub(crate) fn v6_of(name: &str) -> Vec<Ipv6Addr> {
    let addresses = parse_addresses(&read("/proc/net/if_inet6"));
    addresses.into_iter().filter(|(_, interface)| interface.name == name).map(|(ip, _)| ip).collect()
}

/// A file's text, or nothing: a machine may do without a family.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut bytes)) {
        log::debug!("{path}: {error}");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn sorted(mut interfaces: Vec<Interface>) -> Vec<Interface> {
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces
}

/// The interfaces of routes without a gateway, those to everywhere left out: a network that begins right there.
fn parse_routes(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (name, destination, gateway) = (words.next()?, words.next()?, words.next()?);
        let [destination, gateway] = [destination, gateway].map(|word| u32::from_str_radix(word, 16).ok());
        let is_own = destination? != 0 && gateway? == 0;
        (is_own && name != "lo").then(|| name.to_owned())
    };
    text.lines().filter_map(of_line).collect()
}

/// Addresses and whose they are: `ip index prefix scope flags name`, in hexadecimal.
fn parse_addresses(text: &str) -> Vec<(Ipv6Addr, Interface)> {
    let of_line = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [ip, index, _, scope, _, name] = words[..] else { return None };
        let ip = IpAddr::from(u128::from_str_radix(ip, 16).ok()?.to_be_bytes());
        let (IpAddr::V6(ip), index) = (ip, u32::from_str_radix(index, 16).ok()?) else { return None };
        (scope != SCOPE_HOST).then(|| (ip, Interface { index, name: name.to_owned() }))
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_with_a_network_of_its_own_is_one() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                    ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n\
                    lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0\n\
                    cut\t0000\n";
        assert_eq!(parse_routes(text), ["eth0"]);
    }

    #[test]
    fn addresses_of_ipv6_come_with_their_interface() {
        let text = "fe8000000000000000fc00fffe000001 04 40 20 80     eth0\n\
                    fd000000000000000000000000000002 04 40 00 82     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\nnonsense\nfe80 zz 40 20 80 eth1\n";
        let eth0 = || Interface { index: 4, name: "eth0".into() };
        let found = parse_addresses(text);
        assert_eq!(found, [("fe80::fc:ff:fe00:1".parse().unwrap(), eth0()), ("fd00::2".parse().unwrap(), eth0())]);
        assert_eq!(sorted(found.into_iter().map(|(_, interface)| interface).collect()), [eth0()]);
    }
}
