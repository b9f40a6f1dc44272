//! `bnkit recalibrate`.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use bnkit::calibrate::{
    self, FoldAfter, Interrupt, MethodOptions, RecalibrateJob, Shard, Source, Stability,
};

use super::{Answer, answer, target};
use crate::args::recalibrate::Recalibrate;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Bar;

pub(super) fn run(args: &Recalibrate, force: bool, output: &Output) -> anyhow::Result<Answer> {
    let source = source(args)?;
    let fold = fold(args, &source)?;
    let out = destination(args, fold.is_some())?;
    match (&args.partial, &out) {
        (Some(partial), _) => target::file(partial, &[&args.model], force)?,
        (None, Some(out)) => target::writable(out, &args.model, force)?,
        (None, None) => {}
    }
    let written = [Some(&args.model), out.as_ref(), args.partial.as_ref()];
    let written: Vec<&Path> = written
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    output.check(&written)?;

    let bar = Bar::new(output.quiet());
    let job = RecalibrateJob {
        output: out,
        force,
        hash: output.wants_hashes(),
        fold,
        ..job(args, source, interrupt::on_signals(&bar)?)
    };
    let report = calibrate::recalibrate(&job, &bar)?;
    drop(bar);
    if let Some(partial) = report.partial.as_ref().filter(|partial| !partial.complete) {
        bail!(
            "interrupted: {} holds the {} batches that had run, and says so",
            partial.path,
            partial.batches
        );
    }
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}

/// What the arguments say, but for the output.
pub(super) fn job(args: &Recalibrate, source: Source, interrupt: Interrupt) -> RecalibrateJob {
    RecalibrateJob {
        input: args.model.clone(),
        graph: args.estimate.graph.clone(),
        output: None,
        force: false,
        hash: false,
        source,
        method: MethodOptions {
            method: args.estimate.method,
            convention: args.estimate.convention,
            momentum: args.momentum,
            tolerance: args.tolerance,
            passes: args.passes.get(),
        },
        selection: args.estimate.which.selection(),
        shard: args.shard.unwrap_or(Shard::WHOLE),
        partial: args.partial.clone(),
        stability: Stability::default(),
        until_stable: args.estimate.until_stable,
        dropout: args.estimate.dropout,
        threads: 0,
        max_accuracy_drop: args.max_accuracy_drop,
        fold: None,
        interrupt,
    }
}

pub(super) fn source(args: &Recalibrate) -> anyhow::Result<Source> {
    match &args.from {
        Some(_) if args.data.data.is_some() => {
            bail!("--from takes statistics from a file and --data makes them: say one of the two")
        }
        Some(stats) => Ok(Source::Stats(stats.clone())),
        None => Ok(Source::Data(args.data.options()?)),
    }
}

/// The fold that is to follow; its proof runs on the first samples of the data, if these are tensors.
fn fold(args: &Recalibrate, source: &Source) -> anyhow::Result<Option<FoldAfter>> {
    args.fold.job(args.estimate.which.assume_constant, |proof| {
        proof.shapes.clone_from(&args.data.shapes);
        if let Source::Data(data) = source {
            data.prove_on(proof);
        }
    })
}

/// The model to write; none for a partial.
fn destination(args: &Recalibrate, folded: bool) -> anyhow::Result<Option<PathBuf>> {
    if args.partial.is_some() {
        ensure!(
            args.output.is_none(),
            "--partial writes no model: leave -o out, and name it when bnkit merge puts the parts together"
        );
        return Ok(None);
    }
    let out = args.output.clone();
    match out {
        Some(out) => Ok(Some(out)),
        None => {
            let format = bnkit::checkpoint::format(&args.model)?;
            Ok(Some(target::recalibrated(format, &args.model, folded)))
        }
    }
}
