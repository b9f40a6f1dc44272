//! An ε that no framework has.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::{Found, number};
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

/// ε of frameworks and of widely used networks: PyTorch, ONNX, flax, Paddle 1e-5; Keras, TensorFlow, YOLO, EfficientNet 1e-3; ResNets
/// of Keras 1.001e-5; MXNet 2e-5; Caffe2 and others 1e-4, 1e-6.
const USUAL: [f64; 6] = [1e-3, 1e-4, 2e-5, 1.001e-5, 1e-5, 1e-6];
/// How far a stored f32 (or a number in between two that are usual) may be off.
const TOLERANCE: f64 = 1e-3;

pub(super) const RULE: Rule = Rule {
    code: "odd-epsilon",
    level: Level::Warning,
    needs: Needs::GraphValues,
    action: "compare with the epsilon of the training code",
    explanation: Some(Explanation {
        code: "odd-epsilon",
        kind: Kind::Check,
        title: "an epsilon that no framework has",
        text: "\
Frameworks and well-known networks use 1e-3, 1e-4, 2e-5, 1.001e-5, 1e-5 and 1e-6. Another one is either meant or a mistake of a converter (0, a
number that went through float16, the default of another framework). Where a variance is small, ε decides what the channel is multiplied
with, so a wrong one changes what the network computes, in a few channels, by little: hard to notice otherwise.

State dicts hold no ε; this rule looks at models.",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for (norm, parameters) in subject.known() {
        let epsilon = parameters.epsilon;
        let usual = |usual: &f64| (epsilon / usual - 1.0).abs() <= TOLERANCE;
        if USUAL.iter().any(usual) {
            continue;
        }
        let message = format!("epsilon is {}", number(epsilon));
        found.push(Found::at(&norm.name, message).with("epsilon", epsilon));
    }
    Ok(found)
}
