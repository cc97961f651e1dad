//! Torrents of an earlier run: what their records claim, as far as the files bear it out.

use std::sync::Arc;

use crate::base::bitfield::Bitfield;
use crate::base::hash::InfoHash;
use crate::base::storage::{Content, Storage};
use crate::base::time::Time;
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::Metainfo;
use crate::codec::resume::Record;
use crate::engine::Engine;
use crate::torrent::command::{AddOptions, Refusal, RefusalKind};
use crate::torrent::torrent::{Begin, Torrent};

impl<S: Storage> Engine<S> {
    /// Takes in a torrent that was saved. Without a record that can be trusted its content is hashed again. It begins with
    /// [`Engine::handle_restored`].
    ///
    /// # Errors
    /// The metainfo is damaged, or the torrent is there already.
    pub fn restore(&mut self, now: Time, metainfo: &[u8], record: Option<&[u8]>) -> Result<InfoHash, Refusal> {
        if metainfo.starts_with(b"magnet:") {
            return self.restore_link(now, metainfo, record);
        }
        let meta = Metainfo::parse(metainfo).map_err(|error| Refusal::new(RefusalKind::Invalid, error.to_string()))?;
        let info_hash = meta.info_hash;
        if self.by_hash.contains_key(&info_hash) {
            return Err(Refusal::new(RefusalKind::Exists, format!("{info_hash} is there already")));
        }
        let whole = record.and_then(|bytes| Record::parse(bytes, &meta.geometry));
        // What an earlier run, that was ended between two saves, knew of its content may be another's; the rest holds.
        let early = || record.and_then(Record::parse_settings);
        let record =
            whole.or_else(|| early().map(|record| Record { have: Bitfield::new(meta.geometry.pieces()), ..record }));
        let record = record.filter(|record| record.info_hash == info_hash);
        if let Some(record) = record.as_ref().filter(|record| record.removing) {
            let wanted = vec![true; meta.files.len()];
            self.restore_removal(info_hash, Content { dir: record.dir.clone(), also: None, files: meta.files, wanted });
            return Ok(info_hash);
        }
        let is_early = record.as_ref().is_some_and(|record| record.stamps.len() != meta.files.len());
        let begin = self.begin_of(now, record.as_ref(), record.is_none() || is_early);
        let rng = self.rng.fork("torrent");
        let mut torrent = Torrent::new(now, Arc::new(meta), begin, &self.config, rng, self.peer_id)?;
        if let Some(record) = &record {
            torrent.restore(now, record);
        }
        let id = self.insert_torrent(now, torrent, None, None);
        if let Some(record) = record.filter(|_| !is_early) {
            let torrent = self.torrents.get_mut(id).expect("it was just inserted");
            let store = torrent.store().expect("it was just opened");
            let mut as_they_were = true;
            for file in 0..torrent.file_count() {
                let stamp = self.storage.stamp(store, file);
                torrent.note_stamp(file, stamp);
                as_they_were &= if record.clean || record.shared {
                    // Nobody has touched the file since we last wrote to it.
                    stamp.unwrap_or_default() == record.stamps.get(file).copied().unwrap_or_default()
                } else {
                    let needed = torrent.held_until(file);
                    let inode = record.stamps.get(file).map(|stamp| stamp.inode);
                    needed == 0 || stamp.is_some_and(|stamp| stamp.len >= needed && Some(stamp.inode) == inode)
                };
            }
            if record.checking {
                log::info!("{info_hash}: its check was not over; it begins anew");
                torrent.verify(now);
            } else if !as_they_were {
                log::warn!("{info_hash}: its files are not as they were left; they are hashed again");
                torrent.verify(now);
            }
        }
        self.touched.push(id);
        Ok(info_hash)
    }

    /// Takes in a torrent of which only the link was known.
    fn restore_link(&mut self, now: Time, link: &[u8], record: Option<&[u8]>) -> Result<InfoHash, Refusal> {
        let invalid = |why: &dyn std::fmt::Display| Refusal::new(RefusalKind::Invalid, why.to_string());
        let link = std::str::from_utf8(link).map_err(|error| invalid(&error))?;
        let link = Magnet::parse(link).map_err(|error| invalid(&error))?;
        let (info_hash, peers) = (link.wire_hash(), link.peers.clone());
        if self.by_hash.contains_key(&info_hash) {
            return Err(Refusal::new(RefusalKind::Exists, format!("{info_hash} is there already")));
        }
        let record = record.and_then(Record::parse_settings);
        let record = record.filter(|record| record.info_hash == info_hash);
        let begin = self.begin_of(now, record.as_ref(), self.config.verify_on_add);
        let rng = self.rng.fork("torrent");
        let mut torrent = Torrent::from_link(now, link.clone(), begin, &self.config, rng, self.peer_id)?;
        if let Some(record) = &record {
            torrent.restore(now, record);
        }
        let id = self.insert_torrent(now, torrent, None, None);
        self.dial_peers_of_link(now, id, &peers);
        self.restore_unfound(now, link, id);
        self.touched.push(id);
        Ok(info_hash)
    }

    /// How a torrent of an earlier run begins.
    fn begin_of(&self, now: Time, record: Option<&Record>, verify: bool) -> Begin {
        Begin {
            dir: record.map_or_else(|| self.config.downloads.clone(), |record| record.dir.clone()),
            verify,
            added: record.map_or_else(|| self.unix_secs(now), |record| record.added),
            options: AddOptions::default(),
        }
    }

    /// All that were there are there again: they begin, those whose turn it is.
    pub fn handle_restored(&mut self, now: Time) {
        self.resume_removals();
        self.settle(now);
    }
}
