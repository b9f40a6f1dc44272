//! Folding a model, with progress and a report.
//!
//!     cargo run --release --example fold -- MODEL.onnx OUT.onnx

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use bnkit::pipeline::{FoldJob, Phase, Progress, fold};
use bnkit::report::{Decision, FoldReport};

/// Tells on stderr what is going on.
#[derive(Default)]
struct Told {
    total: AtomicU64,
}

impl Progress for Told {
    fn begin(&self, phase: Phase, total: Option<u64>) {
        self.total.store(total.unwrap_or(0), Ordering::Relaxed);
        eprintln!("{phase:?} …");
    }

    fn advance(&self, done: u64) {
        let total = self.total.load(Ordering::Relaxed);
        if let Some(percent) = (100 * done).checked_div(total) {
            eprintln!("  {percent} %");
        }
    }
}

/// Folds `input` into `output`. A fold that fails its proof is a report with a `failure`, and writes nothing.
pub(crate) fn run(input: &Path, output: &Path) -> bnkit::Result<FoldReport> {
    let mut job = FoldJob::new(input, output);
    job.force = true; // an earlier output may be replaced
    job.fold.skip = vec!["/head/*".to_owned()];
    let report = fold(&job, &Told::default())?;
    for site in &report.sites {
        match (&site.decision, &site.refusal) {
            (Decision::Folded, _) => println!("{} → {}", site.node, site.into.join(", ")),
            (_, Some(refusal)) => println!("{} stays: {}", site.node, refusal.code),
            (decision, None) => println!("{}: {decision:?}", site.node),
        }
    }
    if let Some(proof) = &report.verification {
        println!("{}", proof.verdict.name());
    }
    Ok(report)
}

#[allow(dead_code, reason = "the tests call run")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = &args[..] else {
        eprintln!("usage: fold MODEL.onnx OUT.onnx");
        return ExitCode::from(2);
    };
    match run(input.as_ref(), output.as_ref()) {
        Ok(report) => match report.failure {
            None => ExitCode::SUCCESS,
            Some(why) => {
                eprintln!("failed: {why}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
