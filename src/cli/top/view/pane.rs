//! The lower part of the screen: one torrent, in one of several ways.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, Wrap};
use serde_json::Value;

use super::{Ink, draw_history};
use crate::cli::paint::Colour;
use crate::cli::top::model::{Model, Pane, Torrent};
use crate::codec::control::escape;
use crate::codec::units::{human_duration, human_size, moment};

/// Draws the pane that is looked at.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &mut Model, ink: Ink) {
    let mut heads = Vec::new();
    for (number, pane) in Pane::ALL.into_iter().enumerate() {
        let style = if pane == model.pane { ink.of(Colour::Bold) } else { ink.of(Colour::Dim) };
        heads.push(Span::styled(format!(" {} {} ", number + 1, pane.word()), style));
    }
    let block = Block::new().borders(Borders::TOP).title(Line::from(heads));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    if model.pane == Pane::Log {
        return draw_log(frame, inner, model);
    }
    let Some(torrent) = model.selected().cloned() else { return };
    match model.pane {
        Pane::Info => draw_info(frame, inner, model, &torrent, ink),
        Pane::Pieces => draw_map(frame, inner, model, ink),
        _ => draw_table(frame, inner, model, ink),
    }
}

fn draw_log(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let height = usize::from(area.height);
    let end = model.log.len().saturating_sub(model.scrolled);
    let lines = model.log.range(end.saturating_sub(height)..end).map(|line| Line::raw(line.as_str()));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn draw_info(frame: &mut Frame<'_>, area: Rect, model: &Model, torrent: &Torrent, ink: Ink) {
    let [text, graphs] = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(1)]).areas(area);
    let mut lines = Vec::new();
    let mut say = |key: &str, value: String| {
        let key = Span::styled(format!("{key:<11}"), ink.of(Colour::Dim));
        lines.push(Line::from(vec![key, Span::raw(escape(&value).into_owned())]));
    };
    say("name", torrent.name.clone());
    if let Some(error) = &torrent.error {
        say("error", error.clone());
    }
    let pieces =
        format!("{} of {} pieces of {}", torrent.have_pieces, torrent.pieces, human_size(torrent.piece_length));
    say("here", format!("{} of {}, {pieces}", human_size(torrent.have_bytes), human_size(torrent.size)));
    let ratio = format!("ratio {:.2}", torrent.ratio);
    say("traffic", format!("{} down, {} up, {ratio}", human_size(torrent.downloaded), human_size(torrent.uploaded)));
    let left = torrent.eta.map(|secs| format!(", {} left", human_duration(secs))).unwrap_or_default();
    say("peers", format!("{}, {} of them with everything{left}", torrent.peers, torrent.seeds));
    say("where", torrent.dir.clone());
    let finished = torrent.finished.map(|at| format!(", finished {}", moment(at))).unwrap_or_default();
    say("added", format!("{}{finished}", moment(torrent.added)));
    say("id", format!("{}{}", torrent.id, if torrent.private { ", private" } else { "" }));
    for (at, row) in model.detail().iter().enumerate() {
        let sentence = serde_json::from_str::<Value>(row).ok();
        let sentence = sentence.as_ref().and_then(|row| row["message"].as_str()).unwrap_or_default().to_owned();
        say(if at == 0 { "why" } else { "" }, sentence);
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll(model), 0)), text);
    let [down, up] = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]).areas(graphs);
    for (area, word, rate, colour) in
        [(down, "down", torrent.down_rate, Colour::Cyan), (up, "up", torrent.up_rate, Colour::Green)]
    {
        let [label, graph] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        frame.render_widget(Line::styled(format!("{word} {}/s", human_size(rate)), ink.of(colour)), label);
        draw_history(frame, graph, &model.its_rates.last(usize::from(graph.width), word == "down"), ink.of(colour));
    }
}

fn scroll(model: &Model) -> u16 {
    u16::try_from(model.scrolled).unwrap_or(u16::MAX)
}

/// The heads of a table and the widths of its columns.
type Columns = &'static [(&'static str, Constraint)];

const PEERS: Columns = &[
    ("address", Constraint::Length(28)),
    ("flags", Constraint::Length(6)),
    ("done", Constraint::Length(6)),
    ("down", Constraint::Length(8)),
    ("up", Constraint::Length(8)),
    ("by", Constraint::Length(4)),
    ("source", Constraint::Length(9)),
    ("client", Constraint::Fill(1)),
];
const FILES: Columns = &[
    ("file", Constraint::Length(6)),
    ("priority", Constraint::Length(8)),
    ("done", Constraint::Length(6)),
    ("size", Constraint::Length(8)),
    ("path", Constraint::Fill(1)),
];
const TRACKERS: Columns = &[
    ("tier", Constraint::Length(4)),
    ("state", Constraint::Length(10)),
    ("next", Constraint::Length(8)),
    ("seeders", Constraint::Length(8)),
    ("leechers", Constraint::Length(8)),
    ("address", Constraint::Fill(3)),
    ("message", Constraint::Fill(2)),
];

fn draw_table(frame: &mut Frame<'_>, area: Rect, model: &mut Model, ink: Ink) {
    let (columns, cells): (Columns, fn(&Value) -> Vec<String>) = match model.pane {
        Pane::Peers => (PEERS, peer),
        Pane::Files => (FILES, file),
        _ => (TRACKERS, tracker),
    };
    let height = usize::from(area.height.saturating_sub(1));
    let most = model.detail().len().saturating_sub(height);
    model.scrolled = model.scrolled.min(most);
    let rows = model.detail().iter().skip(model.scrolled).take(height).map(|row| {
        let row: Value = serde_json::from_str(row).unwrap_or_default();
        Row::new(cells(&row).into_iter().map(|cell| escape(&cell).into_owned()))
    });
    let head = Row::new(columns.iter().map(|(head, _)| *head)).style(ink.of(Colour::Dim));
    frame.render_widget(Table::new(rows, columns.iter().map(|(_, width)| *width)).header(head), area);
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or("-").to_owned()
}

fn number(row: &Value, key: &str) -> String {
    row[key].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn size(row: &Value, key: &str) -> String {
    human_size(row[key].as_u64().unwrap_or(0))
}

fn peer(row: &Value) -> Vec<String> {
    vec![
        text(row, "addr"),
        text(row, "flags"),
        format!("{:.0}%", row["progress"].as_f64().unwrap_or(0.0) * 100.0),
        size(row, "down_rate"),
        size(row, "up_rate"),
        text(row, "transport"),
        text(row, "source"),
        text(row, "client"),
    ]
}

fn file(row: &Value) -> Vec<String> {
    let (have, all) = (row["have_bytes"].as_f64().unwrap_or(0.0), row["size"].as_f64().unwrap_or(0.0));
    let share = if all > 0.0 { have / all } else { 1.0 };
    vec![
        number(row, "index"),
        text(row, "priority"),
        format!("{:.0}%", (share * 100.0).floor()),
        size(row, "size"),
        text(row, "path"),
    ]
}

fn tracker(row: &Value) -> Vec<String> {
    vec![
        number(row, "tier"),
        text(row, "state"),
        row["next"].as_u64().map_or_else(|| "-".to_owned(), human_duration),
        number(row, "seeders"),
        number(row, "leechers"),
        text(row, "url"),
        row["message"].as_str().unwrap_or_default().to_owned(),
    ]
}

/// What the marks of `pieces` are drawn as: a whole map is one picture, in which a place may stand for many pieces.
fn draw_map(frame: &mut Frame<'_>, area: Rect, model: &Model, ink: Ink) {
    let marks: Vec<u8> = model
        .detail()
        .iter()
        .filter_map(|line| line.trim_start().split_once("  "))
        .filter(|(index, _)| index.bytes().all(|byte| byte.is_ascii_digit()))
        .flat_map(|(_, marks)| marks.bytes())
        .collect();
    let (width, height) = (usize::from(area.width), usize::from(area.height.saturating_sub(1)));
    if marks.is_empty() || width == 0 || height == 0 {
        return;
    }
    // The fewest pieces a place that let all of them fit.
    let each = marks.len().div_ceil(width * height);
    let mut lines: Vec<Line<'_>> = marks
        .chunks(each * width)
        .map(|row| Line::from(row.chunks(each).map(|pieces| place(pieces, ink)).collect::<Vec<_>>()))
        .collect();
    let legend = format!("█ here  ▒ partly  · missing  ! nobody has it  - not wanted   {each} a place");
    lines.push(Line::styled(legend, ink.of(Colour::Dim)));
    frame.render_widget(Paragraph::new(lines), area);
}

/// One place of the map: what most needs to be seen of its pieces.
fn place(pieces: &[u8], ink: Ink) -> Span<'static> {
    let has = |mark: u8| pieces.contains(&mark);
    let (text, style) = match (pieces.iter().all(|mark| *mark == b'#'), has(b'!')) {
        (true, _) => ("█", ink.of(Colour::Green)),
        (false, true) => ("!", ink.of(Colour::Red)),
        (false, false) if has(b'#') || has(b'+') => ("▒", ink.of(Colour::Yellow)),
        (false, false) if has(b'.') => ("·", Style::new()),
        (false, false) => ("-", ink.of(Colour::Dim)),
    };
    Span::styled(text, style)
}
