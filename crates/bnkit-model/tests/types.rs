//! Derived shapes. The numbers agree with onnx's shape inference and with what ONNX Runtime computes.

mod common;

use bnkit_model::onnx::{Model, Types};
use bnkit_model::proto::*;
use bnkit_model::{DType, onnx::ValueId};
use common::net::{integers, line, load, net};
use common::{body, open, value};

fn shown(types: &Types, value: ValueId) -> String {
    match types.dims(value) {
        None => "none".to_owned(),
        Some(dims) => {
            let each: Vec<String> = dims.iter().map(ToString::to_string).collect();
            each.join(",")
        }
    }
}

fn output(model: &Model) -> String {
    shown(&Types::derive(model), model.scope(model.main()).outputs[0])
}

/// Opset, values, nodes, and the dimensions of `y`.
type Row = (i64, &'static str, &'static str, &'static str);

fn check(rows: &[Row]) {
    for &(opset, values, nodes, expected) in rows {
        let (model, _) = load(opset, values, nodes);
        assert_eq!(output(&model), expected, "opset {opset}: {values}: {nodes}");
    }
}

#[test]
fn elementwise() {
    check(&[
        (17, "x: n,3,8", "Relu x -> y", "n,3,8"),
        (17, "x: n,3,8; w: 3,1", "Add x w -> y", "n,3,8"),
        (17, "x: n,1,8; w: n,4,1", "Add x w -> y", "n,4,8"),
        (17, "x: n,3; w: m,3", "Add x w -> y", "?,3"),
        (17, "x: n,3; w: 5,3", "Mul x w -> y", "5,3"),
        (17, "x: 4,3; w: 5,3", "Mul x w -> y", "none"),
        // Before opset 7 the second operand is fitted to the first.
        (
            6,
            "x: n,3,8; w: 3",
            "Add x w -> y broadcast=1 axis=1",
            "n,3,8",
        ),
        (17, "x: n,3; w: 1,3; c: n,1", "Where c x w -> y", "n,3"),
        (17, "x: n,3", "Dropout x -> y mask", "n,3"),
    ]);
}

#[test]
fn windows() {
    check(&[
        (17, "x: n,3,9,9; w = 4,3,3,3", "Conv x w -> y", "n,4,7,7"),
        (
            17,
            "x: n,3,9,9; w = 4,3,3,3",
            "Conv x w -> y pads=[1,1,1,1] strides=[2,2]",
            "n,4,5,5",
        ),
        (
            17,
            "x: n,3,h,w; w = 4,3,3,3",
            "Conv x w -> y pads=[1,1,1,1]",
            "n,4,h,w",
        ),
        (
            17,
            "x: n,3,h,w; w = 4,3,3,3",
            "Conv x w -> y pads=[1,1,1,1] strides=[2,2]",
            "n,4,?,?",
        ),
        (
            17,
            "x: n,3,9,9; w = 4,3,3,3",
            "Conv x w -> y dilations=[2,2]",
            "n,4,5,5",
        ),
        (
            17,
            "x: n,3,9,8; w = 4,3,3,3",
            "Conv x w -> y auto_pad=\"SAME_UPPER\" strides=[2,2]",
            "n,4,5,4",
        ),
        (
            17,
            "x: n,3,9,9; w = 4,3,3,3",
            "Conv x w -> y auto_pad=\"VALID\"",
            "n,4,7,7",
        ),
        // An unknown input: rank and channel come from the weight.
        (
            17,
            "x: n,3; w = 4,3,3",
            "Unknown x -> z; Conv z w -> y",
            "?,4,?",
        ),
        // Malformed: only what does not depend on it is known.
        (
            17,
            "x: n,3,9,9; w = 4,3,3,3",
            "Conv x w -> y strides=[2]",
            "n,4,?,?",
        ),
        (
            17,
            "x: n,3,9,9; w = 4,3,3,3",
            "Conv x w -> y strides=[0,1]",
            "n,4,?,?",
        ),
        (
            17,
            "x: n,3,9,9; w = 4,3,3,3",
            "Conv x w -> y pads=1",
            "n,4,?,?",
        ),
        (
            17,
            "x: n,3,9,9; w = 4,3,3,3",
            "Conv x w -> y kernel_shape=[5,5]",
            "n,4,?,?",
        ),
        (17, "x: n,3,9; w = 4,3,3,3", "Conv x w -> y", "none"),
        (17, "x: n,3,2,2; w = 4,3,3,3", "Conv x w -> y", "n,4,?,?"),
        (
            17,
            "x: n,4,5,5; w = 4,3,2,2",
            "ConvTranspose x w -> y strides=[2,2] group=2",
            "n,6,10,10",
        ),
        (
            17,
            "x: n,4,5,5; w = 4,3,3,3",
            "ConvTranspose x w -> y strides=[2,2] pads=[1,1,1,1] output_padding=[1,1]",
            "n,3,10,10",
        ),
        (
            17,
            "x: n,4,5,5; w = 4,3,3,3",
            "ConvTranspose x w -> y strides=[2,2] auto_pad=\"SAME_UPPER\"",
            "n,3,10,10",
        ),
        (
            17,
            "x: n,4,6; w = 4,3,1",
            "ConvTranspose x w -> y strides=[2] auto_pad=\"SAME_UPPER\"",
            "n,3,?",
        ),
        (
            17,
            "x: n,4,5; w = 4,3,3",
            "ConvTranspose x w -> y output_shape=[11] strides=[2]",
            "n,3,11",
        ),
        (
            17,
            "x: n,3,9,9",
            "MaxPool x -> y kernel_shape=[3,3] strides=[2,2] pads=[1,1,1,1]",
            "n,3,5,5",
        ),
        (
            17,
            "x: n,3,8",
            "AveragePool x -> y kernel_shape=[3] strides=[2] ceil_mode=1",
            "n,3,4",
        ),
        // The last window would begin in the padding: versions differ.
        (
            17,
            "x: n,3,5",
            "MaxPool x -> y kernel_shape=[2] strides=[3] pads=[1,1] ceil_mode=1",
            "n,3,?",
        ),
        (17, "x: n,3,h,w", "GlobalAveragePool x -> y", "n,3,1,1"),
    ]);
}

#[test]
fn matrices() {
    check(&[
        (17, "x: n,8; w = 4,8", "Gemm x w -> y transB=1", "n,4"),
        (17, "x: 8,n; w = 8,4", "Gemm x w -> y transA=1", "n,4"),
        (17, "x: 8; w = 8,4", "Unknown x -> z; Gemm z w -> y", "?,4"),
        (17, "x: n,5,8; w = 8,4", "MatMul x w -> y", "n,5,4"),
        (17, "x: n,1,5,8; w = 3,8,4", "MatMul x w -> y", "n,3,5,4"),
        (17, "x: 8; w = 3,8,4", "MatMul x w -> y", "3,4"),
        (17, "x: n,5,8; w = 8", "MatMul x w -> y", "n,5"),
    ]);
}

#[test]
fn layouts() {
    check(&[
        (17, "x: n,4,2,2", "Flatten x -> y", "n,16"),
        (17, "x: n,4,2,2", "Flatten x -> y axis=-2", "?,4"),
        (17, "x: n,4,2,2; s # 0,-1", "Reshape x s -> y", "n,16"),
        (17, "x: n,?,2,2; s # 0,0,-1", "Reshape x s -> y", "n,?,4"),
        (17, "x: n,4,2,2; s # -1,16", "Reshape x s -> y", "n,16"),
        (17, "x: n,4,2,2; s # -1,8", "Reshape x s -> y", "?,8"),
        (17, "x: 2,4; s # 3,-1", "Reshape x s -> y", "none"),
        (17, "x: 2,4; s # -1,-1", "Reshape x s -> y", "none"),
        (
            17,
            "x: 2,4; s # 2,0,-1",
            "Reshape x s -> y allowzero=1",
            "none",
        ),
        (4, "x: 2,4", "Reshape x -> y shape=[4,-1]", "4,2"),
        (17, "x: n,4,2", "Transpose x -> y perm=[1,0,2]", "4,n,2"),
        (17, "x: n,4,2", "Transpose x -> y perm=[1,1,2]", "none"),
        (17, "x: n,1,2; a # 1", "Squeeze x a -> y", "n,2"),
        (11, "x: n,1,2", "Squeeze x -> y axes=[-2]", "n,2"),
        (17, "x: n,1,2", "Squeeze x -> y", "none"),
        (17, "x: n,4; a # 0,-1", "Unsqueeze x a -> y", "1,n,4,1"),
        (17, "x: n,4; w: n,5", "Concat x w -> y axis=1", "n,9"),
        (17, "x: ?,4; w: 7,5", "Concat x w -> y axis=1", "7,9"),
        (
            17,
            "x: n,4; s # 1; e # 3; a # 1",
            "Slice x s e a -> y",
            "n,2",
        ),
        (
            17,
            "x: n,4; s # -1; e # -9; a # 1; t # -2",
            "Slice x s e a t -> y",
            "n,2",
        ),
        (
            17,
            "x: n,4; s # 0; e # 9223372036854775807; a # 0",
            "Slice x s e a -> y",
            "n,4",
        ),
        (
            9,
            "x: n,4",
            "Slice x -> y starts=[1] ends=[100] axes=[1]",
            "n,3",
        ),
        (17, "x: n,6; p # 2,4", "Split x p -> z y axis=1", "n,4"),
        (11, "x: n,6", "Split x -> z y axis=1", "n,3"),
        // An absent output counts, even at the end.
        (11, "x: n,6", "Split x -> y z _ axis=1", "n,2"),
        (18, "x: n,7", "Split x -> z _ y axis=1 num_outputs=3", "n,1"),
        (17, "x: n,4; p # 0,1,0,2", "Pad x p -> y", "n,7"),
        (18, "x: n,4; p # 1,2; a # -1", "Pad x p _ a -> y", "n,7"),
        (17, "x: n,4,5; i # 0,2", "Gather x i -> y axis=1", "n,2,5"),
        (17, "x: n,4,5; i % 0", "Gather x i -> y axis=1", "n,5"),
        (17, "x: n,1; s # 3,1,4", "Expand x s -> y", "3,n,4"),
        (17, "x: n,3; s # 2,2", "Tile x s -> y", "?,6"),
        (17, "x: n,3,4", "Shape x -> y start=1", "2"),
        (17, "s # 2,3", "ConstantOfShape s -> y", "2,3"),
        (
            17,
            "x: n,8,2,3",
            "DepthToSpace x -> y blocksize=2",
            "n,2,4,6",
        ),
        (
            17,
            "x: n,2,4,6",
            "SpaceToDepth x -> y blocksize=2",
            "n,8,2,3",
        ),
    ]);
}

#[test]
fn reductions_and_resizes() {
    check(&[
        (17, "x: n,3,8,8", "ReduceMean x -> y axes=[2,3]", "n,3,1,1"),
        (
            17,
            "x: n,3,8,8",
            "ReduceMean x -> y axes=[-1,-2] keepdims=0",
            "n,3",
        ),
        (
            18,
            "x: n,3,8; a # 2",
            "ReduceMean x a -> y keepdims=0",
            "n,3",
        ),
        (
            18,
            "x: n,3,8",
            "ReduceMean x -> y noop_with_empty_axes=1",
            "n,3,8",
        ),
        (17, "x: n,3,8", "ArgMax x -> y axis=1 keepdims=0", "n,8"),
        (17, "x: n,30; k # 5", "TopK x k -> y i", "n,5"),
        (
            13,
            "x: n,3,8,8; s ~ 1,1,2,1.5",
            "Resize x _ s -> y",
            "n,3,16,12",
        ),
        (
            13,
            "x: n,3,8,8; s # 1,3,4,4",
            "Resize x _ _ s -> y",
            "1,3,4,4",
        ),
        (
            18,
            "x: n,3,8,8; s # 4,4",
            "Resize x _ _ s -> y axes=[2,3]",
            "n,3,4,4",
        ),
        (
            8,
            "x: n,3,8,8",
            "Upsample x -> y scales=f[1,1,2,2]",
            "n,3,16,16",
        ),
        (
            9,
            "x: n,3,8,8; s ~ 1,1,2,2",
            "Upsample x s -> y",
            "n,3,16,16",
        ),
    ]);
}

#[test]
fn shape_arithmetic_keeps_symbols() {
    let size = "Shape x -> s; Gather s z -> n; Unsqueeze n o -> u; Concat u m -> t axis=0; Reshape x t -> y";
    check(&[
        (17, "x: n,4,2,2; z % 0; o # 0; m # -1", size, "n,16"),
        (17, "x: n,4,h,2; z % 0; o # 0; m # 4,-1", size, "n,4,?"),
        // Half of the channels, times two rows each: shape arithmetic on the known part.
        (
            17,
            "x: n,4,2; z % 1; o # 0; m # 2,-1; d % 2",
            "Shape x -> s; Gather s z -> c; Div c d -> h; Unsqueeze h o -> u; Concat u m -> t axis=0; Reshape x t -> y",
            "2,2,?",
        ),
        // Upsampling to a size that is glued to batch and channel.
        (
            13,
            "x: n,3,8,8; b # 0; e # 2; a # 0; m # 16,16",
            "Shape x -> s; Slice s b e a -> k; Concat k m -> t axis=0; Resize x _ _ t -> y",
            "n,3,16,16",
        ),
    ]);
}

#[test]
fn what_is_no_evidence_is_unknown() {
    // A type annotation is a hint that nobody checks.
    let mut hinted = net(17, "x: n,3", "Unknown x -> z; Relu z -> y");
    let graph = hinted.graph.as_mut().unwrap();
    graph.value_info = vec![graph.input[0].clone()];
    graph.value_info[0].name = Some("z".to_owned());
    assert_eq!(output(&open(&hinted).unwrap()), "none");
    // An operator of another domain, whatever its name.
    let mut foreign = net(17, "x: n,3", "Relu x -> y");
    foreign.graph.as_mut().unwrap().node[0].domain = Some("com.example".to_owned());
    assert_eq!(output(&open(&foreign).unwrap()), "none");
    // A local function hides the operator of its name.
    let mut hidden = net(17, "x: n,3", "Relu x -> y");
    hidden.functions = vec![FunctionProto {
        name: Some("Relu".to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![line("Flatten a -> b axis=@axis")],
        ..Default::default()
    }];
    let model = open(&hidden).unwrap();
    assert_eq!(output(&model), "none");
    // In the function: of unknown input, by an attribute that its caller gives, but a matrix all the same.
    let (_, function) = model.scopes().last().unwrap();
    assert_eq!(shown(&Types::derive(&model), function.outputs[0]), "?,?");
    // A size of 0 in a declaration is an unknown one; a default that may be overridden is no content.
    check(&[(17, "x: 0,3", "Relu x -> y", "?,3")]);
    let mut overridable = net(17, "x: n,4; s # 2,-1", "Reshape x s -> y");
    let mut declared = value("s");
    if let Some(type_proto::Value::TensorType(tensor)) =
        &mut declared.r#type.as_mut().unwrap().value
    {
        tensor.elem_type = Some(7);
    }
    overridable.graph.as_mut().unwrap().input.push(declared);
    assert_eq!(output(&open(&overridable).unwrap()), "none");
    overridable.ir_version = Some(3);
    assert_eq!(output(&open(&overridable).unwrap()), "2,?");
}

fn branches(a: &str, b: &str) -> String {
    let graph = |text: &str| GraphProto {
        name: Some("branch".to_owned()),
        node: vec![line(text)],
        output: vec![value(text.split_whitespace().nth(3).unwrap())],
        ..Default::default()
    };
    let mut model = net(17, "x: n,4,4; c: 1", "If c -> y");
    model.graph.as_mut().unwrap().node[0].attribute =
        vec![body("then_branch", graph(a)), body("else_branch", graph(b))];
    output(&open(&model).unwrap())
}

#[test]
fn branches_must_agree() {
    assert_eq!(branches("Relu x -> a", "Sigmoid x -> b"), "n,4,4");
    assert_eq!(branches("Relu x -> a", "Transpose x -> b"), "?,4,?");
    assert_eq!(branches("Relu x -> a", "Flatten x -> b"), "none");
}

#[test]
fn inputs_of_loop_bodies_are_unknown() {
    let mut model = net(17, "x: n,3; w = 4,3,3; m % 3", "Loop m _ x -> y");
    let inner = GraphProto {
        name: Some("body".to_owned()),
        input: vec![value("i"), value("go"), value("state")],
        node: vec![line("Identity go -> on"), line("Conv state w -> next")],
        output: vec![value("on"), value("next")],
        ..Default::default()
    };
    model.graph.as_mut().unwrap().node[0].attribute = vec![body("body", inner)];
    let model = open(&model).unwrap();
    assert_eq!(output(&model), "none");
    let types = Types::derive(&model);
    let (_, scope) = model.scopes().last().unwrap();
    assert_eq!(shown(&types, scope.inputs[2]), "none");
    assert_eq!(shown(&types, scope.outputs[1]), "?,4,?");
}

#[test]
fn element_types() {
    let rows = [
        ("x: 2", "Cast x -> y to=10", Some(DType::F16)),
        ("x: 2", "Equal x x -> y", Some(DType::Bool)),
        ("x: 2", "ArgMax x -> y", Some(DType::I64)),
        ("x: 2", "Cast x -> y to=0", None),
        ("x: 2; s ~ 1", "QuantizeLinear x s -> y", Some(DType::U8)),
        (
            "x: 2; h: 1",
            "Cast h -> k to=16; CastLike x k -> y",
            Some(DType::BF16),
        ),
        (
            "s # 2",
            "ConstantOfShape s -> y value=t[5]",
            Some(DType::I64),
        ),
        ("x: 2", "Cast x -> k to=11; Add x k -> y", None),
    ];
    for (values, nodes, expected) in rows {
        let (model, y) = load(17, values, nodes);
        assert_eq!(Types::derive(&model).dtype(y), expected, "{nodes}");
    }
}

#[test]
fn accessors_and_newer_values() {
    let (model, y) = load(17, "x: n,3", "Relu x -> y");
    let types = Types::derive(&model);
    assert_eq!(
        (
            types.rank(y),
            types.dim(y, 1),
            types.dim(y, 0),
            types.dim(y, 9)
        ),
        (Some(2), Some(3), None, None)
    );
    let (larger, last) = load(17, "x: n,3", "Relu x -> a; Relu a -> b; Relu b -> y");
    assert!(larger.value_count() > model.value_count());
    assert_eq!((types.dtype(last), types.dims(last)), (None, None));
}

#[test]
fn ranks_do_not_grow_without_end() {
    let mut nodes = "Unsqueeze x a -> v0;".to_owned();
    for index in 0..200 {
        nodes += &format!("Unsqueeze v{index} a -> v{};", index + 1);
    }
    nodes += "Identity v200 -> y";
    check_text(17, "x: n; a # 0,1,2,3,4,5,6,7", &nodes, "none");
    // A shape of many numbers, a Concat of sizes that overflow.
    let big = 1i64 << 62;
    let mut model = net(17, "x: n", "Concat a a a a a -> y axis=0");
    let graph = model.graph.as_mut().unwrap();
    let mut empty = integers("a", &[0, big, big], &[]);
    empty.data_type = Some(1);
    graph.initializer.push(empty);
    graph.node[0] = line("Concat a a a a a -> y axis=1");
    assert_eq!(output(&open(&model).unwrap()), format!("0,?,{big}"));
}

fn check_text(opset: i64, values: &str, nodes: &str, expected: &str) {
    let (model, _) = load(opset, values, nodes);
    assert_eq!(output(&model), expected);
}

/// The shapes of whole networks. They are not in the repository: `BNKIT_MODELS` or `../shared/models` beside it.
#[test]
fn outputs_of_real_models_are_derived() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/models");
    let folder = std::env::var("BNKIT_MODELS").unwrap_or_else(|_| beside.to_owned());
    let mut folders = vec![std::path::PathBuf::from(&folder)];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "onnx")
            {
                let model = Model::open(&path).unwrap();
                let types = Types::derive(&model);
                for &output in &model.scope(model.main()).outputs {
                    let place = format!("{}: {}", path.display(), model.value(output).name);
                    assert!(
                        types.rank(output).is_some() && types.dtype(output).is_some(),
                        "{place}"
                    );
                }
                count += 1;
            }
        }
    }
    if count == 0 {
        #[expect(clippy::print_stderr, reason = "says that the test did not run")]
        {
            eprintln!("skipped: no models in {folder}");
        }
    }
}
