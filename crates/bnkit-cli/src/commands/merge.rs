//! `bnkit merge`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use bnkit::calibrate::{self, Interrupt, MergeJob, Stability};

use bnkit_model::format::Format;

use super::{Answer, answer, target};
use crate::args::merge::Merge;
use crate::output::Output;
use crate::progress::Bar;

pub(super) fn run(args: &Merge, force: bool, output: &Output) -> anyhow::Result<Answer> {
    let Some(model) = &args.model else {
        bail!("--model MODEL is missing: which model were the shards made with?");
    };
    let fold = args.fold.job(false, |_| {})?;
    let out = args.output.clone();
    let out = out.unwrap_or_else(|| target::recalibrated(Format::Onnx, model, fold.is_some()));
    target::writable(&out, model, force)?;
    let mut files: Vec<&Path> = vec![model, &out];
    files.extend(args.partials.iter().map(PathBuf::as_path));
    output.check(&files)?;
    let job = MergeJob {
        partials: args.partials.clone(),
        input: model.clone(),
        output: Some(out),
        force,
        hash: output.wants_hashes(),
        stability: Stability::default(),
        fold,
        interrupt: Interrupt::default(),
    };
    let report = calibrate::merge(&job, &Bar::new(output.quiet()))?;
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}
