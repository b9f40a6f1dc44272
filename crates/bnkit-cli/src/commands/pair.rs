//! `bnkit pair`.

use std::path::Path;

use bnkit::state::{self, PairJob};

use super::{Answer, target};
use crate::args::pair::Pair;
use crate::output::Output;

pub(super) fn run(args: &Pair, force: bool, output: &Output) -> anyhow::Result<Answer> {
    let mut files: Vec<&Path> = vec![&args.model];
    if let Some(out) = &args.output {
        target::file(out, &[&args.model], force)?;
        files.push(out);
    }
    output.check(&files)?;
    let report = state::pair(&PairJob {
        input: args.model.clone(),
        output: args.output.clone(),
        force,
        preset: (args.preset != "auto").then(|| args.preset.clone()),
        epsilon: args.eps,
    })?;
    output.result(&report)?;
    Ok(Answer::Yes)
}
