//! The tracker by HTTP (BEP 3, 7, 21, 23, 24, 31, 48): a whole request in, status and body out.
//!
//! What a tracker refuses, it refuses with status 200 and a `failure reason`: that is what clients read.

use std::net::SocketAddr;

use crate::base::ids::ConnId;
use crate::base::time::Time;
use crate::codec::http_tracker::server::{parse_announce_query, parse_scrape_query};
use crate::protocol::http::Request;
use crate::service::tracker::asked::{Asked, Asker, Waited, What};
use crate::service::tracker::{Error, Tracker, wanted};

/// The media type of what clients read.
const BENCODED: &str = "text/plain";
/// What a person is told who looks at it with a browser.
const PAGE: &[u8] = b"This is a BitTorrent tracker. Clients announce at /announce and scrape at /scrape.\n";

/// How a request is answered, beside a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// Status.
    pub status: u16,
    /// Media type of the body.
    pub kind: &'static str,
}

impl Answered {
    pub(super) const OK: Self = Self { status: 200, kind: BENCODED };
}

impl Tracker {
    /// Answers a request that came on a connection from `stream`; the body replaces what is in `body`. None if it has to wait:
    /// [`Tracker::poll_answer`] has the answer then, soon.
    pub fn answer(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: SocketAddr,
        request: &Request<'_>,
        body: &mut Vec<u8>,
    ) -> Option<Answered> {
        body.clear();
        let asked = match request.path.rsplit('/').next() {
            Some("announce") => self.read_announce(conn, stream, request),
            Some("scrape") => self.read_scrape(conn, stream, request),
            _ if request.path == "/" => {
                body.extend_from_slice(PAGE);
                return Some(Answered::OK);
            }
            _ => {
                self.counters.fail(Error::Malformed);
                body.extend_from_slice(b"There is nothing here but /announce and /scrape.\n");
                return Some(Answered { status: 404, ..Answered::OK });
            }
        };
        match asked {
            Ok(asked) => self.ask(now, asked, body),
            Err((error, reason)) => {
                let who = Asker::Http { conn, ip: stream.ip(), compact: true };
                Some(self.refuse(who, error, reason, body))
            }
        }
    }

    /// The answer to a request that had to wait: on which connection, how, and its body.
    pub fn poll_answer(&mut self) -> Option<(ConnId, Answered, Vec<u8>)> {
        self.answers.pop_front()
    }

    fn read_announce(&self, conn: ConnId, stream: SocketAddr, request: &Request<'_>) -> Result<Asked, Refused> {
        let query = parse_announce_query(request.query);
        let query = query.map_err(|error| (Error::Malformed, Some(error.to_string())))?;
        let ip = self.access.source(stream.ip(), request.forwarded_for, query.ip);
        let saying = self.saying(ip, &query.announce, request.path.as_bytes()).map_err(|error| (error, None))?;
        let what =
            What::Announce { hash: query.announce.info_hash, saying, wanted: wanted(query.wanted, ip.is_ipv6()) };
        Ok(Asked { who: Asker::Http { conn, ip, compact: query.compact }, what })
    }

    fn read_scrape(&self, conn: ConnId, stream: SocketAddr, request: &Request<'_>) -> Result<Asked, Refused> {
        self.access.check_path(request.path.as_bytes()).map_err(|error| (error, None))?;
        let hashes = parse_scrape_query(request.query);
        let hashes = hashes.map_err(|error| (Error::Malformed, Some(error.to_string())))?;
        let ip = self.access.source(stream.ip(), request.forwarded_for, None);
        let what = What::Scrape { v6: ip.is_ipv6(), hashes: hashes.to_vec(), waited: Waited::default() };
        Ok(Asked { who: Asker::Http { conn, ip, compact: true }, what })
    }
}

/// Why a request is refused, with more words where it cannot be read.
type Refused = (Error, Option<String>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::TrackerConfig;
    use crate::base::hash::InfoHash;
    use crate::base::net::Net;
    use crate::base::rng::Rng;
    use crate::codec::http_tracker::{RetryIn, parse_announce, parse_scrape};
    use crate::service::tracker::Allowed;

    const HASH: &str = "%11%F6%AD%8E%C5%2A%29%84%AB%AA%FD%7C%3BQe%03x%5C%20r"; // of "x"

    fn tracker() -> Tracker {
        let config = TrackerConfig { proxies: vec![Net::parse("10.0.0.1").unwrap()], ..TrackerConfig::default() };
        Tracker::new(Time::ZERO, &config, 0, Rng::from_number(1))
    }

    fn ask(tracker: &mut Tracker, from: &str, path: &str, query: &str, forwarded_for: Option<&str>) -> (u16, Vec<u8>) {
        let mut body = Vec::new();
        let request = Request { path, query, forwarded_for, is_head: false };
        let from = SocketAddr::new(from.parse().unwrap(), 1);
        (tracker.answer(Time::ZERO, ConnId::from_bits(1), from, &request, &mut body).unwrap().status, body)
    }

    fn announce(tracker: &mut Tracker, from: &str, rest: &str) -> Vec<u8> {
        let query = format!("info_hash={HASH}&peer_id=-SW0100-abcdefghijkl&uploaded=0&downloaded=0&{rest}");
        let (status, body) = ask(tracker, from, "/announce", &query, None);
        assert_eq!(status, 200);
        body
    }

    #[test]
    fn peers_are_told_in_the_form_that_was_asked_for() {
        let mut tracker = tracker();
        announce(&mut tracker, "192.0.2.1", "port=1&left=0");
        let body = announce(&mut tracker, "192.0.2.2", "port=2&left=5");
        let answer = parse_announce(&body).unwrap().unwrap();
        assert_eq!(answer.peers, ["192.0.2.1:1".parse().unwrap()]);
        assert_eq!((answer.seeders, answer.leechers, answer.interval), (Some(1), Some(1), 1800));
        assert_eq!(answer.external_ip, Some("192.0.2.2".parse().unwrap()));
        let body = announce(&mut tracker, "192.0.2.2", "port=2&left=5&compact=0");
        assert!(body.windows(21).any(|part| part == b"d2:ip9:192.0.2.14:por"), "{}", body.escape_ascii());
        announce(&mut tracker, "2001:db8::1", "port=1&left=0");
        let body = announce(&mut tracker, "2001:db8::2", "port=2&left=5");
        let answer = parse_announce(&body).unwrap().unwrap();
        assert_eq!(answer.peers, ["[2001:db8::1]:1".parse().unwrap()]);
    }

    #[test]
    fn whoever_completes_without_saying_what_is_left_is_a_seed() {
        let mut tracker = tracker();
        let counts = |body: Vec<u8>| {
            let answer = parse_announce(&body).unwrap().unwrap();
            (answer.seeders, answer.leechers, answer.downloaded)
        };
        assert_eq!(counts(announce(&mut tracker, "192.0.2.1", "port=1")), (Some(0), Some(1), Some(0)));
        let completed = announce(&mut tracker, "192.0.2.1", "port=1&event=completed");
        assert_eq!(counts(completed), (Some(1), Some(0), Some(1)));
    }

    #[test]
    fn only_a_proxy_says_for_whom_it_asks() {
        let mut tracker = tracker();
        let query = format!("info_hash={HASH}&peer_id=-SW0100-abcdefghijkl&port=1&left=5&ip=203.0.113.7");
        for (stream, forwarded, expected) in [
            ("192.0.2.1", Some("203.0.113.9"), "192.0.2.1"),
            ("10.0.0.1", Some("203.0.113.9"), "203.0.113.9"),
            ("10.0.0.1", None, "203.0.113.7"),
        ] {
            let (_, body) = ask(&mut tracker, stream, "/announce", &query, forwarded);
            let answer = parse_announce(&body).unwrap().unwrap();
            assert_eq!(answer.external_ip, Some(expected.parse().unwrap()));
        }
        let escaped = query.replace("203.0.113.7", "2001%3Adb8%3A%3A7");
        let (_, body) = ask(&mut tracker, "10.0.0.1", "/announce", &escaped, None);
        assert_eq!(parse_announce(&body).unwrap().unwrap().external_ip, Some("2001:db8::7".parse().unwrap()));
    }

    #[test]
    fn refusals_say_why_and_when_to_come_back() {
        let mut tracker = tracker();
        let failure = |body: &[u8]| parse_announce(body).unwrap().unwrap_err();
        let bad = failure(&announce(&mut tracker, "192.0.2.1", "port=1&left=-1"));
        assert_eq!((bad.reason.as_str(), bad.retry_in), ("left is not a number of bytes", None));
        let bad = failure(&announce(&mut tracker, "0.0.0.1", "port=1&left=1"));
        assert!(bad.reason.contains("nobody could dial"), "{}", bad.reason);
        tracker.allow(Allowed { hashes: Some(Vec::new()), keys: Some(vec!["k".into()]) });
        assert_eq!(failure(&announce(&mut tracker, "192.0.2.1", "port=1&left=1")).retry_in, Some(RetryIn::Never));
        let query = format!("info_hash={HASH}&peer_id=-SW0100-abcdefghijkl&port=1&left=5");
        let body = ask(&mut tracker, "192.0.2.1", "/k/announce", &query, None).1;
        assert_eq!(failure(&body).retry_in, Some(RetryIn::Minutes(60)));
        let (_, body) = ask(&mut tracker, "192.0.2.1", "/k/scrape", "", None);
        assert!(failure(&body).reason.contains("full scrape"));
        assert_eq!(ask(&mut tracker, "192.0.2.1", "/x", "", None).0, 404);
        assert_eq!(ask(&mut tracker, "192.0.2.1", "/", "", None).1, PAGE);
    }

    #[test]
    fn a_scrape_tells_partial_seeds_from_those_that_want_more() {
        let mut tracker = tracker();
        announce(&mut tracker, "192.0.2.1", "port=1&left=0");
        announce(&mut tracker, "192.0.2.2", "port=1&left=5&event=paused");
        announce(&mut tracker, "192.0.2.3", "port=1&left=5");
        let (_, body) = ask(&mut tracker, "192.0.2.9", "/scrape", &format!("info_hash={HASH}"), None);
        let answer = parse_scrape(&body, &InfoHash::of(b"x")).unwrap().unwrap();
        assert_eq!((answer.seeders, answer.leechers, answer.downloaded), (Some(1), Some(2), Some(0)));
        assert!(body.windows(18).any(|part| part == b"11:downloadersi1e1"), "{}", body.escape_ascii());
    }
}
