//! An index that finds the torrents that may have a file in common: it maps the place of each directory to the top
//! names of the torrents in it.
//!
//! All files of a torrent lie below one name, its top, in one directory. The index keeps 16 bytes for each torrent, so
//! that the names of hibernated torrents need not be in memory. Before files are added, the index returns the torrents
//! that have the same top in the same place, or that lie below or above it; only those are opened and compared file by
//! file. The result may contain torrents without a common file (tops are kept as hashes, and entries of torrents that
//! moved away or were removed stay for a while), but never lacks a torrent that has one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::base::files::FileList;
use crate::base::ids::TorrentId;
use crate::base::steps;

/// The maximum number of new entries of a directory that are inserted in order one by one. With more of them all
/// entries are sorted.
const UNSORTED_MAX: usize = 32;
/// The number of entries that may be out of date, in addition to one sixteenth of all entries. With more of them the
/// outdated entries are searched for and dropped.
const STALE_MAX: usize = 64;

/// The hash of a torrent's top, and the torrent.
type Entry = (u64, TorrentId);

/// One directory that holds content.
#[derive(Debug)]
struct Dir {
    place: PathBuf,
    /// The first `sorted` entries are in order; the others were added since the last query.
    entries: Vec<Entry>,
    sorted: usize,
}

/// Finds torrents that may have a file in common. See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct PathIndex {
    /// Directories by their paths, as users give them.
    dirs: BTreeMap<PathBuf, Dir>,
    by_place: BTreeMap<PathBuf, BTreeSet<PathBuf>>,
    /// The version of the mount table at which the places were resolved.
    version: u64,
    entries: usize,
    /// The maximum number of entries that may be out of date at present.
    stale: usize,
    /// The number of comparisons of entries, for the test of the cost of a query.
    #[cfg(test)]
    comparisons: std::cell::Cell<u64>,
}

/// Returns the FNV-1a hash of a name. The hash is the same in each run; a collision that a stranger constructs only
/// causes one torrent to be opened without need.
pub(super) fn hash_of(name: &OsStr) -> u64 {
    name.as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl PathIndex {
    /// Adds a torrent that has files below `top` in `dir`, or is going to have them. `place` returns the place of a
    /// directory.
    pub(super) fn insert(&mut self, id: TorrentId, dir: &Path, top: &OsStr, place: impl FnOnce(&Path) -> PathBuf) {
        if !self.dirs.contains_key(dir) {
            let place = place(dir);
            self.by_place.entry(place.clone()).or_default().insert(dir.to_owned());
            self.dirs.insert(dir.to_owned(), Dir { place, entries: Vec::new(), sorted: 0 });
        }
        let entries = &mut self.dirs.get_mut(dir).expect("directory was inserted above").entries;
        if entries.len() == entries.capacity() {
            entries.reserve_exact(entries.len() / 16 + 1);
        }
        entries.push((hash_of(top), id));
        self.entries += 1;
    }

    /// Whether the index has an entry of the torrent for `top` in `dir`.
    pub(super) fn contains(&self, id: TorrentId, dir: &Path, top: &OsStr) -> bool {
        let entry = (hash_of(top), id);
        self.dirs.get(dir).is_some_and(|dir| {
            let (sorted, rest) = dir.entries.split_at(dir.sorted);
            sorted.binary_search(&entry).is_ok() || rest.contains(&entry)
        })
    }

    /// Notes that `count` more entries may be out of date because torrents were removed or moved. When the number of
    /// such entries exceeds its limit, every entry is dropped for which `alive` returns false; its arguments are the
    /// torrent, its directory and the hash of its top.
    pub(super) fn note_stale(&mut self, count: usize, alive: impl Fn(TorrentId, &Path, u64) -> bool) {
        self.stale += count;
        if self.stale <= STALE_MAX + self.entries / 16 {
            return;
        }
        self.stale = 0;
        for (path, dir) in &mut self.dirs {
            dir.sort();
            dir.entries.dedup();
            dir.entries.retain(|&(hash, id)| alive(id, path, hash));
            dir.sorted = dir.entries.len();
            dir.entries.shrink_to_fit();
        }
        let by_place = &mut self.by_place;
        self.dirs.retain(|path, dir| {
            if dir.entries.is_empty()
                && let Some(paths) = by_place.get_mut(&dir.place)
            {
                paths.remove(path);
            }
            !dir.entries.is_empty()
        });
        by_place.retain(|_, paths| !paths.is_empty());
        self.entries = self.dirs.values().map(|dir| dir.entries.len()).sum();
    }

    /// Returns the place of a directory, as it was at the last update. `None` if the directory has no entry.
    pub(super) fn place_of(&self, dir: &Path) -> Option<PathBuf> {
        self.dirs.get(dir).map(|dir| dir.place.clone())
    }

    /// Resolves the places of all directories again if the mount table has changed; `version` changes when it does.
    pub(super) fn refresh(&mut self, version: u64, mut place: impl FnMut(&Path) -> PathBuf) {
        if std::mem::replace(&mut self.version, version) == version {
            return;
        }
        self.by_place.clear();
        for (path, dir) in &mut self.dirs {
            dir.place = place(path);
            self.by_place.entry(dir.place.clone()).or_default().insert(path.clone());
        }
    }

    /// Notes the place of one directory, which was resolved again.
    pub(super) fn move_dir(&mut self, path: &Path, place: &Path) {
        let Some(dir) = self.dirs.get_mut(path).filter(|dir| dir.place != place) else { return };
        if let Some(paths) = self.by_place.get_mut(&dir.place) {
            paths.remove(path);
            if paths.is_empty() {
                self.by_place.remove(&dir.place);
            }
        }
        place.clone_into(&mut dir.place);
        self.by_place.entry(place.to_owned()).or_default().insert(path.to_owned());
    }

    /// Adds to `found` the torrents that may have one of `files`, which are in the directory at `place`.
    pub(super) fn find(&mut self, place: &Path, files: &FileList, found: &mut BTreeSet<TorrentId>) {
        let paths = || files.entries().filter(|entry| !entry.pad).map(|entry| entry.path);
        // All files of a torrent lie below one name.
        if let Some(top) = files.first().and_then(|entry| first_of(entry.path)) {
            self.find_above(place, top, found);
            if !self.has_below(&place.join(top)) {
                return;
            }
            steps::add(files.len());
            // Below the top only the directories matter that contain one of the files.
            let mut last = None;
            for path in paths().filter(|path| first_of(path) == Some(top)) {
                let parent = path.parent().unwrap_or(Path::new(""));
                let is_new = last.replace(parent) != Some(parent);
                for dir in path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
                    let next = path.strip_prefix(dir).ok().and_then(first_of);
                    if is_new || *dir == *parent {
                        self.find_at(&place.join(dir), next, found);
                    }
                }
            }
        }
    }

    /// Adds to `found` the torrents that may have a file below `top` in the directory at `place`. These may be more
    /// torrents than those that have a particular file there.
    pub(super) fn find_near(&mut self, place: &Path, top: &OsStr, found: &mut BTreeSet<TorrentId>) {
        self.find_above(place, top, found);
        let root = place.join(top);
        let below = self.by_place.range(root.clone()..).take_while(|(place, _)| place.starts_with(&root));
        for path in below.flat_map(|(_, paths)| paths) {
            found.extend(self.dirs.get(path).into_iter().flat_map(|dir| &dir.entries).map(|(_, id)| *id));
        }
    }

    fn has_below(&self, root: &Path) -> bool {
        self.by_place.range(root.to_owned()..).next().is_some_and(|(place, _)| place.starts_with(root))
    }

    /// Searches the directory itself and those above it.
    fn find_above(&mut self, place: &Path, top: &OsStr, found: &mut BTreeSet<TorrentId>) {
        self.find_at(place, Some(top), found);
        for above in place.ancestors().skip(1) {
            self.find_at(above, place.strip_prefix(above).ok().and_then(first_of), found);
        }
    }

    /// Adds to `found` the torrents whose top is `name` in the directory at `place`.
    pub(super) fn find_at(&mut self, place: &Path, name: Option<&OsStr>, found: &mut BTreeSet<TorrentId>) {
        let (Some(paths), Some(name)) = (self.by_place.get(place), name) else { return };
        let hash = hash_of(name);
        for path in paths {
            let Some(dir) = self.dirs.get_mut(path) else { continue };
            dir.sort();
            let compare = |entry: &Entry| {
                #[cfg(test)]
                self.comparisons.set(self.comparisons.get() + 1);
                entry.0 < hash
            };
            let from = dir.entries.partition_point(compare);
            found.extend(dir.entries[from..].iter().take_while(|(other, _)| *other == hash).map(|(_, id)| *id));
        }
    }
}

impl Dir {
    fn sort(&mut self) {
        if self.entries.len() - self.sorted > UNSORTED_MAX {
            self.entries.sort_unstable();
            self.sorted = self.entries.len();
        }
        while self.sorted < self.entries.len() {
            let entry = self.entries[self.sorted];
            let at = self.entries[..self.sorted].partition_point(|other| *other < entry);
            self.entries[at..=self.sorted].rotate_right(1);
            self.sorted += 1;
        }
    }
}

fn first_of(path: &Path) -> Option<&OsStr> {
    path.components().next().map(|component| component.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;

    fn id(number: u64) -> TorrentId {
        Id::from_bits(number)
    }

    fn same(dir: &Path) -> PathBuf {
        dir.to_owned()
    }

    fn list(paths: &[&str]) -> FileList {
        FileList::new(paths.iter().map(|path| (PathBuf::from(path), 1, false)))
    }

    fn found(index: &mut PathIndex, dir: &str, paths: &[&str]) -> Vec<u64> {
        let mut found = BTreeSet::new();
        index.find(Path::new(dir), &list(paths), &mut found);
        found.into_iter().map(Id::to_bits).collect()
    }

    fn index(entries: &[(u64, &str, &str)]) -> PathIndex {
        let mut index = PathIndex::default();
        entries.iter().for_each(|&(number, dir, top)| index.insert(id(number), Path::new(dir), OsStr::new(top), same));
        index
    }

    #[test]
    fn only_torrents_on_the_way_to_a_file_are_found() {
        let mut index = index(&[
            (1, "/d", "album"),
            (2, "/d", "other"),
            (3, "/d/album/one", "song"),
            (4, "/d/album/two", "song"),
            (5, "/", "d"),
            (6, "/d/album2", "song"),
            (7, "/d/album/one", "else"),
        ]);
        assert_eq!(found(&mut index, "/d", &["album/one/song", "album/cover"]), [1, 3, 5]);
        assert_eq!(found(&mut index, "/d/album", &["one/else"]), [1, 5, 7]);
        assert_eq!(found(&mut index, "/d/album/one", &["song"]), [1, 3, 5]);
        assert_eq!(found(&mut index, "/e", &["album/one/song"]), [] as [u64; 0]);
        let mut near = BTreeSet::new();
        index.find_near(Path::new("/d"), OsStr::new("album"), &mut near);
        assert_eq!(near.into_iter().map(Id::to_bits).collect::<Vec<_>>(), [1, 3, 4, 5, 7]);
    }

    #[test]
    fn directory_of_two_names_is_one_place_once_it_is_mounted() {
        let mut index = PathIndex::default();
        index.insert(id(1), Path::new("/a"), OsStr::new("t"), same);
        index.insert(id(2), Path::new("/b"), OsStr::new("t"), same);
        assert_eq!(found(&mut index, "/a", &["t"]), [1]);
        index.refresh(1, |_| PathBuf::from("/a"));
        assert_eq!(found(&mut index, "/a", &["t"]), [1, 2]);
        // Without a change of the mount table only the directory that is asked about is resolved again.
        index.refresh(1, |_| unreachable!("the mount table is the same"));
        index.move_dir(Path::new("/b"), Path::new("/c"));
        assert_eq!(found(&mut index, "/a", &["t"]), [1]);
        assert_eq!(found(&mut index, "/c", &["t"]), [2]);
    }

    #[test]
    fn entries_of_torrents_that_are_gone_are_dropped() {
        let mut index = PathIndex::default();
        for number in 0..1000 {
            index.insert(id(number), Path::new(if number < 500 { "/a" } else { "/b" }), OsStr::new("t"), same);
        }
        for number in 0..1000 {
            index.note_stale(1, |id, _, _| id.to_bits() > number);
        }
        assert!(index.entries <= STALE_MAX + 1, "{} are left", index.entries);
        assert_eq!((index.dirs.len(), index.by_place.len()), (1, 1), "of /a nothing is left");
    }

    #[test]
    fn ten_thousand_torrents_cost_sixteen_bytes_and_few_comparisons_each() {
        assert_eq!(size_of::<Entry>(), 16);
        let mut index = PathIndex::default();
        let mut most = 0;
        for number in 0..10_000_u64 {
            let top = format!("torrent {number}");
            let before = index.comparisons.get();
            assert_eq!(found(&mut index, "/d", &[&format!("{top}/file")]), [] as [u64; 0]);
            most = most.max(index.comparisons.get() - before);
            index.insert(id(number), Path::new("/d"), OsStr::new(&top), same);
        }
        assert!(most <= 15, "{most} comparisons of one question");
        let bytes = index.dirs.values().map(|dir| dir.entries.capacity() * size_of::<Entry>()).sum::<usize>();
        assert!(bytes <= 16 * (10_000 + 10_000 / 16), "{bytes} bytes");
    }
}
