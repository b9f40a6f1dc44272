//! `bnkit validate`.

use std::path::PathBuf;

use clap::Args;

use super::batches::Batches;
use super::method::Estimate;
use super::values;

/// Say whether the stored running statistics describe the data: the exit code is the verdict
///
/// A channel has drifted if its mean, its variance or the divergence of the two distributions is over a limit, and by more
/// than the data's own uncertainty explains.
#[derive(Debug, Args)]
#[command(after_help = super::EXIT_CODES)]
pub(crate) struct Validate {
    /// The ONNX model to read
    pub(crate) model: PathBuf,

    /// The largest difference of means, in stored standard deviations
    #[arg(long, value_name = "X", default_value = "0.1", value_parser = values::tolerance, help_heading = "Limits")]
    pub(crate) max_mean_drift: f64,

    /// The largest |ln(observed variance / stored variance)|
    #[arg(long, value_name = "X", default_value = "0.2", value_parser = values::tolerance, help_heading = "Limits")]
    pub(crate) max_var_drift: f64,

    /// The largest symmetric KL divergence
    #[arg(long, value_name = "X", default_value = "0.02", value_parser = values::tolerance, help_heading = "Limits")]
    pub(crate) max_kl: f64,

    /// List the N worst channels
    #[arg(long, value_name = "N", default_value = "10", help_heading = "Limits")]
    pub(crate) worst: usize,

    #[command(flatten)]
    pub(crate) data: Batches,

    #[command(flatten)]
    pub(crate) estimate: Estimate,
}
