//! What calibration says about its work, as values: the JSON contracts `bnkit.recalibrate/1`, `bnkit.validate/1`, `bnkit.run/1`,
//! `bnkit.stats/1` and `bnkit.merge/1` are these types, serialised.
//!
//! Units: a mean shift is |Δμ|/√(σ²+ε) with the *stored* variance; a log variance ratio is ln((σ²_new+ε)/(σ²_stored+ε)); standard
//! errors are in the same units. A layer is one module of the network: usually one BatchNorm node, several if it is called several
//! times. Numbers that JSON cannot hold (a NaN, an infinity) are null there.

mod drift;
mod look;

use serde::Serialize;

use super::options::{Convention, Method, Shard};
use crate::accuracy::AccuracyReport;
use crate::report::{FoldReport, InputFile, OutputFile, Refusal, Tool, Warning};

pub use drift::*;
pub use look::*;

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
    /// How often the network is right, before and after, if the data has labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyReport>,
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
