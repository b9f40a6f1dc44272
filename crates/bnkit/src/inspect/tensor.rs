//! One tensor of a checkpoint: where it is, who reads it, and what is in it.

use std::path::Path;

use bnkit_model::onnx::{Constants, Model, Origin, Payload, TensorDef, Types, Use, ValueId};
use serde::Serialize;

use crate::pipeline::describe_input;
use crate::report::{InputFile, Tool};
use crate::{Error, Result};

/// How many values a report shows.
const SHOWN: usize = 16;

/// The outcome of `inspect --tensor NAME`: schema `bnkit.tensor/1`.
#[derive(Debug, Clone, Serialize)]
pub struct TensorReport {
    /// "bnkit.tensor/1".
    pub schema: &'static str,
    /// Who wrote it.
    pub tool: Tool,
    /// What was read.
    pub input: InputFile,
    /// The tensor's name.
    pub name: String,
    /// The scope it stands in: "" is the main graph.
    pub scope: String,
    /// Its element type.
    pub dtype: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// The number of elements.
    pub elements: usize,
    /// Where the elements are: "in the model", "in FILE at OFFSET", or "computed from constants".
    pub place: String,
    /// The nodes that read it.
    pub readers: Vec<String>,
    /// What the elements are like; `None` where they are no numbers.
    pub values: Option<Values>,
}

/// What the elements of a tensor are like. NaNs count nowhere but in `not_finite`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Values {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation (population).
    pub std: f64,
    /// How many are 0.
    pub zeros: usize,
    /// How many are NaN or infinite.
    pub not_finite: usize,
    /// The first ones, in row-major order.
    pub first: Vec<f64>,
}

/// Looks at the constant tensor called `name`, in any scope (the main graph's first).
///
/// # Errors
/// If the model cannot be read, or has no constant of this name.
pub fn tensor(path: &Path, name: &str) -> Result<TensorReport> {
    let model = Model::open(path)?;
    let types = Types::derive(&model);
    let constants = Constants::new(&model, &types, true);
    let named = (0..model.value_count())
        .map(|index| model.value_id(index))
        .filter(|&id| model.value(id).name == name);
    let found = named
        .filter_map(|value| constants.tensor(value).ok().map(|tensor| (value, tensor)))
        .min_by_key(|(value, _)| model.value(*value).scope);
    let Some((value, def)) = found else {
        let message = format!(
            "there is no constant called \"{name}\"{}",
            similar(&model, name)
        );
        return Err(Error::Model(
            bnkit_model::Error::invalid(message).in_file(path),
        ));
    };
    let elements = model.read_f64(&def).ok();
    Ok(TensorReport {
        schema: "bnkit.tensor/1",
        tool: Tool::default(),
        input: describe_input(&model, path),
        name: name.to_owned(),
        scope: model.scope_path(model.value(value).scope),
        dtype: def.dtype.to_string(),
        elements: def.len(),
        place: place(&def),
        readers: readers(&model, value),
        values: elements.map(|elements| values(&elements)),
        dims: def.dims,
    })
}

fn place(tensor: &TensorDef) -> String {
    match &tensor.payload {
        Payload::Raw(_) | Payload::Typed => "in the model".to_owned(),
        Payload::External(external) => {
            format!("in {} at byte {}", external.location, external.offset)
        }
        Payload::Elsewhere(elements) => {
            let path = elements.source.path();
            let name = path.and_then(|path| path.file_name());
            let name = name.map_or("memory".into(), |name| name.to_string_lossy());
            format!("in {name} at byte {}", elements.range.start)
        }
        Payload::Computed(_) => "computed from constants".to_owned(),
    }
}

fn readers(model: &Model, value: ValueId) -> Vec<String> {
    let users = model.value(value).uses.iter();
    users
        .filter_map(|user| match *user {
            Use::Node(node, _) => Some(model.label(node).to_owned()),
            _ => None,
        })
        .collect()
}

fn values(elements: &[f64]) -> Values {
    let finite = || elements.iter().copied().filter(|value| value.is_finite());
    let count = finite().count().max(1) as f64;
    let mean = finite().sum::<f64>() / count;
    let variance = finite().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let numbers = || elements.iter().copied().filter(|value| !value.is_nan());
    Values {
        min: numbers().fold(f64::INFINITY, f64::min),
        max: numbers().fold(f64::NEG_INFINITY, f64::max),
        mean,
        std: variance.sqrt(),
        zeros: elements.iter().filter(|&&value| value == 0.0).count(),
        not_finite: elements.iter().filter(|value| !value.is_finite()).count(),
        first: elements.iter().copied().take(SHOWN).collect(),
    }
}

/// A few names that contain the one that was asked for, or that it contains.
fn similar(model: &Model, wanted: &str) -> String {
    let ids = (0..model.value_count()).map(|index| model.value_id(index));
    let constants = ids.map(|id| model.value(id)).filter(|value| {
        let tensor = value.tensor.is_some()
            || matches!(value.origin, Origin::Node(node, _) if model.node(node).is("Constant"));
        let alike =
            value.name.contains(wanted) || (!value.name.is_empty() && wanted.contains(&value.name));
        tensor && alike
    });
    let names: Vec<String> = constants
        .take(5)
        .map(|value| format!("\"{}\"", value.name))
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("; there are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_counted_and_nothing_else() {
        let values = values(&[1.0, 3.0, 0.0, f64::NAN]);
        assert_eq!(
            (values.min, values.max, values.zeros, values.not_finite),
            (0.0, 3.0, 1, 1)
        );
        // (1 + 3 + 0)/3; the variance is 14/9.
        assert!((values.mean - 4.0 / 3.0).abs() < 1e-15);
        assert!((values.std - (14.0f64 / 9.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn tensors_are_found_by_name() {
        let model = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/models/tiny_resnet.onnx"
        ));
        let report = tensor(model, "conv1.weight").unwrap();
        assert_eq!(
            (report.dims.as_slice(), report.readers.as_slice()),
            (
                [8, 3, 3, 3].as_slice(),
                ["/conv1/Conv".to_owned()].as_slice()
            )
        );
        let error = tensor(model, "conv1").unwrap_err().to_string();
        assert!(
            error.contains("tiny_resnet.onnx: there is no constant called \"conv1\"; there are"),
            "{error}"
        );
    }
}
