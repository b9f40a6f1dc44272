//! `bnkit run`.

use std::path::Path;

use anyhow::ensure;
use bnkit::calibrate::{self, RunJob};

use super::{Answer, target};
use crate::args::run::Run;
use crate::interrupt;
use crate::output::Output;
use crate::progress::Bar;

pub(super) fn run(args: &Run, force: bool, output: &Output) -> anyhow::Result<Answer> {
    let data = args.data.options()?;
    let mut files: Vec<&Path> = vec![&args.model];
    if let Some(out) = &args.output {
        let is_npz = out
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("npz"));
        ensure!(is_npz, "{}: outputs are written as .npz", out.display());
        target::file(out, &[&args.model, &data.path], force)?;
        files.push(out);
    }
    output.check(&files)?;
    let bar = Bar::new(output.quiet());
    let job = RunJob {
        input: args.model.clone(),
        hash: output.wants_hashes(),
        data,
        mode: args.mode.into(),
        output: args.output.clone(),
        force,
        dropout: args.dropout,
        threads: 0,
        interrupt: interrupt::on_signals(&bar)?,
    };
    let report = calibrate::run(&job, &bar)?;
    drop(bar);
    output.result(&report)?;
    Ok(Answer::Yes)
}
