//! Rules about files: state dicts, and data beside a model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bnkit_model::proto::tensor_proto::DataLocation;
use bnkit_model::proto::{ModelProto, StringStringEntryProto};
use prost::Message;
use serde_json::json;

use super::codes;
use super::parts::Parts;
use crate::check::{CheckJob, check};
use crate::pipeline::Quiet;

/// A BatchNorm of a state dict with `num_batches_tracked`; without a variance it is half a BatchNorm.
fn state_dict(path: &Path, batches: i64, variance: bool) {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>| {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        header.insert(
            format!("bn.{name}"),
            json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
    };
    let floats = |values: [f32; 2]| values.into_iter().flat_map(f32::to_le_bytes).collect();
    add("weight", "F32", &[2], floats([1.0, 0.9]));
    add("bias", "F32", &[2], floats([0.0, 0.1]));
    add("running_mean", "F32", &[2], floats([0.5, -0.5]));
    if variance {
        add("running_var", "F32", &[2], floats([0.7, 1.5]));
    }
    add(
        "num_batches_tracked",
        "I64",
        &[],
        batches.to_le_bytes().to_vec(),
    );
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    fs::write(path, file).unwrap();
}

#[test]
fn the_rules_of_state_dicts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let found = |batches, variance| {
        state_dict(&path, batches, variance);
        codes(&check(&CheckJob::new(&path), &Quiet).unwrap())
    };
    assert_eq!(found(7, true), BTreeSet::new());
    assert_eq!(found(0, true), ["batches-not-counted"].into());
    assert_eq!(found(7, false), ["incomplete-group"].into());
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let bytes = Parts::healthy().bytes();
    let found = |location: &str| {
        let mut model = ModelProto::decode(bytes.as_slice()).unwrap();
        let tensor = &mut model.graph.as_mut().unwrap().initializer[0];
        let data = tensor.raw_data.take().unwrap();
        for folder in [folder.path(), &inner] {
            fs::write(folder.join("w.bin"), &data).unwrap();
            fs::write(folder.join("short.bin"), &data[..4]).unwrap();
        }
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![StringStringEntryProto {
            key: Some("location".to_owned()),
            value: Some(location.to_owned()),
        }];
        let path = inner.join("net.onnx");
        fs::write(&path, model.encode_to_vec()).unwrap();
        check(&CheckJob::new(path), &Quiet).unwrap()
    };
    assert_eq!(found("w.bin").findings, []);
    let absolute = folder.path().join("w.bin").display().to_string();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path().join("w.bin"), inner.join("link.bin")).unwrap();
    #[cfg(not(unix))]
    fs::write(inner.join("link.bin"), b"").unwrap();
    for location in [
        "../w.bin",
        &absolute,
        "short.bin",
        "missing.bin",
        "link.bin",
    ] {
        let report = found(location);
        assert_eq!(codes(&report), ["external-data"].into(), "{location}");
        let asked = |code: &str| {
            report
                .rules
                .iter()
                .any(|rule| rule.code == code && rule.checked)
        };
        assert!(!asked("bad-statistics") && asked("old-opset"), "{location}");
    }
}
