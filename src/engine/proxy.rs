//! Everything through a SOCKS5 proxy, or nowhere (`proxy` in the config).
//!
//! Each stream begins with a request to the proxy. One more stream, the control, asks it to pass datagrams on, and stands for whether it
//! is there at all: while it is not, or before it ever was, nobody is dialled and nothing is asked, as while the network is cut off
//! (`network`). Names are not looked up: a name gets an address that nobody has to stand in for it, and the proxy is told the name.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::base::addr::canonical_addr;
use crate::base::config::Proxy as Settings;
use crate::base::ids::{ConnId, SocketId};
use crate::base::rate::Budget;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::codec::socks::{Command, Login, NAME_MAX, Place, Refusal, parse_datagram, write_datagram_head};
use crate::engine::connections::{Connection, Ending, Role};
use crate::engine::{Effect, Engine, Progress, Timer, Transmit};
use crate::protocol::dns::DnsError;
use crate::protocol::socks::{Socks, SocksError};

/// How long a stream through the proxy may take to stand: it waits for two ends.
pub(super) const THROUGH_MAX: Duration = Duration::from_secs(30);
/// How long the proxy itself may take.
const CONTROL_MAX: Duration = Duration::from_secs(15);
/// The first wait before the proxy is tried again; doubles with each failure.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// One that passes no datagrams on is asked again whether it does.
const DATAGRAMS_AGAIN: Duration = Duration::from_secs(10 * 60);
/// One without a control is asked whether it is there when a stream through it has ended, so often at most.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// Bytes of the control that are read at once, and forgotten.
const CONTROL_LEN: usize = 256;
/// Names that addresses stand in for; for one more the oldest is forgotten, and what is sent to its address is lost.
const NAMES_MAX: usize = 8192;
/// Names whose datagrams are waited for; for one more the oldest is forgotten, and its answer finds nobody.
const ASKED_MAX: usize = 64;
/// Addresses of 198.18.0.0/15 stand in for names: nobody has them (RFC 2544).
const STAND_IN: u32 = 0xc612_0000;
/// How many of those there are.
const STAND_INS: u32 = 1 << 17;

/// Names and the addresses that stand in for them.
#[derive(Debug, Default)]
struct Names {
    known: Vec<String>,
    places: BTreeMap<String, usize>,
    next: usize,
    /// What stands in for those to whom datagrams were sent of late. Answers come from addresses.
    asked: VecDeque<SocketAddr>,
}

impl Names {
    /// The address that stands in for `name`; none where that can be no host's.
    fn stand_in(&mut self, name: &str) -> Option<IpAddr> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() || name.len() > NAME_MAX {
            return None;
        }
        let place = match self.places.get(&name) {
            Some(&place) => place,
            None => {
                let place = self.next;
                self.next = (self.next + 1) % NAMES_MAX;
                match self.known.get_mut(place) {
                    Some(old) => drop(self.places.remove(&std::mem::replace(old, name.clone()))),
                    None => self.known.push(name.clone()),
                }
                self.places.insert(name, place);
                place
            }
        };
        let number = u32::try_from(place).expect("few names") + 1;
        Some(IpAddr::V4(Ipv4Addr::from(STAND_IN + number)))
    }

    /// The place that an address means: itself, or what it stands in for.
    fn place(&self, addr: SocketAddr) -> Place {
        let addr = canonical_addr(addr);
        let name = stands_in(addr.ip()).and_then(|number| self.known.get(number.checked_sub(1)? as usize));
        name.map_or(Place::Addr(addr), |name| Place::Name(name.clone(), addr.port()))
    }
}

/// Which of the addresses that stand in for names it is; none if it is another one.
fn stands_in(ip: IpAddr) -> Option<u32> {
    let IpAddr::V4(ip) = ip else { return None };
    u32::from(ip).checked_sub(STAND_IN).filter(|number| *number < STAND_INS)
}

/// True for an address that stands in for a name, in a run through a proxy.
pub(super) fn is_stand_in(ip: IpAddr) -> bool {
    stands_in(ip).is_some()
}

/// How it is with the proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    settings: Settings,
    names: Names,
    /// Why nothing goes through it, while nothing does.
    pub(super) trouble: Option<String>,
    control: Option<ConnId>,
    /// When it was asked for.
    control_at: Time,
    /// Where it waits for datagrams.
    relay: Option<SocketAddr>,
    /// It was said that it passes none on.
    said: bool,
    /// When it is tried again.
    again_at: Time,
    again: Duration,
}

impl Proxy {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            names: Names::default(),
            trouble: Some(format!("the proxy {} has not answered yet: nothing is sent until it does", settings.addr)),
            control: None,
            control_at: Time::ZERO,
            relay: None,
            said: false,
            again_at: Time::ZERO,
            again: AGAIN,
        }
    }

    fn request(&self, command: Command) -> Box<Socks> {
        let login = self.settings.login.as_ref();
        let login = login.map(|(user, password)| Login { user: user.0.clone(), password: password.0.clone() });
        Box::new(Socks::new(login, command))
    }

    /// True if datagrams can be sent.
    pub(super) const fn has_relay(&self) -> bool {
        self.relay.is_some()
    }

    pub(super) const fn poll_timeout(&self) -> Time {
        self.again_at
    }

    /// It is asked again in a while, if not sooner.
    fn try_again(&mut self, now: Time) {
        if self.again_at > now + self.again {
            self.again_at = now + self.again;
            self.again = (self.again * 2).min(AGAIN_MAX);
        }
    }

    fn socket(&self) -> SocketId {
        if self.settings.addr.is_ipv4() { SocketId::Relay4 } else { SocketId::Relay6 }
    }
}

impl<S: Storage> Engine<S> {
    /// Begins a stream to `to`, by the way that streams go.
    pub(super) fn begin_stream(&mut self, conn: ConnId, to: SocketAddr) {
        let Some(proxy) = &self.proxy else { return self.effects.push_back(Effect::Connect { conn, to }) };
        let request = proxy.request(Command::Connect(proxy.names.place(to)));
        let to = proxy.settings.addr;
        self.connections.get_mut(conn).expect("it was just kept").tunnel = Some(request);
        self.effects.push_back(Effect::Connect { conn, to });
    }

    /// Asks the proxy anew, as it is time.
    pub(super) fn handle_proxy_timeout(&mut self, now: Time) {
        let Some(proxy) = &mut self.proxy else { return };
        if self.cut_off.is_some() || self.exiting || proxy.control.is_some() {
            proxy.again_at = if proxy.control.is_some() { Time::NEVER } else { now + AGAIN };
            return;
        }
        proxy.again_at = Time::NEVER;
        let to = proxy.settings.addr;
        let mut connection = Connection::new(to, Role::Proxy);
        connection.tunnel = Some(proxy.request(Command::Associate));
        let conn = self.keep(connection);
        let proxy = self.proxy.as_mut().expect("it was just there");
        (proxy.control, proxy.control_at) = (Some(conn), now);
        self.timers.set(Timer::Greeting(conn), now + CONTROL_MAX);
        self.effects.push_back(Effect::Connect { conn, to });
    }

    /// A turn of a stream whose way through the proxy is not open yet.
    pub(super) fn write_tunnel(&mut self, conn: ConnId, stream: &mut S::Stream) -> Result<Progress, Ending> {
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        let Some(tunnel) = &mut connection.tunnel else { return Ok(Progress::Drained) };
        while !tunnel.outgoing().is_empty() {
            match stream.write(tunnel.outgoing()) {
                Ok(count) => tunnel.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Closed),
            }
        }
        Ok(Progress::Drained)
    }

    /// The same for reading.
    pub(super) fn read_tunnel(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Result<Progress, Ending> {
        loop {
            let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
            let Some(tunnel) = &mut connection.tunnel else { return Ok(Progress::Spent) };
            let room = tunnel.needed().min(budget.left());
            if room == 0 {
                return Ok(Progress::Spent);
            }
            match stream.read(&mut self.receive[..room]) {
                Ok(0) => return Err(Ending::Closed),
                Ok(count) => {
                    budget.spend(count);
                    match tunnel.handle_input(&self.receive[..count]) {
                        Ok(None) => {
                            self.write_tunnel(conn, stream)?;
                        }
                        Ok(Some(bound)) => {
                            connection.tunnel = None;
                            self.handle_opened(now, conn, bound);
                            return Ok(Progress::Spent); // what follows is the other end's
                        }
                        Err(error) => {
                            self.handle_refused(now, conn, error);
                            return Err(Ending::Closed);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Closed),
            }
        }
    }

    /// The proxy has done what it was asked for.
    fn handle_opened(&mut self, now: Time, conn: ConnId, bound: Option<SocketAddr>) {
        let Some(Connection { role: Role::Proxy, .. }) = self.connections.get(conn) else {
            return self.stands(now, conn, None);
        };
        self.timers.remove(Timer::Greeting(conn));
        let Some(proxy) = &mut self.proxy else { return };
        // Where it says nothing better it means itself.
        let own = proxy.settings.addr;
        let relay = bound.filter(|bound| bound.port() != 0 && bound.is_ipv4() == own.is_ipv4());
        proxy.relay = relay
            .map(|bound| if bound.ip().is_unspecified() { SocketAddr::new(own.ip(), bound.port()) } else { bound });
        let socket = proxy.socket();
        self.effects.push_back(Effect::Rebind(socket));
        self.proxy_answers(now, true);
    }

    /// The proxy refuses something, or is none.
    fn handle_refused(&mut self, now: Time, conn: ConnId, error: SocksError) {
        let is_control = matches!(self.connections.get(conn), Some(Connection { role: Role::Proxy, .. }));
        if error.is_of_proxy() {
            let Some(proxy) = &self.proxy else { return };
            let why = format!("the proxy {} is of no use: {error}; nothing is sent until it is", proxy.settings.addr);
            self.proxy_failed(now, why);
        } else if is_control {
            let Some(proxy) = &mut self.proxy else { return };
            if !std::mem::replace(&mut proxy.said, true) {
                let reason = if let SocksError::Refused(refusal) = error { refusal } else { Refusal(1) };
                log::warn!(
                    "the proxy passes no datagrams on: {reason}. There is no DHT, and UDP trackers are not asked"
                );
            }
            proxy.control = None;
            proxy.again_at = now + DATAGRAMS_AGAIN;
            self.proxy_answers(now, false);
        }
    }

    /// The proxy is there.
    fn proxy_answers(&mut self, now: Time, datagrams: bool) {
        let Some(proxy) = &mut self.proxy else { return };
        proxy.again = AGAIN;
        let was_away = proxy.trouble.take().is_some();
        if was_away {
            log::info!("everything goes through the proxy {}", proxy.settings.addr);
        }
        if (was_away || datagrams) && self.cut_off.is_none() {
            self.begin_again(now);
        }
    }

    /// The proxy is of no use now: nothing more is sent until it is.
    fn proxy_failed(&mut self, now: Time, why: String) {
        let Some(proxy) = &mut self.proxy else { return };
        proxy.relay = None;
        if proxy.trouble.as_ref() != Some(&why) {
            log::warn!("{why}");
            proxy.trouble = Some(why);
        }
        if proxy.control.is_none() {
            proxy.try_again(now);
        }
    }

    /// A stream to the proxy, or through it, is no more; `tunnel` is what it had still to ask.
    pub(super) fn tunnel_gone(&mut self, now: Time, conn: ConnId, tunnel: Option<&Socks>) {
        let Some(proxy) = &mut self.proxy else { return };
        if proxy.control == Some(conn) {
            (proxy.control, proxy.relay) = (None, None);
            if tunnel.is_none() {
                // It stood. Whether the proxy is gone is known as soon as it is asked again.
                proxy.again_at = now;
                return;
            }
            proxy.try_again(now);
        }
        if tunnel.is_none() && proxy.control.is_none() {
            // No control tells whether the proxy has gone with it.
            proxy.again_at = proxy.again_at.min(now.max(proxy.control_at + PROBE_EVERY));
        }
        if self.cut_off.is_none() && !self.exiting && tunnel.is_some_and(|tunnel| !tunnel.has_heard()) {
            if let Some(control) = proxy.control {
                // It may have gone without a word: whether it answers is asked anew.
                if now.since(proxy.control_at) >= THROUGH_MAX {
                    self.close(now, control);
                }
                return;
            }
            let why = format!("the proxy {} cannot be reached: nothing is sent until it can", proxy.settings.addr);
            self.proxy_failed(now, why);
        }
    }

    /// A turn to read of the control: nothing comes but its end.
    pub(super) fn read_control(&mut self, stream: &mut S::Stream) -> Result<Progress, Ending> {
        match stream.read(&mut self.receive[..CONTROL_LEN]) {
            Ok(1..) => Ok(Progress::Spent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Progress::Drained),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Progress::Spent),
            Ok(0) | Err(_) => Err(Ending::Closed),
        }
    }

    /// The name is not looked up: what stands in for it.
    pub(super) fn stand_in(&mut self, name: &str) -> Option<Result<Vec<IpAddr>, DnsError>> {
        let proxy = self.proxy.as_mut()?;
        Some(proxy.names.stand_in(name).map(|ip| vec![ip]).ok_or(DnsError::NoName))
    }

    /// Wraps a datagram for `to`, so that the proxy passes it on; none while it would not.
    pub(super) fn wrap(&mut self, to: SocketAddr, packet: &mut Vec<u8>) -> Option<Transmit> {
        let proxy = self.proxy.as_mut()?;
        let relay = proxy.relay?;
        let place = proxy.names.place(to);
        if matches!(place, Place::Name(..)) && !proxy.names.asked.contains(&to) {
            proxy.names.asked.push_back(to);
            proxy.names.asked.drain(..proxy.names.asked.len().saturating_sub(ASKED_MAX));
        }
        let mut head = Vec::new();
        write_datagram_head(&place, &mut head);
        packet.splice(0..0, head);
        Some(Transmit { socket: proxy.socket(), to: relay })
    }

    /// A datagram came that the proxy passed on.
    pub(super) fn handle_relayed(&mut self, now: Time, from: SocketAddr, packet: &mut [u8]) {
        let Some(proxy) = self.proxy.as_ref().filter(|proxy| proxy.relay == Some(from)) else { return };
        let Some((Some(from), at)) = parse_datagram(packet) else { return };
        let from = canonical_addr(from);
        // Who was asked by a name answers from an address: it is known by the port, and by the number of its question.
        let asked = proxy.names.asked.iter().filter(|asked| asked.port() == from.port());
        let mut meant: Vec<SocketAddr> = std::iter::once(&from).chain(asked).copied().collect();
        let packet = &mut packet[at..];
        let is_dht = packet.first() == Some(&b'd');
        if is_dht && self.is_blocked(from.ip()) {
            return;
        }
        if let Some(nodes) = self.dht.as_mut().filter(|_| is_dht) {
            for from in meant {
                nodes.handle_packet(now, SocketId::Dht(0), from, packet);
            }
            return;
        }
        let v6 = from.is_ipv6();
        meant.retain(|from| self.exchanges.trackers.handle_packet_of(now, *from, v6, packet));
        self.stats.packets_ignored += u64::from(meant.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_in_for_a_name_until_there_are_too_many() {
        let mut names = Names::default();
        let first = names.stand_in("Tracker.Example.").unwrap();
        assert_eq!(names.stand_in("tracker.example"), Some(first));
        let place = |names: &Names, ip| names.place(SocketAddr::new(ip, 80));
        assert_eq!(place(&names, first), Place::Name("tracker.example".into(), 80));
        assert!(is_stand_in(first) && !is_stand_in("198.20.0.0".parse().unwrap()));
        let real = "192.0.2.1".parse().unwrap();
        assert_eq!(place(&names, real), Place::Addr(SocketAddr::new(real, 80)));
        for number in 1..NAMES_MAX {
            names.stand_in(&format!("n{number}"));
        }
        assert_eq!(names.stand_in("tracker.example"), Some(first));
        assert_eq!(names.stand_in("one-more"), Some(first));
        assert_eq!((names.known.len(), names.places.len()), (NAMES_MAX, NAMES_MAX));
        assert_eq!((names.stand_in(""), names.stand_in(&"a".repeat(256))), (None, None));
    }
}
