//! What is said about a conversion, as values.

use serde::Serialize;

use crate::report::Tool;

/// The outcome of `convert`: schema `bnkit.convert/1`.
#[derive(Debug, Clone, Serialize)]
pub struct ConvertReport {
    /// "bnkit.convert/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read: the weights, or the graph that gets them.
    pub input: Checkpoint,
    /// The checkpoint whose weights go into the graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Checkpoint>,
    /// Tensors that are written (or put into the graph).
    pub tensors: usize,
    /// The bytes of their elements, as written.
    pub tensor_bytes: u64,
    /// How many of them have another float type than before.
    pub converted: usize,
    /// Tensors of the input that have no place in the output, and why.
    pub left_out: Vec<LeftOut>,
    /// Which tensor of the checkpoint became which of the graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matching: Option<Matching>,
    /// What rounding changed, one entry for each tensor whose new type has not all values of the old one; those that lost most come first.
    pub rounding: Vec<Rounding>,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// What was written. `None` if nothing was.
    pub output: Option<Written>,
    /// Why the answer is "no" (exit code 1, nothing written).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A checkpoint that was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkpoint {
    /// The path as it was given.
    pub path: String,
    /// "onnx", "safetensors" or "safetensors-index".
    pub format: &'static str,
    /// The bytes of all its files.
    pub bytes: u64,
    /// SHA-256 of the file at `path`, if it was asked for.
    pub sha256: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Written {
    /// The model, the file, or the index of several files.
    pub path: String,
    /// SHA-256 of the file at `path`, if it was asked for.
    pub sha256: Option<String>,
    /// The bytes of all files.
    pub bytes: u64,
    /// All files, in the order in which they appeared.
    pub files: Vec<String>,
}

/// A tensor that is not written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Why it has no place.
    pub why: &'static str,
    /// Whether somebody may miss it (a scalar of an operator, nobody does).
    pub matters: bool,
}

/// Which tensors of a checkpoint went where.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Matching {
    /// What came together.
    pub pairs: Vec<Pair>,
    /// Tensors of the graph that keep what they have.
    pub kept: Vec<Unmatched>,
    /// Tensors of the checkpoint that the graph has no place for.
    pub unused: Vec<Unmatched>,
    /// Tensors that no graph has a place for: `num_batches_tracked`.
    pub counters: Vec<String>,
}

/// A tensor of the graph and what it gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The tensor of the graph.
    pub graph: String,
    /// The tensor of the checkpoint.
    pub weight: String,
    /// How they were found to belong together.
    pub how: How,
    /// The type in the checkpoint, where the graph has another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub converted_from: Option<String>,
}

/// How two tensors were found to belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// One name, one shape.
    Name,
    /// Left over on both sides, and the only ones of this shape.
    Shape,
    /// The same for a matrix and its transposed.
    Transposed,
}

/// A tensor without a partner.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unmatched {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

/// What rounding to another float type changed in a tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rounding {
    /// The tensor, as the output calls it.
    pub name: String,
    /// The type before.
    pub from: String,
    /// The type after.
    pub to: String,
    /// How many elements it has.
    pub elements: u64,
    /// The largest |Δ|, of elements that stay finite.
    pub max_abs: f64,
    /// The largest |Δ| ÷ |x|, of elements that are not 0 and stay finite. 1: an element became 0.
    pub max_rel: f64,
    /// Finite elements that would become infinite.
    pub overflowed: u64,
    /// Elements that became 0.
    pub zeroed: u64,
    /// Elements that became subnormal: they keep fewer digits than the type has.
    pub subnormal: u64,
    /// NaN and infinities, which stay what they are.
    pub not_finite: u64,
    /// Whether these are running means or variances.
    pub statistic: bool,
}

impl Rounding {
    /// What to sort by so that the worst comes first: overflows, lost elements, relative error.
    pub(super) fn severity(&self) -> (u64, f64, f64) {
        let lost = (self.zeroed + self.subnormal) as f64 / self.elements.max(1) as f64;
        (self.overflowed, lost, self.max_rel)
    }
}
