//! Whose turn it is to download and to seed (`active_downloads`, `active_seeds`): the oldest first. And who may go on under
//! a rate limit.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::config::Config;
use crate::base::ids::TorrentId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::{Effect, Engine, Timer};

/// When a torrent was added, and which it is.
type Place = (u64, TorrentId);

/// Those that want to do the same. Invariant, once balanced: whoever runs is older than whoever waits, and nobody waits
/// while there is room.
#[derive(Debug, Default)]
struct Line {
    /// So many run; 0 is any number.
    max: usize,
    running: BTreeSet<Place>,
    waiting: BTreeSet<Place>,
}

impl Line {
    fn leave(&mut self, place: Place) {
        if !self.running.remove(&place) {
            self.waiting.remove(&place);
        }
    }

    /// Lets those run whose turn it is; `told` is who began and who stopped.
    fn balance(&mut self, told: &mut BTreeMap<TorrentId, bool>) {
        while let Some(&oldest) = self.waiting.first() {
            if self.max > 0 && self.running.len() >= self.max {
                let youngest = *self.running.last().expect("as many as there may be, which is not none");
                if youngest < oldest {
                    return;
                }
                self.running.remove(&youngest);
                self.waiting.insert(youngest);
                told.insert(youngest.1, false);
            }
            self.waiting.remove(&oldest);
            self.running.insert(oldest);
            told.insert(oldest.1, true);
        }
    }
}

/// Who runs and who waits. A change costs what it moves, however many torrents there are.
#[derive(Debug)]
pub(super) struct Turns {
    downloads: Line,
    seeds: Line,
    /// Those that are in a line, and in which: true is `seeds`.
    places: BTreeMap<TorrentId, (bool, Place)>,
    /// Those that may want something else than their place says.
    changed: Vec<TorrentId>,
}

impl Turns {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            downloads: Line { max: config.active_downloads_max, ..Line::default() },
            seeds: Line { max: config.active_seeds_max, ..Line::default() },
            places: BTreeMap::new(),
            changed: Vec::new(),
        }
    }

    /// A torrent may want to do something else now, or is gone.
    pub(super) fn changed(&mut self, id: TorrentId) {
        self.changed.push(id);
    }

    fn line(&mut self, seeds: bool) -> &mut Line {
        if seeds { &mut self.seeds } else { &mut self.downloads }
    }

    fn leave(&mut self, id: TorrentId) {
        if let Some((seeds, place)) = self.places.remove(&id) {
            self.line(seeds).leave(place);
        }
    }

    /// A torrent wants to be in a line, at the end of what is as old.
    fn enter(&mut self, id: TorrentId, seeds: bool, added: u64) {
        self.places.insert(id, (seeds, (added, id)));
        self.line(seeds).waiting.insert((added, id));
    }
}

impl<S: Storage> Engine<S> {
    /// Gives everybody a turn for whom there is one.
    pub(super) fn give_turns(&mut self, now: Time) {
        let mut told = BTreeMap::new();
        for id in std::mem::take(&mut self.turns.changed) {
            self.turns.leave(id);
            let Some(torrent) = self.torrents.get(id) else { continue };
            // Who asks for a few KiB takes no turn of those who ask for much more.
            told.insert(id, torrent.is_link() && torrent.wants_to_run());
            if torrent.wants_to_run() && !torrent.is_link() {
                self.turns.enter(id, torrent.only_seeds(), torrent.added());
            }
        }
        self.turns.downloads.balance(&mut told);
        self.turns.seeds.balance(&mut told);
        for (id, may_run) in told {
            let torrent = self.torrents.get_mut(id).expect("who is gone has left the lines");
            if torrent.is_queued() == may_run {
                torrent.set_queued(now, !may_run);
                self.touched.push(id);
            }
        }
    }

    /// Lets connections go on that waited for a rate limit.
    pub(super) fn wake_limited(&mut self, now: Time, which: Timer) {
        let limit = if which == Timer::Down { &mut self.down } else { &mut self.up };
        let mut woken = Vec::new();
        limit.wake(now, &mut woken);
        self.effects.extend(woken.into_iter().map(Effect::Wake));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::arena::Id;

    proptest! {
        /// Whatever the torrents want, those run that a plain model names: the oldest of each line.
        #[test]
        fn the_oldest_of_each_line_run(
            changes in proptest::collection::vec((0..8_u64, proptest::option::of(any::<bool>())), 0..60),
            maxes in (0..4_usize, 0..4_usize),
        ) {
            let config = Config { active_downloads_max: maxes.0, active_seeds_max: maxes.1, ..Config::default() };
            let mut turns = Turns::new(&config);
            let (mut wants, mut runs) = (BTreeMap::new(), BTreeMap::new());
            for (bits, want) in changes {
                let (id, added) = (Id::from_bits(bits), bits / 2);
                let mut told = BTreeMap::from([(id, false)]);
                turns.leave(id);
                wants.remove(&(added, id));
                if let Some(seeds) = want {
                    turns.enter(id, seeds, added);
                    wants.insert((added, id), seeds);
                }
                turns.downloads.balance(&mut told);
                turns.seeds.balance(&mut told);
                runs.extend(told);
                let first = |line: bool, max: usize| {
                    let all = wants.iter().filter(move |(_, seeds)| **seeds == line).map(|((_, id), _)| *id);
                    all.take(if max == 0 { usize::MAX } else { max })
                };
                let model: BTreeSet<_> = first(false, maxes.0).chain(first(true, maxes.1)).collect();
                let running: BTreeSet<_> = runs.iter().filter(|(_, runs)| **runs).map(|(id, _)| *id).collect();
                prop_assert_eq!(running, model);
            }
        }
    }
}
