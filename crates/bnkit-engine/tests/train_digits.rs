//! The digits network with its running statistics reset, re-estimated as PyTorch does it, against what PyTorch computed.
//!
//! The collection is not part of the project: the folder is `BNKIT_MODELS`, or `../shared/models` beside the workspace. Without it the
//! test says so and passes.

// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bnkit_engine::{Sample, Statistics, TrainOptions, Trainer};
use bnkit_model::Tensor;

fn digits() -> Option<PathBuf> {
    let folder = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let folder = folder.join("digits");
    folder.is_dir().then_some(folder)
}

fn images(folder: &Path) -> Vec<Sample> {
    let bytes = std::fs::read(folder.join("train_images.npy")).unwrap();
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(file.shape()[1..], [1, 8, 8]);
    let values: Vec<f32> = file.into_vec().unwrap();
    values
        .chunks(64)
        .map(|image| {
            let tensor = Tensor::from_f32(vec![1, 1, 8, 8], image).unwrap();
            vec![("input".to_owned(), tensor)]
        })
        .collect()
}

#[test]
fn cumulative_averages_are_those_of_pytorch() {
    let Some(folder) = digits() else {
        eprintln!("skipped: no collection of models (BNKIT_MODELS)");
        return;
    };
    let model = std::fs::read(folder.join("digits_reset.onnx")).unwrap();
    let mut images = images(&folder);
    let name = bnkit_engine::inputs(&model).unwrap()[0].name.clone();
    for image in &mut images {
        image[0].0.clone_from(&name);
    }
    let trainer = Trainer::load(&model, &TrainOptions::default()).unwrap();
    let mut sums: HashMap<String, (Vec<f64>, Vec<f64>)> = HashMap::new();
    let mut batches = 0.0;
    for batch in images.chunks_exact(64) {
        let seen = trainer.run(batch, &Statistics::Batch, false).unwrap();
        batches += 1.0;
        for (norm, seen) in trainer.norms().iter().zip(seen.observed) {
            let seen = seen.unwrap();
            let zeros = || vec![0.0; norm.channels];
            let (mean, variance) = sums
                .entry(norm.node.clone())
                .or_insert_with(|| (zeros(), zeros()));
            let unbiased = seen.unbiased_variance();
            for channel in 0..norm.channels {
                mean[channel] += seen.mean[channel];
                variance[channel] += unbiased[channel];
            }
        }
    }
    let truth = std::fs::read(folder.join("truth_digits_reset_cma_droplast_f64.safetensors"));
    let truth = truth.unwrap();
    let truth = safetensors::SafeTensors::deserialize(&truth).unwrap();
    assert_eq!(sums.len(), 10);
    let mut worst = 0f64;
    for (node, (mean, variance)) in sums {
        let module = node
            .trim_start_matches('/')
            .trim_end_matches("/BatchNormalization");
        let module = module.replace('/', ".").replace("down.down.", "down.");
        for (values, kind) in [(&mean, "running_mean"), (&variance, "running_var")] {
            let truth = truth.tensor(&format!("{module}.{kind}")).unwrap();
            let expected: Vec<f64> = truth
                .data()
                .chunks_exact(8)
                .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()))
                .collect();
            assert_eq!(values.len(), expected.len());
            let range = expected.iter().fold(0f64, |range, x| range.max(x.abs()));
            for (sum, expected) in values.iter().zip(expected) {
                let error = (sum / batches - expected).abs();
                worst = worst.max(error / expected.abs().max(1e-2 * range));
            }
        }
    }
    eprintln!("worst relative difference from PyTorch: {worst:.1e}");
    assert!(worst < 1e-5, "{worst:e}");
}
