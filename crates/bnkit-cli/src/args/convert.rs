//! `bnkit convert`.

use std::path::PathBuf;

use bnkit::convert::{FloatType, parse_size};
use clap::{Args, ValueEnum};

/// Weights of a model to safetensors, a checkpoint's weights into a model, other float types, other files
///
///   bnkit convert MODEL.onnx -o WEIGHTS.safetensors
///   bnkit convert --weights WEIGHTS.safetensors MODEL.onnx -o NEW.onnx
///   bnkit convert IN.safetensors --dtype f16 -o OUT.safetensors
///   bnkit convert IN.safetensors --max-shard-size 5GB -o OUT.safetensors.index.json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = super::EXIT_CODES)]
pub(crate) struct Convert {
    /// An ONNX model, a safetensors file, or the index of a sharded checkpoint
    pub(crate) input: PathBuf,

    /// What to write: .safetensors, .safetensors.index.json, or (with --weights) .onnx
    #[arg(short, long, value_name = "OUT")]
    pub(crate) output: Option<PathBuf>,

    /// Put the weights of this checkpoint into the graph of the model
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,

    /// Write running means and variances only
    #[arg(long)]
    pub(crate) stats_only: bool,

    /// Round floats to this type; an element beyond its range is a failure
    #[arg(long, value_name = "TYPE")]
    pub(crate) dtype: Option<Dtype>,

    /// With --dtype: running means and variances keep their type
    #[arg(long)]
    pub(crate) keep_statistics: bool,

    /// Several files where the tensors take more than SIZE: 5GB, 500MB (thousands), 2GiB (1024)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) max_shard_size: Option<u64>,
}

/// The float types that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    F16,
    Bf16,
    F32,
}

impl From<Dtype> for FloatType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::BF16,
            Dtype::F32 => Self::F32,
        }
    }
}
