//! Making durable what was written: the files, then the directories of those that were made.

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
    files: Vec<usize>,
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
    pub(super) fn begin(storage: &mut FileStorage, store: StoreId) -> Self {
        let (files, made) = storage.jobs.written.take(store);
        let mut dirs = BTreeSet::new();
        if let Some(store) = storage.stores.get(store) {
            for file in made {
                let path = &store.content.files.entries()[file].path;
                // The last ancestor is the empty path: the content's directory.
                dirs.extend(path.ancestors().skip(1).map(PathBuf::from));
            }
        }
        Self { store, files, begun: 0, synced: 0, looks: 0, dirs: dirs.into_iter().collect(), fault: None }
    }

    pub(super) fn step(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        if storage.stores.get(self.store).is_none() {
            return Ok(Slice::Done); // nobody has an interest in it any more
        }
        if let Some(&file) = self.files.get(self.begun) {
            self.begun += 1;
            if let Ok(open) = storage.file_as_it_is(self.store, file) {
                open.begin_writeback();
            }
        } else if let Some(&file) = self.files.get(self.synced) {
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
