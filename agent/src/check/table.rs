//! Aligned columns; the last one may be as long as it likes.

use std::fmt::Write as _;

use anstyle::Style;

/// Between two columns.
const GAP: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new())
    }

    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

/// Rows under bold heads; nothing without rows. A column in which every cell is empty is left out.
pub(super) fn render(heads: &[&str], rows: &[Vec<Cell>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = heads.iter().map(|head| Cell::styled(*head, Style::new().bold())).collect();
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
        if widest == 0 { 0 } else { widest.max(heads[column].len()) }
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        // Blanks are written before the next text, so that no line ends with them.
        let mut blanks = 0;
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            let mut length = 0;
            if !cell.text.is_empty() {
                let (on, off) = (cell.style.render(), cell.style.render_reset());
                // Writing to a string does not fail.
                let _ = write!(line, "{:blanks$}{on}{}{off}", "", cell.text);
                (blanks, length) = (0, cell.text.chars().count());
            }
            blanks += width - length + GAP;
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}
