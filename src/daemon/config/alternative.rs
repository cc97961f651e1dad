//! `[limits.alternative]`: other rate limits, by the clock or when somebody says so.

use serde::{Deserialize, Serialize};

use super::fields;

/// `[limits.alternative]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alternative {
    /// Bytes a second that come in; 0 is no limit.
    #[serde(with = "fields::size")]
    pub down: u64,
    /// Bytes a second that go out; 0 is no limit.
    #[serde(with = "fields::size")]
    pub up: u64,
    /// They begin at this time of day, in minutes.
    #[serde(with = "fields::minute", skip_serializing_if = "Option::is_none")]
    pub from: Option<u16>,
    /// They end at this time, on the next day if that is not later.
    #[serde(with = "fields::minute", skip_serializing_if = "Option::is_none")]
    pub to: Option<u16>,
    /// On these days they begin; on every day if there are none.
    pub days: Vec<Day>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the days of the week")]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Alternative {
    /// True if the clock decides; otherwise they hold only when somebody says so.
    #[must_use]
    pub fn has_schedule(&self) -> bool {
        self.from.is_some() || !self.days.is_empty()
    }

    /// Whether the schedule has them hold on a day, counted from Monday, so many minutes after midnight.
    #[must_use]
    pub fn hold_at(&self, weekday: u8, minute: u16) -> bool {
        let (from, to) = (self.from.unwrap_or(0), self.to.unwrap_or(0));
        let begins_on = |weekday: u8| self.days.is_empty() || self.days.iter().any(|day| *day as u8 == weekday);
        let since_today = begins_on(weekday) && minute >= from && (minute < to || to <= from);
        let since_yesterday = begins_on((weekday + 6) % 7) && to <= from && minute < to;
        self.has_schedule() && (since_today || since_yesterday)
    }

    /// What is wrong with them, if they cannot mean anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        (self.from.is_some() != self.to.is_some()).then_some("[limits.alternative] needs both from and to, or neither")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_hold_from_one_time_to_another_on_their_days_and_over_midnight() {
        let at = |from: u16, to: u16, days: &[Day]| Alternative {
            from: Some(from * 60),
            to: Some(to * 60),
            days: days.to_vec(),
            ..Alternative::default()
        };
        let hours = |alternative: &Alternative, weekday| {
            (0..24_u16).filter(|hour| alternative.hold_at(weekday, hour * 60)).collect::<Vec<_>>()
        };
        let office = at(8, 18, &[Day::Mon, Day::Fri]);
        assert_eq!(hours(&office, 0), (8..18).collect::<Vec<_>>());
        assert_eq!(hours(&office, 1), [0_u16; 0]);
        assert!(office.hold_at(4, 18 * 60 - 1) && !office.hold_at(4, 18 * 60));
        let night = at(22, 6, &[Day::Sun]);
        assert_eq!(hours(&night, 6), [22, 23]);
        assert_eq!(hours(&night, 0), (0..6).collect::<Vec<_>>());
        assert_eq!(hours(&night, 1), [0_u16; 0]);
        assert_eq!(hours(&at(7, 7, &[Day::Wed]), 2), (7..24).collect::<Vec<_>>());
        assert_eq!(hours(&at(7, 7, &[Day::Wed]), 3), (0..7).collect::<Vec<_>>());
        let weekend = Alternative { days: vec![Day::Sat], ..Alternative::default() };
        assert_eq!((hours(&weekend, 5).len(), hours(&weekend, 6).len()), (24, 0));
        assert!(hours(&Alternative::default(), 0).is_empty(), "without a schedule somebody has to say so");
    }
}
