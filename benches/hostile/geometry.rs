//! The torrents that are attacked: ordinary ones, and ones at the limits of what is loaded.

use sha1::{Digest, Sha1};
use swarmtorrent::codec::import::{Evidence, Import};

use crate::noise;

/// Files of the torrent that has many: as many as are loaded.
const FILES: u64 = swarmtorrent::codec::metainfo::FILES_MAX as u64;
/// Bytes of the longest pieces.
const PIECE_LEN_MAX: u64 = swarmtorrent::codec::metainfo::PIECE_LEN_MAX as u64;
/// Values that nobody needs: nearly as many as are parsed.
const VALUES: usize = swarmtorrent::codec::bencode::VALUES_MAX - 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Geometry {
    Ordinary,
    ManyPieces,
    MostPieces,
    MostFiles,
    SmallestFiles,
    LongPieces,
    MostValues,
}

/// A torrent, as far as its peers need to know it.
#[derive(Debug, Clone)]
pub struct Torrent {
    pub info: Vec<u8>,
    pub info_hash: [u8; 20],
    pub name: String,
    pub pieces: u32,
    pub piece_len: u64,
    pub files: u64,
    pub file_len: u64,
}

impl Geometry {
    pub const ALL: [Self; 7] = [
        Self::Ordinary,
        Self::ManyPieces,
        Self::MostPieces,
        Self::MostFiles,
        Self::SmallestFiles,
        Self::LongPieces,
        Self::MostValues,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::ManyPieces => "many-pieces",
            Self::MostPieces => "most-pieces",
            Self::MostFiles => "most-files",
            Self::SmallestFiles => "smallest-files",
            Self::LongPieces => "long-pieces",
            Self::MostValues => "most-values",
        }
    }

    pub fn about(self) -> String {
        let (pieces, piece_len, files) = self.shape();
        let more = if self == Self::MostValues { format!(", {VALUES} values in its `info`") } else { String::new() };
        format!("{pieces} pieces of {} KiB, {files} files{more}", piece_len >> 10)
    }

    /// Pieces, bytes of a piece, files.
    fn shape(self) -> (u64, u64, u64) {
        match self {
            Self::Ordinary | Self::MostValues => (1000, 256 << 10, 1),
            Self::ManyPieces => (200_000, 16 << 10, 1),
            Self::MostPieces => (1_600_000, 16 << 10, 1),
            Self::MostFiles => (FILES / 16, 64 << 10, FILES),
            // Files of one byte: every block lies in thousands of them.
            Self::SmallestFiles => (28, 16 << 10, 28 * (16 << 10)),
            Self::LongPieces => (64, PIECE_LEN_MAX, 1),
        }
    }

    /// How many torrents of it hibernate, where that is possible: each is hashed once.
    pub fn hibernated(self) -> u64 {
        if self == Self::Ordinary { 40 } else { 8 }
    }

    /// The torrent number `number` of this geometry. Its content is zeros, or nothing that could be found.
    pub fn torrent(self, number: u64, is_zeros: bool) -> Torrent {
        let (pieces, piece_len, files) = self.shape();
        let (name, file_len) = (format!("{}-{number}", self.name()), pieces * piece_len / files);
        let mut info = b"d".to_vec();
        if files > 1 {
            info.extend(b"5:filesl");
            for file in 0..files {
                // Names as short as these: `info` would be too long otherwise.
                let name = format!("{file:x}");
                info.extend(format!("d6:lengthi{file_len}e4:pathl{}:{name}ee", name.len()).bytes());
            }
            info.push(b'e');
        } else {
            info.extend(format!("6:lengthi{file_len}e").bytes());
        }
        info.extend(format!("4:name{}:{name}12:piece lengthi{piece_len}e6:pieces{}:", name.len(), pieces * 20).bytes());
        if is_zeros {
            let hash = Sha1::digest(vec![0; usize::try_from(piece_len).unwrap()]);
            info.extend(hash.repeat(usize::try_from(pieces).unwrap()));
        } else {
            info.extend(noise(number + 1, usize::try_from(pieces * 20).unwrap()));
        }
        if self == Self::MostValues {
            info.extend(b"6:valuesl");
            info.extend(b"le".repeat(VALUES));
            info.push(b'e');
        }
        info.push(b'e');
        let (info_hash, pieces) = (Sha1::digest(&info).into(), u32::try_from(pieces).unwrap());
        Torrent { info, info_hash, name, pieces, piece_len, files, file_len }
    }
}

impl Torrent {
    pub fn metainfo(&self) -> Vec<u8> {
        [&b"d4:info"[..], &self.info, b"e"].concat()
    }

    /// The same as another client's torrent that has everything.
    pub fn import(&self) -> Vec<u8> {
        let pieces = self.pieces as usize;
        let mut have = vec![0xff; pieces.div_ceil(8)];
        if !pieces.is_multiple_of(8) {
            *have.last_mut().unwrap() = 0xff << (8 - pieces % 8);
        }
        let times = vec![Some(i64::from(u32::MAX)); usize::try_from(self.files).unwrap()];
        let import = Import { have, times, evidence: Evidence::HeldAt, ..Import::default() };
        import.to_bytes(&self.metainfo())
    }

    pub fn hex(&self) -> String {
        self.info_hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Paths of its files relative to the directory of the content.
    pub fn paths(&self) -> Vec<String> {
        if self.files == 1 {
            return vec![self.name.clone()];
        }
        (0..self.files).map(|file| format!("{}/{file:x}", self.name)).collect()
    }

    /// Blocks of a piece.
    pub fn blocks(&self) -> u64 {
        self.piece_len >> 14
    }
}
