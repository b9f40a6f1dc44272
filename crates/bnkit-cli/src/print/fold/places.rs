//! What `fold` says of each BatchNorm: findings for annotations and SARIF, cases for JUnit.

use bnkit::report::{Decision, FoldReport, Site};

use super::place;
use crate::print::finding::{Case, CaseOutcome, Finding, proof_cases, proof_findings};
use crate::print::github::Level;

pub(crate) fn findings(report: &FoldReport) -> Vec<Finding> {
    let scope = |node: &str| {
        let mut sites = report.sites.iter();
        let site = sites.find(|site| site.node == node);
        site.map_or("", |site| site.scope.as_str())
    };
    let mut all: Vec<Finding> = Finding::errors(&report.errors, scope).collect();
    if let Some(proof) = &report.verification {
        all.extend(proof_findings(proof));
    }
    if let Some(failure) = &report.failure {
        all.push(Finding::of_model(
            Level::Error,
            "fold-failed",
            failure.clone(),
        ));
    }
    all.extend(Finding::warnings(&report.warnings));
    all.extend(report.sites.iter().flat_map(Finding::of_site));
    all.extend(report.sites.iter().filter_map(kept));
    all
}

/// A BatchNorm that stays although nobody asked for it.
pub(crate) fn kept(site: &Site) -> Option<Finding> {
    if site.decision != Decision::Kept {
        return None;
    }
    let (code, why) = match &site.refusal {
        Some(refusal) => (refusal.code, refusal.message.as_str()),
        None => ("kept", ""),
    };
    Some(Finding::of_node(
        Level::Notice,
        code,
        &site.node,
        &site.scope,
        why,
    ))
}

pub(crate) fn cases(report: &FoldReport) -> Vec<Case> {
    let culprit = report
        .verification
        .as_ref()
        .and_then(|proof| proof.culprit.as_deref());
    let mut cases: Vec<Case> = report
        .sites
        .iter()
        .map(|site| {
            let wrong = report.errors.iter().find(|error| error.node == site.node);
            let outcome = match wrong {
                Some(error) => CaseOutcome::Failed(format!("{}: {}", error.code, error.message)),
                None if culprit == Some(site.node.as_str()) => {
                    CaseOutcome::Failed("without this fold the models agree".to_owned())
                }
                None => outcome(site),
            };
            Case::new("BatchNorm", place(site), outcome)
        })
        .collect();
    if let Some(proof) = &report.verification {
        cases.extend(proof_cases(proof));
    }
    cases
}

/// What became of a BatchNorm: one that stays is skipped, with the reason.
pub(crate) fn outcome(site: &Site) -> CaseOutcome {
    match (site.decision, &site.refusal) {
        (Decision::Skipped, _) => CaseOutcome::Skipped("as asked".to_owned()),
        (Decision::Kept, Some(refusal)) => {
            CaseOutcome::Skipped(format!("{}: {}", refusal.code, refusal.message))
        }
        (Decision::Kept, None) => CaseOutcome::Skipped("kept".to_owned()),
        _ => CaseOutcome::Passed(match site.into.as_slice() {
            [] => site.rule.unwrap_or_default().to_owned(),
            into => format!("{} {}", site.rule.unwrap_or("into"), into.join(", ")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn a_batch_norm_that_stays_is_skipped_with_the_reason() {
        let cases = cases(&samples::fold());
        let of = |name: &str| cases.iter().find(|case| case.name == name).unwrap();
        assert_eq!(
            of("/norm/BatchNormalization").outcome,
            CaseOutcome::Skipped("shared-output: the value \"x\" is read by 2 nodes".to_owned())
        );
        assert_eq!(
            of("/fc/BatchNormalization").outcome,
            CaseOutcome::Passed("into-gemm /fc/Gemm".to_owned())
        );
        assert_eq!(cases.len(), 4 + 3);
    }

    #[test]
    fn the_culprit_and_the_output_fail() {
        let mut report = samples::fold();
        report.verification = Some(samples::different());
        let failed: Vec<String> = cases(&report)
            .into_iter()
            .filter(|case| matches!(case.outcome, CaseOutcome::Failed(_)))
            .map(|case| case.name)
            .collect();
        assert_eq!(failed, ["/conv1/BatchNormalization", "output \"logits\""]);
    }
}
