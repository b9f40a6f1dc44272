//! `recalibrate` and `validate` with batches that somebody hands over one after the other.

use super::recalibrator::Recalibrator;
use super::{RecalibrateJob, ValidateJob};
use crate::calibrate::report::{RecalibrateReport, ValidateReport};
use crate::data::DataSet;
use crate::pipeline::{Phase, Progress};
use crate::{Error, Result};

/// [`recalibrate`](super::recalibrate()) with batches as they come: each is run whole, none is cut or put together with another. The job's
/// source is [`Source::Batches`](super::Source::Batches).
///
/// # Errors
/// As [`Recalibrator::new`], [`Recalibrator::observe`] and [`Recalibrator::write`], and the first error among the batches.
pub fn recalibrate_batches(
    job: &RecalibrateJob,
    batches: &mut dyn Iterator<Item = Result<DataSet>>,
    progress: &dyn Progress,
) -> Result<RecalibrateReport> {
    let mut recalibrator = begin(job.clone(), progress)?;
    recalibrator.check_output(job.output.as_deref(), job.force)?;
    let stopped_early = run(&mut recalibrator, job, batches, progress)?;
    let mut report = match &job.output {
        Some(output) => recalibrator.write(output, job.force, progress)?,
        None => recalibrator.report()?,
    };
    if let Some(data) = &mut report.data {
        data.stopped_early = stopped_early;
    }
    Ok(report)
}

/// [`validate`](super::validate()) with batches as they come. The job's `data` is not looked at.
///
/// # Errors
/// As [`Recalibrator::new`], [`Recalibrator::observe`] and [`Recalibrator::validate`], and the first error among the batches.
pub fn validate_batches(
    job: &ValidateJob,
    batches: &mut dyn Iterator<Item = Result<DataSet>>,
    progress: &dyn Progress,
) -> Result<ValidateReport> {
    super::validate::check(&job.method)?;
    let observing = RecalibrateJob {
        graph: job.graph.clone(),
        hash: job.hash,
        method: job.method,
        selection: job.selection.clone(),
        stability: job.stability,
        until_stable: job.until_stable,
        dropout: job.dropout,
        threads: job.threads,
        interrupt: job.interrupt.clone(),
        ..RecalibrateJob::of_batches(&job.input)
    };
    let mut recalibrator = begin(observing.clone(), progress)?;
    let stopped_early = run(&mut recalibrator, &observing, batches, progress)?;
    let mut report = recalibrator.validate(job)?;
    report.data.stopped_early = stopped_early;
    Ok(report)
}

fn begin(job: RecalibrateJob, progress: &dyn Progress) -> Result<Recalibrator> {
    progress.begin(Phase::Reading, None);
    Recalibrator::new(job)
}

/// Observes the batches; whether it stopped because enough was seen.
fn run(
    recalibrator: &mut Recalibrator,
    job: &RecalibrateJob,
    batches: &mut dyn Iterator<Item = Result<DataSet>>,
    progress: &dyn Progress,
) -> Result<bool> {
    progress.begin(Phase::Running, None);
    let mut stable = false;
    for batch in batches {
        // What comes after enough is only looked at to say that there is more.
        if stable {
            return Ok(true);
        }
        recalibrator.observe(&batch?, None)?;
        progress.advance(recalibrator.samples());
        stable = job.until_stable && recalibrator.is_stable()?;
    }
    if job.interrupt.requested() {
        return Err(Error::Interrupted);
    }
    Ok(false)
}
