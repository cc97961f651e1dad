//! `swarmtorrent create`: hashes a file or directory and writes a `.st` or `.torrent` that describes it.
//!
//! Symbolic links and special files are left out, with a line that says so. An existing file is never overwritten.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use indicatif::{ProgressBar, ProgressStyle};

use crate::codec::magnet::Magnet;
use crate::codec::metainfo::Metainfo;
use crate::torrent::create::{Creator, NewFile, Notes, Profile, piece_len_for};

/// Bytes read at a time.
const READ_LEN: usize = 1 << 20;

/// Makes a torrent of a file or directory.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The file or directory.
    path: PathBuf,
    /// Where the torrent goes; NAME.st (or .torrent) here if not given.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What is made: compatible and pure are .st files, v1 is a .torrent; v2 and hybrid are not in this version.
    #[arg(long, value_name = "PROFILE", default_value = "compatible", value_parser = ["compatible", "pure", "v1", "v2", "hybrid"])]
    profile: String,
    /// Bytes of a piece: a power of two from 16384; chosen by the content's size if not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16384..=67_108_864))]
    piece_length: Option<u32>,
    /// A tracker, each a tier of its own; may be given many times.
    #[arg(long, value_name = "URL")]
    tracker: Vec<String>,
    /// A web seed (BEP 19); may be given many times.
    #[arg(long, value_name = "URL")]
    web_seed: Vec<String>,
    /// A DHT node; may be given many times.
    #[arg(long, value_name = "H:P")]
    node: Vec<String>,
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

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let profile = match args.profile.as_str() {
        "pure" => Profile::Pure,
        "v1" => Profile::V1,
        "compatible" => Profile::Compatible,
        other => return Err(format!("profile {other} is not in this version; use compatible, pure or v1")),
    };
    if args.piece_length.is_some_and(|len| !len.is_power_of_two()) {
        return Err("--piece-length must be a power of two, such as 262144".into());
    }
    let node = |node: &String| {
        let pair = node.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        pair.ok_or_else(|| format!("--node {node} is not HOST:PORT"))
    };
    let notes = Notes {
        trackers: args.tracker.clone(),
        web_seeds: args.web_seed.clone(),
        nodes: args.node.iter().map(node).collect::<Result<_, _>>()?,
        private: args.private,
        comment: args.comment.clone(),
        created_by: (!args.bare).then(|| concat!("SwarmTorrent ", env!("CARGO_PKG_VERSION")).to_owned()),
        creation_date: (!args.bare).then(now),
        ..Notes::default()
    };
    let (meta, bytes) = make(&args.path, profile, args.piece_length, notes)?;
    let ending = if profile == Profile::V1 { "torrent" } else { "st" };
    let output = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.{ending}", meta.name)));
    let told = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("{} is there already; remove it or give another -o", output.display())
        }
        _ => format!("{} cannot be written: {error}", output.display()),
    };
    let mut file = File::options().write(true).create_new(true).open(&output).map_err(told)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(told)?;
    println!("file:   {}", output.display());
    println!("hash:   {}", meta.info_hash);
    if let Some(st_id) = meta.st_id {
        println!("st-id:  {st_id}");
    }
    println!("magnet: {}", Magnet::of(&meta));
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
    make(path, Profile::Compatible, None, notes).map(|(_, bytes)| bytes)
}

fn make(
    path: &Path,
    profile: Profile,
    piece_len: Option<u32>,
    mut notes: Notes,
) -> Result<(Metainfo, Vec<u8>), String> {
    let told = |path: &Path, error: &std::io::Error| format!("{} cannot be read: {error}", path.display());
    let path = fs::canonicalize(path).map_err(|error| told(path, &error))?;
    notes.name =
        path.file_name().ok_or("the root directory cannot be a torrent; name one below it")?.as_bytes().to_vec();
    let mut found = Vec::new();
    if path.is_dir() {
        walk(&path, &mut found).map_err(|error| told(&path, &error))?;
        if found.is_empty() {
            return Err(format!("{} holds no file", path.display()));
        }
    } else {
        let len = fs::metadata(&path).map_err(|error| told(&path, &error))?.len();
        found.push((path.clone(), len));
    }
    let components = |file: &Path| -> Vec<Vec<u8>> {
        let below = file.strip_prefix(&path).expect("it was found below");
        below.components().map(|part| part.as_os_str().as_bytes().to_vec()).collect()
    };
    let files: Vec<NewFile> = found.iter().map(|(file, len)| (components(file), *len)).collect();
    let total: u64 = found.iter().map(|(_, len)| len).sum();
    let bar = bar(total);
    let mut creator = Creator::new(profile, piece_len.unwrap_or_else(|| piece_len_for(total)), files, notes);
    let mut buf = vec![0; READ_LEN];
    for (file, len) in &found {
        let mut reader = File::open(file).map_err(|error| told(file, &error))?;
        let mut left = *len;
        while left > 0 {
            let room = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = reader.read(&mut buf[..room]).map_err(|error| told(file, &error))?;
            if count == 0 {
                return Err(format!("{} became shorter while it was read; run it again", file.display()));
            }
            creator.update(&buf[..count]);
            left -= count as u64;
            bar.inc(count as u64);
        }
    }
    bar.finish_and_clear();
    creator.finish().map_err(|error| error.to_string())
}

fn bar(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    ProgressBar::new(total).with_style(style.expect("the template is right"))
}

/// All regular files below `dir`, each directory's in the order of their names.
fn walk(dir: &Path, found: &mut Vec<(PathBuf, u64)>) -> std::io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for path in entries {
        let kind = fs::symlink_metadata(&path)?;
        if kind.is_dir() {
            walk(&path, found)?;
        } else if kind.is_file() {
            found.push((path, kind.len()));
        } else {
            eprintln!("swarmtorrent: {} is left out: it is no regular file", path.display());
        }
    }
    Ok(())
}
