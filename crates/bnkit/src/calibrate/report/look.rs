//! What `run` and `stats` say: schemas `bnkit.run/1` and `bnkit.stats/1`.

use serde::Serialize;

use super::{DataUsed, Extremes, LayerName};
use crate::accuracy::AccuracyStage;
use crate::report::{InputFile, Refusal, Tool, Warning};

/// How far two modes are apart at one output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputDistance {
    /// The output's name.
    pub name: String,
    /// The largest absolute difference.
    pub max_abs: f64,
    /// The same relative to the range of the eval-mode output.
    pub max_rel: f64,
    /// The root of the mean squared difference.
    pub rms: f64,
    /// How often the largest element along the class axis is the same one; `None` where that means nothing.
    pub argmax_agreement: Option<f64>,
}

/// How far the batches' statistics are from the stored ones at one BatchNorm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NormDistance {
    /// Which one.
    #[serde(flatten)]
    pub layer: LayerName,
    /// |m_b − μ|/√(σ²+ε), over channels and batches; `None` if it has no running statistics or never ran.
    pub mean_distance: Option<Extremes>,
    /// ln((v_b+ε)/(σ²+ε)), over channels and batches.
    pub log_variance_ratio: Option<Extremes>,
}

/// One output of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputSummary {
    /// The output's name.
    pub name: String,
    /// The mode it ran in: "train" or "eval".
    pub mode: &'static str,
    /// Element type and dimensions of all samples together.
    pub dtype: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The mean value.
    pub mean: f64,
    /// How many values are NaN or infinite.
    pub not_finite: u64,
}

/// The outcome of `run`: schema `bnkit.run/1`.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// "bnkit.run/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The data.
    pub data: DataUsed,
    /// What the network gives.
    pub outputs: Vec<OutputSummary>,
    /// With both modes: how far they are apart at each output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub distances: Vec<OutputDistance>,
    /// How often the network is right in each mode, if the data has labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accuracy: Vec<AccuracyStage>,
    /// In train mode: how far the batches are from the stored statistics at each BatchNorm.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub batch_norms: Vec<NormDistance>,
    /// Things that a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The file with the outputs, if one was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}

/// The running statistics of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStats {
    /// Which one.
    #[serde(flatten)]
    pub layer: LayerName,
    /// The name of the mean's tensor.
    pub mean_name: String,
    /// The name of the variance's tensor.
    pub variance_name: String,
    /// The type that the mean is stored in.
    pub dtype: String,
    /// ε as stored; NaN (null in JSON) for a state dict, which does not say it.
    pub epsilon: f64,
    /// The weight of the history, as stored; NaN (null in JSON) for a state dict.
    pub momentum: f64,
    /// The running mean of each channel.
    pub mean: Vec<f64>,
    /// The running variance of each channel.
    pub variance: Vec<f64>,
    /// Over the channels.
    pub mean_summary: Extremes,
    /// Over the channels.
    pub variance_summary: Extremes,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// The outcome of `stats`: schema `bnkit.stats/1`.
#[derive(Debug, Clone, Serialize)]
pub struct StatsReport {
    /// "bnkit.stats/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// Every layer, in the order of the graph or of the file.
    pub layers: Vec<LayerStats>,
    /// The file that was written, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}
