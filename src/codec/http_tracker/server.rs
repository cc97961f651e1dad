//! HTTP tracker messages as the tracker sees them (BEP 3, 7, 21, 23, 24, 31, 48): queries are read, answers are written.
//!
//! Nothing here allocates but the buffer that an answer goes into. Answers are canonical bencode. What a tracker does not keep it
//! does not write: no peer ids, no tracker id.

use std::fmt;
use std::io::{Cursor, Write as _};
use std::net::IpAddr;
use std::ops::Deref;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::codec::bencode::{write_bytes, write_int};
use crate::codec::compact::{V4_LEN, V6_LEN, parse_addr};
use crate::codec::http_tracker::RetryIn;
use crate::codec::udp_tracker::{Announce, AnnounceEvent, SCRAPES_MAX, SwarmCounts};

/// What a client asks in an announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnounceQuery {
    /// What it tells. `key` is zero where it is no number in hex; `left` is `u64::MAX` if it did not say.
    pub announce: Announce,
    /// How many peers it wants; none is the tracker's choice.
    pub wanted: Option<u32>,
    /// Peers in six or eighteen bytes each (BEP 23), not in a dictionary each.
    pub compact: bool,
    /// The address that it says it has; a name is none.
    pub ip: Option<IpAddr>,
}

/// What is wrong with a query; its text is for the `failure reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryError {
    /// `info_hash` is missing.
    NoInfoHash,
    /// An `info_hash` is not 20 bytes.
    BadInfoHash,
    /// An announce names two swarms.
    SecondInfoHash,
    /// `peer_id` is missing.
    NoPeerId,
    /// `peer_id` is not 20 bytes.
    BadPeerId,
    /// `port` is missing.
    NoPort,
    /// `port` is none that can be connected to.
    BadPort,
    /// `uploaded` is not a number from 0 to 2⁶⁴ - 1.
    BadUploaded,
    /// `downloaded` is not a number from 0 to 2⁶⁴ - 1.
    BadDownloaded,
    /// `left` is not a number from 0 to 2⁶⁴ - 1.
    BadLeft,
    /// A scrape names no swarm.
    FullScrape,
    /// A scrape names more than [`SCRAPES_MAX`] swarms.
    TooManySwarms,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoInfoHash => "info_hash is missing",
            Self::BadInfoHash => "info_hash is not 20 bytes",
            Self::SecondInfoHash => "an announce is of one swarm; info_hash stands there twice",
            Self::NoPeerId => "peer_id is missing",
            Self::BadPeerId => "peer_id is not 20 bytes",
            Self::NoPort => "port is missing",
            Self::BadPort => "port is not a number from 1 to 65535",
            Self::BadUploaded => "uploaded is not a number of bytes",
            Self::BadDownloaded => "downloaded is not a number of bytes",
            Self::BadLeft => "left is not a number of bytes",
            Self::FullScrape => "a full scrape is not offered; name the swarms with info_hash",
            Self::TooManySwarms => return write!(f, "a scrape is of {SCRAPES_MAX} swarms at most"),
        })
    }
}

/// The swarms of a scrape, in the order of the question: one to [`SCRAPES_MAX`].
#[derive(Debug, Clone, Copy)]
pub struct Hashes {
    all: [InfoHash; SCRAPES_MAX],
    len: usize,
}

impl Deref for Hashes {
    type Target = [InfoHash];

    fn deref(&self) -> &[InfoHash] {
        &self.all[..self.len]
    }
}

/// The parameters of a query; one without `=` has an empty value.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
}

/// Reads the query of an announce, without its `?`. Of parameters that stand there twice the first one counts, unknown ones are
/// nothing, and `+` is a plus.
///
/// # Errors
/// See [`QueryError`].
pub fn parse_announce_query(query: &str) -> Result<AnnounceQuery, QueryError> {
    let (mut info_hash, mut peer_id, mut port) = (None, None, None);
    let (mut uploaded, mut downloaded, mut left) = (None, None, None);
    let (mut event, mut wanted, mut key, mut compact, mut ip) = (None, None, None, None, None);
    for (name, value) in parameters(query) {
        match name {
            "info_hash" if info_hash.is_some() => return Err(QueryError::SecondInfoHash),
            "info_hash" => info_hash = Some(value),
            "peer_id" => _ = peer_id.get_or_insert(value),
            "port" => _ = port.get_or_insert(value),
            "uploaded" => _ = uploaded.get_or_insert(value),
            "downloaded" => _ = downloaded.get_or_insert(value),
            "left" => _ = left.get_or_insert(value),
            "event" => _ = event.get_or_insert(value),
            "numwant" => _ = wanted.get_or_insert(value),
            "key" => _ = key.get_or_insert(value),
            "compact" => _ = compact.get_or_insert(value),
            "ip" => _ = ip.get_or_insert(value),
            _ => {}
        }
    }
    let info_hash = unescape(info_hash.ok_or(QueryError::NoInfoHash)?).ok_or(QueryError::BadInfoHash)?;
    let peer_id = unescape(peer_id.ok_or(QueryError::NoPeerId)?).ok_or(QueryError::BadPeerId)?;
    let event = match event {
        Some("started") => AnnounceEvent::Started,
        Some("stopped") => AnnounceEvent::Stopped,
        Some("completed") => AnnounceEvent::Completed,
        Some("paused") => AnnounceEvent::Paused,
        _ => AnnounceEvent::Regular,
    };
    let port: u16 = port.ok_or(QueryError::NoPort)?.parse().map_err(|_| QueryError::BadPort)?;
    if port == 0 && event != AnnounceEvent::Stopped {
        return Err(QueryError::BadPort);
    }
    let bytes = |value: Option<&str>, missing: u64, error| value.map_or(Ok(missing), str::parse).map_err(|_| error);
    let wanted = wanted.and_then(|text| text.parse::<i64>().ok()).filter(|wanted| *wanted >= 0);
    let wanted = wanted.map(|wanted| u32::try_from(wanted).unwrap_or(u32::MAX));
    Ok(AnnounceQuery {
        announce: Announce {
            info_hash: Sha1Hash(info_hash),
            peer_id,
            downloaded: bytes(downloaded, 0, QueryError::BadDownloaded)?,
            left: bytes(left, u64::MAX, QueryError::BadLeft)?,
            uploaded: bytes(uploaded, 0, QueryError::BadUploaded)?,
            event,
            key: key.and_then(|key| u32::from_str_radix(key, 16).ok()).unwrap_or(0),
            num_want: wanted.map_or(-1, |wanted| i32::try_from(wanted).unwrap_or(i32::MAX)),
            port,
        },
        wanted,
        compact: compact != Some("0"),
        ip: ip.and_then(address),
    })
}

/// Reads the query of a scrape, without its `?`. A swarm that is named twice stands in the result twice.
///
/// # Errors
/// See [`QueryError`].
pub fn parse_scrape_query(query: &str) -> Result<Hashes, QueryError> {
    let mut hashes = Hashes { all: [Sha1Hash([0; 20]); SCRAPES_MAX], len: 0 };
    for (_, value) in parameters(query).filter(|(name, _)| *name == "info_hash") {
        let place = hashes.all.get_mut(hashes.len).ok_or(QueryError::TooManySwarms)?;
        *place = Sha1Hash(unescape(value).ok_or(QueryError::BadInfoHash)?);
        hashes.len += 1;
    }
    if hashes.len == 0 { Err(QueryError::FullScrape) } else { Ok(hashes) }
}

/// The twenty bytes that a value stands for, no more and no fewer.
fn unescape(value: &str) -> Option<[u8; 20]> {
    let (bytes, len) = unescape_upto::<20>(value)?;
    (len == bytes.len()).then_some(bytes)
}

/// The address that a value stands for.
fn address(value: &str) -> Option<IpAddr> {
    // The longest is six groups and an IPv4 address.
    let (bytes, len) = unescape_upto::<45>(value)?;
    std::str::from_utf8(&bytes[..len]).ok()?.parse().ok()
}

/// The bytes that a value stands for, and how many; none if there are more than `N`. `%XX` is a byte, everything else is itself.
fn unescape_upto<const N: usize>(value: &str) -> Option<([u8; N], usize)> {
    let (mut bytes, mut len, mut rest) = ([0; N], 0, value.as_bytes());
    while !rest.is_empty() {
        let place = bytes.get_mut(len)?;
        (*place, rest) = match rest {
            [b'%', high, low, rest @ ..] => (hex_digit(*high)? << 4 | hex_digit(*low)?, rest),
            [b'%', ..] | [] => return None,
            [plain, rest @ ..] => (*plain, rest),
        };
        len += 1;
    }
    Some((bytes, len))
}

const fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// An answer to an announce that is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnnounceWritten<'a> {
    /// The swarm in numbers.
    pub counts: SwarmCounts,
    /// Seconds until the next announce.
    pub interval: u32,
    /// Seconds that must pass before it at least.
    pub min_interval: u32,
    /// The asker's address (BEP 24).
    pub external_ip: IpAddr,
    /// Addresses of one family, one after another as in [`crate::codec::compact`].
    pub peers: &'a [u8],
    /// They are of IPv6, in eighteen bytes each, not in six.
    pub v6: bool,
    /// As it was asked: see [`AnnounceQuery::compact`].
    pub compact: bool,
}

/// Appends a key that is bencoded already, and an integer.
fn put_int(out: &mut Vec<u8>, key: &[u8], int: u32) {
    out.extend_from_slice(key);
    write_int(out, i64::from(int));
}

/// Appends a key that is bencoded already, and a byte string.
fn put_bytes(out: &mut Vec<u8>, key: &[u8], bytes: &[u8]) {
    out.extend_from_slice(key);
    write_bytes(out, bytes);
}

/// Appends the body of an answer to an announce. In compact form peers of IPv6 stand in `peers6` (BEP 7) beside empty `peers`; in
/// dictionaries all stand in `peers`.
pub fn write_announce(out: &mut Vec<u8>, answer: &AnnounceWritten<'_>) {
    let AnnounceWritten { counts, peers, .. } = *answer;
    out.push(b'd');
    put_int(out, b"8:complete", counts.seeders);
    put_int(out, b"10:downloaded", counts.completed);
    match answer.external_ip {
        IpAddr::V4(ip) => put_bytes(out, b"11:external ip", &ip.octets()),
        IpAddr::V6(ip) => put_bytes(out, b"11:external ip", &ip.octets()),
    }
    put_int(out, b"10:incomplete", counts.leechers);
    put_int(out, b"8:interval", answer.interval);
    put_int(out, b"12:min interval", answer.min_interval);
    match (answer.compact, answer.v6) {
        (true, false) => put_bytes(out, b"5:peers", peers),
        (true, true) => {
            put_bytes(out, b"5:peers", b"");
            put_bytes(out, b"6:peers6", peers);
        }
        (false, v6) => {
            out.extend_from_slice(b"5:peersl");
            peers.chunks_exact(if v6 { V6_LEN } else { V4_LEN }).for_each(|peer| put_listed(out, peer));
            out.push(b'e');
        }
    }
    out.push(b'e');
}

/// Appends a peer as a dictionary.
fn put_listed(out: &mut Vec<u8>, peer: &[u8]) {
    /// More than the longest text of an address has: six groups and an IPv4 address.
    const TEXT_LEN: usize = 48;
    let Some(addr) = parse_addr(peer) else { return };
    let mut text = Cursor::new([0; TEXT_LEN]);
    write!(text, "{}", addr.ip()).expect("an address is shorter");
    let len = usize::try_from(text.position()).expect("it is at most as long as the buffer");
    put_bytes(out, b"d2:ip", &text.get_ref()[..len]);
    put_int(out, b"4:port", u32::from(addr.port()));
    out.push(b'e');
}

/// Appends the body of a refusal, with when the client may come back (BEP 31).
pub fn write_failure(out: &mut Vec<u8>, reason: &str, retry: Option<RetryIn>) {
    put_bytes(out, b"d14:failure reason", reason.as_bytes());
    match retry {
        Some(RetryIn::Minutes(minutes)) => put_int(out, b"8:retry in", minutes),
        Some(RetryIn::Never) => put_bytes(out, b"8:retry in", b"never"),
        None => {}
    }
    out.push(b'e');
}

/// A swarm in an answer to a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwarmWritten {
    /// In numbers.
    pub counts: SwarmCounts,
    /// Those of its incomplete peers that want more: all but the partial seeds (BEP 21).
    pub downloaders: u32,
}

/// Appends the body of an answer to a scrape of `hashes` (BEP 48); `swarm` is asked once for each, in their order in the answer.
/// Those that stand there twice are written once. Only the first [`SCRAPES_MAX`] are written, and no question has more.
pub fn write_scrape(out: &mut Vec<u8>, hashes: &[InfoHash], mut swarm: impl FnMut(&InfoHash) -> SwarmWritten) {
    let mut sorted = [Sha1Hash([0; 20]); SCRAPES_MAX];
    let len = hashes.len().min(SCRAPES_MAX);
    let sorted = &mut sorted[..len];
    sorted.copy_from_slice(&hashes[..len]);
    sorted.sort_unstable();
    out.extend_from_slice(b"d5:filesd");
    for same in sorted.chunk_by(|a, b| a == b) {
        let SwarmWritten { counts, downloaders } = swarm(&same[0]);
        write_bytes(out, &same[0].0);
        put_int(out, b"d8:complete", counts.seeders);
        put_int(out, b"10:downloaded", counts.completed);
        put_int(out, b"11:downloaders", downloaders);
        put_int(out, b"10:incomplete", counts.leechers);
        out.push(b'e');
    }
    out.push(b'e');
    out.push(b'e');
}

#[cfg(test)]
mod tests;
