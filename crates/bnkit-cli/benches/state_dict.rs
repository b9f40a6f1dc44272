//! A sharded state dict of 3 GB: `bnkit inspect`, and `bnkit fold` with and without the proof, against copying the same files
//! and syncing the copies (a fold syncs, too). Time and memory of whole processes.
//!
//! ```sh
//! cargo bench -p bnkit-cli --bench state_dict          # 3 GB: needs 10 GB of disk
//! cargo bench -p bnkit-cli --bench state_dict -- 500   # 500 MB
//! ```
//!
//! The commands run in turn, A B C A B C …, so that the ratios hold when the machine's speed drifts. Quote medians.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bnkit_model::Tensor;
use bnkit_model::safetensors::{NewFile, NewTensor, save_sharded};
use common::timed;

const ROUNDS: usize = 5;
const CHANNELS: usize = 512;
const SHARDS: usize = 3;

fn main() {
    let size = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok());
    let megabytes: usize = size.unwrap_or(3000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (index, files) = checkpoint(folder.path(), megabytes);
    let pairs = folder.path().join("pairs.yaml");
    let text = "eps: 1e-5\npairs:\n- conv: 'layers.{n}.conv'\n  bn: 'layers.{n}.bn'\n";
    std::fs::write(&pairs, text).expect("the pairing file");
    let out = folder.path().join("out.safetensors.index.json");
    let bnkit = || Command::new(env!("CARGO_BIN_EXE_bnkit"));
    let fold = |proof: bool| {
        let mut command = bnkit();
        command.arg("fold").arg(&index).arg("--pairs").arg(&pairs);
        command.args(["--force", "--quiet", "-o"]).arg(&out);
        if !proof {
            command.arg("--no-verify");
        }
        timed(&mut command)
    };
    // (what, seconds of each round, peak kB)
    let mut rows: Vec<(&str, Vec<f64>, u64)> =
        ["inspect", "fold --no-verify", "fold, proved", "cp + sync"]
            .map(|what| (what, Vec::new(), 0))
            .to_vec();
    for round in 0..=ROUNDS {
        let mut inspect = bnkit();
        inspect.arg("inspect").arg(&index);
        let copy = Instant::now();
        for file in &files {
            let copied = file.with_extension("copy");
            timed(Command::new("cp").arg(file).arg(&copied));
            timed(Command::new("sync").arg(&copied));
        }
        let copy = (copy.elapsed(), 0);
        let runs = [timed(&mut inspect), fold(false), fold(true), copy];
        // The first round warms the page cache.
        for (row, (time, peak)) in rows.iter_mut().zip(runs).filter(|_| round > 0) {
            row.1.push(time.as_secs_f64());
            row.2 = row.2.max(peak);
        }
    }
    let copies = rows.last().map(|row| row.1.clone()).unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    let mut line = |text: String| writeln!(stdout, "{text}").expect("stdout");
    let largest = CHANNELS * CHANNELS * 9 * 4;
    line(format!(
        "{megabytes} MB in {SHARDS} shards, largest tensor {:.1} MB; medians of {ROUNDS} rounds in turn\n",
        largest as f64 / 1e6
    ));
    line("| command | s | of cp + sync (min–max) | peak MB |".to_owned());
    line("| --- | --- | --- | --- |".to_owned());
    for (what, times, peak) in &rows {
        let mut ratios: Vec<f64> = times.iter().zip(&copies).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        line(format!(
            "| {what} | {:.3} | {:.2} ({:.2}–{:.2}) | {:.1} |",
            times[ROUNDS / 2],
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1],
            *peak as f64 / 1e3
        ));
    }
}

/// Layers of Conv and BatchNorm, 512 channels and 3×3 kernels (9.4 MB each), of about this size: the index, and all files.
fn checkpoint(folder: &Path, megabytes: usize) -> (PathBuf, Vec<PathBuf>) {
    let layers = (megabytes * 1_000_000).div_ceil(CHANNELS * CHANNELS * 9 * 4);
    let values =
        |count: usize, at: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..count).map(at).collect() };
    let kernel = values(CHANNELS * CHANNELS * 9, &|index| {
        (index % 1009) as f32 * 1e-5 - 5e-3
    });
    let kernel = Tensor::from_f32(vec![CHANNELS, CHANNELS, 3, 3], &kernel).expect("a kernel");
    let mut files: Vec<NewFile<'_>> = (0..SHARDS).map(|_| NewFile::default()).collect();
    for layer in 0..layers {
        let tensors = &mut files[layer * SHARDS / layers].tensors;
        let mut add = |part: &str, tensor: &Tensor| {
            let name = format!("layers.{layer}.{part}");
            tensors.push(NewTensor::of_values(name, tensor).expect("an f32 tensor"));
        };
        add("conv.weight", &kernel);
        for (part, offset) in [
            ("bn.weight", 0.5),
            ("bn.bias", -0.1),
            ("bn.running_mean", 0.0),
            ("bn.running_var", 0.7),
        ] {
            let vector = values(CHANNELS, &|index| offset + index as f32 * 1e-3);
            add(
                part,
                &Tensor::from_f32(vec![CHANNELS], &vector).expect("a vector"),
            );
        }
    }
    let index = folder.join("net.safetensors.index.json");
    let saved = save_sharded(&index, files, &[], Default::default()).expect("the checkpoint");
    (index, saved.files)
}
