//! Moving content to another directory: each file is renamed, or copied where that is another file system.
//!
//! Originals of copies are deleted once everything is there; on a fault what was moved goes back. The torrent does not run
//! meanwhile. The job needs the store for nothing but its new directory, so it ends well even if the torrent is removed.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{RenameFlags, SeekFrom, fdatasync, ftruncate, renameat_with, seek};
use rustix::io::Errno;

use crate::base::files::FileList;
use crate::base::ids::StoreId;
use crate::base::storage::{Fault, FaultKind};
use crate::storage::jobs::Slice;
use crate::storage::{FileStorage, closed, errno_of, fault, place, writeback};

/// Bytes copied in one slice.
const COPY_SLICE: u64 = 1 << 20;
/// After so many copied bytes the kernel is asked to begin writing them.
const WRITEBACK_BYTES: u64 = 8 << 20;
/// With more bytes of a copy than that still to be written, the copy waits for the disk.
const BEHIND_BYTES_MAX: u64 = 32 << 20;

/// A move under way.
#[derive(Debug)]
pub(super) struct Relocate {
    store: StoreId,
    files: Arc<FileList>,
    from: PathBuf,
    to: PathBuf,
    /// The file that is next in this phase.
    file: usize,
    moved: Vec<(usize, How)>,
    copy: Option<Copy>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// There.
    Going,
    /// Everything is there; originals of copies go.
    Clearing,
    /// Something failed; what was moved goes back.
    Returning(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Renamed,
    Copied,
}

/// One file being copied.
#[derive(Debug)]
struct Copy {
    from: File,
    to: File,
    len: u64,
    at: u64,
    /// Bytes since the kernel was last asked to begin writing.
    unflushed: u64,
}

impl Relocate {
    pub(super) fn begin(storage: &FileStorage, store: StoreId, to: PathBuf) -> Self {
        let content = storage.stores.get(store).map(|store| &store.content);
        Self {
            store,
            files: content.map(|content| Arc::clone(&content.files)).unwrap_or_default(),
            from: content.map(|content| content.dir.clone()).unwrap_or_default(),
            to,
            file: 0,
            moved: Vec::new(),
            copy: None,
            phase: if content.is_some() { Phase::Going } else { Phase::Returning(closed()) },
        }
    }

    pub(super) fn step(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        match &self.phase {
            Phase::Going => match self.go(storage) {
                Ok(slice) => return Ok(slice),
                Err(fault) => {
                    if self.copy.take().is_some() {
                        self.moved.push((self.file, How::Copied));
                    }
                    self.phase = Phase::Returning(fault);
                }
            },
            Phase::Clearing => {
                let Some(&(file, how)) = self.moved.get(self.file) else { return Ok(Slice::Done) };
                self.file += 1;
                let path = &self.files.entries()[file].path;
                if how == How::Copied {
                    // The copy is durable; an original that cannot be deleted is left, and harms nobody.
                    if let Err(errno) = place::delete(&self.from, path) {
                        log::warn!("{} was copied and could not be deleted: {errno}", self.from.join(path).display());
                    }
                }
                place::tidy(&self.from, path);
            }
            Phase::Returning(fault) => {
                let Some((file, how)) = self.moved.pop() else { return Err(fault.clone()) };
                let path = &self.files.entries()[file].path;
                let result = match how {
                    How::Renamed => rename(&self.to, &self.from, path),
                    How::Copied => place::delete(&self.to, path),
                };
                if let Err(errno) = result {
                    log::error!("{} could not be put back: {errno}", self.to.join(path).display());
                }
                place::tidy(&self.to, path);
            }
        }
        Ok(Slice::More)
    }

    /// A slice of the way there.
    fn go(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        let files = Arc::clone(&self.files);
        let Some(entry) = files.entries().get(self.file) else {
            storage.windows.forget(self.store, None);
            storage.files.forget(self.store, None);
            if let Some(store) = storage.stores.get_mut(self.store) {
                store.content.dir.clone_from(&self.to);
            }
            (self.phase, self.file) = (Phase::Clearing, 0);
            return Ok(Slice::More);
        };
        let target = self.to.join(&entry.path);
        let told = |errno| fault(errno, &target, "written");
        if let Some(copy) = &mut self.copy {
            let slice = copy.step().map_err(told)?;
            if slice == Slice::Done {
                self.copy = None;
                self.moved.push((self.file, How::Copied));
                self.file += 1;
                return Ok(Slice::More);
            }
            return Ok(slice);
        }
        let exists = !entry.pad && place::stamp(&self.from, &entry.path).is_some();
        if self.from == self.to || !exists {
            self.file += 1;
            return Ok(Slice::More);
        }
        match rename(&self.from, &self.to, &entry.path) {
            Ok(()) => {
                self.moved.push((self.file, How::Renamed));
                self.file += 1;
            }
            Err(Errno::XDEV) => match Copy::begin(&self.from, &self.to, &entry.path) {
                Err(Errno::EXIST) => return Err(in_the_way(&target)),
                result => self.copy = Some(result.map_err(told)?),
            },
            Err(Errno::EXIST) => return Err(in_the_way(&target)),
            Err(errno) => return Err(told(errno)),
        }
        Ok(Slice::More)
    }
}

fn in_the_way(target: &Path) -> Fault {
    let message = format!("{} is there already; move it away first", target.display());
    Fault { kind: FaultKind::Denied, message }
}

impl Copy {
    fn begin(from: &Path, to: &Path, path: &Path) -> Result<Self, Errno> {
        let from = File::from(place::open(from, path, false)?);
        let to = File::from(place::make(to, path)?);
        let len = place::len(from.as_fd());
        ftruncate(&to, len)?;
        Ok(Self { from, to, len, at: 0, unflushed: 0 })
    }

    /// A slice. Holes are left out, so that a sparse file stays one. Not `copy_file_range`: it refuses to cross from one kind of
    /// file system to another.
    fn step(&mut self) -> Result<Slice, Errno> {
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
            if self.unflushed > 0 {
                self.unflushed = 0;
                writeback::begin(self.to.as_fd());
                return Ok(Slice::More);
            }
            if unwritten > 0 {
                return Ok(Slice::Later);
            }
            fdatasync(&self.to)?;
            return Ok(Slice::Done);
        }
        let hole = seek(&self.from, SeekFrom::Hole(data)).unwrap_or(self.len);
        let end = hole.min(data + COPY_SLICE).min(self.len);
        let mut buf = vec![0; usize::try_from(end - data).expect("a slice")];
        self.from.read_exact_at(&mut buf, data).map_err(|error| errno_of(&error))?;
        self.to.write_all_at(&buf, data).map_err(|error| errno_of(&error))?;
        self.at = end;
        self.unflushed += end - data;
        if self.unflushed >= WRITEBACK_BYTES {
            self.unflushed = 0;
            writeback::begin(self.to.as_fd());
        }
        Ok(Slice::More)
    }
}

/// Renames one file from below `from` to below `to`; never over another one.
fn rename(from: &Path, to: &Path, path: &Path) -> Result<(), Errno> {
    place::make_way(to, path)?;
    let (old, name) = place::parent(from, path)?;
    let (new, _) = place::parent(to, path)?;
    renameat_with(&old, name, &new, name, RenameFlags::NOREPLACE)
}
