//! What is asked of torrents by what they are: rules of the config (`[[rule]]`), and what holds where none says anything.

use std::time::Duration;

/// Rules of a config; one with more is refused, for each is looked at for every torrent.
pub const RULES_MAX: usize = 100;

/// What becomes of a torrent that has seeded enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Then {
    /// It stops.
    #[default]
    Pause,
    /// It is taken out; its content stays.
    Remove,
    /// It is taken out, and its content is deleted.
    RemoveWithData,
    /// It seeds on at so many bytes a second.
    Throttle(u64),
}

/// An end of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Before everybody else.
    Top,
    /// Behind everybody else.
    Bottom,
}

/// From the first on, and below the second; none is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds<T> {
    /// At least.
    pub min: Option<T>,
    /// Less than.
    pub max: Option<T>,
}

impl<T: PartialOrd + Copy> Bounds<T> {
    /// True if something is within the bounds. What is not known is within none.
    #[must_use]
    pub fn hold(&self, value: Option<T>) -> bool {
        match value {
            Some(value) => self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value < max),
            None => self.min.is_none() && self.max.is_none(),
        }
    }
}

/// One rule: which torrents it is about, and what holds for them. What is not said there is left to later rules.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rule {
    /// Their label, `*` and `?` as in globs.
    pub label: Option<String>,
    /// The host of one of their trackers, or what that ends in after a dot; `*` and `?` as in globs.
    pub tracker: Option<String>,
    /// Private ones, or the others.
    pub private: Option<bool>,
    /// Bytes of all content.
    pub size: Bounds<u64>,
    /// How long ago they were added.
    pub added: Bounds<Duration>,
    /// How long ago they were finished.
    pub finished: Bounds<Duration>,
    /// Seeded enough at this ratio; 0 is never.
    pub ratio: Option<f64>,
    /// Seeded enough after so long; zero is never.
    pub seed_time: Option<Duration>,
    /// Seeded enough when nobody took anything for so long; zero is never.
    pub idle_time: Option<Duration>,
    /// What happens then.
    pub then: Then,
    /// Bytes a second that come in; 0 is no limit.
    pub down: Option<u64>,
    /// Bytes a second that go out; 0 is no limit.
    pub up: Option<u64>,
    /// Where new ones come in the queue.
    pub queue: Option<End>,
}

/// What holds for torrents whose user has said nothing about them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Defaults {
    /// Seeded enough at this ratio; 0 is never.
    pub ratio: f64,
    /// Seeded enough after so long; zero is never.
    pub seed_time: Duration,
    /// Seeded enough when nobody took anything for so long; zero is never.
    pub idle_time: Duration,
    /// Each value is that of the first rule that matches and says one; then that above.
    pub rules: Vec<Rule>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_within_no_bounds() {
        let bounds = Bounds { min: Some(2), max: Some(4) };
        assert_eq!([1, 2, 3, 4].map(|value| bounds.hold(Some(value))), [false, true, true, false]);
        assert!(!bounds.hold(None));
        assert!(Bounds::<u64>::default().hold(None) && Bounds::default().hold(Some(7)));
    }
}
