//! Which inputs and outputs a model has, as far as the file says.

use bnkit_model::DType;
use prost::Message;
use tract_onnx::pb;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::type_proto::Value as TypeValue;

use crate::{EngineError, Outline, Result};

/// One dimension of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(usize),
    /// A name: dimensions of the same name have the same size.
    Symbol(String),
    /// Nothing is said.
    Unknown,
}

/// An input or output of a model. `dims` is `None` when not even the rank is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The value's name.
    pub name: String,
    /// The declared element type.
    pub dtype: DType,
    /// The declared dimensions.
    pub dims: Option<Vec<Dim>>,
}

/// The inputs that a caller has to give: graph inputs that no initializer fills.
///
/// # Errors
/// If the bytes are no ONNX model, or an input is not a tensor.
pub fn inputs(model: &[u8]) -> Result<Vec<InputSpec>> {
    Outline::read(model)?.inputs()
}

/// The model's structure.
pub(crate) fn decode(model: &[u8]) -> Result<pb::ModelProto> {
    pb::ModelProto::decode(model)
        .map_err(|error| EngineError::model(format!("not an ONNX model: {error}")))
}

/// The model's graph.
pub(crate) fn graph(model: &pb::ModelProto) -> Result<&pb::GraphProto> {
    model.graph.as_ref().ok_or_else(no_graph)
}

pub(crate) fn no_graph() -> EngineError {
    EngineError::model("the model has no graph")
}

/// Graph inputs that no initializer fills.
pub(crate) fn true_inputs(graph: &pb::GraphProto) -> impl Iterator<Item = &pb::ValueInfoProto> {
    let filled: std::collections::HashSet<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    graph
        .input
        .iter()
        .filter(move |input| !filled.contains(input.name.as_str()))
}

/// A declared value.
pub(crate) fn spec(info: &pb::ValueInfoProto) -> Result<InputSpec> {
    let Some(TypeValue::TensorType(tensor)) =
        info.r#type.as_ref().and_then(|kind| kind.value.as_ref())
    else {
        return Err(EngineError::unsupported_model(format!(
            "{:?} is not a tensor, or its type is not declared",
            info.name
        )));
    };
    let dims = tensor.shape.as_ref().map(|shape| {
        shape
            .dim
            .iter()
            .map(|dim| match &dim.value {
                Some(DimValue::DimValue(size)) => {
                    usize::try_from(*size).map_or(Dim::Unknown, Dim::Fixed)
                }
                Some(DimValue::DimParam(name)) if !name.is_empty() && name != "?" => {
                    Dim::Symbol(name.clone())
                }
                _ => Dim::Unknown,
            })
            .collect()
    });
    Ok(InputSpec {
        name: info.name.clone(),
        dtype: DType::from_onnx(tensor.elem_type),
        dims,
    })
}
