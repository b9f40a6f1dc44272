//! The calibration jobs of the command line as functions: each takes a job (what to do) and gives a report (what happened).
//!
//! A "no" (drift over the limit, a fold that failed its proof) is in the report's `failure`; what could not be done at all is an error,
//! and so is a job that was interrupted, unless it leaves a partial file.
//!
//! Here is what there is to do; one file each says how it is done.

mod batchwise;
mod conclude;
mod deliver;
mod merge;
mod recalibrate;
mod recalibrator;
mod run;
mod stats;
mod validate;

use std::path::PathBuf;

use super::options::{
    DataOptions, DriftLimits, Interrupt, MethodOptions, Selection, Shard, Stability,
};
use crate::fold;
use crate::verify::VerifyOptions;

pub use batchwise::{recalibrate_batches, validate_batches};
pub use merge::merge;
pub use recalibrate::recalibrate;
pub(crate) use recalibrate::{in_model, open as open_batches};
pub use recalibrator::Recalibrator;
pub use run::run;
pub(crate) use stats::layers as stats_layers;
pub use stats::{LayerParameters, parameters, stats};
pub use validate::validate;

/// Where new statistics come from.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in a job, and a box would be in every caller's way"
)]
pub enum Source {
    /// From running data.
    Data(DataOptions),
    /// From a file that `stats` wrote: `.safetensors` or `.npz`, names as in the model.
    Stats(PathBuf),
    /// From batches that somebody hands over one after the other: for [`recalibrate_batches`] and [`Recalibrator`].
    Batches,
}

/// The fold that follows a recalibration.
#[derive(Debug, Clone)]
pub struct FoldAfter {
    /// What may be folded.
    pub fold: fold::Options,
    /// How equality is proved; `None` skips the proof.
    pub verify: Option<VerifyOptions>,
    /// Only the verdict `equivalent` is good enough.
    pub require_end_to_end: bool,
    /// A kept (not skipped) BatchNorm is a failure.
    pub require_all_folded: bool,
}

impl Default for FoldAfter {
    /// With the proof and all defaults of a fold.
    fn default() -> Self {
        Self {
            fold: fold::Options::default(),
            verify: Some(VerifyOptions::default()),
            require_end_to_end: false,
            require_all_folded: false,
        }
    }
}

/// A `recalibrate` to do.
#[derive(Debug, Clone)]
pub struct RecalibrateJob {
    /// The model to read: ONNX, or a state dict.
    pub input: PathBuf,
    /// For a state dict: the ONNX export of its network, which is run with the state dict's weights.
    pub graph: Option<PathBuf>,
    /// The model to write; `None` only reports (or writes a partial).
    pub output: Option<PathBuf>,
    /// Whether existing files may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// Where the statistics come from.
    pub source: Source,
    /// How they are made.
    pub method: MethodOptions,
    /// Which BatchNorms get new ones. The others normalise with their batch all the same.
    pub selection: Selection,
    /// Which part of the batches; needs `partial` unless it is [`Shard::WHOLE`].
    pub shard: Shard,
    /// Write the moments here, instead of a model.
    pub partial: Option<PathBuf>,
    /// When enough has been seen.
    pub stability: Stability,
    /// Stop as soon as enough has been seen.
    pub until_stable: bool,
    /// Leave Dropout on, with this seed.
    pub dropout: Option<u64>,
    /// How many threads run the network; 0 for all there are.
    pub threads: usize,
    /// With labelled data: the largest drop of top-1 that is accepted, as a share (0.01 is one per cent).
    pub max_accuracy_drop: Option<f64>,
    /// Fold the result too.
    pub fold: Option<FoldAfter>,
    /// Ends the job between two batches.
    pub interrupt: Interrupt,
}

impl RecalibrateJob {
    /// Recalibrates `input` with `data` into `output`, with all defaults.
    pub fn new(
        input: impl Into<PathBuf>,
        data: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        Self {
            input: input.into(),
            graph: None,
            output: Some(output.into()),
            force: false,
            hash: false,
            source: Source::Data(DataOptions::new(data)),
            method: MethodOptions::default(),
            selection: Selection::default(),
            shard: Shard::WHOLE,
            partial: None,
            stability: Stability::default(),
            until_stable: false,
            dropout: None,
            threads: 0,
            max_accuracy_drop: None,
            fold: None,
            interrupt: Interrupt::default(),
        }
    }
}

impl RecalibrateJob {
    /// Recalibrates `input` with batches that are handed over one after the other, with all defaults. No output yet.
    pub fn of_batches(input: impl Into<PathBuf>) -> Self {
        Self {
            output: None,
            source: Source::Batches,
            ..Self::new(input, "", "")
        }
    }
}

/// A `validate` to do. Nothing is written.
#[derive(Debug, Clone)]
pub struct ValidateJob {
    /// The model to read: ONNX, or a state dict.
    pub input: PathBuf,
    /// For a state dict: the ONNX export of its network, which is run with the state dict's weights.
    pub graph: Option<PathBuf>,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// What the statistics are compared with.
    pub data: DataOptions,
    /// How the observed statistics are made: `precise` or `average` in train mode, or `sequential` for the network in eval mode with
    /// its stored statistics (one pass).
    pub method: MethodOptions,
    /// Which BatchNorms are compared.
    pub selection: Selection,
    /// From where on a channel counts as drifted.
    pub limits: DriftLimits,
    /// How many of the worst channels the report lists.
    pub worst: usize,
    /// When enough has been seen.
    pub stability: Stability,
    /// Stop as soon as enough has been seen.
    pub until_stable: bool,
    /// Leave Dropout on, with this seed.
    pub dropout: Option<u64>,
    /// How many threads run the network; 0 for all there are.
    pub threads: usize,
    /// Ends the job between two batches.
    pub interrupt: Interrupt,
}

impl ValidateJob {
    /// Validates `input` with `data`, with all defaults.
    pub fn new(input: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            graph: None,
            hash: false,
            data: DataOptions::new(data),
            method: MethodOptions::default(),
            selection: Selection::default(),
            limits: DriftLimits::default(),
            worst: 10,
            stability: Stability::default(),
            until_stable: false,
            dropout: None,
            threads: 0,
            interrupt: Interrupt::default(),
        }
    }
}

/// Which statistics the network normalises with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Those of the batch.
    Train,
    /// The stored ones.
    #[default]
    Eval,
    /// One after the other, to see how far they are apart.
    Both,
}

/// A `run` to do.
#[derive(Debug, Clone)]
pub struct RunJob {
    /// The model to read.
    pub input: PathBuf,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// What it runs on.
    pub data: DataOptions,
    /// The mode.
    pub mode: Mode,
    /// Where the outputs are written: an `.npz` with a key for each output; with both modes `train__NAME` and `eval__NAME`.
    pub output: Option<PathBuf>,
    /// Whether an existing file may be replaced.
    pub force: bool,
    /// In train mode: leave Dropout on, with this seed.
    pub dropout: Option<u64>,
    /// How many threads run the network; 0 for all there are.
    pub threads: usize,
    /// Ends the job between two batches.
    pub interrupt: Interrupt,
}

impl RunJob {
    /// Runs `input` on `data` in both modes.
    pub fn new(input: impl Into<PathBuf>, data: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            hash: false,
            data: DataOptions::new(data),
            mode: Mode::Both,
            output: None,
            force: false,
            dropout: None,
            threads: 0,
            interrupt: Interrupt::default(),
        }
    }
}

/// A `stats` to do.
#[derive(Debug, Clone)]
pub struct StatsJob {
    /// The model to read.
    pub input: PathBuf,
    /// Where the statistics are written: `.safetensors`, `.npz`, `.csv` or `.json`, by extension.
    pub output: Option<PathBuf>,
    /// Whether an existing file may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// Which BatchNorms.
    pub selection: Selection,
}

impl StatsJob {
    /// The statistics of all BatchNorms of `input`; nothing is written.
    pub fn new(input: impl Into<PathBuf>) -> Self {
        Self {
            input: input.into(),
            output: None,
            force: false,
            hash: false,
            selection: Selection::default(),
        }
    }
}

/// A `merge` to do.
#[derive(Debug, Clone)]
pub struct MergeJob {
    /// The files of all shards, in any order.
    pub partials: Vec<PathBuf>,
    /// The model that they were made with.
    pub input: PathBuf,
    /// The model to write; `None` only reports.
    pub output: Option<PathBuf>,
    /// Whether existing files may be replaced.
    pub force: bool,
    /// Whether hashes are wanted in the report.
    pub hash: bool,
    /// When enough has been seen.
    pub stability: Stability,
    /// Fold the result too.
    pub fold: Option<FoldAfter>,
    /// Ends the fold.
    pub interrupt: Interrupt,
}

impl MergeJob {
    /// Puts `partials` together into `output`, a copy of `input` with their statistics.
    pub fn new(
        partials: impl IntoIterator<Item = impl Into<PathBuf>>,
        input: impl Into<PathBuf>,
        output: impl Into<PathBuf>,
    ) -> Self {
        Self {
            partials: partials.into_iter().map(Into::into).collect(),
            input: input.into(),
            output: Some(output.into()),
            force: false,
            hash: false,
            stability: Stability::default(),
            fold: None,
            interrupt: Interrupt::default(),
        }
    }
}
