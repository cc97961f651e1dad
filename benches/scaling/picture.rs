//! The curves: a panel each, a row for each thing that grows; both axes by powers of ten.

use std::fmt::{self, Write as _};

use crate::{Curve, Dimension};

const LEFT: f64 = 60.0;
const TOP: f64 = 100.0;
/// From one panel to the next.
const STEP: (f64, f64) = (275.0, 255.0);
/// Where a panel draws.
const PLOT: (f64, f64) = (215.0, 130.0);
/// What it leaves free at both ends, for the figures.
const INSET: f64 = 14.0;

const STYLE: &str = "\
text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1d2530}.dim{fill:#66707e;font-size:11px}\
.title{font-size:22px;font-weight:600}.head{font-size:13px;font-weight:600}.page{fill:#fbfcfd}\
.grid{stroke:#dfe3e9;stroke-width:1}.slope{stroke:#b9c0ca;stroke-width:1;stroke-dasharray:4 4}.curve{fill:none;stroke:#2f7fd3;stroke-width:2}.point{fill:#2f7fd3}\
@media(prefers-color-scheme:dark){text{fill:#e6eaf0}.dim{fill:#8f99a8}.page{fill:#12161c}.grid{stroke:#2c333d}\
.slope{stroke:#4a5361}}";

/// The picture of all of them.
pub fn svg(dimensions: &[Dimension]) -> String {
    let mut out = String::new();
    write(dimensions, &mut out).unwrap();
    out
}

fn write(dimensions: &[Dimension], out: &mut String) -> fmt::Result {
    let most = dimensions.iter().map(|dimension| dimension.curves.len()).max().unwrap_or(0);
    let (wide, high) = (LEFT + most as f64 * STEP.0, TOP + dimensions.len() as f64 * STEP.1);
    writeln!(out, r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" role="img">"#)?;
    writeln!(out, "<title>What grows with what</title><style>{STYLE}</style>")?;
    writeln!(out, r#"<rect class="page" width="100%" height="100%"/>"#)?;
    writeln!(out, r#"<text class="title" x="{LEFT}" y="38">What grows with what</text>"#)?;
    let said = "CPU microseconds (upwards) against how many there are (to the right), both by powers of ten. \
                A dashed line is what grows as they do.";
    writeln!(out, r#"<text class="dim" x="{LEFT}" y="60">{said}</text>"#)?;
    for (row, dimension) in dimensions.iter().enumerate() {
        for (column, curve) in dimension.curves.iter().enumerate() {
            let (x, y) = (LEFT + column as f64 * STEP.0, TOP + row as f64 * STEP.1);
            write_panel(dimension.name, curve, (x, y), out)?;
        }
    }
    writeln!(out, "</svg>")
}

fn write_panel(name: &str, curve: &Curve, (left, top): (f64, f64), out: &mut String) -> fmt::Result {
    writeln!(out, r#"<text class="head" x="{left}" y="{:.1}">{}</text>"#, top - 12.0, curve.title)?;
    let sizes = curve.points.iter().map(|&(size, _)| (size as f64).log10());
    let costs = curve.points.iter().map(|&(_, micros)| micros.max(1e-3).log10());
    let (first, last) = (sizes.clone().fold(f64::MAX, f64::min), sizes.fold(0.0, f64::max));
    // Three decades at least, so that a flat curve looks flat.
    let low = costs.clone().fold(f64::MAX, f64::min).floor() - 1.0;
    let top_decade = costs.fold(f64::MIN, f64::max).ceil().max(low + 3.0);
    let x = |size: f64| left + INSET + (PLOT.0 - 2.0 * INSET) * (size - first) / (last - first);
    let y = |cost: f64| top + 8.0 + PLOT.1 * (top_decade - cost) / (top_decade - low);
    let mut decade = low;
    while decade <= top_decade {
        let (at, right) = (y(decade), left + PLOT.0);
        writeln!(out, r#"<line class="grid" x1="{left}" x2="{right}" y1="{at:.1}" y2="{at:.1}"/>"#)?;
        let (label, edge, base) = (grouped(10_f64.powf(decade)), left - 6.0, at + 4.0);
        writeln!(out, r#"<text class="dim" x="{edge}" y="{base:.1}" text-anchor="end">{label}</text>"#)?;
        decade += 1.0;
    }
    // What is proportional, from the first point on.
    if let Some(&(_, micros)) = curve.points.first() {
        let cost = micros.max(1e-3).log10();
        let rise = (last - first).min(top_decade - cost);
        let (x1, y1, x2, y2) = (x(first), y(cost), x(first + rise), y(cost + rise));
        writeln!(out, r#"<line class="slope" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#)?;
    }
    let place = |&(size, micros): &(usize, f64)| (x((size as f64).log10()), y(micros.max(1e-3).log10()));
    write!(out, r#"<polyline class="curve" points=""#)?;
    for (x, y) in curve.points.iter().map(place) {
        write!(out, "{x:.1},{y:.1} ")?;
    }
    writeln!(out, r#""/>"#)?;
    for (point, (x, y)) in curve.points.iter().map(|point| (point, place(point))) {
        let (label, base) = (grouped(point.0 as f64), top + PLOT.1 + 24.0);
        writeln!(out, r#"<circle class="point" cx="{x:.1}" cy="{y:.1}" r="3"/>"#)?;
        writeln!(out, r#"<text class="dim" x="{x:.1}" y="{base:.1}" text-anchor="middle">{label}</text>"#)?;
        let (label, above) = (short(point.1), y - 8.0);
        writeln!(out, r#"<text class="dim" x="{x:.1}" y="{above:.1}" text-anchor="middle">{label}</text>"#)?;
    }
    let (middle, base) = (left + PLOT.0 / 2.0, top + PLOT.1 + 42.0);
    writeln!(out, r#"<text x="{middle:.1}" y="{base:.1}" text-anchor="middle">{name}</text>"#)?;
    let (why, below) = (curve.why, base + 17.0);
    writeln!(out, r#"<text class="dim" x="{middle:.1}" y="{below:.1}" text-anchor="middle">{why}</text>"#)?;
    writeln!(out, r#"<text class="dim" x="{:.1}" y="{:.1}" text-anchor="end">µs</text>"#, left - 6.0, top - 12.0)
}

/// A power of ten in few letters.
fn grouped(value: f64) -> String {
    match value {
        1e6.. => format!("{:.0} M", value / 1e6),
        1e3.. => format!("{:.0} k", value / 1e3),
        0.99.. => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

/// A cost in three digits or so.
fn short(value: f64) -> String {
    match value {
        1e3.. => format!("{:.1} k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}
