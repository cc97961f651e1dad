//! The two address families of a tracker (BEP 7): which of them are asked, and one outcome of both.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::time::Time;
use crate::codec::http_tracker::AnnounceAnswer;
use crate::protocol::tracker::{Outcome, TrackerError};

/// A family that was silent is asked again after so long, where the other one is asked anyway.
const REST: Duration = Duration::from_secs(30 * 60);
/// Silent families that are remembered; beyond it the one that rests the shortest goes.
const RESTING_MAX: usize = 256;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Which families are asked: those that we listen on, but for those in which a tracker was silent of late.
#[derive(Debug)]
pub(super) struct Families {
    v4: bool,
    v6: bool,
    resting: BTreeMap<(String, Family), Time>,
}

impl Families {
    pub(super) fn new(listen: &[SocketAddr]) -> Self {
        let mut families = Self { v4: true, v6: true, resting: BTreeMap::new() };
        families.set_listen(listen);
        families
    }

    /// The node listens there; nowhere is as good as anywhere.
    pub(super) fn set_listen(&mut self, listen: &[SocketAddr]) {
        let listens = |family| listen.is_empty() || listen.iter().any(|addr| Family::of(addr.ip()) == family);
        (self.v4, self.v6) = (listens(Family::V4), listens(Family::V6));
    }

    /// True if `host` is asked in this family, where it has addresses of both.
    pub(super) fn is_asked(&self, now: Time, host: &str, family: Family) -> bool {
        let listens = if family == Family::V4 { self.v4 } else { self.v6 };
        listens && self.resting.get(&(host.to_owned(), family)).is_none_or(|until| *until <= now)
    }

    /// Learns from how an announce to `host` ended in both: where one answered and the other was silent, that one rests.
    pub(super) fn judge(&mut self, now: Time, host: &str, first: &(Family, Outcome), second: &(Family, Outcome)) {
        for ((family, outcome), (_, other)) in [(first, second), (second, first)] {
            let is_silent = matches!(outcome, Err(TrackerError::Unreachable | TrackerError::Timeout));
            if is_silent && other.is_ok() {
                self.resting.insert((host.to_owned(), *family), now + REST);
            }
        }
        if self.resting.len() > RESTING_MAX {
            let first = self.resting.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone());
            self.resting.remove(&first.expect("it is full"));
        }
    }
}

/// One outcome of two. One family that answers is enough; a refusal in the other is told as a warning.
pub(super) fn merge(first: (Family, Outcome), second: (Family, Outcome)) -> Outcome {
    match (first, second) {
        ((_, Ok(first)), (_, Ok(second))) => Ok(merge_answers(first, second)),
        ((_, Ok(mut answer)), (family, Err(error))) | ((family, Err(error)), (_, Ok(mut answer))) => {
            if let TrackerError::Failure(_) = error
                && answer.warning.is_none()
            {
                answer.warning = Some(format!("over {family} {error}"));
            }
            Ok(answer)
        }
        // What a tracker says tells more than that it was not reached.
        ((_, Err(_)), (_, Err(error @ TrackerError::Failure(_)))) | ((_, Err(error)), (_, Err(_))) => Err(error),
    }
}

/// The stricter interval, the greater count, the peers of both.
fn merge_answers(first: AnnounceAnswer, second: AnnounceAnswer) -> AnnounceAnswer {
    let mut peers = first.peers;
    peers.extend(second.peers);
    peers.sort_unstable();
    peers.dedup();
    AnnounceAnswer {
        interval: first.interval.max(second.interval),
        min_interval: first.min_interval.max(second.min_interval),
        seeders: first.seeders.max(second.seeders),
        leechers: first.leechers.max(second.leechers),
        downloaded: first.downloaded.max(second.downloaded),
        peers,
        warning: first.warning.or(second.warning),
        tracker_id: first.tracker_id.or(second.tracker_id),
        external_ip: first.external_ip.or(second.external_ip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::http_tracker::Failure;

    fn answer(interval: u32, seeders: Option<u32>, peers: &[&str]) -> AnnounceAnswer {
        let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        AnnounceAnswer { interval, seeders, peers, ..AnnounceAnswer::default() }
    }

    fn refusal() -> TrackerError {
        TrackerError::Failure(Failure { reason: "go away".into(), retry_in: None })
    }

    #[test]
    fn two_answers_are_one_with_the_peers_of_both() {
        let first = answer(1800, Some(2), &["1.2.3.4:5", "[::5]:6"]);
        let second = answer(900, None, &["[::5]:6", "[::7]:8"]);
        let merged = merge((Family::V4, Ok(first)), (Family::V6, Ok(second))).unwrap();
        assert_eq!(merged, answer(1800, Some(2), &["1.2.3.4:5", "[::5]:6", "[::7]:8"]));
    }

    #[test]
    fn one_family_that_answers_is_enough() {
        let good = answer(60, None, &["1.2.3.4:5"]);
        let silent = merge((Family::V6, Err(TrackerError::Timeout)), (Family::V4, Ok(good.clone())));
        assert_eq!(silent, Ok(good.clone()));
        let refused = merge((Family::V4, Ok(good)), (Family::V6, Err(refusal()))).unwrap();
        assert_eq!(refused.warning.as_deref(), Some("over IPv6 it refused: go away"));
        for order in [[refusal(), TrackerError::Timeout], [TrackerError::Timeout, refusal()]] {
            let [first, second] = order.map(Err);
            assert_eq!(merge((Family::V4, first), (Family::V6, second)), Err(refusal()));
        }
    }

    #[test]
    fn a_family_that_was_silent_beside_an_answer_rests_and_the_table_is_bounded() {
        let mut families = Families::new(&[]);
        let good = (Family::V4, Ok(answer(60, None, &[])));
        let silent = (Family::V6, Err(TrackerError::Timeout));
        families.judge(Time::ZERO, "t", &good, &silent);
        assert!(!families.is_asked(Time::from_secs(1799), "t", Family::V6));
        assert!(families.is_asked(Time::from_secs(1799), "t", Family::V4));
        assert!(families.is_asked(Time::from_secs(1800), "t", Family::V6));
        families.judge(Time::ZERO, "down", &(Family::V4, Err(TrackerError::Timeout)), &silent);
        assert!(families.is_asked(Time::ZERO, "down", Family::V6), "the whole tracker was silent");
        families.judge(Time::ZERO, "strict", &good, &(Family::V6, Err(refusal())));
        assert!(families.is_asked(Time::ZERO, "strict", Family::V6), "it speaks");
        for number in 0..RESTING_MAX + 9 {
            families.judge(Time::ZERO, &number.to_string(), &silent, &good);
        }
        assert_eq!(families.resting.len(), RESTING_MAX);
    }

    #[test]
    fn a_family_that_we_do_not_listen_on_is_not_asked() {
        let families = Families::new(&["0.0.0.0:6881".parse().unwrap()]);
        assert!(families.is_asked(Time::ZERO, "t", Family::V4) && !families.is_asked(Time::ZERO, "t", Family::V6));
    }
}
