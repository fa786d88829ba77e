//! Aligned columns for people; colour where the reader is a terminal that wants it.

use std::{fmt::Write as _, io::Write};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};

pub(crate) const PLAIN: Style = Style::new();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
const HEAD: Style = Style::new().bold();
/// Between two columns.
const GAP: &str = "  ";

#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
    is_number: bool,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: harmless(&text.into()), style: PLAIN, is_number: false }
    }

    /// Kept to the right.
    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self { is_number: true, ..Self::new(text) }
    }

    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { style, ..Self::new(text) }
    }
}

/// Without control characters: what others wrote into the store does not steer a terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// Rows under their heads, each column as wide as its widest cell.
pub(crate) fn render(heads: &[&str], rows: &[Vec<Cell>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0);
        widest.max(heads[column].chars().count())
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let is_number = |column: usize| rows.first().is_some_and(|row| row[column].is_number);
    let head = heads.iter().enumerate().map(|(column, head)| Cell {
        text: (*head).to_owned(),
        style: HEAD,
        is_number: is_number(column),
    });
    let mut text = String::new();
    for row in std::iter::once(head.collect::<Vec<_>>()).chain(rows.iter().cloned()) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = " ".repeat(width - cell.text.chars().count());
            let (before, after) = if cell.is_number { (&*padding, "") } else { ("", &*padding) };
            let (on, off) = (cell.style.render(), cell.style.render_reset());
            // Writing to a string does not fail.
            let _ = write!(line, "{before}{on}{}{off}{after}{GAP}", cell.text);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Writes to standard output; colours reach a terminal only.
pub(crate) fn say(text: &str) -> Result<()> {
    let mut out = anstream::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_to_the_right() {
        let row = |name: &str, n: &str| vec![Cell::new(name), Cell::number(n), Cell::new("é")];
        let text = render(&["name", "n", "more"], &[row("a", "1"), row("longer", "1,000")]);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(plain, "name        n  more\na           1  é\nlonger  1,000  é\n");
    }
}
