//! One engine whose disk keeps nothing and whose peers are scripted: what is measured is the engine and nothing else.

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha1::{Digest, Sha1};
use swarmtorrent::base::bitfield::Bitfield;
use swarmtorrent::base::config::{Config, Encryption, UploadSlots};
use swarmtorrent::base::files::FileList;
use swarmtorrent::base::geometry::{BLOCK_LEN, Block, Piece, Span};
use swarmtorrent::base::hash::{InfoHash, Sha1Hash};
use swarmtorrent::base::ids::{ConnId, ListenerId, SocketId, StoreId};
use swarmtorrent::base::names::Names;
use swarmtorrent::base::rate::Budget;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::storage::{Chunk, Content, Fault, FileIdentity, SendError, Stamp, Storage};
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::metainfo::Metainfo;
use swarmtorrent::codec::resume::{Head, Record};
use swarmtorrent::codec::udp_tracker::{Request, Response};
use swarmtorrent::codec::wire::{Front, HANDSHAKE_LEN, Handshake, Message, Reserved, parse_message};
use swarmtorrent::engine::{Effect, Engine, Progress};

use crate::cpu_secs;

const TURN_BYTES: usize = 512 * 1024;
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 6881);
pub const TRACKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 80);
/// Seconds between two announces of one torrent.
pub const INTERVAL_SECS: u32 = 120;
/// Any file, whenever it is looked at.
const STAMP: Stamp = Stamp { len: 1 << 40, modified_nanos: 1, inode: 1 };

/// A disk of zeros that forgets what is written.
#[derive(Debug, Default)]
pub struct Zeros {
    opened: u64,
    /// What describes the torrent that was added last.
    metainfo: Vec<u8>,
}

impl Storage for Zeros {
    type Stream = Pipe;

    fn saved(&mut self, _name: &Path) -> Option<Vec<u8>> {
        Some(self.metainfo.clone())
    }

    fn saved_part(&mut self, _name: &Path, bytes: &mut Vec<u8>, _most: usize) -> Option<bool> {
        bytes.clone_from(&self.metainfo);
        Some(true)
    }

    fn exists(&mut self, _path: &Path) -> bool {
        true
    }

    fn open(&mut self, _content: Content) -> StoreId {
        self.opened += 1;
        StoreId::from_bits(self.opened)
    }

    fn close(&mut self, _store: StoreId) {}

    fn set_wanted(&mut self, _store: StoreId, _wanted: &[bool]) {}

    fn set_held(&mut self, _store: StoreId, _held: &[bool]) {}

    fn cut(&mut self, _store: StoreId, _file: usize) {}

    fn hold(&mut self, _store: StoreId, _file: usize) {}

    fn trouble(&mut self, _store: StoreId, _file: usize) -> Option<Fault> {
        None
    }

    fn prepare(&mut self, _store: StoreId, _span: Span) -> Result<(), Fault> {
        Ok(())
    }

    fn write(&mut self, _store: StoreId, _offset: u64, _bytes: &[IoSlice<'_>]) -> Result<(), Fault> {
        Ok(())
    }

    fn read(&mut self, _store: StoreId, _offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
        buf.fill(0);
        Ok(())
    }

    fn expect(&mut self, _store: StoreId, _span: Span) {}

    fn resident(&mut self, _store: StoreId, _span: Span) -> bool {
        true
    }

    fn send(&mut self, stream: &mut Pipe, chunks: &[Chunk<'_>]) -> Result<usize, SendError> {
        let mut moved = 0;
        for chunk in chunks {
            match *chunk {
                Chunk::Bytes(bytes) => stream.said.extend(bytes),
                Chunk::Content(_, span) => stream.got += span.len,
            }
            moved += usize::try_from(chunk.len()).unwrap();
        }
        Ok(moved)
    }

    fn has_data(&mut self, _store: StoreId, _span: Span) -> bool {
        true
    }

    fn set_read_only(&mut self, _store: StoreId, _read_only: bool) {}

    fn place(&mut self, dir: &Path) -> PathBuf {
        dir.to_owned()
    }

    fn places_version(&mut self) -> u64 {
        0
    }

    fn identity(&mut self, _dir: &Path, _path: &Path) -> Option<FileIdentity> {
        None
    }

    fn stamp(&mut self, _store: StoreId, _file: usize) -> Option<Stamp> {
        Some(STAMP)
    }

    fn is_there(&mut self, _store: StoreId, _path: &Path) -> bool {
        false
    }

    fn rename(&mut self, _store: StoreId, _from: &Path, _to: &Path, _files: Arc<FileList>) -> Result<(), Fault> {
        Ok(()) // nobody renames anything here
    }

    fn move_progress(&self, _store: StoreId) -> Option<(u64, u64)> {
        None
    }

    fn stop_move(&mut self, _store: StoreId, _undo: bool) {}
}

/// A scripted peer and the stream to it.
#[derive(Debug)]
pub struct Pipe {
    conn: ConnId,
    /// What it says, and how much of that was read.
    coming: Vec<u8>,
    read: usize,
    /// What it was told, content left out.
    said: Vec<u8>,
    is_greeted: bool,
    /// Content that it got, bytes.
    pub got: u64,
    /// It was unchoked.
    pub is_open: bool,
    /// What it was asked for.
    pub asked: Vec<Block>,
}

impl Pipe {
    pub fn say(&mut self, message: &Message<'_>) {
        message.write(&mut self.coming);
    }

    /// Sends a block of zeros.
    pub fn give(&mut self, block: Block) {
        self.say(&Message::PieceHead(block));
        self.coming.resize(self.coming.len() + block.len as usize, 0);
    }

    /// Heeds what it was told.
    fn hear(&mut self) {
        let mut at = 0;
        if !self.is_greeted && self.said.len() >= HANDSHAKE_LEN {
            (self.is_greeted, at) = (true, HANDSHAKE_LEN);
        }
        while self.is_greeted
            && let Ok(Front::Whole(message, len)) = parse_message(&self.said[at..], None)
        {
            match message {
                Message::Unchoke => self.is_open = true,
                Message::Choke => self.is_open = false,
                Message::Request(block) => self.asked.push(block),
                _ => {}
            }
            at += len;
        }
        self.said.drain(..at);
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = &self.coming[self.read..];
        if rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.said.extend(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A torrent of zeros.
#[derive(Debug)]
pub struct Torrent {
    pub metainfo: Vec<u8>,
    pub info_hash: InfoHash,
    pub pieces: u32,
    pub piece_len: u32,
    pub files: usize,
}

impl Torrent {
    /// `files` of the same length, which `pieces` fill.
    pub fn new(number: usize, files: usize, pieces: u32, piece_len: u32, has_tracker: bool) -> Self {
        let file_len = u64::from(pieces) * u64::from(piece_len) / files as u64;
        let mut bytes = b"d".to_vec();
        if has_tracker {
            let url = format!("udp://{TRACKER}");
            bytes.extend(format!("8:announce{}:{url}", url.len()).bytes());
        }
        bytes.extend(b"4:infod5:filesl");
        (0..files).for_each(|file| bytes.extend(format!("d6:lengthi{file_len}e4:pathl6:{file:06}ee").bytes()));
        let hashes = u64::from(pieces) * 20;
        bytes.extend(format!("e4:name8:{number:08}12:piece lengthi{piece_len}e6:pieces{hashes}:").bytes());
        let hash = Sha1::digest(vec![0; piece_len as usize]);
        (0..pieces).for_each(|_| bytes.extend(&hash));
        bytes.extend(b"ee");
        let info_hash = Metainfo::parse(&bytes).unwrap().info_hash;
        Self { metainfo: bytes, info_hash, pieces, piece_len, files }
    }

    /// Block `number` of the content, which begins anew after its last.
    pub fn block(&self, number: u64) -> Block {
        let in_piece = u64::from(self.piece_len / BLOCK_LEN);
        let number = number % (u64::from(self.pieces) * in_piece);
        let small = |number: u64| u32::try_from(number).unwrap();
        Block { piece: Piece(small(number / in_piece)), offset: small(number % in_piece) * BLOCK_LEN, len: BLOCK_LEN }
    }

    /// What an earlier run left of it.
    fn record(&self, have: Bitfield) -> Vec<u8> {
        let meta = Metainfo::parse(&self.metainfo).unwrap();
        let record = Record {
            info_hash: self.info_hash,
            head: Some(Head::of(&meta)),
            trackers: meta.trackers,
            finished: have.is_full().then_some(1),
            told_finished: have.is_full(),
            written: Vec::new(),
            have,
            partials: Vec::new(),
            stamps: std::iter::repeat_n(STAMP, self.files).collect(),
            priorities: Vec::new(),
            dir: "/nowhere".into(),
            label: String::new(),
            added: 1,
            downloaded: 0,
            uploaded: 0,
            paused: false,
            sequential: false,
            shared: false,
            down_limit: None,
            up_limit: None,
            max_peers: None,
            ratio_millis: None,
            seed_time: None,
            idle_time: None,
            explicit: true,
            seeded: None,
            seeded_enough: false,
            idle_enough: false,
            seeds_on: false,
            allocated: true,
            clean: true,
            queue: None,
            super_seed: false,
            checking: false,
            move_to: None,
            move_from: None,
            names: Names::default(),
            next_names: None,
            move_wanted: None,
            move_undo: false,
            remove_after: None,
            removing: false,
            second: None,
        };
        record.to_bytes()
    }
}

/// An engine, its peers, and what it has cost.
#[derive(Debug)]
pub struct Node {
    pub engine: Engine<Zeros>,
    pub now: Time,
    /// By the connection's slot.
    pub pipes: Vec<Option<Pipe>>,
    ready: Vec<ConnId>,
    packets: Vec<Vec<u8>>,
    /// CPU seconds inside the engine.
    pub spent: f64,
    /// And the most that one round took of them.
    pub longest: f64,
    /// Announces that it made.
    pub announces: usize,
}

impl Node {
    pub fn new() -> Self {
        let config = Config {
            listen: vec![LISTEN],
            connections_max: 4000,
            connections_per_torrent_max: 4000,
            // As many as automatic slots may become.
            upload_slots: UploadSlots::Fixed(100),
            encryption: Encryption::Off,
            dht: false,
            lsd: false,
            ..Config::default()
        };
        Self {
            engine: Engine::new(config, 0, Rng::from_number(1), Zeros::default()),
            now: Time::from_secs(1),
            pipes: Vec::new(),
            ready: Vec::new(),
            packets: Vec::new(),
            spent: 0.0,
            longest: 0.0,
            announces: 0,
        }
    }

    /// Takes in a torrent of which the pieces before `held` are here, and begins it; nothing it wants is answered yet.
    pub fn add(&mut self, content: &Torrent, held: u32) {
        self.restore(content, held);
        self.begin();
    }

    /// Begins what was restored.
    pub fn begin(&mut self) {
        let before = cpu_secs();
        self.engine.handle_restored(self.now);
        self.spent += cpu_secs() - before;
    }

    /// Takes in a torrent of which the pieces before `held` are here.
    pub fn restore(&mut self, content: &Torrent, held: u32) {
        let mut have = Bitfield::new(content.pieces);
        (0..held).for_each(|piece| assert!(have.set(piece)));
        let record = content.record(have);
        let before = cpu_secs();
        self.engine.storage().metainfo.clone_from(&content.metainfo);
        self.engine.restore(self.now, content.info_hash, Some(&record)).unwrap();
        self.spent += cpu_secs() - before;
    }

    /// A peer comes that has `field`, and is interested if it wants anything.
    pub fn join(&mut self, content: &Torrent, field: &Bitfield, is_interested: bool) {
        let number = u32::try_from(self.pipes.len()).unwrap();
        let from = SocketAddr::from((Ipv4Addr::from(0x0b00_0001 + number), 6881));
        let before = cpu_secs();
        let conn = self.engine.handle_accept(self.now, ListenerId::Peers(0), from).unwrap();
        self.spent += cpu_secs() - before;
        let mut peer_id = *b"-XX0001-........----";
        peer_id[8..16].copy_from_slice(format!("{number:08}").as_bytes());
        let reserved = Reserved::new(false, false, false);
        let mut pipe = Pipe {
            conn,
            coming: Handshake { reserved, info_hash: Sha1Hash(content.info_hash.0), peer_id }.to_bytes().to_vec(),
            read: 0,
            said: Vec::new(),
            is_greeted: false,
            got: 0,
            is_open: false,
            asked: Vec::new(),
        };
        if field.count() > 0 {
            pipe.say(&Message::Bitfield(field.as_bytes()));
        }
        pipe.say(if is_interested { &Message::Interested } else { &Message::Unchoke });
        self.pipes.resize_with(self.pipes.len().max(conn.slot() + 1), || None);
        self.pipes[conn.slot()] = Some(pipe);
        self.round();
    }

    /// Time passes, and whatever is due is done.
    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.round();
    }

    /// Goes on to the next moment that the engine waits for; false if that is after `until`.
    pub fn step(&mut self, until: Time) -> bool {
        let next = self.engine.poll_timeout();
        if next > until {
            self.now = until;
            return false;
        }
        self.now = self.now.max(next);
        self.round();
        true
    }

    /// One round of a driver: what came is read, what is due is done, what is wanted is answered.
    pub fn round(&mut self) {
        self.ready.extend(self.pipes.iter().flatten().filter(|pipe| !pipe.coming.is_empty()).map(|pipe| pipe.conn));
        let before = cpu_secs();
        self.settle();
        let took = cpu_secs() - before;
        self.spent += took;
        self.longest = self.longest.max(took);
        while !self.packets.is_empty() {
            let mut answers: Vec<Vec<u8>> =
                std::mem::take(&mut self.packets).iter().map(|packet| answer(packet)).collect();
            self.announces += answers.iter().filter(|answer| answer[3] == 1).count();
            let before = cpu_secs();
            for packet in &mut answers {
                self.engine.handle_packet(self.now, SocketId::Peers(0), TRACKER, packet);
            }
            self.settle();
            self.spent += cpu_secs() - before;
        }
        for pipe in self.pipes.iter_mut().flatten() {
            pipe.coming.drain(..pipe.read);
            pipe.read = 0;
            pipe.hear();
        }
    }

    fn settle(&mut self) {
        let now = self.now;
        let mut packet = Vec::new();
        loop {
            while let Some(conn) = self.ready.pop() {
                let Some(pipe) = &mut self.pipes[conn.slot()] else { continue };
                let mut goes_on = true;
                while goes_on {
                    let (mut out, mut into) = (Budget::new(TURN_BYTES), Budget::new(TURN_BYTES));
                    goes_on = self.engine.handle_writable(now, conn, pipe, &mut out) == Progress::Spent;
                    goes_on |= self.engine.handle_readable(now, conn, pipe, &mut into) == Progress::Spent;
                }
            }
            if self.engine.poll_timeout() <= now {
                self.engine.handle_timeout(now);
            }
            while self.engine.work(now) {}
            while let Some(effect) = self.engine.poll_effect() {
                match effect {
                    Effect::Wake(conn) => self.ready.push(conn),
                    Effect::Job(id, _) => self.engine.handle_job(now, id, Ok(())),
                    Effect::Close(conn) => self.pipes[conn.slot()] = None,
                    _ => {}
                }
            }
            while self.engine.poll_transmit(now, &mut packet).is_some() {
                self.packets.push(std::mem::take(&mut packet));
            }
            if self.ready.is_empty() && self.engine.poll_timeout() > now {
                return;
            }
        }
    }
}

/// What the tracker says to a packet: it knows no peers.
fn answer(packet: &[u8]) -> Vec<u8> {
    let response = match Request::parse(packet).unwrap() {
        Request::Connect { transaction } => Response::Connect { transaction, connection: 1 },
        Request::Announce { transaction, .. } => {
            Response::Announce { transaction, interval: INTERVAL_SECS, leechers: 1, seeders: 1, peers: Vec::new() }
        }
        Request::Scrape { .. } => unreachable!("its announces tell what a scrape would"),
    };
    let mut out = Vec::new();
    response.write(&mut out);
    out
}
