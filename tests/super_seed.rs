//! How much the first seed sends until everybody else has everything between them: as usual, and as a super-seed (BEP 16).
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::SocketAddr;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;

use swarmtorrent::base::config::{Config, Encryption};
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::time::Time;
use swarmtorrent::engine::Engine;
use swarmtorrent::sim::World;
use swarmtorrent::sim::network::Network;
use swarmtorrent::sim::storage::{MemoryStorage, Truth};
use swarmtorrent::sim::tracker::Tracker;
use swarmtorrent::torrent::command::{AddOptions, Answer, Command, Source, Which};
use swarmtorrent::torrent::create::{Creator, Notes, Profile};
use swarmtorrent::torrent::snapshot::{PieceState, State};

use common::{Daemon, Running, free_port, has_libtorrent, make, noise, wait};

const LEN: usize = 8_000_000;
const PIECE_LEN: u32 = 64 * 1024;
const LEECHERS: u8 = 8;

fn ask(world: &mut World, node: usize, command: Command) -> Answer {
    let now = world.now();
    let answer = world.nodes[node].engine().unwrap().handle_command(now, command);
    world.stir(node);
    answer.unwrap()
}

fn set(world: &mut World, node: usize, key: &str, value: &str) {
    ask(world, node, Command::Set { which: Which::All, key: key.to_owned(), value: value.to_owned() });
}

/// A swarm of one seed and eight that want everything, a Mbit/s up each; how often the content was sent by the seed until
/// the others have all of it between them, and how long until each of them has.
fn sent(super_seed: bool, sequential: bool) -> (f64, u64) {
    let content = noise(99, LEN);
    let tracker = SocketAddr::from(([10, 0, 0, 200], 6969));
    let notes = Notes { name: b"content".to_vec(), trackers: vec![format!("udp://{tracker}")], ..Notes::default() };
    let mut creator = Creator::new(Profile::Compatible, PIECE_LEN, vec![(vec![], LEN as u64)], notes);
    creator.update(&content);
    let metainfo = creator.finish().unwrap().1;
    let truth = Arc::new(Truth::new("content".into(), content, PIECE_LEN));
    let mut world = World::new(Network::default(), Rng::from_number(7), Time::NEVER);
    world.add_tracker("tracker", Tracker::new(&[tracker], Rng::from_number(8)));
    for number in 1..=LEECHERS + 1 {
        let listen = vec![SocketAddr::from(([10, 0, 0, number], 6881))];
        let config = Config { listen, encryption: Encryption::Allow, ..Config::default() };
        let mut storage = MemoryStorage::default();
        storage.know(&truth);
        let mut engine = Engine::new(config, 0, Rng::from_number(number.into()), storage);
        let options = AddOptions { verify: Some(number == 1), sequential, ..AddOptions::default() };
        let add = Command::Add { source: Source::Metainfo(metainfo.clone()), options };
        engine.handle_command(Time::ZERO, add).unwrap();
        if number == 1 {
            let store = engine.storage().ids().next().unwrap();
            engine.storage().fill(store);
        }
        let node = world.add_engine("node", engine);
        world.set_rates(node, 1_000_000, 125_000);
    }
    if super_seed {
        set(&mut world, 1, "super-seed", "yes");
    }
    let nodes = 2..usize::from(LEECHERS) + 2;
    let mut uploaded = 0;
    let has_all = |world: &mut World| {
        let maps = nodes.clone().map(|node| match ask(world, node, Command::Pieces(Which::All)) {
            Answer::Pieces(states) => states,
            other => panic!("{other:?}"),
        });
        let maps: Vec<Vec<PieceState>> = maps.collect();
        (0..maps[0].len()).all(|piece| maps.iter().any(|map| map[piece] == PieceState::Have))
    };
    let shown = |world: &mut World, node| match ask(world, node, Command::Show(Which::All)) {
        Answer::Show(row) => *row,
        other => panic!("{other:?}"),
    };
    let mut end = Time::ZERO;
    while end < Time::from_secs(2000) {
        end += std::time::Duration::from_secs(1);
        world.run(end, |_| false);
        if uploaded == 0 && has_all(&mut world) {
            uploaded = shown(&mut world, 1).uploaded;
        }
        if uploaded > 0 && nodes.clone().all(|node| shown(&mut world, node).state == State::Seeding) {
            break;
        }
    }
    if super_seed {
        let row = shown(&mut world, 1).settings.into_iter().find(|row| row.key == "super-seed").unwrap();
        assert_eq!(row.value, "no", "it has ended by itself");
    }
    (uploaded as f64 / LEN as f64, end.as_secs())
}

#[test]
fn a_super_seed_sends_little_more_than_everything_once() {
    for sequential in [false, true] {
        let [usual, shows] = [false, true].map(|super_seed| sent(super_seed, sequential));
        println!(
            "sequential {sequential}: usually {usual:?}, as a super-seed {shows:?} (times the content, s to the end)"
        );
        assert!((0.99..1.15).contains(&shows.0), "{shows:?}");
        assert!(shows.1 < 2 * usual.1, "{shows:?} after {usual:?}");
        assert!(!sequential || usual.0 > shows.0, "{shows:?} after {usual:?}");
    }
}

/// For libtorrent's Python: downloads a torrent from and with others at these ports, and ends when it has all.
const LEECHER: &str = "
import libtorrent as lt, sys, time
torrent, save, port = sys.argv[1:4]
s = lt.session({'listen_interfaces': '127.0.0.1:' + port, 'enable_dht': False, 'enable_lsd': False, 'enable_upnp': False,
    'enable_natpmp': False, 'enable_outgoing_utp': False, 'enable_incoming_utp': False, 'allow_multiple_connections_per_ip': True,
    'upload_rate_limit': 1000000, 'local_service_announce_interval': 1000, 'unchoke_slots_limit': 8})
p = lt.add_torrent_params(); p.ti = lt.torrent_info(torrent); p.save_path = save
h = s.add_torrent(p); h.resume()
for other in sys.argv[4:]:
    h.connect_peer(('127.0.0.1', int(other)))
while True:
    time.sleep(0.1)
    if h.status().is_seeding:
        open(save + '/done', 'w').close()
        time.sleep(1000)
";

#[test]
fn libtorrent_gets_everything_from_a_super_seed() {
    if !has_libtorrent() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("seed");
    std::fs::create_dir_all(home.join("downloads")).unwrap();
    std::fs::write(home.join("downloads/content"), noise(7, LEN)).unwrap();
    let (_, torrent, _) = make(&home.join("downloads/content"), temp.path(), &["--piece-length", "65536"]);
    let seed = Daemon::start(&home, "[limits]\nup = \"2M\"\n");
    seed.add(&torrent, "paused=yes");
    wait("it is checked", 20, || seed.torrent()["progress"] == 1.0);
    assert_eq!(seed.ask("set all super-seed yes"), ["OK"]);
    seed.ask("resume all");
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let leechers: Vec<Running> = (0..3)
        .map(|number| {
            let save = temp.path().join(format!("leecher{number}"));
            std::fs::create_dir_all(&save).unwrap();
            let others = ports[..number].iter().copied().chain([seed.listen.port()]).map(|port| port.to_string());
            let child = Process::new("python3")
                .args(["-c", LEECHER, torrent.to_str().unwrap(), save.to_str().unwrap(), &ports[number].to_string()])
                .args(others)
                .stdout(Stdio::null())
                .spawn();
            Running(child.unwrap())
        })
        .collect();
    wait("all have it", 120, || (0..3).all(|number| temp.path().join(format!("leecher{number}/done")).exists()));
    for number in 0..3 {
        assert!(std::fs::read(temp.path().join(format!("leecher{number}/content"))).unwrap() == noise(7, LEN));
    }
    wait("it has ended by itself", 10, || seed.ask("get all super-seed")[0] == "super-seed: no");
    let uploaded = seed.torrent()["uploaded"].as_u64().unwrap();
    println!("three of libtorrent's got it for {:.2} times the content", uploaded as f64 / LEN as f64);
    assert!(uploaded < 2 * LEN as u64, "{uploaded}");
    drop(leechers);
}
