//! Whole swarms on a virtual clock: the engine's second driver moves torrents, repeatably.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use swarmtorrent::base::config::{Config, Encryption};
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::storage::{Fault, FaultKind, Job};
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::resume::Record;
use swarmtorrent::codec::udp_tracker::AnnounceEvent;
use swarmtorrent::engine::{Effect, Engine};
use swarmtorrent::sim::World;
use swarmtorrent::sim::network::Network;
use swarmtorrent::sim::storage::{MemoryStorage, Truth};
use swarmtorrent::sim::tracker::Tracker;
use swarmtorrent::torrent::command::{AddOptions, Answer, Command, Source, Which};
use swarmtorrent::torrent::create::{Creator, Notes, Profile};
use swarmtorrent::torrent::snapshot::{State, Summary};

const PIECE_LEN: u32 = 64 * 1024;
const RATE_BYTES: u64 = 1_250_000;

fn addr(number: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], port))
}

/// Content and the bytes of a torrent file that describes it.
fn torrent(len: usize, tracker: &str) -> (Arc<Truth>, Vec<u8>) {
    torrent_with(len, Notes { trackers: vec![tracker.into()], ..Notes::default() })
}

fn torrent_with(len: usize, notes: Notes) -> (Arc<Truth>, Vec<u8>) {
    let mut content = vec![0; len];
    Rng::from_number(99).fill(&mut content);
    let notes = Notes { name: b"content".to_vec(), ..notes };
    let mut creator = Creator::new(Profile::Compatible, PIECE_LEN, vec![(vec![], len as u64)], notes);
    creator.update(&content);
    let metainfo = creator.finish().expect("it is within all limits").1;
    (Arc::new(Truth::new("content".into(), content, PIECE_LEN)), metainfo)
}

/// An empty world, the first node of which is its tracker.
fn empty_world(trackers: &[SocketAddr]) -> World {
    let mut world = World::new(Network::default(), Rng::from_number(7), Time::NEVER);
    world.add_tracker("tracker", Tracker::new(trackers, Rng::from_number(8)));
    world
}

/// Adds a node that has the content or wants it.
fn add(world: &mut World, config: Config, rng: Rng, truth: &Arc<Truth>, metainfo: &[u8], has_it: bool) -> usize {
    let mut storage = MemoryStorage::default();
    storage.know(truth);
    let mut engine = Engine::new(config, 0, rng, storage);
    let options = AddOptions { verify: Some(has_it), ..AddOptions::default() };
    let add = Command::Add { source: Source::Metainfo(metainfo.to_vec()), options };
    engine.handle_command(Time::ZERO, add).expect("a good torrent");
    if has_it {
        let store = engine.storage().ids().next().expect("the torrent's content");
        engine.storage().fill(store);
    }
    let node = world.add_engine("node", engine);
    world.set_rates(node, RATE_BYTES, RATE_BYTES);
    node
}

/// A world with a tracker, a seeder and so many leechers.
fn world(seed: u64, leechers: u8, len: usize, config: &Config) -> World {
    let (truth, metainfo) = torrent(len, "udp://10.0.0.200:6969");
    let mut world = empty_world(&[addr(200, 6969)]);
    let mut rng = Rng::from_number(seed);
    for number in 0..=leechers {
        let config = Config { listen: vec![addr(number + 1, 6881)], encryption: Encryption::Allow, ..config.clone() };
        add(&mut world, config, rng.fork("node"), &truth, &metainfo, number == 0);
    }
    world
}

fn command(world: &mut World, node: usize, command: Command) -> Answer {
    let now = world.now();
    let answer = world.nodes[node].engine().expect("it is up").handle_command(now, command);
    world.stir(node);
    answer.expect("a good command")
}

fn tracker(world: &mut World) -> &mut Tracker {
    world.nodes[0].tracker().expect("the first node")
}

fn summary(world: &mut World, node: usize) -> Summary {
    match command(world, node, Command::Show(Which::All)) {
        Answer::Show(summary) => *summary,
        other => panic!("{other:?}"),
    }
}

fn all_seed(world: &mut World) -> bool {
    (1..world.nodes.len()).all(|node| summary(world, node).state == State::Seeding)
}

#[test]
fn two_nodes_and_a_tracker_move_a_torrent() {
    let mut world = world(1, 1, 3_000_001, &Config::default());
    assert!(world.run(Time::from_secs(60), all_seed), "not done after {:?}", world.now());
    // Three million bytes at 1.25 million a second.
    assert!(world.now() < Time::from_secs(20), "{:?}", world.now());
    let storage = world.nodes[2].storage().expect("it has a disk");
    let store = storage.ids().next().expect("the torrent's content");
    assert!(storage.is_whole(store));
    let leecher = summary(&mut world, 2);
    assert_eq!((leecher.downloaded, leecher.wasted), (3_000_001, 0));
    assert_eq!(summary(&mut world, 1).uploaded, 3_000_001);
    world.run(Time::from_secs(120), |_| false);
    let events = tracker(&mut world).events;
    assert_eq!(events[AnnounceEvent::Started as usize], 2);
    assert_eq!(events[AnnounceEvent::Completed as usize], 1, "only who downloaded it completed it");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let trace = |seed| {
        let mut world = world(seed, 3, 1_000_000, &Config::default());
        assert!(world.run(Time::from_secs(120), all_seed));
        (world.trace_hash(), world.now())
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5).0, trace(6).0);
}

#[test]
fn leechers_help_one_another() {
    let mut world = world(2, 8, 4_000_000, &Config::default());
    assert!(world.run(Time::from_secs(300), all_seed), "not done after {:?}", world.now());
    let from_seeder = summary(&mut world, 1).uploaded;
    assert!(from_seeder < 8 * 4_000_000 / 2, "the seeder gave {from_seeder} bytes itself");
}

#[test]
fn two_that_dial_one_another_at_the_same_moment_keep_one_connection() {
    for seed in 0..20 {
        let mut world = world(seed, 1, 1_000_000, &Config::default());
        world.run(Time::from_secs(3), |_| false);
        let peers = [1, 2].map(|node| summary(&mut world, node).peers);
        let is_done = all_seed(&mut world);
        assert!(peers == [1, 1] || is_done, "seed {seed}: {peers:?}");
    }
}

#[test]
fn a_rate_limit_is_exact_within_two_percent() {
    let config = Config { up_rate_bytes: 200_000, ..Config::default() };
    let mut world = world(3, 1, 4_000_000, &config);
    assert!(world.run(Time::from_secs(60), |world| summary(world, 2).downloaded > 100_000));
    let (start, before) = (world.now(), summary(&mut world, 2).downloaded);
    world.run(start + Duration::from_secs(10), |_| false);
    let moved = summary(&mut world, 2).downloaded - before;
    assert!((1_960_000..=2_040_000).contains(&moved), "{moved} bytes in ten seconds");
}

#[test]
fn a_shutdown_says_goodbye_and_a_restart_claims_what_was_there() {
    let mut world = world(4, 1, 2_000_000, &Config::default());
    assert!(world.run(Time::from_secs(60), all_seed));
    let now = world.now();
    command(&mut world, 2, Command::Shutdown);
    assert!(world.run(now + Duration::from_secs(6), |world| world.nodes[2].exited));
    assert_eq!(tracker(&mut world).events[AnnounceEvent::Stopped as usize], 1);
    let saved = world.nodes[2].saved.clone();
    let find =
        |word: &str| saved.iter().find(|(name, _)| name.to_string_lossy().contains(word)).map(|(_, bytes)| bytes);
    let info_hash = world.nodes[2].engine().expect("it has one").views().next().expect("a torrent").info_hash;
    let storage = std::mem::take(world.nodes[2].storage().expect("it has a disk"));
    let mut engine = Engine::new(Config::default(), 0, Rng::from_number(9), storage);
    assert!(find(".meta").is_some());
    engine.restore(Time::ZERO, info_hash, find("torrent ").map(Vec::as_slice)).expect("good");
    engine.handle_restored(Time::ZERO);
    let Ok(Answer::Show(summary)) = engine.handle_command(Time::ZERO, Command::Show(Which::All)) else { panic!() };
    assert_eq!((summary.have_bytes, summary.downloaded, summary.state), (2_000_000, 2_000_000, State::Seeding));
}

/// Ends all jobs that the engine wants with `result`; the records and files among them that are to go.
fn end_jobs(engine: &mut Engine<MemoryStorage>, now: Time, result: &Result<(), Fault>) -> usize {
    let mut erased = 0;
    while let Some(effect) = engine.poll_effect() {
        if let Effect::Job(id, job) = effect {
            erased += usize::from(matches!(job, Job::Erase { .. } | Job::Record { value: None, .. }));
            engine.handle_job(now, id, result.clone());
        }
    }
    erased
}

#[test]
fn removal_that_cannot_be_saved_is_tried_again() {
    let config = Config { dht: false, lsd: false, ..Config::default() };
    let mut engine = Engine::new(config, 0, Rng::from_number(1), MemoryStorage::default());
    let add = Command::Add { source: Source::Link("b".repeat(40)), options: AddOptions::default() };
    engine.handle_command(Time::ZERO, add).unwrap();
    end_jobs(&mut engine, Time::ZERO, &Ok(()));
    engine.handle_command(Time::ZERO, Command::Remove { which: Which::All, data: false }).unwrap();
    let ack = engine.acknowledge().expect("nothing of it is on the disk yet");
    let full = Fault { kind: FaultKind::Full, message: "no space".to_owned() };
    assert_eq!(end_jobs(&mut engine, Time::ZERO, &Err(full)), 2);
    let (given, result) = engine.poll_ack().expect("the jobs have ended");
    assert!(given == ack && result.unwrap_err().message.contains("no space"));
    assert_eq!(engine.unsaved().count(), 1);
    engine.handle_timeout(Time::from_secs(9));
    assert_eq!(end_jobs(&mut engine, Time::from_secs(9), &Ok(())), 0);
    engine.handle_timeout(Time::from_secs(10));
    assert_eq!(end_jobs(&mut engine, Time::from_secs(10), &Ok(())), 2);
    assert_eq!(engine.unsaved().count(), 0);
}

#[test]
fn acknowledged_change_is_on_the_disk_though_the_download_goes_on() {
    let mut world = world(6, 1, 8_000_000, &Config::default());
    let mut rng = Rng::from_number(12);
    let mut slowest = Duration::ZERO;
    for round in 0..100 {
        let until = world.now() + Duration::from_millis(rng.below(200));
        world.run(until, |_| false);
        let label = format!("label {round}");
        let (key, value) = ("label".to_owned(), label.clone());
        let begin = world.now();
        command(&mut world, 2, Command::Set { which: Which::All, key, value });
        let ack = world.nodes[2].engine().unwrap().acknowledge().expect("the change is not on the disk yet");
        let is_given = |world: &mut World| {
            let given = world.nodes[2].engine().unwrap().poll_ack();
            given.inspect(|given| assert_eq!(*given, (ack, Ok(())))).is_some()
        };
        assert!(world.run(begin + Duration::from_secs(1), is_given), "round {round}");
        slowest = slowest.max(world.now().since(begin));
        // What a crash right now would leave.
        let saved = &world.nodes[2].saved;
        let record = saved.iter().find(|(name, _)| name.to_string_lossy().starts_with("torrent "));
        assert_eq!(Record::parse(record.unwrap().1).unwrap().label, label);
    }
    // A job takes 5 ms: one record that was on its way, and then the torrent's own; no wait for a sync of the content.
    assert!(slowest <= Duration::from_millis(15), "{slowest:?}");
    assert!(world.run(Time::from_secs(60), all_seed));
}

#[test]
fn seeds_that_sleep_wake_for_whoever_comes() {
    let stores = |world: &mut World| -> Vec<bool> {
        [1, 2].map(|node| world.nodes[node].engine().unwrap().views().all(|view| view.store.is_some())).to_vec()
    };
    let mut world = world(4, 1, 2_000_000, &Config::default());
    assert!(world.run(Time::from_secs(60), all_seed));
    let now = world.now();
    world.run(now + Duration::from_secs(30), |_| false);
    assert_eq!(stores(&mut world), [true, true]);
    world.run(now + Duration::from_secs(200), |_| false);
    assert_eq!(stores(&mut world), [false, false], "nobody wanted anything for a minute");
    let (truth, metainfo) = torrent(2_000_000, "udp://10.0.0.200:6969");
    let config = Config { listen: vec![addr(3, 6881)], ..Config::default() };
    let third = add(&mut world, config, Rng::from_number(3), &truth, &metainfo, false);
    let now = world.now();
    assert!(world.run(now + Duration::from_secs(120), |world| summary(world, third).state == State::Seeding));
    // Those who have everything part again, and sleep again.
    let now = world.now();
    world.run(now + Duration::from_secs(200), |_| false);
    assert_eq!(stores(&mut world), [false, false]);
    let events = tracker(&mut world).events;
    assert_eq!(events[AnnounceEvent::Started as usize], 3, "who wakes begins nothing anew");
    // What it gave and how long it seeded is kept although it sleeps when it ends.
    let Answer::List(rows) = command(&mut world, 1, Command::List { states: Vec::new(), label: None }) else {
        panic!()
    };
    command(&mut world, 1, Command::Shutdown);
    let now = world.now();
    assert!(world.run(now + Duration::from_secs(6), |world| world.nodes[1].exited));
    let (_, record) =
        world.nodes[1].saved.iter().find(|(name, _)| name.to_string_lossy().contains("torrent ")).unwrap();
    let record = Record::parse(record).expect("a good record");
    assert!(rows[0].uploaded >= 2_000_000);
    assert_eq!(record.uploaded, rows[0].uploaded);
    assert!(record.seeded > Some(300), "{:?} s", record.seeded);
}

/// A node at each of these addresses, all of which know the tracker's name; the first one seeds.
fn dual_world(nodes: &[&[SocketAddr]], trackers: &[SocketAddr], known: &[SocketAddr]) -> World {
    let (truth, metainfo) = torrent(500_000, "udp://tracker.sim:6969");
    let mut world = empty_world(trackers);
    let hosts: Vec<_> = known.iter().map(|addr| ("tracker.sim".to_owned(), addr.ip())).collect();
    for (number, listen) in nodes.iter().enumerate() {
        let config = Config { listen: listen.to_vec(), hosts: hosts.clone(), ..Config::default() };
        let seed = u64::try_from(number).expect("few nodes");
        add(&mut world, config, Rng::from_number(seed), &truth, &metainfo, number == 0);
    }
    world
}

fn addr6(number: u16, port: u16) -> SocketAddr {
    SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, number], port))
}

#[test]
fn a_tracker_of_both_families_brings_peers_of_both() {
    let both = [addr(200, 6969), addr6(200, 6969)];
    let seeder = [addr(1, 6881), addr6(1, 6881)];
    let nodes: [&[SocketAddr]; 3] = [&seeder, &[addr(2, 6881)], &[addr6(3, 6881)]];
    let mut world = dual_world(&nodes, &both, &both);
    assert!(world.run(Time::from_secs(60), all_seed), "not done after {:?}", world.now());
    let events = tracker(&mut world).events;
    assert_eq!(events[AnnounceEvent::Started as usize], 4, "the seeder over each, the others over their own");
}

#[test]
fn a_family_in_which_the_tracker_is_silent_stops_nothing() {
    let (v4, v6) = (addr(200, 6969), addr6(200, 6969));
    let (first, second) = ([addr(1, 6881), addr6(1, 6881)], [addr(2, 6881), addr6(2, 6881)]);
    let mut world = dual_world(&[&first, &second], &[v4], &[v4, v6]);
    assert!(world.run(Time::from_secs(10), all_seed), "not done after {:?}", world.now());
    world.run(Time::from_secs(60), |_| false);
    let now = world.now();
    let rows = match command(&mut world, 2, Command::Trackers(Which::All)) {
        Answer::Trackers(rows) => rows,
        other => panic!("{other:?}"),
    };
    assert_eq!((rows[0].state, rows[0].message.as_deref()), ("working", None));
    command(&mut world, 2, Command::Shutdown);
    assert!(world.run(now + Duration::from_secs(1), |world| world.nodes[2].exited), "the silence is not waited for");
}

#[test]
fn a_goodbye_waits_for_no_family_in_which_the_tracker_is_silent() {
    let (v4, v6) = (addr(200, 6969), addr6(200, 6969));
    let (first, second) = ([addr(1, 6881), addr6(1, 6881)], [addr(2, 6881), addr6(2, 6881)]);
    let mut world = dual_world(&[&first, &second], &[v4], &[v4, v6]);
    assert!(world.run(Time::from_secs(10), all_seed), "the first announce is still tried over IPv6");
    let now = world.now();
    command(&mut world, 2, Command::Shutdown);
    assert!(world.run(now + Duration::from_secs(1), |world| world.nodes[2].exited));
    assert_eq!(tracker(&mut world).events[AnnounceEvent::Stopped as usize], 1);
}

#[test]
fn a_paused_torrent_knows_its_swarm_by_a_scrape_every_half_hour() {
    let both = [addr(200, 6969)];
    let mut world = dual_world(&[&[addr(1, 6881)], &[addr(2, 6881)]], &both, &both);
    command(&mut world, 2, Command::Pause(Which::All));
    world.run(Time::from_secs(2 * 3600), |_| false);
    let scrapes = tracker(&mut world).scrapes;
    assert!((3..=4).contains(&scrapes), "{scrapes} scrapes in two hours");
    let rows = match command(&mut world, 2, Command::Trackers(Which::All)) {
        Answer::Trackers(rows) => rows,
        other => panic!("{other:?}"),
    };
    assert_eq!((rows[0].state, rows[0].leechers), ("idle", Some(1)));
}

/// A world without a tracker, of a seeder and so many leechers who know only the seeder; `silent` of them have no exchange. How
/// many peers each leecher has after half a minute, and how many messages of exchange all of them sent.
fn star(leechers: u8, private: bool, silent: u8) -> (Vec<u32>, u64) {
    let (truth, metainfo) = torrent_with(40_000_000, Notes { private, ..Notes::default() });
    let mut world = empty_world(&[addr(200, 6969)]);
    for number in 0..=leechers {
        let pex = number <= leechers - silent;
        let listen = vec![addr(number + 1, 6881)];
        let config = Config { listen, pex, encryption: Encryption::Allow, ..Config::default() };
        let node = add(&mut world, config, Rng::from_number(number.into()), &truth, &metainfo, number == 0);
        if number > 0 {
            let connect = Command::Connect { which: Which::All, host: addr(1, 0).ip().to_string(), port: 6881 };
            command(&mut world, node, connect);
        }
    }
    world.run(Time::from_secs(30), |_| false);
    let mut sent = 0;
    for node in 1..world.nodes.len() {
        let Answer::Stats(rows) = command(&mut world, node, Command::Stats) else { panic!("counters") };
        sent += rows.iter().find(|(name, _)| name == "pex.messages_out").expect("it is counted").1;
    }
    ((2..world.nodes.len()).map(|node| summary(&mut world, node).peers).collect(), sent)
}

#[test]
fn who_knows_one_peer_meets_all_others_by_exchange() {
    let (peers, sent) = star(6, false, 0);
    assert_eq!(peers, [6; 6], "everybody has met everybody");
    assert!((7..=42).contains(&sent), "{sent} messages in half a minute, one a connection and direction at most");
}

#[test]
fn a_private_swarm_sends_no_exchange_and_nobody_meets_anybody_by_it() {
    assert_eq!(star(6, true, 0), (vec![1; 6], 0));
}

#[test]
fn who_has_no_exchange_is_met_and_meets_nobody_by_himself() {
    let (peers, _) = star(6, false, 1);
    assert_eq!(peers, [6; 6], "the others were told of the sixth, and dialled it");
    assert_eq!(star(6, false, 6), (vec![1; 6], 0), "the seeder alone has nobody who would listen");
}

/// An hour of suspension is made up for once, not as often as it would have happened: no flood of announces, dials or rounds, and
/// nobody who has gone meanwhile is taken for somebody.
#[test]
fn an_hour_of_suspension_is_no_burst() {
    let mut world = world(5, 3, 12_000_000, &Config::default());
    let is_under_way = |world: &mut World| summary(world, 4).downloaded > 2_000_000;
    assert!(world.run(Time::from_secs(60), is_under_way), "not begun after {:?}", world.now());
    let hour = Duration::from_secs(3600);
    world.suspend(4, hour);
    // The others end, and forget it.
    let until = world.now() + hour;
    assert!(!world.run(until, |_| false));
    for node in 1..4 {
        assert_eq!(summary(&mut world, node).state, State::Seeding, "{node}");
        assert_eq!(command(&mut world, node, Command::Peers(Which::All)), Answer::Peers(Vec::new()), "{node}");
    }
    let announces = |world: &mut World| tracker(world).events.iter().sum::<u32>();
    let before = announces(&mut world);
    let messages = |world: &mut World| world.nodes[4].engine().expect("it is up").messages_in();
    let messages_before = messages(&mut world);
    world.wake(4);
    let at = world.now();
    assert!(!world.run(at + Duration::from_millis(900), |_| false));
    let soon = summary(&mut world, 4);
    assert!(soon.down_rate <= 2 * RATE_BYTES, "{}", soon.down_rate);
    assert!(soon.peers <= 3, "{} peers", soon.peers);
    let announced = announces(&mut world) - before;
    assert!(announced <= 4, "{announced} announces in a second, of four nodes");
    let arrived = messages(&mut world) - messages_before;
    assert!(arrived < 1000, "{arrived} messages in a second");
    assert!(world.run(at + Duration::from_secs(60), all_seed), "{:?}", summary(&mut world, 4));
    let done = summary(&mut world, 4);
    let twice = done.downloaded - done.wasted - 12_000_000;
    assert!(twice <= 3 * 16 * 1024, "three peers were in the midst of a block each, at most: {twice}");
    assert!(announces(&mut world) - before <= 10, "each announces every two minutes");
}
