//! What `validate` says: schema `bnkit.validate/1`.

use serde::Serialize;

use super::{DataUsed, Extremes, LayerName, MethodUsed, Outcome, Sampling};
use crate::accuracy::Accuracy;
use crate::report::{Finding, InputFile, Refusal, Tool, Warning};

/// The limits that drift was judged by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// The largest |Δμ|/√(σ²+ε).
    pub max_mean_drift: f64,
    /// The largest |ln((σ²_observed+ε)/(σ²+ε))|.
    pub max_var_drift: f64,
    /// The largest symmetric KL divergence.
    pub max_kl: f64,
    /// How many standard errors a difference must be.
    pub errors: f64,
}

/// One channel, stored and observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelDrift {
    /// The layer's node.
    pub node: String,
    /// Which channel.
    pub channel: usize,
    /// The stored mean.
    pub stored_mean: f64,
    /// The observed mean.
    pub observed_mean: f64,
    /// The stored variance.
    pub stored_variance: f64,
    /// The observed variance.
    pub observed_variance: f64,
    /// |Δμ|/√(σ²+ε).
    pub mean_drift: f64,
    /// ln((σ²_observed+ε)/(σ²+ε)).
    pub var_drift: f64,
    /// The symmetric KL divergence.
    pub kl: f64,
    /// The standard error of the observed mean, in units of √(σ²+ε); `None` with fewer than two batches.
    pub mean_error: Option<f64>,
    /// The standard error of the logarithm of the observed variance (plus ε); `None` with fewer than two batches.
    pub var_error: Option<f64>,
    /// Whether it counts as drifted.
    pub drifted: bool,
}

/// One layer, stored against observed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerDrift {
    /// Which one.
    #[serde(flatten)]
    pub layer: LayerName,
    /// "updated" stands for "compared".
    pub outcome: Outcome,
    /// Why it was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// How many elements per channel it saw.
    pub elements: u64,
    /// |Δμ|/√(σ²+ε) over the channels.
    pub mean_drift: Extremes,
    /// |ln((σ²_observed+ε)/(σ²+ε))| over the channels.
    pub var_drift: Extremes,
    /// The symmetric KL divergence over the channels.
    pub kl: Extremes,
    /// How many channels count as drifted.
    pub drifted: usize,
    /// The symmetric KL divergence of each channel, for a bar or a sparkline.
    pub kl_by_channel: Vec<f64>,
}

/// The outcome of `validate`: schema `bnkit.validate/1`.
#[derive(Debug, Clone, Serialize)]
pub struct ValidateReport {
    /// "bnkit.validate/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The data.
    pub data: DataUsed,
    /// How the observed statistics were made.
    pub method: MethodUsed,
    /// The limits.
    pub limits: Limits,
    /// Whether no channel drifted.
    pub valid: bool,
    /// How many channels drifted.
    pub drifted_channels: usize,
    /// How many layers have such a channel.
    pub drifted_layers: usize,
    /// How many channels were compared.
    pub channels: usize,
    /// Every layer, in graph order.
    pub layers: Vec<LayerDrift>,
    /// The channels with the largest KL divergence, worst first; drifted ones before others.
    pub worst: Vec<ChannelDrift>,
    /// Whether enough data was seen.
    pub sampling: Sampling,
    /// How often the network is right with its stored statistics, if the data has labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// Statistics that no data can be compared with (NaN, a negative variance): they make the model invalid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Finding>,
    /// Things that a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Why the answer is "no" (exit code 1), in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
