//! `bnkit inspect`.

use bnkit::fold::Options;
use bnkit::inspect;

use super::Answer;
use crate::args::inspect::Inspect;
use crate::output::Output;
use crate::print::inspect::{Inspection, Modules, OneTensor};

pub(super) fn run(args: &Inspect, output: &Output) -> anyhow::Result<Answer> {
    output.check(&[&args.model])?;
    if let Some(name) = &args.tensor {
        output.result(&OneTensor(inspect::tensor(&args.model, name)?))?;
        return Ok(Answer::Yes);
    }
    if args.tree {
        output.result(&Modules(inspect::tree(&args.model)?))?;
        return Ok(Answer::Yes);
    }
    let report = inspect::inspect(&args.model, &Options::default(), output.wants_hashes())?;
    output.result(&Inspection {
        report,
        batch_norms_only: args.batch_norms,
    })?;
    Ok(Answer::Yes)
}
