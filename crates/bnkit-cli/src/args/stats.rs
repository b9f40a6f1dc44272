//! `bnkit stats`.

use std::path::PathBuf;

use clap::Args;

use super::method::Which;

/// Show the running statistics themselves, or write them to a file
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Stats {
    /// The checkpoint to read: an ONNX model, a safetensors file, or the index.json of a sharded one
    pub(crate) model: PathBuf,

    /// Write them to a file: .safetensors or .npz (which recalibrate --from reads), .csv or .json
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) which: Which,
}
