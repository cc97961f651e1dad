//! `swarmtorrent simulate`: a whole swarm, on a virtual clock.

use std::path::PathBuf;

use crate::base::time::Time;
use crate::cli::output::{read_regular, refuse_existing, shown, write_new};
use crate::sim::picture;
use crate::sim::random;
use crate::sim::report::Report;
use crate::sim::scenario::{Scenario, parse_time};
use crate::sim::swarm::{Failure, run as live};

/// Bytes of a scenario; a longer file is refused.
const SCENARIO_LEN_MAX: u64 = 1 << 20;

/// Live through a swarm that a scenario describes, on a virtual clock, network and disk, with the daemon's own code.
///
/// The report goes to standard output. Equal seeds give equal runs. If a rule is broken, or what the scenario expects does
/// not come, the exit status is 1 and the seed, the moment, and the latest events of the nodes involved are said.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The scenario (see swarmtorrent-scenario(5)), or the word random for one that is drawn by the seed
    scenario: String,
    /// Draw chance from this number instead of the scenario's own
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run once with each seed from A to B, and say a line of each
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<(u64, u64)>,
    /// Print everything that happens
    #[arg(long)]
    trace: bool,
    /// Print everything that happens from then on (as in 90s or 500ms)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<Time>,
    /// Print the scenario that is drawn, and run nothing
    #[arg(long, conflicts_with_all = ["seeds", "trace", "svg"])]
    print: bool,
    /// Draw how the swarm fared into this file
    #[arg(long, value_name = "FILE", conflicts_with = "seeds")]
    svg: Option<PathBuf>,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once("..").ok_or("write two numbers, as in 1..50")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a whole number"));
    let (first, last) = (number(first)?, number(last)?);
    if first <= last { Ok((first, last)) } else { Err("the first number is the smaller one".into()) }
}

fn moment(text: &str) -> Result<Time, String> {
    parse_time(text).map(|time| Time::ZERO + time).ok_or_else(|| "write a time, as in 90s or 500ms".into())
}

impl Args {
    fn scenario(&self, seed: Option<u64>) -> Result<Scenario, String> {
        if self.scenario == "random" {
            return Ok(random::scenario(seed.unwrap_or(1)));
        }
        let path = PathBuf::from(&self.scenario);
        let bytes = read_regular(&path, SCENARIO_LEN_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8 text", shown(&path)))?;
        Scenario::parse(&text).map_err(|error| format!("{}: {error}", shown(&path)))
    }

    fn live(&self, seed: Option<u64>) -> Result<Report, Failure> {
        let scenario = self.scenario(seed).map_err(|message| Failure {
            name: self.scenario.clone(),
            seed: seed.unwrap_or_default(),
            message,
            latest: Vec::new(),
            report: None,
        })?;
        let from = self.from.unwrap_or(if self.trace { Time::ZERO } else { Time::NEVER });
        live(&scenario, seed.unwrap_or(scenario.seed), from, &mut |line| println!("{line}"))
    }
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    if std::env::var_os("RUST_LOG").is_none() {
        log::set_max_level(log::LevelFilter::Off); // what simulated nodes complain of is part of the play
    }
    if args.print {
        if args.scenario != "random" {
            return Err("only a scenario that is drawn can be printed; write random".into());
        }
        print!("{}", random::text(args.seed.unwrap_or(1)));
        return Ok(());
    }
    if let Some(path) = &args.svg {
        refuse_existing(path)?;
    }
    args.scenario(args.seed)?; // what is wrong with it is said once, not by each run
    if let Some((first, last)) = args.seeds {
        return run_batch(args, first, last);
    }
    let told = args.live(args.seed);
    let report = match &told {
        Ok(report) => Some(report),
        Err(failure) => failure.report.as_deref(),
    };
    if let Some(report) = report {
        print!("{}", report.text());
        if let Some(path) = &args.svg {
            write_new(path, picture::svg(report).as_bytes())?;
        }
    }
    told.map(|_| ()).map_err(|failure| failure.to_string())
}

fn run_batch(args: &Args, first: u64, last: u64) -> Result<(), String> {
    let mut failed = 0_u64;
    for seed in first..=last {
        match args.live(Some(seed)) {
            Ok(report) => println!("{}", report.line()),
            Err(failure) => {
                failed += 1;
                println!("{failure}");
            }
        }
    }
    if failed > 0 { Err(format!("{failed} of {} runs failed", last - first + 1)) } else { Ok(()) }
}
