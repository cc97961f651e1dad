//! The commands of the DHT: their words, and what is told of it as text and JSON.
//!
//! The closing line of a search says `searching` while more may be found, and `done` after that: a script asks again until then.

use serde_json::{Value, json};

use super::commands::{Arguments, invalid};
use super::text::push_pair;
use crate::base::hash::{Sha1Hash, hex, unhex};
use crate::codec::bencode::{self, write_bytes};
use crate::codec::control::{push_json, push_payload};
use crate::codec::krpc::{SALT_MAX, VALUE_MAX};
use crate::codec::units::human_size;
use crate::protocol::dht::SAMPLES_MAX;
use crate::protocol::dht::items::{OwnedAuthor, OwnedItem};
use crate::torrent::command::Refusal;
use crate::torrent::dht_command::{DhtAnswer, DhtCommand, DhtState, Progress, Swarm};

/// Hashes of a sample unless it is said how many.
const SAMPLE: usize = 100;

/// Reads the command that begins with `word`.
pub(super) fn parse(word: &str, arguments: &mut Arguments<'_>) -> Result<DhtCommand, Refusal> {
    Ok(match word {
        "dht find" => DhtCommand::Find(hash(arguments.next()?)?),
        "dht sample" => DhtCommand::Sample(arguments.maybe_next().map_or(Ok(SAMPLE), count)?),
        "dht get" => {
            let salt = salt(arguments)?;
            DhtCommand::Get { target: hash(arguments.next()?)?, salt }
        }
        "dht put" => DhtCommand::Put(item(arguments)?),
        _ => DhtCommand::State,
    })
}

fn hash(text: &str) -> Result<Sha1Hash, Refusal> {
    Sha1Hash::from_hex(text).ok_or_else(|| invalid(format!("`{text}` is not a hash of 40 hex digits")))
}

fn count(text: &str) -> Result<usize, Refusal> {
    let count = text.parse().ok().filter(|count| (1..=SAMPLES_MAX).contains(count));
    count.ok_or_else(|| invalid(format!("`{text}` is not a number from 1 to {SAMPLES_MAX}")))
}

fn salt(arguments: &mut Arguments<'_>) -> Result<Vec<u8>, Refusal> {
    let salt = arguments.option("salt").unwrap_or_default().as_bytes().to_vec();
    if salt.len() > SALT_MAX { Err(invalid(format!("a salt has at most {SALT_MAX} bytes"))) } else { Ok(salt) }
}

/// So many bytes in hex.
fn bytes<const N: usize>(key: &str, text: &str) -> Result<[u8; N], Refusal> {
    unhex(text).ok_or_else(|| invalid(format!("{key}= wants {} hex digits", 2 * N)))
}

/// The text of the command as a bencoded string, with what its author has signed.
fn item(arguments: &mut Arguments<'_>) -> Result<OwnedItem, Refusal> {
    let salt = salt(arguments)?;
    let [key, seq, sig] = ["key", "seq", "sig"].map(|name| arguments.option(name));
    let mut value = Vec::new();
    write_bytes(&mut value, arguments.next()?.as_bytes());
    if value.len() > VALUE_MAX {
        return Err(invalid(format!("a value has at most {VALUE_MAX} bytes, bencoded")));
    }
    let author = match (key, seq, sig) {
        (None, None, None) if salt.is_empty() => None,
        (Some(key), Some(seq), Some(sig)) => {
            let version = seq.parse().map_err(|_| invalid(format!("seq={seq}: not a whole number")))?;
            Some(OwnedAuthor { key: bytes("key", key)?, salt, version, signature: bytes("sig", sig)? })
        }
        _ => return Err(arguments.usage()),
    };
    Ok(OwnedItem { value, author })
}

/// Bytes of strangers as text: what is none is escaped.
fn readable(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.escape_ascii().to_string(), str::to_owned)
}

/// The string that a value is, if it is one.
fn text_of(item: &OwnedItem) -> Option<String> {
    let value = bencode::parse(&item.value, 1).ok()?;
    Some(readable(value.as_bytes()?))
}

/// Writes the lines of an answer; returns the closing line's detail.
pub(super) fn push_text(out: &mut String, answer: &DhtAnswer) -> String {
    match answer {
        DhtAnswer::State(state) => {
            push_state(out, state);
            return String::new();
        }
        DhtAnswer::Peers(peers, ..) => peers.iter().for_each(|peer| push_payload(out, &peer.to_string())),
        DhtAnswer::Swarms(..) => {} // a table, which `text` writes
        DhtAnswer::Item(item, _) => {
            if let Some(item) = item {
                push_pair(out, "value", readable(&item.value));
                push_pair(out, "text", text_of(item).unwrap_or_else(|| "-".to_owned()));
                if let Some(author) = &item.author {
                    push_pair(out, "key", hex(&author.key));
                    push_pair(out, "salt", readable(&author.salt));
                    push_pair(out, "seq", author.version);
                    push_pair(out, "sig", hex(&author.signature));
                }
            }
        }
        DhtAnswer::Put(target, kept_by, _) => {
            push_pair(out, "target", target);
            push_pair(out, "nodes", kept_by);
        }
    }
    let word = progress(answer).word();
    match answer {
        DhtAnswer::Peers(_, Some((seeds, others)), _) => format!("{word}, about {seeds} seeds and {others} others"),
        _ => word.to_owned(),
    }
}

/// The row of a swarm in a table.
pub(super) fn swarm_row(Swarm { info_hash, name, size }: &Swarm) -> [String; 3] {
    let dash = || "-".to_owned();
    [info_hash.to_string(), size.map_or_else(dash, human_size), name.clone().unwrap_or_else(dash)]
}

fn progress(answer: &DhtAnswer) -> Progress {
    match answer {
        DhtAnswer::State(_) => Progress::default(),
        DhtAnswer::Peers(_, _, progress)
        | DhtAnswer::Swarms(_, progress)
        | DhtAnswer::Item(_, progress)
        | DhtAnswer::Put(_, _, progress) => *progress,
    }
}

fn push_state(out: &mut String, state: &DhtState) {
    for node in &state.nodes {
        let family = if node.listen.is_ipv6() { "ipv6" } else { "ipv4" };
        let key = |what: &str| format!("{family} {what}");
        push_pair(out, &key("id"), node.id);
        push_pair(out, &key("listen"), node.listen);
        push_pair(out, &key("address"), node.seen_as.map_or_else(|| "-".to_owned(), |addr| addr.to_string()));
        push_pair(out, &key("nodes"), node.nodes);
        push_pair(out, &key("good"), node.good);
    }
    push_pair(out, "read only", if state.read_only { "yes" } else { "no" });
    push_pair(out, "searches", state.searches);
    let (swarms, peers, items) = state.stored;
    push_pair(out, "swarms", swarms);
    push_pair(out, "peers", peers);
    push_pair(out, "items", items);
    push_pair(out, "answered", state.queries.0);
    push_pair(out, "refused", state.queries.1);
    let names: Vec<String> = state.names.iter().map(|(host, port)| format!("{host}:{port}")).collect();
    push_pair(out, "unresolved", if names.is_empty() { "-".to_owned() } else { names.join(" ") });
}

/// Writes the rows of an answer; returns what the closing line says beside `ok`.
pub(super) fn push_json_rows(out: &mut String, answer: &DhtAnswer) -> Vec<(&'static str, Value)> {
    match answer {
        DhtAnswer::State(state) => {
            push_json(out, &json_state(state));
            return Vec::new();
        }
        DhtAnswer::Peers(peers, ..) => {
            peers.iter().for_each(|peer| push_json(out, &json!({ "addr": peer.to_string() })));
        }
        DhtAnswer::Swarms(swarms, _) => {
            let row = |Swarm { info_hash, name, size }: &Swarm| json!({ "hash": info_hash.to_string(), "name": name, "size": size });
            swarms.iter().for_each(|swarm| push_json(out, &row(swarm)));
        }
        DhtAnswer::Item(item, _) => {
            if let Some(item) = item {
                let author = item.author.as_ref();
                let row = json!({
                    "value": hex(&item.value),
                    "text": text_of(item),
                    "key": author.map(|author| hex(&author.key)),
                    "salt": author.map(|author| hex(&author.salt)),
                    "seq": author.map(|author| author.version),
                    "sig": author.map(|author| hex(&author.signature)),
                });
                push_json(out, &row);
            }
        }
        DhtAnswer::Put(target, kept_by, _) => {
            push_json(out, &json!({ "target": target.to_string(), "nodes": kept_by }));
        }
    }
    let progress = progress(answer);
    let mut closing = vec![("state", json!(progress.word())), ("answers", json!(progress.answers))];
    if let DhtAnswer::Peers(_, Some((seeds, others)), _) = answer {
        closing.extend([("seeds", json!(seeds)), ("others", json!(others))]);
    }
    closing
}

fn json_state(state: &DhtState) -> Value {
    let nodes: Vec<Value> = state
        .nodes
        .iter()
        .map(|node| {
            json!({
                "family": if node.listen.is_ipv6() { "ipv6" } else { "ipv4" },
                "id": node.id.to_string(),
                "listen": node.listen.to_string(),
                "address": node.seen_as.map(|addr| addr.to_string()),
                "nodes": node.nodes,
                "good": node.good,
            })
        })
        .collect();
    let (swarms, peers, items) = state.stored;
    json!({
        "families": nodes,
        "read_only": state.read_only,
        "searches": state.searches,
        "swarms": swarms,
        "peers": peers,
        "items": items,
        "answered": state.queries.0,
        "refused": state.queries.1,
        "unresolved": state.names.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>(),
    })
}
