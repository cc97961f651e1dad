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
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self as kernel, CreateFlags, ReadFlags, WatchFlags};

use crate::base::time::Time;
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
/// Files of one share; an entry with more is not shared.
const FILES_MAX: usize = 100_000;
/// Directories of one entry that wait to be read; an entry with more is not shared.
const WAITING_MAX: usize = 100_000;
/// A cause is logged again after this time at the earliest.
const WARN_AGAIN: Duration = Duration::from_hours(1);

/// One entry of a share directory.
type Entry = (usize, OsString);

/// An entry being looked through.
#[derive(Debug)]
struct Walk {
    rule: usize,
    name: OsString,
    /// The directory being read, the only one that is open.
    open: Option<(Arc<Path>, ReadDir)>,
    /// Directories to be read after it, the next one last: each by its parent and name.
    waiting: Vec<(Arc<Path>, OsString)>,
    files: Vec<NewFile>,
}

/// Why something in a share directory is not shared or not watched: one warning covers every file and directory that it
/// affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// A directory cannot be opened or read: the system's error.
    Unreadable(Option<i32>),
    /// A directory cannot be watched: the system's error.
    Unwatched(Option<i32>),
    /// [`DIRS_MAX`] is reached.
    TooManyWatched,
    /// [`FILES_MAX`] or [`WAITING_MAX`] is reached.
    TooLarge,
    /// [`DUE_MAX`] is reached.
    TooManyChanges,
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
    /// When each cause was last logged, by rule. Bounded, as causes are few.
    warned: BTreeMap<(usize, Cause), Time>,
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
            warned: BTreeMap::new(),
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
                    self.note(now, SETTLE, rule, top.to_owned());
                }
            }
        }
    }

    /// An entry is to be looked at after `delay`.
    fn note(&mut self, now: Time, delay: Duration, rule: usize, name: OsString) {
        if name.as_bytes().starts_with(b".") {
            return;
        }
        if self.due.len() >= DUE_MAX {
            self.warn(now, rule, Cause::TooManyChanges, || format!("more than {DUE_MAX} entries change at once"));
            self.due.clear();
            self.order.clear();
            return self.scan_all();
        }
        self.set((rule, name), now + delay);
    }

    /// Logs a warning, once for each cause in [`WARN_AGAIN`].
    fn warn(&mut self, now: Time, rule: usize, cause: Cause, text: impl FnOnce() -> String) {
        let before = self.warned.get(&(rule, cause));
        if before.is_none_or(|before| now.since(*before) >= WARN_AGAIN) {
            self.warned.insert((rule, cause), now);
            log::warn!("share directory {}: {}", self.rules[rule].path.display(), text());
        }
    }

    /// Logs that a directory, or an entry of it, cannot be read; that an entry was removed meanwhile is no fault.
    fn warn_unreadable(&mut self, now: Time, rule: usize, path: &Path, error: &io::Error) {
        if error.kind() == io::ErrorKind::NotFound && path != self.rules[rule].path {
            return;
        }
        let cause = Cause::Unreadable(error.raw_os_error());
        self.warn(now, rule, cause, || format!("not everything can be read, the first is {}: {error}", path.display()));
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
            self.note(now, PUT_OFF, rule, name);
        }
    }

    /// One step of looking through directories; true while more is to be done at once.
    pub(super) fn step(&mut self, now: Time) -> bool {
        if let Some(walk) = self.walk.take() {
            self.walk_on(now, walk);
        } else if self.order.first().is_some_and(|(at, _)| *at <= now) {
            let (_, entry) = self.order.pop_first().expect("it was just there");
            self.due.remove(&entry);
            self.look_at(now, entry);
        } else if let Some(&rule) = self.scans.front() {
            self.scan_on(now, rule);
        }
        self.poll_timeout() <= now
    }

    /// One step through a top level. What it finds is looked at before it goes on, so that no number of entries is too many.
    fn scan_on(&mut self, now: Time, rule: usize) {
        let path = self.rules[rule].path.clone();
        let Some(mut entries) = self.scan.take().or_else(|| self.open(now, rule, &path)) else {
            self.scans.pop_front();
            return;
        };
        for _ in 0..STEP {
            let Some(entry) = entries.next() else {
                self.scans.pop_front();
                return;
            };
            // Of the entry itself: a symbolic link is neither.
            match entry.and_then(|entry| Ok((entry.file_type()?, entry))) {
                Ok((kind, entry)) if kind.is_file() || kind.is_dir() => {
                    self.note(now, Duration::ZERO, rule, entry.file_name());
                }
                Ok(_) => {}
                Err(error) => self.warn_unreadable(now, rule, &path, &error),
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
    fn open(&mut self, now: Time, rule: usize, path: &Path) -> Option<ReadDir> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        let has_room = self.dirs.len() < DIRS_MAX;
        let watched = has_room.then(|| kernel::add_watch(&self.inotify, path, flags));
        let opened = std::fs::read_dir(path);
        match (watched, &opened) {
            (_, Err(error)) => self.warn_unreadable(now, rule, path, error),
            (Some(Ok(_)), Ok(_)) => {}
            (Some(Err(error)), Ok(_)) => {
                let cause = Cause::Unwatched(Some(error.raw_os_error()));
                let text = || format!("not every directory can be watched, the first is {}: {error}", path.display());
                self.warn(now, rule, cause, text);
            }
            (None, Ok(_)) => self.warn(now, rule, Cause::TooManyWatched, || {
                format!(
                    "{DIRS_MAX} directories are watched; changes in others, such as {}, are found at the next start",
                    path.display()
                )
            }),
        }
        if let Some(Ok(descriptor)) = watched {
            self.dirs.insert(descriptor, (rule, path.to_owned()));
        }
        opened.ok()
    }

    fn look_at(&mut self, now: Time, (rule, name): Entry) {
        let path = self.rules[rule].path.join(&name);
        match std::fs::symlink_metadata(&path) {
            Ok(kind) if kind.is_file() => self.found(rule, name, vec![(Vec::new(), kind.len())]),
            Ok(kind) if kind.is_dir() => {
                let open = self.open(now, rule, &path).map(|dir| (path.into(), dir));
                self.walk =
                    open.map(|open| Walk { rule, name, open: Some(open), waiting: Vec::new(), files: Vec::new() });
            }
            _ => self.commands.push_back(Command::Unshare(path)),
        }
    }

    /// One step through an entry. A directory is read to its end before one in it is opened, so that no depth costs
    /// descriptors.
    fn walk_on(&mut self, now: Time, mut walk: Walk) {
        for _ in 0..STEP {
            let Some((dir, entries)) = &mut walk.open else {
                let Some((parent, name)) = walk.waiting.pop() else { return self.end_walk(walk) };
                let path = parent.join(name);
                walk.open = self.open(now, walk.rule, &path).map(|entries| (path.into(), entries));
                continue;
            };
            let Some(entry) = entries.next() else {
                walk.open = None;
                continue;
            };
            // Of the entry itself: a symbolic link is neither.
            let (name, kind) = match entry.and_then(|entry| Ok((entry.file_name(), entry.metadata()?))) {
                Ok(found) => found,
                Err(error) => {
                    self.warn_unreadable(now, walk.rule, dir, &error);
                    continue;
                }
            };
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            if kind.is_dir() {
                walk.waiting.push((Arc::clone(dir), name));
            } else if kind.is_file() {
                let path = dir.join(name);
                let below = path.strip_prefix(&self.rules[walk.rule].path).expect("it was found below");
                let parts = below.components().skip(1).map(|part| part.as_os_str().as_bytes().to_vec()).collect();
                walk.files.push((parts, kind.len()));
            }
            if walk.files.len() > FILES_MAX || walk.waiting.len() > WAITING_MAX {
                return self.warn(now, walk.rule, Cause::TooLarge, || {
                    let name = walk.name.display();
                    format!("{name} is not shared: it has more than {FILES_MAX} files or {WAITING_MAX} directories")
                });
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

    /// Makes `depth` directories `d`, each in the one before, and returns the last: its path may be longer than the
    /// kernel takes.
    fn make_deep(root: &Path, depth: usize) -> OwnedFd {
        use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut dir = openat(CWD, root, flags, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = openat(&dir, "d", flags, Mode::empty()).unwrap();
        }
        dir
    }

    /// Removes what [`make_deep`] made, which `remove_dir_all` cannot name.
    fn remove_deep(root: &Path) {
        let status = std::process::Command::new("rm").args(["-r", "--"]).arg(root).status().unwrap();
        assert!(status.success());
    }

    /// Descriptors of this process that are open below `root`.
    fn open_below(root: &Path) -> usize {
        let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(root))).count()
    }

    #[test]
    fn deep_tree_is_walked_with_few_open_directories() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("share");
        std::fs::create_dir_all(root.join("top")).unwrap();
        std::fs::write(root.join("top/a"), "1").unwrap();
        // The paths of the last ones are longer than 4096 bytes.
        drop(make_deep(&root.join("top"), 3000));
        let mut sharer = Sharer::new(Time::ZERO, &[share(&root)], Vec::new()).unwrap();
        let (mut most, mut found) = (0, Vec::new());
        while sharer.step(Time::ZERO) {
            most = most.max(open_below(&root));
            found.extend(std::iter::from_fn(|| sharer.poll_command()));
        }
        found.extend(std::iter::from_fn(|| sharer.poll_command()));
        drop(sharer);
        remove_deep(&root);
        assert!(most <= 16, "{most} directories were open at once");
        let [Command::Share(NewShare { files, .. })] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*files, [(vec![b"a".to_vec()], 1)]);
    }
}
