//! `inspect` of a state dict: files, types, BatchNorms.

use std::io::{self, Write};

use bnkit::inspect::{StateBatchNorm, StateReport};
use serde::Serialize;

use crate::print::calibrate::cut;
use crate::print::calibrate::parts::{section, table};
use crate::print::finding::Finding;
use crate::print::github::Level;
use crate::print::plain::plain;
use crate::print::style::{BAD, FAINT, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::{bytes, count, grouped, range};
use crate::print::{Detail, Document};

/// The name of a module takes no more than this, unless all is wanted.
const NAME: usize = 22;
const NONE: &str =
    "No BatchNorm: nothing is named like one (running_mean, moving_mean, batch_stats)";

/// What is in a state dict, or only its BatchNorms.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct State {
    pub(crate) report: StateReport,
    /// Whether people want to see the BatchNorms only. Programs always get everything.
    #[serde(skip)]
    pub(crate) batch_norms_only: bool,
}

impl Document for State {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let report = &self.report;
        if self.batch_norms_only {
            return batch_norms(report, out, Detail::Full);
        }
        overview(report, out)?;
        if report.format == "safetensors-index" {
            writeln!(out, "\n{}", paint(STRONG, "Files"))?;
            table(out, &files(report), detail)?;
        }
        writeln!(out, "\n{}", paint(STRONG, "Types"))?;
        table(out, &dtypes(report), detail)?;
        writeln!(out)?;
        batch_norms(report, out, detail)
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        let report = &self.report;
        writeln!(out, "# {}\n", plain(&report.input.path))?;
        for line in facts(report) {
            writeln!(out, "- {line}")?;
        }
        section(out, "Files", &files(report))?;
        section(out, "Types", &dtypes(report))?;
        writeln!(out, "\n## BatchNorms\n")?;
        match report.batch_norms.is_empty() {
            true => writeln!(out, "{NONE}.")?,
            false => norms(report, true).markdown(out)?,
        }
        section(out, "Problems", &problems(report))
    }

    fn findings(&self) -> Vec<Finding> {
        let problems = self.report.problems.iter();
        problems
            .map(|it| Finding::of_node(Level::Error, it.code, &it.node, "", &it.message))
            .collect()
    }
}

fn facts(report: &StateReport) -> Vec<String> {
    let mut facts = vec![format!(
        "{}, {} parameters ({})",
        count(report.tensors, "tensor"),
        grouped(report.parameters),
        bytes(report.parameter_bytes)
    )];
    let of_files = report.files.iter().flat_map(|file| &file.metadata);
    let mut said: Vec<&(String, String)> = Vec::new();
    for entry in report.metadata.iter().chain(of_files) {
        // Shards repeat what they say.
        if !said.contains(&entry) {
            said.push(entry);
        }
    }
    facts.extend(
        said.iter()
            .map(|(key, value)| plain(&format!("{key}: {value}"))),
    );
    facts
}

fn overview(report: &StateReport, out: &mut dyn Write) -> io::Result<()> {
    let files = match report.format {
        "safetensors-index" => format!(" in {}", count(report.files.len(), "file")),
        _ => String::new(),
    };
    let about = format!("safetensors{files}, {}", bytes(report.input.bytes));
    writeln!(
        out,
        "{}  {}",
        paint(STRONG, plain(&report.input.path)),
        paint(FAINT, about)
    )?;
    facts(report)
        .iter()
        .try_for_each(|line| writeln!(out, "  {line}"))
}

fn files(report: &StateReport) -> Table {
    let mut table = Table::new(&["file", "tensors", "size"]);
    for file in &report.files {
        table.row([
            file.name.clone(),
            file.tensors.to_string(),
            bytes(file.bytes),
        ]);
    }
    table
}

fn dtypes(report: &StateReport) -> Table {
    let mut table = Table::new(&["type", "tensors", "parameters", "size"]);
    for count in &report.dtypes {
        table.row([
            count.dtype.clone(),
            count.tensors.to_string(),
            grouped(count.parameters),
            bytes(count.bytes),
        ]);
    }
    table
}

fn batch_norms(report: &StateReport, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    if report.batch_norms.is_empty() {
        writeln!(out, "{}", paint(STRONG, NONE))?;
    } else {
        let channels: usize = report.batch_norms.iter().map(|norm| norm.channels).sum();
        let heading = format!(
            "{}, {} channels",
            count(report.batch_norms.len(), "BatchNorm"),
            grouped(channels as u64)
        );
        writeln!(out, "{}", paint(STRONG, heading))?;
        table(out, &norms(report, detail == Detail::Full), detail)?;
    }
    if report.problems.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", paint(BAD, "Problems"))?;
    table(out, &problems(report), detail)
}

fn norms(report: &StateReport, full: bool) -> Table {
    let mut table = Table::new(&[
        "BatchNorm",
        "channels",
        "mean",
        "variance",
        "γ",
        "β",
        "batches",
    ]);
    for norm in &report.batch_norms {
        let name = match full {
            true => norm.module.clone(),
            false => cut(&norm.module, NAME),
        };
        table.row([
            name,
            norm.channels.to_string(),
            values(norm, "mean"),
            values(norm, "variance"),
            values(norm, "scale"),
            values(norm, "bias"),
            norm.batches
                .map_or_else(|| "–".to_owned(), |batches| batches.to_string()),
        ]);
    }
    table
}

fn values(norm: &StateBatchNorm, role: &str) -> String {
    let tensor = norm.tensors.iter().find(|tensor| tensor.role == role);
    match tensor {
        // The ends pass over NaN; the mean does not.
        Some(tensor) if tensor.mean.is_nan() => "NaN".to_owned(),
        Some(tensor) => range(tensor.min, tensor.max),
        None => "–".to_owned(),
    }
}

fn problems(report: &StateReport) -> Table {
    let mut table = Table::new(&["", "code", "problem"]);
    for problem in &report.problems {
        table.row([
            problem.node.to_string(),
            problem.code.to_owned(),
            problem.message.clone(),
        ]);
    }
    table
}
