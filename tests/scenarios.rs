//! Every named scenario holds what it promises, twice the same way; so do fifty fresh ones that are drawn by chance, and those
//! in which the simulator once found something, which `tests/scenarios/found` keeps as they were drawn.

use std::fs;
use std::path::{Path, PathBuf};

use swarmtorrent::base::time::Time;
use swarmtorrent::sim::random;
use swarmtorrent::sim::report::Report;
use swarmtorrent::sim::scenario::Scenario;
use swarmtorrent::sim::swarm;
use swarmtorrent::sim::trace::shown_hash;

/// How many scenarios are drawn anew; `SWARMTORRENT_SEEDS` changes it.
const FRESH: u64 = 50;

fn live(scenario: &Scenario, seed: u64) -> Report {
    match swarm::run(scenario, seed, Time::NEVER, &mut |_| {}) {
        Ok(report) => report,
        Err(failure) => panic!("{failure}\n(swarmtorrent simulate random --seed {seed} --print shows a drawn one)"),
    }
}

/// The scenarios in a directory below `tests`.
fn named(dir: &str) -> Vec<(PathBuf, Scenario)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(dir);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).expect("there are some").map(|entry| entry.expect("one").path()).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    let read = |path: PathBuf| {
        let scenario = Scenario::parse(&fs::read_to_string(&path).expect("it can be read"));
        (path, scenario.expect("a good scenario"))
    };
    paths.into_iter().map(read).collect()
}

/// Lives through every second named scenario, from `first` on: two processors share them.
fn hold_their_promises(first: usize) {
    let named = named("scenarios");
    assert!(named.len() >= 38, "only {} were found", named.len());
    for (path, scenario) in named.into_iter().skip(first).step_by(2) {
        let (first, second) = (live(&scenario, scenario.seed), live(&scenario, scenario.seed));
        assert_eq!(first.trace, second.trace, "{}", path.display());
        println!("{}", first.line());
    }
}

#[test]
fn named_scenarios_hold_what_they_promise_twice_the_same_way() {
    hold_their_promises(0);
}

#[test]
fn the_other_named_scenarios_do_too() {
    hold_their_promises(1);
}

#[test]
fn what_was_found_once_is_found_no_more() {
    let found = named("scenarios/found");
    assert!(found.len() >= 10, "only {} are there", found.len());
    for (_, scenario) in found {
        println!("{}", live(&scenario, scenario.seed).line());
    }
}

#[test]
fn fresh_scenarios_break_no_rule() {
    let count = std::env::var("SWARMTORRENT_SEEDS").map_or(FRESH, |count| count.parse().expect("a number"));
    let mut fresh = [0; 4];
    getrandom::fill(&mut fresh).expect("the kernel has some");
    let first = u64::from(u32::from_ne_bytes(fresh));
    println!("seeds {first} to {}", first + count - 1);
    for seed in first..first + count {
        let report = live(&random::scenario(seed), seed);
        assert!(report.ended > Time::ZERO);
    }
}

/// A run in a build without optimisation gives what the optimised program of the test script gave.
#[test]
fn builds_agree() {
    let Ok(told) = std::env::var("SWARMTORRENT_TRACE") else {
        println!("left out: tests/run compares builds");
        return;
    };
    let scenario = Scenario::parse(include_str!("scenarios/crash-storm.toml")).expect("a good scenario");
    assert!(told.contains(&shown_hash(&live(&scenario, 3).trace)), "{told}");
}
