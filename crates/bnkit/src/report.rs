//! What bnkit says about its work, as values: the JSON contracts `bnkit.fold/1`, `bnkit.inspect/1` and
//! `bnkit.verify/1` are these types, serialised. Printing them for people is the command line's business.
//!
//! A `schema` value never changes its meaning: fields may be added, a new meaning gets a new number.

use std::borrow::Cow;
use std::collections::BTreeMap;

mod norms;
mod profile;

use bnkit_model::onnx::Name;
use serde::Serialize;

pub use crate::state::{Binding, PairReport, StateReport};
pub use norms::{AffineNode, Chain, ChainKind, DataNorm};
pub use profile::{AbsorbingWeight, Profile, Spread, WeightRange};

/// Name and version of the program that wrote a report.
#[derive(Debug, Clone, Serialize)]
pub struct Tool {
    /// Always "bnkit".
    pub name: &'static str,
    /// The version of this library.
    pub version: &'static str,
}

impl Default for Tool {
    fn default() -> Self {
        Self {
            name: "bnkit",
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// A model file that was read.
#[derive(Debug, Clone, Default, Serialize)]
pub struct InputFile {
    /// The path as it was given.
    pub path: String,
    /// SHA-256 of the model file, if it was asked for.
    pub sha256: Option<String>,
    /// Size of the model file (and of the external data it refers to), in bytes.
    pub bytes: u64,
    /// The version of ONNX's own operators.
    pub opset: Option<i64>,
    /// The IR version.
    pub ir_version: i64,
    /// The tool that wrote the file, as it says.
    pub producer: String,
}

/// A model file that was written.
#[derive(Debug, Clone, Default, Serialize)]
pub struct OutputFile {
    /// The path as it was given.
    pub path: String,
    /// SHA-256 of the model file, if it was asked for.
    pub sha256: Option<String>,
    /// Size of the model file and its data file, in bytes.
    pub bytes: u64,
    /// The external data file, if one was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// What became of a BatchNorm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Absorbed by other operators.
    Folded,
    /// Its scale is absorbed, its shift stays as an Add.
    HalfFolded,
    /// Part of branches that became one operator.
    Merged,
    /// Written as Mul and Add.
    Lowered,
    /// Left alone, for the reason in its refusal.
    Kept,
    /// Left alone because the user said so.
    Skipped,
}

/// Why something was left alone: a stable code for programs, a sentence for people, and what was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refusal {
    /// The stable code; `bnkit explain CODE` says more.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// What was seen: names of nodes, values and numbers.
    pub evidence: BTreeMap<&'static str, Evidence>,
}

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Evidence {
    /// A name or a text.
    Text(String),
    /// A number.
    Number(f64),
    /// Several names.
    List(Vec<String>),
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
            Self::List(list) => f.write_str(&list.join(", ")),
        }
    }
}

/// One BatchNorm and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Site {
    /// The node's name (or that of its first output, if it has none).
    pub node: Name,
    /// For a state dict: the module whose parameters it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// The value that it computes.
    pub output: Name,
    /// The scope it stands in: "" is the main graph, else the path of the body, or the function.
    pub scope: Name,
    /// How many channels it has; 0 if its parameters are not known.
    pub channels: usize,
    /// Whether the file has it in training mode.
    pub training_mode: bool,
    /// What became of it.
    pub decision: Decision,
    /// The nodes that absorbed it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub into: Vec<Name>,
    /// The nodes that it was moved through, nearest first.
    pub via: Vec<Name>,
    /// The rule that absorbed it, as in "into-conv".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// Why it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Things about it that a person should know: codes of warnings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// Something about a BatchNorm or the model that a person should know, and that changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Warning {
    /// The stable code; `bnkit explain CODE` says more.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
}

/// One thing that was tidied up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cleanup {
    /// The node (or constant) that it happened to.
    pub node: Name,
    /// "removed", "to-eval", "outputs-dropped", "constant-dropped" …
    pub action: &'static str,
    /// More about it, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Operators that became one Conv (`--merge-branches`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merge {
    /// The rule: "merge-branches" or "merge-sequence".
    pub rule: &'static str,
    /// The Conv that they became.
    pub into: Name,
    /// The nodes that are gone.
    pub merged: Vec<Name>,
    /// Elements of weights, biases and BatchNorm vectors before (BatchNorms behind a Conv are folded by then).
    pub parameters_before: u64,
    /// Elements of the weight and the bias after.
    pub parameters_after: u64,
    /// Multiplications per sample before, if shapes are known: one for each weight and position.
    pub macs_before: Option<u64>,
    /// The same after.
    pub macs_after: Option<u64>,
}

/// Operators that look as if they could become one Conv, and why they did not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergeRefusal {
    /// The node at which they meet: the last Add, or the second Conv.
    pub node: Name,
    /// Why.
    pub refusal: Refusal,
}

/// The numbers of a fold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// BatchNorms in the model, in all scopes.
    pub batch_norms: usize,
    /// Those that are folded.
    pub folded: usize,
    /// Those whose shift stays.
    pub half_folded: usize,
    /// Those merged with branches.
    pub merged: usize,
    /// Those written as Mul and Add.
    pub lowered: usize,
    /// Those left alone.
    pub kept: usize,
    /// Those left alone because the user said so.
    pub skipped: usize,
    /// Mul, Add, Sub and Div nodes by constants that were absorbed too.
    pub affines_folded: usize,
    /// BatchNorms and Dropouts that were in training mode and are in eval mode now.
    pub to_eval: usize,
    /// Nodes of all scopes before.
    pub nodes_before: usize,
    /// Nodes of all scopes after.
    pub nodes_after: usize,
}

impl Summary {
    /// The share of the BatchNorms that are gone as such (folded, half folded, merged, lowered), from 0 to 1. Skipped ones do not count;
    /// of none, all are gone.
    pub fn folded_share(&self) -> f64 {
        match self.batch_norms - self.skipped {
            0 => 1.0,
            asked => 1.0 - self.kept as f64 / asked as f64,
        }
    }
}

/// The outcome of `fold`: schema `bnkit.fold/1`.
#[derive(Debug, Clone, Serialize)]
pub struct FoldReport {
    /// "bnkit.fold/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The numbers.
    pub summary: Summary,
    /// Every BatchNorm, in graph order.
    pub sites: Vec<Site>,
    /// Operators that became one Conv.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merges: Vec<Merge>,
    /// Operators that did not, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merges_refused: Vec<MergeRefusal>,
    /// Chains of Mul, Add, Sub and Div by constants per channel, and those that were folded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Chain>,
    /// Normalisations that cannot be folded, because their statistics come from the data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_norms: Vec<DataNorm>,
    /// What else was tidied up.
    pub cleanup: Vec<Cleanup>,
    /// Warnings about the model as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Errors in the statistics: they end with exit code 1 and no output.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Finding>,
    /// How equal the result is. `None` only for a dry run.
    pub verification: Option<Verification>,
    /// The file that `unfold` needs, if one was asked for and written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_stats: Option<String>,
    /// What a page draws of each BatchNorm; empty unless [`crate::profile::profiles`] was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// For a state dict: where its pairs come from, and what happens to its tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateReport>,
    /// What was written. `None` for a dry run, or if nothing was written.
    pub output: Option<OutputFile>,
    /// Why the answer is "no" (exit code 1, nothing written), in one sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// An error in a BatchNorm's statistics or parameters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The stable code.
    pub code: &'static str,
    /// The BatchNorm.
    pub node: Name,
    /// One sentence with tensor, channel and number.
    pub message: String,
}

/// How equal two models are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Algebra, f64 and the stored model all agree.
    Equivalent,
    /// What could be checked agrees, but not all could be: the engine cannot run the model (algebra agrees then, and each site's
    /// neighbourhood on its own), or nothing comparable came out of it. The notes say which.
    EquivalentLocal,
    /// They differ.
    NotEquivalent,
    /// Nothing was checked, as asked.
    Skipped,
}

impl Verdict {
    /// The word that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equivalent => "equivalent",
            Self::EquivalentLocal => "equivalent-local",
            Self::NotEquivalent => "not-equivalent",
            Self::Skipped => "skipped",
        }
    }
}

/// The proof.
#[derive(Debug, Clone, Serialize)]
pub struct Verification {
    /// The verdict.
    pub verdict: Verdict,
    /// What ran the models: "tract", or "onnxruntime" and its version.
    pub engine: Cow<'static, str>,
    /// How many samples were run.
    pub samples: usize,
    /// Level 1: the constants, recomputed on their own.
    pub algebra: Option<AlgebraSummary>,
    /// Level 2: both models in f64.
    pub f64: Option<F64Summary>,
    /// The BatchNorm whose fold breaks the model, if one was found.
    pub culprit: Option<String>,
    /// Level 3: the model as shipped, by output.
    pub outputs: Vec<OutputComparison>,
    /// Why the verdict is weaker than `equivalent`, or what was left out: in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Level 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlgebraSummary {
    /// How many folds were recomputed.
    pub checked: usize,
    /// The largest distance of a stored constant from the recomputed one, in units of its last place.
    pub max_ulp: f64,
}

/// Level 2.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct F64Summary {
    /// The largest difference, relative to the output's range.
    pub max_rel: f64,
}

/// Level 3, one output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputComparison {
    /// The output's name.
    pub name: String,
    /// The largest absolute difference.
    pub max_abs: f64,
    /// The same relative to the output's range.
    pub max_rel: f64,
    /// The root of the mean squared difference.
    pub rms: f64,
    /// Signal to noise, in decibels; `None` if there is no difference.
    pub snr_db: Option<f64>,
    /// How often the largest element is the same one; `None` where that means nothing.
    pub argmax_agreement: Option<f64>,
    /// The error that the arithmetic itself makes: what no fold can be better than.
    pub noise_floor: f64,
    /// The largest absolute difference that is accepted.
    pub tolerance: f64,
    /// Whether it is accepted.
    pub within: bool,
}

/// The outcome of `verify A B`: schema `bnkit.verify/1`.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// "bnkit.verify/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// The first model: the yardstick.
    pub a: InputFile,
    /// The second model.
    pub b: InputFile,
    /// The comparison.
    pub verification: Verification,
    /// Why the answer is "no" (exit code 1), in one sentence: whoever asked judges, the comparison does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The outcome of `inspect`: schema `bnkit.inspect/1`.
#[derive(Debug, Clone, Serialize)]
pub struct InspectReport {
    /// "bnkit.inspect/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// Inputs of the main graph that a caller gives.
    pub inputs: Vec<Port>,
    /// Outputs of the main graph.
    pub outputs: Vec<Port>,
    /// Number of elements in all constant tensors.
    pub parameters: u64,
    /// Bytes of all constant tensors.
    pub parameter_bytes: u64,
    /// Operators and how often they occur, most frequent first.
    pub operators: Vec<OperatorCount>,
    /// Nodes in all scopes.
    pub nodes: usize,
    /// Key and value pairs of the file.
    pub metadata: Vec<(String, String)>,
    /// Every BatchNorm.
    pub batch_norms: Vec<BatchNormInfo>,
    /// Chains of Mul, Add, Sub and Div by constants that are per channel, or that `fold` would fold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chains: Vec<Chain>,
    /// Normalisations that cannot be folded, because their statistics come from the data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_norms: Vec<DataNorm>,
    /// What a page draws of each BatchNorm; empty unless [`crate::profile::profiles`] was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// What usually explains that there is no BatchNorm, if there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// An input or output.
#[derive(Debug, Clone, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, as declared.
    pub dtype: String,
    /// Its dimensions: numbers, names or "?"; `None` for an unknown rank.
    pub dims: Option<Vec<String>>,
}

/// An operator and how often it occurs.
#[derive(Debug, Clone, Serialize)]
pub struct OperatorCount {
    /// The operator, with its domain in front if it is not ONNX's own.
    pub op: String,
    /// How often.
    pub count: usize,
}

/// A BatchNorm as it lies in the file, with the route it would take.
#[derive(Debug, Clone, Serialize)]
pub struct BatchNormInfo {
    /// What `fold` would do with it.
    #[serde(flatten)]
    pub site: Site,
    /// ε as stored.
    pub epsilon: f64,
    /// The momentum attribute, as stored; ONNX reads it as the weight of the history.
    pub momentum: f64,
    /// The shape of what it normalises, as far as known.
    pub shape: Option<Vec<String>>,
    /// γ, β, mean and variance: name, type, smallest, largest and mean value.
    pub tensors: Vec<ParameterStats>,
    /// Errors in its statistics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Finding>,
}

/// One parameter vector of a BatchNorm.
#[derive(Debug, Clone, Serialize)]
pub struct ParameterStats {
    /// "scale", "bias", "mean" or "variance".
    pub role: &'static str,
    /// The tensor's name.
    pub name: String,
    /// Its element type.
    pub dtype: String,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The mean value.
    pub mean: f64,
}
