//! Making a torrent: content goes in, a `.st` or `.torrent` comes out. It reads no file and no clock.
//!
//! `check` finds whatever the format does not allow before the first byte of content is hashed. One pass gives both kinds
//! of hashes where both are wanted. Pieces are hashed side by side where as many as there are lanes fit into `HELD_MAX`.

use crate::base::buffer::Buffer;
use crate::base::hash::{HashKind, PieceHash, PieceHasher};
use crate::base::lanes::{LANES, hash_pieces};
use crate::codec::bencode::{self, DictWriter};
use crate::codec::metainfo::{INFO_LEN_MAX, Limit, Metainfo, MetainfoError};

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// A `.st` that is a BEP 3 torrent at the same time.
    #[default]
    Compatible,
    /// A `.st` for SwarmTorrent peers alone.
    Pure,
    /// A BEP 3 `.torrent`.
    V1,
}

/// What is said beside the content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// The torrent's name.
    pub name: Vec<u8>,
    /// Trackers, a tier each.
    pub trackers: Vec<String>,
    /// Web seeds (BEP 19).
    pub web_seeds: Vec<String>,
    /// DHT nodes (BEP 5).
    pub nodes: Vec<(String, u16)>,
    /// BEP 27.
    pub private: bool,
    /// `comment`.
    pub comment: Option<String>,
    /// `created by`.
    pub created_by: Option<String>,
    /// `creation date`, Unix seconds.
    pub creation_date: Option<i64>,
}

/// A file of the content: its path in components below the name (none for a single file), and its length in bytes.
pub type NewFile = (Vec<Vec<u8>>, u64);

/// Bytes of a piece where the user does not say: a power of two that gives 1,000 to 2,000 pieces, from 16 KiB to 16 MiB.
#[must_use]
pub fn piece_len_for(total_len: u64) -> u32 {
    let wanted = total_len.div_ceil(2000).next_power_of_two().clamp(16 << 10, 16 << 20);
    u32::try_from(wanted).expect("at most 16 MiB")
}

/// Bytes of content that are held until they can be hashed side by side; of pieces that are too long for it, one at a time.
const HELD_MAX: usize = 64 << 20;

/// A torrent in the making.
#[derive(Debug)]
pub struct Creator {
    profile: Profile,
    piece_len: usize,
    notes: Notes,
    files: Vec<NewFile>,
    /// Bytes of content that were not taken yet.
    left: u64,
    /// Whole pieces' room, so many as are hashed together.
    held: Buffer,
    /// Bytes of it that were taken.
    filled: usize,
    pieces: Vec<u8>,
    fragments: Vec<u8>,
    /// The piece that is hashed slice by slice, and its bytes so far.
    running: Option<(PieceHasher, PieceHasher, usize)>,
}

impl Creator {
    /// A torrent of `files`, whose contents come next, one after another.
    ///
    /// # Panics
    /// If a piece has no bytes.
    #[must_use]
    pub fn new(profile: Profile, piece_len: u32, files: Vec<NewFile>, notes: Notes) -> Self {
        assert!(piece_len > 0, "a piece has bytes");
        Self {
            profile,
            piece_len: piece_len as usize,
            notes,
            held: Buffer::default(),
            left: files.iter().fold(0, |sum, (_, len)| sum.saturating_add(*len)),
            files,
            filled: 0,
            pieces: Vec::new(),
            fragments: Vec::new(),
            running: None,
        }
    }

    /// Tries the description that will come out, with blank hashes: worth its while before much content is read.
    ///
    /// # Errors
    /// What the format does not allow: a name, a length, too many files, or an `info` that is too long for so many pieces.
    ///
    /// # Panics
    /// If content was taken already.
    pub fn check(&self) -> Result<(), MetainfoError> {
        assert!(self.filled == 0 && self.pieces.is_empty() && self.fragments.is_empty(), "nothing was taken yet");
        let pieces = usize::try_from(self.left.div_ceil(self.piece_len as u64)).unwrap_or(usize::MAX);
        if pieces > INFO_LEN_MAX / 20 {
            return Err(Limit::InfoLen(pieces.saturating_mul(20)).into());
        }
        Metainfo::from_info(&self.info(&vec![0; pieces * 20], &vec![0; pieces * 32])).map(|_| ())
    }

    /// Takes the next bytes of the content.
    ///
    /// # Panics
    /// If there are more than the files were said to have.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room();
            let (now, rest) = bytes.split_at(bytes.len().min(room.len()));
            room[..now.len()].copy_from_slice(now);
            self.took(now.len());
            bytes = rest;
        }
    }

    /// Takes the next bytes of the content and hashes them at once: for who works in slices and cannot wait for whole pieces.
    /// Not to be mixed with the other ways.
    ///
    /// # Panics
    /// If there are more than the files were said to have.
    pub fn hash(&mut self, mut bytes: &[u8]) {
        self.left = self.left.checked_sub(bytes.len() as u64).expect("no more content than was said");
        while !bytes.is_empty() {
            let begin = || (HashKind::Sha1.hasher(), HashKind::Sha256.hasher(), 0);
            let (mut sha1, mut sha256, done) = self.running.take().unwrap_or_else(begin);
            let (now, rest) = bytes.split_at(bytes.len().min(self.piece_len - done));
            bytes = rest;
            if self.profile != Profile::Pure {
                sha1.update(now);
            }
            if self.profile != Profile::V1 {
                sha256.update(now);
            }
            self.running = Some((sha1, sha256, done + now.len()));
            if done + now.len() == self.piece_len {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        let Some((sha1, sha256, _)) = self.running.take() else { return };
        if self.profile != Profile::Pure {
            self.pieces.extend(sha1.finish().as_ref());
        }
        if self.profile != Profile::V1 {
            self.fragments.extend(sha256.finish().as_ref());
        }
    }

    /// Where the next bytes of the content may be put, to be told by [`Creator::took`]; not empty while there are any to come.
    pub fn room(&mut self) -> &mut [u8] {
        if self.held.is_empty() {
            let together = if self.piece_len * LANES > HELD_MAX { 1 } else { LANES };
            let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.piece_len * together);
            self.held = Buffer::new(len);
        }
        let room = self.held.len() - self.filled;
        &mut self.held[self.filled..][..room.min(usize::try_from(self.left).unwrap_or(usize::MAX))]
    }

    /// Takes the first `len` bytes of the room.
    ///
    /// # Panics
    /// If there are more than the files were said to have.
    pub fn took(&mut self, len: usize) {
        assert!(len <= self.held.len() - self.filled, "no more than the room");
        self.left = self.left.checked_sub(len as u64).expect("no more content than was said");
        self.filled += len;
        if self.filled == self.held.len() {
            self.hash_held();
        }
    }

    fn hash_held(&mut self) {
        let held = &self.held[..self.filled];
        let hash = |kind, hashes: &mut Vec<u8>| {
            hash_pieces(kind, held, self.piece_len).iter().for_each(|hash: &PieceHash| hashes.extend(hash.as_ref()));
        };
        if self.profile != Profile::Pure {
            hash(HashKind::Sha1, &mut self.pieces);
        }
        if self.profile != Profile::V1 {
            hash(HashKind::Sha256, &mut self.fragments);
        }
        self.filled = 0;
    }

    /// The torrent's description and the bytes of its file.
    ///
    /// # Errors
    /// See [`Creator::check`].
    ///
    /// # Panics
    /// If less content was taken than the files were said to have.
    pub fn finish(mut self) -> Result<(Metainfo, Vec<u8>), MetainfoError> {
        assert_eq!(self.left, 0, "bytes of content were not taken");
        self.hash_held();
        self.end_piece();
        let mut meta = Metainfo::from_info(&self.info(&self.pieces, &self.fragments))?;
        meta.trackers = self.notes.trackers.iter().map(|url| vec![url.clone()]).collect();
        meta.web_seeds = self.notes.web_seeds;
        meta.nodes = self.notes.nodes;
        meta.comment = self.notes.comment;
        meta.created_by = self.notes.created_by;
        meta.creation_date = self.notes.creation_date;
        let bytes = meta.to_bytes(false);
        Ok((meta, bytes))
    }

    fn info(&self, pieces: &[u8], fragments: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut dict = DictWriter::begin(&mut out);
        let is_single = matches!(&self.files[..], [(path, _)] if path.is_empty());
        if !is_single {
            let list = dict.key("files");
            list.push(b'l');
            for (path, len) in &self.files {
                let mut file = DictWriter::begin(list);
                file.int("length", int(*len));
                let parts = file.key("path");
                parts.push(b'l');
                path.iter().for_each(|part| bencode::write_bytes(parts, part));
                parts.push(b'e');
                file.end();
            }
            list.push(b'e');
        }
        if self.profile != Profile::V1 {
            dict.int("fragment length", int(self.piece_len as u64));
            dict.bytes("fragments", fragments);
        }
        if is_single {
            dict.int("length", int(self.files[0].1));
        }
        dict.bytes("name", &self.notes.name);
        if self.profile != Profile::Pure {
            dict.int("piece length", int(self.piece_len as u64));
            dict.bytes("pieces", pieces);
        }
        if self.notes.private {
            dict.int("private", 1);
        }
        if self.profile != Profile::V1 {
            dict.int("st version", 1);
        }
        dict.end();
        out
    }
}

fn int(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::Sha256Hash;

    /// SHA-256 of the whole file in the worked example.
    const EXAMPLE_SHA256: &str = "69021cbe9eb96662f810e55a585db9f0b50a34ff9fa5efe5475f5db6712e94e5";

    fn named(name: &[u8]) -> Notes {
        Notes { name: name.to_vec(), ..Notes::default() }
    }

    fn create(profile: Profile, splits: usize) -> (Metainfo, Vec<u8>) {
        let notes =
            Notes { name: b"hello.txt".to_vec(), trackers: vec!["udp://127.0.0.1:6969".into()], ..Notes::default() };
        let mut creator = Creator::new(profile, 16_384, vec![(vec![], 6)], notes);
        b"hello\n".chunks(splits).for_each(|part| creator.update(part));
        creator.finish().unwrap()
    }

    #[test]
    fn the_worked_example_of_the_st_format_is_made_byte_for_byte() {
        let (meta, bytes) = create(Profile::Pure, 2);
        assert_eq!(meta.st_id.unwrap().to_string(), "d1ffad513fd9bb94abd949898d78ff902750460916bb7b43a1c290753c72861d");
        assert!(bytes.starts_with(b"d8:announce20:udp://127.0.0.1:69694:infod15:fragment lengthi16384e9:fragments32:"));
        assert!(bytes.ends_with(b"8:trackers11:\x00\x00\x04\x1b\x39\x04\x7f\x00\x00\x01\x00e"));
        assert_eq!(create(Profile::Pure, 6).1, bytes);
        assert_eq!(Sha256Hash::of(&bytes).to_string(), EXAMPLE_SHA256, "of all the bytes");
    }

    #[test]
    fn a_compatible_torrent_has_both_kinds_of_hashes_and_becomes_a_torrent() {
        let (meta, bytes) = create(Profile::Compatible, 6);
        assert_eq!(Metainfo::parse(&bytes).unwrap(), meta);
        let torrent = Metainfo::parse(&meta.to_bytes(true)).unwrap();
        assert_eq!((torrent.info_hash, torrent.st_id), (meta.info_hash, meta.st_id));
        let (v1, _) = create(Profile::V1, 6);
        assert_eq!(v1.st_id, None);
    }

    #[test]
    fn what_is_hashed_slice_by_slice_comes_out_the_same() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|at| (at % 251) as u8).collect();
        for profile in [Profile::Compatible, Profile::Pure, Profile::V1] {
            let new = || Creator::new(profile, 16_384, vec![(vec![], 70_000)], named(b"n"));
            let (mut whole, mut sliced) = (new(), new());
            whole.update(&bytes);
            bytes.chunks(10_007).for_each(|slice| sliced.hash(slice));
            assert_eq!(sliced.finish().unwrap(), whole.finish().unwrap());
        }
    }

    #[test]
    fn pieces_end_where_they_should_across_files() {
        let files =
            vec![(vec![b"a".to_vec()], 20_000), (vec![b"e".to_vec()], 0), (vec![b"d".to_vec(), b"b".to_vec()], 20_000)];
        let mut creator = Creator::new(Profile::V1, 16_384, files, named(b"n"));
        creator.update(&[1; 40_000]);
        let (meta, _) = creator.finish().unwrap();
        assert_eq!((meta.geometry.pieces(), meta.files.len()), (3, 3));
        assert_eq!(meta.pieces.get(1), meta.pieces.get(0));
        assert_ne!(meta.pieces.get(2), meta.pieces.get(0));
    }

    #[test]
    fn what_the_format_does_not_allow_is_refused_before_anything_is_hashed() {
        let one = |part: &[u8]| vec![(vec![part.to_vec()], 1)];
        for (profile, piece_len, files, name) in [
            (Profile::Compatible, 16_384, one(b".."), &b"n"[..]),
            (Profile::V1, 16_384, one(b"a/b"), b"n"),
            (Profile::V1, 16_384, one(b"a"), b""),
            (Profile::Pure, 16_384, vec![(vec![b"a".to_vec(); 65], 1)], b"n"),
            (Profile::Pure, 16_385, one(b"a"), b"n"),
            (Profile::V1, 16_384, vec![], b"n"),
            (Profile::V1, 64 << 20, vec![(vec![], u64::MAX), (vec![], u64::MAX)], b"n"),
        ] {
            assert!(Creator::new(profile, piece_len, files.clone(), named(name)).check().is_err(), "{files:?}");
        }
        let long = Creator::new(Profile::Compatible, 16_384, vec![(vec![], 20 << 30)], named(b"n"));
        assert!(matches!(long.check(), Err(MetainfoError::Limit(Limit::InfoLen(_)))));
        assert_eq!(Creator::new(Profile::Compatible, 16_384, one(b"a"), named(b"n")).check(), Ok(()));
    }

    #[test]
    #[should_panic(expected = "not taken")]
    fn content_that_is_missing_is_not_described() {
        let creator = Creator::new(Profile::V1, 16_384, vec![(vec![], 6)], named(b"n"));
        drop(creator.finish());
    }

    #[test]
    fn piece_lengths_follow_the_content() {
        assert_eq!(piece_len_for(0), 16 << 10);
        assert_eq!(piece_len_for(1 << 30), 1 << 20);
        for total in [100 << 20, (1 << 30) + 1, 5 << 30, 20_u64 << 30] {
            let pieces = total.div_ceil(u64::from(piece_len_for(total)));
            assert!((1000..=2000).contains(&pieces), "{total}: {pieces}");
        }
        assert_eq!(piece_len_for(1 << 50), 16 << 20);
    }
}
