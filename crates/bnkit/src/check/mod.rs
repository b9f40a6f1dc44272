//! `check`: is a checkpoint healthy enough to be shipped? Rules look at it, each finding has a stable code and a level, and the
//! answer is "no" if any finding is an error.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `rules/` | what is looked for: one rule, one file, one line in its table |
//! | `subject`, `graph`, `range` | what rules look at: the BatchNorms of any format; a graph and its plan; weights before and after |
//! | `found` | what a rule says |
//! | `levels`, `suppress` | what a team makes of it: levels by code, exceptions with a reason |
//! | `report` | the outcome |
//!
//! ```
//! use bnkit::check::{CheckJob, Level, check};
//! use bnkit::pipeline::Quiet;
//!
//! # fn main() -> bnkit::Result<()> {
//! let mut job = CheckJob::new("../../testdata/models/tiny_resnet.onnx");
//! job.options.levels.set("not-folded", Level::Error)?;
//! let report = check(&job, &Quiet)?;
//! assert_eq!(report.failure, None);
//! # Ok(())
//! # }
//! ```

mod found;
mod graph;
mod levels;
mod range;
mod report;
mod rules;
mod subject;
mod suppress;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use found::Channels;
pub use levels::{Level, Levels};
pub use report::{CheckFormat, CheckReport, CheckSummary, CheckedRule, Finding, Suppressed};
pub use rules::{RuleInfo, rules};
pub use suppress::Suppression;

use crate::explain::Explanation;
use crate::fold::Options;
use crate::pipeline::{Phase, Progress};
use crate::{Result, hash};
use found::Found;
use rules::{RULES, Rule};
use subject::Subject;
use suppress::Suppressions;

/// A `check` to do.
#[derive(Debug, Clone, Default)]
pub struct CheckJob {
    /// The checkpoint to read: an ONNX model, a safetensors file, or the index of a sharded one.
    pub input: PathBuf,
    /// Whether the hash of the file is wanted in the report.
    pub hash: bool,
    /// What is looked at, and what is made of it.
    pub options: CheckOptions,
}

impl CheckJob {
    /// Checks `input` with all defaults.
    pub fn new(input: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            ..Self::default()
        }
    }
}

/// What is looked at, and what is made of it.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// The levels of rules that are not to have their own.
    pub levels: Levels,
    /// Findings that somebody looked at and accepted.
    pub suppressions: Vec<Suppression>,
    /// ε of the BatchNorms of a state dict, which does not hold it; `None` is the framework's usual one.
    pub epsilon: Option<f64>,
    /// How the model is going to be folded: rules about folding plan with these options.
    pub fold: Options,
}

/// The explanations of the codes that only `check` has.
pub(crate) fn explanations() -> impl Iterator<Item = Explanation> {
    let of_rules = RULES.iter().filter_map(|rule| rule.explanation);
    of_rules.chain([suppress::EXPLANATION])
}

/// Looks at a checkpoint with every rule that is not allowed.
///
/// # Errors
/// If it cannot be read, is broken in a way that no rule speaks of (shapes that do not fit together), or an option names an unknown
/// code or a malformed glob.
pub fn check(job: &CheckJob, progress: &dyn Progress) -> Result<CheckReport> {
    let mut suppressions = Suppressions::new(&job.options.suppressions)?;
    progress.begin(Phase::Reading, None);
    let subject = Subject::open(&job.input, &job.options, progress)?;
    let mut report = subject.report(&job.input);
    if job.hash {
        report.input.sha256 = Some(hash::of_file(&job.input)?);
    }
    for rule in &RULES {
        let level = job.options.levels.of(rule.code, rule.level);
        let checked = level != Level::Allow && rule.needs.are_met(&subject);
        let mut count = 0;
        if checked {
            let found = (rule.look)(&subject).map_err(|error| error.in_file(&job.input))?;
            count = found.len();
            for found in found {
                sort(&mut report, &mut suppressions, rule, level, found);
            }
        } else {
            suppressions.not_asked(rule.code);
        }
        report.rules.push(CheckedRule {
            code: rule.code,
            level,
            checked,
            findings: count,
        });
    }
    let level = job.options.levels.of(suppress::CODE, suppress::LEVEL);
    if level != Level::Allow {
        report.findings.extend(suppressions.unused(level));
    }
    report.conclude();
    Ok(report)
}

/// Puts what was found where it belongs.
fn sort(
    report: &mut CheckReport,
    suppressions: &mut Suppressions<'_>,
    rule: &Rule,
    level: Level,
    found: Found,
) {
    let finding = found.into_finding(rule.code, level, rule.action);
    match suppressions.reason(rule.code, &finding.node) {
        Some(reason) => report.suppressed.push(Suppressed { finding, reason }),
        None => report.findings.push(finding),
    }
}
