//! The report of `unfold`.

use std::io::{self, Write};

use bnkit::unfold::UnfoldReport;

use super::finding::{Case, CaseOutcome, Finding, proof_cases, proof_findings};
use super::fold::page::{errors, largest_error};
use super::github::{Annotation, Level, by_code};
use super::page::Page;
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

    fn summary(&self) -> Option<(Level, String)> {
        let level = match self.failure {
            None => Level::Notice,
            Some(_) => Level::Error,
        };
        let text = self.failure.clone().unwrap_or_else(|| headline(self));
        Some((level, text))
    }

    fn findings(&self) -> Vec<Finding> {
        proof_findings(&self.verification).collect()
    }

    fn cases(&self) -> Vec<Case> {
        let norms = self.batch_norms.iter();
        let back = norms.map(|norm| {
            let from = CaseOutcome::Passed(norm.from.join(", "));
            Case::new("BatchNorm", norm.node.clone(), from)
        });
        back.chain(proof_cases(&self.verification)).collect()
    }

    fn page(&self) -> Page {
        Page {
            cards: largest_error(&self.verification).into_iter().collect(),
            charts: errors(&self.verification).into_iter().collect(),
            ..Page::default()
        }
    }

    /// The summary says the worst of the findings.
    fn annotations(&self) -> Vec<Annotation> {
        let summary = self.summary().into_iter();
        summary
            .flat_map(|(level, text)| by_code(level, &self.input.path, [("unfold", text)]))
            .collect()
    }
}
