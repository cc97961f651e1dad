//! What only a `.st` file has: its version, the SHA-256 of every fragment, and the binary tracker table.

use std::net::{Ipv4Addr, Ipv6Addr};

use nom::IResult;
use nom::Parser;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};

use crate::base::hash::PieceHashes;
use crate::codec::bencode::Dict;
use crate::codec::metainfo::{ADDRESSES_MAX, MetainfoError};

/// Bytes of a fragment: a power of two from here…
pub const FRAGMENT_LEN_MIN: u32 = 16 << 10;
/// … to here.
pub const FRAGMENT_LEN_MAX: u32 = 64 << 20;

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
    /// As an address.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Udp => "udp",
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

pub(super) fn check_version(info: &Dict<'_>) -> Result<(), MetainfoError> {
    match info.int(b"st version") {
        Some(1) => Ok(()),
        version => Err(MetainfoError::Version(version.unwrap_or(0))),
    }
}

/// Fragment length, hashes, and whether the file is of the pure profile.
pub(super) fn read_fragments(info: &Dict<'_>) -> Result<(u32, PieceHashes, bool), MetainfoError> {
    let bad = |key, expected| MetainfoError::Key { key, expected };
    let len = info.int(b"fragment length").and_then(|len| u32::try_from(len).ok());
    let len = len.filter(|len| len.is_power_of_two() && (FRAGMENT_LEN_MIN..=FRAGMENT_LEN_MAX).contains(len));
    let len = len.ok_or(bad("fragment length", "a power of two from 16384 to 67108864"))?;
    let fragments = info.bytes(b"fragments").filter(|fragments| fragments.len().is_multiple_of(32));
    let fragments = fragments.ok_or(bad("fragments", "a string of 32 bytes for each fragment"))?;
    let is_pure = match (info.get(b"piece length"), info.get(b"pieces")) {
        (None, None) => true,
        (Some(piece_len), Some(pieces)) => {
            if piece_len.as_int() != Some(i64::from(len)) {
                return Err(bad("piece length", "equal to `fragment length`"));
            }
            let count =
                pieces.as_bytes().filter(|pieces| pieces.len().is_multiple_of(20)).map(|pieces| pieces.len() / 20);
            if count != Some(fragments.len() / 32) {
                return Err(bad("pieces", "a string of 20 bytes for each fragment"));
            }
            false
        }
        _ => return Err(bad("pieces", "there together with `piece length`, or not at all")),
    };
    Ok((len, PieceHashes::Sha256(fragments.into()), is_pure))
}

/// Reads a tracker table.
///
/// # Errors
/// [`MetainfoError::Tracker`] names the first record that is cut short or not as it should be.
pub fn parse_trackers(mut table: &[u8]) -> Result<Vec<Tracker>, MetainfoError> {
    let mut trackers: Vec<Tracker> = Vec::new();
    while !table.is_empty() {
        let index = trackers.len();
        let bad = MetainfoError::Tracker(index);
        let (rest, tracker) = record(table).map_err(|_| bad.clone())?;
        let tracker = tracker.filter(|tracker| trackers.last().is_none_or(|last| last.tier <= tracker.tier));
        trackers.push(tracker.filter(|_| index < ADDRESSES_MAX).ok_or(bad)?);
        table = rest;
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

/// Writes a tracker table. Addresses that it has no form for (a query, a name that is not ASCII) are left out: they
/// stand in `announce-list`.
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

fn encode(tier: u8, url: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = ["udp", "http", "https"].iter().position(|known| scheme.eq_ignore_ascii_case(known))?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (authority, [0_u16, 80, 443][scheme]),
    };
    let (family, host) = if let Ok(ip) = host.parse::<Ipv4Addr>() {
        (4, ip.octets().to_vec())
    } else if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
        (6, ip.octets().to_vec())
    } else {
        (0, host.as_bytes().to_vec())
    };
    let path = match (scheme, path) {
        (0, _) | (_, "/announce") => "",
        (_, "") => "/",
        (_, path) => path,
    };
    let mut record = vec![tier, u8::try_from(scheme).ok()?, family];
    record.extend(port.to_be_bytes());
    record.push(u8::try_from(host.len()).ok()?);
    record.extend(host);
    record.push(u8::try_from(path.len()).ok()?);
    record.extend(path.as_bytes());
    // Written is only what is read back as the same address.
    let is_same = parse_trackers(&record).is_ok_and(|trackers| trackers.len() == 1);
    is_same.then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_as_it_was_written() {
        let tiers: Vec<Vec<String>> = vec![
            vec!["udp://127.0.0.1:6969".into(), "http://tracker.example:80/announce".into()],
            vec!["https://[2001:db8::1]:443/x/announce".into()],
        ];
        let table = write_trackers(&tiers);
        let read: Vec<_> =
            parse_trackers(&table).unwrap().iter().map(|tracker| (tracker.tier, tracker.url())).collect();
        assert_eq!(read, [(0, tiers[0][0].clone()), (0, tiers[0][1].clone()), (1, tiers[1][0].clone())]);
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
        for url in ["http://x/announce?key=1 2", "wss://x:1/", "http://münchen:1/announce", "udp://x", "nonsense"] {
            assert!(write_trackers(&[vec![url.into()]]).is_empty(), "{url}");
        }
    }
}
