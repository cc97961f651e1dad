//! The files of a piece that is about to be begun, or that was verified: room is made in them, and they are noted as holding
//! something. A piece may lie in a million files, so that is done for some of them at a time.

use std::collections::VecDeque;

use crate::base::files::TOUCH_STEPS;
use crate::base::geometry::{Piece, Span};
use crate::base::ids::{ConnId, TorrentId};
use crate::base::steps;
use crate::base::storage::Storage;
use crate::base::time::Time;
use crate::engine::Engine;

/// Files of a piece that are gone through at once; of more files they wait for their turn.
const AT_ONCE_MAX: usize = 4;

/// Pieces whose files wait for their turn. There are no more than pieces in progress, and those that were verified since.
pub(super) type PieceFiles = VecDeque<Touch>;

/// What is done with the files of a piece.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Room is made, for this peer's sake.
    Prepare(ConnId),
    /// They hold something verified.
    Hold,
}

/// A piece, and how far its files are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Touch {
    id: TorrentId,
    piece: Piece,
    purpose: Purpose,
    /// Bytes from the piece's beginning that lie in files that are done.
    done: u64,
}

impl<S: Storage> Engine<S> {
    /// Goes through the files of a piece: at once if they are few, as of most pieces.
    pub(super) fn touch_files(&mut self, now: Time, id: TorrentId, piece: Piece, purpose: Purpose) {
        let touch = Touch { id, piece, purpose, done: 0 };
        let torrent = self.torrents.get(id).expect("the asker is there");
        if torrent.shared_files().parts(torrent.piece_span(piece)).nth(AT_ONCE_MAX).is_some() {
            self.piece_files.push_back(touch);
        } else {
            self.touch_some(now, touch);
        }
    }

    /// Goes through some files of the piece whose turn it is.
    pub(super) fn work_on_piece_files(&mut self, now: Time) {
        if let Some(touch) = self.piece_files.pop_front() {
            self.touched.push(touch.id);
            let touch = self.touch_some(now, touch);
            self.piece_files.extend(touch);
            self.settle(now);
        }
    }

    /// Goes through some files of a piece. Returns what is left of it.
    fn touch_some(&mut self, now: Time, mut touch: Touch) -> Option<Touch> {
        let torrent = self.torrents.get_mut(touch.id).filter(|torrent| !torrent.is_asleep())?;
        let store = torrent.store()?;
        let span = torrent.piece_span(touch.piece);
        let part = torrent.start_of(Span { offset: span.offset + touch.done, len: span.len - touch.done });
        steps::add(torrent.more_files_in(part) * TOUCH_STEPS);
        touch.done += part.len;
        match touch.purpose {
            Purpose::Prepare(conn) => {
                if !torrent.is_about_to_begin(touch.piece) {
                    return None;
                }
                let result = self.storage.prepare(store, part);
                torrent.note_prepared(now, part, result.is_ok());
                if result.is_err() || touch.done == span.len {
                    torrent.handle_prepared(now, touch.piece, conn, result);
                    return None;
                }
            }
            Purpose::Hold => {
                for file in torrent.files_of(part) {
                    self.storage.hold(store, file);
                    if torrent.is_file_to_cut(file) {
                        self.storage.cut(store, file);
                    }
                }
            }
        }
        (touch.done < span.len).then_some(touch)
    }
}
