//! What reports say of normalisations that are no BatchNorm node.

use bnkit_model::onnx::Name;
use serde::Serialize;

use super::{Decision, Refusal};

/// A chain of Mul, Add, Sub and Div by constants, each the only reader of the one before.
#[derive(Debug, Clone, Serialize)]
pub struct Chain {
    /// What it stands for.
    pub kind: ChainKind,
    /// How many channels it tells apart.
    pub channels: usize,
    /// Its nodes, in graph order.
    pub nodes: Vec<AffineNode>,
}

/// What a chain stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainKind {
    /// A BatchNorm written out: (x − mean) times (or over) a scale, or a scale that is still computed from a variance.
    BatchNorm,
    /// A scale and a shift for each channel: what is left of a BatchNorm whose constants were folded.
    ScaleAndShift,
    /// Any other.
    Affine,
}

/// A node of a chain and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct AffineNode {
    /// The node's name (or that of its output, if it has none).
    pub node: Name,
    /// Folded or kept.
    pub decision: Decision,
    /// The nodes that absorbed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub into: Vec<Name>,
    /// The nodes that it was moved through.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Name>,
    /// The rule that absorbed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// Why it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// A normalisation whose statistics come from the data: InstanceNorm, GroupNorm, LayerNorm and the like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataNorm {
    /// The node, or the one that a written-out one begins with.
    pub node: Name,
    /// What it is: "LayerNorm" …
    pub kind: &'static str,
    /// Whether it is written out in elementary operators.
    pub written_out: bool,
    /// The stable code; `bnkit explain CODE` says more.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
}
