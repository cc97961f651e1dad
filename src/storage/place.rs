//! Files in their place: opened, made, measured and deleted so that nothing ever leaves the content's directory.
//!
//! The user's directory may lie anywhere, behind symbolic links too; below it every path is resolved by the kernel with
//! `RESOLVE_BENEATH` and without following any link.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, access, fstat, fsync, ftruncate, mkdirat, openat,
    openat2, statat, statvfs, unlinkat,
};
use rustix::fs::{RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::base::storage::{FileIdentity, Stamp};

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const DIR_MODE: Mode = Mode::from_raw_mode(0o777);
/// A file with more bytes on the disk is shortened by so many at a time before it is deleted: to free all at once would take long.
const SHORTEN_BYTES: u64 = 1 << 30;

fn open_dir(dir: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens the file at `path` below `dir`, for writing too if `write`.
pub(super) fn open(dir: &Path, path: &Path, write: bool) -> Result<OwnedFd, Errno> {
    let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
    regular(openat2(&open_dir(dir)?, path, FLAGS | access, Mode::empty(), BENEATH)?)
}

/// Makes a file at `path` below `dir`, and its directories where they are missing, and opens it for writing. `EXIST` if
/// something is there.
pub(super) fn make(dir: &Path, path: &Path) -> Result<OwnedFd, Errno> {
    make_way(dir, path)?;
    let flags = FLAGS | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    regular(openat2(&open_dir(dir)?, path, flags, FILE_MODE, BENEATH)?)
}

/// Makes durable which names the directory `path` below `dir` holds; `dir` itself if it is empty.
pub(super) fn sync_dir(dir: &Path, path: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = if path.as_os_str().is_empty() {
        openat(CWD, dir, flags, Mode::empty())?
    } else {
        openat2(&open_dir(dir)?, path, flags, Mode::empty(), BENEATH)?
    };
    fsync(&fd)
}

/// The length of an open file, bytes.
pub(super) fn len(fd: BorrowedFd<'_>) -> u64 {
    fstat(fd).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

/// True if an open file has as many bytes on the disk as it may need: writing to it takes no more space.
pub(super) fn has_room(fd: BorrowedFd<'_>, len: u64) -> bool {
    fstat(fd).is_ok_and(|stat| on_disk_bytes(&stat) >= len)
}

/// Bytes that a file has on the disk; none if it is not there.
pub(super) fn allocated_bytes(dir: &Path, path: &Path) -> u64 {
    stat(dir, path).map_or(0, |stat| on_disk_bytes(&stat))
}

fn on_disk_bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

fn stat(dir: &Path, path: &Path) -> Option<Stat> {
    let fd = openat2(&open_dir(dir).ok()?, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH).ok()?;
    fstat(&fd).ok()
}

/// Makes the directories above `path`, each below the one before.
fn make_parents(root: &OwnedFd, path: &Path) -> Result<(), Errno> {
    let Some(parents) = path.parent() else { return Ok(()) };
    let mut whole = PathBuf::new();
    for component in parents.components() {
        let parent = if whole.as_os_str().is_empty() { None } else { Some(beneath(root, &whole)?) };
        let Component::Normal(name) = component else { return Err(Errno::INVAL) };
        match mkdirat(parent.as_ref().unwrap_or(root), name, DIR_MODE) {
            Ok(()) | Err(Errno::EXIST) => whole.push(name),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A directory below `root`.
fn beneath(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

/// A pipe or a device in a file's place would block or do something else entirely.
fn regular(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    match FileType::from_raw_mode(fstat(&fd)?.st_mode) {
        FileType::RegularFile => Ok(fd),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::PERM),
    }
}

/// What a file looks like; none if it is not there or no file.
pub(super) fn stamp(dir: &Path, path: &Path) -> Option<Stamp> {
    let stat = stat(dir, path)?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| Stamp {
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified_nanos: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        inode: stat.st_ino,
    })
}

/// Which file is at `path` below `dir`; `None` if none is there, or no regular file.
pub(super) fn identity(dir: &Path, path: &Path) -> Option<FileIdentity> {
    let stat = stat(dir, path)?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| FileIdentity {
        device: stat.st_dev,
        inode: stat.st_ino,
        links: stat.st_nlink,
        len: u64::try_from(stat.st_size).unwrap_or(0),
    })
}

/// Bytes that may still be written where `dir` is, or will be, and bytes of that file system in all.
pub(super) fn free_and_total_bytes(dir: &Path) -> Option<(u64, u64)> {
    let stat = statvfs(existing(dir)).ok()?;
    Some((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

/// Where the file system is mounted that `dir` is on, or will be.
pub(super) fn mount_point(dir: &Path) -> PathBuf {
    let existing = std::fs::canonicalize(existing(dir)).unwrap_or_else(|_| dir.to_owned());
    let device = device(&existing);
    let above = existing.ancestors().take_while(|above| self::device(above) == device);
    above.last().unwrap_or(&existing).to_owned()
}

/// The directory that holds `path`, below `dir`, and the file's name in it.
pub(super) fn parent<'p>(dir: &Path, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
    let root = open_dir(dir)?;
    let name = path.file_name().ok_or(Errno::INVAL)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => Ok((beneath(&root, parent)?, name)),
        None => Ok((root, name)),
    }
}

/// Makes the directories above `path` below `dir`, and `dir` itself, where they are missing.
pub(super) fn make_way(dir: &Path, path: &Path) -> Result<(), Errno> {
    std::fs::create_dir_all(dir).map_err(|error| super::errno_of(&error))?;
    make_parents(&open_dir(dir)?, path)
}

/// True if there is something of any kind at `path` below `dir`, or something other than a directory on the way to it.
pub(super) fn is_there(dir: &Path, path: &Path) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let result = open_dir(dir).and_then(|dir| openat2(&dir, path, flags, Mode::empty(), BENEATH));
    !matches!(result, Err(Errno::NOENT))
}

/// The nearest directory above `dir` that is there, or `dir` itself.
fn existing(dir: &Path) -> &Path {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    if existing.as_os_str().is_empty() { Path::new(".") } else { existing }
}

/// Whether files may be made in `dir`, or `dir` itself where it is missing.
pub(super) fn may_write(dir: &Path) -> Result<(), Errno> {
    let existing = existing(dir);
    open_dir(existing)?;
    access(existing, Access::WRITE_OK | Access::EXEC_OK)
}

/// The file system that `dir` is on, or will be: its device.
pub(super) fn device(dir: &Path) -> Option<u64> {
    rustix::fs::stat(existing(dir)).ok().map(|stat| stat.st_dev)
}

/// Deletes a regular file, or a part of it if it is large: true if there is more of it. Gone already is fine; anything else in
/// its place is left.
pub(super) fn shorten(dir: &Path, path: &Path) -> Result<bool, Errno> {
    let found = parent(dir, path).and_then(|(parent, name)| {
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((parent, name, stat))
    });
    let (parent, name, stat) = match found {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        found => found?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        FileType::Symlink => return Err(Errno::LOOP),
        _ => return Err(Errno::INVAL),
    }
    // Under another name it is somebody else's, too.
    if stat.st_nlink == 1 && on_disk_bytes(&stat) > SHORTEN_BYTES {
        let flags = FLAGS | OFlags::WRONLY | OFlags::NOFOLLOW;
        let len = u64::try_from(stat.st_size).unwrap_or(0).saturating_sub(SHORTEN_BYTES);
        if openat(&parent, name, flags, Mode::empty()).and_then(|fd| ftruncate(&fd, len)).is_ok() {
            return Ok(true);
        }
    }
    unlinkat(&parent, name, AtFlags::empty()).map(|()| false)
}

/// Bytes that an open file has on the disk beyond `len`, as far as one can tell.
pub(super) fn excess_on_disk_bytes(fd: BorrowedFd<'_>, len: u64) -> u64 {
    fstat(fd).map_or(0, |stat| {
        let excess = u64::try_from(stat.st_size).unwrap_or(0).saturating_sub(len);
        on_disk_bytes(&stat).saturating_sub(len).min(excess)
    })
}

/// Cuts off what an open file has beyond `len` bytes, or a part of it if that is much: how many bytes; 0 when nothing is left.
pub(super) fn cut(fd: BorrowedFd<'_>, len: u64) -> Result<u64, Errno> {
    let stat = fstat(fd)?;
    let excess = u64::try_from(stat.st_size).unwrap_or(0).saturating_sub(len);
    // A hole takes no time to free, and the parts are no more than some thousand.
    let is_little = on_disk_bytes(&stat).saturating_sub(len) <= SHORTEN_BYTES;
    let part = if is_little { excess } else { excess.min(SHORTEN_BYTES.max(excess / 4096)) };
    if part > 0 {
        ftruncate(fd, len + (excess - part))?;
    }
    Ok(part)
}

/// Renames what is at `from` below `dir` to `to` in the same directory, durably, unless it is not there; never over anything.
pub(super) fn rename(dir: &Path, from: &Path, to: &Path) -> Result<(), Errno> {
    if !is_there(dir, from) {
        return Ok(());
    }
    let (parent, name) = parent(dir, from)?;
    let new = to.file_name().ok_or(Errno::INVAL)?;
    renameat_with(&parent, name, &parent, new, RenameFlags::NOREPLACE)?;
    sync_dir(dir, from.parent().unwrap_or(Path::new("")))
}

/// Deletes a file; gone already is fine.
pub(super) fn delete(dir: &Path, path: &Path) -> Result<(), Errno> {
    let result = parent(dir, path).and_then(|(parent, name)| unlinkat(&parent, name, AtFlags::empty()));
    match result {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
        result => result,
    }
}

/// Removes the directories above `path` as far as they are empty, never `dir` itself.
pub(super) fn tidy(dir: &Path, path: &Path) {
    for parent in path.ancestors().skip(1).take_while(|parent| !parent.as_os_str().is_empty()) {
        let removed = self::parent(dir, parent).and_then(|(above, name)| unlinkat(&above, name, AtFlags::REMOVEDIR));
        if removed.is_err() {
            return; // not empty, or not ours to remove
        }
    }
}
