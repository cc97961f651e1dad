//! What a closed tracker is for: the hashes and pass keys in the user's files, read again when they change.
//!
//! `allow_file` is a directory of `.torrent` and `.st` files, or a text file with a line for each swarm: a hash of 40 hex digits (or
//! the 64 of an `st-id`), or the path of such a file or directory. `keys_file` has a pass key a line. Empty lines and those that begin
//! with `#` say nothing. A list is read a few files at a time, and takes effect as a whole; one that cannot be read changes nothing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::base::hash::{InfoHash, Sha1Hash, Sha256Hash};
use crate::base::time::Time;
use crate::codec::metainfo::Metainfo;
use crate::daemon::load::{METAINFO_MAX, read_regular};
use crate::service::tracker::{Allowed, KEY_MAX};

/// How often it is looked whether a file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Bytes of a list; a longer one is refused.
const LIST_MAX: u64 = 64 << 20;
/// Swarms that may be listed; one more is an error.
const HASHES_MAX: usize = 1_000_000;
/// Metainfo files that are read in one step.
const STEP_FILES: usize = 4;

/// What a file looked like: when it was changed, and its length.
type Look = Option<(SystemTime, u64)>;

/// A list that is being read.
#[derive(Debug, Default)]
struct Reading {
    hashes: Vec<InfoHash>,
    keys: Option<Vec<String>>,
    files: VecDeque<PathBuf>,
}

/// Keeper of the lists.
#[derive(Debug)]
pub struct AllowList {
    /// None if the tracker is open.
    allow: Option<PathBuf>,
    keys: Option<PathBuf>,
    looks: [Look; 2],
    reading: Option<Reading>,
    look_at: Time,
}

impl AllowList {
    /// For these files: `allow` if the tracker is closed, `keys` if it asks for pass keys.
    #[must_use]
    pub fn new(allow: Option<PathBuf>, keys: Option<PathBuf>) -> Self {
        let mut list = Self { allow, keys, looks: [None; 2], reading: None, look_at: Time::ZERO };
        if list.is_empty() {
            list.look_at = Time::NEVER;
        }
        list
    }

    /// True if there is nothing to read: everything is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_none() && self.keys.is_none()
    }

    /// Reads everything at once: for the start, when nobody waits.
    ///
    /// # Errors
    /// One sentence for the user.
    pub fn load(&mut self, now: Time) -> Result<Allowed, String> {
        self.begin()?;
        loop {
            if let Some(allowed) = self.read()? {
                self.look_at = if self.look_at.is_never() { Time::NEVER } else { now + LOOK_EVERY };
                return Ok(allowed);
            }
        }
    }

    /// When [`AllowList::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.look_at
    }

    /// It is read again in any case, as soon as may be.
    pub fn hurry(&mut self, now: Time) {
        if !self.look_at.is_never() {
            (self.looks, self.look_at) = ([None; 2], now);
        }
    }

    /// Looks whether something has changed, and reads on. What is allowed from now on, once all is read.
    ///
    /// # Errors
    /// One sentence for the user; what was allowed stays so.
    pub fn handle_timeout(&mut self, now: Time) -> Result<Option<Allowed>, String> {
        if self.look_at > now {
            return Ok(None);
        }
        if self.reading.is_none() {
            self.look_at = now + LOOK_EVERY;
            if self.looks == self.look() {
                return Ok(None);
            }
            self.begin()?;
        }
        let read = self.read();
        if read.is_err() {
            self.reading = None;
        }
        self.look_at = if self.reading.is_some() { now } else { now + LOOK_EVERY };
        read
    }

    fn look(&self) -> [Look; 2] {
        [&self.allow, &self.keys].map(|path| {
            let meta = std::fs::metadata(path.as_ref()?).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }

    fn begin(&mut self) -> Result<(), String> {
        self.looks = self.look();
        let mut reading = Reading::default();
        if let Some(path) = &self.keys {
            reading.keys = Some(keys(path)?);
        }
        if let Some(path) = &self.allow {
            reading.list(path)?;
        }
        self.reading = Some(reading);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Allowed>, String> {
        let reading = self.reading.as_mut().expect("it was begun");
        for _ in 0..STEP_FILES {
            let Some(file) = reading.files.pop_front() else {
                let Reading { hashes, keys, .. } = self.reading.take().expect("as above");
                return Ok(Some(Allowed { hashes: self.allow.is_some().then_some(hashes), keys }));
            };
            let bytes = read_regular(&file, METAINFO_MAX)?;
            let metainfo = Metainfo::parse(&bytes).map_err(|error| format!("{}: {error}", file.display()))?;
            reading.push(metainfo.info_hash)?;
        }
        Ok(None)
    }
}

impl Reading {
    fn push(&mut self, hash: InfoHash) -> Result<(), String> {
        if self.hashes.len() >= HASHES_MAX {
            return Err(format!("allow_file: more than {HASHES_MAX} torrents; a tracker for more is an open one"));
        }
        self.hashes.push(hash);
        Ok(())
    }

    /// Takes in the list, or the directory, at a path.
    fn list(&mut self, path: &Path) -> Result<(), String> {
        if path.is_dir() {
            return self.directory(path);
        }
        let text = text(path)?;
        for (number, line) in lines(&text) {
            let word = line.split_whitespace().next().unwrap_or_default();
            if let Some(hash) = Sha1Hash::from_hex(word) {
                self.push(hash)?;
            } else if let Some(id) = Sha256Hash::from_hex(word) {
                self.push(id.truncated())?;
            } else {
                let file = path.parent().unwrap_or(Path::new("")).join(line);
                if file.is_dir() {
                    self.directory(&file)?;
                } else if file.is_file() {
                    self.files.push_back(file);
                } else {
                    let form = "is neither a hash of 40 or 64 hex digits nor a .torrent or .st file that is there";
                    return Err(format!("{}: line {number}: `{line}` {form}", path.display()));
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, dir: &Path) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", dir.display());
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_one = |ending: &std::ffi::OsStr| ending == "torrent" || ending == "st";
            files.extend(path.extension().is_some_and(is_one).then_some(path));
        }
        files.sort_unstable();
        self.files.extend(files);
        Ok(())
    }
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = read_regular(path, LIST_MAX)?;
    String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8 text", path.display()))
}

/// The lines that say something, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn keys(path: &Path) -> Result<Vec<String>, String> {
    let text = text(path)?;
    let mut keys = Vec::new();
    for (number, key) in lines(&text) {
        if key.len() > KEY_MAX || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            // The key itself is a secret.
            let form = format!("a pass key is of 1 to {KEY_MAX} letters, digits and -._~");
            return Err(format!("{}: line {number}: {form}", path.display()));
        }
        keys.push(key.to_owned());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::create::{Creator, Notes, Profile};

    fn torrent(name: &str) -> Vec<u8> {
        let notes = Notes { name: name.into(), ..Notes::default() };
        let mut creator = Creator::new(Profile::V1, 1 << 14, vec![(Vec::new(), 5)], notes);
        creator.update(b"hello");
        creator.finish().unwrap().1
    }

    #[test]
    fn hashes_files_and_directories_are_read_and_read_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("allowed");
        std::fs::create_dir(dir.path().join("more")).unwrap();
        std::fs::write(dir.path().join("more/a.torrent"), torrent("a")).unwrap();
        std::fs::write(dir.path().join("more/readme.txt"), b"nothing").unwrap();
        std::fs::write(dir.path().join("b.torrent"), torrent("b")).unwrap();
        let one = InfoHash::of(b"1");
        std::fs::write(&list, format!("# ours\n\n{one}  a name\nb.torrent\nmore\n")).unwrap();
        let mut allow = AllowList::new(Some(list.clone()), None);
        let allowed = allow.load(Time::ZERO).unwrap();
        let hash = |name| Metainfo::parse(&torrent(name)).unwrap().info_hash;
        assert_eq!(allowed, Allowed { hashes: Some(vec![one, hash("b"), hash("a")]), keys: None });
        assert_eq!(allow.handle_timeout(Time::from_secs(10)), Ok(None), "nothing has changed");
        std::fs::write(&list, "nonsense\n").unwrap();
        let error = allow.handle_timeout(Time::from_secs(20)).unwrap_err();
        assert!(error.contains("line 1: `nonsense` is neither"), "{error}");
        assert_eq!(allow.handle_timeout(Time::from_secs(30)), Ok(None), "it is said once");
        std::fs::write(&list, format!("{one}\n")).unwrap();
        let allowed = allow.handle_timeout(Time::from_secs(40)).unwrap();
        assert_eq!(allowed.unwrap().hashes, Some(vec![one]));
    }

    #[test]
    fn many_files_take_many_steps() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..20 {
            std::fs::write(dir.path().join(format!("{number}.torrent")), torrent(&format!("t{number}"))).unwrap();
        }
        let mut allow = AllowList::new(Some(dir.path().to_owned()), None);
        let mut steps = 0;
        let allowed = loop {
            steps += 1;
            if let Some(allowed) = allow.handle_timeout(Time::ZERO).unwrap() {
                break allowed;
            }
            assert_eq!(allow.poll_timeout(), Time::ZERO, "it goes on at once");
        };
        assert_eq!((allowed.hashes.unwrap().len(), steps), (20, 20 / STEP_FILES + 1));
    }

    #[test]
    fn a_key_that_is_none_is_told_by_its_line_alone() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        std::fs::write(&keys, "# of friends\ns3cret\nwith blanks\n").unwrap();
        let mut allow = AllowList::new(None, Some(keys.clone()));
        let error = allow.load(Time::ZERO).unwrap_err();
        assert!(error.contains("line 3") && !error.contains("blanks\n") && !error.contains("with"), "{error}");
        std::fs::write(&keys, "s3cret\n").unwrap();
        assert_eq!(allow.load(Time::ZERO), Ok(Allowed { hashes: None, keys: Some(vec!["s3cret".into()]) }));
        let mut none = AllowList::new(None, None);
        assert!(none.load(Time::ZERO).is_ok() && none.poll_timeout().is_never());
    }
}
