//! Mapped windows of files, lent to the kernel and to nobody else.
//!
//! Only system calls touch mapped bytes: a page that cannot be had is then `EFAULT`, a value. Code of ours that read one would be
//! killed by SIGBUS. What a vectored write names stays mapped until the next one begins, whatever happens to its file meanwhile.
//! This is the one file of storage that says `unsafe`, but for two system calls without memory (`writeback`).
#![allow(
    unsafe_code,
    reason = "raw vectored writes, and questions about pages, of memory that must not be a reference"
)]

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::base::ids::StoreId;

/// Bytes of a window, but for the last one of a file.
const WINDOW_LEN: u64 = 64 << 20;
/// Windows at once, whatever their bytes: the kernel allows 65,530 mappings a process. Beyond, those used longest ago go.
const WINDOWS_MAX: usize = 4096;
/// Parts of one vectored write; what comes beyond waits for the next.
const IOVECS_MAX: usize = 128;
/// After so many uses of a window its file is looked at again: it may have been cut, or another one put in its place.
const USES_MAX: u32 = 256;
/// Pages are asked about in runs of so many bytes, and what was resident is believed for a while.
const RUN_LEN: u64 = (RUN_PAGES * PAGE_LEN_MIN) as u64;
/// After so many questions everything that is believed is asked anew.
const BELIEF_MAX: u32 = 8192;
/// The shortest page there is, bytes.
const PAGE_LEN_MIN: usize = 4096;
/// Pages of a run, where they are short.
const RUN_PAGES: usize = 64;

static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// The parts of one vectored write, from [`Windows::begin`]. Pointers into the caller's bytes (which `'b` outlives) and into
/// windows (which stay mapped until the next `begin`).
#[derive(Debug)]
pub(super) struct Iovecs<'b> {
    parts: Vec<libc::iovec>,
    /// Which `begin` it is of.
    of: u64,
    lends: PhantomData<&'b [u8]>,
}

impl<'b> Iovecs<'b> {
    pub(super) fn push_bytes(&mut self, bytes: &'b [u8]) {
        self.parts.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
    }

    pub(super) fn push_zeros(&mut self, len: u64) {
        let mut left = usize::try_from(len).expect("no more than one write takes");
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.parts.push(libc::iovec { iov_base: ZEROS.as_ptr().cast_mut().cast(), iov_len: now });
            left -= now;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.parts.len() >= IOVECS_MAX
    }

    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Takes back all but the first `len` parts.
    pub(super) fn truncate(&mut self, len: usize) {
        self.parts.truncate(len);
    }
}

#[derive(Debug)]
struct Window {
    map: MmapRaw,
    /// Device and inode that are mapped.
    of: (u64, u64),
    /// When it was last named in a vectored write, by [`Windows`]' clock.
    used: u64,
    /// How often since its file was last looked at.
    uses: u32,
    /// By run: was resident when it was last asked.
    resident: Vec<bool>,
}

/// A window's name: content, file, and which of its windows.
type Key = (StoreId, usize, u64);

/// All windows. `mapped_bytes` is what those in `windows` map; in `retired` is what is out of use, and was named in a write
/// since the last [`Windows::begin`].
#[derive(Debug)]
pub(super) struct Windows {
    windows: BTreeMap<Key, Window>,
    retired: Vec<Window>,
    mapped_bytes: u64,
    mapped_max_bytes: u64,
    clock: u64,
    /// The clock at the last `begin`.
    began: u64,
    questions: u32,
    page_len: usize,
}

impl Windows {
    pub(super) fn new(mapped_max_bytes: u64) -> Self {
        // SAFETY: it asks for a number.
        let page_len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Self {
            windows: BTreeMap::new(),
            retired: Vec::new(),
            mapped_bytes: 0,
            mapped_max_bytes,
            clock: 0,
            began: 0,
            questions: 0,
            page_len: usize::try_from(page_len).unwrap_or(PAGE_LEN_MIN).max(PAGE_LEN_MIN),
        }
    }

    /// A new vectored write begins: what an earlier one named may be unmapped.
    pub(super) fn begin<'b>(&mut self) -> Iovecs<'b> {
        self.retired.clear();
        self.clock += 1;
        self.began = self.clock;
        Iovecs { parts: Vec::new(), of: self.began, lends: PhantomData }
    }

    /// True if all windows of the range are mapped, and their file need not be looked at.
    pub(super) fn covers(&self, store: StoreId, file: usize, offset: u64, len: u64) -> bool {
        windows(offset, len).all(|index| {
            self.windows.get(&(store, file, index)).is_some_and(|window| {
                let end = (offset + len).min((index + 1) * WINDOW_LEN) - index * WINDOW_LEN;
                end <= window.map.len() as u64 && window.uses < USES_MAX
            })
        })
    }

    /// Maps the windows of a range of the file that is open as `fd` and looks like `stat`; `EFAULT` if it ends before.
    pub(super) fn map(
        &mut self,
        store: StoreId,
        file: usize,
        offset: u64,
        len: u64,
        fd: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let file_len = u64::try_from(stat.st_size).unwrap_or(0);
        let of = (stat.st_dev, stat.st_ino);
        if offset + len > file_len {
            return Err(Errno::FAULT);
        }
        for index in windows(offset, len) {
            let key = (store, file, index);
            let start = index * WINDOW_LEN;
            let window_len = WINDOW_LEN.min(file_len - start);
            let is_as_it_was = |window: &&mut Window| window.of == of && window.map.len() as u64 == window_len;
            if let Some(window) = self.windows.get_mut(&key).filter(is_as_it_was) {
                window.uses = 0;
                continue;
            }
            self.retire(&key);
            self.make_room(window_len);
            let map = MmapOptions::new()
                .offset(start)
                .len(usize::try_from(window_len).expect("a window fits memory"))
                .map_raw_read_only(fd.as_raw_fd())
                .map_err(|error| super::errno_of(&error))?;
            let runs = usize::try_from(window_len.div_ceil(RUN_LEN)).expect("few");
            self.mapped_bytes += window_len;
            let window = Window { map, of, used: self.clock, uses: 0, resident: vec![false; runs] };
            self.windows.insert(key, window);
        }
        Ok(())
    }

    /// Takes windows out of use, those used longest ago first and some more than needed, so that it is seldom done. What the
    /// write that has begun names stays: it is only a write's worth beyond the bound.
    fn make_room(&mut self, bytes: u64) {
        if self.mapped_bytes + bytes <= self.mapped_max_bytes && self.windows.len() < WINDOWS_MAX {
            return;
        }
        let aged = |(&key, window): (&Key, &Window)| (window.used < self.began).then_some((window.used, key));
        let mut ages: Vec<(u64, Key)> = self.windows.iter().filter_map(aged).collect();
        ages.sort_unstable();
        let (bytes_max, count_max) = (self.mapped_max_bytes - self.mapped_max_bytes / 8, WINDOWS_MAX - WINDOWS_MAX / 8);
        for (_, key) in ages {
            if self.mapped_bytes + bytes <= bytes_max && self.windows.len() < count_max {
                return;
            }
            self.retire(&key);
        }
    }

    /// Takes a window out of use. It is unmapped at once, unless the vectored write that has begun may name it.
    fn retire(&mut self, key: &Key) {
        if let Some(window) = self.windows.remove(key) {
            self.mapped_bytes -= window.map.len() as u64;
            if window.used >= self.began {
                self.retired.push(window);
            }
        }
    }

    /// Takes a file of `store`, or all of them, out of use.
    pub(super) fn forget(&mut self, store: StoreId, file: Option<usize>) {
        let range = (store, file.unwrap_or(0), 0)..=(store, file.unwrap_or(usize::MAX), u64::MAX);
        let keys: Vec<Key> = self.windows.range(range).map(|(&key, _)| key).collect();
        for key in keys {
            self.retire(&key);
        }
    }

    /// Appends a range whose windows are mapped.
    ///
    /// # Panics
    /// If one is not, or `iovecs` is of an earlier write.
    pub(super) fn push(&mut self, store: StoreId, file: usize, offset: u64, len: u64, iovecs: &mut Iovecs<'_>) {
        assert_eq!(iovecs.of, self.began, "parts of an earlier write");
        let (mut offset, mut left) = (offset, len);
        while left > 0 {
            let index = offset / WINDOW_LEN;
            let within = usize::try_from(offset % WINDOW_LEN).expect("a window fits memory");
            self.clock += 1;
            let window = self.windows.get_mut(&(store, file, index)).expect("the range is mapped");
            window.used = self.clock;
            window.uses += 1;
            let room = window.map.len().checked_sub(within).expect("the range is mapped");
            let iov_len = usize::try_from(left).map_or(room, |left| left.min(room));
            assert!(iov_len > 0, "the range is mapped");
            // SAFETY: `within + iov_len` is at most the mapping's length, as was just computed; nothing is read here.
            let iov_base = unsafe { window.map.as_mut_ptr().add(within) }.cast();
            iovecs.parts.push(libc::iovec { iov_base, iov_len });
            offset += iov_len as u64;
            left -= iov_len as u64;
        }
    }

    /// One vectored write. `EFAULT` if nothing could be sent because a page of content could not be had.
    ///
    /// # Panics
    /// If `iovecs` is of an earlier write.
    pub(super) fn write(&self, fd: BorrowedFd<'_>, iovecs: &Iovecs<'_>) -> Result<usize, Errno> {
        assert_eq!(iovecs.of, self.began, "parts of an earlier write");
        let count = i32::try_from(iovecs.parts.len().min(IOVECS_MAX)).expect("few parts");
        // SAFETY: each part names either bytes that the borrow `'b` keeps alive, or a range of a window that `push` found
        // mapped since the `begin` that made `iovecs` (asserted here and there). Such a window has `used >= began`, so `retire`,
        // the only way out of `windows`, keeps it mapped in `retired` until the next `begin`, which makes `iovecs` unusable.
        // The kernel only reads from the parts; a page that cannot be had makes it return EFAULT.
        let written = unsafe { libc::writev(fd.as_raw_fd(), iovecs.parts.as_ptr(), count) };
        usize::try_from(written).map_err(|_| super::errno_of(&std::io::Error::last_os_error()))
    }

    /// True if the range was found resident lately.
    pub(super) fn is_known_resident(&self, store: StoreId, file: usize, offset: u64, len: u64) -> bool {
        runs(offset, len).all(|(index, run, _)| {
            self.windows.get(&(store, file, index)).is_some_and(|window| window.resident.get(run) == Some(&true))
        })
    }

    /// True if sending the range would not wait for the disk. Its windows are mapped.
    pub(super) fn is_resident(&mut self, store: StoreId, file: usize, offset: u64, len: u64) -> bool {
        self.questions += 1;
        if self.questions > BELIEF_MAX {
            self.questions = 0;
            self.windows.values_mut().for_each(|window| window.resident.fill(false));
        }
        let page_len = self.page_len;
        self.clock += 1;
        runs(offset, len).all(|(index, run, needed)| {
            let Some(window) = self.windows.get_mut(&(store, file, index)) else { return true };
            window.used = self.clock;
            if window.resident[run] {
                return true;
            }
            let run_len = usize::try_from(RUN_LEN).expect("a run fits memory");
            let start = run * run_len;
            let asked_len = run_len.min(window.map.len() - start);
            let mut pages = [0_u8; RUN_PAGES];
            // SAFETY: `start` and `asked_len` lie inside the mapping, `start` is a multiple of every page length up to a run, and
            // `pages` has a byte for each page of a run. The kernel writes only to `pages`.
            let answer = unsafe {
                libc::mincore(window.map.as_mut_ptr().add(start).cast(), asked_len, pages.as_mut_ptr().cast())
            };
            if answer != 0 {
                return true; // nobody can tell
            }
            let is_there = |page: &u8| page & 1 == 1;
            window.resident[run] = pages[..asked_len.div_ceil(page_len)].iter().all(is_there);
            let (first, last) = ((needed.start - start) / page_len, (needed.end - start).div_ceil(page_len));
            pages[first..last].iter().all(is_there)
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }
}

/// Which windows a range lies in. No range is empty.
fn windows(offset: u64, len: u64) -> std::ops::RangeInclusive<u64> {
    offset / WINDOW_LEN..=(offset + len - 1) / WINDOW_LEN
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
