//! Queries as fast as they are answered.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use swarmtorrent::base::hash::{InfoHash, Sha1Hash};
use swarmtorrent::base::rng::Rng;
use swarmtorrent::codec::krpc::{Body, Message, NodeId, Query, Response, Want};

use super::{STORED, SWARMS};
use crate::batch::{BATCH, Batch};

/// Addresses that ask.
pub const SOURCES: usize = 8;
/// Queries under way of all; fewer than the kernel keeps for a socket with its default buffer.
pub const WINDOW: usize = 128;
const WINDOW_OF_EACH: usize = WINDOW / SOURCES;
/// What has no answer when none came for so long, has none.
const LOST: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Of so many answers one is read as a whole; of the others, the end is looked at.
const READ_EVERY: u64 = 64;
/// How every answer ends, and no query and no error does.
const END_OF_ANSWER: &[u8] = b"1:y1:re";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ping,
    FindNode,
    GetPeers,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Told {
    pub answers: u64,
    pub lost: u64,
    /// Bytes of the last one.
    pub answer_len: usize,
    pub took: Duration,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::FindNode => "find_node",
            Self::GetPeers => "get_peers",
        }
    }

    fn query(self, target: NodeId) -> Query<'static> {
        let want = Want::default();
        match self {
            Self::Ping => Query::Ping,
            Self::FindNode => Query::FindNode { target, want },
            Self::GetPeers => Query::GetPeers { info_hash: target, want, no_seeds: false, scrape: false },
        }
    }

    /// Panics unless an answer has what it should.
    fn check(self, packet: &[u8]) {
        let Some(Message { body: Body::Response { response, .. }, .. }) = Message::parse(packet) else {
            panic!("no answer: {}", packet.escape_ascii())
        };
        let Response { nodes, peers, token, .. } = &*response;
        let nodes = nodes.as_ref().map_or(0, Vec::len);
        let is_whole = match self {
            Self::Ping => true,
            Self::FindNode => nodes == 8,
            Self::GetPeers => nodes == 8 && token.is_some() && peers.len() == STORED / SWARMS,
        };
        assert!(is_whole, "{}: {response:?}", self.name());
    }
}

/// A query and where in its bytes the target is, if it has one.
fn written(kind: Kind, from: &UdpSocket) -> (Vec<u8>, Option<usize>) {
    let placeholder = Sha1Hash([b'T'; 20]);
    let id = Sha1Hash::of(from.local_addr().unwrap().to_string().as_bytes());
    let body = Body::Query { id, read_only: false, query: kind.query(placeholder) };
    let mut packet = Vec::new();
    Message { transaction: b"abcd", seen_as: None, version: None, body }.write(&mut packet);
    let at = packet.windows(20).position(|bytes| bytes == placeholder.0);
    (packet, at)
}

/// Asks for a while. Hashes are of swarms that are known; nodes are looked for anywhere.
pub fn run(to: SocketAddr, kind: Kind, hashes: &[InfoHash], asked: Duration) -> Told {
    ask(to, kind, hashes, asked, true)
}

/// The same, but whatever comes back is an answer.
pub fn run_unread(to: SocketAddr, kind: Kind, hashes: &[InfoHash], asked: Duration) -> Told {
    ask(to, kind, hashes, asked, false)
}

fn ask(to: SocketAddr, kind: Kind, hashes: &[InfoHash], asked: Duration, is_read: bool) -> Told {
    let sockets: Vec<UdpSocket> = (1..=SOURCES).map(|number| connect(number, to)).collect();
    let queries: Vec<(Vec<u8>, Option<usize>)> = sockets.iter().map(|socket| written(kind, socket)).collect();
    let mut under_way = [0; SOURCES];
    let (mut batch, mut rng, mut told) = (Batch::new(), Rng::from_number(3), Told::default());
    let start = Instant::now();
    while start.elapsed() < asked {
        let mut is_idle = true;
        for ((socket, (query, at)), under_way) in sockets.iter().zip(&queries).zip(&mut under_way) {
            let came = batch.receive(socket);
            for number in 0..came {
                let packet = batch.get(number);
                // They may ask, too, whether whoever asks is a node.
                if !is_read || packet.ends_with(END_OF_ANSWER) {
                    if is_read && told.answers.is_multiple_of(READ_EVERY) {
                        kind.check(packet);
                    }
                    told.answers += 1;
                    told.answer_len = packet.len();
                    *under_way = usize::saturating_sub(*under_way, 1);
                }
            }
            let room = (WINDOW_OF_EACH - *under_way).min(BATCH);
            for number in 0..room {
                let bytes = batch.set(number, query);
                if let Some(at) = *at {
                    let target = match kind {
                        Kind::GetPeers => hashes[rng.index(hashes.len())].0,
                        _ => rng.bytes(),
                    };
                    bytes[at..at + 20].copy_from_slice(&target);
                }
            }
            *under_way += if room > 0 { batch.send(socket, room) } else { 0 };
            is_idle &= came == 0 && room == 0;
        }
        if is_idle {
            let mut fds: Vec<PollFd<'_>> = sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
            if poll(&mut fds, Some(&LOST)).unwrap() == 0 {
                told.lost += under_way.iter().sum::<usize>() as u64;
                under_way = [0; SOURCES];
            }
        }
    }
    told.took = start.elapsed();
    assert!(told.answers > 0, "{to} answers nothing");
    told
}

fn connect(number: usize, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 80, 0, u8::try_from(number).unwrap()), 0)).unwrap();
    socket.connect(to).unwrap();
    socket
}

/// One answer to one query, asked again until it comes.
fn answer_of<T>(to: SocketAddr, query: Query<'_>, patience: Duration, read: impl Fn(NodeId, &Response<'_>) -> T) -> T {
    let socket = connect(SOURCES + 1, to);
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let body = Body::Query { id: Sha1Hash::of(b"who asks"), read_only: true, query };
    let (mut packet, mut heard) = (Vec::new(), [0; 2048]);
    Message { transaction: b"once", seen_as: None, version: None, body }.write(&mut packet);
    let start = Instant::now();
    while start.elapsed() < patience {
        let _ = socket.send(&packet);
        let Ok(len) = socket.recv(&mut heard) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        if let Some(Message { body: Body::Response { id, response }, .. }) = Message::parse(&heard[..len]) {
            return read(id, &response);
        }
    }
    panic!("{to} does not answer in {patience:?}");
}

/// What a program calls itself.
pub fn id_of(to: SocketAddr, patience: Duration) -> NodeId {
    answer_of(to, Query::Ping, patience, |id, _| id)
}

/// How many different nodes a program tells of when it is asked for these targets.
pub fn nodes_told(to: SocketAddr, targets: &[NodeId]) -> usize {
    let mut all = BTreeSet::new();
    for &target in targets {
        let query = Kind::FindNode.query(target);
        all.extend(answer_of(to, query, crate::PATIENCE, |_, response| response.nodes.clone().unwrap_or_default()));
    }
    all.len()
}
