//! Metainfo files: `.torrent` (BEP 3, 12, 17, 19, 27, 47) and `.st`. Which of the two a file is, its content says.
//!
//! Everything that names a file on our disk is made safe here. Symbolic links (BEP 47) are never made: they are empty
//! entries that nobody stores. BEP 52 torrents without a v1 part are refused; hybrid ones are loaded as v1.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::files::FileList;
use crate::base::geometry::Geometry;
use crate::base::hash::{InfoHash, PieceHashes, Sha1Hash, Sha256Hash, StId};
use crate::codec::bencode::{self, BencodeError, Dict, DictWriter, Value};
use crate::codec::st;

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
    /// BEP 27.
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
    /// By file: `md5sum` and `attr`, where any file has one.
    pub extras: Vec<FileExtra>,
    /// A `.st` without SHA-1 hashes.
    pub is_pure: bool,
    /// The exact bytes of `info`.
    pub info: Arc<[u8]>,
}

/// What a file entry may say beyond its path and length.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileExtra {
    /// `md5sum`, as it stands there.
    pub md5sum: Option<String>,
    /// `attr` (BEP 47): `p` pad, `x` executable, `h` hidden, `l` symbolic link.
    pub attr: String,
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
        let document = bencode::parse(bytes).map_err(MetainfoError::Bencode)?;
        let outer = document.as_dict().ok_or(key("info", "in a dictionary"))?;
        let info = outer.get(b"info").ok_or(key("info", "there"))?;
        let mut meta = Self::from_value(info)?;
        if meta.st_id.is_some() {
            bencode::parse_canonical(bytes).map_err(MetainfoError::Bencode)?;
        }
        meta.read_outer(outer)?;
        Ok(meta)
    }

    /// Reads an `info` dictionary alone.
    ///
    /// # Errors
    /// As [`Metainfo::parse`].
    pub fn from_info(bytes: &[u8]) -> Result<Self, MetainfoError> {
        Self::from_value(&bencode::parse(bytes).map_err(MetainfoError::Bencode)?)
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
        let (files, extras, is_single) = read_files(info)?;
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
            name: text(name_of(info)?),
            files: Arc::new(files),
            is_single,
            geometry,
            pieces,
            trackers: Vec::new(),
            private: info.int(b"private") == Some(1),
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
        })
    }

    /// What stands beside `info`. Whatever is not as it should be is left out; only a broken tracker table is refused.
    fn read_outer(&mut self, outer: &Dict<'_>) -> Result<(), MetainfoError> {
        let mut tiers: Vec<Vec<String>> = Vec::new();
        if let Some(table) = outer.bytes(b"trackers").filter(|_| self.st_id.is_some()) {
            tiers = st::parse_trackers(table)?
                .into_iter()
                .fold(Vec::new(), |mut tiers: Vec<(u8, Vec<String>)>, tracker| {
                    match tiers.last_mut().filter(|(tier, _)| *tier == tracker.tier) {
                        Some((_, urls)) => urls.push(tracker.url()),
                        None => tiers.push((tracker.tier, vec![tracker.url()])),
                    }
                    tiers
                })
                .into_iter()
                .map(|(_, urls)| urls)
                .collect();
        }
        let listed: Vec<Vec<String>> = outer
            .list(b"announce-list")
            .unwrap_or_default()
            .iter()
            .filter_map(|tier| Some(tier.as_list()?.iter().filter_map(Value::as_bytes).map(text).collect()))
            .collect();
        if listed.iter().all(Vec::is_empty) {
            tiers.push(outer.bytes(b"announce").map(text).into_iter().collect());
        } else {
            tiers.extend(listed);
        }
        let mut seen = BTreeSet::new();
        for tier in &mut tiers {
            tier.retain(|url| {
                !url.is_empty() && url.len() <= URL_LEN_MAX && seen.len() < ADDRESSES_MAX && seen.insert(url.clone())
            });
        }
        tiers.retain(|tier| !tier.is_empty());
        self.trackers = tiers;
        let note = |name: &[u8]| outer.bytes(name).map(|bytes| text(&bytes[..bytes.len().min(TEXT_LEN_MAX)]));
        self.comment = note(b"comment.utf-8").or_else(|| note(b"comment"));
        self.created_by = note(b"created by");
        self.encoding = note(b"encoding");
        self.creation_date = outer.int(b"creation date");
        self.web_seeds = urls(outer.get(b"url-list"));
        self.http_seeds = urls(outer.get(b"httpseeds"));
        let node = |node: &Value<'_>| {
            let pair = node.as_list()?;
            let port = u16::try_from(pair.get(1)?.as_int()?).ok().filter(|&port| port > 0)?;
            Some((text(pair.first()?.as_bytes()?), port))
        };
        self.nodes = outer.list(b"nodes").unwrap_or_default().iter().filter_map(node).take(ADDRESSES_MAX).collect();
        Ok(())
    }

    /// The bytes of a file that describes this torrent. `as_torrent` leaves out what only a `.st` has beside `info`.
    #[must_use]
    pub fn to_bytes(&self, as_torrent: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.info.len() + 1024);
        let mut dict = DictWriter::begin(&mut out);
        if let Some(first) = self.trackers.iter().flatten().next() {
            dict.bytes("announce", first.as_bytes());
        }
        if self.trackers.iter().flatten().count() > 1 {
            let list = dict.key("announce-list");
            list.push(b'l');
            for tier in &self.trackers {
                write_strings(list, tier);
            }
            list.push(b'e');
        }
        for (name, note) in [("comment", &self.comment), ("created by", &self.created_by)] {
            if let Some(note) = note {
                dict.bytes(name, note.as_bytes());
            }
        }
        if let Some(date) = self.creation_date {
            dict.int("creation date", date);
        }
        if let Some(encoding) = &self.encoding {
            dict.bytes("encoding", encoding.as_bytes());
        }
        if !self.http_seeds.is_empty() {
            write_strings(dict.key("httpseeds"), &self.http_seeds);
        }
        dict.key("info").extend_from_slice(&self.info);
        if !self.nodes.is_empty() {
            let list = dict.key("nodes");
            list.push(b'l');
            for (host, port) in &self.nodes {
                list.push(b'l');
                bencode::write_bytes(list, host.as_bytes());
                bencode::write_int(list, i64::from(*port));
                list.push(b'e');
            }
            list.push(b'e');
        }
        if self.st_id.is_some() && !as_torrent {
            let table = st::write_trackers(&self.trackers);
            if !table.is_empty() {
                dict.bytes("trackers", &table);
            }
        }
        if !self.web_seeds.is_empty() {
            write_strings(dict.key("url-list"), &self.web_seeds);
        }
        dict.end();
        out
    }
}

fn write_strings(out: &mut Vec<u8>, strings: &[String]) {
    out.push(b'l');
    for string in strings {
        bencode::write_bytes(out, string.as_bytes());
    }
    out.push(b'e');
}

fn urls(value: Option<&Value<'_>>) -> Vec<String> {
    let Some(value) = value else { return Vec::new() };
    let one = value.as_bytes().into_iter();
    let many = value.as_list().unwrap_or_default().iter().filter_map(Value::as_bytes);
    let fits = |url: &&[u8]| !url.is_empty() && url.len() <= URL_LEN_MAX;
    one.chain(many).filter(fits).take(ADDRESSES_MAX).map(text).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn name_of<'a>(info: &Dict<'a>) -> Result<&'a [u8], MetainfoError> {
    let utf8 = info.bytes(b"name.utf-8").filter(|name| std::str::from_utf8(name).is_ok());
    utf8.or_else(|| info.bytes(b"name")).ok_or(key("name", "a string"))
}

fn read_pieces(info: &Dict<'_>) -> Result<(u32, PieceHashes, bool), MetainfoError> {
    let piece_len = info.int(b"piece length").and_then(|len| u32::try_from(len).ok());
    let piece_len = piece_len.filter(|len| (1..=PIECE_LEN_MAX).contains(len));
    let piece_len = piece_len.ok_or(key("piece length", "a number from 1 to 67108864"))?;
    let pieces = info.bytes(b"pieces").filter(|pieces| pieces.len().is_multiple_of(20));
    let pieces = pieces.ok_or(key("pieces", "a string of 20 bytes for each piece"))?;
    Ok((piece_len, PieceHashes::Sha1(pieces.into()), false))
}

fn read_files(info: &Dict<'_>) -> Result<(FileList, Vec<FileExtra>, bool), MetainfoError> {
    let name = safe(name_of(info)?).map_err(|problem| MetainfoError::Path { file: None, problem })?;
    let root = PathBuf::from(OsStr::from_bytes(name));
    let mut entries = Vec::new();
    let mut extras = Vec::new();
    let is_single = match (info.get(b"length"), info.get(b"files")) {
        (Some(length), None) => {
            entries.push((root, length_of(length)?, false));
            extras.push(extra_of(info));
            true
        }
        (None, Some(files)) => {
            let files = files.as_list().ok_or(key("files", "a list"))?;
            if files.is_empty() || files.len() > FILES_MAX {
                return Err(key("files", "a list of 1 to 100000 files"));
            }
            for (index, file) in files.iter().enumerate() {
                let file = file.as_dict().ok_or(key("files", "a list of dictionaries"))?;
                let len = length_of(file.get(b"length").ok_or(key("length", "there for every file"))?)?;
                let extra = extra_of(file);
                let is_pad = extra.attr.contains('p') || (extra.attr.contains('l') && len == 0);
                let path = match path_of(file) {
                    Ok(path) => root.join(path),
                    Err(_) if is_pad => root.join(".pad"),
                    Err(problem) => return Err(MetainfoError::Path { file: Some(index), problem }),
                };
                entries.push((path, len, is_pad));
                extras.push(extra);
            }
            false
        }
        _ => return Err(key("length", "there, or else `files`, and not both")),
    };
    let total = entries.iter().try_fold(0_u64, |sum, (_, len, _)| sum.checked_add(*len));
    if total.is_none_or(|total| total > TOTAL_LEN_MAX) {
        return Err(key("length", "less than 2^53 bytes in all"));
    }
    refuse_collisions(&entries)?;
    if extras.iter().all(|extra| *extra == FileExtra::default()) {
        extras = Vec::new();
    }
    Ok((FileList::new(entries), extras, is_single))
}

fn length_of(value: &Value<'_>) -> Result<u64, MetainfoError> {
    value.as_int().and_then(|len| u64::try_from(len).ok()).ok_or(key("length", "a number of bytes"))
}

fn extra_of(file: &Dict<'_>) -> FileExtra {
    let short = |bytes: &&[u8]| bytes.len() <= 64;
    FileExtra {
        md5sum: file.bytes(b"md5sum").filter(short).map(text),
        attr: file.bytes(b"attr").filter(short).map(text).unwrap_or_default(),
    }
}

/// The path of a file below the torrent's directory. Empty components, which some programs write, are left out.
fn path_of(file: &Dict<'_>) -> Result<PathBuf, &'static str> {
    let is_utf8 = |path: &&[Value<'_>]| {
        path.iter().all(|part| part.as_bytes().is_some_and(|bytes| std::str::from_utf8(bytes).is_ok()))
    };
    let path = file.list(b"path.utf-8").filter(is_utf8).or_else(|| file.list(b"path")).ok_or("is missing")?;
    if path.len() > COMPONENTS_MAX {
        return Err("has more than 64 components");
    }
    let mut whole = PathBuf::new();
    for part in path {
        let part = part.as_bytes().ok_or("is not a list of strings")?;
        if !part.is_empty() {
            whole.push(OsStr::from_bytes(safe(part)?));
        }
    }
    if whole.as_os_str().is_empty() { Err("is empty") } else { Ok(whole) }
}

/// A component that can be nothing but a name in its directory.
fn safe(component: &[u8]) -> Result<&[u8], &'static str> {
    match component {
        b"" => Err("is empty"),
        b"." | b".." => Err("contains `.` or `..`, which could leave its directory"),
        _ if component.contains(&b'/') || component.contains(&0) => Err("contains a slash or a zero byte"),
        _ if component.len() > COMPONENT_LEN_MAX => Err("has a component of more than 255 bytes"),
        _ => Ok(component),
    }
}

/// No two files of one path, and no file where another one needs a directory.
fn refuse_collisions(entries: &[(PathBuf, u64, bool)]) -> Result<(), MetainfoError> {
    let mut sorted: Vec<(usize, &PathBuf)> =
        entries.iter().enumerate().filter(|(_, (_, _, pad))| !pad).map(|(index, (path, _, _))| (index, path)).collect();
    sorted.sort_by_key(|&(_, path)| path);
    match sorted.windows(2).find(|pair| pair[1].1.starts_with(pair[0].1)) {
        Some(pair) => Err(MetainfoError::Path { file: Some(pair[1].0), problem: "is taken by another file" }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
