//! Calibration of the digits networks against PyTorch's own statistics and accuracies.
//!
//! The collection is not part of the project: the folder is `BNKIT_MODELS`, or `../shared/models` beside the workspace. Without it the
//! tests say so and pass.

// What was skipped, and the numbers, are for the reader of the tests' output.
#![allow(clippy::print_stderr)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bnkit::accuracy::{self, Labels};
use bnkit::calibrate::*;
use bnkit::data;
use bnkit::model::onnx::Model;
use bnkit::pipeline::Quiet;
use bnkit_engine::{LoadOptions, Precision, Session};

fn digits() -> Option<PathBuf> {
    let models = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    let folder = models.join("digits");
    if !folder.is_dir() {
        eprintln!("skipped: no {}", folder.display());
        return None;
    }
    Some(folder)
}

/// PyTorch's batches: 64 samples in the order of the file.
fn job(folder: &Path, model: &str, output: &Path, options: MethodOptions) -> RecalibrateJob {
    let input = folder.join(format!("{model}.onnx"));
    let mut job = RecalibrateJob::new(input, folder.join("train_images.npy"), output);
    job.method = options;
    with_data(&mut job, |data| data.batch_size = 64);
    job
}

fn with_data(job: &mut RecalibrateJob, change: impl FnOnce(&mut DataOptions)) {
    if let Source::Data(data) = &mut job.source {
        change(data);
    }
}

fn torch(method: Method) -> MethodOptions {
    MethodOptions {
        method,
        convention: Convention::Torch,
        ..MethodOptions::default()
    }
}

/// Mean and variance of each layer, by the names of the model's tensors.
fn statistics(model: &Path) -> HashMap<String, Vec<f64>> {
    let report = stats(&StatsJob {
        input: model.to_owned(),
        output: None,
        force: false,
        hash: false,
        selection: Selection::default(),
    });
    let layers = report.unwrap().layers;
    assert_eq!(layers.len(), 10);
    layers
        .into_iter()
        .flat_map(|layer| {
            [
                (layer.mean_name, layer.mean),
                (layer.variance_name, layer.variance),
            ]
        })
        .collect()
}

/// The largest difference, relative to the largest value of a tensor.
fn distance(found: &HashMap<String, Vec<f64>>, truth: &Path) -> f64 {
    let truth = data::load(truth).unwrap();
    let mut worst = 0f64;
    let mut compared = 0;
    for named in truth
        .tensors
        .iter()
        .filter(|named| named.name.contains("running"))
    {
        let expected = named.tensor.to_f64().unwrap();
        let found = &found[&named.name];
        let scale = expected
            .iter()
            .fold(0f64, |largest, x| largest.max(x.abs()));
        for (a, b) in found.iter().zip(&expected) {
            worst = worst.max((a - b).abs() / scale);
        }
        compared += 1;
    }
    assert_eq!(compared, 20);
    worst
}

fn accuracy(folder: &Path, model: &Path) -> f64 {
    let images = data::load(&folder.join("test_images.npy")).unwrap();
    let labels = data::load(&folder.join("test_labels.npy")).unwrap();
    let images = images.tensors[0].tensor.clone();
    let labels = labels.tensors[0].tensor.to_i64().unwrap();
    let bytes = std::fs::read(model).unwrap();
    let name = bnkit_engine::inputs(&bytes).unwrap()[0].name.clone();
    let options = LoadOptions {
        precision: Precision::F32,
        input_dims: &[(name.clone(), images.dims().to_vec())],
        model_dir: None,
        extra_outputs: &[],
        perturbation: None,
    };
    let session = Session::load(&bytes, &options).unwrap();
    let logits = session.run(&[(name, images)]).unwrap()[0]
        .1
        .to_f64()
        .unwrap();
    let right = logits
        .chunks(10)
        .zip(&labels)
        .filter(|(row, label)| (0..10).all(|class| row[class] <= row[**label as usize]));
    right.count() as f64 / labels.len() as f64
}

#[test]
fn average_and_ema_are_those_of_pytorch_and_so_is_the_accuracy() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let mut reports = 0;
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("results.json")).unwrap()).unwrap();
    for model in ["digits_reset", "digits_perturbed", "digits_swa_stale"] {
        for (truth, options, drop_last, batches) in [
            ("cma_droplast", torch(Method::Average), true, None),
            ("cma_keeplast", torch(Method::Average), false, None),
            ("ema01_20", torch(Method::Ema), false, Some(20)),
            ("pooled_keeplast", torch(Method::Precise), false, None),
        ] {
            let output = out.path().join(format!("{model}_{truth}.onnx"));
            let mut job = job(&folder, model, &output, options);
            with_data(&mut job, |data| {
                data.drop_last = drop_last;
                data.max_batches = batches;
            });
            let report = recalibrate(&job, &Quiet).unwrap();
            assert_eq!(report.summary.updated, 10);
            let path = folder.join(format!("truth_{model}_{truth}.safetensors"));
            if path.exists() {
                let distance = distance(&statistics(&output), &path);
                eprintln!("{model} {truth}: {distance:.2e}");
                assert!(distance < 1e-5, "{model} {truth}: {distance:.2e}");
                reports += 1;
            }
            let expected = results["acc"][format!("{model}+{truth}")].as_f64().unwrap();
            let accuracy = accuracy(&folder, &output);
            eprintln!("{model} {truth}: accuracy {accuracy:.5}, PyTorch {expected:.5}");
            assert!(
                (accuracy - expected).abs() < 1e-4,
                "{model} {truth}: {accuracy}"
            );
        }
    }
    assert!(reports >= 9);
}

#[test]
fn shards_put_together_are_the_single_run() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    for method in [Method::Precise, Method::Average, Method::Ema] {
        let whole_path = out.path().join(format!("{}.onnx", method.name()));
        let whole = recalibrate(
            &job(&folder, "digits_perturbed", &whole_path, torch(method)),
            &Quiet,
        )
        .unwrap();
        let partials: Vec<PathBuf> = (1..=5)
            .map(|index| {
                let path = out.path().join(format!("{}{index}.json", method.name()));
                let mut job = job(&folder, "digits_perturbed", &whole_path, torch(method));
                job.shard = Shard { index, count: 5 };
                job.partial = Some(path.clone());
                let report = recalibrate(&job, &Quiet).unwrap();
                assert!(report.output.is_none() && report.partial.unwrap().complete);
                path
            })
            .collect();
        let merged_path = out.path().join(format!("{}_merged.onnx", method.name()));
        let mut merging = MergeJob {
            partials: partials.iter().rev().cloned().collect(),
            input: folder.join("digits_perturbed.onnx"),
            output: Some(merged_path.clone()),
            force: false,
            hash: false,
            stability: Stability::default(),
            fold: None,
            interrupt: Interrupt::default(),
        };
        let merged = merge(&merging, &Quiet).unwrap();
        assert_eq!((merged.samples, merged.batches), (1437, 23));
        for (a, b) in whole.layers.iter().zip(&merged.layers) {
            let (a, b) = (a.change.as_ref().unwrap(), b.change.as_ref().unwrap());
            for (a, b) in [
                (a.mean_after, b.mean_after),
                (a.variance_after, b.variance_after),
                (a.mean_shift, b.mean_shift),
            ] {
                for (a, b) in [(a.min, b.min), (a.median, b.median), (a.max, b.max)] {
                    assert!((a - b).abs() <= 1e-12 * a.abs().max(1e-3), "{a} {b}");
                }
            }
        }
        assert_eq!(statistics(&whole_path), statistics(&merged_path));

        merging.force = true;
        let text = |merging: &MergeJob| merge(merging, &Quiet).unwrap_err().to_string();
        let third = merging.partials.remove(2);
        assert!(text(&merging).contains("missing shards: 3/5"));
        merging.partials.extend([third, partials[0].clone()]);
        assert!(text(&merging).contains("twice"));
        merging.partials = partials.clone();
        merging.input = folder.join("digits_reset.onnx");
        assert!(text(&merging).contains("not the model"));
        merging.partials[1] = out.path().join("precise2.json");
        if method != Method::Precise {
            assert!(text(&merging).contains("another job"));
        }
    }
}

#[test]
fn sequential_settles_and_recovers_the_accuracy() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let run = |batch_size: usize| {
        let output = out.path().join(format!("{batch_size}.onnx"));
        let mut job = job(&folder, "digits_reset", &output, torch(Method::Sequential));
        job.method.tolerance = 1e-9;
        with_data(&mut job, |data| data.batch_size = batch_size);
        let report = recalibrate(&job, &Quiet).unwrap();
        eprintln!("{:?}", report.passes);
        // 10 BatchNorms, 2 of which lie on side branches.
        assert!(report.passes.len() <= 11, "{}", report.passes.len());
        let last = report.passes.last().unwrap();
        assert!(last.mean_change < 1e-9 && last.variance_change < 1e-9);
        assert!(accuracy(&folder, &output) > 0.99);
        statistics(&output)
    };
    // Whatever the batches are.
    let (a, b) = (run(64), run(100));
    for (name, a) in &a {
        let scale = a.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        for (a, b) in a.iter().zip(&b[name]) {
            assert!((a - b).abs() < 1e-5 * scale, "{name}: {a} {b}");
        }
    }
}

#[test]
fn validation_accepts_what_was_trained_and_nothing_else() {
    let Some(folder) = digits() else { return };
    for (model, valid) in [
        ("digits", true),
        ("digits_reset", false),
        ("digits_perturbed", false),
        ("digits_swa_stale", false),
    ] {
        for method in [Method::Precise, Method::Average] {
            let mut job = ValidateJob::new(
                folder.join(format!("{model}.onnx")),
                folder.join("train_images.npy"),
            );
            job.method.method = method;
            let report = validate(&job, &Quiet).unwrap();
            let worst =
                |value: fn(&LayerDrift) -> f64| report.layers.iter().map(value).fold(0.0, f64::max);
            eprintln!(
                "{model}: {} of {} channels; mean {:.3} variance {:.3} KL {:.3}; {:?}",
                report.drifted_channels,
                report.channels,
                worst(|layer| layer.mean_drift.max),
                worst(|layer| layer.var_drift.max),
                worst(|layer| layer.kl.max),
                report.sampling,
            );
            assert_eq!(report.valid, valid, "{model}");
            assert_eq!(report.failure.is_none(), valid);
        }
    }
}

#[test]
fn a_recalibrated_model_is_valid_and_can_be_folded_at_once() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let output = out.path().join("digits.onnx");
    let mut job = job(&folder, "digits_reset", &output, MethodOptions::default());
    recalibrate(&job, &Quiet).unwrap();
    let report = validate(
        &ValidateJob::new(&output, folder.join("train_images.npy")),
        &Quiet,
    );
    assert!(report.unwrap().valid);
    let folded = out.path().join("folded.onnx");
    job.output = Some(folded.clone());
    job.fold = Some(FoldAfter {
        fold: Default::default(),
        verify: Some(Default::default()),
        require_end_to_end: true,
        require_all_folded: true,
    });
    let report = recalibrate(&job, &Quiet).unwrap();
    assert_eq!(report.fold.unwrap().summary.folded, 10);
    assert!((accuracy(&folder, &folded) - 0.99444).abs() < 1e-4);
    let left = std::fs::read_dir(out.path()).unwrap().count();
    assert_eq!(left, 2, "nothing but the outputs stays behind");
}

#[test]
fn statistics_go_out_and_come_back() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    for extension in ["safetensors", "npz"] {
        let exported = out.path().join(format!("stats.{extension}"));
        let report = stats(&StatsJob {
            input: folder.join("digits.onnx"),
            output: Some(exported.clone()),
            force: false,
            hash: false,
            selection: Selection::default(),
        });
        assert_eq!(report.unwrap().layers.len(), 10);
        let output = out.path().join(format!("{extension}.onnx"));
        let mut job = job(
            &folder,
            "digits_perturbed",
            &output,
            MethodOptions::default(),
        );
        job.source = Source::Stats(exported);
        assert_eq!(recalibrate(&job, &Quiet).unwrap().summary.updated, 10);
        assert_eq!(statistics(&output), statistics(&folder.join("digits.onnx")));
    }
    // PyTorch's own, by the names of its state dict.
    let output = out.path().join("torch.onnx");
    let mut job = job(&folder, "digits_reset", &output, MethodOptions::default());
    job.source = Source::Stats(folder.join("truth_digits_reset_cma_keeplast.safetensors"));
    assert_eq!(recalibrate(&job, &Quiet).unwrap().summary.updated, 10);
    assert!((accuracy(&folder, &output) - 0.99444).abs() < 1e-4);
}

#[test]
fn running_both_modes_shows_where_they_part() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let distance = |model: &str| {
        let mut job = RunJob::new(
            folder.join(format!("{model}.onnx")),
            folder.join("test_images.npy"),
        );
        job.output = Some(out.path().join(format!("{model}.npz")));
        let report = run(&job, &Quiet).unwrap();
        assert_eq!((report.outputs.len(), report.batch_norms.len()), (2, 10));
        let written = data::load(job.output.as_ref().unwrap()).unwrap();
        assert_eq!(written.tensors.len(), 2);
        assert_eq!(written.tensors[0].tensor.dims(), [360, 10]);
        report.distances[0].argmax_agreement.unwrap()
    };
    assert!(distance("digits") > 0.98);
    assert!(distance("digits_reset") < 0.5);
}

#[test]
fn an_interrupted_job_leaves_nothing_or_a_valid_partial() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let output = out.path().join("digits.onnx");
    let mut job = job(&folder, "digits", &output, MethodOptions::default());
    job.interrupt
        .0
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let error = recalibrate(&job, &Quiet).unwrap_err();
    assert!(matches!(error, bnkit::Error::Interrupted));
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    job.partial = Some(out.path().join("part.json"));
    let report = recalibrate(&job, &Quiet).unwrap();
    assert!(!report.partial.unwrap().complete);
    assert!(!output.exists() && out.path().join("part.json").exists());
}

#[test]
fn until_stable_stops_early_and_says_so() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let output = out.path().join("digits.onnx");
    let mut job = job(&folder, "digits", &output, MethodOptions::default());
    job.until_stable = true;
    job.stability.tolerance = 0.1;
    with_data(&mut job, |data| data.batch_size = 32);
    let report = recalibrate(&job, &Quiet).unwrap();
    eprintln!("{:?} {:?}", report.data, report.sampling);
    assert!(report.data.as_ref().unwrap().stopped_early);
    assert!(report.data.unwrap().samples < 1437);
    assert_eq!(report.sampling.unwrap().enough, Some(true));
}

/// The accuracies that ONNX Runtime found, on the same images.
#[test]
fn accuracies_are_those_of_onnx_runtime() {
    let Some(folder) = digits() else { return };
    let results = std::fs::read(folder.join("results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_slice(&results).unwrap();
    for name in [
        "digits",
        "digits_reset",
        "digits_perturbed",
        "digits_swa_stale",
    ] {
        let path = folder.join(format!("{name}.onnx"));
        let labels = Labels::read(&folder.join("test_labels.npy")).unwrap();
        let data = DataOptions {
            labels: Some(labels.into()),
            // Neither order nor batches may matter.
            shuffle: Some(1),
            batch_size: 50,
            drop_last: true,
            ..DataOptions::new(folder.join("test_images.npy"))
        };
        let model = Model::open(&path).unwrap();
        let found = accuracy::measure(&model, &path, &data, &Interrupt::default(), &Quiet);
        let found = found.unwrap().unwrap();
        let expected = results["onnx"][name]["ort_acc"].as_f64().unwrap();
        assert_eq!((found.samples, found.classes), (360, 10));
        assert!(
            (found.top1_share() - expected).abs() < 1e-5,
            "{name}: {found:?}"
        );
        assert!(found.top5.unwrap() >= found.top1, "{name}: {found:?}");
    }
}

/// A recalibration that makes the network worse is not written, if that is a gate.
#[test]
fn a_drop_of_accuracy_over_the_limit_writes_nothing() {
    let Some(folder) = digits() else { return };
    let out = tempfile::tempdir().unwrap();
    let output = out.path().join("worse.onnx");
    // A few images of noise are no calibration data.
    let noise: Vec<f32> = (0..64 * 64)
        .map(|at| (at * 7919 % 101) as f32 * 3.0)
        .collect();
    let noise = bnkit::model::Tensor::from_f32(vec![64, 1, 8, 8], &noise).unwrap();
    let mut job = job(&folder, "digits", &output, MethodOptions::default());
    job.source = Source::Data(DataOptions {
        labels: Some(Labels::new((0..64).map(|at| at % 10).collect()).into()),
        ..DataOptions::of_tensors([("", noise)])
    });
    let report = recalibrate(&job, &Quiet).unwrap();
    let drop = report.accuracy.unwrap().drop().unwrap();
    std::fs::remove_file(&output).unwrap();
    for (limit, written) in [(drop - 0.01, false), (drop + 0.001, true)] {
        job.max_accuracy_drop = Some(limit);
        let report = recalibrate(&job, &Quiet).unwrap();
        assert_eq!(output.exists(), written);
        assert_eq!(report.failure.is_none(), written, "{:?}", report.failure);
        assert_eq!(report.output.is_some(), written);
    }
}
