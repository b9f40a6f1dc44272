//! `bnkit unfold`.

use std::path::PathBuf;

use clap::Args;

use super::proof::Proof;

/// Bring the BatchNorms back into a folded model, prove the result equal, write it
///
/// Needs the file that `bnkit fold --keep-stats FILE` wrote. The model gets its BatchNorms back, in eval mode, with their
/// names and parameters, and its weights as they were before; then it can be recalibrated.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Unfold {
    /// The folded ONNX model
    pub(crate) model: PathBuf,

    /// What `bnkit fold --keep-stats` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) stats: PathBuf,

    /// The model to write
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: PathBuf,

    /// Write the model without proving anything
    #[arg(long, help_heading = "Proof")]
    pub(crate) no_verify: bool,

    #[command(flatten)]
    pub(crate) proof: Proof,
}
