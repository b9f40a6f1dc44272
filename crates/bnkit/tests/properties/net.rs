//! A model under construction: its message, and what is known of every value.

use bnkit_model::onnx::{Dim, TensorType};
use bnkit_model::proto::attribute_proto::AttributeType;
use bnkit_model::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use bnkit_model::{DType, Tensor};
use prost::Message;

use super::tape::Numbers;

/// A value of the graph: all that the generator has to know to go on.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) dtype: DType,
}

/// A constant that may be used again.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) role: &'static str,
    pub(crate) dims: Vec<usize>,
    pub(crate) dtype: DType,
}

/// A model under construction.
pub(crate) struct Net {
    pub(crate) opset: i64,
    pub(crate) ir_version: i64,
    pub(crate) graph: GraphProto,
    pub(crate) values: Vec<Value>,
    pub(crate) stored: Vec<Stored>,
    pub(crate) numbers: Numbers,
    /// Whether shapes of inner values are written into the file.
    pub(crate) value_info: bool,
    /// Inputs with their real dimensions: the file may say less.
    pub(crate) inputs: Vec<(String, Vec<usize>)>,
    counter: usize,
}

/// A tensor as an initializer holds it.
pub(crate) fn tensor(name: &str, dtype: DType, dims: &[usize], values: &[f64]) -> TensorProto {
    let tensor = Tensor::from_f64(dtype, dims.to_vec(), values).expect("a tensor");
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.iter().map(|&dim| dim as i64).collect(),
        data_type: Some(dtype.to_onnx()),
        raw_data: Some(tensor.data().clone()),
        ..Default::default()
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(kind as i32),
        ..Default::default()
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        i: Some(value),
        ..attribute(name, AttributeType::Int)
    }
}

pub(crate) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto {
        ints: values.iter().map(|&value| value as i64).collect(),
        ..attribute(name, AttributeType::Ints)
    }
}

pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        f: Some(value),
        ..attribute(name, AttributeType::Float)
    }
}

pub(crate) fn text(name: &str, value: &'static str) -> AttributeProto {
    AttributeProto {
        s: Some(value.into()),
        ..attribute(name, AttributeType::String)
    }
}

pub(crate) fn holding(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto {
        t: Some(value),
        ..attribute(name, AttributeType::Tensor)
    }
}

/// A declared value; a dimension given as `None` has a name instead of a size.
pub(crate) fn declared(name: &str, dtype: DType, dims: &[Option<usize>]) -> ValueInfoProto {
    let dim = |(axis, size): (usize, &Option<usize>)| match size {
        Some(size) => Dim::Known(*size as u64),
        None => Dim::Symbol(format!("{name}_{axis}").into()),
    };
    let declared = TensorType {
        dtype,
        dims: Some(dims.iter().enumerate().map(dim).collect()),
    };
    ValueInfoProto::tensor(name, &declared)
}

impl Net {
    pub(crate) fn new(opset: i64, ir_version: i64, seed: u64) -> Self {
        Self {
            opset,
            ir_version,
            graph: GraphProto {
                name: Some("net".to_owned()),
                ..Default::default()
            },
            values: Vec::new(),
            stored: Vec::new(),
            numbers: Numbers(seed),
            value_info: false,
            inputs: Vec::new(),
            counter: 0,
        }
    }

    /// A name that is not taken.
    pub(crate) fn fresh(&mut self, stem: &str) -> String {
        self.counter += 1;
        format!("{stem}_{}", self.counter)
    }

    /// A graph input; `open` axes have no size in the file.
    pub(crate) fn input(&mut self, name: &str, dtype: DType, dims: &[usize], open: &[usize]) {
        let in_file: Vec<Option<usize>> = (0..dims.len())
            .map(|axis| (!open.contains(&axis)).then_some(dims[axis]))
            .collect();
        self.graph.input.push(declared(name, dtype, &in_file));
        self.inputs.push((name.to_owned(), dims.to_vec()));
        self.values.push(Value {
            name: name.to_owned(),
            dims: dims.to_vec(),
            dtype,
        });
    }

    /// A node, and what it computes as the latest value. `inputs` may end in absent ones.
    pub(crate) fn push(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
        dtype: DType,
        dims: Vec<usize>,
    ) {
        let name = self.node(op_type, inputs, attributes);
        self.values.push(Value { name, dims, dtype });
    }

    /// A node with one output, which is not data to go on with: its name.
    pub(crate) fn node(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let name = self.fresh(op_type);
        self.graph.node.push(NodeProto {
            op_type: Some(op_type.to_owned()),
            name: Some(format!("node_{name}")),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.clone()],
            attribute: attributes,
            ..Default::default()
        });
        name
    }

    /// An initializer.
    pub(crate) fn initializer(&mut self, tensor: TensorProto) {
        self.graph.initializer.push(tensor);
    }

    /// The finished model. What nobody reads is an output.
    pub(crate) fn finish(mut self) -> ModelProto {
        let read: std::collections::HashSet<String> = (self.graph.node.iter())
            .flat_map(|node| node.input.iter().cloned())
            .collect();
        let outputs: std::collections::HashSet<String> = (self.graph.output.iter())
            .filter_map(|output| output.name.clone())
            .collect();
        let inputs = self.inputs.len();
        for (index, value) in self.values.iter().enumerate() {
            let dims: Vec<Option<usize>> = value.dims.iter().map(|&dim| Some(dim)).collect();
            let info = declared(&value.name, value.dtype, &dims);
            if index >= inputs && !read.contains(&value.name) && !outputs.contains(&value.name) {
                self.graph.output.push(info);
            } else if index >= inputs && self.value_info && !outputs.contains(&value.name) {
                self.graph.value_info.push(info);
            }
        }
        if self.ir_version < 4 {
            // There every initializer has to be an input, too.
            for tensor in &self.graph.initializer {
                let dims: Vec<Option<usize>> =
                    tensor.dims.iter().map(|&dim| Some(dim as usize)).collect();
                let dtype = DType::from_onnx(tensor.data_type());
                self.graph.input.push(declared(tensor.name(), dtype, &dims));
            }
        }
        ModelProto {
            ir_version: Some(self.ir_version),
            producer_name: Some("properties".to_owned()),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(self.opset),
            }],
            ..Default::default()
        }
    }
}

/// The model as a file holds it.
pub(crate) fn bytes(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}
