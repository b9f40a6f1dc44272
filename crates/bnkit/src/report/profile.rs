//! What a page draws of each BatchNorm: how its statistics are spread over its channels, and the ranges of the weights it went into.

use serde::Serialize;

/// A distribution over channels, by seven numbers. Values that are not finite are not in it; all are NaN (null in JSON) if none is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest value.
    pub min: f64,
    /// The 5 % quantile.
    pub q05: f64,
    /// The lower quartile.
    pub q25: f64,
    /// The middle value.
    pub median: f64,
    /// The upper quartile.
    pub q75: f64,
    /// The 95 % quantile.
    pub q95: f64,
    /// The largest value.
    pub max: f64,
    /// How many values are NaN or infinite.
    pub not_finite: usize,
}

/// The ends of a weight's elements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WeightRange {
    /// The smallest element.
    pub min: f64,
    /// The largest element.
    pub max: f64,
}

/// The weight of an operator that absorbed a BatchNorm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AbsorbingWeight {
    /// The operator's node, as in the site's `into`.
    pub node: String,
    /// Its weight in the model that was read.
    pub before: WeightRange,
    /// Its weight in the model that was written; `None` if nothing was, or the node is not found there as it was.
    pub after: Option<WeightRange>,
}

/// One BatchNorm in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// The node's name, as in the site.
    pub node: String,
    /// The scope it stands in, as in the site.
    pub scope: String,
    /// The running mean μ.
    pub mean: Spread,
    /// The deviation √(σ²+ε).
    pub deviation: Spread,
    /// The effective scale |γ|/√(σ²+ε).
    pub effective_scale: Spread,
    /// The weights that it goes into.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<AbsorbingWeight>,
}
