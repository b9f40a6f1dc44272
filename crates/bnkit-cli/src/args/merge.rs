//! `bnkit merge`.

use std::path::PathBuf;

use clap::Args;

use super::fold_after::AfterFold;

/// Put together what the shards of a recalibration saw, and write the model with the statistics that they give
///
/// The result is the one that a single run over all of the data gives.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Merge {
    /// The files of all shards, in any order
    #[arg(required = true)]
    pub(crate) partials: Vec<PathBuf>,

    /// The ONNX model that the shards were made with
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// The model to write [default: NAME.recalibrated.onnx beside MODEL, NAME.recalibrated.folded.onnx with --fold]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) fold: AfterFold,
}
