//! Peers that mean harm. They are scripts, not engines: they say what no honest peer says.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::geometry::{BLOCK_LEN, Block, Geometry, Piece};
use crate::base::hash::InfoHash;
use crate::base::ids::ConnId;
use crate::base::rng::Rng;
use crate::base::time::Time;
use crate::codec::udp_tracker::{Announce, AnnounceEvent, Request};
use crate::codec::wire::{Front, HANDSHAKE_LEN, Handshake, Message, Reserved, parse_message};
use crate::sim::liar::Lie;

/// How often it does something.
const STEP: Duration = Duration::from_millis(250);
/// Bytes of an unfinished message that it keeps.
const KEPT_MAX: usize = 256 * 1024;

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
    /// In the DHT: names peers that there are not.
    DhtFalsePeers,
    /// In the DHT: names nodes that there are not.
    DhtFalseNodes,
    /// In the DHT: names nobody.
    DhtNoNodes,
}

impl Harm {
    /// Every kind there is.
    pub const ALL: [Self; 11] = [
        Self::RequestFlood,
        Self::HaveSpam,
        Self::SlowLoris,
        Self::EmptyPromises,
        Self::WrongBitfield,
        Self::Noise,
        Self::Corrupt,
        Self::ConnectionFlood,
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
        let mut asked = Vec::new();
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
        for index in 0..self.victims.len() {
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
            reserved: Reserved::new(true, false, false),
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
        let all = self.geometry.pieces();
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
            Harm::EmptyPromises | Harm::Corrupt if is_first => {
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
}
