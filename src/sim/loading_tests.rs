//! Metainfo at the parser's limits, by every way it comes to the engine: no call takes more steps than a turn.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::bitfield::Bitfield;
use crate::base::config::Config;
use crate::base::hash::{InfoHash, Sha1Hash};
use crate::base::ids::{ConnId, ListenerId, LoadId};
use crate::base::rate::Budget;
use crate::base::rng::Rng;
use crate::base::steps;
use crate::base::storage::{Content, Job, Storage};
use crate::base::time::Time;
use crate::codec::extension::{ExtensionHandshake, ExtensionIds, ExtensionKind};
use crate::codec::metadata::{METADATA_PIECE_LEN, MetadataMessage};
use crate::codec::metainfo::Metainfo;
use crate::codec::resume::Record;
use crate::codec::stamps::PackedStamps;
use crate::codec::wire::{Handshake, Message, Reserved};
use crate::engine::{Effect, Engine, record_name};
use crate::sim::storage::{MemoryStorage, Truth};
use crate::sim::stream::SimStream;
use crate::torrent::command::{AddOptions, Answer, Command, RefusalKind, Reply, Source, Which};

/// An engine, and the most steps that one call of it took.
struct Bench {
    engine: Engine<MemoryStorage>,
    now: Time,
    most: (u64, &'static str),
    jobs: Vec<Job>,
    woken: BTreeSet<ConnId>,
    closed: BTreeSet<ConnId>,
}

impl Bench {
    fn new(content_len: usize) -> Self {
        let mut storage = MemoryStorage::default();
        storage.know(&Arc::new(Truth::new("n".to_owned(), vec![7; content_len], 1)));
        let config = Config { allocate_full: false, dht: false, lsd: false, verify_on_add: false, ..Config::default() };
        Self {
            engine: Engine::new(config, 0, Rng::from_number(1), storage),
            now: Time::ZERO,
            most: (0, ""),
            jobs: Vec::new(),
            woken: BTreeSet::new(),
            closed: BTreeSet::new(),
        }
    }

    fn call<T>(&mut self, what: &'static str, call: impl FnOnce(&mut Engine<MemoryStorage>, Time) -> T) -> T {
        steps::take();
        let result = call(&mut self.engine, self.now);
        self.most = self.most.max((steps::take(), what));
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Job(_, job) => self.jobs.push(job),
                Effect::Wake(conn) => drop(self.woken.insert(conn)),
                Effect::Close(conn) => drop(self.closed.insert(conn)),
                _ => {}
            }
        }
        result
    }

    /// Works until nothing is left; how often it was called.
    fn work(&mut self) -> usize {
        let mut calls = 1;
        while self.call("work", |engine, now| engine.work(now)) {
            calls += 1;
            assert!(calls < 1_000_000, "the work ends");
        }
        calls
    }

    fn command(&mut self, command: Command) -> Reply {
        self.call("command", |engine, now| engine.handle_command(now, command))
    }

    fn add(&mut self, metainfo: Vec<u8>) -> Reply {
        match self.command(Command::Add { source: Source::Metainfo(metainfo), options: AddOptions::default() }) {
            Ok(Answer::Later(load)) => {
                self.work();
                self.loaded(load).expect("an addition is answered when it was read")
            }
            reply => reply,
        }
    }

    fn loaded(&mut self, load: LoadId) -> Option<Reply> {
        let (answered, reply) = self.engine.poll_loaded().expect("it was read");
        assert_eq!(answered, load);
        reply
    }

    fn accept(&mut self, from: &str) -> (ConnId, SimStream) {
        let from = from.parse().expect("an address");
        let conn = self.call("accept", |engine, now| engine.handle_accept(now, ListenerId::Peers(0), from));
        (conn.expect("there is room"), SimStream::default())
    }

    fn send(&mut self, conn: ConnId, stream: &mut SimStream, bytes: &[u8]) {
        stream.incoming.push(bytes);
        self.turns(conn, stream);
    }

    fn turns(&mut self, conn: ConnId, stream: &mut SimStream) {
        let budget = || Budget::new(1 << 20);
        self.call("readable", |engine, now| engine.handle_readable(now, conn, stream, &mut budget()));
        self.call("writable", |engine, now| engine.handle_writable(now, conn, stream, &mut budget()));
        stream.out = crate::sim::stream::Bytes::default();
    }

    fn check(&self, what: &str) {
        println!("{what}: at most {:?} steps", self.most);
        assert!(self.most.0 <= steps::TURN_MAX, "{what}: {:?} steps", self.most);
    }
}

fn shake(info_hash: InfoHash, number: u8) -> Vec<u8> {
    let reserved = Reserved::new(true, true, false);
    let mut peer_id = *b"-XX0000-............";
    peer_id[19] = number;
    Handshake { reserved, info_hash, peer_id }.to_bytes().to_vec()
}

/// An `info` of one file in as many pieces as fit, and how long its content is.
fn most_pieces() -> (Vec<u8>, usize) {
    let pieces = (32 << 20) / 20 - 10;
    let mut info = format!("d6:lengthi{pieces}e4:name1:n12:piece lengthi1e6:pieces{}:", pieces * 20).into_bytes();
    info.resize(info.len() + pieces * 20, b'x');
    info.push(b'e');
    (info, pieces)
}

/// An `info` of as many files as are allowed, all of no bytes, in no order.
fn most_files() -> (Vec<u8>, usize) {
    let mut info = b"d5:filesl".to_vec();
    for number in 0..1_000_000_u64 {
        let name = format!("{:x}", number * 7919 % 1_000_003);
        info.extend_from_slice(format!("d6:lengthi0e4:pathl{}:{name}ee", name.len()).as_bytes());
    }
    info.extend_from_slice(b"e4:name1:n12:piece lengthi262144e6:pieces0:e");
    (info, 0)
}

fn file_of(info: &[u8]) -> Vec<u8> {
    [b"d4:info", info, b"e"].concat()
}

#[test]
fn largest_metainfo_is_added_by_a_command_without_a_long_call() {
    for (what, (info, len)) in [("most pieces", most_pieces()), ("most files", most_files())] {
        let mut bench = Bench::new(len);
        assert_eq!(bench.add(file_of(&info)), Ok(Answer::Added(Sha1Hash::of(&info))), "{what}");
        bench.check(what);
        let damaged = [&info[..info.len() - 1], b"x"].concat();
        assert!(bench.add(file_of(&damaged)).is_err());
        bench.check(what);
    }
}

#[test]
fn largest_metadata_is_taken_from_a_peer_without_a_long_call() {
    for (what, (info, len)) in [("most pieces", most_pieces()), ("most files", most_files())] {
        let mut bench = Bench::new(len);
        let info_hash = Sha1Hash::of(&info);
        let source = Source::Link(format!("magnet:?xt=urn:btih:{info_hash}"));
        bench.command(Command::Add { source, options: AddOptions::default() }).expect("a good link");
        let (conn, mut stream) = bench.accept("192.0.2.1:5000");
        bench.send(conn, &mut stream, &shake(info_hash, 1));
        let mut hello = Vec::new();
        let ids = ExtensionIds::of(&[ExtensionKind::Metadata]);
        let total_size = u32::try_from(info.len()).expect("32 MiB");
        ExtensionHandshake { ids, metadata_size: Some(total_size), ..ExtensionHandshake::default() }.write(&mut hello);
        let mut bytes = Vec::new();
        Message::Extended { id: 0, payload: &hello }.write(&mut bytes);
        bench.send(conn, &mut stream, &bytes);
        for (piece, bytes) in (0..).zip(info.chunks(METADATA_PIECE_LEN as usize)) {
            let (mut payload, mut message) = (Vec::new(), Vec::new());
            MetadataMessage::Data { piece, total_size, bytes }.write(&mut payload);
            Message::Extended { id: ExtensionKind::Metadata.id(), payload: &payload }.write(&mut message);
            bench.send(conn, &mut stream, &message);
        }
        let calls = bench.work();
        assert!(calls > 10, "it is read in slices: {calls}");
        let Ok(Answer::Show(row)) = bench.command(Command::Show(Which::All)) else { panic!("{what}: not there") };
        assert_eq!(row.name, "n", "{what}: it is described");
        bench.check(what);
    }
}

/// An engine that has restored the torrent of `most_pieces`, complete and hibernated.
fn hibernated() -> (Bench, InfoHash) {
    let (info, len) = most_pieces();
    let info_hash = Sha1Hash::of(&info);
    let mut first = Bench::new(len);
    first.add(file_of(&info)).expect("good metainfo");
    let record = first.jobs.into_iter().find_map(|job| match job {
        Job::Record { name, value: Some(value) } if name == record_name(info_hash) => Record::parse(&value),
        _ => None,
    });
    let mut record = record.expect("it was recorded");
    let mut bench = Bench::new(len);
    let storage = bench.engine.storage();
    let files = Metainfo::parse(&file_of(&info)).expect("good metainfo").files;
    let content = Content { dir: record.dir.clone(), also: None, files, wanted: vec![true], read_only: false };
    let store = storage.open(content);
    storage.fill(store);
    record.stamps = PackedStamps::pack(storage.stamp(store, 0));
    storage.close(store);
    record.clean = true;
    record.have = Bitfield::full(record.have.len());
    bench.engine.storage().saved.insert(PathBuf::from(format!("torrents/{info_hash}.meta")), file_of(&info));
    bench.engine.restore(Time::ZERO, info_hash, Some(&record.to_bytes())).expect("it was saved");
    bench.engine.handle_restored(Time::ZERO);
    while bench.engine.poll_effect().is_some() {}
    (bench, info_hash)
}

#[test]
fn hibernated_torrent_is_loaded_for_a_peer_without_a_long_call() {
    let (mut bench, info_hash) = hibernated();
    let (conn, mut stream) = bench.accept("192.0.2.1:5000");
    let (other, mut other_stream) = bench.accept("192.0.2.2:5000");
    let interested = [0, 0, 0, 1, 2];
    bench.send(conn, &mut stream, &[&shake(info_hash, 1)[..], &interested].concat());
    bench.send(other, &mut other_stream, &shake(info_hash, 2));
    assert!(bench.closed.is_empty(), "they wait");
    bench.woken.clear();
    let calls = bench.work();
    assert!(calls > 10, "it is loaded in slices: {calls}");
    let why = bench.command(Command::Why(Which::All));
    assert!(bench.closed.is_empty(), "{:?} of {conn:?} and {other:?}: {why:?}", bench.closed);
    assert!(bench.woken.contains(&conn) && bench.woken.contains(&other));
    bench.turns(conn, &mut stream);
    let Ok(Answer::Peers(peers)) = bench.command(Command::Peers(Which::All)) else { panic!("no peers") };
    assert_eq!(peers.len(), 2, "what was sent before is read when it is loaded");
    bench.check("loaded for a peer");
}

#[test]
fn hibernated_torrent_whose_metainfo_is_lost_stays_and_says_so() {
    let (mut bench, info_hash) = hibernated();
    bench.engine.storage().saved.remove(&PathBuf::from(format!("torrents/{info_hash}.meta")));
    let Ok(Answer::Later(load)) = bench.command(Command::Files(Which::All)) else { panic!("it has to be read first") };
    bench.work();
    assert!(matches!(bench.loaded(load), Some(Err(refusal)) if refusal.kind == RefusalKind::Io));
    assert!(matches!(bench.command(Command::Why(Which::All)), Ok(Answer::Why(_))));
    bench.work();
    bench.command(Command::Remove { which: Which::All, data: true }).expect("it is to be removed");
    bench.work();
    let Ok(Answer::Show(row)) = bench.command(Command::Show(Which::All)) else { panic!("it stays") };
    assert!(row.error.as_ref().is_some_and(|error| error.contains("cannot be read")), "{:?}", row.error);
    bench.check("a lost description");
}

#[test]
fn commands_on_a_hibernated_torrent_are_answered_when_it_is_loaded() {
    let (mut bench, _) = hibernated();
    let files = Command::Files(Which::All);
    let Ok(Answer::Later(load)) = bench.command(files.clone()) else { panic!("it has to be read first") };
    assert!(bench.engine.poll_loaded().is_none());
    bench.work();
    assert_eq!(bench.loaded(load), None, "the command is to be sent again");
    assert!(matches!(bench.command(files), Ok(Answer::Files(rows)) if rows.len() == 1));
    bench.check("loaded for a command");
}
