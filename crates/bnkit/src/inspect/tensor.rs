//! One tensor of a checkpoint: where it is, who reads it, and what is in it.

use std::path::Path;

use bnkit_model::onnx::{Constants, Model, Origin, TensorDef, Types, Use, ValueId};
use serde::Serialize;

use super::values::{self, Values};
use crate::checkpoint::{Checkpoint, Content, ElementType, place};
use crate::report::{InputFile, Tool};
use crate::{Error, Result};

/// So many names are proposed for one that is not there.
const PROPOSED: usize = 5;
/// Names that are less alike (Jaro–Winkler) are not proposed.
const ALIKE: f64 = 0.8;

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
    /// Its element type, as the file's format calls it.
    pub dtype: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// The number of elements.
    pub elements: u64,
    /// How many bytes they take; 0 if that is not known.
    pub bytes: u64,
    /// Where the elements are: "in the model", "in FILE at OFFSET", or "computed from constants".
    pub place: String,
    /// The nodes that read it; `None` for a state dict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<Vec<String>>,
    /// What the elements are like; `None` where there are none, or they are no numbers.
    pub values: Option<Values>,
}

/// Looks at the tensor called `name`: of a graph, a constant in any scope (the main graph's first), expressions of constants
/// included.
///
/// # Errors
/// If the file cannot be read, or has no tensor of this name.
pub fn tensor(path: &Path, name: &str) -> Result<TensorReport> {
    let checkpoint = Checkpoint::open(path)?;
    match &checkpoint.content {
        Content::Onnx(model) => in_graph(&checkpoint, model, name),
        Content::StateDict(_) => in_state_dict(&checkpoint, name),
    }
}

fn in_state_dict(checkpoint: &Checkpoint, name: &str) -> Result<TensorReport> {
    let entries = checkpoint.entries();
    let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
        let names = entries.iter().map(|entry| entry.name.as_str());
        return Err(missing(checkpoint, "tensor", name, names));
    };
    let values = match entry.dtype.number() {
        Some(dtype) => values::read(&checkpoint.elements(entry)?, dtype)
            .map_err(|error| checkpoint.in_tensor(entry, error))?,
        None => None,
    };
    Ok(TensorReport {
        schema: "bnkit.tensor/1",
        tool: Tool::default(),
        input: checkpoint.describe(),
        name: name.to_owned(),
        scope: String::new(),
        dtype: entry.dtype.name.clone(),
        elements: entry.len(),
        bytes: entry.bytes,
        place: entry.place(checkpoint),
        readers: None,
        values,
        dims: entry.dims.clone(),
    })
}

fn in_graph(checkpoint: &Checkpoint, model: &Model, name: &str) -> Result<TensorReport> {
    let types = Types::derive(model);
    let constants = Constants::new(model, &types, true);
    let named = (0..model.value_count())
        .map(|index| model.value_id(index))
        .filter(|&id| model.value(id).name == name);
    let found = named
        .filter_map(|value| constants.tensor(value).ok().map(|tensor| (value, tensor)))
        .min_by_key(|(value, _)| model.value(*value).scope);
    let Some((value, def)) = found else {
        return Err(missing(checkpoint, "constant", name, constant_names(model)));
    };
    Ok(TensorReport {
        schema: "bnkit.tensor/1",
        tool: Tool::default(),
        input: checkpoint.describe(),
        name: name.to_owned(),
        scope: model.scope_path(model.value(value).scope),
        dtype: def.dtype.to_string(),
        elements: def.len() as u64,
        bytes: def.dtype.byte_len(def.len() as u64).unwrap_or(0),
        place: place(&def),
        readers: Some(readers(model, value)),
        values: values_of(model, &def)?,
        dims: def.dims.to_vec(),
    })
}

fn values_of(model: &Model, def: &TensorDef) -> Result<Option<Values>> {
    let element = ElementType {
        name: String::new(),
        onnx: Some(def.dtype),
    };
    Ok(match element.number() {
        Some(dtype) => values::read(&model.elements(def)?, dtype)?,
        None => None,
    })
}

fn readers(model: &Model, value: ValueId) -> Vec<String> {
    let users = model.value(value).uses.iter();
    users
        .filter_map(|user| match *user {
            Use::Node(node, _) => Some(model.label(node).to_string()),
            _ => None,
        })
        .collect()
}

fn constant_names(model: &Model) -> impl Iterator<Item = &str> {
    let ids = (0..model.value_count()).map(|index| model.value_id(index));
    let constants = ids.map(|id| model.value(id)).filter(|value| {
        value.tensor.is_some()
            || matches!(value.origin, Origin::Node(node, _) if model.node(node).is("Constant"))
    });
    constants.map(|value| value.name.as_str())
}

fn missing<'n>(
    checkpoint: &Checkpoint,
    kind: &str,
    name: &str,
    names: impl Iterator<Item = &'n str>,
) -> Error {
    let nearest = nearest(name, names);
    let nearest: Vec<String> = nearest.iter().map(|name| format!("\"{name}\"")).collect();
    let hint = match nearest.as_slice() {
        [] => String::new(),
        names => format!("; there are {}", names.join(", ")),
    };
    let message = format!("there is no {kind} called \"{name}\"{hint}");
    Error::Model(bnkit_model::Error::invalid(message).in_file(&checkpoint.path))
}

/// The names that are most like `wanted`: those that contain it (or that it contains) first, then by their letters.
fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let likeness = |name: &str| {
        let contains = name.contains(wanted) || (!name.is_empty() && wanted.contains(name));
        let letters = strsim::jaro_winkler(wanted, name);
        (contains || letters >= ALIKE).then_some(letters + if contains { 1.0 } else { 0.0 })
    };
    let mut alike: Vec<(f64, &str)> = names
        .filter_map(|name| Some((likeness(name)?, name)))
        .collect();
    // Stable: of equally like names the first in the file comes first.
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    alike
        .into_iter()
        .map(|(_, name)| name)
        .take(PROPOSED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_found_by_name() {
        let model = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/models/tiny_resnet.onnx"
        ));
        let report = tensor(model, "conv1.weight").unwrap();
        assert_eq!(report.dims, [8, 3, 3, 3]);
        assert_eq!((report.elements, report.bytes), (216, 864));
        assert_eq!(report.readers, Some(vec!["/conv1/Conv".to_owned()]));
        let error = tensor(model, "conv1").unwrap_err().to_string();
        assert!(
            error.contains("tiny_resnet.onnx: there is no constant called \"conv1\"; there are"),
            "{error}"
        );
    }

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["fc.weight", "layer1.bn1.weight", "layer1.bn1.bias", "x"];
        assert_eq!(nearest("bn1.bias", names.into_iter()), ["layer1.bn1.bias"]);
        assert_eq!(nearest("layer1.bn1.wieght", names.into_iter())[0], names[1]);
        assert!(nearest("zzz", names.into_iter()).is_empty());
    }
}
