//! Two models, run on the same inputs: levels 2 and 3 of the proof.
//!
//! Level 2 runs both in f64, with the changed constants as they were before they were rounded to their stored type: what differs
//! then is logic, and a right fold differs by nothing that matters. Level 3 runs both as they are shipped and asks whether the
//! difference is explained by rounding; how, says [`judge`](self).
//!
//! Nothing here knows how a fold is made: a proof that shares the arithmetic of what it proves is worth nothing.
//!
//! Outputs behind operators that jump (Round, ArgMax, TopK …) are compared up to what enters the first such operator, and the report
//! says so.

mod judge;
mod outlines;
pub(crate) mod single;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use bnkit_engine::{
    Engine, EngineError, Jump, LoadOptions, Outline, Perturbation, Precision, Tract,
};
use bnkit_model::Tensor;
use rayon::prelude::*;
use serde::Serialize;

pub use judge::{DoubleReport, OutputReport};
use outlines::{Outlines, rounding};

use super::inputs::Sample;
use crate::calibrate::Interrupt;

/// The models to compare, serialized.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The yardstick, in eval mode.
    pub original: &'a [u8],
    /// The model that is to be shipped.
    pub shipped: &'a [u8],
    /// The same with the changed constants as doubles, under the same names. Without it (two models of unknown descent), level 2
    /// allows for the rounding that the shipped constants must have seen.
    pub exact: Option<&'a [u8]>,
    /// Where external data of `original` and `exact` lies.
    pub model_dir: Option<&'a Path>,
    /// Where external data of `shipped` lies.
    pub shipped_dir: Option<&'a Path>,
}

impl<'a> Subject<'a> {
    /// Two serialized models of which nothing else is known, each with the folder of its external data; the first is the yardstick.
    pub fn unrelated(
        original: (&'a [u8], Option<&'a Path>),
        shipped: (&'a [u8], Option<&'a Path>),
    ) -> Self {
        Self {
            original: original.0,
            shipped: shipped.0,
            exact: None,
            model_dir: original.1,
            shipped_dir: shipped.1,
        }
    }
}

/// What is acceptable.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many times the noise floor a difference may be.
    pub tolerance_factor: f64,
    /// An absolute tolerance, in place of the derived one (0 if only `rtol` is given).
    pub atol: Option<f64>,
    /// A tolerance relative to the output's range, in place of the derived one (0 if only `atol` is given).
    pub rtol: Option<f64>,
    /// Picks the directions in which constants are moved when no exact ones are known.
    pub seed: u64,
    /// Ends the runs, between two operators.
    pub interrupt: Interrupt,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tolerance_factor: 8.0,
            atol: None,
            rtol: None,
            seed: 0,
            interrupt: Interrupt::default(),
        }
    }
}

/// What the runs showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EndToEnd {
    /// What ran the models.
    pub engine: &'static str,
    /// How many samples they ran on.
    pub samples: usize,
    /// Level 2.
    #[serde(rename = "f64")]
    pub double: DoubleReport,
    /// Level 3: each output, or value in front of an operator that jumps.
    pub outputs: Vec<OutputReport>,
    /// Operators that jump, with the outputs that could therefore not be compared as they are.
    pub jumping: Vec<Jumping>,
    /// Whether both levels passed.
    pub pass: bool,
}

impl EndToEnd {
    /// Whether each output was compared, itself or at what enters the operators in front of it that jump.
    pub fn everything(&self) -> bool {
        self.jumping.iter().all(|jump| jump.uncompared.is_empty())
            && !self.outputs.iter().any(OutputReport::unshown)
    }
}

/// An operator that jumps, and what was compared in place of the outputs behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Jumping {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// The outputs that hang on it.
    pub outputs: Vec<String>,
    /// The values in front of it that were compared; they are among the reported outputs.
    pub compared: Vec<String>,
    /// Values in front of it that only one of the models has: nothing was shown for these.
    pub uncompared: Vec<String>,
    /// The share of equal elements in the outputs behind it, `None` if their shapes differ.
    pub agreement: Option<f64>,
}

/// Why nothing can be said, or why the answer is no without a number.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine cannot run one of the models: no verdict.
    #[error("the engine cannot run it: {0}")]
    Unsupported(EngineError),
    /// The engine runs the original and knows all operators of the other model, which does not run all the same.
    #[error("the original runs, the other model does not: {0}")]
    Broken(EngineError),
    /// The models do not have the same inputs and outputs.
    #[error("{0}")]
    Incomparable(String),
    /// It was asked to end.
    #[error("interrupted")]
    Interrupted,
}

/// The values of each sample, by name.
type Values = Vec<HashMap<String, Tensor>>;

/// Runs levels 2 and 3 on the caller's rayon pool. All samples must have the same shapes.
///
/// # Errors
/// If the engine cannot run one of them, if the other model is broken, or if their inputs or outputs differ.
pub fn run(subject: &Subject, samples: &[Sample], options: &Options) -> Result<EndToEnd, Error> {
    let first = samples
        .first()
        .ok_or_else(|| Error::Incomparable("no samples to compare the models on".into()))?;
    let outlines = Outlines::read(subject)?;
    outlines.same_inputs()?;
    let jumps = outlines.original.jumps();
    let common = outlines.common_values();
    let fronts = fronts(&jumps, &common);
    let rounding = rounding(subject, &outlines, options)?;

    let dims: Vec<(String, Vec<usize>)> = first
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    let (widened, widened_dir) = match subject.exact {
        Some(exact) => (exact, subject.model_dir),
        None => (subject.shipped, subject.shipped_dir),
    };
    let job = |model, model_dir, precision, perturbation| {
        let load = LoadOptions {
            precision,
            input_dims: &dims,
            model_dir,
            extra_outputs: &fronts,
            perturbation,
        };
        (model, load)
    };
    let run = |(model, load): &(&[u8], LoadOptions)| run_on(&Tract, model, load, samples, options);
    // The slow ones first, so that the last to finish is a short one.
    let mut jobs = vec![
        job(subject.original, subject.model_dir, Precision::F64, None),
        job(widened, widened_dir, Precision::F64, None),
        job(subject.original, subject.model_dir, Precision::F32, None),
        job(subject.shipped, subject.shipped_dir, Precision::F32, None),
    ];
    let exact_known = subject.exact.is_some();
    if let (false, Some(how)) = (exact_known, &rounding) {
        jobs.insert(2, job(widened, widened_dir, Precision::F64, Some(how)));
    }
    let mut results: Vec<Result<Values, EngineError>> = jobs.par_iter().map(run).collect();
    go_on(options)?;
    let rounded64 = match results.len() {
        4 => None,
        _ => Some(results.remove(2)),
    };
    let [original64, exact64, original32, shipped32] =
        <[_; 4]>::try_from(results).map_err(|_| Error::Incomparable("a run is missing".into()))?;
    let original64 = original64.map_err(Error::Unsupported)?;
    let original32 = original32.map_err(Error::Unsupported)?;
    let exact64 = exact64.map_err(not_the_original)?;
    let shipped32 = shipped32.map_err(not_the_original)?;
    let rounded64 = rounded64.transpose().map_err(not_the_original)?;
    same_outputs(&original32[0], &shipped32[0])?;

    let mut runs = judge::Runs {
        original64: &original64,
        original32: &original32,
        exact64: &exact64,
        rounded64: rounded64.as_ref(),
        shipped32: &shipped32,
        moved64: None,
        exact_known,
    };
    let hidden = jumps.iter().flat_map(|jump| &jump.outputs);
    let hidden: HashSet<&str> = hidden.map(String::as_str).collect();
    let mut compared: Vec<&str> = outlines
        .original
        .outputs()
        .filter(|name| original32[0].contains_key(*name) && !hidden.contains(name))
        .collect();
    compared.extend(fronts.iter().map(String::as_str));
    if compared.is_empty() {
        return Err(Error::Unsupported(EngineError::Unsupported {
            operator: String::new(),
            node: String::new(),
            reason: "every output hangs on an operator that jumps, and no value before it has the same name in both models".into(),
        }));
    }
    let (mut double, mut reports) = judge_all(&compared, &runs, options)?;
    // What else may explain a difference is run only where there is one to explain.
    let unexplained = |double: &DoubleReport, reports: &[OutputReport]| {
        exact_known && double.pass && !reports.iter().all(|report| report.pass)
    };
    let (stored, moved): (Values, Values);
    if let Some(how) = rounding.as_ref().filter(|_| unexplained(&double, &reports)) {
        let job = job(widened, widened_dir, Precision::F64, Some(how));
        let run = run(&job);
        go_on(options)?;
        stored = run.map_err(not_the_original)?;
        runs.rounded64 = Some(&stored);
        (double, reports) = judge_all(&compared, &runs, options)?;
    }
    if unexplained(&double, &reports) {
        let all = everything_moved(&outlines.original, options);
        let (model, dir) = (subject.original, subject.model_dir);
        let job = job(model, dir, Precision::F64, Some(&all));
        let run = run(&job);
        go_on(options)?;
        moved = run.map_err(Error::Unsupported)?;
        runs.moved64 = Some(&moved);
        (double, reports) = judge_all(&compared, &runs, options)?;
    }
    Ok(EndToEnd {
        engine: "tract",
        samples: samples.len(),
        pass: double.pass && reports.iter().all(|report| report.pass),
        double,
        outputs: reports,
        jumping: jumps
            .into_iter()
            .map(|jump| Jumping::new(jump, &common, &original32, &shipped32))
            .collect(),
    })
}

/// Levels 2 and 3 for all values.
fn judge_all(
    names: &[&str],
    runs: &judge::Runs,
    options: &Options,
) -> Result<(DoubleReport, Vec<OutputReport>), Error> {
    let mut double = DoubleReport {
        max_rel: 0.0,
        pass: true,
    };
    let mut reports = vec![];
    for name in names {
        let (in_double, report) = judge::judge(name, runs, options)
            .map_err(|error| Error::Incomparable(format!("output {name:?}: {error}")))?;
        double.max_rel = double.max_rel.max(in_double.max_rel);
        double.pass &= in_double.pass;
        reports.push(report);
    }
    Ok((double, reports))
}

/// Every constant of the original half a unit in the last place away.
fn everything_moved(original: &Outline, options: &Options) -> Perturbation {
    let constants = original.constant_types();
    let floats = constants.filter(|(_, dtype)| dtype.is_float());
    Perturbation::Jitter {
        tensors: floats.map(|(name, _)| name.to_owned()).collect(),
        seed: options.seed,
    }
}

/// What a run gave up for is no news about its model.
fn go_on(options: &Options) -> Result<(), Error> {
    match options.interrupt.requested() {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

/// Runs a model on all samples; an error too if it was interrupted.
fn run_on(
    engine: &dyn Engine,
    model: &[u8],
    load: &LoadOptions,
    samples: &[Sample],
    options: &Options,
) -> Result<Values, EngineError> {
    let results = engine.run(model, load, samples, &|| !options.interrupt.requested())?;
    let named = results.into_iter();
    Ok(named.map(|values| values.into_iter().collect()).collect())
}

impl Jumping {
    fn new(jump: Jump, common: &HashSet<&str>, original: &Values, shipped: &Values) -> Self {
        let (compared, uncompared) = jump
            .inputs
            .into_iter()
            .partition(|name| common.contains(name.as_str()));
        Self {
            agreement: judge::agreement(&jump.outputs, original, shipped),
            node: jump.node,
            operator: jump.operator,
            outputs: jump.outputs,
            compared,
            uncompared,
        }
    }
}

/// What an error of the model that is not the original means: where the engine gives up, nothing is said about the model.
fn not_the_original(error: EngineError) -> Error {
    match error {
        EngineError::Unsupported { .. } => Error::Unsupported(error),
        _ => Error::Broken(error),
    }
}

/// The values in front of the jumps, each once.
fn fronts(jumps: &[Jump], common: &HashSet<&str>) -> Vec<String> {
    let mut fronts: Vec<String> = vec![];
    for name in jumps.iter().flat_map(|jump| &jump.inputs) {
        if common.contains(name.as_str()) && !fronts.contains(name) {
            fronts.push(name.clone());
        }
    }
    fronts
}

fn same_outputs(
    original: &HashMap<String, Tensor>,
    shipped: &HashMap<String, Tensor>,
) -> Result<(), Error> {
    let names = |values: &HashMap<String, Tensor>| {
        let mut names: Vec<String> = values.keys().cloned().collect();
        names.sort();
        names
    };
    let (a, b) = (names(original), names(shipped));
    if a != b {
        return Err(Error::Incomparable(format!(
            "the models have different outputs: {a:?} and {b:?}"
        )));
    }
    Ok(())
}
