//! What lies in a share directory becomes a torrent: it is read and hashed in slices, and nothing of it is copied.
//!
//! Its files are looked at before and after; what changed meanwhile is begun anew.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::files::FileList;
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

/// A description in the making.
#[derive(Debug)]
pub struct Making {
    /// What is described.
    pub share: NewShare,
    store: StoreId,
    creator: Creator,
    offset: u64,
    total_len: u64,
    stamps: Vec<Option<Stamp>>,
}

/// How a description ended.
#[derive(Debug)]
pub enum Made {
    /// It is whole: what it says, the bytes of its file, and how its files look.
    Whole(Box<Metainfo>, Vec<u8>, Vec<Option<Stamp>>),
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
    Content { dir: share.dir.clone(), wanted: vec![false; files.len()], files: Arc::new(files) }
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
        let files = content.files.len();
        let store = storage.open(content);
        let stamps = (0..files).map(|file| storage.stamp(store, file)).collect();
        Ok(Self { share, store, creator, offset: 0, total_len, stamps })
    }

    /// Bytes that are still to be hashed.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.total_len - self.offset
    }

    /// Hashes one slice with the help of `buf`, which holds one; false when there is nothing left to hash.
    ///
    /// # Errors
    /// What the disk says.
    pub fn work<S: Storage>(&mut self, storage: &mut S, buf: &mut [u8]) -> Result<bool, Fault> {
        let len = SLICE_LEN.min(self.left());
        if len > 0 {
            let slice = &mut buf[..usize::try_from(len).expect("a slice")];
            storage.expect(self.store, Span { offset: self.offset, len: READ_AHEAD.min(self.left()) });
            storage.read(self.store, self.offset, slice)?;
            self.creator.hash(slice);
            self.offset += len;
        }
        Ok(self.left() > 0)
    }

    /// Everything is hashed.
    pub fn finish<S: Storage>(self, storage: &mut S) -> Made {
        let store = self.store;
        let as_before =
            self.stamps.iter().enumerate().all(|(file, stamp)| stamp.is_some() && storage.stamp(store, file) == *stamp);
        let lens = self.share.files.iter().map(|(_, len)| *len);
        let as_said = self.stamps.iter().flatten().map(|stamp| stamp.len).eq(lens);
        storage.close(store);
        if !as_before || !as_said {
            return Made::Changed;
        }
        match self.creator.finish() {
            Ok((meta, bytes)) => Made::Whole(Box::new(meta), bytes, self.stamps),
            Err(error) => Made::Failed(error.to_string()),
        }
    }

    /// It is given up.
    pub fn cancel<S: Storage>(self, storage: &mut S) -> NewShare {
        storage.close(self.store);
        self.share
    }
}
