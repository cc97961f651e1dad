//! What is said of a run: for each node how long it took, what it gave and got, from whom; for the swarm how available the
//! content was, how fair the shares were, and how near it came to what could be had at all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::base::time::Time;
use crate::codec::units::{human_duration, human_size};
use crate::sim::checks::Watch;
use crate::sim::crowd::CrowdReport;
use crate::sim::ledger::TrackerReport;
use crate::sim::lookups::LookupReport;
use crate::sim::trace::shown_hash;

/// Samples of a run; beyond it every other one is forgotten and they are taken half as often.
const SAMPLES_MAX: usize = 600;
/// Nodes that a report lists one by one; of more it shows groups.
const LISTED_MAX: usize = 60;

/// What a run counts while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) dials: u64,
    pub(crate) packets: u64,
    pub(crate) segments: u64,
    pub(crate) segments_lost: u64,
    /// Every byte of content on a stream is known as such: nobody ciphers, nobody lies.
    pub(crate) is_exact: bool,
    nodes: Vec<NodeTally>,
}

/// What a node gave and got, whatever became of its program meanwhile.
#[derive(Debug, Default, Clone)]
pub(crate) struct NodeTally {
    pub(crate) came: Option<Time>,
    pub(crate) finished: Option<Time>,
    pub(crate) is_complete: bool,
    watch: Watch,
    gave: BTreeMap<usize, u64>,
    from_complete: u64,
    from_others: u64,
    bytes_in: u64,
    pub(crate) wasted: u64,
}

impl Tally {
    pub(crate) fn add_node(&mut self) {
        self.nodes.push(NodeTally::default());
    }

    pub(crate) fn node(&mut self, index: usize) -> &mut NodeTally {
        &mut self.nodes[index]
    }

    pub(crate) fn watch(&mut self, index: usize) -> &mut Watch {
        &mut self.nodes[index].watch
    }

    pub(crate) fn delivered(&mut self, from: usize, to: usize, len: usize, content: usize) {
        let is_complete = self.nodes[from].is_complete;
        let node = &mut self.nodes[to];
        node.bytes_in += len as u64;
        if content > 0 {
            let sum = if is_complete { &mut node.from_complete } else { &mut node.from_others };
            *sum += content as u64;
            *self.nodes[from].gave.entry(to).or_default() += content as u64;
        }
    }
}

/// How things stood at a moment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When.
    pub at: Time,
    /// By node of the report: the share of what it wants that it has.
    pub progress: Vec<f32>,
    /// How many nodes that are up have the rarest piece.
    pub copies_least: u32,
    /// And any piece, on the average.
    pub copies_mean: f32,
}

/// Samples, taken less often the longer it takes.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) taken: Vec<Sample>,
    pub(crate) every: Duration,
}

impl Default for Samples {
    fn default() -> Self {
        Self { taken: Vec::new(), every: Duration::from_millis(500) }
    }
}

impl Samples {
    pub(crate) fn add(&mut self, sample: Sample) {
        if self.taken.len() == SAMPLES_MAX {
            let mut index = 0;
            self.taken.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every *= 2;
        }
        self.taken.push(sample);
    }
}

/// One node's account.
#[derive(Debug, Clone)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// It had everything from the start.
    pub is_seed: bool,
    /// It has and wants nothing.
    pub is_node: bool,
    /// It gives nothing.
    pub is_rider: bool,
    /// When it came.
    pub came: Time,
    /// When it had everything; none if it never did, or always.
    pub finished: Option<Time>,
    /// Content that it gave.
    pub gave: u64,
    /// Content that it got from those who had everything.
    pub from_seeds: u64,
    /// And from others.
    pub from_peers: u64,
    /// Bytes of any kind that came.
    pub bytes_in: u64,
    /// Payload that came in vain.
    pub wasted: u64,
    /// What it wants, bytes.
    pub wants: u64,
    /// What its uplink carries, bytes a second; 0 is no limit.
    pub up: u64,
    /// What its downlink carries.
    pub down: u64,
}

impl NodeReport {
    /// How long it took.
    #[must_use]
    pub fn took(&self) -> Option<Duration> {
        self.finished.map(|finished| finished.since(self.came))
    }

    /// What it gave for what it got.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn ratio(&self) -> f64 {
        let got = (self.from_seeds + self.from_peers).max(1);
        let base = if self.is_seed { self.wants.max(1) } else { got };
        self.gave as f64 / base as f64
    }
}

/// The account of a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The scenario's name.
    pub name: String,
    /// The seed.
    pub seed: u64,
    /// When it was over.
    pub ended: Time,
    /// What happened, as a number: equal runs have equal ones.
    pub trace: [u8; 32],
    /// The nodes; trackers and those who mean harm are not among them.
    pub nodes: Vec<NodeReport>,
    /// What the first torrent's content is, bytes.
    pub content: u64,
    /// Between whom content went: from, to, bytes.
    pub gifts: Vec<(usize, usize, u64)>,
    /// How things stood.
    pub samples: Vec<Sample>,
    /// Events of the simulation.
    pub events: u64,
    /// Connections that were tried.
    pub dials: u64,
    /// Datagrams that were sent.
    pub packets: u64,
    /// Segments of streams that were sent, and lost.
    pub segments: (u64, u64),
    /// Messages between peers that were received.
    pub messages: u64,
    /// Searches in the DHT, where there is one.
    pub lookups: Option<LookupReport>,
    /// What trackers did that are the daemon's own.
    pub trackers: Option<TrackerReport>,
    /// What became of those who only announce.
    pub crowd: Option<CrowdReport>,
    /// The most expensive call of an engine.
    pub costliest: CallCost,
}

/// What a call of an engine cost.
#[derive(Debug, Clone, Default)]
pub struct CallCost {
    /// Steps: see [`crate::base::steps`].
    pub steps: u64,
    /// The name of the call.
    pub call: &'static str,
    /// The name of the node.
    pub node: String,
}

impl CallCost {
    fn line(&self) -> String {
        format!("most expensive call {} steps ({} of {})", self.steps, self.call, self.node)
    }
}

impl Report {
    pub(crate) fn take_nodes(&mut self, tally: &Tally, indexes: &[usize]) {
        for (node, &index) in self.nodes.iter_mut().zip(indexes) {
            let counted = &tally.nodes[index];
            node.came = counted.came.unwrap_or(Time::ZERO);
            node.finished = counted.finished;
            node.gave = counted.gave.values().sum();
            node.from_seeds = counted.from_complete;
            node.from_peers = counted.from_others;
            node.bytes_in = counted.bytes_in;
            node.wasted = counted.wasted;
        }
        for (from, &index) in indexes.iter().enumerate() {
            for (to, bytes) in &tally.nodes[index].gave {
                if let Ok(to) = indexes.binary_search(to) {
                    self.gifts.push((from, to, *bytes));
                }
            }
        }
        (self.dials, self.packets) = (tally.dials, tally.packets);
        self.segments = (tally.segments, tally.segments_lost);
    }

    /// Those who wanted something and may be compared.
    pub fn leechers(&self) -> impl Iterator<Item = &NodeReport> {
        self.nodes.iter().filter(|node| !node.is_seed && node.wants > 0)
    }

    /// The fluid limit: no swarm is done sooner after the last one came. The longest of: the seeders send it once; the slowest
    /// downlink takes it once; all uplinks together send it to everybody. None if no rate is limited.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a bound for people")]
    pub fn fluid_limit(&self) -> Option<Duration> {
        let content = self.content as f64;
        let limited = |rate: u64| if rate == 0 { f64::INFINITY } else { rate as f64 };
        let seeds: f64 = self.nodes.iter().filter(|node| node.is_seed).map(|node| limited(node.up)).sum();
        let giving: f64 = self.leechers().filter(|node| !node.is_rider).map(|node| limited(node.up)).sum();
        let slowest = self.leechers().map(|node| limited(node.down)).fold(f64::INFINITY, f64::min);
        let count = self.leechers().count() as f64;
        let secs = (content / seeds).max(content / slowest).max(count * content / (seeds + giving));
        (secs > 0.0 && secs.is_finite()).then(|| Duration::from_secs_f64(secs))
    }

    /// How long the last one took, from when the first one came.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        let first = self.leechers().map(|node| node.came).min()?;
        let last = self.leechers().map(|node| node.finished).max()??;
        self.leechers().all(|node| node.finished.is_some()).then(|| last.since(first))
    }

    /// How long a node took, on the average of those who finished.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let took: Vec<Duration> = self.leechers().filter_map(NodeReport::took).collect();
        let count = u32::try_from(took.len()).ok().filter(|count| *count > 0)?;
        Some(took.iter().sum::<Duration>() / count)
    }

    /// Jain's index of the rates at which the contributors among the leechers got their content: 1 if all are equal.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an index for people")]
    pub fn fairness(&self) -> f64 {
        let rates: Vec<f64> = self
            .leechers()
            .filter(|node| !node.is_rider)
            .filter_map(|node| node.took().map(|took| node.wants as f64 / took.as_secs_f64().max(1e-9)))
            .collect();
        let (sum, squares) = rates.iter().fold((0.0, 0.0), |(sum, squares), rate| (sum + rate, squares + rate * rate));
        if squares == 0.0 { 1.0 } else { sum * sum / (rates.len() as f64 * squares) }
    }

    /// The share of what came that was in vain.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn wasted(&self) -> f64 {
        let came: u64 = self.nodes.iter().map(|node| node.from_seeds + node.from_peers).sum();
        self.nodes.iter().map(|node| node.wasted).sum::<u64>() as f64 / came.max(1) as f64
    }

    /// The account in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let last = self.last().map_or_else(|| "not all finished".into(), |last| format!("last {}", shown_secs(last)));
        let (trace, ended) = (shown_hash(&self.trace), shown(self.ended));
        let lookups = self.lookups.as_ref().map_or_else(String::new, |lookups| format!(", {}", lookups.line()));
        let trackers = self.trackers.as_ref().map_or_else(String::new, |trackers| format!(", {}", trackers.line()));
        let crowd = self.crowd.as_ref().map_or_else(String::new, |crowd| format!(", {}", crowd.line()));
        let (name, seed, events) = (&self.name, self.seed, self.events);
        format!(
            "{name}, seed {seed}: {last}, over at {ended}, {events} events, trace {trace}{lookups}{trackers}{crowd}, {}",
            self.costliest.line()
        )
    }

    /// The account as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _never_fails = self.write_text(&mut out);
        out
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{}", self.name)?;
        writeln!(out, "seed {}, trace {}, over at {}\n", self.seed, shown_hash(&self.trace), shown(self.ended))?;
        if self.nodes.len() <= LISTED_MAX {
            writeln!(
                out,
                "{:<14} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>9}",
                "node", "came", "took", "ratio", "gave", "of seeds", "of peers", "in vain"
            )?;
            for node in &self.nodes {
                let took = match node.took() {
                    Some(took) => shown_secs(took),
                    None if node.is_seed => "seed".into(),
                    None if node.is_node => "-".into(),
                    None => "never".into(),
                };
                writeln!(
                    out,
                    "{:<14} {:>9} {:>9} {:>7.2} {:>9} {:>9} {:>9} {:>9}",
                    node.name,
                    shown(node.came),
                    took,
                    node.ratio(),
                    human_size(node.gave),
                    human_size(node.from_seeds),
                    human_size(node.from_peers),
                    human_size(node.wasted),
                )?;
            }
        } else {
            self.write_groups(out)?;
        }
        writeln!(out)?;
        if let Some(last) = self.last() {
            write!(out, "last finish {}", shown_secs(last))?;
            if let Some(mean) = self.mean() {
                write!(out, ", mean {}", shown_secs(mean))?;
            }
            if let Some(limit) = self.fluid_limit() {
                let over = |time: Duration| time.as_secs_f64() / limit.as_secs_f64();
                write!(out, "; fluid limit {}", shown_secs(limit))?;
                write!(out, ", last {:.2} and mean {:.2} times that", over(last), self.mean().map_or(0.0, over))?;
            }
            writeln!(out)?;
        } else {
            let done = self.leechers().filter(|node| node.finished.is_some()).count();
            writeln!(out, "{done} of {} finished", self.leechers().count())?;
        }
        writeln!(out, "fairness {:.3}, in vain {:.2} %", self.fairness(), self.wasted() * 100.0)?;
        self.write_availability(out)?;
        if let Some(lookups) = &self.lookups {
            writeln!(out, "{}", lookups.line())?;
        }
        if let Some(trackers) = &self.trackers {
            writeln!(out, "{}", trackers.line())?;
        }
        writeln!(out, "{}", self.costliest.line())?;
        if let Some(crowd) = &self.crowd {
            writeln!(out, "{}", crowd.line())?;
        }
        writeln!(
            out,
            "{} connections tried, {} datagrams, {} segments ({} lost), {} messages, {} events",
            self.dials, self.packets, self.segments.0, self.segments.1, self.messages, self.events
        )
    }

    /// Copies of the rarest piece and of all on the average, at each tenth of the time that there are samples of.
    fn write_availability(&self, out: &mut String) -> std::fmt::Result {
        let Some(last) = self.samples.len().checked_sub(1) else { return Ok(()) };
        let moments: Vec<&Sample> = (0..=10).map(|tenth| &self.samples[last * tenth / 10]).collect();
        let mut row = |name: &str, shown: &dyn Fn(&Sample) -> String| {
            write!(out, "{name:<20}")?;
            moments.iter().try_for_each(|sample| write!(out, " {:>7}", shown(sample)))?;
            writeln!(out)
        };
        row("copies at", &|sample| shown(sample.at))?;
        row("of the rarest piece", &|sample| sample.copies_least.to_string())?;
        row("on the average", &|sample| format!("{:.1}", sample.copies_mean))
    }

    fn write_groups(&self, out: &mut String) -> std::fmt::Result {
        let mut groups: Vec<&str> = self.nodes.iter().map(|node| node.group.as_str()).collect();
        groups.dedup();
        writeln!(
            out,
            "{:<14} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "group", "nodes", "finished", "fastest", "median", "slowest", "gave"
        )?;
        for group in groups {
            let nodes: Vec<&NodeReport> = self.nodes.iter().filter(|node| node.group == group).collect();
            let mut took: Vec<Duration> = nodes.iter().filter_map(|node| node.took()).collect();
            took.sort_unstable();
            let at = |index: usize| took.get(index).map_or_else(|| "-".to_owned(), |took| shown_secs(*took));
            writeln!(
                out,
                "{:<14} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}",
                group,
                nodes.len(),
                took.len(),
                at(0),
                at(took.len() / 2),
                at(took.len().saturating_sub(1)),
                human_size(nodes.iter().map(|node| node.gave).sum()),
            )?;
        }
        Ok(())
    }
}

/// A moment, to a tenth of a second below a minute or so.
fn shown(at: Time) -> String {
    shown_secs(at.since(Time::ZERO))
}

fn shown_secs(time: Duration) -> String {
    if time < Duration::from_secs(600) { format!("{:.1}s", time.as_secs_f64()) } else { human_duration(time.as_secs()) }
}
