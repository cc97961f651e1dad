//! A change that the control socket acknowledged survives `kill -9` of the daemon right after the reply.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and measures real time"
)]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::changes::{Changes, Request, Subject, acknowledged};
use common::pipeline::Pipeline;
use common::{Daemon, is_closing};
use swarmtorrent::base::rng::Rng;
use swarmtorrent::torrent::create::Profile;

/// The number of rounds of a test run; `SWARMTORRENT_KILLS` sets another number.
const ROUNDS: usize = 160;
/// The number of requests that are sent together.
const PIPELINED: usize = 24;
/// The number of requests of a client that sends many and closes its sending side.
const REQUESTS: usize = 2000;
/// The longest time between two replies while requests wait.
const GAP_MAX: Duration = Duration::from_millis(400);
/// The configuration for the small disks of the test machines.
const CONFIG: &str = "[limits]\nmin_free_space = \"0\"\n";

/// Returns a deadline after the latest time of any reply.
fn patience() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Sends requests and reads the replies to the first `count` of them. Returns the requests that were acknowledged, and
/// those that may have been carried out.
fn pipelined(daemon: &Daemon, requests: Vec<Request>, count: usize) -> (Vec<Request>, Vec<Request>) {
    let mut pipeline = Pipeline::connect(&daemon.dir);
    pipeline.send(requests.iter().map(|request| request.line.clone() + "\n").collect());
    let replies: Vec<_> = (0..count).map(|_| pipeline.reply(patience()).unwrap()).collect();
    acknowledged(requests, &replies, false)
}

#[test]
fn change_survives_a_kill_right_after_its_reply() {
    let rounds = std::env::var("SWARMTORRENT_KILLS").ok().map_or(ROUNDS, |text| text.parse().unwrap());
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    let mut changes = Changes::new(1, &temp.path().join("contents"));
    let mut rng = Rng::from_number(2);
    let mut daemon = Daemon::start(&home, CONFIG);
    let first = changes.first(8);
    let count = first.len();
    let (first, _) = pipelined(&daemon, first, count);
    assert_eq!(daemon.terminate(), 0);
    daemon = Daemon::start(&home, CONFIG);
    changes.check(&daemon, &first, &[]).unwrap();
    let (mut lost, mut figures) = (0, BTreeMap::<&str, [usize; 2]>::new());
    for round in 0..rounds {
        let dropped = if rng.below(10) == 0 { changes.drop_file(&daemon) } else { None };
        let (acknowledged, open) = if let Some((taken, request)) = dropped {
            let deadline = patience();
            while !taken.exists() {
                assert!(Instant::now() < deadline, "{} is not taken", taken.display());
            }
            (vec![request], vec![])
        } else {
            let count = if rng.below(4) == 0 { PIPELINED } else { 1 };
            let requests = changes.draw(count);
            let count = if count == 1 { requests.len() } else { 1 + rng.index(requests.len()) };
            pipelined(&daemon, requests, count)
        };
        daemon.kill();
        daemon = Daemon::start(&home, CONFIG);
        let result = changes.check(&daemon, &acknowledged, &open);
        let kind = if acknowledged.len() + open.len() > 3 {
            "pipelined"
        } else {
            acknowledged.last().map_or("refused", |request| request.kind)
        };
        let [kind_lost, of] = figures.entry(kind).or_default();
        *of += 1;
        if let Err(what) = result {
            eprintln!("round {round}: {kind}: lost: {what:.1200}");
            acknowledged.iter().for_each(|request| eprintln!("  acknowledged: {:.200}", request.line));
            open.iter().for_each(|request| eprintln!("  open: {:.200}", request.line));
            *kind_lost += 1;
            lost += 1;
        }
    }
    eprintln!("lost {lost} of {rounds}");
    for (kind, [lost, of]) in figures {
        eprintln!("  {kind}: lost {lost} of {of}");
    }
    assert_eq!(lost, 0, "of {rounds} rounds");
}

#[test]
fn change_of_a_torrent_that_is_removed_is_not_acknowledged_before_the_removal_is_durable() {
    let temp = tempfile::tempdir().unwrap();
    let subject = Subject::new(Profile::V1, "torrent", &[100], 16_384);
    let add = subject.add(&temp.path().join("metainfo"), temp.path(), true).line;
    let home = temp.path().join("home");
    let mut daemon = Daemon::start(&home, CONFIG);
    let (rounds, mut lost) = (20, 0);
    for round in 0..rounds {
        if daemon.json("list").is_empty() {
            assert!(daemon.ask(&add)[0].starts_with("OK"));
        }
        // The second change waits for the record of the first, and is in no record when the torrent is removed.
        let mut pipeline = Pipeline::connect(&home);
        let hash = &subject.hash;
        pipeline.send(format!("set {hash} label first\nset {hash} label label{round}\nremove {hash}\n"));
        (0..2).for_each(|_| assert_eq!(pipeline.reply(patience()).unwrap(), ["OK"]));
        daemon.kill();
        daemon = Daemon::start(&home, CONFIG);
        let rows = daemon.json("list");
        lost += usize::from(rows.iter().any(|row| row["label"] != format!("label{round}")));
    }
    assert_eq!(lost, 0, "of {rounds} rounds");
}

#[test]
fn pipelined_replies_keep_their_order_and_come_without_long_gaps() {
    let temp = tempfile::tempdir().unwrap();
    let _daemon = Daemon::start(temp.path(), CONFIG);
    let (mut hash, mut label, mut added) = (String::new(), String::new(), 0);
    let (mut requests, mut expected) = (String::new(), Vec::new());
    for number in 0..REQUESTS {
        let (request, reply) = match number % 5 {
            0 => {
                let subject = Subject::new(Profile::V1, &format!("torrent{number}"), &[100], 16_384);
                let path = temp.path().join(format!("{number}.torrent"));
                std::fs::write(&path, subject.metainfo.unwrap()).unwrap();
                hash = subject.hash;
                added += 1;
                (format!("add {} paused=yes", path.display()), vec![format!("OK {hash}")])
            }
            1 => {
                label = format!("label{number}");
                (format!("set {hash} label {label}"), vec!["OK".to_owned()])
            }
            2 => (format!("get {hash} label"), vec![format!("label: {label}"), "OK".to_owned()]),
            3 => (
                format!("nonsense{number}"),
                vec![format!("ERR unknown-command there is no command `nonsense{number}`")],
            ),
            _ => ("list".to_owned(), vec!["OK".to_owned(); added + 2]),
        };
        requests.push_str(&(request + "\n"));
        expected.push(reply);
    }
    let mut pipeline = Pipeline::connect(temp.path());
    let start = Instant::now();
    let sending = pipeline.send_last(requests);
    let (mut last, mut longest) = (start, Duration::ZERO);
    for (number, expected) in expected.iter().enumerate() {
        let reply = pipeline.reply(patience()).unwrap_or_else(|| panic!("no reply {number}"));
        longest = longest.max(last.elapsed());
        last = Instant::now();
        assert_eq!(reply.len(), expected.len(), "{number}: {reply:?}");
        let is_as_expected = |(line, expected): (&String, &String)| line.starts_with(expected.as_str());
        let is_list = number % 5 == 4;
        assert!(is_list || reply.iter().zip(expected).all(is_as_expected), "{number}: {reply:?}, not {expected:?}");
        assert!(is_closing(reply.last().unwrap()));
    }
    assert_eq!(pipeline.reply(patience()), None, "the daemon closes after the last reply");
    assert!(pipeline.is_closed(), "the daemon closes after the last reply");
    sending.join().unwrap();
    eprintln!("{REQUESTS} requests in {:?}, the longest time between two replies {longest:?}", start.elapsed());
    assert!(longest <= GAP_MAX, "{longest:?} between two replies");
}
