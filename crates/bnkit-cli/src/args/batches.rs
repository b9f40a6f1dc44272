//! Options that say which data a network runs on, and how it is cut into batches.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use bnkit::accuracy::Labels;
use bnkit::calibrate::DataOptions;
use bnkit::data::preprocess::Preprocess;
use clap::Args;

use super::values;

#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct Batches {
    /// Run on this: .npy, .npz, .safetensors, ONNX .pb, a folder of these, or a folder of images
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,

    /// The class of each sample, to say how often the network is right: .npy, or text with a label (or FILE,LABEL) a line
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,

    /// Samples per batch; a model that is made for another number is run with that
    #[arg(long, value_name = "N", default_value = "32")]
    pub(crate) batch_size: NonZeroUsize,

    /// Leave out a last batch that is not full
    #[arg(long)]
    pub(crate) drop_last: bool,

    /// Run at most N batches
    #[arg(long, value_name = "N")]
    pub(crate) max_batches: Option<NonZeroUsize>,

    /// Run at most N samples
    #[arg(long, value_name = "N")]
    pub(crate) max_samples: Option<NonZeroUsize>,

    /// Shuffle the samples with this seed [default: the order of the files]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,

    /// Sizes of an input, as in name=1x3x224x224; the name may be left out if there is one input (repeatable)
    #[arg(long = "shape", value_name = "SHAPE", value_parser = values::shape)]
    pub(crate) shapes: Vec<(String, Vec<usize>)>,

    /// What is done to images: imagenet, inception, tensorflow, a YAML file, or YAML in braces
    #[arg(long, value_name = "HOW", value_parser = str::parse::<Preprocess>)]
    pub(crate) preprocess: Option<Preprocess>,
}

impl Batches {
    /// The data as the library wants it. Missing data is found here and not by the parser: it may stand in the
    /// configuration file.
    pub(crate) fn options(&self) -> anyhow::Result<DataOptions> {
        let Some(path) = &self.data else {
            bail!("--data PATH is missing: what is the network to run on?");
        };
        let labels = self
            .labels
            .as_deref()
            .map(Labels::read)
            .transpose()?
            .map(Arc::new);
        Ok(DataOptions {
            labels,
            preprocess: self.preprocess.clone(),
            shapes: self.shapes.clone(),
            batch_size: self.batch_size.get(),
            drop_last: self.drop_last,
            max_batches: self.max_batches.map(NonZeroUsize::get),
            max_samples: self.max_samples.map(NonZeroUsize::get),
            shuffle: self.seed,
            ..DataOptions::new(path)
        })
    }
}
