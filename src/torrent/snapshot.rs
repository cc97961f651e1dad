//! What can be seen of a torrent from outside: plain values, copied out, that hold no borrow and decide nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::base::hash::{InfoHash, Sha1Hash, StId};
use crate::torrent::settings::SettingRow;

/// What a torrent is doing. The words are those of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Content on disk is being hashed.
    Checking,
    /// The `info` dictionary is still being fetched.
    Metadata,
    /// Something wanted is missing.
    Downloading,
    /// Everything wanted is here.
    Seeding,
    /// Waiting for its turn (`active_downloads`, `active_seeds`).
    Queued,
    /// Stopped by the user.
    Paused,
    /// Stopped until there is room on the disk.
    NoSpace,
    /// Stopped by the disk.
    Error,
}

impl State {
    /// Every state, in the order a list shows them.
    pub const ALL: [Self; 8] = [
        Self::Checking,
        Self::Metadata,
        Self::Downloading,
        Self::Seeding,
        Self::Queued,
        Self::Paused,
        Self::NoSpace,
        Self::Error,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Metadata => "metadata",
            Self::Downloading => "downloading",
            Self::Seeding => "seeding",
            Self::Queued => "queued",
            Self::Paused => "paused",
            Self::NoSpace => "nospace",
            Self::Error => "error",
        }
    }
}

/// One torrent at a glance. Sizes in bytes, rates in bytes a second, times in Unix seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The wire hash.
    pub info_hash: InfoHash,
    /// The `st-id`, of a `.st`.
    pub st_id: Option<StId>,
    /// Its name; the hash in hex until that is known.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Why it stopped, if it did.
    pub error: Option<String>,
    /// Its files are known: of a torrent that came as a link they are not at first.
    pub described: bool,
    /// All content.
    pub size: u64,
    /// Content of wanted files.
    pub wanted: u64,
    /// Verified content.
    pub have_bytes: u64,
    /// Verified and wanted content.
    pub have_wanted_bytes: u64,
    /// How much of the check in progress is done, 0 to 1; none if none is.
    pub checked: Option<f64>,
    /// Payload coming in.
    pub down_rate: u64,
    /// Payload going out.
    pub up_rate: u64,
    /// Payload ever received.
    pub downloaded: u64,
    /// Payload ever sent.
    pub uploaded: u64,
    /// Payload received in vain: corrupt, or twice.
    pub wasted: u64,
    /// Connected peers.
    pub peers: u32,
    /// Connected peers that have everything.
    pub seeds: u32,
    /// Seconds until everything wanted is here at the present rate.
    pub eta: Option<u64>,
    /// Its place in the queue, from 1.
    pub queue: Option<usize>,
    /// Its settings; empty but for who asks about one torrent.
    pub settings: Vec<SettingRow>,
    /// The user's label, or empty.
    pub label: String,
    /// When it was added.
    pub added: u64,
    /// When everything wanted was here.
    pub finished: Option<u64>,
    /// The directory that holds its content.
    pub dir: PathBuf,
    /// BEP 27.
    pub private: bool,
    /// How many pieces, and how many of them verified.
    pub pieces: (u32, u32),
    /// Bytes of a piece.
    pub piece_len: u32,
    /// The comment in its file.
    pub comment: Option<String>,
    /// Who made its file.
    pub created_by: Option<String>,
    /// Where its content is being moved to.
    pub moving: Option<Moving>,
    /// Why the last move came to nothing.
    pub move_error: Option<String>,
    /// How the user's program that was run for it last has ended.
    pub hook: Option<String>,
    /// Where nodes of the DHT keep an item about it (BEP 44), if it is shared.
    pub dht_item: Option<Sha1Hash>,
    /// The link that it is the newest version of; one of them if there are several.
    pub follows: Option<Follows>,
}

/// Content on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Moving {
    /// Where to.
    pub to: PathBuf,
    /// How much of it is there, 0 to 1.
    pub progress: f64,
}

/// A followed link (BEP 46).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follows {
    /// Where its item is found.
    pub target: Sha1Hash,
    /// The number of its newest version; none while none was found.
    pub seq: Option<i64>,
}

impl Summary {
    /// Verified and wanted content as a share of what is wanted, 0 to 1; 1 where nothing is wanted; 0 while that
    /// is not known.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn progress(&self) -> f64 {
        if self.wanted == 0 {
            f64::from(u8::from(self.described))
        } else {
            self.have_wanted_bytes as f64 / self.wanted as f64
        }
    }

    /// Sent over received payload; where nothing was received, over the content's size.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn ratio(&self) -> f64 {
        let base = if self.downloaded > 0 { self.downloaded } else { self.size };
        if base == 0 { 0.0 } else { self.uploaded as f64 / base as f64 }
    }
}

/// How much a file is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Not at all.
    Off,
    /// After everything else.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

impl Priority {
    /// The word for it on the control socket.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// The priority of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Off, Self::Low, Self::Normal, Self::High].into_iter().find(|priority| priority.word() == word)
    }
}

/// One file of a torrent. Pad files are not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// Its index in the metainfo.
    pub index: usize,
    /// Its path below the torrent's directory.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Verified bytes.
    pub have_bytes: u64,
    /// How much it is wanted.
    pub priority: Priority,
}

/// One connected peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerRow {
    /// Where it is.
    pub addr: SocketAddr,
    /// What it says it is, else what its peer id says.
    pub client: String,
    /// One letter a fact: `D` we download from it, `d` we would but it chokes us, `U` it downloads from us, `u` it would but
    /// we choke it, `O` optimistic, `S` snubbed, `E` encrypted, `I` it connected to us.
    pub flags: String,
    /// Its share of the pieces, 0 to 1.
    pub progress: f64,
    /// Payload it sends us.
    pub down_rate: u64,
    /// Payload we send it.
    pub up_rate: u64,
    /// `tcp` or `utp`.
    pub transport: &'static str,
    /// MSE.
    pub encrypted: bool,
    /// How we know it.
    pub source: &'static str,
}

/// One tracker of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackerRow {
    /// Its tier, from 0.
    pub tier: usize,
    /// Its address.
    pub url: String,
    /// What it is doing: `idle`, `announcing`, `working`, `failed`.
    pub state: &'static str,
    /// Seconds until the next announce; none if none is planned.
    pub next: Option<u64>,
    /// Complete peers it knows.
    pub seeders: Option<u32>,
    /// Incomplete peers it knows.
    pub leechers: Option<u32>,
    /// Downloads it counted.
    pub downloaded: Option<u32>,
    /// Peers in its last answer.
    pub peers: u32,
    /// What went wrong last, or what it wants the user to know.
    pub message: Option<String>,
}

/// One piece, for the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceState {
    /// Not here, not wanted.
    Unwanted,
    /// Not here; how many connected peers have it.
    Missing(u16),
    /// Some blocks are here.
    Partial,
    /// Verified.
    Have,
}
