//! The move of a torrent's content to another directory, as the torrent sees it: what is recorded before what is done.
//!
//! First it is looked whether it can be; then recorded that it is under way; then everything is taken there, while peers are
//! served from wherever a file is and nothing is written; then recorded where it is; then the originals of copies go. So at
//! whatever moment we end, the next run knows what to go on with, and the files are whole at one place or the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::storage::Fault;
use crate::base::time::Time;
use crate::codec::resume::Record;
use crate::torrent::command::{Refusal, RefusalKind};
use crate::torrent::event::What;
use crate::torrent::snapshot::Moving;
use crate::torrent::torrent::{Ask, Phase, Torrent};

/// How often it is looked how far a move is.
const PROGRESS: Duration = Duration::from_secs(1);

/// How far a move is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// It is looked whether it can be.
    Scouting { to: PathBuf },
    /// It is recorded that it begins; true once the record is being saved.
    Recording { to: PathBuf, saving: bool },
    /// Files go there.
    Going { to: PathBuf },
    /// It is recorded that they are there; true once the record is being saved.
    Switching { from: PathBuf, saving: bool },
    /// Originals of copies go.
    Clearing { from: PathBuf },
}

/// What is known of a move.
#[derive(Debug, Default)]
pub(crate) struct Relocation {
    stage: Option<Stage>,
    /// Bytes that are there, and bytes of all, as they were when it was last looked.
    progress: (u64, u64),
    /// When it is looked again.
    look_at: Option<Time>,
    /// Why the last move came to nothing.
    failed: Option<String>,
    /// A check is due then.
    check_after: bool,
    /// The user asked for it.
    verify_after: bool,
    /// Whether what was moved so far goes back: the user wants that, or has removed the torrent.
    undo: bool,
}

/// A job of a move to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveStep {
    /// Look whether it can be.
    Scout(PathBuf),
    /// Take everything there.
    Go {
        /// Where to.
        dir: PathBuf,
        /// Whether an earlier run began it.
        again: bool,
        /// Whether everything goes back to where it was instead.
        undo: bool,
    },
    /// Delete what is left where it was.
    Clear(PathBuf),
}

impl Relocation {
    /// True while nothing may be written to the content.
    pub(crate) const fn holds_writes(&self) -> bool {
        !matches!(self.stage, None | Some(Stage::Clearing { .. }))
    }

    /// The content is not at rest.
    pub(crate) const fn is_under_way(&self) -> bool {
        self.stage.is_some()
    }

    /// Where it goes, or is going to if it can.
    pub(crate) fn to(&self) -> Option<&Path> {
        match &self.stage {
            Some(Stage::Scouting { to } | Stage::Recording { to, .. } | Stage::Going { to }) => Some(to),
            _ => None,
        }
    }

    /// Where it goes, if that is on record.
    pub(crate) fn recorded_to(&self) -> Option<&Path> {
        match &self.stage {
            Some(Stage::Recording { to, .. } | Stage::Going { to }) => Some(to),
            _ => None,
        }
    }

    /// Where the user wants it, while it is not known yet whether it can be moved there.
    pub(crate) fn wanted_to(&self) -> Option<&Path> {
        match &self.stage {
            Some(Stage::Scouting { to }) => Some(to),
            _ => None,
        }
    }

    /// Whether the move that is on record goes back.
    pub(crate) const fn is_undone(&self) -> bool {
        self.undo
    }

    /// Where it was, if something may be left there.
    pub(crate) fn recorded_from(&self) -> Option<&Path> {
        match &self.stage {
            Some(Stage::Switching { from, .. } | Stage::Clearing { from }) => Some(from),
            _ => None,
        }
    }

    /// Whether the content is to be checked when the move has ended.
    pub(crate) const fn is_check_due(&self) -> bool {
        self.check_after
    }

    pub(crate) fn poll_timeout(&self) -> Time {
        self.look_at.unwrap_or(Time::NEVER)
    }
}

impl Torrent {
    /// Begins to move the content: [`Ask::Move`] says what to do.
    ///
    /// # Errors
    /// Something else is being done with it, or it is there already.
    pub fn begin_move(&mut self, now: Time, to: PathBuf) -> Result<(), Refusal> {
        let busy = |message| Err(Refusal::new(RefusalKind::Busy, message));
        if self.relocation.stage.is_some() {
            return busy("its content is being moved; wait until `show` says where it is");
        }
        if self.check.is_some() {
            return busy("its content is being hashed; move it when that is done");
        }
        if self.removal.is_some() {
            return busy("the torrent is being removed");
        }
        if self.phase == Phase::Allocating {
            return busy("room is being made for it; move it when that is done");
        }
        if to == self.dir {
            return Err(Refusal::new(RefusalKind::Exists, "its content is in that directory already"));
        }
        if self.is_link() {
            // There are no files yet.
            self.dir = to;
            self.persistence.touch(now);
            self.asks.push_back(Ask::Reopen);
            return Ok(());
        }
        self.relocation = Relocation { stage: Some(Stage::Scouting { to: to.clone() }), ..Relocation::default() };
        // If this run ends now, the next one looks whether it can be.
        self.persistence.touch(now);
        self.turn_changed = true;
        self.pause_download(now);
        self.asks.push_back(Ask::Move(MoveStep::Scout(to)));
        Ok(())
    }

    /// True if the user wants the torrent back where it is: the move that is under way is to be undone.
    pub fn calls_move_off(&self, to: &Path) -> bool {
        matches!(self.relocation.stage, Some(Stage::Going { .. })) && to == self.dir
    }

    /// The move that is under way goes back. That is on record before the command is acknowledged.
    pub fn undo_move(&mut self, now: Time) {
        self.relocation.undo = true;
        self.persistence.touch(now);
    }

    /// An earlier run had begun a move, or had not cleared up after it.
    pub(crate) fn restore_move(&mut self, record: &Record) {
        let undo = record.move_undo || record.remove_after.is_some();
        let (stage, step) = match (record.move_to.clone(), record.move_from.clone(), record.move_wanted.clone()) {
            (Some(to), _, _) => (Stage::Going { to: to.clone() }, MoveStep::Go { dir: to, again: true, undo }),
            (None, Some(from), _) => (Stage::Clearing { from: from.clone() }, MoveStep::Clear(from)),
            (None, None, Some(to)) if !undo => (Stage::Scouting { to: to.clone() }, MoveStep::Scout(to)),
            (None, None, _) => return,
        };
        self.relocation.stage = Some(stage);
        self.relocation.undo = undo;
        self.asks.push_back(Ask::Move(step));
    }

    /// It can be moved, or it cannot.
    pub fn handle_scouted(&mut self, now: Time, result: Result<(), Fault>) {
        let Some(Stage::Scouting { to }) = self.relocation.stage.take() else { return };
        match result {
            _ if self.removal.is_some() => self.end_move(now),
            Ok(()) => {
                self.relocation.stage = Some(Stage::Recording { to, saving: false });
                self.persistence.hurry(now);
            }
            Err(fault) => self.fail_move(now, &fault.message),
        }
    }

    /// A record is about to be saved that says how far a move is.
    pub(crate) fn note_saving_move(&mut self) {
        if let Some(Stage::Recording { saving, .. } | Stage::Switching { saving, .. }) = &mut self.relocation.stage {
            *saving = true;
        }
    }

    /// A record was saved, or could not be.
    pub(crate) fn handle_move_recorded(&mut self, now: Time, saved: bool) {
        match self.relocation.stage.take() {
            Some(Stage::Recording { .. }) if self.removal.is_some() => self.end_move(now),
            Some(Stage::Recording { saving: true, .. }) if !saved => {
                self.fail_move(now, "the state directory cannot be written to, and nothing is moved without a record");
            }
            Some(Stage::Recording { to, saving: true }) => {
                self.relocation.look_at = Some(now + PROGRESS);
                self.asks.push_back(Ask::Move(MoveStep::Go { dir: to.clone(), again: false, undo: false }));
                self.relocation.stage = Some(Stage::Going { to });
            }
            Some(Stage::Switching { from, saving: true }) if saved => {
                self.asks.push_back(Ask::Move(MoveStep::Clear(from.clone())));
                self.relocation.stage = Some(Stage::Clearing { from });
                self.tell_move(1.0, true);
                self.go_on_after_move(now);
            }
            // It is tried again.
            stage => self.relocation.stage = stage,
        }
    }

    /// The content is elsewhere now, or still where it was.
    pub fn handle_moved(&mut self, now: Time, result: Result<(), Fault>) {
        let Some(Stage::Going { to }) = self.relocation.stage.take() else { return };
        if self.persistence.is_closing() && result.is_err() {
            self.relocation.stage = Some(Stage::Going { to }); // the next run goes on
            return;
        }
        self.relocation.look_at = None;
        match result {
            Ok(()) => {
                let from = std::mem::replace(&mut self.dir, to);
                self.disk.doubt_all();
                self.relocation.stage = Some(Stage::Switching { from, saving: false });
                self.persistence.hurry(now);
            }
            Err(fault) => self.fail_move(now, &fault.message),
        }
    }

    /// What was left where the content was is gone.
    pub fn handle_cleared(&mut self, now: Time, result: Result<(), Fault>) {
        if let Some(Stage::Clearing { .. }) = self.relocation.stage
            && (result.is_ok() || !self.persistence.is_closing())
        {
            self.end_move(now);
        }
    }

    fn fail_move(&mut self, now: Time, why: &str) {
        log::warn!("{}: not moved: {why}", self.display_name());
        self.relocation.failed = Some(why.to_owned());
        self.news.push(What::MoveFailed(why.to_owned()));
        self.end_move(now);
    }

    /// It is over; what had to wait for it comes now.
    fn end_move(&mut self, now: Time) {
        self.relocation.stage = None;
        self.relocation.look_at = None;
        self.relocation.undo = false;
        self.persistence.touch(now);
        if let Some(data) = self.removal {
            self.asks.push_back(Ask::Remove { data });
            return;
        }
        let is_asked_for = std::mem::take(&mut self.relocation.verify_after);
        if std::mem::take(&mut self.relocation.check_after) {
            if is_asked_for { self.verify(now) } else { self.recheck(now) }
        }
        self.go_on_after_move(now);
    }

    fn go_on_after_move(&mut self, now: Time) {
        self.turn_changed = true;
        if self.fault.is_some() {
            self.retry_at = now;
        }
        self.resume_download(now);
        self.reconsider(now);
    }

    /// A check, which the user asked for or not, has to wait for a move: true if one is under way.
    pub(crate) fn postpone_check(&mut self, now: Time, is_asked_for: bool) -> bool {
        let is_moving = self.relocation.stage.is_some();
        self.relocation.check_after |= is_moving;
        self.relocation.verify_after |= is_moving && is_asked_for;
        if is_moving {
            self.persistence.touch(now);
        }
        is_moving
    }

    /// Whether a removal has to wait: for the end of a move, which is undone unless it is nearly over, or of a rename, which was
    /// acknowledged.
    #[must_use]
    pub const fn postpones_removal(&self) -> bool {
        self.relocation.is_under_way() || self.renaming.next.is_some()
    }

    /// The user removed the torrent, with its data if `data`, while something is under way that has to end first. That is on
    /// record before the command is acknowledged.
    pub fn note_removal(&mut self, now: Time, data: bool) {
        self.removal = Some(data || self.removal == Some(true));
        self.persistence.touch(now);
    }

    /// Whether the user has removed the torrent, with its data if true, and something that is under way has to end first.
    #[must_use]
    pub const fn removal(&self) -> Option<bool> {
        self.removal
    }

    /// It is time to look how far the move is.
    pub(crate) fn look_at_move(&mut self, now: Time) {
        if self.relocation.poll_timeout() <= now {
            self.relocation.look_at = Some(now + PROGRESS);
            self.asks.push_back(Ask::MoveProgress);
        }
    }

    /// So far it is.
    pub fn handle_move_progress(&mut self, progress: Option<(u64, u64)>) {
        let Some(progress) = progress else { return };
        let percent = |(done, total): (u64, u64)| u128::from(done) * 100 / u128::from(total.max(1));
        let is_news = percent(progress) != percent(self.relocation.progress);
        self.relocation.progress = progress;
        if is_news {
            self.tell_move(share(progress), false);
        }
    }

    fn tell_move(&mut self, progress: f64, is_there: bool) {
        let dir = match &self.relocation.stage {
            Some(Stage::Going { to }) => to.clone(),
            _ => self.dir.clone(),
        };
        // In thousandths: events are compared.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a thousand")]
        let thousandths = (progress * 1000.0) as u16;
        self.news.push(What::Move { dir, thousandths, is_there });
    }

    /// The move as others see it.
    pub(crate) fn moving(&self) -> Option<Moving> {
        let (to, progress) = match self.relocation.stage.as_ref()? {
            Stage::Scouting { to } | Stage::Recording { to, .. } => (to, 0.0),
            Stage::Going { to } => (to, share(self.relocation.progress)),
            Stage::Switching { .. } | Stage::Clearing { .. } => (&self.dir, 1.0),
        };
        Some(Moving { to: to.clone(), progress })
    }

    /// Why the last move came to nothing.
    pub(crate) fn move_error(&self) -> Option<&str> {
        self.relocation.failed.as_deref()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share((done, total): (u64, u64)) -> f64 {
    if total == 0 { 0.0 } else { done as f64 / total as f64 }
}
