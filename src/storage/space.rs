//! Room on disks: judged for each file system by itself, and looked at once in a while however many torrents ask.
//!
//! A file system on which `min_free_space` was reached has to have some more than that before anything is written again, so
//! that nobody flaps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use rustix::time::{ClockId, clock_gettime};

use crate::base::storage::{Fault, FaultKind};
use crate::storage::place;

/// Free space is looked at again after so many bytes were promised.
const LOOK_BYTES: u64 = 64 << 20;
/// And after so many seconds, for others write as well.
const LOOK_SECS: i64 = 5;
/// What a file system that was full must have beside what must stay free, at most; it is an eighth of that, or a hundredth of
/// the disk.
const MARGIN_MAX: u64 = 256 << 20;
/// File systems that are remembered; beyond it all are looked at anew.
const SEEN_MAX: usize = 256;

/// What was seen of a file system.
#[derive(Debug, Clone)]
struct Seen {
    /// Where it is mounted.
    path: PathBuf,
    /// Seconds of the clock that is read for this alone.
    at: i64,
    /// Bytes that anybody may write.
    free_bytes: u64,
    total_bytes: u64,
    /// Bytes that were promised since.
    promised_bytes: u64,
    /// There was no room when it was last asked for.
    is_full: bool,
}

/// A file system that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Bytes that we may still write.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// What was seen of file systems, by device.
#[derive(Debug, Default)]
pub(super) struct Spaces(BTreeMap<u64, Seen>);

impl Spaces {
    /// Promises `bytes` more to who writes at `dir`, where `device` was when it was last looked and `min_free_bytes` must stay
    /// free; no device means that nobody has looked, and is noted.
    ///
    /// # Errors
    /// There is no such room.
    pub(super) fn promise(
        &mut self,
        dir: &Path,
        device: &mut Option<u64>,
        bytes: u64,
        min_free_bytes: u64,
    ) -> Result<(), Fault> {
        let now = clock_gettime(ClockId::MonotonicCoarse).tv_sec;
        let known = device.and_then(|device| self.0.get(&device)).filter(|seen| {
            now - seen.at < if seen.is_full { 1 } else { LOOK_SECS } && seen.promised_bytes < LOOK_BYTES
        });
        let (at, mut seen) = match (*device, known) {
            (Some(device), Some(seen)) => (device, seen.clone()),
            _ => match self.look(dir, now) {
                Some(looked) => looked,
                None => return Ok(()), // nobody can tell
            },
        };
        *device = Some(at);
        let usable = seen.free_bytes.saturating_sub(seen.promised_bytes).saturating_sub(min_free_bytes);
        let margin = if seen.is_full { (min_free_bytes / 8).max(seen.total_bytes / 100).min(MARGIN_MAX) } else { 0 };
        seen.is_full = usable < bytes.saturating_add(margin);
        if !seen.is_full {
            seen.promised_bytes += bytes;
        }
        let result = if seen.is_full { Err(no_space(dir, bytes, &seen, min_free_bytes)) } else { Ok(()) };
        self.0.insert(at, seen);
        result
    }

    /// The kernel has said that a disk is full, whatever it showed before.
    pub(super) fn note_full(&mut self, device: Option<u64>) {
        if let Some(seen) = device.and_then(|device| self.0.get_mut(&device)) {
            seen.is_full = true;
            seen.at = i64::MIN / 2;
        }
    }

    fn look(&mut self, dir: &Path, now: i64) -> Option<(u64, Seen)> {
        let device = place::device(dir)?;
        let (free_bytes, total_bytes) = place::free_and_total_bytes(dir)?;
        if self.0.len() >= SEEN_MAX && !self.0.contains_key(&device) {
            self.0.clear();
        }
        let (path, is_full) = match self.0.get(&device) {
            Some(seen) => (seen.path.clone(), seen.is_full),
            None => (place::mount_point(dir), false),
        };
        Some((device, Seen { path, at: now, free_bytes, total_bytes, promised_bytes: 0, is_full }))
    }
}

/// One sentence: which file system, how much it has, and how much it takes.
fn no_space(dir: &Path, bytes: u64, seen: &Seen, min_free_bytes: u64) -> Fault {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let margin = (min_free_bytes / 8).max(seen.total_bytes / 100).min(MARGIN_MAX);
    let needed = min_free_bytes.saturating_add(bytes).saturating_add(margin);
    let message = format!(
        "no space for {} MiB in {}: {} MiB are free on the file system at {}, and {} MiB must stay so; it goes on when {} MiB are, so \
         make room or lower `min_free_space`",
        mib(bytes),
        dir.display(),
        seen.free_bytes >> 20,
        seen.path.display(),
        mib(min_free_bytes),
        mib(needed)
    );
    Fault { kind: FaultKind::Full, message }
}

/// The file systems that `dirs` are on, or will be, each once and by where it is mounted.
#[must_use]
pub fn disks<'d>(dirs: impl IntoIterator<Item = &'d Path>) -> Vec<Disk> {
    let mut found: BTreeMap<u64, Disk> = BTreeMap::new();
    for dir in dirs {
        let Some(device) = place::device(dir) else { continue };
        if found.contains_key(&device) {
            continue;
        }
        let path = place::mount_point(dir);
        let Ok(stat) = statvfs(&path) else { continue };
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        found.insert(device, Disk { path, free_bytes: bytes(stat.f_bavail), total_bytes: bytes(stat.f_blocks) });
    }
    let mut disks: Vec<Disk> = found.into_values().collect();
    disks.sort_by(|one, other| one.path.cmp(&other.path));
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_promised_counts_and_a_full_disk_needs_a_margin() {
        let dir = Path::new("/nowhere/at/all");
        let (device, now) = (7, clock_gettime(ClockId::MonotonicCoarse).tv_sec);
        let seen =
            Seen { path: dir.into(), at: now, free_bytes: 1000, total_bytes: 2000, promised_bytes: 0, is_full: false };
        let mut spaces = Spaces(BTreeMap::from([(device, seen.clone())]));
        let mut ask = |bytes| spaces.promise(dir, &mut Some(device), bytes, 400).is_ok();
        assert!(ask(500) && ask(100));
        assert!(!ask(1), "two torrents have it already");
        spaces.0.insert(device, Seen { free_bytes: 500, is_full: true, ..seen });
        let mut ask = |bytes| spaces.promise(dir, &mut Some(device), bytes, 400).is_ok();
        assert!(!ask(60), "an eighth of 400 must be there beside");
        assert!(ask(50) && ask(50));
    }

    #[test]
    fn a_disk_is_named_once_and_by_where_it_is_mounted() {
        let disks = disks([Path::new("/proc/self"), Path::new("/proc"), Path::new("/proc/nothing/here")]);
        assert_eq!(disks.iter().map(|disk| disk.path.as_path()).collect::<Vec<_>>(), [Path::new("/proc")]);
    }
}
