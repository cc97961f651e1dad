//! Renaming a file of a torrent, or what holds all of them: recorded before it is done, so that the next run knows both names.
//!
//! What is sent and hashed is not touched: the description keeps its names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::files::FileList;
use crate::base::names::{Names, is_safe};
use crate::base::storage::Fault;
use crate::base::time::Time;
use crate::torrent::command::{FilePattern, Refusal, RefusalKind};
use crate::torrent::torrent::{Ask, Torrent};

/// What is known of other names.
#[derive(Debug, Default)]
pub(crate) struct Renaming {
    /// Those in force.
    pub(crate) names: Names,
    /// Those that are to be: on record before a file is touched.
    pub(crate) next: Option<Names>,
    /// They are being saved.
    saving: bool,
}

/// A rename on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenameStep {
    /// The present path, below the torrent's directory.
    pub from: PathBuf,
    /// The new one.
    pub to: PathBuf,
    /// All files under their new names.
    pub files: Arc<FileList>,
}

impl Torrent {
    /// Begins to give a file another name; `.` is the file or directory that holds everything. Says what path must be free.
    ///
    /// # Errors
    /// No such file or more than one, a name that is none or is taken within the torrent, or something else is being done with it.
    pub fn begin_rename(&mut self, pattern: &FilePattern, name: &str) -> Result<(RenameStep, Names), Refusal> {
        let refuse = |kind, message: &str| Err(Refusal::new(kind, message));
        if self.is_link() {
            return refuse(RefusalKind::Busy, "its files are not known yet; `why` says how far that is");
        }
        if self.settings.shared {
            return refuse(
                RefusalKind::Denied,
                "it lies in a share directory; rename it there, and it is described anew",
            );
        }
        if self.relocation.is_under_way() || self.renaming.next.is_some() || self.check.is_some() {
            return refuse(RefusalKind::Busy, "something else is being done with its content; `show` says what");
        }
        let name = OsString::from(name);
        if !is_safe(&name) {
            return refuse(RefusalKind::Invalid, "the new name is one name without a slash, of at most 255 bytes");
        }
        let mut names = self.renaming.names.clone();
        if *pattern == FilePattern::Glob(".".into()) {
            names.top = Some(name);
        } else {
            let mut meant = (0..self.file_count()).filter(|&file| self.is_meant(pattern, file));
            let (Some(file), None) = (meant.next(), meant.next()) else {
                return refuse(
                    RefusalKind::NotFound,
                    "that is not one file; name it by its index, as `files` shows it",
                );
            };
            if self.file(file).path.components().count() == 1 {
                names.top = Some(name);
            } else {
                names.files.insert(file, name);
            }
        }
        let Some(step) = self.rename_step(&names) else {
            return refuse(RefusalKind::Exists, "it has that name already");
        };
        let mut paths: Vec<&Path> = step.files.entries().filter(|entry| !entry.pad).map(|entry| entry.path).collect();
        paths.sort_unstable();
        if paths.windows(2).any(|pair| pair[1].starts_with(pair[0])) {
            return refuse(RefusalKind::Exists, "another file of the torrent has that name");
        }
        Ok((step, names))
    }

    /// The new path is free: it is recorded, then done.
    pub fn rename(&mut self, now: Time, names: Names) {
        self.renaming.next = Some(names);
        self.persistence.hurry(now);
    }

    /// What is to be done on the disk for `names` to hold; none if they hold.
    fn rename_step(&self, names: &Names) -> Option<RenameStep> {
        let files = names.apply(&self.body.get().files);
        let present = &self.content().files;
        let pairs = || present.entries().zip(files.entries()).filter(|(entry, _)| !entry.pad);
        let (old, new) = pairs().find(|(old, new)| old.path != new.path)?;
        let top = |path: &Path| PathBuf::from(path.components().next().map(|top| top.as_os_str()).unwrap_or_default());
        let is_top = self.renaming.names.top != names.top;
        let (from, to) =
            if is_top { (top(old.path), top(new.path)) } else { (old.path.to_owned(), new.path.to_owned()) };
        Some(RenameStep { from, to, files })
    }

    /// A record is about to be saved that says what is to be.
    pub(crate) fn note_saving_rename(&mut self) {
        self.renaming.saving = self.renaming.next.is_some();
    }

    /// A record was saved, or could not be.
    pub(crate) fn handle_rename_recorded(&mut self, saved: bool) {
        if std::mem::take(&mut self.renaming.saving) && saved {
            self.asks.push_back(Ask::Rename);
        }
    }

    /// What is on record and still to be done.
    #[must_use]
    pub fn next_rename(&self) -> Option<RenameStep> {
        self.rename_step(self.renaming.next.as_ref()?)
    }

    /// It is done, or could not be.
    pub fn handle_renamed(&mut self, now: Time, result: Result<(), Fault>) {
        let Some(names) = self.renaming.next.take() else { return };
        match result {
            Ok(()) => self.take_names(names),
            Err(fault) => log::warn!("{}: not renamed: {fault}", self.display_name()),
        }
        self.persistence.hurry(now);
        if let Some(data) = self.removal {
            self.asks.push_back(Ask::Remove { data });
        }
    }

    /// Its files are called so.
    pub(crate) fn take_names(&mut self, names: Names) {
        let files = names.apply(&self.body.get().files);
        self.renaming.names = names;
        self.layout.set_files(files);
    }
}
