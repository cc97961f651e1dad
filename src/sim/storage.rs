//! A disk in memory: pages that are as they should be cost nothing, the others are kept; faults are laid over them.
//!
//! It also watches: what is written where by whom, what is served, what is lost in a crash. What breaks a rule is a breach,
//! kept until the checks fetch it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::arena::Arena;
use crate::base::bitfield::Bitfield;
use crate::base::geometry::{BLOCK_LEN, Span};
use crate::base::ids::{ConnId, StoreId, StoreKey};
use crate::base::rng::Rng;
use crate::base::storage::{Chunk, Content, Fault, FaultKind, SendError, Stamp, Storage};
use crate::base::time::Time;
use crate::sim::stream::SimStream;
use crate::torrent::partial::LANDING_STALL;

/// What the disk keeps or loses as one, bytes.
pub const PAGE_LEN: usize = 4096;

/// What content should be.
#[derive(Debug)]
pub struct Truth {
    /// The name of its torrent: by it and by its length content finds its truth.
    name: String,
    bytes: Vec<u8>,
    /// Bytes of a piece, for those who watch.
    piece_len: u64,
}

impl Truth {
    /// The truth about the torrent `name`, whose pieces have `piece_len` bytes.
    #[must_use]
    pub fn new(name: String, bytes: Vec<u8>, piece_len: u32) -> Self {
        Self { name, bytes, piece_len: u64::from(piece_len) }
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn page(&self, page: usize) -> &[u8] {
        &self.bytes[page * PAGE_LEN..self.bytes.len().min((page + 1) * PAGE_LEN)]
    }
}

/// A page of content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Page {
    /// Never written: zeros.
    Hole,
    /// As it should be.
    True,
    /// Anything else.
    Other(Box<[u8]>),
}

#[derive(Debug, Clone, Default)]
struct FileState {
    is_there: bool,
    len: u64,
    modified: Time,
    inode: u64,
}

/// Who writes a block, and how far it is; nobody if whoever did is gone.
#[derive(Debug, Clone, Copy)]
struct Writing {
    by: Option<ConnId>,
    until: u64,
    at: Time,
}

/// One torrent's content on the disk.
#[derive(Debug)]
struct Image {
    truth: Arc<Truth>,
    content: Content,
    pages: Vec<Page>,
    files: Vec<FileState>,
    /// How pages were before they were written, since the last sync began; before the sync that is under way.
    unsynced: BTreeMap<usize, Page>,
    syncing: BTreeMap<usize, Page>,
    /// Pages that a fault changed: what they say is nobody's claim.
    flipped: BTreeSet<usize>,
    /// Pages that cannot be read.
    unreadable: BTreeSet<usize>,
    /// What is open is not what lies there: somebody took the files away.
    is_unlinked: bool,
    /// What lies there, once it is opened anew; what was taken away, until it is put back.
    there: Option<(Vec<Page>, Vec<FileState>)>,
    away: Option<(Vec<Page>, Vec<FileState>)>,
    /// The pieces that the engine says it has.
    claimed: Option<Bitfield>,
    /// By block of the content: what is being written.
    writing: BTreeMap<u32, Writing>,
    /// Blocks all of which was written since the content was opened, or since a piece was wrong.
    written: Bitfield,
}

/// A share of blocks is sent with a wrong byte.
#[derive(Debug)]
struct Lies {
    share: f64,
    rng: Rng,
}

/// The disk of one node.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    truths: Vec<Arc<Truth>>,
    images: Vec<Image>,
    stores: Arena<StoreKey, usize>,
    /// Whose turn it is, and when.
    pub(crate) turn: Option<ConnId>,
    pub(crate) now: Time,
    /// No room for anything new.
    pub(crate) is_full: bool,
    /// Bytes there are; no limit if none.
    pub(crate) capacity: Option<u64>,
    lies: Option<Lies>,
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
            image.claimed = Some(have.clone());
        }
    }

    /// A piece was wrong: what was written whole may be written again.
    pub(crate) fn note_failure(&mut self, store: StoreId) {
        if let Some(image) = self.image_mut(store) {
            image.written.clear_all();
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
        let (now, room) = (self.now, self.room());
        let Some(image) = self.image_mut(store) else { return Ok(()) };
        let missing: u64 = image.pages.iter().map(|page| u64::from(*page == Page::Hole) * PAGE_LEN as u64).sum();
        if missing > room {
            return Err(full());
        }
        for index in 0..image.files.len() {
            let entry = &image.content.files.entries()[index];
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
        self.images.iter_mut().for_each(Image::forget_writers);
    }

    /// A connection is gone: whoever it wrote for may be taken over.
    pub(crate) fn forget_writer(&mut self, conn: ConnId) {
        for image in &mut self.images {
            for writing in image.writing.values_mut().filter(|writing| writing.by == Some(conn)) {
                writing.by = None;
            }
        }
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

    fn image(&self, store: StoreId) -> Option<&Image> {
        self.stores.get(store).map(|&index| &self.images[index])
    }

    fn image_mut(&mut self, store: StoreId) -> Option<&mut Image> {
        self.stores.get(store).map(|&index| &mut self.images[index])
    }
}

fn full() -> Fault {
    Fault { kind: FaultKind::Full, message: "there is no room on the simulated disk; make some".into() }
}

fn gone() -> Fault {
    Fault { kind: FaultKind::Gone, message: "a simulated file is missing or too short; put it back".into() }
}

fn broken() -> Fault {
    Fault { kind: FaultKind::Io, message: "the simulated disk cannot read this; replace it".into() }
}

fn pages_of(offset: u64, len: u64) -> std::ops::Range<usize> {
    let page = |at: u64| usize::try_from(at).expect("simulated content fits memory");
    page(offset) / PAGE_LEN..page(offset + len).div_ceil(PAGE_LEN)
}

impl Image {
    fn new(truth: Arc<Truth>, content: Content) -> Self {
        let pages = vec![Page::Hole; truth.bytes.len().div_ceil(PAGE_LEN)];
        let files = vec![FileState::default(); content.files.len()];
        let blocks = truth.bytes.len().div_ceil(BLOCK_LEN as usize);
        let written = Bitfield::new(u32::try_from(blocks).expect("simulated content fits memory"));
        Self {
            truth,
            content,
            pages,
            files,
            unsynced: BTreeMap::new(),
            syncing: BTreeMap::new(),
            flipped: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            is_unlinked: false,
            there: None,
            away: None,
            claimed: None,
            writing: BTreeMap::new(),
            written,
        }
    }

    /// It is closed: nobody writes, and nothing is claimed.
    fn forget_writers(&mut self) {
        self.claimed = None;
        self.writing.clear();
        self.written.clear_all();
    }

    fn is_true(&self, span: Span) -> bool {
        pages_of(span.offset, span.len).all(|page| match &self.pages[page] {
            Page::True => true,
            _ if self.flipped.contains(&page) => true,
            // A page that two pieces share may be true on one side only.
            _ => {
                let start = (page * PAGE_LEN).max(usize::try_from(span.offset).expect("in memory"));
                let end = ((page + 1) * PAGE_LEN).min(usize::try_from(span.end()).expect("in memory"));
                let mut bytes = vec![0; end - start];
                self.copy(start, &mut bytes);
                bytes == self.truth.bytes[start..end]
            }
        })
    }

    /// The bytes of a page as they are.
    fn bytes_of(&self, page: usize) -> &[u8] {
        match &self.pages[page] {
            Page::Hole => &ZEROS[..self.truth.page(page).len()],
            Page::True => self.truth.page(page),
            Page::Other(bytes) => bytes,
        }
    }

    fn copy(&self, start: usize, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let at = start + done;
            let bytes = &self.bytes_of(at / PAGE_LEN)[at % PAGE_LEN..];
            let count = bytes.len().min(buf.len() - done);
            buf[done..done + count].copy_from_slice(&bytes[..count]);
            done += count;
        }
    }

    /// A file is written at its end, or made.
    fn touch(&mut self, index: usize, len: u64, now: Time) {
        let file = &mut self.files[index];
        if !file.is_there {
            *file = FileState { is_there: true, len: 0, modified: now, inode: file.inode + 1 };
        }
        if len > file.len {
            (file.len, file.modified) = (len, now);
        }
    }

    /// Whether the files hold `span`, and the disk gives it.
    fn may_read(&self, span: Span) -> Result<(), Fault> {
        for (index, offset, part) in self.content.files.parts(span) {
            let file = &self.files[index];
            let is_pad = self.content.files.entries()[index].pad;
            if !is_pad && (!file.is_there || file.len < offset + part.len) {
                return Err(gone());
            }
        }
        let mut pages = pages_of(span.offset, span.len);
        if !self.unreadable.is_empty() && pages.any(|page| self.unreadable.contains(&page)) {
            return Err(broken());
        }
        Ok(())
    }

    fn write(&mut self, now: Time, offset: u64, bytes: &[u8]) {
        let span = Span { offset, len: bytes.len() as u64 };
        let parts: Vec<_> = self.content.files.parts(span).map(|(index, at, part)| (index, at + part.len)).collect();
        for (index, len) in parts {
            self.touch(index, len, now);
            self.files[index].modified = now;
        }
        let start = usize::try_from(offset).expect("simulated content fits memory");
        for page in pages_of(offset, span.len) {
            let (from, to) = ((page * PAGE_LEN).max(start), ((page + 1) * PAGE_LEN).min(start + bytes.len()));
            self.write_page(page, from % PAGE_LEN, &bytes[from - start..to - start]);
        }
    }

    fn write_page(&mut self, page: usize, at: usize, bytes: &[u8]) {
        let truth = self.truth.page(page);
        let is_true = truth[at..at + bytes.len()] == *bytes;
        let is_whole = bytes.len() == truth.len();
        let changed = match &mut self.pages[page] {
            Page::True if is_true => return, // the same again
            _ if is_whole && is_true => Page::True,
            Page::Other(old) => {
                self.unsynced.entry(page).or_insert_with(|| Page::Other(old.clone()));
                old[at..at + bytes.len()].copy_from_slice(bytes);
                if **old != *truth {
                    return;
                }
                Page::True
            }
            Page::Hole | Page::True => {
                let mut old = self.bytes_of(page).to_vec();
                old[at..at + bytes.len()].copy_from_slice(bytes);
                Page::Other(old.into())
            }
        };
        let before = std::mem::replace(&mut self.pages[page], changed);
        self.unsynced.entry(page).or_insert(before);
        if self.pages[page] == Page::True {
            self.flipped.remove(&page);
        }
    }

    fn vanish(&mut self) {
        self.pages.fill(Page::Hole);
        self.files.iter_mut().for_each(|file| file.is_there = false);
        self.unsynced.clear();
        self.syncing.clear();
        self.flipped.clear();
    }

    /// What was taken away lies there again, as other files than those that were open.
    fn come_back(&mut self) {
        let Some((pages, mut files)) = self.away.take() else { return };
        files.iter_mut().for_each(|file| file.inode += 1000);
        self.there = Some((pages, files));
        if !self.is_unlinked {
            self.open_anew();
        }
    }

    /// What lies there is opened.
    fn open_anew(&mut self) {
        if let Some((pages, files)) = self.there.take() {
            (self.pages, self.files) = (pages, files);
            self.unsynced.clear();
            self.syncing.clear();
            // What the engine claims of them it claims of what was there before.
            self.flipped = (0..self.pages.len()).filter(|&page| self.pages[page] != Page::True).collect();
        }
        self.is_unlinked = false;
    }

    /// Watches who writes what: a block has one writer, and what is whole is written no more.
    fn watch(&mut self, now: Time, by: Option<ConnId>, offset: u64, len: u64) -> Result<(), String> {
        let mut at = offset;
        while at < offset + len {
            let block = u32::try_from(at / u64::from(BLOCK_LEN)).expect("simulated content fits memory");
            let start = u64::from(block) * u64::from(BLOCK_LEN);
            let whole = (start + u64::from(BLOCK_LEN)).min(self.truth.bytes.len() as u64);
            let end = whole.min(offset + len);
            let piece = at / self.truth.piece_len;
            if self.claimed.as_ref().is_some_and(|claimed| claimed.get(u32::try_from(piece).expect("a piece"))) {
                return Err(format!("block {block} is written although piece {piece} is claimed"));
            }
            if self.written.get(block) {
                return Err(format!("block {block} is written although all of it was"));
            }
            let before = self.writing.get(&block).copied().unwrap_or(Writing { by, until: start, at: now });
            let is_taken_over = before.by != by;
            if is_taken_over && before.by.is_some() && now.since(before.at) < LANDING_STALL {
                return Err(format!("block {block} is written by two at once: {:?} and {by:?}", before.by));
            }
            let until = if is_taken_over { start } else { before.until };
            if at != until && at != start {
                return Err(format!("block {block} is written at {at}, not at {until}"));
            }
            if end == whole {
                self.written.set(block);
                self.writing.remove(&block);
            } else {
                self.writing.insert(block, Writing { by, until: end, at: now });
            }
            at = end;
        }
        Ok(())
    }
}

static ZEROS: [u8; PAGE_LEN] = [0; PAGE_LEN];

impl Storage for MemoryStorage {
    type Stream = SimStream;

    fn open(&mut self, content: Content) -> StoreId {
        let len = content.files.total_len();
        let first = content.files.entries().first().map(|entry| entry.path.clone()).unwrap_or_default();
        let truth = self.truths.iter().find(|truth| truth.bytes.len() as u64 == len && first.starts_with(&truth.name));
        let truth = Arc::clone(truth.expect("the truth is known before its torrent is added"));
        let known = self.images.iter().position(|image| Arc::ptr_eq(&image.truth, &truth));
        let index = known.unwrap_or(self.images.len());
        if known.is_none() {
            self.images.push(Image::new(truth, content));
        } else {
            self.images[index].content = content;
            self.images[index].writing.clear();
            self.images[index].written.clear_all();
            self.images[index].open_anew();
        }
        self.stores.insert(index)
    }

    fn close(&mut self, store: StoreId) {
        self.stores.remove(store);
    }

    fn set_wanted(&mut self, store: StoreId, wanted: &[bool]) {
        if let Some(image) = self.image_mut(store) {
            image.content.wanted = wanted.to_vec();
        }
    }

    fn prepare(&mut self, store: StoreId, span: Span) -> Result<(), Fault> {
        let (room, now) = (self.room(), self.now);
        let image = self.image_mut(store).ok_or_else(gone)?;
        let holes = pages_of(span.offset, span.len).filter(|&page| image.pages[page] == Page::Hole).count();
        if (holes * PAGE_LEN) as u64 > room {
            return Err(full());
        }
        let parts: Vec<usize> = image.content.files.parts(span).map(|(index, _, _)| index).collect();
        parts.into_iter().for_each(|index| image.touch(index, 0, now));
        Ok(())
    }

    fn write(&mut self, store: StoreId, offset: u64, bytes: &[IoSlice<'_>]) -> Result<(), Fault> {
        let (now, by, room) = (self.now, self.turn, self.room());
        let image = self.image_mut(store).ok_or_else(gone)?;
        let len = bytes.iter().map(|slice| slice.len() as u64).sum();
        if room == 0 && pages_of(offset, len).any(|page| image.pages[page] == Page::Hole) {
            return Err(full());
        }
        let watched = image.watch(now, by, offset, len);
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

    fn stamp(&mut self, store: StoreId, file: usize) -> Option<Stamp> {
        let image = self.image(store)?;
        if image.content.files.entries().get(file)?.pad {
            return Some(Stamp::default());
        }
        let state = image.files.get(file).filter(|state| state.is_there && !image.is_unlinked)?;
        let modified_nanos = i64::try_from(state.modified.as_nanos()).unwrap_or(i64::MAX);
        Some(Stamp { len: state.len, modified_nanos, inode: state.inode })
    }
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
        let store = storage.open(Content { dir: "d".into(), files, wanted: vec![true; 2] });
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
