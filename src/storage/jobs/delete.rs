//! Deleting content: its files, and the directories that this leaves empty. It is done when the directories are synced: what is
//! recorded after that must not find the files there again.

use crate::base::ids::StoreId;
use crate::base::storage::Fault;
use crate::storage::jobs::Slice;
use crate::storage::jobs::dirs_to_sync::DirsToSync;
use crate::storage::{FileStorage, closed, fault, place};

/// A deletion under way.
#[derive(Debug)]
pub(super) struct Delete {
    store: StoreId,
    /// Files that others use, in order.
    keep: Vec<usize>,
    file: usize,
    changed: DirsToSync,
    /// The first trouble; everything else is deleted all the same.
    fault: Option<Fault>,
}

impl Delete {
    pub(super) fn begin(store: StoreId, keep: Vec<usize>) -> Self {
        Self { store, keep, file: 0, changed: DirsToSync::default(), fault: None }
    }

    pub(super) fn step(&mut self, storage: &mut FileStorage) -> Result<Slice, Fault> {
        storage.forget_file(self.store, self.file);
        let content = &storage.stores.get(self.store).ok_or_else(closed)?.content;
        let Some(entry) = content.files.get(self.file) else {
            return match self.changed.sync_next(&content.dir) {
                Some(result) => {
                    self.fault = self.fault.take().or(result.err());
                    Ok(Slice::More)
                }
                None => self.fault.take().map_or(Ok(Slice::Done), Err),
            };
        };
        if !entry.pad && self.keep.binary_search(&self.file).is_err() {
            match place::shorten(&content.dir, entry.path) {
                Ok(true) => return Ok(Slice::More),
                Ok(false) => {
                    place::tidy(&content.dir, entry.path);
                    self.changed.note(entry.path);
                }
                Err(errno) => {
                    self.fault.get_or_insert(fault(errno, &content.dir.join(entry.path), "deleted"));
                }
            }
        }
        self.file += 1;
        Ok(Slice::More)
    }
}
