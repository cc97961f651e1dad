//! Peers that announce themselves, from many addresses, each with a token that it asked for.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use swarmtorrent::base::hash::{InfoHash, Sha1Hash};
use swarmtorrent::codec::krpc::{Body, Message, Query, Want};

/// Addresses; none announces more than a thousand peers.
const SOURCES: usize = 100;
/// Without an answer for so long, all ask again.
const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// One address and what it announces, one after another.
struct Announcer {
    socket: UdpSocket,
    peers: Vec<(InfoHash, u16)>,
    at: usize,
    /// Of the one that it is at.
    token: Option<Vec<u8>>,
    /// Those that were taken.
    stored: usize,
}

/// Announces `count` peers, as many for each swarm; how many were taken.
pub fn announce(to: SocketAddr, hashes: &[InfoHash], count: usize) -> usize {
    let mut announcers: Vec<Announcer> = (1..=SOURCES).map(|number| Announcer::new(number, to)).collect();
    for number in 0..count {
        let port = u16::try_from(1024 + number / SOURCES).unwrap();
        announcers[number % SOURCES].peers.push((hashes[number % hashes.len()], port));
    }
    announcers.iter().for_each(Announcer::say);
    while announcers.iter().any(|announcer| !announcer.is_done()) {
        let mut fds: Vec<PollFd<'_>> =
            announcers.iter().map(|announcer| PollFd::new(&announcer.socket, PollFlags::IN)).collect();
        if poll(&mut fds, Some(&AGAIN)).unwrap() == 0 {
            announcers.iter().for_each(Announcer::say);
        }
        announcers.iter_mut().for_each(Announcer::hear);
    }
    announcers.iter().map(|announcer| announcer.stored).sum()
}

impl Announcer {
    fn new(number: usize, to: SocketAddr) -> Self {
        let from = Ipv4Addr::new(127, 90, 0, u8::try_from(number).unwrap());
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, peers: Vec::new(), at: 0, token: None, stored: 0 }
    }

    fn is_done(&self) -> bool {
        self.at == self.peers.len()
    }

    /// Differs for each thing that it says.
    fn transaction(&self) -> [u8; 4] {
        u32::try_from(2 * self.at + usize::from(self.token.is_some())).unwrap().to_be_bytes()
    }

    fn say(&self) {
        let Some(&(info_hash, port)) = self.peers.get(self.at) else { return };
        let query = match &self.token {
            None => Query::GetPeers { info_hash, want: Want::default(), no_seeds: false, scrape: false },
            Some(token) => Query::AnnouncePeer { info_hash, port: Some(port), seed: false, token },
        };
        let id = Sha1Hash::of(&self.socket.local_addr().unwrap().port().to_be_bytes());
        let body = Body::Query { id, read_only: false, query };
        let mut packet = Vec::new();
        Message { transaction: &self.transaction(), seen_as: None, version: None, body }.write(&mut packet);
        let _ = self.socket.send(&packet);
    }

    fn hear(&mut self) {
        let mut packet = [0; 2048];
        while let Ok(len) = self.socket.recv(&mut packet) {
            let Some(message) = Message::parse(&packet[..len]) else { continue };
            if message.transaction != self.transaction() {
                continue;
            }
            match message.body {
                Body::Response { response, .. } if self.token.is_none() => {
                    self.token = Some(response.token.expect("a token").to_vec());
                }
                Body::Query { .. } => continue,
                body => {
                    self.stored += usize::from(matches!(body, Body::Response { .. }));
                    (self.at, self.token) = (self.at + 1, None);
                }
            }
            self.say();
        }
    }
}
