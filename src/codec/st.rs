//! What only a `.st` file has: its version, the SHA-256 of every fragment, and the binary tracker table.

use std::net::{Ipv4Addr, Ipv6Addr};

use nom::IResult;
use nom::Parser;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};

use crate::base::steps;
use crate::codec::metainfo::{ADDRESSES_MAX, Limit, MetainfoError};

/// Least bytes of a fragment, which is a power of two; fewer are refused.
pub const FRAGMENT_LEN_MIN: u32 = 16 << 10;
/// Most bytes of a fragment; more are refused.
pub const FRAGMENT_LEN_MAX: u32 = 64 << 20;
/// Bytes of a tracker table; a longer one is refused.
pub const TABLE_LEN_MAX: usize = 256 << 10;

/// The scheme of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// BEP 15.
    Udp,
    /// BEP 3.
    Http,
    /// BEP 3 over TLS.
    Https,
}

/// One record of the tracker table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracker {
    /// BEP 12 tier; never decreases.
    pub tier: u8,
    /// How it is asked.
    pub scheme: Scheme,
    /// Its address or name, as it stands in an address of the web (IPv6 in brackets).
    pub host: String,
    /// Its port, not 0.
    pub port: u16,
    /// Begins with `/`; empty for UDP.
    pub path: String,
}

impl Tracker {
    /// As an address, the way people write it: without a port that its scheme implies.
    #[must_use]
    pub fn url(&self) -> String {
        let (scheme, implied) = match self.scheme {
            Scheme::Udp => ("udp", None),
            Scheme::Http => ("http", Some(80)),
            Scheme::Https => ("https", Some(443)),
        };
        let port = if implied == Some(self.port) { String::new() } else { format!(":{}", self.port) };
        format!("{scheme}://{}{port}{}", self.host, self.path)
    }
}

/// What an `info` says of fragments, and of the pieces of BEP 3 beside them.
#[derive(Debug)]
pub(super) struct Fragments {
    /// `fragment length`, if it is an integer.
    pub(super) len: Option<i64>,
    /// Bytes of `fragments`, if it is a string.
    pub(super) hashes: Option<usize>,
    /// `piece length`: `None` if it is missing, `Some(None)` if it is not an integer.
    pub(super) piece_len: Option<Option<i64>>,
    /// Bytes of `pieces`: `None` if it is missing, `Some(None)` if it is not a string.
    pub(super) pieces: Option<Option<usize>>,
}

/// Fragment length, the number of hashes, and whether the file is of the pure profile.
pub(super) fn read_fragments(fragments: &Fragments) -> Result<(u32, usize, bool), MetainfoError> {
    let bad = |key, expected| MetainfoError::Key { key, expected };
    let len = fragments.len.filter(|&len| u64::try_from(len).is_ok_and(u64::is_power_of_two));
    let len = len.filter(|&len| len >= i64::from(FRAGMENT_LEN_MIN));
    let len = len.ok_or(bad("fragment length", "a power of two from 16384 to 67108864"))?;
    let len = u32::try_from(len).ok().filter(|&len| len <= FRAGMENT_LEN_MAX).ok_or(Limit::FragmentLen(len))?;
    let hashes = fragments.hashes.filter(|hashes| hashes.is_multiple_of(32));
    let count = hashes.ok_or(bad("fragments", "a string of 32 bytes for each fragment"))? / 32;
    let is_pure = match (fragments.piece_len, fragments.pieces) {
        (None, None) => true,
        (Some(piece_len), Some(pieces)) => {
            if piece_len != Some(i64::from(len)) {
                return Err(bad("piece length", "equal to `fragment length`"));
            }
            if pieces.filter(|pieces| pieces.is_multiple_of(20)).map(|pieces| pieces / 20) != Some(count) {
                return Err(bad("pieces", "a string of 20 bytes for each fragment"));
            }
            false
        }
        _ => return Err(bad("pieces", "there together with `piece length`, or not at all")),
    };
    Ok((len, count, is_pure))
}

/// Reads a tracker table. All of it is checked; of its records the first [`ADDRESSES_MAX`] are kept.
///
/// # Errors
/// [`Limit::TrackerTable`] if the table is too long; [`MetainfoError::Tracker`] names the first record that is cut short or not as it should be.
pub fn parse_trackers(mut table: &[u8]) -> Result<Vec<Tracker>, MetainfoError> {
    if table.len() > TABLE_LEN_MAX {
        return Err(Limit::TrackerTable(table.len()).into());
    }
    steps::add(table.len() / 4);
    let mut trackers: Vec<Tracker> = Vec::new();
    let (mut index, mut tier) = (0, 0);
    while !table.is_empty() {
        let (rest, tracker) = record(table).map_err(|_| MetainfoError::Tracker(index))?;
        let tracker = tracker.filter(|tracker| tracker.tier >= tier).ok_or(MetainfoError::Tracker(index))?;
        tier = tracker.tier;
        if trackers.len() < ADDRESSES_MAX {
            trackers.push(tracker);
        }
        (table, index) = (rest, index + 1);
    }
    Ok(trackers)
}

fn record(input: &[u8]) -> IResult<&[u8], Option<Tracker>> {
    let head = (be_u8, be_u8, be_u8, be_u16, length_data(be_u8), length_data(be_u8));
    head.map(|(tier, scheme, family, port, host, path): (u8, u8, u8, u16, &[u8], &[u8])| {
        let scheme = [Scheme::Udp, Scheme::Http, Scheme::Https].get(usize::from(scheme)).copied()?;
        let path = std::str::from_utf8(path)
            .ok()
            .filter(|path| path.is_ascii() && path.bytes().all(|b| b.is_ascii_graphic()))?;
        let path = match (scheme, path) {
            (Scheme::Udp, "") => "",
            (Scheme::Udp, _) => return None,
            (_, "") => "/announce",
            (_, path) => Some(path).filter(|path| path.starts_with('/'))?,
        };
        let tracker = Tracker { tier, scheme, host: host_of(family, host)?, port, path: path.to_owned() };
        Some(tracker).filter(|_| port != 0)
    })
    .parse(input)
}

fn host_of(family: u8, host: &[u8]) -> Option<String> {
    match family {
        4 => <[u8; 4]>::try_from(host).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
        6 => <[u8; 16]>::try_from(host).ok().map(|octets| format!("[{}]", Ipv6Addr::from(octets))),
        0 if !host.is_empty() && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte)) => {
            std::str::from_utf8(host).ok().map(str::to_owned)
        }
        _ => None,
    }
}

/// Writes a tracker table. Addresses that it has no form for (a UDP tracker with a path of its own, a name that is not
/// ASCII, a password, a path of more than 255 bytes) are left out: they stand in `announce-list`.
#[must_use]
pub fn write_trackers(tiers: &[Vec<String>]) -> Vec<u8> {
    let mut table = Vec::new();
    for (tier, urls) in (0..=u8::MAX).zip(tiers) {
        for record in urls.iter().filter_map(|url| encode(tier, url)) {
            table.extend_from_slice(&record);
        }
    }
    table
}

/// What two spellings of one tracker's address have in common: its record, where it has one.
#[must_use]
pub fn identity(url: &str) -> Vec<u8> {
    encode(0, url).unwrap_or_else(|| url.as_bytes().to_vec())
}

fn encode(tier: u8, url: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = ["udp", "http", "https"].iter().position(|known| scheme.eq_ignore_ascii_case(known))?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, [0_u16, 80, 443][scheme]),
    };
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let (family, host) = if let Some(ip) = in_brackets {
        (6, ip.parse::<Ipv6Addr>().ok()?.octets().to_vec())
    } else if let Ok(ip) = host.parse::<Ipv4Addr>() {
        (4, ip.octets().to_vec())
    } else {
        (0, host.to_ascii_lowercase().into_bytes())
    };
    let path = match (scheme, path) {
        (0, "" | "/") | (_, "/announce") => "",
        (0, _) => return None,
        (_, "") => "/",
        (_, path) => path,
    };
    let mut record = vec![tier, u8::try_from(scheme).ok()?, family];
    record.extend(port.to_be_bytes());
    record.push(u8::try_from(host.len()).ok()?);
    record.extend(host);
    record.push(u8::try_from(path.len()).ok()?);
    record.extend(path.as_bytes());
    // Written is only what is read again.
    parse_trackers(&record).is_ok().then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_as_it_was_written() {
        let tiers: Vec<Vec<String>> = vec![
            vec!["udp://127.0.0.1:6969".into(), "http://tracker.example/announce".into()],
            vec!["https://[2001:db8::1]/x/announce?key=1".into(), "https://h:80/".into()],
        ];
        let table = write_trackers(&tiers);
        let read: Vec<_> =
            parse_trackers(&table).unwrap().iter().map(|tracker| (tracker.tier, tracker.url())).collect();
        assert_eq!(
            read,
            [(0, tiers[0][0].clone()), (0, tiers[0][1].clone()), (1, tiers[1][0].clone()), (1, tiers[1][1].clone())]
        );
    }

    #[test]
    fn a_record_that_is_not_as_it_should_be_is_named() {
        let good = write_trackers(&[vec!["udp://127.0.0.1:6969".into()]]);
        assert_eq!(good, [0, 0, 4, 0x1b, 0x39, 4, 127, 0, 0, 1, 0]);
        for (at, byte) in [(1, 3), (2, 5), (3, 0), (5, 3), (10, 1)] {
            let mut table = good.repeat(2);
            table[good.len() + at] = byte;
            if at == 3 {
                table[good.len() + 4] = 0;
            }
            assert_eq!(parse_trackers(&table), Err(MetainfoError::Tracker(1)), "byte {at}");
        }
        for cut in 1..good.len() {
            assert_eq!(parse_trackers(&good[..cut]), Err(MetainfoError::Tracker(0)));
        }
        let mut falling = good.repeat(2);
        falling[0] = 1;
        assert_eq!(parse_trackers(&falling), Err(MetainfoError::Tracker(1)), "tiers never decrease");
    }

    #[test]
    fn what_has_no_form_in_the_table_is_left_out() {
        for url in [
            "http://x/announce?key=1 2",
            "http://user:secret@x/announce",
            "http://[::1:80/",
            "http://[::1/",
            "wss://x:1/",
            "http://münchen:1/announce",
            "udp://x",
            "udp://x:1/passkey",
            "udp://x:99999",
            "nonsense",
            &format!("http://{}/", "x".repeat(256)),
            &format!("http://x/{}", "x".repeat(255)),
        ] {
            assert!(write_trackers(&[vec![url.into()]]).is_empty(), "{url}");
        }
    }

    #[test]
    fn spellings_of_one_tracker_are_the_same() {
        for (one, other) in [
            ("http://x/announce", "HTTP://X:80/announce"),
            ("udp://x:1", "udp://x:1/announce"),
            ("https://[::1]:443/a", "https://[0::1]/a"),
        ] {
            assert_eq!(identity(one), identity(other), "{one} {other}");
        }
        for (one, other) in [
            ("http://x/announce", "https://x/announce"),
            ("udp://x:1/a", "udp://x:1"),
            ("udp://x:16640", "udp://x:24832"),
            ("http://x/A", "http://x/a"),
        ] {
            assert_ne!(identity(one), identity(other), "{one} {other}");
        }
    }

    #[test]
    fn a_table_of_any_length_is_checked_to_its_end_and_kept_within_the_bound() {
        let good = write_trackers(&[vec!["udp://127.0.0.1:6969".into()]]);
        let mut long = good.repeat(ADDRESSES_MAX + 10);
        assert_eq!(parse_trackers(&long).unwrap().len(), ADDRESSES_MAX);
        long.pop();
        assert_eq!(parse_trackers(&long), Err(MetainfoError::Tracker(ADDRESSES_MAX + 9)));
    }
}
