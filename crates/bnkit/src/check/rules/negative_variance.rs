//! Variances below 0 that ε makes positive.

use super::{Needs, Rule};
use crate::Result;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::check::{Channels, Level};
use crate::explain::{Explanation, Kind};

pub(super) const RULE: Rule = Rule {
    code: "negative-variance",
    level: Level::Error,
    needs: Needs::Values,
    action: "recalibrate; if statistics were merged or averaged, find the step that subtracted",
    explanation: Some(Explanation {
        code: "negative-variance",
        kind: Kind::Check,
        title: "a variance is negative, and ε hides it",
        text: "\
No data has a negative variance. Adding ε makes the number under the root positive, so the layer computes something, and it is not what
was trained. Usual causes: E[x²] − E[x]² computed in f32, statistics that were extrapolated or merged, a cast. A variance that ε does
not make positive is `bad-statistics`.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        let variance = &parameters.variance;
        let hidden = |channel: usize| {
            variance[channel] < 0.0 && variance[channel] + parameters.epsilon > 0.0
        };
        let Some(channels) = Channels::that(variance.len(), hidden) else {
            continue;
        };
        let least = (0..variance.len())
            .filter(|&channel| hidden(channel))
            .fold(0.0, |least, channel| variance[channel].min(least));
        let message = format!(
            "variance is negative in {channels}, down to {}; epsilon {} hides it",
            number(least),
            number(parameters.epsilon)
        );
        found.push(
            Found::at(&norm.name, message)
                .tensor(norm.tensor(4))
                .channels(channels)
                .with("least", least)
                .with("epsilon", parameters.epsilon),
        );
    }
    Ok(found)
}
