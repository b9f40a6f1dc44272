//! What nobody touched comes out as it went in, byte by byte; what was edited comes out as edited, and nothing else.

mod common;

use std::sync::Arc;

use bnkit_model::DType;
use bnkit_model::onnx::{
    AttributeValue, Edit, Model, NewTensor, NodeId, Operand, Precision, Recipe, Scale, ValueId,
};
use bnkit_model::proto::*;
use bnkit_model::source::{Source, Window};
use bnkit_model::wire::{self, Fields};
use common::*;
use proptest::prelude::*;
use prost::Message;

/// A model with something of everything: typed and external tensors, bodies in bodies, functions, annotations, training.
fn everything() -> ModelProto {
    let mut proto = conv_bn();
    let inner = GraphProto {
        node: vec![node("Neg", &["c"], &["inner_out"])],
        output: vec![value("inner_out")],
        initializer: vec![tensor("inner_w", &[1], &[4.0])],
        ..Default::default()
    };
    let mut inner_if = node("If", &["flag"], &["middle_out"]);
    inner_if.attribute = vec![
        body("then_branch", inner.clone()),
        body("else_branch", inner),
    ];
    let mut conv = node("Conv", &["c", "body_w", ""], &["bc"]);
    conv.name = Some("in the body".to_owned());
    conv.attribute = vec![int("group", 2)];
    let middle = GraphProto {
        node: vec![conv, inner_if],
        output: vec![value("middle_out")],
        initializer: vec![tensor("body_w", &[2, 1, 1, 1], &[1.0, 1.0])],
        value_info: vec![value("bc")],
        ..Default::default()
    };
    let mut outer_if = node("If", &["flag"], &["z"]);
    outer_if.attribute = vec![
        body("then_branch", middle.clone()),
        body("else_branch", middle),
    ];
    let mut constant = node("Constant", &[], &["k"]);
    constant.attribute = vec![AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(4),
        t: Some(tensor("", &[1], &[1.0])),
        ..Default::default()
    }];
    let mut list = node("Custom", &["k"], &["custom"]);
    list.domain = Some("acme".to_owned());
    list.attribute = vec![AttributeProto {
        name: Some("all".to_owned()),
        r#type: Some(9),
        tensors: vec![tensor("", &[1], &[1.0])],
        ..Default::default()
    }];
    let graph = proto.graph.as_mut().unwrap();
    graph.node.extend([outer_if, constant, list]);
    graph.input.push(value("flag"));
    graph.initializer[3].raw_data = None;
    graph.initializer[3].float_data = vec![0.5, 0.25];
    graph.initializer.push(TensorProto {
        name: Some("far".to_owned()),
        dims: vec![2],
        data_type: Some(1),
        data_location: Some(1),
        external_data: vec![
            entry("location", "x.bin"),
            entry("offset", "0"),
            entry("note", "kept"),
        ],
        ..Default::default()
    });
    graph.sparse_initializer = vec![SparseTensorProto {
        values: Some(tensor("sparse", &[1], &[1.0])),
        indices: Some(TensorProto {
            data_type: Some(7),
            dims: vec![1],
            int64_data: vec![0],
            ..Default::default()
        }),
        dims: vec![4],
    }];
    graph.quantization_annotation = vec![TensorAnnotation {
        tensor_name: Some("c".to_owned()),
        quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "s")],
    }];
    graph.metadata_props = vec![entry("graph", "level")];
    proto.functions = vec![FunctionProto {
        name: Some("Twice".to_owned()),
        domain: Some("local".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        attribute_proto: vec![int("times", 2)],
        node: vec![
            node("Add", &["x", "x"], &["two"]),
            node("Relu", &["two"], &["y"]),
        ],
        value_info: vec![value("two")],
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        ..Default::default()
    }];
    proto.metadata_props = vec![entry("a", "1"), entry("b", "2"), entry("a", "3")];
    proto.training_info = vec![TrainingInfoProto::default()];
    proto
}

/// Kinds of messages, and which field of one holds which other.
const MESSAGES: &[(&str, u32, &str)] = &[
    ("Model", 7, "Graph"),
    ("Model", 8, "Leaf"),
    ("Model", 14, "Leaf"),
    ("Model", 20, "Leaf"),
    ("Model", 25, "Function"),
    ("Graph", 1, "Node"),
    ("Graph", 5, "Tensor"),
    ("Graph", 11, "Leaf"),
    ("Graph", 12, "Leaf"),
    ("Graph", 13, "Leaf"),
    ("Graph", 14, "Leaf"),
    ("Graph", 15, "Leaf"),
    ("Graph", 16, "Leaf"),
    ("Function", 7, "Node"),
    ("Function", 9, "Leaf"),
    ("Function", 11, "Leaf"),
    ("Function", 12, "Leaf"),
    ("Node", 5, "Attribute"),
    ("Attribute", 5, "Tensor"),
    ("Attribute", 6, "Graph"),
    ("Attribute", 10, "Tensor"),
    ("Tensor", 13, "Leaf"),
];

/// Puts unknown fields into messages, between the known ones; the dice say where and which.
struct Sprinkler {
    dice: Vec<u8>,
    at: usize,
}

impl Sprinkler {
    fn unknown(&mut self, out: &mut Vec<u8>) {
        let roll = self.dice[self.at % self.dice.len()];
        self.at += 1;
        let number = 200 + u32::from(roll);
        match roll % 8 {
            0 => wire::put_varint_field(out, number, u64::MAX >> (roll / 4)),
            1 => wire::put_bytes_field(out, number, &vec![roll; usize::from(roll)]),
            2 => wire::put_float_field(out, number, 1.5),
            3 => {
                wire::put_varint(out, u64::from(number) << 3 | 1);
                out.extend_from_slice(&[roll; 8]);
            }
            4 => {
                wire::put_varint(out, u64::from(number) << 3 | 3);
                wire::put_varint_field(out, 1, 1);
                wire::put_varint(out, u64::from(number) << 3 | 4);
            }
            _ => {}
        }
    }

    fn message(&mut self, bytes: &[u8], kind: &str) -> Vec<u8> {
        let source = Source::memory(bytes.to_vec());
        let mut window = Window::new(&source);
        let mut fields = Fields::new(&mut window, 0..bytes.len() as u64);
        let part = |range: &std::ops::Range<u64>| &bytes[range.start as usize..range.end as usize];
        let mut out = Vec::new();
        while let Some(field) = fields.next().unwrap() {
            self.unknown(&mut out);
            match MESSAGES
                .iter()
                .find(|(outer, number, _)| *outer == kind && *number == field.number)
            {
                Some((_, number, inside)) => {
                    let inner = self.message(part(&field.payload), inside);
                    wire::put_bytes_field(&mut out, *number, &inner);
                }
                None => out.extend_from_slice(part(&field.whole)),
            }
        }
        self.unknown(&mut out);
        out
    }
}

fn sprinkled(proto: &ModelProto, dice: Vec<u8>) -> Vec<u8> {
    Sprinkler { dice, at: 0 }.message(&proto.encode_to_vec(), "Model")
}

fn to_bytes(model: &Model) -> Vec<u8> {
    model.to_bytes(Precision::Stored).unwrap()
}

fn decoded(model: &Model) -> ModelProto {
    ModelProto::decode(to_bytes(model).as_slice()).unwrap()
}

#[test]
fn a_model_with_everything_is_copied() {
    let bytes = everything().encode_to_vec();
    let model = Model::from_bytes(bytes.clone()).unwrap();
    assert_eq!(to_bytes(&model), bytes);
    assert_eq!(model.to_bytes(Precision::Exact).unwrap(), bytes);
}

proptest! {
    #[test]
    fn unknown_fields_at_every_level_are_copied(dice in prop::collection::vec(any::<u8>(), 1..200)) {
        let bytes = sprinkled(&everything(), dice);
        let model = Model::from_bytes(bytes.clone()).unwrap();
        prop_assert_eq!(to_bytes(&model), bytes);
    }

    /// An edit far inside changes the lengths of everything around it, and nothing else.
    #[test]
    fn edits_keep_unknown_fields(dice in prop::collection::vec(any::<u8>(), 1..200)) {
        let proto = everything();
        let plain_edited = edited_everywhere(Model::from_bytes(proto.encode_to_vec()).unwrap());
        let edited = edited_everywhere(Model::from_bytes(sprinkled(&proto, dice.clone())).unwrap());
        let edited = to_bytes(&edited);
        // prost drops what it does not know: without it, both are the same.
        let known = ModelProto::decode(edited.as_slice()).unwrap();
        prop_assert_eq!(&known, &decoded(&plain_edited));
        // The same edits take the same unknown fields with them, however often they are applied.
        let again = Model::from_bytes(edited.clone()).unwrap();
        prop_assert_eq!(to_bytes(&again), edited);
    }
}

fn find(model: &Model, name: &str) -> ValueId {
    let read = model
        .nodes()
        .flat_map(|(_, node)| node.inputs.iter().chain(&node.outputs).flatten().copied());
    let initial = model
        .scopes()
        .flat_map(|(_, scope)| scope.initializers.clone());
    let mut found = read
        .chain(initial)
        .filter(|&id| model.value(id).name == name);
    found.next().expect("a value of this name")
}

fn node_of(model: &Model, op_type: &str) -> NodeId {
    model
        .nodes()
        .find(|(_, node)| node.op_type == op_type)
        .expect("a node of this type")
        .0
}

fn values(dims: &[usize], values: &[f64]) -> NewTensor {
    NewTensor {
        dtype: DType::F32,
        dims: dims.into(),
        recipe: Arc::new(Recipe::values(values.to_vec())),
    }
}

fn scaled(model: &Model, name: &str, inner: usize, factors: &[f64]) -> NewTensor {
    let tensor = model.value(find(model, name)).tensor.clone().unwrap();
    let recipe = Recipe::of(&tensor).times([Scale {
        inner,
        factors: factors.into(),
    }]);
    NewTensor {
        dtype: tensor.dtype,
        dims: tensor.dims.clone(),
        recipe: Arc::new(recipe),
    }
}

/// Edits in the innermost body, in a function, and in the metadata.
fn edited_everywhere(mut model: Model) -> Model {
    let function = model
        .scopes()
        .find(|(id, _)| model.scope_path(*id) == "local::Twice")
        .unwrap()
        .0;
    let conv = model
        .nodes()
        .find(|(_, node)| node.name == "in the body")
        .unwrap()
        .0;
    let body = model.node(conv).scope;
    let edits = [
        Edit::SetConstant {
            value: find(&model, "body_w"),
            tensor: scaled(&model, "body_w", 1, &[3.0, 4.0]),
        },
        Edit::SetConstant {
            value: find(&model, "inner_w"),
            tensor: values(&[1], &[9.0]),
        },
        Edit::AddConstant {
            scope: body,
            name: "bias".to_owned(),
            tensor: values(&[2], &[1.0, 2.0]),
        },
        Edit::SetInput {
            node: conv,
            slot: 2,
            value: Operand::New("bias".to_owned()),
        },
        Edit::SetAttribute {
            node: conv,
            name: "group".to_owned(),
            value: AttributeValue::Int(1),
        },
        Edit::AddConstant {
            scope: function,
            name: "fk".to_owned(),
            tensor: values(&[1], &[7.0]),
        },
        Edit::SetMetadata {
            key: "b".to_owned(),
            value: "changed".to_owned(),
        },
        Edit::SetMetadata {
            key: "new".to_owned(),
            value: "entry".to_owned(),
        },
    ];
    model.apply(&edits).unwrap();
    model
}

#[test]
fn edits_in_bodies_and_functions_arrive() {
    let proto = everything();
    let found = decoded(&edited_everywhere(open(&proto).unwrap()));
    let mut expected = proto.clone();
    let conv = |graph: &mut GraphProto| graph.node[2].attribute[0].g.as_mut().unwrap().clone();
    let mut then = conv(expected.graph.as_mut().unwrap());
    then.node[0].input[2] = "bias".to_owned();
    then.node[0].attribute[0].i = Some(1);
    then.initializer = vec![
        tensor("body_w", &[2, 1, 1, 1], &[3.0, 4.0]),
        tensor("bias", &[2], &[1.0, 2.0]),
    ];
    then.node[1].attribute[0].g.as_mut().unwrap().initializer[0] = tensor("inner_w", &[1], &[9.0]);
    expected.graph.as_mut().unwrap().node[2].attribute[0].g = Some(then);
    let mut constant = node("Constant", &[], &["fk"]);
    constant.name = Some("fk".to_owned());
    let held = TensorProto {
        name: None,
        ..tensor("", &[1], &[7.0])
    };
    constant.attribute = vec![AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(4),
        t: Some(held),
        ..Default::default()
    }];
    expected.functions[0].node.insert(0, constant);
    expected.metadata_props[1] = entry("b", "changed");
    expected.metadata_props.push(entry("new", "entry"));
    assert_eq!(found, expected);
}

/// Conv takes over the output of the BatchNormalization, with another weight and bias.
fn folded(proto: &ModelProto) -> Model {
    let mut model = open(proto).unwrap();
    let (conv, bn) = (
        node_of(&model, "Conv"),
        node_of(&model, "BatchNormalization"),
    );
    let y = model.node(bn).output(0).unwrap();
    let mut edits = vec![
        Edit::SetConstant {
            value: find(&model, "w"),
            tensor: scaled(&model, "w", 1, &[0.5, 2.0]),
        },
        Edit::SetConstant {
            value: find(&model, "b"),
            tensor: values(&[2], &[0.1, 0.2]),
        },
        Edit::RemoveNode { node: bn },
        Edit::SetOutput {
            node: conv,
            slot: 0,
            value: y.into(),
        },
    ];
    edits.push(Edit::DropConstants {
        values: ["s", "t", "m", "v"].map(|name| find(&model, name)).into(),
    });
    model.apply(&edits).unwrap();
    model
}

#[test]
fn a_fold_changes_what_it_names() {
    let mut proto = conv_bn();
    let graph = proto.graph.as_mut().unwrap();
    graph.node[0].doc_string = Some("kept".to_owned());
    graph.node[0].name = Some("conv".to_owned());
    graph.initializer[0].doc_string = Some("kept too".to_owned());
    graph.initializer[0].metadata_props = vec![entry("k", "v")];
    graph.initializer[1].raw_data = None;
    graph.initializer[1].float_data = vec![1.0, -1.0];
    let mut expected = proto.clone();
    let graph = expected.graph.as_mut().unwrap();
    graph.node.pop();
    graph.node[0].output[0] = "y".to_owned();
    graph.initializer.truncate(2);
    graph.initializer[0].raw_data = tensor("w", &[], &[1.0, 6.0]).raw_data;
    graph.initializer[1] = tensor("b", &[2], &[0.1, 0.2]);
    graph.value_info.clear();
    assert_eq!(decoded(&folded(&proto)), expected);
}

#[test]
fn exact_constants_are_doubles() {
    let model = folded(&conv_bn());
    let proto = ModelProto::decode(model.to_bytes(Precision::Exact).unwrap().as_slice()).unwrap();
    let bias = &proto.graph.unwrap().initializer[1];
    assert_eq!(bias.data_type, Some(11));
    let bytes: Vec<u8> = [0.1f64, 0.2]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert_eq!(bias.raw_data.as_deref(), Some(bytes.as_slice()));
}

#[test]
fn before_version_4_new_initializers_are_inputs() {
    let mut proto = conv_bn();
    proto.ir_version = Some(3);
    let graph = proto.graph.as_mut().unwrap();
    graph
        .input
        .extend(["w", "b", "s", "t", "m", "v"].map(value));
    let mut model = folded(&proto);
    let main = model.main();
    model
        .apply(&[Edit::AddConstant {
            scope: main,
            name: "new".to_owned(),
            tensor: values(&[2, 1], &[1.0, 2.0]),
        }])
        .unwrap();
    let graph = decoded(&model).graph.unwrap();
    let names: Vec<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
    assert_eq!(names, ["x", "w", "b", "new"]);
    let Some(type_proto::Value::TensorType(kind)) = graph.input[3].r#type.clone().unwrap().value
    else {
        panic!()
    };
    assert_eq!((kind.elem_type(), kind.shape.unwrap().dim.len()), (1, 2));
    let again = open(&decoded(&model)).unwrap();
    assert_eq!(again.nodes().count(), 1);
}

#[test]
fn unknown_fields_survive_edits() {
    // This roll is a field of 129 times the same byte, before and behind every field of every message.
    let marks = |bytes: &[u8]| {
        bytes
            .windows(129)
            .filter(|window| window.iter().all(|&byte| byte == 129))
            .count()
    };
    let bytes = sprinkled(&everything(), vec![129]);
    let edited = to_bytes(&edited_everywhere(
        Model::from_bytes(bytes.clone()).unwrap(),
    ));
    // Only what was replaced as a whole lost its own: an attribute of three fields, and an entry of two.
    assert_eq!(marks(&edited), marks(&bytes) - 4 - 3);
}

#[test]
fn new_nodes_and_attributes_are_encoded() {
    let mut model = open(&conv_bn()).unwrap();
    let after = node_of(&model, "Conv");
    let c = model.node(after).output(0).unwrap();
    let add = Edit::AddNode {
        after,
        op_type: "Custom",
        name: "added".to_owned(),
        inputs: vec![c.into()],
        outputs: vec![Operand::New("added_out".to_owned())],
    };
    model.apply(&[add]).unwrap();
    let node = node_of(&model, "Custom");
    let attributes = [
        ("f", AttributeValue::Float(0.5)),
        ("i", AttributeValue::Int(-3)),
        ("s", AttributeValue::String(b"text".to_vec())),
        ("fs", AttributeValue::Floats(vec![1.0, 2.0])),
        ("is", AttributeValue::Ints(vec![-1, 2])),
    ];
    for (name, value) in attributes {
        model
            .apply(&[Edit::SetAttribute {
                node,
                name: name.to_owned(),
                value,
            }])
            .unwrap();
    }
    let found = decoded(&model).graph.unwrap().node[1].clone();
    let attribute = |name: &str, kind: i32| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(kind),
        ..Default::default()
    };
    let mut expected = common::node("Custom", &["c"], &["added_out"]);
    expected.name = Some("added".to_owned());
    expected.attribute = vec![
        AttributeProto {
            f: Some(0.5),
            ..attribute("f", 1)
        },
        AttributeProto {
            i: Some(-3),
            ..attribute("i", 2)
        },
        AttributeProto {
            s: Some(b"text"[..].into()),
            ..attribute("s", 3)
        },
        AttributeProto {
            floats: vec![1.0, 2.0],
            ..attribute("fs", 6)
        },
        AttributeProto {
            ints: vec![-1, 2],
            ..attribute("is", 7)
        },
    ];
    assert_eq!(found, expected);
    // Carried things cannot be made up.
    let value = AttributeValue::Other;
    model
        .apply(&[Edit::SetAttribute {
            node,
            name: "o".to_owned(),
            value,
        }])
        .unwrap();
    assert!(
        model
            .to_bytes(Precision::Stored)
            .unwrap_err()
            .to_string()
            .contains("attribute \"o\" cannot be made anew")
    );
}

#[test]
fn edits_are_deterministic() {
    let bytes = || to_bytes(&edited_everywhere(open(&everything()).unwrap()));
    assert_eq!(bytes(), bytes());
}
