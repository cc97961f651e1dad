//! Background work: content is hashed in slices, a torrent after the other, so that nobody waits for a long piece.

use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;

impl<S: Storage> Engine<S> {
    /// One slice of background work (at most 256 KiB of hashing); true while more waits.
    pub fn work(&mut self, now: Time) -> bool {
        let Some(id) = self.hashing.pop_front() else { return false };
        let Some(torrent) = self.torrents.get_mut(id) else { return !self.hashing.is_empty() };
        let more = torrent.work(now, &mut self.storage, &mut self.receive);
        if more {
            self.hashing.push_back(id);
        }
        self.touched.push(id);
        self.settle(now);
        !self.hashing.is_empty()
    }
}
