//! A disk in memory: pages that are as they should be cost nothing, the others are kept; faults are laid over them.
//!
//! `image` is one torrent's content, `watch` who writes it. It also watches what is served and what is lost in a crash. What
//! breaks a rule is a breach, kept until the checks fetch it.

mod image;
mod watch;

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::files::FileList;

use crate::base::arena::Arena;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::Span;
use crate::base::ids::{ConnId, StoreId, StoreKey};
use crate::base::rng::Rng;
use crate::base::storage::{Chunk, Content, Fault, FaultKind, FileIdentity, SendError, Stamp, Storage};
use crate::base::time::Time;
use crate::sim::stream::SimStream;

use self::image::{FileState, Image, Page, gone, pages_of};

pub use self::image::{PAGE_LEN, Truth};

/// A share of blocks is sent with a wrong byte.
#[derive(Debug)]
struct Lies {
    share: f64,
    rng: Rng,
}

/// What a store is open for.
#[derive(Debug, Clone, Copy)]
struct Opened {
    /// The index of its image; `usize::MAX` if it has none.
    image: usize,
    read_only: bool,
}

/// The disk of one node.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    truths: Vec<Arc<Truth>>,
    images: Vec<Image>,
    stores: Arena<StoreKey, Opened>,
    /// Whose turn it is, and when.
    pub(crate) turn: Option<ConnId>,
    pub(crate) now: Time,
    /// No room for anything new.
    pub(crate) is_full: bool,
    /// Bytes there are; no limit if none.
    pub(crate) capacity: Option<u64>,
    lies: Option<Lies>,
    /// What describes torrents, by name.
    pub(crate) saved: BTreeMap<PathBuf, Vec<u8>>,
    /// Content that was handed to streams since it was last asked, by store.
    pub(crate) served: Vec<(StoreId, Span)>,
    /// Content that was handed to streams in this life, bytes.
    pub(crate) served_bytes: u64,
    /// Rules that were broken.
    pub(crate) breaches: Vec<String>,
}

impl MemoryStorage {
    /// Makes a truth known, before its torrent is added.
    pub fn know(&mut self, truth: &Arc<Truth>) {
        self.truths.push(Arc::clone(truth));
    }

    /// From now on this share of blocks is sent with a wrong byte.
    pub(crate) fn lie(&mut self, share: f64, rng: Rng) {
        self.lies = Some(Lies { share, rng });
    }

    /// Lays a torrent's content down as if it had been there before.
    ///
    /// # Panics
    /// If the store is not open.
    pub fn fill(&mut self, store: StoreId) {
        let now = self.now;
        let image = self.image_mut(store).expect("an open store");
        image.pages.fill(Page::True);
        for (file, entry) in image.files.iter_mut().zip(image.content.files.entries()) {
            (file.is_there, file.len, file.modified) = (true, entry.span.len, now);
        }
    }

    /// True if all of the content is on the disk as it should be.
    #[must_use]
    pub fn is_whole(&self, store: StoreId) -> bool {
        self.image(store).is_some_and(|image| image.pages.iter().all(|page| *page == Page::True))
    }

    /// True if `span` is on the disk as it should be, but for what a fault changed.
    #[must_use]
    pub fn is_true(&self, store: StoreId, span: Span) -> bool {
        self.image(store).is_some_and(|image| image.is_true(span))
    }

    /// Bytes of a store's content; 0 if it is not open.
    #[must_use]
    pub fn len(&self, store: StoreId) -> u64 {
        self.image(store).map_or(0, |image| image.truth.bytes.len() as u64)
    }

    /// The stores, oldest slot first.
    pub fn ids(&self) -> impl Iterator<Item = StoreId> {
        self.stores.ids()
    }

    /// The engine claims these pieces: nothing may be written there.
    pub(crate) fn note_claims(&mut self, store: StoreId, have: &Bitfield) {
        if let Some(image) = self.image_mut(store) {
            image.watch.claim(have);
        }
    }

    /// A piece was wrong: what was written whole may be written again.
    pub(crate) fn note_failure(&mut self, store: StoreId) {
        if let Some(image) = self.image_mut(store) {
            image.watch.fail();
        }
    }

    /// A sync begins.
    pub(crate) fn begin_sync(&mut self, store: StoreId) {
        if let Some(image) = self.image_mut(store) {
            let unsynced = std::mem::take(&mut image.unsynced);
            for (page, before) in unsynced {
                image.syncing.entry(page).or_insert(before);
            }
        }
    }

    /// The sync that began is done.
    pub(crate) fn end_sync(&mut self, store: StoreId) {
        if let Some(image) = self.image_mut(store) {
            image.syncing.clear();
        }
    }

    /// Makes every wanted file as long as it will be.
    pub(crate) fn allocate(&mut self, store: StoreId) -> Result<(), Fault> {
        self.may_write(store)?;
        let (now, room) = (self.now, self.room());
        let Some(image) = self.image_mut(store) else { return Ok(()) };
        (0..image.files.len()).filter(|&file| image.content.wanted[file]).try_for_each(|file| image.may_make(file))?;
        let missing: u64 = image.pages.iter().map(|page| u64::from(*page == Page::Hole) * PAGE_LEN as u64).sum();
        if missing > room {
            return Err(full());
        }
        for index in 0..image.files.len() {
            let entry = &image.content.files.entry(index);
            if image.content.wanted[index] && !entry.pad {
                let len = entry.span.len;
                image.touch(index, len, now);
            }
        }
        Ok(())
    }

    /// Takes a torrent's content from the disk.
    pub(crate) fn delete(&mut self, store: StoreId) {
        if let Some(image) = self.image_mut(store) {
            image.vanish();
        }
    }

    /// Where the content lies now.
    pub(crate) fn relocate(&mut self, store: StoreId, dir: PathBuf) {
        if let Some(image) = self.image_mut(store) {
            image.content.dir = dir;
        }
    }

    /// What was written and not synced is there or not, page by page; whatever was open is closed.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        for image in &mut self.images {
            for lost in [std::mem::take(&mut image.unsynced), std::mem::take(&mut image.syncing)] {
                for (page, before) in lost {
                    if rng.below(2) == 0 {
                        image.pages[page] = before;
                    }
                }
            }
        }
        self.close_all();
    }

    /// The process ended: what it wrote is in the kernel's hands.
    pub(crate) fn close_all(&mut self) {
        self.stores = Arena::default();
        (self.served_bytes, self.turn) = (0, None);
        self.served.clear();
        self.images.iter_mut().for_each(|image| image.watch.close());
    }

    /// A connection is gone: whoever it wrote for may be taken over.
    pub(crate) fn forget_writer(&mut self, conn: ConnId) {
        self.images.iter_mut().for_each(|image| image.watch.forget(conn));
    }

    /// A fault: one bit of something that was written changes. False if nothing was.
    pub(crate) fn flip_bit(&mut self, rng: &mut Rng) -> bool {
        let Some((image, page)) = self.any_page(rng) else { return false };
        let image = &mut self.images[image];
        let mut bytes = image.bytes_of(page).to_vec();
        let at = rng.index(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
        image.pages[page] = Page::Other(bytes.into());
        image.flipped.insert(page);
        true
    }

    /// A fault: something that was written cannot be read for now. False if nothing was.
    pub(crate) fn spoil(&mut self, rng: &mut Rng) -> bool {
        let Some((image, page)) = self.any_page(rng) else { return false };
        self.images[image].unreadable.insert(page);
        true
    }

    /// Everything can be read again.
    pub(crate) fn unspoil(&mut self) {
        self.images.iter_mut().for_each(|image| image.unreadable.clear());
    }

    /// A fault: the disk is not mounted any more.
    pub(crate) fn unmount(&mut self) {
        self.images.iter_mut().for_each(Image::unmount);
    }

    /// The disk is mounted again.
    pub(crate) fn mount(&mut self) {
        self.images.iter_mut().for_each(Image::mount);
    }

    /// The user has everything verified, wherever its disks are.
    pub(crate) fn give_up(&mut self) {
        self.images.iter_mut().for_each(|image| image.is_given_up = true);
    }

    /// Files that are complete get their length.
    pub(crate) fn finish(&mut self, store: StoreId, finish: &[usize]) {
        let now = self.now;
        if finish.is_empty() || self.may_write(store).is_err() {
            return;
        }
        if let Some(image) = self.image_mut(store) {
            image.finish(finish, now);
        }
    }

    /// What was taken away is put back.
    pub(crate) fn put_back(&mut self) {
        self.images.iter_mut().for_each(Image::come_back);
    }

    /// A fault: somebody takes the files of a torrent away.
    pub(crate) fn lose_files(&mut self, rng: &mut Rng) {
        if !self.images.is_empty() {
            let image = rng.index(self.images.len());
            let image = &mut self.images[image];
            if image.away.is_none() && !image.is_unlinked {
                image.away = Some((image.pages.clone(), image.files.clone()));
                image.there =
                    Some((vec![Page::Hole; image.pages.len()], vec![FileState::default(); image.files.len()]));
                image.is_unlinked = true;
                image.flipped.extend(0..image.pages.len()); // until it looks it cannot know
            }
        }
    }

    fn any_page(&self, rng: &mut Rng) -> Option<(usize, usize)> {
        let written = |image: &Image| -> Vec<usize> {
            let is_written = |page: &usize| image.pages[*page] != Page::Hole;
            (0..image.pages.len()).filter(is_written).collect()
        };
        let image = (!self.images.is_empty()).then(|| rng.index(self.images.len()))?;
        rng.choose(&written(&self.images[image])).map(|&page| (image, page))
    }

    fn room(&self) -> u64 {
        if self.is_full {
            return 0;
        }
        let Some(capacity) = self.capacity else { return u64::MAX };
        let pages = self.images.iter().flat_map(|image| &image.pages).filter(|page| **page != Page::Hole).count();
        capacity.saturating_sub((pages * PAGE_LEN) as u64)
    }

    /// A store that is open for reading only is not written through: it is a breach that it was tried.
    fn may_write(&mut self, store: StoreId) -> Result<(), Fault> {
        if self.stores.get(store).is_some_and(|opened| opened.read_only) {
            self.breaches.push("files of another torrent are written".into());
            return Err(Fault { kind: FaultKind::Denied, message: "the simulated files are another torrent's".into() });
        }
        Ok(())
    }

    fn image(&self, store: StoreId) -> Option<&Image> {
        self.stores.get(store).and_then(|opened| self.images.get(opened.image))
    }

    fn image_mut(&mut self, store: StoreId) -> Option<&mut Image> {
        self.stores.get(store).and_then(|opened| self.images.get_mut(opened.image))
    }
}

fn full() -> Fault {
    Fault { kind: FaultKind::Full, message: "there is no room on the simulated disk; make some".into() }
}

impl Storage for MemoryStorage {
    type Stream = SimStream;

    fn open(&mut self, content: Content) -> StoreId {
        if content.files.is_empty() {
            let opened = Opened { image: usize::MAX, read_only: content.read_only };
            return self.stores.insert(opened); // of a torrent that came as a link nothing is known yet
        }
        let len = content.files.total_len();
        let first = content.files.first().map_or_else(PathBuf::new, |entry| entry.path.to_owned());
        let truth = self.truths.iter().find(|truth| truth.bytes.len() as u64 == len && first.starts_with(&truth.name));
        let truth = Arc::clone(truth.expect("the truth is known before its torrent is added"));
        // Torrents with one truth in one directory share its files.
        let is_open = |index: usize| self.stores.values().any(|opened| opened.image == index);
        let of_truth = || self.images.iter().enumerate().filter(|(_, image)| Arc::ptr_eq(&image.truth, &truth));
        let there = of_truth().find(|(_, image)| image.content.dir == content.dir);
        let known = there.or_else(|| of_truth().find(|(index, _)| !is_open(*index))).map(|(index, _)| index);
        let index = known.unwrap_or(self.images.len());
        let read_only = content.read_only;
        if known.is_none() {
            self.images.push(Image::new(truth, content));
        } else if !read_only || !is_open(index) {
            self.images[index].content = content;
            self.images[index].held.clear();
            self.images[index].watch.reopen();
            self.images[index].open_anew();
        }
        self.stores.insert(Opened { image: index, read_only })
    }

    fn close(&mut self, store: StoreId) {
        self.stores.remove(store);
    }

    fn set_wanted(&mut self, store: StoreId, wanted: &[bool]) {
        if let Some(image) = self.image_mut(store) {
            image.content.wanted = wanted.to_vec();
        }
    }

    fn set_read_only(&mut self, store: StoreId, read_only: bool) {
        if let Some(opened) = self.stores.get_mut(store) {
            opened.read_only = read_only;
        }
    }

    fn set_held(&mut self, store: StoreId, held: &[bool]) {
        if let Some(image) = self.image_mut(store) {
            image.held = held.to_vec();
        }
    }

    fn hold(&mut self, store: StoreId, file: usize) {
        if let Some(image) = self.image_mut(store) {
            image.held.resize(image.files.len(), false);
            image.held[file] = true;
        }
    }

    fn cut(&mut self, store: StoreId, file: usize) {
        self.finish(store, &[file]);
    }

    fn prepare(&mut self, store: StoreId, span: Span) -> Result<(), Fault> {
        self.may_write(store)?;
        let (room, now) = (self.room(), self.now);
        let image = self.image_mut(store).ok_or_else(gone)?;
        let holes = pages_of(span.offset, span.len).filter(|&page| image.pages[page] == Page::Hole).count();
        if (holes * PAGE_LEN) as u64 > room {
            return Err(full());
        }
        let parts: Vec<usize> = image.content.files.parts(span).map(|(index, _, _)| index).collect();
        parts.iter().try_for_each(|&index| image.may_make(index))?;
        let makes = parts.iter().any(|&index| !image.files[index].is_there);
        let astray =
            (image.is_astray() && makes).then(|| "a file is made in the place of a disk that is away".to_owned());
        parts.into_iter().for_each(|index| image.touch(index, 0, now));
        self.breaches.extend(astray);
        Ok(())
    }

    fn write(&mut self, store: StoreId, offset: u64, bytes: &[IoSlice<'_>]) -> Result<(), Fault> {
        self.may_write(store)?;
        let (now, by, room) = (self.now, self.turn, self.room());
        let image = self.image_mut(store).ok_or_else(gone)?;
        let len = bytes.iter().map(|slice| slice.len() as u64).sum();
        if room == 0 && pages_of(offset, len).any(|page| image.pages[page] == Page::Hole) {
            return Err(full());
        }
        let parts = image.content.files.parts(Span { offset, len }).map(|(index, _, _)| index);
        parts.into_iter().try_for_each(|index| image.may_make(index))?;
        let astray = image.is_astray().then(|| "it is written in the place of a disk that is away".to_owned());
        let watched = astray.map_or_else(|| image.watch.write(now, by, offset, len), Err);
        let mut at = offset;
        for slice in bytes {
            image.write(now, at, slice);
            at += slice.len() as u64;
        }
        self.breaches.extend(watched.err());
        Ok(())
    }

    fn read(&mut self, store: StoreId, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        let image = self.image(store).ok_or_else(gone)?;
        image.may_read(Span { offset, len: buf.len() as u64 })?;
        image.copy(usize::try_from(offset).expect("simulated content fits memory"), buf);
        Ok(())
    }

    fn expect(&mut self, _store: StoreId, _span: Span) {}

    fn resident(&mut self, _store: StoreId, _span: Span) -> bool {
        true
    }

    fn send(&mut self, stream: &mut SimStream, chunks: &[Chunk<'_>]) -> Result<usize, SendError> {
        let mut moved = 0;
        for chunk in chunks {
            let (len, taken) = match *chunk {
                Chunk::Bytes(bytes) => (bytes.len(), stream.write(bytes)),
                Chunk::Content(store, span) => {
                    let taken = match self.send_content(stream, store, span) {
                        Err(SendError::Stream(error)) => Err(error),
                        Err(_) if moved > 0 => return Ok(moved),
                        Err(fault) => return Err(fault),
                        Ok(taken) => Ok(taken),
                    };
                    (usize::try_from(span.len).expect("a chunk is at most a block"), taken)
                }
            };
            match taken {
                Ok(taken) => {
                    moved += taken;
                    if taken < len {
                        return Ok(moved);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && moved > 0 => return Ok(moved),
                Err(error) => return Err(SendError::Stream(error)),
            }
        }
        Ok(moved)
    }

    fn has_data(&mut self, store: StoreId, span: Span) -> bool {
        let has = |image: &Image| pages_of(span.offset, span.len).any(|page| image.pages[page] != Page::Hole);
        self.image(store).is_some_and(has)
    }

    fn saved(&mut self, name: &Path) -> Option<Vec<u8>> {
        self.saved.get(name).cloned()
    }

    fn saved_part(&mut self, name: &Path, bytes: &mut Vec<u8>, most: usize) -> Option<bool> {
        let saved = self.saved.get(name)?;
        let rest = saved.get(bytes.len()..)?;
        bytes.extend_from_slice(&rest[..rest.len().min(most)]);
        Some(bytes.len() == saved.len())
    }

    fn exists(&mut self, path: &Path) -> bool {
        self.images.iter().any(|image| !image.is_unlinked && image.lies_at(path))
    }

    fn place(&mut self, dir: &Path) -> PathBuf {
        dir.to_owned() // there are no links here
    }

    fn places_version(&mut self) -> u64 {
        0
    }

    fn identity(&mut self, dir: &Path, path: &Path) -> Option<FileIdentity> {
        let images = self.images.iter().enumerate().filter(|(_, image)| !image.is_unlinked && image.content.dir == dir);
        for (index, image) in images {
            let file = image.content.files.entries().position(|entry| !entry.pad && entry.path == path);
            if let Some(file) = file.filter(|&file| image.files[file].is_there) {
                // An inode of these is the file's place on the disk; the number in its stamp says only whether it was replaced.
                let inode = (index as u64) << 32 | file as u64;
                return Some(FileIdentity { device: 1, inode, links: 1, len: image.files[file].len });
            }
        }
        None
    }

    fn stamp(&mut self, store: StoreId, file: usize) -> Option<Stamp> {
        let image = self.image(store)?;
        if image.content.files.get(file)?.pad {
            return Some(Stamp::default());
        }
        let state = image.files.get(file).filter(|state| state.is_there && !image.is_unlinked)?;
        let modified_nanos = i64::try_from(state.modified.as_nanos()).unwrap_or(i64::MAX);
        Some(Stamp { len: state.len, modified_nanos, inode: state.inode })
    }

    fn trouble(&mut self, store: StoreId, file: usize) -> Option<Fault> {
        let image = self.image(store)?;
        let is_pad = image.content.files.get(file)?.pad;
        // What is open may not be what lies there.
        let is_there = match &image.there {
            Some((_, files)) if image.is_unlinked => files[file].is_there,
            _ => image.files[file].is_there,
        };
        (!is_pad && !is_there).then(gone)
    }

    fn is_there(&mut self, _store: StoreId, _path: &Path) -> bool {
        false
    }

    fn rename(&mut self, _store: StoreId, _from: &Path, _to: &Path, _files: Arc<FileList>) -> Result<(), Fault> {
        Ok(()) // nobody renames anything here
    }

    fn move_progress(&self, _store: StoreId) -> Option<(u64, u64)> {
        None // it moves in no time
    }

    fn stop_move(&mut self, _store: StoreId, _undo: bool) {}
}

impl MemoryStorage {
    fn send_content(&mut self, stream: &mut SimStream, store: StoreId, span: Span) -> Result<usize, SendError> {
        let image = self.image(store).ok_or_else(|| SendError::Content(store, gone()))?;
        image.may_read(span).map_err(|fault| SendError::Content(store, fault))?;
        let len = usize::try_from(span.len).expect("a chunk is at most a block");
        let taken = stream.take(len).map_err(SendError::Stream)?;
        let start = usize::try_from(span.offset).expect("simulated content fits memory");
        let (truth, pages) = (Arc::clone(&image.truth), pages_of(span.offset, taken as u64));
        let is_true = pages.into_iter().all(|page| image.pages[page] == Page::True);
        let lies = self.lies.as_mut().is_some_and(|lies| {
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let drawn = (lies.rng.u64() >> 11) as f64 / (1_u64 << 53) as f64;
            drawn < lies.share
        });
        if is_true && !lies {
            stream.out.push_content(&truth, start..start + taken);
        } else {
            let mut bytes = vec![0; taken];
            self.image(store).expect("it was just there").copy(start, &mut bytes);
            if lies {
                bytes[taken / 2] ^= 0x55;
            }
            stream.out.push(&bytes);
        }
        self.served.push((store, Span { offset: span.offset, len: taken as u64 }));
        self.served_bytes += taken as u64;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::arena::Id;
    use crate::base::files::FileList;

    fn storage() -> (MemoryStorage, StoreId) {
        let mut bytes = vec![0; 100_000];
        Rng::from_number(1).fill(&mut bytes);
        let mut storage = MemoryStorage::default();
        storage.know(&Arc::new(Truth::new("t".into(), bytes, 32 * 1024)));
        let files = Arc::new(FileList::new([("t/a".into(), 60_000, false), ("t/b".into(), 40_000, false)]));
        let store =
            storage.open(Content { dir: "d".into(), also: None, files, wanted: vec![true; 2], read_only: false });
        (storage, store)
    }

    fn write(storage: &mut MemoryStorage, store: StoreId, range: std::ops::Range<usize>) {
        let bytes = storage.truths[0].bytes[range.clone()].to_vec();
        storage.write(store, range.start as u64, &[IoSlice::new(&bytes)]).unwrap();
    }

    #[test]
    fn what_was_written_is_read_and_what_was_not_is_missing() {
        let (mut storage, store) = storage();
        let span = Span { offset: 0, len: 32 * 1024 };
        assert!(storage.read(store, 0, &mut [0; 10]).is_err());
        write(&mut storage, store, 0..5000);
        write(&mut storage, store, 5000..16_384);
        write(&mut storage, store, 16_384..32_768);
        assert!(storage.is_true(store, span) && !storage.is_whole(store) && storage.breaches.is_empty());
        let mut read = vec![0; 32_768];
        storage.read(store, 0, &mut read).unwrap();
        assert!(read == storage.truths[0].bytes[..32_768]);
        assert_eq!(storage.stamp(store, 0).map(|stamp| stamp.len), Some(32_768));
        assert_eq!(storage.stamp(store, 1), None);
    }

    #[test]
    fn a_crash_loses_only_what_was_not_synced() {
        let mut kept = 0;
        for seed in 0..20 {
            let (mut storage, store) = storage();
            write(&mut storage, store, 0..16_384);
            storage.begin_sync(store);
            storage.end_sync(store);
            write(&mut storage, store, 16_384..32_768);
            storage.crash(&mut Rng::from_number(seed));
            let image = &storage.images[0];
            assert!(image.is_true(Span { offset: 0, len: 16_384 }));
            kept += (4..8).filter(|&page| image.pages[page] == Page::True).count();
        }
        assert!((20..60).contains(&kept), "{kept} of 80 unsynced pages are left");
    }

    #[test]
    fn two_writers_and_writes_to_what_is_whole_are_seen() {
        let (mut storage, store) = storage();
        storage.turn = Some(Id::from_bits(1));
        write(&mut storage, store, 0..5000);
        storage.turn = Some(Id::from_bits(2));
        write(&mut storage, store, 0..5000);
        assert!(storage.breaches.pop().is_some_and(|breach| breach.contains("two at once")));
        storage.turn = Some(Id::from_bits(1));
        write(&mut storage, store, 5000..16_384);
        write(&mut storage, store, 16_384..32_768);
        assert_eq!(storage.breaches, [""; 0]);
        write(&mut storage, store, 0..16_384);
        assert!(storage.breaches.pop().is_some_and(|breach| breach.contains("all of it was")));
        storage.note_failure(store);
        write(&mut storage, store, 0..16_384);
        assert_eq!(storage.breaches, [""; 0]);
    }

    #[test]
    fn faults_are_laid_over_what_is_true() {
        let (mut storage, store) = storage();
        storage.fill(store);
        assert!(storage.is_whole(store));
        let mut rng = Rng::from_number(5);
        assert!(storage.flip_bit(&mut rng) && !storage.is_whole(store));
        assert!(storage.is_true(store, Span { offset: 0, len: 100_000 }), "what a fault changed is nobody's claim");
        assert!(storage.spoil(&mut rng));
        assert!(storage.read(store, 0, &mut vec![0; 100_000]).is_err());
        storage.unspoil();
        assert!(storage.read(store, 0, &mut vec![0; 100_000]).is_ok());
        storage.is_full = true;
        assert!(storage.prepare(store, Span { offset: 0, len: 1000 }).is_ok(), "there is room where it was written");
        let content = storage.images[0].content.clone();
        storage.lose_files(&mut rng);
        assert_eq!(storage.stamp(store, 0), None);
        assert!(storage.read(store, 0, &mut [0; 1]).is_ok(), "what is open can be read though it has no name any more");
        storage.close(store);
        let store = storage.open(content.clone());
        assert!(storage.prepare(store, Span { offset: 0, len: 1000 }).is_err());
        assert_eq!(storage.read(store, 0, &mut [0; 1]), Err(gone()));
        storage.put_back();
        assert!(storage.stamp(store, 0).is_some() && storage.read(store, 0, &mut [0; 1]).is_ok());
    }
}
