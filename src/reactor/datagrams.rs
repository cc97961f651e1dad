//! Datagram sockets: those beside the listeners (DHT, uTP, UDP trackers), and the resolver's, bound on demand.
//!
//! Whatever a datagram meets (a refused port, no route, too long) is the network's, and every protocol above repeats itself: such
//! errors are counted and forgotten. Only a full send buffer is remembered, in one slot a socket. What goes out through one socket in
//! a round goes together.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use mio::net::UdpSocket;
use mio::{Interest, Registry};

use crate::base::ids::SocketId;
use crate::engine::Transmit;
use crate::reactor::batch::{BATCH, Inbox, Outbox};
use crate::reactor::listeners::bind_datagrams;
use crate::reactor::tokens::Whose;

/// A datagram that waits for room in the kernel. A second one meanwhile is dropped.
#[derive(Debug)]
struct Unsent {
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Port {
    id: SocketId,
    socket: UdpSocket,
    generation: u32,
    /// The kernel said that something came, and we have not found that nothing did.
    open: bool,
    unsent: Option<Unsent>,
}

impl Port {
    /// Changes what the kernel tells us of. Room to write is asked about only while something waits for it: the kernel would
    /// otherwise tell of it after every datagram that left.
    fn watch(&mut self, registry: &Registry, index: usize, interests: Interest) {
        let token = Whose::Datagrams(index, self.generation).token();
        if let Err(error) = registry.reregister(&mut self.socket, token, interests) {
            log::debug!("{:?}: cannot be watched: {error}", self.id);
            self.unsent = None;
        }
    }
}

/// What happened to datagrams, for `stats`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Not sent, since the kernel had no room.
    pub(crate) dropped: u64,
    /// Not sent, since the network said no, or there is no such socket.
    pub(crate) failed: u64,
}

/// What one attempt to receive found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many datagrams.
    Packets(usize),
    /// An error of an earlier packet; try again.
    Error,
    /// No more now.
    Nothing,
}

/// All datagram sockets.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    ports: Vec<Port>,
    /// Counts up with each socket, so that an event for one that was replaced finds nobody.
    generation: u32,
    /// What goes out next, through the socket at an index.
    outbox: Outbox,
    out_index: usize,
    counts: Counts,
}

impl Datagrams {
    /// Takes a bound socket in, in place of the one with the same id.
    pub(crate) fn add(&mut self, registry: &Registry, id: SocketId, mut socket: UdpSocket) -> io::Result<()> {
        let index = self.ports.iter().position(|port| port.id == id).unwrap_or(self.ports.len());
        self.generation = self.generation.wrapping_add(1);
        let token = Whose::Datagrams(index, self.generation).token();
        registry.register(&mut socket, token, Interest::READABLE)?;
        let port = Port { id, socket, generation: self.generation, open: false, unsent: None };
        match self.ports.get_mut(index) {
            Some(old) => *old = port,
            None => self.ports.push(port),
        }
        Ok(())
    }

    /// Binds the resolver's socket, or that of a proxy's datagrams, anew, at a port that the kernel draws at random. The others stay where they were bound.
    pub(crate) fn rebind(&mut self, registry: &Registry, id: SocketId, interface: Option<&str>) -> io::Result<()> {
        let addr = match id {
            SocketId::Resolver4 | SocketId::Relay4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            SocketId::Resolver6 | SocketId::Relay6 => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
            SocketId::Peers(_) | SocketId::Dht(_) | SocketId::Tracker(_) | SocketId::Lsd4 | SocketId::Lsd6 => {
                return Ok(());
            }
        };
        self.add(registry, id, bind_datagrams(addr, interface)?)
    }

    /// Gives each another name, and closes those that have none. What was to be sent must have been.
    pub(crate) fn renumber(&mut self, registry: &Registry, name: impl Fn(SocketId) -> Option<SocketId>) {
        self.ports.retain_mut(|port| {
            name(port.id).is_some_and(|id| {
                port.id = id;
                true
            })
        });
        for (index, port) in self.ports.iter_mut().enumerate() {
            let waits = port.unsent.is_some();
            port.watch(
                registry,
                index,
                if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE },
            );
        }
        self.out_index = 0;
    }

    /// Closes them all; what was to be sent is forgotten.
    pub(crate) fn clear(&mut self) {
        self.ports.clear();
        self.outbox.clear();
        self.out_index = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.ports.len()
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// True if some socket may have something to read.
    pub(crate) fn is_ready(&self) -> bool {
        self.ports.iter().any(|port| port.open)
    }

    /// The kernel said something about the socket at `index`.
    pub(crate) fn edge(&mut self, registry: &Registry, index: usize, generation: u32, readable: bool, writable: bool) {
        let Some(port) = self.ports.get_mut(index).filter(|port| port.generation == generation) else { return };
        port.open |= readable;
        if writable && let Some(unsent) = port.unsent.take() {
            port.watch(registry, index, Interest::READABLE);
            let transmit = Transmit { socket: port.id, to: unsent.to };
            self.send(registry, transmit, &unsent.bytes);
        }
    }

    /// Receives datagrams at the socket at `index` into `inbox`, and says which socket that is.
    pub(crate) fn receive(&mut self, index: usize, inbox: &mut Inbox) -> (Option<SocketId>, Received) {
        let Some(port) = self.ports.get_mut(index).filter(|port| port.open) else {
            return (None, Received::Nothing);
        };
        let received = match inbox.receive(port.socket.as_fd()) {
            Ok(count) => {
                self.counts.received += count as u64;
                // Fewer than there was room for are all: the next packet makes a new edge.
                port.open = count == BATCH;
                Received::Packets(count)
            }
            Err(error) if is_of_a_packet(&error) => Received::Error,
            // Empty, or something unknown. The next packet makes a new edge, so that this cannot spin and loses nothing for long.
            Err(_) => {
                port.open = false;
                Received::Nothing
            }
        };
        (Some(port.id), received)
    }

    /// Sends a datagram with those that go the same way, at the latest with [`Datagrams::flush`].
    pub(crate) fn send(&mut self, registry: &Registry, transmit: Transmit, bytes: &[u8]) {
        let Some(index) = self.ports.iter().position(|port| port.id == transmit.socket) else {
            self.counts.failed += 1;
            return;
        };
        if index != self.out_index || self.outbox.len() == BATCH {
            self.flush(registry);
        }
        self.out_index = index;
        self.outbox.push(transmit.to, bytes);
    }

    /// Sends what is still to be sent: one of those that find no room is kept until there is, others meanwhile are dropped.
    pub(crate) fn flush(&mut self, registry: &Registry) {
        let (index, mut at) = (self.out_index, 0);
        while at < self.outbox.len() {
            let port = &mut self.ports[index];
            if port.unsent.is_some() {
                self.counts.dropped += (self.outbox.len() - at) as u64;
                break;
            }
            match self.outbox.send(port.socket.as_fd(), at) {
                Ok(sent) => {
                    self.counts.sent += sent as u64;
                    at += sent;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let (to, bytes) = self.outbox.get(at).expect("it is the first that is left");
                    port.unsent = Some(Unsent { to, bytes: bytes.to_vec() });
                    port.watch(registry, index, Interest::READABLE | Interest::WRITABLE);
                    at += 1;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.counts.failed += 1;
                    log::trace!("a datagram was not sent: {error}");
                    at += 1;
                }
            }
        }
        self.outbox.clear();
    }
}

/// True for what an earlier packet met on its way; the queue behind it may hold more.
pub(crate) fn is_of_a_packet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    fn localhost() -> UdpSocket {
        bind_datagrams("127.0.0.1:0".parse().unwrap(), None).unwrap()
    }

    /// Waits until the socket at `index` of `datagrams` has something.
    fn wait(poll: &mut Poll, datagrams: &mut Datagrams) {
        let mut events = Events::with_capacity(8);
        for _ in 0..100 {
            poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            for event in &events {
                let Some(Whose::Datagrams(index, generation)) = Whose::of(event.token()) else { panic!("{event:?}") };
                datagrams.edge(poll.registry(), index, generation, event.is_readable(), event.is_writable());
            }
            if datagrams.is_ready() {
                return;
            }
        }
        panic!("nothing came");
    }

    #[test]
    fn datagrams_come_together_until_there_are_none() {
        let mut poll = Poll::new().unwrap();
        let (mut datagrams, mut inbox) = (Datagrams::default(), Inbox::new());
        let (ours, theirs) = (localhost(), localhost());
        let to = ours.local_addr().unwrap();
        datagrams.add(poll.registry(), SocketId::Peers(0), ours).unwrap();
        theirs.send_to(b"one", to).unwrap();
        theirs.send_to(b"", to).unwrap();
        wait(&mut poll, &mut datagrams);
        let from = theirs.local_addr().unwrap();
        assert_eq!(datagrams.receive(0, &mut inbox), (Some(SocketId::Peers(0)), Received::Packets(2)));
        assert_eq!(inbox.get(0), Some((from, &mut b"one".to_owned()[..])));
        assert_eq!(inbox.get(1), Some((from, &mut [][..])), "an empty datagram is one");
        assert!(!datagrams.is_ready());
        assert_eq!(datagrams.receive(0, &mut inbox).1, Received::Nothing);
        assert_eq!(datagrams.counts().received, 2);
    }

    #[test]
    fn the_resolver_gets_a_new_port_each_time_and_old_events_find_nobody() {
        let poll = Poll::new().unwrap();
        let mut datagrams = Datagrams::default();
        datagrams.rebind(poll.registry(), SocketId::Resolver4, None).unwrap();
        let first = datagrams.ports[0].socket.local_addr().unwrap();
        let generation = datagrams.ports[0].generation;
        datagrams.rebind(poll.registry(), SocketId::Resolver4, None).unwrap();
        assert_eq!(datagrams.len(), 1);
        assert_ne!(datagrams.ports[0].socket.local_addr().unwrap(), first);
        datagrams.edge(poll.registry(), 0, generation, true, true);
        assert!(!datagrams.is_ready());
    }

    #[test]
    fn a_socket_beside_a_listener_stays_where_it_was() {
        let poll = Poll::new().unwrap();
        let mut datagrams = Datagrams::default();
        let ours = localhost();
        let addr = ours.local_addr().unwrap();
        datagrams.add(poll.registry(), SocketId::Peers(0), ours).unwrap();
        datagrams.rebind(poll.registry(), SocketId::Peers(0), None).unwrap();
        assert_eq!(datagrams.ports[0].socket.local_addr().unwrap(), addr);
    }

    #[test]
    fn what_cannot_be_sent_is_counted_and_forgotten() {
        let poll = Poll::new().unwrap();
        let mut datagrams = Datagrams::default();
        datagrams.add(poll.registry(), SocketId::Peers(0), localhost()).unwrap();
        let v6 = Transmit { socket: SocketId::Peers(0), to: "[::1]:9".parse().unwrap() };
        datagrams.send(poll.registry(), v6, b"the wrong family");
        datagrams.send(poll.registry(), Transmit { socket: SocketId::Resolver6, ..v6 }, b"no such socket");
        let long = Transmit { to: "127.0.0.1:9".parse().unwrap(), ..v6 };
        datagrams.send(poll.registry(), long, &vec![0; 65_535]);
        datagrams.flush(poll.registry());
        assert_eq!(datagrams.counts(), Counts { failed: 3, ..Counts::default() });
    }

    #[test]
    fn a_datagram_that_found_no_room_leaves_later_and_its_successors_meanwhile_are_dropped() {
        let mut poll = Poll::new().unwrap();
        let mut datagrams = Datagrams::default();
        let (ours, theirs) = (localhost(), localhost());
        let to = theirs.local_addr().unwrap();
        datagrams.add(poll.registry(), SocketId::Peers(0), ours).unwrap();
        datagrams.ports[0].unsent = Some(Unsent { to, bytes: b"first".to_vec() });
        datagrams.send(poll.registry(), Transmit { socket: SocketId::Peers(0), to }, b"second");
        datagrams.flush(poll.registry());
        assert_eq!(datagrams.counts(), Counts { dropped: 1, ..Counts::default() });
        datagrams.ports[0].watch(poll.registry(), 0, Interest::READABLE | Interest::WRITABLE);
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        let event = events.iter().next().expect("there is room");
        let Some(Whose::Datagrams(0, generation)) = Whose::of(event.token()) else { panic!("{event:?}") };
        datagrams.edge(poll.registry(), 0, generation, event.is_readable(), event.is_writable());
        datagrams.flush(poll.registry());
        assert_eq!(datagrams.counts(), Counts { sent: 1, dropped: 1, ..Counts::default() });
        let mut buf = [0; 16];
        assert_eq!(theirs.recv_from(&mut buf).unwrap().0, 5);
        assert_eq!(&buf[..5], b"first");
    }
}
