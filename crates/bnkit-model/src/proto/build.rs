//! Messages made by hand: what a model of a few nodes is written with.

use super::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use crate::DType;
use crate::onnx::{Dim, TensorType};

impl TensorProto {
    /// A float32 tensor of these elements (row-major), in `raw_data`.
    pub fn floats(
        name: impl Into<String>,
        dims: &[i64],
        values: impl IntoIterator<Item = f32>,
    ) -> Self {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        Self {
            name: Some(name.into()),
            dims: dims.to_vec(),
            data_type: Some(DType::F32.to_onnx()),
            raw_data: Some(bytes.into()),
            ..Default::default()
        }
    }
}

impl ValueInfoProto {
    /// A value of which nothing but the name is said.
    pub fn untyped(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Default::default()
        }
    }

    /// Says that the value `name` is a tensor of this type.
    pub fn tensor(name: impl Into<String>, declared: &TensorType) -> Self {
        use tensor_shape_proto::{Dimension, dimension::Value};
        let dim = |dim: &Dim| Dimension {
            value: match dim {
                Dim::Known(size) => Some(Value::DimValue(*size as i64)),
                Dim::Symbol(name) => Some(Value::DimParam(name.to_string())),
                Dim::Unknown => None,
            },
            denotation: None,
        };
        let tensor = type_proto::Tensor {
            elem_type: Some(declared.dtype.to_onnx()),
            shape: declared.dims.as_ref().map(|dims| TensorShapeProto {
                dim: dims.iter().map(dim).collect(),
            }),
        };
        Self {
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..Default::default()
            }),
            ..Self::untyped(name)
        }
    }
}

impl NodeProto {
    /// A node of ONNX's own domain, without a name and without attributes.
    pub fn of<I: Into<String>, O: Into<String>>(
        op_type: &str,
        inputs: impl IntoIterator<Item = I>,
        outputs: impl IntoIterator<Item = O>,
    ) -> Self {
        Self {
            op_type: Some(op_type.to_owned()),
            input: inputs.into_iter().map(Into::into).collect(),
            output: outputs.into_iter().map(Into::into).collect(),
            ..Default::default()
        }
    }

    /// The same node, with a name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }
}

impl ModelProto {
    /// A model of IR version 8 that uses this version of ONNX's own operators.
    pub fn of(graph: GraphProto, opset: i64) -> Self {
        Self {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto {
                version: Some(opset),
                ..Default::default()
            }],
            graph: Some(graph),
            ..Default::default()
        }
    }
}

impl TensorType {
    /// A tensor whose dimensions are all known.
    pub fn known(dtype: DType, dims: &[usize]) -> Self {
        let dims = dims.iter().map(|&dim| Dim::Known(dim as u64));
        Self {
            dtype,
            dims: Some(dims.collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::onnx::Model;

    #[test]
    fn what_is_built_is_read_as_it_was_meant() {
        let declared = TensorType {
            dtype: DType::F32,
            dims: Some(vec![Dim::Symbol("N".into()), Dim::Known(2), Dim::Unknown]),
        };
        let graph = GraphProto {
            name: Some("g".to_owned()),
            input: vec![ValueInfoProto::tensor("x", &declared)],
            output: vec![ValueInfoProto::untyped("y")],
            initializer: vec![TensorProto::floats("c", &[2, 1], [1.5, -2.0])],
            node: vec![NodeProto::of("Mul", ["x", "c"], ["y"])],
            ..Default::default()
        };
        let model = Model::from_bytes(ModelProto::of(graph, 17).encode_to_vec()).unwrap();
        let main = model.scope(model.main());
        assert_eq!(main.onnx_opset(), Some(17));
        let input = model.value(main.inputs[0]);
        assert_eq!(input.declared.as_deref(), Some(&declared));
        let constant = model.value(main.initializers[0]).tensor.as_ref().unwrap();
        assert_eq!(constant.dims, [2, 1].into());
        assert_eq!(model.read_f64(constant).unwrap(), [1.5, -2.0]);
        let (_, node) = model.nodes().next().unwrap();
        assert!(node.is("Mul") && node.inputs.len() == 2);
    }
}
