//! Channels whose variance ε hides.

use super::{Needs, Rule, dead_channel};
use crate::Result;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::check::{Channels, Level};

pub(super) const RULE: Rule = Rule {
    code: "tiny-variance",
    level: Level::Warning,
    needs: Needs::Values,
    action: "look at what feeds these channels; recalibrate with data like that in use",
    explanation: None,
    look,
};

/// Dead channels do not count: they amplify nothing. Neither do negative variances, which are worse.
fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        let dead = dead_channel::limit(parameters);
        let tiny = |channel: usize| {
            parameters.has_tiny_variance(channel)
                && parameters.variance[channel] >= 0.0
                && parameters.gamma[channel].abs() > dead
        };
        let Some(channels) = Channels::that(parameters.channels(), tiny) else {
            continue;
        };
        let scale = parameters.affine().scale;
        let tiny = || (0..parameters.channels()).filter(|&channel| tiny(channel));
        let least = tiny().fold(f64::INFINITY, |least, channel| {
            parameters.variance[channel].min(least)
        });
        let largest = tiny().fold(0.0, |most, channel| scale[channel].abs().max(most));
        let message = format!(
            "variance is far below epsilon {} in {channels}, down to {}; they are scaled by up to {}",
            number(parameters.epsilon),
            number(least),
            number(largest)
        );
        found.push(
            Found::at(&norm.name, message)
                .tensor(norm.tensor(4))
                .channels(channels)
                .with("least", least)
                .with("epsilon", parameters.epsilon)
                .with("scale", largest),
        );
    }
    Ok(found)
}
