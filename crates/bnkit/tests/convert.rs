//! Conversions against NumPy's, PyTorch's and onnx's numbers (testdata/generate_convert.py).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bnkit::Result;
use bnkit::convert::{ConvertJob, ConvertReport, FloatType, How, convert};
use bnkit::pipeline::Quiet;
use bnkit_model::onnx::Model;
use bnkit_model::safetensors::{Dtype, NewFile, NewTensor, SaveOptions, StateDict, save};
use bnkit_model::{DType, Tensor};

fn data(name: &str) -> PathBuf {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../testdata/convert"
    ))
    .join(name)
}

fn job(input: impl Into<PathBuf>, output: impl Into<PathBuf>) -> ConvertJob {
    ConvertJob {
        input: input.into(),
        weights: None,
        output: output.into(),
        force: false,
        hash: false,
        dtype: None,
        keep_statistics: false,
        stats_only: false,
        max_shard_size: None,
    }
}

fn run(job: &ConvertJob) -> Result<ConvertReport> {
    convert(job, &Quiet)
}

/// Name → type, shape, bytes.
fn tensors(path: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let dict = StateDict::open(path).unwrap();
    let one = |tensor: &bnkit_model::safetensors::Tensor| {
        let stored = dict.stored(tensor);
        let bytes = stored.source.read(stored.range).unwrap().to_vec();
        (
            tensor.name.clone(),
            (tensor.dtype, tensor.shape.clone(), bytes),
        )
    };
    dict.tensors().iter().map(one).collect()
}

#[track_caller]
fn same(path: &Path, golden: &str) {
    let (found, expected) = (tensors(path), tensors(&data(golden)));
    let names = |all: &BTreeMap<String, _>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for (name, tensor) in &expected {
        assert_eq!(&found[name], tensor, "{name}");
    }
}

fn dict(path: &Path, list: &[(&str, &[usize], &[f64])]) {
    let one = |(name, dims, values): &(&str, &[usize], &[f64])| {
        let tensor = Tensor::from_f64(DType::F32, dims.to_vec(), values).unwrap();
        NewTensor::of_values((*name).to_owned(), &tensor).unwrap()
    };
    let file = NewFile {
        metadata: None,
        tensors: list.iter().map(one).collect(),
    };
    save(path, file, SaveOptions::default()).unwrap();
}

#[test]
fn rounding_is_that_of_numpy_and_torch() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.safetensors");
    for (dtype, golden) in [
        (FloatType::BF16, "floats_bf16.safetensors"),
        (FloatType::F16, "floats_f16.safetensors"),
    ] {
        let mut job = job(data("floats.safetensors"), &out);
        (job.dtype, job.force) = (Some(dtype), true);
        let report = run(&job).unwrap();
        assert_eq!(report.failure, None);
        // NaN has many forms; elsewhere every bit counts.
        let (found, expected) = (tensors(&out), tensors(&data(golden)));
        for (name, (dtype, shape, bytes)) in &expected {
            assert_eq!((&found[name].0, &found[name].1), (dtype, shape), "{name}");
            let nan = |bits: u16| match dtype {
                Dtype::F16 => bits & 0x7fff > 0x7c00,
                _ => bits & 0x7fff > 0x7f80,
            };
            for (at, (a, b)) in found[name].2.chunks(2).zip(bytes.chunks(2)).enumerate() {
                let [a, b] = [a, b].map(|part| u16::from_le_bytes([part[0], part[1]]));
                assert!(
                    a == b || (nan(a) && nan(b)),
                    "{name}[{at}]: {a:04x}, {b:04x}"
                );
            }
        }
        assert_eq!(report.converted, 2);
        assert_eq!(
            report
                .rounding
                .iter()
                .map(|one| one.not_finite)
                .sum::<u64>(),
            3
        );
    }
}

#[test]
fn the_constants_of_a_model_are_a_state_dict() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["net.onnx", "external.onnx"] {
        let out = dir.path().join(format!("{model}.safetensors"));
        let report = run(&job(data(model), &out)).unwrap();
        same(&out, "net.safetensors");
        let metadata = StateDict::open(&out).unwrap().shards()[0].metadata.clone();
        assert_eq!(metadata, Some(vec![("format".to_owned(), "pt".to_owned())]));
        let missing = |matters| -> Vec<&str> {
            let list = report.left_out.iter().filter(|one| one.matters == matters);
            list.map(|one| one.name.as_str()).collect()
        };
        assert_eq!(missing(true), ["labels", "q"]);
        assert_eq!(missing(false), ["to", "six"]);
        assert!(
            report.warnings[0].contains("\"labels\" (string)"),
            "{:?}",
            report.warnings
        );
    }
}

#[test]
fn statistics_alone() {
    let dir = tempfile::tempdir().unwrap();
    for input in ["net.onnx", "net.safetensors"] {
        let out = dir.path().join(format!("{input}.safetensors"));
        let mut job = job(data(input), &out);
        job.stats_only = true;
        run(&job).unwrap();
        let (found, all) = (tensors(&out), tensors(&data("net.safetensors")));
        let expected: BTreeMap<_, _> = (all.into_iter())
            .filter(|(name, _)| name.contains("running_"))
            .collect();
        assert_eq!(expected.len(), 4);
        assert_eq!(found, expected);
    }
}

#[test]
fn weights_go_into_a_graph() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["net.onnx", "external.onnx"] {
        let out = dir.path().join(model);
        let mut put = job(data(model), &out);
        put.weights = Some(data("other.safetensors"));
        let report = run(&put).unwrap();
        let matching = report.matching.unwrap();
        let by_shape: Vec<_> = (matching.pairs.iter())
            .filter(|pair| pair.how != How::Name)
            .map(|pair| (pair.graph.as_str(), pair.weight.as_str(), pair.how))
            .collect();
        assert_eq!(by_shape, [("onnx::MatMul_9", "fc.weight", How::Transposed)]);
        let names = |list: &[bnkit::convert::Unmatched]| -> Vec<String> {
            list.iter().map(|one| one.name.clone()).collect()
        };
        assert_eq!(names(&matching.kept), ["half", "labels", "q"]);
        assert_eq!(names(&matching.unused), ["aux.weight"]);
        assert_eq!(matching.counters, ["bn.num_batches_tracked"]);
        // Reading it again is what another test holds against onnx.
        let back = dir.path().join(format!("{model}.safetensors"));
        run(&job(&out, &back)).unwrap();
        same(&back, "other_in_net.safetensors");
        let is_external = dir.path().join(format!("{model}.data")).exists();
        assert_eq!(is_external, model == "external.onnx");
        let written = Model::open(&out).unwrap();
        let version = written
            .metadata()
            .iter()
            .any(|(key, _)| key == "bnkit.version");
        assert!(version);
    }
}

#[test]
fn equal_tensors_stay_merged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.onnx");
    let mut put = job(data("net.onnx"), &out);
    put.weights = Some(data("net.safetensors"));
    run(&put).unwrap();
    let model = Model::open(&out).unwrap();
    assert_eq!(
        model
            .nodes()
            .filter(|(_, node)| node.is("Identity"))
            .count(),
        1
    );
    let back = dir.path().join("back.safetensors");
    run(&job(&out, &back)).unwrap();
    same(&back, "net.safetensors");
}

#[test]
fn an_overflow_is_a_failure_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (
        dir.path().join("in.safetensors"),
        dir.path().join("out.safetensors"),
    );
    dict(
        &input,
        &[
            ("bn.running_var", &[3], &[1e5, 1e-9, f64::INFINITY]),
            ("w", &[2], &[1.0, 65519.0]),
        ],
    );
    let mut to_f16 = job(&input, &out);
    to_f16.dtype = Some(FloatType::F16);
    let report = run(&to_f16).unwrap();
    let failure = report.failure.unwrap();
    assert!(failure.contains("\"bn.running_var\" has 1"), "{failure}");
    let worst = &report.rounding[0];
    assert_eq!(
        (worst.overflowed, worst.zeroed, worst.not_finite),
        (1, 1, 1)
    );
    assert!(
        report.warnings[0].contains("bn.running_var"),
        "{:?}",
        report.warnings
    );
    assert!(report.output.is_none() && !out.exists());
    to_f16.keep_statistics = true;
    assert_eq!(run(&to_f16).unwrap().failure, None);
    let written = tensors(&out);
    assert_eq!(written["bn.running_var"].0, Dtype::F32);
    // 65519 is nearest to 65504, the largest number of the type.
    assert_eq!(written["w"].2, [0x00, 0x3c, 0xff, 0x7b]);
}

#[test]
fn shards_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("net.safetensors");
    let mut cut = job(data("other.safetensors"), &out);
    cut.max_shard_size = Some(200);
    let report = run(&cut).unwrap();
    let index = dir.path().join("net.safetensors.index.json");
    assert_eq!(report.output.unwrap().path, index.display().to_string());
    assert!(!out.exists());
    let sharded = StateDict::open(&index).unwrap();
    assert!(sharded.shards().len() > 2);
    for (place, shard) in sharded.shards().iter().enumerate() {
        let of = sharded
            .tensors()
            .iter()
            .filter(|tensor| tensor.shard == place);
        let sizes: Vec<u64> = of.map(bnkit_model::safetensors::Tensor::bytes).collect();
        assert!(
            sizes.len() == 1 || sizes.iter().sum::<u64>() <= 200,
            "{sizes:?}"
        );
        assert_eq!(
            shard.metadata,
            Some(vec![("format".to_owned(), "pt".to_owned())])
        );
    }
    let merged = dir.path().join("merged.safetensors");
    run(&job(&index, &merged)).unwrap();
    assert_eq!(
        std::fs::read(&merged).unwrap(),
        std::fs::read(data("other.safetensors")).unwrap()
    );
    // Into one file if they fit.
    let (one, mut fits) = (dir.path().join("one.safetensors"), cut.clone());
    (fits.output, fits.max_shard_size) = (one.clone(), Some(1 << 20));
    assert_eq!(
        run(&fits).unwrap().output.unwrap().files,
        [one.display().to_string()]
    );
}

#[track_caller]
fn refuses(job: &ConvertJob, parts: &[&str]) {
    let error = run(job).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is missing in {error}");
    }
    assert!(!job.output.exists());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let weights = path("w.safetensors");
    let put = || ConvertJob {
        weights: Some(weights.clone()),
        ..job(data("net.onnx"), path("out.onnx"))
    };
    dict(&weights, &[("a.bias", &[2, 2], &[1.0; 4])]);
    refuses(
        &put(),
        &[
            "\"a.bias\"",
            "[4] in the graph",
            "[2, 2] in the checkpoint",
            "w.safetensors",
        ],
    );
    std::fs::remove_file(&weights).unwrap();
    dict(&weights, &[("half", &[3], &[1.0; 3])]);
    refuses(
        &put(),
        &["\"half\" is float16 in the graph and float32", "--dtype"],
    );
    let rounded = ConvertJob {
        dtype: Some(FloatType::F16),
        ..put()
    };
    assert_eq!(run(&rounded).unwrap().converted, 1);
    std::fs::remove_file(path("out.onnx")).unwrap();
    let no_bf16 = ConvertJob {
        dtype: Some(FloatType::BF16),
        ..put()
    };
    refuses(&no_bf16, &["no tensor of the graph is bfloat16"]);
    std::fs::remove_file(&weights).unwrap();
    dict(
        &weights,
        &[
            ("other.running_mean", &[7], &[1.0; 7]),
            ("a.bias", &[4], &[1.0; 4]),
        ],
    );
    refuses(&put(), &["other.running_mean", "folded on export"]);
    std::fs::remove_file(&weights).unwrap();
    dict(&weights, &[("nothing", &[7], &[1.0; 7])]);
    refuses(&put(), &["no tensor of the checkpoint fits"]);
    refuses(
        &job(data("net.safetensors"), path("x.onnx")),
        &["no graph", "--weights"],
    );
    refuses(&job(data("net.onnx"), path("y.onnx")), &["no conversion"]);
    refuses(
        &job(data("net.safetensors"), path("x.gguf")),
        &["expected a name that ends in"],
    );
    refuses(
        &job(data("net.onnx"), path("x.safetensors.index.json")),
        &["--max-shard-size"],
    );
}

#[test]
fn tensors_that_an_exporter_merged_are_not_mistaken() {
    // Both BatchNorms read "bn.bias" itself: the second name is gone.
    use bnkit_model::onnx::Edit;
    let dir = tempfile::tempdir().unwrap();
    let mut model = Model::open(&data("net.onnx")).unwrap();
    let (identity, node) = (model.nodes())
        .find(|(_, node)| node.is("Identity"))
        .unwrap();
    let (from, to) = (node.input(0).unwrap(), node.output(0).unwrap());
    model
        .apply(&[
            Edit::ReplaceUses {
                value: to,
                by: from,
            },
            Edit::RemoveNode { node: identity },
        ])
        .unwrap();
    let merged = dir.path().join("merged.onnx");
    model
        .save(&merged, bnkit_model::onnx::SaveOptions::default())
        .unwrap();
    let mut put = job(&merged, dir.path().join("out.onnx"));
    put.weights = Some(data("other.safetensors"));
    refuses(
        &put,
        &["\"bn.bias\" in several places", "\"bn2.bias\"", "not equal"],
    );
    // In the checkpoint that it came from they are equal.
    put.weights = Some(data("net.safetensors"));
    assert!(run(&put).unwrap().output.is_some());
}

/// A model of two BatchNorms with the same scale, so that both have their statistics under the same names. `mean` is what the second
/// reads as running mean.
fn twice(path: &Path, mean: &str) {
    use bnkit_model::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
    use prost::Message;
    let node = |data: &str, mean: &str, variance: &str, output: &str| {
        let inputs = [data, "bn.weight", "bn.bias", mean, variance];
        NodeProto::of("BatchNormalization", inputs, [output]).named(format!("node of {output}"))
    };
    let names = ["bn.weight", "bn.bias", "mean", "variance", "mean2"];
    let graph = GraphProto {
        name: Some("twice".to_owned()),
        node: vec![
            node("x", "mean", "variance", "y"),
            node("y", mean, "variance", "z"),
        ],
        initializer: names
            .map(|name| TensorProto::floats(name, &[1], [1.0]))
            .to_vec(),
        input: vec![ValueInfoProto::untyped("x")],
        output: vec![ValueInfoProto::untyped("z")],
        ..GraphProto::default()
    };
    let model = ModelProto::of(graph, 17);
    std::fs::write(path, model.encode_to_vec()).unwrap();
}

#[test]
fn statistics_that_cannot_be_told_apart_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("twice.onnx");
    let stats = || ConvertJob {
        stats_only: true,
        ..job(&model, dir.path().join("out.safetensors"))
    };
    let node = "node \"node of z\" (BatchNormalization): running_mean: ";
    for (mean, why) in [
        ("", "the input is missing"),
        ("x", "it is computed from \"x\", which is not constant"),
        (
            "mean2",
            "another tensor would be called \"bn.running_mean\", too",
        ),
    ] {
        twice(&model, mean);
        refuses(&stats(), &["twice.onnx", node, why]);
    }
    // Both read one and the same.
    twice(&model, "mean");
    assert_eq!(run(&stats()).unwrap().tensors, 2);
}
