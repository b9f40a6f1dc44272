//! Plots, findings and cases of `recalibrate`, `merge` and `validate`.

use bnkit::calibrate::{Extremes, LayerChange, LayerDrift, LayerName, Outcome, ValidateReport};
use bnkit::report::Refusal;

use super::name;
use crate::print::finding::{Case, CaseOutcome, Finding};
use crate::print::github::Level;
use crate::print::page::{Card, Chart, LayerChart, LayerMarks, Page, Span};
use crate::print::units::{grouped, short};

/// Why a layer has no new (or observed) statistics.
fn left_alone(outcome: Outcome, refusal: Option<&Refusal>) -> CaseOutcome {
    CaseOutcome::Skipped(match (outcome, refusal) {
        (Outcome::Skipped, _) => "as asked".to_owned(),
        (Outcome::NeverRan, _) => "never-ran: no data reached it".to_owned(),
        (_, Some(refusal)) => format!("{}: {}", refusal.code, refusal.message),
        (_, None) => "the file has no statistics for it".to_owned(),
    })
}

pub(super) fn changed_cases(layers: &[LayerChange]) -> Vec<Case> {
    let case = |layer: &LayerChange| {
        let outcome = match (layer.outcome, &layer.change) {
            (Outcome::Updated, Some(change)) => CaseOutcome::Passed(format!(
                "largest |Δμ|/σ {}, |ln σ² ratio| up to {}",
                short(change.mean_shift.max),
                short(
                    change
                        .log_variance_ratio
                        .max
                        .abs()
                        .max(change.log_variance_ratio.min.abs())
                )
            )),
            (Outcome::Updated, None) => CaseOutcome::Passed(String::new()),
            (outcome, _) => left_alone(outcome, layer.refusal.as_ref()),
        };
        Case::new("layer", name(&layer.layer, true), outcome)
    };
    layers.iter().map(case).collect()
}

/// A layer that keeps its statistics although nobody asked for it.
pub(super) fn kept(
    layer: &LayerName,
    outcome: Outcome,
    refusal: Option<&Refusal>,
) -> Option<Finding> {
    let refusal = refusal.filter(|_| outcome == Outcome::Kept)?;
    Some(Finding::of_node(
        Level::Notice,
        refusal.code,
        &layer.node,
        &layer.scope,
        &refusal.message,
    ))
}

/// Statistics before and after, layer by layer.
pub(super) fn changed_charts(layers: &[LayerChange]) -> Vec<Chart> {
    let changed: Vec<_> = layers
        .iter()
        .filter_map(|layer| Some((name(&layer.layer, true), layer.change.as_ref()?)))
        .collect();
    if changed.is_empty() {
        return Vec::new();
    }
    let root = |ends: &Extremes| {
        Span::ends(ends.min.max(0.0).sqrt(), ends.max.max(0.0).sqrt()).map(|span| Span {
            middle: Some(ends.median.max(0.0).sqrt()),
            ..span
        })
    };
    let ratio = |ends: &Extremes| {
        Span::ends(ends.min.exp(), ends.max.exp()).map(|span| Span {
            middle: Some(ends.median.exp()),
            ..span
        })
    };
    let both = || vec!["before", "after"];
    let layers = |spans: &dyn Fn(&bnkit::calibrate::Change) -> Vec<Option<Span>>| {
        changed
            .iter()
            .map(|(name, change)| LayerMarks {
                name: name.clone(),
                spans: spans(change),
            })
            .collect()
    };
    let chart = |title, what: &str, log, series, layers| {
        Chart::Layers(LayerChart {
            title,
            what: what.to_owned(),
            log,
            series,
            layers,
            limit: None,
        })
    };
    vec![
        chart(
            "Running mean",
            "Smallest to largest μ of the channels of each BatchNorm, and the median.",
            false,
            both(),
            layers(&|it| {
                vec![
                    Span::of_extremes(&it.mean_before),
                    Span::of_extremes(&it.mean_after),
                ]
            }),
        ),
        chart(
            "Running deviation",
            "Smallest to largest σ of the channels of each BatchNorm, and the median.",
            true,
            both(),
            layers(&|it| vec![root(&it.variance_before), root(&it.variance_after)]),
        ),
        chart(
            "Shift of the mean",
            "|Δμ|/√(σ²+ε) of the channels: how many stored deviations the mean moved.",
            true,
            vec!["shift"],
            layers(&|it| vec![Span::of_extremes(&it.mean_shift)]),
        ),
        chart(
            "Ratio of variances",
            "New over stored σ²+ε of the channels; 1 is no change.",
            true,
            vec!["ratio"],
            layers(&|it| vec![ratio(&it.log_variance_ratio)]),
        ),
    ]
}

pub(super) fn drift_findings(report: &ValidateReport) -> Vec<Finding> {
    let scope = |node: &str| {
        let mut layers = report.layers.iter();
        let layer = layers.find(|layer| layer.layer.node == node);
        layer.map_or("", |layer| layer.layer.scope.as_str())
    };
    let mut all: Vec<Finding> = Finding::errors(&report.errors, scope).collect();
    let drifted = report.layers.iter().filter(|layer| layer.drifted > 0);
    all.extend(drifted.map(|layer| {
        let LayerName { node, scope, .. } = &layer.layer;
        Finding::of_node(Level::Error, "drift", node, scope, &drift(layer))
    }));
    all.extend(Finding::warnings(&report.warnings));
    let layers = report.layers.iter();
    all.extend(
        layers.filter_map(|layer| kept(&layer.layer, layer.outcome, layer.refusal.as_ref())),
    );
    all
}

pub(super) fn drift_cases(report: &ValidateReport) -> Vec<Case> {
    let case = |layer: &LayerDrift| {
        let mut errors = report.errors.iter();
        let outcome = match errors.find(|error| error.node == layer.layer.node) {
            Some(error) => CaseOutcome::Failed(format!("{}: {}", error.code, error.message)),
            None if layer.outcome != Outcome::Updated => {
                left_alone(layer.outcome, layer.refusal.as_ref())
            }
            None if layer.drifted > 0 => CaseOutcome::Failed(drift(layer)),
            None => CaseOutcome::Passed(drift(layer)),
        };
        Case::new("layer", name(&layer.layer, true), outcome)
    };
    report.layers.iter().map(case).collect()
}

/// "3 of 64 channels drifted: |Δμ|/σ up to 0.4, …".
fn drift(layer: &LayerDrift) -> String {
    format!(
        "{} of {} channels drifted: |Δμ|/σ up to {}, |ln σ² ratio| up to {}, KL up to {}",
        layer.drifted,
        layer.layer.channels,
        short(layer.mean_drift.max),
        short(layer.var_drift.max),
        short(layer.kl.max)
    )
}

pub(super) fn drift_page(report: &ValidateReport) -> Page {
    let compared = |layer: &&LayerDrift| layer.outcome == Outcome::Updated;
    let compared: Vec<&LayerDrift> = report.layers.iter().filter(compared).collect();
    let chart = |title, what: &str, limit, ends: fn(&LayerDrift) -> &Extremes| {
        let layers = compared.iter().map(|layer| LayerMarks {
            name: name(&layer.layer, true),
            spans: vec![Span::of_extremes(ends(layer))],
        });
        Chart::Layers(LayerChart {
            title,
            what: what.to_owned(),
            log: true,
            series: vec![title],
            layers: layers.collect(),
            limit: Some((limit, "limit")),
        })
    };
    let limits = &report.limits;
    let charts = vec![
        chart(
            "Drift of the mean",
            "|Δμ|/√(σ²+ε) of the channels of each BatchNorm: smallest to largest, and the median.",
            limits.max_mean_drift,
            |it| &it.mean_drift,
        ),
        chart(
            "Drift of the variance",
            "|ln σ² ratio| of the channels, observed over stored.",
            limits.max_var_drift,
            |it| &it.var_drift,
        ),
        chart(
            "Divergence",
            "Symmetric KL divergence of the channels, stored against observed.",
            limits.max_kl,
            |it| &it.kl,
        ),
    ];
    Page {
        cards: vec![
            Card::new(
                "Drifted channels",
                format!("{} of {}", report.drifted_channels, report.channels),
                "",
            ),
            Card::new(
                "Drifted layers",
                format!("{} of {}", report.drifted_layers, compared.len()),
                "",
            ),
            Card::new("Samples", grouped(report.data.samples), &*report.data.path),
        ],
        charts: match compared.is_empty() {
            true => Vec::new(),
            false => charts,
        },
        ..Page::default()
    }
}
