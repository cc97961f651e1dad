//! Random changes of a daemon's torrents, and a model of every torrent and of the queue, which gives the state that is
//! required after a kill.
//!
//! A request that was answered with `OK` must have its effect after the next start; a request without a reply may have
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::torrent::create::{Creator, Notes, Profile};

use super::{Daemon, noise, tree, wait};

/// The maximum number of times that the state is compared after a start, a few times per second.
const LOOKS_MAX: usize = 100;

/// The visible state of one torrent, by name: `dir`, `label`, `paused`, `path N`, `priority N`, `set KEY`. A torrent
/// that was removed also has `removed`: whether its data was removed, too. A torrent that was never added has no facts.
pub type Facts = BTreeMap<String, String>;

/// The effect of a request on one torrent.
#[derive(Debug, Clone)]
pub enum Effect {
    Add(Facts),
    Remove {
        data: bool,
    },
    Move(String),
    Set(String, String),
    /// Makes a setting of the torrent the default again.
    Unset(String),
    /// Renames one file, or the file or directory that holds all content.
    Rename(Option<usize>, String),
    /// Moves the torrent to a position in the queue, counted from 1.
    Queue(usize),
}

/// A request, and its effects on the torrents that it names, by hash.
#[derive(Debug, Clone)]
pub struct Request {
    pub kind: &'static str,
    pub line: String,
    pub effects: Vec<(String, Effect)>,
}

/// Divides requests that were sent one after another into those that `replies` acknowledge and those that may have been
/// carried out. The latter have no reply, or one that reports a disk failure, which only `is_cut` allows. The daemon
/// may reject a request while it is busy with an earlier one, or because it rejected that one.
pub fn acknowledged(requests: Vec<Request>, replies: &[Vec<String>], is_cut: bool) -> (Vec<Request>, Vec<Request>) {
    let mut replies = replies.iter();
    let (mut done, mut open) = (Vec::new(), Vec::new());
    for request in requests {
        let last = replies.next().and_then(|reply| reply.last());
        let is = |code: &str| last.is_some_and(|last| last.starts_with(code));
        if is("OK") {
            done.push(request);
        } else if last.is_none() || is_cut && is("ERR io ") {
            open.push(request);
        } else {
            let may_be = ["ERR busy ", "ERR exists ", "ERR not-found "].iter().any(|code| is(code));
            assert!(may_be, "{:.300}: {last:?}", request.line);
        }
    }
    (done, open)
}

/// A torrent that is added and removed.
#[derive(Debug)]
pub struct Subject {
    pub hash: String,
    /// The bytes of a metainfo file; `None` for a magnet link.
    pub metainfo: Option<Vec<u8>>,
    /// The paths and bytes of the files; empty for a magnet link.
    files: Vec<(String, Vec<u8>)>,
    /// Whether the content is complete on the disk until the torrent is removed.
    pub is_complete: bool,
    /// Whether changes of this torrent are drawn.
    is_drawn: bool,
}

impl Subject {
    /// Creates a torrent of files of these lengths: below a directory `name`, or one file of that name if there is only
    /// one length.
    pub fn new(profile: Profile, name: &str, lens: &[usize], piece_len: usize) -> Self {
        let is_single = lens.len() == 1;
        let path_of = |file: usize| if is_single { vec![] } else { vec![format!("file{file}").into_bytes()] };
        let new_files = lens.iter().enumerate().map(|(file, len)| (path_of(file), *len as u64)).collect();
        let notes = Notes { name: name.as_bytes().to_vec(), ..Notes::default() };
        let mut creator = Creator::new(profile, u32::try_from(piece_len).unwrap(), new_files, notes);
        let seed = u64::from(crc32c::crc32c(name.as_bytes()));
        let mut files = Vec::new();
        for (file, len) in lens.iter().enumerate() {
            let bytes = noise(seed + file as u64, *len);
            creator.update(&bytes);
            let path = if is_single { name.to_owned() } else { format!("{name}/file{file}") };
            files.push((path, bytes));
        }
        let (meta, bytes) = creator.finish().unwrap();
        Self { hash: meta.info_hash.to_string(), metainfo: Some(bytes), files, is_complete: true, is_drawn: false }
    }

    /// Creates a magnet link that no peer has.
    pub fn link(seed: u64) -> Self {
        let hash = noise(seed, 20).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { hash, metainfo: None, files: Vec::new(), is_complete: true, is_drawn: false }
    }

    /// Writes the content below `dir`.
    pub fn write(&self, dir: &Path) {
        for (path, bytes) in &self.files {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    /// Deletes the remaining content below `dir`, under any name, of a torrent that was removed without its data.
    fn erase(&self, dir: &Path) {
        for path in tree(dir).0.into_iter().map(|path| dir.join(path)) {
            let found = std::fs::read(&path).unwrap();
            if !found.is_empty() && self.files.iter().any(|(_, bytes)| *bytes == found) {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// Returns the content's bytes, one file after another.
    pub fn content(&self) -> Vec<u8> {
        self.files.iter().flat_map(|(_, bytes)| bytes).copied().collect()
    }

    /// Returns the facts of the torrent after it was added to `dir` without options.
    pub fn facts(&self, dir: &Path) -> Facts {
        let mut facts = Facts::new();
        let mut put = |key: String, value: &str| facts.insert(key, value.to_owned());
        put("dir".into(), dir.to_str().unwrap());
        put("label".into(), "");
        put("paused".into(), "no");
        put("set sequential".into(), "no");
        put("set super-seed".into(), "no");
        for (file, (path, _)) in self.files.iter().enumerate() {
            put(format!("path {file}"), path);
            put(format!("priority {file}"), "normal");
        }
        facts
    }

    /// Writes a metainfo file to `path` and returns the request that adds the torrent from it. The content is not
    /// written.
    pub fn add(&self, path: &Path, dir: &Path, is_paused: bool) -> Request {
        std::fs::write(path, self.metainfo.as_ref().unwrap()).unwrap();
        let mut facts = self.facts(dir);
        facts.insert("paused".into(), yes(is_paused).into());
        let line = format!("add {} dir={} paused={}", path.display(), dir.display(), yes(is_paused));
        Request { kind: "add FILE", line, effects: vec![(self.hash.clone(), Effect::Add(facts))] }
    }

    /// Whether the files on the disk match these facts. A removal may precede the end of a rename or a move: then the
    /// content must be complete, or deleted, in any of its directories.
    fn is_on_disk(&self, facts: &Facts) -> bool {
        if !self.is_complete {
            return true;
        }
        let Some(removed) = facts.get("removed") else {
            let is_whole = |(file, bytes): (usize, &Vec<u8>)| {
                let path = Path::new(&facts["dir"]).join(&facts[&format!("path {file}")]);
                std::fs::read(path).is_ok_and(|found| found == *bytes)
            };
            return facts.is_empty() || self.files.iter().map(|(_, bytes)| bytes).enumerate().all(is_whole);
        };
        let dirs = facts.iter().filter(|(key, _)| *key == "dir" || is_hidden(key)).map(|(_, dir)| Path::new(dir));
        let found: Vec<_> =
            dirs.flat_map(|dir| tree(dir).0.into_iter().map(|path| std::fs::read(dir.join(path)).unwrap())).collect();
        let is_found = |bytes: &Vec<u8>| !bytes.is_empty() && found.contains(bytes);
        let mut files = self.files.iter().map(|(_, bytes)| bytes);
        if removed == "yes" { !files.any(is_found) } else { files.all(|bytes| bytes.is_empty() || is_found(bytes)) }
    }
}

/// Whether a fact is internal to this model: a directory that a torrent was in before it was moved.
fn is_hidden(key: &str) -> bool {
    key.starts_with("before ")
}

fn is_there(facts: &Facts) -> bool {
    facts.contains_key("dir") && !facts.contains_key("removed")
}

/// Returns the facts of a torrent after a change; a change of a torrent that does not exist has no effect.
fn after(mut facts: Facts, effect: &Effect) -> Facts {
    match effect {
        Effect::Add(new) if !is_there(&facts) => return new.clone(),
        _ if !is_there(&facts) => {}
        Effect::Add(_) | Effect::Queue(_) => {}
        Effect::Move(dir) => {
            let before = facts.insert("dir".into(), dir.clone());
            facts.insert(format!("before {dir}"), before.unwrap());
        }
        Effect::Remove { data } => drop(facts.insert("removed".into(), yes(*data).into())),
        Effect::Set(key, value) => drop(facts.insert(key.clone(), value.clone())),
        Effect::Unset(key) => drop(facts.remove(key)),
        Effect::Rename(file, name) => {
            for (key, path) in facts.iter_mut().filter(|(key, _)| key.starts_with("path ")) {
                match (path.split_once('/'), file) {
                    (Some((_, rest)), None) => *path = format!("{name}/{rest}"),
                    (Some((top, _)), Some(file)) if *key == format!("path {file}") => *path = format!("{top}/{name}"),
                    (Some(_), Some(_)) => {}
                    (None, _) => path.clone_from(name),
                }
            }
        }
    }
    facts
}

const fn yes(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// The expected facts of all torrents, by hash, and the expected queue.
#[derive(Debug, Clone, Default)]
pub struct Model {
    torrents: BTreeMap<String, Facts>,
    queue: Vec<String>,
}

impl Model {
    fn of(&self, hash: &str) -> Facts {
        self.torrents.get(hash).cloned().unwrap_or_default()
    }

    pub fn is_there(&self, hash: &str) -> bool {
        self.torrents.get(hash).is_some_and(is_there)
    }

    /// Returns a fact of a torrent.
    pub fn fact(&self, hash: &str, key: &str) -> &str {
        &self.torrents[hash][key]
    }

    fn apply(&mut self, request: &Request) {
        for (hash, effect) in &request.effects {
            let facts = after(self.of(hash), effect);
            let (was_there, is_there) = (self.is_there(hash), is_there(&facts));
            self.torrents.insert(hash.clone(), facts);
            if was_there && !is_there {
                self.queue.retain(|other| other != hash);
            } else if is_there && !was_there {
                self.queue.push(hash.clone());
            }
            if let (Effect::Queue(position), true) = (effect, is_there) {
                self.queue.retain(|other| other != hash);
                self.queue.insert((position - 1).min(self.queue.len()), hash.clone());
            }
        }
    }

    /// Returns the possible facts of a torrent after all of `certain` and any part of `open`.
    fn possible(&self, hash: &str, certain: &[Request], open: &[Request]) -> BTreeSet<Facts> {
        let of = |request: &Request| request.effects.iter().find(|(other, _)| other == hash).map(|(_, is)| is.clone());
        let facts = certain.iter().filter_map(of).fold(self.of(hash), |facts, effect| after(facts, &effect));
        let mut possible = BTreeSet::from([facts]);
        for effect in open.iter().filter_map(of) {
            possible.extend(possible.clone().into_iter().map(|facts| after(facts, &effect)));
        }
        possible
    }

    /// Whether the torrents that no part of `open` may have moved in the queue are in the order that `certain` gave them.
    /// The ranks of the others depend on which earlier ranks were in memory, and which of those were saved.
    fn keeps_order(&self, seen: &[String], certain: &[Request], open: &[Request]) -> bool {
        let mut model = self.clone();
        certain.iter().for_each(|request| model.apply(request));
        let is_named = |hash: &String| {
            let mut effects = open.iter().flat_map(|request| &request.effects);
            effects.any(|(other, effect)| other == hash && !matches!(effect, Effect::Set(..) | Effect::Unset(_)))
        };
        let rest = |queue: &[String]| -> Vec<String> { queue.iter().filter(|hash| !is_named(hash)).cloned().collect() };
        let may_move = |(_, effect): &(String, Effect)| {
            matches!(effect, Effect::Add(_) | Effect::Remove { .. } | Effect::Queue(_))
        };
        open.iter().flat_map(|request| &request.effects).any(may_move) && rest(seen) == rest(&model.queue)
    }

    /// Whether the queue may be `seen` after all of `certain` and any part of `open`. As in the daemon, each torrent
    /// has a rank, which a request chooses relative to the ranks at that moment; of several ranks of one torrent, any
    /// may be on record.
    fn may_be_queued(&self, seen: &[String], certain: &[Request], open: &[Request]) -> bool {
        let mut model = self.clone();
        certain.iter().for_each(|request| model.apply(request));
        let mut ranks: BTreeMap<String, f64> =
            (0_u32..).map(f64::from).zip(&model.queue).map(|(rank, hash)| (hash.clone(), rank)).collect();
        let mut possible: BTreeMap<String, Vec<f64>> =
            ranks.iter().map(|(hash, rank)| (hash.clone(), vec![*rank])).collect();
        for request in open {
            model.apply(request);
            for (hash, effect) in &request.effects {
                let Some(at) = model.queue.iter().position(|other| other == hash) else { continue };
                if matches!(effect, Effect::Queue(_) | Effect::Add(_)) {
                    let before = at.checked_sub(1).map(|at| ranks[&model.queue[at]]);
                    let behind = model.queue.get(at + 1).map(|hash| ranks[hash]);
                    let rank = match (before, behind) {
                        (Some(before), Some(behind)) => f64::midpoint(before, behind),
                        (Some(before), None) => before + 1.0,
                        (None, behind) => behind.unwrap_or(0.0) - 1.0,
                    };
                    ranks.insert(hash.clone(), rank);
                    possible.entry(hash.clone()).or_default().push(rank);
                }
            }
        }
        // The lowest possible rank leaves most room for the following torrents. A rank that one torrent has left may be
        // another's.
        let mut last = f64::NEG_INFINITY;
        seen.iter().filter_map(|hash| possible.get(hash)).all(|ranks| {
            let next = ranks.iter().copied().filter(|rank| *rank >= last).min_by(f64::total_cmp);
            last = next.unwrap_or(last);
            next.is_some()
        })
    }
}

/// Draws changes, and checks after a start that they are in effect.
#[derive(Debug)]
pub struct Changes {
    rng: Rng,
    /// The directory of all content: a new directory below it is used for each torrent that is added or moved.
    contents: PathBuf,
    /// A counter that makes names and values unique.
    drawn: usize,
    pub subjects: Vec<Subject>,
    pub model: Model,
}

impl Changes {
    /// Creates a dozen torrents of all kinds, with their content below `contents`. None of them is added yet.
    pub fn new(seed: u64, contents: &Path) -> Self {
        let mut subjects = Vec::new();
        for number in 0..10_usize {
            let profile = if number % 3 == 2 { Profile::Compatible } else { Profile::V1 };
            let lens: &[usize] = if number % 4 == 3 { &[40_000] } else { &[20_000, 0, 30_001] };
            subjects.push(Subject::new(profile, &format!("subject{number}"), lens, 16_384));
        }
        subjects.extend([Subject::link(1), Subject::link(2)]);
        subjects.iter_mut().for_each(|subject| subject.is_drawn = true);
        let rng = Rng::from_number(seed);
        Self { rng, contents: contents.to_owned(), drawn: 0, subjects, model: Model::default() }
    }

    pub fn subject(&self, hash: &str) -> &Subject {
        self.subjects.iter().find(|subject| subject.hash == hash).unwrap()
    }

    /// Returns the path of a directory that does not exist yet.
    fn new_dir(&mut self) -> PathBuf {
        self.drawn += 1;
        self.contents.join(self.drawn.to_string())
    }

    /// Draws at least `count` changes, each possible after those before it.
    pub fn draw(&mut self, count: usize) -> Vec<Request> {
        let (mut draft, mut requests) = (self.model.clone(), Vec::new());
        while requests.len() < count {
            let drawn = self.draw_one(&draft, &requests);
            drawn.iter().for_each(|request| draft.apply(request));
            requests.extend(drawn);
        }
        requests
    }

    /// Returns the requests that add `count` subjects.
    pub fn first(&mut self, count: usize) -> Vec<Request> {
        (0..count).flat_map(|index| self.draw_add(index)).collect()
    }

    fn draw_one(&mut self, draft: &Model, before: &[Request]) -> Vec<Request> {
        let drawn = |is: bool| {
            let of = self.subjects.iter().enumerate().filter(|(_, subject)| subject.is_drawn);
            of.filter(|(_, subject)| draft.is_there(&subject.hash) == is).map(|(index, _)| index).collect::<Vec<_>>()
        };
        let (there, absent) = (drawn(true), drawn(false));
        if there.len() < 4 || !absent.is_empty() && self.rng.below(6) == 0 {
            let index = *self.rng.choose(&absent).unwrap();
            return self.draw_add(index);
        }
        let index = *self.rng.choose(&there).unwrap();
        let hash = &self.subjects[index].hash;
        let is_moving = before.iter().any(|request| request.kind == "move" && request.effects[0].0 == *hash);
        vec![self.draw_change(index, draft, is_moving)]
    }

    /// Writes the content of a subject and returns the requests that add it, in one of the possible ways.
    fn draw_add(&mut self, index: usize) -> Vec<Request> {
        let dir = self.new_dir();
        let subject = &self.subjects[index];
        subject.write(&dir);
        let mut facts = subject.facts(&dir);
        let mut options = format!("dir={}", dir.display());
        let mut option = |key: &str, value: &str, fact: &str| {
            options.push_str(&format!(" {key}={value}"));
            facts.insert(fact.to_owned(), value.to_owned());
        };
        if self.rng.below(2) == 0 {
            option("label", &format!("label{}", self.drawn), "label");
        }
        if self.rng.below(3) == 0 {
            option("paused", "yes", "paused");
        }
        if self.rng.below(4) == 0 {
            option("sequential", "yes", "set sequential");
        }
        if subject.files.len() > 1 && self.rng.below(4) == 0 {
            options.push_str(" only=0");
            (1..subject.files.len()).for_each(|file| drop(facts.insert(format!("priority {file}"), "off".to_owned())));
        }
        let effects = vec![(subject.hash.clone(), Effect::Add(facts))];
        let Some(metainfo) = &subject.metainfo else {
            let line = format!("add 'magnet:?xt=urn:btih:{}' {options}", subject.hash);
            return vec![Request { kind: "add magnet", line, effects }];
        };
        let base64 = |bytes: &[u8]| BASE64.encode(bytes);
        match self.rng.below(3) {
            0 => {
                let path = dir.join("metainfo");
                std::fs::write(&path, metainfo).unwrap();
                vec![Request { kind: "add FILE", line: format!("add {} {options}", path.display()), effects }]
            }
            1 => {
                let line = format!("add metainfo:{} {options}", base64(metainfo));
                vec![Request { kind: "add metainfo:", line, effects }]
            }
            _ => {
                let part = |line: String| Request { kind: "part", line, effects: vec![] };
                let (first, rest) = metainfo.split_at(metainfo.len() / 2);
                let parts = [first, rest].map(|bytes| part(format!("part {}", base64(bytes))));
                let add = Request { kind: "add parts:", line: format!("add parts: {options}"), effects };
                parts.into_iter().chain([add]).collect()
            }
        }
    }

    /// Draws a change of one subject. A torrent is not removed while it may be moving: it would keep its position in
    /// the queue until the move has ended.
    fn draw_change(&mut self, index: usize, draft: &Model, is_moving: bool) -> Request {
        self.drawn += 1;
        let number = self.drawn;
        let hash = self.subjects[index].hash.clone();
        let files = self.subjects[index].files.len();
        let change = |kind, line: String, effect| Request { kind, line, effects: vec![(hash.clone(), effect)] };
        let put = |key: &str, value: &str| Effect::Set(key.to_owned(), value.to_owned());
        let set = |key: &str, value: &str| format!("set {hash} {key} {value}");
        match self.rng.below(17) {
            0 | 1 => {
                let key = *self.rng.choose(&["down-limit", "up-limit", "max-peers"]).unwrap();
                let value = (1000 + number).to_string();
                change("set KEY N", set(key, &value), put(&format!("set {key}"), &value))
            }
            2 => {
                let value = format!("{}.5", number + 1);
                change("set ratio", set("ratio", &value), put("set ratio", &value))
            }
            3 => {
                let key = *self.rng.choose(&["seed-time", "idle-time"]).unwrap();
                let value = format!("{}s", 100_000 + number);
                change("set TIME", set(key, &value), put(&format!("set {key}"), &value))
            }
            4 => {
                let key = *self.rng.choose(&["down-limit", "max-peers", "ratio", "seed-time"]).unwrap();
                change("set KEY default", set(key, "default"), Effect::Unset(format!("set {key}")))
            }
            5 => {
                let key = *self.rng.choose(&["sequential", "super-seed"]).unwrap();
                let value = yes(draft.fact(&hash, &format!("set {key}")) == "no");
                change("set SWITCH", set(key, value), put(&format!("set {key}"), value))
            }
            6 | 7 => {
                let position = 1 + self.rng.index(draft.queue.len());
                let (word, position) = match self.rng.below(3) {
                    0 => ("top".to_owned(), 1),
                    1 => ("bottom".to_owned(), usize::MAX),
                    _ => (position.to_string(), position),
                };
                change("set queue", set("queue", &word), Effect::Queue(position))
            }
            8 => change("pause", format!("pause {hash}"), put("paused", "yes")),
            9 => change("resume", format!("resume {hash}"), put("paused", "no")),
            10 if files > 0 => {
                let (file, word) =
                    (self.rng.index(files), *self.rng.choose(&["off", "low", "normal", "high"]).unwrap());
                change("priority", format!("priority {hash} {file} {word}"), put(&format!("priority {file}"), word))
            }
            11 if files > 0 => {
                let (file, name) = (self.rng.index(files), format!("name{number}"));
                change("rename FILE", format!("rename {hash} {file} {name}"), Effect::Rename(Some(file), name))
            }
            12 if files > 0 => {
                let name = format!("name{number}");
                change("rename .", format!("rename {hash} . {name}"), Effect::Rename(None, name))
            }
            13 => {
                let dir = self.new_dir();
                change("move", format!("move {hash} {}", dir.display()), Effect::Move(dir.to_str().unwrap().into()))
            }
            14 if !is_moving => {
                change("remove data=yes", format!("remove {hash} data=yes"), Effect::Remove { data: true })
            }
            15 if !is_moving => change("remove", format!("remove {hash}"), Effect::Remove { data: false }),
            16 => {
                let label = format!("all{number}");
                let effects = draft.queue.iter().map(|hash| (hash.clone(), put("label", &label))).collect();
                Request { kind: "set all", line: format!("set all label {label}"), effects }
            }
            _ => {
                let label = format!("label{number}");
                change("set label", set("label", &label), put("label", &label))
            }
        }
    }

    /// Adds an absent subject by a file in the watch directory. Returns the path that the file has once the daemon has
    /// read it, and the request. `None` if no subject is absent.
    pub fn drop_file(&mut self, daemon: &Daemon) -> Option<(PathBuf, Request)> {
        self.drawn += 1;
        let is_free = |subject: &&Subject| subject.is_drawn && !self.model.is_there(&subject.hash);
        let subject = self.subjects.iter().find(is_free)?;
        let downloads = daemon.dir.join("downloads");
        subject.erase(&downloads);
        subject.write(&downloads);
        let kind = if subject.metainfo.is_some() { "torrent" } else { "magnet" };
        let link = format!("magnet:?xt=urn:btih:{}\n", subject.hash).into_bytes();
        let (temporary, name) = (daemon.dir.join("dropped"), format!("watch/{}.{kind}", self.drawn));
        std::fs::write(&temporary, subject.metainfo.as_ref().unwrap_or(&link)).unwrap();
        std::fs::rename(temporary, daemon.dir.join(&name)).unwrap();
        let effects = vec![(subject.hash.clone(), Effect::Add(subject.facts(&downloads)))];
        let taken = daemon.dir.join(name + ".added");
        Some((taken, Request { kind: "watch", line: String::new(), effects }))
    }

    /// Checks that the daemon, which was just started, has all effects of `acknowledged` and no others than those of
    /// `acknowledged` and `open`. The state of the daemon becomes the expected state.
    ///
    /// # Errors
    /// Returns a description of the acknowledged changes that are lost.
    ///
    /// # Panics
    /// If the daemon has something that no part of these requests explains.
    pub fn check(&mut self, daemon: &Daemon, acknowledged: &[Request], open: &[Request]) -> Result<(), String> {
        wait("no torrent is being checked or moved", 30, || {
            daemon.json("list").iter().all(|row| row["state"] != "checking" && row["moving_to"].is_null())
        });
        // A row of the list is sufficient for torrents that were not touched.
        let is_touched = |hash: &str| {
            let mut effects = acknowledged.iter().chain(open).flat_map(|request| &request.effects);
            effects.any(|(other, effect)| other == hash && !matches!(effect, Effect::Set(key, _) if key == "label"))
        };
        // A rename or a removal that is on record and not done yet is done after the start.
        let (mut next, mut lost, mut looks) = (Model::default(), Vec::new(), 0);
        wait("the state is as expected, or all comparisons failed", 60, || {
            (next, lost) = self.compare(daemon, is_touched, acknowledged, open);
            looks += 1;
            lost.is_empty() || looks > LOOKS_MAX
        });
        if lost.is_empty() {
            self.model = next;
            return Ok(());
        }
        let all = [acknowledged, open].concat();
        let (next, unexplained) = self.compare(daemon, is_touched, &[], &all);
        let unexplained: Vec<_> = unexplained.iter().filter(|what| !what.starts_with("queue")).collect();
        if !unexplained.is_empty() {
            acknowledged.iter().for_each(|request| eprintln!("acknowledged: {:.200}", request.line));
            open.iter().for_each(|request| eprintln!("open: {:.200}", request.line));
            unexplained.iter().take(5).for_each(|what| eprintln!("{what:.3000}"));
            panic!("{} torrents have a state that no request explains", unexplained.len());
        }
        self.model = next;
        Err(lost.join("; "))
    }

    /// Returns the state of the daemon as far as it is possible, and descriptions of everything in it that is not
    /// possible.
    fn compare(
        &self,
        daemon: &Daemon,
        is_touched: impl Fn(&str) -> bool,
        certain: &[Request],
        open: &[Request],
    ) -> (Model, Vec<String>) {
        let (mut model, mut wrong) = (Model::default(), Vec::new());
        let mut rows = daemon.json("list");
        rows.sort_by_key(|row| row["queue"].as_u64());
        model.queue = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        // An absent torrent may have been refused, so that it never had a position.
        let is_refused =
            |(hash, effect): &(String, Effect)| matches!(effect, Effect::Add(_)) && !model.queue.contains(hash);
        let taken: Vec<_> = open.iter().filter(|request| !request.effects.iter().any(is_refused)).cloned().collect();
        if ![open, &taken].iter().any(|open| self.model.may_be_queued(&model.queue, certain, open))
            && !self.model.keeps_order(&model.queue, certain, open)
        {
            wrong.push(format!("queue: {:?} after {:?}", model.queue, self.model.queue));
        }
        for subject in &self.subjects {
            let hash = &subject.hash;
            let row = rows.iter().find(|row| row["id"] == **hash);
            let is_seen_whole = subject.is_drawn && is_touched(hash);
            let seen = row.map(|row| seen(daemon, row, is_seen_whole));
            let fits = |facts: &Facts| match &seen {
                None => !is_there(facts),
                Some(seen) if is_seen_whole => seen.iter().eq(facts.iter().filter(|(key, _)| !is_hidden(key))),
                Some(seen) => is_there(facts) && seen.iter().all(|(key, value)| facts.get(key) == Some(value)),
            };
            let possible = self.model.possible(hash, certain, open);
            match possible.iter().find(|facts| fits(facts) && subject.is_on_disk(facts)) {
                Some(facts) => drop(model.torrents.insert(hash.clone(), facts.clone())),
                None => {
                    let first = possible.first().and_then(|facts| facts.get("dir"));
                    let files = first.map(|dir| tree(Path::new(dir)).0).unwrap_or_default();
                    let files = &files[..files.len().min(10)];
                    wrong.push(format!("{hash}: {seen:?}, {files:?} instead of one of {possible:?}"));
                }
            }
        }
        (model, wrong)
    }
}

/// Returns the facts that the daemon shows of a torrent: those in its row of the list, or, if `is_whole`, all of them,
/// for which the daemon loads a hibernated torrent.
fn seen(daemon: &Daemon, row: &Value, is_whole: bool) -> Facts {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut facts = Facts::new();
    facts.insert("dir".into(), text(&row["dir"]));
    facts.insert("label".into(), text(&row["label"]));
    facts.insert("paused".into(), yes(row["state"] == "paused").into());
    if !row["error"].is_null() {
        facts.insert("error".into(), text(&row["error"]));
    }
    if is_whole {
        let id = text(&row["id"]);
        let rows = daemon.json(&format!("show {id}"));
        for setting in rows[0]["settings"].as_array().unwrap() {
            let key = setting["key"].as_str().unwrap();
            if setting["from"] == "own" && key != "label" && key != "queue" {
                facts.insert(format!("set {key}"), text(&setting["value"]));
            }
        }
        for file in daemon.json(&format!("files {id}")) {
            facts.insert(format!("path {}", file["index"]), text(&file["path"]));
            facts.insert(format!("priority {}", file["index"]), text(&file["priority"]));
        }
    }
    facts
}
