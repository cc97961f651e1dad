//! What libtorrent's `write_resume_data` gives, alone or with qBittorrent's keys: `*.fastresume` or `*.resume`, and `.torrent` beside.
//!
//! It notes no times of files. The resume file itself is the evidence: a file that was changed after it was written is not believed.

use std::path::{Path, PathBuf};

use super::{Found, Read, What, label, load, parse, pieces_where, refuse_unfinished_names, with_ending, with_trackers};
use crate::base::hash::hex;
use crate::codec::bencode::{self, Dict, DictWriter, VALUES_MAX, Value};
use crate::codec::import::{Evidence, Import};
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::Metainfo;

/// Everything in a directory. For qBittorrent it may be the one above, too.
pub(super) fn read(dir: &Path, is_qbittorrent: bool) -> Result<Vec<Read>, String> {
    let backup = ["BT_backup", "qBittorrent/data/BT_backup", "data/BT_backup"].map(|below| dir.join(below));
    let dir = backup.into_iter().find(|below| is_qbittorrent && below.is_dir()).unwrap_or_else(|| dir.to_owned());
    let resumes = with_ending(&dir, &[".fastresume", ".resume"])?;
    if resumes.is_empty()
        && is_qbittorrent
        && (dir.join("torrents.db").exists() || dir.with_file_name("torrents.db").exists())
    {
        return Err("this qBittorrent keeps its state in a database; have it keep files (Advanced, `Resume data storage type`), \
                    and end it again"
            .to_owned());
    }
    let found = |path: PathBuf| {
        let found = read_one(&path, is_qbittorrent);
        (path, found)
    };
    Ok(resumes.into_iter().map(found).collect())
}

fn read_one(path: &Path, is_qbittorrent: bool) -> Result<Found, String> {
    let bytes = load(path)?;
    let document = bencode::parse(&bytes, VALUES_MAX).map_err(|error| error.to_string())?;
    let dict = document.as_dict().ok_or("it is no resume file")?;
    if dict.bytes(b"file-format") != Some(b"libtorrent resume file") {
        return Err("it is no resume file of libtorrent".to_owned());
    }
    let text = |key: &[u8]| dict.bytes(key).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let flag = |key: &[u8]| dict.int(key) == Some(1);
    let tag = || {
        dict.list(b"qBt-tags").and_then(|tags| Some(String::from_utf8_lossy(tags.first()?.as_bytes()?).into_owned()))
    };
    let found = |what, dir| Found {
        what,
        dir,
        label: label(&text(b"qBt-category").filter(|label| !label.is_empty()).or_else(tag).unwrap_or_default()),
        // One that is paused and managed is paused by its session: when that ends, or until it is its turn.
        paused: flag(b"paused") && !flag(b"auto_managed"),
    };
    let dir = text(b"save_path").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let tiers: Vec<Vec<String>> = dict.list(b"trackers").unwrap_or_default().iter().map(tier).collect();
    let Some(metainfo) = metainfo_of(path, dict)? else {
        return Ok(found(What::Link(link(dict, tiers)?), dir));
    };
    let meta = parse(&metainfo)?;
    if dict.bytes(b"info-hash").is_some_and(|hash| hash != meta.info_hash.0) {
        return Err("its .torrent is another one's".to_owned());
    }
    let dir = dir.ok_or("it does not say where its content is")?;
    let advice = "turn `Append .!qB extension to incomplete files` off in qBittorrent";
    refuse_unfinished_names(&meta, &dir, ".!qB", advice)?;
    refuse_renamed(dict, &meta)?;
    let written = path.metadata().and_then(|file| file.modified()).ok();
    let written = written.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let written = written.and_then(|since| i64::try_from(since.as_secs()).ok());
    let import = import(dict, &meta, written, is_qbittorrent);
    let metainfo = if dict.get(b"trackers").is_some() { with_trackers(&metainfo, &meta, &tiers) } else { metainfo };
    Ok(found(What::Torrent(metainfo, Box::new(import)), Some(dir)))
}

fn tier(list: &Value<'_>) -> Vec<String> {
    let urls = list.as_list().unwrap_or_default().iter().filter_map(Value::as_bytes);
    urls.map(|url| String::from_utf8_lossy(url).into_owned()).collect()
}

/// The metainfo that is in the resume file, or beside it; none of what came as a link and has found nothing yet.
fn metainfo_of(path: &Path, dict: &Dict<'_>) -> Result<Option<Vec<u8>>, String> {
    if let Some(info) = dict.get(b"info") {
        let mut metainfo = Vec::new();
        let mut outer = DictWriter::begin(&mut metainfo);
        outer.key("info").extend(info.raw);
        outer.end();
        return Ok(Some(metainfo));
    }
    let hash = dict.bytes(b"info-hash").map(hex).unwrap_or_default();
    let beside = [path.with_extension("torrent"), path.with_file_name(format!("{hash}.torrent"))];
    beside.iter().find(|path| path.exists()).map(|path| load(path)).transpose()
}

fn link(dict: &Dict<'_>, tiers: Vec<Vec<String>>) -> Result<String, String> {
    let hash = dict.bytes(b"info-hash").filter(|hash| hash.len() == 20 && hash.iter().any(|byte| *byte != 0));
    let hash = hash.ok_or("it names no torrent that this version knows")?;
    let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{}", hex(hash))).map_err(|error| error.to_string())?;
    let name = dict.bytes(b"name").map(|name| String::from_utf8_lossy(name).into_owned());
    Ok(Magnet { name, trackers: tiers.into_iter().flatten().collect(), ..magnet }.to_string())
}

fn refuse_renamed(dict: &Dict<'_>, meta: &Metainfo) -> Result<(), String> {
    let mapped = dict.list(b"mapped_files").unwrap_or_default();
    for (file, entry) in mapped.iter().zip(meta.files.entries()).filter(|(_, entry)| !entry.pad) {
        let name = file.as_bytes().unwrap_or_default();
        if !name.is_empty() && name != entry.path.as_os_str().as_encoded_bytes() {
            return Err(format!(
                "its file {} is called {} there; give it its own name again",
                entry.path.display(),
                String::from_utf8_lossy(name)
            ));
        }
    }
    Ok(())
}

fn import(dict: &Dict<'_>, meta: &Metainfo, written: Option<i64>, is_qbittorrent: bool) -> Import {
    // Of what has no limit there is -1.
    let number = |key: &[u8]| dict.int(key).and_then(|int| u64::try_from(int).ok()).unwrap_or(0);
    let pieces = meta.geometry.pieces();
    let bytes = dict.bytes(b"pieces").unwrap_or_default();
    let is_bits = dict.int(b"file-version").is_some_and(|version| version >= 2);
    let len = if is_bits { pieces.div_ceil(8) } else { pieces } as usize;
    let has = |piece: u32| {
        let at = piece as usize;
        bytes.len() == len && if is_bits { bytes[at / 8] & (0x80 >> (at % 8)) != 0 } else { bytes[at] & 1 != 0 }
    };
    // A session that seeds unseen has verified nothing.
    let is_unseen = dict.int(b"seed_mode") == Some(1);
    let wanted = dict.list(b"file_priority").unwrap_or_default();
    let priority = |file: usize| match wanted.get(file).and_then(Value::as_int) {
        Some(0) => 0,
        // qBittorrent's usual one is libtorrent's lowest.
        Some(1) if is_qbittorrent => 2,
        Some(1..=3) => 1,
        Some(5..) => 3,
        _ => 2,
    };
    Import {
        have: if is_unseen { Vec::new() } else { pieces_where(pieces, has) },
        evidence: Evidence::HeldAt,
        times: vec![written; meta.files.len()],
        priorities: (0..meta.files.len()).map(priority).collect(),
        added: number(b"added_time"),
        finished: number(b"completed_time"),
        downloaded: number(b"total_downloaded"),
        uploaded: number(b"total_uploaded"),
        down_limit: number(b"download_rate_limit"),
        up_limit: number(b"upload_rate_limit"),
        ratio_millis: number(b"qBt-ratioLimit"),
        sequential: dict.int(b"sequential_download") == Some(1),
    }
}

/// A ratio in thousandths.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float is cut to what fits")]
pub(super) fn millis(ratio: f64) -> u64 {
    (ratio * 1000.0) as u64
}
