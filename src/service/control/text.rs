//! Reports as a person reads them: aligned tables, `key: value` lines, sentences, the piece map.

use std::fmt::Display;

use super::dht;
use super::request::{Field, Host, Report};
use super::table::{Columns, Table};
use super::tracker;
use crate::base::hash::InfoHash;
use crate::codec::catalog::Entry;
use crate::codec::control::{escape, push_payload};
use crate::codec::units::{human_duration, human_size, moment};
use crate::torrent::command::{Answer, Status};
use crate::torrent::dht_command::DhtAnswer;
use crate::torrent::listing::Listing;
use crate::torrent::settings::SettingRow;
use crate::torrent::snapshot::{FileRow, PeerRow, PieceState, State, Summary, TrackerRow};

/// Digits of an id in a list: enough to name a torrent by, short enough to read.
const ID_DIGITS: usize = 12;
/// Pieces a line of the piece map.
const MAP_WIDTH: usize = 64;

const LIST_HEADS: [&str; 10] = ["id", "state", ">done", ">down", ">up", ">ratio", ">peers", ">eta", ">size", "name"];
const FILE_HEADS: [&str; 5] = [">file", "priority", ">done", ">size", "path"];
const PEER_HEADS: [&str; 8] = ["address", "flags", ">done", ">down", ">up", "transport", "source", "client"];
const CATALOG_HEADS: [&str; 3] = ["hash", ">size", "name"];

/// Settings that are what a torrent is: `show` tells of them among that.
const SHOWN_ANYWAY: [&str; 2] = ["label", "queue"];

/// A setting as people read it: where its value comes from stands behind it unless it is their own.
fn setting(row: &SettingRow) -> String {
    if row.from == "own" { row.value.clone() } else { format!("{} ({})", row.value, row.from) }
}

/// What a list is sorted by: a value that is small for rows that come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Number(u64),
    Hash(InfoHash),
    Text(String),
}

/// The key of a row.
pub(super) fn key(row: &Summary, field: Field) -> Key {
    // The bits of floating-point numbers that are not negative have the order of the numbers.
    match field {
        Field::Id => Key::Hash(row.info_hash),
        Field::State => Key::Number(row.state as u64),
        Field::Done => Key::Number(!row.progress().to_bits()),
        Field::Down => Key::Number(!row.down_rate),
        Field::Up => Key::Number(!row.up_rate),
        Field::Ratio => Key::Number(!row.ratio().to_bits()),
        Field::Peers => Key::Number(!u64::from(row.peers)),
        Field::Eta => Key::Number(row.eta.unwrap_or(u64::MAX)),
        Field::Size => Key::Number(!row.size),
        Field::Name => Key::Text(row.name.to_lowercase()),
        Field::Added => Key::Number(!row.added),
        Field::Label => Key::Text(row.label.clone()),
        Field::Queue => Key::Number(row.queue.map_or(0, |place| place as u64)),
    }
}

/// Puts the rows of a list into the order of `field`; anything else stays as it is.
pub(super) fn sort(report: &mut Report, field: Field) {
    if let Report::Node(Answer::List(rows)) = report {
        rows.sort_by_cached_key(|row| key(row, field));
    }
}

/// Writes the lines of `report`; returns the closing line's detail.
pub(super) fn push(out: &mut String, report: &Report) -> String {
    match report {
        Report::Status(figures, host) => {
            push_status(out, figures);
            push_host(out, host);
        }
        Report::Watching(_) | Report::Long(_) => {}
        Report::Lines(lines) => lines.iter().for_each(|line| push_payload(out, &escape(line))),
        Report::Node(answer) => return push_answer(out, answer),
    }
    String::new()
}

fn push_answer(out: &mut String, answer: &Answer) -> String {
    match answer {
        Answer::Done | Answer::DoneTo(1) | Answer::Later(_) => {}
        Answer::DoneTo(count) => return format!("{count} torrents"),
        Answer::Added(id) => return id.to_string(),
        Answer::Status(figures) => push_status(out, figures),
        Answer::Stats(rows) => {
            rows.iter().for_each(|(name, value)| push_payload(out, &format!("{} {value}", escape(name))));
        }
        Answer::List(_)
        | Answer::Changes { .. }
        | Answer::Files(_)
        | Answer::Peers(_)
        | Answer::Catalog { .. }
        | Answer::Dht(DhtAnswer::Swarms(..)) => {
            let mut columns = Columns::new(heads(answer).expect("these have columns"));
            measure(&mut columns, answer);
            columns.push_heads(out);
            return push_rows(out, &columns, answer);
        }
        Answer::Show(row) => push_summary(out, row),
        Answer::Trackers(rows) => trackers(rows).write(out),
        Answer::Pieces(states) => {
            push_map(out, 0, states);
            push_legend(out);
        }
        Answer::Why(reasons) => reasons.iter().for_each(|reason| push_payload(out, &escape(&reason.sentence))),
        Answer::Settings(rows) => rows.iter().for_each(|row| push_pair(out, row.key, setting(row))),
        Answer::Shares(paths) => paths.iter().for_each(|path| push_payload(out, &escape(&path.to_string_lossy()))),
        Answer::Link(link) => push_payload(out, &escape(link)),
        Answer::Tracker(state) => tracker::push_text(out, state),
        Answer::Dht(answer) => return dht::push_text(out, answer),
        Answer::Metainfo(bytes) => return format!("{} bytes", bytes.len()),
    }
    String::new()
}

/// The heads of the columns of an answer that is a table which may be long.
pub(super) const fn heads(answer: &Answer) -> Option<&'static [&'static str]> {
    Some(match answer {
        Answer::List(_) | Answer::Changes { .. } => &LIST_HEADS,
        Answer::Files(_) => &FILE_HEADS,
        Answer::Peers(_) => &PEER_HEADS,
        Answer::Catalog { .. } | Answer::Dht(DhtAnswer::Swarms(..)) => &CATALOG_HEADS,
        _ => return None,
    })
}

/// The heads of the columns of an answer that comes in slices.
pub(super) const fn heads_of(listing: &Listing) -> Option<&'static [&'static str]> {
    Some(match listing {
        Listing::Torrents(_) => &LIST_HEADS,
        Listing::Files { .. } => &FILE_HEADS,
        Listing::Peers { .. } => &PEER_HEADS,
        Listing::Catalog { .. } | Listing::Swarms { .. } => &CATALOG_HEADS,
        Listing::Pieces { .. } | Listing::Stats { .. } | Listing::Status(_) => return None,
    })
}

/// Widens the columns for the rows of an answer that has [`heads`].
pub(super) fn measure(columns: &mut Columns, answer: &Answer) {
    match answer {
        Answer::List(rows) | Answer::Changes { rows, .. } => {
            rows.iter().for_each(|row| columns.measure(&list_row(row)))
        }
        Answer::Files(rows) => rows.iter().for_each(|row| columns.measure(&file_row(row))),
        Answer::Peers(rows) => rows.iter().for_each(|row| columns.measure(&peer_row(row))),
        Answer::Catalog { entries, .. } => entries.iter().for_each(|entry| columns.measure(&catalog_row(entry))),
        Answer::Dht(DhtAnswer::Swarms(rows, _)) => rows.iter().for_each(|row| columns.measure(&dht::swarm_row(row))),
        _ => {}
    }
}

/// Writes the rows of an answer that has [`heads`]; returns the closing line's detail.
pub(super) fn push_rows(out: &mut String, columns: &Columns, answer: &Answer) -> String {
    match answer {
        Answer::List(rows) => rows.iter().for_each(|row| columns.push_row(out, &list_row(row))),
        Answer::Changes { rows, gone, since, is_whole } => {
            rows.iter().for_each(|row| columns.push_row(out, &list_row(row)));
            gone.iter().for_each(|hash| push_payload(out, &format!("gone {hash}")));
            return format!("since={since}{}", if *is_whole { " all" } else { "" });
        }
        Answer::Files(rows) => rows.iter().for_each(|row| columns.push_row(out, &file_row(row))),
        Answer::Peers(rows) => rows.iter().for_each(|row| columns.push_row(out, &peer_row(row))),
        Answer::Catalog { entries, is_whole } => {
            entries.iter().for_each(|entry| columns.push_row(out, &catalog_row(entry)));
            return if *is_whole { "done" } else { "searching" }.to_owned();
        }
        Answer::Dht(DhtAnswer::Swarms(rows, progress)) => {
            rows.iter().for_each(|row| columns.push_row(out, &dht::swarm_row(row)));
            return progress.word().to_owned();
        }
        _ => {}
    }
    String::new()
}

fn catalog_row(entry: &Entry) -> [String; 3] {
    [entry.info_hash.to_string(), human_size(entry.size), entry.name.clone()]
}

pub(super) fn push_pair(out: &mut String, key: &str, value: impl Display) {
    push_payload(out, &format!("{}: {}", escape(key), escape(&value.to_string())));
}

fn push_status(out: &mut String, figures: &Status) {
    push_pair(out, "uptime", human_duration(figures.uptime));
    push_pair(out, "torrents", figures.torrents.iter().sum::<usize>());
    for (state, count) in State::ALL.iter().zip(figures.torrents) {
        push_pair(out, state.word(), count);
    }
    push_pair(out, "peers", figures.peers);
    push_pair(out, "connections", figures.connections);
    push_pair(out, "down rate", rate(figures.down_rate));
    push_pair(out, "up rate", rate(figures.up_rate));
    push_pair(out, "downloaded", human_size(figures.downloaded));
    push_pair(out, "uploaded", human_size(figures.uploaded));
    push_pair(out, "down limit", limit(figures.limits.0));
    push_pair(out, "up limit", limit(figures.limits.1));
    push_pair(out, "dht nodes", figures.dht_nodes.map_or_else(|| "off".to_owned(), |nodes| nodes.to_string()));
    let listen: Vec<_> = figures.listen.iter().map(ToString::to_string).collect();
    push_pair(out, "listen", if listen.is_empty() { "-".to_owned() } else { listen.join(" ") });
    let listen: Vec<_> = figures.dht_listen.iter().map(ToString::to_string).collect();
    push_pair(out, "dht listen", if listen.is_empty() { "-".to_owned() } else { listen.join(" ") });
    push_pair(out, "trouble", figures.trouble.as_deref().unwrap_or("-"));
}

fn push_host(out: &mut String, host: &Host) {
    push_pair(out, "downloads", host.downloads.display());
    push_pair(out, "disk free", host.disk_free.map_or_else(|| "-".to_owned(), human_size));
    for (path, free, total) in &host.disks {
        push_pair(out, "disk", format!("{} of {} free at {}", human_size(*free), human_size(*total), path.display()));
    }
    push_pair(out, "state dir", host.state_dir.display());
    push_pair(out, "memory", human_size(host.memory));
    push_pair(out, "threads", host.threads);
    push_pair(out, "limits", host.limits);
}

fn push_summary(out: &mut String, row: &Summary) {
    let dash = || "-".to_owned();
    push_pair(out, "id", row.info_hash);
    push_pair(out, "st id", row.st_id.map_or_else(dash, |id| id.to_string()));
    push_pair(out, "name", &row.name);
    push_pair(out, "state", row.state.word());
    push_pair(out, "error", row.error.as_deref().unwrap_or("-"));
    if let Some(checked) = row.checked {
        push_pair(out, "checked", percent(checked));
    }
    push_pair(out, "done", percent(row.progress()));
    push_pair(out, "size", exact(row.size));
    push_pair(out, "wanted", exact(row.wanted));
    push_pair(out, "have", exact(row.have_bytes));
    push_pair(
        out,
        "pieces",
        format!("{} of {}, {} each", row.pieces.1, row.pieces.0, human_size(row.piece_len.into())),
    );
    push_pair(out, "down rate", rate(row.down_rate));
    push_pair(out, "up rate", rate(row.up_rate));
    push_pair(out, "downloaded", exact(row.downloaded));
    push_pair(out, "uploaded", exact(row.uploaded));
    push_pair(out, "wasted", exact(row.wasted));
    push_pair(out, "ratio", format!("{:.2}", row.ratio()));
    push_pair(out, "peers", row.peers);
    push_pair(out, "seeds", row.seeds);
    push_pair(out, "eta", row.eta.map_or_else(dash, human_duration));
    push_pair(out, "queue", row.queue.map_or_else(dash, |place| place.to_string()));
    for row in row.settings.iter().filter(|row| !SHOWN_ANYWAY.contains(&row.key)) {
        let key = if row.key == "ratio" { "ratio goal".to_owned() } else { row.key.replace('-', " ") };
        push_pair(out, &key, setting(row));
    }
    push_pair(out, "label", if row.label.is_empty() { "-" } else { &row.label });
    push_pair(out, "dir", row.dir.display());
    if let Some(moving) = &row.moving {
        push_pair(out, "moving to", moving.to.display());
        push_pair(out, "moved", percent(moving.progress));
    }
    if let Some(error) = &row.move_error {
        push_pair(out, "not moved", error);
    }
    if let Some(hook) = &row.hook {
        push_pair(out, "hook", hook);
    }
    push_pair(out, "follows", row.follows.map_or_else(dash, |follows| follows.target.to_string()));
    push_pair(out, "seq", row.follows.and_then(|follows| follows.seq).map_or_else(dash, |seq| seq.to_string()));
    push_pair(out, "private", if row.private { "yes" } else { "no" });
    push_pair(out, "added", moment(row.added));
    push_pair(out, "finished", row.finished.map_or_else(dash, moment));
    push_pair(out, "comment", row.comment.as_deref().unwrap_or("-"));
    push_pair(out, "dht item", row.dht_item.map_or_else(|| "-".to_owned(), |target| target.to_string()));
    push_pair(out, "created by", row.created_by.as_deref().unwrap_or("-"));
}

fn list_row(row: &Summary) -> [String; 10] {
    let moving = row.moving.as_ref().map(|moving| moving.progress);
    [
        row.info_hash.to_string()[..ID_DIGITS].to_owned(),
        if row.moving.is_some() { "moving" } else { row.state.word() }.to_owned(),
        percent(moving.or(row.checked).unwrap_or_else(|| row.progress())),
        human_size(row.down_rate),
        human_size(row.up_rate),
        format!("{:.2}", row.ratio()),
        row.peers.to_string(),
        row.eta.map_or_else(|| "-".to_owned(), human_duration),
        human_size(row.size),
        row.name.clone(),
    ]
}

fn file_row(row: &FileRow) -> [String; 5] {
    [
        row.index.to_string(),
        row.priority.word().to_owned(),
        percent(share(row.have_bytes, row.size)),
        human_size(row.size),
        row.path.to_string_lossy().into_owned(),
    ]
}

fn peer_row(row: &PeerRow) -> [String; 8] {
    [
        row.addr.to_string(),
        if row.flags.is_empty() { "-".to_owned() } else { row.flags.clone() },
        percent(row.progress),
        human_size(row.down_rate),
        human_size(row.up_rate),
        row.transport.to_owned(),
        row.source.to_owned(),
        row.client.clone(),
    ]
}

fn trackers(rows: &[TrackerRow]) -> Table<8> {
    let count = |count: Option<u32>| count.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let mut table = Table::new(&[">tier", "state", ">next", ">seeders", ">leechers", ">peers", "address", "message"]);
    for row in rows {
        table.row([
            row.tier.to_string(),
            row.state.to_owned(),
            row.next.map_or_else(|| "-".to_owned(), human_duration),
            count(row.seeders),
            count(row.leechers),
            row.peers.to_string(),
            row.url.clone(),
            row.message.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// A character for each piece, from piece `first` on, which begins a line. The index of a line's first piece stands before it.
pub(super) fn push_map(out: &mut String, first: usize, states: &[PieceState]) {
    let mark = |state: &PieceState| match state {
        PieceState::Have => '#',
        PieceState::Partial => '+',
        PieceState::Unwanted => '-',
        PieceState::Missing(0) => '!',
        PieceState::Missing(_) => '.',
    };
    for (line, row) in states.chunks(MAP_WIDTH).enumerate() {
        let marks: String = row.iter().map(mark).collect();
        push_payload(out, &format!("{:>7}  {marks}", first + line * MAP_WIDTH));
    }
}

/// What the characters of the map mean.
pub(super) fn push_legend(out: &mut String) {
    push_payload(out, "# here  + partly here  . missing  ! missing, and no connected peer has it  - not wanted");
}

fn rate(bytes: u64) -> String {
    format!("{}/s", human_size(bytes))
}

fn limit(bytes: u64) -> String {
    if bytes == 0 { "none".to_owned() } else { rate(bytes) }
}

fn exact(bytes: u64) -> String {
    if bytes < 1024 { bytes.to_string() } else { format!("{bytes} ({})", human_size(bytes)) }
}

/// Never rounded up to the whole: only what is done shows 100.0%.
fn percent(share: f64) -> String {
    format!("{:.1}%", (share * 1000.0).floor() / 10.0)
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_whole_is_a_hundred_percent() {
        assert_eq!(percent(0.999_99), "99.9%");
        assert_eq!(percent(1.0), "100.0%");
        assert_eq!(percent(0.0), "0.0%");
    }

    #[test]
    fn the_piece_map_has_a_mark_a_piece() {
        let mut states = vec![PieceState::Have; 64];
        states.extend([PieceState::Partial, PieceState::Missing(3), PieceState::Missing(0), PieceState::Unwanted]);
        let mut out = String::new();
        push_map(&mut out, 0, &states);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines[0], format!("      0  {}", "#".repeat(64)));
        assert_eq!(lines[1], "     64  +.!-");
    }
}
