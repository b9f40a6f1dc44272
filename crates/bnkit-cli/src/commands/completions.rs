//! `bnkit completions`.

use clap::CommandFactory;

use super::Answer;
use crate::args::Cli;
use crate::args::completions::Completions;
use crate::output;

pub(super) fn run(args: &Completions) -> anyhow::Result<Answer> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bnkit", &mut script);
    output::raw(&script)?;
    Ok(Answer::Yes)
}
