//! `bnkit fold --no-verify` against copying the same file and syncing the copy (a fold syncs, too): time and memory.
//!
//! ```sh
//! cargo bench -p bnkit-cli --bench fold                    # two synthetic models of 100 MB and 240 MB
//! cargo bench -p bnkit-cli --bench fold -- a.onnx b.onnx   # these models
//! ```
//!
//! The two commands run in turn, A B A B …, so that the ratio holds when the machine's speed drifts. Quote medians.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

mod common;

use bnkit_model::DType;
use bnkit_model::onnx::TensorType;
use bnkit_model::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};
use common::timed;
use prost::Message;

const ROUNDS: usize = 9;

fn main() {
    let given: Vec<PathBuf> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .map(PathBuf::from)
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let models = if given.is_empty() {
        [100, 240]
            .map(|megabytes| synthetic(folder.path(), megabytes))
            .to_vec()
    } else {
        given
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "medians of {ROUNDS} rounds, fold and copy in turn\n").expect("stdout");
    writeln!(
        out,
        "| model | MB | fold s | copy + sync s | ratio (min–max) | peak MB | of the model |"
    )
    .expect("stdout");
    writeln!(out, "| --- | --- | --- | --- | --- | --- | --- |").expect("stdout");
    for model in &models {
        writeln!(out, "{}", measure(model, folder.path())).expect("stdout");
    }
}

fn measure(model: &Path, folder: &Path) -> String {
    let (folded, copied) = (folder.join("folded.onnx"), folder.join("copied.onnx"));
    let (mut folds, mut copies, mut peak) = (Vec::new(), Vec::new(), 0);
    for round in 0..=ROUNDS {
        let (fold, memory) = timed(
            Command::new(env!("CARGO_BIN_EXE_bnkit"))
                .arg("fold")
                .arg(model)
                .args(["--no-verify", "--force", "--quiet", "-o"])
                .arg(&folded),
        );
        let start = Instant::now();
        timed(Command::new("cp").arg(model).arg(&copied));
        timed(Command::new("sync").arg(&copied));
        let copy = start.elapsed();
        // The first round warms the page cache.
        if round > 0 {
            folds.push(fold);
            copies.push(copy);
            peak = peak.max(memory);
        }
    }
    let mut ratios: Vec<f64> = folds
        .iter()
        .zip(&copies)
        .map(|(fold, copy)| fold.as_secs_f64() / copy.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    folds.sort();
    copies.sort();
    let megabytes = std::fs::metadata(model).expect("the model").len() as f64 / 1e6;
    let peak = peak as f64 / 1e3;
    let name = model.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "| {name} | {megabytes:.0} | {:.3} | {:.3} | {:.2} ({:.2}–{:.2}) | {peak:.1} | {:.0} % |",
        folds[ROUNDS / 2].as_secs_f64(),
        copies[ROUNDS / 2].as_secs_f64(),
        ratios[ROUNDS / 2],
        ratios[0],
        ratios[ROUNDS - 1],
        100.0 * peak / megabytes,
    )
}

/// A chain of Conv and BatchNorm, 512 channels and 3×3 kernels (9.4 MB each), of about this size.
fn synthetic(folder: &Path, megabytes: usize) -> PathBuf {
    const CHANNELS: usize = 512;
    let layers = (megabytes * 1_000_000).div_ceil(CHANNELS * CHANNELS * 9 * 4);
    let tensor = |name: String, dims: &[usize], at: &dyn Fn(usize) -> f32| {
        let sizes: Vec<i64> = dims.iter().map(|&dim| dim as i64).collect();
        TensorProto::floats(name, &sizes, (0..dims.iter().product()).map(at))
    };
    let port = |name: &str| {
        let declared = TensorType::known(DType::F32, &[1, CHANNELS, 16, 16]);
        ValueInfoProto::tensor(name, &declared)
    };
    let mut graph = GraphProto {
        name: Some("chain".to_owned()),
        ..Default::default()
    };
    let mut value = "input".to_owned();
    graph.input.push(port(&value));
    for layer in 0..layers {
        let name = |part: &str| format!("layer{layer}.{part}");
        graph.initializer.push(tensor(
            name("conv.weight"),
            &[CHANNELS, CHANNELS, 3, 3],
            &|index| (index % 1009) as f32 * 1e-5 - 5e-3,
        ));
        for (part, offset) in [
            ("bn.weight", 0.5),
            ("bn.bias", -0.1),
            ("bn.running_mean", 0.0),
            ("bn.running_var", 0.7),
        ] {
            graph
                .initializer
                .push(tensor(name(part), &[CHANNELS], &|index| {
                    offset + index as f32 * 1e-3
                }));
        }
        let inputs = [value, name("conv.weight")];
        graph.node.push(NodeProto {
            attribute: vec![AttributeProto {
                name: Some("pads".to_owned()),
                r#type: Some(7),
                ints: vec![1, 1, 1, 1],
                ..Default::default()
            }],
            ..NodeProto::of("Conv", inputs, [name("conv_out")]).named(name("conv"))
        });
        let parameters = ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"].map(name);
        value = name("bn_out");
        let inputs = [vec![name("conv_out")], parameters.to_vec()].concat();
        let norm = NodeProto::of("BatchNormalization", inputs, [value.clone()]);
        graph.node.push(norm.named(name("bn")));
    }
    graph.output.push(port(&value));
    let model = ModelProto::of(graph, 17);
    let path = folder.join(format!("chain-{megabytes}.onnx"));
    std::fs::write(&path, model.encode_to_vec()).expect("the model is written");
    path
}
