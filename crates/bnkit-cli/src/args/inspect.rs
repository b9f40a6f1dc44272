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
}
