//! `bnkit inspect`.

use std::path::PathBuf;

use clap::Args;

/// Say what is in a checkpoint: sizes, types, every BatchNorm; of a graph also what fold would do with each
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Inspect {
    /// The checkpoint to read: an ONNX model, a safetensors file, or the index.json of a sharded one
    pub(crate) model: PathBuf,

    /// Show the BatchNorms only, and all of them
    #[arg(long)]
    pub(crate) batch_norms: bool,

    /// Show one tensor: type, shape, place, readers, values, histogram
    #[arg(long, value_name = "NAME", conflicts_with_all = ["batch_norms", "tree", "scan"])]
    pub(crate) tensor: Option<String>,

    /// Show the modules, as far as the names of nodes or tensors tell
    #[arg(long, conflicts_with_all = ["batch_norms", "scan"])]
    pub(crate) tree: bool,

    /// Read every tensor: NaN and Inf, ends, tensors that hold the same bytes
    #[arg(long, conflicts_with = "batch_norms")]
    pub(crate) scan: bool,
}
