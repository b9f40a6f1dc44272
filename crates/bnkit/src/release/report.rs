//! The outcome of a release: schema `bnkit.release/1`.

use serde::Serialize;

use crate::accuracy::AccuracyReport;
use crate::calibrate::{RecalibrateReport, ValidateReport};
use crate::check::CheckReport;
use crate::report::{FoldReport, InputFile, OutputFile, Tool, Verdict, Verification};

/// The outcome of a release: schema `bnkit.release/1`.
#[derive(Debug, Clone, Serialize)]
pub struct ReleaseReport {
    /// "bnkit.release/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// What was written; `None` if a stage failed.
    pub output: Option<OutputFile>,
    /// Why the answer is "no" (exit code 1, nothing written), in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What became of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nothing to object to.
    Passed,
    /// Its answer is "no".
    Failed,
    /// It did not run, for the reason in its note.
    Skipped,
}

/// One stage.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// "check", "validate" or "recalibrate", "fold", "verify", "accuracy".
    pub name: &'static str,
    /// What became of it.
    pub status: Status,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The command that does the same alone, if the job knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What it reports; `null` if it did not run, or if the stage before it says it (a proof is part of the fold).
    pub report: Option<StageReport>,
}

/// What a stage reports: the report of its own command.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum StageReport {
    /// Of `check`.
    Check(Box<CheckReport>),
    /// Of `validate`.
    Validate(Box<ValidateReport>),
    /// Of `recalibrate`.
    Recalibrate(Box<RecalibrateReport>),
    /// Of `fold`, with the proof.
    Fold(Box<FoldReport>),
    /// Top-1 and top-5 of the network at each stage.
    Accuracy(AccuracyReport),
}

impl Stage {
    /// A stage that ran.
    pub(super) fn ran(
        name: &'static str,
        failure: Option<String>,
        command: Option<&String>,
        report: Option<StageReport>,
    ) -> Self {
        Self {
            name,
            status: match failure {
                Some(_) => Status::Failed,
                None => Status::Passed,
            },
            failure,
            note: None,
            command: command.cloned(),
            report,
        }
    }

    /// A stage that did not run.
    pub(super) fn skipped(name: &'static str, note: &str) -> Self {
        Self {
            name,
            status: Status::Skipped,
            failure: None,
            note: Some(note.to_owned()),
            command: None,
            report: None,
        }
    }
}

impl ReleaseReport {
    /// The fold, if it ran.
    pub fn fold(&self) -> Option<&FoldReport> {
        self.stages.iter().find_map(|stage| match &stage.report {
            Some(StageReport::Fold(report)) => Some(report.as_ref()),
            _ => None,
        })
    }

    /// The proof, if there is one.
    pub fn verification(&self) -> Option<&Verification> {
        self.fold()?.verification.as_ref()
    }

    /// The verdict of the proof, if there is one.
    pub fn verdict(&self) -> Option<Verdict> {
        Some(self.verification()?.verdict)
    }

    /// The accuracies, if there were labels.
    pub fn accuracy(&self) -> Option<&AccuracyReport> {
        self.stages.iter().find_map(|stage| match &stage.report {
            Some(StageReport::Accuracy(report)) => Some(report),
            _ => None,
        })
    }

    /// Answers: "no" if any stage failed.
    pub(super) fn conclude(&mut self) {
        let failed: Vec<String> = self
            .stages
            .iter()
            .filter_map(|stage| Some(format!("{}: {}", stage.name, stage.failure.as_ref()?)))
            .collect();
        self.failure = (!failed.is_empty()).then(|| failed.join("; "));
    }
}
