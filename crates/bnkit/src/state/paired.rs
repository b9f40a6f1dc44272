//! A pairing as a graph: for each pair a layer and its BatchNorm, with an input and an output of their own. What a fold
//! does to this graph is what it does to the checkpoint, so there is one fold for all.
//!
//! A layer is written as the operator that its weight belongs to: Conv, ConvTranspose, Gemm. Weights of Keras and flax,
//! whose output channels come last, are a matrix of as many columns. Strides, pads and the groups of a Conv do not matter
//! to what follows a layer, so they are left out, and the input is just as large as the kernel.

use std::collections::HashMap;

use bnkit_model::onnx::{Edit, Model, TensorType, ValueId};
use bnkit_model::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, ValueInfoProto, attribute_proto, tensor_proto,
};
use bnkit_model::safetensors::{StateDict, Tensor, dtype_of};
use bnkit_model::{DType, Error as ModelError};
use prost::Message;

use super::bind::{Bound, Tie};
use super::groups::BatchNormGroup;
use super::pairing::{Layer, Layout, Pair};
use crate::{Error, Result};

/// The graph of a pairing.
pub(crate) struct Paired {
    /// The graph, tied to the checkpoint.
    pub(crate) bound: Bound,
    /// What a new bias is called, by the weight.
    pub(crate) biases: HashMap<usize, String>,
}

/// The operator set: the first in which a BatchNorm's parameters may have types of their own.
const OPSET: i64 = 15;

/// Makes the graph of `pairs`, each of which must have an epsilon.
///
/// # Errors
/// If a tensor is missing, or has a type that nothing is computed in.
pub(crate) fn graph(pairs: &[Pair], dict: &StateDict) -> Result<Paired> {
    let mut maker = Maker {
        dict,
        graph: GraphProto::default(),
        wanted: Vec::new(),
        biases: HashMap::new(),
    };
    for (number, pair) in pairs.iter().enumerate() {
        maker.pair(number, pair)?;
    }
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        }],
        graph: Some(maker.graph),
        ..Default::default()
    };
    let mut model = Model::from_bytes(model.encode_to_vec())?;
    let by_name: HashMap<String, ValueId> = (0..model.value_count())
        .map(|index| model.value_id(index))
        .map(|value| (model.value(value).name.to_string(), value))
        .collect();
    let mut values = HashMap::new();
    let mut edits = Vec::new();
    for (name, place, dims) in maker.wanted {
        let (tensor, value) = (&dict.tensors()[place], by_name[&name]);
        let tie = Tie {
            tensor: place,
            transposed: false,
        };
        values.insert(value, tie);
        edits.push(Edit::BorrowConstant {
            value,
            dtype: float(dict, tensor)?,
            dims: dims.into(),
            elements: dict.stored(tensor),
        });
    }
    model.apply(&edits)?;
    Ok(Paired {
        bound: Bound::tied(model, values),
        biases: maker.biases,
    })
}

struct Maker<'d> {
    dict: &'d StateDict,
    graph: GraphProto,
    /// Initializers: name, number of the tensor, dimensions in the graph.
    wanted: Vec<(String, usize, Vec<usize>)>,
    biases: HashMap<usize, String>,
}

impl<'d> Maker<'d> {
    fn pair(&mut self, number: usize, pair: &Pair) -> Result<()> {
        let Pair {
            layer, batch_norm, ..
        } = pair;
        let (place, weight) = self.tensor(&layer.weight)?;
        let dtype = float(self.dict, weight)?;
        self.biases.insert(place, layer.new_bias.clone());
        let operator = Operator::of(layer, weight, self.dict)?;
        let (input, between, output) = (
            format!("bnkit:{number}:input"),
            format!("bnkit:{number}:between"),
            format!("bnkit:{number}:output"),
        );
        self.initializer(&layer.weight, operator.weight)?;
        let mut inputs = vec![input.clone(), layer.weight.clone()];
        if let Some(bias) = &layer.bias {
            let (_, tensor) = self.tensor(bias)?;
            if float(self.dict, tensor)? != dtype {
                let message = format!("it is {}, its weight is {}", tensor.dtype, weight.dtype);
                return Err(self
                    .dict
                    .in_tensor(tensor, ModelError::invalid(message))
                    .into());
            }
            let shape = tensor.shape.clone();
            self.initializer(bias, shape)?;
            inputs.push(bias.clone());
        }
        self.graph.input.push(value(&input, dtype, &operator.input));
        self.graph.node.push(NodeProto {
            name: Some(layer.module.clone()),
            op_type: Some(operator.op_type.to_owned()),
            input: inputs,
            output: vec![between.clone()],
            attribute: operator.attributes,
            ..Default::default()
        });
        let mut inputs = vec![between];
        for (role, name) in roles(batch_norm) {
            match name {
                Some(name) => {
                    let (_, tensor) = self.tensor(name)?;
                    let shape = tensor.shape.clone();
                    self.initializer(name, shape)?;
                    inputs.push(name.to_owned());
                }
                None => inputs.push(self.constant(number, role, batch_norm)?),
            }
        }
        let epsilon = pair.epsilon.ok_or_else(|| no_epsilon(pair))?;
        self.graph.node.push(NodeProto {
            name: Some(batch_norm.module.clone()),
            op_type: Some("BatchNormalization".to_owned()),
            input: inputs,
            output: vec![output.clone()],
            attribute: vec![AttributeProto {
                name: Some("epsilon".to_owned()),
                r#type: Some(attribute_proto::AttributeType::Float as i32),
                f: Some(epsilon as f32),
                ..Default::default()
            }],
            ..Default::default()
        });
        let dims = [&[1, batch_norm.channels], operator.positions.as_slice()].concat();
        self.graph.output.push(value(&output, dtype, &dims));
        Ok(())
    }

    fn tensor(&self, name: &str) -> Result<(usize, &'d Tensor)> {
        let place = self.dict.position(name).ok_or_else(|| {
            Error::Request(format!("tensor \"{name}\": it is not in the checkpoint"))
        })?;
        Ok((place, &self.dict.tensors()[place]))
    }

    /// An initializer that will be a tensor of the checkpoint; until then it points nowhere.
    fn initializer(&mut self, name: &str, dims: Vec<usize>) -> Result<()> {
        let (place, tensor) = self.tensor(name)?;
        let dtype = float(self.dict, tensor)?;
        let entry = StringStringEntryProto {
            key: Some("location".to_owned()),
            value: Some("checkpoint".to_owned()),
        };
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(dtype.to_onnx()),
            data_location: Some(tensor_proto::DataLocation::External as i32),
            external_data: vec![entry],
            ..Default::default()
        });
        self.wanted.push((name.to_owned(), place, dims));
        Ok(())
    }

    /// A γ of ones or a β of zeros, for a BatchNorm that has none.
    fn constant(&mut self, number: usize, role: &str, group: &BatchNormGroup) -> Result<String> {
        let (_, mean) = self.tensor(&group.mean)?;
        let dtype = float(self.dict, mean)?;
        let filling = if role == "scale" { 1.0 } else { 0.0 };
        let values = vec![filling; group.channels];
        let tensor = bnkit_model::Tensor::from_f64(dtype, vec![group.channels], &values)?;
        let name = format!("bnkit:{number}:{role}");
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: vec![group.channels as i64],
            data_type: Some(dtype.to_onnx()),
            raw_data: Some(tensor.data().clone()),
            ..Default::default()
        });
        Ok(name)
    }
}

/// The parameters of a BatchNorm in the order of ONNX's inputs.
fn roles(group: &BatchNormGroup) -> [(&'static str, Option<&str>); 4] {
    [
        ("scale", group.gamma.as_deref()),
        ("bias", group.beta.as_deref()),
        ("mean", Some(&group.mean)),
        ("variance", Some(&group.variance)),
    ]
}

/// An operator with a weight.
struct Operator {
    op_type: &'static str,
    attributes: Vec<AttributeProto>,
    /// The dimensions of the weight in the graph.
    weight: Vec<usize>,
    input: Vec<usize>,
    /// The dimensions of the output behind the channels.
    positions: Vec<usize>,
}

impl Operator {
    fn of(layer: &Layer, weight: &Tensor, dict: &StateDict) -> Result<Self> {
        let shape = &weight.shape;
        let unfit = || {
            let message = format!("shape {shape:?} is none of such a layer");
            Error::from(dict.in_tensor(weight, ModelError::invalid(message)))
        };
        let int = |name: &str, value: usize| AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(attribute_proto::AttributeType::Int as i32),
            i: Some(value as i64),
            ..Default::default()
        };
        let input = |channels: usize| [&[1, channels], shape.get(2..).unwrap_or_default()].concat();
        let matrix = |columns: Option<usize>| {
            let columns = columns.filter(|&columns| columns > 0).ok_or_else(unfit)?;
            let rows = weight.len() / columns;
            Ok::<Self, Error>(Self {
                op_type: "Gemm",
                attributes: Vec::new(),
                weight: vec![rows, columns],
                input: vec![1, rows],
                positions: Vec::new(),
            })
        };
        Ok(match (layer.layout, shape.len()) {
            (_, 0 | 1) => return Err(unfit()),
            (Layout::OutFirst, 2) => Self {
                op_type: "Gemm",
                attributes: vec![int("transB", 1)],
                weight: shape.clone(),
                input: vec![1, shape[1]],
                positions: Vec::new(),
            },
            (Layout::OutFirst, _) => Self {
                op_type: "Conv",
                attributes: Vec::new(),
                weight: shape.clone(),
                input: input(shape[1]),
                positions: vec![1; shape.len() - 2],
            },
            (Layout::Transposed, 2) => return Err(unfit()),
            (Layout::Transposed, _) => Self {
                op_type: "ConvTranspose",
                attributes: vec![int("group", layer.groups)],
                weight: shape.clone(),
                input: [&[1, shape[0]], vec![1; shape.len() - 2].as_slice()].concat(),
                positions: shape[2..].to_vec(),
            },
            (Layout::OutLast, rank) => matrix(Some(shape[rank - 1]))?,
            (Layout::OutLastTwo, rank) => matrix(shape[rank - 2].checked_mul(shape[rank - 1]))?,
        })
    }
}

fn value(name: &str, dtype: DType, dims: &[usize]) -> ValueInfoProto {
    ValueInfoProto::tensor(name, &TensorType::known(dtype, dims))
}

/// The type of a tensor that is computed with.
fn float(dict: &StateDict, tensor: &Tensor) -> Result<DType> {
    let dtype = dtype_of(tensor.dtype).filter(|dtype| dtype.is_float());
    dtype.ok_or_else(|| {
        let message = format!("nothing is computed with {}", tensor.dtype);
        dict.in_tensor(tensor, ModelError::invalid(message)).into()
    })
}

fn no_epsilon(pair: &Pair) -> Error {
    Error::Request(format!(
        "\"{}\": nobody says its epsilon, which is not in the checkpoint (PyTorch's default is 1e-5; Keras, GoogLeNet, Inception, MobileNetV3 and EfficientNetV2 use 1e-3): say it with --eps, or in the pairing file",
        pair.batch_norm.module
    ))
}
