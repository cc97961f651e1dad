//! What the small parts cost by themselves: reading bytes, choosing pieces and peers, hashing, timers.
//!
//! `cargo bench --bench micro -- [words]`, all if no word is given, else those whose names hold one. What a part is given is
//! made beforehand and is the same in every run; sizes are those of a big torrent and a full house. Whole transfers are in
//! `whole`.
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "a bench chose its numbers itself, and ends at the first trouble"
)]

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use swarmtorrent::base::addr::Reach;
use swarmtorrent::base::bitfield::Bitfield;
use swarmtorrent::base::config::UploadSlots;
use swarmtorrent::base::files::FileList;
use swarmtorrent::base::geometry::{BLOCK_LEN, Block, Geometry, Piece};
use swarmtorrent::base::hash::{HashKind, Sha1Hash};
use swarmtorrent::base::ids::ConnId;
use swarmtorrent::base::lanes::{LANES, PieceLanes};
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::time::Time;
use swarmtorrent::base::timers::Timers;
use swarmtorrent::codec::bencode::{self, VALUES_MAX};
use swarmtorrent::codec::krpc;
use swarmtorrent::codec::metainfo::Metainfo;
use swarmtorrent::codec::pex::{Contact, Flags};
use swarmtorrent::codec::wire::{Front, Handshake, Message, Reserved, parse_message};
use swarmtorrent::protocol::dht::{self, Dht};
use swarmtorrent::protocol::peer::{Event, Hello, Peer};
use swarmtorrent::protocol::pex::{Contacts, Pex, Place};
use swarmtorrent::torrent::choker::{Change, Choker, ROUND, Standing};
use swarmtorrent::torrent::create::{Creator, Notes, Profile};
use swarmtorrent::torrent::layout::Layout;
use swarmtorrent::torrent::picker::Picker;

/// Pieces of the big torrent, and its peers.
const PIECES: u32 = 100_000;
const PEERS: u32 = 500;
/// Messages of a stream: no more blocks than may be asked of a peer at once.
const MESSAGES: u32 = 128;
const KINDS: [&str; 3] = ["have", "request", "piece"];
const HASHES: [HashKind; 2] = [HashKind::Sha1, HashKind::Sha256];
/// Bytes of a piece that is hashed.
const HASHED_LEN: usize = 1 << 20;
/// Swarms that a DHT node knows, and peers of each.
const SWARMS: u32 = 10_000;
const SWARM_PEERS: u32 = 10;
/// Keys with a deadline, as of so many connections.
const TIMERS: u32 = 10_000;

fn main() {
    divan::main();
}

/// The file of a torrent of 1,000 files and 10,000 pieces.
fn torrent_file(profile: Profile) -> Vec<u8> {
    let path = |file| vec![format!("season {:02}", file / 20).into(), format!("episode {file:04}.mkv").into()];
    let files = (0..1000).map(|file| (path(file), u64::from(10 * BLOCK_LEN))).collect();
    let notes = Notes { name: b"a series".to_vec(), ..Notes::default() };
    let mut creator = Creator::new(profile, BLOCK_LEN, files, notes);
    let piece = vec![7; BLOCK_LEN as usize];
    (0..10_000).for_each(|_| creator.update(&piece));
    creator.finish().unwrap().1
}

/// One iteration: the file becomes a tree of bencoded values.
#[divan::bench(args = [Profile::V1, Profile::Compatible])]
fn bencode_parse(bencher: Bencher<'_, '_>, profile: Profile) {
    let bytes = torrent_file(profile);
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| {
        assert!(black_box(bencode::parse(black_box(&bytes), VALUES_MAX)).is_ok());
    });
}

/// One iteration: the file becomes a metainfo, with its names made safe and its hash taken.
#[divan::bench(args = [Profile::V1, Profile::Compatible])]
fn metainfo_parse(bencher: Bencher<'_, '_>, profile: Profile) {
    let bytes = torrent_file(profile);
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| Metainfo::parse(black_box(&bytes)).unwrap());
}

fn blocks() -> impl Iterator<Item = Block> {
    (0..MESSAGES).map(|at| Block { piece: Piece(at / 16), offset: at % 16 * BLOCK_LEN, len: BLOCK_LEN })
}

/// A message for each block; of a `piece` it is the head.
fn messages(kind: &str) -> Vec<Message<'static>> {
    let message = |block: Block| match kind {
        "have" => Message::Have(block.piece),
        "request" => Message::Request(block),
        _ => Message::PieceHead(block),
    };
    blocks().map(message).collect()
}

/// The bytes of the messages, payload among them.
fn stream(kind: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages(kind) {
        message.write(&mut bytes);
        bytes.resize(bytes.len() + payload_len(message), 7);
    }
    bytes
}

fn payload_len(message: Message<'_>) -> usize {
    if let Message::PieceHead(block) = message { block.len as usize } else { 0 }
}

/// One iteration: the bytes of 128 messages are parsed; payload is stepped over.
#[divan::bench(args = KINDS, sample_size = 100)]
fn wire_parse(bencher: Bencher<'_, '_>, kind: &str) {
    let bytes = stream(kind);
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        let mut rest = black_box(&bytes[..]);
        while let Ok(Front::Whole(message, len)) = parse_message(rest, Some(PIECES)) {
            rest = &rest[len + payload_len(black_box(message))..];
        }
        assert!(rest.is_empty(), "all was parsed");
    });
}

/// One iteration: 128 messages become bytes, without payload.
#[divan::bench(args = KINDS, sample_size = 100)]
fn wire_write(bencher: Bencher<'_, '_>, kind: &str) {
    let (messages, mut out) = (messages(kind), Vec::new());
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        out.clear();
        black_box(&messages).iter().for_each(|message| message.write(&mut out));
        black_box(&out).len()
    });
}

/// A peer after its handshake.
fn peer() -> Peer {
    let (info_hash, peer_id) = (Sha1Hash([7; 20]), *b"-ST0010-123456789012");
    let theirs = Handshake { reserved: Reserved::new(true, true, false), info_hash, peer_id }.to_bytes();
    let mut peer = Peer::dialled(Time::ZERO, Hello { info_hash, peer_id, dht: false });
    peer.set_pieces(PIECES);
    assert!(matches!(peer.handle_input(Time::ZERO, &mut &theirs[..]), Ok(Some(Event::Handshake(_)))));
    peer
}

/// One iteration: 128 blocks are asked of a peer, and its answers step through its machine.
#[divan::bench]
fn peer_answers(bencher: Bencher<'_, '_>) {
    let (mut peer, mut now, bytes) = (peer(), Time::ZERO, stream("piece"));
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        now += Duration::from_millis(1);
        blocks().for_each(|block| peer.request(now, block));
        peer.advance(now, peer.outbuf().encoded_len());
        let (mut input, mut landed) = (black_box(&bytes[..]), 0);
        while let Some(event) = peer.handle_input(now, &mut input).unwrap() {
            landed += u32::from(matches!(black_box(event), Event::BlockBytes { last: true, .. }));
        }
        assert_eq!(landed, MESSAGES);
    });
}

/// So many of each thousand pieces.
fn field(rng: &mut Rng, per_mille: u32) -> Bitfield {
    let mut field = Bitfield::new(PIECES);
    (0..PIECES).filter(|_| rng.u32() % 1000 < per_mille).for_each(|piece| _ = field.set(piece));
    field
}

/// What the peers have, from nothing to nearly all of it.
static FIELDS: LazyLock<Vec<Bitfield>> = LazyLock::new(|| {
    let mut rng = Rng::from_number(1);
    (0..PEERS).map(|peer| field(&mut rng, peer * 1000 / PEERS)).collect()
});

/// The picker of a torrent of which one piece in a hundred is here, with its buckets filled.
fn picker() -> Picker {
    let geometry = Geometry::new(u64::from(PIECES) * u64::from(BLOCK_LEN), BLOCK_LEN).unwrap();
    let layout = Layout::new(FileList::new([("a".into(), geometry.total_len(), false)]).into(), geometry);
    let mut rng = Rng::from_number(2);
    let mut picker = Picker::new(&layout, &field(&mut rng, 10), false, rng);
    FIELDS.iter().for_each(|field| picker.add_field(field));
    assert!(picker.pick(&Bitfield::full(PIECES), &[], |_| true).is_some());
    picker
}

/// One iteration: a peer with so many of each thousand pieces joins, a piece is picked for it, and it leaves.
#[divan::bench(args = [1, 100, 500])]
fn picker_join_and_leave(bencher: Bencher<'_, '_>, per_mille: u32) {
    let (mut picker, field) = (picker(), field(&mut Rng::from_number(3), per_mille));
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        picker.add_field(black_box(&field));
        let picked = picker.pick(&field, &[], |_| true);
        picker.remove_field(&field);
        picked
    });
}

/// One iteration: some peer got one more piece; each piece has its turn.
#[divan::bench(sample_size = 1000)]
fn picker_have(bencher: Bencher<'_, '_>) {
    let mut picker = picker();
    let mut order: Vec<u32> = (0..PIECES).collect();
    Rng::from_number(4).shuffle(&mut order);
    let mut pieces = order.iter().cycle();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| picker.add_piece(Piece(*pieces.next().unwrap())));
}

/// One iteration: ten pieces are picked and started for a peer with so many of each thousand, and then given back.
#[divan::bench(args = [1, 10, 500], sample_size = 20)]
fn picker_pick(bencher: Bencher<'_, '_>, per_mille: u32) {
    let (mut picker, field) = (picker(), field(&mut Rng::from_number(5), per_mille));
    bencher.counter(ItemsCount::new(10_u32)).bench_local(|| {
        let picked: [Piece; 10] = std::array::from_fn(|_| {
            let piece = picker.pick(black_box(&field), &[], |_| true).unwrap();
            picker.started(piece);
            piece
        });
        picked.iter().for_each(|piece| picker.returned(*piece));
    });
}

/// A peer that wants something.
fn standing(rng: &mut Rng, at: u32) -> Standing {
    Standing {
        conn: ConnId::from_bits(u64::from(at)),
        interested: true,
        unchoked: false,
        snubbed: false,
        down_rate: rng.below(1 << 20),
        up_rate: rng.below(1 << 20),
        uploaded: rng.below(1 << 30),
        downloaded: rng.below(1 << 30),
        pieces: rng.u32() % PIECES,
        connected_at: Time::ZERO,
    }
}

/// One iteration: a round among 500 peers over 100 slots, which are as many as there ever are.
#[divan::bench(args = ["downloading", "seeding"])]
fn choker_round(bencher: Bencher<'_, '_>, state: &str) {
    let mut rng = Rng::from_number(1);
    let mut peers: Vec<Standing> = (0..PEERS).map(|at| standing(&mut rng, at)).collect();
    let mut choker = Choker::new(UploadSlots::Fixed(100), BLOCK_LEN, rng);
    let (mut now, mut changes) = (Time::from_secs(600), Vec::new());
    bencher.counter(ItemsCount::new(PEERS)).bench_local(|| {
        now += ROUND;
        choker.round(now, state == "seeding", 10 << 20, black_box(&peers), &mut changes);
        for change in changes.drain(..) {
            let (Change::Choke(conn) | Change::Unchoke(conn)) = change;
            peers[conn.to_bits() as usize].unchoked = change == Change::Unchoke(conn);
        }
    });
}

/// One iteration: a piece of 1 MiB.
#[divan::bench(args = HASHES)]
fn hash_one(bencher: Bencher<'_, '_>, kind: HashKind) {
    let piece = vec![7; HASHED_LEN];
    bencher.counter(BytesCount::of_slice(&piece)).bench_local(|| {
        let mut hasher = kind.hasher();
        hasher.update(black_box(&piece));
        hasher.finish()
    });
}

/// One iteration: four pieces of 1 MiB each, side by side.
#[divan::bench(args = HASHES)]
fn hash_side_by_side(bencher: Bencher<'_, '_>, kind: HashKind) {
    let pieces: [Vec<u8>; LANES] = std::array::from_fn(|lane| vec![lane as u8; HASHED_LEN]);
    bencher.counter(BytesCount::new(LANES * HASHED_LEN)).bench_local(|| {
        let mut lanes = PieceLanes::new(kind);
        lanes.update(black_box(&pieces).each_ref().map(Vec::as_slice));
        lanes.finish()
    });
}

/// A deadline within the next two minutes.
fn soon(rng: &mut Rng, now: Time) -> Time {
    now + Duration::from_millis(rng.below(120_000))
}

/// One iteration: the earliest of 10,000 keys is taken, and set anew.
#[divan::bench(sample_size = 1000)]
fn timers_pop_and_set(bencher: Bencher<'_, '_>) {
    let (mut rng, mut timers) = (Rng::from_number(1), Timers::default());
    (0..TIMERS).for_each(|key| timers.set(key, soon(&mut rng, Time::ZERO)));
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        let now = timers.next();
        let key = timers.pop(now).unwrap();
        timers.set(key, soon(&mut rng, now));
    });
}

/// A query of a node at an address of its own.
fn ask(dht: &mut Dht, number: u32, query: krpc::Query<'_>, out: &mut Vec<u8>) {
    let id = Sha1Hash::of(&number.to_be_bytes());
    let body = krpc::Body::Query { id, read_only: true, query };
    krpc::Message { transaction: b"tt", seen_as: None, version: None, body }.write(out);
    assert!(dht.handle_packet(Time::ZERO, peer_addr(number), out));
    assert!(dht.poll_transmit(out).is_some(), "it answers");
}

fn peer_addr(number: u32) -> SocketAddr {
    SocketAddr::from(((0x0a00_0001 + number).to_be_bytes(), 6881))
}

fn swarm(number: u32) -> Sha1Hash {
    Sha1Hash::of(&[&b"swarm"[..], &number.to_be_bytes()].concat())
}

/// A DHT node with a full table that knows 100,000 peers.
fn dht() -> Dht {
    let mut dht = Dht::new(dht::Settings::default(), [true, false], Rng::from_number(1));
    let node = |number: u32| krpc::Node { id: Sha1Hash::of(&number.to_be_bytes()), addr: peer_addr(number) };
    let nodes: Vec<krpc::Node> = (0..100_000).map(node).collect();
    dht.restore(Time::ZERO, false, Sha1Hash([0x5a; 20]), &nodes);
    let mut out = Vec::new();
    for number in 0..SWARMS * SWARM_PEERS {
        let (info_hash, want) = (swarm(number % SWARMS), krpc::Want::default());
        ask(&mut dht, number, krpc::Query::GetPeers { info_hash, want, no_seeds: false, scrape: false }, &mut out);
        let answer = out.clone();
        let krpc::Body::Response { response, .. } = krpc::Message::parse(&answer).unwrap().body else { unreachable!() };
        let token = response.token.unwrap();
        ask(&mut dht, number, krpc::Query::AnnouncePeer { info_hash, port: None, seed: false, token }, &mut out);
    }
    assert_eq!(dht.stored(), (SWARMS as usize, (SWARMS * SWARM_PEERS) as usize, 0));
    dht
}

/// One iteration: a query of a stranger is read and answered, by a node with a full table that knows 100,000 peers.
#[divan::bench(args = ["ping", "find_node", "get_peers"], sample_size = 1000)]
fn dht_answer(bencher: Bencher<'_, '_>, what: &str) {
    let (mut dht, mut out, mut number) = (dht(), Vec::new(), 0);
    let want = krpc::Want::default();
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        number = (number + 1) % SWARMS;
        let query = match what {
            "ping" => krpc::Query::Ping,
            "find_node" => krpc::Query::FindNode { target: swarm(number), want },
            _ => krpc::Query::GetPeers { info_hash: swarm(number), want, no_seeds: false, scrape: false },
        };
        ask(&mut dht, number, query, &mut out);
        out.len()
    });
}

/// The peers of a torrent, each of which is told of the others, and how many bytes they were told at `now`.
fn tell_all(now: Time, contacts: &mut Contacts, peers: &mut [(Place, Pex)]) -> usize {
    let mut payload = Vec::new();
    for (place, pex) in peers {
        contacts.set_flags(*place, Flags::SEED);
        if let Some(message) = pex.poll_transmit(now, contacts, Some(*place), Reach::Network) {
            message.write(&mut payload);
        }
    }
    payload.len()
}

/// One iteration: a second of a torrent with so many peers, in which nobody is told anything, or all are told of fifty others
/// and that fifty have left.
#[divan::bench(args = [(100, false), (100, true), (200, false), (200, true)])]
fn pex_second(bencher: Bencher<'_, '_>, (count, news): (u32, bool)) {
    let peers = || {
        let mut contacts = Contacts::default();
        let enter = |contacts: &mut Contacts, number| {
            contacts.enter(Contact { addr: peer_addr(number), flags: Flags::REACHABLE }).unwrap()
        };
        let places: Vec<Place> = (0..count).map(|number| enter(&mut contacts, number)).collect();
        let mut peers: Vec<(Place, Pex)> = places.iter().map(|&place| (place, Pex::new(Time::ZERO))).collect();
        for minute in 1..10 {
            tell_all(Time::from_secs(60 * minute), &mut contacts, &mut peers);
        }
        if news {
            places[..50].iter().for_each(|&place| contacts.leave(place));
            peers.drain(..50).for_each(|(_, mut pex)| pex.forget(&mut contacts));
            (1000..1050).for_each(|number| _ = enter(&mut contacts, number));
        }
        (contacts, peers)
    };
    bencher.with_inputs(peers).bench_local_refs(|(contacts, peers)| {
        let told = tell_all(Time::from_secs(3600), contacts, peers);
        assert_eq!(told > 0, news);
    });
}

/// One iteration: a list of so many ranges in the dat form is read, and put in order.
#[divan::bench(args = [300_000])]
fn blocklist(bencher: Bencher<'_, '_>, ranges: u32) {
    let text: String = (0..ranges)
        .map(|number| {
            // In no order, and each apart from the others.
            let first = number.wrapping_mul(2_654_435_761) & !0xff;
            let [a, b, c, _] = first.to_be_bytes();
            format!("{a:03}.{b:03}.{c:03}.000 - {a:03}.{b:03}.{c:03}.099 , 000 , Somebody, number {number}\n")
        })
        .collect();
    bencher.bench_local(|| {
        let parsed = swarmtorrent::codec::blocklist::parse(text.as_bytes());
        assert_eq!(parsed.bad, 0);
        swarmtorrent::base::blocklist::Blocklist::new(parsed.ranges).len()
    });
}
