//! `bnkit check`.

use bnkit::check::{self, CheckJob, CheckOptions};
use bnkit::fold::Options;

use super::{Answer, answer};
use crate::args::check::Check;
use crate::output::Output;
use crate::progress::Bar;

pub(super) fn run(args: &Check, output: &Output) -> anyhow::Result<Answer> {
    output.check(&[&args.model])?;
    let job = job(args, output.wants_hashes());
    let bar = Bar::new(output.quiet());
    let report = check::check(&job, &bar)?;
    drop(bar);
    output.result(&report)?;
    Ok(answer(report.failure.as_deref()))
}

pub(super) fn job(args: &Check, hash: bool) -> CheckJob {
    CheckJob {
        input: args.model.clone(),
        hash,
        options: CheckOptions {
            levels: args.levels.0.clone(),
            suppressions: args.suppress.clone(),
            epsilon: args.eps,
            fold: Options {
                aggressive: args.aggressive,
                lower: args.lower,
                merge_branches: args.merge_branches,
                assume_constant: args.assume_constant,
                ..Options::default()
            },
        },
    }
}
