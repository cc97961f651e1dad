//! What may wait for a disk, a slice at a time: saving state, syncing, allocating, moving, deleting.
//!
//! Jobs are done in the order they came. Each slice is one short system call's worth; a job that fails has changed nothing, or
//! undoes what it did.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, RenameFlags, fallocate, fdatasync, fsync, ftruncate, renameat_with};
use rustix::io::{Errno, pread, pwrite};

use crate::base::ids::{JobId, StoreId};
use crate::base::storage::{Fault, FaultKind, Job};
use crate::storage::{FileStorage, closed, errno_of, fault, place};

/// Bytes allocated in one slice: on a file system in memory that is some milliseconds.
const ALLOCATE_SLICE: u64 = 16 << 20;
/// Bytes copied in one slice, where content moves to another file system.
const COPY_SLICE: usize = 1 << 20;

/// Jobs, and which files were written since their last sync.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: VecDeque<(JobId, Job)>,
    current: Option<(JobId, Task)>,
    done: VecDeque<(JobId, Result<(), Fault>)>,
    written: BTreeSet<(StoreId, usize)>,
    /// The last note, so that a run of writes to one file is noted once.
    last: Option<(StoreId, usize)>,
}

/// A job under way.
#[derive(Debug)]
enum Task {
    Save { name: PathBuf, bytes: Vec<u8> },
    Erase { name: PathBuf },
    Sync { files: Vec<(StoreId, usize)> },
    Allocate { store: StoreId, file: usize, done: u64 },
    Move(Box<Move>),
    Delete { store: StoreId, file: usize },
}

/// A move under way: files before `file` are there already.
#[derive(Debug)]
struct Move {
    store: StoreId,
    from: PathBuf,
    to: PathBuf,
    file: usize,
    moved: Vec<(usize, How)>,
    /// Bytes of `file` that were copied, where it must be.
    copied: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Renamed,
    Copied,
}

impl Jobs {
    pub(super) fn push(&mut self, id: JobId, job: Job) {
        self.waiting.push_back((id, job));
    }

    pub(super) fn poll(&mut self) -> Option<(JobId, Result<(), Fault>)> {
        self.done.pop_front()
    }

    pub(super) fn note_written(&mut self, store: StoreId, file: usize) {
        if self.last != Some((store, file)) {
            self.last = Some((store, file));
            self.written.insert((store, file));
        }
    }
}

/// One slice; true while more waits.
pub(super) fn work(storage: &mut FileStorage) -> bool {
    if storage.jobs.current.is_none() {
        let Some((id, job)) = storage.jobs.waiting.pop_front() else { return false };
        let task = begin(storage, job);
        storage.jobs.current = Some((id, task));
    }
    let (id, mut task) = storage.jobs.current.take().expect("it was just begun");
    match step(storage, &mut task) {
        Ok(false) => storage.jobs.current = Some((id, task)),
        Ok(true) => storage.jobs.done.push_back((id, Ok(()))),
        Err(fault) => {
            undo(storage, &task);
            storage.jobs.done.push_back((id, Err(fault)));
        }
    }
    storage.jobs.current.is_some() || !storage.jobs.waiting.is_empty()
}

fn begin(storage: &mut FileStorage, job: Job) -> Task {
    match job {
        Job::Save { name, bytes } => Task::Save { name, bytes },
        Job::Erase { name } => Task::Erase { name },
        Job::Sync { store } => {
            let files: Vec<_> = storage.jobs.written.iter().copied().filter(|(of, _)| *of == store).collect();
            storage.jobs.written.retain(|(of, _)| *of != store);
            storage.jobs.last = None;
            Task::Sync { files }
        }
        Job::Allocate { store } => Task::Allocate { store, file: 0, done: 0 },
        Job::Move { store, dir } => {
            let from = storage.stores.get(store).map(|store| store.content.dir.clone()).unwrap_or_default();
            Task::Move(Box::new(Move { store, from, to: dir, file: 0, moved: Vec::new(), copied: None }))
        }
        Job::Delete { store } => Task::Delete { store, file: 0 },
    }
}

/// A slice of `task`; true once it is done.
fn step(storage: &mut FileStorage, task: &mut Task) -> Result<bool, Fault> {
    match task {
        Task::Save { name, bytes } => match &storage.state {
            Some(state) => state.save(name, bytes).map(|()| true),
            None => Ok(true),
        },
        Task::Erase { name } => match &storage.state {
            Some(state) => state.erase(name).map(|()| true),
            None => Ok(true),
        },
        Task::Sync { files } => {
            if let Some((store, file)) = files.pop() {
                sync_file(storage, store, file)?;
            }
            Ok(files.is_empty())
        }
        Task::Allocate { store, file, done } => allocate(storage, *store, file, done),
        Task::Move(moving) => move_slice(storage, moving),
        Task::Delete { store, file } => delete_slice(storage, *store, file),
    }
}

/// Makes one file durable. A sync that failed is told once and never repeated: what it lost stays lost.
fn sync_file(storage: &mut FileStorage, store: StoreId, file: usize) -> Result<(), Fault> {
    if storage.stores.get(store).is_none() {
        return Ok(());
    }
    let path = storage.path(store, file);
    let open = storage.file(store, file, true)?;
    open.unflushed = 0;
    let result = fdatasync(&open.fd).map_err(|errno| Fault {
        kind: if matches!(errno, Errno::NOSPC | Errno::DQUOT) { FaultKind::Full } else { FaultKind::Io },
        message: format!(
            "{} could not be brought to the disk ({errno}), so what was written lately may be lost; check the disk",
            path.display()
        ),
    });
    if result.is_err() {
        storage.forget_file(store, file);
    }
    result
}

fn allocate(storage: &mut FileStorage, store: StoreId, file: &mut usize, done: &mut u64) -> Result<bool, Fault> {
    let content = &storage.stores.get(store).ok_or_else(closed)?.content;
    let Some(entry) = content.files.entries().get(*file) else { return Ok(true) };
    let (len, wanted, dir) = (entry.span.len, content.wanted[*file] && !entry.pad, content.dir.clone());
    if !wanted {
        *file += 1;
        return Ok(false);
    }
    let path = dir.join(&entry.path);
    let slice = ALLOCATE_SLICE.min(len - *done);
    let (index, from) = (*file, *done);
    let min_free = storage.settings.min_free_bytes;
    let open = storage.file(store, index, true)?;
    if open_len(open.fd.as_fd()) >= len && from == 0 && is_allocated(open.fd.as_fd(), len) {
        *file += 1;
        return Ok(false);
    }
    if slice > 0 {
        let free = place::free_bytes(&dir).unwrap_or(u64::MAX);
        if free < min_free.saturating_add(slice) && !is_allocated(open.fd.as_fd(), len) {
            let needed = len - from;
            storage.look_for_space(&dir, needed.max(slice))?;
        }
        let open = storage.file(store, index, true)?;
        match fallocate(&open.fd, FallocateFlags::empty(), from, slice) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                // No way to make sure of room here; the file has its length, and a full disk is met when it is written.
                if open_len(open.fd.as_fd()) < len {
                    ftruncate(&open.fd, len).map_err(|errno| fault(errno, &path, "written"))?;
                }
                *done = len;
            }
            Err(errno) => return Err(fault(errno, &path, "written")),
        }
        *done = (*done).max(from + slice);
    }
    if *done >= len {
        *file += 1;
        *done = 0;
    }
    Ok(false)
}

fn open_len(fd: std::os::fd::BorrowedFd<'_>) -> u64 {
    rustix::fs::fstat(fd).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

fn is_allocated(fd: std::os::fd::BorrowedFd<'_>, len: u64) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512 >= len)
}

fn move_slice(storage: &mut FileStorage, moving: &mut Move) -> Result<bool, Fault> {
    let content = &storage.stores.get(moving.store).ok_or_else(closed)?.content;
    let files = std::sync::Arc::clone(&content.files);
    let Some(entry) = files.entries().get(moving.file) else {
        return finish_move(storage, moving).map(|()| true);
    };
    let exists = !entry.pad && place::stamp(&moving.from, &entry.path).is_some();
    if moving.from == moving.to || !exists {
        moving.file += 1;
        return Ok(false);
    }
    let target = moving.to.join(&entry.path);
    let told = |errno| fault(errno, &target, "written");
    if let Some(copied) = moving.copied {
        let (from, to) = (place::open(&moving.from, &entry.path, false), place::open(&moving.to, &entry.path, true));
        let (from, to) = (from.map_err(told)?, to.map_err(told)?);
        // Not `copy_file_range`: it refuses to cross from one kind of file system to another.
        let mut buf = vec![0; COPY_SLICE];
        let count = pread(&from, buf.as_mut_slice(), copied).map_err(told)?;
        let mut rest = &buf[..count];
        let mut at = copied;
        while !rest.is_empty() {
            let written = pwrite(&to, rest, at).map_err(told)?;
            rest = &rest[written..];
            at += written as u64;
        }
        if count > 0 {
            moving.copied = Some(at);
            return Ok(false);
        }
        fsync(&to).map_err(told)?;
        moving.copied = None;
        moving.moved.push((moving.file, How::Copied));
        moving.file += 1;
        return Ok(false);
    }
    match rename(&moving.from, &moving.to, &entry.path) {
        Ok(()) => {
            moving.moved.push((moving.file, How::Renamed));
            moving.file += 1;
        }
        Err(Errno::XDEV) if place::stamp(&moving.to, &entry.path).is_none() => moving.copied = Some(0),
        Err(Errno::EXIST | Errno::XDEV) => {
            let message = format!("{} is there already; move it away first", target.display());
            return Err(Fault { kind: FaultKind::Denied, message });
        }
        Err(errno) => return Err(told(errno)),
    }
    Ok(false)
}

/// Renames one file from below `from` to below `to`; never over another one.
fn rename(from: &Path, to: &Path, path: &Path) -> Result<(), Errno> {
    place::make_way(to, path)?;
    let (old, name) = place::parent(from, path)?;
    let (new, _) = place::parent(to, path)?;
    renameat_with(&old, name, &new, name, RenameFlags::NOREPLACE)
}

fn finish_move(storage: &mut FileStorage, moving: &Move) -> Result<(), Fault> {
    storage.windows.forget(moving.store, None);
    storage.files.forget(moving.store, None);
    let store = storage.stores.get_mut(moving.store).ok_or_else(closed)?;
    store.content.dir.clone_from(&moving.to);
    for (file, how) in &moving.moved {
        let path = &store.content.files.entries()[*file].path;
        if *how == How::Copied {
            // The copy is durable; an original that cannot be deleted is left, and harms nobody.
            let _ = place::delete(&moving.from, path);
        }
        place::tidy(&moving.from, path);
    }
    Ok(())
}

fn delete_slice(storage: &mut FileStorage, store: StoreId, file: &mut usize) -> Result<bool, Fault> {
    storage.windows.forget(store, Some(*file));
    storage.files.forget(store, Some(*file));
    let content = &storage.stores.get(store).ok_or_else(closed)?.content;
    let Some(entry) = content.files.entries().get(*file) else {
        for entry in content.files.entries() {
            place::tidy(&content.dir, &entry.path);
        }
        return Ok(true);
    };
    if !entry.pad {
        let path = content.dir.join(&entry.path);
        place::delete(&content.dir, &entry.path).map_err(|errno| fault(errno, &path, "deleted"))?;
    }
    *file += 1;
    Ok(false)
}

/// Puts back what a failed job has moved.
fn undo(storage: &mut FileStorage, task: &Task) {
    let Task::Move(moving) = task else { return };
    let Some(store) = storage.stores.get(moving.store) else { return };
    let half_copied = moving.copied.map(|_| (moving.file, How::Copied));
    for (file, how) in moving.moved.iter().copied().chain(half_copied) {
        let path = &store.content.files.entries()[file].path;
        let result = match how {
            How::Renamed => rename(&moving.to, &moving.from, path),
            How::Copied => place::delete(&moving.to, path),
        };
        if let Err(errno) = result {
            log::error!("{} could not be put back: {errno}", moving.to.join(path).display());
        }
        place::tidy(&moving.to, path);
    }
}

/// Writes a file so that after any crash it is the old one or the new one, whole.
pub(super) fn replace(dir: &Path, name: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let path = dir.join(name);
    let told = |error: std::io::Error| fault(errno_of(&error), &path, "written");
    let mut temporary = path.clone().into_os_string();
    temporary.push(".tmp");
    let parent = path.parent().expect("a name below a directory");
    std::fs::create_dir_all(parent).map_err(told)?;
    let mut file = std::fs::File::create(&temporary).map_err(told)?;
    std::io::Write::write_all(&mut file, bytes).map_err(told)?;
    file.sync_all().map_err(told)?;
    std::fs::rename(&temporary, &path).map_err(told)?;
    std::fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(told)
}
