//! Channels that are the same for every input.

use super::{Needs, Rule};
use crate::Result;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::check::{Channels, Level};
use crate::site::Parameters;

/// A γ below this part of 1 or of the layer's largest, whichever is less, is none: what the channel then adds to a sum with the others is
/// about the rounding of an f32 (2⁻²⁴). Weight decay leaves such numbers instead of 0.
const NEAR_ZERO: f64 = 1e-7;

pub(super) const RULE: Rule = Rule {
    code: "dead-channel",
    level: Level::Note,
    needs: Needs::Values,
    action: "nothing is wrong with the fold; the channels can be pruned",
    explanation: None,
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        let limit = limit(parameters);
        let dead = |channel: usize| parameters.gamma[channel].abs() <= limit;
        let Some(channels) = Channels::that(parameters.channels(), dead) else {
            continue;
        };
        let largest = (0..parameters.channels())
            .filter(|&channel| dead(channel))
            .fold(0.0, |most, channel| {
                parameters.gamma[channel].abs().max(most)
            });
        let what = match largest {
            0.0 => "scale is 0",
            _ => "scale is nearly 0",
        };
        let up_to = match largest {
            0.0 => String::new(),
            largest => format!(", at most {}", number(largest)),
        };
        let message = format!("{what} in {channels}{up_to}: they are constant");
        found.push(
            Found::at(&norm.name, message)
                .tensor(norm.tensor(1))
                .channels(channels)
                .with("largest", largest),
        );
    }
    Ok(found)
}

/// The largest |γ| that is as good as 0.
pub(super) fn limit(parameters: &Parameters) -> f64 {
    let gamma = parameters.gamma.iter();
    let largest = gamma.fold(0.0, |most: f64, gamma| gamma.abs().max(most));
    NEAR_ZERO * largest.min(1.0)
}
