//! `swarmtorrent show`: everything in a torrent file or magnet link, as a person would want to read it.

use std::path::Path;

use serde_json::json;

use crate::base::files::FileEntry;
use crate::base::hash::hex;
use crate::cli::output::{read_regular, shown};
use crate::cli::progress::say;
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

/// Reads and parses a torrent file; anything but a regular file is refused.
pub(crate) fn read(path: &Path) -> Result<Metainfo, String> {
    let bytes = read_regular(path, FILE_LEN_MAX as u64)?;
    Metainfo::parse(&bytes).map_err(|error| format!("{}: {error}", shown(path)))
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
    say(&if args.json { to_json(&meta).to_string() } else { to_text(&meta) });
    Ok(())
}

fn show_magnet(magnet: &Magnet, as_json: bool) {
    let hash = magnet.info_hash.map(|hash| hash.to_string());
    let st_id = magnet.st_id.map(|id| id.to_string());
    let publisher = magnet.publisher.as_ref();
    let (key, salt) = (publisher.map(|publisher| hex(&publisher.key)), publisher.map(|publisher| hex(&publisher.salt)));
    let target = publisher.map(|publisher| publisher.target().to_string());
    if as_json {
        let object = json!({
            "key": key, "salt": salt, "target": target, "id": hash, "st_id": st_id, "name": magnet.name, "trackers": magnet.trackers, "web_seeds": magnet.web_seeds,
            "peers": magnet.peers, "select": magnet.select,
        });
        say(&object.to_string());
        return;
    }
    let mut lines = Vec::new();
    lines.extend(magnet.name.as_ref().map(|name| ("name", name.clone())));
    lines.extend(hash.map(|hash| ("hash", hash)));
    lines.extend(st_id.map(|id| ("st-id", id)));
    lines.extend(key.map(|key| ("key", key)));
    lines.extend(salt.filter(|salt| !salt.is_empty()).map(|salt| ("salt", salt)));
    lines.extend(target.map(|target| ("target", target)));
    lines.extend(magnet.trackers.iter().map(|url| ("tracker", url.clone())));
    lines.extend(magnet.web_seeds.iter().map(|url| ("web seed", url.clone())));
    lines.extend(magnet.peers.iter().map(|peer| ("peer", peer.clone())));
    lines.extend(magnet.select.iter().map(|(first, last)| ("files", format!("{first} to {last}"))));
    for (key, value) in lines {
        say(&format!("{key:<9} {}", escape(&value)));
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
    meta.http_seeds.iter().for_each(|url| line("seed", &format!("{url} (BEP 17)")));
    meta.nodes.iter().for_each(|(host, port)| {
        line("node", &if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    });
    line("magnet", &Magnet::of(meta).to_string());
    line("files", &meta.files.entries().filter(|entry| !entry.pad).count().to_string());
    for (index, entry) in meta.files.entries().enumerate().filter(|(_, entry)| !entry.pad) {
        let extra = meta.extras.get(index);
        let marks = [("x", "executable"), ("h", "hidden")].into_iter().filter(|(mark, _)| extra.attr.contains(mark));
        let mut notes: Vec<String> = marks.map(|(_, meaning)| meaning.to_owned()).collect();
        notes.extend(extra.md5sum.map(|sum| format!("MD5 {sum}")));
        let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
        let size = human_size(entry.span.len);
        line("", &format!("{index:>5} {size:>10}  {}{notes}", entry.path.to_string_lossy()));
    }
    text.truncate(text.trim_end().len());
    text
}

fn to_json(meta: &Metainfo) -> serde_json::Value {
    let file = |(index, entry): (usize, FileEntry<'_>)| {
        let extra = meta.extras.get(index);
        json!({
            "index": index, "path": entry.path.to_string_lossy(), "size": entry.span.len, "pad": entry.pad,
            "attr": extra.attr, "md5sum": extra.md5sum,
        })
    };
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
        "encoding": meta.encoding,
        "trackers": meta.trackers,
        "web_seeds": meta.web_seeds,
        "http_seeds": meta.http_seeds,
        "nodes": meta.nodes,
        "magnet": Magnet::of(meta).to_string(),
        "files": meta.files.entries().enumerate().map(file).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: &[u8] = b"d7:comment5:a\x1b[2J4:infod5:filesld4:attr1:x6:lengthi5e4:pathl3:a\nbee\
d4:attr1:p6:lengthi3e4:pathl4:.padeee4:name1:r12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";

    #[test]
    fn nothing_that_a_stranger_wrote_can_steer_the_terminal() {
        let text = to_text(&Metainfo::parse(TORRENT).unwrap());
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(text.contains(r"r/a\nb  (executable)"), "{text}");
        assert!(!text.contains(".pad"), "{text}");
    }

    #[test]
    fn the_object_names_every_file_by_its_index() {
        let object = to_json(&Metainfo::parse(TORRENT).unwrap());
        assert_eq!(object["files"][0]["attr"], "x");
        assert_eq!(object["files"][1]["pad"], true);
        assert_eq!((&object["size"], &object["piece_length"]), (&json!(8), &json!(16384)));
    }
}
