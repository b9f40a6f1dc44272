//! State dicts beside graphs of the same networks: tensors of one name have to be equal. And the numbers of a real difference, by
//! NumPy in f64.
//!
//! The collection is not part of the project: the folder is `BNKIT_MODELS`, or `../shared/models` beside the workspace. Without it the
//! tests say so and pass.

// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

use std::path::{Path, PathBuf};

use bnkit::diff::{DiffReport, EpsilonFrom, LayerChange, diff};
use bnkit::inspect::tensor;

fn collection() -> Option<PathBuf> {
    let folder = std::env::var_os("BNKIT_MODELS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models"),
        PathBuf::from,
    );
    if folder.join("digits").is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no collection of models (BNKIT_MODELS)");
    None
}

fn near(found: f64, expected: f64) {
    // Sums of f64 in another order.
    assert!(
        (found / expected - 1.0).abs() < 1e-12,
        "{found} instead of {expected}"
    );
}

#[test]
fn a_graph_and_its_state_dict_are_equal() {
    let Some(folder) = collection() else { return };
    let mut compared = 0;
    for entry in folder.join("nets").read_dir().unwrap() {
        let net = entry.unwrap().path();
        let (graph, state) = (net.join("model.onnx"), net.join("model.safetensors"));
        if !state.is_file() {
            continue;
        }
        let report = diff(&graph, &state, None).unwrap();
        let summary = report.summary;
        assert_eq!(report.changed, [], "{}", net.display());
        assert!(summary.unchanged > 0, "{}", net.display());
        assert_eq!(
            (summary.batch_norms_changed, summary.batch_norms_removed),
            (0, 0),
            "{}",
            net.display()
        );
        // Exporters drop the counters; nothing else is missing in the graph.
        let others = report.added.iter();
        let mut others = others.filter(|it| !it.name.ends_with("num_batches_tracked"));
        assert_eq!(others.next(), None, "{}", net.display());
        compared += 1;
    }
    assert!(compared >= 8, "{compared}");
}

fn digits(folder: &Path, a: &str, b: &str, epsilon: Option<f64>) -> DiffReport {
    let file = |name: &str| folder.join("digits").join(name);
    diff(&file(a), &file(b), epsilon).unwrap()
}

fn layer<'r>(report: &'r DiffReport, mean: &str) -> &'r LayerChange {
    let mut layers = report.batch_norms.iter();
    layers.find(|layer| layer.mean_name == mean).unwrap()
}

/// np.abs(b − a).max(), the same over np.abs(a).max(), np.linalg.norm(b − a)/np.linalg.norm(a); all in f64.
#[test]
fn tensors_differ_as_numpy_says() {
    let Some(folder) = collection() else { return };
    let report = digits(
        &folder,
        "digits.safetensors",
        "digits_perturbed.safetensors",
        None,
    );
    assert_eq!((report.summary.changed, report.summary.unchanged), (20, 44));
    // The largest change comes first.
    assert_eq!(report.changed[0].name, "layer3.down.1.running_var");
    for (name, expected) in [
        (
            "layer3.down.1.running_var",
            [28.646891117095947, 27.955876471243812, 7.764129857991451],
        ),
        (
            "bn1.running_mean",
            [1.27620330452919, 2.239438877290191, 2.3802547844776756],
        ),
    ] {
        let change = report.changed.iter().find(|it| it.name == name).unwrap();
        let elements = change.elements.unwrap();
        near(elements.max_abs, expected[0]);
        near(elements.max_rel, expected[1]);
        near(elements.l2_rel, expected[2]);
    }
}

/// Minimum, median and maximum over the channels of ½[(σ₁²+Δ²)/σ₂² + (σ₂²+Δ²)/σ₁²] − 1, |Δ|/σ₁ and ln(σ₂²/σ₁²), by NumPy in f64 with the
/// ε of the graph's nodes, np.float32(1e-5), and with 1e-5.
#[test]
fn batch_norms_drift_as_numpy_says() {
    let Some(folder) = collection() else { return };
    let graph = digits(&folder, "digits.onnx", "digits_perturbed.safetensors", None);
    let dicts = digits(
        &folder,
        "digits.safetensors",
        "digits_perturbed.onnx",
        Some(1.0),
    );
    let alone = digits(
        &folder,
        "digits.safetensors",
        "digits_perturbed.safetensors",
        None,
    );
    let bnf = layer(&graph, "bnf.running_mean");
    assert_eq!(bnf.epsilon_from, EpsilonFrom::A);
    let (kl, shift) = (bnf.kl.unwrap(), bnf.mean_shift.unwrap());
    let ratio = bnf.log_variance_ratio.unwrap();
    near(kl.min, 0.11377822891380784);
    near(kl.median, 1.3435292838551998);
    near(kl.max, 324.357261507076);
    near(shift.min, 0.03201862125197222);
    near(shift.median, 0.9753707292574967);
    near(shift.max, 4.356985080636784);
    near(ratio.min, -4.050508242640458);
    near(ratio.median, 0.07407025613398005);
    near(ratio.max, 2.22004488913151);
    // The graph's ε goes before the caller's, on either side.
    let bnf = layer(&dicts, "bnf.running_mean");
    assert_eq!(bnf.epsilon_from, EpsilonFrom::B);
    near(bnf.kl.unwrap().max, 324.357261507076);
    let bnf = layer(&alone, "bnf.running_mean");
    assert_eq!(bnf.epsilon_from, EpsilonFrom::Default);
    near(bnf.kl.unwrap().max, 324.35726149945464);
    assert_eq!(graph.summary.batch_norms_changed, 10);
}

/// np.mean, np.std and np.histogram(w, 16) of the weight in f64.
#[test]
fn a_tensor_is_spread_as_numpy_says() {
    let Some(folder) = collection() else { return };
    for name in ["digits.safetensors", "digits.onnx"] {
        let report = tensor(&folder.join("digits").join(name), "layer2.conv1.weight").unwrap();
        let values = report.values.unwrap();
        near(values.mean, -0.0007537291278924366);
        near(values.std, 0.09378673371294358);
        assert_eq!(
            values.histogram.unwrap().counts,
            [
                2, 18, 67, 167, 398, 668, 813, 803, 712, 498, 269, 122, 43, 15, 10, 3
            ]
        );
    }
}
