//! Dirty pages of a file: asking the kernel to begin writing them, and how many it still has to.
#![allow(unsafe_code, reason = "two system calls that no crate of ours wraps; they take numbers and one array")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// The number of `cachestat(2)`, the same on every architecture; Linux 6.5.
const SYS_CACHESTAT: libc::c_long = 451;

/// What `cachestat` answers, in pages.
#[repr(C)]
#[derive(Debug, Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Asks the kernel to begin writing a file's dirty pages to the disk, and does not wait for it.
pub(super) fn begin(fd: BorrowedFd<'_>) {
    // SAFETY: a call with numbers only. That a file system does not know it is no fault.
    let _ = unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// Bytes of a file that are not on the disk yet; none if nobody can tell (an older kernel, or a sandbox).
pub(super) fn unwritten_bytes(fd: BorrowedFd<'_>) -> Option<u64> {
    let range = [0_u64; 2]; // from the start, to the end
    let mut stat = CacheStat::default();
    // SAFETY: the kernel reads two and writes five numbers of 64 bits at the addresses given, which live that long.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut stat, 0) };
    (result == 0).then(|| (stat.dirty + stat.writeback) * rustix::param::page_size() as u64)
}

/// How often [`Patience`] looks, at most; at the pace at which jobs that wait are looked at, a second in all.
const LOOKS_MAX: u32 = 100;

/// Waiting until little of a file is unwritten, so that a sync takes no long time; and not for ever.
#[derive(Debug, Default)]
pub(super) struct Patience {
    looks: u32,
}

impl Patience {
    /// Whether to look again later, since more than `most` bytes are still to be written.
    pub(super) fn waits(&mut self, fd: BorrowedFd<'_>, most: u64) -> bool {
        self.looks += 1;
        self.looks <= LOOKS_MAX && is_on_disk(fd) && unwritten_bytes(fd).is_some_and(|bytes| bytes > most)
    }
}

/// Whether the file system has a disk at all: pages of tmpfs are never written anywhere, and stay dirty.
fn is_on_disk(fd: BorrowedFd<'_>) -> bool {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    rustix::fs::fstatfs(fd).map_or(true, |stat| u64::try_from(stat.f_type) != Ok(TMPFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn file_without_a_disk_is_not_waited_for() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        assert!(!Patience::default().waits(file.as_fd(), 0));
    }

    #[test]
    fn what_was_synced_is_not_waited_for() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        begin(file.as_fd());
        file.sync_all().unwrap();
        assert!(matches!(unwritten_bytes(file.as_fd()), None | Some(0)));
    }
}
