//! A model's structure, decoded without its large constants: these stay where they are, and become tract's tensors in one step, in the
//! type that they are computed in. Decoding a model whole, widening it and handing it to tract would each copy all weights once more.
//!
//! What is taken apart are the floats of the main graph's initializers, in `raw_data` or in another file. A model that says something
//! twice (a graph, a constant), or is no protobuf, is decoded whole: protobuf has rules for the former, and words for the latter.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bnkit_model::{DType, wire};
use prost::Message;
use tract_onnx::pb::{ModelProto, TensorProto, TypeProto, ValueInfoProto, type_proto};
use tract_onnx::prelude::Tensor;

use crate::constant::{byte_len, datum_type, dims, external, fits, is_external};
use crate::normalise::{Context, widen_elements};
use crate::{EngineError, Result, spec};

/// Constants of fewer bytes are decoded with the model: rewrites may read them.
const LARGE: usize = 4096;

/// The `data_location` of a tensor whose elements were taken apart: ONNX knows 0 and 1.
const APART: u64 = i32::MAX as u64;

/// Numbers of fields in `ModelProto`, `GraphProto` and `TensorProto`.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const DATA_TYPE: u32 = 2;
const NAME: u32 = 8;
const RAW_DATA: u32 = 9;
const DATA_LOCATION: u32 = 14;

/// A model without its large constants, and where these lie.
pub(crate) struct Apart<'a> {
    pub(crate) model: ModelProto,
    elements: Elements<'a>,
}

/// Stored type and little-endian elements of constants, by name; no elements where the tensor says which file they are in.
type Elements<'a> = HashMap<String, (DType, Option<&'a [u8]>)>;

/// Large constants as tract has them, by name.
pub(crate) type Weights = HashMap<String, Arc<Tensor>>;

/// Whether the elements of a tensor were taken apart.
pub(crate) fn is_apart(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(APART as i32)
}

impl<'a> Apart<'a> {
    /// Decodes a serialized model.
    ///
    /// # Errors
    /// If the bytes are no ONNX model.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut elements = Elements::new();
        let structure = structure(bytes, &mut elements);
        if let Some(mut model) = structure.and_then(|bytes| ModelProto::decode(&*bytes).ok()) {
            let graph = model.graph.iter_mut();
            for tensor in graph.flat_map(|graph| &mut graph.initializer) {
                let dtype = DType::from_onnx(tensor.data_type);
                let large = byte_len(tensor, dtype).is_ok_and(|bytes| bytes >= LARGE);
                if large && dtype.is_float() && is_external(tensor) {
                    elements.insert(tensor.name.clone(), (dtype, None));
                    tensor.data_location = Some(APART as i32);
                }
            }
            return Ok(Self { model, elements });
        }
        Ok(Self {
            model: spec::decode(bytes)?,
            elements: Elements::new(),
        })
    }

    /// Makes tensors of what was taken apart, in the type that the model, normalised in the meantime, computes them in. The graph has
    /// them as inputs from now on.
    ///
    /// # Errors
    /// If a tensor has not the number of elements that its shape says.
    pub(crate) fn take_weights(&mut self, context: &Context) -> Result<Weights> {
        let mut weights = Weights::new();
        let Some(graph) = self.model.graph.as_mut() else {
            return Ok(weights);
        };
        let mut declared: HashSet<String> =
            graph.input.iter().map(|input| input.name.clone()).collect();
        for tensor in graph.initializer.extract_if(.., |tensor| is_apart(tensor)) {
            let Some(&(from, elements)) = self.elements.get(&tensor.name) else {
                let what = format!("tensor {:?} has no elements", tensor.name);
                return Err(EngineError::model(what));
            };
            let weight = weight(&tensor, from, elements, context)?;
            if declared.insert(tensor.name.clone()) {
                graph.input.push(as_input(&tensor));
            }
            weights.insert(tensor.name, Arc::new(weight));
        }
        Ok(weights)
    }
}

fn weight(
    tensor: &TensorProto,
    from: DType,
    elements: Option<&[u8]>,
    context: &Context,
) -> Result<Tensor> {
    let wrong = |what: String| EngineError::model(format!("tensor {:?}: {what}", tensor.name));
    let read;
    let elements = match elements {
        Some(elements) => elements,
        None => {
            read = external(tensor, context.model_dir, byte_len(tensor, from)?)?;
            &read
        }
    };
    fits(tensor, from, byte_len(tensor, from)?, elements.len())?;
    let to = context.precision.widened(from);
    let kind = datum_type(to).ok_or_else(|| wrong(format!("{to} cannot be run")))?;
    let mut weight =
        Tensor::zero_dt(kind, &dims(tensor)?).map_err(|error| wrong(error.to_string()))?;
    let out = weight.as_bytes_mut();
    widen_elements(&tensor.name, from, elements, context, out)?;
    Ok(weight)
}

fn as_input(tensor: &TensorProto) -> ValueInfoProto {
    let kind = type_proto::Tensor {
        elem_type: tensor.data_type,
        shape: None,
    };
    ValueInfoProto {
        name: tensor.name.clone(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(kind)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The serialized model without its large constants; `None` where it says something twice, or is malformed.
fn structure<'a>(model: &'a [u8], elements: &mut Elements<'a>) -> Option<Vec<u8>> {
    let mut out = vec![];
    let mut graphs = 0;
    for field in fields(model) {
        let field = field?;
        if field.number == GRAPH {
            graphs += 1;
            wire::put_bytes_field(&mut out, GRAPH, &graph(field.payload?, elements)?);
        } else {
            out.extend(field.whole);
        }
    }
    (graphs == 1).then_some(out)
}

fn graph<'a>(graph: &'a [u8], elements: &mut Elements<'a>) -> Option<Vec<u8>> {
    let mut out = vec![];
    let mut names = HashSet::new();
    for field in fields(graph) {
        let field = field?;
        if field.number != INITIALIZER {
            out.extend(field.whole);
            continue;
        }
        let tensor = field.payload?;
        let (name, large) = large(tensor)?;
        if !names.insert(name) {
            return None;
        }
        match large {
            Some((dtype, structure, raw)) => {
                elements.insert(name.to_owned(), (dtype, Some(raw)));
                wire::put_bytes_field(&mut out, INITIALIZER, &structure);
            }
            None => out.extend(field.whole),
        }
    }
    Some(out)
}

/// Type, structure and elements of a constant that can be taken apart.
type Large<'a> = (DType, Vec<u8>, &'a [u8]);

/// The name of a tensor, and if it can be taken apart, its parts; `None` where it says something twice, or is malformed.
fn large(tensor: &[u8]) -> Option<(&str, Option<Large<'_>>)> {
    let mut rest = vec![];
    let (mut name, mut raw, mut dtype, mut located) = (None, None, None, false);
    for field in fields(tensor) {
        let field = field?;
        let before = match field.number {
            NAME => name.replace(field.payload?).is_some(),
            RAW_DATA => raw.replace(field.payload?).is_some(),
            DATA_TYPE => dtype.replace(field.value).is_some(),
            _ => false,
        };
        if before {
            return None;
        }
        located |= field.number == DATA_LOCATION;
        if field.number != RAW_DATA {
            rest.extend(field.whole);
        }
    }
    let name = std::str::from_utf8(name.unwrap_or_default()).ok()?;
    let dtype = DType::from_onnx(i32::try_from(dtype.unwrap_or_default()).ok()?);
    let raw = raw.filter(|raw| raw.len() >= LARGE && dtype.is_float() && !located);
    let large = raw.map(|raw| {
        wire::put_varint_field(&mut rest, DATA_LOCATION, APART);
        (dtype, rest, raw)
    });
    Some((name, large))
}

/// A field of a message.
struct Field<'a> {
    number: u32,
    /// With its tag and its length.
    whole: &'a [u8],
    /// What it holds, if that is bytes.
    payload: Option<&'a [u8]>,
    /// A varint's value.
    value: u64,
}

/// The fields of a message in order; the last is `None` where it is malformed.
fn fields(message: &[u8]) -> impl Iterator<Item = Option<Field<'_>>> {
    let mut rest = message;
    let mut broken = false;
    std::iter::from_fn(move || {
        if rest.is_empty() || broken {
            return None;
        }
        let field = first(&mut rest);
        broken = field.is_none();
        Some(field)
    })
}

/// Takes the first field of a message.
fn first<'a>(message: &mut &'a [u8]) -> Option<Field<'a>> {
    let start = *message;
    let tag = varint(message)?;
    let (mut payload, mut value) = (None, 0);
    match tag & 7 {
        0 => value = varint(message)?,
        1 => drop(message.split_off(..8)?),
        2 => {
            let length = usize::try_from(varint(message)?).ok()?;
            payload = Some(message.split_off(..length)?);
        }
        5 => drop(message.split_off(..4)?),
        // A group: no file of today has one.
        _ => return None,
    }
    Some(Field {
        number: u32::try_from(tag >> 3).ok()?,
        whole: &start[..start.len() - message.len()],
        payload,
        value,
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
