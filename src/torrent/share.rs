//! What lies in a share directory becomes a torrent: it is read and hashed in slices, and nothing of it is copied.
//!
//! Its files are looked at before and after, some at a time; what changed meanwhile is begun anew.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::files::{FileList, TOUCHED_MAX};
use crate::base::geometry::Span;
use crate::base::ids::StoreId;
use crate::base::storage::{Content, Fault, Stamp, Storage};
use crate::codec::metainfo::{Metainfo, MetainfoError};
use crate::torrent::command::NewShare;
use crate::torrent::create::{Creator, Notes, piece_len_for};

/// Bytes that are hashed at once.
const SLICE_LEN: u64 = 256 * 1024;
/// The disk is told so much ahead, bytes.
const READ_AHEAD: u64 = 2 * 1024 * 1024;
/// Files that are looked at in one slice.
pub const LOOKS_MAX: usize = 256;

/// A description in the making.
#[derive(Debug)]
pub struct Making {
    /// What is described.
    pub share: NewShare,
    store: StoreId,
    creator: Creator,
    offset: u64,
    total_len: u64,
    files: Arc<FileList>,
    /// How its files looked before, as far as they were looked at.
    stamps: Vec<Option<Stamp>>,
    /// So many were looked at once more after all was hashed.
    looked: usize,
    /// One of them was not as it should be.
    is_changed: bool,
}

/// How a description ended.
#[derive(Debug)]
pub enum Made {
    /// It is whole: what it says, the bytes of its file, how its files look, and its content, which stays open: the storage
    /// knows what was read of it and must be synced before it is claimed.
    Whole(Box<Metainfo>, Vec<u8>, Vec<Option<Stamp>>, StoreId),
    /// It was changed meanwhile.
    Changed,
    /// It cannot be read, or not be described: why.
    Failed(String),
}

/// The files of a share as the storage knows them.
#[must_use]
pub fn content_of(share: &NewShare) -> Content {
    let path = |parts: &[Vec<u8>]| -> PathBuf {
        let parts = parts.iter().map(|part| OsStr::from_bytes(part));
        std::iter::once(share.name.as_os_str()).chain(parts).collect()
    };
    let files = FileList::new(share.files.iter().map(|(parts, len)| (path(parts), *len, false)));
    Content {
        dir: share.dir.clone(),
        also: None,
        wanted: vec![true; files.len()],
        files: Arc::new(files),
        read_only: true,
    }
}

impl Making {
    /// Begins to describe a share.
    ///
    /// # Errors
    /// What the format does not allow.
    pub fn begin<S: Storage>(share: NewShare, storage: &mut S) -> Result<Self, MetainfoError> {
        let content = content_of(&share);
        let total_len = content.files.total_len();
        let notes = Notes {
            name: share.name.as_bytes().to_vec(),
            trackers: share.trackers.clone(),
            created_by: Some(concat!("SwarmTorrent ", env!("CARGO_PKG_VERSION")).to_owned()),
            ..Notes::default()
        };
        let creator = Creator::new(share.profile, piece_len_for(total_len), share.files.clone(), notes);
        creator.check()?;
        let files = Arc::clone(&content.files);
        let store = storage.open(content);
        Ok(Self {
            share,
            store,
            creator,
            offset: 0,
            total_len,
            files,
            stamps: Vec::new(),
            looked: 0,
            is_changed: false,
        })
    }

    /// Bytes that are still to be hashed.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.total_len - self.offset
    }

    /// Looks at some files, or hashes one slice with the help of `buf`, which holds one; false when there is nothing left to do.
    ///
    /// # Errors
    /// What the disk says.
    pub fn work<S: Storage>(&mut self, storage: &mut S, buf: &mut [u8]) -> Result<bool, Fault> {
        let slice = Span { offset: self.offset, len: SLICE_LEN.min(self.left()) };
        let len = self.files.start_of(slice, TOUCHED_MAX).len;
        if self.stamps.len() < self.files.len() {
            let files = self.stamps.len()..self.files.len().min(self.stamps.len() + LOOKS_MAX);
            self.stamps.extend(files.map(|file| storage.stamp(self.store, file)));
        } else if len > 0 {
            let slice = &mut buf[..usize::try_from(len).expect("a slice")];
            storage.expect(self.store, Span { offset: self.offset, len: READ_AHEAD.min(self.left()) });
            storage.read(self.store, self.offset, slice)?;
            self.creator.hash(slice);
            self.offset += len;
        } else {
            let files = self.looked..self.files.len().min(self.looked + LOOKS_MAX);
            self.looked = files.end;
            let is_as_before = |file: usize| {
                let before = self.stamps[file].filter(|stamp| stamp.len == self.files.entry(file).span.len);
                before.is_some() && storage.stamp(self.store, file) == before
            };
            self.is_changed |= !files.into_iter().all(is_as_before);
        }
        Ok(!self.is_changed && (self.stamps.len() < self.files.len() || self.looked < self.files.len()))
    }

    /// There is nothing left to do.
    pub fn finish<S: Storage>(self, storage: &mut S) -> Made {
        if self.is_changed {
            storage.close(self.store);
            return Made::Changed;
        }
        match self.creator.finish() {
            Ok((mut meta, bytes)) => {
                if *meta.files == *self.files {
                    meta.files = self.files; // the storage has it already
                }
                Made::Whole(Box::new(meta), bytes, self.stamps, self.store)
            }
            Err(error) => {
                storage.close(self.store);
                Made::Failed(error.to_string())
            }
        }
    }

    /// It is given up.
    pub fn cancel<S: Storage>(self, storage: &mut S) -> NewShare {
        storage.close(self.store);
        self.share
    }
}
