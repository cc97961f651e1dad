//! Power cuts: the file system below the state and the downloads is shut down at any moment, while the daemon downloads
//! and carries out changes. After the log of the file system is replayed, every acknowledged change must be in effect,
//! and every piece that the daemon claims must have the right bytes on the disk.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and measures real time"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::changes::{Changes, Effect, Request, Subject, acknowledged};
use common::loop_disk::{Flushed, LoopDisk};
use common::pipeline::Pipeline;
use common::{Daemon, in_mounts_of_root, wait};
use swarmtorrent::base::rng::Rng;
use swarmtorrent::torrent::create::Profile;

/// The number of rounds on each file system; `SWARMTORRENT_POWER_CUTS` sets another number.
const ROUNDS: u64 = 15;
/// The seed of the first round; each later round has the next seed. `SWARMTORRENT_POWER_SEED` sets another number.
const SEED: u64 = 1;
const DISK_MIB: u64 = 400;
const PIECE_LEN: usize = 65_536;
/// The lengths of the downloaded files: the file in the middle shares pieces with its neighbours.
const CONTENT_LENS: [usize; 3] = [9_000_001, 70_000, 15_000_000];
/// The upload rate of the seeder until the power is cut, in bytes per second.
const RATE_BYTES: u64 = 12_000_000;
const MOVED_LEN: usize = 20_000_000;
const REMOVED_FILES: usize = 200;
/// The number of torrents that are added together, and whose records make the journal long.
const MANY: usize = 250;
/// The latest moment of a cut after the first request, in milliseconds: while the requests are carried out, or while
/// the daemon saves and downloads.
const CUT_AFTER_MS: [u64; 2] = [150, 1200];
const CONFIG: &str = "[limits]\nmin_free_space = \"0\"\n";

/// The kind of requests during which the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// Changes of all kinds.
    Mixed,
    /// A move to another file system, or back.
    Move,
    /// A removal with many files.
    Removal,
    /// Additions or removals of torrents, as fast as the daemon accepts them.
    Many,
    /// Changes of the records of all torrents, repeated until the journal is rewritten.
    Journal,
}

const VARIANTS: [Variant; 5] = [Variant::Mixed, Variant::Move, Variant::Removal, Variant::Many, Variant::Journal];

/// A daemon whose state and downloads are on a disk of which the power is cut.
struct Rig {
    // Dropped first, so that the disk is not in use.
    daemon: Option<Daemon>,
    seeder: Daemon,
    disk: LoopDisk,
    /// The mount point of the disk.
    mounted: PathBuf,
    /// A directory on another disk.
    outside: PathBuf,
    home: PathBuf,
    changes: Changes,
    /// The hash of the torrent that is downloaded.
    content: String,
    /// The hash of the torrent that is moved.
    moved: String,
    /// The hash of the torrent that is removed.
    removed: String,
    /// The hashes of many torrents without content on the disk.
    many: Vec<String>,
}

fn power_cuts(kind: &str) {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let temp = tempfile::tempdir().unwrap();
    let Some(mut rig) = Rig::new(kind, temp.path()) else { return };
    let first = number("SWARMTORRENT_POWER_SEED", SEED);
    let (mut lost, mut figures) = (Vec::new(), BTreeMap::<String, [usize; 2]>::new());
    for seed in first..first + number("SWARMTORRENT_POWER_CUTS", ROUNDS) {
        let mut rng = Rng::from_number(seed);
        let variant = VARIANTS[usize::try_from(seed).unwrap() % VARIANTS.len()];
        let flushed = *rng.choose(&[Flushed::Nothing, Flushed::Nothing, Flushed::Log, Flushed::Everything]).unwrap();
        eprintln!("{kind}, seed {seed}: {variant:?}, {flushed:?} is flushed");
        let result = rig.round(&mut rng, variant, flushed);
        let [of_lost, of] = figures.entry(format!("{variant:?}")).or_default();
        *of += 1;
        if let Err(what) = result {
            eprintln!("  lost: {what:.600}");
            *of_lost += 1;
            lost.push(seed);
        }
    }
    eprintln!("{kind}: rounds in which something acknowledged was lost, and all rounds: {figures:?}");
    assert!(lost.is_empty(), "{kind}: lost in the rounds with seeds {lost:?}");
}

#[test]
fn ext4_keeps_acknowledged_changes_when_its_power_is_cut() {
    let name = "ext4_keeps_acknowledged_changes_when_its_power_is_cut";
    in_mounts_of_root(name, || power_cuts("ext4"));
}

#[test]
fn xfs_keeps_acknowledged_changes_when_its_power_is_cut() {
    let name = "xfs_keeps_acknowledged_changes_when_its_power_is_cut";
    in_mounts_of_root(name, || power_cuts("xfs"));
}

impl Rig {
    fn new(kind: &str, temp: &Path) -> Option<Self> {
        let [mounted, home, outside] = ["disk", "home", "outside"].map(|name| temp.join(name));
        let disk = LoopDisk::make(kind, &temp.join("image"), DISK_MIB, &mounted)?;
        for dir in [&home, &outside] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for name in ["state", "downloads"] {
            std::fs::create_dir(mounted.join(name)).unwrap();
            std::os::unix::fs::symlink(mounted.join(name), home.join(name)).unwrap();
        }
        let new = |name: &str, lens: &[usize], piece_len| Subject::new(Profile::V1, name, lens, piece_len);
        let mut content = new("content", &CONTENT_LENS, PIECE_LEN);
        content.is_complete = false;
        let seeder = Daemon::start(&temp.join("seeder"), "");
        content.write(&seeder.dir.join("downloads"));
        let metainfo = temp.join("content.torrent");
        let reply = seeder.ask(&content.add(&metainfo, &seeder.dir.join("downloads"), false).line);
        assert!(reply[0].starts_with("OK"), "{reply:?}");
        seeder.wait_state("seeding", 60);
        let moved = new("moved", &[MOVED_LEN / 2; 2], PIECE_LEN);
        let removed = new("removed", &[500; REMOVED_FILES], PIECE_LEN);
        let mut many: Vec<_> = (0..MANY).map(|number| new(&format!("many{number}"), &[100], PIECE_LEN)).collect();
        many.iter_mut().for_each(|subject| subject.is_complete = false);
        let [hash, moved_hash, removed_hash] = [&content, &moved, &removed].map(|subject| subject.hash.clone());
        let of_many = many.iter().map(|subject| subject.hash.clone()).collect();
        let mut changes = Changes::new(SEED, &mounted.join("contents"));
        changes.subjects.extend([content, moved, removed]);
        changes.subjects.extend(many);
        let daemon = Some(Daemon::start(&home, CONFIG));
        Some(Self {
            daemon,
            seeder,
            disk,
            mounted,
            outside,
            home,
            changes,
            content: hash,
            moved: moved_hash,
            removed: removed_hash,
            many: of_many,
        })
    }

    /// Carries out one round: a torrent is downloaded, changes are requested, the power is cut, and the remaining state
    /// is checked.
    fn round(&mut self, rng: &mut Rng, variant: Variant, flushed: Flushed) -> Result<(), String> {
        let daemon = self.daemon.take().unwrap();
        let mut done = self.prepare(&daemon, variant);
        let (requests, window) = self.draw(rng, variant);
        self.disk.sync();
        self.seeder.ask(&format!("limit up {RATE_BYTES}"));
        daemon.ask(&format!("connect {} {}", self.content, self.seeder.listen));
        let mut pipeline = Pipeline::connect(&self.home);
        let latest_ms = *rng.choose(&CUT_AFTER_MS).unwrap();
        let cut_after = Duration::from_millis(rng.below(latest_ms));
        let cut_at = Instant::now() + cut_after;
        let (mut sent, mut replies) = (Vec::new(), Vec::new());
        for chunk in requests.chunks(window) {
            pipeline.send(chunk.iter().map(|request| request.line.clone() + "\n").collect());
            sent.extend_from_slice(chunk);
            while replies.len() < sent.len()
                && let Some(reply) = pipeline.reply(cut_at)
            {
                replies.push(reply);
            }
            if Instant::now() >= cut_at {
                break;
            }
        }
        wait("the time of the cut is reached", 10, || Instant::now() >= cut_at);
        self.disk.shut_down(flushed);
        daemon.kill();
        // Replies that the daemon sent after the cut count as acknowledgements, too.
        while let Some(reply) = pipeline.reply(Instant::now() + Duration::from_secs(1)) {
            replies.push(reply);
        }
        self.disk.unmount();
        self.disk.mount();
        let (acknowledged, open) = acknowledged(sent, &replies, true);
        done.extend(acknowledged);
        let daemon = Daemon::start(&self.home, CONFIG);
        let kept = self.check_claims(&daemon);
        let (count, all) = (replies.len(), requests.len());
        eprintln!("  cut after {cut_after:?}, {count} replies to {all} requests, {kept} bytes of the download kept");
        let result = self.changes.check(&daemon, &done, &open);
        if self.changes.model.is_there(&self.content) {
            self.finish(&daemon);
        }
        self.daemon = Some(daemon);
        result
    }

    /// Starts the download, and adds the torrents that the variant needs. Returns the requests that were carried out.
    fn prepare(&mut self, daemon: &Daemon, variant: Variant) -> Vec<Request> {
        let (mut done, model) = (Vec::new(), &self.changes.model);
        let downloads = self.mounted.join("downloads");
        let mut ask = |request: Request| {
            wait(&request.line, 20, || !daemon.ask(&request.line)[0].starts_with("ERR busy"));
            done.push(request);
        };
        if model.is_there(&self.content) {
            ask(remove(&self.content));
        }
        let add = |hash: &str, is_paused| {
            self.changes.subject(hash).add(&self.outside.join("metainfo"), &downloads, is_paused)
        };
        ask(add(&self.content, false));
        let needed = match variant {
            Variant::Move => Some(&self.moved),
            Variant::Removal => Some(&self.removed),
            Variant::Journal => {
                self.many.iter().filter(|hash| !model.is_there(hash)).for_each(|hash| ask(add(hash, true)));
                None
            }
            Variant::Mixed | Variant::Many => None,
        };
        if let Some(hash) = needed.filter(|hash| !model.is_there(hash)) {
            self.changes.subject(hash).write(&downloads);
            self.disk.sync();
            ask(add(hash, false));
            let state = || daemon.json(&format!("show {hash}")).remove(0)["state"].clone();
            wait("the torrent is seeded", 30, || state() == "seeding");
        }
        done
    }

    /// Returns the requests of a round, and the maximum number of requests that wait for their replies.
    fn draw(&mut self, rng: &mut Rng, variant: Variant) -> (Vec<Request>, usize) {
        let model = &self.changes.model;
        match variant {
            Variant::Mixed => (self.changes.draw(48), 8),
            Variant::Move => {
                let is_inside = !model.is_there(&self.moved)
                    || Path::new(model.fact(&self.moved, "dir")).starts_with(&self.mounted);
                let base = if is_inside { &self.outside } else { &self.mounted };
                let dir = base.join(format!("moved{}", rng.u32())).to_str().unwrap().to_owned();
                let line = format!("move {} {dir}", self.moved);
                let effects = vec![(self.moved.clone(), Effect::Move(dir))];
                (vec![Request { kind: "move", line, effects }], 1)
            }
            Variant::Removal => (vec![remove(&self.removed)], 1),
            Variant::Many => {
                let absent: Vec<_> = self.many.iter().filter(|hash| !model.is_there(hash)).collect();
                let requests: Vec<_> = if absent.is_empty() {
                    self.many.iter().map(|hash| remove(hash)).collect()
                } else {
                    let downloads = self.mounted.join("downloads");
                    let path = |hash: &str| self.outside.join(hash);
                    absent.iter().map(|hash| self.changes.subject(hash).add(&path(hash), &downloads, true)).collect()
                };
                (requests, MANY)
            }
            Variant::Journal => {
                let hashes = || self.changes.subjects.iter().map(|subject| subject.hash.clone());
                let label = |number| format!("{number:x<250}");
                let effect = |number| Effect::Set("label".to_owned(), label(number));
                let effects = |number| hashes().map(|hash| (hash, effect(number))).collect();
                let line = |number| format!("set all label {}", label(number));
                let request = |number| Request { kind: "set all", line: line(number), effects: effects(number) };
                let first = rng.u32() >> 1;
                ((first..first + 120).map(request).collect(), 1)
            }
        }
    }

    /// Compares the pieces that the daemon claims to have of the download with the bytes on the disk. Returns the
    /// number of claimed bytes.
    fn check_claims(&self, daemon: &Daemon) -> usize {
        if !daemon.json("list").iter().any(|row| row["id"] == *self.content) {
            return 0;
        }
        let pieces = daemon.json(&format!("pieces {}", self.content));
        let (right, found) = (self.changes.subject(&self.content).content(), self.content_on_disk());
        let mut kept = 0;
        for piece in pieces.iter().filter(|piece| piece["state"] == "have") {
            let at = usize::try_from(piece["piece"].as_u64().unwrap()).unwrap() * PIECE_LEN;
            let range = at..right.len().min(at + PIECE_LEN);
            kept += range.len();
            assert!(found[range.clone()] == right[range], "piece {} is claimed and has wrong bytes", piece["piece"]);
        }
        kept
    }

    /// Returns the bytes of the download; zeros where bytes are missing.
    fn content_on_disk(&self) -> Vec<u8> {
        let read = |(number, len): (usize, &usize)| {
            let path = self.mounted.join(format!("downloads/content/file{number}"));
            let mut bytes = std::fs::read(path).unwrap_or_default();
            bytes.resize(*len, 0);
            bytes
        };
        CONTENT_LENS.iter().enumerate().flat_map(read).collect()
    }

    /// Continues the download until it is complete.
    fn finish(&self, daemon: &Daemon) {
        self.seeder.ask("limit up 0");
        daemon.ask(&format!("connect {} {}", self.content, self.seeder.listen));
        let row = || daemon.json(&format!("show {}", self.content)).remove(0);
        wait("the download is complete", 60, || row()["state"] == "seeding");
        assert!(self.content_on_disk() == self.changes.subject(&self.content).content());
    }
}

/// Returns the request that removes a torrent with its data.
fn remove(hash: &str) -> Request {
    let effects = vec![(hash.to_owned(), Effect::Remove { data: true })];
    Request { kind: "remove data=yes", line: format!("remove {hash} data=yes"), effects }
}
