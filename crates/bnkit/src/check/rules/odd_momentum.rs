//! A momentum of the other convention.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

/// Below it, the batch would weigh more than all of the history.
const LEAST: f64 = 0.5;
/// ONNX's default.
const DEFAULT: f32 = 0.9;

pub(super) const RULE: Rule = Rule {
    code: "odd-momentum",
    level: Level::Warning,
    needs: Needs::Graph,
    action: "nothing if the model is not trained further; else set it to 1 minus its value",
    explanation: Some(Explanation {
        code: "odd-momentum",
        kind: Kind::Check,
        title: "a momentum that looks like the other convention",
        text: "\
In ONNX (and Keras) the momentum is the weight of the history, 0.9 by default; in PyTorch it is the weight of the batch, 0.1 by default. A
momentum below 0.5 says in ONNX that the last batch outweighs all before it, which nobody wants: most likely PyTorch's number was written
unchanged.

Eval mode does not read it. It counts for training on, and for `bnkit recalibrate --method ema`, which takes it from the node unless
`--momentum` or `--convention torch` says otherwise.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(graph) = &subject.graph else {
        return Ok(Vec::new());
    };
    let context = graph.context();
    let mut found = Vec::new();
    for norm in &subject.norms {
        let Some(node) = norm.node else { continue };
        // An attribute that each caller of a function sets is not known here.
        let Ok(momentum) = context.float(node, "momentum", DEFAULT) else {
            continue;
        };
        if momentum >= LEAST {
            continue;
        }
        let message = format!(
            "momentum is {}: in ONNX that is the weight of the history",
            number(momentum)
        );
        found.push(Found::at(&norm.name, message).with("momentum", momentum));
    }
    Ok(found)
}
