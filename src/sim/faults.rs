//! What befalls a swarm: crashes, cuts, bad disks, strange clocks, trackers that fail. Each comes, lasts, and heals.

use std::time::Duration;

use serde::Deserialize;

use crate::sim::World;
use crate::sim::scenario::{duration, one, one_or_more, some_duration};
use crate::sim::trace::What;
use crate::sim::tracker::Mood;
use crate::torrent::command::{Command, Which};

/// How much farther away from everybody a slow node is: more than a tracker waits for its store.
const SLOWER: Duration = Duration::from_millis(400);

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The program is killed, and started again.
    Crash,
    /// The machine stops: what was not synced is there or not, and nobody refuses anything.
    PowerCut,
    /// The machine is suspended.
    Freeze,
    /// Its clock jumps ahead by as much as the fault lasts.
    ClockJump,
    /// It is cut off from everybody who is not cut off with it.
    Cut,
    /// One of its streams does not move.
    Stall,
    /// One of its streams breaks.
    Reset,
    /// There is no room on its disk.
    DiskFull,
    /// Something on its disk cannot be read.
    ReadError,
    /// One bit on its disk changes; at the end its user has everything hashed again.
    BitFlip,
    /// Its files are gone; at the end they are put back, and its user has everything hashed again.
    FilesGone,
    /// Its disk is not mounted, and at the end it is again; nobody asks for anything.
    DiskAway,
    /// The trackers answer nothing.
    TrackersSilent,
    /// The trackers lie.
    TrackersLie,
    /// So many more packets are lost.
    Loss,
    /// It is much farther away from everybody.
    Slow,
}

/// A fault, as a scenario says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FaultSpec {
    /// What.
    pub kind: FaultKind,
    /// When.
    #[serde(deserialize_with = "duration")]
    pub at: Duration,
    /// And again so long after each time, until `until`.
    #[serde(deserialize_with = "some_duration", default)]
    pub every: Option<Duration>,
    /// See `every`.
    #[serde(deserialize_with = "some_duration", default)]
    pub until: Option<Duration>,
    /// How long it lasts; for ever if none.
    #[serde(rename = "for", deserialize_with = "some_duration", default)]
    pub lasts: Option<Duration>,
    /// The groups it befalls; any node if none is named.
    #[serde(deserialize_with = "one_or_more", default)]
    pub nodes: Vec<String>,
    /// How many of them.
    #[serde(default = "one")]
    pub count: usize,
    /// The share of packets, for `loss`.
    #[serde(default)]
    pub share: f64,
}

impl FaultSpec {
    /// When it comes.
    #[must_use]
    pub fn moments(&self) -> Vec<Duration> {
        let until = self.until.unwrap_or(self.at);
        let every = self.every.filter(|every| !every.is_zero());
        let mut moments = vec![self.at];
        while let (Some(every), Some(&last)) = (every, moments.last())
            && last + every <= until
        {
            moments.push(last + every);
        }
        moments
    }
}

/// A fault that has come: whom it befell.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: FaultKind,
    pub(crate) nodes: Vec<usize>,
    pub(crate) lasts: Option<Duration>,
    pub(crate) share: f64,
    /// Its number, which names the side of a cut.
    pub(crate) number: u32,
}

impl World {
    /// A fault comes. Nodes that must be started again when it ends are for the caller.
    pub(crate) fn begin(&mut self, fault: &Fault) {
        let lasts = fault.lasts.unwrap_or(Duration::from_secs(1 << 30));
        let until = self.now + lasts;
        for &node in &fault.nodes {
            self.trace.note(self.now, node, What::Fate(fault.kind.word()), &[]);
            let ahead = if fault.kind == FaultKind::ClockJump { lasts } else { Duration::ZERO };
            let heals = if fault.kind == FaultKind::Reset { self.now } else { until };
            self.ledger.befalls(node, heals, ahead);
        }
        match fault.kind {
            FaultKind::Crash | FaultKind::PowerCut => {
                for &node in &fault.nodes {
                    self.crash(node, fault.kind == FaultKind::PowerCut);
                }
            }
            FaultKind::Freeze => {
                for &node in &fault.nodes {
                    self.nodes[node].frozen_until = self.nodes[node].frozen_until.max(until);
                }
            }
            FaultKind::ClockJump => fault.nodes.iter().for_each(|&node| self.nodes[node].clock.ahead += lasts),
            FaultKind::Cut => {
                fault.nodes.iter().for_each(|&node| self.nodes[node].side = fault.number);
                self.let_go_on(); // whom another cut had parted may be on one side now
            }
            FaultKind::Stall => fault.nodes.iter().for_each(|&node| self.stall_stream(node, until)),
            FaultKind::Reset => fault.nodes.iter().for_each(|&node| self.reset_stream(node)),
            FaultKind::DiskFull
            | FaultKind::ReadError
            | FaultKind::BitFlip
            | FaultKind::FilesGone
            | FaultKind::DiskAway => {
                for &node in &fault.nodes {
                    let Some(storage) = self.nodes[node].storage() else { continue };
                    let mut rng = self.rng.fork("disk");
                    match fault.kind {
                        FaultKind::DiskFull => storage.is_full = true,
                        FaultKind::ReadError => drop(storage.spoil(&mut rng)),
                        FaultKind::BitFlip => drop(storage.flip_bit(&mut rng)),
                        FaultKind::DiskAway => storage.unmount(),
                        _ => storage.lose_files(&mut rng),
                    }
                }
            }
            FaultKind::TrackersSilent => self.set_mood(Mood::Silent),
            FaultKind::TrackersLie => self.set_mood(Mood::Lies),
            FaultKind::Loss => {
                self.network.loss += fault.share;
                self.ledger.befalls_streams(until);
            }
            FaultKind::Slow => fault.nodes.iter().for_each(|&node| self.nodes[node].extra += SLOWER),
        }
        fault.nodes.iter().for_each(|&node| self.stir(node));
    }

    /// A fault ends.
    pub(crate) fn heal(&mut self, fault: &Fault) {
        for &node in &fault.nodes {
            self.trace.note(self.now, node, What::Fate("heals"), &[]);
        }
        match fault.kind {
            FaultKind::Cut => {
                for &node in &fault.nodes {
                    let side = &mut self.nodes[node].side;
                    *side = if *side == fault.number { 0 } else { *side };
                }
                self.let_go_on();
            }
            FaultKind::Stall => self.let_go_on(),
            FaultKind::DiskFull
            | FaultKind::ReadError
            | FaultKind::BitFlip
            | FaultKind::FilesGone
            | FaultKind::DiskAway => {
                for &node in &fault.nodes {
                    if let Some(storage) = self.nodes[node].storage() {
                        match fault.kind {
                            FaultKind::DiskFull => storage.is_full = false,
                            FaultKind::ReadError => storage.unspoil(),
                            FaultKind::FilesGone => storage.put_back(),
                            FaultKind::DiskAway => storage.mount(),
                            _ => {} // a bit stays as it is until somebody looks
                        }
                    }
                    if matches!(fault.kind, FaultKind::BitFlip | FaultKind::FilesGone) {
                        self.verify_all(node);
                    }
                }
            }
            FaultKind::TrackersSilent | FaultKind::TrackersLie => self.set_mood(Mood::Honest),
            FaultKind::Loss => self.network.loss = (self.network.loss - fault.share).max(0.0),
            FaultKind::Freeze => fault.nodes.iter().for_each(|&node| self.thaw(node)),
            FaultKind::Slow => fault.nodes.iter().for_each(|&node| self.nodes[node].extra -= SLOWER),
            FaultKind::Crash | FaultKind::PowerCut | FaultKind::ClockJump | FaultKind::Reset => {}
        }
        fault.nodes.iter().for_each(|&node| self.stir(node));
    }

    /// A node's user has everything hashed again.
    fn verify_all(&mut self, node: usize) {
        let local = self.nodes[node].clock.local(self.now);
        if let Some(storage) = self.nodes[node].storage() {
            storage.give_up();
        }
        if let Some(engine) = self.nodes[node].engine() {
            let _checking_already = engine.handle_command(local, Command::Verify(Which::All));
        }
    }

    fn set_mood(&mut self, mood: Mood) {
        for tracker in self.nodes.iter_mut().filter_map(|node| node.tracker()) {
            tracker.mood = mood;
        }
    }
}

impl FaultKind {
    /// The word for it in a trace.
    const fn word(self) -> &'static str {
        match self {
            Self::Crash => "is killed",
            Self::PowerCut => "has no power",
            Self::Freeze => "is suspended",
            Self::ClockJump => "has its clock set ahead",
            Self::Cut => "is cut off",
            Self::Stall => "has a stream that stalls",
            Self::Reset => "has a stream that breaks",
            Self::DiskFull => "has a full disk",
            Self::ReadError => "has a page that cannot be read",
            Self::BitFlip => "has a bit that flips",
            Self::FilesGone => "has lost its files",
            Self::DiskAway => "has its disk unmounted",
            Self::TrackersSilent => "hears of no tracker",
            Self::TrackersLie => "is lied to by trackers",
            Self::Loss => "loses packets",
            Self::Slow => "is far away",
        }
    }

    /// It befalls the network or the trackers, not nodes.
    pub(crate) const fn is_everywhere(self) -> bool {
        matches!(self, Self::TrackersSilent | Self::TrackersLie | Self::Loss)
    }
}
