//! What calibration says about its work, as values: the JSON contracts `bnkit.recalibrate/1`, `bnkit.validate/1`, `bnkit.run/1`,
//! `bnkit.stats/1` and `bnkit.merge/1` are these types, serialised.
//!
//! Units: a mean shift is |Δμ|/√(σ²+ε) with the *stored* variance; a log variance ratio is ln((σ²_new+ε)/(σ²_stored+ε)); standard
//! errors are in the same units. A layer is one module of the network: usually one BatchNorm node, several if it is called several
//! times. Numbers that JSON cannot hold (a NaN, an infinity) are null there.

use serde::Serialize;

use super::options::{Convention, Method, Shard};
use crate::report::{Finding, FoldReport, InputFile, OutputFile, Refusal, Tool, Warning};

/// The data that was used.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DataUsed {
    /// The path as it was given.
    pub path: String,
    /// How many samples ran (in each pass).
    pub samples: u64,
    /// In how many batches.
    pub batches: u64,
    /// Samples per full batch.
    pub batch_size: usize,
    /// Which part of the batches, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// Whether it ended early because the statistics were stable.
    pub stopped_early: bool,
}

/// How the statistics were made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodUsed {
    /// The method.
    pub name: Method,
    /// Whose reading of momentum and variance holds.
    pub convention: Convention,
    /// The weight of the history, if all layers have the same; each layer tells its own. For `ema` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_weight: Option<f64>,
}

/// What became of a BatchNorm's statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// They are new.
    Updated,
    /// It never ran (a branch that was not taken): they stay.
    NeverRan,
    /// They cannot be replaced, for the reason in its refusal.
    Kept,
    /// Left alone because the user said so.
    Skipped,
}

/// A distribution over channels, by its ends and its middle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Extremes {
    /// The smallest value.
    pub min: f64,
    /// The middle value.
    pub median: f64,
    /// The largest value.
    pub max: f64,
}

/// Which BatchNorm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerName {
    /// The node's name (or that of its first output, if it has none).
    pub node: String,
    /// Other nodes that are calls of the same module: they read the same γ, β, mean and variance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<String>,
    /// The scope it stands in: "" is the main graph.
    pub scope: String,
    /// How many channels it has.
    pub channels: usize,
}

/// One layer, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerChange {
    /// Which one.
    #[serde(flatten)]
    pub layer: LayerName,
    /// What became of it.
    pub outcome: Outcome,
    /// Why its statistics stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The weight of the history; for `ema` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_weight: Option<f64>,
    /// In how many batches it ran.
    pub batches: u64,
    /// How many elements per channel it saw.
    pub elements: u64,
    /// The change; `None` if its statistics stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// How certain the new statistics are; `None` with fewer than two batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SamplingError>,
}

/// The change of one layer's statistics, over its channels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// |Δμ|/√(σ²+ε).
    pub mean_shift: Extremes,
    /// ln((σ²_new+ε)/(σ²_stored+ε)).
    pub log_variance_ratio: Extremes,
    /// The mean before.
    pub mean_before: Extremes,
    /// The mean after.
    pub mean_after: Extremes,
    /// The variance before.
    pub variance_before: Extremes,
    /// The variance after.
    pub variance_after: Extremes,
}

/// Standard errors of one layer's statistics, over its channels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SamplingError {
    /// Of the mean, in units of √(σ²+ε).
    pub mean: Extremes,
    /// Of the variance, relative to σ²+ε.
    pub variance: Extremes,
}

/// Whether enough data was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sampling {
    /// The verdict; `None` with too few batches to say.
    pub enough: Option<bool>,
    /// The share of channels whose standard errors are within the tolerance.
    pub settled: f64,
    /// The standard error up to which a channel is settled.
    pub tolerance: f64,
    /// About how many samples would be enough, if it is not enough and can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_needed: Option<u64>,
}

/// One pass of `sequential`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pass {
    /// The number of the pass, from 1.
    pub pass: usize,
    /// The largest |Δμ|/√(σ²+ε) against the pass before (the stored values, for the first).
    pub mean_change: f64,
    /// The largest |ln(variance ratio)| against the pass before.
    pub variance_change: f64,
}

/// A file with a shard's moments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartialFile {
    /// The path as it was given.
    pub path: String,
    /// Which shard.
    pub shard: Shard,
    /// Whether all its batches are in it; an interrupted job leaves fewer.
    pub complete: bool,
    /// How many batches are in it.
    pub batches: u64,
    /// How many samples are in it.
    pub samples: u64,
}

/// How many layers have which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LayerCounts {
    /// All.
    pub layers: usize,
    /// With new statistics.
    pub updated: usize,
    /// Never ran.
    pub never_ran: usize,
    /// Cannot be replaced.
    pub kept: usize,
    /// Left alone because the user said so.
    pub skipped: usize,
}

/// The outcome of `recalibrate`: schema `bnkit.recalibrate/1`.
#[derive(Debug, Clone, Serialize)]
pub struct RecalibrateReport {
    /// "bnkit.recalibrate/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The data; `None` for statistics from a file.
    pub data: Option<DataUsed>,
    /// The method; `None` for statistics from a file.
    pub method: Option<MethodUsed>,
    /// The numbers.
    pub summary: LayerCounts,
    /// Every layer, in graph order.
    pub layers: Vec<LayerChange>,
    /// The passes; for `sequential` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passes: Vec<Pass>,
    /// Whether enough data was seen; `None` for statistics from a file.
    pub sampling: Option<Sampling>,
    /// Things that a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The shard's moments, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<PartialFile>,
    /// The fold that followed, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Box<FoldReport>>,
    /// What was written; `None` for a shard, or if nothing was written.
    pub output: Option<OutputFile>,
    /// Why the answer is "no" (exit code 1, nothing written), in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The outcome of `merge`: schema `bnkit.merge/1`.
#[derive(Debug, Clone, Serialize)]
pub struct MergeReport {
    /// "bnkit.merge/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The shards, in order.
    pub partials: Vec<PartialFile>,
    /// How the statistics were made.
    pub method: MethodUsed,
    /// Samples of all shards.
    pub samples: u64,
    /// Batches of all shards.
    pub batches: u64,
    /// The numbers.
    pub summary: LayerCounts,
    /// Every layer, in graph order.
    pub layers: Vec<LayerChange>,
    /// Whether enough data was seen.
    pub sampling: Sampling,
    /// Things that a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// The fold that followed, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Box<FoldReport>>,
    /// What was written; `None` if nothing was written.
    pub output: Option<OutputFile>,
    /// Why the answer is "no" (exit code 1, nothing written), in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

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
    /// ε as stored.
    pub epsilon: f64,
    /// The weight of the history, as stored.
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
    /// Every layer, in graph order.
    pub layers: Vec<LayerStats>,
    /// The file that was written, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}
