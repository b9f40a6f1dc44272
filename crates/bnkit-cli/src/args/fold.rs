//! `bnkit fold`.

use std::path::PathBuf;

use clap::Args;

use super::proof::Proof;
use super::state_dict::StateDict;
use super::values;

/// Fold BatchNorm into its neighbours, prove the result equal, write it
///
/// Every BatchNorm ends up with one decision: folded, or kept with a reason. The model becomes eval-only: Dropout goes,
/// training-mode BatchNorms use their running statistics. The output appears only after the proof has passed.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Fold {
    /// The model to read: ONNX, or a state dict (safetensors, or the index of a sharded one)
    pub(crate) model: PathBuf,

    /// The model to write [default: NAME.folded.onnx (or .safetensors) beside MODEL]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// Plan and report only; write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Put the input's SHA-256 and the verdict into the output's metadata
    #[arg(long)]
    pub(crate) provenance: bool,

    /// Keep what `bnkit unfold` needs to bring the BatchNorms back (safetensors)
    #[arg(long, value_name = "FILE")]
    pub(crate) keep_stats: Option<PathBuf>,

    /// Fold only BatchNorms whose node name matches GLOB (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "What is folded")]
    pub(crate) only: Vec<String>,

    /// Leave BatchNorms alone whose node name matches GLOB (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "What is folded")]
    pub(crate) skip: Vec<String>,

    /// Treat initializers that are graph inputs too as constants, though a caller could replace them
    #[arg(long, help_heading = "What is folded")]
    pub(crate) assume_constant: bool,

    /// Keep BatchNorms with bad statistics (NaN, negative variance …) and go on, instead of failing
    #[arg(long, help_heading = "What is folded")]
    pub(crate) allow_bad_statistics: bool,

    /// Fold backwards through an Add or Sub of two computed branches too, into both of them
    #[arg(long, help_heading = "What is folded")]
    pub(crate) through_branches: bool,

    /// Where a BatchNorm cannot go as a whole, move its scale and leave its shift as an Add
    #[arg(long, help_heading = "What is folded")]
    pub(crate) aggressive: bool,

    /// Write a BatchNorm that cannot go as Mul and Add
    #[arg(long, help_heading = "What is folded")]
    pub(crate) lower: bool,

    /// Make one Conv of parallel branches that are added (RepVGG, MobileOne), and of a 1x1 Conv before another
    #[arg(long, help_heading = "What is folded")]
    pub(crate) merge_branches: bool,

    /// Give a quantised weight one scale for each channel where it has one for all of them (opset 13 and later)
    #[arg(long, help_heading = "What is folded")]
    pub(crate) per_channel_scales: bool,

    /// Fail if a BatchNorm has to stay (skipped ones do not count)
    #[arg(long, help_heading = "What is folded")]
    pub(crate) require_all_folded: bool,

    /// Fail if less than this share of the BatchNorms folds, as in 0.9 or 90% (skipped ones do not count)
    #[arg(long, value_name = "SHARE", value_parser = values::share, help_heading = "What is folded")]
    pub(crate) min_folded: Option<f64>,

    /// Write the model without proving anything
    #[arg(long, help_heading = "Proof")]
    pub(crate) no_verify: bool,

    #[command(flatten)]
    pub(crate) proof: Proof,

    #[command(flatten)]
    pub(crate) state_dict: StateDict,
}
