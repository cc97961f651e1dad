//! Ownership of files: finds the torrents of this node that have files in common, and decides which of them may write.
//!
//! The paths of a torrent are compared with those of the others when it is added, when the metadata of a magnet link
//! arrives, before it is moved or renamed, and, for a torrent of an earlier run, before its first write. Two paths are
//! one file if their places are the same (`Storage::place` resolves symbolic links and bind mounts) or, if both exist,
//! if they have one device and inode (hard links). The first of the torrents with a file in common owns it, and the
//! others are second to it; `torrent/path_conflict.rs` implements the consequences for one torrent. When an owner
//! becomes finished or unfinished, or is removed, its seconds are examined again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::files::FileList;
use crate::base::ids::TorrentId;
use crate::base::queue::Queue;
use crate::base::storage::{Content, FileIdentity, Storage};
use crate::base::time::Time;
use crate::engine::Engine;
use crate::engine::loading::Loaded;
use crate::engine::path_compare::{AT_ONCE_MAX, Comparing, Linked};
use crate::engine::path_index::{PathIndex, hash_of};
use crate::torrent::command::{Refusal, RefusalKind};
use crate::torrent::path_conflict::{Owner, SecondStage};
use crate::torrent::renaming::RenameStep;
use crate::torrent::torrent::Torrent;
use crate::torrent::why::Reason;

/// The maximum number of files of a torrent that are examined for hard links in one call; the rest of a longer list is
/// examined in slices, before the torrent writes for the first time.
const LINKS_LOOKED_MAX: usize = 256;

/// The relation of owners and seconds. Only torrents with files in common, and the index, use memory.
#[derive(Debug, Default)]
pub(super) struct PathOwners {
    pub(super) index: PathIndex,
    /// The owners of each second torrent.
    owners: BTreeMap<TorrentId, BTreeSet<TorrentId>>,
    /// The seconds of each owner, and whether the owner was ready (did not delay them) at the last examination.
    seconds: BTreeMap<TorrentId, (BTreeSet<TorrentId>, bool)>,
    /// Torrents whose paths are to be compared.
    comparing: Queue<TorrentId>,
    /// The torrent that is being examined for hard links.
    looking: Option<Looking>,
    /// The torrent that is being compared in slices.
    under_way: Option<Box<Comparing>>,
    /// Torrents of magnet links whose metadata is there and whose files are still being deleted with another torrent.
    described: BTreeSet<TorrentId>,
    /// The order that was assigned last to a second torrent.
    order: u64,
}

/// A torrent with many files that is being examined for hard links.
#[derive(Debug)]
struct Looking {
    id: TorrentId,
    claims: Claims,
    next: usize,
    linked: Vec<(usize, FileIdentity)>,
}

impl PathOwners {
    pub(super) fn is_idle(&self) -> bool {
        self.comparing.is_empty() && self.looking.is_none() && self.under_way.is_none()
    }

    /// Queues a torrent for the comparison of its paths.
    pub(super) fn compare(&mut self, id: TorrentId) {
        self.comparing.push(id);
    }

    fn set_owners(&mut self, id: TorrentId, owners: BTreeSet<TorrentId>) {
        for owner in self.owners.remove(&id).unwrap_or_default() {
            if let Some((seconds, _)) = self.seconds.get_mut(&owner) {
                seconds.remove(&id);
                if seconds.is_empty() {
                    self.seconds.remove(&owner);
                }
            }
        }
        for owner in &owners {
            self.seconds.entry(*owner).or_insert_with(|| (BTreeSet::new(), true)).0.insert(id);
        }
        if !owners.is_empty() {
            self.owners.insert(id, owners);
        }
    }

    /// Handles the removal of a torrent: its seconds are compared again.
    pub(super) fn forget(&mut self, id: TorrentId) {
        self.set_owners(id, BTreeSet::new());
        self.described.remove(&id);
        self.looking.take_if(|looking| looking.id == id);
        self.under_way.take_if(|comparing| comparing.id == id);
        for second in self.seconds.remove(&id).map(|(seconds, _)| seconds).unwrap_or_default() {
            if let Some(owners) = self.owners.get_mut(&second) {
                owners.remove(&id);
            }
            self.comparing.push(second);
        }
    }
}

/// The files that a torrent has or is going to have, in each of its directories and under each of their names.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    pub(super) dirs: Vec<PathBuf>,
    pub(super) lists: Vec<Arc<FileList>>,
}

/// The consequence for a torrent that has files in common with an owner.
#[derive(Debug)]
enum Verdict {
    /// A common file has different lengths in the two torrents.
    Differs(Owner),
    /// The owner is not ready.
    Waits(Owner),
    /// All owners are ready.
    Ready(Owner),
}

impl Verdict {
    fn tell(self, now: Time, torrent: &mut Torrent, order: u64) {
        torrent.take_order(order);
        match (self, torrent.second_stage()) {
            (Self::Differs(owner), _) => torrent.refuse_second(now, owner),
            (Self::Waits(owner), _) => torrent.wait_for_owner(now, owner),
            (Self::Ready(owner), Some(SecondStage::Decided)) => torrent.stay_second(now, owner),
            (Self::Ready(_), Some(SecondStage::Checks)) if torrent.is_compared() => {}
            (Self::Ready(owner), _) => torrent.check_as_second(now, owner),
        }
    }
}

/// The files in common with another torrent.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) other: TorrentId,
    /// Indexes of the files that are at one path, or that are one inode with one name.
    pub(super) same: BTreeSet<usize>,
    /// Indexes of empty files at one path: they are no conflict, and are neither deleted nor moved away.
    pub(super) empty: BTreeSet<usize>,
    /// Indexes of the files that are other names of one inode.
    linked: BTreeSet<usize>,
    /// The index of a file whose length differs in the two torrents.
    pub(super) differs: Option<usize>,
}

impl Common {
    pub(super) fn new(other: TorrentId) -> Self {
        Self { other, same: BTreeSet::new(), empty: BTreeSet::new(), linked: BTreeSet::new(), differs: None }
    }

    /// Notes a file of the other torrent, of `len` bytes, that may be one of `linked`.
    pub(super) fn note_linked(&mut self, linked: &Linked, identity: FileIdentity, claims: &Claims, len: u64) {
        let Some(&(mine, _)) = linked.get(&(identity.device, identity.inode)) else { return };
        if self.same.contains(&mine) {
            return;
        }
        if claims.lists.first().and_then(|list| list.get(mine)).is_some_and(|entry| entry.span.len != len) {
            self.differs.get_or_insert(mine);
        }
        if identity.links > 1 {
            self.linked.insert(mine)
        } else {
            self.same.insert(mine)
        };
    }

    /// Whether one of the two torrents may not write.
    pub(super) fn is_conflict(&self) -> bool {
        !self.same.is_empty() || !self.linked.is_empty()
    }

    /// Returns the index of a file that both torrents have; a file whose lengths differ is preferred.
    fn file(&self) -> usize {
        let first = || self.same.iter().chain(&self.linked).chain(&self.empty).copied().min();
        self.differs.or_else(first).unwrap_or_default()
    }
}

impl Claims {
    pub(super) fn of(torrent: &Torrent) -> Self {
        Self { dirs: torrent.claimed_dirs(), lists: torrent.claimed_lists() }
    }

    pub(super) fn of_content(content: &Content) -> Self {
        Self { dirs: vec![content.dir.clone()], lists: vec![Arc::clone(&content.files)] }
    }

    /// Returns the path of a file, for messages.
    fn path(&self, file: usize) -> PathBuf {
        let entry = self.lists.first().and_then(|list| list.get(file));
        self.dirs.first().map_or_else(PathBuf::new, |dir| dir.join(entry.map_or(Path::new(""), |entry| entry.path)))
    }

    fn files(&self) -> usize {
        self.lists.first().map_or(0, |list| list.len())
    }
}

impl<S: Storage> Engine<S> {
    /// Inserts the files of a torrent into the index, at their current and their future places.
    pub(super) fn index_paths(&mut self, id: TorrentId) {
        let Some(torrent) = self.torrents.get(id).filter(|torrent| !torrent.is_link() && !torrent.is_peek()) else {
            return;
        };
        let (dirs, tops) = (torrent.claimed_dirs(), torrent.claimed_tops());
        for (dir, top) in dirs.iter().flat_map(|dir| tops.iter().map(move |top| (dir, top))) {
            self.paths.index.insert(id, dir, top, |dir| self.storage.place(dir));
        }
    }

    /// Checks that the index contains every torrent whose files are known.
    ///
    /// # Panics
    /// Panics if a torrent is not in the index.
    pub(super) fn check_path_index(&self) {
        for (id, torrent) in self.torrents.iter().filter(|(_, torrent)| !torrent.is_link() && !torrent.is_peek()) {
            let tops = torrent.claimed_tops();
            for dir in torrent.claimed_dirs() {
                let is_there = tops.iter().all(|top| self.paths.index.contains(id, &dir, top));
                assert!(is_there, "{} in {} is in the index of paths", torrent.name(), dir.display());
            }
        }
    }

    /// Handles a change of the directories or names of a torrent's files.
    pub(super) fn paths_changed(&mut self, id: TorrentId) {
        self.index_paths(id);
        self.note_stale_paths(2);
        // Files that the torrent no longer has belong to its seconds.
        let seconds = self.paths.seconds.get(&id).map(|(seconds, _)| seconds.clone()).unwrap_or_default();
        seconds.into_iter().for_each(|second| self.paths.compare(second));
        if self.paths.owners.contains_key(&id) {
            self.paths.compare(id);
        }
    }

    /// Tells the seconds of a torrent that is being removed that their files hold its content.
    pub(super) fn note_removed_owner(&mut self, now: Time, id: TorrentId) {
        for second in self.paths.seconds.get(&id).map(|(seconds, _)| seconds.clone()).unwrap_or_default() {
            self.tell(second, |torrent| torrent.note_removed_owner(now));
        }
    }

    pub(super) fn note_stale_paths(&mut self, count: usize) {
        let torrents = &self.torrents;
        self.paths.index.note_stale(count, |id, dir, hash| {
            let claims = |torrent: &Torrent| {
                torrent.claimed_dirs().iter().any(|other| other == dir)
                    && torrent.claimed_tops().iter().any(|top| hash_of(top) == hash)
            };
            torrents.get(id).is_some_and(claims)
        });
    }

    /// Returns the torrents other than `me` that have files of `claims`, with those files, in the order of ownership:
    /// the first owner is first.
    ///
    /// `linked` are files of several names, which are searched for in all torrents; other files are only compared with
    /// torrents that the index finds.
    fn in_common(
        &mut self,
        now: Time,
        me: Option<TorrentId>,
        claims: &Claims,
        mut linked: Vec<(usize, FileIdentity)>,
    ) -> Vec<Common> {
        let (places, near) = self.near(me, claims, &linked);
        if near.is_empty() {
            return Vec::new();
        }
        linked.extend(self.identities(claims, 0..LINKS_LOOKED_MAX, false));
        // `mine` maps the paths of each file to its index and length.
        let mut mine: BTreeMap<PathBuf, (usize, u64)> = BTreeMap::new();
        for (place, list) in places.iter().flat_map(|place| claims.lists.iter().map(move |list| (place, list))) {
            let entries = list.entries().enumerate().filter(|(_, entry)| !entry.pad);
            mine.extend(entries.map(|(file, entry)| (place.join(entry.path), (file, entry.span.len))));
        }
        let mut linked_files = Linked::new();
        linked_files
            .extend(linked.into_iter().map(|(file, identity)| ((identity.device, identity.inode), (file, identity))));
        let common = near.into_iter().map(|other| self.common_with(now, other, &mine, &linked_files, claims));
        let mut common: Vec<Common> =
            common.filter(|common| common.is_conflict() || !common.empty.is_empty()).collect();
        // Messages name the first torrent of the list.
        common.sort_by_key(|common| self.torrents.get(common.other).map(Torrent::path_order));
        common
    }

    /// Returns the places of a torrent's directories, and the torrents other than `me` that may have files of `claims` or
    /// names of `linked`.
    fn near(
        &mut self,
        me: Option<TorrentId>,
        claims: &Claims,
        linked: &[(usize, FileIdentity)],
    ) -> (Vec<PathBuf>, BTreeSet<TorrentId>) {
        let version = self.storage.places_version();
        self.paths.index.refresh(version, |dir| self.storage.place(dir));
        let mut near = BTreeSet::new();
        let places: Vec<PathBuf> = claims.dirs.iter().map(|dir| self.storage.place(dir)).collect();
        claims.dirs.iter().zip(&places).for_each(|(dir, place)| self.paths.index.move_dir(dir, place));
        for (place, list) in places.iter().flat_map(|place| claims.lists.iter().map(move |list| (place, list))) {
            self.paths.index.find(place, list, &mut near);
        }
        let inodes: BTreeSet<u64> = linked.iter().map(|(_, identity)| identity.inode).collect();
        if !inodes.is_empty() {
            let may_link = |(id, torrent): (TorrentId, &Torrent)| torrent.may_have_inode(&inodes).then_some(id);
            near.extend(self.torrents.iter().filter_map(may_link));
        }
        near.retain(|id| {
            Some(*id) != me && self.torrents.get(*id).is_some_and(|other| !other.is_link() && !other.is_peek())
        });
        (places, near)
    }

    /// Whether a comparison takes so long that it is done in slices: see [`Comparing`].
    fn is_long_comparison(&mut self, me: Option<TorrentId>, claims: &Claims, linked: &[(usize, FileIdentity)]) -> bool {
        let (_, near) = self.near(me, claims, linked);
        let theirs = near.iter().filter_map(|id| self.torrents.get(*id)).map(Torrent::file_count).sum::<usize>();
        !near.is_empty() && (claims.files() + theirs > AT_ONCE_MAX || near.iter().any(|id| self.is_long(*id)))
    }

    fn common_with(
        &mut self,
        now: Time,
        other: TorrentId,
        mine: &BTreeMap<PathBuf, (usize, u64)>,
        linked: &Linked,
        claims: &Claims,
    ) -> Common {
        let mut common = Common::new(other);
        let Ok(torrent) = self.awake(now, other) else {
            // The files of a torrent with lost metainfo are unknown: any of these files may be one of them.
            common.same.extend(0..claims.files());
            return common;
        };
        let theirs = Claims::of(torrent);
        let stamps = torrent.stamps();
        let inodes: BTreeSet<u64> = linked.keys().map(|(_, inode)| *inode).collect();
        for dir in &theirs.dirs {
            let place = self.storage.place(dir);
            for list in &theirs.lists {
                for (file, entry) in list.entries().enumerate().filter(|(_, entry)| !entry.pad) {
                    if let Some(&(mine, len)) = mine.get(&place.join(entry.path)) {
                        let is_empty = len == 0 && entry.span.len == 0;
                        if is_empty {
                            common.empty.insert(mine)
                        } else {
                            common.same.insert(mine)
                        };
                        if len != entry.span.len {
                            common.differs.get_or_insert(mine);
                        }
                    }
                    // A stamp that was not taken yet does not exclude a hard link.
                    let inode = stamps.get(file).map_or(0, |stamp| stamp.inode);
                    let may_link = inode == 0 || inodes.contains(&inode);
                    if !linked.is_empty()
                        && may_link
                        && let Some(identity) = self.storage.identity(dir, entry.path)
                    {
                        common.note_linked(linked, identity, claims, entry.span.len);
                    }
                }
            }
        }
        common
    }

    /// Returns the existing files among `files`; if `linked`, only those of more than one name.
    fn identities(&mut self, claims: &Claims, files: Range<usize>, linked: bool) -> Vec<(usize, FileIdentity)> {
        let (Some(dir), Some(list)) = (claims.dirs.first(), claims.lists.first()) else { return Vec::new() };
        let entries = list.entries().enumerate().skip(files.start).take(files.len());
        let entries = entries.filter(|(_, entry)| !entry.pad && entry.span.len > 0);
        let there = entries.filter_map(|(file, entry)| Some((file, self.storage.identity(dir, entry.path)?)));
        there.filter(|(_, identity)| !linked || identity.links > 1).collect()
    }

    /// Compares the paths of a torrent that is about to be added, and applies the verdict to it. Returns its owners,
    /// for [`Engine::have_owners`].
    pub(super) fn compare_new(&mut self, now: Time, torrent: &mut Torrent) -> BTreeSet<TorrentId> {
        let claims = Claims::of(torrent);
        let linked = self.identities(&claims, 0..LINKS_LOOKED_MAX, true);
        let is_long = self.is_long_comparison(None, &claims, &linked);
        if is_long || claims.files() > LINKS_LOOKED_MAX {
            torrent.postpone_comparison();
        }
        let mut common = if is_long { Vec::new() } else { self.in_common(now, None, &claims, linked) };
        common.retain(Common::is_conflict);
        if let Some(verdict) = self.weigh(&claims, &common) {
            verdict.tell(now, torrent, self.next_order(now));
        }
        common.into_iter().map(|common| common.other).collect()
    }

    /// Handles the metadata of a magnet link: compares the torrent's paths. The index takes them afterwards, when the
    /// torrent is no longer a link.
    pub(super) fn compare_described(&mut self, now: Time, id: TorrentId) {
        let Some(torrent) = self.torrents.get_mut(id) else { return };
        let claims = Claims::of(torrent);
        let linked = self.identities(&claims, 0..LINKS_LOOKED_MAX, true);
        let is_long = self.is_long_comparison(Some(id), &claims, &linked);
        let mut common = if is_long { Vec::new() } else { self.in_common(now, Some(id), &claims, linked) };
        common.retain(Common::is_conflict);
        let verdict = self.weigh(&claims, &common);
        let order = self.next_order(now);
        let torrent = self.torrents.get_mut(id).expect("torrent is in the arena");
        match verdict {
            Some(verdict) => verdict.tell(now, torrent, order),
            None if is_long || claims.files() > LINKS_LOOKED_MAX => torrent.postpone_comparison(),
            None => torrent.own_files(now),
        }
        self.have_owners(id, common.into_iter().map(|common| common.other).collect());
    }

    /// Returns the path of a file that is still being deleted with the content of a removed torrent.
    fn being_deleted(&mut self, claims: &Claims) -> Option<PathBuf> {
        if self.removals.is_empty() {
            return None;
        }
        for (dir, list) in claims.dirs.iter().flat_map(|dir| claims.lists.iter().map(move |list| (dir, list))) {
            let place = self.storage.place(dir);
            let top = list.first().and_then(|entry| entry.path.components().next());
            let near: Vec<_> = top.into_iter().flat_map(|top| self.removals.near(&place.join(top))).collect();
            for (other, content) in near {
                let entries = content.files.entries().filter(|entry| !entry.pad);
                let paths: BTreeSet<PathBuf> = entries.map(|entry| other.join(entry.path)).collect();
                let mut mine = list.entries().filter(|entry| !entry.pad);
                if let Some(entry) = mine.find(|entry| paths.contains(&place.join(entry.path))) {
                    return Some(dir.join(entry.path));
                }
                // One file may have two paths that differ, for instance in case.
                let theirs = self.identities(&Claims::of_content(&content), 0..LINKS_LOOKED_MAX, false);
                let theirs: BTreeSet<(u64, u64)> =
                    theirs.iter().map(|(_, identity)| (identity.device, identity.inode)).collect();
                let mine = Claims { dirs: vec![dir.clone()], lists: vec![Arc::clone(list)] };
                let is_same = |(_, identity): &(usize, FileIdentity)| {
                    identity.links == 1 && theirs.contains(&(identity.device, identity.inode))
                };
                let same = self.identities(&mine, 0..LINKS_LOOKED_MAX, false).into_iter().find(is_same);
                if let Some((file, _)) = same {
                    return Some(mine.path(file));
                }
            }
        }
        None
    }

    /// Checks that no file of `claims` is still being deleted.
    ///
    /// # Errors
    /// A file is still being deleted.
    pub(super) fn may_use(&mut self, claims: &Claims) -> Result<(), Refusal> {
        self.being_deleted(claims).map_or(Ok(()), |file| {
            let message = format!("{} is still being deleted, as you asked; try again in a moment", file.display());
            Err(Refusal::new(RefusalKind::Busy, message))
        })
    }

    /// Whether a torrent whose metadata is there has to wait because its files are still being deleted with another
    /// torrent. [`Engine::describe_waiting`] continues with it.
    pub(super) fn waits_for_deletion(&mut self, id: TorrentId) -> bool {
        let claims = self.torrents.get(id).map(Claims::of);
        let waits = claims.is_some_and(|claims| self.being_deleted(&claims).is_some());
        if waits {
            self.paths.described.insert(id);
        }
        waits
    }

    /// Continues, after a deletion, with the torrents whose files were being deleted.
    pub(super) fn describe_waiting(&mut self, now: Time) {
        for id in std::mem::take(&mut self.paths.described) {
            if self.torrents.contains(id) {
                self.describe(now, id);
                self.touched.push(id);
            }
        }
    }

    /// Returns the order of a torrent that becomes second now: it is later than any earlier order, also of earlier
    /// runs.
    fn next_order(&mut self, now: Time) -> u64 {
        self.paths.order = (self.paths.order + 1).max((self.unix_nanos + now.as_nanos()) / 1000);
        self.paths.order
    }

    /// Records the owners of a torrent that was compared.
    pub(super) fn have_owners(&mut self, id: TorrentId, owners: BTreeSet<TorrentId>) {
        let ready: BTreeMap<TorrentId, bool> = owners.iter().map(|owner| (*owner, self.is_ready(*owner))).collect();
        self.paths.set_owners(id, owners);
        for (owner, ready) in ready {
            if let Some((_, was)) = self.paths.seconds.get_mut(&owner) {
                *was = ready;
            }
        }
    }

    /// Whether a torrent no longer delays its seconds: it is complete as far as wanted, or will not write.
    fn is_ready(&self, owner: TorrentId) -> bool {
        let Some(torrent) = self.torrents.get(owner) else { return true };
        let is_undecided = matches!(torrent.second_stage(), Some(SecondStage::Waits | SecondStage::Checks));
        !is_undecided && (self.is_refused(owner) || torrent.is_settled())
    }

    /// Whether a torrent is a second one that was refused.
    fn is_refused(&self, id: TorrentId) -> bool {
        self.torrents.get(id).is_some_and(|torrent| match torrent.second_stage() {
            Some(SecondStage::Refused) => true,
            Some(SecondStage::Decided) => !torrent.is_finished() && torrent.check_progress().is_none(),
            Some(SecondStage::Waits | SecondStage::Checks) | None => false,
        })
    }

    /// Returns the consequence for a torrent of the files that it has in common with the torrents before it. `None` if
    /// there is no such file.
    fn weigh(&self, claims: &Claims, common: &[Common]) -> Option<Verdict> {
        let owner_of = |common: &Common| {
            let other = self.torrents.get(common.other)?;
            let file = claims.path(common.file());
            Some(Owner { name: other.name().to_owned(), info_hash: other.info_hash(), file })
        };
        // A refused torrent has no file at that path.
        let differs = |common: &&Common| common.differs.is_some() && !self.is_refused(common.other);
        if let Some(owner) = common.iter().find(differs).and_then(owner_of) {
            return Some(Verdict::Differs(owner));
        }
        if let Some(owner) = common.iter().find(|common| !self.is_ready(common.other)).and_then(owner_of) {
            return Some(Verdict::Waits(owner));
        }
        common.iter().find_map(owner_of).map(Verdict::Ready)
    }

    /// Compares the paths of a torrent with those of the others, and applies the verdict to it.
    pub(super) fn compare_paths(&mut self, now: Time, id: TorrentId) {
        if self.is_long(id) && self.load_soon(now, id) == Loaded::Later {
            if self.torrents.get(id).is_some_and(|torrent| torrent.lost().is_none()) {
                return self.paths.comparing.push(id);
            }
            return self.torrents.get_mut(id).into_iter().for_each(Torrent::let_go_uncompared);
        }
        let Ok(torrent) = self.awake(now, id) else {
            return self.torrents.get_mut(id).into_iter().for_each(Torrent::let_go_uncompared);
        };
        if torrent.is_link() || torrent.is_peek() {
            return;
        }
        let claims = Claims::of(torrent);
        let linked = self.identities(&claims, 0..LINKS_LOOKED_MAX, true);
        if claims.files() > LINKS_LOOKED_MAX {
            self.paths.looking = Some(Looking { id, claims, next: LINKS_LOOKED_MAX, linked });
        } else {
            self.compare_files(now, id, claims, linked);
        }
    }

    /// Compares the files of a torrent, of which some have other names; in slices if that takes long.
    fn compare_files(&mut self, now: Time, id: TorrentId, claims: Claims, linked: Vec<(usize, FileIdentity)>) {
        if !self.is_long_comparison(Some(id), &claims, &linked) {
            let common = self.in_common(now, Some(id), &claims, linked);
            return self.handle_compared(now, id, &claims, common);
        }
        let (places, near) = self.near(Some(id), &claims, &linked);
        let there = self.identities(&claims, 0..LINKS_LOOKED_MAX, false);
        let by_inode = linked.into_iter().chain(there);
        let linked = by_inode.map(|(file, identity)| ((identity.device, identity.inode), (file, identity))).collect();
        self.paths.under_way = Some(Box::new(Comparing::new(id, claims, places, linked, near)));
    }

    /// Applies what was found in common with other torrents.
    fn handle_compared(&mut self, now: Time, id: TorrentId, claims: &Claims, mut common: Vec<Common>) {
        common.retain(Common::is_conflict);
        let Some(torrent) = self.torrents.get(id) else { return };
        let (order, was_second, was_compared) = (torrent.path_order(), torrent.is_second(), torrent.is_compared());
        let (is_shared, is_new) = (torrent.is_shared(), torrent.is_new_uncompared());
        // A torrent of a share directory is never written to, and so second to no other torrent.
        common.retain(|common| {
            !is_shared && self.torrents.get(common.other).is_some_and(|other| other.path_order() < order)
        });
        self.touched.push(id);
        if common.is_empty() {
            self.paths.set_owners(id, BTreeSet::new());
            return self.torrents.get_mut(id).expect("torrent is in the arena").own_files(now);
        }
        if !was_second && !was_compared && !is_new {
            // Both torrents are from an earlier run, and both may have written: the verified pieces of neither are
            // trusted.
            for common in &common {
                let owner = self.torrents.get_mut(common.other).expect("torrent is in the arena");
                if owner.is_second() {
                    continue;
                }
                owner.recheck(now);
                self.touched.push(common.other);
            }
        }
        let owners = common.iter().map(|common| common.other).collect();
        let (order, verdict) = (self.next_order(now), self.weigh(claims, &common));
        if let (Some(verdict), Some(torrent)) = (verdict, self.torrents.get_mut(id)) {
            verdict.tell(now, torrent, order);
        }
        self.have_owners(id, owners);
    }

    /// Carries out one slice of the comparison.
    pub(super) fn work_on_paths(&mut self, now: Time) {
        if let Some(mut comparing) = self.paths.under_way.take() {
            match self.compare_on(now, &mut comparing) {
                Some(common) => self.handle_compared(now, comparing.id, &comparing.claims, common),
                None => self.paths.under_way = Some(comparing),
            }
        } else if let Some(mut looking) = self.paths.looking.take() {
            let files = looking.next..looking.next + LINKS_LOOKED_MAX;
            looking.linked.extend(self.identities(&looking.claims, files.clone(), true));
            looking.next = files.end;
            if looking.next < looking.claims.files() {
                self.paths.looking = Some(looking);
            } else {
                self.compare_files(now, looking.id, looking.claims, looking.linked);
            }
        } else if let Some(id) = self.paths.comparing.pop()
            && self.torrents.contains(id)
        {
            self.compare_paths(now, id);
        } else {
            return;
        }
        self.settle(now);
    }

    /// Handles a change of a torrent: if it is an owner that is no longer ready, its seconds wait; if it is ready
    /// again, its seconds are examined.
    pub(super) fn look_at_seconds(&mut self, now: Time, id: TorrentId) {
        if self.exiting || !self.paths.seconds.contains_key(&id) {
            return;
        }
        let ready = self.is_ready(id);
        let Some((seconds, was)) = self.paths.seconds.get_mut(&id) else { return };
        if std::mem::replace(was, ready) != ready {
            let seconds: Vec<TorrentId> = seconds.iter().copied().collect();
            for second in seconds {
                let torrent = self.torrents.get_mut(second).filter(|torrent| !ready && torrent.owner().is_some());
                match torrent {
                    Some(torrent) => {
                        torrent.wait_again(now);
                        self.touched.push(second);
                        // The order of ownership may have changed.
                        self.paths.compare(second);
                    }
                    None => self.paths.compare(second),
                }
            }
        }
    }

    /// Finds the torrents that may have files in common after all torrents of an earlier run were loaded, and has them
    /// compared before they do anything. Second torrents that were finished continue as before, and are not opened, if
    /// their owners are finished.
    pub(super) fn restore_owners(&mut self, now: Time) {
        let mut ids: Vec<TorrentId> = self.torrents.ids().collect();
        ids.retain(|id| self.torrents.get(*id).is_some_and(|torrent| !torrent.is_link() && !torrent.is_peek()));
        ids.sort_by_key(|id| self.torrents.get(*id).map(Torrent::path_order));
        for id in ids {
            let Some(torrent) = self.torrents.get(id).filter(|torrent| !torrent.is_compared()) else { continue };
            let mut near = BTreeSet::new();
            let tops = torrent.claimed_tops();
            for dir in torrent.claimed_dirs() {
                let Some(place) = self.paths.index.place_of(&dir) else { continue };
                tops.iter().for_each(|top| self.paths.index.find_near(&place, top, &mut near));
            }
            let order = torrent.path_order();
            near.retain(|other| self.torrents.get(*other).is_some_and(|other| other.path_order() < order));
            let is_whole = torrent.second_stage() == Some(SecondStage::Decided) && torrent.is_finished();
            if torrent.is_second() && is_whole && !near.is_empty() && near.iter().all(|other| self.is_ready(*other)) {
                self.have_owners(id, near);
            } else if torrent.is_second() || !near.is_empty() && !torrent.is_shared() {
                let is_second = torrent.is_second();
                // The later torrent is compared first: before that nothing is known about the claims of the earlier
                // one.
                for held in std::iter::once(id).chain(near.into_iter().filter(|_| !is_second)) {
                    let torrent = self.torrents.get_mut(held).expect("torrent is in the arena");
                    if !torrent.is_shared() && !torrent.is_compared() {
                        torrent.hold_for_comparison(now);
                        self.touched.push(held);
                        self.paths.compare(held);
                    }
                }
            }
        }
    }

    /// Checks whether the files of a torrent may get other places or names, as far as other torrents have files in
    /// common with it.
    ///
    /// # Errors
    /// Another torrent has one of the files, or a file at one of the new paths.
    fn may_take(
        &mut self,
        now: Time,
        id: TorrentId,
        claims: &Claims,
        is_new: impl Fn(&Path) -> bool,
    ) -> Result<(), Refusal> {
        let common = self.in_common(now, Some(id), claims, Vec::new());
        let Some((common, other)) = common.first().and_then(|common| Some((common, self.torrents.get(common.other)?)))
        else {
            return Ok(());
        };
        let file = claims.path(common.file());
        let owner = Owner { name: other.name().to_owned(), info_hash: other.info_hash(), file: file.clone() };
        let what = if is_new(&file) {
            "nothing is put where another torrent has its files; choose another place"
        } else {
            "files of another torrent cannot be moved or renamed; remove one of the two first, without its data"
        };
        let message = format!("{} belongs to the torrent {}, too: {what}", file.display(), owner.label());
        Err(Refusal::new(RefusalKind::Denied, message))
    }

    /// Checks whether a torrent's content may be moved to `to`.
    ///
    /// # Errors
    /// Another torrent has some of the files, or has files at the new paths.
    pub(super) fn may_move(&mut self, now: Time, id: TorrentId, to: &Path) -> Result<(), Refusal> {
        let torrent = self.torrents.get(id).expect("torrent is in the arena");
        if torrent.is_link() || torrent.dir() == to {
            return Ok(());
        }
        let lists = torrent.claimed_lists();
        let at = Claims { dirs: vec![torrent.dir().to_owned()], lists: lists.clone() };
        self.may_take(now, id, &at, |_| false)?;
        let new = Claims { dirs: vec![to.to_owned()], lists };
        self.may_use(&new)?;
        self.may_take(now, id, &new, |_| true)
    }

    /// Checks whether files of a torrent may be renamed.
    ///
    /// # Errors
    /// Another torrent has one of the renamed files, or a file of the new name.
    pub(super) fn may_rename(&mut self, now: Time, id: TorrentId, step: &RenameStep) -> Result<(), Refusal> {
        let content = self.torrents.get(id).expect("torrent is in the arena").content();
        let pairs = content.files.entries().zip(step.files.entries());
        let renamed: Vec<_> = pairs.filter(|(old, new)| old.path != new.path).collect();
        let claims = |paths: Vec<(PathBuf, u64, bool)>| Claims {
            dirs: vec![content.dir.clone()],
            lists: vec![Arc::new(FileList::new(paths))],
        };
        let old = claims(renamed.iter().map(|(old, _)| (old.path.to_owned(), old.span.len, old.pad)).collect());
        self.may_take(now, id, &old, |_| false)?;
        let new = claims(renamed.iter().map(|(_, new)| (new.path.to_owned(), new.span.len, new.pad)).collect());
        self.may_use(&new)?;
        self.may_take(now, id, &new, |_| true)
    }

    /// Returns the indexes, in order, of the files of `content` that torrents use: the files at one path, and those
    /// that are the only name of one inode. A file that is another name of an inode may be deleted, because the
    /// torrent's own name of it remains.
    pub(super) fn used_by_others(&mut self, now: Time, content: &Content) -> Vec<usize> {
        let claims = Claims::of_content(content);
        let common = self.in_common(now, None, &claims, Vec::new());
        let used: BTreeSet<usize> =
            common.into_iter().flat_map(|common| common.same.into_iter().chain(common.empty)).collect();
        used.into_iter().collect()
    }

    /// Whether `top` in `dir` is the top of a torrent that is not shared, under any path that leads to the same place.
    pub(super) fn belongs_to_torrent(&mut self, dir: &Path, top: &OsStr) -> bool {
        let place = self.storage.place(dir);
        let version = self.storage.places_version();
        self.paths.index.refresh(version, |dir| self.storage.place(dir));
        let mut near = BTreeSet::new();
        self.paths.index.find_at(&place, Some(top), &mut near);
        near.into_iter().filter_map(|id| self.torrents.get(id)).any(|torrent| !torrent.is_shared())
    }

    /// Returns the reason for which a second torrent waits.
    pub(super) fn why_of_owner(&self, id: TorrentId) -> Option<Reason> {
        let torrent = self.torrents.get(id)?;
        if self.paths.described.contains(&id) {
            let sentence = "its files are still being deleted with a torrent that was removed; it goes on by itself";
            return Some(Reason::new("shared-files", sentence));
        }
        if torrent.second_stage() != Some(SecondStage::Waits) && torrent.is_compared() || torrent.error().is_some() {
            return None;
        }
        let Some(owner) = torrent.owner() else {
            let sentence = "its paths are being compared with those of other torrents; it goes on by itself";
            return torrent.is_held().then(|| Reason::new("shared-files", sentence));
        };
        let other = self.by_hash.get(&owner.info_hash).and_then(|id| self.torrents.get(*id));
        let state = match other {
            None => "is gone".to_owned(),
            Some(other) => match other.error() {
                Some(error) => format!("has stopped with an error ({error})"),
                None if other.is_finished() => "is not done with its files".to_owned(),
                None => format!("is not finished ({})", other.state().word()),
            },
        };
        let sentence = format!(
            "it waits for the torrent {}, which also has {} and {state}; this torrent writes nothing, and its content \
             is checked when the owner is finished",
            owner.label(),
            owner.file.display()
        );
        Some(Reason::new("shared-files", sentence))
    }
}
