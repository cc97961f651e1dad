//! What happens, a line each, for a client that watches.
//!
//! `UNIX-SECONDS KIND ID DETAIL NAME`: the detail is a state, a piece, a sentence or a peer, where there is one.

use serde_json::{Value, json};

use crate::codec::control::{escape, push_json, push_payload};
use crate::torrent::event::{Event, What};

/// Digits of an id in a line, as in `list`.
const ID_DIGITS: usize = 12;

/// Writes the line of an event.
pub(super) fn push_text(out: &mut String, event: &Event) {
    let kind = event.what.kind().word();
    let id = event.info_hash.map_or_else(|| "-".repeat(ID_DIGITS), |hash| hash.to_string()[..ID_DIGITS].to_owned());
    let detail = match &event.what {
        What::Added | What::Removed | What::Metadata | What::Finished => String::new(),
        What::State(state) => format!("{} ", state.word()),
        What::Piece(piece) => format!("{} ", piece.0),
        What::Move { dir, thousandths, is_there } => {
            let state = if *is_there { "done".to_owned() } else { format!("{}%", thousandths / 10) };
            format!("{state} {} ", escape(&dir.to_string_lossy()))
        }
        What::MoveFailed(why) | What::Error(why) => {
            return push_payload(out, &format!("{} {kind} {id} {}", event.at, escape(why)));
        }
        What::Peer(addr, came) => format!("{addr} {} ", if *came { "came" } else { "went" }),
        What::Lost(count) => return push_payload(out, &format!("{} {kind} {id} {count}", event.at)),
    };
    push_payload(out, &format!("{} {kind} {id} {detail}{}", event.at, escape(&event.name)));
}

/// The same for scripts.
pub(super) fn push_json_line(out: &mut String, event: &Event) {
    let mut line = json!({ "event": event.what.kind().word(), "at": event.at });
    let object = line.as_object_mut().expect("it was just made as one");
    let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if let Some(hash) = event.info_hash {
        set("id", json!(hash.to_string()));
        set("name", json!(event.name));
    }
    match &event.what {
        What::Added | What::Removed | What::Metadata | What::Finished => {}
        What::State(state) => _ = set("state", json!(state.word())),
        What::Piece(piece) => _ = set("piece", json!(piece.0)),
        What::Move { dir, thousandths, is_there } => {
            set("dir", json!(dir.to_string_lossy()));
            set("progress", json!(f64::from(*thousandths) / 1000.0));
            set("done", json!(is_there));
        }
        What::MoveFailed(why) | What::Error(why) => _ = set("message", json!(why)),
        What::Peer(addr, came) => {
            set("addr", json!(addr.to_string()));
            set("came", json!(came));
        }
        What::Lost(count) => _ = set("count", json!(count)),
    }
    push_json(out, &line);
}
