use super::*;
use crate::codec::http_tracker::{AnnounceAnswer, Failure, ScrapeAnswer};

fn announces(tiers: &[&[&str]], to_all: bool) -> Announces {
    let tiers: Vec<Vec<String>> = tiers.iter().map(|tier| tier.iter().map(|url| (*url).to_owned()).collect()).collect();
    Announces::new(Time::ZERO, &tiers, to_all, Rng::from_number(1))
}

fn asked(announces: &mut Announces) -> Vec<(usize, AnnounceEvent)> {
    std::iter::from_fn(|| announces.poll_ask()).map(|ask| (ask.tracker, ask.event)).collect()
}

fn good(interval: u32) -> Outcome {
    Ok(AnnounceAnswer { interval, peers: vec!["1.2.3.4:5".parse().unwrap()], ..AnnounceAnswer::default() })
}

fn bad() -> Outcome {
    Err(TrackerError::Unreachable)
}

use AnnounceEvent::{Completed, Regular, Started, Stopped};

#[test]
fn a_torrents_life_is_started_regular_completed_stopped() {
    let mut announces = announces(&[&["a"]], false);
    announces.start(Time::ZERO, false);
    assert_eq!(asked(&mut announces), [(0, Started)]);
    assert_eq!(announces.handle_outcome(Time::ZERO, 0, good(1800)).len(), 1);
    assert_eq!(announces.poll_timeout(), Time::from_secs(1800));
    announces.handle_timeout(Time::from_secs(1800));
    assert_eq!(asked(&mut announces), [(0, Regular)]);
    announces.completed(Time::from_secs(1801));
    assert_eq!(asked(&mut announces), [], "one is under way");
    announces.handle_outcome(Time::from_secs(1802), 0, good(1800));
    announces.completed(Time::from_secs(1803));
    announces.handle_timeout(announces.poll_timeout());
    assert_eq!(asked(&mut announces), [(0, Completed)]);
    announces.handle_outcome(Time::from_secs(3602), 0, good(1800));
    announces.stop(Time::from_secs(3603));
    assert_eq!(asked(&mut announces), [(0, Stopped)]);
    announces.handle_outcome(Time::from_secs(3604), 0, good(1800));
    assert!(announces.poll_timeout().is_never() && !announces.is_busy());
}

#[test]
fn what_was_complete_at_the_start_is_never_completed() {
    let mut announces = announces(&[&["a"]], false);
    announces.start(Time::ZERO, true);
    asked(&mut announces);
    announces.handle_outcome(Time::ZERO, 0, good(1800));
    announces.completed(Time::from_secs(5));
    assert_eq!(asked(&mut announces), []);
}

#[test]
fn stopped_is_said_only_to_those_who_heard_started() {
    let mut announces = announces(&[&["a"]], false);
    announces.start(Time::ZERO, false);
    asked(&mut announces);
    announces.stop(Time::ZERO);
    assert_eq!(asked(&mut announces), []);
    announces.handle_outcome(Time::ZERO, 0, good(5));
    assert_eq!(asked(&mut announces), [(0, Stopped)], "it heard it after all");
}

#[test]
fn a_tracker_that_is_being_asked_hears_stopped_once() {
    let mut announces = announces(&[&["a"]], false);
    announces.start(Time::ZERO, false);
    asked(&mut announces);
    announces.handle_outcome(Time::ZERO, 0, good(1800));
    announces.completed(Time::from_secs(1));
    assert_eq!(asked(&mut announces), [(0, Completed)]);
    announces.stop(Time::from_secs(2));
    assert_eq!(asked(&mut announces), []);
    announces.handle_outcome(Time::from_secs(3), 0, good(1800));
    assert_eq!(asked(&mut announces), [(0, Stopped)]);
    announces.handle_outcome(Time::from_secs(4), 0, good(1800));
    assert_eq!(asked(&mut announces), []);
}

#[test]
fn the_next_of_a_tier_and_the_next_tier_are_asked_after_failures() {
    let mut announces = announces(&[&["a", "b"], &["c"]], false);
    announces.start(Time::ZERO, false);
    let [(first, Started)] = asked(&mut announces)[..] else { panic!() };
    announces.handle_outcome(Time::ZERO, first, bad());
    assert_eq!(asked(&mut announces), [(1 - first, Started)]);
    announces.handle_outcome(Time::ZERO, 1 - first, bad());
    assert_eq!(asked(&mut announces), [(2, Started)]);
    announces.handle_outcome(Time::ZERO, 2, good(1800));
    let rows = announces.rows(Time::ZERO);
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), ["failed", "failed", "working"]);
    assert_eq!(rows[0].message.as_deref(), Some("it cannot be reached"));
}

#[test]
fn all_are_asked_where_the_user_wants_it() {
    let mut announces = announces(&[&["a", "b"], &["c"]], true);
    announces.start(Time::ZERO, false);
    assert_eq!(asked(&mut announces).len(), 3);
}

#[test]
fn failures_wait_longer_and_longer_and_a_hurry_obeys_the_least_interval() {
    let mut announces = announces(&[&["a"]], false);
    announces.start(Time::ZERO, false);
    let mut now = Time::ZERO;
    let mut waits = Vec::new();
    for _ in 0..12 {
        assert_eq!(asked(&mut announces), [(0, Started)]);
        announces.handle_outcome(now, 0, bad());
        waits.push(announces.poll_timeout().since(now).as_secs());
        now = announces.poll_timeout();
        announces.handle_timeout(now);
    }
    assert!(waits[0] >= 15 && waits[3] >= 120 && waits[11] <= 4500, "{waits:?}");
    asked(&mut announces);
    let answer = AnnounceAnswer { interval: 1800, min_interval: Some(600), ..AnnounceAnswer::default() };
    announces.handle_outcome(now, 0, Ok(answer));
    announces.hurry(now + Duration::from_secs(5));
    assert_eq!(asked(&mut announces), []);
    assert_eq!(announces.poll_timeout(), now + Duration::from_secs(600));
}

#[test]
fn a_tracker_is_asked_every_hour_while_something_is_missing_unless_it_forbids_it() {
    for (finished, min_interval, expected) in
        [(false, None, 3600), (true, None, 86_400), (false, Some(7200), 7200), (false, Some(1000), 3600)]
    {
        let mut announces = announces(&[&["a"]], false);
        announces.start(Time::ZERO, finished);
        asked(&mut announces);
        let answer = AnnounceAnswer { interval: 1 << 30, min_interval, ..AnnounceAnswer::default() };
        announces.handle_outcome(Time::ZERO, 0, Ok(answer));
        assert_eq!(announces.poll_timeout(), Time::from_secs(expected), "{finished} {min_interval:?}");
    }
}

#[test]
fn a_tracker_that_says_never_is_left_alone() {
    let mut announces = announces(&[&["a"]], false);
    announces.start(Time::ZERO, false);
    asked(&mut announces);
    let failure = Failure { reason: "gone\n\u{1b}[31m".into(), retry_in: Some(RetryIn::Never) };
    announces.handle_outcome(Time::ZERO, 0, Err(TrackerError::Failure(failure)));
    assert!(announces.poll_timeout().is_never());
    announces.hurry(Time::from_secs(99_999));
    assert_eq!(asked(&mut announces), []);
    assert_eq!(announces.rows(Time::ZERO)[0].message.as_deref(), Some("it refused for good: gone  [31m"));
}

#[test]
fn a_tracker_that_says_never_after_it_worked_hears_nothing_more() {
    let mut announces = announces(&[&[URL]], false);
    announces.start(Time::ZERO, false);
    asked(&mut announces);
    announces.handle_outcome(Time::ZERO, 0, good(1800));
    announces.handle_timeout(Time::from_secs(1800));
    assert_eq!(asked(&mut announces), [(0, Regular)]);
    let failure = Failure { reason: "gone".into(), retry_in: Some(RetryIn::Never) };
    announces.handle_outcome(Time::from_secs(1800), 0, Err(TrackerError::Failure(failure)));
    announces.stop(Time::from_secs(1801));
    assert_eq!(asked(&mut announces), [], "no goodbye");
    announces.start(Time::from_secs(1802), false);
    assert_eq!(asked(&mut announces), [], "and no new beginning");
    assert!(announces.poll_timeout().is_never(), "nor a scrape");
}

#[test]
fn a_tracker_that_names_minutes_is_left_alone_for_them_by_announces_and_scrapes() {
    let mut announces = announces(&[&[URL]], false);
    announces.start(Time::ZERO, false);
    asked(&mut announces);
    let failure = Failure { reason: "busy\0".into(), retry_in: Some(RetryIn::Minutes(300)) };
    announces.handle_outcome(Time::ZERO, 0, Err(TrackerError::Failure(failure)));
    let minutes = Time::from_secs(300 * 60);
    assert_eq!(announces.poll_timeout(), minutes);
    announces.hurry(Time::from_secs(60));
    announces.stop(Time::from_secs(61));
    assert_eq!(announces.poll_timeout(), minutes, "for a scrape");
    announces.start(Time::from_secs(62), false);
    assert_eq!(asked(&mut announces), []);
    assert_eq!(announces.poll_timeout(), minutes);
    assert_eq!(announces.rows(Time::ZERO)[0].message.as_deref(), Some("it refused: busy"));
}

const URL: &str = "udp://t:1/announce";

/// Waits for scrapes until `until`: when they were made. Each is answered at once.
fn scraped(announces: &mut Announces, until: u64) -> Vec<u64> {
    let mut times = Vec::new();
    while announces.poll_timeout() <= Time::from_secs(until) {
        let now = announces.poll_timeout();
        announces.handle_timeout(now);
        assert_eq!(asked(announces), [], "an announce is due");
        while let Some(scrape) = announces.poll_scrape() {
            assert_eq!((scrape.tracker, scrape.url.as_str()), (0, URL));
            times.push(now.as_secs());
            let counts = ScrapeAnswer { seeders: Some(7), leechers: Some(8), ..ScrapeAnswer::default() };
            announces.handle_scraped(now, 0, &Ok(counts));
        }
    }
    times
}

#[test]
fn a_torrent_that_does_not_run_is_scraped_every_half_hour_at_the_tracker_whose_turn_it_is() {
    let mut announces = announces(&[&[URL], &["udp://t:2"]], false);
    let times = scraped(&mut announces, 10_000);
    assert!((60..600).contains(&times[0]) && times.len() == 6, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == 1800), "{times:?}");
    let row = &announces.rows(Time::ZERO)[0];
    assert_eq!((row.state, row.seeders, row.leechers), ("idle", Some(7), Some(8)));
}

#[test]
fn a_download_is_scraped_only_where_announces_tell_no_counts() {
    for (seeders, expected) in [(Some(1), 0), (None, 2)] {
        let mut announces = announces(&[&[URL]], false);
        announces.start(Time::ZERO, false);
        asked(&mut announces);
        assert!(scraped(&mut announces, 700).is_empty(), "an announce is under way");
        let answer = AnnounceAnswer { interval: 7200, seeders, leechers: Some(1), ..AnnounceAnswer::default() };
        announces.handle_outcome(Time::from_secs(700), 0, Ok(answer));
        assert_eq!(scraped(&mut announces, 700 + 3000).len(), expected);
    }
}

#[test]
fn a_seed_is_scraped_only_where_its_announces_are_rare() {
    for (interval, expected) in [(1800, 0), (7200, 3)] {
        let mut announces = announces(&[&[URL]], false);
        announces.start(Time::ZERO, true);
        let answer = AnnounceAnswer { interval, seeders: Some(1), leechers: Some(1), ..AnnounceAnswer::default() };
        let mut scrapes = 0;
        for round in 0..4 {
            assert_eq!(asked(&mut announces).len(), 1);
            let now = Time::from_secs(round * u64::from(interval));
            announces.handle_outcome(now, 0, Ok(answer.clone()));
            scrapes += scraped(&mut announces, (round + 1) * u64::from(interval) - 1).len();
            announces.handle_timeout(Time::from_secs((round + 1) * u64::from(interval)));
        }
        assert_eq!(scrapes, expected * 4);
    }
}
