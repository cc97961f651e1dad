//! An address that announces over UDP (BEP 15): its socket, its connection id, and its two packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use swarmtorrent::base::hash::{InfoHash, Sha1Hash};
use swarmtorrent::codec::udp_tracker::{Announce, AnnounceEvent, Request, Response};

use super::ANSWERED;
use super::udp::Kind;
use crate::PATIENCE;
use crate::batch::Batch;

/// Addresses that announce: few with much to say each, as of clients with many torrents; or as many as there are requests under way.
pub const FEW: usize = 16;
pub const MANY: usize = 250;
/// What has no answer when none came for so long, has none.
const LOST: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// BEP 15 lets a client use its number for a minute.
const RENEW: Duration = Duration::from_secs(30);
/// Bytes of an answer with [`ANSWERED`] peers.
pub const ANSWER_LEN: usize = 20 + 6 * ANSWERED;

/// An address that asks.
pub struct Source {
    pub socket: UdpSocket,
    is_v6: bool,
    connect: Vec<u8>,
    announce: Vec<u8>,
    renewed: Instant,
    /// Requests without an answer.
    pub under_way: usize,
}

/// Where the source with a number is, of those that announce (network 80) or fill (81).
pub fn source_ip(network: u8, number: usize, is_v6: bool) -> IpAddr {
    let number = u8::try_from(number + 1).unwrap();
    if is_v6 {
        Ipv6Addr::from(0xfd80 << 112 | u128::from(number)).into()
    } else {
        Ipv4Addr::new(127, network, 0, number).into()
    }
}

impl Source {
    /// One that has a number of the tracker's.
    pub fn new(from: IpAddr, to: SocketAddr, event: AnnounceEvent, is_read: bool) -> Self {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect(to).unwrap();
        let (mut connect, mut announce) = (Vec::new(), Vec::new());
        Request::Connect { transaction: 0 }.write(&mut connect);
        let said = Announce {
            info_hash: Sha1Hash([0; 20]),
            peer_id: *b"-BN0100-benchbenches",
            downloaded: 0,
            left: 1,
            uploaded: 0,
            event,
            key: 1,
            num_want: i32::try_from(ANSWERED).unwrap(),
            port: 0,
        };
        Request::Announce { connection: 0, transaction: 0, announce: said, path: (&[][..]).into() }
            .write(&mut announce);
        announce[53] = match from {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(ip) => ip.octets()[15],
        };
        let mut source = Self { socket, is_v6: to.is_ipv6(), connect, announce, renewed: Instant::now(), under_way: 0 };
        if is_read {
            source.ask_for_number(to);
        }
        source
    }

    fn ask_for_number(&mut self, to: SocketAddr) {
        self.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (start, mut packet) = (Instant::now(), [0; 2048]);
        loop {
            assert!(start.elapsed() < PATIENCE, "{to} gives no connection id");
            let _ = self.socket.send(&self.connect);
            match self.socket.recv(&mut packet) {
                Ok(len) if self.take_number(&packet[..len]) => return,
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Takes a connection id; false if it is another answer.
    fn take_number(&mut self, packet: &[u8]) -> bool {
        let is_one = packet.len() == 16 && packet[..4] == [0; 4];
        if is_one {
            self.announce[..8].copy_from_slice(&packet[8..]);
        }
        is_one
    }

    pub fn renew(&mut self) {
        if self.renewed.elapsed() > RENEW {
            let _ = self.socket.send(&self.connect);
            self.renewed = Instant::now();
        }
    }

    /// Puts one request into a batch; `port` tells what of the address announces, and every eighth is complete.
    pub fn set(&self, batch: &mut Batch, at: usize, kind: Kind, transaction: u32, hash: &InfoHash, port: u16) {
        if kind == Kind::Connect {
            batch.set(at, &self.connect)[12..16].copy_from_slice(&transaction.to_be_bytes());
            return;
        }
        let bytes = batch.set(at, &self.announce);
        bytes[12..16].copy_from_slice(&transaction.to_be_bytes());
        bytes[16..36].copy_from_slice(&hash.0);
        bytes[54..56].copy_from_slice(&port.to_be_bytes());
        bytes[71] = u8::from(!port.is_multiple_of(8));
        bytes[96..98].copy_from_slice(&port.to_be_bytes());
    }

    /// Looks at an answer: whether it is one to an announce, and panics if it is a refusal.
    pub fn is_announced(&mut self, packet: &[u8], enough: usize, read: bool) -> bool {
        if self.take_number(packet) {
            return false;
        }
        let is_short = packet.len() < ANSWER_LEN || packet[..4] != [0, 0, 0, 1];
        if read || (is_short && enough > 0) {
            match Response::parse(packet, self.is_v6) {
                Some(Response::Announce { peers, .. }) if enough <= peers.len() => {}
                other => panic!("not {enough} peers: {other:?}"),
            }
        }
        true
    }
}

/// Those that announce to a tracker; a bare loop, whose answers are not read, gives no numbers.
pub fn sources(to: SocketAddr, is_read: bool, count: usize) -> Vec<Source> {
    let new = |number| Source::new(source_ip(80, number, to.is_ipv6()), to, AnnounceEvent::Regular, is_read);
    (0..count).map(new).collect()
}

/// Of a source that announces.
pub fn port_of(source: usize) -> u16 {
    u16::try_from(50_000 + source).unwrap()
}

/// Waits for an answer to any; false if none came for a long while.
pub fn is_readable(sources: &[Source]) -> bool {
    let mut fds: Vec<PollFd<'_>> = sources.iter().map(|source| PollFd::new(&source.socket, PollFlags::IN)).collect();
    poll(&mut fds, Some(&LOST)).unwrap() > 0
}
