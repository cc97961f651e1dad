//! Background work: content is hashed and files are looked at in slices, a torrent after the other, so that nobody waits for a
//! long one.

use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::asks::take_stamps;
use crate::engine::loading::Loaded;

impl<S: Storage> Engine<S> {
    /// One slice of background work (at most 256 KiB of hashing, a look at 256 files, a slice of metainfo, a torrent that wakes and one that goes); true while more waits.
    pub fn work(&mut self, now: Time) -> bool {
        if let Some(id) = self.stamping.pop()
            && !self.save_record(now, id)
        {
            self.stamping.push(id);
        }
        self.save_changed(now);
        if let Some(id) = self.examining.pop() {
            if self.examine_on(now, id) {
                self.examining.push(id);
            }
            self.touched.push(id);
            self.settle(now);
        }
        if let Some(id) = self.due.pop() {
            self.touched.push(id);
            self.settle(now);
        }
        if let Some(id) = self.waking.pop() {
            self.load_soon(now, id);
            self.settle(now);
        }
        if let Some(id) = self.leaving.pop()
            && (!self.is_long(id) || self.load_to_leave(now, id) == Loaded::Now)
        {
            // A torrent whose metainfo cannot be read stays, and its error says why.
            if self.remove_with_data(now, id).is_err() {
                self.tell(id, |torrent| torrent.stays(now));
            }
            self.settle(now);
        }
        if let Some(id) = self.hashing.pop()
            && let Some(torrent) = self.torrents.get_mut(id)
        {
            let waits_for_stamps = torrent.check_progress().is_some() && !take_stamps(&mut self.storage, torrent);
            if waits_for_stamps || torrent.work(now, &mut self.storage, &mut self.receive) {
                self.hashing.push(id);
            }
            self.touched.push(id);
            self.settle(now);
        }
        if !self.loading.is_idle() {
            self.work_on_loading(now);
        }
        self.work_on_piece_files(now);
        self.work_on_paths(now);
        // Whoever waits for a torrent goes before what is only to become one.
        if self.hashing.is_empty() {
            self.work_on_shares(now);
        }
        !self.hashing.is_empty()
            || !self.due.is_empty()
            || !self.stamping.is_empty()
            || !self.durability.is_idle()
            || !self.examining.is_empty()
            || !self.waking.is_empty()
            || !self.loading.is_idle()
            || !self.piece_files.is_empty()
            || !self.leaving.is_empty()
            || !self.paths.is_idle()
            || !self.shares.is_idle()
    }
}
