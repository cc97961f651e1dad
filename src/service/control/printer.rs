//! Prints a long answer whose rows come in slices.
//!
//! JSON is printed as it comes. A table is collected twice, first for the widths of its columns; so is a list that is sorted, for
//! its keys. No rows are kept: a value that changes between the two passes may be out of its column or place.

use std::collections::BTreeSet;

use super::json;
use super::request::{Field, Report};
use super::table::Columns;
use super::text::{self, Key};
use crate::base::hash::InfoHash;
use crate::base::steps;
use crate::codec::control::{push_json_ok, push_ok};
use crate::torrent::command::Answer;
use crate::torrent::dht_command::DhtAnswer;
use crate::torrent::listing::Listing;

/// Rows of a sorted list that are asked for at once.
const PICKED_MAX: usize = 32;
/// Bytes of an answer that are printed in a step, as text and as JSON.
const BYTES_PER_STEP: (usize, usize) = (4, 2);
/// Steps that finding the widths of a row costs.
const MEASURE_STEPS: usize = 20;

/// One answer that is being printed.
#[derive(Debug)]
pub(super) struct Printer {
    listing: Listing,
    is_json: bool,
    sort: Option<Field>,
    /// The widths and keys are not known yet.
    is_first_pass: bool,
    /// None if it is no table.
    columns: Option<Columns>,
    /// The rows that a sorted list has yet to print, in order.
    keys: BTreeSet<(Key, usize, InfoHash)>,
    /// Pieces that are printed.
    pieces: usize,
}

impl Printer {
    pub(super) fn new(mut listing: Listing, is_json: bool, sort: Option<Field>) -> Self {
        let sort = sort.filter(|_| matches!(&listing, Listing::Torrents(torrents) if torrents.end.is_none()));
        match &mut listing {
            Listing::Torrents(torrents) => torrents.places.is_wanted = is_json || sort == Some(Field::Queue),
            Listing::Files { without_paths, .. } => *without_paths = !is_json,
            _ => {}
        }
        let columns = if is_json { None } else { text::heads_of(&listing).map(Columns::new) };
        Self {
            is_first_pass: columns.is_some() || sort.is_some(),
            listing,
            is_json,
            sort,
            columns,
            keys: BTreeSet::new(),
            pieces: 0,
        }
    }

    pub(super) const fn is_json(&self) -> bool {
        self.is_json
    }

    /// What is to be collected next.
    pub(super) const fn listing(&mut self) -> &mut Listing {
        &mut self.listing
    }

    /// Takes the next rows, the last ones of this pass if `is_last`. True if the answer is printed, with its closing line.
    pub(super) fn print(&mut self, out: &mut String, report: &Report, is_last: bool) -> bool {
        if !self.is_first_pass {
            return self.print_rows(out, report, is_last);
        }
        self.survey(report);
        if !is_last {
            return false;
        }
        self.is_first_pass = false;
        self.listing.restart();
        if let Some(columns) = &self.columns {
            columns.push_heads(out);
        }
        self.sort.is_some() && !self.pick() && self.close(out)
    }

    /// Finds widths and keys.
    fn survey(&mut self, report: &Report) {
        let Report::Node(answer) = report else { return };
        let rows = match answer {
            Answer::List(rows) | Answer::Changes { rows, .. } => rows.len(),
            Answer::Files(rows) => rows.len(),
            Answer::Peers(rows) => rows.len(),
            Answer::Catalog { entries, .. } => entries.len(),
            Answer::Dht(DhtAnswer::Swarms(rows, _)) => rows.len(),
            _ => 0,
        };
        if let Some(columns) = &mut self.columns {
            steps::add(MEASURE_STEPS * rows);
            text::measure(columns, answer);
        }
        if let (Some(field), Answer::List(rows)) = (self.sort, answer) {
            steps::add(MEASURE_STEPS * rows.len());
            for row in rows {
                // Rows with equal keys keep their order.
                self.keys.insert((text::key(row, field), self.keys.len(), row.info_hash));
            }
        }
    }

    /// Asks for the next rows of a sorted list; false if there are no more.
    fn pick(&mut self) -> bool {
        let next = std::iter::from_fn(|| self.keys.pop_first()).take(PICKED_MAX);
        let picked: Vec<InfoHash> = next.map(|(_, _, info_hash)| info_hash).collect();
        let is_more = !picked.is_empty();
        if let Listing::Torrents(torrents) = &mut self.listing {
            torrents.picked = Some(picked);
        }
        is_more
    }

    fn print_rows(&mut self, out: &mut String, report: &Report, is_last: bool) -> bool {
        let before = out.len();
        let is_last = if self.sort.is_some() { !self.pick() } else { is_last };
        if self.is_json {
            let detail = match report {
                Report::Node(Answer::Pieces(states)) => {
                    json::push_pieces(out, self.pieces, states);
                    self.pieces += states.len();
                    Vec::new()
                }
                report => json::push(out, report),
            };
            if is_last {
                push_json_ok(out, &detail);
            }
        } else {
            let detail = match (report, &self.columns) {
                (Report::Node(Answer::Pieces(states)), _) => {
                    text::push_map(out, self.pieces, states);
                    self.pieces += states.len();
                    if is_last {
                        text::push_legend(out);
                    }
                    String::new()
                }
                (Report::Node(answer), Some(columns)) => text::push_rows(out, columns, answer),
                (report, _) => text::push(out, report),
            };
            if is_last {
                push_ok(out, &detail);
            }
        }
        let bytes_per_step = if self.is_json { BYTES_PER_STEP.1 } else { BYTES_PER_STEP.0 };
        steps::add((out.len() - before) / bytes_per_step);
        is_last
    }

    /// Prints the closing line of a sorted list; returns true.
    fn close(&self, out: &mut String) -> bool {
        if self.is_json {
            push_json_ok(out, &[]);
        } else {
            push_ok(out, "");
        }
        true
    }
}
