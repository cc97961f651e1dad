//! Whose turn it is to download and to seed (`active_downloads`, `active_seeds`): the first of the queue. And who may go on under
//! a rate limit.
//!
//! Every torrent has a rank in one queue, which the user may change. Of those that want to run, from the front on, as many do as may;
//! who has a turn and hardly moves (`torrent/pace.rs`) takes none of anybody, as long as there are few of those.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::base::config::Config;
use crate::base::ids::TorrentId;
use crate::base::rules::Defaults;
use crate::base::steps;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::{Effect, Engine, Timer};
use crate::torrent::settings::Spot;

/// Slow torrents of a line that run beside those that are counted; more of them are counted.
const BESIDE_MAX: usize = 16;

/// Between the ranks of two neighbours: forty can be put between them one after another before all get new ranks, which is to save
/// every torrent once.
const RANK_STEP: i64 = 1 << 40;

/// A torrent's rank in the queue, and which it is.
type Place = (i64, TorrentId);

/// Those that want to do the same. Invariant, once balanced: whoever runs is before whoever waits, no more run than may, and nobody
/// waits while there is room.
#[derive(Debug, Default)]
struct Line {
    /// So many run; 0 is any number.
    max: usize,
    running: BTreeSet<Place>,
    waiting: BTreeSet<Place>,
    /// Those that hardly move; whoever waits is none of them once all is balanced.
    slow: BTreeSet<Place>,
    /// How many of them run.
    slow_running: usize,
    /// Those that came here slow since all was balanced.
    came_slow: Vec<Place>,
}

impl Line {
    fn enter(&mut self, place: Place, slow: bool) {
        self.waiting.insert(place);
        if slow {
            self.slow.insert(place);
            self.came_slow.push(place);
        }
    }

    fn leave(&mut self, place: Place) {
        let slow = self.slow.remove(&place);
        if self.running.remove(&place) {
            self.slow_running -= usize::from(slow);
        } else {
            self.waiting.remove(&place);
        }
    }

    /// So many of those that run are counted.
    fn counted(&self) -> usize {
        self.running.len() - self.slow_running.min(BESIDE_MAX)
    }

    fn start_first(&mut self, told: &mut BTreeMap<TorrentId, bool>) {
        let Some(place) = self.waiting.pop_first() else { return };
        self.slow_running += usize::from(self.slow.contains(&place));
        self.running.insert(place);
        told.insert(place.1, true);
    }

    /// Who stops has its time anew when it runs again.
    fn stop_last(&mut self, told: &mut BTreeMap<TorrentId, bool>) {
        let Some(place) = self.running.pop_last() else { return };
        self.slow_running -= usize::from(self.slow.remove(&place));
        self.waiting.insert(place);
        told.insert(place.1, false);
    }

    /// Lets those run whose turn it is; `told` is who began and who stopped.
    fn balance(&mut self, told: &mut BTreeMap<TorrentId, bool>) {
        while let (Some(first), Some(last)) = (self.waiting.first(), self.running.last())
            && first < last
        {
            self.start_first(told);
        }
        while self.max > 0 && self.counted() > self.max {
            self.stop_last(told);
        }
        while let Some(first) = self.waiting.first()
            && (self.max == 0
                || self.counted() < self.max
                || self.slow.contains(first) && self.slow_running < BESIDE_MAX)
        {
            self.start_first(told);
        }
        for place in std::mem::take(&mut self.came_slow) {
            if self.waiting.contains(&place) {
                self.slow.remove(&place);
            }
        }
    }
}

/// Who runs and who waits. A change costs what it moves, however many torrents there are.
#[derive(Debug)]
pub(super) struct Turns {
    downloads: Line,
    seeds: Line,
    /// The queue.
    order: BTreeSet<Place>,
    ranks: BTreeMap<TorrentId, i64>,
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
            order: BTreeSet::new(),
            ranks: BTreeMap::new(),
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

    /// A torrent that has a rank wants to be in a line.
    fn enter(&mut self, id: TorrentId, seeds: bool, slow: bool) {
        let Some(&rank) = self.ranks.get(&id) else { return };
        self.places.insert(id, (seeds, (rank, id)));
        self.line(seeds).enter((rank, id), slow);
    }

    /// A torrent takes the rank that it had in an earlier run.
    pub(super) fn take_rank(&mut self, id: TorrentId, rank: i64) {
        if let Some(before) = self.ranks.insert(id, rank) {
            self.order.remove(&(before, id));
        }
        self.order.insert((rank, id));
    }

    /// A torrent is gone.
    pub(super) fn forget(&mut self, id: TorrentId) {
        if let Some(rank) = self.ranks.remove(&id) {
            self.order.remove(&(rank, id));
        }
        self.changed(id);
    }

    /// A torrent is put somewhere into the queue; whose ranks are others now. Walks the queue as far as that place.
    pub(super) fn put(&mut self, id: TorrentId, spot: Spot) -> Vec<(TorrentId, i64)> {
        if let Some(rank) = self.ranks.remove(&id) {
            self.order.remove(&(rank, id));
        }
        let (before, after) = match spot {
            Spot::Top => (None, self.order.first()),
            Spot::Bottom => (self.order.last(), None),
            // The first place is 1.
            Spot::At(1 | 0) => (None, self.order.first()),
            Spot::At(number) => {
                let mut rest = self.order.iter().skip(number - 2);
                (rest.next().or(self.order.last()), rest.next())
            }
        };
        let (before, after) = (before.map(|place| place.0), after.map(|place| place.0));
        let rank = match (before, after) {
            (None, None) => Some(0),
            (Some(before), None) => before.checked_add(RANK_STEP),
            (None, Some(after)) => after.checked_sub(RANK_STEP),
            (Some(before), Some(after)) => Some(before.midpoint(after)).filter(|rank| *rank > before && *rank < after),
        };
        if let Some(rank) = rank {
            self.take_rank(id, rank);
            return vec![(id, rank)];
        }
        let mut ids: Vec<TorrentId> = self.order.iter().map(|(_, id)| *id).collect();
        let at = before.map_or(0, |before| self.order.range(..=(before, TorrentId::from_bits(u64::MAX))).count());
        ids.insert(at, id);
        self.order.clear();
        let ranks: Vec<(TorrentId, i64)> =
            ids.into_iter().zip(std::iter::successors(Some(0), |rank| Some(rank + RANK_STEP))).collect();
        ranks.iter().for_each(|(id, rank)| self.take_rank(*id, *rank));
        ranks
    }

    /// The places of the queue after one of them, in order.
    pub(super) fn places_after(&self, after: Bound<Place>) -> impl Iterator<Item = Place> {
        self.order.range((after, Bound::Unbounded)).copied()
    }

    /// A torrent's place in the queue, from 1. Walks the queue as far as that.
    pub(super) fn position(&self, id: TorrentId) -> Option<usize> {
        let rank = *self.ranks.get(&id)?;
        let position = self.order.range(..=(rank, id)).count();
        steps::add(position);
        Some(position)
    }

    /// How many wait before a torrent for a turn of its kind, and how many of that kind may run; none if it is in no line.
    pub(super) fn waits_behind(&self, id: TorrentId) -> Option<(usize, usize)> {
        let (seeds, place) = self.places.get(&id)?;
        let line = if *seeds { &self.seeds } else { &self.downloads };
        let before = line.waiting.range(..place).count();
        steps::add(before);
        Some((before, line.max))
    }
}

impl<S: Storage> Engine<S> {
    /// Gives everybody a turn for whom there is one.
    pub(super) fn give_turns(&mut self, now: Time) {
        if self.exiting {
            return;
        }
        let mut told = BTreeMap::new();
        for id in std::mem::take(&mut self.turns.changed) {
            self.turns.leave(id);
            let Some(torrent) = self.torrents.get(id) else { continue };
            // Who asks for a few KiB takes no turn of those who ask for much more.
            told.insert(id, torrent.is_link() && torrent.wants_to_run());
            if torrent.wants_to_run() && !torrent.is_link() {
                self.turns.enter(id, torrent.only_seeds(), torrent.is_slow());
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

    /// These limits of the whole node hold instead of the usual ones, or those hold again; bytes a second, down and up.
    pub fn set_alternative(&mut self, now: Time, alternative: Option<(u64, u64)>) {
        self.alternative = alternative;
        self.apply_limits(now);
        self.settle(now);
    }

    /// Other limits hold than the usual ones.
    #[must_use]
    pub fn is_alternative(&self) -> bool {
        self.alternative.is_some()
    }

    /// Has the limits hold that should.
    pub(super) fn apply_limits(&mut self, now: Time) {
        let (down, up) = self.alternative.unwrap_or(self.usual);
        if self.down.rate_bytes() != down {
            self.down.set_rate(now, down);
        }
        if self.up.rate_bytes() != up {
            self.up.set_rate(now, up);
        }
    }

    /// So many torrents may download and seed at once from now on; 0 is any number.
    pub fn set_turns(&mut self, now: Time, downloads: usize, seeds: usize) {
        (self.turns.downloads.max, self.turns.seeds.max) = (downloads, seeds);
        self.settle(now);
    }

    /// Other rules and values hold from now on for torrents whose user has said nothing.
    pub fn set_defaults(&mut self, now: Time, defaults: Defaults) {
        let defaults = Arc::new(defaults);
        self.config.defaults = Arc::clone(&defaults);
        let ids: Vec<TorrentId> = self.torrents.ids().collect();
        for id in ids {
            let torrent = self.torrents.get_mut(id).expect("it was just listed");
            torrent.set_defaults(now, Arc::clone(&defaults));
            self.touched.push(id);
        }
        self.settle(now);
    }

    /// A torrent gets another place in the queue.
    pub(super) fn put_in_queue(&mut self, now: Time, id: TorrentId, spot: Spot) {
        let ranks = self.turns.put(id, spot);
        self.take_ranks(now, ranks);
    }

    /// Torrents have other ranks now.
    pub(super) fn take_ranks(&mut self, now: Time, ranks: Vec<(TorrentId, i64)>) {
        for (id, rank) in ranks {
            if let Some(torrent) = self.torrents.get_mut(id) {
                torrent.set_rank(now, rank);
                self.turns.changed(id);
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

    fn id(bits: u64) -> TorrentId {
        Id::from_bits(bits)
    }

    fn ids(turns: &Turns) -> Vec<u64> {
        turns.order.iter().map(|(_, id)| id.to_bits()).collect()
    }

    #[test]
    fn a_place_in_the_queue_is_where_it_was_asked_for() {
        let mut turns = Turns::new(&Config::default());
        for bits in 1..=5 {
            turns.put(id(bits), Spot::Bottom);
        }
        turns.put(id(5), Spot::Top);
        assert_eq!(ids(&turns), [5, 1, 2, 3, 4]);
        turns.put(id(5), Spot::At(3));
        assert_eq!(ids(&turns), [1, 2, 5, 3, 4]);
        turns.put(id(1), Spot::At(5));
        assert_eq!(ids(&turns), [2, 5, 3, 4, 1]);
        turns.put(id(1), Spot::At(1));
        turns.put(id(2), Spot::At(99));
        assert_eq!(ids(&turns), [1, 5, 3, 4, 2]);
        assert_eq!((turns.position(id(3)), turns.position(id(9))), (Some(3), None));
        turns.forget(id(5));
        assert_eq!(turns.position(id(3)), Some(2));
    }

    #[test]
    fn however_often_two_are_parted_there_is_a_rank_between_them() {
        let mut turns = Turns::new(&Config::default());
        turns.put(id(0), Spot::Bottom);
        turns.put(id(1), Spot::Bottom);
        let mut renewed = 0;
        for bits in 2..200 {
            renewed += usize::from(turns.put(id(bits), Spot::At(2)).len() > 1);
            assert_eq!(turns.position(id(bits)), Some(2));
        }
        assert_eq!(ids(&turns), [0].into_iter().chain((2..200).rev()).chain([1]).collect::<Vec<_>>());
        assert!((1..10).contains(&renewed), "{renewed}");
    }

    proptest! {
        /// Whatever the torrents want, those run that a plain model names: from the front of the queue on as many as may, not
        /// counting so many of the slow ones.
        #[test]
        fn the_first_of_each_line_run(
            changes in proptest::collection::vec((0..40_u64, proptest::option::of(any::<(bool, bool)>()), 0..99_usize), 0..90),
            maxes in (0..4_usize, 0..4_usize),
        ) {
            let config = Config { active_downloads_max: maxes.0, active_seeds_max: maxes.1, ..Config::default() };
            let mut turns = Turns::new(&config);
            let (mut wants, mut runs) = (BTreeMap::<TorrentId, (bool, bool)>::new(), BTreeMap::new());
            for (bits, want, at) in changes {
                let id = id(bits);
                let mut told = BTreeMap::from([(id, false)]);
                turns.leave(id);
                wants.remove(&id);
                // A place is new for some of them, as when the user moves one.
                if !turns.ranks.contains_key(&id) || at < 40 {
                    turns.put(id, Spot::At(at));
                }
                if let Some((seeds, slow)) = want {
                    let slow = slow && runs.get(&id) == Some(&true);
                    turns.enter(id, seeds, slow);
                    wants.insert(id, (seeds, slow));
                }
                turns.downloads.balance(&mut told);
                turns.seeds.balance(&mut told);
                runs.extend(told);
                let mut model = BTreeSet::new();
                for (line, max) in [(false, maxes.0), (true, maxes.1)] {
                    let (mut counted, mut beside) = (0, 0);
                    for (_, id) in &turns.order {
                        let Some(&(_, slow)) = wants.get(id).filter(|(seeds, _)| *seeds == line) else { continue };
                        let is_beside = slow && beside < BESIDE_MAX;
                        if max > 0 && counted >= max && !is_beside {
                            break;
                        }
                        model.insert(*id);
                        beside += usize::from(is_beside);
                        counted += usize::from(!is_beside);
                    }
                }
                let running: BTreeSet<_> = runs.iter().filter(|(_, runs)| **runs).map(|(id, _)| *id).collect();
                prop_assert_eq!(&running, &model);
                // Whoever stops is not slow when it begins again.
                wants.iter_mut().filter(|(id, _)| !running.contains(id)).for_each(|(_, want)| want.1 = false);
            }
        }
    }
}
