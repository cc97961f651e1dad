//! Turns any bytes into a life of one torrent in an engine: peers that connect, send well-formed or raw messages, answer what
//! they are asked for (rightly or not) and leave; a disk that fails; commands of the user; time. Content is all zeroes, so
//! that every piece can be sent without being kept. The fuzz target and the tests use it.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "it fails where it stands")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use swarmtorrent::base::bitfield::Bitfield;
use swarmtorrent::base::config::{Config, Encryption};
use swarmtorrent::base::files::FileList;
use swarmtorrent::base::geometry::{BLOCK_LEN, Block, Geometry, Piece, Span};
use swarmtorrent::base::hash::{InfoHash, Sha1Hash};
use swarmtorrent::base::ids::{ConnId, JobId, ListenerId, StoreId};
use swarmtorrent::base::rate::Budget;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::steps;
use swarmtorrent::base::storage::{Chunk, Content, Fault, FaultKind, FileIdentity, SendError, Stamp, Storage};
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind, dont_have};
use swarmtorrent::codec::import::{Evidence, Import};
use swarmtorrent::codec::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use swarmtorrent::codec::pex::{Contact, Flags, PexMessage};
use swarmtorrent::codec::wire::{Front, Handshake, Message, Reserved, parse_handshake, parse_message};
use swarmtorrent::engine::{Effect, Engine, Progress};
use swarmtorrent::torrent::command::{AddOptions, Command, Direction, FilePattern, Source, Which};
use swarmtorrent::torrent::snapshot::Priority;

/// Operations of one life; the rest of the script is ignored.
const OPERATIONS_MAX: usize = 300;
/// Peers of one life at once.
const PEERS: usize = 8;
/// Rounds of turns and background work after one operation. Work that is left is done after the next operation.
const ROUNDS_MAX: usize = 64;
/// Timeouts that may follow one another with no time between them; beyond it the engine spins.
const TIMEOUTS_MAX: usize = 1000;
/// Bytes of a peer's messages that wait to be read; it sends no more then.
const UNREAD_MAX: usize = 1 << 20;
/// Bytes that a stream takes in one call.
const WRITE_MAX: usize = 64 * 1024;
const TURN_BYTES: usize = 256 * 1024;
/// Pieces from which on the invariants are checked only at the end of a life.
const MANY_PIECES: u32 = 10_000;

/// Number and length of pieces, the bytes by which the content is shorter, and the bytes of its first file if it has two.
type Shape = (u32, u32, u64, Option<u64>);

const SHAPES: [Shape; 9] = [
    (1, BLOCK_LEN, 16_000, None),
    (3, 2 * BLOCK_LEN, 5, None),
    (40, BLOCK_LEN, 0, None),
    (9, 256 << 10, 100, Some(700_001)),
    (70, 65_537, 9, None),
    (2000, BLOCK_LEN, 1, None),
    (3, 64 << 20, 1000, None),
    (100, 64 << 20, 0, None),
    (1_600_000, BLOCK_LEN, 3, None),
];

/// The metainfo of each shape, made when it is first needed.
static METAINFO: [OnceLock<Described>; SHAPES.len()] = [const { OnceLock::new() }; SHAPES.len()];

#[derive(Debug)]
struct Described {
    metainfo: Vec<u8>,
    info: Vec<u8>,
    info_hash: InfoHash,
    geometry: Geometry,
    files: usize,
}

fn described(shape: usize) -> &'static Described {
    METAINFO[shape].get_or_init(|| {
        let (pieces, piece_len, shorter, first) = SHAPES[shape];
        let geometry = Geometry::new(u64::from(pieces) * u64::from(piece_len) - shorter, piece_len).unwrap();
        let hash_of = |len: u32| Sha1Hash::of(&vec![0; len as usize]).0;
        let mut hashes = hash_of(piece_len).repeat(pieces as usize - 1);
        hashes.extend(hash_of(geometry.len_of(Piece(pieces - 1))));
        let len = geometry.total_len();
        let content = match first {
            None => format!("6:lengthi{len}e"),
            Some(first) => {
                let rest = len - first;
                format!("5:filesld6:lengthi{first}e4:pathl1:aeed6:lengthi{rest}e4:pathl1:beee")
            }
        };
        let head = format!("d{content}4:name1:x12:piece lengthi{piece_len}e6:pieces{}:", hashes.len());
        let info = [head.as_bytes(), &hashes, b"e"].concat();
        Described {
            metainfo: [b"d4:info", &info[..], b"e"].concat(),
            info_hash: Sha1Hash::of(&info),
            info,
            geometry,
            files: 1 + usize::from(first.is_some()),
        }
    })
}

/// The bytes of the script, one after another; zeroes after their end.
struct Script<'s>(&'s [u8]);

impl<'s> Script<'s> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'s [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn is_set(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `end`, or, seldom, the first beyond it.
    fn below(&mut self, end: u32) -> u32 {
        let drawn = u64::from(self.byte()) << 8 | u64::from(self.byte());
        if drawn == 0xffff { end } else { u32::try_from((drawn * u64::from(end)) >> 16).unwrap() }
    }

    /// How often something is done.
    fn repeats(&mut self) -> u32 {
        [1, 1, 1, 2, 7, 60, 600, 4000][usize::from(self.byte() % 8)]
    }
}

/// One end of a connection, as the engine reads and writes it.
#[derive(Debug, Default)]
pub struct Pipe {
    incoming: VecDeque<u8>,
    out: Vec<u8>,
    is_ended: bool,
    is_stalled: bool,
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() && !self.is_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.incoming.read(buf)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_stalled {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = bytes.len().min(WRITE_MAX);
        self.out.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk on which everything is zero but a few bytes.
#[derive(Debug, Default)]
pub struct Disk {
    next: u64,
    open: BTreeMap<StoreId, Arc<FileList>>,
    /// Whether the files are there.
    is_there: bool,
    /// The first byte of each write that is not zero.
    wrong: BTreeSet<u64>,
    is_full: bool,
    is_broken: bool,
    served: Vec<(StoreId, Span)>,
}

impl Disk {
    fn fault(&self, writes: bool) -> Result<(), Fault> {
        let kind = if self.is_broken {
            FaultKind::Io
        } else if self.is_full && writes {
            FaultKind::Full
        } else {
            return Ok(());
        };
        Err(Fault { kind, message: "the disk of a script failed".into() })
    }
}

impl Storage for Disk {
    type Stream = Pipe;

    fn open(&mut self, content: Content) -> StoreId {
        self.next += 1;
        let store = StoreId::from_bits(self.next);
        self.open.insert(store, content.files);
        store
    }

    fn close(&mut self, store: StoreId) {
        self.open.remove(&store);
    }

    fn set_wanted(&mut self, _: StoreId, _: &[bool]) {}
    fn set_read_only(&mut self, _: StoreId, _: bool) {}
    fn set_held(&mut self, _: StoreId, _: &[bool]) {}
    fn hold(&mut self, _: StoreId, _: usize) {}
    fn cut(&mut self, _: StoreId, _: usize) {}

    fn prepare(&mut self, _: StoreId, _: Span) -> Result<(), Fault> {
        self.fault(true)?;
        self.is_there = true;
        Ok(())
    }

    fn write(&mut self, store: StoreId, offset: u64, bytes: &[IoSlice<'_>]) -> Result<(), Fault> {
        self.fault(true)?;
        self.is_there = true;
        let mut at = offset;
        for slice in bytes {
            let end = at + slice.len() as u64;
            assert!(end <= self.open[&store].total_len(), "a write ends beyond the content");
            let kept: Vec<u64> = self.wrong.range(at..end).copied().collect();
            kept.iter().for_each(|position| _ = self.wrong.remove(position));
            if let Some(first) = slice.iter().position(|byte| *byte != 0) {
                self.wrong.insert(at + first as u64);
            }
            at = end;
        }
        Ok(())
    }

    fn read(&mut self, store: StoreId, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.fault(false)?;
        let end = offset + buf.len() as u64;
        assert!(end <= self.open[&store].total_len(), "a read ends beyond the content");
        buf.fill(0);
        self.wrong.range(offset..end).for_each(|at| buf[usize::try_from(at - offset).unwrap()] = 1);
        Ok(())
    }

    fn expect(&mut self, _: StoreId, _: Span) {}

    fn resident(&mut self, _: StoreId, _: Span) -> bool {
        !self.is_full
    }

    fn send(&mut self, stream: &mut Pipe, chunks: &[Chunk<'_>]) -> Result<usize, SendError> {
        let mut moved = 0;
        for chunk in chunks {
            let len = usize::try_from(chunk.len()).unwrap();
            let taken = match *chunk {
                Chunk::Bytes(bytes) => stream.write(bytes),
                Chunk::Content(store, span) => {
                    match self.fault(false) {
                        Err(_) if moved > 0 => return Ok(moved),
                        Err(fault) => return Err(SendError::Content(store, fault)),
                        Ok(()) => {}
                    }
                    self.served.push((store, span));
                    stream.write(&vec![0; len])
                }
            };
            match taken {
                Ok(taken) => {
                    moved += taken;
                    if taken < len {
                        return Ok(moved);
                    }
                }
                Err(_) if moved > 0 => return Ok(moved),
                Err(error) => return Err(SendError::Stream(error)),
            }
        }
        Ok(moved)
    }

    fn has_data(&mut self, _: StoreId, _: Span) -> bool {
        self.is_there
    }

    fn saved(&mut self, _: &Path) -> Option<Vec<u8>> {
        None
    }

    fn saved_part(&mut self, _: &Path, _: &mut Vec<u8>, _: usize) -> Option<bool> {
        None
    }

    fn exists(&mut self, _: &Path) -> bool {
        self.is_there
    }

    fn place(&mut self, dir: &Path) -> PathBuf {
        dir.to_owned()
    }

    fn places_version(&mut self) -> u64 {
        0
    }

    fn identity(&mut self, _: &Path, _: &Path) -> Option<FileIdentity> {
        None
    }

    fn stamp(&mut self, store: StoreId, file: usize) -> Option<Stamp> {
        let len = self.open.get(&store)?.get(file)?.span.len;
        self.is_there.then_some(Stamp { len, modified_nanos: 0, inode: 1 })
    }

    fn trouble(&mut self, _: StoreId, _: usize) -> Option<Fault> {
        self.fault(false).err()
    }

    fn is_there(&mut self, _: StoreId, _: &Path) -> bool {
        false
    }

    fn rename(&mut self, _: StoreId, _: &Path, _: &Path, _: Arc<FileList>) -> Result<(), Fault> {
        Ok(())
    }

    fn move_progress(&self, _: StoreId) -> Option<(u64, u64)> {
        None
    }

    fn stop_move(&mut self, _: StoreId, _: bool) {}
}

/// A peer, as the script plays it.
#[derive(Debug, Default)]
struct Remote {
    pipe: Pipe,
    is_readable: bool,
    is_writable: bool,
    /// Whether the engine's handshake came.
    is_shaken: bool,
    /// Whether the engine sends anything but plain BitTorrent; it is not read then.
    is_ciphered: bool,
    /// Blocks that the engine asked for.
    asked: VecDeque<Block>,
    /// Pieces of the metadata that the engine asked for.
    metadata_asked: VecDeque<u32>,
}

impl Remote {
    fn send(&mut self, bytes: &[u8]) {
        if self.pipe.incoming.len() < UNREAD_MAX {
            self.pipe.incoming.extend(bytes);
            self.is_readable = true;
        }
    }

    /// Reads what the engine wrote. Panics if it is not BitTorrent.
    fn read(&mut self) {
        let out = std::mem::take(&mut self.pipe.out);
        let mut rest = &out[..];
        if !self.is_shaken && !rest.is_empty() && !self.is_ciphered {
            match parse_handshake(rest) {
                Ok(Front::Whole(_, len)) => {
                    rest = &rest[len..];
                    self.is_shaken = true;
                }
                Ok(Front::Missing(_)) => {}
                Err(_) => self.is_ciphered = true,
            }
        }
        while self.is_shaken
            && let Front::Whole(message, len) = parse_message(rest, None).expect("a message is valid")
        {
            match message {
                Message::PieceHead(block) if rest.len() < len + block.len as usize => break,
                Message::PieceHead(block) => rest = &rest[block.len as usize..],
                Message::Request(block) => self.asked.push_back(block),
                Message::Cancel(block) => self.asked.retain(|asked| *asked != block),
                Message::Extended { id, payload } if id == ExtensionKind::Metadata.id() => {
                    if let Some(MetadataMessage::Request(piece)) = MetadataMessage::parse(payload) {
                        self.metadata_asked.push_back(piece);
                    }
                }
                Message::Unknown { id, .. } => panic!("the engine sends a message of the unknown kind {id}"),
                _ => {}
            }
            rest = &rest[len..];
        }
        if !self.is_ciphered {
            self.pipe.out = rest.to_vec();
        }
    }
}

struct Life {
    now: Time,
    engine: Engine<Disk>,
    torrent: &'static Described,
    remotes: BTreeMap<ConnId, Remote>,
    /// Connections that the engine is making.
    dialled: VecDeque<ConnId>,
    /// Jobs that the disk has not answered.
    jobs: VecDeque<JobId>,
    holds_jobs: bool,
    next_addr: u32,
}

/// Lives through the script. Panics if the engine does, breaks an invariant, or takes too many steps in one call.
pub fn feed(script: &[u8]) {
    let mut script = Script(script);
    let mut life = Life::begin(&mut script);
    let is_small = life.torrent.geometry.pieces() < MANY_PIECES;
    for operation in 0..OPERATIONS_MAX {
        if script.0.is_empty() {
            break;
        }
        life.operate(&mut script);
        life.settle();
        if is_small && operation % 8 == 0 {
            life.check();
        }
    }
    life.check();
    for secs in [1, 10, 60, 300] {
        life.pass(Duration::from_secs(secs));
    }
    let conns: Vec<ConnId> = life.remotes.keys().copied().collect();
    for conn in conns {
        life.close(conn);
        life.settle();
    }
    life.check();
}

impl Life {
    fn begin(script: &mut Script<'_>) -> Self {
        let (shape, kind) = (script.byte(), script.byte());
        // Few lives have long bitfields: they are slow.
        let shape = if shape >= 248 { SHAPES.len() - 1 } else { usize::from(shape) % (SHAPES.len() - 1) };
        let torrent = described(shape);
        let pieces = torrent.geometry.pieces();
        let config = Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 6881))],
            encryption: if kind & 16 == 0 { Encryption::Off } else { Encryption::Allow },
            utp: false,
            lsd: false,
            dht: false,
            verify_on_add: false,
            allocate_full: kind & 32 != 0,
            connections_per_torrent_max: if kind & 64 == 0 { 100 } else { 3 },
            ..Config::default()
        };
        let disk = Disk { is_there: kind & 3 > 1, ..Disk::default() };
        let mut engine = Engine::new(config, 1_700_000_000_000_000_000, Rng::from_number(1), disk);
        engine.handle_restored(Time::ZERO);
        let mut options = AddOptions { verify: Some(false), sequential: kind & 8 != 0, ..AddOptions::default() };
        let mut source = Source::Metainfo(torrent.metainfo.clone());
        match kind & 3 {
            0 => {}
            1 => source = Source::Link(torrent.info_hash.to_string()),
            // A seed, or every piece but a few.
            have => {
                let mut field = Bitfield::full(pieces);
                if have == 3 {
                    (0..pieces).step_by(3).for_each(|piece| _ = field.clear(piece));
                }
                options.import = Some(Box::new(Import {
                    have: field.as_bytes().to_vec(),
                    evidence: Evidence::HeldAt,
                    times: vec![Some(0); torrent.files],
                    ..Import::default()
                }));
            }
        }
        let mut life = Self {
            now: Time::ZERO,
            engine,
            torrent,
            remotes: BTreeMap::new(),
            dialled: VecDeque::new(),
            jobs: VecDeque::new(),
            holds_jobs: false,
            next_addr: 0,
        };
        life.call("add", |engine| engine.handle_command(Time::ZERO, Command::Add { source, options }).unwrap());
        // Long metainfo is parsed in the background.
        for round in 0.. {
            life.settle();
            if life.engine.views().next().is_some() {
                break;
            }
            assert!(round < 1000, "the torrent is not added");
        }
        life
    }

    /// Makes a call of the engine. Panics if it takes more steps than a turn may.
    fn call<T>(&mut self, name: &str, call: impl FnOnce(&mut Engine<Disk>) -> T) -> T {
        steps::take();
        let result = call(&mut self.engine);
        let taken = steps::take();
        assert!(taken <= steps::TURN_MAX, "{name} took {taken} steps");
        result
    }

    fn operate(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 | 1 => self.accept(script),
            2 => self.dial(script),
            3 => {
                if let Some(conn) = self.peer(script) {
                    self.close(conn);
                }
            }
            4 => {
                let millis = u64::from(script.byte()) * u64::from(script.byte()) * 4;
                self.pass(Duration::from_millis(millis));
            }
            5 => {
                if let Some(conn) = self.peer(script) {
                    self.remotes.get_mut(&conn).unwrap().send(script.bytes());
                }
            }
            6..=8 => self.answer(script),
            9 => self.disk(script),
            10 => self.command(script),
            11 => {
                if let Some(conn) = self.peer(script) {
                    let remote = self.remotes.get_mut(&conn).unwrap();
                    match script.byte() % 4 {
                        0 => (remote.pipe.is_ended, remote.is_readable) = (true, true),
                        1 => remote.pipe.is_stalled = true,
                        _ => (remote.pipe.is_stalled, remote.is_writable) = (false, true),
                    }
                }
            }
            _ => self.say(script),
        }
    }

    /// One of the peers. `None` if there is none.
    fn peer(&self, script: &mut Script<'_>) -> Option<ConnId> {
        let index = usize::from(script.byte()).checked_rem(self.remotes.len())?;
        self.remotes.keys().nth(index).copied()
    }

    fn handshake(&self, script: &mut Script<'_>) -> Vec<u8> {
        let flags = script.byte();
        let reserved = Reserved::new(flags & 1 == 0, flags & 2 == 0, flags & 4 == 0);
        let info_hash = if flags == 255 { Sha1Hash([0; 20]) } else { self.torrent.info_hash };
        let mut peer_id = [b'p'; 20];
        peer_id[..4].copy_from_slice(&(self.next_addr % if flags & 8 == 0 { 1 << 30 } else { 2 }).to_be_bytes());
        Handshake { reserved, info_hash, peer_id }.to_bytes().to_vec()
    }

    fn addr(&mut self) -> SocketAddr {
        self.next_addr += 1;
        let [_, b, c, d] = self.next_addr.to_be_bytes();
        SocketAddr::from(([11, b, c, d], 6881))
    }

    fn accept(&mut self, script: &mut Script<'_>) {
        let (now, addr) = (self.now, self.addr());
        if self.remotes.len() >= PEERS {
            return;
        }
        if let Some(conn) = self.call("handle_accept", |engine| engine.handle_accept(now, ListenerId::Peers(0), addr)) {
            let mut remote = Remote::default();
            remote.send(&self.handshake(script));
            self.remotes.insert(conn, remote);
        }
    }

    fn dial(&mut self, script: &mut Script<'_>) {
        let now = self.now;
        if script.is_set() || self.dialled.is_empty() {
            let addr = self.addr();
            let which = Which::Prefix(self.torrent.info_hash.to_string());
            let command = Command::Connect { which, host: addr.ip().to_string(), port: addr.port() };
            drop(self.engine.handle_command(now, command));
            self.settle();
        }
        let Some(conn) = self.dialled.pop_front() else { return };
        if script.byte().is_multiple_of(4) || self.remotes.len() >= PEERS {
            self.call("handle_closed", |engine| engine.handle_closed(now, conn));
            return;
        }
        let mut remote = Remote { is_writable: true, ..Remote::default() };
        remote.send(&self.handshake(script));
        self.remotes.insert(conn, remote);
        self.call("handle_connected", |engine| {
            engine.handle_connected(now, conn, SocketAddr::from(([127, 0, 0, 1], 5000)));
        });
    }

    fn close(&mut self, conn: ConnId) {
        let now = self.now;
        self.remotes.remove(&conn);
        self.call("handle_closed", |engine| engine.handle_closed(now, conn));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    /// A peer answers some of what it was asked for.
    fn answer(&mut self, script: &mut Script<'_>) {
        let Some(conn) = self.peer(script) else { return };
        let (how, count) = (script.byte(), script.repeats().min(64));
        let info = &self.torrent.info;
        let remote = self.remotes.get_mut(&conn).unwrap();
        for _ in 0..count {
            let asked = if how & 1 == 0 { remote.asked.pop_front() } else { remote.asked.pop_back() };
            let mut out = Vec::new();
            if let Some(block) = asked {
                match how >> 1 & 7 {
                    0 => Message::Reject(block).write(&mut out),
                    1 => {
                        Message::PieceHead(block).write(&mut out);
                        out.resize(out.len() + block.len as usize, 1);
                    }
                    // Cut short: the rest of the block is what it sends next.
                    2 => {
                        Message::PieceHead(block).write(&mut out);
                        out.resize(out.len() + usize::from(how), 0);
                    }
                    _ => {
                        Message::PieceHead(block).write(&mut out);
                        out.resize(out.len() + block.len as usize, 0);
                    }
                }
            }
            if let Some(piece) = remote.metadata_asked.pop_front() {
                let from = (piece as usize * METADATA_PIECE_LEN as usize).min(info.len());
                let bytes = &info[from..info.len().min(from + METADATA_PIECE_LEN as usize)];
                let total_size = u32::try_from(info.len()).unwrap();
                extended(&mut out, ExtensionKind::Metadata, |payload| match how >> 4 {
                    0 => MetadataMessage::Reject(piece).write(payload),
                    1 => MetadataMessage::Data { piece, total_size, bytes: &vec![7; bytes.len()] }.write(payload),
                    2 => MetadataMessage::Data { piece, total_size: total_size + 1, bytes }.write(payload),
                    _ => MetadataMessage::Data { piece, total_size, bytes }.write(payload),
                });
            }
            remote.send(&out);
        }
    }

    /// A peer sends well-formed messages, perhaps many.
    fn say(&mut self, script: &mut Script<'_>) {
        let Some(conn) = self.peer(script) else { return };
        let geometry = self.torrent.geometry;
        let pieces = geometry.pieces();
        let (kind, repeats) = (script.byte(), script.repeats());
        let (first, step) = (script.below(pieces), u32::from(script.byte() % 16) + 1);
        let (low, high) = (script.byte(), script.byte());
        let info_len = u32::try_from(self.torrent.info.len()).unwrap();
        let remote = self.remotes.get_mut(&conn).unwrap();
        for number in 0..repeats {
            let mut out = Vec::new();
            let piece = Piece(match first.wrapping_add(number.wrapping_mul(step)) {
                beyond if beyond > pieces => beyond % pieces,
                piece => piece,
            });
            let blocks = if geometry.contains(piece) { geometry.blocks_of(piece) } else { 1 };
            let block = if geometry.contains(piece) {
                let mut block = geometry.block(piece, (u32::from(low) + number) % blocks);
                block.len -= u32::from(high == 255).min(block.len - 1);
                block
            } else {
                Block { piece, offset: 0, len: BLOCK_LEN }
            };
            match kind % 24 {
                0 => Message::KeepAlive.write(&mut out),
                1 => Message::Choke.write(&mut out),
                2 | 3 => Message::Unchoke.write(&mut out),
                4 | 5 => Message::Interested.write(&mut out),
                6 => Message::NotInterested.write(&mut out),
                7 => Message::Have(piece).write(&mut out),
                8 | 9 => {
                    let mut field = vec![low; pieces.div_ceil(8) as usize];
                    if high < 250 && !pieces.is_multiple_of(8) {
                        *field.last_mut().unwrap() &= 0xff << (8 - pieces % 8);
                    }
                    Message::Bitfield(&field).write(&mut out);
                }
                10 | 11 => Message::Request(block).write(&mut out),
                12 => Message::Cancel(block).write(&mut out),
                13 => Message::Port(u16::from(low)).write(&mut out),
                14 => Message::Suggest(piece).write(&mut out),
                15 => Message::HaveAll.write(&mut out),
                16 => Message::HaveNone.write(&mut out),
                17 => Message::Reject(block).write(&mut out),
                18 => Message::AllowedFast(piece).write(&mut out),
                19 => {
                    let all = [ExtensionKind::Metadata, ExtensionKind::Pex, ExtensionKind::DontHave];
                    let mut payload = Vec::new();
                    ExtensionHandshake {
                        ids: ExtensionIds::of(&all[..usize::from(low % 4)]),
                        metadata_size: (high & 1 == 0).then_some(if high < 240 { info_len } else { u32::MAX }),
                        reqq: Some(u32::from(high)),
                        upload_only: Some(high & 2 != 0),
                        port: (high & 4 != 0).then_some(6881),
                        ..ExtensionHandshake::default()
                    }
                    .write(&mut payload);
                    Message::Extended { id: 0, payload: &payload }.write(&mut out);
                }
                20 => {
                    let addr = |number: u8| SocketAddr::from(([12, low, number, 1], 6881));
                    let added = (0..high % 60).map(|number| Contact { addr: addr(number), flags: Flags(low) });
                    let dropped = (0..low % 60).map(addr).collect();
                    let message = PexMessage { added: added.collect(), dropped };
                    extended(&mut out, ExtensionKind::Pex, |payload| message.write(payload));
                }
                21 => extended(&mut out, ExtensionKind::DontHave, |payload| payload.extend(dont_have(piece))),
                22 => extended(&mut out, ExtensionKind::Metadata, |payload| {
                    let message = match high % 3 {
                        0 => MetadataMessage::Request(u32::from(low) + number),
                        1 => MetadataMessage::Reject(u32::from(low)),
                        _ => MetadataMessage::Data { piece: u32::from(low), total_size: info_len, bytes: &[9; 100] },
                    };
                    message.write(payload);
                }),
                _ => {
                    // A block that nobody asked for.
                    Message::PieceHead(block).write(&mut out);
                    out.resize(out.len() + block.len as usize, high & 1);
                }
            }
            remote.send(&out);
        }
    }

    fn disk(&mut self, script: &mut Script<'_>) {
        let (now, what) = (self.now, script.byte());
        match what % 6 {
            0 => self.engine.storage().is_full = what & 64 == 0,
            1 => self.engine.storage().is_broken = what & 64 == 0,
            2 => self.holds_jobs = true,
            3 => self.holds_jobs = false,
            _ => {
                if let Some(job) = self.jobs.pop_front() {
                    let failed = Fault { kind: FaultKind::Io, message: "the disk of a script failed".into() };
                    let result = if what & 64 == 0 { Ok(()) } else { Err(failed) };
                    self.call("handle_job", |engine| engine.handle_job(now, job, result));
                }
            }
        }
    }

    fn command(&mut self, script: &mut Script<'_>) {
        let which = Which::Prefix(self.torrent.info_hash.to_string());
        let (now, what) = (self.now, script.byte());
        let set = |key: &str, value: &str| Command::Set {
            which: which.clone(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let command = match what % 12 {
            0 => Command::Pause(which),
            1 | 2 => Command::Resume(which),
            3 => Command::Verify(which),
            4 => set("sequential", if what & 64 == 0 { "on" } else { "off" }),
            5 => set("super-seed", if what & 64 == 0 { "on" } else { "off" }),
            6 => set("max-peers", if what & 64 == 0 { "2" } else { "50" }),
            7 => {
                let priority = [Priority::Off, Priority::Low, Priority::Normal, Priority::High][usize::from(what >> 6)];
                Command::Prioritize { which, files: FilePattern::Range(0, 0), priority }
            }
            8 => Command::Limit { direction: Direction::Down, rate_bytes: u64::from(what & 64) * 1000 },
            9 => Command::Limit { direction: Direction::Up, rate_bytes: u64::from(what & 64) * 1000 },
            10 => Command::Why(which),
            _ => Command::Peers(which),
        };
        // What a user asks may take longer than a turn: it is not a stranger's.
        drop(self.engine.handle_command(now, command));
    }

    /// Carries out effects, gives turns and does background work until the engine rests or the rounds are over.
    fn settle(&mut self) {
        let (now, mut timeouts) = (self.now, 0);
        for _ in 0..ROUNDS_MAX {
            let mut has_moved = self.carry_out();
            let conns: Vec<ConnId> = self.remotes.keys().copied().collect();
            for conn in conns {
                has_moved |= self.turn(conn);
            }
            has_moved |= self.call("work", |engine| engine.work(now));
            while self.engine.poll_timeout() <= now {
                self.call("handle_timeout", |engine| engine.handle_timeout(now));
                timeouts += 1;
                assert!(timeouts < TIMEOUTS_MAX, "timeouts come without end");
                has_moved = true;
            }
            let mut packet = Vec::new();
            while self.call("poll_transmit", |engine| engine.poll_transmit(now, &mut packet)).is_some() {}
            while self.call("poll_loaded", Engine::poll_loaded).is_some() {}
            if !has_moved {
                break;
            }
        }
        self.carry_out();
    }

    fn carry_out(&mut self) -> bool {
        let (now, mut has_moved) = (self.now, false);
        while let Some(effect) = self.call("poll_effect", Engine::poll_effect) {
            has_moved = true;
            match effect {
                Effect::Connect { conn, .. } => self.dialled.push_back(conn),
                Effect::Close(conn) => {
                    self.remotes.remove(&conn);
                    self.dialled.retain(|dialled| *dialled != conn);
                }
                Effect::Wake(conn) => {
                    if let Some(remote) = self.remotes.get_mut(&conn) {
                        (remote.is_readable, remote.is_writable) = (true, true);
                    }
                }
                Effect::Job(job, _) if self.holds_jobs => self.jobs.push_back(job),
                Effect::Job(job, _) => self.call("handle_job", |engine| engine.handle_job(now, job, Ok(()))),
                Effect::Rebind(_) | Effect::Trust | Effect::Exit => {}
            }
        }
        has_moved
    }

    /// A turn of a connection, if it is ready.
    fn turn(&mut self, conn: ConnId) -> bool {
        let now = self.now;
        let Some(mut remote) = self.remotes.remove(&conn) else { return false };
        let is_ready = remote.is_writable || remote.is_readable;
        if std::mem::take(&mut remote.is_writable) {
            let pipe = &mut remote.pipe;
            let mut budget = Budget::new(TURN_BYTES);
            let progress = self.call("handle_writable", |engine| engine.handle_writable(now, conn, pipe, &mut budget));
            remote.is_writable = progress == Progress::Spent;
        }
        if std::mem::take(&mut remote.is_readable) {
            let pipe = &mut remote.pipe;
            let mut budget = Budget::new(TURN_BYTES);
            let progress = self.call("handle_readable", |engine| engine.handle_readable(now, conn, pipe, &mut budget));
            remote.is_readable = progress == Progress::Spent;
        }
        remote.read();
        for (store, span) in std::mem::take(&mut self.engine.storage().served) {
            assert!(self.engine.holds(store, span), "a block is sent that was not verified");
        }
        // A connection that was closed has its effect in the queue.
        self.remotes.insert(conn, remote);
        is_ready
    }

    fn check(&mut self) {
        self.engine.check();
        let wrong: Vec<u64> = self.engine.storage().wrong.iter().copied().collect();
        let view = self.engine.views().next().expect("the torrent is there");
        if !view.have.is_empty() {
            let piece_len = u64::from(self.torrent.geometry.piece_len());
            let piece = |at: u64| u32::try_from(at / piece_len).unwrap();
            assert!(!wrong.iter().any(|at| view.have.get(piece(*at))), "a piece is claimed that is wrong");
        }
    }
}

/// Appends a message of an extension, by the number under which the engine takes it.
fn extended(out: &mut Vec<u8>, kind: ExtensionKind, write: impl FnOnce(&mut Vec<u8>)) {
    let mut payload = Vec::new();
    write(&mut payload);
    Message::Extended { id: kind.id(), payload: &payload }.write(out);
}
