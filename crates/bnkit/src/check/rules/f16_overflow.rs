//! Weights that do not fit float16 once they are folded.

use bnkit_model::DType;

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

pub(super) const RULE: Rule = Rule {
    code: "f16-overflow",
    level: Level::Warning,
    needs: Needs::GraphValues,
    action: "ship this layer as float32 or bfloat16",
    explanation: Some(Explanation {
        code: "f16-overflow",
        kind: Kind::Check,
        title: "a folded constant does not fit float16",
        text: "\
Folding multiplies weights with γ/√(σ²+ε). Here the product is beyond 65504, the end of float16, or the weights are stored as float16 and the
fold was refused because a product would not fit or would lose its digits (`range`). A model of float32 is right as it is; converted to
float16, or run by an engine that computes in float16, the layer gives infinities.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(folded) = subject.graph.as_ref().and_then(|it| it.folded.as_ref()) else {
        return Ok(Vec::new());
    };
    let limit = DType::F16.max_finite().unwrap_or(f64::INFINITY);
    let beyond = |value: f64| DType::F16.round(value) > limit;
    let changes = folded.changes.iter().filter(|it| beyond(it.max_abs));
    let mut found: Vec<Found> = changes
        .map(|change| {
            let message = format!(
                "tensor \"{}\" reaches {} once it is folded; float16 ends at {limit}",
                change.tensor,
                number(change.max_abs)
            );
            Found::at(&change.node, message)
                .tensor(&change.tensor)
                .with("max_abs", change.max_abs)
        })
        .collect();
    for site in &folded.plan.sites {
        if let Some(refusal) = site.refusal.as_ref().filter(|it| it.code == "range") {
            found.push(Found::at(&site.node, refusal.message.as_str()));
        }
    }
    Ok(found)
}
