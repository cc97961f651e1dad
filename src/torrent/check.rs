//! Hashing what is on the disk: whole re-checks, and pieces whose blocks came out of order.

use crate::base::geometry::{Piece, Span};
use crate::base::hash::PieceHasher;
use crate::base::storage::{FaultKind, Storage};
use crate::base::time::Time;
use crate::torrent::torrent::{Ask, Phase, Torrent};

/// Bytes hashed in one slice.
pub(super) const SLICE_LEN: u64 = 256 * 1024;
/// How far ahead of the hashing the disk is asked to read, bytes.
const READ_AHEAD: u64 = 2 * 1024 * 1024;
/// Pieces without any data that one slice may skip.
const SKIP_MAX: u32 = 256;

/// A re-check under way. Pieces are looked at in order; what was held before counts for nothing until it is hashed.
#[derive(Debug)]
pub(crate) struct Check {
    next: u32,
    end: u32,
    /// The piece being hashed and how far.
    current: Option<(Piece, PieceHasher, u64)>,
    /// Pieces that were not as they should be although there was data.
    pub(crate) bad: u32,
}

impl Check {
    pub(crate) fn new(pieces: std::ops::Range<u32>) -> Self {
        Self { next: pieces.start, end: pieces.end, current: None, bad: 0 }
    }

    /// The share that is done, 0 to 1.
    pub(crate) fn progress(&self) -> f64 {
        if self.end == 0 { 1.0 } else { f64::from(self.next) / f64::from(self.end) }
    }
}

impl Torrent {
    /// Hashes all content again. What it holds is claimed again piece by piece.
    pub fn verify(&mut self, now: Time) {
        if self.check.is_some() || self.postpone_check() {
            return;
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
        self.disk.doubt_all();
        self.have.clear_all();
        self.claim_nothing();
        self.restored.clear();
        self.phase = Phase::Checking;
        self.check = Some(Box::new(Check::new(self.all_pieces())));
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
        let geometry = self.meta.geometry;
        if check.current.is_none() {
            for _ in 0..SKIP_MAX {
                if check.next == check.end {
                    break;
                }
                let piece = Piece(check.next);
                if storage.has_data(store, geometry.span_of(piece)) {
                    let hash = self.meta.pieces.get(piece.index()).expect("every piece has a hash");
                    check.current = Some((piece, hash.hasher(), 0));
                    break;
                }
                check.next += 1;
            }
        }
        let Some((piece, mut hasher, done)) = check.current.take() else {
            if check.next == check.end {
                self.finish_check(now);
            }
            return;
        };
        let span = geometry.span_of(piece);
        let len = SLICE_LEN.min(span.len - done);
        let slice = &mut buf[..usize::try_from(len).expect("a slice")];
        let ahead = Span { offset: span.offset + done, len: READ_AHEAD.min(geometry.total_len() - span.offset - done) };
        storage.expect(store, ahead);
        match storage.read(store, span.offset + done, slice) {
            Ok(()) => {
                hasher.update(slice);
                if done + len < span.len {
                    check.current = Some((piece, hasher, done + len));
                    return;
                }
                check.next += 1;
                if self.meta.pieces.get(piece.index()) == Some(hasher.finish()) {
                    self.content_changed(now);
                    self.have.set(piece.0);
                } else {
                    check.bad += 1;
                }
            }
            Err(fault) if fault.kind == FaultKind::Gone => check.next += 1, // not there: simply missing
            Err(fault) => self.fail(now, fault),
        }
    }

    fn finish_check(&mut self, now: Time) {
        let Some(check) = self.check.take() else { return };
        self.phase = Phase::Ready;
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
        self.content_changed(now);
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
        let start = self.meta.geometry.span_of(piece).offset + u64::from(offset);
        let slice = &mut buf[..len as usize];
        match storage.read(store, start, slice) {
            Ok(()) => {
                download.partials.handle_read(piece, slice);
                if let Some(hash) = download.partials.hash(piece) {
                    self.judge(now, piece, hash);
                }
            }
            Err(fault) => self.fail(now, fault),
        }
    }
}
