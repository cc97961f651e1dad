//! Share directories: what lies in one, each file and each directory of its top level, is described and seeded.
//!
//! At the start, and whenever something changes there, an entry is walked through a few files at a time; what was found comes out of
//! [`Sharer::poll_command`], for the engine to hash and to share. Names that begin with a dot, symbolic links and special
//! files are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::ReadDir;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self as kernel, CreateFlags, ReadFlags, WatchFlags};

use crate::base::time::Time;
use crate::codec::metainfo::FILES_MAX;
use crate::daemon::config::{Share, ShareFormat};
use crate::daemon::inotify;
use crate::torrent::command::{Command, NewShare};
use crate::torrent::create::{NewFile, Profile};

/// An entry is looked at when nothing has changed in it for so long.
const SETTLE: Duration = Duration::from_secs(2);
/// How soon an entry is looked at again that was found while too many waited to be hashed.
const PUT_OFF: Duration = Duration::from_secs(30);
/// Directory entries that one step looks at.
const STEP: usize = 128;
/// Directories watched together; changes in others are found at the next start.
const DIRS_MAX: usize = 8192;
/// Entries that wait to be looked at; when it is reached everything is looked at again later.
const DUE_MAX: usize = 100_000;

/// One entry of a share directory.
type Entry = (usize, OsString);

/// An entry being looked through.
#[derive(Debug)]
struct Walk {
    rule: usize,
    name: OsString,
    open: Vec<(PathBuf, ReadDir)>,
    files: Vec<NewFile>,
}

/// The share directories.
#[derive(Debug)]
pub(super) struct Sharer {
    inotify: OwnedFd,
    rules: Vec<Share>,
    /// By the kernel's number for it: which rule's it is.
    dirs: BTreeMap<i32, (usize, PathBuf)>,
    /// When each is to be looked at, and the same in the order of time.
    due: BTreeMap<Entry, Time>,
    order: BTreeSet<(Time, Entry)>,
    walk: Option<Walk>,
    /// Top levels that are to be looked through; the first of them is, if it is open.
    scans: VecDeque<usize>,
    scan: Option<ReadDir>,
    commands: VecDeque<Command>,
}

impl Sharer {
    /// Watches these directories, making what is missing; `known` is where everything lies that an earlier run shared.
    ///
    /// # Errors
    /// If the kernel has no inotify for us.
    pub(super) fn new(now: Time, rules: &[Share], known: Vec<PathBuf>) -> io::Result<Self> {
        let inotify = kernel::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let mut sharer = Self {
            inotify,
            rules: rules.to_vec(),
            dirs: BTreeMap::new(),
            due: BTreeMap::new(),
            order: BTreeSet::new(),
            walk: None,
            scans: (0..rules.len()).collect(),
            scan: None,
            commands: VecDeque::new(),
        };
        for rule in rules {
            if let Err(error) = std::fs::create_dir_all(&rule.path) {
                log::warn!("share directory {}: {error}", rule.path.display());
            }
        }
        for path in known {
            match sharer.entry_of(&path) {
                Some(entry) => sharer.set(entry, now),
                None => sharer.commands.push_back(Command::Unshare(path)),
            }
        }
        Ok(sharer)
    }

    /// The descriptor to wait for.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }

    fn entry_of(&self, path: &Path) -> Option<Entry> {
        let rule = self.rules.iter().position(|rule| path.parent() == Some(&rule.path))?;
        Some((rule, path.file_name()?.to_owned()))
    }

    /// The descriptor is readable: notes everything that happened.
    pub(super) fn handle_readable(&mut self, now: Time) {
        for (descriptor, events, name) in inotify::read(&self.inotify) {
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.scan_all();
            } else if events.contains(ReadFlags::IGNORED) {
                self.dirs.remove(&descriptor);
            } else if let Some((rule, dir)) = self.dirs.get(&descriptor) {
                let path = name.map_or_else(|| dir.clone(), |name| dir.join(name));
                let rule = *rule;
                let below = path.strip_prefix(&self.rules[rule].path).ok();
                if let Some(Component::Normal(top)) = below.and_then(|below| below.components().next()) {
                    self.note(now + SETTLE, rule, top.to_owned());
                }
            }
        }
    }

    /// An entry is to be looked at.
    fn note(&mut self, at: Time, rule: usize, name: OsString) {
        if name.as_bytes().starts_with(b".") {
            return;
        }
        if self.due.len() >= DUE_MAX {
            log::warn!("{}: more than {DUE_MAX} entries change at once", self.rules[rule].path.display());
            self.due.clear();
            self.order.clear();
            return self.scan_all();
        }
        self.set((rule, name), at);
    }

    fn set(&mut self, entry: Entry, at: Time) {
        if let Some(before) = self.due.insert(entry.clone(), at) {
            self.order.remove(&(before, entry.clone()));
        }
        self.order.insert((at, entry));
    }

    fn scan_all(&mut self) {
        self.scan = None;
        self.scans = (0..self.rules.len()).collect();
    }

    /// The engine takes no more for now: what lies at `path` is looked at again later.
    pub(super) fn put_off(&mut self, now: Time, path: &Path) {
        if let Some((rule, name)) = self.entry_of(path) {
            self.note(now + PUT_OFF, rule, name);
        }
    }

    /// One step of looking through directories; true while more is to be done at once.
    pub(super) fn step(&mut self, now: Time) -> bool {
        if let Some(walk) = self.walk.take() {
            self.walk_on(walk);
        } else if self.order.first().is_some_and(|(at, _)| *at <= now) {
            let (_, entry) = self.order.pop_first().expect("it was just there");
            self.due.remove(&entry);
            self.look_at(entry);
        } else if let Some(&rule) = self.scans.front() {
            self.scan_on(now, rule);
        }
        self.poll_timeout() <= now
    }

    /// One step through a top level. What it finds is looked at before it goes on, so that no number of entries is too many.
    fn scan_on(&mut self, now: Time, rule: usize) {
        let path = self.rules[rule].path.clone();
        let Some(mut entries) = self.scan.take().or_else(|| self.open(rule, &path)) else {
            self.scans.pop_front();
            return;
        };
        for _ in 0..STEP {
            let Some(entry) = entries.next() else {
                self.scans.pop_front();
                return;
            };
            // Of the entry itself: a symbolic link is neither.
            if let Ok(entry) = entry
                && entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_dir())
            {
                self.note(now, rule, entry.file_name());
            }
        }
        self.scan = Some(entries);
    }

    /// When [`Sharer::step`] wants to be called, at the latest.
    pub(super) fn poll_timeout(&self) -> Time {
        if self.walk.is_some() || !self.scans.is_empty() {
            return Time::ZERO;
        }
        self.order.first().map_or(Time::NEVER, |(at, _)| *at)
    }

    /// The next thing to tell the engine.
    pub(super) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Watches a directory, and opens it to be looked through: what comes between is seen twice, never missed.
    fn open(&mut self, rule: usize, path: &Path) -> Option<ReadDir> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        if self.dirs.len() < DIRS_MAX {
            match kernel::add_watch(&self.inotify, path, flags) {
                Ok(descriptor) => drop(self.dirs.insert(descriptor, (rule, path.to_owned()))),
                Err(error) => log::warn!("share directory {}: {error}", path.display()),
            }
        } else {
            log::warn!("{}: not watched, for {DIRS_MAX} directories are", path.display());
        }
        std::fs::read_dir(path).map_err(|error| log::warn!("share directory {}: {error}", path.display())).ok()
    }

    fn look_at(&mut self, (rule, name): Entry) {
        let path = self.rules[rule].path.join(&name);
        match std::fs::symlink_metadata(&path) {
            Ok(kind) if kind.is_file() => self.found(rule, name, vec![(Vec::new(), kind.len())]),
            Ok(kind) if kind.is_dir() => {
                self.walk =
                    self.open(rule, &path).map(|dir| Walk { rule, name, open: vec![(path, dir)], files: Vec::new() });
            }
            _ => self.commands.push_back(Command::Unshare(path)),
        }
    }

    fn walk_on(&mut self, mut walk: Walk) {
        for _ in 0..STEP {
            let Some((dir, entries)) = walk.open.last_mut() else { return self.end_walk(walk) };
            let Some(entry) = entries.next() else {
                walk.open.pop();
                continue;
            };
            let Ok(entry) = entry else { continue };
            let (path, name) = (dir.join(entry.file_name()), entry.file_name());
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            // Of the entry itself: a symbolic link is neither.
            let Ok(kind) = entry.metadata() else { continue };
            if kind.is_dir() {
                let dir = self.open(walk.rule, &path);
                walk.open.extend(dir.map(|dir| (path, dir)));
            } else if kind.is_file() {
                let below = path.strip_prefix(&self.rules[walk.rule].path).expect("it was found below");
                let parts = below.components().skip(1).map(|part| part.as_os_str().as_bytes().to_vec()).collect();
                walk.files.push((parts, kind.len()));
                if walk.files.len() > FILES_MAX {
                    let top = self.rules[walk.rule].path.join(walk.name);
                    return log::warn!("{} is not shared: it has more than {FILES_MAX} files", top.display());
                }
            }
        }
        self.walk = Some(walk);
    }

    fn end_walk(&mut self, mut walk: Walk) {
        walk.files.sort_unstable();
        self.found(walk.rule, walk.name, walk.files);
    }

    fn found(&mut self, rule: usize, name: OsString, files: Vec<NewFile>) {
        let Share { path, format, trackers } = &self.rules[rule];
        self.commands.push_back(if files.iter().all(|(_, len)| *len == 0) {
            Command::Unshare(path.join(name)) // a torrent needs one byte at least
        } else {
            let profile = match format {
                ShareFormat::St => Profile::Compatible,
                ShareFormat::Torrent => Profile::V1,
            };
            Command::Share(NewShare { dir: path.clone(), name, files, profile, trackers: trackers.clone() })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(path: &Path) -> Share {
        Share { path: path.to_owned(), format: ShareFormat::St, trackers: vec!["udp://t:1".into()] }
    }

    /// Everything that is said until nothing more is to be done at once.
    fn commands(sharer: &mut Sharer, now: Time) -> Vec<Command> {
        sharer.handle_readable(now);
        let mut commands = Vec::new();
        loop {
            let more = sharer.step(now);
            commands.extend(std::iter::from_fn(|| sharer.poll_command()));
            if !more {
                return commands;
            }
        }
    }

    #[test]
    fn what_lies_there_is_found_and_again_when_it_changes() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("share");
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        for (name, bytes) in [("a", "12345"), ("d/b", "1"), ("d/e/c", "12"), (".hidden", "1"), ("none", "")] {
            std::fs::write(root.join(name), bytes).unwrap();
        }
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let (gone, stranger) = (root.join("gone"), temp.path().join("x"));
        let known = vec![gone.clone(), stranger.clone()];
        let mut sharer = Sharer::new(Time::ZERO, &[share(&root)], known).unwrap();
        let new = |name: &str, files: Vec<NewFile>| {
            Command::Share(NewShare {
                dir: root.clone(),
                name: name.into(),
                files,
                profile: Profile::Compatible,
                trackers: vec!["udp://t:1".into()],
            })
        };
        let two = vec![(vec![b"b".to_vec()], 1), (vec![b"e".to_vec(), b"c".to_vec()], 2)];
        let mut found = commands(&mut sharer, Time::ZERO);
        found.sort_by_key(|command| format!("{command:?}"));
        let expected = [
            new("a", vec![(vec![], 5)]),
            new("d", two.clone()),
            Command::Unshare(gone),
            Command::Unshare(root.join("none")),
            Command::Unshare(stranger),
        ];
        assert_eq!(found.len(), expected.len(), "{found:?}");
        assert!(expected.iter().all(|command| found.contains(command)), "{found:?}");
        // It settles first.
        std::fs::write(root.join("d/e/f"), "123").unwrap();
        std::fs::remove_file(root.join("a")).unwrap();
        assert_eq!(commands(&mut sharer, Time::from_secs(1)), []);
        assert_eq!(sharer.poll_timeout(), Time::from_secs(3));
        let three = [two, vec![(vec![b"e".to_vec(), b"f".to_vec()], 3)]].concat();
        assert_eq!(commands(&mut sharer, Time::from_secs(3)), [Command::Unshare(root.join("a")), new("d", three)]);
        assert!(sharer.poll_timeout().is_never());
    }
    #[test]
    fn what_the_engine_cannot_take_yet_is_told_again() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("a"), "1").unwrap();
        let mut sharer = Sharer::new(Time::ZERO, &[share(temp.path())], Vec::new()).unwrap();
        assert_eq!(commands(&mut sharer, Time::ZERO).len(), 1);
        assert!(sharer.poll_timeout().is_never());
        sharer.put_off(Time::ZERO, &temp.path().join("a"));
        assert_eq!(sharer.poll_timeout(), Time::ZERO + PUT_OFF);
        assert_eq!(commands(&mut sharer, Time::ZERO + PUT_OFF).len(), 1);
    }

    #[test]
    fn no_more_of_a_large_directory_is_kept_in_mind_than_a_step_finds() {
        let temp = tempfile::tempdir().unwrap();
        (0..1000).for_each(|number| std::fs::write(temp.path().join(number.to_string()), "1").unwrap());
        let mut sharer = Sharer::new(Time::ZERO, &[share(temp.path())], Vec::new()).unwrap();
        let (mut found, mut most) = (0, 0);
        while sharer.step(Time::ZERO) {
            most = most.max(sharer.due.len());
            found += std::iter::from_fn(|| sharer.poll_command()).count();
        }
        found += std::iter::from_fn(|| sharer.poll_command()).count();
        assert_eq!(found, 1000);
        assert!(most <= STEP, "{most}");
    }
}
