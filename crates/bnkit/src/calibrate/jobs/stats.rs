//! `stats`: the running statistics as they are, of a graph (here) or of a state dict.

mod parameters;
mod state;

pub use parameters::{LayerParameters, parameters};

use bnkit_model::onnx::Model;

use super::StatsJob;
use crate::calibrate::Selection;
use crate::calibrate::modules::{Module, momentum, survey};
use crate::calibrate::report::{Extremes, LayerStats, StatsReport};
use crate::calibrate::{exports, files};
use crate::checkpoint::{Checkpoint, Content};
use crate::report::Tool;
use crate::{Result, hash};

/// Reads the running statistics of a checkpoint, and writes them to a file if one is named.
///
/// # Errors
/// If the checkpoint cannot be read, or the file not be written.
pub fn stats(job: &StatsJob) -> Result<StatsReport> {
    if let Some(output) = &job.output {
        files::check_free(output, job.force)?;
    }
    let checkpoint = Checkpoint::open(&job.input)?;
    let mut input = checkpoint.describe();
    // The hash of a state dict would take reading all of it.
    if let (true, Content::Onnx(_)) = (job.hash, &checkpoint.content) {
        input.sha256 = Some(hash::of_file(&job.input)?);
    }
    let (layers, tensors) = match &checkpoint.content {
        Content::Onnx(model) => {
            let modules =
                survey(model, &job.selection).map_err(|error| error.in_file(&job.input))?;
            let chosen: Vec<&Module> = modules.iter().filter(|module| module.chosen).collect();
            let layers = chosen.iter().map(|module| layer(model, module)).collect();
            let tensors = job
                .output
                .as_ref()
                .map(|_| exports::tensors(model, &chosen));
            (layers, tensors.transpose()?.unwrap_or_default())
        }
        Content::StateDict(dict) => {
            let layers = state::layers(dict, &job.selection)?;
            let tensors = job.output.as_ref().map(|_| state::tensors(dict, &layers));
            (layers, tensors.transpose()?.unwrap_or_default())
        }
    };
    let mut report = StatsReport {
        schema: "bnkit.stats/1",
        tool: Tool::default(),
        input,
        layers,
        written: None,
    };
    if let Some(output) = &job.output {
        exports::write(output, job.force, &tensors, &report)?;
        report.written = Some(output.display().to_string());
    }
    Ok(report)
}

/// The running statistics of every BatchNorm of a checkpoint.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn layers(checkpoint: &Checkpoint) -> Result<Vec<LayerStats>> {
    // Nothing is changed here: what a caller of the model may override is looked at as it is.
    let all = Selection {
        assume_constant: true,
        ..Selection::default()
    };
    match &checkpoint.content {
        Content::Onnx(model) => {
            let modules = survey(model, &all).map_err(|error| error.in_file(&checkpoint.path))?;
            Ok(modules.iter().map(|module| layer(model, module)).collect())
        }
        Content::StateDict(dict) => state::layers(dict, &all),
    }
}

fn layer(model: &Model, module: &Module) -> LayerStats {
    let stored = module.stored.as_ref().ok();
    let (mean, variance) = stored.map_or_else(Default::default, |stored| {
        (stored.mean.clone(), stored.variance.clone())
    });
    LayerStats {
        layer: module.name.clone(),
        mean_name: exports::name(model, module, 0),
        variance_name: exports::name(model, module, 1),
        dtype: stored.map_or_else(String::new, |stored| stored.dtypes[0].to_string()),
        epsilon: stored.map_or(f64::NAN, |stored| stored.epsilon),
        momentum: momentum(model, module.nodes[0]),
        mean_summary: Extremes::of(mean.iter().copied()),
        variance_summary: Extremes::of(variance.iter().copied()),
        mean,
        variance,
        refusal: module.stored.as_ref().err().cloned(),
    }
}
