//! `swarmtorrent create`: hashes a file or directory and writes a `.st` or `.torrent` that describes it.
//!
//! Symbolic links and special files are left out, with a line that says so. An existing file is never overwritten, and
//! what cannot work is said before anything is hashed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::cli::output::{refuse_existing, shown, write_new};
use crate::cli::progress::{reading, say};
use crate::codec::magnet::Magnet;
use crate::codec::metainfo::{Limit, Metainfo, MetainfoError};
use crate::codec::url::{Scheme, TrackerUrl};
use crate::daemon::load::open_at_once;
use crate::torrent::create::{Creator, NewFile, Notes, Profile, piece_len_for};

/// Bytes read at a time.
const READ_LEN: usize = 1 << 20;

/// Makes a torrent of a file or directory; prints its hash and its magnet link.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The file or directory.
    path: PathBuf,
    /// Where the torrent goes; NAME.st (or .torrent) here if not given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What is made: compatible and pure are .st files, v1 is a .torrent; v2 and hybrid are not in this version.
    #[arg(long, value_name = "PROFILE", default_value = "compatible",
          value_parser = PossibleValuesParser::new(["compatible", "pure", "v1", "v2", "hybrid"]).try_map(profile))]
    profile: Profile,
    /// Bytes of a piece: a power of two from 16384 to 67108864; chosen by the content's size if not given.
    #[arg(long, value_name = "N", value_parser = piece_length)]
    piece_length: Option<u32>,
    /// A tracker, each a tier of its own; may be given many times.
    #[arg(long, value_name = "URL", value_parser = tracker)]
    tracker: Vec<String>,
    /// A web seed (BEP 19); may be given many times.
    #[arg(long, value_name = "URL", value_parser = web_seed)]
    web_seed: Vec<String>,
    /// A DHT node; may be given many times.
    #[arg(long, value_name = "H:P", value_parser = node)]
    node: Vec<(String, u16)>,
    /// Peers come from trackers only (BEP 27).
    #[arg(long)]
    private: bool,
    /// A comment for people.
    #[arg(long, value_name = "S")]
    comment: Option<String>,
    /// Say neither who made it nor when, so that the same content gives the same bytes.
    #[arg(long)]
    bare: bool,
}

fn profile(word: String) -> Result<Profile, &'static str> {
    match word.as_str() {
        "compatible" => Ok(Profile::Compatible),
        "pure" => Ok(Profile::Pure),
        "v1" => Ok(Profile::V1),
        _ => Err("BitTorrent v2 is unsupported in this version; use compatible, pure or v1"),
    }
}

fn piece_length(text: &str) -> Result<u32, &'static str> {
    let len = text.parse().ok().filter(|len: &u32| len.is_power_of_two() && (16_384..=67_108_864).contains(len));
    len.ok_or("it must be a power of two from 16384 to 67108864, such as 262144")
}

pub(crate) fn tracker(url: &str) -> Result<String, String> {
    TrackerUrl::parse(url).map(|_| url.to_owned()).map_err(|error| error.to_string())
}

fn web_seed(url: &str) -> Result<String, &'static str> {
    let is_web = TrackerUrl::parse(url).is_ok_and(|url| url.scheme != Scheme::Udp);
    if is_web { Ok(url.to_owned()) } else { Err("a web seed is an http or https address") }
}

fn node(text: &str) -> Result<(String, u16), &'static str> {
    let pair = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok().filter(|&port| port > 0)?)));
    let (host, port) = pair.filter(|(host, _)| !host.is_empty()).ok_or("it is not HOST:PORT")?;
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    Ok((in_brackets.unwrap_or(host).to_owned(), port))
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let content = Content::find(&args.path)?;
    let output = args.output.clone().unwrap_or_else(|| {
        let mut name = content.name.clone();
        name.push(if args.profile == Profile::V1 { ".torrent" } else { ".st" });
        name.into()
    });
    refuse_existing(&output)?;
    let notes = Notes {
        trackers: args.tracker.clone(),
        web_seeds: args.web_seed.clone(),
        nodes: args.node.clone(),
        private: args.private,
        comment: args.comment.clone(),
        created_by: (!args.bare).then(|| concat!("SwarmTorrent ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: (!args.bare).then(now),
        ..Notes::default()
    };
    let (meta, bytes) = content.describe(args.profile, args.piece_length, notes)?;
    write_new(&output, &bytes)?;
    say(&format!("file:   {}", shown(&output)));
    say(&format!("hash:   {}", meta.info_hash));
    if let Some(st_id) = meta.st_id {
        say(&format!("st-id:  {st_id}"));
    }
    say(&format!("magnet: {}", Magnet::of(&meta)));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the tool is a driver: it reads the clock")]
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(0)
}

/// The bytes of a compatible `.st` of `path`, for who seeds it at once.
pub(crate) fn in_memory(path: &Path, trackers: &[String]) -> Result<Vec<u8>, String> {
    let notes = Notes { trackers: trackers.to_vec(), ..Notes::default() };
    Content::find(path)?.describe(Profile::Compatible, None, notes).map(|(_, bytes)| bytes)
}

/// What is to be described: at least one byte in all.
struct Content {
    /// The file or directory, with no symbolic link in it.
    path: PathBuf,
    name: OsString,
    /// Each file with its length.
    files: Vec<(PathBuf, u64)>,
}

impl Content {
    fn find(path: &Path) -> Result<Self, String> {
        let path = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
        let name = path.file_name().ok_or("the root directory cannot be a torrent; name one below it")?.to_owned();
        let kind = fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
        let mut files = Vec::new();
        if kind.is_dir() {
            walk(&path, &mut files)?;
        } else if kind.is_file() {
            files.push((path.clone(), kind.len()));
        } else {
            return Err(format!("{} is neither a file nor a directory", shown(&path)));
        }
        if files.iter().all(|(_, len)| *len == 0) {
            return Err(format!("{} holds nothing; a torrent needs one byte of content at least", shown(&path)));
        }
        Ok(Self { path, name, files })
    }

    /// Hashes it all.
    fn describe(
        &self,
        profile: Profile,
        piece_len: Option<u32>,
        mut notes: Notes,
    ) -> Result<(Metainfo, Vec<u8>), String> {
        let told = |error: MetainfoError| match error {
            MetainfoError::Limit(Limit::InfoLen(_)) => {
                "there are too many pieces or files; give a larger --piece-length".to_owned()
            }
            error => error.to_string(),
        };
        notes.name = self.name.clone().into_vec();
        let components = |file: &Path| -> Vec<Vec<u8>> {
            let below = file.strip_prefix(&self.path).expect("it was found below");
            below.components().map(|part| part.as_os_str().as_bytes().to_vec()).collect()
        };
        let files: Vec<NewFile> = self.files.iter().map(|(file, len)| (components(file), *len)).collect();
        let total = self.files.iter().map(|(_, len)| len).sum();
        let piece_len = piece_len.unwrap_or_else(|| piece_len_for(total));
        let mut creator = Creator::new(profile, piece_len, files, notes);
        creator.check().map_err(told)?;
        let bar = reading(total);
        for (file, len) in &self.files {
            let mut reader = open_at_once(file).map_err(|error| unreadable(file, &error))?;
            let changed = || format!("{} was changed while it was read; run it again", shown(file));
            let stamp = |reader: &File| {
                let kind = reader.metadata().map_err(|error| unreadable(file, &error))?;
                Ok::<_, String>((kind.len(), kind.modified().ok()))
            };
            let before = stamp(&reader)?;
            let mut left = *len;
            while left > 0 {
                let room = creator.room();
                let len = room.len().min(READ_LEN).min(usize::try_from(left).unwrap_or(usize::MAX));
                let count = reader.read(&mut room[..len]).map_err(|error| unreadable(file, &error))?;
                if count == 0 {
                    return Err(changed());
                }
                creator.took(count);
                left -= count as u64;
                bar.inc(count as u64);
            }
            if before.0 != *len || stamp(&reader)? != before {
                return Err(changed());
            }
        }
        bar.finish_and_clear();
        creator.finish().map_err(told)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", shown(path))
}

/// All regular files below `dir`, each directory's in the order of their names.
fn walk(dir: &Path, found: &mut Vec<(PathBuf, u64)>) -> Result<(), String> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut entries: Vec<PathBuf> = entries.map_err(|error| unreadable(dir, &error))?;
    entries.sort();
    for path in entries {
        let kind = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if kind.is_dir() {
            walk(&path, found)?;
        } else if kind.is_file() {
            found.push((path, kind.len()));
        } else {
            eprintln!("swarmtorrent: {} is left out: it is no regular file", shown(&path));
        }
    }
    Ok(())
}
