//! Metainfo files: `.torrent` (BEP 3, 12, 17, 19, 27, 47) and `.st`. Which of the two a file is, its content says.
//!
//! `files` makes safe whatever names a file on our disk; `outer` is what stands beside `info`. An `info` is kept as the
//! bytes that came, never encoded anew. BEP 52 torrents without a v1 part are refused; hybrid ones are loaded as v1.

mod files;
mod outer;

use std::fmt;
use std::sync::Arc;

use crate::base::files::FileList;
use crate::base::geometry::Geometry;
use crate::base::hash::{InfoHash, PieceHashes, Sha1Hash, Sha256Hash, StId};
use crate::codec::bencode::{self, BencodeError, Dict, Value};
use crate::codec::st;

pub use self::files::FileExtra;

/// Bytes of a file; a longer one is refused.
pub const FILE_LEN_MAX: usize = 64 << 20;
/// Bytes of its `info`; a longer one is refused.
pub const INFO_LEN_MAX: usize = 32 << 20;
/// Files; more are refused.
pub const FILES_MAX: usize = 100_000;
/// Components of a path; more are refused.
pub const COMPONENTS_MAX: usize = 64;
/// Bytes of a component; a longer one is refused.
pub const COMPONENT_LEN_MAX: usize = 255;
/// Bytes of content: 2⁵³ and more are refused.
pub const TOTAL_LEN_MAX: u64 = (1 << 53) - 1;
/// Bytes of a piece; longer ones are refused.
pub const PIECE_LEN_MAX: u32 = 64 << 20;
/// Trackers, web seeds and nodes; what comes beyond is ignored.
pub const ADDRESSES_MAX: usize = 256;
/// Bytes of a tracker's address; a longer one is ignored.
pub const URL_LEN_MAX: usize = 2048;
/// Bytes of a comment or the like that are kept.
const TEXT_LEN_MAX: usize = 4096;
/// Bytes of keys beside `info` that we do not know and keep; the first that does not fit and all after it are dropped.
const OTHERS_LEN_MAX: usize = 1 << 20;

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetainfoError {
    /// It is not bencoded.
    Bencode(BencodeError),
    /// The file or its `info` is too long: the bytes allowed.
    TooLong(usize),
    /// A key is missing, or is not what it should be.
    Key {
        /// Which.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A path cannot be used: the index of the file.
    Path {
        /// Index of the file; none for `name`.
        file: Option<usize>,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The `st version` is not 1.
    Version(i64),
    /// The tracker table: the index of the bad record.
    Tracker(usize),
    /// Only in BEP 52's form.
    OnlyV2,
}

impl fmt::Display for MetainfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bencode(error) => write!(f, "this is no torrent file: {error}"),
            Self::TooLong(max) => write!(f, "the torrent file is too long: {max} bytes are allowed here"),
            Self::Key { key, expected } => write!(f, "the torrent file is damaged: `{key}` should be {expected}"),
            Self::Path { file: Some(file), problem } => write!(f, "the path of file {file} {problem}"),
            Self::Path { file: None, problem } => write!(f, "the torrent's name {problem}"),
            Self::Version(version) => write!(f, "this .st file has version {version}; only version 1 is known here"),
            Self::Tracker(record) => write!(f, "record {record} of the tracker table is damaged"),
            Self::OnlyV2 => {
                f.write_str("this torrent exists only in BitTorrent v2 form, which this version cannot load")
            }
        }
    }
}

impl std::error::Error for MetainfoError {}

const fn key(key: &'static str, expected: &'static str) -> MetainfoError {
    MetainfoError::Key { key, expected }
}

/// A torrent's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metainfo {
    /// The wire hash.
    pub info_hash: InfoHash,
    /// SHA-256 of `info`, of a `.st`.
    pub st_id: Option<StId>,
    /// The advisory name, as text; escape it before showing it.
    pub name: String,
    /// Its files; paths begin with the torrent's name where there are several.
    pub files: Arc<FileList>,
    /// True for a single file.
    pub is_single: bool,
    /// How the content is divided.
    pub geometry: Geometry,
    /// What each piece must hash to: SHA-256 of a `.st`, SHA-1 otherwise.
    pub pieces: PieceHashes,
    /// Trackers by tier (BEP 12).
    pub trackers: Vec<Vec<String>>,
    /// BEP 27; any number but 0, as other clients take it.
    pub private: bool,
    /// `comment`.
    pub comment: Option<String>,
    /// `created by`.
    pub created_by: Option<String>,
    /// `creation date`, Unix seconds.
    pub creation_date: Option<i64>,
    /// `encoding`.
    pub encoding: Option<String>,
    /// `url-list` (BEP 19).
    pub web_seeds: Vec<String>,
    /// `httpseeds` (BEP 17).
    pub http_seeds: Vec<String>,
    /// `nodes` (BEP 5): host and port.
    pub nodes: Vec<(String, u16)>,
    /// By file: `md5sum` and `attr`; empty where no file has one.
    pub extras: Vec<FileExtra>,
    /// A `.st` without SHA-1 hashes.
    pub is_pure: bool,
    /// The exact bytes of `info`.
    pub info: Arc<[u8]>,
    /// Keys beside `info` that we do not know, with their values' bytes: written again as they came.
    pub others: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metainfo {
    /// Reads a `.torrent` or `.st` file.
    ///
    /// # Errors
    /// See [`MetainfoError`]: bencode that is broken, limits, unsafe paths, hashes that do not fit the length.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > FILE_LEN_MAX {
            return Err(MetainfoError::TooLong(FILE_LEN_MAX));
        }
        let (document, unsorted) = bencode::parse_noting(bytes, bencode::VALUES_MAX).map_err(MetainfoError::Bencode)?;
        let outer = document.as_dict().ok_or(key("info", "in a dictionary"))?;
        let info = outer.get(b"info").ok_or(key("info", "there"))?;
        let mut meta = Self::from_value(info)?;
        meta.require_order(unsorted)?;
        meta.read_outer(outer)?;
        Ok(meta)
    }

    /// Reads an `info` dictionary alone.
    ///
    /// # Errors
    /// As [`Metainfo::parse`].
    pub fn from_info(bytes: &[u8]) -> Result<Self, MetainfoError> {
        let (info, unsorted) = bencode::parse_noting(bytes, bencode::VALUES_MAX).map_err(MetainfoError::Bencode)?;
        let meta = Self::from_value(&info)?;
        meta.require_order(unsorted)?;
        Ok(meta)
    }

    /// Keys out of order are forgiven to a `.torrent`, not to a `.st`.
    fn require_order(&self, unsorted: Option<BencodeError>) -> Result<(), MetainfoError> {
        unsorted.filter(|_| self.st_id.is_some()).map_or(Ok(()), |error| Err(MetainfoError::Bencode(error)))
    }

    /// The SHA-1 hashes by which other clients know the pieces of a compatible `.st`; none for anything else.
    #[must_use]
    pub fn wire_pieces(&self) -> Option<PieceHashes> {
        if self.st_id.is_none() || self.is_pure {
            return None;
        }
        let info = bencode::parse(&self.info, bencode::VALUES_MAX).ok()?;
        Some(PieceHashes::Sha1(info.as_dict()?.bytes(b"pieces")?.into()))
    }

    fn from_value(value: &Value<'_>) -> Result<Self, MetainfoError> {
        let raw = value.raw;
        if raw.len() > INFO_LEN_MAX {
            return Err(MetainfoError::TooLong(INFO_LEN_MAX));
        }
        let info = value.as_dict().ok_or(key("info", "a dictionary"))?;
        let is_st = info.get(b"st version").is_some();
        if is_st {
            st::check_version(info)?;
        } else if info.get(b"pieces").is_none() && info.get(b"meta version").is_some() {
            return Err(MetainfoError::OnlyV2);
        }
        let (files, extras, is_single) = files::read(info, is_st)?;
        let (piece_len, pieces, is_pure) = if is_st { st::read_fragments(info)? } else { read_pieces(info)? };
        let geometry = Geometry::new(files.total_len(), piece_len).ok_or(key("piece length", "longer"))?;
        if pieces.len() != geometry.pieces() as usize {
            return Err(key(if is_st { "fragments" } else { "pieces" }, "one hash for each piece of the content"));
        }
        let st_id = is_st.then(|| Sha256Hash::of(raw));
        let info_hash = match st_id {
            Some(st_id) if is_pure => st_id.truncated(),
            _ => Sha1Hash::of(raw),
        };
        Ok(Self {
            info_hash,
            st_id,
            name: text(files::name_of(info)?),
            files: Arc::new(files),
            is_single,
            geometry,
            pieces,
            trackers: Vec::new(),
            private: info.int(b"private").is_some_and(|private| private != 0),
            comment: None,
            created_by: None,
            creation_date: None,
            encoding: None,
            web_seeds: Vec::new(),
            http_seeds: Vec::new(),
            nodes: Vec::new(),
            extras,
            is_pure,
            info: raw.into(),
            others: Vec::new(),
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_pieces(info: &Dict<'_>) -> Result<(u32, PieceHashes, bool), MetainfoError> {
    let piece_len = info.int(b"piece length").and_then(|len| u32::try_from(len).ok());
    let piece_len = piece_len.filter(|len| (1..=PIECE_LEN_MAX).contains(len));
    let piece_len = piece_len.ok_or(key("piece length", "a number from 1 to 67108864"))?;
    let pieces = info.bytes(b"pieces").filter(|pieces| pieces.len().is_multiple_of(20));
    let pieces = pieces.ok_or(key("pieces", "a string of 20 bytes for each piece"))?;
    Ok((piece_len, PieceHashes::Sha1(pieces.into()), false))
}

#[cfg(test)]
mod tests;
