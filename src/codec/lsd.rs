//! Local Service Discovery (BEP 14): the `BT-SEARCH` datagram by which a client tells its neighbours of the swarms it is in.
//!
//! It is the head of an HTTP request, read by `httparse`. Where a datagram came from is not in it, and which group it was sent to
//! (`Host`) is not read: the socket knows both. Headers that nobody here knows are passed over.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::base::hash::{InfoHash, Sha1Hash};

/// The port of both groups.
pub const PORT: u16 = 6771;
/// The groups: that of IPv4 (organisation-local), and that of IPv6 (site-local).
pub const GROUPS: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 192, 152, 143)), PORT),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f)), PORT),
];
/// Bytes of a datagram (BEP 14); a longer one is not read.
pub const DATAGRAM_MAX: usize = 1400;
/// Hashes that are written into one datagram, which so many fill; further ones are left out.
pub const HASHES_MAX: usize = 25;
/// Bytes of a cookie that are written; the rest of a longer one is left out.
pub const COOKIE_MAX: usize = 16;
/// Lines of a datagram that are read, hashes and all; one with more is not read.
pub const LINES_MAX: usize = 64;

/// What a datagram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search<'a> {
    /// Where its sender listens for peers; never 0.
    pub port: u16,
    /// The swarms that it is in; at least one, no more than [`LINES_MAX`].
    pub info_hashes: Vec<InfoHash>,
    /// By what its sender knows its own.
    pub cookie: Option<&'a [u8]>,
}

impl<'a> Search<'a> {
    /// Reads a datagram; none if it is not one, says no port, or names no swarm. A hash in another form than that of
    /// forty hex digits is passed over.
    #[must_use]
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        if packet.len() > DATAGRAM_MAX {
            return None;
        }
        let mut lines = [httparse::EMPTY_HEADER; LINES_MAX];
        let mut head = httparse::Request::new(&mut lines);
        if !head.parse(packet).ok()?.is_complete() || (head.method, head.path) != (Some("BT-SEARCH"), Some("*")) {
            return None;
        }
        let named = |name: &'static str| {
            let lines = head.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
            lines.map(|line| line.value)
        };
        let text = |value: &'a [u8]| std::str::from_utf8(value).ok().map(str::trim);
        let port = named("port").next().and_then(text).and_then(|port| port.parse().ok()).filter(|port| *port != 0)?;
        let info_hashes: Vec<_> = named("infohash").filter_map(text).filter_map(Sha1Hash::from_hex).collect();
        let cookie = named("cookie").next();
        (!info_hashes.is_empty()).then_some(Self { port, info_hashes, cookie })
    }

    /// The datagram for the group of IPv4 or IPv6; its bytes, no more than [`DATAGRAM_MAX`], replace what is in `out`.
    pub fn write(&self, v6: bool, out: &mut Vec<u8>) {
        out.clear();
        let mut say = |line: std::fmt::Arguments<'_>| out.write_fmt(line).expect("a vector takes everything");
        say(format_args!("BT-SEARCH * HTTP/1.1\r\nHost: {}\r\nPort: {}\r\n", GROUPS[usize::from(v6)], self.port));
        self.info_hashes.iter().take(HASHES_MAX).for_each(|hash| say(format_args!("Infohash: {hash}\r\n")));
        if let Some(cookie) = self.cookie {
            out.extend_from_slice(b"cookie: ");
            out.extend(cookie.iter().take(COOKIE_MAX));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(digit: char) -> InfoHash {
        Sha1Hash::from_hex(&digit.to_string().repeat(40)).unwrap()
    }

    #[test]
    fn a_datagram_has_the_bytes_of_bep_14() {
        let mut out = Vec::new();
        let search = Search { port: 6881, info_hashes: vec![hash('a'), hash('0')], cookie: Some(b"me") };
        search.write(true, &mut out);
        let bytes = format!(
            "BT-SEARCH * HTTP/1.1\r\nHost: [ff15::efc0:988f]:6771\r\nPort: 6881\r\nInfohash: {}\r\nInfohash: {}\r\n\
             cookie: me\r\n\r\n\r\n",
            "a".repeat(40),
            "0".repeat(40)
        );
        assert_eq!(std::str::from_utf8(&out).unwrap(), bytes);
        search.write(false, &mut out);
        assert!(out.starts_with(b"BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\nPort: 6881\r\n"));
    }

    #[test]
    fn what_other_clients_send_is_read() {
        // As libtorrent, Transmission and aria2 write it: other cases, other orders, with and without a cookie.
        for (text, cookie) in [
            (format!("Infohash: {}\r\nPort: 51413\r\ncookie: 5f3a\r\n", "AB".repeat(20)), Some(&b"5f3a"[..])),
            (format!("Host: 239.192.152.143:6771\r\nport: 51413\r\ninfohash: {}\r\n", "ab".repeat(20)), None),
            (format!("X: y\r\nPort:51413\r\nInfohash:{}\r\nInfohash: {}\r\n", "ab".repeat(32), "Ab".repeat(20)), None),
        ] {
            let packet = format!("BT-SEARCH * HTTP/1.1\r\n{text}\r\n\r\n");
            let search = Search::parse(packet.as_bytes()).unwrap();
            let info_hashes = vec![Sha1Hash([0xab; 20])];
            assert_eq!(search, Search { port: 51413, info_hashes, cookie }, "{packet}");
        }
    }

    #[test]
    fn what_is_no_search_is_not_read() {
        let good = format!("Port: 1\r\nInfohash: {}\r\n", "0".repeat(40));
        let is_read = |packet: String| Search::parse(packet.as_bytes()).is_some();
        assert!(is_read(format!("BT-SEARCH * HTTP/1.1\r\n{good}\r\n")));
        for head in ["M-SEARCH * HTTP/1.1", "BT-SEARCH / HTTP/1.1", "BT-SEARCH *", "HTTP/1.1 200 OK", ""] {
            assert!(!is_read(format!("{head}\r\n{good}\r\n")), "{head}");
        }
        for (from, to) in
            [("Port: 1", "Port: 0"), ("Port: 1", "Port: 65536"), ("Port: 1", "Porto: 1"), ("00\r", "0g\r")]
        {
            assert!(!is_read(format!("BT-SEARCH * HTTP/1.1\r\n{}\r\n", good.replace(from, to))), "{to}");
        }
        assert!(!is_read(format!("BT-SEARCH * HTTP/1.1\r\n{good}")), "it is cut");
        assert!(!is_read(format!("BT-SEARCH * HTTP/1.1\r\n{good}{}\r\n", "a:b\r\n".repeat(LINES_MAX))));
        assert!(!is_read(format!("BT-SEARCH * HTTP/1.1\r\n{good}x: {}\r\n\r\n", "y".repeat(DATAGRAM_MAX))));
    }

    #[test]
    fn a_datagram_is_never_too_long() {
        let mut out = Vec::new();
        let cookie = [b'x'; 2 * COOKIE_MAX];
        let search = Search { port: u16::MAX, info_hashes: vec![hash('f'); 2 * HASHES_MAX], cookie: Some(&cookie) };
        for v6 in [false, true] {
            search.write(v6, &mut out);
            assert!((DATAGRAM_MAX - 52..=DATAGRAM_MAX).contains(&out.len()), "{} bytes", out.len());
            let read = Search::parse(&out).unwrap();
            assert_eq!((read.info_hashes.len(), read.cookie.unwrap().len()), (HASHES_MAX, COOKIE_MAX));
        }
    }
}
