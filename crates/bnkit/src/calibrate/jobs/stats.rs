//! `stats`: the running statistics as they are.

use bnkit_model::onnx::Model;

use super::StatsJob;
use crate::calibrate::modules::{Module, momentum, survey};
use crate::calibrate::report::{Extremes, LayerStats, StatsReport};
use crate::calibrate::{exports, files};
use crate::pipeline::describe_input;
use crate::report::Tool;
use crate::{Result, hash};

/// Reads the running statistics of a model, and writes them to a file if one is named.
///
/// # Errors
/// If the model cannot be read, or the file not be written.
pub fn stats(job: &StatsJob) -> Result<StatsReport> {
    if let Some(output) = &job.output {
        files::check_free(output, job.force)?;
    }
    let model = Model::open(&job.input)?;
    let modules = survey(&model, &job.selection).map_err(|error| error.in_file(&job.input))?;
    let chosen: Vec<&Module> = modules.iter().filter(|module| module.chosen).collect();
    let mut input = describe_input(&model, &job.input);
    input.sha256 = job.hash.then(|| hash::of_file(&job.input)).transpose()?;
    let mut report = StatsReport {
        schema: "bnkit.stats/1",
        tool: Tool::default(),
        input,
        layers: chosen.iter().map(|module| layer(&model, module)).collect(),
        written: None,
    };
    if let Some(output) = &job.output {
        exports::write(output, job.force, &model, &chosen, &report)?;
        report.written = Some(output.display().to_string());
    }
    Ok(report)
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
