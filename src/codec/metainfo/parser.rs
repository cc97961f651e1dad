//! Reads metainfo in slices: scans the document, hashes its `info`, lists the files, looks for two files of one path, and reads
//! what stands beside `info`.
//!
//! Nothing is kept of the document but positions in it: the longest one needs no more memory for its values than the
//! shortest. [`Metainfo::parse`] runs a parser to its end.

use std::cmp::Ordering;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::files::{FileFields, Paths, component, name_of, safe};
use super::outer::OuterFields;
use super::{
    FILE_LEN_MAX, FILES_MAX, INFO_LEN_MAX, Limit, Metainfo, MetainfoError, PIECE_LEN_MAX, TOTAL_LEN_MAX, key, text,
};
use crate::base::bytes::Bytes;
use crate::base::files::{FileList, FileListBuilder, PATHS_LEN_MAX};
use crate::base::geometry::Geometry;
use crate::base::hash::{InfoHash, PieceHashes, Sha1Hash, Sha256Hash, StId};
use crate::base::merge_sort::MergeSort;
use crate::base::steps::Allowance;
use crate::codec::bencode::BencodeError;
use crate::codec::bencode_scan::{Scanner, Token};
use crate::codec::metainfo::files::ExtraFields;
use crate::codec::st;

/// Bytes that are hashed or copied before the allowance is looked at again.
const CHUNK: usize = 16 << 10;
/// Bytes of a hash that count as one step: without instructions of the processor for it, SHA-1 takes four times as long as
/// [`crate::base::steps::BYTES_PER_STEP`] assumes.
const HASHED_PER_STEP: usize = 16;
/// Bytes of a document beside its `info` with which `info` shares its memory; from a document with more `info` is copied.
const SHARED_MAX: usize = 1 << 20;

/// A metainfo file, or an `info` dictionary, that is being read.
///
/// Call [`Parser::step`] until it returns something. How much it does in one call is the caller's choice.
#[derive(Debug)]
pub struct Parser {
    bytes: Bytes,
    is_file: bool,
    phase: Phase,
    outer: OuterFields,
    info: InfoFields,
    unsorted: Option<BencodeError>,
    meta: Draft,
}

/// What is done next.
#[derive(Debug)]
enum Phase {
    /// All of it is hashed before it is looked at.
    Check(Box<Check>),
    Scan(Box<Scan>),
    /// All positions are known: the fields of `info` are read.
    Fields,
    Files(Box<FilesScan>),
    Collisions(Collisions),
    Hash(Box<Hashing>),
    Copy(Vec<u8>),
    Outer,
    Over,
}

/// Positions of the values of an `info`, and what was counted of them.
#[derive(Debug, Default)]
pub(super) struct InfoFields {
    /// All of it, as soon as it was found.
    pub(super) raw: Option<Range<usize>>,
    is_dict: bool,
    pub(super) name: Option<Range<usize>>,
    pub(super) name_utf8: Option<Range<usize>>,
    length: Option<Value>,
    files: Option<Value>,
    /// Values in the list `files`.
    file_count: u64,
    piece_len: Option<Value>,
    pieces: Option<Value>,
    fragment_len: Option<Value>,
    fragments: Option<Value>,
    version: Option<Value>,
    has_meta_version: bool,
    private: Option<Value>,
    extra: ExtraFields,
}

/// A value: where it stands, and what it is if it is a scalar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Int(i64),
    Bytes(Range<usize>),
    List(Range<usize>),
    Dict(Range<usize>),
}

impl Value {
    pub(super) fn int(&self) -> Option<i64> {
        if let Self::Int(int) = self { Some(*int) } else { None }
    }

    pub(super) fn bytes(&self) -> Option<Range<usize>> {
        if let Self::Bytes(range) = self { Some(range.clone()) } else { None }
    }

    pub(super) fn list(&self) -> Option<Range<usize>> {
        if let Self::List(range) = self { Some(range.clone()) } else { None }
    }
}

/// The scan of the document.
#[derive(Debug)]
struct Scan {
    scanner: Scanner,
    /// The keys of the values that are being read: of the document, and of `info`.
    outer_key: Range<usize>,
    info_key: Range<usize>,
    /// Where those values began.
    outer_start: usize,
    info_start: usize,
    /// Whether the list or dictionary that is one of those values is a dictionary.
    is_dict: [bool; 2],
    in_info: bool,
    in_files: bool,
}

/// The scan of `files`.
#[derive(Debug)]
struct FilesScan {
    scanner: Scanner,
    builder: FileListBuilder,
    extras: Vec<(u32, ExtraFields)>,
    name: Range<usize>,
    index: usize,
    file: FileFields,
    key: Range<usize>,
    /// The path that is being scanned, if one is: its components so far, and whether all are strings.
    path: Option<Paths>,
    total_len: u64,
}

/// The search for two files of one path, and for a file where another one needs a directory.
#[derive(Debug)]
enum Collisions {
    /// Collecting the files that are stored, while they turn out to be in order.
    Collect(Vec<u32>, usize),
    Sort(MergeSort),
    Compare(Vec<u32>, usize),
}

/// The hashes of `info`.
struct Hashing {
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    done: usize,
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hashing({})", self.done)
    }
}

/// Whether an `info` has the hashes that it should have; it is scanned then.
#[derive(Debug)]
struct Check {
    hashing: Hashing,
    sha1: Option<InfoHash>,
    sha256: Option<StId>,
    scan: Box<Scan>,
}

impl Check {
    fn step(&mut self, info: &[u8], allowance: &mut Allowance) -> Result<bool, MetainfoError> {
        if !self.hashing.step(info, allowance) {
            return Ok(false);
        }
        let sha1 = self.hashing.sha1.take().map(|hasher| Sha1Hash(hasher.finalize().into()));
        let sha256 = self.hashing.sha256.take().map(|hasher| Sha256Hash(hasher.finalize().into()));
        if (sha1, sha256) == (self.sha1, self.sha256) { Ok(true) } else { Err(MetainfoError::Hash) }
    }
}

/// What is known of the result so far.
#[derive(Debug, Default)]
struct Draft {
    files: FileList,
    extras: Vec<(u32, ExtraFields)>,
    is_single: bool,
    is_pure: bool,
    st_id: Option<StId>,
    info_hash: Option<Sha1Hash>,
    piece_len: u32,
}

impl Parser {
    /// A parser of a `.torrent` or `.st` file.
    #[must_use]
    pub fn file(bytes: impl Into<Bytes>) -> Self {
        Self::new(bytes.into(), true)
    }

    /// A parser of an `info` dictionary alone.
    #[must_use]
    pub fn info(bytes: impl Into<Bytes>) -> Self {
        Self::new(bytes.into(), false)
    }

    /// A parser of an `info` dictionary that must have these hashes, as far as they are given: [`MetainfoError::Hash`] if it has
    /// others, whatever it is.
    #[must_use]
    pub fn expecting(info: Bytes, sha1: Option<InfoHash>, sha256: Option<StId>) -> Self {
        let mut parser = Self::new(info, false);
        let hashing = Hashing { sha1: sha1.map(|_| Sha1::new()), sha256: sha256.map(|_| Sha256::new()), done: 0 };
        let scan = std::mem::replace(&mut parser.phase, Phase::Over);
        if let Phase::Scan(scan) = scan {
            parser.phase = Phase::Check(Box::new(Check { hashing, sha1, sha256, scan }));
        }
        parser
    }

    fn new(bytes: Bytes, is_file: bool) -> Self {
        let scanner = Scanner::new(0..bytes.len());
        let scan = Scan {
            scanner,
            outer_key: 0..0,
            info_key: 0..0,
            outer_start: 0,
            info_start: 0,
            is_dict: [false; 2],
            in_info: !is_file,
            in_files: false,
        };
        Self {
            bytes,
            is_file,
            phase: Phase::Scan(Box::new(scan)),
            outer: OuterFields::default(),
            info: InfoFields::default(),
            unsorted: None,
            meta: Draft::default(),
        }
    }

    /// Bytes that it reads.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it reads nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What it reads.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// See [`MetainfoError`].
    pub fn run(mut self) -> Result<Metainfo, MetainfoError> {
        loop {
            if let Some(result) = self.step(&mut Allowance::unlimited()) {
                return result;
            }
        }
    }

    /// Goes on until the allowance is spent. Returns the result once there is one; after that it must not be called again.
    ///
    /// # Panics
    /// If the result was returned before.
    pub fn step(&mut self, allowance: &mut Allowance) -> Option<Result<Metainfo, MetainfoError>> {
        while !allowance.is_spent() {
            match self.advance(allowance) {
                Ok(None) => {}
                Ok(Some(meta)) => return Some(Ok(*meta)),
                Err(error) => {
                    self.phase = Phase::Over;
                    return Some(Err(error));
                }
            }
        }
        None
    }

    fn advance(&mut self, allowance: &mut Allowance) -> Result<Option<Box<Metainfo>>, MetainfoError> {
        if matches!(self.phase, Phase::Check(_)) {
            let Phase::Check(mut check) = std::mem::replace(&mut self.phase, Phase::Over) else { return Ok(None) };
            self.phase =
                if check.step(&self.bytes, allowance)? { Phase::Scan(check.scan) } else { Phase::Check(check) };
            return Ok(None);
        }
        let next = match &mut self.phase {
            Phase::Check(_) => return Ok(None),
            Phase::Scan(scan) => {
                if !self.is_file && self.bytes.len() > INFO_LEN_MAX {
                    return Err(Limit::InfoLen(self.bytes.len()).into());
                }
                if self.bytes.len() > FILE_LEN_MAX {
                    return Err(Limit::FileLen(self.bytes.len()).into());
                }
                let fields = (&mut self.outer, &mut self.info);
                if !scan.step(&self.bytes, self.is_file, fields, allowance)? {
                    return Ok(None);
                }
                let unsorted = scan.scanner.unsorted();
                let problem = crate::codec::bencode::Problem::UnsortedKey;
                self.unsorted = unsorted.map(|offset| BencodeError { offset, problem });
                Phase::Fields
            }
            Phase::Fields => self.read_fields()?,
            Phase::Files(scan) => {
                let is_st = self.info.version.is_some();
                if !scan.step(&self.bytes, is_st, allowance)? {
                    return Ok(None);
                }
                self.meta.files = std::mem::take(&mut scan.builder).finish();
                self.meta.extras = std::mem::take(&mut scan.extras);
                Phase::Collisions(Collisions::Collect(Vec::new(), 0))
            }
            Phase::Collisions(collisions) => {
                let root_len = self.meta.files.first().and_then(|entry| entry.path.components().next());
                let root_len = root_len.map_or(0, |root| root.as_os_str().len());
                if !collisions.step(&self.meta.files, root_len, allowance)? {
                    return Ok(None);
                }
                self.read_pieces()?;
                let is_st = self.info.version.is_some();
                let hashing = Hashing {
                    sha1: (!is_st || !self.meta.is_pure).then(Sha1::new),
                    sha256: is_st.then(Sha256::new),
                    done: 0,
                };
                Phase::Hash(Box::new(hashing))
            }
            Phase::Hash(hashing) => {
                let raw = self.info.raw.clone().unwrap_or_default();
                if !hashing.step(&self.bytes[raw.clone()], allowance) {
                    return Ok(None);
                }
                self.meta.st_id = hashing.sha256.take().map(|hasher| Sha256Hash(hasher.finalize().into()));
                let sha1 = hashing.sha1.take().map(|hasher| Sha1Hash(hasher.finalize().into()));
                self.meta.info_hash = sha1.or(self.meta.st_id.map(|st_id| st_id.truncated()));
                if let Some(error) = self.unsorted.filter(|_| self.info.version.is_some()) {
                    // Keys out of order are forgiven to a `.torrent`, not to a `.st`.
                    return Err(MetainfoError::Bencode(error));
                }
                if self.bytes.allocated() - raw.len() > SHARED_MAX {
                    Phase::Copy(Vec::with_capacity(raw.len()))
                } else {
                    Phase::Outer
                }
            }
            Phase::Copy(copy) => {
                let raw = self.info.raw.clone().unwrap_or_default();
                let chunk = &self.bytes[raw.start + copy.len()..raw.end];
                let chunk = &chunk[..chunk.len().min(CHUNK)];
                allowance.spend_bytes(chunk.len());
                copy.extend_from_slice(chunk);
                if copy.len() < raw.len() {
                    return Ok(None);
                }
                Phase::Outer
            }
            Phase::Outer => {
                let meta = self.finish(allowance)?;
                self.phase = Phase::Over;
                return Ok(Some(Box::new(meta)));
            }
            Phase::Over => panic!("the result was returned before"),
        };
        if let (Phase::Outer, Phase::Copy(copy)) = (&next, &mut self.phase) {
            self.outer.copied_info = Some(Bytes::from(std::mem::take(copy)));
        }
        self.phase = next;
        Ok(None)
    }

    /// Reads what takes no loop, in the order in which problems are reported.
    fn read_fields(&mut self) -> Result<Phase, MetainfoError> {
        let info = &mut self.info;
        let Some(raw) = info.raw.clone() else {
            return Err(key("info", if self.outer.is_dict { "there" } else { "in a dictionary" }));
        };
        if raw.len() > INFO_LEN_MAX {
            return Err(Limit::InfoLen(raw.len()).into());
        }
        if !info.is_dict {
            return Err(key("info", "a dictionary"));
        }
        match &info.version {
            Some(version) if version.int() != Some(1) => {
                return Err(MetainfoError::Version(version.int().unwrap_or(0)));
            }
            None if info.pieces.is_none() && info.has_meta_version => return Err(MetainfoError::OnlyV2),
            _ => {}
        }
        let name = name_of(&self.bytes, info)?;
        safe(&self.bytes[name.clone()]).map_err(|problem| MetainfoError::Path { file: None, problem })?;
        match (&info.length, &info.files) {
            (Some(length), None) => {
                let len = length_of(length)?;
                if len > TOTAL_LEN_MAX {
                    return Err(Limit::TotalLen.into());
                }
                let mut builder = FileListBuilder::default();
                builder
                    .push([&self.bytes[name]], len, false)
                    .map_err(|_| MetainfoError::from(Limit::PathsLen(PATHS_LEN_MAX)))?;
                self.meta.files = builder.finish();
                self.meta.is_single = true;
                if !info.extra.is_empty() {
                    self.meta.extras.push((0, std::mem::take(&mut info.extra)));
                }
                Ok(Phase::Collisions(Collisions::Collect(Vec::new(), 0)))
            }
            (None, Some(files)) => {
                let list = files.list().ok_or(key("files", "a list"))?;
                if info.file_count > FILES_MAX as u64 {
                    return Err(Limit::Files(info.file_count).into());
                }
                if info.file_count == 0 {
                    return Err(key("files", "a list of at least one file"));
                }
                Ok(Phase::Files(Box::new(FilesScan {
                    scanner: Scanner::new(list),
                    builder: FileListBuilder::default(),
                    extras: Vec::new(),
                    name,
                    index: 0,
                    file: FileFields::default(),
                    key: 0..0,
                    path: None,
                    total_len: 0,
                })))
            }
            _ => Err(key("length", "there, or else `files`, and not both")),
        }
    }

    /// Judges the hashes of pieces.
    fn read_pieces(&mut self) -> Result<(), MetainfoError> {
        let info = &self.info;
        let is_st = info.version.is_some();
        let (len, count) = if is_st {
            let (len, count, is_pure) = st::read_fragments(&st::Fragments {
                len: info.fragment_len.as_ref().and_then(Value::int),
                hashes: info.fragments.as_ref().and_then(Value::bytes).map(|range| range.len()),
                piece_len: info.piece_len.as_ref().map(Value::int),
                pieces: info.pieces.as_ref().map(|pieces| pieces.bytes().map(|range| range.len())),
            })?;
            self.meta.is_pure = is_pure;
            (len, count)
        } else {
            let len = info.piece_len.as_ref().and_then(Value::int).filter(|&len| len > 0);
            let len = len.ok_or(key("piece length", "a number of bytes"))?;
            let len = u32::try_from(len).ok().filter(|&len| len <= PIECE_LEN_MAX).ok_or(Limit::PieceLen(len))?;
            let pieces = info.pieces.as_ref().and_then(Value::bytes).filter(|pieces| pieces.len().is_multiple_of(20));
            (len, pieces.ok_or(key("pieces", "a string of 20 bytes for each piece"))?.len() / 20)
        };
        self.meta.piece_len = len;
        let geometry = Geometry::new(self.meta.files.total_len(), len).ok_or(key("piece length", "longer"))?;
        if count != geometry.pieces() as usize {
            return Err(key(if is_st { "fragments" } else { "pieces" }, "one hash for each piece of the content"));
        }
        Ok(())
    }

    /// Puts everything together.
    fn finish(&mut self, allowance: &mut Allowance) -> Result<Metainfo, MetainfoError> {
        let raw = self.info.raw.clone().unwrap_or_default();
        let bytes = match self.outer.copied_info.take() {
            Some(copy) => copy,
            None => self.bytes.slice(raw.clone()),
        };
        let of = |value: &Option<Value>| {
            let range = value.as_ref().and_then(Value::bytes).unwrap_or_default();
            if range.is_empty() {
                return Bytes::default();
            }
            bytes.slice(range.start - raw.start..range.end - raw.start)
        };
        let is_st = self.info.version.is_some();
        let name = name_of(&self.bytes, &self.info)?;
        let pieces = of(&self.info.pieces);
        let draft = std::mem::take(&mut self.meta);
        let geometry = Geometry::new(draft.files.total_len(), draft.piece_len).ok_or(key("piece length", "longer"))?;
        let mut meta = Metainfo {
            info_hash: draft.info_hash.unwrap_or(Sha1Hash([0; 20])),
            st_id: draft.st_id,
            name: text(&self.bytes[name]),
            is_single: draft.is_single,
            geometry,
            wire_pieces: (is_st && !draft.is_pure).then(|| PieceHashes::Sha1(pieces.clone())),
            pieces: if is_st { PieceHashes::Sha256(of(&self.info.fragments)) } else { PieceHashes::Sha1(pieces) },
            files: std::sync::Arc::new(draft.files),
            private: self.info.private.as_ref().and_then(Value::int).is_some_and(|private| private != 0),
            extras: super::files::Extras::new(draft.extras, raw.start, bytes.clone()),
            is_pure: draft.is_pure,
            info: bytes,
            trackers: Vec::new(),
            comment: None,
            created_by: None,
            creation_date: None,
            encoding: None,
            web_seeds: Vec::new(),
            http_seeds: Vec::new(),
            nodes: Vec::new(),
            others: Vec::new(),
        };
        if self.is_file {
            meta.read_outer(&self.bytes, &mut self.outer, allowance)?;
        }
        Ok(meta)
    }
}

pub(super) fn length_of(value: &Value) -> Result<u64, MetainfoError> {
    value.int().and_then(|len| u64::try_from(len).ok()).ok_or(key("length", "a number of bytes"))
}

impl Scan {
    /// Scans on; true once the document is over.
    fn step(
        &mut self,
        bytes: &[u8],
        is_file: bool,
        (outer, info): (&mut OuterFields, &mut InfoFields),
        allowance: &mut Allowance,
    ) -> Result<bool, MetainfoError> {
        // How deep the entries of the document and of `info` are.
        let depth_of_info = if is_file { 2 } else { 1 };
        while !allowance.is_spent() {
            let (start, depth) = (self.scanner.position(), self.scanner.depth());
            let token = self.scanner.next(bytes, allowance).map_err(MetainfoError::Bencode)?;
            let end = self.scanner.position();
            match &token {
                Token::Over => return Ok(true),
                Token::Busy => continue,
                Token::Key(key) if depth == 1 && is_file => self.outer_key = key.clone(),
                Token::Key(key) if depth == depth_of_info && self.in_info => self.info_key = key.clone(),
                _ => {}
            }
            let is_value = !matches!(token, Token::Key(_) | Token::End);
            if is_value {
                let is_dict = token == Token::Dict;
                if depth == 0 {
                    outer.is_dict = is_dict;
                    if !is_file {
                        info.is_dict = is_dict;
                    }
                }
                if is_file && depth == 1 {
                    self.outer_start = start;
                    self.is_dict[0] = is_dict;
                    self.in_info = &bytes[self.outer_key.clone()] == b"info";
                    if self.in_info {
                        info.is_dict = is_dict;
                    }
                } else if self.in_info && info.is_dict && depth == depth_of_info {
                    self.info_start = start;
                    self.is_dict[1] = is_dict;
                    self.in_files = token == Token::List && &bytes[self.info_key.clone()] == b"files";
                } else if self.in_files && depth == depth_of_info + 1 {
                    info.file_count += 1;
                }
            }
            // Values end with their only token, or with the `End` that brings the depth back.
            let ends_at = match token {
                Token::Int(_) | Token::Bytes(_) => Some(depth),
                Token::End => Some(depth - 1),
                _ => None,
            };
            let Some(ends_at) = ends_at else { continue };
            let of = |start: usize, is_dict: bool| match &token {
                Token::Int(int) => Value::Int(*int),
                Token::Bytes(range) => Value::Bytes(range.clone()),
                _ if is_dict => Value::Dict(start..end),
                _ => Value::List(start..end),
            };
            if is_file && ends_at == 1 {
                if self.in_info {
                    info.raw = Some(self.outer_start..end);
                } else {
                    let value = of(self.outer_start, self.is_dict[0]);
                    outer.note(bytes, &self.outer_key, value, self.outer_start..end);
                }
                self.in_info = false;
            } else if self.in_info && info.is_dict && ends_at == depth_of_info {
                let value = of(self.info_start, self.is_dict[1]);
                info.note(&bytes[self.info_key.clone()], value);
                self.in_files = false;
            } else if !is_file && ends_at == 0 {
                info.raw = Some(0..end);
            }
        }
        Ok(false)
    }
}

impl InfoFields {
    fn note(&mut self, key: &[u8], value: Value) {
        let field = match key {
            b"name" => {
                self.name = value.bytes();
                return;
            }
            b"name.utf-8" => {
                self.name_utf8 = value.bytes();
                return;
            }
            b"meta version" => {
                self.has_meta_version = true;
                return;
            }
            b"length" => &mut self.length,
            b"files" => &mut self.files,
            b"piece length" => &mut self.piece_len,
            b"pieces" => &mut self.pieces,
            b"fragment length" => &mut self.fragment_len,
            b"fragments" => &mut self.fragments,
            b"st version" => &mut self.version,
            b"private" => &mut self.private,
            _ => return self.extra.note(key, &value),
        };
        *field = Some(value);
    }
}

impl FilesScan {
    /// Lists files; true once all are listed. The list's depth is 1, its files' 2, their paths' 3.
    fn step(&mut self, bytes: &[u8], is_st: bool, allowance: &mut Allowance) -> Result<bool, MetainfoError> {
        while !allowance.is_spent() {
            let (start, depth) = (self.scanner.position(), self.scanner.depth());
            let token = self.scanner.next(bytes, allowance).map_err(MetainfoError::Bencode)?;
            if depth == 1 && !matches!(token, Token::Dict | Token::End | Token::Busy) {
                return Err(key("files", "a list of dictionaries"));
            }
            match token {
                Token::Over => return Ok(true),
                Token::Key(key) if depth == 2 => self.key = key,
                Token::Int(int) if depth == 2 => self.file.note(&bytes[self.key.clone()], Value::Int(int)),
                Token::Bytes(range) if depth == 2 => self.file.note(&bytes[self.key.clone()], Value::Bytes(range)),
                Token::Dict if depth == 2 => self.file.note(&bytes[self.key.clone()], Value::Dict(start..start)),
                Token::List if depth == 2 => self.path = Some(Paths::begin(start)),
                Token::Bytes(range) if depth == 3 => {
                    if let Some(path) = &mut self.path {
                        path.push(bytes, range);
                    }
                }
                Token::Int(_) | Token::List | Token::Dict if depth == 3 => {
                    if let Some(path) = &mut self.path {
                        path.push_other();
                    }
                }
                Token::End if depth == 3 => {
                    let path = self.path.take();
                    self.file.note_list(&bytes[self.key.clone()], path);
                }
                Token::End if depth == 2 => self.end_file(bytes, is_st, allowance)?,
                _ => {}
            }
        }
        Ok(false)
    }

    fn end_file(&mut self, bytes: &[u8], is_st: bool, allowance: &mut Allowance) -> Result<(), MetainfoError> {
        let file = std::mem::take(&mut self.file);
        let attr = file.extra.attr(bytes);
        let (is_link, is_pad) = (attr.contains(&b'l'), attr.contains(&b'p'));
        // A link has no content, whatever it says of its length; libtorrent sees it the same way.
        let len = match &file.length {
            _ if is_link => 0,
            Some(length) => length_of(length)?,
            None => return Err(key("length", "there for every file")),
        };
        self.total_len = self.total_len.checked_add(len).filter(|&len| len <= TOTAL_LEN_MAX).ok_or(Limit::TotalLen)?;
        let name = &bytes[self.name.clone()];
        let too_long = |_| MetainfoError::from(Limit::PathsLen(PATHS_LEN_MAX));
        match file.path(bytes, is_st, self.index) {
            Ok(components) => {
                let parts = components.iter().map(|range| component(bytes, range));
                let path_len: usize = components.iter().map(|range| range.len() + 1).sum();
                allowance.spend_bytes(name.len() + path_len);
                self.builder.push(std::iter::once(name).chain(parts), len, is_link || is_pad).map_err(too_long)?;
            }
            Err(_) if is_pad && !is_st => {
                self.builder.push([name, b".pad"], len, true).map_err(too_long)?;
            }
            Err(error) => return Err(error),
        }
        if !file.extra.is_empty() {
            self.extras.push((u32::try_from(self.index).expect("FILES_MAX fits"), file.extra));
        }
        self.index += 1;
        Ok(())
    }
}

impl Collisions {
    /// Goes on; true once no two files collide for certain.
    fn step(&mut self, files: &FileList, root_len: usize, allowance: &mut Allowance) -> Result<bool, MetainfoError> {
        // All paths begin with the torrent's name.
        let path =
            |index: u32| files.entry(index as usize).path.as_os_str().as_bytes().get(root_len..).unwrap_or_default();
        let compare = |allowance: &mut Allowance, one: u32, other: u32| compare(allowance, path(one), path(other));
        match self {
            Self::Collect(indexes, next) => {
                while *next < files.len() {
                    if allowance.is_spent() {
                        return Ok(false);
                    }
                    allowance.spend(1);
                    if !files.entry(*next).pad {
                        indexes.push(u32::try_from(*next).expect("FILES_MAX fits"));
                    }
                    *next += 1;
                }
                *self = Self::Sort(MergeSort::new(std::mem::take(indexes)));
            }
            Self::Sort(sort) => {
                if sort.step(allowance, compare) {
                    let sort = std::mem::replace(sort, MergeSort::new(Vec::new()));
                    *self = Self::Compare(sort.into_items(), 0);
                }
            }
            Self::Compare(sorted, next) => {
                while let [one, other] = sorted[*next..sorted.len().min(*next + 2)] {
                    if allowance.is_spent() {
                        return Ok(false);
                    }
                    allowance.spend_bytes(path(one).len());
                    let rest = path(other).strip_prefix(path(one));
                    if rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/'))) {
                        let problem = super::PathProblem::Taken;
                        return Err(MetainfoError::Path { file: Some(other as usize), problem });
                    }
                    *next += 1;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Compares two paths component by component: a directory comes directly before what lies in it.
fn compare(allowance: &mut Allowance, one: &[u8], other: &[u8]) -> Ordering {
    let words = one.as_chunks::<16>().0.iter().zip(other.as_chunks::<16>().0);
    let equal = 16 * words.take_while(|(one, other)| one == other).count();
    let (rest, other_rest) = (&one[equal..], &other[equal..]);
    let equal_rest = rest.iter().zip(other_rest).take_while(|(one, other)| one == other).count();
    allowance.spend_bytes(equal + equal_rest);
    let rank = |byte: Option<&u8>| byte.map(|&byte| if byte == b'/' { 0 } else { byte });
    rank(rest.get(equal_rest)).cmp(&rank(other_rest.get(equal_rest)))
}

impl Hashing {
    /// Hashes on; true once everything is hashed.
    fn step(&mut self, info: &[u8], allowance: &mut Allowance) -> bool {
        let chunk = &info[self.done..info.len().min(self.done + CHUNK)];
        allowance.spend(chunk.len() / HASHED_PER_STEP + 1);
        self.sha1.iter_mut().for_each(|hasher| hasher.update(chunk));
        self.sha256.iter_mut().for_each(|hasher| hasher.update(chunk));
        self.done += chunk.len();
        self.done == info.len()
    }
}
