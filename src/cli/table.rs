//! Output for people: aligned columns, sizes with units, colours on a terminal only.

use crate::report::one_line;
use anstyle::Style;
use std::borrow::Cow;
use std::io::Write;
use unicode_width::UnicodeWidthStr;

/// Between two columns.
const GAP: &str = "  ";

/// The least width of a column that may be cut.
const LEAST: usize = 10;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    head: &'static str,
    /// Whether it is right-aligned, as numbers are.
    is_right: bool,
    /// Whether the beginnings of its values may be cut on a terminal that is too narrow.
    is_flexible: bool,
    /// Where that is not enough: the columns with the highest number are left out first, those with
    /// 0 never.
    rank: u8,
}

pub(super) const fn left(head: &'static str) -> Column {
    Column { head, is_right: false, is_flexible: false, rank: 0 }
}

pub(super) const fn right(head: &'static str) -> Column {
    Column { is_right: true, ..left(head) }
}

impl Column {
    /// A column whose values may be cut.
    pub(super) const fn flexible(self) -> Self {
        Column { is_flexible: true, ..self }
    }

    /// A column that may be left out.
    pub(super) const fn rank(self, rank: u8) -> Self {
        Column { rank, ..self }
    }
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
    /// The width of a terminal, to which the rows are made to fit.
    most: Option<usize>,
    /// The widths that the rows so far have needed; none before the first block.
    needed: Vec<usize>,
}

impl<'c> Table<'c> {
    /// A table of which nothing is printed yet.
    pub(super) fn new(columns: &'c [Column], most: Option<usize>) -> Self {
        Table { columns, most, needed: Vec::new() }
    }

    /// Prints rows, the first ones under the headings; the last column is not padded.
    pub(super) fn print(
        &mut self,
        out: &mut impl Write,
        rows: &[Vec<Cell>],
    ) -> std::io::Result<()> {
        let rows: Vec<Vec<Cell>> =
            rows.iter().map(|r| r.iter().map(|c| Cell(one_line(&c.0), c.1)).collect()).collect();
        let is_first = self.needed.is_empty();
        self.needed.resize(self.columns.len(), 0);
        for (width, needed) in self.needed.iter_mut().zip(widths(self.columns, &rows)) {
            *width = needed.max(*width);
        }
        let widths = fitted(self.columns, self.needed.clone(), self.most);
        if is_first {
            print_row(out, self.columns, &widths, &heads(self.columns))?;
        }
        rows.iter().try_for_each(|row| print_row(out, self.columns, &widths, row))
    }
}

/// Prints rows under their headings; the last column is not padded. With the width of a terminal
/// the rows are made to fit.
pub(super) fn print(
    out: &mut impl Write,
    columns: &[Column],
    rows: &[Vec<Cell>],
    width: Option<usize>,
) -> std::io::Result<()> {
    Table::new(columns, width).print(out, rows)
}

/// The width that each column gets; 0 for one that is left out.
fn fitted(columns: &[Column], natural: Vec<usize>, most: Option<usize>) -> Vec<usize> {
    let Some(most) = most else { return natural };
    let mut widths = natural.clone();
    let total = |widths: &[usize]| -> usize {
        let shown = widths.iter().filter(|w| **w > 0);
        shown.map(|w| w + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    };
    let least = |widths: &[usize]| -> Vec<usize> {
        let cut = |(column, width): (&Column, &usize)| match column.is_flexible {
            true => (*width).min(LEAST),
            false => *width,
        };
        columns.iter().zip(widths).map(cut).collect()
    };
    while total(&least(&widths)) > most {
        let shown = columns.iter().enumerate().filter(|(i, c)| c.rank > 0 && widths[*i] > 0);
        let Some((i, _)) = shown.max_by_key(|(_, c)| c.rank) else { return least(&widths) };
        widths[i] = 0;
    }
    // What is over goes from the widest.
    while total(&widths) > most {
        let cut = columns.iter().enumerate().filter(|(i, c)| c.is_flexible && widths[*i] > LEAST);
        let Some((i, _)) = cut.max_by_key(|(i, _)| widths[*i]) else { break };
        widths[i] -= 1;
    }
    widths
}

/// The text in so many columns; what is cut off is its beginning, since paths differ at their ends.
fn cut(text: &str, width: usize) -> Cow<'_, str> {
    if text.width() <= width {
        return text.into();
    }
    let mut rest = text.chars();
    while rest.as_str().width() + 1 > width && rest.next().is_some() {}
    format!("\u{2026}{}", rest.as_str()).into()
}

/// The text in lines of at most `width` columns, broken at blanks. A longer word stays whole.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines
            .last_mut()
            .filter(|line| line.is_empty() || line.width() + 1 + word.width() <= width);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Prints one row whose columns cannot be aligned, since later rows are not known.
pub(super) fn print_loose(out: &mut impl Write, row: &[Cell]) -> std::io::Result<()> {
    for (i, Cell(text, style)) in row.iter().enumerate() {
        let (gap, text) = (if i == 0 { "" } else { GAP }, one_line(text));
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
    let last = widths.iter().rposition(|width| *width > 0);
    let mut gap = "";
    for (i, Cell(text, style)) in row.iter().enumerate().filter(|(i, _)| widths[*i] > 0) {
        let text = cut(text, widths[i]);
        let pad = " ".repeat(widths[i].saturating_sub(text.width()));
        let (before, after) = match (columns[i].is_right, Some(i) == last) {
            (true, _) => (pad.as_str(), ""),
            (false, true) => ("", ""),
            (false, false) => ("", pad.as_str()),
        };
        write!(out, "{gap}{before}{style}{text}{style:#}{after}")?;
        gap = GAP;
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
        print(&mut out, &[left("NAME"), right("PID"), left("EXE")], &rows, None).unwrap();
        let text = anstream::adapter::strip_bytes(&out).into_vec();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "NAME     PID  EXE\na          7  x\n日本\\n  1234  y\n"
        );
    }

    #[test]
    fn a_narrow_terminal() {
        let columns =
            [left("TIME"), right("UID").rank(1), left("EXE").flexible(), left("UP").rank(2)];
        let row: Vec<Cell> =
            ["10:30:00", "0", "/usr/lib/postgresql/bin/postgres", "-"].map(Cell::from).into();
        let print = |width| {
            let mut out = Vec::new();
            super::print(&mut out, &columns, std::slice::from_ref(&row), Some(width)).unwrap();
            let text = anstream::adapter::strip_bytes(&out).into_vec();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(
            print(80),
            "TIME      UID  EXE                               UP\n\
             10:30:00    0  /usr/lib/postgresql/bin/postgres  -\n"
        );
        assert_eq!(
            print(40),
            "TIME      UID  EXE                    UP\n\
             10:30:00    0  \u{2026}tgresql/bin/postgres  -\n"
        );
        assert_eq!(print(28), "TIME      UID  EXE\n10:30:00    0  \u{2026}bin/postgres\n");
        assert_eq!(print(10), "TIME      EXE\n10:30:00  \u{2026}/postgres\n");
        // Every line fits, as long as there is anything to cut or to leave out.
        for width in 20..60 {
            assert!(print(width).lines().all(|line| line.width() <= width), "{width}");
        }
    }

    #[test]
    fn prose_is_broken_at_blanks() {
        assert_eq!(wrapped("the core is too large", 11), ["the core is", "too large"]);
        assert_eq!(wrapped("/a/very/long/path is", 5), ["/a/very/long/path", "is"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
