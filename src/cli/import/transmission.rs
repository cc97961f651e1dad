//! transmission's config directory: `torrents/*.torrent` or `*.magnet`, and `resume/*.resume` beside.
//!
//! Version 3 notes when it last checked each file, version 4 when each file was last changed; what it has is a bit for each 16 KiB block.

use std::path::{Path, PathBuf};

use super::{Found, Read, What, label, load, parse, pieces_where, refuse_unfinished_names, with_ending};
use crate::base::geometry::Piece;
use crate::codec::bencode::{self, Dict, VALUES_MAX, Value};
use crate::codec::import::{Evidence, Import};
use crate::codec::metainfo::Metainfo;

/// Bytes of a block.
const BLOCK: u64 = 16 * 1024;

/// Everything in a config directory.
pub(super) fn read(dir: &Path) -> Result<Vec<Read>, String> {
    let torrents = with_ending(&dir.join("torrents"), &[".torrent", ".magnet"])?;
    Ok(torrents
        .into_iter()
        .map(|path| {
            let found = read_one(&path, &dir.join("resume"));
            (path, found)
        })
        .collect())
}

fn read_one(path: &Path, resumes: &Path) -> Result<Found, String> {
    let bytes = load(path)?;
    let stem = path.file_stem().unwrap_or_default();
    let mut resume = resumes.join(stem).into_os_string();
    resume.push(".resume");
    let resume = load(Path::new(&resume))?;
    let document = bencode::parse(&resume, VALUES_MAX).map_err(|error| format!("its resume file: {error}"))?;
    let dict = document.as_dict().ok_or("its resume file is none")?;
    let text = |key: &[u8]| dict.bytes(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let labels = dict.list(b"labels").and_then(|list| list.first()?.as_bytes()).unwrap_or_default();
    let found = |what, dir| Found {
        what,
        dir,
        label: label(&String::from_utf8_lossy(labels)),
        paused: dict.int(b"paused") == Some(1),
    };
    let destination = text(b"destination").map(PathBuf::from);
    if path.extension().is_some_and(|ending| ending == "magnet") {
        let link = String::from_utf8(bytes).map_err(|_| "the link is not UTF-8")?;
        return Ok(found(What::Link(link.trim().to_owned()), destination));
    }
    let meta = parse(&bytes)?;
    refuse_renamed(dict, &meta)?;
    let is_complete = dict.dict(b"progress").and_then(|progress| progress.bytes(b"blocks")) == Some(b"all");
    let incomplete = text(b"incomplete-dir").filter(|dir| !dir.is_empty() && !is_complete).map(PathBuf::from);
    let place = match (incomplete, destination) {
        (Some(dir), _) if meta.files.entries().any(|entry| dir.join(entry.path).exists()) => dir,
        (_, Some(dir)) => dir,
        _ => return Err("its resume file does not say where it is".to_owned()),
    };
    let advice = "have transmission finish it, or rename the file without the `.part`";
    refuse_unfinished_names(&meta, &place, ".part", advice)?;
    let import = import(dict, &meta);
    Ok(found(What::Torrent(bytes, Box::new(import)), Some(place)))
}

fn refuse_renamed(dict: &Dict<'_>, meta: &Metainfo) -> Result<(), String> {
    let is_other = |name: &[u8], own: &Path| !name.is_empty() && name != own.as_os_str().as_encoded_bytes();
    let name = dict.bytes(b"name").unwrap_or_default();
    let top = meta.files.first().and_then(|entry| entry.path.components().next());
    let files = dict.list(b"files").unwrap_or_default();
    let is_renamed = top.is_some_and(|top| is_other(name, top.as_ref()))
        || files
            .iter()
            .zip(meta.files.entries())
            .any(|(file, entry)| is_other(file.as_bytes().unwrap_or_default(), entry.path));
    if is_renamed {
        return Err("files of it were renamed; give them their own names again in transmission".to_owned());
    }
    Ok(())
}

fn import(dict: &Dict<'_>, meta: &Metainfo) -> Import {
    let number = |key: &[u8]| dict.int(key).and_then(|int| u64::try_from(int).ok()).unwrap_or(0);
    let limit = |key: &[u8]| {
        let limit = dict.dict(key).filter(|limit| limit.int(b"use-speed-limit") == Some(1));
        limit.and_then(|limit| u64::try_from(limit.int(b"speed-Bps")?).ok()).unwrap_or(0)
    };
    let mut import = Import {
        added: number(b"added-date"),
        finished: number(b"done-date"),
        downloaded: number(b"downloaded"),
        uploaded: number(b"uploaded"),
        down_limit: limit(b"speed-limit-down"),
        up_limit: limit(b"speed-limit-up"),
        ratio_millis: dict.dict(b"ratio-limit").map_or(0, ratio),
        sequential: dict.int(b"sequentialDownload") == Some(1),
        priorities: priorities(dict, meta),
        ..Import::default()
    };
    let Some(progress) = dict.dict(b"progress") else { return import };
    let has_piece = blocks(progress, meta);
    let checked = Checked::of(progress, meta);
    import.evidence = checked.evidence;
    import.have = pieces_where(meta.geometry.pieces(), |piece| has_piece(piece) && checked.pieces[piece as usize]);
    import.times = checked.times;
    import
}

/// A limit of its own: 1 says that it has one.
fn ratio(dict: &Dict<'_>) -> u64 {
    let own = dict.int(b"ratio-mode") == Some(1);
    let text = dict.bytes(b"ratio-limit").and_then(|bytes| std::str::from_utf8(bytes).ok());
    let ratio = text.filter(|_| own).and_then(|text| text.parse::<f64>().ok()).filter(|ratio| *ratio > 0.0);
    ratio.map_or(0, super::libtorrent::millis)
}

fn priorities(dict: &Dict<'_>, meta: &Metainfo) -> Vec<u8> {
    let list = |key: &[u8]| dict.list(key).unwrap_or_default();
    let (unwanted, priority) = (list(b"dnd"), list(b"priority"));
    let of =
        |file: usize| match (unwanted.get(file).and_then(Value::as_int), priority.get(file).and_then(Value::as_int)) {
            (Some(1), _) => 0,
            (_, Some(..=-1)) => 1,
            (_, Some(1..)) => 3,
            _ => 2,
        };
    (0..meta.files.len()).map(of).collect()
}

/// Which pieces are there in whole.
fn blocks<'a>(progress: &Dict<'a>, meta: &Metainfo) -> impl Fn(u32) -> bool + use<'a> {
    let geometry = meta.geometry;
    let bits = progress.bytes(b"blocks").unwrap_or_default();
    let is_divided = u64::from(geometry.piece_len()).is_multiple_of(BLOCK);
    let has_block = move |block: u64| {
        let byte = usize::try_from(block / 8).ok().and_then(|at| bits.get(at));
        byte.is_some_and(|byte| byte & (0x80 >> (block % 8)) != 0)
    };
    move |piece| match bits {
        b"all" => true,
        b"none" => false,
        _ if !is_divided => false,
        _ => {
            let span = geometry.span_of(Piece(piece));
            (span.offset / BLOCK..span.end().div_ceil(BLOCK)).all(has_block)
        }
    }
}

/// What was checked, and what files looked like then.
struct Checked {
    evidence: Evidence,
    /// By piece.
    pieces: Vec<bool>,
    /// By file.
    times: Vec<Option<i64>>,
}

impl Checked {
    fn of(progress: &Dict<'_>, meta: &Metainfo) -> Self {
        let count = meta.geometry.pieces() as usize;
        if let Some(changed) = progress.list(b"mtimes") {
            let bits = progress.bytes(b"pieces").unwrap_or_default();
            let is_checked = |piece: usize| match bits {
                b"all" => true,
                b"none" => false,
                bits => bits.get(piece / 8).is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0),
            };
            let times = changed.iter().map(|time| time.as_int().filter(|time| *time > 0)).collect();
            return Self { evidence: Evidence::ChangedAt, pieces: (0..count).map(is_checked).collect(), times };
        }
        let mut checked = Self { evidence: Evidence::HeldAt, pieces: vec![true; count], times: Vec::new() };
        let files = progress.list(b"time-checked").unwrap_or_default();
        for (file, entry) in files.iter().zip(meta.files.entries()) {
            let pieces = meta.geometry.pieces_of(entry.span);
            let of_piece: Vec<i64> = match (file.as_int(), file.as_list()) {
                (Some(all), _) => vec![all; pieces.len()],
                // The first is what the others count from, of which 0 is never.
                (_, Some([base, rest @ ..])) => {
                    let base = base.as_int().unwrap_or(0);
                    let time = |after: i64| if after > 0 { base.saturating_add(after) } else { 0 };
                    rest.iter().map(|after| time(after.as_int().unwrap_or(0))).collect()
                }
                _ => Vec::new(),
            };
            for (at, piece) in pieces.enumerate() {
                checked.pieces[piece as usize] &= of_piece.get(at).is_some_and(|time| *time > 0);
            }
            checked.times.push(of_piece.into_iter().filter(|time| *time > 0).min());
        }
        checked
    }
}
