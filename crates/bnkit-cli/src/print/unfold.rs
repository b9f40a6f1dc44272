//! The report of `unfold`.

use std::io::{self, Write};

use bnkit::unfold::UnfoldReport;

use super::github::{Annotation, Level, by_code};
use super::style::{STRONG, paint};
use super::table::Table;
use super::units::count;
use super::{Detail, Document, more, proof};

fn headline(report: &UnfoldReport) -> String {
    let number = count(report.batch_norms.len(), "BatchNorm");
    match &report.output {
        Some(output) => format!("Brought back {number}; written to {}", output.path),
        None => format!("Would bring back {number}; nothing written"),
    }
}

fn table(report: &UnfoldReport) -> Table {
    let mut table = Table::new(&["BatchNorm", "was", "from"]);
    for norm in &report.batch_norms {
        table.row([
            norm.node.clone(),
            norm.decision.clone(),
            norm.from.join(", "),
        ]);
    }
    table
}

impl Document for UnfoldReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        writeln!(out, "{}", paint(STRONG, headline(self)))?;
        table(self).text(out, "  ", detail.limit())?;
        let hidden = self.batch_norms.len().saturating_sub(detail.limit());
        if let Some(more) = more(hidden) {
            writeln!(out, "  {more}")?;
        }
        writeln!(out)?;
        proof::text(&self.verification, out, detail)
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}: {}\n", self.input.path, headline(self))?;
        table(self).markdown(out)?;
        writeln!(out)?;
        proof::markdown(&self.verification, out)
    }

    fn annotations(&self) -> Vec<Annotation> {
        let level = match self.failure {
            None => Level::Notice,
            Some(_) => Level::Error,
        };
        let text = self.failure.clone().unwrap_or_else(|| headline(self));
        by_code(level, &self.input.path, [("unfold", text)])
    }
}
