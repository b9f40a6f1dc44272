//! A network that was really trained, with its statistics stale or reset: what a user does to mend it.
//!
//! The collection is not part of the project: the folder is `BNKIT_MODELS`, or `../shared/models` beside the workspace. Without
//! it the tests say so and pass.

// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

mod common;

use std::path::{Path, PathBuf};

use common::bnkit;

fn digits() -> Option<PathBuf> {
    let folder = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let folder = folder.join("digits");
    if !folder.is_dir() {
        eprintln!("skipped: no collection of models (BNKIT_MODELS)");
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

/// What the exit codes say of the statistics that training left, and of those that it did not.
#[test]
fn validate_knows_stale_statistics() {
    let Some(folder) = digits() else { return };
    for (model, code) in [
        ("digits", 0),
        ("digits_swa_stale", 1),
        ("digits_reset", 1),
        ("digits_perturbed", 1),
    ] {
        let model = format!("{model}.onnx");
        let run = bnkit(&folder, &["validate", &model, "--data", "train_images.npy"]);
        assert_eq!(run.code, code, "{model}: {}{}", run.stdout, run.stderr);
    }
}

/// PyTorch's `update_bn` on the same batches (truth_…_cma_droplast) is the oracle.
#[test]
fn statistics_become_those_of_pytorch() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let file = |name: &str| out.path().join(name).display().to_string();
    for name in ["digits_reset", "digits_swa_stale"] {
        let (model, output, truth) = (format!("{name}.onnx"), file("new.onnx"), file("truth.onnx"));
        let args = [
            "recalibrate",
            &model,
            "--data",
            "train_images.npy",
            "--batch-size",
            "64",
            "--drop-last",
            "--method",
            "average",
            "--convention",
            "torch",
            "--force",
            "-o",
            &output,
        ];
        bnkit(&folder, &args).is_done();
        let torch = format!("truth_{name}_cma_droplast.safetensors");
        bnkit(
            &folder,
            &[
                "recalibrate",
                &model,
                "--from",
                &torch,
                "--force",
                "-o",
                &truth,
            ],
        )
        .is_done();
        let layers = |path: &str| {
            let json = bnkit(&folder, &["stats", path, "--format", "json"])
                .is_done()
                .json();
            json["layers"].as_array().unwrap().clone()
        };
        for (ours, theirs) in layers(&output).iter().zip(layers(&truth)) {
            for role in ["mean", "variance"] {
                let pairs = ours[role]
                    .as_array()
                    .unwrap()
                    .iter()
                    .zip(theirs[role].as_array().unwrap());
                for (ours, theirs) in pairs {
                    let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
                    assert!(
                        (ours - theirs).abs() <= 2e-5 * theirs.abs().max(0.1),
                        "{name} {role} {ours} {theirs}"
                    );
                }
            }
        }
        bnkit(
            &folder,
            &["validate", &output, "--data", "train_images.npy"],
        )
        .is_done();
        let run = bnkit(&folder, &["run", &output, "--data", "test_images.npy"]);
        assert!(
            run.is_done().stdout.contains("The modes agree:"),
            "{}",
            run.stdout
        );
    }
}

#[test]
fn shards_and_fold_on_a_trained_network() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let file = |name: &str| out.path().join(name).display().to_string();
    let (whole, merged) = (file("whole.onnx"), file("merged.onnx"));
    let base = [
        "recalibrate",
        "digits_swa_stale.onnx",
        "--data",
        "train_images.npy",
    ];
    bnkit(&folder, &[&base[..], &["--fold", "-o", &whole]].concat()).is_done();
    let parts: Vec<String> = (1..=4).map(|at| file(&format!("{at}.json"))).collect();
    for (at, part) in parts.iter().enumerate() {
        let shard = format!("{}/4", at + 1);
        bnkit(
            &folder,
            &[&base[..], &["--shard", &shard, "--partial", part]].concat(),
        )
        .is_done();
    }
    let mut args = vec![
        "merge",
        "--model",
        "digits_swa_stale.onnx",
        "--fold",
        "-o",
        &merged,
    ];
    args.extend(parts.iter().map(String::as_str));
    bnkit(&folder, &args).is_done();
    bnkit(
        &folder,
        &["verify", &whole, &merged, "--data", "test_images.npy"],
    )
    .is_done();
}
