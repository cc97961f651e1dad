//! How single values stand in the file: each reader says what is allowed when it refuses.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::codec::socks::ProxyUrl;
use crate::protocol::redis::url::RedisUrl;
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};

/// The largest number of anything that is counted,
const COUNT_MAX: i64 = 1_000_000;
/// and of what there may be many of.
const MANY_MAX: i64 = 1_000_000_000;

/// Reads a string by `parse`.
struct Text<T> {
    allowed: &'static str,
    parse: fn(&str) -> Option<T>,
    of: PhantomData<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.allowed)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

fn text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    allowed: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Text { allowed, parse, of: PhantomData })
}

pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    whole(deserializer, 1, COUNT_MAX)
}

pub(super) fn many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    whole(deserializer, 1, MANY_MAX)
}

pub(super) fn count_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    whole(deserializer, 0, COUNT_MAX)
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D, least: i64, most: i64) -> Result<usize, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let refuse = || D::Error::custom(format!("{number} is not a whole number from {least} to {most}"));
    if !(least..=most).contains(&number) {
        return Err(refuse());
    }
    usize::try_from(number).map_err(|_| refuse())
}

pub(super) fn ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(deserializer)?;
    if ratio.is_finite() && ratio >= 0.0 {
        return Ok(ratio);
    }
    Err(D::Error::custom(format!("{ratio} is not a ratio: a number from 0, which means never")))
}

pub(super) mod size {
    use super::*;
    use crate::codec::units::{SIZE_FORM, parse_size, size};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&size(*bytes))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        text(deserializer, SIZE_FORM, parse_size)
    }
}

pub(super) mod duration {
    use super::*;
    use crate::codec::units::{DURATION_FORM, duration, parse_duration};

    pub(in super::super) fn serialize<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&duration(*time))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        text(deserializer, DURATION_FORM, parse_duration)
    }
}

/// A time of day, in minutes since midnight, that may not be said.
pub(super) mod minute {
    use super::*;

    fn parse(text: &str) -> Option<u16> {
        let (hour, minute) = text.split_once(':')?;
        let number = |text: &str, len: usize, below: u16| {
            let is_number = (1..=len).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|number: &u16| is_number && *number < below)
        };
        Some(number(hour, 2, 24)? * 60 + number(minute, 2, 60).filter(|_| minute.len() == 2)?)
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(minute: &Option<u16>, to: S) -> Result<S::Ok, S::Error> {
        let minute = minute.unwrap_or_default();
        to.serialize_str(&format!("{:02}:{:02}", minute / 60, minute % 60))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
        text(from, "a time of day such as \"08:00\" or \"23:30\"", parse).map(Some)
    }
}

/// A size that may not be said.
pub(super) mod size_option {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(bytes: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        size::serialize(&bytes.unwrap_or(0), to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        size::deserialize(from).map(Some)
    }
}

/// A duration that may not be said.
pub(super) mod duration_option {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration::serialize(&time.unwrap_or_default(), to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(from).map(Some)
    }
}

pub(super) fn ratio_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    ratio(deserializer).map(Some)
}

/// What becomes of a torrent that has seeded enough.
pub(super) mod then {
    use super::*;
    use crate::base::rules::Then;
    use crate::codec::units::{parse_size, size};

    fn parse(text: &str) -> Option<Then> {
        match text {
            "pause" => Some(Then::Pause),
            "remove" => Some(Then::Remove),
            "remove-data" => Some(Then::RemoveWithData),
            _ => parse_size(text.strip_prefix("throttle ")?).filter(|rate| *rate > 0).map(Then::Throttle),
        }
    }

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(then: &Option<Then>, to: S) -> Result<S::Ok, S::Error> {
        match then.unwrap_or_default() {
            Then::Pause => to.serialize_str("pause"),
            Then::Remove => to.serialize_str("remove"),
            Then::RemoveWithData => to.serialize_str("remove-data"),
            Then::Throttle(rate) => to.serialize_str(&format!("throttle {}", size(rate))),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Then>, D::Error> {
        let allowed =
            "one of \"pause\", \"remove\", \"remove-data\", or \"throttle\" with a rate such as \"throttle 50K\"";
        text(from, allowed, parse).map(Some)
    }
}

/// A duration that something waits for: from a second to a day.
pub(super) mod wait {
    use super::*;
    use crate::codec::units::parse_duration;
    pub(in super::super) use duration::serialize;

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let day = Duration::from_secs(86_400);
        let time = text(deserializer, "a duration such as \"15s\" or \"30m\"", parse_duration)?;
        if (Duration::from_secs(1)..=day).contains(&time) {
            return Ok(time);
        }
        Err(D::Error::custom("a duration from \"1s\" to \"1d\" is allowed here"))
    }
}

/// Names and addresses with ports.
pub(super) fn hosts_and_ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Vec::<String>::deserialize(deserializer)?;
    match list.iter().find(|text| crate::codec::url::host_and_port(text).is_none()) {
        Some(bad) => Err(D::Error::custom(format!("`{bad}` is not HOST:PORT, such as \"node.example.org:6881\""))),
        None => Ok(list),
    }
}

/// `memory`, or the address of a Redis-compatible server, or several of a cluster.
pub(super) fn store<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match RedisUrl::parse(&text) {
        Err(error) if text != "memory" => {
            Err(D::Error::custom(format!("{error}; a store is \"memory\" or \"redis://HOST:PORT\"")))
        }
        _ => Ok(text),
    }
}

/// The address of a proxy; what is wrong with it is said without it, for there may be a password in it.
pub(super) fn proxy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() || ProxyUrl::parse(&text).is_some() {
        return Ok(text);
    }
    let form =
        "\"socks5://HOST:PORT\" or \"socks5://USER:PASSWORD@HOST:PORT\", with %XX for what is special in an address";
    Err(D::Error::custom(format!("a proxy is {form}; \"\" is none")))
}

/// Ranges of addresses.
pub(super) mod nets {
    use super::*;
    use crate::base::net::Net;

    pub(in super::super) fn serialize<S: serde::Serializer>(nets: &[Net], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(nets.iter().map(ToString::to_string))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Net>, D::Error> {
        let read = |text: &String| {
            let form = "is not an address or a range of some, such as \"10.0.0.0/8\"";
            Net::parse(text).ok_or_else(|| D::Error::custom(format!("`{text}` {form}")))
        };
        Vec::<String>::deserialize(deserializer)?.iter().map(read).collect()
    }
}

/// Permissions, in octal.
pub(super) mod mode {
    use super::*;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{mode:04o}"))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let parse = |text: &str| {
            let is_octal = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777)
        };
        text(deserializer, "permissions in octal from \"0000\" to \"0777\", such as \"0660\"", parse)
    }
}

pub(super) mod level {
    use super::*;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(
        level: &log::LevelFilter,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&level.as_str().to_lowercase())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<log::LevelFilter, D::Error> {
        text(deserializer, "one of off, error, warn, info, debug, trace", |text| text.parse().ok())
    }
}

/// An absolute path: the daemon's working directory means nothing to anybody.
pub(super) mod path {
    use std::path::{Path, PathBuf};

    use super::*;

    pub(in super::super) fn serialize<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&path.to_string_lossy())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        text(deserializer, "an absolute path", |text| Some(PathBuf::from(text)).filter(|path| path.is_absolute()))
    }
}

pub(super) mod path_option {
    use std::path::PathBuf;

    use super::*;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&path.as_deref().unwrap_or_else(|| std::path::Path::new("")).to_string_lossy())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        path::deserialize(from).map(Some)
    }
}

pub(super) mod addresses {
    use std::net::SocketAddr;

    use serde::Serialize as _;

    use super::*;

    pub(in super::super) fn serialize<S: serde::Serializer>(list: &[SocketAddr], to: S) -> Result<S::Ok, S::Error> {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
        let list = Vec::<String>::deserialize(from)?;
        let read = |text: &String| {
            let refuse = || {
                D::Error::custom(format!(
                    "\"{text}\" is not an address with a port, such as \"0.0.0.0:6881\" or \"[::]:6881\""
                ))
            };
            text.parse().map_err(|_| refuse())
        };
        list.iter().map(read).collect()
    }
}

/// `"auto"` or a number.
pub(super) mod slots {
    use super::*;
    use crate::base::config::UploadSlots;

    struct Slots;

    impl Visitor<'_> for Slots {
        type Value = UploadSlots;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("\"auto\" or a whole number from 1 to 1000")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<UploadSlots, E> {
            match text {
                "auto" => Ok(UploadSlots::Auto),
                _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<UploadSlots, E> {
            match u32::try_from(number) {
                Ok(slots @ 1..=1000) => Ok(UploadSlots::Fixed(slots)),
                _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
            }
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(in super::super) fn serialize<S: serde::Serializer>(slots: &UploadSlots, to: S) -> Result<S::Ok, S::Error> {
        match slots {
            UploadSlots::Auto => to.serialize_str("auto"),
            UploadSlots::Fixed(slots) => to.serialize_u32(*slots),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<UploadSlots, D::Error> {
        from.deserialize_any(Slots)
    }
}
