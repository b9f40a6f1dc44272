//! Models in one line a node: `Conv x w -> y strides=[2,2] auto_pad="VALID"`, nodes separated by `;`.
//!
//! Values, too: `x: n,3,8` is an input (`?` an unknown size), `w = 4,3,3` an initializer of ones, `s # 1,-1` one of
//! integers, `f ~ 0.5,2` one of floats, `c % 7` a scalar integer.

use bnkit_model::onnx::{Model, ValueId};
use bnkit_model::proto::attribute_proto::AttributeType;
use bnkit_model::proto::*;

use super::{model, node, open, tensor, value};

fn numbers<T: std::str::FromStr>(text: &str) -> Vec<T> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let number = |part: &str| part.parse().unwrap_or_else(|_| panic!("a number: {part}"));
    parts.map(number).collect()
}

pub(crate) fn integers(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.to_owned()),
        dims: dims.to_vec(),
        data_type: Some(7),
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

fn input(name: &str, dims: &str) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let size = |text: &str| match (text.trim(), text.trim().parse()) {
        ("?", _) => None,
        (_, Ok(size)) => Some(Value::DimValue(size)),
        (name, _) => Some(Value::DimParam(name.to_owned())),
    };
    let parts = dims.split(',').filter(|part| !part.trim().is_empty());
    let dim = parts
        .map(|part| Dimension {
            value: size(part),
            denotation: None,
        })
        .collect();
    let mut info = value(name);
    if let Some(TypeProto {
        value: Some(type_proto::Value::TensorType(tensor)),
        ..
    }) = &mut info.r#type
    {
        tensor.shape = Some(TensorShapeProto { dim });
    }
    info
}

fn attribute(text: &str) -> AttributeProto {
    let (name, content) = text.split_once('=').expect("name=value");
    let mut attribute = AttributeProto {
        name: Some(name.to_owned()),
        ..Default::default()
    };
    let inner = |open: &'static str| Some(content.strip_prefix(open)?.trim_end_matches([']', '"']));
    let kind = if let Some(list) = inner("f[") {
        attribute.floats = numbers(list);
        AttributeType::Floats
    } else if let Some(list) = inner("[") {
        attribute.ints = numbers(list);
        AttributeType::Ints
    } else if let Some(list) = inner("t[") {
        let values = numbers(list);
        attribute.t = Some(integers("", &[values.len() as i64], &values));
        AttributeType::Tensor
    } else if let Some(string) = inner("\"") {
        attribute.s = Some(string.as_bytes().to_vec().into());
        AttributeType::String
    } else if let Some(caller) = inner("@") {
        attribute.ref_attr_name = Some(caller.to_owned());
        AttributeType::Int
    } else if content.contains('.') {
        attribute.f = Some(content.parse().expect("a float"));
        AttributeType::Float
    } else {
        attribute.i = Some(content.parse().expect("an integer"));
        AttributeType::Int
    };
    attribute.r#type = Some(kind as i32);
    attribute
}

/// A node from its line.
pub(crate) fn line(text: &str) -> NodeProto {
    let (left, right) = text.split_once("->").expect("inputs -> outputs");
    let mut left = left.split_whitespace();
    let op_type = left.next().expect("an operator");
    // `_` stands for an absent input or output.
    let name = |word: &str| {
        if word == "_" {
            String::new()
        } else {
            word.to_owned()
        }
    };
    let (attributes, outputs): (Vec<&str>, Vec<&str>) = right
        .split_whitespace()
        .partition(|word| word.contains('='));
    let mut made = node(op_type, &[], &[]);
    made.input = left.map(name).collect();
    made.output = outputs.into_iter().map(name).collect();
    made.attribute = attributes.into_iter().map(attribute).collect();
    made
}

/// A model of `values` and `nodes`, whose output is `y`.
pub(crate) fn net(opset: i64, values: &str, nodes: &str) -> ModelProto {
    let mut graph = GraphProto {
        name: Some("net".to_owned()),
        ..Default::default()
    };
    for text in values
        .split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        let (name, rest) = text.split_once(' ').expect("a name and what it is");
        let name = name.trim_end_matches(':');
        let (kind, rest) = if text.contains(':') {
            (":", rest)
        } else {
            rest.split_at(1)
        };
        match kind {
            ":" => graph.input.push(input(name, rest)),
            "=" => {
                let dims: Vec<i64> = numbers(rest);
                let ones = vec![1.0; dims.iter().product::<i64>() as usize];
                graph.initializer.push(tensor(name, &dims, &ones));
            }
            "#" => {
                let values = numbers(rest);
                graph
                    .initializer
                    .push(integers(name, &[values.len() as i64], &values));
            }
            "~" => {
                let values: Vec<f32> = numbers(rest);
                graph
                    .initializer
                    .push(tensor(name, &[values.len() as i64], &values));
            }
            "%" => graph.initializer.push(integers(name, &[], &numbers(rest))),
            other => panic!("{other} in {text}"),
        }
    }
    let nodes = nodes
        .split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty());
    graph.node = nodes.map(line).collect();
    graph.output = vec![value("y")];
    let mut model = model(graph);
    model.opset_import[0].version = Some(opset);
    model
}

/// The model of `values` and `nodes`, and its output.
pub(crate) fn load(opset: i64, values: &str, nodes: &str) -> (Model, ValueId) {
    let model = open(&net(opset, values, nodes)).unwrap_or_else(|error| panic!("{nodes}: {error}"));
    let output = model.scope(model.main()).outputs[0];
    (model, output)
}
