//! What a user may change of one torrent: `set`, `get`, `priority`.

use std::time::Duration;

use crate::base::geometry::Span;
use crate::base::time::Time;
use crate::torrent::command::{FilePattern, Refusal, RefusalKind};
use crate::torrent::download::Download;
use crate::torrent::snapshot::Priority;
use crate::torrent::torrent::{Ask, Torrent};

/// The longest label, in bytes; a longer one is refused.
pub const LABEL_MAX: usize = 255;

/// The settings of one torrent.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Settings {
    pub(crate) label: String,
    /// It lies in a share directory.
    pub(crate) shared: bool,
    /// Nobody is to see it.
    pub(crate) peek: bool,
    pub(crate) sequential: bool,
    /// Stop seeding there; 0 is never.
    pub(crate) ratio: f64,
    /// Stop seeding after so long; zero is never.
    pub(crate) seed_time: Duration,
    /// The goal was reached; `resume` forgets it.
    pub(crate) seeded_enough: bool,
}

/// One change of a setting, understood and in range.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// `down-limit`: bytes a second, 0 is none.
    DownLimit(u64),
    /// `up-limit`: bytes a second, 0 is none.
    UpLimit(u64),
    /// `max-peers`: 1 to 10,000.
    MaxPeers(usize),
    /// `ratio`: stop seeding there, 0 is never.
    Ratio(f64),
    /// `seed-time`: stop seeding after so long, 0 is never.
    SeedTime(Duration),
    /// `sequential`: pieces in the order of the content.
    Sequential(bool),
    /// `label`: a word of the user's.
    Label(String),
}

/// The settings that there are, in the order `get` shows them.
const KEYS: [&str; 7] = ["down-limit", "up-limit", "max-peers", "ratio", "seed-time", "sequential", "label"];

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
        match key {
            "down-limit" => {
                parse_size(value).map(Self::DownLimit).ok_or_else(|| invalid("a rate such as 500K or 2M, 0 for none"))
            }
            "up-limit" => {
                parse_size(value).map(Self::UpLimit).ok_or_else(|| invalid("a rate such as 500K or 2M, 0 for none"))
            }
            "max-peers" => {
                let count = value.parse().ok().filter(|count| (1..=10_000).contains(count));
                count.map(Self::MaxPeers).ok_or_else(|| invalid("a number from 1 to 10000"))
            }
            "ratio" => {
                let ratio = value.parse().ok().filter(|ratio: &f64| ratio.is_finite() && *ratio >= 0.0);
                ratio.map(Self::Ratio).ok_or_else(|| invalid("a number such as 1.5, 0 for never"))
            }
            "seed-time" => parse_duration(value)
                .map(Self::SeedTime)
                .ok_or_else(|| invalid("a time such as 90s, 15m, 12h or 7d, 0s for never")),
            "sequential" => match value {
                "yes" | "true" | "on" => Ok(Self::Sequential(true)),
                "no" | "false" | "off" => Ok(Self::Sequential(false)),
                _ => Err(invalid("yes or no")),
            },
            "label" if value.len() <= LABEL_MAX => Ok(Self::Label(value.to_owned())),
            "label" => Err(invalid("at most 255 bytes")),
            _ => Err(unknown_key(key)),
        }
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
            Change::DownLimit(rate) => self.down_bucket.set_rate(now, *rate),
            Change::UpLimit(rate) => self.up_bucket.set_rate(now, *rate),
            Change::MaxPeers(count) => {
                self.connections_max = *count;
                let beyond: Vec<_> = self.peers.keys().copied().skip(*count).collect();
                for conn in beyond {
                    self.drop_peer(now, conn);
                }
            }
            Change::Ratio(ratio) => self.settings.ratio = *ratio,
            Change::SeedTime(time) => self.settings.seed_time = *time,
            Change::Sequential(on) => {
                self.settings.sequential = *on;
                if let Some(download) = &mut self.download {
                    download.picker.set_sequential(*on);
                }
            }
            Change::Label(label) => self.settings.label.clone_from(label),
        }
        self.wake_all();
        self.persistence.touch(now);
    }

    /// Settings and their values: all, or the one that is named.
    ///
    /// # Errors
    /// There is no such setting.
    pub fn settings(&self, key: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
        let value = |key: &str| match key {
            "down-limit" => self.down_bucket.rate_bytes().to_string(),
            "up-limit" => self.up_bucket.rate_bytes().to_string(),
            "max-peers" => self.connections_max.to_string(),
            "ratio" => self.settings.ratio.to_string(),
            "seed-time" => format!("{}s", self.settings.seed_time.as_secs()),
            "sequential" => if self.settings.sequential { "yes" } else { "no" }.to_owned(),
            _ => self.settings.label.clone(),
        };
        let rows: Vec<_> = KEYS
            .into_iter()
            .filter(|known| key.is_none_or(|key| key == *known))
            .map(|key| (key.to_owned(), value(key)))
            .collect();
        match (rows.is_empty(), key) {
            (true, Some(key)) => Err(unknown_key(key)),
            _ => Ok(rows),
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
        let entry = &self.layout.files().entries()[file];
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
        if self.running {
            let (was, is) = (self.download.is_some(), !self.is_finished());
            if is && !was {
                self.finished = None;
                self.go_on(now);
            } else if was && !is {
                self.finish_download(now);
            } else if let Some(download) = &mut self.download {
                let Download { picker, partials, .. } = &mut **download;
                picker.set_layout(&self.layout, &self.have, |piece| partials.contains(piece));
                partials.set_priorities(|piece| self.layout.piece_priority(piece));
            }
        }
        let conns: Vec<_> = self.peers.keys().copied().collect();
        for conn in conns {
            self.consider_interest(now, conn);
        }
    }

    pub(crate) fn wake_all(&mut self) {
        self.asks.extend(self.peers.keys().map(|&conn| Ask::Wake(conn)));
    }

    /// Where a file lies, for who must look whether it is there.
    #[must_use]
    pub fn file_span(&self, file: usize) -> Option<Span> {
        self.layout.files().entries().get(file).map(|entry| entry.span)
    }
}

/// `*` is any run of bytes, `?` any byte, anything else itself. Linear in the text for each `*`.
fn glob_matches(glob: &[u8], text: &[u8]) -> bool {
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
        assert_eq!(Change::parse("max-peers", "50"), Ok(Change::MaxPeers(50)));
        let refusal = Change::parse("max-peers", "0").unwrap_err();
        assert!(refusal.message.contains("1 to 10000"), "{}", refusal.message);
        let refusal = Change::parse("colour", "red").unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NotFound);
        assert!(refusal.message.contains("down-limit"), "{}", refusal.message);
    }
}
