//! Colours and columns for people at a terminal; for a pipe the same without either.
//!
//! `NO_COLOR` and `TERM=dumb` mean no colours. Cells hold what strangers wrote, so each is escaped.

use std::io::{self, IsTerminal};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::codec::control::escape;

/// Columns that a table has on a terminal that does not say how wide it is.
const WIDTH: usize = 80;
/// Columns that the last cell of a row gets however narrow the terminal is.
const LAST_MIN: usize = 16;

/// True if what is shown may have colours, on a terminal that is one.
pub(crate) fn has_colours(env: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let no_color = env("NO_COLOR").is_some_and(|value| !value.is_empty());
    !no_color && env("TERM").is_some_and(|term| term != "dumb" && !term.is_empty())
}

/// Where a table goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paper {
    /// Columns; none if lines may be of any length.
    pub(crate) width: Option<usize>,
    /// It shows colours.
    pub(crate) colours: bool,
}

impl Paper {
    /// Standard output as it is.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self { width: None, colours: false };
        }
        let size = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let width = size.filter(|columns| *columns > 0).unwrap_or(WIDTH);
        Self { width: Some(width), colours: has_colours(|name| std::env::var_os(name)) }
    }
}

/// A colour, as a terminal's theme has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Colour {
    /// As everything else.
    #[default]
    Plain,
    /// It is well.
    Green,
    /// It moves.
    Cyan,
    /// It waits.
    Yellow,
    /// It is in trouble.
    Red,
    /// It matters less.
    Dim,
    /// A head.
    Bold,
}

impl Colour {
    /// The colour of a torrent's state.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "seeding" => Self::Green,
            "downloading" => Self::Cyan,
            "checking" | "metadata" => Self::Yellow,
            "error" | "nospace" => Self::Red,
            "paused" | "queued" => Self::Dim,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Green => "\x1b[32m",
            Self::Cyan => "\x1b[36m",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
            Self::Dim => "\x1b[2m",
            Self::Bold => "\x1b[1m",
        }
    }
}

/// A table: columns whose head begins with `>` are flush right, and the last one takes what room there is.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<(String, Colour)>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(heads: &[&str]) -> Self {
        Self {
            heads: heads.iter().map(|head| head.trim_start_matches('>').to_owned()).collect(),
            right: heads.iter().map(|head| head.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for each column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(String, Colour); N]) {
        assert_eq!(N, self.heads.len(), "a cell for each column");
        self.rows.push(cells.into_iter().map(|(text, colour)| (escape(&text).into_owned(), colour)).collect());
    }

    /// All of it, a line a row.
    pub(crate) fn write(&self, paper: Paper) -> String {
        let heads: Vec<_> = self.heads.iter().map(|head| (head.clone(), Colour::Bold)).collect();
        let all = || std::iter::once(&heads).chain(&self.rows);
        let last = heads.len() - 1;
        let widths: Vec<usize> =
            (0..last).map(|column| all().map(|row| row[column].0.width()).max().unwrap_or(0)).collect();
        let before: usize = widths.iter().map(|width| width + 2).sum();
        let room = paper.width.map(|width| width.saturating_sub(before).max(LAST_MIN));
        let mut out = String::new();
        for row in all() {
            for (column, (text, colour)) in row.iter().enumerate() {
                let text = match (column == last, room) {
                    (true, Some(room)) => cut(text, room),
                    _ => text.clone(),
                };
                let padding = " ".repeat(widths.get(column).map_or(0, |width| width - text.width()));
                let (before, after) = if self.right[column] { (padding.as_str(), "") } else { ("", padding.as_str()) };
                let is_painted = paper.colours && *colour != Colour::Plain && !text.is_empty();
                let (on, off) = if is_painted { (colour.code(), "\x1b[0m") } else { ("", "") };
                let gap = if column == last { "" } else { "  " };
                out.extend([before, on, &text, off, after, gap]);
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }
}

/// As much of `text` as fits into `room` columns; what was cut is an ellipsis.
pub(crate) fn cut(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let mut taken = String::new();
    let mut left = room.saturating_sub(1);
    for c in text.chars() {
        let width = c.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        taken.push(c);
    }
    taken.push('…');
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["state", ">size", "name"]);
        table.row([
            ("seeding".into(), Colour::Green),
            ("5".into(), Colour::Plain),
            ("a\x1b[2J名前".into(), Colour::Plain),
        ]);
        table.row([("x".into(), Colour::Plain), ("12.0K".into(), Colour::Plain), ("n".repeat(40), Colour::Plain)]);
        table
    }

    #[test]
    fn a_pipe_gets_everything_and_no_colours() {
        let text = table().write(Paper { width: None, colours: false });
        let long = "n".repeat(40);
        assert_eq!(text, format!("state     size  name\nseeding      5  a\\x1b[2J名前\nx        12.0K  {long}\n"));
    }

    #[test]
    fn a_terminal_gets_colours_and_what_fits() {
        let text = table().write(Paper { width: Some(40), colours: true });
        assert!(text.contains("\x1b[32mseeding\x1b[0m"), "{text:?}");
        assert!(!text.contains("\x1b[2J"), "{text:?}");
        let plain = table().write(Paper { width: Some(40), colours: false });
        assert!(plain.lines().all(|line| line.width() <= 40), "{plain}");
        assert!(plain.ends_with("n…\n"), "{plain}");
    }

    #[test]
    fn wide_characters_are_cut_between_two_and_not_within_one() {
        assert_eq!(cut("名前名前", 5), "名前…");
        assert_eq!(cut("名前名前", 4), "名…");
        assert_eq!(cut("abc", 3), "abc");
    }

    #[test]
    fn the_environment_says_whether_there_are_colours() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        };
        assert!(has_colours(env(&[("TERM", "xterm")])));
        assert!(has_colours(env(&[("TERM", "xterm"), ("NO_COLOR", "")])));
        assert!(!has_colours(env(&[("TERM", "xterm"), ("NO_COLOR", "1")])));
        assert!(!has_colours(env(&[("TERM", "dumb")])));
        assert!(!has_colours(env(&[])));
    }
}
