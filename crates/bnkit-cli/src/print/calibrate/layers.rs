//! Layers before and after, as `recalibrate` and `merge` show them.

use bnkit::calibrate::{LayerChange, Outcome};

use super::{name, ratios};
use crate::print::table::Table;
use crate::print::units::{range, short};

/// One row per layer that has new statistics: the middle of the channels before and after, the largest shift of a mean in stored
/// deviations, the ends of the ratios of variances.
pub(super) fn changed(layers: &[LayerChange], full: bool) -> Table {
    let mut table = Table::new(&["BatchNorm", "mean", "variance", "|Δμ|/σ", "σ² ratio"]);
    for layer in layers {
        let Some(change) = &layer.change else {
            continue;
        };
        let arrow = |before: f64, after: f64| format!("{} → {}", short(before), short(after));
        table.row([
            name(&layer.layer, full),
            arrow(change.mean_before.median, change.mean_after.median),
            arrow(change.variance_before.median, change.variance_after.median),
            short(change.mean_shift.max),
            ratios(change.log_variance_ratio.min, change.log_variance_ratio.max),
        ]);
    }
    table
}

/// What a page says in addition: ends and certainty.
pub(super) fn certainty(layers: &[LayerChange]) -> Table {
    let mut table = Table::new(&[
        "BatchNorm",
        "channels",
        "elements",
        "mean before",
        "mean after",
        "variance before",
        "variance after",
        "error of the mean",
        "error of the variance",
    ]);
    for layer in layers {
        let Some(change) = &layer.change else {
            continue;
        };
        let ends = |ends: &bnkit::calibrate::Extremes| range(ends.min, ends.max);
        let error = layer.error.as_ref();
        table.row([
            format!("`{}`", name(&layer.layer, true)),
            layer.layer.channels.to_string(),
            layer.elements.to_string(),
            ends(&change.mean_before),
            ends(&change.mean_after),
            ends(&change.variance_before),
            ends(&change.variance_after),
            error.map_or_else(String::new, |error| short(error.mean.max)),
            error.map_or_else(String::new, |error| short(error.variance.max)),
        ]);
    }
    table
}

/// Layers that keep what they have, and why.
pub(super) fn unchanged(layers: &[LayerChange], full: bool) -> Table {
    let mut table = Table::new(&["BatchNorm", "", "why"]);
    for layer in layers {
        let (code, why) = match (layer.outcome, &layer.refusal) {
            (Outcome::Updated, _) => continue,
            (Outcome::Skipped, _) => ("skipped", "as asked".to_owned()),
            (Outcome::NeverRan, _) => ("never-ran", "no data reached it".to_owned()),
            (Outcome::Kept, Some(refusal)) => (refusal.code, refusal.message.clone()),
            (Outcome::Kept, None) => ("kept", "the file has no statistics for it".to_owned()),
        };
        table.row([name(&layer.layer, full), code.to_owned(), why]);
    }
    table
}
