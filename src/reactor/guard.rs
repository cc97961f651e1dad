//! The network interface that everything must go through (`[peers] interface`), and what to do when it goes and comes.
//!
//! A socket that is bound to an interface is bound to its number: after a rename it would go on under another name, and after the
//! interface was made anew it is dead. So the name is looked at every second, by two questions to the kernel that wait for nothing.
//! While it is gone or down no socket is open that could send anything, and none is made; when it is back everything is bound again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};

use crate::base::ids::{ConnId, ListenerId, SocketId};
use crate::base::time::Time;
use crate::engine::Engine;
use crate::reactor::options::{is_up, v4_of};
use crate::reactor::{Reactor, interfaces, listeners};
use crate::storage::FileStorage;

/// How often the interface is looked at. What is sent in between goes through the one that had the name, or nowhere.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How the interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Up, with this number.
    Up(u32),
    Down,
    /// Up, and without an address: what would be sent would have the address of another interface.
    Bare,
    Missing,
}

/// What has an address there. To where it has none nothing is sent, for it would have the address of another interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Families {
    v4: Option<Ipv4Addr>,
    v6: bool,
    /// Of IPv6, within the network alone.
    link_local: bool,
}

impl Families {
    fn reach(self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(_) => self.v4.is_some(),
            IpAddr::V6(ip) => self.v6 || self.link_local && (ip.is_unicast_link_local() || ip.is_multicast()),
        }
    }
}

/// Looks at one interface.
#[derive(Debug)]
pub(super) struct Guard {
    name: String,
    /// Asks the kernel; is never bound or sent through.
    socket: Socket,
    /// The number that all sockets are bound to; none while there are none.
    bound_to: Option<u32>,
    families: Families,
    /// The address that sockets of IPv4 are bound to.
    bound_v4: Option<Ipv4Addr>,
    /// The number, and what has an address there, as last seen while nothing is bound.
    seen: Option<(u32, Families)>,
    /// What was last said about it.
    said: String,
    look_at: Time,
}

impl Guard {
    /// A guard of the interface `name`, to which nothing is bound yet.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let socket =
            Socket::new(Domain::IPV4, Type::DGRAM, None).or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))?;
        Ok(Self {
            name: name.to_owned(),
            socket,
            bound_to: None,
            families: Families::default(),
            bound_v4: None,
            seen: None,
            said: String::new(),
            look_at: Time::ZERO,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What a connection to `to` is to be bound to, besides the interface: where the address that it has there is not left to the
    /// kernel, which asks the routes of other interfaces when there is none for this one.
    pub(super) fn local(&self, to: IpAddr) -> Option<IpAddr> {
        self.families.v4.map(IpAddr::from).filter(|_| to.to_canonical().is_ipv4())
    }

    /// True if sockets may be made.
    pub(super) const fn is_open(&self) -> bool {
        self.bound_to.is_some()
    }

    /// When it wants to look again.
    pub(super) const fn poll_timeout(&self) -> Time {
        self.look_at
    }

    fn link(&mut self) -> Link {
        // The number first: should the interface be another one a moment later, the next look sees it.
        let Ok(index) = name_to_index(&self.socket, &self.name) else { return Link::Missing };
        match is_up(&self.socket, &self.name) {
            Ok(true) => {}
            Ok(false) => return Link::Down,
            Err(_) => return Link::Missing,
        }
        let v6 = interfaces::v6_of(&self.name);
        self.families = Families {
            v4: v4_of(&self.socket, &self.name),
            v6: v6.iter().any(|ip| !ip.is_unicast_link_local()),
            link_local: !v6.is_empty(),
        };
        if self.families.v4.is_some() || self.families.v6 { Link::Up(index) } else { Link::Bare }
    }

    /// The number of the interface, if it is up.
    ///
    /// # Errors
    /// What is wrong with it, and what helps.
    fn look(&mut self) -> Result<u32, String> {
        let what = match self.link() {
            Link::Up(index) => return Ok(index),
            Link::Down => "is down",
            Link::Bare => "has no address",
            Link::Missing => "is not there",
        };
        let name = &self.name;
        Err(format!(
            "the network interface {name} {what}: nothing is sent or received until it is up (`interface` in [peers])"
        ))
    }

    /// Says what has changed, once.
    fn say(&mut self, why: &str) {
        if self.said != why {
            log::warn!("{why}");
            why.clone_into(&mut self.said);
        }
    }
}

impl Reactor {
    /// Sees, before anything is bound, whether it can be. Addresses that any port will do for get one, where it cannot.
    pub(super) fn begin_guard(&mut self) {
        let Some(guard) = &mut self.guard else { return };
        match guard.look() {
            Ok(index) => (guard.bound_to, guard.bound_v4) = (Some(index), guard.families.v4),
            Err(why) => guard.say(&why),
        }
    }

    /// What everything must go through.
    pub(super) fn interface(&self) -> Option<&str> {
        self.guard.as_ref().map(Guard::name)
    }

    /// True unless the interface is gone that everything must go through.
    pub(super) fn may_speak(&self) -> bool {
        self.guard.as_ref().is_none_or(Guard::is_open)
    }

    /// True if something may be sent to `ip`: it would leave by the interface, with an address of it.
    pub(super) fn may_reach(&self, ip: IpAddr) -> bool {
        self.guard.as_ref().is_none_or(|guard| guard.is_open() && guard.families.reach(ip))
    }

    /// Why nothing can be sent now, for `Engine::handle_network` before the first turn; none if it can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.guard.as_ref().filter(|guard| !guard.is_open()).map(|guard| guard.said.clone())
    }

    /// The address is not there that somebody should listen at, or the interface is not: what was bound is closed again, to wait.
    pub(super) fn put_off(&mut self, error: &listeners::BindError) -> bool {
        let waits = matches!(error.error.kind(), io::ErrorKind::AddrNotAvailable)
            || error.error.raw_os_error() == Some(libc::ENODEV);
        let Some(guard) = self.guard.as_mut().filter(|_| waits) else { return false };
        guard.bound_to = None;
        guard.look_at = self.now + LOOK_EVERY;
        let why = of_address(&guard.name, error);
        guard.say(&why);
        self.close_all();
        true
    }

    fn close_all(&mut self) {
        self.listeners.clear();
        self.datagrams.clear();
        self.multicast.clear();
    }

    /// Looks at the interface, if it is time: cuts everything off when it is gone, and binds everything when it is back. True if
    /// either happened.
    pub(super) fn heed_interface(&mut self, engine: &mut Engine<FileStorage>) -> bool {
        let Some(guard) = self.guard.as_mut().filter(|guard| guard.look_at <= self.now) else { return false };
        guard.look_at = self.now + LOOK_EVERY;
        match (guard.look(), guard.bound_to) {
            (Ok(index), Some(bound)) if index == bound && guard.families.v4 == guard.bound_v4 => false,
            // One that is just being made goes on changing for a moment, and what is sent then may have another one's address.
            (Ok(index), None) if guard.seen.replace((index, guard.families)) != Some((index, guard.families)) => false,
            (Ok(index), None) => self.bind_again(engine, index),
            (Ok(_), Some(_)) => {
                let why = format!("the network interface {} is not the one it was: everything begins anew", guard.name);
                self.cut_off(engine, &why);
                true
            }
            (Err(why), Some(_)) => {
                self.cut_off(engine, &why);
                true
            }
            (Err(why), None) => {
                guard.seen = None;
                self.tell_anew(engine, why);
                false
            }
        }
    }

    /// It was cut off and still is, perhaps for another reason than before.
    fn tell_anew(&mut self, engine: &mut Engine<FileStorage>, why: String) {
        let guard = self.guard.as_mut().expect("only a guard tells");
        if guard.said != why {
            guard.say(&why);
            engine.handle_network(self.now, Some(why));
        }
    }

    /// Closes every socket that could send something, and tells the engine: first that nobody can be dialled, then of each connection.
    fn cut_off(&mut self, engine: &mut Engine<FileStorage>, why: &str) {
        let guard = self.guard.as_mut().expect("only a guard cuts off");
        (guard.bound_to, guard.seen) = (None, None);
        guard.say(why);
        self.close_all();
        let conns: Vec<ConnId> = self.sockets.conns().collect();
        conns.iter().for_each(|conn| self.close(*conn));
        engine.handle_network(self.now, Some(why.to_owned()));
        conns.iter().for_each(|conn| engine.handle_closed(self.now, *conn));
    }

    /// Binds everything to the interface, which has this number now. False, and nothing bound, if an address is not there yet.
    fn bind_again(&mut self, engine: &mut Engine<FileStorage>, index: u32) -> bool {
        if let Err(error) = self.bind_each() {
            self.close_all();
            let why = of_address(self.interface().unwrap_or_default(), &error);
            self.tell_anew(engine, why);
            return false;
        }
        let guard = self.guard.as_mut().expect("only a guard binds again");
        (guard.bound_to, guard.bound_v4) = (Some(index), guard.families.v4);
        guard.said.clear();
        log::info!("the network interface {} is up: everything goes on", guard.name);
        engine.handle_network(self.now, None);
        true
    }

    fn bind_each(&mut self) -> Result<(), listeners::BindError> {
        let interface = self.interface().map(str::to_owned);
        let interface = interface.as_deref();
        let (peers, dht, [udp, http]) = (self.bound.clone(), self.bound_dht.clone(), self.bound_tracker.clone());
        for (index, addr) in numbered(&peers) {
            for bound in all_but_lacking(addr, listeners::bind_all(&[addr], interface))? {
                let failed = |error| listeners::BindError { addr, error };
                self.listeners.add(self.poll.registry(), ListenerId::Peers(index), bound.listener).map_err(failed)?;
                self.datagrams.add(self.poll.registry(), SocketId::Peers(index), bound.datagrams).map_err(failed)?;
            }
        }
        let datagrams = numbered(&dht).map(|(index, addr)| (SocketId::Dht(index), addr));
        for (id, addr) in datagrams.chain(numbered(&udp).map(|(index, addr)| (SocketId::Tracker(index), addr))) {
            for bound in all_but_lacking(addr, listeners::bind_all_datagrams(&[addr], interface))? {
                let failed = |error| listeners::BindError { addr, error };
                self.datagrams.add(self.poll.registry(), id, bound.socket).map_err(failed)?;
            }
        }
        for (index, addr) in numbered(&http) {
            for (addr, listener) in all_but_lacking(addr, listeners::bind_all_served(&[addr], interface))? {
                let failed = |error| listeners::BindError { addr, error };
                self.listeners.add(self.poll.registry(), ListenerId::Tracker(index), listener).map_err(failed)?;
            }
        }
        Ok(())
    }
}

fn numbered(addrs: &[SocketAddr]) -> impl Iterator<Item = (u16, SocketAddr)> {
    (0..=u16::MAX).zip(addrs.iter().copied())
}

/// What was bound at an address; nothing where this machine lacks the family, which is no reason to do without the other one.
fn all_but_lacking<T>(
    addr: SocketAddr,
    bound: Result<Vec<T>, listeners::BindError>,
) -> Result<Vec<T>, listeners::BindError> {
    match bound {
        Err(error) if listeners::lacks_family(addr, &error.error) => Ok(Vec::new()),
        bound => bound,
    }
}

fn of_address(name: &str, error: &listeners::BindError) -> String {
    format!(
        "nothing can be bound to the network interface {name} at {}: {}: nothing is sent or received until it can, which is tried every second",
        error.addr, error.error
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_looked_at_by_name() {
        let mut guard = Guard::new("lo").unwrap();
        assert!(matches!(guard.look(), Ok(index) if index > 0));
        assert!(guard.families.reach([192, 0, 2, 1].into()));
        let mut missing = Guard::new("no-such-one").unwrap();
        let why = missing.look().unwrap_err();
        assert!(why.contains("no-such-one is not there") && why.contains("`interface`"), "{why}");
        assert!(!missing.is_open());
    }
}
