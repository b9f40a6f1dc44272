//! `run`: what comes out, how far the two modes are apart, and what that means.

use std::io::{self, Write};

use bnkit::calibrate::{NormDistance, OutputDistance, RunReport};

use super::parts::{facts, line, section, table, warning_table, wrote};
use super::{amount, name, ratios};
use crate::print::finding::{Finding, annotations};
use crate::print::github::{Annotation, Level, by_code};
use crate::print::plain::plain;
use crate::print::style::{BAD, GOOD, STRONG, paint};
use crate::print::table::Table;
use crate::print::units::short;
use crate::print::{Detail, Document, accuracy, fold, warnings};

/// A sentence is broken into lines of so many characters.
const WIDTH: usize = 78;
/// Modes that agree this often name the same class.
const AGREE: f64 = 0.98;
/// Modes that agree differ by no more than this part of the output's range, in the root mean square.
const CLOSE: f64 = 0.1;
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
        if !self.accuracy.is_empty() {
            line(out, "accuracy", &accuracy::stages(&self.accuracy))?;
        }
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
        section(out, "Accuracy", &accuracy::table(&self.accuracy))?;
        section(out, "Outputs", &outputs(self))?;
        section(out, "Train mode against eval mode", &distances(self))?;
        section(
            out,
            "Batches against the stored statistics",
            &norms(self, true),
        )?;
        section(out, "Warnings", &warning_table(&self.warnings))
    }

    fn summary(&self) -> Option<(Level, String)> {
        let (fits, text) = judgement(self).unwrap_or_else(|| (true, headline(self)));
        let level = if fits { Level::Notice } else { Level::Warning };
        Some((level, text))
    }

    fn findings(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = Finding::warnings(&self.warnings).collect();
        let judged = self.summary();
        let doubtful = judged.filter(|(level, _)| *level == Level::Warning);
        all.extend(doubtful.map(|(level, text)| Finding::of_model(level, "run", text)));
        all
    }

    /// The summary says what the finding of that name says.
    fn annotations(&self) -> Vec<Annotation> {
        let file = &self.input.path;
        let mut all = annotations(file, &Finding::warnings(&self.warnings).collect::<Vec<_>>());
        let summary = self.summary().into_iter();
        all.extend(summary.flat_map(|(level, text)| by_code(level, file, [("run", text)])));
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

/// Words in lines of at most `width` letters; a word that is longer has a line of its own.
pub(in crate::print) fn wrapped(text: &str, width: usize) -> Vec<String> {
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
        Some(share) if other_class(worst) >= off(worst) => format!(
            "the largest element of {:?} is the same in {} of the cases",
            worst.name,
            percent(share)
        ),
        _ => format!(
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
                plain(&norm.layer.node)
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
    let (class, value) = (other_class(distance), off(distance));
    match class.is_nan() || value.is_nan() {
        true => f64::INFINITY,
        false => class.max(value),
    }
}

/// How often the modes name different classes, in units of what is accepted.
fn other_class(distance: &OutputDistance) -> f64 {
    let share = distance.argmax_agreement.unwrap_or(1.0);
    (1.0 - share) / (1.0 - AGREE)
}

/// How far the values are apart, in units of what is accepted.
fn off(distance: &OutputDistance) -> f64 {
    match distance.max_abs {
        0.0 => 0.0,
        // The range is what the largest difference is relative to.
        largest => distance.rms * distance.max_rel / largest / CLOSE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(agreement: Option<f64>, rms: f64) -> OutputDistance {
        OutputDistance {
            name: "y".to_owned(),
            max_abs: 4.0,
            max_rel: 0.4,
            rms,
            argmax_agreement: agreement,
        }
    }

    #[test]
    fn modes_agree_in_class_and_in_value() {
        // The range is 10.
        assert!(apart(&distance(Some(1.0), 0.9)) < 1.0);
        assert!(apart(&distance(Some(0.99), 0.9)) < 1.0);
        assert!(apart(&distance(Some(0.9), 0.1)) > 1.0);
        assert!(apart(&distance(Some(1.0), 1.1)) > 1.0);
        assert!(apart(&distance(None, 0.9)) < 1.0);
        assert!(apart(&distance(None, f64::NAN)) > 1.0);
    }

    #[test]
    fn words_stay_whole() {
        assert_eq!(wrapped("a bb ccc dddd", 6), ["a bb", "ccc", "dddd"]);
        assert_eq!(wrapped("", 6), [""]);
    }
}
