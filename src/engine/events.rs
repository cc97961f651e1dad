//! What happens to torrents, told to whoever watches. Nothing is gathered while nobody does.

use std::collections::{BTreeMap, VecDeque};

use crate::base::ids::TorrentId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::torrent::event::{Event, What};
use crate::torrent::snapshot::State;

/// Events that wait to be fetched; more are left out, and counted.
const EVENTS_MAX: usize = 4096;

/// What was last told of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    state: State,
    is_link: bool,
    error: Option<String>,
}

/// Events on their way.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Somebody watches.
    watched: bool,
    queue: VecDeque<Event>,
    lost: u64,
    seen: BTreeMap<TorrentId, Seen>,
}

impl Events {
    fn push(&mut self, event: Event) {
        if self.queue.len() < EVENTS_MAX {
            self.queue.push_back(event);
        } else {
            self.lost += 1;
        }
    }
}

impl<S: Storage> Engine<S> {
    /// Somebody watches from now on, or nobody does.
    pub fn watch(&mut self, watched: bool) {
        if watched == self.events.watched {
            return;
        }
        self.events = Events { watched, ..Events::default() };
        if watched {
            let ids: Vec<TorrentId> = self.torrents.ids().collect();
            self.events.seen = ids.into_iter().filter_map(|id| Some((id, self.seen(id)?))).collect();
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self, now: Time) -> Option<Event> {
        self.events.queue.pop_front().or_else(|| {
            let lost = std::mem::take(&mut self.events.lost);
            let at = self.unix_secs(now);
            (lost > 0).then(|| Event { at, info_hash: None, name: String::new(), what: What::Lost(lost) })
        })
    }

    /// True if [`Engine::poll_event`] has something.
    pub(super) fn has_events(&self) -> bool {
        !self.events.queue.is_empty() || self.events.lost > 0
    }

    fn seen(&self, id: TorrentId) -> Option<Seen> {
        let torrent = self.torrents.get(id).filter(|torrent| !torrent.is_peek())?;
        Some(Seen { state: torrent.state(), is_link: torrent.is_link(), error: torrent.error() })
    }

    fn tell_event(&mut self, now: Time, id: TorrentId, what: What) {
        let Some(torrent) = self.torrents.get(id).filter(|torrent| !torrent.is_peek()) else { return };
        let (info_hash, name) = (Some(torrent.info_hash()), torrent.name().to_owned());
        let at = self.unix_secs(now);
        self.events.push(Event { at, info_hash, name, what });
    }

    /// Something may have happened to a torrent: what is new is told.
    pub(super) fn tell_news(&mut self, now: Time, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(id) else { return };
        let news = torrent.take_news();
        if !self.events.watched {
            return;
        }
        let Some(seen) = self.seen(id) else { return };
        let before = self.events.seen.insert(id, seen.clone());
        let is_new = before.is_none();
        if is_new {
            self.tell_event(now, id, What::Added);
        }
        let (finished, news): (Vec<_>, Vec<_>) = news.into_iter().partition(|what| *what == What::Finished);
        news.into_iter().for_each(|what| self.tell_event(now, id, what));
        if before.as_ref().is_some_and(|before| before.is_link) && !seen.is_link {
            self.tell_event(now, id, What::Metadata);
        }
        if before.as_ref().is_none_or(|before| before.state != seen.state) {
            self.tell_event(now, id, What::State(seen.state));
        }
        finished.into_iter().for_each(|what| self.tell_event(now, id, what));
        match seen.error {
            Some(error) if before.is_none_or(|before| before.error.as_ref() != Some(&error)) => {
                self.tell_event(now, id, What::Error(error));
            }
            _ => {}
        }
    }

    /// A torrent goes.
    pub(super) fn tell_removed(&mut self, now: Time, id: TorrentId) {
        if self.events.watched {
            self.tell_event(now, id, What::Removed);
            self.events.seen.remove(&id);
        }
    }
}
