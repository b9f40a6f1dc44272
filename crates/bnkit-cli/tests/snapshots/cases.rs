//! The commands whose words are kept. A line each: the name of the snapshot, what lies in the folder, what is typed.

use std::fs;
use std::path::Path;

use crate::common::{floats, model, npy};

/// Which numbers follow from the files alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// All but those of a proof.
    Exact,
    /// None: they come from running a network in f32, and processors differ in the last digits.
    Measured,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Puts the inputs into the folder.
    pub(crate) given: fn(&Path),
    /// Typed one after the other, after `bnkit`.
    pub(crate) commands: &'static [&'static str],
    pub(crate) numbers: Numbers,
}

const fn exact(name: &'static str, given: fn(&Path), commands: &'static [&'static str]) -> Case {
    Case {
        name,
        given,
        commands,
        numbers: Numbers::Exact,
    }
}

const fn measured(name: &'static str, given: fn(&Path), commands: &'static [&'static str]) -> Case {
    Case {
        numbers: Numbers::Measured,
        ..exact(name, given, commands)
    }
}

pub(crate) const CASES: &[Case] = &[
    // Everything that is decided before a command.
    exact("no-command", nothing, &[""]),
    exact("no-such-command", nothing, &["flod net.onnx", "fold"]),
    exact("config", config, &["fold net.onnx --config bnkit.yaml"]),
    // fold
    exact("fold", net, &["fold net.onnx", "fold net.onnx"]),
    exact("fold-dry-run", net, &["fold net.onnx --dry-run --verbose"]),
    // check
    // release
    exact(
        "release",
        data,
        &[
            "release net.onnx --min-folded 100%",
            "release net.onnx",
            "release net.onnx --force --calibration recalibrate --data x.npz",
        ],
    ),
    measured(
        "release-fails",
        kept,
        &["release net.onnx --min-folded 0.9 --format github"],
    ),
    exact("check", net, &["check net.onnx"]),
    exact("check-fails", kept, &["check net.onnx --deny not-folded"]),
    exact("check-errors", nothing, &["check absent.onnx"]),
    measured("fold-json", kept, &["fold net.onnx --format json"]),
    exact(
        "fold-yaml",
        kept,
        &["fold net.onnx --dry-run --format yaml"],
    ),
    exact(
        "fold-github",
        kept,
        &["fold net.onnx --dry-run --format github"],
    ),
    exact(
        "fold-kept",
        kept,
        &[
            "fold net.onnx --require-all-folded",
            "fold net.onnx --quiet",
        ],
    ),
    exact("fold-bad-statistics", bad, &["fold net.onnx"]),
    exact(
        "fold-not-a-model",
        text,
        &["fold net.onnx", "fold other.onnx"],
    ),
    exact(
        "fold-state-dict",
        state,
        &[
            "fold net.safetensors",
            "fold net.safetensors --graph graph.onnx",
        ],
    ),
    exact(
        "pair",
        state,
        &[
            "pair net.safetensors",
            "pair net.safetensors -o pairs.yaml --preset resnet",
        ],
    ),
    // looking
    exact(
        "inspect",
        net,
        &["inspect net.onnx", "inspect net.onnx --batch-norms --quiet"],
    ),
    exact(
        "inspect-parts",
        net,
        &[
            "inspect net.onnx --tree",
            "inspect net.onnx --tensor fc.bias",
            "inspect net.onnx --tensor nothing",
        ],
    ),
    exact(
        "inspect-state-dict",
        state,
        &["inspect net.safetensors", "inspect net.safetensors --scan"],
    ),
    exact("inspect-not-a-model", text, &["inspect net.onnx"]),
    exact(
        "stats",
        net,
        &[
            "stats net.onnx",
            "stats net.onnx --only /bn1/* -o s.csv",
            "stats net.onnx -o s.txt",
        ],
    ),
    exact(
        "diff",
        two_states,
        &[
            "diff a.safetensors b.safetensors",
            "diff a.safetensors c.safetensors",
        ],
    ),
    exact(
        "explain",
        nothing,
        &["explain shared-output", "explain shared-outputs"],
    ),
    // data
    measured(
        "recalibrate",
        data,
        &[
            "recalibrate net.onnx --data x.npz --batch-size 2",
            "recalibrate net.onnx",
        ],
    ),
    measured(
        "recalibrate-fold",
        kept_data,
        &["recalibrate net.onnx --data x.npy --batch-size 2 --fold --require-all-folded"],
    ),
    measured(
        "validate",
        data,
        &[
            "validate net.onnx --data x.npz --batch-size 2 --worst 2",
            "validate net.onnx",
        ],
    ),
    measured(
        "validate-drifted",
        far_data,
        &["validate net.onnx --data x.npy --batch-size 4 --worst 2"],
    ),
    measured(
        "run",
        data,
        &["run net.onnx --data x.npz", "run net.onnx --data no.npz"],
    ),
    measured(
        "merge",
        data,
        &[
            "recalibrate net.onnx --data x.npz --batch-size 2 --shard 1/2 --partial a.json",
            "recalibrate net.onnx --data x.npz --batch-size 2 --shard 2/2 --partial b.json",
            "merge a.json --model net.onnx",
            "merge a.json b.json --model net.onnx",
        ],
    ),
    measured(
        "merge-fold",
        kept_data,
        &[
            "recalibrate net.onnx --data x.npy --batch-size 2 --shard 1/1 --partial a.json",
            "merge a.json --model net.onnx --fold --require-all-folded",
        ],
    ),
    // two models
    exact(
        "verify",
        net,
        &[
            "fold net.onnx --no-verify --quiet",
            "verify net.onnx net.folded.onnx",
            "verify net.onnx no.onnx",
        ],
    ),
    measured(
        "verify-not-equivalent",
        data,
        &[
            "recalibrate net.onnx --data x.npz --quiet",
            "verify net.onnx net.recalibrated.onnx",
        ],
    ),
    exact(
        "unfold",
        net,
        &[
            "fold net.onnx --keep-stats kept.safetensors --quiet",
            "unfold net.folded.onnx --stats kept.safetensors -o back.onnx",
            "unfold net.onnx --stats kept.safetensors -o again.onnx",
        ],
    ),
    exact(
        "convert",
        net,
        &[
            "convert net.onnx -o net.safetensors",
            "convert --weights net.safetensors net.onnx -o back.onnx",
            "convert net.onnx",
        ],
    ),
    exact(
        "convert-too-large",
        large,
        &["convert large.safetensors --dtype f16 -o small.safetensors"],
    ),
    exact("completions", nothing, &["completions dos"]),
    exact("man", text, &["man -o net.onnx"]),
];

/// A file of the test data, under another name.
fn copy(folder: &Path, from: &str, to: &str) {
    let source = model("../..").join("testdata").join(from);
    fs::copy(&source, folder.join(to))
        .unwrap_or_else(|error| panic!("{}: {error}", source.display()));
}

fn nothing(_: &Path) {}

fn net(folder: &Path) {
    copy(folder, "models/tiny_resnet.onnx", "net.onnx");
}

/// Options with a typing error.
fn config(folder: &Path) {
    net(folder);
    fs::write(
        folder.join("bnkit.yaml"),
        "fold:\n  skip: [\"/bn1/*\"]\n  lowr: true\n",
    )
    .unwrap();
}

/// A BatchNorm that cannot be folded.
fn kept(folder: &Path) {
    copy(folder, "golden/bn_conv_padded_shift.onnx", "net.onnx");
}

fn kept_data(folder: &Path) {
    kept(folder);
    let data = floats(32 * 4 * 5 * 5, 0.0);
    npy(&folder.join("x.npy"), "<f4", &[32, 4, 5, 5], &data);
}

fn bad(folder: &Path) {
    copy(folder, "golden/bad_nan_variance.onnx", "net.onnx");
}

/// A file that is no model.
fn text(folder: &Path) {
    fs::write(folder.join("net.onnx"), "This is no model.\n").unwrap();
}

fn state(folder: &Path) {
    copy(folder, "state/resnet/model.safetensors", "net.safetensors");
    copy(folder, "state/resnet/model.onnx", "graph.onnx");
}

fn two_states(folder: &Path) {
    copy(folder, "convert/net.safetensors", "a.safetensors");
    copy(folder, "convert/other.safetensors", "b.safetensors");
}

fn data(folder: &Path) {
    net(folder);
    copy(folder, "models/calibration.npz", "x.npz");
}

/// Data that the statistics were not made for.
fn far_data(folder: &Path) {
    net(folder);
    let data = floats(40 * 3 * 32 * 32, 2.0);
    npy(&folder.join("x.npy"), "<f4", &[40, 3, 32, 32], &data);
}

/// A state dict with an element beyond f16.
fn large(folder: &Path) {
    let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    for value in [1.0_f32, 1e6] {
        file.extend(value.to_le_bytes());
    }
    fs::write(folder.join("large.safetensors"), file).unwrap();
}
