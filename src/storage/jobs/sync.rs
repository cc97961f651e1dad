//! Making durable what was written: files that are complete get their length and those of no bytes are made, then the files are
//! synced, then the directories of those that were made.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{Advice, fadvise, fdatasync};
use rustix::io::Errno;

use crate::base::ids::StoreId;
use crate::base::storage::{Fault, FaultKind};
use crate::storage::jobs::Slice;
use crate::storage::{FileStorage, fault, place, writeback};

/// With no more than so many bytes still to be written, a sync has little to wait for. While a torrent goes on writing
/// there is always some.
const LITTLE_BYTES: u64 = 16 << 20;
/// How often one sync looks whether that is so, a second in all; then it syncs and waits. A record that is older than that would
/// have us fetch too much again after a crash.
const LOOKS_MAX: u32 = 100;

/// A sync under way.
#[derive(Debug)]
pub(super) struct Sync {
    store: StoreId,
    /// Complete files that may be too long, or are of no bytes and not there yet.
    finish: Vec<usize>,
    /// `None` until all of `finish` are done.
    files: Option<Vec<usize>>,
    /// Of how many of `files` the kernel was asked to begin writing.
    begun: usize,
    /// How many are synced.
    synced: usize,
    looks: u32,
    dirs: Vec<PathBuf>,
    /// The first trouble; everything else is synced all the same.
    fault: Option<Fault>,
}

impl Sync {
    pub(super) const fn begin(store: StoreId, finish: Vec<usize>) -> Self {
        Self { store, finish, files: None, begun: 0, synced: 0, looks: 0, dirs: Vec::new(), fault: None }
    }

    /// Takes over what was written and read so far, and the directories of what was made.
    fn take(&mut self, storage: &mut FileStorage) {
        let (files, made) = storage.jobs.written.take(self.store);
        let mut dirs = BTreeSet::new();
        if let Some(store) = storage.stores.get(self.store) {
            for file in made {
                let path = &store.content.files.entry(file).path;
                // The last ancestor is the empty path: the content's directory.
                dirs.extend(path.ancestors().skip(1).map(PathBuf::from));
            }
        }
        (self.files, self.dirs) = (Some(files), dirs.into_iter().collect());
    }

    pub(super) fn step(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        if storage.stores.get(self.store).is_none() {
            return Ok(Slice::Done); // nobody has an interest in it any more
        }
        if let Some(&file) = self.finish.last() {
            if finish_file(storage, self.store, file) {
                self.finish.pop();
            }
            return Ok(Slice::More);
        }
        let Some(files) = &self.files else {
            self.take(storage);
            return Ok(Slice::More);
        };
        if let Some(&file) = files.get(self.begun) {
            self.begun += 1;
            if let Ok(open) = storage.file_as_it_is(self.store, file) {
                open.begin_writeback();
            }
        } else if let Some(&file) = files.get(self.synced) {
            let unwritten =
                storage.file_as_it_is(self.store, file).map(|open| writeback::unwritten_bytes(open.fd.as_fd()));
            if unwritten.is_ok_and(|bytes| bytes.unwrap_or(0) > LITTLE_BYTES) && self.looks < LOOKS_MAX {
                self.looks += 1;
                return Ok(Slice::Later);
            }
            self.synced += 1;
            let result = sync_file(storage, self.store, file);
            self.note(result);
        } else if let Some(dir) = self.dirs.pop() {
            let content = &storage.stores.get(self.store).expect("it was just there").content;
            let result = place::sync_dir(&content.dir, &dir)
                .map_err(|errno| fault(errno, &content.dir.join(&dir), "brought to the disk"));
            self.note(result);
        } else {
            return self.fault.take().map_or(Ok(Slice::Done), Err);
        }
        Ok(Slice::More)
    }

    fn note(&mut self, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.fault.get_or_insert(fault);
        }
    }
}

/// Gives a complete file its length, or makes it if it is of no bytes. True once nothing is left to do. A file that is not there any
/// more, or cannot be cut, stays as it is; whoever looks at the files, or asks `why`, is told.
fn finish_file(storage: &mut FileStorage, store: StoreId, file: usize) -> bool {
    let Some(entry) = storage.file_list(store).ok().and_then(|files| files.get(file)) else { return true };
    let (is_empty, is_pad) = (entry.span.len == 0, entry.pad);
    if storage.is_read_only(store) {
        return true;
    }
    // One with bytes that is not there is missing. One of no bytes in whose place there is something was not written by us.
    if is_pad || is_empty != storage.is_missing(store, file) {
        return true;
    }
    if !is_empty {
        return cut(storage, store, file);
    }
    if let Err(fault) = storage.file(store, file, true) {
        log::warn!("{fault}");
    }
    true
}

/// Cuts off what a complete file has beyond its length, or a part of it where that is much. True once nothing is left to do.
pub(in crate::storage) fn cut(storage: &mut FileStorage, store: StoreId, file: usize) -> bool {
    let Some(entry) = storage.file_list(store).ok().and_then(|files| files.get(file)) else { return true };
    let len = entry.span.len;
    let path = storage.path(store, file);
    let result = storage.file(store, file, true).map(|open| place::cut(open.fd.as_fd(), len));
    match result {
        Ok(Ok(0)) => true,
        Ok(Ok(cut)) => {
            log::info!("{}: {cut} bytes beyond its length are cut off", path.display());
            storage.windows.forget(store, Some(file));
            storage.jobs.written.note(store, file);
            false
        }
        Ok(Err(errno)) => {
            log::warn!("{}", fault(errno, &path, "shortened").message);
            true
        }
        Err(fault) => {
            log::warn!("{fault}");
            true
        }
    }
}

/// Makes one file durable. A sync that failed is told once and never repeated: what it lost stays lost, and what the cache
/// still shows of it is dropped.
fn sync_file(storage: &mut FileStorage, store: StoreId, file: usize) -> Result<(), Fault> {
    let path = storage.path(store, file);
    let open = storage.file_as_it_is(store, file)?;
    open.unflushed = 0;
    let result = fdatasync(&open.fd).map_err(|errno| Fault {
        kind: if matches!(errno, Errno::NOSPC | Errno::DQUOT) { FaultKind::Full } else { FaultKind::Io },
        message: format!(
            "{} could not be brought to the disk ({errno}), so what was written lately may be lost; check the disk",
            path.display()
        ),
    });
    if result.is_err() {
        let _ = fadvise(&open.fd, 0, None, Advice::DontNeed);
        storage.forget_file(store, file);
    }
    result
}
