//! Stored against observed statistics, channel by channel.
//!
//! With Δ the difference of the means, σ₁² the stored and σ₂² the observed variance, ε added to both: the mean drift is |Δ|/σ₁, the variance
//! drift ln(σ₂²/σ₁²), and the symmetric KL divergence of the two Gaussians ½[(σ₁²+Δ²)/σ₂² + (σ₂²+Δ²)/σ₁²] − 1. A channel counts as
//! drifted if one of the three is over its limit *and* the difference behind it is larger than some standard errors of what was observed: the
//! mean's for the mean, the variance's for the variance, either one's for the divergence.

use super::apply::Statistics;
use super::modules::{Module, Stored};
use super::options::DriftLimits;
use super::outcome::outcome;
use super::report::{ChannelDrift, Extremes, LayerDrift};
use super::sampling::Errors;

/// How far two Gaussians are apart: what a channel of a BatchNorm had, and what it has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Distance {
    /// |Δ|/σ₁.
    pub mean: f64,
    /// ln(σ₂²/σ₁²).
    pub variance: f64,
    /// The symmetric KL divergence.
    pub kl: f64,
}

impl Distance {
    /// From (mean, variance) to (mean, variance). It means something for positive variances only.
    pub(crate) fn between(before: (f64, f64), after: (f64, f64), epsilon: f64) -> Self {
        let delta = after.0 - before.0;
        let (ours, theirs) = (before.1 + epsilon, after.1 + epsilon);
        let square = delta * delta;
        Self {
            mean: delta.abs() / ours.sqrt(),
            variance: (theirs / ours).ln(),
            kl: 0.5 * ((ours + square) / theirs + (theirs + square) / ours) - 1.0,
        }
    }
}

/// One channel of a layer.
pub(crate) fn channel(
    node: &str,
    at: usize,
    stored: &Stored,
    observed: &Statistics,
    errors: Option<&Errors>,
    limits: &DriftLimits,
) -> ChannelDrift {
    let before = (stored.mean[at], stored.variance[at]);
    let distance = Distance::between(before, (observed.0[at], observed.1[at]), stored.epsilon);
    let (mean_drift, var_drift, kl) = (distance.mean, distance.variance, distance.kl);
    // Errors come relative to what was observed; the mean's is wanted in units of the stored deviation.
    let known = |error: f64| error.is_finite().then_some(error);
    let ratio = (observed.1[at] + stored.epsilon) / (stored.variance[at] + stored.epsilon);
    let mean_error = errors.and_then(|errors| known(errors.mean[at] * ratio.sqrt()));
    let var_error = errors.and_then(|errors| known(errors.variance[at]));
    let beyond = |difference: f64, error: Option<f64>| {
        error.is_some_and(|error| difference > limits.errors * error)
    };
    let mean_real = beyond(mean_drift, mean_error);
    let var_real = beyond(var_drift.abs(), var_error);
    let drifted = mean_real && mean_drift > limits.max_mean_drift
        || var_real && var_drift.abs() > limits.max_var_drift
        || (mean_real || var_real) && kl > limits.max_kl;
    ChannelDrift {
        node: node.to_owned(),
        channel: at,
        stored_mean: stored.mean[at],
        observed_mean: observed.0[at],
        stored_variance: stored.variance[at],
        observed_variance: observed.1[at],
        mean_drift,
        var_drift,
        kl,
        mean_error,
        var_error,
        drifted,
    }
}

/// One layer with all its channels.
pub(crate) fn layer(
    module: &Module,
    observed: Option<&Statistics>,
    elements: u64,
    errors: Option<&Errors>,
    limits: &DriftLimits,
) -> (LayerDrift, Vec<ChannelDrift>) {
    let channels: Vec<ChannelDrift> = match (module.target(), observed) {
        (Some(stored), Some(observed)) => (0..stored.mean.len())
            .map(|at| channel(&module.name.node, at, stored, observed, errors, limits))
            .collect(),
        _ => Vec::new(),
    };
    let over = |value: fn(&ChannelDrift) -> f64| Extremes::of(channels.iter().map(value));
    let layer = LayerDrift {
        layer: module.name.clone(),
        outcome: outcome(module, observed),
        refusal: match &module.stored {
            Err(refusal) if module.chosen => Some(refusal.clone()),
            _ => None,
        },
        elements,
        mean_drift: over(|channel| channel.mean_drift),
        var_drift: over(|channel| channel.var_drift.abs()),
        kl: over(|channel| channel.kl),
        drifted: channels.iter().filter(|channel| channel.drifted).count(),
        kl_by_channel: channels.iter().map(|channel| channel.kl).collect(),
    };
    (layer, channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_of_two_gaussians() {
        // Δ = 3, σ₁² = 4, σ₂² = 9: 3/2, ln(9/4), ½[(4 + 9)/9 + (9 + 9)/4] − 1.
        let distance = Distance::between((1.0, 3.0), (4.0, 8.0), 1.0);
        assert_eq!(distance.mean, 1.5);
        assert!((distance.variance - 2.25f64.ln()).abs() < 1e-15);
        assert!((distance.kl - (0.5 * (13.0 / 9.0 + 4.5) - 1.0)).abs() < 1e-15);
    }

    #[test]
    fn equal_ones_have_none_and_nan_has_no_number() {
        let same = Distance::between((1.0, 2.0), (1.0, 2.0), 1e-5);
        assert_eq!((same.mean, same.variance, same.kl), (0.0, 0.0, 0.0));
        let none = Distance::between((f64::NAN, 1.0), (0.0, 1.0), 0.0);
        assert!(none.mean.is_nan() && none.kl.is_nan());
    }
}
