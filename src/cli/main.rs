//! The tool's commands and its exit status: 0 done, 1 failed (one line says what and what to do), 2 bad usage.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{check, completions, convert, create, ctl, get, ls, seed, show, simulate, tracker};
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
    Convert(convert::Args),
    Simulate(simulate::Args),
    Completions(completions::Args),
}

/// What the engine warns of, such as a peer that hangs up, is said on standard error; `RUST_LOG` says how much.
fn tell_warnings() {
    use std::io::Write;
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn).parse_default_env();
    builder.format(|out, record| writeln!(out, "swarmtorrent: {}", record.args()));
    let _already_told = builder.try_init();
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
        Command::Ctl(args) => match ctl::run(&args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(1), // the reply said why
            Err(why) => Err(why),
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
