//! How a transfer is shown: a live bar on a terminal, plain lines elsewhere.
//!
//! Names come from strangers, so nothing of them reaches a terminal that could move its cursor or turn its text around.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressStyle};

use crate::base::time::Time;
use crate::torrent::snapshot::{State, Summary};

/// Plain lines come this often at most, unless the state changes.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Steps of the bar: its position is a share, since what it is a share of changes with the state.
const BAR_STEPS: u64 = 1000;
/// Characters of a name that are shown; the rest is cut.
const NAME_MAX_CHARS: usize = 40;

/// Where the progress of one torrent goes.
#[derive(Debug)]
pub(crate) enum Progress {
    /// To a terminal.
    Bar(ProgressBar),
    /// To a pipe or a file: when the last line was, in which state, and what it said.
    Lines {
        /// When, by the caller's count.
        at: Time,
        /// In which state.
        state: Option<State>,
        /// What.
        last: String,
    },
}

impl Progress {
    /// A bar if there is a person to see it, else lines.
    pub(crate) fn new() -> Self {
        if !io::stdout().is_terminal() || !io::stderr().is_terminal() {
            return Self::Lines { at: Time::ZERO, state: None, last: String::new() };
        }
        let style = ProgressStyle::with_template("{bar:30} {msg}").expect("a template that is right");
        let bar = ProgressBar::new(BAR_STEPS);
        bar.set_style(style.progress_chars("=> "));
        Self::Bar(bar)
    }

    /// Shows how things stand.
    pub(crate) fn show(&mut self, now: Time, summary: &Summary) {
        let line = line(summary);
        match self {
            Self::Bar(bar) => {
                bar.set_position(steps(share(summary)));
                bar.set_message(line);
            }
            Self::Lines { at, state, last } => {
                let same_state = *state == Some(summary.state);
                if (same_state && now.since(*at) < LINE_INTERVAL) || *last == line {
                    return;
                }
                (*at, *state) = (now, Some(summary.state));
                say(&line);
                *last = line;
            }
        }
    }

    /// Says one line above the bar.
    pub(crate) fn say(&self, line: &str) {
        match self {
            Self::Bar(bar) => bar.suspend(|| say(line)),
            Self::Lines { .. } => say(line),
        }
    }

    /// Takes the bar away for good.
    pub(crate) fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// A bar of `total` bytes that are read, if there is a person to see it.
pub(crate) fn reading(total: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    ProgressBar::new(total).with_style(style.expect("a template that is right"))
}

/// Says one line. Nobody being there to hear it is no reason to stop a transfer.
pub(crate) fn say(line: &str) {
    let _unheard = writeln!(io::stdout().lock(), "{line}");
}

/// The part that is done of what is being done now.
fn share(summary: &Summary) -> f64 {
    match (summary.checked, summary.state) {
        (Some(checked), _) => checked,
        (None, State::Metadata) => 0.0,
        (None, _) => summary.progress(),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
fn steps(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * 1000.0) as u64
}

/// Everything about a transfer that fits a line.
fn line(summary: &Summary) -> String {
    let name = shown_name(&summary.name);
    let percent = steps(share(summary));
    let percent = format!("{}.{}%", percent / 10, percent % 10);
    match summary.state {
        State::Checking => format!("{name}: {percent} of what is there checked"),
        State::Metadata => format!("{name}: looking for its description, {} peers", summary.peers),
        State::Seeding => format!(
            "{name}: seeding, up {}/s, {} sent, {} peers",
            BinaryBytes(summary.up_rate),
            BinaryBytes(summary.uploaded),
            summary.peers
        ),
        State::Downloading => {
            let left = summary.eta.map(|secs| format!(", {} left", HumanDuration(Duration::from_secs(secs))));
            format!(
                "{name}: {percent} of {}, down {}/s, up {}/s, {} peers{}",
                BinaryBytes(summary.wanted),
                BinaryBytes(summary.down_rate),
                BinaryBytes(summary.up_rate),
                summary.peers,
                left.unwrap_or_default()
            )
        }
        other => format!("{name}: {}", other.word()),
    }
}

/// A stranger's name, harmless and short.
pub(crate) fn shown_name(name: &str) -> String {
    let mut chars = name.chars().map(|c| if c.is_control() || turns_text(c) { '\u{fffd}' } else { c });
    let mut shown: String = chars.by_ref().take(NAME_MAX_CHARS).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// True for the marks and overrides of Unicode's bidirectional algorithm, which can show a name as another one.
const fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::base::hash::InfoHash;

    fn summary(state: State) -> Summary {
        Summary {
            queue: None,
            settings: Vec::new(),
            info_hash: InfoHash::of(b""),
            st_id: None,
            name: "debian.iso".to_owned(),
            state,
            error: None,
            described: true,
            size: 2 << 20,
            wanted: 1 << 20,
            have_bytes: 1 << 19,
            have_wanted_bytes: 1 << 19,
            checked: None,
            down_rate: 1024,
            up_rate: 0,
            downloaded: 1 << 19,
            uploaded: 0,
            wasted: 0,
            peers: 3,
            seeds: 1,
            eta: Some(512),
            label: String::new(),
            added: 0,
            finished: None,
            dir: PathBuf::new(),
            private: false,
            pieces: (4, 2),
            piece_len: 1 << 19,
            comment: None,
            moving: None,
            move_error: None,
            hook: None,
            dht_item: None,
            created_by: None,
            follows: None,
        }
    }

    #[test]
    fn a_line_says_how_much_how_fast_and_how_long() {
        let line = line(&summary(State::Downloading));
        for part in ["debian.iso", "50.0%", "1.00 MiB", "down 1.00 KiB/s", "3 peers", "9 minutes left"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn a_check_shows_its_own_share() {
        let checking = Summary { checked: Some(0.25), ..summary(State::Checking) };
        assert!(line(&checking).contains("25.0%"), "{}", line(&checking));
    }

    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        assert_eq!(shown_name("a\u{1b}[2Jb\n\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c");
        assert_eq!(shown_name(&"x".repeat(100)).chars().count(), NAME_MAX_CHARS + 1);
    }

    #[test]
    fn plain_lines_come_when_the_state_changes_and_not_at_every_tick() {
        let mut progress = Progress::Lines { at: Time::ZERO, state: None, last: String::new() };
        let said = |progress: &Progress| match progress {
            Progress::Lines { last, .. } => last.clone(),
            Progress::Bar(_) => String::new(),
        };
        progress.show(Time::from_secs(1), &summary(State::Downloading));
        let first = said(&progress);
        let faster = Summary { down_rate: 1 << 20, ..summary(State::Downloading) };
        progress.show(Time::from_secs(2), &faster);
        assert_eq!(said(&progress), first, "too soon");
        progress.show(Time::from_secs(7), &faster);
        assert_ne!(said(&progress), first);
        progress.show(Time::from_secs(8), &summary(State::Seeding));
        assert!(said(&progress).contains("seeding"));
    }
}
