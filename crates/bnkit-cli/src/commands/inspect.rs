//! `bnkit inspect`.

use bnkit::pipeline::{self, FoldOptions};

use super::Answer;
use crate::args::inspect::Inspect;
use crate::output::Output;
use crate::print::inspect::Inspection;

pub(super) fn run(args: &Inspect, output: &Output) -> anyhow::Result<Answer> {
    output.check(&[&args.model])?;
    let report = pipeline::inspect(&args.model, &FoldOptions::default())?;
    output.result(&Inspection {
        report,
        batch_norms_only: args.batch_norms,
    })?;
    Ok(Answer::Yes)
}
