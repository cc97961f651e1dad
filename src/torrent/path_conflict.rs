//! Files that another torrent of this node has, too: whether this torrent may write to its own.
//!
//! A file has one owner. Of torrents with a file in common the one that was added first owns it; the others are *second*: a
//! second torrent writes nothing, neither to that file nor to any other. It waits until the owners have all that they want,
//! then its content is hashed, and it seeds what is there or stops with an error. Which torrents have files in common is known
//! to the engine (`engine/path_owners.rs`); here is what follows from it for one of them.

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

/// The owner of a shared file, for sentences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its advisory name.
    pub name: String,
    /// Its wire hash.
    pub info_hash: InfoHash,
    /// The file that both have.
    pub file: PathBuf,
}

impl Owner {
    /// The torrent's name and the first digits of its hash.
    #[must_use]
    pub fn label(&self) -> String {
        let hash: String = self.info_hash.to_string().chars().take(8).collect();
        format!("{} ({hash})", escape(&self.name))
    }
}

/// How many numbers a stage takes in a record; the order of second torrents is beyond.
const STAGES: u64 = 4;
/// The last order that fits into a record: microseconds since the Unix epoch fit for ten thousand years.
const ORDER_MAX: u64 = 1 << 60;

/// How far a second torrent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondStage {
    /// The owners are not finished, or not known yet.
    Waits,
    /// The owners are finished, and its content is hashed, or about to be.
    Checks,
    /// Its content was hashed: if all that is wanted is there it seeds, otherwise it is refused.
    Decided,
    /// A shared file has another length than the owner's: it is refused without a look.
    Refused,
}

/// Whether the engine has compared the paths of a torrent with those of the others in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Yes,
    /// Not yet, and nothing suggests that they are shared: compared before the first write.
    No,
    /// Not yet, and they may be shared: the torrent does nothing until they are.
    Held,
}

#[derive(Debug)]
struct Second {
    stage: SecondStage,
    /// `None` until the engine has found the owner in this run.
    owner: Option<Owner>,
    /// Why it is refused, if it is.
    refusal: String,
}

/// What a torrent knows of owners of its files.
#[derive(Debug)]
pub(crate) struct PathConflict {
    compared: Compared,
    /// Whether it was added in this run and its paths were not compared then: every torrent that is no second goes before it.
    is_new: bool,
    /// Whether its comparison was asked for.
    asked: bool,
    /// Its rank among second torrents: lower is earlier. Clocks of whole seconds do not tell two apart that are added together.
    order: u64,
    second: Option<Box<Second>>,
}

impl Default for PathConflict {
    fn default() -> Self {
        Self { compared: Compared::Yes, is_new: false, asked: false, order: 0, second: None }
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

    /// Why the torrent is refused, if it is; `is_whole` says whether all that it wants is there.
    pub(crate) fn refusal(&self, is_whole: bool) -> Option<&str> {
        let second = self.second.as_ref()?;
        let is_refused = match second.stage {
            SecondStage::Refused => true,
            SecondStage::Decided => !is_whole,
            SecondStage::Waits | SecondStage::Checks => false,
        };
        is_refused.then_some(&second.refusal)
    }

    /// The number that a resume record keeps of it; `None` if the torrent is no second.
    pub(crate) fn recorded(&self) -> Option<u64> {
        let stage = match self.stage()? {
            SecondStage::Waits | SecondStage::Checks => 1,
            SecondStage::Decided => 2,
            SecondStage::Refused => 3,
        };
        Some(self.order.min(ORDER_MAX) * STAGES + stage)
    }

    /// The torrent of an earlier run, whose record kept this number.
    pub(crate) fn restored(recorded: Option<u64>) -> Self {
        let order = recorded.map_or(0, |number| number / STAGES);
        let stage = recorded.map(|number| match number % STAGES {
            2 => SecondStage::Decided,
            3 => SecondStage::Refused,
            _ => SecondStage::Waits,
        });
        let refusal = "its files belong to another torrent, too; the paths of both are still to be compared";
        let second = |stage| Box::new(Second { stage, owner: None, refusal: refusal.to_owned() });
        Self { compared: Compared::No, order, second: stage.map(second), ..Self::default() }
    }
}

impl Torrent {
    /// Whether another torrent owns some of its files.
    #[must_use]
    pub fn is_second(&self) -> bool {
        self.path_conflict.second.is_some()
    }

    /// How far it is as a second torrent; `None` if it is none.
    #[must_use]
    pub fn second_stage(&self) -> Option<SecondStage> {
        self.path_conflict.stage()
    }

    /// The owner that it was found to share a file with; `None` if it is no second, or that is not known in this run yet.
    #[must_use]
    pub fn owner(&self) -> Option<&Owner> {
        self.path_conflict.second.as_ref()?.owner.as_ref()
    }

    /// Whether it may write to its files. What lies in a share directory is the user's, and never written to.
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.path_conflict.may_write() && !self.settings.shared
    }

    /// Whether its paths were compared with those of the other torrents in this run.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        self.path_conflict.compared == Compared::Yes
    }

    /// Whether it does nothing until its paths are compared.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.path_conflict.compared == Compared::Held
    }

    /// Whether it has all that it wants, and nothing is being done with its files or wrong with them.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_finished()
            && self.check.is_none()
            && !self.recheck
            && self.phase == Phase::Ready
            && self.error().is_none()
            && !self.relocation.is_under_way()
    }

    /// The directories that its files are in, or were or are going to be in while they are moved.
    #[must_use]
    pub fn claimed_dirs(&self) -> Vec<PathBuf> {
        let others = [self.relocation.to(), self.relocation.recorded_from()];
        std::iter::once(&*self.dir).chain(others.into_iter().flatten()).map(Path::to_owned).collect()
    }

    /// The file or directory that holds everything, by its name and by the one that it is about to have.
    #[must_use]
    pub fn claimed_tops(&self) -> Vec<OsString> {
        let top = |names: &Names| names.top.clone().unwrap_or_else(|| self.head.top.clone().into_os_string());
        std::iter::once(&self.renaming.names).chain(&self.renaming.next).map(top).collect()
    }

    /// Its files, by their names and by those that they are about to have.
    ///
    /// # Panics
    /// If it is hibernated.
    #[must_use]
    pub fn claimed_lists(&self) -> Vec<Arc<FileList>> {
        let next = self.renaming.next.as_ref().map(|names| names.apply(&self.body.get().files));
        std::iter::once(self.layout.shared_files()).chain(next).collect()
    }

    /// Of two torrents with a file in common the one with the lower order owns it. A restart does not change the order. Of second
    /// torrents one that seeds the files goes before one that is refused, which would write over them if it became the owner.
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

    /// It is found to be a second torrent: its rank among those, unless it has one.
    pub fn take_order(&mut self, order: u64) {
        if !self.is_second() {
            self.path_conflict.order = order;
        }
    }

    /// Whether its paths were not compared when it was added in this run.
    #[must_use]
    pub fn is_new_uncompared(&self) -> bool {
        self.path_conflict.is_new
    }

    /// Its paths were not all compared when it was added: that is to be done before its first write.
    pub fn postpone_comparison(&mut self) {
        self.path_conflict.compared = Compared::No;
        self.path_conflict.is_new = true;
    }

    /// Its paths may be shared: it does nothing until they are compared.
    pub fn hold_for_comparison(&mut self, now: Time) {
        if self.path_conflict.compared != Compared::Held {
            self.path_conflict.compared = Compared::Held;
            self.turn_changed = true;
            self.reconsider(now);
        }
    }

    /// Its paths cannot be compared, because its description is lost: they are once that is here again.
    pub fn let_go_uncompared(&mut self) {
        self.path_conflict.asked = false;
        if self.path_conflict.compared == Compared::Held {
            self.path_conflict.compared = Compared::No;
        }
    }

    /// Its content is open: the owner of a second torrent that waits since an earlier run is looked for.
    pub(crate) fn look_for_owner(&mut self) {
        if self.second_stage() == Some(SecondStage::Waits) && self.owner().is_none() {
            self.asks.push_back(Ask::ComparePaths);
        }
    }

    /// Asks for the comparison of its paths that must precede its first write; true if it is still to be done.
    pub(crate) fn awaits_comparison(&mut self) -> bool {
        let awaits = self.path_conflict.compared == Compared::No && self.path_conflict.second.is_none();
        if awaits && !std::mem::replace(&mut self.path_conflict.asked, true) {
            self.asks.push_back(Ask::ComparePaths);
        }
        awaits
    }

    /// Its paths were compared, and no other torrent owns one of its files: it writes as any other. As far as it was a second
    /// it is hashed first. One that was refused is paused: what lies there is the content of the torrent that was removed, and
    /// only its user may have it overwritten.
    pub fn own_files(&mut self, now: Time) {
        let is_whole = self.is_finished();
        if self.path_conflict.refusal(is_whole).is_some() && !self.paused {
            log::warn!(
                "{}: paused: its files may hold the content of the torrent that was removed, and its own would overwrite \
                 that; `resume` lets it",
                self.display_name()
            );
            self.pause(now);
        }
        let was_second = self.path_conflict.second.take().is_some();
        let could_write = !was_second && self.is_compared();
        self.path_conflict = PathConflict::default();
        if could_write {
            return;
        }
        self.tell_storage();
        self.turn_changed = true;
        if was_second {
            log::info!("{}: no other torrent has its files any more", self.display_name());
            self.persistence.touch(now);
            self.recheck(now);
        }
        self.finish_files_later(now);
        self.resume_download(now);
        self.reconsider(now);
    }

    /// `owner` has one of its files, and is not finished: it waits, and nothing is claimed of its files.
    pub fn wait_for_owner(&mut self, now: Time, owner: Owner) {
        if self.second_stage() != Some(SecondStage::Waits) {
            log::info!("{}: waits for {}, which has {}, too", self.display_name(), owner.label(), owner.file.display());
            self.claim_no_files();
        }
        self.become_second(now, SecondStage::Waits, owner, String::new());
    }

    /// An owner that it was found to share a file with is not finished any more.
    pub fn wait_again(&mut self, now: Time) {
        if !matches!(self.second_stage(), Some(SecondStage::Waits | SecondStage::Refused))
            && let Some(owner) = self.owner().cloned()
        {
            self.wait_for_owner(now, owner);
        }
    }

    /// The owners of its files are finished: its content is hashed.
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

    /// It stays as it was decided; `owner` was found in this run.
    pub fn stay_second(&mut self, now: Time, owner: Owner) {
        let refusal = self.incomplete(&owner, &owner.file);
        self.become_second(now, SecondStage::Decided, owner, refusal);
    }

    /// `owner` has a file with another length where it has one.
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
        self.path_conflict = PathConflict { order, second, ..PathConflict::default() };
        if could_write {
            self.tell_storage();
        }
        if before != Some(stage) {
            self.persistence.touch(now);
        }
        self.turn_changed = true;
        self.reconsider(now);
    }

    /// Whether its content may be written is otherwise now. It is not opened anew: what was read and is still to be synced stays known.
    fn tell_storage(&mut self) {
        self.asks.extend(self.store.map(|_| Ask::Want));
    }

    /// What an earlier look at its files found counts for nothing.
    fn claim_no_files(&mut self) {
        self.suspend_download();
        self.check = None;
        self.recheck = false;
        if self.phase == Phase::Checking {
            self.phase = Phase::Ready;
        }
        self.claim = None;
        self.expected = None;
        self.have.clear_all();
        self.claim_nothing();
        self.restored.clear();
    }

    /// Its content was hashed: what that means for a second torrent.
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

    /// The path of a file that a piece lies in.
    fn file_of(&self, piece: Piece) -> Option<PathBuf> {
        let files = self.layout.files();
        let mut parts = files.parts(self.piece_span(piece)).map(|(file, _, _)| &files.entries()[file]);
        parts.find(|entry| !entry.pad).map(|entry| self.dir.join(&entry.path))
    }

    /// Why it is refused if what is in `lacking` is not what it wants there.
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
