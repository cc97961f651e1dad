//! Names of swarms that we do not take part in: for each a torrent that nobody sees is kept as a link until its description is here
//! (BEP 9), and then let go. It announces itself nowhere and is not saved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::base::config::Config;
use crate::base::hash::InfoHash;
use crate::base::ids::TorrentId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::codec::magnet::Magnet;
use crate::engine::Engine;
use crate::protocol::dht::SAMPLES_MAX;
use crate::torrent::command::AddOptions;
use crate::torrent::torrent::{Begin, Torrent};

/// Swarms that are looked into at once; others wait.
const ACTIVE_MAX: usize = 16;
/// Swarms that wait, or whose names are known, or could not be had; further ones are passed over, and the names are forgotten
/// beyond it.
const SWARMS_MAX: usize = 2 * SAMPLES_MAX;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A name that could not be had is asked for again after so long.
const AGAIN: Duration = Duration::from_mins(5);
/// Peers of one.
const PEERS_MAX: usize = 8;

/// What a swarm is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Title {
    pub(super) name: String,
    /// Bytes.
    pub(super) size: u64,
}

/// The swarms that are looked into.
#[derive(Debug, Default)]
pub(super) struct Peeks {
    waiting: BTreeSet<InfoHash>,
    /// Until when.
    active: BTreeMap<InfoHash, Time>,
    titles: BTreeMap<InfoHash, Title>,
    /// Those whose name could not be had, and when they may be looked into again.
    nameless: BTreeMap<InfoHash, Time>,
}

impl Peeks {
    /// What a swarm is about, as far as that is known; it is looked into if it was not before.
    pub(super) fn title(&mut self, now: Time, info_hash: InfoHash) -> Option<Title> {
        if let Some(title) = self.titles.get(&info_hash) {
            return Some(title.clone());
        }
        let may = self.nameless.get(&info_hash).is_none_or(|at| *at <= now);
        if may && !self.active.contains_key(&info_hash) && self.waiting.len() < SWARMS_MAX {
            self.waiting.insert(info_hash);
        }
        None
    }

    /// Nothing is being looked into.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// When the next one has had its time.
    pub(super) fn poll_timeout(&self) -> Time {
        self.active.values().copied().min().unwrap_or(Time::NEVER)
    }

    fn end(&mut self, now: Time, info_hash: InfoHash, title: Option<Title>) {
        self.active.remove(&info_hash);
        self.nameless.retain(|_, at| *at > now);
        if self.titles.len() + self.nameless.len() >= SWARMS_MAX {
            self.titles.clear();
            self.nameless.clear();
        }
        match title {
            Some(title) => drop(self.titles.insert(info_hash, title)),
            None => drop(self.nameless.insert(info_hash, now + AGAIN)),
        }
    }
}

impl<S: Storage> Engine<S> {
    /// Looks into swarms that wait for it; lets go of those that had their time.
    pub(super) fn act_on_peeks(&mut self, now: Time) {
        let over = self.peeks.active.iter().filter(|(_, until)| **until <= now).map(|(info_hash, _)| *info_hash);
        for info_hash in over.collect::<Vec<_>>() {
            self.end_peek(now, info_hash, None);
        }
        while self.peeks.active.len() < ACTIVE_MAX
            && let Some(info_hash) = self.peeks.waiting.pop_first()
        {
            if !self.by_hash.contains_key(&info_hash) {
                self.begin_peek(now, info_hash);
            }
        }
    }

    fn begin_peek(&mut self, now: Time, info_hash: InfoHash) {
        let link = Magnet { info_hash: Some(info_hash), ..Magnet::default() };
        let config = Config { lsd: false, pex: false, connections_per_torrent_max: PEERS_MAX, ..self.config.clone() };
        let options = AddOptions { peek: true, ..AddOptions::default() };
        let begin = Begin { dir: self.config.downloads.clone(), verify: false, added: self.unix_secs(now), options };
        let rng = self.rng.fork("torrent");
        if let Ok(torrent) = Torrent::from_link(now, link, begin, &config, rng, self.peer_id) {
            self.peeks.active.insert(info_hash, now + PATIENCE);
            self.insert_torrent(now, torrent, None, None);
        }
    }

    /// The description of a swarm that was looked into is here, or it had its time, or the user wants the torrent.
    pub(super) fn end_peek(&mut self, now: Time, info_hash: InfoHash, title: Option<Title>) {
        self.peeks.end(now, info_hash, title);
        let id = self.by_hash.get(&info_hash).copied();
        if let Some(id) = id.filter(|id| self.is_peek(*id)) {
            self.remove_torrent(now, id, false);
        }
    }

    /// A torrent of this hash is about to be added: one that is only looked into goes.
    pub(super) fn make_way(&mut self, now: Time, info_hash: InfoHash) {
        if self.by_hash.get(&info_hash).is_some_and(|id| self.is_peek(*id)) {
            self.end_peek(now, info_hash, None);
        }
    }

    /// Nobody is to see this torrent.
    pub(super) fn is_peek(&self, id: TorrentId) -> bool {
        self.torrents.get(id).is_some_and(Torrent::is_peek)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::Sha1Hash;

    #[test]
    fn a_name_that_could_not_be_had_is_asked_for_again_later() {
        let (mut peeks, hash) = (Peeks::default(), Sha1Hash::of(b"x"));
        assert_eq!(peeks.title(Time::ZERO, hash), None);
        assert_eq!(peeks.waiting.pop_first(), Some(hash));
        peeks.end(Time::ZERO, hash, None);
        assert!(peeks.title(Time::from_secs(299), hash).is_none() && peeks.is_idle());
        assert!(peeks.title(Time::from_secs(300), hash).is_none() && !peeks.is_idle());
        peeks.waiting.clear();
        let title = Title { name: "n".to_owned(), size: 1 };
        peeks.end(Time::from_secs(301), hash, Some(title.clone()));
        assert!(peeks.title(Time::from_secs(302), hash) == Some(title) && peeks.is_idle());
    }
}
