//! `swarmtorrent tracker`: a tracker and nothing else, in this process, until it is interrupted.

use std::io::{IsTerminal, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::base::config::{Config, TrackerConfig};
use crate::base::net::Net;
use crate::cli::node::{Node, Wake};
use crate::cli::progress::say;
use crate::codec::units::{DURATION_FORM, parse_duration};
use crate::daemon::allow::AllowList;
use crate::torrent::tracker_state::TrackerState;

/// Where it listens unless it is told: the port that trackers have.
const PORT: u16 = 6969;

/// Runs a tracker, by UDP and HTTP.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Listen for datagrams here; may be given many times. Without it and --http: port 6969 of every address, for both.
    #[arg(long, value_name = "H:P")]
    udp: Vec<SocketAddr>,
    /// Listen for HTTP here; may be given many times.
    #[arg(long, value_name = "H:P")]
    http: Vec<SocketAddr>,
    /// What clients are told to wait between announces.
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = interval)]
    interval: Duration,
    /// Only for the torrents that this file lists, by hash or path, or that are in this directory.
    #[arg(long, value_name = "FILE")]
    allow_file: Option<PathBuf>,
    /// Only for those whose announce address has one of the pass keys in this file.
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// A proxy in front of it, or a range of them, that tells who asks; may be given many times.
    #[arg(long, value_name = "NET", value_parser = net)]
    proxy: Vec<Net>,
    /// HTTP connections at once.
    #[arg(long, value_name = "N", default_value_t = TrackerConfig::default().connections_max)]
    max_connections: usize,
    /// Swarms that are kept.
    #[arg(long, value_name = "N", default_value_t = TrackerConfig::default().swarms_max)]
    max_swarms: usize,
    /// Peers that are kept, of all swarms together.
    #[arg(long, value_name = "N", default_value_t = TrackerConfig::default().peers_max)]
    max_peers: usize,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).filter(|time| (1..=86_400).contains(&time.as_secs()));
    time.ok_or_else(|| format!("an interval is {DURATION_FORM}, from 1s to 1d"))
}

fn net(text: &str) -> Result<Net, &'static str> {
    Net::parse(text).ok_or("it is not an address or a range of some, such as 10.0.0.0/8")
}

/// Runs the command.
///
/// # Errors
/// One sentence that says what went wrong and what to do.
pub fn run(args: &Args) -> Result<(), String> {
    let everywhere = [([0, 0, 0, 0], PORT).into(), ([0_u16; 8], PORT).into()];
    let is_told = !args.udp.is_empty() || !args.http.is_empty();
    let tracker = TrackerConfig {
        udp: if is_told { args.udp.clone() } else { everywhere.to_vec() },
        http: if is_told { args.http.clone() } else { everywhere.to_vec() },
        interval: args.interval,
        open: args.allow_file.is_none(),
        needs_key: args.keys_file.is_some(),
        proxies: args.proxy.clone(),
        connections_max: args.max_connections,
        swarms_max: args.max_swarms,
        peers_max: args.max_peers,
    };
    let config = Config { tracker, dht: false, lsd: false, pex: false, ..Config::default() };
    let mut node = Node::listening(config)?;
    let mut allow = AllowList::new(args.allow_file.clone(), args.keys_file.clone());
    node.allow(allow.load(node.now())?);
    let state = node.tracker()?;
    state.udp.iter().for_each(|addr| say(&format!("listening at udp://{addr}")));
    state.http.iter().for_each(|addr| say(&format!("listening at http://{addr}/announce")));
    let bar = bar();
    loop {
        let wake = node.run()?;
        match allow.handle_timeout(node.now()) {
            Ok(Some(allowed)) => node.allow(allowed),
            Ok(None) => {}
            Err(why) => log::warn!("{why}; what was allowed before still is"),
        }
        let state = node.tracker()?;
        if wake == Wake::Stop {
            bar.finish_and_clear();
            say(&line(&state));
            return node.stop();
        }
        bar.set_message(line(&state));
    }
}

/// The line that is kept up to date, where there is a person to see it.
fn bar() -> ProgressBar {
    if !stdout().is_terminal() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{msg}").expect("a template that is right"));
    bar
}

fn line(state: &TrackerState) -> String {
    let errors: u64 = state.errors.iter().map(|(_, count)| count).sum();
    format!(
        "{} swarms, {} peers, {} announces/s, {} scrapes/s; {} announces, {} scrapes, {errors} errors in all",
        state.swarms, state.peers, state.announce_rate, state.scrape_rate, state.announces, state.scrapes
    )
}
