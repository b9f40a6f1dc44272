//! What is taken apart is what it was; what cannot be is decoded whole.

use super::*;
use crate::normalise::node;
use crate::{LoadOptions, Perturbation, Precision, Session};
use bnkit_model::tensor::encode_f64;
use tract_onnx::pb::{GraphProto, OperatorSetIdProto};

const COUNT: usize = 2048;

fn value(at: usize) -> f64 {
    (at % 64) as f64 / 8.0 - 4.0
}

fn tensor(name: &str, dtype: DType) -> TensorProto {
    let values: Vec<f64> = (0..COUNT).map(value).collect();
    let mut raw_data = vec![];
    encode_f64(dtype, &values, &mut raw_data).unwrap();
    TensorProto {
        name: name.into(),
        dims: vec![1, COUNT as i64],
        data_type: dtype.to_onnx(),
        raw_data,
        ..Default::default()
    }
}

/// y = x + w, where x is one number.
fn model(weights: Vec<TensorProto>) -> ModelProto {
    let x = TensorProto {
        name: "x".into(),
        data_type: DType::F32.to_onnx(),
        ..Default::default()
    };
    let y = ValueInfoProto {
        name: "y".into(),
        ..Default::default()
    };
    let graph = GraphProto {
        node: vec![node("Add", "sum", &["x", "w"], "y")],
        input: vec![as_input(&x)],
        output: vec![y],
        initializer: weights,
        ..Default::default()
    };
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..Default::default()
        }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn run(model: &ModelProto, perturbation: Option<&Perturbation>) -> Vec<f64> {
    let options = LoadOptions {
        precision: Precision::F64,
        input_dims: &[("x".into(), vec![1, 1])],
        model_dir: None,
        extra_outputs: &[],
        perturbation,
    };
    let session = Session::load(&model.encode_to_vec(), &options).unwrap();
    let x = bnkit_model::Tensor::from_f32(vec![1, 1], &[1.0]).unwrap();
    let outputs = session.run(&[("x".into(), x)]).unwrap();
    outputs[0].1.to_f64().unwrap()
}

fn taken(model: &ModelProto) -> usize {
    Apart::decode(&model.encode_to_vec())
        .unwrap()
        .elements
        .len()
}

#[test]
fn large_constants_are_taken_apart_and_are_what_they_were() {
    let expected: Vec<f64> = (0..COUNT).map(|at| 1.0 + value(at)).collect();
    let as_f32 = model(vec![tensor("w", DType::F32)]);
    let mut declared = as_f32.clone();
    let graph = declared.graph.as_mut().unwrap();
    graph.input.insert(0, as_input(&graph.initializer[0]));
    for model in [as_f32, declared, model(vec![tensor("w", DType::F64)])] {
        assert_eq!(taken(&model), 1);
        assert_eq!(run(&model, None), expected);
    }
}

#[test]
fn what_is_said_twice_is_decoded_whole() {
    let mut other = tensor("w", DType::F32);
    other.raw_data.fill(0);
    let twice = model(vec![other, tensor("w", DType::F32)]);
    assert_eq!(taken(&twice), 0);
    assert_eq!(run(&twice, None)[1], 1.0 + value(1));
    let once = model(vec![tensor("w", DType::F32)]).encode_to_vec();
    // Messages that follow one another are merged.
    let merged = [once.clone(), once].concat();
    let apart = Apart::decode(&merged).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(apart.model.graph.unwrap().initializer.len(), 2);
}

#[test]
fn what_was_taken_apart_is_perturbed_and_measured() {
    let names = [("w".to_owned(), DType::BF16)];
    let round = Perturbation::Round(names.into_iter().collect());
    let mut odd = model(vec![tensor("w", DType::F64)]);
    let raw = &mut odd.graph.as_mut().unwrap().initializer[0].raw_data;
    raw[..8].copy_from_slice(&1.001f64.to_le_bytes());
    assert_eq!(run(&odd, None)[0], 2.001);
    assert_eq!(run(&odd, Some(&round))[0], 2.0);

    odd.graph.as_mut().unwrap().initializer[0].dims[1] -= 1;
    let options = LoadOptions {
        precision: Precision::F32,
        input_dims: &[("x".into(), vec![1, 1])],
        model_dir: None,
        extra_outputs: &[],
        perturbation: None,
    };
    let error = Session::load(&odd.encode_to_vec(), &options).unwrap_err();
    let text = "tensor \"w\": float64 [1, 2047] takes 16376 bytes, found 16384";
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn every_prefix_of_a_model_is_an_error_or_a_model() {
    let bytes = model(vec![tensor("w", DType::F32)]).encode_to_vec();
    for end in (0..200).chain(bytes.len() - 200..bytes.len()) {
        let whole = spec::decode(&bytes[..end]).is_ok();
        assert_eq!(Apart::decode(&bytes[..end]).is_ok(), whole, "{end}");
    }
}
