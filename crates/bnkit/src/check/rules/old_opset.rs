//! Operators that are older than what engines run.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;

/// The oldest opset with today's broadcasting, and the oldest one that ONNX Runtime promises to run.
const OLDEST: i64 = 7;

pub(super) const RULE: Rule = Rule {
    code: "old-opset",
    level: Level::Warning,
    needs: Needs::Graph,
    action: "convert it to a newer opset (onnx.version_converter), or export it anew",
    explanation: None,
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(graph) = &subject.graph else {
        return Ok(Vec::new());
    };
    let opset = graph.model.scope(graph.model.main()).onnx_opset();
    let old = opset.filter(|&opset| opset < OLDEST);
    let found = old.map(|opset| {
        let message =
            format!("opset {opset}: operators before opset {OLDEST} broadcast by other rules");
        Found::at("", message).with("opset", opset as f64)
    });
    Ok(found.into_iter().collect())
}
