//! Metainfo that takes too long to be read in one call: it is read in slices of background work, one after another.
//!
//! Whoever needs the result waits for it: a command is answered later ([`Answer::Later`], [`Engine::poll_loaded`]), and an
//! incoming connection that names a hibernated torrent is not read on until the torrent is loaded. Metainfo of up to
//! [`AT_ONCE_MAX`] bytes is read at once.
//!
//! How often strangers may cause a hibernated torrent to be loaded is bounded for each torrent and for each network; beyond
//! that the connection is closed, and the peer dials again when it wants to. The user's commands are not bounded by this.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::bytes::Bytes;
use crate::base::ids::{ConnId, LoadId, TorrentId};
use crate::base::steps::{self, Allowance};
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::codec::metainfo::{Metainfo, MetainfoError, Parser};
use crate::codec::wire::Handshake;
use crate::engine::asks::{metainfo_name, open_content};
use crate::engine::commands::shutting_down;
use crate::engine::connections::{Ending, Role};
use crate::engine::{Effect, Engine, Timer};
use crate::protocol::peer::Peer;
use crate::torrent::command::{AddOptions, Answer, Refusal, RefusalKind, Reply};
use crate::torrent::torrent::Torrent;

/// Bytes of metainfo that are read at once; more are read in slices.
pub(super) const AT_ONCE_MAX: usize = 64 << 10;
/// Steps of one slice: half a millisecond.
const SLICE_STEPS: u64 = 25_000;
/// Bytes of what was saved that are read in one slice.
const READ_LEN: usize = 256 << 10;
/// Bytes of it that count as one step: they are copied, checked, and perhaps waited for.
const READ_PER_STEP: usize = 8;
/// Metainfo files of `add` commands that are read or wait for it; another `add` of a large file is refused as busy.
const ADDS_MAX: usize = 64;
/// Bytes of those files; beyond it another `add` of a large file is refused as busy, unless none is read.
const ADDS_LEN_MAX: usize = 128 << 20;
/// Connections that wait for a torrent; a further one is closed.
const WAITING_MAX: usize = 64;
/// How long after strangers caused a torrent to be loaded they may do so again; before that their connections are closed.
const TORRENT_AGAIN: Duration = Duration::from_secs(10);
/// Torrents that one network (an IPv4 address, or the first 64 bits of an IPv6 address) may cause to be loaded within
/// [`NETWORK_SPAN`]; beyond it the connection is closed.
const NETWORK_LOADS_MAX: u32 = 64;
/// See [`NETWORK_LOADS_MAX`].
const NETWORK_SPAN: Duration = Duration::from_mins(1);
/// Networks whose loads are counted; while there are so many, a connection of another one does not load a torrent.
const NETWORKS_MAX: usize = 4096;

/// What is being read, and the results that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Loading {
    queue: VecDeque<Load>,
    next: u64,
    done: VecDeque<(LoadId, Option<Reply>)>,
    /// When strangers caused a torrent to be loaded last.
    torrents: BTreeMap<TorrentId, Time>,
    /// By network, since when its loads are counted, and how many there were.
    networks: BTreeMap<IpAddr, (Time, u32)>,
}

/// What was read, and of which bytes.
type Read = (Result<Metainfo, MetainfoError>, Bytes);

/// One that is read or waits for it.
#[derive(Debug)]
struct Load {
    source: Source,
    purpose: Purpose,
}

#[derive(Debug)]
enum Source {
    /// The state directory: what was read of it so far.
    Saved(Vec<u8>),
    Parser(Box<Parser>),
}

/// Whose it is, and who waits for it.
#[derive(Debug)]
enum Purpose {
    /// The user adds it.
    Add(LoadId, Box<AddOptions>),
    /// Peers have sent it.
    Describe(TorrentId),
    /// A hibernated torrent is loaded.
    Wake {
        id: TorrentId,
        /// Commands that wait for it.
        loads: Vec<LoadId>,
        /// Connections that wait for it; at most [`WAITING_MAX`].
        conns: Vec<ConnId>,
        /// It is to be removed with its content then.
        leaves: bool,
    },
    /// A torrent is to hibernate, if its metainfo can be read again.
    Sleep(TorrentId),
}

/// A connection that has named a hibernated torrent, and is not read on before that is loaded.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) machine: Box<Peer>,
    pub(super) handshake: Handshake,
    pub(super) id: TorrentId,
}

impl Loading {
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    fn load(&mut self) -> LoadId {
        self.next += 1;
        LoadId(self.next)
    }

    /// The place in the queue of a torrent that is being loaded.
    fn place_of(&mut self, torrent: TorrentId) -> Option<&mut Purpose> {
        let wakes = |load: &Load| matches!(&load.purpose, Purpose::Wake { id, .. } if *id == torrent);
        self.queue.iter_mut().find(|load| wakes(load)).map(|load| &mut load.purpose)
    }

    /// Whether strangers may cause a torrent to be loaded now; counts it if so.
    fn may_wake(&mut self, now: Time, id: TorrentId, ip: IpAddr) -> bool {
        let ip = network(ip);
        if self.torrents.get(&id).is_some_and(|at| now.since(*at) < TORRENT_AGAIN) {
            return false;
        }
        if self.networks.len() >= NETWORKS_MAX {
            self.networks.retain(|_, (since, _)| now.since(*since) < NETWORK_SPAN);
        }
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&ip) {
            return false;
        }
        let (since, count) = self.networks.entry(ip).or_insert((now, 0));
        if now.since(*since) >= NETWORK_SPAN {
            (*since, *count) = (now, 0);
        }
        if *count >= NETWORK_LOADS_MAX {
            return false;
        }
        *count += 1;
        if self.torrents.len() >= NETWORKS_MAX {
            self.torrents.retain(|_, at| now.since(*at) < TORRENT_AGAIN);
        }
        self.torrents.insert(id, now);
        true
    }
}

/// What it means to load a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loaded {
    /// It is loaded. A short one may be not: then its description is lost, as [`Torrent::lost`] says.
    Now,
    /// It is being read; whoever waits for it is told the end of that.
    Later,
}

impl<S: Storage> Engine<S> {
    /// The next command that waited for metainfo, and its answer. Without one its torrent is loaded now, or cannot be: the
    /// command is to be sent again.
    pub fn poll_loaded(&mut self) -> Option<(LoadId, Option<Reply>)> {
        self.loading.done.pop_front()
    }

    /// True if something waits for [`Engine::poll_loaded`], [`Engine::poll_ack`] or [`Engine::poll_event`]: work may have led to it, and
    /// nothing else need happen soon.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.loading.done.is_empty() || self.has_acks() || self.has_events()
    }

    /// Whether the hibernated torrent has so much metainfo that it is read in slices.
    pub(super) fn is_long(&self, id: TorrentId) -> bool {
        self.torrents.get(id).is_some_and(|torrent| torrent.is_asleep() && torrent.info_len() > AT_ONCE_MAX)
    }

    /// Begins to read the metainfo of a user's `add`.
    ///
    /// # Errors
    /// Too much is being read already.
    pub(super) fn load_added(&mut self, bytes: Vec<u8>, options: AddOptions) -> Reply {
        let adds = self.loading.queue.iter().filter(|load| matches!(load.purpose, Purpose::Add(..)));
        let (count, len) = adds.fold((0, 0), |(count, len), load| {
            (count + 1, len + if let Source::Parser(parser) = &load.source { parser.len() } else { 0 })
        });
        if count >= ADDS_MAX || (count > 0 && len + bytes.len() > ADDS_LEN_MAX) {
            let message = format!("{count} large metainfo files are still being read; add this one again in a moment");
            return Err(Refusal::new(RefusalKind::Busy, message));
        }
        let load = self.loading.load();
        let purpose = Purpose::Add(load, Box::new(options));
        self.loading.queue.push_back(Load { source: Source::Parser(Box::new(Parser::file(bytes))), purpose });
        Ok(Answer::Later(load))
    }

    /// Begins to read the metadata that peers have sent for a magnet link.
    pub(super) fn load_metadata(&mut self, now: Time, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(id) else { return };
        let Some(mut parser) = torrent.metadata_parser() else { return };
        if parser.len() > AT_ONCE_MAX {
            let source = Source::Parser(Box::new(parser));
            return self.loading.queue.push_back(Load { source, purpose: Purpose::Describe(id) });
        }
        if let Some(result) = parser.step(&mut Allowance::unlimited()) {
            torrent.handle_metadata_judged(now, result);
            self.touched.push(id);
        }
    }

    /// Has a hibernated torrent loaded: at once if that takes no time, otherwise in slices. `then` notes who waits.
    fn load_torrent(&mut self, now: Time, id: TorrentId, then: impl FnOnce(&mut Purpose)) -> Loaded {
        if !self.is_long(id) {
            self.wake_up(now, id);
            return Loaded::Now;
        }
        if self.loading.place_of(id).is_none() {
            let purpose = Purpose::Wake { id, loads: Vec::new(), conns: Vec::new(), leaves: false };
            self.loading.queue.push_back(Load { source: Source::Saved(Vec::new()), purpose });
        }
        if let Some(purpose) = self.loading.place_of(id) {
            then(purpose);
        }
        Loaded::Later
    }

    /// Has a hibernated torrent loaded that nobody waits for.
    pub(super) fn load_soon(&mut self, now: Time, id: TorrentId) -> Loaded {
        self.load_torrent(now, id, |_| {})
    }

    /// Has a hibernated torrent loaded, to remove it with its content.
    pub(super) fn load_to_leave(&mut self, now: Time, id: TorrentId) -> Loaded {
        self.load_torrent(now, id, |purpose| {
            if let Purpose::Wake { leaves, .. } = purpose {
                *leaves = true;
            }
        })
    }

    /// Has a hibernated torrent loaded for a command: the answer to it, if it has to wait.
    pub(super) fn load_for_command(&mut self, now: Time, id: TorrentId) -> Option<Answer> {
        if !self.is_long(id) {
            return None;
        }
        let load = self.loading.load();
        self.load_torrent(now, id, |purpose| {
            if let Purpose::Wake { loads, .. } = purpose {
                loads.push(load);
            }
        });
        Some(Answer::Later(load))
    }

    /// Has a hibernated torrent loaded for a connection that names it. An error if strangers do that too often, or too many
    /// connections wait for it already.
    pub(super) fn load_for_peer(&mut self, now: Time, id: TorrentId, conn: ConnId) -> Result<Loaded, Ending> {
        let Some(torrent) = self.torrents.get(id) else { return Err(Ending::Closed) };
        if !torrent.is_asleep() {
            return Ok(Loaded::Now);
        }
        let is_under_way = self.loading.place_of(id).is_some();
        let Some(ip) = self.connections.get(conn).map(|connection| connection.addr.ip()) else {
            return Err(Ending::Closed);
        };
        if !is_under_way && !self.loading.may_wake(now, id, ip) {
            self.stats.loads_refused += 1;
            return Err(Ending::Closed);
        }
        let mut is_full = false;
        let loaded = self.load_torrent(now, id, |purpose| {
            if let Purpose::Wake { conns, .. } = purpose {
                is_full = conns.len() >= WAITING_MAX;
                conns.extend((!is_full).then_some(conn));
            }
        });
        if is_full { Err(Ending::Closed) } else { Ok(loaded) }
    }

    /// Begins to read what was saved of a torrent, to have it hibernate if that is intact.
    pub(super) fn load_to_sleep(&mut self, id: TorrentId) {
        self.loading.queue.push_back(Load { source: Source::Saved(Vec::new()), purpose: Purpose::Sleep(id) });
    }

    /// One slice of reading.
    pub(super) fn work_on_loading(&mut self, now: Time) {
        let Some(mut load) = self.loading.queue.pop_front() else { return };
        let is_wanted = match &load.purpose {
            Purpose::Add(..) => true,
            Purpose::Describe(id) => self.torrents.contains(*id),
            Purpose::Wake { id, .. } => self.torrents.get(*id).is_some_and(Torrent::is_asleep),
            Purpose::Sleep(id) => self.torrents.get(*id).is_some_and(Torrent::may_sleep),
        };
        if !is_wanted {
            return self.finish_load(now, load.purpose, None);
        }
        let result = match &mut load.source {
            Source::Saved(bytes) => match self.read_saved(&load.purpose, bytes) {
                None => None,
                Some(false) => return self.loading.queue.push_front(load),
                Some(true) => {
                    let bytes = std::mem::take(bytes);
                    if let Purpose::Sleep(id) = load.purpose {
                        self.sleep_if_saved(now, id, &bytes);
                        return self.settle(now);
                    }
                    load.source = Source::Parser(Box::new(Parser::file(bytes)));
                    return self.loading.queue.push_front(load);
                }
            },
            Source::Parser(parser) => match parser.step(&mut Allowance::new(SLICE_STEPS)) {
                Some(result) => Some((result, parser.bytes().clone())),
                None => return self.loading.queue.push_front(load),
            },
        };
        self.finish_load(now, load.purpose, result);
    }

    /// Reads on what was saved of a torrent; true once all of it is read. `None` if it cannot be read.
    fn read_saved(&mut self, purpose: &Purpose, bytes: &mut Vec<u8>) -> Option<bool> {
        let (Purpose::Wake { id, .. } | Purpose::Sleep(id)) = purpose else { return None };
        let name = metainfo_name(self.torrents.get(*id)?.info_hash());
        steps::add(READ_LEN / READ_PER_STEP);
        self.storage.saved_part(&name, bytes, READ_LEN)
    }

    /// It was read, or cannot be, or is not wanted any more.
    fn finish_load(&mut self, now: Time, purpose: Purpose, result: Option<Read>) {
        match purpose {
            Purpose::Sleep(_) => {} // it asks again later
            Purpose::Add(load, options) => {
                let Some((result, bytes)) = result else { return };
                self.note_changes(true);
                let reply = self.add_read(now, result, bytes, *options);
                self.settle(now);
                self.note_changes(false);
                self.save_changed(now);
                self.loading.done.push_back((load, Some(reply)));
                return;
            }
            Purpose::Describe(id) => {
                if let (Some((result, _)), Some(torrent)) = (result, self.torrents.get_mut(id)) {
                    torrent.handle_metadata_judged(now, result);
                    self.touched.push(id);
                }
            }
            Purpose::Wake { id, loads, conns, leaves } => {
                if self.torrents.get(id).is_some_and(Torrent::is_asleep) {
                    self.finish_waking(now, id, result.map(|(result, _)| result));
                }
                // A command whose torrent still sleeps would have it loaded again, and again.
                let lost = self.torrents.get(id).filter(|torrent| torrent.is_asleep());
                let lost = lost.map(|torrent| Refusal::new(RefusalKind::Io, torrent.lost().unwrap_or_default()));
                let reply = |load| (load, lost.clone().map(Err));
                self.loading.done.extend(loads.into_iter().map(reply));
                conns.into_iter().for_each(|conn| self.admit(now, conn));
                match lost {
                    _ if !leaves => {}
                    // Its error says why.
                    Some(_) => self.tell(id, |torrent| torrent.stays(now)),
                    None => self.leaving.push(id),
                }
            }
        }
        self.settle(now);
    }

    /// A hibernated torrent's metainfo was read; `None` if it is not there.
    fn finish_waking(&mut self, now: Time, id: TorrentId, result: Option<Result<Metainfo, MetainfoError>>) {
        let Some(torrent) = self.torrents.get_mut(id) else { return };
        self.touched.push(id);
        if take_read(now, torrent, result) {
            let store = open_content(&mut self.storage, torrent);
            self.examine_claim(now, id, store);
            self.torrents.get_mut(id).expect("torrent is in the arena").handle_opened(now, store);
        }
    }

    /// The torrent that a connection waits for is loaded, or cannot be.
    fn admit(&mut self, now: Time, conn: ConnId) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let Role::Waiting(caller) = &connection.role else { return };
        let id = caller.id;
        if !self.torrents.get(id).is_some_and(|torrent| torrent.is_running() && !torrent.is_asleep()) {
            return self.close(now, conn);
        }
        let Role::Waiting(caller) = std::mem::replace(&mut connection.role, Role::Peer(id)) else { return };
        let Caller { machine, handshake, .. } = *caller;
        connection.is_unread = !connection.tail.is_empty();
        if self.join(now, conn, id, machine, &handshake).is_err() {
            return self.close(now, conn);
        }
        self.effects.push_back(Effect::Wake(conn));
    }

    /// An accepted connection becomes a peer of its torrent. An error if the torrent does not want it.
    pub(super) fn join(
        &mut self,
        now: Time,
        conn: ConnId,
        id: TorrentId,
        machine: Box<Peer>,
        handshake: &Handshake,
    ) -> Result<(), Ending> {
        self.timers.remove(Timer::Greeting(conn));
        self.newcomers.remove(conn);
        let Some(connection) = self.connections.get(conn) else { return Err(Ending::Closed) };
        let Some(torrent) = self.torrents.get_mut(id) else { return Err(Ending::Closed) };
        self.touched.push(id);
        let welcome = torrent.handle_incoming(now, conn, machine, connection.addr, handshake);
        torrent.handle_lane(conn, connection.is_ciphered());
        welcome.map_err(|_| Ending::Closed)
    }

    /// Nothing is read any more: commands that wait are refused.
    pub(super) fn stop_loading(&mut self) {
        let refusal = || Err(shutting_down());
        for load in std::mem::take(&mut self.loading.queue) {
            match load.purpose {
                Purpose::Add(load, _) => self.loading.done.push_back((load, Some(refusal()))),
                Purpose::Wake { loads, .. } => {
                    self.loading.done.extend(loads.into_iter().map(|load| (load, Some(refusal()))));
                }
                Purpose::Describe(_) | Purpose::Sleep(_) => {}
            }
        }
    }
}

/// A torrent takes its metainfo, that of a hibernated one; `None` if it is not there. True if the torrent is loaded.
pub(super) fn take_read(now: Time, torrent: &mut Torrent, result: Option<Result<Metainfo, MetainfoError>>) -> bool {
    let name = metainfo_name(torrent.info_hash());
    let name = name.display();
    let why = match result {
        Some(Ok(meta)) if torrent.is_described_by(&meta) => {
            torrent.wake_up(now, Arc::new(meta));
            return true;
        }
        Some(_) => format!("its description, {name} in the state directory, is damaged"),
        None => format!("its description, {name} in the state directory, cannot be read"),
    };
    torrent.lose_description(now, &why);
    false
}

/// What counts as one stranger: an IPv4 address, or the first 64 bits of an IPv6 address.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::from((u128::from(ip) >> 64 << 64).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stranger_cannot_have_torrents_loaded_again_and_again() {
        let mut loading = Loading::default();
        let ip = |number: u32| IpAddr::from((0xc000_0200 + number).to_be_bytes());
        let torrent = |number: u32| TorrentId::from_bits(number.into());
        assert!(loading.may_wake(Time::ZERO, torrent(0), ip(0)));
        let again = Time::ZERO + TORRENT_AGAIN;
        assert!(!loading.may_wake(Time::from_secs(9), torrent(0), ip(1)), "whoever it is");
        assert!(loading.may_wake(again, torrent(0), ip(1)));
        for number in 1..NETWORK_LOADS_MAX {
            assert!(loading.may_wake(again, torrent(number), ip(0)));
        }
        assert!(!loading.may_wake(again, torrent(1000), ip(0)), "its share is used up");
        assert!(loading.may_wake(again, torrent(1000), ip(1)), "others have theirs");
        assert!(loading.may_wake(Time::ZERO + NETWORK_SPAN, torrent(1001), ip(0)));
        let subnet = |host: &str| format!("2001:db8::{host}").parse().expect("an address");
        for number in 0..NETWORK_LOADS_MAX {
            assert!(loading.may_wake(again, torrent(2000 + number), subnet(&format!("{number:x}"))));
        }
        assert!(!loading.may_wake(again, torrent(3000), subnet("ffff")), "a /64 network counts as one");
    }

    #[test]
    fn tables_of_strangers_are_bounded() {
        let mut loading = Loading::default();
        for number in 0..2 * u32::try_from(NETWORKS_MAX).expect("small") {
            let ip = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
            let may = loading.may_wake(Time::ZERO, TorrentId::from_bits(number.into()), ip);
            assert_eq!(may, number < u32::try_from(NETWORKS_MAX).expect("small"));
        }
        assert!(loading.networks.len() <= NETWORKS_MAX && loading.torrents.len() <= NETWORKS_MAX);
    }
}
