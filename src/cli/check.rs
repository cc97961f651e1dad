//! `swarmtorrent check`: hashes content against a torrent file and says what is bad.

use std::path::{Path, PathBuf};

use crate::base::bitfield::Bitfield;
use crate::base::buffer::Buffer;
use crate::base::geometry::Piece;
use crate::base::hash::{PieceHash, PieceHasher};
use crate::base::storage::{Content, Storage};
use crate::cli::output::shown;
use crate::cli::progress::{reading, say};
use crate::cli::show;
use crate::codec::metainfo::Metainfo;
use crate::storage::FileStorage;

/// Bytes hashed at a time.
const SLICE_LEN: u64 = 1 << 20;
/// Bad pieces that are named; of more it is said how many.
const NAMED_MAX: usize = 20;

/// Hashes the content in a directory against a torrent file; says which files and pieces are bad.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A .st or .torrent file.
    file: PathBuf,
    /// The directory that holds the content, as given to `get -o`; or the content itself, if it still has its name.
    dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what is bad.
pub fn run(args: &Args) -> Result<(), String> {
    let meta = show::read(&args.file)?;
    let mut storage = FileStorage::without_state();
    let files = std::sync::Arc::clone(&meta.files);
    let store = storage.open(Content {
        dir: place(&meta, &args.dir),
        also: None,
        wanted: vec![true; files.len()],
        files,
        read_only: true,
    });
    let geometry = meta.geometry;
    // Of a compatible `.st` both: a peer of another client is told by the one, we by the other.
    let wire_pieces = meta.wire_pieces.as_ref();
    let mut good = Bitfield::new(geometry.pieces());
    let mut buf = Buffer::new(usize::try_from(SLICE_LEN).expect("a slice"));
    let bar = reading(geometry.total_len());
    for index in 0..geometry.pieces() {
        let piece = Piece(index);
        let expected: Vec<PieceHash> =
            std::iter::once(&meta.pieces).chain(wire_pieces).filter_map(|hashes| hashes.get(piece.index())).collect();
        let mut hashers: Vec<PieceHasher> = expected.iter().map(PieceHash::hasher).collect();
        let (span, mut done) = (geometry.span_of(piece), 0);
        while done < span.len {
            let len = SLICE_LEN.min(span.len - done);
            let slice = &mut buf[..usize::try_from(len).expect("a slice")];
            if storage.read(store, span.offset + done, slice).is_err() {
                break; // told below, by file
            }
            hashers.iter_mut().for_each(|hasher| hasher.update(slice));
            done += len;
        }
        if done == span.len && hashers.into_iter().map(PieceHasher::finish).eq(expected) {
            good.set(index);
        }
        bar.inc(span.len);
    }
    bar.finish_and_clear();
    let mut bad_files = 0;
    for (index, entry) in meta.files.entries().enumerate().filter(|(_, entry)| !entry.pad) {
        let bad = geometry.pieces_of(entry.span).filter(|&piece| !good.get(piece)).count();
        let stamp = storage.stamp(store, index);
        let trouble = match stamp {
            None => Some("missing".to_owned()),
            Some(stamp) if stamp.len > entry.span.len => {
                Some(format!("{} bytes too long, should be {} bytes long", stamp.len - entry.span.len, entry.span.len))
            }
            Some(stamp) if stamp.len != entry.span.len => {
                Some(format!("{} bytes long, should be {}", stamp.len, entry.span.len))
            }
            Some(_) if bad > 0 => Some(format!("{bad} bad {}", if bad == 1 { "piece" } else { "pieces" })),
            Some(_) => None,
        };
        if let Some(trouble) = trouble {
            bad_files += 1;
            say(&format!("{}: {trouble}", shown(entry.path)));
        }
    }
    let bad: Vec<u32> = good.zeros().collect();
    if bad.is_empty() && bad_files == 0 {
        say(&format!("ok: all {} pieces are good", geometry.pieces()));
        return Ok(());
    }
    if !bad.is_empty() {
        let named: Vec<String> = bad.iter().take(NAMED_MAX).map(u32::to_string).collect();
        let rest = if bad.len() > NAMED_MAX { format!(" and {} more", bad.len() - NAMED_MAX) } else { String::new() };
        say(&format!("bad pieces: {}{rest}", named.join(" ")));
    }
    if bad.is_empty() {
        let advice = "`get` fetches what is missing and leaves what is too long";
        return Err(format!(
            "all {} pieces are good, and {bad_files} files are not as they should be; {advice}",
            geometry.pieces()
        ));
    }
    Err(format!("{} of {} pieces and {bad_files} files are bad; `get` fetches them anew", bad.len(), geometry.pieces()))
}

/// The directory that the torrent's paths begin in: `given`, or the one above it if `given` is the content itself.
fn place(meta: &Metainfo, given: &Path) -> PathBuf {
    let top = meta.files.entry(0).path.components().next().expect("a path has a component");
    let is_content = given.file_name() == Some(top.as_os_str()) && !given.join(top).exists();
    match given.parent().filter(|_| is_content) {
        Some(above) if above.as_os_str().is_empty() => PathBuf::from("."),
        Some(above) => above.to_path_buf(),
        None => given.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compatible_file_is_checked_by_both_of_its_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let content = dir.path().join("x");
        std::fs::write(&content, b"abc").unwrap();
        let mut bytes = crate::cli::create::in_memory(&content, &[]).unwrap();
        let args = Args { file: dir.path().join("x.st"), dir: dir.path().to_owned() };
        std::fs::write(&args.file, &bytes).unwrap();
        assert_eq!(run(&args), Ok(()));
        let at = bytes.windows(11).position(|window| window == b"6:pieces20:").unwrap() + 11;
        bytes[at] ^= 1;
        std::fs::write(&args.file, &bytes).unwrap();
        assert!(run(&args).unwrap_err().contains("1 of 1 pieces"));
    }

    #[test]
    fn the_content_may_be_named_itself_or_by_its_directory() {
        let bytes = b"d4:infod6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
        let meta = Metainfo::parse(bytes).unwrap();
        for (given, expected) in [("/nowhere/x", "/nowhere"), ("x", "."), ("/nowhere", "/nowhere"), ("/", "/")] {
            assert_eq!(place(&meta, Path::new(given)), Path::new(expected), "{given}");
        }
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("x");
        std::fs::create_dir(&nested).unwrap();
        std::fs::write(nested.join("x"), b"a").unwrap();
        assert_eq!(place(&meta, &nested), nested);
    }
}
