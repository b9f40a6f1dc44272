//! A gate of one's own: look at a model, plan, prove, and write only what passes.
//!
//!     cargo run --release --example gate -- MODEL.onnx OUT.onnx

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

use std::path::Path;
use std::process::ExitCode;

use bnkit::checkpoint::{Checkpoint, Content};
use bnkit::fold::{Options, plan};
use bnkit::model::onnx::SaveOptions;
use bnkit::report::Verdict;
use bnkit::verify::{VerifyOptions, prove};
use bnkit::{Error, Result};

/// The least signal-to-noise ratio of each output, in dB, against the original in f32.
const LEAST_SNR: f64 = 90.0;

/// Folds `input` into `output` if every BatchNorm can go, the proof is end to end, and no output is noisier than [`LEAST_SNR`];
/// else says what is wrong.
pub(crate) fn run(input: &Path, output: &Path) -> Result<Option<String>> {
    let checkpoint = Checkpoint::open(input)?;
    let Content::Onnx(model) = checkpoint.content else {
        return Err(Error::Request(format!(
            "{}: a gate needs a graph",
            input.display()
        )));
    };
    let options = Options::default();
    let plan = plan(&model, &options)?;
    println!(
        "{} of {} BatchNorms can be folded",
        plan.summary.folded, plan.summary.batch_norms
    );
    if let Some(kept) = plan.sites.iter().find(|site| site.refusal.is_some()) {
        return Ok(Some(format!("{} has to stay", kept.node)));
    }
    let proof = prove(&model, &plan, &options, &VerifyOptions::default())?;
    if proof.verdict != Verdict::Equivalent {
        return Ok(Some(format!("the proof says {}", proof.verdict.name())));
    }
    for output in &proof.outputs {
        // Without noise there is no ratio.
        if output.snr_db.is_some_and(|snr| snr < LEAST_SNR) {
            return Ok(Some(format!("output {:?} is too noisy", output.name)));
        }
    }
    plan.apply().save(
        output,
        SaveOptions {
            force: true, // an earlier output may be replaced
            progress: None,
        },
    )?;
    Ok(None)
}

#[allow(dead_code, reason = "the tests call run")]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = &args[..] else {
        eprintln!("usage: gate MODEL.onnx OUT.onnx");
        return ExitCode::from(2);
    };
    match run(input.as_ref(), output.as_ref()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(why)) => {
            eprintln!("no: {why}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
