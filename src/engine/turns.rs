//! Whose turn it is to download and to seed (`active_downloads`, `active_seeds`): the oldest first. And who may go on under
//! a rate limit.

use crate::base::ids::TorrentId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::{Effect, Engine, Timer};

impl<S: Storage> Engine<S> {
    /// Gives everybody a turn for whom there is one.
    pub(super) fn give_turns(&mut self, now: Time) {
        let (mut downloads, mut seeds) = (0, 0);
        let mut order: Vec<(u64, TorrentId)> =
            self.torrents.iter().map(|(id, torrent)| (torrent.added(), id)).collect();
        order.sort_unstable();
        for (_, id) in order {
            let torrent = self.torrents.get_mut(id).expect("it was just listed");
            let may_run = torrent.wants_to_run() && {
                let (count, max) = if torrent.is_finished() {
                    (&mut seeds, self.config.active_seeds_max)
                } else {
                    (&mut downloads, self.config.active_downloads_max)
                };
                *count += 1;
                max == 0 || *count <= max
            };
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
