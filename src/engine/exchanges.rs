//! Who asked for what outside: announces and the streams, datagrams and names that they need.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::addr::canonical_addr;
use crate::base::config::Config;
use crate::base::hash::InfoHash;
use crate::base::ids::{ConnId, SocketId, TorrentId};
use crate::base::rate::Budget;
use crate::base::rng::Rng;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::connections::Ending;
use crate::engine::{Effect, Engine, Progress, Transmit};
use crate::protocol::dns::{Found, NameNeed, NameStreamId, Resolver};
use crate::protocol::redis::LinkId;
use crate::protocol::tracker::{AskId, Event, ExchangeId, Need, TrackerClient};
use crate::service::tracker::Tracker;
use crate::torrent::command::{Refusal, RefusalKind};
use crate::torrent::scrapes::ScrapeAsk;
use crate::torrent::torrent::AnnounceRequest;

/// Bytes that one turn of an exchange reads at a time.
const READ_LEN: usize = 16 * 1024;

/// Nodes that the user named and whose names are being looked up; one more is refused.
const NAMED_MAX: usize = 64;

/// What a node was named for.
#[derive(Debug)]
pub(super) enum Named {
    /// To be a peer of this torrent.
    Peer(TorrentId),
    /// To tell what it shares; as it was named.
    Catalog(String),
}

/// What a stream that is no peer's is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exchange {
    /// A request to a tracker.
    Tracker(ExchangeId),
    /// A question to a name server.
    Name(NameStreamId),
    /// The store that our tracker server shares with others.
    Store(LinkId),
}

/// Announces and names under way.
#[derive(Debug)]
pub(super) struct Exchanges {
    pub(super) trackers: TrackerClient,
    resolver: Resolver,
    /// Which torrent's which tracker an ask is for.
    asks: BTreeMap<AskId, (TorrentId, usize)>,
    next_ask: u64,
    streams: BTreeMap<Exchange, ConnId>,
    /// Nodes that the user named, by name: what for, and at which port.
    named: BTreeMap<String, Vec<(Named, u16)>>,
}

impl Exchanges {
    pub(super) fn new(config: &Config, mut rng: Rng) -> Self {
        let trackers = TrackerClient::new(config.tracker_timeout, &config.listen, rng.fork("trackers"));
        Self {
            trackers: if config.anonymous { trackers.anonymous() } else { trackers },
            resolver: Resolver::new(&config.name_servers, &config.hosts, rng.fork("names")),
            asks: BTreeMap::new(),
            next_ask: 0,
            streams: BTreeMap::new(),
            named: BTreeMap::new(),
        }
    }

    pub(super) fn start(&mut self, now: Time, torrent: TorrentId, request: AnnounceRequest) {
        let id = self.ask(torrent, request.tracker);
        self.trackers.start(now, id, &request.url, request.announce, request.tracker_id);
    }

    pub(super) fn scrape(&mut self, now: Time, torrent: TorrentId, info_hash: InfoHash, ask: &ScrapeAsk) {
        let id = self.ask(torrent, ask.tracker);
        self.trackers.scrape(now, id, &ask.url, info_hash);
    }

    fn ask(&mut self, torrent: TorrentId, tracker: usize) -> AskId {
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        self.asks.insert(id, (torrent, tracker));
        id
    }

    pub(super) fn handle_timeout(&mut self, now: Time) {
        self.trackers.handle_timeout(now);
        self.resolver.handle_timeout(now);
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.trackers.poll_timeout().min(self.resolver.poll_timeout())
    }

    /// The node ends: goodbyes wait for no second family.
    pub(super) fn hurry(&mut self, now: Time) {
        self.trackers.hurry(now);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.trackers.is_idle()
    }
}

impl<S: Storage> Engine<S> {
    /// The certificates to trust: the answer to [`Effect::Trust`].
    pub fn handle_trust(&mut self, now: Time, trust: Arc<rustls::ClientConfig>) {
        self.exchanges.trackers.handle_trust(now, trust);
        self.settle(now);
    }

    /// A datagram came. It may be changed in place.
    pub fn handle_packet(&mut self, now: Time, socket: SocketId, from: SocketAddr, packet: &mut [u8]) {
        self.stats.packets_in += 1;
        // Only the DHT's begin with a letter: that of a bencoded dictionary.
        let is_dht = matches!(socket, SocketId::Dht(_) | SocketId::Peers(_)) && packet.first() == Some(&b'd');
        if is_dht && self.is_blocked(from.ip()) {
            self.stats.packets_ignored += 1;
            return;
        }
        match socket {
            SocketId::Tracker(_) => {
                // It asks nobody for anything, and there are many: nothing is to be settled.
                if let Some(tracker) = &mut self.tracker {
                    tracker.handle_packet(now, socket, from, packet);
                }
                self.act_on_store(now);
                return;
            }
            SocketId::Relay4 | SocketId::Relay6 => self.handle_relayed(now, canonical_addr(from), packet),
            SocketId::Resolver4 | SocketId::Resolver6 => self.exchanges.resolver.handle_packet(now, from, packet),
            SocketId::Dht(_) => {
                let known = self.dht.as_mut().is_some_and(|nodes| nodes.handle_packet(now, socket, from, packet));
                self.stats.packets_ignored += u64::from(!known);
            }
            SocketId::Peers(_) => {
                let dht = self.dht.as_mut().filter(|nodes| !nodes.is_apart && is_dht);
                let known = match dht {
                    Some(nodes) => nodes.handle_packet(now, socket, from, packet),
                    None => self.exchanges.trackers.handle_packet(now, from, packet),
                };
                self.stats.packets_ignored += u64::from(!known);
            }
            SocketId::Lsd4 | SocketId::Lsd6 => {
                if let Some(lsd) = &mut self.lsd {
                    lsd.handle_packet(now, from, packet);
                }
            }
        }
        self.settle(now);
    }

    /// The next datagram to send; its bytes replace what is in `packet`.
    pub fn poll_transmit(&mut self, now: Time, packet: &mut Vec<u8>) -> Option<Transmit> {
        if let Some((socket, to)) = self.tracker.as_mut().and_then(|tracker| tracker.poll_transmit(packet)) {
            return Some(Transmit { socket, to });
        }
        let transmit = self.next_transmit(now, packet);
        self.timers.set(super::Timer::Exchanges, self.exchanges.poll_timeout());
        transmit
    }

    fn next_transmit(&mut self, now: Time, packet: &mut Vec<u8>) -> Option<Transmit> {
        let speaks = self.sends_datagrams();
        while let Some(to) = self.exchanges.resolver.poll_transmit(packet) {
            if !speaks {
                continue; // it is as good as lost
            }
            let socket = if canonical_addr(to).is_ipv4() { SocketId::Resolver4 } else { SocketId::Resolver6 };
            return Some(Transmit { socket, to });
        }
        while let Some(to) = self.exchanges.trackers.poll_transmit(now, packet) {
            if self.proxy.is_some() {
                match self.wrap(to, packet) {
                    Some(transmit) if speaks => return Some(transmit),
                    _ => continue,
                }
            }
            // One of our own sockets of the same family; without one the tracker is not reached, and times out.
            let index = self.config.listen.iter().position(|listen| listen.is_ipv4() == to.is_ipv4());
            if let Some(index) = index.and_then(|index| u16::try_from(index).ok()).filter(|_| speaks) {
                return Some(Transmit { socket: SocketId::Peers(index), to });
            }
        }
        if !speaks {
            return None; // the DHT and the local network wait
        }
        while let Some(transmit) = self.dht.as_mut().and_then(|nodes| nodes.poll_transmit(packet)) {
            if self.blocklist.blocks(transmit.to.ip()) {
                continue;
            }
            if self.proxy.is_none() {
                return Some(transmit);
            }
            if let Some(transmit) = self.wrap(transmit.to, packet) {
                return Some(transmit);
            }
        }
        super::lsd::poll_transmit(self.lsd.as_mut()?, packet)
    }

    /// Does what exchanges need, and tells torrents what came of them.
    pub(super) fn act_on_exchanges(&mut self, now: Time) {
        loop {
            if let Some(need) = self.exchanges.trackers.poll_need() {
                self.act_on_need(now, need);
            } else if let Some(need) = self.exchanges.resolver.poll_need() {
                match need {
                    NameNeed::Connect(id, to) => self.open_stream(Exchange::Name(id), to),
                    NameNeed::Close(id) => self.close_stream(Exchange::Name(id)),
                }
            } else if let Some((name, found)) = self.exchanges.resolver.poll_event() {
                self.tell_resolved(now, &name, &found);
            } else if let Some(event) = self.exchanges.trackers.poll_event() {
                self.tell_tracked(now, event);
            } else {
                return;
            }
        }
    }

    /// Tells whoever asked for it what is known of a name.
    fn tell_resolved(&mut self, now: Time, name: &str, found: &Found) {
        self.exchanges.trackers.handle_resolved(now, name, found);
        self.store_resolved(now, name, found);
        if let Some(node) = &mut self.dht {
            node.handle_resolved(now, name, found);
        }
        self.connect_named(now, name, found);
    }

    /// Tells a torrent what came of its announce or scrape.
    fn tell_tracked(&mut self, now: Time, event: Event) {
        let (Event::Found(id, _) | Event::Announced(id, _) | Event::Scraped(id, _)) = &event;
        let Some(&(torrent_id, tracker)) = self.exchanges.asks.get(id) else { return };
        if !matches!(event, Event::Found(..)) {
            self.exchanges.asks.remove(id);
        }
        match &event {
            Event::Announced(_, Ok(_)) => self.stats.announces_answered += 1,
            Event::Announced(_, Err(_)) => self.stats.announces_failed += 1,
            Event::Found(..) | Event::Scraped(..) => {}
        }
        let Some(torrent) = self.torrents.get_mut(torrent_id) else { return };
        match event {
            Event::Found(_, peers) => torrent.handle_found(now, &peers),
            Event::Announced(_, outcome) => torrent.handle_announced(now, tracker, outcome),
            Event::Scraped(_, outcome) => torrent.handle_scraped(now, tracker, &outcome),
        }
        self.touched.push(torrent_id);
    }

    fn act_on_need(&mut self, now: Time, need: Need) {
        match need {
            Need::Resolve(name) => self.resolve(now, &name),
            Need::Connect(id, to) => self.open_stream(Exchange::Tracker(id), to),
            Need::Close(id) => self.close_stream(Exchange::Tracker(id)),
            Need::Wake(id) => {
                self.wake_stream(Exchange::Tracker(id));
            }
            Need::Trust => self.effects.push_back(Effect::Trust),
        }
    }

    pub(super) fn resolve(&mut self, now: Time, name: &str) {
        if let Some(found) = self.stand_in(name) {
            return self.tell_resolved(now, &name.to_ascii_lowercase(), &found);
        }
        if self.exchanges.resolver.is_idle() {
            // Nobody waits for the old ports: new ones make answers harder to forge.
            self.effects.extend([SocketId::Resolver4, SocketId::Resolver6].map(Effect::Rebind));
        }
        self.exchanges.resolver.resolve(now, name);
    }

    /// The user names a peer: it is dialled once its addresses are known.
    pub(super) fn connect_by_name(&mut self, now: Time, id: TorrentId, host: &str, port: u16) -> Result<(), Refusal> {
        if self.proxy.is_some() {
            let message = "behind a proxy no names of peers are looked up; give its address";
            return Err(Refusal::new(RefusalKind::Unsupported, message));
        }
        self.look_up(now, host, Named::Peer(id), port)
    }

    /// The user names a node, for something that follows once its addresses are known.
    pub(super) fn look_up(&mut self, now: Time, host: &str, what: Named, port: u16) -> Result<(), Refusal> {
        if self.exchanges.named.values().map(Vec::len).sum::<usize>() >= NAMED_MAX {
            let message = "too many names are being looked up; try again in a moment";
            return Err(Refusal::new(RefusalKind::Busy, message));
        }
        let name = host.to_ascii_lowercase();
        self.exchanges.named.entry(name).or_default().push((what, port));
        self.resolve(now, host);
        Ok(())
    }

    /// A name was looked up: whoever the user named by it is dialled, at its first address where one is enough.
    fn connect_named(&mut self, now: Time, name: &str, found: &Found) {
        for (what, port) in self.exchanges.named.remove(name).unwrap_or_default() {
            let id = match what {
                Named::Peer(id) => id,
                Named::Catalog(of) => {
                    let ip = found.as_ref().ok().and_then(|ips| ips.first());
                    self.catalog_resolved(now, of, ip.map(|ip| SocketAddr::new(*ip, port)));
                    continue;
                }
            };
            let Some(torrent) = self.torrents.get_mut(id) else { continue };
            match found {
                Ok(ips) => {
                    for &ip in ips {
                        if let Err(refusal) = torrent.connect(now, SocketAddr::new(ip, port)) {
                            log::warn!("{name}: {}", refusal.message);
                        }
                    }
                    self.touched.push(id);
                }
                Err(error) => log::warn!("{name}:{port} is not dialled: {error}"),
            }
        }
    }

    /// The stream of an exchange stands.
    pub(super) fn exchange_connected(&mut self, now: Time, exchange: Exchange) {
        match exchange {
            Exchange::Tracker(id) => self.exchanges.trackers.handle_connected(now, id),
            Exchange::Name(_) => {}
            Exchange::Store(id) => self.store(|store| store.handle_connected(now, id)),
        }
    }

    fn outgoing(&mut self, exchange: Exchange) -> &[u8] {
        match exchange {
            Exchange::Tracker(id) => self.exchanges.trackers.outgoing(id),
            Exchange::Name(id) => self.exchanges.resolver.outgoing(id),
            Exchange::Store(id) => {
                self.tracker.as_mut().and_then(Tracker::store).map_or(&[], |store| store.outgoing(id))
            }
        }
    }

    fn advance(&mut self, exchange: Exchange, count: usize) {
        match exchange {
            Exchange::Tracker(id) => self.exchanges.trackers.advance(id, count),
            Exchange::Name(id) => self.exchanges.resolver.advance(id, count),
            Exchange::Store(id) => self.store(|store| store.advance(id, count)),
        }
    }

    pub(super) fn open_stream(&mut self, exchange: Exchange, to: SocketAddr) {
        let conn = self.dial_exchange(exchange, to);
        self.exchanges.streams.insert(exchange, conn);
    }

    /// There is something to send for an exchange.
    pub(super) fn wake_stream(&mut self, exchange: Exchange) {
        self.effects.extend(self.exchanges.streams.get(&exchange).map(|&conn| Effect::Wake(conn)));
    }

    pub(super) fn close_stream(&mut self, exchange: Exchange) {
        if let Some(conn) = self.exchanges.streams.remove(&exchange) {
            self.forget(conn);
            self.effects.push_back(Effect::Close(conn));
        }
    }

    /// The stream of an exchange is no more.
    pub(super) fn exchange_gone(&mut self, now: Time, exchange: Exchange) {
        self.exchanges.streams.remove(&exchange);
        match exchange {
            Exchange::Tracker(id) => self.exchanges.trackers.handle_closed(now, id),
            Exchange::Name(id) => self.exchanges.resolver.handle_closed(now, id),
            Exchange::Store(id) => self.store(|store| store.handle_closed(now, id)),
        }
    }

    pub(super) fn read_exchange(
        &mut self,
        now: Time,
        conn: ConnId,
        exchange: Exchange,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Result<Progress, Ending> {
        while !budget.is_spent() {
            let room = budget.left().min(READ_LEN);
            match stream.read(&mut self.receive[..room]) {
                Ok(0) => return Err(Ending::Closed),
                Ok(count) => {
                    budget.spend(count);
                    let bytes = &self.receive[..count];
                    match exchange {
                        Exchange::Tracker(id) => self.exchanges.trackers.handle_input(now, id, bytes),
                        Exchange::Name(id) => self.exchanges.resolver.handle_input(now, id, bytes),
                        Exchange::Store(id) => {
                            let store = self.tracker.as_mut().and_then(Tracker::store).ok_or(Ending::Closed)?;
                            store.handle_input(now, id, bytes);
                            self.act_on_store(now);
                        }
                    }
                    self.act_on_exchanges(now);
                    if !self.connections.contains(conn) {
                        return Ok(Progress::Drained);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Closed),
            }
        }
        Ok(Progress::Spent)
    }

    pub(super) fn write_exchange(&mut self, exchange: Exchange, stream: &mut S::Stream) -> Result<Progress, Ending> {
        loop {
            let outgoing = self.outgoing(exchange);
            if outgoing.is_empty() {
                return Ok(Progress::Drained);
            }
            match stream.write(outgoing) {
                Ok(count) => self.advance(exchange, count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Drained),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Closed),
            }
        }
    }
}
