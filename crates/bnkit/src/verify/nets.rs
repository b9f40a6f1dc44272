//! Tiny models for the tests of the proofs.

use bnkit_model::onnx::{AttributeValue, Dim, Model, TensorType};
use bnkit_model::proto::attribute_proto::AttributeType;
use bnkit_model::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use bnkit_model::{DType, Tensor};
use prost::Message;

/// A model under construction.
pub(crate) struct Net {
    graph: GraphProto,
    opset: i64,
}

/// An attribute of numbers.
pub(crate) fn attribute(name: &str, value: AttributeValue) -> AttributeProto {
    let mut attribute = AttributeProto {
        name: Some(name.to_owned()),
        ..Default::default()
    };
    let kind = match value {
        AttributeValue::Float(value) => {
            attribute.f = Some(value);
            AttributeType::Float
        }
        AttributeValue::Int(value) => {
            attribute.i = Some(value);
            AttributeType::Int
        }
        AttributeValue::Ints(values) => {
            attribute.ints = values;
            AttributeType::Ints
        }
        AttributeValue::String(text) => {
            attribute.s = Some(text.into());
            AttributeType::String
        }
        other => panic!("{other:?}"),
    };
    attribute.r#type = Some(kind as i32);
    attribute
}

fn value(name: &str, dims: Option<&[i64]>) -> ValueInfoProto {
    let dim = |&size: &i64| u64::try_from(size).map_or(Dim::Unknown, Dim::Known);
    let declared = TensorType {
        dtype: DType::F32,
        dims: dims.map(|dims| dims.iter().map(dim).collect()),
    };
    ValueInfoProto::tensor(name, &declared)
}

impl Net {
    /// A model with one input; a negative dimension is an unknown one.
    pub(crate) fn new(input: &str, dims: &[i64]) -> Self {
        let graph = GraphProto {
            name: Some("net".to_owned()),
            ..Default::default()
        };
        Self { graph, opset: 17 }.input(input, Some(dims))
    }

    /// Another version of ONNX's own operators.
    pub(crate) fn opset(mut self, version: i64) -> Self {
        self.opset = version;
        self
    }

    /// Another input, maybe of unknown rank.
    pub(crate) fn input(mut self, name: &str, dims: Option<&[i64]>) -> Self {
        self.graph.input.push(value(name, dims));
        self
    }

    pub(crate) fn output(mut self, name: &str) -> Self {
        self.graph.output.push(value(name, None));
        self
    }

    /// An f32 initializer.
    pub(crate) fn constant(self, name: &str, dims: &[usize], values: &[f64]) -> Self {
        self.typed(name, DType::F32, dims, values)
    }

    pub(crate) fn typed(
        mut self,
        name: &str,
        dtype: DType,
        dims: &[usize],
        values: &[f64],
    ) -> Self {
        let tensor = Tensor::from_f64(dtype, dims.to_vec(), values).unwrap();
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(dtype.to_onnx()),
            raw_data: Some(tensor.data().to_vec().into()),
            ..Default::default()
        });
        self
    }

    /// A node with one output, which is also what it is called.
    pub(crate) fn node(mut self, op_type: &str, inputs: &[&str], output: &str) -> Self {
        let node = NodeProto::of(op_type, inputs.iter().copied(), [output]);
        self.graph.node.push(node.named(output));
        self
    }

    /// Gives the last node an attribute.
    pub(crate) fn with(mut self, attribute: AttributeProto) -> Self {
        self.graph
            .node
            .last_mut()
            .unwrap()
            .attribute
            .push(attribute);
        self
    }

    pub(crate) fn without_repeated_constants(mut self) -> Self {
        let mut names = std::collections::HashSet::new();
        self.graph
            .initializer
            .retain(|tensor| names.insert(tensor.name().to_owned()));
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        ModelProto::of(self.graph, self.opset).encode_to_vec()
    }

    pub(crate) fn model(self) -> Model {
        Model::from_bytes(self.bytes()).unwrap()
    }
}
