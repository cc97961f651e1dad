//! Files that another torrent of this node also has: decides whether this torrent may write to its files.
//!
//! A file has one owner. Of several torrents with a file in common the one that was added first owns it; the others are
//! *second*: a second torrent writes to no file at all, shared or not. It waits until the owners are complete as far as
//! wanted, then its content is hashed, and it seeds the content that it has or stops with an error. The engine finds
//! the torrents that have files in common (`engine/path_owners.rs`); this module implements the consequences for one
//! torrent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::files::FileList;
use crate::base::geometry::Piece;
use crate::base::hash::InfoHash;
use crate::base::names::Names;
use crate::base::time::Time;
use crate::codec::control::escape;
use crate::torrent::torrent::{Ask, Phase, Torrent};

/// The owner of a shared file, as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The advisory name of the owner.
    pub name: String,
    /// The wire hash of the owner.
    pub info_hash: InfoHash,
    /// The path of the file that both torrents have.
    pub file: PathBuf,
}

impl Owner {
    /// Returns the torrent's name and the first 8 digits of its hash.
    #[must_use]
    pub fn label(&self) -> String {
        let hash: String = self.info_hash.to_string().chars().take(8).collect();
        format!("{} ({hash})", escape(&self.name))
    }
}

/// The number of stage values in a record's number; a record stores `order * STAGES + stage`.
const STAGES: u64 = 4;
/// The maximum order that fits into a record: microseconds since the Unix epoch fit for ten thousand years.
const ORDER_MAX: u64 = 1 << 60;

/// The progress of a second torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondStage {
    /// The owners are not finished, or not known yet.
    Waits,
    /// The owners are finished, and the content of the torrent is being hashed or about to be.
    Checks,
    /// The content of the torrent was hashed: the torrent seeds if it is complete as far as wanted, otherwise it is
    /// refused.
    Decided,
    /// A shared file has another length than the owner's: the torrent is refused without being hashed.
    Refused,
}

/// Whether the engine has compared the paths of a torrent with those of the others in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Yes,
    /// The paths were not compared, and there is no sign that they are shared: they are compared before the first
    /// write.
    No,
    /// The paths were not compared and may be shared: the torrent does nothing until they are compared.
    Held,
}

#[derive(Debug)]
struct Second {
    stage: SecondStage,
    /// `None` until the engine has found the owner in this run.
    owner: Option<Owner>,
    /// The reason of a refusal, for a torrent that is refused or may be.
    refusal: String,
}

/// A torrent's information about the owners of its files.
#[derive(Debug)]
pub(crate) struct PathConflict {
    compared: Compared,
    /// Whether the torrent was added in this run without a comparison of its paths: every torrent that is not second
    /// precedes it.
    is_new: bool,
    /// Whether the comparison of the paths was requested.
    asked: bool,
    /// The torrent's rank among second torrents: lower is earlier. A clock of whole seconds would give the same rank to
    /// two torrents that are added together.
    order: u64,
    /// Whether an owner had content in the files, which stays when that owner is removed without its data.
    spares: bool,
    second: Option<Box<Second>>,
}

impl Default for PathConflict {
    fn default() -> Self {
        Self { compared: Compared::Yes, is_new: false, asked: false, order: 0, spares: false, second: None }
    }
}

impl PathConflict {
    /// Whether the torrent owns its files, as far as other torrents are concerned.
    pub(crate) fn may_write(&self) -> bool {
        self.compared == Compared::Yes && self.second.is_none()
    }

    /// Whether the torrent has to wait for a comparison or for its owners.
    pub(crate) fn holds(&self) -> bool {
        self.compared == Compared::Held || self.stage() == Some(SecondStage::Waits)
    }

    pub(crate) fn stage(&self) -> Option<SecondStage> {
        self.second.as_ref().map(|second| second.stage)
    }

    /// Returns the reason of the refusal; `None` if the torrent is not refused. `is_whole` is whether the torrent is
    /// complete as far as wanted.
    pub(crate) fn refusal(&self, is_whole: bool) -> Option<&str> {
        let second = self.second.as_ref()?;
        let is_refused = match second.stage {
            SecondStage::Refused => true,
            SecondStage::Decided => !is_whole,
            SecondStage::Waits | SecondStage::Checks => false,
        };
        is_refused.then_some(&second.refusal)
    }

    /// Returns the number that represents this state in a resume record; `None` if the torrent is not second. A torrent
    /// that is the owner now and is still to be checked for content of a removed owner is recorded as one that waits.
    pub(crate) fn recorded(&self) -> Option<u64> {
        let stage = match self.stage() {
            None if self.spares => 0,
            None => return None,
            Some(SecondStage::Waits | SecondStage::Checks) => u64::from(!self.spares),
            Some(SecondStage::Decided) => 2,
            Some(SecondStage::Refused) => 3,
        };
        Some(self.order.min(ORDER_MAX) * STAGES + stage)
    }

    /// Returns the state of a torrent of an earlier run from the number in its resume record.
    pub(crate) fn restored(recorded: Option<u64>) -> Self {
        let order = recorded.map_or(0, |number| number / STAGES);
        let stage = recorded.map(|number| match number % STAGES {
            2 => SecondStage::Decided,
            3 => SecondStage::Refused,
            _ => SecondStage::Waits,
        });
        let refusal = "its files belong to another torrent, too; the paths of both are still to be compared";
        let second = |stage| Box::new(Second { stage, owner: None, refusal: refusal.to_owned() });
        let spares = recorded.is_some_and(|number| number % STAGES != 1);
        Self { compared: Compared::No, order, spares, second: stage.map(second), ..Self::default() }
    }
}

impl Torrent {
    /// Whether another torrent owns some of the torrent's files.
    #[must_use]
    pub fn is_second(&self) -> bool {
        self.path_conflict.second.is_some()
    }

    /// Returns the torrent's stage as a second torrent; `None` if the torrent is not second.
    #[must_use]
    pub fn second_stage(&self) -> Option<SecondStage> {
        self.path_conflict.stage()
    }

    /// Returns the owner with which the torrent was found to share a file. `None` if the torrent is not second, or if
    /// the owner is not known in this run yet.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.path_conflict.second.as_ref()?.owner.as_ref()
    }

    /// Whether the torrent may write to its files. Files in a share directory belong to the user and are never written
    /// to.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.path_conflict.may_write() && !self.settings.shared
    }

    /// Whether the torrent's paths were compared with those of the other torrents in this run.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        self.path_conflict.compared == Compared::Yes
    }

    /// Whether the torrent does nothing until its paths are compared.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.path_conflict.compared == Compared::Held
    }

    /// Whether the torrent is complete as far as wanted, no work on its files is under way, and it has no error.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_finished()
            && self.check.is_none()
            && !self.recheck
            && self.phase == Phase::Ready
            && self.error().is_none()
            && !self.relocation.is_under_way()
    }

    /// Returns the directories of the torrent's files: the current one and, during a move, the old and the new one.
    #[must_use]
    pub fn claimed_dirs(&self) -> Vec<PathBuf> {
        let others = [self.relocation.to(), self.relocation.recorded_from()];
        std::iter::once(&*self.dir).chain(others.into_iter().flatten()).map(Path::to_owned).collect()
    }

    /// Returns the names of the file or directory that holds all content: the current name and, during a rename, the
    /// next one.
    #[must_use]
    pub fn claimed_tops(&self) -> Vec<OsString> {
        let top = |names: &Names| names.top.clone().unwrap_or_else(|| self.head.top.clone().into_os_string());
        std::iter::once(&self.renaming.names).chain(&self.renaming.next).map(top).collect()
    }

    /// Returns the torrent's files under their current names and, during a rename, under the next ones.
    ///
    /// # Panics
    /// Panics if the torrent is hibernated.
    #[must_use]
    pub fn claimed_lists(&self) -> Vec<Arc<FileList>> {
        let next = self.renaming.next.as_ref().map(|names| names.apply(&self.body.get().files));
        std::iter::once(self.layout.shared_files()).chain(next).collect()
    }

    /// Returns the torrent's rank for ownership: of two torrents with a file in common the one with the lower rank owns
    /// it. A restart does not change the rank. Of second torrents one that seeds the files precedes one that is
    /// refused, which would overwrite them if it became the owner.
    #[must_use]
    pub fn path_order(&self) -> (bool, bool, u64, u64, InfoHash) {
        let of_seconds = if self.is_second() { self.path_conflict.order } else { 0 };
        let has_them = self.second_stage() == Some(SecondStage::Decided) && self.is_finished();
        let is_second = self.is_second();
        (
            is_second,
            is_second && !has_them,
            of_seconds.max(u64::from(self.path_conflict.is_new)),
            self.added,
            self.info_hash(),
        )
    }

    /// Sets the torrent's rank among second torrents, unless it has one, when it is found to be second.
    pub fn take_order(&mut self, order: u64) {
        if !self.is_second() {
            self.path_conflict.order = order;
        }
    }

    /// Whether the torrent was added in this run and its paths were not compared then.
    #[must_use]
    pub fn is_new_uncompared(&self) -> bool {
        self.path_conflict.is_new
    }

    /// Postpones the comparison of the paths of a new torrent, not all of which were compared, until its first write.
    pub fn postpone_comparison(&mut self) {
        self.path_conflict.compared = Compared::No;
        self.path_conflict.is_new = true;
    }

    /// Makes the torrent do nothing until its paths, which may be shared, are compared.
    pub fn hold_for_comparison(&mut self, now: Time) {
        if self.path_conflict.compared != Compared::Held {
            self.path_conflict.compared = Compared::Held;
            self.turn_changed = true;
            self.reconsider(now);
        }
    }

    /// Releases a torrent whose paths cannot be compared because its metainfo is lost: they are compared once the
    /// metainfo is available again.
    pub fn let_go_uncompared(&mut self) {
        self.path_conflict.asked = false;
        if self.path_conflict.compared == Compared::Held {
            self.path_conflict.compared = Compared::No;
        }
    }

    /// Requests the search for the owner of a second torrent that waits since an earlier run. Called when the content
    /// is open.
    pub(crate) fn look_for_owner(&mut self) {
        if self.second_stage() == Some(SecondStage::Waits) && self.owner().is_none() {
            self.asks.push_back(Ask::ComparePaths);
        }
    }

    /// Requests the comparison of the torrent's paths that must precede its first write. Returns true if the comparison
    /// is still to be done.
    pub(crate) fn awaits_comparison(&mut self) -> bool {
        let awaits = self.path_conflict.compared == Compared::No && self.path_conflict.second.is_none();
        if awaits && !std::mem::replace(&mut self.path_conflict.asked, true) {
            self.asks.push_back(Ask::ComparePaths);
        }
        awaits
    }

    /// Whether the torrent is complete as far as wanted, or was at any time.
    pub(crate) fn was_finished(&self) -> bool {
        self.finished.is_some() || self.is_finished()
    }

    /// Notes that an owner which had content in the files is being removed; its data may stay.
    pub fn note_removed_owner(&mut self, now: Time) {
        if !std::mem::replace(&mut self.path_conflict.spares, true) {
            self.persistence.touch(now);
        }
    }

    /// Makes the torrent the owner of its files after a comparison found no other owner: it writes as any other
    /// torrent. A torrent that was second is hashed first. If an owner had content in the files and the hashing finds
    /// the torrent incomplete, it is paused (see `spare_kept_data`).
    pub fn own_files(&mut self, now: Time) {
        let was_second = self.path_conflict.second.take().is_some();
        let could_write = !was_second && self.is_compared();
        let before = std::mem::take(&mut self.path_conflict);
        if was_second || before.spares {
            self.path_conflict = PathConflict { spares: before.spares, order: before.order, ..PathConflict::default() };
        }
        if could_write {
            return;
        }
        self.tell_storage();
        self.turn_changed = true;
        if was_second {
            log::info!("{}: no other torrent has its files", self.display_name());
            self.persistence.touch(now);
            self.recheck(now);
        }
        self.finish_files_later(now);
        self.resume_download(now);
        self.reconsider(now);
    }

    /// Pauses a torrent that became the owner of its files and that a check found incomplete, if an earlier owner had
    /// content in them: only the user may have that content overwritten.
    pub(crate) fn spare_kept_data(&mut self, now: Time) {
        if self.is_second() || !std::mem::take(&mut self.path_conflict.spares) {
            return;
        }
        self.persistence.touch(now);
        if !self.is_finished() && !self.paused {
            log::warn!(
                "{}: paused: downloading would overwrite data that the removed torrent left; `resume` to allow that",
                self.display_name()
            );
            self.pause(now);
        }
    }

    /// Handles the user's command to start the torrent: as the owner it may overwrite its files.
    pub(crate) fn allow_overwriting(&mut self) {
        self.path_conflict.spares &= self.is_second();
    }

    /// Makes the torrent wait for `owner`, which has one of its files and is not finished. The torrent claims no piece
    /// while it waits.
    pub fn wait_for_owner(&mut self, now: Time, owner: Owner) {
        if self.second_stage() != Some(SecondStage::Waits) {
            log::info!("{}: waits for {}, which has {}, too", self.display_name(), owner.label(), owner.file.display());
            self.claim_no_files();
        }
        self.become_second(now, SecondStage::Waits, owner, String::new());
    }

    /// Makes a second torrent wait again because an owner is no longer finished.
    pub fn wait_again(&mut self, now: Time) {
        if !matches!(self.second_stage(), Some(SecondStage::Waits | SecondStage::Refused))
            && let Some(owner) = self.owner().cloned()
        {
            self.wait_for_owner(now, owner);
        }
    }

    /// Starts hashing the content of a second torrent whose owners are finished.
    pub fn check_as_second(&mut self, now: Time, owner: Owner) {
        let refusal = self.incomplete(&owner, &owner.file);
        self.claim_no_files();
        self.become_second(now, SecondStage::Checks, owner, refusal);
        if self.is_asleep() || self.store.is_some() {
            self.recheck(now);
        } else {
            self.begin_check();
        }
        self.reconsider(now);
    }

    /// Keeps the decision about a second torrent; `owner` was found in this run.
    pub fn stay_second(&mut self, now: Time, owner: Owner) {
        let refusal = self.incomplete(&owner, &owner.file);
        self.become_second(now, SecondStage::Decided, owner, refusal);
    }

    /// Refuses the torrent because `owner` has a file of another length at the path of one of its files.
    pub fn refuse_second(&mut self, now: Time, owner: Owner) {
        let refusal = format!(
            "{} belongs to the torrent {}, which has a file of another length there; nothing was written; remove this \
             torrent, and add it again with `dir=` another directory",
            owner.file.display(),
            owner.label()
        );
        if self.second_stage() != Some(SecondStage::Refused) {
            log::error!("{}: {refusal}", self.display_name());
            self.claim_no_files();
        }
        self.become_second(now, SecondStage::Refused, owner, refusal);
    }

    fn become_second(&mut self, now: Time, stage: SecondStage, owner: Owner, refusal: String) {
        let could_write = self.path_conflict.may_write();
        let before = self.path_conflict.stage();
        let second = Some(Box::new(Second { stage, owner: Some(owner), refusal }));
        let order = self.path_conflict.order;
        // An owner that does not delay its seconds is finished.
        let spares = self.path_conflict.spares || stage != SecondStage::Waits;
        self.path_conflict = PathConflict { order, spares, second, ..PathConflict::default() };
        if could_write {
            self.tell_storage();
        }
        if before != Some(stage) {
            self.persistence.touch(now);
        }
        self.turn_changed = true;
        self.reconsider(now);
    }

    /// Requests an update of the storage after the write permission of the content changed. The content is not
    /// reopened: the storage keeps its record of what was read and of what is still to be synced.
    fn tell_storage(&mut self) {
        self.asks.extend(self.store.map(|_| Ask::Want));
    }

    /// Discards the results of earlier checks of the torrent's files. What a check of a second torrent found is still
    /// expected: its files are not created anew if they are missing.
    fn claim_no_files(&mut self) {
        self.suspend_download();
        let mut expected = self.durable();
        self.expected.iter().for_each(|earlier| expected.add_all(earlier));
        let is_trusted = !matches!(self.second_stage(), None | Some(SecondStage::Refused));
        self.expected = Some(expected).filter(|expected| is_trusted && expected.count() > 0);
        self.check = None;
        self.recheck = false;
        if self.phase == Phase::Checking {
            self.phase = Phase::Ready;
        }
        self.claim = None;
        self.have.clear_all();
        self.claim_nothing();
        self.restored.clear();
    }

    /// Decides about a second torrent whose content was hashed.
    pub(crate) fn decide_second(&mut self, now: Time) {
        if !matches!(self.second_stage(), Some(SecondStage::Checks | SecondStage::Decided)) {
            return;
        }
        let lacking = self.first_missing().and_then(|piece| self.file_of(piece));
        let refusal = match (self.owner(), lacking) {
            (Some(owner), Some(lacking)) => Some(self.incomplete(owner, &lacking)),
            _ => None,
        };
        if let Some(second) = &mut self.path_conflict.second {
            second.stage = SecondStage::Decided;
            if let Some(refusal) = refusal {
                log::error!("{}: {refusal}", escape(&self.head.name));
                second.refusal = refusal;
            }
        }
        self.persistence.touch(now);
    }

    /// Returns the path of a file that contains a part of a piece.
    fn file_of(&self, piece: Piece) -> Option<PathBuf> {
        let files = self.layout.files();
        let mut parts = files.parts(self.piece_span(piece)).map(|(file, _, _)| files.entry(file));
        parts.find(|entry| !entry.pad).map(|entry| self.dir.join(entry.path))
    }

    /// Returns the reason of the refusal if the bytes in `lacking` are not those that the torrent wants there.
    fn incomplete(&self, owner: &Owner, lacking: &Path) -> String {
        let what = if *lacking == *owner.file {
            format!(
                "{} belongs to the torrent {} and has other bytes than this torrent",
                lacking.display(),
                owner.label()
            )
        } else {
            format!(
                "{} is not what this torrent has there, and it may write nothing: {} belongs to the torrent {}, too",
                lacking.display(),
                owner.file.display(),
                owner.label()
            )
        };
        format!("{what}; nothing was written; remove this torrent, and add it again with `dir=` another directory")
    }
}
