//! What happens to torrents, for whoever watches: plain values.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::geometry::Piece;
use crate::base::hash::InfoHash;
use crate::torrent::snapshot::State;

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A torrent was added.
    Added,
    /// A torrent was removed.
    Removed,
    /// The description of a torrent that came as a link is here.
    Metadata,
    /// It does something else now.
    State,
    /// A piece was downloaded and is right.
    Piece,
    /// Everything wanted is here.
    Finished,
    /// Its content is being moved, is elsewhere now, or could not be moved.
    Move,
    /// It stopped for a reason.
    Error,
    /// A peer came or went.
    Peer,
    /// So much happened that some of it was left out.
    Lost,
}

impl Kind {
    /// Every kind, in the order of the manual.
    pub const ALL: [Self; 10] = [
        Self::Added,
        Self::Removed,
        Self::Metadata,
        Self::State,
        Self::Piece,
        Self::Finished,
        Self::Move,
        Self::Error,
        Self::Peer,
        Self::Lost,
    ];

    /// The word for it on the control socket.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Metadata => "metadata",
            Self::State => "state",
            Self::Piece => "piece",
            Self::Finished => "finished",
            Self::Move => "move",
            Self::Error => "error",
            Self::Peer => "peer",
            Self::Lost => "lost",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// See [`Kind`].
    Added,
    /// See [`Kind`].
    Removed,
    /// See [`Kind`].
    Metadata,
    /// What it does now.
    State(State),
    /// Which.
    Piece(Piece),
    /// See [`Kind`].
    Finished,
    /// Where to, how much of it is there in thousandths, and whether that is all.
    Move {
        /// The directory.
        dir: PathBuf,
        /// Of a thousand.
        thousandths: u16,
        /// It is the torrent's directory now.
        is_there: bool,
    },
    /// One sentence.
    MoveFailed(String),
    /// One sentence.
    Error(String),
    /// Who, and whether it came.
    Peer(SocketAddr, bool),
    /// How many were left out.
    Lost(u64),
}

impl What {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Added => Kind::Added,
            Self::Removed => Kind::Removed,
            Self::Metadata => Kind::Metadata,
            Self::State(_) => Kind::State,
            Self::Piece(_) => Kind::Piece,
            Self::Finished => Kind::Finished,
            Self::Move { .. } | Self::MoveFailed(_) => Kind::Move,
            Self::Error(_) => Kind::Error,
            Self::Peer(..) => Kind::Peer,
            Self::Lost(_) => Kind::Lost,
        }
    }
}

/// Something that happened to a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Unix seconds.
    pub at: u64,
    /// Which torrent; none of [`What::Lost`].
    pub info_hash: Option<InfoHash>,
    /// Its name: a stranger's, to be escaped before it is shown.
    pub name: String,
    /// What.
    pub what: What,
}

/// What a watcher wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// One torrent; all if none.
    pub info_hash: Option<InfoHash>,
    /// These kinds; all if there are none.
    pub kinds: Vec<Kind>,
}

impl Filter {
    /// True if the watcher wants to hear of an event. That some were left out everybody hears.
    #[must_use]
    pub fn wants(&self, event: &Event) -> bool {
        let is_meant = self.info_hash.is_none() || event.info_hash.is_none() || self.info_hash == event.info_hash;
        let kind = event.what.kind();
        is_meant && (self.kinds.is_empty() || kind == Kind::Lost || self.kinds.contains(&kind))
    }
}

/// The kinds that words mean, a comma between them.
///
/// # Errors
/// The first word that means none.
pub fn kinds(words: &str) -> Result<Vec<Kind>, &str> {
    words.split(',').map(|word| Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or(word)).collect()
}
