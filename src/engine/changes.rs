//! Which torrents have changed since somebody last looked: a number for every change, counted up, never used twice in a run.

use std::collections::{BTreeMap, VecDeque};

use crate::base::hash::InfoHash;
use crate::base::ids::TorrentId;
use crate::base::steps;
use crate::base::storage::Storage;
use crate::engine::Engine;
use crate::torrent::listing::{ChangesEnd, Listing, Torrents};

/// Torrents that went, which are remembered; who looked before one that is forgotten is told everything.
const GONE_MAX: usize = 4096;

/// The last change of each torrent.
#[derive(Debug)]
pub(super) struct Changes {
    /// The number of the last change of all.
    last: u64,
    /// Who looked at this number or before is told everything.
    whole_below: u64,
    by_number: BTreeMap<u64, TorrentId>,
    of: BTreeMap<TorrentId, u64>,
    gone: VecDeque<(u64, InfoHash)>,
}

impl Changes {
    /// Numbers of an earlier run mean nothing in this one: they begin with its milliseconds since the Unix epoch, and there are fewer
    /// changes than milliseconds.
    pub(super) fn new(unix_nanos: u64) -> Self {
        let first = unix_nanos / 1_000_000;
        Self { last: first, whole_below: first, by_number: BTreeMap::new(), of: BTreeMap::new(), gone: VecDeque::new() }
    }

    /// A torrent may have changed.
    pub(super) fn changed(&mut self, id: TorrentId) {
        self.last += 1;
        if let Some(before) = self.of.insert(id, self.last) {
            self.by_number.remove(&before);
        }
        self.by_number.insert(self.last, id);
    }

    /// A torrent has gone.
    pub(super) fn removed(&mut self, id: TorrentId, info_hash: InfoHash) {
        self.last += 1;
        if let Some(before) = self.of.remove(&id) {
            self.by_number.remove(&before);
        }
        if self.gone.len() == GONE_MAX
            && let Some((number, _)) = self.gone.pop_front()
        {
            self.whole_below = number;
        }
        self.gone.push_back((self.last, info_hash));
    }

    /// Those that changed after `since`, and those that went; none if that is not known any more.
    fn since(&self, since: u64) -> Option<(Vec<TorrentId>, Vec<InfoHash>)> {
        if since < self.whole_below || since > self.last {
            return None;
        }
        let changed = self.by_number.range(since + 1..).map(|(_, id)| *id).collect();
        let gone = self.gone.iter().rev().take_while(|(number, _)| *number > since).map(|(_, hash)| *hash).collect();
        Some((changed, gone))
    }
}

impl<S: Storage> Engine<S> {
    /// What has changed since a number that an earlier answer gave; everything if it gave none, or too long ago.
    pub(super) fn changes(&self, since: u64) -> Listing {
        let known = self.changes.since(since);
        let is_whole = known.is_none();
        let (only, gone) = known.unzip();
        let mut places = self.places();
        if let Some(only) = &only {
            steps::add(only.len());
            if only.len() <= 1 {
                // The queue is walked as far as that torrent only.
                places.is_open = false;
            }
        }
        let end = ChangesEnd { gone: gone.unwrap_or_default(), since: self.changes.last, is_whole };
        Listing::Torrents(Box::new(Torrents {
            states: Vec::new(),
            label: None,
            slots: self.slots(),
            only,
            next: 0,
            picked: None,
            end: Some(end),
            next_gone: 0,
            places,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;

    fn id(number: u64) -> TorrentId {
        Id::from_bits(number)
    }

    #[test]
    fn who_looks_again_is_told_of_each_change_once() {
        let mut changes = Changes::new(1_700_000_000_000_000_000);
        let start = changes.last;
        assert_eq!(changes.since(0), None, "everything");
        changes.changed(id(1));
        changes.changed(id(2));
        changes.changed(id(1));
        assert_eq!(changes.since(start), Some((vec![id(2), id(1)], vec![])));
        let seen = changes.last;
        assert_eq!(changes.since(seen), Some((vec![], vec![])));
        changes.removed(id(2), InfoHash::of(b"2"));
        assert_eq!(changes.since(start), Some((vec![id(1)], vec![InfoHash::of(b"2")])));
        assert_eq!(changes.since(seen), Some((vec![], vec![InfoHash::of(b"2")])));
        assert_eq!(changes.since(changes.last + 1), None, "that is of another run");
        for number in 0..=GONE_MAX as u64 {
            changes.changed(id(10 + number));
            changes.removed(id(10 + number), InfoHash::of(b"x"));
        }
        assert_eq!(changes.since(seen), None, "not everything is remembered that went");
        assert_eq!(changes.since(changes.last), Some((vec![], vec![])));
    }
}
