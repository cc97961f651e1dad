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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_synced_is_not_waited_for() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 1 << 20]).unwrap();
        begin(file.as_fd());
        file.sync_all().unwrap();
        assert!(matches!(unwritten_bytes(file.as_fd()), None | Some(0)));
    }
}
