//! Making a torrent: content goes in, a `.st` or `.torrent` comes out. It reads no file and no clock.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::codec::bencode::{self, DictWriter};
use crate::codec::metainfo::{Metainfo, MetainfoError};

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

/// Bytes of a piece where the user does not say: about 1,500 pieces, from 16 KiB to 16 MiB.
#[must_use]
pub fn piece_len_for(total_len: u64) -> u32 {
    let wanted = (total_len / 1500).next_power_of_two().clamp(16 << 10, 16 << 20);
    u32::try_from(wanted).expect("at most 16 MiB")
}

/// A torrent in the making.
#[derive(Debug)]
pub struct Creator {
    profile: Profile,
    piece_len: u32,
    notes: Notes,
    files: Vec<NewFile>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    /// Bytes of the present piece.
    filled: u32,
    pieces: Vec<u8>,
    fragments: Vec<u8>,
}

impl Creator {
    /// A torrent of `files`, whose contents come next, one after another.
    #[must_use]
    pub fn new(profile: Profile, piece_len: u32, files: Vec<NewFile>, notes: Notes) -> Self {
        Self {
            profile,
            piece_len,
            notes,
            files,
            sha1: (profile != Profile::Pure).then(Sha1::new),
            sha256: (profile != Profile::V1).then(Sha256::new),
            filled: 0,
            pieces: Vec::new(),
            fragments: Vec::new(),
        }
    }

    /// Takes the next bytes of the content.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (self.piece_len - self.filled) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            bytes = rest;
            if let Some(sha1) = &mut self.sha1 {
                sha1.update(now);
            }
            if let Some(sha256) = &mut self.sha256 {
                sha256.update(now);
            }
            self.filled += u32::try_from(now.len()).expect("no more than a piece");
            if self.filled == self.piece_len {
                self.end_piece();
            }
        }
    }

    fn end_piece(&mut self) {
        self.filled = 0;
        if let Some(sha1) = &mut self.sha1 {
            self.pieces.extend(sha1.finalize_reset());
        }
        if let Some(sha256) = &mut self.sha256 {
            self.fragments.extend(sha256.finalize_reset());
        }
    }

    /// The torrent's description and the bytes of its file. All contents must have been taken.
    ///
    /// # Errors
    /// A limit of the format, a name that cannot be used, or contents that were not as long as was said.
    pub fn finish(mut self) -> Result<(Metainfo, Vec<u8>), MetainfoError> {
        if self.filled > 0 {
            self.end_piece();
        }
        let mut meta = Metainfo::from_info(&self.info())?;
        meta.trackers = self.notes.trackers.iter().map(|url| vec![url.clone()]).collect();
        meta.web_seeds = self.notes.web_seeds;
        meta.nodes = self.notes.nodes;
        meta.comment = self.notes.comment;
        meta.created_by = self.notes.created_by;
        meta.creation_date = self.notes.creation_date;
        let bytes = meta.to_bytes(false);
        Ok((meta, bytes))
    }

    fn info(&self) -> Vec<u8> {
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
            dict.int("fragment length", i64::from(self.piece_len));
            dict.bytes("fragments", &self.fragments);
        }
        if is_single {
            dict.int("length", int(self.files[0].1));
        }
        dict.bytes("name", &self.notes.name);
        if self.profile != Profile::Pure {
            dict.int("piece length", i64::from(self.piece_len));
            dict.bytes("pieces", &self.pieces);
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
    fn pieces_end_where_they_should_across_files() {
        let files =
            vec![(vec![b"a".to_vec()], 20_000), (vec![b"e".to_vec()], 0), (vec![b"d".to_vec(), b"b".to_vec()], 20_000)];
        let mut creator = Creator::new(Profile::V1, 16_384, files, Notes { name: b"n".to_vec(), ..Notes::default() });
        creator.update(&[1; 40_000]);
        let (meta, _) = creator.finish().unwrap();
        assert_eq!((meta.geometry.pieces(), meta.files.len()), (3, 3));
        assert_eq!(meta.pieces.get(1), meta.pieces.get(0));
        assert_ne!(meta.pieces.get(2), meta.pieces.get(0));
    }

    #[test]
    fn piece_lengths_follow_the_content() {
        assert_eq!(piece_len_for(0), 16 << 10);
        assert_eq!(piece_len_for(1 << 30), 1 << 20);
        assert_eq!(piece_len_for(1 << 50), 16 << 20);
    }
}
