//! rtorrent's session directory: `HASH.torrent`, `HASH.torrent.libtorrent_resume` and `HASH.torrent.rtorrent`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Found, Read, What, label, load, parse, pieces_where, with_ending, with_trackers};
use crate::codec::bencode::{self, Dict, VALUES_MAX};
use crate::codec::import::{Evidence, Import};
use crate::codec::metainfo::Metainfo;

/// Everything in a session directory.
pub(super) fn read(dir: &Path) -> Result<Vec<Read>, String> {
    let torrents = with_ending(dir, &[".torrent"])?;
    let found = |path: PathBuf| {
        let found = read_one(&path);
        (path, found)
    };
    Ok(torrents.into_iter().map(found).collect())
}

fn beside(path: &Path, ending: &str) -> Result<Vec<u8>, String> {
    let mut name = path.to_owned().into_os_string();
    name.push(ending);
    load(Path::new(&name))
}

fn read_one(path: &Path) -> Result<Found, String> {
    let metainfo = load(path)?;
    let (session, resume) = (beside(path, ".rtorrent")?, beside(path, ".libtorrent_resume")?);
    let read = |bytes| bencode::parse(bytes, VALUES_MAX).map_err(|error| format!("its session file: {error}"));
    let (session, resume) = (read(&session)?, read(&resume)?);
    let (session, resume) = session.as_dict().zip(resume.as_dict()).ok_or("its session files are none")?;
    let text = |key: &[u8]| session.bytes(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let found = |what, dir| Found {
        what,
        dir,
        label: label(&decode(&text(b"custom1").unwrap_or_default())),
        paused: session.int(b"state") == Some(0),
    };
    let directory = text(b"directory").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    // Of a link it keeps a file that is none.
    let document = read(&metainfo)?;
    if let Some(link) = document.as_dict().and_then(|dict| dict.bytes(b"magnet-uri")) {
        return Ok(found(What::Link(String::from_utf8_lossy(link).into_owned()), directory));
    }
    let meta = parse(&metainfo)?;
    let directory = directory.ok_or("its session file does not say where it is")?;
    let dir = if meta.is_single {
        directory
    } else {
        let name = meta.files.first().and_then(|entry| entry.path.components().next());
        match (directory.parent(), directory.file_name(), name) {
            (Some(parent), Some(own), Some(name)) if own == name.as_os_str() => parent.to_owned(),
            _ => {
                return Err(format!(
                    "its files lie in {}, which does not have its name, {}; rename the directory, and have rtorrent know it \
                     (d.directory_base.set)",
                    directory.display(),
                    meta.name
                ));
            }
        }
    };
    let import = import(session, resume, &meta);
    let metainfo = with_trackers(&metainfo, &meta, &trackers(resume, &meta));
    Ok(found(What::Torrent(metainfo, Box::new(import)), Some(dir)))
}

fn import(session: &Dict<'_>, resume: &Dict<'_>, meta: &Metainfo) -> Import {
    let number = |key: &[u8]| session.int(key).and_then(|int| u64::try_from(int).ok()).unwrap_or(0);
    let pieces = meta.geometry.pieces();
    // What was downloaded last may not have been on the disk.
    let (uncertain, odd) = resume.bytes(b"uncertain_pieces").unwrap_or_default().as_chunks::<4>();
    let uncertain: BTreeSet<u32> = uncertain.iter().map(|bytes| u32::from_be_bytes(*bytes)).collect();
    let (all, bits) = (resume.int(b"bitfield"), resume.bytes(b"bitfield").unwrap_or_default());
    let is_whole = bits.len() == pieces.div_ceil(8) as usize;
    let has = |piece: u32| {
        let bit = bits.get(piece as usize / 8).is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0);
        odd.is_empty() && !uncertain.contains(&piece) && (all == Some(i64::from(pieces)) || (is_whole && bit))
    };
    let files = resume.list(b"files").unwrap_or_default();
    let of_file = |file: usize, key: &[u8]| files.get(file)?.as_dict()?.int(key);
    let priority = |file: usize| match of_file(file, b"priority") {
        Some(0) => 0,
        Some(2) => 3,
        _ => 2,
    };
    Import {
        have: pieces_where(pieces, has),
        evidence: Evidence::ChangedAt,
        times: (0..meta.files.len()).map(|file| of_file(file, b"mtime").filter(|time| *time > 0)).collect(),
        priorities: (0..meta.files.len()).map(priority).collect(),
        added: number(b"timestamp.started"),
        finished: number(b"timestamp.finished"),
        downloaded: number(b"total_downloaded"),
        uploaded: number(b"total_uploaded"),
        ..Import::default()
    }
}

/// Those of the metainfo without those that the user turned off, and what the user added.
fn trackers(resume: &Dict<'_>, meta: &Metainfo) -> Vec<Vec<String>> {
    let known = resume.dict(b"trackers").map(Dict::entries).unwrap_or_default();
    let flag = |url: &str, key: &[u8]| {
        let entry = known.iter().find(|(known, _)| *known == url.as_bytes());
        entry.and_then(|(_, value)| value.as_dict()?.int(key))
    };
    let mut tiers = meta.trackers.clone();
    tiers.iter_mut().for_each(|tier| tier.retain(|url| flag(url, b"enabled") != Some(0)));
    for (url, value) in known {
        let Ok(url) = std::str::from_utf8(url) else { continue };
        let is_on = |key: &[u8]| value.as_dict().and_then(|dict| dict.int(key)) == Some(1);
        if is_on(b"extra_tracker") && is_on(b"enabled") && url.contains("://") && !url.starts_with("dht://") {
            tiers.push(vec![url.to_owned()]);
        }
    }
    tiers
}

/// A label as ruTorrent writes it, percent-encoded.
fn decode(text: &str) -> String {
    let escaped = format!("l={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(escaped.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}
