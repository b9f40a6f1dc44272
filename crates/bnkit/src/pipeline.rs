//! The jobs of the command line as functions: open, plan, prove, write, report, in this order.

use std::path::PathBuf;

use crate::Result;
use crate::report::{FoldReport, InspectReport, VerifyReport};

/// A stage of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the structure of the model.
    Reading,
    /// Planning the folds (reads the tensors that change).
    Planning,
    /// Proving that the result is equal.
    Proving,
    /// Writing the output.
    Writing,
}

/// Told how far a job is. Called from one thread at a time.
pub trait Progress: Sync {
    /// A stage begins; `total` units (bytes or steps) are to be done, if known.
    fn begin(&self, phase: Phase, total: Option<u64>);
    /// `done` units of the current stage are done.
    fn advance(&self, done: u64);
}

/// No progress is shown.
#[derive(Debug, Default, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: Phase, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
}

/// What may be folded.
#[derive(Debug, Clone, Default)]
pub struct FoldOptions {
    /// Only BatchNorms whose node name matches one of these globs; all if empty.
    pub only: Vec<String>,
    /// No BatchNorms whose node name matches one of these globs.
    pub skip: Vec<String>,
    /// Treat initializers that are graph inputs too (IR version 4 and later) as constants.
    pub assume_constant: bool,
    /// Keep BatchNorms with bad statistics instead of failing.
    pub allow_bad_statistics: bool,
    /// Put the input's SHA-256 and the verdict into the output's metadata.
    pub provenance: bool,
}

/// How equality is proved.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Calibration inputs (`.npy`, `.npz`, `.pb`, `.safetensors`, or a folder); random ones if `None`.
    pub data: Option<PathBuf>,
    /// Sizes of inputs, by name.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// How many samples are run.
    pub samples: usize,
    /// The seed of random inputs.
    pub seed: u64,
    /// Absolute tolerance instead of the derived one.
    pub atol: Option<f64>,
    /// Relative tolerance (to the output's range) instead of the derived one.
    pub rtol: Option<f64>,
    /// How many times the noise floor is accepted.
    pub tolerance_factor: f64,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            data: None,
            shapes: Vec::new(),
            samples: 4,
            seed: 0,
            atol: None,
            rtol: None,
            tolerance_factor: 8.0,
        }
    }
}

/// A `fold` to do.
#[derive(Debug, Clone)]
pub struct FoldJob {
    /// The model to read.
    pub input: PathBuf,
    /// The model to write; `None` plans only.
    pub output: Option<PathBuf>,
    /// Whether an existing output may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// What may be folded.
    pub fold: FoldOptions,
    /// How equality is proved; `None` skips the proof.
    pub verify: Option<VerifyOptions>,
    /// Only the verdict `equivalent` is good enough; `equivalent-local` writes nothing.
    pub require_end_to_end: bool,
    /// A kept (not skipped) BatchNorm is a failure: nothing is written.
    pub require_all_folded: bool,
}

/// Folds a model. The report says everything; [`FoldReport::failure`] tells whether the answer is "no" (exit code 1):
/// then nothing was written.
///
/// # Errors
/// If the model cannot be read or the output cannot be written.
pub fn fold(_job: &FoldJob, _progress: &dyn Progress) -> Result<FoldReport> {
    Err(crate::Error::Request("stub".to_owned()))
}

/// Says what is in a model, and what `fold` would do with it.
///
/// # Errors
/// If the model cannot be read.
pub fn inspect(_model: &std::path::Path, _options: &FoldOptions) -> Result<InspectReport> {
    Err(crate::Error::Request("stub".to_owned()))
}

/// Compares two models by running both. `Err` also when the engine cannot run one of them.
///
/// # Errors
/// If a model cannot be read or run.
pub fn verify(
    _a: &std::path::Path,
    _b: &std::path::Path,
    _options: &VerifyOptions,
    _hash: bool,
    _progress: &dyn Progress,
) -> Result<VerifyReport> {
    Err(crate::Error::Request("stub".to_owned()))
}
