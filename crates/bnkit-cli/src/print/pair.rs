//! The report of `pair`.

use std::io::{self, Write};

use bnkit::state::PairingReport;

use super::fold::text::header;
use super::github::Annotation;
use super::style::{DOUBTFUL, FAINT, GOOD, STRONG, paint};
use super::table::Table;
use super::units::count;
use super::{Detail, Document, more};

impl Document for PairingReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        header(&self.input, out)?;
        let scheme = self.preset.map_or("no known scheme".to_owned(), |name| {
            format!("names as in {name}")
        });
        writeln!(out, "{}", paint(FAINT, scheme))?;
        for note in &self.notes {
            writeln!(out, "  {note}")?;
        }
        writeln!(out, "\n{}", paint(STRONG, count(self.pairs.len(), "pair")))?;
        let limit = if self.written.is_some() {
            detail.limit()
        } else {
            usize::MAX
        };
        section(self.pairs(), limit, out)?;
        if !self.left.is_empty() {
            writeln!(
                out,
                "\n{}",
                paint(DOUBTFUL, format!("Left {}", self.left.len()))
            )?;
            section(self.left(), limit, out)?;
        }
        match &self.written {
            Some(path) => writeln!(out, "\n{} {}", paint(GOOD, "Wrote"), paint(STRONG, path)),
            None => writeln!(
                out,
                "\nNothing was written: -o FILE writes a pairing file for bnkit fold --pairs."
            ),
        }
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}\n", count(self.pairs.len(), "pair"))?;
        self.pairs().markdown(out)?;
        if !self.left.is_empty() {
            writeln!(out, "\n## Left\n")?;
            self.left().markdown(out)?;
        }
        Ok(())
    }

    fn annotations(&self) -> Vec<Annotation> {
        Vec::new()
    }

    fn warnings(&self, _: Detail) -> Vec<String> {
        Vec::new()
    }
}

trait Tables {
    fn pairs(&self) -> Table;
    fn left(&self) -> Table;
}

impl Tables for PairingReport {
    fn pairs(&self) -> Table {
        let mut table = Table::new(&["layer", "BatchNorm", "epsilon", ""]);
        for pair in &self.pairs {
            table.row([
                pair.layer.clone(),
                pair.batch_norm.clone(),
                pair.epsilon
                    .map_or("?".to_owned(), |epsilon| format!("{epsilon:e}")),
                pair.note.clone().unwrap_or_default(),
            ]);
        }
        table
    }

    fn left(&self) -> Table {
        let mut table = Table::new(&["BatchNorm", "why"]);
        for left in &self.left {
            table.row([left.batch_norm.clone(), left.reason.clone()]);
        }
        table
    }
}

fn section(table: Table, limit: usize, out: &mut dyn Write) -> io::Result<()> {
    if table.len() == 0 {
        return Ok(());
    }
    table.text(out, "  ", limit)?;
    match more(table.len().saturating_sub(limit)) {
        Some(line) => writeln!(out, "  {line}"),
        None => Ok(()),
    }
}
