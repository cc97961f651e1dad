//! Nodes of the DHT that mean harm: they sit as near to one torrent's hash as they can, make themselves known to everybody, and
//! answer with lies. They are scripts, not engines, and each of them has a network of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::krpc::{Body, Message, Node, NodeId, Query, Response, Want};
use crate::protocol::dht::draw_id;

/// How often it makes itself known to somebody.
const STEP: Duration = Duration::from_millis(500);
/// Bytes of its number that are those of the hash, where it may have any number it likes.
const SHARED_LEN: usize = 5;
/// How many of the numbers that its address allows it looks through for the one nearest to the hash.
const DRAWS: usize = 256;
/// Nodes and peers that it names in one answer.
const NAMED: usize = 16;

/// How it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Names peers where nobody is, and its fellows as the nearest nodes.
    FalsePeers,
    /// Names nodes with numbers nearer to the hash than any: where nobody is, and where somebody is who does not call himself so.
    FalseNodes,
    /// Names nobody.
    NoNodes,
}

/// One of them.
#[derive(Debug)]
pub struct Liar {
    lie: Lie,
    own: Node,
    target: InfoHash,
    /// It and its fellows.
    fellows: Vec<Node>,
    /// Whom it makes itself known to, in turn.
    victims: Vec<SocketAddr>,
    turn: usize,
    packets: VecDeque<(SocketAddr, Vec<u8>)>,
    next_step: Time,
    rng: Rng,
}

/// A number for somebody at `addr` who wants to be near `target`: the nearest that the address allows (BEP 42) if he `obeys`.
pub(crate) fn number(addr: SocketAddr, target: InfoHash, obeys: bool, rng: &mut Rng) -> NodeId {
    if obeys {
        let drawn = (0..DRAWS).map(|_| draw_id(addr.ip(), rng));
        let distance = |id: &NodeId| -> [u8; 20] { std::array::from_fn(|at| id.0[at] ^ target.0[at]) };
        return drawn.min_by_key(distance).expect("some were drawn");
    }
    near(target, SHARED_LEN, rng)
}

fn near(target: InfoHash, shared: usize, rng: &mut Rng) -> NodeId {
    let mut id = Sha1Hash(rng.bytes());
    id.0[..shared].copy_from_slice(&target.0[..shared]);
    id
}

/// An address of the public network where nobody is.
fn nobody(rng: &mut Rng) -> SocketAddr {
    let [a, b, c] = rng.bytes::<3>();
    SocketAddr::from(([13 + a % 100, b, c, 1 + a % 200], 1 + u16::from(c)))
}

impl Liar {
    /// One that calls itself `own` and begins at `begins`.
    pub(crate) fn new(lie: Lie, own: Node, target: InfoHash, begins: Time, rng: Rng) -> Self {
        Self {
            lie,
            own,
            target,
            fellows: Vec::new(),
            victims: Vec::new(),
            turn: 0,
            packets: VecDeque::new(),
            next_step: begins,
            rng,
        }
    }

    /// What it calls itself, and where it is.
    pub(crate) fn node(&self) -> Node {
        self.own
    }

    /// Its fellows, and whom they lie to.
    pub(crate) fn meet(&mut self, fellows: &[Node], victims: &[SocketAddr]) {
        (self.fellows, self.victims) = (fellows.to_vec(), victims.to_vec());
        self.turn = self.rng.index(victims.len().max(1));
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        self.next_step
    }

    pub(crate) fn poll_packet(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.packets.pop_front()
    }

    /// Asks one victim something, if it is time: who asks is asked back, and gets a place in the table.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        if now < self.next_step {
            return;
        }
        self.next_step = now + STEP;
        let Some(&victim) = self.victims.get(self.turn % self.victims.len().max(1)) else { return };
        self.turn += 1;
        let query = Query::FindNode { target: self.target, want: Want::default() };
        let transaction = self.rng.bytes::<2>();
        self.send(victim, &transaction, Body::Query { id: self.own.id, read_only: false, query });
    }

    fn send(&mut self, to: SocketAddr, transaction: &[u8], body: Body<'_>) {
        let mut packet = Vec::new();
        Message { transaction, seen_as: None, version: None, body }.write(&mut packet);
        self.packets.push_back((to, packet));
    }

    pub(crate) fn handle_packet(&mut self, from: SocketAddr, packet: &[u8]) {
        let Some(Message { transaction, body: Body::Query { query, .. }, .. }) = Message::parse(packet) else { return };
        let response = match query {
            Query::FindNode { .. } | Query::GetPeers { .. } | Query::Get { .. } => self.lie(),
            _ => Response::default(), // an announce is taken, and forgotten
        };
        self.send(from, transaction, Body::Response { id: self.own.id, response: Box::new(response) });
    }

    fn lie(&mut self) -> Response<'static> {
        let rng = &mut self.rng;
        let (nodes, peers) = match self.lie {
            Lie::FalsePeers => {
                let mut fellows = self.fellows.clone();
                rng.shuffle(&mut fellows);
                fellows.truncate(NAMED);
                (fellows, (0..NAMED).map(|_| nobody(rng)).collect())
            }
            Lie::FalseNodes => {
                let invented = |at: usize| {
                    let belied = rng.choose(&self.victims).copied().filter(|_| at.is_multiple_of(2));
                    let addr = belied.unwrap_or_else(|| nobody(rng));
                    Node { id: near(self.target, SHARED_LEN + 1, rng), addr }
                };
                ((0..NAMED).map(invented).collect(), Vec::new())
            }
            Lie::NoNodes => (Vec::new(), Vec::new()),
        };
        Response { token: Some(b"liar"), nodes: Some(nodes), peers, ..Response::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::krpc::PACKET_MAX;

    #[test]
    fn lies_are_messages_that_a_node_understands() {
        let addr: SocketAddr = "12.0.1.1:6881".parse().unwrap();
        let target = Sha1Hash([7; 20]);
        let mut rng = Rng::from_number(1);
        for (lie, names_nodes, names_peers) in
            [(Lie::FalsePeers, true, true), (Lie::FalseNodes, true, false), (Lie::NoNodes, false, false)]
        {
            let own = Node { id: number(addr, target, false, &mut rng), addr };
            let mut liar = Liar::new(lie, own, target, Time::ZERO, rng.fork("liar"));
            liar.meet(&[own], &[addr]);
            let mut query = Vec::new();
            let get = Query::GetPeers { info_hash: target, want: Want::default(), no_seeds: false, scrape: false };
            let body = Body::Query { id: target, read_only: false, query: get };
            Message { transaction: b"tt", seen_as: None, version: None, body }.write(&mut query);
            liar.handle_packet(addr, &query);
            let (_, packet) = liar.poll_packet().unwrap();
            assert!(packet.len() <= PACKET_MAX);
            let Body::Response { response, .. } = Message::parse(&packet).unwrap().body else { panic!("{packet:?}") };
            assert_eq!(!response.nodes.unwrap().is_empty(), names_nodes);
            assert_eq!(!response.peers.is_empty(), names_peers);
        }
        let [free, bound] = [false, true].map(|obeys| number(addr, target, obeys, &mut rng));
        assert!(free.0[..SHARED_LEN] == target.0[..SHARED_LEN] && bound.0[..SHARED_LEN] != target.0[..SHARED_LEN]);
    }
}
