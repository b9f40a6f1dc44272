//! A count of batches that does not go with the statistics.

use super::never_updated::as_made;
use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

pub(super) const RULE: Rule = Rule {
    code: "batches-not-counted",
    level: Level::Note,
    needs: Needs::StateDict,
    action: "make sure that the statistics belong to these weights",
    explanation: Some(Explanation {
        code: "batches-not-counted",
        kind: Kind::Check,
        title: "num_batches_tracked is 0, and the statistics are not as they were made",
        text: "\
PyTorch counts the batches that a BatchNorm has seen. Here it has seen none, and yet its mean and variance are not 0 and 1: they were
converted from another framework, loaded from a file without counts, or set by hand. In eval mode the count means nothing. With
`momentum=None` PyTorch divides by it, so going on with the training forgets the statistics at once.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let uncounted = subject
        .known()
        .filter(|(norm, parameters)| norm.batches == Some(0) && !as_made(parameters));
    let message = "num_batches_tracked is 0, but mean and variance are not 0 and 1";
    Ok(uncounted
        .map(|(norm, _)| Found::at(&norm.name, message).tensor(norm.tensor(3)))
        .collect())
}
