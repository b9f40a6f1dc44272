//! `bnkit run`.

use std::path::PathBuf;

use bnkit::calibrate::Mode;
use clap::{Args, ValueEnum};

use super::batches::Batches;

/// Run a model on data, in train mode, in eval mode, or in both to see how far they are apart
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Run {
    /// The ONNX model to read
    pub(crate) model: PathBuf,

    /// Which statistics BatchNorms normalise with
    #[arg(long, value_name = "MODE", default_value = "both")]
    pub(crate) mode: RunMode,

    /// Write the outputs to an .npz file: a key per output, with train__ or eval__ before it if both modes run
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// In train mode, leave Dropout on, with this seed [default: off; 0 without a seed]
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) dropout: Option<u64>,

    #[command(flatten)]
    pub(crate) data: Batches,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunMode {
    /// Those of the batch
    Train,
    /// The stored ones
    Eval,
    /// One after the other
    Both,
}

impl From<RunMode> for Mode {
    fn from(mode: RunMode) -> Self {
        match mode {
            RunMode::Train => Self::Train,
            RunMode::Eval => Self::Eval,
            RunMode::Both => Self::Both,
        }
    }
}
