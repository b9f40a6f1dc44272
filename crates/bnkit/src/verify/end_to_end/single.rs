//! Level 3 alone, for models that only an engine without doubles can run.
//!
//! The question is that of [`judge`](super::judge), whether rounding explains what differs; but without a run in f64 nothing says what
//! f32 arithmetic costs the original. In its place the noise floor is how far the original moves when each constant that it computes
//! with is moved by one unit in the last place, up or down at random, run in f32 like everything here; the largest of two such runs, and
//! of two units in the last place of the range. A unit and not half of one: it has to be more than none in the stored type, and it
//! stands for two roundings, that of the constants and that of the arithmetic, which is of their size.
//!
//! That is an estimate. It shows a wrong constant of any weight; a difference as small as rounding, it cannot tell from rounding.

use std::collections::HashSet;
use std::path::Path;

use bnkit_engine::{Engine, LoadOptions, Perturbation, Precision};

use super::judge::{distance, least};
use super::{
    Error, Jumping, Options, Outlines, Subject, Values, fronts, go_on, not_the_original, run_on,
    same_outputs,
};
use crate::report::OutputComparison;
use crate::verify::inputs::Sample;

/// How often the constants of the original are moved.
const MOVES: u64 = 2;

/// What the runs showed.
#[derive(Debug)]
pub(crate) struct Shipped {
    /// How many samples the models ran on.
    pub(crate) samples: usize,
    /// Each output, or value in front of an operator that jumps, that could be compared: if there is none, nothing was shown.
    pub(crate) outputs: Vec<OutputComparison>,
    /// Operators that jump.
    pub(crate) jumping: Vec<Jumping>,
    /// What was not compared, in sentences.
    pub(crate) gaps: Vec<String>,
    /// Whether all differences are accepted.
    pub(crate) pass: bool,
}

/// Runs both models as they are shipped. All samples must have the same shapes.
///
/// # Errors
/// As [`super::run`].
pub(crate) fn run(
    engine: &dyn Engine,
    subject: &Subject,
    samples: &[Sample],
    options: &Options,
) -> Result<Shipped, Error> {
    let first = samples
        .first()
        .ok_or_else(|| Error::Incomparable("no samples to compare the models on".into()))?;
    let outlines = Outlines::read(subject)?;
    outlines.same_inputs()?;
    let jumps = outlines.original.jumps();
    let common = outlines.common_values();
    let fronts = fronts(&jumps, &common);
    let dims: Vec<(String, Vec<usize>)> = first
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
        .collect();
    // One after the other: each holds the model.
    let run = |model: &[u8], model_dir: Option<&Path>, perturbation: Option<&Perturbation>| {
        let load = LoadOptions {
            precision: Precision::F32,
            input_dims: &dims,
            model_dir,
            extra_outputs: &fronts,
            perturbation,
        };
        let results = run_on(engine, model, &load, samples, options);
        go_on(options).map(|()| results)
    };
    let (model, dir) = (subject.original, subject.model_dir);
    let original = run(model, dir, None)?.map_err(Error::Unsupported)?;
    let shipped = run(subject.shipped, subject.shipped_dir, None)?.map_err(not_the_original)?;
    same_outputs(&original[0], &shipped[0])?;
    let mut moved = vec![];
    for place in 0..MOVES {
        let how = Perturbation::Nudge {
            tensors: outlines.original.coefficients(),
            seed: options.seed.wrapping_add(place),
        };
        moved.push(run(model, dir, Some(&how))?.map_err(Error::Unsupported)?);
    }

    let hidden = jumps.iter().flat_map(|jump| &jump.outputs);
    let hidden: HashSet<&str> = hidden.map(String::as_str).collect();
    let outputs = outlines.original.outputs();
    let outputs = outputs.filter(|name| original[0].contains_key(*name) && !hidden.contains(name));
    let mut found = Shipped {
        samples: samples.len(),
        outputs: vec![],
        jumping: vec![],
        gaps: vec![],
        pass: true,
    };
    for name in outputs.chain(fronts.iter().map(String::as_str)) {
        judge(name, &original, &shipped, &moved, options, &mut found)
            .map_err(|error| Error::Incomparable(format!("output {name:?}: {error}")))?;
    }
    if found.outputs.is_empty() && found.gaps.is_empty() {
        found.gaps.push("every output hangs on an operator that jumps, and no value before it has the same name in both models".into());
    }
    found.jumping = jumps
        .into_iter()
        .map(|jump| Jumping::new(jump, &common, &original, &shipped))
        .collect();
    Ok(found)
}

/// Compares one value.
fn judge(
    name: &str,
    original: &Values,
    shipped: &Values,
    moved: &[Values],
    options: &Options,
    found: &mut Shipped,
) -> bnkit_model::Result<()> {
    let between = distance(name, original, shipped)?;
    let range = between.range();
    let mut noise_floor = least(name, original) * range;
    for moved in moved {
        // A value that changes its shape has no distance.
        let distance = distance(name, original, moved).map_or(f64::INFINITY, |far| far.max_abs());
        noise_floor = noise_floor.max(distance);
    }
    let explicit = options.atol.is_some() || options.rtol.is_some();
    let tolerance = if explicit {
        options.atol.unwrap_or(0.0) + options.rtol.unwrap_or(0.0) * range
    } else {
        options.tolerance_factor * noise_floor
    };
    if !tolerance.is_finite() {
        found.gaps.push(format!(
            "output \"{name}\": a unit in the last place of the constants decides what is finite, or how much there is: nothing was shown \
             for it; --atol or --rtol say what is accepted"
        ));
        return Ok(());
    }
    let metrics = between.metrics();
    if between.finite() < 1.0 {
        let percent = 100.0 * (1.0 - between.finite());
        found.gaps.push(format!(
            "output \"{name}\": {percent:.3} % is not finite in single precision: nothing was shown for that"
        ));
        if between.finite() == 0.0 && metrics.max_abs == 0.0 {
            return Ok(());
        }
    }
    let within = metrics.max_abs <= tolerance;
    found.pass &= within;
    found.outputs.push(OutputComparison {
        name: name.to_owned(),
        max_abs: metrics.max_abs,
        max_rel: metrics.max_rel,
        rms: metrics.rms,
        snr_db: metrics.snr_db,
        argmax_agreement: metrics.argmax_agreement,
        noise_floor,
        tolerance,
        within,
    });
    Ok(())
}
