//! Which pieces are wanted, and how much: the files of a torrent, their priorities, and what that means for pieces.
//!
//! Without any priority set (the usual torrent) it costs nothing a piece and nothing a file.

use std::sync::Arc;

use crate::base::bitfield::Bitfield;
use crate::base::files::FileList;
use crate::base::geometry::{Geometry, Piece, Span};
use crate::base::steps;
use crate::torrent::snapshot::Priority;

/// Files, their priorities, and the pieces they lie in.
#[derive(Debug, Clone)]
pub struct Layout {
    /// None while the torrent sleeps: all are `Normal` then.
    files: Option<Arc<FileList>>,
    geometry: Geometry,
    /// By file; none while all are `Normal`.
    priorities: Option<Box<[Priority]>>,
    /// By piece: the greatest priority of the files it touches; none while all are `Normal`.
    pieces: Option<Box<[Priority]>>,
    /// The pieces that are wanted; none while all are.
    wanted: Option<Bitfield>,
    wanted_bytes: u64,
}

impl Layout {
    /// All files `Normal`.
    #[must_use]
    pub fn new(files: Arc<FileList>, geometry: Geometry) -> Self {
        Self { files: Some(files), ..Self::asleep(geometry) }
    }

    /// All files `Normal`, and not known while the torrent sleeps.
    #[must_use]
    pub const fn asleep(geometry: Geometry) -> Self {
        let wanted_bytes = geometry.total_len();
        Self { files: None, geometry, priorities: None, pieces: None, wanted: None, wanted_bytes }
    }

    /// The files.
    ///
    /// # Panics
    /// If the torrent sleeps.
    #[must_use]
    pub fn files(&self) -> &FileList {
        self.files.as_ref().expect("whoever needs its files wakes it first")
    }

    /// They have other names, and nothing else has changed.
    pub fn set_files(&mut self, files: Arc<FileList>) {
        self.files = Some(files);
    }

    /// The files, to share.
    ///
    /// # Panics
    /// While the torrent sleeps.
    #[must_use]
    pub fn shared_files(&self) -> Arc<FileList> {
        Arc::clone(self.files.as_ref().expect("whoever needs its files wakes it first"))
    }

    /// How the content is divided.
    #[must_use]
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// How much the file at index `file` is wanted.
    #[must_use]
    pub fn priority(&self, file: usize) -> Priority {
        self.priorities.as_ref().map_or(Priority::Normal, |priorities| priorities[file])
    }

    /// By file, how much it is wanted; empty while all are `Normal`.
    #[must_use]
    pub fn priorities(&self) -> &[Priority] {
        self.priorities.as_deref().unwrap_or_default()
    }

    /// Changes how much files are wanted: pairs of an index and a priority.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn set_priorities(&mut self, changes: impl IntoIterator<Item = (usize, Priority)>) {
        let mut priorities =
            self.priorities.take().unwrap_or_else(|| vec![Priority::Normal; self.files().len()].into_boxed_slice());
        for (file, priority) in changes {
            priorities[file] = priority;
        }
        if priorities.iter().all(|&priority| priority == Priority::Normal) {
            self.pieces = None;
            self.wanted = None;
        } else {
            self.priorities = Some(priorities);
            self.place();
        }
        self.wanted_bytes = self.count_wanted_bytes();
    }

    /// Derives the priorities of pieces from those of files. Pad files want nothing by themselves.
    fn place(&mut self) {
        let mut pieces = vec![Priority::Off; self.geometry.pieces() as usize].into_boxed_slice();
        let files = self.files.as_ref().expect("whoever needs its files wakes it first");
        for (file, entry) in files.entries().enumerate().filter(|(_, entry)| !entry.pad) {
            let priority = self.priority(file);
            for piece in self.geometry.pieces_of(entry.span) {
                let of_piece = &mut pieces[piece as usize];
                *of_piece = priority.max(*of_piece);
            }
        }
        let mut wanted = Bitfield::new(self.geometry.pieces());
        for (priority, piece) in pieces.iter().zip(0..) {
            if *priority != Priority::Off {
                wanted.set(piece);
            }
        }
        self.wanted = Some(wanted);
        self.pieces = Some(pieces);
    }

    fn count_wanted_bytes(&self) -> u64 {
        let wanted = self.files().entries().enumerate().filter(|&(file, _)| self.is_wanted_file(file));
        wanted.map(|(_, entry)| entry.span.len).sum()
    }

    /// True for a file that is to be had: wanted, and no pad file unless everything is wanted anyway.
    fn is_wanted_file(&self, file: usize) -> bool {
        self.priorities.is_none() || (self.priority(file) != Priority::Off && !self.files().entry(file).pad)
    }

    /// By file: is it wanted?
    #[must_use]
    pub fn wanted_files(&self) -> Vec<bool> {
        let files = self.files().len();
        let Some(priorities) = &self.priorities else {
            steps::add_bytes(files);
            return vec![true; files];
        };
        steps::add(files / 8);
        priorities.iter().map(|priority| *priority != Priority::Off).collect()
    }

    /// How much `piece` is wanted.
    #[must_use]
    pub fn piece_priority(&self, piece: Piece) -> Priority {
        self.pieces.as_ref().map_or(Priority::Normal, |pieces| pieces[piece.index()])
    }

    /// True while all pieces are wanted, and none more than another.
    #[must_use]
    pub const fn wants_all_alike(&self) -> bool {
        self.pieces.is_none()
    }

    /// True if `piece` holds something of a wanted file.
    #[must_use]
    pub fn is_wanted(&self, piece: Piece) -> bool {
        self.piece_priority(piece) != Priority::Off
    }

    /// Bytes of wanted files.
    #[must_use]
    pub const fn wanted_bytes(&self) -> u64 {
        self.wanted_bytes
    }

    /// True if `have` holds every wanted piece.
    #[must_use]
    pub fn is_finished(&self, have: &Bitfield) -> bool {
        self.wanted.as_ref().map_or(have.is_full(), |wanted| wanted.first_beyond(have, None, 0).is_none())
    }

    /// The first wanted piece, from `from` on, that `have` lacks and a peer has that has `theirs`.
    #[must_use]
    pub fn first_wanted(&self, theirs: &Bitfield, have: &Bitfield, from: Piece) -> Option<Piece> {
        theirs.first_beyond(have, self.wanted.as_ref(), from.0).map(Piece)
    }

    /// Verified bytes of the file at index `file`.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn have_bytes(&self, file: usize, have: &Bitfield) -> u64 {
        let span = self.files().entry(file).span;
        if have.is_full() {
            return span.len;
        }
        let pieces = self.geometry.pieces_of(span);
        let part_of = |piece| self.span_of(piece).intersection(span).map_or(0, |part| part.len);
        let held = |piece| if have.get(piece) { part_of(piece) } else { 0 };
        // Only the first and the last piece may lie in other files, too.
        match pieces.len() {
            0 => 0,
            1 => held(pieces.start),
            len => {
                steps::add_bytes(len / 8);
                let between = have.count_in(pieces.start + 1..pieces.end - 1);
                held(pieces.start) + u64::from(between) * u64::from(self.geometry.piece_len()) + held(pieces.end - 1)
            }
        }
    }

    /// Verified bytes of all content.
    #[must_use]
    pub fn have_bytes_total(&self, have: &Bitfield) -> u64 {
        let pieces = self.geometry.pieces();
        if have.is_full() {
            return self.geometry.total_len();
        }
        let last_is_short = pieces > 0 && have.get(pieces - 1);
        let missing = if last_is_short {
            u64::from(self.geometry.piece_len()) - u64::from(self.geometry.len_of(Piece(pieces - 1)))
        } else {
            0
        };
        u64::from(have.count()) * u64::from(self.geometry.piece_len()) - missing
    }

    /// Verified bytes of wanted files.
    #[must_use]
    pub fn have_wanted_bytes(&self, have: &Bitfield) -> u64 {
        if self.priorities.is_none() {
            return self.have_bytes_total(have);
        }
        steps::add(self.files().len());
        (0..self.files().len()).filter(|&file| self.is_wanted_file(file)).map(|file| self.have_bytes(file, have)).sum()
    }

    fn span_of(&self, piece: u32) -> Span {
        self.geometry.span_of(Piece(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let files = FileList::new([
            ("a".into(), 25, false),
            ("p".into(), 5, true),
            ("b".into(), 30, false),
            ("c".into(), 7, false),
        ]);
        Layout::new(Arc::new(files), Geometry::new(67, 10).expect("small"))
    }

    fn field(ones: &[u32]) -> Bitfield {
        let mut field = Bitfield::new(7);
        for &one in ones {
            field.set(one);
        }
        field
    }

    #[test]
    fn a_shared_piece_is_wanted_as_much_as_its_most_wanted_file() {
        let mut layout = layout();
        layout.set_priorities([(0, Off), (2, High)]);
        let priorities: Vec<_> = (0..7).map(|piece| layout.piece_priority(Piece(piece))).collect();
        use Priority::{High, Normal, Off};
        assert_eq!(priorities, [Off, Off, Off, High, High, High, Normal]);
        assert_eq!(layout.wanted_bytes(), 37);
        assert!(layout.is_finished(&field(&[3, 4, 5, 6])));
        assert!(!layout.is_finished(&field(&[0, 1, 2, 3, 4, 5])));
        assert_eq!(layout.first_wanted(&field(&[0, 1, 2]), &field(&[]), Piece(0)), None);
        assert_eq!(layout.first_wanted(&field(&[0, 3]), &field(&[]), Piece(0)), Some(Piece(3)));
        assert_eq!(layout.first_wanted(&field(&[0, 3]), &field(&[3]), Piece(0)), None);
        layout.set_priorities([(0, Normal), (2, Normal)]);
        assert!(layout.pieces.is_none() && layout.wanted_bytes() == 67);
    }

    #[test]
    fn held_bytes_of_a_long_file_are_those_of_its_pieces() {
        let files = FileList::new([("a".into(), 13, false), ("b".into(), 2001, false), ("c".into(), 6, false)]);
        let layout = Layout::new(Arc::new(files), Geometry::new(2020, 10).expect("small"));
        for missing in 0..202 {
            let mut have = Bitfield::full(202);
            have.clear(missing);
            (0..202).step_by(5).for_each(|piece| _ = have.clear(piece));
            for file in 0..3 {
                let span = layout.files().entry(file).span;
                let held = have.ones().filter_map(|piece| layout.span_of(piece).intersection(span));
                assert_eq!(layout.have_bytes(file, &have), held.map(|part| part.len).sum::<u64>(), "{missing} {file}");
            }
        }
        steps::take();
        assert_eq!(layout.have_bytes(1, &Bitfield::new(202)), 0);
        assert!(steps::take() < 10, "it is counted by bytes of the field, not by pieces");
    }

    #[test]
    fn held_bytes_are_counted_by_file_and_in_all() {
        let layout = layout();
        let have = field(&[0, 2, 6]);
        assert_eq!(layout.have_bytes_total(&have), 27);
        let by_file: Vec<_> = (0..4).map(|file| layout.have_bytes(file, &have)).collect();
        assert_eq!(by_file, [15, 5, 0, 7]);
        assert!(layout.is_finished(&Bitfield::full(7)) && !layout.is_finished(&have));
        assert_eq!(layout.have_bytes_total(&Bitfield::full(7)), 67);
    }
}
