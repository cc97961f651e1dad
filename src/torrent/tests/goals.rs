//! When a torrent has seeded enough, by whose word, and what follows.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::rules::{Bounds, Defaults, Rule, Then};
use crate::torrent::settings::Change;

fn config(defaults: Defaults) -> Config {
    Config { defaults: Arc::new(defaults), dht: false, ..Config::default() }
}

fn seconds(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn set(torrent: &mut Torrent, now: Time, key: &str, value: &str) {
    torrent.set(now, &Change::parse(key, value).unwrap());
}

/// What a setting is, with where it comes from.
fn get(torrent: &Torrent, key: &str) -> String {
    let row = torrent.settings(Some(key), None).unwrap().remove(0);
    format!("{} ({})", row.value, row.from)
}

/// Lets time pass until `end`, as the engine does.
fn pass(torrent: &mut Torrent, end: Time) {
    for _ in 0..10_000 {
        let now = torrent.poll_timeout();
        if now > end {
            return;
        }
        torrent.handle_timeout(now);
    }
    panic!("it wants to be called again and again at {:?}", torrent.poll_timeout());
}

/// As if all of it had been sent so often.
fn send(torrent: &mut Torrent, now: Time, times: u64) {
    let size = torrent.size();
    torrent.up.add(now, size * times);
    torrent.taken_at = now;
}

#[test]
fn a_seed_stops_at_its_ratio_and_when_it_is_started_again_it_seeds_on() {
    let mut torrent = torrent(0..0, &config(Defaults { ratio: 1.0, ..Defaults::default() }));
    pass(&mut torrent, Time::from_secs(5));
    assert!(torrent.running);
    let now = Time::from_secs(10);
    send(&mut torrent, now, 1);
    torrent.consider_goals(now);
    assert_eq!((torrent.state(), torrent.running), (State::Paused, false));
    torrent.resume(now);
    torrent.consider_goals(now);
    assert!(torrent.running, "the user wants it to");
    set(&mut torrent, now, "label", "x");
    pass(&mut torrent, now);
    assert!(torrent.running, "the goals are what they were");
    set(&mut torrent, now, "ratio", "0.5");
    pass(&mut torrent, now);
    assert_eq!(torrent.state(), State::Paused, "another goal counts");
    set(&mut torrent, now, "ratio", "2");
    assert!(torrent.running, "it has not seeded so much");
    torrent.pause(now);
    set(&mut torrent, now, "ratio", "3");
    assert_eq!(torrent.state(), State::Paused, "the user stopped it");
}

#[test]
fn the_time_that_it_has_seeded_is_that_of_all_runs() {
    let config = config(Defaults { seed_time: seconds(100), ..Defaults::default() });
    let mut first = torrent(0..0, &config);
    pass(&mut first, Time::from_secs(60));
    first.shut_down(Time::from_secs(60));
    first.doubtful_files(9);
    let record = Record::parse(&first.record(Time::from_secs(70))).unwrap();
    assert_eq!(record.seeded, Some(60));
    let mut second = torrent(0..0, &config);
    second.restore(NOW, &record);
    pass(&mut second, Time::from_secs(39));
    assert!(second.running);
    pass(&mut second, Time::from_secs(40));
    assert_eq!(second.state(), State::Paused);
}

#[test]
fn a_seed_of_which_nobody_takes_anything_stops() {
    let mut torrent = torrent(0..0, &config(Defaults { idle_time: seconds(50), ..Defaults::default() }));
    pass(&mut torrent, Time::from_secs(49));
    send(&mut torrent, Time::from_secs(49), 1);
    pass(&mut torrent, Time::from_secs(98));
    assert!(torrent.running);
    pass(&mut torrent, Time::from_secs(99));
    assert_eq!(torrent.state(), State::Paused);
    set(&mut torrent, Time::from_secs(200), "idle-time", "40s");
    assert_eq!(torrent.state(), State::Paused);
    set(&mut torrent, Time::from_secs(200), "idle-time", "60s");
    assert!(torrent.running, "that is longer than it had waited");
}

#[test]
fn a_value_is_the_users_else_a_rules_else_the_configs() {
    let rules = vec![
        Rule { label: Some("a*".to_owned()), up: Some(1000), ..Rule::default() },
        Rule { ratio: Some(2.0), up: Some(2000), ..Rule::default() },
    ];
    let mut torrent = torrent(0..0, &config(Defaults { seed_time: seconds(9), rules, ..Defaults::default() }));
    let all = |torrent: &Torrent| ["ratio", "up-limit", "seed-time"].map(|key| get(torrent, key));
    assert_eq!(all(&torrent), ["2 (rule 2)", "2000 (rule 2)", "9s (config)"]);
    set(&mut torrent, NOW, "label", "abc");
    set(&mut torrent, NOW, "ratio", "7");
    assert_eq!(all(&torrent), ["7 (own)", "1000 (rule 1)", "9s (config)"]);
    assert_eq!(torrent.up_bucket.rate_bytes(), 1000);
    set(&mut torrent, NOW, "ratio", "default");
    set(&mut torrent, NOW, "up-limit", "0");
    torrent.set_defaults(NOW, Arc::new(Defaults { ratio: 3.0, ..Defaults::default() }));
    assert_eq!(all(&torrent), ["3 (config)", "0 (own)", "0s (config)"]);
    assert_eq!(torrent.up_bucket.rate_bytes(), 0);
}

#[test]
fn an_age_of_a_rule_comes_by_itself() {
    let rule = |min, max, up| Rule { added: Bounds { min: Some(seconds(min)), max }, up: Some(up), ..Rule::default() };
    let rules = vec![rule(100, Some(seconds(200)), 7), rule(300, None, 8)];
    let mut torrent = torrent(0..0, &config(Defaults { rules, ..Defaults::default() }));
    let mut seen = Vec::new();
    for second in [99, 100, 199, 200, 299, 300] {
        pass(&mut torrent, Time::from_secs(second));
        seen.push(torrent.up_bucket.rate_bytes());
    }
    assert_eq!(seen, [0, 7, 7, 0, 0, 8]);
    assert!(torrent.policy_at.is_never());
}

#[test]
fn what_follows_is_what_the_rule_of_the_goal_says() {
    let rules = |then| vec![Rule { ratio: Some(1.0), then, ..Rule::default() }];
    let mut asked = Vec::new();
    for then in [Then::Pause, Then::Remove, Then::RemoveWithData, Then::Throttle(500)] {
        let mut torrent = torrent(0..0, &config(Defaults { rules: rules(then), ..Defaults::default() }));
        send(&mut torrent, NOW, 1);
        asks(&mut torrent);
        torrent.consider_goals(NOW);
        torrent.consider_goals(NOW);
        let mut removals = asks(&mut torrent).into_iter().filter(|ask| matches!(ask, Ask::Remove { .. }));
        let removal = removals.next();
        assert_eq!(removals.next(), None, "it goes once");
        asked.push((torrent.state(), removal, torrent.up_bucket.rate_bytes()));
    }
    let expected = [
        (State::Paused, None, 0),
        (State::Seeding, Some(Ask::Remove { data: false }), 0),
        (State::Seeding, Some(Ask::Remove { data: true }), 0),
        (State::Seeding, None, 500),
    ];
    assert_eq!(asked, expected);
    // What the user set himself never deletes anything, nor does what lies in a share directory go.
    let with_data = Defaults { rules: rules(Then::RemoveWithData), ..Defaults::default() };
    for shared in [false, true] {
        let mut torrent = torrent(0..0, &config(with_data.clone()));
        torrent.settings.shared = shared;
        if !shared {
            set(&mut torrent, NOW, "ratio", "0.5");
        }
        send(&mut torrent, NOW, 1);
        torrent.consider_goals(NOW);
        assert_eq!(torrent.state(), State::Paused);
        assert!(!asks(&mut torrent).iter().any(|ask| matches!(ask, Ask::Remove { .. })));
    }
}

#[test]
fn a_throttle_ends_with_the_goal_that_it_came_from() {
    let rules = vec![Rule { ratio: Some(1.0), up: Some(9000), then: Then::Throttle(500), ..Rule::default() }];
    let mut torrent = torrent(0..0, &config(Defaults { rules, ..Defaults::default() }));
    send(&mut torrent, NOW, 1);
    torrent.consider_goals(NOW);
    assert_eq!(get(&torrent, "up-limit"), "500 (seeded enough)");
    set(&mut torrent, NOW, "ratio", "2");
    pass(&mut torrent, NOW);
    assert_eq!(get(&torrent, "up-limit"), "9000 (rule 1)");
}

#[test]
fn what_an_older_version_copied_from_the_config_is_not_the_users() {
    let config = config(Defaults { ratio: 1.5, seed_time: seconds(7), ..Defaults::default() });
    let mut torrent = torrent(0..0, &config);
    torrent.doubtful_files(9);
    let record = Record::parse(&torrent.record(NOW)).unwrap();
    let old = Record {
        explicit: false,
        seeded: None,
        ratio_millis: Some(1500),
        seed_time: Some(0),
        down_limit: Some(0),
        up_limit: Some(5),
        max_peers: Some(100),
        ..record
    };
    torrent.restore(NOW, &old);
    let keys = ["ratio", "seed-time", "down-limit", "up-limit", "max-peers"];
    let expected = ["1.5 (config)", "0s (own)", "0 (config)", "5 (own)", "100 (config)"];
    assert_eq!(keys.map(|key| get(&torrent, key)), expected);
}
