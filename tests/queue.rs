//! Whose turn it is, and what rules ask: by the real daemon, and on a virtual clock.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use swarmtorrent::base::config::Config;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::time::Time;
use swarmtorrent::engine::Engine;
use swarmtorrent::sim::storage::{MemoryStorage, Truth};
use swarmtorrent::torrent::command::{AddOptions, Answer, Command, Source, Which};
use swarmtorrent::torrent::create::{Creator, Notes, Profile};
use swarmtorrent::torrent::pace::SLOW_AFTER;
use swarmtorrent::torrent::snapshot::{State, Summary};

use common::{Daemon, make, noise, wait};

/// An engine without peers, in which so many torrents want to be downloaded.
fn engine(torrents: usize, config: Config) -> Engine<MemoryStorage> {
    let config = Config { allocate_full: false, dht: false, lsd: false, verify_on_add: false, ..config };
    let name = |number: usize| format!("torrent {number}");
    let mut storage = MemoryStorage::default();
    for number in 0..torrents {
        storage.know(&Arc::new(Truth::new(name(number), vec![7; 100], 16_384)));
    }
    let mut engine = Engine::new(config, 0, Rng::from_number(1), storage);
    for number in 0..torrents {
        let notes = Notes { name: name(number).into_bytes(), ..Notes::default() };
        let mut creator = Creator::new(Profile::V1, 16_384, vec![(vec![], 100)], notes);
        creator.update(&[7; 100]);
        let source = Source::Metainfo(creator.finish().unwrap().1);
        engine.handle_command(Time::ZERO, Command::Add { source, options: AddOptions::default() }).unwrap();
        drain(&mut engine);
    }
    engine
}

fn drain(engine: &mut Engine<MemoryStorage>) {
    while engine.poll_effect().is_some() {}
}

/// Lets time pass until `end`; how often the engine wanted to be called.
fn pass(engine: &mut Engine<MemoryStorage>, end: Time) -> usize {
    let mut calls = 0;
    while engine.poll_timeout() <= end {
        engine.handle_timeout(engine.poll_timeout());
        drain(engine);
        calls += 1;
        assert!(calls < 1_000_000);
    }
    calls
}

fn list(engine: &mut Engine<MemoryStorage>, now: Time) -> Vec<Summary> {
    match engine.handle_command(now, Command::List { states: vec![], label: None }) {
        Ok(Answer::List(mut rows)) => {
            rows.sort_by_key(|row| row.queue);
            rows
        }
        other => panic!("{other:?}"),
    }
}

/// The places in the queue of those that run.
fn running(engine: &mut Engine<MemoryStorage>, now: Time) -> Vec<usize> {
    let rows = list(engine, now).into_iter();
    rows.filter(|row| row.state == State::Downloading).map(|row| row.queue.unwrap()).collect()
}

#[test]
fn those_who_sleep_let_others_have_a_turn_and_not_more_than_a_few_of_them() {
    let mut engine = engine(40, Config { active_downloads_max: 2, ..Config::default() });
    let mut seen = Vec::new();
    for minute in 0..12 {
        let now = Time::ZERO + SLOW_AFTER * minute + Duration::from_secs(1);
        pass(&mut engine, now);
        seen.push(running(&mut engine, now).len());
    }
    // Two more each minute, until sixteen sleep beside the two that are counted.
    assert_eq!(seen, [2, 4, 6, 8, 10, 12, 14, 16, 18, 18, 18, 18]);
    let now = Time::ZERO + SLOW_AFTER * 20;
    pass(&mut engine, now);
    assert_eq!(running(&mut engine, now), (1..=18).collect::<Vec<_>>());
}

#[test]
fn who_is_put_to_the_front_takes_the_turn_of_the_last() {
    let mut engine = engine(5, Config { active_downloads_max: 2, ..Config::default() });
    let names = |engine: &mut Engine<MemoryStorage>| {
        let rows = list(engine, Time::ZERO).into_iter().filter(|row| row.state == State::Downloading);
        rows.map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut engine), ["torrent 0", "torrent 1"]);
    let last = list(&mut engine, Time::ZERO).pop().unwrap().info_hash.to_string();
    let set = |value: &str| Command::Set {
        which: Which::Prefix(last.clone()),
        key: "queue".to_owned(),
        value: value.to_owned(),
    };
    engine.handle_command(Time::ZERO, set("top")).unwrap();
    assert_eq!(names(&mut engine), ["torrent 4", "torrent 0"]);
    engine.handle_command(Time::ZERO, set("2")).unwrap();
    assert_eq!(names(&mut engine), ["torrent 0", "torrent 4"]);
    engine.set_turns(Time::ZERO, 0, 0);
    assert_eq!(names(&mut engine).len(), 5);
    engine.set_turns(Time::ZERO, 1, 0);
    assert_eq!(names(&mut engine), ["torrent 0"]);
}

#[test]
fn thousands_that_wait_wake_nobody_and_one_that_moves_among_them_moves_nobody_else() {
    let mut engine = engine(2000, Config { active_downloads_max: 8, ..Config::default() });
    pass(&mut engine, Time::from_secs(3000));
    let calls = pass(&mut engine, Time::from_secs(3600));
    assert!(calls < 24 * 15, "{calls} calls in ten minutes of 24 that run and look for their files every minute");
    let now = Time::from_secs(3600);
    let last = list(&mut engine, now).pop().unwrap().info_hash.to_string();
    let Ok(Answer::Changes { since, .. }) = engine.handle_command(now, Command::Changes(0)) else { panic!() };
    let (which, key, value) = (Which::Prefix(last), "queue".to_owned(), "1000".to_owned());
    engine.handle_command(now, Command::Set { which, key, value }).unwrap();
    let Ok(Answer::Changes { rows, .. }) = engine.handle_command(now, Command::Changes(since)) else { panic!() };
    assert_eq!(rows.iter().map(|row| row.queue).collect::<Vec<_>>(), [Some(1000)]);
}

/// So many torrents of small files that lie in the daemon's downloads.
fn torrents(dir: &Path, count: u8) -> Vec<PathBuf> {
    std::fs::create_dir_all(dir.join("downloads")).unwrap();
    (0..count)
        .map(|number| {
            let (content, out) = (dir.join(format!("downloads/file{number}")), dir.join(number.to_string()));
            std::fs::create_dir_all(&out).unwrap();
            std::fs::write(&content, noise(number.into(), 50_000)).unwrap();
            make(&content, &out, &["--tracker", "http://tracker.example.org:1/announce"]).1
        })
        .collect()
}

/// The names of all torrents in the order of the queue, with what they do.
fn queue(daemon: &Daemon) -> Vec<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    daemon.json("list sort=queue").iter().map(|row| (text(row, "name"), text(row, "state"))).collect()
}

fn names(daemon: &Daemon) -> Vec<String> {
    queue(daemon).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn the_order_outlives_a_restart_and_a_reload_gives_more_of_them_a_turn() {
    let temp = tempfile::tempdir().unwrap();
    let torrents = torrents(temp.path(), 4);
    let daemon = Daemon::start(temp.path(), "[limits]\nactive_seeds = 1\n");
    torrents.iter().for_each(|path| daemon.add(path, ""));
    let states = |daemon: &Daemon| queue(daemon).into_iter().map(|(_, state)| state).collect::<Vec<_>>();
    wait("one seeds", 20, || states(&daemon) == ["seeding", "queued", "queued", "queued"]);
    let last = daemon.json("list sort=queue")[3]["id"].as_str().unwrap().to_owned();
    assert_eq!(daemon.ask(&format!("set {last} queue 2")), ["OK"]);
    assert!(daemon.ask(&format!("set {last} queue 0"))[0].starts_with("ERR invalid"));
    let order = ["file0", "file3", "file1", "file2"];
    assert_eq!(names(&daemon), order);
    assert_eq!(daemon.ask(&format!("get {last} queue")), ["queue: 2", "OK"]);
    assert_eq!(daemon.terminate(), 0);
    let daemon = Daemon::start(temp.path(), "[limits]\nactive_seeds = 1\n");
    assert_eq!(names(&daemon), order);
    let config = std::fs::read_to_string(temp.path().join("config.toml")).unwrap();
    std::fs::write(temp.path().join("config.toml"), config.replace("active_seeds = 1", "active_seeds = 3")).unwrap();
    assert_eq!(daemon.ask("reload"), ["limits.active_seeds: 1 → 3", "OK"]);
    assert_eq!(states(&daemon), ["seeding", "seeding", "seeding", "queued"]);
}

#[test]
fn rules_say_what_holds_and_take_out_what_has_seeded_enough() {
    let temp = tempfile::tempdir().unwrap();
    let torrents = torrents(temp.path(), 3);
    let rules = "[[rule]]\nlabel = \"first\"\nqueue = \"top\"\nup = \"1M\"\n\
                 [[rule]]\ntracker = \"example.org\"\nratio = 1.5\nup = \"2M\"\n";
    let daemon = Daemon::start(temp.path(), rules);
    daemon.add(&torrents[0], "");
    daemon.add(&torrents[1], "label=first");
    daemon.add(&torrents[2], "paused=yes");
    assert_eq!(names(&daemon), ["file1", "file0", "file2"]);
    let ids: Vec<String> =
        daemon.json("list sort=name").iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    let get = |index: usize, key: &str| daemon.ask(&format!("get {} {key}", ids[index])).remove(0);
    assert_eq!(get(0, "up-limit"), "up-limit: 2097152 (rule 2)");
    assert_eq!(get(1, "up-limit"), "up-limit: 1048576 (rule 1)");
    assert_eq!(get(1, "ratio"), "ratio: 1.5 (rule 2)");
    assert!(daemon.ask(&format!("show {}", ids[1])).contains(&"ratio goal: 1.5 (rule 2)".to_owned()));
    assert_eq!(daemon.ask(&format!("set {} ratio 3", ids[1])), ["OK"]);
    assert_eq!(get(1, "ratio"), "ratio: 3");
    assert_eq!(daemon.ask(&format!("set {} label other", ids[1])), ["OK"]);
    assert_eq!(get(1, "up-limit"), "up-limit: 2097152 (rule 2)");
    wait("both seed", 20, || queue(&daemon).iter().filter(|(_, state)| state == "seeding").count() == 2);
    assert_eq!(daemon.ask(&format!("set {} label kept", ids[0])), ["OK"]);
    // A second of seeding is enough for the others, and nothing is to be left of them.
    let config = std::fs::read_to_string(temp.path().join("config.toml")).unwrap();
    let rule = "[[rule]]\nlabel = \"other\"\nseed_time = \"1s\"\nthen = \"remove-data\"\n";
    std::fs::write(temp.path().join("config.toml"), config.replacen("[[rule]]", &format!("{rule}[[rule]]"), 1))
        .unwrap();
    let told = daemon.ask("reload");
    assert_eq!(told, ["[[rule]] is as in the file now, 3 in all", "OK"]);
    wait("one has gone", 10, || names(&daemon) == ["file0", "file2"]);
    wait("and its content", 10, || !temp.path().join("downloads/file1").exists());
    assert!(temp.path().join("downloads/file0").exists() && temp.path().join("downloads/file2").exists());
    assert!(daemon.log().contains("file1: seeded enough (seed-time), removed; its content is deleted with it"));
    // After a restart it sleeps, and what its files are is read first.
    assert_eq!(daemon.terminate(), 0);
    let daemon = Daemon::start(temp.path(), "[[rule]]\nlabel = \"kept\"\nseed_time = \"1s\"\nthen = \"remove-data\"\n");
    wait("that has gone, too", 10, || names(&daemon) == ["file2"]);
    wait("and its content", 10, || !temp.path().join("downloads/file0").exists());
}

#[test]
fn what_is_dropped_into_a_watch_directory_has_its_label_and_what_a_rule_says_of_that() {
    let temp = tempfile::tempdir().unwrap();
    let torrent = torrents(temp.path(), 1).remove(0);
    let drop = temp.path().join("drop");
    let extra = format!(
        "[[watch]]\npath = \"{}\"\nlabel = \"dropped\"\n[[rule]]\nlabel = \"dropped\"\nratio = 4.0\n",
        drop.display()
    );
    let daemon = Daemon::start(temp.path(), &extra);
    std::fs::copy(torrent, drop.join("x.torrent")).unwrap();
    wait("it is taken", 10, || !daemon.json("list label=dropped").is_empty());
    assert_eq!(daemon.ask("get all ratio"), ["ratio: 4 (rule 1)", "OK"]);
}
