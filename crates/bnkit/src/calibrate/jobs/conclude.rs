//! The end of a recalibration, whoever saw the batches: what was seen becomes statistics, and these go into a file.

use std::path::Path;

use super::RecalibrateJob;
use super::deliver::{Delivered, Delivery};
use crate::Result;
use crate::calibrate::apply::{self, Statistics};
use crate::calibrate::modules::Module;
use crate::calibrate::observe::Seen;
use crate::calibrate::options::{Convention, Method};
use crate::calibrate::outcome;
use crate::calibrate::report::RecalibrateReport;
use crate::pipeline::{Phase, Progress};
use crate::report::{OutputFile, Tool};
use crate::state::recalibrate::{Counted, Destination, Opened};

/// A report of which only the beginning is known.
pub(super) fn begun(opened: &Opened, input: &Path, modules: &[Module]) -> RecalibrateReport {
    RecalibrateReport {
        schema: "bnkit.recalibrate/1",
        tool: Tool::default(),
        input: opened.describe(input),
        data: None,
        method: None,
        summary: Default::default(),
        layers: Vec::new(),
        passes: Vec::new(),
        sampling: None,
        warnings: outcome::warnings(modules),
        partial: None,
        fold: None,
        output: None,
        accuracy: None,
        failure: None,
    }
}

/// The new statistics of each module, and what the report says of them.
pub(super) fn conclude(
    job: &RecalibrateJob,
    modules: &[Module],
    seen: &Seen,
    report: &mut RecalibrateReport,
) -> Vec<Option<Statistics>> {
    let new = seen.finish(modules, job.method.convention);
    let errors = seen.errors(modules, &new, job.method.method);
    let verdict = seen.judge(&errors, &job.stability);
    let sampling = outcome::sampling(&verdict, seen.samples, &job.stability);
    if job.partial.is_none() {
        report
            .warnings
            .extend(outcome::few_samples(&sampling, seen.batches));
    }
    report.sampling = Some(sampling);
    report.layers = outcome::layers(modules, &new, seen, &errors);
    report.method = Some(outcome::method(&job.method, seen));
    new
}

/// Puts new statistics into a copy of the model or of the state dict, and writes it if an output is named.
///
/// # Errors
/// If it cannot be written.
pub(super) fn deliver(
    job: &RecalibrateJob,
    delivery: &Delivery<'_>,
    opened: &Opened,
    modules: &[Module],
    new: &[Option<Statistics>],
    report: &mut RecalibrateReport,
    progress: &dyn Progress,
) -> Result<()> {
    if opened.is_state_dict() {
        report.output = to_state_dict(job, delivery, opened, modules, new, report, progress)?;
        return Ok(());
    }
    let mut changed = apply::apply(&opened.model, modules, new)?;
    let Delivered {
        output,
        fold,
        failure,
    } = delivery.write(&mut changed, progress)?;
    (report.output, report.fold, report.failure) = (output, fold, failure);
    Ok(())
}

fn to_state_dict(
    job: &RecalibrateJob,
    delivery: &Delivery<'_>,
    opened: &Opened,
    modules: &[Module],
    new: &[Option<Statistics>],
    report: &RecalibrateReport,
    progress: &dyn Progress,
) -> Result<Option<OutputFile>> {
    let Some(output) = delivery.output else {
        return Ok(None);
    };
    let batches = report.data.as_ref().map(|data| data.batches);
    let counted = match (job.method.convention, job.method.method, batches) {
        (Convention::Torch, Method::Ema, Some(batches)) => Counted::More(batches),
        (Convention::Torch, _, Some(batches)) => Counted::Set(batches),
        _ => Counted::No,
    };
    progress.begin(Phase::Writing, Some(report.input.bytes));
    let destination = Destination {
        path: output,
        force: delivery.force,
        hash: delivery.hash,
        progress: &|done, _| progress.advance(done),
    };
    opened.write(modules, new, counted, &destination).map(Some)
}
