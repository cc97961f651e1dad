//! Open files: a bounded number, the least recently used goes first.

use std::collections::BTreeMap;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Advice, SeekFrom, fadvise, fstat, seek};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv, preadv2, pwritev};

use crate::base::ids::StoreId;

/// Parts of one vectored write; what comes beyond waits for the next.
const SLICES_MAX: usize = 128;
/// Whether a range is in memory is asked of one byte in so many, and of its last: the disk is read in such pieces at least.
const PROBE_STEP: usize = 64 * 1024;

/// One open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) fd: OwnedFd,
    writable: bool,
    /// Bytes written that the kernel was not yet asked to bring to the disk.
    pub(super) unflushed: u64,
    used: u64,
}

/// All open files.
#[derive(Debug)]
pub(super) struct Files {
    open: BTreeMap<(StoreId, usize), OpenFile>,
    max: usize,
    clock: u64,
}

impl Files {
    pub(super) fn new(max: usize) -> Self {
        Self { open: BTreeMap::new(), max: max.max(1), clock: 0 }
    }

    /// No more may be open from now on: those that were not used for longest are closed.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max.max(1);
        while self.open.len() > self.max {
            self.forget_oldest();
        }
    }

    /// The file at `index` of `store`, opened by `open` if it is not (or not for writing).
    pub(super) fn get(
        &mut self,
        store: StoreId,
        index: usize,
        write: bool,
        mut open: impl FnMut() -> Result<OwnedFd, Errno>,
    ) -> Result<&mut OpenFile, Errno> {
        self.clock += 1;
        let key = (store, index);
        if self.open.get(&key).is_none_or(|file| write && !file.writable) {
            let fd = loop {
                match open() {
                    // Others have taken the descriptors that were meant for files: there are fewer from now on.
                    Err(Errno::MFILE | Errno::NFILE) if !self.open.is_empty() => {
                        self.max = self.open.len().min(self.max);
                        self.forget_oldest();
                    }
                    result => break result?,
                }
            };
            if self.open.len() >= self.max && !self.open.contains_key(&key) {
                self.forget_oldest();
            }
            self.open.insert(key, OpenFile { fd, writable: write, unflushed: 0, used: 0 });
        }
        let file = self.open.get_mut(&key).expect("it was just opened");
        file.used = self.clock;
        Ok(file)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.open.iter().min_by_key(|(_, file)| file.used).map(|(&key, _)| key);
        self.open.remove(&oldest.expect("there is one"));
    }

    /// The inode of the file at `index` of `store`; none if it is not open.
    pub(super) fn inode(&self, store: StoreId, index: usize) -> Option<u64> {
        let file = self.open.get(&(store, index))?;
        fstat(&file.fd).ok().map(|stat| stat.st_ino)
    }

    /// Closes a file of `store`, or all of them.
    pub(super) fn forget(&mut self, store: StoreId, index: Option<usize>) {
        match index {
            Some(index) => drop(self.open.remove(&(store, index))),
            None => self.open.retain(|(of, _), _| *of != store),
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

impl OpenFile {
    /// Writes some of the first `left` bytes of `slices` at `offset`; how many, at least one.
    pub(super) fn write(&self, slices: &[IoSlice<'_>], left: usize, offset: u64) -> Result<usize, Errno> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = if total <= left && slices.len() <= SLICES_MAX {
            self.write_slices(slices, offset)?
        } else {
            let mut room = left;
            let mut some = Vec::with_capacity(slices.len().min(SLICES_MAX));
            for slice in slices.iter().filter(|slice| !slice.is_empty()).take(SLICES_MAX) {
                let now = slice.len().min(room);
                some.push(IoSlice::new(&slice[..now]));
                room -= now;
                if room == 0 {
                    break;
                }
            }
            self.write_slices(&some, offset)?
        };
        if written == 0 { Err(Errno::IO) } else { Ok(written) }
    }

    fn write_slices(&self, slices: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno> {
        loop {
            match pwritev(&self.fd, slices, offset) {
                Err(Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Fills `buf` from `offset`; a file that ends before is a bad address, like in a map.
    pub(super) fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<(), Errno> {
        while !buf.is_empty() {
            match pread(&self.fd, &mut *buf, offset) {
                Ok(0) => return Err(Errno::FAULT),
                Ok(read) => {
                    buf = &mut buf[read..];
                    offset += read as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// True if no directory names it any more.
    pub(super) fn is_removed(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Fills `slices`, one after another, from `offset` in one call; how many bytes came.
    pub(super) fn read_vectored_at(&self, slices: &mut [IoSliceMut<'_>], offset: u64) -> u64 {
        preadv(&self.fd, slices, offset).map_or(0, |read| read as u64)
    }

    /// Asks the kernel to bring to the disk what was written, and does not wait.
    pub(super) fn begin_writeback(&mut self) {
        self.unflushed = 0;
        // `POSIX_FADV_DONTNEED` starts writing dirty pages and would drop clean ones; this only starts.
        super::writeback::begin(self.fd.as_fd());
    }

    pub(super) fn read_ahead(&self, offset: u64, len: u64) {
        // Advice that the file system does not take is no fault.
        let _ = fadvise(&self.fd, offset, std::num::NonZeroU64::new(len), Advice::WillNeed);
    }

    /// True if bytes all along the range could be read without waiting for the disk, or nobody can tell.
    pub(super) fn is_resident(&self, offset: u64, len: u64) -> bool {
        let last = offset + len.saturating_sub(1);
        (offset..last).step_by(PROBE_STEP).chain([last]).all(|at| {
            let mut byte = [0];
            let result = preadv2(&self.fd, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT);
            result != Err(Errno::AGAIN)
        })
    }

    /// True if something in the range was ever written, or nobody can tell.
    pub(super) fn has_data(&self, offset: u64, len: u64) -> bool {
        match seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(at) => at < offset + len,
            Err(Errno::NXIO) => false,
            Err(_) => true,
        }
    }
}
