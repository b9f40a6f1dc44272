//! Data and options that `recalibrate`, `validate` and `run` cannot work with: exit code 2, one message that names what is wrong, no
//! output, nothing left behind.

mod common;

use std::fs;

use bnkit_model::DType;
use bnkit_model::onnx::TensorType;
use bnkit_model::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use common::{bnkit, floats, folder_with, names, npy};
use prost::Message;
use tempfile::TempDir;

/// The network as `net.onnx`, 8 good samples as `x.npy`.
fn folder() -> TempDir {
    let folder = folder_with("tiny_resnet.onnx");
    npy(
        &folder.path().join("x.npy"),
        "<f4",
        &[8, 3, 32, 32],
        &floats(8 * 3 * 1024, 0.0),
    );
    folder
}

/// Each of the commands that run data fails with each of `parts`, and leaves an existing output alone.
fn fails(folder: &TempDir, data: &str, parts: &[&str]) {
    let path = folder.path();
    let before = names(path);
    let out = ["--force", "-o"];
    for (command, output) in [
        (&["recalibrate", "net.onnx"][..], Some("out.onnx")),
        (&["recalibrate", "net.onnx", "--fold"], Some("out.onnx")),
        (&["validate", "net.onnx"], None),
        (&["run", "net.onnx"], Some("out.npz")),
    ] {
        let mut args = [command, &["--data", data]].concat();
        bnkit(path, &args).is_error(parts);
        assert_eq!(names(path), before, "nothing is left behind");
        if let Some(output) = output {
            fs::write(path.join(output), "precious").unwrap();
            args.extend(out);
            args.push(output);
            bnkit(path, &args).is_error(parts);
            assert_eq!(fs::read(path.join(output)).unwrap(), b"precious");
            fs::remove_file(path.join(output)).unwrap();
        }
    }
}

#[test]
fn arrays_that_do_not_fit() {
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    npy(&file("wide.npy"), "<f4", &[2, 3, 32], &floats(2 * 96, 0.0));
    fails(
        &folder,
        "wide.npy",
        &["wide.npy", "\"input\"", "[2, 3, 32]"],
    );
    npy(
        &file("grey.npy"),
        "<f4",
        &[2, 1, 32, 32],
        &floats(2048, 0.0),
    );
    fails(
        &folder,
        "grey.npy",
        &["grey.npy", "\"input\"", "[2, 1, 32, 32]"],
    );
    npy(&file("int.npy"), "<i4", &[1, 3, 32, 32], &[0; 4 * 3072]);
    fails(&folder, "int.npy", &["int.npy", "\"input\"", "int32"]);
    let mut values = floats(4 * 3072, 0.0);
    values[4 * (2 * 3072 + 5)..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    npy(&file("nan.npy"), "<f4", &[4, 3, 32, 32], &values);
    fails(
        &folder,
        "nan.npy",
        &["nan.npy", "\"input\"", "sample 2", "NaN"],
    );
    npy(&file("none.npy"), "<f4", &[0, 3, 32, 32], &[]);
    fails(&folder, "none.npy", &["none.npy"]);
}

#[test]
fn files_that_are_no_data() {
    let folder = folder();
    let file = |name: &str| folder.path().join(name);
    fails(&folder, "absent.npy", &["absent.npy"]);
    fs::create_dir(file("empty")).unwrap();
    fails(&folder, "empty", &["empty", "no .npy"]);
    let whole = fs::read(file("x.npy")).unwrap();
    fs::write(file("cut.npy"), &whole[..1000]).unwrap();
    fails(&folder, "cut.npy", &["cut.npy", "cut off"]);
    fs::write(file("x.csv"), "1,2").unwrap();
    fails(&folder, "x.csv", &["x.csv", "expected .npy"]);
    fs::create_dir(file("photos")).unwrap();
    image::RgbImage::new(32, 32)
        .save(file("photos/1.png"))
        .unwrap();
    fails(&folder, "photos", &["photos", "--preprocess imagenet"]);
}

#[test]
fn options_that_do_not_go_together() {
    let folder = folder();
    let path = folder.path();
    let before = names(path);
    let x = ["--data", "x.npy"];
    let recalibrate = |more: &[&str], parts: &[&str]| {
        bnkit(path, &[&["recalibrate", "net.onnx"], more].concat()).is_error(parts);
        assert_eq!(names(path), before);
    };
    recalibrate(&[], &["--data PATH is missing"]);
    for (more, parts) in [
        (&["--shard", "1/2"][..], &["--partial FILE"][..]),
        (
            &["--shard", "3/2", "--partial", "p.json"],
            &["\"3/2\"", "2/8"],
        ),
        (&["--shard", "two", "--partial", "p.json"], &["\"two\""]),
        (
            &["--shard", "1/9", "--partial", "p.json"],
            &["shard 1/9 has no batches", "1"],
        ),
        (
            &["--partial", "p.json", "-o", "y.onnx"],
            &["--partial writes no model"],
        ),
        (&["--partial", "p.json", "--fold"], &["no model to fold"]),
        (
            &["--partial", "p.json", "--method", "sequential"],
            &["sequential", "no shards"],
        ),
        (
            &["--partial", "net.onnx", "--force"],
            &["net.onnx", "this is a model"],
        ),
        (&["--partial", "x.npy"], &["x.npy", "exists already"]),
        (&["--from", "s.npz"], &["--from", "--data"]),
        (&["--momentum", "0.5"], &["precise has no momentum"]),
        (&["--momentum", "1", "--method", "ema"], &["1"]),
        (
            &["--method", "median"],
            &["precise, average, ema, sequential"],
        ),
        (&["--convention", "tf"], &["onnx, torch, keras"]),
        (&["--until-stable", "--method", "ema"], &["never settles"]),
        (&["--no-verify"], &["--no-verify is for a fold"]),
        (&["--require", "end-to-end"], &["--require is for a fold"]),
        (
            &["--fold", "--no-verify", "--require", "end-to-end"],
            &["--no-verify forbids it"],
        ),
        (&["--batch-size", "0"], &["--batch-size"]),
        (
            &["--batch-size", "9", "--drop-last"],
            &["x.npy", "no batch of 9"],
        ),
        (
            &["--only", "/nowhere/*"],
            &["net.onnx", "--only and --skip"],
        ),
        (
            &["--preprocess", "imagnet"],
            &["imagenet, inception, tensorflow"],
        ),
        (&["-o", "net.onnx"], &["net.onnx", "the input itself"]),
        (&["-o", "no/y.onnx"], &["no: there is no such folder"]),
        (&["--report", "x.npy"], &["a report ends in"]),
    ] {
        recalibrate(&[more, &x].concat(), parts);
    }
    for (args, parts) in [
        (
            &["run", "net.onnx", "--data", "x.npy", "-o", "y.npy"][..],
            &["y.npy", ".npz"][..],
        ),
        (&["run", "net.onnx"], &["--data PATH is missing"]),
        (&["validate", "net.onnx"], &["--data PATH is missing"]),
        (
            &["validate", "net.onnx", "--data", "x.npy"],
            &["one batch of 8 samples"],
        ),
        (
            &["validate", "net.onnx", "--data", "x.npy", "--method", "ema"],
            &["exponential average"],
        ),
        (
            &["validate", "net.onnx", "--data", "x.npy", "--max-kl=-1"],
            &["--max-kl"],
        ),
        (&["stats", "absent.onnx"], &["absent.onnx"]),
        (
            &["merge", "absent.json", "--model", "net.onnx"],
            &["absent.json"],
        ),
        (&["merge", "x.npy", "--model", "net.onnx"], &["x.npy"]),
    ] {
        bnkit(path, args).is_error(parts);
        assert_eq!(names(path), before);
    }
}

/// Global average pool, then BatchNorm: what training frameworks refuse with one sample.
fn pooled() -> Vec<u8> {
    let tensor = |name: &str, value: f32| TensorProto::floats(name, &[2], [value, value]);
    let port = |name: &str| {
        let declared = TensorType {
            dtype: DType::F32,
            dims: None,
        };
        ValueInfoProto::tensor(name, &declared)
    };
    let node = |op: &str, inputs: &[&str], output: &str| {
        NodeProto::of(op, inputs.iter().copied(), [output]).named(format!("/{op}"))
    };
    let graph = GraphProto {
        name: Some("g".to_owned()),
        input: vec![port("x")],
        output: vec![port("y")],
        node: vec![
            node("GlobalAveragePool", &["x"], "p"),
            node("BatchNormalization", &["p", "s", "b", "m", "v"], "y"),
        ],
        initializer: vec![
            tensor("s", 1.0),
            tensor("b", 0.0),
            tensor("m", 0.0),
            tensor("v", 1.0),
        ],
        ..Default::default()
    };
    ModelProto::of(graph, 17).encode_to_vec()
}

#[test]
fn one_value_per_channel_has_no_variance() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("net.onnx"), pooled()).unwrap();
    npy(&path.join("x.npy"), "<f4", &[3, 2, 4, 4], &floats(96, 1.0));
    for convention in ["onnx", "torch"] {
        for method in ["average", "ema"] {
            let args = [
                "recalibrate",
                "net.onnx",
                "--data",
                "x.npy",
                "--batch-size",
                "1",
                "--method",
                method,
                "--convention",
                convention,
            ];
            bnkit(path, &args).is_error(&["net.onnx", "BatchNormalization", "1 element"]);
        }
    }
    assert_eq!(names(path), ["net.onnx", "x.npy"]);
    // Two samples to a batch have one, and the last one alone is left out.
    let args = [
        "recalibrate",
        "net.onnx",
        "--data",
        "x.npy",
        "--batch-size",
        "2",
        "--drop-last",
    ];
    bnkit(path, &args).is_done();
}
