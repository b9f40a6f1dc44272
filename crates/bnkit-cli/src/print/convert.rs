//! The report of `convert`.

use std::io::{self, Write};

use bnkit::convert::{Checkpoint, ConvertReport, How, Matching, Unmatched};

use super::finding::Finding;
use super::github::Level;
use super::style::{STRONG, paint};
use super::table::Table;
use super::units::{bytes, count, grouped, sci};
use super::{Detail, Document, more};

/// Names in tables are cut to this, so that a line fits 80 columns.
const NAME: usize = 30;

fn headline(report: &ConvertReport) -> String {
    let what = format!(
        "{}, {}",
        count(report.tensors, "tensor"),
        bytes(report.tensor_bytes)
    );
    match (&report.failure, &report.matching) {
        (Some(_), _) => format!("Nothing written of {what}"),
        (None, Some(_)) => format!("Put {what} into the graph"),
        (None, None) => format!("Converted {what}"),
    }
}

fn source(checkpoint: &Checkpoint) -> String {
    format!(
        "{}  {}, {}",
        checkpoint.path,
        checkpoint.format,
        bytes(checkpoint.bytes)
    )
}

/// A name, its end kept: the beginnings of a network's names are much alike.
fn short(name: &str, full: bool) -> String {
    let length = name.chars().count();
    if full || length <= NAME {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - (NAME - 1)).collect();
    format!("…{end}")
}

fn rounding(report: &ConvertReport, full: bool) -> Table {
    let mut table = Table::new(&["tensor", "max |Δ|", "relative", "to 0", "subnormal", "over"]);
    for one in &report.rounding {
        table.row([
            short(&one.name, full),
            sci(one.max_abs),
            sci(one.max_rel),
            grouped(one.zeroed),
            grouped(one.subnormal),
            grouped(one.overflowed),
        ]);
    }
    table
}

/// What changed its type, and how much that lost, as one sentence.
fn losses(report: &ConvertReport) -> Option<String> {
    if report.converted == 0 {
        return None;
    }
    let sum = |part: fn(&bnkit::convert::Rounding) -> u64| -> u64 {
        report.rounding.iter().map(part).sum()
    };
    let text = format!("{} changed type", count(report.converted, "tensor"));
    if report.rounding.is_empty() {
        return Some(format!("{text}; nothing was rounded"));
    }
    Some(format!(
        "{text}; elements that became 0: {}, subnormal: {}, beyond the range: {}",
        grouped(sum(|one| one.zeroed)),
        grouped(sum(|one| one.subnormal)),
        grouped(sum(|one| one.overflowed))
    ))
}

/// Pairs that are not simply of one name and type.
fn pairs(matching: &Matching, full: bool) -> Table {
    let mut table = Table::new(&["graph", "checkpoint", "by"]);
    for pair in &matching.pairs {
        let how = match pair.how {
            How::Name => continue,
            How::Shape => "shape",
            How::Transposed => "transposed",
        };
        let names = [&pair.graph, &pair.weight].map(|name| short(name, full));
        table.row(names.into_iter().chain([how.to_owned()]));
    }
    table
}

fn unmatched(list: &[Unmatched], full: bool) -> Table {
    let mut table = Table::new(&["tensor", "type", "shape"]);
    for one in list {
        table.row([short(&one.name, full), one.dtype.clone(), dims(&one.shape)]);
    }
    table
}

fn left_out(report: &ConvertReport, full: bool) -> Table {
    let mut table = Table::new(&["tensor", "type", "shape", "why"]);
    for one in report.left_out.iter().filter(|one| full || one.matters) {
        table.row([
            short(&one.name, full),
            one.dtype.clone(),
            dims(&one.shape),
            one.why.to_owned(),
        ]);
    }
    table
}

fn dims(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    super::units::shape(Some(&dims))
}

/// Title and table of every list that has something in it.
fn sections(report: &ConvertReport, full: bool) -> Vec<(&'static str, Table)> {
    let mut sections = vec![("Rounding, worst first", rounding(report, full))];
    if let Some(matching) = &report.matching {
        sections.push(("Matched by shape", pairs(matching, full)));
        sections.push((
            "In the graph only: as before",
            unmatched(&matching.kept, full),
        ));
        sections.push((
            "In the checkpoint only: not used",
            unmatched(&matching.unused, full),
        ));
    }
    sections.push(("Left out", left_out(report, full)));
    sections.retain(|(_, table)| table.len() > 0);
    sections
}

/// Facts about the work, as lines.
fn facts(report: &ConvertReport) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(matching) = &report.matching {
        let by_name = matching.pairs.iter().filter(|pair| pair.how == How::Name);
        lines.push(format!(
            "{} by name, {} by shape; {} num_batches_tracked, which no graph has",
            by_name.clone().count(),
            matching.pairs.len() - by_name.count(),
            matching.counters.len()
        ));
    }
    lines.extend(losses(report));
    let quiet = report.left_out.iter().filter(|one| !one.matters).count();
    if quiet > 0 {
        lines.push(format!(
            "{} that are no weights stay out",
            count(quiet, "tensor")
        ));
    }
    lines
}

impl Document for ConvertReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        writeln!(out, "{}", source(&self.input))?;
        if let Some(weights) = &self.weights {
            writeln!(out, "{}", source(weights))?;
        }
        writeln!(out, "\n{}", paint(STRONG, headline(self)))?;
        for line in facts(self) {
            writeln!(out, "  {line}")?;
        }
        let full = detail == Detail::Full;
        for (title, table) in sections(self, full) {
            writeln!(out, "\n{title}")?;
            table.text(out, "  ", detail.limit())?;
            if let Some(more) = more(table.len().saturating_sub(detail.limit())) {
                writeln!(out, "  {more}")?;
            }
        }
        if let Some(output) = &self.output {
            let files = match output.files.len() {
                1 => String::new(),
                files => format!(", {}", count(files, "file")),
            };
            let size = bytes(output.bytes);
            writeln!(out, "\nWrote {}  {size}{files}", output.path)?;
        }
        Ok(())
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}\n", headline(self))?;
        writeln!(out, "- {}", source(&self.input))?;
        if let Some(weights) = &self.weights {
            writeln!(out, "- {}", source(weights))?;
        }
        for line in facts(self).iter().chain(&self.warnings) {
            writeln!(out, "- {line}")?;
        }
        if let Some(output) = &self.output {
            writeln!(out, "- written to `{}`", output.path)?;
        }
        for (title, table) in sections(self, true) {
            writeln!(out, "\n## {title}\n")?;
            table.markdown(out)?;
        }
        Ok(())
    }

    fn summary(&self) -> Option<(Level, String)> {
        Some(match &self.failure {
            None => (Level::Notice, headline(self)),
            Some(failure) => (Level::Error, failure.clone()),
        })
    }

    fn findings(&self) -> Vec<Finding> {
        let warnings = self.warnings.iter();
        warnings
            .map(|text| Finding::of_model(Level::Warning, "convert", text.clone()))
            .collect()
    }

    fn warnings(&self, _: Detail) -> Vec<String> {
        self.warnings.clone()
    }
}
