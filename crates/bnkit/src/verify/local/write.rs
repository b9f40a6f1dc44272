//! A cut as a model of its own, in doubles.
//!
//! Constants are written as initializers, whatever they were: expressions of constants are evaluated. Inputs and outputs
//! are named by their position; other names are made unique by the ids of their values.

use std::collections::{HashMap, HashSet};

use bnkit_model::onnx::{
    Attribute, AttributeValue, Constants, Model, NodeId, Payload, TensorDef, TensorType, Types,
    ValueId,
};
use bnkit_model::proto::attribute_proto::AttributeType;
use bnkit_model::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use bnkit_model::{DType, tensor::encode_f64};
use prost::Message;

/// From this version of the format on, initializers need not be inputs.
const IR_VERSION: i64 = 8;

/// Writes `nodes` as a model with these inputs (and their names and dimensions) and outputs.
pub(super) fn model(
    (model, types): (&Model, &Types),
    nodes: &HashSet<NodeId>,
    (inputs, declarations): (&[ValueId], &[(String, Vec<usize>)]),
    outputs: &[ValueId],
) -> Result<Vec<u8>, String> {
    let Some(&any) = nodes.iter().next() else {
        return Err("nothing is left of it".to_owned());
    };
    let scope = model.node(any).scope;
    if nodes.iter().any(|&node| model.node(node).scope != scope) {
        return Err("it reaches into a body".to_owned());
    }
    let mut writer = Writer {
        model,
        constants: Constants::new(model, types, true),
        graph: GraphProto {
            name: Some("neighbourhood".to_owned()),
            ..Default::default()
        },
        names: HashMap::new(),
    };
    for (&value, (name, dims)) in inputs.iter().zip(declarations) {
        if writer.names.insert(value, name.clone()).is_some() {
            return Err("two of its inputs have become one".to_owned());
        }
        writer
            .graph
            .input
            .push(declared(name.clone(), DType::F64, Some(dims)));
    }
    let order = model
        .topological_order(scope)
        .map_err(|error| error.to_string())?;
    for id in order.into_iter().filter(|id| nodes.contains(id)) {
        writer.node(id)?;
    }
    for (index, &value) in outputs.iter().enumerate() {
        // A value that is an input, or that is given out twice, needs a name of its own.
        let output = format!("output{index}");
        let input = writer.operand(value)?;
        writer.graph.node.push(NodeProto {
            op_type: Some("Identity".to_owned()),
            input: vec![input],
            output: vec![output.clone()],
            name: Some(output.clone()),
            ..Default::default()
        });
        let dtype = types.dtype(value).filter(|dtype| !dtype.is_float());
        let dtype = dtype.unwrap_or(DType::F64);
        writer.graph.output.push(declared(output, dtype, None));
    }
    let opset = |(domain, version): &(String, i64)| OperatorSetIdProto {
        domain: Some(domain.clone()),
        version: Some(*version),
    };
    let model = ModelProto {
        ir_version: Some(model.ir_version.max(IR_VERSION)),
        opset_import: model.scope(scope).opsets.iter().map(opset).collect(),
        graph: Some(writer.graph),
        ..Default::default()
    };
    Ok(model.encode_to_vec())
}

struct Writer<'m> {
    model: &'m Model,
    constants: Constants<'m>,
    graph: GraphProto,
    /// The names of inputs, initializers and results.
    names: HashMap<ValueId, String>,
}

impl Writer<'_> {
    fn node(&mut self, id: NodeId) -> Result<(), String> {
        let node = self.model.node(id);
        let mut proto = NodeProto {
            op_type: Some(node.op_type.to_string()),
            domain: Some(node.domain.to_string()),
            name: Some(self.model.label(id).to_string()),
            ..Default::default()
        };
        for input in &node.inputs {
            proto.input.push(match input {
                Some(value) => self.operand(*value)?,
                None => String::new(),
            });
        }
        for output in &node.outputs {
            proto.output.push(match output {
                Some(value) => self.define(*value),
                None => String::new(),
            });
        }
        for attribute in &node.attributes {
            let written = self.attribute(&node.op_type, attribute);
            let at = |why| format!("{}: {why}", self.model.describe(id));
            proto.attribute.push(written.map_err(at)?);
        }
        self.graph.node.push(proto);
        Ok(())
    }

    /// The name of a value; a constant is written first.
    fn operand(&mut self, value: ValueId) -> Result<String, String> {
        if let Some(name) = self.names.get(&value) {
            return Ok(name.clone());
        }
        if let Some((id, _)) = self.model.producer(value)
            && self.model.node(id).is("DequantizeLinear")
        {
            return self.dequantize(id, value);
        }
        let tensor = self.constants.tensor(value);
        let tensor = tensor.map_err(|why| why.explain(self.model))?;
        let mut tensor = self.tensor(&tensor)?;
        let name = self.define(value);
        tensor.name = Some(name.clone());
        self.graph.initializer.push(tensor);
        Ok(name)
    }

    /// A constant behind a DequantizeLinear: as that node, because the int32 of a folded bias has digits behind the point
    /// until it is stored.
    fn dequantize(&mut self, id: NodeId, value: ValueId) -> Result<String, String> {
        let node = self.model.node(id);
        let codes = node
            .input(0)
            .filter(|codes| !self.names.contains_key(codes));
        let exact =
            codes.and_then(|codes| Some((codes, self.model.value(codes).tensor.as_deref()?)));
        if let Some((codes, tensor)) = exact
            && tensor.dtype == DType::I32
            && matches!(tensor.payload, Payload::Computed(_))
        {
            let mut wide = tensor.clone();
            wide.dtype = DType::F64;
            let mut tensor = self.tensor(&wide)?;
            let name = self.define(codes);
            tensor.name = Some(name);
            self.graph.initializer.push(tensor);
        }
        self.node(id)?;
        let written = self.names.get(&value).cloned();
        written.ok_or_else(|| "a DequantizeLinear without an output".to_owned())
    }

    fn define(&mut self, value: ValueId) -> String {
        let name = format!("{}/{}", self.model.value(value).name, value.index());
        self.names.insert(value, name.clone());
        name
    }

    /// A tensor; floats as doubles, and not rounded if they are computed.
    fn tensor(&self, tensor: &TensorDef) -> Result<TensorProto, String> {
        let read = |error: bnkit_model::Error| error.to_string();
        let mut data = Vec::new();
        let dtype = if tensor.dtype.is_float() {
            let bytes = tensor.len().saturating_mul(size_of::<f64>());
            data.reserve_exact(bytes);
            let chunk = |_, values: &[f64]| encode_f64(DType::F64, values, &mut data);
            self.model.for_each_chunk(tensor, chunk).map_err(read)?;
            DType::F64
        } else {
            data.extend_from_slice(self.model.read_tensor(tensor).map_err(read)?.data());
            tensor.dtype
        };
        Ok(TensorProto {
            dims: tensor.dims.iter().map(|&dim| dim as i64).collect(),
            data_type: Some(dtype.to_onnx()),
            raw_data: Some(data.into()),
            ..Default::default()
        })
    }

    fn attribute(&self, op_type: &str, attribute: &Attribute) -> Result<AttributeProto, String> {
        let mut proto = AttributeProto {
            name: Some(attribute.name.to_string()),
            ..Default::default()
        };
        // Types that an operator produces.
        let names_type = matches!(attribute.name.as_str(), "to" | "dtype");
        let kind = match &attribute.value {
            AttributeValue::Float(value) => {
                proto.f = Some(*value);
                AttributeType::Float
            }
            AttributeValue::Int(value) if names_type => {
                let number = i32::try_from(*value).unwrap_or(0);
                let is_float = DType::from_onnx(number).is_float();
                let double = i64::from(DType::F64.to_onnx());
                proto.i = Some(if is_float { double } else { *value });
                AttributeType::Int
            }
            AttributeValue::Int(value) => {
                proto.i = Some(*value);
                AttributeType::Int
            }
            AttributeValue::String(text) => {
                proto.s = Some(text.clone().into());
                AttributeType::String
            }
            AttributeValue::Floats(values) => {
                proto.floats.clone_from(values);
                AttributeType::Floats
            }
            AttributeValue::Ints(values) => {
                proto.ints.clone_from(values);
                AttributeType::Ints
            }
            AttributeValue::Tensor(tensor) => {
                proto.t = Some(self.tensor(tensor)?);
                AttributeType::Tensor
            }
            AttributeValue::Graph(_)
            | AttributeValue::Graphs(_)
            | AttributeValue::Reference(_)
            | AttributeValue::Other => {
                let name = &attribute.name;
                return Err(format!(
                    "the attribute \"{name}\" of {op_type} cannot be copied"
                ));
            }
        };
        proto.r#type = Some(kind as i32);
        Ok(proto)
    }
}

/// The declaration of an input or output.
fn declared(name: String, dtype: DType, dims: Option<&Vec<usize>>) -> ValueInfoProto {
    let unknown = TensorType { dtype, dims: None };
    let declared = dims.map_or(unknown, |dims| TensorType::known(dtype, dims));
    ValueInfoProto::tensor(name, &declared)
}
