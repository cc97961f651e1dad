//! Torrents that sleep, and who wakes them; and looks at files, at the start and later: whether they are there, and as they were left. What
//! happens then is decided in `torrent/sleep` and `torrent/disk`.

use std::ops::Range;
use std::time::Duration;

use crate::base::ids::{StoreId, TorrentId};
use crate::base::storage::{Fault, FaultKind, Storage};
use crate::base::time::Time;
use crate::codec::metainfo::Parser;
use crate::engine::Engine;
use crate::engine::asks::{metainfo_name, open_content};
use crate::engine::loading::{AT_ONCE_MAX, Loaded, take_read};
use crate::torrent::command::{Refusal, RefusalKind, Which};
use crate::torrent::disk::{FileLook, Verdict};
use crate::torrent::sleep::Claim;
use crate::torrent::torrent::Torrent;

/// Torrents in trouble with the disk that are looked at in one [`PROBE_EVERY`]; the others wait for their turn.
const PROBES_MAX: usize = 20;
/// See [`PROBES_MAX`].
const PROBE_EVERY: Duration = Duration::from_millis(100);

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
        let bytes = self.storage.saved(&metainfo_name(torrent.info_hash()));
        let read = bytes.map(|bytes| Parser::file(bytes).run());
        take_read(now, torrent, read).then(|| open_content(&mut self.storage, torrent))
    }

    /// Looks whether a torrent's files bear out what was claimed of them: what is missing stops the torrent, and what others changed is
    /// hashed again.
    pub(super) fn examine_claim(&mut self, now: Time, id: TorrentId, store: StoreId) {
        let torrent = self.torrents.get_mut(id).expect("its examiner found it");
        let Some(claim) = torrent.take_claim() else { return };
        torrent.begin_examination();
        loop {
            match examine(&mut self.storage, torrent, store, Some(claim)) {
                None => {}
                Some(verdict) => return torrent.handle_examined(now, verdict, Ok(())),
            }
        }
    }

    /// A torrent wants to sleep: it may if it will wake again. If not it asks again later.
    pub(super) fn lay_down(&mut self, now: Time, id: TorrentId) {
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        if torrent.store().is_none() || !torrent.may_sleep() {
            return;
        }
        if torrent.info_len() > AT_ONCE_MAX {
            return self.load_to_sleep(id);
        }
        if let Some(bytes) = self.storage.saved(&metainfo_name(torrent.info_hash())) {
            self.sleep_if_saved(now, id, &bytes);
        }
    }

    /// Has a torrent hibernate if it still may, and if `saved`, which was read from the state directory, describes it.
    pub(super) fn sleep_if_saved(&mut self, now: Time, id: TorrentId, saved: &[u8]) {
        let Some(torrent) = self.torrents.get_mut(id) else { return };
        let Some(store) = torrent.store().filter(|_| torrent.may_sleep()) else { return };
        if torrent.is_saved_as(saved) {
            self.storage.close(store);
            torrent.fall_asleep(now);
            self.touched.push(id);
        }
    }

    /// Looks whether a torrent's files are still there. One that sleeps is woken if they were not looked at in this run, and looked at
    /// more closely; it sleeps on if not even what holds them is there.
    pub(super) fn look(&mut self, now: Time, id: TorrentId) {
        let torrent = self.torrents.get_mut(id).expect("the asker is there");
        if torrent.is_asleep() {
            if let Some(verdict) = look_asleep(&mut self.storage, torrent) {
                return torrent.handle_examined(now, verdict, Ok(()));
            }
            if !torrent.is_due_for_a_look() || self.load_soon(now, id) == Loaded::Later {
                return;
            }
        }
        let torrent = self.torrents.get_mut(id).expect("it was just there");
        let Some(store) = torrent.store() else { return };
        let files = torrent.next_look(now);
        let verdict = look(&mut self.storage, torrent, store, files);
        torrent.handle_looked(now, verdict);
    }

    /// Looks whether the trouble of torrents that stopped is over, [`PROBES_MAX`] at a time: thousands may be on a disk that is not mounted.
    /// Of each one file is looked at, and the others once that is there.
    pub(super) fn handle_probe_timeout(&mut self, now: Time) {
        for _ in 0..PROBES_MAX {
            let Some(id) = self.probing.pop() else { break };
            self.probe(now, id);
            self.touched.push(id);
        }
        self.probe_at = now + PROBE_EVERY;
    }

    /// When torrents that stopped are looked at next; never if none waits for that.
    pub(super) fn next_probes(&self) -> Time {
        if self.probing.is_empty() { Time::NEVER } else { self.probe_at }
    }

    fn probe(&mut self, now: Time, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(id) else { return };
        let Some(fault) = torrent.fault_kind() else { return };
        self.stats.probes += 1;
        if torrent.is_asleep() {
            return match look_asleep(&mut self.storage, torrent) {
                Some(_) => torrent.handle_still_missing(now),
                None => self.waking.push(id), // to read what thousands of them are takes its time
            };
        }
        let Some(store) = torrent.store() else { return };
        if torrent.is_out_of_space() {
            // The files are there, for it went on serving them.
            let result = room(&mut self.storage, torrent, store);
            return torrent.handle_probed(now, result);
        }
        let first = torrent.missing_file().filter(|_| fault == FaultKind::Gone);
        if first.is_some_and(|file| torrent.missing_fault(&mut self.storage, store, file).is_some()) {
            return torrent.handle_still_missing(now);
        }
        if !torrent.begin_examination() {
            // What is open, or was made by an earlier look, may not be what the user has put there meanwhile.
            self.storage.close(store);
            let store = open_content(&mut self.storage, torrent);
            torrent.handle_reopened(store);
        }
        self.examining.push(id);
    }

    /// Looks at some files of a torrent that stopped; true if there are more.
    pub(super) fn examine_on(&mut self, now: Time, id: TorrentId) -> bool {
        let Some(torrent) = self.torrents.get_mut(id) else { return false };
        let (Some(store), Some((_, claim))) = (torrent.store(), torrent.next_examined()) else { return false };
        let Some(verdict) = examine(&mut self.storage, torrent, store, claim) else { return true };
        let room = if verdict == Verdict::Same { room(&mut self.storage, torrent, store) } else { Ok(()) };
        torrent.handle_examined(now, verdict, room);
        false
    }
}

/// Why a torrent that sleeps cannot go on, as far as one look tells: what holds all of its content is not there.
fn look_asleep<S: Storage>(storage: &mut S, torrent: &Torrent) -> Option<Verdict> {
    let top = torrent.top();
    (torrent.have.count() > 0 && !storage.exists(&top)).then(|| {
        let advice = "mount its disk or put it back, or `verify` to download it again";
        let message = format!("missing: {}; {advice}", top.display());
        Verdict::Missing(0, Fault { kind: FaultKind::Gone, message })
    })
}

/// Examines the next files; the verdict once one is missing or all were looked at.
fn examine<S: Storage>(
    storage: &mut S,
    torrent: &mut Torrent,
    store: StoreId,
    claim: Option<Claim>,
) -> Option<Verdict> {
    let (files, _) = torrent.next_examined()?;
    let is_denied = torrent.fault_kind() == Some(FaultKind::Denied);
    let (mut stamps, mut is_changed) = (Vec::with_capacity(files.len()), false);
    for file in files {
        let stamp = storage.stamp(store, file);
        let look = torrent.compare(file, stamp, claim);
        if (look == FileLook::Missing || is_denied)
            && let Some(fault) = torrent.missing_fault(storage, store, file)
        {
            return Some(Verdict::Missing(file, fault));
        }
        is_changed |= look != FileLook::Same;
        stamps.push(stamp);
    }
    torrent.note_examined(stamps, is_changed).then(|| torrent.end_examination())
}

/// Looks whether each of `files` that holds something verified is there, and long enough.
fn look<S: Storage>(storage: &mut S, torrent: &Torrent, store: StoreId, files: Range<usize>) -> Verdict {
    for file in files {
        let stamp = storage.stamp(store, file);
        if torrent.compare(file, stamp, None) == FileLook::Missing {
            // There, and not missing: it is another file than the one that is open.
            let fault = torrent.missing_fault(storage, store, file);
            return fault.map_or(Verdict::Changed, |fault| Verdict::Missing(file, fault));
        }
    }
    Verdict::Same
}

/// Whether there is room for a piece that is missing, if one is.
fn room<S: Storage>(storage: &mut S, torrent: &Torrent, store: StoreId) -> Result<(), Fault> {
    let piece = torrent.first_missing().filter(|_| torrent.may_write());
    piece.map_or(Ok(()), |piece| storage.prepare(store, torrent.start_of(torrent.piece_span(piece))))
}
