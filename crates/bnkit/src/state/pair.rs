//! `pair`: propose which layer feeds which BatchNorm, for people to look at.

use std::path::PathBuf;

use bnkit_model::safetensors::StateDict;
use serde::Serialize;

use super::entries;
use super::folding::overruled;
use super::pairing::{self, PresetChoice};
use super::report::{PairReport, describe_input, report_pair};
use crate::calibrate::files;
use crate::report::{InputFile, Tool};
use crate::{Error, Result};

/// A `pair` to do.
#[derive(Debug, Clone)]
pub struct PairJob {
    /// The checkpoint to read.
    pub input: PathBuf,
    /// The pairing file to write; `None` only reports.
    pub output: Option<PathBuf>,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// The naming scheme; `None` takes the one that is recognised.
    pub preset: Option<String>,
    /// ε of the pairs that the scheme says nothing of.
    pub epsilon: Option<f64>,
}

impl PairJob {
    /// Proposes pairs for `input`; nothing is written.
    pub fn new(input: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            output: None,
            force: false,
            preset: None,
            epsilon: None,
        }
    }
}

/// What was proposed: schema `bnkit.pair/1`.
#[derive(Debug, Clone, Serialize)]
pub struct PairingReport {
    /// "bnkit.pair/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The naming scheme that was recognised or asked for.
    pub preset: Option<&'static str>,
    /// What was recognised, by what, and what is not known.
    pub notes: Vec<String>,
    /// The pairs, in the order of the BatchNorms in the file.
    pub pairs: Vec<PairReport>,
    /// BatchNorms that no layer was found for.
    pub left: Vec<LeftReport>,
    /// The pairing file, as text.
    pub yaml: String,
    /// Where it was written.
    pub written: Option<String>,
}

/// A BatchNorm that no layer was found for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftReport {
    /// Its module.
    pub batch_norm: String,
    /// Why it stays.
    pub reason: String,
}

/// Proposes pairs, and writes them to a pairing file if one is named.
///
/// # Errors
/// If the checkpoint cannot be read, the scheme is not known, or the file cannot be written.
pub fn pair(job: &PairJob) -> Result<PairingReport> {
    if let Some(output) = &job.output {
        files::check_free(output, job.force)?;
    }
    if job
        .epsilon
        .is_some_and(|epsilon| !(epsilon.is_finite() && epsilon >= 0.0))
    {
        return Err(Error::Request(
            "--eps: epsilon is a number that is not negative".to_owned(),
        ));
    }
    let dict = StateDict::open(&job.input)?;
    let choice = job
        .preset
        .as_deref()
        .map_or(PresetChoice::Auto, PresetChoice::Named);
    let pairing = overruled(pairing::propose(&entries(&dict), choice)?, job.epsilon);
    let yaml = pairing::to_yaml(&pairing);
    let mut report = PairingReport {
        schema: "bnkit.pair/1",
        tool: Tool::default(),
        input: describe_input(&dict, &job.input),
        preset: pairing.preset,
        notes: pairing.notes.clone(),
        pairs: pairing.pairs.iter().map(report_pair).collect(),
        left: pairing
            .left
            .iter()
            .map(|left| LeftReport {
                batch_norm: left.batch_norm.module.clone(),
                reason: left.reason.clone(),
            })
            .collect(),
        yaml,
        written: None,
    };
    if let Some(output) = &job.output {
        files::write(output, job.force, report.yaml.as_bytes())?;
        report.written = Some(output.display().to_string());
    }
    Ok(report)
}
