//! Stream sockets by the engine's ids: making connections, keeping them, letting them go.
//!
//! Buffer sizes are left to the kernel's own tuning. Nagle's algorithm is off: what a peer machine sends at once leaves at once, and it
//! gathers its own messages.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry};
use rustix::io::Errno;
use socket2::{SockRef, Type};

use crate::base::ids::ConnId;
use crate::reactor::listeners::new_socket;
use crate::reactor::options::set_late_port;
use crate::reactor::tokens::Whose;

/// A socket that the engine knows.
#[derive(Debug)]
struct Link {
    conn: ConnId,
    stream: TcpStream,
    /// It has been asked for and does not stand yet.
    connecting: bool,
    /// The kernel tells of it.
    watched: bool,
    /// What is written waits until it is watched or closed.
    corked: bool,
}

/// How far a connection is that was asked for.
#[derive(Debug)]
pub(crate) enum Connecting {
    /// Not there yet.
    Waiting,
    /// It stands; this is our end.
    Stands(SocketAddr),
    /// It cannot be had.
    Failed(io::Error),
}

/// All stream sockets. The engine bounds how many there are.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// By slot of the connection's id.
    links: Vec<Option<Link>>,
    len: usize,
}

impl Sockets {
    /// Begins a connection, `through` an interface and perhaps from an address of it.
    ///
    /// # Errors
    /// What the kernel knows at once: no such family, no route, no descriptors.
    pub(crate) fn connect(
        &mut self,
        registry: &Registry,
        conn: ConnId,
        to: SocketAddr,
        through: Option<(&str, Option<IpAddr>)>,
    ) -> io::Result<()> {
        let socket = new_socket(to, Type::STREAM, through.map(|(interface, _)| interface))?;
        if let Some((_, Some(local))) = through {
            set_late_port(&socket)?;
            socket.bind(&SocketAddr::new(local, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        socket.set_tcp_nodelay(true)?;
        self.add(conn, TcpStream::from_std(socket.into()), true);
        self.watch(registry, conn)
    }

    /// Takes in a connection that was accepted. Nobody watches it yet: it gets a turn at once, and many a one ends with that. One
    /// that is `corked` sends its last bytes with the end of the stream then.
    pub(crate) fn accept(&mut self, conn: ConnId, stream: TcpStream, corked: bool) {
        self.add(conn, stream, false);
        self.link(conn).expect("it was just added").corked = corked;
    }

    /// Has the kernel tell of a connection, if there is one of this id and it does not yet. What is so already is told at once.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub(crate) fn watch(&mut self, registry: &Registry, conn: ConnId) -> io::Result<()> {
        let Some(link) = self.link(conn).filter(|link| !link.watched) else { return Ok(()) };
        link.watched = true;
        if std::mem::take(&mut link.corked) {
            SockRef::from(&link.stream).set_tcp_cork(false)?;
        }
        registry.register(&mut link.stream, Whose::Conn(conn).token(), Interest::READABLE | Interest::WRITABLE)
    }

    fn add(&mut self, conn: ConnId, stream: TcpStream, connecting: bool) {
        if self.links.len() <= conn.slot() {
            self.links.resize_with(conn.slot() + 1, || None);
        }
        // The engine may use a slot again in the round in which it closed what was there: that `Close` is still on its way.
        let before = self.links[conn.slot()].replace(Link { conn, stream, connecting, watched: false, corked: false });
        self.len += usize::from(before.is_none());
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whose sockets there are.
    pub(crate) fn conns(&self) -> impl Iterator<Item = ConnId> {
        self.links.iter().flatten().map(|link| link.conn)
    }

    /// Closes a connection's socket; false if there is none.
    pub(crate) fn close(&mut self, conn: ConnId) -> bool {
        if self.link(conn).is_none() {
            return false;
        }
        self.links[conn.slot()] = None;
        self.len -= 1;
        true
    }

    /// The stream of a connection that stands.
    pub(crate) fn stream(&mut self, conn: ConnId) -> Option<&mut TcpStream> {
        self.link(conn).filter(|link| !link.connecting).map(|link| &mut link.stream)
    }

    /// True while the connection is being made.
    pub(crate) fn is_connecting(&mut self, conn: ConnId) -> bool {
        self.link(conn).is_some_and(|link| link.connecting)
    }

    /// Finds out, after an edge, how far a connection is that was asked for. If it failed its socket stays until it is closed.
    pub(crate) fn check_connecting(&mut self, conn: ConnId) -> Connecting {
        let Some(link) = self.link(conn).filter(|link| link.connecting) else { return Connecting::Waiting };
        match ends(&link.stream) {
            Ok(local) => {
                link.connecting = false;
                Connecting::Stands(local)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Connecting::Waiting,
            Err(error) => Connecting::Failed(error),
        }
    }

    fn link(&mut self, conn: ConnId) -> Option<&mut Link> {
        self.links.get_mut(conn.slot())?.as_mut().filter(|link| link.conn == conn)
    }
}

/// Our end of a connection, once it has another.
fn ends(stream: &TcpStream) -> io::Result<SocketAddr> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.peer_addr()?;
    stream.local_addr()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;
    use crate::base::arena::Id;

    fn conn(bits: u64) -> ConnId {
        Id::from_bits(bits)
    }

    /// Polls until the connection has been decided.
    fn decide(poll: &mut Poll, sockets: &mut Sockets, conn: ConnId) -> Connecting {
        let mut events = Events::with_capacity(8);
        for _ in 0..100 {
            poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            match sockets.check_connecting(conn) {
                Connecting::Waiting => {}
                decided => return decided,
            }
        }
        panic!("nothing happened");
    }

    #[test]
    fn a_connection_stands_with_our_end_known() {
        let mut poll = Poll::new().unwrap();
        let mut sockets = Sockets::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        sockets.connect(poll.registry(), conn(0), listener.local_addr().unwrap(), None).unwrap();
        assert!(sockets.is_connecting(conn(0)));
        assert!(sockets.stream(conn(0)).is_none(), "no turn before it stands");
        let Connecting::Stands(local) = decide(&mut poll, &mut sockets, conn(0)) else { panic!("refused") };
        assert_eq!(listener.accept().unwrap().1, local);
        assert!(sockets.stream(conn(0)).unwrap().nodelay().unwrap());
    }

    #[test]
    fn a_refused_connection_fails() {
        let mut poll = Poll::new().unwrap();
        let mut sockets = Sockets::default();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if sockets.connect(poll.registry(), conn(0), nobody, None).is_ok() {
            assert!(matches!(decide(&mut poll, &mut sockets, conn(0)), Connecting::Failed(_)));
        }
    }

    #[test]
    fn an_old_id_finds_nobody_after_its_slot_is_used_again() {
        let poll = Poll::new().unwrap();
        let mut sockets = Sockets::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (old, new) = (conn(1 << 32), conn(2 << 32));
        sockets.connect(poll.registry(), old, listener.local_addr().unwrap(), None).unwrap();
        assert!(sockets.close(old));
        sockets.connect(poll.registry(), new, listener.local_addr().unwrap(), None).unwrap();
        assert!(!sockets.close(old));
        assert!(sockets.is_connecting(new));
        assert_eq!(sockets.len(), 1);
    }

    #[test]
    fn a_slot_used_again_before_its_close_came_lets_the_old_socket_go() {
        let poll = Poll::new().unwrap();
        let mut sockets = Sockets::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (old, new) = (conn(1 << 32), conn(2 << 32));
        sockets.connect(poll.registry(), old, listener.local_addr().unwrap(), None).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        sockets.connect(poll.registry(), new, listener.local_addr().unwrap(), None).unwrap();
        assert_eq!(sockets.len(), 1);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0, "closed");
        assert!(!sockets.close(old) && sockets.close(new));
    }
}
