//! What a model file says, and what is wrong with a wrong one.

mod common;

use bnkit_model::onnx::{AttributeValue, Dim, Model, Origin, ScopeKind, Use, ValueId};
use bnkit_model::proto::*;
use common::*;
use prost::Message;

fn find(model: &Model, name: &str) -> ValueId {
    let mut found = model
        .nodes()
        .flat_map(|(_, node)| node.inputs.iter().chain(&node.outputs).flatten())
        .filter(|&&id| model.value(id).name == name);
    *found.next().expect("a value of this name")
}

fn if_node(then: GraphProto) -> NodeProto {
    let mut node = node("If", &["flag"], &["y"]);
    node.attribute = vec![body("then_branch", then.clone()), body("else_branch", then)];
    node
}

fn graph(nodes: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> GraphProto {
    GraphProto {
        node: nodes,
        input: inputs.iter().map(|name| value(name)).collect(),
        output: outputs.iter().map(|name| value(name)).collect(),
        ..Default::default()
    }
}

#[test]
fn a_graph_knows_who_defines_and_who_reads() {
    let model = open(&conv_bn()).unwrap();
    let nodes: Vec<_> = model.nodes().collect();
    assert_eq!(nodes.len(), 2);
    assert!(nodes[0].1.is("Conv"));
    let conv = nodes[0].1.output(0).unwrap();
    assert_eq!(model.value(conv).only_use(), Some(Use::Node(nodes[1].0, 0)));
    assert_eq!(model.producer(conv), Some((nodes[0].0, 0)));
    let w = model.value(nodes[0].1.input(1).unwrap());
    assert_eq!(w.origin, Origin::Initializer);
    assert_eq!(w.tensor.as_ref().unwrap().dims, [2, 1, 1, 1].into());
    let y = nodes[1].1.output(0).unwrap();
    assert!(model.value(y).is_output());
    assert_eq!(model.scope(model.main()).onnx_opset(), Some(17));
    assert_eq!(model.describe(nodes[0].0), "node \"c\" (Conv)");
    assert_eq!(model.fresh_name("w"), "w_1");
    assert_eq!(model.fresh_name("new"), "new");
}

#[test]
fn absent_inputs_and_outputs_are_none() {
    let nodes = vec![node("Resize", &["x", "", "s", "", ""], &["y", "", ""])];
    let model = open(&model(graph(nodes, &["x", "s"], &["y"]))).unwrap();
    let (_, node) = model.nodes().next().unwrap();
    assert_eq!((node.inputs.len(), node.outputs.len()), (3, 1));
    assert_eq!(node.input(1), None);
}

#[test]
fn bodies_see_and_hide_outer_values() {
    // The body reads "a" of the main graph, then defines its own "b", which it reads; the outer "b" stays unread there.
    let then = graph(
        vec![node("Neg", &["a"], &["b"]), node("Abs", &["b"], &["out"])],
        &[],
        &["out"],
    );
    let nodes = vec![
        node("Relu", &["x"], &["a"]),
        node("Exp", &["x"], &["b"]),
        if_node(then),
    ];
    let model = open(&model(graph(nodes, &["x", "flag"], &["y"]))).unwrap();
    let a = find(&model, "a");
    let readers: Vec<&str> = model
        .value(a)
        .uses
        .iter()
        .map(|user| match user {
            Use::Node(node, _) => model.node(*node).op_type.as_str(),
            _ => "output",
        })
        .collect();
    assert_eq!(readers, ["Neg", "Neg"]);
    assert_eq!(model.value(find(&model, "b")).uses.len(), 0);
    let (body, scope) = model.scopes().nth(1).unwrap();
    assert!(matches!(&scope.kind, ScopeKind::Body { attribute, .. } if attribute == "then_branch"));
    assert_eq!(model.scope_path(body), "y:then_branch");
    assert!(!model.is_visible(find(&model, "b"), body));
    assert!(model.is_visible(a, body));
}

#[test]
fn bodies_may_return_outer_values() {
    let model = open(&model(graph(
        vec![if_node(graph(vec![], &[], &["x"]))],
        &["x", "flag"],
        &["y"],
    )))
    .unwrap();
    let x = model.scope(model.main()).inputs[0];
    assert_eq!(model.value(x).uses.len(), 2);
}

#[test]
fn a_body_may_read_what_a_later_node_defines() {
    let then = graph(vec![node("Neg", &["late"], &["out"])], &[], &["out"]);
    let nodes = vec![if_node(then), node("Relu", &["x"], &["late"])];
    let model = open(&model(graph(nodes, &["x", "flag"], &["y"]))).unwrap();
    let order = model.topological_order(model.main()).unwrap();
    let operators: Vec<&str> = order
        .iter()
        .map(|&id| model.node(id).op_type.as_str())
        .collect();
    assert_eq!(operators, ["Relu", "If"]);
}

#[test]
fn an_inner_name_hides_an_outer_one_only_from_its_node_on() {
    let then = graph(
        vec![node("Neg", &["a"], &["out"]), node("Abs", &["out"], &["a"])],
        &[],
        &["a"],
    );
    let nodes = vec![node("Relu", &["x"], &["a"]), if_node(then)];
    let model = open(&model(graph(nodes, &["x", "flag"], &["y"]))).unwrap();
    let outer = find(&model, "a");
    assert_eq!(model.value(outer).scope, model.main());
    assert_eq!(model.value(outer).uses.len(), 2);
    let returned = model.scopes().nth(1).unwrap().1.outputs[0];
    assert_ne!(returned, outer);
}

#[test]
fn an_unsorted_graph_is_read_and_sorted() {
    let nodes = vec![node("Abs", &["a"], &["y"]), node("Neg", &["x"], &["a"])];
    let model = open(&model(graph(nodes, &["x"], &["y"]))).unwrap();
    let order = model.topological_order(model.main()).unwrap();
    assert_eq!(model.node(order[0]).op_type, "Neg");
    assert_eq!(model.nodes().next().unwrap().1.op_type, "Abs");
}

#[test]
fn functions_are_scopes_of_their_own() {
    let mut model_proto = conv_bn();
    model_proto.functions = vec![FunctionProto {
        name: Some("Twice".to_owned()),
        domain: Some("local".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![node("Add", &["x", "x"], &["y"])],
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(13),
        }],
        ..Default::default()
    }];
    let model = open(&model_proto).unwrap();
    let (id, function) = model.scopes().nth(1).unwrap();
    assert_eq!(model.scope_path(id), "local::Twice");
    assert_eq!(function.onnx_opset(), Some(13));
    assert_eq!(model.value(function.inputs[0]).uses.len(), 2);
    // A function does not see the main graph.
    model_proto.functions[0].node[0].input[0] = "w".to_owned();
    let error = error(&model_proto);
    assert!(
        error.contains("function \"Twice\": node \"y\" (Add): reads \"w\", which nothing defines"),
        "{error}"
    );
}

#[test]
fn an_initializer_may_be_an_input() {
    let mut proto = conv_bn();
    proto.ir_version = Some(3);
    proto.graph.as_mut().unwrap().input.push(value("w"));
    let model = open(&proto).unwrap();
    let w = model.scope(model.main()).inputs[1];
    assert_eq!(model.value(w).origin, Origin::Input);
    assert!(model.value(w).tensor.is_some());
    assert_eq!(model.ir_version, 3);
}

#[test]
fn declared_shapes_are_kept() {
    let mut proto = conv_bn();
    let dim = |value| tensor_shape_proto::Dimension {
        value,
        denotation: None,
    };
    let dims = vec![
        dim(Some(tensor_shape_proto::dimension::Value::DimParam(
            "N".to_owned(),
        ))),
        dim(Some(tensor_shape_proto::dimension::Value::DimValue(3))),
        dim(None),
    ];
    let shape = Some(TensorShapeProto { dim: dims });
    let kind = type_proto::Value::TensorType(type_proto::Tensor {
        elem_type: Some(10),
        shape,
    });
    proto.graph.as_mut().unwrap().input[0].r#type = Some(TypeProto {
        value: Some(kind),
        denotation: None,
    });
    let model = open(&proto).unwrap();
    let declared = model
        .value(model.scope(model.main()).inputs[0])
        .declared
        .clone()
        .unwrap();
    let dims = declared.dims.iter().flatten();
    let dims: Vec<String> = dims.map(Dim::to_string).collect();
    assert_eq!(
        (declared.dtype.to_string().as_str(), dims.join(",").as_str()),
        ("float16", "N,3,?")
    );
}

#[test]
fn attributes_are_read() {
    let mut node = node("Custom", &["x"], &["y"]);
    node.attribute = vec![
        int("axis", -1),
        AttributeProto {
            name: Some("old".to_owned()),
            floats: vec![1.0, 2.0],
            ..Default::default()
        },
        AttributeProto {
            name: Some("outer".to_owned()),
            ref_attr_name: Some("alpha".to_owned()),
            ..Default::default()
        },
        AttributeProto {
            name: Some("value".to_owned()),
            r#type: Some(4),
            t: Some(tensor("", &[], &[1.0])),
            ..Default::default()
        },
        AttributeProto {
            name: Some("names".to_owned()),
            r#type: Some(8),
            strings: vec![b"a"[..].into()],
            ..Default::default()
        },
    ];
    let model = open(&model(graph(vec![node], &["x"], &["y"]))).unwrap();
    let (_, node) = model.nodes().next().unwrap();
    let value = |name: &str| &node.attribute(name).unwrap().value;
    assert!(matches!(value("axis"), AttributeValue::Int(-1)));
    assert!(matches!(value("old"), AttributeValue::Floats(values) if values == &[1.0, 2.0]));
    assert!(matches!(value("outer"), AttributeValue::Reference(name) if name == "alpha"));
    assert!(matches!(value("value"), AttributeValue::Tensor(tensor) if tensor.len() == 1));
    assert!(matches!(value("names"), AttributeValue::Other));
}

#[test]
fn what_quantization_annotations_name_is_pinned() {
    let mut proto = conv_bn();
    proto.graph.as_mut().unwrap().quantization_annotation = vec![TensorAnnotation {
        tensor_name: Some("c".to_owned()),
        quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "s")],
    }];
    let model = open(&proto).unwrap();
    for name in ["c", "s"] {
        let uses = &model.value(find(&model, name)).uses;
        let annotation = Use::Annotation(model.main());
        assert!(uses.iter().any(|user| *user == annotation), "{name}");
    }
}

type Change<'c> = &'c dyn Fn(&mut GraphProto);

#[test]
fn contradictions_are_errors_that_say_where() {
    let with = |change: Change<'_>| {
        let mut proto = conv_bn();
        change(proto.graph.as_mut().unwrap());
        error(&proto)
    };
    let cases: [(Change<'_>, &str); 11] = [
        (
            &|g| g.node.push(node("Neg", &["x"], &["c"])),
            "node \"c\" (Neg): the value \"c\" is defined twice",
        ),
        (
            &|g| g.node[0].input[0] = "nowhere".to_owned(),
            "node \"c\" (Conv): reads \"nowhere\", which nothing defines",
        ),
        (
            &|g| g.output.push(value("lost")),
            "the output \"lost\" is computed by no node",
        ),
        (
            &|g| g.initializer.push(tensor("w", &[1], &[1.0])),
            "the tensor \"w\" is defined twice",
        ),
        (
            &|g| g.input.push(value("x")),
            "the value \"x\" is defined twice",
        ),
        (
            &|g| g.node[0].input[0] = "y".to_owned(),
            "the graph has a cycle",
        ),
        (
            &|g| g.node[0].input[0] = "c".to_owned(),
            "the graph has a cycle",
        ),
        (
            &|g| g.initializer[0].dims = vec![3],
            "tensor \"w\": a float32 tensor of shape [3] takes 12 bytes, found 8",
        ),
        (
            &|g| g.initializer[0].dims = vec![-1],
            "tensor \"w\": a dimension is -1",
        ),
        (
            &|g| g.initializer[0].dims = vec![1 << 40, 1 << 40],
            "overflows",
        ),
        (
            &|g| g.initializer[0].dims = vec![1 << 31, 1 << 31],
            "overflows",
        ),
    ];
    for (change, expected) in cases {
        let message = with(change);
        assert!(message.contains(expected), "{message}\n{expected}");
    }
    let typed = TensorProto {
        raw_data: None,
        float_data: vec![1.0],
        ..tensor("w", &[100], &[])
    };
    let message = with(&|g| g.initializer[0] = typed.clone());
    assert!(
        message.contains("has 100 elements, found 4 bytes of data"),
        "{message}"
    );
    let huge = TensorProto {
        raw_data: None,
        ..tensor("w", &[1 << 56], &[])
    };
    assert!(with(&|g| g.initializer[0] = huge.clone()).contains("found 0 bytes"));
}

#[test]
fn a_cycle_through_a_body_is_found() {
    let then = graph(vec![node("Neg", &["y"], &["out"])], &[], &["out"]);
    assert!(error(&model(graph(vec![if_node(then)], &["flag"], &["y"]))).contains("cycle"));
}

#[test]
fn other_files_are_not_models() {
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0";
    for bytes in [
        &png[..],
        b"PK\x03\x04\x14\0\0\0\x08\0",
        b"import onnx\nmodel = onnx.load('x')\n",
        b"<!doctype html><html></html>",
        b"{\"a\": 1}",
        &[0; 64],
        &[0xff; 64],
    ] {
        let message = Model::from_bytes(bytes.to_vec()).unwrap_err().to_string();
        assert!(message.contains("not a readable ONNX model"), "{message}");
    }
    assert_eq!(
        Model::from_bytes(Vec::new()).unwrap_err().to_string(),
        "the file is empty"
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    let nested = |depth: usize| {
        let mut inner = graph(vec![node("Neg", &["x"], &["out"])], &[], &["out"]);
        for _ in 0..depth {
            let mut outer = node("If", &["flag"], &["out"]);
            outer.attribute = vec![body("then_branch", inner)];
            inner = graph(vec![outer], &[], &["out"]);
        }
        inner.input = vec![value("x"), value("flag")];
        model(inner)
    };
    assert!(open(&nested(30)).is_ok());
    assert!(error(&nested(40)).contains("nested more than 32 deep"));
    // Far deeper than any stack, as bytes: prost would overflow when it drops such a thing.
    let mut bytes = Vec::new();
    for _ in 0..20_000 {
        let mut attribute = Vec::new();
        bnkit_model::wire::put_bytes_field(&mut attribute, 6, &bytes);
        let mut node = Vec::new();
        bnkit_model::wire::put_bytes_field(&mut node, 4, b"If");
        bnkit_model::wire::put_bytes_field(&mut node, 5, &attribute);
        bytes.clear();
        bnkit_model::wire::put_bytes_field(&mut bytes, 1, &node);
    }
    let mut model = Vec::new();
    bnkit_model::wire::put_bytes_field(&mut model, 7, &bytes);
    assert!(
        Model::from_bytes(model)
            .unwrap_err()
            .to_string()
            .contains("nested more than 32 deep")
    );
}

#[test]
fn cut_files_never_panic() {
    let mut proto = conv_bn();
    let then = graph(vec![node("Neg", &["c"], &["out"])], &[], &["out"]);
    proto.graph.as_mut().unwrap().input.push(value("flag"));
    let mut branch = if_node(then);
    branch.output = vec!["z".to_owned()];
    proto.graph.as_mut().unwrap().node.push(branch);
    proto.metadata_props = vec![entry("a", "b")];
    let bytes = proto.encode_to_vec();
    assert!(Model::from_bytes(bytes.clone()).is_ok());
    let mut errors = 0;
    for end in 0..bytes.len() {
        errors += usize::from(Model::from_bytes(bytes[..end].to_vec()).is_err());
    }
    assert!(errors > bytes.len() * 9 / 10, "{errors} of {}", bytes.len());
}

proptest::proptest! {
    #[test]
    fn damaged_files_never_panic(changes in proptest::collection::vec((0usize..2000, 0u8..), 1..6)) {
        let mut bytes = conv_bn().encode_to_vec();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = Model::from_bytes(bytes);
    }
}
