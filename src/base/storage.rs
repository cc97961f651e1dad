//! Where content lives, as the engine sees it: the one trait of this project.
//!
//! Two implementations: files (`storage`) and the simulator's memory (`sim`). What stands here never waits for a disk
//! longer than a page-cache copy takes; what may wait is a [`Job`], an effect that the driver carries out and answers.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::bytes::Rope;
use crate::base::files::FileList;
use crate::base::geometry::Span;
use crate::base::hash::InfoHash;
use crate::base::ids::StoreId;

/// Content to open.
#[derive(Debug, Clone)]
pub struct Content {
    /// The directory that holds it; all paths of `files` lie below. Made when the first byte is written.
    pub dir: PathBuf,
    /// Where its files may be, too, while they are being moved there: for who only reads.
    pub also: Option<PathBuf>,
    /// Its files, shared with the torrent.
    pub files: Arc<FileList>,
    /// Which files are wanted, by index; the others are written only where a shared piece forces it, and never allocated.
    pub wanted: Vec<bool>,
    /// Whether nothing may be written through this content: its files belong to another torrent, or to the user.
    pub read_only: bool,
}

/// Why storage could not do what it was asked: the disk's fault, or its owner's. Stops one torrent, shown to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of trouble it is.
    pub kind: FaultKind,
    /// One sentence that says what happened to which path, and what to do.
    pub message: String,
}

/// Kinds of trouble with storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// No room, or the quota or `min_free_space` is reached. Goes on by itself once there is room.
    Full,
    /// A file is not there, or shorter than it was.
    Gone,
    /// Not permitted, or a path that would leave the download directory.
    Denied,
    /// Reading or writing failed.
    Io,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A part of one vectored write to a stream.
#[derive(Debug, Clone, Copy)]
pub enum Chunk<'a> {
    /// Encoded bytes.
    Bytes(&'a [u8]),
    /// A range of content.
    Content(StoreId, Span),
}

impl Chunk<'_> {
    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Chunk::Bytes(bytes) => bytes.len() as u64,
            Chunk::Content(_, span) => span.len,
        }
    }

    /// True if it is of no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a `send` moved nothing.
#[derive(Debug)]
pub enum SendError {
    /// The stream's fault; `WouldBlock` means that the kernel's buffer is full.
    Stream(io::Error),
    /// The content could not be had.
    Content(StoreId, Fault),
}

/// What a file looked like at one moment: enough to see that somebody else changed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Length in bytes.
    pub len: u64,
    /// Modification time, nanoseconds since the Unix epoch.
    pub modified_nanos: i64,
    /// The inode's number.
    pub inode: u64,
}

/// Which file is at a path, by whatever name it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    /// The device number of its file system.
    pub device: u64,
    /// The inode number, unique on the device.
    pub inode: u64,
    /// How many names the inode has.
    pub links: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Content by spans. Every method returns at once.
pub trait Storage {
    /// What content may be lent to: in the programs, kernel sockets and nothing else.
    type Stream: io::Read + io::Write;

    /// Takes content under its care. Touches no file.
    fn open(&mut self, content: Content) -> StoreId;

    /// Forgets content and closes its files.
    fn close(&mut self, store: StoreId);

    /// Says which files are wanted from now on (see [`Content::wanted`]).
    fn set_wanted(&mut self, store: StoreId, wanted: &[bool]);

    /// Says whether nothing may be written from now on (see [`Content::read_only`]).
    fn set_read_only(&mut self, store: StoreId, read_only: bool);

    /// Says which files hold verified pieces, by index; none of them at first. Such a file is never made: if it is not there it is
    /// missing, and so may be the disk that it was on. Nor is any other file made then: where one is not there, the nearest file
    /// that holds verified pieces must be.
    fn set_held(&mut self, store: StoreId, held: &[bool]);

    /// Says that the file at index `file` holds verified pieces, too (see [`Storage::set_held`]).
    fn hold(&mut self, store: StoreId, file: usize);

    /// Cuts off what the complete file at index `file` has beyond its length, where that takes no time; the [`Job::Sync`] that finishes the
    /// file does the rest.
    fn cut(&mut self, store: StoreId, file: usize);

    /// Makes room for `span`, so that a full disk is found before any peer is asked for it.
    ///
    /// # Errors
    /// [`FaultKind::Full`] if there is none; [`FaultKind::Gone`] if a file with verified pieces is missing; whatever else making a
    /// directory or a file can meet.
    fn prepare(&mut self, store: StoreId, span: Span) -> Result<(), Fault>;

    /// Writes `bytes`, one after another, at `offset` of the content. All or a fault.
    ///
    /// # Errors
    /// What the disk says. Some of the bytes may have been written.
    fn write(&mut self, store: StoreId, offset: u64, bytes: &[IoSlice<'_>]) -> Result<(), Fault>;

    /// Fills `buf` from `offset` of the content.
    ///
    /// # Errors
    /// [`FaultKind::Gone`] if a file is missing or too short; what the disk says.
    fn read(&mut self, store: StoreId, offset: u64, buf: &mut [u8]) -> Result<(), Fault>;

    /// Says that `span` will be sent or read soon; starts reading it ahead, of as many files as one call touches
    /// ([`TOUCHED_MAX`](crate::base::files::TOUCHED_MAX)).
    fn expect(&mut self, store: StoreId, span: Span);

    /// True if sending `span` would not wait for the disk, as far as it lies in as many files as one call touches
    /// ([`TOUCHED_MAX`](crate::base::files::TOUCHED_MAX)). True, too, where that cannot be known.
    fn resident(&mut self, store: StoreId, span: Span) -> bool;

    /// Writes as much of `chunks` to `stream` as it takes in one call, in order. Returns the bytes moved, at least one
    /// unless `chunks` is empty.
    ///
    /// # Errors
    /// See [`SendError`]; nothing was moved then.
    fn send(&mut self, stream: &mut Self::Stream, chunks: &[Chunk<'_>]) -> Result<usize, SendError>;

    /// True if there may be data in `span`: false only where it is certain that nothing was ever written (a hole). Of more files than
    /// one call touches nothing is certain.
    fn has_data(&mut self, store: StoreId, span: Span) -> bool;

    /// What was saved under `name` by a [`Job::Save`]. `None` if there is nothing, or it cannot be read.
    fn saved(&mut self, name: &Path) -> Option<Vec<u8>>;

    /// Reads on what was saved under `name`: appends at most `most` bytes to `bytes`, which are those that earlier calls read, or
    /// none. True once all of it is read and proved to be intact; it may begin anew meanwhile. `None` if there is nothing, or
    /// it cannot be read. One value is read at a time.
    fn saved_part(&mut self, name: &Path, bytes: &mut Vec<u8>, most: usize) -> Option<bool>;

    /// True unless it is certain that there is no file or directory at `path`.
    fn exists(&mut self, path: &Path) -> bool;

    /// The canonical place of the directory `dir`, which need not exist yet: two paths that lead to one directory through
    /// symbolic links or bind mounts have the same place, and the place of a directory below begins with it. It is a key to
    /// compare, not a path to open.
    fn place(&mut self, dir: &Path) -> PathBuf;

    /// A number that changes when places may have changed because something was mounted or unmounted.
    fn places_version(&mut self) -> u64;

    /// The identity of the regular file at `path` below `dir`; `None` if there is none.
    fn identity(&mut self, dir: &Path, path: &Path) -> Option<FileIdentity>;

    /// What the file at index `file` looks like; none if it is not there, or is another one than we have open. Pad files look
    /// like [`Stamp::default`].
    fn stamp(&mut self, store: StoreId, file: usize) -> Option<Stamp>;

    /// Why the file at index `file` cannot be opened for reading: [`FaultKind::Gone`] if it is not there; `None` if it can be, or is a
    /// pad file.
    fn trouble(&mut self, store: StoreId, file: usize) -> Option<Fault>;

    /// True if there is something of any kind at `path` of the content's directory.
    fn is_there(&mut self, store: StoreId, path: &Path) -> bool;

    /// Renames a file of the content, or the directory that holds all of them, unless that was done already; the content's files
    /// are `files` from then on. Nothing is ever written over; what is not there has its new name when it is made.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    fn rename(&mut self, store: StoreId, from: &Path, to: &Path, files: Arc<FileList>) -> Result<(), Fault>;

    /// How far a [`Job::Move`] of the content is: bytes that are there, and bytes of all. None if there is none under way.
    fn move_progress(&self, store: StoreId) -> Option<(u64, u64)>;

    /// Ends a [`Job::Move`] or [`Job::Clear`] of the content with a fault: at once, and for the next run to go on with, or, a
    /// move to be undone, with everything where it was. Nothing happens if there is none.
    fn stop_move(&mut self, store: StoreId, undo: bool);
}

/// What may wait for a disk. The engine hands it out as an effect; the driver answers with `handle_job`.
#[derive(Debug, Clone)]
pub enum Job {
    /// Says in the journal of the state directory what `name` is now, or that it is no more.
    Record {
        /// What it is about.
        name: String,
        /// What is said of it; none takes it out.
        value: Option<Vec<u8>>,
    },
    /// Saves `bytes` under `name` in the state directory, atomically and durably. Records that were handed out before it are durable
    /// before it is; if one of them fails that waited together with it, so does it.
    Save {
        /// Relative path, as if it were a file below the state directory.
        name: PathBuf,
        /// What replaces an earlier value.
        bytes: Rope,
    },
    /// Removes what was saved under `name`; gone already is fine. Records that were handed out after it are durable after it is.
    Erase {
        /// Relative path, as if it were a file below the state directory.
        name: PathBuf,
    },
    /// Makes everything written to the content and read of it so far durable: a read may have found what another run left in
    /// the page cache.
    Sync {
        /// Which content.
        store: StoreId,
        /// Files, by index, that are complete: before anything is made durable what lies beyond their length is cut off, and those of
        /// no bytes are made. That this is not possible is logged and no fault.
        finish: Vec<usize>,
    },
    /// Makes room for every wanted file, and makes those of no bytes.
    Allocate {
        /// Which content.
        store: StoreId,
    },
    /// Looks whether the content's files can be moved to another directory; changes nothing.
    Scout {
        /// Which content.
        store: StoreId,
        /// Where to.
        dir: PathBuf,
    },
    /// Moves the content's files to another directory, durably; on a fault everything is where it was. Of what had to be copied
    /// the originals stay, for [`Job::Clear`]. Whatever moment it ends at, it can be begun again.
    Move {
        /// Which content.
        store: StoreId,
        /// The new [`Content::dir`].
        dir: PathBuf,
        /// Whose content it is: what is made on the way is named after it.
        info_hash: InfoHash,
        /// An earlier run began it.
        again: bool,
        /// Whether everything goes back to where it was: the job ends with a fault then.
        undo: bool,
    },
    /// Deletes the content's files from the directory that it was moved from.
    Clear {
        /// Which content.
        store: StoreId,
        /// Where it was.
        from: PathBuf,
    },
    /// Deletes the content's files, and the directories that this leaves empty.
    Delete {
        /// Which content.
        store: StoreId,
        /// Files, by index and in order, that others use: they stay.
        keep: Vec<usize>,
    },
}
