//! The daemon's command line.

use std::path::PathBuf;

use clap::Parser;

/// A BitTorrent daemon on one thread.
///
/// Runs in the foreground and logs to standard error. Without -c it uses defaults for the user who runs it and says at the
/// start where to drop torrents and how to control it. SIGTERM and SIGINT end it, SIGHUP reads the config again, SIGUSR1 writes
/// the state of everything to the log. Exit status: 0 ended as asked, 1 failed while running, 2 bad arguments or config,
/// 3 another daemon holds the state directory or the socket.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "swarmtorrentd", version)]
pub struct Args {
    /// Read this config file instead of using a user's defaults.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say whether the config is right, and end.
    #[arg(long)]
    pub check: bool,
    /// Print the config in effect, every key of it, and end.
    #[arg(long)]
    pub print_config: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["swarmtorrentd", "-c", "x", "--check", "--print-config"]).unwrap();
        assert_eq!(args, Args { config: Some("x".into()), check: true, print_config: true });
        assert!(Args::try_parse_from(["swarmtorrentd", "x"]).is_err());
    }

    #[test]
    fn every_option_is_in_the_manual() {
        let manual = include_str!("../../man/swarmtorrentd.8");
        for argument in Args::command().get_arguments() {
            let long = argument.get_long().expect("each has a long name");
            assert!(manual.contains(&format!("Fl -{long}")), "--{long}");
        }
    }
}
