//! Whole commands on a small network: exit code, stdout, stderr, and the files that are there afterwards.

mod common;

use std::fs;

use common::{bnkit, folder_with, model, names};

const NET: &str = "tiny_resnet.onnx";

#[test]
fn fold_writes_a_proved_model_beside_the_input() {
    let folder = folder_with(NET);
    let run = bnkit(folder.path(), &["fold", "net.onnx"]);
    let text = &run.is_done().stdout;
    for part in [
        "net.onnx  opset ",
        "\nFolded all ",
        "into-conv",
        "\nEquivalent: ",
        "\nWrote net.folded.onnx  ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert_eq!(names(folder.path()), ["net.folded.onnx", "net.onnx"]);
    assert_eq!(
        fs::read(folder.path().join("net.onnx")).unwrap(),
        fs::read(model(NET)).unwrap()
    );
}

#[test]
fn json_keeps_the_contract() {
    let folder = folder_with(NET);
    let json = bnkit(
        folder.path(),
        &["fold", "net.onnx", "--format", "json", "--report", "r.json"],
    )
    .is_done()
    .json();
    assert_eq!(json["schema"], "bnkit.fold/1");
    assert_eq!(json["tool"]["name"], "bnkit");
    let all = json["summary"]["batch_norms"].as_u64().unwrap();
    assert!(all > 0);
    assert_eq!(json["summary"]["folded"], all);
    assert_eq!(json["sites"].as_array().unwrap().len() as u64, all);
    assert_eq!(json["sites"][0]["decision"], "folded");
    assert_eq!(json["verification"]["verdict"], "equivalent");
    assert_eq!(json["verification"]["algebra"]["checked"], all);
    for (side, name) in [("input", "net.onnx"), ("output", "net.folded.onnx")] {
        assert_eq!(json[side]["path"], name);
        assert_eq!(json[side]["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(
            json[side]["bytes"],
            fs::metadata(folder.path().join(name)).unwrap().len()
        );
    }
    let report = fs::read(folder.path().join("r.json")).unwrap();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&report).unwrap(),
        json
    );
}

#[test]
fn a_dry_run_writes_nothing() {
    let folder = folder_with(NET);
    let run = bnkit(folder.path(), &["fold", "net.onnx", "--dry-run"]);
    assert!(
        run.is_done()
            .stdout
            .ends_with("\nDry run: nothing was written.\n"),
        "{}",
        run.stdout
    );
    assert_eq!(names(folder.path()), ["net.onnx"]);
}

#[test]
fn quiet_is_quiet() {
    let folder = folder_with(NET);
    let run = bnkit(folder.path(), &["fold", "net.onnx", "--quiet"]);
    assert_eq!(
        (run.is_done().stdout.as_str(), run.stderr.as_str()),
        ("", "")
    );
    assert_eq!(names(folder.path()), ["net.folded.onnx", "net.onnx"]);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = folder_with(NET);
    for (threads, output) in [("1", "a.onnx"), ("2", "b.onnx")] {
        bnkit(
            folder.path(),
            &[
                "fold",
                "net.onnx",
                "--no-verify",
                "--threads",
                threads,
                "-o",
                output,
            ],
        )
        .is_done();
    }
    let bytes = |name| fs::read(folder.path().join(name)).unwrap();
    assert_eq!(bytes("a.onnx"), bytes("b.onnx"));
}

#[test]
fn force_replaces_even_the_input() {
    let folder = folder_with(NET);
    bnkit(
        folder.path(),
        &["fold", "net.onnx", "-o", "net.onnx", "--force"],
    )
    .is_done();
    assert_eq!(names(folder.path()), ["net.onnx"]);
    let again = bnkit(folder.path(), &["fold", "net.onnx"]);
    assert!(
        again
            .is_done()
            .stdout
            .contains("\nNo BatchNorm: nothing to fold\n"),
        "{}",
        again.stdout
    );
    assert!(
        again
            .stdout
            .contains("Exporting so that BatchNorm survives"),
        "{}",
        again.stdout
    );
}

#[test]
fn what_is_skipped_stays_and_is_no_failure() {
    let folder = folder_with(NET);
    let args = [
        "fold",
        "net.onnx",
        "--skip",
        "*",
        "--require-all-folded",
        "--format",
        "json",
    ];
    let json = bnkit(folder.path(), &args).is_done().json();
    assert_eq!(json["summary"]["folded"], 0);
    assert_eq!(json["summary"]["skipped"], json["summary"]["batch_norms"]);
}

#[test]
fn a_missed_tolerance_is_a_no_and_writes_nothing() {
    let folder = folder_with(NET);
    let run = bnkit(
        folder.path(),
        &["fold", "net.onnx", "--atol", "0", "--report", "r.md"],
    );
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("\nNot equivalent: "), "{}", run.stdout);
    assert!(
        run.stdout.ends_with("\nNothing was written.\n"),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr.starts_with("failed: ") && run.stderr.lines().count() == 1,
        "{}",
        run.stderr
    );
    assert_eq!(names(folder.path()), ["net.onnx", "r.md"]);
}

#[test]
fn options_can_come_from_a_file() {
    let folder = folder_with(NET);
    fs::write(
        folder.path().join("c.yaml"),
        "fold:\n  output: other.onnx\n  no-verify: true\n  format: json\n",
    )
    .unwrap();
    let json = bnkit(folder.path(), &["fold", "net.onnx", "--config", "c.yaml"])
        .is_done()
        .json();
    assert_eq!(json["verification"]["verdict"], "skipped");
    assert_eq!(json["output"]["path"], "other.onnx");
    let args = [
        "fold",
        "net.onnx",
        "--config",
        "c.yaml",
        "--output",
        "mine.onnx",
        "--format",
        "text",
    ];
    assert!(
        bnkit(folder.path(), &args)
            .is_done()
            .stdout
            .contains("\nWrote mine.onnx ")
    );
    assert_eq!(
        names(folder.path()),
        ["c.yaml", "mine.onnx", "net.onnx", "other.onnx"]
    );
}

#[test]
fn a_broken_model_is_an_error_and_leaves_nothing() {
    let folder = folder_with(NET);
    let path = folder.path().join("net.onnx");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    for args in [
        &["fold", "net.onnx"][..],
        &["inspect", "net.onnx"],
        &["verify", "net.onnx", "net.onnx"],
    ] {
        bnkit(folder.path(), args).is_error(&["net.onnx"]);
    }
    assert_eq!(names(folder.path()), ["net.onnx"]);
}

#[test]
fn inspect_shows_every_batch_norm() {
    let folder = folder_with(NET);
    let text = bnkit(folder.path(), &["inspect", "net.onnx"]);
    for part in ["\nInputs\n", "\nOutputs\n", " BatchNorms, ", "into-conv "] {
        assert!(
            text.is_done().stdout.contains(part),
            "{part:?} is missing in\n{}",
            text.stdout
        );
    }
    let json = bnkit(folder.path(), &["inspect", "net.onnx", "--format", "json"])
        .is_done()
        .json();
    assert_eq!(json["schema"], "bnkit.inspect/1");
    let norms = json["batch_norms"].as_array().unwrap();
    assert!(!norms.is_empty());
    let roles: Vec<_> = norms[0]["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["role"].clone())
        .collect();
    assert_eq!(roles, ["scale", "bias", "mean", "variance"]);
    let only = bnkit(folder.path(), &["inspect", "net.onnx", "--batch-norms"]);
    assert!(!only.is_done().stdout.contains("Inputs"), "{}", only.stdout);
    assert_eq!(names(folder.path()), ["net.onnx"]);
}

#[test]
fn verify_says_yes_and_no() {
    let folder = folder_with(NET);
    bnkit(folder.path(), &["fold", "net.onnx", "--quiet"]).is_done();
    let same = bnkit(folder.path(), &["verify", "net.onnx", "net.folded.onnx"]);
    assert!(
        same.is_done().stdout.contains("\nEquivalent: "),
        "{}",
        same.stdout
    );
    let other = model("tiny_mobilenet.onnx");
    let run = bnkit(
        folder.path(),
        &[
            "verify",
            "net.onnx",
            other.to_str().unwrap(),
            "--format",
            "json",
        ],
    );
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    assert_eq!(run.json()["schema"], "bnkit.verify/1");
    assert_eq!(run.json()["verification"]["verdict"], "not-equivalent");
    assert!(run.stderr.starts_with("failed: "), "{}", run.stderr);
}

#[test]
fn what_is_folded_can_be_unfolded() {
    let folder = folder_with(NET);
    let keep = ["fold", "net.onnx", "--keep-stats", "kept.safetensors"];
    let json = bnkit(folder.path(), &[&keep[..], &["--format", "json"]].concat())
        .is_done()
        .json();
    let all = json["summary"]["batch_norms"].as_u64().unwrap();
    assert_eq!(json["kept_stats"], "kept.safetensors");
    let back = [
        "unfold",
        "net.folded.onnx",
        "--stats",
        "kept.safetensors",
        "-o",
        "back.onnx",
    ];
    let json = bnkit(folder.path(), &[&back[..], &["--format", "json"]].concat())
        .is_done()
        .json();
    assert_eq!(json["schema"], "bnkit.unfolded/1");
    assert_eq!(json["batch_norms"].as_array().unwrap().len() as u64, all);
    assert_eq!(json["verification"]["verdict"], "equivalent");
    // It is what it was, and what it was folded into.
    bnkit(folder.path(), &["verify", "net.onnx", "back.onnx"]).is_done();
    let run = bnkit(folder.path(), &["inspect", "back.onnx"]);
    assert!(run.is_done().stdout.contains("BatchNorm"), "{}", run.stdout);
    let run = bnkit(folder.path(), &[&back[..], &["--force"]].concat());
    let headline = format!("Brought back {all} BatchNorms");
    assert!(
        run.is_done().stdout.starts_with(&headline),
        "{}",
        run.stdout
    );
    // Neither the original nor the unfolded model is the folded one.
    for other in ["net.onnx", "back.onnx"] {
        let mut again = back;
        (again[1], again[5]) = (other, "other.onnx");
        let run = bnkit(folder.path(), &again);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains("node \""), "{}", run.stderr);
        assert!(!folder.path().join("other.onnx").exists());
    }
}
