//! A few BatchNorms with another ε than the rest.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

/// A value that this part of the BatchNorms has is the network's own.
const MOST: f64 = 0.5;

pub(super) const RULE: Rule = Rule {
    code: "mixed-epsilon",
    level: Level::Note,
    needs: Needs::GraphValues,
    action: "compare with the epsilon of these layers in the training code",
    explanation: Some(Explanation {
        code: "mixed-epsilon",
        kind: Kind::Check,
        title: "a BatchNorm has another epsilon than most",
        text: "\
More than half of the BatchNorms have one ε, this one has another. Some networks mean it (a head from another library); often a layer was
replaced, or made by a loader, with its framework's default instead of the network's own ε.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let epsilons: Vec<f64> = subject.known().map(|(_, it)| it.epsilon).collect();
    let count = |epsilon: f64| epsilons.iter().filter(|&&it| it == epsilon).count();
    let most = |epsilon: &f64| count(*epsilon) as f64 > MOST * epsilons.len() as f64;
    let Some(common) = epsilons.iter().copied().find(most) else {
        return Ok(Vec::new());
    };
    let others = subject.known().filter(|(_, it)| it.epsilon != common);
    let found = others.map(|(norm, parameters)| {
        let message = format!(
            "epsilon is {}, that of {} others {}",
            number(parameters.epsilon),
            count(common),
            number(common)
        );
        Found::at(&norm.name, message)
            .with("epsilon", parameters.epsilon)
            .with("common", common)
    });
    Ok(found.collect())
}
