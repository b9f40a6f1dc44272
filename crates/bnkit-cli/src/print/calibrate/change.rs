//! `recalibrate` and `merge`: what the statistics were and are now, how certain they are, where they lie.

use std::io::{self, Write};

use bnkit::calibrate::{
    DataUsed, LayerChange, LayerCounts, MergeReport, MethodUsed, PartialFile, Pass,
    RecalibrateReport, Sampling,
};
use bnkit::report::{FoldReport, InputFile, OutputFile, Warning};

use super::layers::{certainty, changed, unchanged};
use super::parts::{basis, facts, line, section, table, warning_table, written};
use super::{amount, method, samples, verdict};
use crate::print::github::{Annotation, Level, by_code};
use crate::print::style::{STRONG, paint};
use crate::print::table::Table;
use crate::print::units::{count, sci};
use crate::print::{Detail, Document, fold, warnings};

/// What the two reports have in common.
struct View<'a> {
    command: &'static str,
    input: &'a InputFile,
    data: Option<&'a DataUsed>,
    method: Option<&'a MethodUsed>,
    seen: u64,
    summary: &'a LayerCounts,
    layers: &'a [LayerChange],
    passes: &'a [Pass],
    sampling: Option<&'a Sampling>,
    warnings: &'a [Warning],
    shards: &'a [PartialFile],
    partial: Option<&'a PartialFile>,
    fold: Option<&'a FoldReport>,
    output: Option<&'a OutputFile>,
    failure: Option<&'a str>,
}

impl Document for RecalibrateReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        view(self).text(out, detail)
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        view(self).markdown(out)
    }

    fn annotations(&self) -> Vec<Annotation> {
        view(self).annotations()
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        view(self).warnings(detail)
    }

    fn told(&self) -> &'static [&'static str] {
        &["few-samples"]
    }
}

impl Document for MergeReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        merged(self).text(out, detail)
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        merged(self).markdown(out)
    }

    fn annotations(&self) -> Vec<Annotation> {
        merged(self).annotations()
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        merged(self).warnings(detail)
    }

    fn told(&self) -> &'static [&'static str] {
        &["few-samples"]
    }
}

fn view(report: &RecalibrateReport) -> View<'_> {
    View {
        command: "recalibrate",
        input: &report.input,
        data: report.data.as_ref(),
        method: report.method.as_ref(),
        seen: report.data.as_ref().map_or(0, |data| data.samples),
        summary: &report.summary,
        layers: &report.layers,
        passes: &report.passes,
        sampling: report.sampling.as_ref(),
        warnings: &report.warnings,
        shards: &[],
        partial: report.partial.as_ref(),
        fold: report.fold.as_deref(),
        output: report.output.as_ref(),
        failure: report.failure.as_deref(),
    }
}

fn merged(report: &MergeReport) -> View<'_> {
    View {
        command: "merge",
        input: &report.input,
        data: None,
        method: Some(&report.method),
        seen: report.samples,
        summary: &report.summary,
        layers: &report.layers,
        passes: &[],
        sampling: Some(&report.sampling),
        warnings: &report.warnings,
        shards: &report.partials,
        partial: None,
        fold: report.fold.as_deref(),
        output: report.output.as_ref(),
        failure: report.failure.as_deref(),
    }
}

impl View<'_> {
    fn headline(&self) -> String {
        let LayerCounts {
            layers, updated, ..
        } = *self.summary;
        let what = match (self.partial, self.output) {
            (Some(_), _) => "Measured",
            (_, Some(_)) => "Recalibrated",
            _ => "Would recalibrate",
        };
        match layers == updated && layers > 1 {
            true => format!("{what} all {layers} BatchNorms"),
            false => format!("{what} {updated} of {}", count(layers, "BatchNorm")),
        }
    }

    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let full = detail == Detail::Full;
        fold::text::header(self.input, out)?;
        writeln!(out, "\n{}", paint(STRONG, self.headline()))?;
        if !self.shards.is_empty() {
            let shards = count(self.shards.len(), "shard");
            line(out, "data", &format!("{}, {shards}", samples(self.seen)))?;
        }
        // A shard alone says nothing about whether all of them are enough.
        let sampling = self.sampling.filter(|_| self.partial.is_none());
        let sampling = sampling.map(|sampling| (sampling, self.seen));
        basis(out, self.data, self.method, sampling)?;
        for (title, rows) in [
            (
                "Before → after (medians of the channels; largest shift; range of the ratios)",
                changed(self.layers, full),
            ),
            ("Unchanged", unchanged(self.layers, full)),
            ("Largest change from pass to pass", pass_table(self.passes)),
            ("Shards", shard_table(self.shards)),
        ] {
            if rows.len() > 0 {
                writeln!(out, "\n{title}")?;
                table(out, &rows, detail)?;
            }
        }
        if let Some(fold) = self.fold {
            fold::text::body(fold, out, detail)?;
        }
        writeln!(out)?;
        match self.partial {
            None => written(out, self.input.bytes, self.output),
            Some(partial) => {
                super::parts::wrote(out, &partial.path)?;
                writeln!(
                    out,
                    "  shard {} of the moments; bnkit merge puts all of them together",
                    partial.shard
                )
            }
        }
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}\n", self.headline())?;
        let code = |text: &str| format!("`{text}`");
        let data = self
            .data
            .map(|data| format!("{}, {}", code(&data.path), amount(data)));
        facts(
            out,
            &[
                ("input", code(&self.input.path)),
                (
                    "data",
                    data.unwrap_or_else(|| match self.shards.len() {
                        0 => String::new(),
                        _ => samples(self.seen),
                    }),
                ),
                ("method", self.method.map(method).unwrap_or_default()),
                (
                    "samples",
                    self.sampling
                        .map(|sampling| verdict(sampling, self.seen).1)
                        .unwrap_or_default(),
                ),
                (
                    "output",
                    self.output
                        .map(|output| code(&output.path))
                        .unwrap_or_default(),
                ),
                (
                    "partial",
                    self.partial
                        .map(|partial| code(&partial.path))
                        .unwrap_or_default(),
                ),
            ],
        )?;
        if let Some(failure) = self.failure {
            writeln!(out, "\n**Failed:** {failure}")?;
        }
        section(out, "Statistics", &changed(self.layers, true))?;
        section(out, "Ends and certainty", &certainty(self.layers))?;
        section(out, "Unchanged", &unchanged(self.layers, true))?;
        section(out, "Passes", &pass_table(self.passes))?;
        section(out, "Shards", &shard_table(self.shards))?;
        section(out, "Warnings", &warning_table(self.warnings))?;
        match self.fold {
            Some(fold) => fold::markdown::body(fold, out),
            None => Ok(()),
        }
    }

    fn annotations(&self) -> Vec<Annotation> {
        let file = &self.input.path;
        let failed = self.failure.map(|why| (self.command, why.to_owned()));
        let mut all = by_code(Level::Error, file, failed);
        let found = self.warnings.iter();
        let found = found.map(|warning| (warning.code, warning.message.clone()));
        all.extend(by_code(Level::Warning, file, found));
        let mut text = self.headline();
        if let Some(output) = self.output {
            text += &format!("; written to {}", output.path);
        }
        if let Some(partial) = self.partial {
            text += &format!("; written to {}", partial.path);
        }
        all.extend(by_code(Level::Notice, file, [(self.command, text)]));
        all
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        let mut lines = warnings::lines(self.warnings, [], detail);
        if let Some(fold) = self.fold {
            lines.extend(fold.warnings(detail));
        }
        lines
    }
}

fn pass_table(passes: &[Pass]) -> Table {
    let mut table = Table::new(&["pass", "|Δμ|/σ", "|ln σ² ratio|"]);
    for pass in passes {
        table.row([
            pass.pass.to_string(),
            sci(pass.mean_change),
            sci(pass.variance_change),
        ]);
    }
    table
}

fn shard_table(shards: &[PartialFile]) -> Table {
    let mut table = Table::new(&["shard", "file", "batches", "samples", ""]);
    for shard in shards {
        table.row([
            shard.shard.to_string(),
            shard.path.clone(),
            shard.batches.to_string(),
            shard.samples.to_string(),
            if shard.complete { "" } else { "interrupted" }.to_owned(),
        ]);
    }
    table
}
