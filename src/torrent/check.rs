//! Hashing what is on the disk: whole re-checks, and pieces whose blocks came out of order.

use crate::base::bitfield::Bitfield;
use crate::base::files::{FileList, TOUCHED_MAX};
use crate::base::geometry::{Geometry, Piece, Span};
use crate::base::hash::{PieceHash, PieceHasher};
use crate::base::ids::StoreId;
use crate::base::lanes::{LANES, PieceLanes, UNIT};
use crate::base::storage::{Fault, FaultKind, Storage};
use crate::base::time::Time;
use crate::torrent::disk::Verdict;
use crate::torrent::path_conflict::SecondStage;
use crate::torrent::torrent::{Ask, Phase, Torrent};

/// Bytes hashed in one slice.
pub(super) const SLICE_LEN: u64 = 256 * 1024;
/// How far ahead of the hashing the disk is asked to read, bytes.
const READ_AHEAD: u64 = 2 * 1024 * 1024;
/// Pieces without any data that one slice may skip.
const SKIP_MAX: u32 = 256;
/// Pieces are hashed side by side if they are together at most as long, bytes.
const TOGETHER_MAX: u64 = 32 * 1024 * 1024;

/// What is being hashed, and how many bytes of each piece are.
#[derive(Debug)]
enum Current {
    Piece(PieceHasher, u64),
    /// As many pieces side by side as there are lanes.
    Lanes(PieceLanes, u64),
}

/// A re-check under way. Pieces are looked at in order; what was held before counts for nothing until it is hashed.
#[derive(Debug)]
pub(crate) struct Check {
    next: u32,
    end: u32,
    /// What is being hashed, from `next` on.
    current: Option<Current>,
    /// Only these are looked at, and what was held before counts; all if none.
    only: Option<Bitfield>,
    /// Before this piece one is hashed at a time.
    alone_until: u32,
    /// How far the disk was asked to read.
    expected: u64,
    /// Pieces that were not as they should be although there was data.
    pub(crate) bad: u32,
}

impl Check {
    pub(crate) fn new(pieces: std::ops::Range<u32>) -> Self {
        Self { next: pieces.start, end: pieces.end, current: None, only: None, alone_until: 0, expected: 0, bad: 0 }
    }

    /// A check of just these pieces.
    pub(crate) fn of(pieces: Bitfield) -> Self {
        let all = 0..pieces.len();
        Self { only: Some(pieces), ..Self::new(all) }
    }

    fn is_of(&self, piece: u32) -> bool {
        self.only.as_ref().is_none_or(|only| only.get(piece))
    }

    /// The share that is done, 0 to 1.
    pub(crate) fn progress(&self) -> f64 {
        if self.end == 0 { 1.0 } else { f64::from(self.next) / f64::from(self.end) }
    }

    /// Whether the next pieces can be hashed side by side: they are whole, and not so long that reading them by turns would
    /// send a disk's head to and fro.
    fn may_go_together(&self, geometry: &Geometry, files: &FileList) -> bool {
        let last = Piece(self.next + u32::try_from(LANES).expect("a few") - 1);
        let len = u64::from(geometry.piece_len());
        self.next >= self.alone_until
            && last.0 < self.end
            && geometry.span_of(last).len == len
            && len.is_multiple_of(UNIT as u64)
            && len * LANES as u64 <= TOGETHER_MAX
            && {
                let all = Span { len: len * LANES as u64, ..geometry.span_of(Piece(self.next)) };
                files.start_of(all, TOUCHED_MAX) == all
            }
    }

    /// Hashes a slice of one piece; its hash once it is whole.
    fn hash_piece<S: Storage>(
        &mut self,
        storage: &mut S,
        store: StoreId,
        (geometry, files): (&Geometry, &FileList),
        (mut hasher, done): (PieceHasher, u64),
        buf: &mut [u8],
    ) -> Result<Vec<PieceHash>, Fault> {
        let span = geometry.span_of(Piece(self.next));
        let slice = Span { offset: span.offset + done, len: SLICE_LEN.min(span.len - done) };
        let len = files.start_of(slice, TOUCHED_MAX).len;
        let slice = &mut buf[..usize::try_from(len).expect("a slice")];
        let ahead = Span { offset: span.offset + done, len: READ_AHEAD.min(geometry.total_len() - span.offset - done) };
        storage.expect(store, ahead);
        match storage.read(store, span.offset + done, slice) {
            Ok(()) => hasher.update(slice),
            Err(fault) if fault.kind == FaultKind::Gone => {
                self.next += 1; // not there: simply missing
                return Ok(Vec::new());
            }
            Err(fault) => return Err(fault),
        }
        if done + len < span.len {
            self.current = Some(Current::Piece(hasher, done + len));
            return Ok(Vec::new());
        }
        Ok(vec![hasher.finish()])
    }

    /// Hashes a slice of pieces side by side; their hashes once they are whole. The disk reads them one after another, and is a
    /// group of pieces ahead.
    fn hash_lanes<S: Storage>(
        &mut self,
        storage: &mut S,
        store: StoreId,
        geometry: &Geometry,
        (mut lanes, done): (PieceLanes, u64),
        buf: &mut [u8],
    ) -> Result<Vec<PieceHash>, Fault> {
        let (start, piece_len) = (geometry.span_of(Piece(self.next)).offset, u64::from(geometry.piece_len()));
        let group_end = start + piece_len * LANES as u64;
        self.expected = self.expected.max(start);
        let ahead = READ_AHEAD
            .min((group_end + piece_len * LANES as u64).min(geometry.total_len()).saturating_sub(self.expected));
        if ahead > 0 {
            storage.expect(store, Span { offset: self.expected, len: ahead });
            self.expected += ahead;
        }
        if self.expected < group_end {
            self.current = Some(Current::Lanes(lanes, done));
            return Ok(Vec::new());
        }
        let len = (SLICE_LEN / LANES as u64).min(piece_len - done);
        let slice_len = usize::try_from(len).expect("a slice");
        for (slice, lane) in buf.chunks_exact_mut(slice_len).zip(0..LANES as u64) {
            match storage.read(store, start + lane * piece_len + done, slice) {
                Ok(()) => {}
                Err(fault) if fault.kind == FaultKind::Gone => {
                    // Which of them is not there is seen one at a time.
                    self.alone_until = self.next + u32::try_from(LANES).expect("a few");
                    return Ok(Vec::new());
                }
                Err(fault) => return Err(fault),
            }
        }
        lanes.update(std::array::from_fn(|lane| &buf[lane * slice_len..][..slice_len]));
        if done + len < piece_len {
            self.current = Some(Current::Lanes(lanes, done + len));
            return Ok(Vec::new());
        }
        Ok(lanes.finish().to_vec())
    }
}

impl Torrent {
    /// The user has all content hashed again. Nothing is claimed of it any more until it is hashed: a file that is not there is simply
    /// to be downloaded.
    pub fn verify(&mut self, now: Time) {
        // A second torrent that waits is hashed anyway before it goes on.
        let waits = self.second_stage() == Some(SecondStage::Waits);
        if self.is_link() || waits || self.postpone_check(now, true) {
            return;
        }
        self.expected = None;
        if self.check.is_some() {
            return self.persistence.touch(now);
        }
        if self.fault.as_ref().is_some_and(|fault| fault.kind != FaultKind::Full) {
            self.forget_fault();
        }
        self.claim = None;
        self.have.clear_all();
        self.claim_nothing();
        self.persistence.allocated = false;
        self.turn_changed = true;
        self.recheck(now);
    }

    /// All content is hashed again although nobody asked for it. A file of which something was verified, and which is gone, is missing.
    pub(crate) fn recheck(&mut self, now: Time) {
        let waits = self.second_stage() == Some(SecondStage::Waits);
        if self.check.is_some() || self.is_link() || waits || self.postpone_check(now, false) {
            return;
        }
        let is_away = self.fault.as_ref().is_some_and(|fault| fault.kind != FaultKind::Full);
        if is_away || self.rouse() {
            self.recheck = true;
            return;
        }
        let durable = self.durable();
        if durable.count() > 0 {
            match &mut self.expected {
                Some(expected) => expected.add_all(&durable),
                None => self.expected = Some(durable),
            }
        }
        self.begin_check();
        self.reconsider(now);
        // What is open may not be what lies there any more.
        self.asks.push_back(Ask::Reopen);
        self.asks.push_back(Ask::Work);
    }

    pub(crate) fn begin_check(&mut self) {
        // Stamps are taken before anything is read, so that what changes meanwhile is found by the next run.
        self.recheck = false;
        self.claim = None;
        self.disk.doubt_all();
        self.have.clear_all();
        self.claim_nothing();
        self.restored.clear();
        self.forget_empty_files();
        self.phase = Phase::Checking;
        self.check = Some(Box::new(Check::new(self.all_pieces())));
    }

    /// The first file of a piece that was verified before this recheck, and is missing.
    fn missing_file_of<S: Storage>(&self, storage: &mut S, store: StoreId, piece: u32) -> Option<(usize, Fault)> {
        self.expected.as_ref()?;
        let mut files = self.files_of(self.piece_span(Piece(piece))).into_iter();
        files.find_map(|file| Some((file, self.missing_fault(storage, store, file)?)))
    }

    /// Why the file at index `file` does not hold what was verified of it: it is not there, too short, or cannot be read. `None` if it
    /// may hold that.
    pub fn missing_fault<S: Storage>(&self, storage: &mut S, store: StoreId, file: usize) -> Option<Fault> {
        let needed = self.held_until(file);
        if needed == 0 {
            return None;
        }
        storage.trouble(store, file).or_else(|| {
            let is_short = storage.stamp(store, file).is_some_and(|stamp| stamp.len < needed);
            is_short.then(|| {
                let path = self.dir.join(self.file(file).path);
                let advice = "it is shorter than it was; put it back, or `verify` to download it again";
                Fault { kind: FaultKind::Gone, message: format!("missing: {}; {advice}", path.display()) }
            })
        })
    }

    /// The share of a check that is done, 0 to 1; none if none is under way.
    #[must_use]
    pub fn check_progress(&self) -> Option<f64> {
        self.check.as_ref().map(|check| check.progress())
    }

    /// Hashes one slice; true while more waits. `buf` holds at least `SLICE_LEN` bytes.
    pub fn work<S: Storage>(&mut self, now: Time, storage: &mut S, buf: &mut [u8]) -> bool {
        if self.check.is_some() {
            self.check_slice(now, storage, buf);
        } else {
            self.finish_slice(now, storage, buf);
        }
        self.check.is_some()
            || self.download.as_ref().is_some_and(|download| download.partials.next_unread(1).is_some())
    }

    fn check_slice<S: Storage>(&mut self, now: Time, storage: &mut S, buf: &mut [u8]) {
        let (Some(check), Some(store)) = (self.check.as_mut(), self.store) else { return };
        let geometry = self.head.geometry;
        let has_data = |storage: &mut S, piece| storage.has_data(store, geometry.span_of(Piece(piece)));
        let mut tries = 0..SKIP_MAX;
        let mut looked = None;
        while check.current.is_none() && check.next < check.end && tries.next().is_some() {
            if !check.is_of(check.next) {
                check.next += 1;
                continue;
            }
            if !has_data(storage, check.next) {
                looked = Some(check.next).filter(|piece| self.expected.as_ref().is_some_and(|have| have.get(*piece)));
                check.next += 1;
                if looked.is_some() {
                    break;
                }
                continue;
            }
            let lanes = check.next..check.next + u32::try_from(LANES).expect("a few");
            check.current = Some(
                if check.may_go_together(&geometry, self.layout.files())
                    && lanes.clone().all(|piece| check.is_of(piece) && has_data(storage, piece))
                {
                    Current::Lanes(PieceLanes::new(self.body.get().pieces.kind()), 0)
                } else {
                    Current::Piece(self.body.get().pieces.kind().hasher(), 0)
                },
            );
        }
        if let Some(piece) = looked {
            return self.look_for_piece(now, storage, store, piece);
        }
        let before = check.next;
        let result = match check.current.take() {
            None if check.next < check.end => return,
            None => return self.finish_check(now),
            Some(Current::Piece(hasher, done)) => {
                check.hash_piece(storage, store, (&geometry, self.layout.files()), (hasher, done), buf)
            }
            Some(Current::Lanes(lanes, done)) => check.hash_lanes(storage, store, &geometry, (lanes, done), buf),
        };
        match result {
            // It was read in vain, and is passed over.
            Ok(hashes) if hashes.is_empty() && check.current.is_none() && check.next > before => {
                self.look_for_piece(now, storage, store, before);
            }
            Ok(hashes) => {
                let count = self.have.count();
                for hash in hashes {
                    let piece = Piece(check.next);
                    check.next += 1;
                    self.checked += 1;
                    if self.body.get().pieces.get(piece.index()) == Some(hash) {
                        self.have.set(piece.0);
                    } else {
                        check.bad += 1;
                    }
                }
                if self.have.count() > count {
                    self.content_changed(now);
                }
            }
            Err(fault) => self.fail(now, fault),
        }
    }

    /// A piece was not there. In a recheck that nobody asked for its file may be missing, and so the check ends.
    fn look_for_piece<S: Storage>(&mut self, now: Time, storage: &mut S, store: StoreId, piece: u32) {
        if let Some((file, fault)) = self.missing_file_of(storage, store, piece) {
            self.handle_examined(now, Verdict::Missing(file, fault), Ok(()));
        }
    }

    fn finish_check(&mut self, now: Time) {
        let Some(check) = self.check.take() else { return };
        self.phase = Phase::Ready;
        self.expected = None;
        self.asks.push_back(Ask::HoldAll);
        log::info!(
            "{}: checked, {} of {} pieces are here{}",
            self.display_name(),
            self.have.count(),
            self.have.len(),
            if check.bad > 0 { format!(", {} are not as they should be", check.bad) } else { String::new() }
        );
        if self.is_finished() && self.finished.is_none() {
            self.finished = Some(self.epoch_secs + now.as_secs());
        }
        self.note_complete();
        self.content_changed(now);
        self.decide_second(now);
        self.spare_kept_data(now);
        // Until a sync secures what was found, a crash costs the whole check.
        self.persistence.hurry(now);
        self.apply_policy(now);
        self.turn_changed = true;
        self.reconsider(now);
    }

    /// Reads back one slice of a full piece whose blocks came out of order.
    fn finish_slice<S: Storage>(&mut self, now: Time, storage: &mut S, buf: &mut [u8]) {
        let (Some(download), Some(store)) = (self.download.as_mut(), self.store) else { return };
        let Some((piece, offset, len)) = download.partials.next_unread(u32::try_from(SLICE_LEN).expect("a slice"))
        else {
            return;
        };
        let start = self.head.geometry.span_of(piece).offset + u64::from(offset);
        let part = self.layout.files().start_of(Span { offset: start, len: u64::from(len) }, TOUCHED_MAX);
        let slice = &mut buf[..usize::try_from(part.len).expect("a slice")];
        match storage.read(store, start, slice) {
            Ok(()) => {
                download.partials.handle_read(piece, slice);
                if let Some(hash) = download.partials.hash(piece) {
                    self.judge(now, piece, hash);
                }
            }
            // Some of its blocks were lost before they came to the disk; they are fetched again. A file that is missing stops it all.
            Err(fault) if fault.kind == FaultKind::Gone => {
                download.partials.take(piece);
                download.picker.returned(piece);
                self.asks.push_back(Ask::Look);
                self.reconsider_peers();
            }
            Err(fault) => self.fail(now, fault),
        }
    }
}
