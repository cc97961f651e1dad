//! One torrent's content on a disk in memory: pages that are as they should be cost nothing, the others are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::base::geometry::Span;
use crate::base::storage::{Content, Fault, FaultKind};
use crate::base::time::Time;
use crate::sim::storage::watch::Watch;

/// What the disk keeps or loses as one, bytes.
pub const PAGE_LEN: usize = 4096;

/// What content should be.
#[derive(Debug)]
pub struct Truth {
    /// The name of its torrent: by it and by its length content finds its truth.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
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
pub(super) enum Page {
    /// Never written: zeros.
    Hole,
    /// As it should be.
    True,
    /// Anything else.
    Other(Box<[u8]>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    pub(super) is_there: bool,
    pub(super) len: u64,
    pub(super) modified: Time,
    pub(super) inode: u64,
}

/// One torrent's content on the disk.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) truth: Arc<Truth>,
    pub(super) content: Content,
    pub(super) pages: Vec<Page>,
    pub(super) files: Vec<FileState>,
    /// How pages were before they were written, since the last sync began; before the sync that is under way.
    pub(super) unsynced: BTreeMap<usize, Page>,
    pub(super) syncing: BTreeMap<usize, Page>,
    /// Pages that a fault changed: what they say is nobody's claim.
    pub(super) flipped: BTreeSet<usize>,
    /// Pages that cannot be read.
    pub(super) unreadable: BTreeSet<usize>,
    /// What is open is not what lies there: somebody took the files away.
    pub(super) is_unlinked: bool,
    /// What lies there, once it is opened anew; what was taken away, until it is put back.
    pub(super) there: Option<(Vec<Page>, Vec<FileState>)>,
    pub(super) away: Option<(Vec<Page>, Vec<FileState>)>,
    /// The disk is not mounted: what lies there is an empty directory.
    pub(super) is_unmounted: bool,
    /// The user has had everything verified since it was, or nothing was: what is missing may be downloaded to where it should be.
    pub(super) is_given_up: bool,
    /// By file: it holds verified pieces, the engine says; empty if none does.
    pub(super) held: Vec<bool>,
    pub(super) watch: Watch,
}

pub(super) fn gone() -> Fault {
    Fault { kind: FaultKind::Gone, message: "a simulated file is missing or too short; put it back".into() }
}

pub(super) fn broken() -> Fault {
    Fault { kind: FaultKind::Io, message: "the simulated disk cannot read this; replace it".into() }
}

pub(super) fn pages_of(offset: u64, len: u64) -> std::ops::Range<usize> {
    let page = |at: u64| usize::try_from(at).expect("simulated content fits memory");
    page(offset) / PAGE_LEN..page(offset + len).div_ceil(PAGE_LEN)
}

impl Image {
    pub(super) fn new(truth: Arc<Truth>, content: Content) -> Self {
        let pages = vec![Page::Hole; truth.bytes.len().div_ceil(PAGE_LEN)];
        let files = vec![FileState::default(); content.files.len()];
        Self {
            watch: Watch::new(truth.bytes.len() as u64, truth.piece_len),
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
            is_unmounted: false,
            is_given_up: false,
            held: Vec::new(),
        }
    }

    /// One of its files is there, at `path` or below.
    pub(super) fn lies_at(&self, path: &Path) -> bool {
        let files = self.files.iter().zip(self.content.files.entries());
        files.into_iter().any(|(file, entry)| file.is_there && self.content.dir.join(entry.path).starts_with(path))
    }

    pub(super) fn is_true(&self, span: Span) -> bool {
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
    pub(super) fn bytes_of(&self, page: usize) -> &[u8] {
        match &self.pages[page] {
            Page::Hole => &ZEROS[..self.truth.page(page).len()],
            Page::True => self.truth.page(page),
            Page::Other(bytes) => bytes,
        }
    }

    pub(super) fn copy(&self, start: usize, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let at = start + done;
            let bytes = &self.bytes_of(at / PAGE_LEN)[at % PAGE_LEN..];
            let count = bytes.len().min(buf.len() - done);
            buf[done..done + count].copy_from_slice(&bytes[..count]);
            done += count;
        }
    }

    /// Whether a file may be written, which is made if it is not there: not if it, or the nearest one, holds verified pieces and is
    /// missing.
    pub(super) fn may_make(&self, index: usize) -> Result<(), Fault> {
        let is_there = |index: usize| self.files[index].is_there && !self.is_unlinked;
        if self.files[index].is_there || self.held.is_empty() {
            return Ok(());
        }
        let held = (0..self.held.len()).filter(|&other| self.held[other]);
        match held.min_by_key(|other| other.abs_diff(index)) {
            Some(witness) if witness == index || !is_there(witness) => Err(gone()),
            _ => Ok(()),
        }
    }

    /// What is written now is written to an empty mount point although something was verified before. Whoever had verified nothing
    /// may begin there: what it verifies then lies there.
    pub(super) fn is_astray(&mut self) -> bool {
        let is_elsewhere = self.is_unmounted && !self.is_unlinked;
        self.is_given_up |= is_elsewhere && !self.watch.claims_any();
        is_elsewhere && !self.is_given_up
    }

    /// The disk goes: what is open can be used on, by whoever does not close it.
    pub(super) fn unmount(&mut self) {
        if self.away.is_some() || self.is_unlinked {
            return;
        }
        (self.is_unmounted, self.is_unlinked, self.is_given_up) = (true, true, false);
        let nothing = FileState { inode: 5000, ..FileState::default() };
        self.there = Some((vec![Page::Hole; self.pages.len()], vec![nothing; self.files.len()]));
    }

    /// The disk is back with everything that was on it.
    pub(super) fn mount(&mut self) {
        if !std::mem::take(&mut self.is_unmounted) {
            return;
        }
        self.there = None;
        self.is_unlinked = false;
        if let Some((pages, files)) = self.away.take() {
            (self.pages, self.files) = (pages, files);
            self.unsynced.clear();
            self.syncing.clear();
            // What the engine has claimed meanwhile it claims of what lay there.
            self.flipped = (0..self.pages.len()).filter(|&page| self.pages[page] != Page::True).collect();
        }
    }

    /// Complete files get their length, and those of no bytes are made.
    pub(super) fn finish(&mut self, finish: &[usize], now: Time) {
        for &index in finish {
            let len = self.content.files.entry(index).span.len;
            if self.files[index].is_there && len > 0 {
                self.files[index].len = self.files[index].len.min(len);
            } else if len == 0 && self.may_make(index).is_ok() {
                self.touch(index, 0, now);
            }
        }
    }

    /// A file is written at its end, or made.
    pub(super) fn touch(&mut self, index: usize, len: u64, now: Time) {
        let file = &mut self.files[index];
        if !file.is_there {
            *file = FileState { is_there: true, len: 0, modified: now, inode: file.inode + 1 };
        }
        if len > file.len {
            (file.len, file.modified) = (len, now);
        }
    }

    /// Whether the files hold `span`, and the disk gives it.
    pub(super) fn may_read(&self, span: Span) -> Result<(), Fault> {
        for (index, offset, part) in self.content.files.parts(span) {
            let file = &self.files[index];
            let is_pad = self.content.files.entry(index).pad;
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

    pub(super) fn write(&mut self, now: Time, offset: u64, bytes: &[u8]) {
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

    pub(super) fn write_page(&mut self, page: usize, at: usize, bytes: &[u8]) {
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

    pub(super) fn vanish(&mut self) {
        self.pages.fill(Page::Hole);
        self.files.iter_mut().for_each(|file| file.is_there = false);
        self.unsynced.clear();
        self.syncing.clear();
        self.flipped.clear();
    }

    /// What was taken away lies there again, as other files than those that were open.
    pub(super) fn come_back(&mut self) {
        if self.is_unmounted {
            return;
        }
        let Some((pages, mut files)) = self.away.take() else { return };
        files.iter_mut().for_each(|file| file.inode += 1000);
        self.there = Some((pages, files));
        if !self.is_unlinked {
            self.open_anew();
        }
    }

    /// What lies there is opened.
    pub(super) fn open_anew(&mut self) {
        if let Some((pages, files)) = self.there.take() {
            let before = (std::mem::replace(&mut self.pages, pages), std::mem::replace(&mut self.files, files));
            if self.is_unmounted {
                self.away = Some(before);
            }
            self.unsynced.clear();
            self.syncing.clear();
            // What the engine claims of them it claims of what was there before.
            self.flipped = (0..self.pages.len()).filter(|&page| self.pages[page] != Page::True).collect();
        }
        self.is_unlinked = false;
    }
}

static ZEROS: [u8; PAGE_LEN] = [0; PAGE_LEN];
