//! Torrents of an earlier run: what their records claim, as far as the files bear it out.

use std::sync::Arc;
use std::time::Duration;

use crate::base::bitfield::Bitfield;
use crate::base::hash::InfoHash;
use crate::base::ids::TorrentId;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::Metainfo;
use crate::codec::resume::{Head, Record};
use crate::engine::Engine;
use crate::engine::asks::{self, metainfo_name};
use crate::torrent::command::{AddOptions, Refusal, RefusalKind};
use crate::torrent::settings::Spot;
use crate::torrent::sleep::SLEEP_FILES_MAX;
use crate::torrent::torrent::{Begin, Torrent};

/// Seeds that announce themselves as soon as the node has started.
const ANNOUNCE_AT_ONCE: u32 = 64;
/// How long after one another the others do: ten thousand within ten minutes.
const ANNOUNCE_STEP: Duration = Duration::from_millis(60);

impl<S: Storage> Engine<S> {
    /// Takes in a torrent that was saved: asleep, if its record can be trusted that far; otherwise its metainfo is read. Without a record
    /// its content is hashed again. It begins with [`Engine::handle_restored`].
    ///
    /// # Errors
    /// The metainfo is missing or damaged, or the torrent is there already.
    pub fn restore(&mut self, now: Time, info_hash: InfoHash, record: Option<&[u8]>) -> Result<(), Refusal> {
        if self.by_hash.contains_key(&info_hash) {
            return Err(Refusal::new(RefusalKind::Exists, format!("{info_hash} is there already")));
        }
        let record = record.and_then(Record::parse).filter(|record| record.info_hash == info_hash);
        if let Some(record) = record.as_ref().filter(|record| record.removing) {
            match self.storage.saved(&metainfo_name(info_hash)).map(|bytes| Metainfo::parse(&bytes)) {
                Some(Ok(meta)) => self.restore_removal(info_hash, &meta, record),
                _ => {
                    self.forget_saved(info_hash);
                }
            }
            return Ok(());
        }
        if let Some(record) = &record
            && let Some(head) = record.head.clone().filter(|head| sleeps(head, record))
        {
            let begin = self.begin_of(now, Some(record), false);
            let rng = self.rng.fork("torrent");
            let torrent = Torrent::asleep(now, record, head, begin, &self.config, rng, self.peer_id);
            let id = self.insert_torrent(now, torrent, None, None);
            self.touched.push(id);
            return Ok(());
        }
        let missing = || Refusal::new(RefusalKind::Io, format!("{info_hash}: its description cannot be read"));
        let metainfo = self.storage.saved(&metainfo_name(info_hash)).ok_or_else(missing)?;
        if metainfo.starts_with(b"magnet:") {
            return self.restore_link(now, &metainfo, record);
        }
        let invalid = |why: &dyn std::fmt::Display| Refusal::new(RefusalKind::Invalid, format!("{info_hash}: {why}"));
        let meta = Metainfo::parse(&metainfo).map_err(|error| invalid(&error))?;
        if meta.info_hash != info_hash {
            return Err(invalid(&"the description in its file is another's"));
        }
        // What an earlier run, that was ended between two saves, knew of its content may be another's; the rest holds.
        let is_whole =
            |record: &Record| record.head.as_ref() == Some(&Head::of(&meta)) && record.stamps.len() == meta.files.len();
        let is_early = record.as_ref().is_some_and(|record| !is_whole(record));
        let record = record.map(|record| match is_early {
            true => Record { have: Bitfield::new(meta.geometry.pieces()), partials: Vec::new(), ..record },
            false => record,
        });
        let begin = self.begin_of(now, record.as_ref(), record.is_none() || is_early);
        let rng = self.rng.fork("torrent");
        let mut torrent = Torrent::new(now, Arc::new(meta), begin, &self.config, rng, self.peer_id)?;
        if let Some(record) = &record {
            torrent.restore(now, record);
            if !is_early {
                torrent.believe(record);
            }
        }
        let store = asks::open_content(&mut self.storage, &torrent);
        let id = self.insert_torrent(now, torrent, None, Some(store));
        if let Some(torrent) = self.torrents.get_mut(id).filter(|torrent| torrent.next_rename().is_some()) {
            asks::rename(&mut self.storage, now, torrent);
        }
        self.examine_claim(now, id, store);
        if record.is_some_and(|record| record.checking && !is_early) {
            log::info!("{info_hash}: its check was not over; it begins anew");
            self.torrents.get_mut(id).expect("it was just inserted").recheck(now);
        }
        self.touched.push(id);
        Ok(())
    }

    /// There is a record of a torrent and nothing that describes it: it was being taken out, where that is the first to go, or somebody
    /// has taken that away, who may put it back.
    pub fn restore_nameless(&mut self, info_hash: InfoHash, record: &[u8]) {
        let is_going = Record::parse(record).is_none_or(|record| record.removing);
        if is_going {
            self.forget_saved(info_hash);
        } else {
            log::warn!(
                "{info_hash} is left out: what describes it is not in the state directory any more, or was never saved"
            );
        }
    }

    /// Takes in a torrent of which only the link was known.
    fn restore_link(&mut self, now: Time, link: &[u8], record: Option<Record>) -> Result<(), Refusal> {
        let invalid = |why: &dyn std::fmt::Display| Refusal::new(RefusalKind::Invalid, why.to_string());
        let link = std::str::from_utf8(link).map_err(|error| invalid(&error))?;
        let link = Magnet::parse(link).map_err(|error| invalid(&error))?;
        let peers = link.peers.clone();
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
        Ok(())
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
        // Whoever wants something announces itself at once, those that only give one after the other.
        let seeds = self.torrents.values_mut().filter(|torrent| torrent.is_finished());
        for (number, torrent) in (0..).zip(seeds) {
            torrent.announce_at(now + ANNOUNCE_STEP * u32::saturating_sub(number, ANNOUNCE_AT_ONCE));
        }
        // Versions that knew of no queue let the oldest run first.
        let unranked = self.torrents.ids().filter_map(|id| {
            let torrent = self.torrents.get(id).filter(|torrent| torrent.rank().is_none())?;
            Some((torrent.added(), torrent.info_hash(), id))
        });
        let mut unranked: Vec<_> = unranked.collect();
        unranked.sort_unstable();
        for (_, _, id) in unranked {
            self.put_in_queue(now, id, Spot::Bottom);
        }
        self.restore_owners(now);
        self.resume_removals(now);
        let removed = self.torrents.ids().filter_map(|id| Some((id, self.torrents.get(id)?.removal()?)));
        let removed: Vec<(TorrentId, bool)> = removed.collect();
        for (id, data) in removed {
            match self.torrents.get(id) {
                Some(torrent) if torrent.postpones_removal() => {} // it goes when everything is where it was
                _ if data => self.leaving.push(id),
                _ => self.remove_torrent(now, id, false),
            }
        }
        self.settle(now);
    }
}

/// True if a torrent of an earlier run may begin asleep: what the record says of it is enough, and to look at its files takes no long time.
fn sleeps(head: &Head, record: &Record) -> bool {
    let is_whole = record.stamps.len() == head.files && head.files <= SLEEP_FILES_MAX;
    let is_moving = record.move_to.is_some() || record.move_from.is_some() || record.move_wanted.is_some();
    let is_busy = record.removing || record.checking || is_moving || record.next_names.is_some();
    // Of one without any piece that was not ended cleanly the metainfo may not have been saved: only its link may be there.
    let is_saved = record.clean || record.have.count() > 0;
    is_whole && is_saved && !is_busy && record.priorities.is_empty() && !record.shared
}
