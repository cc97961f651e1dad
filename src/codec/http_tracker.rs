//! HTTP tracker messages (BEP 3, 7, 21, 23, 24, 31, 48) as a client sees them: queries are written, answers are read. The other
//! side is [`server`].

pub mod server;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::base::hash::InfoHash;
use crate::codec::bencode::{self, Dict, Value};
use crate::codec::compact::parse_addrs;
use crate::codec::udp_tracker::{Announce, AnnounceEvent, PEERS_MAX};
use crate::codec::url::TrackerUrl;

/// Bytes of a tracker's text that are kept.
const TEXT_MAX: usize = 512;
/// Values in an answer; more are no answer. A peer that is not compact has four.
const VALUES_MAX: usize = 8 * PEERS_MAX;
/// Bytes of a tracker id; a longer one is not kept.
const TRACKER_ID_MAX: usize = 256;

/// When a tracker that refused may be asked again (BEP 31).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryIn {
    /// In so many minutes.
    Minutes(u32),
    /// Never.
    Never,
}

/// What a tracker answers to an announce.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnnounceAnswer {
    /// Seconds until the next announce.
    pub interval: u32,
    /// Seconds that must pass before it at least.
    pub min_interval: Option<u32>,
    /// Complete peers.
    pub seeders: Option<u32>,
    /// Incomplete peers.
    pub leechers: Option<u32>,
    /// Downloads ever completed.
    pub downloaded: Option<u32>,
    /// Peers of both families.
    pub peers: Vec<SocketAddr>,
    /// Something for people.
    pub warning: Option<String>,
    /// To be sent with later announces.
    pub tracker_id: Option<Vec<u8>>,
    /// Our address as the tracker sees it (BEP 24).
    pub external_ip: Option<IpAddr>,
}

/// A tracker's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people.
    pub reason: String,
    /// When it may be asked again.
    pub retry_in: Option<RetryIn>,
}

/// What a tracker answers to a scrape of one swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrapeAnswer {
    /// Complete peers.
    pub seeders: Option<u32>,
    /// Incomplete peers.
    pub leechers: Option<u32>,
    /// Downloads ever completed.
    pub downloaded: Option<u32>,
    /// Seconds that must pass until the next scrape at least.
    pub min_interval: Option<u32>,
}

/// An answer or a refusal; none if the body is neither.
pub type Parsed = Option<Result<AnnounceAnswer, Failure>>;

/// Path and query of an announce to `url`.
#[must_use]
pub fn announce_path(url: &TrackerUrl, announce: &Announce, tracker_id: Option<&[u8]>) -> String {
    let mut path = url.path.clone();
    path.push(if path.contains('?') { '&' } else { '?' });
    let hash = percent(&announce.info_hash.0);
    let id = percent(&announce.peer_id);
    let Announce { port, uploaded, downloaded, left, key, .. } = announce;
    let written = write!(
        path,
        "info_hash={hash}&peer_id={id}&port={port}&uploaded={uploaded}&downloaded={downloaded}&left={left}&compact=1&key={key:08x}"
    );
    written.expect("a string takes everything");
    if announce.num_want >= 0 {
        write!(path, "&numwant={}", announce.num_want).expect("a string takes everything");
    }
    match announce.event {
        AnnounceEvent::Regular => {}
        AnnounceEvent::Started => path.push_str("&event=started"),
        AnnounceEvent::Completed => path.push_str("&event=completed"),
        AnnounceEvent::Stopped => path.push_str("&event=stopped"),
        AnnounceEvent::Paused => path.push_str("&event=paused"),
    }
    if let Some(tracker_id) = tracker_id {
        path.push_str("&trackerid=");
        path.push_str(&percent(tracker_id));
    }
    path
}

/// Path and query of a scrape of one swarm at `url`, which is a scrape address.
#[must_use]
pub fn scrape_path(url: &TrackerUrl, info_hash: &InfoHash) -> String {
    let separator = if url.path.contains('?') { '&' } else { '?' };
    format!("{}{separator}info_hash={}", url.path, percent(&info_hash.0))
}

/// Every byte that is not unreserved as `%XX`.
fn percent(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("a string takes everything");
        }
    }
    text
}

/// Reads the body of an answer to an announce.
#[must_use]
pub fn parse_announce(body: &[u8]) -> Parsed {
    let document = bencode::parse(body, VALUES_MAX).ok()?;
    let dict = document.as_dict()?;
    if let Some(failure) = failure(dict) {
        return Some(Err(failure));
    }
    let number = |key: &[u8]| dict.int(key).and_then(|int| u32::try_from(int).ok());
    let mut peers = match dict.get(b"peers") {
        Some(value) => match value.as_list() {
            Some(list) => list.iter().filter_map(listed_peer).take(PEERS_MAX).collect(),
            None => parse_addrs(value.as_bytes()?, false, PEERS_MAX),
        },
        None => Vec::new(),
    };
    if let Some(peers6) = dict.bytes(b"peers6") {
        peers.extend(parse_addrs(peers6, true, PEERS_MAX));
    }
    Some(Ok(AnnounceAnswer {
        interval: number(b"interval").unwrap_or(0),
        min_interval: number(b"min interval"),
        seeders: number(b"complete"),
        leechers: number(b"incomplete"),
        downloaded: number(b"downloaded"),
        peers,
        warning: dict.bytes(b"warning message").map(text),
        tracker_id: dict.bytes(b"tracker id").filter(|id| id.len() <= TRACKER_ID_MAX).map(<[u8]>::to_vec),
        external_ip: dict.bytes(b"external ip").and_then(ip),
    }))
}

/// Reads the body of an answer to a scrape of `info_hash`. An answer that does not name it has no counts.
#[must_use]
pub fn parse_scrape(body: &[u8], info_hash: &InfoHash) -> Option<Result<ScrapeAnswer, Failure>> {
    let document = bencode::parse(body, VALUES_MAX).ok()?;
    let dict = document.as_dict()?;
    if let Some(failure) = failure(dict) {
        return Some(Err(failure));
    }
    let swarm = dict.get(b"files")?.as_dict()?.get(&info_hash.0).and_then(Value::as_dict);
    let number = |dict: Option<&Dict<'_>>, key| dict?.int(key).and_then(|int| u32::try_from(int).ok());
    Some(Ok(ScrapeAnswer {
        seeders: number(swarm, b"complete"),
        leechers: number(swarm, b"incomplete"),
        downloaded: number(swarm, b"downloaded"),
        min_interval: number(dict.get(b"flags").and_then(Value::as_dict), b"min_request_interval"),
    }))
}

/// The refusal that an answer is, if it is one.
fn failure(dict: &Dict<'_>) -> Option<Failure> {
    let reason = text(dict.bytes(b"failure reason")?);
    let retry_in = match dict.get(b"retry in") {
        Some(value) if value.as_bytes() == Some(b"never") => Some(RetryIn::Never),
        Some(value) => {
            let digits = value.as_bytes().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            let minutes = value.as_int().or(digits).filter(|minutes| *minutes >= 0);
            minutes.map(|minutes| RetryIn::Minutes(u32::try_from(minutes).unwrap_or(u32::MAX)))
        }
        None => None,
    };
    Some(Failure { reason, retry_in })
}

fn listed_peer(value: &Value<'_>) -> Option<SocketAddr> {
    let peer: &Dict<'_> = value.as_dict()?;
    let ip: IpAddr = std::str::from_utf8(peer.bytes(b"ip")?).ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(peer.int(b"port")?).ok()?))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announce_asks_for_what_bep_3_says() {
        let announce = Announce {
            info_hash: InfoHash::of(b"x"),
            peer_id: *b"-SW0100-abcdefghij%/",
            downloaded: 1,
            left: 2,
            uploaded: 3,
            event: AnnounceEvent::Started,
            key: 0xab,
            num_want: 50,
            port: 6881,
        };
        let url = TrackerUrl::parse("http://t/announce?pass=1").unwrap();
        assert_eq!(
            announce_path(&url, &announce, Some(b"id ")),
            "/announce?pass=1&info_hash=%11%F6%AD%8E%C5%2A%29%84%AB%AA%FD%7C%3BQe%03x%5C%20r&peer_id=-SW0100-abcdefghij%25%2F&port=6881&uploaded=3&downloaded=1&left=2&compact=1&key=000000ab&numwant=50&event=started&trackerid=id%20"
        );
    }

    #[test]
    fn answers_are_read_in_every_form_that_trackers_write() {
        let compact = b"d8:completei5e10:incompletei6e8:intervali1800e12:min intervali60e5:peers6:\x01\x02\x03\x04\x1a\xe16:peers618:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe110:tracker id2:xy15:warning message2:hie";
        let answer = parse_announce(compact).unwrap().unwrap();
        assert_eq!(answer.peers, ["1.2.3.4:6881".parse().unwrap(), "[::1]:6881".parse().unwrap()]);
        assert_eq!((answer.seeders, answer.interval, answer.min_interval), (Some(5), 1800, Some(60)));
        assert_eq!((answer.warning.as_deref(), answer.tracker_id.as_deref()), (Some("hi"), Some(&b"xy"[..])));
        let listed = b"d8:intervali5e5:peersld2:ip7:1.2.3.47:peer id2:xx4:porti80eed2:ip3:bad4:porti1eeee";
        assert_eq!(parse_announce(listed).unwrap().unwrap().peers, ["1.2.3.4:80".parse().unwrap()]);
    }

    #[test]
    fn refusals_say_why_and_when_to_come_back() {
        let failure = parse_announce(b"d14:failure reason2:no8:retry in5:nevere").unwrap().unwrap_err();
        assert_eq!((failure.reason.as_str(), failure.retry_in), ("no", Some(RetryIn::Never)));
        let failure = parse_announce(b"d14:failure reason2:no8:retry ini7ee").unwrap().unwrap_err();
        assert_eq!(failure.retry_in, Some(RetryIn::Minutes(7)));
        for (value, expected) in [
            (&b"1:5"[..], Some(RetryIn::Minutes(5))),
            (b"i99999999999e", Some(RetryIn::Minutes(u32::MAX))),
            (b"i-1e", None),
            (b"4:soon", None),
        ] {
            let body = [&b"d14:failure reason2:no8:retry in"[..], value, b"e"].concat();
            assert_eq!(parse_announce(&body).unwrap().unwrap_err().retry_in, expected);
        }
    }

    #[test]
    fn a_scrape_asks_for_one_swarm_and_reads_its_counts() {
        let hash = InfoHash::of(b"x");
        let url = TrackerUrl::parse("http://t/announce?pass=1").unwrap().scrape().unwrap();
        let expected = "/scrape?pass=1&info_hash=%11%F6%AD%8E%C5%2A%29%84%AB%AA%FD%7C%3BQe%03x%5C%20r";
        assert_eq!(scrape_path(&url, &hash), expected);
        let mut body = b"d5:filesd20:".to_vec();
        body.extend(hash.0);
        body.extend(b"d8:completei5e10:downloadedi50e10:incompletei-1eee5:flagsd20:min_request_intervali9eee");
        let answer = ScrapeAnswer { seeders: Some(5), leechers: None, downloaded: Some(50), min_interval: Some(9) };
        assert_eq!(parse_scrape(&body, &hash), Some(Ok(answer)));
        assert_eq!(parse_scrape(b"d5:filesdee", &hash), Some(Ok(ScrapeAnswer::default())));
        let refusal = parse_scrape(b"d14:failure reason2:noe", &hash).unwrap().unwrap_err();
        assert_eq!(refusal.reason, "no");
        for bad in [&b"<html>"[..], b"de", b"d5:filesi1ee"] {
            assert_eq!(parse_scrape(bad, &hash), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn an_answer_may_list_every_peer_that_is_read_and_not_much_more() {
        let body = |peers: usize| {
            let peer = b"d2:ip7:1.2.3.47:peer id2:xx4:porti80ee".repeat(peers);
            [&b"d5:peersl"[..], &peer, b"ee"].concat()
        };
        let answer = parse_announce(&body(PEERS_MAX + 1)).unwrap().unwrap();
        assert_eq!(answer.peers.len(), PEERS_MAX);
        assert_eq!(parse_announce(&body(3 * PEERS_MAX)), None);
        let hash = InfoHash::of(b"x");
        let values = [&b"d5:filesde1:xl"[..], &b"0:".repeat(VALUES_MAX), b"ee"].concat();
        assert_eq!(parse_scrape(&values, &hash), None);
    }

    #[test]
    fn garbage_is_no_answer() {
        for bad in [&b""[..], b"<html>", b"i5e", b"d5:peersi5ee", b"d"] {
            assert!(parse_announce(bad).is_none(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
