//! What tract's own rewrites get wrong is computed right all the same.

mod nets;

use bnkit_engine::{LoadOptions, Precision, Session, Statistics, TrainOptions, Trainer};
use bnkit_model::{DType, Tensor};
use prost::Message;
use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, attribute_proto::AttributeType};

use nets::{constant, f32s, input, model, node};

fn options(precision: Precision) -> LoadOptions<'static> {
    LoadOptions {
        precision,
        input_dims: &[],
        model_dir: None,
        extra_outputs: &[],
        perturbation: None,
    }
}

fn run(model: &ModelProto, precision: Precision, x: &Tensor) -> Vec<f64> {
    let session = Session::load(&model.encode_to_vec(), &options(precision)).unwrap();
    session.run(&[("x".into(), x.clone())]).unwrap()[0]
        .1
        .to_f64()
        .unwrap()
}

fn ints(mut node: NodeProto, name: &str, values: &[i64]) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..Default::default()
    });
    node
}

/// A Conv that adds each element to ten times the next, a slice of what it gives, and a Conv that takes twice every n-th element of that.
#[test]
fn a_slice_between_convs_keeps_where_it_begins() {
    let x: Vec<f64> = (0..10).map(|at| f64::from(at * at)).collect();
    let tensor = Tensor::from_f64(DType::F32, vec![1, 1, 10], &x).unwrap();
    let first: Vec<f64> = x.windows(2).map(|pair| pair[0] + 10.0 * pair[1]).collect();
    for (start, end, step, stride) in [
        (1, 9, 2, 1),
        (0, 9, 2, 1),
        (2, 9, 2, 2),
        (1, 9, 1, 2),
        (3, 9, 1, 3),
        (2, 3, 2, 2),
        (1, 8, 3, 2),
    ] {
        let place = |name: &str, value: usize| constant(name, DType::I64, &[1], &[value as f64]);
        let conv = node("Conv", &["x", "pair"], &["pairs"]);
        let slice = node(
            "Slice",
            &["pairs", "start", "end", "axis", "step"],
            &["some"],
        );
        let twice = node("Conv", &["some", "two"], &["y"]);
        let model = model(
            17,
            vec![input("x", DType::F32, &[1, 1, 10])],
            vec![conv, slice, ints(twice, "strides", &[stride as i64])],
            vec![
                f32s("pair", &[1, 1, 2], &[1.0, 10.0]),
                f32s("two", &[1, 1, 1], &[2.0]),
                place("start", start),
                place("end", end),
                place("axis", 2),
                place("step", step),
            ],
        );
        let sliced = first[start..end].iter().step_by(step);
        let expected: Vec<f64> = sliced.step_by(stride).map(|x| 2.0 * x).collect();
        for precision in [Precision::F32, Precision::F64] {
            assert_eq!(
                run(&model, precision, &tensor),
                expected,
                "{start}:{end}:{step}, stride {stride}, {precision:?}"
            );
        }
    }
}

/// tract makes one operator of squares and their mean, in single precision, when it simplifies and again when it chooses kernels.
#[test]
fn a_mean_of_squares_in_double_precision_is_one() {
    let x = [0.1f32, 0.7, -1.3, 2.9];
    let tensor = Tensor::from_f32(vec![1, 1, 2, 2], &x).unwrap();
    let squares = node("Mul", &["x", "x"], &["squares"]);
    let mean = node("GlobalAveragePool", &["squares"], &["y"]);
    let model = model(
        17,
        vec![input("x", DType::F32, &[1, 1, 2, 2])],
        vec![squares, mean],
        vec![],
    );
    let expected = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / 4.0;
    let found = run(&model, Precision::F64, &tensor)[0];
    assert!((found - expected).abs() < 1e-15, "{found} {expected}");
}

/// Train mode has its own way to simplify: what enters a BatchNorm behind a Conv and an operator that tract merges into it.
#[test]
fn train_mode_sees_what_a_conv_and_what_follows_it_give() {
    let x: Vec<f64> = (0..10).map(|at| f64::from(at * at) + 1.0).collect();
    let pairs: Vec<f64> = x.windows(2).map(|pair| pair[0] + 10.0 * pair[1]).collect();
    type Function = fn(f64) -> f64;
    let cases: [(NodeProto, Function, usize, usize); 3] = [
        (node("Sub", &["c", "pairs"], &["some"]), |x| 3.0 - x, 0, 1),
        (node("Div", &["c", "pairs"], &["some"]), |x| 3.0 / x, 0, 1),
        (
            node("Slice", &["pairs", "one", "nine", "two", "two"], &["some"]),
            |x| x,
            1,
            2,
        ),
    ];
    for (between, function, start, step) in cases {
        let what = between.op_type.clone();
        let place = |name: &str, value: f64| constant(name, DType::I64, &[1], &[value]);
        let model = model(
            17,
            vec![input("x", DType::F32, &[-1, 1, 10])],
            vec![
                node("Conv", &["x", "pair"], &["pairs"]),
                between,
                node("BatchNormalization", &["some", "g", "b", "m", "v"], &["y"]),
            ],
            vec![
                f32s("pair", &[1, 1, 2], &[1.0, 10.0]),
                f32s("c", &[1, 1, 1], &[3.0]),
                place("one", 1.0),
                place("two", 2.0),
                place("nine", 9.0),
                f32s("g", &[1], &[1.0]),
                f32s("b", &[1], &[0.0]),
                f32s("m", &[1], &[0.0]),
                f32s("v", &[1], &[1.0]),
            ],
        );
        let sample = Tensor::from_f64(DType::F32, vec![1, 1, 10], &x).unwrap();
        let trainer = Trainer::load(&model.encode_to_vec(), &TrainOptions::default()).unwrap();
        let batch = [vec![("x".to_owned(), sample)]];
        let ran = trainer.run(&batch, &Statistics::Batch, true).unwrap();
        let expected: Vec<f64> = pairs[start..]
            .iter()
            .step_by(step)
            .map(|&x| function(x))
            .collect();
        let count = expected.len() as f64;
        let mean = expected.iter().sum::<f64>() / count;
        let seen = ran.observed[0].as_ref().unwrap();
        assert_eq!(seen.count as f64, count, "{what}");
        assert!(
            (seen.mean[0] - mean).abs() <= 1e-6 * mean.abs(),
            "{what}: {} {mean}",
            seen.mean[0]
        );
    }
}

/// tract's BatchNorm is a product and a sum, x·s + (β − μ·s): another number wherever μ·s is large against what comes out.
#[test]
fn a_batch_norm_in_double_precision_is_computed_as_it_is_written() {
    let (scale, bias) = ([0.3f32, -1.7], [0.1f32, 2.3]);
    let (mean, variance) = ([1e6f32, -0.7], [1e-3f32, 5.1]);
    let vector = |name: &str, values: [f32; 2]| f32s(name, &[2], &values.map(f64::from));
    let names = ["x", "g", "b", "m", "v"];
    let model = model(
        15,
        vec![input("x", DType::F32, &[2, 2, 3])],
        vec![node("BatchNormalization", &names, &["y"])],
        vec![
            vector("g", scale),
            vector("b", bias),
            vector("m", mean),
            vector("v", variance),
        ],
    );
    let x: Vec<f32> = (0..12).map(|at| 1e6 + at as f32 * 0.37).collect();
    let tensor = Tensor::from_f32(vec![2, 2, 3], &x).unwrap();
    let expected = x.iter().enumerate().map(|(at, &x)| {
        let channel = at / 3 % 2;
        let [scale, bias, mean, variance] =
            [scale, bias, mean, variance].map(|values| f64::from(values[channel]));
        let factor = scale / (variance + f64::from(1e-5f32)).sqrt();
        (f64::from(x) - mean) * factor + bias
    });
    let expected: Vec<f64> = expected.collect();
    assert_eq!(run(&model, Precision::F64, &tensor), expected);
}

#[test]
fn bounds_in_double_precision_are_from_both_sides() {
    let x = [-3.0f32, -0.25, 0.75, 9.0];
    let tensor = Tensor::from_f32(vec![1, 4], &x).unwrap();
    let bounded = |node: NodeProto, constants: Vec<_>| {
        let model = model(
            17,
            vec![input("x", DType::F32, &[1, 4])],
            vec![node],
            constants,
        );
        run(&model, Precision::F64, &tensor)
    };
    let scalar = |name: &str, value: f64| f32s(name, &[], &[value]);
    let relu = bounded(node("Relu", &["x"], &["y"]), vec![]);
    assert_eq!(relu, [0.0, 0.0, 0.75, 9.0]);
    let clip = node("Clip", &["x", "low", "high"], &["y"]);
    let clip = bounded(clip, vec![scalar("low", -0.5), scalar("high", 6.0)]);
    assert_eq!(clip, [-0.5, -0.25, 0.75, 6.0]);
    // A constant that is larger than the values is none that bounds them.
    let max = node("Max", &["x", "rows"], &["y"]);
    let max = bounded(max, vec![f32s("rows", &[2, 1], &[0.0, 1.0])]);
    assert_eq!(max, [0.0, 0.0, 0.75, 9.0, 1.0, 1.0, 1.0, 9.0]);
}
