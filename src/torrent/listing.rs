//! Answers that are collected in parts: what the rows are about, and how far they are collected.
//!
//! A [`Listing`] borrows nothing and holds no rows. The engine moves it on and returns the next [`Slice`] of rows; whoever
//! renders them asks again once the rows have room. What came after a listing began is not part of it, and what was removed
//! since is left out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::base::hash::InfoHash;
use crate::base::ids::{ConnId, TorrentId};
use crate::torrent::command::Answer;
use crate::torrent::dht_command::{Progress, Swarm};
use crate::torrent::snapshot::State;

/// The maximum number of content directories in [`Totals`]: the first ones in alphabetical order.
const DIRS_MAX: usize = 1000;

/// The next rows of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice {
    /// The rows, in an answer of the kind that the command has; [`Answer::Done`] if this slice has none.
    pub rows: Answer,
    /// Whether no more rows follow.
    pub is_last: bool,
}

/// An answer of any length, and how much of it is collected.
#[derive(Debug, Clone, PartialEq)]
pub enum Listing {
    /// To `List` and `Changes`.
    Torrents(Box<Torrents>),
    /// To `Files`: those from this index on.
    Files {
        /// Whose files.
        torrent: TorrentId,
        /// The index of the next file.
        next: usize,
        /// Leaves the paths empty, for a first pass that finds the widths of columns.
        without_paths: bool,
    },
    /// To `Peers`.
    Peers {
        /// Whose peers.
        torrent: TorrentId,
        /// The connections, in the order of their addresses.
        conns: Vec<ConnId>,
        /// How many of them are done.
        next: usize,
    },
    /// To `Pieces`: those from this index on.
    Pieces {
        /// Whose pieces.
        torrent: TorrentId,
        /// The next piece.
        next: u32,
    },
    /// To `Catalog`: the entries of a node from this index on.
    Catalog {
        /// The node, as the user named it.
        of: String,
        /// The index of the next entry.
        next: usize,
    },
    /// To `Dht` with `Sample`.
    Swarms {
        /// All that are known; there is a bound on how many are looked for.
        swarms: Vec<Swarm>,
        /// How many of them are done.
        next: usize,
        /// How far the search is.
        progress: Progress,
    },
    /// To `Stats`: one slice has everything, after all torrents were visited.
    Stats {
        /// The torrents to visit.
        slots: Slots,
        /// Their pieces that passed, failed and were checked.
        pieces: [u64; 3],
    },
    /// To `Status`: likewise.
    Status(Box<Totals>),
}

impl Listing {
    /// Begins again, for a second pass over the same rows.
    pub fn restart(&mut self) {
        match self {
            Self::Torrents(torrents) => {
                torrents.slots.next = 0;
                torrents.next = 0;
                torrents.next_gone = 0;
            }
            Self::Files { next, without_paths, .. } => (*next, *without_paths) = (0, false),
            Self::Peers { next, .. } | Self::Catalog { next, .. } | Self::Swarms { next, .. } => *next = 0,
            Self::Pieces { next, .. } => *next = 0,
            Self::Stats { .. } | Self::Status(_) => {}
        }
    }
}

/// The slots of the torrents of a node. Torrents that came after [`Slots::generation`] are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// The next slot.
    pub next: usize,
    /// See `Arena::next_generation`.
    pub generation: u32,
}

/// Rows of torrents.
#[derive(Debug, Clone, PartialEq)]
pub struct Torrents {
    /// Only torrents in these states; in any if there are none.
    pub states: Vec<State>,
    /// Only torrents with this label.
    pub label: Option<String>,
    /// All torrents, unless `only` says which.
    pub slots: Slots,
    /// These torrents, in this order.
    pub only: Option<Vec<TorrentId>>,
    /// How many of `only` are done.
    pub next: usize,
    /// Instead of all of these, the next slice has these torrents, in this order. For lists that are sorted.
    pub picked: Option<Vec<InfoHash>>,
    /// For `Changes`.
    pub end: Option<ChangesEnd>,
    /// How many of the removed torrents of `end` are done.
    pub next_gone: usize,
    /// Positions in the queue.
    pub places: Places,
}

/// What the last slice of an answer to `Changes` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesEnd {
    /// The torrents that were removed.
    pub gone: Vec<InfoHash>,
    /// The number that the next request is to give. Later changes have greater numbers, so they are in the next answer.
    pub since: u64,
    /// Whether the answer has all torrents.
    pub is_whole: bool,
}

/// The positions of torrents in the queue, which are found by walking it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Places {
    /// Whether rows have positions at all.
    pub is_wanted: bool,
    /// By slot, from 1; 0 if the torrent has none or that is not known yet.
    pub of: Vec<u32>,
    /// The last place that was walked, and its position.
    pub walked: Option<((i64, TorrentId), u32)>,
    /// Whether there is something left to walk.
    pub is_open: bool,
}

/// Figures of all torrents together.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// The torrents to visit.
    pub slots: Slots,
    /// Torrents by state, in the order of [`State::ALL`].
    pub torrents: [usize; State::ALL.len()],
    /// Connected peers.
    pub peers: usize,
    /// Directories that hold content; no more than the first thousand.
    pub dirs: BTreeSet<PathBuf>,
}

impl Totals {
    /// Adds a directory that holds content.
    pub fn add_dir(&mut self, dir: &std::path::Path) {
        let is_new = self.dirs.len() < DIRS_MAX || self.dirs.last().is_some_and(|last| dir < last);
        if is_new && !self.dirs.contains(dir) {
            self.dirs.insert(dir.to_owned());
            if self.dirs.len() > DIRS_MAX {
                self.dirs.pop_last();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_keep_the_first_directories_only() {
        let slots = Slots { next: 0, generation: 0 };
        let mut totals = Totals { slots, torrents: Default::default(), peers: 0, dirs: BTreeSet::new() };
        for number in (0..2 * DIRS_MAX).rev().chain(0..2 * DIRS_MAX) {
            totals.add_dir(format!("/{number:06}").as_ref());
        }
        let expected: BTreeSet<PathBuf> = (0..DIRS_MAX).map(|number| format!("/{number:06}").into()).collect();
        assert_eq!(totals.dirs, expected);
    }
}
