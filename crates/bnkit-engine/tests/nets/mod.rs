//! Tiny models, built in memory.

// Each test file uses its own part of these.
#![allow(dead_code)]

use bnkit_model::DType;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension::Value as DimValue},
    type_proto,
};

pub(crate) fn node(op_type: &str, input: &[&str], output: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        name: format!("the {op_type}"),
        input: input.iter().map(|name| (*name).to_owned()).collect(),
        output: output.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn int(mut node: NodeProto, name: &str, value: i64) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..Default::default()
    });
    node
}

pub(crate) fn text(mut node: NodeProto, name: &str, value: &str) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: name.into(),
        r#type: AttributeType::String as i32,
        s: value.into(),
        ..Default::default()
    });
    node
}

pub(crate) fn constant(name: &str, dtype: DType, dims: &[i64], values: &[f64]) -> TensorProto {
    let mut raw_data = vec![];
    bnkit_model::tensor::encode_f64(dtype, values, &mut raw_data).unwrap();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: dtype.to_onnx(),
        raw_data,
        ..Default::default()
    }
}

pub(crate) fn f32s(name: &str, dims: &[i64], values: &[f64]) -> TensorProto {
    constant(name, DType::F32, dims, values)
}

pub(crate) fn input(name: &str, dtype: DType, dims: &[i64]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|&size| Dimension {
            value: Some(match size {
                -1 => DimValue::DimParam("N".into()),
                _ => DimValue::DimValue(size),
            }),
            ..Default::default()
        })
        .collect();
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                elem_type: dtype.to_onnx(),
                shape: Some(TensorShapeProto { dim }),
            })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn model(
    opset: i64,
    inputs: Vec<ValueInfoProto>,
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
) -> ModelProto {
    let output = nodes.last().unwrap().output[0].clone();
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: opset,
            ..Default::default()
        }],
        graph: Some(GraphProto {
            node: nodes,
            initializer: constants,
            input: inputs,
            output: vec![ValueInfoProto {
                name: output,
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
