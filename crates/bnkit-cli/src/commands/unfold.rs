//! `bnkit unfold`.

use anyhow::bail;
use bnkit::unfold::{self, UnfoldJob};

use super::{Answer, target};
use crate::args::unfold::Unfold;
use crate::output::{self, Output};
use crate::progress::Bar;

pub(super) fn run(args: &Unfold, force: bool, output: &Output) -> anyhow::Result<Answer> {
    if args.no_verify && args.proof.end_to_end() {
        bail!("--require end-to-end asks for a proof and --no-verify forbids it");
    }
    target::writable(&args.output, &args.model, force)?;
    output.check(&[&args.model, &args.stats, &args.output])?;
    let job = UnfoldJob {
        input: args.model.clone(),
        stats: args.stats.clone(),
        output: args.output.clone(),
        force,
        hash: output.wants_hashes(),
        verify: (!args.no_verify).then(|| args.proof.options()),
    };
    let report = unfold::unfold(&job, &Bar::new(output.quiet()))?;
    output.result(&report)?;
    if let Some(why) = &report.failure {
        output::failed(why);
        return Ok(Answer::No);
    }
    Ok(Answer::Yes)
}
