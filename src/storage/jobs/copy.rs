//! One file copied to another file system, a slice at a time: holes stay holes, room that was made is made again, times are kept.
//!
//! It is durable when it is done. Not `copy_file_range`: it refuses to cross from one kind of file system to another.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    Advice, FallocateFlags, Mode, SeekFrom, Timespec, Timestamps, fadvise, fallocate, fchmod, fstat, fsync, ftruncate,
    futimens, seek,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::storage::jobs::Slice;
use crate::storage::{errno_of, place, writeback};

/// Bytes copied in one slice.
const COPY_SLICE: u64 = 256 << 10;
/// Bytes that the kernel is asked to read ahead of the copy.
const READ_AHEAD_BYTES: u64 = 4 << 20;
/// How often one slice looks whether what it copies is in memory; then it reads and waits.
const LOOKS_MAX: u32 = 100;
/// Bytes allocated in one slice.
const ALLOCATE_SLICE: u64 = 16 << 20;
/// After so many copied bytes the kernel is asked to begin writing them.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// With more bytes of a copy than that still to be written, the copy waits for the disk.
const BEHIND_BYTES_MAX: u64 = 32 << 20;

/// Why a copy cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The original cannot be read.
    Read(Errno),
    /// The copy cannot be written.
    Write(Errno),
}

/// One file being copied.
#[derive(Debug)]
pub(super) struct Copy {
    from: File,
    to: File,
    len: u64,
    at: u64,
    /// Bytes of the copy that have room; the original's length if it has none to keep.
    allocated: u64,
    /// Bytes since the kernel was last asked to begin writing.
    unflushed: u64,
    looks: u32,
}

impl Copy {
    /// Begins to copy `path` below `from` to a new file `name` in `to`.
    pub(super) fn begin(from: &Path, path: &Path, to: &Path, name: &Path) -> Result<Self, Trouble> {
        let from = File::from(place::open(from, path, false).map_err(Trouble::Read)?);
        let to = File::from(place::make(to, name).map_err(Trouble::Write)?);
        let len = place::len(from.as_fd());
        ftruncate(&to, len).map_err(Trouble::Write)?;
        let allocated = if place::has_room(from.as_fd(), len) { 0 } else { len };
        Ok(Self { from, to, len, at: 0, allocated, unflushed: 0, looks: 0 })
    }

    /// Bytes that are done.
    pub(super) const fn done_bytes(&self) -> u64 {
        self.at
    }

    /// A slice.
    pub(super) fn step(&mut self) -> Result<Slice, Trouble> {
        if self.allocated < self.len {
            return self.allocate();
        }
        let unwritten = writeback::unwritten_bytes(self.to.as_fd()).unwrap_or(0);
        if unwritten > BEHIND_BYTES_MAX {
            return Ok(Slice::Later);
        }
        let data = match seek(&self.from, SeekFrom::Data(self.at)) {
            Ok(at) => at,
            Err(Errno::NXIO) => self.len,
            Err(_) => self.at, // a file system that knows no holes
        };
        if data >= self.len {
            self.at = self.len;
            return self.finish(unwritten);
        }
        let hole = seek(&self.from, SeekFrom::Hole(data)).unwrap_or(self.len);
        let end = hole.min(data + COPY_SLICE).min(self.len);
        let mut buf = vec![0; usize::try_from(end - data).expect("a slice")];
        let Some(read) = self.read(&mut buf, data)? else { return Ok(Slice::Later) };
        self.to.write_all_at(&buf[..read], data).map_err(|error| Trouble::Write(errno_of(&error)))?;
        self.at = data + read as u64;
        self.unflushed += read as u64;
        if self.unflushed >= WRITEBACK_BYTES {
            self.unflushed = 0;
            writeback::begin(self.to.as_fd());
        }
        Ok(Slice::More)
    }

    fn allocate(&mut self) -> Result<Slice, Trouble> {
        let slice = ALLOCATE_SLICE.min(self.len - self.allocated);
        match fallocate(&self.to, FallocateFlags::empty(), self.allocated, slice) {
            Ok(()) => self.allocated += slice,
            // No way to make sure of room here: a full disk is met when it is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.allocated = self.len,
            Err(errno) => return Err(Trouble::Write(errno)),
        }
        Ok(Slice::More)
    }

    /// Some bytes at `at`; none while they are still being read from the disk.
    fn read(&mut self, buf: &mut [u8], at: u64) -> Result<Option<usize>, Trouble> {
        let result = preadv2(&self.from, &mut [IoSliceMut::new(buf)], at, ReadWriteFlags::NOWAIT);
        let read = match result {
            Err(Errno::AGAIN) if self.looks < LOOKS_MAX => {
                self.looks += 1;
                // Advice that the file system does not take is no fault.
                let _ = fadvise(&self.from, at, std::num::NonZeroU64::new(READ_AHEAD_BYTES), Advice::WillNeed);
                return Ok(None);
            }
            Err(Errno::INTR) => return Ok(None),
            Ok(read) => read,
            Err(_) => self.from.read_at(buf, at).map_err(|error| Trouble::Read(errno_of(&error)))?,
        };
        self.looks = 0;
        // A file that ends before is a bad address, as everywhere in here.
        if read == 0 { Err(Trouble::Read(Errno::FAULT)) } else { Ok(Some(read)) }
    }

    /// All is written; the rest is times and the disk.
    fn finish(&mut self, unwritten: u64) -> Result<Slice, Trouble> {
        if self.unflushed > 0 {
            self.unflushed = 0;
            writeback::begin(self.to.as_fd());
            return Ok(Slice::More);
        }
        if unwritten > 0 && self.looks < LOOKS_MAX {
            self.looks += 1;
            return Ok(Slice::Later);
        }
        let stat = fstat(&self.from).map_err(Trouble::Read)?;
        let nanos = |nanos| i64::try_from(nanos).unwrap_or(0);
        let times = Timestamps {
            last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
            last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
        };
        // Some file systems keep no modes.
        let _ = fchmod(&self.to, Mode::from_raw_mode(stat.st_mode & 0o777));
        futimens(&self.to, &times).map_err(Trouble::Write)?;
        fsync(&self.to).map_err(Trouble::Write)?;
        Ok(Slice::Done)
    }
}
