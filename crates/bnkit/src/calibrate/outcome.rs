//! What became of each layer, for the reports.

use super::apply::Statistics;
use super::modules::{Module, Stored};
use super::observe::Seen;
use super::options::{MethodOptions, Stability};
use super::report::{
    Change, Extremes, LayerChange, LayerCounts, MethodUsed, Outcome, Sampling, SamplingError,
};
use super::sampling::{Errors, Verdict};
use crate::report::Warning;

impl Extremes {
    /// Of these values; all zero if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        match values.as_slice() {
            [] => Self::default(),
            [min, ..] => Self {
                min: *min,
                median: (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0,
                max: values[values.len() - 1],
            },
        }
    }
}

impl Change {
    /// From the stored statistics to new ones.
    pub(crate) fn between(stored: &Stored, new: &Statistics) -> Self {
        let width = |at: usize| stored.variance[at] + stored.epsilon;
        let channels = 0..stored.mean.len();
        let shift = |at: usize| (new.0[at] - stored.mean[at]).abs() / width(at).sqrt();
        let ratio = |at: usize| ((new.1[at] + stored.epsilon) / width(at)).ln();
        Self {
            mean_shift: Extremes::of(channels.clone().map(shift)),
            log_variance_ratio: Extremes::of(channels.map(ratio)),
            mean_before: Extremes::of(stored.mean.iter().copied()),
            mean_after: Extremes::of(new.0.iter().copied()),
            variance_before: Extremes::of(stored.variance.iter().copied()),
            variance_after: Extremes::of(new.1.iter().copied()),
        }
    }
}

/// What became of a module that was (not) given new statistics.
pub(crate) fn outcome(module: &Module, new: Option<&Statistics>) -> Outcome {
    match (&module.stored, new) {
        _ if !module.chosen => Outcome::Skipped,
        (Err(_), _) => Outcome::Kept,
        (Ok(_), None) => Outcome::NeverRan,
        (Ok(_), Some(_)) => Outcome::Updated,
    }
}

/// Every layer, before and after.
pub(crate) fn layers(
    modules: &[Module],
    new: &[Option<Statistics>],
    seen: &Seen,
    errors: &[Option<Errors>],
) -> Vec<LayerChange> {
    let one = |at: usize| {
        let (module, new, state) = (&modules[at], new[at].as_ref(), seen.states[at].as_ref());
        let outcome = outcome(module, new);
        LayerChange {
            layer: module.name.clone(),
            outcome,
            refusal: match &module.stored {
                Err(refusal) if module.chosen => Some(refusal.clone()),
                _ => None,
            },
            history_weight: state.and_then(|state| state.history),
            batches: state.map_or(0, |state| state.spread.batches),
            elements: state.map_or(0, |state| state.elements),
            change: module
                .target()
                .zip(new)
                .map(|(stored, new)| Change::between(stored, new)),
            error: errors[at]
                .as_ref()
                .filter(|_| state.is_some_and(|state| state.spread.batches > 1))
                .map(|errors| SamplingError {
                    mean: Extremes::of(errors.mean.iter().copied()),
                    variance: Extremes::of(errors.variance.iter().copied()),
                }),
        }
    };
    (0..modules.len()).map(one).collect()
}

/// How many layers have which outcome.
pub(crate) fn count(layers: &[LayerChange]) -> LayerCounts {
    let with = |outcome| {
        layers
            .iter()
            .filter(|layer| layer.outcome == outcome)
            .count()
    };
    LayerCounts {
        layers: layers.len(),
        updated: with(Outcome::Updated),
        never_ran: with(Outcome::NeverRan),
        kept: with(Outcome::Kept),
        skipped: with(Outcome::Skipped),
    }
}

/// The verdict on the amount of data.
pub(crate) fn sampling(verdict: &Verdict, samples: u64, stability: &Stability) -> Sampling {
    Sampling {
        enough: verdict.enough,
        settled: verdict.settled,
        tolerance: stability.tolerance,
        samples_needed: verdict
            .factor
            .map(|factor| (factor * samples as f64).ceil() as u64),
    }
}

/// How the statistics were made.
pub(crate) fn method(options: &MethodOptions, seen: &Seen) -> MethodUsed {
    let mut histories = seen
        .states
        .iter()
        .flatten()
        .filter_map(|state| state.history);
    let first = histories.next();
    MethodUsed {
        name: options.method,
        convention: options.convention,
        history_weight: first.filter(|first| histories.all(|other| other == *first)),
    }
}

/// What a person should know about the modules.
pub(crate) fn warnings(modules: &[Module]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for module in modules.iter().filter(|module| module.target().is_some()) {
        let name = &module.name.node;
        if !module.name.calls.is_empty() {
            warnings.push(Warning {
                code: "called-several-times",
                message: format!(
                    "\"{name}\" and {} more read the same scale, bias, mean and variance: they are one module called several times and share their statistics",
                    module.name.calls.len()
                ),
            });
        }
        if module.training {
            warnings.push(Warning {
                code: "still-training",
                message: format!(
                    "\"{name}\" is in training mode in the file and stays so: it will not use its running statistics until it is in eval mode, as `bnkit fold` makes it"
                ),
            });
        }
    }
    warnings
}

/// A word on too little data.
pub(crate) fn few_samples(sampling: &Sampling, batches: u64) -> Option<Warning> {
    let message = match sampling.enough {
        Some(true) => return None,
        None => format!(
            "{batches} batches are too few to say how certain the statistics are: give more samples or a smaller --batch-size"
        ),
        Some(false) => format!(
            "the standard errors are within {} in {:.1} % of the channels only{}",
            sampling.tolerance,
            100.0 * sampling.settled,
            match sampling.samples_needed {
                Some(needed) => format!(": about {needed} samples would be enough"),
                None => String::new(),
            }
        ),
    };
    Some(Warning {
        code: "few-samples",
        message,
    })
}
