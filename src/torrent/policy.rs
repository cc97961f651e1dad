//! What holds for a torrent: what its user set, else what the first rule that matches says, else the config; and where each value comes
//! from.
//!
//! Rules may be about ages: the torrent looks again when the next of those comes, and not before.

use std::sync::Arc;
use std::time::Duration;

use crate::base::rules::{Bounds, Defaults, End, Rule, Then};
use crate::base::time::Time;
use crate::codec::url::TrackerUrl;
use crate::torrent::settings::glob_matches;
use crate::torrent::torrent::Torrent;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Source {
    /// The user set it.
    Own,
    /// This rule, counted from 1.
    Rule(usize),
    /// The config says so for all, or nothing does.
    #[default]
    Config,
}

/// A value, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Held<T> {
    pub(crate) value: T,
    pub(crate) from: Source,
}

/// Everything that holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Policy {
    pub(crate) ratio: Held<f64>,
    pub(crate) seed_time: Held<Duration>,
    pub(crate) idle_time: Held<Duration>,
    pub(crate) down: Held<u64>,
    pub(crate) up: Held<u64>,
    /// Where it comes in the queue while it is new.
    pub(crate) queue: Option<End>,
}

impl Policy {
    /// The same goals of seeding.
    fn has_goals_of(&self, other: &Self) -> bool {
        let goals = |policy: &Self| (policy.ratio, policy.seed_time, policy.idle_time);
        goals(self) == goals(other)
    }
}

/// What rules are about.
#[derive(Debug)]
struct Facts<'a> {
    label: &'a str,
    hosts: Vec<String>,
    /// Not known of a link, as the size is not.
    private: Option<bool>,
    size: Option<u64>,
    added: Duration,
    finished: Option<Duration>,
}

impl Facts<'_> {
    fn are_of(&self, rule: &Rule) -> bool {
        let is_host = |pattern: &String| self.hosts.iter().any(|host| host_matches(pattern, host));
        rule.label.as_ref().is_none_or(|glob| glob_matches(glob.as_bytes(), self.label.as_bytes()))
            && rule.tracker.as_ref().is_none_or(is_host)
            && rule.private.is_none_or(|private| self.private == Some(private))
            && rule.size.hold(self.size)
            && rule.added.hold(Some(self.added))
            && rule.finished.hold(self.finished)
    }

    /// How soon one of the ages passes a bound of a rule; none if none will.
    fn next_bound(&self, rules: &[Rule]) -> Option<Duration> {
        let ahead = |bounds: &Bounds<Duration>, age: Duration| {
            let [min, max] = [bounds.min, bounds.max].map(|bound| bound.and_then(|bound| bound.checked_sub(age)));
            [min, max].into_iter().flatten().filter(|wait| !wait.is_zero()).min()
        };
        let of_rule = |rule: &Rule| {
            let finished = self.finished.and_then(|age| ahead(&rule.finished, age));
            ahead(&rule.added, self.added).into_iter().chain(finished).min()
        };
        rules.iter().filter_map(of_rule).min()
    }
}

/// A host is meant by a glob of it, by itself, and by what it ends in after a dot.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    let below = host.strip_suffix(&pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    below || glob_matches(pattern.as_bytes(), host.as_bytes())
}

impl Torrent {
    /// Other rules and values hold for torrents from now on.
    pub fn set_defaults(&mut self, now: Time, defaults: Arc<Defaults>) {
        self.defaults = defaults;
        self.apply_policy(now);
    }

    /// It is new, and a rule says where in the queue those come.
    #[must_use]
    pub fn queue_end(&self) -> Option<End> {
        self.policy.queue
    }

    fn facts(&self, now: Time) -> Facts<'_> {
        let age = |at: u64| Duration::from_secs((self.epoch_secs + now.as_secs()).saturating_sub(at));
        let asks_hosts = self.defaults.rules.iter().any(|rule| rule.tracker.is_some());
        let urls = if asks_hosts { self.announces.urls() } else { Vec::new() };
        Facts {
            label: &self.settings.label,
            hosts: urls.iter().flatten().filter_map(|url| TrackerUrl::parse(url).ok()).map(|url| url.host).collect(),
            private: (!self.is_link()).then_some(self.head.private),
            size: (!self.is_link()).then(|| self.size()),
            added: age(self.added),
            finished: self.finished.filter(|_| self.is_finished()).map(age),
        }
    }

    /// The engine takes it in; the wall clock said so at [`Time::ZERO`], Unix seconds.
    pub fn begin_policy(&mut self, now: Time, epoch_secs: u64) {
        self.epoch_secs = epoch_secs;
        let before = self.find_policy(now);
        // The goals may be others than in the run in which it reached them.
        self.reconsider_goals(now, before.idle_time.value);
    }

    /// The clock on the wall was set: by what it says now it said so at [`Time::ZERO`], Unix seconds.
    pub fn set_calendar(&mut self, now: Time, epoch_secs: u64) {
        self.epoch_secs = epoch_secs;
        self.apply_policy(now);
    }

    /// Something that rules are about has changed, or what they say, or what the user set.
    pub(crate) fn apply_policy(&mut self, now: Time) {
        let before = self.find_policy(now);
        if !self.policy.has_goals_of(&before) {
            self.settings.seeds_on = false;
            self.goal_at = if self.running { now } else { Time::NEVER };
            self.reconsider_goals(now, before.idle_time.value);
        }
    }

    /// Finds out what holds now; what held before.
    pub(crate) fn find_policy(&mut self, now: Time) -> Policy {
        let facts = self.facts(now);
        let rules = &self.defaults.rules;
        let matching: Vec<(usize, &Rule)> = (1..).zip(rules).filter(|(_, rule)| facts.are_of(rule)).collect();
        let settings = &self.settings;
        let policy = Policy {
            ratio: held(settings.ratio, &matching, |rule| rule.ratio, self.defaults.ratio),
            seed_time: held(settings.seed_time, &matching, |rule| rule.seed_time, self.defaults.seed_time),
            idle_time: held(settings.idle_time, &matching, |rule| rule.idle_time, self.defaults.idle_time),
            down: held(settings.down_limit, &matching, |rule| rule.down, 0),
            up: held(settings.up_limit, &matching, |rule| rule.up, 0),
            queue: matching.iter().find_map(|(_, rule)| rule.queue),
        };
        self.policy_at = facts.next_bound(rules).map_or(Time::NEVER, |wait| now + wait);
        let before = std::mem::replace(&mut self.policy, policy);
        self.apply_rates(now);
        before
    }

    /// The limits of its own hold, that of a throttle with them.
    pub(crate) fn apply_rates(&mut self, now: Time) {
        let up = match (self.policy.up.value, self.throttle) {
            (own, None) => own,
            (0, Some(throttle)) => throttle,
            (own, Some(throttle)) => own.min(throttle),
        };
        let rates = (self.policy.down.value, up);
        if rates != (self.down_bucket.rate_bytes(), self.up_bucket.rate_bytes()) {
            self.down_bucket.set_rate(now, rates.0);
            self.up_bucket.set_rate(now, rates.1);
            self.wake_all();
        }
    }

    /// What becomes of it when a goal from there is reached.
    pub(crate) fn then(&self, from: Source) -> Then {
        match from {
            Source::Rule(number) => self.defaults.rules.get(number - 1).map(|rule| rule.then).unwrap_or_default(),
            Source::Own | Source::Config => Then::Pause,
        }
    }
}

/// What the user set, else what the first of the matching rules says, else the default.
fn held<T>(own: Option<T>, rules: &[(usize, &Rule)], said: impl Fn(&Rule) -> Option<T>, default: T) -> Held<T> {
    if let Some(value) = own {
        return Held { value, from: Source::Own };
    }
    let by_rule = rules.iter().find_map(|(number, rule)| Some((*number, said(rule)?)));
    match by_rule {
        Some((number, value)) => Held { value, from: Source::Rule(number) },
        None => Held { value: default, from: Source::Config },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            label: "linux",
            hosts: vec!["tracker.example.org".to_owned()],
            private: Some(true),
            size: Some(5000),
            added: Duration::from_secs(100),
            finished: None,
        }
    }

    #[test]
    fn a_rule_is_about_whoever_is_all_that_it_says() {
        let text = |text: &str| Some(text.to_owned());
        let secs = |secs| Some(Duration::from_secs(secs));
        for (rule, matches) in [
            (Rule::default(), true),
            (Rule { label: text("lin*"), private: Some(true), ..Rule::default() }, true),
            (Rule { label: text("lin"), ..Rule::default() }, false),
            (Rule { private: Some(false), ..Rule::default() }, false),
            (Rule { tracker: text("example.org"), ..Rule::default() }, true),
            (Rule { tracker: text("*.EXAMPLE.org"), ..Rule::default() }, true),
            (Rule { tracker: text("ample.org"), ..Rule::default() }, false),
            (Rule { tracker: text("tracker.example.org"), ..Rule::default() }, true),
            (Rule { size: Bounds { min: Some(5000), max: None }, ..Rule::default() }, true),
            (Rule { size: Bounds { min: None, max: Some(5000) }, ..Rule::default() }, false),
            (Rule { added: Bounds { min: secs(100), max: secs(101) }, ..Rule::default() }, true),
            (Rule { added: Bounds { min: secs(101), max: None }, ..Rule::default() }, false),
            (Rule { finished: Bounds { min: None, max: secs(9) }, ..Rule::default() }, false),
        ] {
            assert_eq!(facts().are_of(&rule), matches, "{rule:?}");
        }
        let link = Facts { private: None, size: None, ..facts() };
        assert!(!link.are_of(&Rule { private: Some(false), ..Rule::default() }), "nobody knows yet");
    }

    #[test]
    fn the_next_age_is_waited_for_and_no_other() {
        let rule = |min, max| Rule {
            added: Bounds { min: Some(Duration::from_secs(min)), max: Some(Duration::from_secs(max)) },
            finished: Bounds { min: Some(Duration::from_secs(7)), max: None },
            ..Rule::default()
        };
        let next = |facts: &Facts<'_>, rules: &[Rule]| facts.next_bound(rules).map(|wait| wait.as_secs());
        assert_eq!(next(&facts(), &[rule(10, 300), rule(250, 400)]), Some(150));
        assert_eq!(next(&facts(), &[rule(10, 100)]), None);
        let finished = Facts { finished: Some(Duration::from_secs(3)), ..facts() };
        assert_eq!(next(&finished, &[rule(10, 300)]), Some(4));
        assert_eq!(next(&finished, &[]), None);
    }

    #[test]
    fn what_the_user_set_goes_before_rules_and_rules_before_the_config() {
        let some = Rule { ratio: Some(2.0), ..Rule::default() };
        let (none, other) = (Rule::default(), Rule { ratio: Some(3.0), ..Rule::default() });
        let rules = [(1, &none), (3, &some), (4, &other)];
        let value = |own, rules: &[(usize, &Rule)]| held(own, rules, |rule| rule.ratio, 1.0);
        assert_eq!(value(Some(0.5), &rules), Held { value: 0.5, from: Source::Own });
        assert_eq!(value(None, &rules), Held { value: 2.0, from: Source::Rule(3) });
        assert_eq!(value(None, &rules[..1]), Held { value: 1.0, from: Source::Config });
    }
}
