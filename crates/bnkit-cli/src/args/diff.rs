//! `bnkit diff`.

use std::path::PathBuf;

use clap::Args;

use super::values::tolerance;

/// Say what changed between two checkpoints: tensors by name, and the drift of BatchNorms
///
/// A and B may be of different formats: the tensors of an ONNX model and of a state dict are compared by their names. Nothing is
/// run: verify says whether two models compute the same.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Diff {
    /// What was: an ONNX model, a safetensors file, or the index.json of a sharded one
    pub(crate) a: PathBuf,

    /// What is
    pub(crate) b: PathBuf,

    /// The epsilon of BatchNorms in state dicts, which do not say it [default: 1e-5]
    #[arg(long, value_name = "X", value_parser = tolerance)]
    pub(crate) eps: Option<f64>,
}
