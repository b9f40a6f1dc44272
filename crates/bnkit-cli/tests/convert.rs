//! `bnkit convert` as a user runs it: exit codes, messages, what is printed.

mod common;

use std::path::{Path, PathBuf};

use common::{bnkit, names};

fn folder_with(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let from: PathBuf = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testdata/convert"
        ))
        .join(file);
        std::fs::copy(from, folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn a_model_becomes_a_state_dict() {
    let folder = folder_with(&["net.onnx"]);
    let run = bnkit(
        folder.path(),
        &["convert", "net.onnx", "-o", "w.safetensors"],
    );
    run.is_done();
    assert!(
        run.stdout.contains("Converted 13 tensors, 682 B"),
        "{}",
        run.stdout
    );
    assert!(
        run.stderr.contains("warning: 2 constants are left out"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout.lines().all(|line| line.chars().count() <= 80),
        "{}",
        run.stdout
    );
    assert_eq!(names(folder.path()), ["net.onnx", "w.safetensors"]);
    let again = bnkit(
        folder.path(),
        &["convert", "net.onnx", "-o", "w.safetensors"],
    );
    again.is_error(&["w.safetensors", "exists already", "--force"]);
}

#[test]
fn weights_go_into_a_model_and_the_report_says_which() {
    let folder = folder_with(&["net.onnx", "other.safetensors"]);
    let args = [
        "convert",
        "--weights",
        "other.safetensors",
        "net.onnx",
        "-o",
        "new.onnx",
    ];
    let run = bnkit(folder.path(), &args);
    run.is_done();
    for part in [
        "onnx::MatMul_9",
        "transposed",
        "aux.weight",
        "Wrote new.onnx",
    ] {
        assert!(
            run.stdout.contains(part),
            "{part:?} is missing in {}",
            run.stdout
        );
    }
    assert!(
        run.stdout.lines().all(|line| line.chars().count() <= 80),
        "{}",
        run.stdout
    );
    let json = bnkit(
        folder.path(),
        &[&args[..], &["--force", "--format", "json"]].concat(),
    )
    .json();
    assert_eq!(json["schema"], "bnkit.convert/1");
    assert_eq!(json["matching"]["counters"][0], "bn.num_batches_tracked");
    assert_eq!(json["output"]["files"][0], "new.onnx");
    assert_eq!(json["weights"]["format"], "safetensors");
    assert!(json["input"]["sha256"].is_string() && json["output"]["sha256"].is_string());
}

#[test]
fn an_overflow_ends_with_1_and_writes_nothing() {
    let folder = folder_with(&["other.safetensors"]);
    // The largest elements of a float32 file, as bits: beyond float16.
    let path = folder.path().join("other.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&1e6f32.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let args = [
        "convert",
        "other.safetensors",
        "--dtype",
        "f16",
        "-o",
        "half.safetensors",
    ];
    let run = bnkit(folder.path(), &args);
    assert_eq!(run.code, 1, "{}{}", run.stdout, run.stderr);
    assert!(
        run.stderr.contains("beyond the range of float16"),
        "{}",
        run.stderr
    );
    assert!(
        run.stdout.contains("Rounding, worst first"),
        "{}",
        run.stdout
    );
    assert_eq!(names(folder.path()), ["other.safetensors"]);
}

#[test]
fn arguments_that_make_no_sense() {
    let folder = folder_with(&["net.onnx", "other.safetensors"]);
    let dir = folder.path();
    let check = |args: &[&str], parts: &[&str]| {
        bnkit(dir, &[&["convert"][..], args].concat()).is_error(parts);
    };
    check(&["net.onnx"], &["-o OUT is missing"]);
    check(
        &["net.onnx", "-o", "w.safetensors", "--keep-statistics"],
        &["--dtype"],
    );
    check(
        &[
            "net.onnx",
            "-o",
            "w.safetensors",
            "--max-shard-size",
            "5 parsecs",
        ],
        &["5 parsecs", "5GiB"],
    );
    check(&["net.onnx", "-o", "w.bin"], &["w.bin", ".safetensors"]);
    check(
        &["other.safetensors", "-o", "new.onnx"],
        &["no graph", "--weights"],
    );
    check(
        &["net.onnx", "--weights", "net.onnx", "-o", "new.onnx"],
        &["net.onnx", "no safetensors file"],
    );
    check(
        &[
            "net.onnx",
            "--weights",
            "other.safetensors",
            "-o",
            "other.safetensors",
            "--force",
        ],
        &["ends in .onnx"],
    );
    check(
        &[
            "net.onnx",
            "--weights",
            "other.safetensors",
            "-o",
            "new.onnx",
            "--stats-only",
        ],
        &["--stats-only", "--weights writes a model"],
    );
    assert_eq!(names(dir), ["net.onnx", "other.safetensors"]);
}
