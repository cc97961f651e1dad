//! Scripted nodes: at every distance from a program, each at an address of its own, and each knows all others.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use swarmtorrent::base::hash::Sha1Hash;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::codec::krpc::{Body, Message, Node, NodeId, Query, Response};

/// Distances, in bits that are shared with the program: in each there are [`EACH`].
const DISTANCES: usize = 20;
const EACH: usize = 16;
/// A table is full that tells of so many: eight of each distance, but for some of the nearest that it splits no further.
pub const ENOUGH: usize = 8 * (DISTANCES - 2);
const PORT: u16 = 6881;

/// Where the node with a number is.
fn addr(network: u8, number: usize) -> SocketAddr {
    let [high, low] = u16::try_from(number + 1).unwrap().to_be_bytes();
    (Ipv4Addr::new(127, 100 + network, high, low), PORT).into()
}

/// The sockets of all; the network tells those of one program from those of another.
pub fn bind(network: u8) -> Vec<UdpSocket> {
    (0..DISTANCES * EACH)
        .map(|number| UdpSocket::bind(addr(network, number)).expect("an address of loopback"))
        .collect()
}

/// A number that shares just `bits` bits with another.
fn at_distance(own: NodeId, bits: usize, rng: &mut Rng) -> NodeId {
    let mut id = Sha1Hash(rng.bytes());
    let bit = |id: &NodeId, at: usize| id.0[at / 8] >> (7 - at % 8) & 1;
    for at in 0..=bits {
        if (bit(&id, at) == bit(&own, at)) == (at == bits) {
            id.0[at / 8] ^= 0x80 >> (at % 8);
        }
    }
    id
}

/// Something to look for at each distance.
pub fn targets(own: NodeId) -> Vec<NodeId> {
    let mut rng = Rng::from_number(1);
    (0..DISTANCES).map(|bits| at_distance(own, bits, &mut rng)).collect()
}

/// Answers for all of them, around a program that calls itself `own`, until this process ends.
pub fn start(mut sockets: Vec<UdpSocket>, own: NodeId) {
    let mut rng = Rng::from_number(2);
    let nodes: Vec<Node> = (0..)
        .zip(&sockets)
        .map(|(number, socket)| Node {
            id: at_distance(own, number / EACH, &mut rng),
            addr: socket.local_addr().unwrap(),
        })
        .collect();
    let mut poll = Poll::new().unwrap();
    for (number, socket) in sockets.iter_mut().enumerate() {
        poll.registry().register(socket, Token(number), Interest::READABLE).unwrap();
    }
    std::thread::spawn(move || {
        let (mut events, mut packet, mut out) = (Events::with_capacity(1024), [0; 2048], Vec::new());
        loop {
            poll.poll(&mut events, None).unwrap();
            for event in &events {
                let Token(number) = event.token();
                while let Ok((len, from)) = sockets[number].recv_from(&mut packet) {
                    if answer(&packet[..len], nodes[number].id, &nodes, &mut out) {
                        let _ = sockets[number].send_to(&out, from);
                    }
                }
            }
        }
    });
}

/// Writes what is said to a query; false if it is none.
fn answer(packet: &[u8], id: NodeId, nodes: &[Node], out: &mut Vec<u8>) -> bool {
    let Some(Message { transaction, body: Body::Query { query, .. }, .. }) = Message::parse(packet) else {
        return false;
    };
    let response = match query {
        Query::FindNode { target, .. } => Response { nodes: Some(nearest(nodes, target)), ..Response::default() },
        Query::GetPeers { info_hash, .. } => {
            Response { nodes: Some(nearest(nodes, info_hash)), token: Some(b"token"), ..Response::default() }
        }
        _ => Response::default(),
    };
    let body = Body::Response { id, response: Box::new(response) };
    Message { transaction, seen_as: None, version: None, body }.write(out);
    true
}

fn nearest(nodes: &[Node], target: NodeId) -> Vec<Node> {
    let distance = |node: &Node| -> [u8; 20] { std::array::from_fn(|at| node.id.0[at] ^ target.0[at]) };
    let by_distance: BTreeMap<[u8; 20], Node> = nodes.iter().map(|node| (distance(node), *node)).collect();
    by_distance.into_values().take(8).collect()
}
