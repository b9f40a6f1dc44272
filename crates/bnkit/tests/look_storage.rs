//! The same elements stored in different ways: raw, in typed fields, in an external file, several tensors in one place of it.

use std::fs;
use std::path::Path;

use bnkit::diff::diff;
use bnkit::inspect::scan;
use bnkit_model::proto::{
    GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
};
use prost::Message;

const COUNT: usize = 300;

fn elements() -> impl Iterator<Item = f32> {
    (0..COUNT).map(|at| at as f32 / 8.0)
}

fn bytes() -> Vec<u8> {
    elements().flat_map(f32::to_le_bytes).collect()
}

fn tensor(name: &str) -> TensorProto {
    TensorProto {
        dims: vec![COUNT as i64],
        data_type: Some(1),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

fn raw(name: &str) -> TensorProto {
    TensorProto {
        raw_data: Some(bytes().into()),
        ..tensor(name)
    }
}

fn typed(name: &str) -> TensorProto {
    TensorProto {
        float_data: elements().collect(),
        ..tensor(name)
    }
}

fn external(name: &str, offset: usize) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    };
    TensorProto {
        external_data: vec![
            entry("location", "weights.bin".to_owned()),
            entry("offset", offset.to_string()),
            entry("length", (4 * COUNT).to_string()),
        ],
        data_location: Some(1),
        ..tensor(name)
    }
}

fn write(path: &Path, initializer: Vec<TensorProto>) {
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: None,
            version: Some(17),
        }],
        graph: Some(GraphProto {
            name: Some("g".to_owned()),
            initializer,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    fs::write(path, model.encode_to_vec()).unwrap();
}

#[test]
fn how_elements_are_stored_is_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("weights.bin"), bytes()).unwrap();
    write(&path("a.onnx"), vec![raw("w"), raw("v")]);
    write(&path("b.onnx"), vec![typed("w"), external("v", 0)]);
    let report = diff(&path("a.onnx"), &path("b.onnx"), None).unwrap();
    assert_eq!(report.changed, []);
    assert_eq!((report.summary.unchanged, report.summary.added), (2, 0));
}

#[test]
fn shared_storage_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // The same elements twice in the file; two tensors share the first place.
    fs::write(path("weights.bin"), [bytes(), bytes()].concat()).unwrap();
    let second = 4 * COUNT;
    write(
        &path("net.onnx"),
        vec![external("a", 0), external("b", 0), external("c", second)],
    );
    let report = scan(&path("net.onnx")).unwrap();
    assert_eq!(report.equal.len(), 1);
    assert_eq!(report.equal[0].names, ["a", "b", "c"]);
    assert_eq!((report.equal[0].copies, report.equal[0].bytes), (2, 1200));
    write(&path("net.onnx"), vec![external("a", 0), external("b", 0)]);
    let report = scan(&path("net.onnx")).unwrap();
    assert_eq!(
        (report.equal[0].names.len(), report.equal[0].copies),
        (2, 1)
    );
}
