//! The screen: what stands where. Only the rows that fit are looked at, however many torrents there are.

mod pane;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Sparkline, Table};

use super::model::{Dialog, Model, Sort, Torrent};
use crate::cli::paint::Colour;
use crate::codec::control::escape;
use crate::codec::units::{human_duration, human_size};

/// Lines below which a screen has no room for the lower part.
const PANE_MIN: u16 = 16;
/// Columns of a progress bar.
const BAR: usize = 12;

/// Styles, or none of them where there are no colours.
#[derive(Debug, Clone, Copy)]
struct Ink {
    colours: bool,
}

impl Ink {
    fn of(self, colour: Colour) -> Style {
        let style = Style::new();
        match colour {
            Colour::Plain => style,
            Colour::Bold => style.add_modifier(Modifier::BOLD),
            Colour::Dim => style.add_modifier(Modifier::DIM),
            _ if !self.colours => style,
            Colour::Green => style.fg(Color::Green),
            Colour::Cyan => style.fg(Color::Cyan),
            Colour::Yellow => style.fg(Color::Yellow),
            Colour::Red => style.fg(Color::Red),
        }
    }
}

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, colours: bool) {
    let ink = Ink { colours };
    let has_pane = frame.area().height >= PANE_MIN;
    let pane_height = if has_pane { Constraint::Percentage(40) } else { Constraint::Length(0) };
    let rows = [Constraint::Length(1), Constraint::Length(2), Constraint::Fill(1), pane_height, Constraint::Length(1)];
    let [head, rates, list, lower, foot] = Layout::vertical(rows).areas(frame.area());
    draw_head(frame, head, model, ink);
    draw_rates(frame, rates, model, ink);
    draw_list(frame, list, model, ink);
    if has_pane {
        pane::draw(frame, lower, model, ink);
    }
    draw_foot(frame, foot, model, ink);
    match &model.dialog {
        Some(Dialog::Help) => draw_box(frame, "Keys", &HELP.map(Line::from), ink),
        Some(Dialog::Remove(_, name)) => {
            let question = [
                Line::from(escape(name).into_owned()),
                Line::from(""),
                Line::from("y   remove it, and keep its data"),
                Line::from("D   remove it, and delete its data"),
                Line::from("any other key: leave it"),
            ];
            draw_box(frame, "Remove?", &question, ink);
        }
        _ => {}
    }
}

const HELP: [&str; 15] = [
    "↑ ↓ PgUp PgDn Home End   select a torrent (also j k g G)",
    "p   pause it",
    "r   resume it",
    "v   verify it: hash its content again",
    "a   announce it to its trackers now",
    "d   remove it; asks first",
    "s   sort by the next column",
    "S   sort the other way around",
    "/   show only what has these letters in its name, state or label",
    "Esc show everything again",
    "Tab 1-6   info, peers, files, trackers, pieces, log",
    "+ - scroll the lower part",
    "^Z  back to the shell for a while",
    "q   quit",
    "    any key closes this",
];

fn draw_head(frame: &mut Frame<'_>, area: Rect, model: &Model, ink: Ink) {
    let status = &model.status;
    let mut spans = vec![Span::styled("swarmtorrent ", ink.of(Colour::Bold))];
    if let Some(trouble) = &model.trouble {
        spans.push(Span::styled(escape(trouble).into_owned(), ink.of(Colour::Red)));
    } else {
        spans.push(Span::raw(format!("up {}, {} torrents", human_duration(status.uptime), status.torrents)));
        let counts = [
            (status.downloading, "downloading"),
            (status.seeding, "seeding"),
            (status.checking, "checking"),
            (status.paused, "paused"),
            (status.error, "error"),
        ];
        for (count, state) in counts.into_iter().filter(|(count, _)| *count > 0) {
            spans.push(Span::raw(", "));
            spans.push(Span::styled(format!("{count} {state}"), ink.of(Colour::of_state(state))));
        }
        spans.push(Span::raw(format!(", {} peers", status.peers)));
        spans.extend(status.dht_nodes.map(|nodes| Span::raw(format!(", {nodes} DHT nodes"))));
        spans.extend(status.disk_free.map(|free| Span::raw(format!(", {} free", human_size(free)))));
    }
    frame.render_widget(Line::from(spans), area);
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, model: &Model, ink: Ink) {
    let halves: [Rect; 2] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1).areas(area);
    let status = &model.status;
    let rates = [
        ("down", status.down_rate, status.down_limit, Colour::Cyan),
        ("up", status.up_rate, status.up_limit, Colour::Green),
    ];
    for (half, (word, rate, limit, colour)) in halves.into_iter().zip(rates) {
        let [label, graph] = Layout::horizontal([Constraint::Length(13), Constraint::Fill(1)]).areas(half);
        let limit = if limit > 0 { format!("of {}/s", human_size(limit)) } else { String::new() };
        let text = vec![Line::from(format!("{word} {}/s", human_size(rate))), Line::from(limit)];
        frame.render_widget(Paragraph::new(text).style(ink.of(colour)), label);
        draw_history(frame, graph, &model.rates.last(usize::from(graph.width), word == "down"), ink.of(colour));
    }
}

/// Rates as a picture, the newest at the right edge.
fn draw_history(frame: &mut Frame<'_>, area: Rect, rates: &[u64], style: Style) {
    let empty = usize::from(area.width).saturating_sub(rates.len());
    let data: Vec<u64> = std::iter::repeat_n(0, empty).chain(rates.iter().copied()).collect();
    frame.render_widget(Sparkline::default().data(&data).style(style), area);
}

/// A column of the list: what it is sorted by, its width, and the columns of the screen that it needs to be there.
const COLUMNS: [(Sort, u16, u16); 8] = [
    (Sort::State, 11, 40),
    (Sort::Done, 19, 60),
    (Sort::Down, 7, 0),
    (Sort::Up, 7, 0),
    (Sort::Peers, 5, 70),
    (Sort::Ratio, 6, 90),
    (Sort::Size, 7, 80),
    (Sort::Added, 8, 110),
];

fn draw_list(frame: &mut Frame<'_>, area: Rect, model: &mut Model, ink: Ink) {
    let height = usize::from(area.height.saturating_sub(1));
    let cursor = model.cursor();
    model.offset = model.offset.min(cursor).max((cursor + 1).saturating_sub(height));
    let columns: Vec<_> = COLUMNS.iter().filter(|(_, _, screen)| area.width >= *screen).collect();
    let mark = |sort: Sort| match (sort == model.sort, model.is_reversed) {
        (false, _) => sort.word().to_owned(),
        (true, false) => format!("{}▼", sort.word()),
        (true, true) => format!("{}▲", sort.word()),
    };
    let head = |sort: Sort| match sort {
        Sort::Added => "eta".to_owned(),
        sort => mark(sort),
    };
    let mut heads = vec![Line::from(match model.sort {
        Sort::Added => format!("{} ({})", mark(Sort::Name), mark(Sort::Added)),
        _ => mark(Sort::Name),
    })];
    heads.extend(columns.iter().map(|(sort, ..)| match sort {
        Sort::State | Sort::Done => Line::from(head(*sort)),
        _ => Line::from(head(*sort)).right_aligned(),
    }));
    let widths =
        std::iter::once(Constraint::Fill(1)).chain(columns.iter().map(|(_, width, _)| Constraint::Length(*width)));
    let rows = model.rows(model.offset, height).enumerate().map(|(at, torrent)| {
        let mut cells = vec![name(torrent, ink)];
        cells.extend(columns.iter().map(|(sort, ..)| cell(torrent, *sort, ink)));
        let style =
            if model.offset + at == cursor { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        Row::new(cells).style(style)
    });
    let table = Table::new(rows, widths).header(Row::new(heads).style(ink.of(Colour::Bold)));
    frame.render_widget(table, area);
    if model.counts().0 == 0 && height > 0 {
        let text = match (model.counts().1, model.trouble.is_some()) {
            (_, true) => "waiting for the daemon",
            (0, false) => "no torrents yet: `swarmtorrent add FILE` or a magnet link",
            _ => "no torrent has that in it; Esc shows all",
        };
        frame.render_widget(Line::styled(text, ink.of(Colour::Dim)), Rect { y: area.y + 1, height: 1, ..area });
    }
}

fn name(torrent: &Torrent, ink: Ink) -> Line<'static> {
    let mut spans = vec![Span::raw(escape(&torrent.name).into_owned())];
    if !torrent.label.is_empty() {
        spans.push(Span::styled(format!("  {}", escape(&torrent.label)), ink.of(Colour::Dim)));
    }
    Line::from(spans)
}

fn cell(torrent: &Torrent, sort: Sort, ink: Ink) -> Line<'static> {
    let colour = Colour::of_state(&torrent.state);
    let figure = |text: String| Line::from(text).right_aligned();
    let rate = |rate: u64| {
        let colour = if rate == 0 { Colour::Dim } else { Colour::Plain };
        Line::styled(human_size(rate), ink.of(colour)).right_aligned()
    };
    match sort {
        Sort::Name => Line::default(),
        Sort::State => Line::styled(escape(&torrent.state).into_owned(), ink.of(colour)),
        Sort::Done => {
            let (full, rest) = bar(torrent.share(), BAR);
            let share = format!(" {:>5.1}%", (torrent.share() * 1000.0).floor() / 10.0);
            Line::from(vec![
                Span::styled(full, ink.of(colour)),
                Span::styled(rest, ink.of(Colour::Dim)),
                Span::raw(share),
            ])
        }
        Sort::Down => rate(torrent.down_rate),
        Sort::Up => rate(torrent.up_rate),
        Sort::Peers => figure(torrent.peers.to_string()),
        Sort::Ratio => figure(format!("{:.2}", torrent.ratio)),
        Sort::Size => figure(human_size(torrent.size)),
        Sort::Added => figure(torrent.eta.map_or_else(|| "-".to_owned(), human_duration)),
    }
}

/// A bar of `width` columns of which a share is full.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to width")]
fn bar(share: f64, width: usize) -> (String, String) {
    let full = (share.clamp(0.0, 1.0) * width as f64) as usize;
    ("█".repeat(full), "░".repeat(width - full))
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, model: &Model, ink: Ink) {
    let (shown, all) = model.counts();
    let line = if model.dialog == Some(Dialog::Filter) {
        Line::from(format!("show only: {}▏  (Enter keeps it, Esc drops it; {shown} of {all})", model.filter))
    } else if !model.message.is_empty() {
        Line::styled(model.message.clone(), ink.of(Colour::Yellow))
    } else if !model.filter.is_empty() {
        Line::from(format!("only `{}`: {shown} of {all}; Esc shows all", model.filter))
    } else {
        let keys = "q quit  ? help  p pause  r resume  v verify  d remove  s sort  / filter  Tab next";
        Line::styled(keys, ink.of(Colour::Dim))
    };
    frame.render_widget(line, area);
}

/// A box in the middle of everything.
fn draw_box(frame: &mut Frame<'_>, title: &str, lines: &[Line<'_>], ink: Ink) {
    let area = frame.area();
    let width = lines.iter().map(Line::width).max().unwrap_or(0).max(title.len()) + 4;
    let width = u16::try_from(width).unwrap_or(u16::MAX).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let (x, y) = (area.x + (area.width - width) / 2, area.y + (area.height - height) / 2);
    let place = Rect { x, y, width, height };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(format!(" {title} ")).border_style(ink.of(Colour::Bold));
    let inner = block.inner(place);
    frame.render_widget(block, place);
    let inner = Rect { x: inner.x + u16::from(inner.width > 0), width: inner.width.saturating_sub(1), ..inner };
    frame.render_widget(Paragraph::new(lines.to_vec()), inner);
}

#[cfg(test)]
mod tests;
