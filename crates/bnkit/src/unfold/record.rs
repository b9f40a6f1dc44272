//! The file that `fold --keep-stats` writes: safetensors with the numbers, and what to do with them as JSON in the
//! metadata, under the key `bnkit.unfold`. Schema `bnkit.unfold/1`.
//!
//! It says how the graph was before the fold, where that differs from the folded one. Nodes are named by scope and first
//! output, values by scope and name: names that the folded *file* has, so that other tools may have rewritten the rest.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bnkit_model::onnx::AttributeValue;
use bnkit_model::source::read_bytes;
use bnkit_model::{DType, Limits, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The schema of this version.
pub(super) const SCHEMA: &str = "bnkit.unfold/1";
/// The key in the metadata.
const KEY: &str = "bnkit.unfold";

/// What a fold took away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version that wrote it.
    pub version: String,
    /// Every BatchNorm that is gone, for people and other programs.
    pub batch_norms: Vec<Norm>,
    /// Nodes that are gone, in the order of their graph.
    pub removed: Vec<Removed>,
    /// Nodes that the fold made.
    pub added: Vec<NodeRef>,
    /// Nodes that read or write other values, or have other attributes, than before.
    pub changed: Vec<Changed>,
    /// Constants that have another content, or are gone.
    pub constants: Vec<Constant>,
    /// Constants of the folded model that must be as they were written.
    pub witnesses: Vec<Witness>,
}

/// A BatchNorm that is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Norm {
    /// The node.
    pub node: String,
    /// Its scope.
    pub scope: String,
    /// What became of it: "folded", "half-folded", "lowered" …
    pub decision: String,
    /// The nodes that absorbed it.
    pub into: Vec<String>,
    /// The nodes that it was moved through.
    pub via: Vec<String>,
}

/// A node, by the first value that it writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeRef {
    /// Its scope: "" is the main graph.
    pub scope: String,
    /// Its first output.
    pub output: String,
    /// What people call it.
    pub node: String,
    /// Its operator.
    pub operator: String,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueRef {
    /// The scope that defines it.
    pub scope: String,
    /// Its name.
    pub name: String,
}

/// A node that is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removed {
    pub scope: String,
    pub name: String,
    pub operator: String,
    pub inputs: Vec<Option<ValueRef>>,
    pub outputs: Vec<String>,
    pub attributes: Vec<(String, Attribute)>,
    /// The node that came after it, if one is left.
    pub before: Option<NodeRef>,
}

/// A node that is not as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changed {
    /// As it is in the folded model.
    pub node: NodeRef,
    /// What it reads in the folded model.
    pub reads: Vec<Option<String>>,
    /// What it read.
    pub inputs: Vec<Option<ValueRef>>,
    /// What it wrote.
    pub outputs: Vec<String>,
    /// Attributes that have another value now; null where there was none.
    pub attributes: Vec<(String, Option<Attribute>)>,
}

/// A constant, as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Constant {
    pub value: ValueRef,
    pub dims: Vec<usize>,
    pub content: Content,
}

/// Where the elements of a constant are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Content {
    /// In this file, as a whole.
    Stored {
        /// The tensor.
        tensor: String,
    },
    /// In the folded model, multiplied by factors that divide again.
    Scaled {
        /// Who reads the folded tensor.
        reader: NodeRef,
        /// In which slot.
        slot: usize,
        /// The factors: how many elements share one, and the tensor with one f64 for each.
        scales: Vec<(usize, String)>,
        /// Indices along the first of the scales that were multiplied by 0, or lost digits: their elements are in this
        /// file, in order.
        kept: Option<Kept>,
    },
}

/// Parts of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// Which indices.
    pub channels: Vec<usize>,
    /// The tensor with their elements.
    pub tensor: String,
}

/// A constant that must not have changed since the fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Witness {
    pub reader: NodeRef,
    pub slot: usize,
    /// Its name, for messages.
    pub tensor: String,
    /// SHA-256 of its elements.
    pub sha256: String,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Attribute {
    /// By its bits, so that nothing is lost on the way.
    Float(u32),
    Int(i64),
    Floats(Vec<u32>),
    Ints(Vec<i64>),
    String(String),
}

impl Attribute {
    /// What an attribute of a model holds; `None` for what is not written down (bodies, tensors …).
    pub(super) fn of(value: &AttributeValue) -> Option<Self> {
        Some(match value {
            AttributeValue::Float(value) => Self::Float(value.to_bits()),
            AttributeValue::Int(value) => Self::Int(*value),
            AttributeValue::Floats(values) => {
                Self::Floats(values.iter().map(|value| value.to_bits()).collect())
            }
            AttributeValue::Ints(values) => Self::Ints(values.clone()),
            AttributeValue::String(text) => Self::String(String::from_utf8(text.clone()).ok()?),
            _ => return None,
        })
    }

    pub(super) fn value(&self) -> AttributeValue {
        match self {
            Self::Float(bits) => AttributeValue::Float(f32::from_bits(*bits)),
            Self::Int(value) => AttributeValue::Int(*value),
            Self::Floats(values) => {
                AttributeValue::Floats(values.iter().map(|&bits| f32::from_bits(bits)).collect())
            }
            Self::Ints(values) => AttributeValue::Ints(values.clone()),
            Self::String(text) => AttributeValue::String(text.clone().into_bytes()),
        }
    }
}

/// The types that both formats have.
const DTYPES: [(DType, Dtype); 8] = [
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::F32, Dtype::F32),
    (DType::F64, Dtype::F64),
    (DType::I8, Dtype::I8),
    (DType::U8, Dtype::U8),
    (DType::I32, Dtype::I32),
    (DType::I64, Dtype::I64),
];

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Request(format!("statistics: {error}"))
}

/// The bytes of the file.
///
/// # Errors
/// If a tensor has a type that safetensors has not.
pub(super) fn encode(record: &Record, tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let views = tensors.iter().map(|(name, tensor)| {
        let dtype = DTYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype());
        let Some((_, dtype)) = dtype else {
            return Err(broken(format!("\"{name}\" is {}", tensor.dtype())));
        };
        let view = TensorView::new(*dtype, tensor.dims().to_vec(), tensor.data());
        Ok((name.as_str(), view.map_err(broken)?))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let text = serde_json::to_string(record).map_err(broken)?;
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    safetensors::serialize(views, Some(metadata)).map_err(broken)
}

/// Reads the file.
///
/// # Errors
/// If it cannot be read, is no such file, or was written by another version of the schema.
pub(super) fn read(path: &Path) -> Result<(Record, BTreeMap<String, Tensor>)> {
    let wrong = |why: String| Error::Request(format!("{}: {why}", path.display()));
    let bytes = read_bytes(path, Limits::get().kept_bytes)?;
    let not_ours = "this is not a file that `bnkit fold --keep-stats` wrote";
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
        .map_err(|error| wrong(format!("{not_ours}: {error}")))?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| wrong(not_ours.to_owned()))?;
    #[derive(Deserialize)]
    struct Versioned {
        schema: String,
    }
    let versioned: Versioned =
        serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    if versioned.schema != SCHEMA {
        let schema = versioned.schema;
        return Err(wrong(format!("expected {SCHEMA}, found {schema}")));
    }
    let record: Record = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    let file = safetensors::SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = DTYPES.iter().find(|(_, dtype)| *dtype == view.dtype());
        let (dtype, _) =
            dtype.ok_or_else(|| wrong(format!("tensor \"{name}\" is {:?}", view.dtype())))?;
        let tensor = Tensor::new(*dtype, view.shape().to_vec(), view.data().to_vec())?;
        tensors.insert(name.to_owned(), tensor);
    }
    Ok((record, tensors))
}
