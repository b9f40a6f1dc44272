//! Channels that are amplified far more than their neighbours.

use super::{Needs, Rule};
use crate::Result;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::check::{Channels, Level};
use crate::explain::{Explanation, Kind};

/// What counts as amplifying strongly at all.
const LARGE: f64 = 100.0;
/// How many times the median channel is too much. Weights before a BatchNorm can have any size, so only the comparison within a layer means
/// something; trained layers stay well below this.
const BY_MEDIAN: f64 = 30.0;
/// Too much whatever the neighbours do: half of the digits of an f32 lie below 1 part in 10⁴.
const EXTREME: f64 = 1e4;

pub(super) const RULE: Rule = Rule {
    code: "exploding-scale",
    level: Level::Warning,
    needs: Needs::Values,
    action: "look at variance and scale of these channels; recalibrate, or train them anew",
    explanation: Some(Explanation {
        code: "exploding-scale",
        kind: Kind::Check,
        title: "a channel is amplified far more than the others of its layer",
        text: "\
The effective scale |γ|/√(σ²+ε) is what a BatchNorm multiplies with, and what folding multiplies the weights with. Here it is above 100 and
above 30 times that of the layer's median channel, or above 10000 in any case. Rounding, quantisation and small changes of the input are
amplified alike, and after folding the weights of this channel dwarf the others.

Usual causes: a channel that was nearly constant on the training data, statistics that do not belong to the weights.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        let scale: Vec<f64> = parameters
            .affine()
            .scale
            .iter()
            .map(|scale| scale.abs())
            .collect();
        let mut sorted: Vec<f64> = scale.iter().copied().filter(|it| it.is_finite()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let Some(&median) = sorted.get(sorted.len() / 2) else {
            continue;
        };
        let limit = EXTREME.min(LARGE.max(BY_MEDIAN * median));
        let exploding = |channel: usize| scale[channel].is_finite() && scale[channel] > limit;
        let Some(channels) = Channels::that(scale.len(), exploding) else {
            continue;
        };
        let largest = sorted[sorted.len() - 1];
        let message = format!(
            "the effective scale is up to {} in {channels}; the median is {}",
            number(largest),
            number(median)
        );
        found.push(
            Found::at(&norm.name, message)
                .tensor(norm.tensor(1))
                .channels(channels)
                .with("scale", largest)
                .with("median", median)
                .with("limit", limit),
        );
    }
    Ok(found)
}
