//! In the steady state a transfer allocates nothing per block, only a few small vectors per system call, each of which moves many
//! blocks. Two nodes on this thread, the real loop, real sockets and files.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use swarmtorrent::base::config::Config;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::engine::Engine;
use swarmtorrent::reactor::Reactor;
use swarmtorrent::reactor::clock::Clock;
use swarmtorrent::storage::FileStorage;
use swarmtorrent::torrent::command::{AddOptions, Answer, Command, Source, Which};
use swarmtorrent::torrent::create::{Creator, Notes, Profile};

const PIECE_LEN: u32 = 1 << 20;
const LEN: u64 = 64 << 20;
const BLOCK_LEN: u64 = 16 << 10;
/// What is moved before anything is counted, and what is counted.
const WARM_UP: u64 = LEN / 4;
const COUNTED: u64 = LEN / 2;
/// No test waits for more rounds.
const ROUNDS_MAX: u32 = 2_000;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// The system's, with a count a thread.
struct Counting;

// SAFETY: it is the system's; the count is a number that needs no allocation itself.
#[allow(unsafe_code, reason = "an allocator is unsafe by nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATED.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, len) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A daemon without its control socket.
struct Node {
    reactor: Reactor,
    engine: Engine<FileStorage>,
    outside: Vec<swarmtorrent::reactor::outside::OutsideEvent>,
}

impl Node {
    fn start(seed: u64, metainfo: &[u8], dir: &Path) -> Self {
        let clock = Clock::start();
        let reactor = Reactor::new(clock, &[([127, 0, 0, 1], 0).into()], None).unwrap();
        let config = Config { listen: reactor.bound().to_vec(), lsd: false, ..Config::default() };
        let mut engine = Engine::new(config, clock.unix_nanos(), Rng::from_number(seed), FileStorage::without_state());
        let options = AddOptions { dir: Some(dir.to_owned()), verify: Some(true), ..AddOptions::default() };
        let source = Source::Metainfo(metainfo.to_vec());
        engine.handle_command(reactor.now(), Command::Add { source, options }).unwrap();
        Self { reactor, engine, outside: Vec::new() }
    }

    fn turn(&mut self) {
        self.reactor.set_deadline(self.reactor.now() + Duration::from_micros(100));
        self.reactor.turn(&mut self.engine, &mut self.outside).unwrap();
    }

    fn ask(&mut self, command: Command) -> Answer {
        self.engine.handle_command(self.reactor.now(), command).unwrap()
    }

    /// What of the content is here.
    fn have_bytes(&mut self) -> u64 {
        let Answer::List(rows) = self.ask(Command::List { states: vec![], label: None }) else { panic!("a list") };
        rows[0].have_bytes
    }
}

/// Turns until the leecher has `bytes`; what both allocated meanwhile, this loop's own questions left out.
fn transfer(seeder: &mut Node, leecher: &mut Node, bytes: u64) -> u64 {
    let mut allocated = 0;
    for _ in 0..ROUNDS_MAX {
        let before = ALLOCATED.get();
        for _ in 0..16 {
            seeder.turn();
            leecher.turn();
        }
        allocated += ALLOCATED.get() - before;
        if leecher.have_bytes() >= bytes {
            return allocated;
        }
    }
    let why = [leecher, seeder].map(|node| node.ask(Command::Why(Which::All)));
    panic!("not {bytes} bytes in time: {why:?}");
}

#[test]
fn a_transfer_allocates_nothing_per_block() {
    let (given, taken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut content = vec![0; usize::try_from(LEN).unwrap()];
    Rng::from_number(7).fill(&mut content);
    std::fs::write(given.path().join("content"), &content).unwrap();
    let notes = Notes { name: b"content".to_vec(), ..Notes::default() };
    let mut creator = Creator::new(Profile::V1, PIECE_LEN, vec![(vec![], LEN)], notes);
    creator.update(&content);
    let metainfo = creator.finish().unwrap().1;

    let mut seeder = Node::start(1, &metainfo, given.path());
    let mut leecher = Node::start(2, &metainfo, taken.path());
    for _ in 0..ROUNDS_MAX {
        seeder.turn();
        if seeder.have_bytes() == LEN {
            break;
        }
    }
    assert_eq!(seeder.have_bytes(), LEN, "it was checked");
    let port = seeder.reactor.bound()[0].port();
    leecher.ask(Command::Connect { which: Which::All, host: "127.0.0.1".to_owned(), port });
    transfer(&mut seeder, &mut leecher, WARM_UP);
    let allocated = transfer(&mut seeder, &mut leecher, WARM_UP + COUNTED);
    let blocks = COUNTED / BLOCK_LEN;
    println!("{allocated} allocations for {blocks} blocks");
    // One for each block on either side would be as many as blocks.
    assert!(allocated < blocks, "{allocated} allocations for {blocks} blocks");
}
