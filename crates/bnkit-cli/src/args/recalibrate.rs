//! `bnkit recalibrate`.

use std::path::PathBuf;

use bnkit::calibrate::Shard;
use clap::Args;

use super::batches::Batches;
use super::fold_after::AfterFold;
use super::method::Estimate;
use super::values;

/// Re-estimate the running statistics of BatchNorms from calibration data, and write the model with them
///
/// Only means and variances change. The data runs through the network as in training: every BatchNorm normalises with
/// its batch, and what goes into it is measured (--method sequential measures the network in eval mode instead).
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Recalibrate {
    /// The ONNX model to read
    pub(crate) model: PathBuf,

    /// The model to write [default: NAME.recalibrated.onnx beside MODEL, NAME.recalibrated.folded.onnx with --fold]
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// Take the statistics from a file of `bnkit stats -o` (.safetensors or .npz) and run nothing
    #[arg(long, value_name = "STATS")]
    pub(crate) from: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) data: Batches,

    #[command(flatten)]
    pub(crate) estimate: Estimate,

    /// For ema: the momentum, as --convention reads it [default: what each node says]
    #[arg(long, value_name = "X", value_parser = values::tolerance, help_heading = "Statistics")]
    pub(crate) momentum: Option<f64>,

    /// For sequential: stop when no statistic changes by more than X from pass to pass
    #[arg(long, value_name = "X", default_value = "1e-4", value_parser = values::tolerance, help_heading = "Statistics")]
    pub(crate) tolerance: f64,

    /// For sequential: at most N passes
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        help_heading = "Statistics"
    )]
    pub(crate) passes: std::num::NonZeroUsize,

    /// With --labels: write nothing if top-1 drops by more than X, as in 0.01 or 1%
    #[arg(long, value_name = "X", value_parser = values::share, help_heading = "Data")]
    pub(crate) max_accuracy_drop: Option<f64>,

    /// Run only part I of N of the batches; needs --partial
    #[arg(long, value_name = "I/N", value_parser = values::shard, help_heading = "Shards")]
    pub(crate) shard: Option<Shard>,

    /// Write what was seen to FILE, for bnkit merge, instead of a model
    #[arg(long, value_name = "FILE", help_heading = "Shards")]
    pub(crate) partial: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) fold: AfterFold,
}
