//! What others are told.

use std::net::SocketAddr;

use crate::base::time::Time;
use crate::codec::krpc::{Body, ErrorKind, Message, Node, NodeId, Query, Response, Samples, Want};
use crate::protocol::dht::{Dht, VERSION};

/// Peers of one answer: it should not be many times as long as the query.
const PEERS_ANSWERED_MAX: usize = 30;
/// The same where two filters take half of the room.
const PEERS_BESIDE_FILTERS_MAX: usize = 8;
/// Swarms of one sample.
const SAMPLES_MAX: usize = 20;
/// A sample is another after so long.
const SAMPLE_INTERVAL_SECS: u32 = 60;

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
        if !read_only && self.family(v6).table.handle_query(now, node) {
            self.ping(now, from, Some(id));
        }
        self.queries_answered += 1;
        let answered = self.answer(now, from, query, |response| {
            Self::written(transaction, from, Body::Response { id: own, response: Box::new(response) })
        });
        let packet = answered.unwrap_or_else(|error| {
            let (code, text) = error.describe();
            Self::written(transaction, from, Body::Error { code, text: text.as_bytes() })
        });
        self.send(from, packet);
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
        from: SocketAddr,
        query: &Query<'_>,
        write: impl FnOnce(Response<'_>) -> Vec<u8>,
    ) -> Result<Vec<u8>, ErrorKind> {
        let v6 = from.is_ipv6();
        let token = self.tokens.token(now, from.ip());
        match *query {
            Query::Ping => Ok(write(Response::default())),
            Query::FindNode { target, want } | Query::Unknown { target, want } => {
                Ok(write(self.nodes(target, want, v6)))
            }
            Query::GetPeers { info_hash, want, no_seeds, scrape } => {
                let filters = if scrape { self.peers.filters(info_hash) } else { None };
                let most = if filters.is_some() { PEERS_BESIDE_FILTERS_MAX } else { PEERS_ANSWERED_MAX };
                let peers = self.peers.some(info_hash, v6, most, no_seeds, &mut self.rng);
                let filters = filters.as_ref().map(|[seeds, others]| [&seeds.0, &others.0]);
                Ok(write(Response { token: Some(&token), peers, filters, ..self.nodes(info_hash, want, v6) }))
            }
            Query::AnnouncePeer { info_hash, port, seed, token } => {
                if !self.tokens.is_valid(now, from.ip(), token) {
                    return Err(ErrorKind::BadToken);
                }
                let addr = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
                self.peers.announce(now, info_hash, addr, seed)?;
                Ok(write(Response::default()))
            }
            Query::Sample { target, want } => {
                let hashes = self.peers.sample(SAMPLES_MAX, &mut self.rng);
                let known = u32::try_from(self.peers.swarms()).unwrap_or(u32::MAX);
                let samples = Samples { hashes: &hashes, known, interval_secs: SAMPLE_INTERVAL_SECS };
                Ok(write(Response { samples: Some(samples), ..self.nodes(target, want, v6) }))
            }
            Query::Get { target, want, newer_than } => {
                let nodes = self.nodes(target, want, v6);
                let mut response = Response { token: Some(&token), ..nodes };
                if let Some(item) = self.items.get(target) {
                    response.version = item.author.map(|author| author.version);
                    if response.version.is_none() || response.version > newer_than {
                        response.value = Some(item.value);
                        response.signed = item.author.map(|author| (author.key, author.signature));
                    }
                }
                Ok(write(response))
            }
            Query::Put { token, ref item, replaces } => {
                if !self.tokens.is_valid(now, from.ip(), token) {
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
            (is_wanted && self.families[at].is_on).then(|| self.families[at].table.named(target))
        };
        Response {
            nodes: of(want.v4 || by_default && !v6, 0),
            nodes6: of(want.v6 || by_default && v6, 1),
            ..Response::default()
        }
    }
}
