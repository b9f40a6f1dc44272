//! Tiny models, built here: what is rewritten still computes what ONNX says.

mod nets;

use bnkit_engine::{Dim, EngineError, LoadOptions, Precision, Session};
use bnkit_model::{DType, Tensor};
use prost::Message;
use tract_onnx::pb::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto,
    TensorProto, ValueInfoProto, attribute_proto::AttributeType,
};

use nets::{constant, f32s, input, int, model, node, text};

const F32: LoadOptions = LoadOptions {
    precision: Precision::F32,
    input_dims: &[],
    model_dir: None,
    extra_outputs: &[],
    perturbation: None,
};
const F64: LoadOptions = LoadOptions {
    precision: Precision::F64,
    ..F32
};

fn run(model: &ModelProto, options: &LoadOptions, x: Tensor) -> Vec<f64> {
    let session = Session::load(&model.encode_to_vec(), options).unwrap();
    session.run(&[("x".into(), x)]).unwrap()[0]
        .1
        .to_f64()
        .unwrap()
}

fn unary(op_type: &str) -> ModelProto {
    model(
        17,
        vec![input("x", DType::F32, &[1, 3])],
        vec![node(op_type, &["x"], &["y"])],
        vec![],
    )
}

fn three(values: [f64; 3]) -> Tensor {
    Tensor::from_f64(DType::F32, vec![1, 3], &values).unwrap()
}

#[test]
fn functions_without_a_double_kernel_get_one() {
    let x = [-1.5, 0.25, 4.0];
    type Function = fn(f64) -> f64;
    let reference: [(&str, Function); 5] = [
        ("Sigmoid", |x| 1.0 / (1.0 + (-x).exp())),
        ("HardSwish", |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        ("LeakyRelu", |x| {
            if x < 0.0 { f64::from(0.01f32) * x } else { x }
        }),
        ("Erf", libm::erf),
        ("Round", f64::round_ties_even),
    ];
    for (op_type, function) in reference {
        let found = run(&unary(op_type), &F64, three(x));
        for (found, x) in found.iter().zip(x) {
            assert!(
                (found - function(x)).abs() < 1e-15,
                "{op_type}({x}) = {found}"
            );
        }
        let single = run(&unary(op_type), &F32, three(x));
        assert!((single[2] - found[2]).abs() < 1e-5, "{op_type}");
    }
}

#[test]
fn broadcasting_before_opset_7_starts_at_the_axis() {
    let add = int(
        int(node("Add", &["x", "b"], &["y"]), "axis", 1),
        "broadcast",
        1,
    );
    let bias = f32s("b", &[2], &[10.0, 20.0]);
    let inputs = vec![input("x", DType::F32, &[1, 2, 2])];
    let mut model = model(6, inputs, vec![add], vec![bias]);
    let x = || Tensor::from_f32(vec![1, 2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(run(&model, &F32, x()), [11.0, 12.0, 23.0, 24.0]);
    model.graph.as_mut().unwrap().node = vec![node("PRelu", &["x", "b"], &["y"])];
    let x = Tensor::from_f32(vec![1, 2, 2], &[-1.0, 2.0, -3.0, 4.0]).unwrap();
    assert_eq!(run(&model, &F64, x), [-10.0, 2.0, -60.0, 4.0]);
}

#[test]
fn batch_norm_runs_in_eval_mode_whatever_the_file_says() {
    let vector = |name, values: [f64; 2]| f32s(name, &[2], &values);
    let constants = vec![
        vector("g", [1.0, 2.0]),
        vector("b", [0.0, 1.0]),
        vector("m", [1.0, 2.0]),
        vector("v", [4.0, 0.25]),
    ];
    let training = node(
        "BatchNormalization",
        &["x", "g", "b", "m", "v"],
        &["y", "m1", "v1"],
    );
    let training = int(training, "training_mode", 1);
    let mut model = model(
        15,
        vec![input("x", DType::F32, &[2, 2])],
        vec![training],
        constants,
    );
    let graph = model.graph.as_mut().unwrap();
    graph.output.push(ValueInfoProto {
        name: "m1".into(),
        ..Default::default()
    });
    let session = Session::load(&model.encode_to_vec(), &F64).unwrap();
    assert_eq!(session.outputs(), ["y"]);
    let found = run(
        &model,
        &F64,
        Tensor::from_f32(vec![2, 2], &[1.0, 2.0, 3.0, 1.0]).unwrap(),
    );
    let epsilon = f64::from(1e-5f32);
    let expected = [
        0.0,
        1.0,
        2.0 / (4.0 + epsilon).sqrt(),
        -2.0 / (0.25 + epsilon).sqrt() + 1.0,
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-14, "{found} {expected}");
    }
}

#[test]
fn narrow_floats_are_widened_and_integers_stay() {
    let gather = node("Gather", &["table", "x"], &["y"]);
    let table = constant("table", DType::BF16, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let model = model(
        17,
        vec![input("x", DType::I64, &[2])],
        vec![gather],
        vec![table],
    );
    for (options, dtype) in [(&F32, DType::F32), (&F64, DType::F64)] {
        let session = Session::load(&model.encode_to_vec(), options).unwrap();
        let x = Tensor::from_i64(vec![2], &[1, 0]).unwrap();
        let outputs = session.run(&[("x".into(), x)]).unwrap();
        assert_eq!(outputs[0].1.dtype(), dtype);
        assert_eq!(outputs[0].1.to_f64().unwrap(), [3.0, 4.0, 1.0, 2.0]);
    }
}

#[test]
fn local_functions_are_written_out() {
    let mut call = node("Twice", &["x"], &["y"]);
    call.domain = "local".into();
    let mut model = model(
        17,
        vec![input("x", DType::F32, &[1, 3])],
        vec![call],
        vec![],
    );
    model.functions.push(FunctionProto {
        name: Some("Twice".into()),
        domain: Some("local".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![node("Add", &["a", "a"], &["b"])],
        ..Default::default()
    });
    assert_eq!(run(&model, &F32, three([1.0, 2.0, 3.0])), [2.0, 4.0, 6.0]);
}

#[test]
fn a_recurrent_network_has_double_precision() {
    let constants = vec![
        f32s("w", &[1, 4, 1], &[0.5, -0.3, 0.2, 0.9]),
        f32s("r", &[1, 4, 1], &[0.1, 0.2, -0.4, 0.3]),
    ];
    let lstm = int(node("LSTM", &["x", "w", "r"], &["y"]), "hidden_size", 1);
    let model = model(
        17,
        vec![input("x", DType::F32, &[3, 1, 1])],
        vec![lstm],
        constants,
    );
    let x = [1.0, -0.5, 0.25];
    let found = run(
        &model,
        &F64,
        Tensor::from_f64(DType::F32, vec![3, 1, 1], &x).unwrap(),
    );
    let weight = |value: f32| f64::from(value);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let (mut h, mut c) = (0.0, 0.0);
    for (x, found) in x.into_iter().zip(found) {
        let gate = |w: f32, r: f32| weight(w) * x + weight(r) * h;
        let (i, o, f) = (
            sigmoid(gate(0.5, 0.1)),
            sigmoid(gate(-0.3, 0.2)),
            sigmoid(gate(0.2, -0.4)),
        );
        c = f * c + i * gate(0.9, 0.3).tanh();
        h = o * c.tanh();
        assert!((found - h).abs() < 1e-15, "{found} {h}");
    }
}

/// tract merges what follows a Conv into its kernel, whichever operand the Conv is.
#[test]
fn an_operator_behind_a_conv_knows_its_operands() {
    type Function = fn(f64, f64) -> f64;
    let operators: [(&str, Function); 4] = [
        ("Sub", |a, b| a - b),
        ("Div", |a, b| a / b),
        ("Add", |a, b| a + b),
        ("Mul", |a, b| a * b),
    ];
    let x = [1.0, 2.0, -3.0, 0.5];
    let (weights, biases, operands) = ([2.0, -0.75], [0.25, 1.25], [3.0, -5.0]);
    for (op_type, function) in operators {
        for conv_first in [true, false] {
            for (channels, dims) in [
                (1, &[][..]),
                (1, &[1][..]),
                (1, &[1, 1, 1, 1][..]),
                (2, &[2, 1, 1][..]),
                (2, &[1, 2, 1, 1][..]),
                (2, &[1][..]),
            ] {
                let count: i64 = dims.iter().product();
                let operand = |channel| operands[if count == 1 { 0 } else { channel }];
                let pair = if conv_first { ["a", "k"] } else { ["k", "a"] };
                let model = model(
                    17,
                    vec![input("x", DType::F32, &[1, 1, 2, 2])],
                    vec![
                        node("Conv", &["x", "w", "b"], &["a"]),
                        node(op_type, &pair, &["y"]),
                    ],
                    vec![
                        f32s("w", &[channels as i64, 1, 1, 1], &weights[..channels]),
                        f32s("b", &[channels as i64], &biases[..channels]),
                        f32s("k", dims, &operands[..count as usize]),
                    ],
                );
                let expected: Vec<f64> = (0..channels)
                    .flat_map(|channel| x.map(|x| (channel, x)))
                    .map(|(channel, x)| {
                        let conv = weights[channel] * x + biases[channel];
                        let operand = operand(channel);
                        if conv_first {
                            function(conv, operand)
                        } else {
                            function(operand, conv)
                        }
                    })
                    .collect();
                for (options, tolerance) in [(&F32, 1e-6), (&F64, 1e-14)] {
                    let x = Tensor::from_f64(DType::F32, vec![1, 1, 2, 2], &x).unwrap();
                    for (found, expected) in run(&model, options, x).iter().zip(&expected) {
                        assert!(
                            (found - expected).abs() <= tolerance * expected.abs(),
                            "{op_type} {dims:?} {conv_first}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }
}

/// tract's choice of a kernel fails on some products in double precision.
#[test]
fn a_product_without_a_kernel_runs_all_the_same() {
    let mut second = node("MatMul", &["b", "v"], &["y"]);
    second.name = "the other MatMul".into();
    let model = model(
        17,
        vec![input("x", DType::F32, &[1, 1, 2, 2])],
        vec![
            int(node("Flatten", &["x"], &["flat"]), "axis", 2),
            node("MatMul", &["flat", "w"], &["a"]),
            node("Add", &["a", "k"], &["b"]),
            second,
        ],
        vec![
            f32s("w", &[4, 1], &[1.0, -2.0, 0.5, 1.0]),
            f32s("k", &[1], &[2.0]),
            f32s("v", &[1, 4], &[1.0, 2.0, 3.0, -4.0]),
        ],
    );
    for options in [&F32, &F64] {
        let x = Tensor::from_f32(vec![1, 1, 2, 2], &[1.0, 2.0, 4.0, 0.5]).unwrap();
        let found = run(&model, options, x);
        assert_eq!(found, [1.5, 3.0, 4.5, -6.0]);
    }
}

/// Shapes that do not fit are the model's fault, which is not what an operator that the engine lacks is.
#[test]
fn shapes_that_do_not_fit_are_told_from_what_is_unsupported() {
    let model = model(
        17,
        vec![input("x", DType::F32, &[1, 3])],
        vec![node("MatMul", &["x", "w"], &["y"])],
        vec![f32s("w", &[2, 1], &[1.0, -2.0])],
    );
    let error = Session::load(&model.encode_to_vec(), &F32).unwrap_err();
    assert!(
        matches!(&error, EngineError::Misfit { operator, .. } if operator == "MatMul"),
        "{error:?}"
    );
}

/// A MatMul and an Add with a constant in a loop: tract takes them out of the body without end.
#[test]
fn simplifying_a_loop_ends() {
    let body = GraphProto {
        node: vec![
            node("MatMul", &["row", "w"], &["a"]),
            node("Mul", &["a", "s"], &["scaled"]),
            node("Add", &["scaled", "b"], &["out"]),
        ],
        input: vec![input("row", DType::F32, &[1, 2])],
        output: vec![input("out", DType::F32, &[1, 2])],
        ..Default::default()
    };
    let mut scan = int(node("Scan", &["x"], &["y"]), "num_scan_inputs", 1);
    scan.attribute.push(AttributeProto {
        name: "body".into(),
        r#type: AttributeType::Graph as i32,
        g: Some(body),
        ..Default::default()
    });
    let model = model(
        17,
        vec![input("x", DType::F32, &[2, 1, 2])],
        vec![scan],
        vec![
            f32s("w", &[2, 2], &[1.0, 0.0, 1.0, 2.0]),
            f32s("s", &[2], &[2.0, -1.0]),
            f32s("b", &[2], &[0.5, 0.25]),
        ],
    );
    for options in [&F32, &F64] {
        let x = Tensor::from_f32(vec![2, 1, 2], &[1.0, 2.0, 3.0, -4.0]).unwrap();
        assert_eq!(run(&model, options, x), [6.5, -3.75, -1.5, 8.25]);
    }
}

#[test]
fn a_resized_constant_stays_exactly_constant() {
    let resize = node("Resize", &["x", "", "scales"], &["y"]);
    let resize = text(resize, "mode", "linear");
    let scales = f32s("scales", &[4], &[1.0, 1.0, 1.7, 3.0]);
    let model = model(
        17,
        vec![input("x", DType::F32, &[1, 1, 3, 3])],
        vec![resize],
        vec![scales],
    );
    let found = run(
        &model,
        &F64,
        Tensor::from_f32(vec![1, 1, 3, 3], &[0.1; 9]).unwrap(),
    );
    assert_eq!(found.len(), 5 * 9);
    let expected = f64::from(0.1f32);
    assert!(
        found.iter().all(|x| (x - expected).abs() < 1e-16),
        "{found:?}"
    );
}

#[test]
fn a_step_in_single_precision_is_no_double_run() {
    let grid = f32s("grid", &[1, 1, 1, 2], &[0.0, 0.0]);
    let sample = node("GridSample", &["x", "grid"], &["y"]);
    let model = model(
        17,
        vec![input("x", DType::F32, &[1, 1, 2, 2])],
        vec![sample],
        vec![grid],
    );
    Session::load(&model.encode_to_vec(), &F32).unwrap();
    let error = Session::load(&model.encode_to_vec(), &F64).unwrap_err();
    assert!(
        matches!(&error, EngineError::Unsupported { operator, .. } if operator == "GridSample")
    );
}

#[test]
fn what_the_engine_gets_wrong_is_refused_by_name() {
    let refused = |node: NodeProto| {
        let model = model(
            17,
            vec![input("x", DType::F32, &[1, 3])],
            vec![node],
            vec![],
        );
        match Session::load(&model.encode_to_vec(), &F32) {
            Err(EngineError::Unsupported { operator, node, .. }) => {
                assert!(!operator.is_empty() && !node.is_empty());
            }
            other => panic!("{other:?}"),
        }
    };
    refused(node("NoSuchOperator", &["x"], &["y"]));
    refused(node("RandomNormalLike", &["x"], &["y"]));
    refused(text(
        node("LSTM", &["x", "x", "x"], &["y"]),
        "direction",
        "reverse",
    ));
    let mut foreign = node("Relu", &["x"], &["y"]);
    foreign.domain = "com.acme".into();
    refused(foreign);
}

#[test]
fn wrong_inputs_are_errors_that_name_them() {
    let model = model(
        17,
        vec![input("x", DType::F32, &[-1, 3])],
        vec![node("Relu", &["x"], &["y"])],
        vec![],
    );
    let bytes = model.encode_to_vec();
    let specs = bnkit_engine::inputs(&bytes).unwrap();
    assert_eq!(
        specs[0].dims,
        Some(vec![Dim::Symbol("N".into()), Dim::Fixed(3)])
    );
    let error = Session::load(&bytes, &F32).unwrap_err().to_string();
    assert!(
        error.contains("\"x\"") && error.contains("not fixed"),
        "{error}"
    );
    let dims = [("x".to_owned(), vec![1, 3])];
    let session = Session::load(
        &bytes,
        &LoadOptions {
            input_dims: &dims,
            ..F32
        },
    )
    .unwrap();
    let error = |inputs: &[(String, Tensor)]| session.run(inputs).unwrap_err().to_string();
    assert!(error(&[]).contains("\"x\": not given"));
    assert!(error(&[("z".into(), three([0.0; 3]))]).contains("no input \"z\""));
    let wide = Tensor::from_f32(vec![1, 4], &[0.0; 4]).unwrap();
    assert!(error(&[("x".into(), wide)]).contains("expected shape [1, 3], found [1, 4]"));
    let integers = Tensor::from_i64(vec![1, 3], &[0; 3]).unwrap();
    assert!(error(&[("x".into(), integers)]).contains("expected float32, found int64"));
}

#[test]
fn broken_models_are_errors_and_not_panics() {
    assert!(matches!(
        Session::load(b"no model", &F32),
        Err(EngineError::Model(_))
    ));
    let dangling = model(
        17,
        vec![input("x", DType::F32, &[1, 3])],
        vec![node("Add", &["x", "b"], &["y"])],
        vec![],
    );
    assert!(Session::load(&dangling.encode_to_vec(), &F32).is_err());
    let mut no_output = unary("Relu");
    no_output.graph.as_mut().unwrap().output[0].name = "nothing".into();
    assert!(Session::load(&no_output.encode_to_vec(), &F32).is_err());
    let mut short = unary("Relu");
    short.graph.as_mut().unwrap().initializer.push(TensorProto {
        name: "w".into(),
        dims: vec![1 << 40, 1 << 40],
        data_type: 1,
        raw_data: vec![0; 8],
        ..Default::default()
    });
    assert!(matches!(
        Session::load(&short.encode_to_vec(), &F32),
        Err(EngineError::Model(_))
    ));
}

#[test]
fn external_data_is_read_from_the_models_folder_and_from_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    std::fs::create_dir(&inside).unwrap();
    let bytes: Vec<u8> = [9.0f32, 1.0, 2.0, 3.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    std::fs::write(inside.join("w.bin"), &bytes).unwrap();
    std::fs::write(folder.path().join("secret.bin"), &bytes).unwrap();
    let with = |location: &str, offset: &str| {
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: key.into(),
            value: value.into(),
        };
        let w = TensorProto {
            name: "w".into(),
            dims: vec![1, 3],
            data_type: 1,
            data_location: Some(1),
            external_data: vec![entry("location", location), entry("offset", offset)],
            ..Default::default()
        };
        model(
            17,
            vec![input("x", DType::F32, &[1, 3])],
            vec![node("Mul", &["x", "w"], &["y"])],
            vec![w],
        )
    };
    let options = LoadOptions {
        model_dir: Some(&inside),
        ..F64
    };
    assert_eq!(
        run(&with("w.bin", "4"), &options, three([1.0; 3])),
        [1.0, 2.0, 3.0]
    );
    for (location, offset) in [
        ("../secret.bin", "0"),
        ("/etc/passwd", "0"),
        ("w.bin", "8"),
        ("", "0"),
        ("w.bin", "x"),
    ] {
        let error = Session::load(&with(location, offset).encode_to_vec(), &options).unwrap_err();
        assert!(error.to_string().contains("\"w\""), "{error}");
    }
    assert!(Session::load(&with("w.bin", "4").encode_to_vec(), &F64).is_err());
}
