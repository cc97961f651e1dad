//! Content in files: the `Storage` of the programs.
//!
//! Written by `pwritev`, sent through a buffer by one `preadv` and one `write` (or, with the `mmap` backend, by one `writev`
//! straight from read-only maps), read back by `pread`. Open files and mapped windows are bounded, the least recently used go first. Whatever may wait
//! for a disk is a job (`jobs`). Which measurement decided this: a page fault costs more than a copy to and from a buffer of
//! half a MiB, receiving and sending alike, and a bad page of a map that is sent is `EFAULT`.

mod files;
mod jobs;
mod journal;
mod map;
mod mounts;
mod place;
mod private;
pub mod space;
pub mod state;
mod writeback;

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Stat, fstat};
use rustix::io::Errno;

use crate::base::arena::Arena;
use crate::base::bitfield::Bitfield;
use crate::base::buffer::Buffer;
use crate::base::files::{FileList, Parts, TOUCHED_MAX};
use crate::base::geometry::Span;
use crate::base::ids::{JobId, StoreId, StoreKey};
use crate::base::storage::{Chunk, Content, Fault, FaultKind, FileIdentity, Job, SendError, Stamp, Storage};

use self::files::{Files, OpenFile};
use self::jobs::{Jobs, Written};
pub use self::jobs::{LOOK_AGAIN, Work};
use self::map::{Iovecs, Windows};
use self::mounts::Mounts;
use self::space::Spaces;
use self::state::StateDir;

/// How content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// Straight from mapped files: no copy, but a fault for every few pages that were not sent lately.
    Mmap,
    /// Through a buffer that the processor's cache holds.
    #[default]
    Pread,
}

/// How the storage works.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How content is sent.
    pub backend: Backend,
    /// Space that must stay free on the disk, bytes.
    pub min_free_bytes: u64,
    /// Mapped windows together, bytes.
    pub mapped_max_bytes: u64,
    /// Files open at once.
    pub files_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { backend: Backend::default(), min_free_bytes: 0, mapped_max_bytes: 1 << 30, files_max: 256 }
    }
}

/// After so many bytes written to a file the kernel is asked to begin writing them to the disk, so that a later sync is short.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// Bytes that are sent through a buffer in one call.
const SEND_BUF_LEN: usize = 512 * 1024;
/// Of a complete file that is too long so much is cut off at once, which takes some milliseconds; more is cut by a job.
const CUT_AT_ONCE_BYTES: u64 = 16 << 20;
/// Files on either side of one that is to be made among which the nearest one with verified pieces is looked for.
const NEAREST_MAX: usize = 1024;
/// Bytes of content that one vectored write names; what comes beyond waits for the next.
const SEND_BYTES_MAX: u64 = 4 << 20;

/// Content in files.
#[derive(Debug)]
pub struct FileStorage {
    settings: Settings,
    stores: Arena<StoreKey, Store>,
    files: Files,
    windows: Windows,
    spaces: Spaces,
    mounts: Mounts,
    jobs: Jobs,
    state: Option<StateDir>,
    /// For what is not sent from a map.
    send_buf: Buffer,
}

/// One torrent's content.
#[derive(Debug)]
struct Store {
    content: Content,
    /// The file system that it was on when its space was last looked at.
    device: Option<u64>,
    /// By file: it holds verified pieces. Of no length while none does.
    held: Bitfield,
}

impl Store {
    /// The file with verified pieces that must be where it was before the file at index `file` is made: that file itself, or the
    /// nearest one, in the directory tree and then in order. `None` while nothing is verified. Bounded by [`NEAREST_MAX`].
    fn witness(&self, file: usize) -> Option<usize> {
        let is_held = |index: usize| u32::try_from(index).is_ok_and(|index| self.held.get(index));
        if self.held.count() == 0 || is_held(file) {
            return is_held(file).then_some(file);
        }
        let files = &self.content.files;
        let shared = |other: usize| {
            let (one, other) = (files.entry(file).path.components(), files.entry(other).path.components());
            one.zip(other).take_while(|(one, other)| one == other).count()
        };
        let before = (file.saturating_sub(NEAREST_MAX)..file).rev().find(|&index| is_held(index));
        let after = (file + 1..files.len().min(file + 1 + NEAREST_MAX)).find(|&index| is_held(index));
        let first = self.held.ones().next().and_then(|index| usize::try_from(index).ok());
        // Of equals the last counts.
        [first, after, before].into_iter().flatten().max_by_key(|&other| shared(other))
    }

    /// True if the file at index `file` is a regular file where it should be.
    fn is_in_place(&self, file: usize) -> bool {
        let path = &self.content.files.entry(file).path;
        let also = || place::stamp(self.content.also.as_deref()?, path);
        place::stamp(&self.content.dir, path).or_else(also).is_some()
    }
}

impl FileStorage {
    /// A storage whose `Record`, `Save` and `Erase` jobs work in `state`; without one they succeed and keep nothing.
    #[must_use]
    pub fn new(settings: Settings, state: Option<StateDir>) -> Self {
        Self {
            files: Files::new(settings.files_max),
            windows: Windows::new(settings.mapped_max_bytes),
            settings,
            stores: Arena::default(),
            spaces: Spaces::default(),
            mounts: Mounts::default(),
            jobs: Jobs::default(),
            state,
            send_buf: Buffer::default(),
        }
    }

    /// It works so from now on.
    pub fn set_settings(&mut self, settings: Settings) {
        if self.settings.mapped_max_bytes != settings.mapped_max_bytes || self.settings.backend != settings.backend {
            self.windows = Windows::new(settings.mapped_max_bytes);
        }
        self.files.set_max(settings.files_max);
        self.settings = settings;
    }

    /// A storage that keeps no state between runs.
    #[must_use]
    pub fn without_state() -> Self {
        Self::new(Settings::default(), None)
    }

    /// Begins a job; its end comes from [`FileStorage::poll_job`].
    pub fn start(&mut self, id: JobId, job: Job) {
        self.jobs.push(id, job);
    }

    /// Does one slice of a job.
    pub fn work(&mut self) -> Work {
        jobs::work(self)
    }

    /// A job that has ended.
    pub fn poll_job(&mut self) -> Option<(JobId, Result<(), Fault>)> {
        self.jobs.poll()
    }

    fn file_list(&self, store: StoreId) -> Result<&Arc<FileList>, Fault> {
        self.stores.get(store).map(|store| &store.content.files).ok_or_else(closed)
    }

    /// Whether nothing may be written to a content.
    fn is_read_only(&self, store: StoreId) -> bool {
        self.stores.get(store).is_none_or(|store| store.content.read_only)
    }

    /// The open file at `index` of `store`; for writing it is made where it is missing.
    fn file(&mut self, store: StoreId, index: usize, write: bool) -> Result<&mut OpenFile, Fault> {
        let of = self.stores.get(store).ok_or_else(closed)?;
        open_file(of, &mut self.files, &mut self.jobs.written, store, index, write)
    }

    /// The file at `index` of `store`, open anyhow; it is not made where it is missing.
    fn file_as_it_is(&mut self, store: StoreId, index: usize) -> Result<&mut OpenFile, Fault> {
        self.file(store, index, false)
    }

    /// True if the file at `index` of `store` holds verified pieces.
    fn holds(&self, store: StoreId, index: usize) -> bool {
        self.stores.get(store).is_some_and(|of| of.witness(index) == Some(index))
    }

    /// True if the file at `index` of `store` is not where it should be.
    fn is_missing(&self, store: StoreId, index: usize) -> bool {
        self.stores.get(store).is_none_or(|of| !of.is_in_place(index))
    }

    fn path(&self, store: StoreId, index: usize) -> PathBuf {
        self.stores
            .get(store)
            .map_or_else(PathBuf::new, |store| store.content.dir.join(store.content.files.entry(index).path))
    }

    /// The parts of `span` in files.
    fn parts(&self, store: StoreId, span: Span) -> Result<impl Iterator<Item = Part> + Clone + use<>, Fault> {
        let files = Arc::clone(self.file_list(store)?);
        let parts = Parts::new(Arc::clone(&files), span);
        Ok(parts.map(move |(file, offset, span)| Part { file, offset, span, pad: files.entry(file).pad }))
    }

    /// Promises room for `bytes` more of a content.
    fn promise(&mut self, store: StoreId, bytes: u64) -> Result<(), Fault> {
        if bytes == 0 {
            return Ok(());
        }
        let store = self.stores.get_mut(store).ok_or_else(closed)?;
        let min_free = self.settings.min_free_bytes;
        self.spaces.promise(&store.content.dir, &mut store.device, bytes, min_free)
    }

    /// What a window or descriptor says of a file is doubtful: it is opened anew when it is needed.
    fn forget_file(&mut self, store: StoreId, index: usize) {
        self.windows.forget(store, Some(index));
        self.files.forget(store, Some(index));
    }

    /// The start of `chunks` as one vectored write, content from mapped windows. It ends before content that cannot be mapped,
    /// and before the bytes that lead up to it: a head is not sent without its block.
    fn gather<'b>(&mut self, chunks: &[Chunk<'b>]) -> Iovecs<'b> {
        let mut iovecs = self.windows.begin();
        let mut room = SEND_BYTES_MAX;
        let mut whole = 0;
        for chunk in chunks {
            match *chunk {
                Chunk::Bytes(bytes) => iovecs.push_bytes(bytes),
                Chunk::Content(store, span) => {
                    let span = Span { len: span.len.min(room), ..span };
                    if self.gather_span(store, span, &mut iovecs).is_err() {
                        iovecs.truncate(whole);
                        return iovecs;
                    }
                    whole = iovecs.len();
                    room -= span.len;
                }
            }
            if iovecs.is_full() || room == 0 {
                break;
            }
        }
        iovecs
    }

    fn gather_span(&mut self, store: StoreId, span: Span, iovecs: &mut Iovecs<'_>) -> Result<(), Fault> {
        for Part { file, offset, span, pad } in self.parts(store, span)? {
            if pad {
                iovecs.push_zeros(span.len);
            } else {
                self.map(store, file, offset, span.len)?;
                self.windows.push(store, file, offset, span.len, iovecs);
            }
        }
        Ok(())
    }

    /// Makes sure that a range of a file is mapped.
    fn map(&mut self, store: StoreId, file: usize, offset: u64, len: u64) -> Result<(), Fault> {
        if self.windows.covers(store, file, offset, len) {
            return Ok(());
        }
        let mut stat = self.stat(store, file)?;
        if stat.st_nlink == 0 {
            self.forget_file(store, file);
            stat = self.stat(store, file)?;
        }
        let of = self.stores.get(store).ok_or_else(closed)?;
        let content = &of.content;
        let open = open_file(of, &mut self.files, &mut self.jobs.written, store, file, false)?;
        self.windows.map(store, file, offset, len, open.fd.as_fd(), &stat).map_err(|errno| {
            let path = content.dir.join(content.files.entry(file).path);
            fault(errno, &path, "read")
        })
    }

    /// What the kernel says of a file, opened for it.
    fn stat(&mut self, store: StoreId, file: usize) -> Result<Stat, Fault> {
        let result = fstat(&self.file(store, file, false)?.fd);
        result.map_err(|errno| fault(errno, &self.path(store, file), "read"))
    }

    /// Reads content that files hold; what is padding is zeros.
    fn fetch(&mut self, store: StoreId, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let mut rest = buf;
        for part in self.parts(store, Span { offset, len: rest.len() as u64 })? {
            let (now, after) = rest.split_at_mut(usize::try_from(part.span.len).expect("no longer than the buffer"));
            rest = after;
            if part.pad {
                now.fill(0);
                continue;
            }
            let result = self.file(store, part.file, false)?.read_exact_at(now, part.offset);
            if let Err(errno) = result {
                let path = self.path(store, part.file);
                self.forget_file(store, part.file);
                return Err(fault(errno, &path, "read"));
            }
        }
        Ok(())
    }

    /// Sends through a buffer. Like [`FileStorage::gather`], it ends before content that cannot be had and what leads up to it.
    fn send_copied(&mut self, stream: &mut mio::net::TcpStream, chunks: &[Chunk<'_>]) -> Result<usize, SendError> {
        let mut buf = std::mem::take(&mut self.send_buf);
        if buf.is_empty() {
            buf = Buffer::new(SEND_BUF_LEN);
        }
        let result = match self.copy(chunks, &mut buf) {
            (0, Some((store, fault))) => Err(SendError::Content(store, fault)),
            (len, _) => io::Write::write(stream, &buf[..len]).map_err(SendError::Stream),
        };
        self.send_buf = buf;
        result
    }

    /// Copies the start of `chunks` into `buf`: how many bytes, and which content could not be had if that is why it ends there.
    fn copy(&mut self, chunks: &[Chunk<'_>], buf: &mut [u8]) -> (usize, Option<(StoreId, Fault)>) {
        let room = buf.len();
        let mut rest = buf;
        let (mut places, mut slices) = (Vec::with_capacity(chunks.len()), Vec::with_capacity(chunks.len()));
        for chunk in chunks {
            let len = usize::try_from(chunk.len()).map_or(rest.len(), |len| len.min(rest.len()));
            let (now, after) = rest.split_at_mut(len);
            rest = after;
            match *chunk {
                Chunk::Bytes(bytes) => now.copy_from_slice(&bytes[..len]),
                Chunk::Content(store, span) => {
                    places.push(Place { store, offset: span.offset, len: len as u64, end: room - rest.len() });
                    slices.push(IoSliceMut::new(now));
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        let mut whole = 0;
        let mut slices = slices.as_mut_slice();
        let goes_on = |a: &Place, b: &Place| a.store == b.store && a.offset + a.len == b.offset;
        for run in places.chunk_by(goes_on) {
            let (now, after) = slices.split_at_mut(run.len());
            slices = after;
            if !self.fetch_together(run, now) {
                for (place, bytes) in run.iter().zip(now) {
                    if let Err(fault) = self.fetch(place.store, place.offset, bytes) {
                        return (whole, Some((place.store, fault)));
                    }
                    whole = place.end;
                }
            }
            whole = run.last().map_or(whole, |last| last.end);
        }
        (room - rest.len(), None)
    }

    /// Reads blocks that lie one behind the other in one file with one call; false if they are not read that way. A file that
    /// somebody removed is not read on: its space would stay taken for as long as it is asked for.
    fn fetch_together(&mut self, run: &[Place], slices: &mut [IoSliceMut<'_>]) -> bool {
        let (store, offset) = (run[0].store, run[0].offset);
        let len = run.iter().map(|place| place.len).sum();
        let Ok(list) = self.file_list(store) else { return false };
        let mut parts = list.parts(Span { offset, len });
        let (Some((file, offset, _)), None) = (parts.next(), parts.next()) else { return false };
        let is_pad = list.entry(file).pad;
        match self.file(store, file, false) {
            Ok(open) if !is_pad && !open.is_removed() => open.read_vectored_at(slices, offset) == len,
            Ok(_) if !is_pad => {
                self.forget_file(store, file);
                false
            }
            _ => false,
        }
    }
}

/// Where a block of content comes from, and where it ends in the buffer that it is copied to.
#[derive(Debug, Clone, Copy)]
struct Place {
    store: StoreId,
    offset: u64,
    len: u64,
    end: usize,
}

/// The open file at index `file` of the content `of`; for writing it is made where it is missing, and may be. This is the only place
/// where a file or a directory of content is made, but for moves.
fn open_file<'f>(
    of: &Store,
    files: &'f mut Files,
    written: &mut Written,
    store: StoreId,
    file: usize,
    write: bool,
) -> Result<&'f mut OpenFile, Fault> {
    let content = &of.content;
    let path_of = |index: usize| content.files.entry(index).path;
    let path = path_of(file);
    if write && content.read_only {
        // Whoever decides what is written should never come here: this is the last place where it can be refused.
        let message =
            format!("{} is not this torrent's to write; nothing was written", content.dir.join(path).display());
        return Err(Fault { kind: FaultKind::Denied, message });
    }
    let mut missing = file;
    let open = || match place::open(&content.dir, path, write) {
        Err(Errno::NOENT | Errno::NOTDIR) if !write && content.also.is_some() => {
            // In mid-move it is at one place or the other, and may just have gone from the first.
            let also = content.also.as_deref().unwrap_or(&content.dir);
            place::open(also, path, false)
        }
        Err(Errno::NOENT) if write => {
            // An empty mount point looks like a directory in which nothing was made yet.
            if let Some(witness) = of.witness(file).filter(|&witness| witness == file || !of.is_in_place(witness)) {
                missing = witness;
                return Err(Errno::NOENT);
            }
            let made = place::make(&content.dir, path)?;
            written.note_made(store, file);
            Ok(made)
        }
        result => result,
    };
    files.get(store, file, write, open).map_err(|errno| {
        let doing = if write { "written" } else { "read" };
        fault(errno, &content.dir.join(path_of(missing)), doing)
    })
}

/// A part of a span in one file.
#[derive(Debug, Clone, Copy)]
struct Part {
    file: usize,
    offset: u64,
    span: Span,
    pad: bool,
}

fn closed() -> Fault {
    Fault { kind: FaultKind::Gone, message: "the content is not open any more".into() }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// One sentence about what the system said of a path.
fn fault(errno: Errno, path: &Path, doing: &str) -> Fault {
    let path = path.display();
    let (kind, message) = match errno {
        Errno::NOSPC | Errno::DQUOT => (FaultKind::Full, format!("no space to write {path}; make room on the disk")),
        Errno::FBIG => (FaultKind::Full, format!("{path} may not grow that long; raise the limit on file sizes")),
        Errno::NOENT | Errno::NOTDIR => (
            FaultKind::Gone,
            format!("missing: {path}; mount its disk or put it back, or `verify` to download it again"),
        ),
        Errno::FAULT => {
            let advice = "it is shorter than it was; put it back, or `verify` to download it again";
            (FaultKind::Gone, format!("missing: {path}; {advice}"))
        }
        Errno::LOOP | Errno::XDEV => {
            (FaultKind::Denied, format!("{path} leads through a symbolic link, which is not followed; remove the link"))
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            (FaultKind::Denied, format!("{path} may not be {doing} ({errno}); give this user the right to"))
        }
        Errno::ISDIR => (FaultKind::Denied, format!("{path} is a directory where a file should be; move it away")),
        _ => (FaultKind::Io, format!("{path} could not be {doing}: {errno}")),
    };
    Fault { kind, message }
}

impl Storage for FileStorage {
    type Stream = mio::net::TcpStream;

    fn open(&mut self, content: Content) -> StoreId {
        self.stores.insert(Store { content, device: None, held: Bitfield::default() })
    }

    fn close(&mut self, store: StoreId) {
        self.windows.forget(store, None);
        self.files.forget(store, None);
        self.jobs.written.take(store);
        self.stores.remove(store);
    }

    fn set_wanted(&mut self, store: StoreId, wanted: &[bool]) {
        if let Some(store) = self.stores.get_mut(store) {
            store.content.wanted = wanted.to_vec();
        }
    }

    fn set_read_only(&mut self, store: StoreId, read_only: bool) {
        if let Some(store) = self.stores.get_mut(store) {
            store.content.read_only = read_only;
        }
    }

    fn set_held(&mut self, store: StoreId, held: &[bool]) {
        if let Some(store) = self.stores.get_mut(store) {
            store.held = Bitfield::default();
        }
        for (file, _) in held.iter().enumerate().filter(|(_, held)| **held) {
            self.hold(store, file);
        }
    }

    fn hold(&mut self, store: StoreId, file: usize) {
        let Some(store) = self.stores.get_mut(store) else { return };
        let files = u32::try_from(store.content.files.len()).unwrap_or(u32::MAX);
        if store.held.len() != files {
            store.held = Bitfield::new(files);
        }
        if let Ok(file) = u32::try_from(file)
            && file < files
        {
            store.held.set(file);
        }
    }

    fn cut(&mut self, store: StoreId, file: usize) {
        if self.is_read_only(store) {
            return;
        }
        let len = self.file_list(store).map_or(0, |files| files.entry(file).span.len);
        if len == 0 || self.is_missing(store, file) {
            return;
        }
        let Ok(open) = self.file(store, file, true) else { return };
        if place::excess_on_disk_bytes(open.fd.as_fd(), len) <= CUT_AT_ONCE_BYTES {
            jobs::cut(self, store, file);
        }
    }

    fn prepare(&mut self, store: StoreId, span: Span) -> Result<(), Fault> {
        let mut needed = 0;
        for part in self.parts(store, span)?.filter(|part| !part.pad) {
            let content = &self.stores.get(store).ok_or_else(closed)?.content;
            let len = content.files.entry(part.file).span.len;
            let is_wanted = content.wanted[part.file];
            if !is_wanted || !place::has_room(self.file(store, part.file, true)?.fd.as_fd(), len) {
                needed += part.span.len;
            }
        }
        self.promise(store, needed)
    }

    fn write(&mut self, store: StoreId, offset: u64, bytes: &[IoSlice<'_>]) -> Result<(), Fault> {
        let len: usize = bytes.iter().map(|slice| slice.len()).sum();
        let parts = self.parts(store, Span { offset, len: len as u64 })?;
        let mut rest: Vec<IoSlice<'_>> = bytes.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = rest.as_mut_slice();
        for part in parts {
            let mut left = usize::try_from(part.span.len).expect("no longer than the slices");
            if part.pad {
                IoSlice::advance_slices(&mut rest, left);
                continue;
            }
            let file = self.file(store, part.file, true)?;
            let mut at = part.offset;
            while left > 0 {
                let written = match file.write(rest, left, at) {
                    Ok(written) => written,
                    Err(errno) => {
                        if matches!(errno, Errno::NOSPC | Errno::DQUOT) {
                            self.spaces.note_full(self.stores.get(store).and_then(|store| store.device));
                        }
                        return Err(fault(errno, &self.path(store, part.file), "written"));
                    }
                };
                IoSlice::advance_slices(&mut rest, written);
                at += written as u64;
                left -= written;
            }
            file.unflushed += part.span.len;
            if file.unflushed >= WRITEBACK_BYTES {
                file.begin_writeback();
            }
            self.jobs.written.note(store, part.file);
        }
        Ok(())
    }

    fn read(&mut self, store: StoreId, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.fetch(store, offset, buf)?;
        // What is read is hashed and then claimed, whoever wrote it: another run that was killed, or a copy. It may be in
        // nothing but the page cache, so the sync before the claim is recorded takes it along.
        for part in self.parts(store, Span { offset, len: buf.len() as u64 })?.filter(|part| !part.pad) {
            self.jobs.written.note(store, part.file);
        }
        Ok(())
    }

    fn expect(&mut self, store: StoreId, span: Span) {
        let Ok(parts) = self.parts(store, span) else { return };
        for part in parts.take(TOUCHED_MAX).filter(|part| !part.pad) {
            if self.settings.backend == Backend::Mmap
                && self.windows.is_known_resident(store, part.file, part.offset, part.span.len)
            {
                continue;
            }
            if let Ok(file) = self.file(store, part.file, false) {
                file.read_ahead(part.offset, part.span.len);
            }
        }
    }

    fn resident(&mut self, store: StoreId, span: Span) -> bool {
        let Ok(parts) = self.parts(store, span) else { return true };
        let _ = self.windows.begin();
        parts.take(TOUCHED_MAX).filter(|part| !part.pad).all(|part| {
            let (file, offset, len) = (part.file, part.offset, part.span.len);
            match self.settings.backend {
                Backend::Mmap => {
                    // What cannot be mapped will be met, and told, when the content is sent.
                    self.map(store, file, offset, len).is_err() || self.windows.is_resident(store, file, offset, len)
                }
                Backend::Pread => self.file(store, file, false).map_or(true, |file| file.is_resident(offset, len)),
            }
        })
    }

    fn send(&mut self, stream: &mut mio::net::TcpStream, chunks: &[Chunk<'_>]) -> Result<usize, SendError> {
        if chunks.is_empty() {
            return Ok(0);
        }
        if self.settings.backend == Backend::Pread {
            return self.send_copied(stream, chunks);
        }
        let iovecs = self.gather(chunks);
        let sent = if iovecs.len() > 0 { self.windows.write(stream.as_fd(), &iovecs) } else { Err(Errno::FAULT) };
        match sent {
            Ok(sent) => Ok(sent),
            // The buffer sends what cannot be mapped, and finds out which content cannot be had.
            Err(Errno::FAULT) => self.send_copied(stream, chunks),
            Err(errno) => Err(SendError::Stream(errno.into())),
        }
    }

    fn has_data(&mut self, store: StoreId, span: Span) -> bool {
        let Ok(mut parts) = self.parts(store, span) else { return false };
        if parts.clone().nth(TOUCHED_MAX).is_some() {
            return true; // whoever reads it will see
        }
        parts.clone().any(|part| {
            !part.pad && self.file(store, part.file, false).is_ok_and(|file| file.has_data(part.offset, part.span.len))
        }) || parts.all(|part| part.pad)
    }

    fn saved(&mut self, name: &Path) -> Option<Vec<u8>> {
        self.state.as_ref()?.read(name)
    }

    fn saved_part(&mut self, name: &Path, bytes: &mut Vec<u8>, most: usize) -> Option<bool> {
        self.state.as_mut()?.read_part(name, bytes, most)
    }

    fn exists(&mut self, path: &Path) -> bool {
        !matches!(rustix::fs::stat(path), Err(Errno::NOENT | Errno::NOTDIR))
    }

    fn place(&mut self, dir: &Path) -> PathBuf {
        self.mounts.place(dir)
    }

    fn places_version(&mut self) -> u64 {
        self.mounts.refresh()
    }

    fn identity(&mut self, dir: &Path, path: &Path) -> Option<FileIdentity> {
        place::identity(dir, path)
    }

    fn stamp(&mut self, store: StoreId, file: usize) -> Option<Stamp> {
        let content = &self.stores.get(store)?.content;
        let entry = content.files.get(file)?;
        if entry.pad {
            return Some(Stamp::default());
        }
        // What is open and what lies there are two things once somebody has put another file in its place.
        let opened = self.files.inode(store, file);
        place::stamp(&content.dir, entry.path)
            .or_else(|| place::stamp(content.also.as_deref()?, entry.path))
            .filter(|stamp| opened.is_none_or(|inode| inode == stamp.inode))
    }

    fn trouble(&mut self, store: StoreId, file: usize) -> Option<Fault> {
        let content = &self.stores.get(store)?.content;
        let entry = content.files.get(file).filter(|entry| !entry.pad)?;
        let errno = place::open(&content.dir, entry.path, false).err()?;
        let is_there = |dir: &PathBuf| place::open(dir, entry.path, false).is_ok();
        let is_elsewhere = content.also.as_ref().is_some_and(is_there);
        (!is_elsewhere).then(|| fault(errno, &content.dir.join(entry.path), "read"))
    }

    fn is_there(&mut self, store: StoreId, path: &Path) -> bool {
        self.stores.get(store).is_some_and(|store| place::is_there(&store.content.dir, path))
    }

    fn rename(&mut self, store: StoreId, from: &Path, to: &Path, files: Arc<FileList>) -> Result<(), Fault> {
        let content = &mut self.stores.get_mut(store).ok_or_else(closed)?.content;
        if let Err(errno) = place::rename(&content.dir, from, to) {
            return Err(fault(errno, &content.dir.join(to), "renamed"));
        }
        content.files = files;
        Ok(())
    }

    fn move_progress(&self, store: StoreId) -> Option<(u64, u64)> {
        self.jobs.move_progress(store)
    }

    fn stop_move(&mut self, store: StoreId, undo: bool) {
        Jobs::stop_move(self, store, undo);
    }
}

#[cfg(test)]
mod tests;
