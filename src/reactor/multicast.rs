//! The sockets of local service discovery (BEP 14): for each family one on every interface that peers may come by.
//!
//! Each is bound to its group's address, so that nothing comes in but what was sent to the group, and is a member on one interface
//! alone, which it also sends through. Other programs of this machine bind the same port. What is not sent is counted and forgotten:
//! it is said again in five minutes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;

use mio::net::UdpSocket;
use mio::{Interest, Registry};
use rustix::net::netdevice::index_to_name;
use rustix::net::sockopt::set_ip_multicast_if_with_ifindex;
use socket2::{InterfaceIndexOrAddress, Type};

use crate::base::ids::SocketId;
use crate::codec::lsd::GROUPS;
use crate::engine::Transmit;
use crate::reactor::batch::{BATCH, Inbox};
use crate::reactor::datagrams::{Counts, Received, is_of_a_packet};
use crate::reactor::interfaces::{self, Interface};
use crate::reactor::listeners::new_socket;
use crate::reactor::tokens::Whose;

/// Interfaces of one family; those with the highest numbers are left out.
const INTERFACES_MAX: usize = 32;
/// Routers that a datagram may pass: the groups are wider than one network (BEP 14), and nobody is heard from far.
const HOPS: u32 = 4;

/// Where a socket is a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// On this interface, by IPv4.
    V4(u32),
    /// On the interface that has this address.
    At(Ipv4Addr),
    /// On this interface, by IPv6.
    V6(u32),
}

#[derive(Debug)]
struct Member {
    id: SocketId,
    place: Place,
    socket: UdpSocket,
    /// Which it is; counted up, so that an event for one that is gone finds nobody.
    number: u32,
    /// The kernel said that something came, and we have not found that nothing did.
    open: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Multicast {
    members: Vec<Member>,
    number: u32,
    counts: Counts,
    /// It was said that a family has none, IPv4 first.
    said: [bool; 2],
}

impl Multicast {
    /// Has a socket on each interface that there is now and that belongs to one of `listen`; with an `interface`, on that alone. What
    /// is there and still fits stays.
    pub(crate) fn rebind(&mut self, registry: &Registry, id: SocketId, listen: &[SocketAddr], interface: Option<&str>) {
        let v6 = id == SocketId::Lsd6;
        let places = places(v6, listen, interface);
        self.members.retain(|member| member.id != id || places.contains(&member.place));
        let mut trouble = None;
        for place in places {
            if self.members.iter().any(|member| member.place == place) {
                continue;
            }
            if let Err(error) = self.add(registry, id, place, interface) {
                log::debug!("{place:?}: cannot join the local network's group: {error}");
                trouble = Some(error);
            }
        }
        let has_any = self.members.iter().any(|member| member.id == id);
        if let Some(error) = trouble.filter(|_| !has_any)
            && !std::mem::replace(&mut self.said[usize::from(v6)], true)
        {
            let family = if v6 { "IPv6" } else { "IPv4" };
            log::warn!("no peers are found in the local network by {family}: {error}");
        }
    }

    fn add(&mut self, registry: &Registry, id: SocketId, place: Place, interface: Option<&str>) -> io::Result<()> {
        let mut socket = join(place, interface)?;
        self.number = self.number.wrapping_add(1);
        registry.register(&mut socket, Whose::Multicast(self.number).token(), Interest::READABLE)?;
        self.members.push(Member { id, place, socket, number: self.number, open: false });
        Ok(())
    }

    /// Closes them all.
    pub(crate) fn clear(&mut self) {
        self.members.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// True if some socket may have something to read.
    pub(crate) fn is_ready(&self) -> bool {
        self.members.iter().any(|member| member.open)
    }

    /// The kernel said that something came to socket `number`.
    pub(crate) fn edge(&mut self, number: u32) {
        if let Some(member) = self.members.iter_mut().find(|member| member.number == number) {
            member.open = true;
        }
    }

    /// Receives datagrams at the socket at `index` into `inbox`, and says which socket that is.
    pub(crate) fn receive(&mut self, index: usize, inbox: &mut Inbox) -> (Option<SocketId>, Received) {
        let Some(member) = self.members.get_mut(index).filter(|member| member.open) else {
            return (None, Received::Nothing);
        };
        let received = match inbox.receive(member.socket.as_fd()) {
            Ok(count) => {
                self.counts.received += count as u64;
                member.open = count == BATCH;
                Received::Packets(count)
            }
            Err(error) if is_of_a_packet(&error) => Received::Error,
            // Empty, or something unknown: the next packet makes a new edge.
            Err(_) => {
                member.open = false;
                Received::Nothing
            }
        };
        (Some(member.id), received)
    }

    /// Sends a datagram through every interface of its family.
    pub(crate) fn send(&mut self, transmit: Transmit, bytes: &[u8]) {
        for member in self.members.iter().filter(|member| member.id == transmit.socket) {
            match member.socket.send_to(bytes, transmit.to) {
                Ok(_) => self.counts.sent += 1,
                Err(error) => {
                    self.counts.failed += 1;
                    log::debug!("{:?}: not sent to the local network: {error}", member.place);
                }
            }
        }
    }
}

/// Where to be a member, for who listens at `listen`; in order.
fn places(v6: bool, listen: &[SocketAddr], interface: Option<&str>) -> Vec<Place> {
    let may = |other: &Interface| interface.is_none_or(|name| other.name == name);
    let mut places = Vec::new();
    for ip in listen.iter().map(SocketAddr::ip).filter(|ip| ip.is_ipv6() == v6) {
        match ip {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
                places.extend(
                    interfaces::with_v4().iter().filter(|other| may(other)).map(|other| Place::V4(other.index)),
                );
            }
            IpAddr::V4(ip) => places.push(Place::At(ip)),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
                places.extend(
                    interfaces::with_v6().iter().filter(|other| may(other)).map(|other| Place::V6(other.index)),
                );
            }
            IpAddr::V6(ip) => places.extend(interfaces::of_v6(ip).filter(may).map(|other| Place::V6(other.index))),
        }
    }
    places.sort_unstable();
    places.dedup();
    places.truncate(INTERFACES_MAX);
    places
}

/// A socket that is a member at `place`.
fn join(place: Place, interface: Option<&str>) -> io::Result<UdpSocket> {
    let group = GROUPS[usize::from(matches!(place, Place::V6(_)))];
    let socket = new_socket(group, Type::DGRAM, interface)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&group.into())?;
    // Without `all` being off a socket hears what any other one of this machine has joined.
    match (group.ip(), place) {
        (IpAddr::V4(group), Place::V4(index)) => {
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))?;
            let any = Ipv4Addr::UNSPECIFIED;
            set_ip_multicast_if_with_ifindex(&socket, &any, &any, index)?;
            socket.set_multicast_ttl_v4(HOPS)?;
        }
        (IpAddr::V4(group), Place::At(ip)) => {
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4(&group, &ip)?;
            socket.set_multicast_if_v4(&ip)?;
            socket.set_multicast_ttl_v4(HOPS)?;
        }
        (IpAddr::V6(group), Place::V6(index)) => {
            socket.set_multicast_all_v6(false)?;
            // Of IPv6 a socket hears what comes by any interface where somebody is a member. Before Linux 5.7 a privilege is needed
            // to forbid it; without it what is said is heard more than once.
            if let Ok(name) = index_to_name(&socket, index)
                && let Err(error) = socket.bind_device(Some(name.as_bytes()))
            {
                log::debug!("{name}: a socket hears more than this: {error}");
            }
            socket.join_multicast_v6(&group, index)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(HOPS)?;
        }
        (group, place) => unreachable!("{place:?} is not of the family of {group}"),
    }
    Ok(UdpSocket::from_std(socket.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const LOCALHOST: &[SocketAddr] = &[SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6881)];
    const TRANSMIT: Transmit = Transmit { socket: SocketId::Lsd4, to: GROUPS[0] };

    /// Waits until `multicast` hears the datagram that ends with `mark`; from whom it was. Others of this machine may speak meanwhile.
    fn hear(poll: &mut Poll, multicast: &mut Multicast, mark: &[u8]) -> Option<SocketAddr> {
        let mut events = Events::with_capacity(8);
        let mut inbox = Inbox::new();
        for _ in 0..20 {
            poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            for event in &events {
                let Some(Whose::Multicast(number)) = Whose::of(event.token()) else { panic!("{event:?}") };
                multicast.edge(number);
            }
            for index in 0..multicast.len() {
                loop {
                    match multicast.receive(index, &mut inbox).1 {
                        Received::Packets(count) => {
                            let heard = (0..count).find_map(|at| {
                                let (from, bytes) = inbox.get(at)?;
                                bytes.ends_with(mark).then_some(from)
                            });
                            if heard.is_some() {
                                return heard;
                            }
                        }
                        Received::Nothing => break,
                        Received::Error => {}
                    }
                }
            }
        }
        None
    }

    #[test]
    fn who_listens_on_loopback_speaks_and_hears_there() {
        let mut poll = Poll::new().unwrap();
        let [mut ours, mut theirs] = [Multicast::default(), Multicast::default()];
        ours.rebind(poll.registry(), SocketId::Lsd4, LOCALHOST, None);
        ours.rebind(poll.registry(), SocketId::Lsd4, LOCALHOST, None);
        theirs.rebind(Poll::new().unwrap().registry(), SocketId::Lsd4, LOCALHOST, None);
        assert_eq!((ours.len(), theirs.len()), (1, 1), "the same place takes one socket");
        theirs.send(TRANSMIT, b"a mark of this test");
        let from = hear(&mut poll, &mut ours, b"a mark of this test").expect("it is heard");
        assert_eq!((from.ip(), from.port()), (LOCALHOST[0].ip(), crate::codec::lsd::PORT));
        assert_eq!((ours.counts().received > 0, theirs.counts().sent), (true, 1));
        ours.rebind(poll.registry(), SocketId::Lsd4, &[], None);
        assert_eq!((ours.len(), ours.is_ready()), (0, false), "nowhere is nowhere");
    }

    #[test]
    fn a_place_that_is_not_there_is_said_once_and_nothing_is_sent() {
        let poll = Poll::new().unwrap();
        let mut multicast = Multicast::default();
        let elsewhere = [SocketAddr::from(([198, 51, 100, 1], 6881))];
        for _ in 0..2 {
            multicast.rebind(poll.registry(), SocketId::Lsd4, &elsewhere, None);
        }
        multicast.send(TRANSMIT, b"x");
        assert_eq!((multicast.len(), multicast.said, multicast.counts()), (0, [true, false], Counts::default()));
    }

    #[test]
    fn an_interface_that_nobody_has_is_no_place() {
        let everywhere: [SocketAddr; 2] = ["0.0.0.0:1".parse().unwrap(), "[::]:1".parse().unwrap()];
        for v6 in [false, true] {
            assert_eq!(places(v6, &everywhere, Some("no such one")), []);
            let all = places(v6, &everywhere, None);
            assert!(all.len() <= INTERFACES_MAX && all.iter().all(|place| matches!(place, Place::V6(_)) == v6));
        }
        assert_eq!(places(false, &[everywhere[0], LOCALHOST[0]], Some("x")), [Place::At(Ipv4Addr::LOCALHOST)]);
    }
}
