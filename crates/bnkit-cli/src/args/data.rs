//! Options that say which inputs the models are run on.

use std::path::PathBuf;

use clap::Args;

use super::values;

#[derive(Debug, Args)]
#[command(next_help_heading = "Inputs of the proof")]
pub(crate) struct Data {
    /// Run on these inputs: .npy, .npz, ONNX .pb, or a folder of them [default: random inputs]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,

    /// Run on N samples
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) samples: u32,

    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) seed: u64,

    /// Sizes of an input, as in name=1x3x224x224; the name may be left out if there is one input (repeatable)
    #[arg(long = "shape", value_name = "SHAPE", value_parser = values::shape)]
    pub(crate) shapes: Vec<(String, Vec<usize>)>,
}
