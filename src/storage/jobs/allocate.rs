//! Making room for whole files: first it is counted how much is missing, so that a disk too small is told at once.

use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::Errno;

use crate::base::ids::StoreId;
use crate::base::storage::Fault;
use crate::storage::jobs::Slice;
use crate::storage::{FileStorage, closed, fault, place};

/// Bytes allocated in one slice: on a file system in memory that is some milliseconds.
const ALLOCATE_SLICE: u64 = 16 << 20;

/// An allocation under way.
#[derive(Debug)]
pub(super) struct Allocate {
    store: StoreId,
    /// Still counting; then making room.
    counting: bool,
    missing_bytes: u64,
    file: usize,
    /// Bytes of `file` that have room.
    done: u64,
}

impl Allocate {
    pub(super) const fn begin(store: StoreId) -> Self {
        Self { store, counting: true, missing_bytes: 0, file: 0, done: 0 }
    }

    pub(super) fn step(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        let content = &storage.stores.get(self.store).ok_or_else(closed)?.content;
        let Some(entry) = content.files.get(self.file) else {
            if !self.counting {
                return Ok(Slice::Done);
            }
            storage.promise(self.store, self.missing_bytes)?;
            (self.counting, self.file) = (false, 0);
            return Ok(Slice::More);
        };
        if !content.wanted[self.file] || entry.pad {
            self.file += 1;
        } else if self.counting {
            let allocated = place::allocated_bytes(&content.dir, entry.path);
            self.missing_bytes += entry.span.len.saturating_sub(allocated);
            self.file += 1;
        } else {
            let len = entry.span.len;
            self.allocate(storage, len)?;
        }
        Ok(Slice::More)
    }

    fn allocate(&mut self, storage: &mut FileStorage, len: u64) -> Result<(), Fault> {
        let path = storage.path(self.store, self.file);
        let told = |errno| fault(errno, &path, "written");
        let open = storage.file(self.store, self.file, true)?;
        let (is_long, has_room) = {
            let fd = open.fd.as_fd();
            (place::len(fd) >= len, place::has_room(fd, len))
        };
        let slice = ALLOCATE_SLICE.min(len - self.done);
        if slice > 0 && !(is_long && has_room) {
            match fallocate(&open.fd, FallocateFlags::empty(), self.done, slice) {
                Ok(()) => self.done += slice,
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    // No way to make sure of room here; the file has its length, and a full disk is met when it is written.
                    if !is_long {
                        ftruncate(&open.fd, len).map_err(told)?;
                    }
                    self.done = len;
                }
                Err(errno) => return Err(told(errno)),
            }
        } else {
            self.done = len;
        }
        if self.done >= len {
            self.file += 1;
            self.done = 0;
        }
        Ok(())
    }
}
