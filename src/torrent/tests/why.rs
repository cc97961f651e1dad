//! Each reason why a torrent does not move, in its own words.

use std::time::Duration;

use super::*;
use crate::base::rules::Defaults;
use crate::protocol::tracker::{Outcome, TrackerError};
use crate::torrent::settings::Change;
use crate::torrent::why::VISITORS_AFTER;

/// A node in which nothing is wrong.
fn fine() -> Around {
    Around { dht_nodes: Some(9), has_visitors: true, ..Around::default() }
}

fn reasons(torrent: &Torrent, now: Time, around: &Around) -> Vec<String> {
    torrent.why(now, around).into_iter().map(|reason| format!("{}: {}", reason.topic, reason.sentence)).collect()
}

#[track_caller]
fn only(torrent: &Torrent, around: &Around, expected: &str) {
    assert_eq!(reasons(torrent, NOW, around), [expected]);
}

/// One that wants everything and has a tracker, which says this.
fn with_tracker(private: bool, outcome: Option<Outcome>) -> Torrent {
    let trackers = vec!["http://t/announce".to_owned()];
    let notes = Notes { name: b"x".to_vec(), private, trackers, ..Notes::default() };
    let mut torrent = torrent_with(0..PIECES, &Config::default(), notes);
    while torrent.poll_announce().is_some() {}
    if let Some(outcome) = outcome {
        torrent.handle_announced(NOW, 0, outcome);
    }
    torrent
}

#[test]
fn what_it_does_instead() {
    let mut torrent = torrent(3..5, &Config::default());
    torrent.set_queued(NOW, true);
    let behind = |before| Around { waits_behind: Some((before, 8)), ..fine() };
    only(
        &torrent,
        &behind(3),
        "queue: it waits for its turn: 8 may download at once (`active_downloads` in [limits]), and 3 wait before it; \
         `set ID queue top` lets it go first",
    );
    assert!(reasons(&torrent, NOW, &behind(0))[0].contains("none waits before it"));
    assert!(reasons(&torrent, NOW, &behind(1))[0].contains("one waits before it"));
    torrent.set_queued(NOW, false);
    torrent.pause(NOW);
    only(&torrent, &fine(), "paused: it is paused; `resume` starts it");
    torrent.resume(NOW);
    torrent.begin_move(NOW, "e".into()).unwrap();
    only(&torrent, &fine(), "moving: its content is being moved; it goes on by itself");
    torrent.handle_scouted(NOW, Err(trouble(FaultKind::Full)));
    torrent.phase = Phase::Allocating;
    only(&torrent, &fine(), "allocating: room is being made for it on the disk; it goes on by itself");
    torrent.phase = Phase::Ready;
    torrent.verify(NOW);
    only(&torrent, &fine(), "checking: its content is being hashed, 0 % of it is; it goes on by itself");
    torrent.fail(NOW, trouble(FaultKind::Full));
    only(
        &torrent,
        &fine(),
        "disk: trouble; free some space, or `move` it to another disk; it is tried again every 10 s",
    );
    torrent.fail(NOW, trouble(FaultKind::Io));
    only(&torrent, &fine(), "disk: trouble; it is tried again every 10 s");
}

#[test]
fn who_has_seeded_enough_says_by_which_goal_and_whose() {
    let stops = |defaults: Defaults, key: &str, value: &str| {
        let config = Config { defaults: std::sync::Arc::new(defaults), ..Config::default() };
        let mut torrent = torrent(0..0, &config);
        torrent.set(NOW, &Change::parse(key, value).unwrap());
        torrent.up.add(NOW, torrent.size() * 2);
        torrent.consider_goals(Time::from_secs(7200));
        reasons(&torrent, Time::from_secs(7200), &fine()).join("; ")
    };
    let ratio = stops(Defaults { ratio: 1.5, ..Defaults::default() }, "label", "x");
    assert!(
        ratio.starts_with("goal: it has seeded enough: its ratio is 2.00, and 1.5 was asked for (config);"),
        "{ratio}"
    );
    let time = stops(Defaults::default(), "seed-time", "1h");
    assert!(time.contains("it has seeded 2h00m, and 1h00m was asked for (own); `resume` lets it seed on"), "{time}");
    assert!(time.ends_with("`set ID seed-time` changes the goal"), "{time}");
    let idle = stops(Defaults { idle_time: Duration::from_secs(60), ..Defaults::default() }, "label", "x");
    assert!(idle.contains("nobody took anything for 1m00s (config)"), "{idle}");
}

#[test]
fn nobody_is_known_and_each_source_says_why() {
    let nobody = "peers: no peers are known; `announce` asks again, `connect ID HOST:PORT` dials one";
    let failed = Some(Err(TrackerError::Unreachable));
    let said = reasons(&with_tracker(false, failed.clone()), NOW, &Around { dht_nodes: None, ..fine() });
    assert!(
        said[0].starts_with("tracker: tracker http://t/announce failed: it cannot be reached; it is asked again in"),
        "{said:?}"
    );
    assert_eq!(said[1..], ["dht: the DHT is off; `enabled` in [dht] lets it find peers there", nobody]);
    let said = reasons(&with_tracker(false, None), NOW, &Around { dht_nodes: Some(0), ..fine() });
    let none = "dht: no DHT node answers, so nobody is found there; see `dht`";
    assert_eq!(said, ["tracker: tracker http://t/announce is being asked", none, nobody]);
    let said = reasons(&with_tracker(false, Some(Ok(AnnounceAnswer::default()))), NOW, &fine());
    assert!(
        said[0].starts_with("tracker: tracker http://t/announce answers, and names no peer; it is asked again in"),
        "{said:?}"
    );
    let said = reasons(&with_tracker(true, failed), NOW, &fine());
    let private = "private: it is private, so that only its trackers may name peers, and none of them does; `announce` asks again";
    assert_eq!(said[1..], [private, nobody]);
    assert_eq!(reasons(&torrent(0..2, &Config::default()), NOW, &fine()), ["tracker: it has no tracker", nobody]);
}

#[test]
fn peers_are_known_and_none_is_connected() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    torrent.candidates.add(NOW, addr(1), Origin::Tracker);
    let last = |torrent: &Torrent, around: &Around| reasons(torrent, NOW, around).pop().unwrap();
    let known = "peers: one peer is known, and none is connected; they may be offline, or not be reachable from here";
    assert_eq!(last(&torrent, &fine()), known);
    let full = Around { is_full: true, ..fine() };
    assert_eq!(last(&torrent, &full), "peers: no more connections may be made (`max_connections` in [peers])");
    torrent.next_candidate(NOW).unwrap();
    assert_eq!(last(&torrent, &fine()), "peers: one peer is being dialled");
}

#[test]
fn what_peers_lack_and_what_they_do_not_give() {
    let mut torrent = torrent(0..4, &Config::default());
    dialled(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveNone]);
    let lack = |pieces: &str| {
        format!("swarm: no seed is connected, and {pieces} at no connected peer, of x; somebody who has them must come")
    };
    let nothing = "interest: none of one connected peer has a piece that is missing here".to_owned();
    assert_eq!(reasons(&torrent, NOW, &fine()), [lack("4 missing pieces are"), nothing]);
    tell(&mut torrent, 1, &[Message::Have(Piece(0)), Message::Have(Piece(1)), Message::Have(Piece(2))]);
    let said = reasons(&torrent, Time::from_secs(70), &fine());
    let choked = "choked: one peer could give us something, and chokes us, for 1m10s now; slots go to others first, and to us in turn";
    assert_eq!(said, [lack("one missing piece is"), choked.to_owned()]);
    dialled(&mut torrent, 2);
    tell(&mut torrent, 2, &[Message::HaveAll, Message::Unchoke, Message::Choke]);
    let said = reasons(&torrent, Time::from_secs(5), &fine());
    assert_eq!(
        said[0],
        "choked: each of 2 peers could give us something, and chokes us, for 5s now; slots go to others first, and to us in turn"
    );
    tell(&mut torrent, 2, &[Message::Unchoke]);
    only(&torrent, &fine(), "moving: nothing holds it up; data was asked for and should come");
}

#[test]
fn a_seed_of_which_nobody_wants_anything_and_one_that_nobody_can_reach() {
    let mut torrent = torrent(0..0, &Config::default());
    accepted(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveNone]);
    only(&torrent, &fine(), "interest: no connected peer wants anything");
    tell(&mut torrent, 1, &[Message::Interested]);
    let unseen = Around { has_visitors: false, ..fine() };
    assert_eq!(reasons(&torrent, NOW, &unseen).len(), 1);
    let said = reasons(&torrent, NOW + VISITORS_AFTER, &unseen);
    assert!(
        said[0].starts_with("port: nobody has connected to us since the start, 10m00s ago; port 0 may not"),
        "{said:?}"
    );
}

#[test]
fn who_super_seeds_or_is_throttled_says_so() {
    let mut torrent = torrent(0..0, &Config::default());
    torrent.set(NOW, &Change::parse("super-seed", "yes").unwrap());
    accepted(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::Interested]);
    let said = "super-seed: it super-seeds, so peers are shown one piece at a time; `set ID super-seed no` ends that";
    only(&torrent, &fine(), said);
    torrent.set(NOW, &Change::parse("super-seed", "no").unwrap());
    torrent.throttle = Some(51_200);
    torrent.apply_rates(NOW);
    let said =
        "goal: it has seeded enough, so it sends no more than 50.0K/s; `set ID ratio` or `seed-time` changes the goal";
    only(&torrent, &fine(), said);
}

#[test]
fn what_it_moves_no_faster_for() {
    let mut torrent = torrent(0..PIECES, &Config::default());
    dialled(&mut torrent, 1);
    tell(&mut torrent, 1, &[Message::HaveAll, Message::Unchoke]);
    for step in 0..400 {
        torrent.down.add(Time::from_millis(step * 100), 10_000);
    }
    let now = Time::from_secs(40);
    let said = |torrent: &Torrent, around: &Around| reasons(torrent, now, around).join("; ");
    assert!(said(&torrent, &fine()).starts_with("moving: it is moving, 97."), "{}", said(&torrent, &fine()));
    let limited = Around { limits: (100_000, 0), rates: (95_000, 0), ..fine() };
    let node = "limit: the node's limit of 97.7K/s for all torrents is used up; `limit down` changes it";
    assert_eq!(said(&torrent, &limited), node);
    let alternative = Around { is_alternative: true, ..limited };
    assert!(said(&torrent, &alternative).ends_with("`limit alternative off` ends it"));
    torrent.set(now, &Change::parse("down-limit", "90K").unwrap());
    let own = "limit: its own limit of 90.0K/s is used up (own); `set ID down-limit` changes it";
    assert_eq!(said(&torrent, &fine()), own);
}
