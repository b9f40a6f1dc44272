//! The outcome of `check`: schema `bnkit.check/1`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Channels, Level};
use crate::report::{Evidence, InputFile, Tool};

/// The outcome of `check`: schema `bnkit.check/1`.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// "bnkit.check/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// What kind of checkpoint it is.
    pub format: CheckFormat,
    /// For a state dict with BatchNorms, which does not hold ε: what was taken for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assumed_epsilon: Option<f64>,
    /// How many BatchNorms it has, those included whose parameters are not known.
    pub batch_norms: usize,
    /// How many channels these have, as far as known.
    pub channels: usize,
    /// The numbers.
    pub summary: CheckSummary,
    /// What was found: errors first, then in the order of the rules, then of the graph.
    pub findings: Vec<Finding>,
    /// What was found and is accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suppressed: Vec<Suppressed>,
    /// Every rule and what became of it, in the order in which they are asked.
    pub rules: Vec<CheckedRule>,
    /// Why the answer is "no" (exit code 1), in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What kind of checkpoint was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckFormat {
    /// An ONNX model.
    Onnx,
    /// A safetensors file.
    Safetensors,
    /// A checkpoint of several safetensors files with an index.
    SafetensorsIndex,
}

/// How much was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CheckSummary {
    /// Findings that make the answer "no".
    pub errors: usize,
    /// Findings that are worth a look.
    pub warnings: usize,
    /// Findings that are worth knowing.
    pub notes: usize,
    /// Findings that are accepted, of whatever level.
    pub suppressed: usize,
}

/// Something that a rule found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The stable code of the rule; `bnkit explain CODE` says more.
    pub code: &'static str,
    /// How serious it is here.
    pub level: Level,
    /// The node (of a state dict: the module); "" if it is about the model as a whole.
    pub node: String,
    /// The tensor, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensor: Option<String>,
    /// The channels, if it is about some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    /// What was seen, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub numbers: BTreeMap<&'static str, Evidence>,
    /// One sentence about what was seen.
    pub message: String,
    /// One sentence about what to do.
    pub action: &'static str,
}

/// A finding that is accepted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suppressed {
    /// The finding.
    #[serde(flatten)]
    pub finding: Finding,
    /// Why it is accepted.
    pub reason: String,
}

/// A rule and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CheckedRule {
    /// Its code.
    pub code: &'static str,
    /// Its level here.
    pub level: Level,
    /// Whether it was asked: not if it is allowed, or needs something that this checkpoint does not have (a graph, ε, readable data).
    pub checked: bool,
    /// How many findings it has, accepted ones included.
    pub findings: usize,
}

impl CheckReport {
    /// Orders the findings, counts them, and answers.
    pub(super) fn conclude(&mut self) {
        self.findings
            .sort_by_key(|finding| std::cmp::Reverse(finding.level));
        let count = |level| self.findings.iter().filter(|it| it.level == level).count();
        self.summary = CheckSummary {
            errors: count(Level::Error),
            warnings: count(Level::Warning),
            notes: count(Level::Note),
            suppressed: self.suppressed.len(),
        };
        let mut codes: Vec<&str> = Vec::new();
        for finding in self.findings.iter().filter(|it| it.level == Level::Error) {
            if !codes.contains(&finding.code) {
                codes.push(finding.code);
            }
        }
        self.failure = (!codes.is_empty()).then(|| {
            let errors = self.summary.errors;
            let plural = if errors == 1 { "" } else { "s" };
            format!("{errors} error{plural}: {}", codes.join(", "))
        });
    }
}
