//! What is measured at one size of each thing that grows.

use std::io::IoSlice;
use std::time::Duration;

use swarmtorrent::base::bitfield::Bitfield;
use swarmtorrent::base::geometry::Span;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::storage::{Content, Storage};
use swarmtorrent::codec::metainfo::Metainfo;
use swarmtorrent::codec::wire::Message;
use swarmtorrent::storage::FileStorage;
use swarmtorrent::torrent::command::{Command, Which};

use crate::node::{INTERVAL_SECS, Node, Torrent};
use crate::{Cost, cpu_secs};

const MIB: u64 = 1 << 20;
/// Blocks of a MiB.
const BLOCKS: u64 = 64;
/// Small pieces, of one block.
const SMALL: u32 = 16 * 1024;
const LARGE: u32 = 1 << 20;
/// A MiB takes so long on the wire, as at about a gigabit.
const WIRE: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

/// Microseconds that the engine spends in each of `count` things that `work` makes it do.
fn each(node: &mut Node, count: usize, work: impl FnOnce(&mut Node)) -> f64 {
    let before = node.spent;
    work(node);
    (node.spent - before) * 1e6 / count as f64
}

/// Microseconds of one second in which nothing moves.
fn tick(node: &mut Node) -> f64 {
    const TICKS: usize = 20;
    node.pass(SECOND);
    each(node, TICKS, |node| (0..TICKS).for_each(|_| node.pass(SECOND)))
}

/// Microseconds of a MiB that interested peers take, at least `mib` of them.
fn serve(node: &mut Node, torrent: &Torrent, mib: u64) -> f64 {
    let (mut next, mut moved, before) = (0, 0, node.spent);
    while moved < mib {
        let mut asked = 0;
        for pipe in node.pipes.iter_mut().flatten().filter(|pipe| pipe.is_open) {
            (next..next + BLOCKS).for_each(|number| pipe.say(&Message::Request(torrent.block(number))));
            next += BLOCKS;
            asked += 1;
        }
        assert!(asked > 0, "nobody has a slot");
        let got = |node: &Node| node.pipes.iter().flatten().map(|pipe| pipe.got).sum::<u64>();
        let had = got(node);
        node.pass(WIRE * asked);
        moved += (got(node) - had) / MIB;
    }
    (node.spent - before) * 1e6 / moved as f64
}

/// Microseconds of a MiB that peers give as it is asked of them, at least `blocks` blocks.
fn receive(node: &mut Node, blocks: u64) -> f64 {
    let (mut given, before) = (0, node.spent);
    while given < blocks {
        let mut now = 0;
        for pipe in node.pipes.iter_mut().flatten() {
            for block in std::mem::take(&mut pipe.asked) {
                pipe.give(block);
                now += 1;
            }
        }
        given += now;
        node.pass(WIRE * u32::try_from(now).unwrap() / 64 + Duration::from_millis(1));
    }
    assert!(node.engine.views().all(|view| view.failed == 0), "zeros are what the pieces hold");
    (node.spent - before) * 1e6 * BLOCKS as f64 / given as f64
}

/// Of `count` torrents that are seeded one has a peer.
pub fn torrents(count: usize) -> Vec<Cost> {
    let torrents: Vec<Torrent> = (0..count).map(|number| Torrent::new(number, 1, 64, SMALL, true)).collect();
    let mut node = Node::new();
    for torrent in &torrents {
        node.now += Duration::from_millis(1);
        node.add(torrent, torrent.pieces);
        node.round();
    }
    let first = &torrents[0];
    node.join(first, &Bitfield::new(first.pieces), true);
    let ticked = tick(&mut node);
    let served = serve(&mut node, first, 512);
    let command = Command::Show(Which::Prefix(first.info_hash.to_string()));
    let before = cpu_secs();
    (0..20).for_each(|_| drop(node.engine.handle_command(node.now, command.clone()).unwrap()));
    let shown = (cpu_secs() - before) * 1e6 / 20.0;
    let announced = announce(&mut node, count);
    let (restored, together) = start(&torrents);
    vec![
        ("a tick of the one with a peer", "", ticked),
        ("an announce, one at a time", "", announced),
        ("a MiB sent by one of them", "", served),
        ("at a start: one is restored", "", restored),
        ("at a start: one announces", "", together),
        ("a command that names one", "", shown),
    ]
}

/// Microseconds of an announce and its answer, as torrents that began one after another announce again.
fn announce(node: &mut Node, count: usize) -> f64 {
    let times = if count < 1000 { 10 } else { 1 };
    let until = node.now + Duration::from_secs(u64::from(INTERVAL_SECS) * times);
    let (mut announces, mut spent) = (0, 0.0);
    loop {
        let before = (node.announces, node.spent);
        if !node.step(until) {
            break;
        }
        if node.announces > before.0 {
            announces += node.announces - before.0;
            spent += node.spent - before.1;
        }
    }
    assert!(announces >= count, "{announces} announces of {count} torrents");
    spent * 1e6 / announces as f64
}

/// Microseconds for each torrent at a start: to restore it, and to announce, once all are restored.
fn start(torrents: &[Torrent]) -> (f64, f64) {
    let mut node = Node::new();
    let restore = |node: &mut Node| {
        torrents.iter().for_each(|torrent| node.restore(torrent, torrent.pieces));
        node.begin();
    };
    let restored = each(&mut node, torrents.len(), restore);
    let announced = each(&mut node, torrents.len(), Node::round);
    assert_eq!(node.announces, torrents.len(), "all have announced");
    (restored, announced)
}

/// One torrent has `count` peers: first it has all and they have nothing, then the other way round.
pub fn peers(count: usize) -> Vec<Cost> {
    let torrent = Torrent::new(0, 1, 4096, 256 * 1024, false);
    let (nothing, all) = (Bitfield::new(torrent.pieces), Bitfield::full(torrent.pieces));
    let mut seed = Node::new();
    seed.add(&torrent, torrent.pieces);
    let latest = count.min(100);
    (latest..count).for_each(|_| seed.join(&torrent, &nothing, true));
    let joined = each(&mut seed, latest, |node| (0..latest).for_each(|_| node.join(&torrent, &nothing, true)));
    let ticked = tick(&mut seed);
    let served = serve(&mut seed, &torrent, 2048);
    let mut leech = Node::new();
    leech.add(&torrent, 0);
    (0..count).for_each(|_| leech.join(&torrent, &all, false));
    receive(&mut leech, 64);
    let received = receive(&mut leech, 256 * BLOCKS);
    vec![
        ("a MiB sent", "", served),
        ("a MiB received", "each peer is told of each piece", received),
        ("a tick of a seed", "it looks at each peer", ticked),
        ("a tick of a leech", "it looks at each peer", tick(&mut leech)),
        ("one more joins", "it is compared with each peer", joined),
    ]
}

/// A torrent of `count` pieces with one peer that has all, and one that has what we have.
pub fn pieces(count: usize) -> Vec<Cost> {
    let torrent = Torrent::new(0, 1, u32::try_from(count).unwrap(), SMALL, false);
    let nothing = Bitfield::new(torrent.pieces);
    let mut seed = Node::new();
    seed.add(&torrent, torrent.pieces);
    seed.join(&torrent, &nothing, true);
    let ticked = tick(&mut seed);
    let served = serve(&mut seed, &torrent, 512);
    let half = torrent.pieces / 2;
    let mut field = nothing;
    (0..half).for_each(|piece| assert!(field.set(piece)));
    let blocks = u64::from(torrent.pieces - half).min(4096) / 2;
    let runs = 1024_u64.div_ceil(blocks);
    let (mut received, mut waited, mut joined) = (0.0, 0.0, 0.0);
    for _ in 0..runs {
        let mut leech = Node::new();
        leech.add(&torrent, half);
        leech.join(&torrent, &Bitfield::full(torrent.pieces), false);
        receive(&mut leech, 4);
        // The next piece is picked by what it has.
        joined += each(&mut leech, 1, |node| {
            node.join(&torrent, &field, false);
            receive(node, 1);
        });
        received += receive(&mut leech, blocks);
        waited += tick(&mut leech);
    }
    vec![
        ("a MiB sent", "", served),
        ("a MiB received, in small pieces", "", received / runs as f64),
        ("a tick of a seed", "", ticked),
        ("a tick of a leech", "a peer without use is compared by words of 64", waited / runs as f64),
        ("a peer joins that has half", "its field has a bit for each piece", joined / runs as f64),
    ]
}

/// A torrent whose pieces of a MiB fall into `count` files of the same length.
pub fn files(count: usize) -> Vec<Cost> {
    let torrent = Torrent::new(0, count, 100_000, LARGE, false);
    let mut seed = Node::new();
    seed.add(&torrent, torrent.pieces);
    seed.join(&torrent, &Bitfield::new(torrent.pieces), true);
    let ticked = tick(&mut seed);
    let served = serve(&mut seed, &torrent, 512);
    let mut leech = Node::new();
    leech.add(&torrent, 0);
    leech.join(&torrent, &Bitfield::full(torrent.pieces), false);
    receive(&mut leech, 64);
    leech.longest = 0.0;
    let received = receive(&mut leech, 512 * BLOCKS);
    let (written, read) = on_disk(&torrent, 256);
    vec![
        ("a MiB sent", "", served),
        ("a MiB received", "a record has a stamp for each file", received),
        ("the longest round of receiving", "a record has a stamp for each file", leech.longest * 1e6),
        ("a tick of a seed", "it looks at 256 files at most", ticked),
        ("a MiB written to the disk", "files are made and opened", written),
        ("a MiB read from it", "", read),
    ]
}

/// What the real storage needs to write a MiB, and to read it: `mib` of them, each anywhere in the content.
fn on_disk(torrent: &Torrent, mib: usize) -> (f64, f64) {
    let temp = tempfile::Builder::new().prefix("swarmtorrent-scaling").tempdir().unwrap();
    let meta = Metainfo::parse(&torrent.metainfo).unwrap();
    let mut storage = FileStorage::without_state();
    let store = storage.open(Content {
        dir: temp.path().to_owned(),
        also: None,
        files: meta.files,
        wanted: vec![true; torrent.files],
        read_only: false,
    });
    let mut rng = Rng::from_number(7);
    let chosen: Vec<u64> = (0..mib).map(|_| rng.index(torrent.pieces as usize) as u64 * MIB).collect();
    let mut buf = vec![1; usize::try_from(MIB).unwrap()];
    let before = cpu_secs();
    for &offset in &chosen {
        storage.prepare(store, Span { offset, len: MIB }).unwrap();
        for (bytes, at) in buf.chunks(256 * 1024).zip((offset..).step_by(256 * 1024)) {
            storage.write(store, at, &[IoSlice::new(bytes)]).unwrap();
        }
    }
    let between = cpu_secs();
    chosen.iter().for_each(|&offset| storage.read(store, offset, &mut buf).unwrap());
    let micros = |secs: f64| secs * 1e6 / mib as f64;
    (micros(between - before), micros(cpu_secs() - between))
}
