//! What may be said on the command line, and what each word means; nothing of what is done with it.
//!
//! One file per command, and one per group of options that several commands share. Rules between options live with
//! the command that obeys them, because an option may come from the configuration file too.

pub(crate) mod batches;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod data;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod fold;
pub(crate) mod fold_after;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod merge;
pub(crate) mod method;
pub(crate) mod pair;
pub(crate) mod proof;
pub(crate) mod recalibrate;
pub(crate) mod release;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod shared;
pub(crate) mod state_dict;
pub(crate) mod stats;
pub(crate) mod unfold;
pub(crate) mod validate;
mod values;
pub(crate) mod verify;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done, nothing to object to
  1  the answer is no: not equivalent, drifted or bad statistics, a check failed, a --require… missed; no model is written
  2  it could not work: bad arguments, unreadable or unsupported input, I/O; no model is written";

/// What `--version` says; `-V` stops after the first line.
const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("BNKIT_BUILD_COMMIT"),
    "\ntarget: ",
    env!("BNKIT_BUILD_TARGET"),
    "\nrustc: ",
    env!("BNKIT_BUILD_RUSTC"),
);

/// Fold BatchNorm out of trained checkpoints, exactly, and prove it
///
/// bnkit takes an ONNX model whose BatchNorm layers still carry running statistics and turns it into an eval-only model
/// that computes the same: every BatchNorm that can be folded exactly becomes part of its neighbours' constants,
/// every other one stays and you are told why.
#[derive(Debug, Parser)]
#[command(name = "bnkit", version, long_version = BUILD, propagate_version = true, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) shared: shared::Shared,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Fold(fold::Fold),
    Check(check::Check),
    Inspect(inspect::Inspect),
    Recalibrate(recalibrate::Recalibrate),
    Validate(validate::Validate),
    Run(run::Run),
    Stats(stats::Stats),
    Merge(merge::Merge),
    Verify(verify::Verify),
    Diff(diff::Diff),
    Pair(pair::Pair),
    Unfold(unfold::Unfold),
    Convert(convert::Convert),
    Release(release::Release),
    Explain(explain::Explain),
    Completions(completions::Completions),
    Man(man::Man),
}
