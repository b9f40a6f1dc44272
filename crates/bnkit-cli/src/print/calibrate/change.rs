//! `recalibrate` and `merge`: what the statistics were and are now, how certain they are, where they lie.

use std::io::{self, Write};

use bnkit::accuracy::AccuracyReport;
use bnkit::calibrate::{
    DataUsed, LayerChange, LayerCounts, MergeReport, MethodUsed, PartialFile, Pass,
    RecalibrateReport, Sampling,
};
use bnkit::report::{FoldReport, InputFile, OutputFile, Warning};

use super::layers::{certainty, changed, unchanged};
use super::page;
use super::parts::{basis, facts, line, section, table, warning_table, written};
use super::{amount, method, samples, verdict};
use crate::print::finding::{Case, Finding};
use crate::print::github::Level;
use crate::print::page::{Card, Page};
use crate::print::style::{STRONG, paint};
use crate::print::table::Table;
use crate::print::units::{count, sci};
use crate::print::{Detail, Document, accuracy, fold, warnings};

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
    accuracy: Option<&'a AccuracyReport>,
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

    fn summary(&self) -> Option<(Level, String)> {
        Some((Level::Notice, view(self).summary()))
    }

    fn findings(&self) -> Vec<Finding> {
        view(self).findings()
    }

    fn cases(&self) -> Vec<Case> {
        view(self).cases()
    }

    fn page(&self) -> Page {
        view(self).page()
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

    fn summary(&self) -> Option<(Level, String)> {
        Some((Level::Notice, merged(self).summary()))
    }

    fn findings(&self) -> Vec<Finding> {
        merged(self).findings()
    }

    fn cases(&self) -> Vec<Case> {
        merged(self).cases()
    }

    fn page(&self) -> Page {
        merged(self).page()
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
        accuracy: report.accuracy.as_ref(),
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
        accuracy: None,
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
        if let Some(report) = self.accuracy {
            line(out, "accuracy", &accuracy::stages(&report.stages))?;
        }
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
        if let Some(report) = self.accuracy {
            section(out, "Accuracy", &accuracy::table(&report.stages))?;
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

    fn summary(&self) -> String {
        let mut text = self.headline();
        if let Some(output) = self.output {
            text += &format!("; written to {}", output.path);
        }
        if let Some(partial) = self.partial {
            text += &format!("; written to {}", partial.path);
        }
        text
    }

    fn findings(&self) -> Vec<Finding> {
        let failed = self.failure.iter();
        let mut all: Vec<Finding> = failed
            .map(|why| Finding::of_model(Level::Error, self.command, *why))
            .collect();
        all.extend(Finding::warnings(self.warnings));
        all.extend(
            self.layers
                .iter()
                .filter_map(|it| page::kept(&it.layer, it.outcome, it.refusal.as_ref())),
        );
        all.extend(self.fold.iter().flat_map(|fold| fold.findings()));
        all
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = page::changed_cases(self.layers);
        cases.extend(self.accuracy.map(accuracy::case));
        cases.extend(self.fold.iter().flat_map(|fold| fold.cases()));
        cases
    }

    fn page(&self) -> Page {
        let LayerCounts {
            layers, updated, ..
        } = *self.summary;
        let mut page = Page {
            cards: vec![
                Card::new("BatchNorms updated", format!("{updated} of {layers}"), ""),
                Card::new("Samples", self.seen.to_string(), ""),
            ],
            charts: page::changed_charts(self.layers),
            ..Page::default()
        };
        page.cards.extend(self.accuracy.and_then(accuracy::card));
        if let Some(fold) = self.fold {
            let of_fold = fold.page();
            page.cards.extend(of_fold.cards);
            page.charts.extend(of_fold.charts);
            page.grid = of_fold.grid;
            page.replaced = of_fold.replaced;
        }
        page
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
