//! `swarmtorrent get`: downloads one torrent in this process and ends when every byte is verified.
//!
//! It keeps no state but the content: a run that was stopped is taken up by checking what is there.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use crate::base::config::Config;
use crate::cli::node::{Node, Wake, node};
use crate::cli::output::read_regular;
use crate::cli::progress::{Progress, shown_name};
use crate::codec::metainfo::FILE_LEN_MAX;
use crate::torrent::command::{AddOptions, Source};
use crate::torrent::snapshot::{State, Summary};

/// Downloads a torrent and exits 0 when every byte is verified.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A .st or .torrent file, a magnet link, or an info-hash of 40 or 64 hex digits.
    source: String,
    /// The directory that the content goes to.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Go on seeding when everything is here, until interrupted.
    #[arg(long)]
    seed: bool,
    /// A peer to connect to; may be given many times.
    #[arg(long, value_name = "HOST:PORT")]
    peer: Vec<String>,
    /// A node of the DHT to begin with, instead of the public ones; may be given many times.
    #[arg(long, value_name = "HOST:PORT", value_parser = node, conflicts_with = "no_dht")]
    begin: Vec<(String, u16)>,
    /// Do not use the DHT.
    #[arg(long)]
    no_dht: bool,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let source = read_source(&args.source)?;
    let peers = peers(&args.peer)?;
    let dir = std::path::absolute(&args.output).map_err(|error| format!("{}: {error}", args.output.display()))?;
    let mut config = Config { downloads: dir.clone(), dht: !args.no_dht, ..Config::default() };
    if !args.begin.is_empty() {
        config.dht_bootstrap.clone_from(&args.begin);
    }
    let mut node = Node::start(config, 0)?;
    node.add(source, AddOptions { dir: Some(dir), ..AddOptions::default() })?;
    for peer in peers {
        node.connect(peer)?;
    }
    let mut progress = Progress::new();
    let end = watch(&mut node, &mut progress, args.seed);
    progress.clear();
    let goodbye = node.stop();
    end.and(goodbye)
}

/// Shows the transfer until it is over: what was wanted is here, or cannot be had, or the user had enough.
fn watch(node: &mut Node, progress: &mut Progress, seed: bool) -> Result<(), String> {
    let mut told = false;
    loop {
        let wake = node.run()?;
        let summary = node.summary()?;
        let done = is_done(&summary)?;
        if done && !told {
            told = true;
            progress.say(&format!("{}: all {} bytes are verified", shown_name(&summary.name), summary.wanted));
        }
        match wake {
            _ if done && !seed => return Ok(()),
            Wake::Stop if done => return Ok(()),
            Wake::Stop => return Err("stopped before everything was here; run it again to go on".to_owned()),
            Wake::Tick => progress.show(node.now(), &summary),
        }
    }
}

/// True when everything wanted is here and verified.
///
/// # Errors
/// If it will not be.
fn is_done(summary: &Summary) -> Result<bool, String> {
    match summary.state {
        State::Seeding => Ok(summary.have_wanted_bytes >= summary.wanted),
        State::Error | State::NoSpace => Err(summary.error.clone().unwrap_or_else(|| {
            format!("the disk does not take it; see that there is room in {}", summary.dir.display())
        })),
        _ => Ok(false),
    }
}

/// What is to be got: a file's bytes, or a link or hash as it stands.
fn read_source(source: &str) -> Result<Source, String> {
    let path = Path::new(source);
    if is_link(source) && !path.exists() {
        return Ok(Source::Link(source.to_owned()));
    }
    if source.starts_with("http://") || source.starts_with("https://") {
        return Err(format!("{source}: download that file first, then name it here"));
    }
    let bytes = read_regular(path, FILE_LEN_MAX as u64)
        .map_err(|why| format!("{why}; give a .st or .torrent file, a magnet link or an info-hash"))?;
    Ok(Source::Metainfo(bytes))
}

fn is_link(source: &str) -> bool {
    let magnet = source.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:"));
    magnet || (matches!(source.len(), 40 | 64) && source.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The addresses of the peers that were named. Looked up before the node starts, so that waiting stops nothing.
fn peers(names: &[String]) -> Result<Vec<SocketAddr>, String> {
    let mut addrs = Vec::new();
    for name in names {
        let found = name
            .to_socket_addrs()
            .map_err(|error| format!("--peer {name}: {error}; give an address and a port, such as 192.0.2.1:6881"))?;
        addrs.extend(found);
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_hashes_are_told_from_files() {
        let hash = "0123456789abcdef0123456789ABCDEF01234567";
        assert_eq!(read_source(hash), Ok(Source::Link(hash.to_owned())));
        let magnet = "MAGNET:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567";
        assert_eq!(read_source(magnet), Ok(Source::Link(magnet.to_owned())));
        let error = read_source("/nonexistent/x.torrent").unwrap_err();
        assert!(error.contains("/nonexistent/x.torrent") && error.contains("magnet"), "{error}");
        assert!(read_source("https://example.org/x.torrent").unwrap_err().contains("download"));
    }

    #[test]
    fn a_file_is_read_whole_and_an_absurd_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.torrent");
        std::fs::write(&path, b"d4:infodee").unwrap();
        assert_eq!(read_source(path.to_str().unwrap()), Ok(Source::Metainfo(b"d4:infodee".to_vec())));
        std::fs::File::create(&path).unwrap().set_len(FILE_LEN_MAX as u64 + 1).unwrap();
        assert!(read_source(path.to_str().unwrap()).is_err());
    }

    #[test]
    fn peers_are_addresses_with_ports() {
        assert_eq!(peers(&["127.0.0.1:6881".to_owned()]), Ok(vec!["127.0.0.1:6881".parse().unwrap()]));
        assert!(peers(&["127.0.0.1".to_owned()]).unwrap_err().contains("--peer 127.0.0.1"));
    }
}
