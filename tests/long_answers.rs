//! Answers of the control socket of any length: produced in slices, each of a bounded cost, with the same bytes as at once.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarmtorrent::base::config::Config;
use swarmtorrent::base::rng::Rng;
use swarmtorrent::base::steps;
use swarmtorrent::base::time::Time;
use swarmtorrent::codec::metainfo::FILES_MAX;
use swarmtorrent::engine::Engine;
use swarmtorrent::service::control::{Report, Request, Session};
use swarmtorrent::sim::storage::{MemoryStorage, Truth};
use swarmtorrent::torrent::command::{AddOptions, Answer, Command, Source, Which};

use common::{Daemon, wait};

const NOW: Time = Time::ZERO;
/// Files of a torrent: rows of more than 64 KiB, and more pieces than a slice has.
const FILES: usize = 20_000;
/// What a session may keep of a long answer: what it waits with, and one slice more.
const KEPT_MAX: usize = 512 * 1024;

/// An engine to which the torrent of this many files may be added; see [`many_files`].
fn engine(files: usize) -> Engine<MemoryStorage> {
    let config = Config { allocate_full: false, dht: false, lsd: false, verify_on_add: false, ..Config::default() };
    let mut storage = MemoryStorage::default();
    storage.know(&Arc::new(Truth::new("many".to_owned(), vec![b'c'; files], 16_384)));
    Engine::new(config, 0, Rng::from_number(1), storage)
}

fn add(engine: &mut Engine<MemoryStorage>, source: Source) -> String {
    let mut added = engine.handle_command(NOW, Command::Add { source, options: AddOptions::default() });
    if let Ok(Answer::Later(_)) = added {
        let loaded = std::iter::repeat_with(|| {
            engine.work(NOW);
            engine.poll_loaded()
        });
        added = loaded.flatten().next().and_then(|(_, reply)| reply).expect("it was read");
    }
    while engine.poll_effect().is_some() {}
    match added.unwrap() {
        Answer::Added(hash) => hash.to_string(),
        other => panic!("{other:?}"),
    }
}

/// An engine with links: names that differ in length, some of them equal.
fn with_links(count: usize) -> Engine<MemoryStorage> {
    let mut engine = engine(FILES);
    for number in 0..count {
        let (hash, name) = (number * 7919 % count, "n".repeat(1 + number % 50));
        add(&mut engine, Source::Link(format!("magnet:?xt=urn:btih:{hash:040x}&dn={name}")));
    }
    engine
}

/// A `.torrent` of files of one byte.
fn many_files(count: usize) -> Vec<u8> {
    let mut info = String::from("d5:filesl");
    for number in 0..count {
        info.push_str(&format!("d6:lengthi1e4:pathl7:{number:07}ee"));
    }
    info.push_str("e4:name4:many12:piece lengthi16384e6:pieces");
    let mut bytes = b"d4:info".to_vec();
    bytes.extend(info.into_bytes());
    let pieces = vec![b'p'; count.div_ceil(16_384) * 20];
    bytes.extend(format!("{}:", pieces.len()).into_bytes());
    bytes.extend(pieces);
    bytes.extend(b"ee");
    bytes
}

/// Asks `line`; the reply, produced at once.
fn whole(engine: &mut Engine<MemoryStorage>, line: &str) -> String {
    let mut session = Session::new(NOW);
    session.handle_input(format!("{line}\n").as_bytes());
    while let Some(request) = session.poll_request(NOW) {
        let Request::Node(command) = request else { panic!("{request:?}") };
        let verdict = engine.handle_command(NOW, command).map(Report::from);
        session.reply(NOW, verdict, None);
    }
    String::from_utf8(session.output().to_vec()).unwrap()
}

/// A session that was asked `line`.
fn asked(engine: &mut Engine<MemoryStorage>, line: &str) -> Session {
    let mut session = Session::new(NOW);
    session.handle_input(format!("{line}\n").as_bytes());
    begin(engine, &mut session);
    session
}

fn begin(engine: &mut Engine<MemoryStorage>, session: &mut Session) {
    let Some(Request::Node(command)) = session.poll_request(NOW) else { panic!("a request") };
    let verdict = within_a_turn("begin", || engine.begin_listing(NOW, &command));
    session.reply(NOW, verdict.map(|listing| Report::Long(listing.expect("a long answer"))), None);
}

#[track_caller]
fn within_a_turn<T>(what: &str, call: impl FnOnce() -> T) -> T {
    steps::take();
    let result = call();
    let took = steps::take();
    assert!(took <= steps::TURN_MAX, "{what}: {took} steps");
    result
}

/// Adds one slice to the reply; the steps that it took.
#[track_caller]
fn add_slice(engine: &mut Engine<MemoryStorage>, session: &mut Session) {
    let listing = session.listing().expect("an answer is being printed");
    let rows = within_a_turn("collect", || engine.collect(NOW, listing));
    within_a_turn("print", || session.handle_rows(NOW, rows.map(|slice| (slice.rows.into(), slice.is_last))));
    assert!(session.kept() < KEPT_MAX, "{}", session.kept());
}

fn read(session: &mut Session, len: usize) -> Vec<u8> {
    let bytes = session.output()[..len.min(session.output().len())].to_vec();
    session.handle_sent(NOW, bytes.len());
    bytes
}

/// The rest of a reply, read a few bytes at a time.
fn rest(engine: &mut Engine<MemoryStorage>, session: &mut Session) -> String {
    let mut reply = Vec::new();
    while session.is_asking() || !session.output().is_empty() {
        while session.wants_rows(NOW) {
            add_slice(engine, session);
        }
        reply.extend(read(session, 50_021));
    }
    String::from_utf8(reply).unwrap()
}

fn sliced(engine: &mut Engine<MemoryStorage>, line: &str) -> String {
    let mut session = asked(engine, line);
    rest(engine, &mut session)
}

#[test]
fn sliced_answers_have_the_bytes_of_whole_ones() {
    let mut engine = with_links(300);
    let hash = add(&mut engine, Source::Metainfo(many_files(FILES)));
    for number in 0..40 {
        let which = Which::Prefix(format!("{:040x}", number * 7));
        let set = |key: &str, value: &str| Command::Set { which: which.clone(), key: key.into(), value: value.into() };
        engine.handle_command(NOW, set("label", &format!("l{}", number % 3))).unwrap();
        engine.handle_command(NOW, set("queue", "top")).unwrap();
        if number % 2 == 0 {
            engine.handle_command(NOW, Command::Pause(which)).unwrap();
        }
    }
    let sorts =
        ["id", "state", "done", "down", "up", "ratio", "peers", "eta", "size", "name", "added", "label", "queue"];
    let mut lines: Vec<String> = sorts.iter().map(|sort| format!("list sort={sort}")).collect();
    let others = [
        "list",
        "list paused",
        "list label=l1 sort=name",
        "list label=none",
        "list label=none sort=name",
        "list since=0",
        "status",
        "stats",
    ];
    lines.extend(others.map(str::to_owned));
    lines.extend(["files", "peers", "pieces"].map(|word| format!("{word} {hash}")));
    for line in lines {
        for line in [line.clone(), format!("json {line}")] {
            let expected = whole(&mut engine, &line);
            assert!(sliced(&mut engine, &line) == expected, "{line}: {expected}");
        }
    }
}

#[test]
fn ten_thousand_torrents_are_listed_within_turns() {
    let mut engine = with_links(10_000);
    for line in ["list", "json list", "list sort=name", "json list sort=queue", "json list since=0", "status", "stats"]
    {
        let reply = sliced(&mut engine, line);
        let rows = reply.lines().filter(|line| line.contains("metadata")).count();
        assert!(!line.contains("list") || rows == 10_000, "{line}: {rows}");
        assert!(reply.ends_with("}\n") || reply.lines().last().unwrap().starts_with("OK"), "{line}");
    }
}

#[test]
fn as_many_files_as_there_may_be_are_listed_within_turns() {
    let count = FILES_MAX;
    let mut engine = engine(count);
    let hash = add(&mut engine, Source::Metainfo(many_files(count)));
    for line in [format!("files {hash}"), format!("json files {hash}"), format!("pieces {hash}")] {
        let reply = sliced(&mut engine, &line);
        let files = reply.matches("many/").count();
        assert!(line.contains("pieces") || files == count, "{line}: {files}");
    }
}

#[test]
fn torrent_that_is_removed_or_added_meanwhile_is_left_out() {
    for line in ["list", "json list", "list sort=name", "json list since=0"] {
        let mut engine = with_links(2000);
        let mut session = asked(&mut engine, line);
        while session.output().is_empty() {
            add_slice(&mut engine, &mut session);
        }
        let first = String::from_utf8(read(&mut session, usize::MAX)).unwrap();
        // All that are not printed yet.
        let is_printed = |hash: &str| {
            first.contains(&hash[..12]) && first.contains(hash) || first.contains(&format!("\n{} ", &hash[..12]))
        };
        let hashes: Vec<String> = (0..2000).map(|number| format!("{number:040x}")).collect();
        let gone: Vec<&String> = hashes.iter().filter(|hash| !is_printed(hash)).take(100).collect();
        for hash in &gone {
            engine.handle_command(NOW, Command::Remove { which: Which::Prefix((*hash).clone()), data: false }).unwrap();
            while engine.poll_effect().is_some() {}
        }
        add(&mut engine, Source::Link(format!("magnet:?xt=urn:btih:{}&dn=late", "f".repeat(40))));
        let reply = first + &rest(&mut engine, &mut session);
        assert!(!reply.contains(&"f".repeat(12)), "{line}");
        if line.starts_with("json") {
            let rows: Vec<serde_json::Value> = reply.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(rows.len(), 2000 - gone.len() + 1, "{line}");
            let closing = rows.last().unwrap();
            assert_eq!(closing["ok"], true);
            if let Some(since) = closing["since"].as_u64() {
                let next = sliced(&mut engine, &format!("json list since={since}"));
                assert_eq!(next.matches("\"gone\":true").count(), gone.len());
                assert_eq!(next.matches("late").count(), 1, "what came meanwhile is in the next answer");
            }
        } else {
            assert_eq!(reply.lines().count(), 1 + 2000 - gone.len() + 1, "{line}");
        }
    }
}

#[test]
fn files_of_a_torrent_that_is_removed_meanwhile_end_with_an_error() {
    for line in ["files", "json files"] {
        let mut engine = engine(FILES);
        let hash = add(&mut engine, Source::Metainfo(many_files(FILES)));
        let mut session = asked(&mut engine, &format!("{line} {hash}"));
        while session.output().is_empty() {
            add_slice(&mut engine, &mut session);
        }
        engine.handle_command(NOW, Command::Remove { which: Which::All, data: false }).unwrap();
        while engine.poll_effect().is_some() {}
        let reply = rest(&mut engine, &mut session);
        let closing = reply.lines().last().unwrap();
        assert!(closing.starts_with("ERR not-found ") || closing.contains("\"code\":\"not-found\""), "{closing}");
    }
}

/// A counter of the daemon.
fn counter(daemon: &Daemon, name: &str) -> u64 {
    let rows = daemon.json("stats");
    rows.iter().find(|row| row["name"] == name).unwrap()["value"].as_u64().unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests are outside the daemon")]
fn others_are_answered_while_a_client_reads_a_long_answer_slowly() {
    let temp = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(temp.path(), "");
    let count = 2000;
    let mut stream = UnixStream::connect(temp.path().join("control")).unwrap();
    let lines =
        (0..count).map(|number| format!("add magnet:?xt=urn:btih:{number:040x}&dn=torrent-{number} paused=yes\n"));
    let lines: String = lines.collect();
    let mut writer = stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(lines.as_bytes()).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    writing.join().unwrap();
    assert_eq!(replies.lines().filter(|line| line.starts_with("OK ")).count(), count);

    let expected = daemon.ask("json list sort=id");
    let mut slow = UnixStream::connect(temp.path().join("control")).unwrap();
    slow.write_all(b"json list sort=id\nversion\n").unwrap();
    slow.shutdown(std::net::Shutdown::Write).unwrap();
    let mut begin = [0; 1000];
    slow.read_exact(&mut begin).unwrap();
    // Its answer does not fit into what the kernel keeps: it is in the middle of it.
    let quick = daemon.ask("version");
    assert_eq!(quick.last().unwrap(), "OK");
    assert_eq!(daemon.ask("list").len(), count + 2);
    let (before, start) = (counter(&daemon, "loop_rounds"), Instant::now());
    wait("some time has passed", 5, || start.elapsed() > Duration::from_millis(300));
    let turned = counter(&daemon, "loop_rounds") - before;
    assert!(turned < 200, "{turned} rounds while everybody waits for a reader");
    // One that goes in the middle leaves nothing behind.
    let mut gone = UnixStream::connect(temp.path().join("control")).unwrap();
    gone.write_all(b"json list\n").unwrap();
    gone.read_exact(&mut [0; 1000]).unwrap();
    drop(gone);
    wait("it is forgotten", 10, || counter(&daemon, "control_clients") == 2);

    let mut reply = begin.to_vec();
    slow.read_to_end(&mut reply).unwrap();
    let reply = String::from_utf8(reply).unwrap();
    let lines: Vec<&str> = reply.lines().collect();
    assert_eq!(lines[..=count], expected);
    assert_eq!(lines[count + 1..], quick);
}
