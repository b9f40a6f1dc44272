//! The way back: `fold --keep-stats` writes down what a fold takes away, and `unfold` brings it back, so that a folded
//! model can be recalibrated.
//!
//! The restored model has the BatchNorms of the original, in eval mode, with their names, parameters, epsilon and
//! momentum; Mul, Add, Sub and Div nodes that went the same way; and the weights, from the folded ones by division. A
//! weight that was multiplied is rounded twice, so it is within two units in the last place of what it was; biases,
//! and channels that were multiplied by 0, are the original's. What the clean-up removed (Dropout, Identity, training
//! mode) stays removed.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `record` | the file: what is written down, and how |
//! | `keep` | finding what was taken away |
//! | `scaled` | weights that division gives back |
//! | `restore` | bringing it back: nodes and wiring |
//! | `sound` | what a file from anywhere may ask for |
//! | `constants` | the same for constants |

use std::path::{Path, PathBuf};

use bnkit_model::onnx::{Edit, Model, SaveOptions};
use serde::Serialize;

use crate::pipeline::{Phase, Progress, describe_input};
use crate::report::{InputFile, OutputFile, Tool, Verdict, Verification};
use crate::verify::{self, VerifyOptions};
use crate::{Error, Result, hash};

mod constants;
mod keep;
mod record;
mod restore;
mod scaled;
mod sound;
#[cfg(test)]
mod tests;

pub(crate) use keep::kept;

/// An `unfold` to do.
#[derive(Debug, Clone)]
pub struct UnfoldJob {
    /// The folded model.
    pub input: PathBuf,
    /// What `fold --keep-stats` wrote.
    pub stats: PathBuf,
    /// The model to write.
    pub output: PathBuf,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// How equality with the folded model is proved; `None` skips the proof.
    pub verify: Option<VerifyOptions>,
}

impl UnfoldJob {
    /// Brings the BatchNorms that `stats` keeps back into `input`, proves the result equal and writes it to `output`.
    pub fn new(
        input: impl Into<PathBuf>,
        stats: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        Self {
            input: input.into(),
            stats: stats.into(),
            output: output.into(),
            force: false,
            hash: false,
            verify: Some(VerifyOptions::default()),
        }
    }
}

/// A BatchNorm that is back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Restored {
    /// The node's name (or that of its output).
    pub node: String,
    /// Its scope.
    pub scope: String,
    /// What the fold had made of it.
    pub decision: String,
    /// The nodes that had absorbed it.
    pub from: Vec<String>,
}

/// The outcome of `unfold`: schema `bnkit.unfolded/1`.
#[derive(Debug, Clone, Serialize)]
pub struct UnfoldReport {
    /// "bnkit.unfolded/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// The folded model.
    pub input: InputFile,
    /// The file of statistics.
    pub stats: String,
    /// Every BatchNorm that is back.
    pub batch_norms: Vec<Restored>,
    /// How equal the result is to the folded model.
    pub verification: Verification,
    /// What was written. `None` if nothing was.
    pub output: Option<OutputFile>,
    /// Why the answer is "no" (exit code 1, nothing written).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Brings the BatchNorms of a folded model back into it.
///
/// # Errors
/// If a file cannot be read or does not fit: naming the node that is missing, or the tensor that has been changed.
pub fn restore(model: &Model, stats: &Path) -> Result<(Model, Vec<Restored>)> {
    let (record, tensors) = record::read(stats)?;
    let mut unfolded = model.clone();
    restore::restore(&mut unfolded, &record, &tensors)?;
    let was_folded = |norm: &&record::Norm| norm.decision == "folded";
    let count = record.batch_norms.iter().filter(was_folded).count();
    let entry = model
        .metadata()
        .iter()
        .find(|(key, _)| key == "bnkit.folded");
    if let Some(folded) = entry.and_then(|(_, count)| count.parse::<usize>().ok()) {
        unfolded.apply(&[Edit::SetMetadata {
            key: "bnkit.folded".to_owned(),
            value: folded.saturating_sub(count).to_string(),
        }])?;
    }
    let restored = record.batch_norms.into_iter().map(|norm| Restored {
        node: norm.node,
        scope: norm.scope,
        decision: norm.decision,
        from: norm.into,
    });
    Ok((unfolded, restored.collect()))
}

/// Unfolds a model. The report's `failure` tells whether the answer is "no": then nothing was written.
///
/// # Errors
/// As [`restore`], or if the output cannot be written.
pub fn unfold(job: &UnfoldJob, progress: &dyn Progress) -> Result<UnfoldReport> {
    if !job.force && job.output.exists() {
        return Err(Error::Request(format!(
            "{}: exists already; --force replaces it",
            job.output.display()
        )));
    }
    progress.begin(Phase::Reading, None);
    let model = Model::open(&job.input)?;
    let (unfolded, batch_norms) = restore(&model, &job.stats).map_err(|error| match error {
        Error::Request(why) => Error::Request(format!("{}: {why}", job.input.display())),
        other => other,
    })?;
    let verification = match &job.verify {
        None => Verification::skipped(),
        Some(options) => {
            progress.begin(Phase::Proving, None);
            verify::compare(&model, &unfolded, options)?
        }
    };
    let mut report = UnfoldReport {
        schema: "bnkit.unfolded/1",
        tool: Tool::default(),
        input: describe_input(&model, &job.input),
        stats: job.stats.display().to_string(),
        batch_norms,
        failure: (verification.verdict == Verdict::NotEquivalent)
            .then(|| "the unfolded model is not equivalent to the folded one".to_owned()),
        verification,
        output: None,
    };
    if job.hash {
        report.input.sha256 = Some(hash::of_file(&job.input)?);
    }
    if report.failure.is_none() {
        progress.begin(Phase::Writing, Some(report.input.bytes));
        let told = |done: u64, _: u64| progress.advance(done);
        let options = SaveOptions {
            force: job.force,
            progress: Some(&told),
        };
        let saved = unfolded.save(&job.output, options)?;
        report.output = Some(OutputFile {
            path: job.output.display().to_string(),
            sha256: job.hash.then(|| hash::of_file(&job.output)).transpose()?,
            bytes: saved.bytes,
            data: saved.data_file.map(|path| path.display().to_string()),
        });
    }
    Ok(report)
}
