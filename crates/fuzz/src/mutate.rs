//! Mutations of models: one to four changes of the graph, so that most results are models still.
//!
//! The changes are those that a rule might overlook: an input that comes from elsewhere, a shape with another rank, a value in a
//! weight, an attribute with another sign, an operator of another kind, a node that is read twice, an input in the place of a
//! constant, another opset.

use bnkit::model::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use prost::Message;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Operators that rules know.
const OPERATORS: [&str; 44] = [
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Identity",
    "Dropout",
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Transpose",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Pad",
    "Concat",
    "Slice",
    "Split",
    "Gather",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "Resize",
    "Upsample",
    "DepthToSpace",
    "SpaceToDepth",
    "Cast",
    "CastLike",
    "Shape",
    "ConstantOfShape",
    "Expand",
    "Neg",
    "Sqrt",
    "Reciprocal",
    "Sum",
    "QuantizeLinear",
    "DequantizeLinear",
    "Constant",
];

/// Attributes that rules read.
const ATTRIBUTES: [&str; 24] = [
    "axis",
    "axes",
    "perm",
    "pads",
    "strides",
    "dilations",
    "group",
    "kernel_shape",
    "auto_pad",
    "epsilon",
    "momentum",
    "training_mode",
    "spatial",
    "transA",
    "transB",
    "alpha",
    "beta",
    "broadcast",
    "mode",
    "keepdims",
    "allowzero",
    "to",
    "shape",
    "output_shape",
];

/// Numbers at the edges of what is sensible.
const NUMBERS: [i64; 16] = [
    0,
    1,
    -1,
    2,
    3,
    -2,
    4,
    7,
    64,
    1 << 16,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 40,
    1 << 62,
    i64::MAX,
    i64::MIN,
];

/// Values that arithmetic treats as special.
const VALUES: [f32; 12] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MIN_POSITIVE,
    1e-45,
    f32::MAX,
    1e-5,
    65520.0,
];

/// A changed model of at most `max_size` bytes, or `None` if these bytes are none, or it is time for a change of bytes.
pub fn model(bytes: &[u8], max_size: usize, seed: u32) -> Option<Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(seed));
    if rng.random_ratio(1, 16) {
        return None;
    }
    let mut model = ModelProto::decode(bytes).ok()?;
    for _ in 0..rng.random_range(1..=4) {
        if rng.random_ratio(1, 24) {
            header(&mut model, &mut rng);
        } else if rng.random_ratio(1, 16) && !model.functions.is_empty() {
            let at = rng.random_range(0..model.functions.len());
            let nodes = &mut model.functions[at].node;
            if let Some(node) = some(nodes, &mut rng) {
                change_node(node, &[], &mut rng);
            }
        } else {
            let graph = model.graph.get_or_insert_default();
            change_graph(graph, 0, &mut rng);
        }
    }
    let changed = model.encode_to_vec();
    (changed.len() <= max_size).then_some(changed)
}

fn some<'a, T>(list: &'a mut [T], rng: &mut ChaCha8Rng) -> Option<&'a mut T> {
    match list.len() {
        0 => None,
        count => Some(&mut list[rng.random_range(0..count)]),
    }
}

fn pick<T: Copy>(list: &[T], rng: &mut ChaCha8Rng) -> T {
    *list.choose(rng).expect("none of these lists is empty")
}

fn header(model: &mut ModelProto, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..3) {
        0 => model.ir_version = Some(rng.random_range(1..12)),
        1 => {
            let version = Some(rng.random_range(1..24));
            match some(&mut model.opset_import, rng) {
                Some(opset) => opset.version = version,
                None => model.opset_import.push(OperatorSetIdProto {
                    domain: None,
                    version,
                }),
            }
        }
        _ => model.opset_import.push(OperatorSetIdProto {
            domain: Some(pick(&["", "ai.onnx", "com.microsoft"], rng).to_owned()),
            version: Some(rng.random_range(1..24)),
        }),
    }
}

/// All names that something writes.
fn names(graph: &GraphProto) -> Vec<String> {
    let outputs = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().cloned());
    let inputs = graph.input.iter().filter_map(|input| input.name.clone());
    let tensors = graph.initializer.iter().filter_map(|t| t.name.clone());
    let mut names: Vec<String> = outputs.chain(inputs).chain(tensors).collect();
    names.push(String::new());
    names
}

fn change_graph(graph: &mut GraphProto, depth: usize, rng: &mut ChaCha8Rng) {
    let names = names(graph);
    match rng.random_range(0..20) {
        0..=6 => {
            if let Some(node) = some(&mut graph.node, rng) {
                change_node(node, &names, rng);
                let body = node.attribute.iter_mut().find_map(|a| a.g.as_mut());
                if let Some(body) = body.filter(|_| depth < 3) {
                    change_graph(body, depth + 1, rng);
                }
            }
        }
        7..=11 => {
            if let Some(tensor) = some(&mut graph.initializer, rng) {
                change_tensor(tensor, rng);
            }
        }
        12 => insert_node(graph, &names, rng),
        13 => {
            if !graph.node.is_empty() {
                let at = rng.random_range(0..graph.node.len());
                graph.node.remove(at);
            }
        }
        14 => {
            // A node once more, under another name.
            if let Some(node) = graph.node.choose(rng).cloned() {
                let rename = |output: &String| format!("{output}'");
                let mut copy = node;
                copy.output = copy.output.iter().map(rename).collect();
                graph.node.push(copy);
            }
        }
        15 => {
            // A value becomes an output, or stops being one.
            match graph.output.len() {
                count if count > 1 && rng.random() => {
                    graph.output.swap_remove(rng.random_range(0..count));
                }
                _ => graph.output.push(named(names.choose(rng), rng)),
            }
        }
        16 => graph.input.push(named(names.choose(rng), rng)),
        17 => {
            if let Some(input) = some(&mut graph.input, rng) {
                let name = input.name.clone();
                *input = named(name.as_ref(), rng);
            }
        }
        18 => {
            let count = graph.node.len();
            if count > 1 {
                graph
                    .node
                    .swap(rng.random_range(0..count), rng.random_range(0..count));
            }
        }
        _ => {
            // A constant that a node holds, or that nobody does.
            if let Some(at) = (0..graph.initializer.len()).collect::<Vec<_>>().choose(rng) {
                let tensor = graph.initializer.remove(*at);
                if rng.random() {
                    let node = NodeProto {
                        op_type: Some("Constant".to_owned()),
                        output: vec![tensor.name.clone().unwrap_or_default()],
                        attribute: vec![AttributeProto {
                            name: Some("value".to_owned()),
                            r#type: Some(4),
                            t: Some(tensor),
                            ..AttributeProto::default()
                        }],
                        ..NodeProto::default()
                    };
                    graph.node.insert(0, node);
                }
            }
        }
    }
}

/// A declaration with a shape, or none.
fn named(name: Option<&String>, rng: &mut ChaCha8Rng) -> ValueInfoProto {
    use bnkit::model::proto::tensor_shape_proto::{Dimension, dimension};
    use bnkit::model::proto::{TensorShapeProto, TypeProto, type_proto};
    let dim = |rng: &mut ChaCha8Rng| {
        let value = match rng.random_range(0..4) {
            0 => None,
            1 => Some(dimension::Value::DimParam("N".to_owned())),
            2 => Some(dimension::Value::DimValue(pick(&NUMBERS, rng))),
            _ => Some(dimension::Value::DimValue(rng.random_range(1..8))),
        };
        Dimension {
            value,
            ..Dimension::default()
        }
    };
    let shape = rng.random_ratio(3, 4).then(|| {
        let rank = rng.random_range(0..6);
        TensorShapeProto {
            dim: (0..rank).map(|_| dim(rng)).collect(),
        }
    });
    let tensor = type_proto::Tensor {
        elem_type: Some(pick(&[1, 1, 1, 7, 10, 11, 16], rng)),
        shape,
    };
    ValueInfoProto {
        name: name.cloned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// A node on a value that others read: they read the node now.
fn insert_node(graph: &mut GraphProto, names: &[String], rng: &mut ChaCha8Rng) {
    if graph.node.is_empty() {
        return;
    }
    let at = rng.random_range(0..graph.node.len());
    let Some(slot) = (0..graph.node[at].input.len())
        .collect::<Vec<_>>()
        .choose(rng)
        .copied()
    else {
        return;
    };
    let read = graph.node[at].input[slot].clone();
    let made = format!("{read}~{}", rng.random_range(0..100));
    let mut node = NodeProto {
        op_type: Some(pick(&OPERATORS, rng).to_owned()),
        input: vec![read],
        output: vec![made.clone()],
        ..NodeProto::default()
    };
    for _ in 0..rng.random_range(0..3) {
        node.input.extend(names.choose(rng).cloned());
    }
    if rng.random() {
        node.attribute.push(attribute(rng));
    }
    graph.node[at].input[slot] = made;
    graph.node.insert(at, node);
}

fn change_node(node: &mut NodeProto, names: &[String], rng: &mut ChaCha8Rng) {
    match rng.random_range(0..10) {
        0 => node.op_type = Some(pick(&OPERATORS, rng).to_owned()),
        1..=3 => {
            if let (Some(input), Some(name)) = (some(&mut node.input, rng), names.choose(rng)) {
                input.clone_from(name);
            }
        }
        4 => node.input.extend(names.choose(rng).cloned()),
        5 => drop(node.input.pop()),
        6 => {
            node.attribute.retain(|_| rng.random_ratio(2, 3));
            node.attribute.push(attribute(rng));
        }
        7 => match rng.random_range(0..4) {
            0 => node.domain = Some(pick(&["", "ai.onnx", "com.microsoft", "x"], rng).to_owned()),
            1 => node.output.push(format!("extra{}", rng.random_range(0..9))),
            2 => drop(node.output.pop()),
            _ => node.name = None,
        },
        _ => {
            if let Some(attribute) = some(&mut node.attribute, rng) {
                change_attribute(attribute, rng);
            }
        }
    }
}

fn attribute(rng: &mut ChaCha8Rng) -> AttributeProto {
    let mut made = AttributeProto {
        name: Some(pick(&ATTRIBUTES, rng).to_owned()),
        ..AttributeProto::default()
    };
    match rng.random_range(0..4) {
        0 => {
            made.r#type = Some(1);
            made.f = Some(pick(&VALUES, rng));
        }
        1 => {
            made.r#type = Some(2);
            made.i = Some(number(rng));
        }
        2 => {
            made.r#type = Some(3);
            let words = [
                "SAME_UPPER",
                "SAME_LOWER",
                "VALID",
                "NOTSET",
                "reflect",
                "CRD",
                "",
            ];
            made.s = Some(pick(&words, rng).into());
        }
        _ => {
            made.r#type = Some(7);
            made.ints = (0..rng.random_range(0..7)).map(|_| number(rng)).collect();
        }
    }
    made
}

fn number(rng: &mut ChaCha8Rng) -> i64 {
    match rng.random_ratio(2, 3) {
        true => rng.random_range(-2..5),
        false => pick(&NUMBERS, rng),
    }
}

fn change_attribute(attribute: &mut AttributeProto, rng: &mut ChaCha8Rng) {
    if let Some(tensor) = &mut attribute.t {
        return change_tensor(tensor, rng);
    }
    if attribute.f.is_some() {
        attribute.f = Some(pick(&VALUES, rng));
    }
    if attribute.i.is_some() {
        attribute.i = Some(number(rng));
    }
    match rng.random_range(0..4) {
        0 => attribute.ints.push(number(rng)),
        1 => drop(attribute.ints.pop()),
        _ => {
            if let Some(value) = some(&mut attribute.ints, rng) {
                *value = number(rng);
            }
        }
    }
    if rng.random_ratio(1, 16) {
        attribute.r#type = Some(rng.random_range(0..16));
    }
}

fn change_tensor(tensor: &mut TensorProto, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..8) {
        0 => {
            if let Some(dim) = some(&mut tensor.dims, rng) {
                *dim = number(rng);
            }
        }
        1 => {
            // The same elements in another shape.
            match tensor.dims.len() {
                rank if rank > 1 && rng.random() => {
                    tensor
                        .dims
                        .swap(rng.random_range(0..rank), rng.random_range(0..rank));
                }
                rank => tensor.dims.insert(rng.random_range(0..=rank), 1),
            }
        }
        2 => tensor.data_type = Some(rng.random_range(0..24)),
        3 => {
            // One row, or all but it.
            let bytes = tensor.raw_data.take().unwrap_or_default();
            let rows = usize::try_from(tensor.dims.first().copied().unwrap_or(0)).unwrap_or(0);
            if rows > 0 && bytes.len().is_multiple_of(rows) {
                let keep = rng.random_range(0..=rows);
                tensor.dims[0] = keep as i64;
                tensor.raw_data = Some(bytes.slice(..bytes.len() / rows * keep));
            } else {
                tensor.raw_data = Some(bytes);
            }
        }
        _ => {
            let value = match rng.random_ratio(1, 2) {
                true => pick(&VALUES, rng),
                false => rng.random_range(-4.0..4.0),
            };
            let mut bytes = tensor.raw_data.take().unwrap_or_default().to_vec();
            let count = bytes.len() / 4;
            if count > 0 {
                let at = 4 * rng.random_range(0..count);
                let small = number(rng).to_le_bytes();
                let new: [u8; 4] = match rng.random_ratio(3, 4) {
                    true => value.to_le_bytes(),
                    false => [small[0], small[1], small[2], small[3]],
                };
                bytes[at..at + 4].copy_from_slice(&new);
                if rng.random_ratio(1, 8) {
                    bytes
                        .chunks_exact_mut(4)
                        .for_each(|chunk| chunk.copy_from_slice(&new));
                }
            }
            tensor.raw_data = (!bytes.is_empty()).then(|| bytes.into());
        }
    }
}
