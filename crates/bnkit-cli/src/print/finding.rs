//! What a result says of single places, once: annotations, SARIF and JUnit all follow from it.

use bnkit::report::{OutputComparison, Site, Verification, Warning};

use super::github::{Annotation, Level, by_code};
use super::units::sci;

/// Something to say about a place in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    /// The stable code; `bnkit explain` knows most of them.
    pub(crate) code: &'static str,
    /// The node, if it is about one.
    pub(crate) place: Option<Place>,
    pub(crate) message: String,
    /// Why it does not count, if somebody accepted it.
    pub(crate) accepted: Option<String>,
}

/// A node and the scope it stands in ("" is the main graph).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: String,
    pub(crate) scope: String,
}

impl Place {
    pub(crate) fn new(node: &str, scope: &str) -> Option<Self> {
        Some(Self {
            node: node.to_owned(),
            scope: scope.to_owned(),
        })
    }
}

impl Finding {
    /// About the model as a whole.
    pub(crate) fn of_model(level: Level, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            level,
            code,
            place: None,
            message: message.into(),
            accepted: None,
        }
    }

    /// About a node.
    pub(crate) fn of_node(
        level: Level,
        code: &'static str,
        node: &str,
        scope: &str,
        message: &str,
    ) -> Self {
        Self {
            level,
            code,
            place: Place::new(node, scope),
            message: message.to_owned(),
            accepted: None,
        }
    }

    /// The same, looked at and accepted for a reason.
    pub(crate) fn accepted(self, reason: String) -> Self {
        Self {
            accepted: Some(reason),
            ..self
        }
    }

    pub(crate) fn warnings(warnings: &[Warning]) -> impl Iterator<Item = Self> + '_ {
        let found = warnings.iter();
        found.map(|it| Self::of_model(Level::Warning, it.code, it.message.clone()))
    }

    /// Bad statistics, each in the scope that `scope` knows of its node.
    pub(crate) fn errors<'r>(
        errors: &'r [bnkit::report::Finding],
        scope: impl Fn(&str) -> &'r str,
    ) -> impl Iterator<Item = Self> {
        errors.iter().map(move |it| {
            let scope = scope(&it.node);
            Self::of_node(Level::Error, it.code, &it.node, scope, &it.message)
        })
    }

    /// The warnings of a BatchNorm.
    pub(crate) fn of_site(site: &Site) -> impl Iterator<Item = Self> + '_ {
        let warnings = site.warnings.iter();
        warnings.map(|it| {
            Self::of_node(
                Level::Warning,
                it.code,
                &site.node,
                &site.scope,
                &it.message,
            )
        })
    }
}

/// Findings as annotations: one for each code, the node in front of what is said of it.
pub(crate) fn annotations(file: &str, findings: &[Finding]) -> Vec<Annotation> {
    let mut all = Vec::new();
    for level in [Level::Error, Level::Warning, Level::Notice] {
        let of_level = findings
            .iter()
            .filter(|finding| finding.level == level && finding.accepted.is_none());
        let texts = of_level.map(|finding| {
            let text = match &finding.place {
                Some(place) => format!("{}: {}", place.node, finding.message),
                None => finding.message.clone(),
            };
            (finding.code, text)
        });
        all.extend(by_code(level, file, texts));
    }
    all
}

/// One thing that was looked at, as a test report has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    /// What kind of thing: "BatchNorm", "proof", "layer" …
    pub(crate) group: &'static str,
    /// Its name.
    pub(crate) name: String,
    pub(crate) outcome: CaseOutcome,
}

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CaseOutcome {
    /// As it should be, with a word on it ("" for none).
    Passed(String),
    /// Left alone, for this reason.
    Skipped(String),
    /// A reason for exit code 1. Counts as skipped if the answer is not "no" after all.
    Failed(String),
}

impl Case {
    pub(crate) fn new(group: &'static str, name: impl Into<String>, outcome: CaseOutcome) -> Self {
        Self {
            group,
            name: name.into(),
            outcome,
        }
    }
}

/// A case for each output that a proof compared, and for each level before that.
pub(crate) fn proof_cases(proof: &Verification) -> Vec<Case> {
    let mut cases = Vec::new();
    if let Some(algebra) = &proof.algebra {
        let text = format!(
            "{} folds recomputed, at most {} ulp apart",
            algebra.checked, algebra.max_ulp
        );
        cases.push(Case::new("proof", "constants", CaseOutcome::Passed(text)));
    }
    if let Some(f64) = &proof.f64 {
        let text = format!("largest relative difference {}", sci(f64.max_rel));
        cases.push(Case::new("proof", "in f64", CaseOutcome::Passed(text)));
    }
    for output in &proof.outputs {
        let text = difference(output);
        let outcome = match output.within {
            true => CaseOutcome::Passed(text),
            false => CaseOutcome::Failed(text),
        };
        cases.push(Case::new(
            "proof",
            format!("output {:?}", output.name),
            outcome,
        ));
    }
    cases
}

/// "max |Δ| 1.2e-2, accepted 1.5e-5".
pub(crate) fn difference(output: &OutputComparison) -> String {
    let (found, accepted) = (sci(output.max_abs), sci(output.tolerance));
    format!("max |Δ| {found}, accepted {accepted}")
}

/// Outputs that differ, and notes of a proof.
pub(crate) fn proof_findings(proof: &Verification) -> impl Iterator<Item = Finding> + '_ {
    let wrong = proof.outputs.iter().filter(|output| !output.within);
    wrong.map(|output| {
        let text = format!("output {:?}: {}", output.name, difference(output));
        Finding::of_model(Level::Error, "not-equivalent", text)
    })
}
