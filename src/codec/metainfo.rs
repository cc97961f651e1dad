//! Metainfo files: `.torrent` (BEP 3, 12, 17, 19, 27, 47) and `.st`. Which of the two a file is, its content says.
//!
//! `files` makes safe whatever names a file on our disk; `outer` is what stands beside `info`. An `info` is kept as the
//! bytes that came, never encoded anew. BEP 52 torrents without a v1 part are refused; hybrid ones are loaded as v1.

mod files;
mod outer;
mod parser;

use std::fmt;
use std::sync::Arc;

use crate::base::bytes::Bytes;
use crate::base::files::FileList;
use crate::base::geometry::Geometry;
use crate::base::hash::{InfoHash, PieceHashes, StId};
use crate::codec::bencode::BencodeError;
use crate::codec::st::{FRAGMENT_LEN_MAX, TABLE_LEN_MAX};

pub use self::files::{Extras, FileExtra};
pub use self::parser::Parser;

/// Bytes of a file; a longer one is refused.
pub const FILE_LEN_MAX: usize = 64 << 20;
/// Bytes of its `info`; a longer one is refused.
pub const INFO_LEN_MAX: usize = 32 << 20;
/// Files; more are refused.
pub const FILES_MAX: usize = 1_000_000;
/// Components of a path; more are refused.
pub const COMPONENTS_MAX: usize = 64;
/// Bytes of a component; a longer one is refused.
pub const COMPONENT_LEN_MAX: usize = 255;
/// Bytes of content: 2⁵³ and more are refused.
pub const TOTAL_LEN_MAX: u64 = (1 << 53) - 1;
/// Bytes of a piece; longer ones are refused.
pub const PIECE_LEN_MAX: u32 = 256 << 20;
/// Trackers, web seeds and nodes; what comes beyond is ignored.
pub const ADDRESSES_MAX: usize = 256;
/// Bytes of a tracker's address; a longer one is ignored.
pub const URL_LEN_MAX: usize = 2048;
/// Bytes of a comment or the like that are kept.
const TEXT_LEN_MAX: usize = 4096;
/// Bytes of keys beside `info` that we do not know and keep; the first that does not fit and all after it are dropped.
const OTHERS_LEN_MAX: usize = 1 << 20;
/// How many of those keys are kept; further ones are dropped.
const OTHERS_MAX: usize = 1024;
/// Values that are looked at in a list of trackers, web seeds or nodes; what comes beyond is ignored.
const TOKENS_MAX: u64 = 2048;

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetainfoError {
    /// It is not bencoded.
    Bencode(BencodeError),
    /// It is larger than what is accepted here.
    Limit(Limit),
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
        problem: PathProblem,
    },
    /// The `st version` is not 1.
    Version(i64),
    /// The tracker table: the index of the bad record.
    Tracker(usize),
    /// Only in BEP 52's form.
    OnlyV2,
    /// Its hash is not the one that it should have.
    Hash,
}

/// What is larger than accepted: what it is, where that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of the file: see [`FILE_LEN_MAX`].
    FileLen(usize),
    /// Bytes of `info`: see [`INFO_LEN_MAX`].
    InfoLen(usize),
    /// Files: see [`FILES_MAX`].
    Files(u64),
    /// Bytes of a piece: see [`PIECE_LEN_MAX`].
    PieceLen(i64),
    /// Bytes of a fragment of a `.st`: see [`FRAGMENT_LEN_MAX`].
    FragmentLen(i64),
    /// Bytes of content: see [`TOTAL_LEN_MAX`].
    TotalLen,
    /// Bytes of all paths with the torrent's name: more than this.
    PathsLen(usize),
    /// Bytes of the tracker table of a `.st`: see [`TABLE_LEN_MAX`].
    TrackerTable(usize),
}

/// Why a path cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathProblem {
    /// There is none.
    Missing,
    /// It is not a list of strings.
    NotStrings,
    /// It is empty, or a component is.
    Empty,
    /// It has a component that leads elsewhere.
    Dots,
    /// A component has a slash or a zero byte.
    Slash,
    /// A component has so many bytes: see [`COMPONENT_LEN_MAX`].
    Long(usize),
    /// It has so many components: see [`COMPONENTS_MAX`].
    Deep(usize),
    /// Another file has it, or is where it needs a directory.
    Taken,
}

/// A number with commas between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes for a message about a limit: in MiB if that is exact, so that a value just beyond its limit differs from it.
fn amount(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes > 0 && bytes.is_multiple_of(MIB) {
        format!("{} MiB", grouped(bytes / MIB))
    } else {
        format!("{} bytes", grouped(bytes))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = |f: &mut fmt::Formatter<'_>, what: &str, is: u64, max: u64| {
            write!(f, "{what} {}; at most {} are allowed", amount(is), amount(max))
        };
        let positive = |number: i64| u64::try_from(number).unwrap_or(0);
        match *self {
            Self::FileLen(len) => bytes(f, "the torrent file has", len as u64, FILE_LEN_MAX as u64),
            Self::InfoLen(len) => bytes(f, "the torrent has metadata (`info`) of", len as u64, INFO_LEN_MAX as u64),
            Self::Files(files) => {
                let (is, max) = (grouped(files), grouped(FILES_MAX as u64));
                write!(f, "the torrent has {is} files; at most {max} are allowed")
            }
            Self::PieceLen(len) => bytes(f, "the torrent has pieces of", positive(len), PIECE_LEN_MAX.into()),
            Self::FragmentLen(len) => bytes(f, "the torrent has fragments of", positive(len), FRAGMENT_LEN_MAX.into()),
            Self::TotalLen => write!(f, "the torrent has more than {} of content", amount(TOTAL_LEN_MAX)),
            Self::PathsLen(max) => {
                write!(f, "the torrent's paths, each with its name, have more than {}", amount(max as u64))
            }
            Self::TrackerTable(len) => bytes(f, "the tracker table has", len as u64, TABLE_LEN_MAX as u64),
        }
    }
}

impl From<Limit> for MetainfoError {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::NotStrings => f.write_str("is not a list of strings"),
            Self::Empty => f.write_str("is empty, or has an empty component"),
            Self::Dots => f.write_str("contains `.` or `..`, which could leave its directory"),
            Self::Slash => f.write_str("contains a slash or a zero byte"),
            Self::Long(len) => {
                write!(f, "has a component of {} bytes; at most {COMPONENT_LEN_MAX} are allowed", grouped(*len as u64))
            }
            Self::Deep(count) => {
                write!(f, "has {} components; at most {COMPONENTS_MAX} are allowed", grouped(*count as u64))
            }
            Self::Taken => f.write_str("is taken by another file"),
        }
    }
}

impl fmt::Display for MetainfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bencode(error) => write!(f, "this is no torrent file: {error}"),
            Self::Limit(limit) => limit.fmt(f),
            Self::Key { key, expected } => write!(f, "the torrent file is damaged: `{key}` should be {expected}"),
            Self::Path { file: Some(file), problem } => write!(f, "the path of file {file} {problem}"),
            Self::Path { file: None, problem } => write!(f, "the torrent's name {problem}"),
            Self::Version(version) => write!(f, "this .st file has version {version}; only version 1 is known here"),
            Self::Tracker(record) => write!(f, "record {record} of the tracker table is damaged"),
            Self::Hash => f.write_str("the metadata has another hash than it should have"),
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
    /// The SHA-1 hashes by which other clients know the pieces of a compatible `.st`; none for anything else.
    pub wire_pieces: Option<PieceHashes>,
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
    /// `md5sum` and `attr` of the files that have one.
    pub extras: Extras,
    /// A `.st` without SHA-1 hashes.
    pub is_pure: bool,
    /// The exact bytes of `info`.
    pub info: Bytes,
    /// Keys beside `info` that we do not know, with their values' bytes: written again as they came.
    pub others: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metainfo {
    /// Reads a `.torrent` or `.st` file, all of it at once: see [`Parser`].
    ///
    /// # Errors
    /// See [`MetainfoError`]: bencode that is broken, limits, unsafe paths, hashes that do not fit the length.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() > FILE_LEN_MAX {
            return Err(Limit::FileLen(bytes.len()).into());
        }
        Parser::file(bytes).run()
    }

    /// Reads an `info` dictionary alone, all of it at once.
    ///
    /// # Errors
    /// As [`Metainfo::parse`].
    pub fn from_info(bytes: &[u8]) -> Result<Self, MetainfoError> {
        Parser::info(bytes).run()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
