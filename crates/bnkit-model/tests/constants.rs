//! Constants and constant expressions. The numbers agree with onnx's ReferenceEvaluator and with ONNX Runtime.

mod common;

use bnkit_model::onnx::{Constants, Model, NotConstant, Payload, Types, ValueId};
use bnkit_model::proto::*;
use common::net::{integers, line, load, net};
use common::{body, open, value};

fn f64s(model: &Model, value: ValueId) -> Result<(Vec<usize>, Vec<f64>), String> {
    let types = Types::derive(model);
    let constants = Constants::new(model, &types, false);
    let dense = constants.f64(value);
    assert!(dense.is_err() || constants.is_constant(value));
    dense
        .map(|dense| (dense.dims, dense.values))
        .map_err(|why| why.explain(model))
}

fn evaluated(opset: i64, values: &str, nodes: &str) -> Result<(Vec<usize>, Vec<f64>), String> {
    let (model, y) = load(opset, values, nodes);
    f64s(&model, y)
}

/// Opset, values, nodes, and shape and elements of `y`.
type Row = (
    i64,
    &'static str,
    &'static str,
    &'static [usize],
    &'static [f64],
);

fn check(rows: &[Row]) {
    for &(opset, values, nodes, dims, expected) in rows {
        let found = evaluated(opset, values, nodes);
        assert_eq!(
            found,
            Ok((dims.to_vec(), expected.to_vec())),
            "opset {opset}: {values}: {nodes}"
        );
    }
}

#[test]
fn constant_nodes() {
    check(&[
        (17, "", "Constant -> y value_float=0.5", &[], &[0.5]),
        (
            17,
            "",
            "Constant -> y value_floats=f[0.5,2]",
            &[2],
            &[0.5, 2.],
        ),
        (17, "", "Constant -> y value_int=3", &[], &[3.]),
        (17, "", "Constant -> y value_ints=[3,4]", &[2], &[3., 4.]),
        (17, "", "Constant -> y value=t[1,2,3]", &[3], &[1., 2., 3.]),
        (
            17,
            "",
            "Constant -> k value_int=3; Identity k -> i; Identity i -> y",
            &[],
            &[3.],
        ),
    ]);
    for (nodes, why) in [
        (
            "Constant -> y value_int=3 value_float=0.5",
            "exactly one value",
        ),
        ("Constant -> y", "exactly one value"),
        ("Constant -> y value_string=\"a\"", "strings"),
        ("Constant -> y value_int=@n", "caller"),
        ("Constant -> y value_int=[1]", "malformed"),
    ] {
        let error = evaluated(17, "", nodes).unwrap_err();
        assert!(error.contains(why), "{nodes}: {error}");
    }
}

#[test]
fn moving() {
    check(&[
        (
            17,
            "f ~ 1,2,3,4,5,6; s # 2,-1",
            "Reshape f s -> y",
            &[2, 3],
            &[1., 2., 3., 4., 5., 6.],
        ),
        (
            17,
            "f ~ 1,2,3,4,5,6; s # 2,3",
            "Reshape f s -> m; Transpose m -> y",
            &[3, 2],
            &[1., 4., 2., 5., 3., 6.],
        ),
        (
            17,
            "f ~ 1,2,3,4,5,6; s # 2,3; b # 1; e # -9; a # 0; t # -1",
            "Reshape f s -> m; Slice m b e a t -> y",
            &[2, 3],
            &[4., 5., 6., 1., 2., 3.],
        ),
        (
            17,
            "f ~ 1,2,3,4,5,6; b # 1; e # 6; a # 0; t # 3",
            "Slice f b e a t -> y",
            &[2],
            &[2., 5.],
        ),
        (
            9,
            "f ~ 1,2,3,4",
            "Slice f -> y starts=[-2] ends=[100]",
            &[2],
            &[3., 4.],
        ),
        (
            17,
            "f ~ 1,2,3,4,5,6; s # 2,3; i # 2,-3",
            "Reshape f s -> m; Gather m i -> y axis=1",
            &[2, 2],
            &[3., 1., 6., 4.],
        ),
        (17, "f ~ 1,2,3; i % -1", "Gather f i -> y", &[], &[3.]),
        (
            17,
            "f ~ 1,2; s # 2,1; t # 2,3",
            "Reshape f s -> m; Expand m t -> y",
            &[2, 3],
            &[1., 1., 1., 2., 2., 2.],
        ),
        (
            17,
            "f ~ 1,2; s # 2,1",
            "Reshape f s -> m; Concat m m -> y axis=-1",
            &[2, 2],
            &[1., 1., 2., 2.],
        ),
        (
            17,
            "f ~ 1,2; a # 0,2",
            "Unsqueeze f a -> y",
            &[1, 2, 1],
            &[1., 2.],
        ),
        (
            11,
            "f ~ 1,2",
            "Unsqueeze f -> u axes=[0]; Squeeze u -> y axes=[0]",
            &[2],
            &[1., 2.],
        ),
        (17, "f ~ 1,2", "Flatten f -> y axis=0", &[1, 2], &[1., 2.]),
        (17, "s # 2", "ConstantOfShape s -> y", &[2], &[0., 0.]),
        (
            17,
            "s # 2",
            "ConstantOfShape s -> y value=t[7]",
            &[2],
            &[7., 7.],
        ),
        (
            17,
            "c # 1,0; f ~ 1,2; g ~ 3",
            "Cast c -> b to=9; Where b f g -> y",
            &[2],
            &[1., 3.],
        ),
    ]);
}

#[test]
fn arithmetic() {
    let tenth = f64::from(0.1f32);
    assert_eq!(
        evaluated(17, "a ~ 0.1; b ~ 3", "Mul a b -> y"),
        Ok((vec![1], vec![tenth * 3.0]))
    );
    // Rounded by a Cast only.
    let rounded = f64::from((tenth * 3.0) as f32);
    assert_ne!(rounded, tenth * 3.0);
    assert_eq!(
        evaluated(17, "a ~ 0.1; b ~ 3", "Mul a b -> m; Cast m -> y to=1"),
        Ok((vec![1], vec![rounded]))
    );
    check(&[
        (17, "a ~ 1,2; b ~ 4", "Add a b -> y", &[2], &[5., 6.]),
        (17, "a ~ 1,2; b ~ 4", "Sub a b -> y", &[2], &[-3., -2.]),
        (17, "a ~ 1,2; b ~ 4", "Div a b -> y", &[2], &[0.25, 0.5]),
        (
            17,
            "a ~ 4,9",
            "Sqrt a -> r; Reciprocal r -> q; Neg q -> y",
            &[2],
            &[-0.5, -1. / 3.],
        ),
        (17, "a ~ 4,9; b ~ 0.5", "Pow a b -> y", &[2], &[2., 3.]),
        (17, "a # -7,7; b # 2", "Div a b -> y", &[2], &[-3., 3.]),
        (17, "a ~ -1.7,2.9", "Cast a -> y to=6", &[2], &[-1., 2.]),
        (17, "a ~ 2049", "Cast a -> y to=10", &[1], &[2048.]),
        (17, "a # 0,5", "Cast a -> y to=9", &[2], &[0., 1.]),
    ]);
    for (values, nodes, why) in [
        ("a # 1; b # 0", "Div a b -> y", "no result"),
        (
            "a # 9223372036854775807; b # 1",
            "Add a b -> y",
            "no result",
        ),
        ("a # 300", "Cast a -> y to=2", "300 does not fit uint8"),
        ("a ~ 1e30", "Cast a -> y to=7", "does not fit int64"),
        ("a ~ 1,2; b ~ 1,2,3", "Add a b -> y", "broadcast"),
        ("a ~ 1; b # 1", "Add a b -> y", "float32 and int64"),
        ("a ~ 1,2; i # 2", "Gather a i -> y", "index 2 of 2"),
    ] {
        let error = evaluated(17, values, nodes).unwrap_err();
        assert!(
            error.contains(why) && error.starts_with("node \"y\""),
            "{nodes}: {error}"
        );
    }
}

#[test]
fn dequantization() {
    let q = "q # 1,2,3,4; s # 2,2";
    let prepare = "Cast q -> i to=3; Reshape i s -> w;";
    let run = |more: &str, node: &str| {
        evaluated(13, &format!("{q}; {more}"), &format!("{prepare} {node}"))
    };
    let expected = |values: [f64; 4]| Ok((vec![2, 2], values.to_vec()));
    assert_eq!(
        run("c ~ 0.5", "DequantizeLinear w c -> y"),
        expected([0.5, 1., 1.5, 2.])
    );
    assert_eq!(
        run("c ~ 1,10", "DequantizeLinear w c -> y axis=0"),
        expected([1., 2., 30., 40.])
    );
    assert_eq!(
        run("c ~ 1,10", "DequantizeLinear w c -> y"),
        expected([1., 20., 3., 40.])
    );
    let zero = "Cast z -> o to=3; DequantizeLinear w c o -> y axis=0";
    assert_eq!(run("c ~ 1,10; z # 1,2", zero), expected([0., 1., 10., 20.]));
    let error = run("c ~ 1,10; z # 1,2", "DequantizeLinear w c z -> y axis=0").unwrap_err();
    assert!(error.contains("a zero point of int64 for int8"), "{error}");
    assert!(run("c ~ 1,10,100", "DequantizeLinear w c -> y").is_err());
    assert!(run("c ~ 1,10", "DequantizeLinear w c -> y block_size=2").is_err());
}

#[test]
fn a_type_or_a_shape_is_all_that_counts() {
    // How PyTorch's dynamo exporter writes a bias of zeros: the data only lend their type, the weight its shape.
    let bias = "CastLike z x -> c; Shape w -> s end=1; Expand c s -> y";
    check(&[
        (18, "x: n,3,8,8; w = 2,3,1,1; z % 0", bias, &[2], &[0., 0.]),
        (
            18,
            "x: n,3,8,8",
            "Shape x -> y start=1",
            &[3],
            &[3., 8., 8.],
        ),
        // The batch is unknown, but not asked for.
        (
            18,
            "x: n,3,8,8; i # 1",
            "Shape x -> s; Gather s i -> y",
            &[1],
            &[3.],
        ),
        (
            18,
            "x: n,3; w: 3",
            "Add x w -> a; Shape a -> y start=1",
            &[1],
            &[3.],
        ),
    ]);
    let (model, y) = load(18, "x: n,3,8,8; w = 2,3,1,1; z % 0", bias);
    let types = Types::derive(&model);
    let tensor = Constants::new(&model, &types, false).tensor(y).unwrap();
    assert_eq!(
        (tensor.dtype, tensor.dims.clone()),
        (bnkit_model::DType::F32, [2].into())
    );
    let error = evaluated(18, "x: n,3,8,8", "Shape x -> y").unwrap_err();
    assert_eq!(error, "it is computed from \"x\", which is not constant");
    let error = evaluated(18, "x: n; z % 0", "Unknown x -> u; CastLike z u -> y").unwrap_err();
    assert!(
        error.contains("the type that it casts to is unknown"),
        "{error}"
    );
}

#[test]
fn an_identity_has_one_input() {
    for values in ["f ~ 1,2; g ~ 3,4", "f # 1,2; g # 3,4"] {
        assert!(evaluated(17, values, "Identity f -> y").is_ok(), "{values}");
        for nodes in ["Identity f g -> y", "Identity f g -> i; Neg i -> y"] {
            let (model, y) = load(17, values, nodes);
            let types = Types::derive(&model);
            let constants = Constants::new(&model, &types, false);
            assert!(!constants.is_constant(y), "{values}: {nodes}");
            let tensor = constants.tensor(y);
            assert!(matches!(tensor, Err(NotConstant::Computed { .. })));
        }
    }
}

#[test]
fn stored_tensors_stay_stored() {
    let (model, y) = load(17, "f ~ 1,2", "Identity f -> i; Identity i -> y");
    let types = Types::derive(&model);
    let constants = Constants::new(&model, &types, false);
    assert!(matches!(
        constants.tensor(y).unwrap().payload,
        Payload::Raw(_)
    ));
    let (model, y) = load(17, "", "Constant -> y value=t[1,2]");
    let types = Types::derive(&model);
    let constants = Constants::new(&model, &types, false);
    assert!(matches!(
        constants.tensor(y).unwrap().payload,
        Payload::Typed
    ));
    assert_eq!(constants.ints(y).unwrap().values, [1, 2]);
    let (model, y) = load(17, "f ~ 1,2", "Neg f -> y");
    let types = Types::derive(&model);
    let constants = Constants::new(&model, &types, false);
    let tensor = constants.tensor(y).unwrap();
    assert!(matches!(tensor.payload, Payload::Computed(_)));
    assert_eq!(model.read_f64(&tensor).unwrap(), [-1.0, -2.0]);
    assert!(matches!(constants.ints(y), Err(NotConstant::Unreadable(_))));
}

#[test]
fn a_default_may_be_overridden() {
    let mut file = net(17, "f ~ 1,2; x: 2", "Neg f -> y");
    file.graph.as_mut().unwrap().input.push(value("f"));
    let modern = open(&file).unwrap();
    let types = Types::derive(&modern);
    let y = modern.scope(modern.main()).outputs[0];
    let error = Constants::new(&modern, &types, false).f64(y).unwrap_err();
    assert!(matches!(error, NotConstant::Overridable { value } if modern.value(value).name == "f"));
    assert!(Constants::new(&modern, &types, true).f64(y).is_ok());
    file.ir_version = Some(3);
    let old = open(&file).unwrap();
    assert!(f64s(&old, y).is_ok());
}

#[test]
fn bodies_see_outer_constants() {
    let mut file = net(17, "f ~ 1,2; c: 1", "If c -> y");
    let branch = |text: &str, output: &str| GraphProto {
        name: Some("branch".to_owned()),
        node: vec![line(text)],
        output: vec![value(output)],
        ..Default::default()
    };
    let bodies = [
        ("then_branch", branch("Neg f -> a", "a")),
        ("else_branch", branch("Relu f -> b", "b")),
    ];
    file.graph.as_mut().unwrap().node[0].attribute = bodies
        .into_iter()
        .map(|(name, graph)| body(name, graph))
        .collect();
    let model = open(&file).unwrap();
    let scopes: Vec<_> = model.scopes().map(|(_, scope)| scope.outputs[0]).collect();
    assert_eq!(f64s(&model, scopes[1]), Ok((vec![2], vec![-1.0, -2.0])));
    // Relu is nothing that is evaluated; the If of constants is computed.
    assert_eq!(
        f64s(&model, scopes[2]).unwrap_err(),
        "it is computed from \"b\", which is not constant"
    );
    assert!(f64s(&model, scopes[0]).is_err());
}

#[test]
fn a_small_file_makes_no_large_constant() {
    for (values, nodes) in [
        ("s # 100000,100000", "ConstantOfShape s -> y"),
        ("f ~ 1; s # 1000000,1000000,1000000", "Expand f s -> y"),
        (
            "s # 4000000000,4000000000,4000000000",
            "ConstantOfShape s -> y",
        ),
        (
            "s # 10000000; a # 0",
            "ConstantOfShape s -> c; Concat c c -> y axis=0",
        ),
    ] {
        let error = evaluated(17, values, nodes).unwrap_err();
        assert!(error.contains("too many elements"), "{nodes}: {error}");
    }
    // Sizes that only multiply without overflow because one of them is 0.
    let big = 1i64 << 62;
    for text in [
        "Slice e i i i -> y",
        "Gather e i -> y axis=0",
        "Concat e e -> y axis=0",
        "Transpose e -> y",
        "Flatten e -> y axis=1",
        "Neg e -> y",
    ] {
        let mut file = net(17, "i # 0", text);
        let mut empty = integers("e", &[0, big, big], &[]);
        empty.data_type = Some(1);
        file.graph.as_mut().unwrap().initializer.push(empty);
        let model = open(&file).unwrap();
        // Whatever comes of it, nothing panics.
        let _ = f64s(&model, model.scope(model.main()).outputs[0]);
    }
}

#[test]
fn expressions_are_limited_in_depth_and_size() {
    let chain = |length: usize, node: fn(&str, &str) -> String| {
        let mut nodes = node("f", "v0") + ";";
        for index in 0..length {
            nodes += &(node(&format!("v{index}"), &format!("v{}", index + 1)) + ";");
        }
        nodes + &format!("Identity v{length} -> y")
    };
    let negate = |from: &str, to: &str| format!("Neg {from} -> {to}");
    let double = |from: &str, to: &str| format!("Add {from} {from} -> {to}");
    assert!(evaluated(17, "f ~ 1", &chain(50, negate)).is_ok());
    let error = evaluated(17, "f ~ 1", &chain(100_000, negate)).unwrap_err();
    assert!(error.contains("more than 64 nodes deep"), "{error}");
    let identity = |from: &str, to: &str| format!("Identity {from} -> {to}");
    assert!(evaluated(17, "f ~ 1", &chain(5000, identity)).is_err());
    // What is read twice is computed once: 2^51 paths.
    assert_eq!(
        evaluated(17, "f ~ 1", &chain(50, double)),
        Ok((vec![1], vec![2f64.powi(51)]))
    );
    // What is too large to be kept runs into the limit of nodes instead.
    let error = evaluated(17, "f = 2000", &chain(50, double)).unwrap_err();
    assert!(
        error.contains("more than 4096 nodes") || error.contains("too large"),
        "{error}"
    );
}
