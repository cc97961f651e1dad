//! The tracker by UDP (BEP 15, 41): a datagram in, at most one out.
//!
//! An answer to whoever has not shown that its address is its own (by a connection id) is no longer than its request.

use std::net::SocketAddr;

use crate::base::addr::canonical;
use crate::base::hash::Sha1Hash;
use crate::base::ids::SocketId;
use crate::base::time::Time;
use crate::codec::udp_tracker::{
    Announce, Request, SwarmCounts, claim, write_announce, write_connect, write_error, write_scrape,
};
use crate::service::tracker::{Error, Tracker, wanted};

/// Answers that wait to be sent, one after another in one buffer. They are sent in the round in which they are made, so there are
/// no more than datagrams came in it.
#[derive(Debug, Default)]
pub(super) struct Replies {
    bytes: Vec<u8>,
    /// From where, where to, and where its bytes end.
    all: Vec<(SocketId, SocketAddr, usize)>,
    /// So many are sent, and so many of the bytes.
    sent: usize,
    sent_bytes: usize,
}

impl Replies {
    fn push(&mut self, socket: SocketId, to: SocketAddr) {
        self.all.push((socket, to, self.bytes.len()));
    }

    fn next(&mut self, packet: &mut Vec<u8>) -> Option<(SocketId, SocketAddr)> {
        let Some(&(socket, to, end)) = self.all.get(self.sent) else {
            self.all.clear();
            self.bytes.clear();
            (self.sent, self.sent_bytes) = (0, 0);
            return None;
        };
        packet.clear();
        packet.extend_from_slice(&self.bytes[self.sent_bytes..end]);
        (self.sent, self.sent_bytes) = (self.sent + 1, end);
        Some((socket, to))
    }
}

impl Tracker {
    /// A datagram came.
    pub fn handle_packet(&mut self, now: Time, socket: SocketId, from: SocketAddr, packet: &[u8]) {
        let before = self.replies.bytes.len();
        let ip = canonical(from.ip());
        match Request::parse(packet) {
            Some(Request::Connect { transaction }) => {
                self.counters.connects += 1;
                write_connect(&mut self.replies.bytes, transaction, self.ids.of(now, ip));
            }
            Some(Request::Announce { connection, transaction, announce, path }) => {
                let answered = if self.ids.is_good(now, ip, connection) {
                    self.answer_announce(now, SocketAddr::new(ip, from.port()), transaction, &announce, &path)
                } else {
                    Err(Error::ConnectionId)
                };
                if let Err(error) = answered {
                    self.refuse(transaction, error, packet.len());
                }
            }
            Some(Request::Scrape { connection, transaction, info_hashes }) => {
                if self.ids.is_good(now, ip, connection) {
                    self.counters.scrapes.add(now, 1);
                    self.answer_scrape(from.is_ipv6(), transaction, info_hashes);
                } else {
                    self.refuse(transaction, Error::ConnectionId, packet.len());
                }
            }
            None => match claim(packet) {
                // Whoever has a good id is told what is wrong.
                Some((connection, transaction)) if self.ids.is_good(now, ip, connection) => {
                    self.refuse(transaction, Error::Malformed, packet.len());
                }
                _ => self.counters.ignored += 1,
            },
        }
        if self.replies.bytes.len() > before {
            self.replies.push(socket, from);
        }
    }

    /// The next datagram to send, and from which socket where to; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<(SocketId, SocketAddr)> {
        self.replies.next(packet)
    }

    fn answer_announce(
        &mut self,
        now: Time,
        from: SocketAddr,
        transaction: u32,
        announce: &Announce,
        path: &[u8],
    ) -> Result<(), Error> {
        let saying = self.saying(from.ip(), announce, path)?;
        let mut out = std::mem::take(&mut self.replies.bytes);
        let interval = self.interval_secs();
        let taken = self.take(now, announce, &saying).map(|(told, chance)| {
            let counts = told.tallies.counts;
            write_announce(&mut out, transaction, interval, counts.incomplete(), counts.seeds);
            told.pick(&saying, wanted(u32::try_from(announce.num_want).ok(), from.is_ipv6()), chance, &mut out);
        });
        self.replies.bytes = out;
        taken
    }

    fn answer_scrape(&mut self, v6: bool, transaction: u32, info_hashes: &[[u8; 20]]) {
        let counts = info_hashes.iter().map(|hash| {
            let tallies = self.swarms.tallies(&Sha1Hash(*hash), v6);
            SwarmCounts {
                seeders: tallies.counts.seeds,
                completed: tallies.completed,
                leechers: tallies.counts.incomplete(),
            }
        });
        write_scrape(&mut self.replies.bytes, transaction, counts);
    }

    /// Says why not, in no more bytes than the request had.
    fn refuse(&mut self, transaction: u32, error: Error, request_len: usize) {
        self.counters.fail(error);
        let message = error.to_string();
        let room = request_len.saturating_sub(8);
        write_error(&mut self.replies.bytes, transaction, &message[..message.len().min(room)]);
    }
}

#[cfg(test)]
mod tests;
