//! Directories in which a job deleted or renamed files. They are synced before the job ends: a record that is written
//! after the job must still be true after a power cut.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::base::storage::Fault;
use crate::storage::{fault, place};

/// Directories below a content's directory, as paths relative to it.
#[derive(Debug, Default)]
pub(super) struct DirsToSync(BTreeSet<PathBuf>);

impl DirsToSync {
    /// Notes that the file at `path`, and perhaps directories above it, were created or removed. The last ancestor is
    /// the empty path: the content's directory itself.
    pub(super) fn note(&mut self, path: &Path) {
        for dir in path.ancestors().skip(1) {
            if !self.0.insert(dir.to_owned()) {
                break; // the directories above it were noted before
            }
        }
    }

    /// Syncs one of the directories, below `dir`. Returns `None` if none is left. A directory that was itself deleted
    /// needs no sync, only its parent does.
    pub(super) fn sync_next(&mut self, dir: &Path) -> Option<Result<(), Fault>> {
        let path = self.0.pop_last()?;
        Some(match place::sync_dir(dir, &path) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(fault(errno, &dir.join(&path), "brought to the disk")),
        })
    }
}
