//! Calibration of every network of the collection: it runs, every BatchNorm gets statistics, and validation then accepts them.
//!
//! The collection is not part of the project: the folder is `BNKIT_MODELS`, or `../shared/models` beside the workspace. Without it the
//! test says so and passes.

// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};

use bnkit::calibrate::*;
use bnkit::pipeline::Quiet;
use bnkit_engine::Dim;
use bnkit_model::Tensor;

fn models() -> Vec<PathBuf> {
    let folder = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let mut found = Vec::new();
    let mut folders = vec![folder.join("nets"), folder.join("real")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "onnx")
            {
                found.push(path);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        eprintln!("skipped: no networks in {}", folder.display());
    }
    found
}

/// Twelve samples of noise with a mean of its own, as a safetensors file.
fn noise(model: &Path, folder: &Path) -> PathBuf {
    let specs = bnkit_engine::inputs(&std::fs::read(model).unwrap()).unwrap();
    let mut seed = 1u64;
    let mut random = || {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1u64 << 24) as f32
    };
    let arrays: Vec<(String, Vec<usize>, Vec<u8>)> = specs
        .iter()
        .map(|spec| {
            let sizes = spec.dims.iter().flatten().enumerate();
            let dims: Vec<usize> = sizes
                .map(|(axis, dim)| match dim {
                    _ if axis == 0 => 12,
                    Dim::Fixed(size) => *size,
                    _ => 64,
                })
                .collect();
            let values: Vec<f32> = (0..dims.iter().product()).map(|_| random()).collect();
            let tensor = Tensor::from_f32(dims.clone(), &values).unwrap();
            (spec.name.clone(), dims, tensor.data().to_vec())
        })
        .collect();
    let views = arrays.iter().map(|(name, dims, bytes)| {
        let kind = safetensors::Dtype::F32;
        let view = safetensors::tensor::TensorView::new(kind, dims.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    let path = folder.join("noise.safetensors");
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

#[test]
fn every_network_is_recalibrated_and_then_valid() {
    for model in models() {
        let folder = tempfile::tempdir().unwrap();
        let data = noise(&model, folder.path());
        let output = folder.path().join("out.onnx");
        let mut job = RecalibrateJob::new(&model, &data, &output);
        if let Source::Data(data) = &mut job.source {
            data.batch_size = 4;
        }
        let report = recalibrate(&job, &Quiet);
        let report = report.unwrap_or_else(|error| panic!("{}: {error}", model.display()));
        eprintln!("{}: {:?}", model.display(), report.summary);
        for warning in report
            .warnings
            .iter()
            .filter(|warning| warning.code != "few-samples")
        {
            eprintln!("    {}: {}", warning.code, warning.message);
        }
        assert_eq!(report.summary.updated, report.summary.layers);
        let mut judge = ValidateJob::new(&output, &data);
        judge.data.batch_size = 4;
        let verdict = validate(&judge, &Quiet).unwrap();
        assert!(verdict.valid, "{}: {:?}", model.display(), verdict.worst[0]);
        assert!(verdict.worst[0].kl < 1e-6, "{:?}", verdict.worst[0]);
    }
}
