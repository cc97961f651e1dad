//! Listening elsewhere while connections stay: the new sockets are bound before any old one goes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::base::ids::{ListenerId, SocketId};
use crate::reactor::Reactor;
use crate::reactor::listeners::{self, BindError, Bound};

/// Sockets to listen at, bound and not yet used: [`Reactor::move_to`] does that; dropped, it is as if they had never been.
#[derive(Debug)]
pub struct Move {
    /// What is listened at afterwards, and where it was bound before, if it was.
    places: Vec<(SocketAddr, Option<u16>)>,
    bound: Vec<Bound>,
}

impl Move {
    /// What will be listened at.
    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> {
        self.places.iter().map(|(addr, _)| *addr)
    }
}

impl Reactor {
    /// Binds what of `addrs` is not bound already, as [`Reactor::new`] does. While the interface is gone that everything must go through,
    /// nothing is.
    ///
    /// # Errors
    /// The first address that cannot be bound; nothing has changed then.
    pub fn prepare_move(&self, addrs: &[SocketAddr]) -> Result<Move, BindError> {
        let known = |addr: &SocketAddr| {
            let index = self.bound.iter().position(|bound| bound == addr)?;
            u16::try_from(index).ok()
        };
        let others: Vec<SocketAddr> = addrs.iter().filter(|addr| known(addr).is_none()).copied().collect();
        let bound = if self.may_speak() { listeners::bind_all(&others, self.interface())? } else { Vec::new() };
        let mut fresh = if self.may_speak() {
            bound.iter().map(|bound| bound.addr).collect()
        } else {
            listeners::choose_ports(&others)
        }
        .into_iter()
        .peekable();
        let mut places = Vec::new();
        for addr in addrs {
            match known(addr) {
                Some(index) => places.push((*addr, Some(index))),
                // One that this machine lacks the family for was left out.
                None => places.extend(fresh.next_if(|new| is_at(*new, *addr)).map(|new| (new, None))),
            }
        }
        Ok(Move { places, bound })
    }

    /// Listens there and nowhere else from now on: for `Config::listen`. Connections stay.
    pub fn move_to(&mut self, to: Move) {
        let number = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        let kept: BTreeMap<u16, u16> =
            to.places.iter().enumerate().filter_map(|(index, (_, old))| Some(((*old)?, number(index)))).collect();
        self.datagrams.flush(self.poll.registry());
        self.listeners.renumber(self.poll.registry(), |id| match id {
            ListenerId::Peers(old) => kept.get(&old).copied().map(ListenerId::Peers),
            other => Some(other),
        });
        self.datagrams.renumber(self.poll.registry(), |id| match id {
            SocketId::Peers(old) => kept.get(&old).copied().map(SocketId::Peers),
            other => Some(other),
        });
        let fresh = to.places.iter().enumerate().filter(|(_, (_, old))| old.is_none()).map(|(index, _)| number(index));
        for (index, bound) in fresh.zip(to.bound) {
            let registry = self.poll.registry();
            let added = self.listeners.add(registry, ListenerId::Peers(index), bound.listener);
            let added = added.and_then(|()| self.datagrams.add(registry, SocketId::Peers(index), bound.datagrams));
            if let Err(error) = added {
                log::error!("{}: nobody is let in there: {error}", bound.addr);
            }
        }
        self.bound = to.places.into_iter().map(|(addr, _)| addr).collect();
    }

    /// The local network is spoken with no more, until the engine wants sockets for that again.
    pub fn leave_local_network(&mut self) {
        self.multicast.clear();
    }
}

/// True if a socket that was to be bound to `wanted` may be at `addr`.
fn is_at(addr: SocketAddr, wanted: SocketAddr) -> bool {
    addr.ip() == wanted.ip() && (wanted.port() == 0 || addr.port() == wanted.port())
}
