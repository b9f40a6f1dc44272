//! Small models for the tests, built from prost structs.

// Every test file uses its own part of this.
#![allow(dead_code)]

pub(crate) mod net;

use bnkit_model::DType;
use bnkit_model::onnx::TensorType;
use bnkit_model::proto::{self, *};
use prost::Message;

pub(crate) fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto::floats(name, dims, values.iter().copied())
}

pub(crate) fn value(name: &str) -> ValueInfoProto {
    let declared = TensorType {
        dtype: DType::F32,
        dims: None,
    };
    ValueInfoProto::tensor(name, &declared)
}

pub(crate) fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto::of(op_type, inputs.iter().copied(), outputs.iter().copied())
}

pub(crate) fn body(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(attribute_proto::AttributeType::Graph as i32),
        g: Some(graph),
        ..Default::default()
    }
}

pub(crate) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(attribute_proto::AttributeType::Int as i32),
        i: Some(value),
        ..Default::default()
    }
}

pub(crate) fn model(graph: GraphProto) -> ModelProto {
    ModelProto {
        producer_name: Some("test".to_owned()),
        ..ModelProto::of(graph, 17)
    }
}

/// x → Conv (w, b) → c → BatchNormalization (s, t, m, v) → y, one channel.
pub(crate) fn conv_bn() -> ModelProto {
    model(GraphProto {
        name: Some("net".to_owned()),
        node: vec![
            node("Conv", &["x", "w", "b"], &["c"]),
            node("BatchNormalization", &["c", "s", "t", "m", "v"], &["y"]),
        ],
        initializer: vec![
            tensor("w", &[2, 1, 1, 1], &[2.0, 3.0]),
            tensor("b", &[2], &[1.0, -1.0]),
            tensor("s", &[2], &[1.0, 2.0]),
            tensor("t", &[2], &[0.5, 0.25]),
            tensor("m", &[2], &[0.0, 1.0]),
            tensor("v", &[2], &[1.0, 4.0]),
        ],
        input: vec![value("x")],
        output: vec![value("y")],
        value_info: vec![value("c")],
        ..Default::default()
    })
}

pub(crate) fn open(model: &ModelProto) -> bnkit_model::Result<bnkit_model::onnx::Model> {
    bnkit_model::onnx::Model::from_bytes(model.encode_to_vec())
}

/// The message of the error that `model` gives.
pub(crate) fn error(model: &ModelProto) -> String {
    open(model).expect_err("the model is wrong").to_string()
}

/// An entry of `external_data`.
pub(crate) fn entry(key: &str, value: &str) -> proto::StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}
