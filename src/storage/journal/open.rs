//! Opens a file of entries. Parts that a crash or the disk has damaged are reported, and kept in another file before
//! they are cut off.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::codec::followed::{self, Kept};
use crate::codec::journal::{self, Contents, HEAD_LEN, Key, Verify, v1};
use crate::codec::resume::Record;
use crate::engine::{FOLLOWED_STATE, RECORD_PREFIX};
use crate::storage::journal::{BATCH_LEN_MAX, Journal, Records, begin_new};
use crate::storage::private;

/// The maximum length of the file in which damaged parts are kept, in bytes. A part that does not fit replaces all
/// earlier ones, and is itself cut to this length.
const KEPT_LEN_MAX: u64 = 16 << 20;

/// Whether values are read and held when a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Values {
    /// All values are read, verified and held.
    Hold,
    /// Values stay in the file and are verified when they are read, except the last ones, which a crash may have torn
    /// and which are verified at once.
    Leave,
}

impl Journal {
    /// Opens the file `name` of the state directory `dir`, or creates it. Returns the journal, and the records in it if
    /// values are to be held.
    pub(in crate::storage) fn open(dir: &Path, name: &'static str, values: Values) -> io::Result<(Self, Records)> {
        let path = dir.join(name);
        // An unfinished file has no useful contents; usually there is none.
        drop(std::fs::remove_file(dir.join(format!("{name}.new"))));
        let cannot = |doing: &'static str| {
            let path = path.clone();
            move |error: io::Error| private::told(&path, doing, &error)
        };
        let mut file = match private::open(private::options().read(true).write(true), &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => begin(dir, name).map_err(cannot("create"))?,
            file => file.map_err(cannot("open"))?,
        };
        let mut head = Vec::new();
        (&mut file).take(HEAD_LEN).read_to_end(&mut head).map_err(cannot("read"))?;
        if !head.starts_with(v1::HEAD) && journal::parse_head(&head).is_none() && v1::HEAD.starts_with(&head) {
            // The file is empty, or has only a part of the head of version 0.1.0: it never had an entry.
            file = begin(dir, name).map_err(cannot("create"))?;
        } else if journal::parse_head(&head).is_none() && head.starts_with(v1::HEAD) && values == Values::Hold {
            file = convert(dir, name, &mut file, head).map_err(cannot("rewrite"))?;
        }
        let mut head = vec![0; usize::try_from(HEAD_LEN.min(file.metadata()?.len())).map_err(io::Error::other)?];
        file.read_exact_at(&mut head, 0).map_err(cannot("read"))?;
        let Some((key, is_whole)) = journal::parse_head(&head) else {
            let what = format!("{} is not a file of this version, or its key is lost", path.display());
            let message = format!("{what}; restore it from a copy, or move it away to start with an empty one");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        if !is_whole {
            log::error!("{}: one of the two copies of its key is damaged; rewritten from the other", path.display());
            file.write_all_at(&journal::head(&key), 0).and_then(|()| file.sync_data()).map_err(cannot("write"))?;
        }
        // The file may have replaced an older one right before a crash.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| private::told(dir, "sync", &error))?;
        read(dir, name, file, key, values).map_err(cannot("read"))
    }
}

/// Creates a file. The file gets its name after its head was written.
fn begin(dir: &Path, name: &str) -> io::Result<File> {
    let (file, _, path) = begin_new(dir, name)?;
    file.sync_all()?;
    std::fs::rename(&path, dir.join(name))?;
    Ok(file)
}

/// Rewrites a journal of version 0.1.0, of which the bytes `head` were read already.
fn convert(dir: &Path, name: &'static str, old: &mut File, head: Vec<u8>) -> io::Result<File> {
    let mut bytes = head;
    old.read_to_end(&mut bytes)?;
    let contents = v1::read(&bytes).expect("bytes begin with the head of version 0.1.0");
    for range in &contents.damage {
        let range = range.start as u64..range.end as u64;
        let where_to = keep(dir, name, old, &range);
        let len = range.end - range.start;
        log::error!("{}: {len} bytes at {} are damaged and lost; {where_to}", dir.join(name).display(), range.start);
    }
    let (new, key, path) = begin_new(dir, name)?;
    let mut end = HEAD_LEN;
    let mut out = Vec::new();
    for (name, value) in &contents.values {
        let at = end + out.len() as u64;
        journal::write(&mut out, &key, at, name, Some(&resolved(name, value)));
        if out.len() >= BATCH_LEN_MAX {
            new.write_all_at(&out, end)?;
            end += out.len() as u64;
            out.clear();
        }
    }
    new.write_all_at(&out, end)?;
    new.sync_all()?;
    std::fs::rename(&path, dir.join(name))?;
    log::info!("{}: rewritten in the format of this version", dir.join(name).display());
    Ok(new)
}

/// Returns a value of version 0.1.0 with the directories in it made absolute: relative ones were relative to the
/// daemon's working directory.
fn resolved(name: &str, value: &[u8]) -> Vec<u8> {
    let absolute = |path: &Path| std::path::absolute(path).ok();
    let bytes = if name.starts_with(RECORD_PREFIX) {
        Record::parse_relative(value).and_then(|record| record.resolved(absolute)).map(|record| record.to_bytes())
    } else if name == FOLLOWED_STATE {
        let resolved = |kept: Kept| Some(Kept { dir: absolute(&kept.dir)?, ..kept });
        let kept = followed::parse(value).and_then(|kept| kept.into_iter().map(resolved).collect::<Option<Vec<_>>>());
        kept.map(|kept| followed::write(kept.iter()))
    } else {
        None
    };
    bytes.unwrap_or_else(|| value.to_vec())
}

/// Finds the newest entry of each name, and cuts off an incomplete entry at the end.
fn read(dir: &Path, name: &'static str, mut file: File, key: Key, values: Values) -> io::Result<(Journal, Records)> {
    let path = dir.join(name);
    let mut allocated = file.metadata()?.len();
    let mut bytes = Vec::new();
    let contents = match values {
        Values::Hold => {
            io::Seek::rewind(&mut file)?;
            file.read_to_end(&mut bytes)?;
            journal::scan(&bytes[..], bytes.len() as u64, &key, Verify::All)?
        }
        // Only the last batch may be torn.
        Values::Leave => journal::scan(&file, allocated, &key, Verify::Last(2 * BATCH_LEN_MAX as u64))?,
    };
    let Contents { entries, damage, end, torn_end } = contents;
    for damage in damage {
        let (len, at) = (damage.range.end - damage.range.start, damage.range.start);
        let what = match damage.name {
            Some(name) => {
                format!("an entry of {name:?}, {len} bytes at {at}, is damaged; an older one is used if it exists")
            }
            None => format!("{len} bytes at {at} are damaged; the entries in them are lost"),
        };
        log::error!("{}: {what}", path.display());
    }
    if torn_end > end {
        let where_to = keep(dir, name, &file, &(end..torn_end));
        let len = torn_end - end;
        log::warn!("{}: the last {len} bytes are not a complete entry and are cut off; {where_to}", path.display());
        file.set_len(end)?;
        allocated = end;
    }
    let mut newest = BTreeMap::new();
    for entry in entries {
        match entry.value {
            Some(value) => newest.insert(entry.name, (entry.range, value)),
            None => newest.remove(&entry.name),
        };
    }
    let live_bytes = newest.values().map(|(range, _)| range.end - range.start).sum();
    let mut records = Records::default();
    if values == Values::Hold {
        let at = |at: u64| usize::try_from(at).expect("file was read into memory");
        records.values =
            newest.iter().map(|(name, (_, value))| (name.clone(), at(value.start)..at(value.end))).collect();
        records.bytes = bytes;
    }
    let journal = Journal {
        dir: dir.to_owned(),
        name,
        file,
        key,
        end,
        allocated,
        is_torn: false,
        is_nameless: false,
        is_in_flight: false,
        reading: None,
        compact_from: 0,
        live: newest.into_iter().map(|(name, (range, _))| (name, range)).collect(),
        live_bytes,
        since: None,
    };
    Ok((journal, records))
}

/// Appends a damaged part of `file` to `NAME.damaged`. Returns the outcome as a clause for a message.
pub(super) fn keep(dir: &Path, name: &str, file: &File, range: &Range<u64>) -> String {
    let path = dir.join(format!("{name}.damaged"));
    match try_keep(&path, name, file, range) {
        Ok(()) => format!("kept in {}", path.display()),
        Err(error) => format!("the bytes cannot be kept in {}: {error}", path.display()),
    }
}

fn try_keep(path: &Path, name: &str, file: &File, range: &Range<u64>) -> io::Result<()> {
    let title = format!("\n-- bytes {} to {} of {name}:\n", range.start, range.end);
    let len = (range.end - range.start).min(KEPT_LEN_MAX - title.len() as u64);
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, range.start)?;
    let mut kept = private::open(private::options().append(true).create(true), path)?;
    if kept.metadata()?.len() + title.len() as u64 + len > KEPT_LEN_MAX {
        kept.set_len(0)?;
    }
    kept.write_all(title.as_bytes())?;
    kept.write_all(&bytes)?;
    kept.sync_all()
}
