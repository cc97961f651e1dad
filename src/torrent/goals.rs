//! When a torrent has seeded enough, and what becomes of it then: by its ratio, by the time that it has seeded, by the time that nobody
//! took anything.
//!
//! The ratio is looked at while there are peers, for only then it moves; the times when the first of them has come.

use std::time::Duration;

use crate::base::rules::Then;
use crate::base::time::Time;
use crate::torrent::policy::Source;
use crate::torrent::torrent::{Ask, Torrent};

/// A goal of seeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Ratio,
    Time,
    Idle,
}

impl Goal {
    /// The setting that says where it is.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Time => "seed-time",
            Self::Idle => "idle-time",
        }
    }
}

impl Torrent {
    /// It seeds from now on.
    pub(crate) fn begin_seeding(&mut self, now: Time) {
        self.seeding_since = now;
        self.taken_at = now;
        self.goal_at = now;
    }

    /// It seeds no longer.
    pub(crate) fn end_seeding(&mut self, now: Time) {
        self.seeded_before = self.seeded(now);
        self.seeding_since = Time::NEVER;
        self.goal_at = Time::NEVER;
    }

    /// How long it has seeded, in all runs together.
    pub(crate) fn seeded(&self, now: Time) -> Duration {
        let since = self.seeding_since;
        self.seeded_before + if since.is_never() { Duration::ZERO } else { now.since(since) }
    }

    /// The goal that is reached, and who set it; none while it should seed on.
    pub(crate) fn goal_reached(&self, now: Time) -> Option<(Goal, Source)> {
        let (ratio, time, idle) = (self.policy.ratio, self.policy.seed_time, self.policy.idle_time);
        let is_idle = !self.seeding_since.is_never() && now.since(self.taken_at) >= idle.value;
        if ratio.value > 0.0 && self.ratio() >= ratio.value {
            Some((Goal::Ratio, ratio.from))
        } else if !time.value.is_zero() && self.seeded(now) >= time.value {
            Some((Goal::Time, time.from))
        } else if !idle.value.is_zero() && (self.settings.idle_enough || is_idle) {
            Some((Goal::Idle, idle.from))
        } else {
            None
        }
    }

    /// The torrent could not be removed: its seeding limits count again.
    pub fn stays(&mut self, now: Time) {
        self.leaves = false;
        if self.removal.take().is_some() {
            self.persistence.touch(now);
        }
    }

    /// Whether it has seeded enough: acts if so, and says when to look again if not.
    pub(crate) fn consider_goals(&mut self, now: Time) {
        self.goal_at = Time::NEVER;
        if !self.running || !self.is_finished() || self.settings.seeds_on || self.leaves {
            return;
        }
        let Some((goal, from)) = self.goal_reached(now) else {
            self.throttle_to(now, None);
            let wait = |goal: Duration, done: Duration| (!goal.is_zero()).then(|| goal.saturating_sub(done));
            let waits = [
                wait(self.policy.seed_time.value, self.seeded(now)),
                wait(self.policy.idle_time.value, now.since(self.taken_at)),
            ];
            self.goal_at = waits.into_iter().flatten().min().map_or(Time::NEVER, |wait| now + wait);
            return;
        };
        match self.then(from) {
            Then::Throttle(rate_bytes) => self.throttle_to(now, Some(rate_bytes)),
            // What lies in a share directory is shared as long as it lies there.
            Then::Remove | Then::RemoveWithData if !self.settings.shared => {
                let data = self.then(from) == Then::RemoveWithData;
                let what = if data { "its content is deleted with it" } else { "its content stays" };
                log::info!("{}: seeded enough ({}), removed; {what}", self.display_name(), goal.key());
                self.leaves = true;
                self.asks.push_back(Ask::Remove { data });
            }
            Then::Pause | Then::Remove | Then::RemoveWithData => {
                log::info!("{}: seeded enough ({})", self.display_name(), goal.key());
                self.settings.seeded_enough = true;
                self.settings.idle_enough = goal == Goal::Idle;
                self.paused = true;
                self.turn_changed = true;
                self.reconsider(now);
            }
        }
    }

    fn throttle_to(&mut self, now: Time, throttle: Option<u64>) {
        if self.throttle != throttle {
            if let Some(rate) = throttle {
                log::info!("{}: seeded enough, sends {rate} bytes a second from now on", self.display_name());
            }
            self.throttle = throttle;
            self.apply_rates(now);
        }
    }

    /// Where the goals are may not be what it was: who has seeded enough may not have any more.
    pub(crate) fn reconsider_goals(&mut self, now: Time, idle_before: Duration) {
        if !self.settings.seeded_enough {
            return;
        }
        // How long nobody took anything is known no more, but that it was as long as was asked for.
        let idle = self.policy.idle_time.value;
        self.settings.idle_enough &= !idle.is_zero() && (idle_before.is_zero() || idle <= idle_before);
        if self.goal_reached(now).is_none() {
            self.settings.seeded_enough = false;
            self.paused = false;
            self.turn_changed = true;
            self.persistence.touch(now);
            self.reconsider(now);
        }
    }

    /// The user wants it to go on, or to stop: what a goal made of it counts no more.
    pub(crate) fn forget_goals(&mut self, seeds_on: bool) {
        self.settings.seeds_on = seeds_on && (self.settings.seeded_enough || self.settings.seeds_on);
        self.settings.seeded_enough = false;
        self.settings.idle_enough = false;
    }

    pub(crate) fn has_seeded_enough(&self) -> bool {
        self.settings.seeded_enough && self.is_finished()
    }
}
