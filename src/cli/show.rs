//! `swarmtorrent show`: everything in a torrent file or magnet link, as a person would want to read it.

use std::path::Path;

use serde_json::json;

use crate::codec::control::escape;
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::{FILE_LEN_MAX, Metainfo};
use crate::codec::units::{human_size, moment};

/// Shows what is in a torrent file or magnet link.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A .st or .torrent file, a magnet link, or a bare hash.
    #[arg(value_name = "FILE|MAGNET")]
    source: String,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// Reads and parses a torrent file.
pub(crate) fn read(path: &Path) -> Result<Metainfo, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let len = std::fs::metadata(path).map_err(|error| told(&error))?.len();
    if len > FILE_LEN_MAX as u64 {
        return Err(told(&"it is too long for a torrent file"));
    }
    let bytes = std::fs::read(path).map_err(|error| told(&error))?;
    Metainfo::parse(&bytes).map_err(|error| told(&error))
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let path = Path::new(&args.source);
    if !path.exists()
        && let Ok(magnet) = Magnet::parse(&args.source)
    {
        show_magnet(&magnet, args.json);
        return Ok(());
    }
    let meta = read(path)?;
    if args.json {
        println!("{}", to_json(&meta));
    } else {
        print!("{}", to_text(&meta));
    }
    Ok(())
}

fn show_magnet(magnet: &Magnet, as_json: bool) {
    let hash = magnet.info_hash.map(|hash| hash.to_string());
    let st_id = magnet.st_id.map(|id| id.to_string());
    if as_json {
        let object = json!({
            "id": hash, "st_id": st_id, "name": magnet.name, "trackers": magnet.trackers, "web_seeds": magnet.web_seeds,
            "peers": magnet.peers, "select": magnet.select,
        });
        println!("{object}");
        return;
    }
    let mut lines = Vec::new();
    lines.extend(magnet.name.as_ref().map(|name| ("name", name.clone())));
    lines.extend(hash.map(|hash| ("hash", hash)));
    lines.extend(st_id.map(|id| ("st-id", id)));
    lines.extend(magnet.trackers.iter().map(|url| ("tracker", url.clone())));
    lines.extend(magnet.web_seeds.iter().map(|url| ("web seed", url.clone())));
    lines.extend(magnet.peers.iter().map(|peer| ("peer", peer.clone())));
    for (key, value) in lines {
        println!("{key:<9} {}", escape(&value));
    }
}

fn profile(meta: &Metainfo) -> &'static str {
    match (meta.st_id, meta.is_pure) {
        (None, _) => "BitTorrent v1",
        (Some(_), false) => ".st, compatible",
        (Some(_), true) => ".st, pure",
    }
}

fn to_text(meta: &Metainfo) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        text.push_str(&format!("{key:<9} {}\n", escape(value)));
    };
    line("name", &meta.name);
    line("kind", profile(meta));
    line("hash", &meta.info_hash.to_string());
    if let Some(st_id) = meta.st_id {
        line("st-id", &st_id.to_string());
    }
    let total = meta.geometry.total_len();
    line("size", &format!("{} ({total} bytes)", human_size(total)));
    let piece_len = u64::from(meta.geometry.piece_len());
    line("pieces", &format!("{} of {}", meta.geometry.pieces(), human_size(piece_len)));
    if meta.private {
        line("private", "yes: peers come from its trackers only");
    }
    for (key, note) in [("comment", &meta.comment), ("made by", &meta.created_by)] {
        if let Some(note) = note {
            line(key, note);
        }
    }
    if let Some(date) = meta.creation_date.and_then(|date| u64::try_from(date).ok()) {
        line("made", &moment(date));
    }
    for (tier, urls) in meta.trackers.iter().enumerate() {
        urls.iter().for_each(|url| line("tracker", &format!("{tier}: {url}")));
    }
    meta.web_seeds.iter().for_each(|url| line("web seed", url));
    meta.nodes.iter().for_each(|(host, port)| line("node", &format!("{host}:{port}")));
    line("magnet", &Magnet::of(meta).to_string());
    line("files", &meta.files.entries().iter().filter(|entry| !entry.pad).count().to_string());
    for (index, entry) in meta.files.entries().iter().enumerate().filter(|(_, entry)| !entry.pad) {
        line("", &format!("{index:>5} {:>10}  {}", human_size(entry.span.len), entry.path.to_string_lossy()));
    }
    text
}

fn to_json(meta: &Metainfo) -> serde_json::Value {
    let file = |(index, entry): (usize, &crate::base::files::FileEntry)| json!({ "index": index, "path": entry.path.to_string_lossy(), "size": entry.span.len, "pad": entry.pad });
    json!({
        "id": meta.info_hash.to_string(),
        "st_id": meta.st_id.map(|id| id.to_string()),
        "profile": profile(meta),
        "name": meta.name,
        "size": meta.geometry.total_len(),
        "piece_length": meta.geometry.piece_len(),
        "pieces": meta.geometry.pieces(),
        "private": meta.private,
        "comment": meta.comment,
        "created_by": meta.created_by,
        "creation_date": meta.creation_date,
        "trackers": meta.trackers,
        "web_seeds": meta.web_seeds,
        "nodes": meta.nodes,
        "magnet": Magnet::of(meta).to_string(),
        "files": meta.files.entries().iter().enumerate().map(file).collect::<Vec<_>>(),
    })
}
