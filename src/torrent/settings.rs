//! What a user may change of one torrent: `set`, `get`, `priority`.

use std::time::Duration;

use crate::base::geometry::Span;
use crate::base::time::Time;
use crate::torrent::command::{FilePattern, Refusal, RefusalKind};
use crate::torrent::download::Download;
use crate::torrent::policy::Source;
use crate::torrent::snapshot::Priority;
use crate::torrent::torrent::{Ask, Torrent};

/// The longest label, in bytes; a longer one is refused.
pub const LABEL_MAX: usize = 255;

/// The most that `max-peers` may be; more is refused.
pub(crate) const PEERS_MAX: usize = 10_000;

/// The settings of one torrent.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Settings {
    pub(crate) label: String,
    /// It lies in a share directory.
    pub(crate) shared: bool,
    /// Nobody is to see it.
    pub(crate) peek: bool,
    pub(crate) sequential: bool,
    /// Show each peer one piece at a time, until the swarm has all.
    pub(crate) super_seed: bool,
    /// What the user has not set is none: rules and the config say it.
    pub(crate) ratio: Option<f64>,
    pub(crate) seed_time: Option<Duration>,
    pub(crate) idle_time: Option<Duration>,
    pub(crate) down_limit: Option<u64>,
    pub(crate) up_limit: Option<u64>,
    pub(crate) max_peers: Option<usize>,
    /// A goal of seeding was reached, and so it was paused.
    pub(crate) seeded_enough: bool,
    /// It was that nobody took anything for long enough.
    pub(crate) idle_enough: bool,
    /// The user started it again after that: goals count no more until they change.
    pub(crate) seeds_on: bool,
}

/// A setting, its value, and where that comes from, for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Its name.
    pub key: &'static str,
    /// Its value, as `set` takes it.
    pub value: String,
    /// `own` if the user set it, else what says so: `rule 2`, `config`.
    pub from: String,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// Before everybody else.
    Top,
    /// Behind everybody else.
    Bottom,
    /// So many are before it then, and itself; behind everybody if there are fewer.
    At(usize),
}

/// One change of a setting, understood and in range.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `down-limit`: bytes a second, 0 is none. This and the next five are none for `default`: rules and the config say it.
    DownLimit(Option<u64>),
    /// `up-limit`: bytes a second, 0 is none.
    UpLimit(Option<u64>),
    /// `max-peers`: 1 to 10,000.
    MaxPeers(Option<usize>),
    /// `ratio`: stop seeding there, 0 is never.
    Ratio(Option<f64>),
    /// `seed-time`: stop seeding after so long, 0 is never.
    SeedTime(Option<Duration>),
    /// `idle-time`: stop seeding when nobody took anything for so long, 0 is never.
    IdleTime(Option<Duration>),
    /// `sequential`: pieces in the order of the content.
    Sequential(bool),
    /// `super-seed`: show each peer one piece at a time, until the swarm has all.
    SuperSeed(bool),
    /// `label`: a word of the user's.
    Label(String),
    /// `queue`: its place among all torrents, which the engine keeps.
    Queue(Spot),
}

/// The settings that there are, in the order `get` shows them.
const KEYS: [&str; 10] = [
    "down-limit",
    "up-limit",
    "max-peers",
    "ratio",
    "seed-time",
    "idle-time",
    "sequential",
    "super-seed",
    "label",
    "queue",
];

impl Change {
    /// What `set` was asked.
    ///
    /// # Errors
    /// An unknown key or a value out of range; the message says what is allowed.
    pub fn parse(key: &str, value: &str) -> Result<Self, Refusal> {
        let invalid = |allowed: &str| {
            Refusal::new(
                RefusalKind::Invalid,
                format!("{key} cannot be `{}`; it takes {allowed}", value.escape_debug()),
            )
        };
        let rate = || {
            let allowed = "a rate such as 500K or 2M, 0 for none, or `default`";
            own(value, parse_size).ok_or_else(|| invalid(allowed))
        };
        let switch = || match value {
            "yes" | "true" | "on" => Ok(true),
            "no" | "false" | "off" => Ok(false),
            _ => Err(invalid("yes or no")),
        };
        let time = || {
            let allowed = "a time such as 90s, 15m, 12h or 7d, 0s for never, or `default`";
            own(value, parse_duration).ok_or_else(|| invalid(allowed))
        };
        match key {
            "down-limit" => rate().map(Self::DownLimit),
            "up-limit" => rate().map(Self::UpLimit),
            "max-peers" => {
                let count = own(value, |text| text.parse().ok().filter(|count| (1..=PEERS_MAX).contains(count)));
                count.map(Self::MaxPeers).ok_or_else(|| invalid("a number from 1 to 10000, or `default`"))
            }
            "ratio" => {
                let is_ratio = |ratio: &f64| ratio.is_finite() && *ratio >= 0.0;
                let ratio = own(value, |text| text.parse().ok().filter(is_ratio));
                ratio.map(Self::Ratio).ok_or_else(|| invalid("a number such as 1.5, 0 for never, or `default`"))
            }
            "seed-time" => time().map(Self::SeedTime),
            "idle-time" => time().map(Self::IdleTime),
            "sequential" => switch().map(Self::Sequential),
            "super-seed" => switch().map(Self::SuperSeed),
            "label" if value.len() <= LABEL_MAX => Ok(Self::Label(value.to_owned())),
            "label" => Err(invalid("at most 255 bytes")),
            "queue" => match value {
                "top" => Ok(Self::Queue(Spot::Top)),
                "bottom" => Ok(Self::Queue(Spot::Bottom)),
                _ => {
                    let number = value.parse().ok().filter(|number| *number >= 1);
                    let spot = number.map(|number| Self::Queue(Spot::At(number)));
                    spot.ok_or_else(|| invalid("a number from 1, `top` or `bottom`"))
                }
            },
            _ => Err(unknown_key(key)),
        }
    }
}

/// What a value means, or none for the word that takes it back.
fn own<T>(value: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if value == "default" { Some(None) } else { parse(value).map(Some) }
}

/// Where a value comes from, for the user.
pub(crate) fn source(from: Source) -> String {
    match from {
        Source::Own => "own".to_owned(),
        Source::Rule(number) => format!("rule {number}"),
        Source::Config => "config".to_owned(),
    }
}

fn unknown_key(key: &str) -> Refusal {
    let message = format!("there is no setting `{}`; there are {}", key.escape_debug(), KEYS.join(", "));
    Refusal::new(RefusalKind::NotFound, message)
}

/// A size or rate as users write it: digits with `K`, `M`, `G` or `T`, 1024-based.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.char_indices().last()? {
        (at, 'K' | 'k') => (&text[..at], 10),
        (at, 'M' | 'm') => (&text[..at], 20),
        (at, 'G' | 'g') => (&text[..at], 30),
        (at, 'T' | 't') => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    number.checked_mul(1 << shift).filter(|&size| size < 1 << 53)
}

/// A duration as users write it: digits with `s`, `m`, `h` or `d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (at, unit) = text.char_indices().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = &text[..at];
    let number: u64 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    number.checked_mul(seconds).filter(|&secs| secs < 1 << 32).map(Duration::from_secs)
}

impl Torrent {
    /// Makes a change.
    pub fn set(&mut self, now: Time, change: &Change) {
        match change {
            Change::DownLimit(rate) => self.settings.down_limit = *rate,
            Change::UpLimit(rate) => self.settings.up_limit = *rate,
            Change::MaxPeers(count) => {
                self.settings.max_peers = *count;
                self.apply_max_peers(now);
            }
            Change::Ratio(ratio) => self.settings.ratio = *ratio,
            Change::SeedTime(time) => self.settings.seed_time = *time,
            Change::IdleTime(time) => self.settings.idle_time = *time,
            Change::Sequential(on) => {
                self.settings.sequential = *on;
                if let Some(download) = &mut self.download {
                    download.picker.set_sequential(*on);
                }
            }
            Change::SuperSeed(true) => self.settings.super_seed = true,
            Change::SuperSeed(false) => self.end_super_seeding(now, "the user wants that"),
            Change::Label(label) => self.settings.label.clone_from(label),
            Change::Queue(_) => {} // the engine's
        }
        self.apply_policy(now);
        self.wake_all();
        self.persistence.touch(now);
    }

    /// So many peers it may have, unless the user has said otherwise.
    pub fn set_default_peers(&mut self, now: Time, count: usize) {
        self.default_peers = count;
        self.apply_max_peers(now);
    }

    pub(crate) fn apply_max_peers(&mut self, now: Time) {
        self.connections_max = self.settings.max_peers.unwrap_or(self.default_peers);
        let beyond: Vec<_> = self.peers.keys().copied().skip(self.connections_max).collect();
        for conn in beyond {
            self.drop_peer(now, conn);
        }
    }

    /// Settings and their values: all, or the one that is named. `place` is the torrent's in the queue.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn settings(&self, key: Option<&str>, place: Option<usize>) -> Result<Vec<SettingRow>, Refusal> {
        let rows: Vec<_> = KEYS
            .into_iter()
            .filter(|known| key.is_none_or(|key| key == *known))
            .map(|key| {
                let (value, from) = self.setting(key, place);
                SettingRow { key, value, from }
            })
            .collect();
        match (rows.is_empty(), key) {
            (true, Some(key)) => Err(unknown_key(key)),
            _ => Ok(rows),
        }
    }

    fn setting(&self, key: &str, place: Option<usize>) -> (String, String) {
        let seconds = |time: Duration| format!("{}s", time.as_secs());
        let policy = &self.policy;
        let own = |value: String| (value, "own".to_owned());
        match key {
            "down-limit" => (policy.down.value.to_string(), source(policy.down.from)),
            "up-limit" if self.throttle.is_some_and(|throttle| throttle == self.up_bucket.rate_bytes()) => {
                (self.up_bucket.rate_bytes().to_string(), "seeded enough".to_owned())
            }
            "up-limit" => (policy.up.value.to_string(), source(policy.up.from)),
            "max-peers" => {
                let from = if self.settings.max_peers.is_some() { Source::Own } else { Source::Config };
                (self.connections_max.to_string(), source(from))
            }
            "ratio" => (policy.ratio.value.to_string(), source(policy.ratio.from)),
            "seed-time" => (seconds(policy.seed_time.value), source(policy.seed_time.from)),
            "idle-time" => (seconds(policy.idle_time.value), source(policy.idle_time.from)),
            "sequential" => own(if self.settings.sequential { "yes" } else { "no" }.to_owned()),
            "super-seed" => own(if self.settings.super_seed { "yes" } else { "no" }.to_owned()),
            "queue" => own(place.map_or_else(|| "-".to_owned(), |place| place.to_string())),
            _ => own(self.settings.label.clone()),
        }
    }

    /// Changes how much files are wanted.
    ///
    /// # Errors
    /// No file is meant.
    pub fn prioritize(&mut self, now: Time, pattern: &FilePattern, priority: Priority) -> Result<(), Refusal> {
        let files: Vec<usize> = (0..self.layout.files().len()).filter(|&file| self.is_meant(pattern, file)).collect();
        if self.is_link() {
            return Err(Refusal::new(
                RefusalKind::Busy,
                "its files are not known yet; `only=` says it when it is added",
            ));
        }
        if files.is_empty() {
            return Err(Refusal::new(RefusalKind::NotFound, "no file is meant by that; see `files`"));
        }
        self.layout.set_priorities(files.into_iter().map(|file| (file, priority)));
        self.wants_changed(now);
        Ok(())
    }

    pub(crate) fn is_meant(&self, pattern: &FilePattern, file: usize) -> bool {
        let entry = &self.layout.files().entry(file);
        !entry.pad
            && match pattern {
                FilePattern::Range(first, last) => (first..=last).contains(&&file),
                FilePattern::Glob(glob) => glob_matches(glob.as_bytes(), entry.path.as_os_str().as_encoded_bytes()),
            }
    }

    /// What is wanted is not what it was: begins or ends the download, and asks for what is needed now.
    fn wants_changed(&mut self, now: Time) {
        self.asks.push_back(Ask::Want);
        self.persistence.touch(now);
        self.persistence.allocated = false;
        self.forget_empty_files();
        if self.running {
            let (was, is) = (self.download.is_some(), !self.is_finished());
            if is && !was {
                self.finished = None;
                self.end_seeding(now);
                self.apply_policy(now);
                self.go_on(now);
            } else if was && !is {
                self.finish_download(now);
            } else if let Some(download) = &mut self.download {
                let Download { picker, partials, .. } = &mut **download;
                picker.set_layout(&self.layout, &self.have, partials.pieces());
                partials.set_priorities(|piece| self.layout.piece_priority(piece));
            }
            self.make_empty_files(now);
        }
        self.forget_offers();
        self.reconsider_peers();
        if self.is_second() {
            // It is refused as long as something that is wanted is missing.
            self.turn_changed = true;
            self.reconsider(now);
        }
    }

    pub(crate) fn wake_all(&mut self) {
        self.asks.extend(self.peers.keys().map(|&conn| Ask::Wake(conn)));
    }

    /// Where a file lies, for who must look whether it is there.
    #[must_use]
    pub fn file_span(&self, file: usize) -> Option<Span> {
        self.layout.files().get(file).map(|entry| entry.span)
    }
}

/// `*` is any run of bytes, `?` any byte, anything else itself. Linear in the text for each `*`.
pub(crate) fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((star_at, star_from)) = star else { return false };
                star = Some((star_at, star_from + 1));
                at = star_at + 1;
                from = star_from + 1;
            }
        }
    }
    glob[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_as_shells_do() {
        for (glob, text, expected) in [
            ("*.mkv", "a/b.mkv", true),
            ("*.mkv", "a/b.mkvx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("**", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob_matches(glob.as_bytes(), text.as_bytes()), expected, "{glob} {text}");
        }
    }

    #[test]
    fn sizes_and_durations_are_read_as_users_write_them() {
        assert_eq!(parse_size("512K"), Some(512 * 1024));
        assert_eq!(parse_size("20M"), Some(20 << 20));
        assert_eq!(parse_size("0"), Some(0));
        for bad in ["", "K", "-1", "+1", "1.5M", "1KB", "99999999999999G"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_duration("15m"), Some(Duration::from_secs(900)));
        for bad in ["", "15", "m", "-1s", "99999999999d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_setting_out_of_range_is_refused_with_what_is_allowed() {
        assert_eq!(Change::parse("max-peers", "50"), Ok(Change::MaxPeers(Some(50))));
        assert_eq!(Change::parse("ratio", "default"), Ok(Change::Ratio(None)));
        assert_eq!(Change::parse("label", "default"), Ok(Change::Label("default".to_owned())));
        let refusal = Change::parse("max-peers", "0").unwrap_err();
        assert!(refusal.message.contains("1 to 10000"), "{}", refusal.message);
        let refusal = Change::parse("colour", "red").unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NotFound);
        assert!(refusal.message.contains("down-limit"), "{}", refusal.message);
    }
}
