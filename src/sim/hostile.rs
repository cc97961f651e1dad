//! Peers that mean harm. They are scripts, not engines: they say what no honest peer says.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::geometry::{BLOCK_LEN, Block, Geometry, Piece};
use crate::base::hash::InfoHash;
use crate::base::ids::ConnId;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind, dont_have};
use crate::codec::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use crate::codec::pex::{ADDED_FIRST_MAX, Contact, Flags, PexMessage};
use crate::codec::udp_tracker::{Announce, AnnounceEvent, Request};
use crate::codec::wire::{Front, HANDSHAKE_LEN, Handshake, Message, Reserved, parse_message};
use crate::sim::liar::Lie;

/// How often it does something.
const STEP: Duration = Duration::from_millis(250);
/// Bytes of an unfinished message that it keeps.
const KEPT_MAX: usize = 256 * 1024;
/// Bytes of messages that a flood sends in a step: as much as a node reads in one turn.
const FLOOD_BYTES: usize = 240 * 1024;
/// Steps at the beginning of a connection in each of which a flood sends that much.
const FLOOD_STEPS: u32 = 20;
/// After those it does so once in so many steps: most of what a run costs would be the flood.
const FLOOD_EVERY: u32 = 8;
/// Changes of mind, and whole fields, that a connection may send in ten seconds; one more ends it.
const FLAPS: u32 = 500;
const FIELDS: u32 = 7;
/// Bytes of the longest extended message that is read.
const EXTENDED_LEN: usize = 60 * 1024;
/// What [`Harm::MetadataLies`] says that the metadata has: as many bytes as a victim will fetch, in whole pieces.
const LIED_SIZE: u32 = 32 << 20;
/// Steps between two connections of [`Harm::Wake`]: a torrent that is left alone for a minute hibernates.
const WAKE_STEPS: u32 = 4 * 75;

/// What harm it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Harm {
    /// Asks for every block, again and again, choked or not.
    RequestFlood,
    /// Says without end which pieces it has, suggests and allows.
    HaveSpam,
    /// Introduces itself a byte a second.
    SlowLoris,
    /// Says that it has everything, lets everybody ask, and sends nothing.
    EmptyPromises,
    /// Says that it has pieces that there are not.
    WrongBitfield,
    /// Sends noise after a good handshake.
    Noise,
    /// Sends blocks full of noise for what it is asked.
    Corrupt,
    /// Dials as often as it can and says nothing.
    ConnectionFlood,
    /// Unchokes, then sends a `have` for one piece after the other.
    HaveFlood,
    /// Sends a bitfield, `have_none` and `have_all` in turns, as often as a connection may.
    FieldFlips,
    /// Has everything, and chokes and unchokes as often as a connection may.
    ChokeFlaps,
    /// Has everything and chokes; allows each piece.
    AllowedFastFlood,
    /// Has everything and suggests one piece after the other.
    SuggestFlood,
    /// Has everything and rejects what it is asked for.
    RejectAll,
    /// Asks for blocks and cancels them, the last first.
    Cancels,
    /// Sends extension handshakes as long as they may be.
    ExtensionFlood,
    /// Sends peer exchange messages full of addresses, in as many connections as it takes.
    PexFlood,
    /// Asks for the metadata without end.
    MetadataRequests,
    /// Offers metadata and sends noise instead of it.
    MetadataLies,
    /// Is interested and not, as often as a connection may.
    InterestFlaps,
    /// Has everything, and then one piece less after the other.
    DontHave,
    /// Connects, sends a bitfield and hangs up.
    Churn,
    /// The same whenever the torrent has been left alone for long enough to hibernate.
    Wake,
    /// In the DHT: names peers that there are not.
    DhtFalsePeers,
    /// In the DHT: names nodes that there are not.
    DhtFalseNodes,
    /// In the DHT: names nobody.
    DhtNoNodes,
}

impl Harm {
    /// Every kind there is.
    pub const ALL: [Self; 26] = [
        Self::RequestFlood,
        Self::HaveSpam,
        Self::SlowLoris,
        Self::EmptyPromises,
        Self::WrongBitfield,
        Self::Noise,
        Self::Corrupt,
        Self::ConnectionFlood,
        Self::HaveFlood,
        Self::FieldFlips,
        Self::ChokeFlaps,
        Self::AllowedFastFlood,
        Self::SuggestFlood,
        Self::RejectAll,
        Self::Cancels,
        Self::ExtensionFlood,
        Self::PexFlood,
        Self::MetadataRequests,
        Self::MetadataLies,
        Self::InterestFlaps,
        Self::DontHave,
        Self::Churn,
        Self::Wake,
        Self::DhtFalsePeers,
        Self::DhtFalseNodes,
        Self::DhtNoNodes,
    ];

    /// How it lies in the DHT; none if it harms peers.
    pub(crate) const fn lie(self) -> Option<Lie> {
        match self {
            Self::DhtFalsePeers => Some(Lie::FalsePeers),
            Self::DhtFalseNodes => Some(Lie::FalseNodes),
            Self::DhtNoNodes => Some(Lie::NoNodes),
            _ => None,
        }
    }

    pub(crate) const fn is_in_dht(self) -> bool {
        self.lie().is_some()
    }

    /// Connections to one victim at a time.
    const fn per_victim(self) -> usize {
        if matches!(self, Self::ConnectionFlood) { 30 } else { 1 }
    }

    /// Steps after which it hangs up, to begin anew before the victim ends the connection.
    const fn steps_max(self) -> u32 {
        match self {
            Self::FieldFlips | Self::ChokeFlaps | Self::InterestFlaps | Self::DontHave | Self::PexFlood => 4,
            Self::Churn | Self::Wake => 2,
            _ => u32::MAX,
        }
    }
}

/// What it wants done.
#[derive(Debug)]
pub(crate) enum Act {
    Dial(SocketAddr),
    Send(ConnId, Vec<u8>),
    Close(ConnId),
    Packet(SocketAddr, Vec<u8>),
}

#[derive(Debug, Default)]
struct Line {
    victim: Option<SocketAddr>,
    is_open: bool,
    /// Bytes of the handshake that were sent.
    greeted: usize,
    came: Vec<u8>,
    /// It has introduced itself.
    is_known: bool,
    /// Payload bytes still to be passed over.
    skip: usize,
    /// Steps since it introduced itself.
    steps: u32,
}

/// One who means harm.
#[derive(Debug)]
pub struct Hostile {
    harm: Harm,
    info_hash: InfoHash,
    geometry: Geometry,
    victims: Vec<SocketAddr>,
    /// Where it announces itself, so that it is dialled, too.
    tracker: Option<SocketAddr>,
    port: u16,
    lines: BTreeMap<ConnId, Line>,
    dialling: VecDeque<SocketAddr>,
    acts: VecDeque<Act>,
    next_step: Time,
    /// Steps so far.
    steps: u32,
    rng: Rng,
}

impl Hostile {
    /// One that does `harm` to `victims` in the swarm of `info_hash` from `begins` on.
    #[must_use]
    pub fn new(harm: Harm, info_hash: InfoHash, geometry: Geometry, begins: Time, rng: Rng) -> Self {
        Self {
            harm,
            info_hash,
            geometry,
            victims: Vec::new(),
            tracker: None,
            port: 0,
            lines: BTreeMap::new(),
            dialling: VecDeque::new(),
            acts: VecDeque::new(),
            next_step: begins,
            steps: 0,
            rng,
        }
    }

    /// Whom it harms, and where it says that it listens at `port`.
    pub(crate) fn set_victims(&mut self, victims: Vec<SocketAddr>, tracker: Option<SocketAddr>, port: u16) {
        (self.victims, self.tracker, self.port) = (victims, tracker, port);
    }

    /// When it does the next thing.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        if self.acts.is_empty() { self.next_step } else { Time::ZERO }
    }

    pub(crate) fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    pub(crate) fn handle_dialling(&mut self, conn: ConnId) {
        let victim = self.dialling.pop_front();
        self.lines.insert(conn, Line { victim, ..Line::default() });
    }

    pub(crate) fn handle_accepted(&mut self, conn: ConnId) {
        self.lines.insert(conn, Line { is_open: true, ..Line::default() });
    }

    pub(crate) fn handle_connected(&mut self, conn: ConnId) {
        if let Some(line) = self.lines.get_mut(&conn) {
            line.is_open = true;
        }
    }

    pub(crate) fn handle_closed(&mut self, conn: ConnId) {
        self.lines.remove(&conn);
    }

    pub(crate) fn handle_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(line) = self.lines.get_mut(&conn) else { return };
        line.came.extend_from_slice(bytes);
        let (mut asked, mut metadata_asked) = (Vec::new(), Vec::new());
        let mut at = line.skip.min(line.came.len());
        line.skip -= at;
        if !line.is_known && line.came.len() >= HANDSHAKE_LEN {
            line.is_known = true;
            at = HANDSHAKE_LEN;
        }
        while line.is_known
            && let Ok(Front::Whole(message, taken)) = parse_message(&line.came[at..], Some(self.geometry.pieces()))
        {
            at += taken;
            match message {
                Message::Request(block) => asked.push(block),
                Message::Extended { payload, .. } => {
                    if let Some(MetadataMessage::Request(piece)) = MetadataMessage::parse(payload) {
                        metadata_asked.push(piece);
                    }
                }
                Message::PieceHead(block) => {
                    let passed = (block.len as usize).min(line.came.len() - at);
                    line.skip = block.len as usize - passed;
                    at += passed;
                }
                _ => {}
            }
        }
        line.came.drain(..at);
        if line.came.len() > KEPT_MAX {
            line.came.clear();
        }
        let mut answers = Vec::new();
        match self.harm {
            Harm::RejectAll => asked.iter().for_each(|&block| Message::Reject(block).write(&mut answers)),
            Harm::MetadataLies => {
                for piece in metadata_asked {
                    let mut noise = vec![0; METADATA_PIECE_LEN as usize];
                    self.rng.fill(&mut noise);
                    let data = MetadataMessage::Data { piece, total_size: LIED_SIZE, bytes: &noise };
                    extended(&mut answers, ExtensionKind::Metadata, |out| data.write(out));
                }
            }
            _ => {}
        }
        if !answers.is_empty() {
            self.acts.push_back(Act::Send(conn, answers));
        }
        if self.harm == Harm::Corrupt {
            for block in asked {
                let mut answer = Vec::new();
                Message::PieceHead(block).write(&mut answer);
                let head = answer.len();
                answer.resize(head + block.len as usize, 0);
                self.rng.fill(&mut answer[head..]);
                self.acts.push_back(Act::Send(conn, answer));
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        self.next_step = now + STEP;
        if now.as_secs().is_multiple_of(60) && now.as_nanos() % 1_000_000_000 < 250_000_000 {
            self.announce();
        }
        self.steps += 1;
        let is_awaited = self.harm == Harm::Wake && !self.steps.is_multiple_of(WAKE_STEPS);
        for index in 0..if is_awaited { 0 } else { self.victims.len() } {
            let victim = self.victims[index];
            let lines = self.lines.values().filter(|line| line.victim == Some(victim)).count();
            for _ in lines + self.dialling.iter().filter(|addr| **addr == victim).count()..self.harm.per_victim() {
                self.dialling.push_back(victim);
                self.acts.push_back(Act::Dial(victim));
            }
        }
        let conns: Vec<ConnId> = self.lines.iter().filter(|(_, line)| line.is_open).map(|(&conn, _)| conn).collect();
        for conn in conns {
            self.harm(conn);
        }
    }

    fn announce(&mut self) {
        let Some(tracker) = self.tracker else { return };
        let announce = Announce {
            info_hash: self.info_hash,
            peer_id: self.rng.bytes(),
            downloaded: 0,
            left: 0,
            uploaded: 0,
            event: AnnounceEvent::Regular,
            key: 0,
            num_want: 0,
            port: self.port,
        };
        let mut packet = Vec::new();
        Request::Announce { connection: 1, transaction: 1, announce, path: b""[..].into() }.write(&mut packet);
        self.acts.push_back(Act::Packet(tracker, packet));
    }

    fn harm(&mut self, conn: ConnId) {
        let line = self.lines.get_mut(&conn).expect("it was just listed");
        let handshake = Handshake {
            reserved: Reserved::new(true, true, false),
            info_hash: self.info_hash,
            peer_id: *b"-XX0001-hostilepeer!",
        }
        .to_bytes();
        let mut out = Vec::new();
        let is_first = line.greeted == 0;
        match self.harm {
            Harm::ConnectionFlood => return,
            Harm::SlowLoris => {
                out.extend(handshake.get(line.greeted));
                line.greeted += 1;
            }
            _ if is_first => {
                line.greeted = HANDSHAKE_LEN;
                out.extend(handshake);
            }
            _ => {}
        }
        let step = line.steps;
        line.steps += 1;
        let all = self.geometry.pieces();
        if step >= self.harm.steps_max() {
            self.lines.remove(&conn);
            self.acts.push_back(Act::Close(conn));
            return;
        }
        self.flood(is_first, step, &mut out);
        match self.harm {
            Harm::RequestFlood => {
                if is_first {
                    Message::HaveNone.write(&mut out);
                    Message::Interested.write(&mut out);
                }
                for _ in 0..200 {
                    let piece = Piece(u32::try_from(self.rng.below(u64::from(all))).expect("a piece"));
                    let blocks = self.geometry.blocks_of(piece);
                    let index = u32::try_from(self.rng.below(u64::from(blocks))).expect("a block");
                    Message::Request(self.geometry.block(piece, index)).write(&mut out);
                }
            }
            Harm::HaveSpam => {
                if is_first {
                    Message::HaveNone.write(&mut out);
                }
                for _ in 0..200 {
                    let piece = Piece(u32::try_from(self.rng.below(u64::from(all))).expect("a piece"));
                    match self.rng.below(3) {
                        0 => Message::Have(piece).write(&mut out),
                        1 => Message::Suggest(piece).write(&mut out),
                        _ => Message::AllowedFast(piece).write(&mut out),
                    }
                }
            }
            Harm::EmptyPromises | Harm::Corrupt | Harm::RejectAll if is_first => {
                Message::HaveAll.write(&mut out);
                Message::Unchoke.write(&mut out);
            }
            Harm::WrongBitfield if is_first => {
                let bits = vec![0xff; all as usize / 8 + 1];
                Message::Bitfield(&bits).write(&mut out);
                let beyond = Block { piece: Piece(all), offset: 0, len: BLOCK_LEN };
                Message::PieceHead(beyond).write(&mut out);
            }
            Harm::Noise => {
                let mut noise = vec![0; 1 + self.rng.index(3000)];
                self.rng.fill(&mut noise);
                out.extend(noise);
            }
            _ => {}
        }
        if !out.is_empty() {
            self.acts.push_back(Act::Send(conn, out));
        }
        if self.harm != Harm::SlowLoris && self.rng.below(400) == 0 {
            self.lines.remove(&conn);
            self.acts.push_back(Act::Close(conn));
        }
    }

    /// What a flood sends in one step.
    fn flood(&mut self, is_first: bool, step: u32, out: &mut Vec<u8>) {
        if step >= FLOOD_STEPS && !step.is_multiple_of(FLOOD_EVERY) {
            return;
        }
        let all = self.geometry.pieces();
        let fill = |out: &mut Vec<u8>, message: &mut dyn FnMut(&mut Vec<u8>, u32)| {
            let before = out.len();
            message(out, 0);
            let len = (out.len() - before).max(1);
            (1..u32::try_from(FLOOD_BYTES / len).expect("a few thousand")).for_each(|number| message(out, number));
        };
        // Pieces in order, as far as the steps before did not get.
        let piece = |number: u32, len: usize| {
            let before = step * u32::try_from(FLOOD_BYTES / len).expect("a few thousand");
            Piece((before + number) % all)
        };
        match self.harm {
            Harm::HaveFlood => {
                if is_first {
                    Message::HaveNone.write(out);
                    Message::Unchoke.write(out);
                }
                fill(out, &mut |out, number| Message::Have(piece(number, 9)).write(out));
            }
            Harm::AllowedFastFlood | Harm::SuggestFlood => {
                if is_first {
                    Message::HaveAll.write(out);
                    if self.harm == Harm::SuggestFlood {
                        Message::Unchoke.write(out);
                    }
                }
                let is_allowed = self.harm == Harm::AllowedFastFlood;
                fill(out, &mut |out, number| match piece(number, 9) {
                    piece if is_allowed => Message::AllowedFast(piece).write(out),
                    piece => Message::Suggest(piece).write(out),
                });
            }
            Harm::FieldFlips if is_first => {
                let mut half = vec![0xaa; (all as usize).div_ceil(8)];
                if let Some(last) = half.last_mut().filter(|_| !all.is_multiple_of(8)) {
                    *last &= 0xff << (8 - all % 8);
                }
                Message::Unchoke.write(out);
                for flip in 0..FIELDS {
                    match flip % 3 {
                        0 => Message::Bitfield(&half).write(out),
                        1 => Message::HaveNone.write(out),
                        _ => Message::HaveAll.write(out),
                    }
                }
            }
            Harm::ChokeFlaps if is_first => {
                Message::HaveAll.write(out);
                for _ in 0..FLAPS / 2 - 50 {
                    Message::Unchoke.write(out);
                    Message::Choke.write(out);
                }
            }
            Harm::InterestFlaps if is_first => {
                Message::HaveNone.write(out);
                for _ in 0..FLAPS / 2 - 50 {
                    Message::Interested.write(out);
                    Message::NotInterested.write(out);
                }
            }
            Harm::DontHave if is_first => {
                Message::HaveAll.write(out);
                Message::Unchoke.write(out);
                for number in 0..all.min(FLAPS - 100) {
                    extended(out, ExtensionKind::DontHave, |out| out.extend(dont_have(Piece(number))));
                }
            }
            Harm::Cancels => {
                if is_first {
                    Message::HaveNone.write(out);
                    Message::Interested.write(out);
                }
                let block = |number: u32| {
                    let piece = Piece(number % all);
                    self.geometry.block(piece, number / all % self.geometry.blocks_of(piece))
                };
                (0..2000).for_each(|number| Message::Request(block(number)).write(out));
                (0..2000).rev().for_each(|number| Message::Cancel(block(number)).write(out));
            }
            Harm::ExtensionFlood => {
                let name = [b'x'; EXTENDED_LEN];
                let said = ExtensionHandshake { client: Some(&name), ..ExtensionHandshake::default() };
                for _ in 0..FLOOD_BYTES / EXTENDED_LEN {
                    let mut payload = Vec::new();
                    said.write(&mut payload);
                    Message::Extended { id: 0, payload: &payload }.write(out);
                }
            }
            Harm::PexFlood if is_first => {
                let contact = |rng: &mut Rng| {
                    let [a, b, c, d] = rng.bytes();
                    let addr = SocketAddr::from(([12 + a % 80, b, c, d], 6881));
                    Contact { addr, flags: Flags::default() }
                };
                let added = (0..ADDED_FIRST_MAX).map(|_| contact(&mut self.rng)).collect();
                let message = PexMessage { added, dropped: Vec::new() };
                extended(out, ExtensionKind::Pex, |out| message.write(out));
            }
            Harm::MetadataRequests => {
                if is_first {
                    say_metadata(out, None);
                }
                fill(out, &mut |out, number| {
                    extended(out, ExtensionKind::Metadata, |out| MetadataMessage::Request(number % 256).write(out));
                });
            }
            Harm::MetadataLies if is_first => {
                say_metadata(out, Some(LIED_SIZE));
                Message::HaveAll.write(out);
            }
            Harm::Churn | Harm::Wake if is_first => Message::HaveAll.write(out),
            _ => {}
        }
    }
}

/// Appends a message of an extension, by the number under which the victims take it.
fn extended(out: &mut Vec<u8>, kind: ExtensionKind, write: impl FnOnce(&mut Vec<u8>)) {
    let mut payload = Vec::new();
    write(&mut payload);
    Message::Extended { id: kind.id(), payload: &payload }.write(out);
}

/// Says that it takes part in the exchange of metadata (BEP 9), of which it has so many bytes.
fn say_metadata(out: &mut Vec<u8>, metadata_size: Option<u32>) {
    let mut payload = Vec::new();
    let ids = ExtensionIds::of(&[ExtensionKind::Metadata]);
    ExtensionHandshake { ids, metadata_size, ..ExtensionHandshake::default() }.write(&mut payload);
    Message::Extended { id: 0, payload: &payload }.write(out);
}
