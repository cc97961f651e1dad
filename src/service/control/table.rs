//! Aligned columns of text.

use crate::codec::control::{escape, push_payload};

/// The columns of a table: first [`Columns::measure`] finds their widths in all rows, then the rows are written. The last column
/// is not padded.
#[derive(Debug)]
pub(super) struct Columns {
    heads: Vec<&'static str>,
    /// Which columns are figures, and flush right.
    right: Vec<bool>,
    widths: Vec<usize>,
}

impl Columns {
    /// Columns with these heads. One whose head begins with `>` holds figures.
    pub(super) fn new(heads: &[&'static str]) -> Self {
        let right = heads.iter().map(|head| head.starts_with('>')).collect();
        let heads: Vec<_> = heads.iter().map(|head| head.trim_start_matches('>')).collect();
        Self { widths: heads.iter().map(|head| head.chars().count()).collect(), heads, right }
    }

    /// Widens the columns for a row.
    pub(super) fn measure<const N: usize>(&mut self, cells: &[String; N]) {
        assert_eq!(cells.len(), self.heads.len(), "a cell for each column");
        // The last column needs no width.
        for (width, cell) in self.widths.iter_mut().zip(&cells[..N - 1]) {
            *width = (*width).max(escape(cell).chars().count());
        }
    }

    /// Writes the head.
    pub(super) fn push_heads(&self, out: &mut String) {
        self.push(out, self.heads.iter().copied());
    }

    /// Writes a row; what strangers wrote in it is escaped. A cell that was measured narrower shifts what follows it.
    pub(super) fn push_row<const N: usize>(&self, out: &mut String, cells: &[String; N]) {
        assert_eq!(cells.len(), self.heads.len(), "a cell for each column");
        let cells: [_; N] = std::array::from_fn(|column| escape(&cells[column]));
        self.push(out, cells.iter().map(|cell| &**cell));
    }

    fn push<'a>(&self, out: &mut String, cells: impl Iterator<Item = &'a str>) {
        let mut line = String::new();
        for (column, cell) in cells.enumerate() {
            let padding = self.widths[column].saturating_sub(cell.chars().count());
            let pad = |line: &mut String| line.extend(std::iter::repeat_n(' ', padding));
            if column > 0 {
                line.push_str("  ");
            }
            if self.right[column] {
                pad(&mut line);
            }
            line.push_str(cell);
            if !self.right[column] && column + 1 < self.heads.len() {
                pad(&mut line);
            }
        }
        push_payload(out, line.trim_end());
    }
}

/// A whole table.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    columns: Columns,
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table of these columns; see [`Columns::new`].
    pub(super) fn new(heads: &[&'static str; N]) -> Self {
        Self { columns: Columns::new(heads), rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.columns.measure(&cells);
        self.rows.push(cells);
    }

    /// Writes the head and all rows.
    pub(super) fn write(&self, out: &mut String) {
        self.columns.push_heads(out);
        self.rows.iter().for_each(|row| self.columns.push_row(out, row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_strangers_stay_in_their_cells() {
        let mut table = Table::new(&["id", ">size", "name"]);
        table.row(["OK1".to_owned(), "1.0K".to_owned(), "a\nb".to_owned()]);
        table.row(["x".to_owned(), "900".to_owned(), String::new()]);
        let mut out = String::new();
        table.write(&mut out);
        assert_eq!(out, "id   size  name\n\\x4fK1  1.0K  a\\nb\nx     900\n");
    }
}
