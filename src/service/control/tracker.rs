//! What the tracker server tells of itself, as text and JSON.

use serde_json::{Value, json};

use super::text::push_pair;
use crate::codec::units::duration;
use crate::torrent::tracker_state::TrackerState;

/// Writes the lines of an answer.
pub(super) fn push_text(out: &mut String, state: &TrackerState) {
    state.udp.iter().for_each(|addr| push_pair(out, "udp", addr));
    state.http.iter().for_each(|addr| push_pair(out, "http", addr));
    push_pair(out, "interval", duration(state.interval));
    match state.allowed {
        Some(count) => push_pair(out, "allowed torrents", count),
        None => push_pair(out, "allowed torrents", "all"),
    }
    push_pair(out, "swarms", state.swarms);
    push_pair(out, "peers", state.peers);
    push_pair(out, "announces a second", state.announce_rate);
    push_pair(out, "scrapes a second", state.scrape_rate);
    push_pair(out, "announces", state.announces);
    push_pair(out, "scrapes", state.scrapes);
    for (name, count) in &state.errors {
        push_pair(out, &format!("errors {}", name.replace('_', " ")), count);
    }
}

/// The same for scripts.
pub(super) fn json(state: &TrackerState) -> Value {
    let texts = |addrs: &[std::net::SocketAddr]| addrs.iter().map(ToString::to_string).collect::<Vec<_>>();
    let errors: serde_json::Map<String, Value> =
        state.errors.iter().map(|(name, count)| ((*name).to_owned(), json!(count))).collect();
    json!({
        "udp": texts(&state.udp),
        "http": texts(&state.http),
        "interval": state.interval.as_secs(),
        "allowed": state.allowed,
        "swarms": state.swarms,
        "peers": state.peers,
        "announce_rate": state.announce_rate,
        "scrape_rate": state.scrape_rate,
        "announces": state.announces,
        "scrapes": state.scrapes,
        "errors": errors,
    })
}
