//! Who is connected, and for what: accepting, dialling, closing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::base::addr::canonical_addr;
use crate::base::ids::{ConnId, ListenerId, TorrentId};
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::catalogs::CatalogEnd;
use crate::engine::exchanges::Exchange;
use crate::engine::lane::{Lane, Sealed};
use crate::engine::loading::{Caller, Loaded};
use crate::engine::proxy::THROUGH_MAX;
use crate::engine::{Effect, Engine, Timer};
use crate::protocol::http::HttpServer;
use crate::protocol::peer::{Peer, Tail};
use crate::protocol::socks::Socks;
use crate::torrent::torrent::Torrent;

/// How long an accepted connection may take to introduce itself, and a dialled one to stand, from its first moment.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(10);
/// Connections with one address; the next one that it begins is closed at once.
pub(super) const CONNECTIONS_PER_IP_MAX: u32 = 64;

/// One stream.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) addr: SocketAddr,
    pub(super) role: Role,
    /// What is to be said to the proxy before anything else; none without one, or once it is said.
    pub(super) tunnel: Option<Box<Socks>>,
    pub(super) lane: Lane,
    /// Goes out before anything else.
    pub(super) sealed: Sealed,
    /// What was received of an unfinished message.
    pub(super) tail: Tail,
    /// What is in `tail` has not been looked at: the turn in which it came caused too much work, or its torrent was not loaded. It is
    /// read before the stream is.
    pub(super) is_unread: bool,
    /// Reading waits until what we have to say is gone.
    pub(super) read_parked: bool,
    /// Since when sending waits for the disk.
    pub(super) disk_since: Option<Time>,
    /// What it held at the end of its last turn, bytes.
    pub(super) held: usize,
}

/// What a stream is for.
#[derive(Debug)]
pub(super) enum Role {
    /// Being dialled for a torrent.
    Dialling(TorrentId),
    /// Accepted; has not said which torrent it wants.
    Greeting(Box<Peer>),
    /// Accepted; has named a hibernated torrent that is being loaded.
    Waiting(Box<Caller>),
    /// A peer of a torrent.
    Peer(TorrentId),
    /// A request to a tracker, or a question to a name server.
    Exchange(Exchange),
    /// A list of what is shared, ours or another node's.
    Catalog(Box<CatalogEnd>),
    /// Accepted by the tracker server.
    Served(Box<HttpServer>),
    /// The control of a proxy.
    Proxy,
}

/// How a connection's turn went wrong.
pub(super) enum Ending {
    /// It ended, failed or is not wanted.
    Closed,
    /// It broke the protocol.
    Misbehaved,
}

impl Connection {
    /// Bytes of what was received and is not understood yet, and of what is ciphered and not sent.
    pub(super) fn buffered(&self) -> usize {
        self.tail.len() + self.sealed.len()
    }

    pub(super) fn new(addr: SocketAddr, role: Role) -> Self {
        Self {
            addr,
            role,
            tunnel: None,
            lane: Lane::Plain,
            sealed: Sealed::default(),
            tail: Tail::default(),
            is_unread: false,
            read_parked: false,
            disk_since: None,
            held: 0,
        }
    }
}

impl<S: Storage> Engine<S> {
    /// A stream was accepted; none if it is not wanted and should be closed at once.
    pub fn handle_accept(&mut self, now: Time, listener: ListenerId, from: SocketAddr) -> Option<ConnId> {
        if let ListenerId::Tracker(_) = listener {
            return self.accept_served(now, from);
        }
        let addr = canonical_addr(from);
        if self.is_blocked(addr.ip()) {
            return None;
        }
        let same_ip = self.with_ip.get(&addr.ip());
        if self.exiting || same_ip >= CONNECTIONS_PER_IP_MAX || !self.make_room(now) {
            self.stats.peers_refused += 1;
            return None;
        }
        self.stats.peers_accepted += 1;
        let mut connection = Connection::new(addr, Role::Greeting(Box::new(Peer::accepted(now))));
        connection.lane = self.first_lane();
        let conn = self.keep(connection);
        self.newcomers.add(conn, addr.ip());
        self.timers.set(Timer::Greeting(conn), now + GREETING_MAX);
        if !self.touched.is_empty() {
            self.settle(now); // a peer made room
        }
        Some(conn)
    }

    /// True until a connection is closed, by either side.
    #[must_use]
    pub fn has_connection(&self, conn: ConnId) -> bool {
        self.connections.contains(conn)
    }

    /// The connection that [`Effect::Connect`] began stands; `local` is our end's address.
    pub fn handle_connected(&mut self, now: Time, conn: ConnId, local: SocketAddr) {
        match self.connections.get(conn) {
            Some(Connection { tunnel: Some(_), .. }) => self.effects.push_back(Effect::Wake(conn)),
            _ => self.stands(now, conn, Some(local)),
        }
    }

    /// A stream to whom it is meant for stands.
    pub(super) fn stands(&mut self, now: Time, conn: ConnId, local: Option<SocketAddr>) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        match connection.role {
            Role::Dialling(id) => {
                if self.torrents.get(id).is_some_and(Torrent::is_running) && self.load_soon(now, id) == Loaded::Later {
                    // Only of a torrent that is loaded one dials, unless it went to sleep meanwhile: it dials again.
                    self.close(now, conn);
                    return self.settle(now);
                }
                let connection = self.connections.get_mut(conn).expect("it was just there");
                self.half_open -= 1;
                self.timers.remove(Timer::Greeting(conn));
                connection.role = Role::Peer(id);
                let addr = connection.addr;
                let takes_cipher = self.torrents.get(id).is_some_and(|torrent| torrent.takes_cipher(addr));
                let ciphered = self.begins_ciphered(takes_cipher);
                let joined = self.torrents.get_mut(id).and_then(|torrent| {
                    local.into_iter().for_each(|local| torrent.handle_local_addr(local));
                    torrent.handle_dialled(now, conn, addr, ciphered).ok().map(|()| torrent.info_hash())
                });
                self.touched.push(id);
                match joined {
                    Some(info_hash) if ciphered => self.begin_shaking(conn, info_hash),
                    Some(_) => {}
                    None => {
                        self.forget(conn);
                        self.effects.push_back(Effect::Close(conn));
                    }
                }
            }
            Role::Exchange(exchange) => {
                self.exchange_connected(now, exchange);
                self.effects.push_back(Effect::Wake(conn));
            }
            Role::Catalog(_) => self.begin_catalog(now, conn),
            Role::Greeting(_) | Role::Waiting(_) | Role::Peer(_) | Role::Served(_) | Role::Proxy => {
                unreachable!("only what was dialled becomes connected")
            }
        }
        self.settle(now);
    }

    /// The connection could not be made, failed, or ended, other than by an error that a turn of it met itself.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId) {
        self.gone(now, conn);
        self.settle(now);
    }

    /// Closes a connection from our side and tells whom it belonged to.
    pub(super) fn close(&mut self, now: Time, conn: ConnId) {
        if self.connections.contains(conn) {
            self.gone(now, conn);
            self.effects.push_back(Effect::Close(conn));
        }
    }

    /// Tells whom a connection belonged to that it is no more.
    fn gone(&mut self, now: Time, conn: ConnId) {
        let Some(connection) = self.forget(conn) else { return };
        self.tunnel_gone(now, conn, connection.tunnel.as_deref());
        match connection.role {
            Role::Dialling(id) => {
                self.half_open -= 1;
                self.stats.peers_failed += 1;
                if let Some(torrent) = self.torrents.get_mut(id) {
                    torrent.handle_dial_failed(now, connection.addr);
                    self.touched.push(id);
                }
            }
            Role::Peer(id) => {
                if let Some(torrent) = self.torrents.get_mut(id) {
                    torrent.handle_peer_closed(now, conn);
                    self.touched.push(id);
                }
            }
            Role::Exchange(exchange) => self.exchange_gone(now, exchange),
            Role::Catalog(end) => self.catalog_gone(conn, &end),
            Role::Greeting(_) | Role::Waiting(_) | Role::Served(_) | Role::Proxy => {}
        }
    }

    /// No more connections with peers may be made. Those to the tracker server have a bound of their own.
    pub(super) fn is_full(&self) -> bool {
        self.connections.len() - self.served.count() >= self.config.connections_max
    }

    /// Takes a connection into the tables.
    pub(super) fn keep(&mut self, connection: Connection) -> ConnId {
        self.with_ip.add(connection.addr.ip());
        self.connections.insert(connection)
    }

    /// Takes a connection out of every table.
    pub(super) fn forget(&mut self, conn: ConnId) -> Option<Connection> {
        self.timers.remove(Timer::Greeting(conn));
        self.timers.remove(Timer::Disk(conn));
        self.newcomers.remove(conn);
        self.down.forget(conn);
        self.up.forget(conn);
        let connection = self.connections.remove(conn)?;
        self.held.give_back(connection.held);
        self.with_ip.remove(&connection.addr.ip());
        if let Role::Served(_) = connection.role {
            self.served.forget(conn);
        }
        Some(connection)
    }

    /// Begins connections for torrents that want some, in turn, as far as the limits allow.
    pub(super) fn dial(&mut self, now: Time) {
        while self.half_open < self.config.half_open_max && self.trouble().is_none() {
            // Who was asked to come goes before who says nothing.
            if self.dialling.is_empty() || self.is_full() && !self.shed_newcomer(now) {
                return;
            }
            let Some(id) = self.dialling.pop() else { return };
            if self.is_long(id) {
                self.load_soon(now, id); // it asks again when it is loaded
                continue;
            }
            let Some(addr) = self.torrents.get_mut(id).and_then(|torrent| torrent.next_candidate(now)) else {
                continue;
            };
            self.dialling.push(id);
            if self.is_blocked(addr.ip()) {
                self.torrents.get_mut(id).expect("it was just asked").handle_dial_failed(now, addr);
                self.touched.push(id);
                continue;
            }
            self.half_open += 1;
            self.stats.peers_dialled += 1;
            let conn = self.keep(Connection::new(addr, Role::Dialling(id)));
            let most = if self.proxy.is_some() { THROUGH_MAX } else { GREETING_MAX };
            self.timers.set(Timer::Greeting(conn), now + most);
            self.begin_stream(conn, addr);
        }
    }

    /// Opens a stream for a request to a tracker or a name server.
    pub(super) fn dial_exchange(&mut self, exchange: Exchange, to: SocketAddr) -> ConnId {
        let conn = self.keep(Connection::new(to, Role::Exchange(exchange)));
        self.begin_stream(conn, to);
        conn
    }
}
