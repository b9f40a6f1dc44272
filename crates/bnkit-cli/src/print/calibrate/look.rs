//! `run`: what comes out, how far the two modes are apart, and what that means.

use std::io::{self, Write};

use bnkit::calibrate::{NormDistance, OutputDistance, RunReport};

use super::parts::{facts, line, section, table, warning_table, wrote};
use super::{amount, name, ratios};
use crate::print::github::{Annotation, Level, by_code};
use crate::print::style::{BAD, GOOD, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::short;
use crate::print::{Detail, Document, fold, warnings};

/// A sentence is broken into lines of so many characters.
const WIDTH: usize = 78;
/// Modes that agree this often name the same class.
const AGREE: f64 = 0.98;
/// Where there are no classes: modes agree if they differ by this part of the output's range, in the root mean square.
const CLOSE: f64 = 0.05;
/// Batches are away from the statistics if the typical channel is so far away: |Δμ|/σ, or |ln σ² ratio|.
const AWAY: f64 = 0.5;

impl Document for RunReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let full = detail == Detail::Full;
        fold::text::header(&self.input, out)?;
        writeln!(out, "\n{}", paint(STRONG, headline(self)))?;
        line(
            out,
            "data",
            &format!("{}: {}", self.data.path, amount(&self.data)),
        )?;
        for (title, rows) in [
            ("Outputs", outputs(self)),
            ("Train mode against eval mode", distances(self)),
            ("Batches against the stored statistics", norms(self, full)),
        ] {
            if rows.len() > 0 {
                writeln!(out, "\n{title}")?;
                table(out, &rows, detail)?;
            }
        }
        if let Some((fits, sentence)) = judgement(self) {
            let style = if fits { GOOD } else { BAD };
            let (first, rest) = sentence.split_once(": ").unwrap_or((&sentence, ""));
            writeln!(out, "\n{}:", paint(style, first))?;
            for line in wrapped(rest, WIDTH) {
                writeln!(out, "  {line}")?;
            }
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
        facts(
            out,
            &[
                ("input", format!("`{}`", self.input.path)),
                (
                    "data",
                    format!("`{}`, {}", self.data.path, amount(&self.data)),
                ),
                ("outputs", written.unwrap_or_default()),
            ],
        )?;
        if let Some((_, sentence)) = judgement(self) {
            writeln!(out, "\n{sentence}")?;
        }
        section(out, "Outputs", &outputs(self))?;
        section(out, "Train mode against eval mode", &distances(self))?;
        section(
            out,
            "Batches against the stored statistics",
            &norms(self, true),
        )?;
        section(out, "Warnings", &warning_table(&self.warnings))
    }

    fn annotations(&self) -> Vec<Annotation> {
        let file = &self.input.path;
        let found = self.warnings.iter();
        let found = found.map(|warning| (warning.code, warning.message.clone()));
        let mut all = by_code(Level::Warning, file, found);
        let (fits, text) = judgement(self).unwrap_or_else(|| (true, headline(self)));
        let level = if fits { Level::Notice } else { Level::Warning };
        all.extend(by_code(level, file, [("run", text)]));
        all
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        warnings::lines(&self.warnings, [], detail)
    }
}

fn headline(report: &RunReport) -> String {
    let mut modes: Vec<&str> = report.outputs.iter().map(|output| output.mode).collect();
    modes.dedup();
    format!("Ran in {} mode", modes.join(" and in "))
}

fn outputs(report: &RunReport) -> Table {
    let mut table = Table::new(&["output", "mode", "shape", "min", "max", "mean", "NaN, Inf"]);
    for output in &report.outputs {
        let dims: Vec<String> = output.dims.iter().map(ToString::to_string).collect();
        table.row([
            output.name.clone(),
            output.mode.to_owned(),
            dims.join("×"),
            short(output.min),
            short(output.max),
            short(output.mean),
            output.not_finite.to_string(),
        ]);
    }
    table
}

fn distances(report: &RunReport) -> Table {
    let mut table = Table::new(&["output", "max |Δ|", "of its range", "rms", "argmax agrees"]);
    for distance in &report.distances {
        table.row([
            distance.name.clone(),
            short(distance.max_abs),
            percent(distance.max_rel),
            short(distance.rms),
            distance
                .argmax_agreement
                .map_or_else(|| "–".to_owned(), percent),
        ]);
    }
    table
}

fn norms(report: &RunReport, full: bool) -> Table {
    let mut table = Table::new(&[
        "BatchNorm",
        "|Δμ|/σ median",
        "max",
        "σ² ratio median",
        "min … max",
    ]);
    for norm in &report.batch_norms {
        let (Some(mean), Some(ratio)) = (&norm.mean_distance, &norm.log_variance_ratio) else {
            continue;
        };
        table.row([
            name(&norm.layer, full),
            short(mean.median),
            short(mean.max),
            short(ratio.median.exp()),
            ratios(ratio.min, ratio.max),
        ]);
    }
    table
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.len() - 1;
        let length = lines[line].chars().count();
        if length > 0 && length + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            let blank = if length == 0 { "" } else { " " };
            lines[line] += &format!("{blank}{word}");
        }
    }
    lines
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

/// Is it fine in training and wrong in evaluation? With both modes only: whether they fit, and a sentence.
fn judgement(report: &RunReport) -> Option<(bool, String)> {
    let worst = report
        .distances
        .iter()
        .max_by(|a, b| apart(a).total_cmp(&apart(b)))?;
    let broken = |mode: &str| {
        let of_mode = report.outputs.iter().filter(|output| output.mode == mode);
        of_mode.map(|output| output.not_finite).sum::<u64>()
    };
    if broken("eval") > broken("train") {
        return Some((
            false,
            "The modes differ: eval mode gives values that are not finite where train mode does not: the running statistics are broken (bnkit inspect shows them)"
                .to_owned(),
        ));
    }
    let how = match worst.argmax_agreement {
        Some(share) => format!(
            "the largest element of {:?} is the same in {} of the cases",
            worst.name,
            percent(share)
        ),
        None => format!(
            "{:?} differs by {} of its range at most",
            worst.name,
            percent(worst.max_rel)
        ),
    };
    if apart(worst) <= 1.0 {
        return Some((
            true,
            format!(
                "The modes agree: {how}; if it is wrong in eval mode, the running statistics are not why"
            ),
        ));
    }
    let typical = |norm: &NormDistance| {
        let mean = norm.mean_distance.map_or(0.0, |mean| mean.median);
        let ratio = norm
            .log_variance_ratio
            .map_or(0.0, |ratio| ratio.median.abs());
        mean.max(ratio)
    };
    let furthest = report
        .batch_norms
        .iter()
        .max_by(|a, b| typical(a).total_cmp(&typical(b)));
    Some((
        false,
        match furthest.filter(|norm| typical(norm) > AWAY) {
            Some(norm) => format!(
                "The modes differ: {how}, and the batches are far from the running statistics, most at {}; if it is fine in training and wrong in eval mode, this is why: bnkit recalibrate mends it",
                norm.layer.node
            ),
            None => format!(
                "The modes differ: {how}, though the batches are near the running statistics; batches of {} may be too small or too much alike, and bnkit validate says more",
                report.data.batch_size
            ),
        },
    ))
}

/// Above 1 for modes that do not agree.
fn apart(distance: &OutputDistance) -> f64 {
    let apart = match distance.argmax_agreement {
        Some(share) => (1.0 - share) / (1.0 - AGREE),
        None if distance.max_abs == 0.0 => 0.0,
        None => distance.max_rel * distance.rms / distance.max_abs / CLOSE,
    };
    if apart.is_nan() { f64::INFINITY } else { apart }
}
