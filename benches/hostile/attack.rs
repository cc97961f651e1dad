//! The attacks: what a hostile peer sends after its handshake, as a script that is asked for the next bytes.

use std::sync::Arc;

use swarmtorrent::base::rng::Rng;

use crate::geometry::{Geometry, Torrent};
use crate::noise;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const SUGGEST: u8 = 13;
const HAVE_ALL: u8 = 14;
const HAVE_NONE: u8 = 15;
const REJECT: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;
/// Numbers of the daemon's extensions: its extension handshake names them, and they are always the same.
const METADATA: u8 = 1;
const PEX: u8 = 2;
const DONT_HAVE: u8 = 3;

const BLOCK_LEN: u64 = 16 << 10;
/// Messages that are made at a time.
const CHUNK: u64 = 4000;
/// Changes of mind that a connection may have in ten seconds: one more ends it.
const FLAPS: u64 = 500;
/// Whole fields that a connection may send in ten seconds.
const FIELDS: u64 = 7;
/// The longest extended message that the daemon reads.
const EXTENDED_LEN: usize = 64 << 10;

/// What the daemon has when it is attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The torrent, and no content.
    Lacking,
    /// All the content.
    Having,
    /// A magnet link.
    Link,
    /// Several torrents and their content, all hibernated.
    Hibernated,
}

impl Role {
    pub fn state(self) -> &'static str {
        match self {
            Self::Lacking => "downloading",
            Self::Having | Self::Hibernated => "seeding",
            Self::Link => "metadata",
        }
    }

    pub fn has_content(self) -> bool {
        matches!(self, Self::Having | Self::Hibernated)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Unchokes, then one `have` for each piece in order.
    HaveFlood,
    /// The same from the last piece to the first.
    HaveDown,
    /// `have` of pieces at random, without end.
    HaveRandom,
    /// One bitfield with every piece.
    FieldFull,
    /// One bitfield with every other piece.
    FieldHalf,
    /// Half a bitfield, `have_none`, `have_all`, as often as it may.
    FieldFlips,
    ChokeFlaps,
    /// `allowed_fast` for every piece, while it chokes.
    AllowedFast,
    Suggest,
    /// Rejects whatever it is asked for.
    RejectAll,
    /// Sends blocks of zeros for whatever it is asked for.
    Corrupt,
    DontHave,
    Requests,
    /// Requests, and cancels of them from the last to the first.
    Cancels,
    InterestFlaps,
    /// Extension handshakes as long as they may be.
    Extensions,
    Pex,
    MetadataRequests,
    KeepAlives,
    /// Connects, sends a bitfield and hangs up.
    Churn,
    /// The same to one hibernated torrent after the other.
    Wake,
    /// To a magnet link: `have` of every piece that there may be.
    LinkHaves,
    /// Delivers the metadata of a magnet link.
    MetadataDeliver,
    /// Delivers noise instead of it.
    MetadataLies,
}

impl Attack {
    pub const ALL: [Self; 24] = [
        Self::HaveFlood,
        Self::HaveDown,
        Self::HaveRandom,
        Self::FieldFull,
        Self::FieldHalf,
        Self::FieldFlips,
        Self::ChokeFlaps,
        Self::AllowedFast,
        Self::Suggest,
        Self::RejectAll,
        Self::Corrupt,
        Self::DontHave,
        Self::Churn,
        Self::Extensions,
        Self::Pex,
        Self::KeepAlives,
        Self::Requests,
        Self::Cancels,
        Self::InterestFlaps,
        Self::MetadataRequests,
        Self::Wake,
        Self::LinkHaves,
        Self::MetadataDeliver,
        Self::MetadataLies,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::HaveFlood => "have-flood",
            Self::HaveDown => "have-down",
            Self::HaveRandom => "have-random",
            Self::FieldFull => "bitfield-full",
            Self::FieldHalf => "bitfield-half",
            Self::FieldFlips => "field-flips",
            Self::ChokeFlaps => "choke-flaps",
            Self::AllowedFast => "allowed-fast",
            Self::Suggest => "suggest",
            Self::RejectAll => "reject-all",
            Self::Corrupt => "corrupt",
            Self::DontHave => "dont-have",
            Self::Requests => "requests",
            Self::Cancels => "cancels",
            Self::InterestFlaps => "interest-flaps",
            Self::Extensions => "extensions",
            Self::Pex => "pex",
            Self::MetadataRequests => "metadata-requests",
            Self::KeepAlives => "keep-alives",
            Self::Churn => "churn",
            Self::Wake => "wake",
            Self::LinkHaves => "link-haves",
            Self::MetadataDeliver => "metadata-deliver",
            Self::MetadataLies => "metadata-lies",
        }
    }

    pub fn role(self) -> Role {
        match self {
            Self::Requests | Self::Cancels | Self::InterestFlaps | Self::MetadataRequests => Role::Having,
            Self::Wake => Role::Hibernated,
            Self::LinkHaves | Self::MetadataDeliver | Self::MetadataLies => Role::Link,
            _ => Role::Lacking,
        }
    }

    /// Whether it makes a difference there: a torrent with too much metadata or too many files does not hibernate, and the files
    /// matter to few messages.
    pub fn fits(self, geometry: Geometry) -> bool {
        match geometry {
            Geometry::Ordinary | Geometry::MostPieces if self != Self::Wake => true,
            Geometry::Ordinary => true,
            Geometry::MostPieces => false,
            Geometry::MostValues => self == Self::MetadataDeliver,
            Geometry::ManyPieces => {
                matches!(self, Self::HaveFlood | Self::HaveDown | Self::HaveRandom | Self::FieldHalf | Self::FieldFlips)
                    || matches!(self, Self::ChokeFlaps | Self::RejectAll | Self::DontHave | Self::Churn | Self::Wake)
            }
            Geometry::MostFiles => {
                // What another client had of so many files is too long to be told to the daemon: nobody asks for it.
                matches!(self, Self::HaveFlood | Self::RejectAll | Self::Corrupt | Self::FieldFlips)
                    || matches!(self, Self::Churn | Self::MetadataDeliver)
            }
            Geometry::SmallestFiles => {
                matches!(self, Self::HaveFlood | Self::RejectAll | Self::Corrupt | Self::Requests)
            }
            Geometry::LongPieces => {
                matches!(self, Self::HaveFlood | Self::FieldFlips | Self::ChokeFlaps | Self::RejectAll | Self::Corrupt)
                    || matches!(self, Self::AllowedFast | Self::DontHave | Self::Requests | Self::Cancels)
            }
        }
    }
}

/// The next thing that a script does.
pub enum Next {
    Send(Vec<u8>),
    /// Nothing until the daemon has sent something.
    Wait,
    /// Ends the connection once everything is sent, and begins anew.
    HangUp,
    /// Nothing more.
    Done,
}

/// One connection's part of an attack.
pub struct Script {
    attack: Attack,
    torrent: Arc<Torrent>,
    step: u64,
    rng: Rng,
    /// Answers to what the daemon asked.
    answers: Vec<u8>,
}

fn message(out: &mut Vec<u8>, id: u8, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend(u32::try_from(len + 1).unwrap().to_be_bytes());
    out.push(id);
    parts.iter().for_each(|part| out.extend(*part));
}

fn numbered(out: &mut Vec<u8>, id: u8, number: u64) {
    message(out, id, &[&u32::try_from(number).unwrap().to_be_bytes()]);
}

fn about_block(out: &mut Vec<u8>, id: u8, piece: u64, offset: u64) {
    let number = |value: u64| u32::try_from(value).unwrap().to_be_bytes();
    message(out, id, &[&number(piece), &number(offset), &number(BLOCK_LEN)]);
}

impl Script {
    pub fn new(attack: Attack, torrent: Arc<Torrent>, seed: u64) -> Self {
        Self { attack, torrent, step: 0, rng: Rng::from_number(seed), answers: Vec::new() }
    }

    pub fn info_hash(&self) -> [u8; 20] {
        self.torrent.info_hash
    }

    fn field(&self, byte: u8) -> Vec<u8> {
        let pieces = self.torrent.pieces as usize;
        let mut field = vec![byte; pieces.div_ceil(8)];
        if !pieces.is_multiple_of(8) {
            *field.last_mut().unwrap() &= 0xff << (8 - pieces % 8);
        }
        field
    }

    /// What it sends right behind the handshake.
    pub fn greeting(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let has_all = |out: &mut Vec<u8>| {
            message(out, HAVE_ALL, &[]);
            message(out, UNCHOKE, &[]);
        };
        match self.attack {
            Attack::HaveFlood | Attack::HaveDown | Attack::HaveRandom => {
                message(&mut out, HAVE_NONE, &[]);
                message(&mut out, UNCHOKE, &[]);
            }
            Attack::FieldFull | Attack::FieldHalf => {
                let byte = if self.attack == Attack::FieldFull { 0xff } else { 0x55 };
                message(&mut out, BITFIELD, &[&self.field(byte)]);
                message(&mut out, UNCHOKE, &[]);
            }
            Attack::FieldFlips => message(&mut out, UNCHOKE, &[]),
            Attack::Churn | Attack::Wake => message(&mut out, BITFIELD, &[&self.field(0xff)]),
            Attack::ChokeFlaps | Attack::AllowedFast => message(&mut out, HAVE_ALL, &[]),
            Attack::Suggest | Attack::RejectAll | Attack::Corrupt | Attack::DontHave => has_all(&mut out),
            Attack::Requests | Attack::Cancels | Attack::InterestFlaps => {
                message(&mut out, HAVE_NONE, &[]);
                message(&mut out, INTERESTED, &[]);
            }
            Attack::LinkHaves => message(&mut out, HAVE_NONE, &[]),
            Attack::Extensions | Attack::Pex | Attack::MetadataRequests | Attack::KeepAlives => {}
            Attack::MetadataDeliver | Attack::MetadataLies => message(&mut out, HAVE_ALL, &[]),
        }
        let hello = format!("d1:md6:ut_pexi2e11:ut_metadatai1ee13:metadata_sizei{}ee", self.torrent.info.len());
        message(&mut out, EXTENDED, &[&[0], hello.as_bytes()]);
        out
    }

    pub fn next(&mut self) -> Next {
        if !self.answers.is_empty() {
            return Next::Send(std::mem::take(&mut self.answers));
        }
        let (pieces, step) = (u64::from(self.torrent.pieces), self.step);
        self.step += 1;
        let mut out = Vec::new();
        match self.attack {
            Attack::HaveFlood | Attack::HaveDown => {
                if step * CHUNK >= pieces {
                    return Next::Done;
                }
                for piece in step * CHUNK..pieces.min((step + 1) * CHUNK) {
                    let is_up = self.attack == Attack::HaveFlood;
                    numbered(&mut out, HAVE, if is_up { piece } else { pieces - 1 - piece });
                }
            }
            Attack::LinkHaves => {
                let first = step * CHUNK % 2_000_000;
                (first..first + CHUNK).for_each(|piece| numbered(&mut out, HAVE, piece));
            }
            Attack::HaveRandom => (0..CHUNK).for_each(|_| numbered(&mut out, HAVE, self.rng.below(pieces))),
            Attack::Suggest => (0..CHUNK).for_each(|_| numbered(&mut out, SUGGEST, self.rng.below(pieces))),
            Attack::FieldFull | Attack::FieldHalf => return Next::Done,
            Attack::FieldFlips if step >= FIELDS => return Next::HangUp,
            Attack::FieldFlips => match step % 3 {
                0 => message(&mut out, BITFIELD, &[&self.field(0x55)]),
                1 => message(&mut out, HAVE_NONE, &[]),
                _ => message(&mut out, HAVE_ALL, &[]),
            },
            Attack::ChokeFlaps | Attack::InterestFlaps if step > 0 => return Next::HangUp,
            Attack::ChokeFlaps => {
                (0..FLAPS).for_each(|flap| message(&mut out, if flap % 2 == 0 { UNCHOKE } else { CHOKE }, &[]));
            }
            Attack::InterestFlaps => (0..FLAPS)
                .for_each(|flap| message(&mut out, if flap % 2 == 0 { NOT_INTERESTED } else { INTERESTED }, &[])),
            Attack::AllowedFast => {
                let first = step * CHUNK % pieces;
                (first..pieces.min(first + CHUNK)).for_each(|piece| numbered(&mut out, ALLOWED_FAST, piece));
            }
            Attack::DontHave if step > 0 => return Next::HangUp,
            Attack::DontHave => {
                for piece in 0..FLAPS.min(pieces) - 2 {
                    message(&mut out, EXTENDED, &[&[DONT_HAVE], &u32::try_from(piece).unwrap().to_be_bytes()]);
                }
            }
            Attack::Requests => {
                for _ in 0..CHUNK {
                    let (piece, block) = (self.rng.below(pieces), self.rng.below(self.torrent.blocks()));
                    about_block(&mut out, REQUEST, piece, block * BLOCK_LEN);
                }
            }
            Attack::Cancels => {
                let blocks = |out: &mut Vec<u8>, id: u8, number: u64| {
                    let block = (step * 2000 + number) % (pieces * self.torrent.blocks());
                    about_block(out, id, block / self.torrent.blocks(), block % self.torrent.blocks() * BLOCK_LEN);
                };
                (0..2000).for_each(|number| blocks(&mut out, REQUEST, number));
                (0..2000).rev().for_each(|number| blocks(&mut out, CANCEL, number));
            }
            Attack::Extensions => {
                let mut payload = b"d1:md".to_vec();
                for number in 0..240 {
                    let name = format!("{number:0200}");
                    payload.extend(format!("{}:{name}i1e", name.len()).bytes());
                }
                payload.extend(b"ee");
                payload.resize(EXTENDED_LEN - 16, b' ');
                message(&mut out, EXTENDED, &[&[0], &payload]);
            }
            Attack::Pex => {
                let mut added = Vec::new();
                for _ in 0..100 {
                    added.extend([11]);
                    added.extend(self.rng.bytes::<5>());
                }
                let parts: [&[u8]; 4] = [&[PEX], b"d5:added600:", &added, b"e"];
                message(&mut out, EXTENDED, &parts);
            }
            Attack::MetadataRequests => {
                for number in 0..CHUNK {
                    let piece = (step * CHUNK + number) % (self.torrent.info.len() as u64).div_ceil(BLOCK_LEN);
                    let request = format!("d8:msg_typei0e5:piecei{piece}ee");
                    message(&mut out, EXTENDED, &[&[METADATA], request.as_bytes()]);
                }
            }
            Attack::KeepAlives => out.resize(64 << 10, 0),
            Attack::Churn | Attack::Wake => return Next::HangUp,
            Attack::RejectAll | Attack::Corrupt | Attack::MetadataDeliver | Attack::MetadataLies => return Next::Wait,
        }
        Next::Send(out)
    }

    /// A message of the daemon.
    pub fn handle_message(&mut self, id: u8, payload: &[u8]) {
        match (self.attack, id) {
            (Attack::RejectAll, REQUEST) => message(&mut self.answers, REJECT, &[payload]),
            (Attack::Corrupt, REQUEST) => {
                let zeros = vec![0; u32::from_be_bytes(payload[8..12].try_into().unwrap()) as usize];
                message(&mut self.answers, PIECE, &[&payload[..8], &zeros]);
            }
            (Attack::MetadataDeliver | Attack::MetadataLies, EXTENDED) if payload.first() == Some(&METADATA) => {
                let text = String::from_utf8_lossy(payload);
                let Some(piece) = text.split("5:piecei").nth(1).and_then(|rest| rest.split('e').next()) else { return };
                let (Ok(piece), true) = (piece.parse::<usize>(), text.contains("msg_typei0e")) else { return };
                let info = &self.torrent.info;
                let first = (piece << 14).min(info.len());
                let part = &info[first..info.len().min(first + (1 << 14))];
                let head = format!("d8:msg_typei1e5:piecei{piece}e10:total_sizei{}ee", info.len());
                let lie = noise(piece as u64, part.len());
                let part = if self.attack == Attack::MetadataLies { &lie } else { part };
                message(&mut self.answers, EXTENDED, &[&[METADATA], head.as_bytes(), part]);
            }
            _ => {}
        }
    }
}
