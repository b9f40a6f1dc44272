//! Statistics that do not fit, or were made to do harm: each is an error that says what is wrong, and nothing is written.

use std::collections::HashMap;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

use super::*;
use crate::pipeline::Quiet;
use crate::unfold::{UnfoldJob, unfold};

/// A tensor of the file.
struct Stored {
    name: String,
    dtype: Dtype,
    dims: Vec<usize>,
    data: Vec<u8>,
}

/// What `--keep-stats` wrote, taken apart.
struct Statistics {
    record: Value,
    tensors: Vec<Stored>,
}

impl Statistics {
    fn read(bytes: &[u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
        let text = &header.metadata().as_ref().unwrap()["bnkit.unfold"];
        let file = SafeTensors::deserialize(bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| Stored {
            name: name.to_owned(),
            dtype: view.dtype(),
            dims: view.shape().to_vec(),
            data: view.data().to_vec(),
        });
        Self {
            record: serde_json::from_str(text).unwrap(),
            tensors: tensors.collect(),
        }
    }

    /// The file, with this text in the place of the record.
    fn with_text(&self, text: Option<&str>) -> Vec<u8> {
        let views = self.tensors.iter().map(|tensor| {
            let dims = tensor.dims.clone();
            let view = TensorView::new(tensor.dtype, dims, &tensor.data).unwrap();
            (tensor.name.as_str(), view)
        });
        let text = text.map(|text| ("bnkit.unfold".to_owned(), text.to_owned()));
        let other = ("other".to_owned(), String::new());
        let metadata: HashMap<_, _> = text.into_iter().chain([other]).collect();
        safetensors::serialize(views, Some(metadata)).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        self.with_text(Some(&self.record.to_string()))
    }

    /// The entry of a constant.
    fn constant(&mut self, name: &str) -> &mut Value {
        let constants = self.record["constants"].as_array_mut().unwrap();
        let mut named = constants.iter_mut();
        named.find(|one| one["value"]["name"] == name).unwrap()
    }

    /// Gives a tensor so many elements.
    fn resize(&mut self, name: &str, count: usize) {
        let tensor = self.tensors.iter_mut().find(|one| one.name == name);
        let tensor = tensor.unwrap();
        let size = tensor.data.len() / tensor.dims.iter().product::<usize>();
        tensor.data.resize(size * count, 0);
        tensor.dims = vec![count];
    }
}

/// A folded model in a folder, and its statistics.
struct Kept {
    folder: TempDir,
    statistics: Statistics,
}

impl Kept {
    fn new() -> Self {
        let Folded { folder, model } = Folded::new(net(&weight()));
        std::fs::write(
            folder.path().join("net.onnx"),
            model.to_bytes(Precision::Stored).unwrap(),
        )
        .unwrap();
        let bytes = std::fs::read(folder.path().join("stats")).unwrap();
        Self {
            folder,
            statistics: Statistics::read(&bytes),
        }
    }

    /// What `unfold` says of this file. It writes nothing.
    fn refused(&self, bytes: &[u8]) -> String {
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("stats"), bytes).unwrap();
        let mut job = UnfoldJob::new(path("net.onnx"), path("stats"), path("out.onnx"));
        job.verify = None;
        let error = unfold(&job, &Quiet).unwrap_err().to_string();
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["net.onnx", "stats"], "{error}");
        // The statistics are at fault, or the two together: one of them is named.
        let file = error.starts_with(&path("net.onnx").display().to_string())
            || error.starts_with(&path("stats").display().to_string());
        assert!(file, "{error}");
        error
    }
}

#[test]
fn files_that_are_not_of_a_fold() {
    let kept = Kept::new();
    let refuses = |text: Option<&str>, part: &str| {
        let error = kept.refused(&kept.statistics.with_text(text));
        assert!(error.contains(part), "{error}");
    };
    refuses(
        None,
        "stats: this is not a file that `bnkit fold --keep-stats` wrote",
    );
    refuses(
        Some("{"),
        "stats: EOF while parsing an object at line 1 column 1",
    );
    let mut more = kept.statistics.record.clone();
    more["more"] = json!(1);
    refuses(
        Some(&more.to_string()),
        "stats: unknown field `more`, expected one of",
    );
}

#[test]
fn each_thing_that_does_not_fit_is_named() {
    type Damage = fn(&mut Statistics);
    let cases: [(Damage, &str); 18] = [
        (
            |s| s.constant("g")["content"]["stored"]["tensor"] = json!("nothing"),
            "the statistics have no tensor \"nothing\"",
        ),
        (
            |s| s.constant("g")["dims"] = json!([3]),
            "the statistics of \"g\": another number of elements than its shape says",
        ),
        (
            |s| s.constant("g")["dims"] = json!([1u64 << 32, 1u64 << 33]),
            "the statistics of \"g\": another number of elements than its shape says",
        ),
        (
            |s| s.constant("w")["content"]["scaled"]["scales"] = json!([]),
            "the statistics of \"w\": another shape than the folded tensor's",
        ),
        (
            |s| s.resize("w.factors.0", 0),
            "the statistics of \"w\": no factors",
        ),
        (
            |s| s.resize("w.kept", 17),
            "the statistics of \"w\": too few elements",
        ),
        (
            |s| s.resize("w.kept", 19),
            "the statistics of \"w\": too many elements",
        ),
        (
            |s| s.record["removed"][0]["scope"] = json!("nowhere"),
            "the model has no body \"nowhere\"",
        ),
        (
            |s| s.record["removed"][0]["inputs"][1]["name"] = json!("nothing"),
            "the model has no value \"nothing\"",
        ),
        (
            |s| s.record["removed"][0]["outputs"] = json!(["x"]),
            "the model has a value \"x\" already",
        ),
        (
            |s| s.record["removed"] = json!([]),
            "the statistics do not fit the model: nothing would compute \"y\"",
        ),
        (
            |s| s.record["changed"][0]["reads"] = json!(["x", null]),
            "node \"c\" (Conv) reads \"x\", \"w\", \"w_bias\", and after the fold it read \"x\", \"\"",
        ),
        (
            |s| s.record["changed"][0]["node"]["operator"] = json!("Gemm"),
            "node \"c\" (Gemm), which writes \"y\", is not in the model: it is not the one that was folded",
        ),
        (
            |s| s.record["changed"][0]["node"]["output"] = json!("x"),
            "node \"c\" (Conv), which writes \"x\", is not in the model: it is not the one that was folded",
        ),
        (
            |s| s.record["witnesses"][0]["slot"] = json!(0),
            "node \"c\" (Conv): input 0 is no constant",
        ),
        (
            |s| s.record["witnesses"][0]["slot"] = json!(1u64 << 40),
            "node \"c\" (Conv): input 1099511627776 is no constant",
        ),
        (
            |s| s.record["witnesses"][0]["sha256"] = json!("0"),
            "node \"c\" (Conv): tensor \"w\" is not what the fold wrote: it has been changed since",
        ),
        (
            |s| s.constant("w")["content"]["scaled"]["reader"]["output"] = json!("x"),
            "node \"c\" (Conv), which writes \"x\", is not in the model: it is not the one that was folded",
        ),
    ];
    for (damage, part) in cases {
        let mut kept = Kept::new();
        damage(&mut kept.statistics);
        let error = kept.refused(&kept.statistics.bytes());
        assert!(error.ends_with(part), "{error}\nexpected: {part}");
    }
}

#[test]
fn a_tensor_of_a_type_that_no_fold_writes_is_named() {
    let mut kept = Kept::new();
    kept.statistics.tensors.push(Stored {
        name: "extra".to_owned(),
        dtype: Dtype::BOOL,
        dims: vec![1],
        data: vec![1],
    });
    let error = kept.refused(&kept.statistics.bytes());
    assert!(
        error.ends_with("stats: tensor \"extra\" is BOOL"),
        "{error}"
    );
}

/// All places in a record.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, format!("{at}/{index}"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                places(field, format!("{at}/{name}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

/// Changes one thing.
fn change(record: &mut Value, rng: &mut ChaCha8Rng) {
    let mut all = Vec::new();
    places(record, String::new(), &mut all);
    let place = all.choose(rng).unwrap();
    let other = record.pointer(all.choose(rng).unwrap()).unwrap().clone();
    let place = record.pointer_mut(place).unwrap();
    match place {
        Value::Array(items) if !items.is_empty() && rng.random_ratio(3, 4) => {
            let (a, b) = (
                rng.random_range(0..items.len()),
                rng.random_range(0..items.len()),
            );
            match rng.random_range(0..3) {
                0 => drop(items.remove(a)),
                1 => items.push(items[a].clone()),
                _ => items.swap(a, b),
            }
        }
        Value::Number(number) => {
            let numbers = [0, 1, 2, 7, 1 << 40, 1 << 63, u64::MAX];
            *number = (*numbers.choose(rng).unwrap()).into();
        }
        Value::String(text) => {
            let names = [
                "", "x", "w", "g", "be", "c", "y", "if", "then", "s", "o", "Conv", "If", "Add",
            ];
            *text = (*names.choose(rng).unwrap()).to_owned();
        }
        place => *place = other,
    }
}

/// A network with a body, folded with a rest.
fn larger() -> Folded {
    Folded::new(
        net(&weight())
            .constant("two", &[2, 1, 1], &[2.0, 4.0])
            .node("Mul", &["y", "two"], "s")
            .node("Relu", &["s"], "o")
            .output("o"),
    )
}

#[test]
fn records_that_were_made_to_do_harm_are_errors() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut refused, mut restored) = (0, 0);
    for folded in [Folded::new(net(&weight())), larger()] {
        let whole = Statistics::read(&std::fs::read(folded.stats()).unwrap());
        for round in 0..1500 {
            let mut statistics = Statistics::read(&whole.bytes());
            for _ in 0..rng.random_range(1..4) {
                change(&mut statistics.record, &mut rng);
            }
            std::fs::write(folded.stats(), statistics.bytes()).unwrap();
            let done = restore(&folded.model, &folded.stats());
            match done.and_then(|(model, _)| Ok(model.to_bytes(Precision::Stored)?)) {
                Err(_) => refused += 1,
                Ok(bytes) => {
                    let again = Model::from_bytes(bytes);
                    let record = &statistics.record;
                    assert!(again.is_ok(), "{round}: {:?}: {record}", again.err());
                    restored += 1;
                }
            }
        }
    }
    // What names people only changes nothing.
    assert!(refused > 1500 && restored > 200, "{refused} {restored}");
}
