//! What other nodes share, asked for by the user, and what we share, told to whoever asks.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::base::ids::ConnId;
use crate::base::rate::Budget;
use crate::base::storage::{Chunk, SendError, Storage};
use crate::base::time::Time;
use crate::codec::catalog::{CatalogMessage, Entry, ITEMS_MAX, PAGES_MAX};
use crate::codec::wire::Handshake;
use crate::engine::connections::{Connection, Ending, Role};
use crate::engine::exchanges::Named;
use crate::engine::lane::SEALED_MAX;
use crate::engine::{Effect, Engine, Progress, Timer};
use crate::protocol::catalog::{CATALOG_MAX, Catalog, News};
use crate::torrent::command::{Refusal, RefusalKind};
use crate::torrent::torrent::Torrent;

/// Nodes whose lists are kept; the one that was asked first is forgotten beyond it.
const LISTS_MAX: usize = 16;
/// Bytes of names of one list, and [`ENTRY_LEN`] more for each; what comes beyond is not asked for. So a list fits into a reply.
const LIST_LEN_MAX: usize = 4 << 20;
/// What else an entry takes, bytes.
const ENTRY_LEN: usize = 128;
/// After so long a list is asked for anew.
const FRESH: Duration = Duration::from_secs(60);
/// Chunks of one write.
const CHUNKS_MAX: usize = 16;

/// One end of a connection that carries a list.
#[derive(Debug)]
pub(super) struct CatalogEnd {
    /// None until the connection stands.
    machine: Option<Catalog>,
    /// Whose list we ask for; none where we are asked.
    of: Option<String>,
}

impl CatalogEnd {
    /// What it has to say waits for the other end to read.
    pub(super) fn is_full(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| machine.outbuf().is_full())
    }

    /// Steps through `input`: what comes of it next.
    pub(super) fn handle_input(&mut self, now: Time, input: &mut &[u8]) -> Result<Option<News>, Ending> {
        let machine = self.machine.as_mut().ok_or(Ending::Closed)?;
        machine.handle_input(now, input).map_err(|_| Ending::Misbehaved)
    }
}

/// What came of asking one node.
#[derive(Debug)]
struct List {
    entries: Vec<Entry>,
    /// Bytes of them.
    len: usize,
    /// Over which it comes; none while the node is not dialled.
    conn: Option<ConnId>,
    asked_at: Time,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Asking,
    Whole,
    Failed(&'static str),
}

/// The lists of others, by node as the user named it.
#[derive(Debug, Default)]
pub(super) struct Catalogs {
    lists: BTreeMap<String, List>,
}

impl Catalogs {
    fn begin(&mut self, now: Time, of: &str) {
        self.lists.insert(
            of.to_owned(),
            List { entries: Vec::new(), len: 0, conn: None, asked_at: now, stage: Stage::Asking },
        );
        while self.lists.len() > LISTS_MAX {
            let oldest = self.lists.iter().min_by_key(|(_, list)| list.asked_at).map(|(of, _)| of.clone());
            self.lists.remove(&oldest.expect("there are some"));
        }
    }

    fn fail(&mut self, of: &str, why: &'static str) {
        if let Some(list) = self.lists.get_mut(of).filter(|list| list.stage == Stage::Asking) {
            list.stage = Stage::Failed(why);
        }
    }
}

impl<S: Storage> Engine<S> {
    /// Asks a node what it shares, unless it was asked lately; returns the name of its list.
    pub(super) fn ask_catalog(&mut self, now: Time, host: &str, port: u16) -> Result<String, Refusal> {
        let of = format!("{host}:{port}");
        if let Some(list) = self.catalogs.lists.get(&of).filter(|list| now.since(list.asked_at) < FRESH) {
            if let Stage::Failed(why) = list.stage {
                self.catalogs.lists.remove(&of);
                return Err(Refusal::new(RefusalKind::Io, format!("{of} {why}")));
            }
            return Ok(of);
        }
        match host.parse::<IpAddr>() {
            Ok(ip) => {
                self.catalogs.begin(now, &of);
                self.dial_catalog(now, of.clone(), SocketAddr::new(ip, port));
            }
            Err(_) => {
                self.look_up(now, host, Named::Catalog(of.clone()), port)?;
                self.catalogs.begin(now, &of);
            }
        }
        Ok(of)
    }

    /// The entries of a list from index `from` on, as far as the node has sent them, and whether that is all it has.
    pub(super) fn catalog_from(&self, of: &str, from: usize) -> (&[Entry], bool) {
        let list = self.catalogs.lists.get(of);
        let entries = list.and_then(|list| list.entries.get(from..)).unwrap_or_default();
        (entries, list.is_some_and(|list| list.stage == Stage::Whole))
    }

    /// The name of a node was looked up.
    pub(super) fn catalog_resolved(&mut self, now: Time, of: String, found: Option<SocketAddr>) {
        match found {
            Some(addr) => self.dial_catalog(now, of, addr),
            None => self.catalogs.fail(&of, "is not known by that name; check it, or give its address"),
        }
    }

    fn dial_catalog(&mut self, now: Time, of: String, addr: SocketAddr) {
        if self.connections.len() >= self.config.connections_max {
            return self.catalogs.fail(&of, "is not asked: there are `max_connections` connections; try again later");
        }
        let end = CatalogEnd { machine: None, of: Some(of.clone()) };
        let conn = self.keep(Connection::new(addr, Role::Catalog(Box::new(end))));
        if let Some(list) = self.catalogs.lists.get_mut(&of) {
            list.conn = Some(conn);
        }
        self.timers.set(Timer::Greeting(conn), now + CATALOG_MAX);
        self.begin_stream(conn, addr);
    }

    /// The connection to a node whose list we want stands.
    pub(super) fn begin_catalog(&mut self, now: Time, conn: ConnId) {
        let ciphered = self.begins_ciphered(false);
        if let Some(Connection { role: Role::Catalog(end), .. }) = self.connections.get_mut(conn) {
            end.machine = Some(Catalog::dialled(now, self.peer_id));
        }
        if ciphered {
            self.begin_shaking(conn, crate::protocol::catalog::hash());
        }
        self.effects.push_back(Effect::Wake(conn));
    }

    /// Somebody who connected to us wants our list.
    pub(super) fn greet_catalog(&mut self, now: Time, conn: ConnId, handshake: &Handshake) -> Result<(), Ending> {
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        if !self.config.catalog || !handshake.reserved.extension() {
            return Err(Ending::Closed);
        }
        let end = CatalogEnd { machine: None, of: None };
        let before = std::mem::replace(&mut connection.role, Role::Catalog(Box::new(end)));
        let (Role::Greeting(peer), Role::Catalog(end)) = (before, &mut connection.role) else {
            unreachable!("only a greeting connection greets");
        };
        end.machine = Some(Catalog::accepted(now, *peer, self.peer_id));
        self.timers.set(Timer::Greeting(conn), now + CATALOG_MAX);
        self.effects.push_back(Effect::Wake(conn));
        Ok(())
    }

    /// Acts on what came over a list's connection.
    pub(super) fn act_on_news(&mut self, conn: ConnId, news: News) -> Result<(), Ending> {
        let page = if let News::Wanted(page) = news { Some(self.catalog_page(page)) } else { None };
        let Some(Connection { role: Role::Catalog(end), .. }) = self.connections.get_mut(conn) else {
            return Err(Ending::Closed);
        };
        if let (Some(page), Some(machine)) = (page, &mut end.machine) {
            machine.give(&page);
        }
        let News::Found { items, is_last } = news else { return Ok(()) };
        let list = end.of.as_ref().and_then(|of| self.catalogs.lists.get_mut(of));
        // One that was asked for anew meanwhile comes over another connection.
        let list = list.filter(|list| list.conn == Some(conn)).ok_or(Ending::Closed)?;
        for entry in items {
            list.len += entry.name.len() + ENTRY_LEN;
            if list.len > LIST_LEN_MAX {
                break;
            }
            list.entries.push(entry);
        }
        if is_last || list.len > LIST_LEN_MAX {
            list.stage = Stage::Whole;
            return Err(Ending::Closed);
        }
        Ok(())
    }

    /// A page of what we share, in the order of names. What it costs does not depend on how many there are, but for passing
    /// over those before it.
    fn catalog_page(&self, page: u32) -> CatalogMessage {
        let shared = &self.shares.torrents;
        let pages = u32::try_from(shared.len().div_ceil(ITEMS_MAX)).unwrap_or(u32::MAX).min(PAGES_MAX);
        let (first, count) = if page < pages { (page as usize * ITEMS_MAX, ITEMS_MAX) } else { (0, 0) };
        let ids = shared.values().skip(first).take(count);
        let items = ids.filter_map(|id| self.torrents.get(*id)).map(Torrent::entry);
        CatalogMessage::Page { page, pages, items: items.collect() }
    }

    pub(super) fn write_catalog(
        &mut self,
        now: Time,
        conn: ConnId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Result<Progress, Ending> {
        let connection = self.connections.get_mut(conn).ok_or(Ending::Closed)?;
        loop {
            if !connection.sealed.flush(stream)? || !connection.is_open() {
                return Ok(Progress::Drained);
            }
            let Role::Catalog(end) = &mut connection.role else { return Ok(Progress::Drained) };
            let Some(machine) = end.machine.as_mut().filter(|machine| !machine.outbuf().is_empty()) else {
                return Ok(Progress::Drained);
            };
            if budget.is_spent() {
                return Ok(Progress::Spent);
            }
            let mut chunks: Vec<Chunk<'_>> = Vec::new();
            machine.outbuf().chunks(CHUNKS_MAX, budget.left().min(SEALED_MAX), &mut chunks);
            let offered: u64 = chunks.iter().map(Chunk::len).sum();
            let sent = match connection.lane.send(&mut connection.sealed, &mut self.storage, stream, &chunks) {
                Ok(sent) => sent,
                Err(SendError::Stream(error)) => return super::pump::stream_error(&error),
                Err(SendError::Content(..)) => return Err(Ending::Closed),
            };
            budget.spend(sent);
            machine.advance(now, sent);
            if std::mem::take(&mut connection.read_parked) {
                self.effects.push_back(Effect::Wake(conn));
            }
            if (sent as u64) < offered {
                return Ok(Progress::Drained);
            }
        }
    }

    /// The connection of a list is no more.
    pub(super) fn catalog_gone(&mut self, conn: ConnId, end: &CatalogEnd) {
        let is_of = |of: &&String| self.catalogs.lists.get(*of).is_some_and(|list| list.conn == Some(conn));
        if let Some(of) = end.of.as_ref().filter(is_of) {
            let why = if end.machine.is_some() {
                "gave no list; it may be no SwarmTorrent node, or share nothing"
            } else {
                "could not be reached; check the address, and whether it runs"
            };
            self.catalogs.fail(of, why);
        }
    }
}
