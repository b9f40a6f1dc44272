//! `bnkit inspect`.

use bnkit::fold::Options;
use bnkit::inspect;
use bnkit::profile;
use bnkit::report::Site;

use super::Answer;
use crate::args::inspect::Inspect;
use crate::output::Output;
use crate::print::inspect::{Inspection, Modules, OneTensor, Scan, State};

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
    if args.scan {
        output.result(&Scan(inspect::scan(&args.model)?))?;
        return Ok(Answer::Yes);
    }
    if inspect::is_state_dict(&args.model)? {
        output.result(&State {
            report: inspect::state(&args.model)?,
            batch_norms_only: args.batch_norms,
        })?;
        return Ok(Answer::Yes);
    }
    let mut report = inspect::inspect(&args.model, &Options::default(), output.wants_hashes())?;
    if output.wants_plots() {
        let norms = report.batch_norms.iter();
        let sites: Vec<Site> = norms.map(|norm| norm.site.clone()).collect();
        report.profiles = profile::profiles(&args.model, None, &sites)?;
    }
    output.result(&Inspection {
        report,
        batch_norms_only: args.batch_norms,
    })?;
    Ok(Answer::Yes)
}
