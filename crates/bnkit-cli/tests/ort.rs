//! The feature `ort`: level 3 on ONNX Runtime for models that tract cannot run. Without a library (`ORT_DYLIB_PATH`), the tests of
//! what it computes say so and end.
#![cfg(feature = "ort")]
// What was skipped is for the reader of the test's output.
#![allow(clippy::print_stderr)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use bnkit_model::DType;
use bnkit_model::onnx::{Dim, TensorType};
use bnkit_model::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use common::{Run, command, names};
use prost::Message;
use tempfile::TempDir;

fn noise(count: usize, of: f64) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * i) as f64 * of + 1.0).sin() as f32)
        .collect()
}

fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto::floats(name, dims, values.iter().copied())
}

/// A value whose negative dimensions are unknown.
fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |&size: &i64| u64::try_from(size).map_or(Dim::Unknown, Dim::Known);
    let declared = TensorType {
        dtype: DType::F32,
        dims: Some(dims.iter().map(dim).collect()),
    };
    ValueInfoProto::tensor(name, &declared)
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto::of(op, inputs.iter().copied(), [output]).named(format!("/{output}/{op}"))
}

/// Conv, BatchNorm (of this β) and an operator that tract refuses, on an image of a size that the file does not say.
fn network(beta: f32) -> Vec<u8> {
    let graph = GraphProto {
        name: Some("net".to_owned()),
        input: vec![value("x", &[1, 3, -1, -1])],
        output: vec![value("y", &[1, 4, 1, 1])],
        node: vec![
            node("Conv", &["x", "w"], "c"),
            node("BatchNormalization", &["c", "s", "b", "m", "v"], "n"),
            node("Relu", &["n"], "r"),
            node("GlobalLpPool", &["r"], "y"),
        ],
        initializer: vec![
            tensor("w", &[4, 3, 3, 3], &noise(108, 0.7)),
            tensor("s", &[4], &[1.3, 0.7, -0.4, 2.0]),
            tensor("b", &[4], &[beta, 0.5, 0.1, 0.0]),
            tensor("m", &[4], &[0.1, -0.2, 0.0, 0.3]),
            tensor("v", &[4], &[0.9, 2.0, 1.0, 0.5]),
        ],
        ..Default::default()
    };
    ModelProto::of(graph, 17).encode_to_vec()
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("net.onnx"), network(0.25)).unwrap();
    fs::write(folder.path().join("damaged.onnx"), network(0.2501)).unwrap();
    folder
}

fn run(folder: &TempDir, args: &[&str], library: Option<&OsStr>) -> Run {
    let mut command = command();
    match library {
        Some(library) => command.env("ORT_DYLIB_PATH", library),
        None => command.env_remove("ORT_DYLIB_PATH"),
    };
    let output = command.current_dir(folder.path()).args(args).output();
    Run::from(output.expect("the command starts"))
}

/// The `verification` of a report, and the exit code.
fn verification(run: &Run, code: i32) -> serde_json::Value {
    assert_eq!(run.code, code, "{}{}", run.stdout, run.stderr);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    report["verification"].clone()
}

fn library() -> Option<std::ffi::OsString> {
    let library = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty());
    if library.is_none() {
        eprintln!("skipped: ORT_DYLIB_PATH names no library of ONNX Runtime");
    }
    library
}

const FOLD: [&str; 6] = ["fold", "net.onnx", "-o", "out.onnx", "--format", "json"];

#[test]
fn without_a_library_all_is_as_ever_and_one_note_says_what_to_set() {
    let folder = folder();
    let proof = verification(&run(&folder, &FOLD, None), 0);
    assert_eq!(proof["verdict"], "equivalent-local");
    assert_eq!(proof["engine"], "tract");
    assert_eq!(proof["outputs"], serde_json::json!([]));
    let notes = proof["notes"].as_array().unwrap();
    let says = |note: &&serde_json::Value| note.as_str().unwrap().contains("ORT_DYLIB_PATH");
    assert_eq!(notes.iter().filter(says).count(), 1, "{notes:?}");
    run(&folder, &["verify", "net.onnx", "out.onnx"], None)
        .is_error(&["GlobalLpPool", "ORT_DYLIB_PATH"]);
}

#[test]
fn a_file_that_is_no_library_is_an_error_that_names_the_variable() {
    let folder = folder();
    let before = names(folder.path());
    for library in ["net.onnx", "absent.so"] {
        let library = folder.path().join(library);
        let name = library.to_str().unwrap();
        for args in [&FOLD[..], &["verify", "net.onnx", "damaged.onnx"]] {
            run(&folder, args, Some(library.as_os_str())).is_error(&["ORT_DYLIB_PATH", name]);
        }
    }
    assert_eq!(names(folder.path()), before, "nothing was written");
}

#[test]
fn a_fold_is_compared_as_it_is_shipped() {
    let Some(library) = library() else { return };
    let folder = folder();
    let found = run(&folder, &FOLD, Some(&library));
    assert_eq!(found.stderr, "", "the library says nothing by itself");
    let proof = verification(&found, 0);
    assert_eq!(proof["verdict"], "equivalent-local");
    let engine = proof["engine"].as_str().unwrap();
    assert!(engine.starts_with("onnxruntime 1."), "{engine}");
    assert!(proof["f64"].is_null());
    assert_eq!(proof["algebra"]["checked"], 1);
    assert_eq!(proof["samples"], 4);
    let y = &proof["outputs"][0];
    assert_eq!((&y["name"], &y["within"]), (&"y".into(), &true.into()));
    let number = |field: &str| y[field].as_f64().unwrap();
    assert!(number("max_rel") < 1e-6, "{y}");
    assert!(
        (number("tolerance") - 8.0 * number("noise_floor")).abs() < 1e-12,
        "{y}"
    );

    let demand = [&FOLD[..], &["--force", "--require", "end-to-end"]].concat();
    assert_eq!(run(&folder, &demand, Some(&library)).code, 1);
}

#[test]
fn two_models_are_told_apart_and_the_same_each_time() {
    let Some(library) = library() else { return };
    let folder = folder();
    verification(&run(&folder, &FOLD, Some(&library)), 0);
    let verify = |b: &str, code: i32| {
        let args = ["verify", "net.onnx", b, "--format", "json"];
        let found = run(&folder, &args, Some(&library));
        (verification(&found, code), found)
    };
    let (proof, found) = verify("out.onnx", 0);
    assert_eq!(proof["verdict"], "equivalent-local");
    assert!(proof["f64"].is_null());
    assert_eq!(verify("out.onnx", 0).1.stdout, found.stdout);

    // β is 1e-4 off in one channel.
    let (proof, found) = verify("damaged.onnx", 1);
    assert_eq!(proof["verdict"], "not-equivalent");
    assert_eq!(proof["outputs"][0]["within"], false);
    assert!(
        found.stderr.contains("output \"y\" differs"),
        "{}",
        found.stderr
    );
    let loose = ["verify", "net.onnx", "damaged.onnx", "--rtol", "1e-2"];
    assert_eq!(run(&folder, &loose, Some(&library)).code, 0);
}

#[test]
fn external_data_is_read_by_us_and_stays_inside_the_folder() {
    let Some(library) = library() else { return };
    let folder = folder();
    let external = |location: &str| {
        let mut model = ModelProto::decode(&network(0.25)[..]).unwrap();
        let weight = &mut model.graph.as_mut().unwrap().initializer[0];
        let bytes = weight.raw_data.take().unwrap();
        weight.data_location = Some(1);
        weight.external_data = vec![bnkit_model::proto::StringStringEntryProto {
            key: Some("location".to_owned()),
            value: Some(location.to_owned()),
        }];
        fs::write(folder.path().join("weights.bin"), bytes).unwrap();
        fs::write(folder.path().join("external.onnx"), model.encode_to_vec()).unwrap();
    };
    external("weights.bin");
    let args = ["verify", "external.onnx", "net.onnx", "--format", "json"];
    let proof = verification(&run(&folder, &args, Some(&library)), 0);
    assert_eq!(proof["outputs"][0]["max_abs"], 0.0);
    let inside = folder.path().file_name().unwrap();
    external(
        Path::new("..")
            .join(inside)
            .join("weights.bin")
            .to_str()
            .unwrap(),
    );
    assert_eq!(run(&folder, &args, Some(&library)).code, 2);
}
