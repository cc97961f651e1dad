//! `swarmtorrent convert`: a compatible `.st` as a `.torrent`, in the same swarm.

use std::io::Write;
use std::path::PathBuf;

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
    let meta = show::read(&args.file)?;
    if meta.st_id.is_none() {
        return Err(format!(
            "{} is a .torrent already; making a .st needs the content and starts a new swarm: `swarmtorrent create`",
            args.file.display()
        ));
    }
    if meta.is_pure {
        return Err("a pure .st has no SHA-1 hashes, so it cannot become a .torrent".into());
    }
    let told = |error: std::io::Error| format!("{} cannot be written: {error}", args.output.display());
    let mut file = std::fs::File::options().write(true).create_new(true).open(&args.output).map_err(told)?;
    file.write_all(&meta.to_bytes(true)).and_then(|()| file.sync_all()).map_err(told)?;
    println!("{} is in the same swarm: {}", args.output.display(), meta.info_hash);
    Ok(())
}
