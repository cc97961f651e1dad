//! Sizes, rates and durations as people write them, in the config file and on the control socket.
//!
//! A size is a whole number and perhaps `K`, `M`, `G` or `T` (1024-based), a rate is a size a second, a duration is a
//! whole number and one of `s`, `m`, `h`, `d`. What [`size`] and [`duration`] write, [`parse_size`] and
//! [`parse_duration`] read back to the same value; [`human_size`] and [`human_duration`] are for eyes only.

use std::time::Duration;

use nom::branch::alt;
use nom::character::complete::{char, one_of, u64 as number};
use nom::combinator::{all_consuming, opt};
use nom::{IResult, Parser};

/// What a size must look like, for messages.
pub const SIZE_FORM: &str = "a whole number of bytes with or without K, M, G or T, such as \"512K\" or \"20M\"";
/// What a duration must look like, for messages.
pub const DURATION_FORM: &str = "a whole number with s, m, h or d, such as \"90s\", \"15m\", \"12h\" or \"7d\"";

const SIZE_UNITS: [(char, u64); 4] = [('T', 1 << 40), ('G', 1 << 30), ('M', 1 << 20), ('K', 1 << 10)];
const DURATION_UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// The bytes that `text` says; none if it is not a size or does not fit.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let unit = alt((one_of("KMGT"), one_of("kmgt")));
    let parsed: IResult<&str, (u64, Option<char>)> = all_consuming((number, opt(unit))).parse(text);
    let (_, (count, unit)) = parsed.ok()?;
    let factor = match unit {
        None => 1,
        Some(unit) => SIZE_UNITS.iter().find(|(letter, _)| *letter == unit.to_ascii_uppercase())?.1,
    };
    count.checked_mul(factor)
}

/// The time that `text` says; none if it is not a duration or does not fit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = alt((char('s'), char('m'), char('h'), char('d')));
    let parsed: IResult<&str, (u64, char)> = all_consuming((number, unit)).parse(text);
    let (_, (count, unit)) = parsed.ok()?;
    let factor = DURATION_UNITS.iter().find(|(letter, _)| *letter == unit)?.1;
    count.checked_mul(factor).map(Duration::from_secs)
}

/// `bytes` in the largest unit that says it exactly.
#[must_use]
pub fn size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((letter, factor)) => format!("{}{letter}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Whole seconds of `time` in the largest unit that says them exactly.
#[must_use]
pub fn duration(time: Duration) -> String {
    let secs = time.as_secs();
    match DURATION_UNITS.iter().find(|(_, factor)| secs != 0 && secs.is_multiple_of(*factor)) {
        Some((letter, factor)) => format!("{}{letter}", secs / factor),
        None => "0s".to_owned(),
    }
}

/// `bytes` in three digits or so: `912`, `1.4K`, `23.8M`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "rounded for people")]
pub fn human_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        Some((letter, factor)) => format!("{:.1}{letter}", bytes as f64 / *factor as f64),
        None => bytes.to_string(),
    }
}

/// `secs` in its two largest units: `42s`, `3m05s`, `2h10m`, `5d03h`.
#[must_use]
pub fn human_duration(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs / 3600 % 24),
    }
}

/// Unix seconds as `2026-11-20 22:50:41 UTC`.
#[must_use]
pub fn moment(unix_secs: u64) -> String {
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", secs / 3600, secs / 60 % 60, secs % 60)
}

/// The date that is `days` after 1970-01-01, in the proleptic Gregorian calendar. Counts in years that begin in March, so
/// that the leap day is the last of its year.
const fn civil(days: u64) -> (u64, u64, u64) {
    let since_march_0000 = days + 719_468;
    let (era, of_era) = (since_march_0000 / 146_097, since_march_0000 % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_1024_based_and_nothing_else_is_a_size() {
        assert_eq!(parse_size("0"), Some(0));
        assert_eq!(parse_size("512K"), Some(512 * 1024));
        assert_eq!(parse_size("20m"), Some(20 << 20));
        assert_eq!(parse_size("1T"), Some(1 << 40));
        for bad in ["", "K", "-1", "1.5M", "1 M", "1MB", "1KK", "99999999999999999999", "18446744073709551615K", "１"]
        {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_need_their_unit() {
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(604_800)));
        for bad in ["", "90", "s", "1w", "1h30m", "-1s", "18446744073709551615d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn people_see_round_figures() {
        assert_eq!(human_size(912), "912");
        assert_eq!(human_size(1434), "1.4K");
        assert_eq!(human_size(25 << 30), "25.0G");
        assert_eq!(human_duration(185), "3m05s");
        assert_eq!(human_duration(442_000), "5d02h");
    }

    #[test]
    fn moments_are_dates() {
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(moment(951_868_799), "2000-02-29 23:59:59 UTC");
        assert_eq!(moment(1_795_215_041), "2026-11-20 22:50:41 UTC");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: u64, secs in 0..u64::MAX / 2) {
            prop_assert_eq!(parse_size(&size(bytes)), Some(bytes));
            prop_assert_eq!(parse_duration(&duration(Duration::from_secs(secs))), Some(Duration::from_secs(secs)));
        }
    }
}
