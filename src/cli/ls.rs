//! `swarmtorrent ls`: what a SwarmTorrent node shares, without knowing any hash.

use serde_json::json;

use crate::base::config::Config;
use crate::cli::node::{Node, Wake};
use crate::cli::progress::say;
use crate::codec::catalog::Entry;
use crate::codec::control::escape;
use crate::codec::units::human_size;
use crate::codec::url::host_and_port;

/// Lists what a SwarmTorrent node shares: hash, size and name.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where the node listens.
    #[arg(value_name = "HOST:PORT", value_parser = node)]
    node: (String, u16),
    /// A JSON object a line, sizes in bytes.
    #[arg(long)]
    json: bool,
}

fn node(text: &str) -> Result<(String, u16), &'static str> {
    host_and_port(text).ok_or("it is not HOST:PORT, such as 192.0.2.7:6881 or [2001:db8::7]:6881")
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let (host, port) = &args.node;
    let mut node = Node::start(Config { dht: false, lsd: false, ..Config::default() }, 0)?;
    let entries = loop {
        if let Some(entries) = node.catalog(host, *port)? {
            break entries;
        }
        if node.run()? == Wake::Stop {
            return Err("stopped before the list was whole".to_owned());
        }
    };
    entries.iter().for_each(|entry| say(&if args.json { as_json(entry) } else { as_text(entry) }));
    node.stop()
}

fn as_text(entry: &Entry) -> String {
    format!("{}  {:>8}  {}", entry.info_hash, human_size(entry.size), escape(&entry.name))
}

fn as_json(entry: &Entry) -> String {
    let st_id = entry.st_id.map(|id| id.to_string());
    json!({ "id": entry.info_hash.to_string(), "st_id": st_id, "name": entry.name, "size": entry.size }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::Sha1Hash;

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        let entry = Entry { info_hash: Sha1Hash([1; 20]), st_id: None, name: "a\x1b[2J\n".into(), size: 2048 };
        assert_eq!(as_text(&entry), format!("{}      2.0K  a\\x1b[2J\\n", "01".repeat(20)));
        assert_eq!(
            as_json(&entry),
            format!(r#"{{"id":"{}","name":"a\u001b[2J\n","size":2048,"st_id":null}}"#, "01".repeat(20))
        );
        assert!(node("here").is_err() && node("[::1]:5").is_ok());
    }
}
