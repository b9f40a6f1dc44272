//! Dropouts that a caller can switch on.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::clean::{DropoutMode, dropout_mode};

pub(super) const RULE: Rule = Rule {
    code: "dropout-training-mode",
    level: Level::Warning,
    needs: Needs::Graph,
    action: "export in eval mode; otherwise make sure that callers switch it off",
    explanation: None,
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(graph) = &subject.graph else {
        return Ok(Vec::new());
    };
    let context = graph.context();
    let switched = graph.model.nodes().filter(|(id, node)| {
        node.is("Dropout") && dropout_mode(&context, *id) == DropoutMode::Unknown
    });
    let message = "the Dropout is switched on and off at run time";
    Ok(switched
        .map(|(id, _)| Found::at(graph.model.label(id), message))
        .collect())
}
