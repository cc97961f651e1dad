//! The tracker by UDP (BEP 15, 41): a datagram in, at most one out.
//!
//! An answer to whoever has not shown that its address is its own (by a connection id) is no longer than its request.

use std::net::SocketAddr;

use crate::base::addr::canonical;
use crate::base::hash::Sha1Hash;
use crate::base::ids::SocketId;
use crate::base::time::Time;
use crate::codec::udp_tracker::{Announce, Request, claim, write_connect};
use crate::service::tracker::asked::{Asked, Asker, Waited, What};
use crate::service::tracker::{Error, Tracker, wanted};

/// Answers that wait to be sent, one after another in one buffer. They are sent in the round in which they are made, so there are
/// no more than datagrams came in it, or requests waited for the store.
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
    /// One more, whose bytes `write` appends.
    pub(super) fn write(&mut self, socket: SocketId, to: SocketAddr, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
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
        let ip = canonical(from.ip());
        let asker = |transaction| Asker::Udp { socket, from, transaction, len: packet.len() };
        let (who, asked) = match Request::parse(packet) {
            Some(Request::Connect { transaction }) => {
                self.counters.connects += 1;
                let id = self.ids.of(now, ip);
                return self.replies.write(socket, from, |out| write_connect(out, transaction, id));
            }
            Some(Request::Announce { connection, transaction, announce, path }) => {
                let is_good = self.ids.is_good(now, ip, connection);
                let what = if is_good { self.announced(from, &announce, &path) } else { Err(Error::ConnectionId) };
                (asker(transaction), what)
            }
            Some(Request::Scrape { connection, transaction, info_hashes }) => {
                let is_good = self.ids.is_good(now, ip, connection);
                let hashes = info_hashes.iter().map(|hash| Sha1Hash(*hash));
                let scrape = || What::Scrape { v6: ip.is_ipv6(), hashes: hashes.collect(), waited: Waited::default() };
                (asker(transaction), if is_good { Ok(scrape()) } else { Err(Error::ConnectionId) })
            }
            None => match claim(packet) {
                // Whoever has a good id is told what is wrong.
                Some((connection, transaction)) if self.ids.is_good(now, ip, connection) => {
                    (asker(transaction), Err(Error::Malformed))
                }
                _ => {
                    self.counters.ignored += 1;
                    return;
                }
            },
        };
        let mut no_body = Vec::new();
        match asked {
            Ok(what) => _ = self.ask(now, Asked { who, what }, &mut no_body),
            Err(error) => _ = self.refuse(who, error, None, &mut no_body),
        }
    }

    /// The next datagram to send, and from which socket where to; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, packet: &mut Vec<u8>) -> Option<(SocketId, SocketAddr)> {
        self.replies.next(packet)
    }

    fn announced(&self, from: SocketAddr, announce: &Announce, path: &[u8]) -> Result<What, Error> {
        let saying = self.saying(canonical(from.ip()), announce, path)?;
        let wanted = wanted(u32::try_from(announce.num_want).ok(), saying.peer.is_ipv6());
        Ok(What::Announce { hash: announce.info_hash, saying, wanted })
    }
}

#[cfg(test)]
mod tests;
