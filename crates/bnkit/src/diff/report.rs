//! What `diff` says, as values: the JSON contract `bnkit.diff/1` is these types, serialised.
//!
//! Numbers that JSON cannot hold (a NaN, an infinity) are null there.

use serde::Serialize;

use crate::calibrate::Extremes;
use crate::report::{InputFile, Tool};

/// The outcome of `diff`: schema `bnkit.diff/1`.
#[derive(Debug, Clone, Serialize)]
pub struct DiffReport {
    /// "bnkit.diff/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// The first checkpoint: what was; without a hash.
    pub a: InputFile,
    /// The second checkpoint: what is; without a hash.
    pub b: InputFile,
    /// The numbers.
    pub summary: Summary,
    /// Tensors that only `b` has, in the order of the file.
    pub added: Vec<TensorInfo>,
    /// Tensors that only `a` has, in the order of the file.
    pub removed: Vec<TensorInfo>,
    /// Tensors that differ, the largest changes first: those that cannot be measured (another shape, opaque types), those with new NaN
    /// or Inf, then by `l2_rel`.
    pub changed: Vec<TensorChange>,
    /// BatchNorms of both whose running statistics differ, the largest KL divergence first.
    pub batch_norms: Vec<LayerChange>,
    /// BatchNorms that only `b` has.
    pub batch_norms_added: Vec<LayerInfo>,
    /// BatchNorms that only `a` has.
    pub batch_norms_removed: Vec<LayerInfo>,
}

/// The numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Tensors that only `b` has.
    pub added: usize,
    /// Tensors that only `a` has.
    pub removed: usize,
    /// Tensors that differ.
    pub changed: usize,
    /// Tensors of the same type, shape and bytes.
    pub unchanged: usize,
    /// BatchNorms that only `b` has.
    pub batch_norms_added: usize,
    /// BatchNorms that only `a` has.
    pub batch_norms_removed: usize,
    /// BatchNorms with other running statistics.
    pub batch_norms_changed: usize,
    /// BatchNorms with the same running statistics.
    pub batch_norms_unchanged: usize,
}

/// A tensor, by its header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type, as the file's format calls it.
    pub dtype: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// How many bytes its elements take; 0 if that is not known (strings).
    pub bytes: u64,
}

/// A tensor that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorChange {
    /// Its name.
    pub name: String,
    /// Its element types in `a` and `b`, as the formats call them.
    pub dtypes: [String; 2],
    /// Whether these are different types.
    pub dtype_changed: bool,
    /// Its dimensions in `a` and `b`.
    pub dims: [Vec<usize>; 2],
    /// Whether these are different.
    pub shape_changed: bool,
    /// How far the elements are apart; `None` if the shapes differ in more than axes of size 1, or they are no numbers.
    pub elements: Option<ElementChange>,
}

/// How far the elements of a tensor are apart. Differences are taken over elements that are finite in both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ElementChange {
    /// How many there are.
    pub count: u64,
    /// How many differ: in their bits, or, between two types, in their values.
    pub changed: u64,
    /// The largest |b − a|.
    pub max_abs: f64,
    /// The same over the largest |a|; 0 if nothing differs.
    pub max_rel: f64,
    /// ‖b − a‖₂/‖a‖₂; 0 if nothing differs.
    pub l2_rel: f64,
    /// How many are NaN in `a` and `b`.
    pub nan: [u64; 2],
    /// How many are infinite in `a` and `b`.
    pub infinite: [u64; 2],
}

impl ElementChange {
    /// Whether `b` has more elements that are not finite.
    pub fn is_worse(&self) -> bool {
        self.nan[1] > self.nan[0] || self.infinite[1] > self.infinite[0]
    }
}

/// A BatchNorm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerInfo {
    /// Its node, or its module in a state dict.
    pub name: String,
    /// The tensor of its running mean.
    pub mean_name: String,
    /// How many channels it has.
    pub channels: usize,
}

/// Where an ε comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EpsilonFrom {
    /// The BatchNorm node of `a`.
    A,
    /// The BatchNorm node of `b`: `a` does not say it.
    B,
    /// The caller.
    Given,
    /// Nobody: it is the usual one.
    Default,
}

/// A BatchNorm with other running statistics. With Δ the difference of the means, σ₁² and σ₂² the variances of `a` and `b`, ε added to
/// both: numbers are over the channels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerChange {
    /// Its node, or its module in a state dict: in `a`.
    pub name: String,
    /// The tensor of its running mean: in `a`.
    pub mean_name: String,
    /// How many channels it has in `a` and `b`.
    pub channels: [usize; 2],
    /// ε.
    pub epsilon: f64,
    /// Where ε comes from.
    pub epsilon_from: EpsilonFrom,
    /// Whether both files say ε, and not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon_of_b: Option<f64>,
    /// |Δ|/σ₁.
    pub mean_shift: Option<Extremes>,
    /// ln(σ₂²/σ₁²).
    pub log_variance_ratio: Option<Extremes>,
    /// The symmetric KL divergence, ½[(σ₁²+Δ²)/σ₂² + (σ₂²+Δ²)/σ₁²] − 1.
    pub kl: Option<Extremes>,
    /// In how many channels mean or variance differ.
    pub changed_channels: usize,
    /// In how many channels there is nothing to compute: a NaN, an infinity, a variance that is not positive.
    pub bad_channels: usize,
    /// Why nothing was computed, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
