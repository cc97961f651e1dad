//! The simulator's checks notice an engine that breaks the rules: it is broken on purpose, and they must say so.

use swarmtorrent::base::sabotage::{Sabotage, break_rule};
use swarmtorrent::base::time::Time;
use swarmtorrent::sim::scenario::Scenario;
use swarmtorrent::sim::swarm::run;

/// What is said of the scenario when `rule` is broken, with the first of `seeds` that shows it.
fn said(rule: Option<Sabotage>, scenario: &str, seeds: u64) -> Option<String> {
    let scenario = Scenario::parse(scenario).expect("a good scenario");
    break_rule(rule);
    let said = (1..=seeds).find_map(|seed| run(&scenario, seed, Time::NEVER, &mut |_| {}).err());
    break_rule(None);
    said.map(|failure| failure.message)
}

fn shows(rule: Sabotage, scenario: &str, words: &str) {
    assert_eq!(said(None, scenario, 2), None, "nothing is wrong with it as it is");
    let said = said(Some(rule), scenario, 60).expect("the checks notice it");
    assert!(said.contains(words), "{said}");
}

#[test]
fn two_writers_of_a_block_are_noticed() {
    shows(Sabotage::TwoWriters, include_str!("scenarios/end-game.toml"), "is written");
}

#[test]
fn a_record_that_claims_what_was_not_synced_is_noticed() {
    shows(Sabotage::UnsyncedRecord, include_str!("scenarios/crash-storm.toml"), "not on its disk as it should be");
}

#[test]
fn blocks_that_are_served_unverified_are_noticed() {
    shows(Sabotage::UnverifiedServed, include_str!("scenarios/corrupting-peers.toml"), "unverified");
}

#[test]
fn a_private_torrent_that_the_dht_hears_of_is_noticed() {
    shows(Sabotage::PrivateTold, include_str!("scenarios/dht-private.toml"), "DHT");
}

#[test]
fn a_turn_that_costs_too_much_is_noticed() {
    shows(Sabotage::CostlyTurn, include_str!("scenarios/hostile-suggest.toml"), "handle_readable took");
}

#[test]
fn a_tracker_that_keeps_who_said_goodbye_is_noticed() {
    shows(Sabotage::StoppedKept, include_str!("scenarios/tracker-crowd.toml"), "who left");
}

#[test]
fn a_tracker_that_tells_of_strangers_is_noticed() {
    shows(Sabotage::StrangerTold, include_str!("scenarios/shared-trackers.toml"), "never announced");
}
