//! What may be said about a calibration: which statistics, by which method, from which data. Plain values with their defaults.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bnkit_model::Tensor;
use serde::{Deserialize, Serialize};

use crate::accuracy::Labels;
use crate::data::images::is_folder_of_images;
use crate::data::preprocess::Preprocess;
use crate::data::{DataSet, NamedTensor};
use crate::verify::VerifyOptions;
use crate::{Error, Result};

/// How batch statistics become running statistics; formulas: the section "Recalibration" of the documentation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Mean and variance of all elements of all batches, by the law of total variance.
    #[default]
    Precise,
    /// The plain average of the batches' values, as PyTorch's `update_bn` with momentum `None`.
    Average,
    /// An exponential moving average over the batches in order, starting from the stored values.
    Ema,
    /// As `precise`, but of the network in eval mode: repeated passes, each with the statistics of the one before.
    Sequential,
}

impl Method {
    /// The word that options and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Precise => "precise",
            Self::Average => "average",
            Self::Ema => "ema",
            Self::Sequential => "sequential",
        }
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Precise, Self::Average, Self::Ema, Self::Sequential];
        all.into_iter()
            .find(|method| method.name() == text)
            .ok_or_else(|| {
                Error::Request(format!(
                    "unknown method {text:?}: there are precise, average, ema and sequential"
                ))
            })
    }
}

/// Whose reading of "momentum" and of the running variance holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// Momentum is the weight of the history; the variance divides by n.
    #[default]
    Onnx,
    /// Momentum is the weight of the batch; the variance divides by n − 1.
    Torch,
    /// As ONNX.
    Keras,
}

impl Convention {
    /// The word that options and reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Torch => "torch",
            Self::Keras => "keras",
        }
    }

    /// Whether the running variance divides by n − 1.
    pub fn unbiased(self) -> bool {
        self == Self::Torch
    }
}

impl FromStr for Convention {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Onnx, Self::Torch, Self::Keras];
        all.into_iter()
            .find(|convention| convention.name() == text)
            .ok_or_else(|| {
                Error::Request(format!(
                    "unknown convention {text:?}: there are onnx, torch and keras"
                ))
            })
    }
}

/// The method with its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MethodOptions {
    /// The method.
    pub method: Method,
    /// Whose reading of momentum and variance holds.
    pub convention: Convention,
    /// What the user calls momentum, read by the convention; `None` takes each node's own. For `ema` only.
    pub momentum: Option<f64>,
    /// For `sequential`: stop when no statistic changes by more than this: |Δμ|/√(σ²+ε) and |ln(variance ratio)|.
    pub tolerance: f64,
    /// For `sequential`: at most so many passes, the first one (in train mode) included.
    pub passes: usize,
}

impl Default for MethodOptions {
    fn default() -> Self {
        Self {
            method: Method::Precise,
            convention: Convention::Onnx,
            momentum: None,
            tolerance: 1e-4,
            passes: 20,
        }
    }
}

/// Which BatchNorms.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only BatchNorms whose node name matches one of these globs; all if empty.
    pub only: Vec<String>,
    /// No BatchNorms whose node name matches one of these globs.
    pub skip: Vec<String>,
    /// Treat initializers that are graph inputs too (IR version 4 and later) as constants.
    pub assume_constant: bool,
}

/// Which data, and how it is cut into batches.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// A file, a folder of files, or a folder of images; what messages and reports call the data.
    pub path: PathBuf,
    /// Samples in memory: these are taken, and nothing is read at `path`.
    pub tensors: Option<DataSet>,
    /// The classes of all samples, to say how often the network is right.
    pub labels: Option<Arc<Labels>>,
    /// What is done to images; needed for a folder of images.
    pub preprocess: Option<Preprocess>,
    /// Shapes of inputs that the user fixed: name ("" for the only input) and dimensions.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Samples per batch.
    pub batch_size: usize,
    /// Leave out a last batch that is not full.
    pub drop_last: bool,
    /// At most so many batches.
    pub max_batches: Option<usize>,
    /// At most so many samples.
    pub max_samples: Option<usize>,
    /// Shuffle the samples, with this seed; `None` keeps the order of the files.
    pub shuffle: Option<u64>,
}

impl DataOptions {
    /// All of `path` in its order, 32 samples per batch.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            tensors: None,
            labels: None,
            preprocess: None,
            shapes: Vec::new(),
            batch_size: 32,
            drop_last: false,
            max_batches: None,
            max_samples: None,
            shuffle: None,
        }
    }
}

impl DataOptions {
    /// Lets a proof run on the first samples of this data, if they are tensors; images would have to be decoded first.
    pub fn prove_on(&self, proof: &mut VerifyOptions) {
        if self.tensors.is_some() || !is_folder_of_images(&self.path) {
            proof.data = Some(self.path.clone());
            proof.tensors.clone_from(&self.tensors);
        }
        proof.shapes.clone_from(&self.shapes);
    }

    /// Samples that a program has in memory: input names with tensors whose leading axis runs over samples, `[n, c, h, w]` for
    /// images. A model with one input takes the name "". Several tensors of one name follow one another.
    pub fn of_tensors<N: Into<String>>(tensors: impl IntoIterator<Item = (N, Tensor)>) -> Self {
        let path = PathBuf::from("(memory)");
        let named = tensors.into_iter().map(|(name, tensor)| NamedTensor {
            name: name.into(),
            tensor,
            source: path.clone(),
        });
        Self {
            tensors: Some(DataSet {
                tensors: named.collect(),
            }),
            ..Self::new(path.clone())
        }
    }
}

/// One of several equal parts of the batches: contiguous, in order, 1 is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shard {
    /// Which part, from 1 to `count`.
    pub index: usize,
    /// How many parts there are.
    pub count: usize,
}

impl Shard {
    /// All batches.
    pub const WHOLE: Self = Self { index: 1, count: 1 };
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.split_once('/')
            .and_then(|(index, count)| {
                let (index, count) = (index.parse().ok()?, count.parse().ok()?);
                (1 <= index && index <= count).then_some(Self { index, count })
            })
            .ok_or_else(|| {
                Error::Request(format!(
                    "bad shard {text:?}: expected I/N with I from 1 to N, as in 2/8"
                ))
            })
    }
}

/// When enough has been seen. The standard error of a statistic comes from the spread of the batches' values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stability {
    /// A channel is settled if the standard errors of its mean (in units of √(σ²+ε)) and of its variance (relative to
    /// σ²+ε) are at most this.
    pub tolerance: f64,
    /// Enough has been seen if this share of all channels is settled.
    pub share: f64,
    /// No verdict before so many batches.
    pub min_batches: usize,
}

impl Default for Stability {
    fn default() -> Self {
        Self {
            tolerance: 0.05,
            share: 0.99,
            min_batches: 8,
        }
    }
}

/// From where on a stored statistic counts as drifted. The difference must also be larger than the sampling error.
///
/// The defaults agree with each other (a mean 0.1σ away or a variance 20 % off is a divergence of 0.01 or 0.02). A network that was just
/// trained stays within a third of them; weights that were averaged without an update of the statistics do not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriftLimits {
    /// The largest |Δμ|/√(σ²+ε).
    pub max_mean_drift: f64,
    /// The largest |ln((σ²_observed+ε)/(σ²+ε))|.
    pub max_var_drift: f64,
    /// The largest symmetric KL divergence, ½[(σ₁²+Δ²)/σ₂² + (σ₂²+Δ²)/σ₁²] − 1 with ε added to both variances.
    pub max_kl: f64,
    /// How many standard errors a difference must be.
    pub errors: f64,
}

impl Default for DriftLimits {
    fn default() -> Self {
        Self {
            max_mean_drift: 0.1,
            max_var_drift: 0.2,
            max_kl: 0.02,
            errors: 3.0,
        }
    }
}

/// Set from outside (by Ctrl-C or another thread) to end a job between two batches, or two operators of a proof. A clone is the same request: keep one and
/// give one to the job. A job that is ended writes nothing and gives [`Error::Interrupted`], except a shard, whose partial
/// file then holds the batches that had run and says that it is not complete.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(pub Arc<AtomicBool>);

impl Interrupt {
    /// Asks the job to end; from any thread, as often as wanted.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the job is to end.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// For jobs: the error that ends one, if that was asked for.
    pub(crate) fn go_on(&self) -> Result<()> {
        match self.requested() {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_and_wrong_ones_refused() {
        assert_eq!("ema".parse::<Method>().unwrap(), Method::Ema);
        assert_eq!("torch".parse::<Convention>().unwrap(), Convention::Torch);
        let shard: Shard = "2/8".parse().unwrap();
        assert_eq!((shard.index, shard.count), (2, 8));
        for wrong in ["0/2", "3/2", "1", "a/b", "1/0", "/"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert!("EMA ".parse::<Method>().is_err() && "tf".parse::<Convention>().is_err());
    }
}
