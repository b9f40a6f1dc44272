//! `recalibrate`, `validate`, `run`, `stats` and `merge` on a small network: exit codes, reports, and the files that are there
//! afterwards.

mod common;

use std::fs;
use std::path::Path;

use common::{BATCHED, bnkit, calibration_folder, folder_with, model, names, read};

fn stats(folder: &Path, model: &str) -> serde_json::Value {
    let run = bnkit(folder, &["stats", model, "--format", "json"]);
    run.is_done().json()["layers"].clone()
}

#[test]
fn drift_is_a_no_and_recalibration_mends_it() {
    let folder = calibration_folder();
    let path = folder.path();
    let run = bnkit(path, &[&["validate", "net.onnx"], &BATCHED[..]].concat());
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stdout.contains("\nDrifted: "), "{}", run.stdout);
    assert!(run.stdout.contains("█"), "{}", run.stdout);
    assert!(
        run.stderr
            .contains("failed: the stored statistics do not describe the data: ")
    );

    let run = bnkit(path, &[&["recalibrate", "net.onnx"], &BATCHED[..]].concat());
    let text = &run.is_done().stdout;
    for part in [
        "net.onnx  opset ",
        "\nRecalibrated all 9 BatchNorms\n",
        "x.npy: 40 samples in 10 batches of 4\n",
        "precise, onnx convention\n",
        "  /layer1/0/bn1 ",
        "\nWrote net.recalibrated.onnx  ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour in a pipe");
    assert_eq!(names(path), ["net.onnx", "net.recalibrated.onnx", "x.npy"]);
    assert_eq!(
        read(path, "net.onnx"),
        fs::read(model("tiny_resnet.onnx")).unwrap()
    );

    let again = ["validate", "net.recalibrated.onnx", "--format", "json"];
    let json = bnkit(path, &[&again[..], &BATCHED].concat())
        .is_done()
        .json();
    assert_eq!(json["schema"], "bnkit.validate/1");
    assert_eq!(
        (&json["valid"], &json["drifted_channels"]),
        (&true.into(), &0.into())
    );
    assert_eq!(json["channels"], 168);
    assert_eq!(json["layers"].as_array().unwrap().len(), 9);
}

#[test]
fn limits_decide() {
    let folder = calibration_folder();
    let wide = [
        "--max-mean-drift",
        "1e9",
        "--max-var-drift",
        "1e9",
        "--max-kl",
        "1e18",
    ];
    let args = [
        &["validate", "net.onnx", "--worst", "3", "--format", "json"],
        &BATCHED[..],
        &wide,
    ]
    .concat();
    let json = bnkit(folder.path(), &args).is_done().json();
    assert_eq!(json["worst"].as_array().unwrap().len(), 3);
    assert_eq!(json["limits"]["max_kl"], 1e18);
}

#[test]
fn the_report_says_what_the_file_has() {
    let folder = calibration_folder();
    let args = [
        "recalibrate",
        "net.onnx",
        "--format",
        "json",
        "--max-batches",
        "2",
    ];
    let json = bnkit(folder.path(), &[&args[..], &BATCHED].concat())
        .is_done()
        .json();
    assert_eq!(json["schema"], "bnkit.recalibrate/1");
    assert_eq!(json["data"]["samples"], 8);
    assert_eq!(json["data"]["batches"], 2);
    assert_eq!(json["summary"]["updated"], 9);
    assert_eq!(json["sampling"]["enough"], serde_json::Value::Null);
    assert_eq!(json["warnings"][0]["code"], "few-samples");
    let layer = &json["layers"][0];
    assert_eq!(layer["outcome"], "updated");
    // 8 samples of 32×32 at the first BatchNorm.
    assert_eq!(layer["elements"], 8 * 32 * 32);
    for (side, name) in [("input", "net.onnx"), ("output", "net.recalibrated.onnx")] {
        assert_eq!(json[side]["path"], name);
        assert_eq!(json[side]["sha256"].as_str().unwrap().len(), 64);
    }
    // What the report says is what the file has.
    let written = stats(folder.path(), "net.recalibrated.onnx");
    for (layer, written) in json["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(written.as_array().unwrap())
    {
        for (said, found) in [
            ("mean_after", "mean_summary"),
            ("variance_after", "variance_summary"),
        ] {
            for end in ["min", "median", "max"] {
                let said = layer["change"][said][end].as_f64().unwrap();
                let found = written[found][end].as_f64().unwrap();
                assert!(
                    (said - found).abs() <= 1e-6 * said.abs().max(1e-2),
                    "{said} {found}"
                );
            }
        }
    }
}

#[test]
fn shards_together_are_the_whole() {
    let folder = calibration_folder();
    let path = folder.path();
    let whole = ["recalibrate", "net.onnx", "-o", "whole.onnx", "--seed", "3"];
    bnkit(path, &[&whole[..], &BATCHED].concat()).is_done();
    for (shard, file) in [("1/3", "a.json"), ("2/3", "b.json"), ("3/3", "c.json")] {
        let args = [
            "recalibrate",
            "net.onnx",
            "--seed",
            "3",
            "--shard",
            shard,
            "--partial",
            file,
        ];
        let run = bnkit(path, &[&args[..], &BATCHED].concat());
        assert!(
            run.is_done().stdout.contains(&format!("Wrote {file}")),
            "{}",
            run.stdout
        );
    }
    let merge = ["merge", "c.json", "a.json", "b.json", "--model", "net.onnx"];
    let run = bnkit(path, &[&merge[..], &["-o", "merged.onnx"]].concat());
    assert!(
        run.is_done().stdout.contains("40 samples, 3 shards"),
        "{}",
        run.stdout
    );
    assert_eq!(read(path, "merged.onnx"), read(path, "whole.onnx"));
    let json = bnkit(path, &[&merge[..], &["--format", "json"]].concat())
        .is_done()
        .json();
    assert_eq!(json["schema"], "bnkit.merge/1");
    assert_eq!(
        (&json["samples"], &json["batches"]),
        (&40.into(), &10.into())
    );
    assert_eq!(json["output"]["path"], "net.recalibrated.onnx");

    fs::remove_file(path.join("net.recalibrated.onnx")).unwrap();
    let before = names(path);
    bnkit(path, &["merge", "a.json", "b.json", "--model", "net.onnx"])
        .is_error(&["missing shards: 3/3"]);
    bnkit(
        path,
        &[
            "merge", "a.json", "a.json", "b.json", "c.json", "--model", "net.onnx",
        ],
    )
    .is_error(&["shard 1/3 is there twice", "a.json"]);
    bnkit(
        path,
        &[
            "merge",
            "a.json",
            "b.json",
            "c.json",
            "--model",
            "whole.onnx",
        ],
    )
    .is_error(&["whole.onnx", "not the model"]);
    bnkit(path, &["merge", "a.json"]).is_error(&["--model MODEL is missing"]);
    let cut = &read(path, "b.json")[..200];
    fs::write(path.join("b.json"), cut).unwrap();
    bnkit(
        path,
        &["merge", "a.json", "b.json", "c.json", "--model", "net.onnx"],
    )
    .is_error(&["b.json"]);
    assert_eq!(names(path), before);
}

#[test]
fn statistics_go_out_and_come_back() {
    let folder = calibration_folder();
    let path = folder.path();
    bnkit(
        path,
        &[
            &["recalibrate", "net.onnx", "-o", "other.onnx"],
            &BATCHED[..],
        ]
        .concat(),
    )
    .is_done();
    assert_ne!(stats(path, "net.onnx"), stats(path, "other.onnx"));
    for (at, file) in ["s.safetensors", "s.npz"].into_iter().enumerate() {
        bnkit(path, &["stats", "net.onnx", "-o", file]).is_done();
        let back = format!("back{at}.onnx");
        let run = bnkit(
            path,
            &["recalibrate", "other.onnx", "--from", file, "-o", &back],
        );
        assert!(
            run.is_done()
                .stdout
                .contains("Recalibrated all 9 BatchNorms")
        );
        assert_eq!(stats(path, &back), stats(path, "net.onnx"));
    }
    bnkit(path, &["stats", "net.onnx", "-o", "s.csv"]).is_done();
    let csv = String::from_utf8(read(path, "s.csv")).unwrap();
    assert_eq!(
        csv.lines().next(),
        Some("node,scope,channel,mean,variance,epsilon")
    );
    assert_eq!(csv.lines().count(), 1 + 168);
    let layers = stats(path, "net.onnx");
    let first: Vec<&str> = csv.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(first[0], format!("{}", layers[0]["node"]));
    assert_eq!(
        first[3].parse::<f64>().unwrap(),
        layers[0]["mean"][0].as_f64().unwrap()
    );
    let text = bnkit(path, &["stats", "net.onnx", "--only", "/layer1/*"]);
    assert!(
        text.is_done()
            .stdout
            .contains("Running statistics of 2 BatchNorms, 16 channels"),
        "{}",
        text.stdout
    );
    bnkit(path, &["stats", "net.onnx", "-o", "s.csv"]).is_error(&["s.csv", "exists already"]);
    bnkit(path, &["stats", "net.onnx", "-o", "s.txt"]).is_error(&["s.txt", ".safetensors"]);
    bnkit(path, &["stats", "net.onnx", "-o", "net.onnx", "--force"])
        .is_error(&["net.onnx", "this is a model"]);
    bnkit(path, &["recalibrate", "net.onnx", "--from", "x.npy"])
        .is_error(&["x.npy", "no statistics of this model"]);
}

#[test]
fn a_fold_may_follow() {
    let folder = calibration_folder();
    let path = folder.path();
    let args = [
        "recalibrate",
        "net.onnx",
        "--fold",
        "--require",
        "end-to-end",
        "--require-all-folded",
    ];
    let run = bnkit(path, &[&args[..], &BATCHED].concat());
    for part in [
        "Folded all 9 BatchNorms\n",
        "\nEquivalent: ",
        "Wrote net.recalibrated.folded.onnx",
    ] {
        assert!(run.is_done().stdout.contains(part), "{}", run.stdout);
    }
    assert_eq!(
        names(path),
        ["net.onnx", "net.recalibrated.folded.onnx", "x.npy"]
    );
    bnkit(path, &[&["recalibrate", "net.onnx"], &BATCHED[..]].concat()).is_done();
    let pair = ["net.recalibrated.onnx", "net.recalibrated.folded.onnx"];
    bnkit(path, &[&["verify"], &pair[..]].concat()).is_done();
    // A proof that cannot pass writes nothing.
    let strict = ["--fold", "--atol", "0", "--rtol", "0", "-o", "no.onnx"];
    let run = bnkit(
        path,
        &[&["recalibrate", "net.onnx"], &strict[..], &BATCHED].concat(),
    );
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(
        run.stderr.contains("failed: ") && run.stdout.contains("Nothing was written."),
        "{}",
        run.stdout
    );
    assert!(!path.join("no.onnx").exists());
}

#[test]
fn run_shows_how_far_the_modes_are_apart() {
    let folder = calibration_folder();
    let path = folder.path();
    let run = bnkit(
        path,
        &[&["run", "net.onnx", "-o", "y.npz"], &BATCHED[..]].concat(),
    );
    for part in [
        "Ran in train and in eval mode",
        "Train mode against eval mode",
        "\nWrote y.npz\n",
        "The modes differ:",
    ] {
        assert!(
            run.is_done().stdout.contains(part),
            "{part:?} is missing in\n{}",
            run.stdout
        );
    }
    let archive = String::from_utf8_lossy(&read(path, "y.npz")).into_owned();
    assert!(archive.contains("train__logits.npy") && archive.contains("eval__logits.npy"));
    let one = ["run", "net.onnx", "--mode", "eval", "--format", "json"];
    let json = bnkit(path, &[&one[..], &BATCHED].concat()).is_done().json();
    assert_eq!(json["schema"], "bnkit.run/1");
    assert_eq!(json["outputs"].as_array().unwrap().len(), 1);
    assert_eq!(json["outputs"][0]["dims"], serde_json::json!([40, 10]));
    assert_eq!(json.get("distances"), None);
    let fitting = path.join("calibration.npz");
    fs::copy(model("calibration.npz"), &fitting).unwrap();
    let run = bnkit(
        path,
        &[
            "run",
            "net.onnx",
            "--data",
            "calibration.npz",
            "--batch-size",
            "8",
        ],
    );
    assert!(
        run.is_done().stdout.contains("The modes agree:"),
        "{}",
        run.stdout
    );
}

#[test]
fn eval_outputs_are_those_of_onnx_runtime() {
    let folder = folder_with("tiny_resnet.onnx");
    let path = folder.path();
    fs::copy(model("tiny_resnet.npz"), path.join("io.npz")).unwrap();
    let run = [
        "run", "net.onnx", "--data", "io.npz", "--mode", "eval", "--format", "json",
    ];
    let json = bnkit(path, &run).is_done().json();
    // `out__logits` of the file: its mean, as the oracle wrote it.
    let mean = json["outputs"][0]["mean"].as_f64().unwrap();
    assert!((mean - -0.005_166_754).abs() < 1e-6, "{mean}");
}
