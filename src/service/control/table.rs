//! Aligned columns of text.

use crate::codec::control::{escape, push_payload};

/// A table being filled. Columns are as wide as their widest cell; the last one is not padded.
#[derive(Debug)]
pub(super) struct Table {
    heads: Vec<&'static str>,
    /// Which columns are figures, and flush right.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table of these columns. One whose head begins with `>` holds figures.
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Self {
            heads: columns.iter().map(|head| head.trim_start_matches('>')).collect(),
            right: columns.iter().map(|head| head.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; what strangers wrote in it is escaped.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(cells.len(), self.heads.len(), "a cell for each column");
        self.rows.push(cells.iter().map(|cell| escape(cell).into_owned()).collect());
    }

    /// Writes the head and all rows.
    pub(super) fn write(&self, out: &mut String) {
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let all = || std::iter::once(&heads).chain(&self.rows);
        let widths: Vec<usize> =
            (0..heads.len()).map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
        for row in all() {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width - cell.chars().count());
                let gap = if column == 0 { "" } else { "  " };
                match (self.right[column], column + 1 == row.len()) {
                    (true, _) => line.extend([gap, &padding, cell]),
                    (false, true) => line.extend([gap, cell]),
                    (false, false) => line.extend([gap, cell, &padding]),
                }
            }
            push_payload(out, line.trim_end());
        }
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
