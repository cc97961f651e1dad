//! What a user can ask of the node, and what it answers: plain values. `service/control` is their text form.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::hash::InfoHash;
use crate::base::ids::LoadId;
use crate::codec::catalog::Entry;
use crate::codec::import::Import;
use crate::torrent::create::{NewFile, Profile};
use crate::torrent::dht_command::{DhtAnswer, DhtCommand};
use crate::torrent::settings::SettingRow;
use crate::torrent::snapshot::{FileRow, PeerRow, PieceState, Priority, State, Summary, TrackerRow};
use crate::torrent::tracker_state::TrackerState;
use crate::torrent::why::Reason;

/// Which torrents a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// The one whose wire hash or `st-id` begins with these hex digits (4 to 64, lower case).
    Prefix(String),
}

/// Where a torrent to add comes from. Whatever had to be read from a disk has been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The bytes of a `.torrent` or `.st` file.
    Metainfo(Vec<u8>),
    /// A magnet link, or a bare hash of 40 or 64 hex digits.
    Link(String),
}

/// How a torrent is added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddOptions {
    /// Where its content goes; `[paths] downloads` if none.
    pub dir: Option<PathBuf>,
    /// A word of the user's.
    pub label: String,
    /// Do not start it.
    pub paused: bool,
    /// Only these files, by index and inclusive; all if empty.
    pub only: Vec<(usize, usize)>,
    /// It lies in a share directory: it is in our catalog.
    pub shared: bool,
    /// Nobody is to see it: it is there until its description is.
    pub peek: bool,
    /// In the order of the content.
    pub sequential: bool,
    /// Hash what is there; none is `[storage] verify_on_add`.
    pub verify: Option<bool>,
    /// What another client knew of it: only what its files do not bear out is hashed, whatever `verify` says.
    pub import: Option<Box<Import>>,
}

/// A file or directory to share: described, then seeded where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewShare {
    /// The directory that it lies in.
    pub dir: PathBuf,
    /// Its name there.
    pub name: OsString,
    /// Its files: each path in components below it (none if it is a file itself), and length in bytes.
    pub files: Vec<NewFile>,
    /// What kind of description.
    pub profile: Profile,
    /// Trackers to announce it to.
    pub trackers: Vec<String>,
}

impl NewShare {
    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }
}

/// Which files of a torrent a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilePattern {
    /// Indexes, inclusive.
    Range(usize, usize),
    /// A glob (`*`, `?`) over the path.
    Glob(String),
}

/// A direction of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To us.
    Down,
    /// From us.
    Up,
}

/// One thing a user asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Figures of the whole node.
    Status,
    /// Every counter.
    Stats,
    /// All torrents of these states (all if empty) and this label.
    List {
        /// Which states.
        states: Vec<State>,
        /// Which label.
        label: Option<String>,
    },
    /// What has changed since an earlier answer gave this number.
    Changes(u64),
    /// Everything of one torrent.
    Show(Which),
    /// Its files.
    Files(Which),
    /// Its peers.
    Peers(Which),
    /// Its trackers.
    Trackers(Which),
    /// Its pieces.
    Pieces(Which),
    /// Why it does not move.
    Why(Which),
    /// Adds a torrent.
    Add {
        /// What.
        source: Source,
        /// How.
        options: AddOptions,
    },
    /// Takes a torrent out, with its content if `data`.
    Remove {
        /// Which.
        which: Which,
        /// Delete its files too.
        data: bool,
    },
    /// Stops it.
    Pause(Which),
    /// Starts it.
    Resume(Which),
    /// Hashes all its content again.
    Verify(Which),
    /// Asks its trackers now.
    Announce(Which),
    /// Changes a setting of a torrent.
    Set {
        /// Which.
        which: Which,
        /// Which setting.
        key: String,
        /// Its new value.
        value: String,
    },
    /// Reads one setting of a torrent, or all.
    Get {
        /// Which.
        which: Which,
        /// Which setting; all if none.
        key: Option<String>,
    },
    /// Changes how much files are wanted.
    Prioritize {
        /// Which.
        which: Which,
        /// Which files.
        files: FilePattern,
        /// How much.
        priority: Priority,
    },
    /// Sets a global rate limit; 0 is none.
    Limit {
        /// Which way.
        direction: Direction,
        /// Bytes a second.
        rate_bytes: u64,
    },
    /// Moves content.
    Move {
        /// Which.
        which: Which,
        /// Where to.
        dir: PathBuf,
    },
    /// Renames a file.
    Rename {
        /// Which.
        which: Which,
        /// Which file; `.` is what holds all of them.
        file: FilePattern,
        /// Its new name, a single one.
        name: String,
    },
    /// Dials a peer.
    Connect {
        /// For which torrent.
        which: Which,
        /// Where it is: an IP address, or a name that is looked up.
        host: String,
        /// Its port.
        port: u16,
    },
    /// What a node shares.
    Catalog {
        /// Where it is: an IP address, or a name that is looked up.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The torrent's magnet link.
    Magnet(Which),
    /// The bytes of its metainfo file.
    Export {
        /// Which.
        which: Which,
        /// As a `.torrent`, whatever it came as.
        as_torrent: bool,
    },
    /// Describes and seeds what lies in a share directory, unless that is as it was. It is hashed in the background.
    Share(NewShare),
    /// What lies there is shared no more.
    Unshare(PathBuf),
    /// Where everything lies that is shared, or is about to be.
    Shares,
    /// Something about the DHT.
    Dht(DhtCommand),
    /// The tracker server's figures.
    Tracker,
    /// Saves, says goodbye to trackers, ends.
    Shutdown,
}

impl Command {
    /// Whether it changes something that the next run has to know: then its `OK` waits until that is on the disk.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        match self {
            Self::Add { .. }
            | Self::Remove { .. }
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Verify(_)
            | Self::Set { .. }
            | Self::Prioritize { .. }
            | Self::Move { .. }
            | Self::Rename { .. } => true,
            Self::Status
            | Self::Stats
            | Self::List { .. }
            | Self::Changes(_)
            | Self::Show(_)
            | Self::Files(_)
            | Self::Peers(_)
            | Self::Trackers(_)
            | Self::Pieces(_)
            | Self::Why(_)
            | Self::Announce(_)
            | Self::Get { .. }
            | Self::Limit { .. }
            | Self::Connect { .. }
            | Self::Catalog { .. }
            | Self::Magnet(_)
            | Self::Export { .. }
            | Self::Share(_)
            | Self::Unshare(_)
            | Self::Shares
            | Self::Dht(_)
            | Self::Tracker
            | Self::Shutdown => false,
        }
    }
}

/// What kind of refusal it is. The words are those of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The command line is wrong.
    Usage,
    /// There is no such command.
    UnknownCommand,
    /// There is no such torrent, file or key.
    NotFound,
    /// More than one is meant.
    Ambiguous,
    /// It is there already.
    Exists,
    /// A bad file, link or value.
    Invalid,
    /// Not permitted.
    Denied,
    /// The disk said no.
    Io,
    /// Not now.
    Busy,
    /// Not in this version or configuration.
    Unsupported,
}

impl RefusalKind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::UnknownCommand => "unknown-command",
            Self::NotFound => "not-found",
            Self::Ambiguous => "ambiguous",
            Self::Exists => "exists",
            Self::Invalid => "invalid",
            Self::Denied => "denied",
            Self::Io => "io",
            Self::Busy => "busy",
            Self::Unsupported => "unsupported",
        }
    }
}

/// A command that was not carried out; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// One sentence for a person: what happened and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal of `kind` that says `message`.
    #[must_use]
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Figures of the whole node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Status {
    /// Seconds since the start.
    pub uptime: u64,
    /// Torrents by state, in the order of [`State::ALL`].
    pub torrents: [usize; State::ALL.len()],
    /// Connected peers.
    pub peers: usize,
    /// Connections of any kind.
    pub connections: usize,
    /// Payload coming in, bytes a second.
    pub down_rate: u64,
    /// Payload going out, bytes a second.
    pub up_rate: u64,
    /// Payload received since the start.
    pub downloaded: u64,
    /// Payload sent since the start.
    pub uploaded: u64,
    /// The global limits, bytes a second, 0 is none: down and up.
    pub limits: (u64, u64),
    /// DHT nodes that answered lately, of both families; none where the DHT is off.
    pub dht_nodes: Option<usize>,
    /// Addresses listened at, as bound.
    pub listen: Vec<SocketAddr>,
    /// Where the DHT speaks, as bound; empty where it is off.
    pub dht_listen: Vec<SocketAddr>,
    /// Why nothing can be sent now; none if it can.
    pub trouble: Option<String>,
}

/// The answer to a command that was carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It is done to so many torrents.
    DoneTo(usize),
    /// The torrent was added.
    Added(InfoHash),
    /// Metainfo has to be read first, which takes longer than one call: the answer comes from
    /// `Engine::poll_loaded`, with this id.
    Later(LoadId),
    /// To `Status`.
    Status(Box<Status>),
    /// To `Stats`: names and values.
    Stats(Vec<(String, u64)>),
    /// To `Changes`.
    Changes {
        /// The torrents that have, or may have.
        rows: Vec<Summary>,
        /// Those that went.
        gone: Vec<InfoHash>,
        /// What to ask with the next time.
        since: u64,
        /// These are all torrents: whatever is not among them has gone.
        is_whole: bool,
    },
    /// To `List`.
    List(Vec<Summary>),
    /// To `Show`.
    Show(Box<Summary>),
    /// To `Files`.
    Files(Vec<FileRow>),
    /// To `Peers`.
    Peers(Vec<PeerRow>),
    /// To `Trackers`.
    Trackers(Vec<TrackerRow>),
    /// To `Pieces`.
    Pieces(Vec<PieceState>),
    /// To `Why`.
    Why(Vec<Reason>),
    /// To `Get`.
    Settings(Vec<SettingRow>),
    /// To `Catalog`.
    Catalog {
        /// What it has told so far.
        entries: Vec<Entry>,
        /// That is all; otherwise more comes, and is told when asked again.
        is_whole: bool,
    },
    /// To `Shares`.
    Shares(Vec<PathBuf>),
    /// To `Magnet`.
    Link(String),
    /// To `Export`: the file's bytes.
    Metainfo(Vec<u8>),
    /// To `Dht`.
    Dht(DhtAnswer),
    /// To `Tracker`.
    Tracker(Box<TrackerState>),
}

/// What the node says to a command.
pub type Reply = Result<Answer, Refusal>;
