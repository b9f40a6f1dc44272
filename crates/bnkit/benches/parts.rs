//! The parts of a fold, and the moments that a recalibration takes, each on its own.
//!
//! ```sh
//! cargo bench --workspace --bench parts                # all
//! cargo bench --workspace --bench parts -- plan        # those with "plan" in their name
//! ```
//!
//! Models: chains of Conv, BatchNorm and Relu with 10 to 100,000 BatchNorms (does the time grow with their number alone?), and
//! a wide one whose weights take 64 MB (what do the elements cost?). Real ones beside the workspace (`BNKIT_MODELS`, else
//! `../shared/models`) are measured, too, where they are there.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bnkit::fold::{self, Options, Plan};
use bnkit::model::DType;
use bnkit::model::onnx::{Model, Payload, Precision, SaveOptions, TensorType, Types};
use bnkit::model::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use bnkit::report::Verdict;
use bnkit::verify::{self, VerifyOptions, algebra};
use bnkit_engine::Moments;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use prost::Message;

const NORMS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

fn main() {
    divan::main();
}

/// A BatchNorm's parameter: numbers above 0, at most 1.
fn vector(name: String, channels: usize) -> TensorProto {
    tensor(name, &[channels as i64], |step| (step + 1.0) / 101.0)
}

/// A kernel of both signs, the smaller the more channels there are: else a long chain overflows, and there is nothing to prove.
fn kernel(name: String, channels: usize) -> TensorProto {
    let scale = 50.0 * (channels as f32).sqrt();
    let channels = channels as i64;
    tensor(name, &[channels, channels, 1, 1], |step| {
        (step - 50.0) / scale
    })
}

/// An initializer whose elements are made of steps from 0 to 100.
fn tensor(name: String, dims: &[i64], element: impl Fn(f32) -> f32) -> TensorProto {
    let count: i64 = dims.iter().product();
    let steps = (0..count).map(|at| (at * 37 % 101) as f32);
    TensorProto::floats(name, dims, steps.map(element))
}

fn image(name: &str, channels: usize) -> ValueInfoProto {
    let declared = TensorType::known(DType::F32, &[1, channels, 4, 4]);
    ValueInfoProto::tensor(name, &declared)
}

/// Conv 1×1, BatchNorm, Relu, so many times, on so many channels.
fn chain(norms: usize, channels: usize) -> Vec<u8> {
    let mut graph = GraphProto {
        name: Some("chain".to_owned()),
        input: vec![image("x0", channels)],
        output: vec![image(&format!("x{norms}"), channels)],
        ..Default::default()
    };
    let node = |graph: &mut GraphProto, op: &str, inputs: Vec<String>, output: String| {
        graph.node.push(NodeProto::of(op, inputs, [output]));
    };
    for at in 0..norms {
        let name = |role: &str| format!("{role}{at}");
        graph.initializer.push(kernel(name("w"), channels));
        let inputs = vec![name("x"), name("w")];
        node(&mut graph, "Conv", inputs, name("c"));
        let roles = ["g", "b", "m", "v"].map(name);
        let vectors = roles.iter().map(|role| vector(role.clone(), channels));
        graph.initializer.extend(vectors);
        let inputs = [vec![name("c")], roles.to_vec()].concat();
        node(&mut graph, "BatchNormalization", inputs, name("n"));
        let next = format!("x{}", at + 1);
        node(&mut graph, "Relu", vec![name("n")], next);
    }
    ModelProto::of(graph, 17).encode_to_vec()
}

fn many(norms: usize) -> Model {
    Model::from_bytes(chain(norms, 8)).expect("a chain")
}

/// 16 layers of 1024 channels: 64 MB.
fn wide() -> &'static Path {
    static FILE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = FILE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("wide.onnx");
        std::fs::write(&path, chain(16, 1024)).expect("a file");
        (folder, path)
    });
    path
}

/// Those of a few real models that are there, by their names in the collection.
fn real() -> Vec<&'static str> {
    let all = ["nets/mobilenet_v2/model.onnx", "real/ppocr_v2_cls.onnx"];
    let there = |name: &&str| located(name).is_file();
    all.into_iter().filter(there).collect()
}

fn located(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/models");
    std::env::var_os("BNKIT_MODELS")
        .map_or(beside, PathBuf::from)
        .join(name)
}

fn opened(name: &str) -> Model {
    Model::open(&located(name)).expect("a model")
}

fn planned(model: &Model) -> Plan {
    fold::plan(model, &Options::default()).expect("a plan")
}

/// The structure of a file, without the elements of its tensors.
#[divan::bench_group]
mod parse {
    use super::*;

    #[divan::bench(args = NORMS, max_time = 3)]
    fn many_norms(bencher: Bencher, norms: usize) {
        let bytes = chain(norms, 8);
        bencher
            .counter(ItemsCount::new(norms))
            .with_inputs(|| bytes.clone())
            .bench_values(|bytes| Model::from_bytes(bytes).expect("a chain"));
    }

    #[divan::bench]
    fn wide_file() -> Model {
        Model::open(black_box(wide())).expect("a file")
    }

    #[divan::bench(args = real())]
    fn real_model(name: &str) -> Model {
        opened(black_box(name))
    }
}

/// Types and shapes of all values.
#[divan::bench(args = NORMS, max_time = 3)]
fn view(bencher: Bencher, norms: usize) {
    let model = many(norms);
    bencher
        .counter(ItemsCount::new(norms))
        .bench(|| Types::derive(black_box(&model)));
}

/// What can be folded, and the edits that do it. Small constants are read, weights are not.
#[divan::bench_group]
mod plan {
    use super::*;

    #[divan::bench(args = NORMS, max_time = 3)]
    fn many_norms(bencher: Bencher, norms: usize) {
        let model = many(norms);
        bencher
            .counter(ItemsCount::new(norms))
            .bench(|| planned(black_box(&model)));
    }

    #[divan::bench]
    fn wide_file(bencher: Bencher) {
        let model = Model::open(wide()).expect("a file");
        bencher.bench(|| planned(black_box(&model)));
    }

    #[divan::bench(args = real())]
    fn real_model(bencher: Bencher, name: &str) {
        let model = opened(name);
        bencher.bench(|| planned(black_box(&model)));
    }
}

/// New weights and biases from old ones, in f64, rounded once: all that a plan computes.
#[divan::bench]
fn apply(bencher: Bencher) {
    let model = Model::open(wide()).expect("a file");
    let plan = planned(&model);
    let folded = plan.apply();
    let computed: Vec<_> = folded
        .constants()
        .filter(|tensor| matches!(tensor.payload, Payload::Computed(_)))
        .collect();
    let elements: usize = computed.iter().map(|tensor| tensor.len()).sum();
    assert!(elements >= 16 << 20, "{elements} elements are computed");
    bencher.counter(BytesCount::new(elements * 4)).bench(|| {
        for tensor in &computed {
            black_box(folded.read_tensor(tensor).expect("a tensor"));
        }
    });
}

/// All of a folded file: 64 MB, most of them computed on the way.
#[divan::bench_group]
mod save {
    use super::*;

    #[divan::bench]
    fn to_bytes(bencher: Bencher) {
        let model = Model::open(wide()).expect("a file");
        let plan = planned(&model);
        bencher
            .counter(BytesCount::new(64usize << 20))
            .bench(|| plan.apply().to_bytes(Precision::Stored).expect("bytes"));
    }

    #[divan::bench]
    fn to_a_file(bencher: Bencher) {
        let model = Model::open(wide()).expect("a file");
        let plan = planned(&model);
        let out = wide().with_file_name("out.onnx");
        let options = || SaveOptions {
            force: true,
            ..SaveOptions::default()
        };
        bencher
            .counter(BytesCount::new(64usize << 20))
            .bench(|| plan.apply().save(&out, options()).expect("a file"));
    }
}

/// Mean and squared deviations of each channel of an activation.
#[divan::bench(args = [(64, 12_544), (256, 3_136), (512, 49), (2_048, 49)])]
fn moments(bencher: Bencher, (channels, pixels): (usize, usize)) {
    let data: Vec<f32> = (0..channels * pixels)
        .map(|at| (at * 37 % 101) as f32 / 50.0 - 1.0)
        .collect();
    bencher
        .counter(BytesCount::of_slice(&data))
        .bench(|| Moments::of_planes(black_box(&data), 1, channels, pixels));
}

/// The first level of the proof: every changed constant is computed once more, another way.
#[divan::bench_group(sample_count = 10)]
mod level_1 {
    use super::*;

    fn check(model: &Model, plan: &Plan) {
        let found = algebra::check_merged(model, plan.apply(), &plan.routes, &plan.merges)
            .expect("it can be read");
        assert!(found.failures.is_empty());
        assert!(found.checked > 0, "nothing was folded");
        assert_eq!(found.checked, plan.routes.len() + plan.merges.len());
    }

    #[divan::bench(args = NORMS, max_time = 3)]
    fn many_norms(bencher: Bencher, norms: usize) {
        let model = many(norms);
        let plan = planned(&model);
        bencher
            .counter(ItemsCount::new(norms))
            .bench(|| check(&model, &plan));
    }

    #[divan::bench]
    fn wide_file(bencher: Bencher) {
        let model = Model::open(wide()).expect("a file");
        let plan = planned(&model);
        bencher.bench(|| check(&model, &plan));
    }

    #[divan::bench(args = real())]
    fn real_model(bencher: Bencher, name: &str) {
        let model = opened(name);
        let plan = planned(&model);
        bencher.bench(|| check(&model, &plan));
    }
}

/// The whole proof: the first level, and both models run in f32 and f64.
#[divan::bench_group(sample_count = 5)]
mod proof {
    use super::*;

    fn prove(bencher: Bencher, model: &Model) {
        let plan = planned(model);
        let (options, verify) = (Options::default(), VerifyOptions::default());
        bencher.bench(|| {
            let proof = verify::prove(model, &plan, &options, &verify).expect("a proof");
            assert_eq!(proof.verdict, Verdict::Equivalent, "{:?}", proof.notes);
        });
    }

    #[divan::bench]
    fn wide_file(bencher: Bencher) {
        prove(bencher, &Model::open(wide()).expect("a file"));
    }

    #[divan::bench(args = real())]
    fn real_model(bencher: Bencher, name: &str) {
        prove(bencher, &opened(name));
    }
}
