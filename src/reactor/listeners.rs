//! Listening sockets: binding them, and accepting in portions without ever spinning.
//!
//! Each address gets a TCP listener and a UDP socket at the same port, which is what DHT and uTP expect. IPv6 sockets are IPv6
//! only, so an address is never seen mapped.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::{TcpListener, TcpStream, UdpSocket};
use mio::{Interest, Registry};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::base::ids::ListenerId;
use crate::base::time::Time;
use crate::reactor::options::{set_defer_accept, v4_of};
use crate::reactor::tokens::Whose;

/// Connections that the kernel has made and we have not accepted; beyond it the kernel drops their last handshake packet.
const BACKLOG_MAX: i32 = 1024;
/// Ports tried for a pair of sockets that may have any; beyond it binding fails.
const PORT_TRIES_MAX: usize = 16;
/// Receive buffer of a datagram socket: the kernel does not tune these itself. It gives what its own limit allows.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;
/// The port where any will do and none can be had yet: that of the config's default.
const FALLBACK_PORT: u16 = 6881;
/// How long the kernel keeps a connection to itself on which nothing has come.
const DEFERRED: Duration = Duration::from_secs(10);
/// How long a listener rests when descriptors or memory have run out, unless a connection is closed before.
const REST: Duration = Duration::from_millis(250);

/// An address that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// Which.
    pub addr: SocketAddr,
    /// What the kernel said.
    pub error: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match self.error.kind() {
            ErrorKind::AddrInUse => "another program uses this port; end it or choose another port (0 is any free one)",
            ErrorKind::PermissionDenied => "ports below 1024 and interfaces need a privilege; choose a higher port",
            ErrorKind::AddrNotAvailable => "this machine has no such address; choose one that it has, or 0.0.0.0",
            _ => "choose another address",
        };
        write!(f, "cannot listen at {}: {}: {advice}", self.addr, self.error)
    }
}

impl std::error::Error for BindError {}

/// A listener and the datagram socket beside it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) addr: SocketAddr,
    pub(crate) listener: TcpListener,
    pub(crate) datagrams: UdpSocket,
}

/// Binds every address, in order. One whose family this machine lacks is left out, with a warning, unless it is the only one.
///
/// # Errors
/// The first address that cannot be bound.
pub(crate) fn bind_all(addrs: &[SocketAddr], interface: Option<&str>) -> Result<Vec<Bound>, BindError> {
    // Trackers are told one port: both families get the same one where they may.
    bind_each(addrs, |addr, bound| bind_pair(addr, bound.first().map(|first: &Bound| first.addr.port()), interface))
}

/// A datagram socket of its own.
#[derive(Debug)]
pub(crate) struct BoundDatagrams {
    pub(crate) addr: SocketAddr,
    pub(crate) socket: UdpSocket,
}

/// Binds datagram sockets alone, as [`bind_all`] does pairs.
///
/// # Errors
/// The first address that cannot be bound.
pub(crate) fn bind_all_datagrams(
    addrs: &[SocketAddr],
    interface: Option<&str>,
) -> Result<Vec<BoundDatagrams>, BindError> {
    bind_each(addrs, |addr, _| {
        let socket = bind_datagrams(addr, interface)?;
        // The address that was asked for: that of an interface is looked up anew each time.
        Ok(BoundDatagrams { addr: SocketAddr::new(addr.ip(), socket.local_addr()?.port()), socket })
    })
}

/// Binds listeners for clients that mostly ask one thing and go, as [`bind_all`] does pairs: who says nothing is not accepted, and what
/// is written to a connection waits until it is closed, or no longer corked.
///
/// # Errors
/// The first address that cannot be bound.
pub(crate) fn bind_all_served(
    addrs: &[SocketAddr],
    interface: Option<&str>,
) -> Result<Vec<(SocketAddr, TcpListener)>, BindError> {
    bind_each(addrs, |addr, _| {
        let listener = bind_stream(addr, interface)?;
        // Both only save work: without them it goes as with other listeners.
        let saved = SockRef::from(&listener).set_tcp_cork(true).and(set_defer_accept(&listener, DEFERRED));
        if let Err(error) = saved {
            log::debug!("{addr}: not every connection is as cheap as it could be: {error}");
        }
        Ok((listener.local_addr()?, listener))
    })
}

/// The addresses with a port that is free now where any will do: for those that cannot be bound yet. Both families get one port, as
/// with [`bind_all`].
pub(crate) fn choose_ports(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut chosen = None;
    let mut choose = |addr: &SocketAddr| {
        if addr.port() != 0 {
            return *addr;
        }
        // Tried where nothing from outside can come.
        let free = || Some(bind_pair(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None, None).ok()?.addr.port());
        let port = *chosen.get_or_insert_with(|| free().unwrap_or(FALLBACK_PORT));
        SocketAddr::new(addr.ip(), port)
    };
    addrs.iter().map(&mut choose).collect()
}

/// Binds every address, in order, each after those before it. One whose family this machine lacks is left out, with a warning, unless
/// it is the only one.
fn bind_each<T>(addrs: &[SocketAddr], bind: impl Fn(SocketAddr, &[T]) -> io::Result<T>) -> Result<Vec<T>, BindError> {
    let mut bound = Vec::new();
    let mut lacking = None;
    for &addr in addrs {
        match bind(addr, &bound) {
            Ok(one) => bound.push(one),
            Err(error) if lacks_family(addr, &error) => {
                log::warn!("not listening at {addr}: {error}");
                lacking = Some(BindError { addr, error });
            }
            Err(error) => return Err(BindError { addr, error }),
        }
    }
    match lacking {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

pub(crate) fn lacks_family(addr: SocketAddr, error: &io::Error) -> bool {
    match Errno::from_io_error(error) {
        Some(Errno::AFNOSUPPORT) => true,
        Some(Errno::ADDRNOTAVAIL) => addr.is_ipv6() && addr.ip().is_unspecified(),
        _ => false,
    }
}

/// Binds a pair at `addr`; where that has no port, at `wish` if it is free, else at any.
fn bind_pair(addr: SocketAddr, wish: Option<u16>, interface: Option<&str>) -> io::Result<Bound> {
    if addr.port() != 0 {
        return bind_at(addr, interface);
    }
    if let Some(port) = wish
        && let Ok(bound) = bind_at(SocketAddr::new(addr.ip(), port), interface)
    {
        return Ok(bound);
    }
    let mut tries = 1;
    loop {
        match bind_at(addr, interface) {
            // The kernel chose a port for TCP that somebody has for UDP.
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries < PORT_TRIES_MAX => tries += 1,
            result => return result,
        }
    }
}

fn bind_at(addr: SocketAddr, interface: Option<&str>) -> io::Result<Bound> {
    let listener = bind_stream(addr, interface)?;
    let addr = listener.local_addr()?;
    Ok(Bound { addr, datagrams: bind_datagrams(addr, interface)?, listener })
}

/// A listener at `addr`. What it accepts has Nagle's algorithm off, as it has.
fn bind_stream(addr: SocketAddr, interface: Option<&str>) -> io::Result<TcpListener> {
    let socket = new_socket(addr, Type::STREAM, interface)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG_MAX)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A datagram socket bound to `addr`.
pub(crate) fn bind_datagrams(addr: SocketAddr, interface: Option<&str>) -> io::Result<UdpSocket> {
    let socket = new_socket(addr, Type::DGRAM, interface)?;
    if let Err(error) = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES) {
        log::debug!("a datagram socket keeps its default buffer: {error}");
    }
    // Left to the kernel, what is sent through an interface may get the address of another one.
    let local = interface.filter(|_| addr.ip() == Ipv4Addr::UNSPECIFIED).and_then(|name| v4_of(&socket, name));
    let addr = local.map_or(addr, |ip| SocketAddr::from((ip, addr.port())));
    socket.bind(&addr.into())?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// A socket for talking to or at `addr`: nonblocking, closed on exec, IPv6 only, bound to `interface` if there is one.
pub(crate) fn new_socket(addr: SocketAddr, kind: Type, interface: Option<&str>) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(addr), kind.nonblocking(), Some(protocol))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(name) = interface {
        socket.bind_device(Some(name.as_bytes()))?;
    }
    Ok(socket)
}

/// What one attempt to accept found.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// A connection.
    Stream(TcpStream, SocketAddr),
    /// A connection that was gone before it came; try again.
    Lost,
    /// Descriptors or memory have run out: it rests, unless a connection is closed.
    Starved,
    /// No more now.
    Nothing,
}

#[derive(Debug)]
struct Listening {
    id: ListenerId,
    socket: TcpListener,
    /// The kernel said that somebody waits, and we have not found that nobody does.
    open: bool,
    /// Not asked before.
    rests_until: Time,
}

/// All listeners.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    all: Vec<Listening>,
}

impl Listeners {
    /// Takes one in; its index is how many there were.
    pub(crate) fn add(&mut self, registry: &Registry, id: ListenerId, mut socket: TcpListener) -> io::Result<()> {
        registry.register(&mut socket, Whose::Listener(self.all.len()).token(), Interest::READABLE)?;
        self.all.push(Listening { id, socket, open: false, rests_until: Time::ZERO });
        Ok(())
    }

    /// Gives each another name, and closes those that have none.
    pub(crate) fn renumber(&mut self, registry: &Registry, name: impl Fn(ListenerId) -> Option<ListenerId>) {
        self.all.retain_mut(|listening| {
            name(listening.id).is_some_and(|id| {
                listening.id = id;
                true
            })
        });
        for (index, listening) in self.all.iter_mut().enumerate() {
            let token = Whose::Listener(index).token();
            if let Err(error) = registry.reregister(&mut listening.socket, token, Interest::READABLE) {
                log::error!("{:?}: cannot be watched: {error}", listening.id);
            }
        }
    }

    /// Closes them all.
    pub(crate) fn clear(&mut self) {
        self.all.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Which one stands at `index`, below [`Listeners::len`].
    pub(crate) fn id(&self, index: usize) -> ListenerId {
        self.all[index].id
    }

    /// The kernel said that somebody waits at listener `index`.
    pub(crate) fn edge(&mut self, index: usize) {
        if let Some(listening) = self.all.get_mut(index) {
            listening.open = true;
        }
    }

    /// A descriptor has become free: nobody rests any longer.
    pub(crate) fn handle_room(&mut self) {
        self.all.iter_mut().for_each(|listening| listening.rests_until = Time::ZERO);
    }

    /// When somebody may be waiting: [`Time::ZERO`] for now, [`Time::NEVER`] if the kernel has to say so first.
    pub(crate) fn next_accept(&self) -> Time {
        self.all
            .iter()
            .filter(|listening| listening.open)
            .map(|listening| listening.rests_until)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// Accepts one connection at listener `index`.
    ///
    /// What is unknown ends the round like a lack of descriptors does, with a rest: an error that stays must not make us spin.
    pub(crate) fn accept(&mut self, now: Time, index: usize) -> Accepted {
        let Some(listening) = self.all.get_mut(index) else { return Accepted::Nothing };
        if !listening.open || now < listening.rests_until {
            return Accepted::Nothing;
        }
        match listening.socket.accept() {
            Ok((stream, from)) => Accepted::Stream(stream, from),
            Err(error) => match judge(&error) {
                Trouble::Empty => {
                    listening.open = false;
                    Accepted::Nothing
                }
                Trouble::Lost => Accepted::Lost,
                Trouble::Starved => {
                    log::debug!("accepting rests: {error}");
                    listening.rests_until = now + REST;
                    Accepted::Starved
                }
            },
        }
    }
}

/// What an error of `accept` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nobody waits.
    Empty,
    /// The connection itself; the next may be fine. Linux hands out its pending network errors this way.
    Lost,
    /// This process or machine.
    Starved,
}

fn judge(error: &io::Error) -> Trouble {
    match Errno::from_io_error(error) {
        Some(Errno::AGAIN) => Trouble::Empty,
        Some(
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NOPROTOOPT
            | Errno::TIMEDOUT,
        ) => Trouble::Lost,
        _ => Trouble::Starved,
    }
}

#[cfg(test)]
mod tests {
    use mio::{Events, Poll};

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn both_sockets_of_an_address_have_the_same_port() {
        let bound = bind_all(&[ANY], None).unwrap();
        assert_ne!(bound[0].addr.port(), 0);
        assert_eq!(bound[0].datagrams.local_addr().unwrap(), bound[0].addr);
        assert_eq!(bound[0].listener.local_addr().unwrap(), bound[0].addr);
    }

    #[test]
    fn both_families_get_one_port_where_any_will_do() {
        let any_v6: SocketAddr = "[::1]:0".parse().unwrap();
        let Ok(bound) = bind_all(&[ANY, any_v6], None) else { return };
        if let [v4, v6] = &bound[..] {
            assert_eq!(v4.addr.port(), v6.addr.port());
        }
    }

    #[test]
    fn datagram_sockets_alone_are_bound_where_they_should_be() {
        let bound = bind_all_datagrams(&[ANY, ANY], None).unwrap();
        assert!(bound.len() == 2 && bound[0].addr.port() != 0 && bound[0].addr != bound[1].addr);
        assert_eq!(bound[0].socket.local_addr().unwrap(), bound[0].addr);
        let error = bind_all_datagrams(&[bound[0].addr], None).unwrap_err();
        assert!(error.to_string().contains("another program"), "{error}");
        assert!(bind_all_datagrams(&[], None).unwrap().is_empty());
    }

    #[test]
    fn a_port_in_use_is_said_with_its_address_and_what_to_do() {
        let first = bind_all(&[ANY], None).unwrap();
        let error = bind_all(&[first[0].addr], None).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&first[0].addr.to_string()), "{message}");
        assert!(message.contains("another program"), "{message}");
    }

    #[test]
    fn accepting_ends_when_nobody_waits_and_begins_again_with_an_edge() {
        let mut poll = Poll::new().unwrap();
        let mut listeners = Listeners::default();
        let bound = bind_all(&[ANY], None).unwrap().pop().unwrap();
        listeners.add(poll.registry(), ListenerId::Peers(0), bound.listener).unwrap();
        assert_eq!(listeners.next_accept(), Time::NEVER);
        let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(bound.addr).unwrap()).collect();
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        let first = events.iter().next().expect("an edge");
        assert_eq!(Whose::of(first.token()), Some(Whose::Listener(0)));
        listeners.edge(0);
        assert_eq!(listeners.next_accept(), Time::ZERO);
        for client in &clients {
            let Accepted::Stream(_, from) = listeners.accept(Time::ZERO, 0) else { panic!("three wait") };
            assert_eq!(from, client.local_addr().unwrap());
        }
        assert!(matches!(listeners.accept(Time::ZERO, 0), Accepted::Nothing));
        assert_eq!(listeners.next_accept(), Time::NEVER);
    }

    #[test]
    fn a_starved_listener_rests_until_there_is_room() {
        let poll = Poll::new().unwrap();
        let mut listeners = Listeners::default();
        let bound = bind_all(&[ANY], None).unwrap().pop().unwrap();
        listeners.add(poll.registry(), ListenerId::Peers(0), bound.listener).unwrap();
        listeners.edge(0);
        listeners.all[0].rests_until = Time::ZERO + REST;
        let _client = std::net::TcpStream::connect(bound.addr).unwrap();
        assert_eq!(listeners.next_accept(), Time::ZERO + REST);
        assert!(matches!(listeners.accept(Time::ZERO, 0), Accepted::Nothing));
        listeners.handle_room();
        assert!(matches!(listeners.accept(Time::ZERO, 0), Accepted::Stream(..)), "the edge was not lost");
    }

    #[test]
    fn errors_are_judged_so_that_none_makes_us_spin() {
        for (errno, trouble) in [
            (Errno::AGAIN, Trouble::Empty),
            (Errno::CONNABORTED, Trouble::Lost),
            (Errno::MFILE, Trouble::Starved),
            (Errno::NFILE, Trouble::Starved),
            (Errno::NOBUFS, Trouble::Starved),
            (Errno::BADF, Trouble::Starved),
        ] {
            assert_eq!(judge(&io::Error::from(errno)), trouble, "{errno}");
        }
    }
}
