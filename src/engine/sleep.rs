//! Torrents that sleep, and who wakes them. What happens to them is decided in `torrent/sleep`.

use std::sync::Arc;

use crate::base::ids::{StoreId, TorrentId};
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::codec::metainfo::Metainfo;
use crate::engine::Engine;
use crate::engine::asks::{look, metainfo_name};
use crate::torrent::command::{Refusal, RefusalKind, Which};
use crate::torrent::torrent::Torrent;

impl<S: Storage> Engine<S> {
    /// The torrent, awake: its description is here and its content is open.
    ///
    /// # Errors
    /// Its description cannot be read.
    pub(super) fn awake(&mut self, now: Time, id: TorrentId) -> Result<&mut Torrent, Refusal> {
        self.wake_up(now, id);
        let torrent = self.torrents.get_mut(id).expect("who is woken is there");
        match torrent.lost() {
            Some(why) if torrent.is_asleep() => Err(Refusal::new(RefusalKind::Io, why)),
            _ => Ok(torrent),
        }
    }

    /// The one torrent that is meant, awake.
    ///
    /// # Errors
    /// None is meant, or more than one, or its description cannot be read.
    pub(super) fn one_awake(&mut self, now: Time, which: &Which) -> Result<&mut Torrent, Refusal> {
        let id = self.one_id(which)?;
        self.awake(now, id)
    }

    /// Wakes a torrent, if it sleeps and its description can be read, and looks at its files.
    pub(super) fn wake_up(&mut self, now: Time, id: TorrentId) {
        if let Some(store) = self.open_eyes(now, id) {
            self.examine_claim(now, id, store);
            self.torrents.get_mut(id).expect("it was just woken").handle_opened(now, store);
        }
    }

    /// Has a torrent that sleeps know its files again, and no more; none if it does not sleep, or its description cannot be read.
    pub(super) fn open_eyes(&mut self, now: Time, id: TorrentId) -> Option<StoreId> {
        let torrent = self.torrents.get_mut(id).filter(|torrent| torrent.is_asleep())?;
        self.touched.push(id);
        let name = metainfo_name(torrent.info_hash());
        let Some(bytes) = self.storage.saved(&name) else {
            let why = format!("its description, {} in the state directory, cannot be read", name.display());
            torrent.lose_description(now, &why);
            return None;
        };
        let meta = match Metainfo::parse(&bytes) {
            Ok(meta) if torrent.is_described_by(&meta) => meta,
            _ => {
                let why = format!("its description, {} in the state directory, is damaged", name.display());
                torrent.lose_description(now, &why);
                return None;
            }
        };
        torrent.wake_up(now, Arc::new(meta));
        Some(self.storage.open(torrent.content()))
    }

    /// Looks whether a torrent's files bear out what was claimed of them; if not they are hashed again.
    pub(super) fn examine_claim(&mut self, now: Time, id: TorrentId, store: StoreId) {
        let torrent = self.torrents.get_mut(id).expect("its examiner found it");
        let Some(claim) = torrent.take_claim() else { return };
        let before = torrent.stamps();
        let mut as_they_were = true;
        for file in 0..torrent.file_count() {
            let stamp = self.storage.stamp(store, file);
            let was = before.get(file).copied().unwrap_or_default();
            torrent.note_stamp(file, stamp);
            as_they_were &= if claim.exact {
                // Nobody has touched the file since we last wrote to it.
                stamp.unwrap_or_default() == was
            } else {
                let needed = torrent.held_until(file);
                needed == 0 || stamp.is_some_and(|stamp| stamp.len >= needed && stamp.inode == was.inode)
            };
        }
        if !as_they_were {
            log::warn!("{}: its files are not as they were left; they are hashed again", torrent.info_hash());
            torrent.verify(now);
        }
    }

    /// A torrent wants to sleep: it may if it will wake again. If not it asks again later.
    pub(super) fn lay_down(&mut self, now: Time, id: TorrentId) {
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        let Some(store) = torrent.store().filter(|_| torrent.may_sleep()) else { return };
        let bytes = self.storage.saved(&metainfo_name(torrent.info_hash()));
        let meta = bytes.and_then(|bytes| Metainfo::parse(&bytes).ok());
        if meta.is_some_and(|meta| torrent.is_described_by(&meta)) {
            self.storage.close(store);
            torrent.fall_asleep(now);
        }
    }

    /// Looks whether a torrent's files are still there. One that sleeps is woken if they are not, or were not looked at in this run, and
    /// looked at more closely.
    pub(super) fn look(&mut self, now: Time, id: TorrentId) {
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        if torrent.is_asleep() {
            let is_there = torrent.have.count() == 0 || self.storage.exists(&torrent.top());
            if is_there && !torrent.is_due_for_a_look() {
                return;
            }
            self.wake_up(now, id);
        }
        let torrent = self.torrents.get_mut(id).expect("it was just there");
        let Some(store) = torrent.store() else { return };
        let files = torrent.next_look(now);
        let result = look(&mut self.storage, torrent, store, files);
        torrent.handle_looked(now, result);
    }
}
