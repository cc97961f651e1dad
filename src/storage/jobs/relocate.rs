//! Moving content to another directory: each file is renamed, or copied where that is another file system.
//!
//! A move has three jobs, and between them the torrent records how far it is (`torrent/relocation.rs`): `Scout` looks whether
//! it can succeed and changes nothing; `Move` takes everything there; `Clear` deletes the originals of copies once it is
//! recorded where the content is. `Move` may end at any moment, even by a power cut, and begin again: what it finds tells how
//! far it was. Copies are made under numbers in a directory of their own, [`staging`], and get their names when all are there;
//! so a file at the target that has a name is whole. Meanwhile whoever reads finds a file at either place.
//! On a fault everything goes back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::base::files::FileList;
use crate::base::hash::InfoHash;
use crate::base::ids::StoreId;
use crate::base::storage::{Fault, FaultKind, Stamp};
use crate::storage::jobs::Slice;
use crate::storage::jobs::copy::{Copy, Trouble};
use crate::storage::jobs::dirs_to_sync::DirsToSync;
use crate::storage::{FileStorage, closed, fault, place};

/// Files that are looked at in one slice.
const FILES_A_SLICE: usize = 16;

/// Where copies of a torrent's files are made, in the directory that they are moved to.
fn staging(to: &Path, info_hash: InfoHash) -> PathBuf {
    to.join(format!(".{info_hash}.moving"))
}

/// A move under way.
#[derive(Debug)]
pub(super) struct Relocate {
    store: StoreId,
    files: Arc<FileList>,
    from: PathBuf,
    to: PathBuf,
    staging: PathBuf,
    /// An earlier run began it: what has a name at the target may be ours.
    again: bool,
    /// The topmost of the target's directories that was not there.
    made: Option<PathBuf>,
    /// The file that is next in this phase.
    file: usize,
    moved: Vec<(usize, How)>,
    copy: Option<Copy>,
    /// Where files were put back.
    put_back: DirsToSync,
    phase: Phase,
    /// Bytes of the files that are done, and of all of them.
    done_bytes: u64,
    total_bytes: u64,
    stop: Option<Stop>,
}

#[derive(Debug)]
enum Phase {
    /// There.
    Going,
    /// All copies are made; they get their names.
    Naming,
    /// All names are there; so that they stay, these directories are synced.
    Syncing(Vec<PathBuf>),
    /// Something failed; what was moved goes back.
    Returning(Fault),
    /// What may be left of copies goes.
    Sweeping(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Renamed,
    /// It waits among the copies.
    Copied,
    /// It is a copy, and has its name.
    Named,
}

/// How a move ends before it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Everything goes back.
    Undo,
    /// Everything is left as it is: the next run goes on.
    Leave,
}

impl Relocate {
    pub(super) fn begin(
        storage: &mut FileStorage,
        store: StoreId,
        to: PathBuf,
        info_hash: InfoHash,
        again: bool,
    ) -> Self {
        let content = storage.stores.get_mut(store).map(|store| &mut store.content);
        let phase = if content.is_some() { Phase::Going } else { Phase::Returning(closed()) };
        let (files, from) = content.map_or_else(Default::default, |content| {
            content.also = Some(to.clone());
            (Arc::clone(&content.files), content.dir.clone())
        });
        Self {
            store,
            total_bytes: files.entries().filter(|entry| !entry.pad).map(|entry| entry.span.len).sum(),
            files,
            from,
            staging: staging(&to, info_hash),
            made: to.ancestors().take_while(|dir| !dir.exists()).last().map(Path::to_owned),
            to,
            again,
            file: 0,
            moved: Vec::new(),
            copy: None,
            put_back: DirsToSync::default(),
            phase,
            done_bytes: 0,
            stop: None,
        }
    }

    /// Bytes that are there, and bytes of all.
    pub(super) fn progress(&self) -> (u64, u64) {
        let copied = self.copy.as_ref().map_or(0, Copy::done_bytes);
        ((self.done_bytes + copied).min(self.total_bytes), self.total_bytes)
    }

    pub(super) const fn stop(&mut self, stop: Stop) {
        self.stop = Some(stop);
    }

    pub(super) fn step(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        match self.stop.take() {
            Some(Stop::Leave) => return Err(stopped()),
            Some(Stop::Undo) if !matches!(self.phase, Phase::Returning(_) | Phase::Sweeping(_)) => {
                self.turn_back(stopped());
            }
            _ => {}
        }
        match &mut self.phase {
            Phase::Going => match self.go(storage) {
                Ok(slice) => return Ok(slice),
                Err(fault) => self.turn_back(fault),
            },
            Phase::Naming => {
                if let Err(fault) = self.name() {
                    self.turn_back(fault);
                }
            }
            Phase::Syncing(dirs) => {
                if let Some(dir) = dirs.pop() {
                    if let Err(errno) = place::sync_dir(&self.to, &dir) {
                        self.turn_back(fault(errno, &self.to.join(dir), "brought to the disk"));
                    }
                } else {
                    self.arrive(storage);
                    return Ok(Slice::Done);
                }
            }
            Phase::Returning(fault) => {
                if let Some(file) = self.file.checked_sub(1) {
                    self.file = file;
                    self.put_back(file);
                } else {
                    self.phase = Phase::Sweeping(fault.clone());
                }
            }
            Phase::Sweeping(fault) => {
                let fault = fault.clone();
                return self.sweep(storage, fault);
            }
        }
        Ok(Slice::More)
    }

    fn turn_back(&mut self, fault: Fault) {
        self.copy = None;
        // How far an earlier run was is not known; in this one all files before `file`, and ways for that one, may be there.
        let is_going = matches!(self.phase, Phase::Going) && !self.again;
        self.file = if is_going { self.files.len().min(self.file + 1) } else { self.files.len() };
        self.phase = Phase::Returning(fault);
    }

    /// A slice of the way there.
    fn go(&mut self, storage: &FileStorage) -> Result<Slice, Fault> {
        let files = Arc::clone(&self.files);
        let Some(entry) = files.get(self.file) else {
            (self.phase, self.file) = (Phase::Naming, 0);
            return Ok(Slice::More);
        };
        let (path, target) = (&entry.path, self.to.join(entry.path));
        let whole = PathBuf::from(self.file.to_string());
        if let Some(copy) = &mut self.copy {
            let slice = copy.step().map_err(|trouble| self.told(trouble, path))?;
            if slice == Slice::Done {
                rename(&self.staging, &part_of(&whole), &self.staging, &whole)
                    .map_err(|errno| fault(errno, &target, "written"))?;
                self.copy = None;
                self.note(How::Copied);
                return Ok(Slice::More);
            }
            return Ok(slice);
        }
        if entry.pad {
            self.file += 1;
            return Ok(Slice::More);
        }
        let (old, new) = (place::stamp(&self.from, path), place::stamp(&self.to, path));
        match (old, new) {
            (None, None) if storage.holds(self.store, self.file) => {
                return Err(fault(Errno::NOENT, &self.from.join(path), "read"));
            }
            (None, None) => self.skip(),
            (None, Some(_)) if self.again => self.note(How::Renamed),
            (None, Some(_)) => return Err(in_the_way(&target)),
            (Some(old), Some(new)) if self.again && is_same(old, new) => self.note(How::Named),
            (Some(_), Some(_)) => return Err(in_the_way(&target)),
            (Some(old), None) if place::stamp(&self.staging, &whole).is_some_and(|made| is_same(old, made)) => {
                self.note(How::Copied);
            }
            (Some(_), None) => match rename(&self.from, path, &self.to, path) {
                Ok(()) => self.note(How::Renamed),
                Err(Errno::XDEV) => self.begin_copy(path, &whole)?,
                Err(Errno::EXIST) => return Err(in_the_way(&target)),
                Err(errno) => return Err(fault(errno, &target, "written")),
            },
        }
        Ok(Slice::More)
    }

    fn begin_copy(&mut self, path: &Path, whole: &Path) -> Result<(), Fault> {
        // What an earlier run left unfinished, or made of what has changed since, is made anew.
        for name in [whole, &part_of(whole)] {
            place::delete(&self.staging, name).map_err(|errno| fault(errno, &self.staging.join(name), "deleted"))?;
        }
        let copy = Copy::begin(&self.from, path, &self.staging, &part_of(whole));
        self.copy = Some(copy.map_err(|trouble| self.told(trouble, path))?);
        Ok(())
    }

    fn told(&self, trouble: Trouble, path: &Path) -> Fault {
        match trouble {
            Trouble::Read(errno) => fault(errno, &self.from.join(path), "read"),
            Trouble::Write(errno) => fault(errno, &self.to.join(path), "written"),
        }
    }

    fn note(&mut self, how: How) {
        self.moved.push((self.file, how));
        self.skip();
    }

    fn skip(&mut self) {
        self.done_bytes += self.files.entry(self.file).span.len;
        self.file += 1;
    }

    /// Gives the next copy its name.
    fn name(&mut self) -> Result<(), Fault> {
        let Some((file, how)) = self.moved.get_mut(self.file) else {
            // The staging directory is empty; were it not, that is for whoever put something there.
            let _ = unlinkat(rustix::fs::CWD, &self.staging, AtFlags::REMOVEDIR);
            self.phase = Phase::Syncing(self.parents());
            return Ok(());
        };
        if *how == How::Copied {
            let path = &self.files.entry(*file).path;
            let target = self.to.join(path);
            rename(&self.staging, Path::new(&file.to_string()), &self.to, path).map_err(|errno| match errno {
                Errno::EXIST => in_the_way(&target),
                errno => fault(errno, &target, "written"),
            })?;
            *how = How::Named;
        }
        self.file += 1;
        Ok(())
    }

    /// The directories below the target that hold something of what was moved, the target itself last.
    fn parents(&self) -> Vec<PathBuf> {
        let paths = self.moved.iter().map(|(file, _)| self.files.entry(*file).path);
        let dirs: std::collections::BTreeSet<PathBuf> =
            paths.flat_map(|path| path.ancestors().skip(1)).map(PathBuf::from).collect();
        dirs.into_iter().collect()
    }

    /// Everything is there, and stays: from now on it is read there.
    fn arrive(&mut self, storage: &mut FileStorage) {
        storage.windows.forget(self.store, None);
        storage.files.forget(self.store, None);
        if let Some(store) = storage.stores.get_mut(self.store) {
            store.content.dir.clone_from(&self.to);
            store.content.also = None;
            store.device = None;
        }
        for (file, how) in &self.moved {
            if *how == How::Renamed {
                place::tidy(&self.from, self.files.entry(*file).path);
            }
        }
    }

    fn put_back(&mut self, file: usize) {
        let files = Arc::clone(&self.files);
        let entry = &files.entry(file);
        if entry.pad {
            return;
        }
        let path = &entry.path;
        let noted = self.moved.pop_if(|(moved, _)| *moved == file).map(|(_, how)| how);
        let how = noted.or_else(|| if self.again { self.found(path) } else { None });
        let result = match how {
            Some(How::Renamed) => {
                self.put_back.note(path);
                rename(&self.to, path, &self.from, path)
            }
            Some(How::Named) => place::delete(&self.to, path),
            Some(How::Copied) | None => Ok(()), // a copy is swept away
        };
        if let Err(errno) = result {
            log::error!("{} could not be put back: {errno}", self.to.join(path).display());
        }
        place::tidy(&self.to, path);
    }

    /// How an earlier run moved a file, if it has its name at the target.
    fn found(&self, path: &Path) -> Option<How> {
        match (place::stamp(&self.from, path), place::stamp(&self.to, path)) {
            (None, Some(_)) => Some(How::Renamed),
            (Some(old), Some(new)) if is_same(old, new) => Some(How::Named),
            _ => None,
        }
    }

    /// Deletes what may be left of copies, then the directories that were made for them.
    fn sweep(&mut self, storage: &mut FileStorage, fault: Fault) -> Result<Slice, Fault> {
        let end = self.files.len().min(self.file + FILES_A_SLICE);
        if self.file < end && self.staging.exists() {
            for file in self.file..end {
                let whole = PathBuf::from(file.to_string());
                for name in [&part_of(&whole), &whole] {
                    if let Err(errno) = place::delete(&self.staging, name) {
                        log::error!("{} could not be deleted: {errno}", self.staging.join(name).display());
                    }
                }
            }
            self.file = end;
            return Ok(Slice::More);
        }
        // The record says next that everything is where it was.
        if let Some(result) = self.put_back.sync_next(&self.from) {
            if let Err(fault) = result {
                log::error!("{fault}");
            }
            return Ok(Slice::More);
        }
        // Directories go only if they are empty.
        let _ = unlinkat(rustix::fs::CWD, &self.staging, AtFlags::REMOVEDIR);
        if let Some(made) = &self.made {
            for dir in self.to.ancestors().take_while(|dir| dir.starts_with(made)) {
                if unlinkat(rustix::fs::CWD, dir, AtFlags::REMOVEDIR).is_err() {
                    break;
                }
            }
        }
        storage.windows.forget(self.store, None);
        storage.files.forget(self.store, None);
        if let Some(store) = storage.stores.get_mut(self.store) {
            store.content.also = None;
        }
        Err(fault)
    }
}

fn part_of(whole: &Path) -> PathBuf {
    whole.with_extension("part")
}

/// A file and its copy, which keeps the time.
fn is_same(one: Stamp, other: Stamp) -> bool {
    (one.len, one.modified_nanos) == (other.len, other.modified_nanos)
}

fn stopped() -> Fault {
    Fault { kind: FaultKind::Io, message: "the move was called off; everything is where it was".into() }
}

fn in_the_way(target: &Path) -> Fault {
    let message = format!("{} is there already; move it away first", target.display());
    Fault { kind: FaultKind::Denied, message }
}

/// Renames one file from below `from` to below `to`; never over another one.
fn rename(from: &Path, path: &Path, to: &Path, new_path: &Path) -> Result<(), Errno> {
    place::make_way(to, new_path)?;
    let (old, name) = place::parent(from, path)?;
    let (new, new_name) = place::parent(to, new_path)?;
    renameat_with(&old, name, &new, new_name, RenameFlags::NOREPLACE)
}

/// Looking whether a move can succeed.
#[derive(Debug)]
pub(super) struct Scout {
    store: StoreId,
    to: PathBuf,
    file: usize,
    /// Bytes that another file system must have room for.
    bytes: u64,
}

impl Scout {
    pub(super) const fn begin(store: StoreId, to: PathBuf) -> Self {
        Self { store, to, file: 0, bytes: 0 }
    }

    pub(super) fn step(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        let of = storage.stores.get(self.store).ok_or_else(closed)?;
        let content = &of.content;
        let entries = content.files.entries().enumerate().skip(self.file).take(FILES_A_SLICE);
        let mut looked = 0;
        for (file, entry) in entries {
            looked += 1;
            if entry.pad {
                continue;
            }
            if of.witness(file) == Some(file) && !of.is_in_place(file) {
                return Err(fault(Errno::NOENT, &content.dir.join(entry.path), "read"));
            }
            if place::is_there(&self.to, entry.path) {
                return Err(in_the_way(&self.to.join(entry.path)));
            }
            self.bytes += place::allocated_bytes(&content.dir, entry.path).min(entry.span.len);
        }
        self.file += looked;
        if looked > 0 {
            return Ok(Slice::More);
        }
        place::may_write(&self.to).map_err(|errno| fault(errno, &self.to, "written to"))?;
        if place::device(&content.dir) != place::device(&self.to) {
            let min_free = storage.settings.min_free_bytes;
            storage.spaces.promise(&self.to, &mut None, self.bytes, min_free)?;
        }
        Ok(Slice::Done)
    }
}

/// Deleting the originals of copies.
#[derive(Debug)]
pub(super) struct Clear {
    files: Arc<FileList>,
    from: PathBuf,
    file: usize,
    changed: DirsToSync,
    pub(super) stop: bool,
}

impl Clear {
    pub(super) fn begin(storage: &FileStorage, store: StoreId, from: PathBuf) -> Self {
        let files = storage.stores.get(store).map(|store| Arc::clone(&store.content.files)).unwrap_or_default();
        Self { files, from, file: 0, changed: DirsToSync::default(), stop: false }
    }

    pub(super) fn step(&mut self) -> Result<Slice, Fault> {
        if self.stop {
            return Err(stopped());
        }
        let Some(entry) = self.files.get(self.file) else {
            return match self.changed.sync_next(&self.from) {
                Some(result) => result.map(|()| Slice::More),
                None => Ok(Slice::Done),
            };
        };
        if entry.pad {
            self.file += 1;
            return Ok(Slice::More);
        }
        match place::shorten(&self.from, entry.path) {
            Ok(true) => return Ok(Slice::More),
            Ok(false) => self.changed.note(entry.path),
            // The copy is durable; an original that cannot be deleted is left, and harms nobody.
            Err(errno) => {
                log::warn!("{} was copied and could not be deleted: {errno}", self.from.join(entry.path).display());
            }
        }
        place::tidy(&self.from, entry.path);
        self.file += 1;
        Ok(Slice::More)
    }
}
