//! The bodies of the fuzz targets: each takes the bytes of one file, and must neither panic, nor hang, nor take more memory
//! than the file justifies. What they return does not matter; what must hold is asserted.
//!
//! This file is compiled twice: into the fuzzers, and into the test `corpus` of `bnkit`, which needs no libFuzzer. So it uses
//! nothing but `bnkit`, `tempfile` and the standard library.

use std::path::Path;

use bnkit::checkpoint::Checkpoint;
use bnkit::data::images::Images;
use bnkit::data::preprocess::{Preprocess, Preset};
use bnkit::fold::{self, Options};
use bnkit::model::onnx::{Model, Precision, SaveOptions};
use bnkit::model::safetensors::StateDict;
use bnkit::model::source::Source;
use bnkit::state::{self, pairing};
use bnkit::verify::algebra;
use bnkit::{check, convert, data, diff, inspect, pipeline};

/// A target: its name, which is the name of its folders of inputs, too, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 7] = [
    ("onnx", onnx),
    ("fold", fold),
    ("safetensors", safetensors),
    ("index", index),
    ("arrays", arrays),
    ("pairs", pairs),
    ("image", image),
];

/// A file of these bytes in a folder of its own, that `look` may write into.
fn with_file(name: &str, bytes: &[u8], look: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("a file");
    look(&path);
}

/// Every reader of ONNX files that changes nothing, and the way back to bytes.
pub fn onnx(bytes: &[u8]) {
    if let Ok(model) = Model::from_bytes(bytes.to_vec())
        && let Ok(same) = model.to_bytes(Precision::Stored)
    {
        let again = Model::from_bytes(same).expect("what was written can be read");
        assert_eq!(model.nodes().count(), again.nodes().count());
        assert_eq!(model.constants().count(), again.constants().count());
    }
    with_file("model.onnx", bytes, |path| {
        let _ = inspect::inspect(path, &Options::default(), false);
        let _ = inspect::scan(path);
        let _ = inspect::tree(path);
        let _ = check::check(&check::CheckJob::new(path), &pipeline::Quiet);
        let _ = diff::diff(path, path, None);
    });
}

/// Open, inspect, plan, apply, save; by default and with all that may be asked for. What is written can be read, is the same
/// the second time, and is a fold that the first level of the proof passes: rules refuse what it would not understand. Only
/// what it cannot evaluate it may refuse alone: constant expressions that no runtime could evaluate either.
pub fn fold(bytes: &[u8]) {
    let Ok(model) = Model::from_bytes(bytes.to_vec()) else {
        return;
    };
    let everything = Options {
        allow_bad_statistics: true,
        assume_constant: true,
        through_branches: true,
        aggressive: true,
        lower: true,
        merge_branches: true,
        per_channel_scales: true,
        ..Options::default()
    };
    for options in [Options::default(), everything] {
        let Ok(plan) = fold::plan(&model, &options) else {
            continue;
        };
        let sites = plan.sites.len();
        assert_eq!(sites, plan.summary.batch_norms, "one decision each");
        let Ok(written) = plan.apply().to_bytes(Precision::Stored) else {
            continue;
        };
        Model::from_bytes(written.clone()).expect("what was written can be read");
        let second = fold::plan(&model, &options).expect("as before");
        let again = second.apply().to_bytes(Precision::Stored);
        assert!(again.is_ok_and(|again| again == written), "the same bytes");
        if plan.errors.is_empty() {
            let proof = algebra::check_merged(&model, plan.apply(), &plan.routes, &plan.merges);
            let failures: Vec<String> = match &proof {
                Ok(proof) => {
                    let known = proof.failures.iter().filter(|one| !one.unknown);
                    known.map(|one| one.describe()).collect()
                }
                // A tensor that cannot be read: an error of the whole job.
                Err(_) => Vec::new(),
            };
            assert!(failures.is_empty(), "{failures:?}");
        }
        let _ = plan.kept_stats(&model);
        with_file("model.onnx", bytes, |path| {
            let _ = inspect::inspect(path, &options, false);
            let out = path.with_file_name("out.onnx");
            if plan.apply().save(&out, SaveOptions::default()).is_ok() {
                let saved = std::fs::read(&out).expect("it is there");
                assert_eq!(saved, written, "a file is what bytes are");
            }
        });
    }
}

/// One safetensors file.
pub fn safetensors(bytes: &[u8]) {
    if let Ok(dict) = StateDict::from_source(Source::memory(bytes.to_vec())) {
        for tensor in dict.tensors() {
            let _ = dict.read(tensor);
        }
    }
    with_file("model.safetensors", bytes, |path| {
        let _ = inspect::state(path);
        let _ = inspect::scan(path);
        let _ = inspect::tree(path);
        let _ = check::check(&check::CheckJob::new(path), &pipeline::Quiet);
        let _ = data::load(path);
        let out = path.with_file_name("out.safetensors");
        let job = convert::ConvertJob::new(path, &out);
        if convert::convert(&job, &pipeline::Quiet).is_ok() {
            StateDict::open(&out).expect("what was written can be read");
        }
    });
}

/// The index of a sharded checkpoint, beside two shards: `a.safetensors` with `x`, `b.safetensors` with `y`.
pub fn index(bytes: &[u8]) {
    let shard = |name: &str| {
        let header = format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#);
        let mut shard = (header.len() as u64).to_le_bytes().to_vec();
        shard.extend(header.bytes().chain([0; 4]));
        shard
    };
    with_file("model.safetensors.index.json", bytes, |path| {
        for (file, tensor) in [("a.safetensors", "x"), ("b.safetensors", "y")] {
            std::fs::write(path.with_file_name(file), shard(tensor)).expect("a file");
        }
        let _ = Checkpoint::open(path);
        let _ = inspect::state(path);
        let _ = inspect::scan(path);
    });
}

/// `.npz` if it begins as an archive does, else `.npy`; and a tensor as the test sets of ONNX have it.
pub fn arrays(bytes: &[u8]) {
    let names = match bytes.starts_with(b"PK") {
        true => &["data.npz"][..],
        false => &["data.npy", "data.pb"],
    };
    for name in names {
        with_file(name, bytes, |path| {
            let _ = data::load(path);
        });
    }
}

/// A pairing file for a small checkpoint.
pub fn pairs(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut entries = Vec::new();
    for block in ["a", "b.0", "b.1", "c.down.0"] {
        let mut add = |name: &str, shape: &[usize]| {
            entries.push(state::groups::Entry {
                name: format!("{block}.{name}"),
                shape: shape.to_vec(),
                is_float: true,
            });
        };
        add("conv.weight", &[4, 3, 1, 1]);
        add("fc.weight", &[4, 3]);
        for role in ["weight", "bias", "running_mean", "running_var"] {
            add(&format!("bn.{role}"), &[4]);
        }
    }
    if let Ok(pairing) = pairing::from_file(text, Path::new("pairs.yaml"), &entries) {
        let again = pairing::to_yaml(&pairing);
        pairing::from_file(&again, Path::new("again.yaml"), &entries).expect("as it was written");
    }
}

/// A picture.
pub fn image(bytes: &[u8]) {
    with_file("picture.png", bytes, |path| {
        let images = Images {
            files: vec![path.to_owned()],
            preprocess: Preprocess::preset(Preset::Imagenet),
        };
        let _ = images.read(0);
    });
}
