//! When a difference is rounding, and when it is a fault.
//!
//! For each output, o32 and o64 are the original's results in f32 and f64, e64 those of the exact constants in f64, r64 those of the
//! exact constants rounded to their stored types, and s32 those of the shipped model. All norms are max |Δ| over all samples.
//!
//! * **Level 2**: |o64 − e64| ≤ 1e-9 of the output's range.
//! * **Level 3**: the noise floor is the largest of
//!   |o32 − o64|, what f32 arithmetic costs the original,
//!   and two units in the last place of the range, because an original that happens to be exact must not set a floor of zero.
//!   The shipped model passes if |s32 − o32| ≤ factor · floor, **or** if |s32 − o64| is: where the original's own f32 arithmetic
//!   cancels, the folded model may be the better one, and being nearer to the truth is no fault.
//!
//! Where a model of exact constants passes level 2 and fails level 3, two more runs, one after the other, may explain the difference.
//! First the floor also counts |r64 − e64|, what storing the new constants costs: no fp16 model would pass without. Then, as the
//! original may be ill-conditioned (it divides by values near zero, say), which a single run need not show, it counts |o64 − m64| as
//! well, m64 being the original in f64 with every constant moved by half a unit in the last place: a model cannot be held to more than
//! its own constants carry.
//!
//! The floor never contains the shipped model's own result: a wrong constant cannot excuse itself. It may be large where o32 is bad;
//! what a coarse level 3 lets through there, level 2 does not. Where o32 overflows, level 3 can say nothing, and level 2 decides.
//! Where f64 has nothing finite either, nothing is shown; [`OutputReport::unshown`] says so.
//!
//! Without exact constants (two models of unknown descent), e64 is the shipped model in f64, and r64 the same with every constant that
//! the original does not have moved by half a unit in the last place of its stored type. Level 2 then allows factor · |r64 − e64|.

use bnkit_model::Result;
use serde::Serialize;

use super::{Options, Values};
use crate::verify::metrics::{Comparison, Metrics, relative};

/// The relative difference that level 2 allows.
const DOUBLE_LIMIT: f64 = 1e-9;
/// The least noise floor, in units in the last place of the output's range.
const LEAST_ULPS: f64 = 2.0;

/// The outcome of level 2.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DoubleReport {
    /// The largest difference, relative to the output's range.
    pub max_rel: f64,
    /// Whether it is small enough.
    pub pass: bool,
}

/// The outcome of level 3 for one output.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputReport {
    /// The output, or the value in front of an operator that jumps.
    pub name: String,
    /// How far the shipped model is from the original, both as they are shipped.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The share of elements that are finite in both models in f32; only these were compared.
    pub finite: f64,
    /// The same in f64, at level 2.
    pub finite_in_double: f64,
    /// What rounding explains.
    pub noise_floor: f64,
    /// What is accepted.
    pub tolerance: f64,
    /// Whether the difference is accepted.
    pub pass: bool,
}

impl OutputReport {
    /// Whether no element could be compared at any level.
    pub fn unshown(&self) -> bool {
        self.finite_in_double == 0.0
    }

    /// What was not compared, if anything.
    pub fn gap(&self) -> Option<String> {
        let name = &self.name;
        if self.unshown() {
            return Some(format!(
                "output \"{name}\": no element is finite, not even in double precision: nothing was shown for it"
            ));
        }
        (self.finite < 1.0).then(|| {
            let percent = 100.0 * (1.0 - self.finite);
            let precision = match self.finite_in_double {
                1.0 => "there, the proof is that of double precision",
                _ => "some of it not in double precision either",
            };
            format!(
                "output \"{name}\": {percent:.3} % is not finite in single precision; {precision}"
            )
        })
    }
}

/// All results, sample by sample.
pub(super) struct Runs<'a> {
    pub(super) original64: &'a Values,
    pub(super) original32: &'a Values,
    pub(super) exact64: &'a Values,
    /// Those constants as they are stored, in f64, where that was needed.
    pub(super) rounded64: Option<&'a Values>,
    pub(super) shipped32: &'a Values,
    /// The original in f64 with all constants moved, where that was needed.
    pub(super) moved64: Option<&'a Values>,
    /// Whether `exact64` is of constants before rounding.
    pub(super) exact_known: bool,
}

/// Levels 2 and 3 for one value.
pub(super) fn judge(
    name: &str,
    runs: &Runs,
    options: &Options,
) -> Result<(DoubleReport, OutputReport)> {
    let truth = runs.original64;
    let logic = distance(name, truth, runs.exact64)?;
    let range = logic.range();
    let storing = match runs.rounded64 {
        Some(rounded) => distance(name, runs.exact64, rounded)?.max_abs(),
        None => 0.0,
    };
    let arithmetic = distance(name, truth, runs.original32)?.max_abs();
    let found = distance(name, runs.original32, runs.shipped32)?;
    let from_truth = distance(name, truth, runs.shipped32)?.max_abs();

    let finite_in_double = logic.finite();
    let logic = logic.max_abs();
    let allowed = if runs.exact_known {
        0.0
    } else {
        options.tolerance_factor * storing
    };
    let double = DoubleReport {
        max_rel: relative(logic, range),
        pass: logic <= allowed.max(DOUBLE_LIMIT * range),
    };
    let condition = match runs.moved64 {
        Some(moved) => distance(name, truth, moved)?.max_abs(),
        None => 0.0,
    };
    let noise_floor = arithmetic
        .max(storing)
        .max(condition)
        .max(least(name, runs.original32) * range);
    let explicit = options.atol.is_some() || options.rtol.is_some();
    let tolerance = if explicit {
        options.atol.unwrap_or(0.0) + options.rtol.unwrap_or(0.0) * range
    } else {
        options.tolerance_factor * noise_floor
    };
    let pass = if tolerance.is_finite() {
        found.max_abs() <= tolerance || from_truth <= tolerance
    } else {
        double.pass
    };
    let report = OutputReport {
        name: name.to_owned(),
        metrics: found.metrics(),
        finite: found.finite(),
        finite_in_double,
        noise_floor,
        tolerance,
        pass,
    };
    Ok((double, report))
}

/// The least noise floor, relative to the range; integers and bools have none.
pub(super) fn least(name: &str, original32: &Values) -> f64 {
    let dtype = original32
        .first()
        .and_then(|values| Some(values.get(name)?.dtype()));
    match dtype {
        Some(bnkit_model::DType::F64) => LEAST_ULPS * f64::EPSILON,
        Some(dtype) if dtype.is_float() => LEAST_ULPS * f64::from(f32::EPSILON),
        _ => 0.0,
    }
}

/// How far the values of this name are apart, over all samples.
pub(super) fn distance(name: &str, reference: &Values, found: &Values) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    for (reference, found) in reference.iter().zip(found) {
        let missing = || bnkit_model::Error::invalid("one of the models does not have it");
        let reference = reference.get(name).ok_or_else(missing)?;
        let found = found.get(name).ok_or_else(missing)?;
        if reference.dims() != found.dims() {
            return Err(bnkit_model::Error::invalid(format!(
                "its shape is {:?} in one model and {:?} in the other",
                reference.dims(),
                found.dims()
            )));
        }
        comparison.add(reference, found)?;
    }
    Ok(comparison)
}

/// The share of equal elements, over these outputs and all samples; `None` if shapes differ.
pub(super) fn agreement(names: &[String], a: &Values, b: &Values) -> Option<f64> {
    let (mut equal, mut all) = (0usize, 0usize);
    for (a, b) in a.iter().zip(b) {
        for name in names {
            let (a, b) = (a.get(name)?, b.get(name)?);
            if a.dims() != b.dims() {
                return None;
            }
            let (a, b) = (a.to_f64().ok()?, b.to_f64().ok()?);
            all += a.len();
            equal += a.iter().zip(&b).filter(|(a, b)| a == b).count();
        }
    }
    (all > 0).then(|| equal as f64 / all as f64)
}
