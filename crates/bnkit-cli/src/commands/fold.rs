//! `bnkit fold`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use bnkit::calibrate::Interrupt;
use bnkit::checkpoint;
use bnkit::fold::Options;
use bnkit::pipeline::FoldJob;
use bnkit::profile;
use bnkit::state::{self, PairingOptions};
use bnkit_model::format::Format;

use super::{Answer, answer, target};
use crate::args::fold::Fold;
use crate::args::state_dict::StateDict;
use crate::output::{self, Output};
use crate::progress::Bar;

pub(super) fn run(args: &Fold, force: bool, output: &Output) -> anyhow::Result<Answer> {
    if args.no_verify && args.proof.end_to_end() {
        bail!("--require end-to-end asks for a proof and --no-verify forbids it");
    }
    let format = checkpoint::format(&args.model)?;
    let out = args
        .output
        .clone()
        .unwrap_or_else(|| target::beside_as(format, &args.model, "folded"));
    let out = (!args.dry_run).then_some(out);
    if let Some(out) = &out {
        target::writable(out, &args.model, force)?;
    }
    if let Some(stats) = &args.keep_stats {
        output::folder_exists(stats)?;
        let same = |other: &Path| output::same_file(stats, other) || stats == other;
        if same(&args.model) || out.as_deref().is_some_and(same) {
            bail!("--keep-stats: {} is the model itself", stats.display());
        }
    }
    let models: Vec<&Path> = [
        Some(args.model.as_path()),
        out.as_deref(),
        args.keep_stats.as_deref(),
    ]
    .into_iter()
    .flatten()
    .collect();
    output.check(&models)?;

    let bar = Bar::new(output.quiet());
    let hash = output.wants_hashes();
    let job = job(args, out, force, hash);
    let mut report = state::fold_checkpoint(&job, &pairing(&args.state_dict), &bar)?;
    let written = report.output.as_ref().map(|it| PathBuf::from(&it.path));
    // Where the input was replaced, nobody can look at it any more.
    let replaced = written
        .as_ref()
        .is_some_and(|it| output::same_file(it, &args.model));
    if output.wants_plots() && format == Format::Onnx && !replaced {
        report.profiles = profile::profiles(&args.model, written.as_deref(), &report.sites)?;
    }
    drop(bar);
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}

pub(super) fn job(args: &Fold, output: Option<PathBuf>, force: bool, hash: bool) -> FoldJob {
    FoldJob {
        input: args.model.clone(),
        output,
        force,
        hash,
        provenance: args.provenance,
        fold: options(args),
        keep_stats: args.keep_stats.clone(),
        verify: (!args.no_verify).then(|| args.proof.options()),
        require_end_to_end: args.proof.end_to_end(),
        require_all_folded: args.require_all_folded,
        min_folded: args.min_folded,
        interrupt: Interrupt::default(),
    }
}

fn options(args: &Fold) -> Options {
    Options {
        only: args.only.clone(),
        skip: args.skip.clone(),
        assume_constant: args.assume_constant,
        allow_bad_statistics: args.allow_bad_statistics,
        through_branches: args.through_branches,
        aggressive: args.aggressive,
        lower: args.lower,
        merge_branches: args.merge_branches,
        per_channel_scales: args.per_channel_scales,
        ..Options::default()
    }
}

fn pairing(args: &StateDict) -> PairingOptions {
    PairingOptions {
        graph: args.graph.clone(),
        pairs: args.pairs.clone(),
        preset: args.preset.clone(),
        confirmed: args.yes,
        epsilon: args.eps,
        identity: args.identity_bn,
    }
}
