//! `inspect` in findings, cases and plots.

use bnkit::report::{InspectReport, Site};

use crate::print::finding::{Case, CaseOutcome, Finding};
use crate::print::fold::page::{grid, profiles};
use crate::print::fold::{place, places};
use crate::print::github::Level;
use crate::print::page::{Card, Page};
use crate::print::units::{bytes, grouped};

pub(super) fn findings(report: &InspectReport) -> Vec<Finding> {
    let norms = || report.batch_norms.iter();
    let errors = norms().flat_map(|norm| {
        let scope = &norm.site.scope;
        let errors = norm.errors.iter();
        errors.map(|it| Finding::of_node(Level::Error, it.code, &it.node, scope, &it.message))
    });
    let warnings = norms().flat_map(|norm| Finding::of_site(&norm.site));
    let kept = norms().filter_map(|norm| places::kept(&norm.site));
    errors.chain(warnings).chain(kept).collect()
}

pub(super) fn cases(report: &InspectReport) -> Vec<Case> {
    let norms = report.batch_norms.iter();
    let case = norms.map(|norm| {
        let outcome = match norm.errors.first() {
            // Looking at a model is never a "no": the case ends as skipped.
            Some(error) => CaseOutcome::Failed(format!("{}: {}", error.code, error.message)),
            None => places::outcome(&norm.site),
        };
        Case::new("BatchNorm", place(&norm.site), outcome)
    });
    case.collect()
}

pub(super) fn page(report: &InspectReport) -> Page {
    let sites: Vec<&Site> = report.batch_norms.iter().map(|norm| &norm.site).collect();
    Page {
        cards: vec![
            Card::new("BatchNorms", sites.len().to_string(), ""),
            Card::new("Nodes", report.nodes.to_string(), ""),
            Card::new(
                "Parameters",
                grouped(report.parameters),
                bytes(report.parameter_bytes),
            ),
        ],
        charts: profiles(&report.profiles),
        grid: grid(&sites, &report.profiles),
        replaced: &[],
    }
}
