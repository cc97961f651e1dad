//! Directories in which a job deleted or renamed something. They are synced before the job is done: what is recorded after it must
//! still be true after a power cut.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::base::storage::Fault;
use crate::storage::{fault, place};

/// Directories below a content's directory, by their paths relative to it.
#[derive(Debug, Default)]
pub(super) struct DirsToSync(BTreeSet<PathBuf>);

impl DirsToSync {
    /// The file at `path`, and perhaps directories above it, came or went. The last ancestor is the empty path: the content's
    /// directory itself.
    pub(super) fn note(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1) {
            if !self.0.insert(dir.to_owned()) {
                break; // those above it are there, too
            }
        }
    }

    /// Syncs one of them, below `dir`. `None` if none is left. A directory that was deleted itself needs no sync but its parent's.
    pub(super) fn sync_next(&mut self, dir: &Path) -> Option<Result<(), Fault>> {
        let path = self.0.pop_last()?;
        Some(match place::sync_dir(dir, &path) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(fault(errno, &dir.join(&path), "brought to the disk")),
        })
    }
}
