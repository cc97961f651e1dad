//! Lists of addresses that are not spoken with, in the three forms in which they are handed around, mixed as they may be:
//!
//! ```text
//! 10.0.0.0/8                                       an address, a net, or FIRST-LAST
//! Some name:1.2.3.4-1.2.3.7                        p2p: a name before it, which may hold colons
//! 001.002.003.004 - 001.002.003.007 , 100 , Name   dat: a level after it, from 128 on it is allowed
//! ```
//!
//! Empty lines and those that begin with `#`, `;` or `//` say nothing.

use std::net::{IpAddr, Ipv4Addr};

use crate::base::blocklist::Range;
use crate::base::net::Net;

/// Levels of the dat form from here on mean that the range is allowed.
const ALLOWED_LEVEL: u32 = 128;

/// What a list says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parsed {
    /// Its ranges, in its order.
    pub ranges: Vec<Range>,
    /// Lines that say nothing that is understood,
    pub bad: usize,
    /// and the first of them, counted from one.
    pub first_bad: Option<usize>,
}

/// Reads a list. What is not UTF-8 is a name, or a line that is not understood.
#[must_use]
pub fn parse(text: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    for (number, line) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || matches!(line[0], b'#' | b';') || line.starts_with(b"//") {
            continue;
        }
        match line_of(line) {
            Some(range) => parsed.ranges.extend(range),
            None => {
                parsed.bad += 1;
                parsed.first_bad.get_or_insert(number);
            }
        }
    }
    parsed
}

/// The range of one line; none if it is not understood, and `Some(None)` if it is one that is allowed.
fn line_of(line: &[u8]) -> Option<Option<Range>> {
    if let Some(at) = line.iter().position(|&byte| byte == b',') {
        let level = line[at + 1..].split(|&byte| byte == b',').next().unwrap_or_default();
        let level = std::str::from_utf8(level.trim_ascii()).ok().and_then(|text| text.parse::<u32>().ok());
        // A name in the p2p form may have a comma, too.
        if let (Some(level), Some(range)) = (level, range(&line[..at])) {
            return Some((level < ALLOWED_LEVEL).then_some(range));
        }
    }
    range(line).or_else(|| after_a_name(line)).map(Some)
}

/// The range after the name of a p2p line: behind the last colon of those before it, or, of IPv6, any of them.
fn after_a_name(line: &[u8]) -> Option<Range> {
    let colons = line.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    let (mut last, mut found) = (None, None);
    for at in colons {
        last = Some(at);
        if found.is_none() {
            found = range(&line[at + 1..]).filter(|range| range.first.is_ipv6());
        }
    }
    last.and_then(|at| range(&line[at + 1..])).filter(|range| range.first.is_ipv4()).or(found)
}

/// `ADDRESS`, `ADDRESS/BITS` or `FIRST-LAST`.
fn range(text: &[u8]) -> Option<Range> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Some((first, last)) = text.split_once('-') {
        let range = Range { first: addr(first.trim())?, last: addr(last.trim())? };
        let fits = range.first.is_ipv4() == range.last.is_ipv4() && range.first <= range.last;
        return fits.then_some(range);
    }
    match addr(text) {
        Some(one) => Some(Range { first: one, last: one }),
        None => Net::parse(text).map(|net| net.range()),
    }
}

/// An address; one of IPv4 may have zeroes before its numbers, which are decimal.
fn addr(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part =
            parts.next().filter(|part| (1..=3).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit()));
        match part.map(str::parse) {
            Some(Ok(number)) => *octet = number,
            _ => return text.parse().ok(),
        }
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges(text: &str) -> Vec<String> {
        let parsed = parse(text.as_bytes());
        assert_eq!(parsed.bad, 0, "{text}");
        parsed.ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect()
    }

    #[test]
    fn every_form_is_read() {
        for (line, expected) in [
            ("10.0.0.0/8", "10.0.0.0-10.255.255.255"),
            ("1.2.3.4", "1.2.3.4-1.2.3.4"),
            ("1.2.3.4 - 1.2.3.7", "1.2.3.4-1.2.3.7"),
            ("2001:db8::/32", "2001:db8::-2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::1-2001:db8::5", "2001:db8::1-2001:db8::5"),
            ("Some name, Inc: part 2:1.2.3.4-1.2.3.7", "1.2.3.4-1.2.3.7"),
            ("Name:2001:db8::1-2001:db8::5", "2001:db8::1-2001:db8::5"),
            ("001.002.003.004 - 001.002.003.017 , 100 , Some name", "1.2.3.4-1.2.3.17"),
            ("001.002.003.004-001.002.003.004,000,x", "1.2.3.4-1.2.3.4"),
        ] {
            assert_eq!(ranges(line), [expected], "{line}");
        }
        assert_eq!(ranges("# a\n\n; b\n// c\r\n1.2.3.4 - 1.2.3.5 , 128 , allowed\r\n"), Vec::<String>::new());
    }

    #[test]
    fn what_is_not_understood_is_counted_and_the_first_told() {
        let parsed = parse(b"1.2.3.4\nnonsense\n1.2.3.9-1.2.3.4\n\xff:5.6.7.8-5.6.7.9\n300.1.1.1\n1.2.3.4-::1\n");
        assert_eq!((parsed.ranges.len(), parsed.bad, parsed.first_bad), (2, 4, Some(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(text: Vec<u8>) {
            let parsed = parse(&text);
            prop_assert!(parsed.ranges.iter().all(|range| range.first <= range.last));
        }
    }
}
