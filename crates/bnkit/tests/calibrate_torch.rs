//! Train-mode statistics of networks against PyTorch's, computed in f64 (`testdata/generate_torch.py`).
//!
//! The tolerance is derived, not chosen: 8 times the larger of what PyTorch's own run in f32 is off and 2⁻²² (f32 rounds by 2⁻²⁴). Means
//! are measured in units of √(σ²+ε), variances relative to σ²+ε.
//!
//! Real architectures are not part of the project. They are looked for in `BNKIT_MODELS/nets` (or `../shared/models/nets` beside
//! the workspace) and in `BNKIT_MADE_MODELS`, as `NAME/model.onnx`; where they are absent, the test says so and passes.

// What was skipped, and the numbers, are for the reader of the tests' output.
#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};

use bnkit::calibrate::*;
use bnkit::pipeline::Quiet;
use bnkit_model::Tensor;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    /// Dimensions of one sample.
    input: Vec<usize>,
    batches: Vec<usize>,
    seed: u32,
    /// Elements 0, 1, 17 and the last of all samples together.
    probe: Vec<f64>,
    /// What PyTorch's run in f32 is off: means, variances.
    noise: [f64; 2],
    layers: Vec<Layer>,
    never_ran: Vec<String>,
}

#[derive(Deserialize)]
struct Layer {
    name: String,
    channels: usize,
    elements: u64,
    /// The first channels' mean and variance in the file.
    stored: [Vec<f64>; 2],
    precise: Expected,
    average: Expected,
    ema: Expected,
    first: Expected,
}

/// The first channels, and the Euclidean norms of mean and variance over all channels.
#[derive(Deserialize)]
struct Expected {
    mean: Vec<f64>,
    var: Vec<f64>,
    norms: [f64; 2],
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn golden(name: &str) -> Golden {
    let path = testdata().join("torch").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The hash of `testdata/gen/torch_stats.py`.
fn mix(mut x: u32) -> u32 {
    for (shift, factor) in [(16, 0x21F0_AAAD), (15, 0x735A_2D97)] {
        x = (x ^ (x >> shift)).wrapping_mul(factor);
    }
    x ^ (x >> 15)
}

/// The samples that its `inputs` makes, as a file.
fn write_samples(golden: &Golden, folder: &Path) -> PathBuf {
    let samples: usize = golden.batches.iter().sum();
    let size: usize = golden.input.iter().product();
    let mut values = Vec::with_capacity(samples * size);
    for sample in 0..samples as u32 {
        let start = golden.seed.wrapping_add(sample << 20);
        let offset = (f64::from((sample * 5) % 7) - 3.0) / 8.0;
        for element in 0..size as u32 {
            let noise = mix(start.wrapping_add(element)) >> 12;
            let coarse = mix(start.wrapping_add(1 << 31).wrapping_add(element / 16)) >> 26;
            let exact = f64::from(noise) / f64::from(1 << 20) - 0.5 + f64::from(coarse) / 32.0
                - 1.0
                + offset;
            values.push(exact as f32);
        }
    }
    let probe = [0, 1, 17 % values.len(), values.len() - 1].map(|at| f64::from(values[at]));
    for (found, expected) in probe.iter().zip(&golden.probe) {
        assert!((found - expected).abs() < 1e-11, "{found} {expected}");
    }
    let mut dims = vec![samples];
    dims.extend(&golden.input);
    let tensor = Tensor::from_f32(dims.clone(), &values).unwrap();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, dims, tensor.data());
    let path = folder.join("samples.safetensors");
    let bytes = safetensors::serialize([("x", view.unwrap())], None).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn layers(model: &Path) -> Vec<LayerStats> {
    let report = stats(&StatsJob {
        input: model.to_owned(),
        output: None,
        force: false,
        hash: false,
        selection: Selection::default(),
    });
    report.unwrap().layers
}

/// By the name of its mean; in bodies and functions their path stands before it.
fn find<'a>(layers: &'a [LayerStats], name: &str) -> &'a LayerStats {
    let wanted = format!("{name}.running_mean");
    layers
        .iter()
        .find(|layer| layer.mean_name.rsplit('/').next() == Some(&wanted))
        .unwrap_or_else(|| panic!("no layer reads {wanted}"))
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The statistics of one layer: how far their means and their variances are off.
fn distance(found: &LayerStats, expected: &Expected) -> [f64; 2] {
    let epsilon = found.epsilon;
    let mut worst = [0f64; 2];
    for (at, (mean, var)) in expected.mean.iter().zip(&expected.var).enumerate() {
        let width = var + epsilon;
        worst[0] = worst[0].max((found.mean[at] - mean).abs() / width.sqrt());
        worst[1] = worst[1].max((found.variance[at] - var).abs() / width);
    }
    // Of a vector of errors, each at most so large relative to its channel's width.
    let widths: Vec<f64> = found.variance.iter().map(|v| v + epsilon).collect();
    let roots: Vec<f64> = widths.iter().map(|v| v.sqrt()).collect();
    let norms = [norm(&found.mean), norm(&found.variance)];
    worst[0] = worst[0].max((norms[0] - expected.norms[0]).abs() / norm(&roots));
    worst[1] = worst[1].max((norms[1] - expected.norms[1]).abs() / norm(&widths));
    worst
}

struct Network<'a> {
    name: &'a str,
    model: PathBuf,
    golden: Golden,
}

/// A method, the convention that the golden was made by, and where the golden is.
type Case = (&'static str, Method, Convention, fn(&Layer) -> &Expected);

const ALL: [Case; 4] = [
    ("precise", Method::Precise, Convention::Onnx, |it| {
        &it.precise
    }),
    ("average", Method::Average, Convention::Torch, |it| {
        &it.average
    }),
    ("ema", Method::Ema, Convention::Torch, |it| &it.ema),
    ("first", Method::Precise, Convention::Onnx, |it| &it.first),
];

impl Network<'_> {
    /// Recalibrates the network by each method and compares every layer.
    fn check(&self, cases: &[Case]) {
        let (name, golden) = (self.name, &self.golden);
        let folder = tempfile::tempdir().unwrap();
        let data = write_samples(golden, folder.path());
        let before = layers(&self.model);
        assert_eq!(before.len(), golden.layers.len() + golden.never_ran.len());
        for (what, method, convention, pick) in cases {
            let output = folder.path().join(format!("{what}.onnx"));
            let mut job = RecalibrateJob::new(&self.model, &data, &output);
            job.method.method = *method;
            job.method.convention = *convention;
            job.method.momentum = (*method == Method::Ema).then_some(0.1);
            if let Source::Data(data) = &mut job.source {
                data.batch_size = golden.batches[0];
                data.max_batches = (*what == "first").then_some(1);
            }
            let report =
                recalibrate(&job, &Quiet).unwrap_or_else(|error| panic!("{name} {what}: {error}"));
            assert_eq!(report.summary.updated, golden.layers.len(), "{name}");
            assert_eq!(report.summary.never_ran, golden.never_ran.len(), "{name}");
            let after = layers(&output);
            let mut worst = [0f64; 2];
            for layer in &golden.layers {
                let found = find(&after, &layer.name);
                assert_eq!(found.mean.len(), layer.channels, "{name} {}", layer.name);
                let far = distance(found, pick(layer));
                for kind in 0..2 {
                    let limit = 8.0 * golden.noise[kind].max(f64::powi(2.0, -22));
                    assert!(
                        far[kind] <= limit,
                        "{name} {what} {}: {:.1e}, accepted {limit:.1e}",
                        layer.name,
                        far[kind]
                    );
                    worst[kind] = worst[kind].max(far[kind]);
                }
                let change = report.layers.iter().find(|it| it.layer == found.layer);
                if *what != "first" {
                    assert_eq!(
                        change.unwrap().elements,
                        layer.elements,
                        "{name} {}",
                        layer.name
                    );
                }
            }
            eprintln!(
                "{name} {what}: mean {:.1e}, variance {:.1e}; PyTorch's f32 {:?}",
                worst[0], worst[1], golden.noise
            );
            for layer in &golden.never_ran {
                let (old, new) = (find(&before, layer), find(&after, layer));
                assert_eq!((&old.mean, &old.variance), (&new.mean, &new.variance));
                let said = report.layers.iter().find(|it| it.layer == new.layer);
                assert_eq!(said.unwrap().outcome, Outcome::NeverRan, "{name} {layer}");
            }
        }
    }

    /// Whether the file has the statistics that the golden was made with.
    fn is_the_same(&self) -> bool {
        let found = layers(&self.model);
        self.golden.layers.iter().all(|layer| {
            let found = find(&found, &layer.name);
            let close = |a: &f64, b: &f64| (a - b).abs() <= 1e-9 * b.abs();
            let [mean, variance] = &layer.stored;
            let means = found.mean.iter().zip(mean).all(|(a, b)| close(a, b));
            means
                && found
                    .variance
                    .iter()
                    .zip(variance)
                    .all(|(a, b)| close(a, b))
        })
    }
}

fn committed(name: &str) {
    let own = testdata().join("torch").join(format!("{name}.onnx"));
    let model = match own.exists() {
        true => own,
        false => testdata().join("models").join(format!("{name}.onnx")),
    };
    let network = Network {
        name,
        model,
        golden: golden(name),
    };
    assert!(network.is_the_same(), "{name}");
    network.check(&ALL);
}

#[test]
fn small_networks() {
    committed("tiny_resnet");
    committed("tiny_mobilenet");
}

#[test]
fn every_rank() {
    for name in ["rank2", "rank3", "rank4", "rank5"] {
        committed(name);
    }
}

#[test]
fn every_opset_in_eval_and_in_training_mode() {
    for name in [
        "opset07_eval",
        "opset07_training",
        "opset09_eval",
        "opset09_training",
        "opset14_training",
        "opset15_training",
    ] {
        committed(name);
    }
}

#[test]
fn a_batch_norm_called_twice() {
    committed("shared_norm");
}

#[test]
fn a_batch_norm_in_a_local_function() {
    committed("local_function");
}

#[test]
fn branches_of_an_if_the_one_that_never_runs_keeps_its_statistics() {
    committed("if_branches");
}

#[test]
fn real_architectures() {
    let shared = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let made = std::env::var_os("BNKIT_MADE_MODELS").map(PathBuf::from);
    let folders: Vec<PathBuf> = [shared.join("nets")].into_iter().chain(made).collect();
    for name in LARGE {
        let mut found = folders.iter().map(|it| it.join(name).join("model.onnx"));
        let Some(model) = found.find(|path| path.exists()) else {
            eprintln!("skipped: no {name} in {folders:?}");
            continue;
        };
        let network = Network {
            name,
            model,
            golden: golden(name),
        };
        if !network.is_the_same() {
            eprintln!("skipped: {name} was made with other weights than its golden");
            continue;
        }
        // The other two differ in what is done with the same batch statistics.
        network.check(&ALL[..2]);
    }
}

/// Architectures with a golden.
const LARGE: [&str; 8] = [
    "resnet18",
    "resnet50",
    "resnet152",
    "mobilenet_v2",
    "densenet121",
    "efficientnet_b0",
    "repvgg_a0",
    "mobileone_s0",
];
