//! `[[rule]]`: which torrents it is about, and what holds for them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fields;
use crate::base::rules::{Bounds, End, RULES_MAX, Rule as Meant, Then as MeantThen};

/// `[[rule]]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Their label, a glob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The host of a tracker of theirs, what it ends in, or a glob of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracker: Option<String>,
    /// Private ones, or the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
    /// Bytes of content, at least.
    #[serde(with = "fields::size_option", skip_serializing_if = "Option::is_none")]
    pub size_min: Option<u64>,
    /// Less than that.
    #[serde(with = "fields::size_option", skip_serializing_if = "Option::is_none")]
    pub size_max: Option<u64>,
    /// Since they were added, at least.
    #[serde(with = "fields::duration_option", skip_serializing_if = "Option::is_none")]
    pub added_min: Option<Duration>,
    /// Less than that.
    #[serde(with = "fields::duration_option", skip_serializing_if = "Option::is_none")]
    pub added_max: Option<Duration>,
    /// Since they were finished, at least.
    #[serde(with = "fields::duration_option", skip_serializing_if = "Option::is_none")]
    pub finished_min: Option<Duration>,
    /// Less than that.
    #[serde(with = "fields::duration_option", skip_serializing_if = "Option::is_none")]
    pub finished_max: Option<Duration>,
    /// Seeded enough at this ratio; 0 is never.
    #[serde(deserialize_with = "fields::ratio_option", skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Seeded enough after so long; zero is never.
    #[serde(with = "fields::duration_option", skip_serializing_if = "Option::is_none")]
    pub seed_time: Option<Duration>,
    /// Seeded enough when nobody took anything for so long; zero is never.
    #[serde(with = "fields::duration_option", skip_serializing_if = "Option::is_none")]
    pub idle_time: Option<Duration>,
    /// What happens then.
    #[serde(with = "fields::then", skip_serializing_if = "Option::is_none")]
    pub then: Option<MeantThen>,
    /// Bytes a second that come in; 0 is no limit.
    #[serde(with = "fields::size_option", skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
    /// Bytes a second that go out; 0 is no limit.
    #[serde(with = "fields::size_option", skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// Where new ones come in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueEnd>,
}

/// An end of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueEnd {
    /// Before everybody else.
    Top,
    /// Behind everybody else.
    Bottom,
}

impl Rule {
    /// The rule, for the engine.
    #[must_use]
    pub fn meant(&self) -> Meant {
        Meant {
            label: self.label.clone(),
            tracker: self.tracker.clone(),
            private: self.private,
            size: Bounds { min: self.size_min, max: self.size_max },
            added: Bounds { min: self.added_min, max: self.added_max },
            finished: Bounds { min: self.finished_min, max: self.finished_max },
            ratio: self.ratio,
            seed_time: self.seed_time,
            idle_time: self.idle_time,
            then: self.then.unwrap_or_default(),
            down: self.down,
            up: self.up,
            queue: self.queue.map(|end| match end {
                QueueEnd::Top => End::Top,
                QueueEnd::Bottom => End::Bottom,
            }),
        }
    }

    /// What is wrong with it, if it cannot mean anything.
    fn fault(&self) -> Option<&'static str> {
        let has_goal = self.ratio.is_some() || self.seed_time.is_some() || self.idle_time.is_some();
        let says = has_goal || self.down.is_some() || self.up.is_some() || self.queue.is_some();
        let crossed = |min: Option<u64>, max: Option<u64>| min.zip(max).is_some_and(|(min, max)| min >= max);
        let secs = |time: Option<Duration>| time.map(|time| time.as_secs());
        if self.then.is_some() && !has_goal {
            Some("`then` is what happens at the rule's own ratio, seed_time or idle_time, and it has none of them")
        } else if matches!(self.then, Some(MeantThen::Throttle(_))) && self.idle_time.is_some() {
            Some("a torrent of which nobody takes anything cannot be throttled; `then` something else")
        } else if !says {
            Some("it says nothing: give it a ratio, seed_time, idle_time, down, up or queue")
        } else if crossed(self.size_min, self.size_max)
            || crossed(secs(self.added_min), secs(self.added_max))
            || crossed(secs(self.finished_min), secs(self.finished_max))
        {
            Some("its _min is not below its _max, so it is about no torrent")
        } else {
            None
        }
    }
}

/// What is wrong with the rules of a config, if something is.
pub(super) fn fault(rules: &[Rule]) -> Option<String> {
    if rules.len() > RULES_MAX {
        return Some(format!("there are {} [[rule]]; {RULES_MAX} are allowed", rules.len()));
    }
    let faults = (1..).zip(rules).filter_map(|(number, rule): (usize, &Rule)| Some((number, rule.fault()?)));
    faults.map(|(number, why)| format!("[[rule]] {number}: {why}")).next()
}
