//! What others are told.

use std::net::SocketAddr;

use crate::base::time::Time;
use crate::codec::compact::{V4_LEN, V6_LEN};
use crate::codec::krpc::{Body, ErrorKind, FILTER_LEN, Message, Node, NodeId, Query, Response, Samples, Want};
use crate::protocol::dht::id::is_local;
use crate::protocol::dht::table::BUCKET_LEN;
use crate::protocol::dht::{Dht, PINGS_MAX, VERSION};

/// Peers of one answer: it should not be many times as long as the query.
const PEERS_ANSWERED_MAX: usize = 30;
/// The same where two filters take half of the room.
const PEERS_BESIDE_FILTERS_MAX: usize = 8;
/// Swarms of one sample.
const SAMPLES_MAX: usize = 20;
/// A sample is another after so long.
const SAMPLE_INTERVAL_SECS: u32 = 60;
/// Nodes of one family in an answer, to any address (BEP 5: the K nearest).
const NODES_ANSWERED_MAX: usize = BUCKET_LEN;
/// Bytes of values in an answer to an address that has not proved itself: peers, filters (BEP 33), the value of an item
/// (BEP 44) and samples (BEP 51) together, as bencoded. What does not fit is left out, and the address is asked whether
/// it is there.
const VALUES_UNPROVEN_MAX: usize = 400;
/// Bytes that a list takes beside its values, or a string of up to 999 bytes beside its contents.
const FRAME_LEN: usize = 4;
/// Bytes of a ping, at most: what it counts against the share of an address that has not proved itself.
const PING_LEN: usize = 80;
/// Queries under way whether a node is there, beyond which no address is asked for the sake of its proof: the table
/// needs the rest.
const PROOF_PINGS_MAX: usize = PINGS_MAX / 2;

/// The sender of a query, and how much it is told.
#[derive(Debug)]
struct Asker {
    addr: SocketAddr,
    /// Bytes of values that the answer may hold, see [`VALUES_UNPROVEN_MAX`].
    values_max: usize,
    /// Whether something had to be left out of the answer.
    is_short: bool,
}

impl Asker {
    /// Whether `bytes` of values fit; notes it if they do not.
    fn fits(&mut self, bytes: usize) -> bool {
        self.is_short |= bytes > self.values_max;
        bytes <= self.values_max
    }

    /// How many values of `len` bytes each fit, at most `most`; notes it if `available` are more.
    fn count(&mut self, len: usize, most: usize, available: usize) -> usize {
        let count = most.min(self.values_max.saturating_sub(FRAME_LEN) / len);
        self.is_short |= count < most.min(available);
        count
    }
}

impl Dht {
    pub(super) fn handle_query(
        &mut self,
        now: Time,
        from: SocketAddr,
        transaction: &[u8],
        id: NodeId,
        read_only: bool,
        query: &Query<'_>,
    ) {
        if self.settings.read_only || !self.guard.admits(now, from.ip()) {
            self.queries_refused += 1;
            return;
        }
        let v6 = from.is_ipv6();
        let own = self.family(v6).table.own();
        if id == own {
            return; // our own words, sent back
        }
        let node = Node { id, addr: from };
        let is_asked =
            !read_only && self.family(v6).table.handle_query(now, node) && self.may_send(now, from, PING_LEN);
        if is_asked {
            self.ping(now, from, Some(id));
        }
        let values_max = if self.is_proven(now, from) { usize::MAX } else { VALUES_UNPROVEN_MAX };
        let mut asker = Asker { addr: from, values_max, is_short: false };
        let answered = self.answer(now, &mut asker, query, |response| {
            Self::written(transaction, from, Body::Response { id: own, response: Box::new(response) })
        });
        let packet = answered.unwrap_or_else(|error| {
            let (code, text) = error.describe();
            Self::written(transaction, from, Body::Error { code, text: text.as_bytes() })
        });
        if !self.may_send(now, from, packet.len()) {
            self.queries_refused += 1;
            return;
        }
        self.queries_answered += 1;
        self.send(from, packet);
        let may_prove = asker.is_short && !is_asked && !read_only && self.pings < PROOF_PINGS_MAX;
        if may_prove && self.may_send(now, from, PING_LEN) {
            self.ping(now, from, None);
        }
    }

    /// Whether answers to an address are limited by its own queries alone. Nobody is flooded on a local network but by
    /// its own hosts.
    fn is_proven(&self, now: Time, to: SocketAddr) -> bool {
        is_local(to.ip()) || self.proven.contains(now, to.ip())
    }

    /// Whether a datagram of `bytes` may be sent now to an address that asked; if so it is counted.
    fn may_send(&mut self, now: Time, to: SocketAddr, bytes: usize) -> bool {
        self.is_proven(now, to) || self.guard.charge(now, to.ip(), bytes)
    }

    /// Whether a query brought the token that was sent to its address lately: the address is proven then.
    fn is_valid(&mut self, now: Time, from: SocketAddr, token: &[u8]) -> bool {
        let is_valid = self.tokens.is_valid(now, from.ip(), token);
        if is_valid {
            self.proven.add(now, from.ip());
        }
        is_valid
    }

    fn written(transaction: &[u8], to: SocketAddr, body: Body<'_>) -> Vec<u8> {
        let mut packet = Vec::with_capacity(512);
        Message { transaction, seen_as: Some(to), version: Some(VERSION), body }.write(&mut packet);
        packet
    }

    /// What is said to a query, by `write`.
    fn answer(
        &mut self,
        now: Time,
        asker: &mut Asker,
        query: &Query<'_>,
        write: impl FnOnce(Response<'_>) -> Vec<u8>,
    ) -> Result<Vec<u8>, ErrorKind> {
        let from = asker.addr;
        let v6 = from.is_ipv6();
        let token = self.tokens.token(now, from.ip());
        match *query {
            Query::Ping => Ok(write(Response::default())),
            Query::FindNode { target, want } | Query::Unknown { target, want } => {
                Ok(write(self.nodes(target, want, v6)))
            }
            Query::GetPeers { info_hash, want, no_seeds, scrape } => {
                let filters = if scrape { self.peers.filters(info_hash) } else { None };
                let filters = filters.filter(|_| asker.fits(2 * (FRAME_LEN + FILTER_LEN)));
                let most = if filters.is_some() { PEERS_BESIDE_FILTERS_MAX } else { PEERS_ANSWERED_MAX };
                let mut peers = self.peers.some(info_hash, v6, most, no_seeds, &mut self.rng);
                // As bencoded: `6:` or `18:`, and the address.
                let len = if v6 { 3 + V6_LEN } else { 2 + V4_LEN };
                peers.truncate(asker.count(len, most, peers.len()));
                let filters = filters.as_ref().map(|[seeds, others]| [&seeds.0, &others.0]);
                Ok(write(Response { token: Some(&token), peers, filters, ..self.nodes(info_hash, want, v6) }))
            }
            Query::AnnouncePeer { info_hash, port, seed, token } => {
                if !self.is_valid(now, from, token) {
                    return Err(ErrorKind::BadToken);
                }
                let addr = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                self.peers.announce(now, info_hash, addr, seed)?;
                Ok(write(Response::default()))
            }
            Query::Sample { target, want } => {
                let count = asker.count(size_of::<NodeId>(), SAMPLES_MAX, self.peers.swarms());
                let hashes = self.peers.sample(count, &mut self.rng);
                let known = u32::try_from(self.peers.swarms()).unwrap_or(u32::MAX);
                let samples = Samples { hashes: &hashes, known, interval_secs: SAMPLE_INTERVAL_SECS };
                Ok(write(Response { samples: Some(samples), ..self.nodes(target, want, v6) }))
            }
            Query::Get { target, want, newer_than } => {
                let nodes = self.nodes(target, want, v6);
                let mut response = Response { token: Some(&token), ..nodes };
                if let Some(item) = self.items.get(target) {
                    response.version = item.author.map(|author| author.version);
                    let is_wanted = response.version.is_none() || response.version > newer_than;
                    if is_wanted && asker.fits(item.value.len()) {
                        response.value = Some(item.value);
                        response.signed = item.author.map(|author| (author.key, author.signature));
                    }
                }
                Ok(write(response))
            }
            Query::Put { token, ref item, replaces } => {
                if !self.is_valid(now, from, token) {
                    return Err(ErrorKind::BadToken);
                }
                self.items.put(now, from.ip(), item, replaces)?;
                Ok(write(Response::default()))
            }
            Query::Bad(error) => Err(error),
        }
    }

    /// The nodes nearest to `target`, of the families that are wanted.
    fn nodes(&self, target: NodeId, want: Want, v6: bool) -> Response<'static> {
        let by_default = want == Want::default();
        let of = |is_wanted: bool, at: usize| {
            (is_wanted && self.families[at].is_on).then(|| {
                let nodes = self.families[at].table.named(target);
                debug_assert!(nodes.len() <= NODES_ANSWERED_MAX, "nodes of an answer");
                nodes
            })
        };
        Response {
            nodes: of(want.v4 || by_default && !v6, 0),
            nodes6: of(want.v6 || by_default && v6, 1),
            ..Response::default()
        }
    }
}
