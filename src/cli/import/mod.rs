//! `swarmtorrent import`: torrents of another client, with what it knows of their content, so that nothing is downloaded or hashed anew.
//!
//! Each client's directory is read in a file of its own; the daemon is told in parts (`part`, `add parts:`). What is claimed here is
//! believed there as far as the files bear it out. What cannot be said in the daemon's terms, such as files with other names, is
//! refused with a reason, and the other torrents go on.

mod libtorrent;
mod rtorrent;
mod transmission;

use std::path::{Path, PathBuf};

use crate::base::bitfield::Bitfield;
use crate::cli::ctl;
use crate::cli::daemon::Daemon;
use crate::cli::progress::say;
use crate::codec::bencode::{self, DictWriter, VALUES_MAX};
use crate::codec::control::escape;
use crate::codec::import::Import;
use crate::codec::metainfo::Metainfo;
use crate::daemon::load::{METAINFO_MAX, read_regular};
use crate::torrent::settings::LABEL_MAX;

/// Takes the torrents of another client into the daemon, with what it knows of their content.
///
/// End the other client first, so that what it knows is on the disk. Nothing of its own is changed. A piece that it had is believed
/// where its files are there, whole and not changed since; other pieces that it claims are hashed.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Whose directory it is.
    client: Client,
    /// Where it keeps its state: transmission's config directory, rtorrent's session, qBittorrent's BT_backup (or its data directory),
    /// or *.resume and *.fastresume files of libtorrent.
    dir: PathBuf,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// The daemon's control socket; the user's own if there is one, else that of the system.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// A client whose state can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Client {
    /// transmission-daemon, transmission-gtk, transmission-qt.
    Transmission,
    /// rtorrent.
    Rtorrent,
    /// qBittorrent and qbittorrent-nox, 4.2 or later.
    Qbittorrent,
    /// Programs that keep what libtorrent's `write_resume_data` gives.
    Libtorrent,
}

/// A torrent of another client.
#[derive(Debug)]
struct Found {
    what: What,
    /// The directory that holds it; none where the daemon's own will do.
    dir: Option<PathBuf>,
    label: String,
    paused: bool,
}

#[derive(Debug)]
enum What {
    Torrent(Vec<u8>, Box<Import>),
    Link(String),
}

/// Files of one torrent, and what came of them.
type Read = (PathBuf, Result<Found, String>);

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let all = match args.client {
        Client::Transmission => transmission::read(&args.dir)?,
        Client::Rtorrent => rtorrent::read(&args.dir)?,
        Client::Qbittorrent => libtorrent::read(&args.dir, true)?,
        Client::Libtorrent => libtorrent::read(&args.dir, false)?,
    };
    if all.is_empty() {
        return Err(format!("{}: there is no torrent here; is it the right directory?", args.dir.display()));
    }
    let mut daemon = if args.dry_run { None } else { Some(Daemon::connect(args.socket.as_deref())?) };
    let (mut taken, mut refused) = (0, 0);
    for (path, found) in all {
        let told = found.and_then(|found| match &mut daemon {
            Some(daemon) => add(daemon, &found),
            None => preview(&found),
        });
        match told {
            Ok(line) => {
                taken += 1;
                say(&escape(&line));
            }
            Err(why) => {
                refused += 1;
                say(&escape(&format!("not taken over: {}: {why}", path.display())));
            }
        }
    }
    let verb = if args.dry_run { "would be taken over" } else { "taken over" };
    match refused {
        0 => say(&format!("{taken} {verb}")),
        _ => return Err(format!("{taken} {verb}, {refused} not; see above for the reasons")),
    }
    Ok(())
}

/// What would be done with a torrent.
fn preview(found: &Found) -> Result<String, String> {
    let dir = found.dir.as_ref().map_or_else(|| "the daemon's directory".to_owned(), |dir| dir.display().to_string());
    let (id, name, pieces) = match &found.what {
        What::Link(link) => return Ok(format!("would add {link} to {dir}")),
        What::Torrent(metainfo, import) => {
            let meta = parse(metainfo)?;
            let pieces = meta.geometry.pieces();
            let have = Bitfield::from_bytes(&import.have, pieces).map_or(0, |have| have.count());
            (meta.info_hash, meta.name, format!("{have} of {pieces} pieces"))
        }
    };
    let label = if found.label.is_empty() { String::new() } else { format!(", label {}", found.label) };
    let paused = if found.paused { ", paused" } else { "" };
    Ok(format!("would add {id} {name}: {pieces} in {dir}{label}{paused}"))
}

/// Has the daemon take a torrent over; what became of it.
fn add(daemon: &mut Daemon, found: &Found) -> Result<String, String> {
    let source = match &found.what {
        What::Link(link) => link.clone(),
        What::Torrent(metainfo, import) => {
            daemon.send_parts(&import.to_bytes(metainfo))?;
            "parts:".to_owned()
        }
    };
    let mut words = vec!["json".to_owned(), "add".to_owned(), source];
    if let Some(dir) = &found.dir {
        let dir = dir.to_str().ok_or_else(|| format!("{}: the path is not UTF-8; rename it", dir.display()))?;
        words.push(format!("dir={dir}"));
    }
    if !found.label.is_empty() {
        words.push(format!("label={}", found.label));
    }
    if found.paused {
        words.push("paused=yes".to_owned());
    }
    let (_, closing) = daemon.ask(&ctl::line(&words)?)?;
    let id = closing["id"].as_str().unwrap_or_default().to_owned();
    let (rows, _) = daemon.ask(&format!("json show {id}"))?;
    let row = rows.into_iter().next().unwrap_or_default();
    let share = row["progress"].as_f64().unwrap_or(0.0) * 100.0;
    let rest = if row["state"] == "checking" { ", and more is being hashed" } else { "" };
    Ok(format!("{id} {}: {share:.1}% is here{rest}", row["name"].as_str().unwrap_or_default()))
}

fn parse(metainfo: &[u8]) -> Result<Metainfo, String> {
    Metainfo::parse(metainfo).map_err(|error| error.to_string())
}

/// A file of another client's.
fn load(path: &Path) -> Result<Vec<u8>, String> {
    read_regular(path, METAINFO_MAX)
}

/// The files of a directory whose names end so, in the order of their names.
fn with_ending(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", dir.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(told)? {
        let path = entry.map_err(told)?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| endings.iter().any(|e| name.ends_with(e)))
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A label as the daemon takes one.
fn label(text: &str) -> String {
    let mut label: String = text.chars().filter(|c| !c.is_control()).collect();
    while label.len() > LABEL_MAX {
        label.pop();
    }
    label
}

/// The pieces for which `has` is true.
fn pieces_where(pieces: u32, has: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut have = Bitfield::new(pieces);
    for piece in (0..pieces).filter(|piece| has(*piece)) {
        have.set(piece);
    }
    have.as_bytes().to_vec()
}

/// Refuses content of which a file is there under the name that the other client gives to what is unfinished.
fn refuse_unfinished_names(meta: &Metainfo, dir: &Path, ending: &str, advice: &str) -> Result<(), String> {
    for entry in meta.files.entries().filter(|entry| !entry.pad) {
        let path = dir.join(entry.path);
        let mut unfinished = path.clone().into_os_string();
        unfinished.push(ending);
        if !path.exists() && Path::new(&unfinished).exists() {
            return Err(format!("{} is unfinished and has another name; {advice}", Path::new(&unfinished).display()));
        }
    }
    Ok(())
}

/// The metainfo with other trackers, where they are others; its `info` stays byte for byte.
fn with_trackers(metainfo: &[u8], meta: &Metainfo, tiers: &[Vec<String>]) -> Vec<u8> {
    let tiers: Vec<_> = tiers.iter().filter(|tier| !tier.is_empty()).collect();
    if tiers.iter().copied().eq(meta.trackers.iter()) {
        return metainfo.to_vec();
    }
    let Some(document) = bencode::parse(metainfo, VALUES_MAX).ok() else { return metainfo.to_vec() };
    let Some(dict) = document.as_dict() else { return metainfo.to_vec() };
    let is_tracker = |key: &[u8]| key == b"announce" || key == b"announce-list";
    let mut entries: Vec<(&[u8], Vec<u8>)> = dict
        .entries()
        .iter()
        .filter(|(key, _)| !is_tracker(key))
        .map(|(key, value)| (*key, value.raw.to_vec()))
        .collect();
    if let Some(first) = tiers.first().and_then(|tier| tier.first()) {
        let text = |url: &str| {
            let mut out = Vec::new();
            bencode::write_bytes(&mut out, url.as_bytes());
            out
        };
        let mut list = b"l".to_vec();
        for tier in &tiers {
            list.push(b'l');
            tier.iter().for_each(|url| list.extend(text(url)));
            list.push(b'e');
        }
        list.push(b'e');
        entries.push((b"announce", text(first)));
        entries.push((b"announce-list", list));
    }
    entries.sort();
    let mut out = Vec::new();
    let mut dict = DictWriter::begin(&mut out);
    for (key, value) in entries {
        dict.key(key).extend(value);
    }
    dict.end();
    out
}

#[cfg(test)]
mod tests;
