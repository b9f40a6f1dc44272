//! ONNX Runtime as the second engine. Without a library (`ORT_DYLIB_PATH`), the tests say so and end.
#![cfg(feature = "ort")]
// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

mod nets;

use std::collections::HashSet;

use bnkit_engine::{
    Engine, EngineError, LoadOptions, Perturbation, Precision, Second, Session, Values,
};
use bnkit_model::{DType, Tensor};
use prost::Message;
use tract_onnx::pb::{ModelProto, NodeProto};

use nets::{constant, f32s, input, int, model, node};

const F32: LoadOptions = LoadOptions {
    precision: Precision::F32,
    input_dims: &[],
    model_dir: None,
    extra_outputs: &[],
    perturbation: None,
};

fn engine() -> Option<&'static dyn Engine> {
    match bnkit_engine::second().unwrap() {
        Second::Found(engine) => Some(engine),
        Second::NotFound(why) => {
            assert!(why.contains("ORT_DYLIB_PATH"), "{why}");
            eprintln!("skipped: {why}");
            None
        }
        _ => panic!("the feature is on"),
    }
}

const SCALE: [f64; 2] = [1.5, -0.25];
const BIAS: [f64; 2] = [0.125, 3.0];
const MEAN: [f64; 2] = [0.3, -2.0];
const VARIANCE: [f64; 2] = [0.5, 7.0];

/// A BatchNorm on [1, 2, 2, 2], and GlobalLpPool on it, which tract does not compute as ONNX says.
fn pooled(dtype: DType, batch_norm: NodeProto) -> ModelProto {
    let vector = |name, values: &[f64]| constant(name, dtype, &[2], values);
    model(
        17,
        vec![input("x", dtype, &[1, 2, 2, 2])],
        vec![batch_norm, node("GlobalLpPool", &["n"], &["y"])],
        vec![
            vector("scale", &SCALE),
            vector("bias", &BIAS),
            vector("mean", &MEAN),
            vector("variance", &VARIANCE),
        ],
    )
}

fn batch_norm(outputs: &[&str]) -> NodeProto {
    node(
        "BatchNormalization",
        &["x", "scale", "bias", "mean", "variance"],
        outputs,
    )
}

const X: [f64; 8] = [0.5, -1.0, 2.0, 0.25, 3.0, -0.5, 1.0, -4.0];

fn x(dtype: DType) -> Values {
    let x = Tensor::from_f64(dtype, vec![1, 2, 2, 2], &X).unwrap();
    vec![("x".into(), x)]
}

/// What the pooled BatchNorm is, in doubles, of constants as `dtype` stores them.
fn expected(dtype: DType) -> Vec<f64> {
    let at = |values: [f64; 2], channel: usize| dtype.round(values[channel]);
    let channel = |c: usize| {
        let scale = at(SCALE, c) / (at(VARIANCE, c) + f64::from(1e-5f32)).sqrt();
        let of = |x: &f64| (dtype.round(*x) - at(MEAN, c)) * scale + at(BIAS, c);
        let squares = X[4 * c..4 * c + 4].iter().map(|x| of(x).powi(2));
        squares.sum::<f64>().sqrt()
    };
    vec![channel(0), channel(1)]
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs();
        assert!(error < 1e-6 * expected.abs(), "{found} {expected}");
    }
}

fn run(engine: &dyn Engine, model: &ModelProto, options: &LoadOptions, x: Values) -> Values {
    let mut outputs = engine
        .run(&model.encode_to_vec(), options, &[x], &|| true)
        .unwrap();
    outputs.remove(0)
}

#[test]
fn it_computes_what_tract_refuses() {
    let Some(engine) = engine() else { return };
    assert!(engine.name().starts_with("onnxruntime 1."));
    let model = pooled(DType::F32, batch_norm(&["n"]));
    let refused = Session::load(&model.encode_to_vec(), &F32);
    assert!(matches!(refused, Err(EngineError::Unsupported { .. })));
    let outputs = run(engine, &model, &F32, x(DType::F32));
    assert_eq!(outputs[0].0, "y");
    close(&outputs[0].1.to_f64().unwrap(), &expected(DType::F32));
}

#[test]
fn training_mode_runs_in_eval_mode() {
    let Some(engine) = engine() else { return };
    let training = int(batch_norm(&["n", "m2", "v2"]), "training_mode", 1);
    let outputs = run(engine, &pooled(DType::F32, training), &F32, x(DType::F32));
    close(&outputs[0].1.to_f64().unwrap(), &expected(DType::F32));
}

#[test]
fn half_precision_is_computed_in_single() {
    let Some(engine) = engine() else { return };
    for dtype in [DType::F16, DType::BF16] {
        let outputs = run(engine, &pooled(dtype, batch_norm(&["n"])), &F32, x(dtype));
        assert_eq!(outputs[0].1.dtype(), DType::F32);
        close(&outputs[0].1.to_f64().unwrap(), &expected(dtype));
    }
}

/// A Conv of 9 × 16 products with a BatchNorm behind it.
fn convolved() -> (ModelProto, Values) {
    let noise = |count: usize, of: f64| -> Vec<f64> {
        (0..count)
            .map(|i| ((i * i) as f64 * of + 1.0).sin())
            .collect()
    };
    let model = model(
        17,
        vec![input("x", DType::F32, &[1, 16, 9, 9])],
        vec![
            node("Conv", &["x", "w"], &["c"]),
            node(
                "BatchNormalization",
                &["c", "scale", "bias", "mean", "variance"],
                &["y"],
            ),
        ],
        vec![
            f32s("w", &[2, 16, 3, 3], &noise(288, 0.7)),
            f32s("scale", &[2], &[1.3, 0.7]),
            f32s("bias", &[2], &BIAS),
            f32s("mean", &[2], &MEAN),
            f32s("variance", &[2], &VARIANCE),
        ],
    );
    let x = Tensor::from_f64(DType::F32, vec![1, 16, 9, 9], &noise(1296, 0.3)).unwrap();
    (model, vec![("x".into(), x)])
}

#[test]
fn nothing_is_fused() {
    let Some(engine) = engine() else { return };
    let (model, x) = convolved();
    let alone = run(engine, &model, &F32, x.clone());
    // A Conv whose output is wanted cannot swallow its BatchNorm: with a fused kernel, some bits of y would differ.
    let extra = ["c".to_owned()];
    let options = LoadOptions {
        extra_outputs: &extra,
        ..F32
    };
    let both = run(engine, &model, &options, x);
    let names: Vec<&str> = both.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["y", "c"]);
    assert_eq!(alone[0].1, both[0].1);
}

#[test]
fn it_agrees_with_tract_to_rounding() {
    let Some(engine) = engine() else { return };
    let (model, x) = convolved();
    let here = Session::load(&model.encode_to_vec(), &F32).unwrap();
    let here = here.run(&x).unwrap()[0].1.to_f64().unwrap();
    let there = run(engine, &model, &F32, x)[0].1.to_f64().unwrap();
    let range = here.iter().fold(0f64, |range, x| range.max(x.abs()));
    for (here, there) in here.iter().zip(&there) {
        assert!((here - there).abs() < 1e-6 * range, "{here} {there}");
    }
}

#[test]
fn constants_are_moved_where_that_is_asked_for() {
    let Some(engine) = engine() else { return };
    let model = pooled(DType::F32, batch_norm(&["n"]));
    let how = Perturbation::Nudge {
        tensors: HashSet::from(["bias".to_owned()]),
        seed: 0,
    };
    let options = LoadOptions {
        perturbation: Some(&how),
        ..F32
    };
    let still = run(engine, &model, &F32, x(DType::F32))[0]
        .1
        .to_f64()
        .unwrap();
    let moved = run(engine, &model, &options, x(DType::F32))[0]
        .1
        .to_f64()
        .unwrap();
    assert_ne!(still, moved);
    close(&moved, &still);
}

#[test]
fn every_type_comes_through_and_so_does_nothing() {
    let Some(engine) = engine() else { return };
    for dtype in [
        DType::F32,
        DType::F64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::Bool,
    ] {
        for values in [&[0.0, 1.0, 1.0][..], &[]] {
            let count = values.len();
            let model = model(
                17,
                vec![input("x", dtype, &[-1])],
                vec![node("Identity", &["x"], &["y"])],
                vec![],
            );
            let x = Tensor::from_f64(dtype, vec![count], values).unwrap();
            let dims = [("x".to_owned(), vec![count])];
            let options = LoadOptions {
                input_dims: &dims,
                ..F32
            };
            let outputs = run(engine, &model, &options, vec![("x".into(), x.clone())]);
            assert_eq!(outputs[0].1, x);
        }
    }
}

#[test]
fn what_it_cannot_run_is_told_from_what_is_wrong() {
    let Some(engine) = engine() else { return };
    let fails = |model: &ModelProto, options: &LoadOptions, x: Values| {
        engine
            .run(&model.encode_to_vec(), options, &[x], &|| true)
            .unwrap_err()
    };
    let good = pooled(DType::F32, batch_norm(&["n"]));
    let mut unknown = good.clone();
    unknown.graph.as_mut().unwrap().node[1].op_type = "NoSuchOperator".into();
    let error = fails(&unknown, &F32, x(DType::F32));
    assert!(matches!(error, EngineError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("NoSuchOperator"), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);

    let double = LoadOptions {
        precision: Precision::F64,
        ..F32
    };
    let error = fails(&good, &double, x(DType::F32));
    assert!(matches!(error, EngineError::Unsupported { .. }), "{error}");

    let mut random = good.clone();
    random.graph.as_mut().unwrap().node[1].op_type = "RandomNormalLike".into();
    let error = fails(&random, &F32, x(DType::F32));
    assert!(error.to_string().contains("random"), "{error}");

    let mut foreign = good.clone();
    foreign.graph.as_mut().unwrap().node[0].domain = "com.acme".into();
    let error = fails(&foreign, &F32, x(DType::F32));
    assert!(error.to_string().contains("eval mode"), "{error}");

    let short = Tensor::from_f64(DType::F32, vec![1, 3, 2, 2], &[0.0; 12]).unwrap();
    let error = fails(&good, &F32, vec![("x".into(), short)]);
    assert!(matches!(error, EngineError::Run { .. }), "{error}");
    let error = fails(&good, &F32, vec![]);
    assert!(error.to_string().contains("\"x\": not given"), "{error}");
}
