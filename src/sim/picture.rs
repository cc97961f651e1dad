//! A run as a picture: how far everybody was when, how many copies there were, and who gave what to whom.
//!
//! Plain SVG without scripts or fonts of its own; light and dark follow the viewer.

use std::f64::consts::PI;
use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::base::time::Time;
use crate::codec::units::human_size;
use crate::sim::report::{NodeReport, Report};

const WIDTH: f64 = 1200.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 1170.0;
/// Where the first panel begins, and how high the panels are.
const TOP: f64 = 110.0;
const PROGRESS_HIGH: f64 = 330.0;
const COPIES_HIGH: f64 = 150.0;
const GAP: f64 = 64.0;
const RING_RADIUS: f64 = 300.0;
/// Gifts that are drawn, the largest first; more would be a blot.
const GIFTS_MAX: usize = 900;
/// Nodes whose names stand at the ring; of more only their colours do.
const NAMED_MAX: usize = 80;

const STYLE: &str = "\
text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1d2530}.dim{fill:#66707e}\
.title{font-size:24px;font-weight:600}.head{font-size:15px;font-weight:600}.page{fill:#fbfcfd}\
.grid{stroke:#dfe3e9;stroke-width:1}.peer{fill:none;stroke-width:1.4;stroke-opacity:.75}\
.gift{fill:none;stroke-linecap:round}\
@media(prefers-color-scheme:dark){text{fill:#e6eaf0}.dim{fill:#8f99a8}.page{fill:#12161c}.grid{stroke:#2c333d}}";

/// The picture of a run.
#[must_use]
pub fn svg(report: &Report) -> String {
    let mut out = String::new();
    let _never_fails = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> fmt::Result {
    let ring_top = TOP + PROGRESS_HIGH + GAP + COPIES_HIGH + GAP + 30.0;
    let high = ring_top + 2.0 * RING_RADIUS + 190.0;
    writeln!(out, r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high:.0}" role="img">"#)?;
    writeln!(out, "<title>{}</title><style>{STYLE}</style>", escaped(&report.name))?;
    writeln!(out, r#"<rect class="page" width="100%" height="100%"/>"#)?;
    write_heading(report, out)?;
    let span = report.ended.since(Time::ZERO).as_secs_f64().max(0.001);
    let plot = Plot { top: TOP, high: PROGRESS_HIGH, span };
    plot.write_frame(out, "How far each of them was", &["0", "25 %", "50 %", "75 %", "100 %"])?;
    write_progress(report, &plot, out)?;
    let most = report.samples.iter().map(|sample| sample.copies_mean).fold(1.0, f32::max);
    let plot = Plot { top: TOP + PROGRESS_HIGH + GAP, high: COPIES_HIGH, span };
    let (half, whole) = (format!("{:.1}", most / 2.0), format!("{most:.1}"));
    plot.write_frame(out, "Copies of a piece: of any on the average, and of the rarest", &["0", &half, &whole])?;
    write_copies(report, &plot, f64::from(most), out)?;
    write_ring(report, ring_top, out)?;
    writeln!(out, "</svg>")
}

fn write_heading(report: &Report, out: &mut String) -> fmt::Result {
    writeln!(out, r#"<text class="title" x="{LEFT}" y="44">{}</text>"#, escaped(&report.name))?;
    let mut said = format!("{} nodes, {}, seed {}", report.nodes.len(), human_size(report.content), report.seed);
    if let (Some(last), Some(limit)) = (report.last(), report.fluid_limit()) {
        let over = last.as_secs_f64() / limit.as_secs_f64();
        write!(said, "; the last one took {:.1} s, {over:.2} times the fluid limit", last.as_secs_f64())?;
    }
    write!(said, "; fairness {:.3}, {:.2} % in vain", report.fairness(), report.wasted() * 100.0)?;
    writeln!(out, r#"<text class="dim" x="{LEFT}" y="70">{}</text>"#, escaped(&said))
}

/// A panel over time.
struct Plot {
    top: f64,
    high: f64,
    /// Seconds from left to right.
    span: f64,
}

impl Plot {
    fn x(&self, at: Time) -> f64 {
        LEFT + (RIGHT - LEFT) * at.since(Time::ZERO).as_secs_f64() / self.span
    }

    /// Where a share of the height is.
    fn y(&self, share: f64) -> f64 {
        self.top + self.high * (1.0 - share.clamp(0.0, 1.0))
    }

    fn write_frame(&self, out: &mut String, head: &str, steps: &[&str]) -> fmt::Result {
        writeln!(out, r#"<text class="head" x="{LEFT}" y="{:.1}">{head}</text>"#, self.top - 12.0)?;
        for (index, step) in steps.iter().enumerate() {
            let y = self.y(part(index, steps.len() - 1));
            writeln!(out, r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1}" y2="{y:.1}"/>"#)?;
            let (x, y) = (LEFT - 8.0, y + 4.0);
            writeln!(out, r#"<text class="dim" x="{x}" y="{y:.1}" text-anchor="end">{step}</text>"#)?;
        }
        let mut step = 1.0;
        while self.span / step > 12.0 {
            step *= if step.log10().fract().abs() < 1e-6 { 5.0 } else { 2.0 };
        }
        let mut secs = 0.0;
        while secs <= self.span {
            let x = LEFT + (RIGHT - LEFT) * secs / self.span;
            let y = self.top + self.high + 18.0;
            writeln!(out, r#"<text class="dim" x="{x:.1}" y="{y:.1}" text-anchor="middle">{secs:.0} s</text>"#)?;
            secs += step;
        }
        Ok(())
    }

    fn write_line(&self, out: &mut String, class: &str, colour: &str, points: &[(Time, f64)]) -> fmt::Result {
        write!(out, r#"<polyline class="{class}" style="stroke:{colour}" points=""#)?;
        for (at, share) in points {
            write!(out, "{:.1},{:.1} ", self.x(*at), self.y(*share))?;
        }
        writeln!(out, r#""/>"#)
    }
}

fn write_progress(report: &Report, plot: &Plot, out: &mut String) -> fmt::Result {
    for (index, node) in report.nodes.iter().enumerate().filter(|(_, node)| !node.is_seed) {
        let share = |at: usize| report.samples[at].progress.get(index).copied().map_or(0.0, f64::from);
        let mut points: Vec<(Time, f64)> = (0..report.samples.len())
            .filter(|&at| {
                report.samples[at].at >= node.came && node.finished.is_none_or(|end| report.samples[at].at < end)
            })
            .map(|at| (report.samples[at].at, share(at)))
            .collect();
        points.extend(node.finished.map(|finished| (finished, 1.0)));
        plot.write_line(out, "peer", &colour(report, index), &points)?;
        if let Some(finished) = node.finished {
            let (x, y) = (plot.x(finished), plot.y(1.0));
            writeln!(out, r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.6" style="fill:{}"/>"#, colour(report, index))?;
        }
    }
    Ok(())
}

fn write_copies(report: &Report, plot: &Plot, most: f64, out: &mut String) -> fmt::Result {
    let mean: Vec<(Time, f64)> =
        report.samples.iter().map(|sample| (sample.at, f64::from(sample.copies_mean) / most)).collect();
    let least: Vec<(Time, f64)> =
        report.samples.iter().map(|sample| (sample.at, f64::from(sample.copies_least) / most)).collect();
    plot.write_line(out, "peer", "hsl(210 70% 52%)", &mean)?;
    plot.write_line(out, "peer", "hsl(12 80% 54%)", &least)
}

/// Everybody on a circle, and what they gave to one another as arcs: as wide as much, in the giver's colour.
fn write_ring(report: &Report, top: f64, out: &mut String) -> fmt::Result {
    let (x, y) = (WIDTH / 2.0, top + RING_RADIUS + 60.0);
    writeln!(out, r#"<text class="head" x="{LEFT}" y="{:.1}">Who gave what to whom</text>"#, top - 6.0)?;
    let said = "An arc has the giver's colour and is as wide as much; a disk is as large as what its node gave.";
    writeln!(out, r#"<text class="dim" x="{LEFT}" y="{:.1}">{said}</text>"#, top + 14.0)?;
    let count = report.nodes.len();
    let at = |index: usize, radius: f64| {
        let angle = 2.0 * PI * part(index, count) - PI / 2.0;
        (x + radius * angle.cos(), y + radius * angle.sin())
    };
    let mut gifts = report.gifts.clone();
    gifts.sort_by_key(|(from, to, bytes)| (std::cmp::Reverse(*bytes), *from, *to));
    gifts.truncate(GIFTS_MAX);
    let largest = gifts.first().map_or(1, |(_, _, bytes)| *bytes);
    for (from, to, bytes) in gifts.iter().rev() {
        let ((x1, y1), (x2, y2)) = (at(*from, RING_RADIUS), at(*to, RING_RADIUS));
        let share = ratio(*bytes, largest);
        // The arc leans to the giver's side, so that two that give to one another are seen both.
        let (mx, my) = (x + (x1 - x) * 0.25, y + (y1 - y) * 0.25);
        writeln!(
            out,
            r#"<path class="gift" d="M{x1:.1} {y1:.1}Q{mx:.1} {my:.1} {x2:.1} {y2:.1}" style="stroke:{};stroke-width:{:.2};stroke-opacity:{:.2}"><title>{} gave {} {}</title></path>"#,
            colour(report, *from),
            0.4 + 6.0 * share,
            0.12 + 0.6 * share,
            escaped(&report.nodes[*from].name),
            escaped(&report.nodes[*to].name),
            human_size(*bytes),
        )?;
    }
    let most = report.nodes.iter().map(|node| node.gave).max().unwrap_or(1).max(1);
    for (index, node) in report.nodes.iter().enumerate() {
        let (cx, cy) = at(index, RING_RADIUS);
        let radius = 2.5 + 9.0 * ratio(node.gave, most).sqrt();
        let paint = colour(report, index);
        let told = escaped(&told(node));
        writeln!(
            out,
            r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="{radius:.1}" style="fill:{paint}"><title>{told}</title></circle>"#
        )?;
        if count <= NAMED_MAX {
            let (tx, ty) = at(index, RING_RADIUS + 20.0);
            let turn = 360.0 * part(index, count) - 90.0;
            let (turn, anchor) = if turn > 90.0 { (turn - 180.0, "end") } else { (turn, "start") };
            let name = escaped(&node.name);
            writeln!(
                out,
                r#"<text class="dim" text-anchor="{anchor}" transform="translate({tx:.1} {ty:.1}) rotate({turn:.1})" dy="4">{name}</text>"#
            )?;
        }
    }
    Ok(())
}

/// A node in one sentence.
fn told(node: &NodeReport) -> String {
    let took = node.took().map_or_else(
        || if node.is_seed { "had everything".to_owned() } else { "never finished".to_owned() },
        |took: Duration| format!("took {:.1} s", took.as_secs_f64()),
    );
    let got = node.from_seeds + node.from_peers;
    format!("{}: {took}, gave {}, got {}", node.name, human_size(node.gave), human_size(got))
}

/// Seeders are gold, free riders grey, everybody else has a hue of its own.
fn colour(report: &Report, index: usize) -> String {
    let node = &report.nodes[index];
    if node.is_seed {
        return "hsl(43 95% 50%)".into();
    }
    if node.is_rider {
        return "hsl(0 0% 55%)".into();
    }
    format!("hsl({:.0} 62% 52%)", 160.0 + 200.0 * part(index, report.nodes.len()))
}

#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn part(index: usize, count: usize) -> f64 {
    index as f64 / count.max(1) as f64
}

#[expect(clippy::cast_precision_loss, reason = "a picture")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
