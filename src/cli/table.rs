//! Output for people: aligned columns, sizes with units, colours on a terminal only.

use crate::report::one_line;
use anstyle::Style;
use std::io::Write;
use unicode_width::UnicodeWidthStr;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    pub head: &'static str,
    /// Whether it is right-aligned, as numbers are.
    pub right: bool,
}

/// A left-aligned column.
pub(super) const fn left(head: &'static str) -> Column {
    Column { head, right: false }
}

/// A right-aligned column.
pub(super) const fn right(head: &'static str) -> Column {
    Column { head, right: true }
}

/// A cell: its text, and its style on a terminal.
#[derive(Clone, Debug)]
pub(super) struct Cell(pub String, pub Style);

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell(text.to_string(), Style::new())
    }
}

/// A table that is printed in blocks of rows, so that not all of them are held: a column becomes
/// wider where a later block needs it.
#[derive(Debug)]
pub(super) struct Table<'c> {
    columns: &'c [Column],
    /// The widths so far; none before the first block.
    widths: Vec<usize>,
}

impl<'c> Table<'c> {
    /// A table of which nothing is printed yet.
    pub(super) fn new(columns: &'c [Column]) -> Self {
        Table { columns, widths: Vec::new() }
    }

    /// Prints rows, the first ones under the headings; the last column is not padded.
    pub(super) fn print(
        &mut self,
        out: &mut impl Write,
        rows: &[Vec<Cell>],
    ) -> std::io::Result<()> {
        let rows: Vec<Vec<Cell>> =
            rows.iter().map(|r| r.iter().map(|c| Cell(one_line(&c.0), c.1)).collect()).collect();
        let is_first = self.widths.is_empty();
        self.widths.resize(self.columns.len(), 0);
        for (width, needed) in self.widths.iter_mut().zip(widths(self.columns, &rows)) {
            *width = needed.max(*width);
        }
        if is_first {
            print_row(out, self.columns, &self.widths, &heads(self.columns))?;
        }
        rows.iter().try_for_each(|row| print_row(out, self.columns, &self.widths, row))
    }
}

/// Prints rows under their headings; the last column is not padded.
pub(super) fn print(
    out: &mut impl Write,
    columns: &[Column],
    rows: &[Vec<Cell>],
) -> std::io::Result<()> {
    Table::new(columns).print(out, rows)
}

/// Prints one row whose columns cannot be aligned, since later rows are not known.
pub(super) fn print_loose(out: &mut impl Write, row: &[Cell]) -> std::io::Result<()> {
    for (i, Cell(text, style)) in row.iter().enumerate() {
        let (gap, text) = (if i == 0 { "" } else { "  " }, one_line(text));
        write!(out, "{gap}{style}{text}{style:#}")?;
    }
    writeln!(out)
}

fn heads(columns: &[Column]) -> Vec<Cell> {
    columns.iter().map(|c| Cell(c.head.to_owned(), Style::new().bold())).collect()
}

fn widths(columns: &[Column], rows: &[Vec<Cell>]) -> Vec<usize> {
    let width = |i: usize| {
        rows.iter().map(|r| r[i].0.width()).chain([columns[i].head.width()]).max().unwrap_or(0)
    };
    (0..columns.len()).map(width).collect()
}

fn print_row(
    out: &mut impl Write,
    columns: &[Column],
    widths: &[usize],
    row: &[Cell],
) -> std::io::Result<()> {
    for (i, Cell(text, style)) in row.iter().enumerate() {
        let pad = " ".repeat(widths[i].saturating_sub(text.width()));
        let (before, after) = match (columns[i].right, i + 1 == row.len()) {
            (true, _) => (pad.as_str(), ""),
            (false, true) => ("", ""),
            (false, false) => ("", pad.as_str()),
        };
        let gap = if i == 0 { "" } else { "  " };
        write!(out, "{gap}{before}{style}{text}{style:#}{after}")?;
    }
    writeln!(out)
}

/// Bytes as text: three digits and a binary unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "K", "M", "G", "T", "P", "E"];
    let mut unit = 0;
    let mut n = bytes as f64;
    while n >= 999.5 && unit + 1 < UNITS.len() {
        n /= 1024.0;
        unit += 1;
    }
    if unit > 0 && n < 9.95 {
        format!("{n:.1}{}", UNITS[unit])
    } else {
        format!("{n:.0}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0K"),
            (1536, "1.5K"),
            (10 << 10, "10K"),
            (999 << 10, "999K"),
            (1023 << 10, "1.0M"),
            (5 << 30, "5.0G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn columns_stand_in_line() {
        let mut out = Vec::new();
        let rows = vec![
            vec!["a".into(), 7.into(), "x".into()],
            vec!["日本\n".into(), 1234.into(), "y".into()],
        ];
        print(&mut out, &[left("NAME"), right("PID"), left("EXE")], &rows).unwrap();
        let text = anstream::adapter::strip_bytes(&out).into_vec();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "NAME     PID  EXE\na          7  x\n日本\\n  1234  y\n"
        );
    }
}
