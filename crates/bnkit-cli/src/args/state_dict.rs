//! Options for checkpoints without a graph.

use std::path::PathBuf;

use clap::Args;

/// What says which layer feeds which BatchNorm of a state dict.
#[derive(Debug, Args)]
#[command(next_help_heading = "State dicts (safetensors)")]
pub(crate) struct StateDict {
    /// The ONNX export of the same network, which says what feeds what (most trustworthy)
    #[arg(long, value_name = "ONNX", conflicts_with_all = ["pairs", "preset", "eps"])]
    pub(crate) graph: Option<PathBuf>,

    /// A pairing file (YAML), as `bnkit pair` writes it
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub(crate) pairs: Option<PathBuf>,

    /// Pair by a naming scheme: auto, torchvision, timm, ultralytics, mmdet, keras, flax
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,

    /// Epsilon of the BatchNorms, where the pairing file does not say it; instead of what a preset says
    #[arg(long, value_name = "E")]
    pub(crate) eps: Option<f64>,

    /// The pairs of the preset are right: write
    #[arg(long)]
    pub(crate) yes: bool,

    /// Keep the BatchNorms as identities that hold the shift, so that unmodified model code loads the file
    #[arg(long)]
    pub(crate) identity_bn: bool,
}
