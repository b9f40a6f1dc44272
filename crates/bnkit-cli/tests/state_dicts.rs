//! State dicts on the command line: what is asked for, what is refused, and with which exit code.

mod common;

use std::fs;
use std::path::Path;

use common::{Run, bnkit, names};

/// A folder with a state dict, its graph, and a pairing file.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/state/resnet");
    for (from, to) in [
        ("model.safetensors", "net.safetensors"),
        ("model.onnx", "net.onnx"),
    ] {
        fs::copy(case.join(from), dir.path().join(to)).unwrap();
    }
    dir
}

fn fold(dir: &Path, args: &[&str]) -> Run {
    bnkit(dir, &[&["fold", "net.safetensors"], args].concat())
}

#[test]
fn the_graph_gives_a_proof_end_to_end() {
    let dir = folder();
    let run = fold(
        dir.path(),
        &[
            "--graph",
            "net.onnx",
            "--require",
            "end-to-end",
            "--format",
            "json",
        ],
    );
    let report = run.is_done().json();
    assert_eq!(report["schema"], "bnkit.fold/1");
    assert_eq!(report["summary"]["folded"], 12);
    assert_eq!(report["state"]["pairing"], "graph");
    assert_eq!(report["state"]["added"].as_array().unwrap().len(), 12);
    assert_eq!(report["state"]["dropped"].as_array().unwrap().len(), 60);
    assert_eq!(report["sites"][0]["module"], "bn1");
    assert_eq!(report["verification"]["verdict"], "equivalent");
    assert_eq!(
        names(dir.path()),
        ["net.folded.safetensors", "net.onnx", "net.safetensors"]
    );
}

#[test]
fn nothing_says_what_feeds_what() {
    let dir = folder();
    fold(dir.path(), &[]).is_error(&["net.safetensors", "--graph", "--pairs", "--preset"]);
    assert_eq!(names(dir.path()), ["net.onnx", "net.safetensors"]);
}

#[test]
fn a_preset_is_confirmed_before_anything_is_written() {
    let dir = folder();
    let run = fold(dir.path(), &["--preset", "auto", "--eps", "1e-5"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.contains("layer1.0.conv1"), "{}", run.stdout);
    assert!(run.stderr.contains("--yes"), "{}", run.stderr);
    assert_eq!(names(dir.path()), ["net.onnx", "net.safetensors"]);
    fold(dir.path(), &["--preset", "auto", "--eps", "1e-5", "--yes"]).is_done();
    let with_preset = common::read(dir.path(), "net.folded.safetensors");
    let graph = ["--graph", "net.onnx", "-o", "graph.safetensors"];
    fold(dir.path(), &graph).is_done();
    assert!(with_preset == common::read(dir.path(), "graph.safetensors"));
    fold(dir.path(), &["--preset", "pytorch", "-o", "x.safetensors"])
        .is_error(&["pytorch", "torchvision"]);
}

#[test]
fn a_pairing_is_written_read_and_folds() {
    let dir = folder();
    let run = bnkit(
        dir.path(),
        &[
            "pair",
            "net.safetensors",
            "-o",
            "pairs.yaml",
            "--eps",
            "1e-5",
        ],
    );
    assert!(
        run.is_done().stdout.contains("Wrote pairs.yaml"),
        "{}",
        run.stdout
    );
    fold(dir.path(), &["--pairs", "pairs.yaml"]).is_done();
    // Whoever asks for a proof end to end needs a network.
    let run = fold(
        dir.path(),
        &[
            "--pairs",
            "pairs.yaml",
            "--require",
            "end-to-end",
            "-o",
            "b.safetensors",
        ],
    );
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("without a graph"), "{}", run.stderr);
    let text = fs::read_to_string(dir.path().join("pairs.yaml")).unwrap();
    fs::write(
        dir.path().join("bad.yaml"),
        text.replace("bn: bn1", "bn: bn9"),
    )
    .unwrap();
    fold(dir.path(), &["--pairs", "bad.yaml", "-o", "c.safetensors"])
        .is_error(&["bad.yaml", "bn9"]);
    assert!(!names(dir.path()).contains(&"c.safetensors".to_owned()));
}

#[test]
fn an_epsilon_that_nobody_says_is_asked_for() {
    let dir = folder();
    let pairs = "pairs:\n- {conv: conv1, bn: bn1}\n";
    fs::write(dir.path().join("pairs.yaml"), pairs).unwrap();
    fold(dir.path(), &["--pairs", "pairs.yaml"]).is_error(&["\"bn1\"", "epsilon", "--eps"]);
    fold(dir.path(), &["--pairs", "pairs.yaml", "--eps=-1"]).is_error(&["--eps"]);
    let run = fold(
        dir.path(),
        &["--pairs", "pairs.yaml", "--eps", "1e-5", "--format", "json"],
    );
    let report = run.is_done().json();
    // Every BatchNorm of the checkpoint has a decision.
    assert_eq!(report["sites"].as_array().unwrap().len(), 12);
    assert_eq!(
        (&report["summary"]["folded"], &report["summary"]["kept"]),
        (&1.into(), &11.into())
    );
    assert_eq!(report["sites"][1]["refusal"]["code"], "no-pair");
}

#[test]
fn what_changes_operators_is_refused() {
    let dir = folder();
    for option in [
        "--aggressive",
        "--lower",
        "--merge-branches",
        "--per-channel-scales",
    ] {
        fold(dir.path(), &["--graph", "net.onnx", option]).is_error(&[option, "state dict"]);
    }
    fold(
        dir.path(),
        &["--graph", "net.onnx", "--keep-stats", "s.safetensors"],
    )
    .is_error(&["--keep-stats"]);
    bnkit(dir.path(), &["fold", "net.onnx", "--preset", "auto"])
        .is_error(&["--preset", "net.onnx"]);
    assert_eq!(names(dir.path()), ["net.onnx", "net.safetensors"]);
}

#[test]
fn the_graph_of_another_network_is_an_error() {
    let dir = folder();
    fs::copy(
        common::model("tiny_mobilenet.onnx"),
        dir.path().join("other.onnx"),
    )
    .unwrap();
    let run = fold(dir.path(), &["--graph", "other.onnx"]);
    run.is_error(&["net.safetensors", "another network"]);
}

#[test]
fn an_identity_keeps_every_tensor() {
    let dir = folder();
    fold(dir.path(), &["--graph", "net.onnx", "--identity-bn"]).is_done();
    let run = bnkit(
        dir.path(),
        &[
            "diff",
            "net.safetensors",
            "net.folded.safetensors",
            "--format",
            "json",
        ],
    );
    let report = run.is_done().json();
    assert_eq!(report["summary"]["added"], 0);
    assert_eq!(report["summary"]["removed"], 0);
}

#[test]
fn a_state_dict_is_calibrated_with_its_graph() {
    let dir = folder();
    let data = common::floats(24 * 3 * 32 * 32, 0.5);
    common::npy(&dir.path().join("x.npy"), "<f4", &[24, 3, 32, 32], &data);
    let data = ["--data", "x.npy", "--batch-size", "8"];
    let run = |command: &str, more: &[&str]| {
        bnkit(
            dir.path(),
            &[&[command, "net.safetensors"], &data[..], more].concat(),
        )
    };
    run("recalibrate", &[]).is_error(&["net.safetensors", "--graph"]);
    run("validate", &[]).is_error(&["net.safetensors", "--graph"]);
    run("recalibrate", &["--graph", "net.onnx", "--fold"]).is_error(&["--fold"]);
    run("recalibrate", &["--graph", "net.onnx"]).is_done();
    assert!(names(dir.path()).contains(&"net.recalibrated.safetensors".to_owned()));
    // What was observed is now what is stored.
    let again = bnkit(
        dir.path(),
        &[
            &[
                "validate",
                "net.recalibrated.safetensors",
                "--graph",
                "net.onnx",
            ],
            &data[..],
        ]
        .concat(),
    );
    assert_eq!(again.code, 0, "{}{}", again.stdout, again.stderr);
}
