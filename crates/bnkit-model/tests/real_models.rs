//! Real models come out as they went in. They lie beside the project, or where `BNKIT_MODELS` says; without them there
//! is nothing to test.

use std::fs;
use std::path::{Path, PathBuf};

use bnkit_model::onnx::{Model, Precision, SaveOptions};

fn models(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of models") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            models(&path, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "onnx")
        {
            found.push(path);
        }
    }
}

fn lossless(path: &Path) {
    let name = path.display();
    let original = fs::read(path).expect("a readable model");
    let model = Model::open(path).unwrap_or_else(|error| panic!("{error}"));
    assert!(model.nodes().count() > 0, "{name}");
    let bytes = model
        .to_bytes(Precision::Stored)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(bytes == original, "{name}: differs in memory");
    let out = tempfile::tempdir().expect("a temporary folder");
    let output = out.path().join("out.onnx");
    let saved = model
        .save(&output, SaveOptions::default())
        .unwrap_or_else(|error| panic!("{error}"));
    if saved.data_file.is_none() {
        assert!(
            fs::read(&output).expect("the output") == original,
            "{name}: differs on disk"
        );
    }
    for (_, scope) in model.scopes() {
        for &id in &scope.initializers {
            let tensor = model
                .value(id)
                .tensor
                .as_ref()
                .expect("an initializer has a tensor");
            // Some golden models are about values that are not finite.
            if tensor.dtype.is_float() && !name.to_string().contains("bad_") {
                let magnitude = model
                    .magnitude(tensor)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                let values = model
                    .read_f64(tensor)
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                let max_abs = values
                    .iter()
                    .fold(0.0, |max: f64, value| max.max(value.abs()));
                assert_eq!(
                    (magnitude.max_abs, magnitude.finite),
                    (max_abs, true),
                    "{name}"
                );
            }
        }
    }
}

// The only way to say that a test had nothing to do.
#[allow(clippy::print_stderr)]
#[test]
fn unmodified_models_come_out_as_they_went_in() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    let folder = std::env::var_os("BNKIT_MODELS").map_or(beside, PathBuf::from);
    if !folder.is_dir() {
        eprintln!("skipped: there are no models in {}", folder.display());
        return;
    }
    let mut found = Vec::new();
    models(&folder, &mut found);
    assert!(!found.is_empty(), "no models in {}", folder.display());
    found.iter().for_each(|path| lossless(path));
}

#[test]
fn golden_models_come_out_as_they_went_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden");
    let mut found = Vec::new();
    models(&folder, &mut found);
    let is_malformed = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"malformed_"))
    };
    let (malformed, good): (Vec<_>, Vec<_>) = found.into_iter().partition(is_malformed);
    assert!(!good.is_empty() && !malformed.is_empty());
    good.iter().for_each(|path| lossless(path));
    for path in malformed {
        let out = tempfile::tempdir().expect("a temporary folder");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let result = Model::open(&path)
            .and_then(|model| model.save(&out.path().join("out.onnx"), SaveOptions::default()));
        // That gamma has the wrong length is not for this crate to know.
        assert_eq!(
            result.is_ok(),
            name == "malformed_gamma_length.onnx",
            "{name}: {result:?}"
        );
        assert!(
            result.is_ok() || fs::read_dir(out.path()).expect("a folder").next().is_none(),
            "{name}"
        );
    }
}
