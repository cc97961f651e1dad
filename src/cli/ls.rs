//! `swarmtorrent ls`: what a SwarmTorrent node shares, or what is in a DHT, without knowing any hash.

use serde_json::json;

use crate::base::config::Config;
use crate::base::time::Time;
use crate::cli::node::{Node, Wake, node};
use crate::cli::progress::say;
use crate::codec::control::{escape, json_text};
use crate::codec::units::human_size;

/// Swarms that are looked for in a DHT unless it is said how many.
const COUNT: u16 = 100;
/// How long nodes of the DHT may take to answer at first, seconds.
const FIRST_MAX: u64 = 20;

/// Lists what a SwarmTorrent node shares, or what is in a DHT: hash, size and name.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where the node listens; with --dht not needed.
    #[arg(value_name = "HOST:PORT", value_parser = node, required_unless_present = "dht", conflicts_with = "dht")]
    node: Option<(String, u16)>,
    /// Walk through the DHT, and ask peers what the swarms that it knows are about.
    #[arg(long)]
    dht: bool,
    /// With --dht, a node of it to begin with, instead of the public ones; may be given many times.
    #[arg(long, value_name = "HOST:PORT", value_parser = node, requires = "dht")]
    begin: Vec<(String, u16)>,
    /// With --dht, how many swarms to look for, 2000 at most.
    #[arg(long, value_name = "N", requires = "dht", default_value_t = COUNT, value_parser = clap::value_parser!(u16).range(1..=2000))]
    count: u16,
    /// A JSON object a line, sizes in bytes.
    #[arg(long)]
    json: bool,
}

/// One line.
#[derive(Debug)]
struct Row {
    hash: String,
    st_id: Option<String>,
    name: Option<String>,
    size: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let mut config = Config { dht: args.dht, lsd: false, ..Config::default() };
    if !args.begin.is_empty() {
        config.dht_bootstrap.clone_from(&args.begin);
    }
    let mut node = Node::start(config, 0)?;
    let rows = match &args.node {
        Some((host, port)) => shared(&mut node, host, *port)?,
        None => sampled(&mut node, usize::from(args.count))?,
    };
    rows.iter().for_each(|row| say(&if args.json { as_json(row) } else { as_text(row) }));
    node.stop()
}

/// What a node shares.
fn shared(node: &mut Node, host: &str, port: u16) -> Result<Vec<Row>, String> {
    let entries = loop {
        if let Some(entries) = node.catalog(host, port)? {
            break entries;
        }
        wait(node)?;
    };
    let row = |entry: crate::codec::catalog::Entry| Row {
        hash: entry.info_hash.to_string(),
        st_id: entry.st_id.map(|id| id.to_string()),
        name: Some(entry.name),
        size: Some(entry.size),
    };
    Ok(entries.into_iter().map(row).collect())
}

/// What is in the DHT: first some of its nodes must answer.
fn sampled(node: &mut Node, count: usize) -> Result<Vec<Row>, String> {
    let until = Time::from_secs(node.now().as_secs() + FIRST_MAX);
    while node.dht_nodes()? == 0 {
        if node.now() > until {
            return Err(
                "no node of the DHT answers; name one with --begin HOST:PORT, or look at the network".to_owned()
            );
        }
        wait(node)?;
    }
    let swarms = loop {
        let (swarms, searches) = node.sample(count)?;
        if !searches {
            break swarms;
        }
        wait(node)?;
    };
    let row = |swarm: crate::torrent::dht_command::Swarm| Row {
        hash: swarm.info_hash.to_string(),
        st_id: None,
        name: swarm.name,
        size: swarm.size,
    };
    Ok(swarms.into_iter().map(row).collect())
}

fn wait(node: &mut Node) -> Result<(), String> {
    match node.run()? {
        Wake::Tick => Ok(()),
        Wake::Stop => Err("stopped before the list was whole".to_owned()),
    }
}

fn as_text(row: &Row) -> String {
    let size = row.size.map_or_else(|| "-".to_owned(), human_size);
    format!("{}  {size:>8}  {}", row.hash, row.name.as_deref().map_or("-".into(), escape))
}

fn as_json(row: &Row) -> String {
    json_text(&json!({ "id": row.hash, "st_id": row.st_id, "name": row.name, "size": row.size }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_nothing_to_a_terminal() {
        let mut row = Row { hash: "01".repeat(20), st_id: None, name: Some("a\x1b[2J\n".into()), size: Some(2048) };
        assert_eq!(as_text(&row), format!("{}      2.0K  a\\x1b[2J\\n", "01".repeat(20)));
        assert_eq!(
            as_json(&row),
            format!(r#"{{"id":"{}","name":"a\u001b[2J\n","size":2048,"st_id":null}}"#, "01".repeat(20))
        );
        (row.name, row.size) = (None, None);
        assert_eq!(as_text(&row), format!("{}         -  -", "01".repeat(20)));
        assert!(node("here").is_err() && node("[::1]:5").is_ok());
    }
}
