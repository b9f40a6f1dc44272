//! Every model of the shared collection, in both precisions, against the outputs that ONNX Runtime gave (optimisations off).
//!
//! The collection is not part of the project: the folder is `BNKIT_MODELS`, or `../shared/models` beside the workspace. Without it the
//! tests say so and pass.

// What was skipped, and how fast the rest ran, is for the reader of the test's output.
#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use bnkit_engine::{LoadOptions, Precision, Session};
use bnkit_model::{DType, Tensor};

fn collection() -> Option<PathBuf> {
    let folder = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    folder.is_dir().then_some(folder)
}

/// Pairs of a model and its `io.npz`.
fn pairs(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut out = vec![];
    for group in folder
        .read_dir()
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
    {
        let mut folders = vec![group.path()];
        folders.extend(
            group
                .path()
                .read_dir()
                .unwrap()
                .flatten()
                .map(|entry| entry.path()),
        );
        for folder in folders.into_iter().filter(|path| path.is_dir()) {
            for entry in folder.read_dir().unwrap().flatten() {
                let model = entry.path();
                if model
                    .extension()
                    .is_some_and(|extension| extension == "onnx")
                {
                    let own = model.with_extension("io.npz");
                    let io = if own.exists() {
                        own
                    } else {
                        folder.join("io.npz")
                    };
                    if io.exists() {
                        out.push((model, io));
                    }
                }
            }
        }
    }
    out.sort();
    out
}

fn arrays(path: &Path, prefix: &str) -> Vec<(String, Tensor)> {
    let mut archive = npyz::npz::NpzArchive::open(path).unwrap();
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let mut out = vec![];
    for name in names {
        let Some(plain) = name.strip_prefix(prefix) else {
            continue;
        };
        let array = archive.by_name(&name).unwrap().unwrap();
        let dims = array.shape().iter().map(|&dim| dim as usize).collect();
        assert_eq!(array.order(), npyz::Order::C);
        let values: Vec<f32> = array.into_vec().unwrap();
        out.push((plain.to_owned(), Tensor::from_f32(dims, &values).unwrap()));
    }
    out
}

#[test]
fn outputs_are_those_of_onnx_runtime() {
    let Some(folder) = collection() else {
        eprintln!("skipped: no collection of models (BNKIT_MODELS)");
        return;
    };
    let mut failures = vec![];
    for (path, io) in pairs(&folder) {
        let model = std::fs::read(&path).unwrap();
        let inputs = arrays(&io, "in__");
        let expected = arrays(&io, "out__");
        assert!(
            !inputs.is_empty() && !expected.is_empty(),
            "{}",
            io.display()
        );
        let dims: Vec<(String, Vec<usize>)> = inputs
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
            .collect();
        for precision in [Precision::F32, Precision::F64] {
            let start = Instant::now();
            let options = LoadOptions {
                precision,
                input_dims: &dims,
                model_dir: path.parent(),
                extra_outputs: &[],
                perturbation: None,
            };
            let session = match Session::load(&model, &options) {
                Ok(session) => session,
                Err(error) => {
                    failures.push(format!("{} {precision:?}: {error}", path.display()));
                    continue;
                }
            };
            let loaded = start.elapsed();
            let start = Instant::now();
            let outputs = match session.run(&inputs) {
                Ok(outputs) => outputs,
                Err(error) => {
                    failures.push(format!("{} {precision:?}: {error}", path.display()));
                    continue;
                }
            };
            let ran = start.elapsed();
            let mut worst: f64 = 0.0;
            for (name, want) in &expected {
                let (_, found) = outputs.iter().find(|(output, _)| output == name).unwrap();
                if found.dims() != want.dims() {
                    failures.push(format!(
                        "{} {precision:?}: {name} is {:?}, not {:?}",
                        path.display(),
                        found.dims(),
                        want.dims()
                    ));
                    continue;
                }
                assert!(precision == Precision::F32 || found.dtype() != DType::F32);
                let (found, want) = (found.to_f64().unwrap(), want.to_f64().unwrap());
                let range = want.iter().fold(0f64, |range, x| range.max(x.abs()));
                let error = found
                    .iter()
                    .zip(&want)
                    .fold(0f64, |error, (a, b)| error.max((a - b).abs()));
                worst = worst.max(error / range);
            }
            eprintln!(
                "{} {precision:?}: load {loaded:.2?}, run {ran:.2?}, relative error {worst:.1e}",
                path.strip_prefix(&folder).unwrap().display()
            );
            if worst.is_nan() || worst > 2e-4 {
                failures.push(format!(
                    "{} {precision:?}: relative error {worst:e}",
                    path.display()
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
