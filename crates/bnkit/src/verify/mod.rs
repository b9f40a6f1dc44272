//! The proof that a folded model is the original: three levels, none of which shares arithmetic with the fold.
//!
//! | file | level |
//! | --- | --- |
//! | `algebra` | 1: every changed constant, recomputed from the original's bytes |
//! | `end_to_end` | 2: both models in f64; 3: both as shipped, against a derived noise floor |
//! | `second` | for models that only a second engine can run: level 3 alone |
//! | `local` | for models that the engine cannot run: the neighbourhood of each fold on its own |
//! | `layer` | for checkpoints without a graph: each layer and its BatchNorm against the folded layer |
//! | `inputs`, `metrics` | what is run, and how results are compared |
//!
//! This file owns both the plan and the proof, so it also searches for the fold that breaks a model.

pub mod algebra;
pub mod end_to_end;
pub mod inputs;
pub(crate) mod layer;
pub mod local;
pub(crate) mod memory;
pub mod metrics;
#[cfg(test)]
pub(crate) mod nets;
mod objection;
mod outcome;
mod samples;
mod second;

use std::collections::HashSet;
use std::path::PathBuf;

use bnkit_model::onnx::{Edit, Model, Name, NodeId, Precision};

use crate::calibrate::Interrupt;
use crate::data::DataSet;
use crate::fold::{self, Plan};
use crate::report::{AlgebraSummary, Verdict, Verification};
use crate::route::Route;
use crate::{Error, Result};
use end_to_end::{EndToEnd, Subject};
use inputs::Sample;
pub use objection::worst;
pub(crate) use samples::distance_in_f64;
use samples::samples;

/// How equality is proved.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Calibration inputs (`.npy`, `.npz`, `.pb`, `.safetensors`, or a folder); random ones if `None`.
    pub data: Option<PathBuf>,
    /// Calibration inputs in memory: these are taken, and nothing is read at `data`.
    pub tensors: Option<DataSet>,
    /// Sizes of inputs, by name; the name may be empty if there is one input.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// How many samples are run.
    pub samples: usize,
    /// The seed of random inputs.
    pub seed: u64,
    /// Absolute tolerance instead of the derived one.
    pub atol: Option<f64>,
    /// Relative tolerance (to the output's range) instead of the derived one.
    pub rtol: Option<f64>,
    /// How many times the noise floor is accepted.
    pub tolerance_factor: f64,
    /// Ends the proof between two operators of a run: [`Error::Interrupted`].
    pub interrupt: Interrupt,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            data: None,
            tensors: None,
            shapes: Vec::new(),
            samples: 4,
            seed: 0,
            atol: None,
            rtol: None,
            tolerance_factor: 8.0,
            interrupt: Interrupt::default(),
        }
    }
}

impl VerifyOptions {
    /// The same proof as part of a job that has an interrupt of its own.
    pub(crate) fn ended_by(&self, interrupt: &Interrupt) -> Self {
        Self {
            interrupt: interrupt.clone(),
            ..self.clone()
        }
    }

    fn end_to_end(&self) -> end_to_end::Options {
        end_to_end::Options {
            tolerance_factor: self.tolerance_factor,
            atol: self.atol,
            rtol: self.rtol,
            seed: self.seed,
            interrupt: self.interrupt.clone(),
        }
    }
}

/// Proves that a plan changes nothing but rounding, or finds the fold that does.
///
/// # Errors
/// If the models cannot be read, or the inputs that the user gave do not fit; [`Error::Interrupted`] if it was interrupted.
pub fn prove(
    original: &Model,
    plan: &Plan,
    fold_options: &fold::Options,
    options: &VerifyOptions,
) -> Result<Verification> {
    options.interrupt.go_on()?;
    let reference = without_dropped_outputs(original, plan.apply())?;
    let mut verification = by_algebra(original, plan)?;
    options.interrupt.go_on()?;
    if !verification.notes.is_empty() {
        return Ok(verification);
    }
    let serial = match memory::way(original) {
        memory::Way::Parallel => false,
        memory::Way::Serial => true,
        memory::Way::TooLarge(why) => return local(original, plan, options, verification, &why),
    };
    let reference_bytes = reference.to_bytes(Precision::Stored)?;
    let runner = Runner {
        reference: &reference_bytes,
        original,
        options,
        serial,
    };
    let samples = match runner.samples()? {
        Ok(samples) => samples,
        Err(why) => {
            let proof = local(original, plan, options, verification, &why)?;
            return second::prove(&runner, plan.apply(), proof);
        }
    };
    match runner.run(plan.apply(), &samples) {
        Ok(found) => {
            let pass = found.pass;
            let everything = found.everything();
            verification.ran(found);
            if pass && everything {
                verification.verdict = Verdict::Equivalent;
            } else if pass {
                verification.verdict = Verdict::EquivalentLocal;
            } else {
                verification.culprit = bisect(&runner, &samples, plan, fold_options)?;
            }
            Ok(verification)
        }
        Err(end_to_end::Error::Interrupted) => Err(Error::Interrupted),
        Err(end_to_end::Error::Unsupported(why)) => {
            let proof = local(original, plan, options, verification, &why.to_string())?;
            second::prove(&runner, plan.apply(), proof)
        }
        Err(error) => {
            verification.notes.push(error.to_string());
            verification.culprit = bisect(&runner, &samples, plan, fold_options)?;
            Ok(verification)
        }
    }
}

/// Level 1 alone. A failure is in the notes; without one, the verdict is still open.
///
/// # Errors
/// If a tensor cannot be read.
pub(crate) fn by_algebra(original: &Model, plan: &Plan) -> Result<Verification> {
    let algebra = algebra::check_merged(original, plan.apply(), &plan.routes, &plan.merges)?;
    let mut verification = Verification::with(Verdict::NotEquivalent);
    verification.algebra = Some(AlgebraSummary {
        checked: algebra.checked,
        max_ulp: algebra.max_ulp,
    });
    if let Some(failure) = algebra.failures.first() {
        let merge = |index: usize| plan.merges.get(index).map(|merge| merge.into);
        let culprit = match plan.routes.get(failure.route) {
            Some(route) => Some(route.site),
            None => merge(failure.route - plan.routes.len()),
        };
        verification.culprit = culprit.map(|node| original.label(node).to_string());
        verification.notes.push(format!(
            "{}: {}",
            original.describe(failure.node),
            failure.describe()
        ));
    }
    Ok(verification)
}

/// The original without the graph outputs that the folded model no longer has (those of training mode).
fn without_dropped_outputs(original: &Model, folded: &Model) -> Result<Model> {
    let name = |model: &Model, value| model.value(value).name.clone();
    let main = original.main();
    let stays: HashSet<Name> = folded
        .scope(main)
        .outputs
        .iter()
        .map(|&value| name(folded, value))
        .collect();
    let mut reference = original.clone();
    for slot in (0..original.scope(main).outputs.len()).rev() {
        if !stays.contains(&name(original, original.scope(main).outputs[slot])) {
            reference.apply(&[Edit::DropOutput { scope: main, slot }])?;
        }
    }
    Ok(reference)
}

struct Runner<'r> {
    reference: &'r [u8],
    original: &'r Model,
    options: &'r VerifyOptions,
    /// Whether memory is short, so that runs follow one another.
    serial: bool,
}

impl Runner<'_> {
    /// The inputs to run on, or why the engine cannot run the original on any.
    fn samples(&self) -> Result<std::result::Result<Vec<Sample>, String>> {
        samples(self.reference, self.original, self.options)
    }

    fn run(&self, folded: &Model, samples: &[Sample]) -> Result<EndToEnd, end_to_end::Error> {
        let encode = |precision| {
            folded
                .to_bytes(precision)
                .map_err(|error| end_to_end::Error::Incomparable(error.to_string()))
        };
        let (shipped, exact) =
            rayon::join(|| encode(Precision::Stored), || encode(Precision::Exact));
        let (shipped, exact) = (shipped?, exact?);
        let dir = self.original.dir();
        let subject = Subject {
            original: self.reference,
            shipped: &shipped,
            exact: Some(&exact),
            model_dir: dir,
            // What is not computed still lies in the original's data files.
            shipped_dir: dir,
        };
        let run = || end_to_end::run(&subject, samples, &self.options.end_to_end());
        if !self.serial {
            return run();
        }
        match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
            Ok(pool) => pool.install(run),
            Err(_) => run(),
        }
    }
}

/// The engine cannot run the model: the constants are proved, and each neighbourhood on its own, in f64.
fn local(
    original: &Model,
    plan: &Plan,
    options: &VerifyOptions,
    mut verification: Verification,
    why: &str,
) -> Result<Verification> {
    let neighbourhoods =
        local::neighbourhoods_merged(original, plan.apply(), &plan.routes, &plan.merges);
    let count = neighbourhoods.len();
    let compare = |a: &[u8], b: &[u8]| distance_in_f64(a, b, options.seed);
    let found = local::check(&neighbourhoods, &compare, &options.interrupt)?;
    verification
        .notes
        .push(format!("the engine cannot run the whole model: {why}"));
    verification.notes.push(format!(
        "{} of {count} neighbourhoods of folds were run on their own, in f64",
        found.ran
    ));
    let skipped = found
        .skipped
        .iter()
        .take(3)
        .map(|(label, why)| format!("\"{label}\" was not run: {why}"));
    verification.notes.extend(skipped);
    verification.verdict = match found.failures.first() {
        None => Verdict::EquivalentLocal,
        Some((label, distance)) => {
            verification.culprit = Some(label.clone());
            verification.notes.push(format!(
                "\"{label}\" differs by {distance:e} of the output's range"
            ));
            Verdict::NotEquivalent
        }
    };
    Ok(verification)
}

/// The first fold (in the order of the plan) with which the model is no longer equivalent.
fn bisect(
    runner: &Runner<'_>,
    samples: &[Sample],
    plan: &Plan,
    fold_options: &fold::Options,
) -> Result<Option<String>> {
    let steps = steps(plan);
    let broken_with = |count: usize| -> Result<bool> {
        let left_out: HashSet<NodeId> = steps[count..].iter().copied().collect();
        let part = fold::plan_without(runner.original, fold_options, &left_out)?;
        let found = runner.run(part.apply(), samples);
        runner.options.interrupt.go_on()?;
        Ok(!found.is_ok_and(|found| found.pass))
    };
    if steps.is_empty() || broken_with(0)? {
        return Ok(None);
    }
    // Equivalent with `good` folds, broken with `bad`.
    let (mut good, mut bad) = (0, steps.len());
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if broken_with(middle)? {
            bad = middle;
        } else {
            good = middle;
        }
    }
    Ok(Some(runner.original.label(steps[bad - 1]).to_string()))
}

/// What the plan did, one after the other: the sites of routes, and the nodes at which branches met.
fn steps(plan: &Plan) -> Vec<NodeId> {
    let mut merges = plan.merges.iter().peekable();
    let mut steps = Vec::new();
    for index in 0..=plan.routes.len() {
        while let Some(merge) = merges.next_if(|merge| merge.after <= index) {
            steps.push(merge.at);
        }
        steps.extend(plan.routes.get(index).map(|route: &Route| route.site));
    }
    steps
}

/// Compares two models of which nothing else is known: level 3, and level 2 as far as both can be widened.
///
/// # Errors
/// If the engine cannot run one of them, or their inputs or outputs differ; [`Error::Interrupted`] if it was interrupted.
pub fn compare(a: &Model, b: &Model, options: &VerifyOptions) -> Result<Verification> {
    let (first, second) = (
        a.to_bytes(Precision::Stored)?,
        b.to_bytes(Precision::Stored)?,
    );
    let cannot = |why: String| Error::Request(format!("cannot compare: {why}"));
    for model in [a, b] {
        if let Some(why) = memory::large_value(model) {
            return Err(cannot(why));
        }
    }
    let subject = Subject::unrelated((&first, a.dir()), (&second, b.dir()));
    let samples = match samples(&first, a, options)? {
        Ok(samples) => samples,
        Err(why) => {
            options.interrupt.go_on()?;
            return second::compare(a, &subject, options, &why);
        }
    };
    let found = match end_to_end::run(&subject, &samples, &options.end_to_end()) {
        Ok(found) => found,
        Err(why @ end_to_end::Error::Unsupported(_)) => {
            return second::compare(a, &subject, options, &why.to_string());
        }
        Err(end_to_end::Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => return Err(cannot(error.to_string())),
    };
    let mut verification = Verification::with(match found.pass {
        true if found.everything() => Verdict::Equivalent,
        true => Verdict::EquivalentLocal,
        false => Verdict::NotEquivalent,
    });
    verification.ran(found);
    Ok(verification)
}
