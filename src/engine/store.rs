//! The store that the tracker server shares with others: what its client needs is done, and what it was told handed on. Its streams are
//! exchanges like those with trackers and name servers.

use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::exchanges::Exchange;
use crate::engine::{Engine, Timer};
use crate::protocol::dns::Found;
use crate::protocol::redis::{Need, Redis};
use crate::service::tracker::Tracker;

impl<S: Storage> Engine<S> {
    /// Does what the client of the store needs, and hands on what it was told.
    pub(super) fn act_on_store(&mut self, now: Time) {
        let Some(tracker) = self.tracker.as_mut().filter(|tracker| tracker.has_store()) else { return };
        tracker.handle_store(now);
        while let Some(need) = self.tracker.as_mut().and_then(Tracker::store).and_then(|store| store.poll_need()) {
            match need {
                Need::Resolve(name) => self.resolve(now, &name),
                Need::Connect(link, to) => self.open_stream(Exchange::Store(link), to),
                Need::Close(link) => self.close_stream(Exchange::Store(link)),
                Need::Wake(link) => self.wake_stream(Exchange::Store(link)),
            }
        }
        self.hand_out_answers(now);
        self.timers.set(Timer::Tracker, self.tracker.as_ref().map_or(Time::NEVER, Tracker::poll_timeout));
    }

    /// A name was looked up, which may be that of the store.
    pub(super) fn store_resolved(&mut self, now: Time, name: &str, found: &Found) {
        self.store(|store| store.handle_resolved(now, name, found));
        self.act_on_store(now);
    }

    /// Lets the client of the store, if there is one, know of something.
    pub(super) fn store(&mut self, tell: impl FnOnce(&mut Redis)) {
        if let Some(store) = self.tracker.as_mut().and_then(Tracker::store) {
            tell(store);
        }
    }
}
