//! `merge`: what the shards saw, put together in their order, into the model that they ran.

use bnkit_model::onnx::Model;

use super::MergeJob;
use super::deliver::{Delivered, Delivery};
use super::recalibrate::{describe, never_ran};
use crate::calibrate::modules::survey;
use crate::calibrate::partial::{self, Together};
use crate::calibrate::report::{MergeReport, PartialFile};
use crate::calibrate::{apply, outcome};
use crate::pipeline::{Phase, Progress, describe_input};
use crate::report::{Tool, Warning};
use crate::{Error, Result};

/// Combines the moments of all shards and writes the model with the statistics that they give.
///
/// # Errors
/// If the files are not all shards of one job on this model, or something cannot be read or written.
pub fn merge(job: &MergeJob, progress: &dyn Progress) -> Result<MergeReport> {
    progress.begin(Phase::Reading, None);
    let Together {
        job: common,
        seen,
        files,
    } = partial::read_all(&job.partials)?;
    let options = common.options();
    let mut fold = job.fold.clone();
    if let Some(fold) = &mut fold {
        fold.fold.assume_constant |= common.assume_constant;
    }
    let delivery = Delivery {
        input: &job.input,
        output: job.output.as_deref(),
        force: job.force,
        hash: job.hash,
        fold: fold.as_ref(),
        note: describe(&options),
        interrupt: job.interrupt.clone(),
    };
    delivery.check()?;
    let model = Model::open(&job.input)?;
    let mut modules =
        survey(&model, &common.selection()).map_err(|error| error.in_file(&job.input))?;
    let identity = partial::identity(&model, &job.input)?;
    if common.model != identity || common.layers != partial::layers(&modules) {
        return Err(Error::Request(format!(
            "{}: it is not the model that the shards were made with (their SHA-256 is {})",
            job.input.display(),
            common.model
        )));
    }
    for (module, state) in modules.iter_mut().zip(&seen.states) {
        module.chosen &= state.is_some() || module.stored.is_err();
    }
    let new = seen.finish(&modules, options.convention);
    let errors = seen.errors(&modules, &new, options.method);
    let verdict = seen.judge(&errors, &job.stability);
    let sampling = outcome::sampling(&verdict, seen.samples, &job.stability);
    let layers = outcome::layers(&modules, &new, &seen, &errors);
    let mut warnings = outcome::warnings(&modules);
    warnings.extend(files.iter().filter_map(interrupted));
    warnings.extend(never_ran(&layers));
    warnings.extend(outcome::few_samples(&sampling, seen.batches));
    let mut changed = apply::apply(&model, &modules, &new)?;
    let Delivered {
        output,
        fold,
        failure,
    } = delivery.write(&mut changed, progress)?;
    let mut input = describe_input(&model, &job.input);
    input.sha256 = job
        .hash
        .then(|| crate::hash::of_file(&job.input))
        .transpose()?;
    Ok(MergeReport {
        schema: "bnkit.merge/1",
        tool: Tool::default(),
        input,
        method: outcome::method(&options, &seen),
        samples: seen.samples,
        batches: seen.batches,
        summary: outcome::count(&layers),
        partials: files,
        layers,
        sampling,
        warnings,
        fold,
        output,
        failure,
    })
}

fn interrupted(file: &PartialFile) -> Option<Warning> {
    (!file.complete).then(|| Warning {
        code: "interrupted-shard",
        message: format!(
            "{}: shard {} was interrupted after {} batches; the rest of it is not in the statistics",
            file.path, file.shard, file.batches
        ),
    })
}
