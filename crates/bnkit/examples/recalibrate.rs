//! New running statistics from arrays that the program has in memory, or from a file, with a time limit.
//!
//!     cargo run --release --example recalibrate -- MODEL.onnx OUT.onnx [DATA.npy]

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bnkit::calibrate::{
    DataOptions, Interrupt, RecalibrateJob, RecalibrateReport, Source, recalibrate,
};
use bnkit::model::Tensor;
use bnkit::pipeline::Quiet;

/// 64 pictures of 3×32×32, where a real program would take its own: element (n, c, h, w) at ((n·3 + c)·32 + h)·32 + w.
pub(crate) fn pictures() -> bnkit::Result<Tensor> {
    let count = 64 * 3 * 32 * 32;
    let values: Vec<f32> = (0..count).map(|at| (at as f32 * 0.37).sin()).collect();
    Ok(Tensor::from_f32(vec![64, 3, 32, 32], &values)?)
}

/// Gives the BatchNorms of `input` statistics of `data` and writes `output`.
pub(crate) fn run(
    input: &Path,
    data: DataOptions,
    output: &Path,
) -> bnkit::Result<RecalibrateReport> {
    let interrupt = Interrupt::default();
    let mut job = RecalibrateJob::new(input, "", output);
    job.source = Source::Data(DataOptions {
        batch_size: 8,
        ..data
    });
    job.force = true; // an earlier output may be replaced
    job.interrupt = interrupt.clone();
    // Ctrl-C would do the same. The job ends between two batches, and nothing is written.
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(600));
        interrupt.request();
    });
    let report = recalibrate(&job, &Quiet)?;
    for layer in &report.layers {
        if let Some(change) = &layer.change {
            println!(
                "{}: the means move by up to {:.3} deviations",
                layer.layer.node, change.mean_shift.max
            );
        }
    }
    if let Some(sampling) = &report.sampling {
        println!("enough data: {:?}", sampling.enough);
    }
    Ok(report)
}

#[allow(dead_code, reason = "the tests call run")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &args[..] {
        [input, output] => pictures()
            .map(|pictures| DataOptions::of_tensors([("", pictures)]))
            .and_then(|data| run(input.as_ref(), data, output.as_ref())),
        [input, output, data] => run(input.as_ref(), DataOptions::new(data), output.as_ref()),
        _ => {
            eprintln!("usage: recalibrate MODEL.onnx OUT.onnx [DATA.npy]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
