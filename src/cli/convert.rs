//! `swarmtorrent convert`: a compatible `.st` as a `.torrent`, in the same swarm.

use std::path::PathBuf;

use crate::cli::output::{refuse_existing, shown, write_new};
use crate::cli::progress::say;
use crate::cli::show;

/// Writes a compatible .st file as a .torrent of the same swarm.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The .st file.
    file: PathBuf,
    /// The .torrent to write; never overwritten.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    refuse_existing(&args.output)?;
    let meta = show::read(&args.file)?;
    if meta.st_id.is_none() {
        return Err(format!(
            "{} is a .torrent already; making a .st needs the content and starts a new swarm: `swarmtorrent create`",
            shown(&args.file)
        ));
    }
    if meta.is_pure {
        return Err("a pure .st has no SHA-1 hashes, so it cannot become a .torrent".into());
    }
    write_new(&args.output, &meta.to_bytes(true))?;
    say(&format!("{} is in the same swarm: {}", shown(&args.output), meta.info_hash));
    Ok(())
}
