//! The datagrams of UDP trackers (BEP 15, 41): a connection id first, then the question, each a few times.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::addr::canonical_addr;
use crate::base::time::Time;
use crate::codec::http_tracker::{AnnounceAnswer, Failure, ScrapeAnswer};
use crate::codec::udp_tracker::{Request, Response};
use crate::codec::url::TrackerUrl;
use crate::protocol::tracker::{Ended, Question, Stage, TrackerClient, TrackerError};

/// A UDP connection id is good for so long (BEP 15).
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// UDP connection ids that are kept; beyond it the oldest goes.
const CONNECTIONS_MAX: usize = 256;
/// Tries at one UDP address within the patience: at 1, 3 and 7 fifteenths of it.
pub(super) const UDP_TRIES: u32 = 4;

#[derive(Debug)]
pub(super) struct Udp {
    pub(super) to: SocketAddr,
    pub(super) transaction: u32,
    /// The question itself was asked, not for the connection id.
    pub(super) asking: bool,
    pub(super) tries: u32,
    /// When to send next.
    pub(super) due: Time,
    pub(super) send: bool,
}

impl TrackerClient {
    /// A datagram came that may be a tracker's; true if it was.
    pub fn handle_packet(&mut self, now: Time, from: SocketAddr, packet: &[u8]) -> bool {
        self.handle_packet_of(now, from, canonical_addr(from).is_ipv6(), packet)
    }

    /// The same where the family of the one that answers, and so of the peers it names, is another than that of `from`.
    pub fn handle_packet_of(&mut self, now: Time, from: SocketAddr, v6: bool, packet: &[u8]) -> bool {
        let from = canonical_addr(from);
        let Some(response) = Response::parse(packet, v6) else { return false };
        let told = match &response {
            Response::Connect { transaction, .. }
            | Response::Announce { transaction, .. }
            | Response::Scrape { transaction, .. }
            | Response::Error { transaction, .. } => *transaction,
        };
        let found = self.legs.iter_mut().find_map(|(&id, leg)| match &mut leg.stage {
            Stage::Udp(udp) if udp.transaction == told && canonical_addr(udp.to) == from => {
                Some((id, &leg.question, udp))
            }
            _ => None,
        });
        let Some((id, question, udp)) = found else { return false };
        match (question, response) {
            (_, Response::Connect { connection, .. }) if !udp.asking => {
                let to = udp.to;
                (udp.asking, udp.tries, udp.due, udp.send) = (true, 0, now, true);
                udp.transaction = self.rng.u32();
                if self.connections.len() >= CONNECTIONS_MAX {
                    let oldest = self.connections.iter().min_by_key(|(_, (_, expires))| *expires).map(|(&to, _)| to);
                    self.connections.remove(&oldest.expect("it is full"));
                }
                self.connections.insert(to, (connection, now + CONNECTION_LIFE));
            }
            (Question::Announce(..), Response::Announce { interval, leechers, seeders, peers, .. }) if udp.asking => {
                let answer = AnnounceAnswer {
                    interval,
                    seeders: Some(seeders),
                    leechers: Some(leechers),
                    peers,
                    ..AnnounceAnswer::default()
                };
                self.end(now, id, Ended::Announce(Ok(answer)));
            }
            (Question::Scrape(_), Response::Scrape { swarms, .. }) if udp.asking => {
                let counts = swarms.first().copied();
                let answer = ScrapeAnswer {
                    seeders: counts.map(|counts| counts.seeders),
                    leechers: counts.map(|counts| counts.leechers),
                    downloaded: counts.map(|counts| counts.completed),
                    min_interval: None,
                };
                self.end(now, id, Ended::Scrape(Ok(answer)));
            }
            (_, Response::Error { message, .. }) => {
                let to = udp.to;
                self.connections.remove(&to);
                let failure = Failure { reason: message, retry_in: None };
                self.give_up(now, id, TrackerError::Failure(failure));
            }
            _ => return false,
        }
        true
    }

    /// The next datagram to send; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, now: Time, packet: &mut Vec<u8>) -> Option<SocketAddr> {
        for leg in self.legs.values_mut() {
            let Stage::Udp(udp) = &mut leg.stage else { continue };
            if !std::mem::take(&mut udp.send) {
                continue;
            }
            udp.tries += 1;
            udp.due = now + self.patience / 15 * (1 << udp.tries.min(UDP_TRIES)) / 2;
            let transaction = udp.transaction;
            let known = self.connections.get(&udp.to).filter(|(_, expires)| *expires > now);
            match known {
                Some(&(connection, _)) if udp.asking => {
                    let request = match &leg.question {
                        Question::Announce(announce, _) => {
                            let path = udp_path(&leg.url).as_bytes().into();
                            Request::Announce { connection, transaction, announce: *announce, path }
                        }
                        Question::Scrape(info_hash) => {
                            Request::Scrape { connection, transaction, info_hashes: &[info_hash.0] }
                        }
                    };
                    request.write(packet);
                }
                _ => {
                    udp.asking = false;
                    Request::Connect { transaction }.write(packet);
                }
            }
            return Some(udp.to);
        }
        None
    }
}

/// BEP 41: what stands in the address beyond host and port; nothing where nothing was meant.
fn udp_path(url: &TrackerUrl) -> &str {
    if matches!(url.path.as_str(), "/" | "/announce") { "" } else { &url.path }
}
