//! A table with a frame, for people.

use std::io::{self, Write};

/// Rows of text under a heading; every row has as many cells as the heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these column names.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|name| (*name).to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.rows[0].len(), "a row has a cell for every column");
        self.rows.push(row);
    }

    /// Writes the table.
    ///
    /// # Errors
    /// As the writer.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let rule = |out: &mut dyn Write, left: &str, middle: &str, right: &str| {
            let bars: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            writeln!(out, "{left}{}{right}", bars.join(middle))
        };
        rule(out, "┌", "┬", "┐")?;
        for (number, row) in self.rows.iter().enumerate() {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
            writeln!(out, "│{}│", cells.join("│"))?;
            if number == 0 {
                rule(out, "├", "┼", "┤")?;
            }
        }
        rule(out, "└", "┴", "┘")
    }
}

/// A size for people: `20 KiB`, `1.5 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && bytes / scale >= 1024 {
        unit += 1;
        scale *= 1024;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    match tenths % 10 {
        0 => format!("{} {}", tenths / 10, UNITS[unit]),
        tenth => format!("{}.{tenth} {}", tenths / 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.push(vec!["1".into(), "späth".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let expected = "┌────┬───────┐\n│ ID │ NAME  │\n├────┼───────┤\n│ 1  │ späth │\n└────┴───────┘\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn sizes_have_one_decimal_where_it_says_something() {
        let sizes: Vec<_> = [0, 1023, 1024, 20480, 1536 << 20, u64::MAX].into_iter().map(size).collect();
        assert_eq!(sizes, ["0 B", "1023 B", "1 KiB", "20 KiB", "1.5 GiB", "16777215.9 TiB"]);
    }
}
