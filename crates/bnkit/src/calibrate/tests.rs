//! Small models from end to end: sharing, application, and statistics that can be computed by hand.

mod applying;
mod errors;
mod sharing;

use std::path::{Path, PathBuf};

use bnkit_model::onnx::Model;
use tempfile::TempDir;

use super::*;
use crate::pipeline::Quiet;
use crate::verify::nets::Net;

/// A folder with a model and data.
struct Case {
    folder: TempDir,
}

impl Case {
    /// `values` are samples of the input "x", row by row.
    fn new(model: &[u8], dims: &[usize], values: &[f32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("net.onnx"), model).unwrap();
        let tensor = bnkit_model::Tensor::from_f32(dims.to_vec(), values).unwrap();
        let bytes = crate::data::npz(&[("x".to_owned(), tensor)]).unwrap();
        std::fs::write(folder.path().join("x.npz"), bytes).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn job(&self, method: Method) -> RecalibrateJob {
        let mut job = RecalibrateJob::new(
            self.path("net.onnx"),
            self.path("x.npz"),
            self.path("out.onnx"),
        );
        job.method.method = method;
        job.force = true;
        if let Source::Data(data) = &mut job.source {
            data.batch_size = 4;
        }
        job
    }

    fn stats(&self) -> Vec<LayerStats> {
        read_stats(&self.path("out.onnx"))
    }
}

fn read_stats(path: &Path) -> Vec<LayerStats> {
    let report = stats(&StatsJob {
        input: path.to_owned(),
        output: None,
        force: false,
        hash: false,
        selection: Selection::default(),
    });
    report.unwrap().layers
}

/// Different in every channel and not centred.
fn data(count: usize) -> Vec<f32> {
    (0..count)
        .map(|at| ((at * 7919) % 1009) as f32 / 101.0 + (at % 2) as f32 * 3.0)
        .collect()
}

/// Adds the parameters of a BatchNorm with two channels, freshly made but for γ and β.
fn fresh(net: Net, gamma: &str, beta: &str, mean: &str, variance: &str) -> Net {
    net.constant(gamma, &[2], &[1.5, 0.5])
        .constant(beta, &[2], &[0.5, -1.0])
        .constant(mean, &[2], &[0.0; 2])
        .constant(variance, &[2], &[1.0; 2])
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let distance = (found - expected).abs();
        assert!(
            distance <= tolerance * expected.abs().max(1e-3),
            "{found} {expected}"
        );
    }
}

/// Mean and population variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, squares / count)
}

/// The elements of a channel of samples with two channels of three elements.
fn channel(values: &[f32], channel: usize) -> Vec<f64> {
    values
        .chunks(3)
        .skip(channel)
        .step_by(2)
        .flatten()
        .map(|&x| f64::from(x))
        .collect()
}

fn reload(model: &Model) -> Model {
    let bytes = model
        .to_bytes(bnkit_model::onnx::Precision::Stored)
        .unwrap();
    Model::from_bytes(bytes).unwrap()
}

#[test]
fn precise_at_the_input_is_what_the_data_says() {
    let values = data(10 * 6);
    let net = fresh(Net::new("x", &[-1, 2, 3]), "g", "b", "m", "v")
        .node("BatchNormalization", &["x", "g", "b", "m", "v"], "y")
        .output("y");
    let case = Case::new(&net.bytes(), &[10, 2, 3], &values);
    for (convention, divisor) in [(Convention::Onnx, 30.0), (Convention::Torch, 29.0)] {
        let mut job = case.job(Method::Precise);
        job.method.convention = convention;
        let report = recalibrate(&job, &Quiet).unwrap();
        assert_eq!(report.data.as_ref().unwrap().batches, 3);
        assert_eq!(report.layers[0].elements, 30);
        let found = &case.stats()[0];
        assert_eq!(
            (found.mean_name.as_str(), found.variance_name.as_str()),
            ("m", "v")
        );
        let change = report.layers[0].change.as_ref().unwrap();
        for at in 0..2 {
            let (mean, variance) = moments(&channel(&values, at));
            close(&[found.mean[at]], &[mean], 1e-7);
            close(&[found.variance[at]], &[variance * 30.0 / divisor], 1e-7);
        }
        // Before it is rounded to f32.
        let means: Vec<f64> = (0..2).map(|at| moments(&channel(&values, at)).0).collect();
        close(&[change.mean_after.min], &[means[0].min(means[1])], 1e-14);
    }
}

#[test]
fn threads_change_nothing() {
    let values = data(32 * 6);
    let net = fresh(Net::new("x", &[-1, 2, 3]), "g", "b", "m", "v")
        .node("BatchNormalization", &["x", "g", "b", "m", "v"], "a")
        .node("Relu", &["a"], "r");
    let net = fresh(net, "g2", "b2", "m2", "v2")
        .node("BatchNormalization", &["r", "g2", "b2", "m2", "v2"], "y")
        .output("y");
    let case = Case::new(&net.bytes(), &[32, 2, 3], &values);
    let run = |threads: usize| {
        let mut job = case.job(Method::Precise);
        job.threads = threads;
        recalibrate(&job, &Quiet).unwrap();
        std::fs::read(case.path("out.onnx")).unwrap()
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(3));
}

#[test]
fn skipped_layers_keep_their_statistics() {
    let net = fresh(Net::new("x", &[-1, 2, 3]), "g", "b", "m", "v").node(
        "BatchNormalization",
        &["x", "g", "b", "m", "v"],
        "first",
    );
    let net = fresh(net, "g2", "b2", "m2", "v2")
        .node(
            "BatchNormalization",
            &["first", "g2", "b2", "m2", "v2"],
            "second",
        )
        .output("second");
    let case = Case::new(&net.bytes(), &[8, 2, 3], &data(48));
    let mut job = case.job(Method::Average);
    job.selection.skip = vec!["first".to_owned()];
    let report = recalibrate(&job, &Quiet).unwrap();
    assert_eq!((report.summary.skipped, report.summary.updated), (1, 1));
    let found = case.stats();
    assert_eq!(found[0].mean, [0.0, 0.0]);
    assert_ne!(found[1].variance, [1.0, 1.0]);
    job.selection.skip.push("second".to_owned());
    let text = recalibrate(&job, &Quiet).unwrap_err().to_string();
    assert!(
        text.contains("--skip") && text.contains("net.onnx"),
        "{text}"
    );
}
