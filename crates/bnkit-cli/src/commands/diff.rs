//! `bnkit diff`.

use super::Answer;
use crate::args::diff::Diff;
use crate::output::Output;

pub(super) fn run(args: &Diff, output: &Output) -> anyhow::Result<Answer> {
    output.check(&[&args.a, &args.b])?;
    output.result(&bnkit::diff::diff(&args.a, &args.b, args.eps)?)?;
    Ok(Answer::Yes)
}
