//! Reports as JSON lines, with the fields that scripts rely on. Sizes in bytes, rates in bytes a second, times in Unix
//! seconds; fields are only ever added.

use serde_json::{Value, json};

use super::dht;
use super::request::{Host, Report};
use super::tracker as tracker_server;
use crate::codec::catalog::Entry;
use crate::codec::control::push_json;
use crate::torrent::command::{Answer, Status};
use crate::torrent::settings::SettingRow;
use crate::torrent::snapshot::{FileRow, PeerRow, PieceState, State, Summary, TrackerRow};
use crate::torrent::why::Reason;

/// Writes the lines of `report`; returns what the closing line says beside `ok`.
pub(super) fn push(out: &mut String, report: &Report) -> Vec<(&'static str, Value)> {
    match report {
        Report::Status(figures, host) => push_json(out, &status(figures, Some(host))),
        Report::Watching(_) | Report::Long(_) => {}
        Report::Lines(lines) => lines.iter().for_each(|line| push_json(out, &json!({ "message": line }))),
        Report::Node(answer) => return push_answer(out, answer),
    }
    Vec::new()
}

fn push_answer(out: &mut String, answer: &Answer) -> Vec<(&'static str, Value)> {
    match answer {
        Answer::Done | Answer::Later(_) => {}
        Answer::DoneTo(count) => return vec![("torrents", json!(count))],
        Answer::Added(id) => return vec![("id", json!(id.to_string()))],
        Answer::Status(figures) => push_json(out, &status(figures, None)),
        Answer::Stats(rows) => {
            rows.iter().for_each(|(name, value)| push_json(out, &json!({ "name": name, "value": value })));
        }
        Answer::Changes { rows, gone, since, is_whole } => {
            rows.iter().for_each(|row| push_json(out, &summary(row)));
            gone.iter().for_each(|hash| push_json(out, &json!({ "id": hash.to_string(), "gone": true })));
            return vec![("since", json!(since)), ("all", json!(is_whole))];
        }
        Answer::List(rows) => rows.iter().for_each(|row| push_json(out, &summary(row))),
        Answer::Show(row) => {
            let mut object = summary(row);
            object["settings"] = row.settings.iter().map(setting).collect();
            push_json(out, &object);
        }
        Answer::Files(rows) => rows.iter().for_each(|row| push_json(out, &file(row))),
        Answer::Peers(rows) => rows.iter().for_each(|row| push_json(out, &peer(row))),
        Answer::Trackers(rows) => rows.iter().for_each(|row| push_json(out, &tracker(row))),
        Answer::Pieces(states) => push_pieces(out, 0, states),
        Answer::Why(reasons) => {
            let line = |reason: &Reason| json!({ "topic": reason.topic, "message": reason.sentence });
            reasons.iter().for_each(|reason| push_json(out, &line(reason)));
        }
        Answer::Settings(rows) => {
            rows.iter().for_each(|row| push_json(out, &setting(row)));
        }
        Answer::Catalog { entries, is_whole } => {
            entries.iter().for_each(|entry| push_json(out, &catalog_entry(entry)));
            return vec![("state", json!(if *is_whole { "done" } else { "searching" }))];
        }
        Answer::Shares(paths) => paths.iter().for_each(|path| push_json(out, &json!({ "path": path }))),
        Answer::Link(link) => push_json(out, &json!({ "magnet": link })),
        Answer::Tracker(state) => push_json(out, &tracker_server::json(state)),
        Answer::Dht(answer) => return dht::push_json_rows(out, answer),
        Answer::Metainfo(bytes) => return vec![("bytes", json!(bytes.len()))],
    }
    Vec::new()
}

/// Writes the lines of pieces from piece `first` on.
pub(super) fn push_pieces(out: &mut String, first: usize, states: &[PieceState]) {
    (first..).zip(states).for_each(|(index, state)| push_json(out, &piece(index, *state)));
}

fn setting(row: &SettingRow) -> Value {
    json!({ "key": row.key, "value": row.value, "from": row.from })
}

fn catalog_entry(entry: &Entry) -> Value {
    json!({
        "id": entry.info_hash.to_string(),
        "st_id": entry.st_id.map(|id| id.to_string()),
        "name": entry.name,
        "size": entry.size,
    })
}

fn summary(row: &Summary) -> Value {
    json!({
        "id": row.info_hash.to_string(),
        "st_id": row.st_id.map(|id| id.to_string()),
        "name": row.name,
        "state": row.state.word(),
        "error": row.error,
        "size": row.size,
        "wanted": row.wanted,
        "have_bytes": row.have_bytes,
        "progress": row.progress(),
        "checked": row.checked,
        "down_rate": row.down_rate,
        "up_rate": row.up_rate,
        "downloaded": row.downloaded,
        "uploaded": row.uploaded,
        "wasted": row.wasted,
        "ratio": row.ratio(),
        "peers": row.peers,
        "seeds": row.seeds,
        "eta": row.eta,
        "queue": row.queue,
        "label": row.label,
        "added": row.added,
        "finished": row.finished,
        "dir": row.dir.to_string_lossy(),
        "moving_to": row.moving.as_ref().map(|moving| moving.to.to_string_lossy()),
        "moved": row.moving.as_ref().map(|moving| moving.progress),
        "move_error": row.move_error,
        "hook": row.hook,
        "private": row.private,
        "pieces": row.pieces.0,
        "have_pieces": row.pieces.1,
        "piece_length": row.piece_len,
        "comment": row.comment,
        "created_by": row.created_by,
        "dht_item": row.dht_item.map(|target| target.to_string()),
        "follows": row.follows.map(|follows| follows.target.to_string()),
        "seq": row.follows.and_then(|follows| follows.seq),
    })
}

/// The keys are those of the text form, with `_` for blanks and `-`.
fn status(figures: &Status, host: Option<&Host>) -> Value {
    let mut object = json!({
        "uptime": figures.uptime,
        "torrents": figures.torrents.iter().sum::<usize>(),
        "peers": figures.peers,
        "connections": figures.connections,
        "down_rate": figures.down_rate,
        "up_rate": figures.up_rate,
        "downloaded": figures.downloaded,
        "uploaded": figures.uploaded,
        "down_limit": figures.limits.0,
        "up_limit": figures.limits.1,
        "dht_nodes": figures.dht_nodes,
        "listen": figures.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "dht_listen": figures.dht_listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "trouble": figures.trouble,
    });
    for (state, count) in State::ALL.iter().zip(figures.torrents) {
        object[state.word()] = json!(count);
    }
    if let Some(host) = host {
        object["downloads"] = json!(host.downloads.to_string_lossy());
        object["disk_free"] = json!(host.disk_free);
        let disk = |(path, free, total): &(std::path::PathBuf, u64, u64)| json!({ "path": path.to_string_lossy(), "free": free, "total": total });
        object["disks"] = host.disks.iter().map(disk).collect();
        object["state_dir"] = json!(host.state_dir.to_string_lossy());
        object["memory"] = json!(host.memory);
        object["threads"] = json!(host.threads);
        object["limits"] = json!(host.limits);
    }
    object
}

fn file(row: &FileRow) -> Value {
    json!({
        "index": row.index,
        "path": row.path.to_string_lossy(),
        "size": row.size,
        "have_bytes": row.have_bytes,
        "priority": row.priority.word(),
    })
}

fn peer(row: &PeerRow) -> Value {
    json!({
        "addr": row.addr.to_string(),
        "client": row.client,
        "flags": row.flags,
        "progress": row.progress,
        "down_rate": row.down_rate,
        "up_rate": row.up_rate,
        "transport": row.transport,
        "encrypted": row.encrypted,
        "source": row.source,
    })
}

fn tracker(row: &TrackerRow) -> Value {
    json!({
        "tier": row.tier,
        "url": row.url,
        "state": row.state,
        "next": row.next,
        "seeders": row.seeders,
        "leechers": row.leechers,
        "downloaded": row.downloaded,
        "peers": row.peers,
        "message": row.message,
    })
}

fn piece(index: usize, state: PieceState) -> Value {
    let (word, peers) = match state {
        PieceState::Unwanted => ("unwanted", None),
        PieceState::Missing(peers) => ("missing", Some(peers)),
        PieceState::Partial => ("partial", None),
        PieceState::Have => ("have", None),
    };
    json!({ "piece": index, "state": word, "peers": peers })
}
