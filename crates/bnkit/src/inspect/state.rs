//! What is in a state dict, from its headers and from the small vectors of its BatchNorms only: a checkpoint of many gigabytes
//! is looked at in milliseconds. Reading all of it is `scan`'s business.

use std::collections::BTreeMap;
use std::path::Path;

use bnkit_model::safetensors::StateDict;
use serde::Serialize;

use super::values::{self, Ends};
use crate::checkpoint::{describe_state_dict, of_state_dict};
use crate::explain::{Explanation, Kind};
use crate::report::{Finding, InputFile, ParameterStats, Tool};
use crate::state::groups::{self, BatchNormGroup, Groups, Naming};
use crate::{Error, Result};

/// What the code of a half BatchNorm means.
pub(crate) const INCOMPLETE_GROUP: Explanation = Explanation {
    code: "incomplete-group",
    kind: Kind::Error,
    title: "tensors that look like a BatchNorm's and do not fit together",
    text: "\
In a state dict a BatchNorm is known by the names of its tensors (`M.running_mean`, `M.running_var` …, `M/moving_mean`,
`M/moving_variance` …, `batch_stats/M/mean`, `batch_stats/M/var` …). Here one of them is missing, has another number of channels, or
is no vector of floats. The module is shown and nothing is computed with it.

What to do: compare with the code that wrote the file. A shard that was left out, a state dict that was filtered by name, or a layer that
only happens to use such a name are the usual reasons.",
};

/// The outcome of `inspect` on a state dict: schema `bnkit.inspect-state/1`.
#[derive(Debug, Clone, Serialize)]
pub struct StateReport {
    /// "bnkit.inspect-state/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read; without a hash, which would take reading all of it.
    pub input: InputFile,
    /// "safetensors", or "safetensors-index" for a checkpoint with an index.
    pub format: &'static str,
    /// Its files.
    pub files: Vec<StateFile>,
    /// The `metadata` of the index, in order; values that are no strings are JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
    /// How many tensors there are.
    pub tensors: usize,
    /// How many elements they have.
    pub parameters: u64,
    /// How many bytes these take.
    pub parameter_bytes: u64,
    /// The same by element type, most bytes first.
    pub dtypes: Vec<DtypeCount>,
    /// The BatchNorms, in the order of the file.
    pub batch_norms: Vec<StateBatchNorm>,
    /// What is wrong: codes `bad-statistics` and `incomplete-group`.
    pub problems: Vec<Finding>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateFile {
    /// Its name in the folder of the checkpoint.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// How many tensors it holds.
    pub tensors: usize,
    /// Its `__metadata__`, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<(String, String)>,
}

/// Tensors of one element type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DtypeCount {
    /// The type, as safetensors calls it.
    pub dtype: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many elements.
    pub parameters: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// A BatchNorm of a state dict. Nothing in the file tells it from an InstanceNorm with running statistics.
#[derive(Debug, Clone, Serialize)]
pub struct StateBatchNorm {
    /// The path of its module.
    pub module: String,
    /// How its tensors are named: "torch", "keras" or "flax".
    pub naming: &'static str,
    /// How many channels it has.
    pub channels: usize,
    /// Mean, variance, scale and bias, as far as they are there.
    pub tensors: Vec<ParameterStats>,
    /// How many batches it was trained on, if the file counts them.
    pub batches: Option<i64>,
}

/// Looks at a state dict.
///
/// # Errors
/// If it cannot be read, or breaks the rules of the format.
pub fn state(path: &Path) -> Result<StateReport> {
    let dict = StateDict::open(path)?;
    let Groups { groups, problems } = find(&dict);
    let mut found: Vec<Finding> = problems
        .into_iter()
        .map(|problem| Finding {
            code: "incomplete-group",
            node: problem.module.into(),
            message: problem.message,
        })
        .collect();
    let mut batch_norms = Vec::with_capacity(groups.len());
    for group in &groups {
        batch_norms.push(batch_norm(&dict, group, &mut found)?);
    }
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(StateReport {
        schema: "bnkit.inspect-state/1",
        tool: Tool::default(),
        input: describe_state_dict(&dict, path),
        format: if dict.is_sharded() {
            "safetensors-index"
        } else {
            "safetensors"
        },
        files: files(&dict),
        metadata: dict
            .index_metadata()
            .iter()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
        tensors: dict.tensors().len(),
        parameters: dict.tensors().iter().map(|it| it.len() as u64).sum(),
        parameter_bytes: dict.tensors().iter().map(|it| it.bytes()).sum(),
        dtypes: dtypes(&dict),
        batch_norms,
        problems: found,
    })
}

/// The BatchNorms of a state dict.
pub(crate) fn find(dict: &StateDict) -> Groups {
    let entries: Vec<groups::Entry> = dict
        .tensors()
        .iter()
        .map(|tensor| groups::Entry {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            is_float: tensor.is_float(),
        })
        .collect();
    groups::find(&entries)
}

fn files(dict: &StateDict) -> Vec<StateFile> {
    let count = |shard| dict.tensors().iter().filter(|it| it.shard == shard).count();
    let shards = dict.shards().iter().enumerate();
    shards
        .map(|(at, shard)| StateFile {
            name: shard.name.clone(),
            bytes: shard.source.len(),
            tensors: count(at),
            metadata: shard.metadata.clone().unwrap_or_default(),
        })
        .collect()
}

fn dtypes(dict: &StateDict) -> Vec<DtypeCount> {
    let mut counts: BTreeMap<String, DtypeCount> = BTreeMap::new();
    for tensor in dict.tensors() {
        let dtype = tensor.dtype.to_string();
        let count = counts.entry(dtype.clone()).or_insert(DtypeCount {
            dtype,
            tensors: 0,
            parameters: 0,
            bytes: 0,
        });
        count.tensors += 1;
        count.parameters += tensor.len() as u64;
        count.bytes += tensor.bytes();
    }
    let mut counts: Vec<DtypeCount> = counts.into_values().collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.bytes));
    counts
}

fn batch_norm(
    dict: &StateDict,
    group: &BatchNormGroup,
    problems: &mut Vec<Finding>,
) -> Result<StateBatchNorm> {
    let roles = [
        ("mean", Some(&group.mean)),
        ("variance", Some(&group.variance)),
        ("scale", group.gamma.as_ref()),
        ("bias", group.beta.as_ref()),
    ];
    let mut tensors = Vec::new();
    for (role, name) in roles {
        let Some(name) = name else { continue };
        let (dtype, values) = vector(dict, name)?;
        problems.extend(wrong(role, name, &values).map(|message| Finding {
            code: "bad-statistics",
            node: group.module.as_str().into(),
            message,
        }));
        let mut ends = Ends::default();
        ends.add(&values);
        tensors.push(ParameterStats {
            role,
            name: name.clone(),
            dtype,
            min: ends.min,
            max: ends.max,
            // A NaN shows.
            mean: values.iter().sum::<f64>() / values.len().max(1) as f64,
        });
    }
    let batches = match &group.batches {
        Some(name) => number(dict, name)?,
        None => None,
    };
    Ok(StateBatchNorm {
        module: group.module.clone(),
        naming: match group.naming {
            Naming::Torch => "torch",
            Naming::Keras => "keras",
            Naming::Flax => "flax",
        },
        channels: group.channels,
        tensors,
        batches,
    })
}

/// The first value that no BatchNorm can have. ε is not known here, so that every negative variance counts.
fn wrong(role: &str, name: &str, values: &[f64]) -> Option<String> {
    let bad = |value: &f64| !value.is_finite() || (role == "variance" && *value < 0.0);
    let channel = values.iter().position(bad)?;
    let count = values.iter().filter(|value| bad(value)).count();
    Some(format!(
        "tensor \"{name}\": {role} is {} in channel {channel} ({count} such channels)",
        values[channel]
    ))
}

/// A vector of floats and the name of its type.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn vector(dict: &StateDict, name: &str) -> Result<(String, Vec<f64>)> {
    let tensor = dict
        .tensor(name)
        .ok_or_else(|| Error::Request(format!("tensor \"{name}\": it is not in the checkpoint")))?;
    let values = dict.read(tensor)?.to_f64();
    let values = values.map_err(|error| dict.in_tensor(tensor, error))?;
    Ok((tensor.dtype.to_string(), values))
}

/// A single integer; `None` if it is no integer.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn number(dict: &StateDict, name: &str) -> Result<Option<i64>> {
    let Some(tensor) = dict.tensor(name) else {
        return Ok(None);
    };
    let entry = of_state_dict(tensor);
    let Some(dtype) = entry.dtype.number().filter(|_| tensor.len() == 1) else {
        return Ok(None);
    };
    let mut value = None;
    values::each_chunk(&dict.stored(tensor), dtype, |values| {
        value = values.first().copied();
    })
    .map_err(|error| dict.in_tensor(tensor, error))?;
    // An f64 holds every count of batches that a training reaches.
    let whole = |value: &f64| value.fract() == 0.0 && value.abs() < 9.0e15;
    Ok(value.filter(whole).map(|value| value as i64))
}
