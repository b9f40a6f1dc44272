//! `bnkit release`: the stages together do what their commands do alone, and nothing is written unless all pass.

mod common;

use std::path::Path;
use std::process::Command;

use common::{bnkit, calibration_folder, folder_with, names, npy, read};

/// A policy under which the network of the folder passes.
const POLICY: &str = "\
validate: {batch-size: 4, max-mean-drift: 100, max-var-drift: 100, max-kl: 1000}
recalibrate: {batch-size: 4}
release: {data: x.npy, min-folded: 100%}
";

fn policy(folder: &Path, text: &str) {
    std::fs::write(folder.join("bnkit.yaml"), text).unwrap();
}

fn stages(report: &serde_json::Value) -> Vec<(String, String)> {
    let stages = report["stages"].as_array().unwrap().iter();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    stages
        .map(|stage| (text(&stage["name"]), text(&stage["status"])))
        .collect()
}

fn status(report: &serde_json::Value) -> String {
    let of = |(name, status): &(String, String)| format!("{name} {status}");
    let all: Vec<String> = stages(report).iter().map(of).collect();
    all.join(", ")
}

#[test]
fn the_output_is_that_of_the_commands_one_after_the_other() {
    let folder = calibration_folder();
    let folder = folder.path();
    policy(folder, POLICY);
    let run = |args: &[&str]| bnkit(folder, args);
    let config = ["--config", "bnkit.yaml"];
    let release = ["release", "net.onnx", "--format", "json", "-o"];

    let report = run(&[&release[..], &["a.onnx"], &config].concat());
    report.is_done();
    let report = report.json();
    assert_eq!(
        status(&report),
        "check passed, validate passed, fold passed, verify passed, accuracy skipped"
    );
    run(&["fold", "net.onnx", "--data", "x.npy", "-o", "b.onnx"]).is_done();
    assert!(read(folder, "a.onnx") == read(folder, "b.onnx"));

    let how = ["c.onnx", "--calibration", "recalibrate"];
    let report = run(&[&release[..], &how, &config].concat());
    report.is_done();
    assert_eq!(
        status(&report.json()),
        "check passed, recalibrate passed, fold passed, verify passed, accuracy skipped"
    );
    run(&[
        "recalibrate",
        "net.onnx",
        "--data",
        "x.npy",
        "--batch-size",
        "4",
    ])
    .is_done();
    run(&["fold", "net.recalibrated.onnx", "-o", "d.onnx"]).is_done();
    assert!(read(folder, "c.onnx") == read(folder, "d.onnx"));
    assert!(read(folder, "a.onnx") != read(folder, "c.onnx"));
    let expected = [
        "a.onnx",
        "b.onnx",
        "bnkit.yaml",
        "c.onnx",
        "d.onnx",
        "net.onnx",
        "net.recalibrated.onnx",
        "x.npy",
    ];
    assert_eq!(names(folder), expected);
}

#[test]
fn all_stages_that_fail_are_told_with_commands_that_say_the_same() {
    let folder = calibration_folder();
    let folder = folder.path();
    policy(
        folder,
        "check: {deny: [not-folded]}\nfold: {skip: [\"/bn1/*\"]}\nrelease:\n  data: x.npy\n  min-folded: 0.5\nvalidate: {batch-size: 4}\n",
    );
    std::fs::write(folder.join("out.onnx"), "old").unwrap();
    let args = [
        "release",
        "net.onnx",
        "--config",
        "bnkit.yaml",
        "-o",
        "out.onnx",
        "--force",
        "--format",
        "json",
        "--report",
        "r.xml",
        "--report",
        "r.md",
        "--report",
        "r.html",
        "--report",
        "r.sarif",
    ];
    let run = bnkit(folder, &args);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let report = run.json();
    assert_eq!(
        status(&report),
        "check passed, validate failed, fold passed, verify passed, accuracy skipped"
    );
    assert_eq!(read(folder, "out.onnx"), b"old");
    assert!(names(folder).iter().all(|name| !name.starts_with(".bnkit")));
    let failed = &report["stages"][1];
    let command = failed["command"].as_str().unwrap();
    assert_eq!(
        command,
        "bnkit validate net.onnx --config bnkit.yaml --data x.npy"
    );
    let bin = Path::new(env!("CARGO_BIN_EXE_bnkit")).parent().unwrap();
    let alone = Command::new("/bin/sh")
        .args(["-c", &format!("{command} --format json")])
        .env("PATH", bin)
        .current_dir(folder)
        .output()
        .unwrap();
    assert_eq!(alone.status.code(), Some(1));
    let alone: serde_json::Value = serde_json::from_slice(&alone.stdout).unwrap();
    assert_eq!(alone["failure"], failed["failure"]);
    assert_eq!(alone["layers"], failed["report"]["layers"]);
    for name in ["r.xml", "r.md", "r.html"] {
        let text = String::from_utf8(read(folder, name)).unwrap();
        assert!(text.contains(command), "{name}: {text}");
    }
}

#[test]
fn gates_of_fold_rate_and_proof_are_stages_that_fail() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/golden/shared_output.onnx"
    );
    std::fs::copy(golden, folder.join("net.onnx")).unwrap();
    policy(folder, "release: {min-folded: 1.0}\n");
    let args = [
        "release",
        "net.onnx",
        "--config",
        "bnkit.yaml",
        "--format",
        "json",
    ];
    let run = bnkit(folder, &args);
    assert_eq!(run.code, 1);
    assert_eq!(
        status(&run.json()),
        "check passed, validate skipped, fold failed, verify passed, accuracy skipped"
    );
    assert!(
        run.stderr
            .contains("0.0 % of the BatchNorms fold, and 100.0 % are required")
    );
    policy(folder, "fold: {no-verify: true}\n");
    let run = bnkit(folder, &args);
    assert_eq!(
        status(&run.is_done().json()),
        "check passed, validate skipped, fold passed, verify skipped, accuracy skipped"
    );
}

#[test]
fn accuracy_is_measured_at_every_stage() {
    let folder = calibration_folder();
    let folder = folder.path();
    let labels: Vec<u8> = (0..40i64).flat_map(|at| (at % 2).to_le_bytes()).collect();
    npy(&folder.join("y.npy"), "<i8", &[40], &labels);
    policy(folder, POLICY);
    let args = [
        "release",
        "net.onnx",
        "--config",
        "bnkit.yaml",
        "--calibration",
        "recalibrate",
        "--format",
        "json",
        "--labels",
        "y.npy",
        "--max-accuracy-drop",
        "100%",
    ];
    let run = bnkit(folder, &args);
    let report = run.is_done().json();
    let accuracy = &report["stages"][4]["report"]["stages"];
    let names: Vec<&str> = accuracy
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["stage"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["stored", "recalibrated", "folded"]);
    for stage in accuracy.as_array().unwrap() {
        assert_eq!(stage["samples"], 40);
        let alone = |model: &str| {
            let args = [
                "run", model, "--mode", "eval", "--data", "x.npy", "--labels", "y.npy", "--format",
                "json",
            ];
            bnkit(folder, &args).is_done().json()["accuracy"][0]["top1"].clone()
        };
        match stage["stage"].as_str() {
            Some("stored") => assert_eq!(stage["top1"], alone("net.onnx")),
            Some("folded") => assert_eq!(stage["top1"], alone("net.release.onnx")),
            _ => {}
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() {
    let folder = folder_with("tiny_resnet.onnx");
    let folder = folder.path();
    for (text, parts) in [
        (
            "fold: {dry-run: true}\n",
            &["dry-run and keep-stats have no place"][..],
        ),
        (
            "recalibrate: {fold: true}\nrelease: {calibration: recalibrate}\n",
            &["have no place in a release"],
        ),
        (
            "release: {calibration: validate}\n",
            &["stage validate", "--data PATH is missing"],
        ),
        (
            "release: {max-accuracy-drop: 0.1}\n",
            &["--max-accuracy-drop needs --labels"],
        ),
        ("release: {labels: y.npy}\n", &["--labels"]),
        (
            "release: {data: absent.npy}\n",
            &["stage validate", "absent.npy"],
        ),
        (
            "release:\n  min-foldd: 1\n",
            &["bnkit.yaml:2:3", "did you mean \"min-folded\"?"],
        ),
        (
            "release: {min-folded: 2}\n",
            &["bnkit.yaml:1:11", "a share from 0 to 1"],
        ),
    ] {
        policy(folder, text);
        let run = bnkit(folder, &["release", "net.onnx", "--config", "bnkit.yaml"]);
        run.is_error(parts);
        assert_eq!(names(folder), ["bnkit.yaml", "net.onnx"]);
    }
}
