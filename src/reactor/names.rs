//! What this machine knows about names: its DNS servers (`resolv.conf`), its hosts file.
//!
//! Read at the start and at a reload, never on the way of a transfer. Search domains and options are left out: trackers have whole
//! names, and the engine's resolver has retries of its own.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// Servers taken from `resolv.conf`, as libc has it; more are left out.
const SERVERS_MAX: usize = 3;
/// Names taken from the hosts file; more are left out.
const HOSTS_MAX: usize = 10_000;
/// What is read of either file; a block list of this size is not a hosts file any more, and its rest is left out.
const FILE_MAX_BYTES: u64 = 1 << 20;
const DNS_PORT: u16 = 53;

/// The servers to ask, in order: those of `/etc/resolv.conf`, or the one on this machine, as libc does.
#[must_use]
pub fn name_servers() -> Vec<SocketAddr> {
    let servers = parse_servers(&read(Path::new("/etc/resolv.conf")));
    if servers.is_empty() { vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DNS_PORT)] } else { servers }
}

/// Names and their addresses from `/etc/hosts`, in order, in lower case.
#[must_use]
pub fn hosts() -> Vec<(String, IpAddr)> {
    parse_hosts(&read(Path::new("/etc/hosts")))
}

/// The text of a file, or nothing: a machine may do without either.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let result: io::Result<usize> = File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut bytes));
    if let Err(error) = result {
        log::debug!("{}: {error}", path.display());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An address with an interface (`fe80::1%eth0`) is left out: it needs a scope that only a lookup could tell.
fn parse_servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let ip = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
            Some(SocketAddr::new(ip.parse().ok()?, DNS_PORT))
        })
        .take(SERVERS_MAX)
        .collect()
}

fn parse_hosts(text: &str) -> Vec<(String, IpAddr)> {
    let mut hosts = Vec::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let mut words = line.split_ascii_whitespace();
        let Some(ip) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        hosts.extend(words.map(|name| (name.trim_end_matches('.').to_ascii_lowercase(), ip)));
    }
    hosts.truncate(HOSTS_MAX);
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_taken_in_order_and_what_is_not_understood_is_left_out() {
        let text = "# by hand\nsearch lan\nnameserver 192.0.2.1\n  nameserver\t2001:db8::1 # second\n\
                    nameserver fe80::1%eth0\nnameserver\noptions rotate\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let servers: Vec<String> = parse_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]);
    }

    #[test]
    fn a_host_may_have_many_names_and_many_addresses() {
        let text =
            "127.0.0.1 localhost Tracker.Example. # ours\n::1 localhost\n#10.0.0.1 not\nnonsense here\n10.0.0.2\n";
        let hosts = parse_hosts(text);
        let v4: IpAddr = "127.0.0.1".parse().unwrap();
        let v6: IpAddr = "::1".parse().unwrap();
        assert_eq!(
            hosts,
            [("localhost".to_owned(), v4), ("tracker.example".to_owned(), v4), ("localhost".to_owned(), v6)]
        );
    }

    #[test]
    fn a_huge_hosts_file_is_cut() {
        assert_eq!(parse_hosts(&"10.0.0.1 a b c\n".repeat(HOSTS_MAX)).len(), HOSTS_MAX);
    }
}
