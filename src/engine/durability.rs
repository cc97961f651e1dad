//! Finds the moment when a change that a user requested is on the disk, so that the change may be acknowledged.
//!
//! Every change of the state directory that a command causes has a number, in the order of the commands. A change is
//! either a record that is to be saved or a job that was started. An acknowledgement names the numbers that it waits
//! for, and is returned once none of them is outstanding. A torrent that several commands change before its record is
//! taken has one number, and is saved once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::bytes::Rope;
use crate::base::hash::InfoHash;
use crate::base::ids::{AckId, JobId, TorrentId};
use crate::base::storage::{Fault, Job, Storage};
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::asks::{Purpose, metainfo_name, record_name};
use crate::torrent::command::{Refusal, RefusalKind};

/// The maximum number of records that are taken at the end of one command or in one slice of background work. Further
/// records wait for the next slice.
const RECORDS_MAX: usize = 8;

/// How soon something that could not be erased is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// An acknowledgement that waits for the disk.
#[derive(Debug)]
struct Waiting {
    ack: AckId,
    /// The first and the last number that the acknowledgement waits for.
    numbers: (u64, u64),
    /// The cause if one of the changes could not be saved.
    failed: Option<String>,
}

/// Changes that are not on the disk yet. Invariant: `outstanding` contains exactly the numbers of `numbers`, `begun`
/// and `jobs`.
#[derive(Debug, Default)]
pub(super) struct Durability {
    /// Whether the current changes are caused by a command that will be acknowledged.
    is_noting: bool,
    next: u64,
    outstanding: BTreeSet<u64>,
    /// Torrents whose record may be taken now. A torrent that was removed since then has no number.
    to_save: VecDeque<TorrentId>,
    /// Torrents whose record is still to be taken, with their numbers.
    numbers: BTreeMap<TorrentId, u64>,
    /// Torrents whose record is being taken: their files are examined first.
    begun: BTreeMap<TorrentId, u64>,
    /// Jobs that are under way, with the numbers that wait for them.
    jobs: BTreeSet<(JobId, u64)>,
    /// Torrents that are new or whose metadata has arrived, with the metainfo or magnet link that is to be saved. The
    /// record of such a torrent is taken after all changes of the current call.
    new: BTreeMap<TorrentId, Rope>,
    /// Removed torrents of which something is still kept, because it could not be erased, and when that is tried again.
    unforgotten: BTreeMap<InfoHash, Time>,
    waiting: VecDeque<Waiting>,
    next_ack: u64,
    done: VecDeque<(AckId, Result<(), Refusal>)>,
}

impl Durability {
    /// Notes that a torrent's record must be saved before the current command is acknowledged.
    pub(super) fn note_torrent(&mut self, id: TorrentId) {
        if self.is_noting && !self.numbers.contains_key(&id) && !self.new.contains_key(&id) {
            let number = self.number();
            self.numbers.insert(id, number);
            self.to_save.push_back(id);
        }
    }

    /// Notes that a job of the state directory was started, possibly by the current command.
    pub(super) fn note_job(&mut self, job: JobId) {
        if self.is_noting {
            let number = self.number();
            self.jobs.insert((job, number));
        }
    }

    /// Notes that the metainfo or magnet link of a torrent is to be saved, together with its record.
    pub(super) fn note_new(&mut self, id: TorrentId, metainfo: Rope) {
        self.new.insert(id, metainfo);
    }

    /// Notes that the record of a torrent was taken and that `job` saves it.
    pub(super) fn note_record(&mut self, id: TorrentId, job: JobId) {
        if let Some(number) = self.begun.remove(&id) {
            self.jobs.insert((job, number));
        }
    }

    /// Notes that a torrent was removed and that `job` makes the removal durable. Earlier changes of this torrent that
    /// are not saved yet wait for that job: until it is done, the next run has the torrent as it was before those
    /// changes.
    pub(super) fn remove(&mut self, id: TorrentId, job: JobId) {
        self.new.remove(&id);
        let numbers = self.numbers.remove(&id).into_iter().chain(self.begun.remove(&id));
        self.jobs.extend(numbers.map(|number| (job, number)));
    }

    /// Handles the end of the save of an earlier record, whether it succeeded or failed: the next record of the torrent
    /// may be taken.
    pub(super) fn handle_saved(&mut self, id: TorrentId) {
        if self.numbers.contains_key(&id) {
            self.to_save.push_back(id);
        }
    }

    /// Handles the end of a job.
    pub(super) fn handle_job(&mut self, job: JobId, result: &Result<(), Fault>) {
        while let Some(&(_, number)) = self.jobs.range((job, 0)..=(job, u64::MAX)).next() {
            self.jobs.remove(&(job, number));
            if let Err(fault) = result {
                let concerned = self.waiting.iter_mut().filter(|waiting| {
                    let (first, last) = waiting.numbers;
                    (first..=last).contains(&number)
                });
                concerned.for_each(|waiting| waiting.failed = Some(fault.message.clone()));
            }
            self.outstanding.remove(&number);
        }
        self.give();
    }

    /// Whether no record can be taken now.
    pub(super) fn is_idle(&self) -> bool {
        self.to_save.is_empty()
    }

    /// What is kept of a removed torrent could not be erased: that is tried again.
    pub(super) fn note_unforgotten(&mut self, now: Time, info_hash: InfoHash) {
        self.unforgotten.insert(info_hash, now + AGAIN);
    }

    /// When something that could not be erased is to be tried again.
    pub(super) fn poll_timeout(&self) -> Time {
        self.unforgotten.values().copied().min().unwrap_or(Time::NEVER)
    }

    /// Removed torrents that the next run would have again.
    pub(super) fn unforgotten(&self) -> impl Iterator<Item = InfoHash> {
        self.unforgotten.keys().copied()
    }

    /// Whether every change is on the disk, or could not be saved.
    pub(super) fn is_settled(&self) -> bool {
        self.outstanding.is_empty()
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.outstanding.insert(number);
        number
    }

    /// Queues the acknowledgements that no longer wait for a number.
    fn give(&mut self) {
        let first = self.outstanding.first().copied().unwrap_or(self.next);
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.numbers.1 < first) {
            let refusal = |why| {
                let message = format!("done, but not saved yet: {why}; it is saved as soon as that is possible");
                Err(Refusal::new(RefusalKind::Io, message))
            };
            self.done.push_back((waiting.ack, waiting.failed.map_or(Ok(()), refusal)));
        }
    }
}

impl<S: Storage> Engine<S> {
    /// Returns the id of the acknowledgement of everything that commands have changed until now. [`Engine::poll_ack`]
    /// returns that id once all of it is on the disk. `None` if all of it is on the disk already. Call this right after
    /// [`Engine::handle_command`].
    pub fn acknowledge(&mut self) -> Option<AckId> {
        let durability = &mut self.durability;
        let first = *durability.outstanding.first()?;
        let ack = AckId(durability.next_ack);
        durability.next_ack += 1;
        durability.waiting.push_back(Waiting { ack, numbers: (first, durability.next - 1), failed: None });
        Some(ack)
    }

    /// Returns the next acknowledgement that is complete. `Err` if some of its changes could not be saved: the changes
    /// are in effect, and saving is retried.
    pub fn poll_ack(&mut self) -> Option<(AckId, Result<(), Refusal>)> {
        self.durability.done.pop_front()
    }

    /// True if [`Engine::poll_ack`] has something.
    pub(super) fn has_acks(&self) -> bool {
        !self.durability.done.is_empty()
    }

    /// Sets whether later changes are caused by a command that is acknowledged, or by something else.
    pub(super) fn note_changes(&mut self, is_noting: bool) {
        self.durability.is_noting = is_noting;
    }

    /// Saves new torrents. The record is saved before the metainfo: without the record the next run would know neither
    /// the place of the content nor which of its files are wanted.
    pub(super) fn save_new(&mut self, now: Time) {
        while let Some((id, metainfo)) = self.durability.new.pop_first() {
            let Some(torrent) = self.torrents.get(id) else { continue };
            let (info_hash, record) = (torrent.info_hash(), torrent.record(now));
            self.start_job(Job::Record { name: record_name(info_hash), value: Some(record) }, Purpose::Other);
            self.start_job(Job::Save { name: metainfo_name(info_hash), bytes: metainfo }, Purpose::Metainfo(id));
        }
    }

    /// Erases again what is kept of removed torrents, where it is time. A torrent that was added again meanwhile stays.
    pub(super) fn forget_again(&mut self, now: Time) {
        let due: Vec<InfoHash> =
            self.durability.unforgotten.iter().filter(|(_, at)| **at <= now).map(|(info_hash, _)| *info_hash).collect();
        for info_hash in due {
            self.durability.unforgotten.remove(&info_hash);
            if !self.by_hash.contains_key(&info_hash) {
                self.forget_saved(info_hash);
            }
        }
    }

    /// Takes the records of some torrents that commands have changed. A torrent whose earlier record is still being
    /// saved waits for the end of that save.
    pub(super) fn save_changed(&mut self, now: Time) {
        for _ in 0..RECORDS_MAX.min(self.durability.to_save.len()) {
            let id = self.durability.to_save.pop_front().expect("queue holds the counted torrents");
            let Some(&number) = self.durability.numbers.get(&id) else { continue };
            let torrent = self.torrents.get_mut(id).expect("torrent with a number is in the arena");
            if torrent.begin_save() {
                self.durability.numbers.remove(&id);
                self.durability.begun.insert(id, number);
                if !self.save_record(now, id) {
                    self.stamping.push(id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::storage::FaultKind;

    fn noting() -> Durability {
        Durability { is_noting: true, ..Durability::default() }
    }

    /// Does the same as [`Engine::acknowledge`].
    fn wait_for_all(durability: &mut Durability, ack: u64) {
        let numbers = (*durability.outstanding.first().unwrap(), durability.next - 1);
        durability.waiting.push_back(Waiting { ack: AckId(ack), numbers, failed: None });
    }

    #[test]
    fn acknowledgement_waits_for_its_own_changes_only() {
        let mut durability = noting();
        durability.note_job(JobId(1));
        wait_for_all(&mut durability, 1);
        durability.note_job(JobId(2));
        wait_for_all(&mut durability, 2);
        durability.handle_job(JobId(1), &Ok(()));
        assert_eq!(durability.done.pop_front(), Some((AckId(1), Ok(()))));
        assert_eq!(durability.done.pop_front(), None);
        durability.handle_job(JobId(2), &Ok(()));
        assert_eq!(durability.done.pop_front(), Some((AckId(2), Ok(()))));
    }

    #[test]
    fn acknowledgement_fails_with_the_job_it_waits_for_and_later_ones_do_not() {
        let mut durability = noting();
        durability.note_job(JobId(1));
        wait_for_all(&mut durability, 1);
        durability.note_job(JobId(2));
        let fault = Fault { kind: FaultKind::Full, message: "no space".to_owned() };
        durability.handle_job(JobId(1), &Err(fault));
        wait_for_all(&mut durability, 2);
        durability.handle_job(JobId(2), &Ok(()));
        let (ack, result) = durability.done.pop_front().unwrap();
        assert!(ack == AckId(1) && result.unwrap_err().message.contains("no space"));
        assert_eq!(durability.done.pop_front(), Some((AckId(2), Ok(()))));
    }

    #[test]
    fn change_of_a_removed_torrent_is_acknowledged_with_the_removal() {
        let mut durability = noting();
        let id = TorrentId::from_bits(7);
        durability.note_torrent(id);
        durability.note_torrent(id);
        wait_for_all(&mut durability, 1);
        durability.note_job(JobId(1));
        durability.note_job(JobId(2));
        durability.remove(id, JobId(2));
        durability.handle_job(JobId(1), &Ok(()));
        assert_eq!(durability.done.pop_front(), None);
        durability.handle_job(JobId(2), &Ok(()));
        assert_eq!(durability.done.pop_front(), Some((AckId(1), Ok(()))));
        assert!(durability.outstanding.is_empty() && durability.jobs.is_empty());
    }

    #[test]
    fn changes_of_no_command_are_not_waited_for() {
        let mut durability = Durability::default();
        durability.note_torrent(TorrentId::from_bits(7));
        durability.note_job(JobId(1));
        assert!(durability.is_idle() && durability.outstanding.is_empty());
    }
}
