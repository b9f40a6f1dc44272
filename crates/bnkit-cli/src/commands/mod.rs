//! What each command does with its arguments: check them, call the library once, print, and answer yes or no.

mod check;
mod completions;
mod convert;
mod diff;
mod explain;
mod fold;
mod inspect;
mod man;
mod merge;
mod pair;
mod recalibrate;
mod release;
mod run;
mod stats;
mod target;
mod unfold;
mod validate;
mod verify;

use anyhow::Context;

use crate::args::{Cli, Command};
use crate::output::{self, Output};

/// The answer of a command that worked: exit code 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
}

/// Runs what the command line asks for.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Answer> {
    anstream::ColorChoice::write_global(cli.shared.color.into());
    if let Some(threads) = cli.shared.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        pool.build_global()
            .context("--threads: the threads cannot be started")?;
    }
    let output = Output::new(&cli.shared);
    match cli.command {
        Command::Fold(args) => fold::run(&args, cli.shared.force, &output),
        Command::Check(args) => check::run(&args, &output),
        Command::Inspect(args) => inspect::run(&args, &output),
        Command::Recalibrate(args) => recalibrate::run(&args, cli.shared.force, &output),
        Command::Validate(args) => validate::run(&args, &output),
        Command::Run(args) => run::run(&args, cli.shared.force, &output),
        Command::Stats(args) => stats::run(&args, cli.shared.force, &output),
        Command::Merge(args) => merge::run(&args, cli.shared.force, &output),
        Command::Verify(args) => verify::run(&args, &output),
        Command::Diff(args) => diff::run(&args, &output),
        Command::Pair(args) => pair::run(&args, cli.shared.force, &output),
        Command::Unfold(args) => unfold::run(&args, cli.shared.force, &output),
        Command::Convert(args) => convert::run(&args, cli.shared.force, &output),
        Command::Release(args) => release::run(
            &args,
            cli.shared.config.as_deref(),
            cli.shared.force,
            &output,
        ),
        Command::Explain(args) => explain::run(&args, &output),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// "No" if there is something to object to, which stderr then says.
fn answer(failure: Option<&str>) -> Answer {
    match failure {
        None => Answer::Yes,
        Some(why) => {
            output::failed(why);
            Answer::No
        }
    }
}
