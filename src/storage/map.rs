//! Mapped windows of files, lent to the kernel and to nobody else.
//!
//! Only system calls touch mapped bytes: a page that cannot be had is then `EFAULT`, a value. Code of ours that read one would be
//! killed by SIGBUS. This is the one file that says `unsafe`.
#![allow(
    unsafe_code,
    reason = "raw vectored writes, and questions about pages, of memory that must not be a reference"
)]

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::io::Errno;

use crate::base::ids::StoreId;

/// Bytes of a window, but for the last one of a file.
const WINDOW_LEN: u64 = 64 << 20;
/// Windows at once, whatever their bytes: the kernel allows 65,530 mappings a process.
const WINDOWS_MAX: usize = 4096;
/// Parts of one vectored write; what comes beyond waits for the next.
const IOVECS_MAX: usize = 128;
/// Pages are asked about in runs of so many bytes, and what was resident is believed for a while.
const RUN_LEN: u64 = (RUN_PAGES * PAGE_LEN) as u64;
/// After so many questions everything that is believed is asked anew.
const BELIEF_MAX: u32 = 8192;
const PAGE_LEN: usize = 4096;
/// Pages of a run.
const RUN_PAGES: usize = 64;

static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// The parts of one vectored write. Pointers into the caller's bytes (which `'b` outlives) and into windows (which
/// [`Windows::write`] knows to be there still).
#[derive(Debug, Default)]
pub(super) struct Iovecs<'b> {
    parts: Vec<libc::iovec>,
    of: PhantomData<&'b [u8]>,
}

impl<'b> Iovecs<'b> {
    pub(super) fn push_bytes(&mut self, bytes: &'b [u8]) {
        self.parts.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
    }

    pub(super) fn push_zeros(&mut self, len: u64) {
        let mut left = usize::try_from(len).expect("a chunk is short");
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.parts.push(libc::iovec { iov_base: ZEROS.as_ptr().cast_mut().cast(), iov_len: now });
            left -= now;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.parts.len() >= IOVECS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

#[derive(Debug)]
struct Window {
    map: MmapRaw,
    used: u64,
    /// By run: was resident when it was last asked.
    resident: Vec<bool>,
}

/// A window's name: content, file, and which of its windows.
type Key = (StoreId, usize, u64);

/// All windows. One that was used since [`Windows::begin`] is not unmapped.
#[derive(Debug)]
pub(super) struct Windows {
    windows: BTreeMap<Key, Window>,
    mapped_bytes: u64,
    mapped_max_bytes: u64,
    clock: u64,
    began: u64,
    questions: u32,
}

impl Windows {
    pub(super) fn new(mapped_max_bytes: u64) -> Self {
        Self { windows: BTreeMap::new(), mapped_bytes: 0, mapped_max_bytes, clock: 0, began: 0, questions: 0 }
    }

    /// A new vectored write begins: whatever was used before may go.
    pub(super) fn begin(&mut self) {
        self.began = self.clock;
    }

    /// True if all windows of the range are mapped.
    pub(super) fn covers(&self, store: StoreId, file: usize, offset: u64, len: u64) -> bool {
        (offset / WINDOW_LEN..=(offset + len - 1) / WINDOW_LEN).all(|index| {
            self.windows.get(&(store, file, index)).is_some_and(|window| {
                let end = (offset + len).min((index + 1) * WINDOW_LEN) - index * WINDOW_LEN;
                end <= window.map.len() as u64
            })
        })
    }

    /// Maps the windows of a range; `EFAULT` if the file ends before it.
    pub(super) fn map(
        &mut self,
        store: StoreId,
        file: usize,
        offset: u64,
        len: u64,
        fd: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        let file_len = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
        if offset + len > file_len {
            return Err(Errno::FAULT);
        }
        for index in offset / WINDOW_LEN..=(offset + len - 1) / WINDOW_LEN {
            self.unmap(|key| *key == (store, file, index));
            let start = index * WINDOW_LEN;
            let window_len = WINDOW_LEN.min(file_len - start);
            self.make_room(window_len);
            let map = MmapOptions::new()
                .offset(start)
                .len(usize::try_from(window_len).expect("a window fits memory"))
                .map_raw_read_only(fd.as_raw_fd())
                .map_err(|error| super::errno_of(&error))?;
            let runs = usize::try_from(window_len.div_ceil(RUN_LEN)).expect("few");
            self.mapped_bytes += window_len;
            self.clock += 1;
            self.windows.insert((store, file, index), Window { map, used: self.clock, resident: vec![false; runs] });
        }
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) {
        while self.mapped_bytes + bytes > self.mapped_max_bytes || self.windows.len() >= WINDOWS_MAX {
            let oldest = self.windows.iter().min_by_key(|(_, window)| window.used);
            let Some(key) = oldest.filter(|(_, window)| window.used <= self.began).map(|(&key, _)| key) else { return };
            self.unmap(|other| *other == key);
        }
    }

    fn unmap(&mut self, which: impl Fn(&Key) -> bool) {
        let mapped_bytes = &mut self.mapped_bytes;
        self.windows.retain(|key, window| {
            let goes = which(key);
            if goes {
                *mapped_bytes -= window.map.len() as u64;
            }
            !goes
        });
    }

    /// Unmaps a file of `store`, or all of them.
    pub(super) fn forget(&mut self, store: StoreId, file: Option<usize>) {
        self.unmap(|(of, index, _)| *of == store && file.is_none_or(|file| file == *index));
    }

    /// Appends a range whose windows are mapped.
    pub(super) fn push(&mut self, store: StoreId, file: usize, offset: u64, len: u64, iovecs: &mut Iovecs<'_>) {
        let (mut offset, mut left) = (offset, len);
        while left > 0 {
            let index = offset / WINDOW_LEN;
            let within = usize::try_from(offset % WINDOW_LEN).expect("a window fits memory");
            self.clock += 1;
            let window = self.windows.get_mut(&(store, file, index)).expect("the range is mapped");
            window.used = self.clock;
            let now = left.min((window.map.len() - within) as u64);
            let iov_len = usize::try_from(now).expect("a window fits memory");
            assert!(within + iov_len <= window.map.len());
            // SAFETY: `within` is inside the mapping, as was just asserted; the pointer is not read here.
            let iov_base = unsafe { window.map.as_mut_ptr().add(within) }.cast();
            iovecs.parts.push(libc::iovec { iov_base, iov_len });
            offset += now;
            left -= now;
        }
    }

    /// One vectored write. `EFAULT` if the first page of content could not be had.
    pub(super) fn write(&self, fd: BorrowedFd<'_>, iovecs: &Iovecs<'_>) -> Result<usize, Errno> {
        let count = i32::try_from(iovecs.parts.len().min(IOVECS_MAX)).expect("few parts");
        // SAFETY: each part names either bytes that the borrow `'b` keeps alive, or a range of a window that was used since
        // `begin` and is therefore still mapped (`make_room` unmaps no such window, and `&self` lets nobody unmap one now).
        // The kernel only reads from them; a page that cannot be had makes it return EFAULT.
        let written = unsafe { libc::writev(fd.as_raw_fd(), iovecs.parts.as_ptr(), count) };
        usize::try_from(written).map_err(|_| super::errno_of(&std::io::Error::last_os_error()))
    }

    /// True if the range was found resident lately.
    pub(super) fn is_known_resident(&self, store: StoreId, file: usize, offset: u64, len: u64) -> bool {
        runs(offset, len).all(|(index, run, _)| {
            self.windows.get(&(store, file, index)).is_some_and(|window| window.resident.get(run) == Some(&true))
        })
    }

    /// True if sending the range would not wait for the disk; its windows are mapped.
    pub(super) fn is_resident(&mut self, store: StoreId, file: usize, offset: u64, len: u64) -> bool {
        self.questions += 1;
        if self.questions > BELIEF_MAX {
            self.questions = 0;
            self.windows.values_mut().for_each(|window| window.resident.fill(false));
        }
        runs(offset, len).all(|(index, run, needed)| {
            let Some(window) = self.windows.get_mut(&(store, file, index)) else { return true };
            if window.resident[run] {
                return true;
            }
            let start = run * usize::try_from(RUN_LEN).expect("a run");
            let run_len = usize::try_from(RUN_LEN).expect("a run").min(window.map.len() - start);
            let mut pages = [0_u8; RUN_PAGES];
            let needed = needed.start - start..needed.end - start;
            // SAFETY: `start` and `run_len` lie inside the mapping, `start` is a multiple of the page length, and `pages` has a
            // byte for each page of a run. The kernel writes only to `pages`.
            let asked =
                unsafe { libc::mincore(window.map.as_mut_ptr().add(start).cast(), run_len, pages.as_mut_ptr().cast()) };
            if asked != 0 {
                return true; // nobody can tell
            }
            let count = run_len.div_ceil(PAGE_LEN);
            window.resident[run] = pages[..count].iter().all(|page| page & 1 == 1);
            pages[needed.start / PAGE_LEN..needed.end.div_ceil(PAGE_LEN)].iter().all(|page| page & 1 == 1)
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }
}

/// The runs of a range: window, run in it, and the bytes of the window that the range needs.
fn runs(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    (offset / RUN_LEN..=(offset + len - 1) / RUN_LEN).map(move |run| {
        let (from, to) = (offset.max(run * RUN_LEN), (offset + len).min((run + 1) * RUN_LEN));
        let window = from / WINDOW_LEN;
        let within = |at: u64| usize::try_from(at - window * WINDOW_LEN).expect("a window fits memory");
        (window, within(run * RUN_LEN) / usize::try_from(RUN_LEN).expect("a run"), within(from)..within(to))
    })
}

/// Asks the kernel to begin writing a file's dirty pages to the disk.
pub(super) fn begin_writeback(fd: BorrowedFd<'_>) {
    // SAFETY: a call with numbers only. That a file system does not know it is no fault.
    let _ = unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
