//! Options that say how statistics are made from batches, and of which BatchNorms.

use std::path::PathBuf;

use bnkit::calibrate::{Convention, Method, Selection};
use clap::Args;

use super::values;

#[derive(Debug, Args)]
#[command(next_help_heading = "Statistics")]
pub(crate) struct Estimate {
    /// For a state dict: the ONNX export of its network, run with the state dict's weights
    #[arg(long, value_name = "ONNX")]
    pub(crate) graph: Option<PathBuf>,

    /// How the statistics of batches become running statistics
    #[arg(long, value_name = "METHOD", default_value = "precise", value_parser = values::method())]
    pub(crate) method: Method,

    /// Whose reading of momentum and of the running variance holds
    #[arg(long, value_name = "WHOSE", default_value = "onnx", value_parser = values::convention())]
    pub(crate) convention: Convention,

    /// Stop as soon as enough data was seen
    #[arg(long)]
    pub(crate) until_stable: bool,

    /// Leave Dropout on, with this seed [default: off; 0 without a seed]
    #[arg(long, value_name = "SEED", num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) dropout: Option<u64>,

    #[command(flatten)]
    pub(crate) which: Which,
}

/// Which BatchNorms.
#[derive(Debug, Args)]
#[command(next_help_heading = "Statistics")]
pub(crate) struct Which {
    /// Only BatchNorms whose node name matches GLOB (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) only: Vec<String>,

    /// No BatchNorms whose node name matches GLOB (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) skip: Vec<String>,

    /// Treat initializers that are graph inputs too as constants, though a caller could replace them
    #[arg(long)]
    pub(crate) assume_constant: bool,
}

impl Which {
    pub(crate) fn selection(&self) -> Selection {
        Selection {
            only: self.only.clone(),
            skip: self.skip.clone(),
            assume_constant: self.assume_constant,
        }
    }
}
