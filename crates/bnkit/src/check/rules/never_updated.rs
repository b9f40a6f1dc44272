//! Statistics that are as they were made.

use super::{Needs, Rule};
use crate::Result;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::check::{Channels, Level};
use crate::explain::{Explanation, Kind};
use crate::site::Parameters;

pub(super) const RULE: Rule = Rule {
    code: "statistics-never-updated",
    level: Level::Error,
    needs: Needs::Values,
    action: "recalibrate with `bnkit recalibrate`, or suppress it if the layer is not in use",
    explanation: Some(Explanation {
        code: "statistics-never-updated",
        kind: Kind::Check,
        title: "running mean 0 and variance 1 in every channel",
        text: "\
Every framework starts with a running mean of 0 and a running variance of 1, and no data leaves them there exactly. The layer was never run
in training mode, its statistics were reset, or they were lost on the way (weights loaded without buffers). In eval mode it normalises
nothing, while the weights around it were trained with a layer that did.

Not meant: an identity, which is what `fold --identity-bn` leaves (γ = √(1 + ε) in every channel). A branch that is only used in training (an
auxiliary head) is the usual harmless cause: suppress it by name.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        if !as_made(parameters) || is_identity(parameters) {
            continue;
        }
        let channels = Channels::all(parameters.channels());
        let counted = match norm.batches {
            Some(batches) => format!("; num_batches_tracked is {batches}"),
            None => String::new(),
        };
        let message = format!("mean is 0 and variance 1 in {channels}{counted}");
        let mut one = Found::at(&norm.name, message)
            .tensor(norm.tensor(4))
            .channels(channels);
        if let Some(batches) = norm.batches {
            one = one.with("num_batches_tracked", batches as f64);
        }
        found.push(one);
    }
    Ok(found)
}

/// Whether mean and variance are what every framework starts with.
pub(super) fn as_made(parameters: &Parameters) -> bool {
    parameters.channels() > 0
        && parameters.mean.iter().all(|&mean| mean == 0.0)
        && parameters.variance.iter().all(|&variance| variance == 1.0)
}

/// Whether γ is √(1 + ε) for some usual ε, so that s = 1: nobody trains that.
fn is_identity(parameters: &Parameters) -> bool {
    /// γ² − 1 of an identity: the largest ε that is in use.
    const MOST: f64 = 1.1e-2;
    let first = parameters.gamma[0];
    first > 1.0
        && first * first - 1.0 <= MOST
        && parameters.gamma.iter().all(|&gamma| gamma == first)
}
