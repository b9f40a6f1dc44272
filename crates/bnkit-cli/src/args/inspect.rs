//! `bnkit inspect`.

use std::path::PathBuf;

use clap::Args;

/// Say what is in a model: inputs, outputs, operators, every BatchNorm and what fold would do with it
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Inspect {
    /// The ONNX model to read
    pub(crate) model: PathBuf,

    /// Show the BatchNorms only, and all of them
    #[arg(long)]
    pub(crate) batch_norms: bool,

    /// Show one constant tensor: type, shape, readers, values
    #[arg(long, value_name = "NAME", conflicts_with_all = ["batch_norms", "tree"])]
    pub(crate) tensor: Option<String>,

    /// Show the modules, as far as the names of the nodes tell
    #[arg(long, conflicts_with = "batch_norms")]
    pub(crate) tree: bool,
}
