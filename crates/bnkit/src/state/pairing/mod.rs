//! Which layer feeds which BatchNorm of a state dict.
//!
//! The file does not say it. Somebody who knows writes it down ([`from_file`]), or the names follow a scheme that is known
//! ([`propose`]). Shapes are checked in both cases, and never decide alone. What names cannot tell: whether a layer's output
//! is read elsewhere too, and whether a module is called several times.

mod file;
mod index;
mod pattern;
mod presets;
mod propose;
mod scope;
mod unknown;
mod write;

pub use file::from_file;
pub use propose::{PresetChoice, propose};
pub use write::to_yaml;

use super::groups::BatchNormGroup;

/// Which axis of a weight counts the output channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[O, I/g, …]`: PyTorch's Conv and Linear.
    OutFirst,
    /// `[I, O/g, …]`: PyTorch's ConvTranspose. The output channel of `W[i, j]` is `(i div (I/g))·(O/g) + j`.
    Transposed,
    /// `[…, I/g, O]`: kernels of Keras and flax.
    OutLast,
    /// `[kh, kw, I, m]`: Keras' depthwise kernels. The output channel of `W[…, i, j]` is `i·m + j`.
    OutLastTwo,
}

/// A layer that a BatchNorm's affine goes into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The path of the module; for flax without `params`.
    pub module: String,
    /// The name of its weight.
    pub weight: String,
    /// The shape of its weight.
    pub shape: Vec<usize>,
    /// The name of its bias, if it has one. Its shape is `[channels]`.
    pub bias: Option<String>,
    /// The name that a bias gets if it has none.
    pub new_bias: String,
    /// Which axis of the weight counts the output channels.
    pub layout: Layout,
    /// The groups of a ConvTranspose; 1 for everything else, where they do not matter.
    pub groups: usize,
}

/// A layer and the BatchNorm that reads its output.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The layer.
    pub layer: Layer,
    /// The BatchNorm.
    pub batch_norm: BatchNormGroup,
    /// ε, if the file or the scheme says it.
    pub epsilon: Option<f64>,
    /// What a person should know before agreeing.
    pub note: Option<String>,
}

/// A BatchNorm that no layer was found for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The BatchNorm.
    pub batch_norm: BatchNormGroup,
    /// Why it stays.
    pub reason: String,
}

/// Every BatchNorm of a state dict: paired or left.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pairing {
    /// The preset that was used or recognised.
    pub preset: Option<&'static str>,
    /// The pairs, in the order of the BatchNorms in the file.
    pub pairs: Vec<Pair>,
    /// The other BatchNorms, in the same order.
    pub left: Vec<Left>,
    /// What was recognised, by what, and what is not known.
    pub notes: Vec<String>,
}
