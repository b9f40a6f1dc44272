//! `bnkit pair`.

use std::path::PathBuf;

use clap::Args;

/// Propose which layer feeds which BatchNorm in a state dict, for review
///
/// A state dict does not say it; the names of its tensors do, if they follow a scheme that is known. What is written is a
/// pairing file for `bnkit fold --pairs`: read it before you use it. Which module is called twice, names cannot tell.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Pair {
    /// The state dict to read: safetensors, or the index of a sharded one
    pub(crate) model: PathBuf,

    /// The pairing file to write (YAML)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// The naming scheme: auto, torchvision, timm, ultralytics, mmdet, keras, flax
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) preset: String,

    /// Epsilon of the BatchNorms, instead of what the scheme says
    #[arg(long, value_name = "E")]
    pub(crate) eps: Option<f64>,
}
