//! `stats`: the running statistics, one line per layer.

use std::io::{self, Write};

use bnkit::calibrate::StatsReport;

use super::name;
use super::parts::{facts, section, table, wrote};
use crate::print::github::Level;
use crate::print::style::{FAINT, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::{count, short};
use crate::print::{Detail, Document, fold};

impl Document for StatsReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let full = detail == Detail::Full;
        fold::text::header(&self.input, out)?;
        writeln!(out, "\n{}", paint(STRONG, headline(self)))?;
        table(out, &layers(self, full), detail)?;
        if no_epsilon(self) {
            writeln!(out, "  {}", paint(FAINT, NO_EPSILON))?;
        }
        let none = without(self, full);
        if none.len() > 0 {
            writeln!(out, "\nWithout running statistics")?;
            table(out, &none, detail)?;
        }
        match &self.written {
            Some(path) => {
                writeln!(out)?;
                wrote(out, path)
            }
            None => Ok(()),
        }
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}\n", headline(self))?;
        let written = self.written.as_ref().map(|path| format!("`{path}`"));
        let note = if no_epsilon(self) { NO_EPSILON } else { "" };
        facts(
            out,
            &[
                ("input", format!("`{}`", self.input.path)),
                ("written to", written.unwrap_or_default()),
                ("ε", note.to_owned()),
            ],
        )?;
        section(out, "Statistics", &layers(self, true))?;
        section(out, "Without running statistics", &without(self, true))
    }

    fn summary(&self) -> Option<(Level, String)> {
        Some((Level::Notice, headline(self)))
    }
}

const NO_EPSILON: &str =
    "(epsilon and momentum are not in the file: a state dict does not say them)";

fn no_epsilon(report: &StatsReport) -> bool {
    let mut layers = report.layers.iter().filter(|it| it.refusal.is_none());
    layers.any(|layer| layer.epsilon.is_nan())
}

fn headline(report: &StatsReport) -> String {
    let channels: usize = report.layers.iter().map(|layer| layer.mean.len()).sum();
    format!(
        "Running statistics of {}, {}",
        count(report.layers.len(), "BatchNorm"),
        count(channels, "channel")
    )
}

fn layers(report: &StatsReport, full: bool) -> Table {
    let mut table = Table::new(&[
        "BatchNorm",
        "channels",
        "μ min",
        "median",
        "max",
        "σ² min",
        "median",
        "max",
    ]);
    for layer in report.layers.iter().filter(|layer| layer.refusal.is_none()) {
        let (mean, variance) = (&layer.mean_summary, &layer.variance_summary);
        let values = [
            mean.min,
            mean.median,
            mean.max,
            variance.min,
            variance.median,
            variance.max,
        ];
        let names = [name(&layer.layer, full), layer.layer.channels.to_string()];
        table.row(names.into_iter().chain(values.map(short)));
    }
    table
}

fn without(report: &StatsReport, full: bool) -> Table {
    let mut table = Table::new(&["BatchNorm", "", "why"]);
    for layer in &report.layers {
        if let Some(refusal) = &layer.refusal {
            table.row([
                name(&layer.layer, full),
                refusal.code.to_owned(),
                refusal.message.clone(),
            ]);
        }
    }
    table
}
