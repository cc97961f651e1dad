//! `swarmtorrent completions`: what a shell needs to complete our commands, made from the same definitions as `--help`.

use std::io;

use clap::{Command, ValueEnum};
use clap_complete::{Shell, generate};

/// Prints a script that has a shell complete the words of swarmtorrent, or of swarmtorrentd.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// For which shell.
    shell: Shell,
    /// Of which program.
    #[arg(long, value_enum, default_value_t = Program::Swarmtorrent)]
    program: Program,
}

/// A program of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Program {
    /// The tool.
    Swarmtorrent,
    /// The daemon.
    Swarmtorrentd,
}

/// Runs the command; `tool` and `daemon` are what the two programs understand.
///
/// # Errors
/// None: it is a command like the others.
pub fn run(args: &Args, tool: Command, daemon: Command) -> Result<(), String> {
    let (mut command, name) = match args.program {
        Program::Swarmtorrent => (tool, "swarmtorrent"),
        Program::Swarmtorrentd => (daemon, "swarmtorrentd"),
    };
    generate(args.shell, &mut command, name, &mut io::stdout());
    Ok(())
}
