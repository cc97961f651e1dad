//! Watch directories: files dropped there become torrents.
//!
//! A file whose name ends in `.st`, `.torrent` or `.magnet` is read when its writer closes it or when it is moved in, and
//! judged by its content alone: a bencoded dictionary, or a line with a magnet link or a hash. What was found comes out of
//! [`Watcher::poll_found`]; its owner says [`Watcher::accepted`] (renamed to `.added`) or [`Watcher::refused`] (renamed to
//! `.invalid`, with the reason beside it). Directories are looked through at the start, and again whenever the kernel
//! has lost count. Files whose names begin with a dot are left alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self as kernel, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::base::ids::AckId;
use crate::base::time::Time;
use crate::daemon::config::Watch;
use crate::daemon::inotify;
use crate::daemon::load::{METAINFO_MAX, flags, read_open};
use crate::torrent::command::{AddOptions, Source};

/// Directories watched together, those below recursive ones included; others are left alone with a warning.
const DIRS_MAX: usize = 1024;
/// Files that wait to be read; when it is reached the rest is found by looking through the directories again.
const WAITING_MAX: usize = 4096;

/// How soon a file that could not be added yet is read again.
const PUT_OFF: Duration = Duration::from_secs(1);

/// A source that was dropped into a watch directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file, for [`Watcher::accepted`] and [`Watcher::refused`].
    pub path: PathBuf,
    /// What it holds.
    pub source: Source,
    /// What the directory's settings say.
    pub options: AddOptions,
    /// Which of the settings it was found by, for [`Watcher::put_off`].
    pub rule: usize,
}

/// One watched directory.
#[derive(Debug)]
struct Dir {
    path: PathBuf,
    /// Which of the settings it belongs to.
    rule: usize,
    /// The kernel's number for it.
    descriptor: i32,
}

/// The watch directories. Invariant: each path in `waiting` once, and those alone in `known`.
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    rules: Vec<Watch>,
    dirs: Vec<Dir>,
    /// Files to read, and the rule each was found by.
    waiting: VecDeque<(PathBuf, usize)>,
    /// The paths of those.
    known: BTreeSet<OsString>,
    /// Look through everything again once `waiting` is empty.
    must_scan: bool,
    /// Files that could not be added yet, the rule each was found by, and when they are read again; the next is first.
    put_off: VecDeque<(Time, PathBuf, usize)>,
    /// Files that are torrents, and wait for that to be on the disk.
    awaited: BTreeMap<AckId, PathBuf>,
}

impl Watcher {
    /// Watches these directories; what is missing is made, and what cannot be watched is warned of and left alone.
    ///
    /// # Errors
    /// If the kernel has no inotify for us.
    pub fn new(rules: &[Watch]) -> io::Result<Self> {
        let inotify = kernel::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut watcher = Self {
            inotify,
            rules: rules.to_vec(),
            dirs: Vec::new(),
            waiting: VecDeque::new(),
            known: BTreeSet::new(),
            must_scan: false,
            put_off: VecDeque::new(),
            awaited: BTreeMap::new(),
        };
        for (rule, watch) in rules.iter().enumerate() {
            if let Err(error) = std::fs::create_dir_all(&watch.path) {
                log::warn!("watch directory {}: {error}", watch.path.display());
                continue;
            }
            watcher.enter(&watch.path, rule);
        }
        Ok(watcher)
    }

    /// The descriptor to wait for.
    #[must_use]
    pub fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }

    /// The descriptor is readable: notes everything that happened.
    pub fn handle_readable(&mut self) {
        for (descriptor, events, name) in inotify::read(&self.inotify) {
            self.note(descriptor, events, name.as_deref());
        }
    }

    /// Looks at the next file; none if no file waits. The source in it, if it holds one and has not gone; one that holds none has been
    /// renamed on the way.
    pub fn poll_found(&mut self, now: Time) -> Option<Option<Found>> {
        while let Some((_, path, rule)) = self.put_off.pop_front_if(|(at, ..)| *at <= now) {
            if self.known.insert(path.clone().into()) {
                self.waiting.push_back((path, rule));
            }
        }
        if self.waiting.is_empty() && std::mem::take(&mut self.must_scan) {
            self.scan();
        }
        let (path, rule) = self.waiting.pop_front()?;
        self.known.remove(path.as_os_str());
        match read(&path) {
            Ok(Some(source)) => return Some(Some(Found { path, source, options: self.options(rule), rule })),
            Ok(None) => {}
            Err(why) => self.refused(&path, &why),
        }
        Some(None)
    }

    /// What was found at `path` cannot be added yet: it is read again in a moment.
    pub fn put_off(&mut self, now: Time, path: PathBuf, rule: usize) {
        if self.put_off.len() < WAITING_MAX {
            self.put_off.push_back((now + PUT_OFF, path, rule));
        } else {
            self.must_scan = true;
        }
    }

    /// When a file is read again that could not be added.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.put_off.front().map_or(Time::NEVER, |(at, ..)| *at)
    }

    /// What was found at `path` is a torrent now. The file gets its new name once that is on the disk: when
    /// [`Watcher::handle_ack`] is called with `ack`, or at once if there is none.
    pub fn accepted(&mut self, path: PathBuf, ack: Option<AckId>) {
        match ack {
            Some(ack) => drop(self.awaited.insert(ack, path)),
            None => rename(&path, "added"),
        }
    }

    /// What `ack` stands for is on the disk, or could not be saved: then the file keeps its name and is found again by the
    /// next run. False if no file waits for it.
    pub fn handle_ack(&mut self, ack: AckId, is_saved: bool) -> bool {
        let path = self.awaited.remove(&ack);
        if let Some(path) = &path
            && is_saved
        {
            rename(path, "added");
        }
        path.is_some()
    }

    /// What was found at `path` cannot be added; `why` is one sentence.
    pub fn refused(&self, path: &Path, why: &str) {
        log::warn!("{}: {why}", path.display());
        let reason = with_suffix(path, "reason");
        if let Err(error) = write_reason(&reason, why) {
            log::warn!("{}: {error}", reason.display());
        }
        rename(path, "invalid");
    }

    fn options(&self, rule: usize) -> AddOptions {
        let watch = &self.rules[rule];
        AddOptions {
            dir: watch.downloads.clone(),
            label: watch.label.clone(),
            paused: watch.paused,
            ..AddOptions::default()
        }
    }

    fn note(&mut self, descriptor: i32, events: ReadFlags, name: Option<&OsStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.must_scan = true;
            return;
        }
        let Some(index) = self.dirs.iter().position(|dir| dir.descriptor == descriptor) else { return };
        if events.contains(ReadFlags::IGNORED) {
            let dir = self.dirs.remove(index);
            log::warn!("watch directory {} is gone; make it again and reload", dir.path.display());
            return;
        }
        let Some(name) = name else { return };
        let (path, rule) = (self.dirs[index].path.join(name), self.dirs[index].rule);
        if events.contains(ReadFlags::ISDIR) {
            if self.rules[rule].recursive && !is_hidden(name) {
                self.enter(&path, rule);
            }
        } else if events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
            self.consider(path, rule);
        }
    }

    /// Watches a directory, then looks through it: what comes between is seen twice, never missed.
    fn enter(&mut self, path: &Path, rule: usize) {
        if self.dirs.iter().any(|dir| dir.path == path) {
            return;
        }
        if self.dirs.len() >= DIRS_MAX {
            log::warn!("{}: not watched, for {DIRS_MAX} directories are", path.display());
            return;
        }
        let mut flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        if self.rules[rule].recursive {
            flags |= WatchFlags::CREATE;
        }
        match kernel::add_watch(&self.inotify, path, flags) {
            Ok(descriptor) => {
                self.dirs.push(Dir { path: path.to_owned(), rule, descriptor });
                self.look_through(path, rule);
            }
            Err(error) => log::warn!("watch directory {}: {error}", path.display()),
        }
    }

    fn scan(&mut self) {
        let dirs: Vec<_> = self.dirs.iter().map(|dir| (dir.path.clone(), dir.rule)).collect();
        for (path, rule) in dirs {
            self.look_through(&path, rule);
        }
    }

    fn look_through(&mut self, dir: &Path, rule: usize) {
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) => return log::warn!("watch directory {}: {error}", dir.display()),
        };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            // Of the entry itself: a symbolic link is neither.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_file() {
                self.consider(entry.path(), rule);
            } else if kind.is_dir() && self.rules[rule].recursive && !is_hidden(&entry.file_name()) {
                self.enter(&entry.path(), rule);
            }
        }
    }

    fn consider(&mut self, path: PathBuf, rule: usize) {
        let is_ours = matches!(path.extension().and_then(OsStr::to_str), Some("st" | "torrent" | "magnet"));
        if !is_ours || path.file_name().is_none_or(is_hidden) || self.known.contains(path.as_os_str()) {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.must_scan = true;
            return;
        }
        self.known.insert(path.clone().into_os_string());
        self.waiting.push_back((path, rule));
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// What the file holds; none if it is not there any more, or is no regular file.
fn read(path: &Path) -> Result<Option<Source>, String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(CWD, path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Ok(None);
    }
    judge(read_open(&file, METAINFO_MAX)?).map(Some)
}

fn judge(bytes: Vec<u8>) -> Result<Source, String> {
    if bytes.first() == Some(&b'd') {
        return Ok(Source::Metainfo(bytes));
    }
    let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
    let is_hash = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_magnet = text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"));
    if is_hash || (is_magnet && !text.contains(['\n', '\r'])) {
        return Ok(Source::Link(text.to_owned()));
    }
    Err("it is neither a .st or .torrent file nor one line with a magnet link or a hash".to_owned())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// A symbolic link that somebody put there is not followed.
fn write_reason(path: &Path, why: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
    options.open(path)?.write_all(format!("{why}\n").as_bytes())
}

fn rename(path: &Path, suffix: &str) {
    let to = with_suffix(path, suffix);
    if let Err(error) = std::fs::rename(path, &to) {
        log::warn!("{} cannot be renamed to .{suffix}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METAINFO: &[u8] = b"d4:infodee";

    fn watcher(dir: &Path, recursive: bool) -> Watcher {
        Watcher::new(&[Watch { recursive, label: "l".to_owned(), paused: true, ..Watch::at(dir) }]).unwrap()
    }

    fn found(watcher: &mut Watcher) -> Vec<Found> {
        watcher.handle_readable();
        std::iter::from_fn(|| watcher.poll_found(Time::ZERO)).flatten().collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_lies_there_and_what_comes_later_is_found_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("made/for/us");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("a.torrent"), METAINFO).unwrap();
        let mut watcher = watcher(&dir, false);
        let first = found(&mut watcher);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].source, Source::Metainfo(METAINFO.to_vec()));
        assert_eq!((first[0].options.label.as_str(), first[0].options.paused), ("l", true));
        watcher.accepted(first[0].path.clone(), Some(AckId(7)));
        assert!(first[0].path.exists(), "it is not on the disk yet");
        assert!(!watcher.handle_ack(AckId(6), true));
        assert!(watcher.handle_ack(AckId(7), true));
        assert!(found(&mut watcher).is_empty(), "the new name is nothing to add");

        std::fs::write(root.path().join("b"), METAINFO).unwrap();
        std::fs::rename(root.path().join("b"), dir.join("b.st")).unwrap();
        std::fs::write(dir.join("c.magnet"), "0123456789012345678901234567890123456789\n").unwrap();
        std::fs::write(dir.join("d.txt"), METAINFO).unwrap();
        std::fs::write(dir.join(".e.torrent"), METAINFO).unwrap();
        let later = found(&mut watcher);
        assert_eq!(later.len(), 2);
        assert_eq!(later[1].source, Source::Link("0123456789012345678901234567890123456789".to_owned()));
        watcher.refused(&later[1].path, "nobody has it");
        assert_eq!(
            names(&dir),
            [".e.torrent", "a.torrent.added", "b.st", "c.magnet.invalid", "c.magnet.reason", "d.txt"]
        );
        assert_eq!(std::fs::read_to_string(dir.join("c.magnet.reason")).unwrap(), "nobody has it\n");
    }

    #[test]
    fn file_that_was_put_off_is_found_again_once_and_later() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.torrent"), METAINFO).unwrap();
        let mut watcher = watcher(root.path(), false);
        let Found { path, rule, .. } = found(&mut watcher).pop().unwrap();
        watcher.put_off(Time::ZERO, path.clone(), rule);
        assert!(found(&mut watcher).is_empty(), "not yet");
        let again = watcher.poll_timeout();
        assert!(again > Time::ZERO && !again.is_never());
        assert_eq!(watcher.poll_found(again).unwrap().unwrap().path, path);
        assert!(watcher.poll_found(again).is_none() && watcher.poll_timeout().is_never());
        assert_eq!(names(root.path()), ["a.torrent"]);
    }

    #[test]
    fn content_decides_and_not_the_name() {
        assert_eq!(judge(METAINFO.to_vec()), Ok(Source::Metainfo(METAINFO.to_vec())));
        assert_eq!(judge(b" Magnet:?xt=x \n".to_vec()), Ok(Source::Link("Magnet:?xt=x".to_owned())));
        for bad in [&b""[..], b"hello", b"\xff\xfe", b"magnet:?a\nmagnet:?b", b"<html>"] {
            assert!(judge(bad.to_vec()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostile_files_are_left_or_refused_and_nobody_waits() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        std::fs::write(dir.join("bad.torrent"), "hello").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("link.torrent")).unwrap();
        std::fs::create_dir(dir.join("dir.torrent")).unwrap();
        rustix::fs::mknodat(CWD, dir.join("fifo.torrent"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        File::create(dir.join("huge.torrent")).unwrap().set_len(METAINFO_MAX + 1).unwrap();
        let mut watcher = watcher(dir, false);
        assert!(found(&mut watcher).is_empty());
        std::fs::rename(dir.join("fifo.torrent"), dir.join("fifo2.torrent")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("l")).unwrap();
        std::fs::rename(dir.join("l"), dir.join("link2.torrent")).unwrap();
        assert!(found(&mut watcher).is_empty());
        let names = names(dir);
        for kept in ["link.torrent", "link2.torrent", "dir.torrent", "fifo2.torrent"] {
            assert!(names.contains(&kept.to_owned()), "{kept}: {names:?}");
        }
        for gone in ["bad.torrent.invalid", "bad.torrent.reason", "huge.torrent.invalid", "huge.torrent.reason"] {
            assert!(names.contains(&gone.to_owned()), "{gone}: {names:?}");
        }
    }

    #[test]
    fn directories_below_are_watched_only_if_wanted() {
        for recursive in [false, true] {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("old")).unwrap();
            std::fs::write(root.path().join("old/a.st"), METAINFO).unwrap();
            let mut watcher = watcher(root.path(), recursive);
            std::fs::create_dir(root.path().join("new")).unwrap();
            std::fs::write(root.path().join("new/b.st"), METAINFO).unwrap();
            assert_eq!(found(&mut watcher).len(), if recursive { 2 } else { 0 });
            std::fs::write(root.path().join("new/c.st"), METAINFO).unwrap();
            assert!(found(&mut watcher).iter().any(|found| found.path.ends_with("new/c.st")) == recursive);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        let mut watcher = watcher(&root.path().join("file/below"), false);
        assert!(found(&mut watcher).is_empty());
    }
}
