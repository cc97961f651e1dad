//! What calendars say: dates, and the ages that rules go by. Everything that waits or lasts goes by [`Time`] alone.
//!
//! The engine counts on from what it was told at its start. A driver tells it now and then what calendars say, for somebody may set
//! them (a machine without a clock of its own learns the year from the network, after we have started), and a machine may sleep.

use crate::base::ids::TorrentId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;

/// What calendars may differ by from what follows from what they said before; more is taken over. What is less nobody sees, and the
/// moments at which two clocks are read are never the same.
const STEP_NANOS: u64 = 1_000_000_000;

impl<S: Storage> Engine<S> {
    /// Calendars say `unix_nanos` since the Unix epoch now. Dates and ages are by that from now on; those that were noted stay.
    pub fn handle_calendar(&mut self, now: Time, unix_nanos: u64) {
        // A machine that believes to live in 1970, and that we started on before: nothing is older than the epoch.
        let at_zero = unix_nanos.saturating_sub(now.as_nanos());
        let by = at_zero.abs_diff(self.unix_nanos);
        if by < STEP_NANOS {
            return;
        }
        let way = if at_zero > self.unix_nanos { "ahead" } else { "back" };
        log::info!("the clock on the wall went {way} by {} s: it was set, or the machine slept", by / STEP_NANOS);
        self.unix_nanos = at_zero;
        if let Some(tracker) = &mut self.tracker {
            tracker.set_calendar(at_zero);
        }
        let ids: Vec<TorrentId> = self.torrents.ids().collect();
        for id in ids {
            let torrent = self.torrents.get_mut(id).expect("it was just listed");
            torrent.set_calendar(now, at_zero / 1_000_000_000);
            self.touched.push(id);
        }
        self.settle(now);
    }

    /// Unix time, seconds.
    pub(super) fn unix_secs(&self, now: Time) -> u64 {
        self.unix_nanos.saturating_add(now.as_nanos()) / 1_000_000_000
    }
}
