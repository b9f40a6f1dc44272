//! The calibration commands in every form of result, and with their options from a file.

mod common;

use std::fs;
use std::path::Path;

use common::{BATCHED, bnkit, calibration_folder, folder_with, read};

#[test]
fn every_form_is_there() {
    let folder = calibration_folder();
    let path = folder.path();
    for (args, schema) in [
        (
            &["recalibrate", "net.onnx", "--force"][..],
            "bnkit.recalibrate/1",
        ),
        (
            &[
                "validate",
                "net.onnx",
                "--max-kl",
                "1e9",
                "--max-mean-drift",
                "1e9",
                "--max-var-drift",
                "1e9",
            ],
            "bnkit.validate/1",
        ),
        (&["run", "net.onnx"], "bnkit.run/1"),
    ] {
        let args = [args, &BATCHED, &["--max-batches", "2"]].concat();
        let run = bnkit(
            path,
            &[
                &args[..],
                &["--format", "yaml", "--report", "r.md", "--report", "r.json"],
            ]
            .concat(),
        );
        assert!(
            run.is_done()
                .stdout
                .starts_with(&format!("schema: {schema}\n")),
            "{}",
            run.stdout
        );
        let page = String::from_utf8(read(path, "r.md")).unwrap();
        assert!(
            page.starts_with("# ") && page.contains("| `net.onnx` |"),
            "{page}"
        );
        assert!(page.contains("/layer1/0/bn1/BatchNormalization"), "{page}");
        let json: serde_json::Value = serde_json::from_slice(&read(path, "r.json")).unwrap();
        assert_eq!(json["schema"], schema);
        let run = bnkit(path, &[&args[..], &["--format", "github"]].concat());
        assert!(
            run.is_done()
                .stdout
                .lines()
                .all(|line| line.starts_with("::")),
            "{}",
            run.stdout
        );
        let run = bnkit(path, &[&args[..], &["--quiet"]].concat());
        assert_eq!(run.is_done().stdout, "");
    }
    let run = bnkit(path, &["stats", "net.onnx", "--format", "yaml"]);
    assert!(run.is_done().stdout.starts_with("schema: bnkit.stats/1\n"));
}

#[test]
fn options_and_preprocessing_can_come_from_a_file() {
    let folder = folder_with("tiny_resnet.onnx");
    let path = folder.path();
    fs::create_dir(path.join("photos")).unwrap();
    for number in 0..6u8 {
        let pixel = |x, y| image::Rgb([x as u8 * 9, y as u8 * 7, number * 40]);
        let photo = image::RgbImage::from_fn(20 + u32::from(number), 24, pixel);
        photo
            .save(path.join(format!("photos/{number}.png")))
            .unwrap();
    }
    let resize = "{shorter: 36}, crop: [32, 32], mean: [0.5], std: [0.5]";
    for yaml in [
        format!(
            "preprocess: {{resize: {resize}}}\nrecalibrate:\n  data: photos\n  batch-size: 2\n"
        ),
        format!(
            "recalibrate:\n  data: photos\n  batch-size: 2\n  preprocess: {{resize: {resize}}}\n"
        ),
    ] {
        fs::write(path.join("c.yaml"), yaml).unwrap();
        let run = bnkit(
            path,
            &["recalibrate", "net.onnx", "--config", "c.yaml", "--force"],
        );
        assert!(
            run.is_done()
                .stdout
                .contains("photos: 6 samples in 3 batches of 2"),
            "{}",
            run.stdout
        );
    }
    let bytes = read(path, "net.recalibrated.onnx");
    fs::write(
        path.join("p.yaml"),
        format!(
            "resize: {{shorter: 36}}\n{}",
            "crop: [32, 32]\nmean: [0.5]\nstd: [0.5]\n"
        ),
    )
    .unwrap();
    let args = [
        "recalibrate",
        "net.onnx",
        "--data",
        "photos",
        "--batch-size",
        "2",
        "--preprocess",
        "p.yaml",
        "--force",
    ];
    bnkit(path, &args).is_done();
    assert_eq!(read(path, "net.recalibrated.onnx"), bytes);
    fs::write(
        path.join("c.yaml"),
        "fold:\n  samples: 1\npreprocess: {colour: grey}\n",
    )
    .unwrap();
    for command in ["recalibrate", "inspect"] {
        bnkit(path, &[command, "net.onnx", "--config", "c.yaml"]).is_error(&[
            "c.yaml:3:1: section \"preprocess\": ",
            "unknown field `colour`",
        ]);
    }
    fs::write(path.join("photos/3.png"), "no image").unwrap();
    let args = [
        "recalibrate",
        "net.onnx",
        "--data",
        "photos",
        "--preprocess",
        "p.yaml",
        "-o",
        "x.onnx",
    ];
    bnkit(path, &args).is_error(&["photos/3.png", "image"]);
    assert!(!path.join("x.onnx").exists());
}

#[test]
fn what_a_warning_means_can_be_asked() {
    for code in [
        "called-several-times",
        "few-samples",
        "fixed-batch",
        "interrupted-shard",
        "never-ran",
        "no-statistics-in-file",
        "not-settled",
        "still-training",
    ] {
        let run = bnkit(Path::new("."), &["explain", code]);
        assert!(
            run.is_done()
                .stdout
                .starts_with(&format!("{code}  (warning)\n")),
            "{}",
            run.stdout
        );
    }
}
