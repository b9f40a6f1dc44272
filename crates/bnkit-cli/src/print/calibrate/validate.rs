//! `validate`: the verdict, the layers that are furthest away with the divergence of their channels, the worst channels.

use std::io::{self, Write};

use bnkit::calibrate::{ChannelDrift, LayerDrift, Outcome, ValidateReport};

use super::page;
use super::parts::{basis, facts, line, section, table, warning_table};
use super::{amount, cut, method, name, verdict};
use crate::print::finding::{Case, Finding};
use crate::print::github::Level;
use crate::print::page::Page;
use crate::print::style::{BAD, GOOD, paint};
use crate::print::table::Table;
use crate::print::units::{count, short};
use crate::print::{Detail, Document, accuracy, fold, warnings};

/// So many blocks in a row, at most.
const BLOCKS: usize = 20;

impl Document for ValidateReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let full = detail == Detail::Full;
        fold::text::header(&self.input, out)?;
        let style = if self.valid { GOOD } else { BAD };
        writeln!(out, "\n{}", paint(style, headline(self)))?;
        basis(
            out,
            Some(&self.data),
            Some(&self.method),
            Some((&self.sampling, self.data.samples)),
        )?;
        line(out, "limits", &limits(self))?;
        if let Some(found) = &self.accuracy {
            line(out, "accuracy", &accuracy::sentence(found))?;
        }
        for error in &self.errors {
            line(
                out,
                error.code,
                &format!("{}: {}", error.node, error.message),
            )?;
        }
        let rows = layers(self, full);
        if rows.len() > 0 {
            writeln!(
                out,
                "\nLayers, worst first (channels: ▄ up to the limit of KL, each step more doubles)"
            )?;
            table(out, &rows, detail)?;
        }
        let rows = channels(&self.worst, full);
        if rows.len() > 0 {
            writeln!(out, "\nWorst channels (stored → observed)")?;
            rows.text(out, "  ", usize::MAX)?;
        }
        if !self.valid {
            writeln!(
                out,
                "\nbnkit recalibrate {} --data … makes new ones",
                self.input.path
            )?;
        }
        Ok(())
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}\n", headline(self))?;
        facts(
            out,
            &[
                ("input", format!("`{}`", self.input.path)),
                (
                    "data",
                    format!("`{}`, {}", self.data.path, amount(&self.data)),
                ),
                ("method", method(&self.method)),
                ("samples", verdict(&self.sampling, self.data.samples).1),
                ("limits", limits(self)),
                (
                    "accuracy",
                    self.accuracy
                        .as_ref()
                        .map(accuracy::sentence)
                        .unwrap_or_default(),
                ),
            ],
        )?;
        if let Some(failure) = &self.failure {
            writeln!(out, "\n**Failed:** {failure}")?;
        }
        section(out, "Layers", &layers(self, true))?;
        section(out, "Worst channels", &channels(&self.worst, true))?;
        section(out, "Warnings", &warning_table(&self.warnings))
    }

    fn summary(&self) -> Option<(Level, String)> {
        Some((Level::Notice, headline(self)))
    }

    fn findings(&self) -> Vec<Finding> {
        page::drift_findings(self)
    }

    fn cases(&self) -> Vec<Case> {
        page::drift_cases(self)
    }

    fn page(&self) -> Page {
        page::drift_page(self)
    }

    fn warnings(&self, detail: Detail) -> Vec<String> {
        warnings::lines(&self.warnings, [], detail)
    }

    fn told(&self) -> &'static [&'static str] {
        &["few-samples"]
    }
}

fn headline(report: &ValidateReport) -> String {
    let compared = report.layers.iter();
    let compared = compared
        .filter(|layer| layer.outcome == Outcome::Updated)
        .count();
    match (report.valid, report.drifted_channels) {
        (true, _) => format!(
            "Valid: the stored statistics describe the data ({} in {})",
            count(report.channels, "channel"),
            count(compared, "layer")
        ),
        (false, 0) => format!("Bad statistics: {}", count(report.errors.len(), "error")),
        (false, drifted) => format!(
            "Drifted: {drifted} of {} in {} of {}",
            count(report.channels, "channel"),
            report.drifted_layers,
            count(compared, "layer")
        ),
    }
}

fn limits(report: &ValidateReport) -> String {
    let limits = &report.limits;
    format!(
        "|Δμ|/σ {}, |ln σ² ratio| {}, KL {}, and {} standard errors",
        short(limits.max_mean_drift),
        short(limits.max_var_drift),
        short(limits.max_kl),
        short(limits.errors)
    )
}

fn layers(report: &ValidateReport, full: bool) -> Table {
    let mut table = Table::new(&[
        "BatchNorm",
        "drifted",
        "|Δμ|/σ",
        "|ln σ²|",
        "KL",
        "channels",
    ]);
    let mut worst: Vec<&LayerDrift> = report.layers.iter().collect();
    let badness = |layer: &LayerDrift| match layer.kl.max.is_nan() {
        true => f64::INFINITY,
        false => layer.kl.max,
    };
    worst.retain(|layer| layer.outcome == Outcome::Updated);
    worst.sort_by(|a, b| {
        let drifted = (b.drifted > 0).cmp(&(a.drifted > 0));
        drifted.then(badness(b).total_cmp(&badness(a)))
    });
    for layer in worst {
        table.row([
            name(&layer.layer, full),
            format!("{}/{}", layer.drifted, layer.layer.channels),
            short(layer.mean_drift.max),
            short(layer.var_drift.max),
            short(layer.kl.max),
            spark(&layer.kl_by_channel, report.limits.max_kl),
        ]);
    }
    table
}

fn channels(worst: &[ChannelDrift], full: bool) -> Table {
    let mut table = Table::new(&["BatchNorm", "channel", "mean", "variance", "KL", ""]);
    for channel in worst {
        let node = channel.node.as_str();
        let arrow = |stored: f64, observed: f64| format!("{} → {}", short(stored), short(observed));
        table.row([
            match full {
                true => node.to_owned(),
                false => cut(
                    node.strip_suffix("/BatchNormalization").unwrap_or(node),
                    super::NAME,
                ),
            },
            channel.channel.to_string(),
            arrow(channel.stored_mean, channel.observed_mean),
            arrow(channel.stored_variance, channel.observed_variance),
            short(channel.kl),
            if channel.drifted { "drifted" } else { "" }.to_owned(),
        ]);
    }
    table
}

/// One block per channel (the worst of several, if there are many): ▄ up to the limit, one step more for each doubling.
fn spark(values: &[f64], limit: f64) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let level = |value: f64| {
        if value.is_nan() {
            return '?';
        }
        if value <= 0.0 || limit <= 0.0 {
            return LEVELS[if value > limit { 7 } else { 0 }];
        }
        let doublings = (value / limit).log2().ceil().clamp(-3.0, 4.0);
        LEVELS[(doublings + 3.0) as usize]
    };
    let worst = |values: &[f64]| {
        let nan = values.iter().any(|value| value.is_nan());
        let largest = values.iter().copied().fold(0.0, f64::max);
        if nan { f64::NAN } else { largest }
    };
    let blocks = values.len().min(BLOCKS);
    (0..blocks)
        .map(|at| {
            let part = at * values.len() / blocks..(at + 1) * values.len() / blocks;
            level(worst(&values[part]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_double_from_the_limit_on() {
        let values = [
            0.0,
            0.001,
            0.0025,
            0.02,
            0.021,
            0.04,
            0.05,
            0.16,
            9.0,
            f64::NAN,
        ];
        assert_eq!(spark(&values, 0.02), "▁▁▁▄▅▅▆▇█?");
        assert_eq!(spark(&[0.0, 1e-9], 0.0), "▁█");
        assert_eq!(spark(&[], 0.02), "");
    }

    #[test]
    fn many_channels_show_the_worst_of_each_part() {
        let mut values = vec![0.0; 512];
        values[511] = 1.0;
        let line = spark(&values, 0.02);
        assert_eq!(line.chars().count(), BLOCKS);
        assert!(line.ends_with("▁█"), "{line}");
    }
}
