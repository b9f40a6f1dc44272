//! The numbers of `docs/concepts.md`: what bnkit makes of the smallest case is what PyTorch makes of it, and is what the page says.

use std::path::{Path, PathBuf};

use bnkit::calibrate::*;
use bnkit::data;
use bnkit::pipeline::Quiet;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    batch: Case,
    one: Case,
}

#[derive(Deserialize)]
struct Case {
    input: Channels,
    input_var: [f64; 3],
    input_var_unbiased: [f64; 3],
    train: Channels,
    eval_before: Channels,
    eval_after_1: Channels,
    eval_after_50: Channels,
    /// The first sample alone, by the statistics of the case.
    eval_after_50_first: Channels,
    running_after_1: [[f64; 3]; 2],
    running_after_50: [[f64; 3]; 2],
}

#[derive(Deserialize)]
struct Channels {
    mean: [f64; 3],
    std: [f64; 3],
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn concepts(name: &str) -> PathBuf {
    root().join("testdata/concepts").join(name)
}

fn golden() -> Golden {
    serde_json::from_slice(&std::fs::read(concepts("golden.json")).unwrap()).unwrap()
}

fn close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        // f32, rounded once a step.
        let far = (found - expected).abs();
        assert!(far <= 3e-6 * expected.abs().max(1.0), "{found} {expected}");
    }
}

/// One step of training with PyTorch's defaults.
fn step(model: &Path, data: &str) {
    let mut job = RecalibrateJob::new(model, concepts(data), model);
    job.method.method = Method::Ema;
    job.method.convention = Convention::Torch;
    job.method.momentum = Some(0.1);
    job.force = true;
    recalibrate(&job, &Quiet).unwrap();
}

fn running(model: &Path, expected: &[[f64; 3]; 2]) {
    let report = stats(&StatsJob {
        input: model.to_owned(),
        output: None,
        force: false,
        hash: false,
        selection: Selection::default(),
    });
    let layer = &report.unwrap().layers[0];
    close(&layer.mean, &expected[0]);
    close(&layer.variance, &expected[1]);
}

/// Runs both modes and compares the channels of what comes out.
fn outputs(model: &Path, data: &str, train: &Channels, eval: &Channels) {
    let folder = tempfile::tempdir().unwrap();
    let mut job = RunJob::new(model, concepts(data));
    job.output = Some(folder.path().join("out.npz"));
    run(&job, &Quiet).unwrap();
    let written = data::load(&folder.path().join("out.npz")).unwrap();
    assert_eq!(written.tensors.len(), 2);
    for named in &written.tensors {
        let expected = match named.name.as_str() {
            "train__y" => train,
            "eval__y" => eval,
            other => panic!("{other}"),
        };
        let values = named.tensor.to_f64().unwrap();
        for channel in 0..3 {
            let of: Vec<f64> = values
                .chunks(64)
                .skip(channel)
                .step_by(3)
                .flatten()
                .copied()
                .collect();
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            let squares: f64 = of.iter().map(|x| (x - mean).powi(2)).sum();
            let std = (squares / of.len() as f64).sqrt();
            close(
                &[mean, std],
                &[expected.mean[channel], expected.std[channel]],
            );
        }
    }
}

#[test]
fn the_smallest_case_is_that_of_pytorch() {
    let golden = golden();
    let folder = tempfile::tempdir().unwrap();
    for (data, case) in [("batch.npy", &golden.batch), ("one.npy", &golden.one)] {
        let fresh = concepts("one_norm.onnx");
        outputs(&fresh, data, &case.train, &case.eval_before);
        let model = folder.path().join(format!("{data}.onnx"));
        std::fs::copy(&fresh, &model).unwrap();
        step(&model, data);
        running(&model, &case.running_after_1);
        outputs(&model, data, &case.train, &case.eval_after_1);
        for _ in 1..50 {
            step(&model, data);
        }
        running(&model, &case.running_after_50);
        outputs(&model, data, &case.train, &case.eval_after_50);
        outputs(
            &model,
            "one.npy",
            &golden.one.train,
            &case.eval_after_50_first,
        );
    }
}

#[test]
fn the_page_says_what_pytorch_says() {
    let page = std::fs::read_to_string(root().join("docs/concepts.md")).unwrap();
    let Golden { batch, one } = golden();
    let quoted = [
        &batch.input.mean[..],
        &batch.input.std,
        &batch.input_var,
        &batch.input_var_unbiased[..1],
        &batch.eval_before.mean,
        &batch.running_after_1[0],
        &batch.running_after_1[1],
        &batch.running_after_50[0],
        &batch.running_after_50[1],
        &batch.eval_after_1.mean,
        &batch.eval_after_1.std,
        &batch.eval_after_50.mean,
        &batch.eval_after_50.std,
        &batch.eval_after_50_first.mean,
        &batch.eval_after_50_first.std,
        &one.input.mean,
        &one.input.std,
        &one.input_var,
        &one.train.std,
        &one.running_after_50[1],
    ];
    for number in quoted.into_iter().flatten() {
        assert!(page.contains(&format!("{number:.4}")), "{number:.4}");
    }
}
