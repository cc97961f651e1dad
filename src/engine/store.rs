//! The streams to the store that the tracker server shares with others: its client says what it needs, and bytes go to and fro.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};

use crate::base::ids::ConnId;
use crate::base::rate::Budget;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::connections::{Connection, Ending, Role};
use crate::engine::{Effect, Engine, Progress, Timer};
use crate::protocol::dns::Found;
use crate::protocol::redis::{LinkId, Need};
use crate::service::tracker::Tracker;

/// Bytes that are read at once.
const READ_LEN: usize = 64 * 1024;

/// Which connection is which stream of the client's.
pub(super) type StoreLinks = BTreeMap<LinkId, ConnId>;

impl<S: Storage> Engine<S> {
    /// Does what the client of the store needs, and hands on what it was told.
    pub(super) fn act_on_store(&mut self, now: Time) {
        let Some(tracker) = self.tracker.as_mut().filter(|tracker| tracker.has_store()) else { return };
        tracker.handle_store(now);
        while let Some(need) = self.tracker.as_mut().and_then(Tracker::store).and_then(|store| store.poll_need()) {
            match need {
                Need::Resolve(name) => self.resolve(now, &name),
                Need::Connect(link, to) => {
                    let conn = self.keep(Connection::new(to, Role::Store(link)));
                    self.store_links.insert(link, conn);
                    self.effects.push_back(Effect::Connect { conn, to });
                }
                Need::Close(link) => {
                    if let Some(conn) = self.store_links.remove(&link) {
                        self.forget(conn);
                        self.effects.push_back(Effect::Close(conn));
                    }
                }
                Need::Wake(link) => self.effects.extend(self.store_links.get(&link).map(|&conn| Effect::Wake(conn))),
            }
        }
        self.hand_out_answers(now);
        self.timers.set(Timer::Tracker, self.tracker.as_ref().map_or(Time::NEVER, Tracker::poll_timeout));
    }

    /// A name was looked up, which may be that of the store.
    pub(super) fn store_resolved(&mut self, now: Time, name: &str, found: &Found) {
        if let Some(store) = self.tracker.as_mut().and_then(Tracker::store) {
            store.handle_resolved(now, name, found);
            self.act_on_store(now);
        }
    }

    pub(super) fn store_connected(&mut self, now: Time, link: LinkId) {
        if let Some(store) = self.tracker.as_mut().and_then(Tracker::store) {
            store.handle_connected(now, link);
        }
        self.act_on_store(now);
    }

    pub(super) fn store_gone(&mut self, now: Time, link: LinkId) {
        self.store_links.remove(&link);
        if let Some(store) = self.tracker.as_mut().and_then(Tracker::store) {
            store.handle_closed(now, link);
        }
        self.act_on_store(now);
    }

    pub(super) fn read_store(
        &mut self,
        now: Time,
        conn: ConnId,
        link: LinkId,
        stream: &mut S::Stream,
        budget: &mut Budget,
    ) -> Result<Progress, Ending> {
        while !budget.is_spent() {
            let room = budget.left().min(READ_LEN);
            match stream.read(&mut self.receive[..room]) {
                Ok(0) => return Err(Ending::Closed),
                Ok(count) => {
                    budget.spend(count);
                    let store = self.tracker.as_mut().and_then(Tracker::store).ok_or(Ending::Closed)?;
                    store.handle_input(now, link, &self.receive[..count]);
                    self.act_on_store(now);
                    if !self.has_connection(conn) {
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

    pub(super) fn write_store(&mut self, link: LinkId, stream: &mut S::Stream) -> Result<Progress, Ending> {
        let store = self.tracker.as_mut().and_then(Tracker::store).ok_or(Ending::Closed)?;
        while !store.outgoing(link).is_empty() {
            match stream.write(store.outgoing(link)) {
                Ok(count) => store.advance(link, count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Ending::Closed),
            }
        }
        Ok(Progress::Drained)
    }
}
