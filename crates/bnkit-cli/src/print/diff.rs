//! `diff`: what changed, the largest changes first.

use std::io::{self, Write};

use bnkit::diff::{
    DiffReport, EpsilonFrom, LayerChange, LayerInfo, Summary, TensorChange, TensorInfo,
};

use super::calibrate::parts::{facts, section, table};
use super::calibrate::{cut, ratios};
use super::github::{Annotation, Level, by_code};
use super::style::{STRONG, paint};
use super::table::Table;
use super::units::{bytes, count, short};
use super::{Detail, Document, fold, inspect};

/// The name of a tensor takes no more than this, unless all is wanted.
const NAME: usize = 27;

impl Document for DiffReport {
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
        let full = detail == Detail::Full;
        fold::text::header(&self.a, out)?;
        fold::text::header(&self.b, out)?;
        writeln!(out, "\n{}", paint(STRONG, tensors(&self.summary)))?;
        table(out, &changed(self, full), detail)?;
        let parts = [
            ("Other type or shape", other(self, full)),
            ("NaN or Inf", not_finite(self, full)),
            ("Only in the first", only(&self.removed, full)),
            ("Only in the second", only(&self.added, full)),
        ];
        for (title, rows) in parts {
            part(title, &rows, out, detail)?;
        }
        if layers(&self.summary) == 0 {
            return Ok(());
        }
        writeln!(out, "\n{}", paint(STRONG, batch_norms(&self.summary)))?;
        table(out, &drift(self, full), detail)?;
        for line in epsilons(self) {
            writeln!(out, "  {line}")?;
        }
        let parts = [
            ("Not compared", problems(self, full)),
            (
                "BatchNorms only in the first",
                only_layers(&self.batch_norms_removed, full),
            ),
            (
                "BatchNorms only in the second",
                only_layers(&self.batch_norms_added, full),
            ),
        ];
        for (title, rows) in parts {
            part(title, &rows, out, detail)?;
        }
        Ok(())
    }

    fn markdown(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "# {}\n", tensors(&self.summary))?;
        let norms = match layers(&self.summary) {
            0 => String::new(),
            _ => batch_norms(&self.summary),
        };
        facts(
            out,
            &[
                ("first", format!("`{}`", self.a.path)),
                ("second", format!("`{}`", self.b.path)),
                ("BatchNorms", norms),
                ("ε", epsilons(self).join("; ")),
            ],
        )?;
        for (title, rows) in [
            ("Changed tensors", changed(self, true)),
            ("Other type or shape", other(self, true)),
            ("NaN or Inf", not_finite(self, true)),
            ("Only in the first", only(&self.removed, true)),
            ("Only in the second", only(&self.added, true)),
            ("BatchNorms", drift(self, true)),
            ("BatchNorms, not compared", problems(self, true)),
            (
                "BatchNorms only in the first",
                only_layers(&self.batch_norms_removed, true),
            ),
            (
                "BatchNorms only in the second",
                only_layers(&self.batch_norms_added, true),
            ),
        ] {
            section(out, title, &rows)?;
        }
        Ok(())
    }

    fn annotations(&self) -> Vec<Annotation> {
        let mut found = vec![("diff", tensors(&self.summary))];
        if layers(&self.summary) > 0 {
            found.push(("diff", batch_norms(&self.summary)));
        }
        by_code(Level::Notice, &self.b.path, found)
    }
}

fn part(title: &str, rows: &Table, out: &mut dyn Write, detail: Detail) -> io::Result<()> {
    if rows.len() == 0 {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    table(out, rows, detail)
}

fn layers(summary: &Summary) -> usize {
    summary.batch_norms_added
        + summary.batch_norms_removed
        + summary.batch_norms_changed
        + summary.batch_norms_unchanged
}

/// "12 of 62 tensors changed, 1 added, 2 removed".
fn tensors(summary: &Summary) -> String {
    let both = summary.changed + summary.unchanged;
    let changed = match (summary.changed, both) {
        (_, 0) => "No tensor has a name that is in both".to_owned(),
        (0, both) => format!("All {} the same", count(both, "common tensor")),
        (changed, both) => format!("{changed} of {} changed", count(both, "common tensor")),
    };
    changed + &others(summary.added, summary.removed)
}

fn batch_norms(summary: &Summary) -> String {
    let both = summary.batch_norms_changed + summary.batch_norms_unchanged;
    let changed = match (summary.batch_norms_changed, both) {
        (_, 0) => "No BatchNorm is in both".to_owned(),
        (0, both) => format!("Statistics of all {} the same", count(both, "BatchNorm")),
        (changed, both) => {
            format!(
                "Statistics of {changed} of {} changed",
                count(both, "BatchNorm")
            )
        }
    };
    changed + &others(summary.batch_norms_added, summary.batch_norms_removed)
}

fn others(added: usize, removed: usize) -> String {
    let mut text = String::new();
    for (number, what) in [(added, "added"), (removed, "removed")] {
        if number > 0 {
            text += &format!(", {number} {what}");
        }
    }
    text
}

fn named(name: &str, full: bool) -> String {
    match full {
        true => name.to_owned(),
        false => cut(name, NAME),
    }
}

/// Parts of a whole; what is not all is not 100 %, what is not nothing is not 0 %.
fn percent(share: f64) -> String {
    match share {
        _ if !share.is_finite() => short(share),
        0.0 => "0%".to_owned(),
        _ if share < 0.001 => "<0.1%".to_owned(),
        _ if share < 1.0 => format!("{}%", (share * 1000.0).floor() / 10.0),
        _ => format!("{}%", short(share * 100.0)),
    }
}

fn changed(report: &DiffReport, full: bool) -> Table {
    let mut table = Table::new(&[
        "tensor",
        "shape",
        "changed",
        "max |Δ|",
        "of max|a|",
        "‖Δ‖/‖a‖",
    ]);
    for change in &report.changed {
        let Some(elements) = change.elements.filter(|_| is_plain(change)) else {
            continue;
        };
        table.row([
            named(&change.name, full),
            inspect::dims(&change.dims[0]),
            percent(elements.changed as f64 / elements.count.max(1) as f64),
            short(elements.max_abs),
            percent(elements.max_rel),
            percent(elements.l2_rel),
        ]);
    }
    table
}

/// Whether a change is one of numbers only.
fn is_plain(change: &TensorChange) -> bool {
    !change.dtype_changed && !change.shape_changed
}

fn other(report: &DiffReport, full: bool) -> Table {
    let mut table = Table::new(&["tensor", "first", "second", "max |Δ|", "‖Δ‖/‖a‖"]);
    for change in &report.changed {
        if change.elements.is_some() && is_plain(change) {
            continue;
        }
        let side = |at: usize| {
            let dims = inspect::dims(&change.dims[at]);
            format!("{} {dims}", change.dtypes[at])
        };
        let (largest, relative) = match &change.elements {
            Some(elements) => (short(elements.max_abs), percent(elements.l2_rel)),
            None => ("–".to_owned(), "–".to_owned()),
        };
        let name = named(&change.name, full);
        table.row([name, side(0), side(1), largest, relative]);
    }
    table
}

fn not_finite(report: &DiffReport, full: bool) -> Table {
    let mut table = Table::new(&["tensor", "NaN", "Inf"]);
    for change in &report.changed {
        let Some(elements) = &change.elements else {
            continue;
        };
        let numbers = [elements.nan, elements.infinite];
        if numbers == [[0; 2]; 2] {
            continue;
        }
        let [nan, infinite] = numbers.map(|[a, b]| format!("{a} → {b}"));
        table.row([named(&change.name, full), nan, infinite]);
    }
    table
}

fn only(tensors: &[TensorInfo], full: bool) -> Table {
    let mut table = Table::new(&["tensor", "type", "shape", "size"]);
    for tensor in tensors {
        let name = match full {
            true => tensor.name.clone(),
            false => cut(&tensor.name, 2 * NAME - 14),
        };
        table.row([
            name,
            tensor.dtype.clone(),
            inspect::dims(&tensor.dims),
            bytes(tensor.bytes),
        ]);
    }
    table
}

fn drift(report: &DiffReport, full: bool) -> Table {
    let mut table = Table::new(&[
        "BatchNorm",
        "changed",
        "|Δμ|/σ median",
        "max",
        "σ² ratio",
        "KL max",
    ]);
    for layer in report.batch_norms.iter().filter(|it| it.problem.is_none()) {
        let numbers = (&layer.mean_shift, &layer.log_variance_ratio, &layer.kl);
        let cells = match numbers {
            (Some(mean), Some(ratio), Some(kl)) => [
                short(mean.median),
                short(mean.max),
                ratios(ratio.min, ratio.max),
                short(kl.max),
            ],
            _ => ["–"; 4].map(str::to_owned),
        };
        let changed = format!("{}/{}", layer.changed_channels, layer.channels[0]);
        let names = [layer_name(&layer.name, full), changed];
        table.row(names.into_iter().chain(cells));
    }
    table
}

/// Exporters append the operator, which says nothing in a table of BatchNorms.
fn layer_name(name: &str, full: bool) -> String {
    match full {
        true => name.to_owned(),
        false => cut(
            name.strip_suffix("/BatchNormalization").unwrap_or(name),
            NAME - 5,
        ),
    }
}

/// What is to be said about ε.
fn epsilons(report: &DiffReport) -> Vec<String> {
    let mut lines = Vec::new();
    let of = |from: EpsilonFrom| {
        let mut layers = report.batch_norms.iter();
        layers.find(|layer| layer.epsilon_from == from && layer.problem.is_none())
    };
    if let Some(layer) = of(EpsilonFrom::Default) {
        let epsilon = short(layer.epsilon);
        lines.push(format!("ε is in neither file: {epsilon} assumed (--eps)"));
    }
    if let Some(layer) = of(EpsilonFrom::Given) {
        lines.push(format!("ε: {}, as given", short(layer.epsilon)));
    }
    let differ = |layer: &&LayerChange| layer.epsilon_of_b.is_some();
    let number = report.batch_norms.iter().filter(differ).count();
    if let Some((layer, other)) = report
        .batch_norms
        .iter()
        .find_map(|layer| Some((layer, layer.epsilon_of_b?)))
    {
        lines.push(format!(
            "ε differs in {}: {} → {} in {}",
            count(number, "BatchNorm"),
            short(layer.epsilon),
            short(other),
            super::plain::plain(&layer.name)
        ));
    }
    lines
}

fn problems(report: &DiffReport, full: bool) -> Table {
    let mut table = Table::new(&["BatchNorm", "why"]);
    for layer in &report.batch_norms {
        let name = layer_name(&layer.name, full);
        if let Some(problem) = &layer.problem {
            table.row([name, problem.clone()]);
        } else if layer.bad_channels > 0 {
            let channels = count(layer.bad_channels, "channel");
            let why = format!("NaN, Inf or no positive variance in {channels}");
            table.row([name, why]);
        }
    }
    table
}

fn only_layers(layers: &[LayerInfo], full: bool) -> Table {
    let mut table = Table::new(&["BatchNorm", "channels", "mean"]);
    for layer in layers {
        let name = layer_name(&layer.name, full);
        let mean = named(&layer.mean_name, full);
        table.row([name, layer.channels.to_string(), mean]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_neither_all_nor_nothing_by_rounding() {
        assert_eq!(percent(0.0), "0%");
        assert_eq!(percent(1e-9), "<0.1%");
        assert_eq!(percent(0.99999), "99.9%");
        assert_eq!(percent(1.0), "100%");
        assert_eq!(percent(2.5), "250%");
        assert_eq!(percent(f64::INFINITY), "Inf");
    }

    #[test]
    fn headlines_say_how_many() {
        let mut summary = Summary {
            changed: 2,
            unchanged: 3,
            added: 1,
            ..Summary::default()
        };
        assert_eq!(tensors(&summary), "2 of 5 common tensors changed, 1 added");
        summary.changed = 0;
        assert_eq!(tensors(&summary), "All 3 common tensors the same, 1 added");
        summary.batch_norms_removed = 4;
        assert_eq!(batch_norms(&summary), "No BatchNorm is in both, 4 removed");
    }
}
