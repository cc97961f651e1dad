//! What a client of the control socket asks, and what the daemon tells it: plain values.

use std::path::PathBuf;

use crate::torrent::command::{AddOptions, Answer, Command, Refusal, Status, Which};
use crate::torrent::event::{Filter, Kind};
use crate::torrent::listing::Listing;

/// One request, understood. `help` and `version` never get this far: the session answers them itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// For the engine; answer with [`Report::Node`], and `Status` with [`Report::Status`].
    Node(Command),
    /// Add the metainfo file at this path of the daemon's file system; answer as the engine answers its contents.
    AddFile {
        /// An absolute path.
        path: PathBuf,
        /// How.
        options: AddOptions,
    },
    /// Add the metainfo file at this HTTP address.
    AddUrl {
        /// `http://…` or `https://…`
        url: String,
        /// How.
        options: AddOptions,
    },
    /// Write a torrent's metainfo to a file of the daemon's file system.
    Export {
        /// The engine's part: `Command::Export`, whose bytes go to the file.
        command: Command,
        /// For `format=st`: fails unless the torrent came as a `.st`.
        needs_st: bool,
        /// An absolute path.
        path: PathBuf,
    },
    /// Change what is logged.
    Log {
        /// The new level.
        level: log::LevelFilter,
        /// For this part of the program only.
        target: Option<String>,
    },
    /// Read the config again, and tell of each key that has changed.
    Reload,
    /// Have the alternative limits hold or not.
    Alternative(Alternatively),
    /// Tell what happens to a torrent, or to all, until the client goes.
    Watch {
        /// One torrent, or all.
        which: Option<Which>,
        /// These kinds of events; all if there are none.
        kinds: Vec<Kind>,
    },
}

impl Request {
    /// Whether it changes something that the next run has to know: see [`Command::is_durable`].
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        match self {
            Self::Node(command) => command.is_durable(),
            Self::AddFile { .. } | Self::AddUrl { .. } => true,
            Self::Export { .. } | Self::Log { .. } | Self::Reload | Self::Alternative(_) | Self::Watch { .. } => false,
        }
    }
}

/// Whether the alternative limits hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alternatively {
    /// They do.
    On,
    /// They do not.
    Off,
    /// As the clock says.
    Auto,
}

/// What the driver knows of the machine, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// The state directory.
    pub state_dir: PathBuf,
    /// `[paths] downloads`.
    pub downloads: PathBuf,
    /// Bytes free where downloads go; none if that is not known.
    pub disk_free: Option<u64>,
    /// File systems that content is on: where each is mounted, bytes free and bytes in all.
    pub disks: Vec<(PathBuf, u64, u64)>,
    /// Private memory of this process in bytes (`RssAnon`: without mapped files).
    pub memory: u64,
    /// Threads of this process.
    pub threads: u32,
    /// Which rate limits hold, and by whose word.
    pub limits: &'static str,
}

/// What was found out or done.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// The engine's answer.
    Node(Answer),
    /// To `status`.
    Status(Box<Status>, Host),
    /// Sentences; to `reload`.
    Lines(Vec<String>),
    /// An answer of any length; its rows come with [`Session::handle_rows`](super::Session::handle_rows).
    Long(Listing),
    /// To `watch`: what the client wants to hear of from now on.
    Watching(Filter),
}

impl From<Answer> for Report {
    fn from(answer: Answer) -> Self {
        Self::Node(answer)
    }
}

/// What a request comes to.
pub type Verdict = Result<Report, Refusal>;

/// What a list is sorted by. Numbers go from large to small, everything else from small to large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The wire hash.
    Id,
    /// The state, in the order of its words in the protocol.
    State,
    /// The share that is done.
    Done,
    /// The rate coming in.
    Down,
    /// The rate going out.
    Up,
    /// Uploaded over downloaded.
    Ratio,
    /// Connected peers.
    Peers,
    /// Seconds to go; none is last.
    Eta,
    /// All content.
    Size,
    /// The name.
    Name,
    /// When it was added.
    Added,
    /// The label.
    Label,
    /// The place in the queue.
    Queue,
}

impl Field {
    /// Every field with its word.
    pub const ALL: [(&'static str, Self); 13] = [
        ("id", Self::Id),
        ("state", Self::State),
        ("done", Self::Done),
        ("down", Self::Down),
        ("up", Self::Up),
        ("ratio", Self::Ratio),
        ("peers", Self::Peers),
        ("eta", Self::Eta),
        ("size", Self::Size),
        ("name", Self::Name),
        ("added", Self::Added),
        ("label", Self::Label),
        ("queue", Self::Queue),
    ];
}
