//! NaN, infinities, and variances that ε does not make positive.

use super::{Needs, Rule};
use crate::Result;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::check::{Channels, Level};

pub(super) const RULE: Rule = Rule {
    code: "bad-statistics",
    level: Level::Error,
    needs: Needs::Values,
    action: "look at the training run, or recalibrate with `bnkit recalibrate`",
    explanation: None,
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        for fault in parameters.faults() {
            let tensor = norm.tensor(fault.slot);
            let channels = Channels {
                affected: fault.count,
                of: parameters.channels(),
                first: fault.channel,
            };
            found.push(
                Found::at(&norm.name, fault.say(tensor))
                    .tensor(tensor)
                    .channels(channels)
                    .with("value", fault.value.to_string()),
            );
        }
    }
    Ok(found)
}
