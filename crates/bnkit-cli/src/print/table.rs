//! Tables, as text and as Markdown.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::plain::plain;
use super::style::{FAINT, paint};

/// Rows of cells below a header.
pub(super) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| plain(&cell));
        self.rows.push(cells.collect());
        debug_assert_eq!(self.rows.last().map(Vec::len), Some(self.header.len()));
    }

    /// The first `limit` rows, in columns, each line behind `indent`. Numbers stand to the right.
    pub(super) fn text(&self, out: &mut dyn Write, indent: &str, limit: usize) -> io::Result<()> {
        let rows = &self.rows[..self.rows.len().min(limit)];
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = rows.iter().map(|row| width(&row[column]));
                cells.chain([width(self.header[column])]).max().unwrap_or(0)
            })
            .collect();
        let right: Vec<bool> = (0..self.header.len())
            .map(|column| !rows.is_empty() && rows.iter().all(|row| is_number(&row[column])))
            .collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for (column, cell) in cells.enumerate() {
                let blank = " ".repeat(widths[column] - width(cell));
                let (before, after) = if right[column] {
                    (blank, String::new())
                } else {
                    (String::new(), blank)
                };
                line += &format!("{before}{cell}{after}  ");
            }
            line.trim_end().to_owned()
        };
        if self.header.iter().any(|title| !title.is_empty()) {
            writeln!(
                out,
                "{indent}{}",
                paint(FAINT, line(&mut self.header.iter().copied()))
            )?;
        }
        for row in rows {
            writeln!(out, "{indent}{}", line(&mut row.iter().map(String::as_str)))?;
        }
        Ok(())
    }

    pub(super) fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let header: Vec<String> = self.header.iter().map(|title| cell(title)).collect();
        writeln!(out, "| {} |", header.join(" | "))?;
        writeln!(out, "|{}", " --- |".repeat(self.header.len()))?;
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(|text| cell(text)).collect();
            writeln!(out, "| {} |", cells.join(" | "))?;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Columns of a terminal: a letter of Chinese or an emoji takes two, a combining accent none.
fn width(text: &str) -> usize {
    text.width()
}

fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || first == '-')
        && !text.contains([' ', '×'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["node", "channels", "|Δ|"]);
        table.row(["a".to_owned(), "5".to_owned(), "x | y".to_owned()]);
        table.row(["longer…".to_owned(), "512".to_owned(), String::new()]);
        table
    }

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        table().text(&mut out, "  ", usize::MAX).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        assert_eq!(
            text,
            "  node     channels  |Δ|\n  a               5  x | y\n  longer…       512\n"
        );
    }

    #[test]
    fn wide_letters_take_two_columns() {
        let mut table = Table::new(&["node", "channels"]);
        table.row(["层0/归一化".to_owned(), "5".to_owned()]);
        table.row(["layer0/norm".to_owned(), "64".to_owned()]);
        let mut out = Vec::new();
        table.text(&mut out, "", usize::MAX).unwrap();
        let text = anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        let expected = "node         channels\n层0/归一化          5\nlayer0/norm        64\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_limit_cuts() {
        let mut out = Vec::new();
        table().text(&mut out, "", 1).unwrap();
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 2);
    }

    #[test]
    fn markdown_escapes_bars() {
        let mut out = Vec::new();
        table().markdown(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().next(), Some("| node | channels | \\|Δ\\| |"));
        assert_eq!(text.lines().nth(1), Some("| --- | --- | --- |"));
        assert_eq!(text.lines().nth(2), Some("| a | 5 | x \\| y |"));
    }
}
