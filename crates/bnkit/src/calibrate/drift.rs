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

/// One channel of a layer.
pub(crate) fn channel(
    node: &str,
    at: usize,
    stored: &Stored,
    observed: &Statistics,
    errors: Option<&Errors>,
    limits: &DriftLimits,
) -> ChannelDrift {
    let delta = observed.0[at] - stored.mean[at];
    let ours = stored.variance[at] + stored.epsilon;
    let theirs = observed.1[at] + stored.epsilon;
    let mean_drift = delta.abs() / ours.sqrt();
    let var_drift = (theirs / ours).ln();
    let kl = 0.5 * ((ours + delta * delta) / theirs + (theirs + delta * delta) / ours) - 1.0;
    // Errors come relative to what was observed; the mean's is wanted in units of the stored deviation.
    let known = |error: f64| error.is_finite().then_some(error);
    let mean_error = errors.and_then(|errors| known(errors.mean[at] * (theirs / ours).sqrt()));
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
