//! The comparison of the paths of torrents with many files, in slices: what `Engine::in_common` does at once for others.
//!
//! The torrent's own paths are sorted, each of the other torrents is loaded if it is hibernated, and each of their paths is
//! searched for. A torrent that is moved or renamed meanwhile is compared again by whoever does that.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::files::FileList;
use crate::base::ids::TorrentId;
use crate::base::merge_sort::MergeSort;
use crate::base::steps::Allowance;
use crate::base::storage::{FileIdentity, Storage};
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::loading::Loaded;
use crate::engine::path_owners::{Claims, Common};

/// Files of a torrent, and of those that it is compared with, that are compared at once; more are compared in slices.
pub(super) const AT_ONCE_MAX: usize = 2000;
/// Steps of one slice: half a millisecond.
const SLICE_STEPS: u64 = 25_000;
/// Steps that a look at a file on the disk counts as.
const LOOK_STEPS: usize = 50;

/// Inodes that files of the torrent have, with the index of each file.
pub(super) type Linked = BTreeMap<(u64, u64), (usize, FileIdentity)>;

/// A comparison that is under way.
#[derive(Debug)]
pub(super) struct Comparing {
    pub(super) id: TorrentId,
    pub(super) claims: Claims,
    /// Of the torrent's directories.
    places: Vec<PathBuf>,
    linked: Linked,
    inodes: BTreeSet<u64>,
    /// By list of the torrent's files, their indexes in the order of their paths.
    sorted: Vec<Vec<u32>>,
    sorting: Option<MergeSort>,
    others: VecDeque<TorrentId>,
    /// What the first of `others` has in common, as far as it was compared.
    current: Option<Current>,
    found: Vec<Common>,
}

#[derive(Debug)]
struct Current {
    common: Common,
    claims: Claims,
    /// Directory, list and file that are compared next.
    next: (usize, usize, usize),
    place: Option<PathBuf>,
}

impl Comparing {
    pub(super) fn new(
        id: TorrentId,
        claims: Claims,
        places: Vec<PathBuf>,
        linked: Linked,
        near: BTreeSet<TorrentId>,
    ) -> Self {
        let inodes = linked.keys().map(|(_, inode)| *inode).collect();
        Self {
            id,
            claims,
            places,
            linked,
            inodes,
            sorted: Vec::new(),
            sorting: None,
            others: near.into_iter().collect(),
            current: None,
            found: Vec::new(),
        }
    }

    /// Sorts on; true once all lists are sorted.
    fn sort(&mut self, allowance: &mut Allowance) -> bool {
        while let Some(list) = self.claims.lists.get(self.sorted.len()) {
            let all = 0..u32::try_from(list.len()).expect("a torrent has fewer than 2^32 files");
            let sorting = self.sorting.get_or_insert_with(|| MergeSort::of_range(all));
            let is_sorted = sorting.step(allowance, |allowance, one, other| {
                let (one, other) = (key_of(list, one), key_of(list, other));
                allowance.spend_bytes(one.0.len().min(other.0.len()));
                one.cmp(&other)
            });
            if !is_sorted {
                return false;
            }
            self.sorted.extend(self.sorting.take().map(MergeSort::into_items));
        }
        true
    }

    /// The torrent's own file at `place` and `path`: its index and length.
    fn mine(&self, allowance: &mut Allowance, place: &Path, path: &Path) -> Option<(usize, u64)> {
        for (mine, (list, sorted)) in
            self.places.iter().flat_map(|mine| self.claims.lists.iter().zip(&self.sorted).map(move |list| (mine, list)))
        {
            let whole;
            let path = if mine == place {
                path
            } else {
                whole = place.join(path);
                let Ok(rest) = whole.strip_prefix(mine) else { continue };
                rest
            };
            let bytes = path.as_os_str().as_bytes();
            allowance.spend(8 + bytes.len() / 4);
            if let Ok(found) = sorted.binary_search_by(|&index| key_of(list, index).cmp(&(bytes, false))) {
                let index = sorted[found] as usize;
                return Some((index, list.entry(index).span.len));
            }
        }
        None
    }
}

/// What files are sorted by: their paths, and of files of one path those that are stored first.
fn key_of(list: &FileList, index: u32) -> (&[u8], bool) {
    let entry = list.entry(index as usize);
    (entry.path.as_os_str().as_bytes(), entry.pad)
}

impl<S: Storage> Engine<S> {
    /// One slice of a comparison; what it found, in the order of ownership, once it is done.
    pub(super) fn compare_on(&mut self, now: Time, comparing: &mut Comparing) -> Option<Vec<Common>> {
        let mut allowance = Allowance::new(SLICE_STEPS);
        if !comparing.sort(&mut allowance) {
            return None;
        }
        while let Some(&other) = comparing.others.front() {
            if allowance.is_spent() {
                return None;
            }
            let Some(torrent) = self.torrents.get(other) else {
                comparing.others.pop_front();
                comparing.current = None;
                continue;
            };
            if torrent.is_asleep() {
                let is_lost = torrent.lost().is_some();
                comparing.current = None;
                if self.load_soon(now, other) == Loaded::Later {
                    if !is_lost {
                        return None;
                    }
                } else if self.torrents.get(other).is_some_and(|torrent| !torrent.is_asleep()) {
                    continue;
                }
                // The files of a torrent with lost metainfo are unknown: any of these files may be one of them.
                let mut common = Common::new(other);
                common.same.insert(0);
                comparing.found.push(common);
                comparing.others.pop_front();
                continue;
            }
            let mut current = comparing.current.take().unwrap_or_else(|| Current {
                common: Common::new(other),
                claims: Claims::of(torrent),
                next: (0, 0, 0),
                place: None,
            });
            if self.compare_with(comparing, &mut current, &mut allowance) {
                comparing.others.pop_front();
                comparing.found.push(current.common);
            } else {
                comparing.current = Some(current);
            }
        }
        let mut found = std::mem::take(&mut comparing.found);
        found.retain(|common| common.is_conflict() || !common.empty.is_empty());
        found.sort_by_key(|common| self.torrents.get(common.other).map(crate::torrent::torrent::Torrent::path_order));
        Some(found)
    }

    /// Compares on with one torrent; true once all of its files were compared.
    fn compare_with(&mut self, comparing: &Comparing, current: &mut Current, allowance: &mut Allowance) -> bool {
        while let Some(dir) = current.claims.dirs.get(current.next.0) {
            let Some(list) = current.claims.lists.get(current.next.1) else {
                current.next = (current.next.0 + 1, 0, 0);
                current.place = None;
                continue;
            };
            let Some(entry) = list.get(current.next.2) else {
                current.next = (current.next.0, current.next.1 + 1, 0);
                continue;
            };
            if allowance.is_spent() {
                return false;
            }
            allowance.spend(1);
            let file = current.next.2;
            current.next.2 += 1;
            if entry.pad {
                continue;
            }
            let place = &*current.place.get_or_insert_with(|| self.storage.place(dir));
            let common = &mut current.common;
            if let Some((mine, len)) = comparing.mine(allowance, place, entry.path) {
                if len == 0 && entry.span.len == 0 {
                    common.empty.insert(mine);
                } else {
                    common.same.insert(mine);
                }
                if len != entry.span.len {
                    common.differs.get_or_insert(mine);
                }
            }
            // A stamp that was not taken yet does not exclude a hard link.
            let inode = self.torrents.get(common.other).map_or(0, |torrent| torrent.stamp_of(file).inode);
            if !comparing.linked.is_empty() && (inode == 0 || comparing.inodes.contains(&inode)) {
                allowance.spend(LOOK_STEPS);
                if let Some(identity) = self.storage.identity(dir, entry.path) {
                    common.note_linked(&comparing.linked, identity, &comparing.claims, entry.span.len);
                }
            }
        }
        true
    }
}
