//! `swarmtorrent seed`: makes a torrent of a file or directory and seeds it in this process until interrupted.
//!
//! The description is made in memory and lives as long as the command; the magnet link that it prints is all that others need.
//! `swarmtorrent create` is for what should last.

use std::path::{Path, PathBuf};

use crate::base::config::Config;
use crate::cli::create;
use crate::cli::node::{Node, Wake};
use crate::cli::progress::{Progress, say};
use crate::torrent::command::{AddOptions, Source};
use crate::torrent::snapshot::State;

/// Creates a torrent of a path and seeds it; prints its magnet link.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The file or directory to seed.
    path: PathBuf,
    /// A tracker to announce to; may be given many times.
    #[arg(long, value_name = "URL", value_parser = create::tracker)]
    tracker: Vec<String>,
    /// The port to listen at, TCP and UDP; 0 is any free one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    port: u16,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let path = std::fs::canonicalize(&args.path).map_err(|error| format!("{}: {error}", args.path.display()))?;
    let dir = path.parent().map(Path::to_path_buf).ok_or("the root directory cannot be seeded; name one below it")?;
    let metainfo = create::in_memory(&path, &args.tracker)?;
    let mut node = Node::start(Config { downloads: dir.clone(), ..Config::default() }, args.port)?;
    node.add(Source::Metainfo(metainfo), AddOptions { dir: Some(dir), ..AddOptions::default() })?;
    for addr in node.bound() {
        say(&format!("listening at {addr}"));
    }
    say(&node.magnet()?);
    let mut progress = Progress::new();
    let end = watch(&mut node, &mut progress);
    progress.clear();
    let goodbye = node.stop();
    end.and(goodbye)
}

/// Shows the transfer until the user had enough, or the content is not what it was a moment ago.
fn watch(node: &mut Node, progress: &mut Progress) -> Result<(), String> {
    loop {
        let wake = node.run()?;
        let summary = node.summary()?;
        match summary.state {
            State::Error => return Err(summary.error.unwrap_or_else(|| "the content cannot be read".to_owned())),
            State::Downloading if summary.checked.is_none() => {
                return Err("the content was changed while it was read; run it again".to_owned());
            }
            _ => {}
        }
        match wake {
            Wake::Stop => return Ok(()),
            Wake::Tick => progress.show(node.now(), &summary),
        }
    }
}
