//! How often a classifier is right, in words and as a plot-free table.

use bnkit::accuracy::{Accuracy, AccuracyReport, AccuracyStage};

use super::finding::{Case, CaseOutcome};
use super::page::Card;
use super::table::Table;
use super::units::grouped;

/// "97.22 %".
pub(super) fn per_cent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// "top-1 97.22 %, top-5 99.90 % of 360 samples".
pub(super) fn sentence(accuracy: &Accuracy) -> String {
    format!(
        "{} of {} samples",
        shares(accuracy),
        grouped(accuracy.samples)
    )
}

fn shares(accuracy: &Accuracy) -> String {
    let top1 = per_cent(accuracy.top1_share());
    match accuracy.top5_share() {
        Some(top5) => format!("top-1 {top1}, top-5 {}", per_cent(top5)),
        None => format!("top-1 {top1}"),
    }
}

/// "top-1 stored 11.39 % → recalibrated 99.44 % (360 samples)".
pub(super) fn stages(stages: &[AccuracyStage]) -> String {
    let one = |it: &AccuracyStage| format!("{} {}", it.stage, per_cent(it.accuracy.top1_share()));
    let all: Vec<String> = stages.iter().map(one).collect();
    let samples = stages.first().map_or(0, |first| first.accuracy.samples);
    match all.is_empty() {
        true => String::new(),
        false => format!("top-1 {} ({} samples)", all.join(" → "), grouped(samples)),
    }
}

/// A row for each stage.
pub(super) fn table(stages: &[AccuracyStage]) -> Table {
    let mut table = Table::new(&["network", "top-1", "top-5", "samples", "output"]);
    for AccuracyStage { stage, accuracy } in stages {
        table.row([
            (*stage).to_owned(),
            per_cent(accuracy.top1_share()),
            accuracy.top5_share().map(per_cent).unwrap_or_default(),
            grouped(accuracy.samples),
            format!("`{}`", accuracy.output),
        ]);
    }
    table
}

/// The last stage, and from where it came.
pub(super) fn card(report: &AccuracyReport) -> Option<Card> {
    let (first, last) = (report.stages.first()?, report.stages.last()?);
    let note = match report.stages.len() {
        1 => first.stage.to_owned(),
        _ => format!("{} → {}", per_cent(first.accuracy.top1_share()), last.stage),
    };
    let value = per_cent(last.accuracy.top1_share());
    Some(Card::new("Accuracy (top-1)", value, note))
}

/// The gate on a drop.
pub(super) fn case(report: &AccuracyReport) -> Case {
    let outcome = match report.failure() {
        Some(failure) => CaseOutcome::Failed(failure),
        None => CaseOutcome::Passed(stages(&report.stages)),
    };
    Case::new("accuracy", "top-1", outcome)
}
