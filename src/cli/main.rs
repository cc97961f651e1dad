//! The tool's commands and its exit status: 0 done, 1 failed (one line says what and what to do), 2 bad usage.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{
    check, completions, convert, create, ctl, direct, get, import, ls, seed, show, simulate, top, tracker,
};
use crate::daemon::args::Args as DaemonArgs;

/// A BitTorrent tool: makes, shows, checks, gets and seeds torrents, and controls a swarmtorrentd.
#[derive(Debug, Parser)]
#[command(name = "swarmtorrent", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(create::Args),
    Show(show::Args),
    Check(check::Args),
    Get(get::Args),
    Ls(ls::Args),
    Seed(seed::Args),
    Tracker(tracker::Args),
    Ctl(ctl::Args),
    Top(top::Args),
    Import(import::Args),
    #[command(flatten)]
    Daemon(Daemon),
    Convert(convert::Args),
    Simulate(simulate::Args),
    Completions(completions::Args),
}

/// Commands of the daemon that are words of the tool as well.
#[derive(Debug, clap::Subcommand)]
enum Daemon {
    /// Lists the daemon's torrents: [STATE…] [sort=FIELD] [label=L].
    List(direct::Args),
    /// Says how the daemon is: torrents by state, rates, addresses, disk, memory.
    Status(direct::Args),
    /// Lists the files of a torrent of the daemon's: ID.
    Files(direct::Args),
    /// Lists the peers of a torrent of the daemon's: ID.
    Peers(direct::Args),
    /// Lists the trackers of a torrent of the daemon's: ID.
    Trackers(direct::Args),
    /// Says why a torrent of the daemon's does not move, and what would help: ID.
    Why(direct::Args),
    /// Adds torrents to the daemon: SOURCE [dir=D] [label=L] [paused=yes] …
    Add(direct::Args),
    /// Takes a torrent out of the daemon: ID [data=yes]; data=yes deletes its files.
    Remove(direct::Args),
    /// Stops a torrent of the daemon's: ID.
    Pause(direct::Args),
    /// Starts a torrent of the daemon's again: ID.
    Resume(direct::Args),
    /// Has the daemon hash the content of a torrent again: ID.
    Verify(direct::Args),
    /// Moves the content of a torrent of the daemon's: ID DIR.
    Move(direct::Args),
    /// Changes a setting of a torrent of the daemon's: ID KEY VALUE.
    Set(direct::Args),
    /// Tells what happens in the daemon, a line each: [ID] [events=KIND,…].
    Watch(direct::Args),
    /// Prints every counter of the daemon.
    Stats(direct::Args),
}

impl Daemon {
    /// The word of the control socket for it.
    const fn word(&self) -> &'static str {
        match self {
            Self::List(_) => "list",
            Self::Status(_) => "status",
            Self::Files(_) => "files",
            Self::Peers(_) => "peers",
            Self::Trackers(_) => "trackers",
            Self::Why(_) => "why",
            Self::Add(_) => "add",
            Self::Remove(_) => "remove",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Verify(_) => "verify",
            Self::Move(_) => "move",
            Self::Set(_) => "set",
            Self::Watch(_) => "watch",
            Self::Stats(_) => "stats",
        }
    }

    const fn arguments(&self) -> &direct::Args {
        match self {
            Self::List(args)
            | Self::Status(args)
            | Self::Files(args)
            | Self::Peers(args)
            | Self::Trackers(args)
            | Self::Why(args)
            | Self::Add(args)
            | Self::Remove(args)
            | Self::Pause(args)
            | Self::Resume(args)
            | Self::Verify(args)
            | Self::Move(args)
            | Self::Set(args)
            | Self::Watch(args)
            | Self::Stats(args) => args,
        }
    }
}

/// What the engine warns of, such as a peer that hangs up, is said on standard error; `RUST_LOG` says how much.
fn tell_warnings() {
    use std::io::Write;
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn).parse_default_env();
    builder.format(|out, record| writeln!(out, "swarmtorrent: {}", record.args()));
    let _already_told = builder.try_init();
}

/// What the tool understands, for manuals.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    tell_warnings();
    let done = match Cli::parse().command {
        Command::Create(args) => create::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Seed(args) => seed::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Tracker(args) => tracker::run(&args),
        Command::Completions(args) => completions::run(&args, Cli::command(), DaemonArgs::command()),
        Command::Top(args) => top::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Ctl(args) => match ctl::run(&args) {
            Ok(false) => return ExitCode::from(1), // the reply said why
            asked => asked.map(drop),
        },
        Command::Daemon(command) => match direct::run(command.word(), command.arguments()) {
            Ok(false) => return ExitCode::from(1), // the reply said why
            asked => asked.map(drop),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("swarmtorrent: {why}");
            ExitCode::from(1)
        }
    }
}
