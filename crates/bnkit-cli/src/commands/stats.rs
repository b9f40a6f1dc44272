//! `bnkit stats`.

use std::path::Path;

use bnkit::calibrate::{self, StatsJob};

use super::{Answer, target};
use crate::args::stats::Stats;
use crate::output::Output;

pub(super) fn run(args: &Stats, force: bool, output: &Output) -> anyhow::Result<Answer> {
    let mut files: Vec<&Path> = vec![&args.model];
    if let Some(out) = &args.output {
        target::file(out, &[&args.model], force)?;
        files.push(out);
    }
    output.check(&files)?;
    let report = calibrate::stats(&StatsJob {
        input: args.model.clone(),
        output: args.output.clone(),
        force,
        hash: output.wants_hashes(),
        selection: args.which.selection(),
    })?;
    output.result(&report)?;
    Ok(Answer::Yes)
}
